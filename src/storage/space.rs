//! May logs be written now? Only while there is room on the disk: what is kept free lets the archive and checkpoints go
//! on, which is what makes room again, and queries spill. And not faster than the database may take lines in ([`Rate`]).
//!
//! The directory is looked at now and then ([`Space::look`]); whoever appends to a log waits here while there is no room
//! ([`Space::wait`]). So sources pause, reads go on, and everything resumes by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::fs::Fs;
use super::rate::Rate;
use crate::config::{Config, DATABASES, MAIN_DATABASE};
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
    /// Bytes that the directory may take; `u64::MAX`: what the disk has.
    limit: AtomicU64,
    reserve: u64,
    /// How fast logs may grow.
    pub rate: Rate,
    /// Of a tenant, who need not know where on the disk it is.
    tenant: Option<String>,
    /// Why there is no room.
    full: Mutex<Option<Error>>,
    changed: Condvar,
    /// When it was looked at last, and what the directory took then.
    used: Mutex<(Option<Instant>, u64)>,
}

impl Space {
    /// Of a data directory, with the limits of the settings.
    pub fn new(fs: Arc<dyn Fs>, dir: &Path, config: &Config) -> Space {
        let free = fs.free_space(dir).unwrap_or(u64::MAX);
        let reserve = RESERVE.min(free / RESERVE_PART);
        Space {
            fs,
            dir: dir.to_path_buf(),
            limit: AtomicU64::new(config.disk_limit.unwrap_or(u64::MAX)),
            reserve,
            rate: Rate::new(config.ingest_rate),
            tenant: Some(config.database.clone()).filter(|name| name != MAIN_DATABASE),
            full: Mutex::default(),
            changed: Condvar::new(),
            used: Mutex::default(),
        }
    }

    /// The tenant whose space it is, if it is one's.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Another limit from now on.
    pub fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.look();
    }

    /// Looks whether there is room.
    pub fn look(&self) {
        let free = self.fs.free_space(&self.dir).unwrap_or(u64::MAX);
        let limit = self.limit.load(Ordering::Relaxed);
        let used = if limit == u64::MAX { 0 } else { self.used() };
        let dir = self.dir.display().to_string();
        let reserve = self.reserve;
        let full = if free < reserve {
            Some(match &self.tenant {
                None => {
                    format!(
                        "the disk of {dir:?} is full: {free} bytes are free, {reserve} are kept for work that makes room"
                    )
                }
                Some(_) => "the disk of the server is full".to_string(),
            })
        } else if used > limit {
            Some(match &self.tenant {
                None => format!("{dir:?} takes {used} bytes, more than disk-limit allows ({limit})"),
                Some(name) => {
                    format!("database \"{name}\" takes {used} bytes, more than its bytes_kept allow ({limit})")
                }
            })
        } else {
            None
        };
        self.set(full.map(|message| {
            Error::new(Kind::DiskFull, message)
                .with_hint("Sources pause until there is room: free some, or let retention do it.")
        }));
    }

    /// Bytes that the directory takes, without those of the databases in it. Looked at now and then only: it may have many
    /// files.
    pub fn used(&self) -> u64 {
        let mut used = self.used.lock();
        if used.0.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            let others = self.dir.join(DATABASES);
            let files = self.fs.list_all(&self.dir).unwrap_or_default();
            let own = files.iter().filter(|(path, _)| !path.starts_with(&others));
            *used = (Some(Instant::now()), own.map(|(_, meta)| meta.len).sum());
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

    /// Waits for room, and until the rate allows more; `false` when `stop` was set meanwhile.
    pub fn wait(&self, stop: &AtomicBool) -> bool {
        loop {
            {
                let mut full = self.full.lock();
                let debt = self.rate.debt();
                if full.is_none() && debt.is_none() {
                    return true;
                }
                if stop.load(Ordering::SeqCst) {
                    return false;
                }
                let pause = debt.filter(|_| full.is_none()).unwrap_or(PAUSE);
                self.changed.wait_for(&mut full, pause.min(PAUSE));
                if full.is_none() {
                    continue;
                }
            }
            // While a server starts nobody else does.
            self.look();
        }
    }
}
