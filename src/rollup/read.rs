//! Reads the runs of a rollup as DataFusion asks for them: partial rows as they are, or finished.
//!
//! [`StatesExec`] goes through its parts slice by slice (`slice.rs`). Finishing works on one slice at a time: all rows of
//! a group are in one slice, so the results of all slices together are the result, and the memory it takes does not
//! depend on the size of the state. What is read from files and what finishing needs is reserved in the query's pool.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DfResult, Statistics};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs};
use futures::StreamExt;

use super::slice::{Order, Part, Slices};
use crate::error::{Error, Result};

/// Puts operators above partial rows that turn them into results.
pub type Finish = dyn Fn(Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> + Send + Sync;

/// See the file header.
pub struct StatesExec {
    partitions: Vec<Vec<Part>>,
    order: Arc<Order>,
    /// Only partial rows for which it holds.
    condition: Option<Arc<dyn PhysicalExpr>>,
    finish: Option<Arc<Finish>>,
    properties: Arc<PlanProperties>,
}

impl StatesExec {
    /// Deals `parts` to `partitions`. With `finish`, and the schema that it gives, results come out.
    pub fn new(
        parts: Vec<Part>,
        partitions: usize,
        order: Arc<Order>,
        finish: Option<(Arc<Finish>, SchemaRef)>,
    ) -> Result<StatesExec> {
        let mut dealt = vec![Vec::new(); partitions.max(1)];
        let mut next = 0;
        for part in parts {
            for piece in part.split(dealt.len()) {
                dealt[next].push(piece);
                next = (next + 1) % dealt.len();
            }
        }
        let (finish, schema) = match finish {
            Some((finish, schema)) => (Some(finish), schema),
            None => (None, Arc::clone(&order.schema)),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(dealt.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(StatesExec { partitions: dealt, order, condition: None, finish, properties: Arc::new(properties) })
    }

    /// The same of those partial rows for which a condition holds.
    pub fn with_condition(self, condition: Option<Arc<dyn PhysicalExpr>>) -> StatesExec {
        StatesExec { condition, ..self }
    }

    /// An estimate of the rows of one partition or of all.
    fn rows(&self, partition: Option<usize>) -> usize {
        let parts = |parts: &Vec<Part>| parts.iter().map(|part| part.rows).sum::<usize>();
        match partition {
            Some(i) => self.partitions.get(i).map_or(0, parts),
            None => self.partitions.iter().map(parts).sum(),
        }
    }
}

impl fmt::Debug for StatesExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatesExec({} rows)", self.rows(None))
    }
}

impl DisplayAs for StatesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let parts = self.partitions.iter().flatten();
        let slices: usize = parts.clone().map(Part::count).sum();
        let disk = parts.flat_map(|p| &p.runs).any(|r| !r.in_memory());
        let what = if self.finish.is_some() { "finished" } else { "partial" };
        write!(f, "RollupScan: {what}, rows={}, slices={slices}", self.rows(None))?;
        if let Some(condition) = &self.condition {
            write!(f, ", where {condition}")?;
        }
        if disk { write!(f, ", on disk") } else { Ok(()) }
    }
}

impl ExecutionPlan for StatesExec {
    fn name(&self) -> &str {
        "RollupScan"
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

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = Precision::Inexact(self.rows(args.partition()));
        Ok(Arc::new(statistics))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let reading = Reading {
            parts: self.partitions[partition].iter().cloned().collect(),
            slices: None,
            order: Arc::clone(&self.order),
            condition: self.condition.clone(),
            finish: self.finish.clone(),
            current: None,
            reservation: MemoryConsumer::new("RollupScan").register(context.memory_pool()),
            context,
        };
        let batches = futures::stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|batch| (batch, reading)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// One partition being read.
struct Reading {
    parts: VecDeque<Part>,
    slices: Option<Slices>,
    order: Arc<Order>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    finish: Option<Arc<Finish>>,
    /// The batches of the slice at hand.
    current: Option<SendableRecordBatchStream>,
    reservation: MemoryReservation,
    context: Arc<TaskContext>,
}

impl Reading {
    async fn next(&mut self) -> DfResult<Option<RecordBatch>> {
        loop {
            if let Some(current) = &mut self.current {
                match current.next().await {
                    Some(batch) => return Ok(Some(batch?)),
                    None => self.current = None,
                }
            }
            let Some(slices) = &mut self.slices else {
                let Some(part) = self.parts.pop_front() else {
                    self.reservation.free();
                    return Ok(None);
                };
                self.slices = Some(Slices::new(part));
                continue;
            };
            let Some(mut slice) = slices.next(&self.order)? else {
                self.slices = None;
                continue;
            };
            self.reservation.try_resize(slice.loaded)?;
            if let Some(condition) = &self.condition {
                slice.batches = slice.batches.iter().map(|rows| only(condition, rows)).collect::<Result<_>>()?;
                slice.batches.retain(|rows| rows.num_rows() > 0);
            }
            if !slice.batches.is_empty() {
                self.current = Some(self.batches_of(slice.batches)?);
            }
        }
    }

    /// What comes out for the partial rows of a slice.
    fn batches_of(&self, rows: Vec<RecordBatch>) -> DfResult<SendableRecordBatchStream> {
        let schema = Arc::clone(&self.order.schema);
        match &self.finish {
            Some(finish) => {
                let input = MemorySourceConfig::try_new_exec(&[rows], schema, None)?;
                finish(input)?.execute(0, Arc::clone(&self.context))
            }
            None => {
                let batches = futures::stream::iter(rows.into_iter().map(Ok));
                Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
            }
        }
    }
}

/// The rows for which a condition holds.
fn only(condition: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<RecordBatch> {
    let holds = condition.evaluate(rows)?.into_array(rows.num_rows())?;
    let holds = holds.as_boolean_opt().ok_or_else(|| Error::internal("a condition is no boolean"))?;
    Ok(if holds.true_count() == rows.num_rows() { rows.clone() } else { filter_record_batch(rows, holds)? })
}
