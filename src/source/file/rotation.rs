//! Which content goes on in which file? Decides that when a file was truncated or replaced and when a new file may be a
//! copy of a known one. The rules are those of [`identity`](super::identity).
//!
//! Rotation by copy-truncate is the hard case: `cp app.log app.log.1`, then `app.log` is cut to nothing. The copy must
//! not be read as a new file, but it is the only place of lines written just before the cut. So a new file that begins
//! as a known one does is held back while both exist, and takes over at the offset when the known one is truncated or
//! deleted. It is released, and read from its beginning, as soon as it differs, or when it is too short to prove
//! anything and nothing happened for [`COPY_WAIT`].

use std::fs::File as Handle;
use std::io;
use std::path::Path;

use super::File;
use super::content::{self, Content};
use super::identity::{Inode, Seen, TRAIL_BYTES, read_at};
use super::listing;
use super::tail::{Generation, Origin, Place, Stamp, Tail, position_of};
use crate::frame::Framer;
use crate::time::{MICROS_PER_SECOND, Micros};

/// How long a new file that only shares a short beginning with another one is held back, in microseconds. Between the
/// copy and the truncation of one rotation lies much less.
const COPY_WAIT: Micros = 5 * MICROS_PER_SECOND;

impl File {
    /// File `i` does not begin any more as it did: its content was truncated or replaced. The old content goes on in a
    /// copy, if there is one; the file itself starts over.
    pub(super) fn replaced(&mut self, i: usize, now: Micros) {
        let mut old = self.tails[i].start_over(&self.settings);
        let id = self.tails[i].id;
        match self.find_copy(i, &old, now) {
            Some((copy, content)) => {
                self.tails[copy].take_over(content, old, now);
                let copy_id = self.tails[copy].id;
                self.tails[copy].behind = self.tails[i].behind.clone();
                self.tails[i].behind.push(copy_id);
                for tail in self.tails.iter_mut().filter(|t| t.origin == Origin::CopyOf(id)) {
                    tail.origin = Origin::CopyOf(copy_id);
                }
            }
            None => {
                let tail = &self.tails[i];
                let end = old.seen.len;
                let frames = old.framer.finish();
                if !frames.is_empty() {
                    let position = position_of(&frames, &tail.path, tail.inode, &old.seen, end);
                    self.ready.push_back((frames, position));
                }
                for tail in self.tails.iter_mut().filter(|t| t.origin == Origin::CopyOf(id)) {
                    tail.origin = Origin::Unknown;
                }
            }
        }
    }

    /// The file in which the `old` content of file `i` goes on, opened behind what was read of it.
    fn find_copy(&mut self, i: usize, old: &Generation, now: Micros) -> Option<(usize, Content)> {
        if old.known.len == 0 || self.settings.once {
            return None;
        }
        let original = &self.tails[i];
        // A file with nothing read from it may be a copy; any other has a history of its own, or waits for this one.
        let may_be_copy = |t: &Tail| t.id != original.id && t.seen.len == 0 && !t.behind.contains(&original.id);
        for (j, tail) in self.tails.iter().enumerate().filter(|(_, t)| may_be_copy(t)) {
            if let Some(content) = open_copy(&tail.path, tail.inode, old) {
                return Some((j, content));
            }
        }
        let mut found = listing::siblings(&original.path);
        found.extend(original.former_path.iter().flat_map(|path| listing::siblings(path)));
        // A copy is made of what is there: an older file that begins alike is none.
        found.retain(|f| f.stamp.modified_micros() >= old.modified.saturating_sub(COPY_WAIT));
        for found in found {
            match self.tails.iter_mut().find(|t| t.inode == found.inode) {
                Some(known) if known.is_at(&found) => continue,
                Some(known) => known.lose(now),
                None => {}
            }
            if let Some(content) = open_copy(&found.path, found.inode, old) {
                // Away unless the next listing finds it.
                self.add_tail(found.path, found.inode).place = Place::Away { since: now };
                return Some((self.tails.len() - 1, content));
            }
        }
        None
    }

