//! The source against librdkafka's mock cluster, where brokers fail when they are told to.

use std::sync::mpsc::{Receiver, channel};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster and somebody who writes to it.
struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Cluster {
    fn start(topics: &[(&str, i32)]) -> Cluster {
        let mock = MockCluster::new(2).unwrap();
        for (topic, partitions) in topics {
            mock.create_topic(topic, *partitions, 1).unwrap();
        }
        let producer = ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
        Cluster { mock, producer }
    }

    /// Writes messages and waits until they are there.
    fn write(&self, topic: &str, partition: i32, texts: &[&str]) {
        for text in texts {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition).payload(text);
            self.producer.send(record).map_err(|(err, _)| err).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn options(&self, given: &[(&str, &str)]) -> Options {
        let brokers = ("brokers".to_string(), self.mock.bootstrap_servers());
        let given = given.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let given: Vec<_> = [brokers].into_iter().chain(given).collect();
        Options::parse("connector \"kafka\"", &[OPTIONS], &given).unwrap()
    }

    fn source(&self, given: &[(&str, &str)]) -> Reader {
        Reader::new(Kafka::new(Settings::from(&self.options(given)).unwrap()))
    }
}

/// Polls a source as its driver does, and keeps what it gave.
struct Reader {
    source: Kafka,
    woken: Receiver<()>,
    rows: Vec<String>,
    positions: Vec<Position>,
    warnings: Vec<Error>,
    errors: Vec<Error>,
}

impl Reader {
    fn new(mut source: Kafka) -> Reader {
        let (wake, woken) = channel();
        source.set_waker(Waker::new(move || {
            let _ = wake.send(());
        }));
        Reader { source, woken, rows: vec![], positions: vec![], warnings: vec![], errors: vec![] }
    }

    fn resumed(mut self, positions: Vec<Position>) -> Reader {
        self.source.resume(positions).unwrap();
        self
    }

    /// Polls until it is `done`.
    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Reader) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < PATIENCE, "waited for {what}; {:?} {:?}", self.errors, self.warnings);
            self.poll();
        }
    }

    fn poll(&mut self) {
        let polled = self.source.poll();
        self.warnings.extend(self.source.take_warnings());
        match polled {
            Ok(Polled::Frames(frames, position)) => {
                let name = &position.partition;
                self.rows.extend(frames.iter().map(|frame| format!("{name} {}", String::from_utf8_lossy(frame))));
                if self.source.wants_acknowledgement() {
                    self.source.acknowledge(&position).unwrap();
                }
                self.positions.push(position);
            }
            Ok(Polled::Idle) => self.wait(),
            Ok(Polled::Gone { key, .. }) => self.positions.retain(|position| position.key != key),
            Ok(other) => panic!("{other:?}"),
            Err(err) => {
                self.errors.push(err);
                self.wait();
            }
        }
    }

    fn wait(&self) {
        let _ = self.woken.recv_timeout(self.source.idle_wait().min(Duration::from_millis(100)));
    }

    /// What FLUSH does.
    #[track_caller]
    fn flush(&mut self) {
        self.source.mark().unwrap();
        self.until("what was marked", |reader| reader.source.reached());
    }

    fn sorted(&self) -> Vec<String> {
        let mut rows = self.rows.clone();
        rows.sort();
        rows
    }

    /// The last position of each partition, as the log would give them back.
    fn last(&self) -> Vec<Position> {
        let last: HashMap<_, _> = self.positions.iter().map(|p| (p.key.clone(), p.clone())).collect();
        last.into_values().collect()
    }
}

