//! Where do results go? Each sink is one file with its [`Spec`], listed once in [`SINKS`].
//!
//! A sink takes batches and says up to which [`Position`] the other side has accepted them for good. It does not log, count,
//! wait between attempts or remember anything that has to outlive the process: its driver (`delivery/`) does that once for
//! all of them. What keeps rows from being lost or repeated:
//!
//! - Batches come in the order of their positions, and each again until it was accepted or refused for good.
//! - After a failure, and after a restart, [`Sink::open`] tells where the other side stands, if it knows; the driver goes on
//!   there, else from what it has noted itself.
//! - Of a batch that was not accepted yet nothing may be visible, where the other side allows that.

pub mod encode;
pub mod file;
pub mod http;
pub mod kafka;
pub mod postgres;

use std::fmt;

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::Result;
use crate::options::{OptionSpec, Options};
pub use crate::outgoing::Failure;
use crate::registry::Entry;
use crate::time::Micros;
use encode::Encoding;

/// Every sink.
pub static SINKS: &[&Spec] = &[&file::SPEC, &http::SPEC, &kafka::SPEC, &postgres::SPEC];

/// One row of the table of sinks.
pub struct Spec {
    pub name: &'static str,
    pub summary: &'static str,
    pub options: &'static [OptionSpec],
    /// The names of formats that it writes, the first one unless FORMAT says otherwise. None: it has a form of its own.
    pub formats: &'static [&'static str],
    /// How often a row arrives, in words for users.
    pub guarantee: &'static str,
    /// Takes changes as new rows of a key and keys that are gone; else they come as records with `_offset` and `_op`.
    pub upserts: bool,
    /// The other side tells repeated batches by their key: after a restart they have to be cut as they were.
    pub repeats: bool,
    /// The other side keeps the position together with the rows.
    pub keeps_position: bool,
    /// The option with the folder that it writes into, which must not be the engine's own.
    pub writes_into: Option<&'static str>,
    pub build: fn(&Options, Encoding) -> Result<Box<dyn Sink>>,
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// How far a delivery has come.
///
/// Its text is the offset in 20 digits, and behind a `w` the window's time in microseconds if there is one:
/// `00000000000000000042`, `00000000000000000042w1767225600000000`. Texts without windows are in the order of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Of the stream (of all streams together for a view over several): everything before it was delivered.
    pub offset: u64,
    /// Where closed windows are delivered: all windows up to this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Micros>,
}

impl Position {
    pub fn at(offset: u64) -> Position {
        Position { offset, window: None }
    }

    /// Whether everything up to `other` was delivered.
    pub fn has_reached(&self, other: Position) -> bool {
        match (self.window, other.window) {
            (Some(mine), Some(others)) => mine >= others,
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (None, None) => self.offset >= other.offset,
        }
    }

    /// The position that a text means.
    pub fn parse(text: &str) -> Option<Position> {
        let (offset, window) = match text.split_once('w') {
            Some((offset, window)) => (offset, Some(window.parse().ok()?)),
            None => (text, None),
        };
        Some(Position { offset: offset.parse().ok()?, window })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.offset)?;
        self.window.map_or(Ok(()), |window| write!(f, "w{window}"))
    }
}

/// What a sink is to take.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The sink's name.
    pub name: String,
    /// Tells this sink from all others there ever were, also of the same name: 16 hexadecimal digits.
    pub id: String,
    /// The columns of the batches.
    pub schema: SchemaRef,
    /// The columns (by index) that tell rows apart, if that is known; none for a result of one row.
    pub key: Option<Vec<usize>>,
    /// The column (by index) with the time that a row is of, if there is one.
    pub time: Option<usize>,
    /// Rows replace those of the same key, and keys go: only for a sink that `upserts`, and with a key.
    pub upserts: bool,
}

/// Rows to be delivered together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// May have no rows: then only the position is to be accepted.
    pub rows: RecordBatch,
    /// The offset of the relation that each row brings the receiver to.
    pub offsets: Int64Array,
    /// Which rows say that their key is gone; only where the feed upserts.
    pub gone: Option<BooleanArray>,
    /// What was delivered before this batch. Of parts of the same change it is the same.
    pub from: Position,
    /// With this batch everything up to here is delivered; `None` when further parts follow.
    pub upto: Option<Position>,
    /// The first part of the whole result, which takes the place of whatever the other side has.
    pub replaces: bool,
    /// Names the batch: the same one has the same key when it comes again, also after a restart if the sink `repeats`.
    pub key: String,
}

pub type Delivered<T> = Result<T, Failure>;

/// The other side, from here.
pub trait Sink: Send + Sync {
    /// Makes ready to deliver, at the beginning and after each failure, and tells up to where the other side has accepted
    /// everything. `known` is what the driver has noted. What was delivered and not accepted comes again.
    fn open<'a>(&'a mut self, feed: &'a Feed, known: Position) -> BoxFuture<'a, Delivered<Position>>;

    /// Delivers a batch; tells up to where everything is accepted now, if that has changed. May be cancelled; then it is
    /// opened again.
    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Delivered<Option<Position>>>;

    /// Whether something was delivered that is not accepted yet, and that a failure loses.
    fn holds(&self) -> bool {
        false
    }

    /// When [`Sink::finish`] is to be called if nothing is delivered until then.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Brings what was delivered and waits for more to an end, so that it is accepted.
    fn finish(&mut self) -> BoxFuture<'_, Delivered<Option<Position>>> {
        Box::pin(async { Ok(None) })
    }
}

/// What holds for every sink of the table.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_documented_once_and_formats_are_known() {
        for sink in SINKS {
            for (i, option) in sink.options.iter().enumerate() {
                assert!(option.summary.len() > 10, "{}.{}", sink.name, option.name);
                assert!(sink.options[..i].iter().all(|other| other.name != option.name), "{}", option.name);
            }
            for name in sink.formats {
                crate::registry::find(encode::ENCODINGS, "format", name).unwrap();
            }
            assert!(sink.writes_into.is_none_or(|name| sink.options.iter().any(|option| option.name == name)));
        }
    }

    #[test]
    fn positions_are_read_as_they_are_written() {
        for position in [Position::at(42), Position { offset: 7, window: Some(-5) }] {
            assert_eq!(Position::parse(&position.to_string()), Some(position));
        }
        assert_eq!(Position::at(42).to_string(), "00000000000000000042");
        assert_eq!(Position::parse("7wx"), None);
        let window = |window| Position { offset: 9, window };
        assert!(window(Some(3)).has_reached(window(Some(3))) && !window(None).has_reached(window(Some(1))));
    }
}
