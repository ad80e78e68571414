//! What no one thought of: seeded random runs of everything that a writer, a rotation tool and a killed engine do to a
//! log. Every line must come once, and in order.

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
        run(seed, true);
    }
}

#[test]
fn rotations_of_files_that_still_wait_lose_and_repeat_nothing() {
    for seed in SEEDS.chain([585, 2825, 6209, 6767, 7553, 11507, 13123, 15598]) {
        run(seed, false);
    }
}

/// One log with numbered lines, and everything a rotation tool and a killed engine may do to it between polls.
///
/// Under a single name, what has not been noticed when it is rotated away cannot be found. Without restarts it is
/// enough that it was looked at; a restart remembers only what was read.
fn run(seed: u64, restarts: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let single = rng.random_bool(0.5);
    let block = rng.random_range(20..2000).to_string();
    let max_open = if single { "512" } else { "3" };
    let options = [("block_bytes", block.as_str()), ("max_open_files", max_open), ("partial_line_timeout", "1 hour")];
    let mut rig = Rig::new(if single { "app.log" } else { "app.log*" }, &options, &[("app.log", b"")]);
    let (mut written, mut read, mut history) = (0, Vec::new(), Vec::new());
    let mut unfinished = String::new();
    let mut generations = 0u32;
    for _ in 0..60 {
        let action = rng.random_range(0..100);
        history.push(action);
        match action {
            0..50 => {
                let mut text = std::mem::take(&mut unfinished);
                for _ in 0..rng.random_range(1..20) {
                    text += &format!("{written} {generations} {}\n", "x".repeat(rng.random_range(0..60)));
                    written += 1;
                }
                if rng.random_bool(0.3) {
                    unfinished = text.split_off(text.len() - 3);
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
                // A line is not torn by rotation.
                rig.append("app.log", std::mem::take(&mut unfinished).as_bytes());
                if single {
                    rig.append("app.log", format!("{written} {generations} noticed before rotation\n").as_bytes());
                    written += 1;
                    read.append(&mut rig.lines);
                    if restarts {
                        read.extend(rig.drain());
                    } else {
                        rig.look_at_all();
                    }
                    rig.append("app.log", format!("{written} {generations} before rotation\n").as_bytes());
                    written += 1;
                }
                generations += 1;
                let to = format!("app.log.{generations}");
                match action {
                    85..91 => {
                        rig.rename("app.log", &to);
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
    let number = |line: &String, field| -> u32 { line.split(' ').nth(field).unwrap().parse().unwrap() };
    let numbers: Vec<u32> = read.iter().map(|line| number(line, 0)).collect();
    let expected: Vec<u32> = (0..written).collect();
    let mut sorted = numbers.clone();
    sorted.sort();
    assert_eq!(sorted, expected, "seed {seed}, single {single}, {history:?}");
    if single {
        assert_eq!(numbers, expected, "order, seed {seed}, {history:?}");
    }
    for generation in 0..=generations {
        let of_generation = read.iter().filter(|line| number(line, 1) == generation).map(|line| number(line, 0));
        assert!(of_generation.is_sorted(), "order within a generation, seed {seed}, {history:?}");
    }
}
