//! Drives a stream: sources → WAL → rows → views, each stage on a thread of its own, with bounded queues between them.
//!
//! ```text
//!     source thread (one per source)     log thread            rows thread          views thread
//!     poll ──► frames + position ──►     append to WAL  ──►    parse        ──►     fold, publish
//!     push ──► frames + key      ──►          │
//!       ▲      (2 blocks)                     │  (2 blocks)           (2 blocks)
//!       └── acknowledge, answer ◄── acknowledge thread: synced
//! ```
//!
//! Sources, formats and rollups do not log, count or retry: it is done here, once for all of them. A full queue makes
//! the source wait: that is all the backpressure there is. A restart replays the WAL through the same stages before the
//! sources go on behind the last durable frame of each partition.
//!
//! [`drive`] is the thread of a source, [`push`] is for those who hand in frames themselves, [`inlet`] the queue of both,
//! [`log`] the stage that appends, [`acknowledge`] tells them when that is durable, [`deferred`] is a source to be.
//!
//! Time is an input like frames are. When a stream is silent and event time, going on with the wall clock, has closed a
//! window, an entry without frames (a tick) is logged; so is the end of a bounded source. The watermark is thus a
//! function of the log, and a restart finds the same windows closed and the same rows late.
//!
//! While the disk is full the log stage waits, so all sources do; reads go on. It resumes by itself when there is room.
//!
//! Rows become visible when they are written to the WAL; FLUSH also waits until they are synced. A crash in between
//! loses nothing: the source is read again from the last durable position.

mod acknowledge;
mod deferred;
mod drive;
mod inlet;
mod log;
mod push;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::batch::{Input, MicroBatch, Shape};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::position::Position;
use crate::source::Source;
use crate::storage::space::Space;
use crate::storage::stream_log::{HTTP, IMPORTS, INSERTS, Origin, Positions};
use crate::storage::wal::Location;
use crate::time::{Clock, Micros};
use crate::view::runner::Runner;
use acknowledge::Receipt;
pub use deferred::Deferred;
use drive::{Control, drive};
pub use drive::{SourceStatus, StatusInner};
use inlet::{Inlet, bounded};
use log::LogStage;
use push::{Batch, Room};
pub use push::{Push, Pushed};

/// Blocks that may wait between two stages. With blocks of a few MiB this bounds a stream's queues to some 30 MiB, and with
/// what may be pushed at once ([`Start::push_bytes`]).
const QUEUE: usize = 2;

/// Positions that a source is asked about at once.
const MOST_ASKED: usize = 10_000;

/// Told when a FLUSH has come through: dropping it also counts (the stage ended).
pub type Done = tokio::sync::oneshot::Sender<()>;

/// What one stage hands to the next: `T` is what it works on.
enum Item<T> {
    Work(T),
    /// Everything before this is durable and visible when `Done` is told.
    Barrier(Done),
}

/// What a source thread sends, and whoever pushes.
enum Block {
    /// `receipt`: for a source that wants to know when they are durable.
    Frames {
        source: u32,
        position: Position,
        frames: Frames,
        receipt: Option<Receipt>,
    },
    /// A partition (its name and key) that will not come back.
    Gone {
        source: u32,
        partition: (String, String),
    },
    /// These bounded partitions were read to their end, and with them the source; without one, it was removed.
    Ended(Option<u32>, Vec<String>),
    Pushed(Batch),
}

/// What came, and then its rows, with the place of the record in the log.
type Logged = (Input, Origin);
type Parsed = (MicroBatch, Origin);

