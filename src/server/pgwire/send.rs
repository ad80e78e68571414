//! Answers on their way to the socket.
//!
//! Rows are fed as they come; when the socket is full, feeding waits, so that a slow client holds its query back instead
//! of filling memory. When the query has nothing ready, what was fed is flushed, so that changes of a live result arrive
//! at once.

use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use pgwire::api::results::Tag;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::data::DataRow;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, NotificationResponse};
use pgwire::messages::startup::ParameterStatus;

use super::connection::{Answer, Aside};
use super::error::{fatal, info};
use crate::channel::Letter;

/// Feeds up to `max_rows` rows (0: all); tells how many there were and whether the end was reached.
pub async fn send_rows<C, S>(client: &mut C, mut rows: S, max_rows: usize) -> PgWireResult<(usize, bool)>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    S: Stream<Item = PgWireResult<DataRow>> + Unpin,
{
    let mut count = 0;
    while max_rows == 0 || count < max_rows {
        match next_or_flush(client, &mut rows).await? {
            Some(row) => client.feed(PgWireBackendMessage::DataRow(row?)).await?,
            None => return Ok((count, true)),
        }
        count += 1;
    }
    Ok((count, false))
}

/// The next item. Before it waits for one, the client gets what it was fed so far.
async fn next_or_flush<C, S>(client: &mut C, items: &mut S) -> PgWireResult<Option<S::Item>>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    S: Stream + Unpin,
{
    if let Some(item) = items.next().now_or_never() {
        return Ok(item);
    }
    client.flush().await?;
    Ok(items.next().await)
}

pub async fn complete<C>(client: &mut C, tag: Tag, rows: Option<usize>) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let tag = match rows {
        Some(rows) => tag.with_rows(rows),
        None => tag,
    };
    let mut message = CommandComplete::from(tag);
    // It has rows, and PostgreSQL does not count them.
    if message.tag.starts_with("SHOW ") {
        message.tag.truncate("SHOW".len());
    }
    Ok(client.feed(PgWireBackendMessage::CommandComplete(message)).await?)
}

/// A notice: severity, SQLSTATE and text.
pub async fn send_notice<C>(
    client: &mut C,
    (severity, sqlstate, text): (&'static str, &'static str, String),
) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let notice = info(severity, sqlstate, text).into();
    Ok(client.feed(PgWireBackendMessage::NoticeResponse(notice)).await?)
}

/// What came on a channel, or how much was lost there.
pub async fn send_letter<C>(client: &mut C, letter: Letter) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    match letter {
        Letter::Notification(said) => {
            let message = NotificationResponse::new(said.pid, said.channel.to_string(), said.payload.to_string());
            Ok(client.feed(PgWireBackendMessage::NotificationResponse(message)).await?)
        }
        Letter::Lost(count) => {
            let text = format!("{count} notifications were lost, as this connection did not read those before them");
            send_notice(client, ("WARNING", "01000", text)).await
        }
    }
}

/// Notices, changed settings, the transaction's new state.
pub async fn send_aside<C>(client: &mut C, aside: Aside) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    for notice in aside.notices {
        send_notice(client, notice).await?;
    }
    for (name, value) in aside.reports {
        let status = ParameterStatus::new(name.to_string(), value);
        client.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
    }
    if let Some(transaction) = aside.transaction {
        client.set_transaction_status(transaction);
    }
    if let Some(name) = aside.deallocate {
        client.portal_store().rm_statement(&name);
    }
    Ok(())
}

/// Every answer but rows.
pub async fn send_rest<C>(client: &mut C, answer: Answer) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    match answer {
        Answer::Empty => client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?,
        Answer::Done { tag, rows } => {
            let oid = tag == "INSERT" && rows.is_some();
            let tag = if oid { Tag::new(&tag).with_oid(0) } else { Tag::new(&tag) };
            complete(client, tag, rows).await?;
        }
        Answer::Copy { formats, others, mut lines } => {
            let format = formats.first().map_or(0, |format| *format as i8);
            let response = CopyOutResponse::new(format, formats.len() as i16, formats);
            client.feed(PgWireBackendMessage::CopyOutResponse(response)).await?;
            let mut count = 0_usize;
            while let Some(line) = next_or_flush(client, &mut lines).await? {
                client.feed(PgWireBackendMessage::CopyData(CopyData::new(line?))).await?;
                count += 1;
            }
            client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
            complete(client, Tag::new("COPY"), Some(count.saturating_sub(others))).await?;
        }
        // The handler begins it, and goes on with what the client sends.
        Answer::CopyIn(_) => return Err(fatal("XX000", "not reached")),
        Answer::Rows { mut rows, tag, .. } => {
            let (count, _) = send_rows(client, &mut rows, 0).await?;
            complete(client, Tag::new(tag), Some(count)).await?;
        }
    }
    Ok(())
}
