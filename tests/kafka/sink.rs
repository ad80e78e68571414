//! The kafka sink against a real broker: this server is killed and the broker goes away in the middle of transactions, and a
//! consumer of committed messages has every row once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rand::RngExt;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::Value;

use super::broker::{Broker, LOGIN, PATIENCE, until};
use super::tell;
use crate::lines::{self, START, numbered};
use crate::server::{Client, Server};
use crate::sinks::{GROUPS, column, create_web, delivered, grouped};

/// In an ordinary run; `LOGWEIR_KAFKA_LINES` says otherwise.
const LINES: u64 = 40_000;

const PARTITIONS: i32 = 4;

/// SIGKILLs in the middle of deliveries.
const KILLS: u64 = 8;

/// What a consumer got.
struct Got {
    partition: i32,
    key: Option<String>,
    payload: Option<String>,
    /// In milliseconds since 1970.
    time: i64,
}

impl Got {
    fn row(&self) -> Value {
        serde_json::from_str(self.payload.as_deref().expect("it is no tombstone")).expect("it is JSON")
    }
}

/// All messages of a topic as they are now, partition by partition in order: those that were committed, or all.
fn read(broker: &Broker, topic: &str, partitions: i32, isolation: &str) -> Vec<Got> {
    let mut config = broker.config();
    config.set("group.id", "reader").set("isolation.level", isolation).set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a client");
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("nobody else has them");
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("it is text"));
    let (mut got, mut ends, begun) = (Vec::new(), 0, Instant::now());
    while ends < partitions {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => got.push(Got {
                partition: message.partition(),
                key: text(message.key()),
                payload: text(message.payload()),
                time: message.timestamp().to_millis().expect("every message has a time"),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(err)) => panic!("{err}"),
            None => {}
        }
        assert!(begun.elapsed() < PATIENCE, "{} messages came", got.len());
    }
    got
}

fn committed(broker: &Broker, topic: &str, partitions: i32) -> Vec<Got> {
    read(broker, topic, partitions, "read_committed")
}

fn create(broker: &Broker, sink: &str, from: &str, more: &str) -> String {
    format!("CREATE SINK {sink} FROM {from} WITH (connector = 'kafka', brokers = '{}', {more})", broker.address())
}

fn millis(text: &Value) -> i64 {
    let time: DateTime<Utc> = text.as_str().and_then(|text| text.parse().ok()).expect("it is RFC 3339");
    time.timestamp_millis()
}

