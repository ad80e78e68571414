//! Hopping windows one after the other: each is made from what the one before it was made of.
//!
//! ```text
//!     panes       a b c d e f g h       a window is four panes wide
//!     window 1   |a b c d|          =   abcd               the turn is here, behind d
//!     window 2     |b c d e|        =    bcd + e
//!     window 3       |c d e f|      =     cd + ef
//!     window 4         |d e f g|    =      d + efg
//!     window 5           |e f g h|  =   efgh               the next turn, behind h
//! ```
//!
//! At each turn the *suffixes* of one window are computed, from its last pane backwards; what comes behind the turn is
//! added to a *prefix* that grows. So a window costs three merges of states, however many panes it has, and any
//! aggregate will do: nothing is ever subtracted. (M. van Herk, "A fast algorithm for local minimum and maximum filters",
//! 1992; J. Gil and M. Werman, 1993; for streams K. Tangwongsan et al., "General Incremental Sliding-Window
//! Aggregation", VLDB 2015.)
//!
//! Groups are numbered once, so that merging is DataFusion's own accumulators over arrays, without hashing. A
//! [`Slide`] can be kept and continued with the panes that came since: a reader who follows closed windows
//! does not read their panes again. [`exec`] is the operator.

mod exec;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::slice::own_bytes;
use super::spread::Closed;
use super::window::Window;
use crate::mutation::{Mutation, on};
use crate::time::{Micros, UTC};

pub use exec::{Cache, Kept, SlideExec};

/// Suffixes of a turn may take this much memory; with less than all of them turns come more often.
const SUFFIX_BYTES: usize = 32 << 20;

/// And be no more than this, where windows are many and rows few.
const MOST_SUFFIXES: usize = 4096;

/// How the windows of one rollup are computed from its panes.
#[derive(Debug)]
pub struct Sliding {
    functions: Vec<Function>,
    /// Number of group columns; the states are behind them.
    groups: usize,
    /// Of the partial rows: group columns, then states.
    schema: SchemaRef,
    /// Of the result: group columns, then values.
    output: SchemaRef,
    /// Group columns that hold the pane's start.
    panes: Vec<usize>,
    closed: Option<Closed>,
    /// The other group columns.
    keys: Vec<usize>,
}

#[derive(Debug)]
struct Function {
    expr: Arc<AggregateFunctionExpr>,
    /// Its first state column, and how many it has.
    states: (usize, usize),
}

impl Function {
    fn accumulator(&self) -> DfResult<Box<dyn GroupsAccumulator>> {
        if self.expr.groups_accumulator_supported() {
            return self.expr.create_groups_accumulator();
        }
        let expr = Arc::clone(&self.expr);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || expr.create_accumulator())))
    }
}

impl Sliding {
    /// For partial rows of `schema` that `last` makes results of. `None` for groups that have no stable order of bytes
    /// (floating point numbers are equal when their bytes are not).
    pub fn new(last: &AggregateExec, schema: SchemaRef, panes: Vec<usize>, closed: Option<Closed>) -> Option<Sliding> {
        let groups = last.group_expr().num_group_exprs();
        let apart = |column: &usize| panes.contains(column) || closed.is_some_and(|c| c.column == *column);
        let keys: Vec<usize> = (0..groups).filter(|column| !apart(column)).collect();
        let fields: Vec<_> = keys.iter().map(|&i| SortField::new(schema.field(i).data_type().clone())).collect();
        let micros = |&i: &usize| matches!(schema.field(i).data_type(), DataType::Timestamp(TimeUnit::Microsecond, _));
        let plain = |&i: &usize| !schema.field(i).data_type().is_floating() && !schema.field(i).data_type().is_nested();
        if !panes.iter().all(micros) || !keys.iter().all(plain) || !RowConverter::supports_fields(&fields) {
            return None;
        }
        let mut next = groups;
        let mut functions = Vec::new();
        for expr in last.aggr_expr() {
            let count = expr.state_fields().ok()?.len();
            functions.push(Function { expr: Arc::clone(expr), states: (next, count) });
            next += count;
        }
        (next == schema.fields().len()).then(|| Sliding {
            functions,
            groups,
            schema,
            output: last.schema(),
            panes,
            closed,
            keys,
        })
    }

    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    fn accumulators(&self) -> DfResult<Vec<Box<dyn GroupsAccumulator>>> {
        self.functions.iter().map(Function::accumulator).collect()
    }

