//! How is a value of the catalog written, and how is one read? As PostgreSQL does it, by type: object ids of the named kinds
//! (`regclass` and others) are written as names and read from them.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::run::Run;
use crate::catalog::postgres::base::{base, type_text};
use crate::catalog::postgres::snapshot::identifier;
use crate::catalog::postgres::value::{Value, elements, quoted_element, types};
use crate::error::{Error, Kind, Result};
use crate::time::Micros;

/// Reads what needs no look at the catalog; `None` for what cannot be read so.
pub fn read_plain(text: &str, of: u32) -> Option<Value> {
    let trimmed = text.trim();
    Some(match of {
        types::BOOL => match trimmed.to_lowercase().as_str() {
            "t" | "true" | "yes" | "y" | "on" | "1" => Value::Bool(true),
            "f" | "false" | "no" | "n" | "off" | "0" => Value::Bool(false),
            _ => return None,
        },
        types::FLOAT4 | types::FLOAT8 | types::NUMERIC => Value::Float(trimmed.parse().ok()?),
        types::CHAR => Value::text(text.chars().next().map(String::from).unwrap_or_default()),
        types::INT2VECTOR | types::OIDVECTOR => {
            let numbers = text.split_whitespace().map(|number| read_plain(number, types::INT8));
            Value::list(numbers.collect::<Option<Vec<Value>>>()?)
        }
        types::TIMESTAMP | types::TIMESTAMPTZ => return None,
        of if types::is_named_oid(of) => return None,
        of if types::is_integer(of) => Value::Int(trimmed.parse().ok()?),
        of => match base().element_of(of) {
            None => Value::text(text),
            Some(element) => {
                let read = |text: Option<String>| match text {
                    None => Some(Value::Null),
                    Some(text) => read_plain(&text, element),
                };
                Value::list(elements(text).ok()?.into_iter().map(read).collect::<Option<Vec<Value>>>()?)
            }
        },
    })
}

/// Reads a value of a type.
pub fn read(run: &Run<'_>, text: &str, of: u32) -> Result<Value> {
    if let Some(value) = read_plain(text, of) {
        return Ok(value);
    }
    if types::is_named_oid(of) {
        return match text.trim().parse::<u32>() {
            Ok(oid) => Ok(Value::Int(i64::from(oid))),
            Err(_) if text == "-" => Ok(Value::Int(0)),
            Err(_) => object(run, text, of)?.ok_or_else(|| missing(text, of)),
        };
    }
    if let Some(element) = base().element_of(of) {
        let read = |text: Option<String>| text.map_or(Ok(Value::Null), |text| read(run, &text, element));
        return Ok(Value::list(elements(text)?.into_iter().map(read).collect::<Result<Vec<Value>>>()?));
    }
    let name = type_text(of);
    Err(Error::new(Kind::InvalidText, format!("invalid input syntax for type {name}: \"{text}\"")))
}

fn missing(text: &str, of: u32) -> Error {
    match of {
        types::REGCLASS => Error::new(Kind::UndefinedTable, format!("relation \"{text}\" does not exist")),
        types::REGTYPE => Error::new(Kind::UndefinedObject, format!("type \"{text}\" does not exist")),
        types::REGNAMESPACE => Error::new(Kind::UndefinedObject, format!("schema \"{text}\" does not exist")),
        types::REGROLE => Error::new(Kind::UndefinedObject, format!("role \"{text}\" does not exist")),
        types::REGCOLLATION => {
            Error::new(Kind::UndefinedObject, format!("collation \"{text}\" for encoding \"UTF8\" does not exist"))
        }
        types::REGPROC | types::REGPROCEDURE => {
            Error::new(Kind::UndefinedFunction, format!("function \"{text}\" does not exist"))
        }
        _ => Error::new(Kind::UndefinedFunction, format!("operator does not exist: {text}")),
    }
}

/// The parts of a name, as SQL writes it.
pub fn name_parts(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => part.push('"'),
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            c if quoted => part.push(c),
            // ADBC writes some around the period.
            c if c.is_whitespace()
                && (part.is_empty() || matches!(chars.clone().find(|c| !c.is_whitespace()), Some('.') | None)) => {}
            c => part.extend(c.to_lowercase()),
        }
    }
    parts.push(part);
    parts
}

