//! What people and rotation tools do to log files, against the whole source. Time is turned by hand.

mod multiline;
mod plain;
mod random;
mod rotation;

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A directory of logs, a source that reads them, and what it has handed out.
struct Rig {
    dir: TempDir,
    pattern: String,
    options: Vec<(String, String)>,
    clock: Clock,
    source: Option<File>,
    /// The last position of each key, as a driver keeps them.
    durable: HashMap<String, Position>,
    lines: Vec<String>,
}

impl Rig {
    /// `files` are written before the source starts.
    fn new(pattern: &str, options: &[(&str, &str)], files: &[(&str, &[u8])]) -> Rig {
        let mut rig = Rig::stopped(pattern, options);
        for (name, content) in files {
            rig.append(name, content);
        }
        rig.restart();
        rig
    }

    fn stopped(pattern: &str, options: &[(&str, &str)]) -> Rig {
        let mut all = vec![("partial_line_timeout", "10 seconds"), ("poll_interval", "0 s")];
        all.retain(|(name, _)| !options.iter().any(|(other, _)| other == name));
        all.extend(options);
        Rig {
            dir: tempfile::tempdir().unwrap(),
            pattern: pattern.to_string(),
            options: all.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            clock: Clock::manual(Clock::system().now()),
            source: None,
            durable: HashMap::new(),
            lines: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, content: &[u8]) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(content).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy_truncate(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
        self.truncate(from);
    }

    fn truncate(&self, name: &str) {
        OpenOptions::new().write(true).open(self.path(name)).unwrap().set_len(0).unwrap();
    }

    fn open(&self) -> Result<File> {
        let mut given = self.options.clone();
        given.push(("path".to_string(), self.path(&self.pattern).display().to_string()));
        File::open(&Options::parse("connector \"file\"", &[OPTIONS], &given)?, self.clock.clone())
    }

    fn restart(&mut self) {
        let mut source = self.open().unwrap();
        source.resume(self.durable.values().cloned().collect()).unwrap();
        self.source = Some(source);
    }

    fn stop(&mut self) {
        self.source = None;
    }

    fn source(&mut self) -> &mut File {
        self.source.as_mut().expect("started")
    }

    fn advance(&self, seconds: i64) {
        self.clock.set(self.clock.now() + seconds * MICROS_PER_SECOND);
    }

    fn poll(&mut self) -> Polled {
        let polled = self.source().poll().unwrap();
        if let Polled::Frames(frames, position) = &polled {
            assert_eq!(position.end - position.start, frames.source_offset(frames.len()));
            if let Some(before) = self.durable.get(&position.key) {
                let gap = position.start.checked_sub(before.end);
                assert!(position.start == 0 || gap.is_some_and(|gap| gap <= 2), "{before:?}, then {position:?}");
            }
            self.durable.insert(position.key.clone(), position.clone());
            self.lines.extend(frames.iter().map(|line| String::from_utf8_lossy(line).into_owned()));
        }
        polled
    }

    /// Polls once for each file, one of which may be new.
    fn look_at_all(&mut self) {
        for _ in 0..=self.source().tails.len() {
            self.poll();
        }
    }

    /// One second later: polls until there is nothing new, and returns the new lines.
    fn drain(&mut self) -> Vec<String> {
        self.advance(1);
        while let Polled::Frames(..) = self.poll() {}
        std::mem::take(&mut self.lines)
    }
}

pub(in crate::source) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

const NONE: [&str; 0] = [];
