//! An engine in the test's own process, with a clock that only the test turns, and a folder for logs.
//!
//! It is the engine of `logweir serve`: SQL goes in through a session, or over the wire through the real Postgres
//! endpoint. Here it costs milliseconds where a process costs tenths of a second, so thousands of cases can run.
//!
//! Warnings and errors that the engine logs are collected; what was not announced by [`Local::expect_log`] fails the
//! test when the engine is stopped or dropped. The collector belongs to the process, so tests that use this module take
//! turns ([`turn`]).

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::ParamValues;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::executor::block_on;
use logweir::config::Config;
use logweir::database::Databases;
use logweir::engine::Engine;
use logweir::error::Error;
use logweir::server::{Limits, serve_postgres};
use logweir::sql::{self, Outcome, Session};
use logweir::task::{Compute, Task};
use logweir::time::{Clock, Micros};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Reaching it means that something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that the engines of this process logged at level WARN or above.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Engines in this process share a log and, in some tests, faults: tests that use them run one after the other.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the file header.
pub struct Local {
    home: TempDir,
    clock: Clock,
    cores: usize,
    running: Option<Running>,
    announced: Vec<String>,
}

struct Running {
    session: Session,
    door: Option<Door>,
}

/// The Postgres endpoint, opened when somebody asks for its address.
struct Door {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), Error>>,
}

/// An engine that ends: nobody may hold on to it then.
pub struct Gone(Weak<Engine>);

impl Gone {
    pub fn of(engine: &Arc<Engine>) -> Gone {
        Gone(Arc::downgrade(engine))
    }

    /// Waits until nobody does.
    pub fn wait(&self) {
        let begun = Instant::now();
        while self.0.strong_count() > 0 {
            assert!(begun.elapsed() < PATIENCE, "something holds on to the engine after its end");
            std::thread::yield_now();
        }
    }
}

/// The result of a query.
pub struct Answer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

/// What [`Local::follow`] began.
pub struct Following {
    batches: mpsc::Receiver<Result<RecordBatch, Error>>,
    _task: Task<()>,
}

impl Following {
    /// What has come since the last time; waits for the first of it.
    pub fn received(&self, patience: Duration) -> Result<Vec<RecordBatch>, Error> {
        match self.batches.recv_timeout(patience) {
            Ok(first) => std::iter::once(first).chain(self.batches.try_iter()).collect(),
            Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => Err(Error::internal("it ended without a reason")),
        }
    }
}

impl Local {
    /// A running engine on an empty data directory, at this moment of its clock.
    pub fn start(now: Micros) -> Local {
        Local::with_cores(now, 2)
    }

    /// The same with this many cores for each query.
    pub fn with_cores(now: Micros, cores: usize) -> Local {
        collect_logs();
        let home = tempfile::tempdir_in(in_memory()).expect("a temporary directory can be made");
        std::fs::create_dir(home.path().join("logs")).expect("the directory is new");
        let clock = Clock::manual(now);
        let mut local = Local { home, clock, cores, running: None, announced: Vec::new() };
        local.open();
        local
    }

    /// Opens the engine again after it was stopped.
    pub fn open(&mut self) {
        self.try_open().unwrap_or_else(|err| panic!("the engine does not open: {err:#?}"));
    }

    /// The same where it may refuse.
    pub fn try_open(&mut self) -> Result<(), Error> {
        let config = Config { data_dir: Some(self.data_dir()), cores: self.cores, ..Config::default() };
        let engine = block_on(compute().spawn(sql::open(config, self.clock.clone())))??;
        self.running = Some(Running { session: Session::new(engine), door: None });
        Ok(())
    }

    /// Stops the engine as SIGTERM would.
    pub fn stop(&mut self) {
        let Running { session, door } = self.running.take().expect("the engine runs");
        let engine = Arc::clone(session.engine());
        drop(session);
        let stopping = compute().spawn(async move {
            let gone = Gone::of(&engine);
            engine.shutdown().await;
            gone
        });
        let gone = block_on(stopping).expect("stopping does not panic");
        if let Some(door) = door {
            door.shutdown.cancel();
            let served = doors().block_on(door.serving).expect("serving does not panic");
            served.expect("the endpoint ends in peace");
        }
        // The directory is free when the last query has let go of the engine.
        gone.wait();
        let unexpected = self.unexpected();
        assert!(unexpected.is_empty(), "the engine logged what was not expected: {unexpected:#?}");
    }

    /// Stops the engine and opens it again on the same data directory.
    pub fn restart(&mut self) {
        self.stop();
        self.open();
    }

    /// Gives the archive all rows there are, merges files, applies retention and makes a checkpoint.
    pub fn archive(&self) {
        let engine = Arc::clone(self.running.as_ref().expect("the engine runs").session.engine());
        let done = block_on(compute().spawn(async move {
            engine.archive_all().await?;
            for stream in engine.streams() {
                if let Some(history) = stream.runner.log.history() {
                    while history.rows.compact().await? {}
                    stream.runner.log.archive_changed();
                }
                engine.retain(&stream).await?;
            }
            engine.expire_views();
            let checkpoint = tokio::task::spawn_blocking(move || engine.checkpoint()).await;
            checkpoint.expect("a checkpoint does not panic")
        }));
        done.and_then(|done| done).unwrap_or_else(|err| panic!("nothing could be archived: {err:#?}"));
    }

