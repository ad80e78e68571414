//! Logs by HTTP: the real program, asked over sockets as curl would, and by real senders of each protocol.
//!
//! Nothing waits here: what an answer says is taken in is durable, and visible to the next query.

mod kills;
mod peers;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::server::Server;

/// Longer than any answer takes; reaching it means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err} in {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.head.lines().filter_map(|line| line.split_once(':'));
        found.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_string()).next()
    }

    /// Fails unless the status is this one and each of `texts` stands in the body.
    #[track_caller]
    pub fn says(&self, status: u16, texts: &[&str]) {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        for text in texts {
            assert!(self.text().contains(text), "no {text:?} in {}", self.text());
        }
    }
}

/// Sends a request; `None` when there was no whole answer.
pub fn attempt(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).ok()?;
    // A body that is refused need not be read.
    let _ = socket.write_all(body);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let answer = Answer { status, head, body: answer[end + 4..].to_vec() };
    // Cut off by a kill.
    let length = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
    length.is_none_or(|length| length == answer.body.len() || method == "HEAD").then_some(answer)
}

#[track_caller]
pub fn send(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    attempt(address, method, path, headers, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

#[track_caller]
pub fn post(address: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    send(address, "POST", path, headers, body.as_ref())
}

pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text).expect("memory takes it");
    out.finish().expect("memory takes it")
}

const COMBINED: &str = "192.0.2.7 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 512 \"-\" \"curl\"\n";

#[test]
fn rows_in_every_encoding_and_framing() {
    let mut server = Server::start();
    let (client, http) = (server.client(), server.http());
    client.run("CREATE TABLE access FORMAT COMBINED; CREATE TABLE events FORMAT JSON");
    client.run(r"CREATE TABLE app FORMAT REGEX (pattern = '^(?P<level>\w+) (?P<text>(?s).*)$')");

    let text = COMBINED.repeat(3);
    let encoded = [
        ("identity", text.clone().into_bytes()),
        ("gzip", gzip(text.as_bytes())),
        ("zstd", zstd::encode_all(text.as_bytes(), 1).unwrap()),
    ];
    for (name, body) in encoded {
        let answer = post(&http, "/v1/streams/access/rows", &[("Content-Encoding", name)], body).json();
        assert_eq!((&answer["rows"], &answer["malformed"]), (&3.into(), &0.into()), "{name}: {answer}");
    }
    assert_eq!(client.number("SELECT count(*) FROM access WHERE status = 200"), 9);

    // What a sender calls its content, and the last line's end, do not matter to lines.
    let lines = "{\"ts\":1,\"n\":1}\n\n{\"ts\":2,\"n\":2}";
    for (i, kind) in
        ["application/x-ndjson", "application/x-www-form-urlencoded", "application/json"].iter().enumerate()
    {
        let answer = post(&http, "/v1/streams/events/rows", &[("Content-Type", kind)], lines).json();
        assert_eq!(answer["offsets"], serde_json::json!([2 * i, 2 * i + 2]), "{kind}: {answer}");
    }
    let printed = "[\n  {\"ts\": 3,\n   \"n\": 3},\n  {\"ts\": 4, \"n\": 4}\n]\n";
    let answer = post(&http, "/rows", &[("Content-Type", "application/json"), ("X-Logweir-Stream", "events")], printed);
    answer.says(200, &["\"rows\":2"]);
    assert_eq!(client.one("SELECT count(*), sum(n) FROM events"), "8 16");

    let records = "ERROR a\n at b\n at c\nINFO d\n";
    post(&http, "/v1/streams/app/rows?framing=multiline&multiline_continue=^%5Cs", &[], records)
        .says(200, &["\"rows\":2"]);
    assert_eq!(client.one("SELECT text FROM app WHERE level = 'ERROR'"), "a\n at b\n at c");
    post(&http, "/v1/streams/app/rows?framing=nul", &[], "WARN x\0WARN y").says(200, &["\"rows\":2"]);
    post(&http, "/v1/streams/app/rows", &[], "").says(200, &["\"rows\":0"]);
    assert_eq!(client.number("SELECT count(*) FROM app"), 4);

    // The sources of a stream show it.
    assert_eq!(client.one("SELECT frames FROM logweir.sources WHERE stream = 'app' AND connector = 'http'"), "4");
}

