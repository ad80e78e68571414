//! Streams, their malformed lines and rollups as SQL tables, each as of one instant.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Int64Array, IntervalMonthDayNanoArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType, cast, col, ident, lit,
};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};

use super::bounds::time_bounds;
use super::join::Pending;
use super::runner::{Runner, Snapshot};
use crate::batch::{MALFORMED, fit};
use crate::error::{Error, Result};
use crate::format::timestamp_type;
use crate::mutation::{Mutation, on};
use crate::opaque::{Scanned, scan_at_once, scan_boxed};
use crate::rollup::maintain::Only;
use crate::rollup::pane::Run;
use crate::rollup::plan::{Definition, Slot};
use crate::rollup::timeliness::Timeliness;
use crate::rollup::versions::{FINAL, REVISION};
use crate::rollup::watermark::{FOREVER, LateRow};
use crate::rollup::window::Window;
use crate::storage::archive::{OFFSET, WATERMARK};
use crate::storage::history::with_own_columns;
use crate::storage::hot::Chunk;
use crate::time::{Micros, UTC};

/// Which rows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Rows,
    Malformed,
    /// The rows that came behind the watermark, with [`late_columns`].
    Late,
}

impl Part {
    /// What it is called in listings.
    pub fn words(self) -> &'static str {
        match self {
            Part::Rows => "rows",
            Part::Malformed => "malformed lines",
            Part::Late => "late rows",
        }
    }
}

const LATE_BY: &str = "_late_by";

/// What a late row has besides the stream's columns: by how much it was late, the watermark when it came, its offset.
fn late_columns() -> [Field; 3] {
    [
        Field::new(LATE_BY, DataType::Interval(IntervalUnit::MonthDayNano), true),
        Field::new(WATERMARK, timestamp_type(), true),
        Field::new(OFFSET, DataType::Int64, true),
    ]
}

fn late_schema(rows: &SchemaRef) -> SchemaRef {
    let own = rows.fields().iter().cloned();
    Arc::new(Schema::new(own.chain(late_columns().map(Arc::new)).collect::<Vec<_>>()))
}

/// A stream (or its malformed lines) as a table. In the catalog it stands for the stream as it grows; for a query it is
/// pinned to one instant ([`StreamTable::pinned`]).
pub struct StreamTable {
    pub name: String,
    pub runner: Arc<Runner>,
    pub part: Part,
    schema: SchemaRef,
    pinned: Option<Arc<Snapshot>>,
}

impl fmt::Debug for StreamTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamTable({}, {:?})", self.name, self.part)
    }
}

impl StreamTable {
    pub fn new(name: &str, runner: Arc<Runner>, part: Part) -> StreamTable {
        let schema = match part {
            Part::Rows => runner.shape.schema(),
            Part::Malformed => Arc::clone(&MALFORMED),
            Part::Late => late_schema(&runner.shape.schema()),
        };
        StreamTable { name: name.to_string(), runner, part, schema, pinned: None }
    }

    /// The same table with the columns as known when `schema` was read, as of `snapshot`.
    pub fn pinned(&self, schema: SchemaRef, snapshot: Arc<Snapshot>) -> StreamTable {
        let (name, runner) = (self.name.clone(), Arc::clone(&self.runner));
        StreamTable { name, runner, part: self.part, schema, pinned: Some(snapshot) }
    }
}

impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        match (&self.pinned, self.part) {
            // A format that learns columns may have learned some since the table was made.
            (None, Part::Rows) => self.runner.shape.schema(),
            (None, Part::Late) => late_schema(&self.runner.shape.schema()),
            (None | Some(_), _) => Arc::clone(&self.schema),
        }
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    scan_at_once!(StreamTable);
}