    /// Adds up blocks, of `groups` groups at most.
    fn merge<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>, groups: usize) -> DfResult<Merged> {
        const NONE: usize = usize::MAX;
        let mut merged = Merged { accumulators: self.accumulators()?, groups: Vec::new() };
        // Accumulators expect that every group up to the last has had a row, so they get numbers of their own.
        let mut places = vec![NONE; groups];
        for block in blocks.into_iter().filter(|block| !block.groups.is_empty()) {
            let mut place = |&group: &usize| {
                if places[group] == NONE {
                    places[group] = merged.groups.len();
                    merged.groups.push(group);
                }
                places[group]
            };
            let rows: Vec<usize> = block.groups.iter().map(&mut place).collect();
            for (function, accumulator) in self.functions.iter().zip(&mut merged.accumulators) {
                let first = function.states.0 - self.groups;
                let states = &block.states[first..first + function.states.1];
                accumulator.merge_batch(states, &rows, merged.groups.len())?;
            }
        }
        Ok(merged)
    }

    /// The states of the sum of blocks.
    fn add<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>, groups: usize) -> DfResult<Block> {
        let mut merged = self.merge(blocks, groups)?;
        let mut states = Vec::new();
        for accumulator in &mut merged.accumulators {
            states.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(Block { groups: merged.groups.into(), states })
    }

    /// The result of the sum of blocks; `None` when it has no rows.
    fn values<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>, groups: usize) -> DfResult<Option<Block>> {
        let mut merged = self.merge(blocks, groups)?;
        if merged.groups.is_empty() {
            return Ok(None);
        }
        let mut values = Vec::new();
        for accumulator in &mut merged.accumulators {
            values.push(accumulator.evaluate(EmitTo::All)?);
        }
        Ok(Some(Block { groups: merged.groups.into(), states: values }))
    }
}

/// Accumulators, and the groups that they have in order.
struct Merged {
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    groups: Vec<usize>,
}

/// States of some groups, each at most once but for rows as they were read.
#[derive(Debug, Clone, Default)]
struct Block {
    groups: Arc<[usize]>,
    states: Vec<ArrayRef>,
}

impl Block {
    fn bytes(&self) -> usize {
        self.states.iter().map(own_bytes).sum::<usize>() + self.groups.len() * size_of::<usize>()
    }

    fn rows(&self, rows: &[u64]) -> DfResult<Block> {
        let groups = rows.iter().map(|&row| self.groups[row as usize]).collect();
        let rows = UInt64Array::from(rows.to_vec());
        let states = self.states.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?;
        Ok(Block { groups, states })
    }
}

/// Numbers for the values of the group columns.
#[derive(Debug, Clone)]
struct Keys {
    converter: Arc<RowConverter>,
    numbers: HashMap<Box<[u8]>, usize>,
    /// The values of the groups, in the order of their numbers, as far as they were asked for.
    values: Vec<ArrayRef>,
    bytes: usize,
}

impl Keys {
    fn new(sliding: &Sliding) -> DfResult<Keys> {
        let fields = sliding.keys.iter().map(|&i| SortField::new(sliding.schema.field(i).data_type().clone()));
        let converter = Arc::new(RowConverter::new(fields.collect())?);
        Ok(Keys { converter, numbers: HashMap::new(), values: Vec::new(), bytes: 0 })
    }

    /// A number for each row. Without group columns there is one group.
    fn number(&mut self, columns: &[ArrayRef], rows: usize) -> DfResult<Vec<usize>> {
        if columns.is_empty() {
            if rows > 0 {
                self.numbers.entry(Box::default()).or_insert(0);
            }
            return Ok(vec![0; rows]);
        }
        let encoded = self.converter.convert_columns(columns)?;
        let mut number = |row: arrow::row::Row<'_>| match self.numbers.get(row.as_ref()) {
            Some(&number) => number,
            None => {
                let number = self.numbers.len();
                self.bytes += row.as_ref().len() + 48;
                self.numbers.insert(row.as_ref().into(), number);
                number
            }
        };
        Ok(encoded.iter().map(&mut number).collect())
    }

    /// The group columns of all groups, by number.
    fn values(&mut self) -> DfResult<&[ArrayRef]> {
        if self.values.first().is_some_and(|column| column.len() < self.numbers.len()) || self.values.is_empty() {
            let mut order: Vec<(&[u8], usize)> = self.numbers.iter().map(|(key, &number)| (&**key, number)).collect();
            order.sort_unstable_by_key(|(_, number)| *number);
            let parser = self.converter.parser();
            self.values = self.converter.convert_rows(order.iter().map(|(key, _)| parser.parse(key)))?;
        }
        Ok(&self.values)
    }
}

/// Rows that were late for some of their windows: each window takes them or not.
#[derive(Debug, Default)]
struct Late {
    panes: Vec<Micros>,
    closed_to: Vec<Micros>,
    block: Block,
}

