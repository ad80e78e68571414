//! Start-up: goes on from the last checkpoint.
//!
//! Each object is made again from its statement, in the order in which they were made. A stream gets what the checkpoint
//! says of it and reads its log from there; a view's rollup gets the runs that the checkpoint names. What a checkpoint does
//! not have, or has damaged, is made again from the stream's rows: archive, then log.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Engine, Stream};
use crate::catalog::{Catalog, Object, ObjectKind};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::options::Options;
use crate::rollup::Rollup;
use crate::storage::archive::{Archive, Sizes, Spec};
use crate::storage::checkpoint::{ArchiveState, Checkpoints, MALFORMED_LINES, Manifest, Opened, StreamState};
use crate::storage::fs::Fs;
use crate::storage::history::History;
use crate::storage::hot::Archived;
use crate::storage::object;
use crate::storage::space::Space;
use crate::storage::state_files::StateFiles;
use crate::storage::stream_log::{NAMED, Noted, Positions};
use crate::storage::wal::Location;
use crate::time::Micros;
use crate::view::join::{Joint, Known};
use crate::view::runner::Runner;

/// What outlives the process.
pub(super) struct Durable {
    pub checkpoints: Mutex<Checkpoints>,
    pub states: Arc<StateFiles>,
    pub space: Arc<Space>,
    /// The checkpoint that this process goes on from.
    newest: Option<Manifest>,
}

impl Durable {
    pub fn open(fs: &Arc<dyn Fs>, config: &Config, dir: &Path) -> Result<Durable> {
        let Opened { checkpoints, states, newest, damaged } = Checkpoints::open(Arc::clone(fs), dir)?;
        for err in &damaged {
            tracing::error!(error = %err, "a checkpoint is damaged; the one before it is used, or the logs are read from their beginning");
        }
        let space = Arc::new(Space::new(Arc::clone(fs), dir, config));
        Ok(Durable { checkpoints: Mutex::new(checkpoints), states, space, newest })
    }

    /// What the checkpoint says of a stream.
    pub fn saved(&self, stream: u32) -> Option<&StreamState> {
        self.newest.as_ref()?.streams.get(&stream)
    }
}

