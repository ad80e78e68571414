//! Dead letters: the rows that the other side has refused for good, with the reason. `<sink>__dead` shows them.
//!
//! ```text
//!     <data_dir>/sinks/<object id>/dead.jsonl       a letter a line: its CRC-32 in 8 hexadecimal digits, a blank, its JSON
//!     <data_dir>/sinks/<object id>/dead.1.jsonl     the letters before those
//! ```
//!
//! A letter is durable before its row counts as delivered. A line counts when its checksum is right: what a kill cut off is
//! written over. When the first file has half of the bytes allowed it takes the place of the second one, whose letters go:
//! the oldest. Letters are read from the files by those who ask, so they take no memory.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::logical_expr::{Expr, TableType};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::opaque::{Scanned, scan_boxed};
use crate::storage::fs::{File, Fs, read};
use crate::time::{Micros, UTC};

/// What follows a sink's name in the name of the relation.
pub const SUFFIX: &str = "__dead";

const NAMES: [&str; 2] = ["dead.jsonl", "dead.1.jsonl"];

/// The columns of `<sink>__dead`, with what they are.
pub static COLUMNS: &[(&str, &str)] = &[
    ("offset", "the offset that the row or change brings the receiver to"),
    ("refused_at", "when the other side refused it for the last time"),
    ("tries", "how often it was sent"),
    ("reason", "what the other side said"),
    ("row", "the row as JSON"),
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let types = [DataType::Int64, timestamp_type(), DataType::Int64, DataType::Utf8, DataType::Utf8];
    let fields = COLUMNS.iter().zip(types).map(|((name, _), data_type)| Field::new(*name, data_type, false));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
});

/// A row that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    pub offset: u64,
    pub at: Micros,
    pub tries: u64,
    pub reason: String,
    pub row: String,
}

/// The dead letters of a sink.
pub struct DeadLetters {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    /// Bytes that one of the two files may have.
    limit: u64,
    open: Mutex<Option<Open>>,
}

/// The file that is written to.
struct Open {
    file: Arc<dyn File>,
    end: u64,
    /// The last offset of which there are letters.
    last: Option<u64>,
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadLetters({})", self.folder.display())
    }
}

impl DeadLetters {
    /// In the folder of a sink; at most `bytes` of them are kept.
    pub fn new(fs: Arc<dyn Fs>, folder: &Path, bytes: u64) -> DeadLetters {
        DeadLetters { fs, folder: folder.to_path_buf(), limit: (bytes / 2).max(1), open: Mutex::default() }
    }

    /// Adds letters, durably; gives how many were added and how many of the oldest had to go. Those that are there already are
    /// left out: their rows have come again after a failure. Blocks.
    pub fn add(&self, letters: &[Letter]) -> Result<(u64, u64)> {
        let mut open = self.open.lock();
        let there = match &*open {
            // Rows come in the order of their offsets.
            Some(open) if letters.iter().all(|letter| open.last.is_none_or(|last| letter.offset > last)) => Vec::new(),
            Some(_) | None => self.letters()?,
        };
        let is_new = |letter: &&Letter| !there.iter().any(|t| (t.offset, &t.row) == (letter.offset, &letter.row));
        let letters: Vec<&Letter> = letters.iter().filter(is_new).collect();
        let last = there.iter().chain(letters.iter().copied()).map(|letter| letter.offset).max();
        let last = last.max(open.as_ref().and_then(|open| open.last));
        let path = self.folder.join(NAMES[0]);
        let (mut lines, mut gone) = (Vec::new(), 0);
        for letter in &letters {
            let json = serde_json::to_string(letter).map_err(|err| Error::internal(err.to_string()))?;
            lines.extend_from_slice(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).as_bytes());
        }
        let (file, end) = match open.take() {
            Some(Open { file, end, .. }) if end < self.limit => (file, end),
            Some(_) => {
                gone = self.letters_in(NAMES[1])?.0.len() as u64;
                let before = self.folder.join(NAMES[1]);
                self.fs.rename(&path, &before).map_err(|err| Error::io("rename", &path, &err))?;
                (self.create(&path)?, 0)
            }
            None => match self.fs.open(&path) {
                Ok(file) => (file, self.letters_in(NAMES[0])?.1),
                Err(err) if err.kind() == ErrorKind::NotFound => (self.create(&path)?, 0),
                Err(err) => return Err(Error::io("open", &path, &err)),
            },
        };
        let written = file.truncate(end).and_then(|()| file.write_all_at(&lines, end)).and_then(|()| file.sync_data());
        // After a failure the file is opened again, and what it has looked at.
        written.map_err(|err| Error::io("write", &path, &err))?;
        *open = Some(Open { file, end: end + lines.len() as u64, last });
        Ok((letters.len() as u64, gone))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = self.fs.create(path).map_err(|err| Error::io("create", path, &err))?;
        self.fs.sync_dir(&self.folder).map_err(|err| Error::io("sync", &self.folder, &err))?;
        Ok(file)
    }

    /// All letters, oldest first. Blocks.
    pub fn read(&self) -> Result<Vec<Letter>> {
        let _still = self.open.lock();
        self.letters()
    }

    fn letters(&self) -> Result<Vec<Letter>> {
        let mut letters = self.letters_in(NAMES[1])?.0;
        letters.extend(self.letters_in(NAMES[0])?.0);
        Ok(letters)
    }

    /// The letters of a file up to the first that is torn, and where they end.
    fn letters_in(&self, name: &str) -> Result<(Vec<Letter>, u64)> {
        let bytes = match read(&*self.fs, &self.folder.join(name)) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == Kind::UndefinedFile => return Ok((Vec::new(), 0)),
            Err(err) => return Err(err),
        };
        let (mut letters, mut end) = (Vec::new(), 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(letter) = letter_of(line) else { break };
            letters.push(letter);
            end += line.len() as u64;
        }
        Ok((letters, end))
    }
}

