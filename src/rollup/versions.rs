//! Carries two more columns through a view's finish plan: `_final` (whether the row's window has closed) and
//! `_revision` (how many late rows have corrected the row since).
//!
//! They begin in the slots of windowed rollups, as the last two columns there, and are handed up by every operator
//! that keeps rows apart: a join has them from both sides, a union from each branch, and an aggregate above combines
//! those of its rows. Where an operator cannot say, the view has no such columns.

use std::sync::Arc;

use datafusion::common::{Column, Result as DfResult};
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{bool_and, sum};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, Union, lit,
};

use super::plan::{Slot, provider_of};

/// Whether the window of a row has closed: boolean.
pub const FINAL: &str = "_final";
/// How many late rows have corrected a row since its window closed: bigint.
pub const REVISION: &str = "_revision";

/// The two columns as expressions over a plan.
struct Carried {
    plan: LogicalPlan,
    finished: Expr,
    revision: Expr,
}

/// The finish plan with both columns behind its own; `None` where they have no meaning.
pub fn with_versions(finish: &LogicalPlan) -> DfResult<Option<LogicalPlan>> {
    let own = finish.schema().columns();
    let Some(carried) = carry(finish, &mut 0)? else { return Ok(None) };
    let mut columns: Vec<Expr> = own.into_iter().map(Expr::Column).collect();
    columns.push(carried.finished.alias(FINAL));
    columns.push(carried.revision.alias(REVISION));
    LogicalPlanBuilder::from(carried.plan).project(columns)?.build().map(Some)
}

/// `count` makes the names of the carried columns unique in the plan.
fn carry(plan: &LogicalPlan, count: &mut usize) -> DfResult<Option<Carried>> {
    *count += 1;
    let names = (format!("__final_{count}"), format!("__revision_{count}"));
    let named = |plan: LogicalPlan| {
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        Carried { finished: column(&names.0), revision: column(&names.1), plan }
    };
    Ok(match plan {
        LogicalPlan::TableScan(scan) => match provider_of::<Slot>(scan) {
            Some(slot) if slot.has_versions() => {
                let column = |name: &str| Expr::Column(Column::new(Some(scan.table_name.clone()), name));
                Some(Carried { plan: plan.clone(), finished: column(FINAL), revision: column(REVISION) })
            }
            _ => None,
        },
        LogicalPlan::Projection(projection) => {
            let Some(below) = carry(&projection.input, count)? else { return Ok(None) };
            let mut columns = projection.expr.clone();
            columns.push(below.finished.alias(&names.0));
            columns.push(below.revision.alias(&names.1));
            Some(named(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(below.plan))?)))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(below) = carry(&alias.input, count)? else { return Ok(None) };
            // Given plain names first: the alias puts its own in the place of every qualifier.
            let mut columns: Vec<Expr> = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
            columns.push(below.finished.alias(&names.0));
            columns.push(below.revision.alias(&names.1));
            let plan = LogicalPlanBuilder::from(below.plan).project(columns)?.build()?;
            let column = |name: &str| Expr::Column(Column::new(Some(alias.alias.clone()), name));
            let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.alias.clone())?);
            Some(Carried { plan, finished: column(&names.0), revision: column(&names.1) })
        }
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Window(_) => {
            let Some(below) = carry(plan.inputs()[0], count)? else { return Ok(None) };
            let plan = plan.with_new_exprs(plan.expressions(), vec![below.plan])?;
            Some(Carried { plan, ..below })
        }
        LogicalPlan::Join(join) => {
            let sides = match join.join_type {
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                    (carry(&join.left, count)?, carry(&join.right, count)?)
                }
                JoinType::LeftSemi | JoinType::LeftAnti => (carry(&join.left, count)?, None),
                _ => (None, None),
            };
            let rebuilt = |left: &Option<Carried>, right: &Option<Carried>| {
                let left = left.as_ref().map_or_else(|| join.left.as_ref().clone(), |l| l.plan.clone());
                let right = right.as_ref().map_or_else(|| join.right.as_ref().clone(), |r| r.plan.clone());
                plan.with_new_exprs(plan.expressions(), vec![left, right])
            };
            match &sides {
                (None, None) => None,
                (Some(one), None) | (None, Some(one)) => {
                    let (finished, revision) = (one.finished.clone(), one.revision.clone());
                    Some(Carried { plan: rebuilt(&sides.0, &sides.1)?, finished, revision })
                }
                (Some(left), Some(right)) => {
                    // The side that an outer join left empty has nothing to say.
                    let finished = |side: &Carried| coalesce(vec![side.finished.clone(), lit(true)]);
                    let revision = |side: &Carried| coalesce(vec![side.revision.clone(), lit(0i64)]);
                    Some(Carried {
                        plan: rebuilt(&sides.0, &sides.1)?,
                        finished: finished(left).and(finished(right)),
                        revision: revision(left) + revision(right),
                    })
                }
            }
        }
        LogicalPlan::Union(union) => {
            let mut branches = Vec::new();
            for input in &union.inputs {
                let Some(branch) = carry(input, count)? else { return Ok(None) };
                let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                columns.push(branch.finished.alias(&names.0));
                columns.push(branch.revision.alias(&names.1));
                branches.push(Arc::new(LogicalPlanBuilder::from(branch.plan).project(columns)?.build()?));
            }
            Some(named(LogicalPlan::Union(Union::try_new_with_loose_types(branches)?)))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let Some(below) = carry(&aggregate.input, count)? else { return Ok(None) };
            let groups = aggregate.group_expr.clone();
            let mut aggregates = aggregate.aggr_expr.clone();
            aggregates.push(bool_and(below.finished).alias(&names.0));
            aggregates.push(sum(below.revision).alias(&names.1));
            Some(named(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(below.plan), groups, aggregates)?)))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let Some(below) = carry(input, count)? else { return Ok(None) };
            let groups = input.schema().columns().into_iter().map(Expr::Column).collect();
            let aggregates = vec![bool_and(below.finished).alias(&names.0), sum(below.revision).alias(&names.1)];
            Some(named(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(below.plan), groups, aggregates)?)))
        }
        _ => None,
    })
}
