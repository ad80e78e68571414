//! Topics of Apache Kafka, and of what speaks its protocol.
//!
//! Exactly once: the offset behind a block of messages is logged with it, and reading goes on there. Partitions are assigned
//! by this source itself, with these offsets: it joins no consumer group, so nobody takes a partition away or decides where
//! to go on. When a `group` is named, offsets are committed to it after the sync, for the tools that show the lag; they say
//! where to begin only where the log knows nothing.
//!
//! ```text
//!     librdkafka's threads ──► one queue (bounded) ──► take_messages ──► a block per partition ──► poll
//! ```
//!
//! Backpressure: the queue is emptied only by `poll`; when it is full, librdkafka fetches no more.
//!
//! Offsets without messages (compaction, the marks of transactions) are passed over: the block behind them begins where the
//! one before ended. Messages that the broker deleted before they were read are told as a warning, with their number.

mod client;
mod native;
mod partition;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use serde_json::Value;

use super::{Partition, Polled, Source, Spec, Waker};
use crate::batch::Metadata;
use crate::batch::envelope::Note;
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::kafka::{FIRST_PATIENCE, PATIENCE};
use crate::options::Options;
use crate::position::{Position, Unit};
use client::{At, Client, Found};
use partition::{Part, Stopped};
use settings::{OPTIONS, Settings, Start, Topics};

pub static SPEC: Spec = Spec {
    name: "kafka",
    summary: "topics of Apache Kafka, by name or pattern; offsets are kept in the log, so each message counts once",
    options: OPTIONS,
    check: Some(check),
    build: |options| Ok(Box::new(Kafka::new(Settings::from(options)?))),
};

/// What is taken from librdkafka's queue before it is handed out, in bytes of messages: a block when there is much to read.
const BLOCK_BYTES: usize = 2 << 20;

/// Messages taken from librdkafka at once.
const BATCH: usize = 512;

/// How often offsets are committed to the group.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// The same after a commit that failed: the thread waits for each.
const COMMIT_RETRY: Duration = Duration::from_secs(15);

/// How often a cluster that does not answer is asked, while messages still come from some of its brokers.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Looks whether the cluster answers and the topics are there.
fn check(options: &Options) -> Result<()> {
    let settings = Settings::from(options)?;
    let client = Client::new(&settings, None)?;
    let begun = Instant::now();
    let found = loop {
        match client.topics(&settings.topics, PATIENCE) {
            Ok(found) => break found,
            // A login that was refused is not accepted a moment later.
            Err(err) if err.kind() == Kind::InsufficientPrivilege || begun.elapsed() > FIRST_PATIENCE => {
                return Err(err);
            }
            Err(_) => {}
        }
    };
    found.missing.into_iter().next().map_or(Ok(()), |(_, err)| Err(err))
}

/// The source.
pub struct Kafka {
    // Fixed.
    settings: Settings,
    waker: Option<Waker>,
    /// The stream has columns for what stands in front of frames.
    noted: bool,

    // State.
    client: Option<Client>,
    /// Where partitions that have not been seen yet go on, by their names: the key and the offset. Several where a topic
    /// was made anew.
    resumed: HashMap<String, Vec<(String, u64)>>,
    /// Partitions were found before: others are new, and read from their beginning.
    begun: bool,
    parts: Vec<Part>,
    /// Where a partition stands in `parts`: by topic, then by number.
    places: HashMap<String, HashMap<i32, usize>>,
    /// To be handed out, in this order.
    ready: VecDeque<Polled>,
    next_discovery: Instant,
    /// Why the cluster does not answer.
    problem: Option<Error>,
    /// Topics whose absence was told.
    absent: HashSet<String>,
    /// Offsets to commit, by place in `parts`.
    durable: HashMap<usize, u64>,
    next_commit: Instant,
    /// The last commit failed, which was told.
    commit_failed: bool,
    warnings: Vec<Error>,
}

impl Kafka {
    fn new(settings: Settings) -> Kafka {
        let now = Instant::now();
        Kafka {
            settings,
            waker: None,
            noted: false,
            client: None,
            resumed: HashMap::new(),
            begun: false,
            parts: Vec::new(),
            places: HashMap::new(),
            ready: VecDeque::new(),
            next_discovery: now,
            problem: None,
            absent: HashSet::new(),
            durable: HashMap::new(),
            next_commit: now,
            commit_failed: false,
            warnings: Vec::new(),
        }
    }

