//! Tests: what the engine keeps of a stream, on a disk that fails, over thousands of seeds.
//!
//! Each seed is a history of one stream: processes that open its log, archive and checkpoints as the engine does
//! ([`restore`](super::restore), [`upkeep`](super::upkeep)), append, archive, merge, make checkpoints, cut the log off,
//! and come to an end: some in order, some killed, some with the power cut at any operation, on a disk with faults of its
//! own. A view is kept too, of the simplest kind: its state is the numbers of all rows. What must hold, whenever a process
//! opens what the last one left:
//! - what was reported as synced is there, once, as row or as malformed line, in archive or log; but for what a stream
//!   without an archive has given up, from the beginning on;
//! - what the operating system had been given is there after the death of only the process;
//! - nothing else is there;
//! - the state of the view is the rows; sources go on just behind them; time has come as far as it had, and the same rows
//!   are late;
//! - opening reports damage only when a bit was flipped, and then nothing wrong is handed on.
//!
//! No sockets, SQL or queues take part, so a seed takes some milliseconds; `tests/crash/machine.rs` has the whole engine.
//!
//! A failure names its seeds: `LOGWEIR_SEED=58` runs one alone, `LOGWEIR_SEEDS=1000000` runs more of them. A seed repeats
//! what is done and what fails; where a library does several things at a time, their order may be another.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;

use super::restore::{go_on, positions_of};
use crate::batch::Shape;
use crate::error::{Kind, Result};
use crate::format;
use crate::frame::Frames;
use crate::opaque::Opaque;
use crate::position::{Position, Unit};
use crate::rollup::run::{Panes, Run};
use crate::rollup::watermark::Watermark;
use crate::storage::archive::{Archive, Sizes, Spec};
use crate::storage::checkpoint::{self, Checkpoints, Manifest, RollupState};
use crate::storage::faulty_fs::{Faults, FaultyFs, Injected, Random};
use crate::storage::fs::Fs;
use crate::storage::history::{History, pieces};
use crate::storage::hot::{Chunk, Data};
use crate::storage::keys::Keys;
use crate::storage::object;
use crate::storage::state_files::StateFiles;
use crate::storage::stream_log::{Origin, StreamLog, watch};
use crate::storage::wal::{Location, Record, SyncMode, WalOptions};
use crate::time::Micros;
use crate::view::runner::Runner;

const SEEDS: u64 = 5000;

/// Seeds at one time.
const WORKERS: usize = 2;

/// The seeds to run; see the file header.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("LOGWEIR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LOGWEIR_SEEDS").unwrap_or(SEEDS),
    }
}

const DIR: &str = "/data";
const STREAM: u32 = 1;
const KEY: &str = "numbers";

/// 2026-01-01.
const START: Micros = 1_767_225_600_000_000;
const SECOND: Micros = 1_000_000;

/// Frames are numbered by their offsets, which say all else of them.
fn is_malformed(offset: u64) -> bool {
    offset % 7 == 3
}

fn line(offset: u64) -> String {
    if is_malformed(offset) {
        return format!("no object {offset}\n");
    }
    // Days change, and some are late.
    let seconds = offset as i64 * 600 - if offset % 9 == 8 { 7000 } else { 0 };
    let member = if offset < 5 { ",\"early\":1" } else { "" };
    format!("{{\"ts\":{},\"n\":{offset}{member}}}\n", (START / SECOND + seconds))
}

/// The one record that may begin at an offset.
fn record_at(base: u64) -> Record {
    let frames = 1 + Random::new(base).below(6) as u64;
    let position =
        Position { partition: "p".into(), key: "k".into(), start: base, end: base + frames, unit: Unit::Frames };
    let text: String = (base..base + frames).map(line).collect();
    Record { base, source: 0, ingest_time: START + base as i64, position, frames: Frames::from_text(text) }
}

fn end_of(record: &Record) -> u64 {
    record.base + record.frames.len() as u64
}

fn shape() -> Arc<Shape> {
    let format = format::build("json", &[], &[]).expect("it needs no options");
    Arc::new(Shape::new(format, Vec::new(), Some("ts".into())).expect("it learns the column"))
}

fn watermark() -> Watermark {
    Watermark::new(60 * SECOND, i64::MAX / 4, i64::MAX / 4)
}

