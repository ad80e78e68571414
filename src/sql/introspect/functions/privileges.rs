//! The functions that ask who may do what. What is allowed is not decided here: tools ask in order to show or to hide
//! something.

use super::super::run::Run;
use super::{Of, Scalar};
use crate::catalog::postgres::ROLE;
use crate::catalog::postgres::roles::Roles;
use crate::catalog::postgres::value::{Value, types};
use crate::error::Result;
use std::sync::Arc;

macro_rules! privilege {
    ($name:literal, $count:expr, $value:expr) => {
        Scalar { name: $name, count: $count, arguments: &[0], of: Of::Is(types::BOOL), strict: true, value: $value }
    };
}

pub static SCALARS: &[Scalar] = &[
    privilege!("has_table_privilege", (2, 3), on_relation),
    privilege!("has_any_column_privilege", (2, 3), on_relation),
    privilege!("has_column_privilege", (3, 4), on_column),
    privilege!("has_sequence_privilege", (2, 3), always),
    privilege!("has_schema_privilege", (2, 3), on_schema),
    privilege!("has_database_privilege", (2, 3), on_schema),
    privilege!("has_function_privilege", (2, 3), always),
    privilege!("has_language_privilege", (2, 3), always),
    privilege!("has_type_privilege", (2, 3), always),
    privilege!("has_tablespace_privilege", (2, 3), on_schema),
    privilege!("has_server_privilege", (2, 3), always),
    privilege!("has_foreign_data_wrapper_privilege", (2, 3), always),
    privilege!("pg_has_role", (2, 3), of_role),
];

/// The name of the role that is asked about; of the session's where none is given.
fn role(run: &Run<'_>, value: Option<&Value>) -> Result<String> {
    Ok(match value {
        Some(Value::Int(oid)) => {
            let name = run.get("pg_authid", "oid", &Value::Int(*oid), "rolname")?;
            name.and_then(|name| name.as_str().map(str::to_string)).unwrap_or_default()
        }
        Some(Value::Text(name)) => name.to_string(),
        _ => run.session.user().unwrap_or_else(|| ROLE.to_string()),
    })
}

fn roles(run: &Run<'_>) -> Roles {
    Roles(Arc::downgrade(run.session.engine()))
}

/// Whoever was let in without a password may do everything, as nobody has to say who they are.
fn is_admin(run: &Run<'_>, name: &str) -> bool {
    name == ROLE || run.session.engine().roles(|roles| roles.is_empty() || roles.is_admin(name))
}

fn may(run: &Run<'_>, role: &str, relation: &Value, privileges: &str) -> Result<Value> {
    let found = match relation {
        Value::Int(oid) => run.snapshot.relation(*oid as u32),
        value => {
            let parts = super::super::text::name_parts(value.as_str().unwrap_or_default());
            match parts.as_slice() {
                [name] => run.snapshot.relation_named(None, name),
                [.., schema, name] => run.snapshot.relation_named(Some(schema), name),
                [] => None,
            }
        }
    };
    let Some(relation) = found else {
        return match relation {
            Value::Int(_) => Ok(Value::Null),
            value => {
                let name = value.as_str().unwrap_or_default();
                let message = format!("relation \"{name}\" does not exist");
                Err(crate::error::Error::new(crate::error::Kind::UndefinedTable, message))
            }
        };
    };
    if is_admin(run, role) {
        return Ok(Value::Bool(true));
    }
    // PostgreSQL's catalogs, which clients cannot do without, may be read by everybody.
    if relation.schema == "pg_catalog" || relation.schema == "information_schema" {
        return Ok(Value::Bool(privileges.to_uppercase().contains("SELECT")));
    }
    Ok(Value::Bool(roles(run).may(role, &format!("{}.{}", relation.schema, relation.name), privileges)))
}

fn on_relation(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let (who, rest) = if arguments.len() == 3 { (Some(&arguments[0]), &arguments[1..]) } else { (None, arguments) };
    may(run, &role(run, who)?, &rest[0], rest[1].as_str().unwrap_or_default())
}

fn on_column(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let (who, rest) = if arguments.len() == 4 { (Some(&arguments[0]), &arguments[1..]) } else { (None, arguments) };
    may(run, &role(run, who)?, &rest[0], rest[2].as_str().unwrap_or_default())
}

/// Schemas and databases may be used by everybody, and filled by administrators.
fn on_schema(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let who = if arguments.len() == 3 { Some(&arguments[0]) } else { None };
    let privileges = arguments.last().and_then(Value::as_str).unwrap_or_default().to_uppercase();
    let creates = privileges.contains("CREATE") || privileges.contains("TEMP");
    Ok(Value::Bool(!creates || is_admin(run, &role(run, who)?)))
}

fn always(_: &Run<'_>, _: &[Value]) -> Result<Value> {
    Ok(Value::Bool(true))
}

fn of_role(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let (who, other) = if arguments.len() == 3 { (Some(&arguments[0]), &arguments[1]) } else { (None, &arguments[0]) };
    let (name, other) = (role(run, who)?, role(run, Some(other))?);
    let is =
        name == other || is_admin(run, &name) || run.session.engine().roles(|roles| roles.is_member(&name, &other));
    Ok(Value::Bool(is))
}
