//! Start-up: goes on from the last checkpoint.
//!
//! Each object is made again from its statement, in the order in which they were made. A stream gets what the checkpoint
//! says of it and reads its log from there; a view's rollup gets the runs that the checkpoint names. What a checkpoint does
//! not have, or has damaged, is made again from the stream's rows: archive, then log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Engine, Stream};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::options::Options;
use crate::rollup::Rollup;
use crate::storage::archive::{Archive, Sizes, Spec};
use crate::storage::checkpoint::{Checkpoints, Manifest, Opened, StreamState};
use crate::storage::fs::Fs;
use crate::storage::history::History;
use crate::storage::object;
use crate::storage::space::Space;
use crate::storage::state_files::StateFiles;
use crate::storage::stream_log::Positions;
use crate::storage::wal::Location;
use crate::view::join::Joint;
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
        let space = Arc::new(Space::new(Arc::clone(fs), dir, config.disk_limit));
        Ok(Durable { checkpoints: Mutex::new(checkpoints), states, space, newest })
    }

    /// What the checkpoint says of a stream.
    pub fn saved(&self, stream: u32) -> Option<&StreamState> {
        self.newest.as_ref()?.streams.get(&stream)
    }
}

/// Where sources stood at the checkpoint.
pub(super) fn positions_of(saved: &StreamState) -> Positions {
    let mut positions = Positions::new();
    for (source, position) in &saved.positions {
        positions.entry(*source).or_default().insert(position.key.clone(), position.clone());
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
    if oldest > archived {
        return Err(lost(format!("rows of stream \"{name}\" are missing: its archive ends at offset {archived}, its log begins at {oldest}"))
            .with_hint("Restore the archive or the log from a copy; or move what is left of both elsewhere and create the stream anew."));
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
            runner.begin_at(archived, positions.clone());
            Ok(None)
        }
    }
}

/// A rollup that is being filled.
pub(super) type Fill = JoinHandle<Result<()>>;

/// Attaches a new rollup to its stream, or to both if it joins two, and begins to fill it.
pub(super) fn fill(rollup: Arc<Rollup>, runner: Arc<Runner>, right: Option<(Arc<Runner>, bool)>) -> Fill {
    match right {
        None => {
            let before = runner.attach(Arc::clone(&rollup), false);
            tokio::task::spawn_blocking(move || runner.backfill(&rollup, before))
        }
        Some((right, left_first)) => {
            let joint = Arc::new(Joint::new(rollup, &runner, &right));
            let chunks = Runner::attach_joint(&joint, (&runner, &right), left_first);
            tokio::task::spawn_blocking(move || joint.backfill(&chunks.0, &chunks.1))
        }
    }
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
    for fill in fills.drain(..) {
        tokio::spawn(async move {
            match fill.await {
                Ok(Ok(())) => {}
                Ok(Err(err)) => tracing::error!(error = %err, "a view could not be filled; it is stopped"),
                Err(err) => tracing::error!(error = %err, "a view could not be filled; it is stopped"),
            }
        });
    }
    Ok(())
}

/// A rollup without a state to go on from.
pub(super) struct Unfilled {
    rollup: Arc<Rollup>,
    runner: Arc<Runner>,
    /// The second stream of a join, and whether the first one's name comes first.
    right: Option<(Arc<Runner>, bool)>,
    /// Before this offset it has to be filled.
    before: u64,
}

impl Engine {
    /// The state of the checkpoint for a rollup that is made again; without one it is filled later.
    pub(super) fn restore(&self, rollup: Arc<Rollup>, stream: &Stream, right: Option<(Arc<Runner>, bool)>) {
        let runner = Arc::clone(&stream.runner);
        if right.is_some() {
            self.unfilled.lock().push(Unfilled { rollup, runner, right, before: 0 });
            return;
        }
        let key = &rollup.definition.key;
        let manifest = self.durable.as_ref().and_then(|durable| durable.newest.as_ref()).filter(|m| Engine::is_ours(m));
        let saved = manifest.and_then(|manifest| manifest.rollup(key, stream.id));
        let restored = saved.map(|saved| {
            saved.expired.into_iter().for_each(|first| rollup.expire(first));
            rollup.restore(&saved.runs)
        });
        if let Some(Err(err)) = &restored {
            tracing::error!(stream = %stream.name, error = %err, "the state of a view is damaged; it is made again from the stream's rows");
            rollup.clear();
        }
        let filled = matches!(restored, Some(Ok(())));
        let before = runner.attach(Arc::clone(&rollup), filled);
        if !filled {
            self.unfilled.lock().push(Unfilled { rollup, runner, right, before });
        }
    }

    /// Fills the rollups without a state, now that the logs have been read. A long history is read in the background.
    pub(super) async fn fill_restored(&self) -> Result<()> {
        let unfilled = std::mem::take(&mut *self.unfilled.lock());
        let (joined, single): (Vec<_>, Vec<_>) = unfilled.into_iter().partition(|unfilled| unfilled.right.is_some());
        let fills = single.into_iter().map(|Unfilled { rollup, runner, before, .. }| {
            tokio::task::spawn_blocking(move || runner.backfill(&rollup, before))
        });
        finish(&mut fills.collect(), Some(super::FILL_PATIENCE)).await?;
        let mut fills = joined.into_iter().map(|u| fill(u.rollup, u.runner, u.right)).collect();
        finish(&mut fills, None).await
    }

    /// Where the archive of a stream with these options is; `None`: it has none.
    pub(super) fn archive_place(&self, options: &Options) -> Result<Option<String>> {
        match (options.text("archive"), &self.config.data_dir) {
            (Some(place), _) if place.eq_ignore_ascii_case("off") => Ok(None),
            (Some(place), _) => Ok(Some(place.to_string())),
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
