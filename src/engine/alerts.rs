//! Alerts and notifiers: what they are made of, what they watch, and where they run.
//!
//! Alerts over the same relation share an evaluator (`alert/evaluator.rs`), each notifier has a courier (`alert/outbox.rs`);
//! both run on a small pool beside everything else. What must outlive the process is in one ledger, in the folder `alerts`
//! of the data directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::reports::ReportHandle;
use super::sinks::Followed;
use super::{Engine, blocking};
use crate::alert::backtest::{self, Firing, no_times};
use crate::alert::desk::{Acknowledgement, Desk};
use crate::alert::evaluator::{Described, Evaluator, Reached, Source};
use crate::alert::ledger::{Entry, Ledger, Place, Silence};
use crate::alert::outbox::{Courier, Health, Lookup, give_up, tell};
use crate::alert::track::{Grid, Timing};
use crate::alert::watch::Watch;
use crate::alert::{Definition, Scores};
use crate::catalog::{Object, ObjectKind, Origin, quoted};
use crate::delivery::Relation;
use crate::error::{Error, Kind, Result};
use crate::notify::{
    Alert, Content, Failure, Item, Message, NOTIFIER_OPTIONS, NOTIFIERS, Notifier, Series, Spec, Status,
};
use crate::options::{Options as Given, with_nearest};
use crate::reach;
use crate::registry::find;
use crate::rollup::cut::stream_column;
use crate::rollup::plan::slots_of;
use crate::rollup::watermark::{FOREVER, NEVER};
use crate::storage::fs::Fs;
use crate::task::{Compute, Task};
use crate::template;
use crate::time::Micros;
use crate::view::changes::{Nature, Options, Start, stream_of};
use crate::view::options::ViewOptions;
use crate::view::runner::Runner;

/// Threads that all evaluators and couriers share.
const THREADS: usize = 2;

/// All evaluators together rest about this many times as long as they work: so they take at most half of one core.
const REST: u32 = 2;

/// So long TEST NOTIFIER and ACKNOWLEDGE wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// Points of a chart.
const POINTS: usize = 60;

/// What CREATE NOTIFIER says.
#[derive(Debug, Clone)]
pub struct NotifierDefinition {
    pub name: String,
    pub kind: String,
    /// Of the type and of every notifier, as given.
    pub options: Vec<(String, String)>,
}

/// A notifier that there is.
pub struct NotifierHandle {
    pub name: String,
    pub spec: &'static Spec,
    pub health: Arc<Health>,
    notifier: Arc<dyn Notifier>,
    retry_max: Duration,
    refusals: u64,
    stop: CancellationToken,
    running: Mutex<Option<Task<()>>>,
}

/// An alert that there is.
pub struct AlertHandle {
    /// The id of its object in the catalog.
    pub id: u32,
    pub definition: Arc<Definition>,
}

/// Alerts over the same relation: what tells one from another.
type Feed = (String, bool, Option<Micros>);

fn feed_of(definition: &Definition) -> Feed {
    (definition.query.clone(), definition.closed, definition.every)
}

/// An evaluator.
struct Running {
    /// What it evaluates.
    alerts: BTreeSet<u32>,
    desk: Arc<Desk>,
    stop: CancellationToken,
    task: Task<()>,
}

/// All that belongs to alerts, and to reports, which go the same way.
pub(super) struct Alerting {
    /// `None` without a data directory.
    pub ledger: Option<Arc<Ledger>>,
    notifiers: RwLock<BTreeMap<String, Arc<NotifierHandle>>>,
    alerts: RwLock<BTreeMap<String, Arc<AlertHandle>>>,
    evaluators: tokio::sync::Mutex<BTreeMap<Feed, Running>>,
    pool: OnceLock<Compute>,
    rest: Arc<AtomicU32>,
    pub reports: RwLock<BTreeMap<String, Arc<ReportHandle>>>,
    /// Reports are made one after the other.
    pub turn: Arc<Semaphore>,
}

