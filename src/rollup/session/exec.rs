//! The physical forms of a session window.
//!
//! [`SessionExec`] serves batch queries: its input is sorted by keys and time, so it holds back no more than the rows of
//! the session that is open. [`ChainExec`] takes its whole input at once and in any order: the rows of a micro-batch, or
//! the pieces of sessions that a view is read from.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DfResult, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::UserDefinedLogicalNode;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexRequirement, OrderingRequirements, PhysicalExpr, PhysicalSortRequirement,
};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt};

use super::{Chain, Columns, SessionNode, claim, number, times};
use crate::opaque::{Extended, plan_extension_at_once};
use crate::rollup::spread::with_bounds_behind;
use crate::time::Micros;

/// Plans [`SessionNode`] for DataFusion's physical planner.
#[derive(Debug)]
pub struct SessionPlanner;

impl ExtensionPlanner for SessionPlanner {
    plan_extension_at_once!();
}

impl SessionPlanner {
    fn extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn datafusion::catalog::Session,
        context: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> Extended {
        let Some(node) = node.as_any().downcast_ref::<SessionNode>() else { return Ok(None) };
        let physical = |expr| planner.create_physical_expr(expr, node.input.schema(), session, context);
        let rows = Rows {
            keys: node.keys.iter().map(physical).collect::<DfResult<_>>()?,
            time: physical(&node.time)?,
            gap: node.gap,
            max_span: node.max_span,
        };
        let input = Arc::clone(&inputs[0]);
        Ok(Some(match node.pieces {
            true => Arc::new(ChainExec::new(input, Of::Rows(rows))),
            false => Arc::new(SessionExec::new(input, rows)),
        }))
    }
}

/// Rows to be put into sessions.
#[derive(Debug, Clone)]
struct Rows {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    time: Arc<dyn PhysicalExpr>,
    gap: Micros,
    max_span: Option<Micros>,
}

/// All rows of a key have to come to the same place.
fn distribution(keys: &[Arc<dyn PhysicalExpr>]) -> InputDistributionRequirements {
    InputDistributionRequirements::new(vec![match keys {
        [] => Distribution::SinglePartition,
        keys => Distribution::KeyPartitioned(keys.to_vec()),
    }])
}

/// Adds the bounds of its session to each row.
#[derive(Debug)]
struct SessionExec {
    input: Arc<dyn ExecutionPlan>,
    rows: Rows,
    properties: Arc<PlanProperties>,
}

impl SessionExec {
    fn new(input: Arc<dyn ExecutionPlan>, rows: Rows) -> SessionExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(with_bounds_behind(&input.schema())),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        SessionExec { input, rows, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SessionExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SessionExec: {}, gap={} us, max_span={:?}", self.rows.time, self.rows.gap, self.rows.max_span)
    }
}

