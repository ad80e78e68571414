//! PostgreSQL's catalog, compared with a real PostgreSQL's: the queries of `tests/introspection/`, which are what tools send,
//! are run on both over an equivalent schema, and their results have to be the same: names, types and values.
//!
//! Before a query stand, as comments, its name and what is known of it:
//!
//! ```text
//!     -- name: \d+
//!     -- differs: why its result is another one here
//!     -- without: regex -- why rows that it finds are left out on both sides
//! ```
//!
//! A difference that is not listed fails, and so does one that is listed and gone. `{class public.access}` stands for the
//! object id of that relation on either server; in results, object ids of what was made here are replaced by such names.
//!
//! `LOGWEIR_WRITE_INTROSPECTION=1` writes into the files what differs now; the reasons are for people to write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use regex::Regex;
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::server::Server;
use crate::sinks::postgres::Postgres;

/// Object ids from here on are those of what was made.
const FIRST_OBJECT: u32 = 16384;

/// One query of a tool.
pub struct Query {
    pub name: String,
    sql: String,
    /// Why its result differs, if it does.
    pub differs: Option<String>,
    /// Rows that are left out.
    without: Vec<String>,
}

/// The queries of each tool: the tool, what its file says of it, the queries.
pub fn tools() -> Vec<(String, String, Vec<Query>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/introspection");
    let files = std::fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "sql")).collect();
    files.sort();
    let tool = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let title = text.lines().next().and_then(|line| line.strip_prefix("-- ")).expect("it begins with a title");
        let name = path.file_stem().and_then(|name| name.to_str()).expect("names are ASCII").to_string();
        let queries = text.split("\n-- name: ").skip(1).map(query).collect();
        (name, title.to_string(), queries)
    };
    files.into_iter().map(tool).collect()
}

fn query(text: &str) -> Query {
    let (name, rest) = text.split_once('\n').expect("a query stands under its name");
    let mut query = Query { name: name.to_string(), sql: String::new(), differs: None, without: Vec::new() };
    for line in rest.lines() {
        if let Some(why) = line.strip_prefix("-- differs: ") {
            query.differs = Some(why.to_string());
        } else if let Some(rows) = line.strip_prefix("-- without: ") {
            query.without.push(rows.split(" -- ").next().unwrap_or(rows).to_string());
        } else {
            query.sql.push_str(line);
            query.sql.push('\n');
        }
    }
    query.sql = query.sql.trim().trim_end_matches(';').to_string();
    query
}

/// A server that is asked.
struct Asked {
    client: tokio_postgres::Client,
    /// Names of objects by their ids.
    names: BTreeMap<u32, String>,
}

/// Names and types of columns, and rows.
struct Answer {
    columns: Vec<(String, u32)>,
    rows: Vec<Vec<Option<String>>>,
}

impl Asked {
    async fn new(address: &str) -> Asked {
        let (host, port) = address.rsplit_once(':').expect("an address has a port");
        let config = format!("host={host} port={port} user=logweir dbname=logweir");
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("it listens");
        tokio::spawn(connection);
        Asked { client, names: BTreeMap::new() }
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    }

    /// Learns which object ids there are.
    async fn learn(&mut self) {
        for (kind, sql) in [
            (
                "class",
                "SELECT c.oid, n.nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace",
            ),
            ("namespace", "SELECT oid, nspname FROM pg_namespace"),
            ("database", "SELECT oid, datname FROM pg_database"),
            (
                "type",
                "SELECT t.oid, n.nspname || '.' || typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace",
            ),
            ("rule", "SELECT r.oid, ev_class::regclass::text FROM pg_rewrite r"),
            ("role", "SELECT oid, rolname FROM pg_authid"),
        ] {
            let answer = self.ask(sql).await.unwrap_or_else(|err| panic!("{sql}: {err}"));
            for row in answer.rows {
                let (Some(oid), Some(name)) = (&row[0], &row[1]) else { continue };
                let oid: u32 = oid.parse().expect("an object id is a number");
                if oid >= FIRST_OBJECT {
                    self.names.insert(oid, format!("{{{kind} {name}}}"));
                }
            }
        }
    }

