//! `logweir serve`: the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{io_runtime, start_logging};
use crate::config::{self, Config};
use crate::database::{self, Databases};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::reach;
use crate::secret::Secret;
use crate::server::tls::{self, Tls};
use crate::server::{Limits, serve_http, serve_postgres};
use crate::sql::secrets::without_secrets;
use crate::sql::{self, Session};
use crate::task::Compute;
use crate::time::{Clock, parse_duration};

/// Where clients find us unless told otherwise.
const PG: &str = "127.0.0.1:7432";
const HTTP: &str = "127.0.0.1:7480";

/// Start the server.
///
/// Streams, views and their data are kept in the data directory; a restart goes on where the last run stopped. When the
/// server accepts connections it prints one line on stderr: "ready: postgres ADDR:PORT, http ADDR:PORT". SIGTERM or
/// Ctrl-C stops it: sources stop, everything is synced, clients are told.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Directory for streams, their logs and the catalog; created if missing
    #[arg(long, value_name = "DIR", env = "LOGWEIR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address for Postgres clients; port 0 takes a free one [default: 127.0.0.1:7432]
    #[arg(long, value_name = "ADDR:PORT", env = "LOGWEIR_PG")]
    pub pg: Option<String>,

    /// Address for logs by HTTP, /health and /metrics; port 0 takes a free one [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR:PORT", env = "LOGWEIR_HTTP")]
    pub http: Option<String>,

    /// Whoever posts logs by HTTP must know it: 'TOKEN', '${ENV:NAME}' or '${FILE:/path}' [default: anybody may]
    #[arg(long, value_name = "TOKEN", env = "LOGWEIR_HTTP_TOKEN", hide_env_values = true)]
    pub http_token: Option<String>,

    /// PEM file with the certificate of this server, and those between it and the authority: both addresses then take
    /// TLS. Read again on SIGHUP and when it changes
    #[arg(long, value_name = "FILE", env = "LOGWEIR_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", env = "LOGWEIR_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// PEM file with authorities of clients: whose certificate names a role needs no password
    #[arg(long, value_name = "FILE", env = "LOGWEIR_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,

    /// Take encrypted connections only
    #[arg(long, env = "LOGWEIR_TLS_REQUIRE")]
    pub tls_require: bool,

    /// Let anybody in on addresses other than loopback while there are no roles
    #[arg(long, env = "LOGWEIR_INSECURE")]
    pub insecure: bool,

    /// Folder below which statements may name files; may be given several times [default: everywhere]
    #[arg(long, value_name = "DIR")]
    pub allow_root: Vec<PathBuf>,

    /// Machine that statements may name (sinks, notifiers, brokers, checks, buckets), or '*.example.org'; may be given
    /// several times [default: all]
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,

    /// SQL file to run at start; may be given several times. What exists already from the same statement is left as it is
    #[arg(long, value_name = "FILE.sql")]
    pub init: Vec<PathBuf>,

    /// TOML file with the same settings (data-dir, pg, http, http-token, tls-cert, tls-key, tls-client-ca, tls-require, insecure, allow-root, allow-host, init, query-memory, memory-per-query, max-queries, spill-limit, view-memory, state-memory, table-memory, max-connections, reserved-connections, authentication-timeout, checkpoint-interval, disk-limit); flags win
    #[arg(long, value_name = "FILE", env = "LOGWEIR_CONFIG")]
    pub config: Option<PathBuf>,

    /// Memory that queries may use together before they spill to disk [default: 1 GiB, at most a quarter of the memory]
    #[arg(long, value_name = "SIZE", env = "LOGWEIR_QUERY_MEMORY")]
    pub query_memory: Option<String>,

    /// Memory that one query may take before it spills, or fails where it cannot [default: three quarters of --query-memory]
    #[arg(long, value_name = "SIZE", env = "LOGWEIR_MEMORY_PER_QUERY")]
    pub memory_per_query: Option<String>,

    /// Queries that compute at one time; others wait for their turn [default: 32]
    #[arg(long, value_name = "N", env = "LOGWEIR_MAX_QUERIES")]
    pub max_queries: Option<usize>,

    /// Space in the data directory that queries may spill to; one that needs more fails [default: 100 GiB]
    #[arg(long, value_name = "SIZE", env = "LOGWEIR_SPILL_LIMIT")]
    pub spill_limit: Option<String>,

    /// Memory that a materialized view's state may take, unless it has a memory_limit of its own; what does not fit is
    /// kept on disk [default: 2 GiB]
    #[arg(long, value_name = "SIZE", env = "LOGWEIR_VIEW_MEMORY")]
    pub view_memory: Option<String>,

    /// Memory that one reference table may take; a larger one is refused [default: 256 MiB]
    #[arg(long, value_name = "SIZE", env = "LOGWEIR_TABLE_MEMORY")]
    pub table_memory: Option<String>,
    /// Memory that the states of all materialized views may take together; the least used parts of what does not fit are
    /// kept on disk [default: a quarter of the memory]
    #[arg(long, value_name = "SIZE", env = "LOGWEIR_STATE_MEMORY")]
    pub state_memory: Option<String>,

    /// Postgres connections at one time, of clients that have logged in [default: 100]
    #[arg(long, value_name = "N", env = "LOGWEIR_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,

    /// So many of them are kept for administrators [default: 3]
    #[arg(long, value_name = "N", env = "LOGWEIR_RESERVED_CONNECTIONS")]
    pub reserved_connections: Option<usize>,

    /// A Postgres client has this long to log in [default: 60 seconds]
    #[arg(long, value_name = "INTERVAL", env = "LOGWEIR_AUTHENTICATION_TIMEOUT")]
    pub authentication_timeout: Option<String>,

    /// How often the states of views are made durable: a restart reads the log from there [default: 10 seconds]
    #[arg(long, value_name = "INTERVAL", env = "LOGWEIR_CHECKPOINT_INTERVAL")]
    pub checkpoint_interval: Option<String>,

    /// Space that the data directory may take; beyond it sources pause until retention or an operator makes room
    /// [default: what the disk has]
    #[arg(long, value_name = "SIZE", env = "LOGWEIR_DISK_LIMIT")]
    pub disk_limit: Option<String>,
}

