//! The producer, with its transactions. Everything here blocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::messages::Messages;
use super::settings::Settings;
use super::topic::{Limits, Reader, Rows, noted};
use super::{Caller, gone};
use crate::error::{Error, Kind};
use crate::kafka::properties::no_client;
use crate::kafka::trouble::Trouble;
use crate::sink::{Batch, Delivered, Feed, Position};

/// So long the transaction of a producer before may take to be decided.
const INIT: Duration = Duration::from_secs(20);

/// So long the position may take to become part of a transaction. librdkafka does not go on with this step when it is called
/// again, so a thread stays in it for as long, also when nobody waits any more.
const OFFSETS: Duration = Duration::from_secs(10);

/// So long the end of a transaction may take: after that, what became of it is asked anew.
const COMMIT: Duration = Duration::from_secs(30);

/// So long it is tried to take a transaction back: whoever opens next does it too.
const ABORT: Duration = Duration::from_secs(2);

/// A thread waits so long before it looks whether anybody waits for it.
const SLICE: Duration = Duration::from_millis(250);

/// The same while messages are on their way.
const POLL: Duration = Duration::from_millis(2);

/// What librdkafka calls back: which messages could not be delivered.
#[derive(Default)]
struct Reports {
    /// The first reason.
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((err, _)) = result {
            self.failed.lock().get_or_insert_with(|| err.clone());
        }
    }
}

/// See the file header.
pub struct Link {
    // fixed
    trouble: Trouble,
    producer: BaseProducer<Reports>,
    settings: Arc<Settings>,
    /// The transactional id.
    id: String,
    /// Holds the position; `None` without transactions.
    group: Option<ConsumerGroupMetadata>,
    /// The one of the topic that the position is committed for.
    partition: i32,
    limits: Limits,
    key: Option<Vec<usize>>,
    time: Option<usize>,
    // state
    /// A change is being delivered, in a transaction if there are any.
    inside: bool,
    /// What the topic has, while the whole result of a view comes.
    rows: Option<Rows>,
}

impl Link {
    /// A producer that has shut out those before it, and the position where its delivery goes on.
    pub fn open(settings: Arc<Settings>, feed: Feed, known: Position, caller: &Caller) -> Delivered<(Link, Position)> {
        let (id, time) = (settings.id(&feed), settings.time(&feed)?);
        let reader = Reader::new(&settings, &id)?;
        let partitions = reader.partitions(caller)?;
        let Some(&partition) = partitions.iter().min() else {
            let message = format!("topic \"{}\" has no partitions", settings.topic);
            return Err(Error::new(Kind::Unreachable, message).into());
        };
        let limits = reader.limits();
        if limits.compacted && feed.key.is_none() {
            let message = format!("topic \"{}\" is compacted, which takes messages with keys", settings.topic);
            return Err(Error::new(Kind::InvalidParameter, message)
                .with_hint("Say which columns are the key: WITH (key = 'column, …').")
                .into());
        }
        let config = settings.writer(&id, limits.message_bytes)?;
        let made = BaseProducer::from_config_and_context(&config, Reports::default());
        let producer: BaseProducer<Reports> = made.map_err(|err| no_client(&err))?;
        let link = Link {
            trouble: Trouble::of(producer.client(), &settings.brokers)?,
            producer,
            settings: Arc::clone(&settings),
            id: id.clone(),
            group: if settings.exactly_once { Some(reader.group()?) } else { None },
            partition,
            limits,
            key: feed.key,
            time,
            inside: false,
            rows: None,
        };
        if link.group.is_some() {
            link.patiently(INIT, caller, |wait| link.producer.init_transactions(wait))?;
        } else if !feed.upserts {
            return Ok((link, known));
        }
        let position = match reader.position(partition, caller)? {
            Some(position) if link.group.is_some() => position,
            Some(_) => known,
            None => {
                // The group says from now on that the topic is this sink's.
                if feed.upserts && known == Position::default() {
                    let mut is_empty = true;
                    reader.read(&partitions, caller, |_, _| {
                        is_empty = false;
                        false
                    })?;
                    if !is_empty {
                        let message = format!("topic \"{}\" has messages already", settings.topic);
                        let err = Error::new(Kind::ObjectInUse, message).with_detail(
                            "The topic of a view's sink holds the view's rows and no others: others would get tombstones.",
                        );
                        return Err(err.with_hint("Name another topic.").into());
                    }
                }
                match &link.group {
                    Some(group) => {
                        link.producer.begin_transaction().map_err(|err| link.error(&err))?;
                        link.commit(group, known, caller)?;
                    }
                    None => reader.commit(partition, known)?,
                }
                known
            }
        };
        link.trouble.is_over();
        Ok((link, position))
    }

