//! Memory has limits, and reaching them makes things slower or fails one statement: a view larger than its limit goes on
//! on disk and stays right, a query larger than the queries' memory spills or fails, and the server lives.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::lines;
use crate::server::{Client, Server};

const GROUPS: u64 = 100_000;

/// Each group twice with different bytes, the second time in another order; 200 lines a second.
fn write_groups(path: &Path, again: bool) {
    let mut out = BufWriter::new(File::create(path).expect("the directory is there"));
    for i in 0..GROUPS {
        let group = if again { i * 7919 % GROUPS } else { i };
        let time = lines::clf(lines::START + (i / 200) as i64);
        writeln!(out, "10.0.0.{} - - [{time}] \"GET /n/{group} HTTP/1.1\" 200 {} \"-\" \"-\"", group % 250, i % 1000)
            .expect("the disk has room");
    }
}

const VIEWS: [(&str, &str); 4] = [
    ("keyed", "SELECT client || path AS who, count(*) AS n, sum(bytes) AS b, max(ts) AS t FROM access GROUP BY 1"),
    (
        "windowed",
        "SELECT window_start, path, count(*) AS n, sum(bytes) AS b, max(ts) AS t
         FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, path",
    ),
    (
        "one_window",
        "SELECT window_start, path, count(*) AS n, sum(bytes) AS b, avg(bytes) AS t
         FROM TUMBLE(access, ts, INTERVAL '1 day') GROUP BY window_start, window_end, path",
    ),
    (
        "hopping",
        "SELECT window_start, path, count(*) AS n, sum(bytes) AS b, max(ts) AS t
         FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY window_start, window_end, path",
    ),
];

const LIMIT: i64 = 2 << 20;

fn state_files(server: &Server) -> usize {
    std::fs::read_dir(server.data_dir().join("state")).expect("the server made it").count()
}

#[track_caller]
fn check_views(client: &Client, when: &str) {
    for (name, query) in VIEWS {
        let figures =
            format!("SELECT state, memory_limit, state_bytes, disk_bytes FROM logweir.views WHERE name = '{name}'");
        let row = &client.rows(&figures)[0];
        let number = |i: usize| row[i].as_ref().and_then(|n| n.parse::<i64>().ok()).expect("a number");
        assert_eq!(row[0].as_deref(), Some("live, partly on disk"), "{when}: {name}");
        assert_eq!(number(1), LIMIT);
        assert!(number(2) <= LIMIT && number(3) > 0, "{when}: {name}: {row:?}");
        let sums = |from: &str| client.one(&format!("SELECT count(*), sum(n), sum(b), min(t), max(t) FROM {from}"));
        assert_eq!(sums(name), sums(&format!("({query}) AS b")), "{when}: {name}");
        for (one, other) in
            [(format!("SELECT * FROM {name}"), query.to_string()), (query.to_string(), format!("SELECT * FROM {name}"))]
        {
            let missing = client.number(&format!("SELECT count(*) FROM ({one} EXCEPT {other}) AS d"));
            assert_eq!(missing, 0, "{when}: {name}: rows that the other does not have");
        }
    }
    // A reader of one window does not read the others.
    let narrow = "WHERE window_start >= '2026-01-01T00:04:00Z' AND window_start < '2026-01-01T00:06:00Z'";
    for (name, query) in &VIEWS[1..] {
        let of = |from: &str| client.one(&format!("SELECT count(*), sum(n), sum(b) FROM {from} {narrow}"));
        assert_eq!(of(name), of(&format!("({query}) AS b")), "{when}: {name}, two minutes of it");
    }
}

#[test]
fn views_larger_than_their_limit_stay_right() {
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "100ms"]);
    server.again();
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED",
        server.log("*.log").display()
    ));
    for (name, query) in VIEWS {
        client.run(&format!("CREATE MATERIALIZED VIEW {name} WITH (memory_limit = '2 MiB') AS {query}"));
    }
    write_groups(&server.log("one.log"), false);
    client.run("FLUSH");
    write_groups(&server.log("two.log"), true);
    client.run("FLUSH");
    check_views(&client, "streamed");
    assert!(state_files(&server) > 0);

    // Made anew from the rows that are there, beside the old ones.
    for (name, query) in VIEWS {
        client.run(&format!("CREATE OR REPLACE MATERIALIZED VIEW {name} WITH (memory_limit = '2 MiB') AS {query}"));
    }
    check_views(&client, "replaced");
    for (name, _) in VIEWS {
        client.run(&format!("DROP MATERIALIZED VIEW {name}"));
    }
    wait_for_no_state_files(&server);
    for (name, query) in VIEWS {
        client.run(&format!("CREATE MATERIALIZED VIEW {name} WITH (memory_limit = '2 MiB') AS {query}"));
    }
    check_views(&client, "backfilled");

    // What a killed server leaves behind is gone, and made again from the log.
    std::fs::write(server.data_dir().join("state").join("999999999999.run"), "left").expect("it is writable");
    server.kill();
    server.again();
    let client = server.client();
    assert!(!server.data_dir().join("state").join("999999999999.run").exists());
    check_views(&client, "restarted");
    client.run("DROP TABLE access CASCADE");
    wait_for_no_state_files(&server);
}

