//! What no one thought of: seeded random runs of everything that a writer, a rotation tool and a killed engine do to a
//! log. Every record must come once, whole and in order.

use std::fs;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Rig, gzip};

/// Seeds of a quick run.
const SEEDS: Range<u64> = 0..200;

#[test]
fn rotations_and_restarts_lose_and_repeat_nothing() {
    // The others once failed.
    for seed in SEEDS.chain([4482, 13375, 17148, 25099, 25423, 33723]) {
        run(seed, true, Write::Lines);
    }
}

#[test]
fn rotations_of_files_that_still_wait_lose_and_repeat_nothing() {
    for seed in SEEDS.chain([585, 2825, 6209, 6767, 7553, 11507, 13123, 15598]) {
        run(seed, false, Write::Lines);
    }
}

#[test]
fn records_of_several_lines_stay_whole() {
    for seed in SEEDS {
        run(seed, true, Write::Records);
        run(seed, false, Write::Records);
    }
}

/// What the log is made of. The writer stops anywhere; records of several lines also while the log is renamed, and go on
/// in the old file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Write {
    Lines,
    Records,
}

impl Write {
    fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Write::Lines => &[],
            Write::Records => &[("multiline_continue", r"^\t"), ("multiline_timeout", "1 hour")],
        }
    }

    /// One line or record, without its last newline.
    fn text(self, number: u32, generation: u32, rng: &mut StdRng) -> String {
        let mut text = format!("{number} {generation} {}", "x".repeat(rng.random_range(0..60)));
        if self == Write::Records {
            for _ in 0..rng.random_range(0..4) {
                text += &format!("\n\t{}", "y".repeat(rng.random_range(0..60)));
            }
        }
        text
    }
}

/// One log with numbered records, and everything a rotation tool and a killed engine may do to it between polls.
///
/// Under a single name, what has not been noticed when it is rotated away cannot be found. Without restarts it is
/// enough that it was looked at; a restart remembers only what was read.
fn run(seed: u64, restarts: bool, write: Write) {
    let mut rng = StdRng::seed_from_u64(seed);
    let single = rng.random_bool(0.5);
    let block = rng.random_range(20..2000).to_string();
    let max_open = if single { "512" } else { "3" };
    let mut options =
        vec![("block_bytes", block.as_str()), ("max_open_files", max_open), ("partial_line_timeout", "1 hour")];
    options.extend(write.options());
    let mut rig = Rig::new(if single { "app.log" } else { "app.log*" }, &options, &[("app.log", b"")]);
    let (mut written, mut read, mut history) = (Vec::new(), Vec::new(), Vec::new());
    let mut unfinished = String::new();
    let mut generations = 0u32;
    for _ in 0..60 {
        let action = rng.random_range(0..100);
        history.push(action);
        match action {
            0..50 => {
                let mut text = std::mem::take(&mut unfinished);
                let mut last = 0;
                for _ in 0..rng.random_range(1..20) {
                    let record = write.text(written.len() as u32, generations, &mut rng);
                    last = text.len();
                    text += &record;
                    text.push('\n');
                    written.push(record);
                }
                if rng.random_bool(0.3) {
                    unfinished = text.split_off(match write {
                        Write::Lines => text.len() - 3,
                        Write::Records => rng.random_range(last..text.len()),
                    });
                }
                rig.append("app.log", text.as_bytes());
            }
            50..75 => read.extend(rig.drain()),
            75..80 => {
                rig.poll();
            }
            80..85 if !restarts => {}
            80..85 => {
                rig.stop();
                rig.restart();
            }
            85..88 if !single && generations > 0 => {
                let name = format!("app.log.{}", rng.random_range(1..=generations));
                if let Ok(content) = fs::read(rig.path(&name)) {
                    rig.append(&format!("{name}.gz"), &gzip(&content));
                    fs::remove_file(rig.path(&name)).unwrap();
                }
            }
            85..100 => {
                let renamed = action < 91;
                // A line is not torn by rotation.
                if single || !renamed || write == Write::Lines {
                    rig.append("app.log", std::mem::take(&mut unfinished).as_bytes());
                }
                if single {
                    // Of a record of several lines it is known that it was noticed when the next has begun.
                    for _ in 0..if write == Write::Lines { 1 } else { 2 } {
                        let record = format!("{} {generations} noticed before rotation", written.len());
                        rig.append("app.log", format!("{record}\n").as_bytes());
                        written.push(record);
                    }
                    read.append(&mut rig.lines);
                    if restarts {
                        read.extend(rig.drain());
                    } else {
                        rig.look_at_all();
                    }
                    let mut record = format!("{} {generations} before rotation", written.len());
                    if renamed && write == Write::Records {
                        unfinished = "\n\tand after it\n".to_string();
                        rig.append("app.log", record.as_bytes());
                        record += unfinished.trim_end();
                    } else {
                        rig.append("app.log", format!("{record}\n").as_bytes());
                    }
                    written.push(record);
                }
                generations += 1;
                let to = format!("app.log.{generations}");
                match action {
                    85..91 => {
                        rig.rename("app.log", &to);
                        rig.append(&to, std::mem::take(&mut unfinished).as_bytes());
                        rig.append("app.log", b"");
                    }
                    91..95 => rig.copy_truncate("app.log", &to),
                    _ if restarts => {
                        rig.stop();
                        rig.copy_truncate("app.log", &to);
                        rig.restart();
                    }
                    _ => rig.copy_truncate("app.log", &to),
                }
            }
            _ => unreachable!("below 100"),
        }
    }
    rig.append("app.log", unfinished.as_bytes());
    read.append(&mut rig.lines);
    for _ in 0..8 {
        read.extend(rig.drain());
    }
    // Deleted files are kept open for a while, and may leave no room for others.
    rig.advance(60);
    for _ in 0..4 {
        read.extend(rig.drain());
    }
    // Each may wait for an hour, and then make room for others.
    for _ in 0..if write == Write::Lines { 0 } else { 20 } {
        rig.advance(3600);
        read.extend(rig.drain());
    }
    let what = format!("seed {seed}, restarts {restarts}, {write:?}, single {single}, {history:?}");
    let number = |record: &String, field| -> u32 { record.split(' ').nth(field).unwrap().parse().expect(&what) };
    let mut sorted = read.clone();
    sorted.sort_by_key(|record| number(record, 0));
    assert_eq!(sorted, written, "{what}");
    // The last record of a file that was renamed comes when it cannot go on any more.
    if single && write == Write::Lines {
        assert_eq!(read, written, "order, {what}");
    }
    for generation in 0..=generations {
        let of_generation =
            read.iter().filter(|record| number(record, 1) == generation).map(|record| number(record, 0));
        assert!(of_generation.is_sorted(), "order within a generation, {what}");
    }
}
