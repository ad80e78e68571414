//! Cuts a view's plan in two: what is *maintained* and what is *computed when somebody reads*.
//!
//! Receives an analyzed logical plan; hands on the finish plan, in which every maximal subtree
//!
//! ```text
//!     Aggregate ← [ window | Filter | Projection | alias | join with a reference table ]* ← one stream
//!     Aggregate ← [ window | Filter | Projection | alias ]* ← join of two streams (`interval.rs`)
//! ```
//!
//! has been replaced by a scan of a [`Slot`], and one [`Definition`] per subtree. All that stood above (HAVING, ORDER
//! BY, LIMIT, joins and unions of aggregates, window functions, CTEs) is left as it was, so any SQL above the aggregate
//! works and the view equals its own query by construction. A chain without an aggregate above it is a *derived stream*:
//! nothing is kept of it, its rows are those of its stream.
//!
//! What cannot be maintained is refused here with the plan node's name, never accepted and silently rescanned.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, TableScan, TableType, Volatility};

use super::Rollup;
use super::cut::{cut, input_of};
use super::interval::{Partner, Streams, is_join, joined};
use super::lineage::Role;
use super::reference::{is_constant, stream_side};
use super::refuse;
use super::session::Columns;
use super::timeliness::Timeliness;
use super::versions::{FINAL, REVISION};
use super::window::Window;
use crate::error::{Error, Kind, Result};
use crate::opaque::{Opaque, Scanned, scan_at_once};
use crate::time::Micros;

/// A subtree to be maintained.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Name of the stream it reads; of two that it joins, the first.
    pub stream: String,
    /// The other stream of a join.
    pub partner: Option<Partner>,
    /// The aggregate over the stream's scan; windows that rows cannot tell are already turned into panes or pieces.
    pub aggregate: Opaque<LogicalPlan>,
    /// Its result: columns `c0, c1, …` (group columns, then aggregates).
    pub schema: SchemaRef,
    /// The group column that says which window, if the aggregate is windowed.
    pub pane: Option<Pane>,
    /// Which rows it takes.
    pub timeliness: Timeliness,
    /// Where it shows what came late, if its windows are over the stream's event time.
    pub late: Option<LateColumns>,
    /// A window is closed when the watermark has passed its end by this much.
    pub lateness: Micros,
    /// Further columns that hold the same as the pane's, unless they are NULL: grouping sets have both bounds.
    pub twins: Vec<usize>,
    /// The columns of a session window.
    pub session: Option<Columns>,
    /// The stream's column that the window is over, if it is one as it stands.
    pub time: Option<String>,
    /// Equal keys mean equal subtrees: such views share one rollup.
    pub key: String,
}

impl Definition {
    /// The names of all streams it reads.
    pub fn streams(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.stream).chain(self.partner.as_ref().map(|partner| &partner.stream))
    }

    /// Start and end of the window of a row of the slot, as expressions over the slot's columns.
    pub fn bounds(&self) -> Option<(Expr, Expr)> {
        let column = |i: usize| datafusion::logical_expr::col(format!("c{i}"));
        let pane = self.pane?;
        Some(match &self.session {
            Some(session) => (column(session.start), column(session.end)),
            None => (pane.window.start_of(column(pane.column)), pane.window.end_of(column(pane.column))),
        })
    }
}

/// The columns of a rollup that say what came late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LateColumns {
    /// The group column that says up to which window end rows were late, where a row is in several windows.
    pub closed_to: Option<usize>,
    /// The number of rows that came when the window was closed: none where such rows are left out.
    pub count: Option<usize>,
}

/// What a view's definition says about late rows.
pub struct Emission<'a> {
    /// Rows that find their window closed are left out, and windows are shown when they have closed.
    pub on_close: bool,
    /// A window is closed when the watermark has passed its end by this much.
    pub lateness: Micros,
    /// The event-time column of a stream.
    pub time_of: &'a dyn Fn(&str) -> Option<String>,
}

/// The window of a rollup.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pane {
    /// Index of the group column that holds the start of the pane (of the piece of a session) as long as it is
    /// maintained, and the id of the window when it is read.
    pub column: usize,
    pub window: Window,
}

/// A view's plan, cut.
pub struct Split {
    pub finish: LogicalPlan,
    pub slots: Vec<Arc<Slot>>,
    /// The stream that a view without an aggregate derives its rows from.
    pub derived: Option<String>,
}

/// The place in a finish plan where a rollup's result goes. A reader replaces it by the rollup's state as of one
/// instant; reading the slot itself is a bug.
pub struct Slot {
    pub definition: Definition,
    pub roles: Vec<Role>,
    /// The definition's columns, and behind them `_final` and `_revision` where windows close.
    schema: SchemaRef,
    /// The rollup that serves it, set once when the view is created.
    pub rollup: OnceLock<Arc<Rollup>>,
}

impl Slot {
    /// `roles`: of the aggregate's columns as they were written, which the projection above the slot shows.
    pub fn new(definition: Definition, roles: Vec<Role>) -> Slot {
        let mut fields: Vec<_> = definition.schema.fields().iter().cloned().collect();
        if definition.late.is_some() {
            fields.push(Arc::new(Field::new(FINAL, DataType::Boolean, true)));
            fields.push(Arc::new(Field::new(REVISION, DataType::Int64, true)));
        }
        Slot { schema: Arc::new(Schema::new(fields)), definition, roles, rollup: OnceLock::new() }
    }

    /// Whether its rows belong to windows that close, so that they can be final and be corrected.
    pub fn has_versions(&self) -> bool {
        self.definition.late.is_some()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.definition.stream)
    }
}

impl TableProvider for Slot {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_at_once!(Slot);
}

