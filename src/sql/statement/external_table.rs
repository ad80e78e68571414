//! `CREATE EXTERNAL TABLE … STORED AS PARQUET LOCATION …`: files that others wrote, readable and joinable.
//!
//! Parquet and Delta are read by [`storage::external`](crate::storage::external), CSV and JSON by DataFusion. All look at
//! what is there when a query begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{CreateExternalTable, DdlStatement, LogicalPlan};
use datafusion::sql::parser::DFParserBuilder;
use futures::future::BoxFuture;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::catalog::{ObjectKind, Origin};
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{folded, parser as parser_of, syntax, words};
use crate::sql::{Outcome, Session};
use crate::storage::external::{Declared, Delta, Missing, Parquet, Place};

pub static SPEC: Spec = Spec {
    name: "CREATE EXTERNAL TABLE",
    syntax: "CREATE EXTERNAL TABLE [IF NOT EXISTS] name [(column type, …)] STORED AS PARQUET | DELTA | CSV | JSON [PARTITIONED BY (column [type], …)] LOCATION 'path, pattern or s3://bucket/prefix' [OPTIONS (…)]",
    summary: "files written by others: queried where they are, with those that come later; directories year=2026/month=11 become columns. A view that joins one with a stream below its aggregate loads it as a reference table",
    parse,
};

/// What may stand behind STORED AS.
const TYPES: [&str; 4] = ["PARQUET", "DELTA", "CSV", "JSON"];

#[derive(Debug)]
struct Create {
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "EXTERNAL", "TABLE"]) {
        return Ok(None);
    }
    // DataFusion's own parser reads the whole text.
    while parser.next_token().token != sqlparser::tokenizer::Token::EOF {}
    Ok(Some(Arc::new(Create { text: text.to_string() })))
}

impl Command for Create {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Create {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let dialect = PostgreSqlDialect {};
        let mut statements =
            DFParserBuilder::new(self.text.as_str()).with_dialect(&dialect).build()?.parse_statements()?;
        let statement = statements.pop_front().ok_or_else(|| Error::internal("no statement in the text"))?;
        let state = session.context().state();
        let plan = state.statement_to_plan(statement).await?;
        let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) = plan else {
            return Err(Error::new(Kind::Syntax, "not a CREATE EXTERNAL TABLE").with_hint(SPEC.syntax));
        };
        let name = folded(&sqlparser::ast::Ident::with_quote('"', command.name.table()));
        let engine = session.engine();
        if command.if_not_exists && session.existing(&name).is_some() && !engine.is_restoring() {
            let notice = format!("relation \"{name}\" already exists, skipping");
            return Ok(Outcome::noticed("CREATE EXTERNAL TABLE", notice));
        }
        let declared = declared(&command)?;
        let provider = match open(&command, &declared, &state).await {
            Ok(provider) => provider,
            Err(err) if engine.is_restoring() => {
                tracing::warn!(table = %name, error = %err, "an external table cannot be read");
                Arc::new(Missing::new(&declared, err))
            }
            Err(err) => return Err(err),
        };
        let actor = session.actor();
        let by = Origin { sql: &self.text, actor: &actor };
        engine.create_table(ObjectKind::ExternalTable, &name, by, provider, BTreeSet::new()).await?;
        Ok(Outcome::done("CREATE EXTERNAL TABLE"))
    }
}

async fn open(
    command: &CreateExternalTable,
    declared: &Declared,
    state: &SessionState,
) -> Result<Arc<dyn TableProvider>> {
    let file_type = command.file_type.to_uppercase();
    if !TYPES.contains(&file_type.as_str()) {
        return Err(crate::options::unknown("file type", &command.file_type, TYPES)
            .with_detail(format!("STORED AS takes: {}.", crate::options::list(TYPES))));
    }
    // Opened even where DataFusion does it again: from then on it knows the bucket.
    let places = command.locations.iter().map(|location| Place::open(location, state.runtime_env()));
    let mut places = places.collect::<Result<Vec<_>>>()?;
    let single = places.len() == 1 && command.order_exprs.is_empty();
    match (file_type.as_str(), places.pop()) {
        ("PARQUET", Some(place)) if single => {
            Ok(Arc::new(Parquet::open(place, declared, &command.options, state).await?))
        }
        ("DELTA", Some(place)) if single => {
            if !declared.columns.is_empty() || !declared.partitioned_by.is_empty() {
                return Err(Error::new(Kind::Syntax, "a Delta table says itself what its columns and partitions are")
                    .with_hint("Leave the columns and PARTITIONED BY away."));
            }
            if let Some(option) = command.options.keys().next() {
                return Err(Error::new(Kind::InvalidParameter, format!("a Delta table has no option \"{option}\"")));
            }
            Ok(Arc::new(Delta::open(place).await?))
        }
        ("DELTA", _) => {
            Err(Error::new(Kind::Syntax, "a Delta table has one location and no order").with_hint(SPEC.syntax))
        }
        _ => {
            for location in &command.locations {
                check_exists(location)?;
            }
            let factory = state.table_factories().get(&file_type).cloned();
            let factory = factory.ok_or_else(|| Error::internal(format!("nothing reads {file_type}")))?;
            Ok(factory.create(state, command).await?)
        }
    }
}

/// What the statement says about the columns.
fn declared(command: &CreateExternalTable) -> Result<Declared> {
    let columns = command.schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    // DataFusion's parser gives these as they are written, with quotes and capitals.
    let name = |text: &String| Ok(folded(&parser_of(text)?.parse_identifier().map_err(|e| syntax(&e))?));
    let partitioned_by = command.table_partition_cols.iter().map(name).collect::<Result<_>>()?;
    Ok(Declared { columns, partitioned_by })
}

/// A location with nothing there is a mistake: DataFusion would make an empty table without columns of it.
fn check_exists(location: &str) -> Result<()> {
    let url = ListingTableUrl::parse(location)?;
    if url.scheme() == "file" && !location.contains(['*', '?', '[']) {
        let path = std::path::Path::new(location.strip_prefix("file://").unwrap_or(location));
        std::fs::metadata(path).map_err(|e| Error::io("read", path, &e))?;
    }
    Ok(())
}
