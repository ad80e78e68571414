//! The tables of `pg_catalog` that say what Logweir knows better: kinds of relations, views, functions. Each is made
//! anew by the query that reads it, from the tables of `datafusion-pg-catalog`.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion_pg_catalog::pg_catalog::{ArrowTable, PgCatalogSchemaProvider, PgCatalogTable};
use futures::TryStreamExt;

use super::functions::Functions;
use super::roles::Roles;
use super::views::RELATIONS;
use super::{KindOf, databases};
use crate::access::object_id;
use crate::catalog::system::SystemTable;
use crate::engine::Engine;

pub type Tables = PgCatalogSchemaProvider<Arc<dyn CatalogProviderList>, Roles>;

/// Schema `pg_catalog`.
pub struct Overlay {
    tables: Tables,
    kind_of: KindOf,
    functions: Functions,
    engine: Weak<Engine>,
}

impl Overlay {
    /// Lays the kinds of relations and the functions over PostgreSQL's `tables`, and adds what `engine` knows.
    pub fn new(tables: Tables, kind_of: KindOf, functions: Functions, engine: Weak<Engine>) -> Overlay {
        Overlay { tables, kind_of, functions, engine }
    }
}

impl Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("pg_catalog")
    }
}

impl Overlay {
    fn dynamic(&self, name: &str) -> DataFusionResult<Arc<dyn PartitionStream>> {
        match self.tables.build_table_by_name(name)? {
            Some(PgCatalogTable::Dynamic(table)) => Ok(table),
            Some(PgCatalogTable::Static(_) | PgCatalogTable::Empty(_)) | None => {
                Err(DataFusionError::Internal(format!("{name} has no rows of its own")))
            }
        }
    }

    fn relations(&self) -> DataFusionResult<Relations> {
        let classes = self.dynamic("pg_class")?;
        let (namespaces, roles) = (self.dynamic("pg_namespace")?, Roles(self.engine.clone()));
        Ok(Relations { classes, namespaces, kind_of: Arc::clone(&self.kind_of), roles })
    }
}

#[async_trait]
impl SchemaProvider for Overlay {
    fn table_names(&self) -> Vec<String> {
        let ours = RELATIONS.iter().map(|relation| relation.name.to_string());
        self.tables.table_names().into_iter().chain(ours).collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        RELATIONS.iter().any(|relation| relation.name.eq_ignore_ascii_case(name)) || self.tables.table_exist(name)
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        let name = name.to_ascii_lowercase();
        if let Some(relation) = RELATIONS.iter().find(|relation| relation.name == name) {
            return Ok(Some(Arc::new(SystemTable::new(relation, self.engine.clone()))));
        }
        match name.as_str() {
            "pg_class" => {
                let relations = self.relations()?;
                let schema = with_lists(relations.classes.schema());
                streaming(schema, move |context| Box::pin(relations.clone().classes(context)))
            }
            "pg_views" | "pg_matviews" => {
                let kind = if name == "pg_views" { "v" } else { "m" };
                let relations = self.relations()?;
                let Some(table) = self.tables.build_table_by_name(&name)? else { return Ok(None) };
                let schema = table.schema();
                let columns = Arc::clone(&schema);
                streaming(schema, move |context| Box::pin(relations.clone().views(kind, Arc::clone(&columns), context)))
            }
            "pg_tables" => {
                let (theirs, roles) = (self.dynamic(&name)?, Roles(self.engine.clone()));
                streaming(Arc::clone(theirs.schema()), move |context| {
                    Box::pin(owned(Arc::clone(&theirs), roles.clone(), context))
                })
            }
            "pg_roles" => {
                let theirs = self.dynamic(&name)?;
                streaming(Arc::clone(theirs.schema()), move |context| {
                    Box::pin(identified(Arc::clone(&theirs), context))
                })
            }
            "pg_proc" => {
                let Some(PgCatalogTable::Static(theirs)) = self.tables.build_table_by_name(&name)? else {
                    return Ok(None);
                };
                let (relations, functions) = (self.relations()?, self.functions.clone());
                streaming(theirs.schema(), move |context| {
                    Box::pin(procedures(relations.clone(), functions.clone(), Arc::clone(&theirs), context))
                })
            }
            "pg_database" => {
                let (theirs, engine) = (self.dynamic("pg_database")?, self.engine.clone());
                streaming(Arc::clone(theirs.schema()), move |context| {
                    Box::pin(databases::databases(Arc::clone(&theirs), engine.clone(), context))
                })
            }
            name => self.tables.table(name).await,
        }
    }
}

