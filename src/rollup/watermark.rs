//! How far has event time come? One watermark per stream: the smallest `max(event time) − delay` over its partitions
//! (files, connections), leaving out partitions that have been silent for `idle_timeout`. When all are idle, event time
//! goes on with the wall clock from the last row on, so windows close when traffic stops. When all have ended (a file
//! that is read once), it is at [`FOREVER`].
//!
//! Old files that are imported are no news: while a stream has partitions of its own, they neither hold its time back nor
//! move it on, so all of their rows may be late. Only in a stream that has nothing else do they tell the time, and their
//! end is never the end of the stream.
//!
//! The watermark never goes back. It decides what is announced as final and which rows count as late; no row is ever
//! dropped by it. A row is late when it is behind the watermark that all rows before it have made: so what is late does
//! not depend on how rows were cut into batches.
//!
//! A partition that is gone for good (a closed connection) no longer holds time back, but time does not forget how far it
//! had come: what is left of all such partitions is one.
//!
//! Wall time reaches it as data only: with the batches, and as ticks when a silent stream's windows are to close. Both
//! stand in the log, so reading the log again gives the same watermark and the same late rows.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::window::Window;
use crate::time::Micros;

/// The state of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Largest event time seen that was not in the future.
    pub max_time: Micros,
    /// Wall time of the last row.
    pub last_row: Micros,
    pub rows: u64,
    /// Rows behind the watermark when they came.
    pub late: u64,
    /// Rows further ahead of the wall clock than `max_future`: kept, but they do not move the watermark.
    pub future: u64,
    /// The source said that nothing more will come.
    pub ended: bool,
    /// Old files: see the file header.
    pub imported: bool,
}

/// A row that came behind the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateRow {
    /// Its place in the batch.
    pub row: u32,
    /// The watermark when it came: ahead of the row's time.
    pub watermark: Micros,
}

/// The watermark of one stream.
#[derive(Debug, Clone)]
pub struct Watermark {
    // fixed
    delay: Micros,
    idle_timeout: Micros,
    max_future: Micros,
    // state
    partitions: HashMap<String, Partition>,
    /// What is left of those that are gone: their rows, and the time of the one furthest on.
    gone: Option<Partition>,
    current: Micros,
}

/// How far time has come, without the settings: what a checkpoint keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    pub partitions: BTreeMap<String, Partition>,
    #[serde(default)]
    pub gone: Option<Partition>,
    pub current: Micros,
}

/// Before any row.
pub const NEVER: Micros = Micros::MIN;
/// After the end of a bounded stream.
pub const FOREVER: Micros = Micros::MAX;

/// At most this many partitions are remembered; idle ones beyond it count as gone.
const MAX_PARTITIONS: usize = 10_000;

impl Watermark {
    /// All three in microseconds.
    pub fn new(delay: Micros, idle_timeout: Micros, max_future: Micros) -> Watermark {
        Watermark { delay, idle_timeout, max_future, partitions: HashMap::new(), gone: None, current: NEVER }
    }

    /// Partitions that are remembered.
    pub fn count(&self) -> usize {
        self.partitions.len()
    }

    /// How far it has come, for [`Watermark::go_on`].
    pub fn reached(&self) -> Reached {
        let partitions = self.partitions.iter().map(|(name, partition)| (name.clone(), partition.clone())).collect();
        Reached { partitions, gone: self.gone.clone(), current: self.current }
    }

    /// The same settings, from where an earlier process had come.
    pub fn go_on(&self, reached: &Reached) -> Watermark {
        let partitions = reached.partitions.iter().map(|(name, partition)| (name.clone(), partition.clone())).collect();
        Watermark { partitions, gone: reached.gone.clone(), current: reached.current, ..*self }
    }

    /// Takes in the event times of one micro-batch of one partition and tells which of its rows were late. `now` is the
    /// wall time at which it was ingested.
    pub fn observe(&mut self, partition: &str, times: &[Micros], now: Micros) -> Vec<LateRow> {
        self.take(partition, times, now, false)
    }

    /// The same for rows of an old file that is being imported.
    pub fn import(&mut self, partition: &str, times: &[Micros], now: Micros) -> Vec<LateRow> {
        // The stream may follow a file of that name too.
        self.take(&format!("import {partition}"), times, now, true)
    }

