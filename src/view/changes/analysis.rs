//! What may be known of a finish plan before it runs: is its result unique by some columns, do its windows depend on
//! nothing but their own rows, does it give the same rows whenever it is computed?
//!
//! Each question is answered node by node, and a node that is not known answers "no": that costs time, not truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator, TableScan, Volatility,
};

use crate::rollup::plan::{Slot, provider_of, slots_of};
use crate::rollup::spread::WindowNode;
use crate::rollup::timeliness::Timeliness;
use crate::rollup::versions::FINAL;
use crate::rollup::window::interval_micros;
use crate::time::Micros;
use crate::view::fill::FillNode;
use crate::view::table::StreamTable;

/// Columns (by index) that hold the start of a row's window plus a constant, with that constant.
pub type WindowColumns = BTreeMap<usize, Micros>;

/// What those who deliver a result have to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nature {
    /// Rows of a stream, which come and stay; else a result whose rows change.
    pub rows: bool,
    /// The columns (by index) that tell rows apart, if that is known.
    pub key: Option<Vec<usize>>,
    /// Only rows of closed windows: they come, window after window, and stay.
    pub closed: bool,
    /// The column that is the larger the later a row's window closes.
    pub window: Option<usize>,
    /// The column holds the window's id plus this, where that is known.
    pub shift: Option<Micros>,
    /// The column with the time that a row is of: of a stream's rows their event time, else that of the window.
    pub time: Option<usize>,
    /// How many streams it reads.
    pub streams: usize,
}

impl Nature {
    /// Of the rows of a stream, or of a finish plan.
    pub fn of(plan: &LogicalPlan) -> Nature {
        if super::stream_of(plan).is_some() {
            return Nature {
                rows: true,
                key: None,
                closed: false,
                window: None,
                shift: None,
                time: time_of(plan),
                streams: 1,
            };
        }
        let slots = slots_of(plan);
        let on_time = |slot: &Arc<Slot>| slot.definition.timeliness == Timeliness::OnTime;
        let streams: BTreeSet<&String> = slots.iter().flat_map(|slot| slot.definition.streams()).collect();
        // Also where rows of different windows meet, as scores compare them: each is of its window all the same.
        let columns = columns_of_windows(plan, true).unwrap_or_default();
        // A session ends with its gap; which column holds that is known by its name only.
        let is_end = |field: &Field| {
            field.name() == "window_end" && matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _))
        };
        let by_name = || plan.schema().fields().iter().position(|field| is_end(field));
        let window = columns.first_key_value().map(|(column, _)| *column).or_else(by_name);
        Nature {
            rows: false,
            key: unique_key(plan),
            closed: !slots.is_empty() && slots.iter().all(on_time),
            window,
            shift: columns.first_key_value().map(|(_, shift)| *shift),
            time: window,
            streams: streams.len(),
        }
    }
}

/// The column that has the event time of a stream's rows as it is.
fn time_of(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = provider_of::<StreamTable>(scan)?;
            let time = table.runner.shape.time.as_deref()?;
            plan.schema().fields().iter().position(|field| field.name() == time)
        }
        LogicalPlan::Filter(filter) => time_of(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => time_of(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (time, schema) = (time_of(&projection.input)?, projection.input.schema());
            projection.expr.iter().position(|expr| shifted_column(expr, schema) == Some((time, 0)))
        }
        // The columns of its input come first.
        LogicalPlan::Extension(extension) => time_of(&extension.node.as_any().downcast_ref::<WindowNode>()?.input),
        _ => None,
    }
}

/// The window columns of a plan in which rows of different windows never meet: computing it for some windows gives what
/// the whole result has for these windows. `None` when they may meet, or when there are no windows.
pub fn window_columns(plan: &LogicalPlan) -> Option<WindowColumns> {
    if has_subquery(plan) {
        return None;
    }
    columns_of_windows(plan, false)
}

