//! Goes along with one alert: which of its keys match, counted from the changes of its relation.
//!
//! A change takes rows away and adds others. The predicate is evaluated over both, and the matching rows of each key (and
//! window) are counted: so only changed rows are looked at, a key may have any number of rows, and none of them is kept.
//! What counts then reach [`super::rule`] as words of windows. Used by the evaluator and, over old rows, by BACKTEST.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::Schema;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::physical_expr::PhysicalExpr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rule::{Change, Instance, Moment, NoData, Rule, Span, State};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::rollup::window::Window;
use crate::sink::encode::Encoding;
use crate::time::Micros;

/// Instances of one alert at most: what a key with too many values may take.
pub const MOST_INSTANCES: usize = 10_000;

/// KEEP FIRING FOR of alerts over single rows, which say nothing of it: a row has no state that would end by itself.
const ROWS_KEEP: Micros = 300_000_000;

/// So long one that has resolved is shown, by the wall clock.
const SHOWN: Micros = 3_600_000_000;

/// The values of an alert's key columns as text; `None` is NULL.
pub type Key = Vec<Option<String>>;

/// What the time of a row is.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// Rows of a stream, which come and stay; with the column of their time.
    Rows { time: Option<usize> },
    /// Rows of windows.
    Windows(Grid),
    /// A result without windows: it is as it is now.
    Level,
}

/// How the windows of rows are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    pub column: usize,
    /// The column holds the window's id plus this; `None`: it holds the window's end.
    pub shift: Option<Micros>,
    pub window: Window,
}

impl Grid {
    /// The stretch of event time that a window speaks for. Those of windows that overlap follow each other all the same:
    /// each speaks for the time by which it ends later than the one before.
    pub fn span(&self, value: Micros) -> Option<Span> {
        let id = match self.shift {
            Some(shift) => value.saturating_sub(shift),
            None if self.window.is_session() => return Some(Span { start: value, end: value, next: 0 }),
            None => self.window.id_of_end(value),
        };
        let (_, end) = self.window.bounds(id)?;
        let next = self.window.next_id(id).saturating_sub(id);
        Some(Span { start: end.saturating_sub(next), end, next })
    }

    /// What the column holds for windows that end later than `end` is larger than this.
    pub fn behind(&self, end: Micros) -> Micros {
        match self.shift {
            Some(shift) => self.window.id_of_end(end).saturating_add(shift),
            None => end,
        }
    }
}

/// Whether a change takes rows away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    Now,
}

/// What outlives the process, of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub instance: Instance,
    /// The last row that matched.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub row: Map<String, Value>,
    /// When somebody was told last that it fires, by the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Micros>,
    #[serde(default)]
    pub acknowledged: bool,
    /// When it began to fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Moment>,
    /// It began to fire because no data came.
    #[serde(default)]
    pub silent: bool,
}

impl Kept {
    /// Of an instance that nothing is known of yet.
    pub fn new(now: Moment) -> Kept {
        let instance = Instance::new(now);
        Kept { instance, row: Map::new(), told: None, acknowledged: false, fired: None, silent: false }
    }
}

/// The rows of a key that are there, in a window or in all.
#[derive(Debug, Clone, Copy, Default)]
struct There {
    matching: i64,
    /// The sum of their hashes: what tells whether they are others than before. Only where somebody listens for silence.
    print: u64,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct Tracked {
    pub kept: Kept,
    /// Rows of open windows by their starts.
    windows: BTreeMap<Micros, (Span, There)>,
    /// Rows, where there are no windows.
    level: There,
    /// The prints, by windows, when the relation was about to be read again. `None`: it was not read before.
    before: Option<BTreeMap<Micros, u64>>,
    touched: bool,
    /// As it was written down last.
    saved: Option<Kept>,
}

impl Tracked {
    fn new(now: Moment) -> Tracked {
        Tracked { saved: None, ..Tracked::of(Kept::new(now)) }
    }

