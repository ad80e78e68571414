//! What stands in the catalog now? The rows of a new database ([`super::base`]) and those of what this engine has: its
//! relations with their columns, row types, definitions and comments, its roles, its functions.
//!
//! Made once per generation of the engine, however many queries ask. Object ids are made from the numbers that objects
//! have in our catalog, so they stay the same over restarts:
//!
//! ```text
//!     2200               schema public                       16390   schema logweir
//!     17000 + 16 n       the n-th relation of schema logweir
//!     20000 + 128 n + 16 c   object n; c: what stands beside it (rejected rows, late rows)
//!             + 1, + 2, + 3  its row type, the array of that, the rule of a view
//!     10, 2^30 …         roles, by their names               2000000000 …   functions
//! ```

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field};
use datafusion::catalog::TableProvider;
use futures::FutureExt;
use parking_lot::Mutex;

use super::base::{Rows, System, base, type_text};
use super::functions::Functions;
use super::roles::Roles;
use super::value::{Row, Value, types};
use super::views;
use crate::access::object_id;
use crate::catalog::system::{self, Value as SystemValue};
use crate::engine::{COMPANIONS, Engine, PUBLIC, SYSTEM};
use crate::format::subtype::Subtype;

/// The schema of system relations.
const SYSTEM_OID: u32 = 16390;
const PUBLIC_OID: u32 = 2200;
/// The database.
pub const DATABASE_OID: u32 = 16384;
const FIRST_SYSTEM: u32 = 17000;
const FIRST_OBJECT: u32 = 20000;
/// Relations that are no object of ours have numbers that go down from here.
const OTHERS: u32 = 1_000_000_000;
/// Owner of everything: PostgreSQL's first role.
pub const ROLE_OID: u32 = 10;
/// `pg_class` and `pg_namespace` as classes of objects that have comments.
const CLASSES: i64 = 1259;
const NAMESPACES: i64 = 2615;
const DATABASES: i64 = 1262;

/// A relation that can be named.
#[derive(Debug)]
pub struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: char,
    pub columns: Vec<Column>,
    /// The query of a view of the catalog.
    pub definition: Option<String>,
    /// The statement that made a view of ours.
    pub statement: Option<String>,
    comment: Option<String>,
    row_type: u32,
}

/// A column of a relation.
#[derive(Debug)]
pub struct Column {
    pub name: String,
    pub of: u32,
    modifier: i32,
    not_null: bool,
}

impl Relation {
    /// As `regclass` writes it: with its schema where that is not on the search path.
    pub fn shown_name(&self) -> String {
        let name = identifier(&self.name);
        match self.schema.as_str() {
            PUBLIC | "pg_catalog" => name,
            schema => format!("{}.{name}", identifier(schema)),
        }
    }
}

/// The last snapshot of an engine.
#[derive(Default)]
pub struct Snapshots {
    last: Mutex<Option<Arc<Snapshot>>>,
    functions: OnceLock<Functions>,
}

/// See the file header.
pub struct Snapshot {
    generation: u64,
    relations: HashMap<u32, Relation>,
    by_name: HashMap<(String, String), u32>,
    /// Of relations of the catalog, by their place in its list; others have the rows of a new database.
    rows: HashMap<usize, Arc<Rows>>,
}

/// Whether the rows of a relation are listed by us, although it is a view in PostgreSQL.
pub fn has_rows(system: &System) -> bool {
    system.schema == "pg_catalog" && views::RELATIONS.iter().any(|relation| relation.name == system.name)
}

