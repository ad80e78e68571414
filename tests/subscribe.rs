//! SUBSCRIBE: whoever applies all rows up to an offset has exactly the relation as it was then, whatever was followed and
//! however often the connection or the server went away in between.
//!
//! What a relation was at an offset is computed by the same query over the rows before that offset.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::lines;
use crate::server::{Client, Row, Server, line};

/// Reaching it means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// `$T` is what the query reads: the stream, or its rows before an offset.
const QUERIES: &[(&str, &str)] = &[
    (
        "tumble",
        "SELECT window_start, window_end, path, count(*) AS n, sum(bytes) AS bytes
         FROM TUMBLE($T, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, path",
    ),
    ("total", "SELECT count(*) AS n, avg(bytes) AS mean, max(bytes) AS most FROM $T AS t"),
    ("keyed", "SELECT client, count(*) AS n, count(DISTINCT path) AS paths FROM $T AS t GROUP BY client"),
    (
        // Rows that come and go.
        "having",
        "SELECT client, window_start, count(*) AS n FROM TUMBLE($T, ts, INTERVAL '10 seconds')
         GROUP BY client, window_start HAVING count(*) % 3 = 1",
    ),
    (
        "top",
        "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY window_start ORDER BY n DESC, path) AS place
         FROM (SELECT window_start, path, count(*) AS n FROM TUMBLE($T, ts, INTERVAL '30 seconds')
               GROUP BY window_start, path) AS counted) AS ranked WHERE place <= 2",
    ),
    (
        "largest",
        "SELECT client, sum(bytes) AS bytes FROM $T AS t GROUP BY client ORDER BY bytes DESC NULLS LAST, client LIMIT 2",
    ),
    (
        "hop",
        "SELECT window_start, window_end, count(*) AS n, min(path) AS first
         FROM HOP($T, ts, INTERVAL '7 seconds', INTERVAL '20 seconds') GROUP BY window_start, window_end",
    ),
    (
        // Sums of floating-point numbers: what was sent is kept.
        "halves",
        "SELECT window_end, sum(bytes * 0.5) AS half FROM TUMBLE($T, ts, INTERVAL '20 seconds') GROUP BY window_end",
    ),
    ("truncated", "SELECT date_trunc('minute', ts) AS minute, count(*) AS n FROM $T AS t GROUP BY 1"),
    (
        "joined",
        "SELECT a.window_start, a.n, b.errors
         FROM (SELECT window_start, count(*) AS n FROM TUMBLE($T, ts, INTERVAL '1 minute') GROUP BY window_start) AS a
         LEFT JOIN (SELECT window_start, count(*) AS errors FROM TUMBLE($T, ts, INTERVAL '1 minute')
                    WHERE status >= 500 GROUP BY window_start) AS b ON a.window_start = b.window_start",
    ),
    (
        "before",
        "SELECT window_start, n, lag(n) OVER (ORDER BY window_start) AS before
         FROM (SELECT window_start, count(*) AS n FROM TUMBLE($T, ts, INTERVAL '1 minute') GROUP BY window_start) AS c",
    ),
    (
        "both",
        "SELECT 'all' AS what, count(*) AS n FROM $T AS t UNION ALL
         SELECT 'errors', count(*) FROM $T AS u WHERE status >= 500",
    ),
    ("distinct", "SELECT DISTINCT client, status FROM $T AS t"),
    ("rows", "SELECT * FROM $T AS t"),
    ("filtered", "SELECT o, path, bytes * 2 AS twice FROM $T AS t WHERE status >= 400 AND bytes > 10"),
    ("hopping rows", "SELECT window_start, o FROM HOP($T, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')"),
    ("nothing", "SELECT o FROM $T AS t WHERE false"),
];

fn over(query: &str, relation: &str) -> String {
    query.replace("$T", relation)
}

fn before(query: &str, offset: i64) -> String {
    over(query, &format!("(SELECT * FROM access WHERE o < {offset})"))
}

