//! Which pushed batches are in a stream already? A sender that got no answer pushes again under the same idempotency key;
//! the batch counts once, and is answered with the offsets that it got the first time.
//!
//! The messages of a queue that may be given again are such batches of one frame each, whose key is the message's id; one
//! record of the log holds many of them.
//!
//! Receives the records of the log in their order, at start-up as well as live: a key is the key of its record's position,
//! so it is exactly as durable as the batch. Hands on the offsets of a known key. A checkpoint keeps the keys whose records
//! may be cut off from the log.
//!
//! Keys are forgotten by number and by age, oldest first, so that they take a bounded amount of memory. A retry that comes
//! later than that counts as a new batch.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::position::{Position, Unit};
use crate::time::Micros;

/// Longest key, in bytes: with it the memory for all of them is bounded too.
pub const MAX_KEY: usize = 255;

/// One batch that was pushed under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub source: u32,
    pub key: String,
    /// Offsets of the batch: `start..end`.
    pub start: u64,
    pub end: u64,
    /// Wall time at which it was logged.
    pub at: Micros,
}

/// The keys of one stream.
#[derive(Debug)]
pub struct Keys {
    // Fixed.
    most: usize,
    window: Micros,
    // State.
    known: HashMap<(u32, Arc<str>), Known>,
    /// In the order of the log; ones that have come again since are passed over.
    order: VecDeque<(u32, Arc<str>, u64)>,
    /// Records before this offset have been noted.
    noted: u64,
}

#[derive(Debug)]
struct Known {
    offsets: Range<u64>,
    at: Micros,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys::new(usize::MAX, Micros::MAX)
    }
}

impl Keys {
    /// Remembers the last `most` keys, for `window` microseconds.
    pub fn new(most: usize, window: Micros) -> Keys {
        Keys { most, window, known: HashMap::new(), order: VecDeque::new(), noted: 0 }
    }

    /// The same with what a checkpoint had kept.
    pub fn with(mut self, saved: &[Key]) -> Keys {
        for key in saved {
            self.insert(key.source, &key.key, key.start..key.end, key.at);
        }
        self
    }

    /// Notes a record of the log, if it was pushed under a key. Records come in order; ones that a checkpoint knew of may
    /// come again.
    pub fn note(&mut self, source: u32, position: &Position, at: Micros) {
        if position.start < self.noted {
            return;
        }
        match position.unit {
            Unit::Bytes | Unit::Frames | Unit::Enveloped => {}
            Unit::Offsets if position.key.is_empty() => {}
            Unit::Offsets => self.insert(source, &position.key, position.start..position.end, at),
            Unit::Messages => {
                for (offset, id) in (position.start..position.end).zip(ids(&position.key)) {
                    if !id.is_empty() {
                        self.insert(source, id, offset..offset + 1, at);
                    }
                }
            }
        }
    }

    fn insert(&mut self, source: u32, key: &str, offsets: Range<u64>, at: Micros) {
        let key: Arc<str> = key.into();
        self.noted = offsets.end;
        self.order.push_back((source, Arc::clone(&key), offsets.start));
        self.known.insert((source, key), Known { offsets, at });
        while let Some((source, key, start)) = self.order.front() {
            let name = (*source, Arc::clone(key));
            // A key that came again after its time is known under its newer offsets.
            let newest = self.known.get(&name).filter(|known| known.offsets.start == *start);
            let keep = newest.is_some_and(|known| self.known.len() <= self.most && !self.is_over(known, at));
            if keep {
                break;
            }
            if newest.is_some() {
                self.known.remove(&name);
            }
            self.order.pop_front();
        }
    }

    fn is_over(&self, known: &Known, now: Micros) -> bool {
        known.at.saturating_add(self.window) < now
    }

    /// The offsets of the batch that came under this key, if that is remembered at wall time `now`.
    pub fn find(&self, source: u32, key: &str, now: Micros) -> Option<Range<u64>> {
        let known = self.known.get(&(source, key.into()))?;
        (!self.is_over(known, now)).then(|| known.offsets.clone())
    }

    /// Whose keys these are.
    pub fn sources(&self) -> impl Iterator<Item = u32> {
        self.order.iter().map(|(source, _, _)| *source)
    }

