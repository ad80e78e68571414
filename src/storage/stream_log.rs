//! One stream's durable rows behind one door: its WAL, the rows of it in memory, and its archive.
//!
//! ```text
//!     offsets   0 ─────────────── archive ───────────────┐
//!                              ┌───────────── WAL ───────┼────────────────────► next offset
//!                              │                         └── chunks, in memory or in the WAL
//! ```
//!
//! Receives frames (appended to the WAL) and, later, the rows parsed from them (kept hot). Hands on chunks of rows,
//! reading the WAL and parsing again, or reading the archive, when a chunk is not in memory. The WAL may be cut off
//! where both the archive and the checkpoint have gone by. Without an archive the WAL is where rows stay, and retention
//! gives up its oldest segments.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use super::fs::Fs;
use super::history::History;
use super::hot::{Archived, Chunk, Data, Hot, Shared, Timing};
use super::keys::Keys;
use super::record::CLOCK;
pub use super::record::{HTTP, IMPORTS, INSERTS, NAMED, OWN};
use super::wal::{Location, Opened, Record, Wal, WalOptions};
use crate::batch::{Event, Input, MicroBatch, Shape};
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, on};
use crate::position::{Position, Unit};
use crate::rollup::watermark::{LateRow, Watermark};
use crate::time::Micros;

/// The last durable position of each partition (by its key), for each source.
pub type Positions = HashMap<u32, HashMap<String, Noted>>;

/// Where a partition was last read up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Noted {
    pub position: Position,
    /// When that was.
    pub at: Micros,
}

/// Where a micro-batch stands in the log, and where it came from.
#[derive(Debug, Clone)]
pub struct Origin {
    pub location: Location,
    pub source: u32,
    pub noted: Noted,
}

impl Origin {
    pub fn of(location: Location, record: &Record) -> Origin {
        let noted = Noted { position: record.position.clone(), at: record.ingest_time };
        Origin { location, source: record.source, noted }
    }

    /// Notes it as the last of its partition.
    pub fn note(&self, positions: &mut Positions, event: Event) {
        note(positions, self.source, &self.noted, event == Event::Gone);
    }
}

/// Clock entries have no position, what was pushed or was a message is not read again, and without a key there is nothing
/// to find it by.
fn note(positions: &mut Positions, source: u32, noted: &Noted, gone: bool) {
    let position = &noted.position;
    if source == CLOCK || matches!(position.unit, Unit::Offsets | Unit::Messages) || position.key.is_empty() {
        return;
    }
    let partitions = positions.entry(source).or_default();
    if gone {
        partitions.remove(&position.key);
    } else {
        partitions.insert(position.key.clone(), noted.clone());
    }
}

/// See the file header.
pub struct StreamLog {
    wal: Wal,
    hot: Mutex<Hot>,
    history: Option<History>,
    /// Of what was pushed.
    keys: Mutex<Keys>,
}

