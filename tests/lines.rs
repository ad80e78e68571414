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

/// A random combined line: few values in each column so that groups meet, some missing, times in disorder around
/// `seconds`: mostly by up to a minute, now and then by hours.
pub fn random(random: &mut StdRng, seconds: i64) -> String {
    let back = match random.random_range(0..100) {
        0 => random.random_range(0..20_000),
        1..40 => random.random_range(0..60),
        _ => 0,
    };
    let pick = |random: &mut StdRng, values: &[&str]| values[random.random_range(0..values.len())].to_string();
    let client = random.random_range(1..6);
    let user = pick(random, &["-", "-", "ann", "bob"]);
    let request = match random.random_range(0..30) {
        0 => "-".to_string(),
        1 => "\\x16\\x03\\x01".to_string(),
        _ => {
            let method = pick(random, &["GET", "GET", "GET", "POST", "HEAD"]);
            let path =
                pick(random, &["/", "/a", "/a/b?x=1", "/a/b?x=2", "/b", "/b/c", "/ü", "/long/path/to/a/page.html"]);
            format!("{method} {path} HTTP/1.1")
        }
    };
    let status = pick(random, &["200", "200", "200", "304", "404", "500", "503"]);
    let bytes = match random.random_range(0..5) {
        0 => "-".to_string(),
        1 => "0".to_string(),
        _ => random.random_range(1..100_000).to_string(),
    };
    let referer = pick(random, &["-", "-", "http://a.example/", "http://b.example/x?y=\\\"z\\\""]);
    let agent = pick(random, &["Mozilla/5.0", "curl/8.0", "-", "bot/1 (+http://b.example)"]);
    let time = clf(seconds - back);
    format!("10.0.0.{client} - {user} [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{agent}\"\n")
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
