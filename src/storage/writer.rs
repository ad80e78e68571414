//! The write side of a log: the end of the last segment, what of it is durable, and what happened when it failed.
//!
//! Receives records from any thread; hands on where each went, and wakes those who wait for a sync. What always holds:
//! - a record is in the file in whole or not at all: a failed write is undone by cutting the file back;
//! - `durable` never runs ahead of the disk;
//! - every segment but the last is on the disk in whole, as rolling over syncs the one it leaves;
//! - after a failed sync nothing is accepted any more. The kernel may have dropped the pages it could not write and
//!   report success the next time, so trying again would acknowledge what is lost. Only a full disk, which fails in
//!   `write` where it can be undone, leaves the log usable.
//!
//! Locks are taken in this order: `appender`, `syncing`, `state`. A sync holds only `syncing` while it waits for the
//! disk, so it delays no append.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::fs::{File, Fs};
use super::record::{Encoder, Location, Record, RecordHead};
use super::recovery::recover;
use super::segment::{self, HEADER_LEN};
use super::wal::{Opened, SegmentInfo, SyncMode, WalOptions};
use crate::error::{Error, Kind, Result};

pub struct Writer {
    // Fixed.
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: WalOptions,
    // State.
    appender: Mutex<Appender>,
    /// Held during a sync: an error is reported to one caller only, so two at a time could miss it.
    syncing: Mutex<()>,
    state: Mutex<State>,
    /// `dirty` was set, or it is time to end.
    work: Condvar,
    /// `durable`, `failed` or `phase` changed.
    changed: Condvar,
}

/// The end of the last segment.
struct Appender {
    file: Arc<dyn File>,
    path: PathBuf,
    number: u32,
    salt: u32,
    at: u64,
    next_offset: u64,
    encoder: Encoder,
}

struct State {
    /// Oldest first, never empty.
    segments: Vec<SegmentInfo>,
    /// The file of the last segment.
    file: Arc<dyn File>,
    /// Frames below this offset are with the operating system, below `durable` on the disk.
    written: u64,
    durable: u64,
    /// Something was written since the last sync began.
    dirty: bool,
    failed: Option<Error>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    Closed,
}

