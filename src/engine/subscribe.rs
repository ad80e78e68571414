//! Subscriptions of an engine: what a query needs to be followed, and what ends that.
//!
//! A query over views reads their rollups. A query with aggregates of its own gets rollups like a view, filled from what the
//! stream has; they are shared with views that have the same ones, and go with the last subscriber.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;

use super::restore::finish;
use super::{Engine, View};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::rollup::plan::{Slot, provider_of};
use crate::view::changes::{self, Guard, Options, Request};
use crate::view::options::ViewOptions;
use crate::view::runner::Runner;
use crate::view::table::StreamTable;

impl Engine {
    /// Follows the result of an analyzed plan. `reads` are the relations that its query names: when one of them is dropped
    /// or replaced, the subscription ends with an error.
    pub async fn subscribe(
        self: &Arc<Self>,
        plan: Opaque<LogicalPlan>,
        reads: &BTreeSet<String>,
        options: Options,
    ) -> Result<SendableRecordBatchStream> {
        let known = self.identities(reads);
        let mut keep: Option<Box<dyn Any + Send>> = None;
        let plan = if changes::stream_of(&plan).is_some() {
            plan
        } else {
            check_reads_stream(&plan)?;
            let view = Arc::new(self.plan_view("", "", &plan, ViewOptions::default()).map_err(not_followed)?);
            if view.slots.iter().any(|slot| slot.rollup.get().is_none()) {
                keep = Some(Box::new(self.lodge(&view).await?));
            }
            view.finish.clone()
        };
        let runners = self.runners_of(&plan)?;
        let guard = self.guard(known, runners.keys().cloned().collect());
        let context = self.context.clone();
        changes::follow(Request { plan, runners, options, guard, keep, context }).await
    }

    /// The runners of all streams that a plan reads.
    pub(super) fn runners_of(&self, plan: &LogicalPlan) -> Result<HashMap<String, Arc<Runner>>> {
        let mut runners = HashMap::new();
        for (stream, runner) in streams_of(plan)? {
            let runner = match runner {
                Some(runner) => runner,
                None => Arc::clone(&self.stream(&stream).ok_or_else(|| self.no_relation(&stream))?.runner),
            };
            runners.insert(stream, runner);
        }
        Ok(runners)
    }

    /// Gives a query the rollups that it needs, as a view would get them.
    async fn lodge(self: &Arc<Self>, view: &Arc<View>) -> Result<Guest> {
        let _ddl = self.ddl.lock().await;
        self.guests.write().push(Arc::clone(view));
        let guest = Guest { engine: Arc::downgrade(self), view: Arc::clone(view) };
        let mut fills = self.attach(view).await?;
        finish(&mut fills, None).await?;
        Ok(guest)
    }

    /// Fails once one of the relations is no longer the one it was, or one of the streams no longer runs.
    fn guard(self: &Arc<Self>, known: Vec<(String, Identity)>, streams: Vec<String>) -> Guard {
        let engine = Arc::downgrade(self);
        Box::new(move || {
            let engine = engine.upgrade().ok_or_else(|| Error::new(Kind::Shutdown, "the server is shutting down"))?;
            for (name, was) in &known {
                match engine.identity(name) {
                    None => return Err(dropped(name)),
                    Some(is) if is.id != was.id || !Weak::ptr_eq(&is.view, &was.view) => return Err(replaced(name)),
                    Some(_) => {}
                }
            }
            for name in &streams {
                match engine.stream(name) {
                    Some(stream) => stream.check_running()?,
                    None => return Err(dropped(name)),
                }
            }
            Ok(())
        })
    }

    fn identities(&self, names: &BTreeSet<String>) -> Vec<(String, Identity)> {
        names.iter().filter_map(|name| Some((name.clone(), self.identity(name)?))).collect()
    }

    /// What makes the relation of this name the one it is. Relations that no statement can take away have none.
    fn identity(&self, name: &str) -> Option<Identity> {
        // `stream__malformed` goes with its stream.
        let object = self.object(name).or_else(|| self.object(name.rsplit_once("__")?.0))?;
        let view = self.view(name).map_or_else(Weak::new, |view| Arc::downgrade(&view));
        Some(Identity { id: object.id, view })
    }
}

struct Identity {
    id: u32,
    view: Weak<View>,
}

/// A query whose rollups are kept for a subscription. Dropping it lets them go.
struct Guest {
    engine: Weak<Engine>,
    view: Arc<View>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else { return };
        let view = Arc::clone(&self.view);
        engine.guests.write().retain(|guest| !Arc::ptr_eq(guest, &view));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                // A view that is being made may have found these rollups: it is waited for.
                let _ddl = engine.ddl.lock().await;
                engine.release(&view);
            })),
            Err(_) => engine.release(&view),
        }
    }
}

/// Streams that a plan reads, by name; with their runner where the plan holds it.
fn streams_of(plan: &LogicalPlan) -> Result<HashMap<String, Option<Arc<Runner>>>> {
    let mut streams = HashMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            if let Some(slot) = provider_of::<Slot>(scan) {
                for stream in slot.definition.streams() {
                    streams.entry(stream.clone()).or_insert(None);
                }
            } else if let Some(table) = provider_of::<StreamTable>(scan) {
                streams.insert(table.name.clone(), Some(Arc::clone(&table.runner)));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(streams)
}

fn check_reads_stream(plan: &LogicalPlan) -> Result<()> {
    if !streams_of(plan)?.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::NotSupported,
        "this query reads no stream and no materialized view, so nothing tells of its changes",
    )
    .with_hint("Use SELECT: it shows the result as it is."))
}

/// The refusal of a view in the words of a subscription.
fn not_followed(err: Error) -> Error {
    let refused = Error::new(err.kind(), err.message());
    let refused = match err.detail() {
        Some(detail) => refused.with_detail(detail),
        None => refused,
    };
    refused.with_hint(
        "SUBSCRIBE follows the rows of one stream (with filters and projections), aggregates over streams, and what is computed from them.",
    )
}

fn dropped(name: &str) -> Error {
    Error::new(Kind::UndefinedTable, format!("relation \"{name}\" was dropped; its subscription ends"))
        .with_hint("Create it again and subscribe to it anew.")
}

fn replaced(name: &str) -> Error {
    Error::new(Kind::NotReady, format!("relation \"{name}\" was replaced; its subscription ends"))
        .with_hint("SUBSCRIBE again: the first rows are then those of the new one.")
}