/// A server's settings, from flags and file.
pub struct Settings {
    pub engine: Config,
    pub pg: String,
    pub http: String,
    pub http_token: Option<Secret>,
    /// SQL texts to run at start, with the names of their files.
    pub init: Vec<(String, String)>,
    pub limits: Limits,
    /// Anybody may come in from anywhere while there are no roles.
    pub insecure: bool,
    /// Folders and machines that statements may name.
    pub allowed: (Vec<PathBuf>, Vec<String>),
}

impl ServeArgs {
    fn settings(self) -> Result<Settings> {
        let file = self.config.as_deref().map(config::File::read).transpose()?.unwrap_or_default();
        let data_dir = self.data_dir.or(file.data_dir).ok_or_else(|| {
            Error::new(Kind::InvalidParameter, "no data directory is given").with_hint("Use --data-dir DIR.")
        })?;
        let mut engine = Config { data_dir: Some(data_dir), ..Config::default() };
        if let Some(size) = self.query_memory.or(file.query_memory) {
            engine.query_memory = config::size(&size).map_err(|e| Error::new(Kind::InvalidParameter, e))?;
            engine.memory_per_query = config::part_of_one(engine.query_memory);
        }
        if let Some(size) = self.memory_per_query.or(file.memory_per_query) {
            engine.memory_per_query = config::size(&size).map_err(|e| Error::new(Kind::InvalidParameter, e))?;
        }
        if let Some(n) = self.max_queries.or(file.max_queries) {
            engine.max_queries = n;
        }
        if let Some(size) = self.spill_limit.or(file.spill_limit) {
            engine.spill_limit = config::size(&size).map_err(|e| Error::new(Kind::InvalidParameter, e))?;
        }
        if let Some(size) = self.view_memory.or(file.view_memory) {
            engine.view_memory = config::size(&size).map_err(|e| Error::new(Kind::InvalidParameter, e))?;
        }
        if let Some(size) = self.table_memory.or(file.table_memory) {
            engine.table_memory = config::size(&size).map_err(|e| Error::new(Kind::InvalidParameter, e))?;
        }
        if let Some(size) = self.state_memory.or(file.state_memory) {
            engine.state_memory = config::size(&size).map_err(|e| Error::new(Kind::InvalidParameter, e))?;
        }
        if let Some(interval) = self.checkpoint_interval.or(file.checkpoint_interval) {
            engine.checkpoint_interval = parse_duration(&interval)?;
        }
        if let Some(size) = self.disk_limit.or(file.disk_limit) {
            engine.disk_limit = Some(config::size(&size).map_err(|e| Error::new(Kind::InvalidParameter, e))?);
        }
        let mut limits = Limits::default();
        if let Some(n) = self.max_connections.or(file.max_connections) {
            limits.max_connections = n;
        }
        if let Some(n) = self.reserved_connections.or(file.reserved_connections) {
            limits.reserved_connections = n;
        }
        if let Some(interval) = self.authentication_timeout.or(file.authentication_timeout) {
            limits.authentication_timeout = parse_duration(&interval)?;
        }
        let certificate = (self.tls_cert.or(file.tls_cert), self.tls_key.or(file.tls_key));
        let client_ca = self.tls_client_ca.or(file.tls_client_ca);
        let required = self.tls_require || file.tls_require;
        limits.tls = match certificate {
            (Some(cert), Some(key)) => Some(Tls::load(tls::Settings { cert, key, client_ca, required })?),
            (None, None) if !required && client_ca.is_none() => None,
            (None, _) | (_, None) => {
                return Err(Error::new(Kind::InvalidParameter, "TLS needs a certificate and its key")
                    .with_hint("Give both --tls-cert and --tls-key."));
            }
        };
        let http_token = self.http_token.or(file.http_token);
        if let Some(token) = &http_token {
            Secret::new(token).check("http-token")?;
        }
        let read = |path: PathBuf| -> Result<(String, String)> {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
            Ok((path.display().to_string(), text))
        };
        Ok(Settings {
            engine,
            pg: self.pg.or(file.pg).unwrap_or_else(|| PG.into()),
            http: self.http.or(file.http).unwrap_or_else(|| HTTP.into()),
            http_token: http_token.as_deref().map(Secret::new),
            insecure: self.insecure || file.insecure,
            allowed: (
                file.allow_root.into_iter().chain(self.allow_root).collect(),
                file.allow_host.into_iter().chain(self.allow_host).collect(),
            ),
            init: file.init.into_iter().chain(self.init).map(read).collect::<Result<_>>()?,
            limits,
        })
    }
}