/// Files of dropped views go when the last checkpoint that names them does.
fn wait_for_no_state_files(server: &Server) {
    let begun = std::time::Instant::now();
    while state_files(server) > 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "files of dropped views are left");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn the_largest_limit_of_views_that_share_a_rollup_counts() {
    let mut server = Server::prepare();
    server.use_arguments(&["--view-memory", "8 MiB"]);
    server.again();
    let client = server.client();
    let limit = |client: &Client| client.number("SELECT max(memory_limit) FROM logweir.views");
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED;
         CREATE MATERIALIZED VIEW a WITH (memory_limit = '4 MiB') AS SELECT path, count(*) AS n FROM access GROUP BY path",
        server.log("*.log").display()
    ));
    assert_eq!(limit(&client), 4 << 20);
    client
        .run("CREATE MATERIALIZED VIEW b AS SELECT path, count(*) AS n FROM access GROUP BY path HAVING count(*) > 1");
    assert_eq!(limit(&client), 8 << 20);
    client.run("CREATE OR REPLACE MATERIALIZED VIEW a WITH (memory_limit = '16 MiB') AS SELECT path, count(*) AS n FROM access GROUP BY path");
    assert_eq!(limit(&client), 16 << 20);
    client.run("DROP MATERIALIZED VIEW a");
    assert_eq!(limit(&client), 8 << 20);
}

#[test]
fn all_views_together_have_a_limit() {
    let mut server = Server::prepare();
    server.use_arguments(&["--state-memory", "4 MiB"]);
    server.again();
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED",
        server.log("*.log").display()
    ));
    for (name, query) in VIEWS {
        client.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
    }
    write_groups(&server.log("one.log"), false);
    client.run("FLUSH");
    let bytes = client.number("SELECT sum(state_bytes) FROM logweir.views");
    assert!(bytes <= 4 << 20, "{bytes} bytes");
    assert!(client.number("SELECT sum(disk_bytes) FROM logweir.views") > 0);
    for (name, query) in VIEWS {
        let sums = |from: &str| client.one(&format!("SELECT count(*), sum(n), sum(b), min(t), max(t) FROM {from}"));
        assert_eq!(sums(name), sums(&format!("({query}) AS b")), "{name}");
    }
}

/// A disk that takes no more stops the views that need it, and nothing else.
#[test]
fn a_state_that_cannot_be_moved_stops_its_view() {
    let mut server = Server::start();
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED",
        server.log("*.log").display()
    ));
    let (name, query) = VIEWS[0];
    client.run(&format!("CREATE MATERIALIZED VIEW {name} WITH (memory_limit = '2 MiB') AS {query}"));
    client.run("CREATE MATERIALIZED VIEW small AS SELECT status, count(*) AS n FROM access GROUP BY status");
    std::fs::remove_dir_all(server.data_dir().join("state")).expect("it is there");
    server.expect_log("the view is stopped");
    server.expect_log("checkpoint could be made");
    write_groups(&server.log("one.log"), false);
    client.run("FLUSH");
    client.fails(&format!("SELECT * FROM {name}")).says("58P01", &["moving a view's state to disk", "state"]);
    assert_eq!(client.one(&format!("SELECT state, state_bytes FROM logweir.views WHERE name = '{name}'")), "failed 0");
    assert_eq!(client.number("SELECT count(*) FROM access"), GROUPS as i64);
    assert_eq!(client.number("SELECT n FROM small"), GROUPS as i64);
}

/// Queries over three million distinct values in a small part of the memory they would take.
#[test]
fn queries_larger_than_their_memory() {
    let mut server = Server::prepare();
    server.use_arguments(&["--query-memory", "64 MiB"]);
    server.again();
    let client = server.client();
    let rows = "(SELECT a * 1500 + b AS x FROM (SELECT unnest(range(0, 2000)) AS a) AS one
                 CROSS JOIN (SELECT unnest(range(0, 1500)) AS b) AS two) AS r";
    let text = format!("(SELECT 'a text that takes some room ' || x AS t, x FROM {rows}) AS s");
    let cases = [
        (format!("SELECT count(*) FROM (SELECT x, count(*) AS n FROM {rows} GROUP BY x) AS g WHERE n = 1"), "3000000"),
        (
            format!("SELECT count(*), sum(n) FROM (SELECT t, count(*) AS n, max(x) FROM {text} GROUP BY t) AS g"),
            "3000000 3000000",
        ),
        (format!("SELECT count(DISTINCT t) FROM {text}"), "3000000"),
        (format!("SELECT t FROM {text} ORDER BY t LIMIT 1 OFFSET 2999999"), "a text that takes some room 999999"),
        (format!("SELECT max(r) FROM (SELECT row_number() OVER (ORDER BY t) AS r FROM {text}) AS w"), "3000000"),
        (format!("SELECT count(*) FROM {text} JOIN (SELECT t FROM {text}) AS other USING (t)"), "3000000"),
        (format!("SELECT count(*) FROM (SELECT t FROM {text} UNION SELECT t FROM {text}) AS u"), "3000000"),
        (format!("SELECT length(string_agg(t, ',')) > 0 FROM {text}"), "t"),
        (format!("SELECT array_length(array_agg(t)) FROM {text}"), "3000000"),
    ];
    let before = server.peak_memory();
    for (sql, answer) in cases {
        match client.attempt(&sql) {
            Ok(rows) => assert_eq!(rows.iter().map(crate::server::line).collect::<Vec<_>>(), [answer], "{sql}"),
            Err(failure) => assert_eq!(failure.code, "53200", "{failure:?} of {sql}"),
        }
        assert!(client.alive(), "after {sql}");
        println!("peak memory {} MiB after {sql}", server.peak_memory() >> 20);
    }
    let grown = server.peak_memory() - before;
    assert!(grown < 1 << 30, "queries with 64 MiB took {} MiB", grown >> 20);
}
