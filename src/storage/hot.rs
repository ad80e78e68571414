//! The recent rows of a stream: those that its archive does not have yet, in memory or by their place in the WAL.
//!
//! Rows are kept in [`Chunk`]s: consecutive micro-batches of some MiB of log. A chunk always knows its range of offsets
//! and event times and its place in the WAL; its rows are in memory until the byte limit pushes them out, oldest first.
//! A query that needs them again reads the WAL and parses (see `stream_log.rs`). So memory is bounded by a setting.
//!
//! A chunk goes when the archive has its rows. What the archive has and the chunks behind it change together, under one
//! lock: a reader sees each row in one of the two. Of a stream without an archive it goes with its segment of the WAL, when
//! retention gives that up; so no chunk is in two segments.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;

use super::archive;
use super::wal::Location;
use crate::batch::{MicroBatch, compact};
use crate::error::Result;
use crate::mutation::limit;
use crate::rollup::watermark::{LateRow, Watermark};
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
    /// The WAL record that holds the first frame. `None`: the rows are in the archive.
    pub first: Option<Location>,
    /// When its first frames were taken in.
    pub since: Micros,
    pub rows: u64,
    pub malformed: u64,
    /// Bytes of log.
    pub bytes: u64,
    /// Memory of its rows, as long as they are in memory.
    pub memory: u64,
    /// Smallest and largest event time; `None` when unknown (no time column or no rows).
    pub times: Option<(Micros, Micros)>,
    /// Rows that came behind the watermark.
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
    /// Which were behind the watermark.
    pub late: Vec<LateRow>,
    /// The watermark before the batch.
    pub before: Option<Arc<Watermark>>,
}

/// The rows of a chunk, in the order of their offsets.
#[derive(Debug, Clone, Default)]
pub struct Data {
    pub rows: Vec<RecordBatch>,
    pub malformed: Vec<RecordBatch>,
    /// Rows that came behind the watermark, by their number among all of `rows`.
    pub late: Vec<LateRow>,
    /// The offset of each row, where rows may be missing. `None`: every frame is among these rows or malformed lines.
    pub offsets: Option<Vec<i64>>,
}

impl Data {
    /// The offset of each row of a chunk with these offsets.
    pub fn row_offsets(&self, chunk: std::ops::Range<u64>) -> Vec<i64> {
        if let Some(listed) = &self.offsets {
            return listed.clone();
        }
        let malformed = self.malformed.iter().filter_map(|batch| batch.column_by_name("offset"));
        let mut bad = malformed.flat_map(|offsets| offsets.as_primitive::<Int64Type>().values().iter()).peekable();
        (chunk.start as i64..chunk.end as i64).filter(|offset| bad.next_if(|bad| *bad == offset).is_none()).collect()
    }

    /// The batches of rows, each with the number of rows before it and its late rows, numbered within it.
    pub fn batches(&self) -> impl Iterator<Item = (usize, &RecordBatch, Vec<LateRow>)> {
        let mut first = 0;
        self.rows.iter().map(move |rows| {
            let range = first..first + rows.num_rows();
            let from = self.late.partition_point(|late| (late.row as usize) < range.start);
            let to = self.late.partition_point(|late| (late.row as usize) < range.end);
            let own = |late: &LateRow| LateRow { row: late.row - range.start as u32, ..*late };
            first = range.end;
            (range.start, rows, self.late[from..to].iter().map(own).collect())
        })
    }
}

/// What the archive has of a stream: its rows and its malformed lines, each up to an offset.
#[derive(Clone)]
pub struct Archived {
    pub rows: Arc<archive::Archived>,
    pub malformed: Arc<archive::Archived>,
}

impl Archived {
    /// Everything before this offset is in the archive.
    pub fn end(&self) -> u64 {
        self.rows.end.min(self.malformed.end)
    }
}

/// Bytes of rows that the streams of one database may keep in memory together: each has the same share of them. Held once
/// by the database, and once by each of its streams.
pub type Shared = Arc<u64>;

