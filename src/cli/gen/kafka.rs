//! To a topic of Kafka: each line is a message without a key.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::output::{Output, Settings, Spec};
use crate::error::{Error, Kind, Result};

pub static SPEC: Spec = Spec { scheme: "kafka", form: "BROKER:PORT[,BROKER:PORT…]/TOPIC", has_headers: false, open };

/// So long a broker may be away before a message counts as refused.
const PATIENCE: Duration = Duration::from_secs(30);

fn open(rest: &str, settings: &Settings) -> Result<Box<dyn Output>> {
    let parts = rest.split_once('/').filter(|(brokers, topic)| !brokers.is_empty() && !topic.is_empty());
    let (brokers, topic) = parts.ok_or_else(|| SPEC.wrong(rest))?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
    config.set("linger.ms", "5");
    for (name, value) in &settings.kafka {
        config.set(name, value);
    }
    let failure = Arc::new(Mutex::new(None));
    let context = Context { failure: Arc::clone(&failure) };
    let producer = ThreadedProducer::from_config_and_context(&config, context).map_err(|err| {
        // The value of a property may be a secret.
        let why = match &err {
            KafkaError::ClientConfig(_, _, name, _) => format!("the property \"{name}\" is not as it should be"),
            other => other.to_string(),
        };
        Error::new(Kind::InvalidParameter, format!("could not make a Kafka client: {why}"))
            .with_hint("See --kafka NAME=VALUE.")
    })?;
    Ok(Box::new(Kafka { topic: topic.to_string(), producer, failure }))
}

/// Remembers the first message that was not delivered.
struct Context {
    failure: Arc<Mutex<Option<KafkaError>>>,
}

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        if let Err((err, _)) = delivered {
            self.failure.lock().get_or_insert_with(|| err.clone());
        }
    }
}

struct Kafka {
    topic: String,
    producer: ThreadedProducer<Context>,
    failure: Arc<Mutex<Option<KafkaError>>>,
}

impl Kafka {
    fn check(&self) -> Result<()> {
        match self.failure.lock().take() {
            None => Ok(()),
            Some(err) => Err(self.failed(&err)),
        }
    }

    fn failed(&self, err: &KafkaError) -> Error {
        let hint = match err.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                "Create the topic first."
            }
            Some(_) | None => "Do the brokers answer, and may the generator write there?",
        };
        Error::new(Kind::Unreachable, format!("could not write to topic \"{}\": {err}", self.topic)).with_hint(hint)
    }
}

impl Output for Kafka {
    fn write(&mut self, block: &[u8]) -> Result<bool> {
        self.check()?;
        for line in block.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut record = BaseRecord::<(), [u8]>::to(&self.topic).payload(line);
            while let Err((err, again)) = self.producer.send(record) {
                if err.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(self.failed(&err));
                }
                // The broker is slower than the generator.
                self.check()?;
                std::thread::sleep(Duration::from_millis(5));
                record = again;
            }
        }
        Ok(true)
    }

    fn finish(&mut self) -> Result<()> {
        let flushed = self.producer.flush(PATIENCE * 2);
        self.check()?;
        flushed.map_err(|err| self.failed(&err))
    }
}
