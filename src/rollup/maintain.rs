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

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, collect};

use super::lookup::{self, LookupExec, Lookups, Table};
use super::pane::{Merged, Run, SEAL_ROWS};
use super::plan::{Definition, LateColumns, provider_of};
use super::reference::ReferenceTable;
use super::session::{ChainExec, Columns};
use super::spread::{Closed, SpreadExec, Target};
use super::window::{Window, to_micros};
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, limit, on};
use crate::time::Micros;

/// Optimizer rules that a maintained aggregate must not see: the first would turn `count(DISTINCT x)` into two
/// aggregates, of which only the lower could be kept; the next two would replace the stream by nothing when a filter is
/// always false; the last would look rows of a table up in the stream where only they are shown.
const UNWANTED_RULES: &[&str] =
    &["single_distinct_aggregation_to_group_by", "eliminate_filter", "propagate_empty_relation", "eliminate_join"];

/// Reading fewer partial rows than this is not worth a second core.
const PARALLEL_ROWS: usize = 20_000;

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
    /// Joins with reference tables in the map stage.
    lookups: Lookups,
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
}

impl Maintainer {
    /// Plans the operators. Refuses aggregates that DataFusion does not split into partial and final.
    pub async fn new(definition: &Definition, state: &SessionState) -> Result<Maintainer> {
        let state = planning_state(state);
        let logical = leaf_for_stream(&definition.aggregate)?;
        let plan = lookup::plan(&state, &logical).await?;

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
        Ok(Maintainer { leaf, partial, last, above, shape, closed, lookups, context: state.task_ctx() })
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
        let batches = run(plan, &self.context)?;
        let panes = self.pane_range(&batches)?;
        let run = Run::new(batches, panes);
        Ok((run.rows > 0).then_some(run))
    }

