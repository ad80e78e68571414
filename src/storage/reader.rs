//! Reads a log from a location on, across segments, to an end fixed when the reader is made.
//!
//! Receives the list of segments as they stood at that moment; hands on records, or only their heads (positions,
//! counts, times), which skips reading and decompressing the bodies. What always holds: a record that is being appended
//! is not seen, and every byte handed on has had its checksum verified.
//!
//! A reader opens each file itself when it gets there. So it neither holds up the appender nor holds files open that
//! retention drops; reaching a dropped segment is an error, as the frames are gone.

use std::collections::VecDeque;
use std::sync::Arc;

use super::fs::Fs;
use super::record::{self, Head, Location, Record, RecordHead};
use super::recovery::corrupted;
use super::segment::{self, Entry, HEADER_LEN, Header, Segment};
use super::wal::SegmentInfo;
use crate::error::{Error, Kind, Result};

/// Whole records are read this many bytes at a time, heads that many.
const AHEAD: usize = 256 << 10;
const AHEAD_HEADS: usize = 4 << 10;

/// Iterates over records and where each is. Ends after the first error.
pub struct Reader(Cursor);

/// Iterates over heads and where each record is. Ends after the first error.
pub struct Heads(Cursor);

impl Reader {
    pub(super) fn new(fs: Arc<dyn Fs>, segments: Vec<SegmentInfo>, from: Location, to: Location) -> Reader {
        Reader(Cursor::new(fs, segments, from, to, AHEAD))
    }

    fn record(&mut self) -> Result<Option<(Location, Record)>> {
        let Some((location, head)) = self.0.advance()? else { return Ok(None) };
        let Some((info, segment)) = &mut self.0.open else { return Ok(None) };
        let body = segment.body(&head).map_err(|err| Error::io("read", &info.path, &err))?;
        match body.and_then(|body| record::decode(head, body)) {
            Some(record) => Ok(Some((location, record))),
            None => Err(corrupted(&info.path, location.at, "the body of a record does not fit its head")),
        }
    }
}

impl Heads {
    pub(super) fn new(fs: Arc<dyn Fs>, segments: Vec<SegmentInfo>, from: Location, to: Location) -> Heads {
        Heads(Cursor::new(fs, segments, from, to, AHEAD_HEADS))
    }
}

impl Iterator for Reader {
    type Item = Result<(Location, Record)>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.record().transpose();
        if matches!(item, Some(Err(_))) {
            self.0.stop();
        }
        item
    }
}

impl Iterator for Heads {
    type Item = Result<(Location, RecordHead)>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.advance().transpose();
        if matches!(item, Some(Err(_))) {
            self.0.stop();
        }
        item.map(|item| item.map(|(location, head)| (location, head.head)))
    }
}

/// Walks from head to head.
struct Cursor {
    fs: Arc<dyn Fs>,
    /// Segments not yet begun.
    segments: VecDeque<SegmentInfo>,
    open: Option<(SegmentInfo, Segment)>,
    at: u64,
    to: Location,
    ahead: usize,
}

impl Cursor {
    fn new(fs: Arc<dyn Fs>, segments: Vec<SegmentInfo>, from: Location, to: Location, ahead: usize) -> Cursor {
        let segments = segments.into_iter().filter(|s| s.number >= from.segment && s.number <= to.segment).collect();
        Cursor { fs, segments, open: None, at: from.at.max(HEADER_LEN), to, ahead }
    }

    fn stop(&mut self) {
        self.segments.clear();
        self.open = None;
    }

    /// The next head; moves behind its record.
    fn advance(&mut self) -> Result<Option<(Location, Head)>> {
        loop {
            let Some((info, segment)) = &mut self.open else {
                let Some(info) = self.segments.pop_front() else { return Ok(None) };
                let segment = self.open_segment(&info)?;
                self.open = Some((info, segment));
                continue;
            };
            match segment.entry(self.at).map_err(|err| Error::io("read", &info.path, &err))? {
                Entry::Frames(head) => {
                    let location = Location { segment: info.number, at: self.at, len: head.len };
                    self.at += u64::from(head.len);
                    return Ok(Some((location, head)));
                }
                Entry::Mark(_) => self.at += segment::MARK_LEN as u64,
                Entry::End => {
                    self.open = None;
                    self.at = HEADER_LEN;
                }
                Entry::Broken(reason) => return Err(corrupted(&info.path, self.at, reason)),
            }
        }
    }

    fn open_segment(&self, info: &SegmentInfo) -> Result<Segment> {
        let failed = |err: std::io::Error| match err.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::UndefinedObject, format!("segment {} of the log has been dropped", info.number))
                    .with_detail(format!("It held the frames {} to {}.", info.first_offset, info.end_offset))
            }
            _ => Error::io("read", &info.path, &err),
        };
        let file = self.fs.open(&info.path).map_err(failed)?;
        let mut bytes = [0; HEADER_LEN as usize];
        file.read_full_at(&mut bytes, 0).map_err(failed)?;
        let Some(header) = Header::decode(&bytes) else {
            return Err(corrupted(&info.path, 0, "the header of the segment is damaged"));
        };
        let end = if info.number == self.to.segment { self.to.at.min(info.bytes) } else { info.bytes };
        Ok(Segment::new(file, header?.salt, end, self.ahead))
    }
}
