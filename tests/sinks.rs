//! Sinks, with a real server that is killed and with others that fail: files and PostgreSQL have every row exactly once, HTTP
//! receivers every row at least once and repeated ones under the same key.

pub mod postgres;
pub mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::lines::{self, START, clf, numbered};
use crate::server::{Client, Row, Server};
use postgres::Postgres;
use receiver::Receiver;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Kills in the middle of deliveries.
const KILLS: u64 = 12;

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a sink has delivered all that there is.
pub fn delivered(client: &Client, sink: &str) {
    client.run("FLUSH");
    let lag = format!("SELECT lag FROM logweir.sinks WHERE name = '{sink}'");
    until(&format!("{sink} to deliver all"), || client.one(&lag) == "0");
}

pub fn column(client: &Client, sink: &str, column: &str) -> String {
    client.one(&format!("SELECT {column} FROM logweir.sinks WHERE name = '{sink}'"))
}

/// A stream `web` of `web.log`, of which each line has its number in `bytes`.
pub fn create_web(client: &Client, log: &Path, more: &str) {
    lines::append(log, "");
    client.run(&format!(
        "CREATE TABLE web (*, WATERMARK FOR ts AS ts - INTERVAL '1 second')
         WITH (connector = 'file', path = '{}'{more}) FORMAT COMBINED",
        log.display()
    ));
}

fn write(log: &Path, numbers: std::ops::Range<u64>) {
    lines::append(log, numbers.map(numbered).collect::<String>());
}

/// Complete files of a folder, in the order of their names, with what they hold.
fn files(folder: &Path) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("it can be read").file_name().into_string().expect("it is ASCII"));
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    let read = |name: String| {
        let text = std::fs::read_to_string(folder.join(&name)).expect("it is complete");
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// The numbers in lines of JSON.
fn numbers(text: &str) -> Vec<u64> {
    let number = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
        row["bytes"].as_u64().expect("every line has its number")
    };
    text.lines().map(number).collect()
}

/// What a receiver has accepted, by key; repeated keys must have the same rows.
fn received(receiver: &Receiver) -> (BTreeMap<String, Vec<u64>>, u64) {
    let (mut all, mut repeated) = (BTreeMap::<String, Vec<u64>>::new(), 0);
    for request in receiver.accepted() {
        let found = numbers(&request.body);
        match all.get(request.key()) {
            None => drop(all.insert(request.key().to_string(), found)),
            Some(before) => {
                assert_eq!(before, &found, "another batch under the key {}", request.key());
                repeated += 1;
            }
        }
    }
    (all, repeated)
}

/// Every number below `end` is in the batches once.
fn check_once(batches: &BTreeMap<String, Vec<u64>>, end: u64) {
    let mut found: Vec<u64> = batches.values().flatten().copied().collect();
    found.sort_unstable();
    assert_eq!(found.len() as u64, end, "rows are missing or repeated");
    assert!(found.iter().copied().eq(0..end));
}

#[test]
fn killed_in_the_middle_of_deliveries() {
    let mut server = Server::prepare();
    // Deliveries are torn apart by kills, and what a sink says about that is no failure.
    server.expect_log("a sink cannot deliver");
    server.again();
    let postgres = Postgres::start();
    // Slow, so that kills find batches on their way; some answers never reach the sender.
    let receiver = Receiver::start(|_| {
        std::thread::sleep(Duration::from_millis(rand::random_range(0..20)));
        (200, "")
    });
    let (log, folder) = (server.log("web.log"), server.log("out"));
    let mut client = server.client();
    create_web(&client, &log, "");
    client.run(&format!(
        "CREATE SINK files FROM web WITH (connector = 'file', path = '{}', roll_bytes = '40 kB', roll_interval = '300ms', batch_rows = 100)",
        folder.display()
    ));
    client.run(&format!(
        "CREATE SINK posts FROM web WITH (connector = 'http', url = '{}', body = 'lines', batch_rows = 70, batch_interval = '20ms', compression = 'gzip')",
        receiver.url()
    ));
    if let Some(postgres) = &postgres {
        let options = postgres.options();
        client.run(&format!(
            "CREATE SINK pg FROM web WITH ({options}, table = 'web', batch_rows = 90, batch_interval = '20ms')"
        ));
    }
    let mut written = 0;
    let mut random = rand::rng();
    for _ in 0..KILLS {
        for _ in 0..random.random_range(1..4) {
            let count = random.random_range(1..700);
            write(&log, written..written + count);
            written += count;
            std::thread::sleep(Duration::from_millis(random.random_range(0..150)));
        }
        server.kill();
        server.again();
    }
    client = server.client();
    delivered(&client, "files");
    delivered(&client, "posts");
    let found: Vec<u64> = files(&folder).iter().flat_map(|(_, text)| numbers(text)).collect();
    assert!(found.iter().copied().eq(0..written), "{} rows in files instead of {written}", found.len());
    let (batches, repeated) = received(&receiver);
    check_once(&batches, written);
    if let Some(postgres) = &postgres {
        delivered(&client, "pg");
        let all = "SELECT count(*), count(DISTINCT bytes), min(bytes), max(bytes) FROM web";
        assert_eq!(postgres.client().one(all), format!("{written} {written} 0 {}", written - 1));
        let here = client.sorted("SELECT ts, client, method, path, status, bytes FROM web");
        let there = "SET TIME ZONE 'UTC'; SELECT ts, client, method, path, status, bytes FROM web";
        assert_eq!(postgres.client().sorted(there), here);
    }
    println!(
        "sinks: {KILLS} kills, {written} rows, {} files, {} batches, {repeated} repeated",
        files(&folder).len(),
        batches.len()
    );
    assert!(server.terminate().success());
}

