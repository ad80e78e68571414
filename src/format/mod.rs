//! How does one frame become one row? Each format is one file with its [`Spec`], listed once in [`FORMATS`].
//!
//! A format is a pure function of a WAL record (its frames, and when they came): no clock, no I/O. That is what makes a
//! view rebuildable from the WAL.
//! It works on a whole block of frames at a time and writes straight into Arrow columns whose strings are views over
//! the block's bytes.

pub mod access;
pub mod apache_error;
mod column;
pub mod csv;
pub mod db2diag;
mod declared;
pub mod detect;
mod fields;
pub mod grok;
pub mod json;
pub mod jsonb;
pub mod key_value;
mod layout;
mod learning;
pub mod log4j;
pub mod logfmt;
pub mod postgres;
mod quotes;
pub mod raw;
pub mod regex;
mod rows;
pub mod subtype;
pub mod syslog;
pub mod timestamp;
mod typed;
pub mod w3c;
mod yearless;
mod zone_names;

use std::borrow::Cow;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::frame::Frames;
use crate::options::{OptionSpec, Options};
use crate::registry::Entry;
use crate::time::Micros;

/// Every format, in the order in which detection prefers them when two fit equally well.
pub static FORMATS: &[&Spec] = &[
    // Before `combined`, which would take the host for the client and the client for a part of the user.
    &access::pattern::VHOST_COMBINED,
    &access::COMBINED,
    &access::COMMON,
    &access::pattern::COMBINEDIO,
    &access::pattern::SPEC,
    &apache_error::SPEC,
    &syslog::SPEC,
    &postgres::SPEC,
    &log4j::SPEC,
    &db2diag::SPEC,
    &json::SPEC,
    &logfmt::SPEC,
    &key_value::SPEC,
    &w3c::SPEC,
    &csv::CSV,
    &csv::TSV,
    &regex::SPEC,
    &grok::SPEC,
    &raw::SPEC,
];

/// One row of the table of formats.
pub struct Spec {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub summary: &'static str,
    /// `name type` of each column, for the documentation; empty when they depend on the options or the input.
    pub columns: &'static [(&'static str, &'static str)],
    pub options: &'static [OptionSpec],
    /// Some lines (joined to records where the format's go over several) that parse without loss with `sample_options`.
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

    /// Whether [`Format::schema`] grows with the input: then frames must have been parsed before their columns are known.
    fn learns(&self) -> bool {
        false
    }

    /// What it has learned so far, for [`Format::recall`]; `None` for a format that does not learn.
    fn learned(&self) -> Option<serde_json::Value> {
        None
    }

    /// Goes on with what an earlier process had learned; called before any frame is parsed. Fails when that is not of
    /// this format.
    fn recall(&self, _learned: &serde_json::Value) -> Result<()> {
        Ok(())
    }

    /// A regular expression for the lines that begin a record, of a format whose records go over several lines: whoever
    /// frames its lines joins the others to them.
    fn record_start(&self) -> Option<String> {
        None
    }

    /// Parses every frame into either a row or a malformed entry: `rows.num_rows() + malformed.len() == frames.len()`.
    /// Never panics, whatever the bytes.
    ///
    /// `received` is when the frames were taken in. It stands in the WAL record, so a time that leaves out its year can
    /// be read without a clock and is read the same when the log is read again.
    fn parse(&self, frames: &Frames, received: Micros) -> Parsed;

    /// [`Format::parse`] for a format to which it matters where the frames stand.
    fn parse_at(&self, frames: &Frames, received: Micros, _origin: Origin<'_>) -> Parsed {
        self.parse(frames, received)
    }

    /// Whether it matters: then a file is read from its beginning, in one piece.
    fn needs_order(&self) -> bool {
        false
    }
}

/// Where frames stand: what a format goes by whose lines are explained by lines above them.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The file or connection; its lines follow each other.
    pub partition: &'a str,
    /// Number of the first frame in the stream: it grows, and is the same when the frames are parsed again.
    pub offset: u64,
    /// Whether the first frame is the first of its file or connection.
    pub start: bool,
}

impl Origin<'_> {
    /// Frames that are all there is.
    pub const ALONE: Origin<'static> = Origin { partition: "", offset: 0, start: true };
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

