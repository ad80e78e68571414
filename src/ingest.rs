//! Drives a stream: sources → WAL → rows → views, each stage on a thread of its own, with bounded queues between them.
//!
//! ```text
//!     source thread (one per source)     log thread            rows thread          views thread
//!     poll ──► frames + position ──►     append to WAL  ──►    parse        ──►     fold, publish
//!              (2 blocks)                     (2 blocks)              (2 blocks)
//! ```
//!
//! Sources, formats and rollups do not log, count or retry: it is done here, once for all of them. A full queue makes
//! the source wait: that is all the backpressure there is. A restart replays the WAL through the same stages before the
//! sources go on behind the last durable frame of each partition.
//!
//! Time is an input like frames are. When a stream is silent and event time, going on with the wall clock, has closed a
//! window, an entry without frames (a tick) is logged; so is the end of a bounded source. The watermark is thus a
//! function of the log, and a restart finds the same windows closed and the same rows late.
//!
//! While the disk is full the log stage waits, so all sources do; reads go on. It resumes by itself when there is room.
//!
//! Rows become visible when they are written to the WAL; FLUSH also waits until they are synced. A crash in between
//! loses nothing: the source is read again from the last durable position.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::batch::{Input, MicroBatch, Shape};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::mutation::{Mutation, on};
use crate::position::Position;
use crate::source::{Partition, Polled, Source};
use crate::storage::space::Space;
use crate::storage::stream_log::{IMPORTS, Origin, Positions};
use crate::storage::wal::{Location, Record};
use crate::time::{Clock, Micros};
use crate::view::runner::Runner;

/// Blocks that may wait between two stages. With blocks of a few MiB this bounds a stream's queues to some 30 MiB.
const QUEUE: usize = 2;

/// Positions that a source is asked about at once.
const MOST_ASKED: usize = 10_000;

/// How often a silent stream looks whether time alone has closed a window.
const TICK: Duration = Duration::from_millis(200);

/// How long an idle source sleeps before it is polled again, unless woken.
const IDLE_POLL: Duration = Duration::from_millis(10);

/// Waiting after errors doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Told when a FLUSH has come through: dropping it also counts (the stage ended).
pub type Done = tokio::sync::oneshot::Sender<()>;

/// What one stage hands to the next: `T` is what it works on.
enum Item<T> {
    Work(T),
    /// Everything before this is durable and visible when `Done` is told.
    Barrier(Done),
}

/// What a source thread sends.
enum Block {
    Frames {
        source: u32,
        position: Position,
        frames: Frames,
    },
    /// These bounded partitions were read to their end.
    Ended(Vec<String>),
}

/// What came, and then its rows, with the place of the record in the log.
type Logged = (Input, Origin);
type Parsed = (MicroBatch, Origin);

/// State of one source, for `logweir.sources`.
pub struct SourceStatus {
    pub id: u32,
    pub name: String,
    pub connector: String,
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
    inner: Mutex<StatusInner>,
}

#[derive(Clone)]
pub struct StatusInner {
    /// starting, running, idle, ended, retrying, stopped.
    pub state: &'static str,
    pub last_error: Option<String>,
    pub errors: u64,
    pub partitions: Vec<Partition>,
    /// Wall time of the last frames.
    pub last_read: Option<Micros>,
}

