//! What is piped into the server: `journalctl -f -o cat | logweir serve …`. One source at a time, as there is one input.
//!
//! A thread reads it, a few blocks ahead of the driver; when these are taken slowly, the pipe fills and its writer
//! waits. Positions have no key: nothing can be read again. The end of the input is the end of the source. After a
//! restart it reads what is piped in then.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::net::kernel;
use super::{Partition, Polled, Source, Spec, Waker};
use crate::error::{Error, Kind, Result};
use crate::frame::{self, Framer, Frames, Framing, framing_option, newline};
use crate::options::{OptionSpec, Options, join};
use crate::position::{Position, Unit};

pub static SPEC: Spec = Spec {
    name: "stdin",
    summary: "what is piped into the server",
    options: OPTIONS,
    check: None,
    build: |options| Ok(Box::new(Stdin::open(options)?)),
};

static OPTIONS: &[OptionSpec] = &join::<{ OWN.len() + frame::OPTIONS.len() }>(OWN, frame::OPTIONS);

const OWN: &[OptionSpec] =
    &[framing_option(&["newline", "multiline", "nul", "octet_counted"], "how records are told apart")];

/// How much is read at once, and how many such pieces may wait for the driver.
const PIECE_BYTES: usize = 1 << 20;
const PIECES: usize = 4;

/// The name of its one partition.
const NAME: &str = "stdin";

/// Somebody reads it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to read it, given back when dropped.
struct Claim;

impl Drop for Claim {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::SeqCst);
    }
}

/// See the file header.
pub struct Stdin {
    // Fixed.
    framing: Framing,
    shared: Arc<Shared>,
    _claim: Claim,

    // State.
    framer: Box<dyn Framer>,
    pieces: Option<Receiver<io::Result<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
    /// Wakes the thread, which waits for input.
    bell: Option<UnixStream>,
    received: u64,
    handed: u64,
    heard: Instant,
    /// Bytes to be received before a mark is reached.
    marked: Cell<Option<u64>>,
    ready: VecDeque<Polled>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waker: Mutex<Option<Waker>>,
    /// Bytes that the thread has read. Locked while it reads, so that what the kernel holds and this go together.
    read: Mutex<()>,
    total: AtomicU64,
}

