//! The log of one stream: blocks of frames with the position they came from, appended, synced, read back.
//!
//! Receives records; hands on the offset up to which frames are on the disk, and the records again, as often as wanted.
//! What always holds: offsets have no gap, and an offset reported as synced is found again after a crash.
//!
//! This file is what the rest of the engine sees. Behind it, `segment.rs` says what the bytes are, `writer.rs` appends
//! and syncs, `reader.rs` reads, `recovery.rs` decides at start-up what to keep.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::fs::{Disk, Fs};
use super::reader::{Heads, Reader};
pub use super::record::{Location, Record, RecordHead};
use super::segment::HEADER_LEN;
use super::writer::Writer;
use crate::error::{Error, Kind, Result};
use crate::time;

/// When appended frames are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// In groups, at most once in this time.
    Every(Duration),
    /// Each append returns when its frames are on the disk.
    Always,
    /// When a segment is full and at the end. What the operating system has counts as synced: it survives the death of
    /// the process but not of the machine.
    Off,
}

impl FromStr for SyncMode {
    type Err = Error;

    /// `always`, `off`, or a duration such as `10ms`.
    fn from_str(text: &str) -> Result<SyncMode> {
        match text.trim().to_ascii_lowercase().as_str() {
            "always" => Ok(SyncMode::Always),
            "off" => Ok(SyncMode::Off),
            other => time::parse_duration(other).map(SyncMode::Every).map_err(|_| {
                Error::new(Kind::InvalidParameter, format!("\"{text}\" does not say when to sync the log"))
                    .with_hint("Write 'always', 'off' or a duration such as '10ms'.")
            }),
        }
    }
}

impl fmt::Display for SyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncMode::Every(interval) => f.write_str(&time::format_duration(*interval)),
            SyncMode::Always => f.write_str("always"),
            SyncMode::Off => f.write_str("off"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct WalOptions {
    pub sync: SyncMode,
    /// A segment that would grow past this is followed by a new one; a record is never split.
    pub segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { sync: SyncMode::Every(Duration::from_millis(10)), segment_bytes: 256 << 20 }
    }
}

/// What was found on opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Offset that the next record must begin with.
    pub next_offset: u64,
    /// Records of frames in the log.
    pub records: u64,
    /// What had to be cut off; for the caller to log.
    pub truncated: Option<TornTail>,
}