    /// One that is remembered.
    pub fn of(kept: Kept) -> Tracked {
        Tracked {
            saved: Some(kept.clone()),
            kept,
            windows: BTreeMap::new(),
            level: There::default(),
            before: None,
            touched: true,
        }
    }

    /// What tells the rows of windows that end after `closed_to`, or all of them, from others.
    fn prints(&self, closed_to: Micros) -> BTreeMap<Micros, u64> {
        let open = self.windows.iter().filter(|(_, (span, _))| span.end > closed_to);
        let all = open.map(|(start, (_, there))| (*start, there.print)).chain([(Micros::MIN, self.level.print)]);
        all.filter(|(_, print)| *print != 0).collect()
    }

    /// Whether something has changed that must not be forgotten.
    fn is_unsaved(&self, remembers: bool) -> bool {
        let Some(saved) = &self.saved else { return true };
        let same_time = !remembers || saved.instance.seen == self.kept.instance.seen;
        let (mine, saved_row) = (&self.kept, &saved.row);
        !(same_time
            && saved.instance.is_as(&mine.instance)
            && (saved.told, saved.acknowledged, saved.fired) == (mine.told, mine.acknowledged, mine.fired)
            && (mine.instance.state == State::Ok || *saved_row == mine.row))
    }
}

/// See the file header.
pub struct Tracker {
    // fixed
    rule: Rule,
    keeps: bool,
    key: Vec<String>,
    columns: Vec<usize>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    timing: Timing,
    // state
    pub instances: HashMap<Key, Tracked>,
    /// Windows that end until then have closed before: what changes in them is too late.
    closed_to: Micros,
    /// All of the relation was taken.
    is_complete: bool,
    /// Why a row could not be judged, since it was last asked.
    failed: Option<Error>,
    /// Keys were left out: there are too many.
    pub is_full: bool,
}

impl Tracker {
    /// `keeps`: the rule says something of KEEP FIRING FOR.
    pub fn new(rule: Rule, keeps: bool, key: &[String], instances: HashMap<Key, Tracked>) -> Tracker {
        Tracker {
            rule,
            keeps,
            key: key.to_vec(),
            columns: Vec::new(),
            predicate: None,
            timing: Timing::Level,
            instances,
            closed_to: Micros::MIN,
            is_complete: false,
            failed: None,
            is_full: false,
        }
    }

    /// The relation is about to be read from the beginning, or from windows that end after `closed_to`.
    pub fn begin(
        &mut self,
        schema: &Schema,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        timing: &Timing,
        now: Moment,
        closed_to: Micros,
    ) -> Result<()> {
        let place = |name: &String| {
            schema
                .index_of(name)
                .map_err(|_| Error::new(Kind::UndefinedColumn, format!("column \"{name}\" of KEY does not exist")))
        };
        self.columns = self.key.iter().map(place).collect::<Result<_>>()?;
        (self.predicate, self.timing, self.closed_to) = (predicate, timing.clone(), closed_to);
        self.failed = None;
        if !self.keeps && matches!(timing, Timing::Rows { .. }) {
            self.rule.keep = ROWS_KEEP;
        }
        let was_complete = std::mem::take(&mut self.is_complete);
        for tracked in self.instances.values_mut() {
            if was_complete {
                tracked.before = Some(tracked.prints(closed_to));
            }
            tracked.kept.instance.begin_anew();
            tracked.windows.clear();
            (tracked.level, tracked.touched) = (There::default(), true);
        }
        if self.key.is_empty() {
            // There is one whether rows come or not: silence is news too.
            self.instances.entry(Vec::new()).or_insert_with(|| Tracked::new(now));
        }
        Ok(())
    }

    /// All rows of the relation as it was were taken. Where they are others than when it was read last, rows have come
    /// between the two.
    pub fn complete(&mut self, now: Moment) {
        self.is_complete = true;
        for tracked in self.instances.values_mut() {
            if tracked.before.take().is_some_and(|before| before != tracked.prints(self.closed_to)) {
                tracked.kept.instance.wake(now);
            }
        }
    }

