//! Drives one source on a thread of its own: polls it, hands on what it read, tells it what is durable, retries, counts.
//!
//! The thread sleeps while the source has nothing, for as long as the source says or until something comes: its own wake-up
//! call, a FLUSH, an acknowledgement, the order to stop. When it is told to stop, it first waits a while for the
//! acknowledgements that are still owed, so that a queue does not give again what was taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::acknowledge::Receipt;
use super::inlet::Inlet;
use super::{Block, Done, Item, Labels};
use crate::error::Error;
use crate::position::Position;
use crate::source::{Partition, Polled, Source, Waker};
use crate::storage::stream_log::IMPORTS;
use crate::time::{Clock, Micros};

/// Waiting after errors doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Blocks of one source that have been handed on and are not acknowledged yet. With as many, it is not polled: this bounds
/// what has to be remembered for it, here and at its far side.
const MAX_OWED: usize = 256;

/// So long a source that is stopped waits for what it is owed. The log is synced every few milliseconds.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(5);

/// So long a source that is stopped may hand out what has come by then.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// State of one source, for `logweir.sources`.
pub struct SourceStatus {
    pub id: u32,
    pub name: String,
    pub connector: String,
    /// So long positions of partitions that are gone are remembered; `None`: for ever.
    pub forget_after: Option<Micros>,
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
    /// Where it listens.
    pub address: Option<String>,
    /// Frames that came and could not be read in time.
    pub lost: Option<u64>,
}

impl StatusInner {
    fn listens(&mut self, source: &dyn Source) {
        if self.address.is_none() {
            self.address = source.address();
        }
    }
}

impl SourceStatus {
    pub fn new(id: u32, name: &str, connector: &str) -> SourceStatus {
        let inner = StatusInner {
            state: "starting",
            last_error: None,
            errors: 0,
            partitions: Vec::new(),
            last_read: None,
            address: None,
            lost: None,
        };
        SourceStatus {
            id,
            name: name.into(),
            connector: connector.into(),
            forget_after: None,
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    pub fn get(&self) -> StatusInner {
        self.inner.lock().clone()
    }

    pub fn has_ended(&self) -> bool {
        self.inner.lock().state == "ended"
    }

    /// Counts frames that came.
    pub fn count(&self, frames: u64, bytes: u64, now: Micros) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.inner.lock().last_read = Some(now);
    }

    fn set(&self, state: &'static str, partitions: Option<Vec<Partition>>) {
        let mut inner = self.inner.lock();
        inner.state = state;
        if let Some(partitions) = partitions {
            inner.partitions = partitions;
        }
    }

    /// Takes note of where it listens.
    pub(super) fn listens(&self, source: &dyn Source) {
        self.inner.lock().listens(source);
    }

    /// Takes note of where it listens and what it lost; gives how much that is since the last time.
    fn look(&self, source: &dyn Source) -> u64 {
        let mut inner = self.inner.lock();
        inner.listens(source);
        let lost = source.lost();
        let before = std::mem::replace(&mut inner.lost, lost);
        lost.unwrap_or(0).saturating_sub(before.unwrap_or(0))
    }

    fn problem(&self, err: &Error) {
        let mut inner = self.inner.lock();
        inner.errors += 1;
        inner.last_error = Some(err.to_string());
    }
}

/// What others have to say to a source's thread.
#[derive(Default)]
pub struct Control {
    signals: Mutex<Signals>,
    changed: Condvar,
    pub(super) review: Mutex<Review>,
}

/// Old positions that a source is asked about, and the keys of those that it said it does not need.
#[derive(Default)]
pub(super) struct Review {
    pub asked: Vec<Position>,
    pub unneeded: Vec<String>,
    /// It was asked about so many before, in this round.
    pub done: usize,
}

#[derive(Default)]
struct Signals {
    stop: bool,
    woken: bool,
    flushes: Vec<Done>,
    /// Positions to acknowledge. At most [`MAX_OWED`], as are all that are owed.
    synced: VecDeque<Position>,
    /// Blocks that have been handed on and are neither acknowledged nor given up.
    owed: usize,
}

impl Signals {
    /// Whether there is something to do.
    fn any(&self) -> bool {
        self.stop || self.woken || !self.flushes.is_empty() || !self.synced.is_empty()
    }
}

impl Control {
    fn tell(&self, change: impl FnOnce(&mut Signals)) {
        change(&mut self.signals.lock());
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        self.tell(|signals| signals.stop = true);
    }

    pub fn flush(&self, done: Done) {
        self.tell(|signals| signals.flushes.push(done));
    }

    pub fn waker(self: &Arc<Self>) -> Waker {
        let control = Arc::clone(self);
        Waker::new(move || control.tell(|signals| signals.woken = true))
    }

    pub(super) fn acknowledged(&self, position: Position) {
        self.tell(|signals| signals.synced.push_back(position));
    }

    pub(super) fn given_up(&self) {
        self.tell(|signals| signals.owed -= 1);
    }

    /// Takes what was said since the last time, but for the order to stop, which stays.
    fn take(&self) -> Signals {
        let mut signals = self.signals.lock();
        let synced = std::mem::take(&mut signals.synced);
        signals.owed -= synced.len();
        signals.woken = false;
        let flushes = std::mem::take(&mut signals.flushes);
        Signals { stop: signals.stop, woken: false, flushes, synced, owed: signals.owed }
    }

