//! The seam between storage and the operating system: the few file operations durability rests on.
//!
//! Receives paths and bytes; hands on what the system answered, unchanged. All of `storage` goes through here (but for
//! the lock of the data directory, which is a matter between processes), so that a test can put a disk underneath that
//! fails, tears writes or loses what was not synced (`faulty_fs.rs`). It is kept thin for that reason: every method here
//! is one that such a disk has to have.
//!
//! Reads and writes name their place in the file. So a handle has no cursor to share: one thread appends while others
//! read and another syncs, all through the same handle, and a write that failed half-way is simply written over.

use std::ffi::CString;
use std::fmt::Debug;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};

/// A disk.
pub trait Fs: Send + Sync + Debug {
    /// Makes `dir` and its parents; nothing happens to those that exist. Their names are durable when it returns, as what
    /// is synced in a directory that a power cut takes away is lost with it. That goes for the lowest that was there as
    /// well: whoever made it may have died before it was synced.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// What is in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// The files in `dir` and in the directories below it, in no order. In a directory that is not there are none.
    /// A link to a directory is not followed, as it may lead in a circle.
    fn list_all(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Meta)>>;

    /// What is known of a file without reading it. A directory is an error of kind `IsADirectory`.
    fn metadata(&self, path: &Path) -> io::Result<Meta>;

    /// Opens a new, empty file for reading and writing. A file already there loses its content.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// The same; only the owner of the process can read it. A file already there keeps who can.
    fn create_private(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.create(path)
    }

    /// Opens a new, empty file for reading and writing. A file already there is an error of kind `AlreadyExists`.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading only, as it may be somebody else's. A directory is an error of kind
    /// `IsADirectory`.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name; a file of that name is replaced at once, so that either is there at any moment.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file another name unless that is taken, which is an error of kind `AlreadyExists`. Of all who try to
    /// take a name at the same time, one gets it. A crash may leave the file with both names.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it. After an error, or a crash, some of it may be left.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable: a new, renamed or removed file may otherwise be forgotten by a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that can still be written to the disk that holds `dir`.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Length in bytes.
    pub len: u64,
    /// When its content last changed.
    pub modified: DateTime<Utc>,
}

/// An open file of a [`Fs`].
pub trait File: Send + Sync + Debug {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// What [`Fs::metadata`] says of it, even when its name is now another file's.
    fn metadata(&self) -> io::Result<Meta>;

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
    write_through(fs, path, bytes, |temporary| fs.create(temporary))
}

/// The same; only the owner of the process can read it.
pub fn write_atomic_private(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<()> {
    write_through(fs, path, bytes, |temporary| {
        match fs.remove(temporary) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
        fs.create_private(temporary)
    })
}

fn write_through(
    fs: &dyn Fs,
    path: &Path,
    bytes: &[u8],
    create: impl Fn(&Path) -> io::Result<Arc<dyn File>>,
) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let write = || {
        let file = create(&temporary)?;
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
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        Some(_) | None => Path::new("."),
    }
}

/// The directories on the way to `dir` from the lowest that is there on, in the order to make and sync them.
pub fn missing(dir: &Path, is_there: impl Fn(&Path) -> bool) -> Vec<&Path> {
    let mut found = Vec::new();
    for dir in dir.ancestors().filter(|dir| dir.file_name().is_some()) {
        found.push(dir);
        if is_there(dir) {
            break;
        }
    }
    found.reverse();
    found
}

