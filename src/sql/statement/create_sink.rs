//! `CREATE SINK … FROM relation WITH (connector = …)`: rows and changes go to others as they come.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::ast::Query;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create_stream::format_clause;
use super::{Command, Spec};
use crate::catalog::{ObjectKind, Origin};
use crate::engine::SinkDefinition;
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::rollup::versions::FINAL;
use crate::sql::parser::{option_list, parser as new_parser, relation_name, syntax, words};
use crate::sql::{Outcome, Session, relations_read};

pub static SPEC: Spec = Spec {
    name: "CREATE SINK",
    syntax: "CREATE SINK [IF NOT EXISTS] name FROM relation | view_final | (query) WITH (connector = '…', option = value, …) [FORMAT JSON | CSV | PARQUET [(option = value, …)]]",
    summary: "delivers the rows of a stream, the changes of a view or, of one with EMIT ON WINDOW CLOSE and of view_final, each closed window once",
    parse,
};

#[derive(Debug)]
struct CreateSink {
    name: String,
    from: From,
    connector: String,
    options: Vec<(String, String)>,
    format: Option<(String, Vec<(String, String)>)>,
    if_not_exists: bool,
    text: String,
}

#[derive(Debug)]
enum From {
    Relation(String),
    Query(Opaque<Query>),
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "SINK"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    let wrong = |message: &str| Error::new(Kind::Syntax, message).with_hint(format!("The form is: {}", SPEC.syntax));
    if !words(parser, &["FROM"]) {
        return Err(wrong("CREATE SINK needs FROM and what is to be delivered"));
    }
    let from = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query().map_err(|e| syntax(&e))?;
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        From::Query(Opaque::new(*query))
    } else {
        From::Relation(relation_name(parser)?)
    };
    if !words(parser, &["WITH"]) {
        return Err(wrong("CREATE SINK needs WITH (connector = …)"));
    }
    let mut options = option_list(parser)?;
    let at = options.iter().position(|(name, _)| name == "connector");
    let connector = at.map(|i| options.remove(i).1).ok_or_else(|| wrong("WITH needs the option \"connector\""))?;
    let format = format_clause(parser)?;
    let text = text.to_string();
    Ok(Some(Arc::new(CreateSink { name, from, connector, options, format, if_not_exists, text })))
}

impl Command for CreateSink {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateSink {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (name, engine) = (&self.name, session.engine());
        let exists = matches!(session.existing(name), Some((ObjectKind::Sink, _)));
        if self.if_not_exists && exists && !engine.is_restoring() {
            return Ok(Outcome::noticed("CREATE SINK", format!("sink \"{name}\" already exists, skipping")));
        }
        let definition = self.definition(session)?;
        session.check_query(&definition.query)?;
        session.check_options(&definition.options)?;
        let actor = session.actor();
        engine.create_sink(&definition, Origin { sql: &self.text, actor: &actor }).await?;
        Ok(Outcome::done("CREATE SINK"))
    }

    fn definition(&self, session: &Session) -> Result<SinkDefinition> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let (from, query, closed) = match &self.from {
            From::Query(query) => (query.to_string(), query.to_string(), false),
            From::Relation(name) => {
                let view = name.strip_suffix(FINAL).filter(|view| session.engine().view(view).is_some());
                match view.filter(|_| session.existing(name).is_none()) {
                    Some(view) => (name.clone(), format!("SELECT * FROM {} WHERE {FINAL}", quoted(view)), true),
                    None => (name.clone(), format!("SELECT * FROM {}", quoted(name)), false),
                }
            }
        };
        let reads = relations_read(&*new_parser(&query)?.parse_query().map_err(|e| syntax(&e))?);
        let (name, connector) = (self.name.clone(), self.connector.clone());
        let (options, format) = (self.options.clone(), self.format.clone());
        Ok(SinkDefinition { name, from, query, reads, closed, connector, options, format })
    }
}
