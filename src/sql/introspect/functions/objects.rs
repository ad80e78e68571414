//! The functions about objects of the catalog and about the session (PostgreSQL manual, System Information Functions and
//! System Administration Functions).

use super::super::run::Run;
use super::super::text::{object, query_of, show};
use super::{Of, Scalar};
use crate::catalog::ObjectKind;
use crate::catalog::postgres::ROLE;
use crate::catalog::postgres::snapshot::{Relation, identifier};
use crate::catalog::postgres::value::{Value, types};
use crate::engine::PUBLIC;
use crate::error::{Error, Kind, Result};
use crate::time::Clock;

const NAMES: u32 = 1003;
const TEXT: Of = Of::Is(types::TEXT);
const BOOL: Of = Of::Is(types::BOOL);
const INT: Of = Of::Is(types::INT4);
const BIGINT: Of = Of::Is(types::INT8);
const NAME: Of = Of::Is(types::NAME);
const OID: u32 = types::OID;
/// `aclitem[]`.
const ACLITEMS: u32 = 1034;

/// The encodings of PostgreSQL by their numbers (`pg_wchar.h`).
const ENCODINGS: [&str; 42] = [
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1256",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "WIN1251",
    "WIN1252",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "WIN1250",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1257",
    "KOI8U",
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
    "SHIFT_JIS_2004",
];

macro_rules! scalar {
    ($name:literal, $count:expr, $arguments:expr, $of:expr, $value:expr) => {
        Scalar { name: $name, count: $count, arguments: $arguments, of: $of, strict: true, value: $value }
    };
}

