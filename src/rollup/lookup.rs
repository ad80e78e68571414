//! Joins of a stream with reference tables, as the map stage of a rollup runs them.
//!
//! ```text
//!     Join(stream, Filter(names))   ──►   Lookup(stream)  +  rows of Filter(names), by key   [once per version]
//! ```
//!
//! DataFusion optimizes the aggregate with its joins (conditions move to their side, subqueries become semi joins, unused
//! columns go). Then each join with a constant side becomes a [`LookupNode`] over the stream alone, planned as a
//! [`LookupExec`]. The constant side is computed and put into a hash table once per version of its tables ([`Lookups`])
//! and not once per micro-batch, which is why this is not DataFusion's hash join. Rows keep the order of the stream.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, HashMap, JoinType, NullEquality, Result as DfResult, internal_err};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Join, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::logical_expr_common::type_coercion::binary::comparison_coercion;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, execute_stream,
};
use datafusion::physical_planner::PhysicalPlanner;
use futures::StreamExt;
use parking_lot::Mutex;

use super::reference::{Reference, Version, conditions, is_constant, replace_tables, stream_side, tables_of};
use crate::error::{Error, Kind, Result};
use crate::mutation::{Mutation, on};
use crate::opaque::{Extended, plan_extension_at_once};

/// Rows made at once: a row that matches many is spread over as many as it takes.
const CHUNK: usize = 32 * 1024;

/// Versions whose hash tables are kept: the one that rows join now, and the one before while a view is being filled.
const KEPT: usize = 2;

/// No row, no key.
const NONE: u32 = u32::MAX;

/// Plans `logical`, an aggregate over a chain with joins, so that its joins with reference tables are lookups.
pub async fn plan(state: &SessionState, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let optimized = lookups_for_joins(state.optimize(logical)?)?;
    refuse_subqueries(&optimized)?;
    Ok(state.query_planner().create_physical_plan(&optimized, state).await?)
}

/// Replaces each join of the stream with a constant side.
fn lookups_for_joins(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let count = Cell::new(0);
    let replaced = plan.transform_up(|node| {
        let LogicalPlan::Join(join) = node else { return Ok(Transformed::no(node)) };
        if is_constant(&join.left) && is_constant(&join.right) {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        }
        let number = count.replace(count.get() + 1);
        let Some(node) = LookupNode::new(join.clone(), number) else {
            return Err(not_a_lookup(&LogicalPlan::Join(join)).into());
        };
        Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
    })?;
    Ok(replaced.data)
}

fn not_a_lookup(join: &LogicalPlan) -> Error {
    Error::new(Kind::NotSupported, "this join cannot be maintained below an aggregate")
        .with_detail(format!("Plan node: {}.", join.display()))
        .with_hint("A stream can be joined with reference tables there, keeping rows of the stream: JOIN, or LEFT JOIN with the stream on the left.")
}

fn refuse_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)) {
                    refused = Some(node.display().to_string());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match refused {
        None => Ok(()),
        Some(node) => {
            Err(Error::new(Kind::NotSupported, "this subquery cannot be used below the aggregate of a materialized view")
                .with_detail(format!("Plan node: {node}."))
                .with_hint("IN, NOT IN and EXISTS over a reference table work as conditions of WHERE; a value from a table can be joined: CROSS JOIN, LEFT JOIN."))
        }
    }
}

/// A join of the stream (the input) with a constant side, in a logical plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LookupNode {
    join: Join,
    number: usize,
    stream_left: bool,
}

impl PartialOrd for LookupNode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl LookupNode {
    fn new(join: Join, number: usize) -> Option<LookupNode> {
        let stream_left = Arc::ptr_eq(stream_side(&join)?, &join.left);
        Some(LookupNode { join, number, stream_left })
    }

    fn stream(&self) -> &LogicalPlan {
        if self.stream_left { &self.join.left } else { &self.join.right }
    }

    fn side(&self) -> &LogicalPlan {
        if self.stream_left { &self.join.right } else { &self.join.left }
    }