/// See the file header. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slide {
    sliding: Arc<Sliding>,
    /// Its size, and how far one is from the next.
    size: Micros,
    every: Micros,
    keys: Arc<Keys>,
    /// In order of time, from the next window's first on.
    panes: VecDeque<(Micros, Block)>,
    turn: Option<Turn>,
}

#[derive(Debug, Clone)]
struct Turn {
    /// By window, in order of time.
    suffixes: VecDeque<(Micros, Block)>,
    prefix: Block,
    /// Panes before this are in a suffix or in the prefix.
    upto: Micros,
}

impl Slide {
    /// `None` for windows that do not hop.
    pub fn new(sliding: &Arc<Sliding>, window: Window) -> DfResult<Option<Slide>> {
        let Window::Hop { slide, size, .. } = window else { return Ok(None) };
        let keys = Arc::new(Keys::new(sliding)?);
        let sliding = Arc::clone(sliding);
        Ok(Some(Slide { sliding, size, every: slide, keys, panes: VecDeque::new(), turn: None }))
    }

    /// Bytes of memory, about.
    fn bytes(&self) -> usize {
        let turn = self.turn.iter().flat_map(|turn| turn.suffixes.iter().map(|(_, block)| block).chain([&turn.prefix]));
        let blocks = self.panes.iter().map(|(_, block)| block).chain(turn);
        blocks.map(Block::bytes).sum::<usize>() + self.keys.bytes
    }

    /// Partial rows with their groups numbered.
    fn block(&mut self, batch: &RecordBatch) -> DfResult<Block> {
        let keys: Vec<_> = self.sliding.keys.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        let groups = Arc::make_mut(&mut self.keys).number(&keys, batch.num_rows())?.into();
        Ok(Block { groups, states: batch.columns()[self.sliding.groups..].to_vec() })
    }

    /// Adds panes, all later than those before: the rows of some batches in any order, all with a time.
    fn push(&mut self, batches: &[RecordBatch]) -> DfResult<()> {
        let (mut times, mut blocks) = (Vec::new(), Vec::new());
        for batch in batches {
            let column = batch.column(self.sliding.panes[0]).as_primitive::<TimestampMicrosecondType>();
            times.extend_from_slice(column.values());
            blocks.push(self.block(batch)?);
        }
        let groups: Vec<usize> = blocks.iter().flat_map(|block| block.groups.iter().copied()).collect();
        let mut order: Vec<u64> = (0..times.len() as u64).collect();
        order.sort_by_key(|&row| times[row as usize]);
        let rows = UInt64Array::from_iter_values(order.iter().copied());
        let column = |i: usize| -> DfResult<ArrayRef> {
            let parts: Vec<&dyn Array> = blocks.iter().map(|block| block.states[i].as_ref()).collect();
            Ok(take(&concat(&parts)?, &rows, None)?)
        };
        let columns = blocks.first().map_or(0, |block| block.states.len());
        let states = (0..columns).map(column).collect::<DfResult<Vec<_>>>()?;
        let mut first = 0;
        while first < order.len() {
            let pane = times[order[first] as usize];
            let count = order[first..].partition_point(|&row| times[row as usize] == pane);
            let groups = order[first..first + count].iter().map(|&row| groups[row as usize]).collect();
            let states = states.iter().map(|column| column.slice(first, count)).collect();
            self.panes.push_back((pane, Block { groups, states }));
            first += count;
        }
        Ok(())
    }

    /// The first pane that starts at `from` or later.
    fn pane_from(&self, from: Micros) -> Option<Micros> {
        self.panes.get(self.panes.partition_point(|(pane, _)| *pane < from)).map(|(pane, _)| *pane)
    }

    /// The result of the window that starts at `id`, unless it has no rows. All its panes were pushed. Windows come in
    /// order of time.
    fn window(&mut self, id: Micros, late: &Late, windows: Window) -> DfResult<Option<RecordBatch>> {
        let groups = self.keys.numbers.len();
        let end = id.saturating_add(self.size);
        self.panes.drain(..self.panes.partition_point(|(pane, _)| *pane < id));
        if let Some(turn) = &mut self.turn {
            turn.suffixes.drain(..turn.suffixes.partition_point(|(window, _)| *window < id));
        }
        let turn = match self.turn.take().filter(|turn| turn.suffixes.front().is_some_and(|(window, _)| *window == id))
        {
            Some(mut turn) => {
                let from = self.panes.partition_point(|(pane, _)| *pane < turn.upto);
                let to = self.panes.partition_point(|(pane, _)| *pane < end);
                let from = from + usize::from(on(Mutation::SlideForgetsAPane));
                if from < to {
                    let more = self.panes.range(from..to).map(|(_, block)| block);
                    turn.prefix = self.sliding.add([&turn.prefix].into_iter().chain(more), groups)?;
                }
                turn.upto = turn.upto.max(end);
                turn
            }
            None => Turn { suffixes: self.suffixes(id, groups)?, prefix: Block::default(), upto: end },
        };
        let late = self.late_rows(id, late, windows)?;
        let suffix = turn.suffixes.front().map(|(_, block)| block);
        let blocks = suffix.into_iter().chain([&turn.prefix]).chain(&late);
        let values = self.sliding.values(blocks, groups)?;
        self.turn = Some(turn);
        values.map(|values| self.output(Some(id), &values)).transpose()
    }