pub static SCALARS: &[Scalar] = &[
    Scalar {
        name: "format_type",
        count: (2, 2),
        arguments: &[OID, types::INT4],
        of: TEXT,
        strict: false,
        value: |run, a| Ok(a[0].as_int().map_or(Value::Null, |oid| Value::text(format_type(run, oid, a[1].as_int())))),
    },
    // Comments.
    scalar!("obj_description", (1, 2), &[OID, types::TEXT], TEXT, |run, a| {
        let class = match a.get(1).and_then(Value::as_str) {
            Some(name) => run.snapshot.relation_named(Some("pg_catalog"), name).map(|relation| relation.oid),
            None => None,
        };
        comment(run, &a[0], class, 0)
    }),
    scalar!("col_description", (2, 2), &[OID, types::INT4], TEXT, |run, a| {
        comment(run, &a[0], Some(1259), a[1].as_int().unwrap_or(-1))
    }),
    scalar!("shobj_description", (2, 2), &[OID, types::TEXT], TEXT, |run, a| {
        Ok(run.get("pg_shdescription", "objoid", &a[0], "description")?.unwrap_or(Value::Null))
    }),
    // Definitions.
    scalar!("pg_get_viewdef", (1, 2), &[types::REGCLASS, 0], TEXT, |run, a| {
        let definition = relation(run, &a[0]).and_then(definition_of);
        Ok(definition.map_or(Value::Null, Value::text))
    }),
    scalar!("pg_get_ruledef", (1, 2), &[OID, 0], TEXT, |run, a| {
        let owner = run.get("pg_rewrite", "oid", &a[0], "ev_class")?;
        let Some(relation) = owner.and_then(|oid| relation(run, &oid)) else { return Ok(Value::Null) };
        let name = format!("{}.{}", identifier(&relation.schema), identifier(&relation.name));
        let query = definition_of(relation).unwrap_or_default();
        Ok(Value::text(format!("CREATE RULE \"_RETURN\" AS\n    ON SELECT TO {name} DO INSTEAD {query}")))
    }),
    scalar!("pg_get_expr", (2, 3), &[types::TEXT, OID, 0], TEXT, |_, a| Ok(a[0].clone())),
    scalar!("pg_get_indexdef", (1, 3), &[OID, types::INT4, 0], TEXT, index_definition),
    scalar!("pg_get_constraintdef", (1, 2), &[OID, 0], TEXT, constraint_definition),
    scalar!("pg_get_functiondef", (1, 1), &[OID], TEXT, |_, _| Ok(Value::Null)),
    scalar!("pg_get_function_result", (1, 1), &[OID], TEXT, function_result),
    scalar!("pg_get_function_arguments", (1, 1), &[OID], TEXT, |run, a| function_arguments(run, &a[0])),
    scalar!("pg_get_function_identity_arguments", (1, 1), &[OID], TEXT, |run, a| function_arguments(run, &a[0])),
    scalar!("acldefault", (2, 2), &[types::CHAR, OID], Of::Is(ACLITEMS), default_privileges),
    scalar!("oidvectortypes", (1, 1), &[types::OIDVECTOR], TEXT, |run, a| {
        let names = a[0].as_list().unwrap_or_default().iter().filter_map(Value::as_int);
        Ok(Value::text(names.map(|oid| format_type(run, oid, None)).collect::<Vec<_>>().join(", ")))
    }),
    // Names of objects.
    scalar!("pg_get_userbyid", (1, 1), &[OID], NAME, |run, a| {
        let name = run.get("pg_authid", "oid", &a[0], "rolname")?;
        Ok(name.unwrap_or_else(|| Value::text(format!("unknown (OID={})", a[0].as_int().unwrap_or_default()))))
    }),
    scalar!("to_regclass", (1, 1), &[types::TEXT], Of::Is(types::REGCLASS), |run, a| named(run, a, types::REGCLASS)),
    scalar!("to_regtype", (1, 1), &[types::TEXT], Of::Is(types::REGTYPE), |run, a| named(run, a, types::REGTYPE)),
    scalar!("to_regproc", (1, 1), &[types::TEXT], Of::Is(types::REGPROC), |run, a| named(run, a, types::REGPROC)),
    scalar!("to_regrole", (1, 1), &[types::TEXT], Of::Is(types::REGROLE), |run, a| named(run, a, types::REGROLE)),
    scalar!("to_regnamespace", (1, 1), &[types::TEXT], Of::Is(types::REGNAMESPACE), |run, a| {
        named(run, a, types::REGNAMESPACE)
    }),
    scalar!("pg_table_is_visible", (1, 1), &[OID], BOOL, |run, a| {
        // PostgreSQL's first schema on the search path is its catalog.
        Ok(relation(run, &a[0]).map_or(Value::Null, |relation| {
            let first = run.snapshot.relation_named(None, &relation.name);
            Value::Bool(first.is_some_and(|first| first.oid == relation.oid))
        }))
    }),
    scalar!("pg_type_is_visible", (1, 1), &[OID], BOOL, |run, a| in_path(run, "pg_type", "typnamespace", &a[0], false)),
    scalar!("pg_function_is_visible", (1, 1), &[OID], BOOL, |run, a| {
        in_path(run, "pg_proc", "pronamespace", &a[0], true)
    }),
    // Sizes: what the engine holds of it, in memory and on disk.
    scalar!("pg_relation_size", (1, 2), &[types::REGCLASS, types::TEXT], BIGINT, |run, a| {
        // PostgreSQL's other forks are parts of it that there are none of here.
        if a.get(1).and_then(Value::as_str).is_some_and(|fork| fork != "main") {
            return Ok(Value::Int(0));
        }
        size(run, &a[0])
    }),
    scalar!("pg_total_relation_size", (1, 1), &[types::REGCLASS], BIGINT, |run, a| size(run, &a[0])),
    scalar!("pg_table_size", (1, 1), &[types::REGCLASS], BIGINT, |run, a| size(run, &a[0])),
    scalar!("pg_indexes_size", (1, 1), &[types::REGCLASS], BIGINT, |_, _| Ok(Value::Int(0))),
    scalar!("pg_database_size", (1, 1), &[0], BIGINT, |run, _| Ok(Value::Int(everything(run)))),
    scalar!("pg_tablespace_size", (1, 1), &[0], BIGINT, |run, _| Ok(Value::Int(everything(run)))),
    scalar!("pg_size_pretty", (1, 1), &[types::INT8], TEXT, |_, a| Ok(Value::text(pretty(a[0].as_int().unwrap_or(0))))),
    scalar!("pg_relation_filenode", (1, 1), &[types::REGCLASS], Of::Is(OID), |run, a| {
        Ok(run.get("pg_class", "oid", &a[0], "relfilenode")?.unwrap_or(Value::Null))
    }),
    scalar!("pg_relation_is_updatable", (2, 2), &[types::REGCLASS, 0], INT, |run, a| {
        // Rows can be added to streams and tables: bit 3.
        let adds = |relation: &Relation| relation.kind == 'r' && relation.schema == PUBLIC;
        Ok(Value::Int(if relation(run, &a[0]).is_some_and(adds) { 8 } else { 0 }))
    }),
    scalar!("pg_relation_is_publishable", (1, 1), &[types::REGCLASS], BOOL, |run, a| {
        let is = |relation: &Relation| relation.kind == 'r' && relation.schema == PUBLIC;
        Ok(relation(run, &a[0]).map_or(Value::Null, |relation| Value::Bool(is(relation))))
    }),
    scalar!("pg_indexam_has_property", (2, 2), &[OID, types::TEXT], BOOL, am_property),
    scalar!("pg_index_column_has_property", (3, 3), &[types::REGCLASS, types::INT4, types::TEXT], BOOL, |_, a| {
        Ok(Value::Bool(matches!(a[2].as_str(), Some("asc" | "nulls_last" | "orderable" | "returnable"))))
    }),
    scalar!("pg_index_has_property", (2, 2), &[types::REGCLASS, types::TEXT], BOOL, |_, a| {
        Ok(Value::Bool(matches!(a[1].as_str(), Some("clusterable" | "index_scan" | "bitmap_scan" | "backward_scan"))))
    }),
    // Encodings: only one is spoken.
    scalar!("pg_encoding_to_char", (1, 1), &[types::INT4], NAME, |_, a| {
        let at = a[0].as_int().and_then(|at| usize::try_from(at).ok());
        Ok(Value::text(at.and_then(|at| ENCODINGS.get(at)).copied().unwrap_or_default()))
    }),
    scalar!("pg_char_to_encoding", (1, 1), &[types::TEXT], INT, |_, a| {
        let is = a[0].as_str().is_some_and(|name| ["UTF8", "UTF-8", "UNICODE"].contains(&name.to_uppercase().as_str()));
        Ok(Value::Int(if is { 6 } else { -1 }))
    }),
    // The session.
    scalar!("current_database", (0, 0), &[], NAME, |run, _| Ok(Value::text(run.session.engine().database()))),
    scalar!("current_catalog", (0, 0), &[], NAME, |run, _| Ok(Value::text(run.session.engine().database()))),
    scalar!("current_schema", (0, 0), &[], NAME, |_, _| Ok(Value::text(PUBLIC))),
    scalar!("current_schemas", (1, 1), &[types::BOOL], Of::Is(NAMES), |_, a| {
        let schemas: &[&str] = if a[0].is_true() { &["pg_catalog", PUBLIC] } else { &[PUBLIC] };
        Ok(Value::list(schemas.iter().map(Value::text).collect()))
    }),
    scalar!("current_user", (0, 0), &[], NAME, |run, _| Ok(user(run))),
    scalar!("current_role", (0, 0), &[], NAME, |run, _| Ok(user(run))),
    scalar!("user", (0, 0), &[], NAME, |run, _| Ok(user(run))),
    scalar!("session_user", (0, 0), &[], NAME, |run, _| {
        Ok(Value::text(run.session.login().unwrap_or_else(|| ROLE.to_string())))
    }),
    scalar!("pg_backend_pid", (0, 0), &[], INT, |run, _| Ok(Value::Int(i64::from(run.session.need_backend()?.pid)))),
    scalar!("current_setting", (1, 2), &[types::TEXT, types::BOOL], TEXT, setting),
    scalar!("now", (0, 0), &[], Of::Is(types::TIMESTAMPTZ), |_, _| Ok(Value::Time(Clock::system().now()))),
    scalar!("pg_postmaster_start_time", (0, 0), &[], Of::Is(types::TIMESTAMPTZ), |_, _| started()),
    scalar!("pg_conf_load_time", (0, 0), &[], Of::Is(types::TIMESTAMPTZ), |_, _| started()),
    // What the views of information_schema say of types.
    scalar!("_pg_char_max_length", (2, 2), &[OID, types::INT4], INT, |_, a| {
        Ok(match (a[0].as_int(), a[1].as_int()) {
            (Some(1042 | 1043), Some(modifier)) if modifier >= 4 => Value::Int(modifier - 4),
            (Some(1560 | 1562), Some(modifier)) if modifier >= 0 => Value::Int(modifier),
            _ => Value::Null,
        })
    }),
    scalar!("_pg_char_octet_length", (2, 2), &[OID, types::INT4], INT, |_, a| {
        Ok(match (a[0].as_int(), a[1].as_int()) {
            (Some(25 | 1042 | 1043), Some(-1)) => Value::Int(1 << 30),
            (Some(1042 | 1043), Some(modifier)) => Value::Int((modifier - 4) * 4),
            _ => Value::Null,
        })
    }),
    scalar!("_pg_numeric_precision", (2, 2), &[OID, types::INT4], INT, |_, a| {
        Ok(match (a[0].as_int(), a[1].as_int()) {
            (Some(21), _) => Value::Int(16),
            (Some(23), _) => Value::Int(32),
            (Some(20), _) => Value::Int(64),
            (Some(700), _) => Value::Int(24),
            (Some(701), _) => Value::Int(53),
            (Some(1700), Some(modifier)) if modifier != -1 => Value::Int(((modifier - 4) >> 16) & 0xffff),
            _ => Value::Null,
        })
    }),
    scalar!("_pg_numeric_precision_radix", (2, 2), &[OID, types::INT4], INT, |_, a| {
        Ok(match a[0].as_int() {
            Some(20 | 21 | 23 | 700 | 701) => Value::Int(2),
            Some(1700) => Value::Int(10),
            _ => Value::Null,
        })
    }),
    scalar!("_pg_numeric_scale", (2, 2), &[OID, types::INT4], INT, |_, a| {
        Ok(match (a[0].as_int(), a[1].as_int()) {
            (Some(20 | 21 | 23), _) => Value::Int(0),
            (Some(1700), Some(modifier)) if modifier != -1 => Value::Int((modifier - 4) & 0xffff),
            _ => Value::Null,
        })
    }),
    scalar!("_pg_datetime_precision", (2, 2), &[OID, types::INT4], INT, |_, a| {
        Ok(match (a[0].as_int(), a[1].as_int()) {
            (Some(1082), _) => Value::Int(0),
            (Some(1083 | 1114 | 1184 | 1266), Some(modifier)) => Value::Int(if modifier < 0 { 6 } else { modifier }),
            (Some(1186), Some(modifier)) => {
                Value::Int(if modifier < 0 || modifier & 0xffff == 0xffff { 6 } else { modifier & 0xffff })
            }
            _ => Value::Null,
        })
    }),
    scalar!("_pg_interval_type", (2, 2), &[OID, types::INT4], TEXT, |_, _| Ok(Value::Null)),
    scalar!("_pg_index_position", (2, 2), &[OID, types::INT2], INT, |run, a| {
        let key = run.get("pg_index", "indexrelid", &a[0], "indkey")?;
        let at = key.as_ref().and_then(Value::as_list).and_then(|key| key.iter().position(|number| *number == a[1]));
        Ok(at.map_or(Value::Null, |at| Value::Int(at as i64 + 1)))
    }),
];