/// The disk of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Fs for Disk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        for dir in missing(dir, Path::is_dir) {
            match std::fs::create_dir(dir) {
                // It is the one that was there, or somebody else was quicker but may not have synced it yet.
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
                made => made?,
            }
            match self.sync_dir(parent(dir)) {
                // Who may not read the directory above has not made this one.
                Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn list_all(&self, dir: &Path) -> io::Result<Vec<(PathBuf, Meta)>> {
        let (mut files, mut dirs) = (Vec::new(), vec![dir.to_path_buf()]);
        while let Some(dir) = dirs.pop() {
            let Some(entries) = if_there(std::fs::read_dir(&dir))? else { continue };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    dirs.push(entry.path());
                } else if let Some(found) = if_there(std::fs::metadata(entry.path()))?
                    && found.is_file()
                {
                    files.push((entry.path(), meta(&found)?));
                }
            }
        }
        Ok(files)
    }

    fn metadata(&self, path: &Path) -> io::Result<Meta> {
        meta(&std::fs::metadata(path)?)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn create_private(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(DiskFile(options.open(path)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DiskFile(std::fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = std::fs::File::open(path)?;
        // The system would let a directory be opened and fail on reading it.
        meta(&file.metadata()?)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// A second name and then not the first: `link` refuses a name that is taken on every system, network disks too.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)?;
        // The file has its name, which is what was asked for. What is left of the other is a temporary name.
        let _ = std::fs::remove_file(from);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let path = CString::new(dir.as_os_str().as_bytes())?;
        let mut found = MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` ends with a zero byte, and `found` is a place for one `statvfs`.
        if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so it has filled the place.
        let found = unsafe { found.assume_init() };
        // What is kept back for root is not for us. The types of these fields differ between systems.
        #[allow(clippy::unnecessary_cast)]
        let free = (found.f_bavail as u64).saturating_mul(found.f_frsize as u64);
        Ok(free)
    }
}

/// What was found, or `None` when it went away meanwhile or is a link that leads nowhere.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(err) => Err(err),
    }
}

fn meta(found: &std::fs::Metadata) -> io::Result<Meta> {
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(Meta { len: found.len(), modified: found.modified()?.into() })
}

#[derive(Debug)]
struct DiskFile(std::fs::File);

impl File for DiskFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn metadata(&self) -> io::Result<Meta> {
        meta(&self.0.metadata()?)
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
    fn directories_are_made_listed_and_removed_with_all_below() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        Disk.create_dir_all(&deep).unwrap();
        Disk.create_dir_all(&deep).unwrap();
        write_atomic(&Disk, &deep.join("deep"), b"12345").unwrap();
        write_atomic(&Disk, &root.path().join("top"), b"1").unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("a/circle")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("a/broken")).unwrap();
        let mut found = Disk.list_all(root.path()).unwrap();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let lens: Vec<_> = found.iter().map(|(path, meta)| (path.clone(), meta.len)).collect();
        assert_eq!(lens, [(deep.join("deep"), 5), (root.path().join("top"), 1)]);
        assert_eq!(Disk.metadata(&found[0].0).unwrap(), found[0].1);
        assert_eq!(Disk.metadata(&deep).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(Disk.open_read(&deep).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        Disk.remove_dir_all(&root.path().join("a")).unwrap();
        assert_eq!(Disk.list_all(&deep).unwrap(), []);
        assert!(Disk.free_space(root.path()).unwrap() > 0);
        assert!(Disk.free_space(&deep).is_err());
    }

    #[test]
    fn one_of_many_gets_a_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        let got = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|i| {
                    let (mine, taken) = (dir.path().join(i.to_string()), &taken);
                    Disk.create_new(&mine).unwrap().write_all_at(i.to_string().as_bytes(), 0).unwrap();
                    scope.spawn(move || Disk.rename_new(&mine, taken).map(|()| i))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let winners: Vec<_> = got.iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(read(&Disk, &taken).unwrap(), winners[0].to_string().as_bytes());
        assert!(got.iter().flat_map(|r| r.as_ref().err()).all(|err| err.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(Disk.create_new(&taken).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Disk.list(dir.path()).unwrap().len(), 8);
    }

    #[test]
    fn a_missing_file_is_named() {
        let err = read(&Disk, Path::new("/nonexistent/state.json")).unwrap_err();
        assert_eq!(err.kind(), crate::error::Kind::UndefinedFile);
        assert!(err.message().contains("state.json"));
    }
}
