//! `kill -9` while two sources feed one stream: each goes on where it was, and neither where the other was. Checkpoints,
//! the archive and the cutting of the log go on all the while, so that positions come from the log and from checkpoints.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Named, number, tell};
use crate::server::Server;

/// In an ordinary run.
const KILLS: u64 = 8;

const SOURCES: [&str; 2] = ["one", "two"];

#[test]
fn two_sources_of_one_stream() {
    let seed = number("LOGWEIR_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let _named = Named(seed);
    let kills = number("LOGWEIR_KILLS").unwrap_or(KILLS);
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.expect_log("the log ended in the middle of a record");
    server.again();
    server.client().run(
        "CREATE TABLE fed (ts timestamptz, source text, n bigint, WATERMARK FOR ts AS ts)
         WITH (wal_segment_bytes = '16 KiB', archive_bytes = '32 KiB', archive_interval = '300 ms')
         FORMAT JSON",
    );
    let files = SOURCES.map(|name| {
        let path = server.log(&format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&path).expect("the folder is there");
        server.client().run(&format!(
            "CREATE SOURCE {name} INTO fed WITH (connector = 'file', path = '{}', block_bytes = '4 KiB')",
            path.display()
        ));
        file
    });
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, random) = (Arc::clone(&stop), StdRng::seed_from_u64(random.random()));
        move || write(files, random, &stop)
    });
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.random_range(0..1_000_000)));
        server.kill();
        server.again();
    }
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().expect("the writer panicked");
    let client = server.client();
    client.run("FLUSH");
    let sql = "SELECT source, count(*), count(DISTINCT n), min(n), max(n) FROM fed GROUP BY source ORDER BY source";
    let expected = SOURCES.iter().zip(written).map(|(name, lines)| {
        let numbers = [lines, lines, 0, lines - 1].map(|n| n.to_string());
        std::iter::once(name.to_string()).chain(numbers).map(Some).collect::<Vec<_>>()
    });
    assert_eq!(client.rows(sql), expected.collect::<Vec<_>>());
    assert_eq!(client.number("SELECT count(*) FROM fed__malformed"), 0);
    tell(&format!("crash: LOGWEIR_SEED={seed}: {kills} kills, {written:?} lines from two sources of one stream"));
    assert!(written.iter().all(|lines| *lines > 100), "{written:?}");
}

/// Lets both files grow until it is told to stop, at times by a part of a line. Gives the number of lines of each.
fn write(mut files: [File; 2], mut random: StdRng, stop: &AtomicBool) -> [u64; 2] {
    let mut written = [0; 2];
    while !stop.load(Ordering::SeqCst) {
        let which = random.random_range(0..2);
        let mut lines = String::new();
        for _ in 0..random.random_range(1..20) {
            let (source, n) = (SOURCES[which], written[which]);
            lines += &format!("{{\"ts\":\"2026-01-01T00:00:00Z\",\"source\":\"{source}\",\"n\":{n}}}\n");
            written[which] += 1;
        }
        let (first, rest) = lines.split_at(random.random_range(0..lines.len()));
        for part in [first, rest] {
            files[which].write_all(part.as_bytes()).expect("there is room");
            std::thread::sleep(Duration::from_micros(random.random_range(0..2000)));
        }
    }
    written
}
