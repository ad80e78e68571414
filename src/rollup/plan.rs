//! Cuts a view's plan in two: what is *maintained* and what is *computed when somebody reads*.
//!
//! Receives an analyzed logical plan; hands on the finish plan, in which every maximal subtree
//!
//! ```text
//!     Aggregate ← [ window | Filter | Projection | alias ]* ← one stream
//! ```
//!
//! has been replaced by a scan of a [`Slot`], and one [`Definition`] per subtree. All that stood above (HAVING, ORDER
//! BY, LIMIT, joins and unions of aggregates, window functions, CTEs) is left as it was, so any SQL above the aggregate
//! works and the view equals its own query by construction.
//!
//! What cannot be maintained is refused here with the plan node's name, never accepted and silently rescanned.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Field, IntervalMonthDayNano, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, Extension, LogicalPlan, LogicalPlanBuilder, Operator, SubqueryAlias,
    TableScan, TableType, Volatility, lit,
};
use datafusion::physical_plan::ExecutionPlan;

use super::Rollup;
use super::hop::{HopNode, WINDOW_END, WINDOW_START};
use super::timeliness::Timeliness;
use super::window::{Tumble, Window, as_window, interval_micros};
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, on};
use crate::opaque::Opaque;
use crate::time::Micros;

/// A subtree to be maintained.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Name of the stream it reads.
    pub stream: String,
    /// The aggregate over the stream's scan; hopping windows are already turned into panes.
    pub aggregate: Opaque<LogicalPlan>,
    /// Its result: columns `c0, c1, …` (group columns, then aggregates).
    pub schema: SchemaRef,
    /// The group column that holds the window's (or pane's) start, if the aggregate is windowed.
    pub pane: Option<Pane>,
    /// Which rows it takes.
    pub timeliness: Timeliness,
    /// A window is closed when the watermark has passed its end by this much.
    pub lateness: Micros,
    /// Equal keys mean equal subtrees: such views share one rollup.
    pub key: String,
}

/// The window of a rollup.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pane {
    /// Index of the group column that holds the start.
    pub column: usize,
    pub window: Window,
}

impl Pane {
    /// Whether one pane belongs to several windows, so that reading has to spread it.
    pub fn spreads(&self) -> bool {
        matches!(self.window, Window::Hop { .. })
    }
}

/// A view's plan, cut.
pub struct Split {
    pub finish: LogicalPlan,
    pub slots: Vec<Arc<Slot>>,
}

/// The place in a finish plan where a rollup's result goes. A reader replaces it by the rollup's state as of one
/// instant; reading the slot itself is a bug.
pub struct Slot {
    pub definition: Definition,
    /// The rollup that serves it, set once when the view is created.
    pub rollup: OnceLock<Arc<Rollup>>,
}

impl Slot {
    /// Whether its rows belong to windows, so that they can be final and be corrected.
    pub fn has_versions(&self) -> bool {
        self.definition.pane.is_some()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.definition.stream)
    }
}

#[async_trait]
impl TableProvider for Slot {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.definition.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(Error::internal("a rollup was read without a snapshot").into())
    }
}

/// Cuts `plan` (analyzed, not optimized). `stream_of` tells the name of the stream that a scan reads, if it reads one.
pub fn split(plan: LogicalPlan, stream_of: &dyn Fn(&TableScan) -> Option<String>) -> Result<Split> {
    let finish = plan.transform_down_with_subqueries(|node| {
        let aggregate = match node {
            LogicalPlan::Aggregate(aggregate) => aggregate,
            // SELECT DISTINCT is an aggregate without aggregate functions.
            LogicalPlan::Distinct(Distinct::All(input)) if chain(&input, stream_of).is_some() => {
                let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
                Aggregate::try_new(input, columns, vec![])?
            }
            other => return Ok(Transformed::no(other)),
        };
        let Some(stream) = chain(&aggregate.input, stream_of) else {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        };
        // Nothing below is left to cut.
        Ok(Transformed::new(cut(aggregate, stream)?, true, TreeNodeRecursion::Jump))
    })?;
    refuse_rest(&finish.data, stream_of)?;
    let slots = slots_of(&finish.data);
    if slots.is_empty() {
        return Err(Error::new(Kind::NotSupported, "a materialized view needs an aggregate over a stream")
            .with_hint("Use CREATE VIEW for a query that is computed whenever it is read."));
    }
    let finish = finish.data.transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?;
    Ok(Split { finish: finish.data, slots })
}