/// A source and its controls.
struct Driven {
    status: Arc<SourceStatus>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

type Sources = Arc<Mutex<Vec<Driven>>>;

/// Of figures: names and values.
type Labels = Vec<(&'static str, String)>;

/// The running pipeline of one stream.
pub struct Ingest {
    pub stream: String,
    pub runner: Arc<Runner>,
    sources: Sources,
    /// Of what is pushed to the stream itself.
    pushed: [Arc<SourceStatus>; 2],
    inlet: Mutex<Option<Inlet<Item<Block>>>>,
    room: Room,
    stages: Mutex<Vec<JoinHandle<()>>>,
    /// Where sources go on.
    positions: Positions,
    failure: Arc<Mutex<Option<Error>>>,
    /// Ends the waiting for room on the disk.
    stopping: Arc<AtomicBool>,
    space: Arc<Space>,
    clock: Clock,
}

/// Where a pipeline begins.
pub struct Start {
    /// Where sources go on.
    pub positions: Positions,
    /// The first record of the log to be read again; `None`: the oldest there is.
    pub from: Option<Location>,
    pub space: Arc<Space>,
    pub clock: Clock,
    /// Bytes of frames that may have been pushed and not be logged yet.
    pub push_bytes: u64,
}

impl Ingest {
    /// Replays the WAL and then accepts frames. Returns at once; a [`Ingest::barrier`] waits for the replay.
    pub fn start(stream: &str, runner: Arc<Runner>, start: Start) -> Result<Arc<Ingest>> {
        let Start { positions, from, space, clock, push_bytes } = start;
        let (inlet, blocks) = bounded::<Item<Block>>(QUEUE);
        let (logged, to_parse) = sync_channel::<Item<Logged>>(QUEUE);
        let (parsed, to_apply) = sync_channel::<Item<Parsed>>(QUEUE);
        let (owed, to_tell) = sync_channel(acknowledge::WAITING);
        let failure = Arc::new(Mutex::new(None));

        let (sources, stopping) = (Sources::default(), Arc::new(AtomicBool::new(false)));
        let log = LogStage {
            runner: Arc::clone(&runner),
            from,
            clock: clock.clone(),
            space: Arc::clone(&space),
            stopping: Arc::clone(&stopping),
            sources: Arc::clone(&sources),
            owed,
        };
        let (shape, synced, viewer) = (Arc::clone(&runner.shape), Arc::clone(&runner.log), Arc::clone(&runner));
        let acknowledging = move || {
            acknowledge::run(synced.wal(), &to_tell);
            Ok(())
        };
        let stages = vec![
            stage(stream, "log", &failure, move || log.run(&blocks, &logged))?,
            stage(stream, "acknowledge", &failure, acknowledging)?,
            stage(stream, "rows", &failure, move || rows_stage(&shape, &to_parse, &parsed))?,
            stage(stream, "views", &failure, move || views_stage(&viewer, &to_apply))?,
        ];
        Ok(Arc::new(Ingest {
            stream: stream.to_string(),
            runner,
            sources,
            pushed: [(INSERTS, "insert", "sql"), (HTTP, "http", "http")]
                .map(|(id, name, connector)| Arc::new(SourceStatus::new(id, name, connector))),
            inlet: Mutex::new(Some(inlet)),
            room: Room::new(push_bytes),
            stages: Mutex::new(stages),
            positions,
            failure,
            stopping,
            space,
            clock,
        }))
    }

    /// Starts sources, each on a thread of its own, behind their last durable positions. Those of a stream start together:
    /// it ends when all of them have.
    pub fn add_sources(&self, sources: Vec<(Box<dyn Source>, Arc<SourceStatus>)>) -> Result<()> {
        let mut ready = Vec::new();
        let included: Vec<_> = self.runner.shape.includes.iter().map(|include| include.kind).collect();
        for (mut source, status) in sources {
            let control = Arc::new(Control::default());
            source.set_waker(control.waker());
            source.include(&included);
            let known = self.positions.get(&status.id).into_iter().flat_map(|known| known.values());
            source.resume(known.map(|noted| noted.position.clone()).collect())?;
            // Known when the statement that made it is done, not some time after.
            status.listens(source.as_ref());
            ready.push((source, status, control));
        }
        let inlet = self.inlet.lock().clone().ok_or_else(stopped)?;
        let mut driven = self.sources.lock();
        let first = driven.len();
        for (_, status, control) in &ready {
            driven.push(Driven { status: Arc::clone(status), control: Arc::clone(control), thread: None });
        }
        for (at, (source, status, control)) in ready.into_iter().enumerate() {
            let (name, stream) = (format!("source {}", status.name), self.stream.clone());
            let (inlet, clock, labels) = (inlet.clone(), self.clock.clone(), self.labels(&status));
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || drive(&stream, source, &status, &control, (&inlet, &labels), &clock));
            match thread {
                Ok(thread) => driven[first + at].thread = Some(thread),
                Err(err) => {
                    // Those without a thread never were.
                    driven.truncate(first + at);
                    return Err(Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}")));
                }
            }
        }
        Ok(())
    }

    /// The same for one.
    pub fn add_source(&self, source: Box<dyn Source>, status: Arc<SourceStatus>) -> Result<()> {
        self.add_sources(vec![(source, status)])
    }

    /// Stops a source and waits for its thread. What it has handed out goes its way.
    pub fn remove_source(&self, id: u32) {
        let mut sources = self.sources.lock();
        let Some(at) = sources.iter().position(|d| d.status.id == id) else { return };
        let mut driven = sources.remove(at);
        drop(sources);
        driven.control.stop();
        join(driven.thread.take());
        let inlet = self.inlet.lock().clone();
        if let (Some(inlet), true) = (inlet, id != IMPORTS) {
            // It may have been the last one that had not ended.
            let _ = inlet.send(Item::Work(Block::Ended(None, Vec::new())));
        }
    }

    /// Asks all sources to hand out what they can read now; each receiver is told when that is durable and visible.
    pub fn flush(&self) -> Result<Vec<tokio::sync::oneshot::Receiver<()>>> {
        if let Some(err) = self.failure.lock().clone() {
            return Err(err);
        }
        let mut waits = Vec::new();
        for driven in self.sources.lock().iter() {
            let (done, wait) = tokio::sync::oneshot::channel();
            driven.control.flush(done);
            waits.push(wait);
        }
        Ok(waits)
    }

    /// Forgets positions that are old by now and that their sources said they do not need, and asks about others.
    pub fn forget_positions(&self, now: Micros) {
        for driven in self.sources.lock().iter() {
            let Some(after) = driven.status.forget_after else { continue };
            let old = now.saturating_sub(after);
            let id = driven.status.id;
            let mut review = driven.control.review.lock();
            let forgotten = self.runner.forget_positions(id, &std::mem::take(&mut review.unneeded), old);
            if forgotten > 0 {
                tracing::info!(stream = %self.stream, source = %driven.status.name, forgotten, "positions of partitions that are gone were forgotten");
            }
            review.done = review.done.saturating_sub(forgotten);
            review.asked = self.runner.old_positions(id, old, review.done, MOST_ASKED);
            review.done = if review.asked.len() < MOST_ASKED { 0 } else { review.done + MOST_ASKED };
        }
    }

    /// Told when everything handed in so far (and the replay) is durable and visible.
    pub fn barrier(&self) -> Result<tokio::sync::oneshot::Receiver<()>> {
        let (done, wait) = tokio::sync::oneshot::channel();
        let inlet = self.inlet.lock().clone().ok_or_else(stopped)?;
        inlet.send(Item::Barrier(done)).map_err(|_| self.why_stopped())?;
        Ok(wait)
    }

    /// The same, waiting for place in the queue without blocking the thread.
    pub async fn through(&self) -> Result<()> {
        let (done, wait) = tokio::sync::oneshot::channel();
        let inlet = self.inlet.lock().clone().ok_or_else(stopped)?;
        let place = inlet.place().await.map_err(|_| self.why_stopped())?;
        inlet.put(Item::Barrier(done), place).map_err(|_| self.why_stopped())?;
        drop(inlet);
        wait.await.map_err(|_| self.why_stopped())
    }

    /// Why the pipeline ended, if it did.
    pub fn why_stopped(&self) -> Error {
        self.failure().unwrap_or_else(stopped)
    }

    /// What went wrong in the pipeline, if something did.
    pub fn failure(&self) -> Option<Error> {
        self.failure.lock().clone()
    }

    /// Why sources wait, if they do.
    pub fn paused(&self) -> Option<Error> {
        self.space.full()
    }

    pub fn sources(&self) -> Vec<Arc<SourceStatus>> {
        let mut all: Vec<_> = self.sources.lock().iter().map(|d| Arc::clone(&d.status)).collect();
        all.extend(self.pushed.iter().filter(|status| status.frames.load(Ordering::Relaxed) > 0).cloned());
        all
    }

    /// The labels of a source's figures: of a tenant also its database.
    fn labels(&self, status: &SourceStatus) -> Labels {
        let own = [("stream", self.stream.clone()), ("source", status.name.clone())];
        own.into_iter().chain(self.space.tenant().map(|tenant| ("database", tenant.to_string()))).collect()
    }

    fn count_pushed(&self, source: u32, frames: u64, bytes: u64) {
        let created: Vec<_> = self.sources.lock().iter().map(|driven| Arc::clone(&driven.status)).collect();
        let Some(status) = created.iter().chain(&self.pushed).find(|status| status.id == source) else { return };
        status.count(frames, bytes, self.clock.now());
        let labels = self.labels(status);
        metrics::counter!("logweir_source_frames_total", &labels).increment(frames);
        metrics::counter!("logweir_source_bytes_total", &labels).increment(bytes);
    }

    /// Stops the sources, then lets what is in the queues run through and syncs.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Not under the lock: the log stage looks at them too.
        let mut threads = Vec::new();
        for driven in self.sources.lock().iter_mut() {
            driven.control.stop();
            threads.push(driven.thread.take());
        }
        threads.into_iter().for_each(join);
        // Closing the inlet ends the stages one after the other.
        self.inlet.lock().take();
        for thread in self.stages.lock().drain(..) {
            join(Some(thread));
        }
        if let Err(err) = self.runner.log.wal().shutdown() {
            tracing::error!(stream = %self.stream, error = %err, "the last sync failed");
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.stop();
    }
}

fn stopped() -> Error {
    Error::new(Kind::Shutdown, "the stream is stopped")
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        tracing::error!("an ingestion thread panicked");
    }
}

