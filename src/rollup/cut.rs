//! Turns one aggregate over a stream into what is maintained of it and the projection that stands for it.
//!
//! What is maintained may differ from what was written:
//!
//! - A bound of a tumbling window that follows from the other is not grouped by: the projection computes it.
//! - HOP and CUMULATE become panes. All bounds then hold the pane's start, and the window's id once panes are spread; the
//!   projection computes start and end from the id.
//! - SESSION becomes pieces of sessions, grouped by both bounds.
//!
//! All three need that nothing but the grouping looks at the bounds. For the first two there is a way out (group by both,
//! fold into windows); sessions are refused.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result as DfResult};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, Extension, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    SubqueryAlias, UserDefinedLogicalNode,
};

use super::interval::Partner;
use super::lineage::Role;
use super::plan::{Definition, Emission, LateColumns, Pane, Slot};
use super::reference::{conditions, join_column, stream_side, values_of};
use super::session::{Columns, SessionNode};
use super::spread::WindowNode;
use super::timeliness::{CLOSED_TO, Timeliness};
use super::window::{Bound, WINDOW_END, WINDOW_START, Window, as_window, constant, interval_micros};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::mutation::{Mutation, on};

/// Turns one aggregate into a slot and the plan that stands for it: a projection over the slot with the very
/// columns of the aggregate. `partner`: the stream that the first one is joined with.
pub fn cut(
    aggregate: Aggregate,
    stream: String,
    partner: Option<Partner>,
    emission: &Emission,
) -> DfResult<LogicalPlan> {
    let original = Arc::clone(&aggregate.schema);
    let groups = Groups::new(&aggregate)?;
    let pure = groups.origins.iter().all(|o| *o != Origin::Mixed)
        && aggregate.aggr_expr.iter().all(|e| origin(e, &aggregate.input) == Origin::Pure)
        && filters_pure(&aggregate.input);

    let session = node_of::<SessionNode>(&aggregate.input);
    let paned = session.is_none() && pure && groups.paned();
    let (input, bounds) = match session {
        Some(node) => {
            groups.check_session(node, &aggregate.input, pure)?;
            pieces_for_sessions(&aggregate.input, &groups)?
        }
        None if paned => (panes_for_windows(&aggregate.input)?, vec![]),
        None => (aggregate.input.as_ref().clone(), vec![]),
    };

    // Which columns are kept, and where; the others follow from one that is.
    let usable = |window: &Window| paned || !window.spreads();
    let mut kept = Vec::new();
    let mut places = Vec::new();
    for (i, column) in groups.columns.iter().enumerate() {
        let base = groups.base(i).filter(|_| groups.origins[i].over().is_some_and(|over| usable(&over.window)));
        places.push(match base {
            Some(base) if base != i => Place::Follows(base),
            _ => {
                kept.push(column.clone());
                Place::Kept(kept.len() - 1)
            }
        });
    }
    let place = |i: usize| match places[i] {
        Place::Kept(place) => place,
        Place::Follows(base) => match places[base] {
            Place::Kept(place) => place,
            Place::Follows(_) => unreachable!("a column that others follow from is kept"),
        },
    };

    // The column that says which window.
    let leading = (0..places.len()).filter(|&i| groups.everywhere[i]);
    let mut leading: Vec<(usize, &Over)> = leading
        .filter_map(|i| match &groups.origins[i] {
            Origin::Start(over) | Origin::End(over) if usable(&over.window) && groups.origins[i].identifies() => {
                Some((i, over))
            }
            _ => None,
        })
        .collect();
    leading.sort_by_key(|(_, over)| over.window.of_a_row());
    let mut pane = leading.first().map(|(i, over)| Pane { column: place(*i), window: over.window });
    let mut time = leading.first().and_then(|(_, over)| over.column.then(|| over.time.clone()));
    let twins = match leading.first() {
        Some((first, over)) if over.window.spreads() => {
            let same = |i: &usize| *i != *first && groups.origins[*i].over() == Some(over);
            (0..places.len()).filter(same).filter(|&i| matches!(places[i], Place::Kept(_))).map(place).collect()
        }
        _ => vec![],
    };
    let session = match session {
        Some(node) => {
            let added: Vec<usize> = (kept.len()..kept.len() + bounds.len()).collect();
            let (columns, over) = groups.session_columns(node, &aggregate.input, &place, &added);
            pane = Some(Pane { column: columns.start, window: node.window() });
            time = over.column.then_some(over.time);
            Some(columns)
        }
        None => None,
    };
    kept.extend(bounds);

    // Windows over the stream's event time close.
    let in_several = pane.is_some_and(|pane| pane.window.spreads());
    let closes = time.is_some() && time == (emission.time_of)(&stream) && !(in_several && groups.sets.is_some());
    if let (true, Some(partner)) = (emission.on_close, &partner) {
        return Err(no_close_over_joins(&stream, &partner.stream).into());
    }
    if emission.on_close && !closes {
        return Err(no_windows_to_close().into());
    }
    let mut aggregates = aggregate.aggr_expr.clone();
    let (mut input, mut late) = (input, None);
    if closes {
        let (carried, closed_to) = carry_closed_to(&input)?;
        input = carried;
        let closed_to = Expr::Column(closed_to);
        late = Some(LateColumns { closed_to: in_several.then_some(kept.len()), count: None });
        if in_several {
            kept.push(closed_to.clone());
        }
        if !emission.on_close {
            aggregates.push(count(closed_to).alias(LATE));
        }
    }
    let shift = |i: usize| i - groups.columns.len() + kept.len();
    let kept_exprs = groups.regroup(kept.clone());

    let maintained = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), kept_exprs, aggregates)?);
    // Any may be NULL: what the operators and the plan say of that differs at times.
    let fields = maintained.schema().fields().iter().enumerate();
    let schema = Arc::new(Schema::new(
        fields.map(|(i, f)| Field::new(format!("c{i}"), f.data_type().clone(), true)).collect::<Vec<_>>(),
    ));
    let read = partner.as_ref().map_or_else(|| stream.clone(), |partner| format!("{stream}, {}", partner.stream));
    let key = format!("{read}\n{}{}", maintained.display_indent_schema(), values_of(&maintained));
    if let Some(late) = late.as_mut().filter(|_| !emission.on_close) {
        late.count = Some(schema.fields().len() - 1);
    }
    // What rows are late for depends on the view; hops of several widths share their panes only if none are left out.
    let (timeliness, lateness) = match emission.on_close {
        true => (Timeliness::OnTime, emission.lateness),
        false => (Timeliness::All, if closes { emission.lateness } else { 0 }),
    };
    let of_time = if emission.on_close { format!("{:?}", pane.map(|p| p.window)) } else { String::new() };
    let mut key = format!("{key}\nlateness {lateness}{of_time}");
    if on(Mutation::SharingIgnoresFilters) {
        key = key.lines().filter(|line| !line.trim_start().starts_with("Filter")).collect();
    }
    let definition = Definition {
        stream,
        partner,
        aggregate: maintained.into(),
        schema,
        pane,
        twins,
        session,
        time,
        timeliness,
        late,
        lateness,
        key,
    };
    let roles = original.fields().iter().enumerate().map(|(i, _)| match groups.origins.get(i) {
        Some(Origin::Start(over)) if pane.is_some_and(|pane| pane.window == over.window) => Role::Start,
        Some(Origin::End(over)) if pane.is_some_and(|pane| pane.window == over.window) => Role::End,
        Some(_) => Role::Key,
        None => Role::Value,
    });
    let slot = Arc::new(Slot::new(definition, roles.collect()));

    let scan = LogicalPlanBuilder::scan("rollup", provider_as_source(slot as _), None)?.build()?;
    let slot_column = |i: usize| Expr::Column(Column::new(Some("rollup"), format!("c{i}")));
    let mut outputs = Vec::new();
    for (i, (qualifier, field)) in original.iter().enumerate() {
        let expr = match places.get(i) {
            // Grouping ids and aggregates keep their order behind the group columns.
            None => slot_column(shift(i)),
            Some(placed) => {
                let id = slot_column(place(i));
                let follows = matches!(placed, Place::Follows(_));
                match &groups.origins[i] {
                    Origin::Start(over) if follows || (paned && over.window.spreads()) => over.window.start_of(id),
                    Origin::End(over) if follows || (paned && over.window.spreads()) => over.window.end_of(id),
                    _ => id,
                }
            }
        };
        outputs.push(expr.alias_qualified(qualifier.cloned(), field.name()));
    }
    LogicalPlanBuilder::from(scan).project(outputs)?.build()
}

