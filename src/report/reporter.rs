//! Drives a report: waits for the moments of its schedule, runs its queries, and puts what they gave into the outbox of each
//! who gets it.
//!
//! Before the queries are run, what the sources had by then is waited for, so that a full hour is all of that hour. Each
//! query is run for the period and, if it asks for the period, for the one before. Reports are made one after the other:
//! they are in no hurry, and dozens that are due at the same full hour must not take the machine from those who are.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::SendableRecordBatchStream;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::schedule::Period;
use super::section::{self, Found};
use super::{Definition, Query};
use crate::alert::ledger::{Entry, Ledger, Reported};
use crate::alert::outbox::enqueue_report;
use crate::error::{Error, Kind, Result};
use crate::notify::report::{Report, Section, moment};
use crate::time::{Clock, MICROS_PER_SECOND, Micros};

/// Looks at least this often whether it is due: the clock may have been set.
const LOOK: Duration = Duration::from_secs(1);

/// A report that is made so long after it was due is late; half of a period, if that is less.
const LATE: Micros = 60 * MICROS_PER_SECOND;

/// So long rows that are on their way are waited for.
const SETTLE: Duration = Duration::from_secs(30);

/// A query that takes longer is given up.
const LONGEST: Duration = Duration::from_secs(300);

/// Moments that were left out are counted up to here.
const MOST_MISSED: u64 = 10_000;

/// The result of a query, to be read.
pub struct Asked {
    pub rows: SendableRecordBatchStream,
    pub names: Vec<String>,
    /// It asks for the period.
    pub by_period: bool,
}

/// Where queries are run.
pub trait Source: Send + Sync {
    /// Returns when what the sources had to give can be read.
    fn settle(&self) -> BoxFuture<'_, Result<()>>;

    /// Runs a query, planned anew as what it reads may have changed.
    fn ask<'a>(&'a self, query: &'a str, period: Period) -> BoxFuture<'a, Result<Asked>>;
}

/// See the file header.
pub struct Reporter {
    /// The id of its object in the catalog.
    pub id: u32,
    pub definition: Arc<Definition>,
    pub source: Arc<dyn Source>,
    pub ledger: Arc<Ledger>,
    pub clock: Clock,
    /// Whose turn it is to make one.
    pub turn: Arc<Semaphore>,
    pub stop: CancellationToken,
}

