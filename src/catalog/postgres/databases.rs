//! `pg_database`: in the main database all databases, in a tenant that one alone. What PostgreSQL says of each besides its
//! name comes from `datafusion-pg-catalog`.

use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int32Type;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::streaming::PartitionStream;

use super::tables::{collect, text};
use crate::engine::Engine;

/// The rows of the table. `theirs` has a row for the database itself, and one of the name that tools look for.
pub async fn databases(
    theirs: Arc<dyn PartitionStream>,
    engine: Weak<Engine>,
    context: Arc<TaskContext>,
) -> DataFusionResult<RecordBatch> {
    let batch = collect(&theirs, &context).await?;
    let Some(engine) = engine.upgrade() else { return Ok(batch) };
    let names = text(&batch, "datname")?;
    let own = (0..batch.num_rows()).find(|row| names.value(*row) == engine.database());
    let Some(own) = own.and_then(|row| u32::try_from(row).ok()) else { return Ok(batch) };
    if !engine.is_main() {
        return copies(&batch, &[own], &[]);
    }
    let databases = engine.databases().map(|databases| databases.all()).unwrap_or_default();
    let tenants = databases.iter().filter(|database| !database.is_main());
    let tenants: Vec<Tenant> = tenants
        .map(|database| Tenant {
            name: database.name.clone(),
            oid: database.oid(),
            connections: i32::try_from(database.connections().0).unwrap_or(-1),
        })
        .collect();
    let others = (0..batch.num_rows() as u32).filter(|row| *row != own);
    let rows: Vec<u32> = std::iter::once(own).chain(others).chain(tenants.iter().map(|_| own)).collect();
    copies(&batch, &rows, &tenants)
}

struct Tenant {
    name: String,
    oid: i32,
    connections: i32,
}

/// These rows, of which the last are those of tenants.
fn copies(batch: &RecordBatch, rows: &[u32], tenants: &[Tenant]) -> DataFusionResult<RecordBatch> {
    let indices = UInt32Array::from(rows.to_vec());
    let taken = |column: &ArrayRef| Ok(take(column, &indices, None)?);
    let mut columns = batch.columns().iter().map(taken).collect::<DataFusionResult<Vec<ArrayRef>>>()?;
    let first = rows.len() - tenants.len();
    let schema = batch.schema();
    for (at, field) in schema.fields().iter().enumerate() {
        let number = |value: fn(&Tenant) -> i32| -> Option<ArrayRef> {
            let given = columns[at].as_primitive_opt::<Int32Type>()?;
            let values = given.iter().take(first).chain(tenants.iter().map(|tenant| Some(value(tenant))));
            Some(Arc::new(values.collect::<Int32Array>()))
        };
        let changed = match field.name().as_str() {
            "datname" => columns[at].as_string_opt::<i32>().map(|given| -> ArrayRef {
                let names = given.iter().take(first).chain(tenants.iter().map(|tenant| Some(tenant.name.as_str())));
                Arc::new(names.collect::<StringArray>())
            }),
            "oid" => number(|tenant| tenant.oid),
            "datconnlimit" => number(|tenant| tenant.connections),
            _ => None,
        };
        if let Some(changed) = changed {
            columns[at] = changed;
        }
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}
