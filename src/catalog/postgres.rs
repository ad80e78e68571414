//! PostgreSQL's system catalog over ours, so that psql, dashboards and drivers find what they look for.
//!
//! The tables of `pg_catalog` and most functions come from `datafusion-pg-catalog`; this file lays over it what
//! Logweir knows better: which relation is a stream, a view or a materialized view, which SQL functions there are
//! (`functions`), the roles (`roles`), the databases (`databases`), and the functions that tools call and that have one answer here. A few queries of psql use
//! SQL that DataFusion cannot plan; `rewrite` replaces those parts.

mod databases;
pub mod format;
mod functions;
pub mod information_schema;
mod roles;
mod tables;
pub mod views;

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::{PgCatalogSchemaProvider, PgCatalogStaticTables, setup_pg_catalog};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::time::{Clock, UTC};
use information_schema::InformationSchema;
use roles::{AboutRoles, Roles};

/// What we say we are: the version whose protocol and catalog clients may rely on.
pub const SERVER_VERSION: &str = concat!("15.0 (Logweir ", env!("CARGO_PKG_VERSION"), ")");

/// The letter of `pg_class.relkind` for a relation, by schema and name: `r` stream or table, `v` view, `m` materialized
/// view; None for what DataFusion says.
pub type KindOf = Arc<dyn Fn(&str, &str) -> Option<char> + Send + Sync>;

