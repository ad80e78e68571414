//! A disk in memory for tests: fast, and it fails when told to. It shows writers what a real disk does rarely: a disk
//! that is full in the middle of a write, a sync that fails, a sync that takes its time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::DateTime;
use parking_lot::{Condvar, Mutex};

use super::fs::{File, Fs, Meta};

/// Clones share their files.
#[derive(Debug, Clone, Default)]
pub struct MemoryFs {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<Vec<u8>>>>>>,
    faults: Arc<(Mutex<Faults>, Condvar)>,
}

#[derive(Debug, Default)]
pub struct Faults {
    /// Bytes that can still be written before the disk is full.
    pub space: Option<usize>,
    /// Every write fails with an I/O error, half of it done.
    pub fail_writes: bool,
    pub fail_syncs: bool,
    /// Syncs wait while this is set.
    pub hold_syncs: bool,
    /// Syncs of files begun, and how many of them are waiting.
    pub syncs: usize,
    pub held: usize,
}

impl MemoryFs {
    /// Changes the faults, or looks at them.
    pub fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        let result = change(&mut self.faults.0.lock());
        self.faults.1.notify_all();
        result
    }

    /// Waits until a sync is being held.
    pub fn wait_held(&self) {
        let mut faults = self.faults.0.lock();
        while faults.held == 0 {
            self.faults.1.wait(&mut faults);
        }
    }

    /// A disk with the same content and no faults, which goes its own way from here.
    pub fn copy(&self) -> MemoryFs {
        let files = self.files.lock();
        let copied = files.iter().map(|(path, bytes)| (path.clone(), Arc::new(Mutex::new(bytes.lock().clone()))));
        MemoryFs { files: Arc::new(Mutex::new(copied.collect())), faults: Arc::default() }
    }

    /// Paths in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.lock().keys().cloned().collect()
    }

    /// Changes the content of a file behind the back of those who have it open.
    pub fn edit<T>(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let file = self.files.lock().entry(path.to_path_buf()).or_default().clone();
        change(&mut file.lock())
    }

    fn handle(&self, bytes: Arc<Mutex<Vec<u8>>>) -> Arc<dyn File> {
        Arc::new(MemoryFile { bytes, faults: self.faults.clone() })
    }
}

impl Fs for MemoryFs {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.lock().keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn list_all(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Meta)>> {
        let files = self.files.lock();
        let below = files.iter().filter(|(path, _)| path.starts_with(dir));
        Ok(below.map(|(path, bytes)| (path.clone(), meta(&bytes.lock()))).collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Meta> {
        self.open(path)?.metadata()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        self.files.lock().insert(path.to_path_buf(), bytes.clone());
        Ok(self.handle(bytes))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.files.lock().contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let bytes = self.files.lock().get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(bytes))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), bytes);
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        if files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.files.lock().retain(|path, _| !path.starts_with(dir));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.faults(|faults| faults.space.map_or(u64::MAX, |space| space as u64)))
    }
}

fn meta(bytes: &[u8]) -> Meta {
    Meta { len: bytes.len() as u64, modified: DateTime::UNIX_EPOCH }
}

#[derive(Debug)]
struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    faults: Arc<(Mutex<Faults>, Condvar)>,
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn metadata(&self) -> io::Result<Meta> {
        Ok(meta(&self.bytes.lock()))
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock();
        let from = (at as usize).min(bytes.len());
        let len = buf.len().min(bytes.len() - from);
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize> {
        let mut faults = self.faults.0.lock();
        // Never everything at once: callers must cope with short writes.
        let mut len = buf.len().div_ceil(2);
        if let Some(space) = &mut faults.space {
            len = len.min(*space);
            *space -= len;
            if len == 0 && !buf.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let mut bytes = self.bytes.lock();
        let end = at as usize + len;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at as usize..end].copy_from_slice(&buf[..len]);
        if faults.fail_writes { Err(io::Error::other("the disk is broken")) } else { Ok(len) }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.bytes.lock().resize(size as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (faults, changed) = &*self.faults;
        let mut faults = faults.lock();
        faults.syncs += 1;
        faults.held += 1;
        changed.notify_all();
        while faults.hold_syncs {
            changed.wait(&mut faults);
        }
        faults.held -= 1;
        if faults.fail_syncs { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }
}
