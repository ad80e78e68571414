//! Where do bytes come from? Each source is one file with its [`Spec`], listed once in [`SOURCES`].
//!
//! A source only reads and frames. It does not log, count, retry or know the WAL: its driver (`ingest.rs`) does that
//! once for all of them, on a thread of its own per source, so a source may block.

pub mod file;

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
    /// Frames, and where they came from: all of one partition, contiguous.
    Frames(Frames, Position),
    /// Nothing now; poll again later (the driver waits a few milliseconds, or until woken).
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

/// Something that can be polled for frames.
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