/// All chunks of one stream, oldest first.
pub struct Hot {
    limit: u64,
    shared: Option<Shared>,
    chunks: VecDeque<Arc<Chunk>>,
    archived: Option<Archived>,
    /// Offsets at which a chunk must begin.
    cuts: Vec<u64>,
    /// The last chunk takes nothing more.
    sealed: bool,
    /// Memory held by rows (estimated from their bytes and columns), and how many chunks at the front hold none.
    resident: u64,
    evicted: usize,
}

impl Hot {
    /// `limit`: bytes of rows to keep in memory.
    pub fn new(limit: u64) -> Hot {
        Hot {
            limit,
            shared: None,
            chunks: VecDeque::new(),
            archived: None,
            cuts: Vec::new(),
            sealed: false,
            resident: 0,
            evicted: 0,
        }
    }

    /// From now on it keeps no more than its share, either.
    pub fn share(&mut self, shared: Shared) {
        self.shared = Some(shared);
        self.evict();
    }

    /// Bytes of rows to keep in memory, as of now.
    fn most(&self) -> u64 {
        let share = |shared: &Shared| **shared / (Arc::strong_count(shared) as u64).saturating_sub(1).max(1);
        self.limit.min(self.shared.as_ref().map_or(u64::MAX, share))
    }

    /// Takes in the rows of the WAL record at `location`. Gives the offset at which their chunk begins.
    pub fn push(&mut self, batch: &MicroBatch, location: Location, timing: Timing) -> Result<u64> {
        let open = self.chunks.back().is_some_and(|c| c.bytes < limit(CHUNK_BYTES) as u64 && c.data.is_some());
        let last = self.chunks.back().and_then(|chunk| chunk.first);
        let cut = self.cuts.contains(&batch.base) || last.is_some_and(|first| first.segment != location.segment);
        self.cuts.retain(|offset| *offset > batch.base);
        if !open || std::mem::take(&mut self.sealed) || cut {
            self.chunks.push_back(Arc::new(Chunk {
                base: batch.base,
                frames: 0,
                first: Some(location),
                since: batch.ingest_time,
                rows: 0,
                malformed: 0,
                bytes: 0,
                memory: 0,
                times: None,
                late: 0,
                before: timing.before,
                data: Some(Arc::new(Data::default())),
            }));
        }
        let last = self.chunks.back_mut().expect("pushed above");
        // Copies the chunk only while a reader holds the old one.
        let chunk = Arc::make_mut(last);
        let before = chunk.rows as u32;
        chunk.frames = batch.base + batch.frames - chunk.base;
        chunk.rows += batch.rows.num_rows() as u64;
        chunk.bytes += batch.bytes;
        chunk.late += timing.late.len() as u64;
        chunk.times = match (chunk.times, timing.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (old, new) => old.or(new),
        };
        let (rows, columns) = (batch.rows.num_rows() as u64, batch.rows.num_columns() as u64);
        let memory = memory(batch.bytes, rows, columns, timing.late.len() as u64);
        chunk.memory += memory;
        let data = Arc::make_mut(chunk.data.as_mut().expect("an open chunk is in memory"));
        data.late.extend(timing.late.iter().map(|late| LateRow { row: before + late.row, ..*late }));
        if let Some(malformed) = &batch.malformed {
            chunk.malformed += malformed.num_rows() as u64;
            push_joined(&mut data.malformed, malformed.clone())?;
        }
        if batch.rows.num_rows() > 0 {
            push_joined(&mut data.rows, batch.rows.clone())?;
        }
        let base = chunk.base;
        self.resident += memory;
        self.evict();
        Ok(base)
    }

    fn evict(&mut self) {
        let most = self.most();
        while self.resident > most && self.evicted + 1 < self.chunks.len() {
            let chunk = Arc::make_mut(&mut self.chunks[self.evicted]);
            self.resident = self.resident.saturating_sub(chunk.memory);
            chunk.data = None;
            self.evicted += 1;
        }
    }

    /// What there is as of now, shared and immutable: the archive, and the chunks, some of which it may have in part.
    pub fn snapshot(&self) -> (Option<Archived>, Vec<Arc<Chunk>>) {
        (self.archived.clone(), self.chunks.iter().cloned().collect())
    }