/// The stream at the end of a chain of operators that can be maintained below an aggregate.
fn chain(plan: &LogicalPlan, stream_of: &dyn Fn(&TableScan) -> Option<String>) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => stream_of(scan),
        LogicalPlan::Filter(f) => chain(&f.input, stream_of),
        LogicalPlan::Projection(p) => chain(&p.input, stream_of),
        LogicalPlan::SubqueryAlias(a) => chain(&a.input, stream_of),
        LogicalPlan::Extension(e) => as_hop(e).and_then(|hop| chain(&hop.input, stream_of)),
        _ => None,
    }
}

fn as_hop(extension: &Extension) -> Option<&HopNode> {
    extension.node.as_any().downcast_ref::<HopNode>()
}

/// Turns one aggregate into a slot and the plan that stands for it: a projection over the slot with the very
/// columns of the aggregate.
fn cut(aggregate: Aggregate, stream: String) -> DfResult<LogicalPlan> {
    check_deterministic(&LogicalPlan::Aggregate(aggregate.clone()))?;
    let original = Arc::clone(&aggregate.schema);
    let origins: Vec<Origin> = aggregate.group_expr.iter().map(|e| origin(e, &aggregate.input)).collect();

    // A hopping window is folded by panes, if nothing but the grouping looks at the window's bounds.
    let hops = origins.iter().any(|o| matches!(o, Origin::Start(w) | Origin::End(w) if spreads(w)));
    let paned = hops
        && !origins.contains(&Origin::Mixed)
        && aggregate.aggr_expr.iter().all(|e| origin(e, &aggregate.input) == Origin::Pure)
        && filters_pure(&aggregate.input);
    let input = if paned { panes_for_hops(&aggregate.input)? } else { aggregate.input.as_ref().clone() };

    // The window's end follows from its start: grouping by both would hash one column more for nothing.
    let start_of = |window: &Window| origins.iter().position(|o| *o == Origin::Start(*window));
    let mut kept = Vec::new();
    let mut column_of = Vec::new(); // for each group column: (kept column, microseconds to add)
    for (i, (expr, origin)) in aggregate.group_expr.iter().zip(&origins).enumerate() {
        let usable = |w: &Window| paned || !spreads(w);
        match origin {
            Origin::End(w) if usable(w) && start_of(w).is_some_and(|s| s != i) => {
                column_of.push(None);
            }
            _ => {
                column_of.push(Some(kept.len()));
                kept.push(expr.clone());
            }
        }
    }
    let dropped = aggregate.group_expr.len() - kept.len();
    let pane = origins.iter().zip(&column_of).find_map(|(origin, column)| match (origin, column) {
        (Origin::Start(window), Some(column)) if paned || !spreads(window) => {
            Some(Pane { column: *column, window: *window })
        }
        // Grouped by the end only: the column holds the pane's start until the finish plan adds the size.
        (Origin::End(window), Some(column)) if paned && spreads(window) => {
            Some(Pane { column: *column, window: *window })
        }
        _ => None,
    });

    let maintained = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), kept, aggregate.aggr_expr.clone())?);
    let fields = maintained.schema().fields().iter().enumerate();
    // The operators may not know that a column (a coalesce) is never NULL, and must not hold less than is said here.
    let schema = Arc::new(Schema::new(
        fields.map(|(i, f)| Field::new(format!("c{i}"), f.data_type().clone(), true)).collect::<Vec<_>>(),
    ));
    let mut key = format!("{stream}\n{}", maintained.display_indent_schema());
    if on(Mutation::SharingIgnoresFilters) {
        key = key.lines().filter(|line| !line.trim_start().starts_with("Filter")).collect();
    }
    let (timeliness, lateness) = (Timeliness::All, 0);
    let definition = Definition { stream, aggregate: maintained.into(), schema, pane, timeliness, lateness, key };
    let slot = Arc::new(Slot { definition, rollup: OnceLock::new() });

    let scan = LogicalPlanBuilder::scan("rollup", provider_as_source(slot as _), None)?.build()?;
    let column = |i: usize| Expr::Column(Column::new(Some("rollup"), format!("c{i}")));
    let mut outputs = Vec::new();
    for (i, (qualifier, field)) in original.iter().enumerate() {
        let expr = match (origins.get(i), column_of.get(i)) {
            (Some(Origin::End(window)), Some(None)) => {
                let start = start_of(window).and_then(|s| column_of[s]).expect("dropped only when its start is kept");
                column(start) + lit(interval(window.size()))
            }
            (Some(Origin::End(window)), Some(Some(kept))) if paned && spreads(window) => {
                column(*kept) + lit(interval(window.size()))
            }
            (_, Some(Some(kept))) => column(*kept),
            // Grouping ids and aggregates keep their order behind the group columns.
            _ => column(i - dropped),
        };
        outputs.push(expr.alias_qualified(qualifier.cloned(), field.name()));
    }
    LogicalPlanBuilder::from(scan).project(outputs)?.build()
}

