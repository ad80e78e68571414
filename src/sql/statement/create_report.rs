//! `CREATE REPORT … EVERY … AS query NOTIFY …`: queries whose results are sent on a schedule. `SEND REPORT`: now.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono_tz::Tz;
use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::silence::moment;
use super::{Command, Spec};
use crate::catalog::{ObjectKind, Origin, quoted};
use crate::error::{Error, Kind, Result};
use crate::report::schedule::Schedule;
use crate::report::{Definition, Query};
use crate::sql::parser::{folded, option_value, parser as new_parser, relation_name, rest, syntax, words};
use crate::sql::{Outcome, Session, relations_read};
use crate::time::zone;

pub static SPEC: Spec = Spec {
    name: "CREATE REPORT",
    syntax: "CREATE REPORT [IF NOT EXISTS] name EVERY interval [AT 'hh:mm'] [TIME ZONE 'zone'] AS query | (query) [AS title], … NOTIFY notifier, …",
    summary: "queries whose results are sent when a period of the calendar has ended; what period_start() and period_end() bound is compared with the period before",
    parse,
};

pub static SEND: Spec = Spec {
    name: "SEND REPORT",
    syntax: "SEND REPORT name [AT time]",
    summary: "sends a report now, for the period that ends now or at a time that is over",
    parse: parse_send,
};

/// Parts of one report.
const MOST_QUERIES: usize = 50;

#[derive(Debug)]
struct CreateReport {
    definition: Definition,
    if_not_exists: bool,
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "REPORT"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    if !words(parser, &["EVERY"]) {
        return Err(wrong("a report needs EVERY and an interval"));
    }
    let every = option_value(parser)?;
    let at = if words(parser, &["AT"]) { Some(option_value(parser)?) } else { None };
    let zone = if words(parser, &["TIME", "ZONE"]) { zone(&option_value(parser)?)? } else { Tz::UTC };
    let schedule = Schedule::new(&every, at.as_deref(), zone)?;
    if !words(parser, &["AS"]) {
        return Err(wrong("a report needs AS and a query"));
    }
    // A word after a query could be an alias of its last table, so what follows the queries is cut off first.
    let (queries, mut behind) = cut_notify(rest(parser, text))?;
    while parser.next_token().token != Token::EOF {}
    let (queries, reads) = parse_queries(&mut new_parser(queries)?)?;
    let names = behind.parse_comma_separated(Parser::parse_identifier).map_err(|e| syntax(&e))?;
    if behind.peek_token_ref().token != Token::EOF {
        return Err(wrong(&format!("syntax error at or near \"{}\"", behind.peek_token_ref())));
    }
    let mut notify: Vec<String> = Vec::new();
    for name in names.iter().map(folded) {
        if !notify.contains(&name) {
            notify.push(name);
        }
    }
    let definition = Definition { name, schedule, queries, reads, notify };
    Ok(Some(Arc::new(CreateReport { definition, if_not_exists, text: text.to_string() })))
}

fn wrong(message: &str) -> Error {
    Error::new(Kind::Syntax, message).with_hint(format!("The form is: {}", SPEC.syntax))
}

/// The text before the last `NOTIFY` outside of parentheses, and a parser behind it.
fn cut_notify(text: &str) -> Result<(&str, Parser<'static>)> {
    let mut parser = new_parser(text)?;
    let (mut depth, mut found) = (0, None);
    loop {
        let before = text.len() - rest(&parser, text).len();
        if depth == 0 && words(&mut parser, &["NOTIFY"]) {
            found = Some((before, parser.index()));
            continue;
        }
        match parser.next_token().token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::EOF => break,
            _ => {}
        }
    }
    let Some((at, index)) = found else {
        return Err(wrong("a report needs NOTIFY and whom to send it to").with_detail(
            "Several queries stand in parentheses, as a semicolon ends the statement: AS (query) AS title, (query) AS title.",
        ));
    };
    let mut behind = new_parser(text)?;
    while behind.index() < index {
        behind.advance_token();
    }
    Ok((&text[..at], behind))
}

