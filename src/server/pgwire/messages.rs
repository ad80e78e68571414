//! A client's bytes as messages. What pgwire decodes is looked at first: its decoder takes lengths and counts inside a
//! message at their word, and reads on in the next message where one is too short.
//!
//! ```text
//!     start-up     length (4 bytes, itself included), body
//!     afterwards   kind (1 byte), length (4 bytes, itself included), body
//! ```
//!
//! (PostgreSQL manual, "Message Formats".) A message is handed on when it has come in whole, and only itself. Until a
//! client has logged in, messages are small: nobody unknown makes the server keep much.

use std::pin::pin;

use bytes::{Buf, BytesMut};
use futures::future::poll_fn;
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::error::PgWireResult;
use pgwire::messages::PgWireFrontendMessage;
use pgwire::tokio::server::{MaybeTls, PgWireMessageServerCodec};
use tokio::io::AsyncReadExt;
use tokio_util::codec::{Decoder, Framed};

use super::error::fatal;

/// Bytes of a start-up message, and of every message before the login and of those that hold no data (PostgreSQL's limits).
const MAX_STARTUP: usize = 10_000;
const MAX_SMALL: usize = 10_000;

/// Bytes of a message with a statement or with data.
const MAX_LARGE: usize = 256 << 20;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// The next message; `None` when the client has left. An error ends the connection. Nothing is lost if the future is
/// dropped and called again.
pub async fn next<S>(
    socket: &mut Framed<MaybeTls, PgWireMessageServerCodec<S>>,
) -> PgWireResult<Option<PgWireFrontendMessage>> {
    loop {
        let stage = Stage::of(socket.state());
        if let Some(length) = whole(socket.read_buffer(), stage).map_err(|what| fatal("08P01", what))? {
            let mut message = socket.read_buffer_mut().split_to(length);
            return match socket.codec_mut().decode(&mut message)? {
                Some(message) => Ok(Some(message)),
                None => Err(fatal("08P01", "invalid message format")),
            };
        }
        if read(socket).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads some bytes; 0 at the end.
async fn read<S>(socket: &mut Framed<MaybeTls, PgWireMessageServerCodec<S>>) -> PgWireResult<usize> {
    let read = poll_fn(|cx| {
        let mut buffer = std::mem::take(socket.read_buffer_mut());
        buffer.reserve(CHUNK);
        let polled = pin!(socket.get_mut().read_buf(&mut buffer)).as_mut().poll(cx);
        *socket.read_buffer_mut() = buffer;
        polled
    });
    Ok(read.await?)
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Startup,
    Login,
    In,
}

impl Stage {
    fn of(state: PgWireConnectionState) -> Stage {
        match state {
            PgWireConnectionState::AwaitingSslRequest | PgWireConnectionState::AwaitingStartup => Stage::Startup,
            PgWireConnectionState::AuthenticationInProgress => Stage::Login,
            PgWireConnectionState::ReadyForQuery
            | PgWireConnectionState::QueryInProgress
            | PgWireConnectionState::CopyInProgress(_)
            | PgWireConnectionState::AwaitingSync => Stage::In,
        }
    }
}

/// The length of the message that `bytes` begin with, if all of it is there and it is well formed; `None` if more has to
/// come; or what is wrong with it.
fn whole(bytes: &BytesMut, stage: Stage) -> Result<Option<usize>, String> {
    let front = if stage == Stage::Startup { 0 } else { 1 };
    let Some(length) = bytes.get(front..front + 4) else { return Ok(None) };
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if stage == Stage::Startup {
        if !(8..=MAX_STARTUP).contains(&length) {
            return Err("invalid length of startup packet".to_string());
        }
        return Ok((bytes.len() >= length).then_some(length));
    }
    let kind = bytes[0];
    if stage == Stage::Login && !b"pX".contains(&kind) {
        return Err(format!("expected a message of the login, not one of type {kind}"));
    }
    let most = match kind {
        b'Q' | b'P' | b'B' | b'd' if stage == Stage::In => MAX_LARGE,
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' | b'p' => MAX_SMALL,
        _ => return Err(format!("invalid frontend message type {kind}")),
    };
    if !(4..=most).contains(&length) {
        return Err(format!("invalid message length {length} of type {kind}"));
    }
    if bytes.len() <= length {
        return Ok(None);
    }
    match Body(&bytes[5..=length]).fits(kind) {
        Some(()) => Ok(Some(length + 1)),
        None => Err(format!("invalid message format of type {kind}")),
    }
}

/// The body of a message, read from its front.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    /// Whether it is one of this kind, from its first to its last byte.
    fn fits(mut self, kind: u8) -> Option<()> {
        match kind {
            b'Q' | b'f' => self.text()?,
            b'P' => {
                self.text()?;
                self.text()?;
                let types = self.count()?;
                self.skip(types * 4)?;
            }
            b'B' => {
                self.text()?;
                self.text()?;
                let formats = self.formats()?;
                let values = self.count()?;
                // One for all, or one for each.
                if formats > 1 && formats != values {
                    return None;
                }
                for _ in 0..values {
                    // A negative one is NULL, and nothing follows.
                    let length = i32::from_be_bytes(self.take(4)?.try_into().ok()?);
                    self.skip(usize::try_from(length).unwrap_or(0))?;
                }
                self.formats()?;
            }
            b'C' | b'D' => {
                self.skip(1)?;
                self.text()?;
            }
            b'E' => {
                self.text()?;
                self.skip(4)?;
            }
            // Data, and what is read by whoever asked for it.
            b'd' | b'p' => self.0 = &[],
            _ => {}
        }
        self.0.is_empty().then_some(())
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    /// Up to a zero.
    fn text(&mut self) -> Option<()> {
        let end = memchr::memchr(0, self.0)?;
        self.skip(end + 1)
    }

    fn count(&mut self) -> Option<usize> {
        let mut count = self.take(2)?;
        Some(usize::from(count.get_u16()))
    }

    /// Codes of text (0) and binary (1).
    fn formats(&mut self) -> Option<usize> {
        let count = self.count()?;
        let codes = self.take(count * 2)?;
        codes.chunks(2).all(|code| matches!(code, [0, 0 | 1])).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use pgwire::messages::DecodeContext;
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn judged(kind: u8, body: &[u8]) -> Result<Option<usize>, String> {
        whole(&message(kind, body), Stage::In)
    }

    #[test]
    fn whole_messages_are_told_from_torn_ones() {
        let query = message(b'Q', b"SELECT 1\0");
        assert_eq!(whole(&query, Stage::In), Ok(Some(query.len())));
        for end in 0..query.len() {
            assert_eq!(whole(&BytesMut::from(&query[..end]), Stage::In), Ok(None));
        }
        let mut two = query.clone();
        two.extend_from_slice(&query);
        assert_eq!(whole(&two, Stage::In), Ok(Some(query.len())), "the second one waits");
        let startup = BytesMut::from(&[0, 0, 0, 9, 0, 3, 0, 0, 0][..]);
        assert_eq!(whole(&startup, Stage::Startup), Ok(Some(9)));
    }

    #[test]
    fn wrong_lengths_and_counts_are_refused() {
        for (kind, body) in [
            (b'Q', b"SELECT 1".as_slice()),
            (b'Q', b"SELECT 1\0SELECT 2\0"),
            (b'P', b"\0SELECT 1\0"),
            (b'P', b"\0SELECT 1\0\0\x02\0\0\0\x17"),
            (b'B', b"\0\0\0\0\0\x01\0\0\0\x09short\0\0"),
            (b'B', b"\0\0\0\x02\0\0\0\0\0\x01\xff\xff\xff\xff\0\0"),
            (b'B', b"\0\0\0\x01\0\x02\0\0\0\0"),
            (b'B', b"\0\0\0\0\0\0\0\0more"),
            (b'D', b""),
            (b'E', b"\0\0\0"),
            (b'S', b"x"),
            (b'F', b""),
            (b'?', b""),
        ] {
            judged(kind, body).unwrap_err();
        }
        assert_eq!(
            judged(b'B', b"\0\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x01x\0\0").map(|l| l.is_some()),
            Ok(true)
        );
        for length in [0u32, 3, MAX_SMALL as u32 + 1, u32::MAX] {
            let mut bytes = BytesMut::from(&b"D"[..]);
            bytes.extend_from_slice(&length.to_be_bytes());
            whole(&bytes, Stage::In).unwrap_err();
        }
        for length in [0u32, 7, MAX_STARTUP as u32 + 1, u32::MAX] {
            whole(&BytesMut::from(&length.to_be_bytes()[..]), Stage::Startup).unwrap_err();
        }
        // Before the login nothing but the login, and not much of it.
        whole(&message(b'Q', b"SELECT 1\0"), Stage::Login).unwrap_err();
        whole(&message(b'p', &[0; MAX_SMALL]), Stage::Login).unwrap_err();
        assert!(whole(&message(b'p', b"SCRAM-SHA-256\0"), Stage::Login).is_ok());
    }

    proptest! {
        /// What is let through, pgwire's decoder reads to its end without a panic.
        #[test]
        fn the_decoder_gets_only_what_it_can_read(
            kind in prop::sample::select(b"QPBCDEHSXcfdp".to_vec()),
            body in prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>(), 2 => Just(1u8)], 0..40),
        ) {
            let mut bytes = message(kind, &body);
            if let Ok(Some(length)) = whole(&bytes, Stage::In) {
                prop_assert_eq!(length, bytes.len());
                let mut context = DecodeContext::default();
                (context.awaiting_frontend_ssl, context.awaiting_frontend_startup) = (false, false);
                let decoded = PgWireFrontendMessage::decode(&mut bytes, &context);
                prop_assert!(matches!(decoded, Ok(Some(_))));
            }
        }
    }
}