fn spreads(window: &Window) -> bool {
    matches!(window, Window::Hop { .. })
}

fn interval(micros: Micros) -> ScalarValue {
    ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000))))
}

/// What an expression is with respect to windows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    Start(Window),
    End(Window),
    /// Does not depend on a hopping window's bounds.
    Pure,
    /// Computed from a hopping window's bounds.
    Mixed,
}

fn origin(expr: &Expr, input: &LogicalPlan) -> Origin {
    match expr {
        Expr::Alias(alias) => return origin(&alias.expr, input),
        Expr::Column(column) => {
            let index = input.schema().maybe_index_of_column(column);
            return index.map_or(Origin::Pure, |i| column_origin(i, input));
        }
        _ => {}
    }
    let pure = expr.column_refs().into_iter().all(|column| {
        let index = input.schema().maybe_index_of_column(column);
        index.is_none_or(|i| !matches!(column_origin(i, input), Origin::Mixed) && !hop_bound(i, input))
    });
    if !pure {
        return Origin::Mixed;
    }
    if let Some((window, _)) = as_window(expr) {
        return Origin::Start(window);
    }
    // `tumble(ts) + size`, which is how TUMBLE computes its window_end.
    if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) = expr
        && let Origin::Start(window) = origin(left, input)
        && let Expr::Literal(size, _) = right.as_ref()
        && interval_micros(size) == Some(window.size())
    {
        return Origin::End(window);
    }
    Origin::Pure
}

fn hop_bound(index: usize, plan: &LogicalPlan) -> bool {
    matches!(column_origin(index, plan), Origin::Start(w) | Origin::End(w) if spreads(&w))
}

fn column_origin(index: usize, plan: &LogicalPlan) -> Origin {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(index).map_or(Origin::Pure, |e| origin(e, &p.input)),
        LogicalPlan::SubqueryAlias(a) => column_origin(index, &a.input),
        LogicalPlan::Filter(f) => column_origin(index, &f.input),
        LogicalPlan::Extension(e) => match as_hop(e) {
            Some(hop) => match index.checked_sub(hop.input.schema().fields().len()) {
                Some(0) => Origin::Start(hop.window),
                Some(_) => Origin::End(hop.window),
                None => column_origin(index, &hop.input),
            },
            None => Origin::Pure,
        },
        _ => Origin::Pure,
    }
}

/// Whether no filter above a hopping window looks at the window's bounds.
fn filters_pure(plan: &LogicalPlan) -> bool {
    let own = match plan {
        LogicalPlan::Filter(f) => origin(&f.predicate, &f.input) == Origin::Pure,
        _ => true,
    };
    own && plan.inputs().into_iter().all(filters_pure)
}

/// Replaces a hopping window by the pane of each row: one output row per input row. Both bounds hold the pane's start
/// until the pane is spread over its windows when read.
fn panes_for_hops(plan: &LogicalPlan) -> DfResult<LogicalPlan> {
    let replaced = plan.clone().transform_up(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        let Some(hop) = as_hop(extension) else { return Ok(Transformed::no(node)) };
        let pane = Tumble::start_of(hop.time.clone(), hop.window.pane(), hop.window.offset());
        let mut columns: Vec<Expr> = hop.input.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(pane.clone().alias(WINDOW_START));
        columns.push(pane.alias(WINDOW_END));
        LogicalPlanBuilder::from(hop.input.clone()).project(columns)?.build().map(Transformed::yes)
    })?;
    Ok(replaced.data)
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
        .with_hint(
            "Its value changes from row to row or with time; use it above the aggregate, or when you read the view.",
        )),
        None => Ok(()),
    }
}

/// Refuses what is left over a stream once all aggregates have been cut out.
fn refuse_rest(finish: &LogicalPlan, stream_of: &dyn Fn(&TableScan) -> Option<String>) -> Result<()> {
    let mut refused = None;
    let mut path: Vec<String> = Vec::new();
    finish.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(stream) = stream_of(scan)
        {
            refused = Some(stream);
            return Ok(TreeNodeRecursion::Stop);
        }
        if !matches!(node, LogicalPlan::SubqueryAlias(SubqueryAlias { .. })) {
            path.push(node.display().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some(stream) = refused else { return Ok(()) };
    let node = path.pop().unwrap_or_else(|| "TableScan".into());
    Err(Error::new(Kind::NotSupported, format!("this query over stream \"{stream}\" cannot be maintained"))
        .with_detail(format!("Plan node: {node} reads the stream without an aggregate above it that could be kept up to date."))
        .with_hint(
            "Only filters, projections and windows may stand between a stream and its GROUP BY. Use CREATE VIEW for a query that is computed whenever it is read.",
        ))
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
