//! To a file, which may be rotated the way logrotate does it (`access.log` becomes `access.log.1`, what was that
//! `access.log.2`, and so on), and to the standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::output::{Output, Settings};
use crate::error::{Error, Result};

/// A file, or the standard output for `-`.
pub fn open(path: &Path, settings: &Settings) -> Result<Box<dyn Output>> {
    if path == Path::new("-") {
        return Ok(Box::new(Stream { name: PathBuf::from("standard output"), to: io::stdout().lock() }));
    }
    let file = append_to(path)?;
    match settings.rotate {
        None => Ok(Box::new(Stream { name: path.to_path_buf(), to: file })),
        Some(limit) => {
            let size = file.metadata().map_err(|err| Error::io("read", path, &err))?.len();
            Ok(Box::new(Rotated { path: path.to_path_buf(), file, size, limit, keep: settings.keep }))
        }
    }
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|err| Error::io("open", path, &err))
}

/// Anything that takes bytes.
pub struct Stream<W> {
    /// For messages.
    pub name: PathBuf,
    pub to: W,
}

impl<W: Write> Output for Stream<W> {
    fn write(&mut self, block: &[u8]) -> Result<bool> {
        match self.to.write_all(block).and_then(|()| self.to.flush()) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(err) => Err(Error::io("write to", &self.name, &err)),
        }
    }
}

/// See the file header.
struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    /// None: all.
    keep: Option<u32>,
}

impl Output for Rotated {
    fn write(&mut self, block: &[u8]) -> Result<bool> {
        let mut rest = block;
        while !rest.is_empty() {
            let room = self.limit.saturating_sub(self.size).min(rest.len() as u64) as usize;
            // Whole lines; one that is longer than a file is a file.
            let fits =
                if room == rest.len() { room } else { memchr::memrchr(b'\n', &rest[..room]).map_or(0, |at| at + 1) };
            if fits == 0 && self.size > 0 {
                self.rotate()?;
                continue;
            }
            let take = if fits > 0 { fits } else { memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1) };
            self.file.write_all(&rest[..take]).map_err(|err| Error::io("write to", &self.path, &err))?;
            self.size += take as u64;
            rest = &rest[take..];
        }
        Ok(true)
    }
}

impl Rotated {
    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn rotate(&mut self) -> Result<()> {
        let mut last = (1..).take_while(|number| self.numbered(*number).exists()).last().unwrap_or(0);
        if let Some(keep) = self.keep {
            while last > 0 && last >= keep {
                let oldest = self.numbered(last);
                std::fs::remove_file(&oldest).map_err(|err| Error::io("delete", &oldest, &err))?;
                last -= 1;
            }
        }
        let rename = |from: &Path, to: &Path| std::fs::rename(from, to).map_err(|err| Error::io("rename", from, &err));
        for number in (1..=last).rev() {
            rename(&self.numbered(number), &self.numbered(number + 1))?;
        }
        match self.keep {
            Some(0) => std::fs::remove_file(&self.path).map_err(|err| Error::io("delete", &self.path, &err))?,
            Some(_) | None => rename(&self.path, &self.numbered(1))?,
        }
        (self.file, self.size) = (append_to(&self.path)?, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_has_whole_lines_and_no_more_than_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let settings = Settings { rotate: Some(30), keep: Some(2), ..Settings::default() };
        let mut output = open(&path, &settings).unwrap();
        let long = "x".repeat(50) + "\n";
        assert!(output.write(b"one\ntwo\nthree\nfour\nfive\nsix\nseven\n").unwrap());
        assert!(output.write(long.as_bytes()).unwrap());
        assert!(output.write(b"end\n").unwrap());
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("access.log"), "end\n");
        assert_eq!(read("access.log.1"), long);
        assert_eq!(read("access.log.2"), "five\nsix\nseven\n");
        assert!(!folder.path().join("access.log.3").exists(), "only two are kept");
    }

    #[test]
    fn without_a_number_all_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut output = open(&path, &Settings { rotate: Some(4), ..Settings::default() }).unwrap();
        for line in 0..12 {
            output.write(format!("{line:03}\n").as_bytes()).unwrap();
        }
        let mut all = String::new();
        for number in (1..12).rev() {
            all += &std::fs::read_to_string(folder.path().join(format!("a.log.{number}"))).unwrap();
        }
        all += &std::fs::read_to_string(&path).unwrap();
        assert_eq!(all.lines().count(), 12);
        assert!(all.starts_with("000\n001\n") && all.ends_with("010\n011\n"));
    }
}
