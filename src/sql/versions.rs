//! `_final` and `_revision`: columns that every windowed view has for those who name them, and that `*` leaves out.
//!
//! A SELECT that names one of them reads its views through the internal relation `__versions(view)`, which has both as
//! ordinary columns; its `*` is told to exclude them. Views read by other SELECTs stay as they are.

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::SchemaProvider;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use sqlparser::ast::{
    ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, Query, Select,
    SelectItem, SetExpr, Statement, TableAlias, TableFactor, TableFunctionArgs, Visit, VisitMut, Visitor, VisitorMut,
};

use super::parser::folded;
use crate::engine::{PUBLIC, ViewTable};
use crate::error::{Error, Kind, Result};
pub use crate::rollup::versions::{FINAL, REVISION};

/// The relation with both columns.
pub const RELATION: &str = "__versions";

/// Rewrites the SELECTs of `statement` that name the columns. `is_view` tells whether a relation has them.
pub fn expose(statement: &mut Statement, is_view: &dyn Fn(&str) -> bool) {
    let _ = VisitMut::visit(statement, &mut Expose { is_view });
}

struct Expose<'a> {
    is_view: &'a dyn Fn(&str) -> bool,
}

impl VisitorMut for Expose<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let ordered = query.order_by.as_ref().is_some_and(names_them);
        if let SetExpr::Select(select) = query.body.as_mut()
            && (ordered || select_names_them(select))
        {
            self.rewrite(select);
        }
        ControlFlow::Continue(())
    }
}

impl Expose<'_> {
    fn rewrite(&self, select: &mut Select) {
        let mut any = false;
        for from in &mut select.from {
            let joined = from.joins.iter_mut().map(|join| &mut join.relation);
            for factor in std::iter::once(&mut from.relation).chain(joined) {
                any |= self.replace(factor);
            }
        }
        if !any {
            return;
        }
        for item in &mut select.projection {
            if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item
                && options.opt_exclude.is_none()
            {
                let names = [FINAL, REVISION].map(|name| ObjectName::from(vec![Ident::new(name)]));
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names.to_vec()));
            }
        }
    }

    fn replace(&self, factor: &mut TableFactor) -> bool {
        let TableFactor::Table { name, args, alias, .. } = factor else { return false };
        let Some(last) = name.0.last().and_then(|part| part.as_ident()).cloned() else { return false };
        if args.is_some() || !(self.is_view)(&folded(&last)) {
            return false;
        }
        let view = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(last.clone())));
        *args = Some(TableFunctionArgs { args: vec![view], settings: None });
        *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(RELATION))]);
        alias.get_or_insert_with(|| TableAlias { explicit: true, name: last, columns: vec![], at: None });
        true
    }
}

/// Whether a SELECT itself, not a subquery in its FROM, names the columns.
fn select_names_them(select: &Select) -> bool {
    select.projection.iter().any(names_them)
        || select.selection.as_ref().is_some_and(names_them)
        || select.having.as_ref().is_some_and(names_them)
        || select.qualify.as_ref().is_some_and(names_them)
        || names_them(&select.group_by)
        || select.from.iter().any(|from| from.joins.iter().any(|join| names_them(&join.join_operator)))
}

/// Whether some expression in `part` is one of the columns. Subqueries are looked into as well: a view may then be read
/// with two columns that nobody uses.
fn names_them(part: &impl Visit) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let last = match expr {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            match last.map(folded).as_deref() {
                Some(FINAL | REVISION) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    part.visit(&mut Find).is_break()
}

/// Puts the planner of the internal relation into a session of this database.
pub fn register(context: &SessionContext, database: &str) -> Result<()> {
    let schema = context.catalog(database).and_then(|c| c.schema(PUBLIC));
    let schema = schema.ok_or_else(|| Error::internal("the public schema is missing"))?;
    context.register_relation_planner(Arc::new(Versions { schema }))?;
    Ok(())
}

#[derive(Debug)]
struct Versions {
    schema: Arc<dyn SchemaProvider>,
}

impl RelationPlanner for Versions {
    fn plan_relation(&self, relation: TableFactor, _: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        let Some((name, alias)) = version_call(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let table = self.schema.table(&name).now_or_never().transpose()?.flatten();
        let any: Option<Arc<dyn Any + Send + Sync>> = table.map(|t| t as _);
        let view = any.and_then(|any| any.downcast::<ViewTable>().ok());
        let Some(plan) = view.and_then(|view| view.versions.clone()) else {
            return Err(Error::new(Kind::UndefinedColumn, format!("column \"{FINAL}\" does not exist"))
                .with_detail(format!("View \"{name}\" does not show windows of a stream one by one."))
                .with_hint("A view grouped by window_start and window_end has _final and _revision.")
                .into());
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(LogicalPlan::clone(&plan), alias))))
    }
}

/// The view that `__versions(view)` means.
fn version_call(relation: &TableFactor) -> Option<(String, Option<TableAlias>)> {
    let TableFactor::Table { name, args: Some(args), alias, .. } = relation else { return None };
    let [ObjectNamePart::Identifier(Ident { value, .. })] = name.0.as_slice() else { return None };
    match args.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(view)))] if value == RELATION => {
            Some((folded(view), alias.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    fn exposed(sql: &str) -> String {
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        expose(&mut statement, &|name| name == "v");
        statement.to_string()
    }

    #[test]
    fn only_those_who_name_the_columns_see_them() {
        for same in ["SELECT * FROM v", "SELECT _final FROM t", "SELECT a FROM v WHERE a > 1"] {
            assert_eq!(exposed(same), same);
        }
        let cases = [
            ("SELECT a, _final FROM v", "SELECT a, _final FROM __versions(v) AS v"),
            (
                "SELECT * FROM v AS x WHERE x._final",
                "SELECT * EXCLUDE (_final, _revision) FROM __versions(v) AS x WHERE x._final",
            ),
            (
                "SELECT a FROM t JOIN v USING (a) ORDER BY _revision",
                "SELECT a FROM t JOIN __versions(v) AS v USING(a) ORDER BY _revision",
            ),
            (
                "SELECT n FROM (SELECT *, _final FROM v) AS y",
                "SELECT n FROM (SELECT * EXCLUDE (_final, _revision), _final FROM __versions(v) AS v) AS y",
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(exposed(given), expected);
        }
    }
}