/// The definition of a view of the catalog. Materialized views are listed as views in `information_schema`, which
/// PostgreSQL does not do: tools that read nothing else would not find them.
pub fn definition(system: &System) -> Option<String> {
    let text = system.view.as_ref()?;
    if system.schema != "information_schema" {
        return Some(text.clone());
    }
    let text = match system.name.as_str() {
        "tables" => text.replace(
            "WHEN c.relkind = 'v'::\"char\" THEN 'VIEW'::text",
            "WHEN c.relkind IN ('v'::\"char\", 'm'::\"char\") THEN 'VIEW'::text",
        ),
        "views" => text.replace("c.relkind = 'v'::\"char\"", "c.relkind IN ('v'::\"char\", 'm'::\"char\")"),
        _ => text.clone(),
    };
    match system.name.as_str() {
        "tables" | "columns" => Some(text.replace(
            "ARRAY['r'::\"char\", 'v'::\"char\", 'f'::\"char\", 'p'::\"char\"]",
            "ARRAY['r'::\"char\", 'v'::\"char\", 'm'::\"char\", 'f'::\"char\", 'p'::\"char\"]",
        )),
        _ => Some(text),
    }
}

/// A name as SQL writes it, in quotes where it has to be.
pub fn identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !super::keywords::is_reserved(name) {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// The type of a column and its modifier.
pub fn type_of(field: &Field) -> (u32, i32) {
    match field.data_type() {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (types::NUMERIC, ((i32::from(*precision) << 16) | (i32::from(*scale) & 0xffff)) + 4)
        }
        other => (Subtype::of(field).map_or_else(|| of_data(other), |subtype| subtype.oid() as u32), -1),
    }
}

/// The type of an Arrow type.
pub fn of_data(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Boolean => types::BOOL,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => types::INT2,
        DataType::UInt16 | DataType::Int32 => types::INT4,
        DataType::UInt32 | DataType::Int64 => types::INT8,
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => types::NUMERIC,
        DataType::Float32 => types::FLOAT4,
        DataType::Float64 => types::FLOAT8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => types::BYTEA,
        DataType::Date32 | DataType::Date64 => 1082,
        DataType::Time32(_) | DataType::Time64(_) => 1083,
        DataType::Timestamp(_, Some(_)) => types::TIMESTAMPTZ,
        DataType::Timestamp(_, None) => types::TIMESTAMP,
        DataType::Interval(_) | DataType::Duration(_) => types::INTERVAL,
        DataType::Dictionary(_, values) => of_data(values),
        DataType::Struct(_) => types::RECORD,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            base().array_of(of_data(field.data_type())).unwrap_or(types::TEXT)
        }
        _ => types::TEXT,
    }
}

impl Snapshots {
    pub fn set_functions(&self, functions: Functions) {
        let _ = self.functions.set(functions);
    }