fn relation<'r>(run: &'r Run<'_>, oid: &Value) -> Option<&'r Relation> {
    run.snapshot.relation(u32::try_from(oid.as_int()?).ok()?)
}

/// The query of a view.
fn definition_of(relation: &Relation) -> Option<String> {
    relation.definition.clone().or_else(|| query_of(relation.statement.as_deref()?))
}

fn named(run: &Run<'_>, arguments: &[Value], of: u32) -> Result<Value> {
    Ok(object(run, arguments[0].as_str().unwrap_or_default(), of)?.unwrap_or(Value::Null))
}

fn user(run: &Run<'_>) -> Value {
    Value::text(run.session.user().unwrap_or_else(|| ROLE.to_string()))
}

fn started() -> Result<Value> {
    static STARTED: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| Clock::system().now());
    Ok(Value::Time(*STARTED))
}

fn setting(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let name = arguments[0].as_str().unwrap_or_default();
    let parameters = run.session.need_backend()?.parameters.get();
    match parameters.and_then(|parameters| parameters.show(name)) {
        Some(value) => Ok(Value::text(value)),
        None if arguments.get(1).is_some_and(Value::is_true) => Ok(Value::Null),
        None => Err(Error::new(Kind::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))),
    }
}

/// The name of a type with what its modifier says.
fn format_type(run: &Run<'_>, oid: i64, modifier: Option<i64>) -> String {
    if oid == 0 {
        return "-".to_string();
    }
    let name = run.snapshot.type_name(oid as u32);
    let (name, brackets) = name.strip_suffix("[]").map_or((name.as_str(), ""), |name| (name, "[]"));
    let shown = match (name, modifier) {
        ("numeric", Some(modifier)) if modifier >= 4 => {
            format!("numeric({},{})", ((modifier - 4) >> 16) & 0xffff, (modifier - 4) & 0xffff)
        }
        ("character varying" | "character", Some(modifier)) if modifier >= 4 => format!("{name}({})", modifier - 4),
        // Without a length it is another type, although of the same name.
        ("character", Some(_)) => "bpchar".to_string(),
        (name, Some(modifier)) if modifier >= 0 && name.starts_with("time") => match name.split_once(' ') {
            Some((first, rest)) => format!("{first}({modifier}) {rest}"),
            None => format!("{name}({modifier})"),
        },
        (name, _) => name.to_string(),
    };
    shown + brackets
}

