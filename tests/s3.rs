//! The archive in a bucket: a real server that speaks S3 (versitygw, over a directory), which is also killed meanwhile.
//!
//! `.ci/run` installs the server. Where it is not on the PATH, nor named by `LOGWEIR_S3_SERVER`, the test passes with a note.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::batch::same;
use crate::lines;
use crate::server::{Client, Server};

/// Longer than the server needs to start on a busy machine, and than the archive waits after failures.
const PATIENCE: Duration = Duration::from_secs(60);

const KEYS: (&str, &str) = ("logweir", "a secret of tests");

/// A server for S3 on this machine, with the bucket `logs`.
struct Bucket {
    program: PathBuf,
    address: SocketAddr,
    home: TempDir,
    process: Option<Child>,
}

impl Bucket {
    fn start() -> Option<Bucket> {
        let program = std::env::var_os("LOGWEIR_S3_SERVER").map_or_else(|| "versitygw".into(), PathBuf::from);
        if Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("note: skipped, there is no versitygw (set LOGWEIR_S3_SERVER)");
            return None;
        }
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        for dir in ["data/logs", "meta"] {
            std::fs::create_dir_all(home.path().join(dir)).expect("the directory is new");
        }
        // Free now, and nobody else asks for it before the server does, as ports are given out in turn.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let mut bucket = Bucket { program, address, home, process: None };
        bucket.again();
        Some(bucket)
    }

    fn again(&mut self) {
        let (data, meta) = (self.home.path().join("data"), self.home.path().join("meta"));
        let child = Command::new(&self.program)
            .args(["--port", &self.address.to_string(), "--access", KEYS.0, "--secret", KEYS.1, "posix", "--sidecar"])
            .args([meta, data])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(child.expect("it answered a moment ago"));
        until("the server for S3 to accept connections", || TcpStream::connect(self.address).is_ok());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the process is ours");
            process.wait().expect("the process is ours");
        }
    }

    /// The variables with which programs find it.
    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", KEYS.0.into()),
            ("AWS_SECRET_ACCESS_KEY", KEYS.1.into()),
        ]
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.kill();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Each of the first `written` lines is there once, and the view is its batch.
fn check(client: &Client, written: u64) {
    client.run("FLUSH");
    let rows = client.one("SELECT count(*), count(DISTINCT bytes), sum(bytes) FROM web");
    assert_eq!(rows, format!("{written} {written} {}", (0..written).sum::<u64>()));
    same(client, "the view", "SELECT * FROM minutes", MINUTES, 0.0);
}

const MINUTES: &str = "SELECT window_start, count(*) AS n, sum(bytes) AS bytes
                       FROM TUMBLE(web, ts, INTERVAL '1 minute') GROUP BY window_start";

fn archived(client: &Client) -> i64 {
    client.number("SELECT archived_rows FROM logweir.streams")
}

#[test]
fn archive_in_a_bucket() {
    let Some(mut bucket) = Bucket::start() else { return };
    let mut server = Server::prepare();
    server.use_environment(&bucket.environment());
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.again();
    let log = server.log("web.log");
    let write = |from: u64, to: u64| lines::append(&log, (from..to).map(lines::numbered).collect::<String>());
    write(0, 4000);
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE web (*) WITH (connector = 'file', path = '{}', archive = 's3://logs/archive',
         archive_interval = '100 ms', wal_segment_bytes = '64 KiB') FORMAT COMBINED",
        log.display()
    ));
    client.run(&format!("CREATE MATERIALIZED VIEW minutes AS {MINUTES}"));
    until("rows to reach the bucket", || archived(&client) == 4000);
    write(4000, 4500);
    check(&client, 4500);

    // Without the bucket lines are taken in all the same, and wait in the log.
    bucket.kill();
    server.expect_log("archive");
    write(4500, 6000);
    client.run("FLUSH");
    assert_eq!(client.number("SELECT sum(n) FROM minutes"), 6000);
    until("the failure to be shown", || {
        client.number("SELECT count(*) FROM logweir.streams WHERE archive_error IS NOT NULL") == 1
    });
    bucket.again();
    until("the rest to reach the bucket", || archived(&client) == 6000);
    check(&client, 6000);
    drop(client);

    // Killed while it writes there: what was uploaded and not committed is not there, what was committed is there once.
    for round in 0..4 {
        write(6000 + round * 1000, 7000 + round * 1000);
        server.kill();
        server.again();
    }
    let client = server.client();
    check(&client, 10_000);
    until("all to reach the bucket", || archived(&client) == 10_000);
    check(&client, 10_000);

    // It is a Delta table like any other, and results go to the bucket as well.
    client.run("CREATE EXTERNAL TABLE lake STORED AS DELTA LOCATION 's3://logs/archive/web'");
    assert_eq!(client.one("SELECT count(*), count(DISTINCT _offset) FROM lake"), "10000 10000");
    client.run("COPY (SELECT path, bytes FROM web WHERE bytes < 100) TO 's3://logs/first.parquet'");
    client.run("CREATE EXTERNAL TABLE first STORED AS PARQUET LOCATION 's3://logs/first.parquet'");
    assert_eq!(client.one("SELECT count(*), sum(bytes) FROM first"), "100 4950");
}
