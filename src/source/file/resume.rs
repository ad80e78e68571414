//! Which file does each saved position belong to? Decides that once, at the first listing. The rules are those of
//! [`identity`](super::identity): the inode first, then a copy (or compressed copy) that begins alike.
//!
//! Receives the durable positions of a former run; hands on one [`Tail`] for each file there is, behind what was read.

use std::fs::File as Handle;
use std::io;
use std::path::{Path, PathBuf};

use super::File;
use super::content::{self, Compression, Content};
use super::identity::{HEAD_BYTES, Inode, Key, Seen, read_at};
use super::listing::{self, Found};
use super::rotation::is_inode;
use super::tail::{Place, Tail};
use crate::position::Position;
use crate::time::Micros;

/// Where in a file the last line that is unfinished begins is looked for this far back.
const LAST_LINE_BYTES: u64 = 1 << 20;

/// So often a file may be renamed while it is looked into.
const RENAMES: usize = 4;

/// So often the directory is looked into for what has been read before. A rotation that copies and truncates may come
/// between a listing, in which the copy is missing or has just been begun, and a look into the file, which is empty by then:
/// neither is known. When the file is seen to be empty, the copy is complete, so the second look finds it; the third is for
/// a copy that grew while the second one was made.
const LOOKS: usize = 3;

/// A file at start-up.
pub(super) struct Candidate {
    found: Found,
    listed: bool,
    taken: bool,
    head: Option<Vec<u8>>,
}

impl Candidate {
    fn new(found: Found, listed: bool) -> Candidate {
        Candidate { found, listed, taken: false, head: None }
    }

    fn head(&mut self) -> &[u8] {
        if self.head.is_none() {
            // A file that cannot be read fits no position; reading it later reports why.
            let mut head = content::head(&self.found.path);
            for _ in 0..RENAMES {
                if !self.has_moved() {
                    break;
                }
                head = content::head(&self.found.path);
            }
            self.head = Some(head.unwrap_or_default());
        }
        self.head.as_deref().unwrap_or_default()
    }

    /// Whether the file has got another name since it was listed: then it is found under that from now on. What was read
    /// under the old name may be another file's, and the file would be taken for one that nobody has read yet.
    fn has_moved(&mut self) -> bool {
        let inode = self.found.inode;
        if std::fs::metadata(&self.found.path).is_ok_and(|metadata| Inode::of(&metadata) == inode) {
            return false;
        }
        let moved = listing::directory_of(&self.found.path).into_iter().find(|found| found.inode == inode);
        let has_moved = moved.is_some();
        if let Some(moved) = moved {
            self.found = moved;
        }
        has_moved
    }
}

impl File {
    /// The first listing. Goes on where `positions` end; other files are read from their beginning (or from their end,
    /// when nothing was read before and the user wants that).
    pub(super) fn start(&mut self, positions: &[Position], now: Micros) {
        let saved = keyed(positions);
        let mut files = Vec::new();
        self.add_candidates(&mut files, &saved, now);
        self.start_with(files, &saved, now);
    }

    /// The same with files that were listed a moment ago.
    pub(super) fn start_with(&mut self, mut files: Vec<Candidate>, saved: &[(Key, &Position)], now: Micros) {
        self.started = true;
        let mut moved: Vec<(PathBuf, u64)> = Vec::new();
        let mut found_again = vec![false; saved.len()];
        for look in 1..=LOOKS {
            self.find_again(&mut files, saved, &mut found_again, &mut moved, now);
            if look == LOOKS || found_again.iter().all(|found| *found) {
                break;
            }
            files.retain(|file| file.taken);
            self.add_candidates(&mut files, saved, now);
        }

        let (separator, at_end) = (self.settings.separator(), self.settings.start_at_end && saved.is_empty());
        for file in files.iter().filter(|f| f.listed && !f.taken) {
            let path = &file.found.path;
            let tail = self.add_tail(path.clone(), file.found.inode);
            tail.behind = moved.iter().filter(|(old, _)| old == path).map(|(_, id)| *id).collect();
            if at_end && tail.is_compressed() {
                tail.skip_all();
            } else if at_end && let Ok(Some((content, seen))) = open_at_last_line(path, separator) {
                tail.resume(content, seen, now);
            }
        }
    }

    /// Adds the files that are listed, oldest first, so that times ascend roughly, and those beside former ones.
    pub(super) fn add_candidates(&mut self, files: &mut Vec<Candidate>, saved: &[(Key, &Position)], now: Micros) {
        let listed = self.list(now);
        let new = |found: &Found| !files.iter().any(|file: &Candidate| file.found.inode == found.inode);
        let mut listed: Vec<Found> = listed.into_iter().filter(new).collect();
        listed.sort_by_key(|found| found.stamp.modified_micros());
        files.extend(listed.into_iter().map(|found| Candidate::new(found, true)));
        self.add_renamed(files, saved);
    }

