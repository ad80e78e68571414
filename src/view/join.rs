//! Keeps a rollup over two streams up to date (`rollup/interval.rs` says which joins that are).
//!
//! What is kept for it, besides its result, is nothing: the rows that both streams keep anyway are what new rows are
//! joined with. Chunks know their times, so a micro-batch meets only chunks that it may match, however late it is.
//!
//! ```text
//!     micro-batch of the first stream  ⋈ rows of the second so far  ──┐
//!                                                                     ├──► pairs, added to the rollup
//!     micro-batch of the second stream ⋈ rows of the first so far   ──┘
//! ```
//!
//! Always holds: the rollup is the aggregate over the join of all rows visible in both streams. To that end whoever
//! applies a micro-batch of one stream holds [`Joint::order`] from folding to publishing, so the other stream stands
//! still meanwhile, and a reader takes its snapshot of both streams at once (`runner.rs`).
//!
//! A checkpoint keeps the rollup as of one instant of both streams, and a restart goes on from there: pairs of which both
//! rows were there then are in it ([`Known`]), others are found as when a view is made.
//!
//! A LEFT JOIN has rows without a match besides: see `rollup/unmatched.rs`.

use std::sync::{Arc, Weak};
use std::time::Instant;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use parking_lot::{Mutex, MutexGuard};