impl ExecutionPlan for SessionExec {
    fn name(&self) -> &str {
        "SessionExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        distribution(&self.rows.keys)
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let options = Some(SortOptions { descending: false, nulls_first: true });
        let columns = self.rows.keys.iter().chain([&self.rows.time]);
        let columns = columns.map(|expr| PhysicalSortRequirement::new(Arc::clone(expr), options));
        vec![LexRequirement::new(columns).map(OrderingRequirements::new)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        each(self.rows.keys.iter().chain([&self.rows.time]), f)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("SessionExec has one input") };
        Ok(Arc::new(SessionExec::new(input, self.rows.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let reservation = MemoryConsumer::new("open session").register(context.memory_pool());
        let sorted = Sorted::new(self.rows.clone(), self.input.schema(), self.schema(), reservation)?;
        let output = futures::stream::unfold((input, Some(sorted)), |(mut input, sorted)| async move {
            let mut sorted = sorted?;
            loop {
                if let Some(ready) = sorted.ready.pop_front() {
                    return Some((Ok(ready), (input, Some(sorted))));
                }
                let done = match input.next().await {
                    Some(Ok(batch)) => sorted.push(batch),
                    Some(Err(err)) => Err(err),
                    None if sorted.pending.is_empty() => return None,
                    None => sorted.close(),
                };
                if let Err(err) = done.and_then(|()| sorted.release()) {
                    return Some((Err(err), (input, None)));
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}

fn each<'a>(
    exprs: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>,
    f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
) -> DfResult<TreeNodeRecursion> {
    for expr in exprs {
        if f(expr)? == TreeNodeRecursion::Stop {
            return Ok(TreeNodeRecursion::Stop);
        }
    }
    Ok(TreeNodeRecursion::Continue)
}

/// The state of one partition of a [`SessionExec`].
struct Sorted {
    // fixed
    rows: Rows,
    schema: SchemaRef,
    converter: Option<RowConverter>,
    /// Estimated bytes of a row.
    width: usize,
    // state
    /// Key and bounds of the open session.
    key: Option<OwnedRow>,
    open: Option<(Micros, Micros)>,
    /// Batches with rows of the open session.
    pending: VecDeque<Pending>,
    ready: VecDeque<RecordBatch>,
    reservation: MemoryReservation,
}

/// A batch whose rows from `done` on are of the open session.
struct Pending {
    batch: RecordBatch,
    starts: Vec<Option<Micros>>,
    ends: Vec<Option<Micros>>,
    done: usize,
}

impl Sorted {
    fn new(rows: Rows, input: SchemaRef, schema: SchemaRef, reservation: MemoryReservation) -> DfResult<Sorted> {
        let field = |key: &Arc<dyn PhysicalExpr>| Ok(SortField::new(key.data_type(&input)?));
        let fields = rows.keys.iter().map(field).collect::<DfResult<Vec<_>>>()?;
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        // Texts are views of 16 bytes on a few dozen that mostly belong to this row alone.
        let width = |data_type: &DataType| data_type.primitive_width().unwrap_or(64);
        let width = schema.fields().iter().map(|f| width(f.data_type())).sum();
        let (pending, ready) = (VecDeque::new(), VecDeque::new());
        Ok(Sorted { rows, schema, converter, width, key: None, open: None, pending, ready, reservation })
    }

    fn push(&mut self, batch: RecordBatch) -> DfResult<()> {
        let rows = batch.num_rows();
        self.reservation.try_grow(rows * self.width)?;
        let array = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&batch)?.into_array(rows);
        let times = array(&self.rows.time)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let keys = match &self.converter {
            Some(converter) => {
                let columns = self.rows.keys.iter().map(array).collect::<DfResult<Vec<_>>>()?;
                Some(converter.convert_columns(&columns)?)
            }
            None => None,
        };
        self.pending.push_back(Pending {
            batch,
            starts: Vec::with_capacity(rows),
            ends: Vec::with_capacity(rows),
            done: 0,
        });
        for row in 0..rows {
            let same = match &keys {
                Some(keys) if row > 0 => keys.row(row) == keys.row(row - 1),
                Some(keys) => self.key.as_ref().is_some_and(|key| key.row() == keys.row(0)),
                None => true,
            };
            let piece = (!times.is_null(row)).then(|| claim(times.value(row), self.rows.gap, self.rows.max_span));
            match (&mut self.open, piece) {
                (Some(open), Some((start, end))) if same && start < open.1 => open.1 = open.1.max(end),
                _ => {
                    self.close()?;
                    self.open = piece;
                }
            }
            let pending = self.pending.back_mut().expect("pushed above");
            pending.starts.push(self.open.map(|open| open.0));
            pending.ends.push(None);
            if self.open.is_none() {
                pending.done = row + 1;
            }
        }
        if let (Some(keys), Some(last)) = (keys, rows.checked_sub(1)) {
            self.key = Some(keys.row(last).owned());
        }
        Ok(())
    }

    /// The open session ends: now the end of its rows is known.
    fn close(&mut self) -> DfResult<()> {
        let end = self.open.take().map(|open| open.1);
        for pending in &mut self.pending {
            pending.ends[pending.done..].fill(end);
            pending.done = pending.ends.len();
        }
        Ok(())
    }

    /// Batches without rows of the open session go on.
    fn release(&mut self) -> DfResult<()> {
        while self.pending.front().is_some_and(|p| p.done == p.batch.num_rows()) {
            let Some(Pending { batch, starts, ends, .. }) = self.pending.pop_front() else { break };
            self.reservation.shrink(batch.num_rows() * self.width);
            let mut columns = batch.columns().to_vec();
            columns.extend([times(starts), times(ends)]);
            self.ready.push_back(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        Ok(())
    }
}

/// What a [`ChainExec`] chains.
#[derive(Debug, Clone)]
enum Of {
    /// Rows of a micro-batch: the bounds of their pieces are added.
    Rows(Rows),
    /// Pieces: their bounds are overwritten, and only sessions that start in the wanted range are kept.
    Pieces { columns: Columns, keys: Vec<Arc<dyn PhysicalExpr>>, wanted: Option<(Micros, Micros)> },
}

/// Chains all rows of its input at once.
#[derive(Debug)]
pub struct ChainExec {
    input: Arc<dyn ExecutionPlan>,
    of: Of,
    properties: Arc<PlanProperties>,
}

impl ChainExec {
    /// Makes whole sessions of pieces; only those that start in the wanted closed range are kept.
    pub fn of_pieces(input: Arc<dyn ExecutionPlan>, columns: Columns, wanted: Option<(Micros, Micros)>) -> ChainExec {
        let schema = input.schema();
        let column = |&i: &usize| -> Arc<dyn PhysicalExpr> {
            Arc::new(datafusion::physical_expr::expressions::Column::new(schema.field(i).name(), i))
        };
        let keys = columns.keys.iter().map(column).collect();
        ChainExec::new(input, Of::Pieces { columns, keys, wanted })
    }

    fn new(input: Arc<dyn ExecutionPlan>, of: Of) -> ChainExec {
        let schema = match &of {
            Of::Rows(_) => with_bounds_behind(&input.schema()),
            Of::Pieces { .. } => input.schema(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            EmissionType::Final,
            input.boundedness(),
        );
        ChainExec { input, of, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ChainExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.of {
            Of::Rows(rows) => write!(f, "ChainExec: rows by {}", rows.time),
            Of::Pieces { columns, .. } => write!(f, "ChainExec: pieces by {}, {}", columns.start, columns.end),
        }
    }
}

impl ExecutionPlan for ChainExec {
    fn name(&self) -> &str {
        "ChainExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        match &self.of {
            // Pieces that are not chained here are chained later.
            Of::Rows(_) => InputDistributionRequirements::new(vec![Distribution::UnspecifiedDistribution]),
            Of::Pieces { keys, .. } => distribution(keys),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        match &self.of {
            Of::Rows(rows) => each(rows.keys.iter().chain([&rows.time]), f),
            Of::Pieces { .. } => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("ChainExec has one input") };
        Ok(Arc::new(ChainExec::new(input, self.of.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let (of, schema) = (self.of.clone(), self.schema());
        let batch_size = context.session_config().batch_size().max(1);
        let chained = futures::stream::once(async move {
            let batches: Vec<RecordBatch> = input.try_collect().await?;
            let chained = match &of {
                Of::Rows(rows) => rows.chain(&batches, &schema)?,
                Of::Pieces { columns, wanted, .. } => columns.chain(&batches, *wanted)?,
            };
            let pieces = chained.into_iter().flat_map(move |batch| {
                let starts = (0..batch.num_rows()).step_by(batch_size);
                let cut = |start: usize| Ok(batch.slice(start, batch_size.min(batch.num_rows() - start)));
                starts.map(cut).collect::<Vec<DfResult<RecordBatch>>>()
            });
            Ok::<_, DataFusionError>(futures::stream::iter(pieces))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), chained.try_flatten())))
    }
}

impl Rows {
    /// Adds the bounds of its piece to each row.
    fn chain(&self, batches: &[RecordBatch], schema: &SchemaRef) -> DfResult<Vec<RecordBatch>> {
        let array =
            |expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch| expr.evaluate(batch)?.into_array(batch.num_rows());
        let keys = batches.iter().map(|b| self.keys.iter().map(|key| array(key, b)).collect());
        let keys = keys.collect::<DfResult<Vec<Vec<_>>>>()?;
        let ids = number(&keys, &batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>())?;
        let mut ids = ids.into_iter();
        let mut chain = Chain::default();
        for batch in batches {
            let times = array(&self.time, batch)?;
            let times = times.as_primitive::<TimestampMicrosecondType>();
            for (row, key) in ids.by_ref().take(batch.num_rows()).enumerate() {
                let piece = (!times.is_null(row)).then(|| claim(times.value(row), self.gap, self.max_span));
                chain.push(key, piece);
            }
        }
        let mut bounds = chain.bounds().into_iter();
        let mut out = Vec::with_capacity(batches.len());
        for batch in batches {
            let (starts, ends): (Vec<_>, Vec<_>) = bounds.by_ref().take(batch.num_rows()).unzip();
            let mut columns = batch.columns().to_vec();
            columns.extend([times(starts), times(ends)]);
            out.push(RecordBatch::try_new(Arc::clone(schema), columns)?);
        }
        Ok(out)
    }
}
