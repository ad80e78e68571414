//! `coalesce` and `nvl` (also `ifnull`): the first argument that is not NULL.
//!
//! The others must not be computed where an earlier one is there: `coalesce(x, 1 / 0)`. DataFusion says the call as CASE
//! WHEN a IS NOT NULL THEN a ELSE b, in which all arguments but the last stand twice: calls in calls double with each
//! level. So here only those calls become a CASE that have to: where the later arguments cannot fail, all are computed.

use arrow::array::{Array, ArrayRef};
use arrow::compute::is_not_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::functions::core::{coalesce, nvl};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The functions' names.
pub const NAMES: [&str; 2] = ["coalesce", "nvl"];

/// The functions.
pub fn functions() -> impl Iterator<Item = ScalarUDF> {
    [coalesce(), nvl()].into_iter().map(|theirs| ScalarUDF::new_from_impl(First(theirs.as_ref().clone())))
}

/// How a call of one of them is computed.
pub enum Form {
    /// All arguments are.
    Together,
    /// One after the other, as long as the one before is NULL: as CASE, in which all but the last stand twice.
    InOrder,
}

/// The form of a call; `None` for calls of other functions.
pub fn form(call: &ScalarFunction) -> Option<Form> {
    NAMES.contains(&call.func.name()).then(|| form_of(&call.args))
}

fn form_of(arguments: &[Expr]) -> Form {
    let (first, later) = arguments.split_at(arguments.len().min(1));
    // A plain first argument may stand twice, and what is said as CASE is understood further on.
    match first.iter().all(is_plain) || !later.iter().all(is_plain) {
        true => Form::InOrder,
        false => Form::Together,
    }
}

/// Whether it is small and cannot fail.
fn is_plain(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => is_plain(&alias.expr),
        _ => false,
    }
}

/// DataFusion's own function but for how it is computed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct First(ScalarUDF);

impl ScalarUDFImpl for First {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, given: &[DataType]) -> DfResult<Vec<DataType>> {
        self.0.coerce_types(given)
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        self.0.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.0.return_field_from_args(arguments)
    }

    fn conditional_arguments<'a>(&self, arguments: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.0.conditional_arguments(arguments)
    }

    fn short_circuits(&self) -> bool {
        self.0.short_circuits()
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        match form_of(&arguments) {
            Form::InOrder => self.0.simplify(arguments, context),
            Form::Together => Ok(ExprSimplifyResult::Original(arguments)),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let mut given = arguments.args.into_iter();
        let Some(mut found) = given.next() else {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(arguments.return_field.data_type())?));
        };
        for next in given {
            found = match found {
                ColumnarValue::Scalar(value) if value.is_null() => next,
                ColumnarValue::Scalar(value) => return Ok(ColumnarValue::Scalar(value)),
                ColumnarValue::Array(array) if array.null_count() == 0 => return Ok(ColumnarValue::Array(array)),
                ColumnarValue::Array(array) => ColumnarValue::Array(filled(&array, &next)?),
            };
        }
        Ok(found)
    }
}

/// The column with other values where it is NULL.
fn filled(array: &ArrayRef, with: &ColumnarValue) -> DfResult<ArrayRef> {
    let is_there = is_not_null(array)?;
    Ok(match with {
        ColumnarValue::Array(with) => zip(&is_there, array, with)?,
        ColumnarValue::Scalar(with) => zip(&is_there, array, &with.to_scalar()?)?,
    })
}
