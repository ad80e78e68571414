//! `DECLARE c CURSOR FOR SUBSCRIBE …` and `FETCH … WITH (timeout)`: forms of cursor statements that only this dialect has.
//! They belong to a connection, which reads them from their text; here they are told from statements of plain SQL.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{ours, rest, words};
use crate::sql::{Outcome, Session};

pub static DECLARE: Spec = Spec {
    name: "DECLARE … CURSOR FOR SUBSCRIBE",
    syntax: "DECLARE name CURSOR [WITH HOLD] FOR SUBSCRIBE …",
    summary: "a subscription whose rows are taken in portions, with FETCH",
    parse: declare,
};

pub static FETCH: Spec = Spec {
    name: "FETCH",
    syntax: "{ FETCH | MOVE } [n | ALL | NEXT | FORWARD n] [FROM | IN] name [WITH (timeout = '1 second')]",
    summary: "the next rows of a cursor; MOVE passes over them. Of a subscription: waits for the first row and gives what is there; with a timeout, what comes until then, perhaps nothing",
    parse: fetch,
};

struct OfConnection(&'static Spec);

impl std::fmt::Debug for OfConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OfConnection({})", self.0.name)
    }
}

fn declare(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["DECLARE"]) {
        return Ok(None);
    }
    while !words(parser, &["FOR"]) {
        if parser.next_token().token == Token::EOF {
            return Ok(None);
        }
    }
    if !super::subscribe::is_next(parser) {
        return Ok(None);
    }
    // Its mistakes are told now, not when the cursor is read.
    ours(rest(parser, text))?;
    while parser.next_token().token != Token::EOF {}
    Ok(Some(Arc::new(OfConnection(&DECLARE))))
}

fn fetch(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["FETCH"]) && !words(parser, &["MOVE"]) {
        return Ok(None);
    }
    while parser.next_token().token != Token::EOF {}
    Ok(Some(Arc::new(OfConnection(&FETCH))))
}

impl Command for OfConnection {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl OfConnection {
    /// Reached where there is no connection, and by what the connection could not read.
    async fn outcome(&self, _: &Session) -> Result<Outcome> {
        let OfConnection(spec) = self;
        Err(Error::new(Kind::Syntax, format!("{} is not understood here", spec.name))
            .with_hint(format!("The form is: {} (over a Postgres connection).", spec.syntax)))
    }
}
