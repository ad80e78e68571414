//! Fields of COPY's binary format, as PostgreSQL's manual has it (COPY, "Binary Format"):
//!
//! ```text
//!     "PGCOPY\n\xff\r\n\0"  flags: i32  length: i32  [extension of this length]
//!     each row:             fields: i16  then each: length: i32 (-1 for NULL)  [bytes]
//!     the end:              -1: i16
//! ```
//!
//! Receives bytes in pieces of any size; hands on the fields of one row after the other. A row is read when it is there in
//! whole. What stands behind the end is ignored.

use std::ops::Range;

use crate::error::{Error, Kind, Result};

/// What a copy begins with.
pub const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Longest row, in bytes: that of a line.
const MAX_ROW: usize = 64 << 20;

/// Only this bit of the flags has a meaning: each row begins with its id, which no version since 12 writes.
const HAS_OIDS: u32 = 1 << 16;

/// Flags that a reader may not ignore.
const CRITICAL: u32 = 0xffff_0000;

/// See the file header.
#[derive(Default)]
pub struct Tuples {
    pending: Vec<u8>,
    at: usize,
    begun: bool,
    ended: bool,
    number: u64,
    // The row that was read last.
    bytes: usize,
    fields: Vec<Option<Range<usize>>>,
}

impl Tuples {
    /// Takes in more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.pending.drain(..self.at);
        self.at = 0;
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads the next row, if it is there in whole. `last`: nothing more will come.
    pub fn advance(&mut self, last: bool) -> Result<bool> {
        if self.ended || (!self.begun && !self.begin()?) {
            return self.nothing_more(last);
        }
        let Some(count) = self.number_at::<2>(self.at).map(i16::from_be_bytes) else { return self.nothing_more(last) };
        if count == -1 {
            self.ended = true;
            return Ok(false);
        }
        self.fields.clear();
        let mut at = self.at + 2;
        for _ in 0..count {
            let Some(length) = self.number_at::<4>(at).map(i32::from_be_bytes) else { return self.nothing_more(last) };
            at += 4;
            match usize::try_from(length) {
                Ok(length) if length > MAX_ROW => return Err(too_long(self.number + 1)),
                Ok(length) if at + length > self.pending.len() => return self.nothing_more(last),
                Ok(length) => {
                    self.fields.push(Some(at..at + length));
                    at += length;
                }
                Err(_) if length == -1 => self.fields.push(None),
                Err(_) => return Err(bad("invalid field size")),
            }
            if at - self.at > MAX_ROW {
                return Err(too_long(self.number + 1));
            }
        }
        if count < 0 {
            return Err(bad("invalid number of fields"));
        }
        self.number += 1;
        (self.bytes, self.at) = (at - self.at, at);
        Ok(true)
    }

    /// A copy may end behind any row, and not within one.
    fn nothing_more(&self, last: bool) -> Result<bool> {
        match last && !self.ended && (!self.begun || self.at < self.pending.len()) {
            true => Err(bad("unexpected EOF in COPY data")),
            false => Ok(false),
        }
    }

    /// Reads what stands before the rows, if it is there in whole.
    fn begin(&mut self) -> Result<bool> {
        let known = self.pending.len().min(SIGNATURE.len());
        if self.pending[..known] != SIGNATURE[..known] {
            return Err(bad("COPY file signature not recognized"));
        }
        let (flags, length) = (SIGNATURE.len(), SIGNATURE.len() + 4);
        let (Some(flags), Some(extension)) = (self.number_at::<4>(flags), self.number_at::<4>(length)) else {
            return Ok(false);
        };
        let flags = u32::from_be_bytes(flags);
        if flags & HAS_OIDS != 0 {
            return Err(bad("invalid COPY file header (WITH OIDS)"));
        }
        if flags & CRITICAL != 0 {
            return Err(bad("unrecognized critical flags in COPY file header"));
        }
        let extension = usize::try_from(i32::from_be_bytes(extension)).unwrap_or(usize::MAX);
        if extension > MAX_ROW {
            return Err(bad("invalid COPY file header (wrong length)"));
        }
        let end = length + 4 + extension;
        self.begun = self.pending.len() >= end;
        if self.begun {
            self.at = end;
        }
        Ok(self.begun)
    }

