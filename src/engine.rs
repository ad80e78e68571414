//! The engine: all streams and views of one server, and the SQL catalog that shows them.
//!
//! Creates, finds and drops objects and runs plans, each pinned to one instant. It knows no SQL text (that is `sql`'s)
//! and no sockets (`server`'s).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use parking_lot::{Mutex, RwLock};

use crate::batch::{Include, Shape};
use crate::catalog::system::{RELATIONS, SystemTable};
use crate::catalog::{Catalog, Object, ObjectKind};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::format::{self, Declared};
use crate::ingest::{Deferred, Ingest, SourceStatus};
use crate::opaque::Opaque;
use crate::options::{OptionKind, OptionSpec, Options, nearest};
use crate::rollup::Rollup;
use crate::rollup::budget::{Budget, Memory};
use crate::rollup::hop::HopPlanner;
use crate::rollup::plan::{Slot, provider_of, split};
use crate::rollup::watermark::Watermark;
use crate::source;
use crate::storage::fs::Disk;
use crate::storage::lock::DataDirLock;
use crate::storage::state_files::StateFiles;
use crate::storage::stream_log::{Positions, StreamLog};
use crate::storage::wal::{SyncMode, WalOptions};
use crate::time::{Clock, Micros};
use crate::view::options::ViewOptions;
use crate::view::pin::pin;
use crate::view::runner::Runner;
use crate::view::table::{Part, StreamTable};

/// Name of the SQL catalog and of the schemas in it.
pub const CATALOG: &str = "logweir";
pub const PUBLIC: &str = "public";
pub const SYSTEM: &str = "logweir";

/// The relations that stand beside each stream: suffix of the name, and what they show.
pub static COMPANIONS: &[(&str, Part)] = &[("__malformed", Part::Malformed), ("__late", Part::Late)];

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
        "hot_bytes",
        OptionKind::Bytes,
        Some("256 MiB"),
        "rows kept in memory; older rows are read from the log when a query needs them",
    ),
];

/// What CREATE TABLE … WITH (connector …) says.
#[derive(Debug, Clone)]
pub struct StreamDefinition {
    pub name: String,
    pub connector: String,
    /// Options of the connector and of the stream, as given.
    pub options: Vec<(String, String)>,
    pub format: String,
    pub format_options: Vec<(String, String)>,
    pub declared: Vec<Declared>,
    pub includes: Vec<Include>,
    /// `WATERMARK FOR column AS column - delay`.
    pub watermark: Option<(String, Micros)>,
}

/// A running stream.
pub struct Stream {
    pub name: String,
    pub runner: Arc<Runner>,
    dir: PathBuf,
    clock: Clock,
    /// Where its sources go on: what opening the log found.
    positions: Positions,
    /// Sources that have not been started yet, and the pipeline once it runs.
    waiting: Mutex<Vec<(Box<dyn source::Source>, Arc<SourceStatus>)>>,
    ingest: RwLock<Option<Arc<Ingest>>>,
}

impl Stream {
    pub fn sources(&self) -> Vec<Arc<SourceStatus>> {
        self.ingest.read().as_ref().map_or_else(Vec::new, |i| i.sources())
    }

    /// Replays the log, then starts the sources. The receiver is told when the replay is visible.
    fn start(&self) -> Result<tokio::sync::oneshot::Receiver<()>> {
        let ingest = Ingest::start(&self.name, Arc::clone(&self.runner), self.positions.clone(), self.clock.clone())?;
        let replayed = ingest.barrier()?;
        for (source, status) in self.waiting.lock().drain(..) {
            ingest.add_source(source, status, self.clock.clone())?;
        }
        *self.ingest.write() = Some(ingest);
        Ok(replayed)
    }

    fn pipeline(&self) -> Result<Arc<Ingest>> {
        self.ingest
            .read()
            .clone()
            .ok_or_else(|| Error::new(Kind::NotReady, format!("stream \"{}\" is not running", self.name)))
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
}

impl View {
    fn uses(&self, key: &str) -> bool {
        self.slots.iter().any(|s| s.definition.key == key)
    }