impl Alerting {
    pub fn open(fs: &Arc<dyn Fs>, data_dir: Option<&Path>) -> Result<Alerting> {
        let ledger = match data_dir {
            None => None,
            Some(dir) => {
                let (ledger, damaged) = Ledger::open(Arc::clone(fs), &dir.join("alerts"))?;
                if damaged > 0 {
                    tracing::error!(lines = damaged, "the journal of alerts is damaged; what those lines said is lost");
                }
                Some(Arc::new(ledger))
            }
        };
        Ok(Alerting {
            ledger,
            notifiers: RwLock::default(),
            alerts: RwLock::default(),
            evaluators: tokio::sync::Mutex::default(),
            pool: OnceLock::new(),
            rest: Arc::new(AtomicU32::new(REST)),
            reports: RwLock::default(),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    pub fn pool(&self) -> Result<&Compute> {
        if self.pool.get().is_none() {
            let _ = self.pool.set(Compute::with_workers(THREADS)?);
        }
        self.pool.get().ok_or_else(|| Error::internal("it was set"))
    }
}

impl Engine {
    pub fn notifiers(&self) -> Vec<Arc<NotifierHandle>> {
        self.alerting.notifiers.read().values().cloned().collect()
    }

    pub fn alerts(&self) -> Vec<Arc<AlertHandle>> {
        self.alerting.alerts.read().values().cloned().collect()
    }

    pub fn alert(&self, name: &str) -> Result<Arc<AlertHandle>> {
        self.alerting.alerts.read().get(name).cloned().ok_or_else(|| self.no_alert(name))
    }

    pub(super) fn notifier(&self, name: &str) -> Result<Arc<NotifierHandle>> {
        self.alerting.notifiers.read().get(name).cloned().ok_or_else(|| self.no_notifier(name))
    }

    /// What alerts remember; only with a data directory.
    pub fn ledger(&self) -> Option<Arc<Ledger>> {
        self.alerting.ledger.clone()
    }

    pub(super) fn need_ledger(&self, what: &str) -> Result<Arc<Ledger>> {
        self.ledger().ok_or_else(|| {
            Error::new(Kind::NotSupported, format!("{what} needs a data directory"))
                .with_hint("Start a server with `logweir serve --data-dir DIR`.")
        })
    }

    // ---- notifiers ------------------------------------------------------------------------------------------------

    pub async fn create_notifier(self: &Arc<Self>, definition: &NotifierDefinition, by: Origin<'_>) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let name = &definition.name;
        if !self.is_restoring() {
            self.check_free(name)?;
        }
        self.need_ledger("a notifier")?;
        let spec = find(NOTIFIERS, "type", &definition.kind)?;
        reach::component("notifier", spec.name, &["email", "webhook", "slack", "alertmanager", "pg_notify", "log"])?;
        let owner = format!("notifier type \"{}\"", spec.name);
        let given = Given::parse(&owner, &[spec.options, NOTIFIER_OPTIONS], &definition.options)?;
        let (retry_max, refusals) = Courier::settings(&given)?;
        let handle = Arc::new(NotifierHandle {
            name: name.clone(),
            spec,
            health: Arc::default(),
            notifier: (spec.build)(&given, self.backends.channels())?.into(),
            retry_max,
            refusals,
            stop: CancellationToken::new(),
            running: Mutex::default(),
        });
        if !self.is_restoring() {
            self.remember(ObjectKind::Notifier, name, by, BTreeSet::new())?;
        }
        self.alerting.notifiers.write().insert(name.clone(), Arc::clone(&handle));
        if !self.is_restoring() {
            self.start_notifier(&handle)?;
        }
        Ok(())
    }

    fn start_notifier(self: &Arc<Self>, handle: &NotifierHandle) -> Result<()> {
        let courier = Courier {
            name: handle.name.clone(),
            spec: handle.spec,
            notifier: Arc::clone(&handle.notifier),
            retry_max: handle.retry_max,
            refusals: handle.refusals,
            ledger: self.need_ledger("a notifier")?,
            lookup: Arc::new(Charts(Arc::downgrade(self))),
            health: Arc::clone(&handle.health),
            clock: self.clock.clone(),
            stop: handle.stop.clone(),
        };
        *handle.running.lock() = Some(self.alerting.pool()?.spawn(courier.run()));
        Ok(())
    }

    pub(super) async fn remove_notifier(&self, name: &str) {
        let handle = self.alerting.notifiers.write().remove(name);
        let (Some(handle), Some(ledger)) = (handle, self.ledger()) else { return };
        stop(&handle).await;
        let (name, now) = (name.to_string(), self.clock.now());
        if let Err(err) = blocking(move || ledger.record(|book| give_up(book, &name, now))).await {
            tracing::warn!(error = %err, "that a notifier was dropped cannot be written down");
        }
    }

    /// Tells a notifier something that is no alert; returns when it has taken it.
    pub async fn test_notifier(&self, name: &str) -> Result<()> {
        let handle = self.notifier(name)?;
        let now = self.clock.now();
        let item = Item {
            status: Status::Test,
            key: Vec::new(),
            at: now,
            since: now,
            repeated: false,
            reason: Some("this is a test; nothing is wrong".into()),
            labels: Vec::new(),
            annotations: Vec::new(),
            row: serde_json::Map::new(),
        };
        let alert = Alert {
            name: format!("test of {name}"),
            severity: "info".into(),
            group: String::new(),
            items: vec![item],
            omitted: 0,
            series: None,
        };
        let content = Content::Alert(alert);
        let message = Message { id: format!("{:016x}", rand::random::<u64>()), made: now, content };
        match tokio::time::timeout(PATIENCE, tell(&*handle.notifier, &message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Failure::Again(err, _) | Failure::Refused(err))) => Err(err),
            Err(_) => {
                Err(Error::new(Kind::Unreachable, format!("notifier \"{name}\" did not answer within {PATIENCE:?}")))
            }
        }
    }

    /// "notifier does not exist", with the nearest name.
    pub fn no_notifier(&self, name: &str) -> Error {
        let handles = self.notifiers();
        let err = Error::new(Kind::UndefinedObject, format!("notifier \"{name}\" does not exist"));
        with_nearest(
            err.with_hint("SHOW NOTIFIERS lists them."),
            name,
            handles.iter().map(|handle| handle.name.as_str()),
        )
    }

    /// "alert does not exist", with the nearest name.
    pub fn no_alert(&self, name: &str) -> Error {
        let handles = self.alerts();
        let err = Error::new(Kind::UndefinedObject, format!("alert \"{name}\" does not exist"));
        with_nearest(
            err.with_hint("SHOW ALERTS lists them."),
            name,
            handles.iter().map(|handle| handle.definition.name.as_str()),
        )
    }

    // ---- alerts ---------------------------------------------------------------------------------------------------

    /// Creates an alert and starts it. What is wrong with it is told at once.
    pub async fn create_alert(self: &Arc<Self>, definition: Definition, by: Origin<'_>) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let name = definition.name.clone();
        let ledger = self.need_ledger("an alert")?;
        for notifier in &definition.telling.notify {
            self.notifier(notifier)?;
        }
        let id = {
            let catalog = self.catalog.lock();
            catalog.get(&name).map_or(catalog.next_id(), |object| object.id)
        };
        if !self.is_restoring() {
            self.check_free(&name)?;
            // What comes from now on counts, also before its evaluator has begun.
            let place = self.check_alert(&definition).await?;
            let place = place.map(|place| Entry::Place { alert: id, place });
            let ledger = Arc::clone(&ledger);
            blocking(move || ledger.record(|_| place.into_iter().collect())).await?;
            let notify = definition.telling.notify.iter();
            let reads = definition.reads.iter().chain(notify).cloned().collect();
            self.remember(ObjectKind::Alert, &name, by, reads)?;
        }
        let handle = Arc::new(AlertHandle { id, definition: Arc::new(definition) });
        self.alerting.alerts.write().insert(name, Arc::clone(&handle));
        match self.is_restoring() {
            true => Ok(()),
            false => self.admit_alerts(vec![handle]).await,
        }
    }

    fn watched(self: &Arc<Self>, definition: &Definition) -> Watched {
        Watched {
            followed: Followed::new(self, &definition.query, &definition.reads, definition.closed),
            rest: Arc::clone(&self.alerting.rest),
            polls: definition.every.is_some(),
            seen: Mutex::default(),
            given: Arc::default(),
            known: Mutex::default(),
        }
    }

    /// Whether an alert can be evaluated, as far as that can be known. Gives where its relation stands, if it can be followed.
    async fn check_alert(self: &Arc<Self>, definition: &Definition) -> Result<Option<Place>> {
        if let Some(scores) = &definition.scores {
            self.check_scores(definition, scores).await?;
        }
        let source = self.watched(definition);
        let described = source.describe().await.map_err(|err| match (err.kind(), definition.every) {
            (Kind::NotSupported, None) => {
                let refused = Error::new(err.kind(), err.message());
                let refused = match err.detail() {
                    Some(detail) => refused.with_detail(detail),
                    None => refused,
                };
                refused.with_hint("Have its query run now and then instead: EVERY INTERVAL '1 minute'.")
            }
            _ => err,
        })?;
        if let Some((_, query)) = &definition.predicate {
            source.predicate(query).await?;
        }
        let columns: Vec<&str> = described.schema.fields().iter().map(|field| field.name().as_str()).collect();
        definition.key.iter().try_for_each(|name| check_column(&columns, name, "KEY"))?;
        let label = |name: &String| definition.labels.iter().any(|(label, _)| label == name);
        for name in definition.telling.group.iter().flatten() {
            if !label(name) {
                check_column(&columns, name, "GROUP BY")?;
            }
        }
        let mut names = columns.clone();
        names.extend(["alert", "severity"]);
        for (name, text) in &definition.labels {
            template::check(text, &names, &format!("label \"{name}\""))?;
        }
        names.extend(definition.labels.iter().map(|(name, _)| name.as_str()));
        names.extend(["state", "status"]);
        for (name, text) in &definition.annotations {
            template::check(text, &names, &format!("annotation \"{name}\""))?;
        }
        if matches!(described.timing, Timing::Rows { .. }) && definition.rule.hold > 0 {
            return Err(Error::new(Kind::NotSupported, "FOR cannot be used with single rows of a stream")
                .with_detail("A row is there at one moment; nothing holds from then on.")
                .with_hint("Count rows in a materialized view with windows, and watch that."));
        }
        let closed_to = source.stands().closed_to.saturating_sub(definition.rule.hold);
        Ok(definition.every.is_none().then(|| Place { offset: source.offset(), closed_to }))
    }

    /// Whether the rows of a relation can be compared with those before them.
    async fn check_scores(&self, definition: &Definition, scores: &Scores) -> Result<()> {
        let (call, order) = (&scores.call, scores.order);
        let from =
            if definition.from.starts_with('(') { "the query".into() } else { format!("\"{}\"", definition.from) };
        let by_query = format!("ON (SELECT *, {call} OVER (ORDER BY …) AS score FROM …) WHERE score > …");
        if definition.every.is_some() {
            let message = format!("{call} in the predicate of an alert cannot be used with EVERY");
            return Err(Error::new(Kind::NotSupported, message)
                .with_detail("Each window of the past that was unusual would be, for as long as it is kept.")
                .with_hint(format!("Compute it in the query, and have that keep the newest window: {by_query}.")));
        }
        let (plan, schema) = self.plan_query(&scores.plain).await?;
        let (nature, _) = self.nature_of(&plan)?;
        if nature.rows {
            let message = format!("{call} compares windows, and {from} has single rows");
            return Err(Error::new(Kind::NotSupported, message)
                .with_hint("Count them in a materialized view with windows, and watch that."));
        }
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        definition.key.iter().try_for_each(|name| check_column(&columns, name, "KEY"))?;
        if !columns.contains(&order) {
            let message = format!("{call} needs the column {order}, which {from} does not have");
            return Err(Error::new(Kind::UndefinedColumn, message)
                .with_hint(format!("Select {order} in the view, or say the order: {by_query}.")));
        }
        // Rows of one window have no order.
        let is_window =
            |column: usize| Some(column) == nature.window || [order, "window_end"].contains(&columns[column]);
        let is_known = |column: usize| definition.key.iter().any(|name| name == columns[column]);
        let missing = nature.key.iter().flatten().filter(|column| !is_window(**column) && !is_known(**column));
        let missing: Vec<String> = missing.map(|column| quoted(columns[*column])).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            let message =
                format!("{call} compares the windows of one KEY, and {from} has several rows a window for it");
            return Err(Error::new(Kind::InvalidParameter, message)
                .with_detail(format!("Its rows are told apart by {missing}, too."))
                .with_hint(format!("Add {missing} to KEY, or watch a view without.")));
        }
        Ok(())
    }

    /// Stops the alerts among these objects.
    pub(super) async fn dismiss_alerts(&self, going: &[Object]) -> Vec<Arc<AlertHandle>> {
        let gone: Vec<Arc<AlertHandle>> = {
            let mut alerts = self.alerting.alerts.write();
            let going = going.iter().filter(|object| object.kind == ObjectKind::Alert);
            going.filter_map(|object| alerts.remove(&object.name)).collect()
        };
        let mut running = self.alerting.evaluators.lock().await;
        let mut leaving = Vec::new();
        for handle in &gone {
            let feed = feed_of(&handle.definition);
            let Some(one) = running.get_mut(&feed) else { continue };
            one.alerts.remove(&handle.id);
            if !one.alerts.is_empty() {
                leaving.push(one.desk.dismiss(handle.id));
            } else if let Some(one) = running.remove(&feed) {
                one.stop.cancel();
                // It has told what went wrong.
                let _ = one.task.await;
            }
        }
        // One whose evaluator has ended is gone as well.
        futures::future::join_all(leaving).await;
        self.share(running.len());
        gone
    }

    /// Alerts that were stopped go on after all.
    pub(super) async fn readmit_alerts(self: &Arc<Self>, handles: Vec<Arc<AlertHandle>>) -> Result<()> {
        let named = handles.iter().map(|handle| (handle.definition.name.clone(), Arc::clone(handle)));
        self.alerting.alerts.write().extend(named);
        self.admit_alerts(handles).await
    }

    /// Nothing is remembered of alerts that were dropped.
    pub(super) async fn forget_alerts(&self, gone: &[Arc<AlertHandle>]) {
        let Some(ledger) = self.ledger().filter(|_| !gone.is_empty()) else { return };
        let forget = gone.iter().map(|handle| Entry::Forget { alert: handle.id }).collect();
        let recorded = blocking(move || ledger.record(|_| forget)).await;
        if let Err(err) = recorded {
            tracing::warn!(error = %err, "that alerts were dropped cannot be written down");
        }
    }

    /// Has alerts evaluated: by the evaluator of their relation, if there is one.
    async fn admit_alerts(self: &Arc<Self>, handles: Vec<Arc<AlertHandle>>) -> Result<()> {
        let Some(ledger) = self.ledger() else { return Ok(()) };
        let specs: BTreeMap<String, &'static Spec> =
            self.notifiers().iter().map(|handle| (handle.name.clone(), handle.spec)).collect();
        let now = self.clock.now();
        let mut coming: BTreeMap<Feed, Vec<Watch>> = BTreeMap::new();
        for handle in handles {
            let names = &handle.definition.telling.notify;
            let specs = names.iter().filter_map(|name| Some((name.clone(), *specs.get(name)?))).collect();
            let watch = Watch::new(handle.id, Arc::clone(&handle.definition), specs, &ledger, now);
            coming.entry(feed_of(&handle.definition)).or_default().push(watch);
        }
        let mut running = self.alerting.evaluators.lock().await;
        for (feed, watches) in coming {
            let ids = watches.iter().map(|watch| watch.id);
            if let Some(one) = running.get_mut(&feed) {
                one.alerts.extend(ids);
                one.desk.admit(watches);
                continue;
            }
            let Some(first) = watches.first().map(|watch| Arc::clone(&watch.definition)) else { continue };
            let alerts = ids.collect();
            let every = first.every.map(|every| Duration::from_micros(every.unsigned_abs()));
            let evaluator = Evaluator::new(Arc::new(self.watched(&first)), watches, every, &ledger, &self.clock);
            let (desk, stop) = (Arc::clone(&evaluator.desk), evaluator.stop.clone());
            let task = self.alerting.pool()?.spawn(evaluator.run());
            running.insert(feed, Running { alerts, desk, stop, task });
        }
        self.share(running.len());
        Ok(())
    }

    /// Evaluators share what they may work.
    fn share(&self, evaluators: usize) {
        self.alerting.rest.store(REST.saturating_mul(evaluators.max(1) as u32), Ordering::Relaxed);
    }

    /// Starts the notifiers, alerts and reports that the catalog has.
    pub(super) async fn start_alerts(self: &Arc<Self>) -> Result<()> {
        let Some(ledger) = self.ledger() else { return Ok(()) };
        let known: BTreeSet<u32> = self.alerts().iter().map(|handle| handle.id).collect();
        let gone: Vec<u32> = ledger.look(|book| book.alerts.keys().copied().filter(|id| !known.contains(id)).collect());
        let forget = gone.into_iter().map(|alert| Entry::Forget { alert }).collect();
        ledger.record(|_| forget)?;
        for handle in self.notifiers() {
            self.start_notifier(&handle)?;
        }
        self.start_reports()?;
        self.admit_alerts(self.alerts()).await
    }

    /// Stops all of them; what is being sent is brought to an end.
    pub(super) async fn stop_alerts(&self) {
        self.stop_reports().await;
        let running = std::mem::take(&mut *self.alerting.evaluators.lock().await);
        running.values().for_each(|one| one.stop.cancel());
        futures::future::join_all(running.into_values().map(|one| one.task)).await;
        let notifiers = self.notifiers();
        futures::future::join_all(notifiers.iter().map(|handle| stop(handle))).await;
    }

    /// Silences instances of an alert until then; a moment that is over ends what silenced the same ones.
    pub async fn silence(&self, name: &str, matching: Vec<(String, String)>, until: Micros) -> Result<()> {
        let handle = self.alert(name)?;
        self.check_matching(&handle, &matching)?;
        let (ledger, now) = (self.need_ledger("SILENCE")?, self.clock.now());
        blocking(move || {
            ledger.record(|book| {
                let over = book.silences.iter().filter(|silence| {
                    silence.until <= now || (silence.alert == handle.id && silence.matching == matching)
                });
                let mut entries: Vec<Entry> = over.map(|silence| Entry::Unsilence { id: silence.id }).collect();
                if until > now {
                    let silence = Silence { id: book.number(), alert: handle.id, matching, until };
                    entries.push(Entry::Silence { silence });
                }
                entries
            })
        })
        .await
    }

    /// Instances that fire and match are not told of again until they are over. Gives how many they are.
    pub async fn acknowledge(&self, name: &str, matching: Vec<(String, String)>) -> Result<u64> {
        let handle = self.alert(name)?;
        self.check_matching(&handle, &matching)?;
        let (done, answer) = tokio::sync::oneshot::channel();
        let desk = {
            let running = self.alerting.evaluators.lock().await;
            running.get(&feed_of(&handle.definition)).map(|one| Arc::clone(&one.desk))
        };
        match desk {
            Some(desk) => desk.acknowledge(Acknowledgement { alert: handle.id, matching, done }),
            None => drop(done),
        }
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(_)) | Err(_) => Err(Error::new(Kind::NotReady, format!("alert \"{name}\" is not being evaluated"))
                .with_hint("logweir.alerts shows its state.")),
        }
    }

    fn check_matching(&self, handle: &AlertHandle, matching: &[(String, String)]) -> Result<()> {
        let definition = &handle.definition;
        let known = || definition.key.iter().chain(definition.labels.iter().map(|(name, _)| name)).map(String::as_str);
        match matching.iter().find(|(name, _)| !known().any(|known| known == name)) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("alert \"{}\" has no key column or label \"{name}\"", definition.name);
                let err = Error::new(Kind::UndefinedColumn, message);
                Err(with_nearest(err, name, known()))
            }
        }
    }
}

