//! Which value of a row says its time.

use super::cells::Reading;
use super::value::Value;
use crate::format::column::Block;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

/// Names under which loggers write the event time, the most telling first; compared without regard to case.
pub const TIME_FIELDS: &[&str] = &[
    "ts",
    "@timestamp",
    "timestamp",
    "time",
    "datetime",
    "date",
    "event_time",
    "eventtime",
    "_time",
    "log_time",
    "logged_at",
    "created_at",
    "asctime",
    "edgestarttimestamp",
    "__realtime_timestamp",
];

pub const TIME_FIELD: OptionSpec = OptionSpec::optional(
    "time_field",
    OptionKind::Text,
    None,
    "member or column that holds the event time, or 'none'; when not given, the first of ts, timestamp, time and the like",
);

/// Where the time of a row is looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum TimeField {
    /// In the field that the user named.
    Named(String),
    /// In the first that is called like a time and reads as one.
    Any,
    /// Nowhere: rows have no event time.
    None,
}

impl TimeField {
    /// Reads [`TIME_FIELD`]; `declared` is the first column that was declared as a time.
    pub fn from_options(options: &Options, declared: Option<&str>) -> TimeField {
        match options.text(TIME_FIELD.name).or(declared) {
            Some("none") => TimeField::None,
            Some(name) => TimeField::Named(name.to_string()),
            None => TimeField::Any,
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            TimeField::Named(name) => Some(name),
            TimeField::Any | TimeField::None => None,
        }
    }
}

/// The time that a value says.
pub fn read(reading: &Reading<'_>, block: &Block<'_>, value: Value) -> Option<Micros> {
    match value {
        Value::Text { span, escaped: false } | Value::Word(span) => reading.times.read(block.get(span)),
        Value::Text { span, escaped: true } => reading.times.read(reading.texts.decode(block.get(span))?.as_bytes()),
        Value::Int(number) => reading.times.format.number(number),
        Value::Float(number) => reading.times.format.float(number),
        Value::Null | Value::Bool(_) | Value::Flag | Value::Nested | Value::Big => None,
    }
}
