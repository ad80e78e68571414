//! A file read once, from its beginning to its end, without following it: for `logweir query` and `FROM 'file'`.
//!
//! Receives a path, and optionally a range of bytes; hands on blocks of records with their positions. Ranges that cover a
//! file without overlap yield each of its records once, so that several cores can share one file.
//!
//! A range's records are those of which a line in it tells that they begin. That is told by the line alone, wherever
//! reading began, because a framer remembers nothing between two records.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::content::{Compression, Content};
use super::identity::{Inode, Seen, read_at};
use super::tail::position_of;
use crate::error::{Error, Kind, Result};
use crate::frame::newline::Newline;
use crate::frame::{Framer, Frames, Framing};
use crate::position::Position;

/// How much is searched at once for the place at which a range begins.
const SEARCH_BYTES: usize = 1 << 16;

/// Reads one file, plain or compressed (by its name: `.gz`, `.zst`). An iterator of blocks; ends after the last record
/// or an error.
pub struct BoundedReader {
    // Fixed.
    path: PathBuf,
    inode: Inode,
    block_bytes: usize,

    // State.
    content: Content,
    seen: Seen,
    framer: Box<dyn Framer>,
    /// Bytes still to be read.
    left: u64,
    /// Where the content read begins in the file.
    base: u64,
    ended: bool,
}

impl BoundedReader {
    /// All of `path`, in blocks of up to `block_bytes`.
    pub fn open(path: &Path, framing: &Framing, block_bytes: usize) -> Result<BoundedReader> {
        let failed = |err: io::Error| Error::io("open", path, &err);
        let content = Content::open_any(path).map_err(failed)?;
        let inode = Inode::of(&content.metadata().map_err(failed)?);
        Ok(BoundedReader {
            path: path.to_path_buf(),
            inode,
            block_bytes: block_bytes.max(1),
            content,
            seen: Seen::default(),
            framer: framing.framer(),
            left: u64::MAX,
            base: 0,
            ended: false,
        })
    }

    /// The records of an uncompressed file that start within `range` (bytes).
    pub fn open_range(path: &Path, range: Range<u64>, framing: &Framing, block_bytes: usize) -> Result<BoundedReader> {
        if Compression::of(path) != Compression::None {
            let message = format!("cannot read a part of the compressed file {:?}", path.display().to_string());
            return Err(Error::new(Kind::NotSupported, message));
        }
        let failed = |err: io::Error| Error::io("read", path, &err);
        let mut reader = BoundedReader::open(path, framing, block_bytes)?;
        let mut file = reader.content.file();
        let start = record_start(file, range.start, range.end, framing).map_err(failed)?;
        let end = match start {
            Some(_) => record_start(file, range.end, u64::MAX, framing).map_err(failed)?,
            None => Some(0),
        };
        let end = end.map_or_else(|| file.metadata().map(|m| m.len()), Ok).map_err(failed)?;
        reader.base = start.unwrap_or(0);
        reader.left = end.saturating_sub(reader.base);
        file.seek(SeekFrom::Start(reader.base)).map_err(failed)?;
        Ok(reader)
    }

    fn block(&mut self, frames: Frames) -> (Frames, Position) {
        let end = self.base + self.seen.len - self.framer.pending();
        let position = position_of(&frames, &self.path, self.inode, &self.seen, end);
        (frames, position)
    }
}

impl Iterator for BoundedReader {
    type Item = Result<(Frames, Position)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.block_bytes);
            let before = self.seen.len;
            let (mut frames, outcome) = self.content.read(&mut self.seen, self.framer.as_mut(), room);
            self.left -= self.seen.len - before;
            match outcome {
                Ok(0) => {
                    self.ended = true;
                    frames = self.framer.finish();
                }
                Ok(_) => {}
                // The error comes again after all that could be read.
                Err(_) if !frames.is_empty() => {}
                Err(_) if self.framer.pending() > 0 => frames = self.framer.finish(),
                Err(err) => {
                    self.ended = true;
                    return Some(Err(Error::io("read", &self.path, &err)));
                }
            }
            if !frames.is_empty() {
                return Some(Ok(self.block(frames)));
            }
        }
        None
    }
}