/// Runs one stage on a thread; what ends it by an error is kept, logged and shown to whoever flushes.
fn stage(
    stream: &str,
    name: &str,
    failure: &Arc<Mutex<Option<Error>>>,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let (stream, failure) = (stream.to_string(), Arc::clone(failure));
    std::thread::Builder::new()
        .name(format!("{name} {stream}"))
        .spawn(move || {
            if let Err(err) = work() {
                tracing::error!(stream, error = %err, "ingestion stopped");
                failure.lock().get_or_insert(err);
            }
        })
        .map_err(|e| Error::internal(format!("could not start a thread: {e}")))
}

fn rows_stage(shape: &Shape, input: &Receiver<Item<Logged>>, out: &SyncSender<Item<Parsed>>) -> Result<()> {
    for item in input {
        let item = match item {
            Item::Work((input, origin)) => Item::Work((shape.rows(&input)?, origin)),
            Item::Barrier(done) => Item::Barrier(done),
        };
        if out.send(item).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn views_stage(runner: &Runner, input: &Receiver<Item<Parsed>>) -> Result<()> {
    for item in input {
        match item {
            Item::Work((batch, origin)) => runner.apply(&batch, &origin)?,
            // Whoever waited may have gone away; then nobody needs to know.
            Item::Barrier(done) => drop(done.send(())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
