//! From the write of a line to a log file until a SELECT on a view shows it, while the file grows at 50,000 lines/s:
//! p50, p90, p99 over a Postgres connection.
//!
//! ```text
//!     cargo bench --bench latency                     # 30 seconds at 50,000 lines/s
//!     LOGWEIR_BENCH_RATE=10000 LOGWEIR_BENCH_SECONDS=10 cargo bench --bench latency
//! ```

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logweir::cli::serve::{Server, Settings};
use logweir::config::Config;
use logweir::generate::Access;
use logweir::server::Limits;
use logweir::time::Clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() {
    let (rate, seconds) = (setting("LOGWEIR_BENCH_RATE", 50_000), setting("LOGWEIR_BENCH_SECONDS", 30));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("access.log");
    std::fs::write(&log, b"").expect("an empty log");
    let init = format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED;
         CREATE MATERIALIZED VIEW per_path AS SELECT window_start, path, count(*) AS n, count(*) FILTER (WHERE status >= 500) AS errors
         FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, path;",
        log.display()
    );
    let settings = Settings {
        engine: Config { data_dir: Some(dir.path().join("data")), ..Config::default() },
        pg: "127.0.0.1:0".into(),
        http: "127.0.0.1:0".into(),
        http_token: None,
        init: vec![("bench".into(), init)],
        limits: Limits::default(),
        insecure: false,
        allowed: (Vec::new(), Vec::new()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = Server::start(settings).await.expect("a server");
        let stop = Arc::new(AtomicBool::new(false));
        let (probes, asked) = std::sync::mpsc::channel::<u64>();
        let (written, mut done) = tokio::sync::mpsc::unbounded_channel::<(u64, Instant)>();
        let writer_stop = Arc::clone(&stop);
        let path = log.clone();
        let writer = std::thread::spawn(move || write(&path, rate, &asked, &written, &writer_stop));
        let config = format!("host=127.0.0.1 port={} user=bench dbname=logweir", server.pg.port());
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let statement = client.prepare("SELECT n FROM per_path WHERE path = $1").await.expect("a statement");
        let mut latencies = Vec::new();
        let mut reads = Vec::new();
        let started = Instant::now();
        let mut probe = 0u64;
        while started.elapsed() < Duration::from_secs(seconds) {
            probe += 1;
            probes.send(probe).expect("the writer runs");
            let (_, at) = done.recv().await.expect("the writer runs");
            let wanted = format!("/probe/{probe}");
            loop {
                let asked = Instant::now();
                let rows = client.query(&statement, &[&wanted]).await.expect("a result");
                reads.push(asked.elapsed());
                if !rows.is_empty() {
                    break;
                }
            }
            latencies.push(at.elapsed());
            // Not in step with the writer's ticks.
            tokio::time::sleep(Duration::from_millis(20 + probe * 7 % 31)).await;
        }
        stop.store(true, Ordering::SeqCst);
        let lines = writer.join().expect("the writer");
        println!("{} probes at {:.0} lines/s", latencies.len(), lines as f64 / started.elapsed().as_secs_f64());
        report("write to visible", &mut latencies);
        report("one SELECT", &mut reads);
        server.stop().await.expect("a stop");
    });
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort();
    let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize].as_secs_f64() * 1000.0;
    println!("{name}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// Appends lines at the wanted pace, every millisecond, and a probe line when asked for one.
fn write(
    path: &std::path::Path,
    rate: u64,
    asked: &std::sync::mpsc::Receiver<u64>,
    written: &tokio::sync::mpsc::UnboundedSender<(u64, Instant)>,
    stop: &AtomicBool,
) -> u64 {
    let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("the log");
    let mut access = Access::new(7);
    let clock = Clock::system();
    let started = Instant::now();
    let mut lines = 0;
    while !stop.load(Ordering::SeqCst) {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        let mut out = Vec::new();
        while lines < due {
            access.line(clock.now(), &mut out);
            lines += 1;
        }
        let probe = asked.try_recv().ok();
        if let Some(probe) = probe {
            let mut line = Vec::new();
            access.line(clock.now(), &mut line);
            let text = String::from_utf8_lossy(&line).into_owned();
            let (head, tail) = text.split_once('"').expect("a request");
            let (_, tail) = tail.split_once('"').expect("a request");
            out.extend(format!("{head}\"GET /probe/{probe} HTTP/1.1\"{tail}").bytes());
            lines += 1;
        }
        file.write_all(&out).expect("the log takes it");
        if let Some(probe) = probe {
            let _ = written.send((probe, Instant::now()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    lines
}
