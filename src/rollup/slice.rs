//! Going through runs of any size in pieces of bounded size.
//!
//! Rows are sorted by a hash of group columns. A *slice* is a range of hashes: it holds all rows of the groups in
//! it, whichever runs they are in, so slices can be merged and finished one after the other. What is in memory at one
//! time is one slice and one block per run.
//!
//! ```text
//!     first key, 16 bits │ all keys │ window, 16 bits      first: if there are several; window: where each row is in one
//! ```
//!
//! So all windows of one key lie together in each run, and all keys that begin with the same value; whoever asks for such finds
//! them by halving.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, Scalar, UInt32Array};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{and, cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use super::point;
use super::run::{ALL_HASHES, Block, Builder, Panes, Run, RunStore, slim};
use crate::error::{Error, Result};

/// Seed of the order of rows; files of one process share it.
const SEED: u64 = 0x4c6f_6777_6569_7221;

/// Says which order that is: runs of a program with another one cannot be gone on with.
pub const VERSION: u32 = 2;

/// Bits of a hash that the first of several keys decides about, and the window.
const FEW_BITS: u32 = 16;

/// A reader who names more groups looks at the rows of all.
const MOST_GROUPS: usize = 128;

/// A block counts as so many pieces of equal size when slices are cut.
const PIECES: u64 = 16;

