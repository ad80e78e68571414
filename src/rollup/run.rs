//! A run: partial-aggregate rows that belong together, in memory or in a file.
//!
//! A run consists of *blocks*, record batches of some thousand rows. A run that has grown large, and every run in a file,
//! is *ordered*: its rows are sorted by a hash of their group (`slice.rs`), and each block knows its range of hashes.
//! Runs of any size can therefore be merged and read piece by piece: all rows of a group lie in the same piece.
//!
//! This module knows no files: where blocks can be put besides memory is behind [`RunStore`]. Memory is counted when a
//! run is made and given back when the last reader lets go of it ([`super::budget`]).

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::datatypes::DataType;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::budget::{Budget, Charge};
use super::point::{Index, LOOKS};
use crate::error::{Error, Kind, Result};

/// A place for runs that is not memory.
pub trait RunStore: Send + Sync + fmt::Debug {
    /// Begins a run. What was written is gone again when the writer is dropped before its end.
    fn create(&self) -> Result<Box<dyn RunWriter>>;
    /// A run that was made durable, maybe by an earlier process.
    fn open(&self, saved: &SavedFile) -> Result<Arc<dyn RunFile>>;
}

/// A run while it is written.
pub trait RunWriter: Send {
    fn write(&mut self, block: &RecordBatch) -> Result<()>;
    fn finish(self: Box<Self>) -> Result<Arc<dyn RunFile>>;
}

/// A run that was written. Its space is free again when the last owner drops it, unless a checkpoint holds it.
pub trait RunFile: Send + Sync + fmt::Debug {
    /// The block of this number, in the order of writing.
    fn read(&self, block: usize) -> Result<RecordBatch>;
    /// Bytes taken outside memory.
    fn bytes(&self) -> u64;
    /// Makes it durable and says how to find it again.
    fn persist(&self) -> Result<SavedFile>;
    /// A checkpoint names it (`true`), or no longer does: as long as one does, it outlives its owners and the process.
    fn hold(&self, held: bool);
}

/// Where the blocks of a run are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    pub number: u64,
    pub blocks: Vec<Place>,
}

/// Where a block is, and its checksum (CRC-32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub at: u64,
    pub len: u64,
    pub crc: u32,
}

/// A run as a checkpoint remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedRun {
    pub file: SavedFile,
    pub level: Level,
    pub ordered: bool,
    pub panes: Panes,
    pub size: usize,
    pub blocks: Vec<Block>,
}

/// The part of a rollup's state that a run belongs to: see `pane.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    Fresh,
    Open,
    Late,
    Base,
}

/// The panes (window starts, in the unit of the pane column) that rows belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panes {
    pub first: i64,
    pub last: i64,
    /// What lies before it, rows that come in order no longer touch: the last pane, or what the last session begins with.
    pub front: i64,
    /// Whether there are rows without a time: they belong to no pane.
    pub timeless: bool,
}

impl Panes {
    /// Of rows without a window.
    pub const ALL: Panes = Panes { first: i64::MIN, last: i64::MAX, front: i64::MAX, timeless: false };
    /// Of no rows.
    pub const NONE: Panes = Panes { first: i64::MAX, last: i64::MIN, front: i64::MIN, timeless: false };

    pub fn of(first: i64, last: i64) -> Panes {
        Panes { first, last, front: last, timeless: false }
    }

    pub fn with(self, other: Panes) -> Panes {
        let timeless = self.timeless || other.timeless;
        Panes {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            front: self.front.max(other.front),
            timeless,
        }
    }

    pub fn overlap(&self, other: &Panes) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The first and the last pane; `None` without a window and for rows without a time.
    pub fn range(&self) -> Option<(i64, i64)> {
        (self.first <= self.last && *self != Panes::ALL).then_some((self.first, self.last))
    }

    /// Whether the last pane has `expired`, and with it all.
    pub fn have_expired(&self, expired: &dyn Fn(i64) -> bool) -> bool {
        !self.timeless && self.range().is_some_and(|(_, last)| expired(last))
    }

    /// A closed range of panes that holds all rows; `i64::MIN, i64::MAX` when there is none.
    pub fn touched(&self) -> (i64, i64) {
        if self.timeless { (i64::MIN, i64::MAX) } else { (self.first, self.last) }
    }

