//! The kafka source and sink against a real Apache Kafka broker, which `tests/kafka/fetch` (called by `.ci/run`) gets. Where it cannot
//! be had, the tests pass with a note. What brokers do wrong is tested against a mock cluster, in `src/source/kafka/tests.rs`.
//!
//! | variable | does |
//! |---|---|
//! | `LOGWEIR_KAFKA_LINES=2000000` | so many lines in the runs with kills; from a million on it is also measured how fast they are read, as a share of a bare consumer loop |
//! | `LOGWEIR_KAFKA=folder` | Kafka's jars are there |

pub mod broker;
mod sink;

use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::batch::same;
use crate::lines;
use crate::server::{Client, Server};
use broker::{Broker, LOGIN, PATIENCE, send, until};

/// In an ordinary run.
const LINES: u64 = 40_000;

/// From so many on speed is measured: with fewer, it would be the time to connect.
const MEASURED: u64 = 1_000_000;

const PARTITIONS: i32 = 6;

const MINUTES: &str = "SELECT window_start, count(*) AS n, sum(bytes) AS bytes
                       FROM TUMBLE(web, ts, INTERVAL '1 minute') GROUP BY window_start";

/// Each of the first `written` lines is there once.
fn complete(client: &Client, stream: &str, written: u64) {
    // A server that has just started may not have reached the broker yet; then FLUSH does not wait for it.
    until("the lines", || {
        client.run("FLUSH");
        client.number(&format!("SELECT count(*) FROM {stream}")) >= written as i64
    });
    let rows = client.one(&format!("SELECT count(*), count(DISTINCT bytes), sum(bytes) FROM {stream}"));
    assert_eq!(rows, format!("{written} {written} {}", (0..written).sum::<u64>()));
    assert_eq!(client.number(&format!("SELECT count(*) FROM {stream}__malformed")), 0);
}

fn create(broker: &Broker, stream: &str, more: &str) -> String {
    format!(
        "CREATE TABLE {stream} (*) WITH (connector = 'kafka', brokers = '{}', {more}) FORMAT COMBINED",
        broker.address()
    )
}

#[test]
fn killed_while_it_reads() {
    let Some(mut broker) = Broker::start() else { return };
    let lines = std::env::var("LOGWEIR_KAFKA_LINES").map_or(LINES, |text| text.parse().expect("a whole number"));
    broker.create_topic("web", PARTITIONS);
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.again();
    let client = server.client();
    client.run(&create(&broker, "web", "topic = 'web', group = 'logweir'"));
    client.run(&format!("CREATE MATERIALIZED VIEW minutes AS {MINUTES}"));
    let producer = broker.producer();
    let writer = std::thread::spawn(move || {
        for number in 0..lines {
            send(&producer, "web", (number % PARTITIONS as u64) as i32, lines::numbered(number).trim_end().as_bytes());
        }
        producer.flush(PATIENCE).expect("all is written");
    });
    // While the broker is away.
    server.expect_log("source problem");
    for kill in 1..=5 {
        let client = server.client();
        let much = (lines * kill / 6) as i64;
        until("lines to be read", || client.number("SELECT next_offset FROM logweir.streams") >= much);
        if kill == 3 {
            broker.stop();
            let shown =
                "SELECT count(*) FROM logweir.sources WHERE state = 'retrying' AND last_error LIKE 'no Kafka broker%'";
            until("the absence to be shown", || client.number(shown) > 0);
        }
        server.kill();
        server.again();
        if kill == 3 {
            broker.again();
        }
    }
    writer.join().expect("all lines are written");
    let client = server.client();
    complete(&client, "web", lines);
    same(&client, "the view", "SELECT * FROM minutes", MINUTES, 0.0);
    let read = client.one("SELECT count(*), sum(position), sum(lag), min(state) FROM logweir.sources");
    assert!(read.starts_with(&format!("{PARTITIONS} {lines} 0 ")), "{read}");
    // The log is the truth; the group is told.
    let end =
        |partition: i32| (lines as i64 - i64::from(partition) + i64::from(PARTITIONS) - 1) / i64::from(PARTITIONS);
    for partition in 0..PARTITIONS {
        until("offsets to be committed", || broker.committed("logweir", "web", partition) == Some(end(partition)));
    }
    assert!(server.terminate().success());
    tell(&format!("kafka: {lines} lines, 5 kills, the broker restarted: each line is there once"));
    if lines >= MEASURED {
        measure(&broker, lines);
    }
}

