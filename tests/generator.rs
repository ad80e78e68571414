//! `logweir gen` with scenarios: each output against a real server, whose counts must be those of the truth; and the source
//! `datagen`, killed in the middle.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::{Client, LOGWEIR, Server, signal, wait};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ten minutes in which a bit of everything happens, about 20,000 lines.
const SCENARIO: &str = "
    rate = 30
    jitter = 0.2
    duration = '10 minutes'
    malformed = 0.01
    late = { share = 0.02, by = ['20 seconds', '1 minute'] }
    clients = { count = 500, choice = 'binomial' }
    status = { 200 = 0.95, 404 = 0.04, 500 = 0.01 }
    messages = [{ name = 'heartbeat', every = '5 s', texts = ['HEAD /health 200'] }]
    episodes = [{ kind = 'errors', at = '2 minutes', length = '1 minute', size = 0.6, status = 503 },
                { kind = 'peak', at = '4 minutes', length = '30 s', size = 4 },
                { kind = 'silence', at = '6 minutes', length = '2 minutes' }]";

/// Runs a scenario, which must succeed; gives what is true of it.
#[track_caller]
fn play(folder: &Path, scenario: &str, arguments: &[&str]) -> Value {
    let (file, truth) = (folder.join("scenario.toml"), folder.join("truth.json"));
    std::fs::write(&file, scenario).expect("the folder is there");
    let output = Command::new(LOGWEIR)
        .args(["gen", "--seed", "11", "--scenario"])
        .arg(&file)
        .arg("--truth")
        .arg(&truth)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(&truth).expect("it is written")).expect("it is JSON")
}

fn number(truth: &Value, name: &str) -> i64 {
    truth[name].as_i64().unwrap_or_else(|| panic!("no {name} in {truth}"))
}

/// What the stream `access` has is what the truth says.
#[track_caller]
fn compare(client: &Client, truth: &Value) {
    client.run("FLUSH");
    let (lines, malformed) = (number(truth, "lines"), number(truth, "malformed"));
    assert!(lines > 15_000 && malformed > 100 && number(truth, "late") > 200, "{truth}");
    assert_eq!(client.number("SELECT count(*) FROM access"), lines - malformed);
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), malformed);
    assert_eq!(client.number("SELECT count(*) FROM access__late"), number(truth, "late"));
    let statuses = truth["status"].as_object().expect("a table");
    let found = client.sorted("SELECT status, count(*) FROM access GROUP BY 1");
    let expected: Vec<String> = statuses.iter().map(|(status, lines)| format!("{status} {lines}")).collect();
    assert_eq!(found, expected);
    assert_eq!(
        client.number("SELECT count(*) FROM access WHERE user_agent = 'logweir-gen/1.0'"),
        number(&truth["messages"], "heartbeat")
    );
}

fn create(server: &mut Server, with: &str) -> Client {
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access (*, WATERMARK FOR ts AS ts - INTERVAL '10 seconds') {with} FORMAT COMBINED"
    ));
    client
}

#[test]
fn files_that_are_rotated_have_what_the_truth_says_and_windows_show_its_episodes() {
    let mut server = Server::start();
    let path = server.log("access.log");
    let client = create(&mut server, &format!("WITH (connector = 'file', path = '{}*')", path.display()));
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let output = path.display().to_string();
    let truth = play(folder.path(), SCENARIO, &["--output", &output, "--rotate", "500 kB"]);
    assert!(path.with_file_name("access.log.4").exists(), "it was rotated");
    client.run("FLUSH");
    // Files of different age are read side by side, so which lines are late is not that of one log.
    let (lines, malformed) = (number(&truth, "lines"), number(&truth, "malformed"));
    assert_eq!(client.number("SELECT count(*) FROM access"), lines - malformed);
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), malformed);
    let failed =
        |condition: &str| client.number(&format!("SELECT count(*) FROM access WHERE status = 503 AND {condition}"));
    let within = "ts >= '2026-01-01 00:02:00+00' AND ts < '2026-01-01 00:03:00+00'";
    let all = failed("true");
    assert_eq!(truth["status"]["503"].as_i64(), Some(all));
    // Those that are late failed then and say that they are older.
    assert!(failed(within) > all * 9 / 10 && all <= number(&truth["episodes"][0], "failed"), "{truth}");
    let in_silence =
        "SELECT count(*) FROM access WHERE ts >= '2026-01-01 00:06:00+00' AND ts < '2026-01-01 00:07:00+00'";
    let late_only = client.number(in_silence);
    assert_eq!(late_only, 0, "late lines are at most a minute late, and the silence is two");
    assert_eq!(truth["episodes"][2]["kind"], "silence");
    assert_eq!(number(&truth["episodes"][2], "lines"), 0);
}

