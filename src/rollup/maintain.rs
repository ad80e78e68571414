//! The operators of one rollup, all of them DataFusion's own:
//!
//! ```text
//!     rows of a micro-batch ──► map stage ──► Aggregate(Partial) ──► run of partial states      [fold]
//!     several runs          ──► Aggregate(PartialReduce)         ──► one run                    [merge]
//!     runs a reader needs   ──► spread panes ──► Aggregate(Final) ──► the aggregate's result     [finish]
//! ```
//!
//! Pieces of sessions are chained before they are merged and before they are finished (`session.rs`).
//!
//! The physical plan is made once; for each micro-batch only its leaf is exchanged.
//!
//! Merging and finishing go through large states slice by slice (`slice.rs`), so what they need in memory does not grow
//! with the state. Folding and merging are not part of a query and take nothing from the queries' memory pool: their
//! input is one micro-batch or one slice.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, collect};

use super::join::{self, JoinStage};
use super::lookup::{self, LookupExec, Lookups, Table};
use super::pane::{Merge, Sizes, Step};
use super::plan::{Definition, LateColumns, provider_of};
use super::point;
use super::read::StatesExec;
use super::reference::ReferenceTable;
use super::run::{ALL_HASHES, Builder, Level, Panes, Run, RunStore, slim};
use super::session::{ChainExec, Columns};
use super::slice::{Group, Order, Part, Slices, Values, Within, sliced_bytes};
use super::slide::{Cache, Kept, SlideExec, Sliding};
use super::spread::{Closed, SpreadExec, Target};
use super::timeliness::Timeliness;
use super::window::Window;
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, on};
use crate::opaque::{Scanned, scan_at_once};
use crate::time::Micros;

/// Optimizer rules that a maintained aggregate must not see: the first would turn `count(DISTINCT x)` into two
/// aggregates, of which only the lower could be kept; the next two would replace the stream by nothing when a filter is
/// always false; the last would look rows of a table up in the stream where only they are shown.
const UNWANTED_RULES: &[&str] =
    &["single_distinct_aggregation_to_group_by", "eliminate_filter", "propagate_empty_relation", "eliminate_join"];

/// Folding and merging are bounded by what they are given, not by a pool.
static RUNTIME: LazyLock<Arc<RuntimeEnv>> = LazyLock::new(Arc::default);

/// More slices than this only cost time: the pool bounds what one of them takes.
const MOST_SLICES: usize = 4096;

/// A slice that cannot be cut further (the state of one group) may take this part of its rollup's limit: merging it
/// takes a few times as much.
const GROUP_PART: usize = 2;

/// Partial rows that a reader of closed windows may take at once and still be one whose slide is kept.
const MOST_FOLLOWED: usize = 1 << 20;

/// See the file header.
pub struct Maintainer {
    /// Columns of the stream that the map stage reads, in order.
    leaf: SchemaRef,
    /// `Aggregate(Partial)` down to the leaf.
    partial: Arc<AggregateExec>,
    /// `Aggregate(Final)`, below whatever projection the optimizer put above it.
    last: Arc<AggregateExec>,
    above: Vec<Arc<dyn ExecutionPlan>>,
    shape: Shape,
    /// What came late, where rows are in several windows.
    closed: Option<Closed>,
    /// How hopping windows are read.
    sliding: Option<Arc<Sliding>>,
    /// Of windows that do not change once they have closed.
    slides: Option<Arc<Cache>>,
    /// Joins with reference tables in the map stage.
    lookups: Lookups,
    /// The join of two streams in the map stage.
    join: Option<JoinStage>,
    order: Arc<Order>,
    sizes: Sizes,
    context: Arc<TaskContext>,
}

/// Where windows are in the partial states.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Unwindowed,
    /// The columns that hold the pane's start; the first is never NULL but for rows without a time.
    Panes(Vec<usize>),
    Sessions(Columns),
}

impl Shape {
    /// The column by which runs are ordered in time: of sessions their ends, because of those only the last may change.
    fn time(&self) -> Option<usize> {
        match self {
            Shape::Unwindowed => None,
            Shape::Panes(columns) => columns.first().copied(),
            Shape::Sessions(columns) => Some(columns.end),
        }
    }

    /// The column with the times that no new row in order lies before.
    fn front(&self) -> Option<usize> {
        match self {
            Shape::Unwindowed => None,
            Shape::Panes(columns) => columns.first().copied(),
            Shape::Sessions(columns) => Some(columns.start),
        }
    }
}

