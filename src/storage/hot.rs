//! The recent rows of a stream in memory, and where in the WAL all others are.
//!
//! Rows are kept in [`Chunk`]s: consecutive micro-batches of some MiB of log. A chunk always knows its range of offsets
//! and event times and its place in the WAL; its rows are in memory until the byte limit pushes them out, oldest first.
//! A query that needs them again reads the WAL and parses (see `stream_log.rs`). So memory is bounded by a setting, and
//! the index costs about a hundred bytes per [`CHUNK_BYTES`] of log.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::wal::Location;
use crate::batch::{MicroBatch, compact};
use crate::error::Result;
use crate::mutation::limit;
use crate::rollup::watermark::Watermark;
use crate::time::Micros;

/// A chunk is closed when it holds this much log: a unit of re-reading that takes some 10 ms.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Batches with fewer rows are joined with their neighbours: a trickle of lines must not become a million batches.
const SMALL_BATCH: usize = 4096;

/// Consecutive frames of a stream.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Offset of the first frame.
    pub base: u64,
    pub frames: u64,
    /// The WAL record that holds the first frame.
    pub first: Location,
    pub rows: u64,
    pub malformed: u64,
    /// Bytes of log.
    pub bytes: u64,
    /// Smallest and largest event time; `None` when unknown (no time column or no rows).
    pub times: Option<(Micros, Micros)>,
    /// Rows that came behind the watermark. Which ones is found by watching time pass again from `before` on.
    pub late: u64,
    /// The watermark before the first frame; `None` without a time column.
    pub before: Option<Arc<Watermark>>,
    /// The rows, while they are in memory.
    pub data: Option<Arc<Data>>,
}

/// What is known of the event times of a micro-batch.
#[derive(Debug, Clone, Default)]
pub struct Timing {
    /// The smallest and the largest.
    pub range: Option<(Micros, Micros)>,
    /// How many were behind the watermark.
    pub late: u64,
    /// The watermark before the batch.
    pub before: Option<Arc<Watermark>>,
}

/// The rows of a chunk.
#[derive(Debug, Clone, Default)]
pub struct Data {
    pub rows: Vec<RecordBatch>,
    pub malformed: Vec<RecordBatch>,
}

/// All chunks of one stream, oldest first.
#[derive(Debug)]
pub struct Hot {
    limit: u64,
    chunks: VecDeque<Arc<Chunk>>,
    /// Memory held by rows (estimated from their bytes and columns), and how many chunks at the front hold none.
    resident: u64,
    evicted: usize,
}

impl Hot {
    /// `limit`: bytes of rows to keep in memory.
    pub fn new(limit: u64) -> Hot {
        Hot { limit, chunks: VecDeque::new(), resident: 0, evicted: 0 }
    }

    /// Takes in the rows of the WAL record at `location`. Gives the offset at which their chunk begins.
    pub fn push(&mut self, batch: &MicroBatch, location: Location, timing: Timing) -> Result<u64> {
        let open = self.chunks.back().is_some_and(|c| c.bytes < limit(CHUNK_BYTES) as u64 && c.data.is_some());
        if !open {
            self.chunks.push_back(Arc::new(Chunk {
                base: batch.base,
                frames: 0,
                first: location,
                rows: 0,
                malformed: 0,
                bytes: 0,
                times: None,
                late: 0,
                before: timing.before,
                data: Some(Arc::new(Data::default())),
            }));
        }
        let last = self.chunks.back_mut().expect("pushed above");
        // Copies the chunk only while a reader holds the old one.
        let chunk = Arc::make_mut(last);
        chunk.frames = batch.base + batch.frames - chunk.base;
        chunk.rows += batch.rows.num_rows() as u64;
        chunk.bytes += batch.bytes;
        chunk.late += timing.late;
        chunk.times = match (chunk.times, timing.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (old, new) => old.or(new),
        };
        let data = Arc::make_mut(chunk.data.as_mut().expect("an open chunk is in memory"));
        if let Some(malformed) = &batch.malformed {
            chunk.malformed += malformed.num_rows() as u64;
            push_joined(&mut data.malformed, malformed.clone())?;
        }
        if batch.rows.num_rows() > 0 {
            push_joined(&mut data.rows, batch.rows.clone())?;
        }
        let base = chunk.base;
        self.resident += memory(batch.bytes, batch.rows.num_rows() as u64, batch.rows.num_columns() as u64);
        self.evict();
        Ok(base)
    }

