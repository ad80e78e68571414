//! Changes of a stream's rows: they only ever come, in the order of their offsets, so all that a subscriber needs is a
//! position. Rows are read from the stream's chunks, in memory or from the log, and pass the query's filters and
//! projections with their offset at their side.
//!
//! `_offset` of a row is the number of its frame plus one: the instant that has everything up to this row. So a receiver
//! may go on after any row, not only after a group.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, TableScan, Volatility,
};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use super::output::Output;
use super::{Options, Start, Step, physical_plan};
use crate::batch::fit;
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::rollup::maintain::{LeafTable, leaf_of, with_leaf};
use crate::rollup::plan::provider_of;
use crate::rollup::spread::WindowNode;
use crate::storage::hot::Chunk;
use crate::view::runner::Runner;
use crate::view::table::{Part, StreamTable, load};

/// The column that carries offsets through a query; no column of a user can have this name.
const OFFSET: &str = "\u{1}offset";

/// The stream whose rows `plan` gives, each by itself, if that is all it does.
pub fn stream_of(plan: &LogicalPlan) -> Option<Arc<StreamTable>> {
    match plan {
        LogicalPlan::TableScan(scan) if bare(scan) => provider_of::<StreamTable>(scan),
        LogicalPlan::Filter(filter) => stream_of(&filter.input),
        LogicalPlan::Projection(projection) => stream_of(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => stream_of(&alias.input),
        LogicalPlan::Extension(extension) => {
            let hop = extension.node.as_any().downcast_ref::<WindowNode>()?;
            stream_of(&hop.input)
        }
        _ => None,
    }
}

fn bare(scan: &TableScan) -> bool {
    scan.projection.is_none() && scan.filters.is_empty() && scan.fetch.is_none()
}

/// A subscriber to a stream's rows.
pub struct Rows {
    // fixed
    runner: Arc<Runner>,
    part: Part,
    /// The operators over a leaf that is exchanged for each piece of rows. `None` when no row passes them.
    plan: Option<Arc<dyn ExecutionPlan>>,
    leaf: SchemaRef,
    context: Arc<TaskContext>,
    output: Arc<Output>,
    /// Counts the frames that were dropped before they were looked at.
    missed: Arc<AtomicU64>,
    // state
    /// Frames before it were sent or left out.
    position: u64,
    /// Rows on their way through the query, those that wait for it, and where the receiver is after them.
    running: Option<SendableRecordBatchStream>,
    waiting: VecDeque<(RecordBatch, Int64Array)>,
    end: u64,
}

impl Rows {
    /// `current` is where the stream stands.
    pub async fn new(
        plan: &Opaque<LogicalPlan>,
        table: &StreamTable,
        options: &Options,
        current: u64,
        context: &Opaque<SessionContext>,
        output: Arc<Output>,
    ) -> Result<Rows> {
        check_expressions(plan)?;
        let position = match options.start {
            Start::Snapshot => 0,
            Start::Now => current,
            Start::After(offset) => {
                check_kept(&table.runner, offset, current)?;
                offset
            }
            Start::From(offset) => offset,
        };
        let state = Opaque::new(one_by_one(&context.state()));
        let physical = physical_plan(&state, &with_offsets(plan)?.into()).await?;
        let leaf = leaf_of(&physical);
        // A filter that is never true leaves no scan behind.
        let reads = leaf.downcast_ref::<DataSourceExec>().is_some() && leaf.schema().column_with_name(OFFSET).is_some();
        Ok(Rows {
            runner: Arc::clone(&table.runner),
            part: table.part,
            plan: reads.then_some(physical),
            leaf: leaf.schema(),
            context: context.task_ctx(),
            output,
            missed: Arc::clone(&options.missed),
            position,
            running: None,
            waiting: VecDeque::new(),
            end: position,
        })
    }

    /// Goes on by some rows, or to the end of a chunk; rows from `upto` on are not looked at.
    pub async fn step(&mut self, upto: u64) -> Result<Step> {
        loop {
            if let Some(running) = &mut self.running {
                // A hopping window makes many rows of one, so they are not collected.
                match running.next().await {
                    Some(batch) => {
                        let batches = self.output_of(&batch?)?;
                        return Ok(Step { batches, complete: None, more: true });
                    }
                    None => self.running = None,
                }
            } else if let Some((rows, offsets)) = self.waiting.pop_front() {
                self.running = self.pass(&rows, offsets)?;
            } else if self.position < self.end {
                self.position = self.end;
                return Ok(Step { batches: Vec::new(), complete: Some(self.position), more: self.position < upto });
            } else {
                let chunks = self.runner.log.snapshot_from(self.position);
                let Some(chunk) = chunks.first().filter(|_| self.position < upto) else {
                    return Ok(Step { batches: Vec::new(), complete: Some(self.position), more: false });
                };
                self.missed.fetch_add(chunk.base.min(upto).saturating_sub(self.position), Ordering::Relaxed);
                self.end = (chunk.base + chunk.frames).min(upto);
                let range = self.position..self.end;
                self.waiting = rows_between(&self.runner, chunk, self.part, range).await?.into();
            }
        }
    }

    /// Lets rows through the query.
    fn pass(&self, rows: &RecordBatch, offsets: Int64Array) -> Result<Option<SendableRecordBatchStream>> {
        let Some(plan) = &self.plan else { return Ok(None) };
        let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(OFFSET, DataType::Int64, false)));
        let columns = rows.columns().iter().cloned().chain([Arc::new(offsets) as ArrayRef]).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let rows = fit(&rows, &self.leaf)?;
        let leaf = MemorySourceConfig::try_new_exec(&[vec![rows]], Arc::clone(&self.leaf), None)?;
        let plan = with_leaf(plan, &(leaf as Arc<dyn ExecutionPlan>), &[])?;
        Ok(Some(execute_stream(plan, Arc::clone(&self.context))?))
    }

    fn output_of(&self, passed: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let at = passed.schema().index_of(OFFSET)?;
        let mut columns = passed.columns().to_vec();
        let offsets = columns.remove(at);
        self.output.arrived(&columns, offsets.as_primitive::<Int64Type>())
    }
}

