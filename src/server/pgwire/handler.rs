//! The protocol's messages: which one calls what.
//!
//! The two `do_query` of pgwire's traits are not used: they hand back all answers of a text at once, while a statement
//! here is planned when the one before is done, and rows are flushed while a query waits for more.

use std::collections::HashMap;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use futures::{Sink, SinkExt};
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::CancelHandler;
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_ready_for_query};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, PidSecretKeyGenerator, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::data::{NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
    Sync as SyncMessage, TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::{Authentication, Startup};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};

use super::connection::{Answer, State};
use super::error::{fatal, info, refuse, wire};
use super::interrupt::Interrupt;
use super::login::{EXTENSION, Step, negotiate};
use super::prepared::{Prepared, wrong_count};
use super::send::{complete, send_aside, send_letter, send_rest, send_rows};
use super::settings::options;
use super::shape::Shape;
use super::types;
use crate::error::Kind;

/// Handles the messages of one client.
#[derive(Clone)]
pub struct Connection(Arc<State>);

impl Connection {
    pub fn new(state: State) -> Connection {
        Connection(Arc::new(state))
    }
}

impl Deref for Connection {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

#[async_trait]
impl StartupHandler for Connection {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let startup = match message {
            PgWireFrontendMessage::Startup(startup) => startup,
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                let step = self.continue_login(message).await?;
                return self.go_on(client, step).await;
            }
            _ => return Err(fatal("08P01", "expected a start-up message or a password")),
        };
        let (version, told) = negotiate(&startup);
        client.set_protocol_version(version);
        if let Some(told) = told {
            client.feed(PgWireBackendMessage::NegotiateProtocolVersion(told)).await?;
        }
        save_startup_parameters_to_metadata(client, &startup);
        if self.endpoint.shutdown.is_cancelled() {
            return Err(fatal("57P03", "the database system is shutting down"));
        }
        self.take_settings(&startup)?;
        let step = self.begin_login(&startup)?;
        self.go_on(client, step).await
    }
}

impl Connection {
    /// The next step of a login.
    async fn go_on<C>(&self, client: &mut C, step: Step) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let answer = match step {
            Step::Ask(mechanisms) => {
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                Authentication::SASL(mechanisms)
            }
            Step::Continue(answer) => Authentication::SASLContinue(answer.into()),
            Step::In(last) => {
                self.take_place()?;
                if let Some(last) = last {
                    let last = Authentication::SASLFinal(last.into());
                    client.feed(PgWireBackendMessage::Authentication(last)).await?;
                }
                return self.welcome(client).await;
            }
        };
        Ok(client.send(PgWireBackendMessage::Authentication(answer)).await?)
    }

    /// The client is in.
    async fn welcome<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let admin = if self.session().is_admin() { "on" } else { "off" };
        self.settings.lock().state("is_superuser", admin);
        let (pid, (_, secret)) = (self.backend.pid, self.endpoint.secrets.generate(client));
        client.set_pid_and_secret_key(pid, secret.clone());
        self.endpoint.cancels.register(pid, secret, self.backend.running.clone());
        let given = |name: &str| client.metadata().get(name).cloned().unwrap_or_default();
        self.appear(&given("user"), self.session().engine().database());
        finish_authentication(client, self).await
    }

    /// Settings given at the start, by name or as `options='-c name=value'`. Unknown ones are left alone: a tool that
    /// sets what only PostgreSQL has shall still get in. Known ones with a value that is not taken are an error.
    fn take_settings(&self, startup: &Startup) -> PgWireResult<()> {
        let mut settings = self.settings.lock();
        let mut take = |name: &str, value: &str| match settings.set(name, Some(value), false) {
            Err(err) if matches!(err.kind(), Kind::InvalidParameter | Kind::NotSupported) => {
                let mut refusal = info("FATAL", err.kind().sqlstate(), err.message());
                refusal.hint = err.hint().map(str::to_string);
                Err(PgWireError::UserError(Box::new(refusal)))
            }
            Ok(_) | Err(_) => Ok(()),
        };
        for (name, value) in &startup.parameters {
            match name.as_str() {
                "user" => take("session_authorization", value)?,
                "options" => {
                    for (name, value) in options(value) {
                        take(&name, &value)?;
                    }
                }
                name if name.starts_with(EXTENSION) => {}
                name => take(name, value)?,
            }
        }
        Ok(())
    }
}

impl ServerParameterProvider for Connection {
    fn server_parameters<C: ClientInfo>(&self, _client: &C) -> Option<HashMap<String, String>> {
        Some(self.settings.lock().reported().map(|(name, value)| (name.to_string(), value)).collect())
    }
}

#[async_trait]
impl CancelHandler for Connection {
    async fn on_cancel_request(&self, request: CancelRequest) {
        self.endpoint.cancels.cancel(request.pid, &request.secret_key);
    }
}

