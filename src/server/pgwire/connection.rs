//! One client's connection: its session, settings, cursors and transaction state, and the way of a statement from text
//! to an `Answer`. Nothing here writes rows to the socket; `handler` does.
//!
//! Transactions are a matter of form: statements take effect as they run. A client may say BEGIN and COMMIT, a failed
//! transaction refuses statements until it ends as in PostgreSQL, and ROLLBACK warns if there was something to undo. One
//! that is READ ONLY refuses what changes anything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::{ParamValues, ScalarValue};
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use pgwire::error::PgWireResult;
use pgwire::messages::data::DataRow;
use pgwire::messages::response::TransactionStatus;
use tokio::time::Instant;

use super::control::Control;
use super::copy_in::Copying;
use super::cursor::{Cursor, MAX_CURSORS};
use super::error::{fatal, refuse, wire};
use super::interrupt::Interrupt;
use super::login::Login;
use super::plans::{Plans, Shared};
use super::prepared::{Prepared, Work, control_of, text_columns};
use super::settings::Settings;
use super::shape::Shape;
use super::types::{self, RowEncoder};
use super::{Choice, Endpoint, Place, copy};
use crate::backend::{Backend, Phase};
use crate::error::{Error, Kind, Result};
use crate::sql::secrets::{shown, without_secrets};
use crate::sql::{CopyIn, Given, Outcome, Session, Statement, position};

/// Savepoints of a transaction, and statements that PREPARE may keep.
const MAX_SAVEPOINTS: usize = 10_000;
const MAX_NAMED: usize = 1000;

pub type RowStream = Pin<Box<dyn Stream<Item = PgWireResult<DataRow>> + Send>>;
pub type LineStream = Pin<Box<dyn Stream<Item = PgWireResult<Bytes>> + Send>>;

/// What a statement gives back.
pub enum Answer {
    Rows {
        fields: Arc<Vec<FieldInfo>>,
        rows: RowStream,
        tag: &'static str,
    },
    Copy {
        /// Of each column: 0 for text, 1 for binary.
        formats: Vec<i16>,
        /// So many of the lines are no rows.
        others: usize,
        lines: LineStream,
    },
    /// Lines are awaited from the client.
    CopyIn(Box<CopyIn>),
    /// The tag; with rows where the statement counts them.
    Done {
        tag: String,
        rows: Option<usize>,
    },
    Empty,
}

