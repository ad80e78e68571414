//! Scores in predicates, alerts that come and go while others run, and what must not be accepted.

use super::{count, create_hook, create_web, states, told, until, write};
use crate::lines;
use crate::server::{Client, Server};
use crate::sinks::receiver::Receiver;

const TIMES: &str = "FROM '2026-01-01T00:00:00Z' TO '2026-01-02T00:00:00Z'";

/// What has fired and resolved, as a rehearsal shows it.
fn live(client: &Client, alert: &str) -> Vec<String> {
    client.sorted(&format!(
        "SELECT key, at, to_state FROM logweir.alert_history WHERE name = '{alert}' AND to_state IN ('firing', 'resolved')"
    ))
}

fn rehearsed(client: &Client, alert: &str) -> Vec<String> {
    let mut all = Vec::new();
    for row in client.rows(&format!("BACKTEST ALERT {alert} {TIMES}")) {
        let text = |i: usize| row[i].clone().unwrap_or_else(|| "NULL".to_string());
        all.push(format!("{} {} firing", text(0), text(1)));
        if row[2].is_some() {
            all.push(format!("{} {} resolved", text(0), text(2)));
        }
    }
    all.sort_unstable();
    all
}

#[test]
fn a_score_is_compared_with_the_windows_before_it_of_its_key() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    let clauses = "ON errors WHERE anomaly(requests) > 6 AND requests > 5 KEY (path)";
    let create = format!(
        "CREATE ALERT unusual {clauses} ANNOTATIONS (summary = '{{{{path}}}}: {{{{requests}}}}, {{{{_score_1}}}}') NOTIFY hook ON RESOLVE"
    );
    client.run(&create);
    // Closed windows, for what is too little.
    let too_few = "ON errors_final WHERE anomaly(requests) < -4 KEY (path)";
    client.run(&format!("CREATE ALERT few {too_few}"));
    assert_eq!(client.one("SHOW CREATE ALERT unusual"), format!("unusual {create}"));
    // Ten windows with about ten requests of one path, and about a hundred of another.
    for window in 0..10 {
        write(&log, window * 10, "/small", 200, 9 + window as usize % 3);
        write(&log, window * 10 + 1, "/large", 200, 95 + 5 * (window as usize % 3));
    }
    client.run("FLUSH");
    write(&log, 100, "/small", 200, 60);
    write(&log, 101, "/large", 200, 100);
    until("the small one to fire", || (count(&receiver, "firing", "/small") == 1).then_some(()));
    // After a restart, too.
    server.terminate();
    server.again();
    let client = server.client();
    write(&log, 110, "/small", 200, 10);
    write(&log, 111, "/large", 200, 500);
    until("the large one to fire", || (count(&receiver, "firing", "/large") == 1).then_some(()));
    write(&log, 121, "/large", 200, 3);
    write(&log, 131, "/large", 200, 100);
    write(&log, 141, "/end", 200, 1);
    client.run("FLUSH");
    until("all to be over", || {
        let over = count(&receiver, "resolved", "/small") + count(&receiver, "resolved", "/large");
        (over == 2 && !live(&client, "few").is_empty()).then_some(())
    });
    assert_eq!(count(&receiver, "firing", "/small") + count(&receiver, "firing", "/large"), 2);
    assert_eq!(
        live(&client, "unusual"),
        [
            "path=/large 2026-01-01 00:01:50+00 firing",
            "path=/large 2026-01-01 00:02:00+00 resolved",
            "path=/small 2026-01-01 00:01:40+00 firing",
            "path=/small 2026-01-01 00:01:50+00 resolved",
        ]
    );
    for (alert, draft) in [("unusual", clauses), ("few", too_few)] {
        let expected = rehearsed(&client, alert);
        // Each row of a window is looked at as it comes, so one alert may know less than another for a moment.
        until("all to be known", || (live(&client, alert).len() >= expected.len()).then_some(()));
        assert_eq!(expected, live(&client, alert));
        assert_eq!(rehearsed(&client, &format!("draft {draft}")), live(&client, alert));
    }
}

#[test]
fn scores_that_mean_nothing_are_refused_with_what_to_do() {
    let mut server = Server::start();
    let client = server.client();
    create_web(&server, &client);
    client.run(
        "CREATE MATERIALIZED VIEW ends AS SELECT window_end, count(*) AS n FROM TUMBLE(web, ts, INTERVAL '10 seconds') GROUP BY window_end",
    );
    for (clauses, code, texts) in [
        ("ON ends WHERE anomaly(n) > 4", "42703", &["anomaly(n)", "window_start", "OVER"][..]),
        ("ON web WHERE anomaly(bytes) > 4", "0A000", &["single rows", "materialized view"]),
        ("ON errors WHERE anomaly(requests) > 4", "22023", &["several rows a window", "Add \"path\" to KEY"]),
        (
            "ON errors WHERE anomaly(ewma(requests, 0.2)) > 4 KEY (path)",
            "0A000",
            &["ewma(requests, 0.2)", "ON (SELECT"],
        ),
        ("ON errors WHERE anomaly(requests) > 4 KEY (pth)", "42703", &["KEY", "path"]),
        ("ON errors WHERE anomaly(requsts) > 4 KEY (path)", "42703", &["requests"]),
        ("ON errors WHERE anomaly(requests) > 4 KEY (path) EVERY '1 minute'", "0A000", &["EVERY"]),
        ("ON errors WHERE anomaly(requests) OVER (ORDER BY window_start) > 4", "0A000", &["without OVER"]),
        ("ON errors WHERE count(*) > 4", "0A000", &["aggregates"]),
    ] {
        client.fails(&format!("CREATE ALERT a {clauses}")).says(code, texts);
        client
            .fails(&format!("BACKTEST ALERT a {clauses} {TIMES}"))
            .says(code, if clauses.contains("EVERY") { &[] } else { texts });
    }
    // Of a query, too, in which the order is said.
    client.run(
        "CREATE ALERT a ON (SELECT *, anomaly(n) OVER (ORDER BY window_end) AS score FROM ends) WHERE score > 4;
         CREATE ALERT b ON (SELECT * FROM errors WHERE path <> '/x') WHERE anomaly(requests) > 4 KEY (path)",
    );
}

