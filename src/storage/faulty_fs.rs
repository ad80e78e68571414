//! A disk in memory that fails as real ones do, driven by a seed: for tests, and only for them.
//!
//! While it runs it may fail writes, cut them short, be full for a while, fail syncs and lose what they were to write,
//! flip bits, or stop altogether at a given operation ([`Faults`], all off at first). Then it can be asked what it
//! looks like after the power was cut ([`FaultyFs::crash`]) or only the process died ([`FaultyFs::kill`]).
//! `faulty_disk.rs` says what a power cut takes.
//!
//! What always holds: the same seed and the same calls in the same order give the same answers; so calls must come from
//! one thread at a time for a run to be repeated.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::DateTime;
use parking_lot::Mutex;

pub use super::faulty_disk::Random;
use super::faulty_disk::{Content, FaultyDisk, Id};
use super::fs::{File, Fs, Meta, missing, parent};

/// What goes wrong. Numbers that are not counts are probabilities, from 0 to 1.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// A write fails with an I/O error, some of it done.
    pub write_error: f64,
    /// A write does only a part, and says so.
    pub short_write: f64,
    /// A write finds the disk full, perhaps half-way, and so do writes and new files for `full_for` operations.
    pub full: f64,
    pub full_for: u64,
    /// Bytes that files can have together; a write past that finds the disk full.
    pub capacity: Option<u64>,
    /// A sync fails. Some of what it was to write is lost: a later sync succeeds without having written it.
    pub sync_error: f64,
    pub read_error: f64,
    /// A read hands on a flipped bit, once.
    pub flip: f64,
    /// A read finds a flipped bit that stays so.
    pub rot: f64,
    /// Bits flip only in files whose path contains this.
    pub flip_in: Option<String>,
    /// The operation with this number, counted from 1, is the last one: it happens perhaps, and fails like all later.
    pub crash_at: Option<u64>,
}

/// How often what went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injected {
    pub write_errors: u64,
    pub short_writes: u64,
    pub full: u64,
    pub sync_errors: u64,
    pub read_errors: u64,
    /// Bits, flipped once or for good.
    pub flips: u64,
}

/// See the file header. Clones are the same disk.
#[derive(Clone)]
pub struct FaultyFs(Arc<Mutex<State>>);

struct State {
    disk: FaultyDisk,
    random: Random,
    faults: Faults,
    injected: Injected,
    operations: u64,
    /// The disk is full until this operation.
    full_until: u64,
    /// The time, in operations since the disk was made.
    ticks: u64,
    stopped: bool,
}

/// 2026-01-01, in milliseconds; a tick is one of them.
const BEGINNING: i64 = 1_767_225_600_000;

impl FaultyFs {
    /// An empty disk without faults.
    pub fn new(seed: u64) -> FaultyFs {
        FaultyFs::with(FaultyDisk::new(), seed, 0)
    }

    fn with(disk: FaultyDisk, seed: u64, ticks: u64) -> FaultyFs {
        FaultyFs(Arc::new(Mutex::new(State {
            disk,
            random: Random::new(seed),
            faults: Faults::default(),
            injected: Injected::default(),
            operations: 0,
            full_until: 0,
            ticks,
            stopped: false,
        })))
    }