impl Maintainer {
    /// Plans the operators. Refuses aggregates that DataFusion does not split into partial and final.
    pub async fn new(definition: &Definition, state: &SessionState, sizes: Sizes) -> Result<Maintainer> {
        let state = planning_state(state);
        let logical = leaf_for_stream(&definition.aggregate)?;
        let plan = match definition.partner {
            Some(_) => join::plan(&state, &logical).await?,
            None => lookup::plan(&state, &logical).await?,
        };

        // Projections (kept in `above`), Final, perhaps an exchange, Partial.
        let mut above = Vec::new();
        let mut node = plan;
        let last = loop {
            if node.downcast_ref::<AggregateExec>().is_some() {
                break node;
            }
            let Some(child) = node.children().first().map(|c| Arc::clone(c)) else { return Err(not_splittable()) };
            if node.downcast_ref::<ProjectionExec>().is_none() {
                return Err(not_splittable());
            }
            above.push(std::mem::replace(&mut node, child));
        };
        let mut below = last.children().first().map(|c| Arc::clone(c));
        let partial = loop {
            match below {
                Some(node) if node.downcast_ref::<AggregateExec>().is_some() => break node,
                Some(node) => below = node.children().first().map(|c| Arc::clone(c)),
                None => return Err(not_splittable()),
            }
        };
        let last = as_aggregate(last)?;
        let partial = as_aggregate(partial)?;
        if *partial.mode() != AggregateMode::Partial
            || !matches!(last.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned)
        {
            return Err(not_splittable());
        }
        let leaf = leaf_of(&(Arc::clone(&partial) as Arc<dyn ExecutionPlan>));
        if leaf.downcast_ref::<DataSourceExec>().is_none() {
            return Err(not_splittable());
        }
        let leaf = leaf.schema();
        let shape = shape(definition, &above)?;
        let closed = match definition.late {
            Some(LateColumns { closed_to: Some(column), count }) => {
                let column = locate(&above, column).ok_or_else(not_splittable)?;
                // The hidden count is the last aggregate, and its state one column.
                let count = count.map(|_| partial.schema().fields().len() - 1);
                Some(Closed { column, count })
            }
            _ => None,
        };
        let lookups = Lookups::of(&(Arc::clone(&partial) as Arc<dyn ExecutionPlan>), &state);
        lookups.prepare(None).await?;
        let spreads = definition.pane.is_some_and(|pane| pane.window.spreads());
        let groups = last.group_expr().num_group_exprs();
        let (columns, then) = slice_by(groups, &shape, spreads, closed);
        let order = Arc::new(Order {
            schema: partial.schema(),
            columns,
            then,
            pane: shape.time(),
            front: shape.front(),
            block_rows: sizes.block_rows,
            block_bytes: sizes.block_bytes,
        });
        let sliding = match &shape {
            // Grouping sets may have a NULL for a window.
            Shape::Panes(panes) if spreads && partial.group_expr().is_single() => {
                Sliding::new(&last, partial.schema(), panes.clone(), closed).map(Arc::new)
            }
            _ => None,
        };
        let slides = (definition.timeliness == Timeliness::OnTime).then(Arc::default);
        let context = state.task_ctx();
        let join = JoinStage::of(&partial, &context).filter(|_| definition.partner.is_some());
        if definition.partner.is_some() && join.is_none() {
            return Err(join::not_joinable());
        }
        Ok(Maintainer {
            leaf,
            partial,
            last,
            above,
            shape,
            closed,
            sliding,
            slides,
            lookups,
            join,
            order,
            sizes,
            context,
        })
    }

    /// The join of two streams in its map stage, if it has one.
    pub fn join(&self) -> Option<&JoinStage> {
        self.join.as_ref()
    }

    pub fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// Columns of the stream that are read.
    pub fn columns(&self) -> &SchemaRef {
        &self.leaf
    }

