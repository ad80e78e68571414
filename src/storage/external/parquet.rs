//! Parquet files as a relation: one file, or a directory of them with partitions in the names of its directories.
//!
//! Not DataFusion's `ListingTable`, although it is built from the same parts, because that one finds `month=03` only when
//! it is asked for as text, takes NULL for a text, and leaves out files that are not where it expects them.
//!
//! Each scan lists the files, leaves out those whose directories say that no row can match, and reads the rest: filters on
//! other columns are applied by the file format, which skips row groups and pages by their statistics.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;

use super::{Declared, Place, partition};
use crate::error::{Error, Kind, Result};
use crate::opaque::{Scanned, scan_boxed};

const EXTENSION: &str = ".parquet";

/// See the file header.
#[derive(Debug)]
pub struct Parquet {
    place: Place,
    format: Arc<dyn FileFormat>,
    /// Of the files, then of their directories.
    columns: TableSchema,
    partitions: Vec<FieldRef>,
}

impl Parquet {
    /// Looks at the files there are for the columns. `options` are those of the format, such as `pushdown_filters`.
    pub async fn open(
        place: Place,
        declared: &Declared,
        options: &HashMap<String, String>,
        session: &dyn Session,
    ) -> Result<Parquet> {
        place.check()?;
        if place.has_delta_log().await? {
            let message = format!("{:?} is a Delta table", place.location);
            return Err(Error::new(Kind::WrongObjectType, message)
                .with_detail("Some of its files do not count any more; its log says which.")
                .with_hint("Use STORED AS DELTA."));
        }
        let format = ParquetFormatFactory::new().create(session, options)?;
        let files = place.files(EXTENSION).await?;
        if files.is_empty() && declared.columns.is_empty() {
            return Err(Error::new(
                Kind::UndefinedFile,
                format!("there are no {EXTENSION} files in {:?}", place.location),
            )
            .with_hint("Write some first, or declare the columns: CREATE EXTERNAL TABLE name (column type, …) …"));
        }
        let partitions = partitions(&place, &files, declared)?;
        let names: Vec<String> = partitions.iter().map(|f| f.name().clone()).collect();
        let own = match declared.of_files(&names) {
            Some(columns) => Arc::new(columns),
            None => {
                let found = format.infer_schema(session, &place.store, &files).await;
                let found = found.map_err(|err| differing(&place, err.into()))?;
                // A column that is in both is what the directory says: that is what can be asked for without reading.
                let own = found.fields().iter().filter(|f| !names.contains(f.name()));
                // A file that comes later may lack it.
                let own = own.map(|f| f.as_ref().clone().with_nullable(true));
                Arc::new(Schema::new(own.collect::<Vec<_>>()))
            }
        };
        let columns = TableSchema::builder(own).with_table_partition_cols(partitions.clone()).build();
        Ok(Parquet { place, format, columns, partitions })
    }

    /// The files as they are now, with the values of their partitions.
    async fn files(&self) -> Result<Vec<PartitionedFile>> {
        let prefix = self.place.path()?;
        let files = self.place.files(EXTENSION).await?;
        let partitioned = files.into_iter().map(|file| {
            let values = match self.partitions.as_slice() {
                [] => Vec::new(),
                columns => {
                    let name = self.place.within(&prefix, &file).unwrap_or_default();
                    let given = partition::values(name);
                    let value = |column: &FieldRef| match given.iter().find(|(key, _)| key == column.name()) {
                        Some((_, value)) => partition::typed(value, column, name),
                        None => Err(misplaced(&self.place, name, column.name())),
                    };
                    columns.iter().map(value).collect::<Result<_>>()?
                }
            };
            let mut file = PartitionedFile::from(file);
            file.partition_values = values;
            Ok(file)
        });
        partitioned.collect()
    }

