//! The roles as `pg_roles`, `\du` and `\dp` show them, and `has_table_privilege`. What is allowed is not decided here: that is
//! `sql::privileges`; tools ask in order to show or to hide something.

use std::fmt;
use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion_pg_catalog::pg_catalog::context::{PgCatalogContextProvider, Role};

use super::ROLE;
use crate::access::{self, PREDEFINED, Privilege, Relation};
use crate::engine::{Engine, PUBLIC};

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

    /// Whether a role has one of some privileges, such as `SELECT, INSERT WITH GRANT OPTION`.
    pub fn may(&self, role: &str, table: &str, privileges: &str) -> bool {
        let Some(engine) = self.0.upgrade() else { return true };
        let table = table.replace('"', "");
        let (schema, name) = table.rsplit_once('.').unwrap_or((PUBLIC, &table));
        let relation = engine.privileges_of(Relation { schema: schema.to_string(), name: name.to_string() });
        engine.roles(|roles| {
            let has = |word: &str| match Privilege::ALL.into_iter().find(|p| word.eq_ignore_ascii_case(p.word())) {
                Some(privilege) => roles.may(role, privilege, &relation),
                None => roles.is_admin(role),
            };
            roles.is_empty()
                || privileges.split(',').any(|text| has(text.split_whitespace().next().unwrap_or_default()))
        })
    }
}

impl Roles {
    /// `alice=ar/logweir`, one a line (PostgreSQL manual, "Privileges"); `None` where nobody was given any.
    pub fn access_list(&self, schema: &str, name: &str) -> Option<String> {
        let relation = Relation { schema: schema.to_string(), name: name.to_string() };
        let letter = |(privilege, letter): (Privilege, char), role: &access::Role| {
            role.grants.contains(&(relation.clone(), privilege)).then_some(letter)
        };
        let lines: Vec<String> = self.0.upgrade()?.roles(|roles| {
            let line = |(name, role): (&str, &access::Role)| {
                let known = [(Privilege::Insert, 'a'), (Privilege::Select, 'r')];
                let letters: String = known.into_iter().filter_map(|one| letter(one, role)).collect();
                (!letters.is_empty()).then(|| format!("{name}={letters}/{ROLE}"))
            };
            roles.roles().filter_map(line).collect()
        });
        (!lines.is_empty()).then(|| lines.join("\n"))
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

/// What the session's functions about roles answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// `has_table_privilege(role, table, privileges)`; the session puts the role in where it is left out. A table given by
    /// its object id counts as readable: reading it tells.
    HasPrivilege,
    /// `logweir_acl(schema, table)`: what PostgreSQL keeps in `pg_class.relacl`, as psql's `\dp` prints it.
    AccessList,
}

/// The functions, by name.
pub const FUNCTIONS: &[(&str, Question)] = &[
    ("has_table_privilege", Question::HasPrivilege),
    ("has_any_column_privilege", Question::HasPrivilege),
    ("logweir_acl", Question::AccessList),
];

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
        Ok(match self.question {
            Question::HasPrivilege => DataType::Boolean,
            Question::AccessList => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let text = |value: &ColumnarValue| -> DataFusionResult<ArrayRef> {
            Ok(cast(&value.clone().into_array(rows)?, &DataType::Utf8)?)
        };
        let answers: ArrayRef = match (self.question, arguments.args.as_slice()) {
            (Question::HasPrivilege, [role, table, privileges]) if !table.data_type().is_integer() => {
                let (role, table, privileges) = (text(role)?, text(table)?, text(privileges)?);
                let (role, table) = (role.as_string::<i32>(), table.as_string::<i32>());
                let asked = role.iter().zip(table).zip(privileges.as_string::<i32>());
                let answer = |((role, table), privileges): ((Option<&str>, Option<&str>), Option<&str>)| {
                    Some(self.roles.may(role?, table?, privileges?))
                };
                Arc::new(asked.map(answer).collect::<BooleanArray>())
            }
            // The engine itself asks: it may.
            (Question::HasPrivilege, _) => Arc::new(BooleanArray::from(vec![true; rows])),
            (Question::AccessList, [schema, table]) => {
                let (schema, table) = (text(schema)?, text(table)?);
                let asked = schema.as_string::<i32>().iter().zip(table.as_string::<i32>());
                Arc::new(asked.map(|(schema, table)| self.roles.access_list(schema?, table?)).collect::<StringArray>())
            }
            (Question::AccessList, _) => Arc::new(StringArray::new_null(rows)),
        };
        Ok(ColumnarValue::Array(answers))
    }
}
