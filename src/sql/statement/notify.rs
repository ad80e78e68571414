//! `LISTEN`, `UNLISTEN` and `NOTIFY` (PostgreSQL manual): short messages between clients, and from alerts (the notifier
//! `pg_notify`). They concern the connection that says them; within a transaction they wait for its COMMIT.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::error::Result;
use crate::sql::parser::{folded, syntax, words};
use crate::sql::{Outcome, Session};

pub static LISTEN: Spec = Spec {
    name: "LISTEN",
    syntax: "LISTEN channel",
    summary: "this connection gets what is said on a channel from now on, by NOTIFY or by an alert's notifier",
    parse: listen,
};

pub static UNLISTEN: Spec = Spec {
    name: "UNLISTEN",
    syntax: "UNLISTEN channel | *",
    summary: "this connection gets nothing more from a channel, or from any",
    parse: unlisten,
};

pub static NOTIFY: Spec = Spec {
    name: "NOTIFY",
    syntax: "NOTIFY channel [, 'payload']",
    summary: "tells all connections that listen to a channel; the payload is text of less than 8000 bytes",
    parse: notify,
};

#[derive(Debug)]
enum OfChannel {
    Listen(String),
    /// One channel, or all.
    Unlisten(Option<String>),
    Notify {
        channel: String,
        payload: String,
    },
}

fn channel(parser: &mut Parser<'_>) -> Result<String> {
    Ok(folded(&parser.parse_identifier().map_err(|err| syntax(&err))?))
}

fn listen(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["LISTEN"]) {
        return Ok(None);
    }
    Ok(Some(Arc::new(OfChannel::Listen(channel(parser)?))))
}

fn unlisten(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["UNLISTEN"]) {
        return Ok(None);
    }
    let all = parser.consume_token(&Token::Mul);
    Ok(Some(Arc::new(OfChannel::Unlisten(if all { None } else { Some(channel(parser)?) }))))
}

fn notify(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["NOTIFY"]) {
        return Ok(None);
    }
    let channel = channel(parser)?;
    let payload = match parser.consume_token(&Token::Comma) {
        true => parser.parse_literal_string().map_err(|err| syntax(&err))?,
        false => String::new(),
    };
    Ok(Some(Arc::new(OfChannel::Notify { channel, payload })))
}

impl Command for OfChannel {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(std::future::ready(self.act(session)))
    }
}

impl OfChannel {
    fn act(&self, session: &Session) -> Result<Outcome> {
        let backend = session.need_backend()?;
        match self {
            OfChannel::Listen(channel) => backend.listen(channel).map(|()| Outcome::done("LISTEN")),
            OfChannel::Unlisten(channel) => backend.unlisten(channel.as_deref()).map(|()| Outcome::done("UNLISTEN")),
            OfChannel::Notify { channel, payload } => {
                backend.notify(channel, payload).map(|()| Outcome::done("NOTIFY"))
            }
        }
    }
}
