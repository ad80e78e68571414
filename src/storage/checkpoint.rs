//! Checkpoints: what a server would otherwise have to compute again from its logs after a restart.
//!
//! ```text
//!     <data_dir>/checkpoints/<number>.checkpoint
//!     file = "LWCHECK1" · CRC-32 of the content (4 bytes, little-endian) · content: JSON of a [`Manifest`]
//!     <data_dir>/state/<number>.run              states of views that manifests name (state_files.rs)
//! ```
//!
//! A manifest names one instant of all streams and views: how far each stream had come, and the runs that were the state of
//! each rollup then. Runs never change, so a checkpoint writes those that came since the last one and names all. The order
//! makes it atomic: runs are written and synced, then their names, then the manifest under another name, then it is renamed.
//!
//! The last two manifests are kept, with all that they need of runs and logs: should the newer one be damaged, the older
//! one and a longer piece of the log give the same result.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fs::{Fs, read, write_atomic};
use super::keys::Key;
use super::record::Location;
use super::state_files::StateFiles;
use crate::error::{Error, Kind, Result};
use crate::position::Position;
use crate::rollup::run::{RunFile, RunStore, SavedRun};
use crate::rollup::unmatched::Pieces;
use crate::rollup::watermark::Reached;
use crate::time::Micros;

const MAGIC: &[u8; 8] = b"LWCHECK1";
const HEAD: usize = MAGIC.len() + 4;
const SUFFIX: &str = "checkpoint";

/// Manifests that are kept.
const KEPT: usize = 2;

/// One instant of all streams and views.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub number: u64,
    /// The program that wrote it: another one may compute states that do not fit together with these.
    pub program: String,
    pub written: Micros,
    /// By the id of the stream's object.
    pub streams: BTreeMap<u32, StreamState>,
    pub rollups: Vec<RollupState>,
}

/// How far a stream had come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    /// Everything before it is in the states.
    pub offset: u64,
    /// The last record of the log that is. `None`: there was none.
    pub applied: Option<Location>,
    pub rows: u64,
    pub malformed: u64,
    pub bytes: u64,
    pub watermark: Reached,
    /// Where its sources stood, by source.
    pub positions: Vec<(u32, Position)>,
    /// When each of these was noted.
    #[serde(default)]
    pub positions_at: Vec<Micros>,
    /// Idempotency keys of what was pushed, oldest first.
    #[serde(default)]
    pub keys: Vec<Key>,
    /// What its format had learned.
    pub learned: Option<serde_json::Value>,
    /// Beginnings of chunks that the archive did not have yet: the first of them, the first in each segment of the log, and
    /// some more.
    pub chunks: Vec<ChunkState>,
    /// What the archive had: its log has no checksum of ours, but it has to fit this.
    #[serde(default)]
    pub archived: Vec<ArchiveState>,
}

/// The tables of an archive.
pub const ROWS: &str = "rows";
pub const MALFORMED_LINES: &str = "malformed";

/// A version of a table of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveState {
    pub name: String,
    pub version: u64,
    /// It covers the offsets before this one.
    pub end: u64,
    pub rows: u64,
}

/// Where a chunk begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChunkState {
    pub base: u64,
    pub first: Location,
    /// The watermark before it.
    pub before: Option<Reached>,
}

/// The state of one rollup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollupState {
    pub key: String,
    /// The id of its stream.
    pub stream: u32,
    /// If it joins its stream with another.
    #[serde(default)]
    pub joined: Option<Joined>,
    pub expired: Option<i64>,
    pub runs: Vec<SavedRun>,
}

/// The state of a rollup over two streams: its runs are of the pairs of the rows that both had at that instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// The id of the second stream.
    pub stream: u32,
    /// What a LEFT JOIN has for rows without a match.
    pub unmatched: Pieces<SavedRun>,
}

impl Manifest {
    fn runs(&self) -> impl Iterator<Item = &SavedRun> {
        self.rollups.iter().flat_map(RollupState::all_runs)
    }

    /// The state of the rollup with this key over this stream, or over this and a second one.
    pub fn rollup(&self, key: &str, stream: u32, second: Option<u32>) -> Option<&RollupState> {
        let second_of = |rollup: &RollupState| rollup.joined.as_ref().map(|joined| joined.stream);
        self.rollups.iter().find(|r| r.key == key && r.stream == stream && second_of(r) == second)
    }
}

impl RollupState {
    fn all_runs(&self) -> impl Iterator<Item = &SavedRun> {
        self.runs.iter().chain(self.joined.iter().flat_map(|joined| joined.unmatched.runs()))
    }
}

/// The checkpoints of a data directory.
pub struct Checkpoints {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    next: u64,
    /// Oldest first.
    kept: Vec<Kept>,
}

