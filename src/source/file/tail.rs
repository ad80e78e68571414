//! One file, followed: what is known of it, and which other files it has to do with. How it is read is in [`look`].

mod look;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub use look::{Step, position_of};

use super::Settings;
use super::content::{Compression, Content};
use super::identity::{HEAD_BYTES, Inode, Seen};
use super::listing::Found;
use crate::frame::Framer;
use crate::time::{MICROS_PER_SECOND, Micros};

/// A compressed file is read when it has not changed for so long, in microseconds: compressors write for a while, and
/// what they have written so far may not be readable.
const SETTLED_AFTER: Micros = MICROS_PER_SECOND;

/// Where the file is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its name is one that is followed.
    Listed,
    /// Renamed away or deleted, noticed at this time. Read on: writers keep an open file for a while.
    Away { since: Micros },
}

/// Whether a file that appeared while following may be a copy of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Has not been compared with the other files yet.
    Unknown,
    /// So far begins as the file with this id does: not read while that one has the same content.
    CopyOf(u64),
    /// To be read.
    Own,
}

/// Size and modification time: what changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp { size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }

    pub fn modified_micros(&self) -> Micros {
        self.modified.0 * MICROS_PER_SECOND + self.modified.1 / 1000
    }
}

/// What is taken over by the file in which an old content goes on.
pub struct Generation {
    /// What was read of it.
    pub seen: Seen,
    /// What a copy begins with: `seen`, or when nothing was read, what a look at it showed.
    pub known: Seen,
    /// When it was last modified, as far as known.
    pub modified: Micros,
    pub framer: Box<dyn Framer>,
    pub marked: Option<u64>,
}

/// A file being followed.
pub struct Tail {
    // Fixed.
    pub id: u64,
    pub inode: Inode,

    // Relations to other files, kept by the source.
    pub path: PathBuf,
    /// The name before the last renaming: the file that gets it next goes on where this one ends.
    pub former_path: Option<PathBuf>,
    pub place: Place,
    pub origin: Origin,
    /// The files that hold what came before: read first.
    pub behind: Vec<u64>,

    // State of reading.
    /// `None` while closed: not opened yet, at the end of a compressed file, or to save open files.
    pub content: Option<Content>,
    pub seen: Seen,
    /// Of a file that has to wait before anything is read from it: how it begins.
    peeked: Seen,
    /// The modification time when the content was last known to be the same.
    modified: Micros,
    pub framer: Box<dyn Framer>,
    /// The content cannot grow: its end has come when its end is reached.
    pub complete: bool,
    /// At the last look everything had been read.
    pub drained: bool,
    /// What FLUSH waits for: this many bytes, or the end if that comes first.
    pub marked: Option<u64>,
    /// The last look failed; the user has been told.
    pub failed: bool,

    // When to look.
    pub next_look: Micros,
    grown_at: Micros,
    /// As the file was when all of it had been read.
    read_at: Option<Stamp>,
    /// As it was when last seen changing, and when that was.
    changing: Option<(Stamp, Micros)>,
}

impl Tail {
    /// A file to be read from its beginning.
    pub fn new(id: u64, path: PathBuf, inode: Inode, settings: &Settings) -> Tail {
        Tail {
            id,
            inode,
            path,
            former_path: None,
            place: Place::Listed,
            origin: Origin::Own,
            behind: Vec::new(),
            content: None,
            seen: Seen::default(),
            peeked: Seen::default(),
            modified: Micros::MIN,
            framer: settings.framing.framer(),
            complete: settings.once,
            drained: false,
            marked: None,
            failed: false,
            next_look: Micros::MIN,
            grown_at: Micros::MIN,
            read_at: None,
            changing: None,
        }
    }

    /// Goes on behind what was `seen`, in `content`.
    pub fn resume(&mut self, content: Content, seen: Seen, now: Micros) {
        if let Some(last) = seen.last() {
            self.framer.resume_behind(last);
        }
        (self.content, self.seen, self.grown_at) = (Some(content), seen, now);
        self.origin = Origin::Own;
    }

    /// Goes on with an old content in this file, a copy of it.
    pub fn take_over(&mut self, content: Content, old: Generation, now: Micros) {
        self.content = Some(content);
        (self.seen, self.framer, self.marked) = (old.seen, old.framer, old.marked);
        (self.origin, self.complete, self.grown_at) = (Origin::Own, true, now);
        (self.next_look, self.drained, self.read_at) = (Micros::MIN, false, None);
    }

    /// Forgets the content read so far and begins with the new one; returns the old.
    pub fn start_over(&mut self, settings: &Settings) -> Generation {
        let size = self.stamp().map_or(0, |stamp| stamp.size);
        if self.content.as_mut().is_some_and(|c| self.seen.len > 0 && c.rewind().is_err()) {
            self.content = None;
        }
        (self.next_look, self.drained, self.read_at, self.complete) = (Micros::MIN, false, None, settings.once);
        let framer = std::mem::replace(&mut self.framer, settings.framing.framer());
        let marked = self.marked;
        self.marked = marked.map(|_| size);
        let (known, modified) = (self.known().clone(), self.modified);
        self.peeked = Seen::default();
        Generation { seen: std::mem::take(&mut self.seen), known, modified, framer, marked }
    }

