//! What has been read from connections and not been taken by the driver yet: one buffer per connection, all of them
//! bounded together.
//!
//! Two threads meet here. The one that reads connections ([`accept`](super::accept)) asks for room, reads and
//! appends; the driver's takes the connections in turn, all that one has at a time: so the blocks become larger the
//! less it keeps up.
//!
//! Reads happen under the lock, as they never wait: what has been read is therefore always in a buffer when somebody
//! looks, and a FLUSH can tell what belongs to it. That is what [`Inbox::mark`] and [`Inbox::reached`] do: a
//! connection is through when all that the kernel held for it at the mark has been taken.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::kernel;
use super::problems::{Problem, Problems};
use super::rounds::{ENOUGH, Rounds};
use crate::error::Error;
use crate::source::Waker;

/// Least and most that one connection may have in its buffer. A block of frames is made of it.
const LANE_BYTES: (usize, usize) = (16 << 10, 4 << 20);

/// Bytes of TLS records that may have been read and not be decrypted yet, and more.
const TLS_SLACK: u64 = 64 << 10;

/// See the file header.
pub struct Inbox {
    // Fixed.
    buffer_bytes: usize,
    max_connections: usize,

    // State.
    state: Mutex<State>,
    waker: Mutex<Option<Waker>>,
    /// There is room again for those who waited because of all together.
    room: Notify,
}

#[derive(Default)]
pub struct State {
    lanes: HashMap<u64, Lane>,
    /// Those with something to take, each once.
    ready: VecDeque<u64>,
    next_id: u64,
    /// Connections that are not closed.
    open: usize,
    /// Bytes in all buffers.
    buffered: usize,
    rounds: Rounds,
    pub problems: Problems,
    /// Since a mark, until nothing waits to be accepted any more.
    accepting: bool,
}

/// One connection.
struct Lane {
    // Fixed.
    name: Arc<str>,
    fd: RawFd,
    encrypted: bool,
    door: Arc<Door>,

    // State.
    buffer: Vec<u8>,
    /// Bytes read, and bytes taken by the driver.
    received: u64,
    taken: u64,
    queued: bool,
    closed: bool,
    /// The last read found nothing more.
    settled: bool,
    goal: Option<Goal>,
}

/// When a connection is through, after a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// With so many bytes taken.
    Bytes(u64),
    /// That is known when a read finds nothing more, or with so many bytes received.
    Settled(u64),
}

/// What the task of a connection waits for.
#[derive(Debug, Default)]
pub struct Door {
    room: Notify,
    /// The driver wants the connection closed.
    pub shut: CancellationToken,
}

/// A connection as its task sees it.
#[derive(Debug, Clone)]
pub struct Handle {
    id: u64,
    pub name: Arc<str>,
    pub door: Arc<Door>,
}

/// What the driver takes.
#[derive(Debug)]
pub struct Piece {
    pub id: u64,
    pub name: Arc<str>,
    pub bytes: Vec<u8>,
    /// Nothing comes after it.
    pub closed: bool,
}