/// A manifest with the files that it needs.
struct Kept {
    path: PathBuf,
    /// The offset of each stream, by its id.
    offsets: BTreeMap<u32, u64>,
    files: Vec<Arc<dyn RunFile>>,
}

/// What was found on opening.
pub struct Opened {
    pub checkpoints: Checkpoints,
    pub states: Arc<StateFiles>,
    /// The newest manifest that is whole.
    pub newest: Option<Manifest>,
    /// Manifests that are not.
    pub damaged: Vec<Error>,
}

impl Checkpoints {
    /// Opens the checkpoints and the states in `data_dir`. What no manifest names is removed.
    pub fn open(fs: Arc<dyn Fs>, data_dir: &Path) -> Result<Opened> {
        let dir = data_dir.join("checkpoints");
        fs.create_dir_all(&dir).map_err(|err| Error::io("create", &dir, &err))?;
        let mut found = Vec::new();
        for path in fs.list(&dir).map_err(|err| Error::io("list", &dir, &err))? {
            let named = path.extension().is_some_and(|e| e == SUFFIX);
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            match number.filter(|_| named) {
                Some(number) => found.push((number, path)),
                // A manifest that was being written.
                None if path.extension().is_some_and(|e| e == "tmp") => {
                    fs.remove(&path).map_err(|err| Error::io("remove", &path, &err))?;
                }
                None => {}
            }
        }
        found.sort();
        let next = found.last().map_or(1, |(number, _)| number + 1);
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for (_, path) in found {
            match decode(&*fs, &path) {
                Ok(manifest) => whole.push((path, manifest)),
                Err(err) => damaged.push(err),
            }
        }
        let held: HashSet<u64> =
            whole.iter().flat_map(|(_, manifest)| manifest.runs()).map(|run| run.file.number).collect();
        let states = Arc::new(StateFiles::open(Arc::clone(&fs), &data_dir.join("state"), &held)?);
        let mut kept = Vec::new();
        for (path, manifest) in &whole {
            let files = manifest.runs().map(|run| states.open(&run.file)).collect::<Result<Vec<_>>>()?;
            files.iter().for_each(|file| file.hold(true));
            let offsets = manifest.streams.iter().map(|(id, stream)| (*id, stream.offset)).collect();
            kept.push(Kept { path: path.clone(), offsets, files });
        }
        let newest = whole.pop().map(|(_, manifest)| manifest);
        Ok(Opened { checkpoints: Checkpoints { fs, dir, next, kept }, states, newest, damaged })
    }

