//! The relations of schema `logweir`: the engine's own state as SQL.
//!
//! Each is a row type and a function that lists its rows at the moment of the query; [`RELATIONS`] is the table of them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::logical_expr::{Expr, TableType};

use crate::access::PREDEFINED;
use crate::alert::ledger::{Event, Note, Remembered};
use crate::alert::track::{Kept, Key};
use crate::alert::watch::{fits, labels, named};
use crate::catalog::ObjectKind;
use crate::database::{Database, State};
use crate::delivery::dead::SUFFIX as DEAD_SUFFIX;
use crate::engine::{COMPANIONS, Engine, PUBLIC, ReportHandle, owner_of};
use crate::error::Result;
use crate::format::timestamp_type;
use crate::opaque::{Scanned, scan_at_once};
use crate::rollup::watermark::NEVER;
use crate::rollup::window::to_micros;
use crate::time::{Micros, UTC};

/// One value of a system relation.
pub enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Bool(bool),
    Time(Option<Micros>),
}

/// One system relation.
pub struct Relation {
    pub name: &'static str,
    pub summary: &'static str,
    /// Name and type (`text`, `integer`, `bigint`, `boolean`, `timestamptz`).
    pub columns: &'static [(&'static str, &'static str)],
    pub rows: fn(&Engine) -> Vec<Vec<Value>>,
}

