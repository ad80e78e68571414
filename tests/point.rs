//! Reads of some groups of a view. They take another way through the view's state than a read of all, and queries that come
//! again are optimized once: both must give what the whole view has, before and after rows come, states are merged and moved
//! to disk, and a view is replaced.

use std::collections::BTreeSet;

use tokio::runtime::Runtime;
use tokio_postgres::SimpleQueryMessage;

use crate::clients;
use crate::server::{Client, Row, Server, line};

/// Name, query, and the columns by which it is read.
const VIEWS: &[(&str, &str, &[&str])] = &[
    ("by_word", "SELECT word, count(*) AS n, sum(number) AS s FROM events GROUP BY word", &["word"]),
    ("by_number", "SELECT number, count(DISTINCT word) AS n FROM events GROUP BY number", &["number"]),
    ("by_both", "SELECT number, word, count(*) AS n FROM events GROUP BY word, number", &["word", "number"]),
    ("by_half", "SELECT number / 2.0 AS half, count(*) AS n FROM events GROUP BY 1", &["half"]),
    ("by_flag", "SELECT number > 50 AS large, count(*) AS n FROM events GROUP BY 1 HAVING count(*) > 3", &["large"]),
    ("by_day", "SELECT date_trunc('day', ts) AS day, word, count(*) AS n FROM events GROUP BY 1, 2", &["word", "day"]),
    (
        "tumbling",
        "SELECT window_start, word, count(*) AS n FROM TUMBLE(events, ts, INTERVAL '1 minute')
         GROUP BY window_start, window_end, word",
        &["word", "window_start"],
    ),
    (
        "hopping",
        "SELECT window_start, word, count(*) AS n FROM HOP(events, ts, INTERVAL '1 minute', INTERVAL '3 minutes')
         GROUP BY window_start, window_end, word",
        &["word", "window_start"],
    ),
    (
        "cumulating",
        "SELECT window_end, window_start, word, count(*) AS n
         FROM CUMULATE(events, ts, INTERVAL '1 minute', INTERVAL '5 minutes') GROUP BY window_start, window_end, word",
        &["word", "window_end", "window_start"],
    ),
    (
        "by_three",
        "SELECT window_start, window_end, word, number % 3 AS third, count(*) AS n, max(number) AS most
         FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, word, number % 3",
        &["word", "third", "window_start", "window_end"],
    ),
    (
        "by_day_in_berlin",
        "SELECT date_trunc('day', ts, 'Europe/Berlin') AS day, number % 3 AS third, count(*) AS n FROM events GROUP BY 1, 2",
        &["third", "day"],
    ),
    (
        "sessions_by_third",
        "SELECT window_start, word, number % 3 AS third, count(*) AS n
         FROM SESSION(events PARTITION BY word, ts, INTERVAL '5 seconds') GROUP BY window_start, window_end, word, number % 3",
        &["word", "third"],
    ),
    (
        "sessions",
        "SELECT window_start, word, count(*) AS n FROM SESSION(events PARTITION BY word, ts, INTERVAL '5 seconds')
         GROUP BY window_start, window_end, word",
        &["word"],
    ),
    (
        "rolled",
        "SELECT word, number % 3 AS third, count(*) AS n FROM events GROUP BY ROLLUP(word, number % 3)",
        &["word"],
    ),
    (
        "by_all_sorts",
        "SELECT word, count(*) AS n, avg(number) AS mean, min(word) AS first, max(ts) AS last, median(number) AS middle,
           count(DISTINCT number) AS d, approx_distinct(number) AS a, bool_or(number > 90) AS large,
           sum(number) FILTER (WHERE number > 10) AS s, string_agg(DISTINCT word, '') AS same,
           round(100.0 * count(*) FILTER (WHERE number > 50) / count(*), 2) AS rate
         FROM events GROUP BY word HAVING count(*) > 1",
        &["word"],
    ),
    (
        "totals",
        "SELECT word, n * 2 AS twice FROM (SELECT word, count(*) AS n FROM events GROUP BY word) AS g",
        &["word"],
    ),
];

