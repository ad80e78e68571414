//! Reports: what is sent of real logs by mail and webhook, kills between due and sent, downtime, queries that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use logweir::time::{MICROS_PER_SECOND, Micros};
use rand::RngExt;
use serde_json::Value;

use crate::alerts::mail::MailServer;
use crate::lines::{self, START};
use crate::local::{self, Local};
use crate::server::{Client, Server, data};
use crate::sinks::receiver::Receiver;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

const HOUR: Micros = 3600 * MICROS_PER_SECOND;

#[track_caller]
fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The reports that a receiver has taken, each once by its id.
fn reports(receiver: &Receiver) -> Vec<Value> {
    let mut ids = BTreeSet::new();
    let all = receiver.accepted();
    let parsed = all.iter().map(|request| serde_json::from_str::<Value>(&request.body).expect("it is JSON"));
    parsed.filter(|report| ids.insert(report["id"].to_string())).collect()
}

/// A text of a mail as it was before `=` stood for what does not go through (RFC 2045, quoted-printable).
fn unquoted(mail: &str) -> String {
    let mail = mail.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut rest = mail.as_bytes();
    while let [first, behind @ ..] = rest {
        let code = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| *first == b'=') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The ready-made reports, over real logs, and one over the alerts themselves.
#[test]
fn the_ready_made_report_says_what_the_logs_say() {
    let Some(data) = data() else { return };
    let (mut server, receiver, mails) = (Server::start(), Receiver::start(|_| (200, "")), MailServer::start());
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}', mode = 'once') FORMAT COMBINED;
         CREATE NOTIFIER hook WITH (type = 'webhook', url = '{}');
         CREATE NOTIFIER chat WITH (type = 'slack', url = 'http://{}/chat');
         CREATE NOTIFIER lines WITH (type = 'log');
         CREATE NOTIFIER ops WITH (type = 'email', to = 'ops@example.org', from = 'logweir@example.org',
                                   host = '127.0.0.1', port = {}, tls = 'none')",
        data.join("access/apache_combined_10k.log").display(),
        receiver.url(),
        receiver.address,
        mails.address.port(),
    ));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/reports/access_report.sql");
    let text = std::fs::read_to_string(file).expect("the repository has it");
    client.run(&text.replace("NOTIFY ops", "NOTIFY ops, hook, chat, lines"));
    client.run("SEND REPORT access_report AT '2015-05-20T07:00:00Z'");
    let message = until("the webhook", || {
        let all = reports(&receiver);
        all.into_iter().find(|message| message.get("sections").is_some())
    });
    assert_eq!(
        (message["report"].as_str(), message["status"].as_str(), message["late"].as_bool()),
        (Some("access_report"), Some("report"), Some(false))
    );
    assert_eq!(
        (message["period_start"].as_str(), message["previous_start"].as_str()),
        (Some("2015-05-19T07:00:00Z"), Some("2015-05-18T07:00:00Z"))
    );
    let count = |from: u32| {
        let (from, to) = (format!("2015-05-{from}T07:00:00Z"), format!("2015-05-{}T07:00:00Z", from + 1));
        client.number(&format!("SELECT count(*) FROM access WHERE ts >= '{from}' AND ts < '{to}'"))
    };
    let totals = &message["sections"][0];
    assert_eq!((totals["title"].as_str(), totals["error"].is_null()), (Some("In total"), true));
    let requests = totals["rows"][0]["requests"].as_i64().expect("it is a number");
    assert_eq!((requests, totals["previous"][0]["requests"].as_i64()), (count(19), Some(count(18))));
    let hours = message["sections"][1]["rows"].as_array().expect("it has rows");
    assert_eq!(hours.len(), 24);
    assert_eq!(hours.iter().filter_map(|hour| hour["requests"].as_i64()).sum::<i64>(), requests);
    for (at, rows) in [(2, 10), (3, 10)] {
        assert_eq!(message["sections"][at]["rows"].as_array().map(Vec::len), Some(rows));
    }
    let chat = until("the chat", || receiver.accepted().into_iter().find(|request| request.path == "/chat"));
    let chat: Value = serde_json::from_str(&chat.body).expect("it is JSON");
    assert_eq!(chat["attachments"][0]["title"], "In total");
    let mail = until("the mail", || mails.mails().pop());
    let words = unquoted(&mail);
    let grouped = format!("{},{:03}", requests / 1000, requests % 1000);
    for part in [
        "Content-Type: text/plain",
        "Content-Type: text/html",
        "Content-ID: <chart-1>",
        "Content-ID: <chart-2>",
        "In total",
        &format!(">{grouped}<"),
        "Who asked most",
        "What failed most",
        "2015-05-19 07:00 – 2015-05-20 07:00 UTC",
    ] {
        assert!(words.contains(part), "no {part} in: {words}");
    }
    let sent = "SELECT count(*) FROM logweir.notifications WHERE state = 'sent' AND alert = 'access_report'";
    until("all to be noted", || (client.number(sent) == 4).then_some(()));
    let id = client.one("SELECT id FROM logweir.notifications WHERE notifier = 'ops'");
    assert!(mail.contains(&format!("Message-ID: <{id}@example.org>")), "{mail}");
    assert_eq!(
        client.one("SELECT every, notify, late, missed FROM logweir.reports"),
        "1 day at 07:00 ops, hook, chat, lines f 0"
    );
    assert_eq!(
        client.one("SELECT last_sent IS NOT NULL, last_error, next_due > now() FROM logweir.reports"),
        "t NULL t"
    );
    assert!(server.has_logged("[REPORT] access_report: 2015-05-19 07:00"));
}