    /// Takes rows that went or came.
    /// `again`: perhaps they have been there before, as the relation is read from the beginning.
    pub fn take(&mut self, rows: &RecordBatch, side: Side, again: bool, now: Moment) -> Result<()> {
        let matches = self.judge(rows, side);
        let remembers = self.rule.no_data.is_some_and(|(action, _)| action == NoData::Fire);
        if matches.true_count() == 0 && !remembers && self.instances.is_empty() {
            return Ok(());
        }
        let mut prints = Vec::new();
        if self.rule.no_data.is_some() && !matches!(self.timing, Timing::Rows { .. }) {
            prints.resize(rows.num_rows(), 0);
            create_hashes(rows.columns(), &RandomState::with_seed(0), &mut prints)?;
        }
        let columns: Vec<&ArrayRef> = self.columns.iter().map(|&i| rows.column(i)).collect();
        let options = FormatOptions::default();
        let texts = columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let times = match &self.timing {
            Timing::Rows { time: Some(column) } => Some(times(rows, *column)?),
            Timing::Windows(grid) => Some(times(rows, grid.column)?),
            Timing::Rows { time: None } | Timing::Level => None,
        };
        for row in 0..rows.num_rows() {
            let is_match = matches.is_valid(row) && matches.value(row);
            let time = match &times {
                None => None,
                // A window that is not known says nothing.
                Some(times) if times.is_null(row) => continue,
                Some(times) => Some(times.value(row)),
            };
            let span = match (&self.timing, time) {
                (Timing::Windows(grid), Some(time)) => match grid.span(time) {
                    Some(span) if span.end > self.closed_to => Some(span),
                    Some(_) | None => continue,
                },
                (Timing::Rows { .. }, time) => {
                    let at = time.unwrap_or(now.event);
                    Some(Span { start: at, end: at, next: 0 })
                }
                (Timing::Windows(_) | Timing::Level, _) => None,
            };
            let key = columns
                .iter()
                .zip(&texts)
                .map(|(column, text)| if column.is_null(row) { None } else { Some(text.value(row).to_string()) });
            let key: Key = key.collect();
            let tracked = match self.instances.get_mut(&key) {
                Some(tracked) => tracked,
                None if side == Side::Now && (is_match || remembers) => {
                    if self.instances.len() >= MOST_INSTANCES {
                        self.is_full = true;
                        continue;
                    }
                    self.instances.entry(key).or_insert_with(|| Tracked::new(now))
                }
                None => continue,
            };
            tracked.touched = true;
            if side == Side::Now {
                if !again {
                    tracked.kept.instance.wake(now);
                }
                if is_match {
                    tracked.kept.row = json(&rows.slice(row, 1))?;
                }
            }
            let there = match (&self.timing, span) {
                (Timing::Rows { .. }, Some(span)) => {
                    if is_match && side == Side::Now {
                        tracked.kept.instance.observe(span, true);
                    }
                    continue;
                }
                (_, Some(span)) => &mut tracked.windows.entry(span.start).or_insert((span, There::default())).1,
                (_, None) => &mut tracked.level,
            };
            let print = prints.get(row).copied().unwrap_or(0);
            match side {
                Side::Now => {
                    there.matching += i64::from(is_match);
                    there.print = there.print.wrapping_add(print);
                }
                Side::Before => {
                    there.matching -= i64::from(is_match);
                    there.print = there.print.wrapping_sub(print);
                }
            }
        }
        Ok(())
    }

    /// Of a result that is computed anew each time: nothing matches until its rows are taken.
    pub fn renew(&mut self) {
        for tracked in self.instances.values_mut() {
            (tracked.level, tracked.touched) = (There::default(), true);
        }
    }