/// Every system relation.
pub static RELATIONS: &[Relation] = &[
    Relation {
        name: "relations",
        summary: "what can be read in schema public: its kind, what it reads, the rows of tables",
        columns: &[
            ("name", "text"),
            ("kind", "text"),
            ("reads", "text"),
            ("rows", "bigint"),
            ("bytes", "bigint"),
            ("version", "bigint"),
            ("versions", "bigint"),
        ],
        rows: relations,
    },
    Relation {
        name: "sources",
        summary: "what feeds the streams: state, where it listens, how much was read, is left, and was lost before it could be read, the last error",
        columns: &[
            ("stream", "text"),
            ("source", "text"),
            ("connector", "text"),
            ("address", "text"),
            ("partition", "text"),
            ("state", "text"),
            ("position", "bigint"),
            ("lag", "bigint"),
            ("frames", "bigint"),
            ("bytes", "bigint"),
            ("lost", "bigint"),
            ("last_read", "timestamptz"),
            ("errors", "bigint"),
            ("last_error", "text"),
        ],
        rows: sources,
    },
    Relation {
        name: "sinks",
        summary: "where results go: state, how much was delivered, how much is left, what was refused, the last error",
        columns: &[
            ("name", "text"),
            ("connector", "text"),
            ("relation", "text"),
            ("state", "text"),
            ("delivered_rows", "bigint"),
            ("delivered_offset", "bigint"),
            ("delivered_window", "timestamptz"),
            ("lag", "bigint"),
            ("batches", "bigint"),
            ("retries", "bigint"),
            ("dead_rows", "bigint"),
            ("lost_offsets", "bigint"),
            ("last_delivery", "timestamptz"),
            ("last_error", "text"),
        ],
        rows: sinks,
    },
    Relation {
        name: "alerts",
        summary: "what is watched: each instance with its state (ok, pending, firing, resolved, or error of the alert as a whole), since when, and the last row that matched",
        columns: &[
            ("name", "text"),
            ("relation", "text"),
            ("key", "text"),
            ("state", "text"),
            ("since", "timestamptz"),
            ("fired", "timestamptz"),
            ("value", "text"),
            ("severity", "text"),
            ("last_told", "timestamptz"),
            ("acknowledged", "boolean"),
            ("silenced_until", "timestamptz"),
            ("notify", "text"),
            ("error", "text"),
        ],
        rows: alerts,
    },
    Relation {
        name: "alert_history",
        summary: "the last 10000 changes of state: in event time and when they were noticed",
        columns: &[
            ("name", "text"),
            ("key", "text"),
            ("from_state", "text"),
            ("to_state", "text"),
            ("at", "timestamptz"),
            ("noticed", "timestamptz"),
            ("value", "text"),
            ("reason", "text"),
        ],
        rows: alert_history,
    },
    Relation {
        name: "reports",
        summary: "what is sent on a schedule: when it is due, when it was last due and sent, whether that was late and how many were left out, the last error",
        columns: &[
            ("name", "text"),
            ("every", "text"),
            ("notify", "text"),
            ("next_due", "timestamptz"),
            ("last_due", "timestamptz"),
            ("last_sent", "timestamptz"),
            ("late", "boolean"),
            ("missed", "bigint"),
            ("last_error", "text"),
        ],
        rows: reports,
    },
    Relation {
        name: "notifications",
        summary: "what waits to be told, and the last 2000 that were: tries, when, the last error",
        columns: &[
            ("id", "text"),
            ("alert", "text"),
            ("notifier", "text"),
            ("title", "text"),
            ("state", "text"),
            ("made", "timestamptz"),
            ("due", "timestamptz"),
            ("ended", "timestamptz"),
            ("tries", "bigint"),
            ("last_error", "text"),
        ],
        rows: notifications,
    },
    Relation {
        name: "notifiers",
        summary: "who can be told: state, how much was sent and waits, the last error",
        columns: &[
            ("name", "text"),
            ("type", "text"),
            ("state", "text"),
            ("sent", "bigint"),
            ("waiting", "bigint"),
            ("retries", "bigint"),
            ("refused", "bigint"),
            ("last_sent", "timestamptz"),
            ("last_error", "text"),
        ],
        rows: notifiers,
    },
    Relation {
        name: "queries",
        summary: "the clients that are connected: what each runs, or ran last (without secrets, at most 1024 bytes), since when, the rows of its result so far, the memory that it holds",
        columns: &[
            ("pid", "integer"),
            ("user_name", "text"),
            ("application", "text"),
            ("client", "text"),
            ("state", "text"),
            ("query", "text"),
            ("started", "timestamptz"),
            ("changed", "timestamptz"),
            ("connected", "timestamptz"),
            ("rows", "bigint"),
            ("memory", "bigint"),
        ],
        rows: queries,
    },
    Relation {
        name: "databases",
        summary: "the databases of the server, in a tenant that one alone: whether open or failed and why, what each may use and what it uses now (bytes, connections, queries)",
        columns: &[
            ("name", "text"),
            ("state", "text"),
            ("error", "text"),
            ("ingest_rate", "bigint"),
            ("bytes_kept", "bigint"),
            ("bytes_used", "bigint"),
            ("query_memory", "bigint"),
            ("query_memory_used", "bigint"),
            ("memory", "bigint"),
            ("memory_used", "bigint"),
            ("connections", "bigint"),
            ("connections_used", "bigint"),
            ("max_queries", "bigint"),
            ("queries", "bigint"),
            ("statement_timeout", "text"),
            ("allow_files", "text"),
            ("allow_hosts", "text"),
        ],
        rows: databases,
    },
    Relation {
        name: "roles",
        summary: "who may come in: whether with a password, of which roles they are members, their tokens",
        columns: &[
            ("name", "text"),
            ("admin", "boolean"),
            ("login", "boolean"),
            ("password", "boolean"),
            ("member_of", "text"),
            ("tokens", "text"),
        ],
        rows: roles,
    },
    Relation {
        name: "grants",
        summary: "the privileges that were given to roles, and what they own",
        columns: &[("role", "text"), ("privilege", "text"), ("schema", "text"), ("relation", "text")],
        rows: grants,
    },
    Relation {
        name: "streams",
        summary: "the stored streams: rows, malformed lines, size on disk and in memory",
        columns: &[
            ("name", "text"),
            ("format_columns", "bigint"),
            ("time_column", "text"),
            ("next_offset", "bigint"),
            ("rows", "bigint"),
            ("malformed", "bigint"),
            ("bytes", "bigint"),
            ("wal_bytes", "bigint"),
            ("hot_bytes", "bigint"),
            ("archived_rows", "bigint"),
            ("archive_bytes", "bigint"),
            ("archive_files", "bigint"),
            ("unarchived_bytes", "bigint"),
            ("watermark", "timestamptz"),
            ("views", "bigint"),
            ("archive_error", "text"),
        ],
        rows: streams,
    },
    Relation {
        name: "views",
        summary: "the materialized views: how far they are, how much of their state is in memory and on disk, open windows",
        columns: &[
            ("name", "text"),
            ("stream", "text"),
            ("state", "text"),
            ("next_offset", "bigint"),
            ("lag", "bigint"),
            ("state_rows", "bigint"),
            ("state_bytes", "bigint"),
            ("disk_bytes", "bigint"),
            ("memory_limit", "bigint"),
            ("open_windows", "bigint"),
            ("late_rows", "bigint"),
            ("shared_with", "text"),
            ("error", "text"),
        ],
        rows: views,
    },
    Relation {
        name: "watermarks",
        summary: "how far event time has come, per partition of each stream",
        columns: &[
            ("stream", "text"),
            ("partition", "text"),
            ("stream_watermark", "timestamptz"),
            ("watermark", "timestamptz"),
            ("max_time", "timestamptz"),
            ("last_row", "timestamptz"),
            ("idle", "boolean"),
            ("rows", "bigint"),
            ("late_rows", "bigint"),
            ("future_rows", "bigint"),
        ],
        rows: watermarks,
    },
];

