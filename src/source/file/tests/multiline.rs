//! Records of several lines, cut short by growth, rotation, restarts and the end of files.

use super::*;

const RECORDS: [(&str, &str); 2] = [("multiline_start", r"^\d"), ("multiline_timeout", "20 seconds")];

#[test]
fn a_record_grows_until_the_next_begins_or_silence() {
    let mut rig = Rig::new("app.log", &RECORDS, &[("app.log", b"1 one\n  more\n2 two\n  mo")]);
    assert_eq!(rig.drain(), ["1 one\n  more"]);
    rig.append("app.log", b"re\n");
    assert_eq!(rig.drain(), NONE);
    rig.append("app.log", b"3 three\n");
    assert_eq!(rig.drain(), ["2 two\n  more"]);
    rig.advance(18);
    assert_eq!(rig.drain(), NONE, "not silent for long enough");
    rig.advance(1);
    assert_eq!(rig.drain(), ["3 three"]);
    rig.append("app.log", b"  late\n4 four");
    assert_eq!(rig.drain(), NONE, "the second line may still become anything");
    rig.append("app.log", b" x\n");
    assert_eq!(rig.drain(), ["  late"]);
}

#[test]
fn an_unfinished_line_has_a_timeout_of_its_own() {
    let options = [("multiline_start", r"^\d"), ("multiline_timeout", "2 seconds")];
    let mut rig = Rig::new("app.log", &options, &[("app.log", b"1 one\n  mor")]);
    rig.drain();
    rig.advance(5);
    assert_eq!(rig.drain(), NONE, "of 10 seconds, here");
    rig.append("app.log", b"e\n");
    assert_eq!(rig.drain(), NONE);
    rig.advance(2);
    assert_eq!(rig.drain(), ["1 one\n  more"]);
    rig.append("app.log", b"2 two\n  more");
    rig.drain();
    rig.advance(10);
    assert_eq!(rig.drain(), ["2 two\n  more"]);
    rig.append("app.log", b"\n3 three\n");
    rig.drain();
    rig.advance(2);
    assert_eq!(rig.drain(), ["3 three"], "the newline that came late is no blank line");
}

#[test]
fn positions_cover_whole_records_so_a_restart_reads_the_unfinished_one_again() {
    let mut rig = Rig::new("app.log", &RECORDS, &[("app.log", b"1 one\n  more\n2 two\n  mo")]);
    assert_eq!(rig.drain(), ["1 one\n  more"]);
    assert!(rig.durable.values().all(|position| position.end == 13));
    rig.stop();
    rig.append("app.log", b"re\n");
    rig.restart();
    assert_eq!(rig.drain(), NONE);
    rig.append("app.log", b"  and more\n3 three");
    rig.drain();
    rig.advance(20);
    assert_eq!(rig.drain(), ["2 two\n  more\n  and more", "3 three"]);
    rig.stop();
    rig.append("app.log", b"\n  late\n4 four\n");
    rig.restart();
    assert_eq!(rig.drain(), ["  late"]);
}

#[test]
fn a_record_goes_on_in_the_file_that_was_renamed() {
    for pattern in ["app.log", "app.log*"] {
        for restart in [false, true] {
            let mut rig = Rig::new(pattern, &RECORDS, &[("app.log", b"1 one\n2 two\n")]);
            assert_eq!(rig.drain(), ["1 one"]);
            rig.rename("app.log", "app.log.1");
            rig.append("app.log.1", b"  more of two\n");
            rig.append("app.log", b"3 three\n");
            assert_eq!(rig.drain(), NONE);
            if restart {
                rig.stop();
                rig.restart();
            }
            rig.append("app.log.1", b"  even more\n");
            rig.append("app.log", b"4 four\n");
            assert_eq!(rig.drain(), ["3 three"]);
            rig.advance(20);
            let mut lines = rig.drain();
            lines.sort();
            assert_eq!(lines, ["2 two\n  more of two\n  even more", "4 four"], "{pattern}, restart {restart}");
        }
    }
}

/// What comes after a truncation is in another file: nobody can tell whether it belongs to the record before it.
#[test]
fn a_record_ends_where_a_copy_ends() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::new(pattern, &RECORDS, &[("app.log", b"1 one\n2 two\n")]);
        assert_eq!(rig.drain(), ["1 one"]);
        rig.append("app.log", b"  more\n");
        rig.copy_truncate("app.log", "app.log.1");
        rig.append("app.log", b"  rest of two\n3 three\n");
        assert_eq!(rig.drain(), ["2 two\n  more", "  rest of two"], "{pattern}");
        rig.truncate("app.log");
        rig.append("app.log", b"4\n");
        assert_eq!(rig.drain(), ["3 three"], "{pattern}: there is no copy, so it ends there too");
    }
}