pub fn run(args: ServeArgs) -> Result<()> {
    // What lapin has to say comes back to us as errors of its source, too.
    start_logging("logweir=info,warn,lapin=off");
    let settings = args.settings()?;
    let (roots, hosts) = &settings.allowed;
    reach::limit(roots, hosts)?;
    io_runtime()?.block_on(async {
        // Whoever reads the line below may send a signal at once.
        let mut stopped = std::pin::pin!(wait_for_signal()?);
        let mut starting = std::pin::pin!(Server::start(settings));
        let server = tokio::select! {
            server = &mut starting => server?,
            done = &mut stopped => {
                done?;
                // As safe as a kill, which everything stored is made for. To end in order would drop the start half done, and
                // the threads that read Delta's log for it would find their runtime gone.
                std::process::exit(0);
            }
        };
        eprintln!("ready: postgres {}, http {}", server.pg, server.http);
        stopped.await?;
        server.stop().await
    })
}

/// A running server.
pub struct Server {
    pub databases: Arc<Databases>,
    pub pg: std::net::SocketAddr,
    pub http: std::net::SocketAddr,
    shutdown: CancellationToken,
    doors: tokio::task::JoinSet<Result<()>>,
}

impl Server {
    /// Binds both addresses first (a taken port is found before the log is replayed), opens the engine, runs the init
    /// texts and starts to serve.
    pub async fn start(settings: Settings) -> Result<Server> {
        let (pg_listener, pg) = bind(&settings.pg).await?;
        let (http_listener, http) = bind(&settings.http).await?;
        let prometheus = install_metrics();
        let compute = Compute::new()?;
        let (config, clock) = (settings.engine, Clock::system());
        let engine = compute.spawn(sql::open(config.clone(), clock.clone())).await??;
        let databases = {
            let open: database::Open = |config, clock| Box::pin(sql::open(config, clock));
            let server = (config, settings.limits.max_connections);
            Databases::open(Arc::clone(&engine), compute.clone(), server, clock, open).await?
        };
        for (file, text) in settings.init {
            let session = Session::new(Arc::clone(&engine));
            let done = compute.spawn(async move { run_init(&session, &text).await }).await?;
            done.map_err(|err| err.with_context(&format!("in {file}")))?;
        }
        let token = settings.http_token;
        if !settings.insecure {
            check_closed(&engine, pg, http, token.is_some())?;
        }
        let shutdown = CancellationToken::new();
        let mut doors = tokio::task::JoinSet::new();
        let tls = settings.limits.tls.clone();
        if let Some(tls) = &tls {
            let watching = tls.watch(shutdown.clone())?;
            doors.spawn(async {
                watching.await;
                Ok(())
            });
        }
        doors.spawn(serve_postgres(pg_listener, Arc::clone(&databases), settings.limits, shutdown.clone()));
        let gauges = Arc::downgrade(&databases);
        let render = move || {
            let databases = gauges.upgrade().map(|databases| databases.all()).unwrap_or_default();
            databases.iter().filter_map(|database| database.engine().ok()).for_each(|engine| set_gauges(&engine));
            prometheus.as_ref().map(PrometheusHandle::render).unwrap_or_default()
        };
        doors.spawn(serve_http(http_listener, Arc::clone(&databases), token, tls, render, shutdown.clone()));
        Ok(Server { databases, pg, http, shutdown, doors })
    }

