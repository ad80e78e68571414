//! Applies a stream's micro-batches: rows to the hot store, partial states to every rollup, event times to the
//! watermark, and all of it visible at once.
//!
//! Folding happens outside the lock; publishing happens inside it and is a few pushes. So a reader's snapshot is always
//! "everything up to offset N", for the stream and all its views alike, and readers never wait for a fold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use parking_lot::{Mutex, MutexGuard};

use crate::batch::{MicroBatch, Shape};
use crate::error::{Error, Kind, Result};
use crate::rollup::Rollup;
use crate::rollup::pane::Run;
use crate::rollup::reference::Offsets;
use crate::rollup::watermark::Watermark;
use crate::storage::hot::Chunk;
use crate::storage::stream_log::StreamLog;
use crate::storage::wal::Location;
use crate::time::Micros;

/// The live part of one stream.
pub struct Runner {
    pub shape: Arc<Shape>,
    pub log: Arc<StreamLog>,
    /// Bytes that the state of one rollup may take.
    view_memory: u64,
    /// Held while a micro-batch is folded and published.
    applying: Mutex<()>,
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
    watermark: Watermark,
    rollups: Vec<Attached>,
    /// Changes when a rollup comes or goes.
    generation: u64,
}

/// One instant of a stream.
pub struct Snapshot {
    /// Frames before this offset are in it.
    pub offset: u64,
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
    pub watermark: Watermark,
}

impl Runner {
    pub fn new(shape: Arc<Shape>, log: Arc<StreamLog>, watermark: Watermark, view_memory: u64) -> Runner {
        let state = State { offset: 0, rows: 0, malformed: 0, bytes: 0, watermark, rollups: Vec::new(), generation: 0 };
        Runner { shape, log, view_memory, applying: Mutex::new(()), state: Mutex::new(state) }
    }

    /// Applies one micro-batch, parsed from the WAL record at `location`. Batches come in offset order, from one thread.
    pub fn apply(&self, batch: &MicroBatch, location: Location) -> Result<()> {
        let _applying = self.applying.lock();
        let (mut generation, rollups) = {
            let state = self.state.lock();
            (state.generation, state.rollups.clone())
        };
        let mut folded: Vec<(Arc<Rollup>, Result<Option<Run>>)> = Vec::new();
        fold_into(&mut folded, &rollups, batch);

        let times = self.shape.times(&batch.rows);
        let range = times.iter().copied().fold(None, |range: Option<(Micros, Micros)>, t| match range {
            Some((lo, hi)) => Some((lo.min(t), hi.max(t))),
            None => Some((t, t)),
        });
        loop {
            let mut state = self.state.lock();
            if state.generation != generation {
                // A view came between folding and publishing: its rollup must not miss this batch.
                generation = state.generation;
                let rollups = state.rollups.clone();
                drop(state);
                fold_into(&mut folded, &rollups, batch);
                continue;
            }
            self.log.publish(batch, location, range)?;
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
            state.watermark.observe(&batch.partition, times, batch.ingest_time);
            break;
        }
        for attached in rollups {
            let began = Instant::now();
            attached.rollup.compact()?;
            attached.rollup.work.merged(began.elapsed());
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
        for chunk in chunks {
            let data = self.log.load(chunk, &self.shape)?;
            let offsets = Offsets { base: chunk.base, frames: chunk.frames, malformed: &data.malformed };
            let mut first = 0;
            for rows in &data.rows {
                if let Some(run) = timed_fold(rollup, rows, first, &offsets)? {
                    rollup.add(run);
                    rollup.compact()?;
                    self.check_size(rollup)?;
                }
                first += rows.num_rows();
            }
        }
        Ok(())
    }

    /// Keeps rows from becoming visible while it is held, and says which offset comes next.
    pub fn hold(&self) -> (MutexGuard<'_, ()>, u64) {
        let held = self.applying.lock();
        let offset = self.state.lock().offset;
        (held, offset)
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
        Snapshot { offset: state.offset, runs: runs.collect(), chunks: self.log.snapshot() }
    }

    /// What failed in the rollup with this key, if it did.
    pub fn failure(&self, key: &str) -> Option<Error> {
        let state = self.state.lock();
        state.rollups.iter().find(|a| a.rollup.definition.key == key).and_then(|a| a.failed.clone())
    }

    /// Notes that a bounded partition was read to its end.
    pub fn partition_ended(&self, partition: &str) {
        self.state.lock().watermark.end(partition);
    }

    /// Figures as of wall time `now`.
    pub fn progress(&self, now: Micros) -> Progress {
        let mut state = self.state.lock();
        state.watermark.advance(now);
        Progress {
            offset: state.offset,
            rows: state.rows,
            malformed: state.malformed,
            bytes: state.bytes,
            watermark: state.watermark.clone(),
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

fn fold_into(folded: &mut Vec<(Arc<Rollup>, Result<Option<Run>>)>, rollups: &[Attached], batch: &MicroBatch) {
    for attached in rollups {
        let done = folded.iter().any(|(r, _)| Arc::ptr_eq(r, &attached.rollup));
        if !done && attached.failed.is_none() && batch.rows.num_rows() > 0 {
            let malformed = batch.malformed.as_slice();
            let offsets = Offsets { base: batch.base, frames: batch.frames, malformed };
            folded.push((Arc::clone(&attached.rollup), timed_fold(&attached.rollup, &batch.rows, 0, &offsets)));
        }
    }
}

fn timed_fold(rollup: &Rollup, rows: &RecordBatch, first: usize, offsets: &Offsets<'_>) -> Result<Option<Run>> {
    let began = Instant::now();
    let run = rollup.fold_at(rows, first, offsets);
    rollup.work.folded(rows.num_rows(), began.elapsed());
    run
}
