//! Late rows and closed windows over real files: what is corrected, what is announced once, what a silence closes, and
//! that a restart finds all of it as it was.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::lines::{self, START, clf};
use crate::server::{Client, Server};

/// A line of `path` at so many seconds after the start.
fn line(path: &str, second: i64) -> String {
    format!("10.0.0.1 - - [{}] \"GET {path} HTTP/1.1\" 200 1 \"-\" \"-\"\n", clf(START + second))
}

fn write(client: &Client, log: &Path, rows: &[(&str, i64)]) {
    lines::append(log, rows.iter().map(|(path, second)| line(path, *second)).collect::<String>());
    client.run("FLUSH");
}

/// Seconds after the start, to compare with.
const SECOND: &str = "extract(epoch FROM window_start - '2026-01-01 00:00:00Z'::timestamptz)::int";

fn check(client: &Client, sql: &str, expected: &[&str]) {
    let mut expected: Vec<String> = expected.iter().map(|row| row.replace('|', " ")).collect();
    expected.sort_unstable();
    assert_eq!(client.sorted(sql), expected, "{sql}");
}

#[test]
fn late_rows_correct_what_is_shown_and_not_what_was_announced() {
    let mut server = Server::start();
    let log = server.log("access.log");
    lines::append(&log, "");
    let mut client = server.client();
    client.run(&format!(
        "CREATE TABLE access (*, WATERMARK FOR ts AS ts)
         WITH (connector = 'file', path = '{}', idle_timeout = '1 hour', max_future = '36500 days') FORMAT COMBINED",
        log.display()
    ));
    let tumble = "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(access, ts, INTERVAL '1 minute')
                  GROUP BY window_start, window_end";
    let hop = "SELECT window_start, count(*) AS n FROM HOP(access, ts, INTERVAL '30 seconds', INTERVAL '1 minute')
               GROUP BY window_start";
    let paths = "SELECT window_start, path, count(*) AS n FROM TUMBLE(access, ts, INTERVAL '1 minute')
                 GROUP BY window_start, path";
    client.run(&format!("CREATE MATERIALIZED VIEW latest AS {tumble}"));
    client.run(&format!("CREATE MATERIALIZED VIEW waiting WITH (allowed_lateness = '10 minutes') AS {tumble}"));
    client.run(&format!("CREATE MATERIALIZED VIEW hops AS {hop}"));
    client.run(&format!("CREATE MATERIALIZED VIEW closed AS {tumble} EMIT ON WINDOW CLOSE"));
    client.run(&format!("CREATE MATERIALIZED VIEW closed_hops AS {hop} EMIT ON WINDOW CLOSE"));
    client.run(&format!("CREATE MATERIALIZED VIEW delayed AS {tumble} EMIT ON WINDOW CLOSE WITH DELAY '2 minutes'"));
    client.run(&format!("CREATE MATERIALIZED VIEW filled AS {paths} EMIT ON WINDOW CLOSE FILL ZERO"));
    client.run(&format!("CREATE MATERIALIZED VIEW repeated AS {paths} EMIT ON WINDOW CLOSE FILL PREVIOUS"));

    write(&client, &log, &[("/a", 0), ("/a", 1), ("/b", 2), ("/a", 61)]);
    let shown = format!("SELECT {SECOND}, n, _final, _revision FROM latest");
    check(&client, &shown, &["0|3|t|0", "60|1|f|0"]);
    let announced = format!("SELECT {SECOND}, n FROM closed");
    check(&client, &announced, &["0|3"]);

    // Late for the first minute; of the hops that hold it one has closed and one has not.
    write(&client, &log, &[("/a", 30)]);
    check(&client, &shown, &["0|4|t|1", "60|1|f|0"]);
    check(&client, &announced, &["0|3"]);
    check(&client, &format!("SELECT {SECOND}, n, _final, _revision FROM waiting"), &["0|4|f|0", "60|1|f|0"]);
    check(&client, "SELECT path, _late_by, _offset FROM access__late", &["/a|00:00:31|4"]);

    write(&client, &log, &[("/a", 200)]);
    let hops = format!("SELECT {SECOND}, n, _revision FROM hops WHERE _final");
    let after = |client: &Client| {
        check(client, &announced, &["0|3", "60|1"]);
        check(client, &format!("SELECT {SECOND}, n FROM closed_hops"), &["-30|3", "0|3", "30|2", "60|1"]);
        check(client, &hops, &["-30|3|0", "0|4|1", "30|2|0", "60|1|0"]);
        // Two minutes later than the end of the first minute, and not yet of the second.
        check(client, &format!("SELECT {SECOND}, n FROM delayed"), &["0|4"]);
        let filled = ["0|/a|2", "0|/b|1", "120|/a|0", "120|/b|0", "60|/a|1", "60|/b|0"];
        check(client, &format!("SELECT {SECOND}, path, n FROM filled"), &filled);
        let repeated = ["0|/a|2", "0|/b|1", "120|/a|1", "120|/b|1", "60|/a|1", "60|/b|1"];
        check(client, &format!("SELECT {SECOND}, path, n FROM repeated"), &repeated);
        assert_eq!(client.one("SELECT late_rows FROM logweir.watermarks"), "1");
    };
    after(&client);

    // The log alone decides, also for a view that is made now and filled from it.
    server.kill();
    server.again();
    client = server.client();
    after(&client);
    client.run(&format!("CREATE MATERIALIZED VIEW later AS {hop} EMIT ON WINDOW CLOSE"));
    check(&client, "SELECT * FROM later EXCEPT SELECT * FROM closed_hops", &[]);
    assert_eq!(client.number("SELECT count(*) FROM later"), 4);
}

/// Longer than the silence takes to close a window on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn silence_closes_the_last_window_and_a_restart_keeps_it_closed() {
    let mut server = Server::start();
    let log = server.log("access.log");
    lines::append(&log, line("/a", 0) + &line("/a", 70));
    let mut client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}', idle_timeout = '300 milliseconds') FORMAT COMBINED",
        log.display()
    ));
    client.run(
        "CREATE MATERIALIZED VIEW closed AS SELECT window_start, count(*) AS n FROM TUMBLE(access, ts, INTERVAL '1 second')
         GROUP BY window_start EMIT ON WINDOW CLOSE",
    );
    let begun = Instant::now();
    while client.number("SELECT count(*) FROM closed") < 2 {
        assert!(begun.elapsed() < PATIENCE, "the last window stays open");
        std::thread::yield_now();
    }
    server.kill();
    server.again();
    client = server.client();
    assert_eq!(client.number("SELECT count(*) FROM closed"), 2);
}