fn check_column(columns: &[&str], name: &String, clause: &str) -> Result<()> {
    if columns.contains(&name.as_str()) {
        return Ok(());
    }
    let err = Error::new(Kind::UndefinedColumn, format!("column \"{name}\" of {clause} does not exist"));
    Err(with_nearest(err, name, columns.iter().copied()))
}

async fn stop(handle: &NotifierHandle) {
    handle.stop.cancel();
    let running = handle.running.lock().take();
    if let Some(running) = running {
        // It has told what went wrong.
        let _ = running.await;
    }
}

/// What alerts watch.
pub(super) struct Watched {
    followed: Followed,
    rest: Arc<AtomicU32>,
    /// Its query is run now and then; nothing follows it.
    polls: bool,
    seen: Mutex<Option<Seen>>,
    /// The version of which everything was given out.
    given: Arc<AtomicU64>,
    known: Mutex<Known>,
}

/// What is known of the time in what was given out.
#[derive(Default)]
struct Known {
    reached: Option<Reached>,
    /// How far it will be with this version.
    waiting: Option<(u64, Reached)>,
}

/// As it was when it was planned last.
#[derive(Clone)]
struct Seen {
    timing: Timing,
    lateness: Micros,
    runners: Vec<Arc<Runner>>,
    every: Duration,
    /// Its streams have event times.
    has_time: bool,
}

