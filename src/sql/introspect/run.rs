//! How does a planned catalog query run? Sources are read one inside the other, each by an index where an equality allows
//! it; subqueries that depend on nothing outside run once. The catalog is small, so all is in memory; what a statement
//! may make of it is bounded by [`MAX_STEPS`].

use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};

use regex::{Regex, RegexBuilder};

use super::node::{
    Aggregate, AggregateKind, Arithmetic, Body, Combine, Comparison, Distinct, From, Lookup, Node, Order, Pattern,
    Query, Select, Source, Window, WindowKind,
};
use super::text::convert;
use crate::catalog::postgres::base::{Rows, base};
use crate::catalog::postgres::snapshot::Snapshot;
use crate::catalog::postgres::value::{Row, Value};
use crate::error::{Error, Kind, Result};
use crate::sql::Session;
use crate::sql::function::privileges::Names;

/// Rows that one statement may look at, all its joins and subqueries together.
const MAX_STEPS: u64 = 200_000_000;

/// Rows that it may hold in one place.
const MAX_ROWS: usize = 2_000_000;

/// One run of a statement.
pub struct Run<'s> {
    pub session: &'s Session,
    pub snapshot: Arc<Snapshot>,
    pub parameters: Vec<Value>,
    /// Set when nobody waits for the result any more.
    pub stopped: &'s AtomicBool,
    kept: RefCell<HashMap<usize, Arc<Rows>>>,
    patterns: RefCell<HashMap<(String, Pattern), Regex>>,
    steps: Cell<u64>,
    names: OnceCell<Names>,
}

/// What an expression can look at.
#[derive(Clone, Copy)]
pub struct Env<'e> {
    row: &'e [Value],
    aggregates: &'e [Value],
    windows: &'e [Value],
    sets: &'e [Value],
    outer: Option<&'e Env<'e>>,
}

impl<'e> Env<'e> {
    fn of(row: &'e [Value], outer: Option<&'e Env<'e>>) -> Env<'e> {
        Env { row, aggregates: &[], windows: &[], sets: &[], outer }
    }
}

/// A row of the result with the values by which it is ordered.
struct Ordered {
    keys: Vec<Value>,
    distinct: Vec<Value>,
    row: Row,
}

impl<'s> Run<'s> {
    pub fn new(
        session: &'s Session,
        snapshot: Arc<Snapshot>,
        parameters: Vec<Value>,
        stopped: &'s AtomicBool,
    ) -> Run<'s> {
        Run {
            session,
            snapshot,
            parameters,
            stopped,
            kept: RefCell::default(),
            patterns: RefCell::default(),
            steps: Cell::new(0),
            names: OnceCell::new(),
        }
    }

    /// What object ids stand for, for questions about privileges.
    pub fn names(&self) -> &Names {
        self.names.get_or_init(|| Names::of(self.session.engine()))
    }

