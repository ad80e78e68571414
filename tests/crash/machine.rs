//! The whole engine on a disk that fails. Each seed is a history of one machine: processes that take in lines, acknowledge
//! them, archive, merge, make checkpoints, and end in order, by a kill, or with the power cut at any operation.
//!
//! A line's file is deleted as soon as FLUSH has acknowledged it, so what the engine then loses is lost and seen. The logs,
//! the lock and what queries spill are on the real disk; everything that is to outlive a process is on the simulated one.
//!
//! Threads take turns at the disk as they like, so a seed repeats what is done and how often what fails, not the very
//! operation. What has to be repeated to the letter is in `src/engine/simulation.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use logweir::config::Config;
use logweir::engine::Engine;
use logweir::error::{Error, Kind, Result};
use logweir::mutation::lower_limits;
use logweir::sql::{self, Session};
use logweir::storage::faulty_fs::{Faults, FaultyFs, Injected, Random};
use logweir::time::{Clock, MICROS_PER_SECOND};
use tempfile::TempDir;

use super::logs::{Log, is_malformed};
use super::{Named, number, tell};
use crate::compare::{Tolerance, difference};
use crate::lines;
use crate::local::{self, Gone, compute};
use crate::oracle::cells;
use crate::server::Row;

/// In an ordinary run.
const SEEDS: u64 = 120;

/// Chunks of the log are this small here.
const LIMIT: usize = 400;

/// Reaching it means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_machine_goes_on_whatever_happens_to_it() {
    let _turn = local::turn();
    local::collect_logs();
    lower_limits(Some(LIMIT));
    let seeds = match number("LOGWEIR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LOGWEIR_SEEDS").unwrap_or(SEEDS),
    };
    let (begun, mut total) = (Instant::now(), BTreeMap::new());
    for seed in seeds.clone() {
        let _named = Named(seed);
        let mut machine = Machine::new(seed);
        machine.run();
        machine.did.into_iter().for_each(|(what, times)| *total.entry(what).or_insert(0) += times);
        local::take_logged();
    }
    lower_limits(None);
    tell(&format!("machine: {} seeds in {:.0} s: {total:?}", seeds.end - seeds.start, begun.elapsed().as_secs_f64()));
    if seeds.end - seeds.start >= SEEDS {
        for what in ["checkpoint", "archive", "merge", "cut", "flush", "kill", "power cut", "end in order"] {
            assert!(total.contains_key(what), "never: {what}");
        }
    }
}

/// Whoever starts on a full disk answers; sources wait, and a window that would close by time alone waits as well.
#[test]
fn a_full_disk_keeps_no_server_from_starting() {
    let _turn = local::turn();
    local::collect_logs();
    let home = tempfile::tempdir_in(local::in_memory()).expect("a temporary directory can be made");
    let (fs, clock) = (FaultyFs::new(1), Clock::manual(lines::START * MICROS_PER_SECOND));
    let open = || {
        let config = Config { data_dir: Some(home.path().join("data")), ..Config::default() };
        let opening = sql::open_on(Arc::new(fs.clone()), config, clock.clone());
        let opening = compute().spawn(async move { tokio::time::timeout(PATIENCE, opening).await });
        let opened = block_on(opening).expect("opening does not panic");
        Opened { engine: opened.expect("it does not hang").unwrap_or_else(|err| panic!("{err:#?}")) }
    };
    let stop = |opened: Opened| {
        let engine = opened.engine;
        block_on(compute().spawn(async move { engine.shutdown().await })).expect("stopping does not panic");
    };
    let log = home.path().join("a.log");
    lines::append(&log, Log::Renamed.line(1));
    let opened = open();
    let path = log.display();
    opened
        .run(&format!(
            "CREATE TABLE s WITH (connector = 'file', path = '{path}', idle_timeout = '1 second') FORMAT COMBINED"
        ))
        .expect("there is room");
    let view = "SELECT window_start, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY 1";
    opened.run(&format!("CREATE MATERIALIZED VIEW v AS {view} EMIT ON WINDOW CLOSE")).expect("there is room");
    opened.run("FLUSH").expect("there is room");
    stop(opened);

    fs.faults(|faults| faults.capacity = Some(0));
    lines::append(&log, Log::Renamed.line(2));
    clock.set(clock.now() + 3600 * MICROS_PER_SECOND);
    let opened = open();
    let count = |opened: &Opened, of: &str| opened.rows(&format!("SELECT * FROM {of}")).expect("reads go on").len();
    assert_eq!((count(&opened, "s"), count(&opened, "v")), (1, 0));
    fs.faults(|faults| faults.capacity = None);
    let begun = Instant::now();
    while count(&opened, "v") == 0 {
        assert!(begun.elapsed() < PATIENCE, "it does not go on: {}", logged());
        std::thread::sleep(Duration::from_millis(20));
    }
    stop(opened);
    local::take_logged();
}