    /// All of them, oldest first, for [`Keys::with`].
    pub fn saved(&self) -> Vec<Key> {
        let newest = self.order.iter().filter_map(|(source, key, start)| {
            let known = self.known.get(&(*source, Arc::clone(key))).filter(|known| known.offsets.start == *start)?;
            Some(Key { source: *source, key: key.to_string(), start: *start, end: known.offsets.end, at: known.at })
        });
        newest.collect()
    }
}

/// The ids of the messages of a record, by its position's key; empty ones among them.
pub fn ids(key: &str) -> impl Iterator<Item = &str> {
    key.split('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(key: &str, offsets: Range<u64>) -> Position {
        let (start, end) = (offsets.start, offsets.end);
        Position { partition: "http".into(), key: key.into(), start, end, unit: Unit::Offsets }
    }

    #[test]
    fn keys_are_of_a_source_and_forgotten_by_number_and_age() {
        let mut keys = Keys::new(2, 100);
        keys.note(1, &pushed("a", 0..3), 10);
        keys.note(1, &pushed("", 3..4), 11);
        keys.note(0, &Position { unit: Unit::Frames, ..pushed("file", 4..5) }, 11);
        assert_eq!(keys.find(1, "a", 50), Some(0..3));
        assert_eq!(keys.find(2, "a", 50), None, "of another source");
        assert_eq!(keys.find(0, "file", 50), None, "that is a position");
        assert_eq!(keys.find(1, "a", 110), Some(0..3));
        assert_eq!(keys.find(1, "a", 111), None, "too old");
        keys.note(1, &pushed("b", 5..6), 20);
        keys.note(1, &pushed("c", 6..7), 30);
        assert_eq!(keys.find(1, "a", 31), None, "too many");
        assert_eq!(keys.saved().iter().map(|key| key.key.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        keys.note(1, &pushed("d", 7..8), 121);
        assert_eq!(keys.saved().iter().map(|key| key.key.as_str()).collect::<Vec<_>>(), ["c", "d"]);
    }

    #[test]
    fn messages_of_one_record_have_a_key_each() {
        let mut keys = Keys::new(10, 100);
        let record = Position { unit: Unit::Messages, ..pushed("a\n\nb", 5..8) };
        keys.note(7, &record, 1);
        assert_eq!((keys.find(7, "a", 1), keys.find(7, "", 1), keys.find(7, "b", 1)), (Some(5..6), None, Some(7..8)));
        let saved = keys.saved();
        keys = Keys::new(10, 100).with(&saved);
        keys.note(7, &record, 1);
        assert_eq!(keys.saved(), saved);
    }

    #[test]
    fn a_key_that_comes_again_after_its_time_has_its_newer_offsets() {
        let mut keys = Keys::new(10, 100);
        keys.note(1, &pushed("a", 0..1), 0);
        keys.note(1, &pushed("b", 1..2), 50);
        assert_eq!(keys.find(1, "a", 101), None);
        keys.note(1, &pushed("a", 2..3), 101);
        assert_eq!(keys.find(1, "a", 101), Some(2..3));
        let saved = keys.saved();
        assert_eq!(saved.iter().map(|key| key.start).collect::<Vec<_>>(), [1, 2]);
        keys.note(1, &pushed("c", 3..4), 300);
        assert_eq!(keys.saved().len(), 1);
        assert!(keys.order.len() == 1 && keys.known.len() == 1);
    }

    #[test]
    fn a_checkpoint_and_the_log_behind_it_give_the_same_keys() {
        let log: Vec<_> =
            (0..20u64).map(|i| (pushed(&format!("k{}", i % 13), i * 2..i * 2 + 2), i as i64 * 10)).collect();
        let mut all = Keys::new(6, 1000);
        for (at, (position, time)) in log.iter().enumerate() {
            // The log may begin anywhere before the checkpoint.
            for first in [0, at / 2, at] {
                let mut again = Keys::new(6, 1000).with(&all.saved());
                log[first..].iter().for_each(|(position, time)| again.note(1, position, *time));
                let mut to_the_end = Keys::new(6, 1000);
                log.iter().for_each(|(position, time)| to_the_end.note(1, position, *time));
                assert_eq!(again.saved(), to_the_end.saved(), "checkpoint at {at}, log from {first}");
            }
            all.note(1, position, *time);
        }
    }
}
