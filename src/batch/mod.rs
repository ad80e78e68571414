//! How do parsed rows become rows of a stream? A [`Shape`] is a stream's row type: the format's columns plus the
//! metadata columns that `INCLUDE` adds. It turns frames into a [`MicroBatch`]: rows, and the frames that are no rows
//! with their reasons. A pure function of the WAL record, so any row can be made again from the WAL.

pub mod envelope;
pub mod inserted;

use core::net::{IpAddr, SocketAddr};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};

use crate::error::{Error, Kind, Result};
use crate::format::{Format, Malformed, Origin, timestamp_type};
use crate::frame::Frames;
use crate::options;
use crate::position::{Position, Unit};
use crate::time::{Micros, UTC};
use envelope::Notes;

/// Frames with all that was known of them when they came: what a WAL record holds.
#[derive(Debug, Clone)]
pub struct Input {
    /// Offset of the first frame in the stream.
    pub base: u64,
    /// Wall time at which they were taken in.
    pub ingest_time: Micros,
    pub position: Position,
    pub frames: Frames,
    pub event: Event,
}

impl Input {
    /// Where the frames stand, for a format to which it matters.
    pub fn origin(&self) -> Origin<'_> {
        Origin { partition: &self.position.partition, offset: self.base, start: self.position.start == 0 }
    }
}

/// What an entry of the log says. The clock and the end of a source stand in the log like rows do, so that what
/// depends on them is the same when the log is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Frames came.
    Frames,
    /// Rows came, in frames of their own kind (see [`inserted`]).
    Rows,
    /// Frames of old files came, which are no news: event time does not follow them while other partitions tell it.
    Import,
    /// No frames came for a while, and event time goes on with the wall clock up to the entry's time.
    Tick,
    /// The partition has come to its end.
    End,
    /// The partition (a connection) is gone; others like it may come.
    Gone,
}

/// Rows that travel together.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// Offset of the first frame, and number of frames: rows and malformed together.
    pub base: u64,
    pub frames: u64,
    pub rows: RecordBatch,
    /// With [`MALFORMED`]'s columns.
    pub malformed: Option<RecordBatch>,
    /// Bytes of the frames.
    pub bytes: u64,
    pub partition: String,
    pub ingest_time: Micros,
    pub event: Event,
}

impl MicroBatch {
    /// The offset of each row.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        let malformed = self.malformed.as_ref().and_then(|m| m.column_by_name("offset"));
        let skipped = malformed.map_or(&[] as &[i64], |offsets| offsets.as_primitive::<Int64Type>().values());
        let mut skipped = skipped.iter().map(|&offset| offset as u64).peekable();
        (self.base..self.base + self.frames).filter(move |offset| skipped.next_if_eq(offset).is_none())
    }
}

/// A metadata column that `INCLUDE` can add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    Offset,
    File,
    Peer,
    Raw,
    IngestTime,
    Partition,
    SourceOffset,
    Timestamp,
    Key,
    Headers,
}

/// Name, meaning and type of each metadata column.
pub const METADATA: &[(&str, Metadata, &str)] = &[
    ("offset", Metadata::Offset, "bigint: number of the frame in the stream"),
    ("file", Metadata::File, "text: the file (or other partition of the source) that the row came from"),
    ("peer", Metadata::Peer, "text: the IP address that the row came from; NULL where it came in another way"),
    ("raw", Metadata::Raw, "bytea: the frame as received"),
    ("ingest_time", Metadata::IngestTime, "timestamptz: when the frame was taken in"),
    ("partition", Metadata::Partition, "text: the partition of the source, such as a topic's: 'access/3'"),
    (
        "source_offset",
        Metadata::SourceOffset,
        "bigint: where the row stands in its partition: a message's offset, a file's byte",
    ),
    ("timestamp", Metadata::Timestamp, "timestamptz: the time of the message, from a message queue"),
    ("key", Metadata::Key, "text: the key of the message, from a message queue"),
    ("headers", Metadata::Headers, "text: the headers of the message as a JSON object, from a message queue"),
];

/// `INCLUDE kind AS name`.
#[derive(Debug, Clone, PartialEq)]
pub struct Include {
    pub kind: Metadata,
    pub name: String,
}

