//! Applies a stream's micro-batches: rows to the hot store, partial states to every rollup, event times to the
//! watermark, and all of it visible at once.
//!
//! Folding happens outside the lock; publishing happens inside it and is a few pushes. So a reader's snapshot is always
//! "everything up to offset N", for the stream and all its views alike, and readers never wait for a fold.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{sort_to_indices, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::changes::Touched;
use super::join::{Folded, Joint, Known};
use crate::batch::{Event, MicroBatch, Shape, fit};
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, on};
use crate::position::Position;
use crate::rollup::Rollup;
use crate::rollup::pane::Run;
use crate::rollup::reference::Offsets;
use crate::rollup::timeliness::{Timed, Timeliness};
use crate::rollup::unmatched::{Pieces, Stale};
use crate::rollup::watermark::{LateRow, Watermark};
use crate::storage::archive::{OFFSET, WATERMARK};
use crate::storage::checkpoint::{ArchiveState, ChunkState, MALFORMED_LINES, ROWS, StreamState};
use crate::storage::history::{late_rows, pieces, with_own_columns};
use crate::storage::hot::{Archived, Chunk, Timing};
use crate::storage::stream_log::{Noted, Origin, Positions, StreamLog, watch};
use crate::storage::wal::Location;
use crate::time::Micros;

/// A checkpoint notes how far time had come at the beginnings of chunks, but not for many more files than this altogether.
const MOST_NOTED: usize = 10_000;

/// The live part of one stream.
pub struct Runner {
    pub shape: Arc<Shape>,
    pub log: Arc<StreamLog>,
    /// Held while a micro-batch is folded and published.
    applying: Mutex<()>,
    state: Mutex<State>,
    /// How far time has come in that part of the log that the checkpoint has passed, while it is read again.
    recalled: Mutex<Watermark>,
    /// Where the stream stands, for those who follow it.
    ticks: watch::Sender<Tick>,
}

/// Tells that something changed. The offset alone would not: a view may change, or fail, without new rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tick {
    /// Everything before this offset is visible.
    pub offset: u64,
    /// Grows with every change of a row, a view or the watermark.
    pub version: u64,
}

/// A rollup with what went wrong, if its query failed on some row.
#[derive(Clone)]
struct Attached {
    rollup: Arc<Rollup>,
    /// What it is joined with, if it reads two streams.
    joint: Option<Arc<Joint>>,
    /// Whether it has what the stream had before it was attached.
    filled: bool,
    failed: Option<Error>,
    /// Which windows changed lately, for subscriptions.
    touched: Touched,
    /// Which windows closed lately, where closing does not change what they have: for those who ask whether they did.
    closed: Touched,
}

/// The state of a rollup as of a checkpoint.
pub struct Held {
    pub rollup: Arc<Rollup>,
    pub runs: Vec<Arc<Run>>,
    pub unmatched: Pieces<Arc<Run>>,
}

struct State {
    /// Everything before the offset is visible.
    tick: Tick,
    /// The last record of the log that is in the state.
    applied: Option<Location>,
    /// The last position of each partition of each source.
    positions: Positions,
    rows: u64,
    malformed: u64,
    bytes: u64,
    imported: Imported,
    watermark: Arc<Watermark>,
    rollups: Vec<Attached>,
    /// Changes when a rollup comes or goes.
    generation: u64,
}

/// One instant of a stream.
#[derive(Clone)]
pub struct Snapshot {
    /// Frames before this offset are in it.
    pub offset: u64,
    pub watermark: Micros,
    /// See [`Tick`].
    pub version: u64,
    pub archived: Option<Archived>,
    /// What comes behind the archive, which may have some of the first of them.
    pub chunks: Vec<Arc<Chunk>>,
    /// By rollup key.
    pub runs: HashMap<String, Result<Vec<Arc<Run>>>>,
    /// Of joins, what of their state has to be computed again; by rollup key.
    pub stale: HashMap<String, (Arc<Joint>, Vec<Stale>)>,
}

/// What all imports of old files together have brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    pub rows: u64,
    pub malformed: u64,
}

