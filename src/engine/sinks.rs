//! Sinks: where the rows and changes of a relation go. Each has a driver of its own (`delivery/`), which runs on a small pool
//! beside everything else, and a folder `sinks/<object id>` in the data directory for what it has to remember.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::SchemaProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Engine, blocking};
use crate::catalog::{ObjectKind, Origin};
use crate::delivery::dead::{DeadLetters, DeadTable, SUFFIX};
use crate::delivery::state::{State, StateFile};
use crate::delivery::{Delivery, Described, Parts, Relation, SINK_OPTIONS, Settings, Status, feed_of};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::options::{Options as Given, nearest};
use crate::reach;
use crate::registry::find;
use crate::sink::encode::Encoding;
use crate::sink::{Failure, SINKS, Sink, Spec};
use crate::task::{Compute, Task};
use crate::time::Micros;
use crate::view::changes::{Nature, Options, stream_of};
use crate::view::options::ViewOptions;
use crate::view::runner::Runner;

/// Threads that all deliveries share: they wait for others most of the time.
const THREADS: usize = 2;

/// So long CREATE SINK waits for the other side.
const PATIENCE: Duration = Duration::from_secs(10);

/// What CREATE SINK says.
#[derive(Debug, Clone)]
pub struct SinkDefinition {
    pub name: String,
    /// What it delivers: the name of a relation, or a query.
    pub from: String,
    /// The same as a query, and what that reads.
    pub query: String,
    pub reads: BTreeSet<String>,
    /// The query's rows are those of closed windows, although it does not know.
    pub closed: bool,
    pub connector: String,
    /// Of the connector and of every sink, as given.
    pub options: Vec<(String, String)>,
    pub format: Option<(String, Vec<(String, String)>)>,
}

/// A sink that there is.
pub struct SinkHandle {
    pub name: String,
    pub connector: &'static str,
    pub from: String,
    pub status: Arc<Status>,
    relation: Arc<Followed>,
    folder: PathBuf,
    stop: CancellationToken,
    /// A driver that was not started yet, and the one that runs.
    waiting: Mutex<Option<Delivery>>,
    running: Mutex<Option<Task<()>>>,
}

impl SinkHandle {
    /// Offsets that were not delivered yet.
    pub fn lag(&self) -> Option<u64> {
        Some(self.relation.offset()?.saturating_sub(self.status.get().position.offset))
    }

    fn start(&self, pool: &Compute) {
        if let Some(delivery) = self.waiting.lock().take() {
            *self.running.lock() = Some(pool.spawn(delivery.run()));
        }
    }

    async fn stop(&self) {
        self.stop.cancel();
        let running = self.running.lock().take();
        if let Some(running) = running {
            // It has told what went wrong.
            let _ = running.await;
        }
    }
}

impl Engine {
    pub fn sinks(&self) -> Vec<Arc<SinkHandle>> {
        self.sinks.read().values().cloned().collect()
    }

