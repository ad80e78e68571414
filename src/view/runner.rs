//! Applies a stream's micro-batches: rows to the hot store, partial states to every rollup, event times to the
//! watermark, and all of it visible at once.
//!
//! Folding happens outside the lock; publishing happens inside it and is a few pushes. So a reader's snapshot is always
//! "everything up to offset N", for the stream and all its views alike, and readers never wait for a fold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::changes::Touched;
use super::join::{Folded, Joint};
use crate::batch::{Event, MicroBatch, Shape};
use crate::error::{Error, Result};
use crate::mutation::{Mutation, on};
use crate::rollup::Rollup;
use crate::rollup::pane::Run;
use crate::rollup::reference::Offsets;
use crate::rollup::timeliness::{Timed, Timeliness};
use crate::rollup::unmatched::Stale;
use crate::rollup::watermark::Watermark;
use crate::storage::hot::{Chunk, Timing};
use crate::storage::stream_log::{StreamLog, watch};
use crate::storage::wal::Location;
use crate::time::Micros;

/// The live part of one stream.
pub struct Runner {
    pub shape: Arc<Shape>,
    pub log: Arc<StreamLog>,
    /// Held while a micro-batch is folded and published.
    applying: Mutex<()>,
    state: Mutex<State>,
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
    failed: Option<Error>,
    /// Which windows changed lately, for subscriptions.
    touched: Touched,
}

struct State {
    /// Everything before the offset is visible.
    tick: Tick,
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
    pub rows: u64,
    pub malformed: u64,
    pub bytes: u64,
    pub imported: Imported,
    pub watermark: Arc<Watermark>,
}

