//! Databases beside each other: tenants do not see, name or starve each other; what they may use is bounded; they outlive
//! kills; and a dropped one leaves nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use logweir::config::Config;
use logweir::database::{Databases, Open, Quotas};
use logweir::sql::{self, Session};
use logweir::task::Compute;
use logweir::time::Clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::backends::{Peer, run};
use crate::clients::failure;
use crate::http::post;
use crate::security::{REACHING, READING};
use crate::server::{Client, Failure, Server};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What only the first tenant may ever see.
const CANARY: &str = "canary-71c2";

/// A server with operators, and the tenants `acme` (administrator `ada`) and `globex` (administrator `bob`), with streams
/// and views of the same names in both and in the main database.
fn server() -> (Server, Client) {
    let mut server = Server::start();
    server.client().run("CREATE ROLE root ADMIN LOGIN PASSWORD 'correct horse'; CREATE USER clerk PASSWORD 'c'");
    let root = enter(&mut server, "logweir", "root", "correct horse").expect("the password is right");
    for (tenant, admin) in [("acme", "ada"), ("globex", "bob")] {
        root.run(&format!("CREATE DATABASE {tenant}"));
        let operator = enter(&mut server, tenant, "root", "correct horse").expect("operators may enter");
        operator.run(&format!("CREATE ROLE {admin} ADMIN LOGIN PASSWORD '{admin}'"));
        let client = enter(&mut server, tenant, admin, admin).expect("the password is right");
        client.run(&format!(
            "CREATE TABLE access (ts timestamptz, path text, WATERMARK FOR ts AS ts) FORMAT JSON;
             INSERT INTO access VALUES ('2026-01-01 00:00:00Z', '{tenant}');
             CREATE MATERIALIZED VIEW paths AS SELECT path, count(*) AS n FROM access GROUP BY path"
        ));
    }
    root.run("CREATE TABLE access FORMAT JSON");
    (server, root)
}

/// The token that a statement makes: the last column of its row.
fn create_token(client: &Client, statement: &str) -> String {
    client.rows(statement).remove(0).pop().flatten().expect("a token")
}

fn enter(server: &mut Server, database: &str, user: &str, password: &str) -> Result<Client, Failure> {
    Client::enter(&server.postgres(), database, user, password)
}

#[test]
fn nobody_enters_the_database_of_another() {
    let (mut server, root) = server();
    for (database, user, password) in [
        ("globex", "ada", "ada"),
        ("acme", "bob", "bob"),
        ("logweir", "ada", "ada"),
        ("postgres", "ada", "ada"),
        ("ada", "ada", "ada"),
        // No administrator of the main one.
        ("acme", "clerk", "c"),
        ("acme", "ada", "wrong"),
        ("acme", "root", "wrong"),
        // None of the name: the same answer.
        ("initech", "ada", "ada"),
        ("initech", "clerk", "c"),
        ("initech", "stranger", "x"),
        ("initech", "root", "wrong"),
    ] {
        let refused = enter(&mut server, database, user, password).err();
        let refused = refused.unwrap_or_else(|| panic!("{user} came into {database}"));
        refused.says("28P01", &[&format!("password authentication failed for user \"{user}\"")]);
        assert!(refused.detail.is_empty() && refused.hint.is_empty(), "{refused:?}");
    }
    // Who may know is told.
    enter(&mut server, "initech", "root", "correct horse").err().expect("there is none").says("3D000", &["initech"]);
    for database in ["logweir", "postgres", "root", "acme", "globex"] {
        let client = enter(&mut server, database, "root", "correct horse").expect("operators may enter");
        let found = if ["acme", "globex"].contains(&database) { database } else { "logweir" };
        assert_eq!(client.one("SELECT current_database()"), found);
        assert_eq!(client.one("SELECT datname FROM pg_stat_activity WHERE pid = pg_backend_pid()"), found);
    }

    // What an operator was, counts no longer.
    root.run("CREATE ROLE boss ADMIN LOGIN PASSWORD 'b'");
    let boss = enter(&mut server, "acme", "boss", "b").expect("operators may enter");
    assert_eq!(boss.number("SELECT count(*) FROM access"), 1);
    root.run("ALTER ROLE boss NOADMIN");
    boss.fails("SELECT count(*) FROM access").says("28000", &[]);
    enter(&mut server, "acme", "boss", "b").err().expect("it is none any more").says("28P01", &[]);
    // No tenant takes the name of an operator.
    let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
    ada.fails("CREATE ROLE root LOGIN PASSWORD 'x'").says("42710", &["reserved"]);
    ada.run("CREATE ROLE boss LOGIN PASSWORD 'x'");
}

