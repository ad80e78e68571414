//! The roles as `pg_roles`, `\du` and `\dp` show them, and who owns what. What is allowed is not decided here: that is
//! `sql::privileges`; whether somebody may is answered by `sql::function::privileges`.

use std::fmt;
use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion_pg_catalog::pg_catalog::context::{PgCatalogContextProvider, Role};

use super::ROLE;
use crate::access::{self, PREDEFINED, Relation, object_id};
use crate::engine::Engine;

/// The roles of an engine, which owns what this is part of.
#[derive(Clone)]
pub struct Roles(pub Weak<Engine>);

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roles")
    }
}

fn row(name: &str, is_superuser: bool, can_login: bool) -> Role {
    Role {
        name: name.to_string(),
        is_superuser,
        can_login,
        can_create_db: false,
        can_create_role: is_superuser,
        can_create_user: is_superuser,
        can_replication: false,
        grants: Vec::new(),
        inherited_roles: Vec::new(),
    }
}

impl Roles {
    /// The owner of everything, in whose name everybody comes in while there are no roles; then those that there are.
    pub fn rows(&self) -> Vec<Role> {
        let Some(engine) = self.0.upgrade() else { return vec![row(ROLE, true, true)] };
        engine.roles(|roles| {
            let mut rows = Vec::new();
            if roles.get(ROLE).is_none() {
                rows.push(row(ROLE, true, roles.is_empty()));
            }
            rows.extend(roles.roles().map(|(name, role)| row(name, role.admin, role.login)));
            if !roles.is_empty() {
                rows.extend(PREDEFINED.iter().map(|(name, _)| row(name, false, false)));
            }
            rows
        })
    }

    /// The memberships: a role, and who is a member of it.
    pub fn members(&self) -> Vec<(String, String)> {
        let Some(engine) = self.0.upgrade() else { return Vec::new() };
        engine.roles(|roles| {
            let of = |(name, role): (&str, &access::Role)| -> Vec<(String, String)> {
                role.member_of.iter().map(|group| (group.clone(), name.to_string())).collect()
            };
            roles.roles().flat_map(of).collect()
        })
    }

    /// What PostgreSQL keeps in `pg_class.relacl`, one a line; `None` where nobody was given any.
    pub fn access_list(&self, schema: &str, name: &str) -> Option<String> {
        let relation = Relation { schema: schema.to_string(), name: name.to_string() };
        Some(self.0.upgrade()?.access_list(&relation)?.join("\n"))
    }

    /// The name of a relation's owner.
    pub fn owner_of(&self, schema: &str, name: &str) -> String {
        let relation = Relation { schema: schema.to_string(), name: name.to_string() };
        self.0.upgrade().map_or_else(|| ROLE.to_string(), |engine| engine.owner_of(&relation))
    }

    /// The name of the role with an object id; PostgreSQL's words for one that is not there.
    fn name_of(&self, id: i64) -> String {
        let name = self.0.upgrade().and_then(|engine| engine.role_with_id(id));
        name.unwrap_or_else(|| {
            if id == i64::from(object_id(ROLE)) { ROLE.to_string() } else { format!("unknown (OID={id})") }
        })
    }
}

#[async_trait]
impl PgCatalogContextProvider for Roles {
    async fn roles(&self) -> Vec<String> {
        self.rows().into_iter().map(|role| role.name).collect()
    }

    async fn role(&self, name: &str) -> Option<Role> {
        let known = self.rows().into_iter().find(|role| role.name == name);
        Some(known.unwrap_or_else(|| row(name, false, false)))
    }
}

/// What the functions about roles answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// `logweir_acl(schema, table)`: what PostgreSQL keeps in `pg_class.relacl`, as psql's `\dp` prints it.
    AccessList,
    /// `pg_get_userbyid(role)`.
    UserName,
}

/// The functions, by name.
pub const FUNCTIONS: &[(&str, Question)] =
    &[("logweir_acl", Question::AccessList), ("pg_get_userbyid", Question::UserName)];

/// One of [`FUNCTIONS`].
pub struct AboutRoles {
    name: &'static str,
    question: Question,
    roles: Roles,
    signature: Signature,
}

impl AboutRoles {
    pub fn new(name: &'static str, question: Question, roles: Roles) -> AboutRoles {
        AboutRoles { name, question, roles, signature: Signature::variadic_any(Volatility::Volatile) }
    }
}

impl fmt::Debug for AboutRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// There is one of each name in a session.
impl PartialEq for AboutRoles {
    fn eq(&self, other: &AboutRoles) -> bool {
        self.name == other.name
    }
}

impl Eq for AboutRoles {}

impl std::hash::Hash for AboutRoles {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for AboutRoles {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let text = |value: &ColumnarValue| -> DataFusionResult<ArrayRef> {
            Ok(cast(&value.clone().into_array(rows)?, &DataType::Utf8)?)
        };
        let answers: ArrayRef = match (self.question, arguments.args.as_slice()) {
            (Question::UserName, [role]) => {
                let ids = cast(&role.clone().into_array(rows)?, &DataType::Int64)?;
                let names = ids.as_primitive::<Int64Type>().iter().map(|id| id.map(|id| self.roles.name_of(id)));
                Arc::new(names.collect::<StringArray>())
            }
            (Question::AccessList, [schema, table]) => {
                let (schema, table) = (text(schema)?, text(table)?);
                let asked = schema.as_string::<i32>().iter().zip(table.as_string::<i32>());
                Arc::new(asked.map(|(schema, table)| self.roles.access_list(schema?, table?)).collect::<StringArray>())
            }
            (Question::AccessList | Question::UserName, _) => Arc::new(StringArray::new_null(rows)),
        };
        Ok(ColumnarValue::Array(answers))
    }
}