/// The columns that tell the window of a row. With `meet` also those of rows that other windows have a say in.
fn columns_of_windows(plan: &LogicalPlan, meet: bool) -> Option<WindowColumns> {
    let local = |plan: &LogicalPlan| columns_of_windows(plan, meet);
    match plan {
        LogicalPlan::TableScan(scan) => {
            let slot = provider_of::<Slot>(scan)?;
            let pane = slot.definition.pane.filter(|pane| !pane.window.is_session())?;
            let data_type = slot.definition.schema.field(pane.column).data_type();
            matches!(data_type, DataType::Timestamp(..)).then(|| {
                let at = position(scan, pane.column);
                at.map(|at| (at, 0)).into_iter().collect()
            })
        }
        LogicalPlan::Filter(filter) => local(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => local(&alias.input),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => local(&sort.input),
        LogicalPlan::Projection(projection) => {
            let columns = local(&projection.input)?;
            let schema = projection.input.schema();
            let shifted = |expr: &Expr| {
                let (column, shift) = shifted_column(expr, schema)?;
                Some(columns.get(&column)?.saturating_add(shift))
            };
            Some(projection.expr.iter().enumerate().filter_map(|(i, e)| Some((i, shifted(e)?))).collect())
        }
        LogicalPlan::Window(window) => {
            let columns = local(&window.input)?;
            let schema = window.input.schema();
            let by_window = window.window_expr.iter().all(|expr| match unaliased(expr) {
                Expr::WindowFunction(function) => {
                    function.params.partition_by.iter().any(|e| among(e, schema, &columns).is_some())
                }
                _ => false,
            });
            (meet || by_window).then_some(columns)
        }
        LogicalPlan::Aggregate(aggregate) if plain_groups(aggregate) => {
            let columns = local(&aggregate.input)?;
            let schema = aggregate.input.schema();
            let groups = aggregate.group_expr.iter().enumerate();
            let kept: WindowColumns = groups.filter_map(|(i, e)| Some((i, among(e, schema, &columns)?))).collect();
            (!kept.is_empty()).then_some(kept)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => local(input).filter(|columns| !columns.is_empty()),
        LogicalPlan::Extension(extension) if meet => local(&extension.node.as_any().downcast_ref::<FillNode>()?.input),
        LogicalPlan::Union(union) => {
            let mut branches = union.inputs.iter().map(|input| local(input));
            let first = branches.next()??;
            branches.try_fold(first, |mut common, branch| {
                let branch = branch?;
                common.retain(|column, shift| branch.get(column) == Some(shift));
                Some(common)
            })
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (local(&join.left)?, local(&join.right)?);
            let same_window = |(l, r): &(usize, usize)| match (left.get(l), right.get(r)) {
                (Some(l), Some(r)) => l == r,
                _ => false,
            };
            if !equalities(join).iter().any(same_window) {
                return None;
            }
            let width = join.left.schema().fields().len();
            let behind = right.iter().map(|(column, shift)| (column + width, *shift));
            Some(match join.join_type {
                JoinType::Inner => left.into_iter().chain(behind).collect(),
                // The other side's columns are NULL where there was no match.
                JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left,
                JoinType::Right => behind.collect(),
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right,
                JoinType::Full => WindowColumns::new(),
            })
        }
        _ => None,
    }
}

/// The columns (by index) whose values together occur in one row at most; empty for a result of one row. `None` when
/// that is not known.
pub fn unique_key(plan: &LogicalPlan) -> Option<Vec<usize>> {
    key(plan).map(|parts| parts.into_iter().filter_map(|columns| columns.first().copied()).collect())
}

/// The parts of a unique key; each of a part's columns stands for all of them, as a window's start and end do.
fn key(plan: &LogicalPlan) -> Option<Vec<Vec<usize>>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let slot = provider_of::<Slot>(scan)?;
            let LogicalPlan::Aggregate(aggregate) = &*slot.definition.aggregate else { return None };
            let groups = plain_groups(aggregate).then_some(0..aggregate.group_expr.len())?;
            // What a pane's rows were late for is not shown.
            let hidden = slot.definition.late.and_then(|late| late.closed_to);
            groups.filter(|column| Some(*column) != hidden).map(|column| Some(vec![position(scan, column)?])).collect()
        }
        LogicalPlan::Filter(filter) => key(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => key(&alias.input),
        LogicalPlan::Sort(sort) => key(&sort.input),
        LogicalPlan::Limit(limit) => key(&limit.input),
        LogicalPlan::Window(window) => key(&window.input),
        LogicalPlan::Projection(projection) => {
            let schema = projection.input.schema();
            let source = |expr: &Expr| shifted_column(expr, schema).map(|(column, _)| column);
            let sources: Vec<Option<usize>> = projection.expr.iter().map(source).collect();
            let parts = key(&projection.input)?.into_iter().map(|part| {
                let stands_for = |source: &Option<usize>| source.is_some_and(|column| part.contains(&column));
                let columns: Vec<usize> = (0..sources.len()).filter(|i| stands_for(&sources[*i])).collect();
                (!columns.is_empty()).then_some(columns)
            });
            parts.collect()
        }
        LogicalPlan::Aggregate(aggregate) => {
            plain_groups(aggregate).then(|| (0..aggregate.group_expr.len()).map(|i| vec![i]).collect())
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            key(input).or_else(|| Some((0..input.schema().fields().len()).map(|i| vec![i]).collect()))
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (key(&join.left), key(&join.right));
            let equal = equalities(join);
            // A row of one side meets one row of the other at most when the other's key is among the equal columns.
            let met = |parts: &Option<Vec<Vec<usize>>>, side: fn(&(usize, usize)) -> usize| {
                let part_met = |part: &Vec<usize>| equal.iter().any(|pair| part.contains(&side(pair)));
                parts.as_ref().is_some_and(|parts| parts.iter().all(part_met))
            };
            let (one_left, one_right) = (met(&left, |pair| pair.0), met(&right, |pair| pair.1));
            let width = join.left.schema().fields().len();
            let behind = |parts: Vec<Vec<usize>>| -> Vec<Vec<usize>> {
                parts.into_iter().map(|part| part.into_iter().map(|column| column + width).collect()).collect()
            };
            match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left,
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right,
                JoinType::Inner if one_right && left.is_some() => left.map(|parts| {
                    let with_equals = |mut part: Vec<usize>| {
                        let also: Vec<usize> =
                            equal.iter().filter(|(l, _)| part.contains(l)).map(|(_, r)| r + width).collect();
                        part.extend(also);
                        part
                    };
                    parts.into_iter().map(with_equals).collect()
                }),
                JoinType::Left if one_right && left.is_some() => left,
                JoinType::Inner | JoinType::Right if one_left && right.is_some() => right.map(behind),
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                    Some([left?, behind(right?)].concat())
                }
            }
        }
        _ => None,
    }
}