impl Slot {
    fn plan_scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Scanned {
        Err(Error::internal("a rollup was read without a snapshot").into())
    }
}

/// Cuts `plan` (analyzed, not optimized). `stream_of` tells the name of the stream that a scan reads, if it reads one.
pub fn split(
    plan: LogicalPlan,
    stream_of: &dyn Fn(&TableScan) -> Option<String>,
    emission: &Emission,
) -> Result<Split> {
    if let Some(stream) = chain(&plan, stream_of) {
        check_deterministic(&plan)?;
        return Ok(Split { finish: plan, slots: Vec::new(), derived: Some(stream) });
    }
    let finish = plan.transform_down_with_subqueries(|node| {
        let aggregate = match node {
            LogicalPlan::Aggregate(aggregate) => aggregate,
            // SELECT DISTINCT is an aggregate without aggregate functions.
            LogicalPlan::Distinct(Distinct::All(input)) if reads_rows(&input, stream_of) => {
                let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
                Aggregate::try_new(input, columns, vec![])?
            }
            other => return Ok(Transformed::no(other)),
        };
        let streams = Streams { of: stream_of, time_of: emission.time_of };
        let (stream, partner) = match chain(&aggregate.input, stream_of) {
            Some(stream) => (stream, None),
            None => match joined(&aggregate.input, &streams)? {
                Some((stream, partner)) => (stream, Some(partner)),
                None => return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
            },
        };
        check_deterministic(&LogicalPlan::Aggregate(aggregate.clone()))?;
        // Nothing below is left to cut.
        Ok(Transformed::new(cut(aggregate, stream, partner, emission)?, true, TreeNodeRecursion::Jump))
    })?;
    refuse_rest(&finish.data, stream_of)?;
    let slots = slots_of(&finish.data);
    if slots.is_empty() {
        return Err(Error::new(Kind::NotSupported, "a materialized view needs an aggregate over a stream")
            .with_hint("Use CREATE VIEW for a query that is computed whenever it is read."));
    }
    let finish = finish.data.transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?;
    Ok(Split { finish: finish.data, slots, derived: None })
}

/// The stream at the end of a chain of operators that can be maintained below an aggregate.
fn chain(plan: &LogicalPlan, stream_of: &dyn Fn(&TableScan) -> Option<String>) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => stream_of(scan),
        LogicalPlan::Filter(f) => chain(&f.input, stream_of),
        LogicalPlan::Projection(p) => chain(&p.input, stream_of),
        LogicalPlan::SubqueryAlias(a) => chain(&a.input, stream_of),
        LogicalPlan::Extension(e) => input_of(e).and_then(|input| chain(input, stream_of)),
        LogicalPlan::Join(join) => stream_side(join).and_then(|side| chain(side, stream_of)),
        _ => None,
    }
}

/// Whether a plan's rows are those of a stream, or of two that are joined.
fn reads_rows(plan: &LogicalPlan, stream_of: &dyn Fn(&TableScan) -> Option<String>) -> bool {
    chain(plan, stream_of).is_some() || is_join(plan, stream_of)
}

/// A maintained subtree must give the same result whenever it is computed.
fn check_deterministic(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                match e {
                    Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                        refused = Some((format!("{}()", f.func.name()), node.display().to_string()));
                    }
                    Expr::InSubquery(InSubquery { subquery, .. }) | Expr::Exists(Exists { subquery, .. })
                        if is_constant(&subquery.subquery) =>
                    {
                        check_deterministic(&subquery.subquery)?;
                    }
                    Expr::ScalarSubquery(subquery)
                        if is_constant(&subquery.subquery) && !subquery.outer_ref_columns.is_empty() =>
                    {
                        check_deterministic(&subquery.subquery)?;
                    }
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                        refused = Some(("a subquery".to_string(), node.display().to_string()));
                    }
                    _ => {}
                }
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    match refused {
        Some((what, node)) => Err(Error::new(
            Kind::NotSupported,
            format!("{what} cannot be used below the aggregate of a materialized view"),
        )
        .with_detail(format!("Plan node: {node}."))
        .with_hint(match what.as_str() {
            "a subquery" => "IN, NOT IN and EXISTS over a reference table work as conditions of WHERE; a value from a table can be joined: CROSS JOIN, LEFT JOIN.",
            _ => "Its value changes from row to row or with time; use it above the aggregate, or when you read the view.",
        })),
        None => Ok(()),
    }
}

/// Refuses what is left over a stream once all aggregates have been cut out.
fn refuse_rest(finish: &LogicalPlan, stream_of: &dyn Fn(&TableScan) -> Option<String>) -> Result<()> {
    let passes = |plan: &LogicalPlan| chain(plan, stream_of).is_some();
    match refuse::what_is_left(finish, stream_of, &passes) {
        Some(err) => Err(err),
        None => Ok(()),
    }
}

/// The slots that a plan reads: those just cut, and those of other views that it names.
pub fn slots_of(plan: &LogicalPlan) -> Vec<Arc<Slot>> {
    let mut slots: Vec<Arc<Slot>> = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(slot) = provider_of::<Slot>(scan)
            && !slots.iter().any(|s| Arc::ptr_eq(s, &slot))
        {
            slots.push(slot);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor above does not fail");
    slots
}

/// The table behind a logical scan, if it is of this type: a [`Slot`], a stream.
pub fn provider_of<T: Any + Send + Sync>(scan: &TableScan) -> Option<Arc<T>> {
    let provider = datafusion::datasource::source_as_provider(&scan.source).ok()?;
    let any: Arc<dyn Any + Send + Sync> = provider;
    any.downcast::<T>().ok()
}
