//! Schema `information_schema` as PostgreSQL has it (its manual, The Information Schema): what BI tools and drivers read to
//! list relations and their columns, with PostgreSQL's names of types.
//!
//! DataFusion's own of this name gives its types and counts columns from 0, so ours stands in its place; a few tables that
//! only DataFusion has (settings, functions) are handed on. Materialized views are listed as views here, which PostgreSQL
//! does not do: tools that read nothing else would not find them.

use std::fmt;
use std::sync::{Arc, Weak};

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result as DataFusionResult;
use futures::FutureExt;

use super::ROLE;
use super::functions::type_name;
use crate::catalog::system::{Relation, SystemTable, Value};
use crate::engine::{Engine, PUBLIC, SYSTEM};

/// The name of the schema.
pub const NAME: &str = "information_schema";

/// Tables that DataFusion keeps and that statements of its own read.
const HANDED_ON: [&str; 3] = ["df_settings", "routines", "parameters"];

/// See the file header.
pub struct InformationSchema {
    engine: Weak<Engine>,
    theirs: InformationSchemaProvider,
}

impl InformationSchema {
    pub fn new(engine: Weak<Engine>, catalogs: Arc<dyn CatalogProviderList>) -> InformationSchema {
        InformationSchema { engine, theirs: InformationSchemaProvider::new(catalogs) }
    }
}

impl fmt::Debug for InformationSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        RELATIONS.iter().map(|relation| relation.name).chain(HANDED_ON).map(str::to_string).collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        RELATIONS.iter().map(|relation| relation.name).chain(HANDED_ON).any(|known| known == name)
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        match RELATIONS.iter().find(|relation| relation.name == name) {
            Some(relation) => Ok(Some(Arc::new(SystemTable::new(relation, self.engine.clone())))),
            None if HANDED_ON.contains(&name) => self.theirs.table(name).await,
            None => Ok(None),
        }
    }
}

/// One relation: its schema, its name, its letter of `pg_class.relkind`, and what can be read in it.
struct Listed {
    schema: &'static str,
    name: String,
    kind: char,
    table: Arc<dyn TableProvider>,
}

/// All relations that users make or may read.
fn listed(engine: &Engine) -> Vec<Listed> {
    let mut all = Vec::new();
    let Some(catalog) = engine.context().catalog(engine.database()) else { return all };
    for schema in [PUBLIC, SYSTEM] {
        let Some(provider) = catalog.schema(schema) else { continue };
        let mut names = provider.table_names();
        names.sort_unstable();
        for name in names {
            // They are in memory: nothing has to be waited for.
            if let Some(Ok(Some(table))) = provider.table(&name).now_or_never() {
                let kind = engine.relkind(schema, &name).unwrap_or(if schema == SYSTEM { 'v' } else { 'r' });
                all.push(Listed { schema, name, kind, table });
            }
        }
    }
    all
}

fn text(value: &str) -> Value {
    Value::Text(Some(value.to_string()))
}

fn int(value: Option<i64>) -> Value {
    Value::Int(value)
}

const NO_TEXT: Value = Value::Text(None);
const NO_INT: Value = Value::Int(None);

fn tables(engine: &Engine) -> Vec<Vec<Value>> {
    let rows = listed(engine).into_iter().map(|relation| {
        let is_table = relation.kind == 'r';
        vec![
            text(engine.database()),
            text(relation.schema),
            text(&relation.name),
            text(if is_table { "BASE TABLE" } else { "VIEW" }),
            NO_TEXT,
            NO_TEXT,
            NO_TEXT,
            NO_TEXT,
            NO_TEXT,
            text(if is_table { "YES" } else { "NO" }),
            text("NO"),
            NO_TEXT,
        ]
    });
    rows.collect()
}

fn views(engine: &Engine) -> Vec<Vec<Value>> {
    let rows = listed(engine).into_iter().filter(|relation| relation.kind != 'r').map(|relation| {
        let statement = engine.object(&relation.name).filter(|_| relation.schema == PUBLIC).map(|object| object.sql);
        let mut row =
            vec![text(engine.database()), text(relation.schema), text(&relation.name), Value::Text(statement)];
        row.push(text("NONE"));
        row.extend((0..5).map(|_| text("NO")));
        row
    });
    rows.collect()
}

fn schemata(engine: &Engine) -> Vec<Vec<Value>> {
    let row =
        |schema: &str| vec![text(engine.database()), text(schema), text(ROLE), NO_TEXT, NO_TEXT, NO_TEXT, NO_TEXT];
    [PUBLIC, SYSTEM, "pg_catalog", NAME].map(row).into()
}