/// A query, or several in parentheses with titles; and the relations that they read.
fn parse_queries(parser: &mut Parser<'_>) -> Result<(Vec<Query>, BTreeSet<String>)> {
    let (mut queries, mut reads) = (Vec::new(), BTreeSet::new());
    if parser.peek_token_ref().token != Token::LParen {
        let query = parser.parse_query().map_err(|e| syntax(&e))?;
        reads.extend(relations_read(&*query));
        queries.push(Query { title: String::new(), text: query.to_string() });
    } else {
        loop {
            parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
            let query = parser.parse_query().map_err(|e| syntax(&e))?;
            parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
            let named = words(parser, &["AS"]) || matches!(parser.peek_token_ref().token, Token::Word(_));
            let title = if named { option_value(parser)? } else { String::new() };
            reads.extend(relations_read(&*query));
            queries.push(Query { title, text: query.to_string() });
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
    }
    if parser.peek_token_ref().token != Token::EOF {
        return Err(wrong(&format!("syntax error at or near \"{}\"", parser.peek_token_ref())));
    }
    if queries.len() > MOST_QUERIES {
        return Err(Error::new(Kind::ResourceLimit, format!("a report has {MOST_QUERIES} queries at most")));
    }
    Ok((queries, reads))
}

impl Command for CreateReport {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateReport {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (name, engine) = (&self.definition.name, session.engine());
        let exists = matches!(session.existing(name), Some((ObjectKind::Report, _)));
        if self.if_not_exists && exists && !engine.is_restoring() {
            return Ok(Outcome::noticed("CREATE REPORT", format!("report \"{name}\" already exists, skipping")));
        }
        self.definition.queries.iter().try_for_each(|query| session.check_query(&query.text))?;
        session.must_use(&self.definition.notify)?;
        let actor = session.actor();
        engine.create_report(self.definition.clone(), Origin { sql: &self.text, actor: &actor }).await?;
        Ok(Outcome::done("CREATE REPORT"))
    }
}

#[derive(Debug)]
struct SendReport {
    name: String,
    /// An expression.
    at: Option<String>,
}

fn parse_send(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["SEND", "REPORT"]) {
        return Ok(None);
    }
    let name = relation_name(parser)?;
    let at = match words(parser, &["AT"]) {
        true => Some(parser.parse_expr().map_err(|e| syntax(&e))?.to_string()),
        false => None,
    };
    Ok(Some(Arc::new(SendReport { name, at })))
}

impl Command for SendReport {
    fn target(&self) -> Option<String> {
        Some(quoted(&self.name))
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl SendReport {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let at = match &self.at {
            Some(at) => Some(moment(session, at).await?),
            None => None,
        };
        Ok(match session.engine().send_report(&self.name, at).await? {
            0 => Outcome::done("SEND REPORT"),
            failed => {
                Outcome::noticed("SEND REPORT", format!("{failed} of its queries failed, and the report says so"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::ours;

    fn shown(text: &str) -> Result<String> {
        ours(text).map(|command| format!("{:?}", command.expect("it is one").1))
    }

    #[test]
    fn one_query_and_several() {
        for (text, expected) in [
            (
                "CREATE REPORT r EVERY '1 hour' AS SELECT count(*) FROM t NOTIFY n",
                &["1 hour", "SELECT count(*) FROM t\"", "notify: [\"n\"]"][..],
            ),
            (
                "CREATE REPORT IF NOT EXISTS \"R\" EVERY INTERVAL '1 day' AT '07:00' TIME ZONE 'Europe/Berlin'
                 AS (SELECT 1 AS notify FROM TUMBLE(t, ts, INTERVAL '1 hour') AS x) AS \"Top clients\", (SELECT 2 FROM u), (SELECT ';') last
                 NOTIFY n, M, n",
                &[
                    "\"R\"",
                    "Berlin",
                    "Top clients",
                    "title: \"\"",
                    "title: \"last\"",
                    "{\"t\", \"tumble\", \"u\"}",
                    "notify: [\"n\", \"m\"]",
                    "if_not_exists: true",
                ],
            ),
            ("CREATE REPORT r EVERY '1 month' AS WITH a AS (SELECT 1) SELECT * FROM a AS notify NOTIFY n", &["AS notify"]),
        ] {
            let shown = shown(text).unwrap();
            for part in expected {
                assert!(shown.contains(part), "no {part} in {shown}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("CREATE REPORT r AS SELECT 1 NOTIFY n", "needs EVERY"),
            ("CREATE REPORT r EVERY '1 hour' SELECT 1 NOTIFY n", "needs AS"),
            ("CREATE REPORT r EVERY '1 hour' AS SELECT 1", "needs NOTIFY"),
            ("CREATE REPORT r EVERY '1 hour' AS SELECT 1 NOTIFY", "syntax error"),
            ("CREATE REPORT r EVERY '1 hour' AS NOTIFY n", "syntax error"),
            ("CREATE REPORT r EVERY '1 hour' AS (SELECT 1) UNION (SELECT 2) NOTIFY n", "syntax error"),
            ("CREATE REPORT r EVERY '1 hour' AS SELECT 1 NOTIFY n n", "at or near \"n\""),
            ("CREATE REPORT r EVERY '1 day' AT 'noon' AS SELECT 1 NOTIFY n", "time of the day"),
            ("CREATE REPORT r EVERY '1 day' TIME ZONE 'Berlin' AS SELECT 1 NOTIFY n", "time zone"),
            ("SEND REPORT", "syntax error"),
        ] {
            let err = shown(text).unwrap_err();
            assert!(err.message().contains(expected), "{text}: {err}");
        }
    }
}
