//! Session windows: rows of the same keys that follow each other in less than the gap.
//!
//! ```text
//!     rows      x  x x        x x   x                 one key, time runs to the right
//!     sessions  |---------|   |---------|             from the first row to the last plus the gap
//! ```
//!
//! Each row claims `[ts, ts + gap)`. A session is what overlapping claims of one key add up to, so the same arithmetic,
//! [`Chain`], serves rows, the *pieces* of sessions that a micro-batch folds into, and pieces of pieces: adding up is
//! associative, and neither the order of rows nor the cuts into micro-batches show in the result. A view therefore keeps
//! pieces as partial states that are grouped by their bounds; merging runs first moves the bounds of pieces that
//! overlap to those of the whole, then lets DataFusion reduce what has become one group.
//!
//! With a maximum span, claims end at multiples of the span since 1970 at the latest. So a session is never longer, and
//! where it is cut does not depend on which rows came first.
//!
//! [`SessionNode`] is the logical operator; its physical forms are in `session/exec.rs`.

mod exec;

use std::collections::{HashMap, HashSet};
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DFSchemaRef, Result as DfResult, internal_err};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

use super::spread::with_bounds;
use super::window::{Window, window_start};
use crate::mutation::{Mutation, on};
use crate::time::{Micros, UTC};

pub use exec::{ChainExec, SessionPlanner};

/// `SESSION(input PARTITION BY keys, time, gap, max_span)` in a logical plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionNode {
    pub input: LogicalPlan,
    pub keys: Vec<Expr>,
    /// The time column, of type `timestamptz` in microseconds.
    pub time: Expr,
    pub gap: Micros,
    pub max_span: Option<Micros>,
    /// Whether pieces of sessions will do, because the input is a micro-batch and pieces are chained later.
    pub pieces: bool,
    schema: DFSchemaRef,
}

impl PartialOrd for SessionNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let order = (&self.time, &self.keys, self.gap).partial_cmp(&(&other.time, &other.keys, other.gap));
        order.filter(|order| order.is_ne() || self == other)
    }
}

impl SessionNode {
    /// Fails when the input already has columns named like the window's.
    pub fn try_new(
        input: LogicalPlan,
        keys: Vec<Expr>,
        time: Expr,
        gap: Micros,
        max_span: Option<Micros>,
    ) -> DfResult<SessionNode> {
        let schema = with_bounds(input.schema())?;
        Ok(SessionNode { input, keys, time, gap, max_span, pieces: false, schema })
    }

    /// The same, for micro-batches whose pieces are chained later.
    pub fn of_pieces(&self) -> SessionNode {
        SessionNode { pieces: true, ..self.clone() }
    }

    pub fn window(&self) -> Window {
        Window::Session { gap: self.gap, max_span: self.max_span }
    }

    /// Names of the columns that all rows of a session have in common.
    pub fn key_names(&self) -> Vec<&str> {
        let columns =
            self.keys.iter().filter_map(|key| if let Expr::Column(column) = key { Some(column) } else { None });
        columns.map(|column| column.name()).collect()
    }
}

impl UserDefinedLogicalNodeCore for SessionNode {
    fn name(&self) -> &str {
        "Session"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().chain([&self.time]).cloned().collect()
    }

