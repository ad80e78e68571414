//! Queries over views that run again and again, optimized once.
//!
//! Optimizing takes longer than reading a few rows of a view. What it gives depends on the query and on the relations, not
//! on what they hold, so a prepared query can be optimized with its parameters still open: [`Engine::optimize_ahead`]. Each
//! run then fills in the values, computes what has become constant, and takes one instant of the views as always:
//! [`Engine::run_ahead`].
//!
//! Only queries that read nothing but views' rollups, and whose functions give the same for the same arguments: `now()` is to be
//! that of the run. For all others there is no shortcut.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, Volatility};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;

use super::Engine;
use super::point::Point;
use crate::backend::Backend;
use crate::error::Result;
use crate::opaque::Opaque;
use crate::rollup::plan::{Slot, provider_of};
use crate::view::table::RollupTable;

/// Computes what parameters have made constant: bounds of time are found in literals.
static CONSTANTS: LazyLock<Optimizer> =
    LazyLock::new(|| Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]));

/// See the file header.
pub struct Ahead {
    /// Optimized, over slots.
    plan: Opaque<LogicalPlan>,
    /// The types that it wants its parameters in.
    types: Vec<Option<DataType>>,
    /// Where it can be had without a plan.
    point: Option<Point>,
    /// A copy for all runs: nothing of it changes as long as the plan is good, and a new one costs more than a small query.
    state: Opaque<SessionState>,
}

impl Ahead {
    /// Whether [`Engine::read_at_once`] may have its result.
    pub fn has_point(&self) -> bool {
        self.point.is_some()
    }
}

impl Engine {
    /// Optimizes an analyzed query before its run, if it is one of those that this can be done with.
    pub fn optimize_ahead(&self, plan: &LogicalPlan) -> Result<Option<Ahead>> {
        if !is_fit(plan)? {
            return Ok(None);
        }
        let found = plan.get_parameter_types()?;
        let types: Vec<_> =
            (1..=found.len()).map(|number| found.get(&format!("${number}")).cloned().flatten()).collect();
        let state = self.context.state();
        // A parameter whose type is not told by its use is an error here, and none when its value is known.
        let Ok(optimized) = state.optimize(&self.pin(plan.clone())?) else { return Ok(None) };
        // The snapshot is let go of: each run takes its own.
        let plan = optimized.transform_up_with_subqueries(|node| match node {
            LogicalPlan::TableScan(scan) => match provider_of::<RollupTable>(&scan) {
                Some(table) => {
                    let source = provider_as_source(Arc::clone(&table.slot) as _);
                    Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
                }
                None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
            },
            other => Ok(Transformed::no(other)),
        })?;
        let point = Point::of(&plan.data, &types, &state);
        Ok(Some(Ahead { plan: plan.data.into(), types, point, state: state.into() }))
    }

    /// The result of a query of one row, if it can be had at once, where the caller is. `None`: it has to be run.
    pub fn read_at_once(&self, ahead: &Ahead, params: &ParamValues) -> Option<RecordBatch> {
        let point = ahead.point.as_ref()?;
        let ParamValues::List(values) = cast(params.clone(), &ahead.types).ok()? else { return None };
        let values: Vec<ScalarValue> = values.into_iter().map(|value| value.value).collect();
        if values.len() != ahead.types.len() {
            return None;
        }
        point.read(self, &values)
    }

    /// Runs what was optimized ahead, for a client.
    pub async fn run_ahead(
        &self,
        ahead: &Ahead,
        params: ParamValues,
        backend: Option<Arc<Backend>>,
    ) -> Result<SendableRecordBatchStream> {
        let state: &SessionState = &ahead.state;
        let plan = LogicalPlan::clone(&ahead.plan);
        let plan = match ahead.types.is_empty() {
            true => plan,
            false => {
                let plan = plan.with_param_values(cast(params, &ahead.types)?)?;
                CONSTANTS.optimize(plan, state, |_, _| {})?
            }
        };
        let plan = self.pin(plan)?;
        let physical = state.query_planner().create_physical_plan(&plan, state).await?;
        self.run_physical(physical, state, backend, false)
    }
}

/// The values in these types.
fn cast(params: ParamValues, types: &[Option<DataType>]) -> Result<ParamValues> {
    let ParamValues::List(mut values) = params else { return Ok(params) };
    for (value, data_type) in values.iter_mut().zip(types) {
        if let Some(data_type) = data_type.as_ref().filter(|data_type| **data_type != value.value.data_type()) {
            value.value = value.value.cast_to(data_type)?;
        }
    }
    Ok(ParamValues::List(values))
}

/// See the file header.
fn is_fit(plan: &LogicalPlan) -> Result<bool> {
    let mut fit = true;
    plan.apply_with_subqueries(|node| {
        fit &= match node {
            LogicalPlan::TableScan(scan) => provider_of::<Slot>(scan).is_some(),
            LogicalPlan::Extension(_) | LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_) => false,
            _ => true,
        };
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                fit &= match expr {
                    Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::OuterReferenceColumn(..) => false,
                    _ => true,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if fit { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(fit)
}
