//! Queries that need no plan to run: of one row of a view, found by all of its group columns (also that of its window, where each
//! row is in one), or of no table at all.
//!
//! ```text
//!     Projection(Filter(Slot where c0 = $1))   ──►   group of $1  →  keep where c0 = $1  →  compute the columns
//! ```
//!
//! Made once from an optimized plan ([`Point::of`]) and run with nothing but the values of its parameters
//! ([`Point::read`]): no operators, no tasks, no waiting. A run takes microseconds and no memory to speak of, so whoever
//! asks may do it where he is. That holds only for expressions that give little for little: see [`LIGHT`].
//!
//! Parameters are columns behind those of the row, so nothing is made again for their values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{
    BinaryExpr, EmptyRelation, Expr, FetchType, LogicalPlan, Operator, SkipType, TableScan,
};
use datafusion::physical_expr::PhysicalExpr;

use super::Engine;
use crate::error::{Error, Result};
use crate::rollup::Rollup;
use crate::rollup::plan::{Definition, Slot, provider_of};
use crate::rollup::timeliness::Timeliness;
use crate::rollup::window::{Bound, to_micros};
use crate::view::table::equal_to;

/// Functions that compute something small from one row. What may give much (`repeat`, `lpad`) or take long (regular
/// expressions) is not among them.
const LIGHT: &[&str] = &[
    "abs",
    "ceil",
    "char_length",
    "character_length",
    "coalesce",
    "concat",
    "date_bin",
    "date_part",
    "date_trunc",
    "floor",
    "greatest",
    "least",
    "length",
    "lower",
    "nullif",
    "nvl",
    "power",
    "round",
    "sqrt",
    "substr",
    "to_char",
    "trunc",
    "upper",
];

/// Qualifies the columns that hold parameters.
const PARAMETERS: &str = "parameters of the statement";

/// See the file header.
pub struct Point {
    source: Source,
    steps: Vec<Step>,
    schema: SchemaRef,
}

enum Source {
    /// One row without columns.
    Row,
    Group {
        slot: Arc<Slot>,
        /// Of each group column, what it has to be.
        key: Vec<Arc<dyn PhysicalExpr>>,
        /// Which of the slot's columns are read.
        columns: Vec<usize>,
    },
}

/// What is done with the row. The parameters are behind its columns.
enum Step {
    Keep(Arc<dyn PhysicalExpr>),
    Compute(Vec<Arc<dyn PhysicalExpr>>),
}

impl Point {
    /// From an optimized plan over slots whose parameters have these types; `None` for other queries.
    pub fn of(plan: &LogicalPlan, types: &[Option<DataType>], state: &SessionState) -> Option<Point> {
        let field = |(i, data_type): (usize, &Option<DataType>)| Some(Field::new(name_of(i), data_type.clone()?, true));
        let fields: Option<Vec<Field>> = types.iter().enumerate().map(field).collect();
        let mut making = Making { parameters: Schema::new(fields?), state, steps: Vec::new() };
        let source = making.source(plan)?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Some(Point { source, steps: making.steps, schema })
    }

    /// The result with these values, in the types of the parameters: one row or none. `None` where the query itself has to
    /// run, because more has to be done, or to say what is wrong.
    pub fn read(&self, engine: &Engine, values: &[ScalarValue]) -> Option<RecordBatch> {
        let parameters = values.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>, _>>().ok()?;
        self.row(engine, &parameters).ok()?
    }

    fn row(&self, engine: &Engine, parameters: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        let mut columns: Vec<ArrayRef> = match &self.source {
            Source::Row => Vec::new(),
            Source::Group { slot, key, columns } => {
                let Some(row) = self.group(engine, slot, key, parameters)? else { return Ok(None) };
                if row.num_rows() == 0 {
                    return Ok(Some(RecordBatch::new_empty(Arc::clone(&self.schema))));
                }
                columns.iter().map(|&i| Arc::clone(row.column(i))).collect()
            }
        };
        for step in &self.steps {
            columns.extend(parameters.iter().cloned());
            let row = row_of(columns)?;
            columns = match step {
                Step::Keep(condition) => {
                    let holds = condition.evaluate(&row)?.into_array(1)?;
                    let holds = holds.as_boolean_opt().ok_or_else(|| Error::internal("a condition is no boolean"))?;
                    if holds.is_null(0) || !holds.value(0) {
                        return Ok(Some(RecordBatch::new_empty(Arc::clone(&self.schema))));
                    }
                    row.columns()[..row.num_columns() - parameters.len()].to_vec()
                }
                Step::Compute(exprs) => {
                    let one = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&row)?.into_array(1);
                    exprs.iter().map(one).collect::<Result<_, _>>()?
                }
            };
        }
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }

    /// The row of a group, if it is there.
    fn group(
        &self,
        engine: &Engine,
        slot: &Slot,
        key: &[Arc<dyn PhysicalExpr>],
        parameters: &[ArrayRef],
    ) -> Result<Option<RecordBatch>> {
        let (Some(rollup), Some(stream)) = (slot.rollup.get(), engine.stream(&slot.definition.stream)) else {
            return Ok(None);
        };
        let Some(runs) = stream.runner.runs_of(&slot.definition.key) else { return Ok(None) };
        let row = row_of(parameters.to_vec())?;
        let value = |expr: &Arc<dyn PhysicalExpr>| ScalarValue::try_from_array(&expr.evaluate(&row)?.into_array(1)?, 0);
        let key = key.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let runs = if has_expired(rollup, &slot.definition, &key) { Vec::new() } else { runs };
        rollup.maintainer().point(&runs, &key)
    }
}

