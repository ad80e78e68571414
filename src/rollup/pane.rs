//! The state of a rollup: runs of partial-aggregate rows, kept like a log-structured merge tree.
//!
//! ```text
//!     fold ──► fresh ──► open ─────► base      one run after the other in time; new rows do not touch them
//!                          └───────► late ──►  rows for panes that base runs cover, until they are worth a merge
//! ```
//!
//! Folding a micro-batch yields a small fresh run. Fresh runs are merged (by `AggregateMode::PartialReduce`, outside this
//! file) with open runs of like size, so the number of runs stays logarithmic. When a merge has grown large, all panes
//! but the newest leave `open`: those behind the last base run become the next base run, older ones become a late run.
//! Late runs are merged with each other, and with the base runs once they amount to a part of them: so a row that is
//! days late costs no more than others, base runs stay disjoint, and a reader that wants one hour skips all other
//! base runs. Without windows everything stays in `open`.
//!
//! Runs can be on disk (`run.rs`). When memory is short the coldest go first: base runs by age, then late, then the
//! largest open ones; fresh runs never.
//!
//! Always holds: the union of all runs is the state; merging and moving never change what a reader computes from it.

use std::sync::Arc;

use super::budget::Budget;
pub use super::run::Run;
use super::run::{Level, Panes};
use super::slice::Within;
use crate::mutation::limit;

/// Limits of a rollup's runs: fixed but for tests, which make them small.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Runs merged at once when small ones pile up.
    pub fan_in: usize,
    /// Rows (see [`Run::weight`]) at which older panes leave the open level. Small enough that one merge stays in the
    /// milliseconds (a merge does some 10 M rows/s), large enough that a year of minutes is a few thousand runs.
    pub seal: usize,
    /// Rows merged or finished at once. What this takes is in memory besides the state: some tens of MiB.
    pub slice_rows: usize,
    pub slice_bytes: usize,
    /// Rows written or read at once.
    pub block_rows: usize,
    pub block_bytes: usize,
    /// Base runs merged with late ones at once: each has a block in memory meanwhile.
    pub base_runs: usize,
    /// Reading fewer partial rows than this is not worth a second core.
    pub parallel: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            fan_in: 8,
            seal: limit(64 * 1024),
            slice_rows: 8 * limit(16 * 1024),
            slice_bytes: 16 << 20,
            block_rows: 8 * limit(1024),
            block_bytes: 512 << 10,
            base_runs: 16,
            parallel: limit(20_000),
        }
    }
}

impl Sizes {
    /// In how many slices to go through this much.
    pub fn slices(&self, rows: usize, bytes: usize) -> usize {
        rows.div_ceil(self.slice_rows).max(bytes.div_ceil(self.slice_bytes)).max(1)
    }
}

/// Late runs are merged into base runs when they have a fourth of their rows: each row is then merged a few times at
/// most, and readers look through a fourth more.
const LATE_PART: usize = 4;

/// Sessions that have expired are taken out when they are this part of all: a row is then rewritten a few times at most.
const OLD_PART: usize = 4;

/// Fresh runs may take this part of a rollup's limit; only they cannot be moved to disk.
const FRESH_PART: usize = 4;

/// All runs of one rollup.
#[derive(Debug)]
pub struct Runs {
    sizes: Sizes,
    budget: Arc<Budget>,
    /// From folding, oldest first.
    fresh: Vec<Arc<Run>>,
    /// Results of merging that new rows may still touch; larger ones mostly come first.
    open: Vec<Arc<Run>>,
    late: Vec<Arc<Run>>,
    /// By pane; no pane is in two of them.
    base: Vec<Arc<Run>>,
}

/// Runs to be merged, and where the result goes.
#[derive(Debug)]
pub struct Merge {
    /// These are replaced by the result.
    pub runs: Vec<Arc<Run>>,
    pub steps: Vec<Step>,
}

/// One merge.
#[derive(Debug)]
pub struct Step {
    pub runs: Vec<Arc<Run>>,
    /// Of the runs only these panes.
    pub within: Option<Within>,
    /// Of what comes out, panes up to this one are left out: they have expired.
    pub gone: Option<i64>,
    /// Panes up to the given one go to that level, in ascending order.
    pub cuts: Vec<(i64, Level)>,
    /// Where later panes, and rows without a pane, go.
    pub rest: Level,
}

impl Merge {
    /// All of these into one, which takes new rows as they did.
    pub fn all(runs: Vec<Arc<Run>>) -> Merge {
        Merge::one(runs, vec![], Level::Open)
    }