#[test]
fn all_partitions_are_read_and_a_restart_goes_on_behind_the_last_block() {
    let cluster = Cluster::start(&[("a", 2), ("b", 1), ("other", 1)]);
    cluster.write("a", 0, &["1", "2"]);
    cluster.write("a", 1, &["3"]);
    cluster.write("b", 0, &["4"]);
    let given = [("topic", "a, b")];
    let mut reader = cluster.source(&given);
    reader.flush();
    assert_eq!(reader.sorted(), ["a/0 1", "a/0 2", "a/1 3", "b/0 4"]);
    let of_a: Vec<_> = reader.positions.iter().filter(|p| p.partition == "a/0").map(|p| (p.start, p.end)).collect();
    assert_eq!((of_a[0].0, of_a[of_a.len() - 1].1), (0, 2));
    let mut parts = reader.source.partitions();
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(parts[0], Partition { name: "a/0".into(), position: 2, end: Some(2) });
    let positions = reader.last();
    drop(reader);
    cluster.write("a", 0, &["5"]);
    cluster.write("a", 1, &["6"]);
    let mut reader = cluster.source(&given).resumed(positions);
    reader.flush();
    assert_eq!(reader.sorted(), ["a/0 5", "a/1 6"]);
    assert!(reader.warnings.is_empty() && reader.errors.is_empty());
}

#[test]
fn topics_that_come_later_are_found() {
    let cluster = Cluster::start(&[("web.one", 1), ("db.one", 1)]);
    cluster.write("web.one", 0, &["1"]);
    cluster.write("db.one", 0, &["x"]);
    let mut reader = cluster.source(&[("topic_pattern", r"web\..*"), ("discovery_interval", "100 ms")]);
    reader.flush();
    cluster.mock.create_topic("web.two", 1, 1).unwrap();
    cluster.write("web.two", 0, &["2"]);
    reader.until("the new topic", |reader| reader.rows.len() == 2);
    assert_eq!(reader.sorted(), ["web.one/0 1", "web.two/0 2"]);
}

#[test]
fn with_latest_the_group_knows_where_it_began() {
    let cluster = Cluster::start(&[("a", 2)]);
    cluster.write("a", 0, &["before"]);
    let given = [("topic", "a"), ("start", "latest"), ("group", "g")];
    let mut reader = cluster.source(&given);
    reader.flush();
    assert!(reader.rows.is_empty());
    // No message has come, so the log knows nothing.
    drop(reader);
    cluster.write("a", 0, &["1"]);
    cluster.write("a", 1, &["2"]);
    let mut reader = cluster.source(&given);
    reader.flush();
    assert_eq!(reader.sorted(), ["a/0 1", "a/1 2"]);
}

#[test]
fn what_is_durable_is_committed_for_others_to_see() {
    let cluster = Cluster::start(&[("a", 1)]);
    cluster.write("a", 0, &["1", "2", "3"]);
    let given = [("topic", "a"), ("group", "g")];
    let mut reader = cluster.source(&given);
    reader.flush();
    drop(reader);
    let reader = cluster.source(&given);
    let client = Client::new(&reader.source.settings, None).unwrap();
    assert_eq!(client.committed(&[("a".to_string(), 0)]).unwrap(), [("a".to_string(), 0, 3)]);
    // Also what was durable before a start, when there was no time to commit it.
    let mut given = given;
    given[1].1 = "h";
    let mut positions = reader_of(&cluster).last();
    positions[0].end = 2;
    let mut reader = cluster.source(&given).resumed(positions);
    reader.source.mark().unwrap();
    drop(reader);
    let client = Client::new(&cluster.source(&given).source.settings, None).unwrap();
    assert_eq!(client.committed(&[("a".to_string(), 0)]).unwrap(), [("a".to_string(), 0, 2)]);
}

/// One that has read topic `a`.
fn reader_of(cluster: &Cluster) -> Reader {
    let mut reader = cluster.source(&[("topic", "a")]);
    reader.flush();
    reader
}

#[test]
fn a_time_is_where_to_begin() {
    let cluster = Cluster::start(&[("a", 1)]);
    cluster.write("a", 0, &["1"]);
    // The mock cluster knows no times: it has no message behind any.
    let mut reader = cluster.source(&[("topic", "a"), ("start", "2999-01-01")]);
    reader.flush();
    cluster.write("a", 0, &["2"]);
    reader.flush();
    assert_eq!(reader.rows, ["a/0 2"]);
}

