//! Operators of texts that are more than texts ([`crate::format::subtype`]): those of `jsonb` and `inet`, and comparisons
//! with a literal or parameter, which is read as the type of the other side.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use sqlparser::ast::BinaryOperator as Op;

use super::scalars;
use crate::format::subtype::{Subtype, is_text};
use crate::sql::types::reader;

#[derive(Debug)]
pub struct Operators;

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let function = scalars().find(|scalar| scalar.name == name).expect("the names are those of the table");
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function.udf()), arguments))
}

fn subtype(expr: &Expr, schema: &DFSchema) -> Option<Subtype> {
    let (_, field) = expr.to_field(schema).ok()?;
    Subtype::of(&field)
}

/// What stands beside a value of a type: a literal or another text is read as one, a parameter is one.
fn beside(expr: Expr, wanted: Subtype, schema: &DFSchema) -> Expr {
    match &expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Some(Arc::new(wanted.field("")));
            Expr::Placeholder(Placeholder { id: id.clone(), field })
        }
        Expr::Placeholder(_) => expr,
        _ => match expr.to_field(schema) {
            Ok((_, field))
                if Subtype::of(&field).is_none() && (is_text(field.data_type()) || field.data_type().is_null()) =>
            {
                call(reader(wanted), vec![expr])
            }
            _ => expr,
        },
    }
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        // Only of jsonb, whatever stands beside them.
        let of_keys = match expr.op {
            Op::QuestionPipe => Some("jsonb_has_any"),
            Op::QuestionAnd => Some("jsonb_has_all"),
            Op::HashMinus => Some("jsonb_delete_path"),
            _ => None,
        };
        if let Some(name) = of_keys {
            let keys = super::json::texts_of(expr.right);
            return Ok(PlannerResult::Planned(call(name, vec![expr.left, keys])));
        }
        if let Some(planned) = of_times(&expr, schema) {
            return Ok(PlannerResult::Planned(planned));
        }
        let (left, right) = (subtype(&expr.left, schema), subtype(&expr.right, schema));
        let Some(wanted) = left.or(right) else { return Ok(PlannerResult::Original(expr)) };
        let RawBinaryExpr { op, left: a, right: b } = expr;
        let name = match (&op, wanted.is_json(), wanted.is_address()) {
            (Op::AtArrow, true, _) => "jsonb_contains",
            (Op::ArrowAt, true, _) => return Ok(PlannerResult::Planned(call("jsonb_contains", vec![b, a]))),
            (Op::Question, true, _) => "jsonb_has",
            (Op::StringConcat, true, _)
                if wanted == Subtype::Jsonb && (left == right || is_literal(&a) || is_literal(&b)) =>
            {
                "jsonb_concat"
            }
            (Op::Minus, true, _) if left == Some(Subtype::Jsonb) => {
                return Ok(PlannerResult::Planned(call("jsonb_without", vec![a, b])));
            }
            (Op::PGBitwiseShiftLeft, _, true) => "inet_within",
            (Op::PGBitwiseShiftRight, _, true) => {
                return Ok(PlannerResult::Planned(call("inet_within", vec![b, a])));
            }
            (Op::Custom(name), _, true) if name == "<<=" => "inet_within_or_equal",
            (Op::Custom(name), _, true) if name == ">>=" => {
                return Ok(PlannerResult::Planned(call("inet_within_or_equal", vec![b, a])));
            }
            (Op::PGOverlap, _, true) => "inet_overlaps",
            (Op::Plus, _, true) => "inet_plus",
            (Op::Minus, _, true) if right.is_some() => "inet_distance",
            (Op::Minus, _, true) => "inet_minus",
            (Op::BitwiseAnd, _, true) => "inet_and",
            (Op::BitwiseOr, _, true) => "inet_or",
            (Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq, ..) => {
                let (mut a, mut b) = (beside(a, wanted, schema), beside(b, wanted, schema));
                if wanted.is_address() && !matches!(op, Op::Eq | Op::NotEq) {
                    (a, b) = (call("inet_order", vec![a]), call("inet_order", vec![b]));
                }
                return Ok(PlannerResult::Original(RawBinaryExpr { op, left: a, right: b }));
            }
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left: a, right: b })),
        };
        Ok(PlannerResult::Planned(call(name, vec![a, b])))
    }
}

/// Intervals times and over numbers; and dates with intervals, which are timestamps.
fn of_times(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<Expr> {
    if !matches!(expr.op, Op::Multiply | Op::Divide | Op::Plus | Op::Minus) {
        return None;
    }
    let kind = |expr: &Expr| expr.get_type(schema).ok();
    let (left, right) = (kind(&expr.left)?, kind(&expr.right)?);
    let is_interval = |kind: &DataType| matches!(kind, DataType::Interval(_));
    let is_number = |kind: &DataType| kind.is_numeric();
    let (a, b) = (expr.left.clone(), expr.right.clone());
    let timestamp = |expr: Expr| cast(expr, DataType::Timestamp(TimeUnit::Microsecond, None));
    match expr.op {
        Op::Multiply if is_interval(&left) && is_number(&right) => Some(call("interval_times", vec![a, b])),
        Op::Multiply if is_number(&left) && is_interval(&right) => Some(call("interval_times", vec![b, a])),
        Op::Divide if is_interval(&left) && is_number(&right) => Some(call("interval_over", vec![a, b])),
        Op::Plus if left == DataType::Date32 && is_interval(&right) => Some(timestamp(a) + b),
        Op::Plus if is_interval(&left) && right == DataType::Date32 => Some(timestamp(b) + a),
        Op::Minus if left == DataType::Date32 && is_interval(&right) => Some(timestamp(a) - b),
        _ => None,
    }
}

fn is_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..))
}