    /// Looks at a file that has to wait, so that a truncation or renaming meanwhile is noticed. Returns whether its
    /// content is not the one it had at the last look.
    pub fn peek(&mut self) -> bool {
        let (Some(file), Ok(stamp)) = (self.handle().filter(|_| !self.is_compressed()), self.stamp()) else {
            return false; // when its turn comes, reading it tells why
        };
        match self.peeked.begins(&file) {
            Ok(true) => {
                let head = Seen::of_start(&file, stamp.size.min(HEAD_BYTES as u64));
                (self.peeked, self.modified) = (head.ok().flatten().unwrap_or_default(), stamp.modified_micros());
                false
            }
            Ok(false) => true,
            Err(_) => false,
        }
    }

    /// The name of the file is now this one.
    pub fn renamed_to(&mut self, path: PathBuf) {
        if self.path != path {
            self.former_path = Some(std::mem::replace(&mut self.path, path));
        }
    }

    /// Treats all of a compressed file as read.
    pub fn skip_all(&mut self) {
        self.read_at = self.stamp().ok();
    }

    /// How many bytes have been handed out in frames.
    pub fn handed(&self) -> u64 {
        self.seen.len - self.framer.pending()
    }

    /// Whether nothing is left to be read or handed out, as far as the last look could tell.
    pub fn is_finished(&self) -> bool {
        self.drained && self.framer.pending() == 0
    }

    pub fn is_compressed(&self) -> bool {
        Compression::of(&self.path) != Compression::None
    }

    /// Whether this is an uncompressed file of which nothing has been read yet.
    pub fn is_unread(&self) -> bool {
        let candidate = self.seen.len == 0 && !self.failed && !self.is_compressed();
        candidate && self.stamp().is_ok_and(|stamp| stamp.size > 0)
    }

    /// Whether an uncompressed file holds another content than the one read, which the next look will find out.
    pub fn is_replaced(&self) -> bool {
        if self.seen.len == 0 || self.failed || self.is_compressed() {
            return false;
        }
        let unread = self.stamp().is_ok_and(|stamp| self.read_at != Some(stamp));
        unread && self.handle().is_some_and(|file| self.seen.begins(&file).is_ok_and(|same| !same))
    }

    /// Whether the file was deleted and nothing more is to be had from it.
    pub fn is_exhausted(&self) -> bool {
        match &self.content {
            // What was added since the last look is still to be read here.
            Some(content) => {
                let all_read = |m: &Metadata| self.read_at == Some(Stamp::of(m));
                self.is_finished() && content.metadata().is_ok_and(|m| m.nlink() == 0 && all_read(&m))
            }
            None => self.drained && self.place != Place::Listed,
        }
    }

    /// When the file last grew or moved.
    pub fn last_event(&self) -> Micros {
        match self.place {
            Place::Listed => self.grown_at,
            Place::Away { since } => since.max(self.grown_at),
        }
    }

    /// Size and modification time now.
    pub fn stamp(&self) -> io::Result<Stamp> {
        if let Some(content) = &self.content {
            return content.metadata().map(|m| Stamp::of(&m));
        }
        let metadata = fs::metadata(&self.path)?;
        if Inode::of(&metadata) != self.inode {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Stamp::of(&metadata))
    }

    /// Whether a file with the same inode is this one. While a file is not open, its inode may be given to another.
    pub fn is_at(&self, found: &Found) -> bool {
        self.content.is_some()
            || self.path == found.path // checked when it is read
            || self.read_at == Some(found.stamp)
            || (self.known().len > 0 && matches!(Content::open_behind(&found.path, self.known()), Ok(Some(_))))
    }

    fn known(&self) -> &Seen {
        if self.seen.len > 0 { &self.seen } else { &self.peeked }
    }

    /// The file is no more and its inode has been given to another. What was seen stays, to recognise a copy.
    pub fn lose(&mut self, now: Micros) {
        (self.place, self.inode) = (Place::Away { since: now }, Inode::GONE);
    }

    /// The file itself, to compare it with another; `None` when it is not open nor at its path.
    pub fn handle(&self) -> Option<File> {
        if let Some(content) = &self.content {
            return content.file().try_clone().ok();
        }
        let file = File::open(&self.path).ok()?;
        (Inode::of(&file.metadata().ok()?) == self.inode).then_some(file)
    }

    /// Whether the file is closed and has changed since it was read.
    pub fn waits_to_be_opened(&self) -> bool {
        self.content.is_none() && self.stamp().is_ok_and(|stamp| self.read_at != Some(stamp))
    }

    /// Opens the file behind what was seen, if it is still at its path and begins so.
    pub fn open(&mut self) -> io::Result<bool> {
        if self.content.is_some() {
            return Ok(true);
        }
        let Some(content) = Content::open_behind(&self.path, &self.seen)? else { return Ok(false) };
        if Inode::of(&content.metadata()?) != self.inode {
            return Err(io::ErrorKind::NotFound.into()); // rotated just now; the next listing tells
        }
        self.content = Some(content);
        Ok(true)
    }

    /// How long the file has looked as it does now, in microseconds, as far as this process has watched it.
    pub fn unchanged_for(&mut self, stamp: Stamp, now: Micros) -> Micros {
        match self.changing {
            Some((same, since)) if same == stamp => now - since,
            Some(_) | None => {
                self.changing = Some((stamp, now));
                0
            }
        }
    }

    /// Whether nobody is writing to the file, as far as one can tell.
    pub fn has_settled(&mut self, stamp: Stamp, now: Micros) -> bool {
        // Watched too, because a clock that differs from the file system's must not keep a file waiting for ever.
        now.saturating_sub(stamp.modified_micros()) >= SETTLED_AFTER || self.unchanged_for(stamp, now) >= SETTLED_AFTER
    }
}
