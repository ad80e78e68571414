//! What a server does beside its work so that it can go on for years and start again in seconds: checkpoints, the archive
//! with its merging and retention, and a look at the disk.
//!
//! ```text
//!     every checkpoint-interval       states of views and offsets of streams ──► checkpoint
//!     while rows wait                 oldest chunks of each stream ──► archive
//!     after both                      logs are cut off behind what neither needs
//!     now and then                    small files merged, old days dropped, files of no version removed
//!     all the time                    is there room on the disk?
//! ```
//!
//! Each of these may fail (a full disk, a store that does not answer): it is logged, shown in `logweir.streams`, and tried
//! again. Nothing depends on when they happen.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Engine, Stream};
use crate::error::{Error, Kind, Result};
use crate::rollup::run::{Run, SavedRun};
use crate::storage::checkpoint::{Joined, Manifest, RollupState};
use crate::storage::hot::Chunk;
use crate::time::Micros;
use crate::view::runner::{Held, Runner};

/// How often it is looked whether rows wait for the archive.
const LOOK: Duration = Duration::from_millis(100);

/// How often retention is applied, and how often files are removed that no version of an archive has.
const RETENTION: Duration = Duration::from_secs(10);
const VACUUM: Duration = Duration::from_secs(600);

/// How often sources are asked which positions they no longer need.
const FORGET: Duration = Duration::from_secs(3600);

/// Files that a version of the archive no longer has stay this long: somebody may be reading that version.
const VACUUM_AFTER: Duration = Duration::from_secs(3600);

/// After a failure it is tried again after this time, and then after twice as much each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// So much log since the last checkpoint makes the next one due before its time: it is what a restart reads again.
const CHECKPOINT_BYTES: u64 = 1 << 30;

/// Says which program wrote a checkpoint, and in which order the rows of its runs are.
fn program() -> String {
    let (own, datafusion) = (env!("CARGO_PKG_VERSION"), datafusion::DATAFUSION_VERSION);
    format!("logweir {own}, datafusion {datafusion}, order {}", crate::rollup::slice::VERSION)
}