/// Whether a sink can deliver is asked at its address, so that is where requests go.
#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    let mut server = Server::prepare();
    // Nobody listens there.
    let proxy = || "http://127.0.0.1:9".to_string();
    server.use_environment(&[("http_proxy", proxy()), ("HTTP_PROXY", proxy()), ("ALL_PROXY", proxy())]);
    server.again();
    let receiver = Receiver::start(|_| (200, ""));
    let (log, client) = (server.log("web.log"), server.client());
    create_web(&client, &log, "");
    client.run(&format!(
        "CREATE SINK posts FROM web WITH (connector = 'http', url = '{}', body = 'lines')",
        receiver.url()
    ));
    write(&log, 0..100);
    delivered(&client, "posts");
    check_once(&received(&receiver).0, 100);
    assert!(server.terminate().success());
}

#[test]
fn a_receiver_that_is_down_stops_nobody_and_gets_all_when_it_comes_back() {
    let mut server = Server::start();
    server.expect_log("a sink cannot deliver");
    let busy = AtomicU64::new(0);
    let receiver = Receiver::start(move |_| match busy.fetch_add(1, Ordering::SeqCst) {
        0 => (503, "retry-after: 1\r\n"),
        1 => (429, ""),
        2 => (408, ""),
        _ => (201, ""),
    });
    let log = server.log("web.log");
    let client = server.client();
    create_web(&client, &log, "");
    receiver.go_down();
    let create = |more: &str| {
        format!(
            "CREATE SINK posts FROM web WITH (connector = 'http', url = '{}', body = 'lines', batch_rows = 500, batch_interval = '10ms', retry_max = '300ms'{more})",
            receiver.url()
        )
    };
    client.fails(&create("")).says("58030", &["could not connect to http://127.0.0.1", "validate = false"]);
    assert_eq!(client.one("SELECT count(*) FROM logweir.sinks"), "0", "nothing is left behind");
    client.run(&create(", validate = false"));
    write(&log, 0..2000);
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*) FROM web"), "2000");
    until("retries", || column(&client, "posts", "state || ' ' || (retries > 1)") == "retrying true");
    assert!(column(&client, "posts", "last_error").contains("could not connect"));
    assert_eq!(column(&client, "posts", "delivered_rows || ' ' || lag"), "0 2000");
    receiver.come_back();
    delivered(&client, "posts");
    assert_eq!(receiver.refused().len(), 3);
    // It goes away once more, in mid-stream and over a restart.
    receiver.go_down();
    write(&log, 2000..3000);
    client.run("FLUSH");
    assert!(server.terminate().success());
    server.again();
    let client = server.client();
    write(&log, 3000..3500);
    client.run("FLUSH");
    receiver.come_back();
    delivered(&client, "posts");
    let (batches, _) = received(&receiver);
    check_once(&batches, 3500);
    assert_eq!(column(&client, "posts", "state || ' ' || delivered_rows"), "live 3500");
    let keys: BTreeSet<String> = receiver.refused().iter().map(|request| request.key().to_string()).collect();
    assert!(keys.len() == 1 && batches.contains_key(keys.first().unwrap()), "the same batch under the same key");
}

