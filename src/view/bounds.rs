//! Reads time bounds out of filters: `ts >= x AND ts < y` → the closed range of microseconds that can match. Used to
//! skip chunks and panes; the filter itself is still applied above, so a bound that is not recognised costs only time.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use crate::rollup::window::to_micros;
use crate::time::Micros;

/// The range of `column` that can satisfy all `filters`; `None` when they do not bound it.
pub fn time_bounds(filters: &[Expr], column: &str) -> Option<(Micros, Micros)> {
    let mut range = (Micros::MIN, Micros::MAX);
    for filter in filters {
        narrow(filter, column, &mut range);
    }
    (range != (Micros::MIN, Micros::MAX)).then_some(range)
}

fn narrow(filter: &Expr, column: &str, range: &mut (Micros, Micros)) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            narrow(left, column, range);
            narrow(right, column, range);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = if is_column(left, column) {
                (*op, micros(right))
            } else if is_column(right, column) {
                (op.swap().unwrap_or(*op), micros(left))
            } else {
                return;
            };
            let Some(value) = value else { return };
            match op {
                Operator::Eq => *range = (range.0.max(value), range.1.min(value)),
                Operator::Gt | Operator::GtEq => range.0 = range.0.max(value),
                // A bound in finer units may have been rounded down, so the end is kept inclusive.
                Operator::Lt | Operator::LtEq => range.1 = range.1.min(value),
                _ => {}
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_column(expr, column) => {
            if let (Some(low), Some(high)) = (micros(low), micros(high)) {
                *range = (range.0.max(low), range.1.min(high));
            }
        }
        _ => {}
    }
}

fn is_column(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

fn micros(expr: &Expr) -> Option<Micros> {
    let Expr::Literal(value, _) = expr else { return None };
    let data_type = value.data_type();
    let raw = match value {
        ScalarValue::TimestampSecond(v, _)
        | ScalarValue::TimestampMillisecond(v, _)
        | ScalarValue::TimestampMicrosecond(v, _)
        | ScalarValue::TimestampNanosecond(v, _) => (*v)?,
        _ => return None,
    };
    // A timestamp without a zone is compared as UTC.
    debug_assert!(matches!(data_type, DataType::Timestamp(..)));
    to_micros(&data_type, raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    fn at(micros: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(micros), None))
    }

    #[test]
    fn comparisons_narrow_the_range() {
        let filters = [col("ts").gt_eq(at(5)).and(at(9).gt(col("ts"))), col("other").eq(at(1))];
        assert_eq!(time_bounds(&filters, "ts"), Some((5, 9)));
        assert_eq!(time_bounds(&[col("ts").eq(at(7))], "ts"), Some((7, 7)));
        assert_eq!(time_bounds(&[col("ts").eq(at(7)).or(col("ts").eq(at(9)))], "ts"), None);
    }
}