/// Where the first record begins that a line at or behind `offset`, and before `until`, tells to begin: that line itself,
/// or the one behind it. `None` when no line does. So each record has one line that tells, and belongs to the range of
/// that line.
fn record_start(file: &File, offset: u64, until: u64, framing: &Framing) -> io::Result<Option<u64>> {
    let mut at = line_start(file, offset, framing.spec.separator.unwrap_or(b'\n'))?;
    let Some(rule) = framing.rule.as_ref().filter(|_| offset > 0) else { return Ok((at < until).then_some(at)) };
    let mut lines = Newline::new(framing.max_line_bytes);
    let mut ended = false;
    loop {
        let bytes = read_at(file, at + lines.pending(), SEARCH_BYTES)?;
        let found = if bytes.is_empty() { lines.finish() } else { lines.push(&bytes) };
        for (i, line) in found.iter().enumerate() {
            let start = at + found.source_offset(i);
            if ended || (start < until && rule.begins(line)) {
                return Ok(Some(start));
            }
            if start >= until {
                return Ok(None);
            }
            ended = rule.ends(line);
        }
        at += found.source_offset(found.len());
        if bytes.is_empty() {
            return Ok(None);
        }
    }
}

/// Where the first line that starts at or behind `offset` starts; the size of the file when there is none.
fn line_start(file: &File, offset: u64, separator: u8) -> io::Result<u64> {
    if offset == 0 {
        return Ok(0);
    }
    let mut from = offset - 1;
    loop {
        let bytes = read_at(file, from, SEARCH_BYTES)?;
        if bytes.is_empty() {
            return Ok(file.metadata()?.len());
        }
        if let Some(at) = memchr::memchr(separator, &bytes) {
            return Ok(from + at as u64 + 1);
        }
        from += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a range, in blocks that are contiguous.
    fn read(path: &Path, range: Range<u64>, framing: &Framing) -> Vec<String> {
        let mut at = None;
        let reader = BoundedReader::open_range(path, range, framing, 64).unwrap();
        let blocks = reader.map(|block| {
            let (frames, position) = block.unwrap();
            assert!(at.is_none_or(|end| end == position.start));
            at = Some(position.end);
            frames
        });
        let blocks: Vec<Frames> = blocks.collect();
        blocks.iter().flat_map(|b| b.iter().map(|l| String::from_utf8(l.to_vec()).unwrap())).collect()
    }

    #[test]
    fn ranges_share_a_file_without_losing_or_repeating_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let lines: Vec<String> = (0..200).map(|i| format!("{i:0width$}", width = i % 23)).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        let read = |range| read(&path, range, &Framing::default());
        assert_eq!(read(0..size), lines);
        for cut in 0..=size {
            assert_eq!([read(0..cut), read(cut..size)].concat(), lines, "cut at {cut}");
        }
        assert_eq!(read(size..size + 10), [""; 0]);
    }

    #[test]
    fn ranges_share_records_of_several_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let mut text = String::from(" of no record\n");
        for i in 0..30 {
            text += &format!("{i}\n{}", " more\n".repeat(i % 7));
        }
        text += &format!("{}\n", " very long\n".repeat(10_000));
        text += "last\n end";
        std::fs::write(&path, &text).unwrap();
        let size = text.len() as u64;
        let framings: [&[(&str, &str)]; 6] = [
            &[("multiline_start", r"^\S")],
            &[("multiline_continue", r"^\s"), ("max_line_bytes", "4"), ("max_record_lines", "3")],
            &[("multiline_end", "^ more"), ("max_record_bytes", "50")],
            &[("multiline_end", r"^\d")],
            &[("multiline_start", r"^\d"), ("multiline_end", "4$")],
            &[("framing", "nul")],
        ];
        for given in framings {
            let framing = Framing::of_options(given).unwrap();
            let whole: Vec<String> = BoundedReader::open(&path, &framing, 1000)
                .unwrap()
                .flat_map(|block| {
                    block.unwrap().0.iter().map(|l| String::from_utf8(l.to_vec()).unwrap()).collect::<Vec<_>>()
                })
                .collect();
            let cuts = (0..700).chain([size / 2, size - 6, size - 1, size]);
            for cut in cuts {
                let shares = [0..cut / 2, cut / 2..cut, cut..size].map(|range| read(&path, range, &framing));
                assert_eq!(shares.concat(), whole, "{given:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_damaged_file_yields_its_lines_and_then_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log.gz");
        let text: String = (0..1000).map(|i| format!("line {i}\n")).collect();
        let packed = super::super::tests::gzip(text.as_bytes());
        std::fs::write(&path, &packed[..packed.len() - 4]).unwrap();
        let blocks: Vec<_> = BoundedReader::open(&path, &Framing::default(), 1 << 20).unwrap().collect();
        assert_eq!(blocks[0].as_ref().unwrap().0.len(), 1000);
        assert!(blocks[1].is_err() && blocks.len() == 2);
        assert!(BoundedReader::open_range(&path, 0..10, &Framing::default(), 100).is_err());
    }
}
