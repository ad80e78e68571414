//! `kill -9` while senders of every protocol post batches under idempotency keys and repeat whatever got no answer, and now
//! and then what did: each batch is there once and in whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::attempt;
use crate::server::Server;

const KILLS: u64 = 8;

/// A batch is repeated at most so many batches later.
const REPEATED_WITHIN: u64 = 20;

/// Rows of a batch.
fn rows(batch: u64) -> u64 {
    1 + batch % 7
}

/// The path, the Content-Type and the body of a batch.
type Request = (&'static str, &'static str, String);

/// How each writer posts.
const PROTOCOLS: &[fn(u64) -> Request] = &[
    |batch| {
        let line = |n| format!("{{\"ts\":\"2026-01-01T00:00:00Z\",\"batch\":{batch},\"n\":{n}}}\n");
        ("/v1/streams/pushed0/rows", "application/x-ndjson", (0..rows(batch)).map(line).collect())
    },
    |batch| {
        let pair = |n| {
            let document = format!("{{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"batch\":{batch},\"n\":{n}}}");
            format!("{{\"create\":{{\"_index\":\"pushed1\"}}}}\n{document}\n")
        };
        ("/_bulk", "application/x-ndjson", (0..rows(batch)).map(pair).collect())
    },
    |batch| {
        let record = |n| {
            format!(
                "{{\"timeUnixNano\":\"1767225600000000000\",\"severityNumber\":{},\"body\":{{\"intValue\":{batch}}}}}",
                n + 1
            )
        };
        let records: Vec<_> = (0..rows(batch)).map(record).collect();
        let body = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}]}}]}}]}}", records.join(","));
        ("/v1/streams/pushed2/v1/logs", "application/json", body)
    },
    |batch| {
        let entry = |n| format!("[\"1767225600000000000\",\"{n}\",{{\"batch\":\"{batch}\"}}]");
        let entries: Vec<_> = (0..rows(batch)).map(entry).collect();
        let body = format!("{{\"streams\":[{{\"stream\":{{}},\"values\":[{}]}}]}}", entries.join(","));
        ("/v1/streams/pushed3/loki/api/v1/push", "application/json", body)
    },
];

/// The batch and the number within it of a row of each stream.
const COLUMNS: &[&str] = &[
    "batch, n",
    "batch, n",
    "body::bigint AS batch, severity_number - 1 AS n",
    "batch::bigint AS batch, line::bigint AS n",
];

#[derive(Default)]
struct Counts {
    batches: u64,
    lost: u64,
    repeated: u64,
}

#[test]
fn acknowledged_batches_are_there_once() {
    let kills = std::env::var("LOGWEIR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let seed = std::env::var("LOGWEIR_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    eprintln!("LOGWEIR_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.expect_log("the log ended in the middle of a record");
    server.again();
    for i in 0..PROTOCOLS.len() {
        server.client().run(&format!(
            "CREATE TABLE pushed{i} WITH (wal_segment_bytes = '16 KiB', archive_bytes = '32 KiB',
                                          archive_interval = '300 ms') FORMAT JSON"
        ));
    }
    let address = Arc::new(Mutex::new(server.http()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = PROTOCOLS
        .iter()
        .map(|request| {
            let (address, stop, seed) = (Arc::clone(&address), Arc::clone(&stop), random.random());
            std::thread::spawn(move || write(request, seed, &address, &stop))
        })
        .collect();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.random_range(0..1_200_000)));
        server.kill();
        server.again();
        *address.lock().expect("no writer panics while it holds it") = server.http();
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::SeqCst);
    let client = server.client();
    let mut all = Counts::default();
    for (i, writer) in writers.into_iter().enumerate() {
        let counts = writer.join().expect("a writer panicked");
        let found = client.rows(&format!(
            "SELECT batch, count(*), count(DISTINCT n), min(n), max(n) FROM (SELECT {} FROM pushed{i}) AS p
             GROUP BY batch ORDER BY batch",
            COLUMNS[i]
        ));
        let expected: Vec<Vec<Option<String>>> = (0..counts.batches)
            .map(|batch| {
                let rows = rows(batch);
                [batch, rows, rows, 0, rows - 1].map(|n| Some(n.to_string())).to_vec()
            })
            .collect();
        let wrong = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "writer {i}");
        assert_eq!(found.len(), expected.len(), "writer {i}");
        all.batches += counts.batches;
        all.lost += counts.lost;
        all.repeated += counts.repeated;
    }
    let Counts { batches, lost, repeated } = all;
    let told = format!(
        "http: LOGWEIR_SEED={seed}: {kills} kills, {batches} batches, {lost} without an answer, {repeated} repeated\n"
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
    assert!(kills < KILLS || (batches > 100 && lost > 0 && repeated > 0));
}

/// Posts one batch after the other, each until it is answered.
fn write(request: &fn(u64) -> Request, seed: u64, address: &Mutex<String>, stop: &AtomicBool) -> Counts {
    let mut random = StdRng::seed_from_u64(seed);
    let mut counts = Counts::default();
    let post = |batch: u64, counts: &mut Counts| loop {
        let (path, kind, body) = request(batch);
        let key = format!("batch {batch}");
        let at = address.lock().expect("nobody panics while he holds it").clone();
        let headers = [("Content-Type", kind), ("Idempotency-Key", key.as_str())];
        match attempt(&at, "POST", path, &headers, body.as_bytes()) {
            Some(answer) if answer.status < 300 => return,
            // An answer that it went wrong would be a fault, but for those of a server that comes or goes.
            Some(answer) if answer.status == 503 || answer.status == 404 => {}
            Some(answer) => panic!("{answer:?}"),
            None => {}
        }
        counts.lost += 1;
        std::thread::sleep(Duration::from_millis(5));
    };
    while !stop.load(Ordering::SeqCst) {
        post(counts.batches, &mut counts);
        counts.batches += 1;
        if random.random_range(0..4) == 0 {
            let back = random.random_range(1..=REPEATED_WITHIN.min(counts.batches));
            post(counts.batches - back, &mut counts);
            counts.repeated += 1;
        }
    }
    counts
}
