//! Arithmetic as PostgreSQL's: a whole number that its type cannot hold is an error (22003), and so is a division of a
//! floating-point number by zero (22012). DataFusion's operators go round at the end of a type, and give infinity.
//!
//! [`checked`] puts calls of functions in the place of these operators. They are no functions of the dialect: nobody can
//! call them by name. It also lets `n <> 0 AND x / n > 2` be what it means: see [`guarded`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::split_binary;
use datafusion::logical_expr::{
    BinaryExpr, Case, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::physical_expr_common::datum::apply;

use crate::error::{Error, Kind};

/// The names of the functions, for those who ask what a call costs.
pub const NAMES: [&str; 5] = ["plus", "minus", "times", "over", "remainder"];

/// The call that stands for an operator, if it is one of those above and both sides have one type already. `schema` is
/// that of the rows that the expression is about.
pub fn checked(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let checks = |operator: Operator, of: &DataType| match operator {
        Operator::Plus | Operator::Minus | Operator::Multiply => of.is_integer(),
        Operator::Divide | Operator::Modulo => matches!(of, DataType::Float32 | DataType::Float64),
        _ => false,
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if name_of(op).is_some() => {
            let of = type_of(&left, schema).filter(|of| checks(op, of) && type_of(&right, schema).as_ref() == Some(of));
            Ok(match of {
                Some(of) => Transformed::yes(call(op, of, *left, *right)),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            })
        }
        Expr::Negative(inner) => match type_of(&inner, schema).filter(DataType::is_signed_integer) {
            Some(of) => {
                let zero = Expr::Literal(ScalarValue::new_zero(&of)?, None);
                Ok(Transformed::yes(call(Operator::Minus, of, zero, *inner)))
            }
            None => Ok(Transformed::no(Expr::Negative(inner))),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Ok(guarded(*left, op, *right))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// `left AND right`, or OR, so that a division on the right is only computed where the left side leaves it open. The
/// operators themselves compute both sides for all rows, mostly: a divisor of zero would be an error where it was excluded.
///
/// ```text
///     a AND x / n > 2   ──►   a AND CASE a WHEN false THEN false WHEN true THEN x / n > 2 ELSE NULL AND x / n > 2 END
/// ```
///
/// Without divisions of its own the left side stands in both places; as it stands for itself, too, it is found where
/// rows are looked for.
fn guarded(left: Expr, operator: Operator, right: Expr) -> Transformed<Expr> {
    let plain = |left, right| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), operator, Box::new(right)));
    if is_guarded(&right) || !divides(&right) {
        return Transformed::no(plain(left, right));
    }
    let before = split_binary(&left, operator).into_iter();
    let before = before.filter(|part| !matches!(part, Expr::Literal(..)) && !divides(part)).cloned();
    let Some(before) = before.reduce(plain) else { return Transformed::no(plain(left, right)) };
    let settled = operator == Operator::Or;
    let unknown = plain(Expr::Literal(ScalarValue::Boolean(None), None), right.clone());
    let truth = |truth: bool| Box::new(lit(truth));
    let whens = vec![(truth(settled), truth(settled)), (truth(!settled), Box::new(right))];
    let guard = Expr::Case(Case::new(Some(Box::new(before)), whens, Some(Box::new(unknown))));
    Transformed::yes(plain(left, guard))
}

/// Whether [`guarded`] made it: plans are analyzed more than once.
fn is_guarded(expr: &Expr) -> bool {
    let Expr::Case(Case { expr: Some(_), when_then_expr, .. }) = expr else { return false };
    let truth = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(_)), _));
    when_then_expr.len() == 2 && when_then_expr.iter().all(|(when, _)| truth(when))
}

/// Whether it divides by something that is not the same in all rows.
fn divides(expr: &Expr) -> bool {
    let divided = |operator: Operator, by: &Expr| {
        matches!(operator, Operator::Divide | Operator::Modulo) && !matches!(by, Expr::Literal(..))
    };
    let found = expr.exists(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { op, right, .. }) => divided(*op, right),
            Expr::ScalarFunction(call) => match (call.func.inner().downcast_ref::<Checked>(), call.args.as_slice()) {
                (Some(checked), [_, by]) => divided(checked.operator, by),
                _ => false,
            },
            _ => false,
        })
    });
    found.unwrap_or(true)
}

