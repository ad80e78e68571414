//! Drives the alerts over one relation: follows it, has the trackers look at what changed, and records what that means.
//!
//! Whatever a change of state leads to (the state itself, its place in the history, the notes for those who are to be told,
//! how far the relation was followed) is recorded together, before anything of it is told. After a restart it goes on from
//! there: windows that closed meanwhile, and rows that came, are looked at as if it had been there.

use std::collections::{BTreeMap, HashMap};
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
use parking_lot::Mutex;
use serde_json::Map;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Definition;
use super::ledger::{Book, Entry, Event, Ledger, Place, Problem, Silence};
use super::outbox::enqueue;
use super::rule::{Change, Moment, State};
use super::track::{Key, MOST_INSTANCES, Side, Timing, Tracked, Tracker};
use crate::error::{Error, Kind, Result};
use crate::notify::{Item, Spec, Status};
use crate::template;
use crate::time::{Clock, Micros};

/// So often time is let go on while an alert waits for it.
const TICK: Duration = Duration::from_millis(100);

/// How often it is noted how far the relation was followed, when nothing else is.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// Time before a relation that could not be followed is tried again; it doubles up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// An alert counts as mended when it could be evaluated for this long.
const MENDED: Micros = 60_000_000;

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

    /// A predicate over its columns.
    fn predicate<'a>(&'a self, query: &'a str) -> BoxFuture<'a, Result<Arc<dyn PhysicalExpr>>>;

    /// How far time is, by now.
    fn stands(&self) -> Reached;

    /// How far time was in what was given out of the changes: whatever belongs before that was among them.
    fn reached(&self) -> Reached;

    /// The offset at which it stands; only after it was described.
    fn offset(&self) -> u64;
}

/// What somebody asks of the instances of an alert.
pub struct Acknowledgement {
    pub matching: Vec<(String, String)>,
    /// Told how many there were.
    pub done: oneshot::Sender<u64>,
}

/// What an evaluator and those who ask it share.
#[derive(Default)]
pub struct Post {
    letters: Mutex<Vec<Acknowledgement>>,
    bell: Notify,
}

impl Post {
    pub fn send(&self, letter: Acknowledgement) {
        self.letters.lock().push(letter);
        self.bell.notify_one();
    }
}

/// One alert.
pub struct Watch {
    id: u32,
    definition: Arc<Definition>,
    post: Arc<Post>,
    specs: BTreeMap<String, &'static Spec>,
    tracker: Tracker,
    place: Option<Place>,
    /// As it was written down last.
    noted: Option<Place>,
    problem: Option<Problem>,
    /// When it last could not be evaluated.
    failed: Micros,
    /// It takes part in the session: its predicate fits the relation.
    fits: bool,
}

impl Watch {
    /// With what is remembered of it. `specs`: of the notifiers.
    pub fn new(
        id: u32,
        definition: Arc<Definition>,
        post: Arc<Post>,
        specs: BTreeMap<String, &'static Spec>,
        ledger: &Ledger,
    ) -> Watch {
        let (instances, place, problem) = ledger.look(|book| match book.alerts.get(&id) {
            None => (HashMap::new(), None, None),
            Some(remembered) => {
                let tracked = remembered.instances.iter().map(|(key, kept)| (key.clone(), Tracked::of(kept.clone())));
                (tracked.collect(), remembered.place, remembered.problem.clone())
            }
        });
        let tracker = Tracker::new(definition.rule, definition.keeps, &definition.key, instances);
        let failed = problem.as_ref().map_or(Micros::MIN, |problem| problem.since);
        Watch { id, definition, post, specs, tracker, place, noted: place, problem, failed, fits: false }
    }
}

/// See the file header.
pub struct Evaluator {
    pub source: Arc<dyn Source>,
    pub watches: Vec<Watch>,
    /// Run the query this often instead of following it.
    pub every: Option<Duration>,
    pub ledger: Arc<Ledger>,
    pub clock: Clock,
    pub stop: CancellationToken,
    /// The trackers know the whole result: what is missing is not there.
    pub is_whole: bool,
}