/// Name of the hidden aggregate that counts rows which came when their window was closed.
const LATE: &str = "__late";

fn no_windows_to_close() -> Error {
    Error::new(Kind::NotSupported, "EMIT ON WINDOW CLOSE needs windows over the stream's event time")
        .with_detail("A window closes when the stream's watermark passes its end; this aggregate has no such window.")
        .with_hint("Group by window_start and window_end of TUMBLE, HOP, CUMULATE or SESSION over the column that the WATERMARK is for.")
}

fn no_close_over_joins(left: &str, right: &str) -> Error {
    Error::new(
        Kind::NotSupported,
        format!("EMIT ON WINDOW CLOSE cannot be used over a join of streams \"{left}\" and \"{right}\""),
    )
    .with_detail("When a window over rows of two streams is complete, neither stream's watermark says alone.")
    .with_hint("Leave EMIT ON WINDOW CLOSE out: the view then always shows the latest.")
}

/// Hands [`CLOSED_TO`] up from the stream through all operators below an aggregate.
fn carry_closed_to(plan: &LogicalPlan) -> DfResult<(LogicalPlan, Column)> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let mut fields: Vec<_> = scan.source.schema().fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(CLOSED_TO, timestamp_type(), true)));
            let table = Arc::new(EmptyTable::new(Arc::new(Schema::new(fields))));
            let name = scan.table_name.clone();
            let scan = LogicalPlanBuilder::scan(name.clone(), provider_as_source(table), None)?.build()?;
            Ok((scan, Column::new(Some(name), CLOSED_TO)))
        }
        LogicalPlan::Projection(projection) => {
            let (input, column) = carry_closed_to(&projection.input)?;
            let mut columns = projection.expr.clone();
            columns.push(Expr::Column(column.clone()));
            Ok((LogicalPlan::Projection(Projection::try_new(columns, Arc::new(input))?), column))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, _) = carry_closed_to(&alias.input)?;
            let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?);
            Ok((plan, Column::new(Some(alias.alias.clone()), CLOSED_TO)))
        }
        LogicalPlan::Join(join) => {
            let side = stream_side(join).ok_or_else(|| Error::internal("a join below an aggregate has a stream"))?;
            let (carried, column) = carry_closed_to(side)?;
            let left = std::ptr::eq(side.as_ref(), join.left.as_ref());
            let other = if left { join.right.as_ref().clone() } else { join.left.as_ref().clone() };
            let inputs = if left { vec![carried, other] } else { vec![other, carried] };
            Ok((plan.with_new_exprs(plan.expressions(), inputs)?, column))
        }
        _ => {
            let (input, column) = carry_closed_to(plan.inputs()[0])?;
            Ok((plan.with_new_exprs(plan.expressions(), vec![input])?, column))
        }
    }
}

