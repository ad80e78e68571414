//! The SQL functions that users may call and PostgreSQL has not, as rows of `pg_proc` in schema `logweir` and as psql's `\df`
//! shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Signature, TypeSignature};

use super::base::base;
use super::snapshot::{ROLE_OID, of_data};
use super::value::{Value, types};

/// Object ids of our functions start here, above those of all else.
const FIRST_OID: u32 = 2_000_000_000;

/// Types that stand for any.
const ANYELEMENT: u32 = 2283;
const ANY: u32 = 2276;

/// Most types of arguments shown of one function.
const MAX_ARGUMENTS: usize = 8;

#[derive(Clone)]
pub struct Functions(Arc<Vec<Function>>);

struct Function {
    name: String,
    /// `pg_proc.prokind`: function, aggregate, window.
    kind: &'static str,
    /// Types of the arguments; `None` for any number of any types.
    arguments: Option<Vec<u32>>,
    result: u32,
    gives_rows: bool,
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
        let function =
            Function { name: name.clone(), kind: "f", arguments: None, result: types::RECORD, gives_rows: true };
        found.entry(name.clone()).or_insert(function);
    }
    // What PostgreSQL has is listed as its own.
    let theirs = base().relation("pg_catalog", "pg_proc").and_then(|(_, system)| {
        let column = system.column("proname")?;
        Some(system.rows.index(column))
    });
    found.retain(|name, _| theirs.as_ref().is_none_or(|theirs| !theirs.contains_key(&Value::text(name))));
    Functions(Arc::new(found.into_values().collect()))
}

fn describe(
    name: &str,
    kind: &'static str,
    signature: &Signature,
    result: impl Fn(&[DataType]) -> Option<DataType>,
) -> Function {
    let given = example(&signature.type_signature);
    let result = given.as_deref().and_then(result).unwrap_or(DataType::Null);
    let arguments = given.map(|given| given.iter().take(MAX_ARGUMENTS).map(any_or_type).collect());
    Function { name: name.to_string(), kind, arguments, result: any_or_type(&result), gives_rows: false }
}

fn any_or_type(data_type: &DataType) -> u32 {
    if data_type.is_null() { ANYELEMENT } else { of_data(data_type) }
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

impl Functions {
    /// Gives the rows of `pg_proc`, in the schema with object id `namespace`.
    pub fn add_to(&self, add: &mut dyn FnMut(&[(&str, Value)]), namespace: u32) {
        let int = |number: u32| Value::Int(i64::from(number));
        for (at, function) in self.0.iter().enumerate() {
            let types = function.arguments.clone().unwrap_or_else(|| vec![ANY]);
            let list = Value::list(types.iter().map(|of| int(*of)).collect());
            let mut row = vec![
                ("oid", int(FIRST_OID + at as u32)),
                ("proname", Value::text(&function.name)),
                ("pronamespace", int(namespace)),
                ("proowner", int(ROLE_OID)),
                ("prolang", Value::Int(12)),
                ("procost", Value::Float(1.0)),
                ("prokind", Value::text(function.kind)),
                ("proretset", Value::Bool(function.gives_rows)),
                ("provolatile", Value::text("i")),
                ("proparallel", Value::text("s")),
                ("pronargs", Value::Int(types.len() as i64)),
                ("prorettype", int(function.result)),
                ("proargtypes", list.clone()),
                ("prosrc", Value::text(&function.name)),
            ];
            if function.arguments.is_none() {
                row.push(("provariadic", int(ANY)));
                row.push(("proallargtypes", list));
                row.push(("proargmodes", Value::list(vec![Value::text("v")])));
            }
            add(&row);
        }
    }
}
