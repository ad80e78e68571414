//! How far has event time come? One watermark per stream: the smallest `max(event time) − delay` over its partitions
//! (files, connections), leaving out partitions that have been silent for `idle_timeout`. When all are idle, the
//! watermark follows the wall clock from the last one's value on, so windows close when traffic stops.
//!
//! The watermark never goes back. It decides what is announced as final and which rows count as late; no row is ever
//! dropped by it.

use std::collections::HashMap;

use crate::time::Micros;

/// The state of one partition.
#[derive(Debug, Clone)]
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
    current: Micros,
}

/// Before any row.
pub const NEVER: Micros = Micros::MIN;
/// After the end of a bounded stream.
pub const FOREVER: Micros = Micros::MAX;

/// At most this many partitions are remembered; idle ones beyond it are folded away (their watermark no longer counts).
const MAX_PARTITIONS: usize = 10_000;

impl Watermark {
    /// All three in microseconds.
    pub fn new(delay: Micros, idle_timeout: Micros, max_future: Micros) -> Watermark {
        Watermark { delay, idle_timeout, max_future, partitions: HashMap::new(), current: NEVER }
    }

    /// Takes in the event times of one micro-batch of one partition. `now` is the wall time at which it was ingested.
    pub fn observe(&mut self, partition: &str, times: &[Micros], now: Micros) {
        if times.is_empty() {
            return;
        }
        if !self.partitions.contains_key(partition) {
            self.make_room(now);
            let fresh = Partition { max_time: NEVER, last_row: now, rows: 0, late: 0, future: 0, ended: false };
            self.partitions.insert(partition.to_string(), fresh);
        }
        let horizon = now.saturating_add(self.max_future);
        let (mut max_time, mut late, mut future) = (NEVER, 0, 0);
        for &time in times {
            late += u64::from(time < self.current);
            if time > horizon {
                future += 1;
            } else {
                max_time = max_time.max(time);
            }
        }
        let state = self.partitions.get_mut(partition).expect("inserted above");
        state.max_time = state.max_time.max(max_time);
        state.last_row = now;
        state.rows += times.len() as u64;
        state.late += late;
        state.future += future;
        state.ended = false;
        self.advance(now);
    }

    /// Notes that a bounded partition was read to its end: it no longer holds the watermark back.
    pub fn end(&mut self, partition: &str) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.ended = true;
        }
    }

    /// Moves the watermark on to where it stands at wall time `now`, and returns it.
    pub fn advance(&mut self, now: Micros) -> Micros {
        let known = self.partitions.values().filter(|p| p.max_time > NEVER);
        let mut slowest_active = None;
        let mut furthest_idle = NEVER;
        for partition in known {
            let idle_for = now.saturating_sub(partition.last_row);
            if partition.ended {
                furthest_idle = furthest_idle.max(partition.max_time);
            } else if idle_for < self.idle_timeout {
                slowest_active = Some(slowest_active.unwrap_or(FOREVER).min(partition.max_time));
            } else {
                // Event time goes on with the wall clock from the moment the partition fell silent.
                let moved = partition.max_time.saturating_add(idle_for - self.idle_timeout);
                furthest_idle = furthest_idle.max(moved);
            }
        }
        let time = slowest_active.unwrap_or(furthest_idle);
        if time > NEVER {
            self.current = self.current.max(time.saturating_sub(self.delay));
        }
        self.current
    }

    /// The watermark as last moved; [`NEVER`] before the first row.
    pub fn current(&self) -> Micros {
        self.current
    }

    /// Partition by name, with whether it is idle at `now`.
    pub fn partitions(&self, now: Micros) -> impl Iterator<Item = (&str, &Partition, bool)> {
        self.partitions
            .iter()
            .map(move |(name, p)| (name.as_str(), p, p.ended || now.saturating_sub(p.last_row) >= self.idle_timeout))
    }

    /// Late rows of all partitions.
    pub fn late(&self) -> u64 {
        self.partitions.values().map(|p| p.late).sum()
    }

    fn make_room(&mut self, now: Micros) {
        if self.partitions.len() >= MAX_PARTITIONS {
            let idle_timeout = self.idle_timeout;
            self.partitions.retain(|_, p| !p.ended && now.saturating_sub(p.last_row) < idle_timeout);
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
        assert_eq!(w.advance(25 * S), 125 * S, "both idle: 5 s past a's timeout");
    }

    #[test]
    fn a_clock_in_the_future_moves_nothing() {
        let mut w = Watermark::new(0, 10 * S, 60 * S);
        w.observe("a", &[100 * S, 10_000 * S], 100 * S);
        assert_eq!(w.current(), 100 * S);
        let (_, partition, idle) = w.partitions(100 * S).next().unwrap();
        assert_eq!((partition.future, partition.rows, idle), (1, 2, false));
    }
}