/// Where a group column is in what is maintained.
#[derive(Clone, Copy)]
enum Place {
    Kept(usize),
    /// It is computed from this other group column.
    Follows(usize),
}

/// The group columns of an aggregate.
struct Groups {
    columns: Vec<Expr>,
    origins: Vec<Origin>,
    /// Whether each column is in all grouping sets.
    everywhere: Vec<bool>,
    sets: Option<GroupingSet>,
}

impl Groups {
    fn new(aggregate: &Aggregate) -> DfResult<Groups> {
        let columns: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        let sets = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(sets)] => Some(sets.clone()),
            _ => None,
        };
        let everywhere = columns.iter().map(|column| match &sets {
            Some(GroupingSet::GroupingSets(sets)) => sets.iter().all(|set| set.contains(column)),
            Some(GroupingSet::Rollup(_) | GroupingSet::Cube(_)) => false,
            None => true,
        });
        let everywhere = everywhere.collect();
        let origins = columns.iter().map(|e| origin(e, &aggregate.input)).collect();
        Ok(Groups { columns, origins, everywhere, sets })
    }

    /// Whether hopping or cumulating windows can be folded by panes: every row must say which pane it is of.
    fn paned(&self) -> bool {
        let is = |(origin, everywhere): (&Origin, &bool)| {
            *everywhere && origin.identifies() && origin.over().is_some_and(|over| over.window.spreads())
        };
        self.origins.iter().zip(&self.everywhere).any(is)
    }

    /// The column from which column `i` follows (perhaps itself), if it is a bound of a window. In grouping sets each
    /// column is NULL on its own.
    fn base(&self, i: usize) -> Option<usize> {
        let over = self.origins[i].over().filter(|over| self.sets.is_none() && !over.window.is_session())?;
        self.origins.iter().position(|o| o.identifies() && o.over() == Some(over))
    }

    /// The columns as group expressions of an aggregate.
    fn regroup(&self, kept: Vec<Expr>) -> Vec<Expr> {
        match &self.sets {
            Some(sets) => vec![Expr::GroupingSet(sets.clone())],
            None => kept,
        }
    }

    /// Refuses what cannot be computed from pieces of sessions.
    fn check_session(&self, node: &SessionNode, input: &LogicalPlan, pure: bool) -> Result<()> {
        let refuse = |message: &str, hint: &str| {
            Err(Error::new(Kind::NotSupported, message).with_hint(hint).with_detail(format!(
                "Plan node: {}.",
                LogicalPlan::Extension(Extension { node: Arc::new(node.clone()) }).display()
            )))
        };
        if !pure {
            return refuse(
                "a materialized view cannot compute with the bounds of a session below its aggregate",
                "Group by window_start and window_end as they are, and compute with them in an outer query or in HAVING.",
            );
        }
        if !filters_keep_sessions(input) {
            return refuse(
                "a filter above SESSION, or a join, would take rows out of sessions",
                "Filter and join inside, SESSION((SELECT … WHERE …) PARTITION BY …), or per aggregate: count(*) FILTER (WHERE …).",
            );
        }
        let bounds: Vec<usize> = (0..self.columns.len()).filter(|&i| self.origins[i].is_session()).collect();
        if bounds.is_empty() {
            return refuse(
                "a view over SESSION must be grouped by the sessions",
                "Add window_start and window_end to GROUP BY, or leave SESSION out.",
            );
        }
        for (key, name) in session_keys(node).into_iter().zip(node.key_names()) {
            let found = (0..self.columns.len())
                .any(|i| self.everywhere[i] && key.is_some() && session_column(&self.columns[i], input) == key);
            if !found {
                return refuse(
                    &format!("a view over SESSION must be grouped by its PARTITION BY column \"{name}\""),
                    &format!("Add {name} to GROUP BY: sessions of different keys are different windows."),
                );
            }
        }
        let both =
            |bound: fn(&Origin) -> bool| (0..self.columns.len()).any(|i| self.everywhere[i] && bound(&self.origins[i]));
        if self.sets.is_some()
            && !(both(|o| matches!(o, Origin::Start(over) if over.window.is_session()))
                && both(|o| matches!(o, Origin::End(over) if over.window.is_session())))
        {
            return refuse(
                "every grouping set over SESSION must have window_start and window_end",
                "Write GROUP BY window_start, window_end, ROLLUP (…).",
            );
        }
        Ok(())
    }

    /// Where start, end and keys of the sessions are, once columns that were not grouped by are `added`.
    fn session_columns(
        &self,
        node: &SessionNode,
        input: &LogicalPlan,
        place: &dyn Fn(usize) -> usize,
        added: &[usize],
    ) -> (Columns, Over) {
        let mut over = None;
        let mut bound = |of: fn(&Origin) -> Option<&Over>| {
            let found = self.origins.iter().position(|o| of(o).is_some_and(|o| o.window.is_session()));
            over = over.take().or_else(|| found.and_then(|i| of(&self.origins[i]).cloned()));
            found.map(place)
        };
        let start = bound(|o| if let Origin::Start(over) = o { Some(over) } else { None });
        let end = bound(|o| if let Origin::End(over) = o { Some(over) } else { None });
        let added = added.first().copied();
        let keys = session_keys(node).into_iter();
        let key_of =
            |key: Option<usize>| (0..self.columns.len()).find(|&i| session_column(&self.columns[i], input) == key);
        let columns = Columns {
            keys: keys.filter_map(key_of).map(place).collect(),
            start: start.or(added).expect("checked: grouped by a bound, and the other is added"),
            end: end.or(added).expect("checked: grouped by a bound, and the other is added"),
        };
        (columns, over.expect("checked: grouped by a bound"))
    }
}

