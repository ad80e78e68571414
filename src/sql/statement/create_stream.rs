//! `CREATE TABLE … WITH (connector = …) FORMAT …`: a stored stream and the source that feeds it. Without a connector it is
//! fed by CREATE SOURCE, INSERT and COPY, HTTP or IMPORT.
//!
//! What the statement leaves open is settled here and written into the text that the catalog keeps: FORMAT AUTO becomes the
//! format found in the source's first lines, a directory of grok patterns the definitions that are needed, and where a
//! format's records go over several lines, their framing. So a restart makes the same stream, whatever the files say by then.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use futures::future::BoxFuture;
use sqlparser::ast::{BinaryOperator, DataType as SqlType, Expr, Query, TimezoneInfo, Visit, Visitor};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::preview::{detected, first_lines};
use super::{Command, Spec};
use crate::batch::{Include, Metadata};
use crate::catalog::Origin;
use crate::engine::{ARCHIVE, ComputedDefinition, StreamDefinition};
use crate::error::{Error, Kind, Result};
use crate::format::grok::PATTERNS_DIR;
use crate::format::subtype::Subtype;
use crate::format::{Declared, Format, timestamp_type};
use crate::reach;
use crate::sql::parser::{folded, interval_of, last_token, option_list, relation_name, rest, syntax, words};
use crate::sql::{Outcome, Session, pattern_files, rewrite, types};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "CREATE TABLE … WITH",
    syntax: "CREATE TABLE [IF NOT EXISTS] name [( * | column type | column [type] AS (expression), … [, WATERMARK FOR column AS column - INTERVAL 'delay'] )] [INCLUDE metadata AS name …] [WITH ([connector = '…',] option = value, …)] FORMAT format | AUTO [(option = value, …)]",
    summary: "a stored stream: what its source reads is kept and can be queried and watched. A column AS (expression) is computed when a row is made. FORMAT AUTO looks at the source's first lines, once. Without a connector it is fed by CREATE SOURCE, INSERT, COPY, HTTP or IMPORT; then FORMAT JSON may be left out where columns are declared",
    parse,
};

/// The format that is to be found.
pub const AUTO: &str = "auto";

/// Lines looked at to find the format.
const SAMPLE: usize = 1000;

#[derive(Debug, Clone)]
struct CreateStream {
    definition: StreamDefinition,
    if_not_exists: bool,
    text: String,
    places: Places,
}

/// Where in the text of a statement its options end, and where its FORMAT clause begins, which is its last.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    options_end: usize,
    format: usize,
}

/// A statement that was read: what it says, whether IF NOT EXISTS, and where it says what.
pub struct Definition {
    pub stream: StreamDefinition,
    pub if_not_exists: bool,
    pub places: Places,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    let Some(Definition { stream, if_not_exists, places }) = parse_definition(parser, text)? else {
        return Ok(None);
    };
    let text = text.to_string();
    Ok(Some(Arc::new(CreateStream { definition: stream, if_not_exists, text, places })))
}

