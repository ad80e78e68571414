//! A record of the log, and how it becomes bytes and a record again. The layout is described in `segment.rs`.
//!
//! Receives frames with their position; hands on encoded bytes, whose buffer is used again for the next record. The
//! frames' bytes are touched once on the way in, by LZ4, and once on the way out.

use lz4_flex::block::{self, CompressTable};
use serde::{Deserialize, Serialize};

use super::segment::{
    FRAMES, FRAMES_HEAD_LEN, MARK, MARK_HEAD_LEN, MAX_HEAD, PREFIX_LEN, checksum_from, u32_at, u64_at,
};
use crate::batch::Event;
use crate::error::{Error, Kind, Result};
use crate::frame::{Cut, Frames};
use crate::position::{Position, Unit};
use crate::time::Micros;

/// Bytes of a cut frame's entry.
const CUT_LEN: usize = 12;

/// Most bytes of frames in a record. Blocks are a few MiB; with this bound every length in a record fits 32 bits.
const MAX_BYTES: usize = 1 << 30;

/// A stream's own source, made with it.
pub const OWN: u32 = 0;

/// The source of entries without frames: ticks of the clock, and (with the partition's name) the end of a partition.
pub const CLOCK: u32 = u32::MAX;

/// Source of all files that were imported into a stream, so that an import goes on where an earlier one stopped. Out of
/// the way of the numbers that a stream's own sources have.
pub const IMPORTS: u32 = u32::MAX - 1;

/// Source of rows that statements gave (INSERT, COPY … FROM STDIN).
pub const INSERTS: u32 = u32::MAX - 2;

/// Source of lines that were pushed to the stream itself over HTTP, in its format.
pub const HTTP: u32 = u32::MAX - 3;

/// Sources with numbers below this are objects of the catalog; those above are the ones named here.
pub const NAMED: u32 = HTTP;

/// A block of frames as it enters the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset of the first frame in the stream.
    pub base: u64,
    /// Which of the stream's sources it came from.
    pub source: u32,
    /// When it was received.
    pub ingest_time: Micros,
    pub position: Position,
    pub frames: Frames,
}

impl Record {
    /// An entry that says only what time it is.
    pub fn tick(base: u64, now: Micros) -> Record {
        Record::end(base, now, String::new())
    }

    /// An entry that says that a partition has come to its end.
    pub fn end(base: u64, now: Micros, partition: String) -> Record {
        let position = Position { partition, key: String::new(), start: 0, end: 0, unit: Unit::Frames };
        Record { base, source: CLOCK, ingest_time: now, position, frames: Frames::default() }
    }

    /// An entry that says that a partition of a source is gone: of that source, but without frames.
    pub fn gone(base: u64, now: Micros, source: u32, (partition, key): (String, String)) -> Record {
        let position = Position { partition, key, start: 0, end: 0, unit: Unit::Frames };
        Record { base, source, ingest_time: now, position, frames: Frames::default() }
    }

    pub fn event(&self) -> Event {
        match self.source {
            CLOCK if self.position.partition.is_empty() => Event::Tick,
            CLOCK => Event::End,
            IMPORTS => Event::Import,
            INSERTS => Event::Rows,
            _ if self.frames.is_empty() => Event::Gone,
            _ => Event::Frames,
        }
    }
}

/// A record without its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHead {
    pub base: u64,
    pub source: u32,
    pub ingest_time: Micros,
    pub position: Position,
    /// Number of frames.
    pub frames: u32,
    /// Length of the frames in bytes, uncompressed.
    pub bytes: u32,
}

/// Where a record is. Ordered as the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    pub segment: u32,
    /// Byte in the segment.
    pub at: u64,
    /// Length in bytes; 0 where a location only says where to begin.
    pub len: u32,
}

