//! `CREATE TABLE … AS`: a reference table. Its rows are made once, from a query or VALUES, and kept; streams are joined
//! with it. Replacing it gives it new rows, which apply to what streams receive from then on.

use std::sync::Arc;

use datafusion::common::ParamValues;
use futures::future::BoxFuture;
use sqlparser::ast::{DataType, Query, Statement as Ast};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::catalog::Origin;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{Statement, folded, parser as parser_of, relation_name, syntax, words};
use crate::sql::{Outcome, Planned, Session};

pub static SPEC: Spec = Spec {
    name: "CREATE TABLE … AS",
    syntax: "CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name [(column [type], …)] AS VALUES (…), … | query",
    summary: "a reference table: its rows are computed once and kept, for joins with streams; replaced, the new rows apply from then on",
    parse,
};

#[derive(Debug)]
struct CreateTable {
    name: String,
    /// Names, and types where they are given; empty: those of the query.
    columns: Vec<(String, Option<DataType>)>,
    query: Box<Query>,
    or_replace: bool,
    if_not_exists: bool,
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    let or_replace = words(parser, &["CREATE", "OR", "REPLACE", "TABLE"]);
    if !or_replace && !words(parser, &["CREATE", "TABLE"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    // A stream may look the same up to here: whether AS follows the columns decides.
    let mut ahead = parser_of(text)?;
    while ahead.peek_token_ref() != parser.peek_token_ref() {
        ahead.next_token();
    }
    skip_parentheses(&mut ahead);
    if !words(&mut ahead, &["AS"]) {
        if or_replace {
            return Err(Error::new(Kind::Syntax, "CREATE OR REPLACE TABLE needs AS and a query")
                .with_hint(format!("The form is: {}. A stream cannot be replaced: drop it first.", SPEC.syntax)));
        }
        return Ok(None);
    }
    let columns = if parser.peek_token_ref().token == Token::LParen { columns(parser)? } else { Vec::new() };
    words(parser, &["AS"]);
    let query = parser.parse_query().map_err(|e| syntax(&e))?;
    Ok(Some(Arc::new(CreateTable { name, columns, query, or_replace, if_not_exists, text: text.to_string() })))
}

fn skip_parentheses(parser: &mut Parser<'_>) {
    let mut depth = 0;
    loop {
        match parser.peek_token_ref().token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::EOF => return,
            _ => {}
        }
        if depth > 0 {
            parser.next_token();
            continue;
        }
        if parser.peek_token_ref().token == Token::RParen {
            parser.next_token();
        }
        return;
    }
}

fn columns(parser: &mut Parser<'_>) -> Result<Vec<(String, Option<DataType>)>> {
    let mut columns = Vec::new();
    parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
    loop {
        let name = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
        let typed = !matches!(parser.peek_token_ref().token, Token::Comma | Token::RParen);
        let data_type = if typed { Some(parser.parse_data_type().map_err(|e| syntax(&e))?) } else { None };
        columns.push((name, data_type));
        if parser.consume_token(&Token::Comma) {
            continue;
        }
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        return Ok(columns);
    }
}

impl CreateTable {
    /// The query with the declared names and types around it.
    async fn planned(&self, session: &Session) -> Result<Planned> {
        let statement = Statement::Sql(Ast::Query(self.query.clone()).into());
        let planned = session.plan(&statement).await?;
        if self.columns.is_empty() {
            return Ok(planned);
        }
        let count = planned.fields().map_or(0, |f| f.fields().len());
        if count != self.columns.len() {
            let message = format!("{} columns are named, but the query has {count}", self.columns.len());
            return Err(Error::new(Kind::Syntax, message).with_hint(format!("The form is: {}", SPEC.syntax)));
        }
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns = self.columns.iter().enumerate().map(|(i, (name, data_type))| match data_type {
            Some(data_type) => format!("CAST(c{i} AS {data_type}) AS {}", quoted(name)),
            None => format!("c{i} AS {}", quoted(name)),
        });
        let columns: Vec<String> = columns.collect();
        let given: Vec<String> = (0..count).map(|i| format!("c{i}")).collect();
        let sql = format!("SELECT {} FROM ({}) AS given ({})", columns.join(", "), self.query, given.join(", "));
        session.plan(&session.parse(&sql)?.remove(0)).await
    }
}

impl Command for CreateTable {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateTable {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (engine, name) = (session.engine(), &self.name);
        if engine.is_restoring() {
            engine.restore_reference_table(name)?;
            return Ok(Outcome::done("SELECT"));
        }
        if session.existing(name).is_some() {
            if self.if_not_exists {
                return Ok(Outcome::noticed(
                    "CREATE TABLE AS",
                    format!("relation \"{name}\" already exists, skipping"),
                ));
            }
            if !self.or_replace {
                return Err(Error::new(Kind::DuplicateTable, format!("relation \"{name}\" already exists"))
                    .with_hint("CREATE OR REPLACE TABLE … AS gives a reference table new rows."));
            }
        }
        let planned = self.planned(session).await?;
        let fields = planned.fields().ok_or_else(|| Error::internal("a query has columns"))?;
        let names: Vec<String> = fields.fields().iter().map(|f| f.name().clone()).collect();
        let Outcome::Rows(rows) = session.execute(&planned, ParamValues::List(vec![])).await? else {
            return Err(Error::internal("a query has rows"));
        };
        let content = engine.collect(rows, &names).await?;
        let rows = content.rows() as usize;
        let actor = session.actor();
        let by = Origin { sql: &self.text, actor: &actor };
        engine.create_reference_table(name, by, content, self.or_replace).await?;
        Ok(Outcome::Done { tag: "SELECT".into(), rows: Some(rows), notices: Vec::new() })
    }
}