impl Writer {
    /// Opens the log in `dir`, verified and durable in whole; see [`super::wal::Wal::open_on`].
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: WalOptions,
        visit: &mut dyn FnMut(Location, RecordHead) -> Result<()>,
    ) -> Result<(Writer, Opened)> {
        fs.create_dir_all(dir).map_err(|err| Error::io("create", dir, &err))?;
        let mut log = recover(&*fs, dir, visit)?;
        // The process that made or removed the last segment may have died before it synced the directory.
        fs.sync_dir(dir).map_err(|err| Error::io("sync", dir, &err))?;
        let (file, header) = match log.last {
            Some((file, header)) => {
                if log.marked == 0 {
                    // The same goes for the header, which no later sync needs to write.
                    file.sync_data().map_err(|err| Error::io("sync", dir, &err))?;
                }
                (file, header)
            }
            None => {
                let (info, file, header) = segment::create(&*fs, dir, 1, 0)?;
                log.segments.push(info);
                (file, header)
            }
        };
        let last = log.segments.last().expect("one was made if there was none");
        let appender = Appender {
            file: file.clone(),
            path: last.path.clone(),
            number: header.number,
            salt: header.salt,
            at: last.bytes,
            next_offset: log.next_offset,
            encoder: Encoder::new(),
        };
        let state = State {
            segments: log.segments,
            file,
            written: log.next_offset,
            durable: 0,
            // The process that wrote the tail may have died before it synced it.
            dirty: log.truncated.is_some() || log.frames_end > log.marked.max(HEADER_LEN),
            failed: None,
            phase: Phase::Open,
        };
        let writer = Writer {
            fs,
            dir: dir.to_path_buf(),
            options,
            appender: Mutex::new(appender),
            syncing: Mutex::new(()),
            state: Mutex::new(state),
            work: Condvar::new(),
            changed: Condvar::new(),
        };
        writer.sync()?;
        writer.state.lock().durable = log.next_offset;
        let opened = Opened { next_offset: log.next_offset, records: log.records, truncated: log.truncated };
        Ok((writer, opened))
    }

    /// Hands a record to the operating system, and in mode `always` waits for the disk.
    pub fn append(&self, record: &Record) -> Result<Location> {
        let location = self.write_record(record)?;
        if self.options.sync == SyncMode::Always {
            self.sync()?;
        }
        Ok(location)
    }

    pub fn next_offset(&self) -> u64 {
        self.state.lock().written
    }

    pub fn synced(&self) -> u64 {
        self.state.lock().synced(self.options.sync)
    }

    pub fn wait_synced(&self, offset: u64) -> Result<()> {
        let mut state = self.state.lock();
        while state.synced(self.options.sync) < offset {
            state.check_not_failed()?;
            if state.phase == Phase::Closed {
                return Err(closed());
            }
            self.changed.wait(&mut state);
        }
        Ok(())
    }

    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.state.lock().segments.clone()
    }

    /// Makes everything written so far durable, and leaves a mark that says so.
    pub fn sync(&self) -> Result<()> {
        let Some((number, synced)) = self.sync_file(false)? else { return Ok(()) };
        let appender = &mut *self.appender.lock();
        // A segment that was left meanwhile needs no mark: it is durable in whole.
        if appender.number == number {
            appender.encoder.mark(synced);
            // Without the mark the frames are as safe, only damage to them is harder to tell from a torn tail. A
            // failure that matters has been noted and meets the next append.
            if self.write(appender).is_ok() {
                self.state.lock().last().bytes = appender.at;
            }
        }
        Ok(())
    }

    /// Group commit, on a thread of its own until the log is closed or fails: a sync as soon as there is something to
    /// sync, but at most one per interval. It serves all appends before it and delays none behind it.
    pub fn sync_in_groups(&self, interval: Duration) {
        let mut due = Instant::now();
        loop {
            {
                let mut state = self.state.lock();
                while state.phase == Phase::Open && state.failed.is_none() {
                    if !state.dirty {
                        self.work.wait(&mut state);
                    } else if self.work.wait_until(&mut state, due).timed_out() {
                        break;
                    }
                }
                if state.phase != Phase::Open || state.failed.is_some() {
                    return;
                }
            }
            due = Instant::now() + interval;
            // A failure is kept in the state, where the next append and every waiter find it.
            let _ = self.sync();
        }
    }

    /// Refuses further appends and ends [`Writer::sync_in_groups`]; false when that was done before.
    pub fn begin_close(&self) -> bool {
        // No append is under way once its lock is held.
        let _appender = self.appender.lock();
        let mut state = self.state.lock();
        let first = state.phase == Phase::Open;
        if first {
            state.phase = Phase::Closing;
            self.work.notify_all();
        }
        first
    }

    /// Syncs what is left and lets all waiters go.
    pub fn end_close(&self) -> Result<()> {
        let synced = self.sync();
        self.state.lock().phase = Phase::Closed;
        self.changed.notify_all();
        synced
    }

    /// Removes the oldest segments while all their frames are below `offset`; returns the bytes freed.
    pub fn drop_before(&self, offset: u64) -> Result<u64> {
        let mut freed = 0;
        loop {
            let oldest = match self.state.lock().segments.as_slice() {
                [oldest, next, ..] if next.first_offset <= offset => oldest.clone(),
                _ => return Ok(freed),
            };
            // One by one, each forgotten by the directory before the next: a gap in the numbers would look like damage.
            match self.fs.remove(&oldest.path) {
                Ok(()) => freed += oldest.bytes,
                // Somebody else was quicker.
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                Err(err) => return Err(Error::io("remove", &oldest.path, &err)),
            }
            self.fs.sync_dir(&self.dir).map_err(|err| Error::io("sync", &self.dir, &err))?;
            let mut state = self.state.lock();
            if state.segments.first().is_some_and(|s| s.number == oldest.number) {
                state.segments.remove(0);
            }
        }
    }

    fn write_record(&self, record: &Record) -> Result<Location> {
        let appender = &mut *self.appender.lock();
        {
            let state = self.state.lock();
            state.check_not_failed()?;
            if state.phase != Phase::Open {
                return Err(closed());
            }
        }
        if record.base != appender.next_offset {
            let (given, next) = (record.base, appender.next_offset);
            return Err(Error::internal(format!("a record begins at offset {given}, but the log goes on at {next}")));
        }
        let len = appender.encoder.frames(record)?;
        if appender.at > HEADER_LEN && appender.at + len as u64 > self.options.segment_bytes {
            self.roll(appender)?;
        }
        let location = Location { segment: appender.number, at: appender.at, len: len as u32 };
        self.write(appender)?;
        appender.next_offset += record.frames.len() as u64;
        let mut state = self.state.lock();
        state.written = appender.next_offset;
        state.last().end_offset = appender.next_offset;
        state.last().bytes = appender.at;
        // The syncing thread waits either for this or for its time to come: waking it once is enough.
        if !std::mem::replace(&mut state.dirty, true) {
            self.work.notify_one();
        }
        if self.options.sync == SyncMode::Off {
            self.changed.notify_all();
        }
        Ok(location)
    }

    /// Writes what was encoded last at the end of the last segment, in whole or not at all.
    fn write(&self, appender: &mut Appender) -> Result<()> {
        let bytes = appender.encoder.seal(appender.salt);
        let Err(err) = appender.file.write_all_at(bytes, appender.at) else {
            appender.at += bytes.len() as u64;
            return Ok(());
        };
        let err = Error::io("append to", &appender.path, &err);
        match (err.kind(), appender.file.truncate(appender.at)) {
            (Kind::DiskFull, Ok(())) => Err(err.with_hint("Free some space: the log goes on when there is some.")),
            _ => Err(self.fail(err)),
        }
    }

    /// Leaves the last segment, synced, and begins a new one.
    fn roll(&self, appender: &mut Appender) -> Result<()> {
        self.sync_file(true)?;
        let (info, file, header) =
            match segment::create(&*self.fs, &self.dir, appender.number + 1, appender.next_offset) {
                Ok(created) => created,
                Err(err) if err.kind() == Kind::DiskFull => {
                    // Left there, it would stand in the way of a later segment of this number.
                    let path = self.dir.join(segment::file_name(appender.number + 1, appender.next_offset));
                    // That goes for a power cut that brings it back, too.
                    return Err(match self.fs.remove(&path).and_then(|()| self.fs.sync_dir(&self.dir)) {
                        Ok(()) => err.with_hint("Free some space: the log goes on when there is some."),
                        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => err,
                        Err(_) => self.fail(err),
                    });
                }
                Err(err) => return Err(self.fail(err)),
            };
        appender.file = file.clone();
        appender.path = info.path.clone();
        (appender.number, appender.salt, appender.at) = (header.number, header.salt, HEADER_LEN);
        let mut state = self.state.lock();
        state.file = file;
        state.segments.push(info);
        Ok(())
    }

    /// Syncs the last segment, but unless `rolling` only if something was appended since the last time. Returns its
    /// number and how many of its bytes are now durable.
    fn sync_file(&self, rolling: bool) -> Result<Option<(u32, u64)>> {
        let _one_at_a_time = self.syncing.lock();
        let (file, offset, last) = {
            let mut state = self.state.lock();
            state.check_not_failed()?;
            // Rolling over also syncs the last mark: the next start-up will demand every byte to be whole.
            if !std::mem::replace(&mut state.dirty, false) && !rolling {
                return Ok(None);
            }
            (state.file.clone(), state.written, state.last().clone())
        };
        if let Err(err) = file.sync_data() {
            return Err(self.fail(Error::io("sync", &last.path, &err)));
        }
        self.state.lock().durable = offset;
        self.changed.notify_all();
        Ok(Some((last.number, last.bytes)))
    }

    /// Notes the first failure: every later call returns it.
    fn fail(&self, err: Error) -> Error {
        let err = err.with_hint("Check the disk, then restart the server: until then this log accepts nothing.");
        let first = self.state.lock().failed.get_or_insert(err).clone();
        self.work.notify_all();
        self.changed.notify_all();
        first
    }
}

