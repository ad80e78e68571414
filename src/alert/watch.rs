//! One alert while it is evaluated: what its tracker has found becomes changes of state, and things to tell.
//!
//! [`super::evaluator`] hands it rows, and asks it to [`Watch::settle`] when the rows of one instant are complete. What it gives
//! back is recorded together: state, history, what is to be told, and how far the relation was followed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use serde_json::Map;

use super::Definition;
use super::ledger::{Entry, Event, Ledger, Place, Problem, Silence};
use super::rule::{Change, Moment, State};
use super::track::{Kept, Key, MOST_INSTANCES, Tracked, Tracker};
use crate::error::{Error, Kind};
use crate::notify::{Item, Spec, Status};
use crate::template;
use crate::time::Micros;

/// An alert counts as mended when it could be evaluated for this long.
const MENDED: Micros = 60_000_000;

/// One alert.
pub struct Watch {
    // fixed
    pub id: u32,
    pub definition: Arc<Definition>,
    pub specs: BTreeMap<String, &'static Spec>,
    // state
    pub tracker: Tracker,
    /// Up to where it has seen everything; none where nothing is followed.
    pub place: Option<Place>,
    /// As it was written down last.
    noted: Option<Place>,
    pub problem: Option<Problem>,
    /// When it last could not be evaluated.
    failed: Micros,
    /// Its predicate fits the relation: it takes part.
    pub fits: bool,
    /// Its predicate, and the columns it is over.
    pub fitted: Option<(SchemaRef, Arc<dyn PhysicalExpr>)>,
}

/// What is to be recorded of an alert.
#[derive(Default)]
pub struct News {
    pub entries: Vec<Entry>,
    pub items: Vec<Item>,
}

impl Watch {
    /// With what is remembered of it. `specs`: of the notifiers.
    pub fn new(
        id: u32,
        definition: Arc<Definition>,
        specs: BTreeMap<String, &'static Spec>,
        ledger: &Ledger,
        now: Micros,
    ) -> Watch {
        let (mut instances, place, problem) = ledger.look(|book| match book.alerts.get(&id) {
            None => (HashMap::new(), None, None),
            Some(remembered) => {
                let tracked = remembered.instances.iter().map(|(key, kept)| (key.clone(), Tracked::of(kept.clone())));
                (tracked.collect(), remembered.place, remembered.problem.clone())
            }
        });
        if let Some((_, after)) = definition.rule.no_data {
            for tracked in instances.values_mut() {
                let instance = &mut tracked.kept.instance;
                // It would have become silent while nobody was there to see: what came then has yet to be read.
                if !instance.silent && now >= instance.seen.saturating_add(after) {
                    instance.seen = now;
                }
            }
        }
        let tracker = Tracker::new(definition.rule, definition.keeps, &definition.key, instances);
        let failed = problem.as_ref().map_or(Micros::MIN, |problem| problem.since);
        Watch { id, definition, specs, tracker, place, noted: place, problem, failed, fits: false, fitted: None }
    }

    /// Lets time go on to `now`, with windows closed that end until `closed_to`. Only when the rows of an instant are complete:
    /// between those that go and those that come in their place nothing is as it ever was. `all`: also how far it came.
    pub fn settle(&mut self, now: Moment, closed_to: Micros, silences: &[Silence], all: bool) -> News {
        let mut news = News::default();
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
        self.place = self.place.map(|place| Place { closed_to: place.closed_to.max(closed_to), ..place });
        if changed || all {
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
        let is_due = |kept: &Kept| match (kept.told, rule.repeat) {
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

    /// Instances that fire and match are not told of again. Gives how many they are.
    pub fn acknowledge(&mut self, matching: &[(String, String)], news: &mut News) -> u64 {
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
    pub fn trouble(&mut self, err: &Error, now: Micros) -> Option<News> {
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
        let kept = Kept::new(Moment { event: now, wall: now });
        let item = item(&self.definition, &Vec::new(), &kept, Status::Error, now);
        news.items.push(Item { key: Vec::new(), reason: Some(reason), since: now, annotations: Vec::new(), ..item });
        Some(news)
    }

    fn mend(&mut self, now: Micros, news: &mut News) {
        let Some(problem) = self.problem.take() else { return };
        tracing::info!(alert = %self.definition.name, "an alert is evaluated again");
        news.entries.push(Entry::Problem { alert: self.id, problem: None });
        news.entries.push(self.event("error", "ok", now, "it is evaluated again"));
        let kept = Kept::new(Moment { event: now, wall: now });
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
fn item(definition: &Definition, key: &Key, kept: &Kept, status: Status, at: Micros) -> Item {
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
