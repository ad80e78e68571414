//! The Postgres endpoint: listens, admits connections up to a limit, and runs each one's message loop until the client
//! leaves or the server shuts down.
//!
//! A client's first message says which database it wants ([`Choice`]); all that the connection does is done there, on the
//! threads of that database. Once it has come in it takes one of the places of the database: so a tenant keeps nobody else
//! out.
//!
//! Parsing, planning, execution and encoding run on the compute pool; this side only moves bytes. A client that goes
//! away in the middle of a query is noticed within `GONE_CHECK`, and its query is dropped.

mod binary;
mod connection;
mod control;
mod copy;
mod copy_in;
mod cursor;
mod error;
mod handler;
mod interrupt;
mod login;
mod messages;
mod places;
mod plans;
mod prepared;
mod send;
mod settings;
mod shape;
mod types;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use futures::SinkExt;
use pgwire::api::{ClientInfo, PgWireConnectionState, RandomPidSecretKeyGenerator};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::response::TransactionStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::{MaybeTls, negotiate_tls, process_error, process_message};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::strangers::{Stranger, Strangers};
use super::tls::Tls;
use crate::database::{Database, Databases, missing};
use crate::error::{Error, Result};
use crate::sql::Session;
use crate::task::Compute;
use crate::tls::certificate::common_name;

use connection::{IdleTimeout, State};
use handler::Connection;
use interrupt::Cancels;
use login::{Failures, Peer};
use places::Places;
use prepared::Prepared;

/// Connections at one time that have not logged in, cancel requests among them.
const MAX_STRANGERS: usize = 200;

/// How often a connection that runs a query looks whether its client is still there.
const GONE_CHECK: Duration = Duration::from_secs(1);

/// After a shutdown, connections have this long to take their last message.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What the endpoint allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of clients that have logged in.
    pub max_connections: usize,
    /// So many of them are kept for administrators.
    pub reserved_connections: usize,
    /// A client has this long to say who it is.
    pub authentication_timeout: Duration,
    /// Without one, connections are in clear.
    pub tls: Option<Arc<Tls>>,
}

impl Default for Limits {
    fn default() -> Limits {
        let authentication_timeout = Duration::from_secs(60);
        Limits { max_connections: 100, reserved_connections: 3, authentication_timeout, tls: None }
    }
}

/// What a connection has of the endpoint.
#[derive(Clone)]
pub struct Endpoint {
    pub databases: Arc<Databases>,
    pub choice: Choice,
    /// Of the database.
    pub compute: Compute,
    pub limits: Limits,
    pub shutdown: CancellationToken,
    pub cancels: Arc<Cancels>,
    pub secrets: Arc<RandomPidSecretKeyGenerator>,
    pub failures: Arc<Failures>,
    pub places: Arc<Places>,
}

/// Which database a client has asked for.
#[derive(Clone)]
pub enum Choice {
    Known(Arc<Database>),
    /// It cannot be entered: its name, and what an operator is told of it.
    Not(String, Error),
}

impl Choice {
    fn of(databases: &Databases, message: &PgWireFrontendMessage) -> Choice {
        let PgWireFrontendMessage::Startup(startup) = message else {
            return Choice::Known(Arc::clone(databases.main()));
        };
        let given = |name: &str| startup.parameters.get(name).map_or("", String::as_str);
        let name = if given("database").is_empty() { given("user") } else { given("database") };
        match databases.choose(name, given("user")) {
            Some(database) => match database.engine() {
                Ok(_) => Choice::Known(database),
                Err(err) => Choice::Not(name.to_string(), err),
            },
            None => Choice::Not(name.to_string(), missing(name)),
        }
    }
}

/// The place that a connection has, in the main database or in that of a tenant: given back when it is dropped.
pub type Place = Box<dyn Send + Sync>;

