//! CREATE OR REPLACE: a relation gives way to a new one, and those that read it go on with the new one.
//!
//! A view's plan holds the plans of the views that it reads. So its readers are planned again from their texts, in the
//! order in which they depend on each other, and materialized ones are filled; all while the old ones still answer.
//! Should one of them not go on (a column that it uses is gone), everything is put back as it was. The catalog is
//! written last, so a crash in between leaves the old ones too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable as PlainView;
use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;

use super::restore::finish;
use super::{Engine, View, ViewTable};
use crate::catalog::{Object, ObjectKind, Origin};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::time::Micros;
use crate::view::options::ViewOptions;

/// Plans a view again from its statement: known to who knows SQL.
#[async_trait]
pub trait Remake: Send + Sync {
    /// The plan of the query of a CREATE VIEW (as planned) or CREATE MATERIALIZED VIEW (analyzed).
    async fn plan(&self, statement: &str) -> Result<(LogicalPlan, ViewOptions)>;

    /// The analyzed plan of a query, and its columns with PostgreSQL's names.
    fn query<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<(Opaque<LogicalPlan>, SchemaRef)>>;

    /// A query with the bounds of a period in the place of `period_start()` and `period_end()`, and whether it has these.
    fn of_period(&self, text: &str, start: Micros, end: Micros) -> Result<(String, bool)>;
}

/// A view that nobody sees yet. When it is dropped, because its statement failed or was canceled, streams no longer keep
/// anything for it.
pub(super) struct Draft<'a> {
    engine: &'a Engine,
    view: Option<View>,
}

impl<'a> Draft<'a> {
    pub fn new(engine: &'a Engine, view: View) -> Draft<'a> {
        Draft { engine, view: Some(view) }
    }

    pub fn view(&self) -> &View {
        self.view.as_ref().expect("it is taken only by those who own the draft")
    }

    pub fn take(mut self) -> View {
        self.view.take().expect("it is taken once")
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if let Some(view) = self.view.take() {
            self.engine.release(&view);
        }
    }
}

/// What stood under a name before it was replaced.
struct Before {
    name: String,
    table: Option<Arc<dyn TableProvider>>,
    view: Option<Arc<View>>,
}

/// Relations that were put in the place of others. Dropped before it is [`Attempt::settle`]d, all is put back.
pub(super) struct Attempt<'a> {
    engine: &'a Engine,
    before: Vec<Before>,
}

