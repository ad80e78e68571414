//! `CREATE MATERIALIZED VIEW`: a continuous query, kept up to date as rows arrive.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{Query, Statement as Ast};
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::sql::parser::{relation_name, syntax, words};
use crate::sql::{Outcome, Session, relations_read};

pub static SPEC: Spec = Spec {
    name: "CREATE MATERIALIZED VIEW",
    syntax: "CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name AS query",
    summary: "a continuous query: its result is kept up to date as rows arrive, and equals the query run as a batch",
    parse,
};

/// The statement, also as EXPLAIN sees it.
#[derive(Debug)]
pub struct CreateView {
    pub name: String,
    pub query: Opaque<Query>,
    or_replace: bool,
    if_not_exists: bool,
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    Ok(parse_view(parser, text)?.map(|view| Arc::new(view) as _))
}

/// The statement itself, for those who need its parts.
pub fn parse_view(parser: &mut Parser<'_>, text: &str) -> Result<Option<CreateView>> {
    let or_replace = words(parser, &["CREATE", "OR", "REPLACE", "MATERIALIZED", "VIEW"]);
    if !or_replace && !words(parser, &["CREATE", "MATERIALIZED", "VIEW"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    if !words(parser, &["AS"]) {
        let found = parser.peek_token_ref().to_string();
        return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
            .with_hint(format!("The form is: {}", SPEC.syntax)));
    }
    let query = Opaque::new(*parser.parse_query().map_err(|e| syntax(&e))?);
    if words(parser, &["EMIT"]) {
        if words(parser, &["ON", "UPDATE"]) {
            // The default: a view always shows the latest result.
        } else {
            return Err(Error::new(Kind::NotSupported, "EMIT ON UPDATE is the only form of EMIT so far")
                .with_hint("Leave EMIT out: a view always shows the latest result."));
        }
    }
    Ok(Some(CreateView { name, query, or_replace, if_not_exists, text: text.to_string() }))
}

impl CreateView {
    /// The analyzed plan of the query.
    pub async fn plan(&self, session: &Session) -> Result<Opaque<LogicalPlan>> {
        let query = Opaque::new(Ast::Query(Box::new(Query::clone(&self.query))));
        Ok(session.analyze(session.plan_query(&query).await?)?.into())
    }
}

#[async_trait]
impl Command for CreateView {
    async fn run(&self, session: &Session) -> Result<Outcome> {
        let (engine, name) = (session.engine(), &self.name);
        if self.if_not_exists && !engine.is_restoring() && session.existing(name).is_some() {
            let notice = format!("relation \"{name}\" already exists, skipping");
            return Ok(Outcome::noticed("CREATE MATERIALIZED VIEW", notice));
        }
        let plan = self.plan(session).await?;
        let reads = relations_read(&*self.query);
        engine.create_view(name, &self.text, plan, reads, self.or_replace).await?;
        Ok(Outcome::done("CREATE MATERIALIZED VIEW"))
    }
}
