//! Reads of one group of a view. They take another way through the view's state than a read of all, and queries that come
//! again are optimized once: both must give what the whole view has, before and after rows come, states are merged and moved
//! to disk, and a view is replaced.

use std::collections::BTreeSet;

use tokio::runtime::Runtime;
use tokio_postgres::SimpleQueryMessage;

use crate::clients;
use crate::server::{Client, Server, line};

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
                "number" | "half" => "-7",
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
                    "number" => value.to_string(),
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

/// Texts that each come once share a plan, from the third one of a kind on: each has to have its own answer all the same.
#[test]
fn texts_that_differ_in_their_values() {
    let mut server = Server::start();
    let (client, other) = (server.client(), server.client());
    other.run(
        "CREATE TABLE events (ts timestamptz, word text, number int, part double precision, WATERMARK FOR ts AS ts);
         CREATE MATERIALIZED VIEW by_both AS SELECT word, number, count(*) AS n FROM events GROUP BY word, number;
         CREATE MATERIALIZED VIEW by_number AS SELECT number, count(*) AS n, max(word) AS word FROM events GROUP BY number;
         CREATE MATERIALIZED VIEW by_part AS SELECT part, count(*) AS n FROM events GROUP BY part;
         CREATE MATERIALIZED VIEW by_day AS SELECT date_trunc('day', ts)::date AS day, count(*) AS n FROM events GROUP BY 1",
    );
    let insert = "INSERT INTO events SELECT '2026-01-01T00:00:00Z'::timestamptz + i * INTERVAL '1 day',
                    'it''s ' || i % 4, i % 10, i % 10 / 4.0 FROM generate_series(0, 19) AS s(i)";
    other.run(insert);
    for round in 1..=3 {
        for i in 0..10 {
            let (word, n) = (i % 4, 2 * round);
            assert_eq!(client.one(&format!("SELECT n FROM by_number WHERE number = {i}")), n.to_string());
            assert_eq!(
                client.one(&format!(
                    "SELECT 100 / n AS share, 'x' AS x FROM by_number v WHERE v.number = {i} AND n = {n};"
                )),
                format!("{} x", 100 / n)
            );
            let both = format!("SELECT * FROM by_both WHERE word = 'it''s {word}' AND number = {i}");
            assert_eq!(client.one(&both), format!("it's {word} {i} {round}"));
            // Not of the type of the column, each by rules of its own.
            assert_eq!(client.one(&format!("SELECT n FROM by_number WHERE number = '{i}'")), n.to_string());
            let part = f64::from(i) / 4.0;
            assert_eq!(client.one(&format!("SELECT n FROM by_part WHERE part = {part}")), n.to_string());
            let day = format!("SELECT n FROM by_day WHERE day = '2026-01-{:02}'", i + 1);
            assert_eq!(client.one(&day), round.to_string());
            // No integer is as large as this, and no group is of it.
            assert!(client.rows(&format!("SELECT n FROM by_number WHERE number = 9999999999{i}")).is_empty());
            // What is wrong with one value is said of that one.
            let none = format!("SELECT 1 / (number - number) FROM by_number WHERE number = {i}");
            client.fails(&none).says("22012", &["division by zero"]);
        }
        other.run(insert);
    }
    // What is shown to run is what was sent.
    client.run("SELECT n FROM by_number WHERE number = 3");
    let shown = other.sorted("SELECT query FROM pg_stat_activity WHERE query LIKE 'SELECT n FROM by_number%'");
    assert_eq!(shown, ["SELECT n FROM by_number WHERE number = 3"]);
    // In a transaction that has failed nothing is read.
    client.run("BEGIN");
    client.fails("SELECT nothing");
    client.fails("SELECT n FROM by_number WHERE number = 4").says("25P02", &["aborted"]);
    client.run("ROLLBACK");
    assert_eq!(client.one("SELECT n FROM by_number WHERE number = 4"), "8");
    // Another view of the name, of other types, and none.
    other.run("DROP MATERIALIZED VIEW by_number");
    client.fails("SELECT n FROM by_number WHERE number = 5").says("42P01", &["by_number"]);
    other.run(
        "CREATE MATERIALIZED VIEW by_number AS SELECT number::text AS number, max(word) AS n FROM events GROUP BY 1",
    );
    for i in 6..9 {
        assert_eq!(client.one(&format!("SELECT n FROM by_number WHERE number = '{i}'")), format!("it's {}", i % 2 + 2));
    }
}

/// A plan that texts share does not outlive the right to read.
#[test]
fn shared_plans_ask_for_rights_each_time() {
    let mut server = Server::start();
    let (client, admin) = (server.client(), server.client());
    client.run(
        "CREATE TABLE events (ts timestamptz, number int, WATERMARK FOR ts AS ts);
         CREATE MATERIALIZED VIEW by_number AS SELECT number, count(*) AS n FROM events GROUP BY number;
         INSERT INTO events SELECT now(), i FROM generate_series(0, 9) AS s(i);
         CREATE ROLE root ADMIN LOGIN PASSWORD 'of nobody here'; CREATE ROLE reader; GRANT SELECT ON by_number TO reader; SET ROLE reader",
    );
    for i in 0..4 {
        assert_eq!(client.one(&format!("SELECT n FROM by_number WHERE number = {i}")), "1");
    }
    admin.run("REVOKE SELECT ON by_number FROM reader");
    client.fails("SELECT n FROM by_number WHERE number = 5").says("42501", &["by_number"]);
}
