//! Files: a path or a glob pattern, followed as they grow, are rotated, truncated, compressed and deleted.
//!
//! Receives options and the positions a former run has made durable; hands on blocks of records (lines, unless the user
//! chose another [`Framing`](crate::frame::Framing)), each with its position:
//! which file (see [`identity`]) and which bytes of its decompressed content.
//!
//! What always holds:
//! - Every record of every content comes once, whole and in the order of its file, whatever moves where meanwhile, as
//!   long as the content can still be found: under its name, under a new name in the same directory, in a copy that
//!   rotation made, or through the file kept open.
//!   What is not noticed: under a single name, a content that comes and goes between two polls, or one that was not
//!   yet read when the engine stopped and is rotated away before it starts; a file overwritten with as many bytes
//!   within one tick of the file system's clock. A copy that turns up later than [`AWAY_GRACE`] after its original
//!   is taken for a new file.
//! - No file holds up another: polls go round the files, one block each.
//! - A poll does not wait for anything but the disk.
//! - Where a file was read up to is remembered for as long as it, or a copy of it, is there, and for `forget_after`
//!   behind its last line. Without an end to it, positions of files that are gone would add up: a cluster makes thousands
//!   of logs a day. A file that comes back later than that is read again, as is one that comes back to a running
//!   source.
//!
//! Files are asked for changes (one `fstat` each per `poll_interval`) rather than watched with inotify: that works the
//! same on every file system, has no queue that can overflow, and cannot be stale after a restart.
//!
//! | file | holds |
//! |---|---|
//! | `settings.rs` | the options |
//! | `listing.rs` | which files are there |
//! | `identity.rs` | which file is which |
//! | `content.rs` | an open file, decompressed |
//! | `tail.rs`, `tail/look.rs` | one file, followed |
//! | `resume.rs` | which file goes on where a former run stopped |
//! | `rotation.rs` | which content goes on in which file: after a truncation, a copy |
//! | `bounded.rs` | a file, or a part of it, read once |

mod bounded;
pub(super) mod content;
pub(super) mod identity;
mod listing;
mod resume;
mod rotation;
mod settings;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;

pub use bounded::BoundedReader;
pub use listing::expand;
#[cfg(test)]
pub(super) use tests::gzip;

use super::{Partition, Polled, Source, Spec};
use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::options::Options;
use crate::position::Position;
use crate::time::{Clock, MICROS_PER_SECOND, Micros};
use identity::Inode;
use listing::Names;
use settings::{OPTIONS, Settings};
use tail::{Origin, Place, Step, Tail};

pub static SPEC: Spec = Spec {
    name: "file",
    summary: "log files: a path or a pattern, followed through growth and rotation, also .gz and .zst",
    options: OPTIONS,
    // Opening the file says all there is to say.
    check: None,
    build: |options| Ok(Box::new(File::open(options, Clock::system())?)),
};

/// How often a pattern is matched against the directories again, in microseconds. Growth and rotation of known files
/// are noticed sooner, so this delays only the first lines of a new file.
const RESCAN_INTERVAL: Micros = MICROS_PER_SECOND;

/// How long a file is remembered, and kept open, after it was renamed away or deleted and last grew, in microseconds. A
/// writer goes on with the old file until it is told to reopen; a compressed copy may turn up.
const AWAY_GRACE: Micros = 60 * MICROS_PER_SECOND;

/// Rounds without the end of a record in one poll before the driver gets a chance to stop.
const MAX_ROUNDS: usize = 16;

/// The file source.
pub struct File {
    // Fixed.
    names: Names,
    settings: Settings,
    clock: Clock,

    // State.
    tails: Vec<Tail>,
    next_id: u64,
    /// In this round, all files that may be open are, and have something to read.
    crowded: bool,
    /// Which file is asked first at the next poll.
    cursor: usize,
    started: bool,
    next_listing: Micros,
    /// Last records of contents that are gone, to be handed out before anything else.
    ready: VecDeque<(Frames, Position)>,
    warnings: Vec<Error>,
    /// Directories whose listing failed, so that each is told once.
    unlisted: HashSet<String>,
}

impl File {
    /// Checks the options. A path that is no pattern must name a file that can be opened; a pattern may match nothing
    /// yet.
    pub fn open(options: &Options, clock: Clock) -> Result<File> {
        let names = Names::parse(options.text("path").unwrap_or_default())?;
        names.check()?;
        Ok(File::over(names, Settings::from(options)?, clock))
    }

