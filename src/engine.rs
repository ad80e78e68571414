//! The engine: all streams and views of one server, and the SQL catalog that shows them.
//!
//! Creates, finds and drops objects and runs plans, each pinned to one instant. It knows no SQL text (that is `sql`'s)
//! and no sockets (`server`'s). [`sources`] makes further sources of streams, [`sinks`] lets results out, [`alerts`] watches them and tells people, [`reports`] tells them on a schedule, [`insert`] puts rows of statements into them, [`pushed`] tells what became of pushed lines, [`query`] runs queries within limits, [`quotas`] bounds a tenant, [`ahead`] optimizes those that come again, [`point`] answers those of one row at once,
//! [`computed`] plans the columns of streams that are computed, [`tables`] makes reference tables, [`import`] reads old files into a stream, [`replace`] puts relations in the place of others, [`roles`] keeps who may do what, [`owners`] to whom objects belong, [`restore`] goes on from where the last process
//! stopped, and [`upkeep`] sees to it that the next one can.

mod ahead;
mod alerts;
mod computed;
mod import;
mod insert;
mod owners;
mod point;
mod pushed;
mod query;
mod quotas;
mod replace;
mod reports;
mod restore;
mod roles;
mod sinks;
mod sources;
mod subscribe;
mod tables;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, TableType};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::projection_pushdown::ProjectionPushdown;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use parking_lot::{Mutex, RwLock};

use crate::access::Actor;
use crate::backend::Backends;
use crate::batch::{Include, Shape};
use crate::catalog::postgres::functions::Functions;
use crate::catalog::postgres::roles::Roles as CatalogRoles;
use crate::catalog::postgres::snapshot::{Snapshot, Snapshots};
use crate::catalog::postgres::views as postgres_views;
use crate::catalog::relations::Relations;
use crate::catalog::system::{RELATIONS, SystemTable};
use crate::catalog::{Catalog, Comments, Object, ObjectKind, Origin};
use crate::config::{Config, MAIN_DATABASE};
use crate::database::Databases;
use crate::delivery::dead::SUFFIX as DEAD_SUFFIX;
use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;
use crate::format::{self, Declared, Format};
use crate::ingest::{Ingest, SourceStatus, Start};
use crate::opaque::{Opaque, Scanned, scan_at_once};
use crate::options::{OptionKind, OptionSpec, Options, with_nearest};
use crate::reach;
use crate::rollup::budget::{Budget, Memory};
use crate::rollup::cut::stream_column;
use crate::rollup::group::GroupRule;
use crate::rollup::interval::Partner;
use crate::rollup::plan::{Emission, Slot, provider_of, split};
use crate::rollup::reference::Reference;
use crate::rollup::versions::with_versions;
use crate::rollup::watermark::Watermark;
use crate::rollup::{self, Rollup};
use crate::source;
use crate::storage::archive::tally::TallyRule;
use crate::storage::fs::{Disk, Fs};
use crate::storage::hot::Shared;
use crate::storage::keys::Keys;
use crate::storage::lock::DataDirLock;
use crate::storage::space::Space;
use crate::storage::stream_log::{IMPORTS, OWN, Positions, StreamLog};
use crate::storage::table_store::TableStore;
use crate::storage::wal::{Location, SyncMode, WalOptions};
use crate::task::Compute;
use crate::time::{Clock, Micros};
use crate::view::fill::{FillNode, FillPlanner};
use crate::view::options::ViewOptions;
use crate::view::pin::pin;
use crate::view::runner::Runner;
use crate::view::table::{Part, StreamTable};
pub use ahead::Ahead;
use alerts::Alerting;
pub use alerts::{AlertHandle, NotifierDefinition, NotifierHandle};
pub use computed::{ComputedDefinition, build_format};
pub use import::Import;
pub use insert::{Inserted, Inserter};
pub use owners::{may_not_create, owner_of};
pub use replace::Remake;
use replace::{Draft, wrong_kind};
pub use reports::ReportHandle;
use restore::{Durable, Fill, Second, fill, finish};
pub use sinks::{SinkDefinition, SinkHandle};
pub use sources::SourceDefinition;
use sources::{source_options, status};
pub use tables::Content;
pub use upkeep::Chore;
use upkeep::Upkeep;

/// Name of the SQL catalog of the main database (others are called as their database is, see [`Engine::database`]) and of
/// the schemas in each.
pub const CATALOG: &str = MAIN_DATABASE;
pub const PUBLIC: &str = "public";
pub const SYSTEM: &str = "logweir";

/// So long CREATE MATERIALIZED VIEW waits for the view to be filled; then it goes on in the background.
const FILL_PATIENCE: Duration = Duration::from_secs(10);

/// So long CREATE waits for the first rows of a stream whose columns they tell.
const FIRST_ROWS: Duration = Duration::from_secs(1);

/// The relations that stand beside each stream: suffix of the name, and what they show.
pub static COMPANIONS: &[(&str, Part)] = &[("__malformed", Part::Malformed), ("__late", Part::Late)];

/// The option that says where a stream's archive is.
pub const ARCHIVE: &str = "archive";

/// Options of every source, besides its connector's.
pub static SOURCE_OPTIONS: &[OptionSpec] = &[OptionSpec::optional(
    "validate",
    OptionKind::Bool,
    Some("true"),
    "refuse to create a source that does not work now; with false it is tried again until it does",
)];

/// Options of every stream, besides its connector's.
pub static STREAM_OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional(
        "idle_timeout",
        OptionKind::Interval,
        Some("10 seconds"),
        "a file or connection silent for this long no longer holds the watermark back; then event time goes on with the wall clock",
    ),
    OptionSpec::optional(
        "max_future",
        OptionKind::Interval,
        Some("1 hour"),
        "rows further ahead of the wall clock are kept and counted but do not move the watermark",
    ),
    OptionSpec::optional(
        "wal_sync",
        OptionKind::Text,
        Some("10ms"),
        "how often the log is synced to disk: an interval, 'always' (before each batch is acknowledged) or 'off'",
    ),
    OptionSpec::optional("wal_segment_bytes", OptionKind::Bytes, Some("256 MiB"), "size of one file of the log"),
    OptionSpec::optional(
        "push_bytes",
        OptionKind::Bytes,
        Some("64 MiB"),
        "so much may have been pushed (HTTP, INSERT, COPY) and not be in the log yet; one batch is not larger",
    ),
    OptionSpec::optional(
        "idempotency_keys",
        OptionKind::Integer,
        Some("100000"),
        "so many keys of pushed batches are remembered: a batch that is pushed again under its key adds nothing",
    ),
    OptionSpec::optional(
        "idempotency_window",
        OptionKind::Interval,
        Some("1 day"),
        "keys of pushed batches are remembered for this time",
    ),
    OptionSpec::optional(
        "hot_bytes",
        OptionKind::Bytes,
        Some("256 MiB"),
        "rows kept in memory; older rows are read from the log when a query needs them",
    ),
    OptionSpec::optional(
        ARCHIVE,
        OptionKind::Text,
        None,
        "where the stream's rows are kept as Delta tables: a directory, s3://bucket/prefix, or 'off' (then the log keeps them) [default: in the data directory]",
    ),
    OptionSpec::optional(
        "archive_bytes",
        OptionKind::Bytes,
        Some("128 MiB"),
        "so much log goes to the archive at once",
    ),
    OptionSpec::optional(
        "archive_interval",
        OptionKind::Interval,
        Some("1 minute"),
        "rows go to the archive after this time at the latest",
    ),
    OptionSpec::optional(
        "retention",
        OptionKind::Interval,
        None,
        "days of event time that ended longer ago than this are dropped from the archive; without one, parts of the log (wal_segment_bytes) that hold nothing younger [default: all are kept]",
    ),
    OptionSpec::optional(
        "retention_bytes",
        OptionKind::Bytes,
        None,
        "the oldest days are dropped from the archive while it is larger than this; without one, the oldest parts of the log [default: no limit]",
    ),
];

