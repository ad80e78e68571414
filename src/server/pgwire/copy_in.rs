//! `COPY … FROM STDIN`: what the client sends, on its way to the compute pool.
//!
//! Messages are small; they are collected to pieces of [`PIECE`] bytes, and no message is read while one is being worked on.
//! So a client is as fast as the stream that takes its rows, and little is kept.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::BytesMut;
use futures::{Sink, SinkExt};
use pgwire::api::copy::CopyHandler;
use pgwire::api::results::Tag;
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyFail, CopyInResponse};

use super::error::{refuse, wire};
use super::handler::Connection;
use super::interrupt::Interrupt;
use super::send::{complete, send_notice};
use crate::engine::Inserted;
use crate::error::{Error, Kind, Result};
use crate::sql::CopyIn;
use crate::task::Compute;

/// Bytes worked on at once.
const PIECE: usize = 256 << 10;

/// A copy under way.
pub struct Copying {
    copy: Box<CopyIn>,
    waiting: BytesMut,
    interrupt: Interrupt,
}

impl Copying {
    /// Works on what has come.
    async fn feed(self, compute: &Compute) -> Result<Copying> {
        let Copying { mut copy, mut waiting, interrupt } = self;
        let piece = waiting.split().freeze();
        let task = compute.spawn(async move {
            copy.feed(&piece).await?;
            Ok(copy)
        });
        let copy = interrupt.run(async { task.await? }).await?;
        Ok(Copying { copy, waiting, interrupt })
    }

    /// Works on what is left.
    async fn finish(self, compute: &Compute) -> Result<Inserted> {
        let Copying { copy, interrupt, .. } = self.feed(compute).await?;
        let task = compute.spawn(async move { copy.finish().await });
        interrupt.run(async { task.await? }).await
    }
}

impl Connection {
    /// Tells the client to send. `extended`: of the protocol with Parse, Bind and Execute.
    pub async fn begin_copy<C>(
        &self,
        client: &mut C,
        copy: Box<CopyIn>,
        interrupt: Interrupt,
        extended: bool,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (columns, format) = (copy.columns(), i16::from(copy.is_binary()));
        *self.copying.lock() = Some(Copying { copy, waiting: BytesMut::new(), interrupt });
        client.set_state(PgWireConnectionState::CopyInProgress(extended));
        let response = CopyInResponse::new(format as i8, columns as i16, vec![format; columns]);
        Ok(client.send(PgWireBackendMessage::CopyInResponse(response)).await?)
    }

    fn copying(&self) -> PgWireResult<Copying> {
        self.copying.lock().take().ok_or_else(|| refuse("08P01", "there is no COPY to send anything for"))
    }
}

/// Between two messages the copy is in the connection; after an error it is gone, and what still comes is ignored.
#[async_trait]
impl CopyHandler for Connection {
    async fn on_copy_data<C>(&self, _client: &mut C, message: CopyData) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut copying = self.copying()?;
        copying.waiting.extend_from_slice(&message.data);
        if copying.waiting.len() >= PIECE {
            copying = copying.feed(&self.endpoint.compute).await.map_err(wire)?;
        }
        *self.copying.lock() = Some(copying);
        Ok(())
    }

    async fn on_copy_done<C>(&self, client: &mut C, _done: CopyDone) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let done = self.copying()?.finish(&self.endpoint.compute).await.map_err(wire)?;
        if let Some(text) = done.notice() {
            send_notice(client, ("NOTICE", "00000", text)).await?;
        }
        complete(client, Tag::new("COPY"), usize::try_from(done.rows).ok()).await
    }

    async fn on_copy_fail<C>(&self, _client: &mut C, fail: CopyFail) -> PgWireError
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let sent = self.copying().map_or(0, |copying| copying.copy.sent());
        let err = Error::new(Kind::Canceled, format!("COPY from stdin failed: {}", fail.message));
        wire(if sent > 0 { err.with_detail(format!("{sent} rows are in the stream already.")) } else { err })
    }
}
