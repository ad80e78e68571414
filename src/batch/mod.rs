//! How do parsed rows become rows of a stream? A [`Shape`] is a stream's row type: the format's columns, the metadata
//! columns that `INCLUDE` adds, and those that are [`computed`] from both. It turns frames into a [`MicroBatch`]: rows, and
//! the frames that are no rows with their reasons. A pure function of the WAL record, so any row can be made again from the
//! WAL.

/// `write!` into memory, which cannot fail.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {{
        let _ = std::fmt::Write::write_fmt($out, format_args!($($format)*));
    }};
}

pub mod arithmetic;
pub mod computed;
pub mod datetime;
pub mod envelope;
pub mod inserted;
pub mod text;

use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};

use crate::error::{Error, Kind, Result};
use crate::format::subtype::{Subtype, is_text};
use crate::format::{Format, Malformed, Origin, timestamp_type};
use crate::frame::Frames;
use crate::options;
use crate::position::{Position, Unit};
use crate::time::{Micros, UTC};
use computed::Computed;
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

impl Include {
    pub fn field(&self) -> FieldRef {
        Arc::new(Field::new(&self.name, self.kind.data_type(), true))
    }
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
    pub computed: Vec<Computed>,
    /// The columns of the format whose texts are more than texts.
    subtypes: Vec<(String, Subtype)>,
    /// The event-time column, if the stream has one.
    pub time: Option<String>,
}

/// What a column that a format has learned is called besides, when its name is that of a column that was added.
const DISPLACED: &str = "__line";

impl Shape {
    /// `time` is the column of the event time, if it is not the one that the format has, or the ingest time for a format
    /// that has none. Fails when an included column has the name of another.
    pub fn new(format: Box<dyn Format>, includes: Vec<Include>, time: Option<String>) -> Result<Shape> {
        Shape::computing(format, includes, Vec::new(), time)
    }

    /// The same with computed columns, each of which may read those before it.
    pub fn computing(
        format: Box<dyn Format>,
        includes: Vec<Include>,
        computed: Vec<Computed>,
        time: Option<String>,
    ) -> Result<Shape> {
        let ingest_time = includes.iter().find(|include| include.kind == Metadata::IngestTime && !format.learns());
        let time = time.or_else(|| format.time_column()).or_else(|| Some(ingest_time?.name.clone()));
        let own = format.schema();
        let mut seen = HashSet::new();
        let names = own.fields().iter().map(|field| field.name()).chain(includes.iter().map(|include| &include.name));
        for name in names.chain(computed.iter().map(|column| &column.name)) {
            if !seen.insert(name) {
                return Err(Error::new(Kind::DuplicateObject, format!("column \"{name}\" exists twice")));
            }
        }
        Ok(Shape { format, includes, computed, subtypes: Vec::new(), time })
    }

    /// With columns of the format whose texts are more than texts. A frame with another text there is malformed.
    pub fn with_subtypes(self, subtypes: Vec<(String, Subtype)>) -> Shape {
        Shape { subtypes, ..self }
    }

    /// Whether rows of statements have to be looked at before they are taken in.
    pub fn checks_inserted(&self) -> bool {
        !self.computed.is_empty() || !self.subtypes.is_empty()
    }

    /// A column of the format, with what its texts are in its metadata.
    pub fn marked(&self, field: &FieldRef) -> FieldRef {
        match self.subtypes.iter().find(|(name, _)| name == field.name()) {
            Some((_, subtype)) if is_text(field.data_type()) => {
                Arc::new(Field::clone(field).with_metadata(subtype.metadata()))
            }
            _ => Arc::clone(field),
        }
    }

    /// Brings the texts that are more than texts into their one spelling; says of which rows they are not what they should
    /// be, and leaves those as they are.
    fn spell(&self, rows: &mut RecordBatch) -> Result<Vec<(usize, Error)>> {
        let mut failed = Vec::new();
        for (name, subtype) in &self.subtypes {
            let Some((at, _)) = rows.schema_ref().column_with_name(name) else { continue };
            let Some(texts) = rows.column(at).as_string_view_opt().cloned() else { continue };
            let mut spelled: Option<Vec<Option<String>>> = None;
            for row in (0..texts.len()).filter(|row| texts.is_valid(*row)) {
                match subtype.read(texts.value(row)) {
                    Ok(Cow::Borrowed(_)) => {}
                    Ok(Cow::Owned(text)) => {
                        let all = || texts.iter().map(|text| text.map(str::to_string)).collect();
                        spelled.get_or_insert_with(all)[row] = Some(text);
                    }
                    Err(err) => failed.push((row, err.with_context(&format!("column \"{name}\"")))),
                }
            }
            if let Some(spelled) = spelled {
                let mut columns = rows.columns().to_vec();
                columns[at] = Arc::new(spelled.into_iter().collect::<StringViewArray>());
                *rows = RecordBatch::try_new(rows.schema(), columns)?;
            }
        }
        failed.sort_by_key(|(row, _)| *row);
        failed.dedup_by_key(|(row, _)| *row);
        Ok(failed)
    }