/// Figures for system relations.
#[derive(Debug, Clone)]
pub struct Progress {
    pub offset: u64,
    /// See [`Tick`].
    pub version: u64,
    pub rows: u64,
    pub malformed: u64,
    pub bytes: u64,
    pub imported: Imported,
    pub watermark: Arc<Watermark>,
}

impl Snapshot {
    /// All chunks; those of the archive are pieces of it.
    pub fn all_chunks(&self) -> Vec<Arc<Chunk>> {
        let pieces = self.archived.iter().flat_map(|archived| pieces(&archived.rows));
        let end = self.archived.as_ref().map_or(0, |archived| archived.rows.end);
        pieces.chain(self.chunks.iter().filter(|chunk| chunk.base >= end).cloned()).collect()
    }
}

impl Runner {
    pub fn new(shape: Arc<Shape>, log: Arc<StreamLog>, watermark: Watermark) -> Runner {
        let (tick, recalled) = (Tick::default(), Mutex::new(watermark.clone()));
        let state = State {
            tick,
            applied: None,
            positions: Positions::new(),
            rows: 0,
            malformed: 0,
            bytes: 0,
            imported: Imported::default(),
            watermark: Arc::new(watermark),
            rollups: Vec::new(),
            generation: 0,
        };
        let (applying, state, ticks) = (Mutex::new(()), Mutex::new(state), watch::Sender::new(tick));
        Runner { shape, log, applying, state, recalled, ticks }
    }

    /// Goes on from a checkpoint: before any micro-batch is applied. Gives the record of the log to begin with.
    pub fn go_on(&self, saved: &StreamState, positions: Positions) -> Option<Location> {
        // Rows from here on come back: those that the archive does not have, or all that the log has.
        let oldest = || self.log.wal().segments().first().map_or(0, |segment| segment.first_offset);
        let end = self.log.archived().map_or_else(oldest, |archived| archived.end());
        let mut state = self.state.lock();
        state.tick.offset = saved.offset;
        // Who goes on with a subscription may ask before anything new comes.
        self.ticks.send_replace(state.tick);
        state.applied = saved.applied;
        state.positions = positions;
        (state.rows, state.malformed, state.bytes) = (saved.rows, saved.malformed, saved.bytes);
        let mut recalled = self.recalled.lock();
        state.watermark = Arc::new(recalled.go_on(&saved.watermark));
        // Rows that the archive does not have come back first. Time passes for them as it did then.
        let first = saved.chunks.iter().rev().find(|chunk| chunk.base <= end);
        self.log.cut_at(saved.offset);
        match first {
            _ if end >= saved.offset => saved.applied,
            Some(chunk) => {
                if let Some(before) = &chunk.before {
                    *recalled = recalled.go_on(before);
                }
                Some(chunk.first)
            }
            // The archive is older than the checkpoint: the log must have what it lacks.
            None => None,
        }
    }

    /// Goes on without a checkpoint behind what the archive has: what happened before is not in any state. `positions`:
    /// where the sources stood as far as the log says.
    pub fn begin_at(&self, offset: u64, positions: Positions) {
        let mut state = self.state.lock();
        state.tick.offset = offset;
        self.ticks.send_replace(state.tick);
        state.positions = positions;
    }

    /// Forgets where sources stood that are no longer there.
    pub fn keep_sources(&self, wanted: impl Fn(u32) -> bool) {
        self.state.lock().positions.retain(|source, _| wanted(*source));
    }

    /// How far the stream has come, for a checkpoint, with the state of each rollup whose key is `wanted`.
    pub fn checkpoint(runners: &[(u32, Arc<Runner>)], wanted: &dyn Fn(&str) -> bool) -> Vec<(StreamState, Vec<Held>)> {
        // All at one instant. In the order of the names, as all do who hold several.
        let states: Vec<_> = runners.iter().map(|(_, runner)| runner.state.lock()).collect();
        let each = runners.iter().zip(&states);
        let mut saved: Vec<_> = each.map(|((_, runner), state)| runner.checkpoint_of(state, wanted)).collect();
        drop(states);
        // There may be many, and some of later records do no harm: whoever makes the checkpoint syncs the log now.
        for ((_, runner), (saved, _)) in runners.iter().zip(&mut saved) {
            saved.keys = runner.log.keys().lock().saved();
        }
        saved
    }

