//! Files that are renamed, copied, truncated and compressed while they are followed or between two runs.

use std::fs::{self, OpenOptions};

use super::*;

#[test]
fn rotation_by_rename() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::new(pattern, &[], &[("app.log", b"one\n")]);
        assert_eq!(rig.drain(), ["one"]);
        rig.append("app.log", b"two\n");
        rig.rename("app.log", "app.log.1");
        rig.append("app.log.1", b"three\n");
        assert_eq!(rig.drain(), ["two", "three"], "{pattern}: there is no new file yet");
        rig.append("app.log", b"five\n");
        rig.append("app.log.1", b"four\n");
        assert_eq!(rig.drain(), ["four", "five"], "{pattern}: the old file comes first");
        rig.append("app.log.1", b"late\n");
        assert_eq!(rig.drain(), ["late"], "{pattern}: the writer still held the old file");
        rig.advance(100);
        assert_eq!(rig.drain(), NONE);
        assert_eq!(rig.source().tails.len(), if pattern == "app.log" { 1 } else { 2 });
    }
}

#[test]
fn rotation_by_copy_and_truncate() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::new(pattern, &[], &[("app.log", b"one\ntwo\n")]);
        assert_eq!(rig.drain(), ["one", "two"]);
        rig.append("app.log", b"three\nfo");
        rig.drain();
        rig.append("app.log", b"ur\nunseen\nunfinished");
        rig.copy_truncate("app.log", "app.log.1");
        rig.append("app.log", b"new\n");
        assert_eq!(rig.drain(), ["four", "unseen", "unfinished", "new"], "{pattern}");
        rig.copy_truncate("app.log", "app.log.2");
        assert_eq!(rig.drain(), NONE, "{pattern}: nothing was added");
        rig.append("app.log", b"newer\n");
        assert_eq!(rig.drain(), ["newer"], "{pattern}");
    }
}

/// The moment between the first listing and the first look into the files.
#[test]
fn rotation_by_copy_and_truncate_during_the_start() {
    for pattern in ["app.log", "app.log*"] {
        for copy_begun in [false, true] {
            let mut rig = Rig::new(pattern, &[], &[("app.log", b"one\ntwo\n"), ("app.log.0", b"")]);
            assert_eq!(rig.drain(), ["one", "two"]);
            rig.append("app.log", b"three\n");
            rig.stop();
            let mut source = rig.open().unwrap();
            if copy_begun {
                rig.append("app.log.1", b"");
            }
            let now = rig.clock.now();
            let positions: Vec<Position> = rig.durable.values().cloned().collect();
            let (saved, mut files) = (resume::keyed(&positions), Vec::new());
            source.add_candidates(&mut files, &saved, now);
            rig.copy_truncate("app.log", "app.log.1");
            rig.append("app.log", b"new\n");
            source.start_with(files, &saved, now);
            rig.source = Some(source);
            assert_eq!(rig.drain(), ["three", "new"], "{pattern}, copy begun before: {copy_begun}");
        }
    }
}

#[test]
fn a_copy_seen_before_the_truncation_is_not_read_twice() {
    let mut rig = Rig::new("app.log*", &[], &[("app.log", b"one\ntwo\n")]);
    rig.drain();
    fs::write(rig.path("app.log.1"), b"one\n").unwrap();
    assert_eq!(rig.drain(), NONE, "half copied");
    fs::write(rig.path("app.log.1"), b"one\ntwo\n").unwrap();
    rig.append("app.log", b"after the copy\n");
    assert_eq!(rig.drain(), ["after the copy"]);
    // Written again by the rotation tool, with all lines.
    fs::write(rig.path("app.log.1"), b"one\ntwo\nafter the copy\nbefore the cut\n").unwrap();
    rig.truncate("app.log");
    rig.append("app.log", b"new\n");
    assert_eq!(rig.drain(), ["before the cut", "new"]);
}

#[test]
fn files_that_begin_alike_are_all_read() {
    let header = "#Fields: date time status\n".repeat(20);
    let mut rig = Rig::new("*.log", &[], &[("a.log", format!("{header}a\n").as_bytes())]);
    assert_eq!(rig.drain().len(), 21);
    rig.append("b.log", header.as_bytes());
    assert_eq!(rig.drain(), NONE, "may be a copy");
    rig.append("b.log", b"b\n");
    assert_eq!(rig.drain().len(), 21, "is none");
    rig.append("short.log", b"#Fields");
    rig.drain();
    rig.append("short.log", b": date time status\n");
    rig.drain();
    rig.advance(5);
    assert_eq!(rig.drain(), ["#Fields: date time status"], "too short to stay suspicious");
}

#[test]
fn truncated_and_grown_past_the_old_offset() {
    let mut rig = Rig::new("app.log", &[], &[("app.log", b"one\ntwo\nunfini")]);
    assert_eq!(rig.drain(), ["one", "two"]);
    rig.truncate("app.log");
    rig.append("app.log", b"uno\ndue\ntre\nquattro\n");
    assert_eq!(rig.drain(), ["unfini", "uno", "due", "tre", "quattro"]);
    rig.truncate("app.log");
    rig.append("app.log", b"x\n");
    assert_eq!(rig.drain(), ["x"]);
}