fn columns(engine: &Engine) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for relation in listed(engine) {
        let updatable = if relation.kind == 'r' { "YES" } else { "NO" };
        for (at, field) in relation.table.schema().fields().iter().enumerate() {
            let mut row =
                vec![text(engine.database()), text(relation.schema), text(&relation.name), text(field.name())];
            row.extend([int(Some(at as i64 + 1)), NO_TEXT]);
            row.extend(type_of(field, engine.database()));
            row.extend([text(&(at + 1).to_string()), text("NO"), text("NO")]);
            row.extend((0..6).map(|_| NO_TEXT));
            row.extend([text("NEVER"), NO_TEXT, text(updatable)]);
            rows.push(row);
        }
    }
    rows
}

/// From `is_nullable` to `udt_name`, in the order of the columns.
fn type_of(field: &Field, database: &str) -> Vec<Value> {
    let name = type_name(field.data_type());
    let shown = if name.ends_with("[]") { "ARRAY" } else { &name };
    let (precision, radix, scale) = match field.data_type() {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (Some(i64::from(*precision)), Some(10), Some(i64::from(*scale)))
        }
        _ => match shown {
            "smallint" => (Some(16), Some(2), Some(0)),
            "integer" => (Some(32), Some(2), Some(0)),
            "bigint" => (Some(64), Some(2), Some(0)),
            "real" => (Some(24), Some(2), None),
            "double precision" => (Some(53), Some(2), None),
            "numeric" => (None, Some(10), None),
            _ => (None, None, None),
        },
    };
    let time = match shown {
        "date" => Some(0),
        "interval" => Some(6),
        other if other.starts_with("time") => Some(6),
        _ => None,
    };
    let octets = if shown == "text" { Some(1 << 30) } else { None };
    vec![
        text(if field.is_nullable() { "YES" } else { "NO" }),
        text(shown),
        NO_INT,
        int(octets),
        int(precision),
        int(radix),
        int(scale),
        int(time),
        NO_TEXT,
        NO_INT,
        text(database),
        text("pg_catalog"),
        text(&internal_name(&name)),
    ]
}

/// `pg_type.typname` of a type that is written like this.
fn internal_name(name: &str) -> String {
    if let Some(element) = name.strip_suffix("[]") {
        return format!("_{}", internal_name(element));
    }
    let name = match name {
        "boolean" => "bool",
        "smallint" => "int2",
        "integer" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "time without time zone" => "time",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        other => other,
    };
    name.to_string()
}

fn none(_: &Engine) -> Vec<Vec<Value>> {
    Vec::new()
}