    /// The snapshot of the engine as it is now.
    pub fn now(&self, engine: &Engine, roles: &Roles) -> Arc<Snapshot> {
        let generation = engine.generation();
        let mut last = self.last.lock();
        if let Some(snapshot) = last.as_ref().filter(|snapshot| snapshot.generation == generation) {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(Snapshot::new(engine, generation, self.functions.get(), roles));
        *last = Some(Arc::clone(&snapshot));
        snapshot
    }
}

/// All relations that users make or may read, with their object ids.
fn listed(engine: &Engine) -> Vec<Relation> {
    let Some(catalog) = engine.context().catalog(engine.database()) else { return Vec::new() };
    let objects: HashMap<String, crate::catalog::Object> =
        engine.objects().into_iter().map(|object| (object.name.clone(), object)).collect();
    let mut all = Vec::new();
    // What belongs to no object of ours gets numbers behind those that do.
    let mut others = 0;
    for schema in [PUBLIC, SYSTEM] {
        let Some(provider) = catalog.schema(schema) else { continue };
        let mut names = provider.table_names();
        names.sort_unstable();
        for (at, name) in names.into_iter().enumerate() {
            // They are in memory: nothing has to be waited for.
            let Some(Ok(Some(table))) = provider.table(&name).now_or_never() else { continue };
            let place =
                |object: &crate::catalog::Object, part: usize| FIRST_OBJECT + 128 * object.id + 16 * part as u32;
            let oid = if schema == SYSTEM {
                FIRST_SYSTEM + 16 * at as u32
            } else if let Some(object) = objects.get(&name) {
                place(object, 0)
            } else {
                let owner = |(part, suffix): (usize, &str)| {
                    let owner = name.strip_suffix(suffix).and_then(|owner| objects.get(owner));
                    owner.map(|owner| place(owner, part + 1))
                };
                let suffixes = COMPANIONS.iter().map(|(suffix, _)| *suffix).chain([crate::delivery::dead::SUFFIX]);
                suffixes.enumerate().find_map(owner).unwrap_or_else(|| {
                    others += 1;
                    OTHERS - 16 * others
                })
            };
            all.push(relation(engine, schema, name, oid, &table, &objects));
        }
    }
    all
}

fn relation(
    engine: &Engine,
    schema: &str,
    name: String,
    oid: u32,
    table: &Arc<dyn TableProvider>,
    objects: &HashMap<String, crate::catalog::Object>,
) -> Relation {
    let kind = engine.relkind(schema, &name).unwrap_or(if schema == SYSTEM { 'v' } else { 'r' });
    let column = |field: &Arc<Field>| {
        let (of, modifier) = type_of(field);
        Column { name: field.name().clone(), of, modifier, not_null: !field.is_nullable() && kind == 'r' }
    };
    let columns = table.schema().fields().iter().map(column).collect();
    let object = objects.get(&name).filter(|_| schema == PUBLIC);
    let statement = object.filter(|_| kind != 'r').map(|object| object.sql.clone());
    let comment = match schema {
        SYSTEM => system::RELATIONS.iter().find(|r| r.name == name).map(|r| r.summary.to_string()),
        _ => None,
    };
    Relation {
        oid,
        schema: schema.to_string(),
        name,
        kind,
        columns,
        definition: None,
        statement,
        comment,
        row_type: oid + 1,
    }
}

fn int(number: impl Into<i64>) -> Value {
    Value::Int(number.into())
}

fn text(text: impl AsRef<str>) -> Value {
    Value::text(text)
}

/// Rows of one relation of the catalog that are being collected.
struct Collected {
    at: usize,
    system: &'static System,
    rows: Vec<Row>,
}

impl Collected {
    /// Those of a new database, and more.
    fn new(name: &str) -> Option<Collected> {
        let (at, system) = base().relation("pg_catalog", name)?;
        Some(Collected { at, system, rows: system.rows.rows().to_vec() })
    }

    /// What is not given is NULL, or where that may not be nothing.
    fn add(&mut self, values: &[(&str, Value)]) {
        let value = |column: &super::base::Column| match values.iter().find(|(name, _)| *name == column.name) {
            Some((_, value)) => value.clone(),
            None if !column.not_null => Value::Null,
            None => match column.of {
                types::BOOL => Value::Bool(false),
                of if types::is_float(of) => Value::Float(0.0),
                of if types::is_integer(of) => Value::Int(0),
                of if base().element_of(of).is_some() => Value::list(Vec::new()),
                types::XID => text("0"),
                _ => text(""),
            },
        };
        self.rows.push(self.system.columns.iter().map(value).collect());
    }

