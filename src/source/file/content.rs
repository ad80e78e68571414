//! The content of one open file, decompressed when its name ends with `.gz` or `.zst`.
//!
//! Receives a path; hands on records, in blocks, and takes note of every byte in a [`Seen`]. Offsets count decompressed
//! bytes. The format is told by the name and not by the first bytes, because a file that is still empty or being
//! written must be told too.

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::identity::{HEAD_BYTES, Noting, Seen, read_at};
use crate::frame::{Framer, Frames};

/// How the bytes of a file are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn of(path: &Path) -> Compression {
        match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            Some(_) | None => Compression::None,
        }
    }
}

/// An open file and the place up to which it has been read.
pub struct Content {
    file: File,
    /// Reads the decompressed bytes; `None` when the file is not compressed.
    decoder: Option<Box<dyn Read + Send>>,
}

impl Content {
    /// Opens a regular file at its beginning.
    pub fn open(path: &Path) -> io::Result<Content> {
        // Asked first: opening a named pipe would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Content::open_any(path)
    }

    /// Opens whatever can be read, such as a pipe.
    pub fn open_any(path: &Path) -> io::Result<Content> {
        let file = File::open(path)?;
        let decoder: Option<Box<dyn Read + Send>> = match Compression::of(path) {
            Compression::None => None,
            // Log shippers append members and frames: both decoders read on behind the first.
            Compression::Gzip => Some(Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(
                1 << 16,
                file.try_clone()?,
            )))),
            Compression::Zstd => Some(Box::new(zstd::Decoder::new(file.try_clone()?)?)),
        };
        Ok(Content { file, decoder })
    }

    /// Opens a file `offset` bytes behind its beginning and returns what lies before; `None` when it is shorter.
    pub fn open_at(path: &Path, offset: u64) -> io::Result<Option<(Content, Seen)>> {
        let mut content = Content::open(path)?;
        let seen = match &mut content.decoder {
            None => {
                content.file.seek(SeekFrom::Start(offset))?;
                Seen::of_start(&content.file, offset)?
            }
            Some(decoder) => {
                let mut seen = Seen::default();
                let noting = Noting { input: decoder, seen: &mut seen };
                io::copy(&mut noting.take(offset), &mut io::sink())?;
                (seen.len == offset).then_some(seen)
            }
        };
        Ok(seen.map(|seen| (content, seen)))
    }

    /// Opens a file behind what was seen of it or of the file it is a copy of; `None` when it does not begin so.
    pub fn open_behind(path: &Path, seen: &Seen) -> io::Result<Option<Content>> {
        let found = Content::open_at(path, seen.len)?;
        Ok(found.and_then(|(content, there)| (there == *seen).then_some(content)))
    }

    /// Reads the next records: up to `room` bytes. See [`Framer::read`].
    pub fn read(&mut self, seen: &mut Seen, framer: &mut dyn Framer, room: usize) -> (Frames, io::Result<usize>) {
        match &mut self.decoder {
            None => framer.read(&mut Noting { input: &mut self.file, seen }, room),
            Some(decoder) => framer.read(&mut Noting { input: decoder, seen }, room),
        }
    }

    /// Goes back to the beginning of an uncompressed file, whose content is new.
    pub fn rewind(&mut self) -> io::Result<()> {
        self.file.rewind()
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
}

/// The first bytes of a file's content, up to [`HEAD_BYTES`]. Of a damaged compressed file, what can be read.
pub fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Content::open(path)?;
    match &mut content.decoder {
        None => read_at(&content.file, 0, HEAD_BYTES),
        Some(decoder) => {
            let mut head = Vec::new();
            let outcome = decoder.take(HEAD_BYTES as u64).read_to_end(&mut head);
            if head.is_empty() { outcome.map(|_| head) } else { Ok(head) }
        }
    }
}