/// The comment of an object, of a class if one is given, or of one of its parts.
fn comment(run: &Run<'_>, oid: &Value, class: Option<u32>, part: i64) -> Result<Value> {
    let Some((at, system)) = crate::catalog::postgres::base::base().relation("pg_catalog", "pg_description") else {
        return Ok(Value::Null);
    };
    let rows = run.relation(at);
    let place = |name: &str| system.column(name).unwrap_or_default();
    let (classes, parts, texts) = (place("classoid"), place("objsubid"), place("description"));
    let index = rows.index(place("objoid"));
    let mut found = index.get(oid).into_iter().flatten().filter_map(|at| rows.rows().get(*at as usize));
    let fits = |row: &&Vec<Value>| {
        let of_class = class.is_none_or(|class| row[classes].as_int() == Some(i64::from(class)));
        of_class && row[parts].as_int() == Some(part)
    };
    Ok(found.find(fits).map_or(Value::Null, |row| row[texts].clone()))
}

/// Whether the schema of an object is searched for names without one; that of our own functions is, too.
fn in_path(run: &Run<'_>, table: &str, column: &str, oid: &Value, ours: bool) -> Result<Value> {
    let Some(namespace) = run.get(table, "oid", oid, column)? else { return Ok(Value::Null) };
    let name = run.get("pg_namespace", "oid", &namespace, "nspname")?;
    let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
    Ok(Value::Bool(name == "pg_catalog" || name == PUBLIC || ours && name == crate::engine::SYSTEM))
}