    /// Looks for topics and partitions, begins to read new ones, and goes on with those that had stopped.
    fn discover(&mut self) -> Result<()> {
        self.next_discovery = Instant::now() + RETRY_INTERVAL;
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::new(&self.settings, self.waker.clone())?),
        };
        let Found { topics, missing } = client.topics(&self.settings.topics, PATIENCE)?;
        let mut new = Vec::new();
        for topic in &topics {
            self.absent.remove(&topic.name);
            for &number in &topic.partitions {
                match self.places.get(&topic.name).and_then(|numbers| numbers.get(&number)) {
                    None => new.push(New { topic: topic.name.clone(), number, id: topic.id.clone() }),
                    Some(&at) if is_other(&self.parts[at].key, topic.id.as_deref()) => {
                        let part = &mut self.parts[at];
                        client.reassign(&(part.topic.clone(), number, 0))?;
                        let key = partition::key(&topic.name, number, topic.id.as_deref());
                        self.ready.extend(part.go_to(0).map(frames));
                        self.ready.push_back(gone(std::mem::replace(&mut part.key, key)));
                        (part.stopped, part.told, part.mark) = (None, None, None);
                        self.durable.remove(&at);
                        self.warnings.push(made_anew(&part.name));
                    }
                    Some(&at) if self.parts[at].stopped == Some(Stopped::Missing) => {
                        let part = &mut self.parts[at];
                        client.reassign(&(part.topic.clone(), number, part.next))?;
                        (part.stopped, part.told) = (None, None);
                    }
                    Some(_) => {}
                }
            }
        }
        for (name, err) in missing {
            // The only topic: then there is nothing to read, which is more than a warning.
            if topics.is_empty() && matches!(&self.settings.topics, Topics::Named(names) if names.len() == 1) {
                return Err(err);
            }
            if self.absent.insert(name) {
                self.warnings.push(err);
            }
        }
        if !new.is_empty() {
            self.begin(new)?;
        }
        self.begun = true;
        self.next_discovery = Instant::now() + self.settings.discovery_interval;
        Ok(())
    }

    /// Begins to read partitions.
    fn begin(&mut self, new: Vec<New>) -> Result<()> {
        let Some(client) = &self.client else { return Ok(()) };
        let (mut at, mut keys, mut other) = (Vec::<At>::new(), HashMap::new(), Vec::new());
        for New { topic, number, id } in &new {
            let name = partition::name(topic, *number);
            let known = self.resumed.get(&name).map_or(&[][..], Vec::as_slice);
            let same = known.iter().find(|(key, _)| !is_other(key, id.as_deref()));
            let key = same.map_or_else(|| partition::key(topic, *number, id.as_deref()), |(key, _)| key.clone());
            keys.insert((topic.clone(), *number), key);
            match same {
                Some((_, offset)) => at.push((topic.clone(), *number, *offset)),
                // Nothing of it was read.
                None if !known.is_empty() => {
                    at.push((topic.clone(), *number, 0));
                    other.push(name);
                }
                None => {}
            }
        }
        let unknown = |at: &[At]| -> Vec<(String, i32)> {
            let is_known =
                |new: &&New| at.iter().any(|(topic, number, _)| *topic == new.topic && *number == new.number);
            new.iter().filter(|new| !is_known(new)).map(|new| (new.topic.clone(), new.number)).collect()
        };
        let mut begun = self.begun;
        if self.settings.group.is_some() && at.len() < new.len() {
            let committed = client.committed(&unknown(&at))?;
            begun |= !committed.is_empty();
            at.extend(committed);
        }
        let rest = unknown(&at);
        if !rest.is_empty() {
            let start =
                if begun && self.settings.start == Start::Latest { Start::Earliest } else { self.settings.start };
            let (offsets, trouble) = client.offsets(&rest, start)?;
            // Partitions that cannot be asked now are tried at the next discovery; there is nothing to be read from them.
            // Not at the very first: those would count as new then.
            match trouble {
                Some(err) if !begun && start == Start::Latest => return Err(err),
                Some(err) => self.warnings.push(err),
                None => {}
            }
            if start == Start::Latest {
                client.commit(&offsets)?;
            }
            at.extend(offsets);
        }
        client.assign(&at)?;
        for name in other {
            self.ready.extend(self.resumed.remove(&name).into_iter().flatten().map(|(key, _)| gone(key)));
            self.warnings.push(made_anew(&name));
        }
        let unit = if self.noted { Unit::Enveloped } else { Unit::Frames };
        for at in at {
            let Some(key) = keys.remove(&(at.0.clone(), at.1)) else { continue };
            let Some(part) = Part::new(&at, key, &self.settings.framing, unit) else { continue };
            // What was durable before this start may not have been committed.
            if self.resumed.remove(&part.name).is_some() && self.settings.group.is_some() {
                self.durable.insert(self.parts.len(), part.next);
            }
            self.places.entry(at.0).or_default().insert(at.1, self.parts.len());
            self.parts.push(part);
        }
        Ok(())
    }

    /// Empties librdkafka's queue, up to a block's worth, into blocks.
    fn take_messages(&mut self) {
        let Some(client) = &self.client else { return };
        let by_line = self.settings.by_line();
        let (mut bytes, mut touched, mut troubles, mut front) = (0, Vec::new(), Vec::new(), Vec::new());
        while bytes < BLOCK_BYTES {
            let batch = native::take(&client.consumer, BATCH);
            if batch.is_empty() {
                break;
            }
            // Messages come in runs of one partition each.
            let mut last: Option<(native::Message<'_>, usize)> = None;
            for message in batch.iter() {
                let at = match last {
                    Some((other, at)) if message.is_beside(other) => at,
                    _ => {
                        let place = message.topic().and_then(|topic| self.places.get(topic));
                        let Some(&at) = place.and_then(|numbers| numbers.get(&message.partition())) else { continue };
                        last = Some((message, at));
                        at
                    }
                };
                let part = &mut self.parts[at];
                match message.payload() {
                    Ok(payload) => {
                        if self.noted {
                            note_of(message, &mut front);
                        }
                        bytes += part.add(message.offset(), &front, payload, by_line);
                    }
                    Err(RDKafkaErrorCode::PartitionEOF) => part.reach(message.offset()),
                    Err(code) => troubles.push((at, code)),
                }
                if !std::mem::replace(&mut part.touched, true) {
                    touched.push(at);
                }
            }
        }
        for at in touched {
            self.parts[at].touched = false;
            self.ready.extend(self.parts[at].take().map(frames));
        }
        for (at, code) in troubles {
            self.note(at, code);
        }
    }

    /// Notes what librdkafka says of a partition.
    fn note(&mut self, at: usize, code: RDKafkaErrorCode) {
        let part = &mut self.parts[at];
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::LogTruncation => {
                part.stopped = Some(Stopped::OutOfRange);
                return;
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic => {
                (part.stopped, part.mark) = (Some(Stopped::Missing), None);
                self.next_discovery = self.next_discovery.min(Instant::now() + RETRY_INTERVAL);
            }
            _ => {}
        }
        if part.told.replace(code) != Some(code) {
            let message = format!("partition {} cannot be read: {code}", part.name);
            self.warnings.push(Error::new(Kind::Unreachable, message));
        }
    }

    /// Goes on with partitions whose messages at the next offset are not there.
    fn go_on(&mut self) -> Result<()> {
        let Some(client) = &self.client else { return Ok(()) };
        for part in self.parts.iter_mut().filter(|part| part.stopped == Some(Stopped::OutOfRange)) {
            let (low, high) = client.range(&part.topic, part.number)?;
            let next = part.next;
            let to = if (low..=high).contains(&next) { next } else { low };
            client.reassign(&(part.topic.clone(), part.number, to))?;
            part.stopped = None;
            if to == next {
                continue;
            }
            self.ready.extend(part.go_to(to).map(frames));
            part.mark = None;
            let name = &part.name;
            self.warnings.push(if next < low {
                let message = format!("{} messages of partition {name} were deleted before they were read", low - next);
                Error::new(Kind::OutOfRange, message)
                    .with_detail(format!("They had the offsets {next} to {}. Reading goes on behind them.", low - 1))
                    .with_hint("The topic's retention is shorter than this source was behind.")
            } else {
                let message = format!("partition {name} ends before the offset {next}, where reading was to go on");
                Error::new(Kind::OutOfRange, message)
                    .with_detail(format!("It has the offsets {low} to {high} now. Reading goes on at {low}."))
                    .with_hint("The topic was made anew, or a broker without the last messages became its leader.")
            });
        }
        Ok(())
    }

    /// Commits what is durable, for others to see.
    fn commit(&mut self) {
        let Some(client) = self.client.as_ref().filter(|_| self.problem.is_none()) else { return };
        if self.durable.is_empty() {
            return;
        }
        let offsets: Vec<At> = self
            .durable
            .iter()
            .map(|(&at, &offset)| {
                let part = &self.parts[at];
                (part.topic.clone(), part.number, offset)
            })
            .collect();
        self.next_commit = Instant::now() + COMMIT_INTERVAL;
        match client.commit(&offsets) {
            Ok(()) => {
                self.durable.clear();
                self.commit_failed = false;
            }
            // They are committed with the next ones.
            Err(err) if !self.commit_failed => {
                self.commit_failed = true;
                self.warnings.push(err);
            }
            Err(_) => {}
        }
        if self.commit_failed {
            self.next_commit = Instant::now() + COMMIT_RETRY;
        }
    }

    /// Looks after partitions when it is time, or something is wrong.
    fn look_after(&mut self) {
        let now = Instant::now();
        let trouble = self.problem.is_some() || self.client.as_ref().is_some_and(Client::has_trouble);
        let due = now >= self.next_discovery || (trouble && self.ready.is_empty());
        let looked = if due { self.discover().map(|()| self.problem = None) } else { Ok(()) };
        if let Err(err) = looked.and_then(|()| self.go_on()) {
            // What cannot be read now is not waited for.
            self.parts.iter_mut().for_each(|part| part.mark = None);
            self.problem = Some(err);
        }
        if now >= self.next_commit {
            self.commit();
        }
    }
}