impl Watched {
    async fn describe(&self) -> Result<Described> {
        let engine = self.followed.engine()?;
        if self.polls {
            let (_, schema) = self.followed.plan(&engine).await?;
            let (timing, runners, every) = (Timing::Level, Vec::new(), Duration::ZERO);
            let seen = Seen { timing, lateness: 0, runners, every, has_time: false };
            *self.seen.lock() = Some(seen);
            return Ok(Described { schema, timing: Timing::Level });
        }
        let described = Relation::describe(&self.followed).await?;
        let (plan, _) = self.followed.plan(&engine).await?;
        let mut seen = engine.timing_of(&plan)?;
        seen.every = described.every;
        let timing = seen.timing.clone();
        *self.seen.lock() = Some(seen);
        Ok(Described { schema: described.schema, timing })
    }

    async fn follow(&self, place: Place) -> Result<SendableRecordBatchStream> {
        let seen = self.seen.lock().clone().ok_or_else(|| Error::internal("it was not described"))?;
        let (start, window) = match &seen.timing {
            Timing::Rows { .. } => (Start::From(place.offset), None),
            Timing::Windows(grid) => {
                let window = (grid.column, grid.behind(place.closed_to));
                (Start::Snapshot, (place.closed_to > NEVER && place.closed_to < FOREVER).then_some(window))
            }
            Timing::Level => (Start::Snapshot, None),
        };
        let options = Options {
            start,
            progress: true,
            upsert: false,
            key: None,
            every: seen.every,
            missed: Arc::new(AtomicU64::new(0)),
            rest: Arc::clone(&self.rest),
            reached: Arc::clone(&self.given),
        };
        self.given.store(0, Ordering::Release);
        *self.known.lock() = Known::default();
        Relation::follow(&self.followed, options, window).await
    }

