//! `SUBSCRIBE`: a result and then its changes, as Materialize spells it. Rows come until the client cancels; `COPY
//! (SUBSCRIBE …) TO STDOUT` and `DECLARE c CURSOR FOR SUBSCRIBE …` are further ways to read them.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use sqlparser::ast::{Query, Statement as Ast};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::options::{OptionKind, OptionSpec, Options as Given, with_nearest};
use crate::sql::parser::{self, folded, syntax, words};
use crate::sql::{Outcome, Session, postgres_names, relations_read, renamed};
use crate::view::changes::{self, Options, REST, Start};

pub static SPEC: Spec = Spec {
    name: "SUBSCRIBE",
    syntax: "SUBSCRIBE [TO] relation | (query) [ENVELOPE UPSERT (KEY (column, …))] [WITH (SNAPSHOT = true, PROGRESS = false, UPSERT = false, EVERY = '1 second')] [AS OF offset]",
    summary: "a result and then its changes, each with the offset it brings the receiver to; also in COPY (SUBSCRIBE …) TO STDOUT and DECLARE c CURSOR FOR SUBSCRIBE …",
    parse,
};

/// What WITH takes.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional(
        "snapshot",
        OptionKind::Bool,
        None,
        "begin with the result as it is; true unless AS OF is given",
    ),
    OptionSpec::optional(
        "progress",
        OptionKind::Bool,
        Some("false"),
        "send rows that tell up to which offset everything was sent",
    ),
    OptionSpec::optional("upsert", OptionKind::Bool, Some("false"), "send a key's new row only, not its old one"),
    OptionSpec::optional("every", OptionKind::Interval, Some("0 seconds"), "at least this long between two groups"),
];

#[derive(Debug)]
struct Subscribe {
    query: Opaque<Query>,
    start: Start,
    progress: bool,
    upsert: bool,
    /// The columns of ENVELOPE UPSERT (KEY (…)).
    key: Option<Vec<String>>,
    every: Duration,
    /// The result's columns, once they are known.
    fields: Option<SchemaRef>,
}

/// Whether the next word begins this statement; it is not consumed.
pub fn is_next(parser: &Parser<'_>) -> bool {
    matches!(&parser.peek_token_ref().token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("SUBSCRIBE"))
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["SUBSCRIBE"]) {
        return Ok(None);
    }
    let _ = words(parser, &["TO"]);
    let query = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query().map_err(|e| syntax(&e))?;
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        query
    } else {
        let name = parser.parse_object_name(false).map_err(|e| syntax(&e))?;
        let select = format!("SELECT * FROM {name}");
        parser::parser(&select)?.parse_query().map_err(|e| syntax(&e))?
    };
    let query = Opaque::new(*query);
    let (mut key, mut given, mut offset) = (None, None, None);
    loop {
        if words(parser, &["ENVELOPE", "UPSERT"]) {
            once(key.replace(key_columns(parser)?).is_none(), "ENVELOPE")?;
        } else if words(parser, &["WITH"]) {
            once(given.replace(option_list(parser)?).is_none(), "WITH")?;
        } else if words(parser, &["AS", "OF"]) {
            once(offset.replace(number(parser)?).is_none(), "AS OF")?;
        } else {
            break;
        }
    }
    let given = Given::parse("SUBSCRIBE", &[OPTIONS], &given.unwrap_or_default())?;
    let snapshot = given.text("snapshot").map(|_| given.bool("snapshot"));
    let start = match (offset, snapshot) {
        (Some(_), Some(true)) => {
            return Err(Error::new(Kind::Syntax, "SNAPSHOT and AS OF exclude each other")
                .with_hint("AS OF goes on from an offset up to which everything is known already."));
        }
        (Some(offset), _) => Start::After(offset),
        (None, Some(false)) => Start::Now,
        (None, _) => Start::Snapshot,
    };
    Ok(Some(Arc::new(Subscribe {
        query,
        start,
        progress: given.bool("progress"),
        upsert: given.bool("upsert") || key.is_some(),
        key,
        every: given.interval("every").unwrap_or_default(),
        fields: None,
    })))
}

fn once(first: bool, what: &str) -> Result<()> {
    if first { Ok(()) } else { Err(Error::new(Kind::Syntax, format!("{what} is given twice"))) }
}

/// `(KEY (column, …))`
fn key_columns(parser: &mut Parser<'_>) -> Result<Vec<String>> {
    let expect = |parser: &mut Parser<'_>, token: Token| parser.expect_token(&token).map(drop).map_err(|e| syntax(&e));
    expect(parser, Token::LParen)?;
    if !words(parser, &["KEY"]) {
        return Err(Error::new(Kind::Syntax, "ENVELOPE UPSERT needs its key")
            .with_hint("The form is: ENVELOPE UPSERT (KEY (column, …))."));
    }
    let columns = parser.parse_parenthesized_column_list(sqlparser::parser::IsOptional::Mandatory, false);
    let columns = columns.map_err(|e| syntax(&e))?;
    expect(parser, Token::RParen)?;
    Ok(columns.iter().map(folded).collect())
}

/// `(SNAPSHOT, PROGRESS = true, EVERY '1 second')`: a word alone means true, and the equals sign may be left out.
fn option_list(parser: &mut Parser<'_>) -> Result<Vec<(String, String)>> {
    let mut options = Vec::new();
    parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
    loop {
        let name = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
        let equals = parser.consume_token(&Token::Eq);
        let value = match &parser.peek_token_ref().token {
            Token::Comma | Token::RParen if !equals => "true".to_string(),
            _ => parser::option_value(parser)?,
        };
        options.push((name, value));
        if !parser.consume_token(&Token::Comma) {
            parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
            return Ok(options);
        }
    }
}

