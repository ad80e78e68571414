//! The log and the atomic write on a disk that fails, over thousands of seeds.
//!
//! Each seed is a history of one log: processes that open it, append, sync, drop what is old and come to an end, some
//! in order, some killed, some with the power cut at any operation, on a disk with faults of its own. What must hold:
//! - whatever was reported as synced is found again, once and in order, until it is dropped;
//! - what the operating system had been given is found again after the death of only the process;
//! - nothing is found that was never appended;
//! - opening reports damage only when a bit was flipped, and then nothing wrong is handed on.
//!
//! A failure names its seeds: `LOGWEIR_SEED=58` runs one alone, `LOGWEIR_SEEDS=1000000` runs more of them.

use std::path::Path;
use std::sync::Arc;

use super::faulty_fs::{Faults, FaultyFs, Random};
use super::fs::{Fs, read, write_atomic};
use super::wal::tests::record;
use super::wal::{Opened, Record, SyncMode, Wal, WalOptions};
use crate::error::{Kind, Result};

const SEEDS: u64 = 4000;

/// The seeds to run; see the file header.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("LOGWEIR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LOGWEIR_SEEDS").unwrap_or(SEEDS),
    }
}

/// The one record that may begin at an offset: so what is found needs no list to be compared with.
fn record_at(base: u64) -> Record {
    record(base, 1 + Random::new(base).below(6) as u64)
}

fn end_of(record: &Record) -> u64 {
    record.base + record.frames.len() as u64
}

/// What may go wrong, from little to all.
fn faults(seed: u64) -> Faults {
    let short_write = 0.3;
    match seed % 5 {
        0 => Faults::default(),
        1 => Faults { short_write, ..Faults::default() },
        2 => Faults { short_write, full: 0.05, full_for: 8, write_error: 0.01, ..Faults::default() },
        3 => Faults { short_write, sync_error: 0.03, ..Faults::default() },
        _ => Faults {
            short_write,
            full: 0.03,
            full_for: 8,
            sync_error: 0.01,
            rot: 0.02,
            flip: 0.02,
            ..Faults::default()
        },
    }
}

/// One log and what is known of it.
struct Simulation {
    fs: FaultyFs,
    random: Random,
    options: WalOptions,
    faults: Faults,
    /// Whether it happened so far.
    flipped: bool,
    sync_failed: bool,
    /// Offset up to which frames were reported as synced.
    synced: u64,
    /// Offset up to which appends succeeded.
    written: u64,
    /// Offset below which frames may have been dropped.
    dropped: u64,
    /// Only the process died.
    killed: bool,
    /// A process died while it opened the log, and could not report what it cut off.
    cut_short: bool,
}

/// How the history of a log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// Damage was reported.
    Corrupted,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random::new(seed);
        let sync = if random.chance(0.5) { SyncMode::Always } else { SyncMode::Off };
        let options = WalOptions { sync, segment_bytes: 300 + random.below(1500) as u64 };
        let fs = FaultyFs::new(random.number());
        let (faults, flipped, sync_failed) = (faults(seed), false, false);
        Simulation {
            fs,
            random,
            options,
            faults,
            flipped,
            sync_failed,
            synced: 0,
            written: 0,
            dropped: 0,
            killed: true,
            cut_short: false,
        }
    }

    fn run(&mut self) -> End {
        for _ in 0..2 + self.random.below(5) {
            self.fs.faults(|faults| *faults = self.faults.clone());
            if self.random.chance(0.7) {
                let last = 1 + self.random.below(150) as u64;
                self.fs.faults(|faults| faults.crash_at = Some(last));
            }
            let opened = self.open();
            self.count();
            match opened {
                Ok((wal, opened)) => {
                    self.check(&wal, &opened);
                    self.live(&wal);
                    self.end(wal);
                }
                Err(err) if err.kind() == Kind::Corrupted => {
                    assert!(self.flipped, "{err}");
                    return End::Corrupted;
                }
                Err(_) => {
                    let killed = self.random.chance(0.3);
                    // What an earlier power cut took does not come back.
                    self.killed &= killed;
                    self.cut_short = true;
                    self.fs = if killed { self.fs.kill() } else { self.fs.crash() };
                }
            }
        }
        // At last on a good disk.
        match self.open() {
            Ok((wal, opened)) => self.check(&wal, &opened),
            Err(err) => {
                assert!(err.kind() == Kind::Corrupted && self.flipped, "{err}");
                return End::Corrupted;
            }
        }
        End::Whole
    }

    fn open(&self) -> Result<(Wal, Opened)> {
        Wal::open_on(Arc::new(self.fs.clone()), Path::new("data/log"), self.options, &mut |_, _| Ok(()))
    }

    /// Compares what was found with what has to be there.
    fn check(&mut self, wal: &Wal, opened: &Opened) {
        let found = opened.next_offset;
        if found < self.synced {
            // The newest mark is itself not synced, so damage to what it would vouch for can look like a torn tail.
            let told = opened.truncated.is_some() || self.cut_short;
            assert!(self.flipped && told, "{} frames were synced, {opened:?}", self.synced);
        }
        // A failed sync may make the system forget what it was given.
        if self.killed && !self.flipped && !self.sync_failed {
            assert!(found >= self.written, "{} frames were written, {opened:?}", self.written);
        }
        let first = wal.segments()[0].first_offset;
        assert!(first <= self.dropped, "frames before {first} are missing, {} were dropped", self.dropped);
        let mut next = first;
        for entry in wal.read(wal.start()).expect("nothing was dropped since") {
            let record = match entry {
                Ok((_, record)) => record,
                Err(err) => {
                    self.count();
                    assert!(self.flipped || self.has_crashed(), "{err}");
                    break;
                }
            };
            assert_eq!(record, record_at(next));
            next = end_of(&record);
        }
        assert!(next == found || self.flipped || self.has_crashed());
        (self.synced, self.written, self.cut_short) = (found, found, false);
    }

    fn has_crashed(&self) -> bool {
        self.fs.faults(|faults| faults.crash_at).is_some_and(|last| self.fs.operations() >= last)
    }

    /// What a process does with the log until it has had enough or the log has.
    fn live(&mut self, wal: &Wal) {
        for _ in 0..self.random.below(60) {
            let done = match self.random.below(10) {
                0 => self.drop_before(wal),
                1 | 2 => {
                    let written = wal.next_offset();
                    wal.sync().map(|()| self.synced = written)
                }
                _ => {
                    let record = record_at(wal.next_offset());
                    wal.append(&record).map(|_| self.written = end_of(&record))
                }
            };
            if self.options.sync == SyncMode::Always {
                self.synced = self.synced.max(wal.synced());
            }
            match done {
                Ok(()) => {}
                // May be tried again.
                Err(err) if err.kind() == Kind::DiskFull => {}
                Err(_) => break,
            }
        }
        if self.random.chance(0.2) && wal.shutdown().is_ok() {
            self.synced = self.written;
        }
    }

    fn drop_before(&mut self, wal: &Wal) -> Result<()> {
        let to = self.dropped + self.random.below((self.synced.max(self.dropped) - self.dropped + 1) as usize) as u64;
        self.dropped = to;
        wal.drop_before(to).map(|_| ())
    }

    fn end(&mut self, wal: Wal) {
        self.count();
        self.killed = self.random.chance(0.4);
        self.fs = if self.killed { self.fs.kill() } else { self.fs.crash() };
        drop(wal);
    }

    /// Notes what went wrong; a disk counts from where it was made.
    fn count(&mut self) {
        let now = self.fs.injected();
        self.flipped |= now.flips > 0;
        self.sync_failed |= now.sync_errors > 0;
    }
}

