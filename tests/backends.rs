//! Connections beside each other: what they tell each other (LISTEN, NOTIFY), what is shown of them, who ends them, and the
//! limits that keep one from starving the others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::clients::{failure, one, text};
use crate::server::Server;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A query that nobody sees the end of.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000000000)";

/// A client, what it is told aside from answers, and how its connection ends.
pub struct Peer {
    pub client: Client,
    told: UnboundedReceiver<AsyncMessage>,
    end: JoinHandle<Option<tokio_postgres::Error>>,
}

impl Peer {
    pub async fn connect(address: SocketAddr, more: &str) -> Peer {
        let config = format!("host={} port={} user=tester dbname=logweir {more}", address.ip(), address.port());
        let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.expect("connects");
        let (tell, told) = unbounded();
        let end = tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(message)) => drop(tell.unbounded_send(message)),
                    Some(Err(err)) => return Some(err),
                    None => return None,
                }
            }
        });
        Peer { client, told, end }
    }

    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    }

    pub async fn pid(&self) -> i32 {
        one(&self.client, "SELECT pg_backend_pid()").await.parse().expect("a number")
    }

    /// The next notification: channel, payload, who said it. Fails if none comes.
    pub async fn next(&mut self) -> (String, String, i32) {
        let next = tokio::time::timeout(PATIENCE, self.told.next()).await.expect("it comes").expect("it is connected");
        match next {
            AsyncMessage::Notification(n) => (n.channel().to_string(), n.payload().to_string(), n.process_id()),
            other => panic!("another message: {other:?}"),
        }
    }

    /// Nothing has come by the time a statement is answered that was sent after it.
    pub async fn hears_nothing(&mut self) {
        one(&self.client, "SELECT 1").await;
        assert!(self.told.try_recv().is_err());
    }

    /// SQLSTATE of the error that ended the connection.
    pub async fn ended_with(self) -> String {
        let err = tokio::time::timeout(PATIENCE, self.end).await.expect("it ends").expect("no panic");
        let err = err.expect("with an error");
        err.as_db_error().unwrap_or_else(|| panic!("of the server: {err:?}")).code().code().to_string()
    }
}

pub fn run<F: Future<Output = ()>>(server: &mut Server, check: impl FnOnce(SocketAddr) -> F) {
    let address = server.postgres().parse().expect("an address");
    Runtime::new().expect("a runtime").block_on(check(address));
}

/// Asks until it is so.
async fn until(client: &Client, sql: &str, expected: &str) {
    let begun = Instant::now();
    loop {
        let got = one(client, sql).await;
        if got == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{sql} still gives {got}");
        tokio::task::yield_now().await;
    }
}

#[test]
fn clients_tell_each_other() {
    run(&mut Server::start(), |address| async move {
        let (mut one, two) = (Peer::connect(address, "").await, Peer::connect(address, "").await);
        let (pid, speaker) = (one.pid().await, two.pid().await);
        assert_ne!(pid, speaker);
        one.run("LISTEN Jobs; LISTEN \"Jobs\"; LISTEN jobs").await;
        two.run("NOTIFY jobs, 'it''s done'").await;
        assert_eq!(one.next().await, ("jobs".into(), "it's done".into(), speaker), "while it says nothing itself");
        two.run("NOTIFY \"Jobs\"").await;
        assert_eq!(one.next().await, ("Jobs".into(), String::new(), speaker));
        one.run("NOTIFY jobs, 'mine'").await;
        assert_eq!(one.next().await, ("jobs".into(), "mine".into(), pid));

        // By the function, also with parameters, for each row.
        two.client.execute("SELECT pg_notify($1, $2)", &[&"jobs", &"ü"]).await.expect("tells");
        assert_eq!(one.next().await.1, "ü");
        two.run("SELECT pg_notify('jobs', 'n' || i) FROM generate_series(1, 3) AS s(i)").await;
        for expected in ["n1", "n2", "n3"] {
            assert_eq!(one.next().await.1, expected);
        }
        assert_eq!(failure(&two.client, "SELECT pg_notify('', 'x')").await.0, "22023");

        one.run("UNLISTEN jobs").await;
        two.run("NOTIFY jobs, 'not heard'; NOTIFY \"Jobs\", 'heard'").await;
        assert_eq!(one.next().await.1, "heard");
        for sql in ["UNLISTEN *", "LISTEN a; DISCARD ALL"] {
            one.run(sql).await;
            two.run("NOTIFY \"Jobs\"; NOTIFY a").await;
            one.hears_nothing().await;
        }

        assert_eq!(failure(&two.client, &format!("NOTIFY a, '{}'", "x".repeat(8000))).await.0, "22023");
        two.run(&format!("NOTIFY a, '{}'", "x".repeat(7999))).await;
        assert_eq!(failure(&two.client, &format!("LISTEN {}", "x".repeat(64))).await.0, "22023");
        assert_eq!(failure(&two.client, "NOTIFY").await.0, "42601");
    });
}

