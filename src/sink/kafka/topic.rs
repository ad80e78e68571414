//! What is asked of the topic: its partitions, its limits, the position that the sink's group has, and the rows that it holds.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::link::error;
use super::settings::Settings;
use super::{Caller, gone};
use crate::error::{Error, Kind, Result};
use crate::kafka::properties::no_client;
use crate::kafka::trouble::Trouble;
use crate::kafka::{Context, FIRST_PATIENCE, PATIENCE, Purpose, list, native, partitions_of};
use crate::sink::{Delivered, Position};

/// What a topic is for.
const WRITING: Purpose = Purpose {
    verb: "written",
    rights: "Writing takes the operations Write and Describe on the topic; see the README for all that it takes.",
};

/// So long a cluster may be silent while the topic is read.
const SILENCE: Duration = Duration::from_secs(30);

/// So long a thread waits before it looks whether anybody waits for it.
const SLICE: Duration = Duration::from_millis(250);

/// The clocks of a broker and of this machine may differ by so much.
const SKEW_MS: i64 = 60_000;

/// What a topic takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The largest message.
    pub message_bytes: usize,
    /// A message's time may be so many milliseconds before and after that of the broker.
    before_ms: i64,
    after_ms: i64,
    /// Messages without a key are refused.
    pub compacted: bool,
}

impl Limits {
    /// Of a topic that is set up so (Kafka's manual, Topic Configs); what is not told is not limited. `bytes`: librdkafka's
    /// own limit.
    pub fn of(topic: &HashMap<String, String>, bytes: usize) -> Limits {
        fn number<T: FromStr>(topic: &HashMap<String, String>, name: &str) -> Option<T> {
            topic.get(name)?.parse().ok()
        }
        // Where the broker gives messages its own time, it looks at no other.
        let is_ours = topic.get("message.timestamp.type").is_none_or(|kind| kind != "LogAppendTime");
        let time = |name| number(topic, name).filter(|_| is_ours).unwrap_or(i64::MAX);
        // What it was before Kafka 3.6, for both.
        let both = time("message.timestamp.difference.max.ms");
        let both = if topic.contains_key("message.timestamp.after.max.ms") { i64::MAX } else { both };
        Limits {
            message_bytes: number(topic, "max.message.bytes").unwrap_or(bytes).min(bytes),
            before_ms: time("message.timestamp.before.max.ms").min(both),
            after_ms: time("message.timestamp.after.max.ms").min(both),
            compacted: topic.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
        }
    }

    /// The time for a message that is sent now, in milliseconds since 1970; `None` for that of sending, where the topic does
    /// not take the other.
    pub fn time(&self, millis: i64, now: i64) -> Option<i64> {
        let earliest = now.saturating_sub(self.before_ms).saturating_add(SKEW_MS);
        let latest = now.saturating_add(self.after_ms).saturating_sub(SKEW_MS);
        // For librdkafka 0 is the time of sending too.
        (millis > 0 && (millis <= latest || millis <= now) && (millis >= earliest || millis >= now)).then_some(millis)
    }
}

/// One who reads the topic and the position.
pub struct Reader<'a> {
    trouble: Trouble,
    consumer: BaseConsumer<Context>,
    settings: &'a Settings,
    id: &'a str,
}

