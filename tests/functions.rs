//! Scalar functions: each does what its sample says, is listed where users look, and may stand in a view.

use logweir::sql::function::{scalars, windowed};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::batch::same;
use crate::lines;
use crate::server::Server;

#[test]
fn every_function_does_what_its_sample_says() {
    let mut server = Server::start();
    let client = server.client();
    for function in scalars() {
        let (call, expected) = function.sample;
        assert_eq!(client.one(&format!("SELECT {call}")), expected, "{call}");
    }
    for function in windowed() {
        assert_eq!(client.one(&function.sample.query()), function.sample.result, "{}", function.sample.call);
    }
}

#[test]
fn every_function_is_listed() {
    let mut server = Server::start();
    let client = server.client();
    let shown = client.rows("SHOW FUNCTIONS");
    // What psql's \df asks for.
    let found = client.rows(
        "SELECT proname, pg_get_function_result(oid), pg_get_function_arguments(oid) FROM pg_catalog.pg_proc
         WHERE pg_function_is_visible(oid)",
    );
    for function in scalars() {
        let row = shown.iter().find(|row| row[0].as_deref() == Some(function.name)).expect("SHOW FUNCTIONS has it");
        assert_eq!(row[1].as_deref(), Some("scalar"));
        assert!(found.iter().any(|row| row[0].as_deref() == Some(function.name)), "{} in pg_proc", function.name);
    }
    for function in windowed() {
        let row = shown.iter().find(|row| row[0].as_deref() == Some(function.name)).expect("SHOW FUNCTIONS has it");
        assert_eq!(row[1].as_deref(), Some("window"));
        assert!(found.iter().any(|row| row[0].as_deref() == Some(function.name)), "{} in pg_proc", function.name);
    }
    let of = |name: &str| found.iter().find(|row| row[0].as_deref() == Some(name)).map(crate::server::line);
    assert_eq!(of("url_param").as_deref(), Some("url_param text text, text"));
    assert_eq!(of("ip_prefix").as_deref(), Some("ip_prefix text text, bigint, bigint"));
    let wrong = client.fails("SELECT url_pth('/a')");
    wrong.says("42883", &["url_pth", "Did you mean \"url_path\"?"]);
}

#[test]
fn functions_take_parameters() {
    let mut server = Server::start();
    let address = server.postgres().parse().expect("the server says where it is");
    tokio::runtime::Runtime::new().expect("threads can be started").block_on(async {
        let client = crate::clients::connect(address).await;
        let sql = "SELECT url_path($1), ip_in('10.1.2.3', $2), ip_prefix('10.1.2.3', $3::bigint),
                   $4 ->> 'a', log_bucket($5::double precision)";
        let json = "{\"a\": 1}";
        let row = client.query_one(sql, &[&"/a?b", &"10.0.0.0/8", &16_i64, &json, &5.0_f64]).await.expect("it runs");
        let texts: [Option<&str>; 3] = [row.get(0), row.get(2), row.get(3)];
        assert_eq!(texts, [Some("/a"), Some("10.1.0.0/16"), Some("1")]);
        assert_eq!((row.get::<_, bool>(1), row.get::<_, f64>(4)), (true, 4.0));
    });
}

#[test]
fn views_over_functions_equal_their_batch() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("access.log");
    let mut random = StdRng::seed_from_u64(5);
    let mut grow = |rows: i64| {
        let text: String = (0..rows).map(|i| lines::random(&mut random, lines::START + i / 10)).collect();
        lines::append(&path, text);
    };
    grow(500);
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED",
        server.log("*.log").display()
    ));
    let expressions = [
        "url_path(path)",
        "url_param(path, 'x')",
        "url_host(referer)",
        "url_encode(path)",
        "user_agent_family(user_agent)",
        "user_agent_category(user_agent)",
        "is_bot(user_agent)",
        "ip_prefix(client, 30)",
        "ip_in(client, '10.0.0.0/31, 10.0.0.4')",
        "json_as_text('{\"200\": \"good\", \"404\": \"missing\"}', status::text)",
        "('{\"status\": ' || status || '}') ->> 'status'",
        "regexp_extract(path, '([a-z]+)')",
        "parse_duration(bytes || 'ms')",
        "pg_size_pretty(bytes)",
        "log_bucket(bytes)",
        "width_bucket(bytes, 0, 100000, 8)",
        "bucket(bytes, ARRAY[100, 10000])",
        "to_char(ts, 'YYYY-MM-DD HH24:MI')",
    ];
    let query = |expression: &str| {
        format!(
            "SELECT window_start, {expression} AS part, count(*) AS n, max(bytes) AS largest
             FROM TUMBLE(access, ts, INTERVAL '10 seconds') GROUP BY window_start, {expression}"
        )
    };
    for (i, expression) in expressions.iter().enumerate() {
        client.run(&format!("CREATE MATERIALIZED VIEW v{i} AS {}", query(expression)));
    }
    grow(500);
    client.run("FLUSH");
    for (i, expression) in expressions.iter().enumerate() {
        let rows = same(&client, expression, &format!("SELECT * FROM v{i}"), &query(expression), 0.0);
        assert!(rows > 10, "{expression}: {rows} rows");
    }
}

/// A view with scores of its own rows equals its batch, also when late lines correct them; and can be asked, filtered and
/// followed like any other.
#[test]
fn scores_may_stand_in_views() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("access.log");
    let mut random = StdRng::seed_from_u64(6);
    let mut grow = |from: i64, rows: i64| {
        let text: String = (0..rows).map(|i| lines::random(&mut random, lines::START + from + i / 20)).collect();
        lines::append(&path, text);
    };
    grow(0, 2000);
    client.run(&format!("CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED", path.display()));
    let query = "SELECT *, anomaly(requests, 20) OVER (PARTITION BY client ORDER BY window_start) AS score,
                        ewma(requests, 0.3) OVER (PARTITION BY client ORDER BY window_start) AS smooth,
                        ewma_upper(requests, 0.3, 3) OVER (PARTITION BY client ORDER BY window_start) AS upper,
                        seasonal_baseline(requests, window_start, INTERVAL '20 seconds')
                          OVER (PARTITION BY client ORDER BY window_start) AS baseline,
                        rate_change(requests) OVER (PARTITION BY client ORDER BY window_start) AS change
                 FROM (SELECT window_start, client, count(*) AS requests
                       FROM TUMBLE(access, ts, INTERVAL '5 seconds') GROUP BY window_start, client)";
    client.run(&format!("CREATE MATERIALIZED VIEW scored AS {query}"));
    grow(100, 1000);
    // Late: it corrects windows in the middle of the history.
    grow(40, 300);
    client.run("FLUSH");
    let rows = same(&client, "scores", "SELECT * FROM scored", query, 0.0);
    assert!(rows > 50, "{rows} rows");
    assert!(client.number("SELECT count(*) FROM scored WHERE score > 0 AND requests > 1") > 0);
    assert!(client.number("SELECT count(*) FROM scored WHERE baseline IS NOT NULL AND upper IS NOT NULL") > 0);
    let qualified =
        client.rows("SELECT client FROM scored QUALIFY anomaly(requests) OVER (ORDER BY window_start, client) > 1");
    assert!(!qualified.is_empty());
    client
        .fails("SELECT ewma(requests, 7) OVER (ORDER BY window_start) FROM scored")
        .says("22023", &["ewma takes a number above 0 and up to 1 for alpha, not 7"]);
    client.fails("SELECT rate_change() OVER (ORDER BY window_start) FROM scored").says("42883", &["rate_change"]);
}