    /// The partial states of `rows` (a micro-batch of the stream, at least with the columns read). `None` when the
    /// map stage filtered all of them away. `tables` are those of the lookups for these rows.
    pub fn fold(&self, rows: &RecordBatch, tables: &[Arc<Table>]) -> Result<Option<Run>> {
        let mut batch = crate::batch::fit(rows, &self.leaf)?;
        if on(Mutation::FoldDropsLastRow) {
            batch = batch.slice(0, batch.num_rows().saturating_sub(1));
        }
        let source = MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&self.leaf), None)?;
        let plan = with_leaf(&(Arc::clone(&self.partial) as _), &(source as Arc<dyn ExecutionPlan>), tables)?;
        self.states(plan)
    }

    /// The partial states that a map stage gives, `Aggregate(Partial)` at its top.
    pub fn states(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Option<Run>> {
        let batches = run(plan, &self.context)?.into_iter().map(slim).collect::<Result<Vec<_>>>()?;
        let run = Run::new(batches.clone(), self.panes_of(&batches)?);
        Ok((run.rows > 0).then_some(run))
    }

    /// To be called when the state is given up: readers who follow it do not go on from what they kept.
    pub fn forget(&self) {
        if let Some(slides) = &self.slides {
            slides.clear();
        }
    }

    /// The order of its rows in large runs.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Merges runs. With a `store` the result is written there, else it is in memory. A rollup may take `limit` bytes of
    /// memory: a single group that is too large for this is an error.
    pub fn merge(&self, merge: &Merge, store: Option<&Arc<dyn RunStore>>, limit: usize) -> Result<Vec<Run>> {
        let mut merged = Vec::new();
        for step in &merge.steps {
            merged.extend(self.merge_step(step, store, limit)?);
        }
        Ok(merged)
    }

    fn merge_step(&self, step: &Step, store: Option<&Arc<dyn RunStore>>, limit: usize) -> Result<Vec<Run>> {
        let (rows, bytes) = total(&step.runs);
        let count = self.slices(rows, bytes, limit);
        let part = Part::whole(step.runs.clone(), step.within, count, &self.order)?;
        let mut slices = Slices::new(part);
        let levels: Vec<Level> = step.cuts.iter().map(|(_, level)| *level).chain([step.rest]).collect();
        // What stays small and in memory needs no order.
        let mut ordered = store.is_some() || count > 1;
        let mut outputs: Vec<Builder> = Vec::new();
        while let Some(slice) = slices.next(&self.order)? {
            if slice.batches.is_empty() {
                continue;
            }
            let bytes = if count == 1 { bytes } else { sliced_bytes(&slice.batches) };
            if bytes > limit / GROUP_PART {
                return Err(large_group(bytes, limit));
            }
            let mut states = self.reduce(slice.batches)?;
            if let Some(gone) = step.gone {
                let kept = Within { first: gone.saturating_add(1), last: i64::MAX, timeless: true };
                states = states.into_iter().map(|batch| kept.filter(&self.order, batch)).collect::<Result<_>>()?;
            }
            let rows: usize = states.iter().map(RecordBatch::num_rows).sum();
            let small = !ordered && rows <= self.sizes.seal;
            ordered |= !small;
            if outputs.is_empty() {
                outputs = levels.iter().map(|level| Builder::new(*level, ordered, store.cloned())).collect();
            }
            if !small {
                for (batch, hashes) in self.order.arrange(&states)? {
                    self.file(batch, hashes, &step.cuts, &mut outputs)?;
                }
            } else if step.rest == Level::Open {
                // It has shrunk so much that it is not worth cutting.
                for batch in states {
                    let panes = self.order.panes(&batch)?;
                    outputs[step.cuts.len()].push(batch, ALL_HASHES, panes)?;
                }
            } else {
                for batch in states {
                    self.file(batch, ALL_HASHES, &step.cuts, &mut outputs)?;
                }
            }
        }
        outputs.into_iter().filter_map(|output| output.finish().transpose()).collect()
    }

    /// In how many slices to merge or finish this much.
    fn slices(&self, rows: usize, bytes: usize, limit: usize) -> usize {
        if self.order.columns.is_empty() {
            return 1; // one group
        }
        let slice_bytes = self.sizes.slice_bytes.min((limit / 8).max(64 << 10));
        Sizes { slice_bytes, ..self.sizes }.slices(rows, bytes)
    }

    /// Merges the states of each group.
    fn reduce(&self, mut batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        batches.truncate(batches.len() - usize::from(on(Mutation::MergeForgetsARun)));
        if let Shape::Sessions(columns) = &self.shape {
            batches = columns.chain(&batches, None)?;
        }
        let schema = self.partial.schema();
        let source = MemorySourceConfig::try_new_exec(&[batches], Arc::clone(&schema), None)?;
        let reduce = AggregateExec::try_new(
            AggregateMode::PartialReduce,
            self.last.group_expr().clone(),
            self.last.aggr_expr().to_vec(),
            vec![None; self.last.aggr_expr().len()],
            source,
            self.last.input_schema(),
        )?;
        let merged = run(Arc::new(reduce), &self.context)?;
        // The reduced batches may name or mark columns differently; the types are the partial schema's.
        let merged = merged.into_iter().map(|b| RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec()));
        Ok(merged.collect::<Result<Vec<_>, _>>()?)
    }

    /// Puts rows into the output that their pane belongs to.
    fn file(
        &self,
        batch: RecordBatch,
        hashes: (u64, u64),
        cuts: &[(i64, Level)],
        outputs: &mut [Builder],
    ) -> Result<()> {
        let panes = self.order.panes(&batch)?;
        let output_of = |pane: i64| cuts.partition_point(|(last, _)| *last < pane);
        let rest = cuts.len();
        let (first, last) = match panes.range() {
            Some((first, _)) if panes.timeless => (output_of(first), rest),
            Some((first, last)) => (output_of(first), output_of(last)),
            None => (rest, rest),
        };
        let (Some(pane), true) = (self.order.pane, first < last) else {
            return outputs[first].push(batch, hashes, panes);
        };
        let times = self.order.pane_values(&batch, pane)?;
        let mut places: Vec<usize> = times.iter().map(|time| time.map_or(rest, output_of)).collect();
        if on(Mutation::SealLosesAGroup) {
            places[0] = usize::MAX;
        }
        for (place, output) in outputs.iter_mut().enumerate().take(last + 1).skip(first) {
            let mine: BooleanArray = places.iter().map(|&p| Some(p == place)).collect();
            let rows = filter_record_batch(&batch, &mine)?;
            let panes = self.order.panes(&rows)?;
            output.push(rows, hashes, panes)?;
        }
        Ok(())
    }

    /// The result's columns that all partial rows of a result's row have the same values in as the row has, and in which what
    /// is equal is the same; without those of windows. None where the result's columns are not the state's.
    pub fn keys(&self) -> Vec<usize> {
        if !self.above.is_empty() || !self.last.group_expr().is_single() {
            return Vec::new();
        }
        let closed = self.closed.map(|closed| closed.column);
        let is_key = |column: &usize| match &self.shape {
            Shape::Unwindowed => true,
            Shape::Panes(panes) => !panes.contains(column),
            // Rows of all other groups decide about what a session is merged with.
            Shape::Sessions(columns) => columns.keys.contains(column),
        };
        let is_plain = |column: &usize| {
            let data_type = self.order.schema.field(*column).data_type();
            !data_type.is_floating() && !data_type.is_nested()
        };
        let groups = 0..self.groups();
        groups.filter(|column| Some(*column) != closed && is_key(column) && is_plain(column)).collect()
    }

    /// Number of group columns.
    pub fn groups(&self) -> usize {
        self.last.group_expr().num_group_exprs()
    }

    /// The only groups whose partial rows are needed for a reader of this window who wants rows of the result with certain
    /// `values`. `None` if it needs more, or where the result's columns are not the groups' as they are in the state.
    pub fn wanted_groups(&self, window: Option<Window>, values: &Values<'_>) -> Result<Option<Vec<Group>>> {
        let of_a_row = is_of_a_row(window);
        let spread = |column: &usize| matches!(&self.shape, Shape::Panes(panes) if panes.contains(column));
        if !self.above.is_empty() || (!of_a_row && self.order.columns.iter().any(spread)) {
            return Ok(None);
        }
        self.order.groups(values, of_a_row)
    }

    /// Whether single rows of the result can be read by [`Maintainer::point`], by a reader of this window: the values of all
    /// group columns then say which row it is.
    pub fn has_points(&self, window: Option<Window>) -> bool {
        let told = self.order.columns.len() + self.order.then.len() == self.groups();
        told && is_of_a_row(window) && self.above.is_empty() && point::can_finish(&self.last)
    }

    /// The row of the result with these values in all group columns, or none if there is no such group. `None` where it takes
    /// more than a moment: then a plan made by [`Maintainer::finish`] gives it. For those that have points.
    pub fn point(&self, runs: &[Arc<Run>], values: &[ScalarValue]) -> Result<Option<RecordBatch>> {
        let value = |column: usize| values.get(column).map(|value| vec![value.clone()]);
        let groups = self.order.groups(&value, true)?;
        let Some([group]) = groups.as_deref() else { return Ok(None) };
        if group.width() < self.groups() {
            return Ok(None);
        }
        let mut partial = Vec::new();
        for run in runs.iter().filter(|run| group.may_be_in(run)) {
            let Some(rows) = point::rows_of(run, &self.order, group, false)? else { return Ok(None) };
            partial.extend(rows);
        }
        match partial.is_empty() {
            true => Ok(Some(RecordBatch::new_empty(self.last.schema()))),
            false => point::finish(&self.last, &partial).map(Some),
        }
    }

    /// The plan that computes the aggregate's result from `runs`, for a reader who needs only windows with ids in a closed
    /// range (in microseconds; more may come out), and `only` these groups. `window` is the reader's: hops of several widths may
    /// share panes.
    pub fn finish(
        &self,
        runs: &[Arc<Run>],
        window: Option<Window>,
        ids: Option<(Micros, Micros)>,
        only: Only,
        target_partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if ids.is_some_and(|(first, last)| first > last) {
            return self.above(Arc::new(EmptyExec::new(self.last.schema())));
        }
        let sliding = self.sliding.as_ref().filter(|_| matches!(window, Some(Window::Hop { .. })));
        let groups = only.groups.filter(|groups| !self.are_large(groups, runs));
        if groups.is_none()
            && let Some(((sliding, window), ids)) = sliding.zip(window).zip(ids)
            && let Some(plan) = self.follow(runs, sliding, window, ids)?
        {
            return self.above(plan);
        }
        let wanted = self.wanted(window, ids);
        let runs: Vec<_> = runs.iter().filter(|r| wanted.is_none_or(|w| w.wants(&r.panes))).cloned().collect();
        let (rows, bytes) = total(&runs);
        let by_slice = groups.is_some() || self.read_by_slice(&runs, window);
        let factor = window.filter(|_| sliding.is_none()).map_or(1, |w| w.factor());
        let large = groups.is_none() && target_partitions > 1 && rows.saturating_mul(factor) >= self.sizes.parallel;
        // Partial rows of a group may only be apart where they are merged.
        let apart = by_slice || (sliding.is_none() && !self.last.group_expr().is_true_no_grouping());
        let parallel = large && apart;
        let partitions = if parallel { target_partitions } else { 1 };
        let order = Arc::clone(&self.order);

        let (shape, sliding) = (self.shape.clone(), sliding.cloned());
        let finishing = Finishing { shape, closed: self.closed, sliding, window, ids };
        let plan: Arc<dyn ExecutionPlan> = if by_slice {
            let parts = if let Some(groups) = groups {
                groups.into_iter().map(|group| self.part_of(group, &runs, wanted)).collect()
            } else if finishing.across_panes() {
                let count = self.sizes.slices(rows.saturating_mul(factor), bytes.saturating_mul(factor));
                vec![Part::whole(runs, wanted, count.min(MOST_SLICES), &order)?]
            } else {
                self.parts(runs, wanted)?
            };
            let last = Arc::clone(&self.last);
            let finish = move |input| finishing.result(&last, AggregateMode::Final, input);
            let states = StatesExec::new(parts, partitions, order, Some((Arc::new(finish), self.last.schema())))?;
            Arc::new(states.with_condition(only.condition))
        } else {
            let part = |run: Arc<Run>| {
                let count = if run.ordered { self.sizes.slices(run.rows, run.size) } else { 1 };
                Part::whole(vec![run], wanted, count, &self.order)
            };
            let parts = runs.into_iter().map(part).collect::<Result<_>>()?;
            let input = StatesExec::new(parts, partitions, order, None)?;
            let input = Arc::new(input.with_condition(only.condition));
            let mode = if parallel { AggregateMode::FinalPartitioned } else { AggregateMode::Final };
            finishing.result(&self.last, mode, input)?
        };
        self.above(plan)
    }

    /// The plan for a reader of closed windows who is likely to come back for those that follow: what was read for them
    /// is kept. `None` when the reader asks for more than that, or more than should be kept.
    fn follow(
        &self,
        runs: &[Arc<Run>],
        sliding: &Arc<Sliding>,
        window: Window,
        (low, high): (Micros, Micros),
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(cache), Window::Hop { slide, size, .. }) = (&self.slides, window) else { return Ok(None) };
        if low < Micros::MIN / 2 || high > Micros::MAX / 2 {
            return Ok(None);
        }
        let last_until = |id: Micros| window.ids(id, id + 1).last;
        let (first, last) = (last_until(low - 1) + slide, last_until(high));
        if first > last {
            return Ok(Some(Arc::new(EmptyExec::new(self.last.schema()))));
        }
        let panes = |first: Micros, last: Micros| Within { first, last, timeless: false };
        let all = panes(first, last + size - 1);
        let mine: Vec<_> = runs.iter().filter(|run| all.wants(&run.panes)).collect();
        if mine.iter().any(|run| !run.in_memory()) || mine.iter().map(|run| run.rows).sum::<usize>() > MOST_FOLLOWED {
            return Ok(None);
        }
        let kept = cache.take(window, first);
        let from = kept.as_ref().map_or(first, Kept::upto);
        let (mut new, mut late) = (Vec::new(), Vec::new());
        for run in mine {
            for block in 0..run.blocks().len() {
                let block = run.block(block)?;
                if let Some(closed) = self.closed.filter(|closed| from > first && has_values(&block, closed.column)) {
                    let before = panes(first, from - 1).filter(&self.order, block.clone())?;
                    late.push(filter_record_batch(&before, &is_not_null(before.column(closed.column))?)?);
                }
                new.push(panes(from, last + size - 1).filter(&self.order, block)?);
            }
        }
        let input = MemorySourceConfig::try_new_exec(&[new], Arc::clone(&self.order.schema), None)?;
        let (shape, closed, ids) = (self.shape.clone(), self.closed, Some((first, last)));
        let sparse = Finishing { shape, closed, sliding: None, window: Some(window), ids };
        let aggregate = Arc::clone(&self.last);
        let sparse = Arc::new(move |input| sparse.result(&aggregate, AggregateMode::Final, input));
        let slide = SlideExec::new(input, Arc::clone(sliding), window, ids, sparse);
        Ok(Some(Arc::new(slide.going_on(kept.map(|kept| (kept, late)), cache))))
    }

    /// A plan below what the optimizer put above the aggregate.
    fn above(&self, mut plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        for node in self.above.iter().rev() {
            plan = Arc::clone(node)
                .replace_children(vec![plan], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
        }
        Ok(plan)
    }

    /// Whether to finish a state slice by slice: not when it is small, nor when the rows of one window may lie in
    /// several slices, nor when there are so many files that a block of each takes too much memory.
    fn read_by_slice(&self, runs: &[Arc<Run>], window: Option<Window>) -> bool {
        let (rows, bytes) = total(runs);
        let files = runs.iter().filter(|r| !r.in_memory()).count();
        let small = self.sizes.slices(rows, bytes) == 1 && files == 0;
        let across = window.is_some_and(|w| w.spreads()) || matches!(self.shape, Shape::Sessions(_));
        let by_window = match self.shape.time().filter(|_| across) {
            Some(column) => {
                let apart = self.order.columns.iter().chain(&self.order.then).any(|other| *other == column);
                !apart && files <= 4 * self.sizes.base_runs
            }
            None => true,
        };
        !self.order.columns.is_empty() && !small && by_window
    }

    /// The panes of the windows with ids in a range.
    fn wanted(&self, window: Option<Window>, ids: Option<(Micros, Micros)>) -> Option<Within> {
        let column = self.shape.time()?;
        let (first, last) = window.zip(ids).map(|(window, ids)| window.panes_of(ids))?;
        let (first, last) = raw_range(self.order.schema.field(column).data_type(), first, last)?;
        Some(Within { first, last, timeless: true })
    }

    /// Cuts a large state into parts that have no group in common: by time where there are base runs, and each in as
    /// many slices as it needs.
    fn parts(&self, runs: Vec<Arc<Run>>, wanted: Option<Within>) -> Result<Vec<Part>> {
        let (base, others): (Vec<_>, Vec<_>) = runs.into_iter().partition(|r| r.level == Level::Base);
        let count = |runs: &[Arc<Run>]| {
            let (rows, bytes) = total(runs);
            self.sizes.slices(rows, bytes)
        };
        // What lies across base runs is read once per part. Much of it on disk asks for few large parts.
        let across: usize = others.iter().filter(|r| !r.in_memory()).map(|r| r.rows).sum();
        let enough = |runs: &[Arc<Run>]| {
            runs.len() >= self.sizes.base_runs || (across <= self.sizes.slice_rows && count(runs) > 1)
        };
        let all = wanted.unwrap_or(Within { first: i64::MIN, last: i64::MAX, timeless: true });
        let mut parts = Vec::new();
        let mut add = |mut mine: Vec<Arc<Run>>, first: i64, last: i64, timeless: bool| {
            let within = Within { first: first.max(all.first), last: last.min(all.last), timeless };
            mine.extend(others.iter().filter(|r| within.wants(&r.panes)).cloned());
            let count = count(&mine);
            parts.push(Part::whole(mine, Some(within), count, &self.order)?);
            Ok::<_, Error>(())
        };
        let (mut first, mut group) = (i64::MIN, Vec::new());
        let end = base.len();
        for (i, run) in base.into_iter().enumerate() {
            let last = run.panes.last;
            group.push(run);
            if i + 1 < end && enough(&group) {
                add(std::mem::take(&mut group), first, last, false)?;
                first = last.saturating_add(1);
            }
        }
        // The last part has also what has no pane.
        add(group, first, i64::MAX, true)?;
        Ok(parts)
    }

    /// Whether groups have so many rows that they are better read like a whole state, slice by slice.
    fn are_large(&self, groups: &[Group], runs: &[Arc<Run>]) -> bool {
        let rows_in = |group: &Group| runs.iter().map(|run| group.rows_in(run)).sum::<usize>();
        groups.iter().map(rows_in).sum::<usize>() > self.sizes.slice_rows
    }

    /// The part of a state that has the rows of one group.
    fn part_of(&self, group: Group, runs: &[Arc<Run>], wanted: Option<Within>) -> Part {
        let runs = runs.iter().filter(|run| group.may_be_in(run)).cloned().collect();
        Part::group(runs, wanted, group)
    }

    /// The panes of partial rows.
    fn panes_of(&self, batches: &[RecordBatch]) -> Result<Panes> {
        batches.iter().try_fold(Panes::NONE, |all, batch| Ok(all.with(self.order.panes(batch)?)))
    }
}

