//! The functions that give rows.

use super::super::run::Run;
use super::{Columns, Set};
use crate::advisory::{Held, Key};
use crate::catalog::postgres::base::base;
use crate::catalog::postgres::snapshot::DATABASE_OID;
use crate::catalog::postgres::value::{Row, Value, types};
use crate::error::{Error, Kind, Result};

/// Numbers that `generate_series` may give.
const MAX_SERIES: i64 = 1_000_000;

/// What the parser of PostgreSQL's text search tells apart, counted from 1: names and what they are.
const TOKEN_TYPES: [(&str, &str); 23] = [
    ("asciiword", "Word, all ASCII"),
    ("word", "Word, all letters"),
    ("numword", "Word, letters and digits"),
    ("email", "Email address"),
    ("url", "URL"),
    ("host", "Host"),
    ("sfloat", "Scientific notation"),
    ("version", "Version number"),
    ("hword_numpart", "Hyphenated word part, letters and digits"),
    ("hword_part", "Hyphenated word part, all letters"),
    ("hword_asciipart", "Hyphenated word part, all ASCII"),
    ("blank", "Space symbols"),
    ("tag", "XML tag"),
    ("protocol", "Protocol head"),
    ("numhword", "Hyphenated word, letters and digits"),
    ("asciihword", "Hyphenated word, all ASCII"),
    ("hword", "Hyphenated word, all letters"),
    ("url_path", "URL path"),
    ("file", "File or path name"),
    ("float", "Decimal notation"),
    ("int", "Signed integer"),
    ("uint", "Unsigned integer"),
    ("entity", "XML entity"),
];

