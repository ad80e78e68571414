//! A plan that reads a version of the archive.
//!
//! The files are read by DataFusion's own Parquet source: it skips row groups and pages by statistics, page indexes and
//! Bloom filters, and decodes the other columns only of rows that the filters let through. This module says which
//! files, under which names and types, and shares them out over the partitions.
//!
//! A column that no file has is NULL. One that was stored under several types (see `names.rs`) is, in each row, what
//! was stored, converted to the wanted type as far as it can be.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileGroupPartitioner, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::{Expr, lit, try_cast, when};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::filter_pushdown::PushedDown;
use datafusion::physical_plan::projection::ProjectionExec;
use object_store::ObjectMeta;

use super::arrange::in_memory;
use super::names::{Names, stored_type};
use super::reader::Readers;
use super::tally::OwnFile;
use super::{Archive, Archived, ArchivedFile, OFFSET, WATERMARK};
use crate::format::timestamp_type;
use crate::time::{Micros, UTC};

/// Files that are smaller than this together are not cut to share them out.
const CUT_BYTES: usize = 4 * 1024 * 1024;

impl Archive {
    /// A plan over the rows of `archived` with offsets in `offsets` (`None`: all), or over the late ones among them.
    ///
    /// `schema` names the wanted columns as the stream does, and [`OFFSET`] and [`WATERMARK`]; `projection` chooses of
    /// them. Files whose event times are all outside the closed range `times` are left out. `filters` are applied as
    /// far as they can be, and may be applied again. `None` when no file is left.
    #[expect(clippy::too_many_arguments, reason = "what a TableProvider is asked, and what only an archive knows")]
    pub fn scan(
        &self,
        archived: &Archived,
        state: &dyn Session,
        schema: SchemaRef,
        projection: Option<&Vec<usize>>,
        times: Option<(Micros, Micros)>,
        offsets: Option<Range<u64>>,
        filters: &[Expr],
        late_only: bool,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let wanted = |file: &ArchivedFile| {
            offsets.as_ref().is_none_or(|range| file.first < range.end && file.end > range.start)
                && times.zip(file.times).is_none_or(|((lo, hi), (first, last))| first <= hi && last >= lo)
                && (!late_only || file.late > 0)
        };
        let files: Vec<&ArchivedFile> = archived.files().map(Arc::as_ref).filter(|file| wanted(file)).collect();
        if files.is_empty() {
            return Ok(None);
        }
        let columns = Columns::new(&schema, &archived.names);
        let exact = exact_filters(&files, offsets, late_only);
        let time = self.spec.time.as_deref().and_then(|time| archived.names.find_exact(time, &timestamp_type()));
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let wanted = columns.named(state, &schema, projection.unwrap_or(&all))?;
        let runtime = state.runtime_env();
        self.register(runtime);
        let readers = Arc::new(Readers::new(&self.spec.name, &self.store, runtime));
        let config = state.config_options();
        let options = TableParquetOptions { global: config.execution.parquet.clone(), ..Default::default() };
        let mut source: Arc<dyn FileSource> = Arc::new(
            ParquetSource::new(Arc::clone(&columns.stored))
                .with_table_parquet_options(options)
                .with_parquet_file_reader_factory(readers)
                .with_pushdown_filters(true)
                .with_enable_page_index(true)
                .with_bloom_filter_on_read(true),
        );
        // Filters are over all columns; which of them come out is said last.
        let stored = DFSchema::try_from(columns.stored.as_ref().clone())?;
        let physical = |filter: &Expr| state.create_physical_expr(filter.clone(), &stored);
        let exact = exact.iter().map(physical).collect::<DfResult<Vec<_>>>()?;
        // One that cannot be had under the stored names is left to those who apply them again.
        let filters =
            filters.iter().filter_map(|filter| columns.translate(filter, &schema)).filter_map(|f| physical(&f).ok());
        let mut left = Vec::new();
        let pushed: Vec<Arc<dyn PhysicalExpr>> = exact.iter().cloned().chain(filters).collect();
        if !pushed.is_empty() {
            let answer = source.try_pushdown_filters(pushed, config)?;
            let taken = |i: &usize| matches!(answer.filters.get(*i), Some(PushedDown::Yes));
            left.extend((0..exact.len()).filter(|i| !taken(i)).map(|i| Arc::clone(&exact[i])));
            source = answer.updated_node.unwrap_or(source);
        }
        let target = state.config().target_partitions().max(1);
        let group = FileGroup::new(files.iter().map(|file| partitioned(file, &columns.stored, time)).collect());
        let groups = FileGroupPartitioner::new()
            .with_target_partitions(target)
            .with_repartition_file_min_size(CUT_BYTES)
            .repartition_file_groups(std::slice::from_ref(&group))
            .unwrap_or_else(|| group.split_files(target));
        // A filter that the source does not apply needs its columns to come out.
        let projected = if left.is_empty() { source.try_pushdown_projection(&wanted)? } else { None };
        let named = projected.is_some();
        let mut statistics = Statistics::new_unknown(&columns.stored);
        let sum = |of: fn(&ArchivedFile) -> u64| files.iter().map(|file| of(file)).sum::<u64>() as usize;
        statistics.num_rows = Precision::Exact(sum(|file| file.rows));
        statistics.total_byte_size = Precision::Inexact(sum(|file| file.bytes));
        let scan = FileScanConfigBuilder::new(self.registered.clone(), projected.unwrap_or(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .build();
        let mut plan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
        if !left.is_empty() {
            plan = Arc::new(FilterExec::try_new(conjunction(left), plan)?);
        }
        if !named {
            plan = Arc::new(ProjectionExec::try_new(wanted.iter().cloned(), plan)?);
        }
        Ok(Some(plan))
    }
}

/// What must not be left to anybody else: rows that are in the files and were not asked for.
fn exact_filters(files: &[&ArchivedFile], offsets: Option<Range<u64>>, late_only: bool) -> Vec<Expr> {
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let mut filters = Vec::new();
    if let Some(Range { start, end }) = offsets {
        if files.iter().any(|file| file.first < start) {
            filters.push(column(OFFSET).gt_eq(lit(i64::try_from(start).unwrap_or(i64::MAX))));
        }
        if files.iter().any(|file| file.end > end) {
            filters.push(column(OFFSET).lt(lit(i64::try_from(end).unwrap_or(i64::MAX))));
        }
    }
    if late_only {
        filters.push(column(WATERMARK).is_not_null());
    }
    filters
}

fn partitioned(file: &ArchivedFile, stored: &SchemaRef, time: Option<&str>) -> PartitionedFile {
    let meta = ObjectMeta {
        location: file.path.clone(),
        last_modified: file.modified,
        size: file.bytes,
        e_tag: None,
        version: None,
    };
    let mut statistics = Statistics::new_unknown(stored);
    statistics.num_rows = Precision::Exact(file.rows as usize);
    // The newest rows are looked for most: a search for them skips files of other times as it goes.
    if let Some((index, _)) = time.and_then(|name| stored.column_with_name(name))
        && let Some((first, last)) = file.times
    {
        let scalar = |micros| Precision::Exact(ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into())));
        statistics.column_statistics[index].min_value = scalar(first);
        statistics.column_statistics[index].max_value = scalar(last);
    }
    PartitionedFile::new_from_meta(meta).with_statistics(Arc::new(statistics)).with_extension(OwnFile)
}