#[test]
fn a_slow_receiver_does_not_slow_ingestion() {
    let mut server = Server::start();
    server.expect_log("a sink cannot deliver");
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let receiver = Receiver::start(move |_| {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        (200, "")
    });
    let log = server.log("web.log");
    let client = server.client();
    create_web(&client, &log, "");
    client.run("CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM web");
    client.run(&format!(
        "CREATE SINK posts FROM web WITH (connector = 'http', url = '{}', body = 'lines', batch_bytes = '100 kB', timeout = '5 minutes')",
        receiver.url()
    ));
    // Far more than a batch, all of it while the first batch waits for its answer.
    for part in 0..20 {
        write(&log, part * 5000..(part + 1) * 5000);
        client.run("FLUSH");
    }
    assert_eq!(client.one("SELECT n FROM n"), "100000");
    assert_eq!(column(&client, "posts", "delivered_rows || ' ' || lag"), "0 100000");
    assert!(receiver.accepted().is_empty());
    open.store(true, Ordering::SeqCst);
    delivered(&client, "posts");
    let (batches, _) = received(&receiver);
    check_once(&batches, 100_000);
    let longest = receiver.accepted().iter().map(|request| request.body.len()).max();
    assert!(longest.unwrap() < 1_000_000, "a batch of {longest:?} bytes");
}

#[test]
fn refused_rows_become_dead_letters_and_hold_up_no_others() {
    let mut server = Server::start();
    server.expect_log("the other side refused rows");
    // PostgreSQL goes first at the end.
    server.expect_log("a sink cannot deliver");
    let receiver = Receiver::start(|request| if request.body.contains("/n/13\"") { (422, "") } else { (200, "") });
    let log = server.log("web.log");
    let client = server.client();
    create_web(&client, &log, "");
    let secret = "hunter2";
    client.run(&format!(
        "CREATE SINK posts FROM web WITH (connector = 'http', url = '{}', body = 'lines', tries = 2, authorization = 'Bearer {secret}', headers = 'X-Team: web')",
        receiver.url()
    ));
    let postgres = Postgres::start();
    if let Some(postgres) = &postgres {
        postgres.client().run(
            "CREATE TABLE target (bytes int CHECK (bytes % 50 <> 7), path varchar(7), ts timestamptz);
             GRANT ALL ON target TO writer",
        );
        client.run(&format!(
            "CREATE SINK pg FROM (SELECT bytes, path, ts FROM web) WITH ({}, table = 'target')",
            postgres.options()
        ));
    }
    write(&log, 0..200);
    delivered(&client, "posts");
    let (batches, _) = received(&receiver);
    let found: BTreeSet<u64> = batches.values().flatten().copied().collect();
    assert_eq!(found, (0..200).filter(|n| *n != 13).collect());
    let letters = client.rows("SELECT \"offset\", tries, reason, row FROM posts__dead");
    assert_eq!(letters.len(), 1);
    let text = |i: usize| letters[0][i].clone().unwrap();
    assert_eq!(text(1), "2");
    assert!(text(2).contains("answered 422") && text(2).contains("answer 422"), "{}", text(2));
    assert!(text(3).contains("\"/n/13\""), "{}", text(3));
    let alone = receiver.refused().into_iter().filter(|request| request.body.lines().count() == 1).count();
    assert_eq!(alone, 2, "as often as tries says");
    assert!(
        receiver
            .accepted()
            .iter()
            .all(|r| r.headers["authorization"] == "Bearer hunter2" && r.headers["x-team"] == "web")
    );
    assert_eq!(column(&client, "posts", "delivered_rows || ' ' || dead_rows"), "199 1");
    if let Some(postgres) = &postgres {
        delivered(&client, "pg");
        // /n/100 … have more than 6 letters and still fit into 7.
        let there = postgres.client().one("SELECT count(*), count(*) FILTER (WHERE bytes % 50 = 7) FROM target");
        assert_eq!(there, "196 0");
        let reasons = client.sorted("SELECT (json_get_int(row, 'bytes')) || ' ' || reason FROM pg__dead");
        assert_eq!(reasons.len(), 4);
        assert!(reasons[0].starts_with("107 ") && reasons[0].contains("violates check constraint"), "{reasons:?}");
        assert!(reasons[0].contains("SQLSTATE 23514"), "{reasons:?}");
    }
    // Letters outlive a restart, as does what counts them.
    server.kill();
    server.again();
    let client = server.client();
    assert_eq!(client.one("SELECT count(*) FROM posts__dead"), "1");
    assert_eq!(column(&client, "posts", "delivered_rows || ' ' || dead_rows"), "199 1");
    // No credentials anywhere.
    let shown = format!("{:?}", client.rows("SHOW CREATE SINK posts"));
    assert!(shown.contains("authorization = '***'") && !shown.contains(secret), "{shown}");
    assert!(!format!("{:?}", client.rows("SELECT * FROM logweir.sinks")).contains(secret));
    assert!(!server.has_logged(secret));
}