/// Whether it can be a materialized view.
fn is_view(name: &str) -> bool {
    !["rows", "filtered", "hopping rows", "nothing"].contains(&name)
}

/// Somebody who reads a subscription through a cursor and applies its rows.
struct Follower {
    client: Client,
    held: BTreeMap<String, i64>,
    /// Offset of the last progress row.
    offset: i64,
    /// What was held at each progress row.
    instants: Vec<(i64, BTreeMap<String, i64>)>,
    /// How many rows came with each operation.
    operations: BTreeMap<String, usize>,
}

impl Follower {
    /// Reads the cursor `c` of this client.
    fn on(client: Client) -> Follower {
        let (held, instants, operations) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Follower { client, held, offset: -1, instants, operations }
    }

    fn new(client: Client, subscribe: &str) -> Follower {
        let mut follower = Follower::on(client);
        follower.go_on(subscribe);
        follower
    }

    /// Subscribes and reads until the first instant is complete.
    fn go_on(&mut self, subscribe: &str) {
        self.client.run(&format!("DECLARE c CURSOR WITH HOLD FOR {subscribe}"));
        self.offset = -1;
        self.reach(0);
    }

    /// Reads until everything up to `offset` is there.
    #[track_caller]
    fn reach(&mut self, offset: i64) {
        let begun = Instant::now();
        while self.offset < offset {
            assert!(begun.elapsed() < PATIENCE, "at {} and not at {offset}", self.offset);
            for row in self.client.rows("FETCH ALL c") {
                self.apply(row);
            }
        }
    }

    #[track_caller]
    fn apply(&mut self, row: Row) {
        let offset = number(&row[0]);
        assert!(offset >= self.offset, "offsets do not go back: {} and then {offset}", self.offset);
        if row[2].as_deref() == Some("t") {
            assert!(row[1].is_none() && row[3..].iter().all(Option::is_none), "{row:?}");
            self.offset = offset;
            self.instants.push((offset, self.held.clone()));
            return;
        }
        // Rows of a group that was said to be complete do not come any more.
        assert!(offset > self.offset, "{row:?} after progress to {}", self.offset);
        let step = match row[1].as_deref() {
            Some("insert" | "update_after") => 1,
            Some("delete" | "update_before") => -1,
            other => panic!("operation {other:?}"),
        };
        *self.operations.entry(row[1].clone().expect("matched above")).or_default() += 1;
        let values = line(&row[3..].to_vec());
        let count = self.held.entry(values.clone()).or_default();
        *count += step;
        assert!(*count >= 0, "a row went that was not there: {values}");
        if *count == 0 {
            self.held.remove(&values);
        }
    }

    #[track_caller]
    fn check(&self, client: &Client, name: &str, query: &str, at: i64, held: &BTreeMap<String, i64>) {
        let mut expected = BTreeMap::new();
        for row in client.sorted(&before(query, at)) {
            *expected.entry(row).or_insert(0) += 1;
        }
        assert_eq!(*held, expected, "{name} at offset {at}");
    }

    /// Compares what is held now, and what was held at some instants before.
    #[track_caller]
    fn check_all(&mut self, random: &mut StdRng, client: &Client, name: &str, query: &str) {
        self.check(client, name, query, self.offset, &self.held);
        let instants = std::mem::take(&mut self.instants);
        let some = instants.len().min(4);
        for _ in 0..some {
            let (offset, held) = &instants[random.random_range(0..instants.len())];
            self.check(client, name, query, *offset, held);
        }
    }
}

fn number(value: &Option<String>) -> i64 {
    value.as_ref().expect("not NULL").parse().expect("a number")
}

fn offset(client: &Client) -> i64 {
    client.number("SELECT next_offset FROM logweir.streams WHERE name = 'access'")
}

/// A log that grows, and its stream.
struct Log {
    path: std::path::PathBuf,
    seconds: i64,
}

