//! Tests of the spool source without a server: the driver's part is played here.

use std::path::PathBuf;

use super::*;

struct Run {
    folder: tempfile::TempDir,
    options: Vec<(String, String)>,
    source: Spool,
    clock: Clock,
    /// What is in the log: lines, and positions.
    lines: Vec<String>,
    positions: HashMap<String, Position>,
    owed: VecDeque<Position>,
}

impl Run {
    fn start(more: &[(&str, &str)]) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let mut options = vec![("path".to_string(), folder.path().display().to_string())];
        options.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let clock = Clock::system();
        let source = open(&options, &clock);
        let (lines, positions, owed) = Default::default();
        Run { folder, options, source, clock, lines, positions, owed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Moves a complete file in.
    fn put(&self, name: &str, text: &str) {
        let temporary = self.path(&format!(".{name}"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.path(name)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// One poll; what it gives is logged.
    fn step(&mut self) -> bool {
        match self.source.poll().unwrap() {
            Polled::Frames(frames, position) => {
                self.lines.extend(frames.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()));
                if !frames.is_empty() {
                    let before = self.positions.insert(position.key.clone(), position.clone());
                    assert!(before.is_none_or(|before| before.end == position.start), "contiguous");
                }
                self.owed.push_back(position);
            }
            Polled::Gone { key, .. } => drop(self.positions.remove(&key)),
            Polled::Idle => return false,
            Polled::End => panic!("a folder has no end"),
        }
        true
    }

    fn acknowledge(&mut self) {
        for position in std::mem::take(&mut self.owed) {
            self.source.acknowledge(&position).unwrap();
        }
    }

    /// Until there is nothing to do.
    fn settle(&mut self) {
        self.source.mark().unwrap();
        loop {
            while self.step() {}
            if self.owed.is_empty() {
                break;
            }
            self.acknowledge();
        }
        assert!(self.source.reached());
    }

    /// As after a kill: what was logged is known, and nothing else.
    fn restart(&mut self) {
        self.owed.clear();
        self.source = open(&self.options, &self.clock);
        self.source.resume(self.positions.values().cloned().collect()).unwrap();
    }
}

fn open(options: &[(String, String)], clock: &Clock) -> Spool {
    let options = Options::parse("spool", &[OPTIONS], options).unwrap();
    Spool::open(&options, clock.clone()).unwrap()
}

const AT_ONCE: (&str, &str) = ("quiet_time", "0 s");

#[test]
fn files_are_read_in_order_and_renamed_when_acknowledged() {
    let mut run = Run::start(&[AT_ONCE, ("files", "*.log")]);
    run.put("b.log", "1\n2\n");
    run.put("a.log", "3\nlast");
    let older = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::options().write(true).open(run.path("b.log")).unwrap().set_modified(older).unwrap();
    run.put("empty.log", "");
    for other in ["c.txt", "d.log.tmp", ".hidden.log", "old.log.done"] {
        std::fs::write(run.path(other), "no\n").unwrap();
    }
    std::fs::create_dir(run.path("folder.log")).unwrap();
    run.source.mark().unwrap();
    while run.step() {}
    assert_eq!(run.lines, ["1", "2", "3", "last"]);
    assert!(run.path("b.log").exists() && run.source.reached(), "not before it is durable");
    run.settle();
    let left = [
        ".hidden.log",
        "a.log.done",
        "b.log.done",
        "c.txt",
        "d.log.tmp",
        "empty.log.done",
        "folder.log",
        "old.log.done",
    ];
    assert_eq!(run.names(), left);
    assert!(run.positions.is_empty(), "nothing is remembered of what is gone");
    run.put("b.log", "4\n");
    run.settle();
    assert_eq!(run.lines.last().unwrap(), "4");
    assert!(run.path("b.log.1.done").exists(), "the one before is not overwritten");
}

#[test]
fn compressed_files_and_deletion() {
    let mut run = Run::start(&[AT_ONCE, ("after", "delete"), ("block_bytes", "7")]);
    let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
    std::fs::write(run.path("a.gz"), super::super::file::gzip(text.as_bytes())).unwrap();
    std::fs::write(run.path("b.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    run.settle();
    assert_eq!(run.lines.len(), 200);
    assert!(run.names().is_empty());
}

#[test]
fn a_kill_at_any_moment_neither_loses_nor_repeats() {
    for moment in 0..60 {
        let mut run = Run::start(&[AT_ONCE, ("block_bytes", "10"), ("after", ["rename", "delete"][moment % 2])]);
        let mut expected = Vec::new();
        for file in 0..3 {
            let lines: Vec<String> = (0..9).map(|i| format!("{file} {i}")).collect();
            run.put(&format!("{file}.log"), &lines.join("\n"));
            expected.extend(lines);
        }
        for step in 0..moment / 2 {
            run.step();
            if step % 4 == 3 {
                run.acknowledge();
            }
        }
        run.restart();
        run.settle();
        run.restart();
        run.settle();
        run.lines.sort();
        assert_eq!(run.lines, expected, "killed after {moment}");
        assert!(run.names().iter().all(|name| name.ends_with(".done")));
    }
}

#[test]
fn a_position_of_a_file_that_has_left_is_no_other_files() {
    let mut run = Run::start(&[AT_ONCE, ("after", "delete")]);
    run.put("a.log", "1\n2\n");
    run.source.mark().unwrap();
    while run.step() {}
    let before = run.positions.clone();
    run.settle();
    // Killed before the log knew that it is gone; the next file may well get its inode.
    run.positions = before;
    run.restart();
    run.put("a.log", "3\n4\n");
    run.settle();
    assert_eq!(run.lines, ["1", "2", "3", "4"]);
    let stale: Vec<Position> = run.positions.values().cloned().collect();
    let unneeded = run.source.unneeded(&stale);
    assert_eq!(unneeded, stale.into_iter().map(|p| p.key).collect::<Vec<_>>());
}

#[test]
fn a_compressed_file_that_stalls_and_grows_is_read_once() {
    // Numbers that do not compress, so that half of the file is about half of the lines.
    let text = |seed: u64| -> String {
        let numbers = (1..3000u64).map(|i| i.wrapping_mul(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31));
        numbers.map(|number| format!("{number}\n")).collect()
    };
    let expected: Vec<String> = text(7).lines().map(str::to_string).collect();
    let packed = super::super::file::gzip(text(7).as_bytes());
    let (half, rest) = packed.split_at(packed.len() / 2);
    let stalled = || {
        let mut run = Run::start(&[AT_ONCE, ("block_bytes", "1000")]);
        std::fs::write(run.path("a.gz"), half).unwrap();
        run.settle();
        assert!(run.lines.len() > 500 && run.lines.len() < expected.len(), "{}", run.lines.len());
        assert_eq!(run.lines, expected[..run.lines.len()], "whole lines only");
        assert_eq!((run.names(), run.source.take_warnings().len()), (vec!["a.gz".to_string()], 1));
        run.settle();
        assert_eq!(run.source.take_warnings().len(), 0, "it is told once");
        run
    };
    let append = |run: &Run, bytes: &[u8]| {
        use std::io::Write;
        std::fs::File::options().append(true).open(run.path("a.gz")).unwrap().write_all(bytes).unwrap();
    };

    // It goes on, by and by.
    let mut run = stalled();
    let before = run.lines.len();
    append(&run, &rest[..rest.len() / 2]);
    run.settle();
    assert!(run.lines.len() > before && run.lines.len() < expected.len());
    assert_eq!((run.lines.as_slice(), run.source.take_warnings().len()), (&expected[..run.lines.len()], 1));
    append(&run, &rest[rest.len() / 2..]);
    run.settle();
    assert_eq!((run.lines.as_slice(), run.names()), (expected.as_slice(), vec!["a.gz.done".to_string()]));

    // The server starts again in between.
    let mut run = stalled();
    run.restart();
    run.settle();
    append(&run, rest);
    run.settle();
    assert_eq!(run.lines, expected);

    // It is sent again as a whole, and becomes another file of the same name.
    let mut run = stalled();
    std::fs::write(run.path(".a.gz"), &packed).unwrap();
    std::fs::rename(run.path(".a.gz"), run.path("a.gz")).unwrap();
    run.settle();
    assert_eq!(run.lines, expected);

    // What comes in its place has nothing to do with it.
    let mut run = stalled();
    let before = run.lines.len();
    std::fs::write(run.path("a.gz"), super::super::file::gzip(text(11).as_bytes())).unwrap();
    run.settle();
    assert_eq!(run.lines[before..], text(11).lines().map(str::to_string).collect::<Vec<_>>());
}

#[test]
fn what_is_added_later_is_told_and_read() {
    let mut run = Run::start(&[AT_ONCE]);
    run.put("a.log", "1\n");
    run.source.mark().unwrap();
    while run.step() {}
    use std::io::Write;
    let mut file = std::fs::File::options().append(true).open(run.path("a.log")).unwrap();
    file.write_all(b"2\n").unwrap();
    run.settle();
    run.settle();
    assert_eq!(run.lines, ["1", "2"]);
    assert!(run.source.take_warnings()[0].message().contains("was changed after it was taken"));
    assert_eq!(run.names(), ["a.log.done"]);

    run.put("b.log", "3\n4\n5\n");
    run.source.mark().unwrap();
    while run.step() {}
    std::fs::write(run.path("b.log"), "new\n").unwrap();
    run.settle();
    run.settle();
    assert_eq!(run.lines[2..], ["3", "4", "5", "new"], "a shorter one is another");
}

#[test]
fn a_file_is_complete_when_it_is_quiet() {
    let mut run = Run::start(&[("quiet_time", "10 s")]);
    run.clock = Clock::manual(Clock::system().now());
    run.restart();
    std::fs::write(run.path("a.log"), "1\n").unwrap();
    run.settle();
    assert!(run.lines.is_empty());
    run.clock.set(run.clock.now() + 11_000_000);
    run.settle();
    assert_eq!(run.lines, ["1"]);
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let mut run = Run::start(&[AT_ONCE]);
    let packed = super::super::file::gzip("good\n".repeat(1000).as_bytes());
    std::fs::write(run.path("a.gz"), &packed[..packed.len() - 4]).unwrap();
    run.put("b.log", "fine\n");
    run.settle();
    assert_eq!((run.lines.len(), run.lines.last().unwrap().as_str()), (1001, "fine"));
    let warnings = run.source.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].message().contains("a.gz"), "{warnings:?}");
    run.restart();
    run.settle();
    assert_eq!(run.lines.len(), 1001, "nor is it read twice");
    assert_eq!(run.names(), ["a.gz", "b.log.done"]);

    let missing = [("path".to_string(), "/no/such/folder".to_string())];
    let options = Options::parse("spool", &[OPTIONS], &missing).unwrap();
    assert_eq!(Spool::open(&options, Clock::system()).err().unwrap().kind(), Kind::UndefinedFile);
}
