//! One look at a file: reads what has been added since the last one and hands on its records with their positions.
//!
//! Each look ([`Tail::step`]) first asks whether the file still begins with what was read from it; if not, it was
//! truncated or replaced, and the caller decides where the rest of the old content is. Nothing is ever read past a
//! content that has not been checked, so bytes of two contents are never joined to one record.
//!
//! An unfinished last record is handed out when the file has not grown for a while ([`Settings::patience`]), or when it
//! cannot grow any more. FLUSH waits for that and does not hasten it: it decides when a record is seen, not what it
//! is. A position never covers a part of a record, so after a restart an unfinished one is read again. A compressed file
//! is read once it has stopped changing, and again, behind what was read, when it grows.

use std::io;
use std::path::Path;

use super::Tail;
use crate::error::Error;
use crate::frame::Frames;
use crate::position::{Position, Unit};
use crate::source::file::Settings;
use crate::source::file::identity::{Inode, Seen};
use crate::time::{MICROS_PER_SECOND, Micros};

/// How long a file that could not be read is left alone, in microseconds.
const RETRY_AFTER: Micros = MICROS_PER_SECOND;

/// What one look at a file found.
pub enum Step {
    Frames(Frames, Position),
    /// Bytes were read, but no record was finished: look again.
    More,
    Nothing,
    /// The content is not the one read before: see [`Tail::start_over`].
    Replaced,
}

impl Tail {
    /// Looks at the file once and reads at most one block. An error leaves the file for a while.
    pub fn step(&mut self, now: Micros, settings: &Settings) -> Result<Step, Error> {
        let outcome = if self.is_compressed() { self.decompress(now, settings) } else { self.follow(now, settings) };
        match outcome {
            Ok(step) => {
                self.failed = false;
                Ok(step)
            }
            // Between two listings a file may vanish; the next one tells what became of it.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(self.rest(now, settings)),
            Err(err) => {
                (self.drained, self.marked) = (true, None);
                self.next_look = now + RETRY_AFTER;
                Err(Error::io("read", &self.path, &err))
            }
        }
    }

    fn follow(&mut self, now: Micros, settings: &Settings) -> io::Result<Step> {
        let stamp = self.stamp()?;
        if self.read_at == Some(stamp) {
            return Ok(self.rest(now, settings));
        }
        if stamp.size < self.known().len || !self.open()? {
            return Ok(Step::Replaced);
        }
        if !self.known().begins(self.content.as_ref().expect("opened above").file())? {
            return Ok(Step::Replaced);
        }
        self.modified = stamp.modified_micros();
        if stamp.size == self.seen.len {
            self.read_at = Some(stamp);
            return Ok(self.rest(now, settings));
        }
        let available = usize::try_from(stamp.size - self.seen.len).unwrap_or(usize::MAX);
        let content = self.content.as_mut().expect("opened above");
        let (frames, outcome) = content.read(&mut self.seen, self.framer.as_mut(), available.min(settings.block_bytes));
        self.blocks_read(frames, outcome, now)
    }

    fn decompress(&mut self, now: Micros, settings: &Settings) -> io::Result<Step> {
        let stamp = self.stamp()?;
        if self.content.is_none() {
            if self.read_at == Some(stamp) {
                return Ok(self.rest(now, settings));
            }
            if !settings.once && !self.has_settled(stamp, now) {
                self.next_look = now + settings.poll_interval;
                return Ok(Step::Nothing);
            }
            // Should it fail, it is not tried again before the file changes.
            self.read_at = Some(stamp);
            if !self.open()? {
                return Ok(Step::Replaced);
            }
        }
        let content = self.content.as_mut().expect("opened above");
        let (frames, outcome) = content.read(&mut self.seen, self.framer.as_mut(), settings.block_bytes);
        if frames.is_empty() && !matches!(outcome, Ok(1..)) {
            self.content = None;
            self.read_at = Some(stamp);
            outcome?;
            let frames = self.framer.finish();
            return Ok(self.hand_out(frames).unwrap_or_else(|| self.rest(now, settings)));
        }
        self.blocks_read(frames, outcome, now)
    }

    fn blocks_read(&mut self, frames: Frames, outcome: io::Result<usize>, now: Micros) -> io::Result<Step> {
        (self.grown_at, self.drained, self.next_look) = (now, false, Micros::MIN);
        match self.hand_out(frames) {
            // The error, if any, comes again at the next look.
            Some(step) => Ok(step),
            None if outcome? > 0 => Ok(Step::More),
            None => Ok(Step::Nothing),
        }
    }

    /// All has been read: is the unfinished record to be handed out?
    fn rest(&mut self, now: Micros, settings: &Settings) -> Step {
        self.drained = true;
        self.next_look = now + settings.poll_interval;
        if self.complete || now.saturating_sub(self.grown_at) >= settings.patience(self.framer.as_ref()) {
            let frames = self.framer.finish();
            if let Some(step) = self.hand_out(frames) {
                return step;
            }
        }
        if self.framer.pending() == 0 {
            self.marked = None;
        }
        Step::Nothing
    }

    /// Hands out the unfinished record, because nothing more is to be had.
    pub fn finish(&mut self) -> Option<(Frames, Position)> {
        let frames = self.framer.finish();
        (!frames.is_empty()).then(|| {
            let position = position_of(&frames, &self.path, self.inode, &self.seen, self.handed());
            (frames, position)
        })
    }

    fn hand_out(&mut self, frames: Frames) -> Option<Step> {
        if frames.is_empty() {
            return None;
        }
        let position = position_of(&frames, &self.path, self.inode, &self.seen, self.handed());
        if self.marked.is_some_and(|size| self.handed() >= size) {
            self.marked = None;
        }
        Some(Step::Frames(frames, position))
    }
}

/// The position of frames that end at `end` in the content of a file.
pub fn position_of(frames: &Frames, path: &Path, inode: Inode, seen: &Seen, end: u64) -> Position {
    Position {
        partition: path.display().to_string(),
        key: seen.key(inode).to_string(),
        // Reckoned from the end, because a newline that came late lies before the first frame.
        start: end - frames.source_offset(frames.len()),
        end,
        unit: Unit::Bytes,
    }
}