/// The order of a rollup's rows, and how large blocks are.
#[derive(Debug, Clone)]
pub struct Order {
    pub schema: SchemaRef,
    /// Group columns: rows that have the same values in them lie together, or in the first of them.
    pub columns: Vec<usize>,
    /// Further group columns, by which those are ordered: rows that have the same values in both are in the same slice,
    /// others mostly are not.
    pub then: Vec<usize>,
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
        self.hashes_between(batch, 0, batch.num_rows())
    }

    fn hashes_between(&self, batch: &RecordBatch, first: usize, rows: usize) -> Result<Vec<u64>> {
        let mut hashes = vec![0; rows];
        for level in self.levels() {
            let columns: Vec<ArrayRef> = level.columns.iter().map(|&i| batch.column(i).slice(first, rows)).collect();
            for (hash, own) in hashes.iter_mut().zip(hashes_of(&columns, rows)?) {
                *hash |= level.part(own);
            }
        }
        Ok(hashes)
    }

    /// What a hash consists of: see the file header.
    fn levels(&self) -> impl Iterator<Item = Level<'_>> {
        let first = &self.columns[..usize::from(self.columns.len() > 1)];
        let bits = |columns: &[usize]| if columns.is_empty() { 0 } else { FEW_BITS };
        let (above, below) = (bits(first), bits(&self.then));
        let levels = [
            Level { columns: first, bits: above, left: u64::BITS - above },
            Level { columns: &self.columns, bits: u64::BITS - above - below, left: below },
            Level { columns: &self.then, bits: below, left: 0 },
        ];
        levels.into_iter().filter(|level| !level.columns.is_empty())
    }

    /// The groups that have one of these values in each column, for as many columns as their values are known of: the first of
    /// the group columns, all of them, or with `of_a_row` all and those of the window. `None` where not even the first is
    /// known, where equal values may have several hashes, as numbers with a point have, where one is of another type, and for
    /// very many.
    pub fn groups(&self, values: &Values<'_>, of_a_row: bool) -> Result<Option<Vec<Group>>> {
        let keys = self.columns.len();
        let all = [&self.columns[..], &self.then].concat();
        for known in [if of_a_row { all.len() } else { keys }, keys, keys.min(1)] {
            let columns = &all[..known];
            let Some(values) = self.exact(columns, values)?.filter(|values| !values.is_empty()) else { continue };
            let count = values.iter().try_fold(1usize, |count, some| count.checked_mul(some.len()));
            if count.is_none_or(|count| count > MOST_GROUPS) {
                continue;
            }
            let mut rows = vec![Vec::new()];
            for values in &values {
                let with = |row: &[ArrayRef], value: &ArrayRef| [row, &[Arc::clone(value)]].concat();
                rows = rows.iter().flat_map(|row| values.iter().map(|value| with(row, value))).collect();
            }
            return rows.into_iter().map(|row| self.group(columns, row)).collect::<Result<_>>().map(Some);
        }
        Ok(None)
    }

    /// The different values of these columns as arrays of one, in the types of the columns.
    fn exact(&self, columns: &[usize], values: &Values<'_>) -> Result<Option<Vec<Vec<ArrayRef>>>> {
        let mut all = Vec::new();
        for &i in columns {
            let data_type = self.schema.field(i).data_type();
            let Some(values) = values(i) else { return Ok(None) };
            let (mut different, mut seen) = (Vec::new(), HashSet::new());
            // Nothing is equal to NULL.
            for value in values.into_iter().filter(|value| !value.is_null()) {
                if !is_exact(data_type, &value.data_type()) || different.len() == MOST_GROUPS {
                    return Ok(None);
                }
                let value = value.cast_to(data_type)?;
                if seen.insert(value.clone()) {
                    different.push(value.to_array()?);
                }
            }
            all.push(different);
        }
        Ok(Some(all))
    }

    /// The group with these values, of the first columns.
    fn group(&self, columns: &[usize], values: Vec<ArrayRef>) -> Result<Group> {
        let (mut hash, mut left) = (0, u64::BITS);
        for level in self.levels() {
            let value_of = |own| columns.iter().zip(&values).find(|(column, _)| *column == own).map(|(_, value)| value);
            let known: Option<Vec<ArrayRef>> = level.columns.iter().map(|own| value_of(own).cloned()).collect();
            let Some(known) = known else { break };
            hash |= level.part(hashes_of(&known, 1)?[0]);
            left = level.left;
        }
        let rest = 1u64.checked_shl(left).map_or(u64::MAX, |next| next - 1);
        let pane = match columns.iter().position(|column| Some(*column) == self.pane) {
            Some(at) => Some(times_of(&values[at])?.value(0)),
            None => None,
        };
        Ok(Group { hashes: (hash, hash | rest), columns: columns.to_vec(), values, pane })
    }

    /// Which rows are of a group.
    fn is_group(&self, group: &Group, batch: &RecordBatch) -> Result<BooleanArray> {
        let mut wanted: Option<BooleanArray> = None;
        for (&i, value) in group.columns.iter().zip(&group.values) {
            let equal = eq(batch.column(i), &Scalar::new(value))?;
            wanted = Some(match wanted {
                Some(wanted) => and(&wanted, &equal)?,
                None => equal,
            });
        }
        wanted.ok_or_else(|| Error::internal("a group has columns"))
    }

    /// The rows of a group and of no other. In an ordered run they lie together, and are found by halving.
    pub fn rows_of(&self, group: &Group, batch: &RecordBatch, ordered: bool) -> Result<RecordBatch> {
        let near = if ordered { self.near(group, batch)? } else { batch.clone() };
        if near.num_rows() == 0 {
            return Ok(near);
        }
        let wanted = self.is_group(group, &near)?;
        Ok(if wanted.true_count() == near.num_rows() { near } else { filter_record_batch(&near, &wanted)? })
    }

    /// The rows of an ordered batch that have the hashes of a group; others may have them too.
    fn near(&self, group: &Group, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let hash_at = |row: usize| Ok::<_, Error>(self.hashes_between(batch, row, 1)?[0]);
        // The first row between two that has at least this hash.
        let first = |hash: u64, mut low: usize, mut high: usize| -> Result<usize> {
            while low < high {
                let middle = low + (high - low) / 2;
                match hash_at(middle)? >= hash {
                    true => high = middle,
                    false => low = middle + 1,
                }
            }
            Ok(low)
        };
        let from = first(group.hashes.0, 0, rows)?;
        // Mostly they are few.
        let mut step = 1;
        while from + step < rows && hash_at(from + step)? <= group.hashes.1 {
            step *= 2;
        }
        let to = match group.hashes.1.checked_add(1) {
            Some(behind) => first(behind, from, rows.min(from + step))?,
            None => rows,
        };
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
        times_of(batch.column(column))
    }
}