/// A window over a time.
#[derive(Debug, Clone, PartialEq)]
struct Over {
    window: Window,
    /// The time, as far down as it can be followed.
    time: String,
    /// Whether that is a column of the stream.
    column: bool,
}

/// What an expression is with respect to windows.
#[derive(Debug, Clone, PartialEq)]
enum Origin {
    Start(Over),
    End(Over),
    /// Does not depend on bounds that are not known when a row is folded.
    Pure,
    /// Computed from such bounds.
    Mixed,
}

impl Origin {
    fn over(&self) -> Option<&Over> {
        match self {
            Origin::Start(over) | Origin::End(over) => Some(over),
            Origin::Pure | Origin::Mixed => None,
        }
    }

    /// Whether this bound alone says which window: cumulating windows start together, and those that a row tells are
    /// known by their start.
    fn identifies(&self) -> bool {
        match self {
            Origin::Start(over) => !matches!(over.window, Window::Cumulate { .. }),
            Origin::End(over) => over.window.spreads(),
            Origin::Pure | Origin::Mixed => false,
        }
    }

    fn is_session(&self) -> bool {
        self.over().is_some_and(|over| over.window.is_session())
    }

    /// Whether this is a bound that is known only when panes or pieces are read.
    fn is_late(&self) -> bool {
        self.over().is_some_and(|over| !over.window.of_a_row())
    }
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
        index.map(|i| column_origin(i, input)).is_none_or(|o| o != Origin::Mixed && !o.is_late())
    });
    if !pure {
        return Origin::Mixed;
    }
    if let Some((window, time)) = as_window(expr) {
        return Origin::Start(over(window, time, input));
    }
    // How a tumbling window's end is written: `start + size`, or a function of its own.
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match origin(left, input) {
            Origin::Start(over) if over.window.pane().is_some_and(|size| Some(size) == width(right)) => {
                Origin::End(over)
            }
            _ => Origin::Pure,
        },
        _ => match Bound::as_end(expr) {
            Some((window, time)) => Origin::End(over(window, time, input)),
            None => Origin::Pure,
        },
    }
}

