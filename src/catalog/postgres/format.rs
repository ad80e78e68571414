//! `format(pattern, …)` (PostgreSQL manual, String Functions): `%s` a value, `%I` as an identifier, `%L` as a literal, `%%`.
//! Tools build names with it. Positions (`%1$s`) and widths (`%-10s`) are read as PostgreSQL reads them.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Error, Kind, Result};

/// Widest field: more is a mistake.
const MAX_WIDTH: usize = 1000;

/// See the file header.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Format(Signature);

impl Default for Format {
    fn default() -> Format {
        Format(Signature::variadic_any(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let text = |value: &ColumnarValue| cast(&value.to_array(arguments.number_rows)?, &DataType::Utf8);
        let texts = arguments.args.iter().map(|value| Ok(text(value)?)).collect::<DataFusionResult<Vec<ArrayRef>>>()?;
        let value = |column: &ArrayRef, row: usize| -> Option<String> {
            column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_string())
        };
        let row = |row: usize| -> Result<Option<String>> {
            let Some(pattern) = value(&texts[0], row) else { return Ok(None) };
            let values: Vec<Option<String>> = texts[1..].iter().map(|column| value(column, row)).collect();
            formatted(&pattern, &values).map(Some)
        };
        let rows = (0..arguments.number_rows).map(row).collect::<Result<StringArray>>()?;
        Ok(ColumnarValue::Array(Arc::new(rows)))
    }
}

fn wrong(message: String) -> Error {
    Error::new(Kind::InvalidParameter, message)
}

/// The pattern with values filled in.
pub fn formatted(pattern: &str, values: &[Option<String>]) -> Result<String> {
    let (mut out, mut next) = (String::new(), 0);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut width = number(&mut chars);
        let mut left = false;
        if width.is_some() && chars.next_if_eq(&'$').is_some() {
            next = width
                .take()
                .and_then(|place| place.checked_sub(1))
                .ok_or_else(|| wrong("format specifies argument 0, but arguments are numbered from 1".to_string()))?;
        }
        if width.is_none() {
            left = chars.next_if_eq(&'-').is_some();
            width = number(&mut chars);
        }
        let kind = chars.next().ok_or_else(|| wrong("unterminated format() type specifier".to_string()))?;
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(wrong(format!("unrecognized format() type specifier \"{kind}\"")));
        }
        let value = values.get(next).ok_or_else(|| wrong("too few arguments for format()".to_string()))?;
        next += 1;
        let text = match (kind, value) {
            ('s', value) => value.clone().unwrap_or_default(),
            ('I', Some(name)) => identifier(name),
            ('I', None) => return Err(wrong("null values cannot be formatted as an SQL identifier".to_string())),
            (_, Some(text)) => literal(text),
            (_, None) => "NULL".to_string(),
        };
        let width = width.unwrap_or(0).min(MAX_WIDTH);
        match left {
            true => out.push_str(&format!("{text:<width$}")),
            false => out.push_str(&format!("{text:>width$}")),
        }
    }
    Ok(out)
}

/// Digits that come next.
fn number(chars: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    digits.parse().ok()
}

/// Quoted unless it reads the same without.
fn identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text as a literal of SQL: quotes are doubled; with a backslash inside it is a text with escapes.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PostgreSQL 15 gives for the same.
    #[test]
    fn patterns_are_filled_in_as_in_postgres() {
        let values: Vec<Option<String>> = vec![Some("a".into()), Some("b c".into()), Some("it's".into()), None];
        for (pattern, expected) in [
            ("%s-%s", "a-b c"),
            ("%s %I %L %L", "a \"b c\" 'it''s' NULL"),
            ("%3$s %1$s %s", "it's a b c"),
            ("[%5s|%-5s]", "[    a|b c  ]"),
            ("100%% %4$s.", "100% ."),
            ("plain", "plain"),
        ] {
            assert_eq!(formatted(pattern, &values).unwrap(), expected, "{pattern}");
        }
        for pattern in ["%", "%d", "%4$I", "%9$s", "%0$s"] {
            assert_eq!(formatted(pattern, &values).unwrap_err().kind(), Kind::InvalidParameter, "{pattern}");
        }
    }
}