    fn one(runs: Vec<Arc<Run>>, cuts: Vec<(i64, Level)>, rest: Level) -> Merge {
        Merge { steps: vec![Step { runs: runs.clone(), within: None, gone: None, cuts, rest }], runs }
    }

    /// At most this many bytes come out.
    pub fn size(&self) -> usize {
        self.runs.iter().map(|r| r.size).sum()
    }
}

impl Runs {
    pub fn new(sizes: Sizes, budget: Arc<Budget>) -> Runs {
        Runs { sizes, budget, fresh: Vec::new(), open: Vec::new(), late: Vec::new(), base: Vec::new() }
    }

    /// Counts the memory of runs to come in `budget`.
    pub fn count_in(&mut self, budget: &Arc<Budget>) {
        self.budget = Arc::clone(budget);
    }

    pub fn push(&mut self, run: Run) {
        if run.rows > 0 {
            self.fresh.push(Arc::new(run.charged(&self.budget)));
        }
    }

    /// All runs, base runs first and by pane.
    pub fn snapshot(&self) -> Vec<Arc<Run>> {
        self.all().cloned().collect()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.all().map(|r| r.held()).sum()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.all().map(|r| r.on_disk()).sum()
    }

    pub fn rows(&self) -> usize {
        self.all().map(|r| r.rows).sum()
    }

    /// The newest pane of any row.
    pub fn newest(&self) -> Option<i64> {
        self.all().filter_map(|r| r.panes.newest()).max()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.base.iter().chain(&self.late).chain(&self.open).chain(&self.fresh)
    }

    /// What should be merged now, if anything. `limit`: bytes of memory that the rollup may take.
    pub fn pick(&self, limit: usize) -> Option<Merge> {
        self.pick_fresh(limit).or_else(|| self.pick_late())
    }

    fn pick_fresh(&self, limit: usize) -> Option<Merge> {
        let weight: usize = weight(&self.fresh);
        let held: usize = self.fresh.iter().map(|r| r.held()).sum();
        let large = weight >= self.sizes.seal || held > limit / FRESH_PART;
        if self.fresh.is_empty() || (self.fresh.len() < self.sizes.fan_in && !large) {
            return None;
        }
        // Take along the open runs of like size: each row is then merged a logarithmic number of times.
        let mut picked = self.fresh.clone();
        let mut size = weight;
        for run in self.open.iter().rev() {
            if run.weight() > 2 * size {
                break;
            }
            size += run.weight();
            picked.push(Arc::clone(run));
        }
        let newest = picked.iter().filter_map(|r| r.panes.newest()).max();
        let (Some(newest), true) = (newest, size > self.sizes.seal) else {
            return Some(Merge::one(picked, vec![], Level::Open));
        };
        if picked.iter().all(|r| r.panes.first >= newest) {
            return Some(Merge::one(picked, vec![], Level::Open));
        }
        // Older panes leave: with all that is open of them.
        for run in &self.open {
            if run.panes.first < newest && !picked.iter().any(|p| Arc::ptr_eq(p, run)) {
                picked.push(Arc::clone(run));
            }
        }
        let before = newest.saturating_sub(1);
        let mut cuts = Vec::new();
        if let Some(covered) = self.base.last() {
            cuts.push((covered.panes.last.min(before), Level::Late));
        }
        cuts.push((before, Level::Base));
        Some(Merge::one(picked, cuts, Level::Open))
    }

    fn pick_late(&self) -> Option<Merge> {
        let total = weight(&self.late);
        let range = self.late.iter().fold(Panes::NONE, |all, run| all.with(run.panes));
        let touched: Vec<_> = self.base.iter().filter(|b| b.panes.overlap(&range)).collect();
        if total >= self.sizes.seal && total * LATE_PART >= touched.iter().map(|b| b.weight()).sum() {
            return Some(self.merge_late());
        }
        if self.late.len() < self.sizes.fan_in {
            return None;
        }
        let mut by_size = self.late.clone();
        by_size.sort_by_key(|r| r.weight());
        let mut size = 0;
        let like = by_size.into_iter().enumerate().take_while(|(i, run)| {
            let fits = *i < 2 || run.weight() <= 2 * size;
            size += run.weight();
            fits
        });
        Some(Merge::one(like.map(|(_, run)| run).collect(), vec![], Level::Late))
    }