#[test]
fn what_is_wrong_is_told_and_what_was_kept() {
    let mut server = Server::start();
    let (client, http) = (server.client(), server.http());
    client.run("CREATE TABLE access FORMAT COMBINED; CREATE TABLE events FORMAT JSON");
    client.run("CREATE MATERIALIZED VIEW hits AS SELECT status, count(*) AS n FROM access GROUP BY status");
    let rows = "/v1/streams/access/rows";

    post(&http, "/v1/streams/acess/rows", &[], COMBINED).says(404, &["\\\"acess\\\" does not exist", "access"]);
    post(&http, "/v1/streams/hits/rows", &[], COMBINED).says(400, &["not a stream"]);
    post(&http, "/rows", &[], COMBINED).says(404, &["names no stream", "X-Logweir-Stream"]);
    post(&http, "/v1/stream/access", &[], COMBINED).says(404, &["/v1/streams/NAME/rows"]);
    send(&http, "GET", rows, &[], b"").says(405, &[]);
    post(&http, rows, &[("Content-Encoding", "br")], COMBINED).says(415, &["\\\"br\\\" is not known", "zstd"]);
    post(&http, rows, &[("Content-Encoding", "gzip")], COMBINED)
        .says(400, &["not valid gzip", "Nothing of it was kept"]);
    let cut = &gzip(COMBINED.repeat(100).as_bytes())[..60];
    post(&http, rows, &[("Content-Encoding", "gzip")], cut).says(400, &["Nothing of it was kept"]);
    post(&http, &format!("{rows}?framng=nul"), &[], COMBINED).says(400, &["did you mean \\\"framing\\\"?"]);
    let long = "k".repeat(256);
    post(&http, rows, &[("Idempotency-Key", &long)], COMBINED).says(400, &["1 to 255 bytes"]);
    post(&http, rows, &[("Content-Length", "68000000")], "").says(413, &["larger than 64 MiB"]);
    let bomb = zstd::encode_all(&vec![b'x'; (128 << 20) + 1][..], 1).unwrap();
    post(&http, rows, &[("Content-Encoding", "zstd")], bomb).says(413, &["larger than 128 MiB"]);
    let large = zstd::encode_all(COMBINED.repeat(1_000_000).as_bytes(), 1).unwrap();
    post(&http, rows, &[("Content-Encoding", "zstd")], large).says(413, &["push_bytes", "Nothing of them was kept"]);
    assert_eq!(client.number("SELECT next_offset FROM logweir.streams WHERE name = 'access'"), 0);

    // A malformed line takes no other with it.
    let body = format!("{COMBINED}what?\n{COMBINED}");
    let answer = post(&http, rows, &[], &body);
    answer.says(400, &["record 2: ", "access__malformed", "do not send them again"]);
    assert_eq!((&answer.json()["rows"], &answer.json()["records"][0]["record"]), (&2.into(), &2.into()));
    post(&http, &format!("{rows}?malformed=accept"), &[], &body).says(200, &["\"malformed\":1"]);
    assert_eq!(client.one("SELECT count(*) FROM access"), "4");
    assert_eq!(client.sorted("SELECT raw, source FROM access__malformed"), ["what? http", "what? http"]);
    let answer = post(&http, "/v1/streams/events/rows", &[], "{\"ts\":1}\n\n{\"a\":\n{\"a\":1}\n");
    answer.says(400, &["record 3: not JSON", "record 4: no readable time"]);

    // A line that is too long is kept, cut.
    let answer = post(&http, rows, &[], format!("{COMBINED}{}\n", "x".repeat(2 << 20)));
    answer.says(400, &["record 2: "]);
    assert_eq!(client.number("SELECT max(true_bytes) FROM access__malformed"), 2 << 20);

    // A body that does not come in whole is not there.
    let mut socket = TcpStream::connect(&http).unwrap();
    let head = format!("POST {rows} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{COMBINED}");
    socket.write_all(head.as_bytes()).unwrap();
    drop(socket);
    assert_eq!(client.one("SELECT count(*) FROM access"), "5");
}