    async fn ask(&self, sql: &str) -> Result<Answer, String> {
        let message = |err: tokio_postgres::Error| match err.as_db_error() {
            Some(err) => format!("{} {}", err.code().code(), err.message()),
            None => err.to_string(),
        };
        let statement = self.client.prepare(sql).await.map_err(message)?;
        let columns = statement.columns().iter().map(|c| (c.name().to_string(), c.type_().oid())).collect();
        let messages = self.client.simple_query(sql).await.map_err(message)?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_string)).collect()),
            _ => None,
        });
        Ok(Answer { columns, rows: rows.collect() })
    }

    /// The query with the object ids of this server.
    fn with_ids(&self, sql: &str) -> String {
        let mut sql = sql.to_string();
        for (oid, name) in &self.names {
            sql = sql.replace(name.as_str(), &oid.to_string());
        }
        sql
    }

    /// The rows in some order, with names in the place of object ids.
    fn comparable(&self, rows: Vec<Vec<Option<String>>>, without: &[Regex]) -> Vec<Vec<String>> {
        let number = Regex::new(r"\b[0-9]{5,10}\b").expect("it is one");
        let cell = |value: Option<String>| {
            let Some(value) = value else { return "NULL".to_string() };
            let name = |found: &regex::Captures<'_>| {
                let oid = found[0].parse().ok();
                oid.and_then(|oid: u32| self.names.get(&oid)).cloned().unwrap_or_else(|| found[0].to_string())
            };
            number.replace_all(&value, name).into_owned()
        };
        let rows = rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<String>>());
        let stays = |row: &Vec<String>| !without.iter().any(|regex| regex.is_match(&row.join("|")));
        let mut rows: Vec<Vec<String>> = rows.filter(stays).collect();
        rows.sort();
        rows
    }
}

/// What is different; `None` if nothing is.
fn difference(
    query: &Query,
    theirs: (&Asked, Result<Answer, String>),
    ours: (&Asked, Result<Answer, String>),
) -> Option<String> {
    let ((postgres, theirs), (logweir, ours)) = (theirs, ours);
    let (theirs, ours) = match (theirs, ours) {
        (Err(theirs), Err(ours)) if theirs[..5] == ours[..5] => return None,
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (theirs, ours) => {
            let told = |result: Result<Answer, String>| result.map_or_else(|err| err, |_| "rows".to_string());
            return Some(format!("PostgreSQL gives {}, Logweir {}", told(theirs), told(ours)));
        }
    };
    let builtin = |(name, of): &(String, u32)| (name.clone(), if *of < FIRST_OBJECT { *of } else { 0 });
    let (a, b): (Vec<_>, Vec<_>) =
        (theirs.columns.iter().map(builtin).collect(), ours.columns.iter().map(builtin).collect());
    if a != b {
        let pair = a.iter().zip(&b).find(|(a, b)| a != b);
        return Some(format!("columns: PostgreSQL has {}, Logweir {}; first {pair:?}", a.len(), b.len()));
    }
    let without: Vec<Regex> = query.without.iter().map(|text| Regex::new(text).expect("it is one")).collect();
    let (a, b) = (postgres.comparable(theirs.rows, &without), logweir.comparable(ours.rows, &without));
    if a == b {
        return None;
    }
    let only = |these: &[Vec<String>], those: &[Vec<String>]| these.iter().find(|row| !those.contains(row)).cloned();
    Some(format!("rows: PostgreSQL {} {:?}, Logweir {} {:?}", a.len(), only(&a, &b), b.len(), only(&b, &a)))
}

/// The schema: relations of each kind, with comments and columns of all types.
const POSTGRES: &str = "
    SET search_path = public;
    DROP EXTENSION plpgsql;
    DROP OWNED BY writer;
    DROP ROLE writer;
    ALTER SCHEMA public OWNER TO logweir;
    CREATE TABLE access (ts timestamptz, host text, path text, status int, bytes bigint, ok boolean,
                         ratio double precision, small smallint, score real);
    CREATE TABLE hosts (host text, owner text, since date, price numeric(10,2));
    CREATE VIEW errors AS SELECT ts, path, status FROM access WHERE status >= 500;
    CREATE MATERIALIZED VIEW per_path AS
        SELECT path, count(*) AS n, sum(bytes)::bigint AS total FROM access GROUP BY path;";

const LOGWEIR: &str = "
    CREATE TABLE access (ts timestamptz, host text, path text, status int, bytes bigint, ok boolean,
                         ratio double precision, small smallint, score real, WATERMARK FOR ts AS ts);
    CREATE TABLE hosts AS SELECT 'a' AS host, 'b' AS owner, DATE '2026-01-01' AS since, 1.5::numeric(10,2) AS price;
    CREATE VIEW errors AS SELECT ts, path, status FROM access WHERE status >= 500;
    CREATE MATERIALIZED VIEW per_path AS
        SELECT path, count(*) AS n, sum(bytes) AS total FROM access GROUP BY path;";

const BOTH: &str = "
    COMMENT ON TABLE access IS 'requests of the site';
    COMMENT ON COLUMN access.path IS 'without its query';
    COMMENT ON VIEW errors IS 'what went wrong';
    COMMENT ON MATERIALIZED VIEW per_path IS 'requests by path';";

