//! STRUCTURED-DATA of RFC 5424 (6.3): how far it goes, and what it says as JSON.
//!
//!     [exampleSDID@32473 iut="3" eventSource="Application"][other k="a \"quoted\" value"]

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde_json::{Map, Value};

/// The length of the elements that `text` starts with; `None` when they are not closed or not of this form.
pub fn length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while text.get(at) == Some(&b'[') {
        let mut rest = &text[at + 1..];
        rest = &rest[name(rest)?..];
        while let Some(parameter) = rest.strip_prefix(b" ") {
            let value = parameter[name(parameter)?..].strip_prefix(b"=\"")?;
            rest = &value[closing_quote(value)? + 1..];
        }
        at = text.len() - rest.strip_prefix(b"]")?.len();
    }
    (at > 0).then_some(at)
}

/// Elements for which [`length`] was found, as a JSON object.
pub fn json(elements: &[u8]) -> String {
    let mut object = Map::new();
    let mut rest = elements;
    while let Some(element) = rest.strip_prefix(b"[") {
        let end = name(element).unwrap_or(element.len());
        let (id, mut tail) = element.split_at(end);
        let parameters = object.entry(text(id).into_owned()).or_insert_with(|| Value::Object(Map::new()));
        while let Some(parameter) = tail.strip_prefix(b" ") {
            let (key, value) = parameter.split_at(name(parameter).unwrap_or(parameter.len()));
            let value = value.get(2..).unwrap_or_default();
            let end = closing_quote(value).unwrap_or(value.len());
            if let Value::Object(parameters) = parameters {
                add(parameters, text(key).into_owned(), unescape(&value[..end]));
            }
            tail = value.get(end + 1..).unwrap_or_default();
        }
        rest = tail.get(1..).unwrap_or_default();
    }
    Value::Object(object).to_string()
}

/// A parameter may come several times, as the addresses of an `origin` do.
fn add(parameters: &mut Map<String, Value>, name: String, value: String) {
    match parameters.get_mut(&name) {
        None => drop(parameters.insert(name, value.into())),
        Some(Value::Array(values)) => values.push(value.into()),
        Some(first) => *first = Value::Array(vec![first.take(), value.into()]),
    }
}

/// The length of an SD-NAME: printable, and none of `= " ]` or space.
fn name(text: &[u8]) -> Option<usize> {
    let len = text.iter().take_while(|b| b.is_ascii_graphic() && !matches!(b, b'=' | b'"' | b']')).count();
    (len > 0).then_some(len)
}

/// Where the value that `text` starts with ends: at a quote that no backslash stands before.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// `\"`, `\\` and `\]` stand for the second character; any other backslash stands for itself.
fn unescape(value: &[u8]) -> String {
    let value = text(value);
    if memchr(b'\\', value.as_bytes()).is_none() {
        return value.into_owned();
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = if character == '\\' { characters.next_if(|c| matches!(c, '"' | '\\' | ']')) } else { None };
        plain.push(escaped.unwrap_or(character));
    }
    plain
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_end_where_they_are_closed() {
        for (text, expected) in [
            (r#"[a] x"#, Some(3)),
            (r#"[a b="c"][d e="]"]"#, Some(18)),
            (r#"[a b="\"]"] ["#, Some(11)),
            (r#"[a b="c"#, None),
            (r#"[a b=c]"#, None),
            (r#"[a  b="c"]"#, None),
            ("[]", None),
            ("[ a]", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(length(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn elements_as_json() {
        for (text, expected) in [
            (r#"[a]"#, r#"{"a":{}}"#),
            (r#"[a@1 b="c \"d\" \\ \] \n"]"#, r#"{"a@1":{"b":"c \"d\" \\ ] \\n"}}"#),
            (r#"[o ip="1" ip="2" ip="3"][p x=""]"#, r#"{"o":{"ip":["1","2","3"]},"p":{"x":""}}"#),
        ] {
            assert_eq!(length(text.as_bytes()), Some(text.len()), "{text}");
            assert_eq!(json(text.as_bytes()), expected, "{text}");
        }
    }
}