pub static SETS: &[Set] = &[
    Set {
        name: "unnest",
        count: (1, 1),
        arguments: &[],
        of: Columns::These(&[("unnest", 0)]),
        rows: |_, arguments| Ok(list(&arguments[0]).iter().map(|value| vec![value.clone()]).collect()),
    },
    // There are none to be had.
    Set {
        name: "pg_available_extensions",
        count: (0, 0),
        arguments: &[],
        of: Columns::These(&[("name", types::NAME), ("default_version", types::TEXT), ("comment", types::TEXT)]),
        rows: |_, _| Ok(Vec::new()),
    },
    Set {
        name: "generate_series",
        count: (2, 3),
        arguments: &[types::INT8, types::INT8, types::INT8],
        of: Columns::These(&[("generate_series", types::INT4)]),
        rows: series,
    },
    Set {
        name: "generate_subscripts",
        count: (2, 3),
        arguments: &[],
        of: Columns::These(&[("generate_subscripts", types::INT4)]),
        rows: |_, arguments| Ok((1..=list(&arguments[0]).len() as i64).map(|n| vec![Value::Int(n)]).collect()),
    },
    Set {
        name: "_pg_expandarray",
        count: (1, 1),
        arguments: &[],
        of: Columns::These(&[("x", 0), ("n", types::INT4)]),
        rows: |_, arguments| {
            let numbered = list(&arguments[0]).iter().enumerate();
            Ok(numbered.map(|(at, value)| vec![value.clone(), Value::Int(at as i64 + 1)]).collect())
        },
    },
    Set {
        name: "aclexplode",
        count: (1, 1),
        arguments: &[],
        of: Columns::These(&[
            ("grantor", types::OID),
            ("grantee", types::OID),
            ("privilege_type", types::TEXT),
            ("is_grantable", types::BOOL),
        ]),
        rows: exploded,
    },
    Set {
        name: "pg_options_to_table",
        count: (1, 1),
        arguments: &[1009],
        of: Columns::These(&[("option_name", types::TEXT), ("option_value", types::TEXT)]),
        rows: |_, arguments| {
            let option = |value: &Value| {
                let text = value.as_str().unwrap_or_default();
                match text.split_once('=') {
                    Some((name, value)) => vec![Value::text(name), Value::text(value)],
                    None => vec![Value::text(text), Value::Null],
                }
            };
            Ok(list(&arguments[0]).iter().map(option).collect())
        },
    },
    Set {
        name: "regexp_split_to_table",
        count: (2, 2),
        arguments: &[types::TEXT, types::TEXT],
        of: Columns::These(&[("regexp_split_to_table", types::TEXT)]),
        rows: |run, arguments| {
            let (Some(text), Some(pattern)) = (arguments[0].as_str(), arguments[1].as_str()) else { return Ok(vec![]) };
            let how = super::super::node::Pattern::Regex { ignore_case: false };
            Ok(run.regex(pattern, how)?.split(text).map(|part| vec![Value::text(part)]).collect())
        },
    },
    Set {
        name: "string_to_table",
        count: (2, 2),
        arguments: &[types::TEXT, types::TEXT],
        of: Columns::These(&[("string_to_table", types::TEXT)]),
        rows: |_, arguments| {
            let (Some(text), Some(by)) = (arguments[0].as_str(), arguments[1].as_str()) else { return Ok(vec![]) };
            Ok(text.split(by).map(|part| vec![Value::text(part)]).collect())
        },
    },
    Set {
        name: "pg_get_keywords",
        count: (0, 0),
        arguments: &[],
        of: Columns::Relation("functions", "pg_get_keywords"),
        rows: |_, _| {
            let words = base().relation("functions", "pg_get_keywords").map(|(_, list)| list.rows.rows().to_vec());
            Ok(words.unwrap_or_default())
        },
    },
    Set {
        name: "pg_show_all_settings",
        count: (0, 0),
        arguments: &[],
        of: Columns::Relation("pg_catalog", "pg_settings"),
        rows: |run, _| {
            let settings = base().relation("pg_catalog", "pg_settings");
            Ok(settings.map(|(at, _)| run.relation(at).rows().to_vec()).unwrap_or_default())
        },
    },
    Set {
        name: "pg_tablespace_databases",
        count: (1, 1),
        arguments: &[types::OID],
        of: Columns::These(&[("pg_tablespace_databases", types::OID)]),
        rows: |_, _| Ok(vec![vec![Value::Int(i64::from(DATABASE_OID))]]),
    },
    Set {
        name: "ts_token_type",
        count: (1, 1),
        arguments: &[],
        of: Columns::These(&[("tokid", types::INT4), ("alias", types::TEXT), ("description", types::TEXT)]),
        rows: |_, arguments| {
            // There is one parser.
            let types = if arguments[0].is_null() { &[][..] } else { &TOKEN_TYPES };
            let row = |(at, (alias, what)): (usize, &(&str, &str))| {
                vec![Value::Int(at as i64 + 1), Value::text(alias), Value::text(what)]
            };
            Ok(types.iter().enumerate().map(row).collect())
        },
    },
    // Publications and the like: there are none.
    Set {
        name: "pg_get_publication_tables",
        count: (1, 1),
        arguments: &[types::TEXT],
        of: Columns::These(&[("relid", types::OID), ("attrs", types::INT2VECTOR), ("qual", types::TEXT)]),
        rows: |_, _| Ok(Vec::new()),
    },
    Set {
        name: "pg_lock_status",
        count: (0, 0),
        arguments: &[],
        of: Columns::Relation("pg_catalog", "pg_locks"),
        rows: |run, _| Ok(run.session.engine().backends().locks().into_iter().map(lock).collect()),
    },
    Set {
        name: "pg_prepared_xact",
        count: (0, 0),
        arguments: &[],
        of: Columns::These(&[
            ("transaction", 28),
            ("gid", types::TEXT),
            ("prepared", types::TIMESTAMPTZ),
            ("ownerid", types::OID),
            ("dbid", types::OID),
        ]),
        rows: |_, _| Ok(Vec::new()),
    },
    Set {
        name: "pg_partition_ancestors",
        count: (1, 1),
        arguments: &[types::REGCLASS],
        of: Columns::These(&[("relid", types::REGCLASS)]),
        rows: |_, _| Ok(Vec::new()),
    },
    Set {
        name: "pg_partition_tree",
        count: (1, 1),
        arguments: &[types::REGCLASS],
        of: Columns::These(&[
            ("relid", types::REGCLASS),
            ("parentrelid", types::REGCLASS),
            ("isleaf", types::BOOL),
            ("level", types::INT4),
        ]),
        rows: |_, _| Ok(Vec::new()),
    },
];