    /// Stops sources and syncs, then closes the doors.
    pub async fn stop(mut self) -> Result<()> {
        tracing::info!("stopping");
        self.databases.shutdown().await;
        self.shutdown.cancel();
        while let Some(done) = self.doors.join_next().await {
            done.map_err(|e| Error::internal(e.to_string()))??;
        }
        Ok(())
    }
}

/// Fails when others could come in without saying who they are: on an address that is not loopback, while there are no
/// roles. `has_token`: whoever posts logs has to know the server's token.
fn check_closed(engine: &Engine, pg: SocketAddr, http: SocketAddr, has_token: bool) -> Result<()> {
    let open = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    for address in [Some(pg), Some(http).filter(|_| !has_token)].into_iter().flatten().filter(open) {
        engine.demand_roles().map_err(|err| {
            err.with_context(&format!("could not listen on {address}")).with_hint(
                "Make an administrator first, with --init FILE or on 127.0.0.1: CREATE ROLE name ADMIN LOGIN PASSWORD '…'. \
                 Or say --insecure.",
            )
        })?;
    }
    Ok(())
}

async fn bind(address: &str) -> Result<(TcpListener, std::net::SocketAddr)> {
    let failed = |e: std::io::Error| {
        let err = Error::new(Kind::ObjectInUse, format!("could not listen on {address}: {e}"));
        match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                err.with_hint("Another program uses the port; choose one with --pg or --http.")
            }
            _ => err,
        }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// Runs an init text statement by statement. An object that the very same statement made before is left as it is.
pub async fn run_init(session: &Session, text: &str) -> Result<()> {
    for statement in session.parse(text)? {
        let text = statement.to_string();
        match session.run_text(&text).await {
            Ok(notices) => notices.iter().for_each(|notice| tracing::info!("{notice}")),
            Err(err)
                if err.kind() == Kind::DuplicateTable && session.engine().objects().iter().any(|o| o.sql == text) => {}
            Err(err) => {
                return Err(err.with_context(&format!("in the statement {:?}", first_line(&without_secrets(&text)))));
            }
        }
    }
    Ok(())
}

fn first_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .find(|l| !l.is_empty() && !l.starts_with("--"))
        .unwrap_or_default()
        .chars()
        .take(80)
        .collect()
}

/// The process has one recorder; a second server in the same process (tests) shows no metrics.
fn install_metrics() -> Option<PrometheusHandle> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).is_ok().then_some(handle)
}

/// Figures that are known only when asked for.
fn set_gauges(engine: &Engine) {
    for stream in engine.streams() {
        let progress = stream.runner.progress();
        let label = || of_database(engine, "stream", &stream.name);
        metrics::gauge!("logweir_stream_rows", &label()).set(progress.rows as f64);
        metrics::gauge!("logweir_stream_malformed", &label()).set(progress.malformed as f64);
        metrics::gauge!("logweir_stream_late_rows", &label()).set(progress.watermark.late() as f64);
        metrics::gauge!("logweir_stream_wal_bytes", &label()).set(stream.runner.log.wal().bytes() as f64);
        metrics::gauge!("logweir_stream_hot_bytes", &label()).set(stream.runner.log.resident() as f64);
    }
    for sink in engine.sinks() {
        let (now, label) = (sink.status.get(), || of_database(engine, "sink", &sink.name));
        metrics::gauge!("logweir_sink_rows", &label()).set(now.rows as f64);
        metrics::gauge!("logweir_sink_dead_rows", &label()).set(now.dead as f64);
        metrics::gauge!("logweir_sink_lost_offsets", &label()).set(now.lost as f64);
        metrics::gauge!("logweir_sink_retries", &label()).set(now.retries as f64);
        metrics::gauge!("logweir_sink_lag", &label()).set(sink.lag().unwrap_or(0) as f64);
    }
    for view in engine.views() {
        let rollups = || view.slots.iter().filter_map(|s| s.rollup.get());
        let (bytes, disk) =
            (rollups().map(|r| r.bytes()).sum::<usize>(), rollups().map(|r| r.disk_bytes()).sum::<u64>());
        let label = || of_database(engine, "view", &view.name);
        metrics::gauge!("logweir_view_state_bytes", &label()).set(bytes as f64);
        metrics::gauge!("logweir_view_state_disk_bytes", &label()).set(disk as f64);
    }
}

/// The labels of what is called `name`: of a tenant also its database.
fn of_database(engine: &Engine, kind: &'static str, name: &str) -> Vec<(&'static str, String)> {
    let database = Some(engine.database()).filter(|_| !engine.is_main());
    let database = database.map(|database| ("database", database.to_string()));
    [(kind, name.to_string())].into_iter().chain(database).collect()
}

/// Listens for SIGTERM and Ctrl-C from now on; the future ends when one has come.
pub fn wait_for_signal() -> Result<impl Future<Output = Result<()>>> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Error::internal(format!("could not wait for signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