/// Sends a report each second to a slow receiver while the server is killed again and again: each moment is told once, or said to
/// have been left out.
#[test]
fn killed_between_due_and_sent() {
    let mut server = Server::prepare();
    server.expect_log("a notifier cannot tell");
    server.again();
    let receiver = Receiver::start(|_| {
        std::thread::sleep(Duration::from_millis(rand::random_range(0..400)));
        (200, "")
    });
    let client = server.client();
    client.run(&format!(
        "CREATE NOTIFIER hook WITH (type = 'webhook', url = '{}', retry_max = '300ms');
         CREATE REPORT each EVERY '1 second' AS SELECT period_start() AS t, 7 AS n NOTIFY hook",
        receiver.url()
    ));
    until("the first", || (!reports(&receiver).is_empty()).then_some(()));
    let mut random = rand::rng();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(random.random_range(700..1700)));
        server.kill();
        // Some moments pass while nothing runs.
        std::thread::sleep(Duration::from_millis(random.random_range(0..2500)));
        server.again();
    }
    let client = server.client();
    let before = reports(&receiver).len();
    until("some more", || (reports(&receiver).len() > before + 3).then_some(()));
    client.run("DROP REPORT each");
    until("nothing to wait", || {
        (client.number("SELECT count(*) FROM logweir.notifications WHERE ended IS NULL") == 0).then_some(())
    });
    let seconds = |text: &Value| {
        let time = chrono::DateTime::parse_from_rfc3339(text.as_str().expect("it is a text")).expect("it is a time");
        time.timestamp()
    };
    let mut ends: BTreeMap<i64, (String, u64)> = BTreeMap::new();
    for report in reports(&receiver) {
        let (end, id) = (seconds(&report["period_end"]), report["id"].to_string());
        assert_eq!(end - seconds(&report["period_start"]), 1);
        let missed = report["missed"].as_u64().expect("it is a number");
        assert_eq!(ends.insert(end, (id, missed)), None, "one moment under two ids");
    }
    let ends: Vec<(i64, u64)> = ends.into_iter().map(|(end, (_, missed))| (end, missed)).collect();
    for pair in ends.windows(2) {
        let ([(before, _), (end, missed)], missing) = ([pair[0], pair[1]], pair[1].0 - pair[0].0 - 1);
        assert_eq!(missing as u64, missed, "between {before} and {end}");
    }
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    let mut repeated = 0;
    for request in receiver.accepted() {
        if let Some(before) = bodies.insert(request.key().to_string(), request.body.clone()) {
            assert_eq!(before, request.body);
            repeated += 1;
        }
    }
    let missed: u64 = ends.iter().map(|(_, missed)| missed).sum();
    println!("{} reports, {repeated} of them twice, {missed} left out by 6 kills", ends.len());
}

/// The engine in this process, with a clock that stands at the beginning of the made-up logs.
fn local(receiver: &Receiver) -> (Local, Client) {
    let mut local = Local::start(START * MICROS_PER_SECOND + HOUR / 2);
    let path = local.log("access.log");
    lines::append(&path, (0..20).map(lines::numbered).collect::<String>());
    let client = Client::connect(&local.address());
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED;
         CREATE NOTIFIER hook WITH (type = 'webhook', url = '{}'); FLUSH",
        path.display(),
        receiver.url()
    ));
    (local, client)
}