    /// Late rows join the base runs that they belong to, some base runs at a time. Panes between two base runs go to the
    /// later one.
    fn merge_late(&self) -> Merge {
        let mut merge = Merge { runs: self.late.clone(), steps: Vec::new() };
        let mut first = i64::MIN;
        let groups = self.base.chunks(self.sizes.base_runs.max(1));
        let count = groups.len();
        for (i, group) in groups.enumerate() {
            let end = group.last().map_or(i64::MAX, |b| b.panes.last);
            // Nothing lies behind the last base run; but if something did it must not get lost.
            let end = if i + 1 == count { i64::MAX } else { end };
            let within = Within { first, last: end, timeless: i + 1 == count };
            let start = std::mem::replace(&mut first, end.saturating_add(1));
            let late: Vec<_> = self.late.iter().filter(|r| within.wants(&r.panes)).cloned().collect();
            if late.is_empty() {
                continue;
            }
            let cuts = self.cut_at(group, &late, start);
            merge.runs.extend(group.iter().cloned());
            let runs = late.into_iter().chain(group.iter().cloned()).collect();
            merge.steps.push(Step { runs, within: Some(within), gone: None, cuts, rest: Level::Base });
        }
        if count == 0 {
            return Merge::one(self.late.clone(), vec![], Level::Base);
        }
        merge
    }

    /// Where to cut base runs that late rows join: where they end, and within one that has grown large (an old log was
    /// read into a view after a new one) in equal lengths of time.
    fn cut_at(&self, group: &[Arc<Run>], late: &[Arc<Run>], mut start: i64) -> Vec<(i64, Level)> {
        let mut cuts = Vec::new();
        for base in group {
            let mine = Panes::of(start, base.panes.last);
            let (mut weight, mut range) = (base.weight() as f64, base.panes);
            for run in late.iter().filter(|r| r.panes.overlap(&mine)) {
                let own = Panes::of(run.panes.first.max(mine.first), run.panes.last.min(mine.last));
                let part = (width(own) / width(run.panes)).min(1.0);
                weight += run.weight() as f64 * part;
                range = range.with(own);
            }
            let pieces = (weight / self.sizes.seal as f64 / 2.0).clamp(1.0, 64.0) as i128;
            let length = i128::from(range.last) - i128::from(range.first);
            for piece in 1..pieces {
                cuts.push((range.first + (length * piece / pieces) as i64, Level::Base));
            }
            cuts.push((base.panes.last, Level::Base));
            start = base.panes.last.saturating_add(1);
        }
        // Behind the last cut comes the rest.
        cuts.pop();
        cuts.dedup_by_key(|(last, _)| *last);
        cuts
    }

    /// Puts the result of `merge` in the place of its runs. Nothing happens when they are gone (the state was cleared).
    pub fn replace(&mut self, merge: &Merge, merged: Vec<Run>) {
        let there = |run: &Arc<Run>| self.all().any(|r| Arc::ptr_eq(r, run));
        if !merge.runs.iter().all(there) {
            return;
        }
        let gone = |run: &Arc<Run>| merge.runs.iter().any(|w| Arc::ptr_eq(w, run));
        for level in [&mut self.fresh, &mut self.open, &mut self.late, &mut self.base] {
            level.retain(|run| !gone(run));
        }
        for run in merged {
            let run = Arc::new(run.charged(&self.budget));
            match run.level {
                Level::Fresh => self.fresh.push(run),
                Level::Open => self.open.push(run),
                Level::Late => self.late.push(run),
                Level::Base => {
                    let at = self.base.partition_point(|b| b.panes.first < run.panes.first);
                    self.base.insert(at, run);
                }
            }
        }
    }

    /// Puts runs of an earlier process where they were.
    pub fn restore(&mut self, runs: Vec<Run>) {
        self.replace(&Merge::one(vec![], vec![], Level::Open), runs);
    }

    /// Sessions that have ended up to `gone` are to go, once runs that hold only such pieces are a part of all that is worth
    /// it. But a piece may be of a session that goes on in another run: only when all are merged is that known.
    pub fn sweep(&self, gone: i64) -> Option<Merge> {
        let runs = self.snapshot();
        let is_old = |run: &&Arc<Run>| !run.panes.timeless && run.panes.last <= gone;
        let old: usize = runs.iter().filter(is_old).map(|run| run.weight()).sum();
        if old == 0 || old * OLD_PART < weight(&runs) {
            return None;
        }
        let kept = self.base.iter().map(|base| base.panes.last).filter(|last| *last > gone);
        let mut merge = Merge::one(runs, kept.map(|last| (last, Level::Base)).collect(), Level::Open);
        merge.steps.iter_mut().for_each(|step| step.gone = Some(gone));
        Some(merge)
    }

    /// Lets go of the runs whose last pane has `expired`.
    pub fn expire(&mut self, expired: &dyn Fn(i64) -> bool) {
        for level in [&mut self.fresh, &mut self.open, &mut self.late, &mut self.base] {
            level.retain(|run| !run.panes.have_expired(expired));
        }
    }