/// Reasons of frames that are as they should be and yet no rows: names of columns above their values, and remarks.
pub const HEADER_LINE: &str = "header line";
pub const DIRECTIVE: &str = "directive";

impl Malformed {
    /// Whether the frame is as it should be.
    pub fn is_header(&self) -> bool {
        self.reason == HEADER_LINE || self.reason == DIRECTIVE
    }
}

/// The type of every event-time column: microseconds since 1970, UTC.
pub fn timestamp_type() -> arrow::datatypes::DataType {
    arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(crate::time::UTC.into()))
}

/// Lines joined to the records of `format`.
fn joined(format: &dyn Format, lines: &Frames) -> Frames {
    // A format's own expression is one; with no other joined, each line would be a record.
    let start = format.record_start().and_then(|start| ::regex::bytes::Regex::new(&start).ok());
    start.map_or_else(|| lines.clone(), |start| lines.joined(|line| start.is_match(line)))
}

/// The format called `name`, built with `given` options. Errors name the unknown format or option and the nearest one.
pub fn build(name: &str, given: &[(String, String)], declared: &[Declared]) -> Result<Box<dyn Format>> {
    let spec = crate::registry::find(FORMATS, "format", name)?;
    let options = Options::parse(&format!("format \"{}\"", spec.name), &[spec.options], given)?;
    (spec.build)(&options, declared)
}

/// The bytes of a real log, for tests; `None`, with a note, where the logs are not at hand.
#[cfg(test)]
pub(crate) fn real_log(name: &str) -> Option<Vec<u8>> {
    let log = std::fs::read(real_root().join(name));
    if log.is_err() {
        println!("note: {name} is not in {}; skipped", real_root().display());
    }
    log.ok()
}

/// Name and bytes of all real logs in `folders`, for tests; none, with a note, where they are not at hand.
#[cfg(test)]
fn real_logs(folders: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut logs = Vec::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(real_root().join(folder)) else {
            println!("note: {folder} is not in {}; skipped", real_root().display());
            continue;
        };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        logs.extend(names.into_iter().filter_map(|name| {
            let name = format!("{folder}/{name}");
            real_log(&name).map(|log| (name, log))
        }));
    }
    logs
}

#[cfg(test)]
fn real_root() -> std::path::PathBuf {
    std::env::var_os("LOGWEIR_DATA")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), Into::into)
}

/// The rows of a batch as `column=value` without NULLs, for tests.
#[cfg(test)]
fn rows_as_text(rows: &RecordBatch) -> Vec<String> {
    let table = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(rows)).unwrap().to_string();
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect() };
    let names = cells(table.lines().nth(1).unwrap_or_default());
    let row = |line: &str| {
        let pairs = names.iter().zip(cells(line)).filter(|(_, value)| !value.is_empty());
        pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    table.lines().skip(3).take(rows.num_rows()).map(row).collect()
}