/// What the client is told besides the answer.
#[derive(Default)]
pub struct Aside {
    /// Severity, SQLSTATE, message.
    pub notices: Vec<(&'static str, &'static str, String)>,
    /// Settings that have changed.
    pub reports: Vec<(&'static str, String)>,
    /// The new state of the transaction.
    pub transaction: Option<TransactionStatus>,
    /// A prepared statement to forget.
    pub deallocate: Option<String>,
}

/// When an idle connection is ended, and what its client is told then.
pub struct IdleTimeout {
    pub after: Duration,
    pub sqlstate: &'static str,
    pub message: &'static str,
}

pub struct State {
    // Fixed.
    pub endpoint: Arc<Endpoint>,
    pub backend: Arc<Backend>,
    session: Arc<Session>,
    // State.
    /// Taken when the client has come in.
    place: OnceLock<Place>,
    pub login: Login,
    pub settings: Arc<Mutex<Settings>>,
    cursors: Mutex<HashMap<String, Cursor>>,
    /// What PREPARE made.
    named: Mutex<HashMap<String, Prepared>>,
    /// Of the open transaction, the last one last.
    savepoints: Mutex<Vec<String>>,
    plans: Mutex<Plans>,
    /// What the client is sending lines for.
    pub copying: Mutex<Option<Copying>>,
    /// Whether the open transaction has changed anything.
    wrote: AtomicBool,
}

impl State {
    pub fn new(endpoint: Arc<Endpoint>, session: Session, peer: SocketAddr) -> State {
        let address = Some((peer.ip().to_canonical().to_string(), peer.port()));
        let backend = session.engine().backends().connect(address, endpoint.shutdown.child_token());
        let settings: Arc<Mutex<Settings>> = Arc::default();
        let _ = backend.parameters.set(Arc::clone(&settings) as _);
        State {
            endpoint,
            backend: Arc::clone(&backend),
            // Whoever it is has yet to say so.
            session: Arc::new(session.anew().with_backend(backend)),
            place: OnceLock::new(),
            login: Login::default(),
            settings,
            cursors: Mutex::default(),
            named: Mutex::default(),
            savepoints: Mutex::default(),
            plans: Mutex::default(),
            copying: Mutex::default(),
            wrote: AtomicBool::new(false),
        }
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Starts the clock for a statement. A copy that the client did not bring to an end is over.
    pub fn begin(&self) -> Interrupt {
        drop(self.copying.lock().take());
        self.backend.begin();
        Interrupt {
            canceled: self.backend.running.begin(),
            shutdown: self.backend.terminated.clone(),
            deadline: self.deadline(),
        }
    }

    /// Takes a place for the client, who has shown who they are.
    pub fn take_place(&self) -> PgWireResult<()> {
        let place: Place = match &self.endpoint.choice {
            Choice::Known(database) if !database.is_main() => Box::new(database.enter().map_err(wire)?),
            Choice::Known(_) | Choice::Not(..) => Box::new(self.endpoint.places.take(self.session.is_admin())?),
        };
        let _ = self.place.set(place);
        Ok(())
    }

    /// The client has been let in: others can see it.
    pub fn appear(&self, user: &str, database: &str) {
        self.backend.introduce(user, database);
        self.show_application();
        self.session.engine().backends().enter(&self.backend);
    }

    fn show_application(&self) {
        let name = self.settings.lock().show("application_name").map(|(_, name)| name);
        self.backend.set_application(&name.unwrap_or_default());
    }

    /// What ends the connection if the client goes on saying nothing.
    pub fn idle_timeout(&self, transaction: TransactionStatus) -> Option<IdleTimeout> {
        let settings = self.settings.lock();
        match transaction {
            TransactionStatus::Idle => settings.idle_session_timeout().map(|after| IdleTimeout {
                after,
                sqlstate: "57P05",
                message: "terminating connection due to idle-session timeout",
            }),
            TransactionStatus::Transaction | TransactionStatus::Error => {
                settings.idle_in_transaction_timeout().map(|after| IdleTimeout {
                    after,
                    sqlstate: "25P03",
                    message: "terminating connection due to idle-in-transaction timeout",
                })
            }
        }
    }

    /// The client's turn: nothing runs any more.
    pub fn rest(&self, transaction: TransactionStatus) {
        self.backend.turn(match transaction {
            TransactionStatus::Idle => Phase::Idle,
            TransactionStatus::Transaction => Phase::InTransaction,
            TransactionStatus::Error => Phase::InFailedTransaction,
        });
    }

    /// By the client's own timeout, or that of its database if it is shorter.
    pub fn deadline(&self) -> Option<Instant> {
        let most = match &self.endpoint.choice {
            Choice::Known(database) => database.longest_statement(),
            Choice::Not(..) => None,
        };
        let timeout = self.settings.lock().statement_timeout();
        timeout.into_iter().chain(most).min().map(|timeout| Instant::now() + timeout)
    }

    /// The statements in `sql`, and what may be shown of it.
    pub async fn parse(&self, sql: &str, interrupt: &Interrupt) -> Result<(Vec<Statement>, Arc<str>)> {
        let (session, backend, sql) = (Arc::clone(&self.session), Arc::clone(&self.backend), sql.to_string());
        let task = self.endpoint.compute.spawn(async move {
            let statements = session.parse(&sql).map_err(|err| position::placed(err, &sql));
            let text = statements.as_ref().map_or_else(|_| without_secrets(&sql), |all| shown(&sql, all)).into();
            backend.show(&text);
            statements.map(|statements| (statements, text))
        });
        interrupt.run(async { task.await? }).await
    }

    /// The plan of a text that was planned before. A failed transaction has to look at the text.
    pub fn known(&self, text: &str, transaction: TransactionStatus) -> Option<Prepared> {
        let generation = self.session.engine().generation();
        self.plans.lock().get(text, generation).filter(|_| transaction != TransactionStatus::Error)
    }

    /// The columns of a cursor that DECLARE made.
    pub fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.lock().get(name).map(Cursor::schema)
    }