/// The threads and tasks that do all this; ends them when it is told to.
#[derive(Default)]
pub struct Upkeep {
    stop: Arc<(Mutex<bool>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Upkeep {
    /// Starts it for an engine whose streams run.
    pub fn start(&self, engine: &Arc<Engine>) -> Result<()> {
        let thread = |name: &str, every: Duration, work: fn(&Engine)| -> Result<()> {
            let (stop, engine) = (Arc::clone(&self.stop), Arc::downgrade(engine));
            let thread =
                std::thread::Builder::new().name(name.into()).spawn(move || repeat(&stop, &engine, every, work));
            let thread =
                thread.map_err(|err| Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}")))?;
            self.threads.lock().push(thread);
            Ok(())
        };
        thread("checkpoint", LOOK, Engine::make_checkpoints)?;
        thread("space", LOOK, Engine::look_at_disk)?;
        self.tasks.lock().push(tokio::spawn(archive_rows(Arc::downgrade(engine))));
        self.tasks.lock().push(tokio::spawn(keep_archives(Arc::downgrade(engine))));
        Ok(())
    }

    /// Ends it, and waits until nothing holds the engine any more. What an archive is just being given is given again after
    /// the next start.
    pub async fn end_all(&self) {
        let tasks: Vec<_> = self.tasks.lock().drain(..).collect();
        tasks.iter().for_each(|task| task.abort());
        for task in tasks {
            // It was told to end in the middle of its work.
            let _ = task.await;
        }
    }

    /// Ends it without waiting for what only the runtime can end.
    pub fn end(&self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        for thread in self.threads.lock().drain(..) {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the upkeep panicked");
            }
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.end();
    }
}

fn repeat(stop: &(Mutex<bool>, Condvar), engine: &Weak<Engine>, every: Duration, work: fn(&Engine)) {
    loop {
        let mut stopped = stop.0.lock();
        if !*stopped {
            stop.1.wait_for(&mut stopped, every);
        }
        if *stopped {
            return;
        }
        drop(stopped);
        match engine.upgrade() {
            Some(engine) => work(&engine),
            None => return,
        }
    }
}

/// When the last checkpoint was, and what it was of.
pub(super) struct Last {
    at: Instant,
    /// Version and bytes of each stream.
    seen: Vec<(u64, u64)>,
    /// Checkpoints that are to follow although nothing has changed.
    again: u32,
    failures: u32,
}

impl Default for Last {
    fn default() -> Last {
        Last { at: Instant::now(), seen: Vec::new(), again: 0, failures: 0 }
    }
}

impl Engine {
    fn make_checkpoints(&self) {
        self.checkpoint_if_due();
        self.cut_logs();
    }

    fn checkpoint_if_due(&self) {
        let mut last = self.last_checkpoint.lock();
        let seen = self.seen();
        let bytes = |seen: &[(u64, u64)]| seen.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let much = bytes(&seen).saturating_sub(bytes(&last.seen)) >= CHECKPOINT_BYTES;
        let wait = self.config.checkpoint_interval.max(backoff(last.failures));
        // A change is followed by two checkpoints: the second lets go of what only the one before the change needs.
        let settled = seen == last.seen && last.again == 0;
        if settled || (last.at.elapsed() < wait && !(much && last.failures == 0)) {
            return;
        }
        let done = self.checkpoint();
        last.at = Instant::now();
        match done {
            Ok(()) => {
                last.again = if seen == last.seen { 0 } else { 1 };
                (last.seen, last.failures) = (seen, 0);
            }
            Err(err) => {
                last.failures += 1;
                tracing::warn!(error = %err, "no checkpoint could be made; it is tried again");
            }
        }
    }

    fn seen(&self) -> Vec<(u64, u64)> {
        let streams = self.streams();
        let each = streams.iter().map(|s| s.runner.progress()).map(|now| (now.version, now.bytes));
        // Views that came or went count as well.
        each.chain([(self.generation(), 0)]).collect()
    }

    /// Makes a checkpoint of all streams and views as they are now, and cuts the logs off behind it. Not for async code.
    pub fn checkpoint(&self) -> Result<()> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut checkpoints = durable.checkpoints.lock();
        let views = self.views();
        let keys: HashSet<&str> =
            views.iter().flat_map(|v| &v.slots).map(|slot| slot.definition.key.as_str()).collect();
        // In the order of their names.
        let streams = self.streams();
        let runners: Vec<(u32, Arc<Runner>)> = streams.iter().map(|s| (s.id, Arc::clone(&s.runner))).collect();
        let instant = Runner::checkpoint(&runners, &|key| keys.contains(key));
        // A record that the checkpoint has passed must be there after a power cut.
        for (_, runner) in &runners {
            runner.log.wal().sync()?;
        }
        let (mut rollups, mut files) = (Vec::new(), Vec::new());
        let mut manifest = Manifest {
            number: checkpoints.next(),
            program: program(),
            written: self.clock.now(),
            streams: Default::default(),
            rollups: Vec::new(),
        };
        let mut save = |run: &Arc<Run>| -> Result<SavedRun> {
            let (saved, file) = run.save(&*durable.states)?;
            files.push(file);
            Ok(saved)
        };
        for ((id, _), (stream, held)) in runners.iter().zip(instant) {
            manifest.streams.insert(*id, stream);
            for Held { rollup, runs, unmatched } in held {
                let definition = &rollup.definition;
                let joined = match &definition.partner {
                    None => None,
                    Some(partner) => match streams.iter().find(|stream| stream.name == partner.stream) {
                        Some(second) => Some(Joined { stream: second.id, unmatched: unmatched.try_map(&mut save)? }),
                        // It is being dropped, and the view with it.
                        None => continue,
                    },
                };
                let runs = runs.iter().map(&mut save).collect::<Result<_>>()?;
                let (key, expired) = (definition.key.clone(), rollup.expired());
                rollups.push(RollupState { key, stream: *id, joined, expired, runs });
            }
        }
        manifest.rollups = rollups;
        checkpoints.write(&manifest, &durable.states, files)
    }

    /// What streams' logs hold and nobody needs any more goes.
    pub fn cut_logs(&self) {
        for stream in self.streams() {
            if let Err(err) = self.cut_log(&stream) {
                tracing::warn!(stream = %stream.name, error = %err, "old parts of the log could not be removed");
            }
        }
    }

    /// The part of a stream's log that neither its archive nor a checkpoint needs goes.
    fn cut_log(&self, stream: &Stream) -> Result<()> {
        let (Some(durable), Some(archived)) = (&self.durable, stream.runner.log.archived()) else { return Ok(()) };
        let passed = durable.checkpoints.lock().passed(stream.id).min(archived.end());
        stream.runner.log.wal().drop_before(passed).map(|_| ())
    }

    /// The checkpoint that this process goes on from has states that this program can go on with.
    pub(super) fn is_ours(manifest: &Manifest) -> bool {
        manifest.program == program()
    }

    fn look_at_disk(&self) {
        if let Some(durable) = &self.durable {
            durable.space.look();
        }
    }
}

fn backoff(failures: u32) -> Duration {
    if failures == 0 { Duration::ZERO } else { (BACKOFF.0 * 2u32.saturating_pow(failures.min(16) - 1)).min(BACKOFF.1) }
}

/// Gives the archives what waits for them.
async fn archive_rows(engine: Weak<Engine>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(engine) = engine.upgrade() else { return };
        let now = engine.clock.now();
        for stream in engine.streams() {
            if stream.archiving.pauses() {
                continue;
            }
            let done = engine.archive(&stream, stream.archive_bytes, now.saturating_sub(stream.archive_interval)).await;
            stream.archiving.note(&stream.name, done.map(|_| ()));
        }
    }
}

