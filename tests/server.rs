//! A real server process on a data directory of its own, and a client that speaks SQL to it.
//!
//! [`Server`] collects what the process logs. A warning or error that was not announced by [`Server::expect_log`] fails
//! the test when the server is stopped or dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::{StreamExt, pin_mut};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The binary under test.
pub const LOGWEIR: &str = env!("CARGO_BIN_EXE_logweir");

/// Longer than any start or stop on a busy machine; reaching it means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many lines of a server's log are shown when a test has failed.
const SHOWN: usize = 12;

/// The real logs, when they are there. Tests that need them pass without, with a note.
pub fn data() -> Option<PathBuf> {
    let dir = match std::env::var_os("LOGWEIR_DATA") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    if !dir.join("access").is_dir() {
        eprintln!("note: skipped, no real logs in {} (set LOGWEIR_DATA)", dir.display());
        return None;
    }
    Some(dir.canonicalize().expect("the directory was just seen"))
}

/// A server process, its data directory and a directory for logs.
pub struct Server {
    home: TempDir,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    process: Option<Process>,
    announced: Vec<String>,
}

struct Process {
    child: Child,
    ready: Receiver<String>,
    /// What the `ready` line said; `None` until asked for.
    addresses: Option<Addresses>,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Addresses {
    postgres: String,
    http: String,
}

impl Server {
    /// A running server with an empty data directory.
    pub fn start() -> Server {
        let mut server = Server::prepare();
        server.again();
        server
    }

    /// Only the directories: for a test that writes files first.
    pub fn prepare() -> Server {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir(home.path().join("logs")).expect("the directory is new");
        Server { home, arguments: Vec::new(), environment: Vec::new(), process: None, announced: Vec::new() }
    }

    /// Further command line arguments from the next start on.
    pub fn use_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|a| a.to_string()).collect();
    }

    /// Further variables of its environment from the next start on.
    pub fn use_environment(&mut self, variables: &[(&'static str, String)]) {
        self.environment = variables.to_vec();
    }

    /// Starts the process on the data directory as it is, and waits until it accepts connections.
    pub fn again(&mut self) {
        self.launch();
        self.addresses();
    }

    /// The same with a pipe as its standard input.
    pub fn pipe(&mut self) -> ChildStdin {
        self.launch_with(Stdio::piped());
        self.addresses();
        let process = self.process.as_mut().expect("it was just started");
        process.child.stdin.take().expect("it is piped")
    }

    /// Starts the process and does not wait.
    pub fn launch(&mut self) {
        self.launch_with(Stdio::null());
    }

    fn launch_with(&mut self, input: Stdio) {
        assert!(self.process.is_none(), "the server runs already");
        let mut child = Command::new(LOGWEIR)
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tell, ready) = channel();
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.starts_with("ready: ") {
                    // Nobody listens when the test kills the process before it is ready.
                    let _ = tell.send(line.clone());
                }
                lines.lock().expect("no panic holds it").push(line);
            }
        });
        self.process = Some(Process { child, ready, addresses: None, log, reader: Some(reader) });
    }

    fn addresses(&mut self) -> Addresses {
        let process = self.process.as_mut().expect("the server runs");
        if let Some(known) = &process.addresses {
            return known.clone();
        }
        let line = process.ready.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let ended = process.child.try_wait().expect("the process is ours");
            let how = ended.map_or("it still runs".to_string(), |status| format!("it ended with {status}"));
            let log = process.log.lock().expect("no panic holds it").join("\n");
            panic!("the server did not become ready, {how}:\n{log}")
        });
        let part = |name: &str| {
            let at = line.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {line:?}"));
            at.trim_start().split([',', ' ']).next().expect("split gives at least one piece").to_string()
        };
        let addresses = Addresses { postgres: part("postgres"), http: part("http") };
        process.addresses = Some(addresses.clone());
        addresses
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A path in the directory for logs.
    pub fn log(&self, name: &str) -> PathBuf {
        self.home.path().join("logs").join(name)
    }

    pub fn client(&mut self) -> Client {
        Client::connect(&self.addresses().postgres)
    }

    /// The most memory that the process has had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let process = self.process.as_ref().expect("the server runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).expect("it runs on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    pub fn postgres(&mut self) -> String {
        self.addresses().postgres
    }

    pub fn http(&mut self) -> String {
        self.addresses().http
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        signal(&self.process.as_ref().expect("the server runs").child, libc::SIGHUP);
    }

    /// Whether the process that runs has logged this text.
    pub fn has_logged(&self, text: &str) -> bool {
        let process = self.process.as_ref().expect("the server runs");
        process.log.lock().expect("no panic holds it").iter().any(|line| line.contains(text))
    }

    /// Lines logged with this text are no failure.
    pub fn expect_log(&mut self, text: &str) {
        self.announced.push(text.to_string());
    }

    /// `kill -9`. The next start may find a record that was being written; it says so, which is no failure.
    pub fn kill(&mut self) {
        self.expect_log("the log ended in the middle of a record");
        let mut process = self.process.take().expect("the server runs");
        process.child.kill().expect("the process is ours");
        process.child.wait().expect("the process is ours");
        self.check(process);
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server runs");
        signal(&process.child, libc::SIGTERM);
        let status = wait(&mut process.child);
        self.check(process);
        status
    }

    /// SIGTERM, and `kill -9` if it has not ended after `patience`.
    pub fn terminate_or_kill(&mut self, patience: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("the server runs");
        signal(&process.child, libc::SIGTERM);
        std::thread::sleep(patience);
        self.expect_log("the log ended in the middle of a record");
        process.child.kill().expect("the process is ours");
        let status = process.child.wait().expect("the process is ours");
        self.check(process);
        status
    }

    /// Whether it has said that it is ready.
    pub fn is_ready(&self) -> bool {
        let process = self.process.as_ref().expect("the server runs");
        process.log.lock().expect("no panic holds it").iter().any(|line| line.starts_with("ready: "))
    }

    /// Fails when the log holds what was not announced.
    fn check(&self, mut process: Process) {
        process.reader.take().map(JoinHandle::join);
        let log = process.log.lock().expect("no panic holds it");
        let bad = |line: &&String| {
            // A level stands behind the time, at the front of a line.
            let front: String = line.chars().take(60).collect();
            let serious = front.contains("WARN") || front.contains("ERROR") || line.contains("panicked at");
            serious && !self.announced.iter().any(|text| line.contains(text))
        };
        let bad: Vec<&String> = log.iter().filter(bad).collect();
        assert!(bad.is_empty(), "the server logged what was not expected: {bad:#?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.home.disable_cleanup(true);
            eprintln!("its folders are kept in {}", self.home.path().display());
            if let Some(process) = &mut self.process {
                let _ = process.child.kill();
                let _ = process.child.wait();
                let log = process.log.lock().map(|log| log.clone()).unwrap_or_default();
                // All of it would hide what failed.
                let end = &log[log.len().saturating_sub(SHOWN)..];
                eprintln!("--- log of the server, {} of {} lines\n{}\n---", end.len(), log.len(), end.join("\n"));
            }
        } else if self.process.is_some() {
            let status = self.terminate();
            assert!(status.success(), "the server ended with {status}");
        }
    }
}

