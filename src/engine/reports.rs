//! Reports: what they are made of, and where they run: on the small pool of alerts, each with a task of its own that waits for
//! its schedule (`report/reporter.rs`). What must outlive the process is in the ledger of alerts.

use std::sync::{Arc, Weak};

use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Engine, blocking};
use crate::alert::ledger::{Entry, Reported};
use crate::catalog::{Object, ObjectKind, Origin};
use crate::error::{Error, Kind, Result};
use crate::options::with_nearest;
use crate::report::Definition;
use crate::report::reporter::{Asked, Reporter, Source};
use crate::report::schedule::Period;
use crate::task::Task;
use crate::time::Micros;

/// A report that there is.
pub struct ReportHandle {
    /// The id of its object in the catalog.
    pub id: u32,
    pub definition: Arc<Definition>,
    stop: CancellationToken,
    running: Mutex<Option<Task<()>>>,
}

impl ReportHandle {
    async fn stop(&self) {
        self.stop.cancel();
        let running = self.running.lock().take();
        if let Some(running) = running {
            // It has told what went wrong.
            let _ = running.await;
        }
    }
}

impl Engine {
    pub fn reports(&self) -> Vec<Arc<ReportHandle>> {
        self.alerting.reports.read().values().cloned().collect()
    }

    fn report(&self, name: &str) -> Result<Arc<ReportHandle>> {
        self.alerting.reports.read().get(name).cloned().ok_or_else(|| self.no_report(name))
    }

    /// "report does not exist", with the nearest name.
    pub fn no_report(&self, name: &str) -> Error {
        let handles = self.reports();
        let err = Error::new(Kind::UndefinedObject, format!("report \"{name}\" does not exist"));
        with_nearest(
            err.with_hint("SHOW REPORTS lists them."),
            name,
            handles.iter().map(|handle| handle.definition.name.as_str()),
        )
    }

    /// Creates a report, which is sent when its schedule next says so. What is wrong with its queries is told at once.
    pub async fn create_report(self: &Arc<Self>, definition: Definition, by: Origin<'_>) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let name = definition.name.clone();
        let ledger = self.need_ledger("a report")?;
        for notifier in &definition.notify {
            let handle = self.notifier(notifier)?;
            if !handle.spec.takes_reports {
                let message = format!("notifier \"{notifier}\" of type {} takes no reports", handle.spec.name);
                return Err(Error::new(Kind::NotSupported, message).with_hint("It is for alerts alone."));
            }
        }
        let id = {
            let catalog = self.catalog.lock();
            catalog.get(&name).map_or(catalog.next_id(), |object| object.id)
        };
        if !self.is_restoring() {
            self.check_free(&name)?;
            let due = definition.schedule.last(self.clock.now());
            let period = definition.schedule.period(due);
            for query in &definition.queries {
                let (text, _) = self.of_period(&query.text, period)?;
                let planned = self.plan_query(&text).await;
                let (plan, _) =
                    planned.map_err(|err| if query.title.is_empty() { err } else { err.with_context(&query.title) })?;
                if !plan.get_parameter_names()?.is_empty() {
                    return Err(Error::new(Kind::NotSupported, "a query of a report has no parameters"));
                }
            }
            let reported = Reported { due, ..Reported::default() };
            blocking(move || ledger.record(|_| vec![Entry::Report { report: id, reported, notes: Vec::new() }]))
                .await?;
            let reads = definition.reads.iter().chain(&definition.notify).cloned().collect();
            self.remember(ObjectKind::Report, &name, by, reads)?;
        }
        let definition = Arc::new(definition);
        let handle =
            Arc::new(ReportHandle { id, definition, stop: CancellationToken::new(), running: Mutex::default() });
        self.alerting.reports.write().insert(name, Arc::clone(&handle));
        if !self.is_restoring() {
            self.start_report(&handle)?;
        }
        Ok(())
    }

