//! What a LEFT JOIN of two streams has for rows of the first stream that no row of the second matches.
//!
//! A row of the second stream may come that matches one of them, at any time, and partial states cannot be taken back. So
//! they are kept per piece of the first stream (a chunk of it, or several): such a row makes the state of one piece
//! *stale*, and a stale piece is computed again from the rows of both streams: by a reader, or once the second stream's
//! watermark has passed what could match.
//!
//! Pieces without a change are merged with their neighbours, two of the same length each time, up to
//! [`MOST_CHUNKS`]: so they stay few, and computing one again stays a matter of a second.
//!
//! A piece reaches to the next one, whatever chunks there are meanwhile: the archive cuts its rows otherwise, and after a
//! restart so does the log. A chunk may lie in a piece, but never in two.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::run::{Level, Run};
use crate::error::Result;

/// Chunks of the first stream in one piece at most.
const MOST_CHUNKS: usize = 64;

/// Runs of one piece that are merged at once.
const FAN_IN: usize = 8;

/// All pieces of one rollup, by the offset of the first row.
#[derive(Debug)]
pub struct Unmatched {
    pieces: BTreeMap<u64, Piece>,
    /// The last piece ends before this offset.
    end: u64,
    budget: Arc<Budget>,
}

/// All pieces, as a checkpoint takes them (`R` is a run) and keeps them (`R` is what it notes of a run).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pieces<R> {
    end: u64,
    pieces: Vec<KeptRuns<R>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KeptRuns<R> {
    from: u64,
    chunks: usize,
    /// `None`: stale.
    runs: Option<Vec<R>>,
}

impl<R> Pieces<R> {
    pub fn runs(&self) -> impl Iterator<Item = &R> {
        self.pieces.iter().filter_map(|piece| piece.runs.as_ref()).flatten()
    }

    /// The same with something else for each run.
    pub fn try_map<S>(&self, of: &mut dyn FnMut(&R) -> Result<S>) -> Result<Pieces<S>> {
        let piece = |piece: &KeptRuns<R>| {
            let runs = piece.runs.as_ref().map(|runs| runs.iter().map(&mut *of).collect::<Result<Vec<S>>>());
            Ok(KeptRuns { from: piece.from, chunks: piece.chunks, runs: runs.transpose()? })
        };
        Ok(Pieces { end: self.end, pieces: self.pieces.iter().map(piece).collect::<Result<_>>()? })
    }
}

#[derive(Debug)]
struct Piece {
    /// Changes with the piece.
    version: u64,
    chunks: usize,
    /// `None`: stale.
    runs: Option<Vec<Arc<Run>>>,
}

/// A piece that has to be computed again: rows of the first stream from one offset up to before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    pub from: u64,
    pub to: u64,
    version: u64,
}

/// Runs that are to be merged into one.
pub struct Merging {
    pub runs: Vec<Arc<Run>>,
    /// The pieces that they are all of, with their versions.
    pieces: Vec<(u64, u64)>,
}

impl Unmatched {
    pub fn new(budget: &Arc<Budget>) -> Unmatched {
        Unmatched { pieces: BTreeMap::new(), end: 0, budget: Arc::clone(budget) }
    }

    pub fn count_in(&mut self, budget: &Arc<Budget>) {
        self.budget = Arc::clone(budget);
    }

    /// Rows up to before `end` came into the chunk that begins at `chunk`; `run`: the states of those without a match.
    pub fn append(&mut self, chunk: u64, end: u64, run: Option<Run>) {
        let budget = Arc::clone(&self.budget);
        let piece = self.piece(chunk, end);
        piece.version += 1;
        if let (Some(runs), Some(run)) = (&mut piece.runs, run.filter(|run| run.rows > 0)) {
            runs.push(Arc::new(open(run).charged(&budget)));
        }
    }

    /// Some row of the chunk with these offsets has a match that it did not have, or nothing is known of the chunk yet.
    pub fn mark_stale(&mut self, chunk: u64, end: u64) {
        let piece = self.piece(chunk, end);
        piece.version += 1;
        piece.runs = None;
    }

    /// The piece that a chunk with these offsets is in; a new one for a chunk that comes behind all.
    fn piece(&mut self, chunk: u64, end: u64) -> &mut Piece {
        let known = self.pieces.range(..=chunk).next_back().filter(|_| chunk < self.end);
        let from = known.map_or(chunk, |(from, _)| *from);
        self.end = self.end.max(end);
        self.pieces.entry(from).or_insert(Piece { version: 0, chunks: 1, runs: Some(Vec::new()) })
    }

