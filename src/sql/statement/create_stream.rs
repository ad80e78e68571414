//! `CREATE TABLE … WITH (connector = …) FORMAT …`: a stored stream and the source that feeds it. Without a connector it is
//! fed by CREATE SOURCE, INSERT and COPY, HTTP or IMPORT.

use std::sync::Arc;

use arrow::datatypes::DataType;
use futures::future::BoxFuture;
use sqlparser::ast::{BinaryOperator, DataType as SqlType, Expr, TimezoneInfo};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::batch::{Include, Metadata};
use crate::engine::{ComputedDefinition, StreamDefinition};
use crate::error::{Error, Kind, Result};
use crate::format::{Declared, timestamp_type};
use crate::sql::parser::{folded, interval_of, option_list, relation_name, syntax, words};
use crate::sql::{Outcome, Session};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "CREATE TABLE … WITH",
    syntax: "CREATE TABLE [IF NOT EXISTS] name [( * | column type | column [type] AS (expression), … [, WATERMARK FOR column AS column - INTERVAL 'delay'] )] [INCLUDE metadata AS name …] [WITH ([connector = '…',] option = value, …)] FORMAT format [(option = value, …)]",
    summary: "a stored stream: what its source reads is kept and can be queried and watched. Without a connector it is fed by CREATE SOURCE, INSERT, COPY, HTTP or IMPORT; then FORMAT JSON may be left out where columns are declared",
    parse,
};

#[derive(Debug)]
struct CreateStream {
    definition: StreamDefinition,
    if_not_exists: bool,
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    let Some((definition, if_not_exists)) = parse_definition(parser)? else { return Ok(None) };
    Ok(Some(Arc::new(CreateStream { definition, if_not_exists, text: text.to_string() })))
}

