//! `SHOW …`: what there is. Objects come from the system relations; formats, connectors, statements and functions from
//! their tables. Any other SHOW (a setting) is not ours.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::{Command, STATEMENTS, Spec, text_fields, text_rows};
use crate::error::Result;
use crate::format::FORMATS;
use crate::frame::FRAMINGS;
use crate::options::{OptionSpec, list};
use crate::source::SOURCES;
use crate::sql::function::{FUNCTIONS, scalars, windowed};
use crate::sql::parser::words;
use crate::sql::{Outcome, Planned, Session};

pub static SPEC: Spec = Spec {
    name: "SHOW",
    syntax: "SHOW STREAMS | VIEWS | SOURCES | SINKS | ALERTS | REPORTS | NOTIFIERS | WATERMARKS | ROLES | GRANTS | DATABASES | TABLES | FORMATS | FRAMINGS | CONNECTORS | STATEMENTS | FUNCTIONS",
    summary: "lists objects, or what the engine knows",
    parse,
};

/// What can be shown, as a query or as a table of the program.
enum Listing {
    Query(&'static str),
    Table(&'static [&'static str], fn() -> Vec<Vec<String>>),
}

static LISTINGS: &[(&str, Listing)] = &[
    ("STREAMS", Listing::Query("SELECT * FROM logweir.streams ORDER BY name")),
    ("VIEWS", Listing::Query("SELECT * FROM logweir.views ORDER BY name")),
    ("SINKS", Listing::Query("SELECT * FROM logweir.sinks ORDER BY name")),
    ("ALERTS", Listing::Query("SELECT * FROM logweir.alerts ORDER BY name, key")),
    ("REPORTS", Listing::Query("SELECT * FROM logweir.reports ORDER BY name")),
    ("NOTIFIERS", Listing::Query("SELECT * FROM logweir.notifiers ORDER BY name")),
    ("SOURCES", Listing::Query("SELECT * FROM logweir.sources ORDER BY stream, source, partition")),
    ("WATERMARKS", Listing::Query("SELECT * FROM logweir.watermarks ORDER BY stream, partition")),
    ("ROLES", Listing::Query("SELECT * FROM logweir.roles ORDER BY name")),
    ("DATABASES", Listing::Query("SELECT * FROM logweir.databases ORDER BY name")),
    ("GRANTS", Listing::Query("SELECT * FROM logweir.grants ORDER BY role, schema, relation, privilege")),
    (
        "TABLES",
        Listing::Query(
            "SELECT t.table_schema, t.table_name, t.table_type, coalesce(r.kind, 'system relation') AS kind
             FROM information_schema.tables AS t
             LEFT JOIN logweir.relations AS r ON r.name = t.table_name AND t.table_schema = 'public'
             WHERE t.table_schema IN ('public', 'logweir') ORDER BY 1, 2",
        ),
    ),
    ("FORMATS", Listing::Table(&["format", "summary", "options"], formats)),
    ("FRAMINGS", Listing::Table(&["framing", "summary"], framings)),
    ("CONNECTORS", Listing::Table(&["connector", "summary", "options"], connectors)),
    ("STATEMENTS", Listing::Table(&["statement", "summary", "syntax"], statements)),
    ("FUNCTIONS", Listing::Table(&["function", "kind", "syntax", "summary"], functions)),
];

fn option_words(options: &[OptionSpec]) -> String {
    list(options.iter().map(|o| o.name))
}

fn formats() -> Vec<Vec<String>> {
    FORMATS.iter().map(|f| vec![f.name.to_uppercase(), f.summary.into(), option_words(f.options)]).collect()
}

fn framings() -> Vec<Vec<String>> {
    FRAMINGS.iter().map(|f| vec![f.name.into(), f.summary.into()]).collect()
}

fn connectors() -> Vec<Vec<String>> {
    SOURCES.iter().map(|s| vec![s.name.into(), s.summary.into(), option_words(s.options)]).collect()
}

fn statements() -> Vec<Vec<String>> {
    STATEMENTS.iter().map(|s| vec![s.name.into(), s.summary.into(), s.syntax.into()]).collect()
}

fn functions() -> Vec<Vec<String>> {
    let in_from = FUNCTIONS.iter().map(|f| [f.name, "table", f.syntax, f.summary]);
    let scalar = scalars().map(|f| [f.name, "scalar", f.syntax, f.summary]);
    let windowed = windowed().map(|f| [f.name, "window", f.syntax, f.summary]);
    in_from.chain(scalar).chain(windowed).map(|row| row.map(str::to_string).to_vec()).collect()
}

struct Show {
    listing: &'static Listing,
    /// The query, planned.
    planned: Option<Planned>,
}

impl std::fmt::Debug for Show {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Show")
    }
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    let found = LISTINGS.iter().find(|(word, _)| words(parser, &["SHOW", word]));
    Ok(found.map(|(_, listing)| Arc::new(Show { listing, planned: None }) as _))
}

impl Command for Show {
    fn prepare<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Option<Arc<dyn Command>>>> {
        Box::pin(self.prepared(session))
    }

    fn fields(&self) -> Option<SchemaRef> {
        match self.listing {
            Listing::Table(columns, _) => Some(text_fields(columns)),
            Listing::Query(_) => self.planned.as_ref().and_then(Planned::fields),
        }
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Show {
    async fn prepared(&self, session: &Session) -> Result<Option<Arc<dyn Command>>> {
        let Listing::Query(sql) = self.listing else { return Ok(None) };
        let statement = session.parse(sql)?.remove(0);
        let planned = Some(session.plan(&statement).await?);
        Ok(Some(Arc::new(Show { listing: self.listing, planned })))
    }

    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        match (self.listing, &self.planned) {
            (Listing::Table(columns, rows), _) => text_rows(&text_fields(columns), &rows()),
            (Listing::Query(_), Some(planned)) => {
                session.execute(planned, datafusion::common::ParamValues::List(vec![])).await
            }
            (Listing::Query(_), None) => match self.prepare(session).await? {
                Some(ready) => ready.run(session).await,
                None => Ok(Outcome::Empty),
            },
        }
    }
}