use super::runner::{Runner, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::rollup::Rollup;
use crate::rollup::interval::Partner;
use crate::rollup::join::{JoinStage, Side, not_joinable};
use crate::rollup::pane::Run;
use crate::rollup::unmatched::Stale;
use crate::storage::history::{cut_at, within};
use crate::storage::hot::{Chunk, Data};
use crate::time::Micros;

/// Chunks read from the logs that are kept for the next micro-batch: the next rows mostly need the same ones. Some ten MiB
/// each at most, and only while the streams are read again from far back.
const LOADED: usize = 8;

/// What is kept for rows without a match in chunks this far behind the last is merged, even if matches may still come.
const CALM_CHUNKS: usize = 64;

/// An offset of the first stream and one of the second: the pairs of rows that both have before them are in a rollup
/// already.
pub type Known = (u64, u64);

/// A rollup and the two streams that it joins.
pub struct Joint {
    pub rollup: Arc<Rollup>,
    left: Weak<Runner>,
    right: Weak<Runner>,
    /// See the file header.
    order: Mutex<()>,
    /// What went wrong, if the query failed on some pair of rows.
    failed: Mutex<Option<Error>>,
    /// Chunks that were read from the logs for the last micro-batches.
    loaded: Mutex<Vec<Loaded>>,
    /// Pieces are not computed again before this moment.
    rest: Mutex<Instant>,
}

/// A chunk that is in memory for this join only.
struct Loaded {
    /// Where it is, by the side and offset, and how much of it.
    place: (Side, u64, u64),
    data: Arc<Data>,
    used: bool,
}

/// What a micro-batch of one of the streams adds to a rollup.
#[derive(Default)]
pub struct Folded {
    pub run: Option<Run>,
    /// Of the first stream's rows, those without a match.
    unmatched: Option<Run>,
    /// Chunks of the first stream, by their first offset and the one behind them, with rows that have a match that they did
    /// not have.
    matched: Vec<(u64, u64)>,
}

impl Folded {
    pub fn of(run: Option<Run>) -> Folded {
        Folded { run, ..Folded::default() }
    }

    /// Whether rows without a match became fewer, and so any pane may have changed.
    pub fn takes_back(&self) -> bool {
        !self.matched.is_empty()
    }

    /// A closed range that holds the panes that gain something.
    pub fn touched(&self) -> Option<(i64, i64)> {
        let panes = self.run.iter().chain(&self.unmatched).map(|run| run.panes);
        panes.reduce(|a, b| a.with(b)).map(|panes| panes.touched())
    }
}

/// The parts of a LEFT JOIN that a reader has to compute, with the rows that this takes: all as of one instant.
pub struct Pending {
    joint: Arc<Joint>,
    /// Chunks of the first stream by the piece that they belong to, and those of the second that may match.
    pieces: Vec<(Stale, Vec<Arc<Chunk>>)>,
    right: Vec<Arc<Chunk>>,
}

impl Joint {
    pub fn new(rollup: Arc<Rollup>, left: &Arc<Runner>, right: &Arc<Runner>) -> Joint {
        let (left, right) = (Arc::downgrade(left), Arc::downgrade(right));
        let (failed, loaded, rest) = (Mutex::new(None), Mutex::default(), Mutex::new(Instant::now()));
        Joint { rollup, left, right, order: Mutex::new(()), failed, loaded, rest }
    }

    /// Keeps both streams from adding to the rollup. Whoever needs several of these takes them in the order of their keys.
    pub fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock()
    }

    pub fn failure(&self) -> Option<Error> {
        self.failed.lock().clone()
    }

    pub fn fail(&self, err: &Error) {
        self.failed.lock().get_or_insert_with(|| err.clone());
    }

    /// Whether a stream is the first one.
    pub fn begins_with(&self, runner: &Runner) -> bool {
        std::ptr::eq(Weak::as_ptr(&self.left), runner)
    }

    /// The rows of both streams before their next micro-batches, in chunks that begin where [`Known`] ends and where pieces
    /// do. Nothing is known yet of those of the first stream behind that.
    pub fn begin(&self, known: Known, left: &Runner, right: &Runner) -> (Vec<Arc<Chunk>>, Vec<Arc<Chunk>>) {
        let mut unmatched = self.rollup.unmatched();
        let mut begins = unmatched.begins();
        begins.push(known.0);
        begins.sort_unstable();
        begins.dedup();
        let chunks = cut_at(left.log.chunks(), &begins);
        if self.is_outer() {
            let new = chunks.iter().filter(|chunk| chunk.base >= known.0);
            new.for_each(|chunk| unmatched.mark_stale(chunk.base, chunk.base + chunk.frames));
        }
        (chunks, cut_at(right.log.chunks(), &[known.1]))
    }

    /// What a micro-batch adds. The one who calls holds the order.
    pub fn fold(&self, of: &Runner, rows: &RecordBatch) -> Result<Folded> {
        let stage = self.stage()?;
        let side = if self.begins_with(of) { Side::Left } else { Side::Right };
        let other = self.runner(side.other())?;
        let near = Near::to(of.shape.times(rows), self.reach(side)?);
        let mine = stage.side(side, std::slice::from_ref(rows))?;
        self.loaded.lock().iter_mut().for_each(|loaded| loaded.used &= loaded.place.0 == side);
        let mut folded = Folded::default();
        let mut alone = if stage.is_outer() && side == Side::Left { mine.clone() } else { Vec::new() };
        let mut chunks = if mine.is_empty() { Vec::new() } else { other.log.select(|chunk| near.may_match(chunk)) };
        if stage.is_outer() && side == Side::Right {
            // Which piece a match is in must be known.
            chunks = cut_at(chunks, &self.rollup.unmatched().begins());
        }
        for chunk in chunks {
            let theirs = self.rows_near(&near, side.other(), &other, &chunk)?;
            if theirs.is_empty() {
                continue;
            }
            let (left, right) = match side {
                Side::Left => (&mine, &theirs),
                Side::Right => (&theirs, &mine),
            };
            self.add_pairs(stage, &mut folded.run, left, right)?;
            if !alone.is_empty() {
                alone = stage.without_match(&alone, right)?;
            }
            if stage.is_outer() && side == Side::Right && stage.any_match(left, right)? {
                folded.matched.push((chunk.base, chunk.base + chunk.frames));
            }
        }
        folded.unmatched = self.alone(stage, &alone)?;
        self.loaded.lock().retain(|loaded| loaded.used);
        Ok(folded)
    }

    /// Makes what a micro-batch adds visible. `chunk`: where its own chunk begins, and where the micro-batch ends. The one who
    /// calls holds the order, and keeps readers away.
    pub fn publish(&self, of: &Runner, (chunk, end): (u64, u64), folded: Folded) {
        if let Some(run) = folded.run {
            self.rollup.add(run);
        }
        if !self.is_outer() {
            return;
        }
        let mut unmatched = self.rollup.unmatched();
        if self.begins_with(of) {
            unmatched.append(chunk, end, folded.unmatched);
        }
        folded.matched.into_iter().for_each(|(chunk, end)| unmatched.mark_stale(chunk, end));
    }

    /// Merges what can be merged; computes again what nothing is likely to change any more. The one who calls holds the
    /// order.
    pub fn keep_up(&self) -> Result<()> {
        if !self.is_outer() {
            return Ok(());
        }
        let (left, right) = (self.runner(Side::Left)?, self.runner(Side::Right)?);
        let passed = right.watermark().saturating_sub(self.partner()?.reach().1);
        let settled = |chunk: &Chunk| chunk.times.is_none_or(|(_, last)| last < passed);
        let stale = self.rollup.unmatched().stale();
        for stale in stale {
            let chunks = within(&left.log.chunks(), stale.from..stale.to);
            let began = Instant::now();
            if began >= *self.rest.lock() && chunks.iter().all(|chunk| settled(chunk)) {
                self.renew(&stale, &chunks)?;
                // Rows that are always late must not take more than half of the time; readers do what is left.
                *self.rest.lock() = Instant::now() + began.elapsed();
            }
        }
        let open = left.log.select(|chunk| !settled(chunk));
        let calm = open.len().checked_sub(CALM_CHUNKS).and_then(|i| open.get(i)).or(open.first());
        self.rollup.compact_unmatched(calm.map_or(u64::MAX, |chunk| chunk.base))
    }

    /// Folds what both streams had when the rollup was attached to them, but for what is `known`. They go on meanwhile:
    /// what comes is joined with all that there is.
    pub fn backfill(
        &self,
        known: Known,
        (left_chunks, right_chunks): (Vec<Arc<Chunk>>, Vec<Arc<Chunk>>),
    ) -> Result<()> {
        let (left, right) = (self.runner(Side::Left)?, self.runner(Side::Right)?);
        let filled = self.fill(known, (&left, &left_chunks), (&right, &right_chunks));
        *self.rollup.filling.lock() = None;
        if let Err(err) = &filled {
            self.fail(err);
        }
        // Readers were refused so far; those of an error are told it.
        [left, right].iter().for_each(|runner| runner.set_filled(&self.rollup));
        filled
    }

    fn fill(
        &self,
        known: Known,
        (left, left_chunks): (&Runner, &[Arc<Chunk>]),
        (right, right_chunks): (&Runner, &[Arc<Chunk>]),
    ) -> Result<()> {
        let (stage, reach) = (self.stage()?, self.reach(Side::Left)?);
        *self.rollup.filling.lock() = Some((left_chunks.iter().map(|chunk| chunk.frames).sum(), 0));
        for chunk in left_chunks {
            self.rollup.check_open()?;
            if let Some((_, done)) = &mut *self.rollup.filling.lock() {
                *done += chunk.frames;
            }
            let is_new = |other: &Chunk| chunk.base >= known.0 || other.base >= known.1;
            let others =
                right_chunks.iter().filter(|other| chunk.rows > 0 && is_new(other) && may_meet(chunk, other, reach));
            let others: Vec<_> = others.collect();
            if others.is_empty() {
                continue;
            }
            let began = Instant::now();
            let (near, mine) = self.rows_of(Side::Left, left, chunk)?;
            let rows = mine.iter().map(RecordBatch::num_rows).sum();
            for other in others.into_iter().filter(|other| !mine.is_empty() && near.may_match(other)) {
                let theirs = self.rows_near(&near, Side::Right, right, other)?;
                let mut run = None;
                self.add_pairs(stage, &mut run, &mine, &theirs)?;
                run.into_iter().for_each(|run| self.rollup.add(run));
                self.rollup.compact()?;
                if stage.is_outer() && chunk.base < known.0 && !theirs.is_empty() && stage.any_match(&mine, &theirs)? {
                    self.rollup.unmatched().mark_stale(chunk.base, chunk.base + chunk.frames);
                }
            }
            self.rollup.work.folded(rows, began.elapsed());
        }
        let stale: Vec<u64> = self.rollup.unmatched().stale().iter().map(|stale| stale.from).collect();
        for from in stale {
            self.rollup.check_open()?;
            let _order = self.order();
            // Where the piece ends is known only while nothing comes: a new one may have begun behind it meanwhile.
            let now = self.rollup.unmatched().stale().into_iter().find(|stale| stale.from == from);
            if let Some(stale) = now {
                let chunks = within(&left.log.chunks(), stale.from..stale.to);
                self.renew(&stale, &chunks)?;
            }
        }
        Ok(())
    }

    /// What readers of this instant have to compute. `left` and `right` are the snapshots of both streams.
    pub fn pending(self: &Arc<Joint>, stale: &[Stale], left: &Snapshot, right: &Snapshot) -> Result<Pending> {
        let left_chunks = left.all_chunks();
        let of = |stale: &Stale| (*stale, within(&left_chunks, stale.from..stale.to));
        let pieces: Vec<_> = stale.iter().map(of).collect();
        let reach = self.reach(Side::Left)?;
        let near = |other: &&Arc<Chunk>| {
            pieces.iter().flat_map(|(_, chunks)| chunks).any(|chunk| may_meet(chunk, other, reach))
        };
        let right = right.all_chunks().iter().filter(near).cloned().collect();
        Ok(Pending { joint: Arc::clone(self), pieces, right })
    }

    /// Computes a piece again, with all rows of the second stream so far. The one who calls holds the order.
    fn renew(&self, stale: &Stale, chunks: &[Arc<Chunk>]) -> Result<()> {
        let right = self.runner(Side::Right)?.log.chunks();
        let run = self.unmatched_of(chunks, &right)?;
        self.rollup.unmatched().renew(stale, run);
        Ok(())
    }

    /// The states of those rows of the first stream that none of the second matches.
    fn unmatched_of(&self, left_chunks: &[Arc<Chunk>], right_chunks: &[Arc<Chunk>]) -> Result<Option<Run>> {
        let stage = self.stage()?;
        let (left, right) = (self.runner(Side::Left)?, self.runner(Side::Right)?);
        let mut all: Option<Run> = None;
        for chunk in left_chunks.iter().filter(|chunk| chunk.rows > 0) {
            let (near, mut alone) = self.rows_of(Side::Left, &left, chunk)?;
            for other in right_chunks.iter().filter(|other| near.may_match(other)) {
                if alone.is_empty() {
                    break;
                }
                alone = stage.without_match(&alone, &self.rows_near(&near, Side::Right, &right, other)?)?;
            }
            all = both(all, self.alone(stage, &alone)?);
        }
        Ok(all)
    }

    /// The rows of a chunk as they come to the join, and where rows that match them may be.
    fn rows_of(&self, side: Side, runner: &Runner, chunk: &Chunk) -> Result<(Near, Vec<RecordBatch>)> {
        let data = self.load(side, runner, chunk)?;
        let times: Vec<Micros> = data.rows.iter().flat_map(|rows| runner.shape.times(rows)).copied().collect();
        Ok((Near::to(&times, self.reach(side)?), self.stage()?.side(side, &data.rows)?))
    }

    /// Those rows of a chunk that may match, as they come to the join.
    fn rows_near(&self, near: &Near, side: Side, runner: &Runner, chunk: &Chunk) -> Result<Vec<RecordBatch>> {
        let Some((first, last)) = near.span() else { return Ok(Vec::new()) };
        let near = |time: &Micros| *time >= first && *time <= last;
        let mut found = Vec::new();
        for rows in &self.load(side, runner, chunk)?.rows {
            let times = runner.shape.times(rows);
            if times.iter().all(near) {
                found.push(rows.clone());
            } else if times.iter().any(near) {
                let keep: BooleanArray = times.iter().map(|time| Some(near(time))).collect();
                found.push(filter_record_batch(rows, &keep)?);
            }
        }
        if found.is_empty() { Ok(found) } else { self.stage()?.side(side, &found) }
    }

    /// The rows of a chunk, from memory or from the log.
    fn load(&self, side: Side, runner: &Runner, chunk: &Chunk) -> Result<Arc<Data>> {
        if let Some(data) = &chunk.data {
            return Ok(Arc::clone(data));
        }
        let place = (side, chunk.base, chunk.frames);
        if let Some(loaded) = self.loaded.lock().iter_mut().find(|loaded| loaded.place == place) {
            loaded.used = true;
            return Ok(Arc::clone(&loaded.data));
        }
        let data = runner.log.load_kept(chunk, &runner.shape)?;
        let mut loaded = self.loaded.lock();
        loaded.push(Loaded { place, data: Arc::clone(&data), used: true });
        let over = loaded.len().saturating_sub(LOADED);
        loaded.drain(..over);
        Ok(data)
    }

    /// Adds the states of the pairs of these rows to `run`.
    fn add_pairs(
        &self,
        stage: &JoinStage,
        run: &mut Option<Run>,
        left: &[RecordBatch],
        right: &[RecordBatch],
    ) -> Result<()> {
        if !left.is_empty() && !right.is_empty() {
            let more = self.rollup.maintainer().states(stage.pairs(left, right)?)?;
            *run = both(run.take(), more);
        }
        Ok(())
    }

    fn alone(&self, stage: &JoinStage, rows: &[RecordBatch]) -> Result<Option<Run>> {
        if rows.is_empty() { Ok(None) } else { self.rollup.maintainer().states(stage.alone(rows)?) }
    }

    fn is_outer(&self) -> bool {
        self.rollup.maintainer().join().is_some_and(JoinStage::is_outer)
    }

    fn stage(&self) -> Result<&JoinStage> {
        self.rollup.maintainer().join().ok_or_else(not_joinable)
    }

    fn partner(&self) -> Result<&Partner> {
        self.rollup.definition.partner.as_ref().ok_or_else(not_joinable)
    }

    /// How much later than rows of one stream those of the other are that match, at least and at most.
    fn reach(&self, of: Side) -> Result<(Micros, Micros)> {
        let (low, high) = self.partner()?.reach();
        Ok(match of {
            Side::Left => (low, high),
            Side::Right => (high.saturating_neg(), low.saturating_neg()),
        })
    }

    fn runner(&self, side: Side) -> Result<Arc<Runner>> {
        let runner = match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        };
        runner.upgrade().ok_or_else(|| Error::new(Kind::Shutdown, "a stream that a view joins was stopped"))
    }
}