/// A range of microseconds in the unit of a column, perhaps a little wider.
fn raw_range(data_type: &DataType, lo: Micros, hi: Micros) -> Option<(i64, i64)> {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => Some((lo.div_euclid(1_000_000), hi.div_euclid(1_000_000))),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some((lo.div_euclid(1000), hi.div_euclid(1000))),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some((lo, hi)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Some((lo.saturating_mul(1000), hi.saturating_mul(1000).saturating_add(999)))
        }
        _ => None,
    }
}

fn total(runs: &[Arc<Run>]) -> (usize, usize) {
    runs.iter().fold((0, 0), |(rows, bytes), run| (rows + run.rows, bytes + run.size))
}

/// Whether a row of the result is made of partial rows with its own values in all group columns, and of no others.
fn is_of_a_row(window: Option<Window>) -> bool {
    window.is_none_or(|window| window.of_a_row())
}

/// What a reader needs of a state: more may come out. By default all of it.
#[derive(Default)]
pub struct Only {
    /// Only these groups: see [`Maintainer::wanted_groups`].
    pub groups: Option<Vec<Group>>,
    /// Only partial rows for which this holds: see [`Maintainer::keys`].
    pub condition: Option<Arc<dyn PhysicalExpr>>,
}

/// How results are computed from partial rows.
#[derive(Clone)]
struct Finishing {
    shape: Shape,
    closed: Option<Closed>,
    sliding: Option<Arc<Sliding>>,
    window: Option<Window>,
    ids: Option<(Micros, Micros)>,
}

