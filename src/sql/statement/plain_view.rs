//! `CREATE VIEW`: a query with a name, computed whenever it is read.

use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use sqlparser::ast::{Query, Statement as Ast};
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::catalog::{ObjectKind, Origin};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::sql::parser::{relation_name, syntax, words};
use crate::sql::{Outcome, Session, relations_read};

pub static SPEC: Spec = Spec {
    name: "CREATE VIEW",
    syntax: "CREATE [OR REPLACE] VIEW [IF NOT EXISTS] name AS query",
    summary: "a query with a name, computed whenever it is read; replaced, those that read it go on with the new one",
    parse,
};

#[derive(Debug)]
struct CreatePlainView {
    name: String,
    query: Opaque<Query>,
    or_replace: bool,
    if_not_exists: bool,
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    Ok(parse_view(parser, text)?.map(|view| Arc::new(view) as _))
}

/// The query of a CREATE VIEW, for planning it again.
pub fn query_of(parser: &mut Parser<'_>, text: &str) -> Result<Option<Opaque<Query>>> {
    Ok(parse_view(parser, text)?.map(|view| view.query))
}

fn parse_view(parser: &mut Parser<'_>, text: &str) -> Result<Option<CreatePlainView>> {
    let or_replace = words(parser, &["CREATE", "OR", "REPLACE", "VIEW"]);
    if !or_replace && !words(parser, &["CREATE", "VIEW"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    if !words(parser, &["AS"]) {
        return Err(Error::new(Kind::Syntax, "CREATE VIEW needs AS and a query")
            .with_hint(format!("The form is: {}", SPEC.syntax)));
    }
    let query = Opaque::new(*parser.parse_query().map_err(|e| syntax(&e))?);
    Ok(Some(CreatePlainView { name, query, or_replace, if_not_exists, text: text.to_string() }))
}

impl Command for CreatePlainView {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreatePlainView {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (engine, name) = (session.engine(), &self.name);
        let query = Opaque::new(Ast::Query(Box::new(Query::clone(&self.query))));
        let plan = Opaque::new(session.plan_query(&query).await?);
        let provider = Arc::new(ViewTable::new(LogicalPlan::clone(&plan), Some(self.text.clone())));
        let reads = relations_read(&*self.query);
        let old = session.existing(name).filter(|_| !engine.is_restoring());
        if old.is_some() && self.if_not_exists {
            return Ok(Outcome::noticed("CREATE VIEW", format!("relation \"{name}\" already exists, skipping")));
        }
        let actor = session.actor();
        let by = Origin { sql: &self.text, actor: &actor };
        if old.is_some() && self.or_replace {
            engine.replace_view(name, by, provider, reads).await?;
        } else {
            engine.create_table(ObjectKind::View, name, by, provider, reads).await?;
        }
        Ok(Outcome::done("CREATE VIEW"))
    }
}
