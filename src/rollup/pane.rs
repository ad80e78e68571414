//! The state of a rollup: runs of partial-aggregate rows, kept like a log-structured merge tree.
//!
//! Folding a micro-batch yields a small [`Run`]; runs are merged (by `AggregateMode::PartialReduce`, outside this
//! file) so that their number stays logarithmic. Each run knows the range of panes (window starts) it covers. Old panes
//! that no new rows touch end up in *sealed* runs, which are not merged again unless late rows pile up on them: so the
//! work per row does not grow with the age of the stream, and a reader that wants one hour skips all other runs.
//!
//! Always holds: the union of all runs is the state; merging never changes what a reader computes from it.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::mutation::limit;

/// Runs merged at once when small ones pile up.
const FAN_IN: usize = 8;

/// A merged run of more rows than this is sealed up to its last pane. Small enough that one merge stays in the
/// milliseconds (a merge does some 10 M rows/s), large enough that a year of minutes is a few thousand runs.
pub const SEAL_ROWS: usize = 64 * 1024;

/// Partial-aggregate rows: group columns, then the states of the aggregates.
#[derive(Debug)]
pub struct Run {
    pub batches: Vec<RecordBatch>,
    pub rows: usize,
    pub bytes: usize,
    /// Smallest and largest pane (in the unit of the pane column); `i64::MIN, i64::MAX` without a window.
    pub panes: (i64, i64),
}

impl Run {
    pub fn new(batches: Vec<RecordBatch>, panes: (i64, i64)) -> Run {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        Run { batches, rows, bytes, panes }
    }

    /// Both runs as one.
    pub fn with(mut self, other: Run) -> Run {
        self.batches.extend(other.batches);
        let panes = (self.panes.0.min(other.panes.0), self.panes.1.max(other.panes.1));
        Run::new(self.batches, panes)
    }

    fn overlaps(&self, other: &Run) -> bool {
        self.panes.0 <= other.panes.1 && other.panes.0 <= self.panes.1
    }
}

/// All runs of one rollup.
#[derive(Debug, Default)]
pub struct Runs {
    /// Fresh from folding, oldest first.
    fresh: Vec<Arc<Run>>,
    /// Results of merging that new rows may still touch.
    merged: Vec<Arc<Run>>,
    /// Old panes.
    sealed: Vec<Arc<Run>>,
}

/// What a merge of picked runs became: the part behind the last pane boundary, and the sealed rest.
pub struct Merged {
    pub open: Option<Run>,
    pub sealed: Option<Run>,
}

impl Runs {
    pub fn push(&mut self, run: Run) {
        if run.rows > 0 {
            self.fresh.push(Arc::new(run));
        }
    }

    pub fn snapshot(&self) -> Vec<Arc<Run>> {
        self.all().cloned().collect()
    }

    pub fn bytes(&self) -> usize {
        self.all().map(|r| r.bytes).sum()
    }

    pub fn rows(&self) -> usize {
        self.all().map(|r| r.rows).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.sealed.iter().chain(&self.merged).chain(&self.fresh)
    }

    /// Runs that should be merged now, if any.
    pub fn pick(&self) -> Option<Vec<Arc<Run>>> {
        let fresh_rows: usize = self.fresh.iter().map(|r| r.rows).sum();
        if self.fresh.len() >= FAN_IN || fresh_rows >= limit(SEAL_ROWS) {
            // Take along the merged runs of like size: each row is then merged a logarithmic number of times.
            let mut picked: Vec<_> = self.fresh.clone();
            let mut size = fresh_rows;
            for run in self.merged.iter().rev() {
                if run.rows > 2 * size {
                    break;
                }
                size += run.rows;
                picked.push(run.clone());
            }
            return (picked.len() > 1 || fresh_rows >= limit(SEAL_ROWS)).then_some(picked);
        }
        // Late rows that piled up as sealed runs over the same panes.
        let last = self.sealed.last()?;
        let crowd: Vec<_> =
            self.sealed.iter().filter(|r| r.overlaps(last) && r.rows <= 2 * last.rows.max(limit(SEAL_ROWS))).collect();
        (crowd.len() >= FAN_IN).then(|| crowd.into_iter().cloned().collect())
    }

    /// Puts the result of merging `picked` in their place.
    pub fn replace(&mut self, picked: &[Arc<Run>], merged: Merged) {
        let gone = |run: &Arc<Run>| picked.iter().any(|p| Arc::ptr_eq(p, run));
        self.fresh.retain(|r| !gone(r));
        self.merged.retain(|r| !gone(r));
        self.sealed.retain(|r| !gone(r));
        self.sealed.extend(merged.sealed.filter(|r| r.rows > 0).map(Arc::new));
        self.merged.extend(merged.open.filter(|r| r.rows > 0).map(Arc::new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: usize, panes: (i64, i64)) -> Run {
        Run { batches: vec![], rows, bytes: rows * 10, panes }
    }

    /// Merging that keeps every row: the worst case.
    fn settle(runs: &mut Runs) -> usize {
        let mut merged_rows = 0;
        while let Some(picked) = runs.pick() {
            let rows: usize = picked.iter().map(|r| r.rows).sum();
            merged_rows += rows;
            let lo = picked.iter().map(|r| r.panes.0).min().unwrap();
            let hi = picked.iter().map(|r| r.panes.1).max().unwrap();
            let result = if rows > SEAL_ROWS {
                Merged { open: None, sealed: Some(run(rows, (lo, hi))) }
            } else {
                Merged { open: Some(run(rows, (lo, hi))), sealed: None }
            };
            runs.replace(&picked, result);
        }
        merged_rows
    }

    #[test]
    fn runs_stay_few_and_rows_are_merged_a_few_times() {
        let mut runs = Runs::default();
        let (mut added, mut merged) = (0, 0);
        for i in 0..5_000i64 {
            runs.push(run(1000, (i, i)));
            added += 1000;
            merged += settle(&mut runs);
        }
        assert_eq!(runs.rows(), added);
        assert!(merged < added * 8, "each row was merged {} times", merged / added);
        assert!(runs.merged.len() + runs.fresh.len() < 32);
    }

    #[test]
    fn late_runs_over_the_same_panes_are_merged() {
        let mut runs = Runs::default();
        for _ in 0..40 {
            runs.push(run(SEAL_ROWS + 1, (0, 10)));
            settle(&mut runs);
        }
        assert!(runs.sealed.len() < 16, "{} sealed runs", runs.sealed.len());
    }
}
