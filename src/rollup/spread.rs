//! Hopping and cumulating windows: one row (or one pane of partial states) belongs to several windows.
//!
//! [`WindowNode`] is the logical operator that `HOP(…)` and `CUMULATE(…)` become: its input's columns plus `window_start`
//! and `window_end`, one output row per window. [`SpreadExec`] is the physical one. It serves twice: in a batch query it
//! spreads rows; in a view it spreads the *panes* of a rollup when the view is read, so a row was folded only once,
//! however many windows contain it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult, internal_err, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use datafusion::physical_planner::PhysicalPlanner;
use futures::StreamExt;

use super::window::{Ids, WINDOW_END, WINDOW_START, Window};
use crate::format::timestamp_type;
use crate::opaque::{Extended, plan_extension_at_once};
use crate::time::{Micros, UTC};

/// `HOP(input, time, slide, size, offset)` or `CUMULATE(input, time, step, size, offset)` in a logical plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowNode {
    pub input: LogicalPlan,
    /// The time column, of type `timestamptz` in microseconds.
    pub time: Expr,
    pub window: Window,
    schema: DFSchemaRef,
}

impl PartialOrd for WindowNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.time.partial_cmp(&other.time).filter(|order| order.is_ne() || self == other)
    }
}

impl WindowNode {
    /// Fails when the input already has columns named like the window's.
    pub fn try_new(input: LogicalPlan, time: Expr, window: Window) -> DfResult<WindowNode> {
        let schema = with_bounds(input.schema())?;
        Ok(WindowNode { input, time, window, schema })
    }
}

/// A schema with the columns of a window behind its own.
pub fn with_bounds(schema: &DFSchema) -> DfResult<DFSchemaRef> {
    let mut fields: Vec<_> = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
    for name in [WINDOW_START, WINDOW_END] {
        if schema.fields().iter().any(|f| f.name() == name) {
            return plan_err!("the input of a window already has a column named \"{name}\"");
        }
        fields.push((None, Arc::new(Field::new(name, timestamp_type(), true))));
    }
    Ok(Arc::new(DFSchema::new_with_metadata(fields, schema.metadata().clone())?))
}

/// The same for a physical schema.
pub fn with_bounds_behind(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.extend([WINDOW_START, WINDOW_END].map(|name| Arc::new(Field::new(name, timestamp_type(), true))));
    Arc::new(Schema::new(fields))
}

impl UserDefinedLogicalNodeCore for WindowNode {
    fn name(&self) -> &str {
        "Window"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }

    /// Filters on the input's columns may go below; those on the window's may not.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        [WINDOW_START.to_string(), WINDOW_END.to_string()].into()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Window: {}, {:?}", self.time, self.window)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(time), Some(input)) => WindowNode::try_new(input, time, self.window),
            _ => internal_err!("a window has one input and one time column"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let inputs = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|&i| i < inputs).collect();
        for column in self.time.column_refs() {
            needed.push(self.input.schema().maybe_index_of_column(column)?);
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// Plans [`WindowNode`] for DataFusion's physical planner.
#[derive(Debug)]
pub struct SpreadPlanner;

impl datafusion::physical_planner::ExtensionPlanner for SpreadPlanner {
    plan_extension_at_once!();
}

impl SpreadPlanner {
    fn extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn datafusion::catalog::Session,
        context: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> Extended {
        let Some(node) = node.as_any().downcast_ref::<WindowNode>() else { return Ok(None) };
        let time = planner.create_physical_expr(&node.time, node.input.schema(), session, context)?;
        let input = Arc::clone(&inputs[0]);
        let schema = with_bounds_behind(&input.schema());
        Ok(Some(Arc::new(SpreadExec::new(input, time, node.window, Target::Append, None, schema))))
    }
}

/// Panes that hold rows which were late for some of the pane's windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closed {
    /// The column that says up to which window end; it is NULL in the output, where windows are told apart.
    pub column: usize,
    /// The column that counts late rows: 0 where the window was open. Without it such rows are left out of the windows
    /// that were closed to them.
    pub count: Option<usize>,
}

/// Where the window columns go.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Behind the input's columns: window_start and window_end.
    Append,
    /// The input's columns of these indexes hold the pane's start and are overwritten with the window's id, except where
    /// they are NULL (a grouping set without them).
    Replace(Vec<usize>),
}