    async fn read(&self) -> Result<SendableRecordBatchStream> {
        let engine = self.followed.engine()?;
        let (plan, _) = self.followed.plan(&engine).await?;
        engine.run(LogicalPlan::clone(&plan)).await
    }

    async fn predicate(&self, query: &str) -> Result<Arc<dyn PhysicalExpr>> {
        let engine = self.followed.engine()?;
        let (plan, _) = engine.plan_query(query).await?;
        let LogicalPlan::Projection(projection) = &*plan else { return Err(not_of_rows()) };
        // They would be columns that no row of the relation has.
        if matches!(&*projection.input, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
            return Err(not_of_rows());
        }
        let [expr] = projection.expr.as_slice() else { return Err(Error::internal("it has one column")) };
        let expr = match expr {
            Expr::Alias(alias) => &alias.expr,
            other => other,
        };
        check_predicate(expr)?;
        let physical = create_physical_expr(
            expr,
            projection.input.schema(),
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )?;
        match physical.data_type(projection.input.schema().as_arrow())? {
            DataType::Boolean => Ok(physical),
            other => {
                let name = other.to_string().to_lowercase();
                Err(Error::new(
                    Kind::Datatype,
                    format!("the predicate of an alert is true or false, not of type {name}"),
                ))
            }
        }
    }
}

