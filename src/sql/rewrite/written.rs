//! What is written out in a statement, in spellings that Arrow and the regular expressions here do not have: times and
//! intervals, patterns, numbers with halves, rows of values.

use sqlparser::ast::{CharacterLength, DataType, Expr, Query, SetExpr, TimezoneInfo, UnaryOperator, Value};

use super::{binary, call, literal, nested, number, take, text};
use crate::error::{Error, Kind, Result};
use crate::sql::literals::{self, Said, Target};
use crate::sql::types;
use sqlparser::ast::BinaryOperator;

/// A literal of a date, time or interval in a spelling that Arrow reads; `None` for another type, or where it reads it as
/// it is.
pub fn timed(given: &str, data_type: &DataType) -> Result<Option<Expr>> {
    let (target, digits) = match data_type {
        DataType::Date => (Target::Date, None),
        DataType::Time(digits, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => (Target::Time, *digits),
        DataType::Timestamp(digits, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => (Target::Timestamp, *digits),
        DataType::Timestamp(digits, _) => (Target::Zoned, *digits),
        DataType::Interval { .. } => return interval(given),
        _ => return Ok(None),
    };
    Ok(match literals::read(given, target, digits)? {
        Said::Text(spelled) => Some(text(spelled)),
        Said::Now => Some(call("now", Vec::new())),
        Said::Day(days) => Some(nested(binary(call("current_date", Vec::new()), BinaryOperator::Plus, number(days)))),
        Said::Other => None,
    })
}

/// The same of an interval.
pub fn interval(given: &str) -> Result<Option<Expr>> {
    let known = arrow::compute::kernels::cast_utils::parse_interval_month_day_nano(given);
    if known.is_ok() && !given.contains('.') && given.contains(|c: char| c.is_ascii_alphabetic()) {
        return Ok(None);
    }
    literals::interval(given).map(|spelled| Some(text(spelled)))
}

/// The length of a `varchar(n)`.
pub fn length_of(data_type: &DataType) -> Option<i64> {
    match data_type {
        DataType::Varchar(Some(CharacterLength::IntegerLength { length, .. }))
        | DataType::CharacterVarying(Some(CharacterLength::IntegerLength { length, .. })) => {
            i64::try_from(*length).ok()
        }
        _ => None,
    }
}

pub fn is_whole(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int(_)
            | DataType::Integer(_)
            | DataType::Int4(_)
            | DataType::SmallInt(_)
            | DataType::Int2(_)
            | DataType::BigInt(_)
            | DataType::Int8(_)
    )
}

/// Whether it is a number with a point.
pub fn is_fraction(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(&value.value, Value::Number(digits, _) if digits.contains('.')),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } | Expr::Nested(expr) => is_fraction(expr),
        _ => false,
    }
}

/// A regular expression with PostgreSQL's signs for the ends of words in Rust's; `None` where there are none.
pub fn words_of_pattern(pattern: &str) -> Option<String> {
    let found = ["\\m", "\\M", "\\y", "\\Y"].iter().any(|sign| pattern.contains(sign));
    found.then(|| {
        let pattern = pattern.replace("\\m", "\\b{start}").replace("\\M", "\\b{end}");
        pattern.replace("\\y", "\\b").replace("\\Y", "\\B")
    })
}

/// `x SIMILAR TO 'a%'` as a regular expression over the whole of x.
pub fn similar_to(expr: &mut Expr) -> Result<()> {
    let Expr::SimilarTo { negated, expr: value, pattern, escape_char } = expr else { return Ok(()) };
    let escape = escape_char.as_ref().and_then(|value| value.value.clone().into_string());
    let escape = escape.map_or(Some('\\'), |text| text.chars().next());
    let Some(given) = literal(pattern) else {
        if matches!(&**pattern, Expr::Value(_)) {
            return Ok(()); // NULL
        }
        return Err(Error::new(Kind::NotSupported, "SIMILAR TO takes a pattern that is written out")
            .with_hint("A regular expression (~) may come from a column."));
    };
    let (mut out, mut chars, mut in_class) = (String::from("^(?:"), given.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(next) = chars.next() {
                    out.push_str(&regex::escape(&next.to_string()));
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            c if in_class => out.push(c),
            '%' => out.push_str("(?s:.*)"),
            '_' => out.push_str("(?s:.)"),
            '.' | '^' | '$' | '\\' => out.push_str(&regex::escape(&c.to_string())),
            c => out.push(c),
        }
    }
    out.push_str(")$");
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    *expr = nested(binary(nested(take(value)), op, text(out)));
    Ok(())
}

/// Rows that are written out: where one has a value of a type in a column, texts of the others are read as such.
pub fn values_of_types(query: &mut Query) {
    let SetExpr::Values(values) = &mut *query.body else { return };
    let width = values.rows.first().map_or(0, |row| row.content.len());
    for column in 0..width {
        let of = values.rows.iter().find_map(|row| match row.content.get(column)? {
            Expr::Function(function) => types::read_by(&function.name.to_string()),
            _ => None,
        });
        let Some(subtype) = of else { continue };
        for row in &mut values.rows {
            let Some(value) = row.content.get_mut(column) else { continue };
            let is_null = matches!(&*value, Expr::Value(value) if value.value == Value::Null);
            if literal(value).is_some() || is_null {
                *value = call(types::reader(subtype), vec![take(value)]);
            }
        }
    }
}
