//! Where do bytes come from? Each source is one file with its [`Spec`], listed once in [`SOURCES`].
//!
//! A source only reads and frames. It does not log, count, retry or know the WAL: its driver (`ingest/drive.rs`) does
//! that once for all of them, on a thread of its own per source:
//!
//! ```text
//!     far side ──► poll ──► Frames + Position ──► one record of the WAL ──► synced ──► acknowledge(Position)
//!                    ▲                                  │
//!                    └───────── resume(Positions) ◄─────┘ at the next start
//! ```
//!
//! # So that no row is lost or counted twice
//!
//! A block of frames and its [`Position`] are one record of the WAL: after a crash either both are there or neither. A
//! source is exact when it relies on that and on nothing of its own:
//!
//! - **What can be read again** (a file, Kafka) goes on at the `end` of the last position of each partition, which
//!   [`Source::resume`] gives back. The offset in the record is the truth; what the far side has noted (a committed
//!   group offset) is for display, and where to begin when there is no position. `resume` is called once: a partition
//!   that comes later (a rebalance) goes on behind what resume gave or, if more, what was handed out since.
//! - **What forgets what was taken** (RabbitMQ, a spooled file to be deleted) is told so only in
//!   [`Source::acknowledge`], which comes after the sync: see [`Source::wants_acknowledgement`]. That alone is
//!   at-least-once, as what was logged and not acknowledged comes again after a crash. Exactly once takes a position by
//!   which it is known again. Messages with ids have those in it ([`Messages`](crate::position::Unit::Messages)): the log
//!   leaves out what comes again ([`AGAIN`]). Else it is a key, such as a file's identity. `resume` then tells what is
//!   in the log already; what comes again of it is acknowledged and not handed out. Such keys are given up with a
//!   [`Polled::Gone`] that names no partition, when the far side can no longer give what they stand for.
//! - **What cannot be asked again** (UDP, TCP without acknowledgements) has positions without a key. What the kernel
//!   or the source dropped is counted and told by [`Source::take_warnings`].
//! - Who sends and waits for an answer (HTTP) is served by `Ingest::push`, which does all of this per request.
//!
//! A position says exactly which part of the partition its frames are: contiguous, in order, `start` at the `end` of
//! the one before. Bytes that are in no frame yet (half a line) lie behind `end`, so that they are read again.
//!
//! # Backpressure
//!
//! There is none to be built: a source is not polled while the stream takes nothing in (a slow disk or view, a full
//! disk) or while many of its blocks are not acknowledged. That may last for hours. A source with threads of its own
//! hands over through a bounded queue and stops reading from its far side when that is full (Kafka: pause and go on
//! polling; RabbitMQ: prefetch; TCP: leave it in the socket). Only UDP may drop, and counts.
//!
//! # Time
//!
//! Each partition (by name, for all sources of a stream together) is a partition of the watermark: the slowest one
//! that is not idle holds event time back. So partitions are what is in order within itself. Of those that come and
//! go, say [`Polled::Gone`]: else thousands of closed connections are remembered, each until it is idle. What may come
//! back (a Kafka partition that another consumer has now) is not gone; it becomes idle.
//!
//! # When something is wrong
//!
//! An error of `poll` is shown in `logweir.sources` and poll is called again, after 0.1 s, then twice as long each
//! time up to 10 s; so one connects in poll, and returns the error. What concerns one partition, or one message, is a
//! warning: the others go on. No bad message is dropped: handed out as it is, it is malformed or a row, and can be
//! found. Errors and warnings name no credentials: options of
//! [`OptionKind::Secret`](crate::options::OptionKind::Secret) are read with `Options::secret` where they are needed,
//! each time anew, and never put into a message; nor is an URL that has one in it.
//!
//! A source may block in any of its methods, though not for more than a second or so: the same thread tells it what is
//! durable, and to stop. It ends by being dropped: its threads end then, and are waited for. `PREVIEW` polls a source of
//! its own, without a waker, and acknowledges nothing.
//!
//! | a source that | has |
//! |---|---|
//! | is read again after a crash | positions with a key; [`Source::resume`] gives the last ones back |
//! | is a queue that forgets what was taken | [`Source::wants_acknowledgement`] |
//! | is a queue that gives again what was not acknowledged | ids: positions in [`Messages`](crate::position::Unit), [`AGAIN`] |
//! | reads with threads of its own | [`Source::set_waker`], and a long [`Source::idle_wait`] |
//! | has partitions that come and go | [`Polled::Gone`]; positions without a key if nothing could go on there |
//! | has more and more keys | [`Source::unneeded`] with an option `forget_after`, or [`Polled::Gone`] |
//! | knows more of a message than its bytes | [`Source::include`] |
//! | may not reach its far side at first | [`Spec::check`] |
//! | comes to an end | [`Polled::End`] |
//! | listens | [`Source::address`], [`Source::lost`], [`Source::last_call`] |

