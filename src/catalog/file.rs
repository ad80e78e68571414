//! The file that the catalog is kept in, and the one before it; the list of databases is kept alike.
//!
//! ```text
//!     <data_dir>/catalog.json       JSON of the content, and behind it a line with its CRC-32: "crc32:0a1b2c3d"
//!     <data_dir>/catalog.json.1     the same, before the last change
//! ```
//!
//! Each change first writes what there was under the second name and then, by rename, the new content under the first. So
//! one of the two is whole whatever is killed when, and should a bit of the first flip, the second has all but the last
//! change. Until something is written the damaged file stays where it is, so that whoever starts sees the damage; then it
//! becomes `catalog.json.damaged`, for a person to mend.
//!
//! Statements may hold passwords: only the owner of the process can read the files.
//!
//! The line with the checksum is JSON too. A file without one was mended by hand, or is older than this rule: it counts if
//! it can be read. A flipped bit cannot take the line away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::storage::fs::{Fs, read, write_atomic_private};

/// What is kept: what it is called, and what people can do when its file is damaged.
#[derive(Debug)]
pub(crate) struct Kept {
    /// As messages call it.
    pub what: &'static str,
    /// The file.
    pub name: &'static str,
    /// What changes it.
    pub changes: &'static str,
    /// What is not lost with it, as a sentence.
    pub intact: &'static str,
    /// What can be done without any whole file, as a sentence.
    pub without: &'static str,
}

/// The catalog of one database.
pub(super) static CATALOG: Kept = Kept {
    what: "catalog",
    name: "catalog.json",
    changes: "CREATE, DROP or REPLACE",
    intact: "The rows of streams are intact.",
    without: "Without either, move both files away and create the objects again: streams then begin anew, and what their archives have can be read with CREATE EXTERNAL TABLE … STORED AS DELTA.",
};

impl Kept {
    fn before(&self) -> String {
        format!("{}.1", self.name)
    }

    fn damaged(&self) -> String {
        format!("{}.damaged", self.name)
    }
}

/// In front of the checksum.
const MARK: &str = "\n\"crc32:";

/// See the file header.
pub(crate) struct KeptFile {
    kept: &'static Kept,
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// What the file holds, or the one before it if that is damaged.
    bytes: Option<Vec<u8>>,
    damaged: bool,
}

/// What was found.
pub(crate) struct Found<T> {
    pub file: KeptFile,
    pub content: Option<T>,
    /// The last change is missing: why, and what can be done.
    pub fell_back: Option<Error>,
}

impl KeptFile {
    /// Reads the newest content that is whole.
    pub fn open<T: DeserializeOwned>(fs: Arc<dyn Fs>, dir: &Path, kept: &'static Kept) -> Result<Found<T>> {
        let mut file = KeptFile { kept, fs, dir: dir.to_path_buf(), bytes: None, damaged: false };
        let Kept { what, name, changes, intact, without } = kept;
        let (before_name, damaged_name) = (kept.before(), kept.damaged());
        let before = file.look(&before_name)?;
        let damage = match file.look(name)? {
            Look::Whole(bytes, content) => {
                file.bytes = Some(bytes);
                return Ok(Found { file, content: Some(content), fell_back: None });
            }
            Look::Nothing if matches!(before, Look::Nothing) => {
                return Ok(Found { file, content: None, fell_back: None });
            }
            // Only somebody else can have removed it: there is one from the first change on.
            Look::Nothing => "it is gone".to_string(),
            Look::Damaged(why) => why,
        };
        let path = file.dir.join(name).display().to_string();
        let err = Error::new(Kind::Corrupted, format!("the {what} {path:?} is damaged: {damage}"));
        match before {
            Look::Whole(bytes, content) => {
                (file.bytes, file.damaged) = (Some(bytes), true);
                let err = err
                    .with_detail(format!("The content before the last {changes} is used, from {before_name}. {intact}"))
                    .with_hint(format!(
                        "Make the last change again if it is missing. What is left of the damaged file is {damaged_name}: to go on from that one instead, mend its JSON, take away its last line, and put it in the place of {name} while no server runs."
                    ));
                Ok(Found { file, content: Some(content), fell_back: Some(err) })
            }
            Look::Nothing | Look::Damaged(_) => {
                Err(err.with_detail(format!("There is no whole {before_name} either. {intact}")).with_hint(format!(
                    "Restore the file from a backup; or mend its JSON and take away its last line. {without}"
                )))
            }
        }
    }