impl Inbox {
    pub fn new(buffer_bytes: usize, max_connections: usize) -> Inbox {
        Inbox { buffer_bytes, max_connections, state: Mutex::default(), waker: Mutex::default(), room: Notify::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn set_waker(&self, waker: Waker) {
        *self.waker.lock() = Some(waker);
    }

    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.lock() {
            waker.wake();
        }
    }

    // What the thread that reads does.

    /// Takes a new connection in; `None` when there are too many.
    pub fn admit(&self, state: &mut State, name: impl Into<Arc<str>>, fd: RawFd, encrypted: bool) -> Option<Handle> {
        let name = name.into();
        if state.open >= self.max_connections {
            let most = self.max_connections;
            let message = format!("connection from {name}: refused, as max_connections ({most}) are open");
            let err = Error::new(crate::error::Kind::ResourceLimit, message)
                .with_hint("Raise max_connections, or set read_timeout so that silent ones are closed.");
            state.problems.note(Problem::Refused, err);
            return None;
        }
        let (id, door) = (state.next_id, Arc::new(Door::default()));
        state.next_id += 1;
        state.open += 1;
        let mut lane = Lane {
            name: Arc::clone(&name),
            fd,
            encrypted,
            door: Arc::clone(&door),
            buffer: Vec::new(),
            received: 0,
            taken: 0,
            queued: false,
            closed: false,
            settled: false,
            goal: None,
        };
        if state.accepting {
            lane.mark();
        }
        state.lanes.insert(id, lane);
        Some(Handle { id, name, door })
    }

    /// Waits until closed connections that the driver has not seen yet are no more than may be open.
    pub async fn room_to_accept(&self) {
        self.wait(&Notify::new(), |state| state.lanes.len() - state.open < self.max_connections).await;
    }

    /// Waits until the connection may be read.
    pub async fn room(&self, handle: &Handle) {
        let (least, most) = LANE_BYTES;
        let has_room = |state: &State| {
            let share = (self.buffer_bytes / state.open.max(1)).clamp(least, most);
            let held = state.lanes.get(&handle.id).map_or(0, |lane| lane.buffer.len());
            held < share && state.buffered < self.buffer_bytes
        };
        self.wait(&handle.door.room, has_room).await;
    }

    async fn wait(&self, own: &Notify, has_room: impl Fn(&State) -> bool) {
        loop {
            let mut all = pin!(self.room.notified());
            all.as_mut().enable();
            if has_room(&self.lock()) {
                return;
            }
            tokio::select! {
                () = all => {}
                () = own.notified() => {}
            }
        }
    }

    /// Reads once into the connection's buffer. Gives the number of bytes; 0 is the end.
    pub fn read<S: AsyncRead + Unpin>(
        &self,
        handle: &Handle,
        stream: &mut S,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        // Others may have filled the buffers while this one waited for bytes.
        let room = self.buffer_bytes.saturating_sub(state.buffered).max(LANE_BYTES.0).min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..room]);
        let outcome = Pin::new(stream).poll_read(cx, &mut buffer);
        let news = state.note(handle.id, buffer.filled(), outcome.is_pending());
        drop(state);
        if news {
            self.wake();
        }
        outcome.map_ok(|()| buffer.filled().len())
    }

    /// Goes on with a handshake, which may read ahead.
    pub fn handshake<T>(&self, handle: &Handle, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let mut state = self.lock();
        let outcome = poll();
        state.note(handle.id, &[], outcome.is_pending());
        outcome
    }

    /// The connection has ended. To be called before its socket is closed.
    pub fn close(&self, handle: &Handle, problem: Option<(Problem, Error)>) {
        let mut state = self.lock();
        if let Some((problem, err)) = problem {
            state.problems.note(problem, err);
        }
        state.close(handle.id);
        drop(state);
        self.wake();
    }

    pub fn problem(&self, problem: Problem, err: Error) {
        self.lock().problems.note(problem, err);
        self.wake();
    }

    // What the driver does.

    /// The next connection with something in its buffer, or that is closed, and all it has. `hurry`: also if that is
    /// little and something was taken a moment ago.
    pub fn take(&self, hurry: bool) -> Option<Piece> {
        let mut state = self.lock();
        let (waiting, bytes) = (state.ready.len(), state.buffered);
        if !state.rounds.may_take(waiting, bytes, hurry) {
            return None;
        }
        let id = state.ready.pop_front()?;
        let was_full = state.buffered >= self.buffer_bytes;
        let lane = state.lanes.get_mut(&id)?;
        lane.queued = false;
        let bytes = std::mem::take(&mut lane.buffer);
        lane.taken = lane.received;
        let (name, door, closed) = (Arc::clone(&lane.name), Arc::clone(&lane.door), lane.closed);
        state.buffered -= bytes.len();
        if closed {
            state.lanes.remove(&id);
        }
        drop(state);
        door.room.notify_one();
        if was_full || closed {
            self.room.notify_waiters();
        }
        Some(Piece { id, name, bytes, closed })
    }

    /// How long what waits has to wait still; `None` when nothing does.
    pub fn pause(&self) -> Option<Duration> {
        let state = self.lock();
        (!state.ready.is_empty()).then(|| state.rounds.pause())
    }

    /// Has the connection closed.
    pub fn shut(&self, id: u64) {
        if let Some(lane) = self.lock().lanes.get(&id) {
            lane.door.shut.cancel();
        }
    }

    pub fn problems(&self) -> Vec<Error> {
        self.lock().problems.take(Instant::now())
    }

    /// Notes what the kernel holds now.
    pub fn mark(&self) {
        let mut state = self.lock();
        state.accepting = true;
        state.lanes.values_mut().for_each(Lane::mark);
    }

    /// Whether all that was there at the mark has been taken. `waiting`: whether connections wait to be accepted.
    pub fn reached(&self, waiting: impl FnOnce() -> bool) -> bool {
        let mut state = self.lock();
        if state.accepting && waiting() {
            return false;
        }
        state.accepting = false;
        let through = state.lanes.values().all(Lane::is_through);
        if through {
            state.lanes.values_mut().for_each(|lane| lane.goal = None);
        }
        through
    }
}

impl State {
    /// Notes what a read gave. Tells whether the driver is to be woken.
    fn note(&mut self, id: u64, bytes: &[u8], settled: bool) -> bool {
        let Some(lane) = self.lanes.get_mut(&id) else { return false };
        lane.buffer.extend_from_slice(bytes);
        lane.received += bytes.len() as u64;
        lane.settled = settled;
        if let Some(Goal::Settled(most)) = lane.goal
            && (lane.received >= most || lane.is_settled())
        {
            lane.goal = Some(Goal::Bytes(lane.received));
        }
        let were_enough = self.buffered >= ENOUGH;
        self.buffered += bytes.len();
        let is_new = !bytes.is_empty() && !lane.queued;
        if is_new {
            lane.queued = true;
            self.ready.push_back(id);
        }
        is_new || (self.buffered >= ENOUGH && !were_enough) || (settled && lane.goal.is_some())
    }

