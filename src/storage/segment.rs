//! The bytes of one file of the log, a segment: a header, then records one behind the other to the end of the file.
//! Integers are little-endian, checksums CRC32 (IEEE).
//!
//!     header                                      record
//!      0  8  magic "LOGWEIR\n"                     0  4  checksum of bytes 4..20+H, begun from the segment's salt
//!      8  4  version, 1                            4  4  magic: "frms" frames, "sync" mark
//!     12  4  number of the segment                 8  4  H, length of the head
//!     16  8  offset of its first frame            12  4  B, length of the body
//!     24  4  salt, random                         16  4  checksum of the body
//!     28  4  checksum of bytes 0..28              20  H  head
//!                                               20+H  B  body
//!
//!     head of frames                              body of frames
//!      0  8  offset of the first frame             E   length of each frame, as LEB128
//!      8  8  ingest time, µs since 1970 UTC       12C  of each cut frame: index (4), true length (8)
//!     16  4  source                                …   the frames' bytes: an LZ4 block, or as they
//!     20  4  number of frames                          are when LZ4 would not make them shorter
//!     24  4  length of the frames' bytes
//!     28  4  E, length of the frame lengths       head of a mark (no body)
//!     32  4  C, number of cut frames               0  8  synced: bytes of this segment known to be
//!     36  …  position, as JSON                           on the disk when the mark was written
//!
//! **A record is valid** when it lies within the file, both checksums fit, and its first offset is the one that follows
//! the frames before it. Everything before the first invalid byte is the log.
//!
//! **A mark** follows every sync. It is what tells a tail that was never finished (nothing behind it claims that it was
//! synced: cut it off) from damage to durable bytes (a later mark does: stop and say so). Without it every flipped bit
//! would look like a crash and swallow what follows; with "any valid record behind it" instead, a power cut that wrote
//! pages out of order would look like damage.
//!
//! **The salt** keeps a record that a client sent as a log line from being taken for one of ours.
//!
//! The head has its own checksum, so that positions can be read without reading, let alone decompressing, the bodies.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fs::{File, Fs};
use super::record::{Head, RecordHead};
use super::wal::SegmentInfo;
use crate::error::{Error, Kind, Result};
use crate::position::Position;

pub const HEADER_LEN: u64 = 32;
pub const PREFIX_LEN: usize = 20;
pub const FRAMES_HEAD_LEN: usize = 36;
pub const MARK_HEAD_LEN: usize = 8;
pub const MARK_LEN: usize = PREFIX_LEN + MARK_HEAD_LEN;

const MAGIC: [u8; 8] = *b"LOGWEIR\n";
const VERSION: u32 = 1;
pub const FRAMES: [u8; 4] = *b"frms";
pub const MARK: [u8; 4] = *b"sync";

/// Longest head: a position is a path and a key, a few KiB at worst. A damaged length must not allocate gigabytes.
pub const MAX_HEAD: usize = 1 << 20;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub number: u32,
    pub first_offset: u64,
    pub salt: u32,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut out = [0; HEADER_LEN as usize];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_offset.to_le_bytes());
        out[24..28].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc32fast::hash(&out[..28]);
        out[28..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// `None` when the bytes are no header.
    pub fn decode(bytes: &[u8]) -> Option<Result<Header>> {
        let bytes = bytes.get(..HEADER_LEN as usize)?;
        if bytes[0..8] != MAGIC || u32_at(bytes, 28) != crc32fast::hash(&bytes[..28]) {
            return None;
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Some(Err(Error::new(Kind::NotSupported, format!("unknown version {version} of the log's files"))
                .with_hint("It was written by a newer server: start that one.")));
        }
        let (number, first_offset, salt) = (u32_at(bytes, 12), u64_at(bytes, 16), u32_at(bytes, 24));
        Some(Ok(Header { number, first_offset, salt }))
    }
}

/// `00000001-000000000000.wal`: number and first offset of the segment, so that a listing reads in order.
pub fn file_name(number: u32, first_offset: u64) -> String {
    format!("{number:08}-{first_offset:012}.wal")
}