/// Different in each part; NULL and an empty text among the words.
fn insert(client: &Client, part: u32) {
    client.run(&format!(
        "INSERT INTO events SELECT to_timestamp(1767225600 + i),
           CASE WHEN i % 17 = 0 THEN NULL WHEN i % 13 = 0 THEN '' ELSE 'word ' || (i * {part}) % 40 END, (i * 7) % 101
         FROM generate_series({}, {}) AS s(i)",
        part * 500,
        part * 500 + 1500
    ));
}

/// Compares reads by each key with the view as a whole.
fn check(client: &Client, when: &str) {
    for (view, _, keys) in VIEWS {
        let (names, all) =
            client.table(&format!("SELECT * FROM {view}")).unwrap_or_else(|err| panic!("{view}: {err:?}"));
        assert!(!all.is_empty(), "{when}: {view}");
        for key in *keys {
            let at = names.iter().position(|name| name == key).expect("it is a column");
            let values: BTreeSet<_> = all.iter().filter_map(|row| row[at].clone()).collect();
            // Some of them, and one that is not there.
            let step = values.len().div_ceil(7).max(1);
            let absent = match *key {
                "word" => "none",
                "number" | "half" | "third" => "-7",
                "large" => "true",
                _ => "1999-01-01 00:00:00+00",
            };
            let chosen = values.iter().step_by(step).map(String::as_str).chain([absent]);
            for value in chosen {
                let matching = |text: &Option<String>| match (*key, text) {
                    ("large", Some(text)) => text.starts_with(&value[..1]),
                    (_, text) => text.as_deref() == Some(value),
                };
                let mut expected: Vec<String> = all.iter().filter(|row| matching(&row[at])).map(line).collect();
                expected.sort_unstable();
                let literal = match *key {
                    "half" => format!("{value}::double precision"),
                    "large" => format!("'{value}'::boolean"),
                    _ => format!("'{value}'"),
                };
                for sql in [
                    format!("SELECT * FROM {view} WHERE {key} = {literal}"),
                    format!("SELECT v.* FROM {view} AS v WHERE {literal} = v.{key} AND n IS NOT DISTINCT FROM n"),
                ] {
                    let sql = if *view == "totals" { sql.replace("n IS NOT DISTINCT FROM n", "true") } else { sql };
                    // The second run is the first one that was optimized ahead.
                    for run in 1..=3 {
                        assert_eq!(client.sorted(&sql), expected, "{when}: run {run} of {sql}");
                    }
                }
            }
        }
        check_several(client, view, keys, &names, &all, when);
    }
}

/// The same for reads by all keys at once, and by some values of one of them.
fn check_several(client: &Client, view: &str, keys: &[&str], names: &[String], all: &[Row], when: &str) {
    let at = |key: &str| names.iter().position(|name| name == key).expect("it is a column");
    let same = |sql: &str, wanted: &dyn Fn(&Row) -> bool| {
        let mut expected: Vec<String> = all.iter().filter(|row| wanted(row)).map(line).collect();
        expected.sort_unstable();
        for run in 1..=3 {
            assert_eq!(client.sorted(sql), expected, "{when}: run {run} of {sql}");
        }
    };
    let known = |row: &&Row| keys.iter().all(|key| row[at(key)].is_some());
    let chosen: Vec<&Row> = all.iter().filter(known).step_by(all.len().div_ceil(5)).collect();
    if keys.len() < 2 || chosen.is_empty() {
        return;
    }
    for row in &chosen {
        let values: Vec<&str> = keys.iter().map(|key| row[at(key)].as_deref().expect("chosen so")).collect();
        let conditions: Vec<String> =
            keys.iter().zip(&values).map(|(key, value)| format!("{key} = '{value}'")).collect();
        let wanted = |row: &Row| keys.iter().zip(&values).all(|(key, value)| row[at(key)].as_deref() == Some(*value));
        same(&format!("SELECT * FROM {view} WHERE {}", conditions.join(" AND ")), &wanted);
    }
    let value = |row: &&Row, key: &str| row[at(key)].clone().expect("chosen so");
    for (key, other) in keys.iter().zip(&keys[1..]).chain([(&keys[1], &keys[0])]) {
        let values: Vec<String> = chosen.iter().map(|row| value(row, key)).collect();
        let one = value(&chosen[0], other);
        let list = format!("'{}'", [&values[..], &values[..1]].concat().join("', '"));
        let is_in = |row: &Row| row[at(key)].as_ref().is_some_and(|found| values.contains(found));
        let in_list = format!("SELECT * FROM {view} WHERE {key} IN ({list}, NULL)");
        same(&in_list, &is_in);
        same(&format!("{in_list} AND {other} = '{one}'"), &|row| is_in(row) && row[at(other)].as_ref() == Some(&one));
    }
}

