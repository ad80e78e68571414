//! What is kept of a continuous query? A **rollup**: the partial-aggregate state of one maximal subtree
//!
//! ```text
//!     Aggregate ← [ window | Filter | Projection | join with a reference table ]* ← one stream
//!     Aggregate ← [ window | Filter | Projection ]* ← join of two streams by a key and time
//! ```
//!
//! of its plan, folded micro-batch by micro-batch. [`plan`] cuts a view's plan into rollups and the *finish plan* above
//! them ([`cut`] does it for one aggregate); [`maintain`] folds rows into partial states and merges and finishes states,
//! all with DataFusion's own aggregate operators, so a view equals its batch query by construction; [`pane`] keeps the
//! states as [`run`]s in memory or on disk; [`slice`] goes through large ones piece by piece and [`read`] does so for
//! queries; [`budget`] counts their memory; [`window`], [`calendar`], [`spread`], [`slide`] and [`session`] hold what windows are,
//! [`bucket`] the functions that name them; [`group`] folds rows of groups that repeat; [`watermark`] says how far event time has come, and [`timeliness`] which rows
//! came in time; [`versions`] shows what was corrected, [`lineage`] where a column comes from; [`reference`] holds the
//! tables that rows are joined with and [`lookup`] joins them; [`interval`] finds joins of two streams, [`join`] runs
//! them, and [`unmatched`] keeps what a LEFT JOIN has for rows without a match.
//!
//! Pure: no files, no sockets, no clock. Time arrives as data, and disk as a [`run::RunStore`].

pub mod bucket;
pub mod budget;
pub mod calendar;
pub mod cut;
pub mod group;
pub mod interval;
pub mod join;
pub mod lineage;
pub mod lookup;
pub mod maintain;
pub mod pane;
pub mod plan;
mod point;
pub mod read;
pub mod reference;
mod refuse;
pub mod run;
pub mod session;
pub mod slice;
pub mod slide;
pub mod spread;
#[cfg(test)]
mod tests;
pub mod timeliness;
pub mod unmatched;
pub mod versions;
pub mod watermark;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::physical_planner::ExtensionPlanner;
use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::time::Micros;
use budget::{Budget, Memory};
use maintain::Maintainer;
use pane::{Merge, Runs, Sizes};
use plan::Definition;
use reference::Reference;
use run::{Run, RunStore, SavedRun};
use timeliness::Timed;
use unmatched::{Pieces, Stale, Unmatched};

/// The planners of our operators, for DataFusion's.
pub fn planners() -> Vec<Arc<dyn ExtensionPlanner + Send + Sync>> {
    vec![Arc::new(spread::SpreadPlanner), Arc::new(session::SessionPlanner), Arc::new(lookup::LookupPlanner)]
}

/// Less than this is not enough to merge anything.
const LEAST_LIMIT: usize = 1 << 20;

/// When memory is short so much of the limit is made free, so that this does not happen again with the next batch.
const FREE_PART: usize = 8;

/// One maintained aggregate: its definition, its operators and its state. Shared by all views with the same subtree.
pub struct Rollup {
    pub definition: Definition,
    maintainer: Opaque<Maintainer>,
    state: Mutex<Runs>,
    /// What a LEFT JOIN of two streams has besides.
    unmatched: Mutex<Unmatched>,
    /// Held by whoever merges or moves runs; others may add and read meanwhile.
    upkeep: Mutex<()>,
    /// Bytes of memory that the state may take.
    limit: AtomicUsize,
    /// Windows that begin before it, and sessions that end before it, are no longer shown.
    expired: AtomicI64,
    closed: AtomicBool,
    /// Frames to fill it from and frames done, while it is filled.
    pub filling: Mutex<Option<(u64, u64)>>,
    store: Option<Arc<dyn RunStore>>,
    budget: Arc<Budget>,
    pub work: Work,
}

impl std::fmt::Debug for Rollup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rollup({})", self.definition.key)
    }
}

/// What a rollup has cost so far. Told by whoever drives it: a rollup reads no clock.
#[derive(Debug, Default)]
pub struct Work {
    pub rows: AtomicU64,
    pub batches: AtomicU64,
    fold_micros: AtomicU64,
    merge_micros: AtomicU64,
}

