//! What users can set: the table of options, and what is made of them: topics, where to begin, librdkafka's properties.

use std::time::Duration;

use rdkafka::ClientConfig;
use regex::Regex;

use crate::error::{Error, Kind, Result};
use crate::format::timestamp::{self, Zone};
use crate::frame::{Framing, framing_option, message, newline};
use crate::kafka::properties::{self, Ours};
use crate::options::{OptionKind, OptionSpec, Options, join};

pub static OPTIONS: &[OptionSpec] = &join::<13>(OWN, properties::OPTIONS);

const OWN: &[OptionSpec] = &[
    OptionSpec::required("brokers", OptionKind::Hosts, "some brokers of the cluster: 'host:9092, other:9092'"),
    OptionSpec::optional("topic", OptionKind::Text, None, "a topic, or several with commas between them"),
    OptionSpec::optional(
        "topic_pattern",
        OptionKind::Text,
        None,
        r"instead of topic: a regular expression for the whole name, such as 'web\..*'; new topics are found",
    ),
    OptionSpec::optional(
        "group",
        OptionKind::Text,
        None,
        "consumer group: offsets are committed to it once they are durable, so that tools show the lag; those it has already are where a new stream begins",
    ),
    OptionSpec::optional(
        "start",
        OptionKind::Text,
        Some("earliest"),
        "where to begin: 'earliest', 'latest' (with a group) or a time such as '2026-01-31T08:00:00Z'; partitions that come later are read from their beginning",
    ),
    framing_option(&["message", "newline"], "a message is one record (the default), or each of its lines is"),
    OptionSpec::optional("max_line_bytes", OptionKind::Bytes, Some("1 MiB"), "longer records are cut to this length"),
    OptionSpec::optional(
        "discovery_interval",
        OptionKind::Interval,
        Some("10 seconds"),
        "how often it is looked for new topics and partitions",
    ),
];

/// Properties that a user may change.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "logweir"),
    // What is fetched ahead, for all partitions together: this bounds the memory while the stream takes nothing in.
    ("queued.max.messages.kbytes", "32768"),
    // When so much is there, it is looked again after this time; the default, a second, would be a pause in each second.
    ("fetch.queue.backoff.ms", "10"),
    // The end of a partition is told when a fetch has found nothing for so long; FLUSH waits for that behind transactions.
    ("fetch.wait.max.ms", "100"),
    // A broker that is back is noticed soon.
    ("reconnect.backoff.max.ms", "2000"),
];

/// Properties on which it depends that nothing is lost or read twice.
const SET: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // What was lost is to be told, not skipped.
    ("auto.offset.reset", "error"),
    // Tells how far one has come where the last offsets hold no messages (the marks of transactions).
    ("enable.partition.eof", "true"),
];

const OURS: &[Ours] = &[
    ("enable.auto.commit", None),
    ("enable.auto.offset.store", None),
    ("auto.offset.reset", Some("start")),
    ("enable.partition.eof", None),
    ("bootstrap.servers", Some("brokers")),
    ("metadata.broker.list", Some("brokers")),
    ("group.id", Some("group")),
];

/// Which topics are read.
#[derive(Debug, Clone)]
pub enum Topics {
    Named(Vec<String>),
    Matching(Regex),
}

/// Where to begin in a partition of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    Earliest,
    Latest,
    /// With the first message of this time, in milliseconds since 1970, or a later one.
    Time(i64),
}

/// The options, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub brokers: String,
    pub topics: Topics,
    pub group: Option<String>,
    pub start: Start,
    pub framing: Framing,
    pub discovery_interval: Duration,
    /// Secrets are looked up in them each time a client is made.
    options: Options,
}

