//! What users can set: the table of options, and what is made of them: the topic, the delivery, librdkafka's properties.

use std::ffi::CString;

use arrow::datatypes::DataType;
use rdkafka::ClientConfig;

use crate::error::{Error, Kind, Result};
use crate::kafka::properties::{self, Ours};
use crate::options::{OptionKind, OptionSpec, Options, join, nearest};
use crate::sink::Feed;
use crate::sink::encode::Encoding;

pub static OPTIONS: &[OptionSpec] = &join::<11>(OWN, properties::OPTIONS);

const OWN: &[OptionSpec] = &[
    OptionSpec::required("brokers", OptionKind::Hosts, "some brokers of the cluster: 'host:9092, other:9092'"),
    OptionSpec::required("topic", OptionKind::Text, "the topic, which must exist"),
    OptionSpec::optional(
        "key",
        OptionKind::Text,
        None,
        "columns 'a, b' that are a message's key, as a JSON object; messages of a key stay in order, in one partition [default: what a view is grouped by; none for a stream]",
    ),
    OptionSpec::optional(
        "timestamp",
        OptionKind::Text,
        None,
        "the column with a message's time, or 'none': the time of sending [default: a stream's event time, a window's time]",
    ),
    OptionSpec::optional(
        "delivery",
        OptionKind::Choice(&["exactly_once", "at_least_once"]),
        Some("exactly_once"),
        "with a transaction for each batch, or without",
    ),
    OptionSpec::optional(
        "id_prefix",
        OptionKind::Text,
        Some("logweir-"),
        "what the transactional id and the group that holds the position begin with, in front of the sink's own id: for access lists",
    ),
];

/// Properties that a user may change.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "logweir"),
    ("reconnect.backoff.max.ms", "2000"),
    // Of what is read of the topic, and of what is sent.
    ("queued.max.messages.kbytes", "16384"),
    ("queue.buffering.max.kbytes", "65536"),
    ("fetch.wait.max.ms", "100"),
    ("compression.type", "lz4"),
    // A key goes where Kafka's own clients send it.
    ("partitioner", "murmur2_random"),
];

/// So long consumers wait at most behind the transaction of a server that does not come back; so long a change may take.
const TRANSACTION_MS: u64 = 300_000;

/// After this time without a broker that takes a message a batch has failed.
const MESSAGE_MS: u64 = 30_000;

/// The largest message, unless the topic or the user says otherwise: librdkafka's default.
const MESSAGE_BYTES: usize = 1_000_000;

/// librdkafka takes no smaller limit.
const LEAST_MESSAGE_BYTES: usize = 1000;

/// The longest name of a topic (Kafka's `Topic.java`).
const TOPIC_LENGTH: usize = 249;

const OURS: &[Ours] = &[
    ("bootstrap.servers", Some("brokers")),
    ("metadata.broker.list", Some("brokers")),
    ("transactional.id", Some("id_prefix")),
    ("group.id", Some("id_prefix")),
    ("enable.idempotence", None),
    ("acks", None),
    ("request.required.acks", None),
    ("isolation.level", None),
    ("enable.auto.commit", None),
    ("enable.partition.eof", None),
    ("auto.offset.reset", None),
    ("delivery.report.only.error", None),
];

/// Which time a message has.
#[derive(Debug, Clone, PartialEq)]
enum Stamp {
    /// That of its row, if it has one.
    Row,
    /// That of a column.
    Column(String),
    /// That of sending.
    None,
}

/// The options, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub brokers: String,
    pub topic: String,
    /// The same for librdkafka.
    pub native_topic: CString,
    pub exactly_once: bool,
    pub encoding: Encoding,
    stamp: Stamp,
    prefix: String,
    /// Secrets are looked up in them each time a client is made.
    options: Options,
}

