//! The thread that accepts connections and reads them: one per source, with a small runtime of its own, so that the
//! sockets of a source wait for nothing but their own buffers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::HANDSHAKE_TIMEOUT;
use super::bind::{Listener, SocketFile, keep_alive};
use super::inbox::{Handle, Inbox};
use super::problems::{Problem, of_connection};
use crate::error::{Error, Kind, Result};

/// How much is read at once from one connection.
const READ_BYTES: usize = 256 << 10;

/// After an error of accepting, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    /// Where reads of this thread go before they are appended to a buffer: one for all of its connections.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The running thread. Ends when dropped, and closes all sockets.
pub struct Acceptor {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It panicked: a bug, which the log tells already.
            let _ = thread.join();
        }
    }
}

/// What connections are read with.
#[derive(Clone)]
struct Context {
    inbox: Arc<Inbox>,
    tls: Option<TlsAcceptor>,
    read_timeout: Option<Duration>,
}

impl Acceptor {
    pub fn start(
        listener: Listener,
        inbox: Arc<Inbox>,
        tls: Option<TlsAcceptor>,
        read_timeout: Option<Duration>,
    ) -> Result<Acceptor> {
        let failed = |err: io::Error| Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let stop = CancellationToken::new();
        let (name, stopped) = (format!("net {}", listener.address()), stop.clone());
        let context = Context { inbox, tls, read_timeout };
        let run = async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = accept(listener, context) => {}
            }
        };
        // Dropping the runtime ends the tasks of the connections.
        let thread = std::thread::Builder::new().name(name).spawn(move || runtime.block_on(run)).map_err(failed)?;
        Ok(Acceptor { stop, thread: Some(thread) })
    }
}

async fn accept(listener: Listener, context: Context) {
    // Both fail only where the listener is none; then all there is to do is to say so.
    let outcome = match listener {
        Listener::Tcp(listener, _) => match TcpListener::from_std(listener) {
            Ok(listener) => accept_tcp(listener, context.clone()).await,
            Err(err) => err,
        },
        Listener::Unix(listener, file) => match UnixListener::from_std(listener) {
            Ok(listener) => accept_unix(listener, file, context.clone()).await,
            Err(err) => err,
        },
    };
    context.inbox.problem(Problem::Socket, Error::new(Kind::Io, format!("no longer listening: {outcome}")));
}

async fn accept_tcp(listener: TcpListener, context: Context) -> io::Error {
    loop {
        let inbox = &context.inbox;
        inbox.room_to_accept().await;
        let accepted = poll_fn(|cx| {
            let mut state = inbox.lock();
            listener.poll_accept(cx).map_ok(|(stream, peer)| {
                let peer = std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let handle = inbox.admit(&mut state, peer.to_string(), stream.as_raw_fd(), context.tls.is_some());
                (stream, handle)
            })
        });
        match accepted.await {
            Ok((stream, Some(handle))) => {
                keep_alive(stream.as_fd());
                tokio::spawn(connection(stream, handle, context.clone()));
            }
            Ok((_, None)) => inbox.wake(),
            Err(err) => not_accepted(inbox, &err).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, _file: SocketFile, context: Context) -> io::Error {
    let mut number = 0u64;
    loop {
        let inbox = &context.inbox;
        inbox.room_to_accept().await;
        let accepted = poll_fn(|cx| {
            let mut state = inbox.lock();
            listener.poll_accept(cx).map_ok(|(stream, _)| {
                number += 1;
                let handle = inbox.admit(&mut state, format!("connection {number}"), stream.as_raw_fd(), false);
                (stream, handle)
            })
        });
        match accepted.await {
            Ok((stream, Some(handle))) => {
                let context = context.clone();
                tokio::spawn(async move { serve(stream, &handle, &context).await });
            }
            Ok((_, None)) => inbox.wake(),
            Err(err) => not_accepted(inbox, &err).await,
        }
    }
}

async fn not_accepted(inbox: &Inbox, err: &io::Error) {
    // One that has gone before it was accepted is nobody's problem.
    if err.kind() != io::ErrorKind::ConnectionAborted {
        inbox.problem(Problem::Socket, Error::new(Kind::Io, format!("could not accept a connection: {err}")));
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connection(stream: TcpStream, handle: Handle, context: Context) {
    let Some(tls) = &context.tls else { return serve(stream, &handle, &context).await };
    let mut handshake = pin!(tls.accept(stream).into_fallible());
    let shaken = poll_fn(|cx| context.inbox.handshake(&handle, || handshake.as_mut().poll(cx)));
    let failed = match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaken).await {
        Ok(Ok(stream)) => return serve(stream, &handle, &context).await,
        // The socket is still open in `stream`, until after it is closed in the inbox.
        Ok(Err((err, stream))) => (Some(stream), format!("no TLS handshake: {err}")),
        Err(_) => (None, format!("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())),
    };
    let (_stream, what) = failed;
    context.inbox.close(&handle, Some((Problem::Handshake, of_connection(&handle.name, &what))));
}

/// Reads a connection to its end.
async fn serve(mut stream: impl AsyncRead + Unpin, handle: &Handle, context: &Context) {
    let Context { inbox, read_timeout, .. } = context;
    let problem = loop {
        tokio::select! {
            () = inbox.room(handle) => {}
            () = handle.door.shut.cancelled() => break None,
        }
        let read = poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| inbox.read(handle, &mut stream, scratch, cx)));
        let outcome = tokio::select! {
            outcome = within(*read_timeout, read) => outcome,
            () = handle.door.shut.cancelled() => break None,
        };
        match outcome {
            Some(Ok(0)) => break None,
            Some(Ok(_)) => {}
            // A TLS client that closes the connection without saying so first: most do, at their end.
            Some(Err(err)) if err.kind() == io::ErrorKind::UnexpectedEof => break None,
            Some(Err(err)) => break Some((Problem::Broken, of_connection(&handle.name, &err.to_string()))),
            None => {
                let what = format!("closed, as nothing came for {:?} (read_timeout)", read_timeout.unwrap_or_default());
                break Some((Problem::TimedOut, of_connection(&handle.name, &what)));
            }
        }
    };
    // Before the socket is closed: its number may be another's then.
    inbox.close(handle, problem);
    drop(stream);
}

/// What a future gives, unless it takes longer.
async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}
