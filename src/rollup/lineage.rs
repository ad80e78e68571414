//! Where a column of a view comes from: a window's bound, a key, or something computed from the rows of a group.
//!
//! Filling empty windows needs to know: bounds are counted on, keys are repeated, and only the rest is filled in.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, LogicalPlan};

use super::plan::{Slot, provider_of};
use super::window::Window;

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Start,
    End,
    /// Grouped by, or computed from nothing but what is grouped by.
    Key,
    Value,
}

/// The roles of a finish plan's columns and the one slot that all of them come from.
pub struct Lineage {
    pub slot: Arc<Slot>,
    pub window: Window,
    pub roles: Vec<Role>,
}

/// `None` unless the plan is a chain of operators over one windowed slot.
pub fn lineage(finish: &LogicalPlan) -> Option<Lineage> {
    let slot = slot_below(finish)?;
    let window = slot.definition.pane?.window;
    let roles = (0..finish.schema().fields().len()).map(|i| column_role(finish, i)).collect();
    Some(Lineage { slot, window, roles })
}

fn slot_below(plan: &LogicalPlan) -> Option<Arc<Slot>> {
    match plan {
        LogicalPlan::TableScan(scan) => provider_of::<Slot>(scan),
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_) => slot_below(plan.inputs()[0]),
        _ => None,
    }
}

fn column_role(plan: &LogicalPlan, index: usize) -> Role {
    match plan {
        LogicalPlan::Projection(projection) => match projection.input.as_ref() {
            // The projection that stands for the aggregate knows its columns.
            LogicalPlan::TableScan(scan) => {
                let slot = provider_of::<Slot>(scan);
                slot.and_then(|slot| slot.roles.get(index).copied()).unwrap_or(Role::Value)
            }
            input => role(&projection.expr[index], input),
        },
        LogicalPlan::Window(window) if index >= window.input.schema().fields().len() => Role::Value,
        LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_) => column_role(plan.inputs()[0], index),
        _ => Role::Value,
    }
}

fn role(expr: &Expr, input: &LogicalPlan) -> Role {
    match expr {
        Expr::Alias(alias) => role(&alias.expr, input),
        Expr::Column(column) => {
            input.schema().maybe_index_of_column(column).map_or(Role::Value, |index| column_role(input, index))
        }
        _ => {
            let columns = expr.column_refs();
            let of_keys = columns.iter().all(|column| role(&Expr::Column((*column).clone()), input) == Role::Key);
            if of_keys && !columns.is_empty() { Role::Key } else { Role::Value }
        }
    }
}
