//! Applies a stream's micro-batches: rows to the hot store, partial states to every rollup, event times to the
//! watermark, and all of it visible at once.
//!
//! Folding happens outside the lock; publishing happens inside it and is a few pushes. So a reader's snapshot is always
//! "everything up to offset N", for the stream and all its views alike, and readers never wait for a fold.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::batch::{MicroBatch, Shape};
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, on};
use crate::rollup::Rollup;
use crate::rollup::pane::Run;
use crate::rollup::timeliness::{Timed, Timeliness};
use crate::rollup::watermark::Watermark;
use crate::storage::hot::{Chunk, Timing};
use crate::storage::stream_log::{StreamLog, watch};
use crate::storage::wal::Location;
use crate::time::Micros;

/// The live part of one stream.
pub struct Runner {
    pub shape: Arc<Shape>,
    pub log: Arc<StreamLog>,
    /// Bytes that the state of one rollup may take.
    view_memory: u64,
    state: Mutex<State>,
}

/// A rollup with what went wrong, if its query failed on some row.
#[derive(Clone)]
struct Attached {
    rollup: Arc<Rollup>,
    failed: Option<Error>,
}

struct State {
    /// Everything before this offset is visible.
    offset: u64,
    rows: u64,
    malformed: u64,
    bytes: u64,
    watermark: Arc<Watermark>,
    rollups: Vec<Attached>,
    /// Changes when a rollup comes or goes.
    generation: u64,
}

/// One instant of a stream.
pub struct Snapshot {
    /// Frames before this offset are in it.
    pub offset: u64,
    pub watermark: Micros,
    pub chunks: Vec<Arc<Chunk>>,
    /// By rollup key.
    pub runs: HashMap<String, Result<Vec<Arc<Run>>>>,
}

/// Figures for system relations.
#[derive(Debug, Clone)]
pub struct Progress {
    pub offset: u64,
    pub rows: u64,
    pub malformed: u64,
    pub bytes: u64,
    pub watermark: Arc<Watermark>,
}

impl Runner {
    pub fn new(shape: Arc<Shape>, log: Arc<StreamLog>, watermark: Watermark, view_memory: u64) -> Runner {
        let watermark = Arc::new(watermark);
        let state = State { offset: 0, rows: 0, malformed: 0, bytes: 0, watermark, rollups: Vec::new(), generation: 0 };
        Runner { shape, log, view_memory, state: Mutex::new(state) }
    }

