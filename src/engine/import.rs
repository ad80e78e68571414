//! Old files, read into a stream once and while it goes on.
//!
//! An import is a bounded file source beside the stream's own. All imports of a stream have one source number
//! ([`IMPORTS`]), and positions are kept per file (by what the file is, not by its name) in the log with the rows: so the
//! same files named again, after a crash or by mistake, go on behind the last durable line or add nothing. One import at a
//! time, because two would read a file twice that both name.
//!
//! It ends when all that was read is durable and visible. Dropped before (a client that cancels), it stops where it is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{Engine, Stream, blocking};
use crate::error::{Error, Kind, Result};
use crate::frame;
use crate::ingest::{Ingest, SourceStatus};
use crate::options::{OptionSpec, Options};
use crate::position::Position;
use crate::source::file::{self, File};
use crate::source::{Partition, Polled, Source};
use crate::storage::stream_log::IMPORTS;
use crate::time::Clock;

/// What an import brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub lines: u64,
    pub rows: u64,
    pub malformed: u64,
    pub files: usize,
    /// Files that an earlier import had read to their end, and bytes (decompressed) that were not read again.
    pub known_files: usize,
    pub known_bytes: u64,
}

/// The imports of one stream.
#[derive(Default)]
pub struct Imports {
    running: Arc<tokio::sync::Mutex<()>>,
    /// The last position of each file since the start of the engine, by key; older ones were found in the log.
    positions: Arc<Mutex<HashMap<String, Position>>>,
}

impl Engine {
    /// Reads the files that `patterns` (paths or patterns) mean into a stream, as far as earlier imports have not.
    pub async fn import(&self, stream: &str, patterns: &[String]) -> Result<Import> {
        let stream = self.stream_called(stream)?;
        let turn = Arc::clone(&stream.imports.running).try_lock_owned().map_err(|_| {
            Error::new(Kind::ObjectInUse, format!("another import into \"{}\" is running", stream.name))
                .with_hint("It is in logweir.sources with its progress; name its files and yours in one IMPORT.")
        })?;
        let ingest = stream.pipeline()?;
        let files = {
            let (stream, patterns) = (Arc::clone(&stream), patterns.to_vec());
            blocking(move || files_of(&stream, &patterns)).await?
        };
        let count = files.len();
        // What is on its way is not of this import.
        ingest.through().await?;
        let before = stream.runner.progress().imported;

        let (ended, end) = oneshot::channel();
        let inner = File::once(files, &options_of(&stream)?, Clock::system())?;
        let positions = Arc::clone(&stream.imports.positions);
        let report = Report::default();
        let source = Old { inner, positions, report, ended: Some(ended), warnings: Vec::new() };
        let status = Arc::new(SourceStatus::new(IMPORTS, "import", file::SPEC.name));
        let running = Running { parts: Some((Arc::clone(&ingest), turn)) };
        {
            let (ingest, status) = (Arc::clone(&ingest), Arc::clone(&status));
            // Looks at the beginnings of the files.
            blocking(move || ingest.add_source(Box::new(source), status)).await?;
        }
        let report = end.await.map_err(|_| ingest.why_stopped())?;
        ingest.through().await?;
        running.finish().await?;

        let after = stream.runner.progress().imported;
        let done = Import {
            lines: status.frames.load(Ordering::Relaxed),
            rows: after.rows - before.rows,
            malformed: after.malformed - before.malformed,
            files: count,
            known_files: report.known.iter().filter(|(name, _)| !report.read.contains(*name)).count(),
            known_bytes: report.known.values().sum(),
        };
        match report.failures.first() {
            None => Ok(done),
            Some(first) => {
                let others = match report.failures.len() {
                    1 => String::new(),
                    n => format!(" So could not {} more.", n - 1),
                };
                let (lines, files) = (done.lines, done.files - report.failures.len().min(done.files));
                Err(Error::new(first.kind(), first.message())
                    .with_detail(format!("{lines} lines were imported; {files} files were read to their end.{others}"))
                    .with_hint("Run it again when the file can be read: what was imported is not read again."))
            }
        }
    }

    /// Fails when a path is in the data directory, where only the engine itself writes.
    pub fn check_not_inside(&self, path: &Path) -> Result<()> {
        let Some(data) = self.config.data_dir.as_ref().and_then(|dir| dir.canonicalize().ok()) else { return Ok(()) };
        let existing = path.ancestors().find_map(|p| p.canonicalize().ok());
        if existing.is_some_and(|path| path.starts_with(&data)) {
            return Err(Error::new(Kind::InsufficientPrivilege, "the data directory is written by the engine only"));
        }
        Ok(())
    }
}