/// A partition that is not read yet.
struct New {
    topic: String,
    number: i32,
    id: Option<String>,
}

/// Whether a position is that of another topic than the one with this id. Where an id is not known, it is taken as the same.
fn is_other(key: &str, id: Option<&str>) -> bool {
    matches!((partition::of_key(key).1, id), (Some(of_key), Some(id)) if of_key != id)
}

fn frames((frames, position): (Frames, Position)) -> Polled {
    Polled::Frames(frames, position)
}

/// A position is needed no more; its partition goes on as that of another topic.
fn gone(key: String) -> Polled {
    Polled::Gone { partition: String::new(), key }
}

fn made_anew(name: &str) -> Error {
    Error::new(Kind::OutOfRange, format!("the topic of partition {name} was deleted and made anew"))
        .with_detail("It is read from its beginning. What the old one had and was not read is lost.")
}

/// What stands in front of a message's frames.
fn note_of(message: native::Message<'_>, front: &mut Vec<u8>) {
    let mut headers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    message.headers(|name, value| {
        let value = Value::String(String::from_utf8_lossy(value).into_owned());
        headers.entry(String::from_utf8_lossy(name).into_owned()).or_default().push(value);
    });
    // One that is given twice has several values.
    let one = |mut values: Vec<Value>| if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
    let object: serde_json::Map<_, _> = headers.into_iter().map(|(name, values)| (name, one(values))).collect();
    let headers = if object.is_empty() { String::new() } else { Value::Object(object).to_string() };
    front.clear();
    let note = Note { offset: message.offset(), time: message.time(), key: message.key(), headers: &headers };
    note.write(front);
}

