//! The SQL functions that users may call, as rows of `pg_proc` and as psql's `\df` shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int16Array, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::cast::{as_int32_array, as_string_array};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{ColumnarValue, Signature, TypeSignature, Volatility, create_udf};
use datafusion::prelude::SessionContext;

/// Object ids of our functions start here, above those of PostgreSQL's own and of relations.
const FIRST_OID: i32 = 100_000;

/// `pg_type.oid` of what has no type of its own.
const RECORD_OID: i32 = 2249;
const ANYELEMENT_OID: i32 = 2283;
const ANYARRAY_OID: i32 = 2277;

/// Names of types, as they may be written, with their object ids (PostgreSQL's `pg_type.dat`).
const TYPES: &[(&str, i32)] = &[
    ("bool", 16),
    ("boolean", 16),
    ("bytea", 17),
    ("char", 18),
    ("name", 19),
    ("int8", 20),
    ("bigint", 20),
    ("int2", 21),
    ("smallint", 21),
    ("int4", 23),
    ("integer", 23),
    ("int", 23),
    ("text", 25),
    ("oid", 26),
    ("json", 114),
    ("float4", 700),
    ("real", 700),
    ("float8", 701),
    ("double precision", 701),
    ("bpchar", 1042),
    ("varchar", 1043),
    ("character varying", 1043),
    ("date", 1082),
    ("time", 1083),
    ("time without time zone", 1083),
    ("timestamp", 1114),
    ("timestamp without time zone", 1114),
    ("timestamptz", 1184),
    ("timestamp with time zone", 1184),
    ("interval", 1186),
    ("numeric", 1700),
    ("uuid", 2950),
    ("jsonb", 3802),
];

/// Most types of arguments shown of one function.
const MAX_ARGUMENTS: usize = 8;

#[derive(Clone)]
pub struct Functions(Arc<Vec<Function>>);

struct Function {
    name: String,
    /// `pg_proc.prokind`: function, aggregate, window.
    kind: &'static str,
    arguments: String,
    argument_count: i16,
    result: String,
    /// Object id of the result's type.
    result_oid: i32,
}

/// Every function of a session, by name.
pub fn list(state: &SessionState) -> Functions {
    let mut found = BTreeMap::new();
    for (name, function) in state.scalar_functions() {
        let result = |types: &[DataType]| function.return_type(types).ok();
        found.insert(name.clone(), describe(name, "f", function.signature(), result));
    }
    for (name, function) in state.aggregate_functions() {
        let result = |types: &[DataType]| function.return_type(types).ok();
        found.insert(name.clone(), describe(name, "a", function.signature(), result));
    }
    for (name, function) in state.window_functions() {
        let result = |types: &[DataType]| {
            let fields: Vec<Arc<Field>> = types.iter().map(|t| Arc::new(Field::new("a", t.clone(), true))).collect();
            function
                .field(datafusion::logical_expr::function::WindowUDFFieldArgs::new(&fields, name))
                .ok()
                .map(|f| f.data_type().clone())
        };
        found.insert(name.clone(), describe(name, "w", function.signature(), result));
    }
    for name in state.table_functions().keys() {
        let function = Function {
            name: name.clone(),
            kind: "f",
            arguments: "VARIADIC \"any\"".to_string(),
            argument_count: 1,
            result: "SETOF record".to_string(),
            result_oid: RECORD_OID,
        };
        found.entry(name.clone()).or_insert(function);
    }
    Functions(Arc::new(found.into_values().collect()))
}

fn describe(
    name: &str,
    kind: &'static str,
    signature: &Signature,
    result: impl Fn(&[DataType]) -> Option<DataType>,
) -> Function {
    let types = example(&signature.type_signature);
    let (arguments, argument_count) = match &types {
        Some(types) => {
            let shown = types.iter().take(MAX_ARGUMENTS).map(type_name).collect::<Vec<_>>().join(", ");
            (shown, types.len() as i16)
        }
        None => ("VARIADIC \"any\"".to_string(), 1),
    };
    let result = types.as_deref().and_then(result).unwrap_or(DataType::Null);
    let (result, result_oid) = (type_name(&result), type_oid(&result));
    Function { name: name.to_string(), kind, arguments, argument_count, result, result_oid }
}

/// Types that a function can be called with; None if it takes what it gets.
fn example(signature: &TypeSignature) -> Option<Vec<DataType>> {
    match signature {
        TypeSignature::UserDefined | TypeSignature::VariadicAny => None,
        TypeSignature::Any(count) => Some(vec![DataType::Null; *count]),
        TypeSignature::Nullary => Some(Vec::new()),
        TypeSignature::OneOf(all) => {
            let mut examples: Vec<Vec<DataType>> = all.iter().filter_map(example).collect();
            // The longest one says most.
            examples.sort_by_key(|types| std::cmp::Reverse(types.len()));
            examples.into_iter().next()
        }
        other => other.get_example_types().into_iter().next(),
    }
}

/// As PostgreSQL writes the name of a type in a definition.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint",
        DataType::UInt16 | DataType::Int32 => "integer",
        DataType::UInt32 | DataType::Int64 => "bigint",
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            return format!("{}[]", type_name(field.data_type()));
        }
        DataType::Dictionary(_, values) => return type_name(values),
        DataType::Struct(_) => "record",
        _ => "anyelement",
    }
    .to_string()
}

