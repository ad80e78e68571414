//! Lines of `key=value`: format `logfmt`, as Go programs, Grafana and Heroku write them.
//!
//!     time="2024-05-20T00:00:18Z" level=info msg="pod deleted" took=0.25 cached
//!
//! A value ends at the next blank, or is quoted, with backslash escapes inside. A key alone is `true`, `key=` is NULL.
//! Quotes say nothing of the type: `"7"` is a number where the column is one. Columns and types are learned as
//! [`super::learning`] says.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::column::Span;
use super::fields::TYPES;
use super::learning::objects::{Key, Member, Objects, Syntax};
use super::learning::value::{Decode, Value};
use super::learning::{MAX_COLUMNS, TIME_FIELD};
use super::timestamp::{TIME_FORMAT, TIMEZONE};
use super::{Declared, Format, Spec, access, json, quotes};
use crate::error::Result;
use crate::options::Options;

pub static SPEC: Spec = Spec {
    name: "logfmt",
    aliases: &[],
    summary: "Pairs key=value; columns and types are learned from them",
    columns: &[],
    options: &[TYPES, TIME_FIELD, TIME_FORMAT, TIMEZONE, MAX_COLUMNS],
    sample: concat!(
        "time=\"2024-05-20T00:00:18Z\" level=info msg=\"pod \\\"a-1\\\" deleted\" took=0.25 status=200 reason=\n",
        "time=2024-05-20T00:00:19Z level=warn msg=late took=1 status=503 cached\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    Ok(Box::new(Objects::new(Logfmt, options, declared)?))
}

struct Logfmt;

impl Syntax for Logfmt {
    const JSON: bool = false;

    fn members(&self, line: &[u8], base: usize, found: &mut Vec<Member>) -> Result<(), Cow<'static, str>> {
        found.clear();
        if line.is_empty() {
            return Err("empty line".into());
        }
        let mut pairs = false;
        let mut at = 0;
        loop {
            at += line[at..].iter().take_while(|b| is_blank(**b)).count();
            let rest = &line[at..];
            if rest.is_empty() {
                break;
            }
            let len = rest.iter().position(|&b| b <= b' ' || b == b'=' || b == b'"').unwrap_or(rest.len());
            let key = Key::Plain(Span::new(base + at, base + at + len));
            match rest.get(len) {
                _ if len == 0 => return Err(format!("no key at byte {}", at + 1).into()),
                Some(b'=') => {
                    pairs = true;
                    at += len + 1;
                    let (value, end) = value(line, base, at)?;
                    found.push(Member { key, value, raw: Span::new(base + at, base + end) });
                    at = end;
                }
                Some(b'"') => return Err(format!("a quote inside of a key at byte {}", at + len + 1).into()),
                Some(_) | None => {
                    found.push(Member { key, value: Value::Flag, raw: Span::new(base + at, base + at + len) });
                    at += len;
                }
            }
        }
        if pairs { Ok(()) } else { Err("no pair of key and value".into()) }
    }
}

fn is_blank(byte: u8) -> bool {
    byte <= b' '
}

/// The value that starts at `at`, and where it ends.
fn value(line: &[u8], base: usize, at: usize) -> Result<(Value, usize), Cow<'static, str>> {
    if line.get(at) == Some(&b'"') {
        let (end, escaped) = quotes::escaped(line, at + 1, b'"')
            .ok_or_else(|| format!("the value at byte {} has no closing quote", at + 1))?;
        if line.get(end + 1).is_some_and(|b| !is_blank(*b)) {
            return Err(format!("text behind the closing quote at byte {}", end + 1).into());
        }
        let span = Span::new(base + at + 1, base + end);
        return Ok((if escaped { Value::Text { span, escaped } } else { Value::Word(span) }, end + 1));
    }
    let end = memchr2(b' ', b'\t', &line[at..]).map_or(line.len(), |len| at + len);
    Ok((if end == at { Value::Null } else { Value::Word(Span::new(base + at, base + end)) }, end))
}