#[async_trait]
impl SimpleQueryHandler for Connection {
    /// One statement after the other, each planned when the one before is done; the first error ends it.
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let mut interrupt = self.begin();
        let transaction = client.transaction_status();
        let known = self.known(&query.query, transaction);
        let shape = if known.is_none() { Shape::of(&query.query) } else { None };
        if let Some(prepared) = known {
            self.run(client, &prepared, true, &interrupt).await?;
        } else if let Some(row) = shape.as_ref().and_then(|shape| self.read_shape(&query.query, shape, transaction)) {
            self.send_answer(client, row?, true, &interrupt).await?;
        } else {
            let (statements, text) = self.parse(&query.query, &interrupt).await.map_err(wire)?;
            if statements.is_empty() {
                client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
            }
            let count = statements.len();
            for (at, statement) in statements.into_iter().enumerate() {
                interrupt.deadline = self.deadline();
                let prepared = self.prepare(statement, &text, client.transaction_status(), &interrupt).await?;
                if count == 1 {
                    self.remember(&query.query, &prepared);
                }
                self.run(client, &prepared, at + 1 == count, &interrupt).await?;
                if let Some(shape) = shape.as_ref().filter(|_| count == 1) {
                    self.learn_shape(shape, &prepared, client.transaction_status(), &interrupt).await;
                }
            }
        }
        if matches!(client.state(), PgWireConnectionState::CopyInProgress(_)) {
            // What comes next are its lines.
            return Ok(());
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let transaction = client.transaction_status();
        self.tell(client).await?;
        // Before the client knows, so that whoever asks then is told so.
        self.rest(transaction);
        send_ready_for_query(client, transaction).await
    }

    async fn do_query<C>(&self, _client: &mut C, _query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(fatal("XX000", "not reached"))
    }
}

#[async_trait]
impl QueryParser for Connection {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let interrupt = self.begin();
        if let Some(prepared) = self.known(sql, client.transaction_status()) {
            return Ok(Some(prepared));
        }
        let (mut statements, text) = self.parse(sql, &interrupt).await.map_err(wire)?;
        let Some(statement) = statements.pop() else { return Ok(None) };
        if !statements.is_empty() {
            let text = "cannot insert multiple commands into a prepared statement";
            return Err(refuse("42601", text));
        }
        let prepared = self.prepare(statement, &text, client.transaction_status(), &interrupt).await?;
        self.remember(sql, &prepared);
        Ok(Some(prepared))
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameter_types())
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement.columns() {
            Some(columns) => types::describe(&columns, format.unwrap_or(&Format::UnifiedText)).map_err(wire),
            None => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Connection {
    type Statement = Prepared;
    type QueryParser = Connection;

    fn query_parser(&self) -> Arc<Connection> {
        Arc::new(self.clone())
    }

    // pgwire's own of these write to the socket at once, which costs more than a small query. A client that waits for the
    // answer says so: by Sync or Flush.

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match StoredStatement::parse(client, &message, self.query_parser()).await? {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(name),
        }
        Ok(client.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?)
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statement = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        match client.portal_store().get_statement(statement) {
            Some(Entry::Value(statement)) => {
                client.portal_store().put_portal(Arc::new(Portal::try_new(&message, statement)?));
            }
            Some(Entry::Empty) if message.parameters.is_empty() => {
                client.portal_store().put_empty_portal(message.portal_name.as_deref().unwrap_or(DEFAULT_NAME));
            }
            Some(Entry::Empty) => return Err(wrong_count(message.parameters.len(), 0)),
            None => return Err(PgWireError::StatementNotFound(statement.to_string())),
        }
        Ok(client.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?)
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => client.portal_store().rm_statement(name),
            TARGET_TYPE_BYTE_PORTAL => client.portal_store().rm_portal(name),
            _ => {}
        }
        Ok(client.feed(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?)
    }

    /// A cursor is a portal, too: drivers ask for its columns by its name.
    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let fields = match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => match client.portal_store().get_statement(name) {
                Some(Entry::Value(statement)) => {
                    let described = self.do_describe_statement(client, &statement).await?;
                    let oids = described.parameters.iter().map(Type::oid).collect();
                    let parameters = ParameterDescription::new(oids);
                    client.feed(PgWireBackendMessage::ParameterDescription(parameters)).await?;
                    described.fields
                }
                Some(Entry::Empty) => {
                    let parameters = ParameterDescription::new(Vec::new());
                    client.feed(PgWireBackendMessage::ParameterDescription(parameters)).await?;
                    Vec::new()
                }
                None => return Err(PgWireError::StatementNotFound(name.to_string())),
            },
            TARGET_TYPE_BYTE_PORTAL => match client.portal_store().get_portal(name) {
                Some(Entry::Value(portal)) => {
                    self.get_result_schema(&portal.statement.statement, Some(&portal.result_column_format))?
                }
                Some(Entry::Empty) => Vec::new(),
                None => match self.cursor_columns(name) {
                    Some(columns) => types::describe(&columns, &Format::UnifiedText).map_err(wire)?,
                    None => return Err(PgWireError::PortalNotFound(name.to_string())),
                },
            },
            other => return Err(PgWireError::InvalidTargetType(other)),
        };
        let description = match fields.is_empty() {
            true => PgWireBackendMessage::NoData(NoData::new()),
            false => PgWireBackendMessage::RowDescription(RowDescription::new(fields.iter().map(Into::into).collect())),
        };
        Ok(client.feed(description).await?)
    }

    /// Runs a portal, or goes on with one that stopped at the client's row limit.
    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => self.execute(client, &portal, message.max_rows.max(0) as usize).await?,
            Some(Entry::Empty) => send_rest(client, Answer::Empty).await?,
            None => return Err(PgWireError::PortalNotFound(name.to_string())),
        }
        if !matches!(client.state(), PgWireConnectionState::CopyInProgress(_)) {
            client.set_state(PgWireConnectionState::ReadyForQuery);
        }
        Ok(())
    }

    /// Outside of a transaction no portal outlives Sync, and with it no suspended query.
    async fn on_sync<C>(&self, client: &mut C, _message: SyncMessage) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match client.transaction_status() {
            TransactionStatus::Idle | TransactionStatus::Error => client.portal_store().clear_portals(),
            TransactionStatus::Transaction => client.portal_store().rm_portal(DEFAULT_NAME),
        }
        let transaction = client.transaction_status();
        self.tell(client).await?;
        // Before the client knows, so that whoever asks then is told so.
        self.rest(transaction);
        send_ready_for_query(client, transaction).await
    }

    async fn do_query<C>(&self, _client: &mut C, _portal: &Portal<Prepared>, _max: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(fatal("XX000", "not reached"))
    }
}

