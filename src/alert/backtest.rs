//! What an alert would have done: old rows, in the order of their times, through the same tracker that looks at new ones.
//!
//! Each window is seen once, as it was in the end: the same firings as those of the live run, but for windows that matched while
//! they were open and no longer when they closed. The wall clock is where event time is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_expr::PhysicalExpr;
use futures::StreamExt;
use serde_json::{Map, Value};

use super::Definition;
use super::rule::{Moment, State};
use super::track::{Key, Side, Timing, Tracker};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::time::Micros;

/// Firings of one backtest at most.
const MOST: usize = 100_000;

/// One firing.
#[derive(Debug, Clone, PartialEq)]
pub struct Firing {
    pub key: Key,
    pub fired: Micros,
    /// `None`: it still fired at the end.
    pub resolved: Option<Micros>,
    /// The row that it fired with; none where no data came.
    pub row: Map<String, Value>,
    pub is_silence: bool,
}

/// See the file header.
struct Backtest {
    tracker: Tracker,
    timing: Timing,
    /// ON NO DATA … AFTER.
    after: Option<Micros>,
    /// When a row was seen last.
    seen: Micros,
    open: BTreeMap<Key, Firing>,
    done: Vec<Firing>,
}

/// The firings that rows, in the order of their times, lead to between `from` and `to`. Rows may begin earlier, as FOR needs
/// them.
pub async fn run(
    definition: &Definition,
    timing: &Timing,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    mut rows: SendableRecordBatchStream,
    (from, to): (Micros, Micros),
) -> Result<Vec<Firing>> {
    let begin = from.saturating_sub(definition.rule.hold);
    let mut tracker = Tracker::new(definition.rule, definition.keeps, &definition.key, HashMap::new());
    let moment = Moment { event: begin, wall: begin };
    tracker.begin(&rows.schema(), predicate, timing, moment, begin)?;
    let after = definition.rule.no_data.map(|(_, after)| after);
    let (open, done) = (BTreeMap::new(), Vec::new());
    let mut test = Backtest { tracker, timing: timing.clone(), after, seen: begin, open, done };
    // The window whose rows are being taken.
    let mut current: Option<Micros> = None;
    while let Some(batch) = rows.next().await {
        test.take(&batch?, &mut current)?;
    }
    if let Some(end) = current {
        test.advance(end);
    }
    test.go_to(to)?;
    let mut firings = test.done;
    firings.extend(test.open.into_values());
    firings.retain(|firing| firing.fired >= from && firing.fired < to);
    firings.sort_by(|a, b| (a.fired, &a.key).cmp(&(b.fired, &b.key)));
    Ok(firings)
}

impl Backtest {
    fn take(&mut self, rows: &RecordBatch, current: &mut Option<Micros>) -> Result<()> {
        let column = match &self.timing {
            Timing::Windows(grid) => grid.column,
            Timing::Rows { time: Some(column) } => *column,
            Timing::Rows { time: None } | Timing::Level => return Err(no_times()),
        };
        let times = cast(rows.column(column), &timestamp_type())?;
        let times = times.as_any().downcast_ref::<TimestampMicrosecondArray>();
        let times = times.ok_or_else(|| Error::internal("it was cast to a timestamp"))?;
        let mut at = 0;
        while at < rows.num_rows() {
            if times.is_null(at) {
                at += 1;
                continue;
            }
            let time = times.value(at);
            let same = (at..rows.num_rows()).take_while(|&i| times.is_valid(i) && times.value(i) == time).count();
            let (start, end) = match &self.timing {
                Timing::Windows(grid) => match grid.span(time) {
                    Some(span) => (span.start, span.end),
                    None => (time, time),
                },
                Timing::Rows { .. } | Timing::Level => (time, time),
            };
            if let Some(before) = current.filter(|before| *before != end) {
                self.advance(before);
                self.go_to(start)?;
            }
            *current = Some(end);
            self.seen = self.seen.max(end);
            self.tracker.take(&rows.slice(at, same), Side::Now, false, Moment { event: end, wall: end })?;
            at += same;
        }
        match self.tracker.failure() {
            Some(err) => Err(err),
            None if self.tracker.is_full => Err(Error::new(Kind::ResourceLimit, "there are too many values of KEY")),
            None => Ok(()),
        }
    }

    /// Lets time go on to where nothing is seen before.
    fn go_to(&mut self, time: Micros) -> Result<()> {
        // Silence is noticed when it is so long.
        if let Some(silent) = self.after.map(|after| self.seen.saturating_add(after)).filter(|at| *at < time) {
            self.advance(silent);
        }
        self.advance(time);
        let instances = self.done.len() + self.open.len();
        if instances > MOST {
            return Err(Error::new(Kind::ResourceLimit, format!("it would have fired more than {MOST} times"))
                .with_hint("Choose a shorter time, or another predicate."));
        }
        Ok(())
    }

    fn advance(&mut self, time: Micros) {
        let now = Moment { event: time, wall: time };
        for (key, changes) in self.tracker.advance(now, time) {
            let row = self.tracker.instances.get(&key).map(|tracked| tracked.kept.row.clone()).unwrap_or_default();
            for change in changes {
                match change.to {
                    State::Firing => {
                        let row = if change.silent { Map::new() } else { row.clone() };
                        let fired = change.at.event;
                        let is_silence = change.silent;
                        let firing = Firing { key: key.clone(), fired, resolved: None, row, is_silence };
                        self.open.insert(key.clone(), firing);
                    }
                    State::Resolved => {
                        if let Some(firing) = self.open.remove(&key) {
                            self.done.push(Firing { resolved: Some(change.at.event), ..firing });
                        }
                    }
                    State::Ok | State::Pending => {}
                }
            }
        }
        self.tracker.forget(now);
    }
}

/// Why something cannot be rehearsed.
pub fn no_times() -> Error {
    Error::new(Kind::NotSupported, "what this alert watches has no times, so it is not known what it was before")
        .with_detail("A backtest needs windows, or rows of a stream with their time.")
        .with_hint("Select window_start or window_end in the view, or the stream's time column.")
}
