//! What may be said? The SQL dialect: [`parser`] cuts and parses texts in the [`grammar`], [`statement`] is the table of our own statements,
//! [`function`] of our functions, [`window`] plans `TUMBLE` and `HOP`, [`names`] gives result columns PostgreSQL's names,
//! [`versions`] shows `_final` and `_revision` to those who name them, [`period`] fills in what a report is about, [`pattern_files`] reads what a format may not,
//! [`copy_in`] reads what a client sends for COPY … FROM STDIN, [`secrets`] takes passwords out of statements, [`scores`] makes
//! predicates with `anomaly(…)` into queries, `introspect` answers questions about the catalog, [`privileges`] says what a session may do,
//! [`rewrite`] says in other words what DataFusion cannot plan, [`types`] knows the types that Arrow lacks, [`bounds`] ends
//! the planning of what grows too large or that nobody waits for.
//!
//! A [`Session`] is what a door (Postgres, command line) talks to: parse, plan, execute.

pub mod bounds;
pub mod copy_in;
pub mod function;
mod grammar;
mod introspect;
mod literals;
pub mod names;
pub mod parser;
mod pattern_files;
pub mod period;
pub mod position;
pub mod privileges;
pub mod rewrite;
mod scores;
pub mod secrets;
pub mod statement;
pub mod types;
pub mod versions;
pub mod window;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use sqlparser::ast::visit_relations;

pub use copy_in::CopyIn;
pub use names::postgres_names;
pub use parser::Statement;
pub use privileges::{Proof, Who};
pub use statement::Given;
use statement::{Command, create_view, plain_view};

use crate::backend::Backend;
use crate::catalog::ObjectKind;
use crate::config::Config;
use crate::engine::{Ahead, Engine, PUBLIC, Remake};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::reach;
use crate::storage::fs::Fs;
use crate::time::{Clock, Micros};
use crate::view::options::ViewOptions;

/// Opens an engine with the SQL dialect in place, makes its objects again from the catalog and starts its streams.
pub async fn open(config: Config, clock: Clock) -> Result<Arc<Engine>> {
    make_again(Engine::open(config, clock, extend)?).await
}

/// The same on another disk than the system's.
pub async fn open_on(fs: Arc<dyn Fs>, config: Config, clock: Clock) -> Result<Arc<Engine>> {
    make_again(Engine::open_on(fs, config, clock, extend)?).await
}

fn extend(builder: SessionStateBuilder) -> SessionStateBuilder {
    bounds::extend(function::extend(builder))
}

async fn make_again(engine: Arc<Engine>) -> Result<Arc<Engine>> {
    window::register(engine.context(), engine.database())?;
    versions::register(engine.context(), engine.database())?;
    crate::catalog::postgres::register(&engine)?;
    introspect::schema::register(&engine)?;
    function::session::register(engine.context());
    engine.set_remake(Arc::new(Planner(Arc::downgrade(&engine))));
    let session = Session::new(Arc::clone(&engine));
    let (begun, objects) = (Instant::now(), engine.objects());
    for object in &objects {
        let made = session.run_text(&object.sql).await;
        made.map_err(|err| {
            let hint = err.hint().map(str::to_string);
            let detail = err.detail().map(|detail| format!("{detail} ")).unwrap_or_default();
            let err = Error::new(
                err.kind(),
                format!("could not make {} \"{}\" again: {}", object.kind.word(), object.name, err.message()),
            )
            .with_detail(format!("{detail}Its statement: {}", secrets::without_secrets(&object.sql)));
            match hint {
                Some(hint) => err.with_hint(hint),
                None => err,
            }
        })?;
    }
    for statement in engine.access_statements() {
        let made = session.run_text(&statement).await;
        made.map_err(|err| err.with_context("could not make the roles again"))?;
    }
    if !objects.is_empty() {
        let took = begun.elapsed().as_millis() as u64;
        tracing::info!(objects = objects.len(), objects_ms = took, "what the catalog has was made again");
    }
    engine.start().await?;
    Ok(engine)
}

/// Plans views again for the engine, which knows no SQL. Holds it weakly: the engine owns this.
struct Planner(Weak<Engine>);

