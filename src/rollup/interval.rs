//! Interval joins: two streams joined by a key and a bound on the time between their rows.
//!
//! ```text
//!     FROM requests q JOIN responses r ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '30 seconds'
//!                                                     ──────► r.ts - q.ts is in [0 s, 30 s]
//! ```
//!
//! Receives what stands below an aggregate; hands on which streams are joined and how far apart in time their rows may
//! be. The bound is what makes such a join possible: a row meets only rows of the other stream that are near to it in
//! event time, so finding them never takes the whole stream. Without it, and wherever else a join cannot be kept up to
//! date, the view is refused with what to write instead.

use datafusion::common::JoinType;
use datafusion::logical_expr::expr::{Between, Cast};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator, TableScan};

use super::cut::input_of;
use super::reference::is_constant;
use super::window::{constant, interval_micros};
use crate::error::{Error, Kind, Result};
use crate::time::Micros;

/// The second stream of a join; the first is its definition's.
#[derive(Debug, Clone, PartialEq)]
pub struct Partner {
    pub stream: String,
    /// How much later than a row of the first stream a row of this one is: at least and at most.
    pub later: (Micros, Micros),
}

impl Partner {
    /// The same, a little wider: of a bound in finer units a part was cut off.
    pub fn reach(&self) -> (Micros, Micros) {
        (self.later.0.saturating_sub(1), self.later.1.saturating_add(1))
    }
}

/// How streams are recognised, and what is known of them.
pub struct Streams<'a> {
    /// The stream that a scan reads, if it reads one.
    pub of: &'a dyn Fn(&TableScan) -> Option<String>,
    /// Its event-time column.
    pub time_of: &'a dyn Fn(&str) -> Option<String>,
}

/// The streams that are joined below an aggregate: the first one's name, and the second. `None` when `plan` is not a
/// chain of operators over a join of two streams.
pub fn joined(plan: &LogicalPlan, streams: &Streams) -> Result<Option<(String, Partner)>> {
    let Some(found) = find(plan, Vec::new(), streams) else { return Ok(None) };
    let join = found.join;
    let (Some(left), Some(right)) = (first_stream(&join.left, streams), first_stream(&join.right, streams)) else {
        return Ok(None);
    };
    let refuse = |message: String, hint: &str| {
        let detail = format!("Plan node: {}.", LogicalPlan::Join(join.clone()).display());
        Err(Error::new(Kind::NotSupported, message).with_detail(detail).with_hint(hint))
    };
    let both = format!("streams \"{left}\" and \"{right}\"");
    match join.join_type {
        JoinType::Inner | JoinType::Left => {}
        JoinType::Right => {
            return refuse(
                format!("a RIGHT JOIN of {both} cannot be kept up to date"),
                "Swap the streams and write LEFT JOIN.",
            );
        }
        other => {
            return refuse(
                format!("a {} JOIN of {both} cannot be kept up to date", other.to_string().to_uppercase()),
                "Write JOIN or LEFT JOIN, or aggregate each stream by itself and join the results.",
            );
        }
    }
    if !found.plain || !plain(&join.left, streams) || !plain(&join.right, streams) {
        return refuse(
            format!("a join of {both} cannot be kept up to date with what else stands below the aggregate"),
            "Join two streams and nothing else below the aggregate: windows go around the join, TUMBLE((SELECT … FROM a JOIN b …), ts, …) or date_trunc() in GROUP BY; tables and further streams are joined with the result.",
        );
    }
    if left == right {
        return refuse(
            format!("stream \"{left}\" cannot be joined with itself below an aggregate"),
            "Aggregate it twice and join the results, or read it into two streams.",
        );
    }
    let (Some(left_time), Some(right_time)) = ((streams.time_of)(&left), (streams.time_of)(&right)) else {
        return refuse(
            format!("{both} cannot be joined: one of them has no event time"),
            "Say which column it is: CREATE TABLE … (*, WATERMARK FOR column AS column - INTERVAL '5 seconds').",
        );
    };
    if !found.has_key(&left, &right, streams) {
        return refuse(
            format!("the join of {both} has no key"),
            "Compare a column of one with a column of the other: ON a.id = b.id AND ….",
        );
    }
    match found.bounds(&left, &right, streams) {
        (Some(low), Some(high)) => Ok(Some((left, Partner { stream: right, later: (low, high) }))),
        (low, high) => {
            let missing = match (low, high) {
                (None, None) => "is not bounded",
                (None, Some(_)) => "has no lower bound",
                (Some(_), _) => "has no upper bound",
            };
            refuse(
                format!(
                    "the time between the rows that a join of {both} brings together {missing}, so rows would have to be found however old they are"
                ),
                &format!(
                    "Add a bound on their event times to ON, such as \"{right}\".{right_time} BETWEEN \"{left}\".{left_time} AND \"{left}\".{left_time} + INTERVAL '30 seconds'; an interval of days or less."
                ),
            )
        }
    }
}

