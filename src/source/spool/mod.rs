//! A spool folder: files that somebody puts there complete are read once each, and renamed or deleted when their
//! lines are durable. As Flume's spooling directory source does it.
//!
//! Receives the positions that a former run has made durable; hands on blocks of records, file by file, the oldest
//! first. Which file is which is told by its inode, size and time of change, which stay as they are in a complete
//! file.
//!
//! What always holds:
//! - Each line of a file comes once, also when the server is killed at any moment: where reading goes on is in the log
//!   with the lines, and a file leaves the folder only when its last line is acknowledged. If the kill comes between
//!   the renaming and the entry that forgets the position, the position stands for a file that is not there.
//! - A file that somebody changes after it was taken is told of. What was added is read as well.
//! - A file that cannot be read to its end, such as a compressed one that is not all there, stays where it is and is told
//!   of; the others go on. Its whole records are handed out. When it has changed and still begins with them, what is behind
//!   them is read; as long as the server runs, for which samples of them are remembered.
//!
//! `folder.rs` holds what is there, and how a file leaves.

mod folder;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use super::file::content::Content;
use super::file::identity::Seen;
use super::{Partition, Polled, Source, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::{self, Framer, Frames, Framing, framing_option, newline};
use crate::options::{OptionKind, OptionSpec, Options, join};
use crate::position::{Position, Unit};
use crate::time::{Clock, Micros};
use folder::{File, Folder, Left};

pub static SPEC: Spec = Spec {
    name: "spool",
    summary: "a folder: complete files (also .gz and .zst) are read once each, then renamed or deleted",
    options: OPTIONS,
    // Looking at the folder says all there is to say.
    check: None,
    build: |options| Ok(Box::new(Spool::open(options, Clock::system())?)),
};

static OPTIONS: &[OptionSpec] = &join::<{ OWN.len() + frame::OPTIONS.len() }>(OWN, frame::OPTIONS);

const OWN: &[OptionSpec] = &[
    OptionSpec::required("path", OptionKind::Path, "the folder; what is in folders below it is left alone"),
    OptionSpec::optional("files", OptionKind::Text, Some("*"), "only files with such names, such as '*.log'"),
    OptionSpec::optional(
        "quiet_time",
        OptionKind::Interval,
        Some("2 seconds"),
        "a file is complete when it was not touched for so long; '0 s' where files are only ever moved in",
    ),
    OptionSpec::optional(
        "temporary_suffix",
        OptionKind::Text,
        Some(".tmp"),
        "names that end so are not complete yet, nor are those that begin with a dot",
    ),
    OptionSpec::optional(
        "after",
        OptionKind::Choice(&["rename", "delete"]),
        Some("rename"),
        "what becomes of a file whose lines are durable",
    ),
    OptionSpec::optional("done_suffix", OptionKind::Text, Some(".done"), "what is added to its name"),
    OptionSpec::optional("poll_interval", OptionKind::Interval, Some("500 ms"), "how often the folder is looked at"),
    OptionSpec::optional("block_bytes", OptionKind::Bytes, Some("4 MiB"), "how much is read at once from one file"),
    OptionSpec::optional(
        "forget_after",
        OptionKind::Text,
        Some("7 days"),
        "where a file was read up to is forgotten when it has gone in another way, and its last line came so long ago",
    ),
    framing_option(&["newline", "multiline", "nul"], "how records are told apart"),
];

/// Files that are known to wait; when they have been read, the folder is listed again.
const MAX_WAITING: usize = 100_000;

/// A file that could not be renamed or deleted is tried again after so long, in microseconds.
const RETRY: Micros = 10 * crate::time::MICROS_PER_SECOND;

/// The spool source.
pub struct Spool {
    // Fixed.
    folder: Folder,
    framing: Framing,
    block_bytes: usize,
    poll_interval: Micros,
    clock: Clock,

    // State.
    /// Up to where files were read in a former run, by key.
    known: HashMap<String, u64>,
    /// Files to be read, the oldest first.
    waiting: VecDeque<File>,
    reading: Option<Reading>,
    /// Files that were read and whose last lines are not durable yet.
    read: Vec<Read>,
    /// Files that cannot be read as they are.
    failed: Vec<Failed>,
    ready: VecDeque<Polled>,
    next_look: Micros,
    /// Keys of the files that a mark found and that have not been read.
    marked: HashSet<String>,
    warnings: Vec<Error>,
    unlisted: bool,
}

/// The file that is being read.
struct Reading {
    file: File,
    content: Content,
    seen: Seen,
    framer: Box<dyn Framer>,
    /// Up to where it was handed out, in bytes of the decompressed content.
    handed: u64,
}

/// A file that was read to its end.
struct Read {
    file: File,
    end: u64,
    /// Its last line is durable; it could not leave the folder yet, and is tried again then.
    retry: Option<Micros>,
}

/// A file that could not be read to its end.
struct Failed {
    file: File,
    /// What was handed out of it, if that is known.
    seen: Option<Seen>,
}

impl Spool {
    /// Checks the options; the folder must be there.
    pub fn open(options: &Options, clock: Clock) -> Result<Spool> {
        let micros = |name| options.interval(name).map_or(0, |d| d.as_micros() as Micros);
        let block_bytes = options.bytes("block_bytes").unwrap_or(4 << 20).clamp(1, frame::LARGEST as u64);
        Ok(Spool {
            folder: Folder::open(options)?,
            framing: Framing::from(options, newline::SPEC.name)?,
            block_bytes: block_bytes as usize,
            poll_interval: micros("poll_interval"),
            clock,
            known: HashMap::new(),
            waiting: VecDeque::new(),
            reading: None,
            read: Vec::new(),
            failed: Vec::new(),
            ready: VecDeque::new(),
            next_look: Micros::MIN,
            marked: HashSet::new(),
            warnings: Vec::new(),
            unlisted: false,
        })
    }

    /// Looks for files that are complete and not in work. One that changed since it failed is new.
    fn look(&mut self, now: Micros) {
        self.next_look = now + self.poll_interval;
        let all = match self.folder.all() {
            Ok(all) => all,
            Err(err) => {
                if !std::mem::replace(&mut self.unlisted, true) {
                    self.warnings.push(err);
                }
                return;
            }
        };
        self.unlisted = false;
        self.failed.retain(|failed| all.iter().any(|file| file.follows(&failed.file)));
        let mut found = self.folder.complete(all, now);
        // By name: one that is changed while it is in work has another key, and is still the same file.
        let in_work: HashSet<&Path> = self.in_work().map(|file| file.path.as_path()).collect();
        let is_failed = |file: &File| self.failed.iter().any(|failed| failed.file.key == file.key);
        found.retain(|file| !in_work.contains(file.path.as_path()) && !is_failed(file));
        found.truncate(MAX_WAITING);
        self.waiting = found.into();
    }

    /// Files that are being read, or were read and are still there.
    fn in_work(&self) -> impl Iterator<Item = &File> {
        self.reading.iter().map(|reading| &reading.file).chain(self.read.iter().map(|read| &read.file))
    }

    /// Opens the next file; `false` when there is none.
    fn open_next(&mut self, now: Micros) -> bool {
        if self.waiting.is_empty() && now >= self.next_look {
            self.look(now);
        }
        while let Some(file) = self.waiting.pop_front() {
            // The list may be old: whatever is different by now is listed again.
            if !file.is_there() {
                self.marked.remove(&file.key);
                continue;
            }
            let before = self.failed_before(&file);
            match self.content(&file, before.as_ref()) {
                Ok((content, seen)) => {
                    let mut framer = self.framing.framer();
                    seen.last().into_iter().for_each(|last| framer.resume_behind(last));
                    self.reading = Some(Reading { file, content, handed: seen.len, seen, framer });
                    return true;
                }
                Err(err) => self.fail(file, before, err),
            }
        }
        false
    }

    /// What was handed out of a file before it failed, which is over now.
    fn failed_before(&mut self, file: &File) -> Option<Seen> {
        let at = self.failed.iter().position(|failed| file.follows(&failed.file))?;
        let failed = self.failed.swap_remove(at);
        if failed.file.key != file.key {
            self.known.remove(&failed.file.key);
        }
        failed.seen
    }

    /// Opens a file where reading goes on: where a former run was, or behind what was handed out `before` it failed, if it
    /// begins with that; else at its beginning.
    fn content(&self, file: &File, before: Option<&Seen>) -> Result<(Content, Seen)> {
        let failed = |err| Error::io("open", &file.path, &err);
        let start = self.known.get(&file.key).copied();
        if let (Some(before), None) = (before, start)
            && let Some(content) = Content::open_behind(&file.path, before).map_err(failed)?
        {
            return Ok((content, before.clone()));
        }
        let start = start.unwrap_or(0);
        Content::open_at(&file.path, start).map_err(failed)?.ok_or_else(|| shorter(&file.path, start))
    }

    /// `seen`: what was handed out of it.
    fn fail(&mut self, file: File, seen: Option<Seen>, err: Error) {
        self.marked.remove(&file.key);
        self.failed.push(Failed { file, seen });
        self.warnings
            .push(err.with_hint("The file stays where it is. It is read again when it changes, or the server starts."));
    }

    /// Reads the next block of the file; what comes out stands in `ready`.
    fn read_block(&mut self, mut reading: Reading) {
        let Reading { content, seen, framer, .. } = &mut reading;
        let (frames, outcome) = content.read(seen, framer.as_mut(), self.block_bytes);
        match outcome {
            Ok(1..) => {
                self.ready.extend(reading.hand_out(frames, false));
                self.reading = Some(reading);
            }
            Ok(0) => {
                self.ready.extend(reading.hand_out(frames, false));
                let last = reading.framer.finish();
                // Also without frames: it tells when those before are durable.
                self.ready.extend(reading.hand_out(last, true));
                self.marked.remove(&reading.file.key);
                self.read.push(Read { end: reading.handed, file: reading.file, retry: None });
            }
            Err(err) => {
                // What is behind the last whole record may be the beginning of one.
                self.ready.extend(reading.hand_out(frames, false));
                let Reading { file, handed, .. } = reading;
                self.known.insert(file.key.clone(), handed);
                let seen = Content::open_at(&file.path, handed).ok().flatten().map(|(_, seen)| seen);
                let err = Error::io("read", &file.path, &err);
                self.fail(file, seen, err);
            }
        }
    }

    /// Has the file leave the folder, as its lines are durable. The error is why it cannot.
    fn leave(&mut self, at: usize, now: Micros) -> Result<()> {
        let Read { file, end, .. } = &self.read[at];
        let (key, partition) = (file.key.clone(), file.name());
        match self.folder.leave(file) {
            Ok(Left::Gone) => {}
            Ok(Left::Changed(changed)) => {
                self.warnings.push(
                    Error::new(Kind::Io, format!("{partition:?} was changed after it was taken as complete"))
                        .with_detail("What was added is read too, when it is complete again.")
                        .with_hint("Move files in when they are complete, or raise quiet_time."),
                );
                // Goes on where it was, under the key that it has now, unless it is shorter and so another.
                if changed.may_continue(*end) {
                    self.known.insert(changed.key, *end);
                }
                self.next_look = now;
            }
            Err(err) => {
                self.read[at].retry = Some(now + RETRY);
                return Err(err);
            }
        }
        self.read.remove(at);
        self.known.remove(&key);
        self.ready.push_back(Polled::Gone { partition, key });
        Ok(())
    }
}

impl Reading {
    /// `always`: also a block without frames.
    fn hand_out(&mut self, frames: Frames, always: bool) -> Option<Polled> {
        let end = self.seen.len - self.framer.pending();
        if frames.is_empty() && !always {
            return None;
        }
        let start = std::mem::replace(&mut self.handed, end);
        let (partition, key) = (self.file.name(), self.file.key.clone());
        Some(Polled::Frames(frames, Position { partition, key, start, end, unit: Unit::Bytes }))
    }
}

fn shorter(path: &Path, start: u64) -> Error {
    let path = path.display().to_string();
    Error::new(Kind::Corrupted, format!("{path:?} is shorter than what was read of it: {start} bytes"))
}

impl Source for Spool {
    fn resume(&mut self, positions: Vec<Position>) -> Result<()> {
        self.known = positions.into_iter().map(|position| (position.key, position.end)).collect();
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let now = self.clock.now();
        for at in (0..self.read.len()).rev() {
            if self.read[at].retry.is_some_and(|retry| now >= retry) {
                // It was told when it was tried first.
                let _ = self.leave(at, now);
            }
        }
        loop {
            if let Some(polled) = self.ready.pop_front() {
                return Ok(polled);
            }
            match self.reading.take() {
                Some(reading) => self.read_block(reading),
                None if self.open_next(now) => {}
                None => return Ok(Polled::Idle),
            }
        }
    }

    fn mark(&mut self) -> Result<()> {
        self.look(self.clock.now());
        let found = self.reading.iter().map(|r| &r.file).chain(&self.waiting);
        self.marked = found.map(|file| file.key.clone()).collect();
        Ok(())
    }

    fn reached(&self) -> bool {
        let is_frames = |polled: &Polled| matches!(polled, Polled::Frames(..));
        self.marked.is_empty() && !self.ready.iter().any(is_frames)
    }

    fn partitions(&self) -> Vec<Partition> {
        let reading = self.reading.iter().map(|r| Partition {
            name: r.file.name(),
            position: r.handed,
            end: (!r.file.is_compressed()).then_some(r.file.size),
        });
        let read = self.read.iter().map(|r| Partition { name: r.file.name(), position: r.end, end: Some(r.end) });
        reading.chain(read).collect()
    }

    fn idle_wait(&self) -> Duration {
        // A file that has been read leaves when that is acknowledged, which wakes the driver.
        Duration::from_micros(self.poll_interval.clamp(1000, 1_000_000) as u64)
    }

    fn wants_acknowledgement(&self) -> bool {
        true
    }

    fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let is_last = |read: &Read| read.file.key == position.key && read.end == position.end && read.retry.is_none();
        match self.read.iter().position(is_last) {
            // More of the file is still to be handed out, which has the same end when it has no frames.
            Some(_) if self.ready.iter().any(|p| matches!(p, Polled::Frames(_, p) if p.key == position.key)) => Ok(()),
            Some(at) => self.leave(at, self.clock.now()),
            None => Ok(()),
        }
    }

    fn unneeded(&mut self, positions: &[Position]) -> Vec<String> {
        let Ok(there) = self.folder.all() else { return Vec::new() };
        let there: HashSet<&str> = there.iter().map(|file| file.key.as_str()).collect();
        let gone = positions.iter().filter(|position| !there.contains(position.key.as_str()));
        gone.map(|position| position.key.clone()).collect()
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.warnings)
    }
}

#[cfg(test)]
mod tests;
