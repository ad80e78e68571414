//! Columns whose type a user chose or the input taught, for the formats without columns of their own (JSON, regex).
//!
//! Values are gathered in the widest type of their kind and cast to the declared type at the end, so that the parsers
//! know five kinds and not every Arrow type.

use std::sync::Arc;

use arrow::array::{Array, ArrayBuilder, ArrayRef, BooleanBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};

use super::column::{Block, TextColumn, ValueColumn, finish_times};
use super::timestamp_type;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::options;
use crate::time::Micros;

/// The kinds of values that text can be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Int,
    Double,
    Bool,
    Text,
    Time,
}

/// What users call the types.
const NAMES: &[(&str, DataType)] = &[
    ("text", DataType::Utf8View),
    ("varchar", DataType::Utf8View),
    ("string", DataType::Utf8View),
    ("smallint", DataType::Int16),
    ("int", DataType::Int32),
    ("integer", DataType::Int32),
    ("int4", DataType::Int32),
    ("bigint", DataType::Int64),
    ("int8", DataType::Int64),
    ("real", DataType::Float32),
    ("float", DataType::Float64),
    ("double", DataType::Float64),
    ("double precision", DataType::Float64),
    ("float8", DataType::Float64),
    ("boolean", DataType::Boolean),
    ("bool", DataType::Boolean),
];

/// The type called `name` in SQL.
pub fn type_by_name(name: &str) -> Result<DataType> {
    let lower = name.trim().to_ascii_lowercase();
    if ["timestamptz", "timestamp", "timestamp with time zone"].contains(&lower.as_str()) {
        return Ok(timestamp_type());
    }
    let names = || NAMES.iter().map(|(n, _)| *n).chain(["timestamptz"]);
    let found = NAMES.iter().find(|(n, _)| *n == lower).map(|(_, data_type)| data_type.clone());
    found.ok_or_else(|| {
        options::unknown("type", name.trim(), names()).with_detail(format!("There are: {}.", options::list(names())))
    })
}

impl Kind {
    /// The kind whose values make a column of type `data_type`; `name` is the column's, for the error.
    pub fn of(name: &str, data_type: &DataType) -> Result<Kind> {
        match data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Ok(Kind::Int),
            DataType::Float32 | DataType::Float64 => Ok(Kind::Double),
            DataType::Boolean => Ok(Kind::Bool),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(Kind::Text),
            DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond | TimeUnit::Millisecond, _) => {
                Ok(Kind::Time)
            }
            other => Err(Error::new(ErrorKind::Datatype, format!("column \"{name}\" cannot be read as {other}"))
                .with_hint("Types that can be read are text, int, bigint, double, boolean and timestamptz.")),
        }
    }

    /// The type of a column of this kind when no other was declared.
    pub fn data_type(self) -> DataType {
        match self {
            Kind::Int => DataType::Int64,
            Kind::Double => DataType::Float64,
            Kind::Bool => DataType::Boolean,
            Kind::Text => DataType::Utf8View,
            Kind::Time => timestamp_type(),
        }
    }
}

/// Whether a column of type `data_type` has room for `number`.
pub fn fits(data_type: &DataType, number: i64) -> bool {
    match data_type {
        DataType::Int8 => i8::try_from(number).is_ok(),
        DataType::Int16 => i16::try_from(number).is_ok(),
        DataType::Int32 => i32::try_from(number).is_ok(),
        _ => true,
    }
}

