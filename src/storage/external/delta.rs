//! A Delta table that others write (Spark, delta-rs, …) as a relation.
//!
//! The log of the table says which files count. Each scan asks it for versions newer than the one known and reads the
//! newest; a query keeps reading the version it began with. Deletion vectors and column mapping are applied by
//! `deltalake-core`; a table with a feature that it does not know is refused, never read wrongly.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use deltalake_core::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake_core::logstore::{StorageConfig, default_logstore};
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use parking_lot::Mutex;

use super::Place;
use super::place::{DELTA_LOG, failed};
use crate::error::{Error, Kind, Result};
use crate::opaque::{Scanned, scan_boxed};

/// See the file header.
#[derive(Debug)]
pub struct Delta {
    place: Place,
    /// The columns as of the creation: views are planned with them.
    columns: SchemaRef,
    /// The newest version known.
    known: Mutex<DeltaTable>,
}

impl Delta {
    /// Reads the log of the table at `place`.
    pub async fn open(place: Place) -> Result<Delta> {
        place.check()?;
        if !place.has_delta_log().await? {
            return Err(no_table(&place).await);
        }
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&place.store), place.path()?));
        let config = StorageConfig::default();
        let store = default_logstore(prefixed, Arc::clone(&place.store), &place.url, &config);
        let mut table = DeltaTable::new(store);
        table.load().await.map_err(|err| wrong(&place, &err))?;
        let columns = scan_of(&place, &table)?.schema();
        Ok(Delta { place, columns, known: Mutex::new(table) })
    }

    /// The table as of its newest version.
    async fn newest(&self) -> Result<DeltaTable> {
        let mut table = self.known.lock().clone();
        table.update_state().await.map_err(|err| wrong(&self.place, &err))?;
        let mut known = self.known.lock();
        // Another query may have been faster and seen more.
        if table.version() > known.version() {
            *known = table.clone();
        }
        Ok(table)
    }

    /// Where the columns of `columns` are in a version of the table.
    fn places_of(&self, scan: &DeltaScanNext, projection: Option<&Vec<usize>>) -> Result<Vec<usize>> {
        let now = scan.schema();
        let all: Vec<usize> = (0..self.columns.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let place = |&at: &usize| {
            let column = self.columns.field(at);
            match now.column_with_name(column.name()) {
                Some((place, field)) if field.data_type() == column.data_type() => Ok(place),
                Some((_, field)) => Err(changed(&self.place, column.name(), Some(field.data_type()))),
                None => Err(changed(&self.place, column.name(), None)),
            }
        };
        wanted.iter().map(place).collect()
    }
}

impl TableProvider for Delta {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        // Which version will be read is not known yet, so what it could promise is not asked for.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    scan_boxed!(Delta);
}

impl Delta {
    async fn plan_scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Scanned {
        let scan = scan_of(&self.place, &self.newest().await?)?;
        let places = self.places_of(&scan, projection)?;
        scan.scan(session, Some(&places), filters, limit).await
    }
}

fn scan_of(place: &Place, table: &DeltaTable) -> Result<DeltaScanNext> {
    let snapshot = table.snapshot().map_err(|err| wrong(place, &err))?.snapshot().clone();
    // Clients want texts, not dictionaries.
    let config = DeltaScanConfig::new().with_wrap_partition_values(false);
    Ok(DeltaScanNext::new(snapshot, config)?)
}

async fn no_table(place: &Place) -> Error {
    let message = format!("{:?} is not a Delta table", place.location);
    let err = Error::new(Kind::WrongObjectType, message).with_detail(format!("It has no directory {DELTA_LOG}."));
    match place.files(".parquet").await {
        Ok(files) if !files.is_empty() => err.with_hint("It holds Parquet files: use STORED AS PARQUET."),
        Ok(_) | Err(_) => err,
    }
}

fn changed(place: &Place, column: &str, data_type: Option<&DataType>) -> Error {
    let what = match data_type {
        Some(data_type) => format!("now has the type {data_type}"),
        None => "is gone".to_string(),
    };
    Error::new(Kind::Datatype, format!("column \"{column}\" of the Delta table {:?} {what}", place.location))
        .with_hint("Drop the external table and create it again.")
}

/// What `deltalake-core` could not do, in our words.
fn wrong(place: &Place, err: &DeltaTableError) -> Error {
    let kind = match err {
        DeltaTableError::ObjectStore { source } => return failed("read", &place.location, source),
        DeltaTableError::NotATable(_) => Kind::WrongObjectType,
        DeltaTableError::Io { .. } => Kind::Io,
        DeltaTableError::Transaction { .. } => Kind::NotSupported,
        DeltaTableError::InvalidJsonLog { .. } | DeltaTableError::Parquet { .. } => Kind::Corrupted,
        other if other.to_string().to_lowercase().contains("unsupported") => Kind::NotSupported,
        _ => Kind::Corrupted,
    };
    Error::new(kind, format!("could not read the Delta table {:?}: {err}", place.location))
}
