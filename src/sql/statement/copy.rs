//! `COPY (query) TO STDOUT` and `COPY relation TO STDOUT` (PostgreSQL manual, COPY): text, csv and binary. The query may be a
//! `SUBSCRIBE`: then lines come as things change, which is how psql can follow a result.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::ParamValues;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use futures::future::BoxFuture;
use sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Statement as Ast};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{parse as parse_text, parser as parser_of, rest, syntax, words};
use crate::sql::{CopyOptions, Outcome, Planned, Session};

pub static SPEC: Spec = Spec {
    name: "COPY … TO STDOUT",
    syntax: "COPY (query | SUBSCRIBE …) | relation [(column, …)] TO STDOUT [WITH (FORMAT text | csv | binary, HEADER, DELIMITER 'c', NULL 's', QUOTE 'c', ESCAPE 'c')]",
    summary: "sends a result to the client as text, csv or in binary",
    parse,
};

#[derive(Debug)]
struct Copy {
    query: String,
    options: CopyOptions,
    planned: Option<Planned>,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["COPY"]) {
        return Ok(None);
    }
    if let Some((subscribe, behind)) = subscription(parser, text)? {
        let mut form = parser_of(&format!("(SELECT 1) {behind}"))?;
        let copy = parse_copy(&mut form)?;
        if form.peek_token_ref().token != Token::EOF {
            let found = form.peek_token_ref().to_string();
            return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
                .with_hint(format!("The form is: {}", SPEC.syntax)));
        }
        return Ok(Some(Arc::new(Copy { query: subscribe, ..copy })));
    }
    Ok(Some(Arc::new(parse_copy(parser)?)))
}

/// The text of the SUBSCRIBE in `COPY (SUBSCRIBE …) …` and the text behind it. All of it is consumed.
fn subscription(parser: &mut Parser<'_>, text: &str) -> Result<Option<(String, String)>> {
    let begins = matches!(&parser.peek_nth_token_ref(1).token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("SUBSCRIBE"));
    if parser.peek_token_ref().token != Token::LParen || !begins {
        return Ok(None);
    }
    parser.next_token();
    let inner = rest(parser, text);
    let mut depth = 1;
    loop {
        match &parser.peek_token_ref().token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::EOF => return Err(Error::new(Kind::Syntax, "a parenthesis of COPY ( is not closed")),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        parser.next_token();
    }
    let closing = rest(parser, text);
    parser.next_token();
    let behind = rest(parser, text).to_string();
    while parser.next_token().token != Token::EOF {}
    Ok(Some((inner[..inner.len() - closing.len()].trim().to_string(), behind)))
}

fn parse_copy(parser: &mut Parser<'_>) -> Result<Copy> {
    let Ast::Copy { source, to, target, options, legacy_options, .. } = parser.parse_copy().map_err(|e| syntax(&e))?
    else {
        return Err(Error::internal("COPY was parsed as another statement"));
    };
    if !to {
        // FROM STDIN is a statement of its own.
        return Err(Error::new(Kind::NotSupported, "COPY can only read from STDIN")
            .with_hint("In psql, \\copy … FROM 'file' reads a file on your side; IMPORT 'file' INTO stream reads lines of one on the server."));
    }
    // PostgreSQL takes either word in either direction, and PHP says STDIN.
    if !matches!(target, CopyTarget::Stdout | CopyTarget::Stdin) {
        return Err(Error::new(Kind::NotSupported, "COPY can only write to STDOUT")
            .with_hint("In psql, \\copy (…) TO 'file' writes a file on your side."));
    }
    let query = match source {
        CopySource::Query(query) => query.to_string(),
        CopySource::Table { table_name, columns } if columns.is_empty() => format!("SELECT * FROM {table_name}"),
        CopySource::Table { table_name, columns } => {
            let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
            format!("SELECT {} FROM {table_name}", columns.join(", "))
        }
    };
    Ok(Copy { query, options: copy_options(&options, &legacy_options)?, planned: None })
}