#[test]
fn a_rotated_file_that_gets_compressed_is_not_read_twice() {
    for restart in [false, true] {
        let mut rig = Rig::new("app.log*", &[], &[("app.log", b"one\ntwo\n")]);
        assert_eq!(rig.drain(), ["one", "two"]);
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", b"new\n");
        assert_eq!(rig.drain(), ["new"]);
        if restart {
            rig.stop();
        }
        rig.append("app.log.1.gz", &gzip(b"one\ntwo\nunread\n"));
        if !restart {
            rig.append("app.log.1", b"unread\n");
            assert_eq!(rig.drain(), ["unread"]);
        }
        fs::remove_file(rig.path("app.log.1")).unwrap();
        if restart {
            rig.restart();
            rig.advance(10);
            assert_eq!(rig.drain(), ["unread"]);
        }
        rig.advance(100);
        assert_eq!(rig.drain(), NONE);
        rig.advance(100);
        assert_eq!(rig.drain(), NONE);
    }
}

#[test]
fn lines_added_before_a_file_was_compressed_come_once() {
    let mut rig = Rig::new("app.log*", &[], &[("app.log", b"one\n")]);
    assert_eq!(rig.drain(), ["one"]);
    fs::write(rig.path("app.log.1.gz"), gzip(b"one\ntwo\n")).unwrap();
    rig.append("app.log", b"two\n");
    fs::remove_file(rig.path("app.log")).unwrap();
    assert_eq!(rig.drain(), ["two"]);
    rig.advance(100);
    assert_eq!(rig.drain(), NONE);
}

#[test]
fn resume_in_the_middle_and_after_rotation_while_stopped() {
    for pattern in ["app.log", "app.log*"] {
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        let mut rig = Rig::new(pattern, &[("block_bytes", "200")], &[("app.log", text.as_bytes())]);
        rig.poll();
        rig.poll();
        rig.stop();
        rig.restart();
        rig.poll();
        rig.stop();
        rig.append("app.log", b"more\n");
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", b"new\n");
        rig.restart();
        rig.poll();
        rig.stop();
        rig.rename("app.log.1", "app.log.2");
        rig.restart();
        let expected = format!("{text}more\nnew");
        assert_eq!(rig.drain(), expected.split('\n').collect::<Vec<_>>(), "{pattern}");

        rig.stop();
        rig.append("app.log", b"unseen\n");
        rig.copy_truncate("app.log", "app.log.1");
        rig.append("app.log", b"newer, and longer than before\n");
        rig.restart();
        assert_eq!(rig.drain(), ["unseen", "newer, and longer than before"], "{pattern}");
    }
}

#[test]
fn a_file_that_waits_behind_another_is_watched() {
    let backlog: String = (0..100).map(|i| format!("line {i}\n")).collect();
    for by_copy in [false, true] {
        let mut rig = Rig::new("app.log", &[("block_bytes", "100")], &[("app.log", backlog.as_bytes())]);
        rig.poll();
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", b"waiting\n");
        rig.poll();
        rig.poll();
        rig.append("app.log", b"waiting too\n");
        match by_copy {
            true => rig.copy_truncate("app.log", "app.log.2"),
            false => rig.rename("app.log", "app.log.2"),
        }
        rig.append("app.log", b"new\n");
        rig.poll();
        rig.poll();
        assert!(rig.lines.len() < 100, "still waiting");
        let mut lines = std::mem::take(&mut rig.lines);
        lines.extend(rig.drain());
        let expected = format!("{backlog}waiting\nwaiting too\nnew");
        assert_eq!(lines, expected.split('\n').collect::<Vec<_>>(), "by copy: {by_copy}");
    }
}

#[test]
fn an_old_file_that_begins_alike_is_no_copy() {
    let mut rig = Rig::new("app.log", &[], &[("app.log.1", b"#Fields\nlong ago\n"), ("app.log", b"#Fields\n")]);
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let old = OpenOptions::new().append(true).open(rig.path("app.log.1")).unwrap();
    old.set_modified(an_hour_ago).unwrap();
    assert_eq!(rig.drain(), ["#Fields"]);
    rig.truncate("app.log");
    rig.append("app.log", b"new\n");
    assert_eq!(rig.drain(), ["new"]);
}

#[test]
fn after_a_restart_a_new_file_waits_for_all_that_had_its_name() {
    let text: String = (0..20).map(|i| format!("line {i}\n")).collect();
    let mut rig = Rig::new("app.log", &[], &[("app.log", text.as_bytes())]);
    rig.drain();
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", b"second\n");
    assert_eq!(rig.drain(), ["second"]);
    rig.stop();
    rig.append("app.log", b"unseen 1\nunseen 2\n");
    rig.rename("app.log", "app.log.2");
    rig.append("app.log", b"third\n");
    rig.options.push(("block_bytes".to_string(), "5".to_string()));
    rig.restart();
    assert_eq!(rig.drain(), ["unseen 1", "unseen 2", "third"]);
}
