//! The functions on texts, numbers and lists that queries of the catalog call (PostgreSQL manual, Functions and Operators).

use super::super::node::Pattern;
use super::super::run::Run;
use super::{Of, Scalar};
use crate::catalog::postgres::format::{formatted, literal};
use crate::catalog::postgres::snapshot::identifier;
use crate::catalog::postgres::value::{Value, types};
use crate::error::{Error, Kind, Result};
use crate::sql::function::cast::bytes_of;
use crate::sql::function::extra::encoded;

const TEXTS: u32 = 1009;

/// A text of at most so many characters is made.
const MAX_TEXT: usize = 1 << 20;

macro_rules! scalar {
    ($name:literal, $count:expr, $arguments:expr, $of:expr, nullable $value:expr) => {
        Scalar { name: $name, count: $count, arguments: $arguments, of: $of, strict: false, value: $value }
    };
    ($name:literal, $count:expr, $arguments:expr, $of:expr, $value:expr) => {
        Scalar { name: $name, count: $count, arguments: $arguments, of: $of, strict: true, value: $value }
    };
}

const TEXT: Of = Of::Is(types::TEXT);
const INT: Of = Of::Is(types::INT4);

pub static SCALARS: &[Scalar] = &[
    scalar!(
        "nullif",
        (2, 2),
        &[0],
        Of::First,
        nullable | _,
        a | Ok(if a[0] == a[1] { Value::Null } else { a[0].clone() })
    ),
    scalar!("greatest", (1, 100), &[0], Of::Common, nullable | _, a | Ok(best(a, std::cmp::Ordering::Greater))),
    scalar!("least", (1, 100), &[0], Of::Common, nullable | _, a | Ok(best(a, std::cmp::Ordering::Less))),
    // Texts.
    scalar!("lower", (1, 1), &[types::TEXT], TEXT, |_, a| Ok(Value::text(text(a, 0).to_lowercase()))),
    scalar!("upper", (1, 1), &[types::TEXT], TEXT, |_, a| Ok(Value::text(text(a, 0).to_uppercase()))),
    scalar!("length", (1, 1), &[types::TEXT], INT, |_, a| Ok(Value::Int(text(a, 0).chars().count() as i64))),
    scalar!("char_length", (1, 1), &[types::TEXT], INT, |_, a| Ok(Value::Int(text(a, 0).chars().count() as i64))),
    scalar!("octet_length", (1, 1), &[types::TEXT], INT, |_, a| Ok(Value::Int(text(a, 0).len() as i64))),
    scalar!("reverse", (1, 1), &[types::TEXT], TEXT, |_, a| Ok(Value::text(
        text(a, 0).chars().rev().collect::<String>()
    ))),
    scalar!("replace", (3, 3), &[types::TEXT], TEXT, |_, a| Ok(Value::text(
        text(a, 0).replace(text(a, 1), text(a, 2))
    ))),
    scalar!("strpos", (2, 2), &[types::TEXT], INT, |_, a| {
        let at = text(a, 0).find(text(a, 1)).map(|at| text(a, 0)[..at].chars().count() as i64 + 1);
        Ok(Value::Int(at.unwrap_or(0)))
    }),
    scalar!("starts_with", (2, 2), &[types::TEXT], Of::Is(types::BOOL), |_, a| {
        Ok(Value::Bool(text(a, 0).starts_with(text(a, 1))))
    }),
    scalar!("substr", (2, 3), &[types::TEXT, 0, types::INT8], TEXT, substring),
    scalar!("substring", (2, 3), &[types::TEXT, 0, types::INT8], TEXT, substring),
    scalar!("left", (2, 2), &[types::TEXT, types::INT8], TEXT, |_, a| {
        let (text, count) = (text(a, 0), a[1].as_int().unwrap_or(0));
        let length = text.chars().count() as i64;
        let count = if count < 0 { length + count } else { count };
        Ok(Value::text(text.chars().take(count.max(0) as usize).collect::<String>()))
    }),
    scalar!("right", (2, 2), &[types::TEXT, types::INT8], TEXT, |_, a| {
        let (text, count) = (text(a, 0), a[1].as_int().unwrap_or(0));
        let length = text.chars().count() as i64;
        let skip = if count < 0 { -count } else { length - count };
        Ok(Value::text(text.chars().skip(skip.max(0) as usize).collect::<String>()))
    }),
    scalar!("btrim", (1, 2), &[types::TEXT], TEXT, |_, a| Ok(Value::text(text(a, 0).trim_matches(set(a))))),
    scalar!("ltrim", (1, 2), &[types::TEXT], TEXT, |_, a| Ok(Value::text(text(a, 0).trim_start_matches(set(a))))),
    scalar!("rtrim", (1, 2), &[types::TEXT], TEXT, |_, a| Ok(Value::text(text(a, 0).trim_end_matches(set(a))))),
    scalar!("split_part", (3, 3), &[types::TEXT, types::TEXT, types::INT8], TEXT, |_, a| {
        let at = a[2].as_int().and_then(|at| usize::try_from(at - 1).ok());
        Ok(Value::text(at.and_then(|at| text(a, 0).split(text(a, 1)).nth(at)).unwrap_or_default()))
    }),
    scalar!("repeat", (2, 2), &[types::TEXT, types::INT8], TEXT, |_, a| {
        let count = a[1].as_int().unwrap_or(0).max(0) as usize;
        if text(a, 0).len().saturating_mul(count) > MAX_TEXT {
            return Err(Error::new(Kind::ResourceLimit, "the repeated text is too long"));
        }
        Ok(Value::text(text(a, 0).repeat(count)))
    }),
    // A cast, called as a function.
    scalar!("bpchar", (1, 1), &[types::TEXT], TEXT, |_, a| Ok(a[0].clone())),
    scalar!("json_build_object", (0, 100), &[0], Of::Is(types::JSON), nullable | _, a | object(a)),
    scalar!(
        "json_build_array",
        (0, 100),
        &[0],
        Of::Is(types::JSON),
        nullable | _,
        a | Ok(Value::text(format!("[{}]", a.iter().map(json).collect::<Vec<_>>().join(", "))))
    ),
    // Given the names of the columns, and the row.
    scalar!("row_to_json", (2, 2), &[0], Of::Is(types::JSON), |_, a| {
        let Value::Row(values) = &a[1] else { return Ok(Value::Null) };
        let members = list(a, 0).iter().zip(values.iter());
        let members = members.map(|(name, value)| format!("{}:{}", json(name), json(value)));
        Ok(Value::text(format!("{{{}}}", members.collect::<Vec<_>>().join(","))))
    }),
    scalar!(
        "concat",
        (1, 100),
        &[types::TEXT],
        TEXT,
        nullable | _,
        a | { Ok(Value::text(a.iter().filter_map(Value::as_str).collect::<String>())) }
    ),
    scalar!(
        "concat_ws",
        (2, 100),
        &[types::TEXT],
        TEXT,
        nullable | _,
        a | {
            let Some(by) = a[0].as_str() else { return Ok(Value::Null) };
            Ok(Value::text(a[1..].iter().filter_map(Value::as_str).collect::<Vec<_>>().join(by)))
        }
    ),
    scalar!("regexp_replace", (3, 4), &[types::TEXT], TEXT, |run, a| {
        let flags = a.get(3).and_then(Value::as_str).unwrap_or_default();
        let regex = run.regex(text(a, 1), Pattern::Regex { ignore_case: flags.contains('i') })?;
        let by = text(a, 2).replace('$', "$$");
        // `\1` is a group, `\&` all of it.
        let by = regex::Regex::new(r"\\([0-9&])").map_or(by.clone(), |groups| {
            let name = |group: &regex::Captures<'_>| format!("${{{}}}", group[1].replace('&', "0"));
            groups.replace_all(&by, name).into_owned()
        });
        let count = if flags.contains('g') { 0 } else { 1 };
        Ok(Value::text(regex.replacen(text(a, 0), count, by.as_str())))
    }),
    scalar!("encode", (2, 2), &[types::TEXT], TEXT, |_, a| {
        Ok(Value::text(encoded(&bytes_of(text(a, 0))?, text(a, 1))?))
    }),
    scalar!("chr", (1, 1), &[types::INT4], TEXT, |_, a| {
        let c = a[0].as_int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32);
        Ok(c.map_or(Value::Null, |c| Value::text(c.to_string())))
    }),
    scalar!("translate", (3, 3), &[types::TEXT], TEXT, |_, a| {
        let (from, to): (Vec<char>, Vec<char>) = (text(a, 1).chars().collect(), text(a, 2).chars().collect());
        let map = |c: char| match from.iter().position(|from| *from == c) {
            None => Some(c),
            Some(at) => to.get(at).copied(),
        };
        Ok(Value::text(text(a, 0).chars().filter_map(map).collect::<String>()))
    }),
    scalar!("quote_ident", (1, 1), &[types::TEXT], TEXT, |_, a| Ok(Value::text(identifier(text(a, 0))))),
    scalar!("quote_literal", (1, 1), &[types::TEXT], TEXT, |_, a| Ok(Value::text(literal(text(a, 0))))),
    scalar!(
        "quote_nullable",
        (1, 1),
        &[types::TEXT],
        TEXT,
        nullable | _,
        a | { Ok(Value::text(a[0].as_str().map_or("NULL".to_string(), literal))) }
    ),
    scalar!(
        "format",
        (1, 100),
        &[types::TEXT],
        TEXT,
        nullable | _,
        a | {
            let Some(pattern) = a[0].as_str() else { return Ok(Value::Null) };
            let values: Vec<Option<String>> = a[1..].iter().map(|value| value.as_str().map(str::to_string)).collect();
            formatted(pattern, &values).map(Value::text)
        }
    ),
    // Numbers.
    scalar!("abs", (1, 1), &[0], Of::First, |_, a| {
        Ok(match &a[0] {
            Value::Int(number) => Value::Int(number.saturating_abs()),
            other => other.as_float().map_or(Value::Null, |number| Value::Float(number.abs())),
        })
    }),
    scalar!("round", (1, 1), &[0], Of::First, |_, a| {
        Ok(match &a[0] {
            Value::Int(number) => Value::Int(*number),
            other => other.as_float().map_or(Value::Null, |number| Value::Float(number.round())),
        })
    }),
    // Lists.
    scalar!(
        "array_to_string",
        (2, 3),
        &[TEXTS, types::TEXT],
        TEXT,
        nullable | _,
        a | {
            let (Some(list), Some(by)) = (a[0].as_list(), a[1].as_str()) else { return Ok(Value::Null) };
            let null = a.get(2).and_then(Value::as_str);
            let texts = list.iter().filter_map(|value| value.as_str().or(null));
            Ok(Value::text(texts.collect::<Vec<_>>().join(by)))
        }
    ),
    scalar!(
        "string_to_array",
        (2, 3),
        &[types::TEXT],
        Of::Is(TEXTS),
        nullable | _,
        a | {
            let Some(whole) = a[0].as_str() else { return Ok(Value::Null) };
            let null = a.get(2).and_then(Value::as_str);
            let part = |part: &str| if Some(part) == null { Value::Null } else { Value::text(part) };
            Ok(Value::list(match a[1].as_str() {
                _ if whole.is_empty() => Vec::new(),
                None => whole.chars().map(|c| part(&c.to_string())).collect(),
                Some("") => vec![part(whole)],
                Some(by) => whole.split(by).map(part).collect(),
            }))
        }
    ),
    scalar!("array_length", (2, 2), &[0], INT, |_, a| Ok(length(a))),
    scalar!("array_upper", (2, 2), &[0], INT, |_, a| Ok(length(a))),
    scalar!("array_lower", (2, 2), &[0], INT, |_, a| Ok(if length(a).is_null() { Value::Null } else { Value::Int(1) })),
    scalar!("array_ndims", (1, 1), &[0], INT, |_, a| Ok(if list(a, 0).is_empty() {
        Value::Null
    } else {
        Value::Int(1)
    })),
    scalar!("cardinality", (1, 1), &[0], INT, |_, a| Ok(Value::Int(list(a, 0).len() as i64))),
    scalar!(
        "array_position",
        (2, 2),
        &[0],
        INT,
        nullable | _,
        a | {
            let at = list(a, 0).iter().position(|value| *value == a[1]);
            Ok(at.map_or(Value::Null, |at| Value::Int(at as i64 + 1)))
        }
    ),
    scalar!(
        "array_append",
        (2, 2),
        &[0],
        Of::First,
        nullable | _,
        a | { Ok(Value::list(list(a, 0).iter().chain([&a[1]]).cloned().collect())) }
    ),
    scalar!(
        "array_cat",
        (2, 2),
        &[0],
        Of::First,
        nullable | _,
        a | { Ok(Value::list(list(a, 0).iter().chain(list(a, 1)).cloned().collect())) }
    ),
    scalar!(
        "array_remove",
        (2, 2),
        &[0],
        Of::First,
        nullable | _,
        a | match a[0].as_list() {
            None => Ok(Value::Null),
            Some(list) => Ok(Value::list(list.iter().filter(|value| **value != a[1]).cloned().collect())),
        }
    ),
    // What the operators @> and && come to.
    scalar!("array_contains_all", (2, 2), &[0], Of::Is(types::BOOL), |_, a| {
        Ok(Value::Bool(list(a, 1).iter().all(|value| list(a, 0).contains(value))))
    }),
    scalar!("array_overlaps", (2, 2), &[0], Of::Is(types::BOOL), |_, a| {
        Ok(Value::Bool(list(a, 1).iter().any(|value| list(a, 0).contains(value))))
    }),
];