type Batch = Pin<Box<dyn Future<Output = DataFusionResult<RecordBatch>> + Send>>;

/// A table of one batch, made anew by each query.
fn streaming(
    schema: SchemaRef,
    make: impl Fn(Arc<TaskContext>) -> Batch + Send + Sync + 'static,
) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
    let stream = Arc::new(Computed { schema: Arc::clone(&schema), make: Box::new(make) });
    Ok(Some(Arc::new(StreamingTable::try_new(schema, vec![stream])?)))
}

struct Computed {
    schema: SchemaRef,
    make: Box<dyn Fn(Arc<TaskContext>) -> Batch + Send + Sync>,
}

impl Debug for Computed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table of pg_catalog")
    }
}

impl PartitionStream for Computed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = futures::stream::once((self.make)(context));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batch))
    }
}

/// All relations, with the kind that we give them.
#[derive(Clone)]
struct Relations {
    classes: Arc<dyn PartitionStream>,
    namespaces: Arc<dyn PartitionStream>,
    kind_of: KindOf,
    roles: Roles,
}

impl Relations {
    async fn classes(self, context: Arc<TaskContext>) -> DataFusionResult<RecordBatch> {
        let schemas = self.schemas(&context).await?;
        let classes = collect(&self.classes, &context).await?;
        let (names, namespaces) = (text(&classes, "relname")?, number(&classes, "relnamespace")?);
        let given = text(&classes, "relkind")?;
        let kind = |row: usize| -> Option<String> {
            let schema = schemas.get(&namespaces.value(row)).map_or("", String::as_str);
            let ours = (self.kind_of)(schema, names.value(row));
            Some(ours.map_or_else(|| given.value(row).to_string(), String::from))
        };
        let kinds: StringArray = (0..classes.num_rows()).map(kind).collect();
        let owner = |row: usize| {
            let schema = schemas.get(&namespaces.value(row)).map_or("", String::as_str);
            object_id(&self.roles.owner_of(schema, names.value(row)))
        };
        let owners: Int32Array = (0..classes.num_rows()).map(|row| Some(owner(row))).collect();
        let mut columns = classes.columns().to_vec();
        columns[classes.schema().index_of("relkind")?] = Arc::new(kinds);
        columns[classes.schema().index_of("relowner")?] = Arc::new(owners);
        let schema = with_lists(&classes.schema());
        let lists = &schema.fields()[columns.len()..];
        columns.extend(lists.iter().map(|field| new_null_array(field.data_type(), classes.num_rows())));
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    /// `pg_views` and `pg_matviews`: the relations of a kind.
    async fn views(self, kind: &str, schema: SchemaRef, context: Arc<TaskContext>) -> DataFusionResult<RecordBatch> {
        let schemas = self.schemas(&context).await?;
        let roles = self.roles.clone();
        let classes = self.classes(context).await?;
        let (names, kinds) = (text(&classes, "relname")?, text(&classes, "relkind")?);
        let namespaces = number(&classes, "relnamespace")?;
        let rows: Vec<usize> = (0..classes.num_rows()).filter(|row| kinds.value(*row) == kind).collect();
        let column = |field: &Arc<Field>| -> ArrayRef {
            let text = |value: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
                Arc::new(rows.iter().map(|row| value(*row)).collect::<StringArray>())
            };
            match field.name().as_str() {
                "schemaname" => text(&|row| schemas.get(&namespaces.value(row)).cloned()),
                "viewname" | "matviewname" => text(&|row| Some(names.value(row).to_string())),
                "viewowner" | "matviewowner" => text(&|row| {
                    let schema = schemas.get(&namespaces.value(row)).map_or("", String::as_str);
                    Some(roles.owner_of(schema, names.value(row)))
                }),
                _ => new_null_array(field.data_type(), rows.len()),
            }
        };
        Ok(RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(column).collect())?)
    }

    async fn schemas(&self, context: &Arc<TaskContext>) -> DataFusionResult<HashMap<i32, String>> {
        let namespaces = collect(&self.namespaces, context).await?;
        let (oids, names) = (number(&namespaces, "oid")?, text(&namespaces, "nspname")?);
        Ok((0..namespaces.num_rows()).map(|row| (oids.value(row), names.value(row).to_string())).collect())
    }
}