fn text(value: impl Into<String>) -> Value {
    Value::Text(Some(value.into()))
}

fn int(value: u64) -> Value {
    Value::Int(Some(value as i64))
}

fn time(value: Micros) -> Value {
    Value::Time((value != NEVER).then_some(value))
}

fn relations(engine: &Engine) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for object in engine.objects() {
        // A source is in logweir.sources, a sink in logweir.sinks and so on.
        match object.kind {
            ObjectKind::Source | ObjectKind::Notifier | ObjectKind::Alert | ObjectKind::Report => continue,
            ObjectKind::Sink => {
                let mut row = vec![text(format!("{}{DEAD_SUFFIX}", object.name)), text("dead letters")];
                row.push(text(&object.name));
                row.extend((0..4).map(|_| Value::Int(None)));
                rows.push(row);
                continue;
            }
            ObjectKind::Stream
            | ObjectKind::MaterializedView
            | ObjectKind::View
            | ObjectKind::ExternalTable
            | ObjectKind::ReferenceTable => {}
        }
        let derived = engine.view(&object.name).is_some_and(|v| v.derived.is_some());
        let kind = match object.kind {
            ObjectKind::Stream => "stream",
            ObjectKind::MaterializedView if derived => "derived stream",
            other => other.word(),
        };
        let reads: Vec<&str> = object.reads.iter().map(String::as_str).collect();
        let versions = engine.reference(&object.name).map_or_else(Vec::new, |table| table.versions());
        let newest = versions.last();
        rows.push(vec![
            text(&object.name),
            text(kind),
            Value::Text((!reads.is_empty()).then(|| reads.join(", "))),
            Value::Int(newest.map(|v| v.rows as i64)),
            Value::Int(newest.map(|v| v.bytes as i64)),
            Value::Int(newest.map(|v| v.number as i64)),
            Value::Int((!versions.is_empty()).then_some(versions.len() as i64)),
        ]);
        let companions = if object.kind == ObjectKind::Stream { COMPANIONS } else { &[] };
        for (suffix, part) in companions {
            let mut row = vec![text(format!("{}{suffix}", object.name)), text(part.words())];
            row.push(text(&object.name));
            row.extend((0..4).map(|_| Value::Int(None)));
            rows.push(row);
        }
    }
    rows
}