fn call(operator: Operator, of: DataType, left: Expr, right: Expr) -> Expr {
    let function = Checked { operator, of, signature: Signature::user_defined(Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(function)), vec![left, right]))
}

/// The type of an expression. What one of the functions gives is known at once: in a long sum each is an argument of the next.
fn type_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<Checked>() => {
            call.func.inner().downcast_ref::<Checked>().map(|checked| checked.of.clone())
        }
        other => other.get_type(schema).ok(),
    }
}

fn name_of(operator: Operator) -> Option<&'static str> {
    let operators =
        [Operator::Plus, Operator::Minus, Operator::Multiply, Operator::Divide, Operator::Modulo].into_iter();
    operators.zip(NAMES).find(|(known, _)| *known == operator).map(|(_, name)| name)
}

/// One operator for two values of one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operator: Operator,
    of: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        name_of(self.operator).unwrap_or_default()
    }

    /// The operator's own, so that columns keep their names.
    fn schema_name(&self, arguments: &[Expr]) -> DfResult<String> {
        let names: Vec<String> = arguments.iter().map(|argument| argument.schema_name().to_string()).collect();
        Ok(names.join(&format!(" {} ", self.operator)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// They were brought to one type before.
    fn coerce_types(&self, given: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(given.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.of.clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        let nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.of.clone(), nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [a, b] = arguments.args.as_slice() else {
            return Err(Error::internal(format!("{} takes two arguments", self.name())).into());
        };
        match (self.operator, &self.of) {
            (Operator::Plus, DataType::Int16) => self.whole::<Int16Type>(a, b, i16::overflowing_add),
            (Operator::Plus, DataType::Int32) => self.whole::<Int32Type>(a, b, i32::overflowing_add),
            (Operator::Plus, DataType::Int64) => self.whole::<Int64Type>(a, b, i64::overflowing_add),
            (Operator::Minus, DataType::Int16) => self.whole::<Int16Type>(a, b, i16::overflowing_sub),
            (Operator::Minus, DataType::Int32) => self.whole::<Int32Type>(a, b, i32::overflowing_sub),
            (Operator::Minus, DataType::Int64) => self.whole::<Int64Type>(a, b, i64::overflowing_sub),
            (Operator::Multiply, DataType::Int16) => self.whole::<Int16Type>(a, b, i16::overflowing_mul),
            (Operator::Multiply, DataType::Int32) => self.whole::<Int32Type>(a, b, i32::overflowing_mul),
            (Operator::Multiply, DataType::Int64) => self.whole::<Int64Type>(a, b, i64::overflowing_mul),
            (_, DataType::Float32) => self.fraction::<Float32Type>(a, b, 0.0),
            (_, DataType::Float64) => self.fraction::<Float64Type>(a, b, 0.0),
            _ => self.by_arrow(a, b),
        }
    }
}

impl Checked {
    /// Computes all rows and looks once whether one of them did not fit: that is as fast as not to look.
    fn whole<T: ArrowPrimitiveType>(
        &self,
        a: &ColumnarValue,
        b: &ColumnarValue,
        compute: impl Fn(T::Native, T::Native) -> (T::Native, bool),
    ) -> DfResult<ColumnarValue> {
        let mut is_over = false;
        let mut one = |a: T::Native, b: T::Native| {
            let (result, over) = compute(a, b);
            is_over |= over;
            result
        };
        let (values, nulls): (Vec<T::Native>, _) = match (a, b) {
            (ColumnarValue::Array(a), ColumnarValue::Array(b)) => {
                let (a, b) = (numbers::<T>(a)?, numbers::<T>(b)?);
                let values = a.values().iter().zip(b.values()).map(|(a, b)| one(*a, *b)).collect();
                (values, NullBuffer::union(a.nulls(), b.nulls()))
            }
            (ColumnarValue::Array(a), ColumnarValue::Scalar(b)) if !b.is_null() => {
                let (a, b) = (numbers::<T>(a)?, value::<T>(b)?);
                (a.values().iter().map(|a| one(*a, b)).collect(), a.nulls().cloned())
            }
            (ColumnarValue::Scalar(a), ColumnarValue::Array(b)) if !a.is_null() => {
                let (a, b) = (value::<T>(a)?, numbers::<T>(b)?);
                (b.values().iter().map(|b| one(a, *b)).collect(), b.nulls().cloned())
            }
            _ => return self.by_arrow(a, b),
        };
        // The row may be one that is NULL.
        if is_over {
            return self.by_arrow(a, b);
        }
        Ok(ColumnarValue::Array(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))))
    }

    /// Arrow's own operators look at each row, and give infinity where a divisor is zero.
    fn fraction<T: ArrowPrimitiveType<Native: PartialEq>>(
        &self,
        a: &ColumnarValue,
        b: &ColumnarValue,
        zero: T::Native,
    ) -> DfResult<ColumnarValue> {
        let zero_somewhere = match b {
            ColumnarValue::Scalar(b) => !b.is_null() && value::<T>(b)? == zero,
            ColumnarValue::Array(b) => numbers::<T>(b)?.values().contains(&zero),
        };
        if zero_somewhere {
            let rows = match (a, b) {
                (ColumnarValue::Array(array), _) | (_, ColumnarValue::Array(array)) => array.len(),
                _ => 1,
            };
            let (a, b) = (a.to_array(rows)?, b.to_array(rows)?);
            let (a, b) = (numbers::<T>(&a)?, numbers::<T>(&b)?);
            // Only what is no number is not equal to itself: over zero it is no number either.
            #[allow(clippy::eq_op)]
            let is_number = |number: T::Native| number == number;
            if a.iter().zip(b).any(|(a, b)| a.is_some_and(is_number) && b == Some(zero)) {
                return Err(Error::new(Kind::DivisionByZero, "division by zero").into());
            }
        }
        self.by_arrow(a, b)
    }

    /// The result by Arrow's operators, which fail where a whole number is out of range.
    fn by_arrow(&self, a: &ColumnarValue, b: &ColumnarValue) -> DfResult<ColumnarValue> {
        let computed = match self.operator {
            Operator::Plus => apply(a, b, numeric::add),
            Operator::Minus => apply(a, b, numeric::sub),
            Operator::Multiply => apply(a, b, numeric::mul),
            Operator::Divide => apply(a, b, numeric::div),
            _ => apply(a, b, numeric::rem),
        };
        computed.map_err(|err| match err {
            DataFusionError::ArrowError(inner, _) if matches!(*inner, ArrowError::ArithmeticOverflow(_)) => {
                out_of_range(&self.of).into()
            }
            other => other,
        })
    }
}

/// A value is too large for a type of whole numbers.
pub fn out_of_range(of: &DataType) -> Error {
    let name = match of {
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint",
        DataType::UInt16 | DataType::Int32 => "integer",
        _ => "bigint",
    };
    let err = Error::new(Kind::OutOfRange, format!("{name} out of range"));
    match name {
        "bigint" => err.with_hint("Compute with numeric or double precision: x::numeric."),
        _ => err.with_hint("Compute with a larger type: x::bigint."),
    }
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> DfResult<&PrimitiveArray<T>> {
    array.as_primitive_opt().ok_or_else(|| {
        Error::internal(format!("numbers of type {} where others were planned", array.data_type())).into()
    })
}

fn value<T: ArrowPrimitiveType>(value: &ScalarValue) -> DfResult<T::Native> {
    Ok(numbers::<T>(&value.to_array()?)?.value(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, UInt64Array};
    use arrow::datatypes::Schema;
    use datafusion::logical_expr::{binary_expr, col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::error::Result;

    fn computed(expr: Expr, columns: &[(&str, ArrayRef)]) -> Result<ArrayRef> {
        let batch = RecordBatch::try_from_iter(columns.iter().cloned())?;
        let schema = DFSchema::try_from(Schema::clone(&batch.schema()))?;
        let checked = checked(expr, &schema)?;
        assert!(checked.transformed);
        let physical = SessionContext::new().state().create_physical_expr(checked.data, &schema)?;
        Ok(physical.evaluate(&batch)?.into_array(batch.num_rows())?)
    }

    fn fails(expr: Expr, columns: &[(&str, ArrayRef)]) -> (&'static str, String) {
        let err = computed(expr, columns).expect_err("it is out of range");
        (err.kind().sqlstate(), err.message().to_string())
    }

    #[test]
    fn whole_numbers_end_where_their_type_does() {
        let small: ArrayRef = Arc::new(Int16Array::from(vec![1, i16::MAX]));
        let int: ArrayRef = Arc::new(Int32Array::from(vec![Some(2), Some(i32::MIN), None]));
        let big: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 3]));
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![0, 3]));
        let out = |name: &str| ("22003", format!("{name} out of range"));
        assert_eq!(fails(col("x") + lit(1i16), &[("x", Arc::clone(&small))]), out("smallint"));
        assert_eq!(fails(col("x") * col("x"), &[("x", Arc::clone(&small))]), out("smallint"));
        assert_eq!(fails(-col("x"), &[("x", Arc::clone(&int))]), out("integer"));
        assert_eq!(fails(lit(1i64) + col("x"), &[("x", Arc::clone(&big))]), out("bigint"));
        assert_eq!(fails(col("x") - lit(1u64), &[("x", unsigned)]), out("bigint"));
        assert_eq!(fails(lit(i64::MAX) + lit(1i64), &[("x", Arc::clone(&big))]), out("bigint"));

        let of = |expr, columns: &[(&str, ArrayRef)]| computed(expr, columns).unwrap();
        let shifted = of(col("x") - lit(1i64), &[("x", big)]);
        assert_eq!(shifted.as_primitive::<Int64Type>().values(), &[i64::MAX - 1, 2]);
        let sum = of(col("x") + lit(ScalarValue::Int32(None)), &[("x", int)]);
        assert_eq!(sum.null_count(), 3);
    }

    #[test]
    fn a_divisor_that_is_excluded_before_is_no_error() {
        let n: ArrayRef = Arc::new(Int32Array::from(vec![Some(0), Some(1), Some(3), Some(4), None]));
        let schema = DFSchema::try_from(Schema::new(vec![Field::new("n", DataType::Int32, true)])).unwrap();
        let batch = RecordBatch::try_from_iter([("n", n)]).unwrap();
        let large = || (lit(6i32) / col("n")).gt(lit(2i32));
        let both = |expr: Expr| {
            let guarded = checked(expr, &schema).unwrap();
            assert!(guarded.transformed);
            let again = checked(guarded.data, &schema).unwrap();
            assert!(!again.transformed, "once is enough");
            let physical = SessionContext::new().state().create_physical_expr(again.data, &schema).unwrap();
            let found = physical.evaluate(&batch).unwrap().into_array(5).unwrap();
            found.as_boolean().iter().collect::<Vec<_>>()
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(both(col("n").not_eq(lit(0i32)).and(large())), [no, yes, no, no, None]);
        assert_eq!(both(col("n").eq(lit(0i32)).or(large())), [yes, yes, no, no, None]);
        let unknown = col("n").gt(lit(1i32)).and(col("n").is_not_null());
        assert_eq!(both(unknown.and(large())), [no, no, no, no, no]);
        for plain in
            [large().and(col("n").not_eq(lit(0i32))), col("n").gt(lit(1i32)).and((col("n") / lit(2i32)).gt(lit(1i32)))]
        {
            assert!(!checked(plain, &schema).unwrap().transformed);
        }
    }

    #[test]
    fn what_stands_below_a_null_is_not_computed() {
        let below = Int32Array::new(vec![i32::MAX, 1].into(), Some(vec![false, true].into()));
        let sum = computed(col("x") + lit(1i32), &[("x", Arc::new(below))]).unwrap();
        assert_eq!(sum.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [None, Some(2)]);
    }

    #[test]
    fn no_fraction_is_divided_by_zero() {
        let column = |values: Vec<Option<f64>>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
        let (a, b) = (column(vec![Some(1.0), Some(2.0)]), column(vec![Some(4.0), Some(-0.0)]));
        let zero = ("22012", "division by zero".to_string());
        assert_eq!(fails(col("a") / col("b"), &[("a", Arc::clone(&a)), ("b", Arc::clone(&b))]), zero);
        assert_eq!(fails(lit(1.0) / col("b"), &[("b", Arc::clone(&b))]), zero);
        assert_eq!(fails(binary_expr(col("b"), Operator::Modulo, lit(0.0)), &[("b", b)]), zero);

        let none = column(vec![Some(f64::NAN), None, Some(1.0)]);
        let by = column(vec![Some(0.0), Some(0.0), None]);
        let quotient = computed(col("a") / col("b"), &[("a", none), ("b", by)]).unwrap();
        assert!(quotient.as_primitive::<Float64Type>().value(0).is_nan());
        assert_eq!(quotient.null_count(), 2);
        let quarter = computed(col("a") / lit(4.0), &[("a", a)]).unwrap();
        assert_eq!(quarter.as_primitive::<Float64Type>().values(), &[0.25, 0.5]);
    }
}