/// Whether a plan is a chain of operators over a join of two streams, whatever that looks like otherwise.
pub fn is_join(plan: &LogicalPlan, stream_of: &dyn Fn(&TableScan) -> Option<String>) -> bool {
    find(plan, Vec::new(), &Streams { of: stream_of, time_of: &|_| None }).is_some()
}

/// A join of two streams with the conditions that its rows meet, each with the plan whose columns it names.
struct Found<'a> {
    join: &'a Join,
    conditions: Vec<(&'a Expr, &'a LogicalPlan)>,
    /// Nothing but filters, projections and windows stands above.
    plain: bool,
}

/// Goes down a chain of operators to the join of two streams.
fn find<'a>(
    plan: &'a LogicalPlan,
    mut conditions: Vec<(&'a Expr, &'a LogicalPlan)>,
    streams: &Streams,
) -> Option<Found<'a>> {
    match plan {
        LogicalPlan::Filter(filter) => {
            conditions.push((&filter.predicate, &filter.input));
            find(&filter.input, conditions, streams)
        }
        LogicalPlan::Projection(p) => find(&p.input, conditions, streams),
        LogicalPlan::SubqueryAlias(a) => find(&a.input, conditions, streams),
        LogicalPlan::Extension(e) => input_of(e).and_then(|input| find(input, conditions, streams)),
        LogicalPlan::Join(join) => {
            let below = |side| find(side, Vec::new(), streams);
            let other = match (is_constant(&join.left), is_constant(&join.right)) {
                (false, false) => {
                    let chains = is_chain(&join.left, streams) && is_chain(&join.right, streams);
                    if chains {
                        // A row without a match has no columns for conditions above to look at.
                        let own = join.filter.iter().map(|filter| (filter, plan));
                        let all = if join.join_type == JoinType::Inner { conditions } else { Vec::new() };
                        return Some(Found { join, conditions: all.into_iter().chain(own).collect(), plain: true });
                    }
                    // More than two streams.
                    let others = (first_stream(&join.left, streams), first_stream(&join.right, streams));
                    if !matches!(others, (Some(_), Some(_))) {
                        return None;
                    }
                    below(&join.left).or_else(|| below(&join.right))
                }
                (false, true) => below(&join.left),
                (true, false) => below(&join.right),
                (true, true) => None,
            };
            other.map(|found| Found { plain: false, ..found })
        }
        _ => None,
    }
}

/// Whether this is a chain of operators over one stream, tables joined with it included.
fn is_chain(plan: &LogicalPlan, streams: &Streams) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => (streams.of)(scan).is_some(),
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            is_chain(plan.inputs()[0], streams)
        }
        LogicalPlan::Extension(e) => input_of(e).is_some_and(|input| is_chain(input, streams)),
        LogicalPlan::Join(join) => {
            (is_constant(&join.right) && is_chain(&join.left, streams))
                || (is_constant(&join.left) && is_chain(&join.right, streams))
        }
        _ => false,
    }
}