/// What is to be recorded of an alert.
#[derive(Default)]
struct News {
    entries: Vec<Entry>,
    items: Vec<Item>,
    /// Answers to those who have asked, once it is recorded.
    answers: Vec<(oneshot::Sender<u64>, u64)>,
}

impl Evaluator {
    /// Evaluates until it is told to stop.
    pub async fn run(mut self) {
        while AssertUnwindSafe(self.evaluate()).catch_unwind().await.is_err() {
            tracing::error!(relation = %self.relation(), "the evaluation of alerts panicked; it begins again");
            let err = Error::internal("the evaluation panicked").with_hint("This is a bug. Please report it.");
            self.trouble(&err).await;
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = sleep(RETRY.1) => {}
            }
        }
    }

    fn relation(&self) -> &str {
        self.watches.first().map_or("", |watch| watch.definition.from.as_str())
    }

    async fn evaluate(&mut self) {
        let mut wait = RETRY.0;
        while !self.stop.is_cancelled() {
            let begun = Instant::now();
            let ended = match self.every {
                None => self.follow().await,
                Some(every) => self.poll(every).await,
            };
            let Err(err) = ended else { break };
            self.is_whole = false;
            if err.kind() == Kind::Shutdown {
                break;
            }
            // It was replaced: there is nothing wrong.
            if err.kind() != Kind::NotReady {
                self.trouble(&err).await;
            }
            wait = if begun.elapsed() > RETRY.1 { RETRY.0 } else { wait };
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY.1);
        }
        // How far it came.
        if self.is_whole {
            self.settle(true).await;
        }
    }

    /// One try to follow for as long as it goes well.
    async fn follow(&mut self) -> Result<()> {
        let described = self.source.describe().await?;
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
        let following = tokio::select! {
            biased;
            // Who stops it may hold what following needs.
            () = self.stop.cancelled() => return Ok(()),
            following = self.source.follow(place) => following,
        };
        let mut rows = following?;
        // The result as it was comes first.
        self.is_whole = false;
        let mut noted = Instant::now();
        loop {
            let due = if self.waits() { Instant::now() + TICK } else { noted + NOTE_EVERY };
            let bell = self.bell();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = bell => {}
                next = rows.next() => {
                    let Some(next) = next else {
                        return Err(Error::new(Kind::NotReady, "the relation is no longer followed"));
                    };
                    let next = next?;
                    match progress(&next) {
                        None => {
                            self.take(&next, !self.is_whole && !is_rows, is_rows)?;
                            continue;
                        }
                        Some(offset) => {
                            for watch in &mut self.watches {
                                let place = watch.place.get_or_insert(place);
                                place.offset = place.offset.max(offset);
                            }
                            self.is_whole = true;
                        }
                    }
                }
                () = sleep_until(due) => {}
            }
            if self.is_whole {
                let is_due = noted.elapsed() >= NOTE_EVERY;
                self.settle(is_due).await;
                if is_due {
                    noted = Instant::now();
                }
            }
        }
    }

    /// Runs the query again and again.
    async fn poll(&mut self, every: Duration) -> Result<()> {
        loop {
            let begun = Instant::now();
            let mut described = self.source.describe().await?;
            // Rows are not followed: the result is what it is.
            described.timing = Timing::Level;
            self.is_whole = false;
            self.begin(&described, self.now()).await?;
            let mut rows = self.source.read().await?;
            let now = self.now();
            self.watches.iter_mut().for_each(|watch| watch.tracker.renew());
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                for watch in self.watches.iter_mut().filter(|watch| watch.fits) {
                    watch.tracker.take(&batch, Side::Now, false, now)?;
                }
            }
            self.is_whole = true;
            self.settle(false).await;
            let next = begun + every;
            loop {
                let due = if self.waits() { next.min(Instant::now() + TICK) } else { next };
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    () = self.bell() => {}
                    () = sleep_until(due) => {}
                }
                if Instant::now() >= next {
                    break;
                }
                self.settle(false).await;
            }
        }
    }

    /// Fits the alerts to the relation as it is now.
    async fn begin(&mut self, described: &Described, now: Moment) -> Result<()> {
        let mut broken = Vec::new();
        for (at, watch) in self.watches.iter_mut().enumerate() {
            let predicate = match &watch.definition.predicate {
                None => Ok(None),
                Some((_, query)) => self.source.predicate(query).await.map(Some),
            };
            let closed_to = watch.place.map_or(Micros::MIN, |place| place.closed_to);
            let begun = predicate.and_then(|predicate| {
                watch.tracker.begin(&described.schema, predicate, &described.timing, now, closed_to)
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

    /// Somebody asks for something.
    fn bell(&self) -> BoxFuture<'static, ()> {
        let posts: Vec<Arc<Post>> = self.watches.iter().map(|watch| Arc::clone(&watch.post)).collect();
        let one = |post: Arc<Post>| async move { post.bell.notified().await }.boxed();
        futures::future::select_all(posts.into_iter().map(one)).map(drop).boxed()
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
        let (mut news, mut answers) = (Vec::new(), Vec::new());
        for watch in self.watches.iter_mut().filter(|watch| watch.fits) {
            let mut found = watch.settle(now, closed_to, &silences, all);
            answers.append(&mut found.answers);
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

impl Watch {
    fn settle(&mut self, now: Moment, closed_to: Micros, silences: &[Silence], all: bool) -> News {
        let mut news = News::default();
        let letters = std::mem::take(&mut *self.post.letters.lock());
        for letter in letters {
            let count = self.acknowledge(&letter.matching, &mut news);
            news.answers.push((letter.done, count));
        }
        let failure = self.tracker.failure().or_else(|| {
            self.tracker.is_full.then(|| {
                let message = format!("there are more than {MOST_INSTANCES} values of KEY; the others are left out");
                Error::new(Kind::ResourceLimit, message)
                    .with_hint("Name fewer columns in KEY, or filter more in WHERE.")
            })
        });
        match failure {
            Some(err) => {
                let more = self.trouble(&err, now.wall).unwrap_or_default();
                news.entries.extend(more.entries);
                news.items.extend(more.items);
            }
            None if self.problem.is_some() && now.wall.saturating_sub(self.failed) > MENDED => {
                self.mend(now.wall, &mut news)
            }
            None => {}
        }
        self.tracker.is_full = false;
        for (key, changes) in self.tracker.advance(now, closed_to) {
            self.tell(&key, &changes, now, silences, &mut news);
        }
        let changed = !news.entries.is_empty();
        for key in self.tracker.forget(now) {
            news.entries.push(Entry::Gone { alert: self.id, key });
        }
        if changed || all {
            self.place = self.place.map(|place| Place { closed_to: place.closed_to.max(closed_to), ..place });
            for (key, kept) in self.tracker.unsaved() {
                news.entries.push(Entry::Instance { alert: self.id, key, kept: Box::new(kept) });
            }
            if let Some(place) = self.place.filter(|_| self.place != self.noted) {
                news.entries.push(Entry::Place { alert: self.id, place });
            }
            self.noted = self.place;
        }
        news
    }

    /// What changes of an instance mean, and whether somebody is to be told.
    fn tell(&mut self, key: &Key, changes: &[Change], now: Moment, silences: &[Silence], news: &mut News) {
        let (definition, rule) = (Arc::clone(&self.definition), self.definition.rule);
        let Some(tracked) = self.tracker.instances.get_mut(key) else { return };
        let is_due = |kept: &super::track::Kept| match (kept.told, rule.repeat) {
            (None, _) => true,
            (Some(told), Some(every)) => !kept.acknowledged && now.wall.saturating_sub(told) >= every,
            (Some(_), None) => false,
        };
        if changes.is_empty() && !is_due(&tracked.kept) {
            return;
        }
        let labels = labels(&definition, key, &tracked.kept.row);
        let is_silenced = silences.iter().any(|silence| {
            silence.alert == self.id && silence.until > now.wall && fits(&silence.matching, &definition, key, &labels)
        });
        let mut passed = None;
        for change in changes {
            // Without FOR it is passed through.
            if change.to == State::Pending && rule.hold == 0 {
                passed = Some(change.from);
                continue;
            }
            let from = passed.take().unwrap_or(change.from);
            let reason = change.silent.then(|| no_data(&definition));
            let kept = &mut tracked.kept;
            let row = if change.silent { Map::new() } else { kept.row.clone() };
            news.entries.push(Entry::Event {
                event: Box::new(Event {
                    alert: definition.name.clone(),
                    key: named(&definition, key),
                    from: from.word().into(),
                    to: change.to.word().into(),
                    at: change.at,
                    reason: reason.clone(),
                    row,
                }),
            });
            match change.to {
                State::Firing => {
                    (kept.fired, kept.acknowledged) = (Some(change.at), false);
                    kept.silent = change.silent;
                }
                State::Resolved => {
                    if kept.told.take().is_some() {
                        news.items.push(item(&definition, key, kept, Status::Resolved, change.at.event));
                    }
                    kept.acknowledged = false;
                }
                State::Ok | State::Pending => {}
            }
            if change.to == State::Firing && !is_silenced {
                kept.told = Some(now.wall);
                news.items.push(item(&definition, key, kept, Status::Firing, change.at.event));
            }
        }
        let kept = &mut tracked.kept;
        if kept.instance.state == State::Firing && !is_silenced {
            let at = kept.fired.map_or(now.event, |fired| fired.event);
            if is_due(kept) {
                let repeated = kept.told.replace(now.wall).is_some();
                let item = item(&definition, key, kept, Status::Firing, at);
                news.items.push(Item { repeated, ..item });
                // It is recorded that it was told.
                news.entries.push(Entry::Instance { alert: self.id, key: key.clone(), kept: Box::new(kept.clone()) });
            }
        }
    }

    fn acknowledge(&mut self, matching: &[(String, String)], news: &mut News) -> u64 {
        let definition = Arc::clone(&self.definition);
        let mut count = 0;
        for (key, tracked) in &mut self.tracker.instances {
            let labels = labels(&definition, key, &tracked.kept.row);
            if tracked.kept.instance.state == State::Firing && fits(matching, &definition, key, &labels) {
                tracked.kept.acknowledged = true;
                count += 1;
                let kept = Box::new(tracked.kept.clone());
                news.entries.push(Entry::Instance { alert: self.id, key: key.clone(), kept });
            }
        }
        count
    }

    /// It cannot be evaluated. Told once, until it is mended.
    fn trouble(&mut self, err: &Error, now: Micros) -> Option<News> {
        self.failed = now;
        let reason = err.to_string();
        if self.problem.is_some() {
            return None;
        }
        let name = &self.definition.name;
        tracing::warn!(alert = %name, error = %err, "an alert cannot be evaluated");
        self.problem = Some(Problem { reason: reason.clone(), since: now });
        let mut news = News::default();
        news.entries.push(Entry::Problem { alert: self.id, problem: self.problem.clone() });
        news.entries.push(self.event("ok", "error", now, &reason));
        let kept = super::track::Kept::new(Moment { event: now, wall: now });
        let item = item(&self.definition, &Vec::new(), &kept, Status::Error, now);
        news.items.push(Item { key: Vec::new(), reason: Some(reason), since: now, annotations: Vec::new(), ..item });
        Some(news)
    }

    fn mend(&mut self, now: Micros, news: &mut News) {
        let Some(problem) = self.problem.take() else { return };
        tracing::info!(alert = %self.definition.name, "an alert is evaluated again");
        news.entries.push(Entry::Problem { alert: self.id, problem: None });
        news.entries.push(self.event("error", "ok", now, "it is evaluated again"));
        let kept = super::track::Kept::new(Moment { event: now, wall: now });
        let item = item(&self.definition, &Vec::new(), &kept, Status::Resolved, now);
        let reason = Some(format!("it is evaluated again, after: {}", problem.reason));
        news.items.push(Item { key: Vec::new(), reason, since: problem.since, annotations: Vec::new(), ..item });
    }

    fn event(&self, from: &str, to: &str, now: Micros, reason: &str) -> Entry {
        let at = Moment { event: now, wall: now };
        let (from, to, reason) = (from.to_string(), to.to_string(), Some(reason.to_string()));
        let event =
            Event { alert: self.definition.name.clone(), key: Vec::new(), from, to, at, reason, row: Map::new() };
        Entry::Event { event: Box::new(event) }
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

/// The key with the names of its columns.
pub fn named(definition: &Definition, key: &Key) -> Vec<(String, Option<String>)> {
    definition.key.iter().cloned().zip(key.iter().cloned()).collect()
}

fn no_data(definition: &Definition) -> String {
    let after = definition.rule.no_data.map_or(0, |(_, after)| after);
    format!("no data for {}", crate::time::format_duration(Duration::from_micros(after.unsigned_abs())))
}

/// The labels with their values.
pub fn labels(definition: &Definition, key: &Key, row: &Map<String, serde_json::Value>) -> Vec<(String, String)> {
    let value = |name: &str| value(definition, key, row, name);
    definition.labels.iter().map(|(name, text)| (name.clone(), template::fill_or_say(text, &value))).collect()
}

/// What `{{name}}` stands for: a column of KEY, one of the row, or a word about the alert. NULL is shown as such.
fn value(definition: &Definition, key: &Key, row: &Map<String, serde_json::Value>, name: &str) -> Option<String> {
    if let Some(at) = definition.key.iter().position(|column| column == name) {
        return Some(key.get(at).cloned().flatten().unwrap_or_else(|| "NULL".to_string()));
    }
    match (row.get(name), name) {
        (Some(value), _) => Some(crate::notify::plain(value)),
        (None, "alert") => Some(definition.name.clone()),
        (None, "severity") => Some(definition.severity.clone()),
        (None, _) => None,
    }
}

/// Whether an instance is one of those that are meant: each of these columns or labels has this value.
pub fn fits(matching: &[(String, String)], definition: &Definition, key: &Key, labels: &[(String, String)]) -> bool {
    matching.iter().all(|(name, wanted)| {
        let of_key = definition.key.iter().position(|column| column == name).map(|at| key.get(at).cloned().flatten());
        match of_key {
            Some(value) => value.as_deref() == Some(wanted),
            None => labels.iter().any(|(label, value)| label == name && value == wanted),
        }
    })
}

/// An instance as it is told.
fn item(definition: &Definition, key: &Key, kept: &super::track::Kept, status: Status, at: Micros) -> Item {
    let row = if kept.silent { Map::new() } else { kept.row.clone() };
    let labels = labels(definition, key, &row);
    let value = |name: &str| {
        let of_label = labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.clone());
        let state = || (name == "state" || name == "status").then(|| status.word().to_string());
        value(definition, key, &row, name).or(of_label).or_else(state)
    };
    let annotations = definition.annotations.iter();
    let annotations = annotations.map(|(name, text)| (name.clone(), template::fill_or_say(text, &value))).collect();
    Item {
        status,
        key: named(definition, key),
        at,
        since: kept.fired.map_or(at, |fired| fired.event),
        repeated: false,
        reason: kept.silent.then(|| no_data(definition)),
        labels,
        annotations,
        row,
    }
}