    fn take(&mut self, partition: &str, times: &[Micros], now: Micros, imported: bool) -> Vec<LateRow> {
        let mut late = Vec::new();
        if times.is_empty() {
            return late;
        }
        // What fell silent before this batch came no longer holds time back.
        self.advance(now);
        if !self.partitions.contains_key(partition) {
            self.make_room(now);
            let fresh =
                Partition { max_time: NEVER, last_row: now, rows: 0, late: 0, future: 0, ended: false, imported };
            self.partitions.insert(partition.to_string(), fresh);
        }
        let tells = !imported || !self.has_own();
        let others = self.slowest_active(now, Some(partition)).unwrap_or(FOREVER);
        let horizon = now.saturating_add(self.max_future);
        let state = self.partitions.get_mut(partition).expect("inserted above");
        let (mut max_time, mut current, mut future) = (state.max_time, self.current, 0);
        for (row, &time) in times.iter().enumerate() {
            if time < current {
                late.push(LateRow { row: row as u32, watermark: current });
            }
            // A partition that lags behind is late, and from then on holds the watermark back all the same.
            if time > horizon {
                future += 1;
            } else if time > max_time {
                max_time = time;
                if tells {
                    current = current.max(max_time.min(others).saturating_sub(self.delay));
                }
            }
        }
        state.max_time = max_time.max(state.max_time);
        state.last_row = now;
        state.rows += times.len() as u64;
        state.late += late.len() as u64;
        state.future += future;
        state.ended = false;
        self.current = current;
        self.advance(now);
        late
    }