impl Finishing {
    /// Whether a row of the result may need partial rows of several panes.
    fn across_panes(&self) -> bool {
        matches!(self.shape, Shape::Sessions(_)) || self.window.is_some_and(|window| window.spreads())
    }

    /// The operators above `input`, the partial rows.
    fn result(
        &self,
        last: &AggregateExec,
        mode: AggregateMode,
        mut input: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some((sliding, window)) = self.sliding.as_ref().zip(self.window) {
            let sparse = Finishing { sliding: None, ..self.clone() };
            let last = last.clone();
            let sparse = Arc::new(move |input| sparse.result(&last, AggregateMode::Final, input));
            return Ok(Arc::new(SlideExec::new(input, Arc::clone(sliding), window, self.ids, sparse)));
        }
        match (&self.shape, self.window) {
            (Shape::Panes(columns), Some(window)) if window.spreads() => {
                let schema = input.schema();
                let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(columns[0]).name(), columns[0]));
                let spread = SpreadExec::new(input, time, window, Target::Replace(columns.clone()), self.ids, schema);
                input = Arc::new(spread.with_closed(self.closed));
            }
            (Shape::Sessions(columns), _) => input = Arc::new(ChainExec::of_pieces(input, columns.clone(), self.ids)),
            (Shape::Unwindowed | Shape::Panes(_), _) => {}
        }
        let functions = last.aggr_expr().to_vec();
        let filters = vec![None; functions.len()];
        let group_by: PhysicalGroupBy = last.group_expr().clone();
        let result = AggregateExec::try_new(mode, group_by, functions, filters, input, last.input_schema())?;
        Ok(Arc::new(result))
    }
}