    fn text(&self) -> String {
        let conditions: Vec<String> = self.join.on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        let filter = self.join.filter.as_ref().map(|f| format!(", filter={f}")).unwrap_or_default();
        let tables: Vec<String> = tables_of(self.side()).iter().map(|t| t.reference.name.clone()).collect();
        format!("{} in {}: on=[{}]{filter}", self.join.join_type, tables.join(", "), conditions.join(", "))
    }
}

impl UserDefinedLogicalNodeCore for LookupNode {
    fn name(&self) -> &str {
        "Lookup"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![self.stream()]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.join.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        conditions(&self.join).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Lookup: {}", self.text())
    }

    /// Made when optimizing is over: nothing rewrites its conditions any more.
    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let Some(input) = inputs.pop() else { return internal_err!("a lookup has one input") };
        let mut node = self.clone();
        match node.stream_left {
            true => node.join.left = Arc::new(input),
            false => node.join.right = Arc::new(input),
        }
        Ok(node)
    }
}

/// Plans [`LookupNode`] for DataFusion's physical planner.
#[derive(Debug)]
pub struct LookupPlanner;

impl datafusion::physical_planner::ExtensionPlanner for LookupPlanner {
    plan_extension_at_once!();
}

impl LookupPlanner {
    fn extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn datafusion::catalog::Session,
        context: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> Extended {
        let Some(node) = node.as_any().downcast_ref::<LookupNode>() else { return Ok(None) };
        let join = &node.join;
        let (left, right) = (join.left.schema(), join.right.schema());
        let (mut stream_keys, mut table_keys, mut key_types) = (Vec::new(), Vec::new(), Vec::new());
        for (l, r) in &join.on {
            let types = (l.get_type(left)?, r.get_type(right)?);
            let Some(key_type) = comparison_coercion(&types.0, &types.1) else {
                return internal_err!("{} and {} are not comparable", types.0, types.1);
            };
            let l = planner.create_physical_expr(l, left, session, context)?;
            let r = planner.create_physical_expr(r, right, session, context)?;
            let (stream, table) = if node.stream_left { (l, r) } else { (r, l) };
            stream_keys.push(stream);
            table_keys.push(table);
            key_types.push(plain(&key_type));
        }
        let both = left.join(right)?;
        let filter = match &join.filter {
            Some(filter) => Some(planner.create_physical_expr(filter, &both, session, context)?),
            None => None,
        };
        let spec = Spec {
            number: node.number,
            side: node.side().clone(),
            keep: Keep::of(join.join_type),
            stream_left: node.stream_left,
            stream_keys,
            table_keys,
            key_types,
            filter,
            null_equal: join.null_equality == NullEquality::NullEqualsNull,
            null_aware: join.null_aware,
            table: nullable(node.side().schema().as_arrow()),
            pairs: nullable(both.as_arrow()),
            output: Arc::new(join.schema.as_arrow().clone()),
            text: node.text(),
        };
        Ok(Some(Arc::new(LookupExec::new(Arc::clone(&inputs[0]), Arc::new(spec), None))))
    }
}

/// Keys are compared by value, whatever dictionary they came with.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    }
}

fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

/// Which rows of the stream come out, and with what.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Keep {
    /// Each with every row of the table that matches.
    Matching,
    /// The same, and those without a match, with NULLs.
    All,
    /// Those with a match, alone.
    Found,
    /// Those without.
    NotFound,
    /// All, with a column that says whether there is a match.
    Mark,
}

impl Keep {
    fn of(join_type: JoinType) -> Keep {
        match join_type {
            JoinType::Inner => Keep::Matching,
            JoinType::Left | JoinType::Right | JoinType::Full => Keep::All,
            JoinType::LeftSemi | JoinType::RightSemi => Keep::Found,
            JoinType::LeftAnti | JoinType::RightAnti => Keep::NotFound,
            JoinType::LeftMark | JoinType::RightMark => Keep::Mark,
        }
    }
}