impl Log {
    fn new(server: &mut Server, options: &str) -> Log {
        let path = server.log("access.log");
        lines::append(&path, "");
        server.client().run(&format!(
            "CREATE TABLE access (*, WATERMARK FOR ts AS ts) INCLUDE offset AS o
             WITH (connector = 'file', path = '{}'{options}) FORMAT COMBINED",
            path.display()
        ));
        Log { path, seconds: lines::START }
    }

    fn grow(&mut self, random: &mut StdRng, count: usize) {
        let mut text = String::new();
        for _ in 0..count {
            self.seconds += random.random_range(0..3);
            text += &lines::random(random, self.seconds);
            if random.random_range(0..50) == 0 {
                text += "not a line of an access log\n";
            }
        }
        for piece in lines::pieces(random, text.as_bytes(), 8) {
            lines::append(&self.path, piece);
        }
    }
}

/// Views and queries, followed from different moments on.
#[test]
fn changes_add_up_to_the_relation_at_every_offset() {
    let random = &mut StdRng::seed_from_u64(11);
    let mut server = Server::start();
    let client = server.client();
    let mut log = Log::new(&mut server, ", hot_bytes = '32 KiB', wal_segment_bytes = '32 KiB'");
    log.grow(random, 200);
    let mut followers = Vec::new();
    for (i, (name, query)) in QUERIES.iter().enumerate() {
        let source = if is_view(name) && i % 3 != 2 {
            client.run(&format!("CREATE MATERIALIZED VIEW v{i} AS {}", over(query, "access")));
            format!("v{i}")
        } else {
            format!("({})", over(query, "access"))
        };
        let subscribe = format!("SUBSCRIBE TO {source} WITH (PROGRESS)");
        followers.push((*name, *query, Follower::new(server.client(), &subscribe)));
        log.grow(random, 30);
    }
    for round in 0..4 {
        for _ in 0..5 {
            log.grow(random, 60);
            if round > 0 {
                client.run("FLUSH");
                let now = offset(&client);
                for (_, _, follower) in &mut followers {
                    follower.reach(now);
                }
            }
        }
        client.run("FLUSH");
        let now = offset(&client);
        for (name, query, follower) in &mut followers {
            follower.reach(now);
            assert_eq!(follower.offset, now);
            follower.check_all(random, &client, name, query);
        }
    }
    // Else the above would say little.
    for (name, _, follower) in &followers {
        let seen = |op: &str| follower.operations.get(op).copied().unwrap_or(0);
        assert_eq!(seen("insert") + seen("update_after") > 10, *name != "nothing", "{name}: {:?}", follower.operations);
        let changes = !["rows", "filtered", "hopping rows", "nothing", "distinct"].contains(name);
        assert_eq!(seen("delete") + seen("update_before") > 10, changes, "{name}: {:?}", follower.operations);
        let keyed = changes && *name != "both";
        assert_eq!(seen("update_before") > 0, keyed, "{name}: {:?}", follower.operations);
        assert_eq!(seen("update_before"), seen("update_after"), "{name}");
        if ["total", "keyed", "tumble"].contains(name) {
            assert_eq!(seen("delete"), 0, "{name}: {:?}", follower.operations);
        }
    }
}