    fn finish(self, into: &mut HashMap<usize, Arc<Rows>>) {
        into.insert(self.at, Rows::new(self.rows));
    }
}

/// Length, by value, alignment, storage of a type: what `pg_attribute` repeats of `pg_type`.
fn physical(of: u32) -> [Value; 4] {
    let columns = ["typlen", "typbyval", "typalign", "typstorage"];
    let Some((_, system)) = base().relation("pg_catalog", "pg_type") else { return columns.map(|_| Value::Null) };
    let row = system.column("oid").and_then(|oid| {
        let at = *system.rows.index(oid).get(&int(of))?.first()?;
        system.rows.rows().get(at as usize)
    });
    columns.map(|name| match (row, system.column(name)) {
        (Some(row), Some(at)) => row[at].clone(),
        _ => Value::Null,
    })
}

/// The columns that every table of PostgreSQL has.
const HIDDEN: [(&str, i64, u32); 6] =
    [("ctid", -1, 27), ("xmin", -2, 28), ("cmin", -3, 29), ("xmax", -4, 28), ("cmax", -5, 29), ("tableoid", -6, 26)];

impl Snapshot {
    fn new(engine: &Engine, generation: u64, functions: Option<&Functions>, roles: &Roles) -> Snapshot {
        let mut snapshot =
            Snapshot { generation, relations: HashMap::new(), by_name: HashMap::new(), rows: HashMap::new() };
        let listed = listed(engine);
        snapshot.add_relations(&listed, roles);
        snapshot.add_comments_of_databases();
        snapshot.add_roles(roles);
        if let (Some(mut procedures), Some(functions)) = (Collected::new("pg_proc"), functions) {
            functions.add_to(&mut |values| procedures.add(values), SYSTEM_OID);
            procedures.finish(&mut snapshot.rows);
        }
        if let Some(mut descriptions) = Collected::new("pg_description") {
            let mut add = |oid: u32, class: i64, part: i64, comment: &str| {
                descriptions.add(&[
                    ("objoid", int(oid)),
                    ("classoid", int(class)),
                    ("objsubid", int(part)),
                    ("description", text(comment)),
                ]);
            };
            add(SYSTEM_OID, NAMESPACES, 0, "what Logweir says about itself");
            for relation in &listed {
                if let Some(comment) = &relation.comment {
                    add(relation.oid, CLASSES, 0, comment);
                }
            }
            for (name, comments) in engine.comments() {
                let Some(relation) = listed.iter().find(|r| r.schema == PUBLIC && r.name == name) else { continue };
                if let Some(comment) = &comments.relation {
                    add(relation.oid, CLASSES, 0, comment);
                }
                for (at, column) in relation.columns.iter().enumerate() {
                    if let Some(comment) = comments.columns.get(&column.name) {
                        add(relation.oid, CLASSES, at as i64 + 1, comment);
                    }
                }
            }
            descriptions.finish(&mut snapshot.rows);
        }
        snapshot.name_relations(listed);
        snapshot
    }

    /// Relations by name and object id: those of the catalog, with their indexes, and ours.
    fn name_relations(&mut self, ours: Vec<Relation>) {
        let schemas = [(11, "pg_catalog"), (PUBLIC_OID, PUBLIC), (99, "pg_toast")];
        if let Some((_, system)) = base().relation("pg_catalog", "pg_class") {
            let at = |name: &str| system.column(name).unwrap_or_default();
            let (oid, name, namespace, kind) = (at("oid"), at("relname"), at("relnamespace"), at("relkind"));
            for row in system.rows.rows() {
                let number = |at: usize| row[at].as_int().unwrap_or_default() as u32;
                let named = schemas.iter().find(|(oid, _)| *oid == number(namespace));
                let schema = named.map_or("information_schema", |(_, name)| *name).to_string();
                let name = row[name].as_str().unwrap_or_default().to_string();
                let kind = row[kind].as_str().and_then(|kind| kind.chars().next()).unwrap_or('r');
                let found = base().relation(&schema, &name);
                let columns = found.iter().flat_map(|(_, system)| &system.columns).map(|column| Column {
                    name: column.name.clone(),
                    of: column.of,
                    modifier: -1,
                    not_null: column.not_null,
                });
                let definition = found.and_then(|(_, system)| system.view.clone()).map(|text| format!(" {text};"));
                self.name_relation(Relation {
                    oid: number(oid),
                    schema,
                    name,
                    kind,
                    columns: columns.collect(),
                    definition,
                    statement: None,
                    comment: None,
                    row_type: 0,
                });
            }
        }
        ours.into_iter().for_each(|relation| self.name_relation(relation));
    }

    fn name_relation(&mut self, relation: Relation) {
        self.by_name.insert((relation.schema.clone(), relation.name.clone()), relation.oid);
        self.relations.insert(relation.oid, relation);
    }