/// Reads the statement, of which `text` is all.
pub fn parse_definition(parser: &mut Parser<'_>, text: &str) -> Result<Option<Definition>> {
    if !words(parser, &["CREATE", "TABLE"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    let has_columns = parser.peek_token_ref().token == Token::LParen;
    let Columns { declared, subtypes, computed, watermark } =
        if has_columns { columns(parser)? } else { Columns::default() };
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
    let options_end = last_token(parser, text);
    let at = options.iter().position(|(name, _)| name == "connector");
    let connector = at.map(|i| options.remove(i).1);
    let places = Places { options_end, format: text.len() - rest(parser, text).len() };
    let (format, format_options) = match format_clause(parser)? {
        Some((format, _)) if format == AUTO && connector.is_none() => {
            return Err(Error::new(
                Kind::InvalidParameter,
                "FORMAT AUTO looks at the first lines of a source, and there is none",
            )
            .with_hint("Write WITH (connector = 'file', path = '…'), or name the format."));
        }
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
    let stream = StreamDefinition {
        name,
        connector,
        options,
        format,
        format_options,
        declared,
        subtypes,
        includes,
        computed,
        watermark,
    };
    Ok(Some(Definition { stream, if_not_exists, places }))
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
    subtypes: Vec<(String, Subtype)>,
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
            column(parser, &mut columns)?;
        }
        if parser.consume_token(&Token::Comma) {
            continue;
        }
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        return Ok(columns);
    }
}

/// `name type`, `name [type] AS (expression)`.
fn column(parser: &mut Parser<'_>, columns: &mut Columns) -> Result<()> {
    let name = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
    if let Some(sql) = computed_clause(parser, &name)? {
        columns.computed.push(ComputedDefinition { name, data_type: None, sql });
        return Ok(());
    }
    let sql_type = parser.parse_data_type().map_err(|e| syntax(&e))?;
    let subtype = types::subtype_of(&sql_type);
    let data_type = match subtype {
        Some(_) => DataType::Utf8View,
        None => arrow_type(&name, &sql_type)?,
    };
    match (computed_clause(parser, &name)?, subtype) {
        (Some(sql), None) => columns.computed.push(ComputedDefinition { name, data_type: Some(data_type), sql }),
        // The function that reads the type says that its result is of it.
        (Some(sql), Some(subtype)) => {
            let sql = format!("{}({sql})", types::reader(subtype));
            columns.computed.push(ComputedDefinition { name, data_type: None, sql });
        }
        (None, subtype) => {
            columns.subtypes.extend(subtype.map(|subtype| (name.clone(), subtype)));
            columns.declared.push(Declared { name, data_type });
        }
    }
    Ok(())
}

/// `AS (expression)`, or as PostgreSQL spells it `GENERATED ALWAYS AS (expression) STORED`: the expression, if one follows.
fn computed_clause(parser: &mut Parser<'_>, column: &str) -> Result<Option<String>> {
    let generated_form = || {
        Error::new(Kind::Syntax, format!("column \"{column}\": a generated column is one that is computed"))
            .with_hint("Write GENERATED ALWAYS AS (expression) STORED. INCLUDE offset AS … numbers rows.")
    };
    let generated = words(parser, &["GENERATED", "ALWAYS"]);
    if !words(parser, &["AS"]) {
        return if generated { Err(generated_form()) } else { Ok(None) };
    }
    if generated && words(parser, &["IDENTITY"]) {
        return Err(generated_form());
    }
    if !parser.consume_token(&Token::LParen) {
        let found = parser.peek_token_ref().to_string();
        return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
            .with_hint(format!("The expression of a computed column stands in parentheses: {column} AS (…).")));
    }
    let mut expr = parser.parse_expr().map_err(|e| syntax(&e))?;
    parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
    if generated && !words(parser, &["STORED"]) {
        return Err(generated_form());
    }
    if expr.visit(&mut Queries).is_break() {
        let message = format!("column \"{column}\": a subquery is not allowed in computed columns");
        return Err(Error::new(Kind::NotSupported, message)
            .with_hint("A computed column is made of its own row. Join with tables in a view, or in a query."));
    }
    rewrite::expression(&mut expr)?;
    Ok(Some(expr.to_string()))
}

/// Stops at a query.
struct Queries;

impl Visitor for Queries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
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
            .with_hint(
                "Types: text, smallint, int, bigint, real, double precision, boolean, timestamptz, json, jsonb, uuid, \
                 inet, cidr.",
            ));
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
        self.check_reach(session)?;
        let this = self.clone();
        // A statement of the catalog leaves nothing open.
        let (settled, notices) = if session.engine().is_restoring() {
            (this, Vec::new())
        } else {
            let bounds = reach::bounds();
            let settling = tokio::task::spawn_blocking(move || reach::with(bounds, || this.settled()));
            settling.await.map_err(|e| Error::internal(format!("reading the source failed: {e}")))??
        };
        let actor = session.actor();
        let by = Origin { sql: &settled.text, actor: &actor };
        let made = session.engine().create_stream(&settled.definition, by).await;
        made.map_err(|err| session.better(err))?;
        Ok(Outcome::Done { tag: "CREATE TABLE".into(), rows: None, notices })
    }
}

impl CreateStream {
    /// A stream without a connector is for everybody who may create objects; what reads or writes elsewhere is not.
    fn check_reach(&self, session: &Session) -> Result<()> {
        let StreamDefinition { connector, options, format_options, .. } = &self.definition;
        let named = |options: &[(String, String)], name: &str| {
            options.iter().any(|(given, value)| given.eq_ignore_ascii_case(name) && !value.eq_ignore_ascii_case("off"))
        };
        if connector.is_some() {
            session.must_reach("create a table with a connector")?;
        }
        if named(options, ARCHIVE) {
            session.must_reach("say where the archive is")?;
        }
        if named(format_options, PATTERNS_DIR) {
            session.must_reach("read files of patterns")?;
        }
        session.check_options(options)
    }