/// Groups that come, change and go, with NULL in their keys.
pub const GROUPS: &str = "SELECT window_start, remote_user, path, count(*) AS n, max(bytes) AS last, avg(bytes) AS mean
     FROM TUMBLE(web, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, remote_user, path HAVING count(*) < 4";

/// A line of a few users (some unknown) and paths, at a second.
pub fn grouped(second: i64, number: u64) -> String {
    let user = ["-", "ann", "bob"][(number % 3) as usize];
    let time = clf(START + second);
    format!("10.0.0.1 - {user} [{time}] \"GET /{} HTTP/1.1\" 200 {number} \"-\" \"-\"\n", number % 5)
}

#[test]
fn a_table_in_postgres_is_kept_equal_to_a_view() {
    let Some(mut postgres) = Postgres::start() else { return };
    let mut server = Server::start();
    server.expect_log("a sink cannot deliver");
    let log = server.log("web.log");
    let mut client = server.client();
    create_web(&client, &log, "");
    client.run(&format!("CREATE MATERIALIZED VIEW groups AS {GROUPS}"));
    client.run("CREATE MATERIALIZED VIEW one AS SELECT count(*) AS n, max(bytes) AS last FROM web");
    let options = postgres.options();
    for view in ["groups", "one"] {
        client.run(&format!(
            "CREATE SINK {view}_pg FROM {view} WITH ({options}, table = '{view}', batch_rows = 7, batch_interval = '10ms', retry_max = '200ms')"
        ));
    }
    let mut random = rand::rng();
    let mut number = 0;
    let mut more = |seconds: std::ops::Range<i64>, count: u64| {
        let mut text = String::new();
        for _ in 0..count {
            text += &grouped(random.random_range(seconds.clone()), number);
            number += 1;
        }
        lines::append(&log, text);
    };
    let equal = |client: &Client, postgres: &Postgres| {
        for view in ["groups", "one"] {
            delivered(client, &format!("{view}_pg"));
            let columns = if view == "one" { "n, last" } else { "window_start, remote_user, path, n, last, mean" };
            let here = client.sorted(&format!("SELECT {columns} FROM {view}"));
            let there = postgres.client().sorted(&format!("SET TIME ZONE 'UTC'; SELECT {columns} FROM {view}"));
            assert!(!here.is_empty());
            assert_eq!(there, here, "{view}");
        }
    };
    more(0..60, 60);
    equal(&client, &postgres);
    for round in 0..3 {
        // Late rows too: they change and remove groups of closed windows.
        more(0..60 + round * 30, 25);
        equal(&client, &postgres);
        // What goes while nobody delivers is gone as well.
        server.kill();
        more(0..60 + round * 30, 15);
        server.again();
        client = server.client();
        equal(&client, &postgres);
        postgres.stop();
        more(0..200, 20);
        client.run("FLUSH");
        until("a failure", || column(&client, "groups_pg", "state") == "retrying");
        postgres.again();
        equal(&client, &postgres);
    }
    // Another sink must not take over a table with rows.
    let taken = client.fails(&format!("CREATE SINK again FROM groups WITH ({options}, table = 'groups')"));
    taken.says("55006", &["has rows already"]);
    assert!(!taken.message.contains("hunter2"));
    let wrong = options.replace("hunter2", "hunter3");
    let denied = client.fails(&format!("CREATE SINK denied FROM web WITH ({wrong}, table = 'x')"));
    assert!(denied.message.contains("password authentication failed"), "{denied:?}");
    assert!(!format!("{denied:?}").contains("hunter3"));
}

#[test]
fn closed_windows_are_delivered_once() {
    let mut server = Server::start();
    let (log, folder) = (server.log("web.log"), server.log("out"));
    let mut client = server.client();
    create_web(&client, &log, ", idle_timeout = '1 hour'");
    let query = "SELECT window_start, window_end, path, count(*) AS n
         FROM HOP(web, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end, path";
    client.run(&format!("CREATE MATERIALIZED VIEW closed AS {query} EMIT ON WINDOW CLOSE"));
    client.run(&format!("CREATE MATERIALIZED VIEW open AS {query}"));
    for (sink, from) in [("a", "closed"), ("b", "open_final")] {
        client.run(&format!(
            "CREATE SINK {sink} FROM {from} WITH (connector = 'file', path = '{}', roll_interval = '50ms', batch_interval = '10ms', batch_rows = 3) FORMAT CSV",
            folder.join(sink).display()
        ));
    }
    let mut number = 0;
    for round in 0..6 {
        let mut text = String::new();
        for second in round * 20..(round + 1) * 20 {
            text += &grouped(second, number);
            text += &grouped(second, number + 1);
            number += 2;
        }
        lines::append(&log, text);
        client.run("FLUSH");
        if round % 2 == 1 {
            server.kill();
            server.again();
            client = server.client();
        }
    }
    let rows = |text: &str| text.lines().skip(1).map(str::to_string).collect::<Vec<_>>();
    let as_csv = "to_char(window_start, 'YYYY-MM-DD\"T\"HH24:MI:SS') || 'Z,' \
                  || to_char(window_end, 'YYYY-MM-DD\"T\"HH24:MI:SS') || 'Z,' || path || ',' || n";
    let expected = client.sorted(&format!("SELECT {as_csv} FROM closed"));
    assert!(expected.len() > 50);
    // A late row changes neither.
    for late in [false, true] {
        if late {
            lines::append(&log, grouped(1, 5));
        }
        for sink in ["a", "b"] {
            delivered(&client, sink);
            let files = files(&folder.join(sink));
            let mut found: Vec<String> = files.iter().flat_map(|(_, text)| rows(text)).collect();
            found.sort();
            assert_eq!(found, expected, "{sink}, late: {late}");
        }
    }
    assert!(column(&client, "a", "delivered_window").starts_with("2026-01-01 00:01:"));
}

/// Applies records of changes: what is left.
fn applied(text: &str, columns: &[&str]) -> (Vec<String>, usize) {
    let (mut rows, mut resets): (Vec<String>, usize) = (Vec::new(), 0);
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let row = columns.iter().map(|c| record[c].to_string().replace('"', "")).collect::<Vec<_>>().join(" ");
        match record["_op"].as_str().expect("it has an operation") {
            "reset" => {
                rows.clear();
                resets += 1;
            }
            "insert" | "update_after" => rows.push(row),
            "delete" | "update_before" => {
                let at = rows.iter().position(|other| *other == row);
                rows.remove(at.unwrap_or_else(|| panic!("{row} is not there")));
            }
            other => panic!("{other}"),
        }
    }
    rows.sort();
    (rows, resets)
}

#[test]
fn changes_are_records_that_add_up_to_the_view() {
    let mut server = Server::start();
    let (log, folder) = (server.log("web.log"), server.log("out"));
    let mut client = server.client();
    create_web(&client, &log, "");
    lines::append(&server.log("other.log"), "");
    client.run(&format!(
        "CREATE TABLE other WITH (connector = 'file', path = '{}') FORMAT COMBINED",
        server.log("other.log").display()
    ));
    client.run(
        "CREATE MATERIALIZED VIEW paths AS SELECT path, count(*) AS n FROM web GROUP BY path HAVING count(*) < 30",
    );
    // What it was at an offset cannot be computed again: it reads two streams.
    client.run(
        "CREATE MATERIALIZED VIEW both AS SELECT path, count(*) AS n FROM web GROUP BY path
         UNION ALL SELECT path, count(*) AS n FROM other GROUP BY path",
    );
    for view in ["paths", "both"] {
        client.run(&format!(
            "CREATE SINK {view}_file FROM {view} WITH (connector = 'file', path = '{}', roll_interval = '20ms', batch_interval = '10ms', batch_rows = 2)",
            folder.join(view).display()
        ));
    }
    let mut number = 0;
    for round in 0..5u64 {
        for _ in 0..4 {
            let text: String = (number..number + 8).map(|n| grouped(n as i64, n)).collect();
            lines::append(&log, text);
            number += 8;
            client.run("FLUSH");
        }
        if round % 2 == 1 {
            server.kill();
            lines::append(&log, grouped(number as i64, number));
            number += 1;
            server.again();
            client = server.client();
        }
        for (view, most) in [("paths", 0), ("both", 2)] {
            delivered(&client, &format!("{view}_file"));
            let text: String = files(&folder.join(view)).into_iter().map(|(_, text)| text).collect();
            let (rows, resets) = applied(&text, &["path", "n"]);
            assert_eq!(rows, client.sorted(&format!("SELECT path, n FROM {view}")), "{view} in round {round}");
            assert!(resets <= most, "{view}: {resets} resets");
        }
    }
}

#[test]
fn columns_that_a_stream_learns_are_delivered() {
    let mut server = Server::start();
    let (log, folder) = (server.log("app.log"), server.log("out"));
    let client = server.client();
    // A line without a time is malformed.
    let line = |n: u64, more: &str| format!("{{\"ts\":\"2026-01-01T00:00:00Z\",\"bytes\":{n}{more}}}\n");
    lines::append(&log, line(0, ""));
    client.run(&format!("CREATE TABLE app WITH (connector = 'file', path = '{}') FORMAT JSON", log.display()));
    client.run("FLUSH");
    client.run(&format!(
        "CREATE SINK files FROM app WITH (connector = 'file', path = '{}', roll_interval = '50ms', batch_interval = '10ms')",
        folder.display()
    ));
    for n in 1..100 {
        lines::append(&log, line(n, &format!(",\"c{}\":\"x{n}\"", n / 20)));
        if n % 7 == 0 {
            client.run("FLUSH");
        }
    }
    delivered(&client, "files");
    let text: String = files(&folder).into_iter().map(|(_, text)| text).collect();
    assert_eq!(numbers(&text), (0..100).collect::<Vec<_>>());
    for line in text.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let n = row["bytes"].as_u64().unwrap();
        assert!(n == 0 || row[format!("c{}", n / 20)] == format!("x{n}").as_str(), "{line}");
    }
}