/// What CREATE TABLE … WITH (connector …) says.
#[derive(Debug, Clone)]
pub struct StreamDefinition {
    pub name: String,
    /// Of its own source. Without one it is fed by other sources, INSERT and the like.
    pub connector: Option<String>,
    /// Options of the connector and of the stream, as given.
    pub options: Vec<(String, String)>,
    pub format: String,
    pub format_options: Vec<(String, String)>,
    pub declared: Vec<Declared>,
    /// What the texts of declared columns are, where they are more than texts.
    pub subtypes: Vec<(String, Subtype)>,
    pub includes: Vec<Include>,
    pub computed: Vec<ComputedDefinition>,
    /// `WATERMARK FOR column AS column - delay`.
    pub watermark: Option<(String, Micros)>,
}

impl StreamDefinition {
    /// Its format, which knows nothing yet.
    pub fn format(&self) -> Result<Box<dyn Format>> {
        let time = self.watermark.as_ref().map(|(column, _)| column.as_str());
        build_format(&self.format, &self.format_options, &self.declared, &self.computed, time)
    }
}

/// A running stream.
pub struct Stream {
    pub name: String,
    pub definition: StreamDefinition,
    pub runner: Arc<Runner>,
    /// The id of its object in the catalog.
    pub id: u32,
    dir: PathBuf,
    // The archive: when rows go there, how long they stay, and how that goes.
    archive_bytes: u64,
    archive_interval: Micros,
    retention: Option<Micros>,
    retention_bytes: Option<u64>,
    /// It is in the data directory and goes with the stream.
    archive_is_default: bool,
    push_bytes: u64,
    pub archiving: Chore,
    pub keeping: Chore,
    clock: Clock,
    space: Arc<Space>,
    /// Where its sources go on: what opening the log found.
    positions: Positions,
    /// The first record of the log that has to be read again.
    from: Option<Location>,
    /// Sources that have not been started yet, and the pipeline once it runs.
    waiting: Mutex<Vec<sources::Waiting>>,
    ingest: RwLock<Option<Arc<Ingest>>>,
    imports: import::Imports,
}

impl Stream {
    pub fn sources(&self) -> Vec<Arc<SourceStatus>> {
        self.ingest.read().as_ref().map_or_else(Vec::new, |i| i.sources())
    }

    /// Why its sources wait, if they do.
    pub fn paused(&self) -> Option<Error> {
        self.ingest.read().as_ref().and_then(|ingest| ingest.paused())
    }

    /// Replays the log, then starts the sources. The receiver is told when the replay is visible.
    fn start(&self) -> Result<tokio::sync::oneshot::Receiver<()>> {
        let (positions, from) = (self.positions.clone(), self.from);
        let (space, clock) = (Arc::clone(&self.space), self.clock.clone());
        let start = Start { positions, from, space, clock, push_bytes: self.push_bytes };
        let ingest = Ingest::start(&self.name, Arc::clone(&self.runner), start)?;
        let replayed = ingest.barrier()?;
        let waiting = std::mem::take(&mut *self.waiting.lock());
        self.runner.keep_sources(|id| id == IMPORTS || waiting.iter().any(|(_, status)| status.id == id));
        ingest.add_sources(waiting)?;
        *self.ingest.write() = Some(ingest);
        Ok(replayed)
    }

    /// Adds a source before the stream starts.
    fn add_later(&self, source: sources::Waiting) {
        self.waiting.lock().push(source);
    }

    /// Its pipeline, to push to.
    pub fn pipeline(&self) -> Result<Arc<Ingest>> {
        self.ingest
            .read()
            .clone()
            .ok_or_else(|| Error::new(Kind::NotReady, format!("stream \"{}\" is not running", self.name)))
    }

    /// Fails when no rows will come any more.
    fn check_running(&self) -> Result<()> {
        match self.ingest.read().as_ref() {
            Some(ingest) => ingest.failure().map_or(Ok(()), Err),
            None => Err(Error::new(Kind::Shutdown, format!("stream \"{}\" was stopped", self.name))),
        }
    }

    fn stop(&self) {
        let ingest = self.ingest.write().take();
        if let Some(ingest) = ingest {
            ingest.stop();
        }
    }
}

/// A materialized view: its finish plan over the slots of its rollups.
pub struct View {
    pub name: String,
    pub sql: String,
    pub options: ViewOptions,
    pub finish: Opaque<LogicalPlan>,
    /// The finish plan with `_final` and `_revision`, where windows can be told apart.
    pub versions: Option<Opaque<LogicalPlan>>,
    pub slots: Vec<Arc<Slot>>,
    /// The stream whose rows it shows, when it has no aggregate: then nothing is kept for it.
    pub derived: Option<String>,
}

impl View {
    fn uses(&self, key: &str) -> bool {
        self.slots.iter().any(|slot| slot.definition.key == key)
    }

    /// The column of a derived stream that hands the event time of its stream through, if one does.
    pub fn time(&self, stream_time: Option<&str>) -> Option<String> {
        let columns = self.finish.schema().fields().len();
        let origin = |i: usize| stream_column(i, &self.finish);
        let at = (0..columns).find(|&i| self.derived.is_some() && origin(i).as_deref() == stream_time)?;
        stream_time.map(|_| self.finish.schema().field(at).name().clone())
    }