    fn add_relations(&mut self, listed: &[Relation], roles: &Roles) -> Option<()> {
        let mut namespaces = Collected::new("pg_namespace")?;
        namespaces.add(&[("oid", int(SYSTEM_OID)), ("nspname", text(SYSTEM)), ("nspowner", int(ROLE_OID))]);
        namespaces.finish(&mut self.rows);
        let (mut classes, mut attributes) = (Collected::new("pg_class")?, Collected::new("pg_attribute")?);
        let (mut kinds, mut rules) = (Collected::new("pg_type")?, Collected::new("pg_rewrite")?);
        for relation in listed {
            let namespace = if relation.schema == PUBLIC { PUBLIC_OID } else { SYSTEM_OID };
            let stored = relation.kind != 'v';
            let access = roles.access_list(&relation.schema, &relation.name);
            let access = access.map(|lines| Value::list(lines.lines().map(text).collect()));
            classes.add(&[
                ("oid", int(relation.oid)),
                ("relname", text(&relation.name)),
                ("relnamespace", int(namespace)),
                ("reltype", int(relation.row_type)),
                ("relowner", int(role_oid(&roles.owner_of(&relation.schema, &relation.name)))),
                ("relam", int(if stored { 2 } else { 0 })),
                ("relfilenode", int(if stored { relation.oid } else { 0 })),
                ("reltuples", Value::Float(if stored { -1.0 } else { 0.0 })),
                ("relpersistence", text("p")),
                ("relkind", text(relation.kind.to_string())),
                ("relnatts", int(relation.columns.len() as i64)),
                ("relhasrules", Value::Bool(relation.kind != 'r')),
                ("relispopulated", Value::Bool(true)),
                ("relreplident", text(if stored { "d" } else { "n" })),
                ("relfrozenxid", text(if stored { "3" } else { "0" })),
                ("relminmxid", text(if stored { "1" } else { "0" })),
                ("relacl", access.unwrap_or(Value::Null)),
            ]);
            for (at, column) in relation.columns.iter().enumerate() {
                attributes.add(&attribute(
                    relation.oid,
                    &column.name,
                    at as i64 + 1,
                    column.of,
                    column.modifier,
                    column.not_null,
                ));
            }
            if stored {
                for (name, number, of) in HIDDEN {
                    attributes.add(&attribute(relation.oid, name, number, of, -1, true));
                }
            }
            row_types(relation, namespace, &mut kinds);
            if relation.kind != 'r' {
                rules.add(&[
                    ("oid", int(relation.oid + 3)),
                    ("rulename", text("_RETURN")),
                    ("ev_class", int(relation.oid)),
                    ("ev_type", text("1")),
                    ("ev_enabled", text("O")),
                    ("is_instead", Value::Bool(true)),
                    ("ev_qual", text("<>")),
                    ("ev_action", text("<>")),
                ]);
            }
        }
        [classes, attributes, kinds, rules].into_iter().for_each(|collected| collected.finish(&mut self.rows));
        Some(())
    }

    fn add_comments_of_databases(&mut self) {
        let Some(mut comments) = Collected::new("pg_shdescription") else { return };
        comments.add(&[
            ("objoid", int(DATABASE_OID)),
            ("classoid", int(DATABASES)),
            ("description", text("streams, views and tables of Logweir")),
        ]);
        comments.finish(&mut self.rows);
    }

    fn add_roles(&mut self, roles: &Roles) {
        let Some(mut rows) = Collected::new("pg_authid") else { return };
        for role in roles.rows() {
            rows.add(&[
                ("oid", int(role_oid(&role.name))),
                ("rolname", text(&role.name)),
                ("rolsuper", Value::Bool(role.is_superuser)),
                ("rolinherit", Value::Bool(true)),
                ("rolcreaterole", Value::Bool(role.can_create_role)),
                ("rolcreatedb", Value::Bool(role.is_superuser)),
                ("rolcanlogin", Value::Bool(role.can_login)),
                ("rolreplication", Value::Bool(role.is_superuser)),
                ("rolbypassrls", Value::Bool(role.is_superuser)),
                ("rolconnlimit", int(-1)),
            ]);
        }
        rows.finish(&mut self.rows);
        let Some(mut members) = Collected::new("pg_auth_members") else { return };
        for (role, member) in roles.members() {
            members.add(&[
                ("roleid", int(role_oid(&role))),
                ("member", int(role_oid(&member))),
                ("grantor", int(ROLE_OID)),
            ]);
        }
        members.finish(&mut self.rows);
    }