/// Whether the plan looks at `_final`, which changes when windows close.
pub fn asks_for_closing(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.column_refs().iter().any(|column| column.name == FINAL);
            Ok(TreeNodeRecursion::Continue)
        })
    });
    found || visited.is_err()
}

/// Whether the plan reads nothing but rollups and computes the same from them at any time: then its result changes only
/// when one of them does.
pub fn settled(plan: &LogicalPlan) -> bool {
    let mut settled = !timely(plan);
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            settled &= provider_of::<Slot>(scan).is_some();
        }
        Ok(TreeNodeRecursion::Continue)
    });
    settled && visited.is_ok()
}

/// Whether some function's value depends on the time (or on chance) and not only on its arguments.
pub fn timely(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        // Which windows are filled depends on the watermark.
        found |= matches!(node, LogicalPlan::Extension(e) if e.node.as_any().downcast_ref::<FillNode>().is_some());
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(function) = e {
                    found |= function.func.signature().volatility != Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found || visited.is_err()
}

/// Whether the result is the same to the last bit however its partial states were merged and its rows were ordered. Sums
/// of floating-point numbers are not, nor is `row_number()` among equals.
pub fn exact(plan: &LogicalPlan) -> bool {
    let mut exact = true;
    let visited = plan.apply_with_subqueries(|node| {
        exact &= match node {
            LogicalPlan::TableScan(scan) => match provider_of::<Slot>(scan) {
                Some(slot) => match &*slot.definition.aggregate {
                    LogicalPlan::Aggregate(aggregate) => exact_aggregates(aggregate),
                    _ => false,
                },
                None => true,
            },
            LogicalPlan::Aggregate(aggregate) => exact_aggregates(aggregate),
            LogicalPlan::Window(_) | LogicalPlan::Extension(_) => false,
            _ => true,
        };
        Ok(if exact { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    exact && visited.is_ok()
}

fn exact_aggregates(aggregate: &Aggregate) -> bool {
    aggregate.aggr_expr.iter().all(|expr| {
        let Expr::AggregateFunction(function) = unaliased(expr) else { return false };
        match function.func.name() {
            "count" | "min" | "max" | "bool_and" | "bool_or" | "bit_and" | "bit_or" | "bit_xor" | "approx_distinct" => {
                true
            }
            "sum" | "avg" => function.params.args.iter().all(|arg| whole(arg, aggregate.input.schema())),
            _ => false,
        }
    })
}

/// Whether the values are whole numbers or decimals, perhaps in the form of floating-point numbers (which add up exactly
/// as long as their sum stays below 2^53).
fn whole(expr: &Expr, schema: &DFSchema) -> bool {
    let data_type = expr.get_type(schema).ok();
    if data_type.is_some_and(|t| t.is_integer() || t.is_decimal() || t == DataType::Boolean) {
        return true;
    }
    match expr {
        Expr::Cast(cast) => whole(&cast.expr, schema),
        Expr::Alias(alias) => whole(&alias.expr, schema),
        _ => false,
    }
}

/// Where a table's column is among those that the scan gives.
fn position(scan: &TableScan, column: usize) -> Option<usize> {
    match &scan.projection {
        Some(columns) => columns.iter().position(|c| *c == column),
        None => Some(column),
    }
}

fn plain_groups(aggregate: &Aggregate) -> bool {
    !aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)))
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// `column`, `column + interval` or `column - interval`: the column's index and the constant in microseconds.
fn shifted_column(expr: &Expr, schema: &DFSchema) -> Option<(usize, Micros)> {
    match unaliased(expr) {
        Expr::Column(column) => Some((index(column, schema)?, 0)),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (Expr::Column(column), Expr::Literal(value, _)) = (left.as_ref(), right.as_ref()) else { return None };
            let shift = interval_micros(value)?;
            Some((index(column, schema)?, if *op == Operator::Plus { shift } else { shift.checked_neg()? }))
        }
        _ => None,
    }
}

fn index(column: &Column, schema: &DFSchema) -> Option<usize> {
    schema.maybe_index_of_column(column)
}

/// The shift of a window column that `expr` names.
fn among(expr: &Expr, schema: &DFSchema, columns: &WindowColumns) -> Option<Micros> {
    let Expr::Column(column) = unaliased(expr) else { return None };
    columns.get(&index(column, schema)?).copied()
}

/// Pairs of columns (left, right) that are equal in every match of a join.
fn equalities(join: &Join) -> Vec<(usize, usize)> {
    let (left, right) = (join.left.schema(), join.right.schema());
    let pair = |a: &Expr, b: &Expr| -> Option<(usize, usize)> {
        let (Expr::Column(a), Expr::Column(b)) = (unaliased(a), unaliased(b)) else { return None };
        match (index(a, left), index(b, right)) {
            (Some(l), Some(r)) => Some((l, r)),
            _ => Some((index(b, left)?, index(a, right)?)),
        }
    };
    let filters = join.filter.as_ref().map(split_conjunction).unwrap_or_default();
    let filtered = filters.into_iter().filter_map(|filter| match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => pair(left, right),
        _ => None,
    });
    join.on.iter().filter_map(|(a, b)| pair(a, b)).chain(filtered).collect()
}

fn has_subquery(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let visited = plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                found |= matches!(
                    e,
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
                );
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found || visited.is_err()
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::opaque::Opaque;
    use crate::sql::{self, Session, Statement};
    use crate::time::Clock;

    use super::*;

    /// How a query is followed, in a word each: which of its columns are window columns, its key, and whether it is exact
    /// and settled.
    async fn nature(session: &Session, query: &str) -> String {
        let Statement::Sql(ast) = session.parse(query).unwrap().remove(0) else { panic!("it is a query") };
        let plan = Opaque::new(session.analyze(session.plan_query(&ast).await.unwrap()).unwrap());
        let view = session.engine().plan_view("", "", &plan, crate::view::options::ViewOptions::default()).unwrap();
        let words = |exact: bool, settled: bool| match (exact, settled) {
            (true, true) => "exact, settled",
            (false, true) => "settled",
            (true, false) => "exact",
            (false, false) => "",
        };
        format!(
            "{:?} {:?} {}",
            window_columns(&view.finish),
            unique_key(&view.finish),
            words(exact(&view.finish), settled(&view.finish))
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_known_of_queries() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("access.log"), "").unwrap();
        let config = Config { data_dir: Some(dir.path().join("data")), ..Config::default() };
        let engine = sql::open(config, Clock::system()).await.unwrap();
        let session = Session::new(engine.clone());
        let path = dir.path().join("access.log").display().to_string();
        let create = format!(
            "CREATE TABLE access WITH (connector = 'file', path = '{path}') FORMAT COMBINED;
             CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, path, count(*) AS n
             FROM TUMBLE(access, ts, INTERVAL '1 second') GROUP BY window_start, window_end, path;
             CREATE MATERIALIZED VIEW w AS SELECT window_start, sum(bytes) AS bytes, avg(status) AS mean
             FROM TUMBLE(access, ts, INTERVAL '1 second') GROUP BY window_start"
        );
        session.run_text(&create).await.unwrap();
        for (query, expected) in [
            ("SELECT * FROM v", "Some({0: 0, 1: 1s}) Some([0, 2]) exact, settled"),
            ("SELECT n, path, window_end FROM v WHERE n > 2", "Some({2: 1s}) Some([2, 1]) exact, settled"),
            ("SELECT window_end - INTERVAL '1 second' AS s, n FROM v", "Some({0: 0}) None exact, settled"),
            ("SELECT path, n FROM v", "Some({}) None exact, settled"),
            ("SELECT count(*) FROM access", "None Some([]) exact, settled"),
            ("SELECT status, max(bytes) FROM access GROUP BY 1", "None Some([0]) exact, settled"),
            ("SELECT * FROM w", "Some({0: 0}) Some([0]) exact, settled"),
            (
                "SELECT window_start, stddev(bytes) FROM TUMBLE(access, ts, INTERVAL '1 second') GROUP BY 1",
                "Some({0: 0}) Some([0]) settled",
            ),
            (
                "SELECT v.path, w.bytes, w.window_start FROM v JOIN w ON v.window_start = w.window_start",
                "Some({2: 0}) Some([2, 0]) exact, settled",
            ),
            ("SELECT v.path, w.bytes FROM v JOIN w ON v.window_end = w.window_start", "None None exact, settled"),
            (
                "SELECT v.window_start, v.path, w.bytes FROM v LEFT JOIN w USING (window_start)",
                "Some({0: 0}) Some([0, 1]) exact, settled",
            ),
            (
                "SELECT v.window_start, w.window_start FROM v FULL JOIN w ON v.window_start = w.window_start",
                "Some({}) None exact, settled",
            ),
            ("SELECT window_start, sum(n) FROM v GROUP BY window_start", "Some({0: 0}) Some([0]) exact, settled"),
            ("SELECT path, sum(n) FROM v GROUP BY path", "None Some([0]) exact, settled"),
            ("SELECT DISTINCT window_start, n FROM v", "Some({0: 0}) Some([0, 1]) exact, settled"),
            (
                "SELECT *, rank() OVER (PARTITION BY window_start ORDER BY n) FROM v",
                "Some({0: 0, 1: 1s}) Some([0, 2]) settled",
            ),
            ("SELECT *, lag(n) OVER (ORDER BY window_start) FROM v", "None Some([0, 2]) settled"),
            ("SELECT * FROM v ORDER BY n LIMIT 3", "None Some([0, 2]) exact, settled"),
            ("SELECT * FROM v ORDER BY n", "Some({0: 0, 1: 1s}) Some([0, 2]) exact, settled"),
            ("SELECT * FROM v WHERE window_start > now()", "Some({0: 0, 1: 1s}) Some([0, 2]) exact"),
            ("SELECT * FROM v WHERE n = (SELECT max(n) FROM v)", "None Some([0, 2]) exact, settled"),
            (
                "SELECT window_start, n FROM v UNION ALL SELECT window_start, bytes FROM w",
                "Some({0: 0}) None exact, settled",
            ),
        ] {
            let expected = expected.replace("1s", "1000000");
            assert_eq!(nature(&session, query).await, expected, "{query}");
        }
        engine.shutdown().await;
    }
}