/// Hops with many rows each: every window is made from the one before it, and comes once, complete.
#[test]
fn dense_hops_are_announced_once() {
    let mut server = Server::start();
    let client = server.client();
    let log = server.log("access.log");
    lines::append(&log, "");
    client.run(&format!(
        "CREATE TABLE access (*, WATERMARK FOR ts AS ts - INTERVAL '2 seconds') WITH (connector = 'file', path = '{}')
         FORMAT COMBINED",
        log.display()
    ));
    let hops = "SELECT window_start, path, count(*) AS n, max(bytes) AS most
                FROM HOP(access, ts, INTERVAL '1 second', INTERVAL '20 seconds') GROUP BY window_start, window_end, path";
    client.run(&format!("CREATE MATERIALIZED VIEW hops AS {hops} EMIT ON WINDOW CLOSE"));
    let mut follower = Follower::new(server.client(), "SUBSCRIBE TO hops WITH (PROGRESS)");
    let mut row = 0u64;
    for part in 0..40 {
        let mut text = String::new();
        for _ in 0..1500 {
            let time = lines::clf(lines::START + (row / 500) as i64);
            let path = row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            text +=
                &format!("10.0.0.1 - - [{time}] \"GET /{} HTTP/1.1\" 200 {} \"-\" \"-\"\n", path % 300, path % 9973);
            row += 1;
        }
        lines::append(&log, text);
        if part % 3 > 0 {
            client.run("FLUSH");
            follower.reach(offset(&client));
        }
    }
    client.run("FLUSH");
    follower.reach(offset(&client));
    assert_eq!(follower.operations.keys().collect::<Vec<_>>(), ["insert"]);
    let closed = "'2026-01-01 00:01:57Z'::timestamptz - INTERVAL '20 seconds'";
    let expected = client.sorted(&format!("SELECT * FROM ({hops}) AS h WHERE window_start <= {closed}"));
    assert!(expected.len() > 20_000, "{} rows", expected.len());
    let held: Vec<String> = follower.held.keys().cloned().collect();
    assert!(held == expected, "{} rows are not the {} of the batch", held.len(), expected.len());
    assert!(client.sorted("SELECT * FROM hops") == expected, "the view is not its batch");
}

/// A client that comes back says where it was; the server may have been away too.
#[test]
fn as_of_goes_on_without_gap_or_repeat() {
    let random = &mut StdRng::seed_from_u64(12);
    let mut server = Server::start();
    let mut client = server.client();
    let mut log = Log::new(&mut server, ", hot_bytes = '32 KiB', wal_segment_bytes = '32 KiB'");
    log.grow(random, 300);
    client.run("FLUSH");
    for (i, (name, query)) in QUERIES.iter().enumerate().filter(|(_, (name, _))| is_view(name)) {
        client.run(&format!("CREATE MATERIALIZED VIEW v{i} AS {}", over(query, "access")));
        assert!(!name.is_empty());
    }
    let source = |i: usize, name: &str, query: &str| {
        if is_view(name) && i.is_multiple_of(2) { format!("v{i}") } else { format!("({})", over(query, "access")) }
    };
    let mut followers: Vec<Follower> = Vec::new();
    for (i, (name, query)) in QUERIES.iter().enumerate() {
        let subscribe = format!("SUBSCRIBE {} WITH (PROGRESS)", source(i, name, query));
        followers.push(Follower::new(server.client(), &subscribe));
    }
    for round in 0..3 {
        log.grow(random, 120);
        client.run("FLUSH");
        let now = offset(&client);
        // Some of them leave in the middle of it.
        for (i, follower) in followers.iter_mut().enumerate() {
            if i % 3 != round {
                follower.reach(now);
            }
        }
        log.grow(random, 120);
        if round == 1 {
            client.run("FLUSH");
            server.kill();
            server.again();
            client = server.client();
        }
        client.run("FLUSH");
        let now = offset(&client);
        for (i, (name, query)) in QUERIES.iter().enumerate() {
            let follower = &mut followers[i];
            let from = follower.offset;
            // Rows of a group that is not complete do not count.
            let (_, held) = follower.instants.last().expect("the first instant at least").clone();
            follower.held = held;
            follower.client = server.client();
            follower.go_on(&format!("SUBSCRIBE {} WITH (PROGRESS) AS OF {from}", source(i, name, query)));
            follower.reach(now);
            follower.check_all(random, &client, name, query);
            let held = follower.held.clone();
            follower.instants.push((now, held));
        }
    }
    // What has not happened yet.
    let ahead = offset(&client) + 1;
    for source in ["access", "v0", "v2"] {
        let client = server.client();
        let declared = format!("DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE {source} AS OF {ahead}");
        let failure = match client.attempt(&declared) {
            Ok(_) => client.fails("FETCH c"),
            Err(failure) => failure,
        };
        failure.says("22023", &["lies ahead"]);
    }
}

