//! The doors as a whole, in this process: what each protocol makes of its sample, of damaged samples and of noise.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::config::Config;
use crate::engine::Engine;
use crate::sql::{self, Session};
use crate::task::Compute;
use crate::time::Clock;

/// An engine with a stream for each protocol's default, and one of text.
async fn engine(dir: &std::path::Path) -> Arc<Engine> {
    let config = Config { data_dir: Some(dir.to_path_buf()), ..Config::default() };
    let engine = sql::open(config, Clock::manual(1_767_225_600_000_000)).await.expect("an engine");
    let session = Session::new(Arc::clone(&engine));
    for name in ["elasticsearch", "otlp", "loki"] {
        session.run_text(&format!("CREATE TABLE {name} FORMAT JSON")).await.expect("a stream");
    }
    session.run_text("CREATE TABLE \"lines\" FORMAT REGEX (pattern = '(?P<all>.*)')").await.expect("a stream");
    engine
}

fn call(content_type: &str, body: Vec<u8>) -> Call {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("a header"));
    Call {
        method: Method::POST,
        segment: None,
        query: Vec::new(),
        headers,
        body,
        taken: body::Room::default().begin(),
        notes: Notes::default(),
    }
}

/// What a protocol sorts from a body: the frames of each batch.
fn sorted(
    engine: &Arc<Engine>,
    protocol: &Protocol,
    named: Option<&str>,
    kind: &str,
    body: &[u8],
) -> Result<Vec<String>> {
    let mut intake = Intake::new(engine, named.map(str::to_string));
    let mut call = call(kind, body.to_vec());
    (protocol.receive)(&mut call, &mut intake)?;
    let frames = intake.batches.into_iter().map(intake::Batch::into_frames);
    Ok(frames
        .flat_map(|frames| frames.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect::<Vec<_>>())
        .collect())
}

#[tokio::test]
async fn samples_are_sorted_into_lines() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    for protocol in PROTOCOLS {
        let (kind, body) = (protocol.sample)();
        let named = (protocol.name == "rows").then_some("otlp");
        let lines =
            sorted(&engine, protocol, named, kind, &body).unwrap_or_else(|err| panic!("{}: {err}", protocol.name));
        let wanted: &[&str] = match protocol.name {
            "rows" => &["{\"ts\":1,\"n\":1}", "{\"ts\":2,\"n\":2}"],
            "elasticsearch" => &["{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"message\":\"x\"}"],
            "otlp" => &[concat!(
                "{\"timestamp\":\"2026-01-01T00:00:00.000000000Z\",\"severity_number\":9,\"body\":\"started\",",
                "\"service_name\":\"shop\",\"trace_id\":\"5b8efff798038103d269b633813fc60c\",\"attributes\":{\"n\":1},",
                "\"resource\":{\"service.name\":\"shop\"},\"scope\":\"main\"}"
            )],
            "loki" => &[
                "{\"app\":\"shop\",\"trace\":\"1\",\"timestamp\":\"2026-01-01T00:00:00.000000000Z\",\"line\":\"started\"}",
            ],
            other => panic!("no lines are known of {other}"),
        };
        assert_eq!(lines, wanted, "{}", protocol.name);
        // Their streams read them without loss.
        for line in &lines {
            let format = crate::format::build("json", &[], &[]).unwrap();
            assert_eq!(format.parse(&crate::frame::Frames::from_text(line.clone()), 0).malformed, [], "{line}");
        }
        let text = sorted(&engine, protocol, Some("lines"), kind, &body).unwrap();
        let wanted: &[&str] = match protocol.name {
            "rows" => wanted,
            "elasticsearch" => &["x"],
            _ => &["started"],
        };
        assert_eq!(text, wanted, "{}: text", protocol.name);
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn printed_json_becomes_lines() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    let values =
        |body: &str| sorted(&engine, &rows::PROTOCOL, Some("otlp"), "application/json", body.as_bytes()).unwrap();
    assert_eq!(values("[\n {\"a\": \"]\\\"\"},{\"b\":\n1} ]\n"), ["{\"a\": \"]\\\"\"}", "{\"b\": 1}"]);
    assert_eq!(values("{\n\"a\":1\n}\n{\"b\":2}"), ["{ \"a\":1 }", "{\"b\":2}"]);
    assert_eq!(values("{\"a\":1}\n{\"b\":\n{\"c\":3}\n"), ["{\"a\":1}", "{\"b\":", "{\"c\":3}"]);
    assert_eq!(values("[]"), Vec::<String>::new());
    assert_eq!(values("[{\"a\":1},{\"b\": "), ["{\"a\":1}", "{\"b\":"]);
    engine.shutdown().await;
}