/// `pg_type.oid` of a type.
fn type_oid(data_type: &DataType) -> i32 {
    match type_name(data_type).as_str() {
        "boolean" => 16,
        "smallint" => 21,
        "integer" => 23,
        "bigint" => 20,
        "numeric" => 1700,
        "real" => 700,
        "double precision" => 701,
        "text" => 25,
        "bytea" => 17,
        "date" => 1082,
        "time without time zone" => 1083,
        "timestamp without time zone" => 1114,
        "timestamp with time zone" => 1184,
        "interval" => 1186,
        "record" => RECORD_OID,
        name if name.ends_with("[]") => ANYARRAY_OID,
        _ => ANYELEMENT_OID,
    }
}

impl Functions {
    /// The functions that give a definition's parts by object id, and object ids by name.
    pub fn register(&self, context: &SessionContext) {
        let of_name = |arguments: &[ColumnarValue]| -> DataFusionResult<ColumnarValue> {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let oid = |name: Option<&str>| {
                let name = name?.trim().to_ascii_lowercase();
                TYPES.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid)
            };
            let oids: Int32Array = as_string_array(&arrays[0])?.iter().map(oid).collect();
            Ok(ColumnarValue::Array(Arc::new(oids)))
        };
        let text = vec![DataType::Utf8];
        context.register_udf(create_udf("to_regtype", text, DataType::Int32, Volatility::Stable, Arc::new(of_name)));
        let parts: [(&str, fn(&Function) -> &str); 3] = [
            ("pg_get_function_result", |function| &function.result),
            ("pg_get_function_arguments", |function| &function.arguments),
            ("pg_get_function_identity_arguments", |function| &function.arguments),
        ];
        for (name, part) in parts {
            let functions = self.clone();
            let body = move |arguments: &[ColumnarValue]| -> DataFusionResult<ColumnarValue> {
                let arrays = ColumnarValue::values_to_arrays(arguments)?;
                let oids = as_int32_array(&arrays[0])?;
                let of = |oid: i32| -> Option<&str> {
                    let index = usize::try_from(oid.checked_sub(FIRST_OID)?).ok()?;
                    functions.0.get(index).map(part)
                };
                let texts: StringArray = oids.iter().map(|oid| oid.and_then(of)).collect();
                Ok(ColumnarValue::Array(Arc::new(texts)))
            };
            let argument = vec![DataType::Int32];
            context.register_udf(create_udf(name, argument, DataType::Utf8, Volatility::Stable, Arc::new(body)));
        }
        // PostgreSQL's own functions are in the table because types name them; they cannot be called.
        let visible = |arguments: &[ColumnarValue]| -> DataFusionResult<ColumnarValue> {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let ours: BooleanArray = as_int32_array(&arrays[0])?.iter().map(|o| Some(o? >= FIRST_OID)).collect();
            Ok(ColumnarValue::Array(Arc::new(ours)))
        };
        let (name, argument) = ("pg_function_is_visible", vec![DataType::Int32]);
        context.register_udf(create_udf(name, argument, DataType::Boolean, Volatility::Stable, Arc::new(visible)));
    }

    /// As rows of `pg_proc`, whose columns are `schema`, in the schema with object id `namespace`.
    pub fn as_pg_proc(&self, schema: &SchemaRef, namespace: i32) -> DataFusionResult<RecordBatch> {
        let functions = self.0.as_slice();
        let column = |field: &Arc<Field>| -> DataFusionResult<ArrayRef> {
            let numbers = |value: &dyn Fn(usize, &Function) -> i32| -> ArrayRef {
                Arc::new(functions.iter().enumerate().map(|(i, f)| Some(value(i, f))).collect::<Int32Array>())
            };
            let texts = |value: &dyn Fn(&Function) -> String| -> ArrayRef {
                Arc::new(functions.iter().map(|f| Some(value(f))).collect::<StringArray>())
            };
            let values: ArrayRef = match field.name().as_str() {
                "oid" => numbers(&|index, _| FIRST_OID + index as i32),
                "proname" => texts(&|function| function.name.clone()),
                "pronamespace" => numbers(&|_, _| namespace),
                "prokind" => texts(&|function| function.kind.to_string()),
                "provolatile" => texts(&|_| "i".to_string()),
                "proparallel" => texts(&|_| "s".to_string()),
                "pronargs" => numbers(&|_, function| i32::from(function.argument_count)),
                "prorettype" => numbers(&|_, function| function.result_oid),
                "prolang" => numbers(&|_, _| 12),
                _ => return Ok(empty(field, functions.len())),
            };
            Ok(arrow::compute::cast(&values, field.data_type()).unwrap_or_else(|_| empty(field, functions.len())))
        };
        let columns = schema.fields().iter().map(column).collect::<DataFusionResult<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

/// A column of nothing: NULL, or where that is not allowed zero, false, the empty string.
fn empty(field: &Field, rows: usize) -> ArrayRef {
    if field.is_nullable() {
        return new_null_array(field.data_type(), rows);
    }
    let zeros: ArrayRef = match field.data_type() {
        DataType::Boolean => Arc::new(BooleanArray::from(vec![false; rows])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![""; rows])),
        DataType::Int16 => Arc::new(Int16Array::from(vec![0; rows])),
        _ => Arc::new(Int32Array::from(vec![0; rows])),
    };
    arrow::compute::cast(&zeros, field.data_type()).unwrap_or_else(|_| new_null_array(field.data_type(), rows))
}