    pub fn reads_stream(&self, stream: &str) -> bool {
        self.derived.as_deref() == Some(stream)
            || self.slots.iter().any(|s| s.definition.streams().any(|name| name == stream))
    }
}

/// A view in the SQL catalog: reading it means running its finish plan.
#[derive(Debug)]
pub struct ViewTable {
    finish: Opaque<LogicalPlan>,
    /// The same with the columns `_final` and `_revision`, where windows can be told apart.
    pub versions: Option<Opaque<LogicalPlan>>,
    sql: String,
    schema: SchemaRef,
}

impl ViewTable {
    fn new(view: &View) -> ViewTable {
        let schema = Arc::new(view.finish.schema().as_arrow().clone());
        ViewTable { finish: view.finish.clone(), versions: view.versions.clone(), sql: view.sql.clone(), schema }
    }
}

impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.sql)
    }

    fn get_logical_plan(&self) -> Option<std::borrow::Cow<'_, LogicalPlan>> {
        Some(std::borrow::Cow::Borrowed(&self.finish))
    }

    scan_at_once!(ViewTable);
}

impl ViewTable {
    fn plan_scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Scanned {
        Err(Error::internal("a view is read through its finish plan").into())
    }
}

/// See the file header.
pub struct Engine {
    fs: Arc<dyn Fs>,
    config: Config,
    clock: Clock,
    context: Opaque<SessionContext>,
    public: Arc<Relations>,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    views: RwLock<BTreeMap<String, Arc<View>>>,
    /// Reference tables, and external tables as far as they are joined with streams.
    tables: RwLock<BTreeMap<String, Arc<Reference>>>,
    sinks: RwLock<BTreeMap<String, Arc<SinkHandle>>>,
    /// Where deliveries run, once there is a sink.
    delivering: OnceLock<Compute>,
    alerting: Alerting,
    /// The clients that are connected, and the channels on which they speak.
    backends: Backends,
    /// For the queries that compute at one time.
    places: query::Places,
    store: TableStore,
    /// Queries that are subscribed to: views without a name, for as long as somebody listens.
    guests: RwLock<Vec<Arc<View>>>,
    catalog: Mutex<Catalog>,
    access: roles::Held,
    /// PostgreSQL's catalog as it was when somebody asked last.
    snapshots: Snapshots,
    /// Changes with every relation.
    generation: AtomicU64,
    remake: OnceLock<Arc<dyn Remake>>,
    /// Where the states of views are kept.
    memory: Memory,
    /// What the rows in memory of all streams may take, if that is bounded.
    rows_memory: Option<Shared>,
    /// What outlives the process; `None` without a data directory.
    durable: Option<Durable>,
    last_checkpoint: Mutex<upkeep::Last>,
    upkeep: Upkeep,
    /// Rollups without a state to go on from, to be filled when the logs have been read.
    unfilled: Mutex<Vec<restore::Unfilled>>,
    /// One DDL statement at a time.
    ddl: tokio::sync::Mutex<()>,
    /// Objects are being made again from the catalog: streams do not start yet and nothing is written down.
    restoring: std::sync::atomic::AtomicBool,
    /// The databases of the server, of which this is one.
    home: OnceLock<Weak<Databases>>,
    _lock: Option<DataDirLock>,
}

impl Engine {
    /// Opens the data dir (if any) and its catalog; `extend` adds SQL functions and planners to the session. Objects are
    /// made again by whoever knows SQL, between [`Engine::objects`] and [`Engine::start`].
    pub fn open(
        config: Config,
        clock: Clock,
        extend: impl FnOnce(SessionStateBuilder) -> SessionStateBuilder,
    ) -> Result<Arc<Engine>> {
        Engine::open_on(Arc::new(Disk), config, clock, extend)
    }