#[test]
fn the_log_keeps_what_it_said_is_synced() {
    let (mut failed, mut corrupted) = (Vec::new(), 0);
    for seed in seeds() {
        match std::panic::catch_unwind(|| Simulation::new(seed).run()) {
            Ok(end) => corrupted += usize::from(end == End::Corrupted),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
    assert!(corrupted <= seeds().count() / 5, "{corrupted}");
}

#[test]
fn an_atomic_write_is_old_or_new() {
    let path = Path::new("data/state.json");
    for seed in seeds() {
        let mut random = Random::new(seed);
        let mut fs = FaultyFs::new(random.number());
        fs.create_dir_all(Path::new("data")).unwrap();
        let (mut safe, mut tried) = (None, 0u64);
        for _ in 0..4 {
            fs.faults(|faults| {
                *faults = Faults { rot: 0.0, flip: 0.0, ..super::simulation::faults(seed) };
                faults.crash_at = Some(1 + random.below(40) as u64);
            });
            for _ in 0..random.below(8) {
                tried += 1;
                // Each version says which it is, and how long it is.
                if write_atomic(&fs, path, &tried.to_string().repeat(1 + tried as usize % 50).into_bytes()).is_ok() {
                    safe = Some(tried);
                }
            }
            fs = if random.chance(0.3) { fs.kill() } else { fs.crash() };
            let found = read(&fs, path).ok().map(|bytes| String::from_utf8(bytes).expect("digits were written"));
            let is = |version: u64| found.as_deref() == Some(&version.to_string().repeat(1 + version as usize % 50));
            let whole = (safe.unwrap_or(1)..=tried).any(is) || (safe.is_none() && found.is_none());
            assert!(whole, "seed {seed}: {found:?}, {safe:?} was written, {tried} tried");
        }
    }
}

/// The file that did not fit has the number of the next segment, so the log must not go on while it may come back.
#[test]
fn a_segment_that_did_not_fit_does_not_come_back() {
    for seed in 0..200 {
        let fs = FaultyFs::new(seed);
        let options = WalOptions { sync: SyncMode::Off, segment_bytes: 700 };
        let open = |fs: &FaultyFs| Wal::open_on(Arc::new(fs.clone()), Path::new("log"), options, &mut |_, _| Ok(()));
        let (wal, _) = open(&fs).unwrap();
        wal.append(&record(0, 5)).unwrap();
        wal.sync().unwrap();
        fs.faults(|faults| faults.capacity = Some(wal.bytes() + 16));
        assert_eq!(wal.append(&record(5, 100)).unwrap_err().kind(), Kind::DiskFull);
        fs.faults(|faults| faults.capacity = None);
        assert_eq!(wal.append(&record(5, 1)).unwrap().segment, 1);
        let crashed = fs.crash();
        drop(wal);
        let (_, opened) = open(&crashed).unwrap_or_else(|err| panic!("seed {seed}: {err}"));
        assert!((5..=6).contains(&opened.next_offset));
    }
}
