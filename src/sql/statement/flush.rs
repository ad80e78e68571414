//! `FLUSH`: waits until all that the sources could read when it was issued is durable and visible in all views.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::error::Result;
use crate::sql::parser::words;
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "FLUSH",
    syntax: "FLUSH",
    summary: "returns when every row that the sources could read when it was issued (files: up to their size then) is durable and visible in all views",
    parse,
};

#[derive(Debug)]
struct Flush;

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    Ok(words(parser, &["FLUSH"]).then(|| Arc::new(Flush) as _))
}

impl Command for Flush {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Flush {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        session.engine().flush().await?;
        Ok(Outcome::done("FLUSH"))
    }
}
