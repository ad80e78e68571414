//! JSON in texts: PostgreSQL's operators `->`, `->>`, `#>`, `#>>` and `?`, and functions with a path of keys and
//! positions. The reading is done by `datafusion-functions-json`, which looks a path up without parsing the rest.
//!
//! JSON is text, whether its type is `json`, `jsonb` or plain text, and so is what `->` gives, as it stands in the document.
//! (The crate has a union of types for that, which clients do not know and which cannot be grouped by.) So
//! `doc -> 'a' -> 'b'` is one look-up along a path, and a number is had by a cast: `(doc ->> 'took')::double precision`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, lit};
use datafusion_functions_json::udfs;
use sqlparser::ast::BinaryOperator;

use super::scalar::{Arguments, Scalar, Type, unchecked};
use crate::error::{Error, Kind};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "json_get",
        syntax: "json_get(json, key or position, …) | json -> key | json #> path",
        summary: "a member of a JSON text, as JSON",
        sample: (r#"json_get('{"user": {"tags": ["a", "b"]}}', 'user', 'tags')"#, r#"["a", "b"]"#),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::JsonLike,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_get_json_udf(), Type::Text),
    },
    Scalar {
        name: "json_as_text",
        syntax: "json_as_text(json, key or position, …) | json ->> key | json #>> path",
        summary: "a member of a JSON text: a string without its quotes, anything else as JSON",
        sample: (r#"json_as_text('{"user": {"tags": ["a", "b"]}}', 'user', 'tags', 0)"#, "a"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_as_text_udf(), Type::Text),
    },
    Scalar {
        name: "json_get_str",
        syntax: "json_get_str(json, key or position, …)",
        summary: "a member of a JSON text that is a string",
        sample: (r#"json_get_str('{"level": "warn"}', 'level')"#, "warn"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_get_str_udf(), Type::Text),
    },
    Scalar {
        name: "json_get_int",
        syntax: "json_get_int(json, key or position, …)",
        summary: "a member of a JSON text that is a whole number, also one in quotes",
        sample: (r#"json_get_int('{"status": 404}', 'status')"#, "404"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Bigint,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_get_int_udf(), Type::Bigint),
    },
    Scalar {
        name: "json_get_float",
        syntax: "json_get_float(json, key or position, …)",
        summary: "a member of a JSON text that is a number, also one in quotes",
        sample: (r#"json_get_float('{"took": 1.5}', 'took')"#, "1.5"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Double,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_get_float_udf(), Type::Double),
    },
    Scalar {
        name: "json_get_bool",
        syntax: "json_get_bool(json, key or position, …)",
        summary: "a member of a JSON text that is true or false",
        sample: (r#"json_get_bool('{"cached": true}', 'cached')"#, "t"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Boolean,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_get_bool_udf(), Type::Boolean),
    },
    Scalar {
        name: "json_get_array",
        syntax: "json_get_array(json, key or position, …)",
        summary: "a member of a JSON text that is an array, as an array of JSON texts",
        sample: (r#"json_get_array('{"took": [1, 2.5]}', 'took')"#, "{1,2.5}"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Texts,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_get_array_udf(), Type::Texts),
    },
    Scalar {
        name: "json_contains",
        syntax: "json_contains(json, key or position, …) | json ? key",
        summary: "whether a JSON text has such a member",
        sample: (r#"json_contains('{"user": null}', 'user')"#, "t"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Boolean,
        check: unchecked,
        rows: |arguments| {
            // The crate says that there is no such member in NULL.
            let found = look_up(arguments, &udfs::json_contains_udf(), Type::Boolean)?;
            let nothing: BooleanArray = {
                let arrays = (0..arguments.count()).map(|i| arguments.array(i)).collect::<DfResult<Vec<_>>>()?;
                (0..arguments.rows).map(|row| Some(arrays.iter().any(|array| array.is_null(row)))).collect()
            };
            Ok(nullif(&found, &nothing)?)
        },
    },
    Scalar {
        name: "json_length",
        syntax: "json_length(json [, key or position, …])",
        summary: "how many members a JSON object or array has",
        sample: (r#"json_length('{"tags": ["a", "b"]}', 'tags')"#, "2"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Bigint,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_length_udf(), Type::Bigint),
    },
    Scalar {
        name: "json_object_keys",
        syntax: "json_object_keys(json [, key or position, …])",
        summary: "the keys of a JSON object, as an array",
        sample: (r#"json_object_keys('{"a": 1, "b": 2}')"#, "{a,b}"),
        forms: &[&[Type::Text, Type::Path]],
        result: Type::Texts,
        check: unchecked,
        rows: |arguments| look_up(arguments, &udfs::json_object_keys_udf(), Type::Texts),
    },
];

/// Whether a path may hold values of this type.
fn is_step(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(field) => is_step(field.data_type()),
        DataType::Dictionary(_, values) => is_step(values),
        other => other.is_string() || other.is_integer() || other.is_null(),
    }
}

/// Refuses what is no JSON text followed by a path.
pub fn check_types(function: &Scalar, types: &[DataType]) -> DfResult<()> {
    let is_text = |data_type: &DataType| data_type.is_string() || data_type.is_null();
    match types {
        [json, path @ ..] if is_text(json) && path.iter().all(is_step) => Ok(()),
        _ => {
            let given: Vec<String> = types.iter().map(|t| t.to_string().to_lowercase()).collect();
            let err = Error::new(
                Kind::UndefinedFunction,
                format!("function {}({}) does not exist", function.name, given.join(", ")),
            );
            Err(err.with_hint(format!("The form is {}; JSON is of type text.", function.syntax)).into())
        }
    }
}

/// Calls a function of the crate and gives its result our type.
fn look_up(arguments: &Arguments<'_>, function: &ScalarUDF, result: Type) -> DfResult<ArrayRef> {
    let values = arguments.values.iter().map(step).collect::<DfResult<Vec<ColumnarValue>>>()?;
    let field = |value: &ColumnarValue| Arc::new(Field::new("argument", value.data_type(), true));
    let call = ScalarFunctionArgs {
        arg_fields: values.iter().map(field).collect(),
        args: values,
        number_rows: arguments.rows,
        return_field: Arc::new(Field::new(function.name(), result.arrow(), true)),
        config_options: Arc::new(ConfigOptions::default()),
    };
    let array = function.invoke_with_args(call)?.into_array(arguments.rows)?;
    Ok(cast(&array, &result.arrow())?)
}

/// The crate reads positions of one type only.
fn step(value: &ColumnarValue) -> DfResult<ColumnarValue> {
    match value.data_type() {
        DataType::Dictionary(_, of) => value.cast_to(&of, None),
        narrow if narrow.is_integer() => value.cast_to(&DataType::Int64, None),
        DataType::Null => Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(None))),
        _ => Ok(value.clone()),
    }
}

/// Turns PostgreSQL's operators into calls.
#[derive(Debug)]
pub struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let name = match expr.op {
            BinaryOperator::Arrow | BinaryOperator::HashArrow => "json_get",
            BinaryOperator::LongArrow | BinaryOperator::HashLongArrow => "json_as_text",
            BinaryOperator::Question => "json_contains",
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let steps = match (&expr.op, &expr.right) {
            (BinaryOperator::HashArrow | BinaryOperator::HashLongArrow, Expr::Literal(path, _)) => path_of(path),
            _ => None,
        };
        let steps = steps.unwrap_or_else(|| vec![expr.right]);
        let function = SPECS.iter().find(|f| f.name == name).expect("the names are those above");
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction {
            func: Arc::new(function.udf()),
            args: along(expr.left, steps),
        })))
    }
}

/// `'{a,b}'` as an array of texts; anything else as it is.
pub fn texts_of(expr: Expr) -> Expr {
    let given = match &expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_string),
        _ => None,
    };
    let inner = given.as_deref().and_then(|text| text.trim().strip_prefix('{')?.strip_suffix('}'));
    let Some(inner) = inner else { return expr };
    let texts = inner.split(',').map(|text| text.trim().trim_matches('"')).filter(|text| !text.is_empty());
    let texts: Vec<ScalarValue> = texts.map(|text| ScalarValue::Utf8View(Some(text.to_string()))).collect();
    Expr::Literal(ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8View)), None)
}