    /// Notes that a bounded partition was read to its end: it no longer holds the watermark back.
    pub fn end(&mut self, partition: &str) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.ended = true;
        }
    }

    /// Notes that a partition will not come back.
    pub fn gone(&mut self, partition: &str) {
        if let Some(left) = self.partitions.remove(partition) {
            self.bury(left);
        }
    }

    fn bury(&mut self, left: Partition) {
        let Some(gone) = &mut self.gone else {
            self.gone = Some(left);
            return;
        };
        (gone.rows, gone.late, gone.future) = (gone.rows + left.rows, gone.late + left.late, gone.future + left.future);
        // Once silent, time goes on with the wall clock from its last row: that is ahead by as much for ever.
        let ahead = |p: &Partition| (p.max_time > NEVER, p.max_time.saturating_sub(p.last_row));
        if ahead(&left) > ahead(gone) {
            (gone.max_time, gone.last_row) = (left.max_time, left.last_row);
            (gone.imported, gone.ended) = (left.imported, left.ended);
        }
    }

    pub fn has_ended(&self, partition: &str) -> bool {
        self.partitions.get(partition).is_some_and(|p| p.ended)
    }

    /// Moves the watermark on to where it stands at wall time `now`, and returns it.
    pub fn advance(&mut self, now: Micros) -> Micros {
        self.current = self.at(now);
        self.current
    }

    /// Where the watermark would stand at wall time `now` if no row came until then.
    pub fn at(&self, now: Micros) -> Micros {
        let mut own = self.partitions.values().filter(|p| !p.imported).peekable();
        if own.peek().is_some() && own.all(|p| p.ended) {
            return FOREVER;
        }
        let has_own = self.has_own();
        let furthest = || {
            let telling = self.all().filter(|p| p.max_time > NEVER && !(p.imported && has_own));
            let times = telling.map(|p| self.time_of(p, now));
            times.max().unwrap_or(NEVER)
        };
        let time = self.slowest_active(now, None).unwrap_or_else(furthest);
        if time > NEVER { self.current.max(time.saturating_sub(self.delay)) } else { self.current }
    }

    /// The smallest event time of the partitions that are neither ended nor idle, leaving out `except`.
    fn slowest_active(&self, now: Micros, except: Option<&str>) -> Option<Micros> {
        let has_own = self.has_own();
        let active = self.partitions.iter().filter(|(name, p)| {
            let tells = p.max_time > NEVER && !(p.imported && has_own);
            tells && except != Some(name.as_str()) && !p.ended && !self.is_idle(p, now)
        });
        active.map(|(_, p)| p.max_time).min()
    }

    /// Whether a partition of the stream's own sources has told a time.
    fn has_own(&self) -> bool {
        self.all().any(|p| !p.imported && p.max_time > NEVER)
    }

    /// Also what is left of those that are gone.
    fn all(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values().chain(&self.gone)
    }

    fn is_idle(&self, partition: &Partition, now: Micros) -> bool {
        now.saturating_sub(partition.last_row) >= self.idle_timeout
    }

    /// How far a partition's event time has come: its last row's, and once it is idle, on with the wall clock.
    fn time_of(&self, partition: &Partition, now: Micros) -> Micros {
        if partition.ended || !self.is_idle(partition, now) {
            return partition.max_time;
        }
        partition.max_time.saturating_add(now.saturating_sub(partition.last_row))
    }

    /// The watermark as last moved; [`NEVER`] before the first row.
    pub fn current(&self) -> Micros {
        self.current
    }

    /// The largest event time seen that was not in the future; [`NEVER`] before the first row.
    pub fn max_time(&self) -> Micros {
        self.all().map(|p| p.max_time).max().unwrap_or(NEVER)
    }

    /// Whether the stream has fallen silent and time, going on without it, has by `now` closed a window that may hold
    /// rows. Then a tick is worth writing. `windows`: what is maintained, each with its lateness.
    pub fn is_due(&self, now: Micros, windows: impl IntoIterator<Item = (Window, Micros)>) -> bool {
        let (then, newest) = (self.at(now), self.max_time());
        if then <= self.current || newest == NEVER {
            return false;
        }
        windows.into_iter().any(|(window, lateness)| {
            let reached = |watermark: Micros| watermark.saturating_sub(lateness);
            // No window that may hold rows ends after this one.
            let last = window.last_end(newest);
            // Before the first row there is no window: far in the past is as good as never.
            let now = reached(self.current).max(Micros::MIN / 2);
            now < last && (last <= reached(then) || window.next_end(now) <= reached(then))
        })
    }

    /// A partition by name, its own watermark, and whether it is idle at `now`.
    pub fn partitions(&self, now: Micros) -> impl Iterator<Item = (&str, &Partition, Micros, bool)> {
        let present = self.partitions.iter().map(|(name, p)| (name.as_str(), p, false));
        present.chain(self.gone.iter().map(|p| ("(gone)", p, true))).map(move |(name, p, gone)| {
            let time = self.time_of(p, now);
            let own = if time > NEVER { time.saturating_sub(self.delay) } else { NEVER };
            (name, p, own, gone || p.ended || self.is_idle(p, now))
        })
    }

    /// Late rows of all partitions.
    pub fn late(&self) -> u64 {
        self.all().map(|p| p.late).sum()
    }

    fn make_room(&mut self, now: Micros) {
        if self.partitions.len() >= MAX_PARTITIONS {
            let idle_timeout = self.idle_timeout;
            let idle = self.partitions.extract_if(|_, p| p.ended || now.saturating_sub(p.last_row) >= idle_timeout);
            for (_, left) in idle.collect::<Vec<_>>() {
                self.bury(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    #[test]
    fn the_slowest_active_partition_decides_and_it_never_goes_back() {
        let mut w = Watermark::new(5 * S, 60 * S, 1000 * S);
        w.observe("a", &[100 * S], 100 * S);
        assert_eq!(w.current(), 95 * S);
        w.observe("b", &[50 * S], 101 * S);
        assert_eq!(w.current(), 95 * S, "b is behind, but the watermark does not go back");
        assert_eq!(w.late(), 1);
        w.observe("a", &[200 * S], 102 * S);
        assert_eq!(w.current(), 95 * S, "held by b");
        w.observe("b", &[150 * S], 103 * S);
        assert_eq!(w.current(), 145 * S);
    }

    #[test]
    fn a_silent_partition_stops_holding_it_back_and_then_time_goes_on() {
        let mut w = Watermark::new(0, 10 * S, 1000 * S);
        w.observe("a", &[100 * S], 0);
        w.observe("b", &[50 * S], 0);
        w.observe("a", &[120 * S], 10 * S);
        assert_eq!(w.current(), 120 * S, "b is idle");
        assert_eq!(w.advance(19 * S), 120 * S, "b is idle, a is not yet");
        assert_eq!(w.advance(25 * S), 135 * S, "both idle: 15 s since the last row");
    }

    #[test]
    fn a_clock_in_the_future_moves_nothing() {
        let mut w = Watermark::new(0, 10 * S, 60 * S);
        w.observe("a", &[100 * S, 10_000 * S], 100 * S);
        assert_eq!(w.current(), 100 * S);
        let (_, partition, _, idle) = w.partitions(100 * S).next().unwrap();
        assert_eq!((partition.future, partition.rows, idle), (1, 2, false));
    }

    #[test]
    fn lateness_does_not_depend_on_how_rows_are_cut() {
        let times: Vec<Micros> = [10, 30, 20, 24, 26, 60, 54, 56, 10_000_000, 57].map(|t| t * S).to_vec();
        let all = {
            let mut w = Watermark::new(5 * S, 1000 * S, 1000 * S);
            let late = w.observe("a", &times, 0);
            (late.iter().map(|l| (l.row as usize, l.watermark)).collect::<Vec<_>>(), w.current(), w.late())
        };
        assert_eq!(all.0, [(2, 25 * S), (3, 25 * S), (6, 55 * S)]);
        for cut in 1..times.len() {
            let mut w = Watermark::new(5 * S, 1000 * S, 1000 * S);
            let mut late = Vec::new();
            for (base, part) in [(0, &times[..cut]), (cut, &times[cut..])] {
                late.extend(w.observe("a", part, 0).iter().map(|l| (base + l.row as usize, l.watermark)));
            }
            assert_eq!((late, w.current(), w.late()), all, "cut at {cut}");
        }
    }

    #[test]
    fn when_all_partitions_have_ended_time_is_at_its_end() {
        let mut w = Watermark::new(5 * S, 10 * S, 1000 * S);
        w.observe("a", &[100 * S], 100 * S);
        w.observe("b", &[90 * S], 100 * S);
        w.end("a");
        assert_eq!(w.advance(101 * S), 95 * S, "b still holds it back, but it does not go back");
        w.end("b");
        assert_eq!(w.advance(101 * S), FOREVER);
    }

    #[test]
    fn what_is_gone_holds_nothing_back_and_is_not_forgotten() {
        let mut w = Watermark::new(0, 10 * S, 1000 * S);
        w.observe("slow", &[50 * S], 100 * S);
        w.observe("fast", &[100 * S, 40 * S], 100 * S);
        assert_eq!(w.current(), 50 * S);
        w.gone("slow");
        assert_eq!(w.advance(101 * S), 100 * S);
        w.gone("fast");
        w.gone("fast");
        assert_eq!(w.partitions(101 * S).count(), 1, "nothing piles up");
        let (name, left, _, idle) = w.partitions(101 * S).next().unwrap();
        assert_eq!((name, left.rows, left.max_time, idle), ("(gone)", 3, 100 * S, true));
        assert_eq!((w.late(), w.max_time()), (1, 100 * S));
        assert_eq!(w.advance(120 * S), 120 * S, "all are silent: on with the wall clock");
        let mut again = Watermark::new(0, 10 * S, 1000 * S).go_on(&w.reached());
        again.observe("slow", &[130 * S], 130 * S);
        assert_eq!(again.current(), 130 * S);
    }

    #[test]
    fn old_files_do_not_tell_the_time_of_a_stream_with_other_sources() {
        let mut w = Watermark::new(5 * S, 10 * S, 1000 * S);
        w.observe("a", &[100 * S], 100 * S);
        assert_eq!(w.import("old", &[10 * S, 99 * S, 20 * S], 101 * S).len(), 2, "behind the watermark at 95 s");
        assert_eq!(w.import("newer", &[110 * S], 101 * S).len(), 0);
        assert_eq!(w.current(), 95 * S, "not moved on");
        w.observe("a", &[200 * S], 102 * S);
        assert_eq!(w.current(), 195 * S, "not held back");
        w.end("a");
        assert_eq!(w.advance(103 * S), FOREVER, "the stream has ended");
    }

    #[test]
    fn old_files_tell_the_time_of_a_stream_that_has_nothing_else() {
        let mut w = Watermark::new(5 * S, 10 * S, 1000 * S);
        w.import("b", &[50 * S], 1000 * S);
        assert_eq!(w.import("a", &[100 * S], 1000 * S).len(), 0);
        assert_eq!(w.current(), 45 * S, "held back by b");
        assert_eq!(w.advance(1020 * S), 115 * S, "both are silent: on with the wall clock, and no end");
        w.observe("live", &[1000 * S], 1020 * S);
        assert_eq!(w.current(), 995 * S);
    }

    #[test]
    fn partitions_that_fell_silent_make_room_and_their_late_rows_still_count() {
        let mut w = Watermark::new(0, 10 * S, 1000 * S);
        w.observe("first", &[100 * S, 50 * S], 0);
        for i in 0..MAX_PARTITIONS as i64 {
            w.observe(&i.to_string(), &[100 * S], i * S / 100);
        }
        assert!(w.count() < MAX_PARTITIONS, "{}", w.count());
        assert_eq!(w.late(), 1);
        assert_eq!(Watermark::new(0, 10 * S, 1000 * S).go_on(&w.reached()).late(), 1);
    }

    #[test]
    fn a_tick_is_due_when_silence_closes_a_window() {
        let minute = [(Window::Tumble { size: 60 * S, offset: 0 }, 0)];
        let mut w = Watermark::new(0, 10 * S, 1000 * S);
        assert!(!w.is_due(0, minute));
        w.observe("a", &[100 * S], 0);
        assert!(!w.is_due(10 * S, minute), "idle, but the window ends in 10 s");
        assert!(w.is_due(20 * S, minute));
        w.advance(20 * S);
        assert!(!w.is_due(500 * S, minute), "no other window holds rows");
    }
}
