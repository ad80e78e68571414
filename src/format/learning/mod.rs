//! Formats that learn their columns from the lines: from the names beside their values ([`objects`]: JSON, logfmt, pairs)
//! or in a header line above them ([`table`]: CSV, TSV, W3C).
//!
//! A new name is typed by all its values in the block where it first appears, then the type is fixed, and the schema only
//! ever grows at its end. What was learned depends on nothing but the lines parsed so far, in order, so reading the WAL
//! again learns the same; and lines that are parsed a second time, after more was learned, give the same values.
//!
//! Nothing is dropped. A value that clashes with its column's type leaves the column NULL and is kept in a sibling,
//! `<name>__double` for numbers and `<name>__text` for all else. NULLs alone make no column.

mod cells;
mod days;
mod headers;
mod layout;
mod learned;
pub mod objects;
mod places;
pub mod table;
mod time;
pub mod value;

use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};

pub use self::layout::distinct;
pub use self::time::TIME_FIELD;

/// The option that bounds what is learned.
pub const MAX_COLUMNS: OptionSpec = OptionSpec::optional(
    "max_columns",
    OptionKind::Integer,
    Some("1000"),
    "most columns to make; further members go to the column _rest as JSON text",
);

/// The option that bounds what is remembered of header lines.
pub const MAX_HEADERS: OptionSpec = OptionSpec::optional(
    "max_headers",
    OptionKind::Integer,
    Some("10000"),
    "most changes of header lines to remember; then the oldest is forgotten, and what goes on below it is read under the first",
);

fn max_headers(options: &Options) -> Result<usize> {
    let most = options.integer(MAX_HEADERS.name).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    most.ok_or_else(|| Error::new(Kind::InvalidParameter, "option \"max_headers\" must be at least 1"))
}

fn max_columns(options: &Options) -> Result<usize> {
    let most = options.integer(MAX_COLUMNS.name).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    most.ok_or_else(|| Error::new(Kind::InvalidParameter, "option \"max_columns\" must be at least 1"))
}

/// What was learned before, out of a checkpoint.
fn saved<T: serde::de::DeserializeOwned>(learned: &serde_json::Value) -> Result<T> {
    serde_json::from_value(learned.clone()).map_err(|err| damaged(&err.to_string()))
}

fn damaged(why: &str) -> Error {
    Error::new(Kind::Corrupted, format!("the columns learned before are not readable: {why}"))
}
