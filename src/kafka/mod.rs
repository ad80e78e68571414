//! What the source and the sink for Apache Kafka have in common: options that become librdkafka's properties, the words for
//! what goes wrong, and the questions that both ask about a topic. Each makes clients of its own with these.
//!
//! librdkafka's calls block, each for as long as its caller says: never call them on an I/O runtime.

pub mod native;
pub mod properties;
pub mod trouble;

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::error::{Error, Kind, Result};
use crate::options::nearest;
use trouble::Trouble;

/// How long an answer may take: a thread waits for it.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// How long the cluster may take to answer for the first time: names are looked up, TLS is set up.
pub const FIRST_PATIENCE: Duration = Duration::from_secs(4);

/// What librdkafka calls back is of no use here: see [`native::Logs`].
pub struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Context {}

/// What is done with a topic, for errors.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// What must not be done: `read`.
    pub verb: &'static str,
    /// What a user must be allowed for it.
    pub rights: &'static str,
}

/// The numbers of a topic's partitions. The inner error says why the topic cannot be used, with the name that was perhaps
/// meant; the outer one that the cluster does not answer.
pub fn partitions_of<C: ClientContext>(
    client: &Client<C>,
    trouble: &Trouble,
    name: &str,
    purpose: Purpose,
    patience: Duration,
) -> Result<Result<Vec<i32>>> {
    let one = client.fetch_metadata(Some(name), patience).map_err(|err| trouble.error(&err))?;
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    Ok(match one.topics().iter().find(|topic| topic.name() == name) {
        Some(topic) => match topic.error() {
            None => Ok(numbers_of(topic)),
            Some(code) => Err(no_topic(client, name, purpose, code)),
        },
        None => Err(no_topic(client, name, purpose, unknown)),
    })
}

/// The numbers of the partitions of a topic.
pub fn numbers_of(topic: &MetadataTopic) -> Vec<i32> {
    topic.partitions().iter().map(|partition| partition.id()).collect()
}

fn no_topic<C: ClientContext>(client: &Client<C>, name: &str, purpose: Purpose, code: RDKafkaRespErr) -> Error {
    let code = RDKafkaErrorCode::from(code);
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            let err = Error::new(Kind::UndefinedObject, format!("topic \"{name}\" does not exist"));
            let all = client.fetch_metadata(None, PATIENCE);
            let near = all.as_ref().ok().and_then(|all| nearest(name, all.topics().iter().map(|topic| topic.name())));
            match near {
                Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
                None => err,
            }
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            let message = format!("topic \"{name}\" must not be {} by this user", purpose.verb);
            Error::new(Kind::InsufficientPrivilege, message).with_hint(purpose.rights)
        }
        other => Error::new(Kind::Unreachable, format!("topic \"{name}\" cannot be {} now: {other}", purpose.verb)),
    }
}

/// Partitions with an offset each. The names of topics hold no NUL.
pub fn list<'a>(of: impl IntoIterator<Item = (&'a String, i32, Offset)>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (topic, number, offset) in of {
        let added = list.add_partition_offset(topic, number, offset);
        added.map_err(|err| Error::internal(format!("{topic}/{number}: {err}")))?;
    }
    Ok(list)
}
