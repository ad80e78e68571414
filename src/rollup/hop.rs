//! Hopping windows: one row (or one pane of partial states) belongs to several windows.
//!
//! [`HopNode`] is the logical operator that `HOP(rel, ts, slide, size)` becomes: its input's columns plus `window_start`
//! and `window_end`, one output row per window. [`HopExec`] is the physical one. It serves twice: in a batch query it
//! spreads rows; in a view it spreads the *panes* of a rollup when the view is read, so a row was folded only once,
//! however many windows contain it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult, internal_err, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use datafusion::physical_planner::PhysicalPlanner;
use futures::StreamExt;

use super::window::Window;
use crate::format::timestamp_type;
use crate::time::{Micros, UTC};

pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";

/// `HOP(input, time, slide, size, offset)` in a logical plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HopNode {
    pub input: LogicalPlan,
    /// The time column, of type `timestamptz` in microseconds.
    pub time: Expr,
    pub window: Window,
    schema: DFSchemaRef,
}

impl PartialOrd for HopNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (&self.time, self.window).partial_cmp(&(&other.time, other.window))
    }
}

impl HopNode {
    /// Fails when the input already has columns named like the window's.
    pub fn try_new(input: LogicalPlan, time: Expr, window: Window) -> DfResult<HopNode> {
        let mut fields: Vec<_> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        for name in [WINDOW_START, WINDOW_END] {
            if input.schema().fields().iter().any(|f| f.name() == name) {
                return plan_err!("the input of a window already has a column named \"{name}\"");
            }
            fields.push((None, Arc::new(Field::new(name, timestamp_type(), true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(HopNode { input, time, window, schema })
    }
}

impl UserDefinedLogicalNodeCore for HopNode {
    fn name(&self) -> &str {
        "Hop"
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
        write!(f, "Hop: {}, {:?}", self.time, self.window)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(time), Some(input)) => HopNode::try_new(input, time, self.window),
            _ => internal_err!("a hopping window has one input and one time column"),
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

/// Plans [`HopNode`] for DataFusion's physical planner.
#[derive(Debug)]
pub struct HopPlanner;

#[async_trait]
impl datafusion::physical_planner::ExtensionPlanner for HopPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn datafusion::catalog::Session,
        context: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(hop) = node.as_any().downcast_ref::<HopNode>() else { return Ok(None) };
        let time = planner.create_physical_expr(&hop.time, hop.input.schema(), session, context)?;
        let input = Arc::clone(&inputs[0]);
        let mut fields: Vec<_> = input.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(WINDOW_START, timestamp_type(), true)));
        fields.push(Arc::new(Field::new(WINDOW_END, timestamp_type(), true)));
        let schema = Arc::new(Schema::new(fields));
        Ok(Some(Arc::new(HopExec::new(input, time, hop.window, Target::Append, None, schema))))
    }
}

/// Where the window columns go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Behind the input's columns: window_start and window_end.
    Append,
    /// The input's column of this index holds the pane's start and is overwritten with the window's start.
    Replace(usize),
}

/// Puts each input row into every window that holds it. Output batches have at most the session's batch size.
#[derive(Debug)]
pub struct HopExec {
    input: Arc<dyn ExecutionPlan>,
    time: Arc<dyn PhysicalExpr>,
    window: Window,
    target: Target,
    /// Only windows whose start lies in this closed range (what a reader asked for).
    starts: Option<(Micros, Micros)>,
    properties: Arc<PlanProperties>,
}

impl HopExec {
    /// `schema` is the output: the input's, with two more columns for [`Target::Append`].
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        time: Arc<dyn PhysicalExpr>,
        window: Window,
        target: Target,
        starts: Option<(Micros, Micros)>,
        schema: SchemaRef,
    ) -> HopExec {
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
        HopExec { input, time, window, target, starts, properties: Arc::new(properties) }
    }
}

impl DisplayAs for HopExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "HopExec: {}, {:?}", self.time, self.window)
    }
}

impl ExecutionPlan for HopExec {
    fn name(&self) -> &str {
        "HopExec"
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
        let Some(input) = children.pop() else { return internal_err!("HopExec has one input") };
        let time = Arc::clone(&self.time);
        Ok(Arc::new(HopExec::new(input, time, self.window, self.target, self.starts, self.schema())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let batch_size = context.session_config().batch_size().max(1);
        let spread =
            Spread { time: Arc::clone(&self.time), window: self.window, target: self.target, starts: self.starts };
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
    starts: Option<(Micros, Micros)>,
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
    /// Next row, and how many of its windows are done.
    row: usize,
    done: usize,
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
                done: 0,
            })),
            Err(err) => vec![Err(err)].into(),
        }
    }
}

impl Iterator for LazyPieces {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rows: Vec<u32> = Vec::with_capacity(self.batch_size);
        let mut starts: Vec<Option<Micros>> = Vec::with_capacity(self.batch_size);
        while self.row < self.batch.num_rows() && rows.len() < self.batch_size {
            if self.times.is_null(self.row) {
                // A row without a time is in no window that has bounds; it is kept, with NULL bounds.
                rows.push(self.row as u32);
                starts.push(None);
                self.row += 1;
                continue;
            }
            let wanted = |start: &Micros| self.spread.starts.is_none_or(|(lo, hi)| (lo..=hi).contains(start));
            let mut all = self.spread.window.starts(self.times.value(self.row)).skip(self.done);
            loop {
                match all.next() {
                    Some(start) if rows.len() < self.batch_size => {
                        self.done += 1;
                        if wanted(&start) {
                            rows.push(self.row as u32);
                            starts.push(Some(start));
                        }
                    }
                    Some(_) => break,
                    None => {
                        self.row += 1;
                        self.done = 0;
                        break;
                    }
                }
            }
        }
        (!rows.is_empty()).then(|| self.build(&UInt32Array::from(rows), starts))
    }
}

impl LazyPieces {
    fn build(&self, rows: &UInt32Array, starts: Vec<Option<Micros>>) -> DfResult<RecordBatch> {
        let mut columns =
            self.batch.columns().iter().map(|c| take(c, rows, None)).collect::<Result<Vec<ArrayRef>, _>>()?;
        let size = self.spread.window.size();
        let column = |shift: Micros| -> ArrayRef {
            let values = starts.iter().map(|s| s.map(|s| s.wrapping_add(shift)));
            Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
        };
        match self.spread.target {
            Target::Append => columns.extend([column(0), column(size)]),
            Target::Replace(at) => columns[at] = column(0),
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
