//! pgbench against PostgreSQL and against this server in one run, with their transactions per second and the ratio: what a
//! round trip costs, a point read of a view with 100,000 keys, and the same while 200,000 lines a second come into that view.
//! Not a test: it takes a minute and depends on the machine.
//!
//! `cargo test --release pgbench:: -- --ignored --nocapture`; `LOGWEIR_PGBENCH_SECONDS` says how long each figure takes.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::server::{Client, Server};
use crate::sinks::postgres::Postgres;

const KEYS: u32 = 100_000;

/// Name, script, protocol.
const RUNS: &[(&str, &str, &str)] = &[
    ("SELECT 1, simple", "SELECT 1;\n", "simple"),
    ("SELECT 1, prepared", "SELECT 1;\n", "prepared"),
    ("point read, simple", "\\set k random(1, 100000)\nSELECT * FROM per_key WHERE key = :k;\n", "simple"),
    ("point read, prepared", "\\set k random(1, 100000)\nSELECT * FROM per_key WHERE key = :k;\n", "prepared"),
    ("text key, prepared", "\\set k random(1, 100000)\nSELECT * FROM per_name WHERE name = 'k' || :k;\n", "prepared"),
];

fn pgbench() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("bin/pgbench")).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("note: skipped, there is no pgbench");
    }
    found
}

/// Transactions per second.
fn tps(program: &PathBuf, port: &str, script: &str, protocol: &str) -> f64 {
    let seconds = std::env::var("LOGWEIR_PGBENCH_SECONDS").unwrap_or_else(|_| "5".to_string());
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("script.sql");
    std::fs::write(&file, script).expect("it is writable");
    let output = Command::new(program)
        .args([
            "-n",
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            "logweir",
            "-c",
            "8",
            "-j",
            "2",
            "-M",
            protocol,
            "-T",
            &seconds,
        ])
        .arg("-f")
        .arg(&file)
        .arg("logweir")
        .output()
        .expect("pgbench runs");
    let out = String::from_utf8_lossy(&output.stdout);
    let line = out.lines().find(|line| line.starts_with("tps = "));
    let number = line.and_then(|line| line.split(' ').nth(2)?.parse().ok());
    number.unwrap_or_else(|| panic!("{out}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Lines a second that come in beside the reads.
const LINES: usize = 200_000;

/// Sends lines with random keys at this pace until it is told to stop; gives how many a second it were.
fn feed(address: String, stop: Arc<AtomicBool>) -> JoinHandle<f64> {
    const TICKS: usize = 100;
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("it listens");
        // Made beforehand: this process is not what is measured.
        let part = |seed: usize| -> String {
            let key = |n: usize| (seed * 7919 + n * 104_729) % KEYS as usize + 1;
            (0..LINES / TICKS)
                .map(|n| format!("{{\"ts\":\"2026-01-01T00:00:03Z\",\"key\":{},\"n\":0}}\n", key(n)))
                .collect()
        };
        let parts: Vec<String> = (0..TICKS).map(part).collect();
        let (begun, mut sent) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            stream.write_all(parts[sent % TICKS].as_bytes()).expect("it is taken");
            sent += 1;
            let due = Duration::from_secs(1) * sent as u32 / TICKS as u32;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        (sent * (LINES / TICKS)) as f64 / begun.elapsed().as_secs_f64()
    })
}

#[test]
#[ignore = "figures, not a test"]
fn round_trips_and_point_reads() {
    let (Some(program), Some(postgres)) = (pgbench(), Postgres::start()) else { return };
    let mut server = Server::start();
    let ours = server.client();
    let series = format!("generate_series(1, {KEYS}) AS s(i)");
    ours.run(
        "CREATE TABLE events (ts timestamptz, key bigint, n bigint, WATERMARK FOR ts AS ts)
           WITH (connector = 'tcp', address = '127.0.0.1:0') FORMAT JSON;
         CREATE MATERIALIZED VIEW per_key AS SELECT key, count(*) AS rows, sum(n) AS total FROM events GROUP BY key;
         CREATE MATERIALIZED VIEW per_name AS
           SELECT 'k' || key AS name, count(*) AS rows, sum(n) AS total FROM events GROUP BY 1",
    );
    for n in 1..=2 {
        ours.run(&format!("INSERT INTO events SELECT '2026-01-01T00:00:0{n}Z'::timestamptz, i, i * {n} FROM {series}"));
    }
    let theirs = Client::connect(&postgres.address());
    theirs.run(&format!(
        "CREATE TABLE per_key AS SELECT i::bigint AS key, 2::bigint AS rows, i * 3::bigint AS total FROM {series};
         ALTER TABLE per_key ADD PRIMARY KEY (key);
         CREATE TABLE per_name AS SELECT 'k' || i AS name, 2::bigint AS rows, i * 3::bigint AS total FROM {series};
         ALTER TABLE per_name ADD PRIMARY KEY (name); ANALYZE",
    ));
    for client in [&ours, &theirs] {
        assert_eq!(client.one("SELECT * FROM per_key WHERE key = 77"), "77 2 231");
        assert_eq!(client.one("SELECT * FROM per_name WHERE name = 'k77'"), "k77 2 231");
    }
    let address = server.postgres();
    let port = address.rsplit(':').next().expect("an address has a port");
    println!("{:24} {:>12} {:>12} {:>8}", "8 clients", "PostgreSQL", "Logweir", "ratio");
    for (name, script, protocol) in RUNS {
        let (theirs, ours) =
            (tps(&program, &postgres.port.to_string(), script, protocol), tps(&program, port, script, protocol));
        println!("{name:24} {theirs:12.0} {ours:12.0} {:8.2}", ours / theirs);
    }
    let listening =
        ours.one("SELECT DISTINCT address FROM logweir.sources WHERE stream = 'events' AND address IS NOT NULL");
    let stop = Arc::<AtomicBool>::default();
    let feeding = feed(listening, Arc::clone(&stop));
    for (name, script, protocol) in &RUNS[3..] {
        let ours = tps(&program, port, script, protocol);
        println!("{:24} {:12} {ours:12.0}", format!("{name}, fed"), "");
    }
    stop.store(true, Ordering::Relaxed);
    println!("fed with {:.0} lines a second", feeding.join().expect("it sends"));
}
