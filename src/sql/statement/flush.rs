//! `FLUSH`: waits until all that the sources could read when it was issued is durable and visible in all views.

use std::sync::Arc;

use async_trait::async_trait;
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

#[async_trait]
impl Command for Flush {
    async fn run(&self, session: &Session) -> Result<Outcome> {
        session.engine().flush().await?;
        Ok(Outcome::done("FLUSH"))
    }
}
