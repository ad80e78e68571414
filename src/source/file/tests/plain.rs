//! Files that stay in place: growth, compression, the end, limits, errors.

use std::fs;

use super::*;
use crate::error::Kind;

#[test]
fn growth_and_unfinished_lines() {
    let mut rig = Rig::new("app.log", &[], &[("app.log", b"one\r\ntwo\n\nthr")]);
    assert_eq!(rig.drain(), ["one", "two", ""]);
    assert_eq!(rig.drain(), NONE);
    rig.append("app.log", b"ee\nfour");
    assert_eq!(rig.drain(), ["three"]);
    rig.advance(10);
    assert_eq!(rig.drain(), ["four"], "the writer seems to have stopped without a newline");
    rig.append("app.log", b"\nfive\n\0\xff\n");
    assert_eq!(rig.drain(), ["five", "\0\u{fffd}"], "its newline came after all");
}

#[test]
fn a_newline_after_a_restart_behind_an_unfinished_line_is_no_blank_line() {
    let mut rig = Rig::new("app.log", &[], &[("app.log", b"one")]);
    rig.drain();
    rig.advance(10);
    assert_eq!(rig.drain(), ["one"]);
    rig.stop();
    rig.append("app.log", b"\ntwo\n");
    rig.restart();
    assert_eq!(rig.drain(), ["two"]);
}

#[test]
fn new_deleted_and_empty_files() {
    let mut rig = Rig::new("*.log", &[], &[("empty.log", b"")]);
    assert_eq!(rig.drain(), NONE);
    rig.append("new.log", b"new\n");
    rig.append("empty.log", b"no longer\n");
    let mut lines = rig.drain();
    lines.sort();
    assert_eq!(lines, ["new", "no longer"]);
    rig.append("new.log", b"last words\n");
    fs::remove_file(rig.path("new.log")).unwrap();
    assert_eq!(rig.drain(), ["last words"], "the deleted file was still open");
    rig.append("new.log", b"another\n");
    assert_eq!(rig.drain(), ["another"]);
    rig.advance(100);
    rig.drain();
    assert_eq!(rig.source().tails.len(), 2);
}

#[test]
fn compressed_files() {
    let members = [gzip(b"one\ntw"), gzip(b"o\nthree")].concat();
    let zst = zstd::encode_all(&b"vier\nfuenf\n"[..], 1).unwrap();
    let mut rig = Rig::new("*", &[("mode", "once")], &[("a.gz", &members), ("b.zst", &zst), ("c", b"plain")]);
    let mut lines = rig.drain();
    lines.sort();
    assert_eq!(lines, ["fuenf", "one", "plain", "three", "two", "vier"]);
    assert!(matches!(rig.poll(), Polled::End));
    rig.restart();
    assert_eq!(rig.drain(), NONE, "everything was read before");
    assert!(rig.source().take_warnings().is_empty());
}

#[test]
fn a_damaged_compressed_file_is_a_warning_and_hides_nothing() {
    let packed = gzip(b"one\ntwo\nthree");
    let mut rig = Rig::new("*", &[], &[("a.gz", &packed[..packed.len() - 6]), ("b", b"plain\n")]);
    rig.advance(10);
    let mut lines = rig.drain();
    rig.advance(20);
    lines.extend(rig.drain());
    lines.sort();
    assert_eq!(lines, ["one", "plain", "three", "two"]);
    assert_eq!(rig.source().take_warnings().len(), 1);
    fs::write(rig.path("a.gz"), [packed, gzip(b"\nfour\n")].concat()).unwrap();
    rig.advance(20);
    assert_eq!(rig.drain(), ["four"], "mended and grown: it goes on behind what was read");
    assert!(rig.source().take_warnings().is_empty());
}

#[test]
fn once_ends_and_hands_out_the_last_line() {
    let long = "x".repeat(5000);
    let content = format!("one\n{long}\nlast");
    let options = [("mode", "once"), ("block_bytes", "1000"), ("max_line_bytes", "1000"), ("max_open_files", "1")];
    let mut rig = Rig::new("*.log", &options, &[("a.log", content.as_bytes()), ("b.log", b""), ("c.log", b"c\nc")]);
    let mut lines = rig.drain();
    lines.sort();
    assert_eq!(lines, ["c", "c", "last", "one", &long[..1000]]);
    assert!(matches!(rig.poll(), Polled::End));
    let mut rig = Rig::new("*.log", &options, &[]);
    assert!(matches!(rig.poll(), Polled::End), "no file at all");
}

#[test]
fn no_file_holds_up_another() {
    let big = b"a line of the big file\n".repeat(1000);
    let mut rig = Rig::new("*.log", &[("block_bytes", "100")], &[("big.log", &big), ("small.log", b"small\n")]);
    rig.poll();
    rig.poll();
    assert!(rig.lines.contains(&"small".to_string()));
}

