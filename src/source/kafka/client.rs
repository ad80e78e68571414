//! The connection to a cluster, and the questions that are asked over it. Each takes [`PATIENCE`] at most.

use std::ffi::CString;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;

use super::native;
use super::settings::{Settings, Start, Topics};
use crate::error::{Error, Kind, Result};
use crate::kafka::native::commit;
use crate::kafka::properties::no_client;
use crate::kafka::trouble::Trouble;
use crate::kafka::{Context, PATIENCE, Purpose, list, numbers_of, partitions_of};
use crate::source::Waker;

/// What a topic is for.
const READING: Purpose = Purpose {
    verb: "read",
    rights: "Reading takes the operations Read and Describe on the topic, and Read on the group.",
};

/// A topic and its partitions.
pub struct Topic {
    pub name: String,
    /// Another topic of the same name has another; `None` where brokers give none.
    pub id: Option<String>,
    pub partitions: Vec<i32>,
}

/// Topics as of now.
#[derive(Default)]
pub struct Found {
    pub topics: Vec<Topic>,
    /// Named ones that cannot be read: the name, and why.
    pub missing: Vec<(String, Error)>,
}

/// See the file header.
pub struct Client {
    trouble: Trouble,
    pub consumer: BaseConsumer<Context>,
}

/// A partition with an offset of it.
pub type At = (String, i32, u64);

impl Client {
    /// Asks no broker yet.
    pub fn new(settings: &Settings, waker: Option<Waker>) -> Result<Client> {
        let config = settings.config()?;
        let made = BaseConsumer::from_config_and_context(&config, Context);
        let mut consumer: BaseConsumer<Context> = made.map_err(|err| no_client(&err))?;
        if let Some(waker) = waker {
            consumer.set_nonempty_callback(move || waker.wake());
        }
        Ok(Client { trouble: Trouble::of(consumer.client(), &settings.brokers)?, consumer })
    }

    /// Whether a connection failed since the cluster last answered.
    pub fn has_trouble(&self) -> bool {
        self.trouble.is_seen()
    }

    /// The topics that are to be read.
    pub fn topics(&self, wanted: &Topics, patience: Duration) -> Result<Found> {
        let mut found = Found::default();
        match wanted {
            Topics::Matching(pattern) => {
                let all = self.consumer.fetch_metadata(None, patience).map_err(|err| self.trouble(&err))?;
                for topic in all.topics() {
                    // Those of Kafka itself are not meant.
                    if pattern.is_match(topic.name()) && !topic.name().starts_with("__") && topic.error().is_none() {
                        found.topics.push(of_metadata(topic));
                    }
                }
            }
            Topics::Named(names) => {
                for name in names {
                    match partitions_of(self.consumer.client(), &self.trouble, name, READING, patience)? {
                        Ok(partitions) => found.topics.push(Topic { name: name.clone(), id: None, partitions }),
                        Err(err) => found.missing.push((name.clone(), err)),
                    }
                }
            }
        }
        let names: Vec<_> = found.topics.iter().filter_map(|topic| CString::new(topic.name.as_str()).ok()).collect();
        if !names.is_empty() {
            let mut ids = native::topic_ids(&self.consumer, &names, patience);
            found.topics.iter_mut().for_each(|topic| topic.id = ids.remove(&topic.name));
        }
        self.trouble.is_over();
        Ok(found)
    }

    /// The offsets where these partitions begin, end, or have the first message of a time; those left out cannot be asked
    /// now, and why the last of them cannot.
    pub fn offsets(&self, of: &[(String, i32)], at: Start) -> Result<(Vec<At>, Option<Error>)> {
        let at = match at {
            Start::Earliest => Offset::Beginning,
            Start::Latest => Offset::End,
            Start::Time(millis) => Offset::Offset(millis),
        };
        let asked =
            self.consumer.offsets_for_times(list(of.iter().map(|(topic, number)| (topic, *number, at)))?, PATIENCE);
        let (mut found, mut behind, mut problem) = (Vec::new(), Vec::new(), None);
        for element in asked.map_err(|err| self.trouble(&err))?.elements() {
            let (topic, number) = (element.topic().to_string(), element.partition());
            match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) => found.push((topic, number, u64::try_from(offset).unwrap_or(0))),
                // No message of that time or a later one.
                (Ok(()), Offset::End) if matches!(at, Offset::Offset(_)) => behind.push((topic, number)),
                (Err(err), _) => problem = Some(self.trouble(&err)),
                (Ok(()), other) => problem = Some(Error::internal(format!("an offset that is none: {other:?}"))),
            }
        }
        if !behind.is_empty() {
            let (ends, trouble) = self.offsets(&behind, Start::Latest)?;
            found.extend(ends);
            problem = problem.or(trouble);
        }
        Ok((found, problem))
    }

    /// What the group has committed of these partitions.
    pub fn committed(&self, of: &[(String, i32)]) -> Result<Vec<At>> {
        let asked = list(of.iter().map(|(topic, number)| (topic, *number, Offset::Invalid)))?;
        let known = self.consumer.committed_offsets(asked, PATIENCE).map_err(|err| self.trouble(&err))?;
        let offset = |offset| if let Offset::Offset(offset) = offset { u64::try_from(offset).ok() } else { None };
        let elements = known.elements();
        let known = elements.iter().filter_map(|e| Some((e.topic().to_string(), e.partition(), offset(e.offset())?)));
        Ok(known.collect())
    }

    /// Commits offsets to the group.
    pub fn commit(&self, offsets: &[At]) -> Result<()> {
        let offsets = offsets.iter().map(|(topic, number, offset)| (topic, *number, Offset::Offset(*offset as i64)));
        commit(&self.consumer, &list(offsets)?, PATIENCE).map_err(|code| match code {
            RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration => {
                let message = "offsets could not be committed: the group has members of its own";
                Error::new(Kind::ObjectInUse, message).with_hint(
                    "Give the option \"group\" a name that nobody else uses. Nothing is lost or read twice by it.",
                )
            }
            RDKafkaErrorCode::GroupAuthorizationFailed => Error::new(
                Kind::InsufficientPrivilege,
                "offsets could not be committed: this user must not use the group",
            ),
            other => Error::new(Kind::Unreachable, format!("offsets could not be committed: {other}")),
        })
    }

    /// Begins to fetch.
    pub fn assign(&self, at: &[At]) -> Result<()> {
        let at = at.iter().map(|(topic, number, offset)| (topic, *number, Offset::Offset(*offset as i64)));
        self.consumer.incremental_assign(&list(at)?).map_err(|err| self.trouble(&err))
    }

    /// Begins anew to fetch a partition, from this offset on.
    pub fn reassign(&self, at: &At) -> Result<()> {
        let one = list([(&at.0, at.1, Offset::Invalid)])?;
        self.consumer.incremental_unassign(&one).map_err(|err| self.trouble(&err))?;
        self.assign(std::slice::from_ref(at))
    }

    /// The first offset of a partition that is kept, and its end.
    pub fn range(&self, topic: &str, number: i32) -> Result<(u64, u64)> {
        let (low, high) = self.consumer.fetch_watermarks(topic, number, PATIENCE).map_err(|err| self.trouble(&err))?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    fn trouble(&self, err: &KafkaError) -> Error {
        self.trouble.error(err)
    }
}

fn of_metadata(topic: &MetadataTopic) -> Topic {
    Topic { name: topic.name().to_string(), id: None, partitions: numbers_of(topic) }
}
