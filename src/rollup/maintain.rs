//! The operators of one rollup, all of them DataFusion's own:
//!
//! ```text
//!     rows of a micro-batch ──► map stage ──► Aggregate(Partial) ──► run of partial states      [fold]
//!     several runs          ──► Aggregate(PartialReduce)         ──► one run                    [merge]
//!     runs a reader needs   ──► spread panes ──► Aggregate(Final) ──► the aggregate's result     [finish]
//! ```
//!
//! The physical plan is made once; for each micro-batch only its leaf is exchanged.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
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

use super::hop::{HopExec, Target};
use super::pane::{Merged, Run, seal_rows};
use super::plan::{Definition, Pane};
use super::window::{Window, to_micros};
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, limit, on};
use crate::time::Micros;

/// Optimizer rules that a maintained aggregate must not see: the first would turn `count(DISTINCT x)` into two
/// aggregates, of which only the lower could be kept; the others would replace the stream by nothing when a filter is
/// always false.
const UNWANTED_RULES: &[&str] =
    &["single_distinct_aggregation_to_group_by", "eliminate_filter", "propagate_empty_relation"];

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
    pane: Option<Pane>,
    context: Arc<TaskContext>,
}

impl Maintainer {
    /// Plans the operators. Refuses aggregates that DataFusion does not split into partial and final.
    pub async fn new(definition: &Definition, state: &SessionState) -> Result<Maintainer> {
        let state = planning_state(state);
        let logical = leaf_for_stream(&definition.aggregate)?;
        let plan = state.create_physical_plan(&logical).await?;

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
        let pane = locate_pane(definition.pane, &above)?;
        Ok(Maintainer { leaf, partial, last, above, pane, context: state.task_ctx() })
    }

    /// Columns of the stream that are read.
    pub fn columns(&self) -> &SchemaRef {
        &self.leaf
    }