    fn checkpoint_of(&self, state: &State, wanted: &dyn Fn(&str) -> bool) -> (StreamState, Vec<Held>) {
        let (archived, chunks) = self.log.snapshot();
        let chunk = |chunk: &Arc<Chunk>| {
            let before = chunk.before.as_ref().map(|watermark| watermark.reached());
            Some(ChunkState { base: chunk.base, first: chunk.first?, before })
        };
        // A restart begins with the last of these that the archive has gone by. One that follows is needed where the log may
        // begin then; more only spare it some reading, and each may be of thousands of files.
        let every = (chunks.len() * state.watermark.count() / MOST_NOTED).max(1);
        let segment = |i: usize| chunks[i].first.map(|first| first.segment);
        let noted = (0..chunks.len()).filter(|&i| i % every == 0 || segment(i) != segment(i - 1));
        let noted: Vec<ChunkState> = noted.filter_map(|i| chunk(&chunks[i])).collect();
        let archived = archived.iter().flat_map(|archived| {
            [(ROWS, &archived.rows), (MALFORMED_LINES, &archived.malformed)].into_iter().filter_map(|(name, table)| {
                let (version, end, rows) = (table.version?, table.end, table.rows);
                Some(ArchiveState { name: name.into(), version, end, rows })
            })
        });
        let positions = state.positions.iter();
        let positions = positions.flat_map(|(source, all)| all.values().map(|noted| (*source, noted.clone())));
        let (positions, positions_at) =
            positions.map(|(source, Noted { position, at })| ((source, position), at)).unzip();
        let saved = StreamState {
            offset: state.tick.offset,
            applied: state.applied,
            rows: state.rows,
            malformed: state.malformed,
            bytes: state.bytes,
            watermark: state.watermark.reached(),
            positions,
            positions_at,
            keys: Vec::new(),
            learned: self.shape.format.learned(),
            chunks: noted,
            archived: archived.collect(),
        };
        // What joins two streams is held by the first of them.
        let mine = |a: &&Attached| a.joint.as_ref().is_none_or(|joint| joint.begins_with(self));
        let kept = state.rollups.iter().filter(mine).filter(|a| a.filled && a.failure().is_none());
        let kept = kept.filter(|a| wanted(&a.rollup.definition.key));
        let rollups = kept.map(|a| {
            let (runs, unmatched) = a.rollup.kept();
            Held { rollup: Arc::clone(&a.rollup), runs, unmatched }
        });
        (saved, rollups.collect())
    }

    /// Follows the stream: the receiver is told after each change, and sees the latest one only.
    pub fn ticks(&self) -> watch::Receiver<Tick> {
        self.ticks.subscribe()
    }

    /// Tells those who follow. Readers that come now see what it tells of.
    fn tell(&self, state: &mut State) {
        state.tick.version += 1;
        self.ticks.send_replace(state.tick);
    }

