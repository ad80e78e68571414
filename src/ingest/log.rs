//! The log stage: first hands on what the WAL holds, then appends what comes, and hands that on.
//!
//! It alone appends to a stream's log, so it alone knows the offsets: here it is decided whether a pushed batch has come
//! before, and from here each record's sender is told ([`acknowledge`](super::acknowledge)) once it is durable.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::acknowledge::{Creditor, Owed};
use super::inlet::Outlet;
use super::push::Batch;
use super::{Block, Item, Logged, Sources, stopped};
use crate::error::{Kind, Result};
use crate::frame::Frames;
use crate::mutation::{Mutation, on};
use crate::position::{Position, Unit};
use crate::source::AGAIN;
use crate::storage::keys::ids;
use crate::storage::space::Space;
use crate::storage::stream_log::{IMPORTS, OWN, Origin};
use crate::storage::wal::{Location, Record};
use crate::time::{Clock, Micros};
use crate::view::runner::Runner;

/// How often a silent stream looks whether time alone has closed a window.
const TICK: Duration = Duration::from_millis(200);

/// See the file header.
pub struct LogStage {
    pub runner: Arc<Runner>,
    /// Where to begin to read; `None`: with the oldest record.
    pub from: Option<Location>,
    pub clock: Clock,
    pub space: Arc<Space>,
    pub stopping: Arc<AtomicBool>,
    pub sources: Sources,
    pub owed: SyncSender<Owed>,
}