    /// All pieces as of now.
    pub fn kept(&self) -> Pieces<Arc<Run>> {
        let piece = |(&from, piece): (&u64, &Piece)| KeptRuns { from, chunks: piece.chunks, runs: piece.runs.clone() };
        Pieces { end: self.end, pieces: self.pieces.iter().map(piece).collect() }
    }

    /// Takes over the pieces of an earlier process.
    pub fn restore(&mut self, kept: Pieces<Arc<Run>>) {
        let piece = |KeptRuns { from, chunks, runs }| (from, Piece { version: 0, chunks, runs });
        (self.end, self.pieces) = (kept.end, kept.pieces.into_iter().map(piece).collect());
    }

    /// Where pieces begin.
    pub fn begins(&self) -> Vec<u64> {
        self.pieces.keys().copied().collect()
    }

    /// All stale pieces.
    pub fn stale(&self) -> Vec<Stale> {
        let ends = self.pieces.keys().skip(1).copied().chain([u64::MAX]);
        let pieces = self.pieces.iter().zip(ends).filter(|((_, piece), _)| piece.runs.is_none());
        pieces.map(|((&from, piece), to)| Stale { from, to, version: piece.version }).collect()
    }

    /// A piece was computed again, to what is given back. It is left as it is if it has changed meanwhile.
    pub fn renew(&mut self, stale: &Stale, run: Option<Run>) -> Vec<Arc<Run>> {
        let run = run.filter(|run| run.rows > 0);
        let runs: Vec<_> = run.map(|run| Arc::new(open(run).charged(&self.budget))).into_iter().collect();
        if let Some(piece) = self.pieces.get_mut(&stale.from).filter(|piece| piece.version == stale.version) {
            piece.version += 1;
            piece.runs = Some(runs.clone());
        }
        runs
    }

    /// The runs of all pieces that are not stale.
    pub fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.pieces.values().filter_map(|piece| piece.runs.as_ref()).flatten()
    }

    /// What should be merged now, if anything. Pieces that end after `settled` may still change often: they are left
    /// alone.
    pub fn pick(&self, settled: u64) -> Option<Merging> {
        let many = self.pieces.iter().find(|(_, piece)| piece.runs.as_ref().is_some_and(|runs| runs.len() >= FAN_IN));
        if let Some((&from, piece)) = many {
            let runs = piece.runs.clone().unwrap_or_default();
            return Some(Merging { runs, pieces: vec![(from, piece.version)] });
        }
        let pieces: Vec<(u64, &Piece)> = self.pieces.iter().map(|(&from, piece)| (from, piece)).collect();
        let alike = pieces.windows(3).find(|three| {
            let [(_, one), (_, two), (end, _)] = three else { return false };
            let calm = one.runs.is_some() && two.runs.is_some() && *end <= settled;
            calm && one.chunks == two.chunks && 2 * one.chunks <= MOST_CHUNKS
        })?;
        let two = &alike[..2];
        let runs = two.iter().flat_map(|(_, piece)| piece.runs.iter().flatten()).cloned().collect();
        Some(Merging { runs, pieces: two.iter().map(|(from, piece)| (*from, piece.version)).collect() })
    }

    /// The runs were merged into these.
    pub fn merged(&mut self, merging: &Merging, runs: Vec<Run>) {
        let unchanged = |(from, version): &(u64, u64)| self.pieces.get(from).is_some_and(|p| p.version == *version);
        let Some((first, _)) = merging.pieces.first().filter(|_| merging.pieces.iter().all(unchanged)) else { return };
        let rest = merging.pieces[1..].iter().filter_map(|(from, _)| self.pieces.remove(from));
        let chunks: usize = rest.map(|piece| piece.chunks).sum();
        if let Some(piece) = self.pieces.get_mut(first) {
            piece.version += 1;
            piece.chunks += chunks;
            piece.runs = Some(runs.into_iter().map(|run| Arc::new(open(run).charged(&self.budget))).collect());
        }
    }

    /// Lets go of the runs whose last pane has `expired`. A piece that is computed again may have such rows again; nobody shows
    /// them.
    pub fn expire(&mut self, expired: &dyn Fn(i64) -> bool) {
        for runs in self.pieces.values_mut().filter_map(|piece| piece.runs.as_mut()) {
            runs.retain(|run| !run.panes.have_expired(expired));
        }
    }

    /// A run that could go to disk: the oldest in memory, but not of the last piece.
    pub fn coldest(&self) -> Option<Arc<Run>> {
        let last = self.pieces.len().saturating_sub(1);
        let runs = self.pieces.values().take(last).filter_map(|piece| piece.runs.as_ref()).flatten();
        runs.into_iter().find(|run| run.in_memory()).cloned()
    }

    /// Puts a run with the same rows in the place of another.
    pub fn swap(&mut self, old: &Arc<Run>, new: Run) {
        let runs = self.pieces.values_mut().filter_map(|piece| piece.runs.as_mut()).flatten();
        if let Some(place) = runs.into_iter().find(|run| Arc::ptr_eq(run, old)) {
            *place = Arc::new(new.charged(&self.budget));
        }
    }

    pub fn clear(&mut self) {
        self.pieces.clear();
        self.end = 0;
    }
}

