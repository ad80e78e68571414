//! Partial aggregation for grouping columns that repeat themselves, as those of logs do.
//!
//! DataFusion's operator hashes every row's key and compares it with a stored one. Here a key is found by one look into a
//! small cache per column (`keys.rs`), and the aggregates themselves are DataFusion's. [`GroupRule`] puts
//! [`GroupExec`] in the place of DataFusion's operator wherever it can take it: in the first of two stages, whose result is
//! partial states that the second stage merges. As that may get several states of one group, this one need not
//! hold all groups: when memory is short, or they are too many, it passes on what it has and begins anew. And where nearly
//! every row is a group of its own it stops grouping (as DataFusion does) and makes a state of each row.

mod keys;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties};
use futures::{Stream, StreamExt, ready};

use crate::mutation::limit;
use keys::Keys;

/// Grouping is not worth it if the groups are more than this part of the rows.
const PROBE_PART: f64 = 0.8;

/// Replaces DataFusion's operator by this one where it can.
#[derive(Debug, Clone, Copy)]
pub struct GroupRule {
    /// With so many groups it passes them on: the second stage can hold them, and on disk if need be.
    max_groups: usize,
    /// After so many rows it looks whether grouping is worth it.
    probe_rows: usize,
}

impl Default for GroupRule {
    fn default() -> GroupRule {
        GroupRule { max_groups: limit(1 << 20), probe_rows: limit(100_000) }
    }
}

impl PhysicalOptimizerRule for GroupRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        let replace = |node: Arc<dyn ExecutionPlan>| match node.downcast_ref::<AggregateExec>() {
            Some(aggregate) if GroupExec::can_take(aggregate) => {
                Ok(Transformed::yes(Arc::new(GroupExec::new(aggregate.clone(), *self)) as _))
            }
            Some(_) | None => Ok(Transformed::no(node)),
        };
        plan.transform_up(replace).map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "group_by_repeated_values"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The operator. Gives what the aggregate it replaces would give: grouping columns, then the states of each function.
#[derive(Debug)]
pub struct GroupExec {
    aggregate: AggregateExec,
    rule: GroupRule,
    metrics: ExecutionPlanMetricsSet,
}

impl GroupExec {
    fn can_take(aggregate: &AggregateExec) -> bool {
        let (keys, input) = (aggregate.group_expr(), aggregate.input().schema());
        let types = keys.expr().iter().map(|(expr, _)| expr.data_type(&input));
        *aggregate.mode() == AggregateMode::Partial
            && keys.is_single()
            && !keys.is_empty()
            && types.into_iter().all(|data_type| data_type.is_ok_and(|data_type| keys::is_supported(&data_type)))
            && aggregate.aggr_expr().iter().all(|f| f.groups_accumulator_supported() && f.order_bys().is_empty())
            // Those that look for a few groups only, or for groups that come in order, have operators of their own.
            && aggregate.limit_options().is_none()
            && aggregate.dynamic_expressions_produced().is_empty()
            && *aggregate.input_order_mode() == InputOrderMode::Linear
    }

    fn new(aggregate: AggregateExec, rule: GroupRule) -> GroupExec {
        GroupExec { aggregate, rule, metrics: ExecutionPlanMetricsSet::new() }
    }

    fn functions(&self) -> DfResult<Vec<Function>> {
        let (functions, filters) = (self.aggregate.aggr_expr(), self.aggregate.filter_expr());
        functions.iter().zip(filters).map(|(function, filter)| Function::new(function, filter.clone())).collect()
    }
}

impl DisplayAs for GroupExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GroupExec: ")?;
        self.aggregate.fmt_as(format, f)
    }
}

