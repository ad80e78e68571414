//! How many lines a second does each framing of lines cut on one core? Read in blocks of 4 MiB, as the file source does.
//!
//! Lines are those of a PostgreSQL log where it is at hand (LOGWEIR_DATA, or ../shared/data): 32,405 lines that are 3,544
//! records; else some made up ones.

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logweir::frame::Framing;

const BLOCK: usize = 4 << 20;

const FRAMINGS: &[(&str, &[(&str, &str)])] = &[
    ("newline", &[]),
    ("nul", &[("framing", "nul")]),
    ("multiline_start of digits", &[("multiline_start", r"^\d{4}-\d\d-\d\d ")]),
    ("multiline_start of a class", &[("multiline_start", r"^\S")]),
    ("multiline_continue", &[("multiline_continue", r"^\s")]),
    ("multiline_start anywhere", &[("multiline_start", "LOG:  ")]),
];

fn frame(c: &mut Criterion) {
    let root = std::env::var_os("LOGWEIR_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), Into::into);
    let log = std::fs::read(root.join("multiline/postgres_vacuum.log"))
        .unwrap_or_else(|_| b"2024-06-27 00:00:07 LOG:  vacuum\n\tpages: 5 removed\n\ttuples: 8 removed\n".to_vec());
    let log = log.repeat((5 * BLOCK).div_ceil(log.len()));
    let lines = memchr::memchr_iter(b'\n', &log).count() as u64;
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(lines));
    for (name, given) in FRAMINGS {
        let framing = Framing::of_options(given).expect("the options fit together");
        group.bench_function(*name, |b| {
            b.iter(|| {
                let (mut framer, mut input, mut frames) = (framing.framer(), &log[..], 0);
                loop {
                    let (found, read) = framer.read(&mut input, BLOCK);
                    frames += found.len();
                    if read.expect("reading from memory does not fail") == 0 {
                        return frames + framer.finish().len();
                    }
                }
            })
        });
    }
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