    /// A filter on keys takes or leaves whole sessions; any other would take rows out of a session and so change it.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let keys = self.key_names();
        let names = self.schema.fields().iter().map(|f| f.name());
        names.filter(|name| !keys.contains(&name.as_str())).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "Session: [{}], {}, {:?}", keys.join(", "), self.time, self.window())?;
        if self.pieces { write!(f, ", pieces") } else { Ok(()) }
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(time), Some(input)) => {
                let node = SessionNode::try_new(input, exprs, time, self.gap, self.max_span)?;
                Ok(SessionNode { pieces: self.pieces, ..node })
            }
            _ => internal_err!("a session window has one input, keys and a time column"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let inputs = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|&i| i < inputs).collect();
        for expr in self.keys.iter().chain([&self.time]) {
            for column in expr.column_refs() {
                needed.push(self.input.schema().maybe_index_of_column(column)?);
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// What a row at `time` claims: from its time to the gap's end, or to the next cut.
#[inline]
pub fn claim(time: Micros, gap: Micros, max_span: Option<Micros>) -> (Micros, Micros) {
    let end = time.saturating_add(gap);
    match max_span {
        Some(span) => (time, end.min(window_start(time, span, 0).saturating_add(span))),
        None => (time, end),
    }
}

/// Where the columns of a session are in partial states.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    pub keys: Vec<usize>,
    pub start: usize,
    pub end: usize,
}

impl Columns {
    /// Moves the bounds of pieces that overlap to those of the whole. With `wanted`, keeps only rows of sessions that
    /// start in that closed range, or whose rows have no time.
    pub fn chain(&self, batches: &[RecordBatch], wanted: Option<(Micros, Micros)>) -> DfResult<Vec<RecordBatch>> {
        let mut chain = Chain::default();
        let keys: Vec<Vec<ArrayRef>> =
            batches.iter().map(|b| self.keys.iter().map(|&k| b.column(k).clone()).collect()).collect();
        let ids = number(&keys, &batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>())?;
        let mut ids = ids.into_iter();
        for batch in batches {
            let starts = batch.column(self.start).as_primitive::<TimestampMicrosecondType>();
            let ends = batch.column(self.end).as_primitive::<TimestampMicrosecondType>();
            for (row, key) in ids.by_ref().take(batch.num_rows()).enumerate() {
                chain.push(key, (!starts.is_null(row)).then(|| (starts.value(row), ends.value(row))));
            }
        }
        let mut bounds = chain.bounds().into_iter();
        let mut out = Vec::with_capacity(batches.len());
        for batch in batches {
            let (starts, ends): (Vec<_>, Vec<_>) = bounds.by_ref().take(batch.num_rows()).unzip();
            let keep = wanted.map(|(lo, hi)| {
                let inside = |start: &Option<Micros>| start.is_none_or(|s| lo <= s && s <= hi);
                starts.iter().map(|start| Some(inside(start))).collect()
            });
            let mut columns = batch.columns().to_vec();
            columns[self.start] = times(starts);
            columns[self.end] = times(ends);
            let batch = RecordBatch::try_new(batch.schema(), columns)?;
            out.push(match keep {
                Some(keep) => arrow::compute::filter_record_batch(&batch, &keep)?,
                None => batch,
            });
        }
        Ok(out)
    }
}

fn times(values: Vec<Option<Micros>>) -> ArrayRef {
    std::sync::Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC))
}

/// Numbers the distinct keys of all rows, so that comparing two of them is comparing numbers. `keys` are the key columns
/// of each batch, `rows` their lengths.
fn number(keys: &[Vec<ArrayRef>], rows: &[usize]) -> DfResult<Vec<u32>> {
    let total = rows.iter().sum();
    let Some(first) = keys.iter().find(|columns| !columns.is_empty()) else { return Ok(vec![0; total]) };
    let fields = first.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut encoded = converter.empty_rows(total, 0);
    for columns in keys {
        converter.append(&mut encoded, columns)?;
    }
    let mut numbers: HashMap<&[u8], u32> = HashMap::with_capacity(total / 2);
    let mut ids = Vec::with_capacity(total);
    for row in 0..total {
        let next = numbers.len() as u32;
        ids.push(*numbers.entry(encoded.row(row).data()).or_insert(next));
    }
    Ok(ids)
}

/// Adds up the claims of rows, or the bounds of pieces.
#[derive(Default)]
struct Chain {
    /// Key, start and end of each row or piece; both bounds 0 where it has none.
    keys: Vec<u32>,
    starts: Vec<Micros>,
    ends: Vec<Micros>,
    /// Rows without a time.
    timeless: Vec<u32>,
}

impl Chain {
    fn push(&mut self, key: u32, piece: Option<(Micros, Micros)>) {
        if piece.is_none() {
            self.timeless.push(self.keys.len() as u32);
        }
        let (start, end) = piece.unwrap_or_default();
        self.keys.push(key);
        self.starts.push(start);
        self.ends.push(end);
    }