    /// Makes a content durable.
    pub fn write<T: Serialize>(&mut self, content: &T) -> Result<()> {
        let bytes = seal(content)?;
        let path = self.dir.join(self.kept.name);
        match &self.bytes {
            None => {}
            // It is there already.
            Some(_) if std::mem::take(&mut self.damaged) => {
                match self.fs.rename(&path, &self.dir.join(self.kept.damaged())) {
                    Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("rename", &path, &err));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            Some(before) => write_atomic_private(&*self.fs, &self.dir.join(self.kept.before()), before)?,
        }
        write_atomic_private(&*self.fs, &path, &bytes)?;
        self.bytes = Some(bytes);
        Ok(())
    }

    fn look<T: DeserializeOwned>(&self, name: &str) -> Result<Look<T>> {
        match read(&*self.fs, &self.dir.join(name)) {
            Ok(bytes) => Ok(match open(&bytes) {
                Ok(content) => Look::Whole(bytes, content),
                Err(why) => Look::Damaged(why),
            }),
            Err(err) if err.kind() == Kind::UndefinedFile => Ok(Look::Nothing),
            Err(err) => Err(err),
        }
    }
}

/// What a file holds.
enum Look<T> {
    Nothing,
    Damaged(String),
    Whole(Vec<u8>, T),
}

fn seal<T: Serialize>(content: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(content).map_err(|err| Error::internal(err.to_string()))?;
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(format!("{MARK}{checksum:08x}\"\n").as_bytes());
    Ok(bytes)
}

fn open<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, String> {
    let marked = memchr::memmem::rfind(bytes, MARK.as_bytes());
    let json = match marked {
        Some(at) => {
            let (json, line) = bytes.split_at(at);
            if line != format!("{MARK}{:08x}\"\n", crc32fast::hash(json)).as_bytes() {
                return Err("its checksum is wrong".to_string());
            }
            json
        }
        None => bytes,
    };
    serde_json::from_slice(json).map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;
    use crate::storage::faulty_fs::FaultyFs;
    use crate::storage::fs::write_atomic;

    const DIR: &str = "/data";
    const NAME: &str = "catalog.json";
    const BEFORE: &str = "catalog.json.1";
    const DAMAGED: &str = "catalog.json.damaged";

    fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    fn open_on(fs: &FaultyFs) -> Result<Found<Content>> {
        KeptFile::open(Arc::new(fs.clone()), Path::new(DIR), &CATALOG)
    }

    /// The ids that come next as of what is found, and whether a change is missing.
    fn found(fs: &FaultyFs) -> (Option<u32>, bool) {
        let found = open_on(fs).unwrap();
        (found.content.map(|content| content.next_id), found.fell_back.is_some())
    }

    /// A disk after some changes.
    fn after(changes: u32) -> FaultyFs {
        let fs = FaultyFs::new(1);
        fs.create_dir_all(Path::new(DIR)).unwrap();
        let mut file = open_on(&fs).unwrap().file;
        (1..=changes).for_each(|next_id| file.write(&Content { next_id, ..Content::default() }).unwrap());
        fs
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_the_content_before_it_is_used() {
        let fs = after(3);
        let good = read(&fs, &path(NAME)).unwrap();
        assert_eq!(found(&fs), (Some(3), false));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            write_atomic(&fs, &path(NAME), &bad).unwrap();
            assert_eq!(found(&fs), (Some(2), true), "bit {bit}");
            let mut found_again = open_on(&fs).unwrap();
            found_again.file.write(&Content { next_id: 7, ..Content::default() }).unwrap();
            assert_eq!(read(&fs, &path(DAMAGED)).unwrap(), bad);
            assert_eq!(found(&fs), (Some(7), false), "it was put in order");
        }
        // As the hint says.
        let at = memchr::memmem::rfind(&good, MARK.as_bytes()).unwrap();
        write_atomic(&fs, &path(NAME), &good[..at]).unwrap();
        assert_eq!(found(&fs), (Some(3), false));
    }

    #[test]
    fn what_cannot_be_made_good_is_an_error_that_says_what_to_do() {
        for (changes, names) in [(1, &[NAME][..]), (3, &[NAME, BEFORE][..])] {
            let fs = after(changes);
            names.iter().for_each(|name| write_atomic(&fs, &path(name), b"{").unwrap());
            let err = open_on(&fs).err().unwrap();
            assert_eq!(err.kind(), Kind::Corrupted);
            assert!(err.message().contains(NAME) && err.hint().unwrap().contains("Restore"), "{err:?}");
            assert!(err.detail().unwrap().contains("intact"), "{err:?}");
        }
    }

    #[test]
    fn a_catalog_that_somebody_removed_is_missed() {
        let fs = after(2);
        fs.remove(&path(NAME)).unwrap();
        assert_eq!(found(&fs), (Some(1), true));
        assert_eq!(found(&after(0)), (None, false));
    }
}
