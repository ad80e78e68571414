//! The functions that ask who may do what: those of [`crate::sql::function::privileges`], and those about things that everybody
//! may use here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};

use super::super::run::Run;
use super::{Of, Scalar};
use crate::catalog::postgres::value::{Value, types};
use crate::error::{Error, Result};
use crate::sql::function::privileges::FUNCTIONS;
use crate::sql::function::session::Call;

macro_rules! privilege {
    ($name:literal, $count:expr, $value:expr) => {
        Scalar { name: $name, count: $count, arguments: &[0], of: Of::Is(types::BOOL), strict: true, value: $value }
    };
}

macro_rules! asked {
    ($name:literal, $count:expr) => {
        privilege!($name, $count, |run, arguments| ask($name, run, arguments))
    };
}

pub static SCALARS: &[Scalar] = &[
    asked!("has_table_privilege", (2, 3)),
    asked!("has_any_column_privilege", (2, 3)),
    asked!("has_column_privilege", (3, 4)),
    asked!("has_schema_privilege", (2, 3)),
    asked!("has_database_privilege", (2, 3)),
    asked!("pg_has_role", (2, 3)),
    privilege!("has_sequence_privilege", (2, 3), always),
    privilege!("has_function_privilege", (2, 3), always),
    privilege!("has_language_privilege", (2, 3), always),
    privilege!("has_type_privilege", (2, 3), always),
    privilege!("has_tablespace_privilege", (2, 3), always),
    privilege!("has_server_privilege", (2, 3), always),
    privilege!("has_foreign_data_wrapper_privilege", (2, 3), always),
];

/// One call of a function that DataFusion's queries have as well.
fn ask(name: &str, run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let spec = FUNCTIONS.iter().find(|spec| spec.name == name);
    let spec = spec.ok_or_else(|| Error::internal(format!("there is no function {name}")))?;
    let array = |value: &Value| -> ArrayRef {
        match value {
            Value::Int(number) => Arc::new(Int64Array::from(vec![*number])),
            value => Arc::new(StringArray::from(vec![value.as_str()])),
        }
    };
    let arguments: Vec<ArrayRef> = arguments.iter().map(array).collect();
    let call = Call { session: run.session, names: run.names(), arguments: &arguments, rows: 1 };
    let answer = (spec.rows)(&call)?;
    Ok(match answer.as_boolean_opt() {
        Some(answer) if answer.is_valid(0) => Value::Bool(answer.value(0)),
        _ => Value::Null,
    })
}

fn always(_: &Run<'_>, _: &[Value]) -> Result<Value> {
    Ok(Value::Bool(true))
}