#[test]
fn what_retention_drops_before_it_is_delivered_is_counted() {
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "100ms"]);
    server.expect_log("a sink cannot deliver");
    server.expect_log("retention has dropped rows before they were delivered");
    server.again();
    let receiver = Receiver::start(|_| (200, ""));
    let log = server.log("web.log");
    let client = server.client();
    create_web(
        &client,
        &log,
        ", archive = 'off', retention_bytes = '200 kB', wal_segment_bytes = '50 kB', hot_bytes = '50 kB'",
    );
    client.run(&format!(
        "CREATE SINK posts FROM web WITH (connector = 'http', url = '{}', body = 'lines', retry_max = '200ms', batch_rows = 100)",
        receiver.url()
    ));
    write(&log, 0..100);
    delivered(&client, "posts");
    receiver.go_down();
    for part in 0..40 {
        write(&log, 100 + part * 1000..100 + (part + 1) * 1000);
        client.run("FLUSH");
    }
    // A query may find that what it was about to read is gone.
    let few = |rows: &[Row]| rows[0][0].as_deref().is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n < 35_000));
    until("retention to drop rows", || client.attempt("SELECT count(*) FROM web").is_ok_and(|rows| few(&rows)));
    receiver.come_back();
    delivered(&client, "posts");
    let (batches, _) = received(&receiver);
    let found: BTreeSet<u64> = batches.values().flatten().copied().collect();
    let lost: i64 = column(&client, "posts", "lost_offsets").parse().unwrap();
    assert!(lost > 0);
    assert_eq!(found.len() as i64 + lost, 40_100, "delivered or counted as lost");
    assert_eq!(column(&client, "posts", "delivered_rows"), found.len().to_string());
    // The last ones are there.
    assert!((40_000..40_100).all(|n| found.contains(&n)));
}