/// Whether nothing but filters and projections stands over the stream.
fn plain(plan: &LogicalPlan, streams: &Streams) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => (streams.of)(scan).is_some(),
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            plain(plan.inputs()[0], streams)
        }
        _ => false,
    }
}

/// The first stream of a chain or of a join of chains; none of what stands below an aggregate.
fn first_stream(plan: &LogicalPlan, streams: &Streams) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => (streams.of)(scan),
        LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Join(_) => {
            plan.inputs().into_iter().find_map(|input| first_stream(input, streams))
        }
        LogicalPlan::Extension(e) => input_of(e).and_then(|input| first_stream(input, streams)),
        _ => None,
    }
}

impl Found<'_> {
    fn conjuncts(&self) -> impl Iterator<Item = (&Expr, &LogicalPlan)> {
        self.conditions.iter().flat_map(|(expr, plan)| split_conjunction(expr).into_iter().map(|e| (e, *plan)))
    }

    /// Whether something of one stream has to equal something of the other.
    fn has_key(&self, left: &str, right: &str, streams: &Streams) -> bool {
        let apart = |a: &Expr, b: &Expr, plan: &LogicalPlan| {
            let (a, b) = (streams_in(a, plan, streams), streams_in(b, plan, streams));
            let only = |names: &[String], name: &str| !names.is_empty() && names.iter().all(|n| n == name);
            (only(&a, left) && only(&b, right)) || (only(&a, right) && only(&b, left))
        };
        let equality = |(expr, plan): (&Expr, &LogicalPlan)| match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => apart(left, right, plan),
            _ => false,
        };
        !self.join.on.is_empty() || self.conjuncts().any(equality)
    }

    /// The smallest and the largest `right time - left time` that the conditions allow, as far as they say so.
    fn bounds(&self, left: &str, right: &str, streams: &Streams) -> (Option<Micros>, Option<Micros>) {
        let mut bounds = (None, None);
        let mut note = |a: &Expr, op: Operator, b: &Expr, plan: &LogicalPlan| {
            let (Some(a), Some(b)) = (Sum::of(a, plan, left, right, streams), Sum::of(b, plan, left, right, streams))
            else {
                return;
            };
            // `a op b` as `right - left op value`.
            let difference = a.minus(b);
            let (op, value) = match (difference.left, difference.right) {
                (-1, 1) => (Some(op), difference.constant.saturating_neg()),
                (1, -1) => (op.swap(), difference.constant),
                _ => return,
            };
            let (low, high) = match op {
                Some(Operator::Eq) => (true, true),
                Some(Operator::Gt | Operator::GtEq) => (true, false),
                Some(Operator::Lt | Operator::LtEq) => (false, true),
                _ => return,
            };
            if low {
                bounds.0 = bounds.0.max(Some(value));
            }
            if high {
                bounds.1 = Some(bounds.1.map_or(value, |known: Micros| known.min(value)));
            }
        };
        for (expr, plan) in self.conjuncts() {
            match expr {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) => note(left, *op, right, plan),
                Expr::Between(Between { expr, negated: false, low, high }) => {
                    note(expr, Operator::GtEq, low, plan);
                    note(expr, Operator::LtEq, high, plan);
                }
                _ => {}
            }
        }
        let whole = LogicalPlan::Join(self.join.clone());
        for (a, b) in &self.join.on {
            note(a, Operator::Eq, b, &whole);
        }
        bounds
    }
}

/// The streams whose columns an expression is computed from.
fn streams_in(expr: &Expr, plan: &LogicalPlan, streams: &Streams) -> Vec<String> {
    let columns = expr.column_refs().into_iter();
    columns
        .flat_map(|column| match plan.schema().maybe_index_of_column(column) {
            Some(index) => column_streams(index, plan, streams),
            None => Vec::new(),
        })
        .collect()
}