pub fn copy_options(options: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<CopyOptions> {
    let (mut csv, mut binary) = (false, false);
    let (mut header, mut delimiter, mut null, mut quote, mut escape) = (false, None, None, '"', None);
    for option in options {
        match option {
            CopyOption::Format(name) => match name.value.to_lowercase().as_str() {
                "csv" => (csv, binary) = (true, false),
                "text" => (csv, binary) = (false, false),
                "binary" => (csv, binary) = (false, true),
                other => {
                    return Err(crate::options::unknown("COPY format", other, ["csv", "text", "binary"])
                        .with_detail("COPY knows text, csv and binary."));
                }
            },
            CopyOption::Header(on) => header = *on,
            CopyOption::Delimiter(c) => delimiter = Some(*c),
            CopyOption::Null(text) => null = Some(text.clone()),
            CopyOption::Quote(c) => quote = *c,
            CopyOption::Escape(c) => escape = Some(*c),
            CopyOption::Encoding(name) if name.eq_ignore_ascii_case("utf8") || name.eq_ignore_ascii_case("utf-8") => {}
            other => {
                return Err(Error::new(Kind::NotSupported, format!("COPY option {other} is not supported")));
            }
        }
    }
    for option in legacy {
        match option {
            CopyLegacyOption::Delimiter(c) => delimiter = Some(*c),
            CopyLegacyOption::Null(text) => null = Some(text.clone()),
            CopyLegacyOption::Header => header = true,
            CopyLegacyOption::Binary => binary = true,
            CopyLegacyOption::Csv(all) => {
                csv = true;
                for option in all {
                    match option {
                        CopyLegacyCsvOption::Header => header = true,
                        CopyLegacyCsvOption::Quote(c) => quote = *c,
                        CopyLegacyCsvOption::Escape(c) => escape = Some(*c),
                        other => {
                            return Err(Error::new(
                                Kind::NotSupported,
                                format!("COPY option {other} is not supported"),
                            ));
                        }
                    }
                }
            }
            other => {
                return Err(Error::new(Kind::NotSupported, format!("COPY option {other} is not supported")));
            }
        }
    }
    if binary && (header || delimiter.is_some() || null.is_some() || escape.is_some() || quote != '"') {
        return Err(Error::new(Kind::Syntax, "cannot specify how text looks in BINARY mode"));
    }
    let one_byte = |what: &str, c: char| -> Result<u8> {
        u8::try_from(c).ok().filter(u8::is_ascii).ok_or_else(|| {
            Error::new(Kind::InvalidParameter, format!("COPY {what} must be a single one-byte character"))
        })
    };
    Ok(CopyOptions {
        binary,
        csv,
        header,
        delimiter: one_byte("delimiter", delimiter.unwrap_or(if csv { ',' } else { '\t' }))?,
        null: null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_string() }),
        quote: one_byte("quote", quote)?,
        escape: one_byte("escape", escape.unwrap_or(quote))?,
    })
}

impl Command for Copy {
    fn prepare<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Option<Arc<dyn Command>>>> {
        Box::pin(self.prepared(session))
    }

    fn is_live(&self) -> bool {
        self.planned.as_ref().is_some_and(Planned::is_live)
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Copy {
    async fn prepared(&self, session: &Session) -> Result<Option<Arc<dyn Command>>> {
        let statement = parse_text(&self.query)?.pop();
        let statement = statement.ok_or_else(|| Error::new(Kind::Syntax, "COPY needs a query"))?;
        let planned = Some(session.plan(&statement).await?);
        Ok(Some(Arc::new(Copy { query: self.query.clone(), options: self.options.clone(), planned })))
    }

    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let Some(planned) = &self.planned else {
            return match self.prepare(session).await? {
                Some(ready) => ready.run(session).await,
                None => Ok(Outcome::Empty),
            };
        };
        match session.execute(planned, ParamValues::List(vec![])).await? {
            Outcome::Rows(rows) => {
                // The header line shows PostgreSQL's names.
                let fields = planned.fields().unwrap_or_else(|| rows.schema());
                let renamed = Arc::clone(&fields);
                let batches =
                    rows.map(move |batch| Ok(RecordBatch::try_new(Arc::clone(&renamed), batch?.columns().to_vec())?));
                let rows = Box::pin(RecordBatchStreamAdapter::new(fields, batches));
                Ok(Outcome::CopyOut(rows, self.options.clone()))
            }
            other => Ok(other),
        }
    }
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Planned({})", self.statement())
    }
}