/// Sends a signal to a child process.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: kill(2) touches no memory; the child has not been waited for, so the id is still its own.
    unsafe { libc::kill(child.id() as i32, signal) };
}

/// Waits for a process that was told to end; one that does not is killed and fails the test.
pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the process is ours") {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the process did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A row in the text form of the protocol; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// An error as a client sees it.
#[derive(Debug)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl Failure {
    /// Fails unless the SQLSTATE is `code` and each of `texts` stands somewhere in message, detail or hint.
    #[track_caller]
    pub fn says(&self, code: &str, texts: &[&str]) {
        let all = format!("{}\n{}\n{}", self.message, self.detail, self.hint);
        assert_eq!(self.code, code, "{self:?}");
        for text in texts {
            assert!(all.contains(text), "no {text:?} in {self:?}");
        }
    }
}

/// A connection. Blocking, so that tests read from top to bottom.
pub struct Client {
    runtime: Runtime,
    inner: tokio_postgres::Client,
}

impl Client {
    pub fn connect(address: &str) -> Client {
        Client::connect_to(address, "logweir")
    }

    /// To another database of the server.
    pub fn connect_to(address: &str, database: &str) -> Client {
        Client::try_connect(address, database).expect("the server accepts connections")
    }

    /// `None` when the server does not accept connections.
    pub fn try_connect(address: &str, database: &str) -> Option<Client> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let (host, port) = address.rsplit_once(':').expect("an address has a port");
        let config = format!("host={host} port={port} user=logweir dbname={database}");
        let (inner, connection) = runtime.block_on(tokio_postgres::connect(&config, NoTls)).ok()?;
        // It ends with the client, or with the server: then the next statement fails.
        runtime.spawn(async move { drop(connection.await) });
        Some(Client { runtime, inner })
    }

    /// As a role with a password, or as the server refuses it.
    pub fn log_in(address: &str, user: &str, password: &str) -> Result<Client, Failure> {
        Client::enter(address, "logweir", user, password)
    }

    /// The same into another database.
    pub fn enter(address: &str, database: &str, user: &str, password: &str) -> Result<Client, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let (host, port) = address.rsplit_once(':').expect("an address has a port");
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port.parse().expect("a number")).user(user).password(password).dbname(database);
        let (inner, connection) = runtime.block_on(config.connect(NoTls)).map_err(failure)?;
        runtime.spawn(async move { drop(connection.await) });
        Ok(Client { runtime, inner })
    }

    /// A statement that is planned once and run by the function that it gives.
    pub fn prepare<'a>(&'a self, sql: &str) -> Box<dyn Fn() -> Result<usize, Failure> + 'a> {
        let statement = self.runtime.block_on(self.inner.prepare(sql)).expect("it prepares");
        Box::new(move || {
            let rows = self.runtime.block_on(self.inner.query(&statement, &[]));
            rows.map(|rows| rows.len()).map_err(failure)
        })
    }

    /// The types of a statement's columns, as its description names them.
    pub fn described(&self, sql: &str) -> Result<Vec<String>, Failure> {
        let statement = self.runtime.block_on(self.inner.prepare(sql)).map_err(failure)?;
        Ok(statement.columns().iter().map(|column| column.type_().name().to_string()).collect())
    }

    /// Runs statements and gives the rows of the last one that has any.
    pub fn attempt(&self, sql: &str) -> Result<Vec<Row>, Failure> {
        self.table(sql).map(|(_, rows)| rows)
    }

    /// Names of the columns, and the rows, of the last statement that has any.
    pub fn table(&self, sql: &str) -> Result<(Vec<String>, Vec<Row>), Failure> {
        let messages = self.runtime.block_on(self.inner.simple_query(sql)).map_err(failure)?;
        let (mut names, mut rows) = (Vec::new(), Vec::new());
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    rows.clear();
                    names = columns.iter().map(|c| c.name().to_string()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect());
                }
                _ => {}
            }
        }
        Ok((names, rows))
    }

    /// Runs statements that must succeed.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        self.attempt(sql).unwrap_or_else(|failure| panic!("{failure:#?}\nin: {sql}"))
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.rows(sql);
    }

    /// The values of one row, joined by spaces.
    #[track_caller]
    pub fn one(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{} rows instead of one from: {sql}", rows.len());
        line(&rows[0])
    }

    /// The rows as lines, sorted.
    #[track_caller]
    pub fn sorted(&self, sql: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.rows(sql).iter().map(line).collect();
        lines.sort_unstable();
        lines
    }

    /// A number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        let text = self.one(sql);
        text.parse().unwrap_or_else(|_| panic!("{text:?} is no number; from: {sql}"))
    }

    /// The error of a statement that must fail.
    #[track_caller]
    pub fn fails(&self, sql: &str) -> Failure {
        match self.attempt(sql) {
            Ok(rows) => panic!("it should have failed, but gave {} rows: {sql}", rows.len()),
            Err(failure) => failure,
        }
    }

    /// The bytes of `COPY (sql) TO STDOUT`, handed to `take` as they come.
    #[track_caller]
    pub fn copy_out(&self, sql: &str, mut take: impl FnMut(&[u8])) {
        let copied = self.runtime.block_on(async {
            let stream = self.inner.copy_out(&format!("COPY ({sql}) TO STDOUT")).await?;
            pin_mut!(stream);
            while let Some(bytes) = stream.next().await {
                take(&bytes?);
            }
            Ok::<(), tokio_postgres::Error>(())
        });
        copied.map_err(failure).unwrap_or_else(|failure| panic!("{failure:#?}\nin: COPY ({sql})"));
    }

    /// Whether the server still answers on this connection.
    pub fn alive(&self) -> bool {
        self.attempt("SELECT 1").is_ok()
    }
}

/// A row as one line.
pub fn line(row: &Row) -> String {
    row.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(" ")
}

fn failure(err: tokio_postgres::Error) -> Failure {
    match err.as_db_error() {
        Some(db) => Failure {
            code: db.code().code().to_string(),
            message: db.message().to_string(),
            detail: db.detail().unwrap_or_default().to_string(),
            hint: db.hint().unwrap_or_default().to_string(),
            position: match db.position() {
                Some(tokio_postgres::error::ErrorPosition::Original(position)) => Some(*position),
                _ => None,
            },
        },
        None => Failure {
            code: String::new(),
            message: err.to_string(),
            detail: String::new(),
            hint: String::new(),
            position: None,
        },
    }
}