/// What holds for every format of the table.
#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-29, when the samples are said to have come.
    const RECEIVED: Micros = 1_795_910_400_000_000;

    /// Formats to which no line is bad, and that find no time in it.
    const ANY_LINE: &[&str] = &["raw"];

    fn sample_parser(spec: &Spec) -> Box<dyn Format> {
        let given: Vec<_> = spec.sample_options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        build(spec.name, &given, &[]).unwrap_or_else(|err| panic!("{}: {err}", spec.name))
    }

    /// The records of the sample.
    fn sample(spec: &Spec) -> Frames {
        joined(&*sample_parser(spec), &Frames::from_text(spec.sample))
    }

    /// Checks all that must hold of any parse.
    fn check(spec: &Spec, frames: &Frames) -> Parsed {
        let format = sample_parser(spec);
        let parsed = format.parse(frames, RECEIVED);
        assert_eq!(parsed.rows.num_rows() + parsed.malformed.len(), frames.len(), "{}", spec.name);
        assert_eq!(parsed.rows.schema(), format.schema(), "{}", spec.name);
        assert!(parsed.malformed.is_sorted_by(|a, b| a.frame < b.frame), "{}", spec.name);
        for column in parsed.rows.columns() {
            column.to_data().validate_full().unwrap_or_else(|err| panic!("{}: {err}", spec.name));
        }
        parsed
    }

    #[test]
    fn names_are_unique_and_all_is_documented() {
        let mut names: Vec<&str> = FORMATS.iter().flat_map(|s| s.aliases.iter().chain([&s.name])).copied().collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        for spec in FORMATS {
            assert!(!spec.summary.is_empty() && !spec.sample.is_empty(), "{}", spec.name);
            for option in spec.options {
                assert!(option.summary.len() > 10, "{}.{}", spec.name, option.name);
            }
        }
    }

    #[test]
    fn samples_parse_without_loss() {
        for spec in FORMATS {
            let parsed = check(spec, &sample(spec));
            assert!(parsed.malformed.iter().all(Malformed::is_header), "{}: {:?}", spec.name, parsed.malformed);
            let format = sample_parser(spec);
            format.parse(&sample(spec), RECEIVED);
            if ANY_LINE.contains(&spec.name) {
                continue;
            }
            let time = format.time_column().unwrap_or_else(|| panic!("{} has no time", spec.name));
            let time = parsed.rows.column_by_name(&time).expect("the time column is one of the columns");
            assert_eq!((time.data_type(), time.null_count()), (&timestamp_type(), 0), "{}", spec.name);
            if !spec.columns.is_empty() {
                let documented: Vec<&str> = spec.columns.iter().map(|(name, _)| *name).collect();
                let schema = parsed.rows.schema();
                assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), documented);
            }
        }
    }

    #[test]
    fn bad_lines_leave_the_next_one_intact() {
        for spec in FORMATS.iter().filter(|spec| !ANY_LINE.contains(&spec.name)) {
            let good = check(spec, &sample(spec)).rows;
            for bad in ["", "\0", "\"", "[", "{", "\u{fffd}\u{fffd}", "- - - [", "{\"ts\":", "\\"] {
                let sample = sample(spec);
                let records = sample.iter().flat_map(|record| [bad.as_bytes().to_vec(), [record, b"\r"].concat()]);
                let parsed = check(spec, &Frames::from_records(records));
                assert_eq!(parsed.rows, good, "{} after {bad:?}", spec.name);
                if bad.is_empty() {
                    let expected = |m: &Malformed| m.reason == "empty line" || m.is_header();
                    assert!(parsed.malformed.iter().all(expected), "{}", spec.name);
                }
            }
        }
    }

    /// Files in many formats, some of them damaged: whatever a format makes of them, no line is lost.
    #[test]
    fn real_files_lose_no_line() {
        for file in real_logs(&["formats/lnav", "access"]) {
            for spec in FORMATS {
                check(spec, &Frames::from_text(file.1.clone()));
            }
        }
    }

    #[test]
    fn records_begin_where_they_are_said_to() {
        for spec in FORMATS {
            let format = sample_parser(spec);
            let Some(start) = format.record_start() else { continue };
            let start = ::regex::bytes::Regex::new(&start).unwrap_or_else(|err| panic!("{}: {err}", spec.name));
            assert!(sample(spec).iter().all(|record| start.is_match(record)), "{}", spec.name);
            assert!(!start.is_match(b"") && !start.is_match(b"\tat a.B(C.java:1)"), "{}", spec.name);
        }
    }

    #[test]
    fn no_frames_are_no_rows() {
        for spec in FORMATS {
            check(spec, &Frames::default());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for spec in FORMATS {
                check(spec, &Frames::from_text(bytes.clone()));
            }
        }

        /// Samples with bytes changed, taken out and put in come much deeper into the parsers than noise does.
        #[test]
        fn damaged_samples_never_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..8),
        ) {
            for spec in FORMATS {
                let mut bytes = spec.sample.as_bytes().to_vec();
                for (index, byte, edit) in &edits {
                    let at = index.index(bytes.len());
                    match edit {
                        0 => bytes[at] = *byte,
                        1 => drop(bytes.remove(at)),
                        _ => bytes.insert(at, *byte),
                    }
                }
                check(spec, &Frames::from_text(bytes));
            }
        }
    }
}
