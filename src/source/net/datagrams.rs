//! The source over UDP: each datagram is a frame.
//!
//! A thread takes datagrams from the kernel, many at a time, into a buffer per sender; the driver takes the senders in
//! turn. A sender's address, without the port, is its partition: `logger` and the like have a new port each time. When
//! the buffers are full the thread stops, the kernel's own buffer fills, and what does not fit there is lost: the
//! kernel counts that, and it is shown.
//!
//! Positions count the datagrams of a sender since it was first heard of, and have no key: nothing can be sent again.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::problems::{Problem, Problems};
use super::rounds::{ENOUGH, Rounds};
use super::{Settings, bind, kernel};
use crate::error::{Error, Kind, Result};
use crate::frame::message::Message;
use crate::frame::{Frames, Framing};
use crate::position::{Position, Unit};
use crate::source::{Partition, Polled, Source, Waker};

/// What a datagram costs in a buffer beside its bytes.
const OVERHEAD: usize = 64;

/// Most that one sender may have in a block of frames.
const BLOCK_BYTES: usize = 4 << 20;

/// Between two datagrams the thread and the driver look after themselves so often.
const LOOK: Duration = Duration::from_millis(500);

/// After a mark the driver asks so often.
const MARKED: Duration = Duration::from_millis(2);

/// See the file header.
pub struct Datagrams {
    // Fixed.
    address: String,
    shared: Arc<Shared>,

    // State.
    thread: Option<JoinHandle<()>>,
    /// Wakes the thread, which waits for the socket.
    bell: Option<UnixStream>,
    /// Since a mark, until it is reached.
    marked: Cell<bool>,
    /// The kernel's count when it was last asked, and the sum of all: its counter is of 32 bits.
    lost: Option<(u32, u64)>,
}

struct Shared {
    socket: UdpSocket,
    framing: Framing,
    max_senders: usize,
    buffer_bytes: usize,
    state: Mutex<State>,
    room: Condvar,
    stop: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

#[derive(Default)]
struct State {
    senders: HashMap<IpAddr, Sender>,
    /// Those with datagrams to take, each once.
    ready: VecDeque<IpAddr>,
    /// Senders that were forgotten and had given frames.
    gone: VecDeque<String>,
    buffered: usize,
    rounds: Rounds,
    /// Since a mark: bytes that may still be of what the kernel held then.
    owed: Option<usize>,
    problems: Problems,
}

struct Sender {
    name: String,
    /// Whole blocks, each with its cost.
    blocks: VecDeque<(Frames, usize)>,
    /// The block that is being filled, and its cost.
    messages: Message,
    cost: usize,
    received: u64,
    taken: u64,
    /// To be taken, after a mark.
    goal: u64,
    heard: Instant,
}

impl Datagrams {
    /// Receives on `address`. Nothing is read before [`Source::resume`].
    pub fn bind(address: &str, settings: Settings) -> Result<Datagrams> {
        let (socket, warning) = bind::udp(address, settings.receive_buffer)?;
        let bound = socket.local_addr().map_or_else(|_| address.to_string(), |bound| bound.to_string());
        let mut state = State::default();
        if let Some(warning) = warning {
            state.problems.note(Problem::Socket, warning);
        }
        let lost = kernel::dropped_datagrams(socket.as_fd()).map(|count| (count, 0));
        let shared = Shared {
            socket,
            framing: settings.framing,
            max_senders: settings.max_senders,
            buffer_bytes: settings.buffer_bytes,
            state: Mutex::new(state),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
            waker: Mutex::default(),
        };
        Ok(Datagrams {
            address: bound,
            shared: Arc::new(shared),
            thread: None,
            bell: None,
            marked: Cell::new(false),
            lost,
        })
    }