#[test]
fn a_file_is_the_same_in_every_run_and_its_late_lines_are_late() {
    let mut server = Server::start();
    let path = server.log("access.log");
    std::fs::write(&path, "").expect("the folder is there");
    let client = create(&mut server, &format!("WITH (connector = 'file', path = '{}')", path.display()));
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let truth = play(folder.path(), SCENARIO, &["--output", &path.display().to_string()]);
    compare(&client, &truth);
    let again = folder.path().join("again.log");
    assert_eq!(play(folder.path(), SCENARIO, &["--output", &again.display().to_string()]), truth);
    assert_eq!(std::fs::read(&again).expect("it is written"), std::fs::read(&path).expect("it is written"));
}

#[test]
fn over_http() {
    let mut server = Server::start();
    let client = create(&mut server, "");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let url = format!("http://{}/v1/streams/access/rows", server.http());
    let truth = play(folder.path(), SCENARIO, &["--output", &url]);
    compare(&client, &truth);
    let wrong = Command::new(LOGWEIR)
        .args(["gen", "access", "--count", "5", "--output", &format!("http://{}/v1/streams/no/rows", server.http())])
        .output()
        .expect("the binary was built");
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("404"), "{said}");
}

#[test]
fn over_tcp() {
    let mut server = Server::start();
    let client = create(&mut server, "WITH (connector = 'tcp', address = '127.0.0.1:0')");
    let address = client.one("SELECT address FROM logweir.sources");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let truth = play(folder.path(), SCENARIO, &["--output", &format!("tcp://{address}")]);
    compare(&client, &truth);
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it is bound");
    let wrong = Command::new(LOGWEIR).args(["gen", "access", "--output", &format!("tcp://{free}")]).output();
    let wrong = wrong.expect("the binary was built");
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains(&free.to_string()));
}

#[test]
fn over_syslog() {
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE network WITH (connector = 'syslog', address = '127.0.0.1:0') FORMAT SYSLOG");
    let address = client.one("SELECT address FROM logweir.sources");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    // UDP: no more than a socket's buffer holds.
    let truth = play(folder.path(), "lines = 100\nmalformed = 0.1", &["--output", &format!("syslog://{address}")]);
    let begun = Instant::now();
    while client.number("SELECT count(*) FROM network") < 100 {
        assert!(begun.elapsed() < PATIENCE, "datagrams are lost");
        client.run("FLUSH");
    }
    // A line that is spoiled travels as well as any other.
    let whole = client.number("SELECT count(*) FROM network WHERE message LIKE '% HTTP/%'");
    assert_eq!(whole, 100 - number(&truth, "malformed"));
    assert_eq!(client.one("SELECT DISTINCT host FROM network"), "www.example.com");
    let first = client.one("SELECT min(ts) FROM network");
    assert!(first.starts_with("2026-01-01 00:00:00"), "{first}");
}

#[test]
fn over_kafka() {
    let Some(broker) = crate::kafka::broker::Broker::start() else { return };
    broker.create_topic("access", 1);
    let mut server = Server::start();
    let with = format!("WITH (connector = 'kafka', brokers = '{}', topic = 'access')", broker.address());
    let client = create(&mut server, &with);
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let truth = play(folder.path(), SCENARIO, &["--output", &format!("kafka://{}/access", broker.address())]);
    compare(&client, &truth);
}