#[test]
fn a_transaction_tells_at_its_end() {
    run(&mut Server::start(), |address| async move {
        let (mut one, two) = (Peer::connect(address, "").await, Peer::connect(address, "").await);
        one.run("LISTEN a").await;
        two.run("BEGIN; NOTIFY a, '1'; NOTIFY a, '1'; SELECT pg_notify('a', '2')").await;
        one.hears_nothing().await;
        two.run("COMMIT").await;
        assert_eq!((one.next().await.1, one.next().await.1), ("1".into(), "2".into()));
        two.run("BEGIN; NOTIFY a, 'undone'; ROLLBACK; NOTIFY a, '3'").await;
        assert_eq!(one.next().await.1, "3");
        two.run("BEGIN; NOTIFY a, 'failed'").await;
        assert_eq!(failure(&two.client, "SELECT * FROM nowhere").await.0, "42P01");
        two.run("COMMIT; NOTIFY a, '4'").await;
        assert_eq!(one.next().await.1, "4");

        // A listener in a transaction hears of it afterwards.
        one.run("BEGIN").await;
        two.run("NOTIFY a, '5'").await;
        one.hears_nothing().await;
        one.run("COMMIT").await;
        assert_eq!(one.next().await.1, "5");
        // LISTEN and UNLISTEN are undone, too.
        one.run("BEGIN; UNLISTEN *; ROLLBACK; BEGIN; LISTEN b; ROLLBACK").await;
        two.run("NOTIFY b, 'not heard'; NOTIFY a, '6'").await;
        assert_eq!(one.next().await.1, "6");
    });
}

/// One that does not read is told how much it has missed; who speaks does not wait for it.
#[test]
fn a_slow_listener_is_told_what_it_has_lost() {
    const SAID: u64 = 6000;
    run(&mut Server::start(), |address| async move {
        let mut slow = TcpStream::connect(address).expect("connects");
        let mut startup = vec![0, 0, 0, 0, 0, 3, 0, 0];
        startup.extend_from_slice(b"user\0tester\0database\0logweir\0\0");
        startup[3] = startup.len() as u8;
        slow.write_all(&startup).expect("says who it is");
        slow.write_all(b"Q\0\0\0\x0dLISTEN a\0").expect("listens");
        let next = |slow: &mut TcpStream| {
            let mut head = [0; 5];
            slow.read_exact(&mut head).expect("a message");
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; length as usize - 4];
            slow.read_exact(&mut body).expect("a message");
            (head[0], body)
        };
        // Ready twice: after the startup, and after LISTEN.
        for _ in 0..2 {
            while next(&mut slow).0 != b'Z' {}
        }
        let speaker = Peer::connect(address, "").await;
        let tell = format!("SELECT pg_notify('a', repeat('x', 7000) || i) FROM generate_series(1, {SAID}) AS s(i)");
        speaker.run(&tell).await;
        let (mut heard, mut lost) = (0, 0);
        while heard + lost < SAID {
            match next(&mut slow) {
                (b'A', _) => heard += 1,
                (b'N', body) => {
                    let text = String::from_utf8_lossy(&body).into_owned();
                    let count = text.split('\0').find_map(|field| field.strip_prefix('M')).expect("a message");
                    lost += count.split(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
                }
                (kind, _) => panic!("a message of kind {}", kind as char),
            }
        }
        assert!(heard >= 1000 && lost > 0, "{heard} heard, {lost} lost");
    });
}

#[test]
fn psql_hears_notifications() {
    if Command::new("psql").arg("--version").output().is_err() {
        eprintln!("note: skipped, there is no psql");
        return;
    }
    let mut server = Server::start();
    let address: SocketAddr = server.postgres().parse().expect("an address");
    let output = psql(address).args(["-c", "LISTEN jobs", "-c", "NOTIFY jobs, 'done'"]).output().expect("psql runs");
    let out = String::from_utf8_lossy(&output.stdout);
    let expected = "Asynchronous notification \"jobs\" with payload \"done\" received from server process with PID ";
    assert!(output.status.success() && out.contains(expected), "{output:?}");
}