    fn reporter(self: &Arc<Self>, handle: &ReportHandle) -> Result<Reporter> {
        Ok(Reporter {
            id: handle.id,
            definition: Arc::clone(&handle.definition),
            source: Arc::new(Queries(Arc::downgrade(self))),
            ledger: self.need_ledger("a report")?,
            clock: self.clock.clone(),
            turn: Arc::clone(&self.alerting.turn),
            stop: handle.stop.clone(),
        })
    }

    fn start_report(self: &Arc<Self>, handle: &ReportHandle) -> Result<()> {
        let reporter = self.reporter(handle)?;
        *handle.running.lock() = Some(self.alerting.pool()?.spawn(reporter.run()));
        Ok(())
    }

    /// Starts the reports that the catalog has, and forgets the others.
    pub(super) fn start_reports(self: &Arc<Self>) -> Result<()> {
        let Some(ledger) = self.ledger() else { return Ok(()) };
        let handles = self.reports();
        let is_known = |id: &u32| handles.iter().any(|handle| handle.id == *id);
        let gone: Vec<u32> = ledger.look(|book| book.reports.keys().copied().filter(|id| !is_known(id)).collect());
        ledger.record(|_| gone.into_iter().map(|alert| Entry::Forget { alert }).collect())?;
        handles.iter().try_for_each(|handle| self.start_report(handle))
    }

    pub(super) async fn stop_reports(&self) {
        futures::future::join_all(self.reports().iter().map(|handle| handle.stop())).await;
    }

    /// Stops the reports among these objects, and forgets them.
    pub(super) async fn remove_reports(&self, going: &[Object]) {
        let gone: Vec<Arc<ReportHandle>> = {
            let mut reports = self.alerting.reports.write();
            let going = going.iter().filter(|object| object.kind == ObjectKind::Report);
            going.filter_map(|object| reports.remove(&object.name)).collect()
        };
        futures::future::join_all(gone.iter().map(|handle| handle.stop())).await;
        let Some(ledger) = self.ledger().filter(|_| !gone.is_empty()) else { return };
        let forget = gone.iter().map(|handle| Entry::Forget { alert: handle.id }).collect();
        if let Err(err) = blocking(move || ledger.record(|_| forget)).await {
            tracing::warn!(error = %err, "that reports were dropped cannot be written down");
        }
    }

    /// Sends a report now, for the period that ends at this moment (now if none is given); whatever its schedule says. Gives how
    /// many of its queries failed, which the report says too.
    pub async fn send_report(self: &Arc<Self>, name: &str, end: Option<Micros>) -> Result<usize> {
        let handle = self.report(name)?;
        let now = self.clock.now();
        let end = end.unwrap_or(now);
        if end > now {
            return Err(Error::new(Kind::InvalidParameter, "AT is a time that has not come yet"));
        }
        Ok(self.reporter(&handle)?.tell(end, None).await)
    }

    /// The text of a query with the bounds of a period filled in, and whether it asks for them.
    fn of_period(&self, query: &str, period: Period) -> Result<(String, bool)> {
        let remake = self.remake.get().ok_or_else(|| Error::internal("nobody knows how to plan queries"))?;
        remake.of_period(query, period.start, period.end)
    }
}

/// Runs the queries of reports. Holds the engine weakly: the engine owns the reports.
struct Queries(Weak<Engine>);

impl Queries {
    fn engine(&self) -> Result<Arc<Engine>> {
        self.0.upgrade().ok_or_else(|| Error::new(Kind::Shutdown, "the server is shutting down"))
    }
}

impl Source for Queries {
    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.engine()?.flush().await })
    }

    fn ask<'a>(&'a self, query: &'a str, period: Period) -> BoxFuture<'a, Result<Asked>> {
        Box::pin(async move {
            let engine = self.engine()?;
            let (text, by_period) = engine.of_period(query, period)?;
            let (plan, fields) = engine.plan_query(&text).await?;
            let names = fields.fields().iter().map(|field| field.name().clone()).collect();
            let rows = engine.run(LogicalPlan::clone(&plan)).await?;
            Ok(Asked { rows, names, by_period })
        })
    }
}