    /// What the windows from `id` on have of the panes of the window `id`.
    fn suffixes(&self, id: Micros, groups: usize) -> DfResult<VecDeque<(Micros, Block)>> {
        let end = id.saturating_add(self.size);
        let mut right = self.panes.partition_point(|(pane, _)| *pane < end);
        let (rows, bytes) =
            self.panes.range(..right).fold((0, 0), |(rows, bytes), (_, b)| (rows + b.groups.len(), bytes + b.bytes()));
        let one = (bytes / rows.max(1)).saturating_mul(groups).max(1);
        let windows = (self.size - 1) / self.every;
        let count = windows.min((SUFFIX_BYTES / one).min(MOST_SUFFIXES) as Micros);
        let mut suffixes = VecDeque::new();
        let mut suffix = Block::default();
        for i in (0..=count).rev() {
            let window = id.saturating_add(i.saturating_mul(self.every));
            let left = self.panes.partition_point(|(pane, _)| *pane < window).min(right);
            if left < right {
                let panes = self.panes.range(left..right).map(|(_, block)| block);
                suffix = self.sliding.add([&suffix].into_iter().chain(panes), groups)?;
                right = left;
            }
            suffixes.push_front((window, suffix.clone()));
        }
        Ok(suffixes)
    }

    /// The late rows that a window takes.
    fn late_rows(&self, id: Micros, late: &Late, windows: Window) -> DfResult<Option<Block>> {
        let Some((closed, (_, end))) = self.sliding.closed.zip(windows.bounds(id)) else { return Ok(None) };
        let mut rows = Vec::new();
        let mut counts = Vec::new();
        for (row, (&pane, &closed_to)) in late.panes.iter().zip(&late.closed_to).enumerate() {
            let was_closed = end <= closed_to;
            if id <= pane && pane < end && !(closed.count.is_none() && was_closed) {
                rows.push(row as u64);
                counts.push(was_closed);
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let mut block = late.block.rows(&rows)?;
        if let Some(count) = closed.count {
            let column = &mut block.states[count - self.sliding.groups];
            // Not late here: counted as 0.
            *column = arrow::compute::kernels::zip::zip(
                &BooleanArray::from(counts),
                &Arc::clone(column),
                &arrow::array::Int64Array::new_scalar(0),
            )?;
        }
        Ok(Some(block))
    }

    /// Rows without a time: in no window.
    fn timeless(&mut self, rows: &RecordBatch) -> DfResult<Option<RecordBatch>> {
        let block = self.block(rows)?;
        let groups = self.keys.numbers.len();
        let values = self.sliding.values([&block], groups)?;
        values.map(|values| self.output(None, &values)).transpose()
    }

    /// Result rows of a window.
    fn output(&mut self, id: Option<Micros>, values: &Block) -> DfResult<RecordBatch> {
        let sliding = Arc::clone(&self.sliding);
        let rows = values.groups.len();
        let numbers = UInt64Array::from_iter_values(values.groups.iter().map(|&group| group as u64));
        let keys: Vec<ArrayRef> = match &*sliding.keys {
            [] => Vec::new(),
            _ => Arc::make_mut(&mut self.keys).values()?.to_vec(),
        };
        let column = |i: usize| -> DfResult<ArrayRef> {
            let data_type = sliding.output.field(i).data_type();
            if let Some(place) = sliding.keys.iter().position(|&key| key == i) {
                return Ok(take(&keys[place], &numbers, None)?);
            }
            match (id, data_type) {
                (Some(id), DataType::Timestamp(..)) if sliding.panes.contains(&i) => {
                    let starts = TimestampMicrosecondArray::from_value(id, rows).with_timezone(UTC);
                    Ok(Arc::new(starts))
                }
                _ => Ok(new_null_array(data_type, rows)),
            }
        };
        let mut columns = (0..sliding.groups).map(column).collect::<DfResult<Vec<_>>>()?;
        columns.extend(values.states.iter().cloned());
        Ok(RecordBatch::try_new(Arc::clone(&sliding.output), columns)?)
    }
}
