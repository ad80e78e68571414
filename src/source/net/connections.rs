//! The source over connections: takes what they have sent from the [`Inbox`] and cuts it into frames.
//!
//! Each connection is a partition while it lasts, named by the address of the other side, with a framer of its own. Its
//! positions count its bytes and have no key: nobody can be asked for them again.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;

use super::accept::Acceptor;
use super::bind::Listener;
use super::inbox::{Inbox, Piece};
use super::problems::{Problem, of_connection};
use super::{Settings, kernel};
use crate::error::{Error, Kind, Result};
use crate::frame::{Framer, Frames};
use crate::position::{Position, Unit};
use crate::source::{Partition, Polled, Source, Waker};

/// How often timers of connections are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Without connections it is left alone for so long.
const MOST_IDLE: Duration = Duration::from_secs(1);

/// After a mark the driver asks so often, as not all that happens then wakes it.
const MARKED: Duration = Duration::from_millis(2);

/// See the file header.
pub struct Connections {
    // Fixed.
    settings: Settings,
    address: String,
    inbox: Arc<Inbox>,
    /// Tells whether connections wait to be accepted.
    listening: OwnedFd,

    // State.
    /// Until it starts.
    waiting: Option<(Listener, Option<TlsAcceptor>)>,
    acceptor: Option<Acceptor>,
    connections: HashMap<u64, Connection>,
    /// To be handed out before anything else.
    ready: VecDeque<Polled>,
    /// The last poll, and the last look at the timers.
    polled: Instant,
    looked: Instant,
    /// Since a mark, until it is reached.
    marked: Cell<bool>,
}

/// A connection, as far as it has been taken from the inbox.
struct Connection {
    name: Arc<str>,
    framer: Box<dyn Framer>,
    received: u64,
    /// Up to where it was handed out.
    handed: u64,
    /// The last bytes.
    heard: Instant,
    /// Since when its last line is unfinished.
    within_line: Option<Instant>,
}

impl Connections {
    /// What comes in through a listener. Nothing is read before [`Source::resume`].
    pub fn new(listener: Listener, tls: Option<TlsAcceptor>, settings: Settings) -> Result<Connections> {
        let listening = listener.as_fd().try_clone_to_owned();
        let listening = listening.map_err(|err| Error::new(Kind::ResourceLimit, format!("no file is left: {err}")))?;
        let now = Instant::now();
        Ok(Connections {
            address: listener.address(),
            inbox: Arc::new(Inbox::new(settings.buffer_bytes, settings.max_connections)),
            listening,
            waiting: Some((listener, tls)),
            acceptor: None,
            connections: HashMap::new(),
            ready: VecDeque::new(),
            polled: now,
            looked: now,
            marked: Cell::new(false),
            settings,
        })
    }

    /// Frames what a connection has sent. What comes out stands in `ready`.
    fn take(&mut self, piece: Piece, now: Instant) {
        let connection = self.connections.entry(piece.id).or_insert_with(|| Connection {
            name: Arc::clone(&piece.name),
            framer: self.settings.framing.framer(),
            received: 0,
            handed: 0,
            heard: now,
            within_line: None,
        });
        if !piece.bytes.is_empty() {
            connection.heard = now;
            connection.received += piece.bytes.len() as u64;
            let frames = connection.framer.push(&piece.bytes);
            let goes_on = frames.is_empty() && connection.within_line.is_some();
            connection.within_line = match connection.framer.is_within_line() {
                true if goes_on => connection.within_line,
                true => Some(now),
                false => None,
            };
            self.ready.extend(connection.hand_out(frames));
        }
        if piece.closed {
            let frames = connection.framer.finish();
            self.ready.extend(connection.hand_out(frames));
            let left = self.connections.remove(&piece.id).filter(|connection| connection.handed > 0);
            self.ready.extend(left.map(|c| Polled::Gone { partition: c.name.to_string(), key: String::new() }));
        }
    }

