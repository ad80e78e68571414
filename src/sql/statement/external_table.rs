//! `CREATE EXTERNAL TABLE … STORED AS PARQUET LOCATION …`: files that others wrote, readable and joinable.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::DFParserBuilder;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::catalog::ObjectKind;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{folded, words};
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "CREATE EXTERNAL TABLE",
    syntax: "CREATE EXTERNAL TABLE [IF NOT EXISTS] name [(column type, …)] STORED AS PARQUET | CSV | JSON [PARTITIONED BY (…)] LOCATION 'path' [OPTIONS (…)]",
    summary: "files written by others: queried where they are; a view that joins one with a stream below its aggregate loads it as a reference table",
    parse,
};

#[derive(Debug)]
struct CreateExternalTable {
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "EXTERNAL", "TABLE"]) {
        return Ok(None);
    }
    // DataFusion's own parser reads the whole text.
    while parser.next_token().token != sqlparser::tokenizer::Token::EOF {}
    Ok(Some(Arc::new(CreateExternalTable { text: text.to_string() })))
}

#[async_trait]
impl Command for CreateExternalTable {
    async fn run(&self, session: &Session) -> Result<Outcome> {
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
        if command.if_not_exists && session.existing(&name).is_some() && !session.engine().is_restoring() {
            let notice = format!("relation \"{name}\" already exists, skipping");
            return Ok(Outcome::noticed("CREATE EXTERNAL TABLE", notice));
        }
        let file_type = command.file_type.to_uppercase();
        let factory = state.table_factories().get(&file_type).cloned().ok_or_else(|| {
            let types: Vec<&str> = state.table_factories().keys().map(String::as_str).collect();
            crate::options::unknown("file type", &command.file_type, types.iter().copied())
                .with_detail(format!("STORED AS takes: {}.", crate::options::list(types.iter().copied())))
        })?;
        for location in &command.locations {
            check_exists(location)?;
        }
        let provider = factory.create(&state, &command).await?;
        session.engine().create_table(ObjectKind::ExternalTable, &name, &self.text, provider, BTreeSet::new()).await?;
        Ok(Outcome::done("CREATE EXTERNAL TABLE"))
    }
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