/// All that is fixed about one lookup.
#[derive(Debug)]
pub struct Spec {
    number: usize,
    /// What is looked up in: its rows are made anew for each version of its tables.
    side: LogicalPlan,
    keep: Keep,
    stream_left: bool,
    stream_keys: Vec<Arc<dyn PhysicalExpr>>,
    table_keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Both are cast to these.
    key_types: Vec<DataType>,
    /// Over the columns of both sides, left ones first.
    filter: Option<Arc<dyn PhysicalExpr>>,
    null_equal: bool,
    /// NOT IN: a NULL among the values means that nothing is known not to be among them.
    null_aware: bool,
    table: SchemaRef,
    pairs: SchemaRef,
    output: SchemaRef,
    text: String,
}

/// The rows of a constant side, by key.
pub struct Table {
    rows: RecordBatch,
    /// `None`: the join has no equality, so every row of the stream meets all of these.
    converter: Option<RowConverter>,
    /// The number of each key; the rows of key `i` are `order[starts[i]..starts[i + 1]]`.
    keys: HashMap<Box<[u8]>, u32>,
    starts: Vec<u32>,
    order: Vec<u32>,
    has_null_key: bool,
}

impl Spec {
    fn keys(&self, exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> DfResult<Vec<ArrayRef>> {
        let values = exprs.iter().zip(&self.key_types).map(|(expr, key_type)| {
            let values = expr.evaluate(batch)?.into_array(batch.num_rows())?;
            Ok(if values.data_type() == key_type { values } else { cast(&values, key_type)? })
        });
        values.collect()
    }

    /// Whether a key with NULL in it matches nothing, per row; `None` when no row has one.
    fn unmatchable(&self, keys: &[ArrayRef]) -> Option<Vec<bool>> {
        if self.null_equal || keys.iter().all(|k| k.logical_null_count() == 0) {
            return None;
        }
        let mut null = vec![false; keys[0].len()];
        for nulls in keys.iter().filter_map(|k| k.logical_nulls()) {
            null.iter_mut().zip(nulls.iter()).for_each(|(null, valid)| *null |= !valid);
        }
        Some(null)
    }

    fn build(&self, batches: &[RecordBatch]) -> Result<Table> {
        let mut rows = concat_batches(&self.table, &fitting(batches, &self.table)?)?;
        let count = rows.num_rows().saturating_sub(usize::from(on(Mutation::LookupForgetsARow)));
        rows = crate::batch::compact(rows.slice(0, count))?;
        if rows.num_rows() >= NONE as usize {
            return Err(Error::new(Kind::ResourceLimit, "a reference table has too many rows"));
        }
        let count = rows.num_rows() as u32;
        if self.table_keys.is_empty() {
            let starts = if count == 0 { vec![0] } else { vec![0, count] };
            let order = (0..count).collect();
            return Ok(Table { rows, converter: None, keys: HashMap::new(), starts, order, has_null_key: false });
        }
        let values = self.keys(&self.table_keys, &rows)?;
        let unmatchable = self.unmatchable(&values);
        let converter = RowConverter::new(self.key_types.iter().cloned().map(SortField::new).collect())?;
        let encoded = converter.convert_columns(&values)?;
        let mut keys: HashMap<Box<[u8]>, u32> = HashMap::new();
        let mut key_of = vec![NONE; rows.num_rows()];
        for (i, row) in encoded.iter().enumerate() {
            if unmatchable.as_ref().is_some_and(|null| null[i]) {
                continue;
            }
            let next = keys.len() as u32;
            key_of[i] = *keys.entry(row.as_ref().into()).or_insert(next);
        }
        // Counting sort by key: rows of one key stay in their order.
        let mut starts = vec![0u32; keys.len() + 1];
        key_of.iter().filter(|&&k| k != NONE).for_each(|&k| starts[k as usize + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut next = starts.clone();
        let mut order = vec![0u32; *starts.last().expect("it has one more than there are keys") as usize];
        for (i, &key) in key_of.iter().enumerate().filter(|(_, k)| **k != NONE) {
            order[next[key as usize] as usize] = i as u32;
            next[key as usize] += 1;
        }
        let has_null_key = unmatchable.is_some();
        Ok(Table { rows, converter: Some(converter), keys, starts, order, has_null_key })
    }
}

/// A plan's batches may name or mark columns differently than its schema; the types are the same.
fn fitting(batches: &[RecordBatch], schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let fitted = batches.iter().map(|batch| {
        let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
            Ok(if column.data_type() == field.data_type() {
                Arc::clone(column)
            } else {
                cast(column, field.data_type())?
            })
        });
        with_rows(schema, columns.collect::<Result<_>>()?, batch.num_rows())
    });
    fitted.collect()
}

fn with_rows(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl Table {
    /// The rows that match key number `key`.
    fn matching(&self, key: u32) -> &[u32] {
        match key {
            NONE => &[],
            key => &self.order[self.starts[key as usize] as usize..self.starts[key as usize + 1] as usize],
        }
    }
}

/// Looks rows of the stream up. It can run once it was given its table ([`LookupExec::over`]).
pub struct LookupExec {
    input: Arc<dyn ExecutionPlan>,
    spec: Arc<Spec>,
    table: Option<Arc<Table>>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for LookupExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupExec({})", self.spec.text)
    }
}

impl LookupExec {
    fn new(input: Arc<dyn ExecutionPlan>, spec: Arc<Spec>, table: Option<Arc<Table>>) -> LookupExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&spec.output)),
            datafusion::physical_expr::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        LookupExec { input, spec, table, properties: Arc::new(properties) }
    }

    /// The same lookup over another input, in the right one of `tables`.
    pub fn over(&self, input: Arc<dyn ExecutionPlan>, tables: &[Arc<Table>]) -> LookupExec {
        LookupExec::new(input, Arc::clone(&self.spec), tables.get(self.spec.number).cloned())
    }
}