/// The columns of `pg_class`, and those that their table lacks: rights and options, which no relation has.
fn with_lists(schema: &SchemaRef) -> SchemaRef {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let lists = ["relacl", "reloptions"].map(|name| Arc::new(Field::new(name, list.clone(), true)));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(lists).collect::<Vec<_>>()))
}

/// `pg_proc`: PostgreSQL's own functions, which types refer to, and ours in schema `public`, because psql does not show
/// those of `pg_catalog`.
async fn procedures(
    relations: Relations,
    functions: Functions,
    theirs: Arc<ArrowTable>,
    context: Arc<TaskContext>,
) -> DataFusionResult<RecordBatch> {
    let schemas = relations.schemas(&context).await?;
    let public = schemas.iter().find(|(_, name)| *name == "public").map_or(0, |(oid, _)| *oid);
    let ours = functions.as_pg_proc(&theirs.schema(), public)?;
    Ok(concat_batches(&theirs.schema(), theirs.data().iter().chain([&ours]))?)
}

/// `pg_tables`, with their owners.
async fn owned(
    tables: Arc<dyn PartitionStream>,
    roles: Roles,
    context: Arc<TaskContext>,
) -> DataFusionResult<RecordBatch> {
    let tables = collect(&tables, &context).await?;
    let (schemas, names) = (text(&tables, "schemaname")?, text(&tables, "tablename")?);
    let owner = |row: usize| Some(roles.owner_of(schemas.value(row), names.value(row)));
    let owners: StringArray = (0..tables.num_rows()).map(owner).collect();
    let mut columns = tables.columns().to_vec();
    columns[tables.schema().index_of("tableowner")?] = Arc::new(owners);
    Ok(RecordBatch::try_new(tables.schema(), columns)?)
}

/// `pg_roles`, with their object ids.
async fn identified(roles: Arc<dyn PartitionStream>, context: Arc<TaskContext>) -> DataFusionResult<RecordBatch> {
    let roles = collect(&roles, &context).await?;
    let ids: Int32Array = text(&roles, "rolname")?.iter().map(|name| name.map(object_id)).collect();
    let mut columns = roles.columns().to_vec();
    columns[roles.schema().index_of("oid")?] = Arc::new(ids);
    Ok(RecordBatch::try_new(roles.schema(), columns)?)
}

pub(super) async fn collect(
    table: &Arc<dyn PartitionStream>,
    context: &Arc<TaskContext>,
) -> DataFusionResult<RecordBatch> {
    let batches: Vec<RecordBatch> = table.execute(Arc::clone(context)).try_collect().await?;
    Ok(concat_batches(table.schema(), &batches)?)
}

pub(super) fn text<'a>(batch: &'a RecordBatch, name: &str) -> DataFusionResult<&'a StringArray> {
    let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| DataFusionError::Internal(format!("pg_catalog has no text column {name}")))
}

fn number<'a>(batch: &'a RecordBatch, name: &str) -> DataFusionResult<&'a Int32Array> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int32Type>());
    column.ok_or_else(|| DataFusionError::Internal(format!("pg_catalog has no integer column {name}")))
}