impl State {
    fn synced(&self, mode: SyncMode) -> u64 {
        match mode {
            SyncMode::Every(_) | SyncMode::Always => self.durable,
            SyncMode::Off => self.written,
        }
    }

    fn check_not_failed(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn last(&mut self) -> &mut SegmentInfo {
        self.segments.last_mut().expect("a log has at least one segment, and the last one is never dropped")
    }
}

fn closed() -> Error {
    Error::new(Kind::Shutdown, "the log is closed")
}

#[cfg(test)]
mod tests {
    use super::super::memory_fs::MemoryFs;
    use super::super::wal::tests::{all, open, record};
    use super::*;

    #[test]
    fn one_sync_serves_all_appends_before_it_and_delays_none() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Every(Duration::ZERO), 1 << 20).unwrap();
        fs.faults(|f| f.hold_syncs = true);
        wal.append(&record(0, 1)).unwrap();
        fs.wait_held();
        let syncs = fs.faults(|f| f.syncs);
        for i in 1..100 {
            wal.append(&record(i, 1)).unwrap();
        }
        assert_eq!(wal.synced(), 0);
        fs.faults(|f| f.hold_syncs = false);
        wal.wait_synced(100).unwrap();
        assert_eq!(fs.faults(|f| f.syncs), syncs + 1, "the held sync covers the first record, one more all others");
    }

    #[test]
    fn mode_always_returns_when_the_disk_has_it() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Always, 1 << 20).unwrap();
        for i in 0..3 {
            wal.append(&record(i, 1)).unwrap();
            assert_eq!(wal.synced(), i + 1);
        }
    }

    #[test]
    fn a_failed_sync_is_final_and_everybody_hears_of_it() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Every(Duration::ZERO), 1 << 20).unwrap();
        wal.append(&record(0, 1)).unwrap();
        wal.wait_synced(1).unwrap();
        fs.faults(|f| f.fail_syncs = true);
        wal.append(&record(1, 1)).unwrap();
        let err = wal.wait_synced(2).unwrap_err();
        assert_eq!(err.kind(), Kind::Io);
        fs.faults(|f| f.fail_syncs = false);
        for again in [wal.append(&record(2, 1)).err(), wal.sync().err(), wal.shutdown().err()] {
            assert_eq!(again.unwrap().to_string(), err.to_string());
        }
        assert_eq!(wal.synced(), 1);
    }

    #[test]
    fn a_full_disk_undoes_the_record_and_the_log_goes_on_later() {
        for segment_bytes in [1 << 20, 600] {
            for space in 0..400 {
                let fs = MemoryFs::default();
                let (wal, _) = open(&fs, SyncMode::Off, segment_bytes).unwrap();
                wal.append(&record(0, 10)).unwrap();
                fs.faults(|f| f.space = Some(space));
                let mut next = 10;
                let err = loop {
                    match wal.append(&record(next, 10)) {
                        Ok(_) => next += 10,
                        Err(err) => break err,
                    }
                };
                assert_eq!(err.kind(), Kind::DiskFull, "{err}");
                // A crash now must find the records before, whole.
                let (crashed, opened) = open(&fs.copy(), SyncMode::Off, segment_bytes).unwrap();
                assert_eq!((opened.next_offset, opened.truncated), (next, None));
                drop(crashed);
                fs.faults(|f| f.space = None);
                // Another record may take its place, and fit where the first did not.
                wal.append(&record(next, 1)).unwrap();
                wal.append(&record(next + 1, 20)).unwrap();
                drop(wal);
                let (wal, opened) = open(&fs, SyncMode::Off, segment_bytes).unwrap();
                assert_eq!((opened.next_offset, opened.truncated), (next + 21, None));
                assert_eq!(all(&wal).len() as u64, next / 10 + 2);
            }
        }
    }

    #[test]
    fn a_broken_disk_undoes_the_record_and_ends_the_log() {
        let fs = MemoryFs::default();
        let (wal, _) = open(&fs, SyncMode::Off, 1 << 20).unwrap();
        wal.append(&record(0, 10)).unwrap();
        fs.faults(|f| f.fail_writes = true);
        let err = wal.append(&record(10, 10)).unwrap_err();
        fs.faults(|f| f.fail_writes = false);
        assert_eq!(wal.append(&record(10, 10)).unwrap_err().to_string(), err.to_string());
        drop(wal);
        let (_, opened) = open(&fs, SyncMode::Off, 1 << 20).unwrap();
        assert_eq!((opened.next_offset, opened.truncated), (10, None));
    }
}
