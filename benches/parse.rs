//! How many lines a second does each format parse on one core? Blocks of 1 MiB and 4 MiB, as ingest hands them over.
//!
//! Lines are those of the real logs where they are at hand (LOGWEIR_DATA, or ../shared/data), else the samples.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logweir::format::{self, FORMATS};
use logweir::frame::Frames;

/// A block of about `size` bytes made of whole lines of `log`, repeated as often as needed.
fn block(log: &[u8], size: usize) -> Frames {
    let mut bytes = Vec::with_capacity(size + log.len());
    for line in log.split_inclusive(|b| *b == b'\n').cycle() {
        if bytes.len() + line.len() > size {
            break;
        }
        bytes.extend_from_slice(line);
    }
    Frames::from_text(bytes)
}

/// The lines to measure a format with.
fn log(name: &str, sample: &str) -> Vec<u8> {
    let root = std::env::var_os("LOGWEIR_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), Into::into);
    let read = |file: &str| std::fs::read(root.join(file)).ok();
    let found = match name {
        "combined" => read("access/apache_combined_10k.log"),
        "access" => read("access/apache_combined_10k.log"),
        "w3c" => read("formats/lnav/logfile_w3c_big.0"),
        "logfmt" => read("formats/lnav/logfile_logfmt.0"),
        "common" => read("access/nasa_common_2k.log"),
        "apache_error" => read("templates/Apache_2k.log"),
        "json" => read("json/zeek_dns.json.gz").and_then(|packed| {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&packed[..]), &mut text).ok()?;
            Some(text)
        }),
        _ => None,
    };
    found.unwrap_or_else(|| sample.as_bytes().to_vec())
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for spec in FORMATS {
        // The same lines and columns as those of format combined, for comparison.
        let options = if spec.name == "access" { &[("pattern", "combined")] } else { spec.sample_options };
        let given: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let parser = format::build(spec.name, &given, &[]).expect("the sample options build the format");
        let log = log(spec.name, spec.sample);
        for mib in [1, 4] {
            let frames = block(&log, mib << 20);
            group.throughput(Throughput::Elements(frames.len() as u64));
            group.bench_function(format!("{}/{mib}MiB", spec.name), |b| b.iter(|| parser.parse(black_box(&frames), 0)));
        }
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