fn letter_of(line: &[u8]) -> Option<Letter> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (checksum, json) = line.split_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}

/// The relation `<sink>__dead`.
#[derive(Debug)]
pub struct DeadTable(pub Arc<DeadLetters>);

impl TableProvider for DeadTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    scan_boxed!(DeadTable);
}

impl DeadTable {
    async fn plan_scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Scanned {
        let letters = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || letters.read()).await;
        let letters = read.unwrap_or_else(|err| Err(Error::internal(err.to_string())))?;
        let column = |text: fn(&Letter) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(letters.iter().map(text)))
        };
        let times = TimestampMicrosecondArray::from_iter_values(letters.iter().map(|letter| letter.at));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.offset as i64))),
            Arc::new(times.with_timezone(UTC)),
            Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.tries as i64))),
            column(|letter| &letter.reason),
            column(|letter| &letter.row),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?;
        let exec = MemorySourceConfig::try_new_exec(&[vec![rows]], Arc::clone(&SCHEMA), projection.cloned())?;
        Ok(exec as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faulty_fs::FaultyFs;

    fn letter(offset: u64) -> Letter {
        Letter { offset, at: 5, tries: 3, reason: "no\nreason".into(), row: format!("{{\"n\":{offset}}}") }
    }

    #[test]
    fn letters_are_kept_up_to_a_limit_and_a_torn_one_is_written_over() {
        let fs = FaultyFs::new(1);
        let folder = Path::new("/sinks/1");
        fs.create_dir_all(folder).unwrap();
        let open = || DeadLetters::new(Arc::new(fs.clone()), folder, 1000);
        let offsets = || open().read().unwrap().iter().map(|letter| letter.offset).collect::<Vec<_>>();
        assert_eq!(open().add(&[letter(0), letter(1)]).unwrap(), (2, 0));
        assert_eq!(offsets(), [0, 1]);
        let file = fs.open(&folder.join(NAMES[0])).unwrap();
        let whole = file.size().unwrap();
        file.truncate(whole - 3).unwrap();
        assert_eq!(offsets(), [0]);
        let letters = open();
        assert_eq!(letters.add(&[letter(0), letter(2)]).unwrap(), (1, 0), "one is there already");
        assert_eq!(letters.add(&[letter(2)]).unwrap(), (0, 0));
        assert_eq!(offsets(), [0, 2]);
        let gone: u64 = (3..40).map(|offset| letters.add(&[letter(offset)]).unwrap().1).sum();
        let left = offsets();
        assert_eq!((left.len() as u64 + gone, left.last()), (39, Some(&39)), "none went without being counted");
        assert!(left.len() > 4 && left.windows(2).all(|two| two[1] == two[0] + 1), "the newest are there: {left:?}");
        assert_eq!(open().read().unwrap().last(), Some(&letter(39)));
    }
}
