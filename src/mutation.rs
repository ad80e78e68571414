//! Would the tests notice? Named faults that a test switches on, and limits that a test lowers so that small data gets to
//! code that otherwise only large data reaches.
//!
//! Without the feature `mutations`, which only tests turn on, no fault can be on and every limit is the one its owner
//! names: the compiler sees constants and nothing of this is left.

/// A fault of the kind that this engine could have: each is asked for at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A fold does not see the last row of its micro-batch.
    FoldDropsLastRow,
    /// Merging forgets the oldest of the runs it was given.
    MergeForgetsARun,
    /// Sealing loses the group just before the boundary.
    SealLosesAGroup,
    /// A reader of some windows leaves out the oldest pane of a hop.
    PaneOffByOne,
    /// A window that is made from the one before it lacks the pane that has come since.
    SlideForgetsAPane,
    /// A row is not put into the oldest of its windows, in views and batches alike.
    HopForgetsOldestWindow,
    /// Rows behind the watermark are not folded.
    LateRowLost,
    /// Rows of closed windows are folded into views that announce each window once.
    LateRowAnnounced,
    /// Filling a view folds the newest chunk twice.
    DoubleCountOnBackfill,
    /// Two views of the same groups and aggregates share a rollup whatever their filters.
    SharingIgnoresFilters,
    /// Rows that are read from the log again lack the last of each record.
    ColdChunkLosesARow,
    /// A restart does not replay the last record.
    ReplayForgetsLastRecord,
    /// A row is not put into the first window that it cumulates in, in views and batches alike.
    CumulateForgetsFirstStep,
    /// A row just when a session ends still belongs to it, in views and batches alike.
    SessionTakesItsEnd,
    /// Calendar windows are those of UTC, in views and batches alike.
    ZoneForgotten,
    /// A lookup does not find the last row of its reference table.
    LookupForgetsARow,
    /// Windows are announced before they close.
    OpenWindowShown,
    /// Late rows are not counted.
    RevisionNotCounted,
    /// Subscribers are not told of rows.
    SubscriberMissesAChange,
}

/// Every fault.
pub static MUTATIONS: &[Mutation] = &[
    Mutation::FoldDropsLastRow,
    Mutation::MergeForgetsARun,
    Mutation::SealLosesAGroup,
    Mutation::PaneOffByOne,
    Mutation::SlideForgetsAPane,
    Mutation::HopForgetsOldestWindow,
    Mutation::LateRowLost,
    Mutation::LateRowAnnounced,
    Mutation::DoubleCountOnBackfill,
    Mutation::SharingIgnoresFilters,
    Mutation::ColdChunkLosesARow,
    Mutation::ReplayForgetsLastRecord,
    Mutation::CumulateForgetsFirstStep,
    Mutation::SessionTakesItsEnd,
    Mutation::ZoneForgotten,
    Mutation::LookupForgetsARow,
    Mutation::OpenWindowShown,
    Mutation::RevisionNotCounted,
    Mutation::SubscriberMissesAChange,
];

/// Whether the engine is to have this fault now.
#[inline(always)]
pub fn on(mutation: Mutation) -> bool {
    active::mutation() == mutation as u8 + 1
}

/// `value`, or a small number while a test wants limits to be reached early.
#[inline(always)]
pub fn limit(value: usize) -> usize {
    match active::limit() {
        0 => value,
        small => value.min(small),
    }
}

#[cfg(not(feature = "mutations"))]
mod active {
    #[inline(always)]
    pub const fn mutation() -> u8 {
        0
    }

    #[inline(always)]
    pub const fn limit() -> usize {
        0
    }
}

#[cfg(feature = "mutations")]
pub use active::{lower_limits, switch};

#[cfg(feature = "mutations")]
mod active {
    use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

    use super::Mutation;

    /// 0: none; else the fault's number plus one.
    static MUTATION: AtomicU8 = AtomicU8::new(0);
    /// 0: limits are as their owners name them.
    static LIMIT: AtomicUsize = AtomicUsize::new(0);

    /// Gives all engines of this process a fault, or takes it away.
    pub fn switch(mutation: Option<Mutation>) {
        MUTATION.store(mutation.map_or(0, |m| m as u8 + 1), Ordering::SeqCst);
    }

    /// Lowers the limits of all engines of this process; `None` puts them back.
    pub fn lower_limits(to: Option<usize>) {
        LIMIT.store(to.map_or(0, |n| n.max(1)), Ordering::SeqCst);
    }

    pub fn mutation() -> u8 {
        MUTATION.load(Ordering::Relaxed)
    }

    pub fn limit() -> usize {
        LIMIT.load(Ordering::Relaxed)
    }
}