/// Puts each input row into every window that holds it. Output batches have at most the session's batch size.
#[derive(Debug)]
pub struct SpreadExec {
    input: Arc<dyn ExecutionPlan>,
    time: Arc<dyn PhysicalExpr>,
    window: Window,
    target: Target,
    /// Only windows whose id lies in this closed range (what a reader asked for).
    ids: Option<(Micros, Micros)>,
    closed: Option<Closed>,
    properties: Arc<PlanProperties>,
}

impl SpreadExec {
    /// `schema` is the output: the input's, with two more columns for [`Target::Append`].
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        time: Arc<dyn PhysicalExpr>,
        window: Window,
        target: Target,
        ids: Option<(Micros, Micros)>,
        schema: SchemaRef,
    ) -> SpreadExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        // The partitioning expressions refer to input columns, which keep their places; but the pane column changes its
        // value, so only the number of partitions is promised.
        let partitions = properties.partitioning.partition_count();
        let properties =
            properties.with_partitioning(datafusion::physical_expr::Partitioning::UnknownPartitioning(partitions));
        SpreadExec { input, time, window, target, ids, closed: None, properties: Arc::new(properties) }
    }

    /// The same for panes that tell which of their windows were closed.
    pub fn with_closed(self, closed: Option<Closed>) -> SpreadExec {
        SpreadExec { closed, ..self }
    }
}

impl DisplayAs for SpreadExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SpreadExec: {}, {:?}", self.time, self.window)
    }
}

