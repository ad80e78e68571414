//! Real senders: Elastic's and OpenTelemetry's own clients for Python, a client of Loki for each of its encodings, rsyslog.
//!
//! `.ci/run` puts them into `~/.cache/logweir/peers` (Python in `venv`, Node in `node_modules`); `LOGWEIR_PEERS` names
//! another place. A test whose sender is not there passes with a note.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::server::{Server, wait};

fn place() -> PathBuf {
    match std::env::var_os("LOGWEIR_PEERS") {
        Some(place) => place.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/logweir/peers"),
    }
}

/// Runs a script of Python that needs a module; whether it is there.
fn python(module: &str, script: &str, arguments: &[&str]) -> bool {
    let program = place().join("venv/bin/python");
    let import = Command::new(&program).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    if !import.is_ok_and(|status| status.success()) {
        eprintln!("note: skipped, no Python with {module} in {} (set LOGWEIR_PEERS)", place().display());
        return false;
    }
    run(Command::new(program).args(["-W", "ignore", "-c", script]).args(arguments));
    true
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("it was there a moment ago");
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}: {}{}", texts[0], texts[1]);
}

const BULK: &str = r#"
import sys
from elasticsearch import Elasticsearch, helpers
es = Elasticsearch(sys.argv[1], http_compress=True)
assert es.ping() and es.info()["version"]["number"].startswith("8.")
docs = ({"_op_type": "create", "_index": "app-2026.11.29", "@timestamp": "2026-01-01T00:00:00Z", "n": n, "text": "ä" * 50}
        for n in range(5000))
done, errors = helpers.bulk(es, docs, chunk_size=700)
assert (done, errors) == (5000, []), (done, errors)
done, errors = helpers.bulk(es, [{"_index": "nowhere", "n": 1}, {"_index": "app", "n": 1}], raise_on_error=False)
assert done == 0 and [next(iter(e.values()))["status"] for e in errors] == [404, 400], errors
"#;

#[test]
fn elastic_client() {
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE app FORMAT JSON");
    if python("elasticsearch", BULK, &[&format!("http://{}", server.http())]) {
        assert_eq!(
            client.one("SELECT count(*), count(DISTINCT n), sum(n), min(length(text)) FROM app"),
            "5000 5000 12497500 50"
        );
        assert_eq!(client.number("SELECT count(*) FROM app__malformed"), 1);
    }
}

const OTLP: &str = r#"
import logging, sys
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
provider = LoggerProvider(resource=Resource.create({"service.name": "shop", "host.cpus": 2}))
exporter = OTLPLogExporter(endpoint=sys.argv[1], compression=Compression.Gzip)
provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_export_batch_size=300))
log = logging.getLogger("orders")
log.addHandler(LoggingHandler(logger_provider=provider))
log.setLevel(logging.INFO)
for n in range(1000):
    log.warning("order %d", n, extra={"n": n, "paid": n % 2 == 0})
provider.shutdown()
"#;

#[test]
fn opentelemetry_exporter() {
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE orders FORMAT JSON");
    let endpoint = format!("http://{}/v1/streams/orders/v1/logs", server.http());
    if python("opentelemetry.exporter.otlp.proto.http._log_exporter", OTLP, &[&endpoint]) {
        let found = client.one(
            "SELECT count(*), count(DISTINCT body), min(service_name), min(severity_text), min(scope),
                    sum((attributes->>'n')::bigint), min(resource->>'host.cpus') FROM orders",
        );
        assert_eq!(found, "1000 1000 shop WARN orders 499500 2");
        assert_eq!(client.number("SELECT count(*) FROM orders WHERE timestamp > '2026-01-01'"), 1000);
    }
}

const LOKI: &str = r#"
import logging, sys, logging_loki
logging.raiseExceptions = True
handler = logging_loki.LokiHandler(url=sys.argv[1], tags={"app": "shop"}, version="1")
handler.handleError = lambda record: sys.exit("not sent")
log = logging.getLogger("carts")
log.addHandler(handler)
for n in range(50):
    log.error("cart \"%d\"", n, extra={"tags": {"user": "u%d" % (n % 5)}})