/// How fast the topic is read, by a server and by a loop that only counts.
fn measure(broker: &Broker, lines: u64) {
    let mut server = Server::start();
    let (mut bare, mut full) = (f64::MAX, f64::MAX);
    // In turns, as the machine may be busy at times.
    for round in 0..3 {
        bare = bare.min(count(broker, lines));
        let client = server.client();
        let stream = format!("web{round}");
        let begun = Instant::now();
        client.run(&create(broker, &stream, "topic = 'web'"));
        client.run("FLUSH");
        full = full.min(begun.elapsed().as_secs_f64());
        complete(&client, &stream, lines);
        client.run(&format!("DROP TABLE {stream}"));
    }
    let rate = |seconds: f64| lines as f64 / seconds;
    let (share, memory) = (bare / full, server.peak_memory() >> 20);
    tell(&format!(
        "kafka: {:.0} lines/s into a stream, {:.0} lines/s in a bare loop: a share of {share:.2}; peak memory {memory} MiB",
        rate(full),
        rate(bare)
    ));
    assert!(share >= 0.6, "a share of {share}");
}

/// Seconds that a bare loop takes to count the messages.
fn count(broker: &Broker, lines: u64) -> f64 {
    let begun = Instant::now();
    let consumer: BaseConsumer = broker.config().set("group.id", "bare").create().expect("a client");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset("web", partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("nobody else has them");
    let mut counted = 0;
    while counted < lines {
        // Nothing comes when it has served an event of its own.
        if let Some(message) = consumer.poll(PATIENCE) {
            message.expect("the broker is well");
            counted += 1;
        }
        assert!(begun.elapsed() < PATIENCE, "{counted} of {lines} messages came");
    }
    begun.elapsed().as_secs_f64()
}

#[test]
fn what_brokers_do() {
    let Some(broker) = Broker::start() else { return };
    mistakes(&broker);
    logins(&broker);
    transactions(&broker);
    retention(&broker);
    growth(&broker);
    anew(&broker);
    metadata(&broker);
}

/// What is wrong is said at once, with what to do.
fn mistakes(broker: &Broker) {
    let mut server = Server::start();
    let client = server.client();
    broker.create_topic("access", 1);
    let fails = |more: &str| client.fails(&create(broker, "s", more));
    fails("topic = 'acces'").says("42704", &["topic \"acces\" does not exist", "Did you mean \"access\"?"]);
    fails("topic = 'access', kafka.no.such = '1'").says("22023", &["No such configuration property"]);
    fails("topic = 'access', brokres = 'x'").says("22023", &["did you mean \"brokers\"?"]);
    let nowhere =
        "CREATE TABLE s (*) WITH (connector = 'kafka', brokers = '127.0.0.1:1', topic = 'access') FORMAT COMBINED";
    client.fails(nowhere).says("08001", &["no Kafka broker answers at 127.0.0.1:1", "Connection refused", "brokers"]);
    assert_eq!(client.number("SELECT count(*) FROM logweir.sources"), 0);
    // It may be that it comes later.
    server.expect_log("topic \"later\" does not exist");
    client.run(&create(broker, "s", "topic = 'later', validate = false, discovery_interval = '100 ms'"));
    let shown = "SELECT count(*) FROM logweir.sources WHERE state = 'retrying' AND last_error LIKE 'topic \"later\"%'";
    until("the error to be shown", || client.number(shown) == 1);
    broker.create_topic("later", 1);
    broker.write("later", 0, (0..10).map(lines::numbered));
    until("the lines", || client.number("SELECT count(*) FROM s") == 10);
}

/// TLS and SASL; and the password is shown nowhere.
fn logins(broker: &Broker) {
    let mut server = Server::start();
    let client = server.client();
    broker.create_topic("secret", 1);
    broker.write("secret", 0, (0..10).map(lines::numbered));
    let (user, password) = LOGIN;
    let statement = |password: &str| {
        format!(
            "CREATE TABLE s (*) WITH (connector = 'kafka', brokers = '{}', topic = 'secret',
             kafka.security.protocol = 'SASL_SSL', kafka.ssl.ca.location = '{}',
             kafka.sasl.mechanism = 'PLAIN', kafka.sasl.username = '{user}', kafka.sasl.password = '{password}') FORMAT COMBINED",
            broker.sasl_address(),
            broker.certificate().display()
        )
    };
    let failure = client.fails(&statement("not the password"));
    failure.says("42501", &["refuse the login", "kafka.sasl.password"]);
    assert!(!format!("{failure:?}").contains("not the password"));
    client.run(&statement(password));
    complete(&client, "s", 10);
    let shown = client.one("SHOW CREATE TABLE s");
    assert!(shown.contains("kafka.sasl.password = '***'") && shown.contains("'PLAIN'"), "{shown}");
    assert!(server.terminate().success());
    server.again();
    complete(&server.client(), "s", 10);
}

