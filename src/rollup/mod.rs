//! What is kept of a continuous query? A **rollup**: the partial-aggregate state of one maximal subtree
//!
//! ```text
//!     Aggregate ← [ window | Filter | Projection ]* ← one stream
//! ```
//!
//! of its plan, folded micro-batch by micro-batch. [`plan`] cuts a view's plan into rollups and the *finish plan* above
//! them; [`maintain`] folds rows into partial states and merges and finishes states, all with DataFusion's own
//! aggregate operators, so a view equals its batch query by construction; [`pane`] keeps the states as [`run`]s in memory
//! or on disk; [`slice`] goes through large ones piece by piece and [`read`] does so for queries; [`budget`] counts their
//! memory; [`window`] holds the window arithmetic; [`watermark`] says how far event time has come, and [`timeliness`]
//! which rows came in time.
//!
//! Pure: no files, no sockets, no clock. Time arrives as data, and disk as a [`run::RunStore`].

pub mod budget;
pub mod hop;
pub mod maintain;
pub mod pane;
pub mod plan;
pub mod read;
pub mod run;
pub mod slice;
#[cfg(test)]
mod tests;
pub mod timeliness;
pub mod versions;
pub mod watermark;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use budget::{Budget, Memory};
use maintain::Maintainer;
use pane::{Runs, Sizes, Work};
use plan::Definition;
use run::{Run, RunStore};
use timeliness::Timed;

/// Less than this is not enough to merge anything.
const LEAST_LIMIT: usize = 1 << 20;

/// When memory is short so much of the limit is made free, so that this does not happen again with the next batch.
const FREE_PART: usize = 8;

/// One maintained aggregate: its definition, its operators and its state. Shared by all views with the same subtree.
pub struct Rollup {
    pub definition: Definition,
    maintainer: Maintainer,
    state: Mutex<Runs>,
    /// Held by whoever merges or moves runs; others may add and read meanwhile.
    upkeep: Mutex<()>,
    /// Bytes of memory that the state may take.
    limit: AtomicUsize,
    store: Option<Arc<dyn RunStore>>,
    budget: Arc<Budget>,
}

impl std::fmt::Debug for Rollup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rollup({})", self.definition.key)
    }
}

impl Rollup {
    /// An empty rollup, all in memory. Fails when DataFusion cannot split the aggregate into partial and final.
    pub async fn new(definition: Definition, state: &datafusion::execution::SessionState) -> Result<Rollup> {
        Rollup::with_sizes(definition, state, Sizes::default()).await
    }

    pub async fn with_sizes(
        definition: Definition,
        state: &datafusion::execution::SessionState,
        sizes: Sizes,
    ) -> Result<Rollup> {
        let maintainer = Maintainer::new(&definition, state, sizes).await?;
        let budget = Budget::unlimited();
        let state = Mutex::new(Runs::new(sizes, Arc::clone(&budget)));
        let (upkeep, limit) = (Mutex::default(), AtomicUsize::new(usize::MAX));
        Ok(Rollup { definition, maintainer, state, upkeep, limit, store: None, budget })
    }

    /// The same with a limit: what does not fit moves to `memory`'s store.
    pub fn within(mut self, memory: &Memory, limit: u64) -> Arc<Rollup> {
        self.store = memory.store.clone();
        self.budget = Arc::clone(&memory.budget);
        self.state.get_mut().count_in(&memory.budget);
        self.set_limit(limit);
        let rollup = Arc::new(self);
        rollup.budget.register(&rollup);
        rollup
    }