    /// The rows of a relation of the catalog, by its place in the list of them.
    pub fn rows(&self, engine: &Engine, at: usize) -> Arc<Rows> {
        let system = &base().relations[at];
        if has_rows(system)
            && let Some(relation) = views::RELATIONS.iter().find(|relation| relation.name == system.name)
        {
            return Rows::new(current(system, relation, engine));
        }
        if system.schema == "pg_catalog" && system.name == "pg_database" {
            return Rows::new(databases(engine));
        }
        self.rows.get(&at).map_or_else(|| Arc::clone(&system.rows), Arc::clone)
    }

    /// All relations.
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.values()
    }

    /// A relation by its name; without a schema along the search path.
    pub fn relation_named(&self, schema: Option<&str>, name: &str) -> Option<&Relation> {
        let find = |schema: &str| self.by_name.get(&(schema.to_string(), name.to_string()));
        let oid = match schema {
            Some(schema) => find(schema),
            None => find("pg_catalog").or_else(|| find(PUBLIC)),
        };
        self.relations.get(oid?)
    }

    pub fn relation(&self, oid: u32) -> Option<&Relation> {
        self.relations.get(&oid)
    }

    /// The row type of a relation.
    pub fn row_type_named(&self, schema: Option<&str>, name: &str) -> Option<u32> {
        self.relation_named(schema, name).map(|relation| relation.row_type).filter(|oid| *oid != 0)
    }

    /// The name of a type, as `format_type` writes it.
    pub fn type_name(&self, oid: u32) -> String {
        if base().type_of(oid).is_some() {
            return type_text(oid);
        }
        let row_type = |oid: u32| self.relations.get(&(oid - 1)).filter(|relation| relation.row_type == oid);
        match (row_type(oid.max(1)), row_type(oid.max(2) - 1)) {
            (Some(relation), _) => relation.shown_name(),
            (None, Some(relation)) => format!("{}[]", relation.shown_name()),
            (None, None) => "???".to_string(),
        }
    }
}

/// The rows of `pg_database` as of now: of the main database those of all, of a tenant its own alone.
fn databases(engine: &Engine) -> Vec<Row> {
    let Some(mut rows) = Collected::new("pg_database") else { return Vec::new() };
    if !engine.is_main() {
        rows.rows.clear();
    }
    let mut add = |oid: u32, name: &str, connections: i64| {
        rows.add(&[
            ("oid", int(oid)),
            ("datname", text(name)),
            ("datdba", int(ROLE_OID)),
            ("encoding", int(6)),
            ("datlocprovider", text("c")),
            ("datallowconn", Value::Bool(true)),
            ("datconnlimit", int(connections)),
            ("datfrozenxid", text("717")),
            ("datminmxid", text("1")),
            ("dattablespace", int(1663)),
            ("datcollate", text("C")),
            ("datctype", text("C")),
        ]);
    };
    add(DATABASE_OID, engine.database(), -1);
    let all = engine.databases().filter(|_| engine.is_main()).map(|databases| databases.all()).unwrap_or_default();
    for tenant in all.iter().filter(|database| !database.is_main()) {
        add(tenant.oid() as u32, &tenant.name, i64::try_from(tenant.connections().0).unwrap_or(-1));
    }
    rows.rows
}

/// The object id of a role.
pub fn role_oid(name: &str) -> u32 {
    object_id(name) as u32
}

