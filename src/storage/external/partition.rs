//! What do the names of directories say? `year=2026/month=11/x.parquet` is a file whose rows all have the values 2026 and
//! 11 in columns that the file itself lacks. Writers escape what cannot stand in a name as `%2F`, and write NULL as
//! [`NULL`].
//!
//! Types are guessed from all values there are: whole numbers, days, else text.

use arrow::datatypes::{DataType, Field, FieldRef};
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};

/// How writers spell NULL in the name of a directory.
pub const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The names and values in the directories of a file, outermost first.
pub fn values(name: &str) -> Vec<(String, String)> {
    let directories = name.rsplit_once('/').map_or("", |(directories, _)| directories);
    let pairs = directories.split('/').filter_map(|part| part.split_once('='));
    pairs.map(|(key, value)| (decoded(key), decoded(value))).collect()
}

/// The type that fits all of these values.
pub fn guess<'a>(values: impl Iterator<Item = &'a str> + Clone) -> DataType {
    let mut known = values.filter(|value| *value != NULL).peekable();
    if known.peek().is_none() {
        DataType::Utf8View
    } else if known.clone().all(|value| value.parse::<i64>().is_ok()) {
        DataType::Int64
    } else if known.all(is_day) {
        DataType::Date32
    } else {
        DataType::Utf8View
    }
}

fn is_day(value: &str) -> bool {
    value.len() == 10 && NaiveDate::parse_from_str(value, "%Y-%m-%d").is_ok()
}

/// A value as one of its column's type; `name` is the file's, for the message.
pub fn typed(value: &str, column: &Field, name: &str) -> Result<ScalarValue> {
    let data_type = column.data_type();
    if value == NULL {
        return Ok(ScalarValue::try_from(data_type)?);
    }
    ScalarValue::try_from_string(value.to_string(), data_type).map_err(|_| {
        let column = column.name();
        Error::new(Kind::InvalidText, format!("partition {column}={value} is not of the column's type"))
            .with_detail(format!("It is that of the file {name:?}; the type is {data_type}."))
            .with_hint(format!("Create the table anew, with PARTITIONED BY ({column} text) if such values are right."))
    })
}

/// A partition's column.
pub fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// `%2F` and the like as the bytes they stand for; left alone where the result would be no text.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_values() {
        let pairs = values("x/year=2026/path=%2Fa%20b%/f=1.parquet");
        assert_eq!(pairs, [("year".into(), "2026".into()), ("path".into(), "/a b%".into())]);
        assert_eq!(values("x.parquet"), []);
        assert_eq!(decoded("%ff"), "%ff");
    }

    #[test]
    fn types_fit_all_values() {
        let of = |values: &[&'static str]| guess(values.iter().copied());
        assert_eq!(of(&["01", "12", NULL]), DataType::Int64);
        assert_eq!(of(&["2026-11-02", "2026-01-31"]), DataType::Date32);
        assert_eq!(of(&["2026-11-02", "soon"]), DataType::Utf8View);
        assert_eq!(of(&[NULL]), DataType::Utf8View);
        let column = Field::new("month", DataType::Int64, true);
        assert_eq!(typed("03", &column, "f").unwrap(), ScalarValue::Int64(Some(3)));
        assert!(typed(NULL, &column, "f").unwrap().is_null());
        assert_eq!(typed("x", &column, "f").unwrap_err().kind(), Kind::InvalidText);
    }
}