fn number(parser: &mut Parser<'_>) -> Result<u64> {
    let text = parser::option_value(parser)?;
    text.trim().parse().map_err(|_| {
        Error::new(Kind::InvalidParameter, format!("\"{text}\" is not an offset"))
            .with_hint("AS OF takes an _offset that a subscription has given.")
    })
}

impl Subscribe {
    /// The analyzed plan of the query and the names of its columns.
    async fn plan(&self, session: &Session) -> Result<(Opaque<LogicalPlan>, SchemaRef)> {
        let ast = Opaque::new(Ast::Query(Box::new(Query::clone(&self.query))));
        let plan = session.plan_query(&ast).await?;
        if !plan.get_parameter_names()?.is_empty() {
            return Err(Error::new(Kind::NotSupported, "SUBSCRIBE takes no parameters")
                .with_hint("Write the values into the query."));
        }
        let plan = session.analyze(plan)?;
        let names = postgres_names(&ast, plan.schema().as_arrow());
        let fields = renamed(plan.schema().as_arrow(), names);
        Ok((plan.into(), fields))
    }

    fn options(&self, fields: &SchemaRef) -> Result<Options> {
        let place = |name: &String| {
            fields.index_of(name).map_err(|_| {
                let err = Error::new(Kind::UndefinedColumn, format!("column \"{name}\" of KEY does not exist"));
                with_nearest(err, name, fields.fields().iter().map(|f| f.name().as_str()))
            })
        };
        let key = self.key.as_ref().map(|names| names.iter().map(place).collect::<Result<_>>()).transpose()?;
        let (start, progress, upsert, every) = (self.start, self.progress, self.upsert, self.every);
        let rest = Arc::new(AtomicU32::new(REST));
        Ok(Options { start, progress, upsert, key, every, missed: Arc::default(), rest, reached: Arc::default() })
    }
}

impl Command for Subscribe {
    fn prepare<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Option<Arc<dyn Command>>>> {
        Box::pin(self.prepared(session))
    }

    fn fields(&self) -> Option<SchemaRef> {
        self.fields.clone()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Subscribe {
    async fn prepared(&self, session: &Session) -> Result<Option<Arc<dyn Command>>> {
        let (_, fields) = self.plan(session).await?;
        let fields = Some(changes::schema(&fields, &self.options(&fields)?));
        let (query, key) = (self.query.clone(), self.key.clone());
        let (start, progress, upsert, every) = (self.start, self.progress, self.upsert, self.every);
        Ok(Some(Arc::new(Subscribe { query, start, progress, upsert, key, every, fields })))
    }

    /// Plans anew: since it was prepared, relations may have been replaced.
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (plan, fields) = self.plan(session).await?;
        let mut options = self.options(&fields)?;
        // A view that is emitted every so often is not sent more often.
        let views = relations_read(&*self.query).into_iter().filter_map(|name| session.engine().view(&name));
        let slowest = views.filter_map(|view| view.options.every()).max();
        options.every = options.every.max(slowest.unwrap_or_default());
        if let Some(announced) = &self.fields
            && *announced != changes::schema(&fields, &options)
        {
            return Err(Error::new(Kind::NotSupported, "the columns have changed since the statement was prepared")
                .with_hint("Prepare it again."));
        }
        let reads = relations_read(&*self.query);
        Ok(Outcome::Rows(session.engine().subscribe(plan, &reads, options).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String> {
        let mut parser = parser::parser(text)?;
        let command = parse(&mut parser, text)?.expect("it begins with SUBSCRIBE");
        assert_eq!(parser.peek_token_ref().token, Token::EOF, "{text}");
        Ok(format!("{command:?}"))
    }

    #[test]
    fn all_forms_are_read() {
        for (text, expected) in [
            ("SUBSCRIBE v", "start: Snapshot, progress: false, upsert: false, key: None, every: 0ns"),
            ("subscribe to public.v with (snapshot false)", "start: Now, progress: false"),
            ("SUBSCRIBE TO v WITH (SNAPSHOT = false, PROGRESS) AS OF 17", "start: After(17), progress: true"),
            ("SUBSCRIBE (SELECT a FROM v WHERE b = ')') AS OF '3' WITH (every = '2 seconds')", "every: 2s"),
            ("SUBSCRIBE TO v ENVELOPE UPSERT (KEY (a, \"B\"))", "upsert: true, key: Some([\"a\", \"B\"])"),
        ] {
            let read = parsed(text).expect(text);
            assert!(read.contains(expected), "{text}: {read}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("SUBSCRIBE v WITH (SNAPSHOT = true) AS OF 1", "exclude each other"),
            ("SUBSCRIBE v WITH (PROGRES)", "progress"),
            ("SUBSCRIBE v WITH (EVERY = 'often')", "every"),
            ("SUBSCRIBE v AS OF x", "not an offset"),
            ("SUBSCRIBE v AS OF 1 AS OF 2", "given twice"),
            ("SUBSCRIBE v ENVELOPE UPSERT (a)", "KEY (column"),
        ] {
            let err = parsed(text).expect_err(text).to_string();
            assert!(err.contains(expected), "{text}: {err}");
        }
    }
}
