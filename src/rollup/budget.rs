//! How much memory do all rollups of a server take together? A [`Budget`] counts every run in memory, also those that
//! only a slow reader still holds, and says who has to move to disk when the sum is too large.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Rollup;
use super::run::RunStore;
use crate::error::Result;

/// See the file header.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    rollups: Mutex<Vec<Weak<Rollup>>>,
}

/// The memory of one run, counted as long as this lives.
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

/// Where rollups may keep their states, and how much of them in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Without one, a rollup that outgrows its limit is stopped.
    pub store: Option<Arc<dyn RunStore>>,
    pub budget: Arc<Budget>,
}

impl Charge {
    pub fn new(budget: &Arc<Budget>, bytes: usize) -> Charge {
        budget.used.fetch_add(bytes, Ordering::Relaxed);
        Charge { budget: Arc::clone(budget), bytes }
    }

    /// Another one in the same budget.
    pub fn another(&self, bytes: usize) -> Charge {
        Charge::new(&self.budget, bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Budget {
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0), rollups: Mutex::default() })
    }

    /// Counts and does not limit.
    pub fn unlimited() -> Arc<Budget> {
        Budget::new(usize::MAX)
    }

    /// Bytes of all runs in memory.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn register(&self, rollup: &Arc<Rollup>) {
        let mut rollups = self.rollups.lock();
        rollups.retain(|r| r.strong_count() > 0);
        rollups.push(Arc::downgrade(rollup));
    }

    /// What one rollup may take so that all have the same.
    pub(super) fn share(&self) -> usize {
        self.limit / self.rollups.lock().len().max(1)
    }

    /// Moves cold runs to disk until the sum is within the limit: those of the rollup that holds most of them come
    /// first, whether it is the one that grew or one that nobody feeds any more.
    pub(super) fn enforce(&self) -> Result<()> {
        while self.used() > self.limit {
            let rollups: Vec<_> = self.rollups.lock().iter().filter_map(Weak::upgrade).collect();
            let mut sizes: Vec<_> = rollups.iter().map(|r| (r.cold_bytes(), r)).filter(|(n, _)| *n > 0).collect();
            sizes.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
            let mut moved = false;
            for (_, rollup) in sizes {
                if rollup.move_coldest()? {
                    moved = true;
                    break;
                }
            }
            // What is left is fresh, held by readers, or just being merged by its own thread, which comes here next.
            if !moved {
                break;
            }
        }
        Ok(())
    }
}