/// What must have become of the records from the beginning on, until any record: its end, the watermark behind it, and
/// how many rows were late until then.
struct Model {
    ends: Vec<(u64, Micros)>,
    late: BTreeSet<u64>,
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let (shape, mut watermark) = (shape(), watermark());
    let mut model = Model { ends: vec![(0, watermark.current())], late: BTreeSet::new() };
    let mut base = 0;
    while base < 3000 {
        let record = record_at(base);
        base = end_of(&record);
        let batch = shape.rows(&record.into()).expect("lines can be parsed");
        let offsets: Vec<u64> = batch.offsets().collect();
        let late = watch(&mut watermark, &batch, &shape);
        model.late.extend(late.iter().map(|late| offsets[late.row as usize]));
        model.ends.push((base, watermark.current()));
    }
    model
});

/// What may go wrong, from little to all. Bits flip only where checksums are ours to keep: not in Delta's log.
fn faults(seed: u64) -> Faults {
    let short_write = 0.2;
    match seed % 6 {
        0 | 1 => Faults::default(),
        2 => Faults { short_write, ..Faults::default() },
        3 => Faults { short_write, full: 0.02, full_for: 8, write_error: 0.003, ..Faults::default() },
        4 => Faults { short_write, sync_error: 0.01, ..Faults::default() },
        _ => {
            let part = [".wal", ".checkpoint", ".run"][(seed / 6 % 3) as usize];
            let (rot, flip) = (0.01, 0.01);
            Faults { short_write, full: 0.005, full_for: 8, rot, flip, flip_in: Some(part.into()), ..Faults::default() }
        }
    }
}

/// What all seeds share.
struct Around {
    runtime: Runtime,
    context: Opaque<SessionContext>,
}

static AROUND: LazyLock<Around> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    Around { runtime: runtime.expect("threads can be started"), context: Opaque::new(SessionContext::new()) }
});

/// A process that has opened the stream.
struct Process {
    checkpoints: Checkpoints,
    states: Arc<StateFiles>,
    runner: Arc<Runner>,
    /// The state of the view.
    view: Vec<Arc<Run>>,
    /// The log ended in the middle of a record.
    torn: bool,
    /// A checkpoint or state was damaged.
    damaged: bool,
    /// There is no checkpoint left: how far time had come is not known.
    forgotten: bool,
}

/// `archived`: the stream has an archive.
fn open(fs: &FaultyFs, options: WalOptions, archived: bool) -> Result<Process> {
    let (fs, dir): (Arc<dyn Fs>, _) = (Arc::new(fs.clone()), Path::new(DIR));
    let checkpoint::Opened { checkpoints, states, newest, damaged } = Checkpoints::open(Arc::clone(&fs), dir)?;
    let mut damaged = !damaged.is_empty();
    let place = object::open(&format!("{DIR}/archive"), Arc::clone(&fs))?;
    let archive = |name: &str, time: &str| {
        let sizes = Sizes { row_group_rows: 16, page_rows: 8, file_rows: 1000, merge: 2, part_bytes: 512 };
        let spec = Spec { name: name.into(), time: Some(time.into()), sizes };
        let url = url::Url::parse(&format!("archive:///{name}/")).expect("it is one");
        AROUND.runtime.block_on(Archive::open(Arc::clone(&place.store), url, spec))
    };
    let history = match archived {
        true => {
            let (rows, malformed) = (archive("s", "ts")?, archive("s__malformed", "ingest_time")?);
            Some(History::new(rows, malformed, AROUND.context.clone(), AROUND.runtime.handle().clone()))
        }
        false => None,
    };
    let saved = newest.as_ref().and_then(|manifest| manifest.streams.get(&STREAM));
    let known = saved.map(|saved| positions_of(saved, START)).unwrap_or_default();
    let logs = dir.join("streams").join(STREAM.to_string());
    // No room in memory: what is read comes from the log.
    let (log, opened, positions) = StreamLog::open(fs, &logs, options, 0, history, (known, Keys::default()))?;
    let reached = positions.get(&0).and_then(|of_source| of_source.get("k")).map_or(0, |noted| noted.position.end);
    let runner = Arc::new(Runner::new(shape(), Arc::new(log), watermark()));
    let from = go_on("s", &runner, saved, &positions)?;
    let forgotten = damaged && newest.is_none();
    // Without any checkpoint only the log knows, and what it knew may have been given up.
    let wal = runner.log.wal();
    let emptied = forgotten && wal.segments().last().is_some_and(|last| last.first_offset == wal.next_offset());
    assert!(emptied || reached == wal.next_offset(), "where the source goes on: {reached}");
    let rollup = newest.as_ref().and_then(|manifest| manifest.rollup(KEY, STREAM, None));
    let restored = |run| Ok(Arc::new(Run::restore(run, &*states, false)?));
    let view: Option<Result<Vec<Arc<Run>>>> = rollup.map(|rollup| rollup.runs.iter().map(restored).collect());
    let (view, filled) = match view {
        Some(Ok(view)) => (view, true),
        Some(Err(_)) => {
            damaged = true;
            (Vec::new(), false)
        }
        None => (Vec::new(), runner.progress().offset == 0),
    };
    let torn = opened.truncated.is_some();
    let mut process = Process { checkpoints, states, runner, view, torn, damaged, forgotten };
    let log = Arc::clone(&process.runner.log);
    let start = log.wal().start();
    for entry in log.wal().read(from.map_or(start, |from| from.max(start)))? {
        let (location, record) = entry?;
        process.take(location, record)?;
    }
    if !filled {
        let all = process.rows()?.iter().map(|(number, _)| *number).collect();
        process.view = vec![run_of(all)];
    }
    Ok(process)
}