    /// Which rows match. Those that cannot be judged do not; why is noted.
    fn judge(&mut self, rows: &RecordBatch, side: Side) -> BooleanArray {
        let Some(predicate) = &self.predicate else { return BooleanArray::from(vec![true; rows.num_rows()]) };
        let whole = |rows: &RecordBatch| -> Result<BooleanArray> {
            let values = predicate.evaluate(rows)?.into_array(rows.num_rows())?;
            Ok(as_boolean_array(&values)?.clone())
        };
        if let Ok(matches) = whole(rows) {
            return matches;
        }
        let mut failed = None;
        let one = |row: usize| match whole(&rows.slice(row, 1)) {
            Ok(matches) => matches.is_valid(0) && matches.value(0),
            Err(err) => {
                failed.get_or_insert(err);
                false
            }
        };
        let matches = (0..rows.num_rows()).map(one).collect::<Vec<bool>>().into();
        if side == Side::Now && self.failed.is_none() {
            self.failed = failed;
        }
        matches
    }

    /// Why a row could not be judged since this was asked last.
    pub fn failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    /// Whether time alone may change something.
    pub fn waits(&self) -> bool {
        self.instances
            .values()
            .any(|tracked| tracked.kept.instance.waits(&self.rule) || tracked.kept.told.is_some() || tracked.touched)
    }

    /// Lets time go on. Gives the instances that have changed, with their changes; others that may have something to tell,
    /// as they fire, come without.
    pub fn advance(&mut self, now: Moment, closed_to: Micros) -> Vec<(Key, Vec<Change>)> {
        let mut news = Vec::new();
        // What has no windows has none that close.
        let closed_to = if self.timing == Timing::Level { Micros::MIN } else { closed_to };
        self.closed_to = self.closed_to.max(closed_to);
        let rule = self.rule;
        for (key, tracked) in &mut self.instances {
            let Tracked { kept, windows, level, touched, .. } = tracked;
            if std::mem::take(touched) {
                for (span, there) in windows.values() {
                    kept.instance.observe(*span, there.matching > 0);
                }
                if self.timing == Timing::Level {
                    kept.instance.observe_level(level.matching > 0, now);
                }
            } else if !kept.instance.waits(&rule) {
                continue;
            }
            windows.retain(|_, (span, _)| span.end > closed_to);
            let changes = kept.instance.advance(&rule, now, closed_to);
            if !changes.is_empty() || kept.instance.state == State::Firing {
                news.push((key.clone(), changes));
            }
        }
        news.sort_by(|a, b| a.0.cmp(&b.0));
        news
    }

    /// Instances that have changed since this was asked last.
    pub fn unsaved(&mut self) -> Vec<(Key, Kept)> {
        let remembers = self.rule.no_data.is_some();
        let mut unsaved = Vec::new();
        for (key, tracked) in &mut self.instances {
            if tracked.is_unsaved(remembers) {
                tracked.saved = Some(tracked.kept.clone());
                unsaved.push((key.clone(), tracked.kept.clone()));
            }
        }
        unsaved
    }

    /// Forgets instances that nothing depends on any more; gives their keys.
    pub fn forget(&mut self, now: Moment) -> Vec<Key> {
        let remembers = self.rule.no_data.is_some_and(|(action, _)| action == NoData::Fire);
        let keyless = self.key.is_empty();
        let full = self.instances.len() >= MOST_INSTANCES / 2;
        let old = |tracked: &Tracked| {
            let instance = &tracked.kept.instance;
            let is_over = match instance.state {
                State::Resolved => full || now.wall.saturating_sub(instance.since.wall) > SHOWN,
                State::Ok => !remembers,
                State::Pending | State::Firing => false,
            };
            is_over
                && instance.is_idle()
                && tracked.level.matching <= 0
                && tracked.windows.is_empty()
                && tracked.kept.told.is_none()
        };
        let gone = self.instances.iter().filter(|(_, tracked)| !keyless && old(tracked));
        let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.instances.remove(key);
        }
        gone
    }
}

/// A column of times in microseconds.
fn times(rows: &RecordBatch, column: usize) -> Result<TimestampMicrosecondArray> {
    let column = cast(rows.column(column), &timestamp_type())?;
    let times = column.as_any().downcast_ref::<TimestampMicrosecondArray>();
    times.cloned().ok_or_else(|| Error::internal("it was cast to a timestamp"))
}

