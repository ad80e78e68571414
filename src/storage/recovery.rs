//! Start-up of a log: reads every byte of its segments, says what they hold, and mends the one thing that may be
//! mended.
//!
//! Receives the directory; hands on the list of segments, the offset that follows the last frame, and each head to
//! whoever wants to know positions (so that start-up reads the log once). What always holds afterwards: every byte of
//! every segment belongs to a valid record.
//!
//! What may be mended is a torn tail: bytes at the end of the last segment that no mark claims to be synced, so that
//! nobody was told that they are safe. They are cut off and reported. All else that is not valid (a damaged record, a
//! missing segment, a gap in the offsets) is data that was acknowledged: start-up stops and says where. Skipping it
//! would turn every later answer silently wrong.

use std::path::Path;
use std::sync::Arc;

use super::fs::{File, Fs};
use super::record::{Location, RecordHead};
use super::segment::{self, Entry, HEADER_LEN, Header, Segment};
use super::wal::{SegmentInfo, TornTail};
use crate::error::{Error, Kind, Result};

/// Read this much of a segment at a time.
const AHEAD: usize = 1 << 20;

/// What the files of a log hold.
pub struct Recovered {
    pub segments: Vec<SegmentInfo>,
    /// The last segment's file and header; `None` when there is no segment.
    pub last: Option<(Arc<dyn File>, Header)>,
    pub next_offset: u64,
    pub records: u64,
    pub truncated: Option<TornTail>,
    /// Bytes of the last segment that its last mark says were synced; 0 when it has no mark.
    pub marked: u64,
    /// Where the last record of frames in the last segment ends.
    pub frames_end: u64,
}

/// Reads the log in `dir` and cuts a torn tail off. `visit` sees every valid head in order.
pub fn recover(
    fs: &dyn Fs,
    dir: &Path,
    visit: &mut dyn FnMut(Location, RecordHead) -> Result<()>,
) -> Result<Recovered> {
    let mut files: Vec<_> = fs
        .list(dir)
        .map_err(|err| Error::io("list", dir, &err))?
        .into_iter()
        .filter_map(|path| segment::parse_file_name(&path).map(|(number, first_offset)| (number, first_offset, path)))
        .collect();
    files.sort();
    let mut log = Recovered {
        segments: Vec::new(),
        last: None,
        next_offset: files.first().map_or(0, |&(_, first_offset, _)| first_offset),
        records: 0,
        truncated: None,
        marked: 0,
        frames_end: HEADER_LEN,
    };
    let count = files.len();
    for (i, (number, first_offset, path)) in files.into_iter().enumerate() {
        let expected = log.segments.last().map_or(number, |before| before.number.wrapping_add(1));
        if number != expected {
            return Err(Error::new(Kind::Corrupted, format!("segment {expected} of the log is missing"))
                .with_detail(format!("{:?} follows segment {}.", path.display().to_string(), expected.wrapping_sub(1)))
                .with_hint(HINT));
        }
        if first_offset != log.next_offset {
            return Err(corrupted(&path, 0, "the segment does not begin where the one before it ends"));
        }
        let info = SegmentInfo { number, path, first_offset, end_offset: first_offset, bytes: 0 };
        log.segment(fs, info, i + 1 == count, visit)?;
    }
    Ok(log)
}