/// The unfinished end of a log, which was never synced, and was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    pub segment: u32,
    /// Length the segment was cut to.
    pub at: u64,
    /// How much was cut off.
    pub bytes: u64,
}

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentInfo {
    pub number: u32,
    pub path: PathBuf,
    /// Offsets of its frames: `first_offset..end_offset`.
    pub first_offset: u64,
    pub end_offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// A log, for any number of threads. Dropping it syncs and closes it.
pub struct Wal {
    fs: Arc<dyn Fs>,
    writer: Arc<Writer>,
    syncer: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Opens the log in `dir` on the system's disk; see [`Wal::open_on`].
    pub fn open(dir: &Path, options: WalOptions) -> Result<(Wal, Opened)> {
        Wal::open_on(Arc::new(Disk), dir, options, &mut |_, _| Ok(()))
    }

    /// Opens the log in `dir`, which is created if missing, and verifies all of it. `visit` sees the head of every
    /// record in order, which saves a second pass to those who look for positions. Damage to anything that had been
    /// synced is an error of kind `Corrupted`; a tail that had not is cut off and reported.
    pub fn open_on(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: WalOptions,
        visit: &mut dyn FnMut(Location, RecordHead) -> Result<()>,
    ) -> Result<(Wal, Opened)> {
        let (writer, opened) = Writer::open(fs.clone(), dir, options, visit)?;
        let writer = Arc::new(writer);
        let syncer = match options.sync {
            SyncMode::Every(interval) => {
                let writer = writer.clone();
                let thread = std::thread::Builder::new().name("wal-sync".into());
                let thread = thread.spawn(move || writer.sync_in_groups(interval));
                Some(
                    thread
                        .map_err(|err| Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}")))?,
                )
            }
            SyncMode::Always | SyncMode::Off => None,
        };
        Ok((Wal { fs, writer, syncer: Mutex::new(syncer) }, opened))
    }

    /// Appends a record, which must begin at [`Wal::next_offset`]. It survives the death of the process from here on;
    /// use [`Wal::wait_synced`] to know when it survives that of the machine (in mode `always` it does on return).
    ///
    /// An error of kind `DiskFull` may be tried again; after any other failure of the disk the log accepts nothing
    /// more, and this and all later calls return the first error.
    pub fn append(&self, record: &Record) -> Result<Location> {
        self.writer.append(record)
    }

    /// The offset that the next record must begin with.
    pub fn next_offset(&self) -> u64 {
        self.writer.next_offset()
    }

    /// Frames below this offset are as safe as the sync mode makes them.
    pub fn synced(&self) -> u64 {
        self.writer.synced()
    }

    /// Waits until the frames below `offset`, which may be yet to come, are synced. An error says that they never will
    /// be.
    pub fn wait_synced(&self, offset: u64) -> Result<()> {
        self.writer.wait_synced(offset)
    }

    /// Forces everything appended so far to the disk, whatever the mode.
    pub fn sync(&self) -> Result<()> {
        self.writer.sync()
    }

    /// Records from the one at `from` to the last one now appended. An error of kind `UndefinedObject` says that the
    /// segment has been dropped.
    pub fn read(&self, from: Location) -> Result<Reader> {
        self.read_range(from, END)
    }

    /// Records from the one at `from` to the one before `to`.
    pub fn read_range(&self, from: Location, to: Location) -> Result<Reader> {
        Ok(Reader::new(self.fs.clone(), self.segments_from(from)?, from, to))
    }

    /// Heads of the records from the one at `from` on: a scan that leaves the bodies alone.
    pub fn heads(&self, from: Location) -> Result<Heads> {
        Ok(Heads::new(self.fs.clone(), self.segments_from(from)?, from, END))
    }

    /// Where the oldest record is, or will be.
    pub fn start(&self) -> Location {
        let segment = self.segments().first().map_or(1, |s| s.number);
        Location { segment, at: HEADER_LEN, len: 0 }
    }

    /// Where the record holding the frame `offset` is; `None` when it is not in the log. Scans the heads of one
    /// segment.
    pub fn locate(&self, offset: u64) -> Result<Option<Location>> {
        let segments = self.segments();
        let Some(segment) = segments.iter().find(|s| (s.first_offset..s.end_offset).contains(&offset)) else {
            return Ok(None);
        };
        for head in self.heads(Location { segment: segment.number, at: HEADER_LEN, len: 0 })? {
            let (location, head) = head?;
            if offset < head.base + u64::from(head.frames) {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// Size of all segments in bytes.
    pub fn bytes(&self) -> u64 {
        self.segments().iter().map(|s| s.bytes).sum()
    }

    /// The segments, oldest first. The last one is being written.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.writer.segments()
    }

    /// Removes the segments all of whose frames are below `offset`, but never the last one; returns the bytes freed.
    pub fn drop_before(&self, offset: u64) -> Result<u64> {
        self.writer.drop_before(offset)
    }

    /// Syncs and closes the log. Later appends are refused; a second call does nothing.
    pub fn shutdown(&self) -> Result<()> {
        if !self.writer.begin_close() {
            return Ok(());
        }
        let joined = self.syncer.lock().take().map_or(Ok(()), JoinHandle::join);
        self.writer.end_close()?;
        joined.map_err(|_| Error::internal("the thread that syncs the log panicked"))
    }

    fn segments_from(&self, from: Location) -> Result<Vec<SegmentInfo>> {
        let segments = self.segments();
        match segments.first() {
            Some(first) if from.segment < first.number => {
                Err(Error::new(Kind::UndefinedObject, format!("segment {} of the log has been dropped", from.segment))
                    .with_detail(format!("The oldest frame kept has the offset {}.", first.first_offset)))
            }
            Some(_) | None => Ok(segments),
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // Whoever needs to know whether it worked calls `shutdown` first.
        let _ = self.shutdown();
    }
}

/// Behind every record.
const END: Location = Location { segment: u32::MAX, at: u64::MAX, len: 0 };

#[cfg(test)]
pub(super) mod tests {
    use super::super::memory_fs::MemoryFs;
    use super::*;
    use crate::frame::{Cut, Frames};
    use crate::position::{Position, Unit};

    /// A record of `frames` short lines, different for each `base`.
    pub fn record(base: u64, frames: u64) -> Record {
        let text: String = (base..base + frames).map(|i| format!("GET /page/{i} 200 {}\n", i * 7919 % 1000)).collect();
        let position = Position {
            partition: "/var/log/access.log".into(),
            key: "8:1:42".into(),
            start: base * 20,
            end: (base + frames) * 20,
            unit: Unit::Bytes,
        };
        Record { base, source: 3, ingest_time: 1_700_000_000_000_000, position, frames: Frames::from_text(text) }
    }

    pub fn open(fs: &MemoryFs, sync: SyncMode, segment_bytes: u64) -> Result<(Wal, Opened)> {
        Wal::open_on(Arc::new(fs.clone()), Path::new("log"), WalOptions { sync, segment_bytes }, &mut |_, _| Ok(()))
    }

    pub fn all(wal: &Wal) -> Vec<Record> {
        wal.read(wal.start()).unwrap().map(|item| item.unwrap().1).collect()
    }

    const BIG: u64 = 1 << 30;

    #[test]
    fn what_goes_in_comes_out() {
        let mut noise = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (noise >> 56) as u8
        })
        .take(5000)
        .collect();
        let empty = Position { partition: String::new(), key: String::new(), start: 0, end: 0, unit: Unit::Frames };
        let cut = vec![Cut { frame: 1, true_len: 1 << 40 }];
        let frames = [
            Frames::from_text("a\r\n\nno terminator"),
            Frames { cut, ..Frames::from_text("x\nkept\ny\n") },
            Frames::from_text(noise.clone()),
            Frames { ends: vec![5000], bytes: noise.into(), cut: vec![] },
            Frames::from_text("same line\n".repeat(100_000)),
            Frames::default(),
            Frames::from_text("last\n"),
        ];
        let dir = tempfile::tempdir().unwrap();
        let (wal, opened) = Wal::open(dir.path(), WalOptions::default()).unwrap();
        assert_eq!(opened, Opened { next_offset: 0, records: 0, truncated: None });
        let mut records = Vec::new();
        for frames in frames {
            let position = empty.clone();
            let record = Record { base: wal.next_offset(), source: 0, ingest_time: -1, position, frames };
            wal.append(&record).unwrap();
            records.push(record);
        }
        assert_eq!(all(&wal), records);
        wal.wait_synced(wal.next_offset()).unwrap();
        drop(wal);
        let (wal, opened) = Wal::open(dir.path(), WalOptions::default()).unwrap();
        assert_eq!((opened.records, opened.truncated), (records.len() as u64, None));
        assert_eq!(wal.synced(), opened.next_offset);
        assert_eq!(all(&wal), records);
    }

    #[test]
    fn real_logs_come_back_byte_for_byte() {
        let root =
            std::env::var("LOGWEIR_DATA").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").into());
        let Ok(log) = std::fs::read(Path::new(&root).join("access/apache_combined_10k.log")) else {
            println!("no sample logs in {root}: skipped");
            return;
        };
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Off, 100_000).unwrap();
        for lines in Frames::from_text(log.clone()).iter().collect::<Vec<_>>().chunks(700) {
            let frames = Frames::from_text(lines.join(&b'\n'));
            wal.append(&Record { base: wal.next_offset(), frames, ..record(0, 0) }).unwrap();
        }
        let back: Vec<Vec<u8>> = all(&wal).iter().map(|r| r.frames.iter().collect::<Vec<_>>().join(&b'\n')).collect();
        assert_eq!(back.join(&b'\n'), log.strip_suffix(b"\n").unwrap_or(&log));
        assert!(wal.bytes() * 4 < log.len() as u64, "logs should compress: {} of {}", wal.bytes(), log.len());
    }

    #[test]
    fn segments_follow_one_another_and_can_be_read_from_anywhere() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Always, 700).unwrap();
        let records: Vec<Record> = (0..30).map(|i| record(i * 3, 3)).collect();
        let places: Vec<Location> = records.iter().map(|r| wal.append(r).unwrap()).collect();
        let segments = wal.segments();
        assert!(segments.len() > 5);
        assert!(segments.windows(2).all(|w| w[0].end_offset == w[1].first_offset && w[0].number + 1 == w[1].number));
        assert_eq!(segments[1].path.file_name().unwrap().to_str(), Some("00000002-000000000009.wal"));
        for from in 0..30 {
            let read: Vec<_> = wal.read(places[from]).unwrap().map(|item| item.unwrap()).collect();
            assert_eq!(read, std::iter::zip(places.clone(), records.clone()).skip(from).collect::<Vec<_>>());
            let range = wal.read_range(places[from], places[29]).unwrap();
            assert_eq!(range.map(|item| item.unwrap().0).collect::<Vec<_>>(), places[from..29]);
            assert_eq!(wal.locate(from as u64 * 3 + 2).unwrap(), Some(places[from]));
        }
        assert_eq!(wal.locate(90).unwrap(), None);
        let heads: Vec<_> = wal.heads(wal.start()).unwrap().map(|item| item.unwrap()).collect();
        assert_eq!(heads.iter().map(|h| h.0).collect::<Vec<_>>(), places);
        assert!(heads.iter().zip(&records).all(|((_, h), r)| h.position == r.position && h.base == r.base));
        assert!(heads.iter().all(|(_, h)| h.frames == 3 && h.bytes as usize > 30 && h.source == 3));
    }

    #[test]
    fn offsets_go_on_after_reopening_and_have_no_gap() {
        let fs = MemoryFs::default();
        for round in 0..5 {
            let (wal, opened) = open(&fs, SyncMode::Off, 300).unwrap();
            assert_eq!((opened.next_offset, opened.records, opened.truncated), (round * 2, round, None));
            assert!(wal.append(&record(opened.next_offset + 1, 2)).unwrap_err().message().contains("goes on at"));
            wal.append(&record(opened.next_offset, 2)).unwrap();
        }
        let before = fs.paths().iter().map(|p| fs.edit(p, |b| b.len())).sum::<usize>();
        drop(open(&fs, SyncMode::Off, 300).unwrap());
        let after = fs.paths().iter().map(|p| fs.edit(p, |b| b.len())).sum::<usize>();
        assert_eq!(before, after, "opening a log that was closed must not make it grow");
    }

    #[test]
    fn dropping_frees_whole_segments_below_an_offset() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Off, 400).unwrap();
        let places: Vec<Location> = (0..20).map(|i| wal.append(&record(i * 5, 5)).unwrap()).collect();
        let bytes = wal.bytes();
        let kept = wal.segments()[3].clone();
        let freed = wal.drop_before(kept.first_offset + 1).unwrap();
        assert!(freed > 0 && wal.bytes() == bytes - freed);
        assert_eq!(wal.segments()[0], kept);
        assert_eq!(all(&wal)[0].base, kept.first_offset);
        assert_eq!(wal.read(places[0]).err().unwrap().kind(), Kind::UndefinedObject);
        wal.drop_before(u64::MAX).unwrap();
        assert_eq!(wal.segments().len(), 1, "the segment being written stays");
        drop(wal);
        let (wal, opened) = open(&fs, SyncMode::Off, 400).unwrap();
        assert_eq!(opened.next_offset, 100);
        wal.append(&record(100, 1)).unwrap();
    }

    #[test]
    fn many_readers_see_whole_records_while_one_appends() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Every(Duration::ZERO), 2000).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < 1000 {
                        let safe = wal.synced();
                        let records = all(&wal);
                        let end = records.last().map_or(0, |r| r.base + r.frames.len() as u64);
                        assert!(end >= safe && end >= seen);
                        assert!(records.iter().enumerate().all(|(i, r)| *r == record(i as u64 * 4, 4)));
                        seen = end;
                    }
                });
            }
            scope.spawn(|| wal.wait_synced(1000).unwrap());
            for i in 0..250 {
                wal.append(&record(i * 4, 4)).unwrap();
            }
        });
        assert_eq!(wal.synced(), 1000);
    }

    #[test]
    fn a_closed_log_refuses_and_lets_waiters_go() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Every(Duration::from_secs(3600)), BIG).unwrap();
        wal.append(&record(0, 1)).unwrap();
        std::thread::scope(|scope| {
            let early = scope.spawn(|| wal.wait_synced(1));
            let never = scope.spawn(|| wal.wait_synced(2));
            wal.shutdown().unwrap();
            early.join().unwrap().unwrap();
            assert_eq!(never.join().unwrap().unwrap_err().kind(), Kind::Shutdown);
        });
        assert_eq!(wal.append(&record(1, 1)).unwrap_err().kind(), Kind::Shutdown);
        wal.shutdown().unwrap();
    }

    #[test]
    fn sync_modes_read_and_write() {
        for (text, mode) in
            [("always", SyncMode::Always), ("OFF", SyncMode::Off), ("10ms", SyncMode::Every(Duration::from_millis(10)))]
        {
            assert_eq!(text.parse::<SyncMode>().unwrap(), mode);
            assert_eq!(mode.to_string().parse::<SyncMode>().unwrap(), mode);
        }
        assert!("often".parse::<SyncMode>().unwrap_err().hint().is_some());
    }
}
