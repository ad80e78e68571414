//! `EXPLAIN` of a view: what is maintained (its rollups) and what is computed when it is read (the finish plan). EXPLAIN
//! of a query is in [`query`].

mod query;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use self::query::Options;

use super::create_view::{CreateView, parse_view};
use super::{Command, Spec, text_fields, text_rows};
use crate::catalog::quoted;
use crate::engine::View;
use crate::error::{Error, Kind, Result};
use crate::rollup::Rollup;
use crate::rollup::calendar::{Calendar, Step};
use crate::rollup::interval::Partner;
use crate::rollup::plan::{Pane, Slot};
use crate::rollup::reference::Reference;
use crate::rollup::window::Window;
use crate::sql::parser::{relation_name, rest, words};
use crate::sql::{Outcome, Session};
use crate::time::{Micros, format_duration};

pub static SPEC: Spec = Spec {
    name: "EXPLAIN",
    syntax: "EXPLAIN [ANALYZE | (option [value], …)] query | EXPLAIN [ANALYZE] [MATERIALIZED] VIEW name | EXPLAIN CREATE MATERIALIZED VIEW name AS query",
    summary: "the plan of a query, with FORMAT JSON as a tree; of a view: what is maintained and what is computed when it is read, with ANALYZE also what that has cost",
    parse,
};

#[derive(Debug)]
enum Explain {
    View { name: String, analyze: bool },
    Create(CreateView),
    Query { text: String, options: Options },
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["EXPLAIN"]) {
        return Ok(None);
    }
    let options = Options::parse(parser)?;
    let explained = if words(parser, &["MATERIALIZED", "VIEW"]) || words(parser, &["VIEW"]) {
        Some(Explain::View { name: relation_name(parser)?, analyze: options.analyze })
    } else {
        parse_view(parser, text)?.map(Explain::Create)
    };
    match explained {
        Some(_) if options.json => {
            return Err(Error::new(Kind::NotSupported, "EXPLAIN of a view has no format JSON")
                .with_hint("EXPLAIN (FORMAT JSON) SELECT … shows how a query of the view is computed."));
        }
        Some(explained) => return Ok(Some(Arc::new(explained))),
        None => {}
    }
    let text = rest(parser, text).to_string();
    while parser.next_token().token != sqlparser::tokenizer::Token::EOF {}
    Ok(Some(Arc::new(Explain::Query { text, options })))
}

const COLUMN: &str = "QUERY PLAN";

impl Command for Explain {
    fn fields(&self) -> Option<SchemaRef> {
        Some(match self {
            Explain::Query { options, .. } => options.fields(),
            Explain::View { .. } | Explain::Create(_) => text_fields(&[COLUMN]),
        })
    }

    fn target(&self) -> Option<String> {
        match self {
            Explain::View { name, .. } => Some(quoted(name)),
            Explain::Create(_) | Explain::Query { .. } => None,
        }
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Explain {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let engine = session.engine();
        let text = match self {
            Explain::View { name, analyze } => match engine.view(name) {
                Some(view) => describe(&view, *analyze),
                None => return Err(engine.no_relation(name).with_hint("SHOW VIEWS lists the materialized views.")),
            },
            Explain::Create(create) => {
                let plan = create.plan(session).await?;
                describe(&engine.plan_view(&create.name, "", &plan, create.options.clone())?, false)
            }
            Explain::Query { text, options } => return query::explain(session, text, *options).await,
        };
        let rows: Vec<Vec<String>> = text.lines().map(|line| vec![line.to_string()]).collect();
        text_rows(&text_fields(&[COLUMN]), &rows)
    }
}

fn describe(view: &View, analyze: bool) -> String {
    let mut out = String::new();
    if let Some(stream) = &view.derived {
        out += &format!("A derived stream: nothing is kept, its rows are those of stream \"{stream}\".\n");
    }
    out += "Computed when read (finish plan):\n";
    for line in view.finish.display_indent().to_string().lines() {
        out += &format!("  {line}\n");
    }
    for (i, slot) in view.slots.iter().enumerate() {
        out += &format!("Maintained as rows arrive (rollup {} over {}{}):\n", i + 1, streams(slot), window(slot));
        for line in slot.definition.aggregate.display_indent().to_string().lines() {
            out += &format!("  {line}\n");
        }
        if let Some(rollup) = slot.rollup.get() {
            out += &format!("  state: {} partial rows, {} bytes", rollup.rows(), rollup.bytes());
            if rollup.disk_bytes() > 0 {
                out += &format!(" in memory, {} bytes on disk", rollup.disk_bytes());
            }
            out += "\n";
            for table in rollup.references() {
                out += &joined(table, &slot.definition.stream);
            }
            if analyze {
                out += &cost(rollup);
            }
        }
    }
    out
}

fn streams(slot: &Slot) -> String {
    let words = |micros: Micros| {
        let length = format_duration(std::time::Duration::from_micros(micros.unsigned_abs()));
        match micros {
            ..0 => format!("-{length}"),
            0 => "0 seconds".to_string(),
            1.. => length,
        }
    };
    let stream = &slot.definition.stream;
    match &slot.definition.partner {
        None => format!("stream \"{stream}\""),
        Some(Partner { stream: other, later: (low, high) }) => format!(
            "streams \"{stream}\" and \"{other}\", whose rows match when they are {} to {} later",
            words(*low),
            words(*high)
        ),
    }
}

/// Which rows of the stream join which version of a table.
fn joined(table: &Reference, stream: &str) -> String {
    let versions = table.versions().into_iter().map(|v| match v.from.get(stream) {
        Some(offset) => format!("version {} from offset {offset}", v.number),
        None => format!("version {}", v.number),
    });
    format!("  joined with \"{}\": {}\n", table.name, versions.collect::<Vec<_>>().join(", "))
}

/// What maintaining it has taken since the server started.
fn cost(rollup: &Rollup) -> String {
    let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let (folding, merging) = rollup.work.times();
    let (rows, batches) = (count(&rollup.work.rows), count(&rollup.work.batches));
    let ms = |took: std::time::Duration| took.as_secs_f64() * 1000.0;
    format!(
        "  folded: {rows} rows in {batches} batches, {:.1} ms; merged: {:.1} ms; runs: {}\n",
        ms(folding),
        ms(merging),
        rollup.runs()
    )
}

fn window(slot: &Slot) -> String {
    let words = |micros: Micros| format_duration(std::time::Duration::from_micros(micros.unsigned_abs()));
    let Some(Pane { window, .. }) = slot.definition.pane else { return String::new() };
    match window {
        Window::Tumble { size, .. } => format!(", windows of {}", words(size)),
        Window::Hop { slide, size, .. } => format!(
            ", windows of {} every {}, folded into panes of {}",
            words(size),
            words(slide),
            words(window.pane().unwrap_or(size))
        ),
        Window::Cumulate { step, size, .. } => {
            format!(", windows of up to {} that grow by {}, folded into panes of that", words(size), words(step))
        }
        Window::Calendar(Calendar { step, zone }) => {
            let (count, unit) = match step {
                Step::Time(micros) => return format!(", windows of {} as clocks in {zone} have them", words(micros)),
                Step::Days(n) => (n, "day"),
                Step::Months(n) => (n, "month"),
            };
            let plural = if count == 1 { "" } else { "s" };
            format!(", windows of {count} {unit}{plural} of the calendar in {zone}")
        }
        Window::Session { gap, max_span } => {
            let limit = max_span.map_or(String::new(), |span| format!(" and cut every {}", words(span)));
            format!(", sessions that end after {} without a row{limit}", words(gap))
        }
    }
}