    /// The partial states of `rows` (a micro-batch of the stream, at least with the columns read). `None` when the
    /// map stage filtered all of them away.
    pub fn fold(&self, rows: &RecordBatch) -> Result<Option<Run>> {
        let mut batch = crate::batch::fit(rows, &self.leaf)?;
        if on(Mutation::FoldDropsLastRow) {
            batch = batch.slice(0, batch.num_rows().saturating_sub(1));
        }
        let source = MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&self.leaf), None)?;
        let plan = with_leaf(&(Arc::clone(&self.partial) as _), &(source as Arc<dyn ExecutionPlan>))?;
        let batches = run(plan, &self.context)?;
        let panes = self.pane_range(&batches)?;
        let run = Run::new(batches, panes);
        Ok((run.rows > 0).then_some(run))
    }

    /// Merges runs into one, and seals the part before the last pane when it has grown large.
    pub fn merge(&self, runs: &[Arc<Run>]) -> Result<Merged> {
        let forgotten = usize::from(on(Mutation::MergeForgetsARun));
        let batches: Vec<_> = runs.iter().skip(forgotten).flat_map(|r| r.batches.iter().cloned()).collect();
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

    fn seal(&self, batches: Vec<RecordBatch>) -> Result<Merged> {
        let panes = self.pane_range(&batches)?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let run = Run::new(batches, panes);
        let Some(pane) = self.pane.filter(|_| rows > seal_rows() && panes.0 < panes.1) else {
            let grown = rows > seal_rows() && self.pane.is_some();
            return Ok(if grown {
                Merged { open: None, sealed: Some(run) }
            } else {
                Merged { open: Some(run), sealed: None }
            });
        };
        let all = concat_batches(&self.partial.schema(), &run.batches)?;
        let order = sort_to_indices(all.column(pane.column), None, None)?;
        let sorted = take_record_batch(&all, &order)?;
        let starts = raw_times(sorted.column(pane.column))?;
        let boundary = starts.partition_point(|&start| start < panes.1);
        let before = if boundary == 0 { panes.0 } else { starts[boundary - 1] };
        let lost = usize::from(on(Mutation::SealLosesAGroup)).min(boundary);
        // Copies, so that the sealed run does not keep the open one's memory.
        let part = |from: usize, to: usize| -> Result<RecordBatch> {
            let indices = UInt32Array::from_iter_values(from as u32..to as u32);
            crate::batch::compact(take_record_batch(&sorted, &indices)?)
        };
        Ok(Merged {
            sealed: Some(Run::new(vec![part(0, boundary - lost)?], (panes.0, before))),
            open: Some(Run::new(vec![part(boundary, starts.len())?], (panes.1, panes.1))),
        })
    }

    /// The plan that computes the aggregate's result from `runs`, for a reader who needs only windows that start within
    /// `starts` (closed range, in microseconds; more may come out).
    pub fn finish(
        &self,
        runs: &[Arc<Run>],
        starts: Option<(Micros, Micros)>,
        target_partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (batches, rows) = self.select(runs, starts)?;
        let spread = self.pane.filter(Pane::spreads);
        let factor = spread.map_or(1, |p| (p.window.size() / p.window.pane()).max(1) as usize);
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
        if let Some(pane) = spread {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(pane.column).name(), pane.column));
            let target = Target::Replace(pane.column);
            input = Arc::new(HopExec::new(input, column, pane.window, target, starts, schema));
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

    /// The batches of runs that hold panes of the wanted windows, and their rows.
    fn select(&self, runs: &[Arc<Run>], starts: Option<(Micros, Micros)>) -> Result<(Vec<RecordBatch>, usize)> {
        let mut batches = Vec::new();
        let wanted = self.pane.zip(starts).map(|(pane, (lo, hi))| {
            // A pane that starts at p is part of windows that start in (p - size, p].
            let reach = match pane.window {
                Window::Tumble { .. } => 0,
                Window::Hop { size, .. } if on(Mutation::PaneOffByOne) => size - 2 * pane.window.pane(),
                Window::Hop { size, .. } => size,
            };
            (pane, lo, hi.saturating_add(reach))
        });
        for run in runs {
            let Some((pane, lo, hi)) = wanted else {
                batches.extend(run.batches.iter().cloned());
                continue;
            };
            for batch in &run.batches {
                let column = batch.column(pane.column);
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

    /// Smallest and largest value of the pane column, in its own unit.
    fn pane_range(&self, batches: &[RecordBatch]) -> Result<(i64, i64)> {
        let Some(pane) = self.pane else { return Ok((i64::MIN, i64::MAX)) };
        let mut range: Option<(i64, i64)> = None;
        for batch in batches {
            let column = batch.column(pane.column);
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

/// Where the pane column of the result is in the partial states: projections above the aggregate may have moved it.
fn locate_pane(pane: Option<Pane>, above: &[Arc<dyn ExecutionPlan>]) -> Result<Option<Pane>> {
    let Some(mut pane) = pane else { return Ok(None) };
    for node in above {
        let projection = node.downcast_ref::<ProjectionExec>().expect("only projections are kept above");
        match projection.expr().get(pane.column).and_then(|e| e.expr.downcast_ref::<Column>()) {
            Some(column) => pane.column = column.index(),
            None if pane.spreads() => return Err(not_splittable()),
            None => return Ok(None),
        }
    }
    Ok(Some(pane))
}

fn not_splittable() -> Error {
    Error::new(Kind::NotSupported, "this aggregate cannot be computed from partial states")
        .with_hint("Use CREATE VIEW for a query that is computed whenever it is read.")
}

fn as_aggregate(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<AggregateExec>> {
    let any: Arc<dyn Any + Send + Sync> = plan;
    any.downcast::<AggregateExec>().map_err(|_| not_splittable())
}

/// The operators run on the caller's thread: their input is in memory, so they never wait.
fn run(plan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    Ok(futures::executor::block_on(collect(plan, Arc::clone(context)))?)
}

fn leaf_of(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.children().first() {
        Some(child) => leaf_of(child),
        None => Arc::clone(plan),
    }
}

/// The same chain of operators over another leaf, with fresh metrics and state.
fn with_leaf(plan: &Arc<dyn ExecutionPlan>, leaf: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    match plan.children().first() {
        None => Ok(Arc::clone(leaf)),
        Some(child) => {
            let child = with_leaf(child, leaf)?;
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
fn leaf_for_stream(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let replaced = plan.clone().transform_up(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let table = LeafTable { schema: scan.source.schema() };
            let source = provider_as_source(Arc::new(table));
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

#[derive(Debug)]
struct LeafTable {
    schema: SchemaRef,
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
