//! The ready-made alerts of `queries/alerts/`: silent on a quiet hour of a made-up site, and each fires when what it asks
//! for happens, live and in a rehearsal.

use std::collections::BTreeSet;
use std::fmt::Write;

use logweir::generate::{Player, Scenario};
use logweir::time::{MICROS_PER_SECOND, Micros};

use super::until;
use crate::lines::{self, START};
use crate::server::{Client, Server};
use crate::tidy;

/// A quiet hour, then two in which things go wrong at these minutes.
const QUIET: i64 = 60;
const FAILS: i64 = 65;
const FALLS: i64 = 75;
const GUESSES: i64 = 85;
const SCANS: i64 = 100;
const FLOODS: i64 = 115;
const STOPS: i64 = 125;
const END: i64 = 140;

const GUESSER: &str = "198.51.100.7";
const SCANNER: &str = "198.51.100.8";

/// What each alert is to find, as it is shown in `logweir.alerts`, and from which minute on it may.
const EXPECTED: &[(&str, &str, i64)] = &[
    ("access_5xx_rate", "NULL", FAILS),
    ("access_traffic_drop", "NULL", FALLS),
    ("access_password_guessing", "client=198.51.100.7", GUESSES),
    ("access_scanning", "client=198.51.100.8", SCANS),
    ("error_flood", "NULL", FLOODS),
    ("site_down", "url=https://shop.example.com/", FAILS),
    ("host_disk_full", "host=web-1, instance=/var", FALLS),
];

/// The logs of the site: access, errors, checks, metrics.
#[derive(Default)]
struct Logs([String; 4]);

fn scenario() -> Scenario {
    Scenario::parse(&format!(
        "rate = 20\njitter = 0.2\nday = 'evening'\nclients = {{ count = 3000 }}
         episodes = [{{ kind = 'errors', at = '{FAILS} minutes', length = '4 minutes', size = 0.3 }},
                     {{ kind = 'drop', at = '{FALLS} minutes', length = '5 minutes', size = 0.1 }},
                     {{ kind = 'silence', at = '{STOPS} minutes', length = '10 minutes' }}]"
    ))
    .expect("it is a scenario")
}

/// All that is logged from one minute to another, second by second.
fn play(player: &mut Player, minutes: std::ops::Range<i64>) -> Logs {
    let mut logs = Logs::default();
    for second in minutes.start * 60..minutes.end * 60 {
        let (mut access, mut errors) = (Vec::new(), Vec::new());
        let until = (START + second) * MICROS_PER_SECOND + MICROS_PER_SECOND - 1;
        player.fill(until, &mut access, usize::MAX, &mut Some(&mut errors));
        let [all_access, all_errors, checks, metrics] = &mut logs.0;
        all_access.push_str(&String::from_utf8(access).expect("it is text"));
        all_errors.push_str(&String::from_utf8(errors).expect("it is text"));
        let (minute, time) = (second / 60, lines::clf(START + second));
        let during = |from: i64, length: i64| (from..from + length).contains(&minute);
        if during(GUESSES, 5) && second % 3 == 0 {
            let user = ["root", "admin", "ann"][second as usize % 7 % 3];
            writeln!(all_access, "{GUESSER} - {user} [{time}] \"POST /login HTTP/1.1\" 401 381 \"-\" \"curl/8.0\"")
                .expect("a String");
        }
        if during(SCANS, 3) {
            writeln!(all_access, "{SCANNER} - - [{time}] \"GET /x{second}.php HTTP/1.1\" 404 196 \"-\" \"scan/1\"")
                .expect("a String");
        }
        if during(FLOODS, 2) {
            let time = chrono::DateTime::from_timestamp(START + second, 0).expect("an ordinary time");
            let time = time.format("%a %b %d %H:%M:%S.000000 %Y");
            for n in 0..40 {
                writeln!(all_errors, "[{time}] [proxy:error] [pid 7:tid 8] AH00898: worker {n} is gone")
                    .expect("a String");
            }
        }
        if second % 10 == 0 {
            let time = chrono::DateTime::from_timestamp(START + second, 0).expect("an ordinary time");
            let time = time.format("%Y-%m-%dT%H:%M:%SZ");
            for site in ["www", "shop"] {
                // One lost request is no outage.
                let fails = site == "shop" && (during(FAILS, 3) || second % 600 == 0);
                let (ok, status, error) = if fails { (false, 0, "timed out") } else { (true, 200, "") };
                let row = serde_json::json!({
                    "ts": time.to_string(), "url": format!("https://{site}.example.com/"), "ok": ok, "status": status,
                    "latency_ms": 41.5, "bytes": 1256, "error": error,
                });
                writeln!(checks, "{row}").expect("a String");
            }
            for (instance, value) in [("/", 55.0), ("/var", if during(FALLS, 10) { 93.5 } else { 89.0 })] {
                let row = serde_json::json!({
                    "ts": time.to_string(), "host": "web-1", "metric": "disk_used_percent", "instance": instance, "value": value,
                });
                writeln!(metrics, "{row}").expect("a String");
            }
        }
    }
    logs
}