impl SourceStatus {
    pub fn new(id: u32, name: &str, connector: &str) -> SourceStatus {
        let inner =
            StatusInner { state: "starting", last_error: None, errors: 0, partitions: Vec::new(), last_read: None };
        SourceStatus {
            id,
            name: name.into(),
            connector: connector.into(),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    pub fn get(&self) -> StatusInner {
        self.inner.lock().clone()
    }

    fn set(&self, state: &'static str) {
        self.inner.lock().state = state;
    }

    fn problem(&self, err: &Error) {
        let mut inner = self.inner.lock();
        inner.errors += 1;
        inner.last_error = Some(err.to_string());
    }
}

/// A source and its controls.
struct Driven {
    status: Arc<SourceStatus>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// Wakes a source thread.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    flushes: Mutex<Vec<Done>>,
    review: Mutex<Review>,
    wake: Condvar,
}

/// Old positions that a source is asked about, and the keys of those that it said it does not need.
#[derive(Default)]
struct Review {
    asked: Vec<Position>,
    unneeded: Vec<String>,
    /// It was asked about so many before, in this round.
    done: usize,
}

/// The running pipeline of one stream.
pub struct Ingest {
    pub stream: String,
    pub runner: Arc<Runner>,
    sources: Mutex<Vec<Driven>>,
    inlet: Mutex<Option<SyncSender<Item<Block>>>>,
    stages: Mutex<Vec<JoinHandle<()>>>,
    /// Where sources go on.
    positions: Positions,
    failure: Arc<Mutex<Option<Error>>>,
    /// Ends the waiting for room on the disk.
    stopping: Arc<AtomicBool>,
    space: Arc<Space>,
}

/// Where a pipeline begins.
pub struct Start {
    /// Where sources go on.
    pub positions: Positions,
    /// The first record of the log to be read again; `None`: the oldest there is.
    pub from: Option<Location>,
    pub space: Arc<Space>,
    pub clock: Clock,
}

impl Ingest {
    /// Replays the WAL and then accepts frames. Returns at once; a [`Ingest::barrier`] waits for the replay.
    pub fn start(stream: &str, runner: Arc<Runner>, start: Start) -> Result<Arc<Ingest>> {
        let Start { positions, from, space, clock } = start;
        let (inlet, frames) = sync_channel::<Item<Block>>(QUEUE);
        let (logged, to_parse) = sync_channel::<Item<Logged>>(QUEUE);
        let (parsed, to_apply) = sync_channel::<Item<Parsed>>(QUEUE);
        let failure = Arc::new(Mutex::new(None));

        let stopping = Arc::new(AtomicBool::new(false));
        let (room, stop) = (Arc::clone(&space), Arc::clone(&stopping));
        let log = LogStage { runner: Arc::clone(&runner), from, clock, space: room, stopping: stop };
        let shape = Arc::clone(&runner.shape);
        let viewer = Arc::clone(&runner);
        let stages = vec![
            stage(stream, "log", &failure, move || log.run(&frames, &logged))?,
            stage(stream, "rows", &failure, move || rows_stage(&shape, &to_parse, &parsed))?,
            stage(stream, "views", &failure, move || views_stage(&viewer, &to_apply))?,
        ];
        Ok(Arc::new(Ingest {
            stream: stream.to_string(),
            runner,
            sources: Mutex::new(Vec::new()),
            inlet: Mutex::new(Some(inlet)),
            stages: Mutex::new(stages),
            positions,
            failure,
            stopping,
            space,
        }))
    }

    /// Starts a source on a thread of its own, behind its last durable positions.
    pub fn add_source(&self, mut source: Box<dyn Source>, status: Arc<SourceStatus>, clock: Clock) -> Result<()> {
        let known = self.positions.get(&status.id).into_iter().flat_map(|known| known.values());
        let resume = known.map(|noted| noted.position.clone()).collect();
        source.resume(resume)?;
        let inlet = self.inlet.lock().clone().ok_or_else(stopped)?;
        let control = Arc::new(Control::default());
        let (thread_control, thread_status) = (Arc::clone(&control), Arc::clone(&status));
        let stream = self.stream.clone();
        let thread = std::thread::Builder::new()
            .name(format!("source {}", status.name))
            .spawn(move || drive(&stream, source, &thread_status, &thread_control, &inlet, &clock))
            .map_err(|e| Error::internal(format!("could not start a thread: {e}")))?;
        self.sources.lock().push(Driven { status, control, thread: Some(thread) });
        Ok(())
    }

    /// Stops a source and waits for its thread. What it has handed out goes its way.
    pub fn remove_source(&self, id: u32) {
        let mut sources = self.sources.lock();
        let Some(at) = sources.iter().position(|d| d.status.id == id) else { return };
        let mut driven = sources.remove(at);
        drop(sources);
        driven.control.stop.store(true, Ordering::SeqCst);
        driven.control.wake.notify_all();
        join(driven.thread.take());
    }

    /// Asks all sources to hand out what they can read now; each receiver is told when that is durable and visible.
    pub fn flush(&self) -> Result<Vec<tokio::sync::oneshot::Receiver<()>>> {
        if let Some(err) = self.failure.lock().clone() {
            return Err(err);
        }
        let mut waits = Vec::new();
        for driven in self.sources.lock().iter() {
            let (done, wait) = tokio::sync::oneshot::channel();
            driven.control.flushes.lock().push(done);
            driven.control.wake.notify_all();
            waits.push(wait);
        }
        Ok(waits)
    }

    /// Forgets positions from before `old` that their sources said they do not need, and asks about others.
    pub fn forget_positions(&self, old: Micros) {
        for driven in self.sources.lock().iter() {
            let id = driven.status.id;
            let mut review = driven.control.review.lock();
            let forgotten = self.runner.forget_positions(id, &std::mem::take(&mut review.unneeded), old);
            if forgotten > 0 {
                tracing::info!(stream = %self.stream, source = %driven.status.name, forgotten, "positions of files that are gone were forgotten");
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
        self.sources.lock().iter().map(|d| Arc::clone(&d.status)).collect()
    }

    /// Stops the sources, then lets what is in the queues run through and syncs.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let mut sources = self.sources.lock();
        for driven in sources.iter() {
            driven.control.stop.store(true, Ordering::SeqCst);
            driven.control.wake.notify_all();
        }
        for driven in sources.iter_mut() {
            join(driven.thread.take());
        }
        drop(sources);
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

/// First replays what the WAL holds, then appends.
struct LogStage {
    runner: Arc<Runner>,
    from: Option<Location>,
    clock: Clock,
    space: Arc<Space>,
    stopping: Arc<AtomicBool>,
}

impl LogStage {
    fn run(&self, frames: &Receiver<Item<Block>>, out: &SyncSender<Item<Logged>>) -> Result<()> {
        let wal = self.runner.log.wal();
        // The log may have been cut off behind the record to begin with, when nothing before it is needed.
        let from = self.from.map_or(wal.start(), |from| from.max(wal.start()));
        for entry in wal.read(from)? {
            let (location, record) = entry?;
            let next = record.base + record.frames.len() as u64;
            if on(Mutation::ReplayForgetsLastRecord) && next == wal.next_offset() {
                break;
            }
            let origin = Origin::of(location, &record);
            if out.send(Item::Work((record.into(), origin))).is_err() {
                return Ok(());
            }
        }
        loop {
            let next = wal.next_offset();
            let items = match frames.recv_timeout(TICK) {
                Ok(Item::Work(Block::Frames { source, position, frames })) => {
                    let record = Record { base: next, source, ingest_time: self.clock.now(), position, frames };
                    self.log(record)?.into_iter().collect()
                }
                Ok(Item::Work(Block::Ended(partitions))) => {
                    // Said again after a restart, when the log may know it already.
                    let mut items = Vec::new();
                    for partition in partitions.into_iter().filter(|p| !self.runner.has_ended(p)) {
                        items.extend(self.log(Record::end(next, self.clock.now(), partition))?);
                    }
                    items
                }
                Ok(Item::Barrier(done)) => {
                    let mut items: Vec<_> = self.tick()?.into_iter().collect();
                    wal.sync()?;
                    items.push(Item::Barrier(done));
                    items
                }
                Err(RecvTimeoutError::Timeout) => self.tick()?.into_iter().collect(),
                Err(RecvTimeoutError::Disconnected) => return wal.sync(),
            };
            for item in items {
                if out.send(item).is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Appends a record, as soon as there is room for it. `None` when the stream was stopped before that: the source
    /// will read it again.
    fn log(&self, record: Record) -> Result<Option<Item<Logged>>> {
        loop {
            if !self.space.wait(&self.stopping) {
                return Ok(None);
            }
            match self.append(&record) {
                Ok(origin) => return Ok(Some(Item::Work((record.into(), origin)))),
                Err(err) if err.kind() == Kind::DiskFull => self.space.set_full(err),
                Err(err) => return Err(err),
            }
        }
    }

    fn append(&self, record: &Record) -> Result<Origin> {
        self.runner.log.wal().append(record).map(|location| Origin::of(location, record))
    }

    /// A tick, if one is due. It does not wait for room: on a full disk a start, which waits for what comes behind it, would
    /// never end. It is due again.
    fn tick(&self) -> Result<Option<Item<Logged>>> {
        let (next, now) = (self.runner.log.wal().next_offset(), self.clock.now());
        if self.space.full().is_some() || !self.runner.is_due(next, now) {
            return Ok(None);
        }
        let record = Record::tick(next, now);
        match self.append(&record) {
            Ok(origin) => Ok(Some(Item::Work((record.into(), origin)))),
            Err(err) if err.kind() == Kind::DiskFull => {
                self.space.set_full(err);
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }
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

/// A source that cannot be built yet: after a restart its file may be missing, while the stream's rows are still there.
/// Building is tried again at every poll, with the driver's backoff.
pub struct Deferred {
    build: Box<dyn Fn() -> Result<Box<dyn Source>> + Send>,
    positions: Vec<Position>,
    source: Option<Box<dyn Source>>,
}

impl Deferred {
    pub fn new(build: impl Fn() -> Result<Box<dyn Source>> + Send + 'static) -> Deferred {
        Deferred { build: Box::new(build), positions: Vec::new(), source: None }
    }

    fn built(&mut self) -> Result<&mut Box<dyn Source>> {
        let source = match self.source.take() {
            Some(source) => source,
            None => {
                let mut source = (self.build)()?;
                source.resume(self.positions.clone())?;
                source
            }
        };
        Ok(self.source.insert(source))
    }
}

impl Source for Deferred {
    fn resume(&mut self, positions: Vec<Position>) -> Result<()> {
        self.positions = positions;
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        self.built()?.poll()
    }

    fn mark(&mut self) -> Result<()> {
        self.built()?.mark()
    }

    /// What cannot be read now is not waited for.
    fn reached(&self) -> bool {
        self.source.as_ref().is_none_or(|s| s.reached())
    }

    fn partitions(&self) -> Vec<Partition> {
        self.source.as_ref().map_or_else(Vec::new, |s| s.partitions())
    }

    fn unneeded(&mut self, positions: &[Position]) -> Vec<String> {
        self.source.as_mut().map_or_else(Vec::new, |s| s.unneeded(positions))
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        self.source.as_mut().map_or_else(Vec::new, |s| s.take_warnings())
    }
}

/// The loop of one source thread.
fn drive(
    stream: &str,
    mut source: Box<dyn Source>,
    status: &SourceStatus,
    control: &Control,
    inlet: &SyncSender<Item<Block>>,
    clock: &Clock,
) {
    let frames_total = metrics::counter!("logweir_source_frames_total", "stream" => stream.to_string(), "source" => status.name.clone());
    let bytes_total = metrics::counter!("logweir_source_bytes_total", "stream" => stream.to_string(), "source" => status.name.clone());
    let errors_total = metrics::counter!("logweir_source_errors_total", "stream" => stream.to_string(), "source" => status.name.clone());
    let problem = |err: &Error| {
        tracing::warn!(stream, source = %status.name, error = %err, "source problem");
        errors_total.increment(1);
        status.problem(err);
    };
    let mut waiting: Vec<Done> = Vec::new();
    let mut backoff = BACKOFF.0;
    let mut ended = false;
    while !control.stop.load(Ordering::SeqCst) {
        let asked: Vec<Done> = std::mem::take(&mut *control.flushes.lock());
        if !asked.is_empty() {
            waiting.extend(asked);
            if let Err(err) = source.mark() {
                problem(&err);
            }
        }
        let asked = std::mem::take(&mut control.review.lock().asked);
        if !asked.is_empty() {
            control.review.lock().unneeded = source.unneeded(&asked);
        }
        let polled = if ended { Ok(Polled::Idle) } else { source.poll() };
        source.take_warnings().iter().for_each(problem);
        let mut pause = None;
        match polled {
            Ok(Polled::Frames(frames, position)) => {
                backoff = BACKOFF.0;
                status.frames.fetch_add(frames.len() as u64, Ordering::Relaxed);
                status.bytes.fetch_add(frames.bytes.len() as u64, Ordering::Relaxed);
                frames_total.increment(frames.len() as u64);
                bytes_total.increment(frames.bytes.len() as u64);
                {
                    let mut inner = status.inner.lock();
                    inner.state = "running";
                    inner.last_read = Some(clock.now());
                    inner.partitions = source.partitions();
                }
                if inlet.send(Item::Work(Block::Frames { source: status.id, position, frames })).is_err() {
                    break;
                }
            }
            Ok(Polled::Idle) => {
                if !ended {
                    let mut inner = status.inner.lock();
                    inner.state = "idle";
                    inner.partitions = source.partitions();
                }
                pause = Some(IDLE_POLL);
            }
            Ok(Polled::End) => {
                ended = true;
                let partitions = source.partitions();
                let names = partitions.iter().map(|p| p.name.clone()).collect();
                {
                    let mut inner = status.inner.lock();
                    inner.state = "ended";
                    inner.partitions = partitions;
                }
                // The end of old files says nothing about the stream.
                if status.id != IMPORTS && inlet.send(Item::Work(Block::Ended(names))).is_err() {
                    break;
                }
            }
            Err(err) => {
                problem(&err);
                status.set("retrying");
                pause = Some(backoff);
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
        if !waiting.is_empty() && (ended || source.reached()) {
            let sent = waiting.drain(..).try_for_each(|done| inlet.send(Item::Barrier(done)));
            if sent.is_err() {
                break;
            }
        }
        if let Some(pause) = pause {
            let mut flushes = control.flushes.lock();
            if flushes.is_empty() && !control.stop.load(Ordering::SeqCst) {
                control.wake.wait_for(&mut flushes, pause);
            }
        }
    }
    if !ended {
        status.set("stopped");
    }
}