    /// The same on another disk than the system's. The lock and what queries spill are on the system's all the same: neither
    /// outlives the process.
    pub fn open_on(
        fs: Arc<dyn Fs>,
        config: Config,
        clock: Clock,
        extend: impl FnOnce(SessionStateBuilder) -> SessionStateBuilder,
    ) -> Result<Arc<Engine>> {
        let lock = match &config.data_dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|e| Error::io("create the data directory", dir, &e))?;
                Some(DataDirLock::acquire(dir)?)
            }
            None => None,
        };
        let mut catalog = Catalog::open(Arc::clone(&fs), config.data_dir.as_deref())?;
        if let Some(dir) = &config.data_dir {
            restore::settle(&mut catalog, &*fs, dir)?;
        }
        let durable = config.data_dir.as_deref().map(|dir| Durable::open(&fs, &config, dir)).transpose()?;
        let memory = Memory {
            store: durable.as_ref().map(|durable| Arc::clone(&durable.states) as _),
            budget: Budget::new(usize::try_from(config.state_memory).unwrap_or(usize::MAX)),
        };
        let rows_memory = config.rows_memory.map(Shared::new);
        let context = SessionContext::new_with_state(extend(session_state(&config)?).build());
        let relations = Arc::new(MemoryCatalogProvider::new());
        let (public, system) = (Arc::new(Relations::default()), Arc::new(MemorySchemaProvider::new()));
        use datafusion::catalog::CatalogProvider;
        relations.register_schema(PUBLIC, Arc::clone(&public) as _)?;
        relations.register_schema(SYSTEM, Arc::clone(&system) as _)?;
        context.register_catalog(&config.database, relations);

        let alerting = Alerting::open(&fs, config.data_dir.as_deref())?;
        let store = TableStore::new(Arc::clone(&fs), config.data_dir.as_deref());
        let (backends, places) = (Backends::new(clock.clone()), query::Places::new(config.max_queries));
        let engine = Arc::new(Engine {
            fs,
            config,
            clock,
            context: context.into(),
            public,
            streams: RwLock::default(),
            views: RwLock::default(),
            tables: RwLock::default(),
            sinks: RwLock::default(),
            delivering: OnceLock::new(),
            alerting,
            backends,
            places,
            store,
            guests: RwLock::default(),
            catalog: Mutex::new(catalog),
            access: roles::Held::default(),
            snapshots: Snapshots::default(),
            generation: AtomicU64::new(0),
            remake: OnceLock::new(),
            memory,
            rows_memory,
            durable,
            last_checkpoint: Mutex::default(),
            upkeep: Upkeep::default(),
            unfilled: Mutex::default(),
            ddl: tokio::sync::Mutex::new(()),
            restoring: std::sync::atomic::AtomicBool::new(true),
            home: OnceLock::new(),
            _lock: lock,
        });
        for relation in RELATIONS {
            let weak: Weak<Engine> = Arc::downgrade(&engine);
            system.register_table(relation.name.into(), Arc::new(SystemTable::new(relation, weak)))?;
        }
        for relation in postgres_views::RELATIONS {
            let weak: Weak<Engine> = Arc::downgrade(&engine);
            engine.public.put_behind(relation.name, Arc::new(SystemTable::new(relation, weak)));
        }
        Ok(engine)
    }

    /// The objects of the catalog, in the order in which they were made.
    pub fn objects(&self) -> Vec<Object> {
        self.catalog.lock().objects().to_vec()
    }

    /// PostgreSQL's catalog as it is now.
    pub fn catalog_snapshot(self: &Arc<Self>) -> Arc<Snapshot> {
        self.snapshots.now(self, &CatalogRoles(Arc::downgrade(self)))
    }

    /// Says which functions there are, for the catalog. Called once, when all are registered.
    pub fn set_functions(&self, functions: Functions) {
        self.snapshots.set_functions(functions);
    }

    /// What COMMENT ON said of relations, by their names.
    pub fn comments(&self) -> BTreeMap<String, Comments> {
        self.catalog.lock().comments().clone()
    }

    /// Says something of a relation of schema public or of one of its columns; `None` takes it back.
    pub async fn set_comment(&self, name: &str, column: Option<&str>, comment: Option<String>) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        if self.object(name).is_none_or(|object| !object.kind.is_relation()) {
            return Err(self.no_relation(name));
        }
        if let Some(column) = column {
            let table = self.public.get(name).ok_or_else(|| self.no_relation(name))?;
            if table.schema().field_with_name(column).is_err() {
                let message = format!("column \"{column}\" of relation \"{name}\" does not exist");
                let schema = table.schema();
                let names = schema.fields().iter().map(|field| field.name().as_str());
                return Err(with_nearest(Error::new(Kind::UndefinedColumn, message), column, names));
            }
        }
        self.catalog.lock().set_comment(name, column, comment)?;
        self.changed();
        Ok(())
    }

    /// Starts all streams (their logs are replayed, then their sources go on) and waits until every view has caught up
    /// with what was durable.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        self.restoring.store(false, std::sync::atomic::Ordering::SeqCst);
        self.forget_versions();
        let begun = Instant::now();
        let mut waits = Vec::new();
        for stream in self.streams() {
            let replayed = stream.start()?;
            waits.push((stream.pipeline()?, replayed));
        }
        for (ingest, wait) in waits {
            wait.await.map_err(|_| ingest.why_stopped())?;
        }
        let logs = begun.elapsed();
        self.fill_restored().await;
        if !self.streams.read().is_empty() {
            let (logs, views) = (logs.as_millis() as u64, (begun.elapsed() - logs).as_millis() as u64);
            tracing::info!(logs_ms = logs, views_ms = views, "streams have gone on, and views with them");
        }
        self.start_sinks()?;
        self.start_alerts().await?;
        if self.durable.is_some() {
            self.upkeep.start(self)?;
        }
        Ok(())
    }

    /// Whether objects are being made again from the catalog.
    pub fn is_restoring(&self) -> bool {
        self.restoring.load(std::sync::atomic::Ordering::SeqCst)
    }

    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The name of the database that it is.
    pub fn database(&self) -> &str {
        &self.config.database
    }

    /// Whether it is the database of the server's operators, and no tenant.
    pub fn is_main(&self) -> bool {
        self.config.database == CATALOG
    }

    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.read().values().cloned().collect()
    }

    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams.read().get(name).cloned()
    }

    pub fn views(&self) -> Vec<Arc<View>> {
        self.views.read().values().cloned().collect()
    }

    pub fn view(&self, name: &str) -> Option<Arc<View>> {
        self.views.read().get(name).cloned()
    }

    /// The object in the catalog called `name`.
    pub fn object(&self, name: &str) -> Option<Object> {
        self.catalog.lock().get(name).cloned()
    }

    /// Whether there is a relation of this name in schema public.
    pub fn has_relation(&self, name: &str) -> bool {
        self.public.table_exist(name)
    }

    /// "relation does not exist", with the nearest name.
    pub fn no_relation(&self, name: &str) -> Error {
        let names = self.public.table_names();
        let err = Error::new(Kind::UndefinedTable, format!("relation \"{name}\" does not exist"));
        with_nearest(err, name, names.iter().map(String::as_str))
    }

    // ---- creating -------------------------------------------------------------------------------------------------

    /// Creates a stream and starts it. The source's and format's options are checked first; nothing is left behind by a
    /// failure.
    pub async fn create_stream(&self, definition: &StreamDefinition, by: Origin<'_>) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        self.check_free(&definition.name)?;
        let spec = definition.connector.as_deref().map(source::find).transpose()?;
        let options = match spec {
            Some(spec) => source_options(spec, STREAM_OPTIONS, &definition.options)?,
            None => Options::parse("a table without a connector", &[STREAM_OPTIONS], &definition.options)?,
        };
        let format = definition.format()?;
        let (time, delay) = match &definition.watermark {
            Some((column, delay)) => (Some(column.clone()), *delay),
            None => (None, 0),
        };
        let computed = self.plan_computed(&definition.computed, &*format, &definition.includes)?;
        let shape = Shape::computing(format, definition.includes.clone(), computed, time)?;
        let shape = Arc::new(shape.with_subtypes(definition.subtypes.clone()));
        check_time_column(&shape, definition)?;
        let source = match spec {
            Some(spec) => {
                let status = status(OWN, &definition.name, spec, &options)?;
                Some((self.build_source(spec, &options).await?, status))
            }
            None => None,
        };
        self.add_stream(definition, by, shape, delay, options, source).await
    }

    async fn add_stream(
        &self,
        definition: &StreamDefinition,
        by: Origin<'_>,
        shape: Arc<Shape>,
        delay: Micros,
        options: Options,
        source: Option<sources::Waiting>,
    ) -> Result<()> {
        let name = &definition.name;
        let (Some(data_dir), Some(durable)) = (&self.config.data_dir, &self.durable) else {
            return Err(Error::new(Kind::NotSupported, "a stream needs a data directory")
                .with_hint("Start a server with `logweir serve --data-dir DIR`."));
        };
        let id = {
            let catalog = self.catalog.lock();
            catalog.get(name).map_or(catalog.next_id(), |object| object.id)
        };
        let dir = data_dir.join("streams").join(id.to_string());
        if !self.is_restoring() {
            // A process may have died before it wrote down what it had made: that is no part of this stream.
            match self.fs.remove_dir_all(&dir) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &dir, &err)),
                Ok(()) | Err(_) => {}
            }
        }
        let wal = WalOptions {
            sync: options.text("wal_sync").unwrap_or("10ms").parse::<SyncMode>()?,
            segment_bytes: options.bytes("wal_segment_bytes").unwrap_or(256 << 20),
        };
        let hot_bytes = options.bytes("hot_bytes").unwrap_or(256 << 20);
        let micros = |name: &str| options.interval(name).map(|interval| interval.as_micros() as Micros);
        let watermark = Watermark::new(delay, micros("idle_timeout").unwrap_or(0), micros("max_future").unwrap_or(0));
        let place = self.archive_place(&options)?;
        let history = match &place {
            Some(place) => Some(self.open_history(name, place, shape.time.clone()).await?),
            None => None,
        };
        // A new stream has nothing to do with an old one of its number, should a catalog have been put back.
        let (fs, saved) = (Arc::clone(&self.fs), durable.saved(id).filter(|_| self.is_restoring()));
        let known = saved.map(|saved| restore::positions_of(saved, self.clock.now())).unwrap_or_default();
        let most = options.integer("idempotency_keys").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let keys = Keys::new(most, micros("idempotency_window").unwrap_or(0));
        let keys = saved.iter().fold(keys, |keys, saved| keys.with(&saved.keys));
        let (log, opened, positions) = StreamLog::open(fs, &dir, wal, hot_bytes, history, (known, keys))?;
        if let Some(torn) = &opened.truncated {
            tracing::warn!(stream = %name, ?torn, "the log ended in the middle of a record (a crash while writing); that record was never acknowledged and is cut off");
        }
        if let Some(shared) = &self.rows_memory {
            log.share(Arc::clone(shared));
        }
        let runner = Arc::new(Runner::new(shape, Arc::new(log), watermark));
        if self.is_restoring() {
            let keys = runner.log.keys().lock();
            restore::reserve(&mut self.catalog.lock(), name, positions.keys().copied().chain(keys.sources()))?;
        }
        let from = restore::go_on(name, &runner, saved, &positions)?;
        if self.is_restoring() && runner.shape.format.learns() {
            // Views are planned before the log is replayed: their columns must be known by then.
            let wal = runner.log.wal();
            for entry in wal.read(from.map_or(wal.start(), |from| from.max(wal.start())))? {
                runner.shape.learn(&entry?.1.into());
            }
        }
        let stream = Arc::new(Stream {
            name: name.clone(),
            definition: definition.clone(),
            runner: Arc::clone(&runner),
            id,
            dir: dir.clone(),
            archive_bytes: options.bytes("archive_bytes").unwrap_or(128 << 20).max(1),
            archive_interval: micros("archive_interval").unwrap_or(60_000_000),
            retention: micros("retention"),
            retention_bytes: options.bytes("retention_bytes"),
            archive_is_default: options.text("archive").is_none(),
            push_bytes: options.bytes("push_bytes").unwrap_or(64 << 20),
            archiving: Chore::default(),
            keeping: Chore::default(),
            clock: self.clock.clone(),
            space: Arc::clone(&durable.space),
            positions,
            from,
            waiting: Mutex::new(source.into_iter().collect()),
            ingest: RwLock::new(None),
            imports: import::Imports::default(),
        });
        if !self.is_restoring() {
            // Written down first: what a source gives is acknowledged, and must not be in a log that nobody knows.
            let made = self.remember(ObjectKind::Stream, name, by, BTreeSet::new()).and_then(|()| {
                let started = stream.start().map(drop);
                if started.is_err() {
                    self.catalog.lock().remove(std::slice::from_ref(name))?;
                }
                started
            });
            if let Err(err) = made {
                stream.stop();
                let _ = self.fs.remove_dir_all(&dir);
                return Err(err);
            }
        }
        self.public.register_table(name.clone(), Arc::new(StreamTable::new(name, Arc::clone(&runner), Part::Rows)))?;
        for (suffix, part) in COMPANIONS {
            let companion = StreamTable::new(name, Arc::clone(&runner), *part);
            self.public.register_table(format!("{name}{suffix}"), Arc::new(companion))?;
        }
        self.streams.write().insert(name.clone(), Arc::clone(&stream));
        self.changed();
        if !self.is_restoring() {
            first_rows(&stream).await;
        }
        Ok(())
    }

    /// Creates a materialized view from its analyzed plan and fills it from what its streams already have; returns when
    /// it is complete. `reads` are the relations that its query names. With `replace`, an existing materialized view of
    /// this name gives way once the new one is complete.
    pub async fn create_view(
        &self,
        name: &str,
        by: Origin<'_>,
        plan: Opaque<LogicalPlan>,
        reads: BTreeSet<String>,
        options: ViewOptions,
        replace: bool,
    ) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let old = self.view(name).filter(|_| replace);
        if let Some(object) = self.object(name).filter(|_| old.is_some()) {
            self.must_own(by.actor, &object)?;
        }
        if old.is_none() {
            match self.object(name).filter(|_| !self.is_restoring()) {
                Some(object) if replace => return Err(wrong_kind(name, ObjectKind::MaterializedView, object.kind)),
                Some(_) | None => self.check_free(name)?,
            }
        }
        let draft = Draft::new(self, self.plan_view(name, by.sql, &plan, options)?);
        let mut fills = self.attach(draft.view()).await?;
        let table = Arc::new(ViewTable::new(draft.view()));
        // A long history is read in the background; a view that gives way answers until then.
        let patience = if old.is_some() { None } else { Some(FILL_PATIENCE) };
        finish(&mut fills, patience).await?;
        if old.is_some() {
            return self.replace_relation(name, by.sql, table, Some(draft), reads).await;
        }
        if !self.is_restoring() {
            self.remember(ObjectKind::MaterializedView, name, by, reads)?;
        }
        self.public.put(name, table);
        self.views.write().insert(name.to_string(), Arc::new(draft.take()));
        self.changed();
        Ok(())
    }

    /// Cuts a view's plan into rollups and finish plan, without creating anything.
    pub fn plan_view(&self, name: &str, sql: &str, plan: &LogicalPlan, options: ViewOptions) -> Result<View> {
        let stream_of = |scan: &datafusion::logical_expr::TableScan| {
            provider_of::<StreamTable>(scan).filter(|t| t.part == Part::Rows).map(|t| t.name.clone())
        };
        let time_of = |stream: &str| self.stream(stream).and_then(|stream| stream.runner.shape.time.clone());
        let emission = Emission { on_close: options.on_close(), lateness: options.lateness(), time_of: &time_of };
        let split = split(plan.clone(), &stream_of, &emission)?;
        if split.derived.is_some() && options != ViewOptions::default() {
            return Err(Error::new(Kind::NotSupported, "a derived stream has no windows to emit, fill or limit")
                .with_hint("Leave WITH, EMIT and FILL to the views that are made over it."));
        }
        let expires = |slot: &Arc<Slot>| {
            let joins = slot.definition.partner.is_some();
            slot.definition.pane.is_some_and(|pane| !(joins && pane.window.is_session()))
        };
        if options.retention.is_some() && !split.slots.iter().all(expires) {
            return Err(Error::new(Kind::NotSupported, "retention needs windows that can be given up one by one")
                .with_detail("A view without windows over time has nothing that gets old; sessions over a join may go on in rows that have no match yet.")
                .with_hint("Group by TUMBLE, HOP, CUMULATE or SESSION windows, or leave retention away."));
        }
        let versions = with_versions(&split.finish)?;
        let filled = |plan: LogicalPlan| -> Result<LogicalPlan> {
            let Some(fill) = options.fill else { return Ok(plan) };
            if split.slots.iter().any(|slot| slot.definition.partner.is_some()) {
                return Err(Error::new(Kind::NotSupported, "FILL cannot be used over a join of two streams")
                    .with_hint("Windows over a join do not close. Fill a view of one of the streams."));
            }
            let node = Arc::new(FillNode::try_new(plan, fill, options.lateness())?);
            Ok(LogicalPlan::Extension(Extension { node }))
        };
        let (finish, versions) = (filled(split.finish)?.into(), versions.map(filled).transpose()?.map(Opaque::new));
        let (name, sql) = (name.to_string(), sql.to_string());
        Ok(View { name, sql, options, finish, versions, slots: split.slots, derived: split.derived })
    }

    /// Gives every slot its rollup: one that exists already if it is the same, else a new one, to be filled. What was given
    /// before a failure is given up by whoever holds the [`Draft`].
    async fn attach(&self, view: &View) -> Result<Vec<Fill>> {
        let mut fills = Vec::new();
        for slot in &view.slots {
            if slot.rollup.get().is_some() {
                continue; // of another view that this one reads
            }
            let stream_name = &slot.definition.stream;
            let stream = self.stream(stream_name).ok_or_else(|| self.no_relation(stream_name))?;
            let runner = Arc::clone(&stream.runner);
            let limit = self.limit_of(view);
            if let Some(rollup) = self.find_rollup(&runner, &slot.definition.key) {
                rollup.set_limit(limit.max(rollup.limit() as u64));
                let _ = slot.rollup.set(rollup);
                continue;
            }
            self.load_tables(&slot.definition.aggregate).await?;
            let rollup = Rollup::new(slot.definition.clone(), &self.context.state()).await?;
            let rollup = rollup.within(&self.memory, limit);
            let _ = slot.rollup.set(Arc::clone(&rollup));
            let second = match &slot.definition.partner {
                None => None,
                Some(Partner { stream: name, .. }) => {
                    let stream = self.stream(name).ok_or_else(|| self.no_relation(name))?;
                    Some(Second { runner: Arc::clone(&stream.runner), id: stream.id, is_later: stream_name < name })
                }
            };
            if self.is_restoring() {
                self.restore(rollup, &stream, second);
                continue;
            }
            fills.push(fill(rollup, runner, second.as_ref()));
        }
        Ok(fills)
    }

    /// The rollup with this key, if some view already maintains it, or will when streams have gone on.
    fn find_rollup(&self, runner: &Runner, key: &str) -> Option<Arc<Rollup>> {
        let waits = || {
            let unfilled = self.unfilled.lock();
            let found = unfilled.iter().find(|unfilled| unfilled.rollup.definition.key == key);
            found.map(|unfilled| Arc::clone(&unfilled.rollup))
        };
        runner.find(key).or_else(waits)
    }

    /// Bytes of memory that the state of a view may take.
    fn limit_of(&self, view: &View) -> u64 {
        view.options.memory_limit.unwrap_or(self.config.view_memory)
    }

    /// Views that share a rollup may have different limits: the largest counts.
    fn set_limits(&self) {
        let guests = self.guests.read().clone();
        let views: Vec<_> = self.views().into_iter().chain(guests).collect();
        for slot in views.iter().flat_map(|v| &v.slots) {
            let sharing = views.iter().filter(|v| v.uses(&slot.definition.key));
            if let (Some(rollup), Some(limit)) = (slot.rollup.get(), sharing.map(|v| self.limit_of(v)).max()) {
                rollup.set_limit(limit);
            }
        }
    }

    /// Registers a table whose provider was made elsewhere (files, plain views).
    pub async fn create_table(
        &self,
        kind: ObjectKind,
        name: &str,
        by: Origin<'_>,
        provider: Arc<dyn TableProvider>,
        reads: BTreeSet<String>,
    ) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        self.check_free(name)?;
        if !self.is_restoring() {
            self.remember(kind, name, by, reads)?;
        }
        let provider = match kind {
            ObjectKind::ExternalTable => self.external_table(name, provider)?,
            _ => provider,
        };
        self.public.put(name, provider);
        self.changed();
        Ok(())
    }

    fn remember(&self, kind: ObjectKind, name: &str, by: Origin<'_>, reads: BTreeSet<String>) -> Result<()> {
        self.check_actor(by.actor)?;
        self.catalog.lock().add(kind, name, by, reads)
    }

    fn check_free(&self, name: &str) -> Result<()> {
        if self.public.table_exist(name) {
            return Err(Error::new(Kind::DuplicateTable, format!("relation \"{name}\" already exists")));
        }
        if let Some(object) = self.object(name).filter(|o| !o.kind.is_relation()) {
            let word = object.kind.word();
            return Err(Error::new(Kind::DuplicateObject, format!("there is a {word} of the name \"{name}\"")));
        }
        let reserved = COMPANIONS.iter().map(|(suffix, _)| *suffix).chain([DEAD_SUFFIX]);
        if let Some(suffix) = reserved.into_iter().find(|suffix| name.ends_with(suffix)) {
            return Err(Error::new(Kind::InvalidParameter, format!("names ending in {suffix} are reserved")));
        }
        Ok(())
    }

    // ---- dropping -------------------------------------------------------------------------------------------------

    /// Drops objects of `actor`. Others that read them are dropped as well with `cascade`, if they are the actor's too; else
    /// it is refused. Either all go or, on an error, none. Gives back the names of what went: first those that were named.
    pub async fn drop_objects(
        self: &Arc<Self>,
        kind: ObjectKind,
        names: &[String],
        cascade: bool,
        actor: &Actor,
    ) -> Result<Vec<String>> {
        let _ddl = self.ddl.lock().await;
        let tables = [ObjectKind::Stream, ObjectKind::ExternalTable, ObjectKind::ReferenceTable];
        let mut going: Vec<Object> = Vec::new();
        for name in names {
            let object = self.object(name).ok_or_else(|| match kind {
                ObjectKind::Source => self.no_source(name),
                ObjectKind::Sink => self.no_sink(name),
                ObjectKind::Notifier => self.no_notifier(name),
                ObjectKind::Alert => self.no_alert(name),
                ObjectKind::Report => self.no_report(name),
                _ => self.no_relation(name),
            })?;
            if object.kind != kind && !(tables.contains(&object.kind) && tables.contains(&kind)) {
                let word = object.kind.word();
                return Err(Error::new(Kind::WrongObjectType, format!("\"{name}\" is not a {}", kind.word()))
                    .with_hint(format!("Use DROP {} to remove a {word}.", object.kind.drop_word())));
            }
            self.must_own(actor, &object)?;
            if !going.iter().any(|o| o.name == object.name) {
                going.push(object);
            }
        }
        let named = going.len();
        for at in 0..named {
            let readers = self.readers(&going[at].name);
            let others: Vec<_> = readers.into_iter().filter(|r| !going.iter().any(|o| o.name == r.name)).collect();
            if !cascade && !others.is_empty() {
                return Err(read_by_others(&going[at], &others));
            }
            for other in &others {
                self.must_own(actor, other)
                    .map_err(|err| err.with_context(&format!("drop cascades to \"{}\"", other.name)))?;
            }
            going.extend(others);
        }
        let names: Vec<String> = going.iter().map(|o| o.name.clone()).collect();
        // Before what they watch goes, which the catalog tells: that is no failure of theirs.
        let alerts = self.dismiss_alerts(&going).await;
        let removed = self.forget_privileges(&names).and_then(|()| self.catalog.lock().remove(&names));
        if let Err(err) = removed {
            self.readmit_alerts(alerts).await?;
            return Err(err);
        }
        self.forget_alerts(&alerts).await;
        self.remove_reports(&going).await;
        let (mut streams, mut failed) = (Vec::new(), None);
        // Readers first: their states are given up while their streams still run.
        for object in going.iter().rev() {
            let name = &object.name;
            if object.kind == ObjectKind::Source {
                // A stream that goes too stops its sources itself, also while the disk is full.
                if !going.iter().any(|o| o.kind == ObjectKind::Stream && object.reads.contains(&o.name)) {
                    self.stop_source(object).await?;
                }
                continue;
            }
            if matches!(object.kind, ObjectKind::Alert | ObjectKind::Report) {
                continue;
            }
            if object.kind == ObjectKind::Notifier {
                self.remove_notifier(name).await;
                continue;
            }
            if object.kind == ObjectKind::Sink {
                if let Err(err) = self.remove_sink(name).await {
                    failed = Some(err);
                }
                continue;
            }
            self.public.deregister_table(name)?;
            let view = self.views.write().remove(name);
            if let Some(view) = view {
                self.release(&view);
            }
            self.tables.write().remove(name);
            let stream = self.streams.write().remove(name);
            if let Some(stream) = stream {
                for (suffix, _) in COMPANIONS {
                    self.public.deregister_table(&format!("{name}{suffix}"))?;
                }
                streams.push(stream);
            }
            if let Err(err) = self.store.remove_all(object.id) {
                failed = Some(err);
            }
        }
        self.changed();
        self.forget_versions();
        for stream in streams {
            self.remove_stream(stream).await?;
        }
        failed.map_or(Ok(names), Err)
    }

    /// Detaches the rollups that no view uses any more.
    fn release(&self, view: &View) {
        for slot in &view.slots {
            let used = |v: &Arc<View>| v.uses(&slot.definition.key);
            if self.views.read().values().any(used) || self.guests.read().iter().any(used) {
                continue;
            }
            // By its key: a rollup that was still being filled is in no slot yet.
            for stream in slot.definition.streams().filter_map(|name| self.stream(name)) {
                if let Some(rollup) = stream.runner.find(&slot.definition.key) {
                    stream.runner.detach(&rollup);
                }
            }
        }
    }

    // ---- running --------------------------------------------------------------------------------------------------

    /// Returns when every row that the sources could read when it was called is durable and visible in all views.
    pub async fn flush(&self) -> Result<()> {
        let mut waits = Vec::new();
        for stream in self.streams() {
            let ingest = stream.pipeline()?;
            let sources = ingest.flush()?;
            if sources.is_empty() {
                // What was pushed.
                ingest.through().await?;
            }
            waits.extend(sources.into_iter().map(|wait| (Arc::clone(&ingest), wait)));
        }
        for (ingest, wait) in waits {
            wait.await.map_err(|_| ingest.why_stopped())?;
        }
        Ok(())
    }

    /// Replaces what `plan` reads by one instant of it.
    pub fn pin(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        pin(plan, &|name| self.stream(name).map(|s| Arc::clone(&s.runner)))
    }

    /// Stops all streams: sources first, then what is under way is finished and synced.
    pub async fn shutdown(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        self.stop_alerts().await;
        self.stop_sinks().await;
        self.upkeep.end_all().await;
        // Who is still filling a view would keep the process from ending.
        engine.streams().iter().for_each(|stream| stream.runner.stop_filling());
        let stopping = tokio::task::spawn_blocking(move || {
            engine.upkeep.end();
            std::thread::scope(|scope| {
                for stream in engine.streams() {
                    scope.spawn(move || stream.stop());
                }
            });
        });
        if stopping.await.is_err() {
            tracing::error!("a stream panicked while stopping");
        }
        let engine = Arc::clone(self);
        match tokio::task::spawn_blocking(move || engine.checkpoint()).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => {
                tracing::warn!(error = %err, "no last checkpoint could be made: the next start reads more of the logs")
            }
            Err(_) => tracing::error!("the last checkpoint panicked"),
        }
    }

    /// The kind letter of a relation in PostgreSQL's catalog: r table, v view, m materialized view.
    pub fn relkind(&self, schema: &str, name: &str) -> Option<char> {
        if schema != PUBLIC {
            return None;
        }
        match self.object(name).map(|o| o.kind) {
            Some(ObjectKind::MaterializedView) => Some('m'),
            Some(ObjectKind::View) => Some('v'),
            Some(ObjectKind::Stream | ObjectKind::ExternalTable | ObjectKind::ReferenceTable) => Some('r'),
            Some(
                ObjectKind::Source | ObjectKind::Sink | ObjectKind::Notifier | ObjectKind::Alert | ObjectKind::Report,
            )
            | None => None,
        }
    }
}