    /// Where what rows in order may still touch begins; `None` without a window and for rows without a time.
    pub fn newest(&self) -> Option<i64> {
        self.range().map(|_| self.front)
    }
}

/// Consecutive rows of a run, read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub rows: usize,
    /// Bytes that it takes in memory.
    pub size: usize,
    /// Smallest and largest hash, or a wider range.
    pub hashes: (u64, u64),
}

/// All hashes there are.
pub const ALL_HASHES: (u64, u64) = (0, u64::MAX);

/// See the file header.
pub struct Run {
    pub rows: usize,
    /// Bytes that its rows take, or would take, in memory.
    pub size: usize,
    pub panes: Panes,
    pub level: Level,
    /// Whether its rows are sorted by hash.
    pub ordered: bool,
    blocks: Vec<Block>,
    content: Content,
    /// A durable copy of what is in memory, once a checkpoint has made one.
    copy: Mutex<Option<Arc<dyn RunFile>>>,
    charge: Option<Charge>,
    finding: Finding,
}

/// How single groups are found in an unordered run.
#[derive(Default)]
struct Finding {
    /// How often it was looked through for one since somebody began to make an index.
    looks: AtomicU32,
    /// With what it takes of the budget.
    index: OnceLock<(Index, Option<Charge>)>,
}

enum Content {
    Memory(Vec<RecordBatch>),
    File(Arc<dyn RunFile>),
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.in_memory() { "memory" } else { "file" };
        write!(f, "Run({:?}, {} rows, {} bytes, {:?}, {place})", self.level, self.rows, self.size, self.panes)
    }
}

impl Run {
    /// A run as it comes from folding.
    pub fn new(batches: Vec<RecordBatch>, panes: Panes) -> Run {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let blocks = batches.iter().map(|b| Block { rows: b.num_rows(), size: 0, hashes: ALL_HASHES }).collect();
        let (size, content) = (footprint(&batches), Content::Memory(batches));
        let (copy, charge) = (Mutex::default(), None);
        Run {
            rows,
            size,
            panes,
            level: Level::Fresh,
            ordered: false,
            blocks,
            content,
            copy,
            charge,
            finding: Finding::default(),
        }
    }

    /// Makes the run durable, if it is not yet; gives what a checkpoint needs to know, and the file, which it holds.
    pub fn save(&self, store: &dyn RunStore) -> Result<(SavedRun, Arc<dyn RunFile>)> {
        let mut copy = self.copy.lock();
        let file = match (&self.content, copy.take()) {
            (Content::File(file), _) => Arc::clone(file),
            (Content::Memory(_), Some(file)) => file,
            (Content::Memory(batches), None) => {
                let mut writer = store.create()?;
                batches.iter().try_for_each(|batch| writer.write(batch))?;
                writer.finish()?
            }
        };
        // Of a copy that could not be synced nobody knows what is on the disk: the next time there is another.
        let place = file.persist()?;
        if self.in_memory() {
            *copy = Some(Arc::clone(&file));
        }
        let (level, ordered, panes, size) = (self.level, self.ordered, self.panes, self.size);
        Ok((SavedRun { file: place, level, ordered, panes, size, blocks: self.blocks.clone() }, file))
    }

    /// A run that was saved. All of it is read, which finds damage. It stays on disk only with `cold`, and only if its
    /// rows are in order.
    pub fn restore(saved: &SavedRun, store: &dyn RunStore, cold: bool) -> Result<Run> {
        let file = store.open(&saved.file)?;
        let cold = cold && saved.ordered;
        let (mut batches, mut rows) = (Vec::new(), 0);
        for (index, block) in saved.blocks.iter().enumerate() {
            let batch = file.read(index)?;
            if batch.num_rows() != block.rows {
                return Err(Error::new(Kind::Corrupted, "a state file has other rows than its checkpoint says"));
            }
            rows += block.rows;
            if !cold {
                batches.push(batch);
            }
        }
        let (content, copy) = match cold {
            true => (Content::File(file), Mutex::default()),
            false => (Content::Memory(batches), Mutex::new(Some(file))),
        };
        let SavedRun { level, ordered, panes, size, ref blocks, .. } = *saved;
        Ok(Run {
            rows,
            size,
            panes,
            level,
            ordered,
            blocks: blocks.clone(),
            content,
            copy,
            charge: None,
            finding: Finding::default(),
        })
    }

