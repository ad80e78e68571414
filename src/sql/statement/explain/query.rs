//! `EXPLAIN` of a query: its plan as of now, as lines of text or, with `FORMAT JSON`, as the tree that tools draw (PostgreSQL
//! manual, EXPLAIN).

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringViewArray};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use futures::StreamExt;
use serde_json::{Value, json};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::super::{one_batch, text_fields, text_rows};
use super::{COLUMN, SPEC};
use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;
use crate::sql::function::session::bind;
use crate::sql::parser::{Statement, syntax, words};
use crate::sql::{Outcome, Planned, Session};

/// How a plan is to be shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The query runs, and the plan says what that took.
    pub analyze: bool,
    pub json: bool,
}

impl Options {
    /// What stands between EXPLAIN and the statement: options in parentheses, or the words ANALYZE and VERBOSE.
    pub fn parse(parser: &mut Parser<'_>) -> Result<Options> {
        let mut options = Options::default();
        if !are_ahead(parser) {
            options.analyze = words(parser, &["ANALYZE"]);
            let _ = words(parser, &["VERBOSE"]);
            return Ok(options);
        }
        parser.next_token();
        // Those that PostgreSQL takes together with ANALYZE alone.
        let mut measures = None;
        loop {
            let name = parser.parse_identifier().map_err(|err| syntax(&err))?.value.to_ascii_lowercase();
            let value = value(parser)?;
            let is_on = || is_on(&name, value.as_deref());
            match name.as_str() {
                "analyze" => options.analyze = is_on()?,
                "format" => options.json = is_json(value.as_deref().unwrap_or_default())?,
                "timing" | "wal" if is_on()? => measures = Some(name.to_ascii_uppercase()),
                // Nothing is estimated or counted that these would add or take away.
                "timing" | "wal" | "verbose" | "costs" | "settings" | "buffers" | "summary" => drop(is_on()?),
                _ => return Err(Error::new(Kind::Syntax, format!("unrecognized EXPLAIN option \"{name}\""))),
            }
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen).map_err(|err| syntax(&err))?;
        match measures {
            Some(name) if !options.analyze => {
                Err(Error::new(Kind::InvalidParameter, format!("EXPLAIN option {name} requires ANALYZE")))
            }
            _ => Ok(options),
        }
    }

    /// The column of the result.
    pub fn fields(self) -> SchemaRef {
        match self.json {
            true => Arc::new(Schema::new(vec![Subtype::Json.field(COLUMN)])),
            false => text_fields(&[COLUMN]),
        }
    }
}

/// Whether options in parentheses come next, and no query in them.
fn are_ahead(parser: &Parser<'_>) -> bool {
    const QUERIES: [&str; 4] = ["SELECT", "WITH", "VALUES", "TABLE"];
    parser.peek_nth_token_ref(0).token == Token::LParen
        && match &parser.peek_nth_token_ref(1).token {
            Token::Word(word) => !QUERIES.iter().any(|query| word.value.eq_ignore_ascii_case(query)),
            _ => false,
        }
}

/// The value of an option, if it has one.
fn value(parser: &mut Parser<'_>) -> Result<Option<String>> {
    if matches!(parser.peek_token_ref().token, Token::Comma | Token::RParen) {
        return Ok(None);
    }
    match parser.next_token().token {
        Token::Word(word) => Ok(Some(word.value)),
        Token::Number(text, _) | Token::SingleQuotedString(text) => Ok(Some(text)),
        other => Err(Error::new(Kind::Syntax, format!("syntax error: {other} is no value of an option of EXPLAIN"))),
    }
}

fn is_on(name: &str, value: Option<&str>) -> Result<bool> {
    match value.unwrap_or("on").to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(Error::new(Kind::Syntax, format!("{name} requires a Boolean value"))),
    }
}

fn is_json(format: &str) -> Result<bool> {
    match format.to_ascii_lowercase().as_str() {
        "text" => Ok(false),
        "json" => Ok(true),
        known @ ("xml" | "yaml") => {
            Err(Error::new(Kind::NotSupported, format!("EXPLAIN has no format {}", known.to_uppercase()))
                .with_hint("Its formats are TEXT and JSON."))
        }
        _ => {
            let message = format!("unrecognized value for EXPLAIN option \"format\": \"{format}\"");
            Err(Error::new(Kind::InvalidParameter, message).with_hint("Its formats are TEXT and JSON."))
        }
    }
}

/// Explains the query `text`; with ANALYZE it runs, and its rows are dropped.
pub async fn explain(session: &Session, text: &str, options: Options) -> Result<Outcome> {
    let mut statements = session.parse(text)?;
    let [statement @ Statement::Sql(_)] = statements.as_mut_slice() else {
        return Err(
            Error::new(Kind::Syntax, "EXPLAIN takes one query").with_hint(format!("The form is: {}", SPEC.syntax))
        );
    };
    let planned = session.plan(statement).await?;
    let started = std::time::Instant::now();
    let Planned::Query { plan, .. } = &planned else {
        let rows = if options.analyze { Some(run(session, &planned).await?) } else { None };
        return catalog(options, rows.map(|rows| (rows, started.elapsed())));
    };
    let plan = LogicalPlan::clone(plan).with_param_values(ParamValues::List(vec![]))?;
    let plan = bind(plan, session)?;
    let state = session.context().state();
    let physical = state.create_physical_plan(&session.engine().pin(plan)?).await?;
    let mut ran = None;
    if options.analyze {
        let started = std::time::Instant::now();
        // Within the limits of a query: it is one.
        let backend = session.backend.clone();
        let rows = session.engine().run_physical(Arc::clone(&physical), &state, backend, false)?;
        ran = Some((count(rows).await?, started.elapsed()));
    }
    if options.json {
        return tree(node(physical.as_ref(), options.analyze), ran.map(|(_, took)| took));
    }
    match ran {
        None => lines(&displayable(physical.as_ref()).indent(false).to_string()),
        Some((rows, took)) => {
            let plan = DisplayableExecutionPlan::with_metrics(physical.as_ref());
            lines(&format!("{}\n{rows} rows in {:.1} ms", plan.indent(false), milliseconds(took)))
        }
    }
}

