//! What a LEFT JOIN of two streams has for rows of the first stream that no row of the second matches.
//!
//! A row of the second stream may come that matches one of them, at any time, and partial states cannot be taken back. So
//! they are kept per piece of the first stream (a chunk of it, or several): such a row makes the state of one piece
//! *stale*, and a stale piece is computed again from the rows of both streams: by a reader, or once the second stream's
//! watermark has passed what could match.
//!
//! Pieces without a change are merged with their neighbours, two of the same length each time, up to
//! [`MOST_CHUNKS`]: so they stay few, and computing one again stays a matter of a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::Budget;
use super::run::{Level, Run};

/// Chunks of the first stream in one piece at most.
const MOST_CHUNKS: usize = 64;

/// Runs of one piece that are merged at once.
const FAN_IN: usize = 8;

/// All pieces of one rollup, by the offset of the first row.
#[derive(Debug)]
pub struct Unmatched {
    pieces: BTreeMap<u64, Piece>,
    budget: Arc<Budget>,
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
        Unmatched { pieces: BTreeMap::new(), budget: Arc::clone(budget) }
    }

    pub fn count_in(&mut self, budget: &Arc<Budget>) {
        self.budget = Arc::clone(budget);
    }

    /// Rows came into the chunk that begins at `chunk`; `run`: the states of those without a match.
    pub fn append(&mut self, chunk: u64, run: Option<Run>) {
        let piece = self.pieces.entry(chunk).or_insert(Piece { version: 0, chunks: 1, runs: Some(Vec::new()) });
        piece.version += 1;
        if let (Some(runs), Some(run)) = (&mut piece.runs, run.filter(|run| run.rows > 0)) {
            runs.push(Arc::new(open(run).charged(&self.budget)));
        }
    }

    /// Some row of the chunk that begins at `chunk` has a match that it did not have, or nothing is known of it yet.
    pub fn mark_stale(&mut self, chunk: u64) {
        let of_piece = self.pieces.range_mut(..=chunk).next_back();
        let piece = match of_piece {
            // The last piece ends with its chunk.
            Some((first, piece)) if *first == chunk || piece.chunks > 1 => piece,
            _ => self.pieces.entry(chunk).or_insert(Piece { version: 0, chunks: 1, runs: None }),
        };
        piece.version += 1;
        piece.runs = None;
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
        unmatched.append(0, Some(run(3)));
        unmatched.append(10, Some(run(5)));
        unmatched.mark_stale(0);
        assert_eq!(rows(&unmatched), [5]);
        let [stale] = unmatched.stale()[..] else { panic!("one is stale") };
        assert_eq!((stale.from, stale.to), (0, 10));
        unmatched.append(0, Some(run(1)));
        unmatched.renew(&stale, Some(run(2)));
        assert_eq!(rows(&unmatched), [5], "a row came after it was looked at");
        unmatched.renew(&unmatched.stale()[0].clone(), Some(run(2)));
        assert_eq!(rows(&unmatched), [2, 5]);
        unmatched.mark_stale(10);
        unmatched.mark_stale(20);
        let stale: Vec<_> = unmatched.stale().iter().map(|s| (s.from, s.to)).collect();
        assert_eq!(stale, [(10, 20), (20, u64::MAX)]);
    }

    #[test]
    fn calm_neighbours_are_merged_and_found_by_any_chunk_of_theirs() {
        let mut unmatched = Unmatched::new(&Budget::unlimited());
        for chunk in 0..40 {
            unmatched.append(chunk * 10, Some(run(1)));
        }
        while let Some(merging) = unmatched.pick(350) {
            let rows = merging.runs.iter().map(|r| r.rows as i64).sum();
            unmatched.merged(&merging, vec![run(rows)]);
        }
        assert_eq!(rows(&unmatched), [32, 2, 1, 1, 1, 1, 1, 1]);
        unmatched.mark_stale(170);
        let stale: Vec<_> = unmatched.stale().iter().map(|s| (s.from, s.to)).collect();
        assert_eq!(stale, [(0, 320)]);
    }
}