impl Recovered {
    fn segment(
        &mut self,
        fs: &dyn Fs,
        mut info: SegmentInfo,
        is_last: bool,
        visit: &mut dyn FnMut(Location, RecordHead) -> Result<()>,
    ) -> Result<()> {
        let failed = |err: std::io::Error| Error::io("read", &info.path, &err);
        let file = fs.open(&info.path).map_err(failed)?;
        let size = file.size().map_err(failed)?;
        let Some(header) = read_header(&info, &file, size).map_err(failed)? else {
            // A segment is durable, header and name, before its first record. So a file without either was never used.
            if !is_last || holds_more_than_zeros(&file, HEADER_LEN, size).map_err(failed)? {
                return Err(corrupted(&info.path, 0, "the header of the segment is damaged"));
            }
            let dir = info.path.parent().unwrap_or(Path::new("."));
            let (info, file, header) = segment::create(fs, dir, info.number, info.first_offset)?;
            self.truncated = Some(TornTail { segment: info.number, at: 0, bytes: size });
            self.last = Some((file, header));
            self.segments.push(info);
            return Ok(());
        };
        let header = header?;
        let mut records = Segment::new(file.clone(), header.salt, size, AHEAD);
        (self.marked, self.frames_end) = (0, HEADER_LEN);
        let mut at = HEADER_LEN;
        loop {
            let reason = match records.entry(at).map_err(failed)? {
                Entry::End => break,
                Entry::Mark(synced) => {
                    self.marked = synced;
                    at += segment::MARK_LEN as u64;
                    continue;
                }
                Entry::Frames(head) => {
                    if records.body(&head).map_err(failed)?.is_some() {
                        if head.head.base != self.next_offset {
                            return Err(corrupted(
                                &info.path,
                                at,
                                "a record's offset does not follow the one before it",
                            ));
                        }
                        self.next_offset += u64::from(head.head.frames);
                        self.records += 1;
                        let location = Location { segment: info.number, at, len: head.len };
                        at += u64::from(head.len);
                        self.frames_end = at;
                        visit(location, head.head)?;
                        continue;
                    }
                    "the checksum of a record's body does not fit"
                }
                Entry::Broken(reason) => reason,
            };
            if !is_last || records.was_synced(at).map_err(failed)? {
                return Err(corrupted(&info.path, at, reason));
            }
            file.truncate(at).map_err(|err| Error::io("truncate", &info.path, &err))?;
            self.truncated = Some(TornTail { segment: info.number, at, bytes: size - at });
            break;
        }
        if is_last {
            self.write_again(&info.path, &file, &header, at)?;
        }
        info.end_offset = self.next_offset;
        info.bytes = at;
        self.last = Some((file, header));
        self.segments.push(info);
        Ok(())
    }
}

impl Recovered {
    /// Writes what no mark vouches for as it is. The process before this one may have died of a failed sync: then the
    /// system still shows what it could not write, but takes it for written, and the next sync succeeds without it.
    fn write_again(&self, path: &Path, file: &Arc<dyn File>, header: &Header, end: u64) -> Result<()> {
        let failed = |err: std::io::Error| Error::io("write", path, &err);
        if self.marked == 0 {
            file.write_all_at(&header.encode(), 0).map_err(failed)?;
        }
        let mut records = Segment::new(file.clone(), header.salt, end, AHEAD);
        let mut at = self.marked.max(HEADER_LEN);
        while at < end {
            let len = match records.entry(at).map_err(failed)? {
                Entry::Frames(head) => head.len as usize,
                Entry::Mark(_) => segment::MARK_LEN,
                Entry::End | Entry::Broken(_) => 0,
            };
            // It was valid when it was read the first time. Nothing else is ever written again.
            let Some(bytes) = records.whole(at, len).map_err(failed)? else {
                return Err(corrupted(path, at, "a record reads differently the second time"));
            };
            file.write_all_at(bytes, at).map_err(failed)?;
            at += len as u64;
        }
        Ok(())
    }
}

/// `None` when the file does not begin with the header its name asks for.
fn read_header(info: &SegmentInfo, file: &Arc<dyn File>, size: u64) -> std::io::Result<Option<Result<Header>>> {
    let mut bytes = vec![0; HEADER_LEN.min(size) as usize];
    file.read_full_at(&mut bytes, 0)?;
    Ok(match Header::decode(&bytes) {
        Some(Ok(header)) if (header.number, header.first_offset) == (info.number, info.first_offset) => {
            Some(Ok(header))
        }
        Some(Ok(_)) | None => None,
        Some(Err(err)) => Some(Err(err)),
    })
}