fn sources(engine: &Engine) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for stream in engine.streams() {
        let paused = stream.paused();
        for status in stream.sources() {
            let mut now = status.get();
            if let (Some(err), true) = (&paused, now.state != "ended") {
                (now.state, now.last_error) = ("paused", Some(err.to_string()));
            }
            let total = |n: &std::sync::atomic::AtomicU64| int(n.load(std::sync::atomic::Ordering::Relaxed));
            let mut row = |partition: Option<&crate::source::Partition>| {
                let lag = partition.and_then(|p| p.end.map(|end| end.saturating_sub(p.position) as i64));
                rows.push(vec![
                    text(&stream.name),
                    text(&status.name),
                    text(&status.connector),
                    Value::Text(now.address.clone()),
                    Value::Text(partition.map(|p| p.name.clone())),
                    text(now.state),
                    Value::Int(partition.map(|p| p.position as i64)),
                    Value::Int(lag),
                    total(&status.frames),
                    total(&status.bytes),
                    Value::Int(now.lost.map(|lost| lost as i64)),
                    Value::Time(now.last_read),
                    int(now.errors),
                    Value::Text(now.last_error.clone()),
                ]);
            };
            match now.partitions.as_slice() {
                [] => row(None),
                all => all.iter().for_each(|p| row(Some(p))),
            }
        }
    }
    rows
}

fn sinks(engine: &Engine) -> Vec<Vec<Value>> {
    let rows = engine.sinks().into_iter().map(|sink| {
        let now = sink.status.get();
        vec![
            text(&sink.name),
            text(sink.connector),
            text(&sink.from),
            text(now.state),
            int(now.rows),
            int(now.position.offset),
            Value::Time(now.position.window),
            Value::Int(sink.lag().map(|lag| lag as i64)),
            int(now.batches),
            int(now.retries),
            int(now.dead),
            int(now.lost),
            Value::Time(now.last_delivery),
            Value::Text(now.last_error),
        ]
    });
    rows.collect()
}

/// `path=/x, host=a`; NULL without a key.
fn key_text(key: &[(String, Option<String>)]) -> Value {
    let one = |(name, value): &(String, Option<String>)| format!("{name}={}", value.as_deref().unwrap_or("NULL"));
    Value::Text((!key.is_empty()).then(|| key.iter().map(one).collect::<Vec<_>>().join(", ")))
}

fn row_text(row: &serde_json::Map<String, serde_json::Value>) -> Value {
    Value::Text((!row.is_empty()).then(|| serde_json::Value::from(row.clone()).to_string()))
}

fn alerts(engine: &Engine) -> Vec<Vec<Value>> {
    let Some(ledger) = engine.ledger() else { return Vec::new() };
    let now = engine.clock().now();
    let mut rows = Vec::new();
    for handle in engine.alerts() {
        let definition = &handle.definition;
        ledger.look(|book| {
            let none = Remembered::default();
            let remembered = book.alerts.get(&handle.id).unwrap_or(&none);
            let problem = remembered.problem.as_ref();
            let silenced = |key: &Key, kept: Option<&Kept>| {
                let labels = kept.map(|kept| labels(definition, key, &kept.row)).unwrap_or_default();
                let mine = book.silences.iter().filter(|silence| silence.alert == handle.id && silence.until > now);
                mine.filter(|silence| fits(&silence.matching, definition, key, &labels)).map(|s| s.until).max()
            };
            let mut row = |key: &Key, kept: Option<&Kept>| {
                let instance = kept.map(|kept| &kept.instance);
                let state = match (problem, instance) {
                    (Some(_), _) => "error",
                    (None, Some(instance)) => instance.state.word(),
                    (None, None) => "ok",
                };
                rows.push(vec![
                    text(&definition.name),
                    text(&definition.from),
                    key_text(&named(definition, key)),
                    text(state),
                    Value::Time(problem.map(|p| p.since).or_else(|| instance.map(|instance| instance.since.time()))),
                    Value::Time(kept.and_then(|kept| kept.fired).map(|fired| fired.event)),
                    kept.map_or(Value::Text(None), |kept| row_text(&kept.row)),
                    text(&definition.severity),
                    Value::Time(kept.and_then(|kept| kept.told)),
                    Value::Bool(kept.is_some_and(|kept| kept.acknowledged)),
                    Value::Time(silenced(key, kept)),
                    text(definition.telling.notify.join(", ")),
                    Value::Text(problem.map(|problem| problem.reason.clone())),
                ]);
            };
            if remembered.instances.is_empty() {
                row(&Vec::new(), None);
            }
            remembered.instances.iter().for_each(|(key, kept)| row(key, Some(kept)));
        });
    }
    rows
}

