//! Is there room on the disk? Logs are written only while there is: what is kept free lets the archive and checkpoints go
//! on, which is what makes room again, and queries spill.
//!
//! The directory is looked at now and then ([`Space::look`]); whoever appends to a log waits here while there is no room
//! ([`Space::wait`]). So sources pause, reads go on, and everything resumes by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::fs::Fs;
use crate::error::{Error, Kind};

/// This much stays free, or the twentieth part of what was free at start if that is less.
const RESERVE: u64 = 512 << 20;
const RESERVE_PART: u64 = 20;

/// What the directory takes is added up this often.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How long a waiter sleeps before it looks whether it should end.
const PAUSE: Duration = Duration::from_millis(50);

/// See the file header.
pub struct Space {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Bytes that the directory may take.
    limit: Option<u64>,
    reserve: u64,
    /// Why there is no room.
    full: Mutex<Option<Error>>,
    changed: Condvar,
    /// When it was looked at last, and what the directory took then.
    used: Mutex<(Option<Instant>, u64)>,
}

impl Space {
    /// `limit`: bytes that `dir` may take; without one, what the disk has.
    pub fn new(fs: Arc<dyn Fs>, dir: &Path, limit: Option<u64>) -> Space {
        let free = fs.free_space(dir).unwrap_or(u64::MAX);
        let reserve = RESERVE.min(free / RESERVE_PART);
        Space {
            fs,
            dir: dir.to_path_buf(),
            limit,
            reserve,
            full: Mutex::default(),
            changed: Condvar::new(),
            used: Mutex::default(),
        }
    }

    /// Looks whether there is room.
    pub fn look(&self) {
        let free = self.fs.free_space(&self.dir).unwrap_or(u64::MAX);
        let used = if self.limit.is_some() { self.used() } else { 0 };
        let dir = self.dir.display().to_string();
        let (reserve, limit) = (self.reserve, self.limit.unwrap_or(u64::MAX));
        let full = if free < reserve {
            let message = format!(
                "the disk of {dir:?} is full: {free} bytes are free, {reserve} are kept for work that makes room"
            );
            Some(Error::new(Kind::DiskFull, message))
        } else if used > limit {
            let message = format!("{dir:?} takes {used} bytes, more than disk-limit allows ({limit})");
            Some(Error::new(Kind::DiskFull, message))
        } else {
            None
        };
        self.set(
            full.map(|err| err.with_hint("Sources pause until there is room: free some, or let retention do it.")),
        );
    }

    /// Bytes that the directory takes. Looked at now and then only: it may have many files.
    fn used(&self) -> u64 {
        let mut used = self.used.lock();
        if used.0.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            let files = self.fs.list_all(&self.dir).unwrap_or_default();
            *used = (Some(Instant::now()), files.iter().map(|(_, meta)| meta.len).sum());
        }
        used.1
    }

    /// A write found the disk full before anybody looked.
    pub fn set_full(&self, err: Error) {
        self.set(Some(err));
    }

    fn set(&self, full: Option<Error>) {
        let mut now = self.full.lock();
        match (&*now, &full) {
            (None, Some(err)) => tracing::warn!(error = %err, "sources pause"),
            (Some(_), None) => tracing::info!("there is room on the disk again: sources go on"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *now = full;
        self.changed.notify_all();
    }

    /// Why there is no room, if there is none.
    pub fn full(&self) -> Option<Error> {
        self.full.lock().clone()
    }

    /// Waits for room; `false` when `stop` was set meanwhile.
    pub fn wait(&self, stop: &AtomicBool) -> bool {
        loop {
            {
                let mut full = self.full.lock();
                if full.is_none() {
                    return true;
                }
                if stop.load(Ordering::SeqCst) {
                    return false;
                }
                self.changed.wait_for(&mut full, PAUSE);
            }
            // While a server starts nobody else does.
            self.look();
        }
    }
}