#[test]
fn sinks_go_on_with_what_takes_the_place_of_their_relation_and_go_with_it() {
    let mut server = Server::start();
    let (log, folder) = (server.log("web.log"), server.log("out"));
    let client = server.client();
    create_web(&client, &log, "");
    client.run("CREATE MATERIALIZED VIEW small AS SELECT bytes, path FROM web WHERE bytes < 10");
    let options =
        format!("connector = 'file', path = '{}', roll_interval = '10ms', batch_interval = '10ms'", folder.display());
    client.run(&format!("CREATE SINK s FROM small WITH ({options})"));
    client.run(&format!("CREATE SINK IF NOT EXISTS s FROM small WITH ({options})"));
    write(&log, 0..20);
    delivered(&client, "s");
    client.run("CREATE OR REPLACE MATERIALIZED VIEW small AS SELECT bytes, path, status FROM web WHERE bytes >= 20");
    write(&log, 20..30);
    delivered(&client, "s");
    until("all files", || files(&folder).iter().map(|(_, text)| text.lines().count()).sum::<usize>() == 20);
    let text: String = files(&folder).into_iter().map(|(_, text)| text).collect();
    assert!(numbers(&text).into_iter().eq((0..10).chain(20..30)));
    assert!(text.lines().last().unwrap().contains("\"status\":200"));
    client.fails("DROP MATERIALIZED VIEW small").says("2BP01", &["sink \"s\""]);
    client.fails(&format!("CREATE SINK web FROM small WITH ({options})")).says("42P07", &["already exists"]);
    client
        .fails(&format!("CREATE TABLE s WITH (connector = 'file', path = '{}') FORMAT COMBINED", log.display()))
        .says("42710", &["a sink of the name"]);
    client.run("DROP MATERIALIZED VIEW small CASCADE");
    assert_eq!(client.one("SELECT count(*) FROM logweir.sinks"), "0");
    client.fails("SELECT * FROM s__dead").says("42P01", &[]);
    let kept = files(&folder).len();
    client.run(&format!("CREATE SINK s FROM web WITH ({options}, snapshot = false)"));
    write(&log, 30..40);
    delivered(&client, "s");
    client.run("DROP SINK s");
    client.run("DROP SINK IF EXISTS s");
    client.fails("DROP SINK s").says("42704", &["sink \"s\" does not exist"]);
    let text: String = files(&folder).into_iter().map(|(_, text)| text).collect();
    assert!(files(&folder).len() > kept);
    assert_eq!(numbers(&text).into_iter().collect::<BTreeSet<_>>(), (0..10).chain(20..40).collect());
    assert!(!server.data_dir().join("sinks").read_dir().unwrap().any(|_| true), "nothing is left of them");
}

