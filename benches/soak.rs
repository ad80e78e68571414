//! Half an hour at a steady rate, with everything on: rotation, checkpoints, archive, merging, retention and ten views. Does
//! anything grow? One row of figures a minute, of the real program as the system sees it.
//!
//! ```text
//!     LOGWEIR_SOAK_MINUTES=30 LOGWEIR_SOAK_RATE=20000 cargo bench --bench soak
//! ```
//!
//! Two logs share the rate. `live` is dated now; its views keep five minutes of windows. `past` begins in 2020 and goes through
//! a day in each minute, so that days fill, are merged and, as the archive may take 64 MiB, are dropped. At the end all lines
//! are accounted for.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::Utc;
use logweir::generate::Access;

mod server;
use server::Server;

/// Lines are written so often.
const BEAT: Duration = Duration::from_millis(50);

/// Of logs that were renamed so many stay.
const OLD_LOGS: usize = 2;

/// Nine views over the log of now: of few groups and of many, of windows that follow each other and that overlap.
const VIEWS: &[&str] = &[
    "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(live, ts, INTERVAL '10 seconds') GROUP BY 1, 2",
    "SELECT window_start, window_end, path, count(*) AS n FROM TUMBLE(live, ts, INTERVAL '1 minute') GROUP BY 1, 2, 3",
    "SELECT window_start, window_end, client, count(*) AS n, sum(bytes) AS bytes FROM TUMBLE(live, ts, INTERVAL '1 minute') GROUP BY 1, 2, 3",
    "SELECT window_start, window_end, status, count(*) AS n FROM HOP(live, ts, INTERVAL '10 seconds', INTERVAL '1 minute') GROUP BY 1, 2, 3",
    "SELECT window_start, window_end, path, avg(bytes) AS bytes FROM HOP(live, ts, INTERVAL '10 seconds', INTERVAL '2 minutes') GROUP BY 1, 2, 3",
    "SELECT window_start, window_end, count(DISTINCT client) AS clients FROM TUMBLE(live, ts, INTERVAL '1 minute') GROUP BY 1, 2",
    "SELECT window_start, window_end, referer, count(*) AS n FROM TUMBLE(live, ts, INTERVAL '1 minute') GROUP BY 1, 2, 3",
    "SELECT window_start, window_end, approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY bytes) AS p99 FROM TUMBLE(live, ts, INTERVAL '1 minute') GROUP BY 1, 2",
    "SELECT window_start, window_end, method, count(*) FILTER (WHERE status >= 500) AS errors FROM CUMULATE(live, ts, INTERVAL '1 minute', INTERVAL '5 minutes') GROUP BY 1, 2, 3",
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() {
    let (minutes, rate) = (setting("LOGWEIR_SOAK_MINUTES", 30), setting("LOGWEIR_SOAK_RATE", 20_000));
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let data = scratch.path().join("data");
    let server = Server::start(&data, &[]);
    let (mut live, mut past) = (Log::new(scratch.path(), "live"), Log::new(scratch.path(), "past"));
    server.run(&live.create("archive_interval = '10 seconds'"));
    // Rows of a day are spread over a minute: what is given to the archive at once is of a few hours.
    server.run(&past.create("archive_interval = '5 seconds', retention_bytes = '64 MiB'"));
    for (number, query) in VIEWS.iter().enumerate() {
        server.run(&format!("CREATE MATERIALIZED VIEW live_{number} WITH (retention = '5 minutes') AS {query}"));
    }
    server.run(
        "CREATE MATERIALIZED VIEW past_days AS
         SELECT window_start, window_end, status, count(*) AS n FROM TUMBLE(past, ts, INTERVAL '1 day') GROUP BY 1, 2, 3",
    );
    println!(
        "minute |     lines | memory MB | open files | log MB | archive MB | archive files | views MB | state files | processors"
    );
    let begun = Instant::now();
    let (mut written, mut used) = (0, server.processor_time());
    for minute in 1..=minutes {
        while begun.elapsed() < Duration::from_secs(minute * 60) {
            let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
            let each = due.saturating_sub(written) / 2;
            let now = Utc::now().timestamp_micros();
            live.write(each, |_| now);
            // 2020-01-01, and a day for each minute.
            let day = |line: u64| 1_577_836_800_000_000 + (line as f64 / (rate as f64 * 30.0) * 86_400e6) as i64;
            past.write(each, day);
            written += each * 2;
            std::thread::sleep(BEAT);
        }
        live.rotate();
        past.rotate();
        let sum = |column: &str| server.number(&format!("SELECT sum({column}) FROM logweir.streams"));
        let of_views = server.number("SELECT sum(state_bytes + disk_bytes) FROM logweir.views");
        let processors = server.processor_time() - used;
        used += processors;
        println!(
            "{minute:6} | {written:9} | {:9} | {:10} | {:6} | {:10} | {:13} | {:8} | {:11} | {:10.2}",
            server.memory() >> 20,
            server.open_files(),
            sum("wal_bytes") >> 20,
            sum("archive_bytes") >> 20,
            sum("archive_files"),
            of_views >> 20,
            std::fs::read_dir(data.join("state")).map_or(0, Iterator::count),
            processors / 60.0,
        );
    }
    server.run("FLUSH");
    let (live, past) = (live.lines as i64, past.lines as i64);
    let rows = |stream: &str| server.number(&format!("SELECT count(*) FROM {stream}"));
    assert_eq!(rows("live"), live, "every line is a row once");
    assert_eq!(server.number("SELECT sum(n)::bigint FROM past_days"), past, "every line was counted once");
    let dropped = past - rows("past");
    println!(
        "{live} lines of now: all there, once; {past} of the past: {dropped} dropped with their days, counted all the same"
    );
    server.end(libc::SIGTERM);
}

/// A log as a program writes it, renamed once a minute.
struct Log {
    folder: PathBuf,
    name: &'static str,
    file: File,
    access: Access,
    lines: u64,
    rotations: usize,
}

impl Log {
    fn new(folder: &Path, name: &'static str) -> Log {
        let file = Log::open(folder, name);
        Log { folder: folder.to_path_buf(), name, file, access: Access::new(7), lines: 0, rotations: 0 }
    }

    fn open(folder: &Path, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log"))).expect("a log")
    }

    fn create(&self, options: &str) -> String {
        let Log { folder, name, .. } = self;
        let path = folder.join(format!("{name}.log*"));
        format!("CREATE TABLE {name} WITH (connector = 'file', path = '{}', {options}) FORMAT COMBINED", path.display())
    }

    /// Appends lines; `time` says the time of each by its number.
    fn write(&mut self, count: u64, time: impl Fn(u64) -> i64) {
        let mut text = Vec::new();
        for line in self.lines..self.lines + count {
            self.access.line(time(line), &mut text);
        }
        self.file.write_all(&text).expect("room for a log");
        self.lines += count;
    }

    fn rotate(&mut self) {
        let path = |number: usize| self.folder.join(format!("{}.log.{number}", self.name));
        self.rotations += 1;
        std::fs::rename(self.folder.join(format!("{}.log", self.name)), path(self.rotations)).expect("a log");
        if self.rotations > OLD_LOGS {
            std::fs::remove_file(path(self.rotations - OLD_LOGS)).expect("an old log");
        }
        self.file = Log::open(&self.folder, self.name);
    }
}
