//! The fields of a COPY as values of their columns, in PostgreSQL's spellings.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
    StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, Field};
use chrono::Utc;

use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;
use crate::sql::statement::insert::invalid;
use crate::sql::statement::type_name;
use crate::sql::types;
use crate::time::UTC;

/// From 1970-01-01 to 2000-01-01, where PostgreSQL's timestamps begin.
const MICROS_TO_2000: i64 = 10_957 * 86_400_000_000;

/// One column of the rows that are being read.
pub struct Column {
    name: String,
    data_type: DataType,
    /// What its texts are, where they are more than texts.
    subtype: Option<Subtype>,
    values: Values,
}

enum Values {
    Text(StringViewBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Boolean(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Column {
    /// Of a type that statements can give ([`holds`](crate::batch::inserted::holds)).
    pub fn new(field: &Field) -> Column {
        let values = match field.data_type() {
            DataType::Int16 => Values::Int16(Int16Builder::new()),
            DataType::Int32 => Values::Int32(Int32Builder::new()),
            DataType::Int64 => Values::Int64(Int64Builder::new()),
            DataType::Float32 => Values::Float32(Float32Builder::new()),
            DataType::Float64 => Values::Float64(Float64Builder::new()),
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Timestamp(..) => Values::Time(TimestampMicrosecondBuilder::new().with_timezone(UTC)),
            _ => Values::Text(StringViewBuilder::new()),
        };
        let (name, data_type) = (field.name().clone(), field.data_type().clone());
        Column { name, data_type, subtype: Subtype::of(field), values }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a value; `None` is NULL.
    pub fn push(&mut self, field: Option<&[u8]>) -> Result<()> {
        let text = field.map(text).transpose()?;
        let data_type = &self.data_type;
        match &mut self.values {
            Values::Text(values) => match (text, self.subtype) {
                (Some(text), Some(subtype)) => values.append_value(subtype.read(text)?),
                (text, _) => values.append_option(text),
            },
            Values::Int16(values) => values.append_option(text.map(|text| whole(text, data_type)).transpose()?),
            Values::Int32(values) => values.append_option(text.map(|text| whole(text, data_type)).transpose()?),
            Values::Int64(values) => values.append_option(text.map(|text| whole(text, data_type)).transpose()?),
            Values::Float32(values) => values.append_option(text.map(|text| float(text, data_type)).transpose()?),
            Values::Float64(values) => values.append_option(text.map(|text| float(text, data_type)).transpose()?),
            Values::Boolean(values) => values.append_option(text.map(boolean).transpose()?),
            Values::Time(values) => values.append_option(text.map(|text| time(text, data_type)).transpose()?),
        }
        Ok(())
    }

    /// Adds a value in PostgreSQL's binary format of the column's type; `None` is NULL.
    pub fn push_binary(&mut self, field: Option<&[u8]>) -> Result<()> {
        let wrong =
            || Error::new(Kind::BadBinary, format!("incorrect binary data format for column \"{}\"", self.name));
        macro_rules! number {
            ($values:ident, $kind:ty) => {
                match field {
                    Some(bytes) => $values.append_value(<$kind>::from_be_bytes(bytes.try_into().map_err(|_| wrong())?)),
                    None => $values.append_null(),
                }
            };
        }
        match &mut self.values {
            Values::Text(values) => match (field, self.subtype) {
                (Some(bytes), Some(subtype)) => {
                    let text = types::text_of(subtype, bytes).ok_or_else(wrong)?;
                    values.append_value(subtype.read(text_checked(&text)?)?);
                }
                (field, _) => values.append_option(field.map(text).transpose()?),
            },
            Values::Int16(values) => number!(values, i16),
            Values::Int32(values) => number!(values, i32),
            Values::Int64(values) => number!(values, i64),
            Values::Float32(values) => number!(values, f32),
            Values::Float64(values) => number!(values, f64),
            Values::Boolean(values) => match field {
                Some(&[byte]) => values.append_value(byte != 0),
                Some(_) => return Err(wrong()),
                None => values.append_null(),
            },
            // Microseconds since 2000-01-01.
            Values::Time(values) => match field {
                Some(bytes) => {
                    let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
                    let out = || out_of_range(&micros.to_string(), &self.data_type);
                    values.append_value(micros.checked_add(MICROS_TO_2000).ok_or_else(out)?);
                }
                None => values.append_null(),
            },
        }
        Ok(())
    }

    /// The values so far; it is empty again.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let array: ArrayRef = match &mut self.values {
            Values::Text(values) => Arc::new(values.finish()),
            Values::Int16(values) => Arc::new(values.finish()),
            Values::Int32(values) => Arc::new(values.finish()),
            Values::Int64(values) => Arc::new(values.finish()),
            Values::Float32(values) => Arc::new(values.finish()),
            Values::Float64(values) => Arc::new(values.finish()),
            Values::Boolean(values) => Arc::new(values.finish()),
            Values::Time(values) => Arc::new(values.finish().with_timezone(UTC)),
        };
        if *array.data_type() == self.data_type { Ok(array) } else { Ok(cast(&array, &self.data_type)?) }
    }
}

fn text_checked(value: &str) -> Result<&str> {
    text(value.as_bytes())
}

/// PostgreSQL's text holds no NUL.
fn text(bytes: &[u8]) -> Result<&str> {
    let wrong = |at: usize| {
        let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{:02x}", bytes[at]);
        Error::new(Kind::InvalidEncoding, message)
    };
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => memchr::memchr(0, bytes).map_or(Ok(text), |at| Err(wrong(at))),
        Err(_) => Err(std::str::from_utf8(bytes).map_or_else(|err| wrong(err.valid_up_to()), |_| wrong(0))),
    }
}

fn refuse(text: &str, data_type: &DataType) -> Error {
    Error::new(Kind::InvalidText, invalid(&type_name(data_type), text))
}

fn out_of_range(text: &str, data_type: &DataType) -> Error {
    Error::new(Kind::OutOfRange, format!("value \"{text}\" is out of range for type {}", type_name(data_type)))
}

fn whole<T: FromStr<Err = std::num::ParseIntError>>(text: &str, data_type: &DataType) -> Result<T> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.trim_ascii().parse().map_err(|err: std::num::ParseIntError| match err.kind() {
        PosOverflow | NegOverflow => out_of_range(text, data_type),
        _ => refuse(text, data_type),
    })
}