impl Engine {
    /// Gives a stream's archive the oldest chunks, if there are `most` bytes of log or some came before `old`, until there are
    /// not. Gives back how many rows.
    pub async fn archive(&self, stream: &Arc<Stream>, most: u64, old: Micros) -> Result<u64> {
        let mut rows = 0;
        let log = &stream.runner.log;
        let Some(history) = log.history() else { return Ok(0) };
        let _one = stream.archiving.one.lock().await;
        while !stream.archiving.ended.load(Ordering::SeqCst) {
            let chunks = log.ripe(most, old);
            if chunks.is_empty() {
                break;
            }
            let runner = Arc::clone(&stream.runner);
            let loaded = tokio::task::spawn_blocking(move || {
                // The archive must not have what the log could lose, whatever the log's own mode.
                runner.log.wal().sync()?;
                let load = |chunk: Arc<Chunk>| runner.log.load(&chunk, &runner.shape).map(|data| (chunk, data));
                chunks.into_iter().map(load).collect::<Result<Vec<_>>>()
            });
            let loaded = loaded.await.map_err(|err| Error::internal(err.to_string()))??;
            let appended = history.append(&loaded).await;
            // One of the two tables may have got its part.
            log.archive_changed();
            appended?;
            rows += loaded.iter().map(|(chunk, _)| chunk.rows).sum::<u64>();
        }
        Ok(rows)
    }

    /// Everything that streams have goes to their archives now.
    pub async fn archive_all(&self) -> Result<u64> {
        let mut rows = 0;
        for stream in self.streams() {
            rows += self.archive(&stream, u64::MAX, Micros::MAX).await?;
        }
        Ok(rows)
    }
}

/// Merges what is small and drops what is old.
async fn keep_archives(engine: Weak<Engine>) {
    let mut vacuumed = Instant::now();
    let mut retained: Option<Instant> = None;
    let mut forgot = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(engine) = engine.upgrade() else { return };
        let retain = retained.is_none_or(|at| at.elapsed() >= RETENTION);
        let vacuum = vacuumed.elapsed() >= VACUUM;
        for stream in engine.streams() {
            if stream.keeping.pauses() {
                continue;
            }
            let work = async {
                let Some(history) = stream.runner.log.history() else {
                    return if retain { engine.retain(&stream).await } else { Ok(()) };
                };
                for archive in [&history.rows, &history.malformed] {
                    archive.compact().await?;
                }
                if retain {
                    engine.retain(&stream).await?;
                }
                if vacuum {
                    for archive in [&history.rows, &history.malformed] {
                        archive.vacuum(VACUUM_AFTER).await?;
                    }
                }
                stream.runner.log.archive_changed();
                Ok(())
            };
            let done = work.await;
            stream.keeping.note(&stream.name, done);
        }
        if retain {
            retained = Some(Instant::now());
            engine.expire_views();
        }
        if vacuum {
            vacuumed = Instant::now();
        }
        if forgot.elapsed() >= FORGET {
            forgot = Instant::now();
            engine.forget_positions();
        }
    }
}

const DAY: Micros = 86_400_000_000;

