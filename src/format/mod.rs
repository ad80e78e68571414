//! How does one frame become one row? Each format is one file with its [`Spec`], listed once in [`FORMATS`].
//!
//! A format is a pure function of the frames: no clock, no I/O. That is what makes a view rebuildable from the WAL.
//! It works on a whole block of frames at a time and writes straight into Arrow columns whose strings are views over
//! the block's bytes.

pub mod access;
pub mod apache_error;
pub mod detect;
pub mod json;
pub mod regex;
pub mod timestamp;

use std::borrow::Cow;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::frame::Frames;
use crate::options::{OptionSpec, Options};
use crate::registry::Entry;

/// Every format, in the order in which detection prefers them when two fit equally well.
pub static FORMATS: &[&Spec] = &[&access::COMBINED, &access::COMMON, &apache_error::SPEC, &json::SPEC, &regex::SPEC];

/// One row of the table of formats.
pub struct Spec {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub summary: &'static str,
    /// `name type` of each column, for the documentation; empty when they depend on the options or the input.
    pub columns: &'static [(&'static str, &'static str)],
    pub options: &'static [OptionSpec],
    /// Some lines that parse without loss with `sample_options`.
    pub sample: &'static str,
    pub sample_options: &'static [(&'static str, &'static str)],
    /// Makes the parser. `declared` are the columns a user named in CREATE TABLE (empty: the format's own).
    pub build: fn(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>>,
    /// Whether the format can be found by looking at lines (regex cannot: it needs its pattern).
    pub detectable: bool,
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// A column that a user declared: its name and Arrow type.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub name: String,
    pub data_type: arrow::datatypes::DataType,
}

/// A parser of frames.
pub trait Format: Send + Sync {
    /// The columns of [`Parsed::rows`] as known now. A format that learns columns from its input (JSON) only ever
    /// appends to it; earlier batches are then read with NULL in the new columns.
    fn schema(&self) -> SchemaRef;

    /// The column that holds the event time by default: `timestamptz` (microseconds, UTC).
    fn time_column(&self) -> Option<String>;

    /// Parses every frame into either a row or a malformed entry: `rows.num_rows() + malformed.len() == frames.len()`.
    /// Never panics, whatever the bytes.
    fn parse(&self, frames: &Frames) -> Parsed;
}

/// What became of a block of frames.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The rows, in the order of their frames.
    pub rows: RecordBatch,
    /// The frames that are no rows, in order; all other frames are.
    pub malformed: Vec<Malformed>,
}

/// A frame that is no row, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub frame: u32,
    pub reason: Cow<'static, str>,
}

/// The type of every event-time column: microseconds since 1970, UTC.
pub fn timestamp_type() -> arrow::datatypes::DataType {
    arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(crate::time::UTC.into()))
}

/// The format called `name`, built with `given` options. Errors name the unknown format or option and the nearest one.
pub fn build(name: &str, given: &[(String, String)], declared: &[Declared]) -> Result<Box<dyn Format>> {
    let spec = crate::registry::find(FORMATS, "format", name)?;
    let options = Options::parse(&format!("format \"{}\"", spec.name), &[spec.options], given)?;
    (spec.build)(&options, declared)
}