/// The object that a name means; `None` if there is none.
pub fn object(run: &Run<'_>, text: &str, of: u32) -> Result<Option<Value>> {
    let parts = name_parts(text);
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.as_str()),
        [schema, name] | [_, schema, name] => (Some(schema.as_str()), name.as_str()),
        _ => return Ok(None),
    };
    let found = match of {
        types::REGCLASS => run.snapshot.relation_named(schema, name).map(|relation| relation.oid),
        types::REGTYPE => super::expression::type_named(text).or_else(|| run.snapshot.row_type_named(schema, name)),
        types::REGNAMESPACE => return run.find("pg_namespace", "nspname", name),
        types::REGROLE => return run.find("pg_authid", "rolname", name),
        types::REGCOLLATION => return run.find("pg_collation", "collname", name),
        types::REGPROCEDURE => return run.find("pg_proc", "proname", name.split('(').next().unwrap_or(name)),
        types::REGPROC => return run.find("pg_proc", "proname", name),
        types::REGOPER | types::REGOPERATOR => {
            return run.find("pg_operator", "oprname", name.split('(').next().unwrap_or(name));
        }
        _ => None,
    };
    Ok(found.map(|oid| Value::Int(i64::from(oid))))
}

/// Writes a value that is not NULL.
pub fn show(run: &Run<'_>, value: &Value, of: u32) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(is) => if *is { "t" } else { "f" }.to_string(),
        Value::Int(number) if types::is_named_oid(of) => name_of(run, *number, of),
        Value::Int(number) => number.to_string(),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.to_string(),
        Value::Time(micros) => format_timestamp(*micros),
        Value::List(values) if matches!(of, types::INT2VECTOR | types::OIDVECTOR) => {
            values.iter().map(|value| show(run, value, types::INT8)).collect::<Vec<_>>().join(" ")
        }
        Value::List(values) => {
            let element = base().element_of(of).unwrap_or(types::TEXT);
            let delimiter = base().type_of(element).map_or(',', |kind| kind.delimiter).to_string();
            let shown = values.iter().map(|value| match value {
                Value::Null => "NULL".to_string(),
                Value::List(_) => show(run, value, of),
                value => quoted_element(&show(run, value, element), false),
            });
            format!("{{{}}}", shown.collect::<Vec<_>>().join(&delimiter))
        }
        Value::Row(values) => {
            let shown = values.iter().map(|value| match value {
                Value::Null => String::new(),
                value => quoted_element(&show(run, value, types::UNKNOWN), true),
            });
            format!("({})", shown.collect::<Vec<_>>().join(","))
        }
    }
}