impl Engine {
    /// Drops what a stream's retention does not keep: whole days of its archive. Rows that the archive does not have yet stay
    /// until it has them, also while it does not answer: they go there first. Of a stream without an archive, whole
    /// segments of the log go.
    pub async fn retain(&self, stream: &Arc<Stream>) -> Result<()> {
        let Some(history) = stream.runner.log.history() else { return self.retain_log(stream).await };
        for archive in [&history.rows, &history.malformed] {
            if let Some(age) = stream.retention {
                let day = self.clock.now().saturating_sub(age).div_euclid(DAY);
                let dropped = archive.drop_days_before(i32::try_from(day).unwrap_or(i32::MIN)).await?;
                tell_dropped(&stream.name, dropped.rows, dropped.bytes);
            }
        }
        if let Some(bytes) = stream.retention_bytes {
            let dropped = history.rows.shrink_to(bytes).await?;
            tell_dropped(&stream.name, dropped.rows, dropped.bytes);
        }
        stream.runner.log.archive_changed();
        Ok(())
    }

    async fn retain_log(&self, stream: &Arc<Stream>) -> Result<()> {
        let (Some(durable), true) = (&self.durable, stream.retention.is_some() || stream.retention_bytes.is_some())
        else {
            return Ok(());
        };
        let passed = durable.checkpoints.lock().passed(stream.id);
        let first = stream.retention.map_or(Micros::MIN, |age| self.clock.now().saturating_sub(age));
        // Rows are as old as their time says; lines that are none, and rows without a time, as old as they came.
        let old = move |chunk: &Chunk, until: Micros| {
            let rows = chunk.rows == 0 || chunk.times.map_or(until < first, |(_, last)| last < first);
            rows && (chunk.malformed == 0 || until < first)
        };
        let (runner, bytes) = (Arc::clone(&stream.runner), stream.retention_bytes);
        let gone = tokio::task::spawn_blocking(move || runner.log.give_up(passed, old, bytes)).await;
        let (frames, bytes) = gone.map_err(|err| Error::internal(err.to_string()))??;
        if frames > 0 {
            tracing::info!(stream = %stream.name, frames, bytes, "retention dropped the oldest segments of the log");
        }
        Ok(())
    }

    /// Forgets where partitions were read up to that have been gone for long; asks sources about others, for the next time.
    pub fn forget_positions(&self) {
        for stream in self.streams() {
            if let Some(ingest) = stream.ingest.read().as_ref() {
                ingest.forget_positions(self.clock.now());
            }
        }
    }

    /// Views give up the windows that their retention does not keep. Views that share a rollup keep what one of them keeps.
    pub fn expire_views(&self) {
        let views = self.views();
        for slot in views.iter().flat_map(|v| &v.slots) {
            let key = &slot.definition.key;
            let Some(rollup) = slot.rollup.get() else { continue };
            // A view over such a view has its rollup too, and shows what that one shows.
            let of_view = |name: &String| self.view(name).is_some_and(|v| v.uses(key));
            let through = |v: &super::View| self.object(&v.name).is_some_and(|object| object.reads.iter().any(of_view));
            let owners = views.iter().filter(|v| v.uses(key) && !through(v));
            let ages: Option<Vec<Micros>> = owners.map(|v| v.options.retention).collect();
            if let Some(age) = ages.and_then(|ages| ages.into_iter().max()) {
                let expired = rollup.expire(self.clock.now().saturating_sub(age));
                if let Err(err) = expired {
                    tracing::warn!(stream = %slot.definition.stream, error = %err, "what a view no longer keeps still takes its space");
                }
            }
        }
    }
}

fn tell_dropped(stream: &str, rows: u64, bytes: u64) {
    if rows > 0 {
        tracing::info!(stream, rows, bytes, "retention dropped whole days of the archive");
    }
}

/// One kind of work for a stream's archive: one at a time, less often after failures.
#[derive(Default)]
pub struct Chore {
    pub(super) one: tokio::sync::Mutex<()>,
    /// The stream is being dropped.
    pub(super) ended: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
}

struct Trouble {
    error: Error,
    failures: u32,
    again: Instant,
}

impl Chore {
    fn pauses(&self) -> bool {
        self.trouble.lock().as_ref().is_some_and(|trouble| Instant::now() < trouble.again)
    }

    fn note(&self, stream: &str, done: Result<()>) {
        let mut trouble = self.trouble.lock();
        *trouble = match done {
            Ok(()) => None,
            Err(error) => {
                let failures = trouble.as_ref().map_or(1, |trouble| trouble.failures + 1);
                if failures == 1 {
                    tracing::warn!(stream, error = %error, "the archive cannot go on; it is tried again");
                }
                Some(Trouble { error, failures, again: Instant::now() + backoff(failures) })
            }
        };
    }

    /// What keeps it from going on.
    pub fn error(&self) -> Option<Error> {
        self.trouble.lock().as_ref().map(|trouble| trouble.error.clone())
    }
}