impl Source for Kafka {
    fn resume(&mut self, positions: Vec<Position>) -> Result<()> {
        self.begun = !positions.is_empty();
        for Position { key, end, .. } in positions {
            self.resumed.entry(partition::of_key(&key).0.to_string()).or_default().push((key, end));
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        if self.ready.is_empty() {
            self.take_messages();
            self.look_after();
        }
        match (self.ready.pop_front(), &self.problem) {
            (Some(polled), _) => Ok(polled),
            (None, Some(problem)) => Err(problem.clone()),
            (None, None) => Ok(Polled::Idle),
        }
    }

    fn mark(&mut self) -> Result<()> {
        self.parts.iter_mut().for_each(|part| part.mark = None);
        self.discover()?;
        self.problem = None;
        let Some(client) = &self.client else { return Ok(()) };
        let all: Vec<_> = self.parts.iter().map(|part| (part.topic.clone(), part.number)).collect();
        let (ends, trouble) = if all.is_empty() { (Vec::new(), None) } else { client.offsets(&all, Start::Latest)? };
        for (topic, number, end) in ends {
            if let Some(&at) = self.places.get(&topic).and_then(|numbers| numbers.get(&number)) {
                self.parts[at].mark = Some(end);
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    fn reached(&self) -> bool {
        self.ready.is_empty() && self.parts.iter().all(Part::is_reached)
    }

    fn partitions(&self) -> Vec<Partition> {
        let end = |part: &Part| {
            let client = self.client.as_ref()?;
            native::known_end(&client.consumer, &part.native_topic, part.number)
        };
        let partition = |part: &Part| Partition { name: part.name.clone(), position: part.next, end: end(part) };
        self.parts.iter().map(partition).collect()
    }

    fn include(&mut self, included: &[Metadata]) {
        self.noted = included.iter().any(|metadata| metadata.is_of_messages());
    }

    fn set_waker(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    /// It is woken when messages come.
    fn idle_wait(&self) -> Duration {
        let now = Instant::now();
        let commit =
            if self.durable.is_empty() { COMMIT_INTERVAL } else { self.next_commit.saturating_duration_since(now) };
        self.next_discovery.saturating_duration_since(now).min(commit).min(COMMIT_INTERVAL)
    }

    fn wants_acknowledgement(&self) -> bool {
        self.settings.group.is_some()
    }

    fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let Some((topic, number)) = position.partition.rsplit_once('/') else { return Ok(()) };
        let number = number.parse().ok();
        let place = self.places.get(topic).and_then(|numbers| numbers.get(&number?));
        if let Some(&at) = place {
            self.durable.insert(at, position.end);
        }
        Ok(())
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.warnings)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.commit();
    }
}