impl Connection {
    /// Runs one statement of a simple query. Only the `last` of a text may ask for lines of the client.
    async fn run<C>(&self, client: &mut C, prepared: &Prepared, last: bool, interrupt: &Interrupt) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (none, transaction) = (ParamValues::List(Vec::new()), client.transaction_status());
        let (answer, aside) = self.answer(prepared, none, &Format::UnifiedText, transaction, interrupt).await?;
        send_aside(client, aside).await?;
        self.send_answer(client, answer, last, interrupt).await
    }

    async fn send_answer<C>(
        &self,
        client: &mut C,
        answer: Answer,
        last: bool,
        interrupt: &Interrupt,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match answer {
            Answer::Rows { fields, rows, tag } => {
                let description = RowDescription::new(fields.iter().map(Into::into).collect());
                client.feed(PgWireBackendMessage::RowDescription(description)).await?;
                let (count, _) = send_rows(client, rows, 0).await?;
                complete(client, Tag::new(tag), Some(count)).await
            }
            Answer::CopyIn(_) if !last => {
                Err(refuse("0A000", "COPY FROM STDIN must be the last statement of its text"))
            }
            Answer::CopyIn(copy) => self.begin_copy(client, copy, interrupt.clone(), false).await,
            Answer::Copy { .. } | Answer::Done { .. } | Answer::Empty => send_rest(client, answer).await,
        }
    }

    /// Hands over what has come on channels. Within a transaction it waits, as in PostgreSQL.
    pub async fn tell<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        while client.transaction_status() == TransactionStatus::Idle
            && let Some(letter) = self.backend.mailbox.take()
        {
            send_letter(client, letter).await?;
        }
        Ok(())
    }

    async fn execute<C>(&self, client: &mut C, portal: &Portal<Prepared>, max_rows: usize) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let state = portal.state();
        let mut state = state.lock().await;
        let mut response = match std::mem::replace(&mut *state, PortalExecutionState::Finished) {
            PortalExecutionState::Suspended(response) => response,
            PortalExecutionState::Finished => {
                return complete(client, Tag::new("SELECT"), Some(0)).await;
            }
            PortalExecutionState::Initial => {
                let prepared = &portal.statement.statement;
                let parameters = prepared.bind(portal)?;
                let interrupt = self.begin();
                let transaction = client.transaction_status();
                let (answer, aside) =
                    self.answer(prepared, parameters, &portal.result_column_format, transaction, &interrupt).await?;
                send_aside(client, aside).await?;
                let (fields, rows, tag) = match answer {
                    Answer::Rows { fields, rows, tag } => (fields, rows, tag),
                    Answer::CopyIn(copy) => return self.begin_copy(client, copy, interrupt, true).await,
                    other => return send_rest(client, other).await,
                };
                let mut response = QueryResponse::new(fields, rows);
                response.set_command_tag(tag);
                response
            }
        };
        let (count, done) = send_rows(client, response.data_rows(), max_rows).await?;
        if done {
            complete(client, Tag::new(response.command_tag()), Some(count)).await
        } else {
            *state = PortalExecutionState::Suspended(response);
            Ok(client.feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new())).await?)
        }
    }
}
