//! The connection to a cluster, and the questions that are asked over it. Each takes [`PATIENCE`] at most; what librdkafka
//! has logged last says why there is no answer.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::native;
use super::settings::{Settings, Start, Topics};
use crate::error::{Error, Kind, Result};
use crate::options::nearest;
use crate::source::Waker;

/// How long an answer may take: the driver's thread waits for it.
pub const PATIENCE: Duration = Duration::from_millis(1500);

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
    /// Goes before the consumer does.
    logs: native::Logs,
    pub consumer: BaseConsumer<Context>,
    brokers: String,
    /// A connection failed since the cluster last answered.
    trouble: Cell<bool>,
    /// Why.
    last: RefCell<Option<String>>,
}

/// A partition with an offset of it.
pub type At = (String, i32, u64);

impl Client {
    /// Asks no broker yet.
    pub fn new(settings: &Settings, waker: Option<Waker>) -> Result<Client> {
        let config = settings.config()?;
        let made = BaseConsumer::from_config_and_context(&config, Context);
        let mut consumer: BaseConsumer<Context> = made.map_err(|err| {
            // The value may be a secret.
            let why = match &err {
                KafkaError::ClientConfig(_, _, name, _) => format!("the property \"{name}\" is not as it should be"),
                KafkaError::ClientCreation(text) => text.clone(),
                other => other.to_string(),
            };
            Error::new(Kind::InvalidParameter, format!("could not make a Kafka client: {why}"))
                .with_hint("See the options kafka.….")
        })?;
        if let Some(waker) = waker {
            consumer.set_nonempty_callback(move || waker.wake());
        }
        let logs = native::Logs::of(&consumer).ok_or_else(|| Error::internal("no queue for librdkafka's logs"))?;
        let brokers = settings.brokers.clone();
        Ok(Client { logs, consumer, brokers, trouble: Cell::new(false), last: RefCell::default() })
    }

    /// Whether a connection failed since the cluster last answered.
    pub fn has_trouble(&self) -> bool {
        self.logs.take(|facility, message| {
            tracing::debug!(facility, message, "librdkafka");
            self.trouble.set(self.trouble.get() || matches!(facility, "FAIL" | "ERROR"));
            if facility == "FAIL" {
                // `[thrd:…]: host:9092/bootstrap: Connect to … failed: Connection refused (after 0ms in state CONNECT)`
                let named = message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: "));
                *self.last.borrow_mut() = Some(named.map_or(message, |(_, message)| message).to_string());
            }
        });
        self.trouble.get()
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
                    let one = self.consumer.fetch_metadata(Some(name), patience).map_err(|err| self.trouble(&err))?;
                    let topic = one.topics().iter().find(|topic| topic.name() == name);
                    match topic.map(|topic| (topic, topic.error())) {
                        Some((topic, None)) => found.topics.push(of_metadata(topic)),
                        Some((_, Some(code))) => found.missing.push((name.clone(), self.no_topic(name, code))),
                        None => {
                            let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
                            found.missing.push((name.clone(), self.no_topic(name, unknown)));
                        }
                    }
                }
            }
        }
        let names: Vec<_> = found.topics.iter().filter_map(|topic| CString::new(topic.name.as_str()).ok()).collect();
        if !names.is_empty() {
            let mut ids = native::topic_ids(&self.consumer, &names, patience);
            found.topics.iter_mut().for_each(|topic| topic.id = ids.remove(&topic.name));
        }
        self.has_trouble();
        self.trouble.set(false);
        self.last.take();
        Ok(found)
    }

    /// Why a topic cannot be read, with the name that was perhaps meant.
    fn no_topic(&self, name: &str, code: RDKafkaRespErr) -> Error {
        let code = RDKafkaErrorCode::from(code);
        match code {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                let err = Error::new(Kind::UndefinedObject, format!("topic \"{name}\" does not exist"));
                let all = self.consumer.fetch_metadata(None, PATIENCE);
                let near =
                    all.as_ref().ok().and_then(|all| nearest(name, all.topics().iter().map(|topic| topic.name())));
                match near {
                    Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
                    None => err,
                }
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                let message = format!("topic \"{name}\" must not be read by this user");
                Error::new(Kind::InsufficientPrivilege, message)
                    .with_hint("Reading takes the operations Read and Describe on the topic, and Read on the group.")
            }
            other => Error::new(Kind::Unreachable, format!("topic \"{name}\" cannot be read now: {other}")),
        }
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
        native::commit(&self.consumer, &list(offsets)?, PATIENCE).map_err(|code| match code {
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

    /// librdkafka's error in the words of this program. Where no broker answers, with what was logged last.
    fn trouble(&self, err: &KafkaError) -> Error {
        use RDKafkaErrorCode as C;
        self.has_trouble();
        let last = self.last.borrow().clone();
        let refused = last.as_ref().is_some_and(|text| text.contains("uthentication") || text.contains("SASL"));
        let code = err.rdkafka_error_code();
        let unanswered = matches!(
            code,
            Some(
                C::BrokerTransportFailure | C::AllBrokersDown | C::OperationTimedOut | C::RequestTimedOut | C::Resolve
            )
        );
        let err = match code {
            Some(C::Authentication | C::SaslAuthenticationFailed) => self.refused(),
            _ if unanswered && refused => self.refused(),
            _ if unanswered => {
                let message = format!("no Kafka broker answers at {}", self.brokers);
                Error::new(Kind::Unreachable, message)
                    .with_hint("Check the option \"brokers\", the network, and kafka.security.protocol.")
            }
            Some(code) => Error::new(Kind::Unreachable, format!("the Kafka cluster answers: {code}")),
            None => Error::new(Kind::Unreachable, format!("Kafka: {err}")),
        };
        match last {
            Some(last) => err.with_detail(format!("librdkafka: {last}.")),
            None => err,
        }
    }

    fn refused(&self) -> Error {
        Error::new(Kind::InsufficientPrivilege, format!("the Kafka brokers at {} refuse the login", self.brokers))
            .with_hint(
                "Check kafka.security.protocol, kafka.sasl.mechanism, kafka.sasl.username and kafka.sasl.password.",
            )
    }
}

fn of_metadata(topic: &rdkafka::metadata::MetadataTopic) -> Topic {
    Topic { name: topic.name().to_string(), id: None, partitions: topic.partitions().iter().map(|p| p.id()).collect() }
}

fn list<'a>(of: impl IntoIterator<Item = (&'a String, i32, Offset)>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (topic, number, offset) in of {
        let added = list.add_partition_offset(topic, number, offset);
        added.map_err(|err| Error::internal(format!("{topic}/{number}: {err}")))?;
    }
    Ok(list)
}