    /// These files from beginning to end, whatever mode the options name. One that cannot be read is a warning.
    pub fn once(paths: Vec<PathBuf>, options: &Options, clock: Clock) -> Result<File> {
        let settings = Settings { once: true, start_at_end: false, ..Settings::from(options)? };
        Ok(File::over(Names::Several(paths), settings, clock))
    }

    fn over(names: Names, settings: Settings, clock: Clock) -> File {
        File {
            names,
            settings,
            clock,
            tails: Vec::new(),
            next_id: 0,
            crowded: false,
            cursor: 0,
            started: false,
            next_listing: Micros::MIN,
            ready: VecDeque::new(),
            warnings: Vec::new(),
            unlisted: HashSet::new(),
        }
    }

    fn add_tail(&mut self, path: PathBuf, inode: Inode) -> &mut Tail {
        self.next_id += 1;
        self.tails.push(Tail::new(self.next_id, path, inode, &self.settings));
        self.tails.last_mut().expect("just pushed")
    }

    fn list(&mut self, now: Micros) -> Vec<listing::Found> {
        self.next_listing = match self.names {
            Names::One(_) => now + self.settings.poll_interval,
            Names::Glob(_) | Names::Several(_) => now + RESCAN_INTERVAL,
        };
        let mut errors = Vec::new();
        let found = self.names.list(&mut errors);
        for err in errors {
            if self.unlisted.insert(err.message().to_string()) {
                self.warnings.push(err);
            }
        }
        found
    }

    /// Matches the names against the directories: notices renamed, deleted and new files.
    fn look_for_files(&mut self, now: Micros) {
        let listed = self.list(now);
        let by_inode: HashMap<_, _> = listed.iter().map(|f| (f.inode, f)).collect();
        let mut names = Vec::new();
        for tail in &mut self.tails {
            names.extend(tail.former_path.iter().chain([&tail.path]).map(|path| (path.clone(), tail.id)));
            match (by_inode.get(&tail.inode), tail.place) {
                (Some(found), _) if tail.is_at(found) => {
                    tail.renamed_to(found.path.clone());
                    tail.place = Place::Listed;
                }
                (Some(_), _) => tail.lose(now),
                (None, Place::Listed) => {
                    tail.place = Place::Away { since: now };
                    rotation::find_renamed(tail);
                }
                (None, Place::Away { .. }) => {}
            }
        }
        let known: HashSet<_> = self.tails.iter().map(|t| t.inode).collect();
        for found in listed.iter().filter(|f| !known.contains(&f.inode)) {
            let behind: Vec<u64> = names.iter().filter(|(path, _)| *path == found.path).map(|(_, id)| *id).collect();
            for old in self.tails.iter_mut().filter(|t| behind.contains(&t.id)) {
                // Whatever was added to it before this file appeared comes first.
                (old.drained, old.next_look) = (false, Micros::MIN);
            }
            let tail = self.add_tail(found.path.clone(), found.inode);
            tail.behind = behind;
            tail.origin = Origin::Unknown;
        }
        self.forget_finished(now);
    }

    /// Lets go of files that were renamed away or deleted and to which nobody writes any more.
    fn forget_finished(&mut self, now: Micros) {
        let gone = |tail: &Tail| {
            let nothing_left = tail.drained && (tail.content.is_none() || tail.framer.pending() == 0);
            tail.place != Place::Listed && nothing_left && now - tail.last_event() >= AWAY_GRACE
        };
        for i in (0..self.tails.len()).rev() {
            if gone(&self.tails[i]) {
                let mut tail = self.tails.remove(i);
                self.release_copies_of(&mut tail, now);
                self.ready.extend(tail.finish());
            }
        }
    }

    /// Closes a file that has nothing to read when too many are open; its unfinished record is kept. Returns whether one
    /// more can be opened.
    fn make_room(&mut self) -> bool {
        let open = self.tails.iter().filter(|t| t.content.is_some()).count();
        if open < self.settings.max_open_files {
            return true;
        }
        let spare = |t: &&mut Tail| t.content.is_some() && t.drained && t.place == Place::Listed;
        match self.tails.iter_mut().filter(spare).min_by_key(|t| t.last_event()) {
            Some(tail) => {
                tail.content = None;
                true
            }
            None => false,
        }
    }