#[test]
fn a_batch_under_a_key_counts_once() {
    let mut server = Server::start();
    let (client, http) = (server.client(), server.http());
    client.run("CREATE TABLE access FORMAT COMBINED");
    let first = post(&http, "/v1/streams/access/rows", &[("Idempotency-Key", "a")], COMBINED.repeat(2)).json();
    let again = post(&http, "/v1/streams/access/rows", &[("Idempotency-Key", "\"a\"")], COMBINED.repeat(2)).json();
    assert_eq!((&again["repeated"], &again["offsets"]), (&true.into(), &first["offsets"]));
    let other = post(&http, "/v1/streams/access/rows", &[("Idempotency-Key", "b")], COMBINED).json();
    assert_eq!(other["offsets"], serde_json::json!([2, 3]));
    drop(client);
    server.kill();
    server.again();
    let again = post(&server.http(), "/v1/streams/access/rows", &[("Idempotency-Key", "b")], COMBINED).json();
    assert_eq!((&again["repeated"], &again["offsets"]), (&true.into(), &other["offsets"]));
    assert_eq!(server.client().number("SELECT count(*) FROM access"), 3);
}

#[test]
fn elasticsearch_bulk() {
    let mut server = Server::start();
    let (client, http) = (server.client(), server.http());
    client.run("CREATE TABLE logs FORMAT JSON; CREATE TABLE access FORMAT COMBINED");
    let root = send(&http, "GET", "/", &[], b"");
    assert_eq!(root.header("x-elastic-product").as_deref(), Some("Elasticsearch"));
    assert_eq!(root.json()["version"]["number"], "8.17.0");
    assert_eq!(send(&http, "HEAD", "/", &[], b"").status, 200);
    for (method, path) in [
        ("GET", "/_license"),
        ("GET", "/_xpack?accept_enterprise=true"),
        ("GET", "/_cluster/health"),
        ("HEAD", "/_index_template/filebeat-8.17.0"),
        ("PUT", "/_index_template/filebeat-8.17.0"),
        ("PUT", "/_ilm/policy/filebeat"),
        ("GET", "/v1/streams/logs/_license"),
        ("GET", "/v1/streams/logs"),
        ("GET", "/v1/streams/logs/"),
    ] {
        assert_eq!(send(&http, method, path, &[], b"").status, 200, "{method} {path}");
    }

    let doc = |n: u32| format!("{{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"n\":{n}}}");
    let line = COMBINED.trim_end().replace('"', "\\\"");
    let body = [
        r#"{"create":{"_index":"logs-2026.11.29"}}"#.to_string(),
        doc(1),
        r#"{"index":{"_index":"logs","_id":"x"}}"#.to_string(),
        doc(2),
        r#"{"create":{"_index":"other"}}"#.to_string(),
        doc(3),
        r#"{"create":{"_index":"access"}}"#.to_string(),
        format!("{{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"message\":\"{line}\"}}"),
        r#"{"delete":{"_index":"logs","_id":"x"}}"#.to_string(),
        r#"{"create":{"_index":"logs"}}"#.to_string(),
        "{\"n\":".to_string(),
        r#"{"create":{"_index":"logs"}}"#.to_string(),
        doc(4),
    ]
    .join("\n");
    let answer = post(&http, "/_bulk", &[("Content-Type", "application/x-ndjson")], format!("{body}\n"));
    answer.says(200, &[]);
    let answer = answer.json();
    let statuses: Vec<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let item = item.as_object().unwrap().values().next().unwrap();
            item["status"].as_u64().unwrap()
        })
        .collect();
    assert_eq!((statuses, &answer["errors"]), (vec![201, 201, 404, 201, 400, 400, 201], &true.into()), "{answer}");
    assert_eq!(answer["items"][1]["index"]["_id"], "x");
    assert!(answer["items"][5]["create"]["error"]["reason"].as_str().unwrap().contains("logs__malformed"), "{answer}");
    assert_eq!(client.one("SELECT count(*), sum(n) FROM logs"), "3 7");
    assert_eq!(client.one("SELECT client, bytes FROM access"), "192.0.2.7 512");
    assert_eq!(client.one("SELECT raw FROM logs__malformed"), "{\"n\":");

    // All to no stream: a sender is to say so, and try again.
    let lost = format!("{{\"create\":{{\"_index\":\"log\"}}}}\n{}\n", doc(5));
    post(&http, "/_bulk", &[], &lost).says(404, &["index_not_found_exception", "Did you mean \\\"logs\\\"?"]);
    post(&http, "/v1/streams/logs/_bulk", &[], &lost).says(200, &["\"errors\":false"]);
    post(&http, "/logs/_bulk", &[], format!("{{\"create\":{{}}}}\n{}\n", doc(6))).says(200, &["\"errors\":false"]);
    post(&http, "/_bulk", &[], "{\"create\":{}}\n").says(400, &["line 1", "Nothing of the request was kept"]);
    post(&http, "/_bulk", &[], "nonsense\n{}\n").says(400, &["line 1"]);

    // Documents with ids of their own count once.
    let named = format!("{{\"create\":{{\"_index\":\"logs\",\"_id\":\"7\"}}}}\n{}\n", doc(7));
    post(&http, "/_bulk", &[], &named).says(200, &["\"created\""]);
    post(&http, "/_bulk", &[], &named).says(200, &["\"noop\"", "\"errors\":false"]);
    assert_eq!(client.one("SELECT count(*), sum(n) FROM logs"), "6 25");
}