impl DisplayAs for LookupExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "LookupExec: {}", self.spec.text)
    }
}

impl ExecutionPlan for LookupExec {
    fn name(&self) -> &str {
        "LookupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        for key in &self.spec.stream_keys {
            if f(key)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("a lookup has one input") };
        Ok(Arc::new(LookupExec::new(input, Arc::clone(&self.spec), self.table.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let Some(table) = self.table.clone() else { return internal_err!("a lookup was run without its table") };
        let input = self.input.execute(partition, context)?;
        let spec = Arc::clone(&self.spec);
        let stream = input.flat_map(move |batch| {
            let pieces = batch.and_then(|batch| Pieces::new(&spec, &table, batch));
            let (pieces, failed) = match pieces {
                Ok(pieces) => (Some(pieces), None),
                Err(err) => (None, Some(Err(err))),
            };
            futures::stream::iter(pieces.into_iter().flatten().chain(failed))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.spec.output), stream)))
    }
}

/// The output for one batch of the stream, made piece by piece: few rows may become many.
struct Pieces {
    spec: Arc<Spec>,
    table: Arc<Table>,
    batch: RecordBatch,
    /// The number of each row's key in the table.
    keys: Vec<u32>,
    null_keys: Option<Vec<bool>>,
    /// The next row.
    row: usize,
}

impl Pieces {
    fn new(spec: &Arc<Spec>, table: &Arc<Table>, batch: RecordBatch) -> DfResult<Pieces> {
        let values = spec.keys(&spec.stream_keys, &batch)?;
        let (keys, null_keys) = match &table.converter {
            None => {
                let only = if table.rows.num_rows() == 0 { NONE } else { 0 };
                (vec![only; batch.num_rows()], None)
            }
            Some(converter) => {
                let null_keys = spec.unmatchable(&values);
                let encoded = converter.convert_columns(&values)?;
                let number = |(i, row): (usize, arrow::row::Row<'_>)| match &null_keys {
                    Some(null) if null[i] => NONE,
                    _ => table.keys.get(row.as_ref()).copied().unwrap_or(NONE),
                };
                (encoded.iter().enumerate().map(number).collect(), null_keys)
            }
        };
        Ok(Pieces { spec: Arc::clone(spec), table: Arc::clone(table), batch, keys, null_keys, row: 0 })
    }

