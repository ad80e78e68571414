//! What is to be told, until it is: notes that wait, and one courier per notifier that takes them there.
//!
//! A note that waits takes all that comes for its group. That is how groups are told of together (WAIT), how a limit tells of
//! what is beyond it (LIMIT), and how a notifier that is down does not pile up notes: of each group one waits that was tried
//! before and says what it says, and one for all since.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ledger::{Book, Done, Entry, Ledger, MOST_ITEMS, Note};
use super::{Definition, Telling};
use crate::error::{Error, Kind, Result};
use crate::notify::report::Report;
use crate::notify::{Content, Failure, Item, Message, Notifier, Series, Spec, Status};
use crate::options::Options;
use crate::time::{Clock, Micros};

/// The group of what is beyond a limit.
const REST: &str = "*";

/// Time before the second try.
const RETRY_MIN: Duration = Duration::from_millis(200);

/// So long the other side may ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// No notifier takes longer than this, whatever its options say.
const LONGEST: Duration = Duration::from_secs(120);

/// When the server stops, what is being sent has this long to come to its end.
const GRACE: Duration = Duration::from_secs(3);

/// So long a chart may take to be looked up; then the message goes without.
const LOOKUP: Duration = Duration::from_secs(5);

/// Looks at least this often whether a note is due: the clock may have been set.
const LOOK: Duration = Duration::from_secs(5);

/// The text of a group: what its items have in common.
fn group_of(telling: &Telling, item: &Item) -> String {
    let Some(columns) = &telling.group else { return item.key_text() };
    let value = |name: &String| {
        let key = item.key.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.clone());
        let label = || item.labels.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        key.or_else(label).or_else(|| item.row.get(name).map(crate::notify::plain))
    };
    let one = |name: &String| format!("{name}={}", value(name).as_deref().unwrap_or("NULL"));
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Puts items into the notes of all who are to be told. `specs` are those of the notifiers, by name.
pub fn enqueue(
    book: &mut Book,
    (id, definition): (u32, &Definition),
    items: &[Item],
    specs: &BTreeMap<String, &'static Spec>,
    now: Micros,
) -> Vec<Entry> {
    let telling = &definition.telling;
    let mut changed = BTreeSet::new();
    for notifier in &telling.notify {
        let resolves = telling.on_resolve || specs.get(notifier).is_some_and(|spec| spec.wants_resolved);
        for item in items.iter().filter(|item| item.status != Status::Resolved || resolves) {
            let group = group_of(telling, item);
            changed.insert(put(book, (id, definition), notifier, group, item, now));
        }
    }
    let note = |number: &u64| book.notes.get(number).map(|note| Entry::Note { note: Box::new(note.clone()) });
    changed.iter().filter_map(note).collect()
}

/// The note of a group that takes what comes for it, if there is one.
fn waiting(book: &Book, alert: u32, notifier: &str, group: &str) -> Option<u64> {
    let takes = |note: &&Note| {
        !note.frozen
            && note.done.is_none()
            && (note.alert, note.notifier.as_str(), note.group.as_str()) == (alert, notifier, group)
    };
    book.notes.values().find(takes).map(|note| note.number)
}

/// Puts an item into the note for its group; gives the note's number.
fn put(
    book: &mut Book,
    (alert, definition): (u32, &Definition),
    notifier: &str,
    group: String,
    item: &Item,
    now: Micros,
) -> u64 {
    let mine = |note: &&Note| note.alert == alert && note.notifier == notifier;
    let mut place = (group, now.saturating_add(definition.telling.wait));
    let mut number = waiting(book, alert, notifier, &place.0);
    if let (None, Some((most, per))) = (number, definition.telling.limit) {
        let recent = book.notes.values().filter(mine).filter(|note| note.due > now.saturating_sub(per));
        let mut dues: Vec<Micros> = recent.map(|note| note.due).collect();
        dues.sort_unstable();
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        if dues.len() >= most {
            // When the first of the last `most` no longer counts.
            place = (REST.to_string(), dues[dues.len() - most].saturating_add(per).max(now));
            number = waiting(book, alert, notifier, REST);
        }
    }
    if let Some(number) = number
        && let Some(note) = book.notes.get_mut(&number)
    {
        let same = note.items.iter().position(|other| other.key == item.key && other.status == item.status);
        match same {
            Some(at) => note.items[at] = item.clone(),
            None if note.items.len() < MOST_ITEMS => note.items.push(item.clone()),
            None => note.omitted += 1,
        }
        return number;
    }
    let number = book.number();
    book.put(Note {
        id: format!("{:016x}", rand::random::<u64>()),
        number,
        alert,
        name: definition.name.clone(),
        severity: definition.severity.clone(),
        notifier: notifier.to_string(),
        group: place.0,
        made: now,
        due: place.1,
        items: vec![item.clone()],
        omitted: 0,
        report: None,
        title: String::new(),
        tries: 0,
        last_error: None,
        done: None,
        frozen: false,
        // Not before it is written.
        ticket: u64::MAX,
    });
    number
}