fn psql(address: SocketAddr) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-U", "tester", "logweir"]);
    psql
}

#[test]
fn an_alert_can_be_listened_to() {
    run(&mut Server::start(), |address| async move {
        let mut peer = Peer::connect(address, "").await;
        peer.run("CREATE NOTIFIER n WITH (type = 'pg_notify', channel = 'alerts'); LISTEN alerts").await;
        peer.run("TEST NOTIFIER n").await;
        let (channel, payload, pid) = peer.next().await;
        let payload: serde_json::Value = serde_json::from_str(&payload).expect("it is JSON");
        assert_eq!((channel.as_str(), pid), ("alerts", 0));
        assert_eq!((payload["status"].as_str(), payload["alert"].as_str()), (Some("test"), Some("test of n")));

        peer.run(
            "CREATE TABLE events (ts timestamptz, path text, n bigint, WATERMARK FOR ts AS ts);
             CREATE ALERT large ON events WHERE n > 10 KEY (path) NOTIFY n;
             INSERT INTO events VALUES ('2026-01-01T00:00:00Z', '/a', 11)",
        )
        .await;
        let payload: serde_json::Value = serde_json::from_str(&peer.next().await.1).expect("it is JSON");
        assert_eq!((payload["status"].as_str(), payload["alert"].as_str()), (Some("firing"), Some("large")));
        assert_eq!(payload["instances"][0]["row"]["n"], 11);
        let err = failure(&peer.client, "CREATE NOTIFIER m WITH (type = 'pg_notify')").await;
        assert!(err.1.contains("channel"), "{err:?}");
    });
}

/// Many times the memory that there is: the groups go to disk, on both sides of an exchange between cores. It ends, with its
/// result or, where not even what is merged at one time has room, with an error; it never stands still.
#[test]
fn a_query_that_spills_comes_to_its_end() {
    for memory in ["16 MiB", "48 MiB"] {
        let mut server = Server::prepare();
        server.use_arguments(&["--query-memory", memory]);
        server.again();
        let client = server.client();
        client.run("SET statement_timeout = '2min'");
        let groups = "SELECT DISTINCT md5(i::text) AS x FROM generate_series(1, 1500000) AS t(i)";
        match client.attempt(&format!("SELECT count(*) FROM ({groups}) AS g")) {
            Ok(rows) => assert_eq!(rows, [vec![Some("1500000".to_string())]], "{memory}"),
            Err(failure) => failure.says("53200", &["memory"]),
        }
    }
}

#[test]
fn what_runs_is_shown() {
    run(&mut Server::start(), |address| async move {
        let (one, two) = (Peer::connect(address, "").await, Peer::connect(address, "application_name=probe").await);
        let pid = two.pid().await;
        let of = |columns: &str| format!("SELECT {columns} FROM logweir.queries WHERE pid = {pid}");
        let row = text(&one.client, &of("user_name, application, state, query, rows, memory")).await;
        let row: Vec<&str> = row[0].iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
        assert_eq!(row, ["tester", "probe", "idle", "SELECT pg_backend_pid()", "1", "0"]);
        assert_eq!(one_of(&one, "SELECT count(*) FROM logweir.queries WHERE started IS NULL").await, "0");
        let own = "SELECT state || ' ' || query FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        assert_eq!(one_of(&one, own).await, format!("active {own}"));

        two.run("SET application_name = 'other'; BEGIN; SELECT 1").await;
        let state =
            format!("SELECT application_name || ': ' || state FROM pg_catalog.pg_stat_activity WHERE pid = {pid}");
        assert_eq!(one_of(&one, &state).await, "other: idle in transaction");
        failure(&two.client, "SELECT * FROM nowhere").await;
        assert_eq!(one_of(&one, &state).await, "other: idle in transaction (aborted)");
        two.run("ROLLBACK").await;

        // Secrets are not shown, nor what cannot be read.
        two.run("CREATE NOTIFIER w WITH (type = 'webhook', url = 'http://127.0.0.1:1/', secret = 'hunter2')").await;
        let shown = one_of(&one, &of("query")).await;
        assert!(shown.contains("'***'") && !shown.contains("hunter2"), "{shown}");
        failure(&two.client, "CREATE NOTIFIER x WITH (secret = 'hunter2").await;
        assert_eq!(one_of(&one, &of("query")).await, "***");
        two.client.query("SELECT $1::int + 1", &[&1i32]).await.expect("runs");
        assert_eq!(one_of(&one, &of("query")).await, "SELECT $1::int + 1");
        drop(two);
        until(&one.client, "SELECT count(*) FROM logweir.queries", "1").await;
    });
}

