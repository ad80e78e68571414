//! Lines of access logs made for a test, and a writer that appends them in pieces, as programs do.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

/// 2026-01-01T00:00:00Z in seconds since 1970: where made-up logs begin.
pub const START: i64 = 1_767_225_600;

/// `01/Jan/2026:00:00:00 +0000` for seconds since 1970.
pub fn clf(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).expect("test times are ordinary");
    time.format("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

/// A combined line with `number` as its bytes and in its path, ten of them a second.
pub fn numbered(number: u64) -> String {
    let time = clf(START + number as i64 / 10);
    let client = number % 250;
    format!("10.0.0.{client} - - [{time}] \"GET /n/{number} HTTP/1.1\" 200 {number} \"-\" \"test/{client}\"\n")
}

/// Opens a log the way log writers do: created when missing, written at its end.
pub fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("the test's directory is writable")
}

/// Appends text in one write.
pub fn append(path: &Path, text: impl AsRef<[u8]>) {
    open(path).write_all(text.as_ref()).expect("the test's disk has room");
}

/// Cuts bytes at random places, which are often inside a line.
pub fn pieces<'a>(random: &mut StdRng, bytes: &'a [u8], most: usize) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = (1..most).map(|_| random.random_range(0..=bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}
