//! Counting in the archive without reading rows.
//!
//! `SELECT status, count(*) … GROUP BY status` over months of logs asks how often each value is there. A row group whose
//! columns are stored by dictionary has few distinct rows: [`TallyExec`] counts how often each combination of codes
//! (`codes.rs`) is there, makes rows of the combinations, and evaluates groups, filters and predicates on these: once for each
//! combination instead of once for each row.
//!
//! ```text
//!     AggregateExec(Partial)             TallyExec            partial states, which the second stage merges as ever
//!       DataSourceExec (archive)   →       DataSourceExec     row groups that cannot be taken this way
//! ```
//!
//! [`TallyRule`] puts it in the place of the first of two stages of an aggregate that only counts. Each row group is looked at
//! by itself: a predicate that its statistics prove to hold for all its rows is not looked at again (so a range of time costs
//! only the row groups at its ends), one that they prove to hold for none saves reading it, and a row group that
//! has too many combinations, or a column that is not stored by dictionary, is left to DataFusion's operators.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter, filter_record_batch, prep_null_mask_filter, take};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties};
use futures::{StreamExt, TryStreamExt};

use super::codes::{Codes, numbers};
use super::encode::whole_numbers;
use crate::rollup::group::with_children;

/// Combinations that are counted: their counters fit into a processor's cache.
const MAX_COMBINATIONS: usize = 1 << 16;

/// With less rows than so many for each combination, counting rows costs no more than counting combinations and merging them.
const ROWS_PER_COMBINATION: usize = 4;

/// On a file that the archive has written: its columns have the archive's names and types, and all its rows are there.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnFile;

/// See the file header.
#[derive(Debug, Clone, Copy, Default)]
pub struct TallyRule;

impl PhysicalOptimizerRule for TallyRule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match node.downcast_ref::<AggregateExec>() {
            Some(aggregate) => Ok(tallied(aggregate)?.map_or(Transformed::no(node), Transformed::yes)),
            None => Ok(Transformed::no(node)),
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "tally_archive"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What takes the place of an aggregate, if something can.
fn tallied(aggregate: &AggregateExec) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if *aggregate.mode() != AggregateMode::Partial || *aggregate.input_order_mode() != InputOrderMode::Linear {
        return Ok(None);
    }
    let Some(union) = aggregate.input().downcast_ref::<UnionExec>() else {
        return Ok(TallyExec::new(aggregate)?.map(|tally| Arc::new(tally) as _));
    };
    // Of a stream's archive and its rows in memory each gets an aggregate of its own: the second stage merges states of many.
    let mut found = false;
    let branch = |child: &Arc<dyn ExecutionPlan>| -> DfResult<Arc<dyn ExecutionPlan>> {
        let own = with_children(aggregate, vec![Arc::clone(child)])?;
        Ok(match own.downcast_ref::<AggregateExec>().map(TallyExec::new).transpose()?.flatten() {
            Some(tally) => {
                found = true;
                Arc::new(tally)
            }
            None => own,
        })
    };
    let branches = union.inputs().iter().map(branch).collect::<DfResult<Vec<_>>>()?;
    if found { UnionExec::try_new(branches).map(Some) } else { Ok(None) }
}

/// The operator. Gives what the aggregate it replaces would give: grouping columns, then the states of each function;
/// a group may come more than once.
#[derive(Debug)]
pub struct TallyExec {
    aggregate: AggregateExec,
    work: Arc<Work>,
    metrics: ExecutionPlanMetricsSet,
}