fn width(expr: &Expr) -> Option<i64> {
    interval_micros(&constant(expr)?)
}

fn over(window: Window, time: &Expr, input: &LogicalPlan) -> Over {
    let (time, column) = source(time, input);
    Over { window, time, column }
}

/// Follows an expression down to the stream; says whether it is a column of it.
fn source(expr: &Expr, input: &LogicalPlan) -> (String, bool) {
    match expr {
        Expr::Alias(alias) => source(&alias.expr, input),
        Expr::Column(column) => match input.schema().maybe_index_of_column(column) {
            Some(index) => column_source(index, input),
            None => (expr.to_string(), false),
        },
        _ => (expr.to_string(), false),
    }
}

/// The column of the stream that column `index` of a chain's result hands through unchanged, under whatever name.
pub fn stream_column(index: usize, plan: &LogicalPlan) -> Option<String> {
    let (name, column) = column_source(index, plan);
    column.then_some(name)
}

fn column_source(index: usize, plan: &LogicalPlan) -> (String, bool) {
    let unknown = || (plan.schema().field(index).name().clone(), false);
    match plan {
        LogicalPlan::Projection(p) => source(&p.expr[index], &p.input),
        LogicalPlan::SubqueryAlias(a) => column_source(index, &a.input),
        LogicalPlan::Filter(f) => column_source(index, &f.input),
        LogicalPlan::Join(join) => match (join_column(join, index), column_of_two(join, index)) {
            (Some((side, i)), _) => column_source(i, side),
            (None, Some((side, i, which))) => (format!("{which} {}", column_source(i, side).0), false),
            (None, None) => unknown(),
        },
        LogicalPlan::TableScan(scan) => (scan.projected_schema.field(index).name().clone(), true),
        LogicalPlan::Extension(e) => match input_of(e) {
            Some(input) if index < input.schema().fields().len() => column_source(index, input),
            _ => unknown(),
        },
        _ => unknown(),
    }
}

fn column_origin(index: usize, plan: &LogicalPlan) -> Origin {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(index).map_or(Origin::Pure, |e| origin(e, &p.input)),
        LogicalPlan::SubqueryAlias(a) => column_origin(index, &a.input),
        LogicalPlan::Filter(f) => column_origin(index, &f.input),
        LogicalPlan::Extension(e) => {
            let (window, time) = match (as_node::<WindowNode>(e), as_node::<SessionNode>(e)) {
                (Some(node), _) => (node.window, &node.time),
                (_, Some(node)) => (node.window(), &node.time),
                (None, None) => return Origin::Pure,
            };
            let Some(input) = input_of(e) else { return Origin::Pure };
            match index.checked_sub(input.schema().fields().len()) {
                Some(0) => Origin::Start(over(window, time, input)),
                Some(_) => Origin::End(over(window, time, input)),
                None => column_origin(index, input),
            }
        }
        LogicalPlan::Join(join) => match (join_column(join, index), column_of_two(join, index)) {
            (Some((side, i)), _) => column_origin(i, side),
            (None, Some((side, i, which))) => {
                let here = |over: Over| Over { time: format!("{which} {}", over.time), column: false, ..over };
                match column_origin(i, side) {
                    Origin::Start(over) => Origin::Start(here(over)),
                    Origin::End(over) => Origin::End(here(over)),
                    other => other,
                }
            }
            (None, None) => Origin::Pure,
        },
        _ => Origin::Pure,
    }
}