/// A predicate is about the columns of one row, and about nothing else.
fn check_predicate(expr: &Expr) -> Result<()> {
    let mut wrong = None;
    expr.apply(|e| {
        match e {
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
                wrong = Some(not_of_rows());
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => wrong = Some(not_of_rows()),
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                let message =
                    format!("the predicate of an alert cannot use {}(): its value changes by itself", call.func.name());
                let err = Error::new(Kind::NotSupported, message);
                wrong =
                    Some(err.with_hint(
                        "Use it in a query that is run now and then: ON (SELECT …) EVERY INTERVAL '1 minute'.",
                    ));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    wrong.map_or(Ok(()), Err)
}

fn not_of_rows() -> Error {
    Error::new(
        Kind::NotSupported,
        "the predicate of an alert is about single rows: no subqueries, aggregates or windows",
    )
    .with_hint("Compute it in the query: ON (SELECT …) WHERE …. Scores such as anomaly(requests) stand without OVER.")
}

impl Watched {
    /// How far time is, and the version of the streams at which it was so.
    fn sample(&self) -> (u64, Reached) {
        let wall = self.followed.engine().map_or(0, |engine| engine.clock.now());
        let seen = self.seen.lock();
        let Some(seen) = seen.as_ref() else { return (0, Reached { event: wall, closed_to: Micros::MIN }) };
        let (mut version, mut watermark) = (0, None);
        for runner in &seen.runners {
            let now = runner.snapshot([]);
            version += now.version;
            watermark = Some(watermark.map_or(now.watermark, |least: Micros| least.min(now.watermark)));
        }
        let reached = match watermark.unwrap_or(NEVER) {
            // Without event time the wall clock says how long ago something was.
            NEVER if !seen.has_time => Reached { event: wall, closed_to: wall },
            NEVER => Reached { event: Micros::MIN, closed_to: Micros::MIN },
            FOREVER => Reached { event: wall, closed_to: FOREVER },
            watermark => {
                let closed_to = watermark.saturating_sub(seen.lateness);
                Reached { event: closed_to, closed_to }
            }
        };
        (version, reached)
    }
}

impl Source for Watched {
    fn describe(&self) -> BoxFuture<'_, Result<Described>> {
        Box::pin(self.describe())
    }

    fn follow(&self, place: Place) -> BoxFuture<'_, Result<SendableRecordBatchStream>> {
        Box::pin(self.follow(place))
    }

    fn read(&self) -> BoxFuture<'_, Result<SendableRecordBatchStream>> {
        Box::pin(self.read())
    }

    fn predicate<'a>(&'a self, query: &'a str) -> BoxFuture<'a, Result<Arc<dyn PhysicalExpr>>> {
        Box::pin(self.predicate(query))
    }

    fn stands(&self) -> Reached {
        self.sample().1
    }

    fn reached(&self) -> Reached {
        let (version, stands) = self.sample();
        if self.polls {
            return stands;
        }
        let given = self.given.load(Ordering::Acquire);
        let mut known = self.known.lock();
        if let Some((_, waiting)) = known.waiting.take_if(|(version, _)| *version <= given) {
            known.reached = Some(waiting);
        }
        if version <= given {
            (known.reached, known.waiting) = (Some(stands), None);
        } else if known.waiting.is_none() {
            known.waiting = Some((version, stands));
        }
        match known.reached {
            Some(reached) if reached.event > Micros::MIN => reached,
            // Before anything was given out, nothing has closed.
            Some(_) | None => Reached { event: stands.event, closed_to: Micros::MIN },
        }
    }

    fn offset(&self) -> u64 {
        self.followed.offset().unwrap_or(0)
    }
}