/// Rows of a stream can be taken up after any of them.
#[test]
fn a_stream_goes_on_after_any_row() {
    let random = &mut StdRng::seed_from_u64(13);
    let mut server = Server::start();
    let client = server.client();
    let mut log = Log::new(&mut server, ", hot_bytes = '32 KiB'");
    log.grow(random, 2000);
    client.run("FLUSH");
    let all = client.rows("SELECT o FROM access ORDER BY o");
    for round in 0..20 {
        let from = random.random_range(0..all.len());
        let count = random.random_range(1..all.len() - from + 1);
        let position = if from == 0 { 0 } else { number(&all[from - 1][0]) + 1 };
        client.run(&format!("DECLARE c{round} CURSOR WITH HOLD FOR SUBSCRIBE (SELECT o FROM access) AS OF {position}"));
        let rows = client.rows(&format!("FETCH {count} FROM c{round} WITH (timeout = '60s')"));
        let got: Vec<_> = rows.iter().map(|row| row[2].clone()).collect();
        let expected: Vec<_> = all[from..from + count].iter().map(|row| row[0].clone()).collect();
        assert_eq!(got, expected);
        for row in rows {
            assert_eq!(number(&row[0]), number(&row[2]) + 1);
        }
    }
    client.run("CLOSE ALL");
    // Malformed lines are rows of their own.
    client.run("DECLARE m CURSOR WITH HOLD FOR SUBSCRIBE (SELECT \"offset\" FROM access__malformed)");
    let count = client.number("SELECT count(*) FROM access__malformed");
    let rows = client.rows(&format!("FETCH {count} FROM m WITH (timeout = '60s')"));
    let got: Vec<_> = rows.iter().map(|row| row[2].clone()).collect();
    let expected: Vec<_> = client
        .rows("SELECT \"offset\" FROM access__malformed ORDER BY 1")
        .into_iter()
        .map(|mut r| r.remove(0))
        .collect();
    assert_eq!(got, expected);
}

/// Runs an asynchronous client against a server.
fn with_client<F: Future<Output = ()>>(server: &mut Server, run: impl FnOnce(tokio_postgres::Client) -> F) {
    let address: SocketAddr = server.postgres().parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = format!("host={} port={} user=tester dbname=logweir", address.ip(), address.port());
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("connects");
        tokio::spawn(async move { drop(connection.await) });
        tokio::time::timeout(PATIENCE, run(client)).await.expect("it does not hang");
    });
}

fn code(err: &tokio_postgres::Error) -> String {
    err.as_db_error().unwrap_or_else(|| panic!("not of the server: {err}")).code().code().to_string()
}

fn numbered(from: u64, to: u64) -> String {
    (from..to).map(lines::numbered).collect()
}

/// A stream of numbered lines, ten a second, and a view that counts them by second.
fn seconds(server: &mut Server) -> std::path::PathBuf {
    let path = server.log("access.log");
    lines::append(&path, numbered(0, 15));
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED;
         CREATE MATERIALIZED VIEW seconds AS SELECT window_start AS s, count(*) AS n
         FROM TUMBLE(access, ts, INTERVAL '1 second') GROUP BY window_start;
         FLUSH",
        path.display()
    ));
    path
}

