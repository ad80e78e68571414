//! Where do bytes come from? Each source is one file with its [`Spec`], listed once in [`SOURCES`].
//!
//! A source only reads and frames. It does not log, count, retry or know the WAL: its driver (`ingest/drive.rs`) does that
//! once for all of them, on a thread of its own per source, so a source may block, though not for more than a second or so:
//! the same thread tells it what is durable, and to stop.
//!
//! | a source that | has |
//! |---|---|
//! | is read again after a crash (a file, Kafka) | positions with a key; [`Source::resume`] gives the last ones back |
//! | is a queue that forgets what was taken (RabbitMQ, a spool) | [`Source::wants_acknowledgement`] |
//! | reads with threads of its own | [`Source::set_waker`], and a long [`Source::idle_wait`] |
//! | has partitions that come and go (connections) | [`Polled::Gone`], and positions without a key |
//! | may not reach its far side at first | [`Spec::check`] |

pub mod file;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::options::{OptionSpec, Options};
use crate::position::Position;
use crate::registry::Entry;

/// Every source.
pub static SOURCES: &[&Spec] = &[&file::SPEC];

/// One row of the table of sources.
pub struct Spec {
    pub name: &'static str,
    pub summary: &'static str,
    pub options: &'static [OptionSpec],
    /// Looks whether it will work (the broker answers, the port is free), when a user creates it and can mend it; not when
    /// a server starts, nor with `validate = false`. It has some seconds, and leaves nothing behind.
    pub check: Option<fn(&Options) -> Result<()>>,
    /// Makes the source. At the start of a server and with `validate = false` an error is shown and it is tried again
    /// later; else it is the error of the CREATE.
    pub build: fn(&Options) -> Result<Box<dyn Source>>,
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
    /// Frames, and where they came from: all of one partition, contiguous. Without frames it says only that this part of
    /// the partition held none: nothing is logged, and it is acknowledged like any other.
    Frames(Frames, Position),
    /// A partition that gave frames will not come back (a closed connection, a deleted queue): it no longer holds event
    /// time back, and its position is forgotten. Should it come back all the same, it is a new one.
    Gone { partition: String, key: String },
    /// Nothing now; poll again after [`Source::idle_wait`], or when woken.
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

/// So long an idle source is left alone, unless it says otherwise.
const IDLE_WAIT: Duration = Duration::from_millis(10);

/// Something that can be polled for frames.
///
/// All methods are called by its driver, on one thread: `set_waker`, `resume`, then the others.
pub trait Source: Send {
    /// Called once before the first poll with the last durable position of each partition. Reading goes on at its
    /// `end`.
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

    /// Of these positions, which were durable long ago, the keys of those that no partition there is now can have. Whoever
    /// keeps positions may forget them: should such a partition come back, it is read from its beginning.
    fn unneeded(&mut self, _: &[Position]) -> Vec<String> {
        Vec::new()
    }

    /// Gives it what wakes the driver, for sources whose own threads wait for sockets.
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

    /// What was handed out under this position (as `poll` gave it) is as safe as the stream's `wal_sync` makes it. Comes
    /// once for each `Polled::Frames`, in their order, soon after the sync. What has not been acknowledged when the source
    /// is dropped may or may not be in the stream: if it is given again, it may be there twice. An error is logged and
    /// counted; whether to try again is the source's to decide.
    fn acknowledge(&mut self, _: &Position) -> Result<()> {
        Ok(())
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