    /// Finishes records whose connection has been silent for long, and closes those that do not finish a line.
    fn look_at_timers(&mut self, now: Instant) {
        self.looked = now;
        let record = Duration::from_micros(self.settings.framing.timeout.max(0) as u64);
        for (id, connection) in &mut self.connections {
            let Some(since) = connection.within_line else {
                if !record.is_zero() && connection.framer.pending() > 0 && now - connection.heard >= record {
                    let frames = connection.framer.finish();
                    self.ready.extend(connection.hand_out(frames));
                }
                continue;
            };
            if now - since >= self.settings.line_timeout {
                connection.within_line = None;
                let what =
                    format!("closed, as it did not finish a line for {:?} (line_timeout)", self.settings.line_timeout);
                self.inbox.problem(Problem::TimedOut, of_connection(&connection.name, &what));
                self.inbox.shut(*id);
            }
        }
    }

    /// While the driver was busy or waited for room, nothing was taken from the connections: that time is not theirs.
    fn forgive(&mut self, now: Instant) {
        let gap = now - std::mem::replace(&mut self.polled, now);
        if gap > 2 * MOST_IDLE {
            for connection in self.connections.values_mut() {
                connection.heard += gap;
                connection.within_line = connection.within_line.map(|since| since + gap);
            }
        }
    }
}

impl Connection {
    fn hand_out(&mut self, frames: Frames) -> Option<Polled> {
        if frames.is_empty() {
            return None;
        }
        let end = self.received.saturating_sub(self.framer.pending());
        let start = std::mem::replace(&mut self.handed, end);
        let position = Position { partition: self.name.to_string(), key: String::new(), start, end, unit: Unit::Bytes };
        Some(Polled::Frames(frames, position))
    }
}

impl Source for Connections {
    fn set_waker(&mut self, waker: Waker) {
        self.inbox.set_waker(waker);
    }

    fn resume(&mut self, _: Vec<Position>) -> Result<()> {
        if let Some((listener, tls)) = self.waiting.take() {
            let inbox = Arc::clone(&self.inbox);
            self.acceptor = Some(Acceptor::start(listener, inbox, tls, self.settings.read_timeout)?);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let now = Instant::now();
        self.forgive(now);
        loop {
            if let Some(polled) = self.ready.pop_front() {
                return Ok(polled);
            }
            match self.inbox.take(self.marked.get()) {
                Some(piece) => self.take(piece, now),
                None if now - self.looked >= LOOK => self.look_at_timers(now),
                None => return Ok(Polled::Idle),
            }
        }
    }

    fn mark(&mut self) -> Result<()> {
        self.marked.set(true);
        self.inbox.mark();
        Ok(())
    }

    /// A record that may still go on is waited for, as it ends by itself; half a line is not.
    fn reached(&self) -> bool {
        let goes_on = |c: &Connection| c.framer.pending() > 0 && c.within_line.is_none();
        let reached = self.ready.is_empty()
            && self.inbox.reached(|| kernel::is_readable(self.listening.as_fd()))
            && (self.settings.framing.timeout == 0 || !self.connections.values().any(goes_on));
        self.marked.set(self.marked.get() && !reached);
        reached
    }

    fn partitions(&self) -> Vec<Partition> {
        let partition =
            |c: &Connection| Partition { name: c.name.to_string(), position: c.handed, end: Some(c.received) };
        self.connections.values().map(partition).collect()
    }

    fn address(&self) -> Option<String> {
        Some(self.address.clone())
    }

    fn last_call(&mut self) -> bool {
        self.mark().is_ok()
    }

    fn idle_wait(&self) -> Duration {
        match (self.marked.get(), self.inbox.pause()) {
            (true, _) => MARKED,
            (false, Some(pause)) => pause,
            (false, None) if self.connections.is_empty() => MOST_IDLE,
            (false, None) => LOOK,
        }
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        self.inbox.problems()
    }
}