/// What may go wrong, from little to all. Bits flip only where checksums are ours: Delta's log has none.
fn faults(seed: u64) -> Faults {
    let short_write = 0.2;
    match seed % 6 {
        0 | 1 => Faults::default(),
        2 => Faults { short_write, ..Faults::default() },
        3 => Faults { short_write, full: 0.01, full_for: 8, write_error: 0.002, ..Faults::default() },
        4 => Faults { short_write, sync_error: 0.005, ..Faults::default() },
        _ => {
            let part = [".wal", ".checkpoint", ".run", "catalog.json"][(seed / 6 % 4) as usize];
            Faults { short_write, rot: 0.005, flip: 0.005, flip_in: Some(part.into()), ..Faults::default() }
        }
    }
}

struct Machine {
    home: TempDir,
    fs: FaultyFs,
    random: Random,
    faults: Faults,
    log: Log,
    sync: &'static str,
    /// There is a second stream of the same lines, and a view that joins both.
    joins: bool,
    /// Lines that were written to files, and those that were acknowledged.
    pushed: u64,
    acknowledged: u64,
    /// Files with lines that were not.
    files: Vec<PathBuf>,
    flipped: bool,
    did: BTreeMap<&'static str, u64>,
}

/// Why a history does not go on.
struct Refused;