/// The text of a value with backslash escapes: those of JSON, which Go writes too, or else those of web servers.
pub fn unescape(inside: &[u8]) -> Option<String> {
    match memchr(b'\'', inside) {
        // Neither of them escapes this quote.
        Some(_) => access::unescape(inside),
        None => json::unescape(inside).or_else(|| access::unescape(inside)),
    }
}

impl Decode for Logfmt {
    fn decode(&self, inside: &[u8]) -> Option<String> {
        unescape(inside)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::format::{real_log, rows_as_text};
    use crate::frame::Frames;

    fn logfmt(given: &[(&str, &str)], declared: &[Declared]) -> Box<dyn Format> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("logfmt", &given, declared).unwrap()
    }

    fn rows(format: &dyn Format, text: &str) -> Vec<String> {
        rows_as_text(&format.parse(&Frames::from_text(text), 0).rows)
    }

    const T: &str = "1970-01-01T00:00:01Z";

    #[test]
    fn values_and_their_types() {
        let format = logfmt(&[], &[]);
        let text =
            "ts=1 i=1 d=2 b=true t=x q=\"a \\\"b\\\" \\u00e9\\n\" n= e=\"\" flag\n ts=1  i=\"-7\" d=2.5 t=7\tu=a=b\n";
        let expected = [format!("ts={T} i=1 d=2.0 b=true t=x q=a \"b\" é"), format!("ts={T} i=-7 d=2.5 t=7 u=a=b")];
        let found = rows(&*format, &text.replace("\\n\"", "\""));
        assert_eq!(found[0], format!("{} flag=true", expected[0]));
        assert_eq!(found[1], expected[1]);
        let column = |name: &str| format.schema().field_with_name(name).map(|f| f.data_type().clone());
        assert_eq!(column("i").unwrap(), DataType::Int64);
        assert_eq!(column("t").unwrap(), DataType::Utf8View);
        assert_eq!(column("e").unwrap(), DataType::Utf8View);
        assert!(column("n").is_err(), "NULLs alone make no column");
        // What clashes is kept beside; a text column takes anything.
        let expected = [format!("ts={T} t=1 i__text=x b__text=maybe flag__text=no")];
        assert_eq!(rows(&*format, "ts=1 i=x b=maybe t=1 flag=no\n"), expected);
    }

    #[test]
    fn options_and_limits() {
        let format = logfmt(&[("max_columns", "2"), ("time_format", "epoch_ms")], &[]);
        let text = "ts=1000 a=1 b=\"x \\\"y\\\"\" c=2 d\n";
        let expected = [format!("ts={T} a=1 _rest={{\"b\":\"x \\\"y\\\"\",\"c\":2,\"d\":true}}")];
        assert_eq!(rows(&*format, text), expected);
        let format = logfmt(&[("types", "id text, n double")], &[]);
        assert_eq!(rows(&*format, "ts=1 id=7 n=1\n"), [format!("ts={T} id=7 n=1.0")]);
        let format = logfmt(&[("time_field", "none")], &[]);
        assert_eq!((rows(&*format, "a=1\n"), format.time_column()), (vec!["a=1".to_string()], None));
    }

    #[test]
    fn reasons() {
        let format = logfmt(&[], &[]);
        for (line, reason) in [
            ("hello world", "no pair of key and value"),
            ("a=1 =2", "no key at byte 5"),
            ("a=1 \"b\"", "no key at byte 5"),
            ("a=1 b\"c", "a quote inside of a key at byte 6"),
            ("a=\"b", "the value at byte 3 has no closing quote"),
            ("a=\"b\"c", "text behind the closing quote at byte 5"),
            ("a=1", "no member with a readable time"),
        ] {
            let malformed = format.parse(&Frames::from_text(line), 0).malformed;
            assert_eq!(malformed[0].reason, reason, "{line}");
        }
    }

    #[test]
    fn real_lines() {
        for (name, lines, time) in [("logfile_logfmt.0", 5, "time"), ("logfile_grafana.0", 5, "t")] {
            let Some(log) = real_log(&format!("formats/lnav/{name}")) else { return };
            let format = logfmt(&[("time_field", time)], &[]);
            let parsed = format.parse(&Frames::from_text(log), 0);
            assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (lines, 0), "{name}");
        }
    }
}