    /// Creates a sink and starts it. What is wrong with it is told at once, unless the options say that it will work later;
    /// nothing is left behind by a failure, except what the other side was asked to make.
    pub async fn create_sink(self: &Arc<Self>, definition: &SinkDefinition, by: Origin<'_>) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let name = &definition.name;
        if !self.is_restoring() {
            self.check_free(name)?;
        }
        let Some(data_dir) = &self.config.data_dir else {
            return Err(Error::new(Kind::NotSupported, "a sink needs a data directory")
                .with_hint("Start a server with `logweir serve --data-dir DIR`."));
        };
        let spec = find(SINKS, "connector", &definition.connector)?;
        reach::component("sink", spec.name, &["file", "http", "postgres"])?;
        let (given, sink) = build(spec, definition)?;
        let settings = Settings::of(&given)?;
        let id = {
            let catalog = self.catalog.lock();
            catalog.get(name).map_or(catalog.next_id(), |object| object.id)
        };
        let folder = data_dir.join("sinks").join(id.to_string());
        let key = given.text("key").map(|names| names.split(',').map(|name| name.trim().to_string()).collect());
        let relation = Arc::new(Followed::new(self, &definition.query, &definition.reads, definition.closed));
        let dead = Arc::new(DeadLetters::new(Arc::clone(&self.fs), &folder, settings.dead_bytes));
        let (status, stop) = (Arc::<Status>::default(), CancellationToken::new());
        let file = StateFile::new(Arc::clone(&self.fs), &folder);
        let mut parts = Parts {
            name: name.clone(),
            spec,
            sink,
            settings,
            key,
            relation: Arc::clone(&relation) as _,
            file,
            dead: Arc::clone(&dead),
            status: Arc::clone(&status),
            clock: self.clock.clone(),
            stop: stop.clone(),
        };
        let delivery = if self.is_restoring() {
            match parts.file.read() {
                Ok(state) => Some(Delivery::new(parts, state)),
                Err(err) => {
                    tracing::error!(sink = %name, error = %err, hint = err.hint(), "a sink cannot go on");
                    status.fail(&err);
                    None
                }
            }
        } else {
            if let Some(path) = spec.writes_into.and_then(|option| given.text(option)) {
                self.check_not_inside(Path::new(path))?;
            }
            let state = self.validate(&mut parts).await?;
            self.make_folder(&folder)?;
            let made = parts
                .file
                .write(&state)
                .and_then(|()| self.remember(ObjectKind::Sink, name, by, definition.reads.clone()));
            if let Err(err) = made {
                let _ = self.fs.remove_dir_all(&folder);
                return Err(err);
            }
            Some(Delivery::new(parts, state))
        };
        let handle = Arc::new(SinkHandle {
            name: name.clone(),
            connector: spec.name,
            from: definition.from.clone(),
            status,
            relation,
            folder,
            stop,
            waiting: Mutex::new(delivery),
            running: Mutex::default(),
        });
        self.public.put(&format!("{name}{SUFFIX}"), Arc::new(DeadTable(dead)));
        self.sinks.write().insert(name.clone(), Arc::clone(&handle));
        if !self.is_restoring() {
            handle.start(self.delivering()?);
        }
        self.changed();
        Ok(())
    }

    /// Whether the relation can be delivered, and whether the other side is there. Gives the state to begin with.
    async fn validate(&self, parts: &mut Parts) -> Result<State> {
        let described = parts.relation.describe().await?;
        let beginning = match parts.settings.snapshot {
            true => self.first_offset(&described.nature, &parts.relation),
            false => parts.relation.offset(),
        };
        let state = State::new(beginning.unwrap_or(0));
        let (_, feed) = feed_of(&parts.name, &state.id, parts.spec, &described, &parts.settings, parts.key.as_deref())?;
        if !parts.settings.validate {
            return Ok(state);
        }
        let unready = |err: Error| match err.hint() {
            None => err.with_hint("With validate = false it is created all the same, and tried again until it works."),
            Some(_) => err,
        };
        let late = || Error::new(Kind::NotReady, "the other side does not answer");
        match tokio::time::timeout(PATIENCE, parts.sink.open(&feed, state.position)).await {
            Ok(Ok(_)) => Ok(state),
            Ok(Err(Failure::Again(err, _) | Failure::Refused(err))) => Err(unready(err)),
            Err(_) => Err(unready(late())),
        }
    }

    /// What a stream no longer has when a sink is made is not lost on the way to it.
    fn first_offset(&self, nature: &Nature, relation: &Arc<dyn Relation>) -> Option<u64> {
        if nature.rows { relation.first() } else { Some(0) }
    }

    fn make_folder(&self, folder: &Path) -> Result<()> {
        match self.fs.remove_dir_all(folder) {
            // A process may have died before it wrote down what it had made.
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", folder, &err)),
            Ok(()) | Err(_) => {}
        }
        self.fs.create_dir_all(folder).map_err(|err| Error::io("create", folder, &err))
    }