impl Machine {
    fn new(seed: u64) -> Machine {
        let mut random = Random::new(seed);
        let home = tempfile::tempdir_in(local::in_memory()).expect("a temporary directory can be made");
        std::fs::create_dir(home.path().join("logs")).expect("the directory is new");
        let log = if random.chance(0.5) { Log::Copied } else { Log::Renamed };
        let sync = ["always", "off", "1ms"][random.below(3)];
        let joins = random.chance(0.3);
        let fs = FaultyFs::new(random.number());
        Machine {
            home,
            fs,
            random,
            faults: faults(seed),
            log,
            sync,
            joins,
            pushed: 0,
            acknowledged: 0,
            files: Vec::new(),
            flipped: false,
            did: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        for _ in 0..2 + self.random.below(3) {
            self.fs.faults(|faults| *faults = self.faults.clone());
            if self.random.chance(0.7) {
                let most = 128 << self.random.below(6);
                let last = 1 + self.random.below(most) as u64;
                self.fs.faults(|faults| faults.crash_at = Some(last));
            }
            if self.life().is_err() {
                return;
            }
        }
        // At last on a good disk: twice, as the first may have had to mend something.
        for _ in 0..2 {
            match self.open() {
                Ok(engine) => {
                    let opened = Opened { engine };
                    let done = self.finish(&opened);
                    done.unwrap_or_else(|err| panic!("on a good disk: {err:#?}\n{}", logged()));
                    self.stop(opened);
                    self.fs = self.fs.crash();
                }
                Err(err) => return self.refused(&err),
            }
        }
    }

    /// A process from its start to its end.
    fn life(&mut self) -> std::result::Result<(), Refused> {
        self.note("process");
        match self.open() {
            Ok(engine) => {
                let opened = Opened { engine };
                if let Err(err) = self.work(&opened) {
                    self.excuse(&err);
                }
                if self.random.chance(0.2) {
                    self.note("end in order");
                    self.stop(opened);
                    self.end();
                } else {
                    // The disk is gone before the process notices.
                    self.end();
                    self.stop(opened);
                }
            }
            Err(err) if err.kind() == Kind::Corrupted && !self.has_crashed() => {
                self.refused(&err);
                return Err(Refused);
            }
            Err(err) => {
                self.excuse(&err);
                self.end();
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.count();
        let killed = self.random.chance(0.4);
        self.note(if killed { "kill" } else { "power cut" });
        self.fs = if killed { self.fs.kill() } else { self.fs.crash() };
    }

    fn refused(&mut self, err: &Error) {
        self.count();
        assert!(err.kind() == Kind::Corrupted && self.flipped, "{err:#?}\n{}", logged());
        self.note("refused");
    }

    /// An error has to have a reason.
    fn excuse(&mut self, err: &Error) {
        let Injected { write_errors, full, sync_errors, flips, .. } = self.fs.injected();
        let excused = self.has_crashed() || write_errors + full + sync_errors + flips > 0;
        assert!(excused, "{err:#?}\n{}", logged());
        self.note("failure");
    }

    fn has_crashed(&self) -> bool {
        self.fs.faults(|faults| faults.crash_at).is_some_and(|last| self.fs.operations() >= last)
    }

    fn count(&mut self) {
        self.flipped |= self.fs.injected().flips > 0;
    }

    fn note(&mut self, what: &'static str) {
        *self.did.entry(what).or_insert(0) += 1;
    }

    fn open(&self) -> Result<Arc<Engine>> {
        let config = Config {
            data_dir: Some(self.home.path().join("data")),
            cores: 1,
            checkpoint_interval: Duration::from_secs(3600),
            ..Config::default()
        };
        let clock = Clock::manual(lines::START * MICROS_PER_SECOND);
        block_on(compute().spawn(sql::open_on(Arc::new(self.fs.clone()), config, clock)))?
    }

    /// Lets an engine end, and waits until nobody holds on to it.
    fn stop(&self, opened: Opened) {
        let gone = Gone::of(&opened.engine);
        let engine = opened.engine;
        block_on(compute().spawn(async move { engine.shutdown().await })).expect("stopping does not panic");
        gone.wait();
    }

    fn work(&mut self, opened: &Opened) -> Result<()> {
        for name in self.streams() {
            if opened.engine.stream(name).is_none() {
                self.push(40);
                opened.run(&self.create(name))?;
            }
        }
        for (name, query) in self.views() {
            if opened.engine.view(name).is_none() {
                // Columns may have to be learned first.
                self.flush(opened)?;
                opened.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"))?;
            }
        }
        self.check(opened)?;
        for _ in 0..self.random.below(16) {
            let done = self.step(opened);
            match done {
                Err(err) if err.kind() == Kind::DiskFull => self.excuse(&err),
                done => done?,
            }
        }
        Ok(())
    }

    fn step(&mut self, opened: &Opened) -> Result<()> {
        let engine = &opened.engine;
        match self.random.below(10) {
            0..3 => {
                let lines = 1 + self.random.below(60) as u64;
                self.push(lines);
            }
            3 | 4 => self.flush(opened)?,
            5 | 6 => {
                engine.checkpoint()?;
                self.note("checkpoint");
            }
            7 => {
                // Now and then so many small ones that they are merged.
                for _ in 0..if self.random.chance(0.2) { 9 } else { 1 } {
                    self.push(5);
                    self.flush(opened)?;
                    let archiving = Arc::clone(engine);
                    block_on(compute().spawn(async move { archiving.archive_all().await }))??;
                    self.note("archive");
                }
            }
            8 => {
                let Some(stream) = engine.stream("s") else { return Ok(()) };
                let merging = block_on(compute().spawn(async move {
                    let history = stream.runner.log.history().expect("it has an archive");
                    let merged = history.rows.compact().await? | history.malformed.compact().await?;
                    stream.runner.log.archive_changed();
                    Ok::<_, Error>(merged)
                }))?;
                if merging? {
                    self.note("merge");
                }
            }
            _ => {
                let segment = || engine.stream("s").map(|stream| stream.runner.log.wal().start());
                let before = segment();
                engine.cut_logs();
                if segment() > before {
                    self.note("cut");
                }
                self.check(opened)?;
            }
        }
        Ok(())
    }

    /// Writes lines to a file of their own.
    fn push(&mut self, count: u64) {
        let path = self.home.path().join("logs").join(format!("{:08}.log", self.pushed));
        let text: String = (self.pushed..self.pushed + count).map(|number| self.log.line(number)).collect();
        // With its name it has all its lines.
        let hidden = path.with_extension("new");
        lines::append(&hidden, text);
        std::fs::rename(hidden, &path).expect("both names are in one directory");
        self.pushed += count;
        self.files.push(path);
    }

    /// What FLUSH acknowledges can be deleted where it came from.
    fn flush(&mut self, opened: &Opened) -> Result<()> {
        opened.run("FLUSH")?;
        self.note("flush");
        self.acknowledged = self.pushed;
        for file in self.files.drain(..) {
            std::fs::remove_file(file).expect("it is there");
        }
        Ok(())
    }

    fn streams(&self) -> &'static [&'static str] {
        if self.joins { &["s", "t"] } else { &["s"] }
    }

    fn create(&self, name: &str) -> String {
        let format = if self.log == Log::Copied { "JSON" } else { "COMBINED" };
        // Should its statement get lost with a catalog, it is made anew, which an archive of its name forbids.
        let archive = if name == "t" { ", archive = 'off'" } else { "" };
        format!(
            "CREATE TABLE {name} (*, WATERMARK FOR ts AS ts - INTERVAL '1 minute')
             WITH (connector = 'file', path = '{}/logs/*.log', wal_sync = '{}', wal_segment_bytes = '2 KiB',
                   hot_bytes = '8 KiB', archive_interval = '1 hour', idle_timeout = '1 hour'{archive}) FORMAT {format}",
            self.home.path().display(),
            self.sync
        )
    }

    fn views(&self) -> Vec<(&'static str, String)> {
        let number = self.log.number_column();
        let sums = format!("count(*) AS n, sum({number}) AS numbers, min({number}) AS first, max({number}) AS last");
        let minutes =
            format!("SELECT window_start, window_end, {sums} FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY 1, 2");
        let clients = format!("SELECT client, {sums} FROM s GROUP BY client");
        let both = format!(
            "SELECT s.client, count(*) AS n, sum(s.{number}) AS numbers, count(t.{number}) AS found, sum(t.{number}) AS matched
             FROM s LEFT JOIN t ON s.{number} = t.{number} AND t.{number} % 5 <> 0
             AND t.ts BETWEEN s.ts - INTERVAL '1 second' AND s.ts + INTERVAL '1 second' GROUP BY 1"
        );
        let joined = self.joins.then_some(("pairs", both));
        [("minutes", minutes), ("clients", clients)].into_iter().chain(joined).collect()
    }

    /// On a good disk everything comes through.
    fn finish(&mut self, opened: &Opened) -> Result<()> {
        self.check(opened)?;
        if opened.engine.stream("s").is_none() {
            opened.run(&self.create("s"))?;
        }
        self.flush(opened)?;
        self.check(opened)
    }

    /// What was acknowledged is there once, the rest at most once; and views are what they have to be.
    fn check(&mut self, opened: &Opened) -> Result<()> {
        if opened.engine.stream("s").is_none() {
            assert!(self.acknowledged == 0, "the stream is gone\n{}", logged());
            return Ok(());
        }
        let column = self.log.number_column();
        if opened.engine.stream("s").is_some_and(|s| s.runner.shape.schema().field_with_name(column).is_err()) {
            assert!(self.acknowledged == 0, "what was learned is gone\n{}", logged());
            return Ok(());
        }
        let mut found = Vec::new();
        for (sql, malformed) in [
            (format!("SELECT {column} FROM s"), false),
            ("SELECT CAST(substr(raw, 18) AS bigint) FROM s__malformed".to_string(), true),
        ] {
            let numbers = opened.rows(&sql)?;
            let numbers = numbers.iter().map(|row| row[0].as_deref().and_then(|text| text.parse::<u64>().ok()));
            found.extend(numbers.map(|number| (number.expect("each line has one"), malformed)));
        }
        found.sort_unstable();
        // After a flipped bit in its last part the log may have been cut, which is told; the files are gone by now.
        let told = || local::logged_any("the log ended in the middle of a record");
        let lost: Vec<u64> =
            (0..self.acknowledged).filter(|n| found.binary_search(&(*n, is_malformed(*n))).is_err()).collect();
        assert!(lost.is_empty() || (self.flipped && told()), "lost: {lost:?}\n{}", logged());
        let twice: Vec<u64> = found.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[0].0).collect();
        assert!(twice.is_empty(), "twice: {twice:?}\n{}", logged());
        let wrong: Vec<_> =
            found.iter().filter(|(n, malformed)| *n >= self.pushed || is_malformed(*n) != *malformed).collect();
        assert!(wrong.is_empty(), "wrong: {wrong:?}\n{}", logged());
        if !lost.is_empty() {
            // It was said; what matters from now on is that nothing else is lost.
            self.note("lost and told");
        }
        for (name, query) in self.views() {
            if opened.engine.view(name).is_none() {
                continue;
            }
            // Rows may come between the two.
            for attempt in 0.. {
                let (view, batch) = (opened.rows(&format!("SELECT * FROM {name}"))?, opened.rows(&query)?);
                match difference(view, batch, &[Tolerance::None]) {
                    Some(_) if attempt < 20 => std::thread::sleep(Duration::from_millis(5)),
                    Some(text) => panic!("{name} is not its query run as a batch\n{text}\n{}", logged()),
                    None => break,
                }
            }
        }
        Ok(())
    }
}

fn logged() -> String {
    format!("logged:\n{}", local::take_logged().join("\n"))
}

/// An engine that runs.
struct Opened {
    engine: Arc<Engine>,
}

impl Opened {
    fn answer(&self, sql: &str) -> Result<Option<local::Answer>> {
        let (session, sql) = (Session::new(Arc::clone(&self.engine)), sql.to_string());
        block_on(compute().spawn(async move {
            let done = tokio::time::timeout(PATIENCE, local::query(&session, &sql)).await;
            done.unwrap_or_else(|_| panic!("it hangs: {sql}"))
        }))?
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.answer(sql).map(drop)
    }

    fn rows(&self, sql: &str) -> Result<Vec<Row>> {
        Ok(self.answer(sql)?.map_or_else(Vec::new, |answer| cells(&answer.batches)))
    }
}
