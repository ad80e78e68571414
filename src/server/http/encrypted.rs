//! A connection that may be encrypted: its first byte tells. What begins with a TLS record of a handshake is decrypted;
//! anything else is taken as it is, unless connections have to be encrypted.
//!
//! The handshake happens in the connection's own reads: whoever accepts connections does not wait for it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::Accept;
use tokio_rustls::server::TlsStream;

use crate::server::tls::Tls;

/// The kind of a TLS record that a handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// See the file header.
pub struct Stream {
    /// Given to the handshake, if there is one.
    tls: Option<Arc<Tls>>,
    now: Now,
}

enum Now {
    /// Nothing has come yet.
    Fresh(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    Clear(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
    /// The handshake failed, or is being begun.
    Over,
}

impl Stream {
    pub fn new(socket: TcpStream, tls: Option<Arc<Tls>>) -> Stream {
        let now = if tls.is_some() { Now::Fresh(socket) } else { Now::Clear(socket) };
        Stream { tls, now }
    }

    /// Goes on until it is known how to read and write.
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (next, outcome) = match std::mem::replace(&mut self.now, Now::Over) {
                Now::Fresh(socket) => {
                    let mut first = [0];
                    let mut buf = ReadBuf::new(&mut first);
                    match socket.poll_peek(cx, &mut buf) {
                        Poll::Pending => (Now::Fresh(socket), Poll::Pending),
                        Poll::Ready(Err(err)) => (Now::Over, Poll::Ready(Err(err))),
                        Poll::Ready(Ok(count)) => match &self.tls {
                            Some(tls) if count > 0 && first[0] == HANDSHAKE => {
                                self.now = Now::Handshake(Box::new(tls.current().http.accept(socket)));
                                continue;
                            }
                            Some(tls) if count > 0 && tls.required() => (Now::Over, Poll::Ready(Err(in_clear()))),
                            Some(_) | None => (Now::Clear(socket), Poll::Ready(Ok(()))),
                        },
                    }
                }
                Now::Handshake(mut accept) => match Pin::new(&mut accept).poll(cx) {
                    Poll::Pending => (Now::Handshake(accept), Poll::Pending),
                    Poll::Ready(Ok(stream)) => (Now::Encrypted(Box::new(stream)), Poll::Ready(Ok(()))),
                    Poll::Ready(Err(err)) => (Now::Over, Poll::Ready(Err(err))),
                },
                Now::Over => (Now::Over, Poll::Ready(Err(io::ErrorKind::NotConnected.into()))),
                begun @ (Now::Clear(_) | Now::Encrypted(_)) => (begun, Poll::Ready(Ok(()))),
            };
            self.now = next;
            return outcome;
        }
    }
}

fn in_clear() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "connections have to be encrypted")
}

/// Calls a method of the stream beneath.
macro_rules! beneath {
    ($self:ident, $cx:ident, $method:ident($($argument:expr),*)) => {{
        let this = $self.get_mut();
        ready!(this.begin($cx))?;
        match &mut this.now {
            Now::Clear(socket) => Pin::new(socket).$method($cx $(, $argument)*),
            Now::Encrypted(stream) => Pin::new(stream.as_mut()).$method($cx $(, $argument)*),
            Now::Fresh(_) | Now::Handshake(_) | Now::Over => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }};
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        beneath!(self, cx, poll_read(buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        beneath!(self, cx, poll_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        beneath!(self, cx, poll_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.now, Now::Fresh(_)) {
            return Poll::Ready(Ok(()));
        }
        beneath!(self, cx, poll_flush())
    }

    /// One that never began ends without a word.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.now {
            Now::Clear(socket) => Pin::new(socket).poll_shutdown(cx),
            Now::Encrypted(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Now::Fresh(_) | Now::Handshake(_) | Now::Over => Poll::Ready(Ok(())),
        }
    }
}