#[test]
fn opentelemetry_and_loki() {
    let mut server = Server::start();
    let (client, http) = (server.client(), server.http());
    client.run("CREATE TABLE otlp FORMAT JSON; CREATE TABLE loki FORMAT JSON; CREATE TABLE access FORMAT COMBINED");
    let line = COMBINED.trim_end().replace('"', "\\\"");
    let record = format!(
        r#"{{"timeUnixNano":"1767225600000000000","severityText":"WARN","body":{{"stringValue":"{line}"}},
            "attributes":[{{"key":"n","value":{{"intValue":"5"}}}}]}}"#
    );
    let logs = format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"shop"}}}}]}},
            "scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#
    );
    let json = [("Content-Type", "application/json")];
    post(&http, "/v1/logs", &json, &logs).says(200, &["{}"]);
    post(&http, "/v1/streams/access/v1/logs", &json, &logs).says(200, &["{}"]);
    let packed = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    post(&http, "/v1/logs", &packed, gzip(logs.as_bytes())).says(200, &["{}"]);
    let found =
        "SELECT count(*), min(service_name), min(severity_text), min(attributes->>'n'), min(timestamp) FROM otlp";
    assert_eq!(client.one(found), "2 shop WARN 5 2026-01-01 00:00:00+00");
    post(&http, "/v1/logs", &[("Content-Type", "text/plain")], &logs).says(415, &["application/x-protobuf"]);
    post(&http, "/v1/logs", &json, "{\"resourceLogs\":5}").says(400, &["\"code\":3", "Nothing of it was kept"]);
    let broken = post(&http, "/v1/logs", &[("Content-Type", "application/x-protobuf")], [0x0a, 0x05, 1]);
    broken.says(400, &["Nothing of it was kept"]);
    assert_eq!(broken.header("content-type").as_deref(), Some("application/x-protobuf"));
    post(&http, "/v1/streams/nowhere/v1/logs", &json, &logs).says(404, &["\"code\":5"]);

    let push = format!(
        r#"{{"streams":[{{"stream":{{"app":"shop","line":"label"}},
            "values":[["1767225600000000001","{line}"],["1767225600000000002","two",{{"trace":"t"}}]]}}]}}"#
    );
    assert_eq!(post(&http, "/loki/api/v1/push", &json, &push).status, 204);
    let found = "SELECT count(*), min(app), min(line_extracted), max(trace), max(line) FROM loki";
    assert_eq!(client.one(found), "2 shop label t two");
    // In a stream of another format the line is the record; what is none is told, and kept.
    let answer = post(&http, "/v1/streams/access/loki/api/v1/push", &json, &push);
    answer.says(400, &["entry 2: ", "access__malformed"]);
    assert_eq!(client.one("SELECT count(*) FROM access"), "2");
    post(&http, "/loki/api/v1/push", &json, r#"{"streams":[{"values":[["x","y"]]}]}"#).says(400, &["nanoseconds"]);
    post(&http, "/loki/api/v1/push", &[("Content-Type", "application/x-protobuf")], "x").says(400, &["snappy"]);
}

