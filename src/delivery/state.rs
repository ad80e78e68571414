//! What a delivery remembers across restarts.
//!
//! ```text
//!     <data_dir>/sinks/<object id>/state.json     JSON of a [`State`], and behind it a line with its CRC-32: "crc32:0a1b2c3d"
//! ```
//!
//! Written by rename, so the old or the new content is there in whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::sink::Position;
use crate::storage::fs::{Fs, read, write_atomic};

const NAME: &str = "state.json";

/// In front of the checksum.
const MARK: &str = "\n\"crc32:";

/// See the file header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Tells the sink from all others there ever were: the other side knows it by this.
    pub id: String,
    /// Everything up to here was accepted.
    pub position: Position,
    /// Something was delivered before.
    pub begun: bool,
    /// A batch up to here was on its way: it has to be cut there again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<Position>,
    /// Rows that were accepted, that were refused, and offsets that were dropped before they were delivered.
    pub rows: u64,
    pub dead: u64,
    pub lost: u64,
}

impl State {
    /// Of a new sink that begins behind `offset`.
    pub fn new(offset: u64) -> State {
        let (id, position) = (format!("{:016x}", rand::random::<u64>()), Position::at(offset));
        State { id, position, begun: false, sending: None, rows: 0, dead: 0, lost: 0 }
    }
}

/// Where a state is kept.
#[derive(Debug, Clone)]
pub struct StateFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
}

impl StateFile {
    /// In the folder of a sink, which is there.
    pub fn new(fs: Arc<dyn Fs>, folder: &Path) -> StateFile {
        StateFile { fs, path: folder.join(NAME) }
    }

    /// Blocks until it is durable.
    pub fn write(&self, state: &State) -> Result<()> {
        let mut bytes = serde_json::to_vec(state).map_err(|err| Error::internal(err.to_string()))?;
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(format!("{MARK}{checksum:08x}\"\n").as_bytes());
        write_atomic(&*self.fs, &self.path, &bytes)
    }

    pub fn read(&self) -> Result<State> {
        let bytes = read(&*self.fs, &self.path)?;
        let damaged = |why: String| {
            let message = format!("the state of the sink in {:?} is damaged: {why}", self.path.display().to_string());
            Error::new(Kind::Corrupted, message)
                .with_hint("Up to where it had delivered is not known: drop the sink and create it again.")
        };
        let at = memchr::memmem::rfind(&bytes, MARK.as_bytes()).ok_or_else(|| damaged("it has no end".into()))?;
        let (json, line) = bytes.split_at(at);
        if line != format!("{MARK}{:08x}\"\n", crc32fast::hash(json)).as_bytes() {
            return Err(damaged("its checksum is wrong".into()));
        }
        serde_json::from_slice(json).map_err(|err| damaged(err.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faulty_fs::FaultyFs;

    #[test]
    fn a_state_is_read_as_it_was_written_and_damage_is_found() {
        let fs = FaultyFs::new(1);
        let folder = Path::new("/sinks/3");
        fs.create_dir_all(folder).unwrap();
        let file = StateFile::new(Arc::new(fs.clone()), folder);
        assert_eq!(file.read().unwrap_err().kind(), Kind::UndefinedFile);
        let mut state = State::new(7);
        assert_ne!(state.id, State::new(7).id);
        state.sending = Some(Position { offset: 9, window: Some(-1) });
        file.write(&state).unwrap();
        assert_eq!(file.read().unwrap(), state);
        let path = folder.join(NAME);
        let good = read(&fs, &path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            write_atomic(&fs, &path, &bad).unwrap();
            assert_eq!(file.read().unwrap_err().kind(), Kind::Corrupted, "bit {bit}");
        }
    }
}