impl Settings {
    /// Asks no broker.
    pub fn from(options: &Options) -> Result<Settings> {
        let text = |name| options.text(name).map(str::trim).filter(|text| !text.is_empty());
        let wrong = |message: &str| Error::new(Kind::InvalidParameter, message.to_string());
        let topics = match (text("topic"), text("topic_pattern")) {
            (Some(names), None) => {
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                Topics::Named(names.map(str::to_string).collect())
            }
            (None, Some(pattern)) => Topics::Matching(Regex::new(&format!("^(?:{pattern})$")).map_err(|err| {
                Error::new(Kind::InvalidRegex, format!("option \"topic_pattern\" is no regular expression: {err}"))
            })?),
            (None, None) => {
                return Err(wrong("connector \"kafka\" needs the option \"topic\"")
                    .with_hint("Or give topic_pattern, a regular expression."));
            }
            (Some(_), Some(_)) => return Err(wrong("topic and topic_pattern exclude each other")),
        };
        let group = text("group").map(str::to_string);
        let start = match text("start").unwrap_or("earliest") {
            "earliest" => Start::Earliest,
            "latest" => Start::Latest,
            time => {
                let at = timestamp::rfc3339(time.as_bytes(), Zone::UTC).filter(|&at| at >= 0);
                Start::Time(at.map(|micros| micros.div_euclid(1000)).ok_or_else(|| {
                    wrong(&format!("option \"start\" takes 'earliest', 'latest' or a time, not \"{time}\""))
                        .with_hint("Write a time like '2026-01-31T08:00:00Z'.")
                })?)
            }
        };
        if start == Start::Latest && group.is_none() {
            return Err(wrong("start = 'latest' needs the option \"group\"").with_hint(
                "Until a partition has given its first message, the group is what knows where it began, so that a restart loses nothing.",
            ));
        }
        let discovery_interval = options.interval("discovery_interval").unwrap_or(Duration::from_secs(10));
        let settings = Settings {
            brokers: text("brokers").unwrap_or_default().to_string(),
            topics,
            group,
            start,
            framing: Framing::from(options, message::SPEC.name)?,
            discovery_interval: discovery_interval.max(Duration::from_millis(100)),
            options: options.clone(),
        };
        properties::check(options, OURS)?;
        Ok(settings)
    }

    /// Whether each line of a message is a record.
    pub fn by_line(&self) -> bool {
        self.framing.spec.name == newline::SPEC.name
    }

    /// librdkafka's properties, secrets among them.
    pub fn config(&self) -> Result<ClientConfig> {
        let mut config = properties::config(&self.options, DEFAULTS)?;
        for (name, value) in SET {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", &self.brokers);
        // Nothing joins it: partitions are assigned here. Without one, librdkafka has no queue for messages.
        config.set("group.id", self.group.as_deref().unwrap_or("logweir"));
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: &[(&str, &str)]) -> Result<Settings> {
        let brokers = [("brokers".to_string(), "localhost:1".to_string())];
        let given = given.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let given: Vec<_> = brokers.into_iter().chain(given).collect();
        Settings::from(&Options::parse("connector \"kafka\"", &[OPTIONS], &given)?)
    }

    #[test]
    fn options_become_properties() {
        let options =
            [("topic", "a, b"), ("group", "g"), ("kafka.sasl.password", "hunter2"), ("KAFKA.fetch.min.bytes", "7")];
        let settings = settings(&options).unwrap();
        assert!(matches!(&settings.topics, Topics::Named(names) if *names == ["a", "b"]));
        let config = settings.config().unwrap();
        for (name, value) in [("group.id", "g"), ("sasl.password", "hunter2"), ("fetch.min.bytes", "7")] {
            assert_eq!(config.get(name), Some(value));
        }
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn where_to_begin() {
        let start = |given: &str| settings(&[("topic", "t"), ("group", "g"), ("start", given)]).map(|s| s.start);
        assert_eq!(start("earliest").unwrap(), Start::Earliest);
        assert_eq!(start("latest").unwrap(), Start::Latest);
        assert_eq!(start("1970-01-01T00:00:01.5Z").unwrap(), Start::Time(1500));
        assert!(start("yesterday").unwrap_err().message().contains("not \"yesterday\""));
        let err = settings(&[("topic", "t"), ("start", "latest")]).unwrap_err();
        assert!(err.message().contains("needs the option \"group\""));
    }

    #[test]
    fn what_cannot_work_is_said() {
        for (given, kind, text) in [
            (&[][..], Kind::InvalidParameter, "needs the option \"topic\""),
            (&[("topic", "t"), ("topic_pattern", "t")], Kind::InvalidParameter, "exclude each other"),
            (&[("topic_pattern", "(")], Kind::InvalidRegex, "no regular expression"),
            (&[("topic", "t"), ("kafka.group.id", "g")], Kind::InvalidParameter, "Use the option \"group\""),
            (&[("topic", "t"), ("kafka.enable.auto.commit", "true")], Kind::InvalidParameter, "Leave it out"),
            (&[("topic", "t"), ("kafka.no.such", "1")], Kind::InvalidParameter, "No such configuration property"),
            (&[("topic", "t"), ("kafka.fetch.min.bytes", "x")], Kind::InvalidParameter, "fetch.min.bytes"),
            (&[("topic", "t"), ("kafka.sasl.oauthbearer.config", "x")], Kind::NotSupported, "may hold a secret"),
            (&[("topic", "t"), ("framing", "multiline")], Kind::InvalidParameter, "It takes: message, newline"),
        ] {
            let err = settings(given).unwrap_err();
            assert_eq!(err.kind(), kind, "{err}");
            assert!(err.to_string().contains(text), "{err}");
        }
    }
}