impl<'a> Reader<'a> {
    /// Asks no broker yet.
    pub fn new(settings: &'a Settings, id: &'a str) -> Result<Reader<'a>> {
        let made = BaseConsumer::from_config_and_context(&settings.reader(id)?, Context);
        let consumer: BaseConsumer<Context> = made.map_err(|err| no_client(&err))?;
        Ok(Reader { trouble: Trouble::of(consumer.client(), &settings.brokers)?, consumer, settings, id })
    }

    fn error(&self, err: &KafkaError) -> Error {
        error(err, &self.trouble, self.settings, self.id)
    }

    /// The numbers of the topic's partitions.
    pub fn partitions(&self, caller: &Caller) -> Delivered<Vec<i32>> {
        let found = patiently(caller, || {
            partitions_of(self.consumer.client(), &self.trouble, &self.settings.topic, WRITING, PATIENCE)
        })?;
        self.trouble.is_over();
        Ok(found?)
    }

    pub fn limits(&self) -> Limits {
        let topic = native::topic_settings(self.consumer.client(), &self.settings.native_topic, PATIENCE);
        Limits::of(&topic, self.settings.message_bytes())
    }

    /// The sink's group, for a producer.
    pub fn group(&self) -> Result<ConsumerGroupMetadata> {
        self.consumer.group_metadata().ok_or_else(|| Error::internal("a consumer has a group"))
    }

    /// The position that the group has, if it has one.
    pub fn position(&self, partition: i32, caller: &Caller) -> Delivered<Option<Position>> {
        patiently(caller, || {
            let asked = list([(&self.settings.topic, partition, Offset::Invalid)])?;
            let found = self.consumer.committed_offsets(asked, PATIENCE).map_err(|err| self.error(&err))?;
            for element in found.elements() {
                element.error().map_err(|err| self.error(&err))?;
                if matches!(element.offset(), Offset::Offset(_)) {
                    let note = String::from_utf8_lossy(&native::note_of(&found)).into_owned();
                    return Position::parse(&note).map(Some).ok_or_else(|| {
                        let message = format!("the group \"{}\" holds {note:?}, which is no position", self.id);
                        Error::new(Kind::Corrupted, message).with_hint(
                            "Somebody else has committed to it. Drop the sink and create it again, with another topic.",
                        )
                    });
                }
            }
            Ok(None)
        })
    }

    /// Commits a position without a transaction.
    pub fn commit(&self, partition: i32, position: Position) -> Result<()> {
        let positions = noted(&self.settings.topic, partition, position)?;
        native::commit(&self.consumer, &positions, PATIENCE)
            .map_err(|code| self.error(&KafkaError::ConsumerCommit(code)))
    }

    /// Reads all committed messages, for as long as `each` says that it wants more.
    pub fn read(
        &self,
        partitions: &[i32],
        caller: &Caller,
        mut each: impl FnMut(Option<&[u8]>, Option<&[u8]>) -> bool,
    ) -> Delivered<()> {
        let all = list(partitions.iter().map(|number| (&self.settings.topic, *number, Offset::Beginning)))?;
        self.consumer.assign(&all).map_err(|err| self.error(&err))?;
        let mut left: HashSet<i32> = partitions.iter().copied().collect();
        let mut heard = Instant::now();
        while !left.is_empty() {
            if caller.is_cancelled() {
                return Err(gone());
            }
            match self.consumer.poll(SLICE) {
                None if heard.elapsed() < SILENCE => continue,
                None => {
                    let late = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                    return Err(self.error(&late).into());
                }
                Some(Ok(message)) => {
                    if !each(message.key(), message.payload()) {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(number))) => drop(left.remove(&number)),
                Some(Err(err)) => return Err(self.error(&err).into()),
            }
            heard = Instant::now();
        }
        Ok(())
    }
}

/// Asks again for a while: the first answer may take its time. What will be no other a moment later is told at once.
fn patiently<T>(caller: &Caller, ask: impl Fn() -> Result<T>) -> Delivered<T> {
    let begun = Instant::now();
    loop {
        let err = match ask() {
            Ok(found) => return Ok(found),
            Err(err) => err,
        };
        if err.kind() != Kind::Unreachable || begun.elapsed() > FIRST_PATIENCE {
            return Err(err.into());
        }
        if caller.is_cancelled() {
            return Err(gone());
        }
        std::thread::sleep(SLICE.min(FIRST_PATIENCE.saturating_sub(begun.elapsed())));
    }
}

/// A position as what a group commits: the relation's offset as the offset, the whole of it beside that.
pub fn noted(topic: &str, partition: i32, position: Position) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, partition);
    let offset = Offset::Offset(i64::try_from(position.offset).unwrap_or(i64::MAX));
    element.set_offset(offset).map_err(|err| Error::internal(err.to_string()))?;
    element.set_metadata(position.to_string());
    Ok(list)
}