    /// Keeps the plan of a text that is one statement.
    pub fn remember(&self, text: &str, prepared: &Prepared) {
        self.plans.lock().put(text, prepared);
    }

    /// The answer to a text whose shape is known to be that of a row that can be read at once.
    pub fn read_shape(
        &self,
        text: &str,
        shape: &Shape,
        transaction: TransactionStatus,
    ) -> Option<PgWireResult<Answer>> {
        let shared = self.plans.lock().shared(shape, self.session.engine().generation());
        let Some(Shared::Row(prepared)) = shared.filter(|_| transaction != TransactionStatus::Error) else {
            return None;
        };
        let Work::Engine(planned) = prepared.work() else { return None };
        self.backend.show(&text.into());
        let row = self.session.read_at_once(planned, &ParamValues::from(shape.values.clone()))?;
        Some(self.row(row, prepared.columns()?, &Format::UnifiedText))
    }

    /// Notes that a text of this shape has been run, which was planned as `prepared`; plans the shape when it is the second one.
    pub async fn learn_shape(
        &self,
        shape: &Shape,
        prepared: &Prepared,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) {
        let Some(generation) = prepared.generation() else { return };
        let known = match self.plans.lock().shared(shape, generation) {
            None => Shared::Seen,
            Some(Shared::Seen) => Shared::Nothing,
            Some(Shared::Row(_) | Shared::Nothing) => return,
        };
        let is_second = matches!(known, Shared::Nothing);
        self.plans.lock().share(shape, generation, known);
        // What goes wrong is no failure of the text, which has been answered.
        if is_second && let Ok(Some(shared)) = self.prepare_shape(shape, transaction, interrupt).await {
            // Parameters may make other types of the columns than values do.
            if shared.columns() == prepared.columns() && shared.generation() == Some(generation) {
                self.plans.lock().share(shape, generation, Shared::Row(shared));
            }
        }
    }

