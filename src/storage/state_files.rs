//! States of rollups on disk: what a view's memory has no room for.
//!
//! ```text
//!     <data_dir>/state/<number>.run
//!     file  = block block …                 as many as the run has
//!     block = an Arrow IPC stream of its own: schema, one record batch (LZ4), end mark
//! ```
//!
//! Where blocks begin, how long they are and their CRC-32 is known to the run's owner ([`RunFile`]), so any block can be
//! read without the others. A block is valid when it is as long as it was and its checksum is right. Blocks that stand
//! alone, and not one IPC file, because dictionaries may differ from block to block; any Arrow reader can read them.
//!
//! A file goes with its last owner unless a checkpoint holds it: then it was synced, and is there after a restart. What
//! no checkpoint names is removed at the next start.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use parking_lot::Mutex;

use super::fs::{File, Fs};
use crate::error::{Error, Kind, Result};
use crate::rollup::run::{Place, RunFile, RunStore, RunWriter, SavedFile};

const SUFFIX: &str = "run";

/// The directory of states.
#[derive(Debug)]
pub struct StateFiles {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    next: AtomicU64,
    /// Files of earlier processes that are open: each has one owner however often it is asked for.
    opened: Mutex<HashMap<u64, Weak<Written>>>,
}

impl StateFiles {
    /// Makes the directory, and removes what an earlier process left in it but for the files with the numbers `held`.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, held: &HashSet<u64>) -> Result<StateFiles> {
        fs.create_dir_all(dir).map_err(|err| Error::io("create", dir, &err))?;
        let mut next = held.iter().max().map_or(0, |last| last + 1);
        for path in fs.list(dir).map_err(|err| Error::io("list", dir, &err))? {
            if path.extension().is_none_or(|e| e != SUFFIX) {
                continue;
            }
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            // A number is not used again: what is removed here may come back after a power cut.
            next = next.max(number.map_or(0, |number| number.saturating_add(1)));
            if number.is_none_or(|number| !held.contains(&number)) {
                fs.remove(&path).map_err(|err| Error::io("remove", &path, &err))?;
            }
        }
        Ok(StateFiles { fs, dir: dir.to_path_buf(), next: AtomicU64::new(next), opened: Mutex::default() })
    }

    /// Makes the names of new files durable: to be called between persisting runs and writing the checkpoint.
    pub fn sync_names(&self) -> Result<()> {
        self.fs.sync_dir(&self.dir).map_err(|err| Error::io("sync", &self.dir, &err))
    }

    fn owned(&self, number: u64) -> Owned {
        let path = self.dir.join(format!("{number:012}.{SUFFIX}"));
        Owned { fs: Arc::clone(&self.fs), path, number, holders: AtomicUsize::new(0) }
    }
}

impl RunStore for StateFiles {
    fn create(&self) -> Result<Box<dyn RunWriter>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let owned = self.owned(number);
        let file = self.fs.create(&owned.path).map_err(|err| Error::io("create", &owned.path, &err))?;
        Ok(Box::new(Writer { owned, file, blocks: Vec::new(), end: 0, buffer: Vec::new() }))
    }

    fn open(&self, saved: &SavedFile) -> Result<Arc<dyn RunFile>> {
        let mut opened = self.opened.lock();
        opened.retain(|_, file| file.strong_count() > 0);
        if let Some(file) = opened.get(&saved.number).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let (owned, blocks) = (self.owned(saved.number), saved.blocks.clone());
        let bytes = blocks.iter().map(|place| place.len).sum();
        let file = Arc::new(Written { owned, blocks, bytes, synced: AtomicBool::new(true) });
        opened.insert(saved.number, Arc::downgrade(&file));
        Ok(file)
    }
}

/// A file that is removed when this is dropped and no checkpoint holds it.
#[derive(Debug)]
struct Owned {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    number: u64,
    holders: AtomicUsize,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.holders.load(Ordering::SeqCst) == 0 {
            // What cannot be removed now is removed at the next start.
            let _ = self.fs.remove(&self.path);
        }
    }
}

struct Writer {
    owned: Owned,
    file: Arc<dyn File>,
    blocks: Vec<Place>,
    end: u64,
    buffer: Vec<u8>,
}