async fn one_of(peer: &Peer, sql: &str) -> String {
    one(&peer.client, sql).await
}

#[test]
fn advisory_locks_are_listed() {
    run(&mut Server::start(), |address| async move {
        let (one, two) = (Peer::connect(address, "").await, Peer::connect(address, "").await);
        let pid = two.pid().await;
        assert!(text(&one.client, "SELECT * FROM pg_locks").await.is_empty());
        two.run("SELECT pg_advisory_lock(-1); SELECT pg_advisory_lock_shared(3, 4)").await;
        let sql = "SELECT locktype, mode, classid::int8, objid::int8, objsubid, granted, datname FROM pg_locks l
                   JOIN pg_database d ON d.oid = l.database WHERE pid = {pid} ORDER BY objsubid";
        let rows = text(&one.client, &sql.replace("{pid}", &pid.to_string())).await;
        let rows: Vec<String> =
            rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            rows,
            ["advisory ExclusiveLock 4294967295 4294967295 1 t logweir", "advisory ShareLock 3 4 2 t logweir"]
        );
        two.run("SELECT pg_advisory_unlock_all()").await;
        assert!(text(&one.client, "SELECT * FROM pg_locks").await.is_empty());
    });
}

#[test]
fn tables_are_locked_in_name_only() {
    run(&mut Server::start(), |address| async move {
        let peer = Peer::connect(address, "").await;
        peer.run("CREATE TABLE t (a int)").await;
        let says = |sql: &'static str| failure(&peer.client, sql);
        assert_eq!(says("LOCK TABLE t IN ACCESS SHARE MODE").await.0, "25P01");
        peer.run(
            "BEGIN; LOCK TABLE ONLY public.t *, t IN ACCESS SHARE MODE NOWAIT; LOCK t IN ROW EXCLUSIVE MODE; COMMIT",
        )
        .await;
        for (sql, code) in [
            ("BEGIN; LOCK TABLE nothing IN ACCESS SHARE MODE", "42P01"),
            ("BEGIN; LOCK TABLE t", "0A000"),
            ("BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE", "0A000"),
            ("BEGIN; LOCK TABLE t IN OTHER MODE", "42601"),
        ] {
            assert_eq!(says(sql).await.0, code, "{sql}");
            peer.run("ROLLBACK").await;
        }
    });
}

/// The tree that tools draw of a plan.
#[test]
fn plans_are_json() {
    run(&mut Server::start(), |address| async move {
        let peer = Peer::connect(address, "").await;
        peer.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)").await;
        for (how, query) in [
            ("", "SELECT a FROM t ORDER BY a"),
            ("ANALYZE, ", "SELECT a FROM t ORDER BY a"),
            ("ANALYZE, ", "SELECT relname FROM pg_class WHERE relname = 't'"),
        ] {
            let sql = format!("EXPLAIN ({how}FORMAT JSON) {query}");
            let statement = peer.client.prepare(&sql).await.expect("it is planned");
            assert_eq!((statement.columns()[0].name(), statement.columns()[0].type_().name()), ("QUERY PLAN", "json"));
            let plan: serde_json::Value = serde_json::from_str(&one(&peer.client, &sql).await).expect("it is JSON");
            let top = &plan[0]["Plan"];
            assert!(top["Node Type"].is_string() && top["Actual Rows"].is_u64() != how.is_empty(), "{plan}");
            assert_eq!(plan[0]["Execution Time"].is_number(), !how.is_empty(), "{plan}");
        }
    });
}