    /// Where deliveries run.
    fn delivering(&self) -> Result<&Compute> {
        if self.delivering.get().is_none() {
            let _ = self.delivering.set(Compute::with_workers(THREADS)?);
        }
        self.delivering.get().ok_or_else(|| Error::internal("it was set"))
    }

    /// Starts the sinks that the catalog has.
    pub(super) fn start_sinks(&self) -> Result<()> {
        for sink in self.sinks() {
            sink.start(self.delivering()?);
        }
        Ok(())
    }

    /// Stops all sinks; what they hold is brought to an end.
    pub(super) async fn stop_sinks(&self) {
        futures::future::join_all(self.sinks().iter().map(|sink| sink.stop())).await;
    }

    /// Stops a sink that was dropped, and removes what it remembered. What was delivered stays where it is.
    pub(super) async fn remove_sink(&self, name: &str) -> Result<()> {
        let sink = self.sinks.write().remove(name);
        self.public.deregister_table(&format!("{name}{SUFFIX}"))?;
        let Some(sink) = sink else { return Ok(()) };
        sink.stop().await;
        let (fs, folder) = (Arc::clone(&self.fs), sink.folder.clone());
        blocking(move || match fs.remove_dir_all(&folder) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &folder, &err)),
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }

    /// "sink does not exist", with the nearest name.
    pub fn no_sink(&self, name: &str) -> Error {
        let sinks = self.sinks();
        let err = Error::new(Kind::UndefinedObject, format!("sink \"{name}\" does not exist"));
        match nearest(name, sinks.iter().map(|sink| sink.name.as_str())) {
            Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
            None => err.with_hint("SHOW SINKS lists them."),
        }
    }

    /// What there is to know of a query before it is followed, and the streams that it reads.
    pub(super) fn nature_of(&self, plan: &LogicalPlan) -> Result<(Nature, Vec<Arc<Runner>>)> {
        let finish = match stream_of(plan) {
            Some(_) => None,
            None => Some(self.plan_view("", "", plan, ViewOptions::default())?.finish),
        };
        let plan = finish.as_deref().unwrap_or(plan);
        let runners = self.runners_of(plan)?;
        Ok((Nature::of(plan), runners.into_values().collect()))
    }
}

/// A sink of a definition, with its options.
fn build(spec: &'static Spec, definition: &SinkDefinition) -> Result<(Given, Box<dyn Sink>)> {
    let owner = format!("connector \"{}\"", spec.name);
    let given = Given::parse(&owner, &[spec.options, SINK_OPTIONS], &definition.options)?;
    let encoding = match (&definition.format, spec.formats.first()) {
        (Some((name, options)), _) => Encoding::named(name, options, spec.formats, &owner)?,
        (None, Some(usual)) => Encoding::named(usual, &[], spec.formats, &owner)?,
        (None, None) => Encoding::Json,
    };
    let sink = (spec.build)(&given, encoding)?;
    Ok((given, sink))
}

/// What a sink or an alert follows. Holds the engine weakly: the engine owns those.
pub(super) struct Followed {
    engine: Weak<Engine>,
    query: String,
    reads: BTreeSet<String>,
    closed: bool,
    seen: Mutex<Option<Seen>>,
}

/// As it was when it was planned last.
struct Seen {
    streams: Vec<Arc<Runner>>,
    /// The relations that it reads, with their columns.
    columns: Vec<(String, usize)>,
}

impl Followed {
    pub fn new(engine: &Arc<Engine>, query: &str, reads: &BTreeSet<String>, closed: bool) -> Followed {
        let (query, reads) = (query.to_string(), reads.clone());
        Followed { engine: Arc::downgrade(engine), query, reads, closed, seen: Mutex::default() }
    }

    pub fn engine(&self) -> Result<Arc<Engine>> {
        self.engine.upgrade().ok_or_else(|| Error::new(Kind::Shutdown, "the server is shutting down"))
    }

    pub async fn plan(&self, engine: &Engine) -> Result<(Opaque<LogicalPlan>, SchemaRef)> {
        engine.plan_query(&self.query).await
    }