#[async_trait]
impl Remake for Planner {
    async fn plan(&self, statement: &str) -> Result<(LogicalPlan, ViewOptions)> {
        let engine = self.0.upgrade().ok_or_else(|| Error::new(Kind::Shutdown, "the engine is stopping"))?;
        let session = Session::new(engine);
        let materialized = create_view::parse_view(&mut parser::parser(statement)?, statement)?;
        if let Some(view) = materialized {
            return Ok((LogicalPlan::clone(&*view.plan(&session).await?), view.options));
        }
        let query = plain_view::query_of(&mut parser::parser(statement)?, statement)?;
        let query = query.ok_or_else(|| Error::internal(format!("not the statement of a view: {statement}")))?;
        let query = sqlparser::ast::Statement::Query(Box::new(sqlparser::ast::Query::clone(&query)));
        Ok((session.plan_query(&query).await?, ViewOptions::default()))
    }

    fn query<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<(Opaque<LogicalPlan>, SchemaRef)>> {
        self.plan_text(text).boxed()
    }

    fn of_period(&self, text: &str, start: Micros, end: Micros) -> Result<(String, bool)> {
        period::fill(text, start, end)
    }
}

impl Planner {
    async fn plan_text(&self, text: &str) -> Result<(Opaque<LogicalPlan>, SchemaRef)> {
        let engine = self.0.upgrade().ok_or_else(|| Error::new(Kind::Shutdown, "the engine is stopping"))?;
        let session = Session::new(engine);
        let statement = session.parse(text)?.pop();
        let statement = statement.ok_or_else(|| Error::internal("there is no query"))?;
        match session.plan(&statement).await? {
            Planned::Query { plan, fields, .. } => {
                function::session::refuse(&plan, "the query of an alert, a report or a sink")?;
                Ok((plan, fields))
            }
            Planned::Command { .. } => Err(Error::internal(format!("not a query: {text}"))),
        }
    }
}

/// What executing a statement gives.
pub enum Outcome {
    Rows(SendableRecordBatchStream),
    /// Rows, and what there is to say about them.
    NoticedRows(SendableRecordBatchStream, Vec<String>),
    CopyOut(SendableRecordBatchStream, CopyOptions),
    /// Lines that the client is to send.
    CopyIn(Box<CopyIn>),
    /// Command tag, affected rows if the tag carries them, notices.
    Done {
        tag: String,
        rows: Option<usize>,
        notices: Vec<String>,
    },
    Empty,
}

impl Outcome {
    pub fn done(tag: &str) -> Outcome {
        Outcome::Done { tag: tag.to_string(), rows: None, notices: Vec::new() }
    }

    pub fn noticed(tag: &str, notice: String) -> Outcome {
        Outcome::Done { tag: tag.to_string(), rows: None, notices: vec![notice] }
    }
}

/// Form of `COPY … TO STDOUT` and `FROM STDIN` (PostgreSQL manual, COPY).
#[derive(Debug, Clone, PartialEq)]
pub struct CopyOptions {
    /// In binary: then the others say nothing.
    pub binary: bool,
    pub csv: bool,
    pub header: bool,
    pub delimiter: u8,
    pub null: String,
    pub quote: u8,
    pub escape: u8,
}

/// What is known of a query that has run before.
#[derive(Default)]
pub struct Again {
    has_run: AtomicBool,
    /// `None` inside where there is no shortcut.
    ahead: OnceLock<Option<Ahead>>,
}

/// A statement whose names are resolved.
#[derive(Clone)]
pub enum Planned {
    /// `generation`: of the engine when it was planned.
    Query {
        statement: Statement,
        plan: Opaque<LogicalPlan>,
        fields: SchemaRef,
        generation: u64,
        again: Arc<Again>,
    },
    Command {
        statement: Statement,
        command: Arc<dyn Command>,
    },
}

impl Planned {
    /// The plan of a query: for the types of its parameters.
    pub fn plan(&self) -> Option<&LogicalPlan> {
        match self {
            Planned::Query { plan, .. } => Some(plan),
            Planned::Command { command, .. } => command.plan(),
        }
    }

    /// The engine's generation for which it was planned, if it is a query.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Planned::Query { generation, .. } => Some(*generation),
            Planned::Command { .. } => None,
        }
    }

    /// Whether it puts rows into a stream, and so takes an idempotency key.
    pub fn inserts(&self) -> bool {
        match self {
            Planned::Query { .. } => false,
            Planned::Command { command, .. } => command.inserts(),
        }
    }

    /// The statement's name if it may change anything: a read-only transaction refuses it.
    pub fn changes(&self) -> Option<&'static str> {
        match self.statement() {
            Statement::Ours { spec, .. } if !statement::READS.contains(&spec.name) => spec.name.split(" …").next(),
            Statement::Ours { .. } | Statement::Sql(_) => None,
        }
    }

    /// The result's columns, with PostgreSQL's names; `None` when there are no result rows.
    pub fn fields(&self) -> Option<SchemaRef> {
        match self {
            Planned::Query { fields, .. } => Some(Arc::clone(fields)),
            Planned::Command { command, .. } => command.fields(),
        }
    }

    /// Whether the result's rows come as things happen, without an end of their own.
    pub fn is_live(&self) -> bool {
        match self {
            Planned::Query { .. } => false,
            Planned::Command { command, .. } => command.is_live(),
        }
    }

    pub fn statement(&self) -> &Statement {
        match self {
            Planned::Query { statement, .. } | Planned::Command { statement, .. } => statement,
        }
    }
}

