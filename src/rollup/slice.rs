//! Going through runs of any size in pieces of bounded size.
//!
//! Rows are sorted by a hash of group columns. A *slice* is a range of hashes: it holds all rows of the groups in
//! it, whichever runs they are in, so slices can be merged and finished one after the other. What is in memory at one
//! time is one slice and one block per run.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, Scalar, UInt32Array};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{and, cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use super::point;
use super::run::{ALL_HASHES, Builder, Panes, Run, RunStore};
use crate::error::{Error, Result};

/// Seed of the order of rows; files of one process share it.
const SEED: u64 = 0x4c6f_6777_6569_7221;

/// The order of a rollup's rows, and how large blocks are.
#[derive(Debug, Clone)]
pub struct Order {
    pub schema: SchemaRef,
    /// Group columns: rows that have the same values in them are in the same slice, others mostly are not.
    pub columns: Vec<usize>,
    /// Index of the pane column.
    pub pane: Option<usize>,
    /// Index of the column with the times that say how far runs have come: see [`Panes::front`].
    pub front: Option<usize>,
    pub block_rows: usize,
    pub block_bytes: usize,
}

impl Order {
    /// A hash per row. Rows of one group have the same.
    pub fn hashes(&self, batch: &RecordBatch) -> Result<Vec<u64>> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        self.hashes_of(&columns, batch.num_rows())
    }

    /// The same of the group columns alone.
    fn hashes_of(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
        let mut hashes = vec![0; rows];
        if columns.is_empty() {
            return Ok(hashes); // one slice
        }
        create_hashes(columns, &RandomState::with_seed(SEED), &mut hashes)?;
        // The high bits decide about the slice; multiplying spreads the low ones over them.
        for hash in &mut hashes {
            *hash = (*hash ^ (*hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        Ok(hashes)
    }

    /// The group with these values of the group columns. `None` where equal values may have several hashes, as numbers with
    /// a point have, or where one is of another type.
    pub fn group(&self, value: &dyn Fn(usize) -> Option<ScalarValue>) -> Result<Option<Group>> {
        let mut values = Vec::new();
        for &i in &self.columns {
            let data_type = self.schema.field(i).data_type();
            let Some(value) = value(i).filter(|value| !value.is_null() && is_exact(data_type, &value.data_type()))
            else {
                return Ok(None);
            };
            values.push(value.cast_to(data_type)?.to_array()?);
        }
        let hash = self.hashes_of(&values, 1)?.first().copied().filter(|_| !values.is_empty());
        Ok(hash.map(|hash| Group { hash, values }))
    }

    /// Which rows are of a group.
    pub fn is_group(&self, group: &Group, batch: &RecordBatch) -> Result<BooleanArray> {
        let mut wanted: Option<BooleanArray> = None;
        for (&i, value) in self.columns.iter().zip(&group.values) {
            let equal = eq(batch.column(i), &Scalar::new(value))?;
            wanted = Some(match wanted {
                Some(wanted) => and(&wanted, &equal)?,
                None => equal,
            });
        }
        wanted.ok_or_else(|| Error::internal("a group has columns"))
    }

    /// The rows of a group. In an ordered run they lie together, and are found by halving; they are those with its hash,
    /// which others may have too.
    pub fn rows_of(&self, group: &Group, batch: &RecordBatch, ordered: bool) -> Result<RecordBatch> {
        if !ordered {
            return Ok(filter_record_batch(batch, &self.is_group(group, batch)?)?);
        }
        let first = |past: &dyn Fn(u64) -> bool| -> Result<usize> {
            let (mut low, mut high) = (0, batch.num_rows());
            while low < high {
                let middle = low + (high - low) / 2;
                let row: Vec<ArrayRef> = self.columns.iter().map(|&i| batch.column(i).slice(middle, 1)).collect();
                match past(self.hashes_of(&row, 1)?[0]) {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            Ok(low)
        };
        let (from, to) = (first(&|other| other >= group.hash)?, first(&|other| other > group.hash)?);
        Ok(batch.slice(from, to - from))
    }

    /// The rows sorted by hash, in blocks with their range of hashes.
    pub fn arrange(&self, batches: &[RecordBatch]) -> Result<Vec<(RecordBatch, (u64, u64))>> {
        let all = concat_batches(&self.schema, batches)?;
        let hashes = self.hashes(&all)?;
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_unstable_by_key(|&row| hashes[row as usize]);
        let rows = self.rows_per_block(super::run::footprint(std::slice::from_ref(&all)), all.num_rows());
        let blocks = order.chunks(rows).map(|rows| {
            let hash = |row: Option<&u32>| row.map_or(0, |&row| hashes[row as usize]);
            let range = (hash(rows.first()), hash(rows.last()));
            Ok((take_record_batch(&all, &UInt32Array::from(rows.to_vec()))?, range))
        });
        blocks.collect()
    }

    fn rows_per_block(&self, bytes: usize, rows: usize) -> usize {
        let fitting = rows.saturating_mul(self.block_bytes) / bytes.max(1);
        fitting.clamp(1, self.block_rows.max(1))
    }

    /// A run with the same rows, in order and in `store`, or in memory without one.
    pub fn rewrite(&self, run: &Run, store: Option<&Arc<dyn RunStore>>) -> Result<Option<Run>> {
        let mut builder = Builder::new(run.level, true, store.cloned());
        let panes = run.panes;
        if run.ordered {
            for (i, block) in run.blocks().iter().enumerate() {
                builder.push(run.block(i)?, block.hashes, panes)?;
            }
        } else {
            let batches = (0..run.blocks().len()).map(|i| run.block(i)).collect::<Result<Vec<_>>>()?;
            for (batch, hashes) in self.arrange(&batches)? {
                builder.push(batch, hashes, panes)?;
            }
        }
        builder.finish()
    }

    /// The panes of a batch's rows.
    pub fn panes(&self, batch: &RecordBatch) -> Result<Panes> {
        let Some(column) = self.pane else { return Ok(Panes::ALL) };
        let times = self.pane_values(batch, column)?;
        let mut panes = Panes { timeless: times.null_count() > 0, ..Panes::NONE };
        for time in times.iter().flatten() {
            (panes.first, panes.last) = (panes.first.min(time), panes.last.max(time));
        }
        panes.front = match self.front.filter(|&front| front != column) {
            Some(front) => {
                arrow::compute::max(&self.pane_values(batch, front)?).map_or(i64::MIN, |t| t.saturating_add(1))
            }
            None => panes.last,
        };
        Ok(panes)
    }

    /// A time column's values in its own unit.
    pub fn pane_values(&self, batch: &RecordBatch, column: usize) -> Result<Int64Array> {
        let column = batch.column(column);
        match column.data_type() {
            DataType::Timestamp(..) => Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            other => Err(Error::internal(format!("a window column of type {other}"))),
        }
    }
}

/// Only these panes: both ends belong to it.
#[derive(Debug, Clone, Copy)]
pub struct Within {
    pub first: i64,
    pub last: i64,
    /// Whether rows without a pane are wanted.
    pub timeless: bool,
}

impl Within {
    pub fn wants(&self, panes: &Panes) -> bool {
        (panes.first <= self.last && self.first <= panes.last) || (panes.timeless && self.timeless)
    }

    fn all_of(&self, panes: &Panes) -> bool {
        (panes.first > panes.last || (self.first <= panes.first && panes.last <= self.last))
            && (!panes.timeless || self.timeless)
    }

    /// The rows in these panes.
    pub fn filter(&self, order: &Order, batch: RecordBatch) -> Result<RecordBatch> {
        let Some(column) = order.pane else { return Ok(batch) };
        let times = order.pane_values(&batch, column)?;
        let wanted = times.iter().map(|t| Some(t.map_or(self.timeless, |t| self.first <= t && t <= self.last)));
        let wanted: BooleanArray = wanted.collect();
        Ok(if wanted.true_count() == batch.num_rows() { batch } else { filter_record_batch(&batch, &wanted)? })
    }
}

/// A part of a state: some runs, of them some panes and some hashes, in `count` slices.
#[derive(Debug, Clone)]
pub struct Part {
    pub runs: Vec<Arc<Run>>,
    pub within: Option<Within>,
    pub hashes: (u64, u64),
    pub count: usize,
    /// Only the rows of this one.
    group: Option<Arc<Group>>,
}

/// One group: the hash of its rows, and its values, each as an array of one.
#[derive(Debug, Clone)]
pub struct Group {
    pub hash: u64,
    values: Vec<ArrayRef>,
}

impl Part {
    pub fn whole(runs: Vec<Arc<Run>>, within: Option<Within>, count: usize) -> Part {
        Part { runs, within, hashes: ALL_HASHES, count, group: None }
    }

    /// An estimate of its rows.
    pub fn rows(&self) -> usize {
        let all: usize = self.runs.iter().map(|r| r.rows).sum();
        let part = (self.hashes.1 - self.hashes.0) as f64 / u64::MAX as f64;
        (all as f64 * part) as usize
    }

    /// The rows of one group, and perhaps of others that have the same hash.
    pub fn group(runs: Vec<Arc<Run>>, within: Option<Within>, group: Group) -> Part {
        Part { runs, within, hashes: (group.hash, group.hash), count: 1, group: Some(Arc::new(group)) }
    }

    /// Whether slices are cut out of runs, which then have to be in order.
    fn cuts(&self) -> bool {
        self.count > 1 || self.hashes != ALL_HASHES
    }

    /// Puts runs in order that have to be: copies, so it is done once for all readers of the part.
    pub fn prepare(&mut self, order: &Order) -> Result<()> {
        if self.cuts() && self.group.is_none() {
            for run in self.runs.iter_mut().filter(|r| !r.ordered) {
                if let Some(ordered) = order.rewrite(run, None)? {
                    *run = Arc::new(ordered);
                }
            }
        }
        Ok(())
    }

    /// The first hash of the slice of this number.
    fn start_of(&self, slice: usize) -> u64 {
        let width = u128::from(self.hashes.1 - self.hashes.0) + 1;
        self.hashes.0 + (width * slice as u128 / self.count as u128) as u64
    }

    /// The last hash of the slice of this number.
    fn end_of(&self, slice: usize) -> u64 {
        if slice + 1 == self.count { self.hashes.1 } else { self.start_of(slice + 1) - 1 }
    }

    /// Cuts the part by hash into at most `pieces` parts of about the same size.
    pub fn split(self, pieces: usize) -> Vec<Part> {
        let pieces = pieces.clamp(1, self.count.max(1));
        let bounds = (0..pieces).map(|i| (self.count * i / pieces, self.count * (i + 1) / pieces));
        let part = |(from, to): (usize, usize)| {
            let hashes = (self.start_of(from), self.end_of(to - 1));
            Part { runs: self.runs.clone(), within: self.within, hashes, count: to - from, group: self.group.clone() }
        };
        bounds.map(part).collect()
    }
}

/// The slices of a part, one after the other.
pub struct Slices {
    part: Part,
    cursors: Vec<Cursor>,
    next: usize,
}

/// The rows of a range of hashes.
pub struct Slice {
    pub batches: Vec<RecordBatch>,
    /// Bytes of blocks that were read from files for it.
    pub loaded: usize,
}

/// How far one run has been read.
struct Cursor {
    run: Arc<Run>,
    next: usize,
    rest: Option<Rest>,
}

/// A block of which later slices need rows.
struct Rest {
    batch: RecordBatch,
    hashes: Vec<u64>,
    at: usize,
}

impl Slices {
    /// `part` has to be prepared.
    pub fn new(part: Part) -> Slices {
        let cursor = |run: &Arc<Run>| {
            let next = run.blocks().partition_point(|block| block.hashes.1 < part.hashes.0);
            Cursor { run: Arc::clone(run), next, rest: None }
        };
        let wanted = part.runs.iter().filter(|run| part.within.is_none_or(|w| w.wants(&run.panes)));
        Slices { cursors: wanted.map(cursor).collect(), part, next: 0 }
    }

    pub fn next(&mut self, order: &Order) -> Result<Option<Slice>> {
        if self.next == self.part.count {
            return Ok(None);
        }
        let last = self.part.end_of(self.next);
        let mut slice = Slice { batches: Vec::new(), loaded: 0 };
        for cursor in &mut self.cursors {
            if let Some(group) = &self.part.group
                && let Some(rows) = point::rows_of(&cursor.run, order, group, true)?
            {
                for mut rows in rows {
                    if let Some(within) = self.part.within {
                        rows = within.filter(order, rows)?;
                    }
                    slice.batches.extend(Some(rows).filter(|rows| rows.num_rows() > 0));
                }
                continue;
            }
            cursor.take(order, &self.part, last, &mut slice)?;
        }
        self.next += 1;
        Ok(Some(slice))
    }
}

impl Cursor {
    /// Takes the rows up to the hash `last`.
    fn take(&mut self, order: &Order, part: &Part, last: u64, out: &mut Slice) -> Result<()> {
        loop {
            if let Some(rest) = &mut self.rest {
                let end = rest.hashes.partition_point(|&hash| hash <= last);
                if end > rest.at {
                    out.batches.push(rest.batch.slice(rest.at, end - rest.at));
                    rest.at = end;
                }
                if end < rest.hashes.len() {
                    return Ok(());
                }
                self.rest = None;
            }
            let Some(block) = self.run.blocks().get(self.next).filter(|b| b.hashes.0 <= last) else { return Ok(()) };
            let mut batch = self.run.block(self.next)?;
            self.next += 1;
            if !self.run.in_memory() {
                out.loaded += block.size;
            }
            if let Some(within) = part.within.filter(|w| !w.all_of(&self.run.panes)) {
                batch = within.filter(order, batch)?;
            }
            if let Some(group) = &part.group {
                batch = order.rows_of(group, &batch, self.run.ordered)?;
            }
            if part.group.is_some() || part.hashes.0 <= block.hashes.0 && block.hashes.1 <= last {
                if batch.num_rows() > 0 {
                    out.batches.push(batch);
                }
            } else {
                let hashes = order.hashes(&batch)?;
                let at = hashes.partition_point(|&hash| hash < part.hashes.0);
                self.rest = Some(Rest { batch, hashes, at });
            }
        }
    }
}

/// Whether values of the two types are equal exactly if they are the same, whichever of them they are written in.
fn is_exact(column: &DataType, value: &DataType) -> bool {
    match column {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => value.is_string(),
        DataType::Boolean | DataType::Date32 | DataType::Timestamp(..) => column == value,
        other => other.is_integer() && other == value,
    }
}

/// An estimate of the bytes of a slice's own rows, without what the blocks around them hold.
pub fn sliced_bytes(batches: &[RecordBatch]) -> usize {
    batches.iter().flat_map(RecordBatch::columns).map(own_bytes).sum()
}

/// The same for one column.
pub fn own_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => column.len() * 16 + column.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => column.len() * 16 + column.as_binary_view().total_buffer_bytes_used(),
        // Lists count with all their values, wherever they start.
        _ => column.to_data().get_slice_memory_size().unwrap_or_default(),
    }
}
