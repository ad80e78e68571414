//! Months of logs in the archive: how fast they come in, what they take on disk, how soon a server is back, and how fast
//! history is queried, beside DuckDB on the same Parquet files where Python has it.
//!
//! ```text
//!     corpus.py access.log 5000000 5000 big.log
//!     LOGWEIR_BENCH_FILE=big.log LOGWEIR_BENCH_COPIES=10 LOGWEIR_BENCH_PYTHON=python3 cargo bench --bench archive
//! ```
//!
//! The file is read as many times as there are copies, each time a quarter of an hour later. Without the first variable a file
//! of 500,000 generated lines is used; without the last one nothing is compared. The server is the real program.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use logweir::generate::Access;

mod server;
use server::Server;

/// Between one copy and the next: more than the file spans would be better to read, less would mix them.
const SHIFT_SECONDS: i64 = 1000;

/// Of each query so often, in turn with DuckDB; the middle one counts.
const ROUNDS: usize = 9;

const VIEW: &str = "CREATE MATERIALIZED VIEW minutes AS
    SELECT window_start, path, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
    FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, path";

fn main() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let file = match std::env::var_os("LOGWEIR_BENCH_FILE") {
        Some(path) => PathBuf::from(path),
        None => generate(scratch.path()),
    };
    let copies = std::env::var("LOGWEIR_BENCH_COPIES").ok().and_then(|v| v.parse().ok()).unwrap_or(2);
    let dir = scratch.path().join("data");
    let mut server = Server::start(&dir, &[]);
    server.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}/in-*.log') FORMAT COMBINED",
        scratch.path().display()
    ));
    server.run(VIEW);
    let lines = ingest(&server, scratch.path(), &file, copies);

    let archived = server.number("SELECT archive_bytes FROM logweir.streams");
    let gzip = gzip_bytes_per_line(&file);
    let per_line = archived as f64 / lines as f64;
    println!("archive: {per_line:.1} bytes a line; gzip -6 of the text {gzip:.1}: {:.2} of it", per_line / gzip);

    for (signal, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGKILL, "SIGKILL")] {
        server.end(signal);
        let begun = Instant::now();
        server = Server::start(&dir, &[]);
        let ready = begun.elapsed();
        let requests = server.number("SELECT sum(requests)::bigint FROM minutes");
        let answered = begun.elapsed();
        // Some of the lines may be malformed.
        assert_eq!(requests, server.number("SELECT rows FROM logweir.streams"), "every row is counted once");
        println!("restart after {name}: ready after {ready:.2?}, first right answer after {answered:.2?}");
    }

    let mut duck = Duck::start(&dir.join("archive/access"));
    // The data begins with a whole minute, and this is in its middle.
    let middle = server.text("SELECT date_trunc('minute', to_timestamp((extract(epoch FROM min(ts)) + extract(epoch FROM max(ts))) / 2)) FROM access");
    let minute = format!("ts >= '{middle}' AND ts < TIMESTAMPTZ '{middle}' + INTERVAL '1 minute'");
    for (name, query) in [
        ("a minute of all rows", format!("SELECT count(*), sum(bytes) FROM access WHERE {minute}")),
        ("GROUP BY status", "SELECT status, count(*) FROM access GROUP BY status".to_string()),
        ("sums by method", "SELECT method, count(*), sum(bytes) FROM access GROUP BY method".to_string()),
        (
            "the ten most wanted paths",
            "SELECT path, count(*) AS n FROM access GROUP BY path ORDER BY n DESC LIMIT 10".to_string(),
        ),
    ] {
        compare(&server, duck.as_mut(), name, &query);
    }
    server.end(libc::SIGTERM);
}

/// Reads the copies; gives the number of lines.
fn ingest(server: &Server, scratch: &Path, file: &Path, copies: i64) -> i64 {
    let (mut lines, mut visible) = (0, Duration::ZERO);
    let mut archived = Duration::ZERO;
    let used = server.processor_time();
    for copy in 0..copies {
        let path = scratch.join(format!("copy-{copy}"));
        lines += shifted(file, &path, copy * SHIFT_SECONDS);
        let begun = Instant::now();
        std::fs::rename(&path, scratch.join(format!("in-{copy}.log"))).expect("the directory is ours");
        server.run("FLUSH");
        visible += begun.elapsed();
        while server.number("SELECT archived_rows + malformed FROM logweir.streams") < lines {
            // What is less than `archive_bytes` waits for a minute: it is not counted as work.
            if server.number("SELECT unarchived_bytes FROM logweir.streams") < 128 << 20 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        archived += begun.elapsed();
    }
    let rate = |time: Duration| lines as f64 / time.as_secs_f64() / 1e6;
    println!(
        "{lines} lines with log, checkpoints, archive and one view: {:.2} M lines/s until visible, {:.2} M until archived \
         (all but the last 128 MiB of log), {:.2} s of processors per million lines",
        rate(visible),
        rate(archived),
        (server.processor_time() - used) / lines as f64 * 1e6
    );
    let begun = Instant::now();
    while server.number("SELECT unarchived_bytes FROM logweir.streams") > 0 {
        assert!(begun.elapsed() < Duration::from_secs(600), "the archive does not come to its end");
        std::thread::sleep(Duration::from_millis(50));
    }
    lines
}

/// A copy of a combined log with its times moved; gives the number of lines.
fn shifted(from: &Path, to: &Path, seconds: i64) -> i64 {
    let mut reader = BufReader::with_capacity(1 << 20, std::fs::File::open(from).expect("the file"));
    let mut writer = BufWriter::with_capacity(1 << 20, std::fs::File::create(to).expect("room for a copy"));
    let (mut line, mut lines) = (Vec::new(), 0);
    // Times come in runs.
    let mut last = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).expect("the file reads") > 0 {
        if let Some(at) = memchr::memchr(b'[', &line).filter(|at| line.len() > at + 21) {
            let stamp = &mut line[at + 1..at + 21];
            if *stamp != *last.0 {
                let text = String::from_utf8_lossy(stamp).into_owned();
                let time = chrono::NaiveDateTime::parse_from_str(&text, "%d/%b/%Y:%H:%M:%S").expect("a combined log");
                let moved = (time + chrono::TimeDelta::seconds(seconds)).format("%d/%b/%Y:%H:%M:%S").to_string();
                last = (stamp.to_vec(), moved.into_bytes());
            }
            stamp.copy_from_slice(&last.1);
        }
        writer.write_all(&line).expect("room for a copy");
        line.clear();
        lines += 1;
    }
    writer.flush().expect("room for a copy");
    lines
}

