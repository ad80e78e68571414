//! What holds from a line on until something else does, by where that line stands: its partition (file, connection) and
//! its offset in the stream. Both are the same when the log is read again, so a line finds what held when it was first
//! read, whatever came later.

use std::collections::{BTreeMap, BTreeSet};

/// Values by the place from which they hold.
pub struct Places<T> {
    values: BTreeMap<(String, u64), T>,
    /// The same places, the oldest first.
    by_age: BTreeSet<(u64, String)>,
    most: usize,
}

impl<T> Places<T> {
    /// Keeps at most `most` values.
    pub fn new(most: usize) -> Places<T> {
        Places { values: BTreeMap::new(), by_age: BTreeSet::new(), most }
    }

    /// What holds for the line at `offset` of a partition.
    pub fn above(&self, partition: &str, offset: u64) -> Option<&T> {
        if self.values.is_empty() {
            return None;
        }
        let key = |offset| (partition.to_string(), offset);
        self.values.range(key(0)..=key(offset)).next_back().map(|(_, value)| value)
    }

    /// Notes what holds from the line at `offset` of a partition on; whether the oldest value was forgotten for it.
    pub fn note(&mut self, partition: &str, offset: u64, value: T) -> bool {
        self.values.insert((partition.to_string(), offset), value);
        self.by_age.insert((offset, partition.to_string()));
        let oldest = if self.values.len() > self.most { self.by_age.pop_first() } else { None };
        oldest.is_some_and(|(offset, partition)| self.values.remove(&(partition, offset)).is_some())
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Partition, offset and value of each place.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &T)> {
        self.values.iter().map(|((partition, offset), value)| (partition.as_str(), *offset, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_until_the_next_one_of_its_partition() {
        let mut places = Places::new(10);
        for (partition, offset, value) in [("a", 10, 'x'), ("b", 20, 'y'), ("a", 30, 'z')] {
            assert!(!places.note(partition, offset, value));
        }
        let above = |partition: &str, offset: u64| places.above(partition, offset).copied();
        assert_eq!(
            [above("a", 9), above("a", 10), above("a", 29), above("a", 30)],
            [None, Some('x'), Some('x'), Some('z')]
        );
        assert_eq!([above("b", 19), above("b", 99), above("c", 99)], [None, Some('y'), None]);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut places = Places::new(2);
        let mut note = |partition: &str, offset: u64| places.note(partition, offset, offset);
        assert_eq!([note("b", 1), note("a", 2), note("a", 2), note("a", 3)], [false, false, false, true]);
        assert_eq!(places.iter().collect::<Vec<_>>(), [("a", 2, &2), ("a", 3, &3)]);
        assert_eq!((places.above("b", 9), places.len()), (None, 2));
    }
}