/// Number and first offset from a path as [`file_name`] makes it; `None` for other files.
pub fn parse_file_name(path: &Path) -> Option<(u32, u64)> {
    let (number, first_offset) = path.file_name()?.to_str()?.strip_suffix(".wal")?.split_once('-')?;
    Some((number.parse().ok()?, first_offset.parse().ok()?))
}

/// Makes an empty segment in `dir`, durable in content and name before a record can enter it.
pub fn create(fs: &dyn Fs, dir: &Path, number: u32, first_offset: u64) -> Result<(SegmentInfo, Arc<dyn File>, Header)> {
    let path = dir.join(file_name(number, first_offset));
    let header = Header { number, first_offset, salt: rand::random() };
    let create = || {
        let file = fs.create(&path)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_data()?;
        fs.sync_dir(dir)?;
        Ok(file)
    };
    let file = create().map_err(|err| Error::io("create", &path, &err))?;
    Ok((SegmentInfo { number, path, first_offset, end_offset: first_offset, bytes: HEADER_LEN }, file, header))
}

/// What stands at a place of a segment.
pub enum Entry {
    /// Frames; their body has not been looked at.
    Frames(Head),
    /// A mark and how many bytes of the segment it says were synced.
    Mark(u64),
    /// The end of the segment.
    End,
    /// No valid record, and why.
    Broken(&'static str),
}

/// Reads a segment up to a fixed end, through a window of bytes read ahead.
pub struct Segment {
    file: Arc<dyn File>,
    salt: u32,
    /// Bytes of the segment to read; what is appended later is not seen.
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    ahead: usize,
}

impl Segment {
    /// `ahead` is how many bytes to read at a time: many for reading everything, few for reading heads.
    pub fn new(file: Arc<dyn File>, salt: u32, end: u64, ahead: usize) -> Segment {
        Segment { file, salt, end, window: Vec::new(), window_at: 0, ahead }
    }

    /// What stands at byte `at`. `Err` only when the disk could not be read.
    pub fn entry(&mut self, at: u64) -> io::Result<Entry> {
        if at >= self.end {
            return Ok(Entry::End);
        }
        let (salt, end) = (self.salt, self.end);
        let Some(prefix) = self.bytes(at, PREFIX_LEN)? else {
            return Ok(Entry::Broken("a record begins and is cut short"));
        };
        let (head_len, body_len) = (u32_at(prefix, 8) as usize, u32_at(prefix, 12) as usize);
        let body_checksum = u32_at(prefix, 16);
        if head_len > MAX_HEAD {
            return Ok(Entry::Broken("no record begins there"));
        }
        let Some(bytes) = self.bytes(at, PREFIX_LEN + head_len)? else {
            return Ok(Entry::Broken("a record begins and is cut short"));
        };
        if checksum_from(salt, &bytes[4..]) != u32_at(bytes, 0) {
            return Ok(Entry::Broken("the checksum of a record's head does not fit"));
        }
        let head = &bytes[PREFIX_LEN..];
        if bytes[4..8] == MARK {
            return Ok(if head_len == MARK_HEAD_LEN && body_len == 0 && u64_at(head, 0) <= at {
                Entry::Mark(u64_at(head, 0))
            } else {
                Entry::Broken("a mark makes no sense")
            });
        }
        let body_at = at + (PREFIX_LEN + head_len) as u64;
        if body_at + body_len as u64 > end {
            return Ok(Entry::Broken("a record begins and is cut short"));
        }
        let position = head.get(FRAMES_HEAD_LEN..).and_then(|json| serde_json::from_slice::<Position>(json).ok());
        let (Some(position), true) = (position, bytes[4..8] == FRAMES) else {
            return Ok(Entry::Broken("a record's head makes no sense"));
        };
        Ok(Entry::Frames(Head {
            head: RecordHead {
                base: u64_at(head, 0),
                ingest_time: u64_at(head, 8) as i64,
                source: u32_at(head, 16),
                frames: u32_at(head, 20),
                bytes: u32_at(head, 24),
                position,
            },
            ends_len: u32_at(head, 28) as usize,
            cuts: u32_at(head, 32) as usize,
            len: (PREFIX_LEN + head_len + body_len) as u32,
            body_at,
            body_len,
            body_checksum,
        }))
    }