    /// The statement with nothing left open, and what there is to say about that.
    fn settled(mut self) -> Result<(CreateStream, Vec<String>)> {
        let (mut notices, definition) = (Vec::new(), &mut self.definition);
        let before = (definition.format.clone(), definition.format_options.clone());
        if let (AUTO, Some(connector)) = (definition.format.as_str(), &definition.connector) {
            let lines = first_lines(connector, &definition.options, &definition.includes, SAMPLE)?;
            definition.format = detected(&lines, &mut notices)?;
        }
        let options = std::mem::take(&mut definition.format_options);
        definition.format_options = pattern_files::inlined(&definition.format, options)?;
        if (&definition.format, &definition.format_options) != (&before.0, &before.1) {
            self.text.truncate(self.places.format);
            self.text += &format_text(&definition.format, &definition.format_options);
        }
        let format = definition.format()?;
        let framing = match &definition.connector {
            Some(connector) => record_framing(connector, &definition.options, &*format)?,
            None => None,
        };
        if let Some((name, start)) = framing {
            notices.push(format!("records of format {} go over several lines: {name} = '{start}'", definition.format));
            let option = format!(", {name} = '{}'", start.replace('\'', "''"));
            self.text.insert_str(self.places.options_end, &option);
            definition.options.push((name.to_string(), start));
        }
        Ok((self, notices))
    }
}

/// The option by which a source joins lines to the records of a format, where they go over several lines and the user has
/// not said how to frame them.
pub fn record_framing(
    connector: &str,
    given: &[(String, String)],
    format: &dyn Format,
) -> Result<Option<(&'static str, String)>> {
    const START: &str = "multiline_start";
    let spec = crate::source::find(connector)?;
    let is_known = spec.options.iter().any(|option| option.name == START);
    let is_framed = given.iter().any(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name == "framing" || name.starts_with("multiline_")
    });
    let start = if is_known && !is_framed { format.record_start() } else { None };
    Ok(start.map(|start| (START, start)))
}

/// A FORMAT clause.
fn format_text(format: &str, options: &[(String, String)]) -> String {
    let option = |(name, value): &(String, String)| format!("\"{name}\" = '{}'", value.replace('\'', "''"));
    match options {
        [] => format!("FORMAT {}", format.to_uppercase()),
        _ => {
            let options = options.iter().map(option).collect::<Vec<_>>().join(", ");
            format!("FORMAT {} ({options})", format.to_uppercase())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Definition> {
        Ok(parse_definition(&mut crate::sql::parser::parser(text)?, text)?.unwrap())
    }

    fn settled(text: &str) -> Result<(String, String, Vec<String>)> {
        let Definition { stream, if_not_exists, places } = read(text)?;
        let create = CreateStream { definition: stream, if_not_exists, text: text.to_string(), places };
        let (CreateStream { definition, text, .. }, notices) = create.settled()?;
        // What the catalog keeps says the same.
        let again = read(&text)?;
        assert_eq!(
            (&again.stream.format, &again.stream.format_options),
            (&definition.format, &definition.format_options)
        );
        assert_eq!(again.stream.options, definition.options);
        Ok((definition.format, text, notices))
    }

    #[test]
    fn what_is_left_to_the_moment_is_written_into_the_text() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        std::fs::write(&log, "Jan  1 00:00:01 web1 su[230]: root failed\n").unwrap();
        std::fs::write(dir.path().join("mine"), "IT it's\nOTHER x\n").unwrap();
        let create = format!("CREATE TABLE t WITH (connector = 'file', path = '{}')\n", log.display());

        let (format, text, notices) = settled(&format!("{create} FORMAT auto")).unwrap();
        assert_eq!((format.as_str(), text), ("syslog", format!("{create} FORMAT SYSLOG")));
        assert!(notices[0].starts_with("detected format syslog; lines read: "), "{notices:?}");
        assert!(notices[0].contains(", combined 0 of 1, "), "{notices:?}");
        let (_, text, _) = settled(&format!("{create}FORMAT PLAIN ENCODE AUTO (timezone = '+01:00') -- so")).unwrap();
        assert_eq!(text, format!("{create}FORMAT SYSLOG (\"timezone\" = '+01:00')"));

        let mine = dir.path().join("mine");
        let grok = format!("{create}FORMAT GROK (patterns_dir = '{}', pattern = '%{{IT:it}}')", mine.display());
        let expected = r#"FORMAT GROK ("pattern" = '%{IT:it}', "patterns" = 'IT it''s')"#;
        assert_eq!(settled(&grok).unwrap().1, format!("{create}{expected}"));

        let (_, text, notices) = settled(&format!("{create}FORMAT DB2DIAG")).unwrap();
        let start = r"multiline_start = '^\d{4}-\d\d-\d\d-\d\d\.\d\d\.\d\d\.\d{6}[+-]\d'";
        assert_eq!(text, format!("{}, {start})\nFORMAT DB2DIAG", create.trim_end().trim_end_matches(')')));
        assert_eq!(notices, [format!("records of format db2diag go over several lines: {start}")]);
        let lines = create.replace("')", "', framing = 'newline')") + "FORMAT DB2DIAG";
        assert_eq!(settled(&lines).unwrap().1, lines);

        let plain = format!("{create} FORMAT  Json (time_field = 't') /* as it is */");
        assert_eq!(settled(&plain).unwrap().1, plain);
    }
}