    /// Applies one micro-batch, parsed from the WAL record at `location`. Batches come in offset order, from one thread.
    pub fn apply(&self, batch: &MicroBatch, location: Location) -> Result<()> {
        let (mut generation, rollups, before) = {
            let state = self.state.lock();
            (state.generation, state.rollups.clone(), Arc::clone(&state.watermark))
        };
        let mut watermark = before.as_ref().clone();
        let late = watch(&mut watermark, batch, &self.shape);
        let times = self.shape.times(&batch.rows);
        let timed = Timed { rows: &batch.rows, times, late: &late };
        let mut folded: Vec<(Arc<Rollup>, Result<Option<Run>>)> = Vec::new();
        fold_into(&mut folded, &rollups, &timed);

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
                fold_into(&mut folded, &rollups, &timed);
                continue;
            }
            if batch.frames > 0 {
                self.log.publish(batch, location, timing)?;
            }
            for (rollup, result) in folded.drain(..) {
                let Some(attached) = state.rollups.iter_mut().find(|a| Arc::ptr_eq(&a.rollup, &rollup)) else {
                    continue;
                };
                match result {
                    Ok(Some(run)) => rollup.add(run),
                    Ok(None) => {}
                    Err(err) => attached.fail(err),
                }
            }
            state.offset = batch.base + batch.frames;
            state.rows += batch.rows.num_rows() as u64;
            state.malformed += batch.malformed.as_ref().map_or(0, |m| m.num_rows() as u64);
            state.bytes += batch.bytes;
            state.watermark = Arc::new(watermark);
            break;
        }
        for attached in rollups {
            attached.rollup.compact()?;
            if let Err(err) = self.check_size(&attached.rollup) {
                let mut state = self.state.lock();
                let live = |a: &&mut Attached| Arc::ptr_eq(&a.rollup, &attached.rollup) && a.failed.is_none();
                if let Some(attached) = state.rollups.iter_mut().find(live) {
                    attached.fail(err);
                }
            }
        }
        Ok(())
    }

    fn check_size(&self, rollup: &Rollup) -> Result<()> {
        let bytes = rollup.bytes() as u64;
        if bytes <= self.view_memory {
            return Ok(());
        }
        let message =
            format!("the view's state takes {bytes} bytes, more than view-memory allows ({})", self.view_memory);
        Err(Error::new(Kind::ResourceLimit, message)
            .with_hint("Group by fewer values, use larger windows, or start the server with a larger --view-memory."))
    }

    /// Attaches a rollup from the next micro-batch on and returns the chunks before it, for [`Runner::backfill`].
    pub fn attach(&self, rollup: Arc<Rollup>) -> Vec<Arc<Chunk>> {
        let mut state = self.state.lock();
        state.rollups.push(Attached { rollup, failed: None });
        state.generation += 1;
        self.log.snapshot()
    }

    /// Folds what the stream already had when the rollup was attached. Ingestion goes on meanwhile: partial states may
    /// be added in any order.
    pub fn backfill(&self, rollup: &Rollup, chunks: &[Arc<Chunk>]) -> Result<()> {
        let fold = |timed: &Timed| -> Result<()> {
            if let Some(run) = rollup.fold(timed)? {
                rollup.add(run);
                rollup.compact()?;
                self.check_size(rollup)?;
            }
            Ok(())
        };
        let again = chunks.last().filter(|_| on(Mutation::DoubleCountOnBackfill));
        for chunk in chunks.iter().chain(again) {
            if chunk.late > 0 && rollup.definition.timeliness != Timeliness::All {
                self.log.replay(chunk, &self.shape, &mut |batch, late| {
                    fold(&Timed { rows: &batch.rows, times: self.shape.times(&batch.rows), late: &late })
                })?;
                continue;
            }
            for rows in &self.log.load(chunk, &self.shape)?.rows {
                fold(&Timed { rows, times: self.shape.times(rows), late: &[] })?;
            }
        }
        Ok(())
    }

    pub fn detach(&self, rollup: &Arc<Rollup>) {
        let mut state = self.state.lock();
        state.rollups.retain(|a| !Arc::ptr_eq(&a.rollup, rollup));
        state.generation += 1;
    }

    /// The rollup with this key, if some view already maintains it.
    pub fn find(&self, key: &str) -> Option<Arc<Rollup>> {
        let state = self.state.lock();
        state.rollups.iter().find(|a| a.rollup.definition.key == key).map(|a| Arc::clone(&a.rollup))
    }

    /// One instant of the stream and the rollups with these keys.
    pub fn snapshot<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Snapshot {
        let state = self.state.lock();
        let runs = keys.into_iter().filter_map(|key| {
            let attached = state.rollups.iter().find(|a| a.rollup.definition.key == key)?;
            let runs = match &attached.failed {
                Some(err) => Err(err.clone()),
                None => Ok(attached.rollup.snapshot()),
            };
            Some((key.to_string(), runs))
        });
        let watermark = state.watermark.current();
        Snapshot { offset: state.offset, watermark, runs: runs.collect(), chunks: self.log.snapshot() }
    }

    /// What failed in the rollup with this key, if it did.
    pub fn failure(&self, key: &str) -> Option<Error> {
        let state = self.state.lock();
        state.rollups.iter().find(|a| a.rollup.definition.key == key).and_then(|a| a.failed.clone())
    }

    /// Whether this bounded partition is known to have been read to its end.
    pub fn has_ended(&self, partition: &str) -> bool {
        self.state.lock().watermark.has_ended(partition)
    }

    /// Whether a tick at wall time `now` would close a window. `written` is the offset up to which frames are logged: as
    /// long as some are on their way here, time does not pass without them.
    pub fn is_due(&self, written: u64, now: Micros) -> bool {
        let state = self.state.lock();
        let windows = state.rollups.iter().filter_map(|a| {
            let definition = &a.rollup.definition;
            definition.pane.map(|pane| (pane.window, definition.lateness))
        });
        state.offset == written && state.watermark.is_due(now, windows)
    }

    /// The figures as of now.
    pub fn progress(&self) -> Progress {
        let state = self.state.lock();
        Progress {
            offset: state.offset,
            rows: state.rows,
            malformed: state.malformed,
            bytes: state.bytes,
            watermark: Arc::clone(&state.watermark),
        }
    }
}

impl Attached {
    /// A query that fails on a row (a division by zero, a cast) fails as a batch would: its readers get the error, the
    /// stream and other views go on.
    fn fail(&mut self, err: Error) {
        tracing::error!(stream = %self.rollup.definition.stream, error = %err, "a view's query failed; the view is stopped");
        self.rollup.clear();
        self.failed = Some(err);
    }
}

fn fold_into(folded: &mut Vec<(Arc<Rollup>, Result<Option<Run>>)>, rollups: &[Attached], timed: &Timed) {
    for attached in rollups {
        let done = folded.iter().any(|(r, _)| Arc::ptr_eq(r, &attached.rollup));
        if !done && attached.failed.is_none() && timed.rows.num_rows() > 0 {
            folded.push((Arc::clone(&attached.rollup), attached.rollup.fold(timed)));
        }
    }
}