/// Makes a catalog that lacks its last change (its file was damaged) agree with the folders of streams and tables that
/// there are: an id must not be given again to which a folder belongs, and what was dropped last is not there any more.
/// Sources have no folders: their ids are found when the logs of their streams are opened, see [`reserve`].
pub(super) fn settle(catalog: &mut Catalog, fs: &dyn Fs, dir: &Path) -> Result<()> {
    let folders = |name: &str| -> Result<BTreeSet<u32>> {
        let dir = dir.join(name);
        match fs.list(&dir) {
            Ok(paths) => Ok(paths.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(err) => Err(Error::io("list", &dir, &err)),
        }
    };
    let (streams, tables, sinks) = (folders("streams")?, folders("tables")?, folders("sinks")?);
    let next_id = streams.iter().chain(&tables).chain(&sinks).max().map_or(0, |last| last.saturating_add(1));
    let Some(err) = catalog.fell_back() else {
        // An older catalog was put there, or none, or a CREATE did not come to its end: a folder may hold rows.
        if next_id > catalog.next_id() {
            tracing::warn!(next_id, "there are folders that the catalog does not know; they are left alone");
            catalog.mend(next_id, &BTreeSet::new())?;
        }
        return Ok(());
    };
    tracing::error!(error = %err, detail = err.detail(), hint = err.hint(), "the catalog's last change may be missing");
    let is_gone = |object: &&Object| match object.kind {
        ObjectKind::Stream => !streams.contains(&object.id),
        ObjectKind::ReferenceTable => !tables.contains(&object.id),
        ObjectKind::MaterializedView
        | ObjectKind::View
        | ObjectKind::ExternalTable
        | ObjectKind::Source
        | ObjectKind::Sink
        | ObjectKind::Notifier
        | ObjectKind::Alert
        | ObjectKind::Report => false,
    };
    let gone: Vec<String> = catalog.objects().iter().filter(is_gone).map(|object| object.name.clone()).collect();
    let names: BTreeSet<String> = gone.iter().flat_map(|name| catalog.dependents(name)).collect();
    if !names.is_empty() {
        tracing::warn!(?names, "these were dropped by the change that is missing: their rows are gone");
    }
    catalog.mend(next_id, &names)?;
    let known: BTreeSet<u32> = catalog.objects().iter().map(|object| object.id).collect();
    let strays: Vec<u32> = streams.difference(&known).copied().collect();
    if !strays.is_empty() {
        tracing::warn!(folders = ?strays, "the catalog knows no stream for these folders of \"streams\"; they are left alone");
    }
    Ok(())
}

/// Makes sure that no new object gets the id of one of the `sources` whose positions or keys are in the log of a stream: it
/// would go on where that one was, and its messages would pass for ones that have come. For a catalog that lacks its last
/// changes.
pub(super) fn reserve(catalog: &mut Catalog, stream: &str, sources: impl Iterator<Item = u32>) -> Result<()> {
    let Some(last) = sources.filter(|source| *source < NAMED).max().filter(|last| *last >= catalog.next_id()) else {
        return Ok(());
    };
    tracing::warn!(stream, source = last, "a source that the catalog does not know has fed this stream");
    catalog.mend(last.saturating_add(1), &BTreeSet::new())
}

/// Where sources stood at the checkpoint.
pub(super) fn positions_of(saved: &StreamState, saved_at: Micros) -> Positions {
    let mut positions = Positions::new();
    for (i, (source, position)) in saved.positions.iter().enumerate() {
        let at = saved.positions_at.get(i).copied().unwrap_or(saved_at);
        let noted = Noted { position: position.clone(), at };
        positions.entry(*source).or_default().insert(position.key.clone(), noted);
    }
    positions
}

/// Lets a stream go on from its checkpoint, if it has one. Gives the record of the log to begin with. Fails when the log,
/// the archive and the checkpoint leave a gap.
pub(super) fn go_on(
    name: &str,
    runner: &Runner,
    saved: Option<&StreamState>,
    positions: &Positions,
) -> Result<Option<Location>> {
    let wal = runner.log.wal();
    let (archived, reached) = (runner.log.archived().map_or(0, |a| a.end()), saved.map_or(0, |saved| saved.offset));
    let (oldest, next) = (wal.segments().first().map_or(0, |segment| segment.first_offset), wal.next_offset());
    let lost = |message: String| Error::new(Kind::Corrupted, message);
    if let (Some(saved), Some(archived)) = (saved, runner.log.archived()) {
        check_archive(name, &saved.archived, &archived)?;
    }
    // Without an archive its beginning went with the time that the stream keeps, behind the checkpoint.
    let has_archive = runner.log.history().is_some();
    if has_archive && oldest > archived {
        return Err(lost(format!("rows of stream \"{name}\" are missing: its archive ends at offset {archived}, its log begins at {oldest}"))
            .with_hint("Restore the archive or the log from a copy; or move what is left of both elsewhere and create the stream anew."));
    }
    if !has_archive && saved.is_some() && oldest > reached {
        return Err(lost(format!("rows of stream \"{name}\" are missing: the checkpoint goes up to offset {reached}, its log begins at {oldest}"))
            .with_hint("Restore the log from a copy; or drop the stream and create it anew."));
    }
    if next < archived.max(reached) {
        let known = archived.max(reached);
        return Err(lost(format!("the log of stream \"{name}\" ends at offset {next}, but it had come to {known}"))
            .with_hint(
                "Files of the log are missing: restore them from a copy; or drop the stream and create it anew.",
            ));
    }
    if let Some(learned) = saved.and_then(|saved| saved.learned.as_ref()) {
        runner.shape.format.recall(learned)?;
    }
    match saved {
        Some(saved) => Ok(runner.go_on(saved, positions.clone())),
        // The log still has everything: it is read again, and time passes as it did.
        None if oldest == 0 => {
            runner.begin_at(0, positions.clone());
            Ok(None)
        }
        None => {
            tracing::warn!(
                stream = name,
                "there is no checkpoint: views are made again from the archive and the log; how far event time had come is not known"
            );
            runner.begin_at(archived.max(if has_archive { 0 } else { oldest }), positions.clone());
            Ok(None)
        }
    }
}

/// The archive has to be what the checkpoint saw, or a later version of that: Delta's log has no checksum of ours.
fn check_archive(stream: &str, saved: &[ArchiveState], archived: &Archived) -> Result<()> {
    for was in saved {
        let (name, is) = match was.name.as_str() {
            MALFORMED_LINES => (format!("{stream}__malformed"), &archived.malformed),
            _ => (stream.to_string(), &archived.rows),
        };
        let ArchiveState { version, end, rows, .. } = was;
        let (version_now, end_now, rows_now) = (is.version.unwrap_or(0), is.end, is.rows);
        let damaged = |what: String| {
            Err(Error::new(Kind::Corrupted, format!("the archive of \"{name}\" is damaged: {what}"))
                .with_detail(format!("The last checkpoint saw version {version} with {rows} rows, up to offset {end}."))
                .with_hint("Restore its folder _delta_log from a copy. The Parquet files of rows are not touched by this: CREATE EXTERNAL TABLE … STORED AS PARQUET reads those that are there."))
        };
        match is.version.cmp(&Some(*version)) {
            Ordering::Equal if (end_now, rows_now) != (*end, *rows) => {
                return damaged(format!("version {version} has {rows_now} rows up to offset {end_now}"));
            }
            Ordering::Greater if end_now < *end => {
                return damaged(format!("version {version_now} goes only up to offset {end_now}"));
            }
            Ordering::Greater if rows_now > rows + (end_now - end) => {
                return damaged(format!(
                    "version {version_now} has {rows_now} rows, more than can have come up to offset {end_now}"
                ));
            }
            Ordering::Less if end_now < *end => {
                tracing::warn!(
                    stream = name,
                    version = version_now,
                    was = version,
                    end = end_now,
                    had = end,
                    "the archive is an older version than it was; what it lacks is taken from the log"
                );
            }
            Ordering::Less | Ordering::Equal | Ordering::Greater => {}
        }
    }
    Ok(())
}

/// A rollup that is being filled.
pub(super) type Fill = JoinHandle<Result<()>>;

/// The second stream of a join.
pub(super) struct Second {
    pub runner: Arc<Runner>,
    /// The id of its object.
    pub id: u32,
    /// Whether its name comes after the first one's.
    pub is_later: bool,
}

/// Attaches a new rollup to its stream, or to both if it joins two, and begins to fill it.
pub(super) fn fill(rollup: Arc<Rollup>, runner: Arc<Runner>, second: Option<&Second>) -> Fill {
    match second {
        None => {
            let before = runner.attach(Arc::clone(&rollup), false);
            tokio::task::spawn_blocking(move || runner.backfill(&rollup, before))
        }
        Some(second) => fill_joint(rollup, &runner, second, (0, 0)),
    }
}

fn fill_joint(rollup: Arc<Rollup>, left: &Arc<Runner>, second: &Second, known: Known) -> Fill {
    let joint = Arc::new(Joint::new(rollup, left, &second.runner));
    let chunks = Runner::attach_joint(&joint, (left, &second.runner), second.is_later, known);
    tokio::task::spawn_blocking(move || joint.backfill(known, chunks))
}

/// Waits until all are filled; with `patience` at most so long: then the rest goes on in the background.
pub(super) async fn finish(fills: &mut Vec<Fill>, patience: Option<Duration>) -> Result<()> {
    let all = async {
        while let Some(fill) = fills.last_mut() {
            let filled =
                fill.await.unwrap_or_else(|err| Err(Error::internal(format!("filling the view failed: {err}"))));
            fills.pop();
            filled?;
        }
        Ok(())
    };
    let Some(patience) = patience else { return all.await };
    if let Ok(done) = tokio::time::timeout(patience, all).await {
        return done;
    }
    in_background(std::mem::take(fills));
    Ok(())
}

/// Lets them go on; what fails is told, and has stopped its view.
fn in_background(fills: Vec<Fill>) -> JoinHandle<()> {
    let tell = |err: &dyn std::fmt::Display| tracing::error!(error = %err, "a view could not be filled; it is stopped");
    tokio::spawn(async move {
        for fill in fills {
            match fill.await {
                Ok(Ok(())) => {}
                // It was dropped, or the server stops.
                Ok(Err(err)) if err.kind() == Kind::Shutdown => {}
                Ok(Err(err)) => tell(&err),
                Err(err) => tell(&err),
            }
        }
    })
}

/// A rollup that lacks some of its streams' rows.
pub(super) struct Unfilled {
    pub rollup: Arc<Rollup>,
    runner: Arc<Runner>,
    rest: Rest,
}

/// What it lacks.
enum Rest {
    /// What came before this offset.
    Before(u64),
    /// Of a join, all that is not known. It is not attached yet: both streams have to have come back first.
    Pairs(Second, Known),
}

impl Engine {
    /// The state of the checkpoint for a rollup that is made again; without one it is filled later.
    pub(super) fn restore(&self, rollup: Arc<Rollup>, stream: &Stream, second: Option<Second>) {
        let runner = Arc::clone(&stream.runner);
        let key = &rollup.definition.key;
        let manifest = self.durable.as_ref().and_then(|durable| durable.newest.as_ref()).filter(|m| Engine::is_ours(m));
        let saved = manifest.and_then(|m| m.rollup(key, stream.id, second.as_ref().map(|second| second.id)));
        let restored = saved.map(|saved| {
            saved.expired.map_or(Ok(()), |first| rollup.expire(first))?;
            rollup.restore(&saved.runs, saved.joined.as_ref().map(|joined| &joined.unmatched))
        });
        if let Some(Err(err)) = &restored {
            tracing::error!(stream = %stream.name, error = %err, "the state of a view is damaged; it is made again from the stream's rows");
            rollup.clear();
        }
        let filled = matches!(restored, Some(Ok(())));
        let rest = match second {
            None => {
                let before = runner.attach(Arc::clone(&rollup), filled);
                if filled {
                    return;
                }
                Rest::Before(before)
            }
            Some(second) => {
                // No stream has gone on yet: that is where the checkpoint left them.
                let offset = |runner: &Runner| if filled { runner.progress().offset } else { 0 };
                let known = (offset(&runner), offset(&second.runner));
                rollup.unmatched().begins().into_iter().for_each(|at| runner.log.cut_at(at));
                Rest::Pairs(second, known)
            }
        };
        self.unfilled.lock().push(Unfilled { rollup, runner, rest });
    }

    /// Fills the rollups without a state, and gives those of joins what came since, now that the logs have been read. A long
    /// history is read in the background. A query that fails on some row has stopped its view before, and does so again.
    pub(super) async fn fill_restored(&self) {
        let unfilled = std::mem::take(&mut *self.unfilled.lock());
        let fills = unfilled.into_iter().map(|Unfilled { rollup, runner, rest }| match rest {
            Rest::Before(before) => tokio::task::spawn_blocking(move || runner.backfill(&rollup, before)),
            Rest::Pairs(second, known) => fill_joint(rollup, &runner, &second, known),
        });
        let filling = in_background(fills.collect());
        // Who is not done by then goes on.
        let _ = tokio::time::timeout(super::FILL_PATIENCE, filling).await;
    }

    /// Where the archive of a stream with these options is; `None`: it has none.
    pub(super) fn archive_place(&self, options: &Options) -> Result<Option<String>> {
        match (options.text("archive"), &self.config.data_dir) {
            (Some(place), _) if place.eq_ignore_ascii_case("off") => Ok(None),
            (Some(place), _) => {
                crate::reach::location(place)?;
                Ok(Some(place.to_string()))
            }
            (None, Some(dir)) => Ok(Some(dir.join("archive").display().to_string())),
            (None, None) => Ok(None),
        }
    }

    /// Opens the archive of a stream at `place`: tables called as the stream and its malformed lines are.
    pub(super) async fn open_history(&self, name: &str, place: &str, time: Option<String>) -> Result<History> {
        let place = object::open(place, Arc::clone(&self.fs))?;
        let table = |suffix: &str, time: Option<String>| {
            let folder = format!("{}{suffix}", folder_name(name));
            let url = url::Url::parse(&format!("archive:///{folder}/"));
            let url = url.map_err(|err| Error::new(Kind::InvalidParameter, format!("no place for the archive: {err}")));
            let spec = Spec { name: format!("{name}{suffix}"), time, sizes: Sizes::default() };
            let store = Arc::clone(&place.store);
            async move { Archive::open(store, url?, spec).await }
        };
        let rows = table("", time).await?;
        let malformed = table("__malformed", Some("ingest_time".to_string())).await?;
        if !self.is_restoring() && (rows.current().end > 0 || malformed.current().end > 0) {
            let message = format!("there is an archive of a stream \"{name}\" at {} already", place.url);
            return Err(Error::new(Kind::DuplicateObject, message).with_hint(
                "Choose another place with archive = '…', or move it away. CREATE EXTERNAL TABLE … STORED AS DELTA reads it where it is.",
            ));
        }
        Ok(History::new(rows, malformed, self.context.clone(), Handle::current()))
    }

    /// Stops a stream that was dropped and removes its log, and its archive if that is in the data directory.
    pub(super) async fn remove_stream(&self, stream: Arc<Stream>) -> Result<()> {
        for chore in [&stream.archiving, &stream.keeping] {
            chore.ended.store(true, std::sync::atomic::Ordering::SeqCst);
            // What is under way comes to its end.
            drop(chore.one.lock().await);
        }
        let (fs, archive) = (Arc::clone(&self.fs), self.config.data_dir.as_ref().map(|dir| dir.join("archive")));
        let stopped = tokio::task::spawn_blocking(move || {
            stream.stop();
            let mut dirs = vec![stream.dir.clone()];
            if let Some(archive) = archive.filter(|_| stream.archive_is_default) {
                dirs.extend(
                    ["", "__malformed"].map(|suffix| archive.join(format!("{}{suffix}", folder_name(&stream.name)))),
                );
            }
            for dir in dirs {
                match fs.remove_dir_all(&dir) {
                    Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &dir, &err));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            Ok(())
        });
        stopped.await.map_err(|err| Error::internal(err.to_string()))?
    }
}

/// The folder of a table: its name, with what file systems and URLs do not take replaced by its hexadecimal code.
fn folder_name(name: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || "_-.".contains(*c);
    let coded = |c: char| if plain(&c) { c.to_string() } else { format!("~{:x}~", u32::from(c)) };
    let folder: String = name.chars().map(coded).collect();
    if folder.starts_with('.') { format!("~{folder}") } else { folder }
}