    /// Asks the kernel what it has dropped.
    fn count_lost(&mut self) {
        let Some((last, sum)) = self.lost else { return };
        let Some(now) = kernel::dropped_datagrams(self.shared.socket.as_fd()) else { return };
        let more = now.wrapping_sub(last);
        if more > 0 {
            let sum = sum + u64::from(more);
            self.lost = Some((now, sum));
            let message = format!("datagrams were lost: the receive buffer was full ({sum} in all)");
            let err = Error::new(Kind::ResourceLimit, message).with_hint(
                "Give the option receive_buffer, and let the kernel have it: sysctl -w net.core.rmem_max=….",
            );
            self.shared.state.lock().problems.note(Problem::Lost, err);
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.room.notify_all();
        self.bell.take();
        if let Some(thread) = self.thread.take() {
            // It panicked: a bug, which the log tells already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The thread: receives until it is told to stop. `bell` is readable then.
    fn run(&self, bell: &UnixStream) {
        let mut batch = kernel::Batch::new();
        while !self.stop.load(Ordering::SeqCst) {
            let mut state = self.state.lock();
            if state.buffered >= self.buffer_bytes {
                self.room.wait_for(&mut state, LOOK);
                continue;
            }
            let outcome = state.receive(self, &mut batch);
            drop(state);
            match outcome {
                Ok(true) => self.wake(),
                Ok(false) => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    // An error comes again from receiving.
                    let _ = kernel::wait_readable([self.socket.as_fd(), bell.as_fd()], LOOK);
                }
                Err(err) => {
                    let err = Error::new(Kind::Io, format!("could not receive datagrams: {err}"));
                    let mut state = self.state.lock();
                    state.problems.note(Problem::Socket, err);
                    self.room.wait_for(&mut state, LOOK);
                }
            }
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake();
        }
    }
}

impl State {
    /// Takes a batch of datagrams in; tells whether the driver is to be woken.
    fn receive(&mut self, shared: &Shared, batch: &mut kernel::Batch) -> io::Result<bool> {
        let (was_idle, were_enough) = (self.ready.is_empty(), self.buffered >= ENOUGH);
        let now = Instant::now();
        let mut bytes = 0;
        let received = batch.receive(shared.socket.as_fd(), |from, datagram| {
            bytes += datagram.len();
            self.add(shared, from, datagram, now);
        });
        self.owed = self.owed.map(|owed| owed.saturating_sub(bytes));
        received.map(|_| was_idle || (self.buffered >= ENOUGH && !were_enough))
    }

    fn add(&mut self, shared: &Shared, from: IpAddr, datagram: &[u8], now: Instant) {
        if !self.senders.contains_key(&from) && self.senders.len() >= shared.max_senders {
            self.forget_one();
        }
        let sender = self.senders.entry(from).or_insert_with(|| Sender {
            name: from.to_string(),
            blocks: VecDeque::new(),
            messages: Message::new(&shared.framing),
            cost: 0,
            received: 0,
            taken: 0,
            goal: 0,
            heard: now,
        });
        if sender.is_idle() {
            self.ready.push_back(from);
        }
        if sender.cost >= BLOCK_BYTES {
            sender.blocks.push_back((sender.messages.take(), std::mem::take(&mut sender.cost)));
        }
        sender.messages.add(datagram);
        sender.cost += datagram.len() + OVERHEAD;
        sender.received += 1;
        sender.heard = now;
        self.buffered += datagram.len() + OVERHEAD;
    }

    /// Forgets the sender that was silent for longest. Where each has something to be taken, there will be some more
    /// for a while, as many as the buffers hold.
    fn forget_one(&mut self) {
        let spare = self.senders.iter().filter(|(_, sender)| sender.is_idle());
        let Some(silent) = spare.min_by_key(|(_, sender)| sender.heard).map(|(address, _)| *address) else { return };
        if let Some(sender) = self.senders.remove(&silent).filter(|sender| sender.taken > 0) {
            self.gone.push_back(sender.name);
        }
    }

    /// `hurry`: also if little has come and something was taken a moment ago.
    fn take(&mut self, hurry: bool) -> Option<Polled> {
        if let Some(partition) = self.gone.pop_front() {
            return Some(Polled::Gone { partition, key: String::new() });
        }
        if !self.rounds.may_take(self.ready.len(), self.buffered, hurry) {
            return None;
        }
        let address = self.ready.pop_front()?;
        let sender = self.senders.get_mut(&address)?;
        let (frames, cost) = match sender.blocks.pop_front() {
            Some(block) => block,
            None => (sender.messages.take(), std::mem::take(&mut sender.cost)),
        };
        self.buffered -= cost;
        let start = sender.taken;
        sender.taken += frames.len() as u64;
        if !sender.is_idle() {
            self.ready.push_back(address);
        }
        let position = Position {
            partition: sender.name.clone(),
            key: String::new(),
            start,
            end: sender.taken,
            unit: Unit::Frames,
        };
        Some(Polled::Frames(frames, position))
    }
}

impl Sender {
    /// Nothing of it waits to be taken.
    fn is_idle(&self) -> bool {
        self.taken == self.received
    }
}

impl Source for Datagrams {
    fn set_waker(&mut self, waker: Waker) {
        *self.shared.waker.lock() = Some(waker);
    }

    fn resume(&mut self, _: Vec<Position>) -> Result<()> {
        let failed = |err: io::Error| Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}"));
        let (bell, heard) = UnixStream::pair().map_err(failed)?;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(format!("udp {}", self.address));
        self.thread = Some(thread.spawn(move || shared.run(&heard)).map_err(failed)?);
        self.bell = Some(bell);
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        self.count_lost();
        let mut state = self.shared.state.lock();
        let polled = state.take(self.marked.get());
        drop(state);
        self.shared.room.notify_all();
        Ok(polled.unwrap_or(Polled::Idle))
    }

    fn mark(&mut self) -> Result<()> {
        self.marked.set(true);
        let held = socket2::SockRef::from(&self.shared.socket).recv_buffer_size();
        self.shared.state.lock().owed = Some(held.unwrap_or(BLOCK_BYTES));
        Ok(())
    }

    fn reached(&self) -> bool {
        let mut state = self.shared.state.lock();
        if let Some(owed) = state.owed {
            if owed > 0 && kernel::is_readable(self.shared.socket.as_fd()) {
                return false;
            }
            state.owed = None;
            state.senders.values_mut().for_each(|sender| sender.goal = sender.received);
        }
        let reached = state.senders.values().all(|sender| sender.taken >= sender.goal);
        self.marked.set(self.marked.get() && !reached);
        reached
    }

    fn partitions(&self) -> Vec<Partition> {
        let state = self.shared.state.lock();
        let partition = |s: &Sender| Partition { name: s.name.clone(), position: s.taken, end: Some(s.received) };
        state.senders.values().map(partition).collect()
    }

    fn address(&self) -> Option<String> {
        Some(self.address.clone())
    }

    fn lost(&self) -> Option<u64> {
        self.lost.map(|(_, sum)| sum)
    }

    fn last_call(&mut self) -> bool {
        self.mark().is_ok()
    }

    fn idle_wait(&self) -> Duration {
        let state = self.shared.state.lock();
        match (self.marked.get(), state.ready.is_empty()) {
            (true, _) => MARKED,
            (false, false) => state.rounds.pause(),
            (false, true) => LOOK,
        }
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        self.shared.state.lock().problems.take(Instant::now())
    }
}
