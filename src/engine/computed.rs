//! Plans computed columns (see [`crate::batch::computed`]): an expression becomes what DataFusion evaluates.
//!
//! An expression may only depend on its row: rows are made again whenever the log is read, and have to be the same.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Volatility};

use super::Engine;
use crate::batch::computed::Computed;
use crate::batch::{Include, given_columns};
use crate::error::{Error, Kind, Result};
use crate::format::Format;

/// `name [type] AS (expression)` of CREATE TABLE.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputedDefinition {
    pub name: String,
    pub data_type: Option<DataType>,
    /// The expression, as SQL.
    pub sql: String,
}

impl Engine {
    /// Plans computed columns over the columns that a row has without them.
    pub fn plan_computed(
        &self,
        definitions: &[ComputedDefinition],
        format: &dyn Format,
        includes: &[Include],
    ) -> Result<Vec<Computed>> {
        let given = &given_columns(&format.schema(), includes);
        let planned = definitions.iter().map(|definition| {
            self.plan_column(definition, given)
                .map_err(|err| err.with_context(&format!("column \"{}\"", definition.name)))
        });
        planned.collect()
    }

    fn plan_column(&self, definition: &ComputedDefinition, given: &SchemaRef) -> Result<Computed> {
        let state = self.context.state();
        let columns = DFSchema::try_from(Arc::clone(given))?;
        let expr = state.create_logical_expr(&definition.sql, &columns)?;
        check(&expr)?;
        let physical = state.create_physical_expr(expr, &columns)?;
        Computed::new(&definition.name, &definition.sql, definition.data_type.clone(), physical, Arc::clone(given))
    }
}

/// Fails for what depends on more than the row.
fn check(expr: &Expr) -> Result<()> {
    let mut wrong = None;
    expr.apply(|part| {
        let what = match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some(format!("{}() gives another value each time", call.func.name()))
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => Some("it needs other rows".to_string()),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => Some("it reads other relations".into()),
            Expr::Placeholder(_) => Some("it has a parameter".to_string()),
            _ => None,
        };
        wrong = wrong.take().or(what);
        Ok(TreeNodeRecursion::Continue)
    })?;
    match wrong {
        None => Ok(()),
        Some(why) => {
            Err(Error::new(Kind::InvalidDefinition, format!("the expression is not one of the row alone: {why}"))
                .with_hint("A computed column is made of the columns of its row: those of the format and of INCLUDE."))
        }
    }
}