impl Drop for Engine {
    /// A stream keeps the states of its views, whose plans read the stream: they would keep each other.
    fn drop(&mut self) {
        self.streams.get_mut().values().for_each(|stream| stream.runner.let_go());
        self.public.clear();
        // These read the list of catalogs, which holds them.
        if let Some(catalog) = self.context.catalog(&self.config.database) {
            for schema in ["information_schema", "pg_catalog"] {
                if let Err(err) = catalog.deregister_schema(schema, true) {
                    tracing::warn!(error = %err, schema, "what an engine knew is not freed whole");
                }
            }
        }
    }
}

/// A format that learns its columns knows some once the first rows have come. What is created next mostly names them, so
/// this waits for rows, or until the sources have handed out what there is; not for long, as others may send any time.
async fn first_rows(stream: &Stream) {
    if !stream.runner.shape.format.learns() {
        return;
    }
    let Ok(waits) = stream.pipeline().and_then(|ingest| ingest.flush()) else { return };
    let all = futures::future::join_all(waits);
    let mut ticks = stream.runner.ticks();
    let rows = ticks.wait_for(|tick| tick.offset > 0);
    let either = async {
        tokio::select! {
            _ = all => {}
            _ = rows => {}
        }
    };
    // What stops a stream is told by its next statement.
    let _ = tokio::time::timeout(FIRST_ROWS, either).await;
}