    /// The columns of a row as known now; a format that learns appends columns before the metadata columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema_with(self.format.schema())
    }

    fn schema_with(&self, format: SchemaRef) -> SchemaRef {
        let includes = self.includes.iter().map(Include::field);
        let added: Vec<FieldRef> = includes.chain(self.computed.iter().map(Computed::field)).collect();
        let own = distinct(format.fields(), |name| self.adds(name)).into_iter().map(|field| self.marked(&field));
        Arc::new(Schema::new(own.chain(added).collect::<Vec<_>>()))
    }

    /// Whether a column of this name is not the format's.
    pub fn adds(&self, name: &str) -> bool {
        let includes = self.includes.iter().map(|include| &include.name);
        includes.chain(self.computed.iter().map(|column| &column.name)).any(|added| added == name)
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
        let mut rows = self.given(parsed.rows, input, notes, &parsed.malformed)?;
        let failed = self.spell(&mut rows)?;
        set_aside_failed(failed, input.frames.len(), &mut rows, &mut parsed.malformed)?;
        for column in &self.computed {
            let (values, failed) = column.column(&rows)?;
            set_aside_failed(failed, input.frames.len(), &mut rows, &mut parsed.malformed)?;
            rows = with_column(&rows, column.field(), values)?;
        }
        if let Some(time) = &self.time {
            set_aside_timeless(time, input.frames.len(), &mut rows, &mut parsed.malformed)?;
        }
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

    /// The rows with all columns that are not computed.
    fn given(
        &self,
        rows: RecordBatch,
        input: &Input,
        notes: Option<&Notes>,
        malformed: &[Malformed],
    ) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        for include in &self.includes {
            columns.push(metadata_column(include.kind, input, notes, malformed));
        }
        let mut fields = self.schema_with(rows.schema()).fields().to_vec();
        fields.truncate(columns.len());
        // A format that learns its columns has none at first.
        let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &count)?)
    }

    /// Why the rows that a statement gives cannot all be rows of the stream, if they cannot: a column of one cannot be
    /// computed, or there is no time in it. `input` holds them as [`inserted`] writes them.
    pub fn check_inserted(&self, input: &Input) -> Result<()> {
        let parsed = inserted::parse(&input.frames, &self.format.schema());
        let mut rows = self.given(parsed.rows, input, None, &parsed.malformed)?;
        if let Some((_, err)) = self.spell(&mut rows)?.into_iter().next() {
            return Err(err);
        }
        for column in &self.computed {
            let (values, failed) = column.column(&rows)?;
            if let Some((_, err)) = failed.into_iter().next() {
                return Err(err);
            }
            rows = with_column(&rows, column.field(), values)?;
        }
        let Some(column) = self.computed.iter().find(|column| self.time.as_ref() == Some(&column.name)) else {
            return Ok(());
        };
        match rows.column_by_name(&column.name) {
            Some(times) if times.null_count() > 0 => {
                let message = format!("column \"{}\", the event time, would be null", column.name);
                Err(Error::new(Kind::NotNull, message).with_detail(format!("It is computed: {}.", column.sql)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The event times of a batch of rows.
    pub fn times<'a>(&self, rows: &'a RecordBatch) -> &'a [Micros] {
        let column = self.time.as_ref().and_then(|name| rows.column_by_name(name));
        column.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>()).map_or(&[], |times| times.values())
    }
}

/// Columns of a format beside others that are added. Only one that was learned can have the name of one of these: it goes
/// by another, which it keeps, as columns only come at the end.
fn distinct(own: &Fields, is_added: impl Fn(&str) -> bool) -> Vec<FieldRef> {
    if !own.iter().any(|field| is_added(field.name())) {
        return own.to_vec();
    }
    let mut seen: HashSet<String> = HashSet::new();
    let renamed = own.iter().map(|field| {
        let mut name = field.name().clone();
        if is_added(&name) {
            name += DISPLACED;
        }
        while is_added(&name) || seen.contains(&name) {
            name.push('_');
        }
        seen.insert(name.clone());
        if name == *field.name() { Arc::clone(field) } else { Arc::new(Field::clone(field).with_name(name)) }
    });
    renamed.collect()
}

/// The rows with one more column.
fn with_column(rows: &RecordBatch, field: FieldRef, values: ArrayRef) -> Result<RecordBatch> {
    let fields: Vec<FieldRef> = rows.schema().fields().iter().cloned().chain([field]).collect();
    let columns = rows.columns().iter().cloned().chain([values]).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
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

/// Rows that cannot be made, with their reasons.
fn set_aside_failed(
    failed: Vec<(usize, Error)>,
    count: usize,
    rows: &mut RecordBatch,
    malformed: &mut Vec<Malformed>,
) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    let frames: Vec<u32> = row_frames(count, malformed).collect();
    let reason =
        |(row, err): (usize, Error)| Malformed { frame: frames[row], reason: err.message().to_string().into() };
    set_aside(failed.into_iter().map(reason).collect(), count, rows, malformed)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A format that learns may come upon the name of an added column, or of one that had to give way, in any order.
    #[test]
    fn learned_columns_give_way_and_keep_the_name_that_they_got() {
        let is_added = |name: &str| matches!(name, "a" | "b__line");
        let named = |names: &[&str]| -> Vec<String> {
            let own: Fields = names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect();
            distinct(&own, is_added).iter().map(|field| field.name().clone()).collect()
        };
        assert_eq!(named(&["x", "y"]), ["x", "y"]);
        assert_eq!(named(&["x", "a"]), ["x", "a__line"]);
        assert_eq!(named(&["x", "a", "a__line"]), ["x", "a__line", "a__line_"]);
        assert_eq!(named(&["a__line", "x", "a"]), ["a__line", "x", "a__line_"]);
        assert_eq!(named(&["b__line", "b", "b__line__line"]), ["b__line__line", "b", "b__line__line_"]);
    }
}