/// Whether the window of the row with this key is no longer shown.
fn has_expired(rollup: &Rollup, definition: &Definition, key: &[ScalarValue]) -> bool {
    let (Some(first), Some(pane)) = (rollup.expired(), definition.pane) else { return false };
    let time = key.get(pane.column).and_then(|time| match time {
        ScalarValue::TimestampSecond(time, _)
        | ScalarValue::TimestampMillisecond(time, _)
        | ScalarValue::TimestampMicrosecond(time, _)
        | ScalarValue::TimestampNanosecond(time, _) => to_micros(&key[pane.column].data_type(), (*time)?),
        _ => None,
    });
    time.is_some_and(|time| time < first)
}

/// One row of these columns, whatever they are called.
fn row_of(columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let field = |(i, column): (usize, &ArrayRef)| Field::new(i.to_string(), column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// A point being made.
struct Making<'a> {
    /// A column for each parameter.
    parameters: Schema,
    state: &'a SessionState,
    steps: Vec<Step>,
}

impl Making<'_> {
    /// What the plan begins with; its steps are noted.
    fn source(&mut self, plan: &LogicalPlan) -> Option<Source> {
        match plan {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }) => Some(Source::Row),
            LogicalPlan::TableScan(scan) => self.group(scan),
            LogicalPlan::SubqueryAlias(alias) => self.source(&alias.input),
            // Of one row at most.
            LogicalPlan::Sort(sort) if sort.fetch != Some(0) => self.source(&sort.input),
            LogicalPlan::Limit(limit) => {
                let SkipType::Literal(0) = limit.get_skip_type().ok()? else { return None };
                let FetchType::Literal(None | Some(1..)) = limit.get_fetch_type().ok()? else { return None };
                self.source(&limit.input)
            }
            LogicalPlan::Filter(filter) => {
                let source = self.source(&filter.input)?;
                let condition = self.physical(&filter.predicate, filter.input.schema())?;
                self.steps.push(Step::Keep(condition));
                Some(source)
            }
            LogicalPlan::Projection(projection) => {
                let source = self.source(&projection.input)?;
                let schema = projection.input.schema();
                let columns = projection.expr.iter().map(|expr| self.physical(expr, schema)).collect::<Option<_>>()?;
                self.steps.push(Step::Compute(columns));
                Some(source)
            }
            _ => None,
        }
    }

    fn group(&self, scan: &TableScan) -> Option<Source> {
        let slot = provider_of::<Slot>(scan)?;
        let definition = &slot.definition;
        let maintainer = slot.rollup.get()?.maintainer();
        let own = definition.schema.fields().len();
        let columns = scan.projection.clone().unwrap_or_else(|| (0..scan.source.schema().fields().len()).collect());
        // What says whether a window has closed is not the state's, and where only closed ones are shown the watermark decides.
        let plain = definition.partner.is_none() && definition.timeliness == Timeliness::All;
        let window = definition.pane.map(|pane| pane.window);
        if !plain || !maintainer.has_points(window) || columns.iter().any(|column| *column >= own) {
            return None;
        }
        if scan.fetch == Some(0) {
            return None;
        }
        let nothing = DFSchema::empty();
        let key = |column: usize| {
            let wanted = equal_to(&scan.filters, &format!("c{column}"), &|value| value.column_refs().is_empty())?;
            self.physical(wanted, &nothing)
        };
        let key = (0..maintainer.groups()).map(key).collect::<Option<Vec<_>>>()?;
        Some(Source::Group { key, columns, slot })
    }

    /// An expression over the columns of a row and the parameters behind them, if it is a light one.
    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Option<Arc<dyn PhysicalExpr>> {
        if !is_light(expr) {
            return None;
        }
        let of_row = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let qualifier = Some(TableReference::bare(PARAMETERS));
        let of_parameters = self.parameters.fields().iter().map(|field| (qualifier.clone(), Arc::clone(field)));
        let schema = DFSchema::new_with_metadata(of_row.chain(of_parameters).collect(), Default::default()).ok()?;
        let replaced = expr.clone().transform(|expr| match &expr {
            Expr::Placeholder(Placeholder { id, .. }) => {
                let column = Column::new(qualifier.clone(), id.clone());
                Ok(Transformed::yes(Expr::Column(column)))
            }
            _ => Ok(Transformed::no(expr)),
        });
        self.state.create_physical_expr(replaced.ok()?.data, &schema).ok()
    }
}

/// `$1` is the first one.
fn name_of(parameter: usize) -> String {
    format!("${}", parameter + 1)
}

/// See [`LIGHT`].
fn is_light(expr: &Expr) -> bool {
    let mut light = true;
    let _ = expr.apply(|expr| {
        light &= match expr {
            Expr::Alias(_)
            | Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Placeholder(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::Not(_)
            | Expr::Negative(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::Case(_)
            | Expr::InList(_) => true,
            Expr::BinaryExpr(BinaryExpr { op, .. }) => !matches!(
                op,
                Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch
            ),
            Expr::ScalarFunction(call) => LIGHT.contains(&call.func.name()) || Bound::as_end(expr).is_some(),
            _ => false,
        };
        Ok(if light { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    light
}