impl Work {
    pub fn folded(&self, rows: usize, took: Duration) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.fold_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn merged(&self, took: Duration) {
        self.merge_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// Time spent folding and merging.
    pub fn times(&self) -> (Duration, Duration) {
        let micros = |n: &AtomicU64| Duration::from_micros(n.load(Ordering::Relaxed));
        (micros(&self.fold_micros), micros(&self.merge_micros))
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
        let maintainer = Opaque::new(Maintainer::new(&definition, state, sizes).await?);
        let budget = Budget::unlimited();
        let state = Mutex::new(Runs::new(sizes, Arc::clone(&budget)));
        let unmatched = Mutex::new(Unmatched::new(&budget));
        let (upkeep, limit, work) = (Mutex::default(), AtomicUsize::new(usize::MAX), Work::default());
        let (expired, closed, filling) = (AtomicI64::new(i64::MIN), AtomicBool::new(false), Mutex::default());
        let store = None;
        Ok(Rollup {
            definition,
            maintainer,
            state,
            unmatched,
            upkeep,
            limit,
            expired,
            closed,
            filling,
            store,
            budget,
            work,
        })
    }

    /// The same with a limit: what does not fit moves to `memory`'s store.
    pub fn within(mut self, memory: &Memory, limit: u64) -> Arc<Rollup> {
        self.store = memory.store.clone();
        self.budget = Arc::clone(&memory.budget);
        self.state.get_mut().count_in(&memory.budget);
        self.unmatched.get_mut().count_in(&memory.budget);
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

    /// The partial states of those rows of a micro-batch that the rollup takes, each joined with the versions of
    /// reference tables that apply to it. Does not change the rollup: see [`Rollup::add`].
    pub fn fold(&self, timed: &Timed) -> Result<Option<Run>> {
        let lookups = self.maintainer.lookups();
        if lookups.is_empty() {
            return self.fold_with(timed, &[]);
        }
        let (stream, offsets, rows) = (&self.definition.stream, timed.offsets, timed.rows.num_rows());
        let changes = lookups.boundaries(stream, &offsets.range());
        let begins = std::iter::once(offsets.base).chain(changes.iter().copied());
        let ends = changes.iter().map(|&at| offsets.rows_before(at).saturating_sub(timed.first).min(rows));
        let (mut done, mut all): (usize, Option<Run>) = (0, None);
        for (begin, end) in begins.zip(ends.chain([rows])) {
            if end <= done {
                continue;
            }
            let tables = lookups.at(stream, begin)?;
            let run = timed.part(done..end, |part| self.fold_with(part, &tables))?;
            all = match (all, run) {
                (Some(all), Some(run)) => Some(all.with(run)),
                (all, run) => all.or(run),
            };
            done = end;
        }
        Ok(all)
    }

    fn fold_with(&self, timed: &Timed, tables: &[Arc<lookup::Table>]) -> Result<Option<Run>> {
        let window = self.definition.pane.map(|pane| pane.window).filter(|_| self.definition.late.is_some());
        match self.definition.timeliness.pick(timed, window, self.definition.lateness)? {
            Some(rows) => self.maintainer.fold(&rows, tables),
            None => Ok(None),
        }
    }

    /// The reference tables that its rows are joined with.
    pub fn references(&self) -> &[Arc<Reference>] {
        self.maintainer.lookups().references()
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
                let Some(merge) = self.state.lock().pick(limit) else { break };
                let store = self.make_room(&merge)?;
                let merged = self.maintainer.merge(&merge, store.as_ref(), self.limit())?;
                self.state.lock().replace(&merge, merged);
            }
            if self.bytes() > self.limit() {
                self.shrink_to(self.limit() - self.limit() / FREE_PART, &[])?;
                self.check_limit()?;
            }
        }
        self.budget.enforce()
    }

