//! Interval joins over files that grow: requests and their responses, with restarts in between. A view equals its own
//! query run as a batch, and whoever follows it has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::batch::same;
use crate::lines;
use crate::server::{Client, Server, line};

const BETWEEN: &str = "q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '30 seconds'";

/// Reaching it means that a subscription has missed something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Views by name; `$ON` is [`BETWEEN`].
const VIEWS: &[(&str, &str)] = &[
    (
        "answered",
        "SELECT date_trunc('minute', q.ts) AS minute, q.path, count(*) AS n, sum(r.ms) AS ms
         FROM requests q JOIN responses r ON $ON GROUP BY 1, 2",
    ),
    (
        "unanswered",
        "SELECT date_trunc('minute', q.ts) AS minute, count(*) AS n, count(r.id) AS answered, max(r.ms) AS slowest
         FROM requests q LEFT JOIN responses r ON $ON GROUP BY 1",
    ),
    ("lost", "SELECT q.path, count(*) AS n FROM requests q LEFT JOIN responses r ON $ON WHERE r.id IS NULL GROUP BY 1"),
];

fn create_streams(server: &Server, client: &Client) {
    for (name, columns) in [("requests", "path text"), ("responses", "ms int")] {
        let path = server.log(&format!("{name}.json"));
        lines::append(&path, "");
        client.run(&format!(
            "CREATE TABLE {name} (ts timestamptz, id text, {columns}, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
             WITH (connector = 'file', path = '{}', hot_bytes = '64 KiB') FORMAT JSON (time_field = 'ts')",
            path.display()
        ));
    }
}

fn create_view(client: &Client, (name, query): &(&str, &str)) {
    client.run(&format!("CREATE MATERIALIZED VIEW {name} AS {}", query.replace("$ON", BETWEEN)));
}

fn check(client: &Client, what: &str) {
    client.run("FLUSH");
    for (name, query) in VIEWS {
        same(client, &format!("{what}, {name}"), &format!("SELECT * FROM {name}"), &query.replace("$ON", BETWEEN), 0.0);
    }
}

/// What a subscriber to a view holds: each row so often.
#[derive(Default)]
struct Follower {
    rows: BTreeMap<String, i64>,
}

impl Follower {
    /// Takes changes until it has what the view has; `client` has a cursor for it.
    fn catch_up(&mut self, client: &Client, view: &str) {
        let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
        for row in client.rows(&format!("SELECT * FROM {view}")) {
            *wanted.entry(line(&row)).or_default() += 1;
        }
        let begun = Instant::now();
        while self.rows != wanted && begun.elapsed() < PATIENCE {
            for change in client.rows(&format!("FETCH ALL f_{view} WITH (timeout = '1 second')")) {
                let gained = matches!(change[1].as_deref(), Some("insert" | "update_after"));
                *self.rows.entry(line(&change[2..].to_vec())).or_default() += if gained { 1 } else { -1 };
            }
            self.rows.retain(|_, count| *count != 0);
        }
        assert_eq!(self.rows, wanted, "who follows {view} has something else");
    }
}