    pub fn reads_stream(&self, stream: &str) -> bool {
        self.slots.iter().any(|s| s.definition.stream == stream)
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

#[async_trait]
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

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(Error::internal("a view is read through its finish plan").into())
    }
}

/// See the file header.
pub struct Engine {
    config: Config,
    clock: Clock,
    context: Opaque<SessionContext>,
    public: Arc<MemorySchemaProvider>,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    views: RwLock<BTreeMap<String, Arc<View>>>,
    catalog: Mutex<Catalog>,
    /// Where the states of views are kept.
    memory: Memory,
    /// One DDL statement at a time.
    ddl: tokio::sync::Mutex<()>,
    /// Objects are being made again from the catalog: streams do not start yet and nothing is written down.
    restoring: std::sync::atomic::AtomicBool,
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
        let lock = match &config.data_dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|e| Error::io("create the data directory", dir, &e))?;
                Some(DataDirLock::acquire(dir)?)
            }
            None => None,
        };
        let catalog = Catalog::open(config.data_dir.as_deref())?;
        let memory = Memory {
            store: match &config.data_dir {
                Some(dir) => Some(Arc::new(StateFiles::open(Arc::new(Disk), &dir.join("state"))?)),
                None => None,
            },
            budget: Budget::new(usize::try_from(config.state_memory).unwrap_or(usize::MAX)),
        };
        let context = SessionContext::new_with_state(extend(session_state(&config)?).build());
        let databases = Arc::new(MemoryCatalogProvider::new());
        let (public, system) = (Arc::new(MemorySchemaProvider::new()), Arc::new(MemorySchemaProvider::new()));
        use datafusion::catalog::CatalogProvider;
        databases.register_schema(PUBLIC, Arc::clone(&public) as _)?;
        databases.register_schema(SYSTEM, Arc::clone(&system) as _)?;
        context.register_catalog(CATALOG, databases);

        let engine = Arc::new(Engine {
            config,
            clock,
            context: context.into(),
            public,
            streams: RwLock::default(),
            views: RwLock::default(),
            catalog: Mutex::new(catalog),
            memory,
            ddl: tokio::sync::Mutex::new(()),
            restoring: std::sync::atomic::AtomicBool::new(true),
            _lock: lock,
        });
        for relation in RELATIONS {
            let weak: Weak<Engine> = Arc::downgrade(&engine);
            system.register_table(relation.name.into(), Arc::new(SystemTable::new(relation, weak)))?;
        }
        Ok(engine)
    }

    /// The objects of the catalog, in the order in which they were made.
    pub fn objects(&self) -> Vec<Object> {
        self.catalog.lock().objects().to_vec()
    }

    /// Starts all streams (their logs are replayed, then their sources go on) and waits until every view has caught up
    /// with what was durable.
    pub async fn start(&self) -> Result<()> {
        self.restoring.store(false, std::sync::atomic::Ordering::SeqCst);
        let mut waits = Vec::new();
        for stream in self.streams() {
            let replayed = stream.start()?;
            waits.push((stream.pipeline()?, replayed));
        }
        for (ingest, wait) in waits {
            wait.await.map_err(|_| ingest.why_stopped())?;
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

    /// "relation does not exist", with the nearest name.
    pub fn no_relation(&self, name: &str) -> Error {
        let names = self.public.table_names();
        let err = Error::new(Kind::UndefinedTable, format!("relation \"{name}\" does not exist"));
        match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
            None => err,
        }
    }

    // ---- creating -------------------------------------------------------------------------------------------------

    /// Creates a stream and starts it. The source's and format's options are checked first; nothing is left behind by a
    /// failure.
    pub async fn create_stream(&self, definition: &StreamDefinition, sql: &str) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        self.check_free(&definition.name)?;
        let spec = crate::registry::find(source::SOURCES, "connector", &definition.connector)?;
        let owner = format!("connector \"{}\"", spec.name);
        let options = Options::parse(&owner, &[spec.options, STREAM_OPTIONS], &definition.options)?;
        let format = format::build(&definition.format, &definition.format_options, &definition.declared)?;
        let (time, delay) = match &definition.watermark {
            Some((column, delay)) => (Some(column.clone()), *delay),
            None => (None, 0),
        };
        let shape = Arc::new(Shape::new(format, definition.includes.clone(), time)?);
        check_time_column(&shape, definition)?;
        let source: Box<dyn source::Source> = if self.is_restoring() {
            let options = options.clone();
            Box::new(Deferred::new(move || (spec.build)(&options)))
        } else {
            (spec.build)(&options)?
        };
        self.add_stream(definition, sql, shape, delay, options, source)
    }

    fn add_stream(
        &self,
        definition: &StreamDefinition,
        sql: &str,
        shape: Arc<Shape>,
        delay: Micros,
        options: Options,
        source: Box<dyn source::Source>,
    ) -> Result<()> {
        let name = &definition.name;
        let Some(data_dir) = &self.config.data_dir else {
            return Err(Error::new(Kind::NotSupported, "a stream needs a data directory")
                .with_hint("Start a server with `logweir serve --data-dir DIR`."));
        };
        let id = {
            let catalog = self.catalog.lock();
            catalog.get(name).map_or(catalog.next_id(), |object| object.id)
        };
        let dir = data_dir.join("streams").join(id.to_string());
        let wal = WalOptions {
            sync: options.text("wal_sync").unwrap_or("10ms").parse::<SyncMode>()?,
            segment_bytes: options.bytes("wal_segment_bytes").unwrap_or(256 << 20),
        };
        let hot_bytes = options.bytes("hot_bytes").unwrap_or(256 << 20);
        let (log, opened, positions) = StreamLog::open(&dir, wal, hot_bytes)?;
        if self.is_restoring() && shape.format.learns() {
            // Views are planned before the log is replayed: their columns must be known by then.
            for entry in log.wal().read(log.wal().start())? {
                shape.format.parse(&entry?.1.frames);
            }
        }
        if let Some(torn) = &opened.truncated {
            tracing::warn!(stream = %name, ?torn, "the log ended in the middle of a record (a crash while writing); that record was never acknowledged and is cut off");
        }
        let micros = |name: &str| options.interval(name).unwrap_or(Duration::ZERO).as_micros() as Micros;
        let watermark = Watermark::new(delay, micros("idle_timeout"), micros("max_future"));
        let runner = Arc::new(Runner::new(shape, Arc::new(log), watermark));
        let status = Arc::new(SourceStatus::new(0, name, &definition.connector));
        let stream = Arc::new(Stream {
            name: name.clone(),
            runner: Arc::clone(&runner),
            dir: dir.clone(),
            clock: self.clock.clone(),
            positions,
            waiting: Mutex::new(vec![(source, status)]),
            ingest: RwLock::new(None),
        });
        if !self.is_restoring() {
            let made = stream.start().and_then(|_| self.remember(ObjectKind::Stream, name, sql, BTreeSet::new()));
            if let Err(err) = made {
                stream.stop();
                let _ = std::fs::remove_dir_all(&dir);
                return Err(err);
            }
        }
        self.public.register_table(name.clone(), Arc::new(StreamTable::new(name, Arc::clone(&runner), Part::Rows)))?;
        for (suffix, part) in COMPANIONS {
            let companion = StreamTable::new(name, Arc::clone(&runner), *part);
            self.public.register_table(format!("{name}{suffix}"), Arc::new(companion))?;
        }
        self.streams.write().insert(name.clone(), stream);
        Ok(())
    }

    /// Creates a materialized view from its analyzed plan and fills it from what its streams already have; returns when
    /// it is complete. `reads` are the relations that its query names. With `replace`, an existing materialized view of
    /// this name gives way once the new one is complete.
    pub async fn create_view(
        &self,
        name: &str,
        sql: &str,
        plan: Opaque<LogicalPlan>,
        reads: BTreeSet<String>,
        options: ViewOptions,
        replace: bool,
    ) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let old = self.view(name).filter(|_| replace);
        match &old {
            Some(_) => self.check_unread(ObjectKind::MaterializedView, name)?,
            None => self.check_free(name)?,
        }
        let view = self.plan_view(name, sql, &plan, options)?;
        let filled = self.attach(&view).await;
        let made = match filled {
            Ok(()) if self.is_restoring() => Ok(()),
            Ok(()) if old.is_some() => self.catalog.lock().replace(name, sql, reads),
            Ok(()) => self.remember(ObjectKind::MaterializedView, name, sql, reads),
            Err(err) => Err(err),
        };
        if let Err(err) = made {
            self.release(&view);
            return Err(err);
        }
        let schema = Arc::new(view.finish.schema().as_arrow().clone());
        let versions = view.versions.clone();
        let table = ViewTable { finish: view.finish.clone(), versions, sql: sql.to_string(), schema };
        self.public.deregister_table(name)?;
        self.public.register_table(name.to_string(), Arc::new(table))?;
        self.views.write().insert(name.to_string(), Arc::new(view));
        if let Some(old) = old {
            self.release(&old);
        }
        self.set_limits();
        Ok(())
    }

    /// Cuts a view's plan into rollups and finish plan, without creating anything.
    pub fn plan_view(&self, name: &str, sql: &str, plan: &LogicalPlan, options: ViewOptions) -> Result<View> {
        let stream_of = |scan: &datafusion::logical_expr::TableScan| {
            provider_of::<StreamTable>(scan).filter(|t| t.part == Part::Rows).map(|t| t.name.clone())
        };
        let split = split(plan.clone(), &stream_of)?;
        Ok(View {
            name: name.to_string(),
            sql: sql.to_string(),
            options,
            finish: split.finish.into(),
            versions: None,
            slots: split.slots,
        })
    }

    /// Gives every slot its rollup: one that exists already if it is the same, else a new one, filled.
    async fn attach(&self, view: &View) -> Result<()> {
        for slot in &view.slots {
            if slot.rollup.get().is_some() {
                continue; // of another view that this one reads
            }
            let stream_name = &slot.definition.stream;
            let stream = self.stream(stream_name).ok_or_else(|| self.no_relation(stream_name))?;
            let runner = Arc::clone(&stream.runner);
            let rollup = match runner.find(&slot.definition.key) {
                Some(rollup) => rollup,
                None => {
                    let rollup = Rollup::new(slot.definition.clone(), &self.context.state()).await?;
                    let rollup = rollup.within(&self.memory, self.limit_of(view));
                    let chunks = runner.attach(Arc::clone(&rollup));
                    let filling = Arc::clone(&rollup);
                    let for_fill = Arc::clone(&runner);
                    let filled = tokio::task::spawn_blocking(move || for_fill.backfill(&filling, &chunks)).await;
                    let filled =
                        filled.unwrap_or_else(|e| Err(Error::internal(format!("filling the view failed: {e}"))));
                    if let Err(err) = filled {
                        runner.detach(&rollup);
                        return Err(err);
                    }
                    rollup
                }
            };
            let _ = slot.rollup.set(rollup);
        }
        Ok(())
    }

    fn limit_of(&self, view: &View) -> u64 {
        view.options.memory_limit.unwrap_or(self.config.view_memory)
    }

    /// Views that share a rollup may have different limits: the largest counts.
    fn set_limits(&self) {
        let views = self.views();
        for slot in views.iter().flat_map(|v| &v.slots) {
            let sharing = views.iter().filter(|v| v.uses(&slot.definition.key));
            if let (Some(rollup), Some(limit)) = (slot.rollup.get(), sharing.map(|v| self.limit_of(v)).max()) {
                rollup.set_limit(limit);
            }
        }
    }

    /// Registers a table whose provider was made elsewhere (reference tables, plain views).
    pub async fn create_table(
        &self,
        kind: ObjectKind,
        name: &str,
        sql: &str,
        provider: Arc<dyn TableProvider>,
        reads: BTreeSet<String>,
    ) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        self.check_free(name)?;
        if !self.is_restoring() {
            self.remember(kind, name, sql, reads)?;
        }
        self.public.register_table(name.to_string(), provider)?;
        Ok(())
    }

    fn remember(&self, kind: ObjectKind, name: &str, sql: &str, reads: BTreeSet<String>) -> Result<()> {
        self.catalog.lock().add(kind, name, sql, reads)
    }

    fn check_free(&self, name: &str) -> Result<()> {
        if self.public.table_exist(name) {
            return Err(Error::new(Kind::DuplicateTable, format!("relation \"{name}\" already exists")));
        }
        if let Some((suffix, _)) = COMPANIONS.iter().find(|(suffix, _)| name.ends_with(suffix)) {
            return Err(Error::new(Kind::InvalidParameter, format!("names ending in {suffix} are reserved")));
        }
        Ok(())
    }

    /// Refuses to remove what other objects read.
    fn check_unread(&self, kind: ObjectKind, name: &str) -> Result<()> {
        let names = self.catalog.lock().dependents(name);
        if names.len() == 1 {
            return Ok(());
        }
        let word = kind.word();
        Err(Error::new(
            Kind::DependentObjects,
            format!("cannot drop {word} \"{name}\" because other objects depend on it"),
        )
        .with_detail(format!("It is read by: {}.", names[1..].join(", ")))
        .with_hint("Use DROP … CASCADE to drop the dependent objects too."))
    }

    // ---- dropping -------------------------------------------------------------------------------------------------

    /// Drops an object. Objects that read it are dropped as well with `cascade`, else it is refused.
    pub async fn drop_object(&self, kind: ObjectKind, name: &str, cascade: bool) -> Result<Vec<String>> {
        let _ddl = self.ddl.lock().await;
        let object = self.object(name).ok_or_else(|| self.no_relation(name))?;
        let tables = [ObjectKind::Stream, ObjectKind::ExternalTable];
        if object.kind != kind && !(tables.contains(&object.kind) && tables.contains(&kind)) {
            let words = (kind.word(), object.kind.word());
            return Err(Error::new(Kind::WrongObjectType, format!("\"{name}\" is not a {}", words.0))
                .with_hint(format!("Use DROP {} to remove a {}.", words.1.to_uppercase(), words.1)));
        }
        if !cascade {
            self.check_unread(kind, name)?;
        }
        let names = self.catalog.lock().dependents(name);
        self.catalog.lock().remove(&names)?;
        for name in names.iter().rev() {
            self.public.deregister_table(name)?;
            let view = self.views.write().remove(name);
            if let Some(view) = view {
                self.release(&view);
            }
            let stream = self.streams.write().remove(name);
            if let Some(stream) = stream {
                for (suffix, _) in COMPANIONS {
                    self.public.deregister_table(&format!("{name}{suffix}"))?;
                }
                let stopped = tokio::task::spawn_blocking(move || {
                    stream.stop();
                    std::fs::remove_dir_all(&stream.dir).map_err(|e| Error::io("remove", &stream.dir, &e))
                });
                stopped.await.map_err(|e| Error::internal(e.to_string()))??;
            }
        }
        self.set_limits();
        Ok(names)
    }

    /// Detaches the rollups that no view uses any more.
    fn release(&self, view: &View) {
        for slot in &view.slots {
            if self.views.read().values().any(|v| v.uses(&slot.definition.key)) {
                continue;
            }
            if let (Some(rollup), Some(stream)) = (slot.rollup.get(), self.stream(&slot.definition.stream)) {
                stream.runner.detach(rollup);
            }
        }
    }

    // ---- running --------------------------------------------------------------------------------------------------

    /// Returns when every row that the sources could read when it was called is durable and visible in all views.
    pub async fn flush(&self) -> Result<()> {
        let mut waits = Vec::new();
        for stream in self.streams() {
            let ingest = stream.pipeline()?;
            for wait in ingest.flush()? {
                waits.push((Arc::clone(&ingest), wait));
            }
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

    /// Plans and starts a query (already with its parameters); rows come as they are made.
    pub async fn run(&self, plan: LogicalPlan) -> Result<SendableRecordBatchStream> {
        let plan = self.pin(plan)?;
        let state = self.context.state();
        let physical = state.create_physical_plan(&plan).await?;
        Ok(execute_stream(physical, self.context.task_ctx())?)
    }

    /// Stops all streams: sources first, then what is under way is finished and synced.
    pub async fn shutdown(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        let stopping = tokio::task::spawn_blocking(move || {
            std::thread::scope(|scope| {
                for stream in engine.streams() {
                    scope.spawn(move || stream.stop());
                }
            });
        });
        if stopping.await.is_err() {
            tracing::error!("a stream panicked while stopping");
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
            Some(ObjectKind::Stream | ObjectKind::ExternalTable) => Some('r'),
            None => None,
        }
    }
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
        Err(_) if schema.fields().is_empty() => Ok(()),
        Err(_) => {
            let err = Error::new(Kind::UndefinedColumn, format!("column \"{column}\" does not exist"));
            match nearest(column, schema.fields().iter().map(|f| f.name().as_str())) {
                Some(near) => Err(err.with_hint(format!("Did you mean \"{near}\"?"))),
                None => Err(err),
            }
        }
    }
}

/// The planner and settings of all sessions.
fn session_state(config: &Config) -> Result<SessionStateBuilder> {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.cores.max(1))
        .with_default_catalog_and_schema(CATALOG, PUBLIC)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    let options = session.options_mut();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.execution.time_zone = Some(crate::time::UTC.to_string());
    let memory = Arc::new(FairSpillPool::new(config.query_memory as usize));
    let runtime =
        RuntimeEnvBuilder::new().with_memory_pool(memory).with_disk_manager_builder(spill(config)?).build_arc()?;
    Ok(SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(Arc::new(Planner)))
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
    Ok(builder.with_mode(DiskManagerMode::Directories(vec![dir])))
}

/// DataFusion's planner plus our operators.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl datafusion::execution::context::QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(HopPlanner)])
            .create_physical_plan(plan, session)
            .await
    }
}