fn holds_more_than_zeros(file: &Arc<dyn File>, from: u64, size: u64) -> std::io::Result<bool> {
    let mut buf = vec![0; AHEAD];
    let mut at = from;
    while at < size {
        let read = file.read_full_at(&mut buf, at)?;
        if buf[..read].iter().any(|&byte| byte != 0) {
            return Ok(true);
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(false)
}

const HINT: &str = "Restore the file from a copy of the data directory, or give up the frames from there on by moving \
                    this file and all later segments elsewhere; then start again.";

/// Durable bytes that are not what was written.
pub fn corrupted(path: &Path, at: u64, reason: &str) -> Error {
    Error::new(Kind::Corrupted, format!("the log is damaged at byte {at} of {:?}", path.display().to_string()))
        .with_detail(format!("There, {reason}; it was complete and on the disk before."))
        .with_hint(HINT)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::memory_fs::MemoryFs;
    use super::super::wal::SyncMode;
    use super::super::wal::tests::{all, open, record};
    use super::*;

    const SEGMENT: u64 = 1500;

    /// A closed log of three segments with some records in the last one, whose path is returned.
    fn log(sync: SyncMode) -> (MemoryFs, Vec<Location>, PathBuf) {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, sync, SEGMENT).unwrap();
        let mut places: Vec<Location> = Vec::new();
        while places.iter().filter(|p| p.segment == 3).count() < 4 {
            places.push(wal.append(&record(places.len() as u64 * 3, 3)).unwrap());
        }
        let last = wal.segments().pop().unwrap();
        (fs, places, last.path)
    }

    #[test]
    fn killed_at_any_byte_the_log_holds_exactly_the_records_written_before() {
        for sync in [SyncMode::Off, SyncMode::Always] {
            let (fs, places, path) = log(sync);
            let last = places.last().unwrap().segment;
            for len in 0..fs.edit(&path, |bytes| bytes.len()) {
                let fs = fs.copy();
                fs.edit(&path, |bytes| bytes.truncate(len));
                let (wal, opened) = open(&fs, SyncMode::Off, SEGMENT).unwrap();
                let whole = |p: &&Location| p.segment < last || p.at + u64::from(p.len) <= len as u64;
                let expected = places.iter().filter(whole).count() as u64;
                assert_eq!((opened.records, opened.next_offset), (expected, expected * 3), "cut to {len} bytes");
                // Cut between two records nothing was torn; else all that is left over is reported.
                if let Some(torn) = opened.truncated {
                    assert_eq!((torn.segment, torn.at + torn.bytes), (last, len as u64));
                }
                wal.append(&record(opened.next_offset, 3)).unwrap();
                drop(wal);
                let (wal, opened) = open(&fs, SyncMode::Off, SEGMENT).unwrap();
                assert_eq!(opened.truncated, None);
                assert!(all(&wal).into_iter().enumerate().all(|(i, r)| r == record(i as u64 * 3, 3)));
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_synced_bytes_is_found() {
        let (fs, places, last) = log(SyncMode::Off);
        let frames_end = places.last().map(|p| p.at + u64::from(p.len)).unwrap() as usize;
        for path in fs.paths() {
            for byte in 0..fs.edit(&path, |bytes| bytes.len()) {
                let fs = fs.copy();
                fs.edit(&path, |bytes| bytes[byte] ^= 1 << (byte % 8));
                match open(&fs, SyncMode::Off, SEGMENT) {
                    Err(err) => {
                        assert_eq!(err.kind(), Kind::Corrupted, "{err}");
                        assert!(err.message().contains(path.to_str().unwrap()) && err.hint().is_some(), "{err}");
                    }
                    // The mark at the very end is the one thing nothing vouches for, and it holds no frames.
                    Ok((_, opened)) => {
                        assert!(path == last && byte >= frames_end, "byte {byte} of {path:?}");
                        assert_eq!(opened.records, places.len() as u64);
                        assert!(opened.truncated.is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn a_reader_never_hands_on_damaged_frames() {
        let (fs, places, path) = log(SyncMode::Off);
        let (wal, _) = open(&fs, SyncMode::Off, SEGMENT).unwrap();
        let last = *places.last().unwrap();
        for byte in last.at..last.at + u64::from(last.len) {
            fs.edit(&path, |bytes| bytes[byte as usize] ^= 0x10);
            let items: Vec<_> = wal.read(last).unwrap().collect();
            assert!(matches!(items.as_slice(), [Err(err)] if err.kind() == Kind::Corrupted), "byte {byte}");
            fs.edit(&path, |bytes| bytes[byte as usize] ^= 0x10);
        }
    }

    #[test]
    fn pages_that_a_power_cut_lost_are_a_torn_tail_while_nobody_was_told_they_are_safe() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Off, 1 << 20).unwrap();
        let safe = wal.append(&record(0, 50)).unwrap();
        wal.sync().unwrap();
        let lost = wal.append(&record(50, 50)).unwrap();
        wal.append(&record(100, 50)).unwrap();
        // The machine dies: a later page has reached the disk, an earlier one has not.
        let crashed = fs.copy();
        let path = wal.segments()[0].path.clone();
        let middle = lost.at as usize + 30;
        crashed.edit(&path, |bytes| bytes[middle..middle + 100].fill(0));
        let (_, opened) = open(&crashed, SyncMode::Off, 1 << 20).unwrap();
        assert_eq!(opened.next_offset, 50);
        assert_eq!(opened.truncated.map(|torn| torn.at), Some(lost.at));
        // The same to what had been synced is damage, even with an unsynced tail behind it.
        let damaged = fs.copy();
        damaged.edit(&path, |bytes| bytes[safe.at as usize + 60] ^= 1);
        let err = open(&damaged, SyncMode::Off, 1 << 20).err().unwrap();
        assert_eq!(err.kind(), Kind::Corrupted);
        assert!(err.message().contains(&format!("byte {} of", safe.at)), "{err}");
    }

    #[test]
    fn rubbish_or_zeros_behind_the_log_are_cut_off() {
        let (fs, places, path) = log(SyncMode::Always);
        for tail in [vec![0; 5000], vec![0xff; 3], b"sync".repeat(1000), b"frms".repeat(1000)] {
            let fs = fs.copy();
            let len = fs.edit(&path, |bytes| {
                bytes.extend(&tail);
                bytes.len() - tail.len()
            });
            let (_, opened) = open(&fs, SyncMode::Off, SEGMENT).unwrap();
            assert_eq!(opened.records, places.len() as u64);
            let torn = opened.truncated.unwrap();
            assert_eq!((torn.at, torn.bytes), (len as u64, tail.len() as u64));
        }
    }

    #[test]
    fn a_segment_whose_making_was_interrupted_is_made_again() {
        for content in [vec![], vec![0; 4096], b"LOGWEIR".to_vec()] {
            let (fs, places, _) = log(SyncMode::Off);
            let count = places.len() as u64;
            let path = Path::new("log").join(segment::file_name(4, count * 3));
            fs.edit(&path, |bytes| *bytes = content.clone());
            let (wal, opened) = open(&fs, SyncMode::Off, SEGMENT).unwrap();
            assert_eq!((opened.next_offset, opened.records), (count * 3, count));
            assert_eq!(wal.append(&record(count * 3, 3)).unwrap().segment, 4);
        }
    }

    #[test]
    fn a_missing_segment_is_named() {
        let (fs, ..) = log(SyncMode::Off);
        fs.remove(&fs.paths()[1]).unwrap();
        let err = open(&fs, SyncMode::Off, SEGMENT).err().unwrap();
        assert_eq!((err.kind(), err.message()), (Kind::Corrupted, "segment 2 of the log is missing"));
    }

    #[test]
    fn heads_are_visited_on_the_way() {
        let (fs, places, _) = log(SyncMode::Off);
        let mut seen = Vec::new();
        recover(&fs, Path::new("log"), &mut |location, head| {
            seen.push((location, head.base));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, places.iter().enumerate().map(|(i, &p)| (p, i as u64 * 3)).collect::<Vec<_>>());
    }
}