    /// Whether parts of a change were delivered and not accepted yet.
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// Takes librdkafka's events and logs; does not wait.
    pub fn look_after(&self) {
        self.trouble.is_seen();
        self.producer.poll(Duration::ZERO);
    }

    /// Delivers a batch. After a failure that is no refusal there is no use for this link any more.
    pub fn take(&mut self, batch: &Batch, caller: &Caller) -> Delivered<Option<Position>> {
        let messages = Messages::of(batch, &self.settings.encoding, self.key.as_deref(), self.time)?;
        messages.check(&self.limits)?;
        if batch.replaces && self.rows.is_none() {
            self.rows = Some(Rows::read(&Reader::new(&self.settings, &self.id)?, caller)?);
        }
        if !self.inside {
            if self.group.is_some() {
                self.producer.begin_transaction().map_err(|err| self.error(&err))?;
            }
            self.inside = true;
        }
        let now = Utc::now().timestamp_millis();
        for row in 0..messages.len() {
            let (key, payload) = (messages.key(row), messages.payload(row));
            let is_there = |rows: &mut Rows| key.is_some_and(|key| rows.has(key, payload));
            if !self.rows.as_mut().is_some_and(is_there) {
                let time = messages.time(row).and_then(|millis| self.limits.time(millis, now));
                self.send(key, payload, time, caller)?;
            }
        }
        if let Some(rows) = self.rows.take_if(|_| batch.upto.is_some()) {
            for key in rows.rest() {
                self.send(Some(&key), None, None, caller)?;
            }
        }
        while self.producer.in_flight_count() > 0 {
            self.serve(caller)?;
        }
        self.failed()?;
        let Some(upto) = batch.upto else { return Ok(None) };
        if let Some(group) = &self.group {
            self.commit(group, upto, caller)?;
        }
        self.inside = false;
        self.trouble.is_over();
        Ok(Some(upto))
    }

    /// Hands a message to librdkafka; waits while it has too many.
    fn send(&self, key: Option<&[u8]>, payload: Option<&[u8]>, time: Option<i64>, caller: &Caller) -> Delivered<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.settings.topic);
        (record.key, record.payload, record.timestamp) = (key, payload, time);
        loop {
            record = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((err, back)) if err.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    self.serve(caller)?;
                    back
                }
                Err((err, _)) => return Err(self.error(&err).into()),
            }
        }
    }

    /// Hears what became of messages. librdkafka gives each up after a time, so it need not be bounded here.
    fn serve(&self, caller: &Caller) -> Delivered<()> {
        self.producer.poll(POLL);
        self.failed()?;
        if caller.is_cancelled() { Err(gone()) } else { Ok(()) }
    }

    fn failed(&self) -> Delivered<()> {
        match self.producer.context().failed.lock().take() {
            Some(err) => Err(self.error(&err).into()),
            None => Ok(()),
        }
    }

    /// Ends a transaction, and the position with it.
    fn commit(&self, group: &ConsumerGroupMetadata, position: Position, caller: &Caller) -> Delivered<()> {
        let positions = noted(&self.settings.topic, self.partition, position)?;
        let sent = self.producer.send_offsets_to_transaction(&positions, group, OFFSETS);
        sent.map_err(|err| self.error(&err))?;
        self.patiently(COMMIT, caller, |wait| self.producer.commit_transaction(wait))
    }

    /// Does one step of a transaction, which goes on where it was when it is called again.
    fn patiently(&self, most: Duration, caller: &Caller, step: impl Fn(Duration) -> KafkaResult<()>) -> Delivered<()> {
        let begun = Instant::now();
        loop {
            let tried = Instant::now();
            let err = match step(SLICE) {
                Ok(()) => return Ok(()),
                Err(err) => err,
            };
            let again = matches!(&err, KafkaError::Transaction(err) if err.is_retriable() && !err.txn_requires_abort());
            if !again || begun.elapsed() > most {
                return Err(self.error(&err).into());
            }
            if caller.is_cancelled() {
                return Err(gone());
            }
            self.producer.poll(POLL);
            std::thread::sleep(SLICE.saturating_sub(tried.elapsed()));
        }
    }

    fn error(&self, err: &KafkaError) -> Error {
        // What follows from a failure for good says less than the failure.
        let fatal = self.producer.client().fatal_error().map(|(code, _)| KafkaError::Global(code));
        error(fatal.as_ref().unwrap_or(err), &self.trouble, &self.settings, &self.id)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let begun = Instant::now();
        while self.inside && self.group.is_some() && begun.elapsed() < ABORT {
            match self.producer.abort_transaction(SLICE) {
                Err(KafkaError::Transaction(err)) if err.is_retriable() => self.producer.poll(POLL),
                Ok(()) | Err(_) => break,
            }
        }
    }
}