fn float<T: FromStr + Into<f64> + Copy>(text: &str, data_type: &DataType) -> Result<T> {
    let trimmed = text.trim_ascii();
    let value: T = trimmed.parse().map_err(|_| refuse(text, data_type))?;
    // Too large a number is no infinity.
    let spelled = trimmed.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if value.into().is_infinite() && spelled { Err(out_of_range(text, data_type)) } else { Ok(value) }
}

/// Any beginning of a word that says which it is.
fn boolean(text: &str) -> Result<bool> {
    let word = text.trim_ascii().to_ascii_lowercase();
    let begins = |of: &str| !word.is_empty() && of.starts_with(&word);
    if word == "1" || word == "on" || begins("true") || begins("yes") {
        Ok(true)
    } else if word == "0" || word == "of" || word == "off" || begins("false") || begins("no") {
        Ok(false)
    } else {
        Err(refuse(text, &DataType::Boolean))
    }
}

/// As casts in queries read it; without a zone it is UTC.
fn time(text: &str, data_type: &DataType) -> Result<i64> {
    let time = string_to_datetime(&Utc, text.trim_ascii()).map_err(|_| refuse(text, data_type))?;
    Ok(time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int32Type, TimestampMicrosecondType};

    use super::*;
    use crate::format::timestamp_type;

    fn column(data_type: DataType) -> Column {
        Column::new(&Field::new("c", data_type, true))
    }

    fn refused(data_type: DataType, value: &[u8]) -> (Kind, String) {
        let err = column(data_type).push(Some(value)).unwrap_err();
        (err.kind(), err.message().to_string())
    }

    #[test]
    fn values_are_read_as_postgres_reads_them() {
        let mut numbers = column(DataType::Int32);
        for value in [Some(b" 42".as_slice()), Some(b"-7"), None] {
            numbers.push(value).unwrap();
        }
        let array = numbers.finish().unwrap();
        assert_eq!(array.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(42), Some(-7), None]);
        assert_eq!(numbers.finish().unwrap().len(), 0);
        for (text, expected) in [("t", true), ("YES", true), ("on", true), ("1", true), ("fal", false), ("off", false)]
        {
            assert_eq!(boolean(text).unwrap(), expected, "{text}");
        }
        assert_eq!(float::<f64>("Infinity", &DataType::Float64).unwrap(), f64::INFINITY);
        assert!(float::<f32>("NaN", &DataType::Float32).unwrap().is_nan());
        let noon = 1_767_268_800_000_000;
        for text in
            ["2026-01-01 12:00:00", "2026-01-01T13:00:00.000+01:00", "2026-01-01 14:00:00+02", "2026-01-01T12:00:00Z"]
        {
            assert_eq!(time(text, &timestamp_type()).unwrap(), noon, "{text}");
        }
    }

    #[test]
    fn binary_values_have_the_size_of_their_type() {
        let mut numbers = column(DataType::Int32);
        numbers.push_binary(Some(&[0, 0, 1, 2])).unwrap();
        numbers.push_binary(None).unwrap();
        let array = numbers.finish().unwrap();
        assert_eq!(array.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(258), None]);
        let mut times = column(timestamp_type());
        times.push_binary(Some(&0i64.to_be_bytes())).unwrap();
        let array = times.finish().unwrap();
        assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), 946_684_800_000_000);
        for data_type in [DataType::Int16, DataType::Int64, DataType::Boolean, DataType::Float64, timestamp_type()] {
            assert_eq!(column(data_type).push_binary(Some(b"abc")).unwrap_err().kind(), Kind::BadBinary);
        }
        let late = column(timestamp_type()).push_binary(Some(&i64::MAX.to_be_bytes())).unwrap_err();
        assert_eq!(late.kind(), Kind::OutOfRange);
        assert_eq!(column(DataType::Utf8View).push_binary(Some(b"\xff")).unwrap_err().kind(), Kind::InvalidEncoding);
    }

    #[test]
    fn what_is_no_value_is_said_in_postgres_words() {
        let text = |kind, message: &str| (kind, message.to_string());
        let number = refused(DataType::Int32, b"12x");
        assert_eq!(number, text(Kind::InvalidText, "invalid input syntax for type integer: \"12x\""));
        let large = refused(DataType::Int16, b"40000");
        assert_eq!(large, text(Kind::OutOfRange, "value \"40000\" is out of range for type smallint"));
        assert_eq!(refused(DataType::Float32, b"1e99").0, Kind::OutOfRange);
        assert_eq!(refused(DataType::Boolean, b"o").0, Kind::InvalidText);
        assert_eq!(refused(timestamp_type(), b"soon").0, Kind::InvalidText);
        assert_eq!(refused(DataType::Int64, b"").0, Kind::InvalidText);
        let bytes = refused(DataType::Utf8View, b"a\xff");
        assert_eq!(bytes, text(Kind::InvalidEncoding, "invalid byte sequence for encoding \"UTF8\": 0xff"));
        assert_eq!(refused(DataType::Utf8View, b"a\0").0, Kind::InvalidEncoding);
    }
}
