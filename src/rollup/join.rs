//! The map stage of a rollup that joins two streams, with DataFusion's hash join in its middle:
//!
//! ```text
//!     rows of the first stream  ──► filters, projections ──┐
//!                                                          ├──► join ──► filters, projections ──► Aggregate(Partial)
//!     rows of the second stream ──► filters, projections ──┘
//! ```
//!
//! Both leaves are exchanged for each piece of work: a micro-batch of one stream, and rows of the other that may match.
//! The pairs of all rows are the pairs of each micro-batch with what was there before it, so partial states of pairs add
//! up. What a LEFT JOIN has besides, rows of the first stream without a match, is asked for by itself
//! ([`JoinStage::without_match`], [`JoinStage::alone`]): with the next row it may be less, so it is kept apart
//! (`unmatched.rs`).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::{JoinType, ScalarValue};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::maintain::{leaf_of, run, with_leaf};
use crate::error::{Error, Kind, Result};

/// One of the two streams: the one that is named first, or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// Plans `logical`, an aggregate over a join of two streams.
pub async fn plan(state: &SessionState, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let optimized = state.optimize(logical)?;
    Ok(state.query_planner().create_physical_plan(&optimized, state).await?)
}

/// See the file header.
pub struct JoinStage {
    /// Down to the leaves.
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    leaves: (SchemaRef, SchemaRef),
    join: HashJoinExec,
    outer: bool,
    /// From the partial aggregate down to the join.
    partial: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

impl JoinStage {
    /// The parts of a planned `Aggregate(Partial)`; `None` when there is no join of this form below it.
    pub fn of(partial: &Arc<AggregateExec>, context: &Arc<TaskContext>) -> Option<JoinStage> {
        let partial = Arc::clone(partial) as Arc<dyn ExecutionPlan>;
        let mut node = Arc::clone(&partial);
        while node.downcast_ref::<HashJoinExec>().is_none() {
            let children = node.children();
            let [child] = children.as_slice() else { return None };
            let child = Arc::clone(child);
            node = child;
        }
        let join = node.downcast_ref::<HashJoinExec>()?;
        let outer = match join.join_type() {
            JoinType::Inner => false,
            JoinType::Left => true,
            _ => return None,
        };
        let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
        if !is_chain(&left) || !is_chain(&right) || join.projection.is_some() {
            return None;
        }
        let leaves = (leaf_of(&left).schema(), leaf_of(&right).schema());
        let join = join.builder().with_partition_mode(PartitionMode::CollectLeft).build().ok()?;
        Some(JoinStage { left, right, leaves, join, outer, partial, context: Arc::clone(context) })
    }

    /// Whether rows of the first stream without a match count.
    pub fn is_outer(&self) -> bool {
        self.outer
    }

    /// The rows of one stream as they come to the join: those that pass the filters below it.
    pub fn side(&self, side: Side, rows: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let (plan, leaf) = match side {
            Side::Left => (&self.left, &self.leaves.0),
            Side::Right => (&self.right, &self.leaves.1),
        };
        let rows = rows.iter().map(|rows| crate::batch::fit(rows, leaf)).collect::<Result<Vec<_>>>()?;
        let source = MemorySourceConfig::try_new_exec(&[rows], Arc::clone(leaf), None)?;
        let mut batches = run(with_leaf(plan, &(source as _), &[])?, &self.context)?;
        batches.retain(|batch| batch.num_rows() > 0);
        Ok(batches)
    }

    /// The aggregate over all pairs of these rows.
    pub fn pairs(&self, left: &[RecordBatch], right: &[RecordBatch]) -> Result<Arc<dyn ExecutionPlan>> {
        self.aggregated(self.over(left, right, JoinType::Inner)?)
    }

    /// Those rows of the first stream that match none of the second's.
    pub fn without_match(&self, left: &[RecordBatch], right: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        self.chosen(left, right, JoinType::LeftAnti)
    }

    /// Whether any two of these rows match.
    pub fn any_match(&self, left: &[RecordBatch], right: &[RecordBatch]) -> Result<bool> {
        Ok(!self.chosen(left, right, JoinType::LeftSemi)?.is_empty())
    }

    fn chosen(&self, left: &[RecordBatch], right: &[RecordBatch], join_type: JoinType) -> Result<Vec<RecordBatch>> {
        let mut batches = run(self.over(left, right, join_type)?, &self.context)?;
        batches.retain(|batch| batch.num_rows() > 0);
        Ok(batches)
    }

    /// The aggregate over rows of the first stream that have no match, with NULLs in the columns of the second.
    pub fn alone(&self, left: &[RecordBatch]) -> Result<Arc<dyn ExecutionPlan>> {
        let source = memory(left, &self.left.schema())?;
        let mut columns = Vec::new();
        for (i, field) in self.left.schema().fields().iter().enumerate() {
            columns.push(ProjectionExpr { expr: Arc::new(Column::new(field.name(), i)), alias: field.name().clone() });
        }
        for field in self.right.schema().fields() {
            let null = Literal::new(ScalarValue::try_from(field.data_type())?);
            columns.push(ProjectionExpr { expr: Arc::new(null), alias: field.name().clone() });
        }
        self.aggregated(Arc::new(ProjectionExec::try_new(columns, source)?))
    }

    /// The join over these rows, of another type. The smaller side is put into the hash table.
    fn over(&self, left: &[RecordBatch], right: &[RecordBatch], join_type: JoinType) -> Result<Arc<dyn ExecutionPlan>> {
        let sides = vec![memory(left, &self.left.schema())?, memory(right, &self.right.schema())?];
        // Without a reset it would go on with the hash table of another run.
        let join = self.join.builder().with_type(join_type).with_new_children(sides)?.reset_state().build()?;
        let count = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        if count(left) > count(right) { Ok(join.swap_inputs(PartitionMode::CollectLeft)?) } else { Ok(Arc::new(join)) }
    }

    /// The operators above the join, over other rows.
    fn aggregated(&self, joined: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        fn above(plan: &Arc<dyn ExecutionPlan>, joined: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
            if plan.downcast_ref::<HashJoinExec>().is_some() {
                return Ok(joined);
            }
            let child = above(plan.children()[0], joined)?;
            let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
            Ok(Arc::clone(plan).replace_children(vec![child], keep)?)
        }
        above(&self.partial, joined)
    }
}

fn memory(batches: &[RecordBatch], schema: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>> {
    // Operators may name or mark columns differently than their schema says; the types are the same.
    let batches = batches.iter().map(|b| RecordBatch::try_new(Arc::clone(schema), b.columns().to_vec()));
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    Ok(MemorySourceConfig::try_new_exec(&[batches], Arc::clone(schema), None)?)
}

fn is_chain(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match plan.children().as_slice() {
        [] => true,
        [child] => is_chain(child),
        _ => false,
    }
}

pub fn not_joinable() -> Error {
    Error::new(Kind::NotSupported, "this join of two streams cannot be kept up to date")
        .with_hint("Join the two streams by an equality and a bound on the time between their rows, JOIN or LEFT JOIN.")
}