    /// The files that may hold rows for which all of `filters` are true.
    fn pruned(
        &self,
        files: Vec<PartitionedFile>,
        filters: &[Expr],
        session: &dyn Session,
    ) -> DfResult<Vec<PartitionedFile>> {
        let known = |name: &str| self.partitions.iter().any(|f| f.name() == name);
        let usable = |filter: &&Expr| {
            let columns = filter.column_refs();
            !columns.is_empty() && columns.iter().all(|c| known(&c.name)) && !filter.is_volatile()
        };
        let Some(filter) = conjunction(filters.iter().filter(usable).cloned()) else { return Ok(files) };
        if files.is_empty() {
            return Ok(files);
        }
        let column = |at: usize| ScalarValue::iter_to_array(files.iter().map(|f| f.partition_values[at].clone()));
        let columns = (0..self.partitions.len()).map(column).collect::<DfResult<Vec<_>>>()?;
        let schema = Arc::new(Schema::new(self.partitions.clone()));
        let filter = session.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&schema))?)?;
        let count = RecordBatchOptions::new().with_row_count(Some(files.len()));
        let values = RecordBatch::try_new_with_options(schema, columns, &count)?;
        let matching = filter.evaluate(&values)?.into_array(files.len())?;
        let Some(matching) = matching.as_boolean_opt() else { return Ok(files) };
        // Neither false nor NULL.
        let matching = matching.iter().map(|matches| matches == Some(true));
        Ok(files.into_iter().zip(matching).filter_map(|(file, matches)| matches.then_some(file)).collect())
    }
}

impl TableProvider for Parquet {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // Not exact: what pruning cannot decide, and the rows of the files that are read, are filtered above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    scan_boxed!(Parquet);
}

impl Parquet {
    async fn plan_scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Scanned {
        let files = self.pruned(self.files().await?, filters, session)?;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)));
        }
        let bytes: u64 = files.iter().map(|f| f.object_meta.size).sum();
        let mut statistics = Statistics::new_unknown(&self.schema());
        // Enough to tell which side of a join is the smaller.
        statistics.total_byte_size = Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX));
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let source = self.format.file_source(self.columns.clone());
        let config = FileScanConfigBuilder::new(self.place.object_store()?, source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        self.format.create_physical_plan(session, config).await
    }
}

/// The columns in the names of the directories, with their types.
fn partitions(place: &Place, files: &[ObjectMeta], declared: &Declared) -> Result<Vec<FieldRef>> {
    let prefix = place.path()?;
    let names = files.iter().map(|file| place.within(&prefix, file).unwrap_or_default());
    let given: Vec<(&str, Vec<(String, String)>)> = names.map(|name| (name, partition::values(name))).collect();
    let keys: Vec<String> = if declared.partitioned_by.is_empty() {
        let first = given.first().map(|(_, values)| values.as_slice()).unwrap_or_default();
        let keys = first.iter().map(|(key, _)| key.clone());
        // Who names the columns names those that are wanted.
        keys.filter(|key| declared.columns.is_empty() || declared.type_of(key).is_some()).collect()
    } else {
        declared.partitioned_by.clone()
    };
    for (name, values) in &given {
        if let Some(key) = keys.iter().find(|key| !values.iter().any(|(k, _)| k == *key)) {
            return Err(misplaced(place, name, key));
        }
        let more = values.iter().find(|(key, _)| declared.columns.is_empty() && !keys.contains(key));
        if let (Some((key, _)), true) = (more, declared.partitioned_by.is_empty()) {
            let first = given.first().map_or("", |(name, _)| name);
            return Err(misplaced(place, first, key).with_detail(format!("Others are, such as {name:?}.")));
        }
    }
    let column = |key: &String| {
        let of_key = |(_, values): &'_ (&str, Vec<(String, String)>)| {
            values.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone())
        };
        let values: Vec<String> = given.iter().filter_map(of_key).collect();
        let data_type = match declared.type_of(key) {
            Some(data_type) => data_type.clone(),
            None => partition::guess(values.iter().map(String::as_str)),
        };
        for ((name, _), value) in given.iter().zip(&values) {
            partition::typed(value, &partition::field(key, data_type.clone()), name)?;
        }
        Ok(partition::field(key, data_type))
    };
    keys.iter().map(column).collect()
}

fn misplaced(place: &Place, name: &str, key: &str) -> Error {
    let message = format!("the file {name:?} in {:?} is not in a directory {key}=…", place.location);
    Error::new(Kind::InvalidParameter, message)
        .with_hint("All files of a table have the same partitions. Take a narrower location, or move the file away.")
}

/// What to say when the files' columns do not go together.
fn differing(place: &Place, err: Error) -> Error {
    if !err.message().contains("merge schema") && !err.message().contains("merge field") {
        return err.with_context(&format!("{:?}", place.location));
    }
    Error::new(Kind::Datatype, format!("the files in {:?} do not have the same columns", place.location))
        .with_detail(format!("{}.", err.message().trim_start_matches("schema error: ").trim_end_matches(['.', ' '])))
        .with_hint("Declare the columns and values are cast to them: CREATE EXTERNAL TABLE name (column type, …) …")
}
