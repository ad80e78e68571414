//! Drives the alerts over one relation: follows it, has the trackers look at what changed, and records what that means.
//!
//! Whatever a change of state leads to (the state itself, its place in the history, the notes for those who are to be told,
//! how far the relation was followed) is recorded together, before anything of it is told. After a restart it goes on from
//! there: windows that closed meanwhile, and rows that came, are looked at as if it had been there.
//!
//! Alerts come and go while it runs ([`super::desk`]). One that goes is dropped between two steps. For one that comes the relation
//! is followed anew from where the alerts stand, by all of them, as if after a restart that has cost nothing: the same code
//! finds what each of them has not seen. Several that come one after the other are waited for and begin together.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_expr::PhysicalExpr;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Definition;
use super::desk::Desk;
use super::ledger::{Book, Ledger, Place};
use super::outbox::enqueue;
use super::rule::Moment;
use super::track::{Side, Timing};
use super::watch::{News, Watch};
use crate::error::{Error, Kind, Result};
use crate::notify::Spec;
use crate::time::{Clock, Micros};

/// So often time is let go on while an alert waits for it.
const TICK: Duration = Duration::from_millis(100);

/// How often it is noted how far the relation was followed, when nothing else is.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// Time before a relation that could not be followed is tried again; it doubles up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// So long an alert that comes waits for others, and at least [`REST`] times as long as it takes to follow the relation anew:
/// a script that makes a thousand alerts must not take the machine from ingestion.
const GATHER: Duration = Duration::from_millis(200);
const REST: u32 = 3;

/// What is known of a relation when it is followed.
#[derive(Debug, Clone)]
pub struct Described {
    pub schema: SchemaRef,
    pub timing: Timing,
}

/// How far time is in a relation.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// Event time, or that of the wall clock where there is none.
    pub event: Micros,
    /// Windows that end until then have closed.
    pub closed_to: Micros,
}

/// The relation of alerts; planned anew each time, as it may have been replaced.
pub trait Source: Send + Sync {
    fn describe(&self) -> BoxFuture<'_, Result<Described>>;

    /// Its changes, with `_offset`, `_op` and `_progress` in front: rows from a place on, or the whole result first, of windows
    /// those that end later than the place.
    fn follow(&self, place: Place) -> BoxFuture<'_, Result<SendableRecordBatchStream>>;

    /// Its rows as they are now.
    fn read(&self) -> BoxFuture<'_, Result<SendableRecordBatchStream>>;

    /// A predicate over its columns, which is the only column of this query.
    fn predicate<'a>(&'a self, query: &'a str) -> BoxFuture<'a, Result<Arc<dyn PhysicalExpr>>>;

    /// How far time is, by now.
    fn stands(&self) -> Reached;

    /// How far time was in what was given out of the changes: whatever belongs before that was among them.
    fn reached(&self) -> Reached;

    /// The offset at which it stands; only after it was described.
    fn offset(&self) -> u64;
}

/// See the file header.
pub struct Evaluator {
    pub source: Arc<dyn Source>,
    pub watches: Vec<Watch>,
    pub desk: Arc<Desk>,
    /// Run the query this often instead of following it.
    pub every: Option<Duration>,
    pub ledger: Arc<Ledger>,
    pub clock: Clock,
    pub stop: CancellationToken,
    /// The trackers know the whole result: what is missing is not there.
    pub is_whole: bool,
    /// So long alerts that come wait for others.
    pub gather: Duration,
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        self.desk.close();
    }
}

impl Evaluator {
    pub fn new(
        source: Arc<dyn Source>,
        watches: Vec<Watch>,
        every: Option<Duration>,
        ledger: &Arc<Ledger>,
        clock: &Clock,
    ) -> Evaluator {
        Evaluator {
            source,
            watches,
            desk: Arc::default(),
            every,
            ledger: Arc::clone(ledger),
            clock: clock.clone(),
            stop: CancellationToken::new(),
            is_whole: false,
            gather: GATHER,
        }
    }

    /// Evaluates until it is told to stop.
    pub async fn run(mut self) {
        while AssertUnwindSafe(self.evaluate()).catch_unwind().await.is_err() {
            tracing::error!(relation = %self.relation(), "the evaluation of alerts panicked; it begins again");
            let err = Error::internal("the evaluation panicked").with_hint("This is a bug. Please report it.");
            // What the trackers know may be half of something.
            self.is_whole = false;
            self.trouble(&err).await;
            if !self.rest(RETRY.1).await {
                break;
            }
        }
    }