    fn piece(&mut self) -> Result<RecordBatch> {
        let from = self.row;
        let alone = matches!(self.spec.keep, Keep::Found | Keep::NotFound | Keep::Mark);
        if alone && self.spec.filter.is_none() {
            self.row = self.batch.num_rows();
            let found = self.keys[from..].iter().map(|&key| key != NONE).collect();
            return self.alone(from, found);
        }
        // Pairs of a row of the stream and a row of the table. A row's matches stay together.
        let (mut rows, mut matches) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
        while self.row < self.batch.num_rows() {
            let matching = self.table.matching(self.keys[self.row]);
            if !rows.is_empty() && rows.len() + matching.len() > CHUNK {
                break;
            }
            rows.extend(std::iter::repeat_n(self.row as u32, matching.len()));
            matches.extend_from_slice(matching);
            if matching.is_empty() && self.spec.keep == Keep::All && self.spec.filter.is_none() {
                rows.push(self.row as u32);
                matches.push(NONE);
            }
            self.row += 1;
        }
        let Some(passing) = self.passing(&rows, &matches)? else { return self.joined(rows, matches) };
        let pairs = rows.iter().zip(&matches).zip(passing.iter()).filter(|(_, pass)| *pass == Some(true));
        let pairs = pairs.map(|((row, found), _)| (*row, *found));
        if alone {
            let mut found = vec![false; self.row - from];
            pairs.for_each(|(row, _)| found[row as usize - from] = true);
            return self.alone(from, found);
        }
        let (mut kept_rows, mut kept_matches) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let mut next = from as u32;
        let mut fill_up_to = |row: u32, kept_rows: &mut Vec<u32>, kept_matches: &mut Vec<u32>| {
            // Rows without a passing pair, in their places.
            if self.spec.keep == Keep::All {
                (next..row).for_each(|row| {
                    kept_rows.push(row);
                    kept_matches.push(NONE);
                });
            }
            next = row + 1;
        };
        for (row, found) in pairs {
            if kept_rows.last() != Some(&row) {
                fill_up_to(row, &mut kept_rows, &mut kept_matches);
            }
            kept_rows.push(row);
            kept_matches.push(found);
        }
        fill_up_to(self.row as u32, &mut kept_rows, &mut kept_matches);
        self.joined(kept_rows, kept_matches)
    }

    /// Which pairs pass the join's filter; `None` when it has none.
    fn passing(&self, rows: &[u32], matches: &[u32]) -> Result<Option<BooleanArray>> {
        let Some(filter) = &self.spec.filter else { return Ok(None) };
        let stream = taken(&self.batch, &rows.to_vec().into())?;
        let table = taken(&self.table.rows, &matches.to_vec().into())?;
        let both = with_rows(&self.spec.pairs, self.in_order(stream, table), rows.len())?;
        let passing = filter.evaluate(&both)?.into_array(rows.len())?;
        Ok(Some(passing.as_boolean().clone()))
    }

    fn in_order(&self, stream: Vec<ArrayRef>, table: Vec<ArrayRef>) -> Vec<ArrayRef> {
        if self.spec.stream_left { [stream, table].concat() } else { [table, stream].concat() }
    }

    /// Rows of both sides, next to each other.
    fn joined(&self, rows: Vec<u32>, matches: Vec<u32>) -> Result<RecordBatch> {
        let count = rows.len();
        let each_once = count == self.batch.num_rows() && rows.iter().enumerate().all(|(i, &row)| i == row as usize);
        let stream = if each_once { self.batch.columns().to_vec() } else { taken(&self.batch, &rows.into())? };
        let matches: UInt32Array = if matches.contains(&NONE) {
            matches.into_iter().map(|row| (row != NONE).then_some(row)).collect()
        } else {
            matches.into()
        };
        let table = taken(&self.table.rows, &matches)?;
        with_rows(&self.spec.output, self.in_order(stream, table), count)
    }