/// Requests from number `from` on, one in four milliseconds, and the responses to most of them: some late, some twice.
fn traffic(random: &mut StdRng, from: u64, count: u64) -> (String, String) {
    let (mut requests, mut responses) = (String::new(), String::new());
    let time = |ms: u64| {
        let at = chrono::DateTime::from_timestamp_millis(lines::START * 1000 + ms as i64).expect("an ordinary time");
        at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    };
    for number in from..from + count {
        let sent = number * 40 + random.random_range(0..3000);
        let path = random.random_range(0..5);
        let _ = writeln!(requests, r#"{{"ts":"{}","id":"q{number}","path":"/p/{path}"}}"#, time(sent));
        for _ in 0..[0, 1, 1, 1, 1, 1, 2][random.random_range(0..7)] {
            let ms: u64 = match random.random_range(0..50) {
                0 => random.random_range(20_000..60_000),
                _ => random.random_range(1..2000),
            };
            let _ = writeln!(responses, r#"{{"ts":"{}","id":"q{number}","ms":{ms}}}"#, time(sent + ms));
        }
    }
    (requests, responses)
}

#[test]
fn views_over_two_growing_files_equal_their_queries() {
    let random = &mut StdRng::seed_from_u64(11);
    let mut server = Server::start();
    let mut client = server.client();
    create_streams(&server, &client);
    create_view(&client, &VIEWS[0]);
    create_view(&client, &VIEWS[1]);
    let files = [server.log("requests.json"), server.log("responses.json")];
    let follow = |client: &Client| {
        client.run("DECLARE f_unanswered CURSOR WITH HOLD FOR SUBSCRIBE unanswered");
        client.run("DECLARE f_answered CURSOR WITH HOLD FOR SUBSCRIBE answered");
        [("unanswered", Follower::default()), ("answered", Follower::default())]
    };
    let mut followers = follow(&client);
    // What was written to neither file yet.
    let mut behind = [String::new(), String::new()];
    for round in 0..8 {
        let (requests, responses) = traffic(random, round * 1500, 1500);
        behind[0] += &requests;
        behind[1] += &responses;
        // One file runs ahead of the other, by minutes at times.
        let which = random.random_range(0..3);
        for (i, path) in files.iter().enumerate() {
            if which != i {
                let text = std::mem::take(&mut behind[i]);
                for piece in lines::pieces(random, text.as_bytes(), 4) {
                    lines::append(path, piece);
                }
            }
        }
        match round {
            2 => create_view(&client, &VIEWS[2]),
            3 => {
                server.kill();
                server.again();
                client = server.client();
                followers = follow(&client);
            }
            5 => {
                assert!(server.terminate().success());
                server.again();
                client = server.client();
                followers = follow(&client);
            }
            _ => {}
        }
        if round >= 2 {
            check(&client, &format!("round {round}"));
        }
        client.run("FLUSH");
        for (view, follower) in &mut followers {
            follower.catch_up(&client, view);
        }
    }
    for (path, text) in files.iter().zip(&behind) {
        lines::append(path, text);
    }
    check(&client, "all written");
    assert_eq!(client.number("SELECT sum(n) FROM answered"), client.number("SELECT sum(answered) FROM unanswered"));
    assert!(client.number("SELECT sum(n) FROM lost") > 500);
    // Nothing of the rows is kept twice.
    let bytes = client.number("SELECT max(state_bytes) FROM logweir.views WHERE name = 'unanswered'");
    assert!(bytes < 1 << 20, "{bytes} bytes for some minutes");
}

#[test]
fn a_late_answer_corrects_what_was_counted_as_unanswered() {
    let mut server = Server::start();
    let client = server.client();
    create_streams(&server, &client);
    let files = [server.log("requests.json"), server.log("responses.json")];
    VIEWS.iter().for_each(|view| create_view(&client, view));
    lines::append(&files[0], "{\"ts\":\"2026-01-01T00:00:10Z\",\"id\":\"a\",\"path\":\"/\"}\n");
    lines::append(&files[1], "{\"ts\":\"2026-01-01T05:00:00Z\",\"id\":\"b\",\"ms\":1}\n");
    client.run("FLUSH");
    assert_eq!(client.one("SELECT answered FROM unanswered"), "0");
    assert_eq!(client.one("SELECT n FROM lost"), "1");
    // The watermark of the responses has long passed it.
    lines::append(&files[1], "{\"ts\":\"2026-01-01T00:00:20Z\",\"id\":\"a\",\"ms\":10000}\n");
    client.run("FLUSH");
    assert_eq!(client.one("SELECT answered FROM unanswered"), "1");
    assert_eq!(client.rows("SELECT n FROM lost").len(), 0);
    check(&client, "corrected");
}

/// Both changes of a row, as a subscriber sees them.
#[test]
fn who_follows_a_join_sees_rows_without_a_match_go() {
    let mut server = Server::start();
    let client = server.client();
    create_streams(&server, &client);
    let files = [server.log("requests.json"), server.log("responses.json")];
    create_view(&client, &VIEWS[2]);
    lines::append(&files[0], "{\"ts\":\"2026-01-01T00:00:10Z\",\"id\":\"a\",\"path\":\"/\"}\n");
    client.run("FLUSH");
    client.run("BEGIN");
    client.run("DECLARE c CURSOR FOR SUBSCRIBE lost");
    let fetched = |client: &Client| {
        let rows = client.rows("FETCH ALL c WITH (timeout = '10 seconds')");
        rows.iter().map(|row| format!("{:?} {:?}", row[1], row.last())).collect::<Vec<_>>()
    };
    let first = fetched(&client);
    assert_eq!(first.len(), 1, "{first:?}");
    let other = server.client();
    lines::append(&files[1], "{\"ts\":\"2026-01-01T00:00:11Z\",\"id\":\"a\",\"ms\":1000}\n");
    other.run("FLUSH");
    let then = fetched(&client);
    assert_eq!(then.len(), 1, "{then:?}");
    assert_ne!(first, then);
}