/// A window that is over is over, although its rows stay: also where scores hide which window a row is of.
#[test]
fn scores_in_a_query_of_windows_without_their_end_resolve() {
    let mut server = Server::start();
    let client = server.client();
    let log = create_web(&server, &client);
    client.run(
        "CREATE MATERIALIZED VIEW starts AS SELECT window_start, count(*) AS n FROM TUMBLE(web, ts, INTERVAL '10 seconds') GROUP BY window_start;
         CREATE ALERT a ON starts WHERE anomaly(n) > 6",
    );
    for window in 0..8 {
        write(&log, window * 10, "/a", 200, if window == 6 { 90 } else { 9 + window as usize % 2 });
    }
    write(&log, 90, "/a", 200, 1);
    client.run("FLUSH");
    let expected = ["NULL 2026-01-01 00:01:00+00 firing", "NULL 2026-01-01 00:01:10+00 resolved"];
    until("it to be over", || (live(&client, "a") == expected).then_some(()));
    assert_eq!(rehearsed(&client, "a"), expected);
}

#[test]
fn alerts_come_and_go_beside_others_that_go_on() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run("CREATE ALERT first ON errors WHERE errors > 0 KEY (path) NOTIFY hook ON RESOLVE");
    // In the window that stays open each new one finds what the others have told; none of these tells it again.
    for n in 0..30 {
        write(&log, 1, &format!("/{n}"), 500, 1);
        client.run(&format!("CREATE ALERT a{n} ON errors WHERE errors > 0 KEY (path) NOTIFY hook ON RESOLVE"));
        if n % 3 == 2 {
            client.run(&format!("DROP ALERT a{}", n - 1));
        }
    }
    client.run("FLUSH");
    let left = 1 + 20;
    let firing = "SELECT count(*) FROM logweir.alerts WHERE state = 'firing'";
    until("all to fire", || (client.number(firing) == 30 * left).then_some(()));
    client.run("ACKNOWLEDGE a29 MATCH (path = '/3')");
    assert_eq!(client.one("SELECT name, key FROM logweir.alerts WHERE acknowledged"), "a29 path=/3");
    let twice =
        "SELECT name, key FROM logweir.alert_history WHERE to_state = 'firing' GROUP BY name, key HAVING count(*) > 1";
    assert_eq!(client.rows(twice).len(), 0);
    write(&log, 100, "/end", 200, 1);
    let over = "SELECT count(*) FROM logweir.alerts WHERE state = 'resolved'";
    until("all to be over", || (client.number(over) == 30 * left).then_some(()));
    assert_eq!(client.rows(twice).len(), 0);
    until("all to be told", || {
        let waits = "SELECT count(*) FROM logweir.notifications WHERE ended IS NULL";
        (client.number(waits) == 0).then_some(())
    });
    for n in 0..30 {
        assert!(count(&receiver, "firing", &format!("/{n}")) >= left as usize, "/{n}");
    }
    assert_eq!(
        told(&receiver).iter().filter(|(status, ..)| status == "firing").count(),
        told(&receiver).iter().filter(|(status, ..)| status == "resolved").count() + dropped(&client),
    );
    client.run("DROP MATERIALIZED VIEW errors CASCADE");
    assert_eq!(states(&client), Vec::<String>::new());
}

/// Firings of alerts that were dropped before they were over.
fn dropped(client: &Client) -> usize {
    let gone = "SELECT count(*) FROM logweir.alert_history h WHERE to_state = 'firing'
                AND NOT EXISTS (SELECT 1 FROM logweir.alerts a WHERE a.name = h.name)";
    client.number(gone) as usize
}

#[test]
fn messages_to_a_dropped_notifier_are_given_up() {
    let mut server = Server::prepare();
    server.expect_log("a notifier cannot tell");
    server.again();
    let receiver = Receiver::start(|_| (200, ""));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    receiver.go_down();
    client.run("CREATE ALERT bad ON errors WHERE errors > 0 KEY (path) NOTIFY hook");
    lines::append(&log, (0..5).map(|n| super::line(1, &format!("/{n}"), 500)).collect::<String>());
    let waiting = "SELECT count(*) FROM logweir.notifications WHERE ended IS NULL";
    until("messages to wait", || (client.number(waiting) == 5).then_some(()));
    client.run("DROP NOTIFIER hook CASCADE");
    assert_eq!(client.number(waiting), 0);
    assert_eq!(client.one("SELECT DISTINCT last_error FROM logweir.notifications"), "the notifier was dropped");
}
