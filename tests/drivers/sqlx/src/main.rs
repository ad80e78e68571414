//! sqlx: prepared statements with binary values, pools, streams of rows, COPY, LISTEN.

use std::time::Duration;

use futures::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::types::Decimal;
use sqlx::{Connection, Executor, PgConnection, Row};

#[tokio::main]
async fn main() -> Result<(), sqlx::Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let authority = std::env::var("PGSSLROOTCERT").ok();
    // Password, mode of TLS and authority come by libpq's variables.
    let mut options = PgConnectOptions::new().host(&arguments[1]).port(arguments[2].parse().expect("a port"));
    options = options.username("tester").database("logweir").application_name("sqlx");
    if authority.is_none() {
        options = options.ssl_mode(PgSslMode::Disable);
    }
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options.clone()).await?;
    println!("connect: {}", if authority.is_some() { "password, TLS" } else { "yes" });

    let at: DateTime<Utc> = "2026-01-02T03:04:05.000678Z".parse().expect("a time");
    let row = sqlx::query("SELECT $1::int, $2::text, $3::timestamptz, $4::float8, $5::bool, $6::numeric(10,2), $7::bigint[], NULL::text")
        .bind(42i32)
        .bind("häuser")
        .bind(at)
        .bind(0.5f64)
        .bind(true)
        .bind(Decimal::new(1250, 2))
        .bind(vec![1i64, 2])
        .fetch_one(&pool)
        .await?;
    assert_eq!((row.get::<i32, _>(0), row.get::<&str, _>(1), row.get::<DateTime<Utc>, _>(2)), (42, "häuser", at));
    assert_eq!((row.get::<f64, _>(3), row.get::<bool, _>(4), row.get::<Decimal, _>(5)), (0.5, true, Decimal::new(1250, 2)));
    assert_eq!((row.get::<Vec<i64>, _>(6), row.get::<Option<&str>, _>(7)), (vec![1, 2], None));
    println!("binary: yes");
    // What `query!` asks while a program is compiled: types of parameters and columns, and whether they may be NULL.
    let about = pool.describe("SELECT path, n FROM events WHERE n > $1").await?;
    let columns: Vec<String> = about.columns().iter().map(|c| format!("{} {}", sqlx::Column::name(c), sqlx::Column::type_info(c))).collect();
    assert_eq!(columns, ["path TEXT", "n INT8"]);
    println!("introspect: what `query!` describes");
    for (path, total) in [("/a", 1i64), ("/b", 5)] {
        let got: i64 = sqlx::query_scalar("SELECT total FROM per_path WHERE path = $1").bind(path).fetch_one(&pool).await?;
        assert_eq!(got, total);
    }
    let mut transaction = pool.begin().await?;
    let done = sqlx::query("INSERT INTO events (ts, path, n) SELECT * FROM UNNEST($1::timestamptz[], $2::text[], $3::bigint[])")
        .bind(vec![at; 3])
        .bind(vec!["sqlx"; 3])
        .bind(vec![500i64, 501, 502])
        .execute(&mut *transaction)
        .await?;
    assert_eq!(done.rows_affected(), 3);
    transaction.commit().await?;
    let seen: Vec<i32> = sqlx::query_scalar("SELECT i::int FROM generate_series(1, 1000) AS s(i)").fetch(&pool).try_collect().await?;
    assert_eq!(seen.len(), 1000);
    println!("parameters: yes, prepared, pools, streams of rows");

    let mut c = PgConnection::connect_with(&options).await?;
    let mut copy = c.copy_in_raw("COPY events (ts, path, n) FROM STDIN").await?;
    copy.send("2026-01-01 00:00:00+00\tcopied\t700\n".as_bytes()).await?;
    assert_eq!(copy.finish().await?, 1);
    let out: Vec<_> = c.copy_out_raw("COPY (SELECT path, n FROM events WHERE n < 10 ORDER BY n) TO STDOUT (FORMAT csv)").await?.try_collect().await?;
    assert_eq!(out.concat(), b"/a,1\n/b,2\n/b,3\n");
    println!("COPY: text, csv");
    let failed = c.execute("SELECT * FROM nowhere").await.expect_err("there is no such relation");
    assert_eq!(failed.as_database_error().and_then(|err| err.code()).as_deref(), Some("42P01"));

    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("jobs").await?;
    sqlx::query("SELECT pg_notify('jobs', $1)").bind("done").execute(&pool).await?;
    let heard = tokio::time::timeout(Duration::from_secs(30), listener.recv()).await.expect("in time")?;
    assert_eq!((heard.channel(), heard.payload()), ("jobs", "done"));
    println!("LISTEN: yes");
    println!("sqlx 0.8 ok");
    Ok(())
}