fn alert_history(engine: &Engine) -> Vec<Vec<Value>> {
    let Some(ledger) = engine.ledger() else { return Vec::new() };
    ledger.look(|book| {
        let row = |event: &Event| {
            vec![
                text(&event.alert),
                key_text(&event.key),
                text(&event.from),
                text(&event.to),
                Value::Time(Some(event.at.event)),
                Value::Time(Some(event.at.wall)),
                row_text(&event.row),
                Value::Text(event.reason.clone()),
            ]
        };
        book.events.iter().map(row).collect()
    })
}

fn reports(engine: &Engine) -> Vec<Vec<Value>> {
    let Some(ledger) = engine.ledger() else { return Vec::new() };
    let now = engine.clock().now();
    let row = |handle: Arc<ReportHandle>| {
        let definition = &handle.definition;
        let (reported, untold) = ledger.look(|book| {
            let mine = book.notes.values().filter(|note| note.alert == handle.id);
            let untold = mine.filter(|note| note.done.is_none_or(|done| !done.taken));
            let error = untold.filter_map(|note| note.last_error.clone()).next_back();
            (book.reports.get(&handle.id).cloned().unwrap_or_default(), error)
        });
        let schedule = &definition.schedule;
        vec![
            text(&definition.name),
            text(schedule.to_string()),
            text(definition.notify.join(", ")),
            Value::Time(Some(schedule.next(now.max(reported.due)))),
            Value::Time(Some(reported.due)),
            Value::Time(reported.sent),
            Value::Bool(reported.late),
            int(reported.missed),
            Value::Text(reported.error.or(untold)),
        ]
    };
    engine.reports().into_iter().map(row).collect()
}

fn notifications(engine: &Engine) -> Vec<Vec<Value>> {
    let Some(ledger) = engine.ledger() else { return Vec::new() };
    ledger.look(|book| {
        let row = |note: &Note| {
            let (state, ended) = match note.done {
                None if note.tries == 0 => ("waiting", None),
                None => ("retrying", None),
                Some(done) => (if done.taken { "sent" } else { "refused" }, Some(done.at)),
            };
            let title = if note.done.is_some() { note.title.clone() } else { note.message().title() };
            vec![
                text(&note.id),
                text(&note.name),
                text(&note.notifier),
                text(title),
                text(state),
                Value::Time(Some(note.made)),
                Value::Time(Some(note.due)),
                Value::Time(ended),
                int(note.tries),
                Value::Text(note.last_error.clone()),
            ]
        };
        book.notes.values().map(row).collect()
    })
}

fn notifiers(engine: &Engine) -> Vec<Vec<Value>> {
    let ledger = engine.ledger();
    let rows = engine.notifiers().into_iter().map(|notifier| {
        let now = notifier.health.get();
        let waits = |note: &&Note| note.notifier == notifier.name && note.done.is_none();
        let waiting = ledger.as_ref().map_or(0, |ledger| ledger.look(|book| book.notes.values().filter(waits).count()));
        vec![
            text(&notifier.name),
            text(notifier.spec.name),
            text(now.state),
            int(now.sent),
            int(waiting as u64),
            int(now.retries),
            int(now.refused),
            Value::Time(now.last_sent),
            Value::Text(now.last_error),
        ]
    });
    rows.collect()
}