/// The wanted columns in terms of the stored ones.
struct Columns {
    /// What is read from the files.
    stored: SchemaRef,
    /// For each wanted column.
    values: Vec<Value>,
}

enum Value {
    /// The stored column of this number, as it is.
    Stored(usize),
    Computed(Expr),
}

impl Columns {
    fn new(schema: &SchemaRef, names: &Names) -> Columns {
        let own = |name: &str| schema.fields().iter().rposition(|field| field.name() == name);
        let own = [own(OFFSET), own(WATERMARK)];
        let mut fields: Vec<FieldRef> = Vec::with_capacity(schema.fields().len() + 2);
        let mut values = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            values.push(if own.contains(&Some(index)) {
                fields.push(Arc::clone(field));
                Value::Stored(fields.len() - 1)
            } else {
                stream_column(field, names, &mut fields)
            });
        }
        // Filters of the scan itself may need them.
        for (name, data_type) in [(OFFSET, DataType::Int64), (WATERMARK, timestamp_type())] {
            if !fields.iter().any(|field| field.name() == name) {
                fields.push(Arc::new(Field::new(name, data_type, name != OFFSET)));
            }
        }
        Columns { stored: Arc::new(Schema::new(fields)), values }
    }

    /// A filter over the wanted columns as one over the stored ones; `None` when it names something else.
    fn translate(&self, filter: &Expr, schema: &SchemaRef) -> Option<Expr> {
        let mut known = true;
        let translated = filter.clone().transform(|expr| {
            let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
            let Some(index) = schema.fields().iter().rposition(|field| *field.name() == column.name) else {
                known = false;
                return Ok(Transformed::no(expr));
            };
            // What is put in is done: a stored name may be the wanted name of another column.
            let value = self.value(index);
            Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
        });
        translated.ok().map(|filter| filter.data).filter(|_| known)
    }

    /// A wanted column in terms of the stored ones.
    fn value(&self, index: usize) -> Expr {
        match &self.values[index] {
            Value::Stored(number) => Expr::Column(Column::new_unqualified(self.stored.field(*number).name())),
            Value::Computed(expr) => expr.clone(),
        }
    }

    /// The wanted columns, under the wanted names.
    fn named(&self, state: &dyn Session, schema: &SchemaRef, projection: &[usize]) -> DfResult<ProjectionExprs> {
        let stored = DFSchema::try_from(self.stored.as_ref().clone())?;
        let expression = |&index: &usize| -> DfResult<ProjectionExpr> {
            let expr = state.create_physical_expr(self.value(index), &stored)?;
            Ok(ProjectionExpr { expr, alias: schema.field(index).name().clone() })
        };
        Ok(ProjectionExprs::new(projection.iter().map(expression).collect::<DfResult<Vec<_>>>()?))
    }
}

/// Where the values of a stream's column are; what is to be read for it is added to `fields`.
fn stream_column(field: &FieldRef, names: &Names, fields: &mut Vec<FieldRef>) -> Value {
    let null = || Value::Computed(lit(ScalarValue::try_new_null(field.data_type()).unwrap_or(ScalarValue::Null)));
    match names.find(field.name(), field.data_type()).as_slice() {
        [] => null(),
        [only] if only.data_type == stored_type(field.data_type()) => {
            fields.push(Arc::new(field.as_ref().clone().with_name(&only.archive)));
            Value::Stored(fields.len() - 1)
        }
        several => {
            let converted = several.iter().filter(|column| !column.data_type.is_null()).map(|column| {
                fields.push(Arc::new(Field::new(&column.archive, in_memory(&column.data_type), true)));
                let stored = Expr::Column(Column::new_unqualified(&column.archive));
                try_cast(stored, field.data_type().clone())
            });
            let first_of = |others: Expr, value: Expr| {
                let case = when(value.clone().is_not_null(), value).otherwise(others.clone());
                case.unwrap_or(others)
            };
            let converted: Vec<Expr> = converted.collect();
            converted.into_iter().rev().reduce(first_of).map_or_else(null, Value::Computed)
        }
    }
}
