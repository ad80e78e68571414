//! JSON as PostgreSQL's `jsonb` keeps it: members sorted by the length of their keys and then by their bytes, the last of
//! several members with one key, numbers with all their digits, one spelling of each text (PostgreSQL manual, JSON Types).
//!
//! A parser of its own, because numbers must keep their digits and errors must be PostgreSQL's.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A JSON value. Objects are sorted and have each key once.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// In decimal digits, without an exponent.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Values inside of values, at most: deeper ones would use up the stack.
const MAX_DEPTH: usize = 128;

/// Digits that an exponent may ask for, at most.
const MAX_DIGITS: i64 = 1000;

/// Reads a JSON text; else why it is none, as a sentence.
pub fn parse(text: &str) -> Result<Json, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.blanks();
    if parser.at < text.len() {
        return Err(parser.unexpected("end of input"));
    }
    Ok(value)
}

/// The one spelling of a JSON text; borrowed where it has it already.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, String> {
    let spelled = parse(text)?.to_string();
    Ok(if spelled == text { Cow::Borrowed(text) } else { Cow::Owned(spelled) })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, wanted: &str) -> String {
        if self.at >= self.text.len() {
            return "The input string ended unexpectedly.".to_string();
        }
        let token: String = self.text[self.at..]
            .chars()
            .take_while(|c| !c.is_whitespace() && !",:[]{}\"".contains(*c))
            .take(20)
            .collect();
        let token = if token.is_empty() { self.text[self.at..].chars().take(1).collect() } else { token };
        format!("Expected {wanted}, but found \"{token}\".")
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > MAX_DEPTH {
            return Err(format!("Values are nested more than {MAX_DEPTH} deep."));
        }
        self.blanks();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Json::Number),
            _ => {
                for (word, value) in [("true", Json::Bool(true)), ("false", Json::Bool(false)), ("null", Json::Null)] {
                    let rest = &self.text[self.at..];
                    let ends = !rest[..].chars().nth(word.len()).is_some_and(|c| c.is_alphanumeric() || c == '_');
                    if rest.starts_with(word) && ends {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.unexpected("JSON value"))
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut values = Vec::new();
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(values));
                }
                _ => return Err(self.unexpected("\",\" or \"]\"")),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut members = Vec::new();
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("string"));
            }
            let key = self.string()?;
            self.blanks();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("\":\""));
            }
            self.at += 1;
            members.push((key, self.value(depth + 1)?));
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::object(members));
                }
                _ => return Err(self.unexpected("\",\" or \"}\"")),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<String, String> {
        let start = self.at;
        let wrong = |parser: &Parser<'_>| format!("Token \"{}\" is invalid.", &parser.text[start..parser.at]);
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.peek();
        let whole = self.digits();
        if whole == 0 || (whole > 1 && first == Some(b'0')) {
            return Err(wrong(self));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(wrong(self));
            }
        }
        let mantissa = &self.text[start..self.at];
        let mut exponent = 0;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let negative = self.peek() == Some(b'-');
            if matches!(self.peek(), Some(b'-' | b'+')) {
                self.at += 1;
            }
            let from = self.at;
            if self.digits() == 0 {
                return Err(wrong(self));
            }
            let size: i64 = self.text[from..self.at].parse().map_err(|_| wrong(self))?;
            exponent = if negative { -size } else { size };
        }
        if self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_') {
            self.at += 1;
            return Err(wrong(self));
        }
        if exponent.abs() > MAX_DIGITS {
            return Err(format!("The number {} is out of range.", &self.text[start..self.at]));
        }
        Ok(plain(mantissa, exponent))
    }

    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') else {
                self.at = self.text.len();
                return Err("The input string ended unexpectedly.".to_string());
            };
            out.push_str(&rest[..end]);
            self.at += end + 1;
            match rest.as_bytes()[end] {
                b'"' => return Ok(out),
                b'\\' => self.escape(&mut out)?,
                byte => return Err(format!("Character with value 0x{byte:02x} must be escaped.")),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), String> {
        let kind = self.peek().ok_or("The input string ended unexpectedly.")?;
        self.at += 1;
        out.push(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                let code = match first {
                    0xd800..=0xdbff => {
                        let follows = self.text[self.at..].starts_with("\\u");
                        self.at += if follows { 2 } else { 0 };
                        let second = if follows { self.hex()? } else { 0 };
                        if !(0xdc00..=0xdfff).contains(&second) {
                            return Err("Unicode low surrogate must follow a high surrogate.".to_string());
                        }
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    0 => return Err("\\u0000 cannot be converted to text.".to_string()),
                    code => code,
                };
                char::from_u32(code).ok_or("Unicode high surrogate must not follow a high surrogate.")?
            }
            _ => {
                // Back to a whole character.
                self.at -= 1;
                let character = self.text[self.at..].chars().next().unwrap_or('\\');
                return Err(format!("Escape sequence \"\\{character}\" is invalid."));
            }
        });
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|c| c.is_ascii_hexdigit()));
        let digits = digits.ok_or("\"\\u\" must be followed by four hexadecimal digits.")?;
        self.at += 4;
        Ok(u32::from_str_radix(digits, 16).unwrap_or(0))
    }
}

