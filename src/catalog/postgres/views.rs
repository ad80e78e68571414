//! Views of `pg_catalog` whose rows change from moment to moment, with PostgreSQL's columns (its manual, The Cumulative
//! Statistics System and System Views): `pg_stat_activity`, filled from the backends of the engine, settings, counts.

use super::SERVER_VERSION;
use crate::backend::{Backend, Phase};
use crate::catalog::system::{Relation, Value};
use crate::engine::Engine;

/// Their rows are made when they are read.
pub static RELATIONS: &[Relation] = &[
    Relation {
        name: "pg_stat_activity",
        summary: "the clients that are connected",
        columns: &[
            ("datid", "integer"),
            ("datname", "text"),
            ("pid", "integer"),
            ("leader_pid", "integer"),
            ("usesysid", "integer"),
            ("usename", "text"),
            ("application_name", "text"),
            ("client_addr", "text"),
            ("client_hostname", "text"),
            ("client_port", "integer"),
            ("backend_start", "timestamptz"),
            ("xact_start", "timestamptz"),
            ("query_start", "timestamptz"),
            ("state_change", "timestamptz"),
            ("wait_event_type", "text"),
            ("wait_event", "text"),
            ("state", "text"),
            ("backend_xid", "bigint"),
            ("backend_xmin", "bigint"),
            ("query_id", "bigint"),
            ("query", "text"),
            ("backend_type", "text"),
        ],
        rows: |engine: &Engine| engine.backends().list().iter().map(|backend| activity(backend)).collect(),
    },
    Relation {
        name: "pg_settings",
        summary: "what connections begin with",
        columns: &[
            ("name", "text"),
            ("setting", "text"),
            ("unit", "text"),
            ("category", "text"),
            ("short_desc", "text"),
            ("extra_desc", "text"),
            ("context", "text"),
            ("vartype", "text"),
            ("source", "text"),
            ("min_val", "text"),
            ("max_val", "text"),
            ("enumvals", "text"),
            ("boot_val", "text"),
            ("reset_val", "text"),
            ("sourcefile", "text"),
            ("sourceline", "integer"),
            ("pending_restart", "boolean"),
        ],
        rows: |_| SETTINGS.iter().map(|(name, value)| setting(name, value)).collect(),
    },
    Relation {
        name: "pg_stat_database",
        summary: "the database and how many are connected",
        columns: &[
            ("datid", "integer"),
            ("datname", "text"),
            ("numbackends", "integer"),
            ("xact_commit", "bigint"),
            ("xact_rollback", "bigint"),
            ("blks_read", "bigint"),
            ("blks_hit", "bigint"),
            ("tup_returned", "bigint"),
            ("tup_fetched", "bigint"),
            ("tup_inserted", "bigint"),
            ("tup_updated", "bigint"),
            ("tup_deleted", "bigint"),
            ("conflicts", "bigint"),
            ("temp_files", "bigint"),
            ("temp_bytes", "bigint"),
            ("deadlocks", "bigint"),
            ("stats_reset", "timestamptz"),
        ],
        rows: database,
    },
];

/// Settings that tools look for.
const SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("block_size", "8192"),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("default_transaction_isolation", "read committed"),
    ("integer_datetimes", "on"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "150000"),
    ("standard_conforming_strings", "on"),
    ("transaction_isolation", "read committed"),
    ("wal_level", "replica"),
];

fn setting(name: &str, value: &str) -> Vec<Value> {
    let text = |text: &str| Value::Text(Some(text.to_string()));
    let mut row = vec![text(name), text(value)];
    row.extend((0..4).map(|_| Value::Text(None)));
    row.extend([text("user"), text("string"), text("default")]);
    row.extend((0..3).map(|_| Value::Text(None)));
    row.extend([text(value), text(value), Value::Text(None), Value::Int(None), Value::Bool(false)]);
    row
}

fn database(engine: &Engine) -> Vec<Vec<Value>> {
    let connected = engine.backends().list().len() as i64;
    let mut row = vec![Value::Int(None), Value::Text(Some(engine.database().to_string())), Value::Int(Some(connected))];
    // Nothing of this is counted.
    row.extend((0..13).map(|_| Value::Int(Some(0))));
    row.push(Value::Time(None));
    vec![row]
}

fn activity(backend: &Backend) -> Vec<Value> {
    let text = |text: &str| Value::Text(Some(text.to_string()));
    let now = backend.activity();
    // PostgreSQL knows no queue: there, a query that waits is active.
    let (state, waits_for) = match now.phase {
        Phase::Waiting => (Phase::Active, Some(("Extension", "QueryQueue"))),
        Phase::Idle | Phase::InTransaction | Phase::InFailedTransaction => (now.phase, Some(("Client", "ClientRead"))),
        Phase::Active => (Phase::Active, None),
    };
    vec![
        Value::Int(None),
        text(&now.database),
        Value::Int(Some(i64::from(backend.pid))),
        Value::Int(None),
        Value::Int(None),
        text(&now.user),
        text(&now.application),
        Value::Text(backend.address.as_ref().map(|(host, _)| host.clone())),
        Value::Text(None),
        Value::Int(backend.address.as_ref().map(|(_, port)| i64::from(*port))),
        Value::Time(Some(backend.started)),
        Value::Time(now.transaction_start),
        Value::Time(now.query_start),
        Value::Time(Some(now.changed)),
        Value::Text(waits_for.map(|(kind, _)| kind.to_string())),
        Value::Text(waits_for.map(|(_, event)| event.to_string())),
        text(state.word()),
        Value::Int(None),
        Value::Int(None),
        Value::Int(None),
        text(&now.query),
        text("client backend"),
    ]
}