impl Metadata {
    pub fn find(name: &str) -> Result<Metadata> {
        let lower = name.to_ascii_lowercase();
        let found = METADATA.iter().find(|(n, _, _)| *n == lower);
        found.map(|(_, kind, _)| *kind).ok_or_else(|| {
            let names = METADATA.iter().map(|(n, _, _)| *n);
            options::unknown("metadata column", name, names.clone())
                .with_detail(format!("INCLUDE takes: {}.", options::list(names)))
        })
    }

    fn data_type(self) -> DataType {
        match self {
            Metadata::Offset | Metadata::SourceOffset => DataType::Int64,
            Metadata::File | Metadata::Peer | Metadata::Partition | Metadata::Key | Metadata::Headers => DataType::Utf8,
            Metadata::Raw => DataType::Binary,
            Metadata::IngestTime | Metadata::Timestamp => timestamp_type(),
        }
    }

    /// Whether only a message's envelope tells it.
    pub fn is_of_messages(self) -> bool {
        match self {
            Metadata::SourceOffset | Metadata::Timestamp | Metadata::Key | Metadata::Headers => true,
            Metadata::Offset
            | Metadata::File
            | Metadata::Peer
            | Metadata::Raw
            | Metadata::IngestTime
            | Metadata::Partition => false,
        }
    }
}

/// Columns of `<stream>__malformed`.
pub static MALFORMED: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("raw", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("position", DataType::Int64, false),
        Field::new("ingest_time", timestamp_type(), false),
        Field::new("offset", DataType::Int64, false),
        Field::new("true_bytes", DataType::Int64, false),
        Field::new("raw_bytes", DataType::Binary, false),
    ]))
});

/// See the file header.
pub struct Shape {
    pub format: Box<dyn Format>,
    pub includes: Vec<Include>,
    /// The event-time column, if the stream has one.
    pub time: Option<String>,
}

impl Shape {
    /// `time` is the column of the event time, if it is not the one that the format has, or the ingest time for a format
    /// that has none. Fails when an included column has the name of another.
    pub fn new(format: Box<dyn Format>, includes: Vec<Include>, time: Option<String>) -> Result<Shape> {
        let ingest_time = includes.iter().find(|include| include.kind == Metadata::IngestTime && !format.learns());
        let time = time.or_else(|| format.time_column()).or_else(|| Some(ingest_time?.name.clone()));
        let shape = Shape { format, includes, time };
        let schema = shape.schema();
        let mut seen = HashMap::new();
        for field in schema.fields() {
            if seen.insert(field.name().as_str(), ()).is_some() {
                return Err(Error::new(Kind::DuplicateObject, format!("column \"{}\" exists twice", field.name())));
            }
        }
        Ok(shape)
    }

    /// The columns of a row as known now; a format that learns appends columns before the metadata columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema_with(self.format.schema())
    }

    fn schema_with(&self, format: SchemaRef) -> SchemaRef {
        let own = format.fields().iter().cloned();
        let added = self.includes.iter().map(|i| Arc::new(Field::new(&i.name, i.kind.data_type(), true)));
        Arc::new(Schema::new(own.chain(added).collect::<Vec<_>>()))
    }

    /// Lets the format learn from frames, as it did when they came. The rows of statements are in no format to learn from.
    pub fn learn(&self, input: &Input) {
        if matches!(input.event, Event::Frames | Event::Import) {
            let frames = match input.position.unit {
                Unit::Enveloped => envelope::open(&input.frames).0,
                Unit::Bytes | Unit::Frames | Unit::Offsets | Unit::Messages => input.frames.clone(),
            };
            self.format.parse_at(&frames, input.ingest_time, input.origin());
        }
    }

    /// Parses frames into rows. Every frame becomes a row or a malformed entry.
    pub fn rows(&self, input: &Input) -> Result<MicroBatch> {
        match input.position.unit {
            Unit::Enveloped => {
                let (frames, notes) = envelope::open(&input.frames);
                let position = input.position.clone();
                self.noted_rows(&Input { frames, position, ..*input }, Some(&notes))
            }
            Unit::Bytes | Unit::Frames | Unit::Offsets | Unit::Messages => self.noted_rows(input, None),
        }
    }

    fn noted_rows(&self, input: &Input, notes: Option<&Notes>) -> Result<MicroBatch> {
        let mut parsed = match input.event {
            Event::Rows => inserted::parse(&input.frames, &self.format.schema()),
            Event::Frames | Event::Import | Event::Tick | Event::End | Event::Gone => {
                self.format.parse_at(&input.frames, input.ingest_time, input.origin())
            }
        };
        if !input.frames.cut.is_empty() {
            set_aside_cut(&input.frames, &mut parsed.rows, &mut parsed.malformed)?;
        }
        if let Some(time) = &self.time {
            set_aside_timeless(time, input.frames.len(), &mut parsed.rows, &mut parsed.malformed)?;
        }
        let mut columns = parsed.rows.columns().to_vec();
        for include in &self.includes {
            columns.push(metadata_column(include.kind, input, notes, &parsed.malformed));
        }
        // A format that learns its columns has none at first.
        let count = RecordBatchOptions::new().with_row_count(Some(parsed.rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema_with(parsed.rows.schema()), columns, &count)?;
        let malformed =
            if parsed.malformed.is_empty() { None } else { Some(malformed_rows(input, notes, &parsed.malformed)?) };
        Ok(MicroBatch {
            base: input.base,
            frames: input.frames.len() as u64,
            rows,
            malformed,
            bytes: input.frames.bytes.len() as u64,
            partition: input.position.partition.clone(),
            ingest_time: input.ingest_time,
            event: input.event,
        })
    }

    /// The event times of a batch of rows.
    pub fn times<'a>(&self, rows: &'a RecordBatch) -> &'a [Micros] {
        let column = self.time.as_ref().and_then(|name| rows.column_by_name(name));
        column.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>()).map_or(&[], |times| times.values())
    }
}

