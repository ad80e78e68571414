//! Real clients over the wire: what a driver (tokio-postgres) and psql see of the Postgres endpoint. Each function takes
//! the address of a running server; none of them needs a stream, so that they say something about the door alone.

use std::net::SocketAddr;
use std::process::Command;

use futures::{SinkExt, StreamExt, TryStreamExt};
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
pub async fn text(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|err| panic!("{sql}: {err:?}"));
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

pub async fn one(client: &Client, sql: &str) -> String {
    text(client, sql).await.remove(0).remove(0).unwrap_or_else(|| "NULL".to_string())
}

/// SQLSTATE and message of a statement that must fail.
pub async fn failure(client: &Client, sql: &str) -> (String, String) {
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

/// A table for what clients put in; it has no source of its own.
async fn table_of_rows(client: &Client) {
    let create = "CREATE TABLE rows_of_clients (ts timestamptz, path text, n int, big bigint, small smallint, \
                  x double precision, y real, ok boolean)";
    client.simple_query(create).await.expect("creates");
}

/// Parameters have the types of the columns they go to; the rows are there when the statement is done.
pub async fn inserts(address: SocketAddr) {
    let client = connect(address).await;
    table_of_rows(&client).await;
    let tag = |messages: Vec<SimpleQueryMessage>| match messages.into_iter().next_back() {
        Some(SimpleQueryMessage::CommandComplete(rows)) => rows,
        other => panic!("{other:?}"),
    };
    let two =
        "INSERT INTO rows_of_clients VALUES ('2026-01-01 00:00:00+00', '/a', 1), ('2026-01-01 00:00:00+00', '/b', 2)";
    assert_eq!(tag(client.simple_query(two).await.expect("inserts")), 2);

    let insert =
        "INSERT INTO rows_of_clients (path, ts, n, big, small, x, y, ok) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let statement = client.prepare(insert).await.expect("prepares");
    let types =
        [Type::TEXT, Type::TIMESTAMPTZ, Type::INT4, Type::INT8, Type::INT2, Type::FLOAT8, Type::FLOAT4, Type::BOOL];
    assert_eq!(statement.params(), types);
    assert!(statement.columns().is_empty());
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(1_767_225_600_000_001);
    for n in 0..3i32 {
        let count = client
            .execute(&statement, &[&"it's $1", &time, &n, &i64::MIN, &i16::MAX, &0.1f64, &0.2f32, &Some(true)])
            .await
            .expect("inserts");
        assert_eq!(count, 1);
        let seen = client.query_one("SELECT count(*) FROM rows_of_clients WHERE big IS NOT NULL", &[]).await;
        assert_eq!(seen.expect("a row").get::<_, i64>(0), i64::from(n) + 1, "what was inserted is seen");
    }
    let sql = "SELECT path, ts, n, big, small, x, y, ok FROM rows_of_clients WHERE n = 2 AND big IS NOT NULL";
    let row = client.query_one(sql, &[]).await.expect("a row");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, std::time::SystemTime>(1)), ("it's $1", time));
    assert_eq!((row.get::<_, i64>(3), row.get::<_, i16>(4)), (i64::MIN, i16::MAX));
    assert_eq!((row.get::<_, f64>(5), row.get::<_, f32>(6), row.get::<_, bool>(7)), (0.1, 0.2, true));

    // NULLs, and a query with parameters.
    let nulls = "INSERT INTO rows_of_clients (ts, path, n) SELECT ts, $1, n + $2 FROM rows_of_clients WHERE n = $2";
    let count = client.execute(nulls, &[&None::<&str>, &2i32]).await.expect("inserts");
    assert_eq!(count, 2);
    let err = client.execute(insert, &[&"x", &None::<std::time::SystemTime>, &1, &1i64, &1i16, &1f64, &1f32, &true]);
    assert_eq!(err.await.expect_err("time is missing").code().expect("a code").code(), "23502");
    assert_eq!(one(&client, "SELECT count(*) FROM rows_of_clients").await, "7");
}