/// Bytes that are kept of a relation.
fn size(run: &Run<'_>, oid: &Value) -> Result<Value> {
    let Some(relation) = relation(run, oid) else { return Ok(Value::Null) };
    if relation.schema != PUBLIC {
        return Ok(Value::Int(0));
    }
    Ok(Value::Int(bytes(run, &relation.name) as i64))
}

fn bytes(run: &Run<'_>, name: &str) -> u64 {
    let engine = run.session.engine();
    if let Some(stream) = engine.stream(name) {
        let archived = stream.runner.log.archived().map_or(0, |archive| archive.rows.bytes + archive.malformed.bytes);
        return stream.runner.log.wal().bytes() + archived;
    }
    if let Some(view) = engine.view(name) {
        let rollups = view.slots.iter().filter_map(|slot| slot.rollup.get());
        return rollups.map(|rollup| rollup.bytes() as u64 + rollup.disk_bytes()).sum();
    }
    let table = engine.object(name).filter(|object| object.kind == ObjectKind::ReferenceTable);
    table.and_then(|table| table.versions.last().map(|version| version.bytes)).unwrap_or(0)
}

fn everything(run: &Run<'_>) -> i64 {
    let objects = run.session.engine().objects();
    objects.iter().map(|object| bytes(run, &object.name)).sum::<u64>() as i64
}