/// The certificate that a test makes is good enough to see whether TLS is used and looked at.
#[test]
fn postgres_over_tls() {
    let Some(mut postgres) = Postgres::start() else { return };
    let Some((key, certificate)) = certificate(postgres.folder()) else { return };
    let client = postgres.client();
    client.run(&format!("ALTER SYSTEM SET ssl_key_file = '{}'", key.display()));
    client.run(&format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificate.display()));
    client.run("ALTER SYSTEM SET ssl = on");
    postgres.stop();
    postgres.again();
    let mut server = Server::start();
    let log = server.log("web.log");
    let client = server.client();
    create_web(&client, &log, "");
    write(&log, 0..10);
    let options = postgres.options();
    let create =
        |name: &str, more: &str| format!("CREATE SINK {name} FROM web WITH ({options}, table = '{name}'{more})");
    client.run(&create("encrypted", ", sslmode = 'require'"));
    let verified = format!(", sslmode = 'verify-full', sslrootcert = '{}'", certificate.display());
    let failure = client.fails(&create("strange", &verified));
    assert!(failure.message.contains("certificate"), "its name is localhost, not 127.0.0.1: {failure:?}");
    client.run(&create("verified", &verified).replace("host = '127.0.0.1'", "host = 'localhost'"));
    let used =
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'logweir'";
    until("two connections with TLS", || postgres.client().one(used) == "2");
    for sink in ["encrypted", "verified"] {
        delivered(&client, sink);
        assert_eq!(postgres.client().one(&format!("SELECT count(*) FROM {sink}")), "10");
    }
}

fn certificate(folder: &Path) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    let (key, certificate) = (folder.join("data/server.key"), folder.join("data/server.crt"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("note: skipped, no openssl on this machine makes a certificate");
        return None;
    }
    use std::os::unix::fs::{MetadataExt, chown};
    let owner = std::fs::metadata(folder.join("data")).expect("it is there");
    chown(&key, Some(owner.uid()), Some(owner.gid())).expect("it is ours");
    Some((key, certificate))
}