    /// The run in memory that is needed least, but for fresh ones and those in `spared`.
    pub fn coldest(&self, spared: &[Arc<Run>]) -> Option<Arc<Run>> {
        let free = |run: &&Arc<Run>| run.in_memory() && !spared.iter().any(|s| Arc::ptr_eq(s, run));
        let largest = |runs: &[Arc<Run>]| runs.iter().filter(free).max_by_key(|r| r.size).cloned();
        self.base.iter().find(free).cloned().or_else(|| largest(&self.late)).or_else(|| largest(&self.open))
    }

    /// Bytes of memory that could be moved to disk.
    pub fn cold_bytes(&self) -> usize {
        self.base.iter().chain(&self.late).chain(&self.open).map(|r| r.held()).sum()
    }

    /// Puts `new`, which has the same rows, in the place of `old`. Nothing happens when that is gone.
    pub fn swap(&mut self, old: &Arc<Run>, new: Run) {
        let levels = [&mut self.open, &mut self.late, &mut self.base];
        let place = levels.into_iter().flatten().find(|run| Arc::ptr_eq(run, old));
        if let Some(place) = place {
            *place = Arc::new(new.charged(&self.budget));
        }
    }

    pub fn clear(&mut self) {
        *self = Runs::new(self.sizes, Arc::clone(&self.budget));
    }
}

fn weight(runs: &[Arc<Run>]) -> usize {
    runs.iter().map(|r| r.weight()).sum()
}

