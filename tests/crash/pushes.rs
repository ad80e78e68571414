//! `kill -9` while clients put rows in under idempotency keys and repeat whatever got no answer, and now and then what did:
//! each batch is there once and in whole. Checkpoints, the archive and the cutting of the log go on all the while, so that
//! keys are found again in the log and in checkpoints.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use super::{Named, number, tell};
use crate::server::Server;

/// In an ordinary run.
const KILLS: u64 = 12;
const WRITERS: u64 = 3;

/// A batch is repeated at most so many batches later.
const REPEATED_WITHIN: u64 = 20;

/// Rows of a batch.
fn rows(batch: u64) -> u64 {
    1 + batch % 7
}

#[test]
fn repeated_batches_count_once() {
    let seed = number("LOGWEIR_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let _named = Named(seed);
    let kills = number("LOGWEIR_KILLS").unwrap_or(KILLS);
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.expect_log("the log ended in the middle of a record");
    server.again();
    server.client().run(
        "CREATE TABLE pushed (ts timestamptz, writer int, batch int, n int)
         WITH (wal_segment_bytes = '16 KiB', archive_bytes = '32 KiB', archive_interval = '300 ms')",
    );
    let address = Arc::new(Mutex::new(server.postgres()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..WRITERS).map(|id| Writer::start(id, random.random(), Arc::clone(&address), Arc::clone(&stop))).collect();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.random_range(0..1_200_000)));
        server.kill();
        server.again();
        *address.lock().expect("no writer panics while it holds it") = server.postgres();
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::SeqCst);
    let mut counts = Counts::default();
    let client = server.client();
    for (id, writer) in writers.into_iter().enumerate() {
        let writer = writer.join().expect("a writer panicked");
        let sql = format!(
            "SELECT batch, count(*), count(DISTINCT n), min(n), max(n) FROM pushed WHERE writer = {id} GROUP BY batch ORDER BY batch"
        );
        let expected: Vec<Vec<Option<String>>> = (0..writer.batches)
            .map(|batch| {
                let rows = rows(batch);
                [batch, rows, rows, 0, rows - 1].map(|n| Some(n.to_string())).to_vec()
            })
            .collect();
        let found = client.rows(&sql);
        let wrong = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "writer {id}");
        assert_eq!(found.len(), expected.len(), "writer {id}");
        counts.batches += writer.batches;
        counts.lost += writer.lost;
        counts.repeated += writer.repeated;
    }
    let Counts { batches, lost, repeated } = counts;
    tell(&format!(
        "crash: LOGWEIR_SEED={seed}: {kills} kills, {batches} batches, {lost} without an answer, {repeated} repeated"
    ));
    assert!(kills < KILLS || (batches > 100 && lost > 0 && repeated > 0));
}

#[derive(Default)]
struct Counts {
    batches: u64,
    lost: u64,
    repeated: u64,
}

/// Puts one batch in after the other, each until it is answered.
struct Writer {
    id: u64,
    random: StdRng,
    address: Arc<Mutex<String>>,
    runtime: Runtime,
    client: Option<Client>,
    counts: Counts,
}

impl Writer {
    fn start(id: u64, seed: u64, address: Arc<Mutex<String>>, stop: Arc<AtomicBool>) -> JoinHandle<Counts> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let random = StdRng::seed_from_u64(seed);
        let mut writer = Writer { id, random, address, runtime, client: None, counts: Counts::default() };
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                writer.put(writer.counts.batches);
                writer.counts.batches += 1;
                if writer.random.random_range(0..4) == 0 {
                    let back = writer.random.random_range(1..=REPEATED_WITHIN.min(writer.counts.batches));
                    writer.put(writer.counts.batches - back);
                    writer.counts.repeated += 1;
                }
            }
            writer.counts
        })
    }

    fn put(&mut self, batch: u64) {
        let id = self.id;
        let rows: Vec<String> =
            (0..rows(batch)).map(|n| format!("('2026-01-01 00:00:00+00', {id}, {batch}, {n})")).collect();
        let key = format!("SET logweir.idempotency_key = 'writer {id}, batch {batch}'");
        let insert = format!("INSERT INTO pushed VALUES {}", rows.join(", "));
        while !self.attempt(&key, &insert) {
            self.counts.lost += 1;
            self.client = None;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether there was an answer.
    fn attempt(&mut self, key: &str, insert: &str) -> bool {
        let client = match self.client.take() {
            Some(client) => client,
            None => match self.connect() {
                Some(client) => client,
                None => return false,
            },
        };
        let answered = self.runtime.block_on(async {
            client.simple_query(key).await?;
            client.simple_query(insert).await
        });
        match &answered {
            Ok(_) => self.client = Some(client),
            // An answer that it went wrong would be a fault.
            Err(err) => assert!(err.as_db_error().is_none_or(|err| err.code().code() == "57P01"), "{err:?}"),
        }
        answered.is_ok()
    }

    fn connect(&self) -> Option<Client> {
        let address = self.address.lock().expect("nobody panics while he holds it").clone();
        let (host, port) = address.rsplit_once(':').expect("an address has a port");
        let config = format!("host={host} port={port} user=logweir dbname=logweir connect_timeout=5");
        let (client, connection) = self.runtime.block_on(tokio_postgres::connect(&config, NoTls)).ok()?;
        self.runtime.spawn(async move { drop(connection.await) });
        Some(client)
    }
}