/// Rows come as things happen, by the simple and by the extended protocol; a cancel request ends that and leaves the
/// connection as it was. `statement_timeout` does not count.
#[test]
fn plain_rows_come_until_they_are_canceled() {
    let mut server = Server::start();
    let path = seconds(&mut server);
    with_client(&mut server, |client| async move {
        client.batch_execute("SET statement_timeout = '100ms'").await.expect("sets");
        let mut rows = pin!(client.query_raw("SUBSCRIBE seconds", Vec::<i64>::new()).await.expect("starts"));
        let begun = Instant::now();
        let mut next = async || {
            let row = rows.next().await.expect("no end").expect("a row");
            let (offset, op, n): (i64, String, i64) = (row.get(0), row.get(1), row.get(3));
            format!("{offset} {op} {n}")
        };
        assert_eq!([next().await, next().await], ["15 insert 10", "15 insert 5"]);
        let mut written = 15;
        while written < 20 || begun.elapsed() < Duration::from_millis(200) {
            lines::append(&path, numbered(written, written + 1));
            written += 1;
            if written <= 20 {
                let changes = [
                    format!("{written} update_before {}", written - 11),
                    format!("{written} update_after {}", written - 10),
                ];
                assert_eq!([next().await, next().await], changes);
            }
        }
        client.cancel_token().cancel_query(NoTls).await.expect("asks");
        let err = loop {
            match rows.next().await.expect("an error before the end") {
                Ok(_) => {}
                Err(err) => break err,
            }
        };
        assert_eq!(code(&err), "57014");

        client.batch_execute("FLUSH").await.expect("reads what was written");
        let subscribe = "SUBSCRIBE (SELECT count(*) FROM access) WITH (UPSERT)";
        let mut messages = pin!(client.simple_query_raw(subscribe).await.expect("starts"));
        let mut next = async || loop {
            let message = messages.next().await.expect("no end").expect("a message");
            if let SimpleQueryMessage::Row(row) = message {
                assert_eq!(row.columns()[2].name(), "count");
                break (0..3).map(|i| row.get(i).unwrap_or("NULL").to_string()).collect::<Vec<_>>().join(" ");
            }
        };
        assert_eq!(next().await, format!("{written} upsert {written}"));
        lines::append(&path, numbered(written, written + 1));
        assert_eq!(next().await, format!("{0} upsert {0}", written + 1));
        client.cancel_token().cancel_query(NoTls).await.expect("asks");
        let err = loop {
            match messages.next().await.expect("an error before the end") {
                Ok(_) => {}
                Err(err) => break err,
            }
        };
        assert_eq!(code(&err), "57014");
        client.batch_execute("SELECT 1").await.expect("usable again");
    });
}

/// `COPY (SUBSCRIBE …) TO STDOUT`: a line for each row, also with options behind it.
#[test]
fn copy_gives_lines() {
    let mut server = Server::start();
    let path = seconds(&mut server);
    with_client(&mut server, |client| async move {
        let copy =
            "COPY (SUBSCRIBE TO (SELECT n, ')' AS x FROM seconds) WITH (PROGRESS)) TO STDOUT WITH (FORMAT csv, HEADER)";
        let mut lines = pin!(client.copy_out(copy).await.expect("starts"));
        let mut next = async || String::from_utf8(lines.try_next().await.expect("a line").expect("no end").to_vec());
        assert_eq!(next().await.unwrap(), "_offset,_op,_progress,n,x\n");
        for expected in ["15,insert,f,10,)\n", "15,insert,f,5,)\n", "15,,t,,\n"] {
            assert_eq!(next().await.unwrap(), expected);
        }
        crate::lines::append(&path, numbered(15, 16));
        for expected in ["16,delete,f,5,)\n", "16,insert,f,6,)\n", "16,,t,,\n"] {
            assert_eq!(next().await.unwrap(), expected);
        }
        client.cancel_token().cancel_query(NoTls).await.expect("asks");
        let err = loop {
            match lines.try_next().await {
                Ok(line) => assert!(line.is_some(), "an error before the end"),
                Err(err) => break err,
            }
        };
        assert_eq!(code(&err), "57014");
    });
}

