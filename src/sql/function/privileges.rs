//! `has_table_privilege` and the like (PostgreSQL manual, Access Privilege Inquiry Functions): tools ask in order to show or
//! to hide something. What is allowed is not decided here: that is `sql::privileges`.
//!
//! Roles, relations and the rest are given by their names or their object ids, and the role may be left out. As in
//! PostgreSQL a name that is not known is an error, and an id that is not known gives NULL.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::logical_expr::Volatility;
use futures::FutureExt;

use super::session::{Call, Spec, Takes};
use crate::access::{Actor, Privilege, Relation};
use crate::catalog::postgres::ROLE;
use crate::catalog::postgres::base::base;
use crate::catalog::postgres::snapshot::Relation as Listed;
use crate::catalog::postgres::value::Row;
use crate::engine::{Engine, PUBLIC, SYSTEM};
use crate::error::{Error, Kind, Result};
use crate::sql::Session;
use crate::sql::parser::{parser, syntax};
use crate::sql::privileges::relation_of;

/// The functions.
pub static FUNCTIONS: &[Spec] = &[
    question("has_table_privilege", &[2, 3], |call| answers(call, 1, table)),
    question("has_any_column_privilege", &[2, 3], |call| answers(call, 1, table)),
    question("has_column_privilege", &[3, 4], |call| answers(call, 2, column)),
    question("has_schema_privilege", &[2, 3], |call| answers(call, 1, schema)),
    question("has_database_privilege", &[2, 3], |call| answers(call, 1, database)),
    question("pg_has_role", &[2, 3], |call| answers(call, 1, membership)),
];

const fn question(name: &'static str, counts: &'static [usize], rows: fn(&Call) -> Result<ArrayRef>) -> Spec {
    Spec { name, takes: Takes::Names(counts), result: DataType::Boolean, volatility: Volatility::Stable, rows }
}

/// What object ids stand for.
#[derive(Default)]
pub struct Names {
    relations: HashMap<i64, Relation>,
    schemas: HashMap<i64, String>,
    databases: HashMap<i64, String>,
}

impl Names {
    /// As `pg_catalog` has them now.
    pub fn of(engine: &Arc<Engine>) -> Names {
        let snapshot = engine.catalog_snapshot();
        let relation = |relation: &Listed| {
            let (schema, name) = (relation.schema.clone(), relation.name.clone());
            (i64::from(relation.oid), Relation { schema, name })
        };
        let named = |table: &str, column: &str| -> HashMap<i64, String> {
            let Some((at, system)) = base().relation("pg_catalog", table) else { return HashMap::new() };
            let (Some(oid), Some(name)) = (system.column("oid"), system.column(column)) else { return HashMap::new() };
            let rows = snapshot.rows(engine, at);
            let one = |row: &Row| Some((row[oid].as_int()?, row[name].as_str()?.to_string()));
            rows.rows().iter().filter_map(one).collect()
        };
        Names {
            relations: snapshot.relations().map(relation).collect(),
            schemas: named("pg_namespace", "nspname"),
            databases: named("pg_database", "datname"),
        }
    }
}

/// An argument in one row.
enum Given<'a> {
    Name(&'a str),
    Id(i64),
}

/// One row of a call whose arguments are all there: for whom, about what, and which privileges.
struct Asked<'a> {
    engine: &'a Engine,
    names: &'a Names,
    actor: Actor,
    objects: Vec<Given<'a>>,
    privileges: Vec<Wanted>,
}

/// A privilege by its word, perhaps with the right to hand it on.
struct Wanted {
    word: String,
    grant_option: bool,
}