#[test]
fn a_tenant_sees_itself_alone() {
    let (mut server, root) = server();
    let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
    let bob = enter(&mut server, "globex", "bob", "bob").expect("the password is right");
    ada.run(&format!(
        "CREATE TABLE \"{CANARY}\" (secret text) FORMAT JSON;
         INSERT INTO \"{CANARY}\" VALUES ('{CANARY}');
         CREATE VIEW \"v {CANARY}\" AS SELECT * FROM \"{CANARY}\";
         CREATE ROLE \"r {CANARY}\" LOGIN PASSWORD 'x';
         CREATE NOTIFIER \"n {CANARY}\" WITH (type = 'log');
         CREATE MATERIALIZED VIEW errors AS SELECT path, count(*) AS n FROM access GROUP BY path;
         CREATE ALERT \"a {CANARY}\" ON errors WHERE n > 100 NOTIFY \"n {CANARY}\""
    ));
    assert_eq!(
        (ada.one("SELECT path FROM access"), bob.one("SELECT path FROM access")),
        ("acme".into(), "globex".into())
    );
    assert_eq!(bob.one("SELECT path, n FROM paths"), "globex 1");
    assert_eq!(root.number("SELECT count(*) FROM access"), 0);

    // Everything that can be listed, of the other tenant: no name and no row of the first one.
    let relations = bob.rows(
        "SELECT table_schema, table_name FROM information_schema.tables
         UNION SELECT 'pg_catalog', relname FROM pg_catalog.pg_class WHERE relname LIKE 'pg\\_%' AND relkind IN ('r', 'v') AND relnamespace = 11
         UNION SELECT 'information_schema', x FROM (VALUES ('tables'), ('columns'), ('views'), ('schemata')) AS t (x)",
    );
    let (mut looked, mut failed) = (0, Vec::new());
    for relation in &relations {
        let name = |at: usize| relation[at].clone().expect("a name").replace('"', "\"\"");
        match bob.attempt(&format!("SELECT * FROM \"{}\".\"{}\"", name(0), name(1))) {
            Ok(rows) => {
                looked += 1;
                let shown = format!("{rows:?}");
                assert!(!shown.contains(CANARY) && !shown.contains("acme"), "{relation:?}: {shown}");
            }
            Err(failure) => {
                assert!(!format!("{failure:?}").contains(CANARY), "{failure:?}");
                failed.push(name(1));
            }
        }
    }
    assert!(looked > 60 && failed.len() < looked / 4, "{looked} looked at, not {failed:?}");
    assert_eq!(bob.sorted("SELECT datname FROM pg_database"), ["globex"]);
    assert_eq!(bob.sorted("SELECT name FROM logweir.databases"), ["globex"]);
    assert_eq!(bob.sorted("SELECT DISTINCT table_catalog FROM information_schema.columns"), ["globex"]);
    assert_eq!(bob.rows("SHOW DATABASES").len(), 1);
    let names = "SELECT datname FROM pg_database WHERE datname <> 'postgres'";
    assert_eq!(root.sorted(names), ["acme", "globex", "logweir"]);
    assert_eq!(root.sorted("SELECT name, state FROM logweir.databases"), ["acme open", "globex open", "logweir open"]);

    // Names of others are no names, and no hint leads to them.
    let near = &CANARY[..CANARY.len() - 1];
    for statement in [
        format!("SELECT * FROM \"{CANARY}\""),
        format!("SELECT * FROM acme.public.\"{CANARY}\""),
        format!("SELECT * FROM \"{near}\""),
        format!("INSERT INTO \"{CANARY}\" VALUES ('x')"),
        format!("COPY \"{CANARY}\" TO STDOUT"),
        format!("COPY \"{CANARY}\" FROM STDIN"),
        format!("DROP TABLE \"{CANARY}\""),
        format!("DROP ALERT \"a {near}\""),
        format!("SILENCE ALERT \"a {CANARY}\" UNTIL now() + INTERVAL '1 minute'"),
        format!("DROP NOTIFIER \"n {CANARY}\""),
        format!("DROP ROLE \"r {near}\""),
        format!("SET ROLE \"r {CANARY}\""),
        format!("GRANT SELECT ON access TO \"r {near}\""),
        format!("SUBSCRIBE TO \"{CANARY}\""),
        format!("DESCRIBE \"{CANARY}\""),
        "SELECT * FROM acme.public.access".to_string(),
        "SELECT * FROM logweir.public.access".to_string(),
    ] {
        let failure = bob.fails(&statement);
        assert!(!failure.hint.contains("canary"), "{statement}: {failure:?}");
        assert!(
            ["42P01", "42704", "3F000", "42501", "0A000"].contains(&failure.code.as_str()),
            "{statement}: {failure:?}"
        );
    }
    for statement in
        ["CREATE DATABASE x", "ALTER DATABASE acme SET (connections = 1)", "DROP DATABASE acme", "DROP DATABASE globex"]
    {
        bob.fails(statement).says("42501", &[]);
    }
    let operator = enter(&mut server, "globex", "root", "correct horse").expect("operators may enter");
    operator.fails("DROP DATABASE acme WITH (FORCE)").says("42501", &["connected to it"]);
    let clerk = enter(&mut server, "logweir", "clerk", "c").expect("the password is right");
    clerk.fails("CREATE DATABASE x").says("42501", &[]);
    clerk.fails("DROP DATABASE acme").says("42501", &[]);

    // What the others run.
    for client in [&ada, &bob] {
        let begun = Instant::now();
        // Those that made the tables may just be leaving.
        while client.number("SELECT count(*) FROM logweir.queries WHERE user_name IN ('ada', 'bob')") != 1 {
            assert!(begun.elapsed() < PATIENCE, "they see more than themselves");
        }
    }
    let of_ada = ada.number("SELECT pg_backend_pid()");
    let ended = bob.attempt(&format!("SELECT pg_terminate_backend({of_ada})"));
    // An id of its own, at most.
    drop((ended, bob));
    assert!(ada.alive());
}