impl Runner {
    pub fn new(shape: Arc<Shape>, log: Arc<StreamLog>, watermark: Watermark) -> Runner {
        let watermark = Arc::new(watermark);
        let tick = Tick::default();
        let (imported, rollups) = (Imported::default(), Vec::new());
        let state = State { tick, rows: 0, malformed: 0, bytes: 0, imported, watermark, rollups, generation: 0 };
        let (applying, state, ticks) = (Mutex::new(()), Mutex::new(state), watch::Sender::new(tick));
        Runner { shape, log, applying, state, ticks }
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

    /// Applies one micro-batch, parsed from the WAL record at `location`. Batches come in offset order, from one thread.
    pub fn apply(&self, batch: &MicroBatch, location: Location) -> Result<()> {
        let _applying = self.applying.lock();
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

        let range = times.iter().copied().fold(None, |range: Option<(Micros, Micros)>, t| match range {
            Some((lo, hi)) => Some((lo.min(t), hi.max(t))),
            None => Some((t, t)),
        });
        let before = self.shape.time.is_some().then_some(before);
        let timing = Timing { range, late: late.len() as u64, before };
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
                            Some(joint) => joint.publish(self, chunk, folded),
                            None => folded.run.into_iter().for_each(|run| rollup.add(run)),
                        }
                    }
                    Err(err) => attached.fail(err),
                }
            }
            state.tick.offset = batch.base + batch.frames;
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
            // A state that cannot be kept (its disk is full) stops its view and nothing else.
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

    /// Attaches a rollup from the next micro-batch on and returns the chunks before it, for [`Runner::backfill`].
    pub fn attach(&self, rollup: Arc<Rollup>) -> Vec<Arc<Chunk>> {
        let mut state = self.state.lock();
        state.rollups.push(Attached { rollup, joint: None, failed: None, touched: Touched::default() });
        state.generation += 1;
        self.log.snapshot()
    }

    /// Attaches the rollup of a join to both of its streams from their next micro-batches on and returns the chunks before
    /// them, for [`Joint::backfill`]. `left` and `right` are in the order of the join; `left_first` says which name comes first.
    pub fn attach_joint(
        joint: &Arc<Joint>,
        (left, right): (&Runner, &Runner),
        left_first: bool,
    ) -> (Vec<Arc<Chunk>>, Vec<Arc<Chunk>>) {
        // No micro-batch is under way on either side that was folded without the other.
        let (first, second) = if left_first { (left, right) } else { (right, left) };
        let _first = first.applying.lock();
        let _second = second.applying.lock();
        for runner in [left, right] {
            let mut state = runner.state.lock();
            let (rollup, joint) = (Arc::clone(&joint.rollup), Some(Arc::clone(joint)));
            state.rollups.push(Attached { rollup, joint, failed: None, touched: Touched::default() });
            state.generation += 1;
        }
        let chunks = left.log.snapshot();
        joint.begin(&chunks);
        (chunks, right.log.snapshot())
    }

    /// Folds what the stream already had when the rollup was attached. Ingestion goes on meanwhile: partial states may
    /// be added in any order.
    pub fn backfill(&self, rollup: &Rollup, chunks: &[Arc<Chunk>]) -> Result<()> {
        let fold = |timed: &Timed| -> Result<()> {
            if let Some(run) = measured_fold(rollup, timed)? {
                rollup.add(run);
                rollup.compact()?;
            }
            Ok(())
        };
        for chunk in chunks.iter().chain(chunks.last().filter(|_| on(Mutation::DoubleCountOnBackfill))) {
            if chunk.late > 0 && rollup.definition.pane.is_some() {
                self.log.replay(chunk, &self.shape, &mut |batch, late| {
                    let offsets = Offsets::of(&batch);
                    let times = self.shape.times(&batch.rows);
                    fold(&Timed { rows: &batch.rows, times, late: &late, first: 0, offsets: &offsets })
                })?;
                continue;
            }
            let data = self.log.load(chunk, &self.shape)?;
            let offsets = Offsets { base: chunk.base, frames: chunk.frames, malformed: &data.malformed };
            let mut first = 0;
            for rows in &data.rows {
                fold(&Timed { rows, times: self.shape.times(rows), late: &[], first, offsets: &offsets })?;
                first += rows.num_rows();
            }
        }
        Ok(())
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
        rollup.clear();
        self.tell(&mut state);
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

    fn snapshot_of<'a>(&self, state: &State, keys: impl IntoIterator<Item = &'a str>) -> Snapshot {
        let (mut runs, mut stale) = (HashMap::new(), HashMap::new());
        for key in keys {
            let Some(attached) = state.rollups.iter().find(|a| a.rollup.definition.key == key) else { continue };
            let found = match attached.failure() {
                Some(err) => Err(err),
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
        Snapshot { offset, version, watermark: state.watermark.current(), runs, stale, chunks: self.log.snapshot() }
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

    /// The figures as of now.
    pub fn progress(&self) -> Progress {
        let state = self.state.lock();
        Progress {
            offset: state.tick.offset,
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

    /// A rollup of windows that are shown when they close changes when the watermark moves, and only then.
    fn note_closed(&mut self, version: u64, (from, to): (Micros, Micros)) {
        let definition = &self.rollup.definition;
        if definition.timeliness == Timeliness::All || from == to {
            return;
        }
        let Some(pane) = definition.pane else { return };
        let (from, to) = (from.saturating_sub(definition.lateness), to.saturating_sub(definition.lateness));
        if pane.window.is_session() || from < Micros::MIN / 2 || to > Micros::MAX / 2 {
            self.touched.note(version, (i64::MIN, i64::MAX));
        } else if pane.window.next_end(from) <= to {
            let last = pane.window.last_end_until(to);
            let ids = (pane.window.id_of_end(pane.window.next_end(from)), pane.window.id_of_end(last));
            self.touched.note(version, ids);
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

fn measured_fold(rollup: &Rollup, timed: &Timed) -> Result<Option<Run>> {
    let began = Instant::now();
    let run = rollup.fold(timed);
    rollup.work.folded(timed.rows.num_rows(), began.elapsed());
    run
}