/// The state of a session that keeps the order of rows. The rows of the leaf are not there yet when it plans, so no rule may
/// conclude anything from them.
fn one_by_one(state: &SessionState) -> SessionState {
    let config = state.config().clone().with_target_partitions(1);
    SessionStateBuilder::new_from_existing(state.clone())
        .with_config(config)
        .with_physical_optimizer_rules(vec![])
        .build()
}

/// Fails when changes after `offset` cannot be given: they are still to come, or no longer kept.
pub fn check_kept(runner: &Runner, offset: u64, current: u64) -> Result<()> {
    if offset > current {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("AS OF {offset} lies ahead: the stream is at offset {current}"),
        )
        .with_hint("AS OF takes an _offset that a subscription has given."));
    }
    let first = runner.log.kept_from();
    if offset < first {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("changes after offset {offset} are no longer kept: the oldest row kept is at offset {first}"),
        )
        .with_hint("Subscribe without AS OF: the snapshot is then sent anew."));
    }
    Ok(())
}

/// The rows of a chunk whose frames lie in `from..to`, each batch with the offset behind each row.
pub async fn rows_between(
    runner: &Arc<Runner>,
    chunk: &Arc<Chunk>,
    part: Part,
    range: Range<u64>,
) -> Result<Vec<(RecordBatch, Int64Array)>> {
    if chunk.data.is_some() && part != Part::Late {
        return find_between(runner, chunk, part, range);
    }
    // Rows have to be read.
    let (runner, chunk) = (Arc::clone(runner), Arc::clone(chunk));
    let found = tokio::task::spawn_blocking(move || find_between(&runner, &chunk, part, range)).await;
    found.map_err(|err| Error::internal(format!("reading rows failed: {err}")))?
}

