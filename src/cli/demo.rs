//! `logweir demo`: everything at once, on a temporary data dir: traffic, streams, all ready-made queries, a server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::queries::QUERIES;
use super::serve::{Server, Settings};
use super::{io_runtime, start_logging};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::generate::Access;
use crate::server::Limits;
use crate::time::Clock;

/// The streams that the queries read.
const STREAMS: &str = include_str!("../../sql/demo.sql");

/// Show live traffic: a server with a log generator and all ready-made queries.
///
/// Nothing is kept: the data directory is temporary. The text it prints says what to type into psql.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Lines per second to generate
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub rate: u32,

    /// Address for Postgres clients; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7432", env = "LOGWEIR_PG")]
    pub pg: String,

    /// Address for /health and /metrics
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7480", env = "LOGWEIR_HTTP")]
    pub http: String,

    /// Stop by itself after this many seconds [default: run until Ctrl-C]
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<u64>,
}

pub fn run(args: DemoArgs) -> Result<()> {
    start_logging("warn");
    let dir = tempfile::Builder::new()
        .prefix("logweir-demo-")
        .tempdir()
        .map_err(|e| Error::internal(format!("could not make a temporary directory: {e}")))?;
    let (access, errors) = (dir.path().join("access.log"), dir.path().join("error.log"));
    for path in [&access, &errors] {
        std::fs::write(path, b"").map_err(|e| Error::io("write", path, &e))?;
    }
    let mut init = vec![("demo.sql".to_string(), streams_for(&access, &errors))];
    init.extend(QUERIES.iter().map(|(name, sql)| (name.to_string(), sql.to_string())));
    let settings = Settings {
        engine: Config { data_dir: Some(dir.path().join("data")), ..Config::default() },
        pg: args.pg,
        http: args.http,
        http_token: None,
        init,
        limits: Limits::default(),
        insecure: false,
        allowed: (Vec::new(), Vec::new()),
    };
    io_runtime()?.block_on(async {
        let server = Server::start(settings).await?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (stop_writer, rate) = (std::sync::Arc::clone(&stop), args.rate);
        let writer = std::thread::spawn(move || write_traffic(&access, &errors, rate, &stop_writer));
        eprintln!("ready: postgres {}, http {}", server.pg, server.http);
        println!("{}", welcome(&server, args.rate));
        let end = async {
            match args.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        let stopped = super::serve::wait_for_signal()?;
        let stopped = tokio::select! {
            done = stopped => done,
            () = end => Ok(()),
        };
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let wrote = writer.join().unwrap_or_else(|_| Err(Error::internal("the generator panicked")));
        server.stop().await?;
        stopped.and(wrote)
    })
}

fn streams_for(access: &Path, errors: &Path) -> String {
    let quoted = |path: &Path| path.display().to_string().replace('\'', "''");
    STREAMS.replace("ACCESS_LOG", &quoted(access)).replace("ERROR_LOG", &quoted(errors))
}

fn welcome(server: &Server, rate: u32) -> String {
    let port = server.pg.port();
    let host = server.pg.ip();
    format!(
        "\nLogweir demo: {rate} lines of web traffic a second flow into the streams \"access\" and \"errors\", and {views} queries
are kept up to date on them. In another terminal:

    psql -h {host} -p {port} demo

Then try:

    SELECT * FROM access_requests_per_minute ORDER BY window_start DESC LIMIT 5;
    SELECT * FROM access_error_rate_by_path ORDER BY window_start DESC, errors DESC LIMIT 10;
    SELECT status, count(*) FROM access GROUP BY 1 ORDER BY 2 DESC;
    SELECT * FROM logweir.views;
    \\watch 1            -- runs the last query again every second
    \\dm                 -- the materialized views; \\d NAME shows one

A query of your own becomes a live view:

    CREATE MATERIALIZED VIEW slow AS
      SELECT window_start, path, sum(bytes) AS bytes FROM TUMBLE(access, ts, INTERVAL '10 seconds')
      GROUP BY window_start, window_end, path;

Ctrl-C ends the demo; nothing is kept.",
        views = QUERIES.len()
    )
}

/// Appends lines to both logs at the wanted pace, ten times a second.
fn write_traffic(access: &PathBuf, errors: &PathBuf, rate: u32, stop: &std::sync::atomic::AtomicBool) -> Result<()> {
    const TICK: Duration = Duration::from_millis(100);
    let open =
        |path: &PathBuf| std::fs::OpenOptions::new().append(true).open(path).map_err(|e| Error::io("open", path, &e));
    let (mut access_file, mut error_file) = (open(access)?, open(errors)?);
    let clock = Clock::system();
    let mut traffic = Access::new(clock.now() as u64);
    let started = Instant::now();
    let mut written = 0u64;
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let (mut lines, mut error_lines) = (Vec::new(), Vec::new());
        while written < due {
            traffic.line_and_error(clock.now(), &mut lines, &mut error_lines);
            written += 1;
        }
        access_file.write_all(&lines).map_err(|e| Error::io("write", access, &e))?;
        error_file.write_all(&error_lines).map_err(|e| Error::io("write", errors, &e))?;
        std::thread::sleep(TICK);
    }
    Ok(())
}
