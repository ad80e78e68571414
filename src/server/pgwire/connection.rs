//! One client's connection: its session, settings, cursors and transaction state, and the way of a statement from text
//! to an `Answer`. Nothing here writes rows to the socket; `handler` does.
//!
//! Transactions are a matter of form: statements take effect as they run. A client may say BEGIN and COMMIT, a failed
//! transaction refuses statements until it ends as in PostgreSQL, and ROLLBACK warns if there was something to undo.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::ParamValues;
use futures::{Stream, StreamExt};
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
use super::error::{refuse, wire};
use super::interrupt::{Interrupt, Running};
use super::login::Login;
use super::prepared::{Prepared, Work, control_of, text_columns};
use super::settings::Settings;
use super::types::{self, RowEncoder};
use super::{Endpoint, copy};
use crate::error::{Error, Kind, Result};
use crate::sql::{CopyIn, Given, Outcome, Session, Statement};

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
        columns: usize,
        /// The first line names the columns: it is no row.
        header: bool,
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

pub struct State {
    // Fixed.
    pub endpoint: Arc<Endpoint>,
    session: Arc<Session>,
    /// False for a connection beyond the limit, which is only told so.
    pub admitted: bool,
    // State.
    pub login: Login,
    pub settings: Mutex<Settings>,
    pub running: Running,
    cursors: Mutex<HashMap<String, Cursor>>,
    /// What the client is sending lines for.
    pub copying: Mutex<Option<Copying>>,
    /// Whether the open transaction has changed anything.
    wrote: AtomicBool,
}