fn gzip_bytes_per_line(file: &Path) -> f64 {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    let mut lines = 0;
    for line in BufReader::new(std::fs::File::open(file).expect("the file")).split(b'\n').take(500_000) {
        gzip.write_all(&line.expect("the file reads")).and_then(|()| gzip.write_all(b"\n")).expect("memory");
        lines += 1;
    }
    gzip.finish().expect("memory").len() as f64 / f64::from(lines)
}

fn compare(server: &Server, mut duck: Option<&mut Duck>, name: &str, query: &str) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        server.rows(query);
        ours.push(begun.elapsed());
        theirs.extend(duck.as_mut().map(|duck| duck.ask(query)));
    }
    let middle = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let own = middle(&mut ours);
    print!("{name}: {own:.1?} (best {:.1?})", ours[0]);
    if !theirs.is_empty() {
        let other = middle(&mut theirs);
        let ratio = other.as_secs_f64() / own.as_secs_f64();
        print!("; DuckDB {other:.1?} (best {:.1?}): {ratio:.2} times its speed", theirs[0]);
    }
    println!();
}

/// DuckDB on the files of the archive's newest version.
struct Duck {
    child: Child,
    inlet: ChildStdin,
    outlet: BufReader<ChildStdout>,
}

/// Takes a query a line, answers with the seconds it took.
const PYTHON: &str = r#"
import json, sys, time, duckdb
files = json.loads(sys.stdin.readline())
con = duckdb.connect(config={'threads': 2})
con.execute("SET TimeZone = 'UTC'")
con.execute(f"CREATE VIEW access AS SELECT * FROM read_parquet({files!r})")
for query in sys.stdin:
    begun = time.perf_counter()
    con.execute(query).fetchall()
    print(time.perf_counter() - begun, flush=True)
"#;

impl Duck {
    fn start(table: &Path) -> Option<Duck> {
        let python = std::env::var_os("LOGWEIR_BENCH_PYTHON")?;
        let mut child = Command::new(python)
            .args(["-c", PYTHON])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("LOGWEIR_BENCH_PYTHON names Python");
        let (inlet, outlet) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut duck = Duck { child, inlet, outlet: BufReader::new(outlet) };
        let files: Vec<String> = files(table).iter().map(|file| table.join(file).display().to_string()).collect();
        println!("{} files in the archive", files.len());
        writeln!(duck.inlet, "{}", serde_json::to_string(&files).expect("texts")).expect("it listens");
        Some(duck)
    }

    fn ask(&mut self, query: &str) -> Duration {
        writeln!(self.inlet, "{query}").expect("it listens");
        let mut line = String::new();
        self.outlet.read_line(&mut line).expect("text");
        Duration::from_secs_f64(line.trim().parse().expect("it answers with a number"))
    }
}

impl Drop for Duck {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Delta's log has added and not removed.
fn files(table: &Path) -> BTreeSet<String> {
    let log = std::fs::read_dir(table.join("_delta_log")).expect("a Delta table");
    let mut commits: Vec<PathBuf> = log.map(|entry| entry.expect("an entry").path()).collect();
    commits.retain(|path| path.extension().is_some_and(|e| e == "json"));
    commits.sort();
    let mut files = BTreeSet::new();
    for commit in commits {
        let text = std::fs::read_to_string(commit).expect("a commit");
        for action in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            let path = |action: &serde_json::Value| action["path"].as_str().map(str::to_string);
            files.extend(path(&action["add"]));
            path(&action["remove"]).map(|path| files.remove(&path));
        }
    }
    files
}

fn generate(dir: &Path) -> PathBuf {
    let path = dir.join("generated.log");
    let mut access = Access::new(7);
    let mut out = Vec::new();
    for i in 0..500_000i64 {
        access.line(1_767_225_600_000_000 + i * 1800, &mut out);
    }
    std::fs::write(&path, out).expect("the generated file");
    path
}
