//! `TUMBLE(rel, ts, size [, offset])` and `HOP(rel, ts, slide, size [, offset])` in FROM.
//!
//! A tumbling window becomes a projection, so that DataFusion's optimizer sees ordinary expressions; a hopping window
//! becomes a [`HopNode`]. Both add `window_start` and `window_end`. The same text serves batch and continuous queries.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::catalog::SchemaProvider;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, TableFactor, Visit, Visitor,
};

use super::function::Spec;
use super::parser::folded;
use crate::engine::{CATALOG, PUBLIC};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::rollup::hop::{HopNode, WINDOW_END, WINDOW_START};
use crate::rollup::window::{Tumble, Window, interval_micros};
use crate::time::Micros;

pub static TUMBLE: Spec = Spec {
    name: "tumble",
    syntax: "TUMBLE(rel, ts, size [, offset])",
    summary: "each row in one window of width `size`; adds window_start and window_end",
};

pub static HOP: Spec = Spec {
    name: "hop",
    syntax: "HOP(rel, ts, slide, size [, offset])",
    summary: "a window of width `size` starts every `slide`, so each row is in size/slide of them; adds window_start and window_end",
};

static WINDOWS: &[&Spec] = &[&TUMBLE, &HOP];

/// Puts the planner of windows into a session.
pub fn register(context: &SessionContext) -> Result<()> {
    let schema = context.catalog(CATALOG).and_then(|c| c.schema(PUBLIC));
    let schema = schema.ok_or_else(|| Error::internal("the public schema is missing"))?;
    context.register_relation_planner(Arc::new(Windows { schema }))?;
    Ok(())
}

#[derive(Debug)]
struct Windows {
    schema: Arc<dyn SchemaProvider>,
}

impl RelationPlanner for Windows {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let Some((name, args, alias)) = window_call(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let spec = WINDOWS.iter().find(|w| w.name == name).expect("window_call finds these only");
        let plan = self.plan_window(&name, spec.syntax, &args, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

impl Windows {
    fn plan_window(
        &self,
        name: &str,
        form: &str,
        args: &[SqlExpr],
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<LogicalPlan> {
        let wrong = |what: &str| Error::new(Kind::Syntax, what.to_string()).with_hint(format!("The form is {form}."));
        let widths = if name == "hop" { 2 } else { 1 };
        if args.len() < 2 + widths || args.len() > 3 + widths {
            return Err(wrong(&format!(
                "{} takes {} or {} arguments, not {}",
                name.to_uppercase(),
                2 + widths,
                3 + widths,
                args.len()
            ))
            .into());
        }
        let input = self.plan_input(&args[0], context)?;
        let time = context.sql_to_expr(args[1].clone(), input.schema())?;
        let (_, time_field) = time.to_field(input.schema())?;
        let time_type = time_field.data_type().clone();
        let Expr::Column(_) = &time else {
            return Err(
                wrong(&format!("the second argument of {} must be the time column", name.to_uppercase())).into()
            );
        };
        let time = match &time_type {
            t if *t == timestamp_type() => time,
            arrow::datatypes::DataType::Timestamp(..) | arrow::datatypes::DataType::Date32 => {
                cast(time, timestamp_type())
            }
            other => {
                return Err(Error::new(
                    Kind::Datatype,
                    format!("{} needs a timestamp column, but \"{time}\" is of type {other}", name.to_uppercase()),
                )
                .into());
            }
        };
        let mut numbers = Vec::new();
        for (i, arg) in args[2..].iter().enumerate() {
            let value = context.sql_to_expr(arg.clone(), input.schema())?;
            let micros = match &value {
                Expr::Literal(value, _) => interval_micros(value),
                _ => None,
            };
            match micros {
                Some(micros) if micros > 0 || i == widths => numbers.push(micros),
                _ => {
                    return Err(wrong(&format!("{arg} is not a fixed, positive interval")).into());
                }
            }
        }
        let offset = numbers.get(widths).copied().unwrap_or(0);
        if name == "hop" {
            let (slide, size) = (numbers[0], numbers[1]);
            check_hop(slide, size)?;
            let node = HopNode::try_new(input, time, Window::Hop { slide, size, offset })?;
            return Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }));
        }
        let size = numbers[0];
        let start = Tumble::start_of(time, size, offset);
        let width = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, size.saturating_mul(1000))));
        let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(start.clone().alias(WINDOW_START));
        columns.push((start + lit(width)).alias(WINDOW_END));
        LogicalPlanBuilder::from(input).project(columns)?.build()
    }

    /// The first argument: a relation's name, or a subquery.
    fn plan_input(&self, arg: &SqlExpr, context: &mut dyn RelationPlannerContext) -> DfResult<LogicalPlan> {
        let parts = match arg {
            SqlExpr::Subquery(query) => {
                let derived =
                    TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
                return context.plan(derived);
            }
            SqlExpr::Identifier(ident) => vec![ident.clone()],
            SqlExpr::CompoundIdentifier(parts) => parts.clone(),
            other => {
                return Err(Error::new(Kind::Syntax, format!("a window needs a relation, not {other}"))
                    .with_hint("The first argument is the name of a relation or a subquery in parentheses.")
                    .into());
            }
        };
        let name = ObjectName(parts.iter().cloned().map(ObjectNamePart::Identifier).collect());
        // DataFusion finds tables before planning, by walking FROM; a name that is an argument it has not seen.
        let found = parts.last().and_then(|last| self.schema.table(&folded(last)).now_or_never());
        match found {
            Some(Ok(Some(table))) if parts.len() == 1 => {
                LogicalPlanBuilder::scan(folded(&parts[0]), provider_as_source(table), None)?.build()
            }
            _ => context.plan(TableFactor::Table {
                name,
                alias: None,
                args: None,
                with_hints: vec![],
                version: None,
                with_ordinality: false,
                partitions: vec![],
                json_path: None,
                sample: None,
                index_hints: vec![],
            }),
        }
    }
}

/// A hop has to be wider than its slide (else rows would be lost) and not absurdly wider.
fn check_hop(slide: Micros, size: Micros) -> Result<()> {
    const MOST: Micros = 100_000;
    if slide > size {
        return Err(Error::new(Kind::InvalidParameter, "the slide of HOP is larger than its size")
            .with_hint("HOP(rel, ts, slide, size): the slide comes first."));
    }
    if size / slide > MOST {
        return Err(Error::new(Kind::InvalidParameter, format!("each row would be in {} windows", size / slide))
            .with_hint("Use a larger slide or a smaller size."));
    }
    Ok(())
}

type WindowCall = (String, Vec<SqlExpr>, Option<sqlparser::ast::TableAlias>);

/// `TUMBLE(…)` or `HOP(…)` as a relation.
fn window_call(relation: &TableFactor) -> Option<WindowCall> {
    let (name, args, alias) = match relation {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, args, alias),
        _ => return None,
    };
    let [ObjectNamePart::Identifier(Ident { value, .. })] = name.0.as_slice() else { return None };
    let name = value.to_lowercase();
    if !WINDOWS.iter().any(|w| w.name == name) {
        return None;
    }
    let args = args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => Some(expr.clone()),
        _ => None,
    });
    Some((name, args.collect(), alias.clone()))
}

/// Relations that stand as arguments of windows: a walk over FROM does not see them.
pub fn relations_read(query: &impl Visit) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let Some((_, args, _)) = window_call(factor)
                && let Some(SqlExpr::Identifier(name)) = args.first()
            {
                self.0.insert(folded(name));
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(BTreeSet::new());
    let _ = query.visit(&mut names);
    names.0
}