impl TallyExec {
    /// `None` if the aggregate does anything but count, or reads anything but files of an archive.
    fn new(aggregate: &AggregateExec) -> DfResult<Option<TallyExec>> {
        let keys = aggregate.group_expr();
        let counts = aggregate.aggr_expr().iter().all(|function| {
            function.fun().name() == "count" && !function.is_distinct() && function.order_bys().is_empty()
        });
        let is_plain = counts
            && (keys.is_single() || keys.is_empty())
            && aggregate.limit_options().is_none()
            && aggregate.dynamic_expressions_produced().is_empty();
        if !is_plain {
            return Ok(None);
        }
        let Some(work) = Work::of(aggregate)? else { return Ok(None) };
        Ok(Some(TallyExec {
            aggregate: aggregate.clone(),
            work: Arc::new(work),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }
}

impl DisplayAs for TallyExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TallyExec: ")?;
        self.aggregate.fmt_as(format, f)
    }
}

impl ExecutionPlan for TallyExec {
    fn name(&self) -> &str {
        "TallyExec"
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
        Ok(match aggregate.downcast_ref::<AggregateExec>().map(TallyExec::new).transpose()?.flatten() {
            Some(tally) => Arc::new(tally),
            None => aggregate,
        })
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let Some(group) = self.work.scan.file_groups.get(partition) else {
            return internal_err!("a tally has no partition {partition}");
        };
        let run = Run {
            work: Arc::clone(&self.work),
            aggregate: self.aggregate.clone(),
            partition,
            context,
            reading: ExecutionPlanMetricsSet::new(),
            gave_up: AtomicBool::new(false),
            time: BaselineMetrics::new(&self.metrics, partition),
            left: MetricBuilder::new(&self.metrics).counter("row_groups_left", partition),
            counted: MetricBuilder::new(&self.metrics).counter("row_groups_counted", partition),
        };
        let files = futures::stream::iter(group.files().to_vec());
        let run = Arc::new(run);
        let states = files.then(move |file| {
            let run = Arc::clone(&run);
            async move { run.file(file).await }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), states.try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// What is to be counted, in terms of the archive's columns.
#[derive(Debug)]
struct Work {
    scan: FileScanConfig,
    readers: Arc<dyn ParquetFileReaderFactory>,
    /// The archive's columns.
    stored: SchemaRef,
    groups: Vec<Arc<dyn PhysicalExpr>>,
    counts: Vec<Count>,
    /// All of them hold for the rows that count.
    predicates: Vec<Arc<dyn PhysicalExpr>>,
    /// The states.
    schema: SchemaRef,
}

/// One `count(…) FILTER (WHERE …)`.
#[derive(Debug)]
struct Count {
    /// Rows in which one of them is NULL do not count.
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

impl Work {
    fn of(aggregate: &AggregateExec) -> DfResult<Option<Work>> {
        let input = aggregate.input();
        let Some((scan, source)) =
            input.downcast_ref::<DataSourceExec>().and_then(DataSourceExec::downcast_to_file_source::<ParquetSource>)
        else {
            return Ok(None);
        };
        let mut files = scan.file_groups.iter().flat_map(FileGroup::iter);
        let is_own = |file: &PartitionedFile| file.extension::<OwnFile>().is_some();
        let (true, None, Some(readers)) = (files.all(is_own), scan.limit, source.parquet_file_reader_factory()) else {
            return Ok(None);
        };
        // The aggregate's expressions are over what the scan gives, and that is made of the archive's columns.
        let projection = scan.file_source.projection().cloned();
        let projected = |expr: &Arc<dyn PhysicalExpr>| -> DfResult<Arc<dyn PhysicalExpr>> {
            let Some(projection) = &projection else { return Ok(Arc::clone(expr)) };
            let columns = projection.as_ref();
            let replaced = Arc::clone(expr).transform_down(|node| match node.downcast_ref::<Column>() {
                Some(column) => match columns.get(column.index()) {
                    Some(own) => Ok(Transformed::new(Arc::clone(&own.expr), true, TreeNodeRecursion::Jump)),
                    None => internal_err!("a scan has no column {}", column.index()),
                },
                None => Ok(Transformed::no(node)),
            });
            replaced.map(|replaced| replaced.data)
        };
        let all = |exprs: &[Arc<dyn PhysicalExpr>]| exprs.iter().map(&projected).collect::<DfResult<Vec<_>>>();
        let groups: Vec<_> = aggregate.group_expr().expr().iter().map(|(expr, _)| Arc::clone(expr)).collect();
        let count = |(function, filter): (&Arc<_>, &Option<Arc<dyn PhysicalExpr>>)| -> DfResult<Count> {
            let function: &datafusion::physical_expr::aggregate::AggregateFunctionExpr = function;
            let filter = filter.as_ref().map(&projected).transpose()?;
            Ok(Count { arguments: all(&function.expressions())?, filter })
        };
        let counts = aggregate.aggr_expr().iter().zip(aggregate.filter_expr()).map(count);
        let predicate = scan.file_source.filter();
        let predicates = predicate.iter().flat_map(|predicate| split_conjunction(predicate)).map(Arc::clone).collect();
        let work = Work {
            readers: Arc::clone(readers),
            stored: Arc::clone(scan.file_schema()),
            groups: all(&groups)?,
            counts: counts.collect::<DfResult<_>>()?,
            predicates,
            schema: aggregate.schema(),
            scan: scan.clone(),
        };
        // One that gives another value for each row cannot be asked once for many.
        let is_settled = !work.exprs().chain(&work.predicates).any(is_volatile);
        Ok(is_settled.then_some(work))
    }

    fn exprs(&self) -> impl Iterator<Item = &Arc<dyn PhysicalExpr>> {
        let counted = self.counts.iter().flat_map(|count| count.arguments.iter().chain(&count.filter));
        self.groups.iter().chain(counted)
    }
}

/// What is known of a row group.
enum Prospect {
    /// No row matches.
    Nothing,
    /// All rows match for which the predicates of these numbers hold.
    Open(Vec<usize>),
}

/// One partition at work.
struct Run {
    work: Arc<Work>,
    aggregate: AggregateExec,
    partition: usize,
    context: Arc<TaskContext>,
    reading: ExecutionPlanMetricsSet,
    /// A row group was read for nothing: the next one would be as well.
    gave_up: AtomicBool,
    time: BaselineMetrics,
    left: datafusion::physical_plan::metrics::Count,
    counted: datafusion::physical_plan::metrics::Count,
}

impl Run {
    /// The states of a file's rows.
    async fn file(&self, file: PartitionedFile) -> DfResult<SendableRecordBatchStream> {
        let hint = file.metadata_size_hint;
        let mut reader = self.work.readers.create_reader(self.partition, file.clone(), hint, &self.reading)?;
        let metadata = reader.get_metadata(None).await?;
        let mut left = ParquetAccessPlan::new_none(metadata.num_row_groups());
        let mut states = Vec::new();
        for (number, row_group) in metadata.row_groups().iter().enumerate() {
            if !is_in_range(row_group, &file) {
                continue;
            }
            let Prospect::Open(open) = self.prospect(&metadata, row_group)? else { continue };
            match self.row_group(reader.as_mut(), &metadata, row_group, &open).await? {
                Some(batch) => {
                    self.counted.add(1);
                    states.push(batch);
                }
                None => {
                    self.left.add(1);
                    left.scan(number);
                }
            }
        }
        let schema = Arc::clone(&self.work.schema);
        let states = if states.is_empty() { Vec::new() } else { vec![concat_batches(&schema, &states)?] };
        let counted = futures::stream::iter(states.into_iter().map(Ok));
        if left.row_group_indexes().is_empty() {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)));
        }
        let group = FileGroup::new(vec![file.with_extension(left)]);
        let scan = FileScanConfigBuilder::from(self.work.scan.clone()).with_file_groups(vec![group]).build();
        let rows: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
        let rest = with_children(&self.aggregate, vec![rows])?.execute(0, Arc::clone(&self.context))?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted.chain(rest))))
    }

    /// What the statistics of a row group say of the predicates.
    fn prospect(&self, metadata: &ParquetMetaData, row_group: &RowGroupMetaData) -> DfResult<Prospect> {
        let mut open = Vec::new();
        for (number, predicate) in self.work.predicates.iter().enumerate() {
            match proven(predicate, &self.work.stored, metadata, row_group)? {
                Some(true) => {}
                Some(false) => return Ok(Prospect::Nothing),
                None => open.push(number),
            }
        }
        Ok(Prospect::Open(open))
    }

    /// The states of a row group's rows, of which the `open` predicates have to hold; `None` if it has to be left.
    async fn row_group(
        &self,
        reader: &mut (dyn AsyncFileReader + Send),
        metadata: &ParquetMetaData,
        row_group: &RowGroupMetaData,
        open: &[usize],
    ) -> DfResult<Option<RecordBatch>> {
        let work = &self.work;
        let open: Vec<_> = open.iter().map(|number| &work.predicates[*number]).collect();
        let names: BTreeSet<usize> = work.exprs().chain(open.iter().copied()).flat_map(indexes).collect();
        if self.gave_up.load(Ordering::Relaxed) && !names.is_empty() {
            return Ok(None);
        }
        let fields: Vec<FieldRef> = names.iter().map(|index| Arc::clone(&work.stored.fields()[*index])).collect();
        let mut columns: Vec<&ColumnChunkMetaData> = Vec::with_capacity(fields.len());
        for field in &fields {
            let Some(column) = chunk_of(metadata, row_group, field.name()) else { return Ok(None) };
            if column.dictionary_page_offset().is_none() {
                return Ok(None);
            }
            columns.push(column);
        }
        let ranges = columns.iter().map(|column| {
            let (start, len) = column.byte_range();
            start..start + len
        });
        let chunks = match fields.is_empty() {
            true => Vec::new(),
            false => reader.get_byte_ranges(ranges.collect()).await?,
        };
        let _timer = self.time.elapsed_compute().timer();
        let rows = usize::try_from(row_group.num_rows()).unwrap_or(0);
        let Some((combinations, weights)) = distinct_rows(chunks, &columns, fields, rows)? else {
            self.gave_up.store(true, Ordering::Relaxed);
            return Ok(None);
        };
        self.states(combinations, weights, &open).map(Some)
    }

    /// The states of rows that come as often as `weights` says.
    fn states(
        &self,
        mut rows: RecordBatch,
        mut weights: Int64Array,
        open: &[&Arc<dyn PhysicalExpr>],
    ) -> DfResult<RecordBatch> {
        for predicate in open {
            let holds = truth(predicate, &rows)?;
            weights = filter(&weights, &holds)?.as_primitive().clone();
            rows = filter_record_batch(&rows, &holds)?;
        }
        let groups = self.work.groups.iter().map(|expr| value(expr, &rows));
        let mut columns = groups.collect::<DfResult<Vec<ArrayRef>>>()?;
        for count in &self.work.counts {
            let wanted = count.filter.as_ref().map(|filter| truth(filter, &rows)).transpose()?;
            let arguments = count.arguments.iter().map(|argument| value(argument, &rows));
            let nulls = arguments.map(|a| Ok(a?.logical_nulls())).collect::<DfResult<Vec<_>>>()?;
            let counts = |row: usize| {
                wanted.as_ref().is_none_or(|wanted| wanted.value(row))
                    && nulls.iter().flatten().all(|nulls| nulls.is_valid(row))
            };
            let counted = (0..rows.num_rows()).map(|row| if counts(row) { weights.value(row) } else { 0 });
            columns.push(Arc::new(Int64Array::from_iter_values(counted)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.work.schema), columns, &options)?)
    }
}