    /// Waits until there is something to take.
    fn wait(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let mut signals = self.signals.lock();
        while !signals.any() {
            if self.changed.wait_until(&mut signals, until).timed_out() {
                return;
            }
        }
    }

    /// Waits until all that is owed has come or been given up, and takes what has come.
    fn last(&self) -> VecDeque<Position> {
        let until = Instant::now() + LAST_ACKNOWLEDGEMENTS;
        let mut signals = self.signals.lock();
        while signals.owed > signals.synced.len() && !self.changed.wait_until(&mut signals, until).timed_out() {}
        std::mem::take(&mut signals.synced)
    }
}

/// The loop of one source's thread.
pub fn drive(
    stream: &str,
    mut source: Box<dyn Source>,
    status: &SourceStatus,
    control: &Arc<Control>,
    (inlet, labels): (&Inlet<Item<Block>>, &Labels),
    clock: &Clock,
) {
    let frames_total = metrics::counter!("logweir_source_frames_total", labels);
    let bytes_total = metrics::counter!("logweir_source_bytes_total", labels);
    let errors_total = metrics::counter!("logweir_source_errors_total", labels);
    let lost_total = metrics::counter!("logweir_source_lost_total", labels);
    let problem = |err: &Error| {
        tracing::warn!(stream, source = %status.name, error = %err, "source problem");
        errors_total.increment(1);
        status.problem(err);
    };
    let mut waiting: Vec<Done> = Vec::new();
    let mut backoff = BACKOFF.0;
    let mut ended = false;
    // Until when one that was told to stop may hand out what has come.
    let mut leaving: Option<Instant> = None;
    loop {
        let signals = control.take();
        for position in &signals.synced {
            source.acknowledge(position).unwrap_or_else(|err| problem(&err));
        }
        if signals.stop && leaving.is_none() {
            if ended || !source.last_call() {
                break;
            }
            leaving = Some(Instant::now() + LAST_FRAMES);
        }
        if !signals.flushes.is_empty() {
            waiting.extend(signals.flushes);
            source.mark().unwrap_or_else(|err| problem(&err));
        }
        let asked = std::mem::take(&mut control.review.lock().asked);
        if !asked.is_empty() {
            control.review.lock().unneeded = source.unneeded(&asked);
        }
        let full = signals.owed >= MAX_OWED;
        let polled = if ended || full { Ok(Polled::Idle) } else { source.poll() };
        source.take_warnings().iter().for_each(problem);
        lost_total.increment(status.look(source.as_ref()));
        let failed = polled.is_err();
        let mut pause = None;
        let sent = match polled {
            Ok(Polled::Frames(frames, position)) => {
                backoff = BACKOFF.0;
                let (count, bytes) = (frames.len() as u64, frames.bytes.len() as u64);
                frames_total.increment(count);
                bytes_total.increment(bytes);
                status.set("running", Some(source.partitions()));
                if count > 0 {
                    status.count(count, bytes, clock.now());
                }
                let receipt = source.wants_acknowledgement().then(|| {
                    control.signals.lock().owed += 1;
                    Receipt::new(control, position.clone())
                });
                inlet.send(Item::Work(Block::Frames { source: status.id, position, frames, receipt }))
            }
            Ok(Polled::Gone { partition, key }) => {
                inlet.send(Item::Work(Block::Gone { source: status.id, partition: (partition, key) }))
            }
            Ok(Polled::Idle) => {
                if !ended && !full {
                    status.set("idle", Some(source.partitions()));
                }
                // One that has ended waits for a FLUSH, or to be stopped; one that is full, for acknowledgements.
                pause = Some(if ended || full { Duration::from_secs(1) } else { source.idle_wait() });
                Ok(())
            }
            Ok(Polled::End) => {
                ended = true;
                let partitions = source.partitions();
                let names = partitions.iter().map(|p| p.name.clone()).collect();
                status.set("ended", Some(partitions));
                // The end of old files says nothing about the stream.
                match status.id {
                    IMPORTS => Ok(()),
                    id => inlet.send(Item::Work(Block::Ended(Some(id), names))),
                }
            }
            Err(err) => {
                problem(&err);
                status.set("retrying", None);
                pause = Some(backoff);
                backoff = (backoff * 2).min(BACKOFF.1);
                Ok(())
            }
        };
        // Sources that have been read to their mark come through before the barrier does.
        let reached = !waiting.is_empty() && (ended || source.reached());
        let sent = sent.and_then(|()| match reached {
            true => waiting.drain(..).try_for_each(|done| inlet.send(Item::Barrier(done))),
            false => Ok(()),
        });
        if sent.is_err() {
            break;
        }
        match (leaving, pause) {
            (Some(until), _) if failed || source.reached() || Instant::now() >= until => break,
            // Told to stop, it would not wait.
            (Some(_), Some(pause)) => std::thread::sleep(pause.min(Duration::from_millis(1))),
            (None, Some(pause)) => control.wait(pause),
            (Some(_) | None, None) => {}
        }
    }
    for position in control.last() {
        source.acknowledge(&position).unwrap_or_else(|err| problem(&err));
    }
    if !ended {
        status.set("stopped", None);
    }
}