/// What the statement says, and whether it says IF NOT EXISTS.
pub fn parse_definition(parser: &mut Parser<'_>) -> Result<Option<(StreamDefinition, bool)>> {
    if !words(parser, &["CREATE", "TABLE"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    let has_columns = parser.peek_token_ref().token == Token::LParen;
    let Columns { declared, computed, watermark } = if has_columns { columns(parser)? } else { Columns::default() };
    let mut includes = Vec::new();
    let mut more = false;
    while words(parser, &["INCLUDE"]) || more {
        let kind = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
        let name = if words(parser, &["AS"]) {
            folded(&parser.parse_identifier().map_err(|e| syntax(&e))?)
        } else {
            kind.clone()
        };
        includes.push(Include { kind: Metadata::find(&kind)?, name });
        more = parser.consume_token(&Token::Comma);
    }
    let mut options = if words(parser, &["WITH"]) { option_list(parser)? } else { Vec::new() };
    let at = options.iter().position(|(name, _)| name == "connector");
    let connector = at.map(|i| options.remove(i).1);
    let (format, format_options) = match format_clause(parser)? {
        Some(format) => format,
        // As in PostgreSQL: its rows come from INSERT and COPY, which know nothing of formats.
        None if connector.is_none() && !declared.is_empty() => ("json".to_string(), Vec::new()),
        None => {
            let names = crate::format::FORMATS.iter().map(|f| f.name.to_uppercase()).collect::<Vec<_>>().join(", ");
            return Err(Error::new(Kind::Syntax, "CREATE TABLE needs a FORMAT")
                .with_detail(format!(
                    "The form is: {}. A table of fixed rows is made with CREATE TABLE … AS.",
                    SPEC.syntax
                ))
                .with_hint(format!("Formats: {names}.")));
        }
    };
    let definition =
        StreamDefinition { name, connector, options, format, format_options, declared, includes, computed, watermark };
    Ok(Some((definition, if_not_exists)))
}

/// `FORMAT name (option = value, …)`: the name and the options.
pub fn format_clause(parser: &mut Parser<'_>) -> Result<Option<(String, Vec<(String, String)>)>> {
    if !words(parser, &["FORMAT"]) {
        return Ok(None);
    }
    let mut format = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
    // RisingWave's spelling: FORMAT PLAIN ENCODE JSON.
    if format == "plain" && words(parser, &["ENCODE"]) {
        format = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
    }
    let options = if parser.peek_token_ref().token == Token::LParen { option_list(parser)? } else { Vec::new() };
    Ok(Some((format, options)))
}

/// What stands in the parentheses.
#[derive(Default)]
struct Columns {
    declared: Vec<Declared>,
    computed: Vec<ComputedDefinition>,
    watermark: Option<(String, Micros)>,
}

fn columns(parser: &mut Parser<'_>) -> Result<Columns> {
    let mut columns = Columns::default();
    parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
    loop {
        if parser.consume_token(&Token::Mul) {
            // '*': the format's own columns.
        } else if words(parser, &["WATERMARK", "FOR"]) {
            columns.watermark = Some(watermark_clause(parser)?);
        } else {
            let name = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
            let data_type = match computes(parser) {
                true => None,
                false => Some(arrow_type(&name, &parser.parse_data_type().map_err(|e| syntax(&e))?)?),
            };
            match (computed_clause(parser)?, data_type) {
                (Some(sql), data_type) => columns.computed.push(ComputedDefinition { name, data_type, sql }),
                (None, Some(data_type)) => columns.declared.push(Declared { name, data_type }),
                (None, None) => return Err(Error::internal("it said AS")),
            }
        }
        if parser.consume_token(&Token::Comma) {
            continue;
        }
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        return Ok(columns);
    }
}

/// Whether `AS (…)` or `GENERATED ALWAYS AS (…)` comes next.
fn computes(parser: &Parser<'_>) -> bool {
    let word = &parser.peek_token_ref().token;
    matches!(word, Token::Word(word) if word.keyword == Keyword::AS || word.keyword == Keyword::GENERATED)
}

/// `[GENERATED ALWAYS] AS (expression) [STORED]`: the expression.
fn computed_clause(parser: &mut Parser<'_>) -> Result<Option<String>> {
    if !computes(parser) {
        return Ok(None);
    }
    if words(parser, &["GENERATED"]) {
        parser.expect_keyword(Keyword::ALWAYS).map_err(|e| syntax(&e))?;
    }
    parser.expect_keyword(Keyword::AS).map_err(|e| syntax(&e))?;
    parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
    let expr = parser.parse_expr().map_err(|e| syntax(&e))?;
    parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
    words(parser, &["STORED"]);
    Ok(Some(expr.to_string()))
}

/// `ts AS ts - INTERVAL '5 seconds'`, or `ts AS ts`.
fn watermark_clause(parser: &mut Parser<'_>) -> Result<(String, Micros)> {
    let column = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
    parser.expect_keyword(Keyword::AS).map_err(|e| syntax(&e))?;
    let expr = parser.parse_expr().map_err(|e| syntax(&e))?;
    let form = || {
        Error::new(Kind::Syntax, format!("WATERMARK FOR {column} AS {expr} is not understood"))
            .with_hint(format!("Write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'."))
    };
    let is_column = |e: &Expr| matches!(e, Expr::Identifier(ident) if folded(ident) == column);
    match &expr {
        e if is_column(e) => Ok((column, 0)),
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => {
            let delay = interval_of(right)?.ok_or_else(form)?;
            Ok((column, delay))
        }
        _ => Err(form()),
    }
}

/// The Arrow type of a declared column.
fn arrow_type(column: &str, sql_type: &SqlType) -> Result<DataType> {
    Ok(match sql_type {
        SqlType::Text | SqlType::Varchar(_) | SqlType::String(_) | SqlType::CharacterVarying(_) | SqlType::Char(_) => {
            DataType::Utf8View
        }
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => DataType::Int32,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::BigInt(_) | SqlType::Int8(_) => DataType::Int64,
        SqlType::Real | SqlType::Float4 => DataType::Float32,
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 | SqlType::Float(_) => DataType::Float64,
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => timestamp_type(),
        SqlType::Timestamp(..) => {
            return Err(Error::new(Kind::NotSupported, format!("column \"{column}\": timestamps carry a zone here"))
                .with_hint(
                    "Declare it as timestamptz; the format's timezone option says in which zone it was written.",
                ));
        }
        other => {
            return Err(Error::new(
                Kind::NotSupported,
                format!("column \"{column}\": the type {other} is not supported"),
            )
            .with_hint("Types: text, smallint, int, bigint, real, double precision, boolean, timestamptz."));
        }
    })
}

impl Command for CreateStream {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateStream {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let name = &self.definition.name;
        if self.if_not_exists && session.existing(name).is_some() && !session.engine().is_restoring() {
            return Ok(Outcome::noticed("CREATE TABLE", format!("relation \"{name}\" already exists, skipping")));
        }
        session.engine().create_stream(&self.definition, &self.text).await?;
        Ok(Outcome::done("CREATE TABLE"))
    }
}