    /// Merges runs into one, and seals the part before the last pane when it has grown large.
    pub fn merge(&self, runs: &[Arc<Run>]) -> Result<Merged> {
        let mut batches: Vec<_> = runs.iter().flat_map(|r| r.batches.iter().cloned()).collect();
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
        let merged = merged
            .into_iter()
            .map(|b| RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec()))
            .collect::<Result<Vec<_>, _>>()?;
        self.seal(merged)
    }

    /// Parts old panes from the last, old sessions from those that new rows may still reach.
    fn seal(&self, batches: Vec<RecordBatch>) -> Result<Merged> {
        let panes = self.pane_range(&batches)?;
        let run = Run::new(batches, panes);
        let Some(column) = self.shape.time().filter(|_| run.rows > limit(SEAL_ROWS)) else {
            return Ok(Merged { open: Some(run), sealed: None });
        };
        let all = concat_batches(&self.partial.schema(), &run.batches)?;
        let timed = |column: usize| -> Result<Vec<Option<i64>>> {
            let column = all.column(column);
            let raw = raw_times(column)?.into_iter().enumerate();
            Ok(raw.map(|(i, time)| (!column.is_null(i)).then_some(time)).collect())
        };
        let times = timed(column)?;
        let boundary = match &self.shape {
            // A row as late as the latest start reaches the sessions that end after it.
            Shape::Sessions(columns) => timed(columns.start)?.into_iter().flatten().max().map(|t| t.saturating_add(1)),
            Shape::Unwindowed | Shape::Panes(_) => times.iter().flatten().max().copied(),
        };
        let old = |i: &u32| times[*i as usize].zip(boundary).is_some_and(|(time, boundary)| time < boundary);
        let (before, after): (Vec<u32>, Vec<u32>) =
            (u32::from(on(Mutation::SealLosesAGroup))..all.num_rows() as u32).partition(old);
        match self.shape {
            // Most sessions are open still.
            Shape::Sessions(_) if before.len() < limit(SEAL_ROWS) / 2 => {
                return Ok(Merged { open: Some(run), sealed: None });
            }
            // One pane that has outgrown merging.
            _ if before.is_empty() => return Ok(Merged { open: None, sealed: Some(run) }),
            _ => {}
        }
        // Copies, so that the sealed run does not keep the open one's memory.
        let part = |rows: Vec<u32>| -> Result<Run> {
            let batch = crate::batch::compact(take_record_batch(&all, &UInt32Array::from(rows))?)?;
            let panes = self.pane_range(std::slice::from_ref(&batch))?;
            Ok(Run::new(vec![batch], panes))
        };
        Ok(Merged { sealed: Some(part(before)?), open: Some(part(after)?) })
    }

    /// The plan that computes the aggregate's result from `runs`, for a reader who needs only windows with ids in a closed
    /// range (in microseconds; more may come out). `window` is the reader's: hops of several widths may share panes.
    pub fn finish(
        &self,
        runs: &[Arc<Run>],
        window: Option<Window>,
        ids: Option<(Micros, Micros)>,
        target_partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (batches, rows) = self.select(runs, window.zip(ids).map(|(window, ids)| window.panes_of(ids)))?;
        let factor = window.map_or(1, |w| w.factor());
        let grouped = !self.last.group_expr().is_true_no_grouping();
        let parallel = grouped && target_partitions > 1 && rows.saturating_mul(factor) >= limit(PARALLEL_ROWS);

        let mut partitions = vec![Vec::new(); if parallel { target_partitions } else { 1 }];
        for (i, batch) in batches.into_iter().enumerate() {
            let count = partitions.len();
            partitions[i % count].push(batch);
        }
        let schema = self.partial.schema();
        let mut input: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&partitions, Arc::clone(&schema), None)?;
        match (&self.shape, window) {
            (Shape::Panes(columns), Some(window)) if window.spreads() => {
                let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(columns[0]).name(), columns[0]));
                let spread = SpreadExec::new(input, time, window, Target::Replace(columns.clone()), ids, schema);
                input = Arc::new(spread.with_closed(self.closed));
            }
            (Shape::Sessions(columns), _) => input = Arc::new(ChainExec::of_pieces(input, columns.clone(), ids)),
            (Shape::Unwindowed | Shape::Panes(_), _) => {}
        }
        let mode = if parallel { AggregateMode::FinalPartitioned } else { AggregateMode::Final };
        let group_by: PhysicalGroupBy = self.last.group_expr().clone();
        let last = AggregateExec::try_new(
            mode,
            group_by,
            self.last.aggr_expr().to_vec(),
            vec![None; self.last.aggr_expr().len()],
            input,
            self.last.input_schema(),
        )?;
        let mut plan: Arc<dyn ExecutionPlan> = Arc::new(last);
        for node in self.above.iter().rev() {
            plan = Arc::clone(node)
                .replace_children(vec![plan], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
        }
        Ok(plan)
    }

    /// The batches of runs that hold panes in a closed range, and their rows.
    fn select(&self, runs: &[Arc<Run>], panes: Option<(Micros, Micros)>) -> Result<(Vec<RecordBatch>, usize)> {
        let mut batches = Vec::new();
        let wanted = self.shape.time().zip(panes);
        for run in runs {
            let Some((column, (lo, hi))) = wanted else {
                batches.extend(run.batches.iter().cloned());
                continue;
            };
            for batch in &run.batches {
                let column = batch.column(column);
                let data_type = column.data_type();
                let inside = |raw: i64| to_micros(data_type, raw).is_none_or(|t| lo <= t && t <= hi);
                let (first, last) = run.panes;
                if first != i64::MIN && (!inside(first) || !inside(last)) {
                    let (Some(first), Some(last)) = (to_micros(data_type, first), to_micros(data_type, last)) else {
                        continue;
                    };
                    if last < lo || first > hi {
                        continue;
                    }
                    let times = raw_times(column)?;
                    let keep = (0..batch.num_rows()).map(|i| Some(column.is_null(i) || inside(times[i])));
                    batches.push(filter_record_batch(batch, &keep.collect())?);
                } else {
                    batches.push(batch.clone());
                }
            }
        }
        batches.retain(|b| b.num_rows() > 0);
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        Ok((batches, rows))
    }

    /// Smallest and largest value of the column that orders runs, in its own unit.
    fn pane_range(&self, batches: &[RecordBatch]) -> Result<(i64, i64)> {
        let Some(column) = self.shape.time() else { return Ok((i64::MIN, i64::MAX)) };
        let mut range: Option<(i64, i64)> = None;
        for batch in batches {
            let column = batch.column(column);
            if column.null_count() > 0 {
                // Rows without a time belong to no range: such a run is always read.
                return Ok((i64::MIN, i64::MAX));
            }
            for &time in raw_times(column)?.iter() {
                let (lo, hi) = range.unwrap_or((time, time));
                range = Some((lo.min(time), hi.max(time)));
            }
        }
        Ok(range.unwrap_or((i64::MIN, i64::MAX)))
    }
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

fn not_splittable() -> Error {
    Error::new(Kind::NotSupported, "this aggregate cannot be computed from partial states")
        .with_hint("Use CREATE VIEW for a query that is computed whenever it is read.")
}

fn as_aggregate(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<AggregateExec>> {
    let any: Arc<dyn Any + Send + Sync> = plan;
    any.downcast::<AggregateExec>().map_err(|_| not_splittable())
}

/// The operators run on the caller's thread: their input is in memory, so they never wait, not even for their turn among
/// the tasks of a runtime that the thread may belong to.
fn run(plan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    Ok(futures::executor::block_on(tokio::task::unconstrained(collect(plan, Arc::clone(context))))?)
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

/// A time column's values in its own unit.
fn raw_times(column: &ArrayRef) -> Result<Vec<i64>> {
    let raw = match column.data_type() {
        DataType::Timestamp(..) => cast(column, &DataType::Int64)?,
        other => return Err(Error::internal(format!("a window column of type {other}"))),
    };
    Ok(raw.as_primitive::<Int64Type>().values().to_vec())
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

#[async_trait]
impl TableProvider for LeafTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let source = MemorySourceConfig::try_new_exec(&[vec![]], Arc::clone(&self.schema), projection.cloned())?;
        Ok(source)
    }
}
