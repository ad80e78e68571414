//! Reference tables: made once from a query, kept in memory and on disk, and joined with streams.
//!
//! A replaced table gets a new version (see `rollup/reference.rs`). How that comes about, so that a crash at any moment
//! leaves either the old table or the new one:
//!
//! ```text
//!     1  the rows are written to a file of their own                              nobody knows of it yet
//!     2  the streams that join the table hold still between two micro-batches     readers go on
//!     3  the catalog is written, with their offsets                               from here on the version counts
//!     4  the version is made visible and the streams go on
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlanBuilder;
use futures::StreamExt;

use super::replace::{Attempt, Draft, check_columns, wrong_kind};
use super::{Engine, Stream};
use crate::catalog::{ObjectKind, Origin, TableVersion};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::rollup::reference::{Load, Reference, ReferenceTable, Version, tables_of};

/// Rows of a table and their columns.
#[derive(Debug, Clone)]
pub struct Content {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

impl Content {
    pub fn rows(&self) -> u64 {
        self.batches.iter().map(|b| b.num_rows() as u64).sum()
    }

    fn bytes(&self) -> u64 {
        self.batches.iter().map(|b| b.get_array_memory_size() as u64).sum()
    }
}

/// A column of a table that was given a name by its statement.
fn column(name: &str, data_type: &DataType) -> Field {
    // Every version has to fit the plans of the ones before: texts are texts, and any column may hold NULL one day.
    let data_type = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Null => DataType::Utf8View,
        DataType::Timestamp(_, Some(_)) => timestamp_type(),
        DataType::Dictionary(_, values) => return column(name, values),
        DataType::UInt8 | DataType::UInt16 | DataType::Int8 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        other => other.clone(),
    };
    Field::new(name, data_type, true)
}