impl Reporter {
    /// Makes reports until it is told to stop.
    pub async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let schedule = &self.definition.schedule;
        loop {
            let now = self.clock.now();
            let (last, next) = (schedule.last(now), schedule.next(now));
            let seen = self.ledger.look(|book| book.reports.get(&self.id).map(|reported| reported.due));
            let wait = match seen {
                Some(seen) if seen >= last && seen <= next => next.max(schedule.next(seen)) - now,
                Some(seen) if seen < last => {
                    self.tell(last, Some(seen)).await;
                    continue;
                }
                // A clock that was put back, or nothing is known: it goes on from here.
                Some(_) | None => {
                    self.go_on_from(last).await;
                    continue;
                }
            };
            sleep(Duration::from_micros(wait.unsigned_abs()).min(LOOK)).await;
        }
    }

    /// Takes a moment of the schedule for seen to.
    async fn go_on_from(&self, due: Micros) {
        let (report, ledger) = (self.id, Arc::clone(&self.ledger));
        self.write(move || {
            ledger.record(|book| {
                let reported = book.reports.get(&report).cloned().unwrap_or_default();
                vec![Entry::Report { report, reported: Reported { due, ..reported }, notes: Vec::new() }]
            })
        })
        .await;
    }

    /// Sends the report for the period that ends then; of the schedule, if it was followed up to `seen`. Gives how many of its
    /// queries failed.
    pub async fn tell(&self, end: Micros, seen: Option<Micros>) -> usize {
        let schedule = &self.definition.schedule;
        // Nobody closes it.
        let _turn = self.turn.acquire().await;
        let now = self.clock.now();
        let period = schedule.period(end);
        let late = seen.is_some() && now - end > LATE.min((end - period.start) / 2);
        let missed = seen.map_or(0, |seen| schedule.between(seen, end, MOST_MISSED));
        let mut remarks = Vec::new();
        if late {
            remarks.push(format!("This report was due at {} and is late.", moment(end, &schedule.zone())));
        }
        if missed > 0 {
            let (count, was) =
                if missed == 1 { ("One report".into(), "was") } else { (format!("{missed} reports"), "were") };
            remarks.push(format!("{count} before it {was} left out; SEND REPORT … AT makes up for them."));
        }
        match timeout(SETTLE, self.source.settle()).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => remarks.push(format!("Not all that had come may be counted: {}.", err.message())),
            Err(_) => remarks.push(format!("Not all that had come is counted: it was not read within {SETTLE:?}.")),
        }
        let mut sections = Vec::new();
        for query in &self.definition.queries {
            sections.push(self.section(query, period).await);
        }
        let report = Report {
            name: self.definition.name.clone(),
            start: period.start,
            end,
            before: schedule.period(period.start).start,
            zone: schedule.zone().name().to_string(),
            late,
            missed,
            remarks,
            sections,
        };
        self.record(report, seen.is_some()).await
    }

    /// Writes down that it was made, and what is to be sent. What the disk does not take is sent all the same.
    async fn record(&self, report: Report, is_scheduled: bool) -> usize {
        let failed: Vec<String> = report.sections.iter().filter_map(failure).collect();
        let (id, count, now) = (self.id, failed.len(), self.clock.now());
        let (ledger, definition) = (Arc::clone(&self.ledger), Arc::clone(&self.definition));
        self.write(move || {
            ledger.record(|book| {
                // It was dropped meanwhile.
                let Some(mut reported) = book.reports.get(&id).cloned() else { return Vec::new() };
                if is_scheduled {
                    (reported.due, reported.late, reported.missed) = (report.end, report.late, report.missed);
                }
                reported.error = (!failed.is_empty()).then(|| failed.join("; "));
                let notes = enqueue_report(book, id, &definition.notify, &report, now);
                vec![Entry::Report { report: id, reported, notes }]
            })
        })
        .await;
        count
    }

    async fn write(&self, work: impl FnOnce() -> Result<()> + Send + 'static) {
        if let Ok(Err(err)) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(report = %self.definition.name, error = %err, "that a report was made cannot be written down: it may be made again after a restart");
        }
    }

    /// One part. A query that fails is one too.
    async fn section(&self, query: &Query, period: Period) -> Section {
        let before = self.definition.schedule.period(period.start);
        let asked = async {
            let (found, by_period) = self.ask(query, period).await?;
            let previous = if by_period { Some(self.ask(query, before).await?.0.rows) } else { None };
            Ok::<_, Error>((found, previous))
        };
        let title = query.title.clone();
        // What panics in an operator is this query's affair alone.
        let answer = match AssertUnwindSafe(timeout(LONGEST, asked)).catch_unwind().await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::new(Kind::Canceled, format!("it took more than {LONGEST:?}"))),
            Err(_) => Err(Error::internal("the query panicked").with_hint("This is a bug. Please report it.")),
        };
        match answer {
            Ok((Found { columns, rows, omitted }, previous)) => {
                Section { title, error: None, columns, rows, omitted, previous }
            }
            Err(err) => {
                let name = &self.definition.name;
                tracing::warn!(report = %name, query = %title, error = %err, "a query of a report failed; the report says so");
                Section { title, error: Some(err.to_string()), ..Section::default() }
            }
        }
    }

    async fn ask(&self, query: &Query, period: Period) -> Result<(Found, bool)> {
        let Asked { rows, names, by_period } = self.source.ask(&query.text, period).await?;
        Ok((section::read(rows, &names).await?, by_period))
    }
}

/// What went wrong with a section, in one line.
fn failure(section: &Section) -> Option<String> {
    let error = section.error.as_ref()?.lines().next().unwrap_or_default().to_string();
    Some(if section.title.is_empty() { error } else { format!("{}: {error}", section.title) })
}