#[test]
fn more_files_than_may_be_open() {
    let mut rig = Rig::new("*.log", &[("max_open_files", "3")], &[]);
    for i in 0..20 {
        rig.append(&format!("{i}.log"), format!("{i}\nunfinished").as_bytes());
    }
    rig.drain();
    for _ in 0..20 {
        rig.advance(10);
        rig.drain();
    }
    for i in 0..20 {
        rig.append(&format!("{i}.log"), format!("\nmore of {i}\n").as_bytes());
    }
    let mut lines = rig.drain();
    lines.sort();
    let mut expected: Vec<String> = (0..20).map(|i| format!("more of {i}")).collect();
    expected.sort();
    assert_eq!(lines, expected);
    assert!(rig.source().tails.iter().filter(|t| t.content.is_some()).count() <= 3);
}

#[test]
fn start_at_the_end() {
    let files: [(&str, &[u8]); 2] = [("a.log", b"old\nunfin"), ("b.log.gz", &gzip(b"old\n"))];
    let mut rig = Rig::new("*", &[("start", "end")], &files);
    assert_eq!(rig.drain(), NONE);
    rig.advance(20);
    assert_eq!(rig.drain(), ["unfin"]);
    rig.append("a.log", b"\nnext\n");
    rig.append("new.log", b"new\n");
    let mut lines = rig.drain();
    lines.sort();
    assert_eq!(lines, ["new", "next"]);
    rig.stop();
    rig.append("a.log", b"while stopped\n");
    rig.append("other.log", b"other\n");
    rig.restart();
    let mut lines = rig.drain();
    lines.retain(|line| line != "old");
    lines.sort();
    assert_eq!(lines, ["other", "while stopped"]);
}

#[test]
fn what_cannot_be_read_is_said() {
    let rig = Rig::stopped("nosuch.log", &[]);
    let err = rig.open().err().unwrap();
    assert_eq!(err.kind(), Kind::UndefinedFile);
    assert!(err.message().contains("nosuch.log"));
    let rig = Rig::stopped("", &[]);
    assert!(rig.open().err().unwrap().message().ends_with("is a directory"));
    let mut rig = Rig::stopped("nosuch*.log", &[]);
    rig.restart();
    assert_eq!(rig.drain(), NONE);
    rig.append("nosuch1.log", b"now\n");
    assert_eq!(rig.drain(), ["now"]);
}

#[test]
fn flush_waits_for_what_was_there() {
    let mut rig = Rig::new("*.log", &[("block_bytes", "10")], &[("a.log", b"one\ntwo\nthree\nfour\n")]);
    rig.source().mark().unwrap();
    assert!(!rig.source().reached());
    rig.append("b.log", b"five\nunfinished");
    rig.source().mark().unwrap();
    while let Polled::Frames(..) = rig.poll() {}
    assert_eq!(rig.lines.len(), 5, "the new file was noticed at once");
    assert!(!rig.source().reached(), "the unfinished line is still to come");
    rig.advance(10);
    while let Polled::Frames(..) = rig.poll() {}
    rig.poll();
    assert!(rig.source().reached());
    assert_eq!(rig.lines.len(), 6);

    rig.truncate("a.log");
    rig.append("a.log", b"new\n");
    rig.source().mark().unwrap();
    rig.poll();
    assert_eq!(rig.lines.last().unwrap(), "new");
    rig.poll();
    assert!(rig.source().reached());
}

#[test]
fn positions_of_files_that_are_gone_are_not_needed_for_ever() {
    let text = |name: &str| format!("{name} begins with a line of its own\n").into_bytes();
    let mut rig = Rig::new("*.log*", &[], &[]);
    for name in ["a.log", "b.log", "c.log"] {
        rig.append(name, &text(name));
    }
    rig.advance(2);
    assert_eq!(rig.drain().len(), 3);
    let position = |rig: &Rig, name: &str| {
        let path = rig.path(name).display().to_string();
        rig.durable.values().find(|position| position.partition == path).unwrap().clone()
    };
    let all = ["a.log", "b.log", "c.log"].map(|name| position(&rig, name));
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.append("c.log.gz", &gzip(&text("c.log")));
    fs::remove_file(rig.path("c.log")).unwrap();
    rig.drain();
    assert_eq!(rig.source().unneeded(&all), NONE, "a moment ago they were there");
    for _ in 0..3 {
        rig.advance(100);
        assert_eq!(rig.drain(), NONE);
    }
    assert_eq!(rig.source().unneeded(&all), [all[0].key.clone()], "of c there is a copy");
    fs::remove_file(rig.path("b.log")).unwrap();
    fs::remove_file(rig.path("c.log.gz")).unwrap();
    for _ in 0..3 {
        rig.advance(100);
        rig.drain();
    }
    assert_eq!(rig.source().unneeded(&all), NONE, "nothing is there: a disk may be missing");
}
