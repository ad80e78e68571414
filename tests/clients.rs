//! Real clients over the wire: what a driver (tokio-postgres) and psql see of the Postgres endpoint. Each function takes
//! the address of a running server; none of them needs a stream, so that they say something about the door alone.

use std::net::SocketAddr;
use std::process::Command;

use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub async fn connect(address: SocketAddr) -> Client {
    let config = format!("host={} port={} user=tester dbname=logweir", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

/// The rows of a simple query, in text; NULL is `None`.
async fn text(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

async fn one(client: &Client, sql: &str) -> String {
    text(client, sql).await.remove(0).remove(0).unwrap_or_else(|| "NULL".to_string())
}

/// SQLSTATE and message of a statement that must fail.
async fn failure(client: &Client, sql: &str) -> (String, String) {
    let err = client.simple_query(sql).await.err().unwrap_or_else(|| panic!("{sql} did not fail"));
    let err = err.as_db_error().unwrap_or_else(|| panic!("{sql}: no answer of the server: {err}"));
    (err.code().code().to_string(), err.message().to_string())
}

/// The bytes of a value as they were sent.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Text results look as PostgreSQL prints them.
pub async fn values_in_text(address: SocketAddr) {
    let client = connect(address).await;
    for (expression, expected) in [
        ("1 = 1", "t"),
        ("1 = 2", "f"),
        ("42", "42"),
        ("0.1::double precision", "0.1"),
        ("1e20::double precision", "1e+20"),
        ("123.450::numeric(10,3)", "123.450"),
        ("'2015-05-17T10:05:03Z'::timestamptz", "2015-05-17 10:05:03+00"),
        ("'2015-05-17T10:05:03.120Z'::timestamptz", "2015-05-17 10:05:03.12+00"),
        ("'2015-05-17 10:05:03'::timestamp", "2015-05-17 10:05:03"),
        ("'2015-05-17'::date", "2015-05-17"),
        ("interval '1 day 2 hours'", "1 day 02:00:00"),
        ("interval '14 months'", "1 year 2 mons"),
        ("ARRAY[1, NULL, 3]", "{1,NULL,3}"),
        ("ARRAY['a b', 'c']", "{\"a b\",c}"),
        ("NULL", "NULL"),
        ("'häuser'", "häuser"),
    ] {
        assert_eq!(one(&client, &format!("SELECT {expression}")).await, expected, "{expression}");
    }
}

/// The same values in binary, by a prepared statement.
pub async fn values_in_binary(address: SocketAddr) {
    let client = connect(address).await;
    let row = client
        .query_one(
            "SELECT 1 = 1, 42::int, 42::bigint, 42::smallint, 0.5::double precision, 0.25::real, 'text', NULL::text, \
             ARRAY[1::bigint, 2::bigint], '2015-05-17T10:05:03Z'::timestamptz, interval '1 day 1 second', \
             -12345.678::numeric(10,3), ARRAY['a', 'b']",
            &[],
        )
        .await
        .expect("a row");
    assert!(row.get::<_, bool>(0));
    assert_eq!((row.get::<_, i32>(1), row.get::<_, i64>(2), row.get::<_, i16>(3)), (42, 42, 42));
    assert_eq!((row.get::<_, f64>(4), row.get::<_, f32>(5)), (0.5, 0.25));
    assert_eq!((row.get::<_, String>(6), row.get::<_, Option<String>>(7)), ("text".to_string(), None));
    assert_eq!(row.get::<_, Vec<i64>>(8), [1, 2]);
    let time: std::time::SystemTime = row.get(9);
    assert_eq!(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_431_857_103);
    let interval: Raw = row.get(10);
    assert_eq!(interval.0, [0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 1, 0, 0, 0, 0]);
    let numeric: Raw = row.get(11);
    assert_eq!(numeric.0, [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
    assert_eq!(row.get::<_, Vec<String>>(12), ["a", "b"]);
    assert_eq!(row.columns()[11].type_(), &Type::NUMERIC);
}

/// Parameters get the type that their use gives them; names are PostgreSQL's.
pub async fn prepared_statements(address: SocketAddr) {
    let client = connect(address).await;
    let statement = client
        .prepare(
            "SELECT count(*), max(value) FROM generate_series(1, 100) AS s(value) WHERE value > $1 AND value <= $2",
        )
        .await
        .expect("prepares");
    assert_eq!(statement.params(), [Type::INT8, Type::INT8]);
    assert_eq!(statement.columns()[0].name(), "count");
    for (low, high) in [(10i64, 20i64), (0, 100)] {
        let row = client.query_one(&statement, &[&low, &high]).await.expect("a row");
        assert_eq!(row.get::<_, i64>(0), high - low);
        assert_eq!(row.get::<_, i64>(1), high);
    }
    let row = client.query_one("SELECT $1::int AS a, upper($2), $3::text", &[&42i32, &"x", &None::<String>]).await;
    let row = row.expect("a row");
    assert_eq!(
        (row.get::<_, i32>(0), row.get::<_, String>(1), row.get::<_, Option<String>>(2)),
        (42, "X".into(), None)
    );
}

/// SQLSTATE, message and hint of errors; the connection stays usable.
pub async fn errors(address: SocketAddr) {
    let client = connect(address).await;
    for (sql, state) in [
        ("SELEC 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT nothing FROM (VALUES (1)) AS t(a)", "42703"),
        ("SELECT no_such_function(1)", "42883"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT 'x'::int", "22P02"),
        ("SET server_version = '9'", "55000"),
        ("SET nonsense = 1", "42704"),
        ("FETCH 1 FROM nowhere", "34000"),
    ] {
        assert_eq!(failure(&client, sql).await.0, state, "{sql}");
    }
    let err = client.query("SELECT * FROM nowhere", &[]).await.expect_err("no such table");
    assert_eq!(err.as_db_error().expect("of the server").code().code(), "42P01");
    assert_eq!(one(&client, "SELECT 1").await, "1");
}

/// Several statements in one text are answered in order, up to the first error.
pub async fn several_statements(address: SocketAddr) {
    let client = connect(address).await;
    assert_eq!(text(&client, "SELECT 1; SELECT 2; ; SELECT 3").await.len(), 3);
    assert_eq!(text(&client, "").await.len(), 0);
    assert_eq!(text(&client, ";").await.len(), 0);
    assert_eq!(failure(&client, "SELECT 1; SELECT * FROM nowhere; SET work_mem = '7MB'").await.0, "42P01");
    assert_eq!(one(&client, "SHOW work_mem").await, "4MB");
}

/// A failed transaction refuses statements until it ends.
pub async fn transactions(address: SocketAddr) {
    let mut client = connect(address).await;
    client.batch_execute("BEGIN").await.expect("begins");
    assert_eq!(failure(&client, "SELECT * FROM nowhere").await.0, "42P01");
    assert_eq!(failure(&client, "SELECT 1").await.0, "25P02");
    let err = client.query("SELECT 1", &[]).await.expect_err("in a failed transaction");
    assert_eq!(err.as_db_error().expect("of the server").code().code(), "25P02");
    client.batch_execute("ROLLBACK").await.expect("ends");
    assert_eq!(one(&client, "SELECT 1").await, "1");

    client.batch_execute("BEGIN; SAVEPOINT a").await.expect("begins");
    failure(&client, "SELECT * FROM nowhere").await;
    client.batch_execute("ROLLBACK TO SAVEPOINT a; SELECT 1; COMMIT").await.expect("goes on");

    // A driver's own transaction, with a portal that is read in portions.
    let transaction = client.transaction().await.expect("begins");
    let portal = transaction.bind("SELECT * FROM generate_series(1, 25)", &[]).await.expect("binds");
    let mut counts = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 10).await.expect("rows");
        counts.push(rows.len());
        if rows.len() < 10 {
            break;
        }
    }
    assert_eq!(counts, [10, 10, 5]);
    transaction.commit().await.expect("commits");
}

/// SET and SHOW of what drivers set at their start.
pub async fn settings(address: SocketAddr) {
    let client = connect(address).await;
    assert!(one(&client, "SHOW server_version").await.starts_with("15."));
    assert!(one(&client, "SELECT version()").await.starts_with("PostgreSQL 15"));
    client
        .batch_execute("SET application_name = 'x'; SET extra_float_digits = 3; SET DateStyle = 'ISO'")
        .await
        .unwrap();
    assert_eq!(one(&client, "SHOW application_name").await, "x");
    client.batch_execute("BEGIN; SET LOCAL work_mem = '9MB'").await.unwrap();
    assert_eq!(one(&client, "SHOW work_mem").await, "9MB");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(one(&client, "SHOW work_mem").await, "4MB");
    assert_eq!(one(&client, "SHOW TRANSACTION ISOLATION LEVEL").await, "read committed");
    assert!(text(&client, "SHOW ALL").await.len() > 30);
    client.batch_execute("DISCARD ALL; DEALLOCATE ALL; UNLISTEN *; RESET ALL").await.unwrap();
}

/// Cursors give portions.
pub async fn cursors(address: SocketAddr) {
    let client = connect(address).await;
    assert_eq!(failure(&client, "DECLARE c CURSOR FOR SELECT 1").await.0, "55000");
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM generate_series(1, 25)").await.unwrap();
    assert_eq!(text(&client, "FETCH 10 FROM c").await.len(), 10);
    assert_eq!(one(&client, "FETCH NEXT FROM c").await, "11");
    let rows = client.query("FETCH 5 FROM c", &[]).await.expect("also by the extended protocol");
    assert_eq!(rows[4].get::<_, i64>(0), 16);
    assert_eq!(text(&client, "FETCH ALL FROM c").await.len(), 9);
    assert_eq!(text(&client, "FETCH ALL FROM c").await.len(), 0);
    client.batch_execute("CLOSE c; COMMIT").await.unwrap();
}

const ENDLESS: &str = "SELECT * FROM generate_series(1, 1000000000000)";

/// A cancel request ends a running statement, with or without rows under way; the connection stays usable.
pub async fn cancel(address: SocketAddr) {
    let client = connect(address).await;
    let mut rows = Box::pin(client.query_raw(ENDLESS, Vec::<i64>::new()).await.expect("starts"));
    rows.next().await.expect("a row").expect("a row");
    client.cancel_token().cancel_query(NoTls).await.expect("asks");
    let err = loop {
        match rows.next().await.expect("an error before the end") {
            Ok(_) => {}
            Err(err) => break err,
        }
    };
    let err = err.as_db_error().expect("of the server");
    assert_eq!((err.code().code(), err.message()), ("57014", "canceling statement due to user request"));
    drop(rows);
    assert_eq!(one(&client, "SELECT 1").await, "1");

    // Nothing is sent until it ends, so it may be canceled before it has begun: ask until it is.
    let token = client.cancel_token();
    let query = client.simple_query("SELECT count(*) FROM generate_series(1, 1000000000000)");
    let asking = async {
        loop {
            let _ = token.cancel_query(NoTls).await;
        }
    };
    let err = tokio::select! {
        result = query => result.expect_err("canceled"),
        () = asking => unreachable!("asks for ever"),
    };
    assert_eq!(err.as_db_error().expect("of the server").code().code(), "57014");
    // A request that was still under way may hit the next statement, as with PostgreSQL.
    let usable = async { while client.simple_query("SELECT 1").await.is_err() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), usable).await.expect("usable again");
    assert_eq!(one(&client, "SELECT 1").await, "1");
}

/// `statement_timeout` counts planning, execution and sending.
pub async fn statement_timeout(address: SocketAddr) {
    let client = connect(address).await;
    client.batch_execute("SET statement_timeout = '50ms'").await.unwrap();
    let (state, message) = failure(&client, "SELECT count(*) FROM generate_series(1, 1000000000000)").await;
    assert_eq!((state.as_str(), message.as_str()), ("57014", "canceling statement due to statement timeout"));
    let (state, _) = failure(&client, ENDLESS).await;
    assert_eq!(state, "57014");
    client.batch_execute("SET statement_timeout = 0; SELECT 1").await.unwrap();
}

/// COPY … TO STDOUT in both formats.
pub async fn copy_out(address: SocketAddr) {
    let client = connect(address).await;
    let query = "SELECT * FROM (VALUES (1, E'a\\tb'), (2, NULL), (3, 'x,\"y\"')) AS t(n, word)";
    for (options, expected) in [
        ("", "1\ta\\tb\n2\t\\N\n3\tx,\"y\"\n"),
        (" WITH (FORMAT csv, HEADER true)", "n,word\n1,a\tb\n2,\n3,\"x,\"\"y\"\"\"\n"),
    ] {
        let stream = client.copy_out(&format!("COPY ({query}) TO STDOUT{options}")).await.expect("copies");
        let chunks: Vec<bytes::Bytes> = stream.try_collect().await.expect("copies");
        assert_eq!(chunks.len(), expected.lines().count(), "one message per line");
        assert_eq!(String::from_utf8(chunks.concat()).unwrap(), expected);
    }
    assert_eq!(one(&client, "SELECT 1").await, "1");
}

/// A client beyond the limit is told so; when one leaves, there is room again.
pub async fn too_many_connections(address: SocketAddr, limit: usize) {
    let mut clients = Vec::new();
    for _ in 0..limit {
        clients.push(connect(address).await);
    }
    let config = format!("host={} port={} user=tester", address.ip(), address.port());
    let err = tokio_postgres::connect(&config, NoTls).await.err().expect("refused");
    let err = err.as_db_error().expect("told why");
    assert_eq!((err.code().code(), err.message()), ("53300", "too many connections"));
    clients.pop();
    while tokio_postgres::connect(&config, NoTls).await.is_err() {}
}

/// A shutdown tells idle clients why they are left. `stop` starts it.
pub async fn shutdown(address: SocketAddr, stop: impl FnOnce()) {
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connects");
    socket.write_all(b"\0\0\0\x15\0\x03\0\0user\0tester\0\0").await.expect("starts");
    let mut seen = Vec::new();
    while !seen.ends_with(b"Z\0\0\0\x05I") {
        let mut chunk = [0; 4096];
        let count = socket.read(&mut chunk).await.expect("the start");
        assert!(count > 0, "closed at the start");
        seen.extend_from_slice(&chunk[..count]);
    }
    stop();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.expect("closes");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("FATAL") && rest.contains("57P01"), "{rest}");
}

/// psql's own commands show no error. `relation` is an existing one.
pub async fn psql(address: SocketAddr, relation: &str) {
    if Command::new("psql").arg("--version").output().is_err() {
        println!("note: psql is not installed, its commands are not tested");
        return;
    }
    let described = format!("\\d {relation}");
    let commands = [
        "\\d",
        "\\dt",
        "\\dv",
        "\\dm",
        "\\l",
        "\\dn",
        "\\df",
        "\\du",
        "\\dT",
        "\\di",
        "\\ds",
        "\\dp",
        "\\conninfo",
        "\\dg",
        "\\dt+",
        "\\d+",
        "\\df+",
        "\\dn+",
        "\\l+",
        "\\dx",
        "\\db",
        "\\timing",
        &described,
        "SELECT 1",
    ];
    for command in commands {
        let command = command.to_string();
        let shown = command.clone();
        let output = tokio::task::spawn_blocking(move || {
            Command::new("psql")
                .args([
                    "-X",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-h",
                    &address.ip().to_string(),
                    "-p",
                    &address.port().to_string(),
                ])
                .args(["-U", "tester", "-d", "logweir", "-c", &command])
                .output()
        });
        let output = output.await.expect("psql runs").expect("psql runs");
        let errors = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(output.status.success() && !errors.contains("ERROR"), "{shown}: {errors}");
    }
}

/// Runs one of the above against a fresh server.
fn with_server<F: Future<Output = ()>>(check: impl FnOnce(SocketAddr) -> F) {
    let mut server = crate::server::Server::start();
    let address = server.postgres().parse().expect("an address");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(check(address));
}

#[test]
fn values_look_as_in_postgres() {
    with_server(|address| async move {
        values_in_text(address).await;
        values_in_binary(address).await;
    });
}

#[test]
fn drivers_get_along() {
    with_server(|address| async move {
        prepared_statements(address).await;
        errors(address).await;
        several_statements(address).await;
        transactions(address).await;
        settings(address).await;
        cursors(address).await;
        copy_out(address).await;
    });
}

#[test]
fn queries_are_stopped() {
    with_server(|address| async move {
        cancel(address).await;
        statement_timeout(address).await;
    });
}

#[test]
fn psql_describes_everything() {
    with_server(|address| psql(address, "logweir.streams"));
}

#[test]
fn connections_are_limited() {
    let mut server = crate::server::Server::prepare();
    server.use_arguments(&["--max-connections", "3"]);
    server.launch();
    let address = server.postgres().parse().expect("an address");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(too_many_connections(address, 3));
}

#[test]
fn a_shutdown_tells_its_clients() {
    let mut server = crate::server::Server::start();
    let address = server.postgres().parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(shutdown(address, || assert!(server.terminate().success())));
}