/// Reports of one kind that wait for the same notifier; then the oldest is given up for the newest.
pub const MOST_REPORTS: usize = 24;

/// Notes of a report, one for each who gets it, and those that are given up for them.
pub fn enqueue_report(book: &mut Book, id: u32, notify: &[String], report: &Report, now: Micros) -> Vec<Note> {
    let mut notes = Vec::new();
    for notifier in notify {
        let waits = |note: &&Note| (note.alert, &note.notifier, note.done) == (id, notifier, None);
        let waiting: Vec<&Note> = book.notes.values().filter(waits).collect();
        let beyond = (waiting.len() + 1).saturating_sub(MOST_REPORTS);
        // One that may be on its way comes to its own end.
        for note in waiting.into_iter().filter(|note| !note.frozen).take(beyond) {
            notes.push(given_up(note, format!("given up: {MOST_REPORTS} newer ones wait"), now));
        }
        notes.push(Note {
            id: format!("{:016x}", rand::random::<u64>()),
            number: book.number(),
            alert: id,
            name: report.name.clone(),
            severity: "info".to_string(),
            notifier: notifier.clone(),
            group: String::new(),
            made: now,
            due: now,
            items: Vec::new(),
            omitted: 0,
            report: Some(Box::new(report.clone())),
            title: String::new(),
            tries: 0,
            last_error: None,
            done: None,
            frozen: false,
            ticket: u64::MAX,
        });
    }
    notes
}

/// What waits for a notifier that was dropped will never be told: it is given up, and says so.
pub fn give_up(book: &Book, notifier: &str, now: Micros) -> Vec<Entry> {
    let waiting = book.notes.values().filter(|note| note.notifier == notifier && note.done.is_none());
    let ended = waiting.map(|note| given_up(note, "the notifier was dropped".into(), now));
    ended.map(|note| Entry::Note { note: Box::new(note) }).collect()
}

/// A note that will not be told: only its title and the reason stay.
fn given_up(note: &Note, why: String, now: Micros) -> Note {
    Note {
        title: note.message().title(),
        last_error: Some(why),
        done: Some(Done { at: now, taken: false }),
        items: Vec::new(),
        report: None,
        ..note.clone()
    }
}

/// Looks up how a value went on before an event.
pub trait Lookup: Send + Sync {
    fn series(&self, alert: u32, item: &Item) -> BoxFuture<'_, Result<Option<Series>>>;
}

/// What `logweir.notifiers` shows.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub state: &'static str,
    pub sent: u64,
    pub retries: u64,
    pub refused: u64,
    pub last_sent: Option<Micros>,
    pub last_error: Option<String>,
}

/// How a notifier is doing, for those who look.
#[derive(Debug, Default)]
pub struct Health(Mutex<Shown>);

impl Health {
    pub fn get(&self) -> Shown {
        self.0.lock().clone()
    }

    fn update(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.0.lock());
    }
}

/// Tells one message, within bounds.
pub async fn tell(notifier: &dyn Notifier, message: &Message) -> Result<(), Failure> {
    match timeout(LONGEST, notifier.tell(message)).await {
        Ok(told) => told,
        Err(_) => Err(Error::new(Kind::Unreachable, "the notifier did not come to an end").into()),
    }
}