fn run_of(numbers: Vec<i64>) -> Arc<Run> {
    let column = Arc::new(Int64Array::from(numbers)) as _;
    let batch = RecordBatch::try_from_iter([("n", column)]).expect("one column");
    Arc::new(Run::new(vec![batch], Panes::ALL))
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    let column = batch.column_by_name("n").expect("all rows have one");
    column.as_primitive::<Int64Type>().values().to_vec()
}

impl Process {
    /// Lets a record of the log become visible.
    fn take(&mut self, location: Location, record: Record) -> Result<()> {
        let origin = Origin::of(location, &record);
        let batch = self.runner.shape.rows(&record.into())?;
        let before = self.runner.progress().offset;
        self.runner.apply(&batch, &origin)?;
        if self.runner.progress().offset > before && batch.rows.num_rows() > 0 {
            self.view.push(run_of(numbers(&batch.rows)));
        }
        Ok(())
    }

    fn append(&mut self, record: Record) -> Result<()> {
        let location = self.runner.log.wal().append(&record)?;
        self.take(location, record)
    }

    /// As `Engine::checkpoint`.
    fn checkpoint(&mut self) -> Result<()> {
        let runners = [(STREAM, Arc::clone(&self.runner))];
        let (stream, _) = Runner::checkpoint(&runners, &|_| false).pop().expect("there is one stream");
        self.runner.log.wal().sync()?;
        let (mut runs, mut files) = (Vec::new(), Vec::new());
        for run in &self.view {
            let (saved, file) = run.save(&*self.states)?;
            runs.push(saved);
            files.push(file);
        }
        let rollups = vec![RollupState { key: KEY.into(), stream: STREAM, joined: None, expired: None, runs }];
        let (number, program) = (self.checkpoints.next(), "p".to_string());
        let manifest = Manifest { number, program, written: 0, streams: [(STREAM, stream)].into(), rollups };
        self.checkpoints.write(&manifest, &self.states, files)
    }

    /// As `Engine::archive`.
    fn archive(&mut self, most: u64) -> Result<()> {
        let log = &self.runner.log;
        let Some(history) = log.history() else { return Ok(()) };
        let chunks = log.ripe(most, Micros::MAX);
        if chunks.is_empty() {
            return Ok(());
        }
        log.wal().sync()?;
        let load = |chunk: Arc<Chunk>| log.load(&chunk, &self.runner.shape).map(|data| (chunk, data));
        let loaded = chunks.into_iter().map(load).collect::<Result<Vec<_>>>()?;
        let appended = AROUND.runtime.block_on(history.append(&loaded));
        log.archive_changed();
        appended.map(|_| ())
    }