"#;

/// Loki's JSON.
#[test]
fn loki_client() {
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE loki FORMAT JSON");
    let url = format!("http://{}/loki/api/v1/push", server.http());
    if python("logging_loki", LOKI, &[&url]) {
        let found =
            "SELECT count(*), count(DISTINCT line), count(DISTINCT \"user\"), min(app), min(severity) FROM loki";
        assert_eq!(client.one(found), "50 50 5 shop error");
    }
}

const WINSTON: &str = r#"
const winston = require("winston"), LokiTransport = require("winston-loki");
const transport = new LokiTransport({
    host: process.argv[1], labels: { app: "shop" }, json: false, interval: 1, format: winston.format.simple(),
    onConnectionError: (err) => { console.error(err); process.exit(1); },
});
const log = winston.createLogger({ transports: [transport] });
for (let n = 0; n < 200; n++) log.info(`visit ${n}`);
transport.flush().then(() => process.exit(0));
"#;

/// Loki's protobuf, packed with snappy.
#[test]
fn winston_loki() {
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE visits FORMAT JSON");
    let modules = place().join("node_modules");
    if !modules.join("winston-loki").is_dir() || Command::new("node").arg("--version").output().is_err() {
        eprintln!("note: skipped, no winston-loki in {} (set LOGWEIR_PEERS)", modules.display());
        return;
    }
    let base = format!("http://{}/v1/streams/visits", server.http());
    run(Command::new("node").args(["-e", WINSTON, &base]).current_dir(place()));
    assert_eq!(
        client.one("SELECT count(*), count(DISTINCT line), min(app), min(level) FROM visits"),
        "200 200 shop info"
    );
}

/// rsyslog's omelasticsearch, in bulk.
#[test]
fn rsyslog() {
    let module = "omelasticsearch.so";
    let folders = ["/usr/lib/x86_64-linux-gnu/rsyslog", "/usr/lib/aarch64-linux-gnu/rsyslog", "/usr/lib/rsyslog"];
    let there = folders.iter().any(|folder| PathBuf::from(folder).join(module).exists());
    if !there || Command::new("rsyslogd").arg("-v").output().is_err() {
        eprintln!("note: skipped, there is no rsyslog with {module}");
        return;
    }
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE syslog FORMAT JSON");
    let (input, config) = (server.log("in.log"), server.log("rsyslog.conf"));
    let lines: String = (0..3000).map(|n| format!("message number {n} with \"quotes\"\n")).collect();
    std::fs::write(&input, lines).expect("the folder is there");
    let (host, port) = server.http().split_once(':').map(|(h, p)| (h.to_string(), p.to_string())).expect("a port");
    let text = format!(
        r#"
global(workDirectory="{folder}" processInternalMessages="off")
module(load="imfile" mode="polling" pollingInterval="1")
module(load="omelasticsearch")
input(type="imfile" File="{input}" Tag="app")
template(name="doc" type="list" option.jsonf="on") {{
    property(outname="@timestamp" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="message" name="msg" format="jsonf")
}}
action(type="omelasticsearch" server="{host}" serverport="{port}" template="doc" searchIndex="syslog" searchType=""
       bulkmode="on" action.resumeRetryCount="-1" action.resumeInterval="1")
"#,
        folder = input.parent().expect("it is in a folder").display(),
        input = input.display(),
    );
    std::fs::write(&config, text).expect("the folder is there");
    let pid = server.log("rsyslogd.pid");
    let mut rsyslogd = Command::new("rsyslogd")
        .args(["-n", "-f"])
        .arg(&config)
        .arg("-i")
        .arg(&pid)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it answered a moment ago");
    let begun = std::time::Instant::now();
    while client.number("SELECT count(*) FROM syslog") < 3000 && begun.elapsed() < super::PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    crate::server::signal(&rsyslogd, libc::SIGTERM);
    wait(&mut rsyslogd);
    assert_eq!(client.one("SELECT count(*), count(DISTINCT message) FROM syslog"), "3000 3000");
}
