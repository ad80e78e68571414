//! What a disk holds for certain, what it only may hold, and what a power cut makes of that.
//!
//! Every file has two contents: the one that is read, and the one that is durable. Between them stand the changes since
//! the last sync, in order. The same goes for the names in every directory, whose changes become durable by a sync of
//! the directory and not by one of the file. **After a power cut** each change that was not synced is there or is not,
//! whatever became of those before it; a write may also be there in part, or only as the length it gave the file, the
//! rest being zeros. What had been synced is there for sure. This is what POSIX allows, and more than most file systems
//! do.
//!
//! Files and directories have numbers, and names lead to them, as inodes: a file whose name is gone lives on for those
//! who have it open, and a file that has two names is one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The number of a file or directory.
pub type Id = u64;

const ROOT: Id = 0;

/// Random numbers that are the same for a seed in every version of this program (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// True with this probability. Asking for what never happens takes no number, so that a fault that is off changes
    /// nothing else.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.number() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// A probability, and often one of the ends: all or nothing finds other mistakes than some of each.
    fn tendency(&mut self) -> f64 {
        [0.0, 0.0, 0.1, 0.5, 0.9, 1.0, 1.0][self.below(7)]
    }
}

/// See the file header.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    nodes: BTreeMap<Id, Node>,
    /// Changes of names that are not durable, oldest first.
    pending: Vec<NameChange>,
    next: Id,
}

#[derive(Debug, Clone)]
enum Node {
    File(Content),
    Dir { names: Names, durable: Names },
}

type Names = BTreeMap<OsString, Id>;

/// Entries of directories that change together: the number that a name leads to from then on, or none.
type NameChange = Vec<(Id, OsString, Option<Id>)>;

#[derive(Debug, Clone, Default)]
pub struct Content {
    /// What is read.
    pub data: Vec<u8>,
    /// Ticks when it was last changed.
    pub modified: u64,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Len(usize),
}

impl FaultyDisk {
    /// An empty disk.
    pub fn new() -> FaultyDisk {
        let root = Node::Dir { names: Names::new(), durable: Names::new() };
        FaultyDisk { nodes: BTreeMap::from([(ROOT, root)]), pending: Vec::new(), next: ROOT + 1 }
    }

    /// What a path leads to. Absolute and relative paths begin at the same root.
    pub fn find(&self, path: &Path) -> io::Result<Id> {
        path.components().try_fold(ROOT, |at, part| match part {
            Component::Normal(name) => self.names(at)?.get(name).copied().ok_or(io::ErrorKind::NotFound.into()),
            Component::RootDir | Component::CurDir => Ok(at),
            Component::ParentDir | Component::Prefix(_) => Err(io::ErrorKind::InvalidInput.into()),
        })
    }

    /// The directory that a path's last name is in, and that name.
    pub fn place(&self, path: &Path) -> io::Result<(Id, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.names(dir)?;
        Ok((dir, name.to_owned()))
    }

