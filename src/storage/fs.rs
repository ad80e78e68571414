//! The seam between storage and the operating system: the few file operations durability rests on.
//!
//! Receives paths and bytes; hands on what the system answered, unchanged. All of `storage` goes through here (but for
//! the lock of the data directory, which is a matter between processes), so that a test can put a disk underneath that
//! fails, tears writes or loses what was not synced. It is kept thin for that reason: whoever writes such a disk has
//! twelve short methods to write.
//!
//! Reads and writes name their place in the file. So a handle has no cursor to share: one thread appends while others
//! read and another syncs, all through the same handle, and a write that failed half-way is simply written over.

use std::fmt::Debug;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A disk.
pub trait Fs: Send + Sync + Debug {
    /// Makes `dir` and its parents; nothing happens to those that exist.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The files in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Opens a new, empty file for reading and writing. A file already there loses its content.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name; a file of that name is replaced at once, so that either is there at any moment.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable: a new, renamed or removed file may otherwise be forgotten by a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file of a [`Fs`].
pub trait File: Send + Sync + Debug {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads into `buf` from byte `at`; returns how many bytes were read, 0 only at the end of the file.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes from byte `at`; returns how many bytes were written, which may be fewer than given.
    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize>;

    /// Cuts the file to `size` bytes.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Waits until content and length are on the disk (fdatasync). After an error it is unknown what is there.
    fn sync_data(&self) -> io::Result<()>;
}

impl dyn File {
    /// Fills `buf` from byte `at`, or as much of it as the file has; returns how much.
    pub fn read_full_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    /// Writes all of `buf` from byte `at`. After an error some of it may have been written.
    pub fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.write_at(&buf[done..], at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }
}

/// Replaces the file at `path` by one holding `bytes`, durably: whatever is killed when, the old or the new content is
/// there in whole. The bytes pass through a file of the same name with `.tmp` behind it.
pub fn write_atomic(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let write = || {
        let file = fs.create(&temporary)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        fs.rename(&temporary, path)?;
        fs.sync_dir(parent(path))
    };
    write().map_err(|err| Error::io("write", path, &err))
}

/// The whole content of a file.
pub fn read(fs: &dyn Fs, path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let file = fs.open(path)?;
        let mut bytes = vec![0; file.size()? as usize];
        let len = file.read_full_at(&mut bytes, 0)?;
        bytes.truncate(len);
        Ok(bytes)
    };
    read().map_err(|err| Error::io("read", path, &err))
}

/// The directory a file is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        Some(_) | None => Path::new("."),
    }
}

/// The disk of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Fs for Disk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(std::fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }
}

#[derive(Debug)]
struct DiskFile(std::fs::File);

impl File for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buf, at)
    }

    fn write_at(&self, buf: &[u8], at: u64) -> io::Result<usize> {
        self.0.write_at(buf, at)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_atomic(&Disk, &path, b"a longer first version").unwrap();
        write_atomic(&Disk, &path, b"second").unwrap();
        assert_eq!(read(&Disk, &path).unwrap(), b"second");
        assert_eq!(Disk.list(dir.path()).unwrap(), vec![path]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let err = read(&Disk, Path::new("/nonexistent/state.json")).unwrap_err();
        assert_eq!(err.kind(), crate::error::Kind::UndefinedFile);
        assert!(err.message().contains("state.json"));
    }
}