impl ExecutionPlan for GroupExec {
    fn name(&self) -> &str {
        "GroupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.aggregate.input()]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        self.aggregate.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        let aggregate = with_children(&self.aggregate, children)?;
        match aggregate.downcast_ref::<AggregateExec>() {
            Some(aggregate) if GroupExec::can_take(aggregate) => {
                Ok(Arc::new(GroupExec::new(aggregate.clone(), self.rule)))
            }
            Some(_) | None => Ok(aggregate),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.aggregate.input().execute(partition, Arc::clone(&context))?;
        let exprs = self.aggregate.group_expr().expr();
        let exprs: Vec<Arc<dyn PhysicalExpr>> = exprs.iter().map(|(expr, _)| Arc::clone(expr)).collect();
        let types = exprs.iter().map(|expr| expr.data_type(&input.schema())).collect::<DfResult<Vec<_>>>()?;
        let memory = MemoryConsumer::new(format!("GroupExec[{partition}]")).register(context.memory_pool());
        Ok(Box::pin(Grouping {
            schema: self.schema(),
            rule: self.rule,
            input,
            batch_size: context.session_config().batch_size().max(1),
            exprs,
            keys: Keys::new(types),
            functions: self.functions()?,
            groups: Vec::new(),
            rows: 0,
            phase: Phase::Group,
            ready: None,
            memory,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The aggregate over another input.
pub fn with_children(
    aggregate: &AggregateExec,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::new(aggregate.clone()).replace_children(children, recompute)
}

/// An aggregate function and its states.
struct Function {
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    states: Box<dyn GroupsAccumulator>,
}

impl Function {
    fn new(function: &AggregateFunctionExpr, filter: Option<Arc<dyn PhysicalExpr>>) -> DfResult<Function> {
        Ok(Function { arguments: function.expressions(), filter, states: function.create_groups_accumulator()? })
    }

    fn inputs(&self, batch: &RecordBatch) -> DfResult<(Vec<ArrayRef>, Option<BooleanArray>)> {
        let filter = self.filter.as_ref().map(|filter| evaluate(filter, batch)).transpose()?;
        Ok((evaluate_all(&self.arguments, batch)?, filter.map(|filter| filter.as_boolean().clone())))
    }
}

fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> DfResult<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}

fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> DfResult<Vec<ArrayRef>> {
    exprs.iter().map(|expr| evaluate(expr, batch)).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Group,
    /// Each row is a group.
    Pass,
    End,
}

/// One partition's result.
struct Grouping {
    schema: SchemaRef,
    rule: GroupRule,
    input: SendableRecordBatchStream,
    batch_size: usize,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    keys: Keys,
    functions: Vec<Function>,
    /// Of one batch.
    groups: Vec<usize>,
    rows: usize,
    phase: Phase,
    /// What is to be passed on, and how much of it has been.
    ready: Option<(RecordBatch, usize)>,
    memory: MemoryReservation,
    metrics: BaselineMetrics,
}

impl Grouping {
    fn add(&mut self, batch: &RecordBatch) -> DfResult<()> {
        let keys = evaluate_all(&self.exprs, batch)?;
        if self.phase == Phase::Pass {
            self.ready = Some((self.states_of_rows(keys, batch)?, 0));
            return Ok(());
        }
        self.groups.clear();
        self.keys.number(&keys, &mut self.groups)?;
        let total = self.keys.len();
        for function in &mut self.functions {
            let (values, filter) = function.inputs(batch)?;
            function.states.update_batch(&values, &self.groups, filter.as_ref(), total)?;
        }
        self.rows += batch.num_rows();
        let is_probed = (self.rows - batch.num_rows()..self.rows).contains(&self.rule.probe_rows);
        if is_probed && total as f64 > PROBE_PART * self.rows as f64 {
            self.phase = Phase::Pass;
        }
        let is_short = self.memory.try_resize(self.size()).is_err();
        if is_short || total >= self.rule.max_groups || self.phase == Phase::Pass {
            self.pass_on()?;
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let states: usize = self.functions.iter().map(|function| function.states.size()).sum();
        self.keys.size() + states + self.groups.capacity() * size_of::<usize>()
    }

    fn states_of_rows(&self, mut columns: Vec<ArrayRef>, batch: &RecordBatch) -> DfResult<RecordBatch> {
        for function in &self.functions {
            let (values, filter) = function.inputs(batch)?;
            columns.extend(function.states.convert_to_state(&values, filter.as_ref())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Makes what there is ready to be passed on, and forgets it.
    fn pass_on(&mut self) -> DfResult<()> {
        if self.keys.len() > 0 {
            let mut columns = self.keys.take()?;
            for function in &mut self.functions {
                columns.extend(function.states.state(EmitTo::All)?);
            }
            self.ready = Some((RecordBatch::try_new(Arc::clone(&self.schema), columns)?, 0));
        }
        Ok(())
    }

    fn next_ready(&mut self) -> Option<RecordBatch> {
        let (batch, passed) = self.ready.as_mut()?;
        let rows = self.batch_size.min(batch.num_rows() - *passed);
        let piece = batch.slice(*passed, rows);
        *passed += rows;
        if *passed == batch.num_rows() {
            self.ready = None;
            self.memory.free();
        }
        Some(piece).filter(|piece| piece.num_rows() > 0)
    }
}

impl Stream for Grouping {
    type Item = DfResult<RecordBatch>;

    fn poll_next(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let time = this.metrics.elapsed_compute().clone();
        loop {
            if let Some(piece) = this.next_ready() {
                return this.metrics.record_poll(Poll::Ready(Some(Ok(piece))));
            }
            if this.phase == Phase::End {
                return Poll::Ready(None);
            }
            let next = ready!(this.input.poll_next_unpin(context));
            let _timer = time.timer();
            let done = match next {
                Some(Ok(batch)) => this.add(&batch),
                Some(Err(err)) => Err(err),
                None => {
                    this.phase = Phase::End;
                    this.pass_on()
                }
            };
            if let Err(err) = done {
                this.phase = Phase::End;
                this.ready = None;
                return Poll::Ready(Some(Err(err)));
            }
        }
    }
}

impl RecordBatchStream for Grouping {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests;