    fn merge(&mut self) -> Result<()> {
        let Some(history) = self.runner.log.history() else { return Ok(()) };
        for archive in [&history.rows, &history.malformed] {
            AROUND.runtime.block_on(archive.compact())?;
        }
        self.runner.log.archive_changed();
        Ok(())
    }

    /// As `Engine::cut_log`.
    fn cut(&mut self) -> Result<()> {
        if self.runner.log.history().is_none() {
            return self.give_up();
        }
        let archived = self.runner.log.archived().map_or(0, |archived| archived.end());
        let passed = self.checkpoints.passed(STREAM).min(archived);
        self.runner.log.wal().drop_before(passed).map(|_| ())
    }

    /// As `Engine::retain` for a stream without an archive, when all is old.
    fn give_up(&mut self) -> Result<()> {
        let passed = self.checkpoints.passed(STREAM);
        self.runner.log.give_up(passed, |_, _| true, None).map(|_| ())
    }

    /// Makes one run of those that the view has.
    fn merge_view(&mut self) -> Result<()> {
        let batches = self.view.iter().map(|run| run.block(0)).collect::<Result<Vec<_>>>()?;
        let Some(first) = batches.first() else { return Ok(()) };
        let all = concat_batches(&first.schema(), &batches)?;
        self.view = vec![run_of(numbers(&all))];
        Ok(())
    }

    fn load(&self, chunk: &Arc<Chunk>) -> Result<Arc<Data>> {
        self.runner.log.load(chunk, &self.runner.shape)
    }

    /// The number of each row, and whether it was late.
    fn rows(&self) -> Result<Vec<(i64, bool)>> {
        let mut rows = Vec::new();
        for chunk in self.runner.log.chunks() {
            for (_, batch, late) in self.load(&chunk)?.batches() {
                let late: BTreeSet<u32> = late.iter().map(|late| late.row).collect();
                rows.extend(numbers(batch).into_iter().enumerate().map(|(i, n)| (n, late.contains(&(i as u32)))));
            }
        }
        Ok(rows)
    }

    /// The offset of each malformed line.
    fn malformed(&self) -> Result<Vec<i64>> {
        let (archived, chunks) = self.runner.log.snapshot();
        let end = archived.as_ref().map_or(0, |archived| archived.malformed.end);
        let archived = archived.map_or_else(Vec::new, |archived| pieces(&archived.malformed));
        let behind = chunks.into_iter().filter(|chunk| chunk.base >= end);
        let mut offsets = Vec::new();
        for chunk in archived.into_iter().chain(behind) {
            for batch in &self.load(&chunk)?.malformed {
                let column = batch.column_by_name("offset").expect("malformed lines have it");
                offsets.extend(column.as_primitive::<Int64Type>().values());
            }
        }
        Ok(offsets)
    }
}

/// One stream and what is known of it.
struct Simulation {
    fs: FaultyFs,
    random: Random,
    options: WalOptions,
    /// It has an archive. Most have not: that is where the time goes.
    archived: bool,
    faults: Faults,
    /// Whether it happened so far.
    flipped: bool,
    sync_failed: bool,
    /// Offset up to which frames were reported as synced, and up to which they were given to the operating system.
    synced: u64,
    written: u64,
    /// Only the process died.
    killed: bool,
    /// A process died while it opened the stream, and could not report what it cut off.
    cut_short: bool,
    figures: Figures,
}

/// How often what was done.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    processes: u64,
    checkpoints: u64,
    appends: u64,
    merges: u64,
    cuts: u64,
    corrupted: u64,
    refilled: u64,
}