/// A whole number; blanks around it do not matter.
pub fn read_int(text: &[u8]) -> Option<i64> {
    // Eighteen digits fit for sure.
    if (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit) {
        return Some(text.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')));
    }
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// `true`, `false` and PostgreSQL's other words for them.
pub fn read_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A column under construction.
pub enum TypedColumn {
    Int(ValueColumn<Int64Type>),
    Double(ValueColumn<Float64Type>),
    Bool(BooleanBuilder),
    Text(TextColumn),
    Time(ValueColumn<TimestampMicrosecondType>),
}

/// A value that is not text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    Int(i64),
    Double(f64),
    Bool(bool),
    Time(Micros),
}

impl TypedColumn {
    pub fn with_capacity(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Int => TypedColumn::Int(ValueColumn::with_capacity(rows)),
            Kind::Double => TypedColumn::Double(ValueColumn::with_capacity(rows)),
            Kind::Bool => TypedColumn::Bool(BooleanBuilder::with_capacity(rows)),
            Kind::Text => TypedColumn::Text(TextColumn::with_capacity(rows)),
            Kind::Time => TypedColumn::Time(ValueColumn::with_capacity(rows)),
        }
    }

    /// Appends a value; one of another kind than the column's becomes NULL.
    pub fn push(&mut self, value: Scalar) {
        match (self, value) {
            (TypedColumn::Int(column), Scalar::Int(value)) => column.push(value),
            (TypedColumn::Double(column), Scalar::Double(value)) => column.push(value),
            (TypedColumn::Bool(column), Scalar::Bool(value)) => column.append_value(value),
            (TypedColumn::Time(column), Scalar::Time(value)) => column.push(value),
            (column, _) => column.fill(column.len() + 1),
        }
    }

    /// Appends NULLs until the column has `rows` rows.
    pub fn fill(&mut self, rows: usize) {
        match self {
            TypedColumn::Int(column) => column.fill(rows),
            TypedColumn::Double(column) => column.fill(rows),
            TypedColumn::Bool(column) => column.append_nulls(rows.saturating_sub(column.len())),
            TypedColumn::Text(column) => column.fill(rows),
            TypedColumn::Time(column) => column.fill(rows),
        }
    }

    fn len(&self) -> usize {
        match self {
            TypedColumn::Int(column) => column.len(),
            TypedColumn::Double(column) => column.len(),
            TypedColumn::Bool(column) => column.len(),
            TypedColumn::Text(column) => column.len(),
            TypedColumn::Time(column) => column.len(),
        }
    }

    /// The column in type `data_type`, which is of this column's kind.
    pub fn finish(self, block: &Block<'_>, data_type: &DataType) -> ArrayRef {
        let array: ArrayRef = match self {
            TypedColumn::Int(column) => Arc::new(column.finish()),
            TypedColumn::Double(column) => Arc::new(column.finish()),
            TypedColumn::Bool(mut column) => Arc::new(column.finish()),
            TypedColumn::Text(column) => column.finish(block),
            TypedColumn::Time(column) => finish_times(column),
        };
        if array.data_type() == data_type {
            return array;
        }
        cast(&array, data_type).expect("types of one kind can be cast to each other")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frames;

    #[test]
    fn every_kind_can_be_handed_on_in_each_of_its_types() {
        let frames = Frames::default();
        let block = Block::new(&frames);
        let zone = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
        let times = [TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        let mut types = vec![zone(TimeUnit::Microsecond, Some("Europe/Berlin")), zone(TimeUnit::Microsecond, None)];
        types.extend(times.map(|unit| zone(unit, Some("+00:00"))));
        types.extend([DataType::Int8, DataType::Utf8, DataType::LargeUtf8, DataType::Float32]);
        types.extend(NAMES.iter().map(|(name, _)| type_by_name(name).unwrap()));
        for data_type in types {
            let kind = Kind::of("c", &data_type).unwrap();
            let mut column = TypedColumn::with_capacity(kind, 4);
            match &mut column {
                TypedColumn::Text(column) => column.push_own("a text of more than twelve bytes"),
                column => [Scalar::Int(7), Scalar::Double(0.5), Scalar::Bool(true), Scalar::Time(i64::MAX - 1)]
                    .into_iter()
                    .for_each(|value| column.push(value)),
            }
            column.fill(5);
            let array = column.finish(&block, &data_type);
            assert_eq!((array.data_type(), array.len()), (&data_type, 5));
            // A time beyond what nanoseconds can count is NULL too.
            assert!(array.null_count() >= 4, "{data_type}");
        }
        assert!(Kind::of("c", &DataType::Date32).is_err());
        assert!(type_by_name("TimestampTZ").is_ok_and(|t| t == timestamp_type()));
    }
}