impl Engine {
    /// Collects the rows of a query for a reference table, under these column names. Fails when they take more memory
    /// than a table may.
    pub async fn collect(&self, rows: SendableRecordBatchStream, names: &[String]) -> Result<Content> {
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(Error::new(Kind::DuplicateObject, format!("column \"{twice}\" exists twice"))
                .with_hint("Give it another name with AS, or list the names behind the name of the table."));
        }
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(names).map(|(field, name)| column(name, field.data_type()));
        let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        self.collect_as(rows, schema).await
    }

    async fn collect_as(&self, mut rows: SendableRecordBatchStream, schema: SchemaRef) -> Result<Content> {
        let limit = self.config.table_memory;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()));
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)?;
            let batch = crate::batch::compact(batch)?;
            bytes += batch.get_array_memory_size() as u64;
            if bytes > limit {
                let message = format!("the table takes more than table-memory allows ({limit} bytes)");
                return Err(Error::new(Kind::ResourceLimit, message)
                    .with_hint("Select fewer rows or columns, or start the server with a larger --table-memory."));
            }
            if batch.num_rows() > 0 {
                batches.push(batch);
            }
        }
        Ok(Content { schema, batches })
    }

    /// Creates a reference table, or gives one its next version.
    pub async fn create_reference_table(
        &self,
        name: &str,
        by: Origin<'_>,
        content: Content,
        replace: bool,
    ) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let old = self.tables.read().get(name).cloned().filter(|_| replace);
        match (old, self.object(name)) {
            (Some(table), Some(object)) if object.kind == ObjectKind::ReferenceTable => {
                self.must_own(by.actor, &object)?;
                self.replace_table(&table, by.sql, content).await
            }
            (_, Some(object)) if replace => Err(wrong_kind(name, ObjectKind::ReferenceTable, object.kind)),
            (Some(_) | None, _) => self.add_reference_table(name, by, content),
        }
    }

    fn add_reference_table(&self, name: &str, by: Origin<'_>, content: Content) -> Result<()> {
        self.check_free(name)?;
        self.check_actor(by.actor)?;
        let id = self.catalog.lock().next_id();
        self.store.write(id, 1, &content.schema, &content.batches)?;
        let version = version(1, &content, BTreeMap::new(), in_memory(&content));
        let kind = ObjectKind::ReferenceTable;
        let added = self.catalog.lock().add_table(kind, name, by, BTreeSet::new(), vec![note(&version)]);
        if let Err(err) = added {
            let _ = self.store.remove_all(id);
            return Err(err);
        }
        let table = Arc::new(Reference::new(name, self.config.table_memory, vec![Arc::new(version)]));
        self.public.put(name, Arc::new(ReferenceTable::new(Arc::clone(&table), content.schema)));
        self.tables.write().insert(name.to_string(), table);
        self.changed();
        Ok(())
    }

    async fn replace_table(&self, table: &Arc<Reference>, sql: &str, content: Content) -> Result<()> {
        let name = table.name.as_str();
        let schema = Arc::clone(&content.schema);
        let old = self.public.get(name).map(|t| t.schema());
        let mut attempt = Attempt::new(self);
        if old.as_ref() != Some(&schema) {
            let readers = self.readers(name);
            if let (Some(old), [first, ..]) = (&old, readers.as_slice()) {
                check_columns(old, &schema).map_err(|err| {
                    Error::new(
                        Kind::DependentObjects,
                        format!("cannot replace reference table \"{name}\": {}", err.message()),
                    )
                    .with_detail(format!("It is read by {} \"{}\".", first.kind.word(), first.name))
                    .with_hint("Keep the columns there are, with their types; more may be added.")
                })?;
            }
            // Their texts must still make sense with the new columns: they are run again at the next start.
            attempt.show(name, Arc::new(ReferenceTable::new(Arc::clone(table), Arc::clone(&schema))), None);
            for object in readers {
                if let Some((table, view)) = self.remade(name, &object, false).await? {
                    attempt.show(&object.name, table, view.map(Draft::take));
                }
            }
        }
        self.add_version(table, content, Some(sql)).await?;
        attempt.settle();
        self.forget_versions();
        Ok(())
    }

    /// Gives a table its next version: see the file header.
    async fn add_version(&self, table: &Arc<Reference>, content: Content, sql: Option<&str>) -> Result<()> {
        let name = table.name.as_str();
        let id = self.object(name).ok_or_else(|| self.no_relation(name))?.id;
        let old = table.versions();
        let number = table.next_number();

        // Whatever is made of the new rows has to succeed before they count.
        let first = Arc::new(version(number, &content, BTreeMap::new(), in_memory(&content)));
        let streams = self.joining(table);
        for (_, rollups) in &streams {
            for rollup in rollups {
                rollup.maintainer().lookups().prepare(Some((table, &first))).await?;
            }
        }
        self.store.write(id, number, &content.schema, &content.batches)?;

        let held: Vec<_> = streams.iter().map(|(stream, _)| (stream.name.clone(), stream.runner.hold())).collect();
        let from = held.iter().map(|(stream, (_, offset))| (stream.clone(), *offset)).collect();
        let mut versions: Vec<Arc<Version>> = old.iter().map(|v| self.on_disk(id, v)).collect();
        versions.push(Arc::new(version(number, &content, from, in_memory(&content))));
        let notes = versions.iter().map(|v| note(v)).collect();
        if let Err(err) = self.catalog.lock().set_versions(name, sql, notes) {
            drop(held);
            self.store.remove(id, number);
            return Err(err);
        }
        table.set(versions);
        drop(held);
        Ok(())
    }

    /// The same version, without its rows in memory if they are on disk.
    fn on_disk(&self, id: u32, version: &Arc<Version>) -> Arc<Version> {
        if !self.store.is_durable() {
            return Arc::clone(version);
        }
        let (store, number) = (self.store.clone(), version.number);
        let load: Load = Arc::new(move || Ok(Arc::new(store.read(id, number)?.1)));
        Arc::new(Version::new(number, version.from.clone(), version.rows, version.bytes, load))
    }

    /// The streams with views that join a table, and the rollups that do.
    fn joining(&self, table: &Arc<Reference>) -> Vec<(Arc<Stream>, Vec<Arc<crate::rollup::Rollup>>)> {
        let mut found: BTreeMap<String, Vec<Arc<crate::rollup::Rollup>>> = BTreeMap::new();
        for view in self.views() {
            for slot in &view.slots {
                let Some(rollup) = slot.rollup.get() else { continue };
                if rollup.references().iter().any(|r| Arc::ptr_eq(r, table)) {
                    found.entry(slot.definition.stream.clone()).or_default().push(Arc::clone(rollup));
                }
            }
        }
        found.into_iter().filter_map(|(name, rollups)| Some((self.stream(&name)?, rollups))).collect()
    }

    /// Makes a table again from what the catalog and the store have of it.
    pub fn restore_reference_table(&self, name: &str) -> Result<()> {
        let object = self.object(name).ok_or_else(|| self.no_relation(name))?;
        let (table, schema) = self.restored(&object, self.config.table_memory)?;
        let schema = schema.ok_or_else(|| {
            Error::new(Kind::Corrupted, format!("the catalog has no content for reference table \"{name}\""))
        })?;
        self.public.put(name, Arc::new(ReferenceTable::new(Arc::clone(&table), schema)));
        self.tables.write().insert(name.to_string(), table);
        Ok(())
    }

    /// The versions of an object; the rows of the newest are read now.
    fn restored(&self, object: &crate::catalog::Object, limit: u64) -> Result<(Arc<Reference>, Option<SchemaRef>)> {
        let mut versions: Vec<Arc<Version>> = Vec::new();
        let mut schema = None;
        for (i, noted) in object.versions.iter().enumerate() {
            let nothing: Load = Arc::new(|| Ok(Arc::default()));
            let bare = Version::new(noted.number, noted.from.clone(), noted.rows, noted.bytes, nothing);
            let mut version = self.on_disk(object.id, &Arc::new(bare));
            if i + 1 == object.versions.len() && object.kind == ObjectKind::ReferenceTable {
                let (columns, batches) = self.store.read(object.id, noted.number)?;
                schema = Some(columns);
                let batches = Arc::new(batches);
                let load: Load = Arc::new(move || Ok(Arc::clone(&batches)));
                version = Arc::new(Version::new(noted.number, noted.from.clone(), noted.rows, noted.bytes, load));
            }
            versions.push(version);
        }
        Ok((Arc::new(Reference::new(&object.name, limit, versions)), schema))
    }

    /// A table of files, as SQL sees it: joined with a stream below an aggregate, it is loaded (see [`Engine::load_tables`]).
    pub(super) fn external_table(&self, name: &str, files: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        let limit = self.config.table_memory;
        let table = match self.object(name) {
            Some(object) => self.restored(&object, limit)?.0,
            None => Arc::new(Reference::new(name, limit, Vec::new())),
        };
        self.tables.write().insert(name.to_string(), Arc::clone(&table));
        Ok(Arc::new(ReferenceTable::over_files(table, files)))
    }

    /// Loads the files of the external tables that `plan` joins, as they are now. A restart takes what was loaded
    /// before: rows from then have been joined with that.
    pub(super) async fn load_tables(&self, plan: &datafusion::logical_expr::LogicalPlan) -> Result<()> {
        for table in tables_of(plan) {
            let Some(files) = table.files.clone() else { continue };
            let current = table.reference.current();
            if self.is_restoring() && current.is_some() {
                continue;
            }
            let name = table.reference.name.as_str();
            let scan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::clone(&files)), None)?.build()?;
            let content = self.collect_as(self.run(scan).await?, files.schema()).await.map_err(|err| {
                Error::new(err.kind(), format!("external table \"{name}\": {}", err.message()))
                    .with_hint(err.hint().unwrap_or("It is loaded to be joined with a stream.").to_string())
            })?;
            let same = match &current {
                Some(version) => same_rows(&version.batches()?, &content)?,
                None => false,
            };
            if !same {
                self.add_version(&table.reference, content, None).await?;
            }
        }
        Ok(())
    }

    /// Forgets the versions that no row of a view needs any more.
    pub(super) fn forget_versions(&self) {
        let tables: Vec<Arc<Reference>> = self.tables.read().values().cloned().collect();
        for table in tables {
            let streams: Vec<String> =
                self.joining(&table).into_iter().map(|(stream, _)| stream.name.clone()).collect();
            let old = table.versions();
            let external = self.object(&table.name).is_some_and(|o| o.kind == ObjectKind::ExternalTable);
            // Files are read anew for the next view that joins them.
            let needed = if external && streams.is_empty() { Vec::new() } else { table.needed(&streams) };
            let unchanged = old.len() == needed.len() && old.iter().zip(&needed).all(|(a, b)| a.from == b.from);
            let Some(object) = self.object(&table.name).filter(|_| !unchanged) else { continue };
            let notes = needed.iter().map(|v| note(v)).collect();
            if let Err(err) = self.catalog.lock().set_versions(&table.name, None, notes) {
                tracing::warn!(table = %table.name, error = %err, "old versions of a table stay on disk");
                continue;
            }
            for version in old.iter().filter(|v| !needed.iter().any(|n| n.number == v.number)) {
                self.store.remove(object.id, version.number);
            }
            table.set(needed);
        }
    }

    /// The reference or external table called `name`.
    pub fn reference(&self, name: &str) -> Option<Arc<Reference>> {
        self.tables.read().get(name).cloned()
    }
}

fn version(number: u64, content: &Content, from: BTreeMap<String, u64>, load: Load) -> Version {
    Version::new(number, from, content.rows(), content.bytes(), load)
}

fn in_memory(content: &Content) -> Load {
    let batches = Arc::new(content.batches.clone());
    Arc::new(move || Ok(Arc::clone(&batches)))
}

fn note(version: &Version) -> TableVersion {
    TableVersion { number: version.number, rows: version.rows, bytes: version.bytes, from: version.from.clone() }
}

fn same_rows(old: &[RecordBatch], new: &Content) -> Result<bool> {
    let joined = |batches: &[RecordBatch]| arrow::compute::concat_batches(&new.schema, batches);
    let same_columns = old.iter().all(|b| b.schema() == new.schema);
    Ok(same_columns && joined(old)? == joined(&new.batches)?)
}