impl Engine {
    /// How the times of a relation's rows are told.
    fn timing_of(&self, plan: &LogicalPlan) -> Result<Seen> {
        let every = Duration::ZERO;
        if let Some(table) = stream_of(plan) {
            let runner = Arc::clone(&table.runner);
            let time = runner.shape.time.as_ref().and_then(|time| {
                (0..plan.schema().fields().len()).find(|&i| stream_column(i, plan).as_ref() == Some(time))
            });
            let has_time = time.is_some();
            return Ok(Seen { timing: Timing::Rows { time }, lateness: 0, runners: vec![runner], every, has_time });
        }
        let finish = self.plan_view("", "", plan, ViewOptions::default())?.finish;
        let nature = Nature::of(&finish);
        let runners: Vec<_> = self.runners_of(&finish)?.into_values().collect();
        let slots = slots_of(&finish);
        let lateness = slots.iter().map(|slot| slot.definition.lateness).max().unwrap_or(0);
        let window = slots.iter().find_map(|slot| slot.definition.pane.map(|pane| pane.window));
        let is_time = |&column: &usize| {
            matches!(finish.schema().field(column).data_type(), DataType::Timestamp(TimeUnit::Microsecond, _))
        };
        let timing = match (nature.window.filter(is_time), window) {
            (Some(column), Some(window)) => Timing::Windows(Grid { column, shift: nature.shift, window }),
            _ => Timing::Level,
        };
        if runners.is_empty() {
            return Err(Error::new(
                Kind::NotSupported,
                "this alert reads no stream and no materialized view, so nothing tells of changes",
            ));
        }
        let has_time = runners.iter().all(|runner| runner.shape.time.is_some());
        Ok(Seen { timing, lateness, runners, every, has_time })
    }
}