/// Whatever the body, nothing panics, and frames are well formed.
#[test]
fn arbitrary_bodies_never_panic() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let engine = runtime.block_on(engine(dir.path()));
    let kinds = ["application/json", "application/x-protobuf", "text/plain"];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..8);
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    let protobuf = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body).unwrap();
    let cases = number_of_cases();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
    let outcome = runner.run(&(noise, edits), |(noise, edits)| {
        for protocol in PROTOCOLS {
            let (kind, sample) = (protocol.sample)();
            let mut damaged = sample;
            for (index, byte, edit) in &edits {
                let at = index.index(damaged.len().max(1)).min(damaged.len().saturating_sub(1));
                match edit {
                    _ if damaged.is_empty() => damaged.push(*byte),
                    0 => damaged[at] = *byte,
                    1 => drop(damaged.remove(at)),
                    _ => damaged.insert(at, *byte),
                }
            }
            let bodies = [(kind, damaged.clone()), ("application/x-protobuf", protobuf(&noise))];
            let bodies = bodies.into_iter().chain(kinds.map(|kind| (kind, noise.clone())));
            for (kind, body) in bodies {
                for named in [None, Some("lines"), Some("otlp")] {
                    let mut intake = Intake::new(&engine, named.map(str::to_string));
                    let mut call = call(kind, body.clone());
                    let done = (protocol.receive)(&mut call, &mut intake);
                    // Every answer can be made, too: to what landed with its first record malformed, and to nothing.
                    let mut batches = Vec::new();
                    for mut batch in intake.batches {
                        let numbers = std::mem::take(&mut batch.numbers);
                        let stream = batch.stream.name.clone();
                        let frames = batch.into_frames();
                        prop_assert_eq!(frames.ends.last().map_or(0, |end| *end as usize), frames.bytes.len());
                        let bad = (!frames.is_empty()).then_some(intake::Malformed { frame: 0, reason: None });
                        let malformed = Some(bad.into_iter().collect());
                        let landed = Ok(intake::Landed { offsets: 0..frames.len() as u64, repeated: false, malformed });
                        batches.push(intake::Delivered { stream, numbers, frames: frames.len(), landed });
                    }
                    let outcome = done.map(|()| Outcome { batches });
                    (protocol.answer)(&call, &outcome);
                    (protocol.answer)(&call, &outcome.map(|_| Outcome { batches: Vec::new() }));
                }
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|err| panic!("{err}"));
    runtime.block_on(engine.shutdown());
}

/// More of them where somebody has the time: `LOGWEIR_FUZZ=100000`.
fn number_of_cases() -> u32 {
    std::env::var("LOGWEIR_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn health_and_metrics() {
    let engine = sql::open(Config::default(), Clock::manual(0)).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let render = || "rows_total 1\n".to_string();
    let compute = Compute::with_workers(1).unwrap();
    let databases = Databases::single(engine, compute);
    let server = tokio::spawn(serve_http(listener, databases, None, None, render, shutdown.clone()));
    let health = get(address, "/health").await;
    assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("{\"status\":\"ok\"}"), "{health}");
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("rows_total 1\n"), "{metrics}");
    let other = get(address, "/other").await;
    assert!(other.starts_with("HTTP/1.1 404") && other.contains("/v1/streams/NAME/rows"), "{other}");
    shutdown.cancel();
    server.await.unwrap().unwrap();
}

#[test]
fn names_are_unique_and_all_is_documented() {
    for (i, protocol) in PROTOCOLS.iter().enumerate() {
        assert!(PROTOCOLS[..i].iter().all(|other| other.name != protocol.name && other.paths != protocol.paths));
        assert!(protocol.summary.len() > 10 && !protocol.paths.is_empty(), "{}", protocol.name);
    }
}