    fn evict(&mut self) {
        while self.resident > self.limit && self.evicted + 1 < self.chunks.len() {
            let chunk = Arc::make_mut(&mut self.chunks[self.evicted]);
            if let Some(data) = chunk.data.take() {
                let columns = data.rows.first().map_or(0, RecordBatch::num_columns) as u64;
                self.resident = self.resident.saturating_sub(memory(chunk.bytes, chunk.rows, columns));
            }
            self.evicted += 1;
        }
    }

    /// The chunks as of now: shared, immutable.
    pub fn snapshot(&self) -> Vec<Arc<Chunk>> {
        self.chunks.iter().cloned().collect()
    }

    /// The chunks that are `wanted`, as of now.
    pub fn select(&self, wanted: impl Fn(&Chunk) -> bool) -> Vec<Arc<Chunk>> {
        self.chunks.iter().filter(|chunk| wanted(chunk)).cloned().collect()
    }

    /// The chunks that hold frames from this offset on.
    pub fn snapshot_from(&self, offset: u64) -> Vec<Arc<Chunk>> {
        let first = self.chunks.partition_point(|c| c.base + c.frames <= offset);
        self.chunks.range(first..).cloned().collect()
    }

    /// Bytes of rows in memory.
    pub fn resident(&self) -> u64 {
        self.resident
    }
}

/// Memory of rows: the log bytes that their strings point into, and 16 bytes per value at most.
fn memory(bytes: u64, rows: u64, columns: u64) -> u64 {
    bytes + rows * columns * 16
}

/// Appends a batch, joining small neighbours the way a binary counter carries: each row is copied a logarithmic number
/// of times.
fn push_joined(batches: &mut Vec<RecordBatch>, batch: RecordBatch) -> Result<()> {
    let mut joined = batch;
    while let Some(last) = batches.last() {
        let small = last.num_rows() + joined.num_rows() <= SMALL_BATCH && last.num_rows() <= 2 * joined.num_rows();
        if !small || last.schema() != joined.schema() {
            break;
        }
        let both = concat_batches(&joined.schema(), [last, &joined])?;
        joined = compact(both)?;
        batches.pop();
    }
    batches.push(joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Event;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};

    fn batch(base: u64, rows: usize, bytes: u64) -> MicroBatch {
        let schema =
            Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("s", DataType::Utf8View, false)]);
        let numbers = Int64Array::from_iter_values(base as i64..base as i64 + rows as i64);
        let texts =
            StringViewArray::from_iter_values((0..rows).map(|i| format!("a string longer than twelve bytes {i}")));
        let rows_batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers), Arc::new(texts)]).unwrap();
        let frames = rows as u64;
        MicroBatch {
            base,
            frames,
            rows: rows_batch,
            malformed: None,
            bytes,
            partition: "p".into(),
            ingest_time: 0,
            event: Event::Frames,
        }
    }

    fn location(at: u64) -> Location {
        Location { segment: 1, at, len: 0 }
    }

    #[test]
    fn a_trickle_of_lines_becomes_few_batches() {
        let mut hot = Hot::new(u64::MAX);
        for i in 0..3000 {
            let timing = Timing { range: Some((i as i64, i as i64)), ..Timing::default() };
            hot.push(&batch(i, 1, 100), location(i), timing).unwrap();
        }
        let chunks = hot.snapshot();
        assert_eq!(chunks.len(), 1);
        let data = chunks[0].data.as_ref().unwrap();
        assert!(data.rows.len() < 15, "{} batches", data.rows.len());
        assert_eq!(data.rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3000);
        assert_eq!((chunks[0].frames, chunks[0].times), (3000, Some((0, 2999))));
    }

    #[test]
    fn memory_is_bounded_and_old_chunks_keep_their_place() {
        let mut hot = Hot::new(20 << 20);
        for i in 0..50 {
            hot.push(&batch(i * 10, 10, 2 << 20), location(i), Timing::default()).unwrap();
        }
        assert!(hot.resident() <= 20 << 20);
        let chunks = hot.snapshot();
        assert_eq!(chunks.len(), 25);
        assert!(chunks[0].data.is_none() && chunks[24].data.is_some());
        assert_eq!(chunks[1].first, location(2));
        assert_eq!(chunks.iter().map(|c| c.frames).sum::<u64>(), 500);
    }
}