/// The answers for all rows: NULL where an argument is, or where an object id means nothing. `objects`: how many arguments
/// say what is asked about, between the role and the privileges.
fn answers(call: &Call, objects: usize, answer: fn(&Asked) -> Result<Option<bool>>) -> Result<ArrayRef> {
    let with_role = call.arguments.len() == objects + 2;
    let given = |at: usize, row: usize| -> Option<Given<'_>> {
        let array = &call.arguments[at];
        if array.is_null(row) {
            return None;
        }
        Some(match array.as_string_opt::<i32>() {
            Some(texts) => Given::Name(texts.value(row)),
            None => Given::Id(array.as_primitive::<Int64Type>().value(row)),
        })
    };
    let one = |row: usize| -> Result<Option<bool>> {
        let Some(all) = (0..call.arguments.len()).map(|at| given(at, row)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let mut all = all.into_iter();
        let role = if with_role { all.next() } else { None };
        let engine = call.session.engine();
        let actor = match role {
            None => call.session.actor(),
            Some(given) => match role_of(engine, call.session, &given)? {
                Some(actor) => actor,
                None => return Ok(None),
            },
        };
        let objects: Vec<Given<'_>> = all.by_ref().take(objects).collect();
        let privileges = match all.next() {
            Some(Given::Name(words)) => wanted(words),
            Some(Given::Id(_)) | None => return Err(unknown_privilege("")),
        };
        answer(&Asked { engine, names: call.names, actor, objects, privileges })
    };
    Ok(Arc::new((0..call.rows).map(one).collect::<Result<BooleanArray>>()?))
}

/// For whom a question is asked; `None`: nobody has this id.
fn role_of(engine: &Engine, session: &Session, given: &Given<'_>) -> Result<Option<Actor>> {
    let everything = |name: &str| engine.roles(|roles| roles.get(name).is_none() && (name == ROLE || roles.is_empty()));
    match given {
        Given::Name(name) if everything(name) => Ok(Some(Actor::everything())),
        // Who came in before there were roles.
        Given::Name(name) if session.user().as_deref() == Some(*name) => Ok(Some(session.actor())),
        Given::Name(name) => {
            engine.roles(|roles| match roles.get(name).is_some() || crate::access::is_predefined(name) {
                true => Ok(Some(Actor::of(name))),
                false => Err(roles.unknown(name)),
            })
        }
        Given::Id(id) => {
            let name = engine.role_with_id(*id);
            Ok(name.map(|name| if everything(&name) { Actor::everything() } else { Actor::of(&name) }))
        }
    }
}

/// `SELECT, insert WITH GRANT OPTION`.
fn wanted(text: &str) -> Vec<Wanted> {
    let one = |text: &str| {
        let upper = text.trim().to_ascii_uppercase();
        let bare = [" WITH GRANT OPTION", " WITH ADMIN OPTION"].iter().find_map(|option| upper.strip_suffix(option));
        Wanted { word: bare.unwrap_or(&upper).trim().to_string(), grant_option: bare.is_some() }
    };
    text.split(',').map(one).collect()
}

fn unknown_privilege(word: &str) -> Error {
    Error::new(Kind::InvalidParameter, format!("unrecognized privilege type: \"{word}\""))
}

impl Asked<'_> {
    /// Whether one of the privileges is there: each has to be one of `known`.
    fn any(&self, known: &[&str], has: impl Fn(&Wanted) -> bool) -> Result<Option<bool>> {
        if let Some(unknown) = self.privileges.iter().find(|wanted| !known.contains(&wanted.word.as_str())) {
            return Err(unknown_privilege(&unknown.word));
        }
        Ok(Some(self.privileges.iter().any(has)))
    }

    fn is_admin(&self) -> bool {
        self.actor.role().is_none_or(|role| self.engine.roles(|roles| roles.is_admin(role)))
    }

    /// The relation that is asked about, if its id means one.
    fn relation(&self) -> Result<Option<Relation>> {
        match self.objects.first() {
            Some(Given::Id(id)) => Ok(self.names.relations.get(id).cloned()),
            Some(Given::Name(text)) => {
                let mut parser = parser(text)?;
                let relation = relation_of(&parser.parse_object_name(false).map_err(|err| syntax(&err))?)?;
                let known =
                    |schema: &str| self.names.relations.values().any(|r| r.name == relation.name && r.schema == schema);
                match known(&relation.schema) {
                    true => Ok(Some(relation)),
                    // Without a schema it may be one of PostgreSQL's catalogs.
                    false if !text.contains('.') && known("pg_catalog") => {
                        Ok(Some(Relation { schema: "pg_catalog".to_string(), ..relation }))
                    }
                    false => Err(Error::new(Kind::UndefinedTable, format!("relation \"{text}\" does not exist"))),
                }
            }
            None => Ok(None),
        }
    }

    fn may(&self, relation: &Relation, wanted: &Wanted) -> bool {
        let Some(role) = self.actor.role() else { return true };
        let owns = self.is_admin() || self.engine.owns_relation(&self.actor, relation);
        let privilege = Privilege::OF_RELATIONS.into_iter().find(|privilege| privilege.word() == wanted.word);
        match privilege.filter(|_| !wanted.grant_option) {
            Some(Privilege::Select) if ![PUBLIC, SYSTEM].contains(&relation.schema.as_str()) => true,
            Some(privilege) => self.engine.may(role, privilege, relation),
            None => owns,
        }
    }
}