    /// Applies one micro-batch. Batches come in the order of the log, from one thread. One that the checkpoint had
    /// passed only comes back to memory, as far as the archive does not have it.
    pub fn apply(&self, batch: &MicroBatch, origin: &Origin) -> Result<()> {
        let _applying = self.applying.lock();
        let location = origin.location;
        let end = self.log.archived().map_or(0, |archived| archived.end());
        let archived = batch.base + batch.frames <= end;
        let known = {
            let state = self.state.lock();
            state.applied.map_or(batch.base < state.tick.offset, |applied| location <= applied)
        };
        if known {
            let mut watermark = self.recalled.lock();
            let before = Arc::new(watermark.clone());
            let late = watch(&mut watermark, batch, &self.shape);
            if batch.frames > 0 && !archived {
                self.log.publish(batch, location, self.timing(batch, late, before))?;
            }
            return Ok(());
        }
        let (mut generation, rollups, before) = {
            let state = self.state.lock();
            (state.generation, state.rollups.clone(), Arc::clone(&state.watermark))
        };
        let order = order_of(&rollups);
        let mut watermark = before.as_ref().clone();
        let late = watch(&mut watermark, batch, &self.shape);
        let times = self.shape.times(&batch.rows);
        let offsets = Offsets::of(batch);
        let timed = Timed { rows: &batch.rows, times, late: &late, first: 0, offsets: &offsets };
        let mut folded: Vec<(Arc<Rollup>, Result<Folded>)> = Vec::new();
        self.fold_into(&mut folded, &rollups, &timed);

        let timing = self.timing(batch, late.clone(), before);
        loop {
            let mut state = self.state.lock();
            if state.generation != generation {
                // A view came between folding and publishing: its rollup must not miss this batch.
                generation = state.generation;
                let rollups = state.rollups.clone();
                drop(state);
                self.fold_into(&mut folded, &rollups, &timed);
                continue;
            }
            let chunk = match batch.frames {
                0 => batch.base,
                _ if archived => batch.base,
                _ => self.log.publish(batch, location, timing)?,
            };
            let version = state.tick.version + 1;
            for (rollup, result) in folded.drain(..) {
                let Some(attached) = state.rollups.iter_mut().find(|a| Arc::ptr_eq(&a.rollup, &rollup)) else {
                    continue;
                };
                match result {
                    Ok(folded) => {
                        let anywhere = folded.takes_back().then_some((i64::MIN, i64::MAX));
                        let touched = anywhere.or(folded.touched());
                        if let (Timeliness::All, Some(panes)) = (rollup.definition.timeliness, touched) {
                            attached.touched.note(version, panes);
                        }
                        match &attached.joint {
                            Some(joint) => joint.publish(self, (chunk, batch.base + batch.frames), folded),
                            None => folded.run.into_iter().for_each(|run| rollup.add(run)),
                        }
                    }
                    Err(err) => attached.fail(err),
                }
            }
            state.tick.offset = batch.base + batch.frames;
            state.applied = Some(location);
            origin.note(&mut state.positions, batch.event);
            let rows = batch.rows.num_rows() as u64;
            let malformed = batch.malformed.as_ref().map_or(0, |m| m.num_rows() as u64);
            state.rows += rows;
            state.malformed += malformed;
            if batch.event == Event::Import {
                state.imported.rows += rows;
                state.imported.malformed += malformed;
            }
            state.bytes += batch.bytes;
            let moved = (state.watermark.current(), watermark.current());
            state.watermark = Arc::new(watermark);
            state.rollups.iter_mut().for_each(|attached| attached.note_closed(version, moved));
            self.tell(&mut state);
            break;
        }
        for attached in &rollups {
            let began = Instant::now();
            let kept_up =
                attached.joint.as_ref().filter(|joint| joint.failure().is_none()).map(|joint| joint.keep_up());
            let compacted = kept_up.unwrap_or(Ok(())).and_then(|()| attached.rollup.compact());
            attached.rollup.work.merged(began.elapsed());
            // A full disk has stopped the sources by now: what cannot be moved there stays in memory until there is room.
            let compacted = compacted.or_else(|err| if err.kind() == Kind::DiskFull { Ok(()) } else { Err(err) });
            // A state that cannot be kept stops its view and nothing else.
            if let Err(err) = compacted {
                let mut state = self.state.lock();
                let live = |a: &&mut Attached| Arc::ptr_eq(&a.rollup, &attached.rollup) && a.failure().is_none();
                if let Some(attached) = state.rollups.iter_mut().find(live) {
                    attached.fail(err);
                    self.tell(&mut state);
                }
            }
        }
        drop(order);
        Ok(())
    }

    fn timing(&self, batch: &MicroBatch, late: Vec<LateRow>, before: Arc<Watermark>) -> Timing {
        let times = self.shape.times(&batch.rows).iter().copied();
        let range = times.fold(None, |range: Option<(Micros, Micros)>, t| match range {
            Some((lo, hi)) => Some((lo.min(t), hi.max(t))),
            None => Some((t, t)),
        });
        Timing { range, late, before: self.shape.time.is_some().then_some(before) }
    }