#[test]
fn an_interruption_writes_the_truth() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let (scenario, log, truth) =
        (folder.path().join("s.toml"), folder.path().join("access.log"), folder.path().join("truth.json"));
    std::fs::write(&scenario, "rate = 1000").expect("the folder is there");
    let mut child = Command::new(LOGWEIR)
        .arg("gen")
        .args([Path::new("--scenario"), &scenario, Path::new("--output"), &log, Path::new("--truth"), &truth])
        .spawn()
        .expect("the binary was built");
    let begun = Instant::now();
    let size = || std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    while size() == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing is written");
        std::thread::yield_now();
    }
    signal(&child, libc::SIGINT);
    assert!(wait(&mut child).success());
    let truth: Value = serde_json::from_slice(&std::fs::read(&truth).expect("it is written")).expect("it is JSON");
    assert_eq!(truth["bytes"].as_u64(), Some(size()));
}

#[test]
fn a_scenario_that_is_wrong_says_where() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, "rate = 5\nepisodes = [{ kind = 'peak', at = '1 s', sise = 3 }]")
        .expect("the folder is there");
    let output = Command::new(LOGWEIR).arg("gen").arg("--scenario").arg(&file).output().expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for text in ["wrong.toml", "\"episodes[0].sise\"; did you mean \"size\"?", "There are: kind, at, every"] {
        assert!(said.contains(text), "no {text} in {said}");
    }
    let example = Command::new(LOGWEIR).args(["gen", "--example"]).output().expect("the binary was built");
    std::fs::write(&file, &example.stdout).expect("the folder is there");
    let output = Command::new(LOGWEIR).args(["gen", "--count", "10", "--scenario"]).arg(&file).output();
    let output = output.expect("the binary was built");
    assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), 11, "ten lines and the end");
}

#[test]
fn datagen_gives_each_line_once_whatever_is_killed_when() {
    let mut server = Server::start();
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let truth = play(folder.path(), SCENARIO, &["--output", "/dev/null"]);
    let scenario = SCENARIO.replace('\'', "''");
    // Two minutes of its time each second, so that it is killed in the middle.
    let with = format!("WITH (connector = 'datagen', scenario = '{scenario}', seed = 11, speed = 120)");
    let mut client = create(&mut server, &with);
    for part in 1..=3 {
        let begun = Instant::now();
        while client.number("SELECT next_offset FROM logweir.streams") < number(&truth, "lines") * part / 4 {
            assert!(begun.elapsed() < PATIENCE, "no lines come");
        }
        server.kill();
        server.again();
        client = server.client();
    }
    let begun = Instant::now();
    while client.one("SELECT state FROM logweir.sources") != "ended" {
        assert!(begun.elapsed() < PATIENCE, "it does not end");
    }
    compare(&client, &truth);
}

#[test]
fn datagen_says_what_is_wrong() {
    let mut server = Server::start();
    let client = server.client();
    client
        .fails("CREATE TABLE x WITH (connector = 'datagen', scenario = 'rate = -3') FORMAT COMBINED")
        .says("22023", &["option \"scenario\"", "\"rate\" takes a number from 0.00001 to 10000000, not -3"]);
    client
        .fails("CREATE TABLE x WITH (connector = 'datagen', scenario = '/no/where.toml') FORMAT COMBINED")
        .says("58P01", &["where.toml"]);
    client.run(
        "CREATE TABLE errors WITH (connector = 'datagen', log = 'error', lines = 500, speed = 0) FORMAT APACHE_ERROR",
    );
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*), count(level) FROM errors"), "500 500");
    assert_eq!(client.number("SELECT count(*) FROM errors__malformed"), 0);
}

