//! What is kept of a continuous query? A **rollup**: the partial-aggregate state of one maximal subtree
//!
//! ```text
//!     Aggregate ← [ window | Filter | Projection ]* ← one stream
//! ```
//!
//! of its plan, folded micro-batch by micro-batch. [`plan`] cuts a view's plan into rollups and the *finish plan* above
//! them; [`maintain`] folds rows into partial states and merges and finishes states, all with DataFusion's own
//! aggregate operators, so a view equals its batch query by construction; [`pane`] stores the states; [`window`] holds
//! the window arithmetic; [`watermark`] says how far event time has come, and [`timeliness`] which rows came in time.
//!
//! Pure: no files, no sockets, no clock. Time arrives as data.

pub mod hop;
pub mod maintain;
pub mod pane;
pub mod plan;
pub mod timeliness;
pub mod versions;
pub mod watermark;
pub mod window;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use maintain::Maintainer;
use pane::{Run, Runs};
use plan::Definition;
use timeliness::Timed;

/// One maintained aggregate: its definition, its operators and its state. Shared by all views with the same subtree.
pub struct Rollup {
    pub definition: Definition,
    maintainer: Maintainer,
    state: Mutex<Runs>,
    /// Held by whoever merges: two who picked the same runs would both put the result in their place.
    merging: Mutex<()>,
}

impl Rollup {
    /// An empty rollup. Fails when DataFusion cannot split the aggregate into partial and final.
    pub async fn new(definition: Definition, state: &datafusion::execution::SessionState) -> Result<Rollup> {
        let maintainer = Maintainer::new(&definition, state).await?;
        Ok(Rollup { definition, maintainer, state: Mutex::new(Runs::default()), merging: Mutex::default() })
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

    /// Merges small runs while there is something worth merging. Called by whoever adds runs; readers are not held up,
    /// because the merging itself happens outside the lock. Returns at once when another thread is at it: that one goes on
    /// until nothing is left.
    pub fn compact(&self) -> Result<()> {
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

    /// Bytes held by the state.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes()
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