    fn fold_into(&self, folded: &mut Vec<(Arc<Rollup>, Result<Folded>)>, rollups: &[Attached], timed: &Timed) {
        for attached in rollups {
            let done = folded.iter().any(|(r, _)| Arc::ptr_eq(r, &attached.rollup));
            if done || attached.failure().is_some() || timed.rows.num_rows() == 0 {
                continue;
            }
            let result = match &attached.joint {
                None => measured_fold(&attached.rollup, timed).map(Folded::of),
                Some(joint) => {
                    let began = Instant::now();
                    let result = joint.fold(self, timed.rows);
                    attached.rollup.work.folded(timed.rows.num_rows(), began.elapsed());
                    result
                }
            };
            folded.push((Arc::clone(&attached.rollup), result));
        }
    }

    /// Attaches a rollup from the next micro-batch on and returns the offset before which it has to be filled
    /// ([`Runner::backfill`]), if it is not `filled`: with the state of a checkpoint.
    pub fn attach(&self, rollup: Arc<Rollup>, filled: bool) -> u64 {
        let mut state = self.state.lock();
        state.rollups.push(Attached {
            rollup,
            joint: None,
            filled,
            failed: None,
            touched: Touched::default(),
            closed: Touched::default(),
        });
        state.generation += 1;
        // The chunk that rows are in now may get more.
        self.log.cut_at(state.tick.offset);
        state.tick.offset
    }

    /// A rollup has all that the stream had before it was attached. From now on checkpoints keep it.
    pub(super) fn set_filled(&self, rollup: &Rollup) {
        let mut state = self.state.lock();
        state.rollups.iter_mut().filter(|a| std::ptr::eq(&*a.rollup, rollup)).for_each(|a| a.filled = true);
        // Readers were refused so far.
        self.tell(&mut state);
    }

    /// Ends the filling of rollups: no reader of theirs is left, or the server stops.
    pub fn stop_filling(&self) {
        let state = self.state.lock();
        state.rollups.iter().filter(|attached| !attached.filled).for_each(|attached| attached.rollup.close());
    }

    /// Attaches the rollup of a join to both of its streams from their next micro-batches on and returns the chunks before
    /// them, for [`Joint::backfill`], as is what the rollup has already. `left` and `right` are in the order of the join;
    /// `left_first` says which name comes first.
    pub fn attach_joint(
        joint: &Arc<Joint>,
        (left, right): (&Runner, &Runner),
        left_first: bool,
        known: Known,
    ) -> (Vec<Arc<Chunk>>, Vec<Arc<Chunk>>) {
        // No micro-batch is under way on either side that was folded without the other.
        let (first, second) = if left_first { (left, right) } else { (right, left) };
        let _first = first.applying.lock();
        let _second = second.applying.lock();
        for runner in [left, right] {
            let mut state = runner.state.lock();
            let (rollup, joint) = (Arc::clone(&joint.rollup), Some(Arc::clone(joint)));
            let filled = false;
            state.rollups.push(Attached {
                rollup,
                joint,
                filled,
                failed: None,
                touched: Touched::default(),
                closed: Touched::default(),
            });
            state.generation += 1;
        }
        joint.begin(known, left, right)
    }

    /// Folds what the stream already had when the rollup was attached. Ingestion goes on meanwhile: partial states may
    /// be added in any order.
    pub fn backfill(&self, rollup: &Rollup, before: u64) -> Result<()> {
        let filled = self.fill(rollup, before);
        if let Err(err) = &filled {
            let mut state = self.state.lock();
            let mine = state.rollups.iter_mut().find(|a| std::ptr::eq(&*a.rollup, rollup));
            mine.into_iter().for_each(|attached| attached.failed = Some(err.clone()));
            self.tell(&mut state);
        }
        filled
    }