impl Pending {
    /// The states of the rows without a match. Takes a while: not to be called where others wait.
    pub fn compute(&self) -> Result<Vec<Arc<Run>>> {
        let mut runs = Vec::new();
        for (stale, chunks) in &self.pieces {
            let run = self.joint.unmatched_of(chunks, &self.right)?;
            // The next reader finds it done, unless it has changed since.
            runs.extend(self.joint.rollup.unmatched().renew(stale, run));
        }
        Ok(runs)
    }
}

/// Whether a row of one chunk may match one of another, whose rows are later by so much, at least and at most.
fn may_meet(chunk: &Chunk, other: &Chunk, (low, high): (Micros, Micros)) -> bool {
    chunk.times.zip(other.times).is_none_or(|((first, last), (other_first, other_last))| {
        other_first <= last.saturating_add(high) && other_last >= first.saturating_add(low)
    })
}

/// Where in time rows of the other stream have to be to match some row of a few.
struct Near {
    /// The times of the few, in order.
    times: Vec<Micros>,
    /// How much later the others are, at least and at most.
    later: (Micros, Micros),
}

impl Near {
    fn to(times: &[Micros], later: (Micros, Micros)) -> Near {
        let mut times = times.to_vec();
        times.sort_unstable();
        Near { times, later }
    }

    /// Whether a row between these times may match.
    fn within(&self, first: Micros, last: Micros) -> bool {
        let (low, high) = self.later;
        let at = self.times.partition_point(|time| time.saturating_add(high) < first);
        self.times.get(at).is_some_and(|time| time.saturating_add(low) <= last)
    }

    fn may_match(&self, chunk: &Chunk) -> bool {
        chunk.rows > 0 && chunk.times.is_none_or(|(first, last)| self.within(first, last))
    }

    /// The first and the last time of rows that may match.
    fn span(&self) -> Option<(Micros, Micros)> {
        let (first, last) = self.times.first().zip(self.times.last())?;
        Some((first.saturating_add(self.later.0), last.saturating_add(self.later.1)))
    }
}

fn both(one: Option<Run>, other: Option<Run>) -> Option<Run> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.with(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