/// What the topic has of a view: its keys, each with a hash of its row.
pub struct Rows {
    found: HashMap<Vec<u8>, u64>,
    hasher: RandomState,
}

impl Rows {
    pub fn read(reader: &Reader<'_>, caller: &Caller) -> Delivered<Rows> {
        let mut rows = Rows { found: HashMap::new(), hasher: RandomState::new() };
        let partitions = reader.partitions(caller)?;
        reader.read(&partitions, caller, |key, payload| {
            rows.take(key, payload);
            true
        })?;
        Ok(rows)
    }

    fn take(&mut self, key: Option<&[u8]>, payload: Option<&[u8]>) {
        match (key, payload) {
            (Some(key), Some(payload)) => drop(self.found.insert(key.to_vec(), self.hasher.hash_one(payload))),
            (Some(key), None) => drop(self.found.remove(key)),
            // None of ours.
            (None, _) => {}
        }
    }

    /// Whether the topic has this row already, or does not have the key that is gone. Forgets the key.
    pub fn has(&mut self, key: &[u8], payload: Option<&[u8]>) -> bool {
        self.found.remove(key) == payload.map(|payload| self.hasher.hash_one(payload))
    }

    /// The keys that were not asked for.
    pub fn rest(self) -> impl Iterator<Item = Vec<u8>> {
        self.found.into_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(of: &[(&str, &str)]) -> Limits {
        Limits::of(&of.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(), 1000)
    }

    #[test]
    fn limits_are_those_of_the_topic() {
        let none = limits(&[]);
        assert_eq!((none.message_bytes, none.compacted), (1000, false));
        assert_eq!(limits(&[("max.message.bytes", "500")]).message_bytes, 500);
        assert_eq!(limits(&[("max.message.bytes", "5000")]).message_bytes, 1000);
        assert!(limits(&[("cleanup.policy", "compact,delete")]).compacted);
    }

    #[test]
    fn a_time_that_the_topic_does_not_take_is_that_of_sending() {
        const HOUR: i64 = 3_600_000;
        let now = 1000 * HOUR;
        let times = |limits: &Limits| {
            [1, now - 2 * HOUR, now, now + HOUR / 2, now + 2 * HOUR].map(|time| limits.time(time, now).is_some())
        };
        assert_eq!(times(&limits(&[])), [true; 5]);
        assert_eq!(limits(&[]).time(0, now), None);
        assert_eq!(limits(&[]).time(-5, now), None);
        let hour = HOUR.to_string();
        let after = ("message.timestamp.after.max.ms", hour.as_str());
        assert_eq!(times(&limits(&[after])), [true, true, true, true, false]);
        let before = ("message.timestamp.before.max.ms", hour.as_str());
        assert_eq!(times(&limits(&[before])), [false, false, true, true, true]);
        // The old name is still there in newer versions, and says nothing.
        let both = ("message.timestamp.difference.max.ms", hour.as_str());
        assert_eq!(times(&limits(&[both])), [false, false, true, true, false]);
        assert_eq!(times(&limits(&[both, after])), [true, true, true, true, false]);
        assert_eq!(times(&limits(&[both, ("message.timestamp.type", "LogAppendTime")])), [true; 5]);
    }

    #[test]
    fn only_what_differs_is_sent_again() {
        let mut rows = Rows { found: HashMap::new(), hasher: RandomState::new() };
        for (key, payload) in [("a", Some("1")), ("b", Some("1")), ("b", None), ("c", Some("1")), ("d", Some("1"))] {
            rows.take(Some(key.as_bytes()), payload.map(str::as_bytes));
        }
        rows.take(None, Some(b"x"));
        assert!(rows.has(b"a", Some(b"1")));
        assert!(!rows.has(b"a", Some(b"1")), "it comes twice");
        assert!(!rows.has(b"b", Some(b"1")) && rows.has(b"b", None));
        assert!(!rows.has(b"c", Some(b"2")));
        assert_eq!(rows.rest().collect::<Vec<_>>(), [b"d"]);
    }
}