impl StreamTable {
    fn plan_scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Scanned {
        let now = match &self.pinned {
            Some(snapshot) => Arc::clone(snapshot),
            None => Arc::new(self.runner.snapshot([])),
        };
        let time = self.runner.shape.time.as_deref().filter(|_| self.part != Part::Malformed);
        let bounds = time.and_then(|name| time_bounds(filters, name));
        let archived = self.scan_archive(&now, state, projection, filters, bounds)?;
        let end = now.archived.as_ref().map_or(0, |archived| match self.part {
            Part::Rows | Part::Late => archived.rows.end,
            Part::Malformed => archived.malformed.end,
        });
        let wanted = |chunk: &Chunk| match (self.part, bounds, chunk.times) {
            _ if chunk.base < end => false,
            (Part::Malformed, _, _) => chunk.malformed > 0,
            (part, Some((lo, hi)), Some((first, last))) => has_rows(part, chunk) && first <= hi && last >= lo,
            (part, _, _) => has_rows(part, chunk),
        };
        let kept: Vec<_> = now.chunks.iter().filter(|c| wanted(c)).cloned().collect();
        let schema = match projection {
            Some(columns) => Arc::new(self.schema().project(columns)?),
            None => self.schema(),
        };
        let partitions = state.config().target_partitions().clamp(1, kept.len().max(1));
        let chunks = || Arc::new(ChunksExec::new(self, kept.clone(), partitions, schema));
        match archived {
            None => Ok(chunks()),
            Some(archived) if kept.is_empty() => Ok(archived),
            Some(archived) => UnionExec::try_new(vec![archived, chunks()]),
        }
    }
}

impl StreamTable {
    /// What the archive has of it, as of an instant.
    fn scan_archive(
        &self,
        now: &Snapshot,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        times: Option<(Micros, Micros)>,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(history), Some(archived)) = (self.runner.log.history(), &now.archived) else { return Ok(None) };
        let scan = |late: bool, schema: SchemaRef, projection| {
            history.rows.scan(&archived.rows, state, schema, projection, times, None, filters, late)
        };
        match self.part {
            Part::Rows => scan(false, self.schema(), projection),
            Part::Malformed => {
                let schema = self.schema();
                history.malformed.scan(&archived.malformed, state, schema, projection, None, None, filters, false)
            }
            Part::Late => {
                let own = with_own_columns(&self.runner.shape.schema());
                let Some(plan) = scan(true, own, None)? else { return Ok(None) };
                let Some(time) = self.runner.shape.time.as_deref() else { return Ok(None) };
                let schema = DFSchema::try_from(plan.schema().as_ref().clone())?;
                let late_by = cast(ident(WATERMARK) - ident(time), DataType::Interval(IntervalUnit::MonthDayNano));
                let column = |field: &Arc<Field>| -> DfResult<ProjectionExpr> {
                    let expr = if field.name() == LATE_BY { late_by.clone() } else { ident(field.name()) };
                    Ok(ProjectionExpr { expr: state.create_physical_expr(expr, &schema)?, alias: field.name().clone() })
                };
                let table = self.schema();
                let all: Vec<usize> = (0..table.fields().len()).collect();
                let wanted = projection.unwrap_or(&all).iter().map(|&i| column(&table.fields()[i]));
                Ok(Some(Arc::new(ProjectionExec::try_new(wanted.collect::<DfResult<Vec<_>>>()?, plan)?)))
            }
        }
    }
}

fn has_rows(part: Part, chunk: &Chunk) -> bool {
    match part {
        Part::Rows => chunk.rows > 0,
        Part::Malformed => chunk.malformed > 0,
        Part::Late => chunk.late > 0,
    }
}

/// Reads chunks; partition `i` of `n` takes every n-th.
struct ChunksExec {
    name: String,
    runner: Arc<Runner>,
    part: Part,
    chunks: Arc<Vec<Arc<Chunk>>>,
    properties: Arc<PlanProperties>,
}

impl ChunksExec {
    fn new(table: &StreamTable, chunks: Vec<Arc<Chunk>>, partitions: usize, schema: SchemaRef) -> ChunksExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        ChunksExec {
            name: table.name.clone(),
            runner: Arc::clone(&table.runner),
            part: table.part,
            chunks: Arc::new(chunks),
            properties: Arc::new(properties),
        }
    }
}

impl fmt::Debug for ChunksExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunksExec({})", self.name)
    }
}

impl DisplayAs for ChunksExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let hot = self.chunks.iter().filter(|c| c.data.is_some()).count();
        write!(f, "StreamScan: {}, chunks={}, in memory={hot}", self.name, self.chunks.len())
    }
}

