//! The members of one JSON object, found in its text without building a tree.
//!
//! serde_json first checks the whole line (skipping values, which is fast), so the scanner behind it only has to find
//! where things are: it copies no string, and a nested object or array is one span, kept exactly as it was written.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

use crate::format::column::Span;
use crate::format::learning::objects::{Key, Member};
use crate::format::learning::value::Value;

/// Fills `members` with the members of the object that `line` is, which lies at `base` in its block; or says why it is
/// none.
pub fn members(line: &[u8], base: usize, members: &mut Vec<Member>) -> Result<(), Cow<'static, str>> {
    members.clear();
    match line.trim_ascii_start().first() {
        None => return Err("empty line".into()),
        Some(b'{') => {}
        Some(_) => return Err("not a JSON object".into()),
    }
    if let Err(err) = serde_json::from_slice::<IgnoredAny>(line) {
        let text = err.to_string();
        return Err(format!("not JSON: {}", text.replace(" at line 1 column", " at column")).into());
    }
    let mut scanner = Scanner { line, at: 0 };
    scanner.next(); // the opening brace
    while scanner.skip_to(b'"').is_some() {
        let (key, key_escaped) = scanner.string().ok_or("not JSON: a key without its end")?;
        let value = scanner.value(base).ok_or("not JSON: a key without a value")?;
        let key = if key_escaped { Key::Escaped(shift(key, base)) } else { Key::Plain(shift(key, base)) };
        members.push(Member { key, value: value.0, raw: shift(value.1, base) });
    }
    Ok(())
}

/// The text of a string's inside with its escapes decoded; `None` when they do not make text (lone surrogates) or make
/// a NUL, which PostgreSQL's text cannot hold: such a string stays as it is written.
pub fn unescape(inside: &[u8]) -> Option<String> {
    let quoted = [b"\"", inside, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).ok().filter(|text| !text.contains('\0'))
}

fn shift(range: (usize, usize), base: usize) -> Span {
    Span::new(base + range.0, base + range.1)
}

/// Walks valid JSON. On anything else it stops early, but never panics.
struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Steps over the next byte that is not white space.
    fn next(&mut self) -> Option<u8> {
        let rest = self.line.get(self.at..)?;
        let skipped = rest.iter().position(|b| !b.is_ascii_whitespace())?;
        self.at += skipped + 1;
        Some(rest[skipped])
    }

    /// Steps over white space, commas and one `wanted`; `None` at the object's end.
    fn skip_to(&mut self, wanted: u8) -> Option<()> {
        loop {
            match self.next()? {
                b',' => {}
                b if b == wanted => return Some(()),
                _ => return None,
            }
        }
    }

    /// The rest of a string whose opening quote was stepped over, and whether it has escapes.
    fn string(&mut self) -> Option<((usize, usize), bool)> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let at = self.at + memchr2(b'"', b'\\', self.line.get(self.at..)?)?;
            if self.line[at] == b'"' {
                self.at = at + 1;
                return Some(((start, at), escaped));
            }
            escaped = true;
            self.at = at + 2;
        }
    }

    /// The value behind a colon, and where it is written.
    fn value(&mut self, base: usize) -> Option<(Value, (usize, usize))> {
        self.skip_to(b':')?;
        let first = self.next()?;
        let start = self.at - 1;
        let value = match first {
            b'"' => {
                let (inside, escaped) = self.string()?;
                Value::Text { span: shift(inside, base), escaped }
            }
            b'{' | b'[' => {
                self.nested()?;
                Value::Nested
            }
            _ => {
                let rest = &self.line[start..];
                let len = rest.iter().position(|b| matches!(b, b',' | b'}') || b.is_ascii_whitespace());
                self.at = start + len.unwrap_or(rest.len());
                match &self.line[start..self.at] {
                    b"null" => Value::Null,
                    b"true" => Value::Bool(true),
                    b"false" => Value::Bool(false),
                    number => read_number(number)?,
                }
            }
        };
        Some((value, (start, self.at)))
    }

    /// Steps behind the end of an object or array whose opening bracket was stepped over.
    fn nested(&mut self) -> Option<()> {
        let mut depth = 1;
        while depth > 0 {
            match self.line.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        Some(())
    }
}

fn read_number(digits: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(digits).ok()?;
    if digits.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        let number: f64 = text.parse().ok()?;
        return Some(if number.is_finite() { Value::Float(number) } else { Value::Big });
    }
    Some(text.parse().map_or(Value::Big, Value::Int))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(line: &str) -> Result<Vec<(String, Value, String)>, Cow<'static, str>> {
        let mut found = Vec::new();
        members(line.as_bytes(), 0, &mut found)?;
        let text = |span: Span| line[span.range()].to_string();
        let key = |member: &Member| match member.key {
            Key::Plain(span) | Key::Escaped(span) => text(span),
            Key::Given(_) => String::new(),
        };
        Ok(found.iter().map(|m| (key(m), m.value, text(m.raw))).collect())
    }

    #[test]
    fn every_kind_of_value() {
        let line =
            r#" { "a" : 1 , "b":-2.5e1,"c":"x\"y", "d":[1,{"e":"]}\\"}],"f":null,"g":true,"h":99999999999999999999 } "#;
        let found = scan(line).unwrap();
        let values: Vec<(&str, &str)> = found.iter().map(|(k, _, raw)| (k.as_str(), raw.as_str())).collect();
        let nested = r#"[1,{"e":"]}\\"}]"#;
        let expected = [
            ("a", "1"),
            ("b", "-2.5e1"),
            ("c", r#""x\"y""#),
            ("d", nested),
            ("f", "null"),
            ("g", "true"),
            ("h", "99999999999999999999"),
        ];
        assert_eq!(values, expected);
        assert_eq!(found[0].1, Value::Int(1));
        assert_eq!(found[1].1, Value::Float(-25.0));
        assert_eq!(found[6].1, Value::Big);
        assert_eq!(scan("{}").unwrap(), []);
    }

    #[test]
    fn reasons() {
        assert_eq!(scan("[1]").unwrap_err(), "not a JSON object");
        assert_eq!(scan("time=1").unwrap_err(), "not a JSON object");
        assert_eq!(scan(" ").unwrap_err(), "empty line");
        assert!(scan(r#"{"a":1"#).unwrap_err().starts_with("not JSON: EOF while parsing an object at column"));
        assert!(scan(r#"{"a":1} x"#).unwrap_err().starts_with("not JSON: trailing characters"));
    }

    /// Objects, and what is nearly one.
    const LINE: &str = concat!(
        r#"\{?( ?"(a|b|\\"|\\u00e9)*" ?: ?"#,
        r#"(-?[0-9]{1,3}(\.5)?(e2)?|null|true|"[a\\"{},\[\]:]*"|\[[0-9",\[{}\]]*\]|\{"x":[0-9]\})"#,
        r#" ?,?){0,4}\}?"#,
    );

    proptest! {
        /// Whatever serde_json takes for an object, the scanner finds the same members in.
        #[test]
        fn agrees_with_serde_json(line in LINE) {
            let ours = scan(&line);
            match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&line) {
                Err(_) => prop_assert!(ours.is_err()),
                Ok(map) => {
                    let mut found = serde_json::Map::new();
                    for (key, _, raw) in ours.expect("serde_json takes it") {
                        let key = unescape(key.as_bytes()).expect("serde_json takes it");
                        found.insert(key, serde_json::from_str(&raw).expect("serde_json takes it"));
                    }
                    prop_assert_eq!(found, map);
                }
            }
        }
    }
}