    fn number_at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.pending.get(at..at + N)?.try_into().ok()
    }

    /// Of the row read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the row read last.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many fields it has.
    pub fn fields(&self) -> usize {
        self.fields.len()
    }

    /// One of its fields; `None`: NULL.
    pub fn field(&self, at: usize) -> Option<&[u8]> {
        self.fields.get(at)?.clone().map(|range| &self.pending[range])
    }
}

fn bad(message: &str) -> Error {
    Error::new(Kind::BadCopy, message)
}

fn too_long(row: u64) -> Error {
    Error::new(Kind::ResourceLimit, format!("row {row} is longer than {MAX_ROW} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(rows: &[&[Option<&[u8]>]], end: bool) -> Vec<u8> {
        let mut bytes = [&SIGNATURE[..], &[0; 8]].concat();
        for row in rows {
            bytes.extend((row.len() as i16).to_be_bytes());
            for field in *row {
                bytes.extend(field.map_or(-1, |field| field.len() as i32).to_be_bytes());
                bytes.extend(field.unwrap_or_default());
            }
        }
        if end {
            bytes.extend((-1i16).to_be_bytes());
        }
        bytes
    }

    type Rows = Vec<Vec<Option<Vec<u8>>>>;

    /// Read in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Result<Rows> {
        let (mut tuples, mut rows) = (Tuples::default(), Vec::new());
        let mut take = |tuples: &mut Tuples, last| -> Result<()> {
            while tuples.advance(last)? {
                rows.push((0..tuples.fields()).map(|at| tuples.field(at).map(<[u8]>::to_vec)).collect());
            }
            Ok(())
        };
        for piece in bytes.chunks(piece) {
            tuples.feed(piece)?;
            take(&mut tuples, false)?;
        }
        take(&mut tuples, true)?;
        Ok(rows)
    }

    #[test]
    fn rows_are_read_wherever_they_are_cut() {
        let rows: [&[Option<&[u8]>]; 3] = [&[Some(b"abc"), None], &[Some(b""), Some(&[0; 300])], &[]];
        let expected: Rows =
            vec![vec![Some(b"abc".to_vec()), None], vec![Some(Vec::new()), Some(vec![0; 300])], Vec::new()];
        for piece in [1, 7, 10_000] {
            for end in [true, false] {
                assert_eq!(read(&copy(&rows, end), piece).unwrap(), expected);
            }
        }
        let behind = [copy(&rows, true), b"what is this".to_vec()].concat();
        assert_eq!(read(&behind, 10_000).unwrap(), expected);
    }

    #[test]
    fn what_is_no_copy_is_refused() {
        let whole = copy(&[&[Some(b"abc")]], false);
        for end in 0..whole.len() {
            let rows = read(&whole[..end], 5);
            assert!(end == 19 || rows.is_err(), "{end} bytes");
        }
        for (at, byte, expected) in [
            (0, b'x', "signature"),
            (12, 1, "WITH OIDS"),
            (11, 1, "critical"),
            (15, 0x70, "wrong length"),
            (21, 0x90, "field size"),
        ] {
            let mut wrong = whole.clone();
            wrong[at] = byte;
            let err = read(&wrong, 1000).unwrap_err();
            assert!(err.message().contains(expected), "{err} with {byte} at {at}");
        }
        let mut wrong = whole.clone();
        wrong[19] = 0x80;
        assert_eq!(read(&wrong, 1000).unwrap_err().message(), "invalid number of fields");
        let mut long = whole;
        long[21] = 0x70;
        assert_eq!(read(&long, 1000).unwrap_err().kind(), Kind::ResourceLimit);
    }
}
