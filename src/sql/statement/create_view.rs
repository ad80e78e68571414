//! `CREATE MATERIALIZED VIEW`: a continuous query, kept up to date as rows arrive.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use sqlparser::ast::{Query, Statement as Ast};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::catalog::Origin;
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::sql::function::session::refuse;
use crate::sql::parser::{interval, option_list, parser as new_parser, relation_name, rest, syntax, words};
use crate::sql::{Outcome, Session, relations_read};
use crate::time::Micros;
use crate::view::options::{Emit, Fill, ViewOptions};

pub static SPEC: Spec = Spec {
    name: "CREATE MATERIALIZED VIEW",
    syntax: "CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [WITH (allowed_lateness = '…', memory_limit = '…', retention = '…')] AS query [EMIT ON UPDATE [EVERY interval] | EMIT ON WINDOW CLOSE [WITH DELAY interval]] [FILL ZERO | NULL | PREVIOUS]",
    summary: "a continuous query: its result is kept up to date as rows arrive, and equals the query run as a batch",
    parse,
};

/// What WITH takes.
static OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional(
        "allowed_lateness",
        OptionKind::Interval,
        Some("0 seconds"),
        "a window is final when the watermark has passed its end by this much",
    ),
    OptionSpec::optional(
        "memory_limit",
        OptionKind::Bytes,
        None,
        "memory that the view's state may take; the coldest of what does not fit is kept on disk (when not given: the server's --view-memory)",
    ),
    OptionSpec::optional(
        "retention",
        OptionKind::Interval,
        None,
        "windows that began longer ago than this, and sessions that ended longer ago, are given up [default: all are kept, also when the stream's rows are gone]",
    ),
];

/// The statement, also as EXPLAIN sees it.
#[derive(Debug)]
pub struct CreateView {
    pub name: String,
    pub query: Opaque<Query>,
    pub options: ViewOptions,
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
    let given = if words(parser, &["WITH"]) { option_list(parser)? } else { Vec::new() };
    if !words(parser, &["AS"]) {
        return Err(unexpected(parser));
    }
    // A word after a query could be an alias of its last table, so what follows the query is cut off first.
    let (query, emission) = cut_emission(rest(parser, text))?;
    while parser.next_token().token != Token::EOF {}
    let mut of_query = new_parser(query)?;
    let query = Opaque::new(*of_query.parse_query().map_err(|e| syntax(&e))?);
    if of_query.peek_token_ref().token != Token::EOF {
        return Err(unexpected(&of_query));
    }
    let mut options = view_options(&given)?;
    parse_emission(&mut new_parser(emission)?, &mut options)?;
    Ok(Some(CreateView { name, query, options, or_replace, if_not_exists, text: text.to_string() }))
}

fn unexpected(parser: &Parser<'_>) -> Error {
    let found = parser.peek_token_ref().to_string();
    Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
        .with_hint(format!("The form is: {}", SPEC.syntax))
}

fn view_options(given: &[(String, String)]) -> Result<ViewOptions> {
    let parsed = Options::parse("a materialized view", &[OPTIONS], given)?;
    let lateness = parsed.interval("allowed_lateness").unwrap_or_default();
    Ok(ViewOptions {
        allowed_lateness: lateness.as_micros() as Micros,
        memory_limit: parsed.bytes("memory_limit"),
        retention: parsed.interval("retention").map(|age| age.as_micros() as Micros),
        ..ViewOptions::default()
    })
}

/// The text before and from the first `EMIT ON` or `FILL ZERO | NULL | PREVIOUS` outside of parentheses.
fn cut_emission(text: &str) -> Result<(&str, &str)> {
    let mut parser = new_parser(text)?;
    let mut depth = 0;
    loop {
        let word = |i: usize, word: &str| matches!(&parser.peek_nth_token_ref(i).token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
        let emit = word(0, "EMIT") && word(1, "ON");
        let fill = word(0, "FILL") && ["ZERO", "NULL", "PREVIOUS"].iter().any(|how| word(1, how));
        if depth == 0 && (emit || fill) {
            return Ok(text.split_at(text.len() - rest(&parser, text).len()));
        }
        match parser.next_token().token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::EOF => return Ok((text, "")),
            _ => {}
        }
    }
}

/// `[EMIT …] [FILL …]` up to the end.
fn parse_emission(parser: &mut Parser<'_>, options: &mut ViewOptions) -> Result<()> {
    if words(parser, &["EMIT", "ON", "UPDATE"]) {
        let every = if words(parser, &["EVERY"]) { Some(interval(parser)?) } else { None };
        options.emit = Emit::OnUpdate { every };
    } else if words(parser, &["EMIT", "ON", "WINDOW", "CLOSE"]) {
        let delay = if words(parser, &["WITH", "DELAY"]) { interval(parser)? } else { 0 };
        options.emit = Emit::OnWindowClose { delay };
    }
    for (word, fill) in [("ZERO", Fill::Zero), ("NULL", Fill::Null), ("PREVIOUS", Fill::Previous)] {
        if words(parser, &["FILL", word]) {
            options.fill = Some(fill);
        }
    }
    if parser.peek_token_ref().token != Token::EOF {
        return Err(unexpected(parser));
    }
    Ok(())
}

impl CreateView {
    /// The analyzed plan of the query.
    pub async fn plan(&self, session: &Session) -> Result<Opaque<LogicalPlan>> {
        let query = Opaque::new(Ast::Query(Box::new(Query::clone(&self.query))));
        let plan = session.plan_query(&query).await?;
        refuse(&plan, "a materialized view")?;
        Ok(session.analyze(plan)?.into())
    }
}

impl Command for CreateView {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateView {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (engine, name) = (session.engine(), &self.name);
        if self.if_not_exists && !engine.is_restoring() && session.existing(name).is_some() {
            let notice = format!("relation \"{name}\" already exists, skipping");
            return Ok(Outcome::noticed("CREATE MATERIALIZED VIEW", notice));
        }
        let plan = self.plan(session).await?;
        let reads = relations_read(&*self.query);
        let actor = session.actor();
        let by = Origin { sql: &self.text, actor: &actor };
        engine.create_view(name, by, plan, reads, self.options.clone(), self.or_replace).await?;
        Ok(Outcome::done("CREATE MATERIALIZED VIEW"))
    }
}