/// Turns records into bytes; its buffers are used again and again.
pub struct Encoder {
    /// The encoded record in its first `len` bytes. Never shortened, as growing it again would zero it each time.
    out: Vec<u8>,
    len: usize,
    table: CompressTable,
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder { out: Vec::new(), len: 0, table: CompressTable::large() }
    }

    /// Encodes a record but for the checksum of its head, which [`Encoder::seal`] adds when its segment is known.
    /// Returns its length. An error means that the record breaks its own promises.
    pub fn frames(&mut self, record: &Record) -> Result<usize> {
        let frames = &record.frames;
        let raw: &[u8] = &frames.bytes;
        if raw.len() > MAX_BYTES {
            return Err(Error::new(Kind::ResourceLimit, format!("a block of {} bytes is too long to log", raw.len())));
        }
        self.len = 0;
        self.push(&[0; PREFIX_LEN + FRAMES_HEAD_LEN]);
        let position = serde_json::to_vec(&record.position).expect("text and integers always make JSON");
        self.push(&position);
        let body = self.len;
        if body - PREFIX_LEN > MAX_HEAD {
            return Err(Error::new(Kind::ResourceLimit, "the position of a block is too long to log"));
        }
        self.lengths(frames)?;
        let ends_len = self.len - body;
        for cut in &frames.cut {
            self.push(&cut.frame.to_le_bytes());
            self.push(&cut.true_len.to_le_bytes());
        }
        self.compress(raw)?;

        if u32::try_from(self.len).is_err() {
            return Err(Error::new(Kind::ResourceLimit, "a block with its frames' lengths is too long to log"));
        }
        let body_len = self.len - body;
        let checksum = crc32fast::hash(&self.out[body..self.len]);
        self.prefix(FRAMES, body - PREFIX_LEN, body_len, checksum);
        let head = &mut self.out[PREFIX_LEN..];
        head[0..8].copy_from_slice(&record.base.to_le_bytes());
        head[8..16].copy_from_slice(&record.ingest_time.to_le_bytes());
        let counts = [record.source, frames.len() as u32, raw.len() as u32, ends_len as u32, frames.cut.len() as u32];
        for (i, count) in counts.into_iter().enumerate() {
            head[16 + 4 * i..20 + 4 * i].copy_from_slice(&count.to_le_bytes());
        }
        Ok(self.len)
    }

    /// Encodes a mark saying that the first `synced` bytes of the segment are on the disk; to be sealed as well.
    pub fn mark(&mut self, synced: u64) {
        self.len = 0;
        self.push(&[0; PREFIX_LEN]);
        self.push(&synced.to_le_bytes());
        self.prefix(MARK, MARK_HEAD_LEN, 0, crc32fast::hash(&[]));
    }

    /// Binds what was encoded last to a segment and returns it.
    pub fn seal(&mut self, salt: u32) -> &[u8] {
        let head_end = PREFIX_LEN + u32_at(&self.out, 8) as usize;
        let checksum = checksum_from(salt, &self.out[4..head_end]);
        self.out[0..4].copy_from_slice(&checksum.to_le_bytes());
        &self.out[..self.len]
    }

    fn prefix(&mut self, magic: [u8; 4], head_len: usize, body_len: usize, body_checksum: u32) {
        self.out[4..8].copy_from_slice(&magic);
        self.out[8..12].copy_from_slice(&(head_len as u32).to_le_bytes());
        self.out[12..16].copy_from_slice(&(body_len as u32).to_le_bytes());
        self.out[16..20].copy_from_slice(&body_checksum.to_le_bytes());
    }

    /// The frames' lengths; refuses ends that could not be read back.
    fn lengths(&mut self, frames: &Frames) -> Result<()> {
        // A length below 2^32 takes at most five bytes.
        self.reserve(frames.len() * 5);
        let mut start = 0;
        for &end in &frames.ends {
            if end <= start {
                return Err(Error::internal("the ends of a block's frames do not rise"));
            }
            let mut left = end - start;
            while left >= 0x80 {
                self.out[self.len] = left as u8 | 0x80;
                self.len += 1;
                left >>= 7;
            }
            self.out[self.len] = left as u8;
            self.len += 1;
            start = end;
        }
        if start as usize != frames.bytes.len() {
            return Err(Error::internal("the frames of a block do not cover its bytes"));
        }
        Ok(())
    }

    fn compress(&mut self, raw: &[u8]) -> Result<()> {
        self.reserve(block::get_maximum_output_size(raw.len()));
        let compressed = block::compress_into_with_table(raw, &mut self.out[self.len..], &mut self.table)
            .map_err(|err| Error::internal(format!("LZ4: {err}")))?;
        if compressed < raw.len() {
            self.len += compressed;
        } else {
            self.push(raw);
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.out[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn reserve(&mut self, more: usize) {
        if self.out.len() < self.len + more {
            self.out.resize(self.len + more, 0);
        }
    }
}

/// The head of a record of frames as it stands in a segment, and where its body is.
#[derive(Debug)]
pub struct Head {
    pub head: RecordHead,
    /// Length of the whole record.
    pub len: u32,
    pub ends_len: usize,
    pub cuts: usize,
    pub body_at: u64,
    pub body_len: usize,
    pub body_checksum: u32,
}

/// Puts a record together again; `None` when a body with a fitting checksum still makes no sense.
pub fn decode(head: Head, body: &[u8]) -> Option<Record> {
    let Head { head, ends_len, cuts, .. } = head;
    let (mut lengths, rest) = body.split_at_checked(ends_len)?;
    let (cut_bytes, packed) = rest.split_at_checked(cuts.checked_mul(CUT_LEN)?)?;
    // Each length takes a byte or more, which bounds what is allocated here by what was read.
    let mut ends = Vec::with_capacity((head.frames as usize).min(ends_len));
    let mut end = 0u32;
    while !lengths.is_empty() {
        end = end.checked_add(leb128(&mut lengths)?)?;
        ends.push(end);
    }
    let cut: Vec<Cut> = cut_bytes
        .chunks_exact(CUT_LEN)
        .map(|bytes| Cut { frame: u32_at(bytes, 0), true_len: u64_at(bytes, 4) })
        .collect();
    let raw_len = head.bytes as usize;
    if end as usize != raw_len || ends.len() != head.frames as usize || raw_len > MAX_BYTES {
        return None;
    }
    let bytes = if packed.len() == raw_len { packed.to_vec() } else { block::decompress(packed, raw_len).ok()? };
    if bytes.len() != raw_len {
        return None;
    }
    let frames = Frames { bytes: bytes.into(), ends, cut };
    let RecordHead { base, ingest_time, source, position, .. } = head;
    Some(Record { base, source, ingest_time, position, frames })
}

fn leb128(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::wal::tests::record;
    use super::*;

    #[test]
    fn frames_that_could_not_be_read_back_are_refused() {
        let mut encoder = Encoder::new();
        let good = record(0, 2);
        let len = good.frames.bytes.len() as u32;
        for ends in [vec![], vec![5], vec![5, 5, len], vec![len, 5], vec![len, len + 1]] {
            let frames = Frames { ends, ..good.frames.clone() };
            assert_eq!(encoder.frames(&Record { frames, ..good.clone() }).unwrap_err().kind(), Kind::Internal);
        }
        let mut long = good.clone();
        long.position.partition = "x".repeat(MAX_HEAD);
        assert_eq!(encoder.frames(&long).unwrap_err().kind(), Kind::ResourceLimit);
        encoder.frames(&good).unwrap();
    }

    #[test]
    fn a_body_that_makes_no_sense_is_no_record_and_no_panic() {
        let mut record = record(0, 40);
        record.frames.cut.push(Cut { frame: 7, true_len: 1 << 33 });
        let mut encoder = Encoder::new();
        let len = encoder.frames(&record).unwrap();
        let head_len = u32_at(encoder.seal(0), 8) as usize;
        let body = encoder.seal(0)[PREFIX_LEN + head_len..].to_vec();
        let head = || {
            let Record { base, source, ingest_time, position, frames } = record.clone();
            let (count, bytes) = (frames.len() as u32, frames.bytes.len() as u32);
            let head = RecordHead { base, source, ingest_time, position, frames: count, bytes };
            // All frames are shorter than 128 bytes, so each length takes one.
            let (body_len, ends_len) = (body.len(), frames.len());
            Head { head, len: len as u32, ends_len, cuts: 1, body_at: 0, body_len, body_checksum: 0 }
        };
        assert_eq!(decode(head(), &body), Some(record.clone()));
        for len in 0..body.len() {
            assert_eq!(decode(head(), &body[..len]), None);
        }
        for byte in 0..body.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut body = body.clone();
                body[byte] ^= flip;
                let Some(back) = decode(head(), &body) else { continue };
                assert_eq!(back.frames.ends.last(), Some(&(back.frames.bytes.len() as u32)));
            }
        }
    }
}