impl Figures {
    fn add(&mut self, other: Figures) {
        self.processes += other.processes;
        self.checkpoints += other.checkpoints;
        self.appends += other.appends;
        self.merges += other.merges;
        self.cuts += other.cuts;
        self.corrupted += other.corrupted;
        self.refilled += other.refilled;
    }
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random::new(seed);
        let sync = if random.chance(0.5) { SyncMode::Always } else { SyncMode::Off };
        let options = WalOptions { sync, segment_bytes: 300 + random.below(1500) as u64 };
        Simulation {
            fs: FaultyFs::new(random.number()),
            archived: random.chance(0.25),
            random,
            options,
            faults: faults(seed),
            flipped: false,
            sync_failed: false,
            synced: 0,
            written: 0,
            killed: true,
            cut_short: false,
            figures: Figures::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..2 + self.random.below(3) {
            self.fs.faults(|faults| *faults = self.faults.clone());
            if self.random.chance(0.7) {
                // Early ones hit the start, late ones what comes after.
                let most = 64 << self.random.below(6);
                let last = 1 + self.random.below(most) as u64;
                self.fs.faults(|faults| faults.crash_at = Some(last));
            }
            let ended = self.life();
            let opened = ended.is_ok();
            self.count();
            match &ended {
                Ok(_) => {}
                Err(err) if err.kind() == Kind::Corrupted && !self.has_crashed() => {
                    assert!(self.flipped, "{err:?}");
                    self.figures.corrupted += 1;
                    return;
                }
                Err(err) => assert!(self.is_excused(), "{err:?}"),
            }
            let killed = self.random.chance(0.4);
            // What an earlier power cut took does not come back.
            self.killed = killed && (opened || self.killed);
            self.cut_short |= !opened;
            // The process has no time to put anything in order.
            self.fs = if killed { self.fs.kill() } else { self.fs.crash() };
            drop(ended);
        }
        // At last on a good disk, and again.
        for _ in 0..2 {
            match self.open_and_check() {
                Ok(_) => self.fs = self.fs.crash(),
                Err(err) => {
                    assert!(err.kind() == Kind::Corrupted && self.flipped, "{err:?}");
                    self.figures.corrupted += 1;
                    return;
                }
            }
        }
    }

    fn open_and_check(&mut self) -> Result<Process> {
        let process = open(&self.fs, self.options, self.archived)?;
        self.figures.processes += 1;
        self.count();
        self.check(&process)?;
        // Opening has made all of it durable.
        let found = process.runner.log.wal().next_offset();
        (self.synced, self.written, self.cut_short) = (found, found, false);
        Ok(process)
    }

    /// A process, from its start to what ends it. An error: it did not get to see what was there.
    fn life(&mut self) -> Result<Process> {
        let mut process = self.open_and_check()?;
        for _ in 0..self.random.below(40) {
            let archived = |process: &Process| process.runner.log.archived().map_or(0, |archived| archived.end());
            let done = match self.random.below(20) {
                0 | 1 => process.checkpoint().map(|()| {
                    self.figures.checkpoints += 1;
                    self.synced = self.written;
                }),
                2 | 3 => {
                    let (before, most) = (archived(&process), 1 << self.random.below(12));
                    let done = process.archive(most);
                    self.figures.appends += u64::from(archived(&process) > before);
                    done
                }
                4 => process.merge().map(|()| self.figures.merges += 1),
                5 => {
                    let before = process.runner.log.wal().start();
                    let done = process.cut();
                    self.figures.cuts += u64::from(process.runner.log.wal().start() > before);
                    done
                }
                6 => process.merge_view(),
                7 => self.check(&process),
                8 => process.runner.log.wal().sync().map(|()| self.synced = self.written),
                _ => {
                    let record = record_at(process.runner.log.wal().next_offset());
                    let end = end_of(&record);
                    process.append(record).map(|()| self.written = end)
                }
            };
            if self.options.sync == SyncMode::Always {
                self.synced = self.synced.max(process.runner.log.wal().synced());
            }
            match done {
                Ok(()) => {}
                // May be tried again.
                Err(err) if err.kind() == Kind::DiskFull => assert!(self.is_excused(), "{err:?}"),
                Err(err) if err.kind() == Kind::Corrupted && !self.has_crashed() => {
                    self.count();
                    assert!(self.flipped, "{err:?}");
                    return Ok(process);
                }
                Err(err) => {
                    assert!(self.is_excused(), "{err:?}");
                    return Ok(process);
                }
            }
        }
        if self.random.chance(0.2) && process.runner.log.wal().shutdown().is_ok() {
            self.synced = self.written;
            if process.checkpoint().is_ok() {
                self.figures.checkpoints += 1;
            }
        }
        Ok(process)
    }