impl LogStage {
    pub fn run(&self, blocks: &Outlet<Item<Block>>, out: &SyncSender<Item<Logged>>) -> Result<()> {
        let wal = self.runner.log.wal();
        // The log may have been cut off behind the record to begin with, when nothing before it is needed.
        let from = self.from.map_or(wal.start(), |from| from.max(wal.start()));
        for entry in wal.read(from)? {
            let (location, record) = entry?;
            let next = record.base + record.frames.len() as u64;
            if on(Mutation::ReplayForgetsLastRecord) && next == wal.next_offset() {
                break;
            }
            let origin = Origin::of(location, &record);
            if out.send(Item::Work((record.into(), origin))).is_err() {
                return Ok(());
            }
        }
        // Partitions that have come to their end, until all sources have: one that is still to come is not late for ever.
        let mut ended = Vec::new();
        // Sources whose end has come through here, behind all of their frames.
        let mut over = HashSet::new();
        loop {
            let items = match blocks.recv_timeout(TICK) {
                Ok(Item::Work(Block::Ended(source, partitions))) => {
                    over.extend(source);
                    ended.extend(partitions);
                    if self.all_ended(&over) { self.end(std::mem::take(&mut ended))? } else { Vec::new() }
                }
                Ok(Item::Work(block)) => self.take(block)?.into_iter().collect(),
                Ok(Item::Barrier(done)) => {
                    let mut items: Vec<_> = self.tick()?.into_iter().collect();
                    wal.sync()?;
                    items.push(Item::Barrier(done));
                    items
                }
                Err(RecvTimeoutError::Timeout) => self.tick()?.into_iter().collect(),
                Err(RecvTimeoutError::Disconnected) => return wal.sync(),
            };
            for item in items {
                if out.send(item).is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn take(&self, block: Block) -> Result<Option<Item<Logged>>> {
        let (next, now) = (self.runner.log.wal().next_offset(), self.clock.now());
        match block {
            Block::Frames { source, position, frames, receipt } => {
                let (position, frames) = match position.unit {
                    Unit::Messages => self.new_messages(source, position, frames),
                    Unit::Bytes | Unit::Frames | Unit::Enveloped | Unit::Offsets => (position, frames),
                };
                let end = next + frames.len() as u64;
                let item = match frames.is_empty() {
                    true => None,
                    false => match self.log(Record { base: next, source, ingest_time: now, position, frames })? {
                        // Not logged: the receipt goes with it.
                        None => return Ok(None),
                        logged => logged,
                    },
                };
                if let Some(receipt) = receipt {
                    self.owe(end, Creditor::Source(receipt));
                }
                Ok(item)
            }
            Block::Gone { source, partition } => self.log(Record::gone(next, now, source, partition)),
            Block::Pushed(batch) => self.push(batch),
            Block::Ended(..) => Ok(None),
        }
    }

    /// Leaves out the messages that are in the log already, among those that their queue says it may have given before. The
    /// others get their offsets.
    fn new_messages(&self, source: u32, mut position: Position, frames: Frames) -> (Position, Frames) {
        let log = &self.runner.log;
        let again = {
            let keys = log.keys().lock();
            // Whatever its age: a queue gives again what was not acknowledged, also after a long outage.
            let known =
                |id: &str| id.strip_prefix(AGAIN).is_some_and(|id| keys.find(source, id, Micros::MIN).is_some());
            ids(&position.key).map(known).collect::<Vec<_>>()
        };
        let new = |i: &usize| !again.get(*i).copied().unwrap_or(false);
        let kept: Vec<usize> = (0..frames.len()).filter(new).collect();
        let all: Vec<&str> = ids(&position.key).map(|id| id.strip_prefix(AGAIN).unwrap_or(id)).collect();
        let of_kept: Vec<&str> = kept.iter().map(|i| all.get(*i).copied().unwrap_or_default()).collect();
        position.key = of_kept.join("\n");
        let frames = if kept.len() == frames.len() { frames } else { frames.select(&kept) };
        position.start = log.wal().next_offset();
        position.end = position.start + frames.len() as u64;
        (position, frames)
    }

    /// Appends a pushed batch, in one record, unless it is in the log already.
    fn push(&self, batch: Batch) -> Result<Option<Item<Logged>>> {
        let Batch { source, partition, key, frames, reply, room: _room } = batch;
        let (log, now) = (&self.runner.log, self.clock.now());
        let known = key.as_ref().and_then(|key| log.keys().lock().find(source, key, now));
        if let Some(offsets) = known {
            self.owe(offsets.end, Creditor::Push(reply.with(offsets, true)));
            return Ok(None);
        }
        // Who pushes can be told at once, and can try again. For the rate it waits: it was let in.
        if let Some(err) = self.space.full() {
            reply.answer(Err(err));
            return Ok(None);
        }
        if self.space.rate.debt().is_some() && !self.space.wait(&self.stopping) {
            reply.answer(Err(stopped()));
            return Ok(None);
        }
        let base = log.wal().next_offset();
        let offsets = base..base + frames.len() as u64;
        let position = Position {
            partition,
            key: key.unwrap_or_default(),
            start: offsets.start,
            end: offsets.end,
            unit: Unit::Offsets,
        };
        let record = Record { base, source, ingest_time: now, position, frames };
        match self.append(&record) {
            Ok(origin) => {
                log.keys().lock().note(source, &record.position, now);
                self.owe(offsets.end, Creditor::Push(reply.with(offsets, false)));
                Ok(Some(Item::Work((record.into(), origin))))
            }
            Err(err) if err.kind() == Kind::DiskFull => {
                self.space.set_full(err.clone());
                reply.answer(Err(err));
                Ok(None)
            }
            Err(err) => {
                reply.answer(Err(err.clone()));
                Err(err)
            }
        }
    }

    /// Has somebody told when the frames before `end` are synced. Should the stage that does it have panicked, nobody is.
    fn owe(&self, end: u64, to: Creditor) {
        let _ = self.owed.send(Owed { end, to });
    }

    /// Appends a record, as soon as there is room for it. `None` when the stream was stopped before that: the source
    /// will read it again.
    fn log(&self, record: Record) -> Result<Option<Item<Logged>>> {
        loop {
            if !self.space.wait(&self.stopping) {
                return Ok(None);
            }
            match self.append(&record) {
                Ok(origin) => {
                    if record.position.unit == Unit::Messages {
                        self.runner.log.keys().lock().note(record.source, &record.position, record.ingest_time);
                    }
                    return Ok(Some(Item::Work((record.into(), origin))));
                }
                Err(err) if err.kind() == Kind::DiskFull => self.space.set_full(err),
                Err(err) => return Err(err),
            }
        }
    }

    /// Logs the end of partitions. Said again after a restart, when the log may know it already.
    fn end(&self, partitions: Vec<String>) -> Result<Vec<Item<Logged>>> {
        let mut items = Vec::new();
        for partition in partitions.into_iter().filter(|p| !self.runner.has_ended(p)) {
            let (next, now) = (self.runner.log.wal().next_offset(), self.clock.now());
            items.extend(self.log(Record::end(next, now, partition))?);
        }
        Ok(items)
    }

    /// Whether all sources of the stream have come to their end, its own among them: a table without one is for whatever
    /// may still come. Old files that are imported are not of the stream.
    fn all_ended(&self, over: &HashSet<u32>) -> bool {
        let sources = self.sources.lock();
        let mut feeding = sources.iter().filter(|driven| driven.status.id != IMPORTS);
        sources.iter().any(|driven| driven.status.id == OWN) && feeding.all(|driven| over.contains(&driven.status.id))
    }

    /// A tick, if one is due. It does not wait for room: on a full disk a start, which waits for what comes behind it, would
    /// never end. It is due again.
    fn tick(&self) -> Result<Option<Item<Logged>>> {
        let (next, now) = (self.runner.log.wal().next_offset(), self.clock.now());
        if self.space.full().is_some() || !self.runner.is_due(next, now) {
            return Ok(None);
        }
        let record = Record::tick(next, now);
        match self.append(&record) {
            Ok(origin) => Ok(Some(Item::Work((record.into(), origin)))),
            Err(err) if err.kind() == Kind::DiskFull => {
                self.space.set_full(err);
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    fn append(&self, record: &Record) -> Result<Origin> {
        let location = self.runner.log.wal().append(record)?;
        self.space.rate.spend(record.frames.bytes.len() as u64);
        Ok(Origin::of(location, record))
    }
}
