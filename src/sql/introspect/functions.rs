//! Which functions can queries of the catalog call? The tables of them: [`SCALARS`] of those that give a value (about objects
//! in [`objects`], on texts and lists in [`values`]), [`SETS`] of those that give rows, and those whose answer is the same for
//! everything here.

mod objects;
mod privileges;
mod sets;
mod values;

use super::run::Run;
use crate::catalog::postgres::SERVER_VERSION;
use crate::catalog::postgres::base::base;
use crate::catalog::postgres::value::{Row, Value, types};
use crate::error::Result;

/// `integer[]`.
const INTEGERS: u32 = 1007;

/// The type of a result.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    Is(u32),
    /// That of the first argument.
    First,
    /// That which all arguments have together.
    Common,
}

/// A function that gives a value.
pub struct Scalar {
    pub name: &'static str,
    /// How many arguments it takes, from and to.
    pub count: (usize, usize),
    /// The types that its arguments are made into; 0 leaves one as it is. The last counts for all that follow.
    pub arguments: &'static [u32],
    pub of: Of,
    /// NULL where an argument is.
    pub strict: bool,
    pub value: fn(&Run<'_>, &[Value]) -> Result<Value>,
}

impl std::fmt::Debug for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A function that gives rows.
pub struct Set {
    pub name: &'static str,
    pub count: (usize, usize),
    /// As of [`Scalar`].
    pub arguments: &'static [u32],
    /// Names and types of its columns; 0: the element of the list that it is given, or the type of what it is given.
    pub of: Columns,
    pub rows: fn(&Run<'_>, &[Value]) -> Result<Vec<Row>>,
}

/// The columns of a function that gives rows.
pub enum Columns {
    These(&'static [(&'static str, u32)]),
    /// Those of a relation of the catalog.
    Relation(&'static str, &'static str),
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Set {
    /// Whether it gives values and not rows of several.
    pub fn is_single(&self) -> bool {
        matches!(self.of, Columns::These([_]))
    }

    pub fn columns(&self) -> Vec<(String, u32)> {
        match self.of {
            Columns::These(columns) => columns.iter().map(|(name, of)| (name.to_string(), *of)).collect(),
            Columns::Relation(schema, name) => {
                let columns = base().relation(schema, name).map(|(_, system)| &system.columns);
                columns.into_iter().flatten().map(|column| (column.name.clone(), column.of)).collect()
            }
        }
    }
}

fn takes(count: (usize, usize), given: usize) -> bool {
    count.0 <= given && given <= count.1
}

/// The function of a name that takes so many arguments.
pub fn scalar(name: &str, given: usize) -> Option<&'static Scalar> {
    let mut all = objects::SCALARS.iter().chain(privileges::SCALARS).chain(values::SCALARS);
    all.find(|function| function.name == name && takes(function.count, given))
}

/// The same of those that give rows.
pub fn set(name: &str, given: usize) -> Option<&'static Set> {
    sets::SETS.iter().find(|function| function.name == name && takes(function.count, given))
}

/// Whether a function is about the catalog: a query that calls it is, too.
pub fn is_of_catalog(name: &str) -> bool {
    const OTHERS: [&str; 16] = [
        "current_schema",
        "current_database",
        "obj_description",
        "col_description",
        "shobj_description",
        "format_type",
        "current_schemas",
        "to_regclass",
        "to_regtype",
        "to_regnamespace",
        "to_regrole",
        "to_regproc",
        "quote_ident",
        "acldefault",
        "aclexplode",
        "ts_token_type",
    ];
    // These belong to a connection, and may do something.
    const NOT: [&str; 6] =
        ["pg_notify", "pg_cancel_backend", "pg_terminate_backend", "pg_typeof", "pg_sleep", "pg_backend_pid"];
    (name.starts_with("pg_") && !NOT.contains(&name))
        || name.starts_with("_pg_")
        || (name.starts_with("has_") && name.ends_with("_privilege"))
        || OTHERS.contains(&name)
}

/// Functions that answer the same whatever they are asked.
pub fn answer(name: &str, given: usize) -> Option<(Value, u32)> {
    Some(match name {
        "version" => (Value::text(format!("PostgreSQL {SERVER_VERSION}")), types::TEXT),
        "pg_is_in_recovery" | "pg_is_wal_replay_paused" | "pg_is_other_temp_schema" | "pg_jit_available" => {
            (Value::Bool(false), types::BOOL)
        }
        "pg_my_temp_schema" => (Value::Int(0), types::OID),
        "pg_client_encoding" | "getdatabaseencoding" => (Value::text("UTF8"), types::NAME),
        "inet_server_addr" => (Value::Null, types::INET),
        "inet_server_port" => (Value::Null, types::INT4),
        // Statements take effect one by one: there are no transactions to count.
        "txid_current" => (Value::Int(1), types::INT8),
        "pg_get_function_sqlbody"
        | "pg_get_function_arg_default"
        | "pg_get_triggerdef"
        | "pg_get_partkeydef"
        | "pg_get_serial_sequence"
        | "pg_get_statisticsobjdef"
        | "pg_get_statisticsobjdef_columns"
        | "pg_get_partition_constraintdef"
        | "pg_get_statisticsobjdef_expressions" => (Value::Null, types::TEXT),
        // Who does not get a lock is told so at once: nobody waits.
        "pg_blocking_pids" | "pg_safe_snapshot_blocking_pids" => (Value::list(Vec::new()), INTEGERS),
        "pg_tablespace_location" => (Value::text(""), types::TEXT),
        // The log is the service manager's, and files of the server are not shown.
        "pg_current_logfile" => (Value::Null, types::TEXT),
        "pg_stat_file" => (Value::Null, types::RECORD),
        "pg_get_replica_identity_index" => (Value::Null, types::REGCLASS),
        "pg_column_is_updatable" => (Value::Bool(false), types::BOOL),
        "pg_sequence_last_value" => (Value::Null, types::INT8),
        // Nothing of this is counted.
        name if name.starts_with("pg_stat_get_") => {
            let of = result_of(name, given)?;
            let value = if of == types::INT8 || of == types::FLOAT8 { Value::Int(0) } else { Value::Null };
            (value, of)
        }
        // What is listed is on the search path.
        name if name.starts_with("pg_") && name.ends_with("_is_visible") => (Value::Bool(true), types::BOOL),
        _ => return None,
    })
}

/// What PostgreSQL's function of a name gives.
fn result_of(name: &str, given: usize) -> Option<u32> {
    let (_, system) = base().relation("pg_catalog", "pg_proc")?;
    let index = system.rows.index(system.column("proname")?);
    let (count, result) = (system.column("pronargs")?, system.column("prorettype")?);
    let mut rows = index.get(&Value::text(name))?.iter().map(|at| &system.rows.rows()[*at as usize]);
    let row = rows.find(|row| row[count].as_int() == Some(given as i64))?;
    row[result].as_int().map(|of| of as u32).filter(|of| *of != types::RECORD)
}