/// One client's view of the engine.
#[derive(Clone)]
pub struct Session {
    engine: Arc<Engine>,
    /// The connection it is for, if it is for one.
    backend: Option<Arc<Backend>>,
    /// Of this session and its clones.
    who: Arc<RwLock<Who>>,
}

impl Session {
    /// A session of the engine itself, which may do everything; [`Session::anew`] makes one for a client.
    pub fn new(engine: Arc<Engine>) -> Session {
        Session { engine, backend: None, who: Arc::new(RwLock::new(Who::Engine)) }
    }

    /// The session of this connection.
    pub fn with_backend(mut self, backend: Arc<Backend>) -> Session {
        self.backend = Some(backend);
        self
    }

    /// The connection it is for; an error where there is none.
    pub fn need_backend(&self) -> Result<&Arc<Backend>> {
        self.backend.as_ref().ok_or_else(|| {
            Error::new(Kind::NotSupported, "this needs a connection").with_hint("Use it over a Postgres connection.")
        })
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub fn context(&self) -> &SessionContext {
        self.engine.context()
    }

    /// The statements of a text.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        // Also what stands in a statement is read from files: patterns of formats.
        reach::with(self.bounds(), || parser::parse(sql))
    }

    /// Resolves the names of a statement. The future is boxed, as those below, for the reason that `opaque.rs` gives.
    pub fn plan<'a>(&'a self, statement: &'a Statement) -> BoxFuture<'a, Result<Planned>> {
        reach::within(self.bounds(), self.plan_statement(statement).boxed())
    }

    async fn plan_statement(&self, statement: &Statement) -> Result<Planned> {
        self.authorize(statement)?;
        match statement {
            Statement::Ours { command, .. } => {
                let command = command.prepare(self).await?.unwrap_or_else(|| Arc::clone(command));
                Ok(Planned::Command { statement: statement.clone(), command })
            }
            Statement::Sql(ast) => {
                if let Some(written) = ast.written()
                    && let Some(command) = introspect::plan(self, written)?
                {
                    return Ok(Planned::Command { statement: statement.clone(), command });
                }
                let generation = self.engine.generation();
                let plan = self.plan_query(ast).await?;
                let plan = self.analyze(plan)?;
                let names = postgres_names(ast, plan.schema().as_arrow());
                let fields = told(&renamed(plan.schema().as_arrow(), names));
                let (statement, again) = (statement.clone(), Arc::default());
                Ok(Planned::Query { statement, plan: plan.into(), fields, generation, again })
            }
        }
    }