    /// Changes the faults, or looks at them.
    pub fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.0.lock().faults)
    }

    pub fn injected(&self) -> Injected {
        self.0.lock().injected
    }

    /// Operations so far, those that failed included.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Cuts the power: what a machine that starts again finds. This disk answers nothing any more; the one returned has
    /// no faults.
    pub fn crash(&self) -> FaultyFs {
        let state = &mut *self.0.lock();
        state.stopped = true;
        let disk = state.disk.after_power_cut(&mut state.random);
        FaultyFs::with(disk, state.random.number(), state.ticks)
    }

    /// Ends the process but not the machine: nothing is lost, and nothing is synced either. This disk answers nothing
    /// any more; the one returned has no faults.
    pub fn kill(&self) -> FaultyFs {
        let state = &mut *self.0.lock();
        state.stopped = true;
        FaultyFs::with(state.disk.clone(), state.random.number(), state.ticks)
    }

    /// Flips a bit of a file for good and returns its byte; `None` when the file is empty.
    pub fn rot(&self, path: &Path) -> io::Result<Option<usize>> {
        let state = &mut *self.0.lock();
        let id = state.disk.find(path)?;
        let content = state.disk.file(id)?;
        if content.data.is_empty() {
            return Ok(None);
        }
        let bit = state.random.below(content.data.len() * 8);
        content.rot(bit);
        state.injected.flips += 1;
        Ok(Some(bit / 8))
    }

    /// Does one operation, if there is power.
    fn run<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let state = &mut *self.0.lock();
        state.operations += 1;
        state.ticks += 1;
        if state.stopped {
            return Err(io::Error::other("the power is cut"));
        }
        state.stopped = state.faults.crash_at.is_some_and(|last| state.operations >= last);
        let done = operation(state);
        if state.stopped { Err(io::Error::other("the power is cut")) } else { done }
    }

    fn handle(&self, id: Id, path: &Path) -> Arc<dyn File> {
        Arc::new(FaultyFile { fs: self.clone(), id, path: path.to_string_lossy().into_owned() })
    }

    fn new_file(&self, path: &Path, may_exist: bool) -> io::Result<Arc<dyn File>> {
        let id = self.run(|state| {
            let (dir, name) = state.disk.place(path)?;
            let old = state.disk.names(dir)?.get(&name).copied();
            if old.is_some() && !may_exist {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let ticks = state.ticks;
            if let Some(id) = old {
                let content = state.disk.file(id)?;
                content.truncate(0);
                content.modified = ticks;
                return Ok(id);
            }
            if state.is_full() {
                state.injected.full += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let id = state.disk.make(false);
            state.disk.file(id)?.modified = ticks;
            state.disk.rename(vec![(dir, name, Some(id))]);
            Ok(id)
        })?;
        Ok(self.handle(id, path))
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.operations < self.full_until
    }

    /// Bytes that fit.
    fn room(&mut self) -> io::Result<u64> {
        if self.is_full() {
            return Ok(0);
        }
        let Some(capacity) = self.faults.capacity else { return Ok(1 << 40) };
        let mut files = Vec::new();
        self.disk.files_below(self.disk.find(Path::new(""))?, Path::new(""), &mut files)?;
        files
            .into_iter()
            .try_fold(capacity, |left, (_, id)| Ok(left.saturating_sub(self.disk.file(id)?.data.len() as u64)))
    }

    /// Writes some of the bytes, and says how many or what failed.
    fn write(&mut self, id: Id, bytes: &[u8], at: usize) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let len = self.disk.file(id)?.data.len();
        let grows = (at + bytes.len()).saturating_sub(len) as u64;
        let mut room = self.room()?;
        if self.random.chance(self.faults.full) {
            self.full_until = self.operations + 1 + self.faults.full_for;
            room = room.min(self.random.below(grows.max(1) as usize) as u64);
        }
        let mut done = bytes.len();
        let mut failed = None;
        if room < grows {
            self.injected.full += 1;
            // A write behind the end needs room for the hole as well.
            done = done.saturating_sub((grows - room) as usize);
            failed = (done == 0).then(|| io::ErrorKind::StorageFull.into());
        } else if self.random.chance(self.faults.write_error) {
            self.injected.write_errors += 1;
            done = self.random.below(done + 1);
            failed = Some(io::Error::other("the disk could not write"));
        } else if done > 1 && self.random.chance(self.faults.short_write) {
            self.injected.short_writes += 1;
            done = 1 + self.random.below(done - 1);
        }
        let ticks = self.ticks;
        let content = self.disk.file(id)?;
        if done > 0 {
            content.write(at, &bytes[..done]);
            content.modified = ticks;
        }
        failed.map_or(Ok(done), Err)
    }

    fn read(&mut self, id: Id, buf: &mut [u8], at: u64, flips: bool) -> io::Result<usize> {
        if self.random.chance(self.faults.read_error) {
            self.injected.read_errors += 1;
            return Err(io::Error::other("the disk could not read"));
        }
        let content = self.disk.file(id)?;
        let from = (at as usize).min(content.data.len());
        let len = buf.len().min(content.data.len() - from);
        if flips && len > 0 && self.random.chance(self.faults.rot) {
            content.rot(from * 8 + self.random.below(len * 8));
            self.injected.flips += 1;
        }
        buf[..len].copy_from_slice(&content.data[from..from + len]);
        if flips && len > 0 && self.random.chance(self.faults.flip) {
            let bit = self.random.below(len * 8);
            buf[bit / 8] ^= 1 << (bit % 8);
            self.injected.flips += 1;
        }
        Ok(len)
    }

    /// Whether a sync happens; what remains of what it was to write is the caller's.
    fn syncs(&mut self) -> bool {
        let fails = self.random.chance(self.faults.sync_error);
        self.injected.sync_errors += u64::from(fails);
        !fails
    }
}