/// COPY FROM STDIN by the driver: small and large, text and csv, and what goes wrong.
pub async fn copies_in(address: SocketAddr) {
    let client = connect(address).await;
    table_of_rows(&client).await;
    let copy = async |sql: &str, pieces: Vec<String>| -> Result<u64, tokio_postgres::Error> {
        let mut sink = std::pin::pin!(client.copy_in::<_, bytes::Bytes>(sql).await?);
        for piece in pieces {
            sink.send(piece.into()).await?;
        }
        sink.finish().await
    };
    let time = "2026-01-01 00:00:00.5+00";
    let text = format!("{time}\ta\\tb\\\\\t1\t\\N\t\\N\t0.5\tNaN\tt\n{time}\t\\N\t2\t3\t4\t\\N\t\\N\toff\n");
    let pieces = text.chars().map(String::from).collect();
    assert_eq!(copy("COPY rows_of_clients FROM STDIN", pieces).await.expect("copies"), 2);
    let sql = "SELECT path, n, big, small, x, y::text, ok FROM rows_of_clients ORDER BY n";
    let some = |values: &[&str]| -> Vec<Option<String>> {
        values.iter().map(|v| (*v != "-").then(|| v.to_string())).collect()
    };
    let expected = [some(&["a\tb\\", "1", "-", "-", "0.5", "NaN", "t"]), some(&["-", "2", "3", "4", "-", "-", "f"])];
    assert_eq!(text_rows(&client, sql).await, expected);

    let csv = format!("n,path,ts\r\n3,\"two\nlines, \"\"quoted\"\"\",{time}\r\n4,,{time}\r\n5,\"\",{time}");
    let sql = "COPY rows_of_clients (n, path, ts) FROM STDIN WITH (FORMAT csv, HEADER)";
    assert_eq!(copy(sql, vec![csv]).await.expect("copies"), 3);
    let sql = "SELECT n, path FROM rows_of_clients WHERE n > 2 ORDER BY n";
    let expected = [some(&["3", "two\nlines, \"quoted\""]), some(&["4", "-"]), some(&["5", ""])];
    assert_eq!(text_rows(&client, sql).await, expected);

    // In several records, which are seen together when it is done.
    let many: Vec<String> = (0..50_000).map(|n| format!("{time}\t/{n}\t{}\n", 1000 + n)).collect();
    let pieces = many.chunks(777).map(|lines| lines.concat()).collect();
    let sql = "COPY public.rows_of_clients (ts, path, n) FROM STDIN";
    assert_eq!(copy(sql, pieces).await.expect("copies"), 50_000);
    let sql = "SELECT count(*), count(DISTINCT n), sum(n) FROM rows_of_clients WHERE n >= 1000";
    assert_eq!(text_rows(&client, sql).await, [some(&["50000", "50000", "1299975000"])]);

    // Errors say where they are; the connection goes on.
    let detail = |err: tokio_postgres::Error| {
        let err = err.as_db_error().expect("an answer of the server").clone();
        (err.code().code().to_string(), err.message().to_string(), err.detail().unwrap_or_default().to_string())
    };
    let sql = "COPY rows_of_clients (ts, path, n) FROM STDIN";
    for (lines, code, message, place) in [
        (
            format!("{time}\t/\t1\n{time}\t/\tmany\n"),
            "22P02",
            "invalid input syntax for type integer: \"many\"",
            "COPY rows_of_clients, line 2, column n: \"many\"",
        ),
        (format!("{time}\t/\n"), "22P04", "missing data for column \"n\"", "COPY rows_of_clients, line 1"),
        (
            format!("{time}\t/\t1\t2\n"),
            "22P04",
            "extra data after last expected column",
            "COPY rows_of_clients, line 1",
        ),
        (
            "\\N\t/\t1\n".to_string(),
            "23502",
            "null value in column \"ts\" of relation \"rows_of_clients\" violates not-null constraint",
            "COPY rows_of_clients, in the 1 rows up to line 1",
        ),
    ] {
        let err = copy(sql, vec![lines]).await.expect_err("it is wrong");
        assert_eq!(detail(err), (code.to_string(), message.to_string(), place.to_string()));
    }
    let mut long: String = many[..10_000].concat();
    long += "nothing\n";
    let err = detail(copy(sql, vec![long]).await.expect_err("it is wrong"));
    let place = "COPY rows_of_clients, line 10001, column ts: \"nothing\". \
                 The 8192 rows before it, as records of their own, are in the stream.";
    assert_eq!((err.0.as_str(), err.2.as_str()), ("22P02", place));
    let before = 50_005 + 8192;
    assert_eq!(one(&client, "SELECT count(*) FROM rows_of_clients").await, before.to_string());

    // With a key it may be sent again, whatever part of it came in.
    for lines in [&many[..9000], &many[..], &many[..]] {
        client.simple_query("SET logweir.idempotency_key = 'the copy'").await.expect("sets");
        // The first one has an end that is no line.
        let wrong = if lines.len() < 10_000 { vec!["no row".to_string()] } else { Vec::new() };
        let pieces: Vec<String> = lines.iter().cloned().chain(wrong).collect();
        assert_eq!(copy(sql, pieces).await.ok(), (lines.len() > 10_000).then_some(50_000));
    }
    assert_eq!(one(&client, "SELECT count(*) FROM rows_of_clients").await, (before + 50_000).to_string());

    // The number of a record stands behind the key: both together must not be too long for the log.
    let set = |length: usize| format!("SET logweir.idempotency_key = '{}'", "k".repeat(length));
    client.simple_query(&set(234)).await.expect("sets");
    assert_eq!(copy(sql, many.clone()).await.ok(), Some(50_000));
    client.simple_query(&set(235)).await.expect("sets");
    assert_eq!(failure(&client, sql).await.0, "22023");
    let before = before + 50_000;

    // Computed columns are not given, and what they cannot be computed of does not come in.
    let create =
        "CREATE TABLE shares_of_clients (ts timestamptz, a int, b int, share int AS (a / b), WATERMARK FOR ts AS ts)";
    client.simple_query(create).await.expect("creates");
    let sql = "COPY shares_of_clients FROM STDIN";
    assert_eq!(copy(sql, vec![format!("{time}\t6\t2\n{time}\t7\t\\N\n")]).await.expect("copies"), 2);
    let err = detail(copy(sql, vec![format!("{time}\t6\t2\n{time}\t6\t0\n")]).await.expect_err("it divides by zero"));
    let expected =
        ["22012", "column \"share\": division by zero", "COPY shares_of_clients, in the 2 rows up to line 2"];
    assert_eq!(err, (expected[0].to_string(), expected[1].to_string(), expected[2].to_string()));
    assert_eq!(failure(&client, "COPY shares_of_clients (ts, share) FROM STDIN").await.0, "428C9");
    let sql = "SELECT a, share FROM shares_of_clients ORDER BY a";
    assert_eq!(text_rows(&client, sql).await, [some(&["6", "3"]), some(&["7", "-"])]);
    let sql = "COPY rows_of_clients (ts, path, n) FROM STDIN";

    // A client that gives up.
    {
        let mut sink = std::pin::pin!(client.copy_in::<_, bytes::Bytes>(sql).await.expect("begins"));
        sink.send(many[0].clone().into()).await.expect("sends");
    }
    assert_eq!(one(&client, "SELECT count(*) FROM rows_of_clients").await, (before + 50_000).to_string());
    for (sql, code) in [
        ("COPY nowhere FROM STDIN", "42P01"),
        ("COPY rows_of_clients (nothing) FROM STDIN", "42703"),
        ("COPY rows_of_clients FROM STDIN WITH (FORMAT binry)", "22023"),
        ("COPY rows_of_clients FROM STDIN WITH (FORMAT binary, DELIMITER ',')", "42601"),
        ("COPY rows_of_clients FROM '/etc/passwd'", "0A000"),
    ] {
        assert_eq!(failure(&client, sql).await.0, code, "{sql}");
    }
    assert_eq!(one(&client, "SELECT 1").await, "1");
}