/// A cursor gives portions, and waits as long as it is told.
#[test]
fn cursors_wait_as_told() {
    let mut server = Server::start();
    let path = seconds(&mut server);
    let client = server.client();
    client.run("BEGIN; DECLARE c CURSOR FOR SUBSCRIBE (SELECT n FROM seconds)");
    let fetch = |sql: &str| client.rows(sql).iter().map(line).collect::<Vec<_>>();
    assert_eq!(fetch("FETCH 2 c WITH (timeout = '60s')"), ["15 insert 10", "15 insert 5"]);
    assert_eq!(fetch("FETCH ALL FROM c WITH (timeout = '0s')"), [""; 0]);
    assert_eq!(fetch("FETCH ALL c WITH (timeout '10ms')"), [""; 0]);
    lines::append(&path, numbered(15, 18));
    client.run("FLUSH");
    assert_eq!(fetch("FETCH c"), ["18 delete 5"]);
    assert_eq!(fetch("FETCH ALL c"), ["18 insert 8"]);
    let err = client.fails("FETCH c WITH (patience = 1)");
    err.says("42601", &["WITH (timeout"]);
    client.run("ROLLBACK");
    client.fails("FETCH c").says("34000", &[]);

    // Without a row it waits, until it is canceled.
    client.run(
        "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE seconds WITH (SNAPSHOT = false); SET statement_timeout = '20ms'",
    );
    client.fails("FETCH c").says("57014", &["statement timeout"]);
    client.run("SET statement_timeout = 0");
    lines::append(&path, numbered(18, 20));
    assert_eq!(fetch("FETCH 2 c WITH (timeout = '60s')").len(), 2, "it goes on afterwards");
}

/// Somebody who does not read holds nothing back, and finds fewer and larger groups afterwards.
#[test]
fn a_slow_reader_slows_only_itself() {
    let mut server = Server::start();
    let path = seconds(&mut server);
    let client = server.client();
    let query = "SELECT client, count(*) AS n, sum(bytes) AS bytes FROM access GROUP BY client";
    client.run(&format!("CREATE MATERIALIZED VIEW clients AS {query}"));
    let slow: Vec<Client> = ["clients", "access"]
        .map(|source| {
            let slow = server.client();
            slow.run(&format!("DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE {source} WITH (PROGRESS)"));
            slow
        })
        .into();
    const LINES: u64 = 60_000;
    for from in (15..LINES).step_by(500) {
        lines::append(&path, numbered(from, (from + 500).min(LINES)));
    }
    client.run("FLUSH");
    let now = offset(&client);
    assert_eq!(now, LINES as i64);
    for (i, slow) in slow.into_iter().enumerate() {
        let expected = match i {
            0 => client.sorted(query),
            _ => client.sorted("SELECT * FROM access"),
        };
        let mut follower = Follower::on(slow);
        follower.reach(now);
        let held: Vec<String> = follower.held.keys().cloned().collect();
        assert!(held == expected, "what is held differs");
        assert!(follower.instants.len() < 60, "{} groups", follower.instants.len());
    }
}