/// Registers schema `pg_catalog` in `catalog` and the functions that PostgreSQL's tools call. To be called when all
/// functions that users may call are registered, as it lists them.
pub fn register(context: &SessionContext, catalog: &str, kind_of: KindOf, engine: Weak<Engine>) -> Result<()> {
    let roles = Roles(engine.clone());
    let functions = functions::list(&context.state());
    setup_pg_catalog(context, catalog, roles.clone()).map_err(|err| Error::from(*err))?;

    let state = context.state();
    let static_tables = Arc::new(PgCatalogStaticTables::try_new().map_err(Error::from)?);
    let tables = PgCatalogSchemaProvider::try_new(Arc::clone(state.catalog_list()), static_tables, roles.clone())
        .map_err(Error::from)?;
    let overlay = tables::Overlay::new(tables, kind_of, functions.clone(), engine.clone());
    let known = Arc::clone(state.catalog_list());
    let catalog =
        context.catalog(catalog).ok_or_else(|| Error::internal(format!("there is no catalog \"{catalog}\"")))?;
    catalog.register_schema("pg_catalog", Arc::new(overlay))?;
    catalog.register_schema(information_schema::NAME, Arc::new(InformationSchema::new(engine, known)))?;

    functions.register(context);
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
    // Nothing has comments, indexes, triggers or a size of its own on disk; no locks are held.
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

/// Parts of tools' queries that DataFusion cannot plan, and what they come to here.
const REWRITES: &[(&str, &str)] = &[
    // \dp: privileges, which are kept in no column.
    ("pg_catalog.array_to_string(c.relacl, E'\\n')", "logweir_acl(n.nspname, c.relname)"),
    // \dT: composite types that are not a table's. There are none.
    (
        "t.typrelid = 0 OR (SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid)",
        "t.typrelid = 0",
    ),
    // JDBC: keys and indexes with their columns. There are none.
    ("(information_schema._pg_expandarray(i.indkey)).n", "1"),
    ("information_schema._pg_expandarray(i.indkey)", "0"),
    ("(result.KEYS).x", "result.KEYS"),
    ("tmp.I_INDOPTION[tmp.ORDINAL_POSITION - 1] & 1::smallint", "0"),
    ("con.confkey[pos.n]", "0"),
    ("con.conkey[pos.n]", "0"),
    // JDBC: which types are arrays. Functions stand in pg_type with their names.
    ("'pg_catalog.array_in'::regproc", "'array_in'"),
    ("'array_in'::regproc", "'array_in'"),
    // psql \\dL: languages have no comments.
    ("d.classoid = l.tableoid", "false"),
    // SQLAlchemy: columns of keys and indexes. There are none. Of what is visible it lists what is in the default schema.
    ("unnest(pg_catalog.pg_index.indkey)", "0"),
    ("unnest(pg_catalog.pg_index.indclass)", "0"),
    ("unnest(pg_catalog.pg_constraint.conkey)", "0"),
    ("pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid)", "pg_catalog.pg_namespace.nspname = 'public'"),
    // Npgsql: which types are arrays, again, and of what; what multiranges are made of. There are none.
    ("proc.oid = typ.typreceive", "proc.proname = typ.typreceive"),
    ("elemproc.oid = elemtyp.typreceive", "elemproc.proname = elemtyp.typreceive"),
    ("(SELECT rngtypid FROM pg_range WHERE rngmultitypid = typ.oid)", "0"),
    // ADBC and Ruby: the functions that read values, which stand in pg_type with their names.
    ("(typreceive != 0 OR typsend != 0)", "true"),
    ("ti.oid = t.typinput", "ti.proname = t.typinput"),
    // psqlODBC: keys with their columns. There are none.
    ("i.indisprimary = 't'", "i.indisprimary"),
    ("i.indkey[ia.attnum-1]", "0"),
    ("generate_series(array_lower(conkey, 1), array_upper(conkey, 1)) as i", "0 as i"),
    ("= conkey[i]", "= 0"),
    ("= confkey[i]", "= 0"),
    ("::name as", "::text as"),
    // DBD::Pg: comments of relations, and what may be NULL.
    ("CASE a.attnotnull WHEN 't'", "CASE a.attnotnull WHEN true"),
    ("c.tableoid = d.classoid", "d.classoid = 1259"),
    // Superset: columns of keys. There are none.
    ("unnest(ix.indkey) attnum", "0 attnum"),
    ("a.attnum = ANY(ix.indkey)", "false"),
    // TypeORM.
    ("SELECT * FROM current_schema()", "SELECT current_schema()"),
    ("SELECT * FROM current_database()", "SELECT current_database()"),
    // DuckDB, which reads tables by places in files: all of them. (With pages in pg_class it would ask for parts.)
    ("ctid BETWEEN '(0,0)'::tid AND '(4294967295,0)'::tid", "true"),
    // pgAdmin: the settings under another name.
    ("pg_show_all_settings()", "pg_catalog.pg_settings"),
];

/// Parts of tools' queries from one text to another, and what they come to: subqueries of SQLAlchemy for defaults, identity
/// and collations of columns, which none has.
const SPANS: &[(&str, &str, &str)] = &[
    ("CASE WHEN pg_catalog.pg_attribute.atthasdef THEN (SELECT", "END AS \"default\"", "NULL::text AS \"default\""),
    ("CASE WHEN (pg_catalog.pg_attribute.attidentity", "END AS identity_options", "NULL::text AS identity_options"),
    ("CASE WHEN (pg_catalog.pg_attribute.attcollation", "END AS collation", "NULL::text AS collation"),
];

/// asyncpg's question for types that it does not know, which are arrays of types that it does: found by the name of its
/// recursive query, answered without recursion.
const TYPES_OF_ASYNCPG: (&str, &str) = (
    "typeinfo_tree",
    "SELECT t.oid AS oid, 'pg_catalog' AS ns, t.typname AS name, t.typtype AS kind, NULL::int AS basetype,
       CASE WHEN t.typlen = -1 AND t.typelem <> 0 THEN t.typelem END AS elemtype, e.typdelim AS elemdelim,
       NULL::int AS range_subtype, NULL::int AS attrtypoids, NULL::int AS attrnames, 0 AS depth,
       NULL::text AS basetype_name, e.typname AS elemtype_name, NULL::text AS range_subtype_name
     FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem
     WHERE t.oid = any($1::oid[])",
);

/// Replaces what cannot be planned in the catalog queries of PostgreSQL's tools; leaves other statements alone.
///
/// Besides `REWRITES` these are arrays made by a subquery, which DataFusion does not have: members of roles, policies,
/// column privileges. They are empty here, and so are access lists written out by `array_to_string`.
pub fn rewrite(sql: &str) -> Cow<'_, str> {
    // psql's query for the policies of one table is known to datafusion-pg-catalog, word for word.
    let marks = ["pg_", "information_schema", "current_schema", "current_database()", "::tid"];
    if !marks.iter().any(|mark| sql.contains(mark)) || sql.contains("pol.polroles") {
        return Cow::Borrowed(sql);
    }
    let (name, answer) = TYPES_OF_ASYNCPG;
    if sql.contains(name) {
        return Cow::Borrowed(answer);
    }
    let mut text = Cow::Borrowed(sql);
    for (part, replacement) in REWRITES {
        if text.contains(part) {
            text = Cow::Owned(text.replace(part, replacement));
        }
    }
    for (start, end, replacement) in SPANS {
        let from = text.find(start);
        let to = from.and_then(|from| Some(from + text[from..].find(end)? + end.len()));
        if let (Some(from), Some(to)) = (from, to) {
            text = Cow::Owned(format!("{}{replacement}{}", &text[..from], &text[to..]));
        }
    }
    let is_empty = |arguments: &str| {
        let first = arguments.split(',').next().unwrap_or("").trim();
        first.ends_with("acl") || first.ends_with("setconfig") || calls(arguments, "array").next().is_some()
    };
    // Metabase: comments of columns, which there are none of, by a name that is put together.
    let text = replace_calls(text, "col_description", "NULL::text", |_| true);
    // SQLAlchemy: the places of columns in indexes.
    let text = replace_calls(text, "generate_subscripts", "1", |arguments| arguments.contains("indkey"));
    let text = replace_calls(text, "pg_catalog.array_to_string", "NULL::text", is_empty);
    let is_query = |arguments: &str| arguments.trim_start().get(..6).is_some_and(|w| w.eq_ignore_ascii_case("select"));
    replace_calls(text, "array", "'{}'", is_query)
}