/// A number of bytes as `pg_size_pretty` writes it: rounded, in the first unit in which it is below 10240.
fn pretty(bytes: i64) -> String {
    let (mut value, units) = (i128::from(bytes), ["bytes", "kB", "MB", "GB", "TB", "PB"]);
    if value.abs() < 10240 {
        return format!("{value} bytes");
    }
    // Half a unit is kept until the end, for rounding.
    value >>= 9;
    for (at, unit) in units.iter().enumerate().skip(1) {
        if value.abs() < 20480 - 1 || at == units.len() - 1 {
            return format!("{} {unit}", (value + value.signum()) / 2);
        }
        value >>= 10;
    }
    format!("{bytes} bytes")
}

fn columns_of(run: &Run<'_>, relation: &Value, numbers: &Value) -> Result<Vec<String>> {
    let columns = self::relation(run, relation).map(|relation| &relation.columns);
    let name = |number: &Value| {
        let at = number.as_int().and_then(|number| usize::try_from(number - 1).ok());
        at.and_then(|at| columns?.get(at)).map_or_else(|| "?".to_string(), |column| identifier(&column.name))
    };
    Ok(numbers.as_list().unwrap_or_default().iter().map(name).collect())
}

/// `CREATE INDEX …` of an index of the catalog, or one of its columns.
fn index_definition(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let get = |column: &str| run.get("pg_index", "indexrelid", &arguments[0], column);
    let (Some(table), Some(key), Some(unique)) = (get("indrelid")?, get("indkey")?, get("indisunique")?) else {
        return Ok(Value::Null);
    };
    let columns = columns_of(run, &table, &key)?;
    if let Some(number) = arguments.get(1).and_then(Value::as_int).filter(|number| *number > 0) {
        return Ok(columns.get(number as usize - 1).map_or(Value::Null, Value::text));
    }
    let (Some(index), Some(table)) = (relation(run, &arguments[0]), relation(run, &table)) else {
        return Ok(Value::Null);
    };
    let unique = if unique.is_true() { "UNIQUE " } else { "" };
    // Written for people, a name stands without its schema where it is found without.
    let table = match arguments.get(2).is_some_and(Value::is_true) {
        true => table.shown_name(),
        false => format!("{}.{}", identifier(&table.schema), identifier(&table.name)),
    };
    let (name, columns) = (identifier(&index.name), columns.join(", "));
    Ok(Value::text(format!("CREATE {unique}INDEX {name} ON {table} USING btree ({columns})")))
}

fn constraint_definition(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let get = |column: &str| run.get("pg_constraint", "oid", &arguments[0], column);
    let (Some(kind), Some(table), Some(key)) = (get("contype")?, get("conrelid")?, get("conkey")?) else {
        return Ok(Value::Null);
    };
    let columns = columns_of(run, &table, &key)?.join(", ");
    Ok(match kind.as_str() {
        Some("p") => Value::text(format!("PRIMARY KEY ({columns})")),
        Some("u") => Value::text(format!("UNIQUE ({columns})")),
        _ => Value::Null,
    })
}

/// What everybody and the owner may do with a new object of a kind, as PostgreSQL has it.
fn default_privileges(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let kind = arguments[0].as_str().unwrap_or_default();
    let (all, owner) = match kind {
        "c" => ("", ""),
        "r" => ("", "arwdDxt"),
        "s" => ("", "rwU"),
        "d" => ("Tc", "CTc"),
        "f" => ("X", "X"),
        "l" | "T" => ("U", "U"),
        "L" => ("", "rw"),
        "n" => ("", "UC"),
        "p" => ("", "sA"),
        "t" => ("", "C"),
        "F" | "S" => ("", "U"),
        _ => {
            let message = format!("unrecognized objtype abbreviation: {kind}");
            return Err(Error::new(Kind::InvalidParameter, message));
        }
    };
    let name = show(run, &arguments[1], types::REGROLE);
    let entries = [("", all), (name.as_str(), owner)].into_iter().filter(|(_, privileges)| !privileges.is_empty());
    Ok(Value::list(entries.map(|(role, privileges)| Value::text(format!("{role}={privileges}/{name}"))).collect()))
}