/// The driver of a notifier.
pub struct Courier {
    pub name: String,
    pub spec: &'static Spec,
    pub notifier: Arc<dyn Notifier>,
    pub retry_max: Duration,
    pub refusals: u64,
    pub ledger: Arc<Ledger>,
    pub lookup: Arc<dyn Lookup>,
    pub health: Arc<Health>,
    pub clock: Clock,
    pub stop: CancellationToken,
}

impl Courier {
    /// `retry_max` and `tries` of [`crate::notify::NOTIFIER_OPTIONS`].
    pub fn settings(given: &Options) -> Result<(Duration, u64)> {
        match given.integer("tries") {
            Some(tries) if tries > 0 => {
                Ok((given.interval("retry_max").unwrap_or(RETRY_MIN).max(RETRY_MIN), tries as u64))
            }
            Some(_) | None => Err(Error::new(Kind::InvalidParameter, "option \"tries\" takes a number above 0")),
        }
    }

    /// Sends until it is told to stop.
    pub async fn run(self) {
        if AssertUnwindSafe(self.send_all()).catch_unwind().await.is_err() {
            tracing::error!(notifier = %self.name, "a notifier panicked; it is stopped until the server starts again");
            self.health.update(|shown| {
                shown.state = "failed";
                shown.last_error = Some("the notifier panicked; this is a bug, please report it".into());
            });
        }
    }