    fn fill(&self, rollup: &Rollup, before: u64) -> Result<()> {
        let fold = |timed: &Timed| -> Result<()> {
            rollup.check_open()?;
            if let Some((_, done)) = &mut *rollup.filling.lock() {
                *done += timed.rows.num_rows() as u64;
            }
            if let Some(run) = measured_fold(rollup, timed)? {
                rollup.add(run);
                rollup.compact()?;
            }
            Ok(())
        };
        // Archive and chunks as of one instant: what moves from one to the other meanwhile is read once.
        let (archived, chunks) = self.log.snapshot();
        let end = archived.as_ref().map_or(0, |archived| archived.rows.end.min(before));
        let rows = |archived: &Archived| archived.rows.rows;
        let all = archived.as_ref().map_or(0, rows) + chunks.iter().map(|chunk| chunk.rows).sum::<u64>();
        *rollup.filling.lock() = Some((all, 0));
        if end > 0 {
            self.backfill_archived(archived.as_ref(), 0..end, rollup, &fold)?;
        }
        let chunks: Vec<_> = chunks.into_iter().filter(|c| c.base >= end && c.base + c.frames <= before).collect();
        for chunk in chunks.iter().chain(chunks.last().filter(|_| on(Mutation::DoubleCountOnBackfill))) {
            let data = self.log.load_kept(chunk, &self.shape)?;
            let malformed = &data.malformed;
            let offsets = Offsets { base: chunk.base, frames: chunk.frames, malformed, listed: None };
            for (first, rows, late) in data.batches() {
                fold(&Timed { rows, times: self.shape.times(rows), late: &late, first, offsets: &offsets })?;
            }
        }
        *rollup.filling.lock() = None;
        self.set_filled(rollup);
        Ok(())
    }

    /// Folds archived rows, in no order: what a rollup is does not depend on the order of its rows.
    fn backfill_archived(
        &self,
        archived: Option<&Archived>,
        offsets: Range<u64>,
        rollup: &Rollup,
        fold: &dyn Fn(&Timed) -> Result<()>,
    ) -> Result<()> {
        let (Some(history), Some(archived)) = (self.log.history(), archived) else { return Ok(()) };
        let own = self.shape.schema();
        let schema = with_own_columns(&own);
        history.read(&archived.rows, &schema, offsets, &mut |batch| {
            // Only lookups ask for offsets; they need them in order.
            let batch = match rollup.references().is_empty() {
                true => batch,
                false => by_offset(&batch)?,
            };
            let column = |name: &str| batch.column_by_name(name).ok_or_else(|| Error::internal("a column is missing"));
            let numbers = column(OFFSET)?.as_primitive::<Int64Type>();
            let late = late_rows(column(WATERMARK)?.as_primitive::<TimestampMicrosecondType>());
            let rows = fit(&batch, &own)?;
            let offsets = Offsets::listed(numbers.values());
            fold(&Timed { rows: &rows, times: self.shape.times(&rows), late: &late, first: 0, offsets: &offsets })
        })
    }

    /// Keeps rows from becoming visible while it is held, and says which offset comes next.
    pub fn hold(&self) -> (MutexGuard<'_, ()>, u64) {
        let held = self.applying.lock();
        let offset = self.state.lock().tick.offset;
        (held, offset)
    }

    pub fn detach(&self, rollup: &Arc<Rollup>) {
        let mut state = self.state.lock();
        state.rollups.retain(|a| !Arc::ptr_eq(&a.rollup, rollup));
        state.generation += 1;
        // Plans that clients prepared may hold the rollup for long; its memory and files are free at once.
        rollup.close();
        rollup.clear();
        self.tell(&mut state);
    }

    /// Keeps nothing for views any more, at the end of the engine.
    pub fn let_go(&self) {
        let rollups = std::mem::take(&mut self.state.lock().rollups);
        drop(rollups);
    }

    /// The rollup with this key, if some view already maintains it.
    pub fn find(&self, key: &str) -> Option<Arc<Rollup>> {
        let state = self.state.lock();
        state.rollups.iter().find(|a| a.rollup.definition.key == key).map(|a| Arc::clone(&a.rollup))
    }

