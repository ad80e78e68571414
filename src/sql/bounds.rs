//! No statement holds a thread in planning: a plan that grows beyond a limit is refused (54001), and one that nobody waits
//! for any more, because it was cancelled or its time is over, ends between two steps of its planner ([`task::go_on`]).
//!
//! Plans double in few words: a relation of WITH that reads the one before it twice, and so on; or a function in whose
//! place its argument is written twice, in itself. What the planner will write twice is counted twice before it does
//! ([`weight`]), and each of its steps ends with a look at what it has made.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Between, Case, Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizerContext;
use datafusion::physical_plan::ExecutionPlan;

use super::function::conditional::{Form, form};
use crate::error::{Error, Kind, Result};
use crate::task;

/// Operators and calls in a plan. A thousand of them are a long statement; this many take the planner some seconds.
const MAX_WEIGHT: u64 = 200_000;

/// A step of a plan (a scan, a projection, a join) is as much work as so many operators.
const STEP: u64 = 10;

/// A session that plans within bounds, with the rules that it has so far.
pub fn extend(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let mut analysis = builder.analyzer().take().unwrap_or_default();
    analysis.rules.append(&mut builder.analyzer_rules().take().unwrap_or_default());
    let mut logical = builder.optimizer().take().unwrap_or_default().rules;
    logical.append(&mut builder.optimizer_rules().take().unwrap_or_default());
    let mut physical = builder.physical_optimizers().take().unwrap_or_default().rules;
    physical.append(&mut builder.physical_optimizer_rules().take().unwrap_or_default());

    analysis.rules = analysis.rules.into_iter().map(|rule| Arc::new(Analysis(rule)) as _).collect();
    *builder.analyzer() = Some(analysis);
    builder
        .with_optimizer_rules(logical.into_iter().map(|rule| Arc::new(Logical(rule)) as _).collect())
        .with_physical_optimizer_rules(physical.into_iter().map(|rule| Arc::new(Physical(rule)) as _).collect())
}