/// A frame that was cut is no row even if its beginning parses: its end is missing.
fn set_aside_cut(frames: &Frames, rows: &mut RecordBatch, malformed: &mut Vec<Malformed>) -> Result<()> {
    let reason = |(frame, true_len): (u32, u64)| {
        let kept = frames.get(frame as usize).len();
        let reason = format!("longer than max_line_bytes allows: {kept} of {true_len} bytes are kept").into();
        Malformed { frame, reason }
    };
    set_aside(true_lengths(frames).into_iter().map(reason).collect(), frames.len(), rows, malformed)
}

/// A row without a time would be in no window, and the watermark could not pass it.
fn set_aside_timeless(time: &str, frames: usize, rows: &mut RecordBatch, malformed: &mut Vec<Malformed>) -> Result<()> {
    let Some(times) = rows.column_by_name(time).filter(|times| times.null_count() > 0).cloned() else { return Ok(()) };
    let without = row_frames(frames, malformed).enumerate().filter(|(row, _)| times.is_null(*row));
    let without = without.map(|(_, frame)| Malformed { frame, reason: format!("no time in column \"{time}\"").into() });
    set_aside(without.collect(), frames, rows, malformed)
}

/// Makes malformed frames of what was parsed as rows, or was malformed for another reason.
fn set_aside(
    frames: Vec<Malformed>,
    count: usize,
    rows: &mut RecordBatch,
    malformed: &mut Vec<Malformed>,
) -> Result<()> {
    let chosen: HashSet<u32> = frames.iter().map(|m| m.frame).collect();
    let keep: Vec<bool> = row_frames(count, malformed).map(|frame| !chosen.contains(&frame)).collect();
    *rows = filter_record_batch(rows, &keep.into())?;
    malformed.retain(|m| !chosen.contains(&m.frame));
    malformed.extend(frames);
    malformed.sort_by_key(|m| m.frame);
    Ok(())
}

/// Lengths of the cut frames before they were cut, without their newline.
fn true_lengths(frames: &Frames) -> HashMap<u32, u64> {
    let newline = |frame: u32| u64::from(frames.bytes[frames.ends[frame as usize] as usize - 1] == b'\n');
    frames.cut.iter().map(|c| (c.frame, c.true_len - newline(c.frame))).collect()
}

/// The frame of each row: all frames but the malformed ones.
fn row_frames(frames: usize, malformed: &[Malformed]) -> impl Iterator<Item = u32> {
    let mut bad = malformed.iter().map(|m| m.frame).peekable();
    (0..frames as u32).filter(move |frame| bad.next_if_eq(frame).is_none())
}

/// Where a frame stands in its partition, if that is known.
fn source_offset(input: &Input, notes: Option<&Notes>, frame: u32) -> Option<i64> {
    match (input.position.unit, notes) {
        (_, Some(notes)) => notes.offsets[frame as usize],
        (Unit::Bytes, None) => Some((input.position.start + input.frames.source_offset(frame as usize)) as i64),
        (Unit::Frames | Unit::Enveloped, None) => Some((input.position.start + u64::from(frame)) as i64),
        (Unit::Offsets | Unit::Messages, None) => None,
    }
}