    /// Counts a row that is looked at.
    fn step(&self) -> Result<()> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps.is_multiple_of(4096) && self.stopped.load(Atomic::Relaxed) {
            return Err(Error::new(Kind::Canceled, "canceling statement due to user request"));
        }
        if steps > MAX_STEPS {
            return Err(Error::new(Kind::ResourceLimit, "the query looks at too many rows of the catalog")
                .with_hint("Join the relations of pg_catalog by equal columns."));
        }
        Ok(())
    }

    fn keep_within(&self, rows: usize) -> Result<()> {
        if rows > MAX_ROWS {
            return Err(Error::new(Kind::ResourceLimit, "the query makes too many rows of the catalog"));
        }
        Ok(())
    }

    /// The rows of a relation of the catalog, the same all through the statement.
    pub fn relation(&self, at: usize) -> Arc<Rows> {
        // Queries have numbers from 1 on, so relations are kept under others.
        let key = usize::MAX - at;
        if let Some(rows) = self.kept.borrow().get(&key) {
            return Arc::clone(rows);
        }
        let rows = self.snapshot.rows(self.session.engine(), at);
        self.kept.borrow_mut().insert(key, Arc::clone(&rows));
        rows
    }

    /// The value in `column` of the first row of `pg_catalog.table` whose `key` is this.
    pub fn get(&self, table: &str, key: &str, value: &Value, column: &str) -> Result<Option<Value>> {
        let Some((at, system)) = base().relation("pg_catalog", table) else { return Ok(None) };
        let (Some(key), Some(column)) = (system.column(key), system.column(column)) else { return Ok(None) };
        let rows = self.relation(at);
        let index = rows.index(key);
        let first = index.get(value).and_then(|found| found.first());
        Ok(first.and_then(|at| rows.rows().get(*at as usize)).map(|row| row[column].clone()))
    }

    /// The object id of the row with this name.
    pub fn find(&self, table: &str, column: &str, name: &str) -> Result<Option<Value>> {
        self.get(table, column, &Value::text(name), "oid")
    }

    // ---- queries --------------------------------------------------------------------------------------------------

    /// The rows of a query, which are made once if they depend on nothing outside.
    fn rows(&self, query: &Arc<Query>, outer: Option<&Env<'_>>) -> Result<Arc<Rows>> {
        if query.correlated {
            return Ok(Rows::new(self.query(query, outer, None)?));
        }
        if let Some(rows) = self.kept.borrow().get(&query.id) {
            return Ok(Arc::clone(rows));
        }
        let rows = Rows::new(self.query(query, outer, None)?);
        self.kept.borrow_mut().insert(query.id, Arc::clone(&rows));
        Ok(rows)
    }

    /// Runs a query; `most`: how many rows are wanted at most.
    pub fn query(&self, query: &Query, outer: Option<&Env<'_>>, most: Option<usize>) -> Result<Vec<Row>> {
        for with in &query.with {
            if !with.query.correlated && self.kept.borrow().contains_key(&with.id) {
                continue;
            }
            let mut rows = self.query(&with.query, outer, None)?;
            if let Some((next, all)) = &with.repeated {
                self.repeat(with.id, next, *all, &mut rows, outer)?;
            }
            self.kept.borrow_mut().insert(with.id, Rows::new(rows));
        }
        let env = Env::of(&[], outer);
        let number = |node: &Option<Node>| -> Result<Option<usize>> {
            let Some(node) = node else { return Ok(None) };
            match self.value(node, &env)?.as_int() {
                None => Ok(None),
                Some(number) => usize::try_from(number)
                    .map(Some)
                    .map_err(|_| Error::new(Kind::InvalidParameter, "LIMIT and OFFSET must not be negative")),
            }
        };
        let (limit, offset) = (number(&query.limit)?, number(&query.offset)?.unwrap_or(0));
        let wanted = match (limit, most) {
            (Some(limit), Some(most)) => Some(limit.min(most)),
            (limit, most) => limit.or(most),
        };
        let wanted = wanted.map(|wanted| wanted.saturating_add(offset));
        let mut rows = match &query.body {
            Body::Select(select) => self.select(select, outer, wanted)?,
            Body::Values(rows) => {
                let row = |row: &Vec<Node>| row.iter().map(|node| self.value(node, &env)).collect::<Result<Row>>();
                rows.iter().map(row).collect::<Result<Vec<Row>>>()?
            }
            Body::Inner(inner) => self.query(inner, outer, None)?,
            Body::Combined { how, all, left, right } => {
                combine(*how, *all, self.query(left, outer, None)?, self.query(right, outer, None)?)
            }
        };
        if !query.order.is_empty() {
            let by = |a: &Row, b: &Row| {
                let keys = query.order.iter().map(|order| compare(&a[order.column], &b[order.column], order));
                keys.fold(Ordering::Equal, Ordering::then)
            };
            rows.sort_by(by);
        }
        rows.drain(..offset.min(rows.len()));
        rows.truncate(wanted.map_or(usize::MAX, |wanted| wanted - offset));
        Ok(rows)
    }

    /// WITH RECURSIVE: what comes of the rows that came last, until nothing does.
    fn repeat(&self, id: usize, next: &Query, all: bool, rows: &mut Vec<Row>, outer: Option<&Env<'_>>) -> Result<()> {
        let mut seen: HashSet<Row> = HashSet::new();
        if !all {
            rows.retain(|row| seen.insert(row.clone()));
        }
        let mut last = rows.clone();
        while !last.is_empty() {
            self.kept.borrow_mut().insert(id, Rows::new(last));
            last = self.query(next, outer, None)?;
            if !all {
                last.retain(|row| seen.insert(row.clone()));
            }
            rows.extend(last.iter().cloned());
            self.keep_within(rows.len())?;
        }
        Ok(())
    }

    fn select(&self, select: &Select, outer: Option<&Env<'_>>, wanted: Option<usize>) -> Result<Vec<Row>> {
        // What changes the number or the order of rows needs all of them.
        let all = select.grouped || !select.windows.is_empty() || !select.order.is_empty() || select.distinct.is_some();
        let most = if all || !select.sets.is_empty() { usize::MAX } else { wanted.unwrap_or(usize::MAX) };
        let mut found: Vec<Row> = Vec::new();
        let mut row = vec![Value::Null; select.width];
        let empty = Env::of(&row, outer);
        let mut passes = true;
        for filter in &select.filters {
            passes = passes && self.value(filter, &empty)?.is_true();
        }
        if passes && most > 0 {
            self.join(&select.sources, &mut row, outer, &mut |row| {
                found.push(row.to_vec());
                self.keep_within(found.len())?;
                Ok(found.len() < most)
            })?;
        }
        let groups = if select.grouped {
            self.groups(select, found, outer)?
        } else {
            found.into_iter().map(|row| (row, Vec::new())).collect()
        };
        let windows = self.windows(select, &groups, outer)?;
        let mut ordered = Vec::new();
        for (at, (row, aggregates)) in groups.iter().enumerate() {
            let env = Env { row, aggregates, windows: &windows[at], sets: &[], outer };
            self.output(select, &env, &mut ordered)?;
            self.keep_within(ordered.len())?;
        }
        if let Some(Distinct::Rows) = select.distinct {
            let mut seen = HashSet::new();
            ordered.retain(|one| seen.insert(one.row.clone()));
        }
        if !select.order.is_empty() {
            ordered.sort_by(|a, b| {
                let keys = a.keys.iter().zip(&b.keys).zip(&select.order);
                keys.map(|((a, b), (_, order))| compare(a, b, order)).fold(Ordering::Equal, Ordering::then)
            });
        }
        if let Some(Distinct::On(_)) = select.distinct {
            let mut seen = HashSet::new();
            ordered.retain(|one| seen.insert(one.distinct.clone()));
        }
        Ok(ordered.into_iter().map(|one| one.row).collect())
    }

    /// The rows of the result that come of one row: as many as its longest set has.
    fn output(&self, select: &Select, env: &Env<'_>, out: &mut Vec<Ordered>) -> Result<()> {
        let mut sets: Vec<Vec<Value>> = Vec::new();
        for (set, arguments) in &select.sets {
            let arguments = arguments.iter().map(|node| self.value(node, env)).collect::<Result<Vec<Value>>>()?;
            let rows = (set.rows)(self, &arguments)?;
            let single = set.is_single();
            let value =
                |mut row: Row| if single { row.pop().unwrap_or(Value::Null) } else { Value::Row(Arc::new(row)) };
            sets.push(rows.into_iter().map(value).collect());
        }
        let count = if sets.is_empty() { 1 } else { sets.iter().map(Vec::len).max().unwrap_or(0) };
        for at in 0..count {
            let values: Vec<Value> = sets.iter().map(|set| set.get(at).cloned().unwrap_or(Value::Null)).collect();
            let env = Env { sets: &values, ..*env };
            let row = select.outputs.iter().map(|node| self.value(node, &env)).collect::<Result<Row>>()?;
            let key = |(node, order): &(Node, Order)| match row.get(order.column) {
                Some(value) => Ok(value.clone()),
                None => self.value(node, &env),
            };
            let keys = select.order.iter().map(key).collect::<Result<Vec<Value>>>()?;
            let distinct = match &select.distinct {
                Some(Distinct::On(nodes)) => nodes.iter().map(|node| self.value(node, &env)).collect::<Result<_>>()?,
                _ => Vec::new(),
            };
            out.push(Ordered { keys, distinct, row });
        }
        Ok(())
    }

    // ---- FROM -----------------------------------------------------------------------------------------------------

    /// Calls `each` with every row that the sources make together, until it says that it has enough.
    fn join(
        &self,
        sources: &[Source],
        row: &mut Vec<Value>,
        outer: Option<&Env<'_>>,
        each: &mut dyn FnMut(&mut Vec<Value>) -> Result<bool>,
    ) -> Result<bool> {
        let Some((source, rest)) = sources.split_first() else { return each(row) };
        let mut matched = false;
        let mut fits = |run: &Self, row: &mut Vec<Value>| -> Result<bool> {
            run.step()?;
            for on in &source.on {
                if !run.value(on, &Env::of(row, outer))?.is_true() {
                    return Ok(true);
                }
            }
            matched = true;
            for filter in &source.filters {
                if !run.value(filter, &Env::of(row, outer))?.is_true() {
                    return Ok(true);
                }
            }
            run.join(rest, row, outer, each)
        };
        let goes_on = match &source.from {
            From::Group(group) => self.join(group, row, outer, &mut |row| fits(self, row))?,
            from => self.scan(source, from, row, outer, &mut |row| fits(self, row))?,
        };
        if !goes_on {
            return Ok(false);
        }
        if !source.outer || matched {
            return Ok(true);
        }
        row[source.slots.clone()].fill(Value::Null);
        for filter in &source.filters {
            if !self.value(filter, &Env::of(row, outer))?.is_true() {
                return Ok(true);
            }
        }
        self.join(rest, row, outer, each)
    }

    /// Puts the rows of a source into `row`, one after the other.
    fn scan(
        &self,
        source: &Source,
        from: &From,
        row: &mut Vec<Value>,
        outer: Option<&Env<'_>>,
        each: &mut dyn FnMut(&mut Vec<Value>) -> Result<bool>,
    ) -> Result<bool> {
        let value = |node: &Node, row: &[Value]| self.value(node, &Env::of(row, outer));
        let rows = match from {
            From::Relation(at) => self.relation(*at),
            From::Query { query, lateral: false } => self.rows(query, outer)?,
            From::Query { query, lateral: true } => {
                let env = Env::of(row, outer);
                self.rows(query, Some(&env))?
            }
            From::With(id) => self.kept.borrow().get(id).cloned().unwrap_or_default(),
            From::Function { function, arguments, ordinality } => {
                let arguments = arguments.iter().map(|node| value(node, row)).collect::<Result<Vec<Value>>>()?;
                let mut rows = (function.rows)(self, &arguments)?;
                number_rows(&mut rows, *ordinality);
                Rows::new(rows)
            }
            From::Single(node) => Rows::new(vec![vec![value(node, row)?]]),
            From::Lists { lists, ordinality } => {
                let lists = lists.iter().map(|node| value(node, row)).collect::<Result<Vec<Value>>>()?;
                let longest = lists.iter().filter_map(|list| list.as_list().map(<[Value]>::len)).max().unwrap_or(0);
                let cell = |list: &Value, at: usize| list.as_list().and_then(|list| list.get(at)).cloned();
                let row = |at: usize| lists.iter().map(|list| cell(list, at).unwrap_or(Value::Null)).collect::<Row>();
                let mut rows: Vec<Row> = (0..longest).map(row).collect();
                number_rows(&mut rows, *ordinality);
                Rows::new(rows)
            }
            From::Group(_) => return Ok(true),
        };
        let mut put = |at: usize, row: &mut Vec<Value>| {
            if let Some(from) = rows.rows().get(at) {
                row[source.slots.clone()].iter_mut().zip(from).for_each(|(cell, value)| cell.clone_from(value));
            }
            each(row)
        };
        let wanted = match &source.lookup {
            None => {
                for at in 0..rows.rows().len() {
                    if !put(at, row)? {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
            Some((_, Lookup::One(node))) => vec![value(node, row)?],
            Some((_, Lookup::Any(node))) => {
                let list = value(node, row)?;
                let mut seen = HashSet::new();
                let values = list.as_list().unwrap_or_default().iter();
                values.filter(|value| seen.insert((*value).clone())).cloned().collect()
            }
        };
        let Some((column, _)) = source.lookup else { return Ok(true) };
        let index = rows.index(column);
        for value in wanted.iter().filter(|value| !value.is_null()) {
            for at in index.get(value).map(Vec::as_slice).unwrap_or_default() {
                if !put(*at as usize, row)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    // ---- groups and windows ---------------------------------------------------------------------------------------

    /// Each group: its first row, and what its aggregates come to.
    fn groups(&self, select: &Select, rows: Vec<Row>, outer: Option<&Env<'_>>) -> Result<Vec<(Row, Vec<Value>)>> {
        let mut places: HashMap<Vec<Value>, usize> = HashMap::new();
        let mut groups: Vec<Vec<Row>> = Vec::new();
        for row in rows {
            let env = Env::of(&row, outer);
            let key = select.keys.iter().map(|node| self.value(node, &env)).collect::<Result<Vec<Value>>>()?;
            let at = *places.entry(key).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Vec::new());
            }
            groups[at].push(row);
        }
        if select.keys.is_empty() && groups.is_empty() {
            groups.push(Vec::new());
        }
        let mut out = Vec::new();
        for rows in groups {
            let aggregates = select.aggregates.iter().map(|aggregate| self.aggregate(aggregate, &rows, outer));
            let aggregates = aggregates.collect::<Result<Vec<Value>>>()?;
            let row = rows.into_iter().next().unwrap_or_else(|| vec![Value::Null; select.width]);
            let env = Env { aggregates: &aggregates, ..Env::of(&row, outer) };
            let stays = select.having.as_ref().map(|having| self.value(having, &env)).transpose()?;
            if stays.is_none_or(|value| value.is_true()) {
                out.push((row, aggregates));
            }
        }
        Ok(out)
    }

    fn aggregate(&self, aggregate: &Aggregate, rows: &[Row], outer: Option<&Env<'_>>) -> Result<Value> {
        let mut values: Vec<(Vec<Value>, Vec<Value>)> = Vec::new();
        for row in rows {
            let env = Env::of(row, outer);
            let counts = aggregate.filter.as_ref().map(|filter| self.value(filter, &env)).transpose()?;
            if counts.is_some_and(|counts| !counts.is_true()) {
                continue;
            }
            let arguments = aggregate.arguments.iter().map(|node| self.value(node, &env));
            let keys = aggregate.order.iter().map(|(node, _)| self.value(node, &env));
            values.push((arguments.collect::<Result<_>>()?, keys.collect::<Result<_>>()?));
        }
        if aggregate.distinct {
            let mut seen = HashSet::new();
            values.retain(|(arguments, _)| seen.insert(arguments.clone()));
            if aggregate.order.is_empty() {
                values.sort_by(|(a, _), (b, _)| Value::list(a.clone()).order(&Value::list(b.clone())));
            }
        }
        values.sort_by(|(_, a), (_, b)| {
            let keys = a.iter().zip(b).zip(&aggregate.order);
            keys.map(|((a, b), (_, order))| compare(a, b, order)).fold(Ordering::Equal, Ordering::then)
        });
        Ok(fold(aggregate.kind, values.into_iter().map(|(arguments, _)| arguments).collect()))
    }

    /// For each row the values of the windows.
    fn windows(&self, select: &Select, rows: &[(Row, Vec<Value>)], outer: Option<&Env<'_>>) -> Result<Vec<Vec<Value>>> {
        let mut out = vec![Vec::new(); rows.len()];
        for window in &select.windows {
            for (at, value) in self.window(window, rows, outer)?.into_iter().enumerate() {
                out[at].push(value);
            }
        }
        Ok(out)
    }

    fn window(&self, window: &Window, rows: &[(Row, Vec<Value>)], outer: Option<&Env<'_>>) -> Result<Vec<Value>> {
        struct Placed {
            partition: Vec<Value>,
            keys: Vec<Value>,
            argument: Value,
            at: usize,
        }
        let mut placed = Vec::new();
        for (at, (row, aggregates)) in rows.iter().enumerate() {
            let env = Env { aggregates, ..Env::of(row, outer) };
            let partition = window.partition.iter().map(|node| self.value(node, &env)).collect::<Result<_>>()?;
            let keys = window.order.iter().map(|(node, _)| self.value(node, &env)).collect::<Result<_>>()?;
            let argument = window.argument.as_ref().map(|node| self.value(node, &env)).transpose()?;
            placed.push(Placed { partition, keys, argument: argument.unwrap_or(Value::Bool(true)), at });
        }
        let by_keys = |a: &Placed, b: &Placed| {
            let keys = a.keys.iter().zip(&b.keys).zip(&window.order);
            keys.map(|((a, b), (_, order))| compare(a, b, order)).fold(Ordering::Equal, Ordering::then)
        };
        let by_partition = |a: &Placed, b: &Placed| {
            let pairs = a.partition.iter().zip(&b.partition).map(|(a, b)| a.order(b));
            pairs.fold(Ordering::Equal, Ordering::then)
        };
        placed.sort_by(|a, b| by_partition(a, b).then_with(|| by_keys(a, b)));
        let mut out = vec![Value::Null; rows.len()];
        let mut start = 0;
        while start < placed.len() {
            let end = placed[start..].iter().position(|one| by_partition(one, &placed[start]) != Ordering::Equal);
            let end = end.map_or(placed.len(), |length| start + length);
            let (mut rank, mut dense) = (0, 0);
            for at in start..end {
                let first_of_peers = at == start || by_keys(&placed[at - 1], &placed[at]) != Ordering::Equal;
                if first_of_peers {
                    rank = (at - start + 1) as i64;
                    dense += 1;
                }
                out[placed[at].at] = match window.kind {
                    WindowKind::RowNumber => Value::Int((at - start + 1) as i64),
                    WindowKind::Rank => Value::Int(rank),
                    WindowKind::DenseRank => Value::Int(dense),
                    WindowKind::Aggregate(kind) => {
                        // With an order: all up to the last that is equal to this one.
                        let last = placed[at..end].iter().position(|one| by_keys(one, &placed[at]) != Ordering::Equal);
                        let last = last.map_or(end, |length| at + length);
                        let until = if window.order.is_empty() { end } else { last };
                        let values = placed[start..until].iter().map(|one| vec![one.argument.clone()]);
                        fold(kind, values.collect())
                    }
                };
                self.step()?;
            }
            start = end;
        }
        Ok(out)
    }

    // ---- expressions ----------------------------------------------------------------------------------------------

    pub fn value(&self, node: &Node, env: &Env<'_>) -> Result<Value> {
        Ok(match node {
            Node::Constant(value) => value.clone(),
            Node::Parameter(at) => self.parameters.get(*at).cloned().unwrap_or(Value::Null),
            Node::Column { up, slot } => {
                let mut env = env;
                for _ in 0..*up {
                    let Some(outer) = env.outer else { return Err(Error::internal("a query has no query around it")) };
                    env = outer;
                }
                env.row.get(*slot).cloned().unwrap_or(Value::Null)
            }
            Node::Aggregate(at) => env.aggregates.get(*at).cloned().unwrap_or(Value::Null),
            Node::Window(at) => env.windows.get(*at).cloned().unwrap_or(Value::Null),
            Node::Set(at) => env.sets.get(*at).cloned().unwrap_or(Value::Null),
            Node::Call { function, arguments } => {
                let arguments = arguments.iter().map(|node| self.value(node, env)).collect::<Result<Vec<Value>>>()?;
                if function.strict && arguments.iter().any(Value::is_null) {
                    return Ok(Value::Null);
                }
                (function.value)(self, &arguments)?
            }
            Node::Answer(value, arguments) => {
                for argument in arguments {
                    self.value(argument, env)?;
                }
                value.clone()
            }
            Node::And(nodes) => self.all(nodes, false, env)?,
            Node::Or(nodes) => self.all(nodes, true, env)?,
            Node::Not(node) => match self.value(node, env)? {
                Value::Bool(is) => Value::Bool(!is),
                _ => Value::Null,
            },
            Node::IsNull(node) => Value::Bool(match self.value(node, env)? {
                Value::Row(values) => values.iter().all(Value::is_null),
                value => value.is_null(),
            }),
            Node::Is(node, truth) => Value::Bool(matches!(self.value(node, env)?, Value::Bool(is) if is == *truth)),
            Node::IsDistinct(a, b) => Value::Bool(self.value(a, env)? != self.value(b, env)?),
            Node::Compare(comparison, a, b) => is(*comparison, &self.value(a, env)?, &self.value(b, env)?),
            Node::Compute(arithmetic, a, b) => compute(*arithmetic, &self.value(a, env)?, &self.value(b, env)?)?,
            Node::Concat(a, b) => match (self.value(a, env)?, self.value(b, env)?) {
                (Value::List(a), Value::List(b)) => Value::list(a.iter().chain(b.iter()).cloned().collect()),
                (Value::List(list), Value::Null) | (Value::Null, Value::List(list)) => Value::List(list),
                (Value::Text(a), Value::Text(b)) => Value::text(format!("{a}{b}")),
                _ => Value::Null,
            },
            Node::Match { text, pattern, how } => {
                self.matches(&self.value(text, env)?, &self.value(pattern, env)?, *how)?
            }
            Node::Case { operand, branches, otherwise } => {
                let operand = operand.as_ref().map(|node| self.value(node, env)).transpose()?;
                for (when, then) in branches {
                    let when = self.value(when, env)?;
                    let fits = match &operand {
                        None => when.is_true(),
                        Some(operand) => is(Comparison::Equal, operand, &when).is_true(),
                    };
                    if fits {
                        return self.value(then, env);
                    }
                }
                otherwise.as_ref().map_or(Ok(Value::Null), |node| self.value(node, env))?
            }
            Node::Coalesce(nodes) => {
                for node in nodes {
                    let value = self.value(node, env)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Value::Null
            }
            Node::InList(value, list) => {
                let value = self.value(value, env)?;
                let mut unknown = value.is_null();
                for node in list {
                    match is(Comparison::Equal, &value, &self.value(node, env)?) {
                        Value::Bool(true) => return Ok(Value::Bool(true)),
                        Value::Null => unknown = true,
                        _ => {}
                    }
                }
                if unknown { Value::Null } else { Value::Bool(false) }
            }
            Node::Quantified { all, comparison, left, list } => {
                let (left, list) = (self.value(left, env)?, self.value(list, env)?);
                let Some(list) = list.as_list() else { return Ok(Value::Null) };
                quantify(*all, list.iter().map(|value| Ok(is(*comparison, &left, value))))?
            }
            Node::AnyMatch { all, negated, text, list, how } => {
                let (text, list) = (self.value(text, env)?, self.value(list, env)?);
                let Some(list) = list.as_list() else { return Ok(Value::Null) };
                let one = |pattern: &Value| match self.matches(&text, pattern, *how)? {
                    Value::Bool(fits) => Ok(Value::Bool(fits != *negated)),
                    other => Ok(other),
                };
                quantify(*all, list.iter().map(one))?
            }
            Node::InQuery(value, query) => {
                let value = self.value(value, env)?;
                let rows = self.rows(query, Some(env))?;
                if rows.rows().is_empty() {
                    return Ok(Value::Bool(false));
                }
                if let Value::Row(values) = &value {
                    return Ok(Value::Bool(rows.rows().iter().any(|row| row == &**values)));
                }
                let index = rows.index(0);
                match value {
                    Value::Null => Value::Null,
                    value if index.contains_key(&value) => Value::Bool(true),
                    _ if index.contains_key(&Value::Null) => Value::Null,
                    _ => Value::Bool(false),
                }
            }
            Node::Exists(query) if query.correlated => Value::Bool(!self.query(query, Some(env), Some(1))?.is_empty()),
            Node::Exists(query) => Value::Bool(!self.rows(query, Some(env))?.rows().is_empty()),
            Node::Scalar(query) => {
                let rows = self.rows(query, Some(env))?;
                match rows.rows() {
                    [] => Value::Null,
                    [row] => row.first().cloned().unwrap_or(Value::Null),
                    _ => {
                        let message = "more than one row returned by a subquery used as an expression";
                        return Err(Error::new(Kind::Grouping, message));
                    }
                }
            }
            Node::ListOf(query) => {
                let rows = self.rows(query, Some(env))?;
                let value = |row: &Row| row.first().cloned().unwrap_or(Value::Null);
                Value::list(rows.rows().iter().map(value).collect())
            }
            Node::List(nodes) => Value::list(nodes.iter().map(|node| self.value(node, env)).collect::<Result<_>>()?),
            Node::Row(nodes) => {
                Value::Row(Arc::new(nodes.iter().map(|node| self.value(node, env)).collect::<Result<_>>()?))
            }
            Node::Element { list, index, first } => {
                let (list, index) = (self.value(list, env)?, self.value(index, env)?);
                let at = index.as_int().and_then(|index| usize::try_from(index - first).ok());
                let element = at.and_then(|at| list.as_list()?.get(at).cloned());
                element.unwrap_or(Value::Null)
            }
            Node::Slice { list, from, to } => {
                let list = self.value(list, env)?;
                let Some(values) = list.as_list() else { return Ok(Value::Null) };
                let bound = |node: &Option<Box<Node>>, without: i64| -> Result<i64> {
                    let value = node.as_ref().map(|node| self.value(node, env)).transpose()?;
                    Ok(value.and_then(|value| value.as_int()).unwrap_or(without))
                };
                let from = bound(from, 1)?.max(1) as usize - 1;
                let to = bound(to, values.len() as i64)?.clamp(0, values.len() as i64) as usize;
                Value::list(values.get(from..to.max(from)).unwrap_or_default().to_vec())
            }
            Node::Field { row, at } => match self.value(row, env)? {
                Value::Row(values) => values.get(*at).cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            },
            Node::Convert { value, from, to } => convert(self, self.value(value, env)?, *from, *to)?,
        })
    }

    /// AND and OR: `decides` is the value that needs no other.
    fn all(&self, nodes: &[Node], decides: bool, env: &Env<'_>) -> Result<Value> {
        let mut unknown = false;
        for node in nodes {
            match self.value(node, env)? {
                Value::Bool(is) if is == decides => return Ok(Value::Bool(decides)),
                Value::Bool(_) => {}
                _ => unknown = true,
            }
        }
        Ok(if unknown { Value::Null } else { Value::Bool(!decides) })
    }

    fn matches(&self, text: &Value, pattern: &Value, how: Pattern) -> Result<Value> {
        let (Some(text), Some(pattern)) = (text.as_str(), pattern.as_str()) else { return Ok(Value::Null) };
        Ok(Value::Bool(self.regex(pattern, how)?.is_match(text)))
    }

    /// The regular expression that a pattern means.
    pub fn regex(&self, pattern: &str, how: Pattern) -> Result<Regex> {
        let key = (pattern.to_string(), how);
        if let Some(regex) = self.patterns.borrow().get(&key) {
            return Ok(regex.clone());
        }
        let (text, ignore_case) = match how {
            Pattern::Regex { ignore_case } => (pattern.to_string(), ignore_case),
            Pattern::Like { ignore_case, escape } => (like(pattern, escape), ignore_case),
            Pattern::SimilarTo => (format!("^(?:{})$", pattern.replace('%', ".*").replace('_', ".")), false),
        };
        let regex = RegexBuilder::new(&text).case_insensitive(ignore_case).dot_matches_new_line(true).build();
        let regex = regex.map_err(|err| {
            Error::new(Kind::InvalidRegex, format!("invalid regular expression \"{pattern}\""))
                .with_detail(err.to_string())
        })?;
        self.patterns.borrow_mut().insert(key, regex.clone());
        Ok(regex)
    }
}

fn number_rows(rows: &mut [Row], ordinality: bool) {
    if ordinality {
        rows.iter_mut().enumerate().for_each(|(at, row)| row.push(Value::Int(at as i64 + 1)));
    }
}

/// A LIKE pattern as a regular expression.
fn like(pattern: &str, escape: Option<char>) -> String {
    let (mut out, mut chars) = ("^".to_string(), pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => out.push_str(&regex::escape(&chars.next().map(String::from).unwrap_or_default())),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out + "$"
}

fn combine(how: Combine, all: bool, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    let mut counts: HashMap<Row, usize> = HashMap::new();
    let mut rows = match how {
        Combine::Union => left.into_iter().chain(right).collect(),
        Combine::Except | Combine::Intersect => {
            right.into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
            let mut stays = |row: &Row| {
                let there = match counts.get_mut(row) {
                    Some(0) | None => false,
                    Some(count) => {
                        *count -= usize::from(all);
                        true
                    }
                };
                there == (how == Combine::Intersect)
            };
            left.into_iter().filter(|row| stays(row)).collect::<Vec<Row>>()
        }
    };
    if !all {
        let mut seen = HashSet::new();
        rows.retain(|row| seen.insert(row.clone()));
    }
    rows
}

fn compare(a: &Value, b: &Value, order: &Order) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if order.nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if order.nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) if order.descending => b.order(a),
        (false, false) => a.order(b),
    }
}

/// A comparison as SQL makes it: with NULL nothing is known.
fn is(comparison: Comparison, a: &Value, b: &Value) -> Value {
    if a.is_null() || b.is_null() {
        return Value::Null;
    }
    let order = a.order(b);
    Value::Bool(match comparison {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::NotEqual => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
    })
}

fn quantify(all: bool, mut answers: impl Iterator<Item = Result<Value>>) -> Result<Value> {
    let mut unknown = false;
    let decided = answers.find_map(|answer| match answer {
        Err(err) => Some(Err(err)),
        Ok(Value::Bool(is)) if is != all => Some(Ok(Value::Bool(is))),
        Ok(Value::Bool(_)) => None,
        Ok(_) => {
            unknown = true;
            None
        }
    });
    decided.unwrap_or(Ok(if unknown { Value::Null } else { Value::Bool(all) }))
}

fn compute(arithmetic: Arithmetic, a: &Value, b: &Value) -> Result<Value> {
    let too_large = || Error::new(Kind::OutOfRange, "bigint out of range");
    if let (Value::Int(a), Value::Int(b)) = (a, b) {
        let by_zero = || Error::new(Kind::DivisionByZero, "division by zero");
        let number = match arithmetic {
            Arithmetic::Add => a.checked_add(*b),
            Arithmetic::Subtract => a.checked_sub(*b),
            Arithmetic::Multiply => a.checked_mul(*b),
            Arithmetic::Divide if *b == 0 => return Err(by_zero()),
            Arithmetic::Modulo if *b == 0 => return Err(by_zero()),
            Arithmetic::Divide => a.checked_div(*b),
            Arithmetic::Modulo => a.checked_rem(*b),
            Arithmetic::And => Some(a & b),
            Arithmetic::Or => Some(a | b),
            Arithmetic::ShiftLeft => a.checked_shl(*b as u32),
            Arithmetic::ShiftRight => a.checked_shr(*b as u32),
        };
        return number.map(Value::Int).ok_or_else(too_large);
    }
    let (Some(a), Some(b)) = (a.as_float(), b.as_float()) else { return Ok(Value::Null) };
    Ok(Value::Float(match arithmetic {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
        Arithmetic::Modulo => a % b,
        Arithmetic::And | Arithmetic::Or | Arithmetic::ShiftLeft | Arithmetic::ShiftRight => return Ok(Value::Null),
    }))
}

/// What an aggregate makes of its arguments, in this order.
fn fold(kind: AggregateKind, rows: Vec<Vec<Value>>) -> Value {
    let first = |row: Vec<Value>| row.into_iter().next().unwrap_or(Value::Null);
    if kind == AggregateKind::CountRows {
        return Value::Int(rows.len() as i64);
    }
    if kind == AggregateKind::List {
        return if rows.is_empty() { Value::Null } else { Value::list(rows.into_iter().map(first).collect()) };
    }
    if kind == AggregateKind::Join {
        let mut out: Option<String> = None;
        for row in &rows {
            let Some(text) = row.first().and_then(Value::as_str) else { continue };
            match &mut out {
                None => out = Some(text.to_string()),
                Some(out) => {
                    out.push_str(row.get(1).and_then(Value::as_str).unwrap_or_default());
                    out.push_str(text);
                }
            }
        }
        return out.map_or(Value::Null, Value::text);
    }
    let values: Vec<Value> = rows.into_iter().map(first).filter(|value| !value.is_null()).collect();
    if kind == AggregateKind::Count {
        return Value::Int(values.len() as i64);
    }
    if values.is_empty() {
        return Value::Null;
    }
    match kind {
        AggregateKind::Min => values.into_iter().min_by(Value::order).unwrap_or(Value::Null),
        AggregateKind::Max => values.into_iter().max_by(Value::order).unwrap_or(Value::Null),
        AggregateKind::Every => Value::Bool(values.iter().all(Value::is_true)),
        AggregateKind::Some => Value::Bool(values.iter().any(Value::is_true)),
        AggregateKind::Sum if values.iter().all(|value| matches!(value, Value::Int(_))) => {
            Value::Int(values.iter().filter_map(Value::as_int).fold(0, i64::saturating_add))
        }
        AggregateKind::Sum => Value::Float(values.iter().filter_map(Value::as_float).sum()),
        AggregateKind::Average => {
            Value::Float(values.iter().filter_map(Value::as_float).sum::<f64>() / values.len() as f64)
        }
        AggregateKind::CountRows | AggregateKind::Count | AggregateKind::List | AggregateKind::Join => Value::Null,
    }
}