#[test]
fn killed_while_it_writes() {
    let Some(mut broker) = Broker::start() else { return };
    let lines = std::env::var("LOGWEIR_KAFKA_LINES").map_or(LINES, |text| text.parse().expect("a whole number"));
    broker.create_topic_with("out", PARTITIONS, &[]);
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    // While the broker is away, and when a kill has left a transaction behind that is still being taken back.
    server.expect_log("a sink cannot deliver");
    server.again();
    let log = server.log("web.log");
    let client = server.client();
    create_web(&client, &log, "");
    let query = "(SELECT bytes, bytes % 10 AS part, path, ts FROM web)";
    let options = "topic = 'out', key = 'part', batch_rows = 500, batch_interval = '10ms', retry_max = '500ms'";
    client.run(&create(&broker, "out", query, options));
    let writer = std::thread::spawn(move || {
        for first in (0..lines).step_by(2000) {
            lines::append(&log, (first..lines.min(first + 2000)).map(numbered).collect::<String>());
        }
    });
    let mut random = rand::rng();
    for kill in 1..=KILLS {
        let client = server.client();
        let much = (lines * kill / (KILLS + 2)) as i64;
        // How many rows were delivered is not noted for each batch, and a kill forgets the last ones.
        let done = "SELECT delivered_offset FROM logweir.sinks";
        until("rows to be delivered", || client.number(done) >= much);
        // Anywhere in a transaction.
        std::thread::sleep(Duration::from_micros(random.random_range(0..40_000)));
        if kill == KILLS / 2 {
            broker.stop();
            let shown = "SELECT count(*) FROM logweir.sinks WHERE state = 'retrying' AND last_error LIKE '%Kafka%'";
            until("the absence to be shown", || client.number(shown) > 0);
        }
        server.kill();
        server.again();
        if kill == KILLS / 2 {
            broker.again();
        }
    }
    writer.join().expect("all lines are written");
    let client = server.client();
    delivered(&client, "out");
    assert!(server.terminate().success());
    let got = committed(&broker, "out", PARTITIONS);
    let mut numbers: Vec<u64> = Vec::new();
    let mut last: BTreeMap<(i32, String), u64> = BTreeMap::new();
    for message in &got {
        let row = message.row();
        let number = row["bytes"].as_u64().expect("every line has its number");
        let key = message.key.clone().expect("there is a key");
        assert_eq!(key, format!("{{\"part\":{}}}", number % 10));
        assert_eq!((row["path"].as_str(), millis(&row["ts"])), (Some(format!("/n/{number}").as_str()), message.time));
        assert_eq!(message.time, (START + number as i64 / 10) * 1000);
        if let Some(before) = last.insert((message.partition, key), number) {
            assert!(before < number, "{number} comes behind {before}");
        }
        numbers.push(number);
    }
    assert_eq!(last.len(), 10, "each key has a partition");
    numbers.sort_unstable();
    assert_eq!(numbers.len() as u64, lines, "rows are missing or repeated");
    assert!(numbers.iter().copied().eq(0..lines));
    let all = read(&broker, "out", PARTITIONS, "read_uncommitted").len();
    tell(&format!(
        "kafka sink: {lines} rows, {KILLS} kills, the broker restarted: each row is committed once, {} were taken back",
        all - got.len()
    ));
    measure(&broker, &mut server, lines);
}

/// How fast rows that are there are delivered, with a transaction for each batch and without.
fn measure(broker: &Broker, server: &mut Server, lines: u64) {
    server.again();
    let client = server.client();
    for delivery in ["exactly_once", "at_least_once"] {
        broker.create_topic_with(delivery, PARTITIONS, &[]);
        let begun = Instant::now();
        client.run(&create(broker, delivery, "web", &format!("topic = '{delivery}', delivery = '{delivery}'")));
        delivered(&client, delivery);
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!(committed(broker, delivery, PARTITIONS).len() as u64, lines);
        tell(&format!("kafka sink: {:.0} rows/s, {delivery}", lines as f64 / seconds));
    }
}

/// What a consumer has that keeps the last message of each key.
fn table(messages: &[Got]) -> BTreeMap<String, Value> {
    let mut table = BTreeMap::new();
    for message in messages {
        let key = message.key.clone().expect("there is a key");
        match &message.payload {
            Some(_) => drop(table.insert(key, message.row())),
            None => drop(table.remove(&key)),
        }
    }
    table
}

