//! How many lines a second does the generator make on one core: in memory, and into a file as `logweir gen` writes it?

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use logweir::generate::scenario::EXAMPLE;
use logweir::generate::{Access, Errors, Player, Scenario, parse_utc};
use logweir::time::Micros;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LINES: u64 = 5_000_000;

/// As `logweir gen` does.
const BLOCK_BYTES: usize = 64 * 1024;

fn main() {
    let start = parse_utc("2026-01-05").expect("a valid time");
    let at = |line: u64| start + line as Micros;
    let mut access = Access::new(1);
    measure("access", |line, out| access.line(at(line), out));
    let mut errors = Errors::new(1);
    measure("error", |line, out| errors.line(at(line), out));

    let busy = EXAMPLE.replace("rate = 200 ", "rate = 100000 ");
    for (name, scenario) in [
        ("scenario, steady", "rate = 100000".to_string()),
        ("scenario, the example", busy.clone()),
        ("scenario, the example in combined", busy.replace("\"vhost_combined\"", "\"combined\"")),
    ] {
        let scenario = Scenario::parse(&scenario).expect("it is valid");
        for into_file in [false, true] {
            play(name, &scenario, start, into_file);
        }
    }
}

fn measure(name: &str, mut line: impl FnMut(u64, &mut Vec<u8>)) {
    let (mut out, mut bytes, begun) = (Vec::with_capacity(BLOCK_BYTES * 2), 0, Instant::now());
    for number in 0..LINES {
        line(number, &mut out);
        if out.len() >= BLOCK_BYTES {
            bytes += out.len();
            out.clear();
        }
    }
    report(name, LINES, bytes + out.len(), begun);
}

fn play(name: &str, scenario: &Scenario, start: Micros, into_file: bool) {
    let mut file: Option<File> = into_file.then(|| tempfile::tempfile().expect("a temporary file"));
    let scenario = Scenario { lines: Some(LINES), duration: None, ..scenario.clone() };
    let mut player = Player::new(scenario, 1, start);
    let (mut out, mut bytes, begun) = (Vec::with_capacity(BLOCK_BYTES * 2), 0, Instant::now());
    while !player.has_ended() {
        player.fill(Micros::MAX, &mut out, BLOCK_BYTES, &mut None);
        if let Some(file) = &mut file {
            file.write_all(&out).expect("there is room");
        }
        bytes += out.len();
        out.clear();
    }
    report(&format!("{name}{}", if into_file { ", to a file" } else { "" }), LINES, bytes, begun);
}

fn report(name: &str, lines: u64, bytes: usize, begun: Instant) {
    let took = begun.elapsed().as_secs_f64();
    println!("{name}: {:.2} M lines/s, {:.0} MB/s", lines as f64 / took / 1e6, bytes as f64 / took / 1e6);
}
