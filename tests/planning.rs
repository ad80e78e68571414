//! No statement holds a thread of the server while it is planned, whatever is written in it: it is answered, refused as too
//! complex, or ends when its client has had enough.

use crate::server::{Client, Server};

const TOO_COMPLEX: &str = "54001";

/// `before` and `behind` around `inner`, so many times.
fn nested(count: usize, before: &str, inner: &str, behind: &str) -> String {
    format!("{}{inner}{}", before.repeat(count), behind.repeat(count))
}

/// A relation of WITH that reads the one before it twice, and so on.
fn doubled(count: usize) -> String {
    let steps: String =
        (1..count).map(|i| format!(", t{i} AS (SELECT * FROM t{0} UNION ALL SELECT * FROM t{0})", i - 1)).collect();
    format!("WITH t0 AS (SELECT x FROM one){steps} SELECT count(*) FROM t{}", count - 1)
}

fn server() -> (Server, Client) {
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE one AS SELECT 1 AS x, 'a' AS t, true AS b");
    (server, client)
}

#[test]
fn what_is_written_in_each_other_is_planned_at_once_or_refused() {
    let (_server, client) = server();
    // These are answered. (The parser takes fifty levels.)
    for (expression, value) in [
        (nested(40, "coalesce(", "x", ", 1)"), "1"),
        (nested(40, "nvl(", "x + 0", ", 1)"), "1"),
        (nested(20, "coalesce(x + ", "x", ", x)"), "21"),
        (nested(8, "coalesce(", "x", ", x / x)"), "1"),
        (nested(40, "nullif(", "x", ", 2)"), "1"),
        (nested(40, "greatest(", "x", ", 1)"), "1"),
        (nested(40, "CASE WHEN b THEN ", "x", " ELSE 2 END"), "1"),
        (nested(40, "CASE WHEN b THEN 1 ELSE ", "x", " END"), "1"),
        (nested(8, "(", "x", " BETWEEN 0 AND 1)::int"), "1"),
        (nested(40, "abs(", "x", ")"), "1"),
        (format!("count(*) FILTER (WHERE {})", vec!["(b OR x > 1)"; 400].join(" AND ")), "1"),
        (format!("count(*) FILTER (WHERE {})", vec!["(b AND x = 1)"; 400].join(" OR ")), "1"),
    ] {
        assert_eq!(client.one(&format!("SELECT {expression} FROM one")), value, "{}", &expression[..40]);
    }
    // These double with each level.
    for expression in [
        nested(40, "(", "x", " BETWEEN 0 AND 1)::int"),
        nested(20, "(CASE WHEN ", "b", " THEN b ELSE NOT b END)"),
        nested(40, "coalesce(", "x", ", x / x)"),
        nested(20, "coalesce(abs(", "x", "), x / x)"),
        nested(15, "((", "x", ", 1) < (2, 2))::int"),
        nested(15, "(", "t", " LIKE ANY (ARRAY['a', 'b']))::text"),
    ] {
        client.fails(&format!("SELECT {expression} FROM one")).says(TOO_COMPLEX, &[]);
    }
    // What is read again where a rule of the grammar does not fit, with a mistake within.
    for (before, inner, behind) in [("cast(", "1 +", " AS int)"), ("position(", "1", ")"), ("(", "1 +", ")")] {
        let failure = client.fails(&format!("SELECT {}", nested(45, before, inner, behind)));
        assert!(["42601", TOO_COMPLEX].contains(&failure.code.as_str()), "{failure:?}");
    }
    client.fails(&format!("SELECT {} FROM pg_class", nested(45, "abs(", "1", ")"))).says(TOO_COMPLEX, &[]);
    let views = (1..30).try_for_each(|i| {
        let before = if i == 1 { "one".to_string() } else { format!("v{}", i - 1) };
        client
            .attempt(&format!("CREATE VIEW v{i} AS SELECT * FROM {before} UNION ALL SELECT * FROM {before}"))
            .map(drop)
    });
    views.expect_err("the last ones would read a hundred million times").says(TOO_COMPLEX, &["materialized"]);
    assert_eq!(client.one(&doubled(8)), "128");
    client.fails(&doubled(40)).says(TOO_COMPLEX, &[]);
    // What a step computes of the one before is put into the condition.
    let steps = nested(15, "SELECT x * x + x * x AS x FROM (", "SELECT x FROM one", ") AS s");
    client.fails(&format!("SELECT * FROM ({steps}) AS s WHERE x > 0")).says(TOO_COMPLEX, &[]);
}
