//! Lines per second by HTTP, protocol by protocol: the real program, four senders that post batches of a thousand lines one
//! after the other and wait for each answer, as log shippers do. Answered means synced and visible.
//!
//! ```text
//!     LOGWEIR_BENCH_LINES=2000000 cargo bench --bench http
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use logweir::generate::Access;

mod server;
use server::Server;

const SENDERS: u64 = 4;
const BATCH: u64 = 1000;

/// A batch of lines in the words of a protocol: path, Content-Type and body.
struct Protocol {
    name: &'static str,
    format: &'static str,
    path: &'static str,
    kind: &'static str,
    body: fn(&[String]) -> Vec<u8>,
}

const PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "rows, text",
        format: "COMBINED",
        path: "rows",
        kind: "text/plain",
        body: |lines| lines.concat().into_bytes(),
    },
    Protocol {
        name: "rows, NDJSON",
        format: "JSON",
        path: "rows",
        kind: "application/x-ndjson",
        body: |lines| lines.iter().map(|line| format!("{}\n", document(line))).collect::<String>().into_bytes(),
    },
    Protocol {
        name: "Elasticsearch bulk",
        format: "JSON",
        path: "_bulk",
        kind: "application/x-ndjson",
        body: |lines| {
            let pairs =
                lines.iter().map(|line| format!("{{\"create\":{{\"_index\":\"logs\"}}}}\n{}\n", document(line)));
            pairs.collect::<String>().into_bytes()
        },
    },
    Protocol {
        name: "OTLP, protobuf",
        format: "JSON",
        path: "v1/logs",
        kind: "application/x-protobuf",
        body: |lines| {
            let records: Vec<u8> = lines
                .iter()
                .flat_map(|line| {
                    // time_unix_nano = 1, severity_text = 3, body = 5.
                    let time = [&[0x09][..], &1_767_225_600_000_000_000u64.to_le_bytes()].concat();
                    let value = field(1, line.trim_end().as_bytes());
                    field(2, &[time, field(3, b"INFO"), field(5, &value)].concat())
                })
                .collect();
            let attribute = [field(1, b"service.name"), field(2, &field(1, b"shop"))].concat();
            let resource = field(1, &field(1, &attribute));
            field(1, &[resource, field(2, &records)].concat())
        },
    },
    Protocol {
        name: "OTLP, JSON",
        format: "JSON",
        path: "v1/logs",
        kind: "application/json",
        body: |lines| {
            let record = |line: &String| {
                let text = serde_json::to_string(line.trim_end()).expect("text");
                format!(
                    "{{\"timeUnixNano\":\"1767225600000000000\",\"severityText\":\"INFO\",\"body\":{{\"stringValue\":{text}}}}}"
                )
            };
            let records: Vec<String> = lines.iter().map(record).collect();
            format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}]}}]}}]}}", records.join(","))
                .into_bytes()
        },
    },
    Protocol {
        name: "Loki, snappy protobuf",
        format: "JSON",
        path: "loki/api/v1/push",
        kind: "application/x-protobuf",
        body: |lines| {
            // timestamp = 1 (seconds = 1), line = 2.
            let stamp = field(1, &[&[0x08][..], &varint(1_767_225_600)].concat());
            let entry = |line: &String| field(2, &[stamp.clone(), field(2, line.trim_end().as_bytes())].concat());
            let entries: Vec<u8> = lines.iter().flat_map(entry).collect();
            let push = field(1, &[field(1, b"{app=\"shop\", env=\"test\"}"), entries].concat());
            snap::raw::Encoder::new().compress_vec(&push).expect("memory takes it")
        },
    },
    Protocol {
        name: "Loki, JSON",
        format: "JSON",
        path: "loki/api/v1/push",
        kind: "application/json",
        body: |lines| {
            let entry = |line: &String| {
                format!("[\"1767225600000000000\",{}]", serde_json::to_string(line.trim_end()).expect("text"))
            };
            let entries: Vec<String> = lines.iter().map(entry).collect();
            format!("{{\"streams\":[{{\"stream\":{{\"app\":\"shop\"}},\"values\":[{}]}}]}}", entries.join(","))
                .into_bytes()
        },
    },
];

fn document(line: &str) -> String {
    let text = serde_json::to_string(line.trim_end()).expect("text");
    format!("{{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"level\":\"info\",\"message\":{text}}}")
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field of protobuf that holds bytes.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn main() {
    let lines = std::env::var("LOGWEIR_BENCH_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(400_000u64);
    let batches = lines / BATCH / SENDERS;
    for protocol in PROTOCOLS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = Server::start(dir.path(), &[]);
        server.run(&format!("CREATE TABLE logs FORMAT {}", protocol.format));
        let mut access = Access::new(7);
        let texts: Vec<String> = (0..BATCH)
            .map(|i| {
                let mut line = Vec::new();
                access.line(1_767_225_600_000_000 + i as i64 * 200, &mut line);
                String::from_utf8(line).expect("text")
            })
            .collect();
        let body = (protocol.body)(&texts);
        let head = format!(
            "POST /v1/streams/logs/{} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            protocol.path,
            protocol.kind,
            body.len()
        );
        let request = [head.as_bytes(), &body].concat();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    let mut socket = TcpStream::connect(server.http()).expect("the server runs");
                    socket.set_nodelay(true).expect("a socket");
                    (0..batches).for_each(|_| exchange(&mut socket, &request));
                });
            }
        });
        let took = begun.elapsed().as_secs_f64();
        let sent = batches * BATCH * SENDERS;
        assert_eq!(server.number("SELECT count(*) FROM logs"), sent as i64, "every line is a row");
        let megabytes = (batches * SENDERS) as f64 * body.len() as f64 / 1e6;
        println!(
            "{}: {:.0} lines/s ({:.1} MB/s of bodies, {:.1} s of processors)",
            protocol.name,
            sent as f64 / took,
            megabytes / took,
            server.processor_time(),
        );
        server.end(libc::SIGTERM);
    }
}

/// Posts once and reads the answer.
fn exchange(socket: &mut TcpStream, request: &[u8]) {
    socket.write_all(request).expect("the server reads");
    let (mut answer, mut piece) = (Vec::new(), [0; 65536]);
    loop {
        let count = socket.read(&mut piece).expect("the server answers");
        assert!(count > 0, "an answer is cut off");
        answer.extend_from_slice(&piece[..count]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        assert!(head.starts_with("http/1.1 20"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if answer.len() - end - 4 >= length.unwrap_or(0) {
            return;
        }
    }
}