    /// The names in a directory and what they lead to.
    pub fn names(&self, dir: Id) -> io::Result<&Names> {
        match &self.nodes[&dir] {
            Node::Dir { names, .. } => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub fn file(&mut self, id: Id) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&id).expect("numbers come from names and handles, and nodes stay") {
            Node::File(content) => Ok(content),
            Node::Dir { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The files below a directory, whose path stands in front of theirs.
    pub fn files_below(&self, dir: Id, path: &Path, found: &mut Vec<(PathBuf, Id)>) -> io::Result<()> {
        for (name, &id) in self.names(dir)? {
            match &self.nodes[&id] {
                Node::File(_) => found.push((path.join(name), id)),
                Node::Dir { .. } => self.files_below(id, &path.join(name), found)?,
            }
        }
        Ok(())
    }

    /// A new file without a name, or a new directory.
    pub fn make(&mut self, is_dir: bool) -> Id {
        let node = match is_dir {
            true => Node::Dir { names: Names::new(), durable: Names::new() },
            false => Node::File(Content::default()),
        };
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }

    /// Changes names, all of them or after a power cut perhaps none.
    pub fn rename(&mut self, change: NameChange) {
        for (dir, name, to) in change.clone() {
            set(tables(&mut self.nodes, dir).0, name, to);
        }
        self.pending.push(change);
    }

    /// Removes the names in a directory and below, each on its own.
    pub fn remove_below(&mut self, dir: Id) -> io::Result<()> {
        for (name, id) in self.names(dir)?.clone() {
            if matches!(self.nodes[&id], Node::Dir { .. }) {
                self.remove_below(id)?;
            }
            self.rename(vec![(dir, name, None)]);
        }
        Ok(())
    }

    /// Makes the names in a directory durable, and with them what changed together with them.
    pub fn sync_names(&mut self, dir: Id) -> io::Result<()> {
        self.names(dir)?;
        let all = std::mem::take(&mut self.pending).into_iter().enumerate();
        let (synced, mut left): (Vec<_>, Vec<_>) = all.partition(|(_, change)| change.iter().any(|part| part.0 == dir));
        for (when, change) in synced {
            for (dir, name, to) in change {
                // What became of the name before does not matter any more.
                for (_, earlier) in left.iter_mut().filter(|(earlier, _)| *earlier < when) {
                    earlier.retain(|(of, that, _)| (*of, that) != (dir, &name));
                }
                set(tables(&mut self.nodes, dir).1, name, to);
            }
        }
        self.pending = left.into_iter().map(|(_, change)| change).filter(|change| !change.is_empty()).collect();
        Ok(())
    }

    /// The disk as it may be after a power cut. Everything on it is durable.
    pub fn after_power_cut(&self, random: &mut Random) -> FaultyDisk {
        let mut nodes = self.nodes.clone();
        let keep = random.tendency();
        for change in &self.pending {
            if random.chance(keep) {
                for (dir, name, to) in change.clone() {
                    set(tables(&mut nodes, dir).1, name, to);
                }
            }
        }
        for node in nodes.values_mut() {
            match node {
                Node::File(content) => content.lose(random),
                Node::Dir { names, durable } => *names = durable.clone(),
            }
        }
        let mut disk = FaultyDisk { nodes, pending: Vec::new(), next: self.next };
        disk.forget_nameless();
        disk
    }

    fn forget_nameless(&mut self) {
        let (mut named, mut dirs) = (vec![ROOT], vec![ROOT]);
        while let Some(dir) = dirs.pop() {
            let Node::Dir { names, .. } = &self.nodes[&dir] else { continue };
            dirs.extend(names.values().filter(|id| matches!(self.nodes[id], Node::Dir { .. })));
            named.extend(names.values());
        }
        self.nodes.retain(|id, _| named.contains(id));
    }
}

/// The names in a directory and the durable ones.
fn tables(nodes: &mut BTreeMap<Id, Node>, dir: Id) -> (&mut Names, &mut Names) {
    match nodes.get_mut(&dir) {
        Some(Node::Dir { names, durable }) => (names, durable),
        Some(Node::File(_)) | None => unreachable!("names are looked up in a directory before they change"),
    }
}

/// Lets a name lead elsewhere.
fn set(names: &mut Names, name: OsString, to: Option<Id>) {
    match to {
        Some(id) => names.insert(name, id),
        None => names.remove(&name),
    };
}

impl Content {
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.data, at, bytes);
        self.pending.push(Change::Write { at, bytes: bytes.to_vec() });
    }

    pub fn truncate(&mut self, len: usize) {
        self.data.resize(len, 0);
        self.pending.push(Change::Len(len));
    }

    /// Makes the changes since the last sync durable. What an earlier sync failed to write is not among them.
    pub fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { at, bytes } => put(&mut self.durable, at, &bytes),
                Change::Len(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// What a failed sync leaves: some changes are on the disk and some are not, but the system holds all of them to be
    /// written and will not write them again. It still shows them, or no longer.
    pub fn fail_sync(&mut self, random: &mut Random) {
        let len = self.data.len();
        self.durable = self.survivors(random);
        if random.chance(0.25) {
            self.data = self.durable.clone();
            self.data.resize(len, 0);
        }
        // The length is kept elsewhere and is still to be written.
        self.pending = vec![Change::Len(len)];
    }

    /// Flips a bit of what is stored.
    pub fn rot(&mut self, bit: usize) {
        for bytes in [&mut self.data, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    fn lose(&mut self, random: &mut Random) {
        self.durable = self.survivors(random);
        self.data = self.durable.clone();
        self.pending.clear();
    }

    /// The durable content with some of the changes since.
    fn survivors(&self, random: &mut Random) -> Vec<u8> {
        let mut kept = self.durable.clone();
        let (whole, torn) = (random.tendency(), random.tendency());
        for change in &self.pending {
            let is_whole = random.chance(whole);
            match change {
                Change::Len(len) if is_whole => kept.resize(*len, 0),
                Change::Write { at, bytes } if is_whole => put(&mut kept, *at, bytes),
                Change::Write { at, bytes } if random.chance(torn) => {
                    let cut = random.below(bytes.len() + 1);
                    match random.below(3) {
                        0 => put(&mut kept, *at, &bytes[..cut]),
                        1 => put(&mut kept, at + cut, &bytes[cut..]),
                        // Only the length.
                        _ => kept.resize(kept.len().max(at + cut), 0),
                    }
                }
                Change::Len(_) | Change::Write { .. } => {}
            }
        }
        kept
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}