/// What was taken back is not read, and FLUSH does not wait for the offsets of marks, which hold no messages.
fn transactions(broker: &Broker) {
    let mut server = Server::start();
    let client = server.client();
    broker.create_topic("bank", 2);
    client.run(&create(broker, "s", "topic = 'bank', group = 'bank'"));
    let mut config = broker.config();
    let producer: BaseProducer = config.set("transactional.id", "teller").create().expect("a client");
    producer.init_transactions(PATIENCE).expect("the broker answers");
    let mut written = 0;
    for round in 0..10 {
        producer.begin_transaction().expect("none is open");
        let kept = round % 3 != 1;
        for i in 0..20 {
            let number = if kept { written } else { 1_000_000 + i };
            send(&producer, "bank", (number % 2) as i32, lines::numbered(number).as_bytes());
            written += u64::from(kept);
        }
        // Hears of what was delivered.
        producer.flush(PATIENCE).expect("all is written");
        let ended = if kept { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) };
        ended.expect("the broker answers");
        client.run("FLUSH");
        assert_eq!(client.number("SELECT count(*) FROM s"), written as i64, "FLUSH waits for them");
        complete(&client, "s", written);
    }
    // The marks of the last transactions count as read, for the next start and for the group.
    assert_eq!(client.number("SELECT sum(lag) FROM logweir.sources"), 0);
    assert!(server.terminate().success());
    server.again();
    let client = server.client();
    complete(&client, "s", written);
}

/// What the broker deleted before it was read is told, with the number.
fn retention(broker: &Broker) {
    let mut server = Server::start();
    let client = server.client();
    broker.create_topic("short", 1);
    broker.write("short", 0, (0..50).map(lines::numbered));
    client.run(&create(broker, "s", "topic = 'short'"));
    complete(&client, "s", 50);
    assert!(server.terminate().success());
    broker.write("short", 0, (50..100).map(lines::numbered));
    broker.delete_before("short", 0, 80);
    server.expect_log("30 messages of partition short/0 were deleted before they were read");
    server.again();
    let client = server.client();
    until("the others", || client.number("SELECT count(*) FROM s") == 70);
    let told = client.one("SELECT errors, last_error FROM logweir.sources");
    assert!(told.starts_with("1 30 messages of partition short/0 were deleted"), "{told}");
    assert!(told.contains("offsets 50 to 79"), "{told}");
}