/// Runs work where it may block, within the bounds of the statement that it is for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let bounds = reach::bounds();
    tokio::task::spawn_blocking(move || reach::with(bounds, work))
        .await
        .unwrap_or_else(|err| Err(Error::internal(err.to_string())))
}

fn read_by_others(object: &Object, readers: &[Object]) -> Error {
    let (word, name) = (object.kind.word(), &object.name);
    let readers: Vec<String> = readers.iter().map(|r| format!("{} \"{}\"", r.kind.word(), r.name)).collect();
    let message = format!("cannot drop {word} \"{name}\" because other objects depend on it");
    Error::new(Kind::DependentObjects, message)
        .with_detail(format!("It is read by: {}.", readers.join(", ")))
        .with_hint("Use DROP … CASCADE to drop the dependent objects too.")
}

fn check_time_column(shape: &Shape, definition: &StreamDefinition) -> Result<()> {
    let Some((column, _)) = &definition.watermark else { return Ok(()) };
    let schema = shape.schema();
    match schema.field_with_name(column) {
        Ok(field) if *field.data_type() == format::timestamp_type() => Ok(()),
        Ok(field) => Err(Error::new(
            Kind::Datatype,
            format!("WATERMARK needs a timestamptz column, but \"{column}\" is of type {}", field.data_type()),
        )),
        // A format that learns its columns does not know them yet.
        Err(_) if shape.format.time_column().as_deref() == Some(column) => Ok(()),
        Err(_) if shape.format.schema().fields().is_empty() => Ok(()),
        Err(_) => {
            let err = Error::new(Kind::UndefinedColumn, format!("column \"{column}\" does not exist"));
            Err(with_nearest(err, column, schema.fields().iter().map(|f| f.name().as_str())))
        }
    }
}