    /// The number of the next manifest.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Makes a manifest the newest, with the files of its runs, which are durable already. Older ones go, but for one.
    pub fn write(&mut self, manifest: &Manifest, states: &StateFiles, files: Vec<Arc<dyn RunFile>>) -> Result<()> {
        let content = serde_json::to_vec(manifest).map_err(|err| Error::internal(err.to_string()))?;
        let mut bytes = Vec::with_capacity(HEAD + content.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
        bytes.extend_from_slice(&content);
        states.sync_names()?;
        let path = self.dir.join(format!("{:012}.{SUFFIX}", manifest.number));
        files.iter().for_each(|file| file.hold(true));
        if let Err(err) = write_atomic(&*self.fs, &path, &bytes) {
            // It may have got its name all the same, without the directory being synced. Then it must not stay: its runs
            // would not.
            let _ = self.fs.remove(&path);
            files.iter().for_each(|file| file.hold(false));
            return Err(err);
        }
        self.next = manifest.number + 1;
        let offsets = manifest.streams.iter().map(|(id, stream)| (*id, stream.offset)).collect();
        self.kept.push(Kept { path, offsets, files });
        while self.kept.len() > KEPT {
            let oldest = self.kept.remove(0);
            match self.fs.remove(&oldest.path) {
                Ok(()) => {}
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                Err(err) => return Err(Error::io("remove", &oldest.path, &err)),
            }
            self.fs.sync_dir(&self.dir).map_err(|err| Error::io("sync", &self.dir, &err))?;
            oldest.files.iter().for_each(|file| file.hold(false));
        }
        Ok(())
    }

    /// The offset of a stream that all kept manifests have passed: its log before it is not needed for its views.
    pub fn passed(&self, stream: u32) -> u64 {
        let offset = |kept: &Kept| kept.offsets.get(&stream).copied().unwrap_or(0);
        if self.kept.len() < KEPT { 0 } else { self.kept.iter().map(offset).min().unwrap_or(0) }
    }
}

fn decode(fs: &dyn Fs, path: &Path) -> Result<Manifest> {
    let bytes = read(fs, path)?;
    let damaged = |why: &str| {
        Error::new(Kind::Corrupted, format!("the checkpoint {:?} is damaged: {why}", path.display().to_string()))
    };
    let content =
        bytes.get(HEAD..).filter(|_| bytes.starts_with(MAGIC)).ok_or_else(|| damaged("it does not start as one"))?;
    if bytes[MAGIC.len()..HEAD] != crc32fast::hash(content).to_le_bytes() {
        return Err(damaged("its checksum is wrong"));
    }
    serde_json::from_slice(content).map_err(|err| damaged(&err.to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::super::memory_fs::MemoryFs;
    use super::*;
    use crate::rollup::run::{Panes, Run};

    fn run(n: i64) -> Run {
        let column = Arc::new(Int64Array::from(vec![n; 100])) as _;
        Run::new(vec![arrow::array::RecordBatch::try_from_iter([("n", column)]).unwrap()], Panes::of(n, n))
    }

    fn open(fs: &MemoryFs) -> Opened {
        Checkpoints::open(Arc::new(fs.clone()), Path::new("data")).unwrap()
    }

    fn write(opened: &mut Opened, runs: &[&Run]) {
        let saved = runs.iter().map(|run| run.save(&*opened.states).unwrap());
        let (runs, files) = saved.unzip();
        let rollups = vec![RollupState { key: "k".into(), stream: 1, joined: None, expired: None, runs }];
        let number = opened.checkpoints.next();
        let manifest = Manifest { number, program: "p".into(), written: 0, streams: BTreeMap::new(), rollups };
        opened.checkpoints.write(&manifest, &opened.states, files).unwrap();
    }

    fn states(fs: &MemoryFs) -> usize {
        fs.paths().iter().filter(|path| path.starts_with("data/state")).count()
    }

    #[test]
    fn a_checkpoint_writes_only_what_is_new_and_frees_what_no_kept_one_names() {
        let fs = MemoryFs::default();
        let mut opened = open(&fs);
        let (a, b, c) = (run(1), run(2), run(3));
        write(&mut opened, &[&a, &b]);
        assert_eq!(states(&fs), 2);
        write(&mut opened, &[&a, &b]);
        assert_eq!(states(&fs), 2, "nothing is new");
        write(&mut opened, &[&a, &c]);
        drop(b);
        assert_eq!(states(&fs), 3, "the checkpoint before it still needs b");
        write(&mut opened, &[&a, &c]);
        assert_eq!(states(&fs), 2);
        drop((a, c, opened));
        assert_eq!(states(&fs), 2, "they outlive the process");
        let opened = open(&fs);
        let saved = &opened.newest.as_ref().unwrap().rollup("k", 1, None).unwrap().runs;
        let back: Vec<_> = saved.iter().map(|run| Run::restore(run, &*opened.states, false).unwrap()).collect();
        assert_eq!(back.iter().map(|run| run.panes.first).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(back[1].block(0).unwrap(), run(3).block(0).unwrap());
    }

    #[test]
    fn a_damaged_checkpoint_is_told_and_the_one_before_it_counts() {
        let fs = MemoryFs::default();
        let mut opened = open(&fs);
        let (a, b) = (run(1), run(2));
        write(&mut opened, &[&a]);
        write(&mut opened, &[&b]);
        drop((a, b, opened));
        let newest = fs.paths().into_iter().rfind(|path| path.extension().is_some_and(|e| e == SUFFIX));
        fs.edit(&newest.unwrap(), |bytes| bytes[40] ^= 1);
        let opened = open(&fs);
        assert_eq!(opened.damaged.len(), 1);
        assert!(opened.damaged[0].message().contains("000002.checkpoint"), "{}", opened.damaged[0]);
        let manifest = opened.newest.unwrap();
        assert_eq!(manifest.number, 1);
        assert_eq!(opened.checkpoints.next(), 3, "a number is not used again");
        let run = &manifest.rollup("k", 1, None).unwrap().runs[0];
        assert_eq!(Run::restore(run, &*opened.states, false).unwrap().panes.first, 1);
    }

    #[test]
    fn damage_to_a_run_is_found_when_it_is_restored() {
        let fs = MemoryFs::default();
        let mut opened = open(&fs);
        write(&mut opened, &[&run(1)]);
        drop(opened);
        let state = fs.paths().into_iter().find(|path| path.starts_with("data/state")).unwrap();
        fs.edit(&state, |bytes| bytes[60] ^= 1);
        let opened = open(&fs);
        let saved = &opened.newest.unwrap().rollups[0].runs[0];
        assert_eq!(Run::restore(saved, &*opened.states, false).unwrap_err().kind(), Kind::Corrupted);
    }
}