/// DataFusion's rule for files that are cut in pieces: a row group belongs to the piece in which it begins.
fn is_in_range(row_group: &RowGroupMetaData, file: &PartitionedFile) -> bool {
    let first = row_group.column(0);
    let begin = first.dictionary_page_offset().unwrap_or_else(|| first.data_page_offset());
    file.range.as_ref().is_none_or(|range| range.contains(begin))
}

fn indexes(expr: &Arc<dyn PhysicalExpr>) -> Vec<usize> {
    collect_columns(expr).iter().map(Column::index).collect()
}

fn chunk_of<'a>(
    metadata: &ParquetMetaData,
    row_group: &'a RowGroupMetaData,
    name: &str,
) -> Option<&'a ColumnChunkMetaData> {
    let leaves = metadata.file_metadata().schema_descr().columns();
    let at = leaves.iter().position(|leaf| matches!(leaf.path().parts(), [only] if only == name))?;
    row_group.columns().get(at)
}

/// Evaluates an expression over the archive's columns on a batch that has those it needs.
fn value(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> DfResult<ArrayRef> {
    reassign_expr_columns(Arc::clone(expr), &rows.schema())?.evaluate(rows)?.into_array(rows.num_rows())
}

/// Where a condition is true; NULL is not.
fn truth(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> DfResult<BooleanArray> {
    let value = value(expr, rows)?;
    let Some(value) = value.as_boolean_opt() else { return internal_err!("a condition is not boolean") };
    Ok(if value.null_count() > 0 { prep_null_mask_filter(value) } else { value.clone() })
}

/// The distinct rows of a row group and how often each is there; `None` if they are too many, or not all columns can be
/// had as codes.
fn distinct_rows(
    chunks: Vec<Bytes>,
    columns: &[&ColumnChunkMetaData],
    fields: Vec<FieldRef>,
    rows: usize,
) -> DfResult<Option<(RecordBatch, Int64Array)>> {
    let schema = Arc::new(Schema::new(fields));
    let most = MAX_COMBINATIONS.min(rows / ROWS_PER_COMBINATION);
    let mut coded = Vec::with_capacity(columns.len());
    let mut room = 1;
    for ((chunk, column), field) in chunks.into_iter().zip(columns).zip(schema.fields()) {
        let Some(codes) = Codes::decode(chunk, column, rows, field.data_type(), most / room)? else { return Ok(None) };
        room *= codes.values.len();
        coded.push(codes);
        if room > most {
            return Ok(None);
        }
    }
    let tallies = tally(&coded, room, rows);
    let present: Vec<u32> = (0u32..).zip(&tallies).filter(|(_, count)| **count > 0).map(|(at, _)| at).collect();
    let weights = present.iter().map(|at| i64::from(tallies[*at as usize]));
    let weights = Int64Array::from_iter_values(weights);
    // The number of a combination has the last column's code in front.
    let mut below = 1;
    let mut arrays = Vec::with_capacity(coded.len());
    for codes in &coded {
        let values = codes.values.len() as u32;
        let own = UInt32Array::from_iter_values(present.iter().map(|at| at / below % values));
        arrays.push(take(&codes.values, &own, None)?);
        below *= values;
    }
    // What the archive says is never NULL may still be, as far as an array knows.
    let nullable = |field: &FieldRef| Field::clone(field).with_nullable(true);
    let schema = Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(present.len()));
    Ok(Some((RecordBatch::try_new_with_options(schema, arrays, &options)?, weights)))
}

/// How often each combination of codes is there; the first column's code is the lowest digit of its number.
fn tally(columns: &[Codes], combinations: usize, rows: usize) -> Vec<u32> {
    let (first, others) = match columns {
        [] => return vec![u32::try_from(rows).unwrap_or(u32::MAX)],
        [first, others @ ..] => (first, others),
    };
    if others.is_empty() {
        return count(first.rows.iter().map(|code| u32::from(*code)), combinations);
    }
    let mut numbers: Vec<u32> = first.rows.iter().map(|code| u32::from(*code)).collect();
    let mut below = first.values.len() as u32;
    for column in others {
        for (number, code) in numbers.iter_mut().zip(&column.rows) {
            *number += u32::from(*code) * below;
        }
        below *= column.values.len() as u32;
    }
    count(numbers.into_iter(), combinations)
}

/// Counts numbers below `len`. The same number often comes several times running, and a counter that was written just now
/// cannot be read at once: four rows in a row have four counters.
fn count(numbers: impl Iterator<Item = u32>, len: usize) -> Vec<u32> {
    let mut counters = vec![[0u32; 4]; len];
    for (row, number) in numbers.enumerate() {
        counters[number as usize][row % 4] += 1;
    }
    counters.into_iter().map(|four| four.iter().sum()).collect()
}

/// Whether a predicate holds for all rows of a row group or for none, as far as its statistics tell: for comparisons of a column
/// with a constant.
fn proven(
    predicate: &Arc<dyn PhysicalExpr>,
    stored: &SchemaRef,
    metadata: &ParquetMetaData,
    row_group: &RowGroupMetaData,
) -> DfResult<Option<bool>> {
    let Some(comparison) = predicate.downcast_ref::<BinaryExpr>() else { return Ok(None) };
    let (left, right) = (comparison.left(), comparison.right());
    let (column, operator) = match (left.downcast_ref::<Column>(), right.downcast_ref::<Column>()) {
        (Some(column), None) if right.downcast_ref::<Literal>().is_some() => (column, *comparison.op()),
        (None, Some(column)) if left.downcast_ref::<Literal>().is_some() => match comparison.op().swap() {
            Some(operator) => (column, operator),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let Some(chunk) = chunk_of(metadata, row_group, column.name()) else { return Ok(None) };
    let statistics = chunk.statistics().filter(|statistics| statistics.null_count_opt() == Some(0));
    let Some((min, max)) = statistics.and_then(whole_numbers) else { return Ok(None) };
    let field = stored.field(column.index());
    let Some(bounds) = numbers([Some(min), Some(max)], field.data_type())? else { return Ok(None) };
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let holds = truth(predicate, &RecordBatch::try_new(schema, vec![bounds])?)?;
    let (at_min, at_max) = (holds.value(0), holds.value(1));
    // What lies between the two is as they are, where the comparison has a direction.
    Ok(match operator {
        Operator::Lt | Operator::LtEq if at_max => Some(true),
        Operator::Lt | Operator::LtEq if !at_min => Some(false),
        Operator::Gt | Operator::GtEq if at_min => Some(true),
        Operator::Gt | Operator::GtEq if !at_max => Some(false),
        Operator::Eq if at_min && at_max => Some(true),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