fn list(value: &Value) -> &[Value] {
    value.as_list().unwrap_or_default()
}

fn series(_: &Run<'_>, arguments: &[Value]) -> Result<Vec<Row>> {
    let number = |at: usize| arguments.get(at).and_then(Value::as_int);
    let (Some(from), Some(to)) = (number(0), number(1)) else { return Ok(Vec::new()) };
    let step = if arguments.len() > 2 { number(2) } else { Some(1) };
    let Some(step) = step else { return Ok(Vec::new()) };
    if step == 0 {
        return Err(Error::new(Kind::InvalidParameter, "step size cannot equal zero"));
    }
    let count = (to.saturating_sub(from)).checked_div(step).unwrap_or(-1).saturating_add(1);
    if count > MAX_SERIES {
        return Err(Error::new(Kind::ResourceLimit, format!("more than {MAX_SERIES} numbers beside the catalog")));
    }
    let ends = |at: &i64| if step > 0 { *at <= to } else { *at >= to };
    let numbers = std::iter::successors(Some(from), |at| at.checked_add(step)).take_while(ends);
    Ok(numbers.map(|number| vec![Value::Int(number)]).collect())
}

/// The row of `pg_locks` of an advisory lock: the only locks there are, and nobody waits for one. Its key stands in the
/// object ids, as in PostgreSQL.
fn lock(held: Held) -> Row {
    let half = |half: i32| Value::Int(i64::from(half as u32));
    let (class, object, parts) = match held.key {
        Key::One(key) => (half((key >> 32) as i32), half(key as i32), 1),
        Key::Two(a, b) => (half(a), half(b), 2),
    };
    let mode = if held.mode.shared { "ShareLock" } else { "ExclusiveLock" };
    vec![
        Value::text("advisory"),
        Value::Int(i64::from(DATABASE_OID)),
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        class,
        object,
        Value::Int(parts),
        Value::text(format!("{}/0", held.pid)),
        Value::Int(i64::from(held.pid)),
        Value::text(mode),
        Value::Bool(true),
        Value::Bool(false),
        Value::Null,
    ]
}

/// Access lists such as `{alice=ar/logweir}`, one row for each privilege.
fn exploded(run: &Run<'_>, arguments: &[Value]) -> Result<Vec<Row>> {
    const LETTERS: [(char, &str); 12] = [
        ('a', "INSERT"),
        ('r', "SELECT"),
        ('w', "UPDATE"),
        ('d', "DELETE"),
        ('D', "TRUNCATE"),
        ('x', "REFERENCES"),
        ('t', "TRIGGER"),
        ('X', "EXECUTE"),
        ('U', "USAGE"),
        ('C', "CREATE"),
        ('c', "CONNECT"),
        ('T', "TEMPORARY"),
    ];
    let mut rows = Vec::new();
    for entry in list(&arguments[0]) {
        let Some((grantee, rest)) = entry.as_str().and_then(|text| text.split_once('=')) else { continue };
        let (letters, grantor) = rest.split_once('/').unwrap_or((rest, ""));
        let role = |name: &str| -> Result<Value> {
            match name.trim_matches('"') {
                "" => Ok(Value::Int(0)),
                name => Ok(run.find("pg_authid", "rolname", name)?.unwrap_or(Value::Int(0))),
            }
        };
        let (grantor, grantee) = (role(grantor)?, role(grantee)?);
        let mut letters = letters.chars().peekable();
        while let Some(letter) = letters.next() {
            let grantable = letters.next_if_eq(&'*').is_some();
            if let Some((_, word)) = LETTERS.iter().find(|(known, _)| *known == letter) {
                rows.push(vec![grantor.clone(), grantee.clone(), Value::text(word), Value::Bool(grantable)]);
            }
        }
    }
    Ok(rows)
}