#[test]
fn what_was_missed_while_nothing_ran_is_made_up_for_once_and_late() {
    let _turn = local::turn();
    let receiver = Receiver::start(|_| (200, ""));
    let (mut local, client) = local(&receiver);
    client.run(
        "CREATE REPORT hourly EVERY '1 hour' AS SELECT count(*) AS requests FROM access
         WHERE ts >= period_start() AND ts < period_end() NOTIFY hook",
    );
    assert_eq!(
        client.one("SELECT next_due, last_due, last_sent, late FROM logweir.reports"),
        "2026-01-01 01:00:00+00 2026-01-01 00:00:00+00 NULL f"
    );
    local.turn_clock(START * MICROS_PER_SECOND + HOUR).expect("the engine runs");
    let first = until("the first", || reports(&receiver).pop());
    assert_eq!(first["sections"][0]["rows"][0]["requests"], 20, "20 lines stand at its beginning");
    assert_eq!((first["late"].as_bool(), first["remarks"].as_array().map(Vec::len)), (Some(false), Some(0)));
    assert_eq!(first["title"], "[REPORT] hourly: 2026-01-01 00:00–01:00 UTC");
    until("it to be noted", || (client.one("SELECT last_sent IS NOT NULL FROM logweir.reports") == "t").then_some(()));
    drop(client);
    local.stop();
    local.set_clock(START * MICROS_PER_SECOND + 5 * HOUR + HOUR / 2);
    local.open();
    let late = until("the late one", || reports(&receiver).into_iter().nth(1));
    assert_eq!(
        (late["period_start"].as_str(), late["late"].as_bool(), late["missed"].as_u64()),
        (Some("2026-01-01T04:00:00Z"), Some(true), Some(3))
    );
    let remarks = late["remarks"].to_string();
    assert!(remarks.contains("due at 2026-01-01 05:00") && remarks.contains("3 reports before it"), "{remarks}");
    let client = Client::connect(&local.address());
    assert_eq!(
        client.one("SELECT next_due, last_due, late, missed FROM logweir.reports"),
        "2026-01-01 06:00:00+00 2026-01-01 05:00:00+00 t 3"
    );
    // What was left out can be had.
    client.run("SEND REPORT hourly AT '2026-01-01T01:00:00Z'");
    let again = until("it again", || reports(&receiver).into_iter().nth(2));
    assert_eq!((&again["sections"], &again["late"]), (&first["sections"], &first["late"]));
    assert_ne!(again["id"], first["id"]);
    // The next is in time, and nothing was sent twice.
    local.turn_clock(START * MICROS_PER_SECOND + 6 * HOUR).expect("the engine runs");
    let next = until("the next", || reports(&receiver).into_iter().nth(3));
    assert_eq!((next["late"].as_bool(), next["missed"].as_u64()), (Some(false), Some(0)));
    // A clock that is put back by much goes on from there.
    local.set_clock(START * MICROS_PER_SECOND + HOUR / 2);
    until("the schedule to follow", || {
        (client.one("SELECT next_due FROM logweir.reports") == "2026-01-01 01:00:00+00").then_some(())
    });
}

#[test]
fn a_query_that_fails_is_said_in_the_report() {
    let _turn = local::turn();
    let receiver = Receiver::start(|_| (200, ""));
    let (mut local, client) = local(&receiver);
    local.expect_log("a query of a report failed");
    client.run(
        "CREATE MATERIALIZED VIEW seconds AS SELECT window_start, count(*) AS n
         FROM TUMBLE(access, ts, INTERVAL '1 second') GROUP BY window_start;
         CREATE REPORT r EVERY '1 day' AS (SELECT sum(n) AS n FROM seconds) AS good,
         (SELECT 1 / (n - 10) AS x FROM seconds) AS \"bad one\" NOTIFY hook",
    );
    client.run("SEND REPORT r");
    let report = until("the report", || reports(&receiver).pop());
    assert_eq!((report["status"].as_str(), report["sections"][0]["rows"][0]["n"].as_i64()), (Some("error"), Some(20)));
    assert!(report["sections"][0]["previous"].is_null(), "it asks for no period");
    let error = report["sections"][1]["error"].as_str().unwrap_or_default().to_lowercase();
    assert!(error.contains("zero"), "{report}");
    assert!(report["title"].as_str().is_some_and(|title| title.ends_with("(1 of 2 queries failed)")), "{report}");
    let said = client.one("SELECT last_error FROM logweir.reports");
    assert!(said.starts_with("bad one: ") && said.to_lowercase().contains("zero"), "{said}");
    client.fails("DROP MATERIALIZED VIEW seconds").says("2BP01", &["report \"r\""]);
    client.fails("DROP NOTIFIER hook").says("2BP01", &["report \"r\""]);
    client.run("DROP MATERIALIZED VIEW seconds CASCADE");
    assert_eq!(client.rows("SHOW REPORTS").len(), 0);
    drop(client);
    local.restart();
}