/// The planner and settings of all sessions.
fn session_state(config: &Config) -> Result<SessionStateBuilder> {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.cores.max(1))
        .with_default_catalog_and_schema(&config.database, PUBLIC)
        .with_create_default_catalog_and_schema(false);
    let options = session.options_mut();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.execution.time_zone = Some(crate::time::UTC.to_string());
    // A key like coalesce(x, 0) is never NULL to the plan and may be NULL to the operators: such a UNION was an error.
    options.execution.skip_physical_aggregate_schema_check = true;
    // A UNION of aggregates over a stream that is partly archived was made an interleaving and then given other inputs.
    options.optimizer.prefer_existing_union = true;
    let memory = Arc::new(FairSpillPool::new(config.query_memory as usize));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(memory)
        .with_disk_manager_builder(spill(config)?)
        // Which files a table has is looked up by each query: others may have added some.
        .with_object_list_cache_limit(0)
        .build_arc()?;
    Ok(SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
        // In this order: what is not counted in the archive is grouped.
        .with_physical_optimizer_rule(Arc::new(TallyRule))
        .with_physical_optimizer_rule(Arc::new(GroupRule::default())))
}

/// Where queries put what does not fit into memory: beside the data, because the system's directory for temporary files
/// may itself be memory. What a killed process left there is removed.
fn spill(config: &Config) -> Result<DiskManagerBuilder> {
    let builder = DiskManagerBuilder::default();
    let Some(dir) = config.data_dir.as_ref().map(|dir| dir.join("spill")) else { return Ok(builder) };
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|e| Error::io("remove", &dir, &e))?;
    }
    std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, &e))?;
    let builder = builder.with_max_temp_directory_size(config.spill_limit);
    Ok(builder.with_mode(DiskManagerMode::Directories(vec![dir])))
}

