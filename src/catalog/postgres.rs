//! PostgreSQL's system catalog over ours, so that psql, dashboards and drivers find what they look for: [`base`] has what
//! stands in every catalog, [`snapshot`] adds what this engine has, [`views`] what changes from moment to moment. Queries of
//! it are answered by `sql::introspect`.
//!
//! Queries that read other relations as well are DataFusion's, with the functions that `datafusion-pg-catalog` has and
//! those here that have one answer.

pub mod base;
pub mod format;
pub mod functions;
mod keywords;
pub mod roles;
pub mod snapshot;
pub mod value;
pub mod views;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion_pg_catalog::pg_catalog::setup_pg_catalog;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::time::{Clock, UTC};
use roles::{AboutRoles, Roles};

/// What we say we are: the version whose protocol and catalog clients may rely on.
pub const SERVER_VERSION: &str = concat!("15.0 (Logweir ", env!("CARGO_PKG_VERSION"), ")");

/// In a field's metadata: the object id of the type that clients are told, where Arrow's type does not say it.
pub use crate::format::subtype::KEY as TYPE_KEY;

/// Registers the functions that PostgreSQL's tools call. To be called when all functions that users may call are
/// registered, as it lists them.
pub fn register(engine: &Arc<Engine>) -> Result<()> {
    let context = engine.context();
    let roles = Roles(Arc::downgrade(engine));
    engine.set_functions(functions::list(&context.state()));
    setup_pg_catalog(context, engine.database(), roles.clone()).map_err(|err| Error::from(*err))?;
    context.register_udf(ScalarUDF::from(format::Format::default()));
    context.register_udf(ScalarUDF::from(TypeOf(Signature::any(1, Volatility::Immutable))));
    for (name, question) in roles::FUNCTIONS {
        context.register_udf(ScalarUDF::from(AboutRoles::new(name, *question, roles.clone())));
    }
    for (name, value) in constants() {
        context.register_udf(ScalarUDF::from(Constant { name, value, signature: any_arguments() }));
    }
    Ok(())
}

/// Functions that have the same answer for all arguments here.
fn constants() -> Vec<(&'static str, ScalarValue)> {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_string()));
    let started = ScalarValue::TimestampMicrosecond(Some(Clock::system().now()), Some(UTC.into()));
    let mut constants = vec![
        ("version", text(&format!("PostgreSQL {SERVER_VERSION}"))),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        // Every function may be called by all.
        ("has_function_privilege", ScalarValue::Boolean(Some(true))),
        ("pg_my_temp_schema", ScalarValue::Int32(Some(0))),
        ("pg_client_encoding", text("UTF8")),
        // The only one that is spoken.
        ("pg_encoding_to_char", text("UTF8")),
        ("getdatabaseencoding", text("UTF8")),
        ("pg_char_to_encoding", ScalarValue::Int32(Some(6))),
        ("pg_postmaster_start_time", started.clone()),
        ("pg_conf_load_time", started),
        ("inet_server_addr", ScalarValue::Utf8(None)),
        ("inet_server_port", ScalarValue::Int32(None)),
        // Statements take effect one by one: there are no transactions to count.
        ("txid_current", ScalarValue::Int64(Some(1))),
        // Who does not get a lock is told so at once: nobody waits.
        ("pg_blocking_pids", ScalarValue::List(ScalarValue::new_list_nullable(&[], &DataType::Int32))),
    ];
    // What is listed is on the search path.
    let visible = [
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_opclass_is_visible",
        "pg_operator_is_visible",
        "pg_opfamily_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
        "pg_type_is_visible",
    ];
    constants.extend(visible.map(|name| (name, ScalarValue::Boolean(Some(true)))));
    // Nothing has comments, indexes, triggers or a size of its own on disk.
    let nothing = [
        "col_description",
        "obj_description",
        "pg_advisory_unlock_all",
        "pg_get_function_sqlbody",
        "pg_get_constraintdef",
        "pg_get_expr",
        "pg_get_functiondef",
        "pg_get_indexdef",
        "pg_get_partkeydef",
        "pg_get_ruledef",
        "pg_get_serial_sequence",
        "pg_get_triggerdef",
        "pg_get_viewdef",
        "pg_tablespace_location",
        "shobj_description",
    ];
    constants.extend(nothing.map(|name| (name, ScalarValue::Utf8(None))));
    let sizes = ["pg_database_size", "pg_indexes_size", "pg_table_size", "pg_tablespace_size"];
    constants.extend(sizes.map(|name| (name, ScalarValue::Int64(None))));
    constants
}

/// The owner of everything.
pub const ROLE: &str = "logweir";

/// Any number of arguments of any types.
fn any_arguments() -> Signature {
    Signature::new(TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]), Volatility::Stable)
}

/// A function that always gives the same value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// `pg_typeof`: the name of the argument's type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf(Signature);

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let name = arguments.arg_fields.first().map(|field| base::type_text(snapshot::of_data(field.data_type())));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(name)))
    }
}