fn metadata_column(kind: Metadata, input: &Input, notes: Option<&Notes>, malformed: &[Malformed]) -> ArrayRef {
    let frames = row_frames(input.frames.len(), malformed);
    let texts = |of: fn(&Notes) -> &[Option<String>]| -> ArrayRef {
        let text = |frame: u32| notes.and_then(|notes| of(notes)[frame as usize].as_deref());
        Arc::new(StringArray::from_iter(row_frames(input.frames.len(), malformed).map(text)))
    };
    let count = input.frames.len() - malformed.len();
    match kind {
        Metadata::Offset => Arc::new(Int64Array::from_iter_values(frames.map(|f| input.base as i64 + i64::from(f)))),
        Metadata::File | Metadata::Partition => {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&input.position.partition, count)))
        }
        Metadata::Peer => Arc::new(StringArray::from_iter(std::iter::repeat_n(peer(&input.position.partition), count))),
        Metadata::Raw => {
            let mut raw = BinaryBuilder::with_capacity(count, input.frames.bytes.len());
            frames.for_each(|f| raw.append_value(input.frames.get(f as usize)));
            Arc::new(raw.finish())
        }
        Metadata::SourceOffset => Arc::new(Int64Array::from_iter(frames.map(|f| source_offset(input, notes, f)))),
        Metadata::Timestamp => {
            let times = frames.map(|f| notes.and_then(|notes| notes.times[f as usize]));
            Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone(UTC))
        }
        Metadata::Key => texts(|notes| &notes.keys),
        Metadata::Headers => texts(|notes| &notes.headers),
        Metadata::IngestTime => {
            Arc::new(TimestampMicrosecondArray::from_value(input.ingest_time, count).with_timezone(UTC))
        }
    }
}

/// The address in the name of a partition, which sources of sockets name by who sends: `ADDRESS` or `ADDRESS:PORT`.
fn peer(partition: &str) -> Option<String> {
    let address = partition.parse::<SocketAddr>().map(|found| found.ip()).or_else(|_| partition.parse::<IpAddr>());
    address.ok().map(|address| address.to_string())
}

fn malformed_rows(input: &Input, notes: Option<&Notes>, malformed: &[Malformed]) -> Result<RecordBatch> {
    let frames = &input.frames;
    let cut = true_lengths(frames);
    let raw = |m: &Malformed| frames.get(m.frame as usize);
    let position = |m: &Malformed| {
        let pushed = (input.position.start + u64::from(m.frame)) as i64;
        source_offset(input, notes, m.frame).unwrap_or(pushed)
    };
    let length = |m: &Malformed| cut.get(&m.frame).copied().unwrap_or(raw(m).len() as u64) as i64;
    let mut bytes = BinaryBuilder::new();
    malformed.iter().for_each(|m| bytes.append_value(raw(m)));
    let columns: Vec<ArrayRef> = vec![
        // PostgreSQL text cannot hold NUL; the bytes are in raw_bytes.
        Arc::new(StringArray::from_iter_values(
            malformed.iter().map(|m| String::from_utf8_lossy(raw(m)).replace('\0', "\u{FFFD}")),
        )),
        Arc::new(StringArray::from_iter_values(malformed.iter().map(|m| m.reason.as_ref()))),
        Arc::new(StringArray::from_iter_values(malformed.iter().map(|_| &input.position.partition))),
        Arc::new(Int64Array::from_iter_values(malformed.iter().map(position))),
        Arc::new(TimestampMicrosecondArray::from_value(input.ingest_time, malformed.len()).with_timezone(UTC)),
        Arc::new(Int64Array::from_iter_values(malformed.iter().map(|m| input.base as i64 + i64::from(m.frame)))),
        Arc::new(Int64Array::from_iter_values(malformed.iter().map(length))),
        Arc::new(bytes.finish()),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&MALFORMED), columns)?)
}

/// Fits a batch of rows to the wanted columns, by name: columns that came later than the batch are NULL in it.
pub fn fit(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let columns = wanted.fields().iter().map(|field| -> Result<ArrayRef> {
        match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(arrow::compute::cast(column, field.data_type())?),
            None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
        }
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(wanted), columns, &options)?)
}

/// Copies the strings of a batch together, so that it no longer holds on to the blocks it was parsed from.
pub fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.as_any().downcast_ref::<StringViewArray>() {
            Some(views) => Arc::new(views.gc()),
            None => Arc::clone(column),
        }
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)?)
}