/// With as many digits as there are.
pub fn format_timestamp(micros: Micros) -> String {
    let Some(time) = chrono::DateTime::from_timestamp_micros(micros) else { return micros.to_string() };
    let text = time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    format!("{}+00", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The name of an object, or its number if there is none.
fn name_of(run: &Run<'_>, oid: i64, of: u32) -> String {
    if oid == 0 {
        return "-".to_string();
    }
    let by = |table: &str, column: &str| {
        let name = run.get(table, "oid", &Value::Int(oid), column).ok().flatten();
        name.and_then(|name| name.as_str().map(identifier))
    };
    let found = match of {
        types::REGCLASS => run.snapshot.relation(oid as u32).map(|relation| relation.shown_name()),
        types::REGTYPE => Some(run.snapshot.type_name(oid as u32)),
        types::REGNAMESPACE => by("pg_namespace", "nspname"),
        types::REGROLE => by("pg_authid", "rolname"),
        types::REGPROC => by("pg_proc", "proname"),
        types::REGCOLLATION => by("pg_collation", "collname").map(|name| match name.as_str() {
            "default" => "\"default\"".to_string(),
            _ => name,
        }),
        types::REGPROCEDURE => by("pg_proc", "proname").map(|name| {
            let arguments = run.get("pg_proc", "oid", &Value::Int(oid), "proargtypes").ok().flatten();
            let of = |value: &Value| type_text(value.as_int().unwrap_or_default() as u32);
            let arguments = arguments.as_ref().and_then(Value::as_list).unwrap_or_default();
            format!("{name}({})", arguments.iter().map(of).collect::<Vec<_>>().join(","))
        }),
        types::REGOPERATOR => {
            let get = |column: &str| run.get("pg_operator", "oid", &Value::Int(oid), column).ok().flatten();
            let of = |column: &str| match get(column).and_then(|value| value.as_int()) {
                None | Some(0) => "NONE".to_string(),
                Some(of) => type_text(of as u32),
            };
            let name = get("oprname");
            let name = name.as_ref().and_then(Value::as_str);
            name.map(|name| format!("{name}({},{})", of("oprleft"), of("oprright")))
        }
        types::REGOPER => {
            let name = run.get("pg_operator", "oid", &Value::Int(oid), "oprname").ok().flatten();
            name.and_then(|name| name.as_str().map(str::to_string))
        }
        _ => None,
    };
    found.unwrap_or_else(|| oid.to_string())
}

/// The value in another type.
pub fn convert(run: &Run<'_>, value: Value, from: u32, to: u32) -> Result<Value> {
    Ok(match (value, base().element_of(from), base().element_of(to)) {
        (Value::Null, ..) => Value::Null,
        (Value::List(values), Some(from), Some(to)) => {
            let values = values.iter().map(|value| convert(run, value.clone(), from, to));
            Value::list(values.collect::<Result<Vec<Value>>>()?)
        }
        (Value::Text(text), ..) if to == types::CHAR => {
            Value::text(text.chars().next().map(String::from).unwrap_or_default())
        }
        (Value::Bool(is), ..) if types::is_text(to) => Value::text(if is { "true" } else { "false" }),
        (value, ..) if types::is_text(to) => Value::text(show(run, &value, from)),
        (Value::Text(text), ..) => read(run, &text, to)?,
        (value, ..) if types::is_float(to) => value.as_float().map_or(Value::Null, Value::Float),
        (Value::Float(number), ..) if types::is_integer(to) => Value::Int(number.round_ties_even() as i64),
        (Value::Int(number), ..) if to == types::BOOL => Value::Bool(number != 0),
        (Value::Bool(is), ..) if types::is_integer(to) => Value::Int(i64::from(is)),
        (value, ..) => value,
    })
}

/// The query of a view, from its statement: what stands behind AS.
pub fn query_of(statement: &str) -> Option<String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, statement).tokenize_with_location().ok()?;
    let mut depth = 0;
    for token in tokens {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Word(word) if depth == 0 && word.keyword == Keyword::AS => {
                let (line, column) = (token.span.end.line as usize, token.span.end.column as usize);
                let start: usize = statement.split_inclusive('\n').take(line - 1).map(str::len).sum();
                let rest = statement.get(start..)?;
                let at = rest.char_indices().nth(column - 1).map_or(rest.len(), |(at, _)| at);
                return Some(format!(" {};", rest[at..].trim().trim_end_matches(';').trim_end()));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sql_reads_them() {
        assert_eq!(name_parts("Pg_Catalog.\"A.b\"\"c\""), ["pg_catalog", "A.b\"c"]);
        assert_eq!(name_parts(" x "), ["x"]);
    }

    #[test]
    fn literals_are_read_by_their_type() {
        assert_eq!(
            read_plain("{1,2}", base().array_of(types::OID).unwrap()),
            Some(Value::list(vec![Value::Int(1), Value::Int(2)]))
        );
        assert_eq!(read_plain("1 2", types::INT2VECTOR), Some(Value::list(vec![Value::Int(1), Value::Int(2)])));
        assert_eq!(read_plain("yes", types::BOOL), Some(Value::Bool(true)));
        assert_eq!(read_plain("x", types::INT4), None);
        assert_eq!(read_plain("pg_class", types::REGCLASS), None);
    }

    #[test]
    fn types_have_the_names_of_the_standard() {
        assert_eq!(type_text(types::TIMESTAMPTZ), "timestamp with time zone");
        assert_eq!(type_text(base().array_of(types::INT8).unwrap()), "bigint[]");
        assert_eq!(type_text(types::CHAR), "\"char\"");
    }

    #[test]
    fn the_query_of_a_view_stands_behind_as() {
        for (statement, query) in [
            ("CREATE VIEW v AS SELECT 1 AS x", " SELECT 1 AS x;"),
            ("CREATE MATERIALIZED VIEW v WITH (a = 1)\nAS\n  SELECT b AS c FROM d;", " SELECT b AS c FROM d;"),
        ] {
            assert_eq!(query_of(statement).as_deref(), Some(query));
        }
        assert_eq!(query_of("CREATE TABLE x"), None);
    }
}
