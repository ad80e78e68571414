//! Random continuous queries over random lines: after FLUSH each view equals its own query run as a batch.
//!
//! A round is made from one number. Lines come in disorder and in pieces cut anywhere; views are created before, between
//! and after them; the server is killed or stopped in between. `LOGWEIR_SEED=n` repeats the round that failed,
//! `LOGWEIR_ROUNDS=n` runs more of them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::batch::same;
use crate::lines;
use crate::server::Server;

/// Rounds in an ordinary run: about ten seconds.
const ROUNDS: u64 = 8;
/// Views in a round.
const VIEWS: usize = 9;
/// Appends in a round, with FLUSH, CREATE or a restart between.
const STEPS: usize = 8;

#[test]
fn random_views_equal_their_batch_queries() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a whole number"));
    match number("LOGWEIR_SEED") {
        Some(seed) => round(seed),
        None => (1..=number("LOGWEIR_ROUNDS").unwrap_or(ROUNDS)).for_each(round),
    }
}

fn round(seed: u64) {
    // Captured by the test runner and shown with a failure.
    println!("round of LOGWEIR_SEED={seed}");
    let random = &mut StdRng::seed_from_u64(seed);
    let mut server = Server::start();
    server.expect_log("the log ended in the middle of a record");
    let path = server.log("access.log");
    lines::append(&path, "");
    let mut client = server.client();
    let watermark = *pick(random, &["0 seconds", "5 seconds", "10 minutes"]);
    let sync = *pick(random, &["10ms", "always", "off"]);
    client.run(&format!(
        "CREATE TABLE access (*, WATERMARK FOR ts AS ts - INTERVAL '{watermark}')
         WITH (connector = 'file', path = '{}', wal_sync = '{sync}', hot_bytes = '64 KiB', wal_segment_bytes = '64 KiB')
         FORMAT COMBINED",
        path.display()
    ));
    let queries: Vec<String> = (0..VIEWS).map(|_| query(random)).collect();
    let mut created = 0;
    let mut seconds = lines::START + random.random_range(0..100_000);
    let mut written = 0;
    for _ in 0..STEPS {
        let upto = random.random_range(created..=VIEWS);
        for (i, query) in queries.iter().enumerate().take(upto).skip(created) {
            client.run(&format!("CREATE MATERIALIZED VIEW v{i} AS {query}"));
        }
        created = upto;
        let count = random.random_range(0..600);
        let mut text = String::new();
        for _ in 0..count {
            seconds += random.random_range(0..4);
            text += &lines::random(random, seconds);
            if random.random_range(0..200) == 0 {
                text += "not a line of an access log\n";
                written += 1;
            }
        }
        written += count;
        for piece in lines::pieces(random, text.as_bytes(), 5) {
            lines::append(&path, piece);
        }
        match random.random_range(0..5) {
            0 => client.run("FLUSH"),
            1 => {
                server.kill();
                server.again();
                client = server.client();
            }
            2 => {
                assert!(server.terminate().success());
                server.again();
                client = server.client();
            }
            _ => {}
        }
    }
    for (i, query) in queries.iter().enumerate().skip(created) {
        client.run(&format!("CREATE MATERIALIZED VIEW v{i} AS {query}"));
    }
    client.run("FLUSH");
    let total = "SELECT (SELECT count(*) FROM access) + (SELECT count(*) FROM access__malformed)";
    assert_eq!(client.number(total), written as i64, "lines of seed {seed}");
    for (i, query) in queries.iter().enumerate() {
        same(&client, &format!("LOGWEIR_SEED={seed}, view v{i}"), &format!("SELECT * FROM v{i}"), query, 0.0);
    }
}

/// One of the values.
fn pick<'a, T>(random: &mut StdRng, values: &'a [T]) -> &'a T {
    &values[random.random_range(0..values.len())]
}

/// Some of the values, at least `least`, none twice.
fn some<'a>(random: &mut StdRng, values: &[&'a str], least: usize, most: usize) -> Vec<&'a str> {
    let mut left = values.to_vec();
    let count = random.random_range(least..=most);
    (0..count).map(|_| left.swap_remove(random.random_range(0..left.len()))).collect()
}

const KEYS: &[&str] = &[
    "client",
    "path",
    "status",
    "method",
    "split_part(path, '?', 1)",
    "status / 100",
    "bytes > 50000",
    "coalesce(remote_user, 'none')",
];

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(bytes)",
    "count(*) FILTER (WHERE status >= 500)",
    "sum(bytes)",
    "sum(bytes) FILTER (WHERE method = 'GET')",
    "coalesce(sum(bytes), 0)",
    "avg(bytes)",
    "avg(CASE WHEN status >= 500 THEN 1.0 ELSE 0.0 END)",
    "min(bytes)",
    "max(bytes)",
    "min(path)",
    "max(user_agent)",
    "min(ts)",
    "max(ts)",
    "count(DISTINCT client)",
    "count(DISTINCT path)",
    "count(DISTINCT referer) FILTER (WHERE status < 400)",
    "sum(DISTINCT status)",
    "approx_distinct(path)",
    "stddev(bytes)",
    "var_pop(status)",
    "bool_and(status < 500)",
    "bool_or(method IS NULL)",
    "bit_or(status)",
    "median(bytes)",
    "CAST(count(*) FILTER (WHERE status >= 400) AS DOUBLE) / count(*)",
    "max(bytes) - min(bytes)",
];