fn text(arguments: &[Value], at: usize) -> &str {
    arguments.get(at).and_then(Value::as_str).unwrap_or_default()
}

fn list(arguments: &[Value], at: usize) -> &[Value] {
    arguments.get(at).and_then(Value::as_list).unwrap_or_default()
}

/// The characters that are taken away: spaces if none are given.
fn set(arguments: &[Value]) -> impl Fn(char) -> bool + '_ {
    let set = arguments.get(1).and_then(Value::as_str).unwrap_or(" ");
    move |c| set.contains(c)
}

fn length(arguments: &[Value]) -> Value {
    match (list(arguments, 0).len(), arguments[1].as_int()) {
        (0, _) => Value::Null,
        (length, Some(1)) => Value::Int(length as i64),
        _ => Value::Null,
    }
}

fn best(values: &[Value], wanted: std::cmp::Ordering) -> Value {
    let there = values.iter().filter(|value| !value.is_null());
    let best = there.reduce(|best, value| if value.order(best) == wanted { value } else { best });
    best.cloned().unwrap_or(Value::Null)
}

/// From a place on, so many characters; or the part that a pattern fits.
fn substring(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let whole = text(arguments, 0);
    let Value::Int(from) = arguments[1] else {
        let regex = run.regex(text(arguments, 1), Pattern::Regex { ignore_case: false })?;
        let found = regex.captures(whole).and_then(|found| found.get(1).or(found.get(0)));
        return Ok(found.map_or(Value::Null, |found| Value::text(found.as_str())));
    };
    let until = match arguments.get(2).and_then(Value::as_int) {
        Some(count) if count < 0 => {
            return Err(Error::new(Kind::InvalidParameter, "negative substring length not allowed"));
        }
        Some(count) => from.saturating_add(count),
        None => i64::MAX,
    };
    let inside = |at: usize| (at as i64 + 1) >= from && (at as i64 + 1) < until;
    let part = whole.chars().enumerate().filter(|(at, _)| inside(*at)).map(|(_, c)| c);
    Ok(Value::text(part.collect::<String>()))
}