/// What Logweir has besides what was made: schema `logweir`, and what stands beside each stream. The same is made in
/// PostgreSQL.
async fn the_rest(logweir: &Asked) -> String {
    let sql = "SELECT n.nspname, c.relname, c.relkind, d.description,
                      string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY a.attnum),
                      string_agg('NULL::' || format_type(a.atttypid, a.atttypmod) || ' AS ' || quote_ident(a.attname), ', ' ORDER BY a.attnum)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
               LEFT JOIN pg_description d ON d.objoid = c.oid AND d.objsubid = 0
               WHERE n.nspname = 'logweir' OR n.nspname = 'public' AND c.relname LIKE '%\\_\\_%' GROUP BY 1, 2, 3, 4";
    let rows = logweir.ask(sql).await.unwrap_or_else(|err| panic!("{sql}: {err}")).rows;
    let mut out = "CREATE SCHEMA logweir; COMMENT ON SCHEMA logweir IS 'what Logweir says about itself';".to_string();
    for row in rows {
        let cell = |at: usize| row[at].clone().unwrap_or_default();
        let name = format!("{}.\"{}\"", cell(0), cell(1));
        let word = if cell(2) == "v" { "VIEW" } else { "TABLE" };
        match word {
            "VIEW" => out.push_str(&format!("CREATE VIEW {name} AS SELECT {};", cell(5))),
            _ => out.push_str(&format!("CREATE TABLE {name} ({});", cell(4))),
        }
        if let Some(comment) = &row[3] {
            out.push_str(&format!("COMMENT ON {word} {name} IS '{}';", comment.replace('\'', "''")));
        }
    }
    out
}

#[test]
fn tools_see_what_they_see_of_postgres() {
    let Some(server) = Postgres::start() else { return };
    let mut own = Server::start();
    let address = own.postgres();
    let runtime = Runtime::new().expect("a runtime can be made");
    let failures = runtime.block_on(compare(&server.address(), &address));
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

/// Writes into a tool's file which of these queries differ, and how, or differ no longer.
fn write(tool: &str, changed: &[(String, Option<String>)]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/introspection/{tool}.sql"));
    let text = std::fs::read_to_string(&file).expect("it can be read");
    let mut blocks: Vec<String> = text.split("\n-- name: ").map(str::to_string).collect();
    for block in blocks.iter_mut().skip(1) {
        let (name, rest) = block.split_once('\n').expect("a query stands under its name");
        let Some((_, differs)) = changed.iter().find(|(changed, _)| changed == name) else { continue };
        let rest: Vec<&str> = rest.lines().filter(|line| !line.starts_with("-- differs: ")).collect();
        let how = differs.as_ref().map(|how| format!("-- differs: {}\n", how.replace('\n', " ")));
        *block = format!("{name}\n{}{}\n", how.unwrap_or_default(), rest.join("\n"));
    }
    std::fs::write(&file, blocks.join("\n-- name: ")).expect("it can be written");
}

async fn compare(theirs: &str, ours: &str) -> Vec<String> {
    let (mut postgres, mut logweir) = (Asked::new(theirs).await, Asked::new(ours).await);
    logweir.run(LOGWEIR).await;
    postgres.run(POSTGRES).await;
    for server in [&postgres, &logweir] {
        server.run(BOTH).await;
    }
    postgres.run(&the_rest(&logweir).await).await;
    postgres.learn().await;
    logweir.learn().await;
    let mut failures = Vec::new();
    for (tool, _, queries) in tools() {
        let (mut same, mut known, mut changed) = (0, 0, Vec::new());
        for query in &queries {
            let a = postgres.ask(&postgres.with_ids(&query.sql)).await;
            let begun = Instant::now();
            let b = logweir.ask(&logweir.with_ids(&query.sql)).await;
            if begun.elapsed() > Duration::from_secs(5) {
                println!("{tool}, {}: {:?}", query.name, begun.elapsed());
            }
            match (difference(query, (&postgres, a), (&logweir, b)), &query.differs) {
                (None, None) => same += 1,
                (Some(_), Some(_)) => known += 1,
                (Some(what), None) => {
                    failures.push(format!("{tool}, {}: {what}", query.name));
                    changed.push((query.name.clone(), Some(what)));
                }
                (None, Some(why)) => {
                    failures.push(format!("{tool}, {}: is the same now, but listed: {why}", query.name));
                    changed.push((query.name.clone(), None));
                }
            }
        }
        if std::env::var_os("LOGWEIR_WRITE_INTROSPECTION").is_some() {
            write(&tool, &changed);
        }
        println!("{tool}: {} queries, {same} the same, {known} known to differ", queries.len());
    }
    failures
}