fn queries(engine: &Engine) -> Vec<Vec<Value>> {
    let rows = engine.backends().list().into_iter().map(|backend| {
        let now = backend.activity();
        let client = backend.address.as_ref().map(|(host, port)| format!("{host}:{port}"));
        vec![
            Value::Int(Some(i64::from(backend.pid))),
            text(now.user),
            text(now.application),
            Value::Text(client),
            text(now.phase.word()),
            text(&*now.query),
            Value::Time(now.query_start),
            Value::Time(Some(now.changed)),
            Value::Time(Some(backend.started)),
            int(backend.rows.load(Ordering::Relaxed)),
            int(backend.memory.load(Ordering::Relaxed) as u64),
        ]
    });
    rows.collect()
}

/// A tenant is shown itself alone.
fn databases(engine: &Engine) -> Vec<Vec<Value>> {
    let Some(databases) = engine.databases() else { return Vec::new() };
    let shown = databases.all().into_iter().filter(|database| engine.is_main() || database.name == engine.database());
    shown.map(|database| database_row(&database)).collect()
}

fn database_row(database: &Database) -> Vec<Value> {
    let (state, err, open) = match database.state() {
        State::Open(engine) => ("open", None, Some(engine)),
        State::Failed(err) => ("failed", Some(err.to_string()), None),
        State::Closed => ("closing", None, None),
    };
    let quotas = database.quotas();
    let number = |value: Option<u64>| Value::Int(value.and_then(|value| i64::try_from(value).ok()));
    let names = |names: Vec<String>| Value::Text((!names.is_empty()).then(|| names.join(", ")));
    let (config, used) = (open.as_ref().map(|engine| engine.config()), open.as_ref().map(|engine| engine.usage()));
    let (most, connected) = match &open {
        // Those of the main database are counted where they come in.
        Some(engine) if database.is_main() => (None, engine.backends().list().len()),
        Some(_) | None => (Some(database.connections().0 as u64), database.connections().1),
    };
    vec![
        text(&database.name),
        text(state),
        Value::Text(err),
        number(quotas.ingest_rate),
        number(quotas.bytes_kept.or(config.and_then(|config| config.disk_limit))),
        number(used.map(|used| used.kept)),
        number(config.map(|config| config.query_memory)),
        number(used.map(|used| used.query_memory)),
        number(config.map(|config| config.state_memory)),
        number(used.map(|used| used.state_memory)),
        number(most),
        int(connected as u64),
        number(used.map(|used| used.most_queries as u64)),
        number(used.map(|used| used.queries as u64)),
        Value::Text(quotas.timeout_text()),
        names(quotas.allow_files),
        names(quotas.allow_hosts),
    ]
}

fn roles(engine: &Engine) -> Vec<Vec<Value>> {
    engine.roles(|roles| {
        let names = |names: Vec<&str>| Value::Text((!names.is_empty()).then(|| names.join(", ")));
        let own = roles.roles().map(|(name, role)| {
            let tokens = roles.tokens().filter(|(_, token)| token.role == name).map(|(name, _)| name);
            vec![
                text(name),
                Value::Bool(role.admin),
                Value::Bool(role.login),
                Value::Bool(role.verifier.is_some()),
                names(role.member_of.iter().map(String::as_str).collect()),
                names(tokens.collect()),
            ]
        });
        let predefined = PREDEFINED.iter().map(|(name, _)| {
            let no = || Value::Bool(false);
            vec![text(*name), no(), no(), no(), Value::Text(None), Value::Text(None)]
        });
        own.chain(predefined).collect()
    })
}

fn grants(engine: &Engine) -> Vec<Vec<Value>> {
    engine.roles(|roles| {
        let rows = roles.roles().flat_map(|(name, role)| {
            let row = move |(relation, privilege): &(crate::access::Relation, crate::access::Privilege)| {
                vec![text(name), text(privilege.word()), text(&relation.schema), text(&relation.name)]
            };
            let create = role.creates.then(|| vec![text(name), text("CREATE"), text(PUBLIC), Value::Text(None)]);
            role.grants.iter().map(row).chain(create)
        });
        let owned = engine
            .objects()
            .into_iter()
            .map(|object| vec![text(owner_of(&object)), text("OWNER"), text(PUBLIC), text(object.name)]);
        rows.chain(owned).collect()
    })
}