async fn text_rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    text(client, sql).await
}

/// psql's \copy, both ways.
pub async fn psql_copies(address: SocketAddr) {
    let client = connect(address).await;
    table_of_rows(&client).await;
    let home = tempfile::tempdir().expect("a directory");
    let (from, to) = (home.path().join("from.csv"), home.path().join("to.csv"));
    std::fs::write(&from, "ts,path,n\n2026-01-01 00:00:00+00,\"a,b\",1\n2026-01-01 00:00:01+00,,2\n").expect("writes");
    let run = async |command: String| {
        let output = tokio::task::spawn_blocking(move || {
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let args = ["-X", "-v", "ON_ERROR_STOP=1", "-h", &host, "-p", &port, "-U", "tester", "-d", "logweir"];
            Command::new("psql").args(args).args(["-c", &command]).output()
        });
        let output = output.await.expect("psql runs").expect("psql runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), out.trim().to_string(), err.trim().to_string())
    };
    let copy = format!("\\copy rows_of_clients (ts, path, n) FROM '{}' WITH (FORMAT csv, HEADER)", from.display());
    assert_eq!(run(copy).await, (true, "COPY 2".into(), String::new()));
    let copy = format!(
        "\\copy (SELECT ts, path, n FROM rows_of_clients ORDER BY n) TO '{}' WITH (FORMAT csv, HEADER)",
        to.display()
    );
    assert_eq!(run(copy).await, (true, "COPY 2".into(), String::new()));
    let (from, to) = (std::fs::read_to_string(&from).expect("reads"), std::fs::read_to_string(&to).expect("reads"));
    assert_eq!(from, to);
    let insert = "INSERT INTO rows_of_clients (ts, n) VALUES ('2026-01-01 00:00:02Z', 3)".to_string();
    assert_eq!(run(insert).await, (true, "INSERT 0 1".into(), String::new()));
    let repeated = "NOTICE:  1 rows were already stored under this idempotency key and were not added again";
    let insert =
        "SET logweir.idempotency_key = 'k'; INSERT INTO rows_of_clients (ts, n) VALUES ('2026-01-01 00:00:03Z', 4)";
    for said in ["", repeated] {
        assert_eq!(run(insert.to_string()).await, (true, "SET\nINSERT 0 1".into(), said.to_string()));
    }
    assert_eq!(one(&client, "SELECT count(*) FROM rows_of_clients WHERE n = 4").await, "1");
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
fn clients_put_rows_in() {
    with_server(inserts);
    with_server(copies_in);
    with_server(psql_copies);
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