/// Of a join of two streams: the side that a column of its result comes from, its place there, and which side that is.
/// Both streams may have a column of the same name.
fn column_of_two(join: &Join, index: usize) -> Option<(&LogicalPlan, usize, &'static str)> {
    if stream_side(join).is_some() {
        return None;
    }
    Some(match index.checked_sub(join.left.schema().fields().len()) {
        None => (&join.left, index, "left"),
        Some(index) => (&join.right, index, "right"),
    })
}

fn as_node<T: UserDefinedLogicalNode + 'static>(extension: &Extension) -> Option<&T> {
    extension.node.as_any().downcast_ref::<T>()
}

/// The input of a window's operator: what [`super::plan`] may follow down to the stream.
pub fn input_of(extension: &Extension) -> Option<&LogicalPlan> {
    let window = as_node::<WindowNode>(extension).map(|node| &node.input);
    window.or_else(|| as_node::<SessionNode>(extension).map(|node| &node.input))
}

/// The first operator of this type on the way down.
fn node_of<T: UserDefinedLogicalNode + 'static>(plan: &LogicalPlan) -> Option<&T> {
    match plan {
        LogicalPlan::Extension(e) if as_node::<T>(e).is_some() => as_node::<T>(e),
        _ => plan.inputs().into_iter().find_map(node_of::<T>),
    }
}

/// Whether no filter and no join looks at bounds that are not known when a row is folded.
fn filters_pure(plan: &LogicalPlan) -> bool {
    let pure = |expr: &Expr, input: &LogicalPlan| match origin(expr, input) {
        Origin::Pure => true,
        // A comparison of a bound that the row tells.
        other => other.over().is_some() && !other.is_late(),
    };
    let own = match plan {
        LogicalPlan::Filter(f) => pure(&f.predicate, &f.input) && !looks_outside(&f.predicate),
        LogicalPlan::Join(join) => stream_side(join).is_none_or(|side| conditions(join).all(|e| pure(e, side))),
        _ => true,
    };
    own && plan.inputs().into_iter().all(filters_pure)
}

/// Whether a subquery in this expression uses columns of the row around it.
fn looks_outside(expr: &Expr) -> bool {
    let correlated = |e: &Expr| {
        Ok(match e {
            Expr::ScalarSubquery(s) => !s.outer_ref_columns.is_empty(),
            Expr::InSubquery(s) => !s.subquery.outer_ref_columns.is_empty(),
            Expr::Exists(s) => !s.subquery.outer_ref_columns.is_empty(),
            _ => false,
        })
    };
    expr.exists(correlated).unwrap_or(true)
}

// ---- sessions ---------------------------------------------------------------------------------------------------------

/// Places of the keys among the columns of a session window.
fn session_keys(node: &SessionNode) -> Vec<Option<usize>> {
    let place = |key: &Expr| match key {
        Expr::Column(column) => node.input.schema().maybe_index_of_column(column),
        _ => None,
    };
    node.keys.iter().map(place).collect()
}