impl RunWriter for Writer {
    fn write(&mut self, block: &RecordBatch) -> Result<()> {
        self.buffer.clear();
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut writer = StreamWriter::try_new_with_options(&mut self.buffer, &block.schema(), options)?;
        writer.write(block)?;
        writer.finish()?;
        drop(writer);
        let written = self.file.write_all_at(&self.buffer, self.end);
        written.map_err(|err| Error::io("write", &self.owned.path, &err))?;
        let (len, crc) = (self.buffer.len() as u64, crc32fast::hash(&self.buffer));
        self.blocks.push(Place { at: self.end, len, crc });
        self.end += len;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn RunFile>> {
        let synced = AtomicBool::new(false);
        Ok(Arc::new(Written { owned: self.owned, blocks: self.blocks, bytes: self.end, synced }))
    }
}

#[derive(Debug)]
struct Written {
    owned: Owned,
    blocks: Vec<Place>,
    bytes: u64,
    synced: AtomicBool,
}

impl RunFile for Written {
    /// Opens the file each time: a state may consist of more files than a process may have open.
    fn read(&self, block: usize) -> Result<RecordBatch> {
        let Owned { fs, path, .. } = &self.owned;
        let Place { at, len, crc } = self.blocks[block];
        let read = || {
            let mut buffer = vec![0; len as usize];
            let read = fs.open(path)?.read_full_at(&mut buffer, at)?;
            buffer.truncate(read);
            Ok(buffer)
        };
        let buffer = read().map_err(|err| Error::io("read", path, &err))?;
        if (buffer.len() as u64) < len || crc32fast::hash(&buffer) != crc {
            return Err(damaged(path, "its checksum is wrong"));
        }
        let batch = StreamReader::try_new(Cursor::new(buffer), None).and_then(|mut reader| reader.next().transpose());
        match batch {
            Ok(Some(batch)) => Ok(batch),
            Ok(None) => Err(damaged(path, "a block is empty")),
            Err(err) => Err(damaged(path, &err.to_string())),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn persist(&self) -> Result<SavedFile> {
        let Owned { fs, path, number, .. } = &self.owned;
        if !self.synced.load(Ordering::SeqCst) {
            let synced = fs.open(path).and_then(|file| file.sync_data());
            synced.map_err(|err| Error::io("sync", path, &err))?;
            self.synced.store(true, Ordering::SeqCst);
        }
        Ok(SavedFile { number: *number, blocks: self.blocks.clone() })
    }

    fn hold(&self, held: bool) {
        match held {
            true => self.owned.holders.fetch_add(1, Ordering::SeqCst),
            false => self.owned.holders.fetch_sub(1, Ordering::SeqCst),
        };
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::new(Kind::Corrupted, format!("the state file {:?} is damaged: {why}", path.display().to_string()))
        .with_hint("Restart the server: it makes the view's state again from the stream's rows.")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray, StringViewArray, UInt64Array};
    use arrow::datatypes::Int64Type;

    use super::super::memory_fs::MemoryFs;
    use super::*;

    fn batch(from: i64) -> RecordBatch {
        let texts = StringViewArray::from_iter((from..from + 100).map(|i| (i % 7 != 0).then(|| format!("/path/{i}"))));
        let lists = (from..from + 100).map(|i| (i % 3 != 0).then(|| vec![Some(i), None]));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(texts)),
            ("count", Arc::new(UInt64Array::from_iter_values((0..100).map(|i| i * from as u64)))),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
            ("number", Arc::new(Int64Array::from_iter_values(from..from + 100))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn open(fs: &MemoryFs) -> StateFiles {
        StateFiles::open(Arc::new(fs.clone()), Path::new("state"), &HashSet::new()).unwrap()
    }

    fn write(files: &StateFiles, blocks: i64) -> Arc<dyn RunFile> {
        let mut writer = files.create().unwrap();
        (0..blocks).for_each(|i| writer.write(&batch(i * 100)).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn blocks_come_back_in_any_order_and_files_go_with_their_owner() {
        let fs = MemoryFs::default();
        let files = open(&fs);
        let (one, two) = (write(&files, 3), write(&files, 1));
        for i in [2, 0, 1] {
            let back = one.read(i).unwrap();
            assert_eq!(back, batch(i as i64 * 100));
            assert_eq!(back.column(3).as_primitive::<Int64Type>().value(0), i as i64 * 100);
        }
        assert!(one.bytes() > 0 && fs.paths().len() == 2);
        drop(one);
        assert_eq!(fs.paths().len(), 1);
        assert_eq!(two.read(0).unwrap(), batch(0));
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let fs = MemoryFs::default();
        let files = open(&fs);
        std::mem::forget(write(&files, 1));
        assert_eq!(fs.paths().len(), 1);
        let files = open(&fs);
        assert_eq!(fs.paths().len(), 0);
        assert_eq!(write(&files, 1).read(0).unwrap(), batch(0));
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        let fs = MemoryFs::default();
        let files = open(&fs);
        fs.faults(|faults| faults.space = Some(2000));
        let mut writer = files.create().unwrap();
        let err = (0..10).find_map(|i| writer.write(&batch(i)).err()).unwrap();
        assert_eq!(err.kind(), Kind::DiskFull, "{err}");
        drop(writer);
        assert_eq!(fs.paths().len(), 0);
    }

    #[test]
    fn a_damaged_block_is_found() {
        let fs = MemoryFs::default();
        let files = open(&fs);
        let run = write(&files, 2);
        let file = fs.open(&fs.paths()[0]).unwrap();
        file.write_all_at(b"x", 60).unwrap();
        let err = run.read(0).unwrap_err();
        assert_eq!(err.kind(), Kind::Corrupted);
        assert!(err.message().contains(".run"), "{err}");
        assert_eq!(run.read(1).unwrap(), batch(100));
    }
}