#[test]
fn tenants_do_not_hear_or_cancel_each_other() {
    let (mut server, root) = server();
    drop(root);
    run(&mut server, |address| async move {
        let mut ada = Peer::connect(address, "user=ada password=ada dbname=acme").await;
        let mut other = Peer::connect(address, "user=ada password=ada dbname=acme").await;
        let mut bob = Peer::connect(address, "user=bob password=bob dbname=globex").await;
        let mut root = Peer::connect(address, "user=root password='correct horse' dbname=logweir").await;
        for peer in [&ada, &other, &bob, &root] {
            peer.run("LISTEN jobs").await;
        }
        ada.run("NOTIFY jobs, 'done'").await;
        assert_eq!(other.next().await.1, "done");
        assert_eq!(ada.next().await.1, "done");
        bob.hears_nothing().await;
        root.hears_nothing().await;

        // Ids are counted in each database, so this may be a cancel request with the id of the other's: the secret is not.
        assert_eq!(ada.pid().await, bob.pid().await, "each counts for itself");
        let token = ada.client.cancel_token();
        let endless = async { failure(&bob.client, "SELECT count(*) FROM generate_series(1, 1000000000000)").await };
        let canceling = async {
            for _ in 0..20 {
                token.cancel_query(tokio_postgres::NoTls).await.expect("asks");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            bob.client.cancel_token().cancel_query(tokio_postgres::NoTls).await.expect("asks");
            tokio::time::sleep(PATIENCE).await;
        };
        let begun = Instant::now();
        let canceled = tokio::select! {
            failure = endless => failure,
            () = canceling => panic!("nothing ended it"),
        };
        assert!(canceled.0 == "57014" && begun.elapsed() >= Duration::from_millis(200), "{canceled:?}");
    });
}

#[test]
fn a_token_leads_into_its_own_database() {
    let (mut server, root) = server();
    let http = server.http();
    let token = |client: &Client, role: &str| create_token(client, &format!("CREATE TOKEN t FOR ROLE {role}"));
    let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
    let bob = enter(&mut server, "globex", "bob", "bob").expect("the password is right");
    for client in [&ada, &bob, &root] {
        client.run("CREATE ROLE shipper; GRANT logweir_ingest TO shipper; CREATE TABLE events FORMAT JSON");
    }
    let (of_ada, of_bob, of_main, of_root) = (
        token(&ada, "shipper"),
        token(&bob, "shipper"),
        token(&root, "shipper"),
        create_token(&root, "CREATE TOKEN of_root FOR ROLE root"),
    );
    let send = |path: &str, token: &str, who: &str| {
        let bearer = format!("Bearer {token}");
        post(
            &http,
            path,
            &[("Authorization", &bearer)],
            format!("{{\"ts\":\"2026-01-01T00:00:00Z\",\"who\":\"{who}\"}}\n"),
        )
    };
    let rows = "/v1/streams/events/rows";
    let below = |database: &str| format!("/db/{database}{rows}");
    send(rows, &of_ada, "ada").says(200, &[]);
    send(&below("acme"), &of_ada, "ada").says(200, &[]);
    send(rows, &of_bob, "bob").says(200, &[]);
    send(rows, &of_main, "main").says(200, &[]);
    send(&below("logweir"), &of_main, "main").says(200, &[]);
    // Operators may say where.
    send(&below("acme"), &of_root, "root").says(200, &[]);
    send(rows, &of_root, "root").says(200, &[]);
    // Every protocol is there.
    for path in ["/db/acme/events/_bulk", "/db/acme/v1/streams/events/_bulk"] {
        let answer = send(path, &of_ada, "x");
        assert_ne!(answer.status, 404, "{path}: {}", answer.text());
    }
    // Nobody else, and the same answer whether there is such a database or not.
    let refused: Vec<String> = [
        (below("globex"), of_ada.as_str()),
        (below("acme"), of_bob.as_str()),
        (below("acme"), of_main.as_str()),
        (below("logweir"), of_ada.as_str()),
        (below("initech"), of_ada.as_str()),
        (below("initech"), of_main.as_str()),
        (below("acme"), "guess"),
        (below("initech"), "guess"),
        (rows.to_string(), "guess"),
    ]
    .iter()
    .map(|(path, token)| {
        let answer = send(path, token, "thief");
        answer.says(401, &[]);
        answer.text()
    })
    .collect();
    assert!(refused.windows(2).all(|two| two[0] == two[1]), "{refused:?}");
    send(&below("initech"), &of_root, "root").says(404, &["initech"]);
    let who = "SELECT DISTINCT who FROM events";
    assert_eq!(ada.sorted(who), ["ada", "root"]);
    assert_eq!(bob.sorted(who), ["bob"]);
    assert_eq!(root.sorted(who), ["main", "root"]);
    // A token that may post sees no figures, of whichever database.
    for token in [&of_ada, &of_bob, &of_main] {
        let answer = crate::http::send(&http, "GET", "/metrics", &[("Authorization", &format!("Bearer {token}"))], b"");
        assert!([401, 403].contains(&answer.status), "{answer:?}");
    }
    let answer = crate::http::send(&http, "GET", "/metrics", &[("Authorization", &format!("Bearer {of_root}"))], b"");
    let text = answer.text();
    for (stream, database) in [("access", "acme"), ("access", "globex")] {
        let labels = format!("{{stream=\"{stream}\",database=\"{database}\"}}");
        assert!(text.contains(&format!("logweir_stream_rows{labels}")), "no {labels} in {text}");
    }
    assert!(text.contains("logweir_stream_rows{stream=\"access\"}"), "{text}");
}

#[test]
fn a_tenants_statements_reach_nothing_unless_it_is_allowed() {
    let (mut server, root) = server();
    let (allowed, secret) = (server.log("allowed"), server.log("secret"));
    for folder in [&allowed, &secret] {
        std::fs::create_dir(folder).expect("the folder is new");
        std::fs::write(folder.join("file.log"), "password\n").expect("it can be written");
    }
    let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
    ada.run("CREATE TABLE lines FORMAT RAW");
    let refused = |statement: &str, path: &str| {
        let statement = statement.replace("PATH", path);
        let refused = ada.attempt(&statement).err().unwrap_or_else(|| panic!("not refused: {statement}"));
        assert_eq!(refused.code, "42501", "{statement}: {refused:?}");
    };
    let (file, other) = (allowed.join("file.log").display().to_string(), secret.join("file.log").display().to_string());
    for statement in READING.iter().chain(REACHING) {
        refused(statement, &file);
    }
    // What is the machine's.
    for statement in [
        "CREATE TABLE t WITH (connector = 'stdin') FORMAT RAW",
        "CREATE TABLE t WITH (connector = 'host_metrics') FORMAT JSON",
        "CREATE TABLE t WITH (connector = 'tcp', address = '127.0.0.1:0') FORMAT RAW",
        "CREATE TABLE t WITH (connector = 'tcp', address = '127.0.0.1:0', validate = false) FORMAT RAW",
        "CREATE TABLE t WITH (connector = 'syslog', address = '127.0.0.1:0') FORMAT SYSLOG",
        "CREATE TABLE t WITH (connector = 'rabbitmq', uri = 'amqp://127.0.0.1', queue = 'q') FORMAT RAW",
        "CREATE TABLE t WITH (connector = 'datagen', scenario = 'PATH', validate = false) FORMAT COMBINED",
        "CREATE SOURCE s INTO lines WITH (connector = 'stdin')",
        "PREVIEW (connector = 'host_metrics')",
        "CREATE ROLE r PASSWORD '${ENV:PATH}'",
        "CREATE NOTIFIER n WITH (type = 'slack', secret_url = 'http://127.0.0.1:1/')",
        "CREATE NOTIFIER n WITH (type = 'slack', secret_url = '${ENV:HOME}')",
        "CREATE NOTIFIER n WITH (type = 'email', to = 'a@b.c')",
    ] {
        refused(statement, &file);
    }
    // Prepared or not, it is the same.
    ada.run("CREATE NOTIFIER n WITH (type = 'log'); DROP NOTIFIER n");

    root.fails(&format!("ALTER DATABASE acme SET (allow_files = '{}')", server.data_dir().display()))
        .says("22023", &[]);
    root.fails("ALTER DATABASE acme SET (allow_files = '/no/such/folder')").says("58P01", &[]);
    root.run(&format!(
        "ALTER DATABASE acme SET (allow_files = '{}', allow_hosts = 'good.example.org')",
        allowed.display()
    ));
    assert_eq!(ada.number(&format!("SELECT count(*) FROM read_log('{file}', format => 'raw')")), 1);
    ada.run(&format!("IMPORT '{file}' INTO lines"));
    ada.run("CREATE NOTIFIER n WITH (type = 'webhook', url = 'http://good.example.org/'); DROP NOTIFIER n");
    for statement in READING.iter().filter(|statement| statement.contains("PATH")) {
        refused(statement, &other);
        refused(statement, &format!("{}/../secret/file.log", allowed.display()));
    }
    for statement in REACHING {
        refused(statement, &file);
    }
    root.run("ALTER DATABASE acme SET (allow_files = none)");
    ada.fails(&format!("SELECT count(*) FROM read_log('{file}', format => 'raw')")).says("42501", &["allow_files"]);
    // An operator does it for the tenant.
    let operator = enter(&mut server, "acme", "root", "correct horse").expect("operators may enter");
    operator.run(&format!("CREATE TABLE app WITH (connector = 'file', path = '{file}') FORMAT RAW; FLUSH"));
    assert_eq!(ada.number("SELECT count(*) FROM app"), 1);
}

#[test]
fn quotas_hold() {
    let (mut server, root) = server();
    let http = server.http();
    let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
    let bob = enter(&mut server, "globex", "bob", "bob").expect("the password is right");

    // Connections.
    root.run("ALTER DATABASE acme SET (connections = 2)");
    let second = enter(&mut server, "acme", "ada", "ada").expect("there is a place");
    let refused = enter(&mut server, "acme", "ada", "ada").err().expect("there is no third place");
    refused.says("53300", &["too many connections for database \"acme\"", "2"]);
    let other = enter(&mut server, "globex", "bob", "bob").expect("it is another database");
    drop((second, other));
    let begun = Instant::now();
    while enter(&mut server, "acme", "ada", "ada").is_err() {
        assert!(begun.elapsed() < PATIENCE, "the place is not given back");
    }

    // The time of a statement: that of the database, or the client's if it is shorter.
    root.run("ALTER DATABASE acme SET (connections = none, statement_timeout = '300ms')");
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    let begun = Instant::now();
    ada.fails(&format!("SET statement_timeout = 0; {endless}")).says("57014", &["statement timeout"]);
    assert!(begun.elapsed() < PATIENCE);
    root.run("ALTER DATABASE acme SET (statement_timeout = none)");

    // Memory of queries: counts when it is opened again.
    let sort = "SELECT count(*) FROM (SELECT DISTINCT md5(i::text) AS x FROM generate_series(1, 2000000) AS t(i))";
    root.run("ALTER DATABASE acme SET (query_memory = '16 MiB')");

    // Queries at one time.
    root.run("ALTER DATABASE acme SET (max_queries = 1)");
    assert_eq!(
        root.one("SELECT max_queries, query_memory > 16777216 FROM logweir.databases WHERE name = 'acme'"),
        "1 t"
    );

    server.expect_log("sources pause");
    // What is kept. Pushes are refused, and go on when there is room.
    root.run("ALTER DATABASE acme SET (bytes_kept = 1000)");
    let push = |database: &str, body: &str| {
        let token = if database == "acme" { &ada } else { &bob };
        let (number, role) = (rand::random::<u32>(), if database == "acme" { "ada" } else { "bob" });
        let token = create_token(token, &format!("CREATE TOKEN \"t{number}\" FOR ROLE {role}"));
        post(&http, "/v1/streams/access/rows", &[("Authorization", &format!("Bearer {token}"))], body)
    };
    let row = "{\"ts\":\"2026-01-01T00:00:01Z\",\"path\":\"/\"}\n";
    let begun = Instant::now();
    let full = loop {
        let answer = push("acme", row);
        if answer.status == 503 {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE, "it is never full: {answer:?}");
    };
    full.says(503, &["bytes_kept", "acme"]);
    assert!(!full.text().contains("databases/"), "no path of the server: {}", full.text());
    ada.fails("INSERT INTO access VALUES ('2026-01-01 00:00:00Z', 'x')").says("53100", &["bytes_kept"]);
    push("globex", row).says(200, &[]);
    assert!(ada.number("SELECT count(*) FROM access") > 0, "reading goes on");
    assert_eq!(root.one("SELECT bytes_used > bytes_kept FROM logweir.databases WHERE name = 'acme'"), "t");
    root.run("ALTER DATABASE acme SET (bytes_kept = none)");
    push("acme", row).says(200, &[]);

    // How fast lines come. What is above is owed and waited for, by others it is not noticed.
    root.run("ALTER DATABASE acme SET (ingest_rate = '10 kB/s')");
    let large = row.repeat(5000);
    push("acme", &large).says(200, &[]);
    let refused = push("acme", &large);
    refused.says(429, &["ingest_rate"]);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    push("globex", &large).says(200, &[]);
    // It waits, and a longer one would wait for longer.
    ada.fails("SET statement_timeout = '300ms'; INSERT INTO access VALUES ('2026-01-01 00:00:00Z', 'late')")
        .says("57014", &[]);
    root.run("ALTER DATABASE acme SET (ingest_rate = none)");
    ada.run("SET statement_timeout = 0; INSERT INTO access VALUES ('2026-01-01 00:00:00Z', 'x')");

    // Those that wait for a start.
    drop((ada, bob, root));
    assert!(server.terminate().success());
    server.again();
    let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
    let bob = enter(&mut server, "globex", "bob", "bob").expect("the password is right");
    let spilled = ada.attempt(sort);
    if let Err(failure) = &spilled {
        failure.says("53200", &[]);
    }
    bob.run("SELECT count(*) FROM (SELECT DISTINCT i % 100 AS x FROM generate_series(1, 10000) AS t(i))");
    let root = enter(&mut server, "logweir", "root", "correct horse").expect("the password is right");
    let shown = "SELECT query_memory, max_queries, connections > 0 FROM logweir.databases WHERE name = 'acme'";
    assert_eq!(root.one(shown), "16777216 1 t");
    root.fails("CREATE DATABASE x WITH (connectoins = 1)").says("22023", &["did you mean \"connections\"?"]);
    root.fails("CREATE DATABASE x WITH (bytes_kept = 'much')").says("22023", &["bytes_kept"]);
    assert_eq!(root.number("SELECT count(*) FROM logweir.databases WHERE name = 'x'"), 0);
}

#[test]
fn sources_wait_for_the_rate() {
    let (mut server, root) = server();
    let file = server.log("app.log");
    let lines: String = (0..20_000).map(|i| format!("line {i:08}\n")).collect();
    std::fs::write(&file, &lines).expect("it can be written");
    root.run("ALTER DATABASE acme SET (ingest_rate = '100 kB/s')");
    let operator = enter(&mut server, "acme", "root", "correct horse").expect("operators may enter");
    operator.run(&format!("CREATE TABLE app WITH (connector = 'file', path = '{}') FORMAT RAW", file.display()));
    operator.run("FLUSH");
    // Once more as much: a debt by then.
    let begun = Instant::now();
    for _ in 0..2 {
        let mut more = std::fs::OpenOptions::new().append(true).open(&file).expect("it is there");
        std::io::Write::write_all(&mut more, lines.as_bytes()).expect("it can be written");
        operator.run("FLUSH");
    }
    assert_eq!(operator.number("SELECT count(*) FROM app"), 60_000);
    let (bytes, took) = (2 * lines.len() as u64, begun.elapsed());
    assert!(took.as_secs_f64() > bytes as f64 / 100_000.0 * 0.5, "{bytes} bytes in {took:?}");
}

#[test]
fn create_and_drop_say_what_is_wrong() {
    let (mut server, root) = server();
    root.fails("CREATE DATABASE acme").says("42P04", &["already exists"]);
    root.fails("CREATE DATABASE logweir").says("42P04", &[]);
    root.fails("CREATE DATABASE postgres").says("42P04", &["reserved"]);
    root.fails("CREATE DATABASE \"a/b\"").says("22023", &[]);
    root.fails(&format!("CREATE DATABASE \"{}\"", "x".repeat(64))).says("22023", &[]);
    root.fails("DROP DATABASE acm").says("3D000", &[]);
    root.fails("DROP DATABASE logweir").says("55006", &["main"]);
    root.fails("ALTER DATABASE logweir SET (connections = 1)").says("55006", &[]);
    root.fails("ALTER DATABASE acme RENAME TO other").says("0A000", &[]);
    root.run("CREATE DATABASE IF NOT EXISTS acme; DROP DATABASE IF EXISTS acm");
    root.run("CREATE DATABASE \"Ünï cødé '\"\" %2e\" OWNER root ENCODING 'UTF8' TEMPLATE template0");
    let odd = enter(&mut server, "Ünï cødé '\" %2e", "root", "correct horse").expect("operators may enter");
    odd.run("CREATE TABLE access FORMAT JSON");
    assert_eq!(odd.one("SELECT current_database()"), "Ünï cødé '\" %2e");
    assert_eq!(odd.sorted("SELECT DISTINCT table_catalog FROM information_schema.tables"), ["Ünï cødé '\" %2e"]);

    let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
    root.fails("DROP DATABASE acme").says("55006", &["being accessed by other users", "FORCE"]);
    assert!(ada.alive(), "nothing has happened to it");
    root.run("DROP DATABASE acme WITH (FORCE)");
    ada.attempt("SELECT 1").expect_err("it was sent away");
    enter(&mut server, "acme", "ada", "ada").err().expect("it is gone").says("28P01", &[]);
    // Another one of the name begins anew.
    root.run("CREATE DATABASE acme");
    let again = enter(&mut server, "acme", "root", "correct horse").expect("operators may enter");
    assert_eq!(again.number("SELECT count(*) FROM logweir.relations"), 0);
    enter(&mut server, "acme", "ada", "ada").err().expect("its roles are gone").says("28P01", &[]);
}

#[test]
fn without_roles_and_without_tenants_any_name_is_taken() {
    let mut server = Server::start();
    let address = server.postgres();
    for database in ["logweir", "postgres", "whatever"] {
        let client = Client::connect_to(&address, database);
        assert_eq!(client.one("SELECT current_database()"), "logweir", "as before there were databases");
    }
    server.client().run("CREATE DATABASE acme");
    assert_eq!(Client::connect_to(&address, "acme").one("SELECT current_database()"), "acme");
    // "logweir" is also the user's name here.
    assert_eq!(Client::connect_to(&address, "logweir").one("SELECT current_database()"), "logweir");
    let refused = Client::enter(&address, "whatever", "somebody", "x").err().expect("it could mean another");
    refused.says("3D000", &["database \"whatever\" does not exist"]);
    // Over HTTP the path says it.
    let http = server.http();
    Client::connect_to(&address, "acme").run("CREATE TABLE events FORMAT JSON");
    post(&http, "/db/acme/v1/streams/events/rows", &[], "{\"ts\":\"2026-01-01T00:00:00Z\",\"a\":1}\n").says(200, &[]);
    post(&http, "/v1/streams/events/rows", &[], "{\"ts\":\"2026-01-01T00:00:00Z\",\"a\":1}\n").says(404, &[]);
    post(&http, "/db/none/v1/streams/events/rows", &[], "{\"ts\":\"2026-01-01T00:00:00Z\",\"a\":1}\n")
        .says(404, &["none"]);
    assert_eq!(Client::connect_to(&address, "acme").number("SELECT count(*) FROM events"), 1);
    // Where a tenant has roles they count, and it is closed to others.
    Client::connect_to(&address, "acme").run("CREATE ROLE ada ADMIN LOGIN PASSWORD 'a'");
    assert!(Client::try_connect(&address, "acme").is_none());
    Client::enter(&address, "acme", "ada", "a").expect("the password is right");
    post(&http, "/db/acme/v1/streams/events/rows", &[], "{\"ts\":\"2026-01-01T00:00:00Z\",\"a\":1}\n").says(401, &[]);
    server.client().run("SELECT 1");
}

#[test]
fn killed_while_databases_come_and_go() {
    let seed =
        std::env::var("LOGWEIR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random::<u32>);
    println!("LOGWEIR_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed.into());
    let mut server = Server::start();
    let kills = std::env::var("LOGWEIR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    server.client().run("CREATE DATABASE kept; CREATE DATABASE other");
    let address = server.postgres();
    for tenant in ["kept", "other"] {
        Client::connect_to(&address, tenant).run(
            "CREATE TABLE events (n bigint) FORMAT JSON;
             CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS rows, sum(n) AS n FROM events",
        );
    }
    let mut sent = 0;
    for kill in 0..kills {
        let address = server.postgres();
        let writing = std::thread::spawn({
            let (address, from) = (address.clone(), sent);
            move || {
                let Some(client) = Client::try_connect(&address, "kept") else { return from };
                let mut done = from;
                while client.attempt(&format!("INSERT INTO events VALUES ({})", done + 1)).is_ok() {
                    done += 1;
                }
                done
            }
        });
        let changing = std::thread::spawn(move || {
            let Some(client) = Client::try_connect(&address, "logweir") else { return };
            for i in 0.. {
                let create = format!("CREATE DATABASE IF NOT EXISTS t{} WITH (connections = 3)", i % 3);
                let drop = format!("DROP DATABASE IF EXISTS t{}", (i + 1) % 3);
                if client.attempt(&create).is_err() || client.attempt(&drop).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(random.random_range(5..400)));
        server.kill();
        // An answer that the kill cut off may have been given or not.
        let (done, ()) = (writing.join().expect("no panic"), changing.join().expect("no panic"));
        server.again();
        let address = server.postgres();
        let kept = Client::connect_to(&address, "kept");
        let rows = kept.number("SELECT count(*) FROM events");
        assert!(rows == done || rows == done + 1, "kill {kill}: {rows} rows, {done} acknowledged");
        assert_eq!(kept.one("SELECT rows, n FROM sums"), format!("{rows} {}", rows * (rows + 1) / 2), "kill {kill}");
        sent = rows;
        assert_eq!(Client::connect_to(&address, "other").number("SELECT count(*) FROM events"), 0);
        // Each that there is can be entered, and has a folder; and there is no other.
        let main = server.client();
        let names = main.sorted("SELECT name FROM logweir.databases WHERE name <> 'logweir'");
        assert_eq!(main.number("SELECT count(*) FROM logweir.databases WHERE state <> 'open'"), 0);
        for name in &names {
            assert_eq!(&Client::connect_to(&address, name).one("SELECT current_database()"), name);
        }
        let folders = std::fs::read_dir(server.data_dir().join("databases")).expect("there are some").count();
        assert_eq!(folders, names.len(), "kill {kill}: {names:?}");
    }
}

#[test]
fn one_that_cannot_be_opened_keeps_no_other_down() {
    let (mut server, root) = server();
    drop(root);
    assert!(server.terminate().success());
    let folders = server.data_dir().join("databases");
    let find = |name: &str| {
        let list = std::fs::read_to_string(server.data_dir().join("databases.json")).expect("the list is there");
        let json: serde_json::Value =
            serde_json::from_str(list.split("\n\"crc32").next().expect("text")).expect("JSON");
        let all = json["databases"].as_array().expect("a list").clone();
        all.iter().find(|entry| entry["name"] == name).expect("it is there")["id"].as_str().expect("an id").to_string()
    };
    for file in ["catalog.json", "catalog.json.1"] {
        std::fs::write(folders.join(find("acme")).join(file), "{").expect("it can be written");
    }
    server.expect_log("a database could not be opened");
    server.again();
    enter(&mut server, "acme", "ada", "ada").err().expect("it is down").says("57P03", &["could not be opened"]);
    let refused = enter(&mut server, "acme", "root", "correct horse").err().expect("it is down");
    refused.says("57P03", &["could not be opened", "damaged"]);
    enter(&mut server, "globex", "bob", "bob").expect("it is open");
    let root = enter(&mut server, "logweir", "root", "correct horse").expect("it is open");
    assert_eq!(root.one("SELECT state FROM logweir.databases WHERE name = 'acme'"), "failed");
    assert!(root.one("SELECT error FROM logweir.databases WHERE name = 'acme'").contains("damaged"));
    root.run("DROP DATABASE acme");
    assert_eq!(std::fs::read_dir(&folders).expect("it is there").count(), 1);
}

#[test]
fn a_damaged_list_is_told_and_the_one_before_counts() {
    let (mut server, root) = server();
    root.run("ALTER DATABASE acme SET (connections = 7)");
    drop(root);
    assert!(server.terminate().success());
    std::fs::write(server.data_dir().join("databases.json"), "{").expect("it can be written");
    server.expect_log("the last change of the list of databases may be missing");
    server.again();
    let root = enter(&mut server, "logweir", "root", "correct horse").expect("it is open");
    assert_eq!(root.sorted("SELECT name, state FROM logweir.databases"), ["acme open", "globex open", "logweir open"]);
    enter(&mut server, "acme", "ada", "ada").expect("it is open");
}

/// An engine in this process, and what is left of it when its database is dropped.
#[test]
fn a_dropped_database_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let compute = Compute::with_workers(2).expect("threads can be started");
    let open: Open = |config, clock| Box::pin(sql::open(config, clock));
    let config = Config { data_dir: Some(dir.path().to_path_buf()), ..Config::default() };
    let work = async move {
        let main = sql::open(config.clone(), Clock::system()).await.expect("an engine");
        let databases =
            Databases::open(Arc::clone(&main), Compute::with_workers(1).unwrap(), (config, 100), Clock::system(), open);
        let databases = databases.await.expect("no others yet");
        let (mut files, mut gone) = (Vec::new(), Vec::new());
        for round in 0..3 {
            databases.create_database("acme", Quotas::default()).await.expect("it is made");
            let engine = databases.find("acme").expect("it is there").engine().expect("it is open");
            let session = Session::new(Arc::clone(&engine));
            session
                .run_text(
                    "CREATE TABLE access (ts timestamptz, path text, WATERMARK FOR ts AS ts) FORMAT JSON;
                     INSERT INTO access VALUES ('2026-01-01 00:00:00Z', '/');
                     CREATE MATERIALIZED VIEW paths AS SELECT path, count(*) AS n FROM access GROUP BY path;
                     CREATE VIEW plain AS SELECT * FROM paths;
                     CREATE NOTIFIER n WITH (type = 'log');
                     CREATE ALERT a ON paths WHERE n > 100 NOTIFY n;
                     SELECT * FROM pg_catalog.pg_class; SELECT * FROM information_schema.columns;
                     SELECT * FROM paths; SELECT * FROM logweir.databases",
                )
                .await
                .expect("it works");
            let catalogs = Arc::downgrade(engine.context().state().catalog_list());
            gone.push((Arc::downgrade(&engine), catalogs));
            drop((session, engine));
            databases.drop_database("acme", false).await.expect("nobody is in it");
            let begun = Instant::now();
            while gone.iter().any(|(engine, catalogs)| engine.strong_count() + catalogs.strong_count() > 0) {
                let counts: Vec<_> = gone.iter().map(|(e, c)| (e.strong_count(), c.strong_count())).collect();
                assert!(begun.elapsed() < PATIENCE, "round {round}: engines and their catalogs are held: {counts:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            files.push(open_files_below(dir.path()));
            assert_eq!(std::fs::read_dir(dir.path().join("databases")).map_or(0, Iterator::count), 0);
        }
        assert!(files.iter().all(|count| *count == files[0]), "open files after each round: {files:?}");
        databases.shutdown().await;
    };
    block_on(compute.spawn(work)).expect("it does not panic");
}

/// Files below a folder that this process has open.
fn open_files_below(folder: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").expect("it runs on Linux");
    let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(folder)).count()
}

/// One tenant's queries that never end, and what another waits for its small ones. A figure, with a generous bound.
#[test]
fn a_busy_tenant_leaves_the_others_their_share() {
    let (mut server, root) = server();
    drop(root);
    let bob = enter(&mut server, "globex", "bob", "bob").expect("the password is right");
    let median = |client: &Client| {
        let mut times: Vec<Duration> = (0..40)
            .map(|_| {
                let begun = Instant::now();
                client.run("SELECT path, n FROM paths WHERE n > 0 ORDER BY path");
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() - 1])
    };
    let alone = median(&bob);
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let ada = enter(&mut server, "acme", "ada", "ada").expect("the password is right");
            std::thread::spawn(move || {
                ada.attempt(
                    "SET statement_timeout = '60s'; SELECT sum(i % 7) FROM generate_series(1, 1000000000000) AS t(i)",
                )
            })
        })
        .collect();
    let root = enter(&mut server, "logweir", "root", "correct horse").expect("the password is right");
    let begun = Instant::now();
    while root.number("SELECT queries FROM logweir.databases WHERE name = 'acme'") < 4 {
        assert!(begun.elapsed() < PATIENCE, "they do not run");
    }
    let beside = median(&bob);
    println!(
        "a small query alone: {alone:?}; beside 8 endless ones of another tenant: {beside:?} (median, slowest of 40)"
    );
    root.run("DROP DATABASE acme WITH (FORCE)");
    busy.into_iter().for_each(|thread| drop(thread.join().expect("no panic")));
    assert!(beside.0 < Duration::from_millis(500), "the median is {:?}", beside.0);
}
