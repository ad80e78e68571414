//! `kill -9` at random moments while a log grows: after a restart and FLUSH the stream holds each line that was written
//! exactly once, and its view equals its query run as a batch.
//!
//! Each line carries a number, so count, sum and distinct count together tell a lost line from a repeated one.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::batch::same;
use crate::lines;
use crate::server::Server;

const KILLS: usize = 10;

/// Something that writes a log until told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    /// Lines that are complete in the file.
    written: Arc<AtomicU64>,
    /// One message for each write; the writer does not wait for it to be taken.
    beat: Receiver<()>,
    thread: JoinHandle<u64>,
}

/// How the log is put away halfway.
#[derive(Clone, Copy, PartialEq)]
enum Rotation {
    None,
    /// Renamed, and a new file begun.
    Rename,
}

impl Writer {
    fn start(path: PathBuf, seed: u64, rotation: Rotation, rotate_at: u64) -> Writer {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (tell, beat) = sync_channel(1);
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            let random = &mut StdRng::seed_from_u64(seed);
            let mut file = lines::open(&path);
            let mut number = 0;
            let mut rotation = rotation;
            while !stopped.load(Ordering::SeqCst) {
                if rotation == Rotation::Rename && number >= rotate_at {
                    std::fs::rename(&path, path.with_extension("log.1")).expect("both names are in one directory");
                    file = lines::open(&path);
                    rotation = Rotation::None;
                }
                let lines = random.random_range(1..200);
                let text: String = (number..number + lines).map(lines::numbered).collect();
                for piece in lines::pieces(random, text.as_bytes(), 4) {
                    file.write_all(piece).expect("the test's disk has room");
                    // The pace of a busy program, not a wait for anything.
                    std::thread::sleep(Duration::from_micros(random.random_range(0..1500)));
                }
                number += lines;
                count.store(number, Ordering::SeqCst);
                let _ = tell.try_send(());
            }
            number
        });
        Writer { stop, written, beat, thread }
    }

    /// Returns when so many more lines are written.
    fn pass(&self, more: u64) {
        let until = self.written.load(Ordering::SeqCst) + more;
        while self.written.load(Ordering::SeqCst) < until {
            self.beat.recv().expect("the writer goes on until told to stop");
        }
    }

    /// Stops after a complete line; returns the number of lines written.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer does not panic")
    }
}

#[test]
fn killed_ten_times_while_a_log_grows() {
    run(1, Rotation::None, "10ms");
}

#[test]
fn killed_ten_times_while_a_log_grows_and_is_renamed() {
    run(2, Rotation::Rename, "10ms");
}

#[test]
fn killed_ten_times_with_a_sync_for_each_record() {
    run(3, Rotation::Rename, "always");
}

fn run(seed: u64, rotation: Rotation, sync: &str) {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut server = Server::start();
    // What a crash leaves behind is cut off, and said.
    server.expect_log("the log ended in the middle of a record");
    let path = server.log("access.log");
    lines::append(&path, "");
    let client = server.client();
    let query = "SELECT window_start, window_end, client, count(*) AS n, sum(bytes) AS bytes
                 FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, client";
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}', wal_sync = '{sync}', wal_segment_bytes = '256 KiB')
         FORMAT COMBINED;
         CREATE MATERIALIZED VIEW minutes AS {query}",
        path.display()
    ));
    let writer = Writer::start(path, seed, rotation, 20_000);
    for round in 0..KILLS {
        // Moments are counted in lines written, from a few to some thousands.
        writer.pass(random.random_range(1..8_000));
        server.kill();
        writer.pass(random.random_range(1..2_000));
        server.launch();
        if round % 3 == 2 {
            // Once more before it is up, while it reads its log.
            writer.pass(random.random_range(1..1_000));
            server.kill();
            server.launch();
        }
        // Connecting waits until it is ready.
        drop(server.client());
    }
    let written = writer.finish();
    assert!(rotation == Rotation::None || written > 20_000, "the log was rotated");
    let client = server.client();
    client.run("FLUSH");
    let count = "SELECT count(*), count(DISTINCT bytes), sum(bytes) FROM access";
    let sum = written * (written - 1) / 2;
    assert_eq!(client.one(count), format!("{written} {written} {sum}"), "lines written, distinct, sum of numbers");
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), 0);
    assert_eq!(client.one("SELECT sum(n), sum(bytes) FROM minutes"), format!("{written} {sum}"));
    same(&client, "after the last restart", "SELECT * FROM minutes", query, 0.0);
}