    async fn send_all(&self) {
        let mut bell = self.ledger.bell();
        self.health.update(|shown| shown.state = "ready");
        let (mut failures, mut refusals, mut written) = (0u32, 0u64, true);
        while !self.stop.is_cancelled() {
            bell.borrow_and_update();
            let now = self.clock.now();
            let (note, due) = match self.next(now) {
                Some(note) if note.due <= now => (note, now),
                Some(note) => (note, Micros::MAX),
                None if written => {
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        _ = bell.changed() => {}
                    }
                    continue;
                }
                None => {
                    written = true;
                    self.write(|ledger| ledger.flush()).await;
                    continue;
                }
            };
            if due == Micros::MAX {
                let wait = Duration::from_micros(note.due.saturating_sub(now).unsigned_abs()).min(LOOK);
                tokio::select! {
                    () = self.stop.cancelled() => break,
                    _ = bell.changed() => {}
                    () = sleep(wait) => {}
                }
                continue;
            }
            let Some(note) = self.freeze(note.number) else { continue };
            let mut message = note.message();
            if let (true, Some(item), Content::Alert(alert)) =
                (self.spec.shows_series, note.items.first(), &mut message.content)
            {
                let looked = timeout(LOOKUP, self.lookup.series(note.alert, item)).await;
                alert.series = looked.ok().and_then(Result::ok).flatten();
            }
            let stop = self.stop.clone();
            let stopped = async move {
                stop.cancelled().await;
                sleep(GRACE).await;
            };
            let told = tokio::select! {
                biased;
                told = tell(&*self.notifier, &message) => told,
                () = stopped => break,
            };
            written = false;
            match told {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(notifier = %self.name, "a notifier takes messages again");
                    }
                    (failures, refusals) = (0, 0);
                    self.finish(note, true);
                }
                Err(Failure::Refused(err)) => {
                    refusals += 1;
                    if refusals >= self.refusals {
                        refusals = 0;
                        tracing::error!(notifier = %self.name, id = %note.id, error = %err, "a message was refused for good and is given up");
                        self.fail(&note, &err);
                        self.finish(note, false);
                    } else {
                        self.fail(&note, &err);
                        if !self.rest(1, None).await {
                            break;
                        }
                    }
                }
                Err(Failure::Again(err, after)) => {
                    if failures == 0 {
                        tracing::warn!(notifier = %self.name, error = %err, "a notifier cannot tell; it is tried again until it can");
                    }
                    failures = failures.saturating_add(1);
                    self.fail(&note, &err);
                    if !self.rest(failures, after).await {
                        break;
                    }
                }
            }
        }
        self.write(|ledger| ledger.flush()).await;
        self.health.update(|shown| shown.state = "stopped");
    }

    /// The note that is due first.
    fn next(&self, now: Micros) -> Option<Note> {
        self.ledger.look(|book| {
            let waiting = book.notes.values().filter(|note| note.notifier == self.name && note.done.is_none());
            let written = waiting.filter(|note| self.ledger.is_written(note));
            written.min_by_key(|note| (note.due.max(now), note.number)).cloned()
        })
    }

    /// From now on it says what it says.
    fn freeze(&self, number: u64) -> Option<Note> {
        let mut frozen = None;
        let made = self.ledger.mention(|book| {
            if let Some(note) = book.notes.get_mut(&number) {
                note.frozen = true;
                frozen = Some(note.clone());
            }
            Vec::new()
        });
        made.ok().and(frozen)
    }

    fn finish(&self, note: Note, taken: bool) {
        let at = self.clock.now();
        self.health.update(|shown| match taken {
            true => (shown.state, shown.sent, shown.last_sent) = ("ready", shown.sent + 1, Some(at)),
            false => shown.refused += 1,
        });
        self.mention(note.number, |note| {
            note.title = note.message().title();
            note.tries += u64::from(taken);
            note.done = Some(Done { at, taken });
            (note.items, note.report) = (Vec::new(), None);
        });
    }

    fn fail(&self, note: &Note, err: &Error) {
        let said = match err.detail() {
            Some(detail) => format!("{err} ({detail})"),
            None => err.to_string(),
        };
        self.health.update(|shown| {
            (shown.state, shown.retries) = ("retrying", shown.retries + 1);
            shown.last_error = Some(said.clone());
        });
        self.mention(note.number, |note| {
            note.tries += 1;
            note.last_error = Some(said);
        });
    }

    fn mention(&self, number: u64, change: impl FnOnce(&mut Note)) {
        let mentioned = self.ledger.mention(|book| {
            let Some(mut note) = book.notes.get(&number).cloned() else { return Vec::new() };
            change(&mut note);
            vec![Entry::Note { note: Box::new(note) }]
        });
        if let Err(err) = mentioned {
            tracing::error!(notifier = %self.name, error = %err, "what became of a message cannot be noted");
        }
    }

    async fn write(&self, work: impl FnOnce(&Ledger) -> Result<()> + Send + 'static) {
        let ledger = Arc::clone(&self.ledger);
        let written = tokio::task::spawn_blocking(move || work(&ledger)).await;
        if let Ok(Err(err)) = written {
            tracing::warn!(notifier = %self.name, error = %err, "what was told cannot be written down: it may be told again after a restart");
        }
    }

    /// Waits before the next try, longer each time. Gives false when it is told to stop.
    async fn rest(&self, failures: u32, after: Option<Duration>) -> bool {
        let most = RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.retry_max);
        let wait = most.mul_f64(rand::random_range(0.5..1.0)).max(after.unwrap_or_default().min(RETRY_AFTER_MAX));
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = sleep(wait) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::rule::Rule;

    fn definition(telling: Telling) -> Definition {
        Definition {
            name: "a".into(),
            from: "v".into(),
            query: "SELECT * FROM v".into(),
            reads: BTreeSet::new(),
            closed: false,
            predicate: None,
            scores: None,
            key: vec!["k".into()],
            rule: Rule::default(),
            keeps: false,
            severity: "warning".into(),
            labels: Vec::new(),
            annotations: Vec::new(),
            telling: Telling { notify: vec!["n".into()], ..telling },
            every: None,
        }
    }

    fn item(key: &str, status: Status) -> Item {
        Item {
            status,
            key: vec![("k".into(), Some(key.into()))],
            at: 0,
            since: 0,
            repeated: false,
            reason: None,
            labels: vec![("team".into(), "web".into())],
            annotations: Vec::new(),
            row: serde_json::Map::new(),
        }
    }

    /// Group, when it is due, and how many items of each note.
    fn notes(book: &Book) -> Vec<(&str, Micros, u64)> {
        book.notes.values().map(|n| (n.group.as_str(), n.due, n.items.len() as u64 + n.omitted)).collect()
    }

    fn tell_of(book: &mut Book, telling: &Telling, keys: std::ops::Range<u32>, now: Micros) {
        let items: Vec<Item> = keys.map(|n| item(&n.to_string(), Status::Firing)).collect();
        enqueue(book, (1, &definition(telling.clone())), &items, &BTreeMap::new(), now);
    }

    #[test]
    fn a_group_is_told_of_together_and_waits() {
        let mut book = Book::default();
        tell_of(&mut book, &Telling::default(), 0..2, 5);
        assert_eq!(notes(&book), [("k=0", 5, 1), ("k=1", 5, 1)]);
        let mut book = Book::default();
        let telling = Telling { group: Some(vec!["team".into()]), wait: 30, ..Telling::default() };
        tell_of(&mut book, &telling, 0..2, 5);
        tell_of(&mut book, &telling, 1..4, 20);
        assert_eq!(notes(&book), [("team=web", 35, 4)]);
        // One that was sent says what it says.
        book.notes.values_mut().for_each(|note| note.frozen = true);
        tell_of(&mut book, &telling, 0..1, 36);
        assert_eq!(notes(&book), [("team=web", 35, 4), ("team=web", 66, 1)]);
    }

    #[test]
    fn what_is_beyond_a_limit_is_told_of_at_its_end_and_no_item_is_lost() {
        let (mut book, telling) = (Book::default(), Telling { limit: Some((3, 100)), ..Telling::default() });
        tell_of(&mut book, &telling, 0..1, 10);
        tell_of(&mut book, &telling, 1..500, 40);
        assert_eq!(notes(&book), [("k=0", 10, 1), ("k=1", 40, 1), ("k=2", 40, 1), ("*", 110, 497)]);
        assert_eq!(book.notes.values().last().map(|note| note.items.len()), Some(MOST_ITEMS));
        book.notes.values_mut().for_each(|note| note.frozen = true);
        // That one counts as well.
        tell_of(&mut book, &telling, 500..501, 115);
        assert_eq!(notes(&book).last(), Some(&("*", 140, 1)));
        tell_of(&mut book, &telling, 501..502, 300);
        assert_eq!(notes(&book).last(), Some(&("k=501", 300, 1)));
    }

    #[test]
    fn reports_that_nobody_takes_do_not_pile_up() {
        let (mut book, report) = (Book::default(), crate::notify::report::tests::report());
        for now in 0..30 {
            let notes = enqueue_report(&mut book, 7, &["n".into(), "m".into()], &report, now);
            notes.into_iter().for_each(|note| book.put(note));
            // The first is being sent.
            if let Some(first) = book.notes.values_mut().next() {
                first.frozen = true;
            }
        }
        let waiting = |notifier: &str| -> Vec<Micros> {
            let mine = book.notes.values().filter(|note| note.notifier == notifier && note.done.is_none());
            mine.map(|note| note.made).collect()
        };
        assert_eq!(waiting("m"), (6..30).collect::<Vec<_>>());
        assert_eq!(waiting("n"), std::iter::once(0).chain(7..30).collect::<Vec<_>>());
        let gone = book.notes.values().filter(|note| note.done.is_some() && note.title.starts_with("[REPORT] site"));
        assert_eq!(gone.count(), 12, "what was given up is shown");
    }

    #[test]
    fn the_end_is_told_to_those_who_want_it() {
        let mut book = Book::default();
        let over = [item("0", Status::Resolved)];
        enqueue(&mut book, (1, &definition(Telling::default())), &over, &BTreeMap::new(), 5);
        assert_eq!(notes(&book), []);
        let specs = BTreeMap::from([("n".to_string(), &crate::notify::alertmanager::SPEC)]);
        enqueue(&mut book, (1, &definition(Telling::default())), &over, &specs, 5);
        let on_resolve = Telling { on_resolve: true, ..Telling::default() };
        enqueue(&mut book, (2, &definition(on_resolve)), &over, &BTreeMap::new(), 5);
        assert_eq!(notes(&book), [("k=0", 5, 1), ("k=0", 5, 1)]);
    }

    #[test]
    fn what_waits_for_a_notifier_that_was_dropped_is_given_up() {
        let mut book = Book::default();
        tell_of(&mut book, &Telling::default(), 0..2, 5);
        assert!(give_up(&book, "other", 7).is_empty());
        let entries = give_up(&book, "n", 7);
        let ended = |entry: &Entry| match entry {
            Entry::Note { note } => note.done == Some(Done { at: 7, taken: false }) && note.title.contains("a: k="),
            _ => false,
        };
        assert!(entries.len() == 2 && entries.iter().all(ended), "{entries:?}");
    }
}
