//! What does the archive hold as of one version? The files that Delta's log lists, as segments of offsets.
//!
//! Layout:
//!
//! ```text
//!     _delta_log/…                                       the log: which files count, and up to which offset they go
//!     _day=2026-11-21/<first>-<end>-<random>.parquet     rows of that day with offsets in first..end
//! ```
//!
//! An append makes one file per day of event time, all named for the same range of offsets: a *segment*. A file tells
//! its segment by its name, and files whose ranges overlap belong to one segment, so segments are found again without
//! anything else written down; after a merge a segment is as long as its longest file. A file that another tool wrote
//! (OPTIMIZE) has any name: its offsets are those that its statistics tell.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deltalake_core::kernel::LogicalFileView;
use deltalake_core::table::state::DeltaTableState;
use object_store::path::Path;

use super::names::Names;
use super::{DAY, OFFSET, Spec, WATERMARK};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::time::Micros;

/// One consistent version of the archive.
#[derive(Debug, Clone, Default)]
pub struct Archived {
    /// Version of the Delta table; `None` while there is none.
    pub version: Option<u64>,
    /// The archive covers the offsets before this one.
    pub end: u64,
    /// Oldest offsets first; they do not overlap.
    pub segments: Vec<Arc<Segment>>,
    pub rows: u64,
    pub bytes: u64,
    pub(super) names: Arc<Names>,
}

/// Rows of consecutive offsets. Days that retention dropped are missing in it.
#[derive(Debug, Clone)]
pub struct Segment {
    pub first: u64,
    pub end: u64,
    pub rows: u64,
    /// Rows that came behind the watermark.
    pub late: u64,
    /// All event times are in this closed range; `None` when unknown.
    pub times: Option<(Micros, Micros)>,
    pub files: Vec<Arc<ArchivedFile>>,
}

/// A file of the archive.
#[derive(Debug, Clone)]
pub struct ArchivedFile {
    /// In the table's folder.
    pub path: Path,
    /// All its offsets are in `first..end`.
    pub first: u64,
    pub end: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Rows that came behind the watermark (at most so many, if another tool wrote the file without saying).
    pub late: u64,
    pub times: Option<(Micros, Micros)>,
    /// Days since 1970 of all its event times.
    pub day: Option<i32>,
    pub(super) modified: DateTime<Utc>,
    /// Whether this archive wrote it, so that its rows are in order of time.
    pub(super) ours: bool,
    pub(super) partition: HashMap<String, Option<String>>,
}

impl Archived {
    /// What `state` lists. Files that `before` has too are taken from there.
    pub(super) fn read(state: &DeltaTableState, end: u64, before: &Archived, spec: &Spec) -> Result<Archived> {
        let names = Names::read(&state.schema());
        let time = spec.time.as_deref().and_then(|time| names.find_exact(time, &timestamp_type()));
        let known: HashMap<&str, &Arc<ArchivedFile>> = before.files().map(|f| (f.path.as_ref(), f)).collect();
        let mut files = Vec::with_capacity(known.len() + 1);
        for view in state.log_data() {
            files.push(match known.get(&*view.path()) {
                Some(file) => Arc::clone(file),
                None => Arc::new(ArchivedFile::read(&view, time)?),
            });
        }
        let segments = segments(files);
        if let Some(last) = segments.last().filter(|last| last.end > end) {
            let text = format!("the table has rows up to offset {}, and says that it goes up to {end}", last.end);
            return Err(Error::new(Kind::Corrupted, text)
                .with_detail("The newest txn action or the names of files in its _delta_log are not what was written.")
                .with_hint("Restore the folder _delta_log from a copy."));
        }
        let names = if names == *before.names { Arc::clone(&before.names) } else { Arc::new(names) };
        Ok(Archived {
            version: Some(state.version()),
            end,
            rows: segments.iter().map(|segment| segment.rows).sum(),
            bytes: segments.iter().map(|segment| segment.bytes()).sum(),
            segments,
            names,
        })
    }

    /// All files, those of the oldest offsets first.
    pub fn files(&self) -> impl Iterator<Item = &Arc<ArchivedFile>> {
        self.segments.iter().flat_map(|segment| &segment.files)
    }

    /// Whether the file is in this version.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files().any(|file| file.path.as_ref() == path)
    }
}

fn segments(mut files: Vec<Arc<ArchivedFile>>) -> Vec<Arc<Segment>> {
    files.sort_by(|a, b| (a.first, a.end, a.day, &a.path).cmp(&(b.first, b.end, b.day, &b.path)));
    let mut segments: Vec<Segment> = Vec::new();
    for file in files {
        match segments.last_mut().filter(|segment| file.first < segment.end) {
            Some(segment) => segment.push(file),
            None => segments.push(Segment {
                first: file.first,
                end: file.end,
                rows: file.rows,
                late: file.late,
                times: file.times,
                files: vec![file],
            }),
        }
    }
    segments.into_iter().map(Arc::new).collect()
}

