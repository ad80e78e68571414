//! A value as it stands in a line, not yet of the type of a column.

use crate::format::column::{Block, Span};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// The inside of the quotes.
    Text {
        span: Span,
        escaped: bool,
    },
    /// Text that its format does not tell from numbers: what it is depends on how it reads.
    Word(Span),
    /// A name without a value: `true`.
    Flag,
    /// An object or array.
    Nested,
    /// A number that neither `i64` nor `f64` can hold without loss of its whole part.
    Big,
}

impl Value {
    /// The value that a word or flag reads as; other values as they are.
    #[inline]
    pub fn resolved(self, block: &Block<'_>) -> Value {
        match self {
            Value::Flag => Value::Bool(true),
            Value::Word(span) => read_word(block.get(span)).unwrap_or(Value::Text { span, escaped: false }),
            value => value,
        }
    }

    /// Whether the value can be read back in full from a column of doubles.
    pub fn is_number(self, block: &Block<'_>) -> bool {
        match self.resolved(block) {
            Value::Int(number) => exact(number).is_some(),
            Value::Float(_) => true,
            Value::Null | Value::Bool(_) | Value::Text { .. } | Value::Nested | Value::Big => false,
            Value::Word(_) | Value::Flag => false, // resolved
        }
    }
}

/// How a format writes texts that hold special characters.
pub trait Decode {
    /// The text of the inside of an escaped string; `None` where it stays as it is written.
    fn decode(&self, inside: &[u8]) -> Option<String>;
}

/// A whole number as a double, if the double is the same number: below 2^53 all are.
pub fn exact(number: i64) -> Option<f64> {
    (number.unsigned_abs() <= 1 << 53).then_some(number as f64)
}

/// A number, `true` or `false`; `None` for text. Only what programs write of numbers is one: `007`, `+1` and `1.` are
/// text, and so is `12e5` without a sign in its exponent, which is more often a part of a hash.
pub fn read_word(word: &[u8]) -> Option<Value> {
    match word {
        b"true" => return Some(Value::Bool(true)),
        b"false" => return Some(Value::Bool(false)),
        _ => {}
    }
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let whole = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if whole == 0 || (whole > 1 && digits[0] == b'0') {
        return None;
    }
    let mut rest = &digits[whole..];
    if rest.is_empty() {
        return if whole <= 18 {
            let size = digits.iter().fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0'));
            Some(Value::Int(if digits.len() < word.len() { -size } else { size }))
        } else {
            std::str::from_utf8(word).ok()?.parse().ok().map(Value::Int)
        };
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 {
            return None;
        }
        rest = &fraction[len..];
    }
    if let [b'e' | b'E', b'+' | b'-', exponent @ ..] = rest {
        if exponent.is_empty() || !exponent.iter().all(u8::is_ascii_digit) {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, value) in [
            ("0", Some(Value::Int(0))),
            ("-17", Some(Value::Int(-17))),
            ("123456789012345678", Some(Value::Int(123_456_789_012_345_678))),
            ("9223372036854775807", Some(Value::Int(i64::MAX))),
            ("-9223372036854775808", Some(Value::Int(i64::MIN))),
            ("9223372036854775808", None),
            ("0.50", Some(Value::Float(0.5))),
            ("-1.5e-05", Some(Value::Float(-1.5e-5))),
            ("1e+06", Some(Value::Float(1e6))),
            ("true", Some(Value::Bool(true))),
            ("True", None),
            ("1e999", None),
            ("1e+999", None),
            ("12e4", None),
            ("1.2.3", None),
            ("1.", None),
            (".5", None),
            ("-", None),
            ("", None),
            ("007", None),
            ("+1", None),
            ("NaN", None),
            ("inf", None),
            ("1s", None),
        ] {
            assert_eq!(read_word(word.as_bytes()), value, "{word}");
        }
    }
}