    /// One instant of the stream and the rollups with these keys.
    pub fn snapshot<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Snapshot {
        self.snapshot_of(&self.state.lock(), keys)
    }

    /// One instant of several streams, each with the keys of rollups. All who ask name the streams in the same order.
    pub fn snapshots(reads: &[(&Runner, &[String])]) -> Vec<Snapshot> {
        let states: Vec<_> = reads.iter().map(|(runner, _)| runner.state.lock()).collect();
        let each = reads.iter().zip(&states);
        each.map(|((runner, keys), state)| runner.snapshot_of(state, keys.iter().map(String::as_str))).collect()
    }

    /// The runs of the rollup with this key as of now; `None` where a snapshot tells more: it failed, is being filled, or
    /// joins streams.
    pub fn runs_of(&self, key: &str) -> Option<Vec<Arc<Run>>> {
        let state = self.state.lock();
        let attached = state.rollups.iter().find(|a| a.rollup.definition.key == key)?;
        let is_plain = attached.filled && attached.joint.is_none() && attached.failure().is_none();
        is_plain.then(|| attached.rollup.snapshot())
    }

    fn snapshot_of<'a>(&self, state: &State, keys: impl IntoIterator<Item = &'a str>) -> Snapshot {
        let (mut runs, mut stale) = (HashMap::new(), HashMap::new());
        for key in keys {
            let Some(attached) = state.rollups.iter().find(|a| a.rollup.definition.key == key) else { continue };
            let found = match attached.failure() {
                Some(err) => Err(err),
                None if !attached.filled => Err(still_filling()),
                None => {
                    let (runs, pieces) = attached.rollup.snapshot_with_stale();
                    if let (Some(joint), false) = (&attached.joint, pieces.is_empty()) {
                        stale.insert(key.to_string(), (Arc::clone(joint), pieces));
                    }
                    Ok(runs)
                }
            };
            runs.insert(key.to_string(), found);
        }
        let Tick { offset, version } = state.tick;
        let (archived, chunks) = self.log.snapshot();
        Snapshot { offset, version, watermark: state.watermark.current(), runs, stale, archived, chunks }
    }

    /// How far event time has come.
    pub fn watermark(&self) -> Micros {
        self.state.lock().watermark.current()
    }

    /// The panes of the rollup with this key that may have changed since the snapshot with this version: a closed range
    /// in the unit of the pane column. Of one that shows windows as they close, the ids of those windows.
    pub fn touched(&self, key: &str, since: u64) -> Option<(i64, i64)> {
        let state = self.state.lock();
        state.rollups.iter().find(|a| a.rollup.definition.key == key)?.touched.since(since)
    }

    /// The ids of windows of the rollup with this key that may have closed since the snapshot with this version, where
    /// that does not change what they have.
    pub fn closed(&self, key: &str, since: u64) -> Option<(i64, i64)> {
        let state = self.state.lock();
        state.rollups.iter().find(|a| a.rollup.definition.key == key)?.closed.since(since)
    }

    /// What failed in the rollup with this key, if it did.
    pub fn failure(&self, key: &str) -> Option<Error> {
        let state = self.state.lock();
        state.rollups.iter().find(|a| a.rollup.definition.key == key).and_then(Attached::failure)
    }

    /// Whether this bounded partition is known to have been read to its end.
    pub fn has_ended(&self, partition: &str) -> bool {
        self.state.lock().watermark.has_ended(partition)
    }

    /// Whether a tick at wall time `now` would close a window. `written` is the offset up to which frames are logged: as
    /// long as some are on their way here, time does not pass without them.
    pub fn is_due(&self, written: u64, now: Micros) -> bool {
        let state = self.state.lock();
        // Windows over a join do not close.
        let windows = state.rollups.iter().filter(|a| a.joint.is_none()).filter_map(|a| {
            let definition = &a.rollup.definition;
            definition.pane.map(|pane| (pane.window, definition.lateness))
        });
        state.tick.offset == written && state.watermark.is_due(now, windows)
    }

    /// Positions of a source that were noted before `old`, so many at most, behind the first `skip` of them.
    pub fn old_positions(&self, source: u32, old: Micros, skip: usize, most: usize) -> Vec<Position> {
        let state = self.state.lock();
        let all = state.positions.get(&source).into_iter().flat_map(|positions| positions.values());
        all.filter(|noted| noted.at < old).skip(skip).take(most).map(|noted| noted.position.clone()).collect()
    }

    /// Forgets those positions of a source with these keys that were noted before `old`. Gives how many.
    pub fn forget_positions(&self, source: u32, keys: &[String], old: Micros) -> usize {
        let mut state = self.state.lock();
        let Some(positions) = state.positions.get_mut(&source) else { return 0 };
        let before = positions.len();
        for key in keys {
            if positions.get(key).is_some_and(|noted| noted.at < old) {
                positions.remove(key);
            }
        }
        before - positions.len()
    }

    /// The figures as of now.
    pub fn progress(&self) -> Progress {
        let state = self.state.lock();
        Progress {
            offset: state.tick.offset,
            version: state.tick.version,
            rows: state.rows,
            malformed: state.malformed,
            bytes: state.bytes,
            imported: state.imported,
            watermark: Arc::clone(&state.watermark),
        }
    }
}