    /// The plan of a shape, if it is of a row that can be read at once.
    async fn prepare_shape(
        &self,
        shape: &Shape,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<Option<Prepared>> {
        let (mut statements, text) = self.parse(&shape.text, interrupt).await.map_err(wire)?;
        let Some(statement) = statements.pop().filter(|_| statements.is_empty()) else { return Ok(None) };
        let prepared = self.prepare(statement, &text, transaction, interrupt).await?;
        let Work::Engine(planned) = prepared.work() else { return Ok(None) };
        if !shape.fits(&prepared.planned_types()) {
            return Ok(None);
        }
        let (session, planned) = (Arc::clone(&self.session), Arc::clone(planned));
        let task = self.endpoint.compute.spawn(async move { Ok(session.is_read_at_once(&planned)) });
        let at_once = interrupt.run(async { task.await? }).await.map_err(wire)?;
        Ok(at_once.then_some(prepared))
    }

    /// Plans a statement. A failed transaction takes only its end.
    pub async fn prepare(
        &self,
        statement: Statement,
        text: &Arc<str>,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<Prepared> {
        let control = control_of(&statement);
        let ends = matches!(
            control,
            Some(Control::Commit { .. } | Control::Rollback { .. } | Control::RollbackToSavepoint(_))
        );
        if transaction == TransactionStatus::Error && !ends {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(refuse("25P02", text));
        }
        if let Some(Control::Declare { query, .. }) = &control
            && query.contains('$')
        {
            let (inner, session) = (self.parse(query, interrupt).await.map_err(wire)?.0, Arc::clone(&self.session));
            if let Some(inner) = inner.into_iter().next() {
                let task = self.endpoint.compute.spawn(async move { session.plan(&inner).await });
                let inner = interrupt.run(async { task.await? }).await.map_err(wire)?;
                return control.map_or_else(
                    || Err(fatal("XX000", "not reached")),
                    |control| Prepared::declaring(control, &inner, Arc::clone(text)).map_err(wire),
                );
            }
        }
        if let Some(control) = control {
            let columns = match &control {
                Control::Show(name) => self.settings.lock().show(name).map(|(name, _)| text_columns(&[name])),
                Control::ShowAll => Some(text_columns(&["name", "setting", "description"])),
                Control::Fetch { cursor, moves: false, .. } => self.cursors.lock().get(cursor).map(Cursor::schema),
                Control::Execute { name, .. } => self.named.lock().get(name).and_then(Prepared::columns),
                _ => None,
            };
            return Ok(Prepared::control(control, columns, Arc::clone(text)));
        }
        let (session, text) = (Arc::clone(&self.session), Arc::clone(text));
        let task = self.endpoint.compute.spawn(async move {
            let planned = session.plan(&statement).await.map_err(|err| position::placed(err, &text))?;
            Prepared::engine(planned, text)
        });
        interrupt.run(async { task.await? }).await.map_err(wire)
    }

    /// Runs a statement. Rows come in `format`, encoded as they are read.
    pub async fn answer(
        &self,
        prepared: &Prepared,
        parameters: ParamValues,
        format: &Format,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<(Answer, Aside)> {
        self.backend.show(prepared.text());
        if let Work::Control(Control::Execute { name, arguments }) = prepared.work() {
            let (prepared, parameters) = self.executed(name, arguments, interrupt).await.map_err(wire)?;
            return Box::pin(self.answer(&prepared, parameters, format, transaction, interrupt)).await;
        }
        let planned = match prepared.work() {
            Work::Control(Control::Declare { name, hold, query }) => {
                self.declare((name, *hold, query), parameters, transaction, interrupt).await?;
                return Ok((Answer::Done { tag: "DECLARE CURSOR".to_string(), rows: None }, Aside::default()));
            }
            Work::Control(control) => return self.control(control, format, transaction, interrupt).await,
            Work::Engine(planned) => Arc::clone(planned),
        };
        if transaction == TransactionStatus::Error {
            return Err(refuse(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        if let Some(what) = planned.changes().filter(|_| self.settings.lock().read_only()) {
            return Err(refuse("25006", format!("cannot execute {what} in a read-only transaction")));
        }
        if let Some(row) = self.session.read_at_once(&planned, &parameters) {
            let columns = prepared.columns().unwrap_or_else(|| row.schema());
            return Ok((self.row(row, columns, format)?, Aside::default()));
        }
        let session = Arc::clone(&self.session);
        // A subscription is meant to last: statement_timeout is for statements that have an end.
        let deadline = interrupt.deadline.filter(|_| !planned.is_live());
        let interrupt = &Interrupt { deadline, ..interrupt.clone() };
        let key = if planned.inserts() { self.settings.lock().take_idempotency_key() } else { None };
        let given = Given { params: parameters, key };
        let task = self.endpoint.compute.spawn(async move { session.execute_with(&planned, given).await });
        let outcome = interrupt.run(async { task.await? }).await.map_err(wire)?;
        let mut aside = Aside::default();
        let answer = match outcome {
            Outcome::Rows(batches) => {
                let columns = prepared.columns().unwrap_or_else(|| batches.schema());
                self.rows(batches.map(|batch| batch.map_err(Error::from)), columns, format, "SELECT", interrupt)?
            }
            Outcome::NoticedRows(batches, notices) => {
                aside.notices = notices.into_iter().map(|text| ("NOTICE", "00000", text)).collect();
                let columns = prepared.columns().unwrap_or_else(|| batches.schema());
                self.rows(batches.map(|batch| batch.map_err(Error::from)), columns, format, "SELECT", interrupt)?
            }
            Outcome::CopyOut(batches, options) => {
                let (schema, format) = (batches.schema(), i16::from(options.binary));
                let (first, last) = (copy::header(&schema, &options), copy::trailer(&options));
                // The line of names or, in binary, the end: what a binary copy begins with comes with its first row.
                let others = usize::from(options.header || last.is_some());
                let (alone, mut before) = if options.binary { (None, first) } else { (first, None) };
                let one = |line: Option<Bytes>| futures::stream::iter(line.map(|line| Ok(vec![line])));
                let rows = self.measure(batches.map(move |batch| copy::lines(&batch?, &options)), Bytes::len);
                let lines = one(alone).chain(rows).chain(one(last)).map(move |chunk: Result<Vec<Bytes>>| {
                    let mut chunk = chunk?;
                    if let Some(row) = chunk.first_mut()
                        && let Some(before) = before.take()
                    {
                        *row = [before, row.clone()].concat().into();
                    }
                    Ok(chunk)
                });
                let lines = self.relay(lines, interrupt);
                Answer::Copy { formats: vec![format; schema.fields().len()], others, lines: Box::pin(lines) }
            }
            Outcome::Done { tag, rows, notices } => {
                // LISTEN and NOTIFY wait for COMMIT, so ROLLBACK does undo them.
                if !matches!(tag.as_str(), "LISTEN" | "UNLISTEN" | "NOTIFY") {
                    self.wrote.store(true, Ordering::Relaxed);
                }
                aside.notices = notices.into_iter().map(|text| ("NOTICE", "00000", text)).collect();
                Answer::Done { tag, rows }
            }
            Outcome::CopyIn(copy) => {
                self.wrote.store(true, Ordering::Relaxed);
                Answer::CopyIn(copy)
            }
            Outcome::Empty => Answer::Empty,
        };
        Ok((answer, aside))
    }

    /// Encodes the one row of a small result where the caller is.
    fn row(&self, batch: RecordBatch, columns: SchemaRef, format: &Format) -> PgWireResult<Answer> {
        let fields = Arc::new(types::describe(&columns, format).map_err(wire)?);
        let encoded = RowEncoder::new(columns, &fields).encode(&batch);
        let chunks = self.measure(futures::stream::iter([encoded]), |row| row.data.len());
        Ok(Answer::Rows { fields, rows: Box::pin(chunks.flat_map(one_by_one)), tag: "SELECT" })
    }

    /// Encodes batches on the compute pool.
    fn rows(
        &self,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        columns: SchemaRef,
        format: &Format,
        tag: &'static str,
        interrupt: &Interrupt,
    ) -> PgWireResult<Answer> {
        let fields = Arc::new(types::describe(&columns, format).map_err(wire)?);
        let encoder = RowEncoder::new(columns, &fields);
        let chunks = self.measure(batches.map(move |batch| encoder.encode(&batch?)), |row| row.data.len());
        let rows = self.relay(chunks, interrupt);
        Ok(Answer::Rows { fields, rows: Box::pin(rows), tag })
    }

    /// Counts the rows of a result as they are made, and ends it where it gets larger than the client wanted.
    fn measure<T: 'static, S: Stream<Item = Result<Vec<T>>> + Send + 'static>(
        &self,
        chunks: S,
        size: fn(&T) -> usize,
    ) -> impl Stream<Item = Result<Vec<T>>> + Send + 'static + use<T, S> {
        let (backend, limit) = (Arc::clone(&self.backend), self.settings.lock().result_limit());
        let mut bytes = 0;
        chunks.map(move |chunk| {
            let chunk = chunk?;
            backend.rows.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            bytes += chunk.iter().map(size).sum::<usize>() as u64;
            match limit.filter(|limit| bytes > *limit) {
                None => Ok(chunk),
                Some(limit) => Err(Error::new(Kind::ResourceLimit, format!("the result is larger than {limit} bytes"))
                    .with_hint("The setting logweir.result_limit says so: ask for less, or set another limit.")),
            }
        })
    }

    /// Chunks made on the compute pool, one by one and until interrupted.
    fn relay<T: Send + 'static, S: Stream<Item = Result<Vec<T>>> + Send + 'static>(
        &self,
        chunks: S,
        interrupt: &Interrupt,
    ) -> impl Stream<Item = PgWireResult<T>> + Send + use<T, S> {
        let chunks = Box::pin(self.endpoint.compute.relay(chunks, Err));
        interrupt.clone().stream(chunks).flat_map(one_by_one)
    }

    async fn control(
        &self,
        control: &Control,
        format: &Format,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<(Answer, Aside)> {
        let mut aside = Aside::default();
        let inside = transaction != TransactionStatus::Idle;
        let failed = transaction == TransactionStatus::Error;
        let tag = match control {
            Control::Commit { .. } if failed => "ROLLBACK",
            other => other.tag(),
        };
        match control {
            Control::Begin(modes) => {
                if inside {
                    let text = "there is already a transaction in progress";
                    aside.notices.push(("WARNING", "25001", text.to_string()));
                } else {
                    self.begin_transaction(&mut aside);
                }
                self.settings.lock().set_modes(modes, false).map_err(wire)?;
            }
            Control::Commit { chain: true } | Control::Rollback { chain: true } if !inside => {
                return Err(refuse("25P01", format!("{tag} AND CHAIN can only be used in transaction blocks")));
            }
            Control::Commit { chain } | Control::Rollback { chain } => {
                if !inside {
                    aside.notices.push(("WARNING", "25P01", "there is no transaction in progress".to_string()));
                } else if tag == "ROLLBACK" && self.wrote.load(Ordering::Relaxed) {
                    let text = "statements took effect as they ran and are not rolled back";
                    aside.notices.push(("WARNING", "01000", text.to_string()));
                }
                self.cursors.lock().retain(|_, cursor| cursor.hold());
                aside.transaction = Some(TransactionStatus::Idle);
                self.backend.end_transaction(tag == "COMMIT").map_err(wire)?;
                // The next transaction of a chain is as this one is.
                if *chain {
                    self.begin_transaction(&mut aside);
                } else {
                    aside.reports = self.settings.lock().end_transaction();
                }
            }
            Control::Savepoint(_) | Control::Release(_) | Control::RollbackToSavepoint(_) if !inside => {
                return Err(refuse("25P01", format!("{tag} can only be used in transaction blocks")));
            }
            Control::Savepoint(name) => {
                let mut savepoints = self.savepoints.lock();
                if savepoints.len() >= MAX_SAVEPOINTS {
                    let text = format!("more than {MAX_SAVEPOINTS} savepoints in a transaction");
                    return Err(wire(Error::new(Kind::ResourceLimit, text)));
                }
                savepoints.push(name.clone());
            }
            Control::Release(name) => {
                let at = self.savepoint(name)?;
                self.savepoints.lock().truncate(at);
            }
            Control::RollbackToSavepoint(name) => {
                let at = self.savepoint(name)?;
                self.savepoints.lock().truncate(at + 1);
                aside.transaction = Some(TransactionStatus::Transaction);
            }
            Control::SetTransaction { session: false, .. } if !inside => {
                let text = "SET TRANSACTION can only be used in transaction blocks";
                aside.notices.push(("WARNING", "25P01", text.to_string()));
            }
            Control::SetTransaction { modes, session } => {
                self.settings.lock().set_modes(modes, *session).map_err(wire)?;
            }
            Control::Set { name, value, local } => {
                if *local && !inside {
                    let text = "SET LOCAL can only be used in transaction blocks";
                    aside.notices.push(("WARNING", "25P01", text.to_string()));
                } else {
                    let report = self.settings.lock().set(name, value.as_deref(), *local).map_err(wire)?;
                    aside.reports.extend(report);
                }
            }
            Control::Reset(Some(name)) => {
                aside.reports.extend(self.settings.lock().set(name, None, false).map_err(wire)?);
            }
            Control::Reset(None) => aside.reports = self.settings.lock().reset(),
            Control::Show(name) => {
                let (shown, value) = self.settings.lock().show(name).unwrap_or(("", String::new()));
                return self.table(&[shown], vec![vec![value]], format, interrupt).map(|answer| (answer, aside));
            }
            Control::ShowAll => {
                let settings = self.settings.lock();
                let rows = settings.all().map(|(name, value)| vec![name.to_string(), value, String::new()]).collect();
                drop(settings);
                let answer = self.table(&["name", "setting", "description"], rows, format, interrupt)?;
                return Ok((answer, aside));
            }
            Control::Fetch { cursor, limit, timeout, moves } => {
                let Some(cursor) = self.cursors.lock().get(cursor).cloned() else {
                    return Err(refuse("34000", format!("cursor \"{cursor}\" does not exist")));
                };
                let until = timeout.map(|timeout| Instant::now() + timeout);
                let batches = cursor.fetch(*limit, until).await.map_err(wire)?;
                if *moves {
                    let counted = batches.try_fold(0, |sum, batch| async move { Ok(sum + batch.num_rows()) });
                    let rows = Some(interrupt.run(counted).await.map_err(wire)?);
                    return Ok((Answer::Done { tag: tag.to_string(), rows }, aside));
                }
                return Ok((self.rows(batches, cursor.schema(), format, "FETCH", interrupt)?, aside));
            }
            Control::FetchBackward => {
                let err = Error::new(Kind::NotReady, "cursor can only scan forward");
                return Err(wire(
                    err.with_hint("Rows are made as they are fetched, and not kept: declare it once more."),
                ));
            }
            Control::Close(Some(name)) => {
                if self.cursors.lock().remove(name).is_none() {
                    return Err(refuse("34000", format!("cursor \"{name}\" does not exist")));
                }
            }
            Control::Close(None) => self.cursors.lock().clear(),
            Control::Prepare { name, query } => self.prepare_named(name, query, transaction, interrupt).await?,
            // `answer` has run them.
            Control::Declare { .. } | Control::Execute { .. } => return Err(fatal("XX000", "not reached")),
            Control::Deallocate(Some(name)) => {
                if self.named.lock().remove(name).is_none() {
                    aside.deallocate = Some(name.clone());
                }
            }
            // Those of the protocol may as well stay: Parse puts a new statement in the place of an old one.
            Control::Deallocate(None) => self.named.lock().clear(),
            Control::DiscardAll if inside => {
                return Err(refuse("25001", "DISCARD ALL cannot run inside a transaction block"));
            }
            Control::DiscardAll => {
                self.cursors.lock().clear();
                self.named.lock().clear();
                self.backend.unlisten(None).map_err(wire)?;
                self.backend.unlock_all();
                self.session.set_role(None).map_err(wire)?;
                aside.reports = self.settings.lock().reset();
            }
            Control::Nothing(_) => {}
        }
        if aside.reports.iter().any(|(name, _)| *name == "application_name") {
            self.show_application();
        }
        Ok((Answer::Done { tag: tag.to_string(), rows: None }, aside))
    }

    fn begin_transaction(&self, aside: &mut Aside) {
        self.wrote.store(false, Ordering::Relaxed);
        self.savepoints.lock().clear();
        self.backend.begin_transaction();
        aside.transaction = Some(TransactionStatus::Transaction);
    }

    /// The place of the last savepoint of this name.
    fn savepoint(&self, name: &str) -> PgWireResult<usize> {
        let place = self.savepoints.lock().iter().rposition(|savepoint| savepoint == name);
        place.ok_or_else(|| refuse("3B001", format!("savepoint \"{name}\" does not exist")))
    }

    async fn prepare_named(
        &self,
        name: &str,
        query: &str,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<()> {
        if self.named.lock().contains_key(name) {
            return Err(refuse("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        if self.named.lock().len() >= MAX_NAMED {
            return Err(wire(Error::new(Kind::ResourceLimit, format!("more than {MAX_NAMED} prepared statements"))));
        }
        let (mut statements, text) = self.parse(query, interrupt).await.map_err(wire)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(refuse("42601", "PREPARE is for one statement"));
        };
        let prepared = Box::pin(self.prepare(statement, &text, transaction, interrupt)).await?;
        if let Work::Control(control) = prepared.work() {
            return Err(refuse("42601", format!("{} cannot be prepared", control.tag())));
        }
        self.named.lock().insert(name.to_string(), prepared);
        Ok(())
    }

    /// What EXECUTE runs, and with which values.
    async fn executed(&self, name: &str, arguments: &str, interrupt: &Interrupt) -> Result<(Prepared, ParamValues)> {
        let Some(prepared) = self.named.lock().get(name).cloned() else {
            return Err(Error::new(Kind::UndefinedStatement, format!("prepared statement \"{name}\" does not exist")));
        };
        let mut values = Vec::new();
        if !arguments.is_empty() {
            let (statements, _) = self.parse(&format!("SELECT {arguments}"), interrupt).await?;
            let session = Arc::clone(&self.session);
            let task = self.endpoint.compute.spawn(async move {
                let [statement] = statements.as_slice() else { return Err(no_arguments()) };
                let planned = session.plan(statement).await?;
                let Outcome::Rows(rows) = session.execute(&planned, ParamValues::List(Vec::new())).await? else {
                    return Err(no_arguments());
                };
                let batches: Vec<RecordBatch> = rows.try_collect().await?;
                let [batch] = batches.as_slice() else { return Err(no_arguments()) };
                let first = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
                first.map(|value| value.map_err(Error::from)).collect::<Result<Vec<_>>>()
            });
            values = interrupt.run(async { task.await? }).await?;
        }
        let parameters = prepared.values(name, values)?;
        Ok((prepared, parameters))
    }

    /// `cursor`: its name, whether it outlives its transaction, and its query.
    async fn declare(
        &self,
        cursor: (&str, bool, &str),
        parameters: ParamValues,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<()> {
        let (name, hold, query) = cursor;
        if !hold && transaction == TransactionStatus::Idle {
            let text = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(wire(
                Error::new(Kind::NotReady, text).with_hint("Use BEGIN first, or DECLARE … CURSOR WITH HOLD."),
            ));
        }
        if self.cursors.lock().contains_key(name) {
            return Err(refuse("42P03", format!("cursor \"{name}\" already exists")));
        }
        if self.cursors.lock().len() >= MAX_CURSORS {
            return Err(wire(Error::new(Kind::ResourceLimit, format!("more than {MAX_CURSORS} open cursors"))));
        }
        let (mut statements, _) = self.parse(query, interrupt).await.map_err(wire)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(refuse("42601", "a cursor is for one query"));
        };
        let session = Arc::clone(&self.session);
        let task = self.endpoint.compute.spawn(async move {
            let planned = session.plan(&statement).await?;
            match session.execute(&planned, parameters).await? {
                Outcome::Rows(batches) | Outcome::NoticedRows(batches, _) => {
                    let columns = planned.fields().unwrap_or_else(|| batches.schema());
                    Ok((columns, batches, planned.is_live()))
                }
                Outcome::CopyOut(..) | Outcome::CopyIn(_) | Outcome::Done { .. } | Outcome::Empty => {
                    Err(Error::new(Kind::WrongObjectType, "a cursor is for a query that returns rows"))
                }
            }
        });
        let (columns, batches, live) = interrupt.run(async { task.await? }).await.map_err(wire)?;
        let batches = self.endpoint.compute.stream(batches);
        self.cursors.lock().insert(name.to_string(), Cursor::new(columns, batches, hold, live));
        Ok(())
    }

    /// A result of text columns.
    fn table(
        &self,
        names: &[&str],
        rows: Vec<Vec<String>>,
        format: &Format,
        interrupt: &Interrupt,
    ) -> PgWireResult<Answer> {
        let column = |index: usize| -> ArrayRef {
            Arc::new(rows.iter().map(|row| row.get(index).cloned()).collect::<StringArray>())
        };
        let columns = text_columns(names);
        let batch = RecordBatch::try_new(Arc::clone(&columns), (0..names.len()).map(column).collect());
        let batch = batch.map_err(wire)?;
        self.rows(futures::stream::iter([Ok(batch)]), columns, format, "SHOW", interrupt)
    }
}

/// The items of a chunk.
fn one_by_one<T>(chunk: Result<Vec<T>>) -> impl Stream<Item = PgWireResult<T>> {
    let items = match chunk {
        Ok(items) => items.into_iter().map(Ok).collect(),
        Err(err) => vec![Err(wire(err))],
    };
    futures::stream::iter(items)
}

fn no_arguments() -> Error {
    Error::new(Kind::Syntax, "the arguments of EXECUTE are expressions without rows of their own")
}

/// The connection ends.
impl Drop for State {
    fn drop(&mut self) {
        self.endpoint.cancels.forget(self.backend.pid, &self.backend.running);
        self.session.engine().backends().leave(self.backend.pid);
    }
}