fn function_result(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let get = |column: &str| run.get("pg_proc", "oid", &arguments[0], column);
    let Some(of) = get("prorettype")? else { return Ok(Value::Null) };
    if get("prokind")?.as_ref().and_then(Value::as_str) == Some("p") {
        return Ok(Value::Null);
    }
    let (modes, all, names) = (get("proargmodes")?, get("proallargtypes")?, get("proargnames")?);
    let table = columns_in(run, modes.as_ref(), all.as_ref(), names.as_ref(), "t");
    if !table.is_empty() {
        return Ok(Value::text(format!("TABLE({})", table.join(", "))));
    }
    let set = if get("proretset")?.is_some_and(|set| set.is_true()) { "SETOF " } else { "" };
    Ok(Value::text(format!("{set}{}", show(run, &of, types::REGTYPE))))
}

/// Names and types of the arguments of a mode.
fn columns_in(
    run: &Run<'_>,
    modes: Option<&Value>,
    all: Option<&Value>,
    names: Option<&Value>,
    wanted: &str,
) -> Vec<String> {
    let list = |value: Option<&Value>| value.and_then(Value::as_list).map(<[Value]>::to_vec).unwrap_or_default();
    let (modes, all, names) = (list(modes), list(all), list(names));
    let mut out = Vec::new();
    for (at, of) in all.iter().enumerate() {
        if modes.get(at).and_then(Value::as_str) != Some(wanted) {
            continue;
        }
        let of = show(run, of, types::REGTYPE);
        match names.get(at).and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => out.push(format!("{} {of}", identifier(name))),
            None => out.push(of),
        }
    }
    out
}

fn function_arguments(run: &Run<'_>, oid: &Value) -> Result<Value> {
    let get = |column: &str| run.get("pg_proc", "oid", oid, column);
    let Some(given) = get("proargtypes")? else { return Ok(Value::Null) };
    let (modes, all, names) = (get("proargmodes")?, get("proallargtypes")?, get("proargnames")?);
    let list =
        |value: Option<Value>| value.as_ref().and_then(Value::as_list).map(<[Value]>::to_vec).unwrap_or_default();
    let (modes, all, names) = (list(modes), list(all), list(names));
    let kinds = if all.is_empty() { given.as_list().unwrap_or_default().to_vec() } else { all };
    let mut out = Vec::new();
    for (at, of) in kinds.iter().enumerate() {
        let mode = modes.get(at).and_then(Value::as_str).unwrap_or("i");
        let prefix = match mode {
            "i" => "",
            "o" => "OUT ",
            "b" => "INOUT ",
            "v" => "VARIADIC ",
            _ => continue,
        };
        let of = show(run, of, types::REGTYPE);
        match names.get(at).and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => out.push(format!("{prefix}{} {of}", identifier(name))),
            None => out.push(format!("{prefix}{of}")),
        }
    }
    Ok(Value::text(out.join(", ")))
}

/// What kinds of indexes can do, of those that PostgreSQL has.
fn am_property(run: &Run<'_>, arguments: &[Value]) -> Result<Value> {
    let name = run.get("pg_am", "oid", &arguments[0], "amname")?;
    let is_tree = name.as_ref().and_then(Value::as_str) == Some("btree");
    Ok(match arguments[1].as_str() {
        Some("can_order" | "can_unique") => Value::Bool(is_tree),
        Some("can_multi_col" | "can_exclude" | "can_include") => Value::Bool(is_tree),
        _ => Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What PostgreSQL 15 gives.
    #[test]
    fn sizes_are_rounded_as_postgres_rounds_them() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (10239, "10239 bytes"),
            (10240, "10 kB"),
            (10752, "11 kB"),
            (-10752, "-11 kB"),
            (10484736, "10239 kB"),
            (10485248, "10 MB"),
            (1 << 40, "1024 GB"),
        ] {
            assert_eq!(pretty(bytes), shown);
        }
    }
}