/// Replaces the calls of `function` whose arguments fit.
fn replace_calls<'a>(sql: Cow<'a, str>, function: &str, by: &str, fits: impl Fn(&str) -> bool) -> Cow<'a, str> {
    let mut out = String::new();
    let mut done = 0;
    for (start, open, end) in calls(&sql, function) {
        if start >= done && fits(&sql[open + 1..end - 1]) {
            out.push_str(&sql[done..start]);
            out.push_str(by);
            done = end;
        }
    }
    if done == 0 {
        return sql;
    }
    out.push_str(&sql[done..]);
    Cow::Owned(out)
}

/// The calls of `function` in a text, in any case of letters: where its name starts, its bracket opens and its call
/// ends. Looks past strings.
fn calls<'a>(sql: &'a str, function: &'a str) -> impl Iterator<Item = (usize, usize, usize)> + 'a {
    let bytes = sql.as_bytes();
    (0..bytes.len().saturating_sub(function.len())).filter_map(move |start| {
        let open = start + function.len();
        let named = bytes[start..open].eq_ignore_ascii_case(function.as_bytes()) && bytes[open] == b'(';
        let inside_word = start > 0 && (bytes[start - 1].is_ascii_alphanumeric() || b"_.".contains(&bytes[start - 1]));
        if !named || inside_word {
            return None;
        }
        let (mut depth, mut quoted) = (0, false);
        for (index, byte) in bytes.iter().enumerate().skip(open) {
            match byte {
                b'\'' => quoted = !quoted,
                b'(' if !quoted => depth += 1,
                b')' if !quoted => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some((start, open, index + 1));
            }
        }
        None
    })
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
        let name = arguments.arg_fields.first().map(|field| functions::type_name(field.data_type()));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn query(context: &SessionContext, sql: &str) -> String {
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
    }

    async fn context() -> SessionContext {
        let config = datafusion::prelude::SessionConfig::new().with_default_catalog_and_schema("logweir", "public");
        let context = SessionContext::new_with_config(config);
        for sql in
            ["CREATE TABLE a AS SELECT 1 AS x", "CREATE TABLE m AS SELECT 1 AS x", "CREATE VIEW v AS SELECT 1 AS x"]
        {
            context.sql(sql).await.unwrap().collect().await.unwrap();
        }
        let kind_of: KindOf = Arc::new(|schema, name| (schema == "public" && name == "m").then_some('m'));
        register(&context, "logweir", kind_of, Weak::new()).unwrap();
        context
    }

    #[tokio::test]
    async fn relations_have_our_kinds() {
        let context = context().await;
        let sql = "SELECT relname, relkind FROM pg_catalog.pg_class WHERE relname IN ('a', 'm', 'v') ORDER BY 1";
        let shown = query(&context, sql).await;
        for row in ["| a       | r       |", "| m       | m       |", "| v       | v       |"] {
            assert!(shown.contains(row), "{shown}");
        }
        assert!(query(&context, "SELECT matviewname FROM pg_catalog.pg_matviews").await.contains("| m "));
        assert!(query(&context, "SELECT viewname FROM pg_catalog.pg_views").await.contains("| v "));
    }

    #[tokio::test]
    async fn functions_are_listed_with_their_types() {
        let context = context().await;
        let sql = "SELECT proname, pg_get_function_result(oid) AS result, pg_get_function_arguments(oid) AS arguments, \
                   prokind FROM pg_catalog.pg_proc WHERE oid >= 100000 AND proname IN ('lower', 'count', 'rank')";
        let shown = query(&context, sql).await;
        assert!(shown.contains("lower") && shown.contains("text"), "{shown}");
        assert!(shown.contains("count") && shown.contains("bigint") && shown.contains("| a "), "{shown}");
        assert!(shown.contains("rank") && shown.contains("| w "), "{shown}");
    }

    #[test]
    fn arrays_of_subqueries_are_empty_and_other_statements_left_alone() {
        let sql =
            "SELECT ARRAY(SELECT ')' FROM pg_catalog.pg_auth_members m WHERE (m.member = r.oid)) AS memberof, 'a'";
        assert_eq!(rewrite(sql), "SELECT '{}' AS memberof, 'a'");
        let sql = "SELECT pg_catalog.array_to_string(c.relacl, E'\\n'), pg_catalog.array_to_string(ARRAY( SELECT 1 ), ','), \
                   pg_catalog.array_to_string(mine, ',')";
        assert_eq!(
            rewrite(sql),
            "SELECT logweir_acl(n.nspname, c.relname), NULL::text, pg_catalog.array_to_string(mine, ',')"
        );
        for sql in ["SELECT ARRAY(SELECT 1)", "SELECT pg_catalog.array(", "SELECT pg_catalog.lower('ARRAY'), ARRAY[1]"]
        {
            assert_eq!(rewrite(sql), sql);
        }
    }
}