/// librdkafka's error, with what a user can do about it.
pub fn error(err: &KafkaError, trouble: &Trouble, settings: &Settings, id: &str) -> Error {
    use RDKafkaErrorCode as C;
    let topic = &settings.topic;
    let without = "Or create the sink with delivery = 'at_least_once'.";
    let denied = |what: String| Error::new(Kind::InsufficientPrivilege, what);
    match err.rdkafka_error_code() {
        Some(C::TopicAuthorizationFailed) => denied(format!("topic \"{topic}\" must not be written by this user"))
            .with_hint("Writing takes the operations Write and Describe on the topic; for a view, Read as well."),
        Some(C::TransactionalIdAuthorizationFailed) => {
            denied(format!("the transactional id \"{id}\" must not be used by this user"))
                .with_hint(format!("It takes the operations Write and Describe on it. {without}"))
        }
        Some(C::GroupAuthorizationFailed) => denied(format!("the group \"{id}\" must not be used by this user"))
            .with_hint(format!("It holds the position, which takes the operation Read on it. {without}")),
        Some(C::Fenced | C::ProducerFenced | C::InvalidProducerEpoch) => {
            let message = format!("the brokers have ended the transaction of \"{id}\"");
            Error::new(Kind::ObjectInUse, message).with_hint(
                "It took longer than kafka.transaction.timeout.ms, or another server delivers for this sink, with a copy of the data directory.",
            )
        }
        Some(C::InvalidTransactionTimeout) => {
            let message = "the brokers do not allow transactions that take so long";
            Error::new(Kind::InvalidParameter, message)
                .with_hint("Set kafka.transaction.timeout.ms to what transaction.max.timeout.ms of the brokers allows.")
        }
        Some(C::UnsupportedFeature | C::UnsupportedVersion) => {
            let message = "the brokers do not know what the delivery needs";
            Error::new(Kind::NotSupported, message)
                .with_detail(err.to_string())
                .with_hint(format!("Transactions take Kafka 2.5 or later. {without}"))
        }
        Some(C::MessageSizeTooLarge | C::MessageBatchTooLarge) => {
            let message = format!("topic \"{topic}\" does not take messages of this size");
            Error::new(Kind::OutOfRange, message)
                .with_hint("Set kafka.message.max.bytes to max.message.bytes of the topic, or allow this user to see that (DescribeConfigs).")
        }
        Some(C::InvalidTimestamp) => {
            Error::new(Kind::OutOfRange, format!("topic \"{topic}\" does not take the times of these messages"))
                .with_hint("Create the sink with timestamp = 'none', or look at message.timestamp.… of the topic.")
        }
        Some(_) | None => trouble.error(err),
    }
}