impl fmt::Debug for FaultyFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyFs").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

fn meta(content: &Content) -> Meta {
    let modified = DateTime::from_timestamp_millis(BEGINNING + content.modified as i64);
    Meta { len: content.data.len() as u64, modified: modified.expect("the count of operations is far from the end") }
}

impl Fs for FaultyFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        for dir in missing(dir, |dir| self.0.lock().disk.find(dir).is_ok()) {
            self.run(|state| {
                let (above, name) = state.disk.place(dir)?;
                if let Some(&id) = state.disk.names(above)?.get(&name) {
                    return state.disk.names(id).map(|_| ());
                }
                let id = state.disk.make(true);
                state.disk.rename(vec![(above, name, Some(id))]);
                Ok(())
            })?;
            self.sync_dir(parent(dir))?;
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.run(|state| Ok(state.disk.names(state.disk.find(dir)?)?.keys().map(|name| dir.join(name)).collect()))
    }

    fn list_all(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Meta)>> {
        self.run(|state| {
            let mut files = Vec::new();
            match state.disk.find(dir).and_then(|id| state.disk.files_below(id, dir, &mut files)) {
                Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                found => found?,
            }
            files.into_iter().map(|(path, id)| Ok((path, meta(state.disk.file(id)?)))).collect()
        })
    }

    fn metadata(&self, path: &Path) -> io::Result<Meta> {
        self.open_read(path)?.metadata()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.new_file(path, true)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.new_file(path, false)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let id = self.run(|state| {
            let id = state.disk.find(path)?;
            state.disk.file(id).map(|_| id)
        })?;
        Ok(self.handle(id, path))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(|state| {
            let (id, (from, old), (to, new)) = (state.disk.find(from)?, state.disk.place(from)?, state.disk.place(to)?);
            if (from, &old) != (to, &new) {
                state.disk.rename(vec![(from, old, None), (to, new, Some(id))]);
            }
            Ok(())
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(|state| {
            let (id, (from, old), (to, new)) = (state.disk.find(from)?, state.disk.place(from)?, state.disk.place(to)?);
            if state.disk.names(to)?.contains_key(&new) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            // Two steps, as on the disk of the operating system.
            state.disk.rename(vec![(to, new, Some(id))]);
            state.disk.rename(vec![(from, old, None)]);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(|state| {
            let id = state.disk.find(path)?;
            state.disk.file(id)?;
            let (dir, name) = state.disk.place(path)?;
            state.disk.rename(vec![(dir, name, None)]);
            Ok(())
        })
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.run(|state| {
            let (above, name) = state.disk.place(dir)?;
            state.disk.remove_below(state.disk.find(dir)?)?;
            state.disk.rename(vec![(above, name, None)]);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(|state| {
            let id = state.disk.find(dir)?;
            if !state.syncs() {
                return Err(io::Error::other("the disk could not sync"));
            }
            if state.stopped { Ok(()) } else { state.disk.sync_names(id) }
        })
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        self.run(|state| state.room())
    }
}

#[derive(Debug)]
struct FaultyFile {
    fs: FaultyFs,
    id: Id,
    /// Where it was opened.
    path: String,
}

impl File for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len)
    }

    fn metadata(&self) -> io::Result<Meta> {
        self.fs.run(|state| Ok(meta(state.disk.file(self.id)?)))
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.fs.run(|state| {
            let flips = state.faults.flip_in.as_ref().is_none_or(|part| self.path.contains(part));
            state.read(self.id, buf, at, flips)
        })
    }

    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize> {
        self.fs.run(|state| state.write(self.id, buf, at as usize))
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.fs.run(|state| {
            let ticks = state.ticks;
            let content = state.disk.file(self.id)?;
            content.truncate(size as usize);
            content.modified = ticks;
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.run(|state| {
            let syncs = state.syncs();
            let State { disk, random, stopped, .. } = state;
            let content = disk.file(self.id)?;
            match (syncs, *stopped) {
                (true, false) => content.sync(),
                // The power cut decides what of it was written.
                (true, true) => {}
                (false, _) => {
                    content.fail_sync(random);
                    return Err(io::Error::other("the disk could not sync"));
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
