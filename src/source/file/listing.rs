//! Which files are there? A path or glob pattern in, regular files with their inodes out.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::identity::Inode;
use super::tail::Stamp;
use crate::error::{Error, Kind, Result};

/// `*` stays within one directory level, as in a shell; `**` crosses levels.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The files meant by a path or glob pattern, sorted by name. A path that is no pattern must exist and be no directory;
/// a pattern may match nothing.
pub fn expand(pattern: &str) -> Result<Vec<PathBuf>> {
    crate::reach::path(pattern)?;
    let names = Names::parse(pattern)?;
    names.check()?;
    let mut warnings = Vec::new();
    let found: Vec<PathBuf> = match names {
        // Whatever can be read will do here, such as a named pipe.
        Names::One(path) => vec![path],
        Names::Glob(_) | Names::Several(_) => names.list(&mut warnings).into_iter().map(|found| found.path).collect(),
    };
    match warnings.pop() {
        Some(err) if found.is_empty() => Err(err),
        Some(_) | None => Ok(found),
    }
}

/// A checked `path` option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    One(PathBuf),
    Glob(String),
    /// Exactly these.
    Several(Vec<PathBuf>),
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    pub inode: Inode,
    pub stamp: Stamp,
}

impl Found {
    fn of(path: PathBuf, metadata: &Metadata) -> Option<Found> {
        metadata.is_file().then(|| Found { path, inode: Inode::of(metadata), stamp: Stamp::of(metadata) })
    }
}

impl Names {
    /// An existing file is meant literally even if its name holds `*`, `?` or `[`.
    pub fn parse(pattern: &str) -> Result<Names> {
        let path = PathBuf::from(pattern);
        if !pattern.contains(['*', '?', '[']) || path.exists() {
            return Ok(Names::One(path));
        }
        match Pattern::new(pattern) {
            Ok(_) => Ok(Names::Glob(pattern.to_string())),
            Err(err) => Err(Error::new(Kind::InvalidParameter, format!("bad path pattern {pattern:?}: {}", err.msg))
                .with_hint("Patterns know *, ?, [abc], [!a-z] and ** for any number of directories.")),
        }
    }

    /// Errors when a single path cannot be read: missing, a directory, or not allowed.
    pub fn check(&self) -> Result<()> {
        let path = match self {
            Names::One(path) => path,
            Names::Glob(_) | Names::Several(_) => return Ok(()),
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let name = path.display();
                Err(Error::new(Kind::WrongObjectType, format!("{:?} is a directory", name.to_string()))
                    .with_hint(format!("To read every file in it, use the pattern '{}'.", path.join("*").display())))
            }
            Ok(metadata) if !metadata.is_file() => Ok(()),
            Ok(_) => fs::File::open(path).map(drop).map_err(|err| Error::io("open", path, &err)),
            Err(err) => {
                let hint = "Check the path. To wait for files that do not exist yet, use a pattern such as 'app*.log'.";
                Err(Error::io("open", path, &err).with_hint(hint))
            }
        }
    }

    /// The files there are now, one per inode, sorted by name. What could not be listed goes to `warnings`.
    pub fn list(&self, warnings: &mut Vec<Error>) -> Vec<Found> {
        let paths: Vec<PathBuf> = match self {
            Names::One(path) => vec![path.clone()],
            Names::Several(paths) => paths.clone(),
            Names::Glob(pattern) => match glob::glob_with(pattern, MATCHING) {
                Ok(paths) => {
                    let mut note = |err: glob::GlobError| warnings.push(Error::io("list", err.path(), err.error()));
                    paths.filter_map(|path| path.map_err(&mut note).ok()).collect()
                }
                Err(_) => Vec::new(), // checked by `parse`
            },
        };
        let mut inside = |path: &PathBuf| {
            let inside = !path.exists() || crate::reach::found(path);
            if !inside {
                let message = format!(
                    "permission denied for {:?}: it is a link that leads elsewhere",
                    path.display().to_string()
                );
                warnings.push(Error::new(Kind::InsufficientPrivilege, message));
            }
            inside
        };
        distinct(paths.into_iter().filter(|path| inside(path)).collect())
    }
}

/// The files in the directory of `path` whose names start with its name: where rotation puts old contents.
pub fn siblings(path: &Path) -> Vec<Found> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let mut found = directory_of(path);
    found.retain(|f| {
        f.path.file_name().is_some_and(|n| n != name && n.as_encoded_bytes().starts_with(name.as_encoded_bytes()))
    });
    // The copy just made comes first.
    found.sort_by_key(|f| std::cmp::Reverse(f.stamp.modified_micros()));
    found
}

/// All files in the directory of `path`.
pub fn directory_of(path: &Path) -> Vec<Found> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    // Joined to the parent as given, so that `app.log.1` is found next to `app.log` and not next to `./app.log`.
    distinct(entries.flatten().map(|entry| path.with_file_name(entry.file_name())).collect())
}

fn distinct(mut paths: Vec<PathBuf>) -> Vec<Found> {
    paths.sort();
    let mut known = HashSet::new();
    let found = paths.into_iter().filter(|path| crate::reach::found(path)).filter_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        Found::of(path, &metadata)
    });
    found.filter(|f| known.insert(f.inode)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_list_files_and_paths_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.log", "a.log", "c.txt", ".hidden.log", "odd[1].log"] {
            fs::write(dir.path().join(name), "x\n").unwrap();
        }
        fs::create_dir(dir.path().join("sub.log")).unwrap();
        fs::hard_link(dir.path().join("a.log"), dir.path().join("link.log")).unwrap();
        let expand = |name: &str| expand(dir.path().join(name).to_str().unwrap());
        let names = |name: &str| -> Vec<String> {
            expand(name).unwrap().iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_string()).collect()
        };
        assert_eq!(names("*.log"), ["a.log", "b.log", "odd[1].log"], "files once, no directory, no hidden file");
        assert_eq!(names("odd[1].log"), ["odd[1].log"]);
        assert!(names("*.none").is_empty());

        let err = expand("nosuch.log").unwrap_err();
        assert_eq!(err.kind(), Kind::UndefinedFile);
        assert!(err.message().contains("nosuch.log") && err.hint().is_some());
        let err = expand("sub.log").unwrap_err();
        assert!(err.message().ends_with("is a directory") && err.hint().unwrap().contains("sub.log/*'"), "{err}");
        assert!(expand("[.log").unwrap_err().message().contains("bad path pattern"));
    }
}