/// Names and values in turn, as PostgreSQL writes them: `{"a" : 1}`.
fn object(arguments: &[Value]) -> Result<Value> {
    if arguments.len() % 2 == 1 {
        return Err(Error::new(Kind::InvalidParameter, "argument list must have even number of elements"));
    }
    let pair = |pair: &[Value]| {
        let name = match &pair[0] {
            Value::Null => return Err(Error::new(Kind::InvalidParameter, "argument 1: key must not be null")),
            Value::Text(_) => json(&pair[0]),
            other => format!("\"{}\"", json(other)),
        };
        Ok(format!("{name} : {}", json(&pair[1])))
    };
    let pairs = arguments.chunks(2).map(pair).collect::<Result<Vec<String>>>()?;
    Ok(Value::text(format!("{{{}}}", pairs.join(", "))))
}

/// A value in JSON.
fn json(value: &Value) -> String {
    match value {
        Value::Null => "null".to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => serde_json::Value::from(*number).to_string(),
        Value::Text(text) => serde_json::Value::from(&**text).to_string(),
        Value::Time(time) => serde_json::Value::from(super::super::text::format_timestamp(*time)).to_string(),
        Value::List(values) | Value::Row(values) => {
            format!("[{}]", values.iter().map(json).collect::<Vec<_>>().join(","))
        }
    }
}