/// Rows of a query.
async fn count(mut rows: datafusion::execution::SendableRecordBatchStream) -> Result<usize> {
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch?.num_rows();
    }
    Ok(count)
}

async fn run(session: &Session, planned: &Planned) -> Result<usize> {
    match session.execute(planned, ParamValues::List(vec![])).await? {
        Outcome::Rows(rows) => count(rows).await,
        _ => Err(Error::internal("a query gives rows")),
    }
}

/// A query of the catalog, which is walked through in memory and has no plan to show; and what running it gave and took.
fn catalog(options: Options, ran: Option<(usize, Duration)>) -> Result<Outcome> {
    const NAME: &str = "Catalog Scan";
    if options.json {
        let mut node = json!({ "Node Type": NAME });
        if let Some((rows, took)) = ran {
            measured(&mut node, rows, milliseconds(took));
        }
        return tree(node, ran.map(|(_, took)| took));
    }
    match ran {
        None => lines(NAME),
        Some((rows, took)) => lines(&format!("{NAME}\n{rows} rows in {:.1} ms", milliseconds(took))),
    }
}

fn lines(text: &str) -> Result<Outcome> {
    let rows: Vec<Vec<String>> = text.lines().map(|line| vec![line.to_string()]).collect();
    text_rows(&text_fields(&[COLUMN]), &rows)
}

/// PostgreSQL's JSON around the first node of a plan.
fn tree(plan: Value, took: Option<Duration>) -> Result<Outcome> {
    let mut query = json!({ "Plan": plan });
    if let Some(took) = took {
        query["Execution Time"] = rounded(milliseconds(took));
    }
    let text = format!("{:#}", json!([query]));
    let fields = Options { json: true, ..Options::default() }.fields();
    let batch = RecordBatch::try_new(fields, vec![Arc::new(StringViewArray::from(vec![text]))])?;
    Ok(Outcome::Rows(one_batch(batch)))
}

/// A node of the plan with those below it: the names of PostgreSQL where it has one, and what our text says of it. Times
/// are those of all threads together, with those of the nodes below, as PostgreSQL's are.
fn node(plan: &dyn ExecutionPlan, measure: bool) -> Value {
    let shown = displayable(plan).one_line().to_string();
    let (name, details) = shown.trim().split_once(": ").unwrap_or((shown.trim(), ""));
    let mut node = json!({ "Node Type": node_type(name) });
    if !details.is_empty() {
        node["Details"] = details.into();
    }
    if measure {
        let rows = plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0);
        measured(&mut node, rows, milliseconds(computing(plan)));
    }
    let below: Vec<Value> = plan.children().iter().map(|child| self::node(child.as_ref(), measure)).collect();
    if !below.is_empty() {
        node["Plans"] = below.into();
    }
    node
}

fn measured(node: &mut Value, rows: usize, took: f64) {
    node["Actual Rows"] = rows.into();
    node["Actual Loops"] = 1.into();
    node["Actual Total Time"] = rounded(took);
}

/// The time that a node and those below it computed.
fn computing(plan: &dyn ExecutionPlan) -> Duration {
    let own = plan.metrics().and_then(|metrics| metrics.elapsed_compute()).unwrap_or(0);
    let below: Duration = plan.children().iter().map(|child| computing(child.as_ref())).sum();
    Duration::from_nanos(own as u64) + below
}

/// `HashJoinExec` → `Hash Join`; what PostgreSQL has under another name has that, as tools have pictures of those.
fn node_type(name: &str) -> String {
    let name = name.split_whitespace().next().unwrap_or_default().trim_end_matches("Exec");
    match name {
        "NestedLoopJoin" | "CrossJoin" => return "Nested Loop".into(),
        "SortMergeJoin" => return "Merge Join".into(),
        "GlobalLimit" | "LocalLimit" => return "Limit".into(),
        "Union" | "Interleave" => return "Append".into(),
        "WindowAgg" | "BoundedWindowAgg" => return "WindowAgg".into(),
        "DataSource" => return "Seq Scan".into(),
        "PlaceholderRow" | "Empty" | "Projection" => return "Result".into(),
        "SortPreservingMerge" => return "Gather Merge".into(),
        "CoalescePartitions" => return "Gather".into(),
        _ => {}
    }
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c);
    }
    words
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// Microseconds are kept.
fn rounded(milliseconds: f64) -> Value {
    ((milliseconds * 1000.0).round() / 1000.0).into()
}