#[test]
fn others_can_be_stopped() {
    run(&mut Server::start(), |address| async move {
        let (one, two) = (Peer::connect(address, "").await, Peer::connect(address, "").await);
        let pid = two.pid().await;
        for function in ["pg_cancel_backend", "pg_terminate_backend"] {
            assert_eq!(one_of(&one, &format!("SELECT {function}(1)")).await, "f", "there is none of this number");
        }
        let active = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active' AND query LIKE '%1000000000000%'"
        );
        let endless = two.client.simple_query(ENDLESS);
        let stop = async {
            until(&one.client, &active, "1").await;
            assert_eq!(one_of(&one, &format!("SELECT pg_cancel_backend({pid})")).await, "t");
        };
        let (ended, ()) = tokio::join!(endless, stop);
        assert_eq!(ended.expect_err("canceled").code().expect("of the server").code(), "57014");
        assert_eq!(one_of(&two, "SELECT 1").await, "1");

        let endless = two.client.simple_query(ENDLESS);
        let stop = async {
            until(&one.client, &active, "1").await;
            assert_eq!(one_of(&one, &format!("SELECT pg_terminate_backend({pid})")).await, "t");
        };
        let (ended, ()) = tokio::join!(endless, stop);
        assert_eq!(ended.expect_err("ended").code().expect("of the server").code(), "57P01");
        until(&one.client, "SELECT count(*) FROM logweir.queries", "1").await;

        // An idle one is told as well.
        let idle = Peer::connect(address, "").await;
        let pid = idle.pid().await;
        assert_eq!(one_of(&one, &format!("SELECT pg_terminate_backend({pid}, 1000)")).await, "t");
        assert_eq!(idle.ended_with().await, "57P01");
    });
}

#[test]
fn who_says_nothing_is_let_go() {
    run(&mut Server::start(), |address| async move {
        let stays = Peer::connect(address, "").await;
        let idle = Peer::connect(address, "options='-c idle_session_timeout=50ms'").await;
        assert_eq!(idle.ended_with().await, "57P05");
        let idle = Peer::connect(address, "").await;
        idle.run("SET idle_in_transaction_session_timeout = 50; BEGIN").await;
        assert_eq!(idle.ended_with().await, "25P03");
        assert_eq!(failure(&stays.client, "SET idle_session_timeout = 'soon'").await.0, "22023");
        assert_eq!(one_of(&stays, "SELECT count(*) FROM logweir.queries").await, "1");
    });
}

/// A client that is killed in the middle of a query leaves neither the query nor its memory.
#[test]
fn killed_clients_leave_nothing_behind() {
    if Command::new("psql").arg("--version").output().is_err() {
        eprintln!("note: skipped, there is no psql");
        return;
    }
    run(&mut Server::start(), |address| async move {
        let watcher = Peer::connect(address, "").await;
        let sorts = "SELECT i FROM generate_series(1, 1000000000000) AS s(i) ORDER BY -i";
        let mut killed = Vec::new();
        for sql in [ENDLESS, sorts, "LISTEN a", "SELECT i FROM generate_series(1, 1000000000000) AS s(i)"] {
            let mut psql = psql(address);
            let psql = psql.args(["-c", sql, "-c", ENDLESS]).stdout(Stdio::piped()).stderr(Stdio::null());
            killed.push(psql.spawn().expect("psql runs"));
        }
        until(&watcher.client, "SELECT count(*) FROM logweir.queries WHERE state = 'active'", "5").await;
        for client in &mut killed {
            client.kill().expect("it runs");
            client.wait().expect("it was killed");
        }
        until(&watcher.client, "SELECT count(*) || ' ' || sum(memory) FROM logweir.queries", "1 0").await;
    });
}

/// A query that would need far more than there is ends with an error, while others go on.
#[test]
fn a_query_that_is_too_large_is_stopped() {
    let mut server = Server::prepare();
    server.use_arguments(&["--query-memory", "128 MiB", "--memory-per-query", "32 MiB", "--spill-limit", "64 MiB"]);
    server.again();
    run(&mut server, |address| async move {
        let (one, two) = (Peer::connect(address, "").await, Peer::connect(address, "").await);
        // 20 GB: a billion texts of 20 bytes, kept by what cannot spill, and by what can until the disk has no more.
        let rows = "(SELECT 'a text of some length ' || i AS t FROM generate_series(1, 1000000000) AS s(i)) AS r";
        for sql in [
            format!("SELECT length(string_agg(t, ',')) FROM {rows}"),
            format!("SELECT t FROM {rows} ORDER BY t DESC LIMIT 1 OFFSET 999999999"),
            format!("SELECT count(*) FROM (SELECT t FROM {rows} GROUP BY t) AS g"),
            format!("SELECT count(*) FROM {rows} JOIN {rows}2 USING (t)"),
        ] {
            let large = failure(&two.client, &sql);
            let others = async {
                for _ in 0..20 {
                    let small = "SELECT count(*) FROM (SELECT i % 10 AS k FROM generate_series(1, 1000) AS s(i) GROUP BY 1) AS g";
                    assert_eq!(one_of(&one, small).await, "10");
                }
            };
            let ((code, message), ()) = tokio::join!(large, others);
            assert_eq!(code, "53200", "{message} of {sql}");
        }
        assert_eq!(one_of(&one, "SELECT sum(memory) FROM logweir.queries").await, "0");
    });
    let spilled = std::fs::read_dir(server.data_dir().join("spill")).expect("the server made it");
    let files = |dir: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_dir(dir.expect("readable").path()).map_or(0, Iterator::count)
    };
    assert_eq!(spilled.map(files).sum::<usize>(), 0, "what was spilled is removed");
}