/// DataFusion's planner plus our operators.
#[derive(Debug)]
struct Planner;

/// With bounds on lifetimes as `async_trait` writes them; see [`crate::opaque`].
impl datafusion::execution::context::QueryPlanner for Planner {
    fn create_physical_plan<'s, 'a, 'b, 'f>(
        &'s self,
        plan: &'a LogicalPlan,
        session: &'b dyn Session,
    ) -> std::pin::Pin<Box<dyn Future<Output = Scanned> + Send + 'f>>
    where
        's: 'f,
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        Planner::boxed(plan, session)
    }
}

impl Planner {
    fn boxed<'a>(plan: &'a LogicalPlan, session: &'a dyn Session) -> futures::future::BoxFuture<'a, Scanned> {
        Box::pin(Planner::plan(plan, session))
    }

    async fn plan(plan: &LogicalPlan, session: &dyn Session) -> Scanned {
        let mut planners = rollup::planners();
        planners.push(Arc::new(FillPlanner));
        let planner = DefaultPhysicalPlanner::with_extension_planners(planners);
        match planner.create_physical_plan(plan, session).await {
            Err(DataFusionError::Context(rule, err)) if rule == SanityCheckPlan::new().name() => {
                match without_moved_projections(session) {
                    Some(session) => planner.create_physical_plan(plan, &session).await,
                    None => Err(DataFusionError::Context(rule, err)),
                }
            }
            planned => planned,
        }
    }
}

/// A session that leaves projections where they are. Moved below a filter, one that computes a window's end from its start
/// hides that both are constant there; the last check then does not see that rows are sorted as a window function needs
/// them, and refuses a plan that is sound.
fn without_moved_projections(session: &dyn Session) -> Option<SessionState> {
    let state = session.as_any().downcast_ref::<SessionState>()?;
    let moves = ProjectionPushdown::new();
    let rules = state.physical_optimizers().iter().filter(|rule| rule.name() != moves.name()).cloned();
    let builder = SessionStateBuilder::new_from_existing(state.clone());
    Some(builder.with_physical_optimizer_rules(rules.collect()).build())
}

#[cfg(test)]
mod simulation;