/// Serves clients of `listener` until `shutdown`, each with a session of its own. Returns when all connections are
/// closed: running statements end with SQLSTATE 57P01.
pub async fn serve_postgres(
    listener: TcpListener,
    databases: Arc<Databases>,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<()> {
    let strangers = Strangers::new(MAX_STRANGERS);
    let endpoint = Endpoint {
        choice: Choice::Known(Arc::clone(databases.main())),
        compute: databases.main().compute.clone(),
        databases,
        places: Places::new(limits.max_connections, limits.reserved_connections),
        limits,
        shutdown: shutdown.clone(),
        cancels: Arc::default(),
        secrets: Arc::default(),
        failures: Arc::default(),
    };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(err) => {
                // Out of file descriptors, mostly: existing connections must end before it can get better.
                tracing::warn!(error = %err, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let stranger = tokio::select! {
            stranger = strangers.enter(peer.ip().to_canonical()) => stranger,
            () = shutdown.cancelled() => break,
        };
        let endpoint = endpoint.clone();
        connections.spawn(async move {
            if let Err(err) = serve_connection(socket, endpoint, peer, stranger).await {
                tracing::debug!(error = %err, "a connection ended");
            }
        });
    }
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
    Ok(())
}

async fn serve_connection(
    socket: TcpStream,
    mut endpoint: Endpoint,
    from: SocketAddr,
    stranger: Stranger,
) -> io::Result<()> {
    // A second handle on the socket, to look for the client's farewell while the first one is busy.
    let socket = socket.into_std()?;
    let probe = socket.try_clone()?;
    let socket = TcpStream::from_std(socket)?;

    let startup_ends = tokio::time::Instant::now() + endpoint.limits.authentication_timeout;
    let tls = endpoint.limits.tls.as_ref().map(|tls| tls.current());
    let acceptor = tls.as_ref().map(|tls| tls.postgres.clone());
    let negotiating = negotiate_tls::<Prepared>(socket, acceptor);
    let negotiated = tokio::select! {
        negotiated = negotiating => negotiated,
        () = too_late(startup_ends, Some(&stranger)) => return Ok(()),
    };
    let Some(mut socket) = negotiated? else { return Ok(()) };
    let mut peer = Peer { address: Some(socket.socket_addr().ip()), ..Peer::default() };
    if let (MaybeTls::Tls(stream), Some(tls)) = (socket.get_ref(), tls) {
        // What was sent in clear behind the wish for TLS is nobody's: somebody in between may have put it there.
        if !socket.read_buffer().is_empty() {
            return Ok(());
        }
        let own = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        peer.certificate = own.and_then(|certificate| common_name(certificate));
        peer.encrypted = true;
        peer.end_point = tls.end_point.clone();
    }

    // Its first message says in which database all of the following is done.
    let first = tokio::select! {
        first = messages::next(&mut socket) => first,
        () = too_late(startup_ends, Some(&stranger)) => return Ok(()),
        () = endpoint.shutdown.cancelled() => {
            let err = ErrorInfo::from(error::wire(interrupt::shutting_down()));
            return socket.send(PgWireBackendMessage::ErrorResponse(err.into())).await;
        }
    };
    if let Ok(Some(message)) = &first {
        endpoint.choice = Choice::of(&endpoint.databases, message);
    }
    let database = match &endpoint.choice {
        Choice::Known(database) => database,
        Choice::Not(..) => endpoint.databases.main(),
    };
    // A tenant that has just been closed is none of the client's either.
    let Ok(engine) = database.engine() else { return Ok(()) };
    endpoint.compute = database.compute.clone();
    let mut state = State::new(Arc::new(endpoint), Session::new(engine), from);
    let encrypted = peer.encrypted;
    state.login.peer = peer;
    let mut first = Some(first);
    let backend = Arc::clone(&state.backend);
    let handler = Arc::new(Connection::new(state));
    // Whether the client is done with what it asked for: between the messages of one request nobody else speaks.
    let mut quiet = true;
    let mut stranger = Some(stranger);
    loop {
        let starting = matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        if !starting {
            stranger = None;
        }
        let ready = quiet && matches!(socket.state(), PgWireConnectionState::ReadyForQuery);
        let transaction = socket.transaction_status();
        let idle = handler.idle_timeout(transaction).filter(|_| ready);
        let listens = ready && transaction == TransactionStatus::Idle;
        let message = tokio::select! {
            biased;
            () = backend.terminated.cancelled() => {
                let err = ErrorInfo::from(error::wire(interrupt::shutting_down()));
                break socket.send(PgWireBackendMessage::ErrorResponse(err.into())).await;
            }
            () = too_late(startup_ends, stranger.as_ref()) => break Ok(()),
            message = async {
                match first.take() {
                    Some(first) => first,
                    None => messages::next(&mut socket).await,
                }
            } => message,
            () = backend.mailbox.wait(), if listens => {
                tokio::select! {
                    told = async { handler.tell(&mut socket).await?; Ok(socket.flush().await?) } => match told {
                        Ok(()) => continue,
                        Err(PgWireError::IoError(err)) => break Err(err),
                        Err(_) => break Ok(()),
                    },
                    () = gone(&probe, encrypted) => break Ok(()),
                    () = backend.terminated.cancelled() => break Ok(()),
                }
            }
            err = idle_for(idle) => {
                let err = ErrorInfo::from(err);
                break socket.send(PgWireBackendMessage::ErrorResponse(err.into())).await;
            }
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) | Err(PgWireError::IoError(_)) => break Ok(()),
            // Where the next message begins is not known any more.
            Err(err) => break socket.send(error::farewell(err)).await,
        };
        if matches!(message, PgWireFrontendMessage::Terminate(_)) {
            break Ok(());
        }
        let extended = match socket.state() {
            PgWireConnectionState::CopyInProgress(extended) => extended,
            _ => message.is_extended_query(),
        };
        quiet = !message.is_extended_query() || matches!(message, PgWireFrontendMessage::Sync(_));
        let outcome = tokio::select! {
            // Mostly it is there at once: then no clock is needed.
            biased;
            outcome = process_message(
                message,
                &mut socket,
                Arc::clone(&handler),
                Arc::clone(&handler),
                Arc::clone(&handler),
                Arc::clone(&handler),
                Arc::clone(&handler),
            ) => outcome,
            () = gone(&probe, encrypted) => break Ok(()),
            () = too_late(startup_ends, stranger.as_ref()) => break Ok(()),
            // A client that does not even take the news.
            () = after(&backend.terminated, SHUTDOWN_GRACE) => break Ok(()),
        };
        if let Err(err) = outcome {
            // Who fails to come in stays out: behind an error, pgwire would take statements.
            if starting {
                break socket.send(error::farewell(err)).await;
            }
            let fatal = matches!(&err, PgWireError::UserError(info) if info.is_fatal());
            handler.rest(socket.transaction_status().to_error_state());
            if let Err(err) = process_error(&mut socket, err, extended).await {
                break Err(err);
            }
            if fatal {
                break Ok(());
            }
        }
        if matches!(socket.state(), PgWireConnectionState::ReadyForQuery | PgWireConnectionState::AwaitingSync) {
            handler.rest(socket.transaction_status());
        }
    }
}

/// Returns when a client that has not logged in has had its time, or has to give way to another.
async fn too_late(ends: tokio::time::Instant, stranger: Option<&Stranger>) {
    let Some(stranger) = stranger else { return std::future::pending().await };
    tokio::select! {
        () = tokio::time::sleep_until(ends) => {}
        () = stranger.evicted.cancelled() => {}
    }
}

/// Returns so long after the token was canceled.
async fn after(token: &CancellationToken, time: Duration) {
    token.cancelled().await;
    tokio::time::sleep(time).await;
}

/// Gives the error that ends a connection whose client says nothing for so long.
async fn idle_for(timeout: Option<IdleTimeout>) -> PgWireError {
    let Some(IdleTimeout { after, sqlstate, message }) = timeout else { return std::future::pending().await };
    tokio::time::sleep(after).await;
    error::fatal(sqlstate, message)
}

/// Returns when the client has closed its side: nothing is left to read but the end, or its word of farewell. Where that
/// is encrypted, the end of the connection is looked for behind it.
async fn gone(probe: &std::net::TcpStream, encrypted: bool) {
    const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
    let mut clock = tokio::time::interval(GONE_CHECK);
    clock.tick().await;
    loop {
        clock.tick().await;
        if encrypted && hung_up(probe) {
            return;
        }
        let mut waiting = [0; TERMINATE.len()];
        match probe.peek(&mut waiting) {
            Ok(0) => return,
            Ok(_) if waiting == TERMINATE => return,
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Whether the other side has closed the connection, whatever is left to read.
fn hung_up(probe: &std::net::TcpStream) -> bool {
    let mut polled = libc::pollfd { fd: probe.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: it is one entry, which lives until the call returns; nothing is waited for.
    unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
}