const OF_TABLES: [&str; 8] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"];

fn table(asked: &Asked) -> Result<Option<bool>> {
    let Some(relation) = asked.relation()? else { return Ok(None) };
    asked.any(&OF_TABLES, |wanted| asked.may(&relation, wanted))
}

fn column(asked: &Asked) -> Result<Option<bool>> {
    let Some(relation) = asked.relation()? else { return Ok(None) };
    let Some(table) = provider(asked.engine, &relation) else { return Ok(None) };
    let schema = table.schema();
    match asked.objects.get(1) {
        Some(Given::Name(name)) if schema.index_of(name).is_err() => {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", relation.name);
            return Err(Error::new(Kind::UndefinedColumn, message));
        }
        Some(Given::Id(number)) if !(1..=schema.fields().len() as i64).contains(number) => return Ok(None),
        Some(_) | None => {}
    }
    asked.any(&["SELECT", "INSERT", "UPDATE", "REFERENCES"], |wanted| asked.may(&relation, wanted))
}

/// A relation of the server; those of ours are in memory, and nothing has to be waited for.
fn provider(engine: &Engine, relation: &Relation) -> Option<Arc<dyn TableProvider>> {
    let schema: Arc<dyn SchemaProvider> = engine.context().catalog(engine.database())?.schema(&relation.schema)?;
    schema.table(&relation.name).now_or_never()?.ok()?
}

fn schema(asked: &Asked) -> Result<Option<bool>> {
    let name = match asked.objects.first() {
        Some(Given::Name(name)) if !asked.names.schemas.values().any(|known| known == name) => {
            return Err(Error::new(Kind::UndefinedSchema, format!("schema \"{name}\" does not exist")));
        }
        Some(Given::Name(name)) => name.to_string(),
        Some(Given::Id(id)) => match asked.names.schemas.get(id) {
            Some(name) => name.clone(),
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    let creates = asked.is_admin()
        || name == PUBLIC && asked.actor.role().is_some_and(|role| asked.engine.roles(|roles| roles.may_create(role)));
    asked.any(&["CREATE", "USAGE"], |wanted| match (wanted.word.as_str(), wanted.grant_option) {
        ("USAGE", false) => true,
        ("CREATE", false) => creates,
        _ => asked.is_admin(),
    })
}

fn database(asked: &Asked) -> Result<Option<bool>> {
    match asked.objects.first() {
        Some(Given::Name(name)) if !asked.names.databases.values().any(|known| known == name) => {
            return Err(Error::new(Kind::UndefinedDatabase, format!("database \"{name}\" does not exist")));
        }
        Some(Given::Id(id)) if !asked.names.databases.contains_key(id) => return Ok(None),
        Some(_) | None => {}
    }
    asked.any(&["CREATE", "CONNECT", "TEMPORARY", "TEMP"], |wanted| {
        asked.is_admin() || (wanted.word == "CONNECT" && !wanted.grant_option)
    })
}

/// Whether the role is, or is a member of, another.
fn membership(asked: &Asked) -> Result<Option<bool>> {
    let other = match asked.objects.first() {
        Some(Given::Name(name)) => {
            let known = asked.engine.roles(|roles| match roles.get(name).is_some() || *name == ROLE {
                true => Ok(()),
                false if crate::access::is_predefined(name) => Ok(()),
                false => Err(roles.unknown(name)),
            });
            known?;
            name.to_string()
        }
        Some(Given::Id(id)) => match asked.engine.role_with_id(*id) {
            Some(name) => name,
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    let is_member = asked.is_admin()
        || asked
            .actor
            .role()
            .is_some_and(|role| role == other || asked.engine.roles(|roles| roles.is_member(role, &other)));
    asked.any(&["MEMBER", "USAGE", "SET"], |wanted| if wanted.grant_option { asked.is_admin() } else { is_member })
}