/// Pieces overlap in time, so none of their runs is a base run.
fn open(mut run: Run) -> Run {
    run.level = Level::Open;
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::run::Panes;
    use arrow::array::{Int64Array, RecordBatch};

    fn run(rows: i64) -> Run {
        let column = Arc::new(Int64Array::from_iter_values(0..rows)) as _;
        Run::new(vec![RecordBatch::try_from_iter([("n", column)]).unwrap()], Panes::ALL)
    }

    fn rows(unmatched: &Unmatched) -> Vec<usize> {
        unmatched.runs().map(|r| r.rows).collect()
    }

    #[test]
    fn a_stale_piece_is_renewed_unless_it_changed_meanwhile() {
        let mut unmatched = Unmatched::new(&Budget::unlimited());
        unmatched.append(0, 10, Some(run(3)));
        unmatched.append(10, 15, Some(run(5)));
        unmatched.mark_stale(0, 10);
        assert_eq!(rows(&unmatched), [5]);
        let [stale] = unmatched.stale()[..] else { panic!("one is stale") };
        assert_eq!((stale.from, stale.to), (0, 10));
        unmatched.append(0, 10, Some(run(1)));
        unmatched.renew(&stale, Some(run(2)));
        assert_eq!(rows(&unmatched), [5], "a row came after it was looked at");
        unmatched.renew(&unmatched.stale()[0].clone(), Some(run(2)));
        assert_eq!(rows(&unmatched), [2, 5]);
        unmatched.mark_stale(10, 15);
        unmatched.mark_stale(20, 30);
        let stale: Vec<_> = unmatched.stale().iter().map(|s| (s.from, s.to)).collect();
        assert_eq!(stale, [(10, 20), (20, u64::MAX)]);
    }

    #[test]
    fn calm_neighbours_are_merged_and_found_by_any_chunk_of_theirs() {
        let mut unmatched = Unmatched::new(&Budget::unlimited());
        for chunk in 0..40 {
            unmatched.append(chunk * 10, chunk * 10 + 10, Some(run(1)));
        }
        while let Some(merging) = unmatched.pick(350) {
            let rows = merging.runs.iter().map(|r| r.rows as i64).sum();
            unmatched.merged(&merging, vec![run(rows)]);
        }
        assert_eq!(rows(&unmatched), [32, 2, 1, 1, 1, 1, 1, 1]);
        unmatched.mark_stale(170, 180);
        let stale: Vec<_> = unmatched.stale().iter().map(|s| (s.from, s.to)).collect();
        assert_eq!(stale, [(0, 320)]);
    }

    #[test]
    fn a_chunk_that_is_cut_otherwise_is_in_the_same_piece() {
        let mut unmatched = Unmatched::new(&Budget::unlimited());
        unmatched.append(0, 10, Some(run(1)));
        unmatched.append(10, 25, Some(run(2)));
        // As after a restart, and of the archive.
        let kept = unmatched.kept();
        unmatched.clear();
        unmatched.restore(kept.clone());
        assert_eq!((unmatched.kept().end, unmatched.begins()), (25, vec![0, 10]));
        unmatched.mark_stale(4, 10);
        unmatched.mark_stale(25, 40);
        let stale: Vec<_> = unmatched.stale().iter().map(|s| (s.from, s.to)).collect();
        assert_eq!((stale, rows(&unmatched)), (vec![(0, 10), (25, u64::MAX)], vec![2]));
        unmatched.mark_stale(17, 25);
        assert_eq!(unmatched.stale().len(), 3);
        assert_eq!(kept.runs().map(|run| run.rows).collect::<Vec<_>>(), [1, 2]);
    }
}
