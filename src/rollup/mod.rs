//! What is kept of a continuous query? A **rollup**: the partial-aggregate state of one maximal subtree
//!
//! ```text
//!     Aggregate ← [ window | Filter | Projection | join with a reference table ]* ← one stream
//! ```
//!
//! of its plan, folded micro-batch by micro-batch. [`plan`] cuts a view's plan into rollups and the *finish plan* above
//! them ([`cut`] does it for one aggregate); [`maintain`] folds rows into partial states and merges and finishes states,
//! all with DataFusion's own aggregate operators, so a view equals its batch query by construction; [`pane`] stores the
//! states; [`window`], [`calendar`], [`spread`] and [`session`] hold what windows are, [`bucket`] the functions that name
//! them; [`watermark`] says how far event time has come, and [`timeliness`] which rows came in time; [`versions`] shows
//! what was corrected, [`lineage`] where a column comes from; [`reference`] holds the tables that rows are joined with
//! and [`lookup`] joins them.
//!
//! Pure: no files, no sockets, no clock. Time arrives as data.

pub mod bucket;
pub mod calendar;
pub mod cut;
pub mod lineage;
pub mod lookup;
pub mod maintain;
pub mod pane;
pub mod plan;
pub mod reference;
mod refuse;
pub mod session;
pub mod spread;
pub mod timeliness;
pub mod versions;
pub mod watermark;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::physical_planner::ExtensionPlanner;
use parking_lot::Mutex;

use crate::error::Result;
use crate::opaque::Opaque;
use maintain::Maintainer;
use pane::{Run, Runs};
use plan::Definition;
use reference::Reference;
use timeliness::Timed;

/// The planners of our operators, for DataFusion's.
pub fn planners() -> Vec<Arc<dyn ExtensionPlanner + Send + Sync>> {
    vec![Arc::new(spread::SpreadPlanner), Arc::new(session::SessionPlanner), Arc::new(lookup::LookupPlanner)]
}

/// One maintained aggregate: its definition, its operators and its state. Shared by all views with the same subtree.
pub struct Rollup {
    pub definition: Definition,
    maintainer: Opaque<Maintainer>,
    state: Mutex<Runs>,
    /// Held by whoever merges: two at once could put the same runs back twice.
    merging: Mutex<()>,
    /// Bytes that the views over it allow; 0 when none of them says.
    limit: AtomicU64,
    pub work: Work,
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
    /// An empty rollup. Fails when DataFusion cannot split the aggregate into partial and final.
    pub async fn new(definition: Definition, state: &datafusion::execution::SessionState) -> Result<Rollup> {
        let maintainer = Opaque::new(Maintainer::new(&definition, state).await?);
        Ok(Rollup {
            definition,
            maintainer,
            state: Mutex::default(),
            merging: Mutex::default(),
            limit: AtomicU64::new(0),
            work: Work::default(),
        })
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

    /// Merges small runs while there is something worth merging. Called by whoever adds runs; readers are not held up,
    /// because the merging itself happens outside the lock.
    pub fn compact(&self) -> Result<()> {
        // Whoever is merging now will find these runs as well.
        let Some(_merging) = self.merging.try_lock() else { return Ok(()) };
        loop {
            let Some(picked) = self.state.lock().pick() else { return Ok(()) };
            let merged = self.maintainer.merge(&picked)?;
            self.state.lock().replace(&picked, merged);
        }
    }

    /// The state as of now: immutable, shared, a few dozen pointers.
    pub fn snapshot(&self) -> Vec<Arc<Run>> {
        self.state.lock().snapshot()
    }

    pub fn maintainer(&self) -> &Maintainer {
        &self.maintainer
    }

    /// Takes note of a view's `memory_limit`: of views that share the state, the largest counts.
    pub fn allow(&self, limit: u64) {
        self.limit.fetch_max(limit, Ordering::Relaxed);
    }

    /// The largest `memory_limit` of its views, if one has any.
    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// Bytes held by the state.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes()
    }

    /// Runs held by the state.
    pub fn runs(&self) -> usize {
        self.state.lock().snapshot().len()
    }

    /// Partial rows held by the state.
    pub fn rows(&self) -> usize {
        self.state.lock().rows()
    }

    /// Forgets everything (before a replay).
    pub fn clear(&self) {
        *self.state.lock() = Runs::default();
    }
}