/// A part of the hashes that rows are ordered by: so many bits from the hash of these columns, and how many are behind them.
struct Level<'a> {
    columns: &'a [usize],
    bits: u32,
    left: u32,
}

impl Level<'_> {
    /// What it adds to the hash of a row whose columns have this one.
    fn part(&self, hash: u64) -> u64 {
        (hash >> (u64::BITS - self.bits)) << self.left
    }
}

/// The values that a column may have, where a reader says them.
pub type Values<'a> = dyn Fn(usize) -> Option<Vec<ScalarValue>> + 'a;

/// A hash for each row of these columns.
fn hashes_of(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
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

fn times_of(column: &ArrayRef) -> Result<Int64Array> {
    match column.data_type() {
        DataType::Timestamp(..) => Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
        other => Err(Error::internal(format!("a window column of type {other}"))),
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

/// A part of a state: some runs, of them some panes and some hashes, in slices.
#[derive(Debug, Clone)]
pub struct Part {
    pub runs: Vec<Arc<Run>>,
    pub within: Option<Within>,
    /// An estimate of its rows.
    pub rows: usize,
    /// The first hash of each slice, ascending, and the last of the last one.
    starts: Vec<u64>,
    last: u64,
    /// Only the rows of this one.
    group: Option<Arc<Group>>,
}

/// One group: between which hashes its rows are, which columns it has which values in, each as an array of one, and the
/// pane that all its rows are of, where they are of one.
#[derive(Debug, Clone)]
pub struct Group {
    pub hashes: (u64, u64),
    columns: Vec<usize>,
    values: Vec<ArrayRef>,
    pane: Option<i64>,
}

impl Group {
    /// How many columns it has a value in.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// An estimate of its rows in a run: it has the more of them, the more ends of blocks it lies across. Right on the whole,
    /// and 0 for what is not in order, which is small.
    pub fn rows_in(&self, run: &Run) -> usize {
        let blocks = run.blocks();
        let mine = |end: &&[Block]| self.hashes.0 <= end[0].hashes.1 && end[1].hashes.0 <= self.hashes.1;
        match run.ordered && self.may_be_in(run) {
            true => blocks.windows(2).filter(mine).map(|end| end[0].rows).sum(),
            false => 0,
        }
    }

    /// The numbers of the blocks of a run that may have rows of it.
    pub fn blocks_of(&self, run: &Run) -> impl Iterator<Item = usize> {
        let may = |block: &Block| block.hashes.0 <= self.hashes.1 && self.hashes.0 <= block.hashes.1;
        run.blocks().iter().enumerate().filter(move |(_, block)| may(block)).map(|(number, _)| number)
    }

    /// Whether a run may have rows of it.
    pub fn may_be_in(&self, run: &Run) -> bool {
        self.pane.is_none_or(|pane| Within { first: pane, last: pane, timeless: false }.wants(&run.panes))
    }
}

impl Part {
    /// All of some runs, in about `count` slices. Puts the runs in order if there are several: copies, so it is done once for
    /// all readers of the part.
    pub fn whole(mut runs: Vec<Arc<Run>>, within: Option<Within>, count: usize, order: &Order) -> Result<Part> {
        let rows = runs.iter().map(|r| r.rows).sum();
        let mut starts = vec![ALL_HASHES.0];
        if count > 1 {
            for run in runs.iter_mut().filter(|r| !r.ordered) {
                if let Some(ordered) = order.rewrite(run, None)? {
                    *run = Arc::new(ordered);
                }
            }
            starts = cut(&runs, count);
        }
        Ok(Part { runs, within, rows, starts, last: ALL_HASHES.1, group: None })
    }

    /// The rows of one group.
    pub fn group(runs: Vec<Arc<Run>>, within: Option<Within>, group: Group) -> Part {
        let (first, last) = group.hashes;
        let rows = runs.len();
        Part { runs, within, rows, starts: vec![first], last, group: Some(Arc::new(group)) }
    }

    /// In how many slices.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The first hash of all.
    fn first(&self) -> u64 {
        self.starts[0]
    }

    /// The last hash of the slice of this number.
    fn end_of(&self, slice: usize) -> u64 {
        self.starts.get(slice + 1).map_or(self.last, |next| next - 1)
    }

    /// Cuts the part by hash into at most `pieces` parts of about the same size.
    pub fn split(self, pieces: usize) -> Vec<Part> {
        let count = self.count();
        let pieces = pieces.clamp(1, count);
        let bounds = (0..pieces).map(|i| (count * i / pieces, count * (i + 1) / pieces));
        let part = |(from, to): (usize, usize)| Part {
            runs: self.runs.clone(),
            within: self.within,
            rows: self.rows * (to - from) / count,
            starts: self.starts[from..to].to_vec(),
            last: self.end_of(to - 1),
            group: self.group.clone(),
        };
        bounds.map(part).collect()
    }
}

/// Where at most `count` slices of ordered runs begin that have about the same size. Their blocks tell how much lies between
/// two hashes: where keys are few and windows many, all is at a few places.
fn cut(runs: &[Arc<Run>], count: usize) -> Vec<u64> {
    let mut pieces: Vec<(u64, usize)> = Vec::new();
    for block in runs.iter().flat_map(|run| run.blocks()) {
        let (first, last) = block.hashes;
        let end = |piece: u64| if piece == PIECES { last } else { first + (last - first) / PIECES * piece };
        pieces.extend((1..=PIECES).map(|piece| (end(piece), block.size.max(block.rows))));
    }
    pieces.sort_unstable();
    let all: usize = pieces.iter().map(|(_, size)| size).sum();
    let (mut starts, mut slice, mut passed) = (vec![ALL_HASHES.0], 0, 0);
    for (end, size) in pieces {
        passed += size;
        let reached = (passed as u128 * count as u128 / all.max(1) as u128) as usize;
        if reached > slice
            && let Some(start) = end.checked_add(1)
            && starts.last() < Some(&start)
            && reached < count
        {
            slice = reached;
            starts.push(start);
        }
    }
    starts
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
    pub fn new(part: Part) -> Slices {
        let cursor = |run: &Arc<Run>| {
            let next = run.blocks().partition_point(|block| block.hashes.1 < part.first());
            Cursor { run: Arc::clone(run), next, rest: None }
        };
        let wanted = part.runs.iter().filter(|run| part.within.is_none_or(|w| w.wants(&run.panes)));
        Slices { cursors: wanted.map(cursor).collect(), part, next: 0 }
    }

    pub fn next(&mut self, order: &Order) -> Result<Option<Slice>> {
        if self.next == self.part.count() {
            return Ok(None);
        }
        let last = self.part.end_of(self.next);
        let mut slice = Slice { batches: Vec::new(), loaded: 0 };
        for cursor in &mut self.cursors {
            match &self.part.group {
                Some(group) => cursor.take_group(order, group, self.part.within, &mut slice)?,
                None => cursor.take(order, &self.part, last, &mut slice)?,
            }
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
            if part.first() <= block.hashes.0 && block.hashes.1 <= last {
                if batch.num_rows() > 0 {
                    out.batches.push(batch);
                }
            } else {
                let hashes = order.hashes(&batch)?;
                let at = hashes.partition_point(|&hash| hash < part.first());
                self.rest = Some(Rest { batch, hashes, at });
            }
        }
    }

    /// Takes the rows of a group. Those that are in a file get memory of their own: their blocks are not kept for them.
    fn take_group(&self, order: &Order, group: &Group, within: Option<Within>, out: &mut Slice) -> Result<()> {
        let found = match point::rows_of(&self.run, order, group, true)? {
            Some(found) => found,
            None => {
                let mut found = Vec::new();
                for number in group.blocks_of(&self.run) {
                    let rows = order.rows_of(group, &self.run.block(number)?, self.run.ordered)?;
                    found.push(slim(take_record_batch(
                        &rows,
                        &UInt32Array::from_iter_values(0..rows.num_rows() as u32),
                    )?)?);
                }
                out.loaded += sliced_bytes(&found);
                found
            }
        };
        for mut rows in found {
            if let Some(within) = within.filter(|w| !w.all_of(&self.run.panes)) {
                rows = within.filter(order, rows)?;
            }
            out.batches.extend(Some(rows).filter(|rows| rows.num_rows() > 0));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampSecondArray};
    use arrow::datatypes::{Field, Schema, TimeUnit};

    use super::*;

    fn order() -> Order {
        let time = DataType::Timestamp(TimeUnit::Second, None);
        let fields = vec![Field::new("window", time, true), Field::new("key", DataType::Utf8, true)];
        let (schema, pane) = (Arc::new(Schema::new(fields)), Some(0));
        Order { schema, columns: vec![1], then: vec![0], pane, front: pane, block_rows: 64, block_bytes: 1 << 20 }
    }

    /// A run of all these keys in each of so many windows.
    fn run(order: &Order, windows: i64, keys: usize) -> Arc<Run> {
        let rows = (0..windows).flat_map(|window| (0..keys).map(move |key| (window, key)));
        let (times, texts): (Vec<i64>, Vec<String>) = rows.map(|(window, key)| (window, format!("key {key}"))).unzip();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(TimestampSecondArray::from(times)), Arc::new(StringArray::from_iter_values(texts))];
        let batch = RecordBatch::try_new(Arc::clone(&order.schema), columns).unwrap();
        let panes = order.panes(&batch).unwrap();
        Arc::new(Run::new(vec![batch], panes))
    }

    /// Slices are of about the same size, also where all rows have one key.
    #[test]
    fn few_keys_in_many_windows_are_cut_too() {
        let order = order();
        for (windows, keys) in [(4000, 1), (1333, 3), (4, 1000), (1, 4000)] {
            let part = Part::whole(vec![run(&order, windows, keys)], None, 8, &order).unwrap();
            assert_eq!(part.count(), 8, "{keys} keys");
            for pieces in [1, 3] {
                let (mut all, mut largest) = (0, 0);
                for piece in part.clone().split(pieces) {
                    let mut slices = Slices::new(piece);
                    while let Some(slice) = slices.next(&order).unwrap() {
                        let rows = slice.batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                        (all, largest) = (all + rows, largest.max(rows));
                    }
                }
                assert_eq!(all, windows as usize * keys);
                assert!(largest <= 750, "{largest} of {all} rows of {keys} keys in one slice");
            }
        }
    }

    /// Of several values in each column, each combination is a group, once; windows count only where each row is in one.
    #[test]
    fn groups_are_combinations_of_values() {
        let order = order();
        let second = |n: i64| ScalarValue::TimestampSecond(Some(n), None);
        let values = |column: usize| {
            let texts = || ["a", "b", "a"].map(ScalarValue::from).to_vec();
            Some(if column == 1 {
                [texts(), vec![ScalarValue::Utf8(None)]].concat()
            } else {
                vec![second(7), second(9)]
            })
        };
        let groups = order.groups(&values, true).unwrap().unwrap();
        assert_eq!(groups.iter().map(|group| group.pane).collect::<Vec<_>>(), [Some(7), Some(9), Some(7), Some(9)]);
        assert!(groups.iter().all(|group| group.hashes.0 == group.hashes.1));
        let keys = order.groups(&values, false).unwrap().unwrap();
        assert_eq!(keys.iter().map(|group| group.pane).collect::<Vec<_>>(), [None, None]);
        for (i, group) in groups.iter().enumerate() {
            let (first, last) = keys[i / 2].hashes;
            assert!(first <= group.hashes.0 && group.hashes.1 <= last, "windows of a key lie together");
        }
        let many = |column: usize| (column == 1).then(|| (0..1000).map(|n| ScalarValue::from(n.to_string())).collect());
        assert!(order.groups(&many, true).unwrap().is_none());
        let other = |_: usize| Some(vec![ScalarValue::from(1i64)]);
        assert!(order.groups(&other, true).unwrap().is_none(), "of another type");
    }
}