/// Fails for a plan that is too large.
pub fn check(plan: &LogicalPlan) -> Result<()> {
    let mut total = 0;
    plan.apply_with_subqueries(|node| {
        total += STEP + weight_of_step(node)?;
        Ok(if total > MAX_WEIGHT { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    within(total)
}

fn within(weight: u64) -> Result<()> {
    if weight <= MAX_WEIGHT {
        return Ok(());
    }
    Err(Error::new(Kind::TooComplex, "the statement is too complex: its plan grows too large")
        .with_detail("What is written or read twice is planned twice, and what that is made of four times.")
        .with_hint(
            "Let the steps of a long computation be columns of subqueries or materialized views, and name each of them once.",
        ))
}

/// The operators of one step. Rows that are written out may be many, and grow no further.
fn weight_of_step(node: &LogicalPlan) -> DfResult<u64> {
    let mut total: u64 = 0;
    if !matches!(node, LogicalPlan::Values(_)) {
        node.apply_expressions(|expr| {
            total = total.saturating_add(weight(expr)?);
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(total)
}

/// The operators and calls of an expression when the optimizer has written all out. Columns and literals count nothing:
/// there may be many in a list.
fn weight(expr: &Expr) -> DfResult<u64> {
    let sum = |expressions: &[&Expr]| {
        expressions.iter().try_fold(0, |sum: u64, expr| {
            Ok::<_, datafusion::error::DataFusionError>(sum.saturating_add(weight(expr)?))
        })
    };
    let parts = match expr {
        Expr::Column(_) | Expr::Literal(..) => return Ok(0),
        // x >= low AND x <= high
        Expr::Between(Between { expr, low, high, .. }) => {
            weight(expr)?.saturating_mul(2).saturating_add(sum(&[low, high])?)
        }
        // Where it gives truth values: (a AND x) OR (NOT a AND b AND y) OR …
        Expr::Case(Case { expr: None, when_then_expr, else_expr }) => {
            let count = when_then_expr.len();
            let mut total = else_expr.as_ref().map_or(Ok(0), |expr| weight(expr))?;
            for (at, (when, then)) in when_then_expr.iter().enumerate() {
                let copies = (count + 1 - at) as u64;
                total = total.saturating_add(weight(when)?.saturating_mul(copies)).saturating_add(weight(then)?);
            }
            total
        }
        // CASE WHEN a IS NOT NULL THEN a ELSE b
        Expr::ScalarFunction(call) if matches!(form(call), Some(Form::InOrder)) => match call.args.split_last() {
            Some((last, others)) => {
                sum(&others.iter().collect::<Vec<_>>())?.saturating_mul(2).saturating_add(weight(last)?)
            }
            None => 0,
        },
        other => {
            let mut total: u64 = 0;
            other.apply_children(|child| {
                total = total.saturating_add(weight(child)?);
                Ok(TreeNodeRecursion::Continue)
            })?;
            total
        }
    };
    Ok(parts.saturating_add(1))
}

/// A rule of the analyzer within bounds.
#[derive(Debug)]
struct Analysis(Arc<dyn AnalyzerRule + Send + Sync>);

impl AnalyzerRule for Analysis {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> DfResult<LogicalPlan> {
        task::go_on()?;
        let plan = self.0.analyze(plan, config)?;
        check(&plan)?;
        Ok(plan)
    }
}

/// A rule of the optimizer within bounds.
#[derive(Debug)]
struct Logical(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for Logical {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    /// Of the whole plan, or of one step after the other, as the rule wants it.
    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        task::go_on()?;
        let rewritten = self.0.rewrite(plan, config)?;
        if rewritten.transformed {
            match self.apply_order() {
                Some(_) => within(weight_of_step(&rewritten.data)?)?,
                None => check(&rewritten.data)?,
            }
        }
        Ok(rewritten)
    }
}

/// A rule of the physical optimizer within bounds.
#[derive(Debug)]
struct Physical(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for Physical {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        task::go_on()?;
        self.0.optimize(plan, config)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        task::go_on()?;
        self.0.optimize_with_context(plan, context)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::task::Compute;

    fn context() -> SessionContext {
        let builder = SessionStateBuilder::new().with_default_features();
        SessionContext::new_with_state(extend(crate::sql::function::extend(builder)).build())
    }

    async fn plan(context: &SessionContext, sql: &str) -> LogicalPlan {
        context.state().create_logical_plan(sql).await.expect("it can be planned")
    }

    #[tokio::test]
    async fn planning_ends_in_each_of_its_stages_when_nobody_waits() {
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let work = async move {
            let context = context();
            let state = context.state();
            let plan = plan(&context, "SELECT x + 1 AS y FROM (VALUES (1), (2)) AS t(x) WHERE x > 0").await;
            let optimized = state.optimize(&plan).expect("somebody waits");
            begin.send(()).expect("somebody waits");
            while task::go_on().is_ok() {
                std::hint::spin_loop();
            }
            let analyzed = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).map(drop);
            let again = state.optimizer().optimize(optimized.clone(), &state, |_, _| {}).map(drop);
            let physical = state.query_planner().create_physical_plan(&optimized, &state).await.map(drop);
            let kind = |ended: DfResult<()>| ended.err().map(|err| Error::from(err).kind());
            tell.send([analyzed, again, physical].map(kind)).expect("the test waits");
        };
        let task = Compute::with_workers(1).unwrap().spawn(work);
        begun.await.expect("it begins");
        drop(task);
        assert_eq!(told.recv().expect("it ends by itself"), [Some(Kind::Canceled); 3]);
    }

    #[tokio::test]
    async fn what_doubles_is_weighed_before_it_does() {
        let context = context();
        let weight_of = async |expr: &str| {
            let sql = format!("SELECT {expr} FROM (VALUES (1, true)) AS t(x, b)");
            let LogicalPlan::Projection(projection) = plan(&context, &sql).await else { panic!("it is a projection") };
            weight(&projection.expr[0]).unwrap()
        };
        for (expr, expected) in [
            ("x", 0),
            ("x + 1", 1),
            ("abs(x) BETWEEN 1 AND 2", 3),
            ("abs(abs(x)) BETWEEN abs(x) AND 2", 6),
            ("CASE WHEN NOT b THEN abs(x) ELSE 2 END", 4),
            ("coalesce(x, abs(x))", 2),
            ("coalesce(abs(x), 1)", 2),
            ("coalesce(abs(x), abs(x))", 4),
        ] {
            assert_eq!(weight_of(expr).await, expected, "{expr}");
        }
    }
}