fn column_streams(index: usize, plan: &LogicalPlan, streams: &Streams) -> Vec<String> {
    match below(index, plan) {
        Below::Same(input, index) => column_streams(index, input, streams),
        Below::Computed(expr, input) => streams_in(expr, input, streams),
        Below::Scan(scan) => (streams.of)(scan).into_iter().collect(),
        Below::Unknown => Vec::new(),
    }
}

/// What a column of a plan's result is in terms of the plan below.
enum Below<'a> {
    Same(&'a LogicalPlan, usize),
    Computed(&'a Expr, &'a LogicalPlan),
    Scan(&'a TableScan),
    Unknown,
}

fn below(index: usize, plan: &LogicalPlan) -> Below<'_> {
    match plan {
        LogicalPlan::TableScan(scan) => Below::Scan(scan),
        LogicalPlan::Projection(p) => match p.expr.get(index) {
            Some(expr) => Below::Computed(expr, &p.input),
            None => Below::Unknown,
        },
        LogicalPlan::SubqueryAlias(a) => Below::Same(&a.input, index),
        LogicalPlan::Filter(f) => Below::Same(&f.input, index),
        LogicalPlan::Extension(e) => match input_of(e) {
            Some(input) if index < input.schema().fields().len() => Below::Same(input, index),
            _ => Below::Unknown,
        },
        LogicalPlan::Join(join) => {
            let width = join.left.schema().fields().len();
            match index.checked_sub(width) {
                None => Below::Same(&join.left, index),
                Some(index) => Below::Same(&join.right, index),
            }
        }
        _ => Below::Unknown,
    }
}

/// `left` times the first stream's event time + `right` times the second's + a constant.
struct Sum {
    left: i64,
    right: i64,
    constant: Micros,
}

impl Sum {
    fn of(expr: &Expr, plan: &LogicalPlan, left: &str, right: &str, streams: &Streams) -> Option<Sum> {
        let of = |expr: &Expr| Sum::of(expr, plan, left, right, streams);
        if let Some(value) = constant(expr) {
            return Some(Sum { left: 0, right: 0, constant: interval_micros(&value)? });
        }
        match expr {
            Expr::Alias(alias) => of(&alias.expr),
            Expr::Column(column) => {
                let index = plan.schema().maybe_index_of_column(column)?;
                Sum::of_column(index, plan, left, right, streams)
            }
            Expr::Cast(Cast { expr, field }) if keeps_instants(field.data_type()) => of(expr),
            Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Minus, right: b }) => Some(of(a)?.minus(of(b)?)),
            Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Plus, right: b }) => {
                let minus = Sum { left: 0, right: 0, constant: 0 }.minus(of(b)?);
                Some(of(a)?.minus(minus))
            }
            _ => None,
        }
    }

    fn of_column(index: usize, plan: &LogicalPlan, left: &str, right: &str, streams: &Streams) -> Option<Sum> {
        match below(index, plan) {
            Below::Same(input, index) => Sum::of_column(index, input, left, right, streams),
            Below::Computed(expr, input) => Sum::of(expr, input, left, right, streams),
            Below::Scan(scan) => {
                let stream = (streams.of)(scan)?;
                let time = (streams.time_of)(&stream)?;
                let is_time = *scan.projected_schema.field(index).name() == time;
                let times = |name: &str| i64::from(stream == name);
                is_time.then(|| Sum { left: times(left), right: times(right), constant: 0 })
            }
            Below::Unknown => None,
        }
    }

    fn minus(self, other: Sum) -> Sum {
        Sum {
            left: self.left - other.left,
            right: self.right - other.right,
            constant: self.constant.saturating_sub(other.constant),
        }
    }
}

/// Whether a cast to this type changes no time by a microsecond: the analysis puts such casts where units differ.
fn keeps_instants(data_type: &arrow::datatypes::DataType) -> bool {
    use arrow::datatypes::{DataType, TimeUnit};
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, zone) => zone.is_some(),
        DataType::Interval(_) | DataType::Duration(TimeUnit::Microsecond | TimeUnit::Nanosecond) => true,
        _ => false,
    }
}