impl ExecutionPlan for ChunksExec {
    fn name(&self) -> &str {
        "StreamScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let schema = self.schema();
        let step = self.properties.partitioning.partition_count();
        let (runner, part, chunks) = (Arc::clone(&self.runner), self.part, Arc::clone(&self.chunks));
        let wanted = Arc::clone(&schema);
        // One chunk at a time: what a slow reader has not asked for yet is not loaded.
        let mine: Vec<_> = (partition..chunks.len()).step_by(step).map(|i| Arc::clone(&chunks[i])).collect();
        let loaded = futures::stream::iter(mine).then(move |chunk| {
            let runner = Arc::clone(&runner);
            async move {
                if chunk.data.is_some() {
                    return load(&runner, &chunk, part);
                }
                let loaded = tokio::task::spawn_blocking(move || load(&runner, &chunk, part)).await;
                loaded.map_err(|err| Error::internal(format!("reading rows failed: {err}")))?
            }
        });
        let batches = loaded.map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok))).try_flatten();
        let batches = batches.map(move |batch| batch.and_then(|batch| fit(&batch, &wanted)).map_err(Into::into));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// The rows of a chunk, or those of its companion relations. Not for async code unless the chunk is in memory.
pub fn load(runner: &Runner, chunk: &Chunk, part: Part) -> Result<Vec<RecordBatch>> {
    let data = runner.log.load(chunk, &runner.shape)?;
    match part {
        Part::Rows => Ok(data.rows.clone()),
        Part::Malformed => Ok(data.malformed.clone()),
        Part::Late => {
            let offsets = data.row_offsets(chunk.base..chunk.base + chunk.frames);
            let late = data.batches().filter(|(_, _, late)| !late.is_empty());
            late.map(|(first, rows, late)| late_rows(rows, &offsets[first..], runner.shape.times(rows), &late))
                .collect()
        }
    }
}

/// The late rows of a batch, with [`late_columns`].
fn late_rows(rows: &RecordBatch, offsets: &[i64], times: &[Micros], late: &[LateRow]) -> Result<RecordBatch> {
    let indices = UInt32Array::from_iter_values(late.iter().map(|l| l.row));
    let schema = late_schema(&rows.schema());
    let by = |l: &LateRow| l.watermark.saturating_sub(times[l.row as usize]);
    let intervals = late.iter().map(|l| IntervalMonthDayNano::new(0, 0, by(l).saturating_mul(1000)));
    let mut columns = take_record_batch(rows, &indices)?.columns().to_vec();
    columns.push(Arc::new(IntervalMonthDayNanoArray::from_iter_values(intervals)));
    columns.push(Arc::new(
        TimestampMicrosecondArray::from_iter_values(late.iter().map(|l| l.watermark)).with_timezone(UTC),
    ));
    columns.push(Arc::new(Int64Array::from_iter_values(late.iter().map(|l| offsets[l.row as usize]))));
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// A rollup's result as of one instant: what a [`Slot`] becomes when a query is pinned.
pub struct RollupTable {
    pub slot: Arc<Slot>,
    /// The stream's watermark at that instant.
    pub watermark: Micros,
    pub runs: Vec<Arc<Run>>,
    /// What is not in the runs because it has to be computed.
    pub pending: Option<Arc<Pending>>,
}

impl fmt::Debug for RollupTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RollupTable({})", self.slot.definition.stream)
    }
}