#[test]
fn errors_of_brokers_lose_and_repeat_nothing() {
    let cluster = Cluster::start(&[("a", 3)]);
    let mut reader = cluster.source(&[("topic", "a")]);
    let mut expected = Vec::new();
    for round in 0..4 {
        use RDKafkaRespErr as E;
        let errors = [
            E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            E::RD_KAFKA_RESP_ERR__TRANSPORT,
            E::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
            E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        ];
        cluster.mock.request_errors(RDKafkaApiKey::Fetch, &errors[..=round]);
        for partition in 0..3 {
            cluster.mock.partition_leader("a", partition, Some(1 + (round as i32 + partition) % 2)).unwrap();
            let texts: Vec<String> = (0..50).map(|i| format!("{round}-{i:02}")).collect();
            cluster.write("a", partition, &texts.iter().map(String::as_str).collect::<Vec<_>>());
            expected.extend(texts.iter().map(|text| format!("a/{partition} {text}")));
        }
        reader.until("all messages", |reader| reader.rows.len() >= expected.len());
    }
    expected.sort();
    assert_eq!(reader.sorted(), expected);
}

#[test]
fn brokers_that_are_down_are_told_and_waited_for() {
    let cluster = Cluster::start(&[("a", 1)]);
    cluster.write("a", 0, &["1"]);
    let mut reader = cluster.source(&[("topic", "a")]);
    reader.flush();
    cluster.mock.broker_down(-1).unwrap();
    reader.until("an error", |reader| !reader.errors.is_empty());
    let err = &reader.errors[0];
    assert_eq!(err.kind(), Kind::Unreachable);
    assert!(err.message().contains("no Kafka broker answers at"), "{err}");
    assert!(err.detail().is_some_and(|detail| detail.contains("librdkafka: ")), "{err}");
    // FLUSH does not wait for what cannot be read.
    assert!(reader.source.mark().is_err() && reader.source.reached());
    cluster.mock.broker_up(-1).unwrap();
    cluster.write("a", 0, &["2"]);
    reader.until("the message", |reader| reader.rows.len() == 2);
    reader.until("peace", |reader| reader.source.problem.is_none());
    assert_eq!(reader.rows, ["a/0 1", "a/0 2"]);
}

#[test]
fn an_offset_that_is_not_there_is_told() {
    let cluster = Cluster::start(&[("a", 1)]);
    cluster.write("a", 0, &["1", "2"]);
    let mut reader = cluster.source(&[("topic", "a")]);
    reader.flush();
    let mut positions = reader.last();
    drop(reader);
    positions[0].end = 7;
    let mut reader = cluster.source(&[("topic", "a")]).resumed(positions);
    reader.until("the messages", |reader| reader.rows.len() == 2);
    assert!(reader.warnings[0].message().contains("ends before the offset 7"), "{:?}", reader.warnings);
    assert_eq!((reader.positions[0].start, reader.positions[0].end), (0, 2));
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let cluster = Cluster::start(&[("access", 1)]);
    check(&cluster.options(&[("topic", "access")])).unwrap();
    check(&cluster.options(&[("topic_pattern", "nothing.yet")])).unwrap();
    let err = check(&cluster.options(&[("topic", "acces")])).unwrap_err();
    assert_eq!(err.kind(), Kind::UndefinedObject, "{err}");
    assert_eq!(err.message(), "topic \"acces\" does not exist");
    assert_eq!(err.hint(), Some("Did you mean \"access\"?"));
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.mock.topic_error("access", forbidden).unwrap();
    let err = check(&cluster.options(&[("topic", "access")])).unwrap_err();
    assert_eq!(err.kind(), Kind::InsufficientPrivilege, "{err}");
    let nowhere = |more: &[(&str, &str)]| {
        let given = [("brokers", "127.0.0.1:1"), ("topic", "a")];
        let given: Vec<_> = given.iter().chain(more).map(|(k, v)| (k.to_string(), v.to_string())).collect();
        check(&Options::parse("kafka", &[OPTIONS], &given).unwrap()).unwrap_err()
    };
    let err = nowhere(&[]);
    assert_eq!(err.kind(), Kind::Unreachable, "{err}");
    assert!(err.detail().is_some_and(|detail| detail.contains("Connection refused")), "{err}");
    let err = nowhere(&[("kafka.security.protocol", "ssl"), ("kafka.ssl.ca.location", "/nowhere/ca.pem")]);
    assert_eq!(err.kind(), Kind::InvalidParameter, "{err}");
}
