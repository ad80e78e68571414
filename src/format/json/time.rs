//! Which member of an object says the time of its row.

use super::learned::Learned;
use super::members::{Member, Value, unescape};
use crate::format::column::Block;
use crate::format::timestamp::{self, TimeFormat};
use crate::time::Micros;

/// Names under which loggers write the event time, the most telling first; compared without regard to case.
const TIME_FIELDS: &[&str] = &[
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

/// Finds and reads event times.
pub struct TimeReader {
    /// The member to read the time from, when the user named it.
    pub field: Option<String>,
    pub format: TimeFormat,
    /// Seconds east of UTC, for times that do not say it.
    pub zone: i64,
}

impl TimeReader {
    /// The member that says the row's time, and the time. Where the user named no member, a line without the learned
    /// one may say its time under another name.
    pub fn find(&self, block: &Block<'_>, learned: &Learned, found: &[Member]) -> Option<(usize, Micros)> {
        let read = |index: usize| Some((index, self.read(block, found[index].value)?));
        let with_name = |name: &str| found.iter().rposition(|m| block.get(m.key) == name.as_bytes()).and_then(read);
        if let Some(time) = learned.time_key().and_then(with_name) {
            return Some(time);
        }
        if self.field.is_some() {
            return None;
        }
        let named = |member: &Member, name: &str| block.get(member.key).eq_ignore_ascii_case(name.as_bytes());
        TIME_FIELDS.iter().find_map(|name| found.iter().rposition(|m| named(m, name)).and_then(read))
    }

    /// The time that a value says.
    pub fn read(&self, block: &Block<'_>, value: Value) -> Option<Micros> {
        match value {
            Value::Text { span, escaped: false } => self.format.read(block.get(span), self.zone),
            Value::Text { span, escaped: true } => self.format.read(unescape(block.get(span))?.as_bytes(), self.zone),
            Value::Int(number) => Some(timestamp::epoch(number)),
            Value::Float(number) => timestamp::epoch_float(number),
            Value::Null | Value::Bool(_) | Value::Nested | Value::Big => None,
        }
    }
}