impl Settings {
    /// Asks no broker.
    pub fn from(options: &Options, encoding: Encoding) -> Result<Settings> {
        let text = |name| options.text(name).map(str::trim).unwrap_or_default().to_string();
        let topic = text("topic");
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if topic.is_empty() || topic.len() > TOPIC_LENGTH || !topic.chars().all(is_legal) {
            return Err(Error::new(Kind::InvalidParameter, format!("option \"topic\": no topic is called {topic:?}"))
                .with_hint("A name has letters, digits, and the characters '.', '_' and '-'."));
        }
        let stamp = match options.text("timestamp").map(str::trim) {
            None => Stamp::Row,
            Some("none") => Stamp::None,
            Some(column) => Stamp::Column(column.to_string()),
        };
        properties::check(options, OURS)?;
        Ok(Settings {
            brokers: text("brokers"),
            native_topic: CString::new(topic.as_str()).map_err(|err| Error::internal(err.to_string()))?,
            topic,
            exactly_once: options.text("delivery") == Some("exactly_once"),
            encoding,
            stamp,
            prefix: text("id_prefix"),
            options: options.clone(),
        })
    }

    /// The transactional id of a sink, and the name of the group with its position.
    pub fn id(&self, feed: &Feed) -> String {
        format!("{}{}", self.prefix, feed.id)
    }

    /// The column (by index) with the times of messages, if they are not those of sending.
    pub fn time(&self, feed: &Feed) -> Result<Option<usize>> {
        let name = match &self.stamp {
            Stamp::None => return Ok(None),
            Stamp::Row => return Ok(feed.time),
            Stamp::Column(name) => name,
        };
        let fields = feed.schema.fields();
        match fields.find(name) {
            Some((at, field)) if matches!(field.data_type(), DataType::Timestamp(..)) => Ok(Some(at)),
            Some((_, field)) => {
                let message = format!("column \"{name}\" of the option \"timestamp\" is no timestamp");
                Err(Error::new(Kind::Datatype, message).with_detail(format!("It is {}.", field.data_type())))
            }
            None => {
                let message = format!("column \"{name}\" of the option \"timestamp\" does not exist");
                let err = Error::new(Kind::UndefinedColumn, message);
                Err(match nearest(name, fields.iter().map(|field| field.name().as_str())) {
                    Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
                    None => err,
                })
            }
        }
    }

    /// The largest message that librdkafka sends.
    pub fn message_bytes(&self) -> usize {
        self.number("message.max.bytes").and_then(|n| usize::try_from(n).ok()).unwrap_or(MESSAGE_BYTES)
    }

    /// The value of a property that was given, if it is a number.
    fn number(&self, property: &str) -> Option<u64> {
        let found = properties::given(&self.options).find(|(name, _)| *name == property);
        found.and_then(|(_, value)| value.trim().parse().ok())
    }

    /// librdkafka's properties for one who reads the topic and the position; secrets among them.
    pub fn reader(&self, id: &str) -> Result<ClientConfig> {
        let mut config = self.config()?;
        config.set("group.id", id);
        // Also of offsets: the last transaction is waited for.
        config.set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "smallest");
        Ok(config)
    }

    /// librdkafka's properties for one who writes; secrets among them. No batch is larger than so many bytes.
    pub fn writer(&self, id: &str, bytes: usize) -> Result<ClientConfig> {
        let mut config = self.config()?;
        let transaction = self.number("transaction.timeout.ms").unwrap_or(TRANSACTION_MS);
        let bytes = bytes.max(LEAST_MESSAGE_BYTES).to_string();
        config.set("enable.idempotence", "true");
        config.set("delivery.report.only.error", "true");
        config.set("message.max.bytes", bytes);
        let mut message = MESSAGE_MS;
        if self.exactly_once {
            config.set("transactional.id", id);
            config.set("transaction.timeout.ms", transaction.to_string());
            message = message.min(transaction);
        }
        // Also called delivery.timeout.ms.
        if config.get("message.timeout.ms").or(config.get("delivery.timeout.ms")).is_none() {
            config.set("message.timeout.ms", message.to_string());
        }
        Ok(config)
    }

    fn config(&self) -> Result<ClientConfig> {
        let mut config = properties::config(&self.options, DEFAULTS)?;
        config.set("bootstrap.servers", &self.brokers);
        Ok(config)
    }
}
