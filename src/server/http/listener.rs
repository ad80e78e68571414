//! Connections: so many at one time, and none that stays silent for ever.
//!
//! One that has not brought a request from somebody known takes a place among the strangers ([`crate::server::strangers`])
//! besides its own: there are fewer of those, and the silent ones among them give way to others. So whoever knows no token
//! cannot keep out who does.
//!
//! hyper reads requests as they come and would wait for the rest of one without end. Here a connection from which nothing
//! comes, or to which nothing can be sent, for [`SILENCE`] ends with an error; that is also how long an idle one is kept
//! open. A client that sends a byte now and then is bounded too: a request's body has its own time ([`super::body`]), and
//! its head must come within [`HEAD_BYTES_SILENCE`] reads of next to nothing.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::Extensions;
use axum::serve::{IncomingStream, Listener};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::encrypted::Stream;
use crate::server::strangers::{Stranger, Strangers};
use crate::server::tls::Tls;

/// Connections at one time. Further ones wait in the kernel's queue.
pub const CONNECTIONS: usize = 512;

/// Of these, those of nobody that is known.
const STRANGERS: usize = 256;

/// So long nothing may come or go.
pub const SILENCE: Duration = Duration::from_secs(90);

/// So many reads in a row may bring less than [`FEW`] bytes each and take longer than [`SLOW`].
const DRIBBLES: u32 = 30;
const FEW: usize = 64;
const SLOW: Duration = Duration::from_secs(1);

/// See the file header.
pub struct Bounded {
    inner: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Semaphore>,
    strangers: Arc<Strangers>,
}

impl Bounded {
    /// With `tls`, connections that begin with it are decrypted.
    pub fn new(inner: TcpListener, tls: Option<Arc<Tls>>) -> Bounded {
        Bounded { inner, tls, places: Arc::new(Semaphore::new(CONNECTIONS)), strangers: Strangers::new(STRANGERS) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        if self.places.available_permits() == 0 {
            self.strangers.evict();
        }
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        // axum's own listener waits a while when there are no more files to be had.
        let (stream, address) = Listener::accept(&mut self.inner).await;
        // A small answer behind a small request must not wait for more of it.
        let _ = stream.set_nodelay(true);
        let stranger = self.strangers.enter(address.ip().to_canonical()).await;
        (Connection::new(Stream::new(stream, self.tls.clone()), place, stranger), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Whether it is known whom a connection is from.
#[derive(Clone)]
pub struct Visitor(Arc<Mutex<Option<Stranger>>>);

impl Visitor {
    /// A request has come from somebody known: it is nobody's place any more that the connection takes.
    pub fn is_known(extensions: &Extensions) {
        if let Some(ConnectInfo(visitor)) = extensions.get::<ConnectInfo<Visitor>>() {
            drop(visitor.0.lock().take());
        }
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Visitor {
        stream.io().visitor.clone()
    }
}

/// One connection.
pub struct Connection {
    stream: Stream,
    visitor: Visitor,
    /// Ends when it has to give way to another stranger's.
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Rings when it has been silent for too long.
    alarm: Pin<Box<Sleep>>,
    /// What has come since then, and how many times in a row it was next to nothing in a long while.
    since: Instant,
    came: usize,
    dribbles: u32,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: Stream, place: OwnedSemaphorePermit, stranger: Stranger) -> Connection {
        let evicted = Box::pin(stranger.evicted.clone().cancelled_owned());
        let visitor = Visitor(Arc::new(Mutex::new(Some(stranger))));
        let alarm = Box::pin(sleep(SILENCE));
        Connection { stream, visitor, evicted, alarm, since: Instant::now(), came: 0, dribbles: 0, _place: place }
    }

    fn moved(&mut self) {
        self.alarm.as_mut().reset(Instant::now() + SILENCE);
    }

    /// Fails when the alarm has rung, or when it has to give way; else waits for that.
    fn silent<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.evicted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it had to give way to another")));
        }
        ready!(self.alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "silent for too long")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                self.came += buf.filled().len() - before;
                if self.since.elapsed() > SLOW {
                    self.dribbles = if self.came < FEW { self.dribbles + 1 } else { 0 };
                    (self.since, self.came) = (Instant::now(), 0);
                }
                self.moved();
                if self.dribbles > DRIBBLES {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "too slow")));
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(err)) => Poll::Ready(Err(err)),
            Poll::Pending => self.silent(cx),
        }
    }
}

impl Connection {
    fn written(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(done) => {
                self.moved();
                self.dribbles = 0;
                Poll::Ready(done)
            }
            Poll::Pending => self.silent(cx),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