/// The arguments of a look-up in the result of another one, which become one path.
fn along(json: Expr, steps: Vec<Expr>) -> Vec<Expr> {
    let is_fixed = |steps: &[Expr]| steps.iter().all(|step| matches!(step, Expr::Literal(..)));
    let mut arguments = match json {
        Expr::ScalarFunction(inner)
            if inner.func.name() == "json_get" && is_fixed(&inner.args[1..]) && is_fixed(&steps) =>
        {
            inner.args
        }
        other => vec![other],
    };
    arguments.extend(steps);
    arguments
}

/// `'{a,0,b}'` → steps: PostgreSQL writes the path of `#>` as an array of text, whose numbers are positions.
fn path_of(path: &ScalarValue) -> Option<Vec<Expr>> {
    let text = path.try_as_str().flatten()?;
    let steps = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let step = |step: &str| match step.trim().parse::<i64>() {
        Ok(position) => lit(position),
        Err(_) => lit(step.trim().trim_matches('"')),
    };
    Some(if steps.trim().is_empty() { Vec::new() } else { steps.split(',').map(step).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_postgres() {
        let path = |text: &str| path_of(&ScalarValue::from(text));
        assert_eq!(path("{a, 0 ,\"b c\"}"), Some(vec![lit("a"), lit(0_i64), lit("b c")]));
        assert_eq!(path("{}"), Some(Vec::new()));
        assert_eq!(path("a"), None);
        assert_eq!(path_of(&ScalarValue::Utf8(None)), None);
    }
}
