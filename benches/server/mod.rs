//! The real program as a benchmark sees it: started, asked, looked at from outside, ended.

#![allow(dead_code, reason = "not every benchmark uses all of it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The real program.
pub struct Server {
    child: Child,
    runtime: Runtime,
    client: tokio_postgres::Client,
    http: String,
}

impl Server {
    /// Starts it and waits until it is ready.
    pub fn start(dir: &Path, arguments: &[&str]) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_logweir"))
            .args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program was built");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.starts_with("ready: ") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("text") > 0, "the server ended before it was ready");
        }
        let port = line.split("postgres 127.0.0.1:").nth(1).expect("the ready line names the address");
        let port: u16 = port.split([',', ' ']).next().and_then(|p| p.trim().parse().ok()).expect("a port");
        let http = line.trim().split("http ").nth(1).expect("the ready line names the address").to_string();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok).filter(|l| l.contains("WARN") || l.contains("ERROR")) {
                eprintln!("server: {line}");
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let config = format!("host=127.0.0.1 port={port} user=bench dbname=logweir");
        let (client, connection) =
            runtime.block_on(tokio_postgres::connect(&config, NoTls)).expect("the server is ready");
        runtime.spawn(connection);
        Server { child, runtime, client, http }
    }

    /// Its address for HTTP.
    pub fn http(&self) -> &str {
        &self.http
    }

    pub fn rows(&self, sql: &str) -> Vec<String> {
        let messages = self.runtime.block_on(self.client.simple_query(sql));
        let messages = messages.unwrap_or_else(|err| panic!("{err:?} in {sql}"));
        let row = |message: SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_string()),
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    pub fn run(&self, sql: &str) {
        self.rows(sql);
    }

    pub fn text(&self, sql: &str) -> String {
        self.rows(sql).remove(0)
    }

    pub fn number(&self, sql: &str) -> i64 {
        let text = self.text(sql);
        text.parse().unwrap_or_else(|_| panic!("{text:?} is no number, from {sql}"))
    }

    /// Bytes of memory that it has now (Linux).
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
    }

    /// How many files it has open (Linux).
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Seconds of all processors that it has used (Linux: fields 14 and 15 of its `stat`, in hundredths).
    pub fn processor_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let behind_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 = behind_name.split(' ').skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        ticks as f64 / 100.0
    }

    pub fn end(mut self, signal: i32) {
        // SAFETY: kill(2) touches no memory; the child has not been waited for, so the id is still its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
        self.child.wait().expect("the process is ours");
    }
}