fn streams(engine: &Engine) -> Vec<Vec<Value>> {
    let rows = engine.streams().into_iter().map(|stream| {
        let progress = stream.runner.progress();
        let views = engine.views().iter().filter(|v| v.reads_stream(&stream.name)).count();
        let archived = stream.runner.log.archived();
        vec![
            text(&stream.name),
            int(stream.runner.shape.schema().fields().len() as u64),
            Value::Text(stream.runner.shape.time.clone()),
            int(progress.offset),
            int(progress.rows),
            int(progress.malformed),
            int(progress.bytes),
            int(stream.runner.log.wal().bytes()),
            int(stream.runner.log.resident()),
            Value::Int(archived.as_ref().map(|a| a.rows.rows as i64)),
            Value::Int(archived.as_ref().map(|a| (a.rows.bytes + a.malformed.bytes) as i64)),
            Value::Int(archived.as_ref().map(|a| (a.rows.files().count() + a.malformed.files().count()) as i64)),
            int(stream.runner.log.unarchived()),
            time(progress.watermark.current()),
            int(views as u64),
            Value::Text(stream.archiving.error().or(stream.keeping.error()).map(|err| err.to_string())),
        ]
    });
    rows.collect()
}

fn views(engine: &Engine) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    let all = engine.views();
    for view in &all {
        if let Some(stream) = view.derived.as_ref().and_then(|name| engine.stream(name)) {
            // It keeps nothing: what the stream has, it has.
            let progress = stream.runner.progress();
            let written = stream.runner.log.wal().next_offset();
            rows.push(vec![
                text(&view.name),
                text(&stream.name),
                text("derived"),
                int(progress.offset),
                int(written.saturating_sub(progress.offset)),
                int(0),
                int(0),
                int(0),
                Value::Int(None),
                Value::Int(None),
                int(progress.watermark.late()),
                Value::Text(None),
                Value::Text(None),
            ]);
        }
        for slot in &view.slots {
            let read: Vec<_> = slot.definition.streams().filter_map(|name| engine.stream(name)).collect();
            let (Some(stream), Some(rollup)) = (read.first(), slot.rollup.get()) else { continue };
            let names: Vec<&str> = slot.definition.streams().map(String::as_str).collect();
            let progress = stream.runner.progress();
            // Of a join, what both streams have together, as in subscriptions.
            let reached = read.iter().map(|stream| stream.runner.progress().offset).sum::<u64>();
            let written = read.iter().map(|stream| stream.runner.log.wal().next_offset()).sum::<u64>();
            let failure = stream.runner.failure(&slot.definition.key);
            let filling = *rollup.filling.lock();
            let state = match (&failure, filling, rollup.disk_bytes()) {
                (Some(_), _, _) => "failed".to_string(),
                (None, Some((all, done)), _) => format!("filling: {} %", done.min(all) * 100 / all.max(1)),
                (None, None, 0) => "live".to_string(),
                (None, None, _) => "live, partly on disk".to_string(),
            };
            let shared: Vec<&str> = all
                .iter()
                .filter(|v| v.name != view.name && v.slots.iter().any(|s| s.definition.key == slot.definition.key))
                .map(|v| v.name.as_str())
                .collect();
            // How many sessions are open is known only by reading them.
            let open = slot.definition.pane.filter(|pane| !pane.window.is_session() && read.len() == 1).map(|pane| {
                let newest = rollup.newest_pane();
                let unit = slot.definition.schema.field(pane.column).data_type();
                let newest = newest.and_then(|p| to_micros(unit, p)).map(|p| p.min(progress.watermark.max_time()));
                open_windows(pane.window, newest, progress.watermark.current())
            });
            rows.push(vec![
                text(&view.name),
                text(names.join(", ")),
                text(state),
                int(reached),
                int(written.saturating_sub(reached)),
                int(rollup.rows() as u64),
                int(rollup.bytes() as u64),
                int(rollup.disk_bytes()),
                int(rollup.limit() as u64),
                Value::Int(open),
                int(progress.watermark.late()),
                Value::Text((!shared.is_empty()).then(|| shared.join(", "))),
                Value::Text(failure.map(|e| e.to_string())),
            ]);
        }
    }
    rows
}