    fn close(&mut self, id: u64) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        self.open -= 1;
        lane.closed = true;
        lane.goal = lane.goal.map(|_| Goal::Bytes(lane.received));
        if !lane.queued {
            lane.queued = true;
            self.ready.push_back(id);
        }
    }
}

impl Lane {
    fn is_settled(&self) -> bool {
        self.settled && kernel::readable_bytes(self.fd) == 0
    }

    fn mark(&mut self) {
        self.goal = Some(match (self.closed, self.encrypted) {
            (true, _) => Goal::Bytes(self.received),
            (false, false) => Goal::Bytes(self.received + kernel::readable_bytes(self.fd)),
            (false, true) if self.is_settled() => Goal::Bytes(self.received),
            (false, true) => Goal::Settled(self.received + kernel::readable_bytes(self.fd) + TLS_SLACK),
        });
    }

    fn is_through(&self) -> bool {
        match self.goal {
            None => true,
            Some(Goal::Bytes(bytes)) => self.taken >= bytes,
            Some(Goal::Settled(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    /// A connection of an inbox, and its far side.
    fn connect(inbox: &Inbox) -> (Handle, UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let handle = inbox.admit(&mut inbox.lock(), "peer", near.as_raw_fd(), false).expect("there is room");
        (handle, near, far)
    }

    async fn read(inbox: &Inbox, handle: &Handle, stream: &mut UnixStream) -> usize {
        let mut scratch = vec![0; 1 << 16];
        std::future::poll_fn(|cx| inbox.read(handle, stream, &mut scratch, cx)).await.unwrap()
    }

    #[tokio::test]
    async fn a_mark_is_reached_when_what_the_kernel_held_is_taken() {
        let inbox = Inbox::new(1 << 20, 10);
        let (first, mut near, mut far) = connect(&inbox);
        inbox.mark();
        assert!(inbox.reached(|| false), "nothing was there");
        far.write_all(b"one\n").await.unwrap();
        inbox.mark();
        assert!(!inbox.reached(|| false), "it is in the kernel");
        assert_eq!(read(&inbox, &first, &mut near).await, 4);
        assert!(!inbox.reached(|| false), "it is in the buffer");
        far.write_all(b"two\n").await.unwrap();
        assert_eq!(inbox.take(true).unwrap().bytes, b"one\n");
        assert!(inbox.reached(|| false), "what came later does not count");

        inbox.mark();
        assert!(!inbox.reached(|| true), "somebody waits to be let in");
        let (second, mut other, mut far) = connect(&inbox);
        far.write_all(b"x").await.unwrap();
        inbox.lock().lanes.get_mut(&second.id).unwrap().mark();
        assert_eq!(read(&inbox, &first, &mut near).await, 4);
        assert_eq!(read(&inbox, &second, &mut other).await, 1);
        let pieces: Vec<_> = std::iter::from_fn(|| inbox.take(true)).map(|piece| piece.bytes).collect();
        assert_eq!(pieces, [&b"two\n"[..], b"x"]);
        assert!(inbox.reached(|| false));
    }

    #[tokio::test]
    async fn a_full_inbox_makes_readers_wait() {
        let inbox = Inbox::new(1 << 16, 2);
        let (handle, mut near, mut far) = connect(&inbox);
        inbox.room(&handle).await;
        far.write_all(&vec![b'x'; 1 << 16]).await.unwrap();
        while inbox.lock().buffered < 1 << 16 {
            read(&inbox, &handle, &mut near).await;
        }
        let (other, _near, _far) = connect(&inbox);
        let full = |handle| {
            let room = inbox.room(handle);
            futures::FutureExt::now_or_never(room).is_none()
        };
        assert!(full(&handle) && full(&other), "the bytes of one are room for nobody");
        assert!(inbox.admit(&mut inbox.lock(), "third", -1, false).is_none());
        assert!(inbox.problems()[0].message().contains("max_connections (2)"));
        assert_eq!(inbox.take(true).unwrap().bytes.len(), 1 << 16);
        assert!(!full(&handle) && !full(&other));
    }

    #[tokio::test]
    async fn a_closed_connection_is_taken_once_with_its_last_bytes() {
        let inbox = Inbox::new(1 << 20, 1);
        let (handle, mut near, mut far) = connect(&inbox);
        far.write_all(b"bye").await.unwrap();
        read(&inbox, &handle, &mut near).await;
        inbox.close(&handle, None);
        let piece = inbox.take(true).unwrap();
        assert_eq!((piece.bytes.as_slice(), piece.closed), (&b"bye"[..], true));
        assert!(inbox.take(true).is_none());
        let (_handle, ..) = connect(&inbox);
    }
}