mod datagen;
pub mod file;
mod host_metrics;
mod http_check;
mod kafka;
mod net;
mod rabbitmq;
mod spool;
mod stdin;
mod syslog;
mod tcp;
mod unix;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Metadata;
use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::options::{OptionSpec, Options};
use crate::position::Position;
use crate::reach;
use crate::registry::{self, Entry};

/// Every source.
pub static SOURCES: &[&Spec] = &[
    &file::SPEC,
    &spool::SPEC,
    &kafka::SPEC,
    &rabbitmq::SPEC,
    &syslog::SPEC,
    &tcp::SPEC,
    &unix::SPEC,
    &stdin::SPEC,
    &datagen::SPEC,
    &http_check::SPEC,
    &host_metrics::SPEC,
];

/// One row of the table of sources.
pub struct Spec {
    pub name: &'static str,
    pub summary: &'static str,
    pub options: &'static [OptionSpec],
    /// Looks whether it will work (the broker answers, the port is free), when a user creates it and can mend it; not
    /// when a server starts, nor with `validate = false`. It has some seconds, and leaves nothing behind.
    pub check: Option<fn(&Options) -> Result<()>>,
    /// Makes the source, fast and without asking its far side: that is for `check` and `poll`. At the start of a server
    /// and with `validate = false` an error is shown and it is tried again later; else it is the error of the CREATE.
    pub build: fn(&Options) -> Result<Box<dyn Source>>,
}

/// Those that tenants may use: all that they reach is looked at when they are created.
const OF_TENANTS: &[&str] = &["file", "spool", "unix", "datagen", "http_check"];

/// The source of this name, if whose statement runs may use it.
pub fn find(connector: &str) -> Result<&'static Spec> {
    let spec = registry::find(SOURCES, "connector", connector)?;
    reach::component("connector", spec.name, OF_TENANTS)?;
    Ok(spec)
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// What a poll found.
#[derive(Debug)]
pub enum Polled {
    /// Frames, and where they came from: all of one partition, contiguous. At most a few MiB, and rather thousands of
    /// frames than one, as each block is a record of the log and a micro-batch. Without frames it says only that this
    /// part of the partition held none: nothing is logged, and it is acknowledged like any other.
    Frames(Frames, Position),
    /// A partition that gave frames will not come back (a closed connection, a deleted queue): it no longer holds event
    /// time back, and its position is forgotten. Should it come back all the same, it is a new one. It is logged,
    /// behind the frames handed out before. An empty name leaves event time alone, an empty key the positions.
    Gone { partition: String, key: String },
    /// Nothing now; poll again after [`Source::idle_wait`], or when woken. Anything else is polled again at once.
    Idle,
    /// Nothing ever again (a bounded source was read to its end).
    End,
}

/// What is known of one partition (a file, a connection), for `logweir.sources`.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    pub name: String,
    /// Up to where it has been read, in the unit of its positions.
    pub position: u64,
    /// How much could be read now; `None` when unknown.
    pub end: Option<u64>,
}

/// Wakes the driver of a source: it polls at once. From any thread, at any time, as often as one likes.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Waker {
        Waker(Arc::new(wake))
    }

    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// Stands in front of the id of a message that may have been given before, in the key of a position in
/// [`Messages`](crate::position::Unit::Messages): if a message of that id is in the stream, this one is left out.
pub const AGAIN: char = '\u{1}';

/// So long an idle source is left alone, unless it says otherwise.
const IDLE_WAIT: Duration = Duration::from_millis(10);