#[test]
fn a_topic_is_kept_equal_to_a_view() {
    let Some(mut broker) = Broker::start() else { return };
    let mut server = Server::start();
    server.expect_log("a sink cannot deliver");
    let log = server.log("web.log");
    let mut client = server.client();
    create_web(&client, &log, "");
    client.run(&format!("CREATE MATERIALIZED VIEW groups AS {GROUPS}"));
    client.run("CREATE MATERIALIZED VIEW one AS SELECT count(*) AS n, max(bytes) AS last FROM web");
    for view in ["groups", "one"] {
        broker.create_topic_with(view, 3, &[("cleanup.policy", "compact")]);
        let options = format!("topic = '{view}', batch_rows = 7, batch_interval = '10ms', retry_max = '200ms'");
        client.run(&create(&broker, &format!("{view}_out"), view, &options));
    }
    let mut random = rand::rng();
    let mut number = 0;
    let mut more = |seconds: std::ops::Range<i64>, count: u64| {
        let mut text = String::new();
        for _ in 0..count {
            text += &grouped(random.random_range(seconds.clone()), number);
            number += 1;
        }
        lines::append(&log, text);
    };
    let equal = |client: &Client, broker: &Broker| {
        for view in ["groups", "one"] {
            delivered(client, &format!("{view}_out"));
            let columns: &[&str] =
                if view == "one" { &["n", "last"] } else { &["window_start", "remote_user", "path", "n", "last"] };
            let cell = |value: &Value| match value {
                Value::Null => "NULL".to_string(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let there = table(&committed(broker, view, 3));
            let mut there: Vec<String> = there
                .values()
                .map(|row| columns.iter().map(|column| cell(&row[*column])).collect::<Vec<_>>().join(" "))
                .collect();
            there.sort();
            let text = |column: &&str| match *column {
                "window_start" => "to_char(window_start, 'YYYY-MM-DD\"T\"HH24:MI:SS') || 'Z'".to_string(),
                column => format!("coalesce({column}::text, 'NULL')"),
            };
            let texts = columns.iter().map(text).collect::<Vec<_>>().join(", ");
            let here = client.sorted(&format!("SELECT {texts} FROM {view}"));
            assert!(!here.is_empty());
            assert_eq!(there, here, "{view}");
        }
    };
    more(0..60, 60);
    equal(&client, &broker);
    for round in 0..3 {
        // Late rows too: they change and remove groups of closed windows.
        more(0..60 + round * 30, 25);
        equal(&client, &broker);
        // What goes while nobody delivers is gone as well.
        server.kill();
        more(0..60 + round * 30, 15);
        server.again();
        client = server.client();
        equal(&client, &broker);
        broker.stop();
        more(0..200, 20);
        client.run("FLUSH");
        until("a failure", || column(&client, "groups_out", "state") == "retrying");
        broker.again();
        equal(&client, &broker);
    }
    // Where nothing has changed, nothing is sent again.
    let count = || read(&broker, "groups", 3, "read_uncommitted").len();
    let before = count();
    server.kill();
    server.again();
    let client = server.client();
    equal(&client, &broker);
    let offset = column(&client, "groups_out", "delivered_offset");
    until("the whole view to have come", || {
        column(&client, "groups_out", "batches") != "0" && column(&client, "groups_out", "delivered_offset") == offset
    });
    assert_eq!(count(), before);
    let messages = committed(&broker, "groups", 3);
    let gone = messages.iter().filter(|message| message.payload.is_none()).count();
    let keys: BTreeSet<&String> = messages.iter().filter_map(|message| message.key.as_ref()).collect();
    assert!(gone > 0 && keys.iter().any(|key| key.contains("\"remote_user\":null")), "{keys:?}");
    let first = messages.iter().find(|message| message.payload.is_some()).expect("there are rows");
    assert_eq!(first.time, millis(&first.row()["window_start"]));
    tell(&format!(
        "kafka sink: a view of {} keys, {} messages, {gone} tombstones, 4 kills",
        keys.len(),
        messages.len()
    ));
    // Another sink must not take over a topic with messages.
    let taken = client.fails(&create(&broker, "again", "groups", "topic = 'groups'"));
    taken.says("55006", &["topic \"groups\" has messages already"]);
}

#[test]
fn what_topics_do_not_take() {
    let Some(broker) = Broker::start() else { return };
    let mut server = Server::start();
    let log = server.log("web.log");
    let client = server.client();
    create_web(&client, &log, ", idle_timeout = '1 hour'");
    broker.create_topic_with("access", 2, &[]);
    broker.create_topic_with("compact", 2, &[("cleanup.policy", "compact")]);
    let fails = |more: &str| client.fails(&create(&broker, "s", "web", more));
    fails("topic = 'acces'").says("42704", &["topic \"acces\" does not exist", "Did you mean \"access\"?"]);
    fails("topic = 'compact'").says("22023", &["is compacted", "key = "]);
    fails("topic = 'access', key = 'pth'").says("42703", &["column \"pth\"", "Did you mean \"path\"?"]);
    fails("topic = 'access', kafka.enable.idempotence = 'false'").says("22023", &["set by the connector"]);
    let limit = "topic = 'access', kafka.transaction.timeout.ms = '3600000'";
    fails(limit).says("22023", &["do not allow transactions that take so long", "transaction.max.timeout.ms"]);
    let nowhere = "CREATE SINK s FROM web WITH (connector = 'kafka', brokers = '127.0.0.1:1', topic = 'access')";
    client.fails(nowhere).says("08001", &["no Kafka broker answers at 127.0.0.1:1", "Connection refused"]);
    assert_eq!(client.number("SELECT count(*) FROM logweir.sinks"), 0);

    // What comes later is waited for.
    server.expect_log("topic \"later\" does not exist");
    client.run(&create(&broker, "later", "web", "topic = 'later', validate = false, retry_max = '200ms'"));
    until("the error to be shown", || column(&client, "later", "last_error").contains("does not exist"));
    // Rows that are too large are dead letters, and so is none else; limits are those of the topic.
    server.expect_log("the other side refused rows");
    broker.create_topic_with("small", 1, &[("max.message.bytes", "2000")]);
    for delivery in ["exactly_once", "at_least_once"] {
        client.run(&create(&broker, delivery, "web", &format!("topic = 'small', delivery = '{delivery}', tries = 1")));
    }
    for part in 0..20 {
        lines::append(&log, (part * 100..part * 100 + 100).map(numbered).collect::<String>());
        lines::append(&log, numbered(part * 100).replace("/n/", &format!("/{}/", "x".repeat(2000))));
    }
    broker.create_topic_with("later", 1, &[]);
    for sink in ["later", "exactly_once", "at_least_once"] {
        delivered(&client, sink);
        let dead = if sink == "later" { 0 } else { 20 };
        let counts = format!("{} {dead}", 2020 - dead);
        assert_eq!(column(&client, sink, "delivered_rows || ' ' || dead_rows"), counts, "{sink}");
    }
    let reason = client.one("SELECT DISTINCT substr(reason, 1, 9), reason LIKE '%is too large: 2000 bytes are taken%' FROM exactly_once__dead");
    assert_eq!(reason, "a message t");
    assert_eq!(committed(&broker, "small", 1).len(), 4000);
    assert_eq!(committed(&broker, "later", 1).len(), 2020);

    // Rows of windows that have closed, each once; CSV; times of sending.
    broker.create_topic_with("closed", 1, &[]);
    client.run(
        "CREATE MATERIALIZED VIEW closed AS SELECT window_start, window_end, count(*) AS n
         FROM TUMBLE(web, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    );
    let query = "topic = 'closed', timestamp = 'none'";
    client.run(&format!("{} FORMAT CSV (null = '-')", create(&broker, "closed_out", "closed", query)));
    delivered(&client, "closed_out");
    let got = committed(&broker, "closed", 1);
    assert!(got.len() > 10);
    // A hundred of the others, and one that is too large for some.
    assert_eq!(got[0].payload.as_deref(), Some("2026-01-01T00:00:00Z,2026-01-01T00:00:10Z,101"));
    assert!(got[0].key.as_deref().is_some_and(|key| key.starts_with("{\"window_start\":\"2026-01-01T00:00:00Z\"")));
    assert!((Utc::now().timestamp_millis() - got[0].time).abs() < 600_000);

    // TLS and SASL; and the password is shown nowhere.
    let (user, password) = LOGIN;
    let secret = |password: &str| {
        format!(
            "CREATE SINK secret FROM web WITH (connector = 'kafka', brokers = '{}', topic = 'access',
             kafka.security.protocol = 'SASL_SSL', kafka.ssl.ca.location = '{}',
             kafka.sasl.mechanism = 'PLAIN', kafka.sasl.username = '{user}', kafka.sasl.password = '{password}')",
            broker.sasl_address(),
            broker.certificate().display()
        )
    };
    let failure = client.fails(&secret("not the password"));
    failure.says("42501", &["refuse the login", "kafka.sasl.password"]);
    assert!(!format!("{failure:?}").contains("not the password"));
    client.run(&secret(password));
    delivered(&client, "secret");
    let shown = client.one("SHOW CREATE SINK secret");
    assert!(shown.contains("kafka.sasl.password = '***'") && shown.contains("'PLAIN'"), "{shown}");
    assert_eq!(committed(&broker, "access", 2).len(), 2020);
    assert!(!server.has_logged(password));
    assert!(server.terminate().success());
}
