//! From a file on disk to the answers of continuous queries: lines per second through the whole engine, as a user gets
//! them (file → WAL → parse → rollups), and the peak memory.
//!
//! ```text
//!     corpus.py access.log 5000000 5000 big.log
//!     LOGWEIR_BENCH_FILE=big.log cargo bench --bench end_to_end
//! ```
//!
//! Without the variable a file of 500,000 generated lines is used. Every phase is a fresh engine on a fresh data dir.

use std::path::{Path, PathBuf};
use std::time::Instant;

use datafusion::common::ParamValues;
use futures::StreamExt;
use logweir::config::Config;
use logweir::generate::Access;
use logweir::sql::{self, Outcome, Session};
use logweir::time::Clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ERRORS: &str = "CREATE MATERIALIZED VIEW per_path AS
    SELECT window_start, window_end, path, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
           avg((status >= 500)::int) AS error_rate, avg(bytes) AS bytes
    FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, path";

const HOP: &str = "CREATE MATERIALIZED VIEW sliding AS
    SELECT window_start, window_end, path, count(*) AS requests
    FROM HOP(access, ts, INTERVAL '1 second', INTERVAL '5 minutes') GROUP BY window_start, window_end, path";

fn main() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let file = match std::env::var_os("LOGWEIR_BENCH_FILE") {
        Some(path) => PathBuf::from(path),
        None => generate(scratch.path()),
    };
    let lines = count_lines(&file);
    println!("{} lines, {} MB", lines, std::fs::metadata(&file).expect("the file").len() / 1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for (name, views) in [
        ("store only (file → WAL → parse)", &[][..]),
        ("one-minute counts, errors, error rate, bytes per path", &[ERRORS][..]),
        ("the same and HOP(1 s, 5 min) count per path", &[ERRORS, HOP][..]),
    ] {
        runtime.block_on(phase(name, &file, lines, views));
    }
}

async fn phase(name: &str, file: &Path, lines: u64, views: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = Config { data_dir: Some(dir.path().to_path_buf()), ..Config::default() };
    let session = Session::new(sql::open(config, Clock::system()).await.expect("an engine"));
    let empty = dir.path().join("start.log");
    std::fs::write(&empty, b"").expect("an empty file");
    // The views exist before the first line comes: the stream reads a glob that matches nothing yet.
    let glob = dir.path().join("in-*.log");
    let stream = format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}', mode = 'follow') FORMAT COMBINED",
        glob.display()
    );
    session.run_text(&stream).await.expect("the stream");
    for view in views {
        session.run_text(view).await.expect("the view");
    }
    let link = dir.path().join("in-1.log");
    std::fs::hard_link(file, &link).or_else(|_| std::os::unix::fs::symlink(file, &link)).expect("a link to the file");
    let started = Instant::now();
    session.run_text("FLUSH").await.expect("a flush");
    let took = started.elapsed().as_secs_f64();
    let stored = number(&session, "SELECT count(*) FROM access").await
        + number(&session, "SELECT count(*) FROM access__malformed").await;
    assert_eq!(stored, lines as i64, "every line is stored");
    println!("{name}: {:.2} M lines/s ({took:.2} s), peak memory {} MB", lines as f64 / took / 1e6, peak_memory_mb());
    for view in views {
        let view = view.split_whitespace().nth(3).expect("a name");
        let started = Instant::now();
        let rows = if view == "sliding" {
            number(
                &session,
                "SELECT count(*) FROM sliding WHERE window_start = (SELECT date_trunc('minute', max(ts)) FROM access)",
            )
            .await
        } else {
            let sum = number(&session, &format!("SELECT sum(requests)::bigint FROM {view}")).await;
            assert_eq!(sum, number(&session, "SELECT count(*) FROM access").await, "every row is counted once");
            number(&session, &format!("SELECT count(*) FROM {view}")).await
        };
        println!("    reading {view}: {rows} rows in {:.0} ms", started.elapsed().as_secs_f64() * 1000.0);
    }
    session.engine().shutdown().await;
}

/// The one number that a query gives.
async fn number(session: &Session, sql: &str) -> i64 {
    use arrow::array::AsArray;
    let statement = session.parse(sql).expect("it parses").remove(0);
    let planned = session.plan(&statement).await.expect("it plans");
    let Ok(Outcome::Rows(mut rows)) = session.execute(&planned, ParamValues::List(vec![])).await else {
        panic!("no rows from {sql}")
    };
    while let Some(batch) = rows.next().await {
        let batch = batch.expect("a batch");
        if batch.num_rows() > 0 {
            return batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0);
        }
    }
    panic!("no row from {sql}")
}

fn generate(dir: &Path) -> PathBuf {
    let path = dir.join("generated.log");
    let mut access = Access::new(7);
    let mut out = Vec::new();
    for i in 0..500_000i64 {
        access.line(1_767_225_600_000_000 + i * 200, &mut out);
    }
    std::fs::write(&path, out).expect("the generated file");
    path
}

fn count_lines(path: &Path) -> u64 {
    use std::io::Read;
    let mut file = std::fs::File::open(path).expect("the file");
    let mut buffer = vec![0; 1 << 20];
    let mut lines = 0;
    loop {
        let n = file.read(&mut buffer).expect("the file reads");
        if n == 0 {
            return lines;
        }
        lines += memchr::memchr_iter(b'\n', &buffer[..n]).count() as u64;
    }
}

/// Peak resident memory of this process so far (Linux: VmHWM).
fn peak_memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}
