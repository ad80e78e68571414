//! The schemas `pg_catalog` and `information_schema` for DataFusion, which runs what reads them together with other relations:
//! each is a table whose rows are those of `SELECT * FROM` it, made when somebody asks.

use std::fmt;
use std::sync::{Arc, Weak};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{SchemaProvider, Session as DfSession, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, TableType};

use super::node::Query;
use super::plan::Planner;
use super::{output, run_query};
use crate::catalog::postgres::base::base;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::opaque::{Scanned, scan_at_once};
use crate::sql::{Session, grammar};

const INFORMATION: &str = "information_schema";

/// Tables that DataFusion keeps and that statements of its own read.
const HANDED_ON: [&str; 3] = ["df_settings", "routines", "parameters"];

/// Puts both schemas in the place of DataFusion's.
pub fn register(engine: &Arc<Engine>) -> Result<()> {
    let (context, name) = (engine.context(), engine.database());
    let state = context.state();
    let catalog = context.catalog(name).ok_or_else(|| Error::internal(format!("there is no catalog \"{name}\"")))?;
    for name in ["pg_catalog", INFORMATION] {
        let theirs = InformationSchemaProvider::new(Arc::clone(state.catalog_list()));
        catalog.register_schema(name, Arc::new(Schema { name, engine: Arc::downgrade(engine), theirs }))?;
    }
    Ok(())
}

struct Schema {
    name: &'static str,
    engine: Weak<Engine>,
    theirs: InformationSchemaProvider,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        let own = base().relations.iter().filter(|system| system.schema == self.name);
        own.map(|system| system.name.clone()).collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        base().relation(self.name, name).is_some() || self.name == INFORMATION && HANDED_ON.contains(&name)
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        // Two of PostgreSQL's are called as two of DataFusion's: its own statements read those.
        if self.name == INFORMATION && HANDED_ON.contains(&name) {
            return self.theirs.table(name).await;
        }
        if base().relation(self.name, name).is_none() {
            return Ok(None);
        }
        let text = format!("SELECT * FROM {}.{name}", self.name);
        let parsed = grammar::statements(&text).ok().and_then(|mut all| all.pop());
        let planned = match parsed {
            Some(sqlparser::ast::Statement::Query(ast)) => Planner::default().query(&ast, None),
            _ => super::unplanned("no query"),
        };
        let query = planned.map_err(|reason| Error::internal(format!("{text}: {}", reason.0)))?;
        let schema = output::schema(&query.columns);
        Ok(Some(Arc::new(Table { query: Arc::new(query), engine: self.engine.clone(), schema })))
    }
}

struct Table {
    query: Arc<Query>,
    /// The engine owns what this is part of.
    engine: Weak<Engine>,
    schema: SchemaRef,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a relation of the catalog")
    }
}

impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    scan_at_once!(Table);
}

impl Table {
    fn plan_scan(&self, _: &dyn DfSession, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Scanned {
        let engine = self.engine.upgrade().ok_or_else(|| Error::internal("the engine is gone"))?;
        let never = std::sync::atomic::AtomicBool::new(false);
        let batch = run_query(&Session::new(engine), &self.query, Vec::new(), &never)?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&self.schema), projection.cloned())?)
    }
}