impl Engine {
    /// When an alert would have fired between two moments.
    pub async fn backtest(
        self: &Arc<Self>,
        definition: &Definition,
        (from, to): (Micros, Micros),
    ) -> Result<Vec<Firing>> {
        if definition.every.is_some() {
            return Err(no_times());
        }
        self.check_alert(definition).await?;
        let source = self.watched(definition);
        let described = source.describe().await?;
        let predicate = match &definition.predicate {
            None => None,
            Some((_, query)) => Some(source.predicate(query).await?),
        };
        let begin = from.saturating_sub(definition.rule.hold);
        let (column, low, high) = match &described.timing {
            Timing::Windows(grid) => (grid.column, grid.behind(begin), grid.behind(to)),
            Timing::Rows { time: Some(column) } => (*column, begin.saturating_sub(1), to.saturating_sub(1)),
            Timing::Rows { time: None } | Timing::Level => return Err(no_times()),
        };
        let time = |at: Micros| format!("CAST('{}' AS TIMESTAMPTZ)", crate::notify::time_text(at));
        let column = quoted(described.schema.field(column).name());
        let query = format!(
            "SELECT * FROM ({}) AS q WHERE {column} > {} AND {column} <= {} ORDER BY {column}",
            definition.query,
            time(low),
            time(high),
        );
        let (plan, _) = self.plan_query(&query).await?;
        let rows = self.run(LogicalPlan::clone(&plan)).await?;
        backtest::run(definition, &described.timing, predicate, rows, (from, to)).await
    }
}

/// Looks up what charts show.
struct Charts(Weak<Engine>);

impl Lookup for Charts {
    fn series(&self, alert: u32, item: &Item) -> BoxFuture<'_, Result<Option<Series>>> {
        let item = item.clone();
        Box::pin(async move {
            let Some(engine) = self.0.upgrade() else { return Ok(None) };
            let handle = engine.alerts().into_iter().find(|handle| handle.id == alert);
            match handle {
                Some(handle) => engine.series(&handle.definition, &item).await,
                None => Ok(None),
            }
        })
    }
}

impl Engine {
    /// How the number that the predicate is about went on up to an event, by windows.
    async fn series(self: &Arc<Self>, definition: &Definition, item: &Item) -> Result<Option<Series>> {
        let source = self.watched(definition);
        let described = source.describe().await?;
        let Timing::Windows(grid) = &described.timing else { return Ok(None) };
        let Some((predicate, _)) = &definition.predicate else { return Ok(None) };
        let window = described.schema.field(grid.column).name();
        let words: Vec<&str> = predicate.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let numbers = described.schema.fields().iter().filter(|field| field.data_type().is_numeric());
        let Some(value) = numbers.map(|field| field.name()).find(|name| words.contains(&name.as_str())) else {
            return Ok(None);
        };
        let keys = item.key.iter().map(|(name, value)| match value {
            None => format!("{} IS NULL", quoted(name)),
            Some(value) => format!("CAST({} AS TEXT) = '{}'", quoted(name), value.replace('\'', "''")),
        });
        let mut filters: Vec<String> = keys.collect();
        filters.push(format!(
            "{} <= CAST('{}' AS TIMESTAMPTZ)",
            quoted(window),
            crate::notify::time_text(item.at.max(item.since))
        ));
        let query = format!(
            "SELECT {} AS t, CAST(max({}) AS DOUBLE PRECISION) AS v FROM ({}) AS q WHERE {} GROUP BY 1 ORDER BY 1 DESC LIMIT {POINTS}",
            quoted(window),
            quoted(value),
            definition.query,
            filters.join(" AND ")
        );
        let (plan, _) = self.plan_query(&query).await?;
        let mut rows = self.run(LogicalPlan::clone(&plan)).await?;
        let mut points = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let times = datafusion::common::cast::as_timestamp_microsecond_array(batch.column(0))?;
            let values = datafusion::common::cast::as_float64_array(batch.column(1))?;
            let pairs = times.iter().zip(values.iter());
            points.extend(pairs.filter_map(|(time, value)| Some((time?, value?))));
        }
        points.reverse();
        Ok(Some(Series { name: value.clone(), points }))
    }
}