/// The column of the session window below that an expression is, as it stands.
fn session_column(expr: &Expr, input: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => session_column(&alias.expr, input),
        Expr::Column(column) => {
            let index = input.schema().maybe_index_of_column(column)?;
            match input {
                LogicalPlan::Projection(p) => session_column(&p.expr[index], &p.input),
                LogicalPlan::SubqueryAlias(a) => {
                    let (qualifier, field) = a.input.schema().qualified_field(index);
                    session_column(&Expr::Column(Column::from((qualifier, field))), &a.input)
                }
                LogicalPlan::Filter(f) => session_column(expr, &f.input),
                LogicalPlan::Join(join) => {
                    let (side, index) = join_column(join, index)?;
                    let (qualifier, field) = side.schema().qualified_field(index);
                    session_column(&Expr::Column(Column::from((qualifier, field))), side)
                }
                LogicalPlan::Extension(e) if as_node::<SessionNode>(e).is_some() => Some(index),
                LogicalPlan::Extension(e) => session_column(expr, input_of(e)?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether filters and joins above a session window let whole sessions pass: filters on nothing but its keys do, and
/// joins that keep all rows.
fn filters_keep_sessions(plan: &LogicalPlan) -> bool {
    let Some(node) = node_of::<SessionNode>(plan) else { return true };
    let keys = session_keys(node);
    let own = match plan {
        LogicalPlan::Filter(f) => {
            let of_keys = f.predicate.column_refs().into_iter().all(|column| {
                let found = session_column(&Expr::Column(column.clone()), &f.input);
                found.is_some() && keys.contains(&found)
            });
            of_keys && !looks_outside(&f.predicate)
        }
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::Left | JoinType::LeftMark => node_of::<SessionNode>(&join.left).is_some(),
            JoinType::Right | JoinType::RightMark => node_of::<SessionNode>(&join.right).is_some(),
            JoinType::Full => true,
            JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti => {
                false
            }
        },
        LogicalPlan::Extension(e) if as_node::<SessionNode>(e).is_some() => return true,
        _ => true,
    };
    own && plan.inputs().into_iter().all(filters_keep_sessions)
}

const PIECE_START: &str = "__session_start";
const PIECE_END: &str = "__session_end";

/// Lets the session window make pieces. Bounds that are not grouped by are passed up, and returned to be grouped by.
fn pieces_for_sessions(plan: &LogicalPlan, groups: &Groups) -> DfResult<(LogicalPlan, Vec<Expr>)> {
    let has = |bound: fn(&Origin) -> bool| groups.origins.iter().any(|o| o.is_session() && bound(o));
    let mut missing = Vec::new();
    if !has(|o| matches!(o, Origin::Start(_))) {
        missing.push((WINDOW_START, PIECE_START));
    }
    if !has(|o| matches!(o, Origin::End(_))) {
        missing.push((WINDOW_END, PIECE_END));
    }
    let passed = |plan: &LogicalPlan| -> Vec<Expr> {
        let fields =
            missing.iter().filter_map(|(_, name)| plan.schema().qualified_field_with_unqualified_name(name).ok());
        fields.map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field)))).collect()
    };
    let replaced = plan.clone().transform_up(|node| match &node {
        LogicalPlan::Extension(e) => {
            let Some(session) = as_node::<SessionNode>(e) else { return node.recompute_schema().map(Transformed::yes) };
            let pieces = LogicalPlan::Extension(Extension { node: Arc::new(session.of_pieces()) });
            let mut columns: Vec<Expr> = pieces.schema().columns().into_iter().map(Expr::Column).collect();
            columns.extend(missing.iter().map(|(name, piece)| Expr::Column(Column::from_name(*name)).alias(*piece)));
            LogicalPlanBuilder::from(pieces).project(columns)?.build().map(Transformed::yes)
        }
        LogicalPlan::Projection(p) => {
            let mut columns = p.expr.clone();
            columns.extend(passed(&p.input));
            LogicalPlanBuilder::from(p.input.as_ref().clone()).project(columns)?.build().map(Transformed::yes)
        }
        LogicalPlan::TableScan(_) => Ok(Transformed::no(node)),
        _ => node.recompute_schema().map(Transformed::yes),
    })?;
    let added = passed(&replaced.data);
    Ok((replaced.data, added))
}

/// Replaces a hopping or cumulating window by the pane of each row: one output row per input row. Both bounds hold the
/// pane's start until the pane is spread over its windows when read.
fn panes_for_windows(plan: &LogicalPlan) -> DfResult<LogicalPlan> {
    let replaced = plan.clone().transform_up(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        let Some(window) = as_node::<WindowNode>(extension) else { return Ok(Transformed::no(node)) };
        let pane = Bound::start(window.window.panes(), window.time.clone());
        let mut columns: Vec<Expr> = window.input.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(pane.clone().alias(WINDOW_START));
        columns.push(pane.alias(WINDOW_END));
        LogicalPlanBuilder::from(window.input.clone()).project(columns)?.build().map(Transformed::yes)
    })?;
    Ok(replaced.data)
}

#[cfg(test)]
mod tests;
