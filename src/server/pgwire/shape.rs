//! What is left of a text when the values that its columns are to equal are taken out: `SELECT * FROM v WHERE k = 7` and
//! `… k = 8` have one shape. Drivers that put values into texts, and people, send such texts without an end, each only once.
//!
//! ```text
//!     SELECT n FROM v WHERE k = 7 AND name = 'it''s'   ──►   SELECT n FROM v WHERE k = $1 AND name = $2   with 7, "it's"
//! ```
//!
//! No more is looked for than what means the same for certain: whole numbers and plain strings between `name =` and the
//! end of the condition. A parameter is an expression wherever a literal is one, so both are parsed alike; whether it is
//! also of the type that the literal has there, [`Shape::fits`] tells.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

/// Values in one text: more are not from a search for a row.
const MAX_VALUES: usize = 8;

/// Bytes of the longest text that is looked at.
const MAX_TEXT: usize = 2048;

/// See the file header.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// The text with parameters in place of the values.
    pub text: String,
    pub values: Vec<ScalarValue>,
}

impl Shape {
    /// Of a query that compares something with values; `None` for all others, and where the text has what is not
    /// understood here (comments, parameters, other forms of strings).
    pub fn of(text: &str) -> Option<Shape> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let tokens = tokens(text)?;
        if !tokens.first()?.is_word(text, "select") {
            return None;
        }
        let (mut shape, mut values, mut copied) = (String::with_capacity(text.len()), Vec::new(), 0);
        for (at, token) in tokens.iter().enumerate() {
            if let Some(value) = token.value(text)
                && is_compared(text, &tokens[..at])
                && ends_condition(text, tokens.get(at + 1))
            {
                values.push(value);
                shape.push_str(&text[copied..token.start]);
                shape.push('$');
                shape.push_str(&values.len().to_string());
                copied = token.end;
            }
        }
        if values.is_empty() || values.len() > MAX_VALUES {
            return None;
        }
        shape.push_str(&text[copied..]);
        Some(Shape { text: shape, values })
    }

    /// Texts with the same key differ in nothing but values of the same kinds.
    pub fn key(&self) -> String {
        let kind = |value: &ScalarValue| if matches!(value, ScalarValue::Int64(_)) { 'n' } else { 's' };
        self.values.iter().map(kind).chain([' ']).chain(self.text.chars()).collect()
    }

    /// Whether the values are what the parameters are planned as: a number for a column of whole numbers, a string for one
    /// of texts. Any other pair has rules of its own (`'yesterday'` for a time, `1.0` for a double).
    pub fn fits(&self, planned: &[Option<&DataType>]) -> bool {
        let fits = |(value, planned): (&ScalarValue, &Option<&DataType>)| match (value, planned) {
            (ScalarValue::Int64(_), Some(planned)) => planned.is_signed_integer(),
            (_, Some(planned)) => planned.is_string(),
            (_, None) => false,
        };
        self.values.len() == planned.len() && self.values.iter().zip(planned).all(fits)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Word,
    /// `"name"`.
    Quoted,
    Number,
    String,
    /// One character that is none of these.
    Sign(u8),
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

impl Token {
    fn is_word(&self, text: &str, word: &str) -> bool {
        self.kind == Kind::Word && text[self.start..self.end].eq_ignore_ascii_case(word)
    }

    /// What a literal stands for.
    fn value(&self, text: &str) -> Option<ScalarValue> {
        match self.kind {
            Kind::Number => text[self.start..self.end].parse::<i64>().ok().map(ScalarValue::from),
            Kind::String => Some(ScalarValue::from(text[self.start + 1..self.end - 1].replace("''", "'"))),
            Kind::Word | Kind::Quoted | Kind::Sign(_) => None,
        }
    }
}

/// Whether the text before a value ends in `WHERE name =` or `AND name =`.
fn is_compared(text: &str, before: &[Token]) -> bool {
    let Some((Token { kind: Kind::Sign(b'='), .. }, mut before)) = before.split_last() else { return false };
    loop {
        let Some((Token { kind: Kind::Word | Kind::Quoted, .. }, rest)) = before.split_last() else { return false };
        match rest.split_last() {
            Some((Token { kind: Kind::Sign(b'.'), .. }, rest)) => before = rest,
            Some((token, _)) => return ["where", "and"].iter().any(|word| token.is_word(text, word)),
            None => return false,
        }
    }
}

/// Whether nothing behind a value belongs to it, such as `+ 1` or `::date`.
fn ends_condition(text: &str, next: Option<&Token>) -> bool {
    match next {
        None | Some(Token { kind: Kind::Sign(b';' | b')'), .. }) => true,
        Some(token) => ["and", "order", "group", "limit", "offset"].iter().any(|word| token.is_word(text, word)),
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let bytes = text.as_bytes();
    let (mut tokens, mut start) = (Vec::with_capacity(32), 0);
    while let Some(&first) = bytes.get(start) {
        if first.is_ascii_whitespace() {
            start += 1;
            continue;
        }
        let run = |of: fn(u8) -> bool| start + bytes[start..].iter().take_while(|byte| of(**byte)).count();
        let (kind, end) = match first {
            b'\'' => (Kind::String, quoted(bytes, start)?),
            b'"' => (Kind::Quoted, quoted(bytes, start)?),
            b'0'..=b'9' => (Kind::Number, run(|byte| byte.is_ascii_digit())),
            _ if is_of_word(first) => (Kind::Word, run(is_of_word)),
            // A parameter or a string between dollars; characters that are escaped.
            b'$' | b'\\' | 0 => return None,
            b'-' | b'/' if bytes.get(start + 1).is_some_and(|next| [b'-', b'*'].contains(next)) => return None,
            sign => (Kind::Sign(sign), start + 1),
        };
        // `E'…'`, `1.5`, `1e5`, `1_000`, and two strings that are one: more than the token that they begin with.
        let next = bytes.get(end).copied().unwrap_or(b' ');
        let goes_on = match kind {
            Kind::Word | Kind::String => next == b'\'' || next == b'"',
            Kind::Number => next == b'.' || is_of_word(next),
            Kind::Quoted | Kind::Sign(_) => false,
        };
        if goes_on {
            return None;
        }
        tokens.push(Token { kind, start, end });
        start = end;
    }
    Some(tokens)
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Behind the end of what is quoted here; the quote itself is doubled within. `None` where it has no end.
fn quoted(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let mut at = start + 1;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == quote)? + 1;
        if bytes.get(at) != Some(&quote) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<(String, Vec<String>)> {
        Shape::of(text).map(|shape| (shape.text, shape.values.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn values_are_taken_out_where_they_mean_the_same() {
        for (text, shape, values) in [
            ("SELECT * FROM v WHERE k = 7", "SELECT * FROM v WHERE k = $1", &["7"][..]),
            ("select a from v where v.k=7;", "select a from v where v.k=$1;", &["7"]),
            (
                "SELECT 1, 'x' FROM v WHERE \"k\" = 'it''s' AND n = 0012 ORDER BY 1",
                "SELECT 1, 'x' FROM v WHERE \"k\" = $1 AND n = $2 ORDER BY 1",
                &["it's", "12"],
            ),
            ("SELECT (SELECT 1 FROM v WHERE k = '')", "SELECT (SELECT 1 FROM v WHERE k = $1)", &[""]),
            // Only the second.
            (
                "SELECT * FROM v WHERE k = 7 OR 1 = 1 AND k = 'ü' LIMIT 1",
                "SELECT * FROM v WHERE k = 7 OR 1 = 1 AND k = $1 LIMIT 1",
                &["ü"],
            ),
            ("SELECT * FROM v WHERE a = 1 + 1 AND b = 2", "SELECT * FROM v WHERE a = 1 + 1 AND b = $1", &["2"]),
        ] {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            assert_eq!(of(text), Some((shape.to_string(), values)), "{text}");
        }
    }

    #[test]
    fn other_texts_have_none() {
        for text in [
            "",
            "SELECT 1",
            "SELECT k = 7 FROM v",
            "DELETE FROM v WHERE k = 7",
            "SELECT * FROM v WHERE k = -7",
            "SELECT * FROM v WHERE k = 7.5",
            "SELECT * FROM v WHERE k = 1e5",
            "SELECT * FROM v WHERE k >= 7",
            "SELECT * FROM v WHERE k = 7 + 1",
            "SELECT * FROM v WHERE k = 7 OR true",
            "SELECT * FROM v WHERE k = '7'::bigint",
            "SELECT * FROM v WHERE k = '7' 'x'",
            "SELECT * FROM v WHERE k = E'7'",
            "SELECT * FROM v WHERE k = 'open",
            "SELECT * FROM v WHERE k = 99999999999999999999",
            "SELECT * FROM v WHERE lower(k) = 'x'",
            "SELECT * FROM v WHERE k = 7 -- and more",
            "SELECT * FROM v /* none */ WHERE k = 7",
            "SELECT * FROM v WHERE k = 7 AND n = $1",
            "SELECT $$x$$ FROM v WHERE k = 7",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn keys_tell_kinds_apart() {
        let key = |text| Shape::of(text).expect("it has one").key();
        assert_eq!(key("SELECT * FROM v WHERE k = 7"), key("SELECT * FROM v WHERE k = 8"));
        assert_ne!(key("SELECT * FROM v WHERE k = 7"), key("SELECT * FROM v WHERE k = '7'"));
        let shape = Shape::of("SELECT * FROM v WHERE k = 7 AND n = 'x'").expect("it has one");
        assert!(shape.fits(&[Some(&DataType::Int32), Some(&DataType::Utf8View)]));
        assert!(!shape.fits(&[Some(&DataType::Float64), Some(&DataType::Utf8)]));
        assert!(!shape.fits(&[Some(&DataType::Int64), Some(&DataType::Date32)]));
        assert!(!shape.fits(&[Some(&DataType::Int64), None]));
        assert!(!shape.fits(&[Some(&DataType::Int64)]));
    }

    proptest! {
        /// With its values put back as they were, a shape is the text again.
        #[test]
        fn nothing_else_changes(parts in prop::collection::vec("[a-c] = ([1-9][0-9]{0,3}|'([a-z =]|''){0,6}') (AND|OR) ", 1..5)) {
            let text = format!("SELECT * FROM v WHERE {}c = c", parts.concat());
            let Some(shape) = Shape::of(&text) else { return Ok(()) };
            let mut again = shape.text.clone();
            for (at, value) in shape.values.iter().enumerate() {
                let written = match value {
                    ScalarValue::Utf8(Some(value)) => format!("'{}'", value.replace('\'', "''")),
                    other => other.to_string(),
                };
                again = again.replace(&format!("${}", at + 1), &written);
            }
            prop_assert_eq!(again, text);
        }

        #[test]
        fn any_text_is_answered(text in "(SELECT |WHERE |AND |a|=|'|\"|7|;|[ -~]|ü){0,40}") {
            let _ = Shape::of(&text);
        }
    }
}