    /// Compares what a process has with what has to be there.
    fn check(&mut self, process: &Process) -> Result<()> {
        let (rows, malformed) = (process.rows()?, process.malformed()?);
        let mut view = Vec::new();
        for run in &process.view {
            view.extend(numbers(&run.block(0)?));
        }
        let progress = process.runner.progress();
        let found = process.runner.log.wal().next_offset();
        if found < self.synced {
            // As in the simulation of the log alone: damage can look like a torn tail.
            assert!(
                self.flipped && (process.torn || self.cut_short),
                "{} frames were synced, {found} are there",
                self.synced
            );
        }
        if self.killed && !self.flipped && !self.sync_failed {
            assert!(found >= self.written, "{} frames were written, {found} are there", self.written);
        }
        if process.damaged {
            self.figures.refilled += 1;
            assert!(self.flipped || self.sync_failed, "a checkpoint was damaged");
        }
        assert_eq!(progress.offset, found, "all that is in the log is visible");
        let oldest = process.runner.log.wal().segments().first().map_or(0, |segment| segment.first_offset);
        let first = if self.archived { 0 } else { oldest };
        let of = |malformed: bool, offsets: std::ops::Range<u64>| {
            offsets.filter(move |offset| is_malformed(*offset) == malformed).map(|offset| offset as i64)
        };
        let mut numbers: Vec<i64> = rows.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert!(of(false, first..found).eq(numbers.iter().copied()), "rows from {first}: {numbers:?}");
        view.sort_unstable();
        // It keeps what the stream has given up, unless it had to be filled again since.
        let begun = view.first().map_or(first, |row| (*row as u64).min(first));
        assert!(of(false, begun..found).eq(view.iter().copied()), "the view from {begun}: {view:?}");
        let mut bad = malformed;
        bad.sort_unstable();
        assert!(of(true, first..found).eq(bad.iter().copied()), "malformed from {first}: {bad:?}");
        if process.forgotten {
            return Ok(());
        }
        let counts = [false, true].map(|malformed| of(malformed, 0..found).count() as u64);
        assert_eq!([progress.rows, progress.malformed], counts, "counts");
        let late: BTreeSet<u64> = rows.iter().filter(|(_, late)| *late).map(|(number, _)| *number as u64).collect();
        assert!(MODEL.late.range(first..found).eq(late.iter()), "late rows: {late:?}");
        let (_, watermark) = MODEL.ends[MODEL.ends.partition_point(|(end, _)| *end < found)];
        assert_eq!(process.runner.watermark(), watermark, "how far time has come at offset {found}");
        Ok(())
    }

    fn has_crashed(&self) -> bool {
        self.fs.faults(|faults| faults.crash_at).is_some_and(|last| self.fs.operations() >= last)
    }

    /// Whether anything went wrong on this disk that an error may come from.
    fn is_excused(&self) -> bool {
        let Injected { write_errors, full, sync_errors, read_errors, flips, .. } = self.fs.injected();
        self.has_crashed() || write_errors + full + sync_errors + read_errors + flips > 0
    }

    /// Notes what went wrong; a disk counts from where it was made.
    fn count(&mut self) {
        let now = self.fs.injected();
        self.flipped |= now.flips > 0;
        self.sync_failed |= now.sync_errors > 0;
    }
}

#[test]
fn a_stream_is_whole_whatever_ends_its_processes() {
    let (seeds, begun) = (seeds(), std::time::Instant::now());
    let (next, count) = (AtomicU64::new(seeds.start), seeds.end - seeds.start);
    let (failed, figures) = (Mutex::new(Vec::new()), Mutex::new(Figures::default()));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        if seed >= seeds.end {
            return;
        }
        let mut simulation = Simulation::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.run()));
        figures.lock().expect("no panic holds it").add(simulation.figures);
        if ran.is_err() {
            failed.lock().expect("no panic holds it").push(seed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    let (failed, figures) = (failed.into_inner().expect("no panic holds it"), figures.into_inner().expect("nor this"));
    // Written past the test runner's capture, so that it is seen when all is well.
    let line = format!("simulation: {count} seeds in {:.0} s: {figures:?}\n", begun.elapsed().as_secs_f64());
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    assert!(failed.is_empty(), "seeds {failed:?}");
    if count >= SEEDS {
        assert!(
            figures.cuts > 0 && figures.merges > 0 && figures.appends > 0 && figures.checkpoints > 0,
            "{figures:?}"
        );
        assert!(figures.corrupted <= count / 5, "{figures:?}");
    }
}