/// A row as a JSON object.
fn json(row: &RecordBatch) -> Result<Map<String, Value>> {
    let text = Encoding::Json.lines(row, false)?;
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(first).map_err(|err| Error::internal(err.to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, SchemaRef};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;
    use crate::time::UTC;

    const SIZE: Micros = 60;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("start", timestamp_type(), true),
            Field::new("k", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]))
    }

    fn rows(rows: &[(Micros, Option<&str>, i64)]) -> RecordBatch {
        let starts: TimestampMicrosecondArray = rows.iter().map(|row| Some(row.0)).collect();
        let keys: StringArray = rows.iter().map(|row| row.1).collect();
        let numbers: Int64Array = rows.iter().map(|row| Some(row.2)).collect();
        RecordBatch::try_new(schema(), vec![Arc::new(starts.with_timezone(UTC)), Arc::new(keys), Arc::new(numbers)])
            .unwrap()
    }

    fn at(time: Micros) -> Moment {
        Moment { event: time, wall: time }
    }

    /// Of an alert with the predicate `12 / n > 2` and the key `k`, over windows or over none.
    fn tracker(timing: Timing) -> Tracker {
        let schema = schema();
        let ratio = binary(lit(12i64), Operator::Divide, col("n", &schema).unwrap(), &schema).unwrap();
        let predicate = binary(ratio, Operator::Gt, lit(2i64), &schema).unwrap();
        let mut tracker = Tracker::new(Rule::default(), false, &["k".to_string()], HashMap::new());
        tracker.begin(&schema, Some(predicate), &timing, at(0), Micros::MIN).unwrap();
        tracker
    }

    fn windows() -> Timing {
        let window = Window::Tumble { size: SIZE, offset: 0 };
        Timing::Windows(Grid { column: 0, shift: Some(0), window })
    }

    /// The keys that change, with the states that they come to.
    fn changes(tracker: &mut Tracker, time: Micros) -> Vec<(String, &'static str)> {
        let news = tracker.advance(at(time), time);
        let one = |(key, changes): (Key, Vec<Change>)| {
            changes.last().map(|change| (key[0].clone().unwrap_or_default(), change.to.word()))
        };
        news.into_iter().filter_map(one).collect()
    }

    #[test]
    fn a_key_matches_as_long_as_one_of_its_rows_does() {
        for timing in [windows(), Timing::Level] {
            let mut tracker = tracker(timing.clone());
            let take = |tracker: &mut Tracker, side, some: &[(Micros, Option<&str>, i64)]| {
                tracker.take(&rows(some), side, false, at(1)).unwrap();
            };
            take(&mut tracker, Side::Now, &[(0, Some("a"), 1), (0, Some("a"), 2), (0, Some("b"), 9), (0, None, 1)]);
            let expected = [(String::new(), "firing"), ("a".to_string(), "firing")];
            assert_eq!(changes(&mut tracker, 1), expected, "{timing:?}");
            assert_eq!(tracker.instances.len(), 2, "nothing is kept of what never matched");
            take(&mut tracker, Side::Before, &[(0, Some("a"), 1)]);
            take(&mut tracker, Side::Now, &[(0, Some("a"), 7)]);
            assert_eq!(changes(&mut tracker, 2), []);
            take(&mut tracker, Side::Before, &[(0, Some("a"), 2)]);
            take(&mut tracker, Side::Now, &[(0, Some("a"), 8)]);
            let over = [("a".to_string(), "resolved")];
            match timing {
                Timing::Level => assert_eq!(changes(&mut tracker, 3), over),
                Timing::Windows(_) | Timing::Rows { .. } => {
                    assert_eq!(changes(&mut tracker, 3), []);
                    // The window of the other one has said yes to the end.
                    assert_eq!(changes(&mut tracker, SIZE), over);
                    assert_eq!(changes(&mut tracker, 2 * SIZE), [(String::new(), "resolved")]);
                }
            }
        }
    }

    #[test]
    fn a_row_that_cannot_be_judged_is_told_and_holds_up_no_other() {
        let mut tracker = tracker(windows());
        tracker.take(&rows(&[(0, Some("a"), 0), (0, Some("b"), 1)]), Side::Now, false, at(1)).unwrap();
        assert!(tracker.failure().unwrap().to_string().to_lowercase().contains("zero"));
        assert!(tracker.failure().is_none());
        assert_eq!(changes(&mut tracker, 1), [("b".to_string(), "firing")]);
        // That it goes is no failure again.
        tracker.take(&rows(&[(0, Some("a"), 0)]), Side::Before, false, at(1)).unwrap();
        assert!(tracker.failure().is_none());
    }

    #[test]
    fn windows_that_overlap_speak_for_their_last_step() {
        let hop = Grid { column: 0, shift: Some(0), window: Window::Hop { slide: 60, size: 300, offset: 0 } };
        assert_eq!(hop.span(120), Some(Span { start: 360, end: 420, next: 60 }));
        assert_eq!(hop.behind(420), 120);
        let by_end = Grid { shift: None, ..hop.clone() };
        assert_eq!(by_end.span(420), hop.span(120));
        assert_eq!(by_end.behind(420), 420);
        let session = Grid { column: 0, shift: None, window: Window::Session { gap: 30, max_span: None } };
        assert_eq!(session.span(77), Some(Span { start: 77, end: 77, next: 0 }));
    }

    #[test]
    fn what_is_over_is_forgotten_after_a_while_and_what_changed_is_saved_once() {
        let mut tracker = tracker(windows());
        tracker.take(&rows(&[(0, Some("a"), 1)]), Side::Now, false, at(1)).unwrap();
        assert_eq!(changes(&mut tracker, 1), [("a".to_string(), "firing")]);
        assert_eq!(tracker.unsaved().len(), 1);
        assert_eq!(tracker.unsaved().len(), 0);
        assert!(tracker.waits());
        assert_eq!(changes(&mut tracker, 2 * SIZE), [("a".to_string(), "resolved")]);
        assert_eq!(tracker.unsaved().len(), 1);
        assert!(!tracker.waits() && tracker.forget(at(3 * SIZE)).is_empty());
        assert_eq!(tracker.forget(at(3 * SIZE + SHOWN)).len(), 1);
    }

    #[test]
    fn reading_again_is_no_news_but_rows_that_came_meanwhile_are() {
        for timing in [windows(), Timing::Level] {
            for (again, silent) in [((30, Some("a"), 9), true), ((30, Some("a"), 8), false)] {
                let mut tracker = tracker(timing.clone());
                tracker.rule.no_data = Some((NoData::Fire, 100));
                let schema = schema();
                let read = |tracker: &mut Tracker, row, time| {
                    let predicate = tracker.predicate.clone();
                    tracker.begin(&schema, predicate, &timing, at(time), Micros::MIN).unwrap();
                    tracker.take(&rows(&[row]), Side::Now, true, at(time)).unwrap();
                    tracker.complete(at(time));
                };
                read(&mut tracker, (30, Some("a"), 9), 0);
                read(&mut tracker, again, 60);
                let found = tracker.advance(at(110), Micros::MIN);
                assert_eq!(found.iter().any(|(_, changes)| !changes.is_empty()), silent, "{timing:?}");
                // After a restart it is not known what was there.
                let kept = tracker.instances.values().next().unwrap().kept.clone();
                let remembered = HashMap::from([(vec![Some("a".to_string())], Tracked::of(kept))]);
                let predicate = tracker.predicate.clone();
                let mut after = Tracker::new(tracker.rule, false, &["k".to_string()], remembered);
                after.predicate = predicate;
                read(&mut after, again, 120);
                assert_eq!(after.instances.values().all(|t| t.kept.instance.silent), silent, "{timing:?}");
            }
        }
    }
}