    /// The session of each row: its start and end, in the order of [`Chain::push`].
    fn bounds(self) -> Vec<(Option<Micros>, Option<Micros>)> {
        const NONE: u32 = u32::MAX;
        let rows = self.keys.len();
        let key_count = self.keys.iter().max().map_or(0, |&key| key as usize + 1);
        // A session that is open when a piece begins is met again in order of starts. Logs mostly come in that order.
        let mut open = vec![NONE; key_count];
        let mut sessions: Vec<(Micros, Micros)> = Vec::new();
        let mut session_of = vec![NONE; rows];
        let mut visit = |row: usize| {
            let (start, end) = (self.starts[row], self.ends[row]);
            let current = &mut open[self.keys[row] as usize];
            match sessions.get_mut(*current as usize) {
                Some(session) if start < session.1 + Micros::from(on(Mutation::SessionTakesItsEnd)) => {
                    session.1 = session.1.max(end)
                }
                _ => {
                    *current = sessions.len() as u32;
                    sessions.push((start, end));
                }
            }
            session_of[row] = *current;
        };
        if self.timeless.is_empty() && self.starts.is_sorted() {
            (0..rows).for_each(&mut visit);
        } else {
            let mut timeless = self.timeless.iter().peekable();
            let timed = (0..rows as u32).filter(|row| timeless.next_if(|t| *t == row).is_none());
            let mut order: Vec<(Micros, u32)> = timed.map(|row| (self.starts[row as usize], row)).collect();
            order.sort_unstable();
            order.into_iter().for_each(|(_, row)| visit(row as usize));
        }
        let bounds = session_of.into_iter().map(|session| sessions.get(session as usize).copied().unzip());
        bounds.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(pieces: &[(u32, Option<(Micros, Micros)>)]) -> Vec<Option<(Micros, Micros)>> {
        let mut chain = Chain::default();
        pieces.iter().for_each(|(key, piece)| chain.push(*key, *piece));
        chain.bounds().into_iter().map(|(start, end)| start.zip(end)).collect()
    }

    #[test]
    fn overlapping_claims_are_one_session() {
        let row = |key, time| (key, Some(claim(time, 10, None)));
        let rows = [row(0, 0), row(1, 5), row(0, 9), row(0, 19), (0, None), row(0, 18), row(1, 15)];
        let whole = Some((0, 29));
        assert_eq!(bounds(&rows), [whole, Some((5, 15)), whole, whole, None, whole, Some((15, 25))]);
    }

    #[test]
    fn the_longest_session_is_the_maximum_span() {
        assert_eq!(claim(25, 10, Some(30)), (25, 30));
        let rows: Vec<_> = (0..100).rev().map(|time| (0, Some(claim(time, 10, Some(30))))).collect();
        let bounds = bounds(&rows);
        assert_eq!(bounds[0], Some((90, 109)));
        assert_eq!(bounds[10], Some((60, 90)));
        assert!(bounds.iter().flatten().all(|(start, end)| end - start <= 30));
    }

    #[test]
    fn cuts_and_order_do_not_show() {
        use rand::seq::SliceRandom;
        use rand::{RngExt, SeedableRng};
        for seed in 0..200 {
            let random = &mut rand::rngs::StdRng::seed_from_u64(seed);
            let (gap, span) = (random.random_range(1..20), *[None, Some(15), Some(40)].get(seed as usize % 3).unwrap());
            let mut rows: Vec<(u32, Micros)> = (0..random.random_range(0..60))
                .map(|_| (random.random_range(0..3), random.random_range(-100..100)))
                .collect();
            let claims: Vec<_> = rows.iter().map(|&(key, time)| (key, Some(claim(time, gap, span)))).collect();
            let mut expected: Vec<_> = rows.iter().copied().zip(bounds(&claims)).collect();
            // The same rows, shuffled, cut in two, and the pieces of both parts chained.
            rows.shuffle(random);
            let (left, right) = rows.split_at(random.random_range(0..=rows.len()));
            let mut pieces = Vec::new();
            for part in [left, right] {
                let claims: Vec<_> = part.iter().map(|&(key, time)| (key, Some(claim(time, gap, span)))).collect();
                pieces.extend(part.iter().zip(bounds(&claims)).map(|(&(key, _), piece)| (key, piece)));
            }
            let mut found: Vec<_> = rows.iter().copied().zip(bounds(&pieces)).collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(expected, found, "seed {seed}");
        }
    }
}