/// Windows that hold rows and whose end the watermark has not passed.
fn open_windows(window: crate::rollup::window::Window, newest_pane: Option<Micros>, watermark: Micros) -> i64 {
    let Some(newest) = newest_pane.filter(|_| watermark != NEVER) else { return 0 };
    window.open(newest, watermark)
}

fn watermarks(engine: &Engine) -> Vec<Vec<Value>> {
    let now = engine.clock().now();
    let mut rows = Vec::new();
    for stream in engine.streams() {
        let progress = stream.runner.progress();
        for (partition, state, own, idle) in progress.watermark.partitions(now) {
            rows.push(vec![
                text(&stream.name),
                text(partition),
                time(progress.watermark.current()),
                time(own),
                time(state.max_time),
                time(state.last_row),
                Value::Bool(idle),
                int(state.rows),
                int(state.late),
                int(state.future),
            ]);
        }
    }
    rows
}

/// A system relation as a table. Holds the engine weakly: the engine owns the catalog that owns this.
pub struct SystemTable {
    relation: &'static Relation,
    engine: Weak<Engine>,
    schema: SchemaRef,
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemTable({})", self.relation.name)
    }
}

impl SystemTable {
    pub fn new(relation: &'static Relation, engine: Weak<Engine>) -> SystemTable {
        let fields = relation.columns.iter().map(|(name, data_type)| {
            let data_type = match *data_type {
                "text" => DataType::Utf8,
                "integer" => DataType::Int32,
                "bigint" => DataType::Int64,
                "boolean" => DataType::Boolean,
                "timestamptz" => timestamp_type(),
                other => unreachable!("the table of relations uses the type {other}"),
            };
            Field::new(*name, data_type, true)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        SystemTable { relation, engine, schema }
    }

    fn batch(&self) -> Result<RecordBatch> {
        let rows = self.engine.upgrade().map(|engine| (self.relation.rows)(&engine)).unwrap_or_default();
        let column = |i: usize| -> ArrayRef {
            let values = rows.iter().map(|row| &row[i]);
            match self.schema.field(i).data_type() {
                DataType::Int32 => {
                    let numbers =
                        values.map(|v| if let Value::Int(Some(v)) = v { i32::try_from(*v).ok() } else { None });
                    Arc::new(numbers.collect::<Int32Array>())
                }
                DataType::Int64 => {
                    Arc::new(values.map(|v| if let Value::Int(v) = v { *v } else { None }).collect::<Int64Array>())
                }
                DataType::Boolean => {
                    Arc::new(values.map(|v| Some(matches!(v, Value::Bool(true)))).collect::<BooleanArray>())
                }
                DataType::Timestamp(..) => {
                    let times = values.map(|v| if let Value::Time(v) = v { *v } else { None });
                    Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
                }
                _ => Arc::new(
                    values.map(|v| if let Value::Text(v) = v { v.as_deref() } else { None }).collect::<StringArray>(),
                ),
            }
        };
        let columns = (0..self.schema.fields().len()).map(column).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    scan_at_once!(SystemTable);
}

impl SystemTable {
    fn plan_scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Scanned {
        let batch = self.batch()?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&self.schema), projection.cloned())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::window::Window;

    #[test]
    fn a_window_is_open_until_the_watermark_reaches_its_end() {
        let minute = Window::Tumble { size: 60, offset: 0 };
        assert_eq!(open_windows(minute, Some(120), 125), 1);
        assert_eq!(open_windows(minute, Some(120), 120), 1);
        assert_eq!(open_windows(minute, Some(120), 119), 2);
        assert_eq!(open_windows(minute, Some(120), 180), 0);
        assert_eq!(open_windows(Window::Hop { slide: 10, size: 60, offset: 0 }, Some(120), 120), 6);
        assert_eq!(open_windows(minute, None, NEVER), 0);
    }
}