    /// Sets how many bytes of memory the state may take. In force from the next micro-batch on.
    pub fn set_limit(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(LEAST_LIMIT);
        self.limit.store(bytes, Ordering::Relaxed);
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The partial states of those rows of a micro-batch that the rollup takes. Does not change the rollup: see
    /// [`Rollup::add`].
    pub fn fold(&self, timed: &Timed) -> Result<Option<Run>> {
        let window = self.definition.pane.map(|pane| pane.window);
        match self.definition.timeliness.pick(timed, window, self.definition.lateness)? {
            Some(rows) => self.maintainer.fold(&rows),
            None => Ok(None),
        }
    }

    /// Files the states of a micro-batch. Cheap: merging is left to [`Rollup::compact`].
    pub fn add(&self, run: Run) {
        self.state.lock().push(run);
    }

    /// Merges runs while there is something worth merging, and moves cold ones to disk while there is not enough memory.
    /// Called by whoever adds runs; readers are not held up, because the work itself happens outside the lock. An error
    /// means that the state can no longer be kept.
    pub fn compact(&self) -> Result<()> {
        {
            let _upkeep = self.upkeep.lock();
            // All rollups together have a limit too; what is fresh cannot be moved, so it must not add up to it.
            let limit = self.limit().min(self.budget.share());
            loop {
                let Some(work) = self.state.lock().pick(limit) else { break };
                let store = self.make_room(&work)?;
                let merged = self.maintainer.merge(&work, store.as_ref(), self.limit())?;
                self.state.lock().replace(&work, merged);
            }
            if self.bytes() > self.limit() {
                self.shrink_to(self.limit() - self.limit() / FREE_PART, &[])?;
                self.check_limit()?;
            }
        }
        self.budget.enforce()
    }

    /// Memory for the result of a merge, or the store that it has to go to.
    fn make_room(&self, work: &Work) -> Result<Option<Arc<dyn RunStore>>> {
        let room = self.limit().saturating_sub(work.size());
        let fits = |rollup: &Rollup| {
            rollup.bytes() <= room && rollup.budget.used().saturating_add(work.size()) <= rollup.budget.limit()
        };
        if self.store.is_some() && !fits(self) && work.size() <= self.limit() / FREE_PART {
            self.shrink_to(room, &work.runs)?;
        }
        Ok(self.store.clone().filter(|_| !fits(self)))
    }

    /// Moves cold runs, but not those in `spared`, to disk until the state takes at most `bytes` of memory.
    fn shrink_to(&self, bytes: usize, spared: &[Arc<Run>]) -> Result<()> {
        while self.bytes() > bytes && self.move_one(spared)? {}
        Ok(())
    }

    /// Moves the coldest run to disk; `false` when there is none.
    fn move_one(&self, spared: &[Arc<Run>]) -> Result<bool> {
        let Some(store) = &self.store else { return Ok(false) };
        let Some(cold) = self.state.lock().coldest(spared) else { return Ok(false) };
        let moved = self.maintainer.order().rewrite(&cold, Some(store));
        let moved = moved.map_err(|err| err.with_context("moving a view's state to disk"))?;
        if let Some(moved) = moved {
            self.state.lock().swap(&cold, moved);
        }
        Ok(true)
    }

    /// The same on behalf of another rollup; `false` also while this one is busy.
    fn move_coldest(&self) -> Result<bool> {
        match self.upkeep.try_lock() {
            Some(_upkeep) => self.move_one(&[]),
            None => Ok(false),
        }
    }

    fn check_limit(&self) -> Result<()> {
        let (bytes, limit) = (self.bytes(), self.limit());
        if bytes <= limit {
            return Ok(());
        }
        let message = format!("the view's state takes {bytes} bytes, more than its memory_limit allows ({limit})");
        Err(Error::new(Kind::ResourceLimit, message)
            .with_hint("Group by fewer values, use larger windows, or create the view with a larger memory_limit."))
    }

    /// The state as of now: immutable, shared, a few dozen pointers.
    pub fn snapshot(&self) -> Vec<Arc<Run>> {
        self.state.lock().snapshot()
    }

    pub fn maintainer(&self) -> &Maintainer {
        &self.maintainer
    }

    /// Bytes of memory held by the state.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes()
    }

    /// Bytes of the state on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.state.lock().disk_bytes()
    }

    /// Bytes of memory that could move to disk.
    fn cold_bytes(&self) -> usize {
        self.state.lock().cold_bytes()
    }

    /// Partial rows held by the state.
    pub fn rows(&self) -> usize {
        self.state.lock().rows()
    }

    /// The newest pane with rows, in the unit of the pane column.
    pub fn newest_pane(&self) -> Option<i64> {
        self.state.lock().newest()
    }

    /// Forgets everything (before a replay, or for good).
    pub fn clear(&self) {
        self.state.lock().clear();
    }
}