#[test]
fn flush_waits_for_the_last_record_and_does_not_tear_it() {
    let mut rig = Rig::new("app.log", &RECORDS, &[("app.log", b"1 one\n2 two\n")]);
    rig.source().mark().unwrap();
    assert_eq!(rig.drain(), ["1 one"]);
    assert!(!rig.source().reached());
    rig.append("app.log", b"  more of two\n3 three\n");
    assert_eq!(rig.drain(), ["2 two\n  more of two"]);
    assert!(rig.source().reached(), "what was there at the time of FLUSH has been handed out");
    rig.source().mark().unwrap();
    assert_eq!(rig.drain(), NONE);
    assert!(!rig.source().reached());
    rig.advance(20);
    assert_eq!(rig.drain(), ["3 three"]);
    assert!(rig.source().reached());
}

#[test]
fn whole_and_compressed_files_end_their_last_record() {
    let zst = zstd::encode_all(&b"3 c\n  d\n4 e"[..], 1).unwrap();
    let files: [(&str, &[u8]); 3] = [("a.gz", &gzip(b"1 a\n  b\n2 c\n  d")), ("b.zst", &zst), ("c", b"5 e\n  f\n")];
    let expected = ["1 a\n  b", "2 c\n  d", "3 c\n  d", "4 e", "5 e\n  f"];
    let once = [RECORDS[0], RECORDS[1], ("mode", "once")];
    let mut rig = Rig::new("*", &once, &files);
    let mut lines = rig.drain();
    lines.sort();
    assert_eq!(lines, expected);
    assert!(matches!(rig.poll(), Polled::End));
    rig.restart();
    assert_eq!(rig.drain(), NONE);

    let mut rig = Rig::new("*", &RECORDS, &files);
    rig.advance(10);
    let mut lines = rig.drain();
    lines.extend(rig.drain());
    lines.sort();
    assert_eq!(lines, expected[..4], "a compressed file is not written on, another may be");
}

#[test]
fn limits_cut_a_record_where_a_restart_goes_on() {
    let options = [("multiline_start", r"^\d"), ("max_record_lines", "3"), ("multiline_timeout", "1 hour")];
    for restart in [false, true] {
        let mut rig = Rig::new("app.log", &options, &[("app.log", b"1\n a\n b\n c\n d\n")]);
        assert_eq!(rig.drain(), ["1\n a\n b"]);
        if restart {
            rig.stop();
            rig.restart();
        }
        rig.append("app.log", b" e\n f\n2\n");
        assert_eq!(rig.drain(), [" c\n d\n e", " f"]);
    }
}

#[test]
fn more_files_with_unfinished_records_than_may_be_open() {
    let options = [("multiline_start", r"^\d"), ("multiline_timeout", "1 hour"), ("max_open_files", "3")];
    let mut rig = Rig::new("*.log", &options, &[]);
    for i in 0..20 {
        rig.append(&format!("{i}.log"), format!("{i} first\n  a\n{i} second\n").as_bytes());
    }
    let mut lines = Vec::new();
    for _ in 0..20 {
        lines.extend(rig.drain());
    }
    for i in 0..20 {
        rig.append(&format!("{i}.log"), format!("  b\n{i} third\n").as_bytes());
    }
    for _ in 0..20 {
        lines.extend(rig.drain());
    }
    lines.sort();
    let mut expected: Vec<String> =
        (0..20).flat_map(|i| [format!("{i} first\n  a"), format!("{i} second\n  b")]).collect();
    expected.sort();
    assert_eq!(lines, expected);
    assert!(rig.source().tails.iter().filter(|t| t.content.is_some()).count() <= 3);
    rig.advance(3600);
    assert_eq!(rig.drain().len(), 20);
}

#[test]
fn records_between_nul_bytes() {
    let mut rig = Rig::new("app.log", &[("framing", "nul")], &[("app.log", b"one\ntwo\0thr")]);
    assert_eq!(rig.drain(), ["one\ntwo"]);
    rig.append("app.log", b"ee\0fo");
    assert_eq!(rig.drain(), ["three"]);
    rig.stop();
    rig.append("app.log", b"ur");
    rig.restart();
    rig.drain();
    rig.advance(10);
    assert_eq!(rig.drain(), ["four"]);
    rig.stop();
    rig.append("app.log", b"\0five\n\0");
    rig.restart();
    assert_eq!(rig.drain(), ["five\n"], "the NUL of a record handed out before is no empty record");
    rig.options.push(("start".to_string(), "end".to_string()));
    rig.durable.clear();
    rig.append("app.log", b"si\nx");
    rig.restart();
    rig.append("app.log", b"\0");
    assert_eq!(rig.drain(), ["si\nx"], "begun before, and whole");
}