/// Something that can be polled for frames.
///
/// All methods are called by its driver, on one thread: `set_waker`, `resume`, then the others.
pub trait Source: Send {
    /// Called once before the first poll with the last durable position of each partition, as `poll` gave it. Reading
    /// goes on at its `end`. Not told of: those without a key, those that are gone.
    fn resume(&mut self, positions: Vec<Position>) -> Result<()>;

    /// The next block of frames, at most a few MiB. An error is shown to the user and the poll is tried again later
    /// (with backoff); other partitions must not be held up by one bad partition.
    fn poll(&mut self) -> Result<Polled>;

    /// Notes all that could be read at this moment; [`Source::reached`] tells when it has been handed out.
    /// Serves FLUSH.
    fn mark(&mut self) -> Result<()>;

    /// Whether everything noted by the last [`Source::mark`] has been returned by `poll`.
    fn reached(&self) -> bool;

    /// The partitions now known.
    fn partitions(&self) -> Vec<Partition>;

    /// Of these positions, which were durable long ago, the keys of those that no partition there is now can have.
    /// Whoever keeps positions may forget them: should such a partition come back, it is read from its beginning.
    fn unneeded(&mut self, _: &[Position]) -> Vec<String> {
        Vec::new()
    }

    /// Says which metadata of messages its stream has columns for; comes before `resume`. A source that knows some of it puts
    /// it in front of each frame (`batch/envelope.rs`, [`Unit::Enveloped`](crate::position::Unit::Enveloped)).
    fn include(&mut self, _: &[Metadata]) {}

    /// Gives it what wakes the driver, for sources whose own threads wait for sockets. Wakes that come while the driver
    /// is busy are not lost: it polls once more.
    fn set_waker(&mut self, _: Waker) {}

    /// How long it may be left alone after a poll that found nothing, unless it is woken. One that wakes its driver
    /// whenever there is something answers with the time until its next timer, or a second.
    fn idle_wait(&self) -> Duration {
        IDLE_WAIT
    }

    /// Whether [`Source::acknowledge`] is to be called.
    fn wants_acknowledgement(&self) -> bool {
        false
    }

    /// What was handed out under this position (as `poll` gave it) is as safe as the stream's `wal_sync` makes it.
    /// Comes once for each `Polled::Frames`, in their order, soon after the sync. What has not been acknowledged when
    /// the source is dropped may or may not be in the stream: if it is given again, it may be there twice. An error is
    /// logged and counted; whether to try again is the source's to decide.
    fn acknowledge(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }

    /// Where it listens, with the port as it is. For `logweir.sources`.
    fn address(&self) -> Option<String> {
        None
    }

    /// How much its far side sent, and nobody can have any more, because it was not read in time: frames, since the
    /// source was made. `None` where that cannot happen, or is not known.
    fn lost(&self) -> Option<u64> {
        None
    }

    /// It will be dropped soon. Tells whether it holds, or can still get, what its far side thinks it has delivered; then
    /// it is polled until [`Source::reached`], as after a mark, though not for long.
    fn last_call(&mut self) -> bool {
        false
    }

    /// Problems that do not stop the source (an unreadable file among many), each once; the driver logs and counts
    /// them.
    fn take_warnings(&mut self) -> Vec<Error> {
        Vec::new()
    }
}

/// What holds for every source of the table.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FRAMINGS;
    use crate::options::OptionKind;

    #[test]
    fn options_are_documented_once_and_framings_are_known() {
        for source in SOURCES {
            for (i, option) in source.options.iter().enumerate() {
                assert!(option.summary.len() > 10, "{}.{}", source.name, option.name);
                assert!(source.options[..i].iter().all(|other| other.name != option.name), "{}", option.name);
                let credential = ["password", "passphrase", "secret", "token"].iter().any(|w| option.name.contains(w));
                assert!(!credential || option.kind == OptionKind::Secret, "{}.{}", source.name, option.name);
                if option.name == "framing" {
                    let OptionKind::Choice(names) = option.kind else { panic!("{}: any framing", source.name) };
                    for name in names {
                        crate::registry::find(FRAMINGS, "framing", name).unwrap();
                    }
                }
            }
        }
    }
}