    /// Types are final after analysis: it inserts the casts. A query with parameters has to wait for their values.
    pub fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        if !plan.get_parameter_names()?.is_empty() {
            return Ok(plan);
        }
        let state = self.context().state();
        Ok(state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?)
    }

    /// Runs a statement; rows come as they are made.
    pub fn execute<'a>(&'a self, planned: &'a Planned, params: ParamValues) -> BoxFuture<'a, Result<Outcome>> {
        self.execute_with(planned, Given { params, key: None })
    }

    /// The same with all that a client can give.
    pub fn execute_with<'a>(&'a self, planned: &'a Planned, given: Given) -> BoxFuture<'a, Result<Outcome>> {
        reach::within(self.bounds(), self.run_planned(planned, given).boxed())
    }

    /// The result of a query that has run before, is of one row and can be had at once: without waiting, in microseconds.
    /// `None` for all others, and where something is wrong: then [`Session::execute_with`] says what.
    pub fn read_at_once(&self, planned: &Planned, params: &ParamValues) -> Option<RecordBatch> {
        let Planned::Query { statement, generation, again, .. } = planned else { return None };
        if *generation != self.engine.generation() {
            return None;
        }
        let ahead = again.ahead.get()?.as_ref()?;
        self.authorize(statement).ok()?;
        self.engine.read_at_once(ahead, params)
    }

    async fn run_planned(&self, planned: &Planned, given: Given) -> Result<Outcome> {
        self.authorize(planned.statement())?;
        match planned {
            Planned::Command { command, .. } => command.run_with(self, given).await,
            Planned::Query { plan, generation, again, .. } if *generation == self.engine.generation() => {
                if again.has_run.swap(true, Ordering::Relaxed) {
                    // An error will be that of the query itself.
                    let ahead = again.ahead.get_or_init(|| self.engine.optimize_ahead(plan).unwrap_or_default());
                    if let Some(ahead) = ahead {
                        let rows = self.engine.run_ahead(ahead, given.params, self.backend.clone()).await?;
                        return Ok(Outcome::Rows(rows));
                    }
                }
                let plan = LogicalPlan::clone(plan).with_param_values(given.params)?;
                Ok(Outcome::Rows(self.run_plan(plan).await?))
            }
            // A relation changed since: a view that was replaced has a new plan.
            Planned::Query { statement, fields, .. } => {
                let again = self.plan(statement).await?;
                let columns = again.fields().map_or(0, |f| f.fields().len());
                let same = |(old, new): (&Arc<Field>, &Arc<Field>)| old.data_type() == new.data_type();
                let same = again.fields().is_some_and(|f| fields.fields().iter().zip(f.fields()).all(same));
                match again {
                    Planned::Query { plan, .. } if same && columns == fields.fields().len() => {
                        let plan = LogicalPlan::clone(&plan).with_param_values(given.params)?;
                        Ok(Outcome::Rows(self.run_plan(plan).await?))
                    }
                    _ => Err(Error::new(Kind::NotSupported, "cached plan must not change result type")
                        .with_hint("A relation that the statement reads was replaced: prepare the statement again.")),
                }
            }
        }
    }

    /// Starts a query for this session (already with its parameters); rows come as they are made.
    pub fn run_plan(&self, plan: LogicalPlan) -> BoxFuture<'_, Result<SendableRecordBatchStream>> {
        async { self.engine.run_for(function::session::bind(plan, self)?, self.backend.clone()).await }.boxed()
    }

    /// The logical plan of a query. Statements that would change what is kept without being in our table are refused.
    pub fn plan_query<'a>(&'a self, ast: &'a sqlparser::ast::Statement) -> BoxFuture<'a, Result<LogicalPlan>> {
        self.resolve(ast).boxed()
    }

    /// The plan of the rows of an INSERT, which have all columns of its relation.
    pub fn plan_insert<'a>(&'a self, ast: &'a sqlparser::ast::Statement) -> BoxFuture<'a, Result<LogicalPlan>> {
        let rows = self.plan_any(ast).map(|plan| match plan? {
            LogicalPlan::Dml(dml) => Ok(Arc::unwrap_or_clone(dml.input)),
            other => Err(Error::internal(format!("INSERT was planned as {}", other.display()))),
        });
        rows.boxed()
    }

    async fn plan_any(&self, ast: &sqlparser::ast::Statement) -> Result<LogicalPlan> {
        parser::check_columns(ast)?;
        let mut unique = Box::new(ast.clone());
        parser::registers(&mut unique);
        names::make_unique(&mut unique);
        rewrite::statement(&mut unique)?;
        versions::expose(&mut unique, &|name| self.engine.view(name).is_some());
        let statement = datafusion::sql::parser::Statement::Statement(unique);
        let plan = self.context().state().statement_to_plan(statement).await.map_err(|e| self.better(e.into()))?;
        // Before anybody walks over it: what is read twice is there once, and is walked over twice.
        bounds::check(&plan)?;
        Ok(plan)
    }

    async fn resolve(&self, ast: &sqlparser::ast::Statement) -> Result<LogicalPlan> {
        self.check_names(ast)?;
        let plan = self.plan_any(ast).await?;
        let refused = match &plan {
            LogicalPlan::Ddl(ddl) => Some(ddl.name().to_string()),
            LogicalPlan::Dml(dml) => Some(dml.name().to_string()),
            LogicalPlan::Copy(_) => Some("COPY to a file".into()),
            LogicalPlan::Statement(statement) => Some(statement.name().to_string()),
            _ => None,
        };
        match refused {
            Some(what) => Err(Error::new(Kind::NotSupported, format!("{what} is not supported"))
                .with_hint("SHOW STATEMENTS lists what is.")),
            None => Ok(plan),
        }
    }

    /// Names the nearest relation or function when one was not found.
    fn better(&self, err: Error) -> Error {
        let named = |quote: char| err.message().split(quote).nth(1).map(str::to_string);
        match err.kind() {
            Kind::UndefinedTable => named('"').map_or(err, |name| self.engine.no_relation(&name)),
            Kind::UndefinedFunction if err.message().starts_with("table function") => match named('\'') {
                Some(name) => no_function(&name, function::FUNCTIONS.iter().map(|f| f.name)),
                None => err,
            },
            Kind::UndefinedFunction if err.message().starts_with("invalid function") => match named('\'') {
                Some(name) => {
                    let state = self.context().state();
                    let (scalar, aggregate) = (state.scalar_functions(), state.aggregate_functions());
                    let known = scalar.keys().chain(aggregate.keys()).chain(state.window_functions().keys());
                    no_function(&name, known.map(String::as_str))
                }
                None => err,
            },
            // One of ours, called with other arguments than it takes.
            Kind::UndefinedFunction => match err.message().split_once("name and argument types '") {
                Some((_, call)) => {
                    let call = call.split('\'').next().unwrap_or(call);
                    let name = call.split('(').next().unwrap_or(call);
                    let scalar = function::scalars().find(|f| f.name == name).map(|f| f.syntax);
                    let windowed = || function::windowed().find(|f| f.name == name).map(|f| f.syntax);
                    match scalar.or_else(windowed) {
                        Some(syntax) => Error::new(Kind::UndefinedFunction, format!("function {call} does not exist"))
                            .with_hint(format!("The form is {syntax}.")),
                        None => err,
                    }
                }
                None => err,
            },
            _ => err,
        }
    }

    /// Runs all statements of a text and drops their rows: for `--init` files and the catalog.
    pub async fn run_text(&self, sql: &str) -> Result<Vec<String>> {
        let mut notices = Vec::new();
        for statement in self.parse(sql)? {
            let planned = self.plan(&statement).await?;
            if planned.is_live() {
                return Err(Error::new(
                    Kind::NotSupported,
                    "a subscription has no end, so nothing would come after it",
                )
                .with_hint("Use SUBSCRIBE over a connection."));
            }
            match self.execute(&planned, ParamValues::List(vec![])).await? {
                Outcome::Rows(mut rows) | Outcome::NoticedRows(mut rows, _) | Outcome::CopyOut(mut rows, _) => {
                    use futures::StreamExt;
                    while let Some(batch) = rows.next().await {
                        batch?;
                    }
                }
                Outcome::Done { notices: more, .. } => notices.extend(more),
                Outcome::CopyIn(_) => return Err(no_client()),
                Outcome::Empty => {}
            }
        }
        Ok(notices)
    }

    /// Whether `name` exists already, for `IF NOT EXISTS`, and whether it was made by the very same statement.
    pub fn existing(&self, name: &str) -> Option<(ObjectKind, String)> {
        self.engine.object(name).map(|o| (o.kind, o.sql))
    }
}