impl<'a> Attempt<'a> {
    pub fn new(engine: &'a Engine) -> Attempt<'a> {
        Attempt { engine, before: Vec::new() }
    }

    /// Makes a relation visible, and the view behind it, complete.
    pub fn show(&mut self, name: &str, table: Arc<dyn TableProvider>, view: Option<View>) {
        let old = match view {
            Some(view) => self.engine.views.write().insert(name.to_string(), Arc::new(view)),
            None => self.engine.views.write().remove(name),
        };
        let table = self.engine.public.put(name, table);
        self.before.push(Before { name: name.to_string(), table, view: old });
        self.engine.changed();
    }

    /// It stays as it is now; what was there before is given up.
    pub fn settle(mut self) {
        for before in std::mem::take(&mut self.before) {
            if let Some(view) = before.view {
                self.engine.release(&view);
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        for before in std::mem::take(&mut self.before).into_iter().rev() {
            let failed = match before.view {
                Some(old) => self.engine.views.write().insert(before.name.clone(), old),
                None => self.engine.views.write().remove(&before.name),
            };
            if let Some(table) = before.table {
                self.engine.public.put(&before.name, table);
            }
            if let Some(view) = failed {
                self.engine.release(&view);
            }
            self.engine.changed();
        }
    }
}

impl Engine {
    /// Plans a query; see [`Remake::query`].
    pub(super) async fn plan_query(&self, text: &str) -> Result<(Opaque<LogicalPlan>, SchemaRef)> {
        let remake = self.remake.get().ok_or_else(|| Error::internal("nobody knows how to plan queries"))?;
        remake.query(text).await
    }

    /// Says how views are planned again. Called once, when the engine opens.
    pub fn set_remake(&self, remake: Arc<dyn Remake>) {
        let _ = self.remake.set(remake);
    }

    /// Changes whenever a relation comes, changes or goes: what was planned before may be out of date.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.set_limits();
    }

    /// Puts a plain view in the place of one of that name.
    pub async fn replace_view(
        &self,
        name: &str,
        by: Origin<'_>,
        table: Arc<dyn TableProvider>,
        reads: BTreeSet<String>,
    ) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        match self.object(name) {
            Some(object) if object.kind == ObjectKind::View => self.must_own(by.actor, &object)?,
            Some(object) => return Err(wrong_kind(name, ObjectKind::View, object.kind)),
            None => return Err(self.no_relation(name)),
        }
        self.replace_relation(name, by.sql, table, None, reads).await
    }

    /// Puts a relation (and the view behind it, complete) in the place of `name`, makes its readers again and writes
    /// that down.
    pub(super) async fn replace_relation(
        &self,
        name: &str,
        sql: &str,
        table: Arc<dyn TableProvider>,
        view: Option<Draft<'_>>,
        reads: BTreeSet<String>,
    ) -> Result<()> {
        self.check_circle(name, &reads)?;
        let mut attempt = Attempt::new(self);
        attempt.show(name, table, view.map(Draft::take));
        for object in self.readers(name) {
            if let Some((table, view)) = self.remade(name, &object, true).await? {
                attempt.show(&object.name, table, view.map(Draft::take));
            }
        }
        self.catalog.lock().replace(name, sql, reads)?;
        attempt.settle();
        self.forget_versions();
        Ok(())
    }

    /// A relation that reads itself could not be planned again.
    fn check_circle(&self, name: &str, reads: &BTreeSet<String>) -> Result<()> {
        let readers = self.catalog.lock().dependents(name);
        match readers.iter().find(|reader| reads.contains(*reader)) {
            None => Ok(()),
            Some(reader) if reader == name => {
                Err(Error::new(Kind::NotSupported, format!("\"{name}\" cannot read itself"))
                    .with_hint("Write out what it read before, or create the new one under another name."))
            }
            Some(reader) => {
                Err(Error::new(Kind::NotSupported, format!("\"{name}\" cannot read \"{reader}\", which reads it"))
                    .with_hint("Create the new one under another name."))
            }
        }
    }

    /// What reads `name`, directly or through others, in the order in which it was made.
    pub(super) fn readers(&self, name: &str) -> Vec<Object> {
        let names = self.catalog.lock().dependents(name);
        let mut objects = self.objects();
        objects.retain(|o| o.name != name && names.contains(&o.name));
        objects
    }

    /// A reader of `name`, made again; filled if it keeps something and `fill` is set, else it is only tried whether it
    /// could be. `None`: nothing changes for it.
    pub(super) async fn remade(
        &self,
        name: &str,
        object: &Object,
        fill: bool,
    ) -> Result<Option<(Arc<dyn TableProvider>, Option<Draft<'_>>)>> {
        let unfit = |err: Error| {
            Error::new(
                Kind::DependentObjects,
                format!(
                    "cannot replace \"{name}\" because {} \"{}\" could not go on: {}",
                    object.kind.word(),
                    object.name,
                    err.message()
                ),
            )
            .with_hint("Keep the columns that others use, or drop those others first.")
        };
        let remake = self.remake.get().ok_or_else(|| Error::internal("nobody knows how to plan views"))?;
        let (table, view): (Arc<dyn TableProvider>, Option<Draft<'_>>) = match object.kind {
            ObjectKind::View => {
                let (plan, _) = remake.plan(&object.sql).await.map_err(unfit)?;
                (Arc::new(PlainView::new(plan, Some(object.sql.clone()))), None)
            }
            ObjectKind::MaterializedView => {
                let (plan, options) = remake.plan(&object.sql).await.map_err(unfit)?;
                let view = self.plan_view(&object.name, &object.sql, &plan, options).map_err(unfit)?;
                (Arc::new(ViewTable::new(&view)), Some(Draft::new(self, view)))
            }
            ObjectKind::Stream
            | ObjectKind::ExternalTable
            | ObjectKind::ReferenceTable
            | ObjectKind::Source
            | ObjectKind::Sink
            | ObjectKind::Notifier
            | ObjectKind::Alert
            | ObjectKind::Report => {
                return Ok(None);
            }
        };
        if let Some(old) = self.public.get(&object.name) {
            check_columns(&old.schema(), &table.schema()).map_err(unfit)?;
        }
        if let Some(draft) = &view {
            if !fill && draft.view().derived.is_none() {
                return Ok(None);
            }
            let mut fills = self.attach(draft.view()).await?;
            finish(&mut fills, None).await?;
        }
        Ok(Some((table, view)))
    }
}

/// Whether all columns are still there, with their types; there may be more.
pub(super) fn check_columns(old: &SchemaRef, new: &SchemaRef) -> Result<()> {
    for field in old.fields() {
        let name = field.name();
        match new.field_with_name(name) {
            Ok(now) if now.data_type() == field.data_type() => {}
            Ok(now) => {
                let (was, is) = (field.data_type(), now.data_type());
                return Err(Error::new(
                    Kind::Datatype,
                    format!("column \"{name}\" would change its type from {was} to {is}"),
                ));
            }
            Err(_) => {
                return Err(Error::new(Kind::UndefinedColumn, format!("column \"{name}\" would be gone")));
            }
        }
    }
    Ok(())
}

/// "x is not a view", in PostgreSQL's words.
pub(super) fn wrong_kind(name: &str, wanted: ObjectKind, is: ObjectKind) -> Error {
    Error::new(Kind::WrongObjectType, format!("\"{name}\" is not a {}", wanted.word()))
        .with_hint(format!("It is a {}: drop it first, or choose another name.", is.word()))
}