impl TableProvider for RollupTable {
    fn schema(&self) -> SchemaRef {
        self.slot.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    scan_boxed!(RollupTable);
}

impl RollupTable {
    async fn plan_scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Scanned {
        let rollup = self.slot.rollup.get().expect("pinned only when it has a rollup");
        let definition = &self.slot.definition;
        let closed = closed(definition, self.watermark);
        let count = definition.late.and_then(|late| late.count);
        // What the two columns that come last are in the rollup's own.
        let version = |name: &str| match name {
            FINAL => Some(closed.clone().unwrap_or_else(|| lit(false))),
            REVISION => Some(count.map_or_else(|| lit(0i64), |count| col(format!("c{count}")))),
            _ => None,
        };
        let in_own_columns = |filter: &Expr| -> DfResult<Expr> {
            let replaced = filter.clone().transform(|expr| match &expr {
                Expr::Column(column) => match version(&column.name) {
                    Some(own) => Ok(Transformed::yes(own)),
                    None => Ok(Transformed::no(expr)),
                },
                _ => Ok(Transformed::no(expr)),
            });
            replaced.map(|filter| filter.data)
        };
        let mut filters = filters.iter().map(in_own_columns).collect::<DfResult<Vec<_>>>()?;
        if let (Timeliness::OnTime, Some(closed)) = (definition.timeliness, &closed)
            && !on(Mutation::OpenWindowShown)
        {
            filters.push(closed.clone());
        }
        if let (Some(first), Some(pane), Some((start, end))) = (rollup.expired(), definition.pane, definition.bounds())
        {
            let first = lit(ScalarValue::TimestampMicrosecond(Some(first), Some(UTC.into())));
            match pane.window {
                Window::Session { .. } => filters.push(end.gt_eq(first)),
                // It is told by its end.
                Window::Cumulate { .. } => {
                    filters.push(start.gt_eq(first.clone()));
                    filters.push(end.gt_eq(first));
                }
                Window::Tumble { .. } | Window::Hop { .. } | Window::Calendar(_) => {
                    filters.push(col(format!("c{}", pane.column)).gt_eq(first));
                }
            }
        }
        let window = definition.pane.map(|pane| pane.window);
        let mut ids = definition.pane.and_then(|pane| time_bounds(&filters, &format!("c{}", pane.column)));
        if definition.timeliness == Timeliness::OnTime {
            ids = within(ids, window.and_then(|window| window.last_closed(reached(definition, self.watermark))));
        }
        let mut runs = self.runs.clone();
        if let Some(pending) = self.pending.clone() {
            let computed = tokio::task::spawn_blocking(move || pending.compute()).await;
            runs.extend(computed.map_err(|e| Error::internal(format!("a join failed: {e}")))??);
        }
        let maintainer = rollup.maintainer();
        let groups = maintainer.wanted_groups(window, &|column| one_of(&filters, &format!("c{column}")))?;
        let condition = on_keys(&filters, &maintainer.keys(), definition, state)?;
        let mut plan =
            maintainer.finish(&runs, window, ids, Only { groups, condition }, state.config().target_partitions())?;

        // The aggregate's columns have its own names; the slot's are c0, c1, …
        let own: Vec<usize> = (0..definition.schema.fields().len()).collect();
        let named = own.iter().map(|&i| {
            let input = plan.schema();
            let column = datafusion::physical_expr::expressions::Column::new(input.field(i).name(), i);
            ProjectionExpr { expr: Arc::new(column), alias: format!("c{i}") }
        });
        plan = Arc::new(ProjectionExec::try_new(named.collect::<Vec<_>>(), Arc::clone(&plan))?);
        if let Some(predicate) = datafusion::logical_expr::utils::conjunction(unnormalize_cols(filters)) {
            let schema = DFSchema::try_from(plan.schema().as_ref().clone())?;
            plan = Arc::new(FilterExec::try_new(state.create_physical_expr(predicate, &schema)?, plan)?);
        }
        let all: Vec<usize> = (0..self.schema().fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        if *wanted == own {
            return Ok(plan);
        }
        let schema = DFSchema::try_from(plan.schema().as_ref().clone())?;
        let column = |i: usize| -> DfResult<ProjectionExpr> {
            let table = self.schema();
            let name = table.field(i).name();
            let expr = version(name).unwrap_or_else(|| col(name));
            Ok(ProjectionExpr { expr: state.create_physical_expr(expr, &schema)?, alias: name.clone() })
        };
        let columns = wanted.iter().map(|&i| column(i)).collect::<DfResult<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
    }
}

/// The values of which a column has to have one for all of these conditions to hold, if one of them says it.
fn one_of(conditions: &[Expr], name: &str) -> Option<Vec<ScalarValue>> {
    let is_it = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == name);
    let literal = |expr: &Expr| match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    };
    let of = |side: &Expr| one_of(std::slice::from_ref(side), name);
    conditions.iter().find_map(|condition| match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (column, value) | (value, column) if is_it(column) => Some(vec![literal(value)?]),
            _ => None,
        },
        Expr::InList(InList { expr, list, negated: false }) if is_it(expr) => list.iter().map(literal).collect(),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => Some([of(left)?, of(right)?].concat()),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => of(left).or_else(|| of(right)),
        _ => None,
    })
}