impl StreamLog {
    /// Opens or creates the log in `dir` and finds the last durable positions and idempotency keys in it, on top of those
    /// that are known. `hot_bytes` limits the rows kept in memory.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: WalOptions,
        hot_bytes: u64,
        history: Option<History>,
        (known, mut keys): (Positions, Keys),
    ) -> Result<(StreamLog, Opened, Positions)> {
        let mut positions = known;
        let (wal, opened) = Wal::open_on(fs, dir, options, &mut |_, head| {
            let noted = Noted { position: head.position, at: head.ingest_time };
            note(&mut positions, head.source, &noted, head.frames == 0);
            keys.note(head.source, &noted.position, noted.at);
            Ok(())
        })?;
        let mut hot = Hot::new(hot_bytes);
        if let Some(history) = &history {
            let archived = history.current();
            hot.cut_at(archived.rows.end);
            hot.cut_at(archived.malformed.end);
            hot.set_archived(archived);
        }
        Ok((StreamLog { wal, hot: Mutex::new(hot), history, keys: Mutex::new(keys) }, opened, positions))
    }

    /// Keeps no more rows in memory than its share of these bytes, from now on.
    pub fn share(&self, shared: Shared) {
        self.hot.lock().share(shared);
    }

    /// The idempotency keys of what was pushed lately.
    pub fn keys(&self) -> &Mutex<Keys> {
        &self.keys
    }

    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// The stream's archive, unless it has none.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// Keeps the rows of the record at `location`. Gives the offset at which their chunk begins.
    pub fn publish(&self, batch: &MicroBatch, location: Location, timing: Timing) -> Result<u64> {
        self.hot.lock().push(batch, location, timing)
    }

    /// What there is as of now: the archive, and the chunks behind it.
    pub fn snapshot(&self) -> (Option<Archived>, Vec<Arc<Chunk>>) {
        self.hot.lock().snapshot()
    }

    /// All chunks as of now; those of the archive are pieces of it.
    pub fn chunks(&self) -> Vec<Arc<Chunk>> {
        self.select(|_| true)
    }

    /// The chunks that are `wanted`, as of now; those of the archive are pieces of it.
    pub fn select(&self, wanted: impl Fn(&Chunk) -> bool) -> Vec<Arc<Chunk>> {
        let (archived, chunks) = self.snapshot();
        let pieces = archived.iter().flat_map(|archived| super::history::pieces(&archived.rows));
        let end = archived.as_ref().map_or(0, |archived| archived.rows.end);
        let behind = chunks.into_iter().filter(|chunk| chunk.base >= end);
        pieces.chain(behind).filter(|chunk| wanted(chunk)).collect()
    }

    /// The chunks that hold frames from this offset on.
    pub fn snapshot_from(&self, offset: u64) -> Vec<Arc<Chunk>> {
        self.select(|chunk| chunk.base + chunk.frames > offset)
    }

    /// The first offset from which on all rows are still there.
    pub fn kept_from(&self) -> u64 {
        let (archived, chunks) = self.snapshot();
        match archived {
            // Every frame was a row or a malformed line: as long as there are as many, none was dropped. Malformed lines
            // may be ahead of the rows.
            Some(Archived { rows, malformed }) if rows.rows + rows_before(&malformed, rows.end) == rows.end => 0,
            Some(archived) => archived.rows.end,
            None => chunks.first().map_or(0, |chunk| chunk.base),
        }
    }

    /// A chunk must begin at this offset.
    pub fn cut_at(&self, offset: u64) {
        self.hot.lock().cut_at(offset);
    }

    /// See [`Hot::ripe`].
    pub fn ripe(&self, most: u64, old: Micros) -> Vec<Arc<Chunk>> {
        self.hot.lock().ripe(most, old)
    }

    /// The archive has changed. What it has is read under the lock: who comes late must not put back what was before.
    pub fn archive_changed(&self) {
        let mut hot = self.hot.lock();
        if let Some(history) = &self.history {
            hot.set_archived(history.current());
        }
    }

    pub fn archived(&self) -> Option<Archived> {
        self.hot.lock().archived()
    }

    /// Bytes of log that the archive does not have yet.
    pub fn unarchived(&self) -> u64 {
        self.hot.lock().unarchived()
    }

    /// Bytes of rows in memory.
    pub fn resident(&self) -> u64 {
        self.hot.lock().resident()
    }

    /// Gives up the oldest segments of the WAL as long as all that is in them is `old`, which is told with the time at which
    /// the next chunk began, or, with `bytes`, while there are more of these. What lies behind `passed` is needed: who starts
    /// again reads it. Gives the frames and bytes that went. For a stream without an archive.
    pub fn give_up(&self, passed: u64, old: impl Fn(&Chunk, Micros) -> bool, bytes: Option<u64>) -> Result<(u64, u64)> {
        let chunks = self.hot.lock().snapshot().1;
        // The last one is not over.
        let aged = chunks.windows(2).find(|two| !old(&two[0], two[1].since)).map(|two| two[0].base);
        let aged = aged.or(chunks.last().map(|chunk| chunk.base)).unwrap_or(0);
        let segments = self.wal.segments();
        let mut most = segments.iter().map(|segment| segment.bytes).sum::<u64>();
        let mut kept = segments.iter();
        let over = kept.find(|segment| {
            let fits = bytes.is_none_or(|bytes| most <= bytes);
            most -= segment.bytes;
            fits
        });
        let over = over.or(segments.last()).map_or(0, |segment| segment.first_offset);
        let before = segments.first().map_or(0, |segment| segment.first_offset);
        let bytes = self.wal.drop_before(aged.max(over).min(passed))?;
        let first = self.wal.segments().first().map_or(0, |segment| segment.first_offset);
        self.hot.lock().forget_before(first);
        Ok((first.saturating_sub(before), bytes))
    }

    /// The rows of a chunk as [`StreamLog::load`] gives them; none if retention has given it up since it was handed out. For
    /// views: they are of what the stream has kept.
    pub fn load_kept(&self, chunk: &Chunk, shape: &Shape) -> Result<Arc<Data>> {
        match self.load(chunk, shape) {
            Err(err) if err.kind() == Kind::UndefinedObject => Ok(Arc::default()),
            loaded => loaded,
        }
    }

    /// The rows of a chunk, from memory, from the archive, or by reading the WAL and parsing. An error of kind
    /// `UndefinedObject` says that retention has given it up. Not for async code: it may take a while.
    pub fn load(&self, chunk: &Chunk, shape: &Shape) -> Result<Arc<Data>> {
        if let Some(data) = &chunk.data {
            return Ok(Arc::clone(data));
        }
        let loaded = match chunk.first {
            Some(first) => self.load_from_wal(chunk, first, shape),
            None => Err(Error::new(Kind::UndefinedObject, "the rows are in the archive")),
        };
        match (loaded, &self.history, self.archived()) {
            // Since the chunk was handed out the archive may have taken it, and the log may have been cut off behind it.
            (Err(err), Some(history), Some(archived)) if err.kind() == Kind::UndefinedObject => {
                Ok(Arc::new(history.load(&archived, chunk, shape)?))
            }
            (Err(err), None, _) if err.kind() == Kind::UndefinedObject => {
                let message = "rows that were being read are older than the stream's retention keeps, and are gone";
                Err(Error::new(Kind::UndefinedObject, message).with_hint("Run the query again."))
            }
            (loaded, _, _) => Ok(Arc::new(loaded?)),
        }
    }

    fn load_from_wal(&self, chunk: &Chunk, first: Location, shape: &Shape) -> Result<Data> {
        let mut data = Data::default();
        let mut count = 0;
        self.replay(chunk, first, shape, &mut |batch, late| {
            data.malformed.extend(batch.malformed);
            data.late.extend(late.iter().map(|late| LateRow { row: count + late.row, ..*late }));
            count += batch.rows.num_rows() as u32;
            if batch.rows.num_rows() > 0 {
                let lost = usize::from(on(Mutation::ColdChunkLosesARow));
                data.rows.push(batch.rows.slice(0, batch.rows.num_rows() - lost));
            }
            Ok(())
        })?;
        Ok(data)
    }

    /// Hands the archived rows of these offsets to `visit`, in no order, with the columns of `schema` (the archive's own
    /// ones among them, if named). Not for async code.
    pub fn read_archive(
        &self,
        schema: &arrow::datatypes::SchemaRef,
        offsets: std::ops::Range<u64>,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        match (&self.history, self.archived()) {
            (Some(history), Some(archived)) => history.read(&archived.rows, schema, offsets, visit),
            _ => Ok(()),
        }
    }

    /// Parses a chunk's part of the WAL again and hands each micro-batch to `visit`, with the rows that were late.
    fn replay(
        &self,
        chunk: &Chunk,
        first: Location,
        shape: &Shape,
        visit: &mut dyn FnMut(MicroBatch, Vec<LateRow>) -> Result<()>,
    ) -> Result<()> {
        let end = chunk.base + chunk.frames;
        let mut watermark = chunk.before.as_deref().cloned();
        for entry in self.wal.read(first)? {
            let (_, record) = entry?;
            if record.base >= end {
                break;
            }
            let batch = shape.rows(&record.into())?;
            let late = watermark.as_mut().map_or_else(Vec::new, |watermark| watch(watermark, &batch, shape));
            let done = batch.base + batch.frames >= end;
            visit(batch, late)?;
            if done {
                break;
            }
        }
        Ok(())
    }
}

/// Rows of an archive that were given to it before the one at this offset.
fn rows_before(archived: &super::archive::Archived, offset: u64) -> u64 {
    archived.segments.iter().filter(|segment| segment.first < offset).map(|segment| segment.rows).sum()
}

/// Lets the time of a micro-batch pass; tells which of its rows were late.
pub fn watch(watermark: &mut Watermark, batch: &MicroBatch, shape: &Shape) -> Vec<LateRow> {
    match batch.event {
        Event::Frames | Event::Rows => {
            return watermark.observe(&batch.partition, shape.times(&batch.rows), batch.ingest_time);
        }
        Event::Import => return watermark.import(&batch.partition, shape.times(&batch.rows), batch.ingest_time),
        Event::Tick => {}
        Event::End => watermark.end(&batch.partition),
        Event::Gone => watermark.gone(&batch.partition),
    }
    watermark.advance(batch.ingest_time);
    Vec::new()
}

impl From<Record> for Input {
    fn from(record: Record) -> Input {
        let event = record.event();
        let Record { base, ingest_time, position, frames, .. } = record;
        Input { base, ingest_time, position, frames, event }
    }
}