fn has_values(batch: &RecordBatch, column: usize) -> bool {
    batch.column(column).null_count() < batch.num_rows()
}

fn large_group(bytes: usize, limit: usize) -> Error {
    let message =
        format!("the state of one group of the view takes {bytes} bytes, too much for its memory_limit ({limit})");
    Error::new(Kind::ResourceLimit, message).with_hint(
        "Use an aggregate with a small state, such as approx_distinct or approx_percentile_cont, or a larger memory_limit.",
    )
}

/// One core, no rule that would fuse partial and final again or split a distinct count in two.
fn planning_state(state: &SessionState) -> SessionState {
    let mut config = state.config().clone().with_target_partitions(1);
    // A fold sees one micro-batch at a time, so a probe for "too many groups to be worth it" has nothing to learn.
    config.options_mut().execution.skip_partial_aggregation_probe_ratio_threshold = 1.0;
    let logical =
        state.optimizers().iter().filter(|rule| !UNWANTED_RULES.contains(&rule.name())).cloned().collect::<Vec<_>>();
    let physical: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(EnsureRequirements::new())];
    SessionStateBuilder::new_from_existing(state.clone())
        .with_config(config)
        .with_runtime_env(Arc::clone(&RUNTIME))
        .with_optimizer_rules(logical)
        .with_physical_optimizer_rules(physical)
        .build()
}