/// What is followed goes away: the subscriber is told why.
#[test]
fn a_subscriber_is_told_when_it_falls_out() {
    let mut server = Server::start();
    let path = seconds(&mut server);
    let client = server.client();
    let subscribe = |client: &Client, source: &str| {
        client.run(&format!(
            "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE {source} WITH (SNAPSHOT = false, EVERY = '1 hour')"
        ));
    };
    let followers: Vec<Client> = (0..5).map(|_| server.client()).collect();
    subscribe(&followers[0], "seconds");
    client.run("CREATE OR REPLACE MATERIALIZED VIEW seconds AS SELECT count(*) AS n FROM access");
    followers[0].fails("FETCH c").says("55000", &["\"seconds\" was replaced", "SUBSCRIBE again"]);

    subscribe(&followers[1], "(SELECT n + 1 FROM seconds)");
    client.run("DROP MATERIALIZED VIEW seconds");
    followers[1].fails("FETCH c").says("42P01", &["\"seconds\" was dropped", "subscribe"]);
    // The cursor has come to its end.
    assert!(followers[1].rows("FETCH c").is_empty());

    // A query's own rollup does not hold the stream, and goes with its last reader.
    subscribe(&followers[2], "(SELECT count(*) FROM access)");
    subscribe(&followers[3], "access");
    client.run("DROP TABLE access");
    followers[2].fails("FETCH c").says("42P01", &["\"access\" was dropped"]);
    followers[3].fails("FETCH c").says("42P01", &["\"access\" was dropped"]);

    // A query that fails on a row.
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED;
         CREATE MATERIALIZED VIEW inverse AS SELECT sum(1 / (bytes - 20)) AS s FROM access",
        path.display()
    ));
    server.expect_log("a view's query failed");
    client.run("FLUSH");
    followers[4].run("DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE inverse");
    lines::append(&path, numbered(20, 21));
    let failure = loop {
        if let Err(failure) = followers[4].attempt("FETCH c") {
            break failure;
        }
    };
    failure.says("22012", &["this view's query failed"]);
}

#[test]
fn a_shutdown_ends_a_subscription() {
    let mut server = Server::start();
    seconds(&mut server);
    let address: SocketAddr = server.postgres().parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = format!("host={} port={} user=tester dbname=logweir", address.ip(), address.port());
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("connects");
        tokio::spawn(async move { drop(connection.await) });
        let mut rows = pin!(client.query_raw("SUBSCRIBE access", Vec::<i64>::new()).await.expect("starts"));
        rows.next().await.expect("no end").expect("a row");
        assert!(server.terminate().success());
        let err = loop {
            match rows.next().await.expect("an error before the end") {
                Ok(_) => {}
                Err(err) => break err,
            }
        };
        assert_eq!(code(&err), "57P01");
    });
}

/// Rollups that a query got for its subscription are shared with those of other readers, and gone after the last.
#[test]
fn a_querys_rollup_goes_with_its_readers() {
    let mut server = Server::start();
    let path = seconds(&mut server);
    let client = server.client();
    let query = "SELECT status, count(*) AS n FROM access GROUP BY status";
    let (one, two) = (server.client(), server.client());
    let subscribe = format!("DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE ({query})");
    one.run(&subscribe);
    two.run(&subscribe);
    client.run(&format!("CREATE MATERIALIZED VIEW statuses AS {query}"));
    assert_eq!(line(&one.rows("FETCH c")[0]), "15 insert 200 15");
    assert_eq!(line(&two.rows("FETCH c")[0]), "15 insert 200 15");
    one.run("CLOSE c");
    lines::append(&path, numbered(15, 16));
    client.run("FLUSH");
    assert_eq!(two.rows("FETCH 2 c WITH (timeout = '60s')").len(), 2);
    client.run("DROP MATERIALIZED VIEW statuses");
    lines::append(&path, numbered(16, 17));
    client.run("FLUSH");
    let rows: Vec<String> = two.rows("FETCH 2 c WITH (timeout = '60s')").iter().map(line).collect();
    assert_eq!(rows, ["17 update_before 200 16", "17 update_after 200 17"]);
}

/// A result that changes with the time alone.
#[test]
fn rows_go_when_their_time_has_come() {
    let mut server = Server::start();
    seconds(&mut server);
    let client = server.client();
    client.run(
        "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE
         (SELECT n FROM seconds WHERE n = 5 AND extract(epoch FROM now())::bigint % 4 < 2)",
    );
    let mut operations = Vec::new();
    while operations.len() < 4 {
        operations.extend(client.rows("FETCH c").into_iter().map(|row| row[1].clone().expect("an operation")));
    }
    assert!(operations.windows(2).all(|pair| pair[0] != pair[1]), "{operations:?}");
}