/// A number without its exponent, as PostgreSQL's `numeric` is written: zero has no sign.
fn plain(mantissa: &str, exponent: i64) -> String {
    let (sign, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    let sign = if digits.bytes().all(|c| c == b'0') { "" } else { sign };
    // Where the point stands in `digits`, and how many digits follow it.
    let point = whole.len() as i64 + exponent;
    let scale = (fraction.len() as i64 - exponent).max(0) as usize;
    let mut out = String::from(sign);
    let before = if point > 0 { digits.get(..point as usize).unwrap_or(&digits) } else { "" };
    let mut before = before.to_string();
    before.extend(std::iter::repeat_n('0', (point - digits.len() as i64).max(0) as usize));
    let trimmed = before.trim_start_matches('0');
    out.push_str(if trimmed.is_empty() { "0" } else { trimmed });
    if scale > 0 {
        out.push('.');
        out.extend(std::iter::repeat_n('0', (-point).max(0) as usize));
        out.push_str(digits.get(point.max(0) as usize..).unwrap_or(""));
    }
    out
}

impl Json {
    /// An object of members in any order; of several with one key the last.
    pub fn object(mut members: Vec<(String, Json)>) -> Json {
        // Stable, so that the last of equal ones stays the last.
        members.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
        let mut unique: Vec<(String, Json)> = Vec::with_capacity(members.len());
        for member in members {
            match unique.last_mut() {
                Some(last) if last.0 == member.0 => *last = member,
                _ => unique.push(member),
            }
        }
        Json::Object(unique)
    }

    /// `jsonb_typeof`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::Text(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// The member with this key, or at this position of an array.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            Json::Array(values) => values.get(position(key.trim().parse().ok()?, values.len())?),
            _ => None,
        }
    }

    /// As text: a string without its quotes, null as nothing.
    pub fn text(&self) -> Option<String> {
        match self {
            Json::Null => None,
            Json::Text(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// `@>`: whether all of `other` is in this one.
    pub fn contains(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Object(_), Json::Object(members)) => {
                members.iter().all(|(key, value)| self.get(key).is_some_and(|mine| mine.contains(value)))
            }
            (Json::Array(mine), Json::Array(theirs)) => {
                theirs.iter().all(|value| mine.iter().any(|m| same_kind(m, value) && m.contains(value)))
            }
            // An array also contains a plain value.
            (Json::Array(mine), value @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_))) => {
                mine.iter().any(|m| m.equals(value))
            }
            (a, b) => a.equals(b),
        }
    }

    /// Equal, numbers by their value.
    pub fn equals(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Number(a), Json::Number(b)) => trimmed(a) == trimmed(b),
            (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Json::Object(a), Json::Object(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.equals(&b.1))
            }
            (a, b) => a == b,
        }
    }

    /// In several lines, as `jsonb_pretty` writes it.
    pub fn pretty(&self, indent: usize, out: &mut String) {
        let line = |indent: usize, out: &mut String| {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * 4));
        };
        match self {
            Json::Array(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    line(indent + 1, out);
                    value.pretty(indent + 1, out);
                }
                line(indent, out);
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    line(indent + 1, out);
                    quote(key, out);
                    out.push_str(": ");
                    value.pretty(indent + 1, out);
                }
                line(indent, out);
                out.push('}');
            }
            other => {
                let _ = write!(out, "{other}");
            }
        }
    }

    /// With `comma` between values and `colon` behind keys: `jsonb` has a blank behind each, `json` as it is built has none.
    pub fn put(&self, comma: &str, colon: &str, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(true) => out.push_str("true"),
            Json::Bool(false) => out.push_str("false"),
            Json::Number(digits) => out.push_str(digits),
            Json::Text(text) => quote(text, out),
            Json::Array(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { comma });
                    value.put(comma, colon, out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { comma });
                    quote(key, out);
                    out.push_str(colon);
                    value.put(comma, colon, out);
                }
                out.push('}');
            }
        }
    }
}

/// As `jsonb` is written.
impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.put(", ", ": ", &mut out);
        f.write_str(&out)
    }
}

fn same_kind(a: &Json, b: &Json) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// A number without zeros at the end of its fraction.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// The place in an array of this length; counted from the end when negative.
pub fn position(at: i64, length: usize) -> Option<usize> {
    let at = if at < 0 { at + length as i64 } else { at };
    usize::try_from(at).ok().filter(|at| *at < length)
}

/// A text in quotes, with PostgreSQL's escapes.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As PostgreSQL 15 prints the same as `jsonb`.
    #[test]
    fn values_are_spelled_as_in_postgres() {
        for (text, expected) in [
            ("1.0", "1.0"),
            ("1e3", "1000"),
            ("1.5e-3", "0.0015"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("12.34e1", "123.4"),
            ("12.34e-1", "1.234"),
            ("0.001e2", "0.1"),
            ("\"\\u00e9\\n\\/\"", "\"é\\n/\""),
            ("\"\\ud83d\\ude00\"", "\"😀\""),
            ("{\"aa\":1,\"b\":2}", "{\"b\": 2, \"aa\": 1}"),
            ("[ ]", "[]"),
            ("{ }", "{}"),
            ("[1,true,null]", "[1, true, null]"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "{\"a\":}",
            "[1,]",
            "01",
            "1.",
            "1e",
            "-",
            "tru",
            "truex",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "1 2",
            "{1:2}",
            "1e5000",
            "'a'",
            "\"\\é\"",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn containment() {
        let of = |text: &str| parse(text).unwrap();
        assert!(of("{\"a\":1,\"b\":{\"c\":[1,2]}}").contains(&of("{\"b\":{\"c\":[2]}}")));
        assert!(of("[1,2]").contains(&of("1.0")));
        assert!(!of("[1,[1,3]]").contains(&of("[3]")));
        assert!(!of("{\"a\":1}").contains(&of("{\"a\":2}")));
        assert!(!of("1").contains(&of("[1]")));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_one_spelling_is_the_last(text in "\\PC{0,40}|[\\[\\]{}:,\"0-9eE.+\\- \\\\u]{0,40}") {
            if let Ok(spelled) = canonical(&text) {
                prop_assert_eq!(canonical(&spelled).unwrap().into_owned(), spelled.clone().into_owned());
            }
        }
    }
}