impl State {
    pub fn new(endpoint: Arc<Endpoint>, session: Session, admitted: bool) -> State {
        State {
            endpoint,
            // Whoever it is has yet to say so.
            session: Arc::new(session.anew()),
            admitted,
            login: Login::default(),
            settings: Mutex::default(),
            running: Running::default(),
            cursors: Mutex::default(),
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
        Interrupt {
            canceled: self.running.begin(),
            shutdown: self.endpoint.shutdown.clone(),
            deadline: self.deadline(),
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.settings.lock().statement_timeout().map(|timeout| Instant::now() + timeout)
    }

    /// The statements in `sql`.
    pub async fn parse(&self, sql: &str, interrupt: &Interrupt) -> Result<Vec<Statement>> {
        let (session, sql) = (Arc::clone(&self.session), sql.to_string());
        let task = self.endpoint.compute.spawn(async move { session.parse(&sql) });
        interrupt.run(async { task.await? }).await
    }

    /// Plans a statement. A failed transaction takes only its end.
    pub async fn prepare(
        &self,
        statement: Statement,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<Prepared> {
        let control = control_of(&statement);
        let ends = matches!(control, Some(Control::Commit | Control::Rollback | Control::RollbackToSavepoint));
        if transaction == TransactionStatus::Error && !ends {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(refuse("25P02", text));
        }
        if let Some(control) = control {
            let columns = match &control {
                Control::Show(name) => self.settings.lock().show(name).map(|(name, _)| text_columns(&[name])),
                Control::ShowAll => Some(text_columns(&["name", "setting", "description"])),
                Control::Fetch { cursor, .. } => self.cursors.lock().get(cursor).map(Cursor::schema),
                _ => None,
            };
            return Ok(Prepared::control(control, columns));
        }
        let session = Arc::clone(&self.session);
        let task = self.endpoint.compute.spawn(async move { Prepared::engine(session.plan(&statement).await?) });
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
        let planned = match prepared.work() {
            Work::Control(control) => return self.control(control, format, transaction, interrupt).await,
            Work::Engine(planned) => Arc::clone(planned),
        };
        if transaction == TransactionStatus::Error {
            return Err(refuse(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
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
                let (schema, has_header) = (batches.schema(), options.header);
                let header = futures::stream::iter(copy::header(&schema, &options).map(|line| Ok(vec![line])));
                let lines = header.chain(batches.map(move |batch| copy::lines(&batch?, &options)));
                let columns = schema.fields().len();
                Answer::Copy { columns, header: has_header, lines: Box::pin(self.relay(lines, interrupt)) }
            }
            Outcome::Done { tag, rows, notices } => {
                self.wrote.store(true, Ordering::Relaxed);
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
        let rows = self.relay(batches.map(move |batch| encoder.encode(&batch?)), interrupt);
        Ok(Answer::Rows { fields, rows: Box::pin(rows), tag })
    }

    /// Chunks made on the compute pool, one by one and until interrupted.
    fn relay<T: Send + 'static, S: Stream<Item = Result<Vec<T>>> + Send + 'static>(
        &self,
        chunks: S,
        interrupt: &Interrupt,
    ) -> impl Stream<Item = PgWireResult<T>> + Send + use<T, S> {
        let chunks = Box::pin(self.endpoint.compute.relay(chunks, Err));
        interrupt.clone().stream(chunks).flat_map(|chunk| match chunk {
            Ok(items) => futures::stream::iter(items.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(err) => futures::stream::iter(vec![Err(wire(err))]),
        })
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
        let tag = if failed && control == &Control::Commit { "ROLLBACK" } else { control.tag() };
        match control {
            Control::Begin if inside => {
                aside.notices.push(("WARNING", "25001", "there is already a transaction in progress".to_string()));
            }
            Control::Begin => {
                self.wrote.store(false, Ordering::Relaxed);
                aside.transaction = Some(TransactionStatus::Transaction);
            }
            Control::Commit | Control::Rollback => {
                if !inside {
                    aside.notices.push(("WARNING", "25P01", "there is no transaction in progress".to_string()));
                } else if tag == "ROLLBACK" && self.wrote.load(Ordering::Relaxed) {
                    let text = "statements took effect as they ran and are not rolled back";
                    aside.notices.push(("WARNING", "01000", text.to_string()));
                }
                self.cursors.lock().retain(|_, cursor| cursor.hold());
                aside.reports = self.settings.lock().end_transaction();
                aside.transaction = Some(TransactionStatus::Idle);
            }
            Control::Savepoint | Control::Release | Control::RollbackToSavepoint if !inside => {
                return Err(refuse("25P01", format!("{tag} can only be used in transaction blocks")));
            }
            Control::Savepoint | Control::Release => {}
            Control::RollbackToSavepoint => aside.transaction = Some(TransactionStatus::Transaction),
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
            Control::Declare { name, hold, query } => self.declare(name, *hold, query, transaction, interrupt).await?,
            Control::Fetch { cursor, limit, timeout } => {
                let Some(cursor) = self.cursors.lock().get(cursor).cloned() else {
                    return Err(refuse("34000", format!("cursor \"{cursor}\" does not exist")));
                };
                let until = timeout.map(|timeout| Instant::now() + timeout);
                let batches = cursor.fetch(*limit, until).map_err(wire)?;
                return Ok((self.rows(batches, cursor.schema(), format, "FETCH", interrupt)?, aside));
            }
            Control::FetchBackward => return Err(refuse("55000", "cursor can only scan forward")),
            Control::Close(Some(name)) => {
                if self.cursors.lock().remove(name).is_none() {
                    return Err(refuse("34000", format!("cursor \"{name}\" does not exist")));
                }
            }
            Control::Close(None) => self.cursors.lock().clear(),
            // All of them may as well stay: Parse puts a new statement in the place of an old one.
            Control::Deallocate(name) => aside.deallocate = name.clone(),
            Control::DiscardAll => {
                self.cursors.lock().clear();
                self.session.set_role(None).map_err(wire)?;
                aside.reports = self.settings.lock().reset();
            }
            Control::Nothing(_) => {}
        }
        Ok((Answer::Done { tag: tag.to_string(), rows: None }, aside))
    }

    async fn declare(
        &self,
        name: &str,
        hold: bool,
        query: &str,
        transaction: TransactionStatus,
        interrupt: &Interrupt,
    ) -> PgWireResult<()> {
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
        let mut statements = self.parse(query, interrupt).await.map_err(wire)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(refuse("42601", "a cursor is for one query"));
        };
        let session = Arc::clone(&self.session);
        let task = self.endpoint.compute.spawn(async move {
            let planned = session.plan(&statement).await?;
            match session.execute(&planned, ParamValues::List(Vec::new())).await? {
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