    /// Rows of the stream from `from` on, without columns of the table. `found` says whether each has a match.
    fn alone(&self, from: usize, found: Vec<bool>) -> Result<RecordBatch> {
        let count = found.len();
        let part = self.batch.slice(from, count);
        let keep: BooleanArray = match self.spec.keep {
            Keep::Mark => {
                let mark: ArrayRef = Arc::new(BooleanArray::from(found));
                return with_rows(&self.spec.output, [part.columns(), &[mark]].concat(), count);
            }
            Keep::NotFound if self.spec.null_aware && self.table.rows.num_rows() > 0 => {
                let null = |i: usize| self.null_keys.as_ref().is_some_and(|null| null[from + i]);
                let keep = |(i, found): (usize, bool)| !found && !self.table.has_null_key && !null(i);
                found.into_iter().enumerate().map(keep).collect::<Vec<bool>>().into()
            }
            Keep::NotFound => found.into_iter().map(|found| !found).collect::<Vec<bool>>().into(),
            Keep::Found | Keep::Matching | Keep::All => found.into(),
        };
        let kept = filter_record_batch(&part, &keep)?;
        with_rows(&self.spec.output, kept.columns().to_vec(), kept.num_rows())
    }
}

fn taken(batch: &RecordBatch, rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    Ok(batch.columns().iter().map(|column| take(column, rows, None)).collect::<Result<_, _>>()?)
}

impl Iterator for Pieces {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.row < self.batch.num_rows() {
            match self.piece() {
                Ok(batch) if batch.num_rows() == 0 => {}
                Ok(batch) => return Some(Ok(batch)),
                Err(err) => {
                    self.row = self.batch.num_rows();
                    return Some(Err(err.into()));
                }
            }
        }
        None
    }
}

type Tables = Arc<Vec<Arc<Table>>>;

/// All lookups of a map stage, with the hash tables of the versions that were needed last.
pub struct Lookups {
    // Fixed.
    specs: Vec<Arc<Spec>>,
    references: Vec<Arc<Reference>>,
    state: SessionState,
    /// Where operators of a constant side may start tasks.
    runtime: Option<tokio::runtime::Handle>,
    // State.
    recent: Mutex<Vec<(Vec<u64>, Tables)>>,
}

