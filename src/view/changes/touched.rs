//! Which panes of a rollup changed lately: what a subscription has to look at again.
//!
//! Only folding rows changes what a reader computes; merging runs does not. So the ranges noted here are those of folded
//! runs, and a merge that rewrites a day of panes costs a subscriber nothing.

use std::collections::VecDeque;

use crate::mutation::{Mutation, on};

/// Ranges kept. Beyond it the oldest two become one, so that a subscriber that comes seldom looks at more than it has to.
const MOST: usize = 32;

/// The last changes of one rollup, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Touched(VecDeque<Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    version: u64,
    panes: (i64, i64),
}

impl Touched {
    /// Notes that the content of these panes (a closed range in the unit of the pane column; `i64::MIN, i64::MAX` without
    /// a window) changes with this version of the stream. To be called for every reason of a change, be it rows or time.
    pub fn note(&mut self, version: u64, panes: (i64, i64)) {
        if on(Mutation::SubscriberMissesAChange) {
            return;
        }
        if self.0.len() >= MOST
            && let (Some(oldest), Some(next)) = (self.0.pop_front(), self.0.front_mut())
        {
            next.panes = hull(next.panes, oldest.panes);
        }
        self.0.push_back(Entry { version, panes });
    }

    /// The range of panes that changed after this version, perhaps with more around them.
    pub fn since(&self, version: u64) -> Option<(i64, i64)> {
        let newer = self.0.iter().rev().take_while(|entry| entry.version > version);
        newer.map(|entry| entry.panes).reduce(hull)
    }
}

fn hull(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    (a.0.min(b.0), a.1.max(b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_changed_is_left_out() {
        let mut touched = Touched::default();
        assert_eq!(touched.since(0), None);
        for version in 1..=1000i64 {
            touched.note(version as u64, (version, version + 1));
        }
        assert_eq!(touched.since(1000), None);
        assert_eq!(touched.since(998), Some((999, 1001)));
        for version in 0..1000u64 {
            let (low, high) = touched.since(version).unwrap();
            assert!(low <= version as i64 + 1 && high == 1001, "since {version}: {low}..{high}");
        }
        assert!(touched.0.len() <= MOST);
    }
}