/// What reads the server's own state does not wait: else nobody could see who takes all places, and end it.
#[test]
fn queries_wait_for_their_turn() {
    let mut server = Server::prepare();
    server.use_arguments(&["--max-queries", "1"]);
    server.again();
    run(&mut server, |address| async move {
        let (first, two) = (Peer::connect(address, "").await, Peer::connect(address, "").await);
        let (watcher, pid) = (Peer::connect(address, "").await, first.pid().await);
        let endless = tokio::spawn(async move { first.client.simple_query(ENDLESS).await.map(drop) });
        loop {
            let short = one(&two.client, "SELECT count(*) FROM generate_series(1, 10)");
            let waits = until(&watcher.client, "SELECT count(*) FROM logweir.queries WHERE state = 'waiting'", "1");
            let canceled = async {
                waits.await;
                assert_eq!(one_of(&watcher, &format!("SELECT pg_cancel_backend({pid})")).await, "t");
                std::future::pending().await
            };
            let count = tokio::select! { count = short => count, () = canceled => unreachable!("it never ends") };
            assert_eq!(count, "10");
            // The short one may have come first.
            let runs = format!("SELECT 1 FROM logweir.queries WHERE pid = {pid} AND state = 'active'");
            if text(&watcher.client, &runs).await.is_empty() {
                break;
            }
        }
        let err = endless.await.expect("no panic").expect_err("canceled");
        assert_eq!(err.code().expect("of the server").code(), "57014");
    });
}

#[test]
fn a_result_has_a_limit_if_asked() {
    run(&mut Server::start(), |address| async move {
        let one = Peer::connect(address, "").await;
        let all = "SELECT i FROM generate_series(1, 100000) AS s(i)";
        assert_eq!(text(&one.client, all).await.len(), 100_000);
        one.run("SET logweir.result_limit = '100 kB'").await;
        let expected = "the result is larger than 100000 bytes";
        assert_eq!(failure(&one.client, all).await, ("53200".to_string(), expected.to_string()));
        let lines = one.client.copy_out(&format!("COPY ({all}) TO STDOUT")).await.expect("begins");
        let err = lines.try_collect::<Vec<_>>().await.expect_err("it is too long");
        assert_eq!(err.as_db_error().expect("of the server").message(), expected);
        assert_eq!(text(&one.client, &format!("{all} LIMIT 10")).await.len(), 10);
        one.run("RESET logweir.result_limit").await;
        assert_eq!(text(&one.client, all).await.len(), 100_000);
        assert_eq!(failure(&one.client, "SET logweir.result_limit = 'much'").await.0, "22023");
    });
}

/// 1,000 connections that do nothing and 200 that ask all the time.
#[test]
fn many_connections() {
    let mut server = Server::prepare();
    server.use_arguments(&["--max-connections", "1210"]);
    server.again();
    run(&mut server, |address| async move {
        let mut idle = Vec::new();
        for _ in 0..1000 {
            idle.push(Peer::connect(address, "").await);
        }
        let active = (0..200).map(|n: i64| async move {
            let peer = Peer::connect(address, "").await;
            let statement = peer.client.prepare("SELECT $1::bigint + 1").await.expect("prepares");
            for i in 0..20 {
                let row = peer.client.query_one(&statement, &[&(n + i)]).await.expect("a row");
                assert_eq!(row.get::<_, i64>(0), n + i + 1);
            }
        });
        futures::future::join_all(active).await;
        until(&idle[0].client, "SELECT count(*) FROM logweir.queries", "1000").await;
        for peer in &idle {
            assert_eq!(one_of(peer, "SELECT 1").await, "1");
        }
    });
    assert!(server.peak_memory() < 2 << 30, "{} MiB", server.peak_memory() >> 20);
}
