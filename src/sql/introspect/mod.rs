//! How are questions about the catalog answered? Tools ask PostgreSQL's `pg_catalog` and `information_schema` in PostgreSQL's
//! own dialect: subqueries that depend on the row around them, `LATERAL`, functions that give rows, arrays of subqueries,
//! `regclass`. The catalog is small and always in memory, so such queries have an interpreter of their own, which has
//! PostgreSQL's rules for types and names; DataFusion runs what reads anything else, and what is not known here.
//!
//! ```text
//!     text ── sqlparser ──► plan (names, types) ──► node ──► run ──► output (Arrow) ──► the client
//!                           expression, scope,               text, functions
//!                           functions
//! ```
//!
//! The rows are those of [`crate::catalog::postgres`]; [`schema`] lets DataFusion read them as well.

mod expression;
mod functions;
mod node;
mod output;
mod plan;
mod run;
pub mod schema;
mod scope;
mod text;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlparser::ast::Statement;

use self::node::Query;
use self::plan::Planner;
use self::run::Run;
use super::statement::{Command, Given, one_batch};
use super::{Outcome, Session};
use crate::catalog::postgres::value::{Row, Value};
use crate::error::{Error, Kind, Result};

/// Why a query is not for us.
#[derive(Debug)]
pub struct Unplanned(pub String);

type Plan<T> = std::result::Result<T, Unplanned>;

fn unplanned<T>(what: impl Into<String>) -> Plan<T> {
    Err(Unplanned(what.into()))
}

/// Whether a text may be about the catalog: a first look, so that other statements are not planned twice.
pub fn may_concern(text: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "pg_",
        "information_schema",
        "reg",
        "_privilege",
        "_description",
        "current_schema",
        "current_database",
        "format_type",
        "quote_ident",
    ];
    let lower = text.to_ascii_lowercase();
    SIGNS.iter().any(|sign| lower.contains(sign))
}

/// A query of the catalog; `None` if the statement is another, or has something in it that is not known here.
pub fn plan(session: &Session, statement: &Statement) -> Result<Option<Arc<dyn Command>>> {
    let Statement::Query(ast) = statement else { return Ok(None) };
    let planner = Planner::default();
    let query = match planner.query(ast, None) {
        Ok(query) => query,
        Err(reason) => {
            tracing::debug!(reason = reason.0, "a query is left to DataFusion");
            return Ok(None);
        }
    };
    if !planner.concerns_catalog.get() {
        return Ok(None);
    }
    let parameters: Vec<u32> = planner.parameters.into_inner().into_iter().map(plan::known).collect();
    let fields = output::schema(&query.columns);
    let parameters_plan = parameters_plan(&parameters)?;
    session.check_names(statement)?;
    Ok(Some(Arc::new(CatalogQuery { query: Arc::new(query), parameters, parameters_plan, fields })))
}

/// A plan of nothing but the parameters: where others look up their types.
fn parameters_plan(parameters: &[u32]) -> Result<Option<LogicalPlan>> {
    if parameters.is_empty() {
        return Ok(None);
    }
    let placeholder = |(at, of): (usize, &u32)| {
        let field = Field::new(format!("p{at}"), output::data_type(*of), true).with_metadata(output::metadata(*of));
        Expr::Placeholder(Placeholder::new_with_field(format!("${}", at + 1), Some(Arc::new(field))))
            .alias(format!("p{at}"))
    };
    let expressions: Vec<Expr> = parameters.iter().enumerate().map(placeholder).collect();
    Ok(Some(LogicalPlanBuilder::empty(true).project(expressions)?.build()?))
}

/// A planned query of the catalog.
struct CatalogQuery {
    query: Arc<Query>,
    /// The types of its parameters.
    parameters: Vec<u32>,
    parameters_plan: Option<LogicalPlan>,
    fields: SchemaRef,
}

impl fmt::Debug for CatalogQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CatalogQuery")
    }
}

impl Command for CatalogQuery {
    fn fields(&self) -> Option<SchemaRef> {
        Some(Arc::clone(&self.fields))
    }

    fn plan(&self) -> Option<&LogicalPlan> {
        self.parameters_plan.as_ref()
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        self.run_with(session, Given::default())
    }

    fn run_with<'a>(&'a self, session: &'a Session, given: Given) -> BoxFuture<'a, Result<Outcome>> {
        async move {
            let given = match given.params {
                ParamValues::List(values) => values.into_iter().map(|value| value.value).collect(),
                ParamValues::Map(_) => Vec::new(),
            };
            let values = parameter_values(&given, &self.parameters)?;
            let batch = run_apart(session.clone(), Arc::clone(&self.query), values).await?;
            Ok(Outcome::Rows(one_batch(batch)))
        }
        .boxed()
    }
}

fn parameter_values(given: &[ScalarValue], types: &[u32]) -> Result<Vec<Value>> {
    if given.len() < types.len() {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("{} parameters are given, the query has {}", given.len(), types.len()),
        ));
    }
    types.iter().zip(given).map(|(of, value)| output::value_of(value, *of)).collect()
}

/// Runs it on a thread that may compute for a while; it ends soon when nobody waits any more.
async fn run_apart(session: Session, query: Arc<Query>, parameters: Vec<Value>) -> Result<RecordBatch> {
    struct StopOnDrop(Arc<AtomicBool>);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let _stop = StopOnDrop(Arc::clone(&stopped));
    let work = tokio::task::spawn_blocking(move || run_query(&session, &query, parameters, &stopped));
    work.await.map_err(|_| Error::internal("a query of the catalog panicked"))?
}

fn run_query(session: &Session, query: &Query, parameters: Vec<Value>, stopped: &AtomicBool) -> Result<RecordBatch> {
    let run = Run::new(session, session.engine().catalog_snapshot(), parameters, stopped);
    let rows: Vec<Row> = run.query(query, None, None)?;
    output::batch(&run, &query.columns, rows)
}