/// The files, each once, under names that do not depend on where the server was started.
fn files_of(stream: &Stream, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for pattern in patterns {
        let found = file::expand(pattern)?;
        if found.is_empty() {
            return Err(Error::new(Kind::UndefinedFile, format!("no file matches {pattern:?}")));
        }
        for path in found {
            let absolute = std::path::absolute(&path).map_err(|err| Error::io("read", &path, &err))?;
            if !absolute.is_file() {
                return Err(Error::new(
                    Kind::WrongObjectType,
                    format!("{:?} is not a file", path.display().to_string()),
                ));
            }
            files.insert(absolute);
        }
    }
    let own = stream.sources().into_iter().filter(|s| s.id != IMPORTS).flat_map(|s| s.get().partitions);
    let own: HashSet<PathBuf> = own.filter_map(|p| Path::new(&p.name).canonicalize().ok()).collect();
    if let Some(path) = files.iter().find(|path| path.canonicalize().is_ok_and(|path| own.contains(&path))) {
        let (path, name) = (path.display().to_string(), &stream.name);
        return Err(Error::new(Kind::ObjectInUse, format!("stream \"{name}\" reads {path:?} itself"))
            .with_hint("Its lines are in the stream already, or will be."));
    }
    Ok(files.into_iter().collect())
}

/// How files are read into the stream: as its own, if its connector is of files.
fn options_of(stream: &Stream) -> Result<Options> {
    let definition = &stream.definition;
    let own = definition.connector.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(file::SPEC.name));
    let wanted = |(name, _): &&(String, String)| {
        let named = |other: &str| name.eq_ignore_ascii_case(other);
        let framing = named("framing") || frame::OPTIONS.iter().any(|option| named(option.name));
        own && (framing || named("block_bytes") || named("max_open_files"))
    };
    let given: Vec<_> = definition.options.iter().filter(wanted).cloned().collect();
    // Its files are named by the statement.
    let known: Vec<OptionSpec> = file::SPEC.options.iter().filter(|option| option.name != "path").copied().collect();
    Options::parse("IMPORT", &[&known], &given)
}

/// What the source has to say at its end.
#[derive(Debug, Default)]
struct Report {
    /// Files of which an earlier import has read so many bytes.
    known: HashMap<String, u64>,
    /// Files that gave lines.
    read: HashSet<String>,
    failures: Vec<Error>,
}

/// The files being read: keeps their positions for the next import, and tells when it is at the end.
struct Old {
    inner: File,
    positions: Arc<Mutex<HashMap<String, Position>>>,
    report: Report,
    ended: Option<oneshot::Sender<Report>>,
    /// For the driver, which logs them.
    warnings: Vec<Error>,
}

impl Old {
    fn end(&mut self) -> Polled {
        if let Some(ended) = self.ended.take() {
            // Whoever waited may have gone away.
            let _ = ended.send(std::mem::take(&mut self.report));
        }
        Polled::End
    }
}

impl Source for Old {
    fn resume(&mut self, from_log: Vec<Position>) -> Result<()> {
        let mut positions: HashMap<String, Position> = from_log.into_iter().map(|p| (p.key.clone(), p)).collect();
        positions.extend(self.positions.lock().clone());
        self.inner.resume(positions.into_values().collect())?;
        let known = self.inner.partitions().into_iter().filter(|p| p.position > 0);
        self.report.known = known.map(|p| (p.name, p.position)).collect();
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let polled = self.inner.poll();
        let warnings = self.inner.take_warnings();
        self.report.failures.extend(warnings.iter().cloned());
        self.warnings.extend(warnings);
        match polled {
            Ok(Polled::Frames(frames, position)) => {
                if !self.report.read.contains(&position.partition) {
                    self.report.read.insert(position.partition.clone());
                }
                self.positions.lock().insert(position.key.clone(), position.clone());
                Ok(Polled::Frames(frames, position))
            }
            Ok(Polled::Gone { partition, key }) => Ok(Polled::Gone { partition, key }),
            Ok(Polled::Idle) => Ok(Polled::Idle),
            Ok(Polled::End) => Ok(self.end()),
            // Nobody would wait for it to be tried again.
            Err(err) => {
                self.report.failures.push(err);
                Ok(self.end())
            }
        }
    }

    fn mark(&mut self) -> Result<()> {
        self.inner.mark()
    }

    fn reached(&self) -> bool {
        self.inner.reached()
    }

    fn partitions(&self) -> Vec<Partition> {
        self.inner.partitions()
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.warnings)
    }
}

/// Takes the source away again, and only then lets the next import have its turn.
struct Running {
    parts: Option<(Arc<Ingest>, OwnedMutexGuard<()>)>,
}

impl Running {
    async fn finish(mut self) -> Result<()> {
        let Some((ingest, turn)) = self.parts.take() else { return Ok(()) };
        blocking(move || {
            ingest.remove_source(IMPORTS);
            drop(turn);
            Ok(())
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((ingest, turn)) = self.parts.take() else { return };
        // Waits for a thread. Should none be had for that, the source ends with the stream.
        let stopping = std::thread::Builder::new().name("stop import".into()).spawn(move || {
            ingest.remove_source(IMPORTS);
            drop(turn);
        });
        drop(stopping);
    }
}