#[test]
fn one_group_is_what_the_whole_view_has() {
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.again();
    let client = server.client();
    client.run("CREATE TABLE events (ts timestamptz, word text, number bigint, WATERMARK FOR ts AS ts)");
    for (name, query, _) in VIEWS {
        client.run(&format!("CREATE MATERIALIZED VIEW {name} WITH (memory_limit = '256 KiB') AS {query}"));
    }
    for part in 1..=3 {
        insert(&client, part);
        check(&client, &format!("after part {part}"));
    }
    for (name, query, _) in VIEWS {
        client.run(&format!("CREATE OR REPLACE MATERIALIZED VIEW {name} AS {query}"));
    }
    check(&client, "replaced");
    drop(client);
    server.terminate();
    server.again();
    let client = server.client();
    check(&client, "restarted");
}

/// Name and query.
const LARGE: &[(&str, &str)] = &[
    (
        "tumbling",
        "SELECT window_start, window_end, word, count(*) AS n, sum(number) AS s
         FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, word",
    ),
    (
        "hopping",
        "SELECT window_start, window_end, word, count(*) AS n
         FROM HOP(events, ts, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY window_start, window_end, word",
    ),
    (
        "sessions",
        "SELECT window_start, window_end, word, count(*) AS n
         FROM SESSION(events PARTITION BY word, ts, INTERVAL '30 seconds') GROUP BY window_start, window_end, word",
    ),
];

/// Most of what is read by key is on disk, late rows have come, and the server has been started again.
#[test]
fn keys_are_found_on_disk() {
    let mut server = Server::prepare();
    server.use_arguments(&["--state-memory", "4 MiB", "--checkpoint-interval", "200ms"]);
    server.again();
    let client = server.client();
    client.run("CREATE TABLE events (ts timestamptz, word text, number bigint, WATERMARK FOR ts AS ts)");
    for (name, query) in LARGE {
        client.run(&format!("CREATE MATERIALIZED VIEW {name} WITH (memory_limit = '1 MiB') AS {query}"));
    }
    let insert = |client: &Client, from: u32, to: u32| {
        client.run(&format!(
            "INSERT INTO events SELECT to_timestamp(1767225600 + i / 50), 'word ' || (i::bigint * 7919) % 2999, i
             FROM generate_series({from}, {to}) AS s(i)"
        ));
    };
    let compare = |client: &Client, when: &str| {
        assert!(client.number("SELECT min(disk_bytes) FROM logweir.views") > 0, "{when}");
        for (name, query) in LARGE {
            for wanted in [
                "word = 'word 77'",
                "word IN ('word 1', 'word 1500', 'word 2998', 'word 17', 'none')",
                "word = 'word 5' AND window_start >= '2026-01-01 00:20:00Z'",
                "word = 'word 2000' AND window_start = '2026-01-01 00:12:00Z'",
                "word LIKE 'word 11%' AND window_end < '2026-01-01 00:20:00Z'",
            ] {
                let expected = client.sorted(&format!("SELECT * FROM ({query}) AS q WHERE {wanted}"));
                for run in 1..=3 {
                    let found = client.sorted(&format!("SELECT * FROM {name} WHERE {wanted}"));
                    assert_eq!(found, expected, "{when}: run {run} of {name}, {wanted}");
                }
            }
        }
    };
    for part in 0..3 {
        insert(&client, part * 40_000, (part + 1) * 40_000);
    }
    compare(&client, "in order");
    insert(&client, 10_000, 50_000);
    compare(&client, "with late rows");
    drop(client);
    server.terminate();
    server.again();
    let client = server.client();
    compare(&client, "restarted");
    insert(&client, 60_000, 130_000);
    compare(&client, "with more rows");
}

/// A statement that was prepared before rows came and its view was replaced.
#[test]
fn prepared_reads_follow_the_view() {
    let mut server = Server::start();
    let address = server.postgres().parse().expect("an address");
    Runtime::new().expect("a runtime").block_on(async {
        let (client, other) = (clients::connect(address).await, clients::connect(address).await);
        let run = async |sql: &str| other.batch_execute(sql).await.unwrap_or_else(|err| panic!("{sql}: {err:?}"));
        run("CREATE TABLE events (ts timestamptz, word text, number bigint, WATERMARK FOR ts AS ts)").await;
        let view = "VIEW v AS SELECT word, count(*) AS n, max(ts) AS last FROM events GROUP BY word";
        run(&format!("CREATE MATERIALIZED {view}")).await;
        let by_word = client.prepare("SELECT n FROM v WHERE word = $1").await.expect("prepares");
        let by_time = "SELECT count(*) FROM v WHERE last >= $1::timestamptz AND n > $2 AND word LIKE $3";
        let by_time = client.prepare(by_time).await.expect("prepares");
        let limited = client.prepare("SELECT word FROM v ORDER BY n DESC, word LIMIT $1").await.expect("prepares");
        for round in 1..=4i64 {
            run(&format!(
                "INSERT INTO events SELECT '2026-01-01T00:0{round}:00Z'::timestamptz, 'w' || i % 5, i
                 FROM generate_series(0, 9) AS s(i)"
            ))
            .await;
            for word in ["w0", "w4"] {
                let row = client.query_one(&by_word, &[&word]).await.expect("a row");
                assert_eq!(row.get::<_, i64>(0), 2 * round, "{word}");
            }
            assert!(client.query(&by_word, &[&"none"]).await.expect("runs").is_empty());
            assert!(client.query(&by_word, &[&None::<String>]).await.expect("runs").is_empty());
            let since = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_225_600);
            let row = client.query_one(&by_time, &[&since, &0i64, &"w%"]).await.expect("a row");
            assert_eq!(row.get::<_, i64>(0), 5);
            let later = since + std::time::Duration::from_secs(600);
            assert_eq!(client.query_one(&by_time, &[&later, &0i64, &"w%"]).await.expect("a row").get::<_, i64>(0), 0);
            assert_eq!(client.query(&limited, &[&(round % 3)]).await.expect("runs").len() as i64, round % 3);
            if round == 2 {
                run(&format!("CREATE OR REPLACE MATERIALIZED {view}")).await;
            }
        }
        run("DROP MATERIALIZED VIEW v").await;
        let err = client.query(&by_word, &[&"w0"]).await.expect_err("it is gone");
        assert_eq!(err.code().expect("of the server").code(), "42P01");
        run("CREATE MATERIALIZED VIEW v AS SELECT word, max(word) AS n FROM events GROUP BY word").await;
        let err = client.query(&by_word, &[&"w0"]).await.expect_err("it is another view");
        assert_eq!(err.code().expect("of the server").code(), "0A000");
        // A text that comes again means what it means now.
        let mut found = Vec::new();
        for _ in 0..3 {
            let messages = client.simple_query("SELECT n FROM v WHERE word = 'w0'").await.expect("runs");
            found.extend(messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
                _ => None,
            }));
        }
        assert_eq!(found, ["w0", "w0", "w0"]);
    });
}