impl ExecutionPlan for SpreadExec {
    fn name(&self) -> &str {
        "SpreadExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<datafusion::common::tree_node::TreeNodeRecursion>,
    ) -> DfResult<datafusion::common::tree_node::TreeNodeRecursion> {
        f(&self.time)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("SpreadExec has one input") };
        let time = Arc::clone(&self.time);
        let spread = SpreadExec::new(input, time, self.window, self.target.clone(), self.ids, self.schema());
        Ok(Arc::new(spread.with_closed(self.closed)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let batch_size = context.session_config().batch_size().max(1);
        let spread = Spread {
            time: Arc::clone(&self.time),
            window: self.window,
            target: self.target.clone(),
            ids: self.ids,
            closed: self.closed,
        };
        let schema = self.schema();
        let output = Arc::clone(&schema);
        let stream = input.flat_map(move |batch| {
            let pieces = match batch {
                Ok(batch) => spread.pieces(batch, batch_size, Arc::clone(&output)),
                Err(err) => vec![Err(err)].into_iter().collect::<Vec<_>>().into(),
            };
            futures::stream::iter(pieces)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// The work on one batch.
#[derive(Clone)]
struct Spread {
    time: Arc<dyn PhysicalExpr>,
    window: Window,
    target: Target,
    ids: Option<(Micros, Micros)>,
    closed: Option<Closed>,
}

/// Output batches, made one at a time as they are asked for: a batch of panes may become hundreds of batches.
enum Pieces {
    Ready(std::vec::IntoIter<DfResult<RecordBatch>>),
    Lazy(Box<LazyPieces>),
}

struct LazyPieces {
    spread: Spread,
    batch: RecordBatch,
    times: TimestampMicrosecondArray,
    schema: SchemaRef,
    batch_size: usize,
    /// Next row, and which of its windows are left to do, once begun.
    row: usize,
    left: Option<Ids>,
}

impl From<Vec<DfResult<RecordBatch>>> for Pieces {
    fn from(ready: Vec<DfResult<RecordBatch>>) -> Self {
        Pieces::Ready(ready.into_iter())
    }
}

impl Iterator for Pieces {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Pieces::Ready(ready) => ready.next(),
            Pieces::Lazy(lazy) => lazy.next(),
        }
    }
}

impl Spread {
    /// The wanted windows of a row.
    fn ids_of(&self, time: Micros) -> Ids {
        let all = self.window.ids(time, time.saturating_add(1));
        match self.ids {
            None => all,
            Some((lo, hi)) => {
                let skipped = lo.saturating_sub(all.first).max(0).saturating_add(all.step - 1) / all.step;
                Ids { first: all.first.saturating_add(skipped.saturating_mul(all.step)), last: all.last.min(hi), ..all }
            }
        }
    }

    fn pieces(&self, batch: RecordBatch, batch_size: usize, schema: SchemaRef) -> Pieces {
        let times = self.time.evaluate(&batch).and_then(|v| v.into_array(batch.num_rows()));
        match times {
            Ok(times) => Pieces::Lazy(Box::new(LazyPieces {
                spread: self.clone(),
                times: times.as_primitive::<TimestampMicrosecondType>().clone(),
                batch,
                schema,
                batch_size,
                row: 0,
                left: None,
            })),
            Err(err) => vec![Err(err)].into(),
        }
    }
}

impl Iterator for LazyPieces {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rows: Vec<u32> = Vec::with_capacity(self.batch_size);
        let mut ids: Vec<Option<Micros>> = Vec::with_capacity(self.batch_size);
        while self.row < self.batch.num_rows() && rows.len() < self.batch_size {
            if self.times.is_null(self.row) {
                // A row without a time is in no window that has bounds; it is kept, with NULL bounds.
                rows.push(self.row as u32);
                ids.push(None);
                self.row += 1;
                continue;
            }
            let mut left = self.left.unwrap_or_else(|| self.spread.ids_of(self.times.value(self.row)));
            while rows.len() < self.batch_size
                && let Some(id) = left.next()
            {
                if self.leaves_out(self.row, id) {
                    continue;
                }
                rows.push(self.row as u32);
                ids.push(Some(id));
            }
            if left.first > left.last {
                self.row += 1;
                self.left = None;
            } else {
                self.left = Some(left);
            }
        }
        (!rows.is_empty()).then(|| self.build(&UInt32Array::from(rows), &ids))
    }
}

impl LazyPieces {
    /// Whether the window was closed when the rows of this pane came.
    fn was_closed(&self, column: usize, row: usize, id: Micros) -> bool {
        let closed_to = self.batch.column(column).as_primitive::<TimestampMicrosecondType>();
        let end = self.spread.window.bounds(id).map(|bounds| bounds.1);
        closed_to.is_valid(row) && end.is_some_and(|end| end <= closed_to.value(row))
    }

    fn leaves_out(&self, row: usize, id: Micros) -> bool {
        let excluding = self.spread.closed.filter(|closed| closed.count.is_none());
        excluding.is_some_and(|closed| self.was_closed(closed.column, row, id))
    }

    fn build(&self, rows: &UInt32Array, ids: &[Option<Micros>]) -> DfResult<RecordBatch> {
        let mut columns =
            self.batch.columns().iter().map(|c| take(c, rows, None)).collect::<Result<Vec<ArrayRef>, _>>()?;
        let window = self.spread.window;
        let column = |value: &dyn Fn(Micros) -> Option<Micros>| -> ArrayRef {
            let values = ids.iter().map(|id| id.and_then(value));
            Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
        };
        match &self.spread.target {
            Target::Append => {
                columns.push(column(&|id| window.bounds(id).map(|b| b.0)));
                columns.push(column(&|id| window.bounds(id).map(|b| b.1)));
            }
            Target::Replace(places) => {
                let all = column(&Some);
                for &place in places {
                    let nulls = columns[place].nulls().cloned();
                    let values = all.as_primitive::<TimestampMicrosecondType>().values().clone();
                    columns[place] = Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone(UTC));
                }
            }
        }
        if let Some(closed) = self.spread.closed {
            if let Some(count) = closed.count {
                let counts = columns[count].as_primitive::<Int64Type>();
                let of_closed = rows.values().iter().zip(ids).zip(counts.values()).map(|((row, id), count)| {
                    let late = id.is_some_and(|id| self.was_closed(closed.column, *row as usize, id));
                    if late { *count } else { 0 }
                });
                columns[count] = Arc::new(of_closed.collect::<Int64Array>());
            }
            columns[closed.column] = new_null_array(columns[closed.column].data_type(), rows.len());
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