impl Segment {
    fn push(&mut self, file: Arc<ArchivedFile>) {
        self.end = self.end.max(file.end);
        self.rows += file.rows;
        self.late += file.late;
        // Unknown times make the whole unknown.
        self.times = self.times.zip(file.times).map(|((a, b), (c, d))| (a.min(c), b.max(d)));
        self.files.push(file);
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

impl ArchivedFile {
    fn read(view: &LogicalFileView, time: Option<&str>) -> Result<ArchivedFile> {
        let path = view.object_store_path();
        if view.deletion_vector_descriptor().is_some() {
            return Err(Error::new(
                Kind::NotSupported,
                format!("rows of file \"{path}\" were deleted by another tool"),
            )
            .with_hint("Have that tool write the file anew (in Spark: REORG TABLE … APPLY (PURGE))."));
        }
        let range = offsets_of_name(path.filename().unwrap_or_default());
        let stats = Stats::read(view.stats().as_deref(), time, range.is_some());
        let Some(Range { start, end }) = range.clone().or(stats.offsets) else {
            return Err(Error::new(Kind::Corrupted, format!("file \"{path}\" does not tell the offsets of its rows"))
                .with_detail("Its name is not one of this archive and it has no statistics of column _offset."));
        };
        let rows = match stats.rows {
            Some(rows) => rows,
            None => return Err(Error::new(Kind::Corrupted, format!("file \"{path}\" has no number of rows"))),
        };
        let partition = view.partition_values_map();
        let day = partition.get(DAY).and_then(Option::as_deref).and_then(|day| day.parse().ok()).map(days_of);
        Ok(ArchivedFile {
            path,
            first: start,
            end,
            rows,
            bytes: u64::try_from(view.size()).unwrap_or(0),
            late: stats.late.unwrap_or(rows),
            times: stats.times,
            day,
            modified: view.modification_datetime().unwrap_or_default(),
            ours: range.is_some(),
            partition,
        })
    }
}

/// What the log says of a file, as far as this archive needs it.
struct Stats {
    rows: Option<u64>,
    late: Option<u64>,
    offsets: Option<Range<u64>>,
    times: Option<(Micros, Micros)>,
}

impl Stats {
    fn read(json: Option<&str>, time: Option<&str>, ours: bool) -> Stats {
        let json: serde_json::Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let rows = json["numRecords"].as_u64();
        let nulls = json["nullCount"][WATERMARK].as_u64();
        let (min, max) = (&json["minValues"], &json["maxValues"]);
        let offsets = min[OFFSET].as_u64().zip(max[OFFSET].as_u64()).map(|(first, last)| first..last + 1);
        let micros =
            |value: &serde_json::Value| Some(value.as_str()?.parse::<DateTime<Utc>>().ok()?.timestamp_micros());
        // Other tools cut times to milliseconds, so the last one may have been later than it says.
        let latest = |micros: Micros| if ours || micros % 1000 != 0 { micros } else { micros.saturating_add(999) };
        let times = time.and_then(|name| Some((micros(&min[name])?, latest(micros(&max[name])?))));
        Stats { rows, late: rows.zip(nulls).map(|(rows, nulls)| rows.saturating_sub(nulls)), offsets, times }
    }
}

/// The name of a file with rows of these offsets.
pub fn file_name(offsets: &Range<u64>) -> String {
    let Range { start, end } = offsets;
    format!("{start:016}-{end:016}-{:016x}.parquet", rand::random::<u64>())
}

fn offsets_of_name(name: &str) -> Option<Range<u64>> {
    let mut parts = name.strip_suffix(".parquet")?.split('-');
    let (first, end, random) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str| text.len() >= 16 && text.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some() || !digits(first) || !digits(end) || random.len() != 16 {
        return None;
    }
    let range: Range<u64> = first.parse().ok()?..end.parse().ok()?;
    (range.start < range.end).then_some(range)
}

fn days_of(date: chrono::NaiveDate) -> i32 {
    chrono::Datelike::num_days_from_ce(&date) - EPOCH
}

/// Days from the first day of the year 1 to the one of 1970.
const EPOCH: i32 = 719_163;

/// The day as text. Days that dates of SQL have no year for are moved into the range.
pub fn day_text(day: i32) -> String {
    let day = day.clamp(FIRST_DAY, LAST_DAY);
    let date = chrono::NaiveDate::from_num_days_from_ce_opt(day + EPOCH);
    date.expect("years 1 to 9999 are dates").format("%Y-%m-%d").to_string()
}

/// 0001-01-01 and 9999-12-31.
pub const FIRST_DAY: i32 = 1 - EPOCH;
pub const LAST_DAY: i32 = 2_932_896;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_tells_its_offsets() {
        for range in [0..1, 7..1_000_000, 0..u64::MAX, 99_999_999_999_999_999..100_000_000_000_000_000] {
            assert_eq!(offsets_of_name(&file_name(&range)), Some(range));
        }
        for name in ["part-00000-1b2c-c000.snappy.parquet", "1-2-0123456789abcdef.parquet", "x.parquet", ""] {
            assert_eq!(offsets_of_name(name), None, "{name}");
        }
    }

    #[test]
    fn days_are_dates() {
        for (day, text) in [(0, "1970-01-01"), (20_778, "2026-11-21"), (-1, "1969-12-31"), (i32::MAX, "9999-12-31")] {
            assert_eq!(day_text(day), text);
        }
        assert_eq!(day_text(i32::MIN), "0001-01-01");
        assert_eq!(days_of("2026-11-21".parse().unwrap()), 20_778);
    }

    #[test]
    fn statistics_of_other_tools_are_read_with_care() {
        let json = r#"{"numRecords":10,"minValues":{"_offset":3,"ts":"2026-11-21T10:00:00.000Z"},
            "maxValues":{"_offset":12,"ts":"2026-11-21T10:00:00.123Z"},"nullCount":{"_watermark":8}}"#;
        let stats = Stats::read(Some(json), Some("ts"), false);
        assert_eq!((stats.rows, stats.late, stats.offsets), (Some(10), Some(2), Some(3..13)));
        assert_eq!(stats.times.map(|(a, b)| b - a), Some(123_999));
        assert!(Stats::read(None, Some("ts"), false).rows.is_none());
    }
}