fn find_between(
    runner: &Runner,
    chunk: &Chunk,
    part: Part,
    Range { start: from, end: to }: Range<u64>,
) -> Result<Vec<(RecordBatch, Int64Array)>> {
    if from >= to {
        return Ok(Vec::new());
    }
    let numbered = |batch: &RecordBatch, name: &str| -> Result<Vec<i64>> {
        let column = batch.column_by_name(name).ok_or_else(|| Error::internal("these rows have an offset"))?;
        Ok(column.as_primitive::<Int64Type>().values().to_vec())
    };
    let mut out = Vec::new();
    match part {
        Part::Rows => {
            let data = runner.log.load(chunk, &runner.shape)?;
            let mut offsets = data.row_offsets(chunk.base..chunk.base + chunk.frames).into_iter();
            for batch in &data.rows {
                let behind: Vec<i64> = offsets.by_ref().take(batch.num_rows()).map(|offset| offset + 1).collect();
                let first = behind.partition_point(|&offset| offset <= from as i64);
                let last = behind.partition_point(|&offset| offset <= to as i64);
                if first < last {
                    out.push((batch.slice(first, last - first), Int64Array::from(behind[first..last].to_vec())));
                }
            }
        }
        Part::Malformed | Part::Late => {
            let name = if part == Part::Late { "_offset" } else { "offset" };
            for batch in &load(runner, chunk, part)? {
                let offsets = numbered(batch, name)?;
                let inside = offsets.iter().map(|&offset| (from as i64..to as i64).contains(&offset));
                let kept = filter_record_batch(batch, &BooleanArray::from(inside.collect::<Vec<_>>()))?;
                let behind = numbered(&kept, name)?.into_iter().map(|offset| offset + 1).collect::<Vec<_>>();
                if !behind.is_empty() {
                    out.push((kept, Int64Array::from(behind)));
                }
            }
        }
    }
    Ok(out)
}

/// The plan over a leaf with offsets, which it carries to its top.
fn with_offsets(plan: &LogicalPlan) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::TableScan(scan) => {
            let mut fields: Vec<_> = scan.projected_schema.fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(OFFSET, DataType::Int64, false)));
            let leaf = LeafTable { schema: Arc::new(Schema::new(fields)) };
            let source = provider_as_source(Arc::new(leaf));
            LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?
        }
        LogicalPlan::Filter(filter) => {
            let input = Arc::new(with_offsets(&filter.input)?);
            LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), input)?)
        }
        LogicalPlan::Projection(projection) => {
            let input = with_offsets(&projection.input)?;
            let place = input.schema().iter().find(|(_, field)| field.name() == OFFSET);
            let (qualifier, _) = place.ok_or_else(|| Error::internal("the offsets got lost"))?;
            let offset = Expr::Column(Column::new(qualifier.cloned(), OFFSET));
            let expressions = projection.expr.iter().cloned().chain([offset]).collect();
            LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(input))?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = Arc::new(with_offsets(&alias.input)?);
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, alias.alias.clone())?)
        }
        LogicalPlan::Extension(extension) => {
            let inputs = extension.node.inputs().into_iter().map(with_offsets).collect::<Result<Vec<_>>>()?;
            let node = extension.node.with_exprs_and_inputs(extension.node.expressions(), inputs)?;
            LogicalPlan::Extension(Extension { node })
        }
        other => return Err(Error::internal(format!("rows do not pass {} one by one", other.display()))),
    })
}

/// A row that was sent stays as it is, so nothing in it may depend on the time at which it is looked at.
fn check_expressions(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                match e {
                    Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                        refused = Some(format!("{}()", f.func.name()));
                    }
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
                        refused = Some("a subquery".to_string());
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let Some(what) = refused else { return Ok(()) };
    Err(Error::new(Kind::NotSupported, format!("{what} cannot be used in a subscription to a stream's rows"))
        .with_detail("A row is sent once, when it arrives; such a value would change afterwards.")
        .with_hint(
            "Leave the condition out: new rows come as they arrive. WITH (SNAPSHOT = false) leaves out old ones.",
        ))
}