    /// Goes on in each file that a position belongs to; notes which positions have theirs, and which files have moved.
    fn find_again(
        &mut self,
        files: &mut [Candidate],
        saved: &[(Key, &Position)],
        found_again: &mut [bool],
        moved: &mut Vec<(PathBuf, u64)>,
        now: Micros,
    ) {
        for same_inode in [true, false] {
            for (n, (key, position)) in saved.iter().enumerate() {
                if found_again[n] {
                    continue;
                }
                let partition = PathBuf::from(&position.partition);
                for file in files.iter_mut() {
                    if file.taken && file.found.inode == key.inode && key.fits(file.head()) {
                        found_again[n] = true; // an earlier position in the same content
                        break;
                    }
                    let eligible = match same_inode {
                        // A file does not become compressed: then the inode was given to another.
                        true => {
                            file.found.inode == key.inode
                                && is_compressed(&file.found.path) == is_compressed(&partition)
                        }
                        false => !key.is_empty() && (file.listed || is_sibling(&file.found.path, &partition)),
                    };
                    if file.taken || !eligible || !key.fits(file.head()) {
                        continue;
                    }
                    let Some(tail) = self.resume_file(file, position.end, now) else { continue };
                    tail.complete |= !same_inode;
                    if tail.path != partition {
                        moved.push((partition.clone(), tail.id));
                    }
                    (file.taken, found_again[n]) = (true, true);
                    break;
                }
            }
        }
    }

    /// The keys of those positions that neither a file there is can have nor a copy of it: those that
    /// [`File::start`] would not find again.
    pub(super) fn without_file(&self, positions: &[Position]) -> Vec<String> {
        // When nothing is there, a disk is missing rather than every file.
        if self.settings.once || !self.started || !self.tails.iter().any(|tail| tail.place == Place::Listed) {
            return Vec::new();
        }
        let keys = positions.iter().filter_map(|p| p.key.parse::<Key>().ok());
        let mut gone: Vec<Key> = keys.filter(|key| !self.tails.iter().any(|tail| tail.inode == key.inode)).collect();
        for tail in &self.tails {
            if gone.is_empty() {
                break;
            }
            match content::head(&tail.path) {
                Ok(head) => gone.retain(|key| key.is_empty() || !key.fits(&head)),
                // Renamed or deleted just now: then it is gone the next time.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                // It may be any of them.
                Err(_) => return Vec::new(),
            }
        }
        gone.iter().map(Key::to_string).collect()
    }

    /// Adds the other files of the directories that positions point into: renamed ones are among them.
    fn add_renamed(&self, files: &mut Vec<Candidate>, saved: &[(Key, &Position)]) {
        let mut searched: Vec<PathBuf> = Vec::new();
        for (_, position) in saved {
            let path = Path::new(&position.partition);
            let directory = path.parent().unwrap_or(Path::new("")).to_path_buf();
            if self.settings.once || searched.contains(&directory) {
                continue;
            }
            for found in listing::directory_of(path) {
                if !files.iter().any(|f| f.found.inode == found.inode) {
                    files.push(Candidate::new(found, false));
                }
            }
            searched.push(directory);
        }
    }

    fn resume_file(&mut self, file: &mut Candidate, offset: u64, now: Micros) -> Option<&mut Tail> {
        let mut opened = Content::open_at(&file.found.path, offset);
        for _ in 0..RENAMES {
            if !file.has_moved() {
                break;
            }
            opened = Content::open_at(&file.found.path, offset);
        }
        let (content, seen) = opened.ok()??;
        if !is_inode(&content, file.found.inode) {
            return None;
        }
        let room = self.make_room();
        let tail = self.add_tail(file.found.path.clone(), file.found.inode);
        tail.resume(content, seen, now);
        if !room {
            tail.content = None; // opened again when its turn comes
        }
        if !file.listed {
            tail.place = Place::Away { since: now };
        }
        Some(tail)
    }
}

/// Positions with what they say of their files, the furthest ones first.
pub(super) fn keyed(positions: &[Position]) -> Vec<(Key, &Position)> {
    let mut saved: Vec<(Key, &Position)> = positions.iter().filter_map(|p| Some((p.key.parse().ok()?, p))).collect();
    saved.sort_by_key(|(_, position)| std::cmp::Reverse(position.end));
    saved
}

fn is_compressed(path: &Path) -> bool {
    Compression::of(path) != Compression::None
}

/// Whether `path` is next to `old` and its name starts with the name of `old`, as the names that rotation gives do.
fn is_sibling(path: &Path, old: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|n| n.as_encoded_bytes().to_vec()).unwrap_or_default();
    path.parent() == old.parent() && name(path).starts_with(&name(old))
}

/// Opens a file behind the last byte that ends a line, so that an unfinished one comes whole.
fn open_at_last_line(path: &Path, separator: u8) -> io::Result<Option<(Content, Seen)>> {
    let file = Handle::open(path)?;
    let size = file.metadata()?.len();
    let mut end = size;
    while end > size.saturating_sub(LAST_LINE_BYTES) {
        let start = end.saturating_sub(HEAD_BYTES as u64);
        let bytes = read_at(&file, start, (end - start) as usize)?;
        if let Some(at) = memchr::memrchr(separator, &bytes) {
            return Content::open_at(path, start + at as u64 + 1);
        }
        end = start;
    }
    Content::open_at(path, if end == 0 { 0 } else { size })
}
