//! One server per data directory. Two would append to the same logs and destroy each other's records.
//!
//! Receives the data directory; hands on a guard that owns it until dropped. The lock is the operating system's
//! (flock) on the file `LOCK`, not the file's existence: it ends with the process however that dies, so there is never
//! a stale lock to remove by hand. The process id inside is only there to name the owner in the error.
//!
//! The file is never removed: a process could then lock the removed file while another locks a new one.

use std::fs::{OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// How often, and after how long, a lock is tried again that only a starting child can still have.
const CHILD_TRIES: usize = 50;
const CHILD_WAIT: Duration = Duration::from_millis(10);

/// Owns a data directory; dropping it gives the directory up.
#[derive(Debug)]
pub struct DataDirLock {
    // Held open, not read: closing it is what unlocks.
    _file: std::fs::File,
}

impl DataDirLock {
    /// Takes `dir`, which is created if missing. Another owner is an error of kind `ObjectInUse` that names its
    /// process.
    pub fn acquire(dir: &Path) -> Result<DataDirLock> {
        std::fs::create_dir_all(dir).map_err(|err| Error::io("create", dir, &err))?;
        let path = dir.join("LOCK");
        // Not truncated on opening: it may hold the id of a living owner.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|err| Error::io("open", &path, &err))?;
        let mut tries = 0;
        let locked = loop {
            match file.try_lock() {
                // A child that this process is just starting has the file of an earlier owner until it runs its program.
                Err(TryLockError::WouldBlock) if tries < CHILD_TRIES && is_own(&mut file) => {
                    tries += 1;
                    std::thread::sleep(CHILD_WAIT);
                }
                locked => break locked,
            }
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Without the id the message is only less exact.
                let _ = file.read_to_string(&mut owner);
                return Err(in_use(dir, owner.trim()));
            }
            Err(TryLockError::Error(err)) => return Err(Error::io("lock", &path, &err)),
        }
        // Without the id errors are only less exact. A full disk must not keep a server from starting.
        let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        Ok(DataDirLock { _file: file })
    }
}

/// Whether the process that the file names is this one.
fn is_own(file: &mut std::fs::File) -> bool {
    let mut owner = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut owner));
    let _ = file.rewind();
    read.is_ok() && owner.trim() == std::process::id().to_string()
}

fn in_use(dir: &Path, owner: &str) -> Error {
    let owner = if owner.is_empty() { "another process".to_string() } else { format!("process {owner}") };
    let dir = dir.display().to_string();
    Error::new(Kind::ObjectInUse, format!("data directory {dir:?} is in use by {owner}"))
        .with_hint("Stop that server first, or start this one with another data directory.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("made/on/demand");
        let first = DataDirLock::acquire(&data).unwrap();
        let err = DataDirLock::acquire(&data).unwrap_err();
        assert_eq!(err.kind(), Kind::ObjectInUse);
        assert!(err.message().ends_with(&format!("is in use by process {}", std::process::id())), "{err}");
        drop(first);
        DataDirLock::acquire(&data).unwrap();
    }
}
