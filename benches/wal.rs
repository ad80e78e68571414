//! How fast the log takes in and gives back real log lines, in blocks as sources deliver them.
//!
//! Throughput is of uncompressed log bytes, but for `heads`, where it is records. Without the sample logs (see
//! `LOGWEIR_DATA`) made-up lines are used.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logweir::frame::Frames;
use logweir::position::{Position, Unit};
use logweir::storage::wal::{Record, SyncMode, Wal, WalOptions};

fn lines(bytes: usize) -> Frames {
    let root = std::env::var("LOGWEIR_DATA").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").into());
    let sample = std::fs::read(Path::new(&root).join("access/apache_combined_10k.log")).unwrap_or_else(|_| {
        let line =
            |i: u64| format!("10.0.{}.{} - - [17/May/2015] \"GET /{} HTTP/1.1\" 200\n", i % 7, i % 251, i * 7919 % 997);
        (0..10_000).map(line).collect::<String>().into_bytes()
    });
    let mut text: Vec<u8> = sample.iter().copied().cycle().take(bytes).collect();
    text.truncate(text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1));
    Frames::from_text(text)
}

fn record(frames: Frames) -> Record {
    let (partition, key) = ("/var/log/apache2/access.log".into(), "64768:1311:9f31c2a07be41d55".into());
    let position = Position { partition, key, start: 0, end: frames.bytes.len() as u64, unit: Unit::Bytes };
    Record { base: 0, source: 0, ingest_time: 0, position, frames }
}

fn open(dir: &Path, sync: SyncMode) -> Wal {
    Wal::open(dir, WalOptions { sync, segment_bytes: 64 << 20 }).expect("the log opens").0
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal/append");
    // What appending cannot be faster than.
    let block = lines(1 << 20).bytes;
    let mut out = vec![0; lz4_flex::block::get_maximum_output_size(block.len())];
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("LZ4 alone/1MiB", |b| b.iter(|| lz4_flex::block::compress_into(&block, &mut out)));
    let every = SyncMode::Every(Duration::from_millis(10));
    for (name, bytes, sync) in [
        ("off/1MiB", 1 << 20, SyncMode::Off),
        ("10ms/64KiB", 64 << 10, every),
        ("10ms/1MiB", 1 << 20, every),
        ("10ms/4MiB", 4 << 20, every),
        ("always/1MiB", 1 << 20, SyncMode::Always),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let wal = open(dir.path(), sync);
        let mut record = record(lines(bytes));
        group.throughput(Throughput::Bytes(record.frames.bytes.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                record.base = wal.next_offset();
                black_box(wal.append(&record).expect("the disk has space"));
                // Keeps the directory small; drops a segment every 64 MiB.
                wal.drop_before(record.base).expect("segments can be removed");
            })
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    const BLOCKS: u64 = 32;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = open(dir.path(), SyncMode::Off);
    let mut record = record(lines(1 << 20));
    for _ in 0..BLOCKS {
        record.base = wal.next_offset();
        wal.append(&record).expect("the disk has space");
    }
    let mut group = c.benchmark_group("wal/read");
    group.throughput(Throughput::Bytes(BLOCKS * record.frames.bytes.len() as u64));
    group.bench_function("records", |b| {
        b.iter(|| {
            wal.read(wal.start()).expect("the log is there").map(|r| r.expect("whole").1.frames.len()).sum::<usize>()
        })
    });
    group.throughput(Throughput::Elements(BLOCKS));
    group.bench_function("heads", |b| {
        b.iter(|| wal.heads(wal.start()).expect("the log is there").map(|h| h.expect("whole").1.frames).sum::<u32>())
    });
    group.finish();
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = append, read }
criterion_main!(benches);
