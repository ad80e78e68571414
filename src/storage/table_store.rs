//! Contents of reference tables, one file per version.
//!
//! ```text
//!     <data dir>/tables/<object id>/<version>.table
//!
//!     magic     8 bytes   "LWTABLE1"
//!     checksum  4 bytes   CRC-32 of what follows, little-endian
//!     content             an Arrow IPC file
//! ```
//!
//! A file is written in whole under another name and then renamed, so it is there with all of its content or not at
//! all. It counts when the catalog names its version: the catalog is written after it. A file that the catalog does not
//! name was left by a crash in between; the next version of that number replaces it.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;

use super::fs::{Fs, read, write_atomic};
use crate::error::{Error, Kind, Result};

const MAGIC: &[u8; 8] = b"LWTABLE1";
const HEAD: usize = MAGIC.len() + 4;

/// See the file header.
#[derive(Debug, Clone)]
pub struct TableStore {
    fs: Arc<dyn Fs>,
    /// `None`: nothing is kept.
    folder: Option<PathBuf>,
}

impl TableStore {
    /// Without a data dir nothing is kept.
    pub fn new(fs: Arc<dyn Fs>, data_dir: Option<&Path>) -> TableStore {
        TableStore { fs, folder: data_dir.map(|dir| dir.join("tables")) }
    }

    pub fn is_durable(&self) -> bool {
        self.folder.is_some()
    }

    fn path(&self, object: u32, version: u64) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(object.to_string()).join(format!("{version}.table")))
    }

    /// Makes a version durable.
    pub fn write(&self, object: u32, version: u64, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<()> {
        let Some(path) = self.path(object, version) else { return Ok(()) };
        let mut bytes = vec![0; HEAD];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        let mut writer = FileWriter::try_new(&mut bytes, schema)?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.finish()?;
        drop(writer);
        let checksum = crc32fast::hash(&bytes[HEAD..]);
        bytes[MAGIC.len()..HEAD].copy_from_slice(&checksum.to_le_bytes());
        let folder = path.parent().expect("it is made with a folder above it");
        self.fs.create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
        write_atomic(self.fs.as_ref(), &path, &bytes)
    }

    /// The columns and rows of a version.
    pub fn read(&self, object: u32, version: u64) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let path = self.path(object, version).ok_or_else(|| Error::internal("there is no data directory"))?;
        let bytes = read(self.fs.as_ref(), &path)?;
        let damaged = |what: &str| {
            Error::new(Kind::Corrupted, format!("the table file {:?} is damaged: {what}", path.display().to_string()))
                .with_hint("Restore the file from a backup, or move it away and create the table again.")
        };
        if bytes.len() < HEAD || &bytes[..MAGIC.len()] != MAGIC {
            return Err(damaged("it does not start as one"));
        }
        let checksum = u32::from_le_bytes(bytes[MAGIC.len()..HEAD].try_into().expect("the slice has four bytes"));
        if crc32fast::hash(&bytes[HEAD..]) != checksum {
            return Err(damaged("its checksum does not fit"));
        }
        let reader = FileReader::try_new(Cursor::new(&bytes[HEAD..]), None)?;
        let schema = reader.schema();
        Ok((schema, reader.collect::<Result<Vec<_>, _>>()?))
    }

    /// Removes a version that nobody needs. It does not matter if it is not there.
    pub fn remove(&self, object: u32, version: u64) {
        if let Some(path) = self.path(object, version) {
            let _ = self.fs.remove(&path);
        }
    }

    /// Removes all versions of an object.
    pub fn remove_all(&self, object: u32) -> Result<()> {
        let Some(folder) = self.folder.as_ref().map(|folder| folder.join(object.to_string())) else { return Ok(()) };
        match self.fs.remove_dir_all(&folder) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &folder, &err)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fs::Disk;
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};

    fn batch() -> RecordBatch {
        let fields = vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8View, true)];
        let texts = StringViewArray::from(vec![Some("a text of more than twelve bytes"), None]);
        let columns = vec![Arc::new(Int64Array::from(vec![Some(1), None])) as _, Arc::new(texts) as _];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn versions_come_back_as_written_and_go_when_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = TableStore::new(Arc::new(Disk), Some(dir.path()));
        store.write(7, 1, &batch().schema(), &[batch(), batch()]).unwrap();
        store.write(7, 2, &batch().schema(), &[]).unwrap();
        assert_eq!(store.read(7, 1).unwrap(), (batch().schema(), vec![batch(), batch()]));
        assert_eq!(store.read(7, 2).unwrap(), (batch().schema(), vec![]));
        store.remove(7, 1);
        assert_eq!(store.read(7, 1).unwrap_err().kind(), Kind::UndefinedFile);
        store.remove_all(7).unwrap();
        store.remove_all(7).unwrap();
        assert_eq!(store.read(7, 2).unwrap_err().kind(), Kind::UndefinedFile);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = TableStore::new(Arc::new(Disk), Some(dir.path()));
        store.write(1, 1, &batch().schema(), &[batch()]).unwrap();
        let path = store.path(1, 1).unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(store.read(1, 1).unwrap_err().kind(), Kind::Corrupted, "byte {at}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(store.read(1, 1).unwrap_err().kind(), Kind::Corrupted);
    }

    #[test]
    fn without_a_data_directory_nothing_is_kept() {
        let store = TableStore::new(Arc::new(Disk), None);
        assert!(!store.is_durable());
        store.write(1, 1, &batch().schema(), &[batch()]).unwrap();
        store.remove_all(1).unwrap();
    }
}