impl Lookups {
    /// Those of `plan`, a chain of operators down to the stream. To be called on the runtime that runs queries.
    pub fn of(plan: &Arc<dyn ExecutionPlan>, state: &SessionState) -> Lookups {
        let mut specs: Vec<Arc<Spec>> = Vec::new();
        let mut node = Some(plan);
        while let Some(here) = node {
            if let Some(lookup) = here.downcast_ref::<LookupExec>() {
                specs.push(Arc::clone(&lookup.spec));
            }
            node = here.children().first().copied();
        }
        specs.sort_by_key(|spec| spec.number);
        let mut references: Vec<Arc<Reference>> = Vec::new();
        for table in specs.iter().flat_map(|spec| tables_of(&spec.side)) {
            if !references.iter().any(|r| Arc::ptr_eq(r, &table.reference)) {
                references.push(Arc::clone(&table.reference));
            }
        }
        let runtime = tokio::runtime::Handle::try_current().ok();
        Lookups { specs, references, state: state.clone(), runtime, recent: Mutex::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// The tables that are looked up in.
    pub fn references(&self) -> &[Arc<Reference>] {
        &self.references
    }

    /// The offsets of a stream where other versions begin to apply, within a range.
    pub fn boundaries(&self, stream: &str, offsets: &std::ops::Range<u64>) -> Vec<u64> {
        let mut all: Vec<u64> = self.references.iter().flat_map(|r| r.boundaries(stream, offsets)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The versions that the row at `offset` of `stream` joins.
    fn versions_at(&self, stream: &str, offset: u64) -> Result<Vec<Arc<Version>>> {
        let version = |r: &Arc<Reference>| r.at(stream, offset).ok_or_else(|| unloaded(&r.name));
        self.references.iter().map(version).collect()
    }

    /// The hash tables for the row at `offset` of `stream`. Called by those who fold rows, on their threads.
    pub fn at(&self, stream: &str, offset: u64) -> Result<Tables> {
        let versions = self.versions_at(stream, offset)?;
        if let Some(tables) = self.known(&versions) {
            return Ok(tables);
        }
        let _inside = self.runtime.as_ref().map(|handle| handle.enter());
        futures::executor::block_on(self.build(versions))
    }

    /// Makes the hash tables as they will be with `changed` (or are, with none), so that rows find them ready. Fails
    /// when they cannot be made.
    pub async fn prepare(&self, changed: Option<(&Arc<Reference>, &Arc<Version>)>) -> Result<()> {
        let version = |r: &Arc<Reference>| match changed {
            Some((reference, version)) if Arc::ptr_eq(reference, r) => Ok(Arc::clone(version)),
            _ => r.current().ok_or_else(|| unloaded(&r.name)),
        };
        let versions = self.references.iter().map(version).collect::<Result<Vec<_>>>()?;
        if self.known(&versions).is_none() {
            self.build(versions).await?;
        }
        Ok(())
    }

    fn known(&self, versions: &[Arc<Version>]) -> Option<Tables> {
        let numbers: Vec<u64> = versions.iter().map(|v| v.number).collect();
        let recent = self.recent.lock();
        recent.iter().find(|(known, _)| *known == numbers).map(|(_, tables)| Arc::clone(tables))
    }

    async fn build(&self, versions: Vec<Arc<Version>>) -> Result<Tables> {
        let mut tables = Vec::with_capacity(self.specs.len());
        for spec in &self.specs {
            let rows = self.rows_of(&spec.side, &versions).await?;
            tables.push(Arc::new(spec.build(&rows)?));
        }
        let tables = Arc::new(tables);
        let mut recent = self.recent.lock();
        recent.insert(0, (versions.iter().map(|v| v.number).collect(), Arc::clone(&tables)));
        recent.truncate(KEPT);
        Ok(tables)
    }

    /// The rows of a constant side as of these versions of its tables.
    async fn rows_of(&self, side: &LogicalPlan, versions: &[Arc<Version>]) -> Result<Vec<RecordBatch>> {
        let pinned = replace_tables(side.clone(), &|table| {
            let at = self.references.iter().position(|r| Arc::ptr_eq(r, &table.reference))?;
            Some(table.at(Arc::clone(&versions[at])))
        })?;
        let plan = self.state.query_planner().create_physical_plan(&pinned, &self.state).await?;
        let mut batches = execute_stream(plan, self.state.task_ctx())?;
        let limit = self.references.iter().map(|r| r.limit).max().unwrap_or(u64::MAX);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = batches.next().await {
            // A filtered batch would hold on to the strings of the whole table.
            let batch = crate::batch::compact(batch?)?;
            bytes += batch.get_array_memory_size() as u64;
            if bytes > limit {
                let names: Vec<&str> = self.references.iter().map(|r| r.name.as_str()).collect();
                let message = format!(
                    "what a view makes of reference table \"{}\" takes more than table-memory allows ({limit} bytes)",
                    names.join("\", \"")
                );
                return Err(Error::new(Kind::ResourceLimit, message)
                    .with_hint("Join fewer rows or columns, or start the server with a larger --table-memory."));
            }
            rows.push(batch);
        }
        Ok(rows)
    }
}

fn unloaded(name: &str) -> Error {
    Error::internal(format!("reference table \"{name}\" has no version"))
}