    /// Memory for the result of a merge, or the store that it has to go to.
    fn make_room(&self, merge: &Merge) -> Result<Option<Arc<dyn RunStore>>> {
        let room = self.limit().saturating_sub(merge.size());
        let fits = |rollup: &Rollup| {
            rollup.bytes() <= room && rollup.budget.used().saturating_add(merge.size()) <= rollup.budget.limit()
        };
        if self.store.is_some() && !fits(self) && merge.size() <= self.limit() / FREE_PART {
            self.shrink_to(room, &merge.runs)?;
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
        let Some(cold) = self.state.lock().coldest(spared) else { return self.move_unmatched(store) };
        if let Some(moved) = self.maintainer.order().rewrite(&cold, Some(store))? {
            self.state.lock().swap(&cold, moved);
        }
        Ok(true)
    }

    fn move_unmatched(&self, store: &Arc<dyn RunStore>) -> Result<bool> {
        let Some(cold) = self.unmatched.lock().coldest() else { return Ok(false) };
        if let Some(moved) = self.maintainer.order().rewrite(&cold, Some(store))? {
            self.unmatched.lock().swap(&cold, moved);
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
        self.snapshot_with_stale().0
    }

    /// The state as of now, and the parts of a LEFT JOIN that have to be computed again.
    pub fn snapshot_with_stale(&self) -> (Vec<Arc<Run>>, Vec<Stale>) {
        let mut runs = self.state.lock().snapshot();
        let unmatched = self.unmatched.lock();
        runs.extend(unmatched.runs().cloned());
        (runs, unmatched.stale())
    }

    /// What a LEFT JOIN of two streams has for rows without a match.
    pub fn unmatched(&self) -> MutexGuard<'_, Unmatched> {
        self.unmatched.lock()
    }

    /// Merges what is kept for rows without a match, up to an offset of the first stream before which little changes.
    pub fn compact_unmatched(&self, settled: u64) -> Result<()> {
        let _upkeep = self.upkeep.lock();
        loop {
            let Some(merging) = self.unmatched.lock().pick(settled) else { return Ok(()) };
            let merge = Merge::all(merging.runs.clone());
            let store = self.make_room(&merge)?;
            let runs = self.maintainer.merge(&merge, store.as_ref(), self.limit())?;
            self.unmatched.lock().merged(&merging, runs);
        }
    }

    /// The state as of now, for a checkpoint: its runs, and what a LEFT JOIN of two streams has besides.
    pub fn kept(&self) -> (Vec<Arc<Run>>, Pieces<Arc<Run>>) {
        (self.state.lock().snapshot(), self.unmatched.lock().kept())
    }

    /// Takes over the state of an earlier process. Runs stay on disk as far as they do not fit into the limit.
    pub fn restore(&self, saved: &[SavedRun], unmatched: Option<&Pieces<SavedRun>>) -> Result<()> {
        let store = self.store.as_deref().ok_or_else(|| Error::internal("a state was saved nowhere"))?;
        let mut room = self.limit().min(self.budget.share()) / 2;
        let mut restored = |saved: &SavedRun| -> Result<Run> {
            let cold = saved.size > room;
            let run = Run::restore(saved, store, cold)?;
            room = room.saturating_sub(if cold { 0 } else { saved.size });
            Ok(run)
        };
        // The newest panes are what most readers want.
        let mut runs = saved.iter().rev().map(&mut restored).collect::<Result<Vec<_>>>()?;
        runs.reverse();
        if let Some(kept) = unmatched {
            let budget = Arc::clone(&self.budget);
            let kept = kept.try_map(&mut |saved| Ok(Arc::new(restored(saved)?.charged(&budget))))?;
            self.unmatched.lock().restore(kept);
        }
        self.state.lock().restore(runs);
        Ok(())
    }

    /// Gives up windows that begin before `first`, and sessions that end before it. Readers do not show them from now on; their
    /// space is free once whole runs consist of such, or once enough sessions are old.
    pub fn expire(&self, first: Micros) -> Result<()> {
        let Some(pane) = self.definition.pane else { return Ok(()) };
        let first = self.expired.fetch_max(first, Ordering::Relaxed).max(first);
        let _upkeep = self.upkeep.lock();
        if pane.window.is_session() {
            let Some(merge) = self.state.lock().sweep(first.saturating_sub(1)) else { return Ok(()) };
            let store = self.make_room(&merge)?;
            let kept = self.maintainer.merge(&merge, store.as_ref(), self.limit())?;
            self.state.lock().replace(&merge, kept);
            return Ok(());
        }
        let unit = self.definition.schema.field(pane.column).data_type();
        let expired = |last| window::to_micros(unit, last).is_some_and(|last| last < first);
        self.state.lock().expire(&expired);
        self.unmatched.lock().expire(&expired);
        Ok(())
    }

    /// Windows that begin before it, and sessions that end before it, are no longer shown.
    pub fn expired(&self) -> Option<Micros> {
        Some(self.expired.load(Ordering::Relaxed)).filter(|first| *first > i64::MIN)
    }

    /// Its last reader is gone: filling it ends.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Fails once nobody needs it any more.
    pub fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Relaxed) {
            true => {
                Err(Error::new(Kind::Shutdown, "the view was dropped while it was being filled, or the server stops"))
            }
            false => Ok(()),
        }
    }

    pub fn maintainer(&self) -> &Maintainer {
        &self.maintainer
    }

    /// Bytes of memory held by the state.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes() + self.unmatched.lock().runs().map(|run| run.held()).sum::<usize>()
    }

    /// Runs held by the state.
    pub fn runs(&self) -> usize {
        self.snapshot().len()
    }

    /// Bytes of the state on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.state.lock().disk_bytes() + self.unmatched.lock().runs().map(|run| run.on_disk()).sum::<u64>()
    }

    /// Bytes of memory that could move to disk.
    fn cold_bytes(&self) -> usize {
        self.state.lock().cold_bytes()
    }

    /// Partial rows held by the state.
    pub fn rows(&self) -> usize {
        self.state.lock().rows() + self.unmatched.lock().runs().map(|run| run.rows).sum::<usize>()
    }

    /// The newest pane with rows, in the unit of the pane column.
    pub fn newest_pane(&self) -> Option<i64> {
        self.state.lock().newest()
    }

    /// Forgets everything (before a replay, or for good).
    pub fn clear(&self) {
        self.state.lock().clear();
        self.unmatched.lock().clear();
        self.maintainer.forget();
    }
}