    /// The body of a record, or `None` when its checksum does not fit.
    pub fn body(&mut self, head: &Head) -> io::Result<Option<&[u8]>> {
        let body = self.bytes(head.body_at, head.body_len)?;
        Ok(body.filter(|body| crc32fast::hash(body) == head.body_checksum))
    }

    /// All `len` bytes of the record or mark at `at`, or `None` when its checksums do not fit.
    pub fn whole(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let salt = self.salt;
        Ok(self.bytes(at, len)?.filter(|bytes| {
            let body = bytes.get(8..PREFIX_LEN).map_or(usize::MAX, |prefix| PREFIX_LEN + u32_at(prefix, 0) as usize);
            body <= len
                && checksum_from(salt, &bytes[4..body]) == u32_at(bytes, 0)
                && crc32fast::hash(&bytes[body..]) == u32_at(bytes, 16)
        }))
    }

    /// Whether a valid mark behind byte `at` says that what is at `at` was synced.
    pub fn was_synced(&mut self, at: u64) -> io::Result<bool> {
        // With the length of its head, so that lines full of the magic do not cost a checksum each.
        let needle = [MARK, (MARK_HEAD_LEN as u32).to_le_bytes()].concat();
        let finder = memchr::memmem::Finder::new(&needle);
        let mut from = at;
        // Chunks overlap by a mark's length, so that none is missed on a boundary.
        while from < self.end {
            let len = (self.end - from).min(1 << 20) as usize;
            let Some(chunk) = self.bytes(from, len)? else { break };
            // The magic stands four bytes into its record.
            let places: Vec<u64> = finder.find_iter(chunk).filter(|&i| i >= 4).map(|i| from + i as u64 - 4).collect();
            for place in places {
                if let Entry::Mark(synced) = self.entry(place)?
                    && synced > at
                {
                    return Ok(true);
                }
            }
            if len < MARK_LEN || from + len as u64 == self.end {
                break;
            }
            from += (len - MARK_LEN) as u64;
        }
        Ok(false)
    }

    /// `len` bytes from `at`, or `None` when the segment ends before.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if at + len as u64 > self.end {
            return Ok(None);
        }
        if at < self.window_at || at + len as u64 > self.window_at + self.window.len() as u64 {
            let wanted = (len.max(self.ahead) as u64).min(self.end - at) as usize;
            self.window.resize(wanted, 0);
            let read = self.file.read_full_at(&mut self.window, at);
            // Whatever happened, the window says only what it holds.
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            self.window_at = at;
            read?;
        }
        let from = (at - self.window_at) as usize;
        Ok(self.window.get(from..from + len))
    }
}

pub fn checksum_from(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were cut"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were cut"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_read_back_and_others_are_left_alone() {
        assert_eq!(file_name(1, 0), "00000001-000000000000.wal");
        for (number, first_offset) in [(1, 0), (7, 123_456), (123_456_789, u64::MAX)] {
            let path = Path::new("log").join(file_name(number, first_offset));
            assert_eq!(parse_file_name(&path), Some((number, first_offset)));
        }
        for other in ["LOCK", "1.wal", "00000001-000000000000.wal.tmp", "a-b.wal", "-.wal"] {
            assert_eq!(parse_file_name(Path::new(other)), None);
        }
    }

    #[test]
    fn a_header_of_another_version_is_not_taken_for_damage() {
        let header = Header { number: 3, first_offset: 99, salt: 7 };
        let mut bytes = header.encode();
        assert_eq!(Header::decode(&bytes).unwrap().unwrap(), header);
        bytes[8] = 2;
        assert!(Header::decode(&bytes).is_none());
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes).unwrap().unwrap_err().kind(), Kind::NotSupported);
    }
}