/// COPY … FROM STDIN where nobody could send anything.
pub fn no_client() -> Error {
    Error::new(Kind::NotSupported, "COPY … FROM STDIN needs a client that sends the lines")
        .with_hint("Use it over a connection, such as psql's \\copy.")
}

/// "function does not exist", with the nearest name.
fn no_function<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let err = Error::new(Kind::UndefinedFunction, format!("function {name} does not exist"));
    if [period::START, period::END].contains(&name) {
        return err.with_hint("It stands for a time in the queries of CREATE REPORT alone.");
    }
    match crate::options::nearest(name, known) {
        Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
        None => err.with_hint("In psql, \\df lists the functions; SHOW FUNCTIONS says what our own do."),
    }
}

/// The columns as clients are told them: row numbers, lengths and the like, which have no sign here, are PostgreSQL's bigint.
fn told(schema: &SchemaRef) -> SchemaRef {
    if !schema.fields().iter().any(|field| *field.data_type() == DataType::UInt64) {
        return Arc::clone(schema);
    }
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::UInt64 => Arc::new(Field::clone(field).with_data_type(DataType::Int64)),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The same columns under other names.
pub fn renamed(schema: &Schema, names: impl IntoIterator<Item = String>) -> SchemaRef {
    let fields = schema.fields().iter().zip(names).map(|(f, name)| f.as_ref().clone().with_name(name));
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

/// The names in schema public that a query reads, directly: what must not be dropped while it is there.
pub fn relations_read(query: &impl sqlparser::ast::Visit) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let _ = visit_relations(query, |name| {
        let parts: Vec<_> = name.0.iter().filter_map(|p| p.as_ident()).collect();
        match parts.as_slice() {
            [one] => drop(names.insert(parser::folded(one))),
            [schema, one] if schema.value == PUBLIC => drop(names.insert(parser::folded(one))),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    names.extend(window::relations_read(query));
    names
}