impl Stdin {
    pub fn open(options: &Options) -> Result<Stdin> {
        let framing = Framing::from(options, newline::SPEC.name)?;
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(Error::new(Kind::ObjectInUse, "another source reads the standard input")
                .with_hint("There is one for the whole server. Drop that source first."));
        }
        Ok(Stdin {
            _claim: Claim,
            framer: framing.framer(),
            framing,
            shared: Arc::default(),
            pieces: None,
            thread: None,
            bell: None,
            received: 0,
            handed: 0,
            heard: Instant::now(),
            marked: Cell::new(None),
            ready: VecDeque::new(),
            ended: false,
        })
    }

    fn hand_out(&mut self, frames: Frames) {
        if frames.is_empty() {
            return;
        }
        let end = self.received - self.framer.pending();
        let start = std::mem::replace(&mut self.handed, end);
        let position = Position { partition: NAME.to_string(), key: String::new(), start, end, unit: Unit::Bytes };
        self.ready.push_back(Polled::Frames(frames, position));
    }

    /// How long a record that may go on has still to wait, if there is one.
    fn patience(&self) -> Option<Duration> {
        let timeout = Duration::from_micros(self.framing.timeout.max(0) as u64);
        let goes_on = !timeout.is_zero() && self.framer.pending() > 0 && !self.framer.is_within_line();
        goes_on.then(|| timeout.saturating_sub(self.heard.elapsed()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        self.pieces.take();
        self.bell.take();
        if let Some(thread) = self.thread.take() {
            // It panicked: a bug, which the log tells already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The thread: reads to the end of `input`, or until nobody takes what it read or `bell` is readable.
    fn run(&self, input: BorrowedFd<'_>, bell: &UnixStream, pieces: &SyncSender<io::Result<Vec<u8>>>) {
        loop {
            match kernel::wait_readable([input, bell.as_fd()], Duration::from_secs(60)) {
                Ok([_, true]) => return,
                Ok([false, false]) => continue,
                Ok([true, false]) | Err(_) => {}
            }
            let mut bytes = vec![0; PIECE_BYTES];
            let reading = self.read.lock();
            let outcome = read(input, &mut bytes);
            if let Ok(count) = outcome {
                self.total.fetch_add(count as u64, Ordering::SeqCst);
            }
            drop(reading);
            let piece = match outcome {
                Err(err) if matches!(err.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => continue,
                Err(err) => Err(err),
                Ok(count) => {
                    bytes.truncate(count);
                    bytes.shrink_to_fit();
                    Ok(bytes)
                }
            };
            let is_last = piece.as_ref().map_or(true, Vec::is_empty);
            if pieces.send(piece).is_err() {
                return;
            }
            if let Some(waker) = &*self.waker.lock() {
                waker.wake();
            }
            if is_last {
                return;
            }
        }
    }
}

/// One read of a descriptor that is not ours to close.
fn read(input: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    let mut file = std::fs::File::from(input.try_clone_to_owned()?);
    file.read(bytes)
}

impl Source for Stdin {
    fn set_waker(&mut self, waker: Waker) {
        *self.shared.waker.lock() = Some(waker);
    }

    fn resume(&mut self, _: Vec<Position>) -> Result<()> {
        let failed = |err: io::Error| Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}"));
        let (bell, heard) = UnixStream::pair().map_err(failed)?;
        let (pieces, taken) = sync_channel(PIECES);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("stdin".to_string());
        self.thread = Some(thread.spawn(move || shared.run(io::stdin().as_fd(), &heard, &pieces)).map_err(failed)?);
        (self.pieces, self.bell) = (Some(taken), Some(bell));
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        loop {
            if let Some(polled) = self.ready.pop_front() {
                return Ok(polled);
            }
            if self.ended {
                return Ok(Polled::End);
            }
            match self.pieces.as_ref().map_or(Err(TryRecvError::Empty), Receiver::try_recv) {
                Ok(Ok(bytes)) if !bytes.is_empty() => {
                    self.received += bytes.len() as u64;
                    self.heard = Instant::now();
                    let frames = self.framer.push(&bytes);
                    self.hand_out(frames);
                }
                Err(TryRecvError::Empty) if self.patience() == Some(Duration::ZERO) => {
                    let frames = self.framer.finish();
                    self.hand_out(frames);
                }
                Err(TryRecvError::Empty) => return Ok(Polled::Idle),
                ended @ (Ok(_) | Err(TryRecvError::Disconnected)) => {
                    self.ended = true;
                    let frames = self.framer.finish();
                    self.hand_out(frames);
                    if let Ok(Err(err)) = ended {
                        return Err(Error::new(Kind::Io, format!("could not read the standard input: {err}")));
                    }
                }
            }
        }
    }

    fn mark(&mut self) -> Result<()> {
        let _reading = self.shared.read.lock();
        let held = kernel::readable_bytes(io::stdin().as_raw_fd());
        self.marked.set(Some(self.shared.total.load(Ordering::SeqCst) + held));
        Ok(())
    }

    fn reached(&self) -> bool {
        let reached = self.marked.get().is_none_or(|bytes| self.received >= bytes);
        let reached = self.ended || (reached && self.ready.is_empty() && self.patience().is_none());
        if reached {
            self.marked.set(None);
        }
        reached
    }

    fn partitions(&self) -> Vec<Partition> {
        vec![Partition { name: NAME.to_string(), position: self.handed, end: Some(self.received) }]
    }

    fn idle_wait(&self) -> Duration {
        match (self.marked.get(), self.patience()) {
            (Some(_), _) => Duration::from_millis(2),
            (None, Some(left)) => left.max(Duration::from_millis(1)),
            (None, None) => Duration::from_secs(1),
        }
    }

    fn last_call(&mut self) -> bool {
        self.mark().is_ok()
    }
}