/// Those of the conditions that say something about `keys` alone, over the columns of a rollup's partial rows: what is left out
/// by them need not be finished.
fn on_keys(
    conditions: &[Expr],
    keys: &[usize],
    definition: &Definition,
    state: &dyn Session,
) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
    let names: Vec<String> = keys.iter().map(|key| format!("c{key}")).collect();
    let is_on_keys = |condition: &&Expr| {
        let columns = condition.column_refs();
        !columns.is_empty() && columns.iter().all(|column| names.contains(&column.name)) && cannot_fail(condition)
    };
    let conditions = conditions.iter().filter(is_on_keys).cloned();
    let Some(condition) = datafusion::logical_expr::utils::conjunction(unnormalize_cols(conditions)) else {
        return Ok(None);
    };
    // The result begins with the columns by which partial rows are grouped, as partial rows do.
    let schema = DFSchema::try_from(definition.schema.as_ref().clone())?;
    state.create_physical_expr(condition, &schema).map(Some)
}

/// Whether an expression has a value for every row: it may then be asked for rows that others leave out.
fn cannot_fail(expr: &Expr) -> bool {
    let mut can = false;
    let visited = expr.apply(|expr| {
        can |= !match expr {
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::InList(_)
            | Expr::Between(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_) => true,
            Expr::Like(like) => like.escape_char.is_none(),
            Expr::BinaryExpr(BinaryExpr { op, .. }) => matches!(
                op,
                Operator::Eq
                    | Operator::NotEq
                    | Operator::Lt
                    | Operator::LtEq
                    | Operator::Gt
                    | Operator::GtEq
                    | Operator::IsDistinctFrom
                    | Operator::IsNotDistinctFrom
                    | Operator::And
                    | Operator::Or
            ),
            _ => false,
        };
        Ok(if can { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.is_ok() && !can
}

/// What a column has to be equal to for all of these conditions to hold, if it is an expression that is `wanted`.
pub fn equal_to<'a>(conditions: &'a [Expr], name: &str, wanted: &dyn Fn(&Expr) -> bool) -> Option<&'a Expr> {
    let is_it = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == name);
    conditions.iter().find_map(|condition| match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (column, value) | (value, column) if is_it(column) && wanted(value) => Some(value),
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let side = |side: &'a Expr| equal_to(std::slice::from_ref(side), name, wanted);
            side(left).or_else(|| side(right))
        }
        _ => None,
    })
}

/// Whether a row's window has closed, as a condition on the rollup's columns; `None` for windows that do not close.
fn closed(definition: &Definition, watermark: Micros) -> Option<Expr> {
    let (pane, _) = definition.pane.zip(definition.late)?;
    let reached = reached(definition, watermark);
    let end = match &definition.session {
        Some(columns) => col(format!("c{}", columns.end)),
        None => pane.window.end_of(col(format!("c{}", pane.column))),
    };
    let reached = lit(ScalarValue::TimestampMicrosecond(Some(reached), Some(UTC.into())));
    Some(end.lt_eq(reached))
}

/// Windows that end until then have closed.
pub fn reached(definition: &Definition, watermark: Micros) -> Micros {
    if watermark == FOREVER { FOREVER } else { watermark.saturating_sub(definition.lateness) }
}

/// The ids in a range up to the last that a window which has closed can have.
fn within(ids: Option<(Micros, Micros)>, last: Option<Micros>) -> Option<(Micros, Micros)> {
    let Some(last) = last else { return ids };
    let (low, high) = ids.unwrap_or((Micros::MIN, Micros::MAX));
    Some((low, high.min(last)))
}