#[test]
fn web_sites_and_the_machine_are_watched() {
    let mut server = Server::start();
    let client = server.client();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it is bound");
    let (good, missing) = (format!("http://{}/health", server.http()), format!("http://{}/nothing", server.http()));
    client.run(&format!(
        "CREATE TABLE up WITH (connector = 'http_check', url = '{good} {missing} http://{free}/', every = '100 ms') FORMAT JSON"
    ));
    client.run("CREATE TABLE host WITH (connector = 'host_metrics', every = '100 ms') FORMAT JSON");
    let until = |what: &str, sql: &str| {
        let begun = Instant::now();
        while client.attempt(sql).map_or(true, |rows| crate::server::line(&rows[0]) == "0") {
            assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        }
    };
    until("an answer", &format!("SELECT count(*) FROM up WHERE url = '{good}' AND ok AND status = 200 AND error = ''"));
    until("a 404", &format!("SELECT count(*) FROM up WHERE url = '{missing}' AND NOT ok AND error = 'status 404'"));
    until("a refusal", "SELECT count(*) FROM up WHERE status = 0 AND error LIKE '%refused%' AND latency_ms >= 0");
    until(
        "a measurement",
        "SELECT count(*) FROM host WHERE metric = 'memory_used_percent' AND value BETWEEN 0 AND 100",
    );
    until("the time between two", "SELECT count(*) FROM host WHERE metric = 'cpu_percent' AND value BETWEEN 0 AND 100");
    client.run(
        "CREATE MATERIALIZED VIEW worst AS SELECT window_start, url, max(latency_ms) AS ms
         FROM TUMBLE(up, ts, INTERVAL '1 minute') GROUP BY window_start, url",
    );
    client.run("FLUSH");
    assert_eq!(client.number("SELECT count(DISTINCT url) FROM worst"), 3);
}

/// What is unusual in the windows of a view is what the generator says it has injected, and nothing else.
#[test]
fn alerts_on_scores_find_the_episodes_of_the_truth() {
    let mut server = Server::start();
    let path = server.log("access.log");
    std::fs::write(&path, "").expect("the folder is there");
    let client = create(&mut server, &format!("WITH (connector = 'file', path = '{}')", path.display()));
    client.run(
        "CREATE MATERIALIZED VIEW minutes AS
         SELECT window_start, window_end, count(*) AS requests, avg((status >= 500)::int) AS error_rate
         FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, window_end FILL ZERO",
    );
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let scenario = "
        rate = 8
        jitter = 0.3
        duration = '2 hours'
        status = { 200 = 0.97, 500 = 0.03 }
        episodes = [{ kind = 'peak', at = '20 minutes', length = '3 minutes', size = 3 },
                    { kind = 'silence', at = '45 minutes', length = '2 minutes' },
                    { kind = 'drop', at = '70 minutes', length = '4 minutes', size = 0.2 },
                    { kind = 'errors', at = '100 minutes', length = '5 minutes', size = 0.5 }]";
    let truth = play(folder.path(), scenario, &["--output", &path.display().to_string()]);
    client.run("FLUSH");
    let unusual = |column: &str| {
        client.sorted(&format!(
            "SELECT to_char(window_start, 'YYYY-MM-DD HH24:MI') FROM minutes
             QUALIFY abs(anomaly({column}, 30) OVER (ORDER BY window_start)) > 8"
        ))
    };
    let injected = |kinds: &[&str]| -> Vec<String> {
        let episodes = truth["episodes"].as_array().expect("a list").iter();
        let of_kind = episodes.filter(|episode| kinds.contains(&episode["kind"].as_str().expect("a text")));
        let minute = |time: &Value| time.as_str().expect("a time")[..16].replace('T', " ");
        let minutes = |episode: &Value| {
            let (start, end) = (minute(&episode["start"]), minute(&episode["end"]));
            let all = (0..120).map(|n| format!("2026-01-01 {:02}:{:02}", n / 60, n % 60));
            all.filter(move |minute| (&start..&end).contains(&minute)).collect::<Vec<_>>()
        };
        of_kind.flat_map(minutes).collect()
    };
    assert_eq!(unusual("requests"), injected(&["peak", "silence", "drop"]));
    assert_eq!(unusual("error_rate"), injected(&["errors"]));
}