/// Where the windows of the result are in the partial states: projections above the aggregate may have moved columns.
fn shape(definition: &Definition, above: &[Arc<dyn ExecutionPlan>]) -> Result<Shape> {
    let locate = |column: usize| locate(above, column);
    if let Some(session) = &definition.session {
        let keys = session.keys.iter().map(|&key| locate(key)).collect::<Option<_>>();
        let columns = keys.zip(locate(session.start)).zip(locate(session.end));
        let ((keys, start), end) = columns.ok_or_else(not_splittable)?;
        return Ok(Shape::Sessions(Columns { keys, start, end }));
    }
    let Some(pane) = definition.pane else { return Ok(Shape::Unwindowed) };
    let columns: Option<Vec<usize>> = [pane.column].iter().chain(&definition.twins).map(|&c| locate(c)).collect();
    match columns {
        Some(columns) => Ok(Shape::Panes(columns)),
        None if pane.window.spreads() => Err(not_splittable()),
        None => Ok(Shape::Unwindowed),
    }
}

/// Where a column of the result is in the partial states: projections above the aggregate may have moved it.
fn locate(above: &[Arc<dyn ExecutionPlan>], mut column: usize) -> Option<usize> {
    for node in above {
        let projection = node.downcast_ref::<ProjectionExec>().expect("only projections are kept above");
        column = projection.expr().get(column)?.expr.downcast_ref::<Column>()?.index();
    }
    Some(column)
}