fn width(panes: Panes) -> f64 {
    panes.last as f64 - panes.first as f64 + 1.0
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    const SEAL: usize = 4096;

    fn runs() -> Runs {
        Runs::new(Sizes { seal: SEAL, base_runs: 4, ..Sizes::default() }, Budget::unlimited())
    }

    /// A run of rows with these panes and nothing else; without a window if `windowed` is false.
    fn run_at(panes: Vec<i64>, level: Level, windowed: bool) -> Run {
        let range = match windowed {
            true => panes.iter().fold(Panes::NONE, |all, &pane| all.with(Panes::of(pane, pane))),
            false => Panes::ALL,
        };
        let schema = Schema::new(vec![Field::new("pane", DataType::Int64, false)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(panes))]).unwrap();
        let mut run = Run::new(vec![batch], range);
        run.level = level;
        run
    }

    fn run(panes: impl IntoIterator<Item = i64>) -> Run {
        run_at(panes.into_iter().collect(), Level::Fresh, true)
    }

    fn panes_of(run: &Run) -> Vec<i64> {
        run.block(0).unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    /// Merging that keeps every row: the worst case.
    fn merge(merge: &Merge) -> Vec<Run> {
        let mut merged = Vec::new();
        for step in &merge.steps {
            let windowed = step.runs[0].panes != Panes::ALL;
            let mut outputs = vec![Vec::new(); step.cuts.len() + 1];
            for pane in step.runs.iter().flat_map(|r| panes_of(r)) {
                if step.within.is_none_or(|w| w.first <= pane && pane <= w.last) {
                    outputs[step.cuts.partition_point(|(last, _)| *last < pane)].push(pane);
                }
            }
            let levels = step.cuts.iter().map(|(_, level)| *level).chain([step.rest]);
            let runs = outputs.into_iter().zip(levels).filter(|(panes, _)| !panes.is_empty());
            merged.extend(runs.map(|(panes, level)| run_at(panes, level, windowed)));
        }
        merged
    }

    /// Merges while there is something to merge; returns the rows merged.
    fn settle(runs: &mut Runs) -> usize {
        let mut merged_rows = 0;
        while let Some(picked) = runs.pick(usize::MAX) {
            let before = runs.rows();
            merged_rows += picked.runs.iter().map(|r| r.rows).sum::<usize>();
            let merged = merge(&picked);
            runs.replace(&picked, merged);
            assert_eq!(runs.rows(), before, "rows got lost");
            let apart = runs.base.windows(2).all(|b| b[0].panes.last < b[1].panes.first);
            assert!(apart, "base runs overlap: {:?}", runs.base);
        }
        merged_rows
    }

    #[test]
    fn runs_stay_few_and_rows_are_merged_a_few_times() {
        let mut runs = runs();
        let (mut added, mut merged) = (0, 0);
        for i in 0..5_000 {
            runs.push(run([i; 60]));
            added += 60;
            merged += settle(&mut runs);
        }
        assert_eq!(runs.rows(), added);
        assert!(merged < added * 8, "each row was merged {} times", merged / added);
        assert!(runs.open.len() + runs.fresh.len() + runs.late.len() < 32);
        assert!((30..100).contains(&runs.base.len()), "{} base runs", runs.base.len());
    }

    #[test]
    fn late_runs_over_the_same_panes_are_merged() {
        let mut runs = runs();
        for _ in 0..40 {
            runs.push(run((0..11).flat_map(|pane| [pane; SEAL / 11 + 1])));
            settle(&mut runs);
        }
        assert!(runs.all().count() < 16, "{runs:?}");
    }

    #[test]
    fn without_windows_runs_grow_in_steps() {
        let mut runs = runs();
        let (mut added, mut merged) = (0, 0);
        for _ in 0..2000 {
            runs.push(run_at(vec![0; 500], Level::Fresh, false));
            added += 500;
            merged += settle(&mut runs);
            assert!(runs.all().count() < 24, "{runs:?}");
        }
        assert!(merged < added * 16, "each row was merged {} times", merged / added);
    }

    /// Each batch has one row from long ago. History must not be merged again and again for it.
    #[test]
    fn far_late_rows_are_cheap() {
        let mut runs = runs();
        let (mut added, mut merged) = (0, 0);
        for i in 0..3000i64 {
            let late = (i * 7919) % (i * 10 + 1);
            runs.push(run((0..200).map(|n| i * 10 + n / 20).chain([late])));
            added += 201;
            merged += settle(&mut runs);
        }
        assert!(merged < added * 8, "each row was merged {} times", merged / added);
        assert!(runs.base.len() > 50, "history is one lump: {runs:?}");
        assert!(runs.late.len() + runs.open.len() + runs.fresh.len() < 40, "{runs:?}");
    }

    /// An old log is read into a view that has newer rows already.
    #[test]
    fn history_that_comes_later_is_cut_by_time_too() {
        let mut runs = runs();
        let (mut added, mut merged) = (0, 0);
        for i in (1_000_000..1_000_300).chain(0..1000) {
            runs.push(run([i; 200]));
            added += 200;
            merged += settle(&mut runs);
        }
        assert!(merged < added * 16, "each row was merged {} times", merged / added);
        let largest = runs.base.iter().map(|r| r.rows).max().unwrap();
        assert!(largest < 10 * SEAL, "{runs:?}");
    }

    #[test]
    fn the_coldest_is_the_oldest_pane_and_never_fresh() {
        let mut runs = runs();
        for i in 0..300i64 {
            runs.push(run([i; 60]));
            settle(&mut runs);
        }
        let first = runs.coldest(&[]).unwrap();
        assert_eq!(first.panes.first, 0);
        let second = runs.coldest(&[Arc::clone(&first)]).unwrap();
        assert_eq!(second.panes.first, first.panes.last + 1);
        let all = runs.snapshot();
        assert!(runs.coldest(&all).is_none());
        let fresh: usize = runs.fresh.iter().map(|r| r.held()).sum();
        assert_eq!(runs.cold_bytes() + fresh, runs.bytes());
    }

    #[test]
    fn a_small_limit_makes_fresh_runs_go_on() {
        let mut runs = runs();
        runs.push(run([0; 100]));
        assert!(runs.pick(usize::MAX).is_none());
        assert!(runs.pick(2000).is_some());
    }

    #[test]
    fn what_has_expired_is_swept_out_when_it_is_worth_it() {
        let mut runs = runs();
        for i in 0..300i64 {
            runs.push(run([i; 60]));
            settle(&mut runs);
        }
        assert!(runs.sweep(-1).is_none());
        let old = |gone: i64| runs.all().filter(|run| run.panes.last <= gone).map(|run| run.weight()).sum::<usize>();
        let enough = (0..300).find(|gone| runs.sweep(*gone).is_some()).unwrap();
        assert!(old(enough) * 4 >= old(300) && old(enough - 1) * 4 < old(300), "a fourth of all");
        let picked = runs.sweep(150).unwrap();
        let [Step { gone: Some(150), cuts, .. }] = picked.steps.as_slice() else { panic!("{picked:?}") };
        assert!(cuts.iter().all(|(last, level)| *last > 150 && *level == Level::Base), "{cuts:?}");
        assert_eq!(picked.runs.len(), runs.all().count(), "pieces may be anywhere");
    }

    #[test]
    fn the_result_for_a_cleared_state_is_dropped() {
        let mut runs = runs();
        (0..8).for_each(|_| runs.push(run([0; 10])));
        let picked = runs.pick(usize::MAX).unwrap();
        runs.clear();
        runs.push(run([0]));
        runs.replace(&picked, merge(&picked));
        assert_eq!(runs.rows(), 1);
    }
}