const CONDITIONS: &[&str] = &[
    "status >= 400",
    "method = 'GET'",
    "path LIKE '/a%'",
    "bytes > 1000 AND client <> '10.0.0.1'",
    "remote_user IS NOT NULL",
    "status IN (200, 404) OR bytes IS NULL",
    "regexp_like(user_agent, '(?i)bot|curl')",
    "extract(hour FROM ts) < 12",
    "false",
];

/// Where rows come from, and the columns that say in which window they are.
fn relation(random: &mut StdRng) -> (String, Vec<&'static str>) {
    let bounds = vec!["window_start", "window_end"];
    match random.random_range(0..10) {
        0 => ("access".into(), vec![]),
        1 => ("access".into(), vec!["date_trunc('minute', ts)"]),
        2 => ("access".into(), vec!["date_bin(INTERVAL '7 minutes', ts)"]),
        3 => ("access".into(), vec!["date_trunc('day', ts)"]),
        4 => {
            let hop = pick(
                random,
                &[
                    "7 seconds', INTERVAL '20 seconds",
                    "10 seconds', INTERVAL '25 seconds",
                    "1 minute', INTERVAL '1 minute",
                ],
            );
            (format!("HOP(access, ts, INTERVAL '{hop}')"), bounds)
        }
        5 => {
            let hop = pick(
                random,
                &["1 minute', INTERVAL '5 minutes", "45 seconds', INTERVAL '10 minutes', INTERVAL '13 seconds"],
            );
            (format!("HOP(access, ts, INTERVAL '{hop}')"), bounds)
        }
        6 => {
            let tumble = pick(random, &["1 hour', INTERVAL '17 minutes", "90 seconds', INTERVAL '-1 second"]);
            (format!("TUMBLE(access, ts, INTERVAL '{tumble}')"), bounds)
        }
        _ => {
            let size =
                pick(random, &["1 minute", "1 second", "61 seconds", "90 minutes", "1 day", "1500 milliseconds"]);
            (format!("TUMBLE(access, ts, INTERVAL '{size}')"), bounds)
        }
    }
}

/// An aggregate with the columns `k0…` (keys) and `a0…` (aggregates).
struct Aggregate {
    sql: String,
    keys: usize,
    aggregates: usize,
}

/// A grouped query over one window of the stream; `least` keys at least.
fn aggregate(random: &mut StdRng, relation: &(String, Vec<&'static str>), least: usize) -> Aggregate {
    let (from, bounds) = relation;
    let mut keys = bounds.clone();
    keys.extend(some(random, KEYS, 0, 2));
    while keys.len() < least {
        keys.push("client");
    }
    let aggregates = some(random, AGGREGATES, 1, 4);
    let named = |letter: char, columns: &[&str]| -> Vec<String> {
        columns.iter().enumerate().map(|(i, c)| format!("{c} AS {letter}{i}")).collect()
    };
    let columns = [named('k', &keys), named('a', &aggregates)].concat().join(", ");
    let mut sql = format!("SELECT {columns} FROM {from}");
    if random.random_range(0..3) == 0 {
        sql += &format!(" WHERE {}", pick(random, CONDITIONS));
    }
    if !keys.is_empty() {
        sql += &format!(" GROUP BY {}", keys.join(", "));
    }
    if random.random_range(0..4) == 0 {
        sql += " HAVING count(*) > 1";
    }
    Aggregate { sql, keys: keys.len(), aggregates: aggregates.len() }
}

/// A random continuous query: an aggregate, and often something above it.
fn query(random: &mut StdRng) -> String {
    let relation = relation(random);
    match random.random_range(0..8) {
        0 => {
            // Two aggregates joined on what both group by first.
            let (left, right) = (aggregate(random, &relation, 1), aggregate(random, &relation, 1));
            let kind = pick(random, &["JOIN", "LEFT JOIN", "FULL JOIN"]);
            format!("SELECT l.k0, l.a0, r.a0 AS r0 FROM ({}) AS l {kind} ({}) AS r ON l.k0 = r.k0", left.sql, right.sql)
        }
        1 => {
            let inner = aggregate(random, &relation, 1);
            let order: Vec<String> = (0..inner.keys).map(|i| format!("k{i}")).collect();
            let order = order.join(", ");
            format!(
                "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY k0 ORDER BY a0 DESC, {order}) AS place
                 FROM ({}) AS counted) AS ranked WHERE place <= 3",
                inner.sql
            )
        }
        2 => {
            let inner = aggregate(random, &relation, 1);
            let order: Vec<String> = (0..inner.keys).map(|i| format!("k{i}")).collect();
            format!("SELECT *, lag(a0) OVER (ORDER BY {}) AS before FROM ({}) AS counted", order.join(", "), inner.sql)
        }
        3 => {
            let (from, bounds) = &relation;
            let mut columns = bounds.clone();
            columns.extend(some(random, KEYS, 1, 2));
            format!("SELECT DISTINCT {} FROM {from}", columns.join(", "))
        }
        4 => {
            let (one, two) = (aggregate(random, &relation, 0), aggregate(random, &relation, 0));
            format!(
                "SELECT count(*) AS groups FROM ({}) AS x UNION ALL SELECT count(*) FROM ({}) AS y",
                one.sql, two.sql
            )
        }
        5 => {
            let inner = aggregate(random, &relation, 1);
            let last = inner.aggregates - 1;
            format!(
                "WITH counted AS ({}) SELECT k0, count(*) AS n, max(a{last}) AS most FROM counted GROUP BY k0",
                inner.sql
            )
        }
        _ => aggregate(random, &relation, 0).sql,
    }
}