    /// A chunk must begin at this offset.
    pub fn cut_at(&mut self, offset: u64) {
        if !self.cuts.contains(&offset) {
            self.cuts.push(offset);
        }
    }

    /// The oldest chunks, up to `most` bytes of log, if there are as many or some came in before `old`. They take no more
    /// rows from now on.
    pub fn ripe(&mut self, most: u64, old: Micros) -> Vec<Arc<Chunk>> {
        let mut bytes = 0;
        let ripe = self.chunks.iter().take_while(|chunk| {
            let fits = bytes == 0 || bytes + chunk.bytes <= most;
            bytes += chunk.bytes;
            fits
        });
        let ripe: Vec<_> = ripe.cloned().collect();
        if bytes < most && ripe.first().is_none_or(|chunk| chunk.since > old) {
            return Vec::new();
        }
        self.sealed |= ripe.len() == self.chunks.len();
        ripe
    }

    /// The archive is now this. Chunks that it has in whole go.
    pub fn set_archived(&mut self, archived: Archived) {
        self.forget_before(archived.end());
        self.archived = Some(archived);
    }

    /// Lets go of the chunks that end before this offset.
    pub fn forget_before(&mut self, offset: u64) {
        while let Some(chunk) = self.chunks.front().filter(|c| c.base + c.frames <= offset) {
            match self.evicted {
                0 => self.resident = self.resident.saturating_sub(chunk.memory),
                _ => self.evicted -= 1,
            }
            self.chunks.pop_front();
        }
    }

    pub fn archived(&self) -> Option<Archived> {
        self.archived.clone()
    }

    /// Bytes of log that the archive does not have yet.
    pub fn unarchived(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// Bytes of rows in memory.
    pub fn resident(&self) -> u64 {
        self.resident
    }
}

/// Memory of rows: the log bytes that their strings point into, 16 bytes per value at most, and what is known of late
/// ones.
fn memory(bytes: u64, rows: u64, columns: u64, late: u64) -> u64 {
    bytes + rows * columns * 16 + late * size_of::<LateRow>() as u64
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
    fn streams_of_a_database_share_what_it_may_keep() {
        let shared = Shared::new(1000);
        let (mut one, mut two) = (Hot::new(800), Hot::new(u64::MAX));
        one.share(Arc::clone(&shared));
        assert_eq!((one.most(), two.most()), (800, u64::MAX));
        two.share(Arc::clone(&shared));
        assert_eq!((one.most(), two.most()), (500, 500));
        drop(one);
        assert_eq!(two.most(), 1000);
    }

    #[test]
    fn a_trickle_of_lines_becomes_few_batches() {
        let mut hot = Hot::new(u64::MAX);
        for i in 0..3000 {
            let timing = Timing { range: Some((i as i64, i as i64)), ..Timing::default() };
            hot.push(&batch(i, 1, 100), location(i), timing).unwrap();
        }
        let (_, chunks) = hot.snapshot();
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
        let (_, chunks) = hot.snapshot();
        assert_eq!(chunks.len(), 25);
        assert!(chunks[0].data.is_none() && chunks[24].data.is_some());
        assert_eq!(chunks[1].first, Some(location(2)));
        assert_eq!(chunks.iter().map(|c| c.frames).sum::<u64>(), 500);
    }

    #[test]
    fn no_chunk_is_in_two_segments() {
        let mut hot = Hot::new(u64::MAX);
        for i in 0..6 {
            let location = Location { segment: 1 + i as u32 / 4, at: i, len: 0 };
            hot.push(&batch(i * 10, 10, 100), location, Timing::default()).unwrap();
        }
        let bases = |hot: &Hot| hot.snapshot().1.iter().map(|chunk| chunk.base).collect::<Vec<_>>();
        assert_eq!(bases(&hot), [0, 40]);
        hot.forget_before(39);
        assert_eq!(bases(&hot), [0, 40]);
        hot.forget_before(40);
        assert_eq!((bases(&hot), hot.resident()), (vec![40], 2 * memory(100, 10, 2, 0)));
    }
}