    /// From the next start on, each query has this many cores.
    pub fn set_cores(&mut self, cores: usize) {
        self.cores = cores;
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A path in the directory for logs.
    pub fn log(&self, name: &str) -> PathBuf {
        self.home.path().join("logs").join(name)
    }

    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// Turns the clock and returns when the engine has acted on it. FLUSH comes behind the tick that the new time makes;
    /// time does not pass while rows are on their way, so they are waited for first.
    pub fn turn_clock(&self, now: Micros) -> Result<(), Error> {
        self.run("FLUSH")?;
        self.clock.set(now);
        self.run("FLUSH")
    }

    /// Turns the clock while nobody runs, or without waiting for those who do.
    pub fn set_clock(&self, now: Micros) {
        self.clock.set(now);
    }

    /// Lines logged with this text are no failure.
    pub fn expect_log(&mut self, text: &str) {
        self.announced.push(text.to_string());
    }

    /// Takes what was logged since the last time and not announced.
    pub fn unexpected(&self) -> Vec<String> {
        let mut logged = std::mem::take(&mut *LOGGED.lock().unwrap_or_else(PoisonError::into_inner));
        logged.retain(|line| !self.announced.iter().any(|text| line.contains(text)));
        // Delta reads on threads of its own: what the engine before this one had asked for may find its folder gone.
        let here = self.home.path().to_string_lossy();
        logged.retain(|line| !line.contains("_delta_log") || line.contains(&*here));
        logged
    }

    /// Runs statements and gives the result of the last one that has any.
    pub fn query(&self, sql: &str) -> Result<Option<Answer>, Error> {
        let session = self.running.as_ref().expect("the engine runs").session.clone();
        let sql = sql.to_string();
        block_on(compute().spawn(async move { query(&session, &sql).await }))?
    }

    /// Begins a statement whose rows come as long as it is held. To be dropped before the engine is stopped.
    pub fn follow(&self, sql: &str) -> Result<Following, Error> {
        let session = self.running.as_ref().expect("the engine runs").session.clone();
        let sql = sql.to_string();
        let mut rows = block_on(compute().spawn(async move { begin(&session, &sql).await }))??;
        let (sender, batches) = mpsc::channel();
        let task = compute().spawn(async move {
            while let Some(batch) = rows.next().await {
                if sender.send(batch.map_err(Error::from)).is_err() {
                    break;
                }
            }
        });
        Ok(Following { batches, _task: task })
    }

    pub fn run(&self, sql: &str) -> Result<(), Error> {
        self.query(sql).map(drop)
    }

    /// Where Postgres clients find it until it is stopped.
    pub fn address(&mut self) -> String {
        let running = self.running.as_mut().expect("the engine runs");
        let door = running.door.get_or_insert_with(|| open_door(&running.session));
        door.address.to_string()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.running.is_none() {
            return;
        }
        if std::thread::panicking() {
            for line in self.unexpected() {
                eprintln!("logged: {line}");
            }
        } else {
            self.stop();
        }
    }
}

/// The rows to come of one statement.
async fn begin(session: &Session, sql: &str) -> Result<SendableRecordBatchStream, Error> {
    let statements = session.parse(sql)?;
    let statement = statements.first().ok_or_else(|| Error::internal("no statement was given"))?;
    let planned = session.plan(statement).await?;
    match session.execute(&planned, ParamValues::List(vec![])).await? {
        Outcome::Rows(rows) | Outcome::CopyOut(rows, _) => Ok(rows),
        _ => Err(Error::internal("the statement has no rows")),
    }
}

pub async fn query(session: &Session, sql: &str) -> Result<Option<Answer>, Error> {
    let mut answer = None;
    for statement in session.parse(sql)? {
        let planned = session.plan(&statement).await?;
        if let Outcome::Rows(mut rows) | Outcome::CopyOut(mut rows, _) =
            session.execute(&planned, ParamValues::List(vec![])).await?
        {
            // The columns' own names: what a client gets.
            let schema = planned.fields().unwrap_or_else(|| rows.schema());
            let mut batches = Vec::new();
            while let Some(batch) = rows.next().await {
                batches.push(batch?);
            }
            answer = Some(Answer { schema, batches });
        }
    }
    Ok(answer)
}

fn open_door(session: &Session) -> Door {
    let listener = doors().block_on(TcpListener::bind("127.0.0.1:0")).expect("some port is free");
    let address = listener.local_addr().expect("it is bound");
    let shutdown = CancellationToken::new();
    let databases = Databases::single(Arc::clone(session.engine()), compute().clone());
    let serving = serve_postgres(listener, databases, Limits::default(), shutdown.clone());
    Door { address, shutdown, serving: doors().spawn(serving) }
}

/// The runtime for sockets, shared by all engines of the process.
fn doors() -> &'static Runtime {
    static DOORS: OnceLock<Runtime> = OnceLock::new();
    DOORS.get_or_init(|| {
        let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        built.expect("threads can be started")
    })
}

/// The pool for queries, shared by all engines of the process.
pub fn compute() -> &'static Compute {
    static COMPUTE: OnceLock<Compute> = OnceLock::new();
    COMPUTE.get_or_init(|| Compute::new().expect("threads can be started"))
}

/// Where data directories are made: in memory if there is such a place, because nothing here is about the disk.
pub fn in_memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// Collects the warnings and errors of engines from now on. Not those of libraries: other tests of this process use them too,
/// against brokers that they kill; what an engine makes of such a failure it logs itself.
pub fn collect_logs() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("logweir=warn")
            .with_ansi(false)
            .without_time()
            .with_writer(|| Collector)
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("nobody else in this process collects logs");
    });
}

/// Whether something with this text was logged since somebody last took it.
pub fn logged_any(text: &str) -> bool {
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| line.contains(text))
}

/// Takes what was logged so far.
pub fn take_logged() -> Vec<String> {
    std::mem::take(&mut *LOGGED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Takes each event as one write.
struct Collector;

impl Write for Collector {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event).trim_end().to_string();
        LOGGED.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