    /// Whether file `i`, which appeared while following, is to be read. Not (yet) when it may be a copy.
    pub(super) fn is_own(&mut self, i: usize, now: Micros) -> bool {
        let tail = &mut self.tails[i];
        let Ok(stamp) = tail.stamp() else { return true }; // reading it reports why
        let unchanged_for = tail.unchanged_for(stamp, now);
        tail.next_look = now + self.settings.poll_interval;
        if stamp.size == 0 {
            (tail.drained, tail.marked) = (true, None);
            return false;
        }
        if tail.is_compressed() && !tail.has_settled(stamp, now) {
            return false;
        }

        let tail = &self.tails[i];
        let alike = |original: &Tail| is_alike(tail, stamp, original).unwrap_or(false);
        let original = match tail.origin {
            Origin::Own => return true,
            Origin::Unknown => {
                let known = |t: &&Tail| t.origin == Origin::Own && t.seen.len > 0 && !t.is_compressed();
                self.tails.iter().filter(known).find(|t| alike(t))
            }
            // What has been compared stays alike until it changes.
            Origin::CopyOf(id) => {
                self.tails.iter().find(|t| t.id == id).filter(|original| unchanged_for > 0 || alike(original))
            }
        };
        let Some(original) = original else {
            if tail.origin == Origin::Unknown && self.tails.iter().any(|t| may_be_original(t, tail)) {
                // Nothing can be said before that one has been looked into.
                self.tails[i].drained = true; // so that nothing waits for this one in turn
                return false;
            }
            self.tails[i].origin = Origin::Own;
            return true;
        };
        let (id, seen) = (original.id, original.seen.clone());
        if original.is_exhausted() {
            let at = self.tails.iter().position(|t| t.id == id).expect("it was found among them");
            let mut framer = std::mem::replace(&mut self.tails[at].framer, self.settings.framing.framer());
            self.continue_in_copy(i, &seen, &mut framer, now);
            self.tails[at].framer = framer;
            return true;
        }
        let proof = stamp.size.min(seen.len);
        if proof < TRAIL_BYTES as u64 && unchanged_for >= COPY_WAIT && !tail.is_compressed() {
            self.tails[i].origin = Origin::Own;
            return true;
        }
        let tail = &mut self.tails[i];
        tail.origin = Origin::CopyOf(id);
        (tail.drained, tail.marked) = (true, None);
        false
    }

    /// A file was let go of: what was held back as its copy goes on where it ended.
    pub(super) fn release_copies_of(&mut self, original: &mut Tail, now: Micros) {
        for i in 0..self.tails.len() {
            if self.tails[i].origin == Origin::CopyOf(original.id) {
                self.continue_in_copy(i, &original.seen, &mut original.framer, now);
            }
        }
    }

    /// File `i` is a copy of a file that is gone, of which this was `seen`: it goes on there, and with the unfinished
    /// record that its `framer` holds.
    fn continue_in_copy(&mut self, i: usize, seen: &Seen, framer: &mut Box<dyn Framer>, now: Micros) {
        let tail = &mut self.tails[i];
        tail.origin = Origin::Own;
        if let Ok(Some(content)) = Content::open_behind(&tail.path, seen)
            && is_inode(&content, tail.inode)
        {
            tail.resume(content, seen.clone(), now);
            std::mem::swap(&mut tail.framer, framer);
        }
    }
}

/// A file that is not open was renamed away: looks for its new name in the same directory.
pub(super) fn find_renamed(tail: &mut Tail) {
    if tail.content.is_none()
        && let Some(found) =
            listing::directory_of(&tail.path).into_iter().find(|f| f.inode == tail.inode && tail.is_at(f))
    {
        tail.renamed_to(found.path);
    }
}

/// Whether `tail` may turn out to be a copy of `original`, into which nobody has looked yet.
fn may_be_original(original: &Tail, tail: &Tail) -> bool {
    match original.origin {
        // What waits for this file is not what it was copied from.
        Origin::Own => !original.behind.contains(&tail.id) && (original.is_unread() || original.is_replaced()),
        Origin::Unknown => tail.is_compressed() && original.is_unread(),
        Origin::CopyOf(_) => false,
    }
}

/// Whether all of `tail`, a file not read yet, is as far as one can tell also in `original`.
fn is_alike(tail: &Tail, stamp: Stamp, original: &Tail) -> io::Result<bool> {
    if !begins_alike(tail, original)? {
        return Ok(false);
    }
    let theirs = original.handle();
    if let Some(theirs) = &theirs
        && !original.seen.begins(theirs)?
    {
        // Truncated just now. The original will find out when its turn comes, and look among its copies.
        return Ok(true);
    }
    if tail.is_compressed() {
        return Ok(match Content::open_at(&tail.path, original.seen.len)? {
            Some((_, there)) => there == original.seen,
            None => true,
        });
    }
    let mine = Handle::open(&tail.path)?;
    if stamp.size >= original.seen.len {
        let longer = original.stamp().is_ok_and(|of_original| stamp.size > of_original.size);
        return Ok(!longer && original.seen.begins(&mine)?);
    }
    let Some(theirs) = theirs else { return Ok(true) };
    let sample = stamp.size.min(TRAIL_BYTES as u64) as usize;
    let offset = stamp.size - sample as u64;
    Ok(read_at(&mine, offset, sample)? == read_at(&theirs, offset, sample)?)
}

fn begins_alike(tail: &Tail, original: &Tail) -> io::Result<bool> {
    Ok(original.seen.may_share_beginning(&content::head(&tail.path)?))
}

/// Opens a file behind what was read of the `old` content if it is a copy of that.
fn open_copy(path: &Path, inode: Inode, old: &Generation) -> Option<Content> {
    let content = Content::open_behind(path, &old.known).ok()?.filter(|content| is_inode(content, inode))?;
    // What was only peeked at is still to be read.
    if old.seen.len > 0 { Some(content) } else { Content::open(path).ok() }
}

pub(super) fn is_inode(content: &Content, inode: Inode) -> bool {
    content.metadata().is_ok_and(|m| Inode::of(&m) == inode)
}