    /// Looks at one file.
    fn visit(&mut self, i: usize, now: Micros) -> Result<Step> {
        let tail = &self.tails[i];
        if now < tail.next_look || (self.settings.once && (tail.failed || tail.is_finished())) {
            return Ok(Step::Nothing);
        }
        if self.tails.iter().any(|t| !t.drained && tail.behind.contains(&t.id)) {
            if self.tails[i].peek() {
                self.replaced(i, now);
            }
            return Ok(Step::More);
        }
        self.tails[i].behind.clear();
        if self.tails[i].origin != Origin::Own && !self.is_own(i, now) {
            return Ok(Step::Nothing);
        }
        if self.tails[i].waits_to_be_opened() {
            self.crowded = self.crowded || !self.make_room();
            if self.crowded {
                return Ok(Step::More);
            }
        }
        match self.tails[i].step(now, &self.settings) {
            Ok(Step::Replaced) => {
                self.replaced(i, now);
                Ok(Step::More)
            }
            Ok(step) => Ok(step),
            Err(err) => self.failed(i, err).map(|()| Step::Nothing),
        }
    }

    /// One of many files must not stop the others: it is told once, as a warning. A single file is an error each time.
    fn failed(&mut self, i: usize, err: Error) -> Result<()> {
        let tail = &mut self.tails[i];
        let first = !std::mem::replace(&mut tail.failed, true);
        if self.settings.once {
            self.ready.extend(tail.finish());
        }
        match self.names {
            Names::One(_) if tail.place == Place::Listed => return Err(err),
            Names::One(_) | Names::Glob(_) | Names::Several(_) if first => self.warnings.push(err),
            Names::One(_) | Names::Glob(_) | Names::Several(_) => {}
        }
        Ok(())
    }
}

impl Source for File {
    fn resume(&mut self, positions: Vec<Position>) -> Result<()> {
        let now = self.clock.now();
        self.start(&positions, now);
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let now = self.clock.now();
        if !self.started {
            self.start(&[], now);
        } else if !self.settings.once && now >= self.next_listing {
            self.look_for_files(now);
        }
        for _ in 0..MAX_ROUNDS {
            let mut more = false;
            self.crowded = false;
            for _ in 0..self.tails.len() {
                if let Some((frames, position)) = self.ready.pop_front() {
                    return Ok(Polled::Frames(frames, position));
                }
                let i = self.cursor % self.tails.len();
                self.cursor = i + 1;
                match self.visit(i, now)? {
                    Step::Frames(frames, position) => return Ok(Polled::Frames(frames, position)),
                    Step::More | Step::Replaced => more = true,
                    Step::Nothing => {}
                }
            }
            if let Some((frames, position)) = self.ready.pop_front() {
                return Ok(Polled::Frames(frames, position));
            }
            if !more {
                break;
            }
        }
        let finished = self.settings.once && self.tails.iter().all(|t| t.failed || t.is_finished());
        Ok(if finished { Polled::End } else { Polled::Idle })
    }

    fn mark(&mut self) -> Result<()> {
        let now = self.clock.now();
        if !self.started {
            self.start(&[], now);
        } else if !self.settings.once {
            self.look_for_files(now);
        }
        for tail in &mut self.tails {
            let size = if tail.is_compressed() { Ok(u64::MAX) } else { tail.stamp().map(|stamp| stamp.size) };
            // What is held back as a copy has been handed out already.
            tail.marked = size.ok().filter(|_| !matches!(tail.origin, Origin::CopyOf(_)));
            tail.next_look = Micros::MIN;
        }
        Ok(())
    }

    fn reached(&self) -> bool {
        self.ready.is_empty() && self.tails.iter().all(|t| t.marked.is_none())
    }

    fn partitions(&self) -> Vec<Partition> {
        let partition = |tail: &Tail| Partition {
            name: tail.path.display().to_string(),
            position: tail.handed(),
            end: match tail.is_compressed() {
                true => tail.is_finished().then(|| tail.handed()),
                false => tail.stamp().ok().map(|stamp| stamp.size),
            },
        };
        self.tails.iter().map(partition).collect()
    }

    fn unneeded(&mut self, positions: &[Position]) -> Vec<String> {
        self.without_file(positions)
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.warnings)
    }
}
