//! The Postgres endpoint: listens, admits connections up to a limit, and runs each one's message loop until the client
//! leaves or the server shuts down.
//!
//! Parsing, planning, execution and encoding run on the compute pool; this side only moves bytes. A client that goes
//! away in the middle of a query is noticed within `GONE_CHECK`, and its query is dropped.

/// `write!` into memory, which cannot fail.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {{
        let _ = std::fmt::Write::write_fmt($out, format_args!($($format)*));
    }};
}

mod binary;
mod connection;
mod control;
mod copy;
mod copy_in;
mod cursor;
mod datetime;
mod error;
mod handler;
mod interrupt;
mod plans;
mod prepared;
mod send;
mod settings;
mod text;
mod types;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use pgwire::api::{ClientInfo, PgWireConnectionState, RandomPidSecretKeyGenerator};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::response::TransactionStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::{negotiate_tls, process_error, process_message};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::sql::Session;
use crate::task::Compute;

use connection::{IdleTimeout, State};
use handler::Connection;
use interrupt::Cancels;
use prepared::Prepared;

/// A client has this long to say who it is.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// The same for a client that will only be refused.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Refusals (and cancel requests, which must work when all connections are taken) at one time.
const MAX_REFUSALS: usize = 32;

/// How often a connection that runs a query looks whether its client is still there.
const GONE_CHECK: Duration = Duration::from_secs(1);

/// After a shutdown, connections have this long to take their last message.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What the endpoint allows.
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_connections: 100 }
    }
}

/// What all connections share.
pub struct Endpoint {
    pub compute: Compute,
    pub limits: Limits,
    pub shutdown: CancellationToken,
    pub cancels: Cancels,
    pub secrets: RandomPidSecretKeyGenerator,
}

/// Serves clients of `listener` until `shutdown`, each with a session of its own. Returns when all connections are
/// closed: running statements end with SQLSTATE 57P01.
pub async fn serve_postgres(
    listener: TcpListener,
    make_session: impl Fn() -> Session,
    compute: Compute,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<()> {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let endpoint = Arc::new(Endpoint {
        compute,
        limits,
        shutdown: shutdown.clone(),
        cancels: Cancels::default(),
        secrets: RandomPidSecretKeyGenerator::default(),
    });
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
        let place = Arc::clone(&places).try_acquire_owned();
        let admitted = place.is_ok();
        let Ok(permit) = place.or_else(|_| Arc::clone(&refusals).try_acquire_owned()) else { continue };
        let state = State::new(Arc::clone(&endpoint), make_session(), peer, admitted);
        connections.spawn(async move {
            if let Err(err) = serve_connection(socket, state).await {
                tracing::debug!(error = %err, "a connection ended");
            }
            drop(permit);
        });
    }
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
    Ok(())
}

async fn serve_connection(socket: TcpStream, state: State) -> io::Result<()> {
    // A second handle on the socket, to look for the client's farewell while the first one is busy.
    let socket = socket.into_std()?;
    let probe = socket.try_clone()?;
    let socket = TcpStream::from_std(socket)?;

    let patience = if state.admitted { STARTUP_TIMEOUT } else { REFUSAL_TIMEOUT };
    let startup_ends = tokio::time::Instant::now() + patience;
    let Ok(negotiated) = tokio::time::timeout_at(startup_ends, negotiate_tls::<Prepared>(socket, None)).await else {
        return Ok(());
    };
    let Some(mut socket) = negotiated? else { return Ok(()) };

    let backend = Arc::clone(&state.backend);
    let handler = Arc::new(Connection::new(state));
    // Whether the client is done with what it asked for: between the messages of one request nobody else speaks.
    let mut quiet = true;
    loop {
        let starting = matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        let startup_timeout = async {
            match starting {
                true => tokio::time::sleep_until(startup_ends).await,
                false => std::future::pending().await,
            }
        };
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
            () = startup_timeout => break Ok(()),
            message = socket.next() => message,
            () = backend.mailbox.wait(), if listens => {
                tokio::select! {
                    told = async { handler.tell(&mut socket).await?; Ok(socket.flush().await?) } => match told {
                        Ok(()) => continue,
                        Err(PgWireError::IoError(err)) => break Err(err),
                        Err(_) => break Ok(()),
                    },
                    () = gone(&probe) => break Ok(()),
                    () = backend.terminated.cancelled() => break Ok(()),
                }
            }
            err = idle_for(idle) => {
                let err = ErrorInfo::from(err);
                break socket.send(PgWireBackendMessage::ErrorResponse(err.into())).await;
            }
        };
        let Some(Ok(message)) = message else { break Ok(()) };
        if matches!(message, PgWireFrontendMessage::Terminate(_)) {
            break Ok(());
        }
        let extended = match socket.state() {
            PgWireConnectionState::CopyInProgress(extended) => extended,
            _ => message.is_extended_query(),
        };
        quiet = !message.is_extended_query() || matches!(message, PgWireFrontendMessage::Sync(_));
        let outcome = tokio::select! {
            outcome = process_message(
                message,
                &mut socket,
                Arc::clone(&handler),
                Arc::clone(&handler),
                Arc::clone(&handler),
                Arc::clone(&handler),
                Arc::clone(&handler),
            ) => outcome,
            () = gone(&probe) => break Ok(()),
            // A client that does not even take the news.
            () = after(&backend.terminated, SHUTDOWN_GRACE) => break Ok(()),
        };
        if let Err(err) = outcome {
            let fatal = matches!(&err, PgWireError::UserError(info) if info.is_fatal());
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

/// Returns when the client has closed its side: nothing is left to read but the end, or its word of farewell.
async fn gone(probe: &std::net::TcpStream) {
    const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
    let mut clock = tokio::time::interval(GONE_CHECK);
    clock.tick().await;
    loop {
        clock.tick().await;
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