    /// Both runs, as they come from folding, as one.
    pub fn with(self, other: Run) -> Run {
        match (self.content, other.content) {
            (Content::Memory(mut batches), Content::Memory(more)) => {
                batches.extend(more);
                Run::new(batches, self.panes.with(other.panes))
            }
            _ => unreachable!("folding yields runs in memory"),
        }
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub fn in_memory(&self) -> bool {
        matches!(self.content, Content::Memory(_))
    }

    /// Reads a block. Free for a run in memory.
    pub fn block(&self, index: usize) -> Result<RecordBatch> {
        match &self.content {
            Content::Memory(batches) => Ok(batches[index].clone()),
            Content::File(file) => file.read(index),
        }
    }

    /// Its index for single groups, if it has one.
    pub fn index(&self) -> Option<&Index> {
        self.finding.index.get().map(|(index, _)| index)
    }

    /// Counts a look through it for a single group. Whether so many have looked by now that an index is worth making, and
    /// nobody makes it yet.
    pub fn wants_index(&self) -> bool {
        let looks = &self.finding.looks;
        looks.load(Ordering::Relaxed) >= LOOKS || looks.fetch_add(1, Ordering::Relaxed) + 1 >= LOOKS
    }

    /// Gives it the index that it wants. Who comes while another makes it gets none.
    pub fn make_index(&self, make: impl FnOnce() -> Result<Index>) -> Result<Option<&Index>> {
        if self.finding.looks.swap(0, Ordering::Relaxed) >= LOOKS && self.index().is_none() {
            let index = make()?;
            let charge = self.charge.as_ref().map(|charge| charge.another(index.bytes()));
            // If making it took longer than all looks for the next one, there may be one by now.
            let _ = self.finding.index.set((index, charge));
        }
        Ok(self.index())
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        if self.in_memory() { self.size } else { 0 }
    }

    /// Bytes held outside memory.
    pub fn on_disk(&self) -> u64 {
        match &self.content {
            Content::Memory(_) => 0,
            Content::File(file) => file.bytes(),
        }
    }

    /// How much work it is to merge, in rows: a row with a large state (a list of distinct values) counts for many.
    pub fn weight(&self) -> usize {
        self.rows.max(self.size / PLAIN_ROW)
    }

    /// The same run, its memory counted in `budget`.
    pub fn charged(mut self, budget: &Arc<Budget>) -> Run {
        self.charge = Some(Charge::new(budget, self.held()));
        self
    }
}

/// Bytes of a partial row of a few counts and a short text.
const PLAIN_ROW: usize = 128;

/// A run while its blocks are made.
pub struct Builder {
    level: Level,
    ordered: bool,
    store: Option<Arc<dyn RunStore>>,
    writer: Option<Box<dyn RunWriter>>,
    batches: Vec<RecordBatch>,
    blocks: Vec<Block>,
    panes: Panes,
}

impl Builder {
    /// With a `store` the run is written there, else it stays in memory. `ordered` promises that blocks come sorted.
    pub fn new(level: Level, ordered: bool, store: Option<Arc<dyn RunStore>>) -> Builder {
        let (writer, batches, blocks) = (None, Vec::new(), Vec::new());
        Builder { level, ordered, store, writer, batches, blocks, panes: Panes::NONE }
    }

    pub fn push(&mut self, batch: RecordBatch, hashes: (u64, u64), panes: Panes) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = slim(batch)?;
        self.panes = self.panes.with(panes);
        self.blocks.push(Block { rows: batch.num_rows(), size: footprint(std::slice::from_ref(&batch)), hashes });
        match (&mut self.writer, &self.store) {
            (Some(writer), _) => writer.write(&batch).map_err(moving)?,
            (None, Some(store)) => {
                let writer = store.create().map_err(moving)?;
                self.writer.insert(writer).write(&batch).map_err(moving)?;
            }
            (None, None) => self.batches.push(batch),
        }
        Ok(())
    }

    pub fn rows(&self) -> usize {
        self.blocks.iter().map(|b| b.rows).sum()
    }