    fn relation(&self) -> &str {
        self.watches.first().map_or("", |watch| watch.definition.from.as_str())
    }

    async fn evaluate(&mut self) {
        let mut wait = RETRY.0;
        let mut former = None;
        while !self.stop.is_cancelled() {
            self.let_go();
            self.watches.extend(self.desk.come());
            let begun = Instant::now();
            let ended = match self.every {
                None => self.follow(&mut former).await,
                Some(every) => self.poll(every).await,
            };
            let Err(err) = ended else { continue };
            (self.is_whole, former) = (false, None);
            if err.kind() == Kind::Shutdown {
                return;
            }
            // It was replaced: there is nothing wrong.
            if err.kind() != Kind::NotReady {
                self.trouble(&err).await;
            }
            wait = if begun.elapsed() > RETRY.1 { RETRY.0 } else { wait };
            if !self.rest(wait).await {
                return;
            }
            wait = (wait * 2).min(RETRY.1);
        }
        // How far it came.
        if self.is_whole {
            self.settle(true).await;
        }
    }

    /// Waits before the next try; alerts that go do not wait for it. Gives false when it is told to stop.
    async fn rest(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                () = self.desk.rings(false) => {}
                () = sleep_until(until) => return true,
            }
            self.let_go();
        }
    }

    /// Does something that may take long, or need what those hold who want it to stop or an alert to go. `None`: there
    /// are such.
    async fn unless_called<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = self.desk.rings(false) => None,
            done = work => Some(done),
        }
    }

    /// Drops the alerts that are to go.
    fn let_go(&mut self) {
        let gone = self.desk.gone();
        self.watches.retain(|watch| gone.iter().all(|(alert, _)| *alert != watch.id));
        for (_, told) in gone {
            // Who has asked may have gone.
            let _ = told.send(());
        }
    }

    /// One try to follow for as long as it goes well, until it is told to stop or alerts have come. `former`: what was followed
    /// until then; it ends when it is followed anew, so that what a query needs is kept and not made again.
    async fn follow(&mut self, former: &mut Option<SendableRecordBatchStream>) -> Result<()> {
        // What the trackers know is about to be read anew.
        self.is_whole = false;
        let (begun, source) = (Instant::now(), Arc::clone(&self.source));
        let Some(described) = self.unless_called(source.describe()).await else { return Ok(()) };
        let described = described?;
        let now = self.now();
        let Reached { closed_to, .. } = self.source.stands();
        let offset = self.source.offset();
        let is_rows = matches!(described.timing, Timing::Rows { .. });
        for watch in &mut self.watches {
            let hold = watch.definition.rule.hold;
            let begin = Place { offset, closed_to: closed_to.saturating_sub(hold) };
            watch.place.get_or_insert(begin);
        }
        self.begin(&described, now).await?;
        let places = || self.watches.iter().filter_map(|watch| watch.place);
        let place = Place {
            offset: places().map(|place| place.offset).min().unwrap_or(offset),
            closed_to: places().map(|place| place.closed_to).min().unwrap_or(closed_to),
        };
        let Some(following) = self.unless_called(source.follow(place)).await else { return Ok(()) };
        let mut rows = following?;
        *former = None;
        let mut noted = Instant::now();
        // Some of the rows of an instant were taken, and not yet all.
        let mut is_amid = false;
        loop {
            self.let_go();
            let settled = self.is_whole && !is_amid;
            let come = self.desk.due(self.gather).filter(|_| settled);
            if come.is_some_and(|due| due <= Instant::now()) {
                *former = Some(rows);
                return Ok(());
            }
            let due = if self.waits() { Instant::now() + TICK } else { noted + NOTE_EVERY };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = self.desk.rings(settled) => {}
                next = rows.next() => {
                    let Some(next) = next else {
                        return Err(Error::new(Kind::NotReady, "the relation is no longer followed"));
                    };
                    let next = next?;
                    let Some(offset) = progress(&next) else {
                        is_amid = true;
                        self.take(&next, !self.is_whole && !is_rows, is_rows)?;
                        continue;
                    };
                    is_amid = false;
                    let now = self.now();
                    for watch in &mut self.watches {
                        let place = watch.place.get_or_insert(place);
                        place.offset = place.offset.max(offset);
                        // The result as it was has come first.
                        if !self.is_whole && watch.fits {
                            watch.tracker.complete(now);
                        }
                    }
                    if !self.is_whole {
                        self.is_whole = true;
                        self.gather = (begun.elapsed() * REST).clamp(GATHER, RETRY.1);
                    }
                }
                () = sleep_until(come.map_or(due, |come| come.min(due))) => {}
            }
            if self.is_whole && !is_amid {
                let is_due = noted.elapsed() >= NOTE_EVERY;
                self.settle(is_due).await;
                if is_due {
                    noted = Instant::now();
                }
            }
        }
    }

    /// Runs the query again and again, until it is told to stop or alerts have come.
    async fn poll(&mut self, every: Duration) -> Result<()> {
        loop {
            let (begun, source) = (Instant::now(), Arc::clone(&self.source));
            self.is_whole = false;
            let Some(described) = self.unless_called(source.describe()).await else { return Ok(()) };
            let mut described = described?;
            // Rows are not followed: the result is what it is.
            described.timing = Timing::Level;
            self.begin(&described, self.now()).await?;
            let Some(rows) = self.unless_called(source.read()).await else { return Ok(()) };
            let mut rows = rows?;
            let now = self.now();
            self.watches.iter_mut().for_each(|watch| watch.tracker.renew());
            loop {
                let Some(batch) = self.unless_called(rows.next()).await else { return Ok(()) };
                let Some(batch) = batch else { break };
                let batch = batch?;
                for watch in self.watches.iter_mut().filter(|watch| watch.fits) {
                    watch.tracker.take(&batch, Side::Now, false, now)?;
                }
            }
            self.is_whole = true;
            self.settle(false).await;
            // A query that takes long has half of the time at most.
            let next = (begun + every).max(Instant::now() + begun.elapsed());
            while Instant::now() < next {
                self.let_go();
                let come = self.desk.due(self.gather);
                if come.is_some_and(|due| due <= Instant::now()) {
                    return Ok(());
                }
                let due = if self.waits() { next.min(Instant::now() + TICK) } else { next };
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    () = self.desk.rings(true) => {}
                    () = sleep_until(come.map_or(due, |come| come.min(due))) => {}
                }
                self.let_go();
                self.settle(false).await;
            }
        }
    }

    /// Fits the alerts to the relation as it is now.
    async fn begin(&mut self, described: &Described, now: Moment) -> Result<()> {
        let mut broken = Vec::new();
        for (at, watch) in self.watches.iter_mut().enumerate() {
            let schema = &described.schema;
            let known = watch.fitted.take().filter(|(over, _)| over == schema);
            let predicate = match (&watch.definition.predicate, known) {
                (None, _) => Ok(None),
                (Some(_), Some((_, predicate))) => Ok(Some(predicate)),
                (Some((_, query)), None) => self.source.predicate(query).await.map(Some),
            };
            let closed_to = watch.place.map_or(Micros::MIN, |place| place.closed_to);
            let begun = predicate.and_then(|predicate| {
                watch.fitted = predicate.clone().map(|predicate| (Arc::clone(schema), predicate));
                watch.tracker.begin(schema, predicate, &described.timing, now, closed_to)
            });
            watch.fits = begun.is_ok();
            match begun {
                Ok(()) => {}
                Err(err) if err.kind() == Kind::Shutdown => return Err(err),
                Err(err) => broken.push((at, err)),
            }
        }
        for (at, err) in broken {
            self.trouble_of(at, &err).await;
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment { event: self.source.reached().event, wall: self.clock.now() }
    }

    fn waits(&self) -> bool {
        self.watches.iter().any(|watch| watch.fits && (watch.tracker.waits() || watch.problem.is_some()))
    }

    /// Has the trackers look at changed rows.
    fn take(&mut self, batch: &RecordBatch, again: bool, is_rows: bool) -> Result<()> {
        let now = self.now();
        let ops = batch.column(1).as_string::<i32>();
        let offsets = batch.column(0).as_primitive::<Int64Type>();
        let own: Vec<usize> = (3..batch.num_columns()).collect();
        let gone = |op: &str| op == "delete" || op == "update_before";
        let before: BooleanArray = ops.iter().map(|op| Some(op.is_some_and(gone))).collect();
        let rows = batch.project(&own)?;
        let (old, new) = match before.true_count() {
            0 => (None, rows),
            _ => {
                let after: BooleanArray = before.values().iter().map(|is| Some(!is)).collect();
                (Some(filter_record_batch(&rows, &before)?), filter_record_batch(&rows, &after)?)
            }
        };
        for watch in self.watches.iter_mut().filter(|watch| watch.fits) {
            if let Some(old) = old.as_ref().filter(|old| old.num_rows() > 0) {
                watch.tracker.take(old, Side::Before, again, now)?;
            }
            // Another alert over the same rows may stand further back.
            let unseen = match watch.place.filter(|_| is_rows) {
                None => None,
                Some(place) => unseen(offsets, place.offset),
            };
            match unseen {
                None if new.num_rows() > 0 => watch.tracker.take(&new, Side::Now, again, now)?,
                None => {}
                Some(unseen) => watch.tracker.take(&filter_record_batch(&new, &unseen)?, Side::Now, again, now)?,
            }
        }
        Ok(())
    }

    /// Lets time go on, and records what has changed. `all`: also how far it came.
    async fn settle(&mut self, all: bool) {
        let (now, closed_to) = (self.now(), self.source.reached().closed_to);
        let silences = self.ledger.look(|book| book.silences.clone());
        let here: BTreeSet<u32> = self.watches.iter().filter(|watch| watch.fits).map(|watch| watch.id).collect();
        let mut letters = self.desk.letters(&here);
        let (mut news, mut answers) = (Vec::new(), Vec::new());
        for watch in self.watches.iter_mut().filter(|watch| watch.fits) {
            let mut found = watch.settle(now, closed_to, &silences, all);
            let id = watch.id;
            for letter in letters.extract_if(.., |letter| letter.alert == id) {
                // Who no longer waits was told that it was not done.
                if !letter.done.is_closed() {
                    answers.push((letter.done, watch.acknowledge(&letter.matching, &mut found)));
                }
            }
            if !found.entries.is_empty() || !found.items.is_empty() {
                news.push((watch.id, Arc::clone(&watch.definition), watch.specs.clone(), found));
            }
        }
        self.record(news, now.wall).await;
        for (done, count) in answers {
            // Who has asked may have gone.
            let _ = done.send(count);
        }
    }

    async fn record(&self, news: Vec<(u32, Arc<Definition>, BTreeMap<String, &'static Spec>, News)>, now: Micros) {
        if news.is_empty() {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        let make = move |book: &mut Book| {
            let mut entries = Vec::new();
            for (id, definition, specs, news) in news {
                entries.extend(news.entries);
                entries.extend(enqueue(book, (id, &definition), &news.items, &specs, now));
            }
            entries
        };
        match tokio::task::spawn_blocking(move || ledger.record(make)).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => {
                tracing::error!(relation = %self.relation(), error = %err, "what alerts have found cannot be written down; it is told all the same");
            }
            Err(err) => tracing::error!(error = %err, "writing down what alerts have found panicked"),
        }
    }

    /// None of the alerts can be evaluated.
    async fn trouble(&mut self, err: &Error) {
        for at in 0..self.watches.len() {
            self.trouble_of(at, err).await;
        }
    }

    async fn trouble_of(&mut self, at: usize, err: &Error) {
        let now = self.clock.now();
        if let Some(watch) = self.watches.get_mut(at)
            && let Some(news) = watch.trouble(err, now)
        {
            let news = vec![(watch.id, Arc::clone(&watch.definition), watch.specs.clone(), news)];
            self.record(news, now).await;
        }
    }
}

/// Rows behind an offset; `None` when that are all of them.
fn unseen(offsets: &Int64Array, seen: u64) -> Option<BooleanArray> {
    let is_new = |offset: Option<i64>| offset.is_some_and(|offset| offset as u64 > seen);
    let new: BooleanArray = offsets.iter().map(|offset| Some(is_new(offset))).collect();
    (new.true_count() < offsets.len()).then_some(new)
}

/// The offset that a batch says was reached, if it says no more than that.
fn progress(batch: &RecordBatch) -> Option<u64> {
    let is_progress = batch.column(2).as_boolean();
    let is_one = batch.num_rows() == 1 && is_progress.is_valid(0) && is_progress.value(0);
    is_one.then(|| batch.column(0).as_primitive::<Int64Type>().value(0) as u64)
}

#[cfg(test)]
mod tests;