/// Every table that we have. Of keys, rights and the like there are none.
static RELATIONS: &[Relation] = &[
    Relation {
        name: "tables",
        summary: "the relations",
        columns: &[
            ("table_catalog", "text"),
            ("table_schema", "text"),
            ("table_name", "text"),
            ("table_type", "text"),
            ("self_referencing_column_name", "text"),
            ("reference_generation", "text"),
            ("user_defined_type_catalog", "text"),
            ("user_defined_type_schema", "text"),
            ("user_defined_type_name", "text"),
            ("is_insertable_into", "text"),
            ("is_typed", "text"),
            ("commit_action", "text"),
        ],
        rows: tables,
    },
    Relation {
        name: "views",
        summary: "the views with their statements",
        columns: &[
            ("table_catalog", "text"),
            ("table_schema", "text"),
            ("table_name", "text"),
            ("view_definition", "text"),
            ("check_option", "text"),
            ("is_updatable", "text"),
            ("is_insertable_into", "text"),
            ("is_trigger_updatable", "text"),
            ("is_trigger_deletable", "text"),
            ("is_trigger_insertable_into", "text"),
        ],
        rows: views,
    },
    Relation {
        name: "schemata",
        summary: "the schemas",
        columns: &[
            ("catalog_name", "text"),
            ("schema_name", "text"),
            ("schema_owner", "text"),
            ("default_character_set_catalog", "text"),
            ("default_character_set_schema", "text"),
            ("default_character_set_name", "text"),
            ("sql_path", "text"),
        ],
        rows: schemata,
    },
    Relation {
        name: "columns",
        summary: "the columns of all relations",
        columns: &[
            ("table_catalog", "text"),
            ("table_schema", "text"),
            ("table_name", "text"),
            ("column_name", "text"),
            ("ordinal_position", "integer"),
            ("column_default", "text"),
            ("is_nullable", "text"),
            ("data_type", "text"),
            ("character_maximum_length", "integer"),
            ("character_octet_length", "integer"),
            ("numeric_precision", "integer"),
            ("numeric_precision_radix", "integer"),
            ("numeric_scale", "integer"),
            ("datetime_precision", "integer"),
            ("interval_type", "text"),
            ("interval_precision", "integer"),
            ("udt_catalog", "text"),
            ("udt_schema", "text"),
            ("udt_name", "text"),
            ("dtd_identifier", "text"),
            ("is_self_referencing", "text"),
            ("is_identity", "text"),
            ("identity_generation", "text"),
            ("identity_start", "text"),
            ("identity_increment", "text"),
            ("identity_maximum", "text"),
            ("identity_minimum", "text"),
            ("identity_cycle", "text"),
            ("is_generated", "text"),
            ("generation_expression", "text"),
            ("is_updatable", "text"),
        ],
        rows: columns,
    },
    Relation {
        name: "table_constraints",
        summary: "no keys",
        columns: &[
            ("constraint_catalog", "text"),
            ("constraint_schema", "text"),
            ("constraint_name", "text"),
            ("table_catalog", "text"),
            ("table_schema", "text"),
            ("table_name", "text"),
            ("constraint_type", "text"),
            ("is_deferrable", "text"),
            ("initially_deferred", "text"),
            ("enforced", "text"),
            ("nulls_distinct", "text"),
        ],
        rows: none,
    },
    Relation {
        name: "key_column_usage",
        summary: "no columns of keys",
        columns: &[
            ("constraint_catalog", "text"),
            ("constraint_schema", "text"),
            ("constraint_name", "text"),
            ("table_catalog", "text"),
            ("table_schema", "text"),
            ("table_name", "text"),
            ("column_name", "text"),
            ("ordinal_position", "integer"),
            ("position_in_unique_constraint", "integer"),
        ],
        rows: none,
    },
    Relation {
        name: "referential_constraints",
        summary: "no foreign keys",
        columns: &[
            ("constraint_catalog", "text"),
            ("constraint_schema", "text"),
            ("constraint_name", "text"),
            ("unique_constraint_catalog", "text"),
            ("unique_constraint_schema", "text"),
            ("unique_constraint_name", "text"),
            ("match_option", "text"),
            ("update_rule", "text"),
            ("delete_rule", "text"),
        ],
        rows: none,
    },
    Relation {
        name: "constraint_column_usage",
        summary: "no constraints",
        columns: &[
            ("table_catalog", "text"),
            ("table_schema", "text"),
            ("table_name", "text"),
            ("column_name", "text"),
            ("constraint_catalog", "text"),
            ("constraint_schema", "text"),
            ("constraint_name", "text"),
        ],
        rows: none,
    },
    Relation {
        name: "check_constraints",
        summary: "no checks",
        columns: &[
            ("constraint_catalog", "text"),
            ("constraint_schema", "text"),
            ("constraint_name", "text"),
            ("check_clause", "text"),
        ],
        rows: none,
    },
    Relation {
        name: "sequences",
        summary: "no sequences",
        columns: &[
            ("sequence_catalog", "text"),
            ("sequence_schema", "text"),
            ("sequence_name", "text"),
            ("data_type", "text"),
            ("numeric_precision", "integer"),
            ("numeric_precision_radix", "integer"),
            ("numeric_scale", "integer"),
            ("start_value", "text"),
            ("minimum_value", "text"),
            ("maximum_value", "text"),
            ("increment", "text"),
            ("cycle_option", "text"),
        ],
        rows: none,
    },
    Relation {
        name: "triggers",
        summary: "no triggers",
        columns: &[
            ("trigger_catalog", "text"),
            ("trigger_schema", "text"),
            ("trigger_name", "text"),
            ("event_manipulation", "text"),
            ("event_object_catalog", "text"),
            ("event_object_schema", "text"),
            ("event_object_table", "text"),
            ("action_order", "integer"),
            ("action_condition", "text"),
            ("action_statement", "text"),
            ("action_orientation", "text"),
            ("action_timing", "text"),
        ],
        rows: none,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_all_columns() {
        let width = |name: &str| RELATIONS.iter().find(|relation| relation.name == name).unwrap().columns.len();
        // What stands before and behind the columns of the type.
        let field = Field::new("c", DataType::Decimal128(10, 2), true);
        assert_eq!(width("columns"), 6 + type_of(&field).len() + 12);
    }

    #[test]
    fn types_have_postgres_names() {
        let named = |data_type: DataType| {
            let row = type_of(&Field::new("c", data_type, true));
            let text = |at: usize| match &row[at] {
                Value::Text(Some(text)) => text.clone(),
                _ => String::new(),
            };
            (text(1), text(12))
        };
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)));
        for (data_type, shown, internal) in [
            (DataType::Utf8View, "text", "text"),
            (DataType::Int64, "bigint", "int8"),
            (crate::format::timestamp_type(), "timestamp with time zone", "timestamptz"),
            (list, "ARRAY", "_text"),
        ] {
            assert_eq!(named(data_type), (shown.to_string(), internal.to_string()));
        }
    }
}