fn attribute(
    relation: u32,
    name: &str,
    number: i64,
    of: u32,
    modifier: i32,
    not_null: bool,
) -> Vec<(&'static str, Value)> {
    let [length, by_value, alignment, storage] = physical(of);
    let is_text = matches!(of, types::TEXT | types::VARCHAR) || base().element_of(of) == Some(types::TEXT);
    vec![
        ("attrelid", int(relation)),
        ("attname", text(name)),
        ("atttypid", int(of)),
        ("attstattarget", int(if number > 0 { -1 } else { 0 })),
        ("attlen", length),
        ("attnum", int(number)),
        ("attndims", int(i64::from(base().element_of(of).is_some()))),
        ("attcacheoff", int(-1)),
        ("atttypmod", int(i64::from(modifier))),
        ("attbyval", by_value),
        ("attalign", alignment),
        ("attstorage", storage),
        ("attnotnull", Value::Bool(not_null)),
        ("attislocal", Value::Bool(true)),
        ("attcollation", int(if is_text { 100 } else { 0 })),
    ]
}

/// The type of a relation's rows, and the array of it.
fn row_types(relation: &Relation, namespace: u32, kinds: &mut Collected) {
    let procedure = |name: &str| {
        let found = base().relation("pg_catalog", "pg_proc").and_then(|(_, system)| {
            let index = system.rows.index(system.column("proname")?);
            let row = &system.rows.rows()[*index.get(&text(name))?.first()? as usize];
            row.get(system.column("oid")?).cloned()
        });
        found.unwrap_or(Value::Int(0))
    };
    let common = |oid: u32, name: String, element: u32| {
        vec![
            ("oid", int(oid)),
            ("typname", text(name)),
            ("typnamespace", int(namespace)),
            ("typowner", int(ROLE_OID)),
            ("typlen", int(-1)),
            ("typisdefined", Value::Bool(true)),
            ("typdelim", text(",")),
            ("typelem", int(element)),
            ("typalign", text("d")),
            ("typstorage", text("x")),
            ("typtypmod", int(-1)),
        ]
    };
    let mut row = common(relation.row_type, relation.name.clone(), 0);
    row.extend([
        ("typtype", text("c")),
        ("typcategory", text("C")),
        ("typrelid", int(relation.oid)),
        ("typarray", int(relation.row_type + 1)),
        ("typinput", procedure("record_in")),
        ("typoutput", procedure("record_out")),
        ("typreceive", procedure("record_recv")),
        ("typsend", procedure("record_send")),
    ]);
    kinds.add(&row);
    let mut array = common(relation.row_type + 1, format!("_{}", relation.name), relation.row_type);
    array.extend([
        ("typtype", text("b")),
        ("typcategory", text("A")),
        ("typsubscript", procedure("array_subscript_handler")),
        ("typinput", procedure("array_in")),
        ("typoutput", procedure("array_out")),
        ("typreceive", procedure("array_recv")),
        ("typsend", procedure("array_send")),
        ("typanalyze", procedure("array_typanalyze")),
    ]);
    kinds.add(&array);
}

/// The rows of a relation that are listed when somebody asks, in the columns that PostgreSQL has.
fn current(system: &System, relation: &system::Relation, engine: &Engine) -> Vec<Row> {
    let places: Vec<Option<usize>> = system
        .columns
        .iter()
        .map(|column| relation.columns.iter().position(|(name, _)| *name == column.name))
        .collect();
    let value = |value: &SystemValue| match value {
        SystemValue::Text(value) => value.as_ref().map_or(Value::Null, text),
        SystemValue::Int(value) => value.map_or(Value::Null, Value::Int),
        SystemValue::Bool(value) => Value::Bool(*value),
        SystemValue::Time(value) => value.map_or(Value::Null, Value::Time),
    };
    let row = |row: Vec<SystemValue>| {
        places.iter().map(|place| place.and_then(|at| row.get(at)).map_or(Value::Null, value)).collect()
    };
    (relation.rows)(engine).into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_have_to_be() {
        for (name, shown) in
            [("a_1", "a_1"), ("A", "\"A\""), ("a\"b", "\"a\"\"b\""), ("select", "\"select\""), ("1a", "\"1a\"")]
        {
            assert_eq!(identifier(name), shown);
        }
    }
}