    /// The run, unless it has no rows.
    pub fn finish(self) -> Result<Option<Run>> {
        let (rows, panes, level, ordered) = (self.rows(), self.panes, self.level, self.ordered);
        if rows == 0 {
            return Ok(None);
        }
        let (size, content) = match self.writer {
            Some(writer) => (self.blocks.iter().map(|b| b.size).sum(), Content::File(writer.finish().map_err(moving)?)),
            None => (footprint(&self.batches), Content::Memory(self.batches)),
        };
        let copy = Mutex::default();
        Ok(Some(Run {
            rows,
            size,
            panes,
            level,
            ordered,
            blocks: self.blocks,
            content,
            copy,
            charge: None,
            finding: Finding::default(),
        }))
    }
}

fn moving(err: Error) -> Error {
    err.with_context("moving a view's state to disk")
}

/// Bytes of memory that batches keep from being freed; what they share counts once.
pub fn footprint(batches: &[RecordBatch]) -> usize {
    fn add(data: &ArrayData, seen: &mut HashSet<usize>, total: &mut usize) {
        let validity = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(validity) {
            if seen.insert(buffer.data_ptr().as_ptr() as usize) {
                *total += buffer.capacity();
            }
        }
        data.child_data().iter().for_each(|child| add(child, seen, total));
    }
    let (mut seen, mut total) = (HashSet::new(), 0);
    for column in batches.iter().flat_map(RecordBatch::columns) {
        add(&column.to_data(), &mut seen, &mut total);
    }
    total
}

/// Copies texts out of blocks of which they use only a small part: a state must not keep a log's text in memory.
pub fn slim(batch: RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(slim_array).collect::<Result<Vec<_>>>()?;
    if columns.is_empty() {
        return Ok(batch);
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

fn slim_array(array: &ArrayRef) -> Result<ArrayRef> {
    /// Waste of this many bytes is not worth a copy.
    const SMALL: usize = 1024;
    let slim = match array.data_type() {
        DataType::Utf8View => {
            let views = array.as_string_view();
            let held: usize = views.data_buffers().iter().map(|b| b.capacity()).sum();
            (held > 2 * views.total_buffer_bytes_used() + SMALL).then(|| Arc::new(views.gc()) as ArrayRef)
        }
        DataType::BinaryView => {
            let views = array.as_binary_view();
            let held: usize = views.data_buffers().iter().map(|b| b.capacity()).sum();
            (held > 2 * views.total_buffer_bytes_used() + SMALL).then(|| Arc::new(views.gc()) as ArrayRef)
        }
        nested if nested.is_nested() => {
            let data = array.to_data();
            let slimmed = |child: &ArrayData| Ok(slim_array(&make_array(child.clone()))?.to_data());
            let children = data.child_data().iter().map(slimmed).collect::<Result<Vec<_>>>()?;
            Some(make_array(data.into_builder().child_data(children).build()?))
        }
        _ => None,
    };
    Ok(slim.unwrap_or_else(|| Arc::clone(array)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListArray, StringViewArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Schema};

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let fields: Vec<_> = columns.iter().map(|c| Field::new("c", c.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn shared_memory_counts_once() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let whole = batch(vec![numbers]);
        let halves = [whole.slice(0, 500), whole.slice(500, 500)];
        assert_eq!(footprint(&halves), footprint(&[whole]));
        assert!(footprint(&halves) < 9000);
    }

    #[test]
    fn a_few_texts_do_not_keep_their_block() {
        let texts = StringViewArray::from_iter_values((0..10_000).map(|i| format!("a text of some length {i}")));
        let few: ArrayRef = Arc::new(texts.slice(10, 3));
        let child = Field::new("item", DataType::Utf8View, true);
        let list = ListArray::new(Arc::new(child), OffsetBuffer::from_lengths([1, 2]), Arc::clone(&few), None);
        for wasteful in [batch(vec![few]), batch(vec![Arc::new(list)])] {
            assert!(footprint(std::slice::from_ref(&wasteful)) > 100_000);
            let slimmed = slim(wasteful.clone()).unwrap();
            let size = footprint(std::slice::from_ref(&slimmed));
            assert!(size < 10_000, "{size}");
            assert_eq!(slimmed, wasteful);
        }
    }
}