fn names() -> Vec<String> {
    tidy::alerts().iter().map(|path| path.file_stem().expect("it has a name").to_string_lossy().into()).collect()
}

fn create(server: &mut Server) -> Client {
    let client = server.client();
    for (stream, columns, format) in [
        ("access", "*", "COMBINED"),
        ("errors", "*", "APACHE_ERROR"),
        (
            "checks",
            "ts timestamptz, url text, ok boolean, status int, latency_ms double, bytes bigint, error text",
            "JSON",
        ),
        ("metrics", "ts timestamptz, host text, metric text, instance text, value double", "JSON"),
    ] {
        let path = server.log(&format!("{stream}.log"));
        lines::append(&path, "");
        client.run(&format!(
            "CREATE TABLE {stream} ({columns}, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
             WITH (connector = 'file', path = '{}', idle_timeout = '1 hour') FORMAT {format}",
            path.display()
        ));
    }
    for path in tidy::alerts() {
        client.run(&std::fs::read_to_string(&path).expect("the file is readable"));
    }
    client
}

fn write(server: &Server, client: &Client, logs: &Logs) {
    for (stream, text) in ["access", "errors", "checks", "metrics"].iter().zip(&logs.0) {
        lines::append(&server.log(&format!("{stream}.log")), text);
    }
    client.run("FLUSH");
}

/// A moment of the log as SQL.
fn moment(minute: i64) -> String {
    let time = chrono::DateTime::from_timestamp(START + minute * 60, 0).expect("an ordinary time");
    format!("'{}'", time.format("%Y-%m-%dT%H:%M:%SZ"))
}

#[test]
fn each_fires_when_it_should_and_is_silent_otherwise() {
    let mut server = Server::start();
    let client = create(&mut server);
    let names = names();
    assert!(names.len() >= 8, "{names:?}");
    let begun: Micros = START * MICROS_PER_SECOND;
    let mut player = Player::new(scenario(), 20, begun);
    write(&server, &client, &play(&mut player, 0..QUIET));
    // Live, and as if they had been there from the beginning.
    let fired = "SELECT name, key, at FROM logweir.alert_history WHERE to_state = 'firing'";
    let rehearse = |name: &str, from: i64, to: i64| {
        client.rows(&format!("BACKTEST ALERT {name} FROM {} TO {}", moment(from), moment(to)))
    };
    // What comes is judged in the order of its streams: one that is created behind it has seen it, too.
    for name in &names {
        assert_eq!(rehearse(name, 0, QUIET), Vec::<Vec<Option<String>>>::new(), "{name} in a quiet hour");
    }
    write(&server, &client, &play(&mut player, QUIET..END));
    for (name, key, from) in EXPECTED {
        let key = if *key == "NULL" { "key IS NULL".to_string() } else { format!("key = '{key}'") };
        let found = format!(
            "SELECT at FROM logweir.alert_history WHERE name = '{name}' AND {key} AND to_state = 'firing'
             AND at >= {} AND at < {}",
            moment(from - 10),
            moment(from + 12)
        );
        until(&format!("{name} to fire"), || client.rows(&found).first().cloned());
        let rehearsed = rehearse(name, *from - 10, from + 12);
        assert!(!rehearsed.is_empty(), "{name} in a rehearsal");
    }
    // It is by the clock, which a rehearsal takes from the lines.
    assert_eq!(rehearse("access_silent", STOPS - 5, END).len(), 1);
    // None of them fired for anything else.
    let expected: BTreeSet<(&str, &str)> = EXPECTED.iter().map(|(name, key, _)| (*name, *key)).collect();
    for row in client.rows(fired) {
        let text = |i: usize| row[i].clone().unwrap_or_else(|| "NULL".to_string());
        let (name, key, at) = (text(0), text(1), text(2));
        assert!(expected.contains(&(name.as_str(), key.as_str())), "{name} fired for {key} at {at}");
    }
}