impl Attached {
    fn failure(&self) -> Option<Error> {
        self.failed.clone().or_else(|| self.joint.as_ref().and_then(|joint| joint.failure()))
    }

    /// A rollup of windows that are shown when they close changes when the watermark moves, and only then. Of others it is
    /// noted which windows have closed.
    fn note_closed(&mut self, version: u64, (from, to): (Micros, Micros)) {
        let rollup = Arc::clone(&self.rollup);
        let definition = &rollup.definition;
        if from == to {
            return;
        }
        let noted = match definition.timeliness {
            Timeliness::All => &mut self.closed,
            Timeliness::OnTime => &mut self.touched,
        };
        let Some(pane) = definition.pane else { return };
        let (from, to) = (from.saturating_sub(definition.lateness), to.saturating_sub(definition.lateness));
        if pane.window.is_session() || from < Micros::MIN / 2 || to > Micros::MAX / 2 {
            noted.note(version, (i64::MIN, i64::MAX));
        } else if pane.window.next_end(from) <= to {
            let last = pane.window.last_end_until(to);
            let ids = (pane.window.id_of_end(pane.window.next_end(from)), pane.window.id_of_end(last));
            noted.note(version, ids);
        }
    }

    /// A query that fails on a row (a division by zero, a cast) fails as a batch would: its readers get the error, the
    /// stream and other views go on.
    fn fail(&mut self, err: Error) {
        tracing::error!(stream = %self.rollup.definition.stream, error = %err, "a view's query failed; the view is stopped");
        if let Some(joint) = &self.joint {
            joint.fail(&err);
        }
        self.rollup.clear();
        self.failed = Some(err);
    }
}

/// Holds the other streams still that rollups of this one read too. In the order of their keys, as all do who take several.
fn order_of(rollups: &[Attached]) -> Vec<MutexGuard<'_, ()>> {
    let mut joined: Vec<_> =
        rollups.iter().filter_map(|a| Some((&a.rollup.definition.key, a.joint.as_ref()?))).collect();
    joined.sort_by_key(|(key, _)| *key);
    joined.into_iter().map(|(_, joint)| joint.order()).collect()
}

fn still_filling() -> Error {
    Error::new(Kind::NotReady, "the view is still being filled from the stream's history")
        .with_hint("See its progress in logweir.views; it answers when it is complete.")
}

/// The rows of a batch from the archive by their offset.
fn by_offset(batch: &RecordBatch) -> Result<RecordBatch> {
    let offsets = batch.column_by_name(OFFSET).ok_or_else(|| Error::internal("a column is missing"))?;
    Ok(take_record_batch(batch, &sort_to_indices(offsets, None, None)?)?)
}

fn measured_fold(rollup: &Rollup, timed: &Timed) -> Result<Option<Run>> {
    let began = Instant::now();
    let run = rollup.fold(timed);
    rollup.work.folded(timed.rows.num_rows(), began.elapsed());
    run
}
