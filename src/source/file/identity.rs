//! Which file is this? A name tells little: rotation moves names from file to file. Device and inode tell more, but an
//! inode is given out again after a deletion, survives a truncation, and is not what a copy has. So a file is known by
//! its inode *and* by samples of the content that was read from it: [`Seen`].
//!
//! | inode | begins with what was seen | then it is |
//! |---|---|---|
//! | same  | yes | the same file, renamed or not: go on at the offset |
//! | same  | no, or shorter | truncated or replaced: new content |
//! | other | yes | a copy, such as copy-truncate rotation leaves: go on at the offset |
//! | other | no  | another file |
//!
//! In memory the samples are the first [`HEAD_BYTES`] and the last [`TRAIL_BYTES`] before the offset. What a position
//! keeps over a restart is its [`Key`]: the inode and a CRC-32 of the head as far as it was known then.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::str::FromStr;

/// Enough for a line or more of any log, so that two files rarely begin alike.
pub const HEAD_BYTES: usize = 1024;

/// Tells apart contents that begin alike, such as files with a long common header.
pub const TRAIL_BYTES: usize = 256;

/// Device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode {
    pub dev: u64,
    pub ino: u64,
}

impl Inode {
    /// Of a file that is no more: no file has this.
    pub const GONE: Inode = Inode { dev: 0, ino: 0 };

    pub fn of(metadata: &Metadata) -> Inode {
        Inode { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// What is remembered of the (decompressed) content read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many bytes were read: the offset at which reading goes on.
    pub len: u64,
    head: Vec<u8>,
    trail: Vec<u8>,
}

impl Seen {
    /// Takes note of the bytes that follow those seen so far.
    pub fn add(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        let fresh = &bytes[bytes.len().saturating_sub(TRAIL_BYTES)..];
        let old = (self.trail.len() + fresh.len()).saturating_sub(TRAIL_BYTES);
        self.trail.drain(..old);
        self.trail.extend_from_slice(fresh);
        self.len += bytes.len() as u64;
    }

    /// What would be remembered of the first `len` bytes of `file`; `None` when it is shorter.
    pub fn of_start(file: &File, len: u64) -> io::Result<Option<Seen>> {
        let head = read_at(file, 0, len.min(HEAD_BYTES as u64) as usize)?;
        let trail_len = len.min(TRAIL_BYTES as u64);
        let trail = read_at(file, len - trail_len, trail_len as usize)?;
        let whole = head.len() as u64 == len.min(HEAD_BYTES as u64) && trail.len() as u64 == trail_len;
        Ok(whole.then_some(Seen { len, head, trail }))
    }

    /// Whether `file` begins with what was seen, as far as the samples tell.
    pub fn begins(&self, file: &File) -> io::Result<bool> {
        Ok(Seen::of_start(file, self.len)?.as_ref() == Some(self))
    }

    /// Whether one content may be the beginning of the other: their heads agree as far as both go.
    pub fn may_share_beginning(&self, head: &[u8]) -> bool {
        let common = self.head.len().min(head.len());
        common > 0 && self.head[..common] == head[..common]
    }

    /// The last byte of the content so far.
    pub fn last(&self) -> Option<u8> {
        self.trail.last().copied()
    }

    /// The key to store with a position in this content.
    pub fn key(&self, inode: Inode) -> Key {
        // Powers of two, so that the key of a growing file changes a few times only.
        let head_len = if self.head.is_empty() { 0 } else { 1 << self.head.len().ilog2() };
        Key { inode, head_len, head_crc: crc32fast::hash(&self.head[..head_len]) }
    }
}

/// Passes bytes through while taking note of them.
pub struct Noting<'a, R> {
    pub input: R,
    pub seen: &'a mut Seen,
}

impl<R: Read> Read for Noting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.seen.add(&buffer[..n]);
        Ok(n)
    }
}

/// Identity of a file as stored in [`crate::position::Position::key`]: `dev:inode:length:crc` in hexadecimal, where
/// `crc` is the CRC-32 of the first `length` bytes of the (decompressed) content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub inode: Inode,
    head_len: usize,
    head_crc: u32,
}

impl Key {
    /// Whether a content that begins with `head` (its first [`HEAD_BYTES`] or all of it) can be the one meant.
    pub fn fits(&self, head: &[u8]) -> bool {
        head.len() >= self.head_len && crc32fast::hash(&head[..self.head_len]) == self.head_crc
    }

    /// Whether the key tells nothing of the content.
    pub fn is_empty(&self) -> bool {
        self.head_len == 0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:x}:{:x}:{:x}:{:08x}", self.inode.dev, self.inode.ino, self.head_len, self.head_crc)
    }
}

impl FromStr for Key {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Key, Self::Err> {
        let mut parts = text.split(':');
        let mut part = || u64::from_str_radix(parts.next().unwrap_or_default(), 16);
        let inode = Inode { dev: part()?, ino: part()? };
        let head_len = part()? as usize;
        let head_crc = u32::from_str_radix(parts.next().unwrap_or_default(), 16)?;
        Ok(Key { inode, head_len, head_crc })
    }
}

/// Up to `len` bytes of `file` from `offset`, fewer where it ends. Does not move the file's own reading place.
pub fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        match file.read_at(&mut bytes[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn samples_do_not_depend_on_how_the_content_was_read() {
        let content: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for piece in [1, 100, 255, 256, 257, 1024, 5000] {
            let mut seen = Seen::default();
            for bytes in content.chunks(piece) {
                seen.add(bytes);
                assert!(seen.begins(&file).unwrap(), "after {} bytes in pieces of {piece}", seen.len);
            }
        }
        let mut seen = Seen::of_start(&file, 5000).unwrap().unwrap();
        assert!(Seen::of_start(&file, 5001).unwrap().is_none());
        seen.add(b"x");
        assert!(!seen.begins(&file).unwrap());
    }

    #[test]
    fn a_key_survives_growth_and_text() {
        let inode = Inode { dev: 0x801, ino: 77 };
        let mut seen = Seen::default();
        seen.add(b"first line\n");
        let key = seen.key(inode);
        assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        assert!(key.fits(b"first line\nand more"));
        assert!(!key.fits(b"other line\nand more"));
        assert!(!key.fits(b"firs"), "shorter than what the key is of");
        seen.add(b"1\n");
        assert_eq!(seen.key(inode), key, "stays until the head has doubled");
        assert!("1:2:3".parse::<Key>().is_err() && "".parse::<Key>().is_err());
    }
}