#[test]
fn clients_are_told_to_come_again() {
    let mut server = Server::prepare();
    server.use_arguments(&["--disk-limit", "4 MiB"]);
    server.expect_log("sources pause");
    server.again();
    let (client, http) = (server.client(), server.http());
    client.run("CREATE TABLE access WITH (archive = 'off') FORMAT COMBINED");
    let rows = "/v1/streams/access/rows";

    // Six bodies of 60 MiB are announced and do not come: there is no room for a seventh.
    let hold = |_| {
        let mut socket = TcpStream::connect(&http).unwrap();
        let head =
            format!("POST {rows} HTTP/1.1\r\nHost: x\r\nContent-Length: 62914560\r\nExpect: 100-continue\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        // It reads the body: room has been taken.
        let mut line = [0; 12];
        socket.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"HTTP/1.1 100");
        socket
    };
    let held: Vec<TcpStream> = (0..6).map(hold).collect();
    let answer = post(&http, rows, &[], COMBINED.repeat(400_000));
    answer.says(429, &["Try again"]);
    assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
    drop(held);
    post(&http, rows, &[], COMBINED).says(200, &[]);

    // The disk fills up.
    let mut random = 1u64;
    let mut noise = || -> String {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        format!("{random:016x}")
    };
    let (mut taken, begun) = (1, std::time::Instant::now());
    let full = loop {
        let agent: String = (0..8000).map(|_| noise()).collect();
        let answer = post(&http, rows, &[], COMBINED.replace("curl", &agent));
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(begun.elapsed() < PATIENCE, "the limit is never reached");
        // How much there is is looked at now and then only.
        std::thread::sleep(Duration::from_millis(20));
    };
    full.says(503, &[]);
    assert_eq!(full.header("retry-after").as_deref(), Some("10"), "{full:?}");
    assert_eq!(client.number("SELECT count(*) FROM access"), taken);
}

#[test]
fn a_token_is_asked_for() {
    let mut server = Server::prepare();
    server.use_arguments(&["--http-token", "${ENV:TEST_TOKEN}"]);
    server.use_environment(&[("TEST_TOKEN", "s3cret".to_string())]);
    server.again();
    let (client, http) = (server.client(), server.http());
    client.run("CREATE TABLE access FORMAT COMBINED");
    let rows = "/v1/streams/access/rows";
    let refused = post(&http, rows, &[], COMBINED);
    refused.says(401, &["Bearer"]);
    assert!(refused.header("www-authenticate").is_some());
    post(&http, rows, &[("Authorization", "Bearer wrong")], COMBINED).says(401, &[]);
    send(&http, "GET", "/", &[], b"").says(401, &[]);
    post(&http, rows, &[("Authorization", "Bearer s3cret")], COMBINED).says(200, &[]);
    // user:s3cret
    post(&http, rows, &[("Authorization", "Basic dXNlcjpzM2NyZXQ=")], COMBINED).says(200, &[]);
    assert_eq!(send(&http, "GET", "/health", &[], b"").status, 200);
    assert_eq!(client.number("SELECT count(*) FROM access"), 2);
}