    fn columns(&self, engine: &Engine) -> Vec<(String, usize)> {
        let count = |name: &String| Some((name.clone(), engine.public.get(name)?.schema().fields().len()));
        self.reads.iter().filter_map(count).collect()
    }

    async fn describe(&self) -> Result<Described> {
        let engine = self.engine()?;
        // First: columns that come meanwhile are noticed afterwards.
        let columns = self.columns(&engine);
        let (plan, schema) = self.plan(&engine).await?;
        let (mut nature, streams) = engine.nature_of(&plan)?;
        nature.closed |= self.closed;
        let mut names = BTreeSet::new();
        if let Some(twice) = schema.fields().iter().find(|field| !names.insert(field.name().as_str())) {
            return Err(Error::new(Kind::DuplicateObject, format!("column \"{}\" exists twice", twice.name()))
                .with_hint("Give it another name with AS."));
        }
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let views = self.reads.iter().filter_map(|name| engine.view(name));
        let every = views.filter_map(|view| view.options.every()).max().unwrap_or_default();
        *self.seen.lock() = Some(Seen { streams, columns });
        Ok(Described { schema, nature, every })
    }

    async fn follow(&self, options: Options, window: Option<(usize, Micros)>) -> Result<SendableRecordBatchStream> {
        let engine = self.engine()?;
        let (mut plan, _) = self.plan(&engine).await?;
        if let Some((column, after)) = window {
            plan = behind(&plan, column, after)?.into();
        }
        engine.subscribe(plan, &self.reads, options).await
    }

    async fn durable(&self, offset: u64) -> Result<()> {
        let streams = self.seen.lock().as_ref().map_or_else(Vec::new, |seen| seen.streams.clone());
        let reach = |runner: &Runner| match streams.len() {
            1 => offset.min(runner.log.wal().next_offset()),
            // The offset is that of all streams together.
            _ => runner.progress().offset,
        };
        let behind: Vec<_> = streams
            .iter()
            .map(|runner| (Arc::clone(runner), reach(runner)))
            .filter(|(runner, reach)| runner.log.wal().synced() < *reach)
            .collect();
        if behind.is_empty() {
            return Ok(());
        }
        blocking(move || behind.iter().try_for_each(|(runner, reach)| runner.log.wal().wait_synced(*reach))).await
    }
}

impl Relation for Followed {
    fn describe(&self) -> BoxFuture<'_, Result<Described>> {
        Box::pin(self.describe())
    }

    fn follow(
        &self,
        options: Options,
        window: Option<(usize, Micros)>,
    ) -> BoxFuture<'_, Result<SendableRecordBatchStream>> {
        Box::pin(self.follow(options, window))
    }

    fn has_columns(&self) -> bool {
        let Ok(engine) = self.engine() else { return true };
        let now = self.columns(&engine);
        self.seen.lock().as_ref().is_none_or(|seen| seen.columns == now)
    }

    fn offset(&self) -> Option<u64> {
        let seen = self.seen.lock();
        Some(seen.as_ref()?.streams.iter().map(|runner| runner.progress().offset).sum())
    }

    fn first(&self) -> Option<u64> {
        let seen = self.seen.lock();
        let runner = seen.as_ref()?.streams.first()?;
        Some(runner.log.chunks().first().map_or(runner.progress().offset, |chunk| chunk.base))
    }

    fn durable(&self, offset: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.durable(offset))
    }
}

/// The rows of a plan that are larger than this time in a column.
fn behind(plan: &LogicalPlan, column: usize, after: Micros) -> Result<LogicalPlan> {
    let DataType::Timestamp(_, zone) = plan.schema().field(column).data_type() else {
        return Err(Error::internal("windows are told by a timestamp"));
    };
    let after = lit(ScalarValue::TimestampMicrosecond(Some(after), zone.clone()));
    let column = plan.schema().columns().swap_remove(column);
    Ok(LogicalPlanBuilder::from(plan.clone()).filter(Expr::Column(column).gt(after))?.build()?)
}