/// New partitions are read from their beginning, and a topic that is made anew as well.
fn growth(broker: &Broker) {
    let mut server = Server::start();
    let client = server.client();
    broker.create_topic("grown", 1);
    broker.write("grown", 0, (0..10).map(lines::numbered));
    client.run(&create(broker, "s", "topic_pattern = 'gr.w.*', discovery_interval = '100 ms'"));
    complete(&client, "s", 10);
    broker.add_partitions("grown", 2);
    broker.write("grown", 1, (10..20).map(lines::numbered));
    until("the lines of the new partition", || client.number("SELECT count(*) FROM s") == 20);
    broker.create_topic("grow_more", 1);
    broker.write("grow_more", 0, (20..30).map(lines::numbered));
    until("the lines of the new topic", || client.number("SELECT count(*) FROM s") == 30);
    complete(&client, "s", 30);
}

/// A topic that is deleted and made anew has other messages at the same offsets.
fn anew(broker: &Broker) {
    let mut server = Server::start();
    server.expect_log("source problem");
    let client = server.client();
    broker.create_topic("again", 1);
    broker.write("again", 0, (0..10).map(lines::numbered));
    client.run(&create(broker, "s", "topic = 'again', discovery_interval = '100 ms'"));
    complete(&client, "s", 10);
    let anew = |from: u64, to: u64| {
        broker.delete_topic("again");
        // The name is free a little later.
        until("the topic", || broker.try_create_topic("again", 1));
        broker.write("again", 0, (from..to).map(lines::numbered));
    };
    // While it is read, with fewer messages; and while it is not, with more.
    anew(10, 15);
    until("the lines of the second topic", || client.number("SELECT count(*) FROM s") == 15);
    assert!(server.terminate().success());
    anew(15, 40);
    server.again();
    let client = server.client();
    complete(&client, "s", 40);
    let told = client.one("SELECT last_error FROM logweir.sources");
    assert!(told.contains("deleted and made anew"), "{told}");
    assert!(server.terminate().success());
    server.again();
    complete(&server.client(), "s", 40);
}

/// What Kafka knows of messages, as columns; also when rows are made again from the log.
fn metadata(broker: &Broker) {
    let mut server = Server::start();
    let client = server.client();
    broker.create_topic("noted", 1);
    let producer = broker.producer();
    let text = |n: u64| format!(r#"{{"ts":"2026-01-01T00:00:00Z","n":{n}}}"#);
    for (key, text) in [(Some("k1"), text(1)), (None, "no json".to_string()), (Some("k3"), text(3))] {
        let mut record: BaseRecord<'_, str, str> =
            BaseRecord::to("noted").partition(0).payload(text.as_str()).timestamp(1_700_000_000_123);
        record.key = key;
        record.headers = key.map(|key| OwnedHeaders::new().insert(Header { key: "trace", value: Some(key) }));
        producer.send(record).map_err(|(err, _)| err).expect("there is room");
    }
    producer.flush(PATIENCE).expect("all is written");
    client.run(&format!(
        "CREATE TABLE s (ts timestamptz, n bigint) INCLUDE key, headers, partition AS part, source_offset AS at, timestamp AS t, raw
         WITH (connector = 'kafka', brokers = '{}', topic = 'noted') FORMAT JSON",
        broker.address()
    ));
    client.run("FLUSH");
    for _ in 0..2 {
        let client = server.client();
        let rows = client.rows("SELECT n, key, headers, part, at, t, raw FROM s ORDER BY n");
        let row = |n: u64| {
            let raw: String = text(n).bytes().map(|byte| format!("{byte:02x}")).collect();
            let (key, headers, raw) = (format!("k{n}"), format!(r#"{{"trace":"k{n}"}}"#), format!("\\x{raw}"));
            let (n, at, time) = (n.to_string(), (n - 1).to_string(), "2023-11-14 22:13:20.123+00".to_string());
            [n, key, headers, "noted/0".to_string(), at, time, raw].map(Some).to_vec()
        };
        assert_eq!(rows, [row(1), row(3)]);
        assert_eq!(client.one("SELECT raw, source, position FROM s__malformed"), "no json noted/0 1");
        server.kill();
        server.again();
    }
}

/// Written past the test runner's capture, so that it is seen when all is well.
fn tell(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}
