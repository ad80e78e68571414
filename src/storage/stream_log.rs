//! One stream's durable rows: its WAL and its hot rows behind one door.
//!
//! Receives frames (appended to the WAL) and, later, the rows parsed from them (kept hot). Hands on chunks of rows,
//! reading the WAL and parsing again when a chunk is no longer in memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fs::Disk;
use super::hot::{Chunk, Data, Hot, Timing};
use super::record::CLOCK;
pub use super::record::IMPORTS;
use super::wal::{Location, Opened, Record, Wal, WalOptions};
use crate::batch::{Event, Input, MicroBatch, Shape};
use crate::error::Result;
use crate::mutation::{Mutation, on};
use crate::position::Position;
use crate::rollup::watermark::{LateRow, Watermark};

/// The last durable position of each partition (by its key), for each source.
pub type Positions = HashMap<u32, HashMap<String, Position>>;

/// See the file header.
pub struct StreamLog {
    wal: Wal,
    hot: Mutex<Hot>,
}

impl StreamLog {
    /// Opens or creates the log in `dir` and finds the last durable positions in it. `hot_bytes` limits the rows kept in
    /// memory.
    pub fn open(dir: &Path, options: WalOptions, hot_bytes: u64) -> Result<(StreamLog, Opened, Positions)> {
        let mut positions = Positions::new();
        let (wal, opened) = Wal::open_on(Arc::new(Disk), dir, options, &mut |_, head| {
            if head.source != CLOCK {
                positions.entry(head.source).or_default().insert(head.position.key.clone(), head.position);
            }
            Ok(())
        })?;
        Ok((StreamLog { wal, hot: Mutex::new(Hot::new(hot_bytes)) }, opened, positions))
    }

    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Keeps the rows of the record at `location`. Gives the offset at which their chunk begins.
    pub fn publish(&self, batch: &MicroBatch, location: Location, timing: Timing) -> Result<u64> {
        self.hot.lock().push(batch, location, timing)
    }

    /// All chunks as of now.
    pub fn snapshot(&self) -> Vec<Arc<Chunk>> {
        self.hot.lock().snapshot()
    }

    /// The chunks that are `wanted`, as of now.
    pub fn select(&self, wanted: impl Fn(&Chunk) -> bool) -> Vec<Arc<Chunk>> {
        self.hot.lock().select(wanted)
    }

    /// The chunks that hold frames from this offset on.
    pub fn snapshot_from(&self, offset: u64) -> Vec<Arc<Chunk>> {
        self.hot.lock().snapshot_from(offset)
    }

    /// Bytes of rows in memory.
    pub fn resident(&self) -> u64 {
        self.hot.lock().resident()
    }

    /// The rows of a chunk, from memory or by reading the WAL and parsing.
    pub fn load(&self, chunk: &Chunk, shape: &Shape) -> Result<Arc<Data>> {
        if let Some(data) = &chunk.data {
            return Ok(Arc::clone(data));
        }
        let mut data = Data::default();
        self.replay(chunk, shape, &mut |batch, _| {
            data.malformed.extend(batch.malformed);
            if batch.rows.num_rows() > 0 {
                let lost = usize::from(on(Mutation::ColdChunkLosesARow));
                data.rows.push(batch.rows.slice(0, batch.rows.num_rows() - lost));
            }
            Ok(())
        })?;
        Ok(Arc::new(data))
    }

    /// Parses a chunk's part of the WAL again and hands each micro-batch to `visit`, with the rows that were late.
    pub fn replay(
        &self,
        chunk: &Chunk,
        shape: &Shape,
        visit: &mut dyn FnMut(MicroBatch, Vec<LateRow>) -> Result<()>,
    ) -> Result<()> {
        let end = chunk.base + chunk.frames;
        let mut watermark = chunk.before.as_deref().cloned();
        for entry in self.wal.read(chunk.first)? {
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

/// Lets the time of a micro-batch pass; tells which of its rows were late.
pub fn watch(watermark: &mut Watermark, batch: &MicroBatch, shape: &Shape) -> Vec<LateRow> {
    match batch.event {
        Event::Frames => return watermark.observe(&batch.partition, shape.times(&batch.rows), batch.ingest_time),
        Event::Import => return watermark.import(&batch.partition, shape.times(&batch.rows), batch.ingest_time),
        Event::Tick => {}
        Event::End => watermark.end(&batch.partition),
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
