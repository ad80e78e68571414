//! The folder: which files are complete, and how one leaves.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::super::file::content::Compression;
use super::super::file::identity::Inode;
use crate::error::{Error, Kind, Result};
use crate::options::Options;
use crate::time::{MICROS_PER_SECOND, Micros};

/// Names are matched as a shell does it.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// A file of the folder, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    /// `dev:inode:size:modified` in hexadecimal, the last in nanoseconds: what a complete file keeps for ever.
    pub key: String,
    pub size: u64,
    inode: Inode,
    modified: (i64, i64),
    /// The last change of any kind, such as a renaming, in microseconds.
    touched: Micros,
}

/// How a file has left.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    Gone,
    /// It has not, as it is not what was read.
    Changed(File),
}

/// What the options say of the folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    names: Pattern,
    quiet_time: Micros,
    temporary_suffix: String,
    done_suffix: String,
    delete: bool,
}

impl File {
    fn of(path: PathBuf, metadata: &Metadata) -> File {
        let inode = Inode::of(metadata);
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let nanos = i128::from(modified.0) * 1_000_000_000 + i128::from(modified.1);
        File {
            path,
            key: format!("{:x}:{:x}:{:x}:{nanos:x}", inode.dev, inode.ino, metadata.len()),
            size: metadata.len(),
            inode,
            modified,
            touched: metadata.ctime() * MICROS_PER_SECOND + metadata.ctime_nsec() / 1000,
        }
    }

    /// Whether it is there and is still what it was.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| File::of(self.path.clone(), &found).key == self.key)
    }

    /// Whether it may be what has become of `other`, by its place or its inode.
    pub fn follows(&self, other: &File) -> bool {
        self.path == other.path || self.inode == other.inode
    }

    /// What people call it.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub fn is_compressed(&self) -> bool {
        Compression::of(&self.path) != Compression::None
    }

    /// Whether so much of its content may have been read. Of a compressed file that is not known.
    pub fn may_continue(&self, offset: u64) -> bool {
        self.is_compressed() || self.size >= offset
    }
}

impl Folder {
    pub fn open(options: &Options) -> Result<Folder> {
        let path = PathBuf::from(options.text("path").unwrap_or_default());
        let found = fs::metadata(&path).map_err(|err| Error::io("open", &path, &err))?;
        if !found.is_dir() {
            return Err(Error::new(Kind::WrongObjectType, format!("{:?} is no folder", path.display().to_string()))
                .with_hint("A single file is read with connector = 'file', mode = 'once'."));
        }
        let names = options.text("files").unwrap_or("*");
        let names = Pattern::new(names).map_err(|err| {
            Error::new(Kind::InvalidParameter, format!("bad pattern of names {names:?}: {}", err.msg))
        })?;
        let text = |name: &str| options.text(name).unwrap_or_default().to_string();
        let folder = Folder {
            path,
            names,
            quiet_time: options.interval("quiet_time").map_or(0, |d| d.as_micros() as Micros),
            temporary_suffix: text("temporary_suffix"),
            done_suffix: text("done_suffix"),
            delete: options.text("after") == Some("delete"),
        };
        if folder.done_suffix.is_empty() || folder.done_suffix.contains('/') {
            return Err(Error::new(
                Kind::InvalidParameter,
                "option \"done_suffix\" takes the end of a name, such as '.done'",
            ));
        }
        folder.all()?;
        Ok(folder)
    }

    /// Every regular file in it, in no order.
    pub fn all(&self) -> Result<Vec<File>> {
        let failed = |err: io::Error| Error::io("list", &self.path, &err);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // One that is gone since is not there. A link stands for its file.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_file() {
                found.push(File::of(path, &metadata));
            }
        }
        Ok(found)
    }

    /// The complete ones among all files, the oldest first, and of the same age by name.
    pub fn complete(&self, mut found: Vec<File>, now: Micros) -> Vec<File> {
        found.retain(|file| {
            // A clock that was set back must not make files wait for ever.
            let is_quiet = self.quiet_time == 0 || (now - file.touched).abs() >= self.quiet_time;
            is_quiet && self.is_wanted(&file.path)
        });
        found.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        found
    }

    fn is_wanted(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ends = |suffix: &str| !suffix.is_empty() && name.ends_with(suffix);
        !name.starts_with('.')
            && !ends(&self.temporary_suffix)
            && !ends(&self.done_suffix)
            && self.names.matches_with(&name, MATCHING)
    }

    /// Renames or deletes a file that was read, if it is still the same.
    pub fn leave(&self, file: &File) -> Result<Left> {
        match fs::metadata(&file.path) {
            // Somebody else has taken it away.
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Left::Gone),
            Err(err) => return Err(Error::io("look at", &file.path, &err)),
            Ok(found) => {
                let now = File::of(file.path.clone(), &found);
                if now.inode != file.inode {
                    // Another has been put in its place.
                    return Ok(Left::Gone);
                }
                if now.key != file.key {
                    return Ok(Left::Changed(now));
                }
            }
        }
        if self.delete {
            fs::remove_file(&file.path).map_err(|err| Error::io("delete", &file.path, &err))?;
        } else {
            let failed = |err: io::Error| Error::io("rename", &file.path, &err);
            fs::rename(&file.path, self.done_name(&file.path)).map_err(failed)?;
        }
        // Before its position is forgotten: else it would be back after a power failure, and be read again.
        let synced = fs::File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|err| Error::io("sync", &self.path, &err))?;
        Ok(Left::Gone)
    }

    /// A name that is free: a file of the same name may have come before.
    fn done_name(&self, path: &Path) -> PathBuf {
        let name = |number: u32| {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            name.push(&self.done_suffix);
            path.with_file_name(name)
        };
        (0..).map(name).find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_else(|| name(0))
    }
}