/// The group columns by which large runs are ordered and sliced, and those by which rows are ordered within these: all
/// partial rows that a row of the result is computed from have to have the same values in them.
fn slice_by(groups: usize, shape: &Shape, spreads: bool, closed: Option<Closed>) -> (Vec<usize>, Vec<usize>) {
    let all = || ((0..groups).collect(), vec![]);
    match shape {
        Shape::Unwindowed => all(),
        Shape::Sessions(columns) => (columns.keys.clone(), vec![]),
        Shape::Panes(panes) => {
            let is_closed = |column: &usize| closed.is_some_and(|c| c.column == *column);
            let (windows, keys): (Vec<_>, Vec<_>) = (0..groups).partition(|i| panes.contains(i) || is_closed(i));
            match (keys.is_empty(), spreads) {
                // Merging is by pane anyway; such a state is not read slice by slice.
                (true, _) => all(),
                (false, true) => (keys, vec![]),
                (false, false) => (keys, windows),
            }
        }
    }
}

fn not_splittable() -> Error {
    Error::new(Kind::NotSupported, "this aggregate cannot be computed from partial states")
        .with_hint("Use CREATE VIEW for a query that is computed whenever it is read.")
}

fn as_aggregate(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<AggregateExec>> {
    let any: Arc<dyn Any + Send + Sync> = plan;
    any.downcast::<AggregateExec>().map_err(|_| not_splittable())
}

/// The operators run on the caller's thread: their input is in memory, so they never wait. On a thread of a runtime they
/// would from time to time, to let other tasks run, and nobody would wake them; so they are told not to.
pub fn run(plan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    let batches = collect(plan, Arc::clone(context));
    Ok(futures::executor::block_on(tokio::task::unconstrained(batches))?)
}

/// The leaf of a chain of operators.
pub fn leaf_of(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.children().first() {
        Some(child) => leaf_of(child),
        None => Arc::clone(plan),
    }
}

/// The same chain of operators over another leaf, with fresh metrics and state, looking up in `tables`.
pub fn with_leaf(
    plan: &Arc<dyn ExecutionPlan>,
    leaf: &Arc<dyn ExecutionPlan>,
    tables: &[Arc<Table>],
) -> Result<Arc<dyn ExecutionPlan>> {
    match plan.children().first() {
        None => Ok(Arc::clone(leaf)),
        Some(child) => {
            let child = with_leaf(child, leaf, tables)?;
            if let Some(lookup) = plan.downcast_ref::<LookupExec>() {
                return Ok(Arc::new(lookup.over(child, tables)));
            }
            let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
            Ok(Arc::clone(plan).replace_children(vec![child], keep)?)
        }
    }
}

/// The subtree with a plain table of the stream's columns in the stream's place, so that DataFusion can plan it.
/// Reference tables are read from their versions, wherever their rows came from.
fn leaf_for_stream(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let replaced = plan.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let source = match provider_of::<ReferenceTable>(&scan) {
                Some(table) => provider_as_source(Arc::new(table.of_versions())),
                None => provider_as_source(Arc::new(LeafTable { schema: scan.source.schema() })),
            };
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

/// A table without rows, for planning operators whose leaf is exchanged later.
#[derive(Debug)]
pub struct LeafTable {
    pub schema: SchemaRef,
}

impl TableProvider for LeafTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_at_once!(LeafTable);
}

impl LeafTable {
    fn plan_scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Scanned {
        let source = MemorySourceConfig::try_new_exec(&[vec![]], Arc::clone(&self.schema), projection.cloned())?;
        Ok(source)
    }
}
