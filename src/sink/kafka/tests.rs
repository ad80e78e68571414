//! The sink against librdkafka's mock cluster, whose brokers fail when they are told to. It takes nothing back and forgets the
//! offsets of transactions, so what kills and failures leave behind is tested with a real one, in `tests/kafka/sink.rs`.

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as E};

use super::*;
use crate::time::UTC;

struct Cluster(MockCluster<'static, DefaultProducerContext>);

/// Key, payload, time.
type Seen = (Option<String>, Option<String>, Option<i64>);

impl Cluster {
    fn start() -> Cluster {
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("out", 3, 1).unwrap();
        Cluster(cluster)
    }

    fn sink(&self, given: &[(&str, &str)]) -> Result<Box<dyn Sink>> {
        let brokers = self.0.bootstrap_servers();
        let mut all = vec![("brokers".to_string(), brokers)];
        all.extend(given.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        if !given.iter().any(|(name, _)| *name == "topic") {
            all.push(("topic".to_string(), "out".to_string()));
        }
        build(&Options::parse("connector \"kafka\"", &[SPEC.options], &all)?, Encoding::Json)
    }

    /// All messages, sorted.
    fn read(&self) -> Vec<Seen> {
        let config: &mut ClientConfig = &mut ClientConfig::new();
        config.set("bootstrap.servers", self.0.bootstrap_servers()).set("group.id", "r");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "smallest");
        let consumer: BaseConsumer = config.create().unwrap();
        let topic = "out".to_string();
        let all = crate::kafka::list((0..3).map(|number| (&topic, number, rdkafka::Offset::Beginning))).unwrap();
        consumer.assign(&all).unwrap();
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let (mut seen, mut ends) = (Vec::new(), 0);
        while ends < 3 {
            match consumer.poll(std::time::Duration::from_secs(60)).expect("it answers") {
                Ok(m) => seen.push((text(m.key()), text(m.payload()), m.timestamp().to_millis())),
                Err(_) => ends += 1,
            }
        }
        seen.sort();
        seen
    }
}

fn feed(key: Option<Vec<usize>>, upserts: bool) -> Feed {
    let schema = batch(0..1, 0, None).rows.schema();
    Feed { name: "s".into(), id: "00000000000000ff".into(), schema, key, time: Some(2), upserts }
}

/// Rows that have their number as `n` and `t`, and a second more each as `at`.
fn batch(numbers: std::ops::Range<i64>, from: u64, upto: Option<u64>) -> Batch {
    let all = || numbers.clone();
    let times = TimestampMicrosecondArray::from_iter_values(all().map(|n| 1_700_000_000_000_000 + n * 1_000_000));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from_iter_values(all()))),
        ("t", Arc::new(StringArray::from_iter_values(all().map(|n| n.to_string())))),
        ("at", Arc::new(times.with_timezone(UTC))),
    ];
    Batch {
        rows: RecordBatch::try_from_iter(columns).unwrap(),
        offsets: Int64Array::from_iter_values(all()),
        gone: None,
        from: Position::at(from),
        upto: upto.map(Position::at),
        replaces: false,
        key: String::new(),
    }
}

fn again<T: std::fmt::Debug>(delivered: Delivered<T>) -> Error {
    match delivered {
        Err(Failure::Again(err, _)) => err,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_messages_in_transactions() {
    let cluster = Cluster::start();
    let mut sink = cluster.sink(&[("key", "n")]).unwrap();
    let feed = feed(Some(vec![0]), false);
    assert_eq!(sink.open(&feed, Position::at(7)).await.unwrap(), Position::at(7), "it is new");
    assert_eq!(sink.deliver(&batch(0..2, 7, Some(9))).await.unwrap(), Some(Position::at(9)));
    assert_eq!(sink.deliver(&batch(2..3, 9, None)).await.unwrap(), None);
    assert!(sink.holds() && sink.due().is_none());
    let mut last = batch(3..3, 9, Some(12));
    last.upto = Some(Position { offset: 12, window: Some(-3) });
    assert_eq!(sink.deliver(&last).await.unwrap(), last.upto);
    assert!(!sink.holds() && sink.due().is_some());
    let row = |n: i64| {
        let time = format!("2023-11-14T22:13:{}Z", 20 + n);
        let payload = format!(r#"{{"n":{n},"t":"{n}","at":"{time}"}}"#);
        (Some(format!(r#"{{"n":{n}}}"#)), Some(payload), Some(1_700_000_000_000 + n * 1000))
    };
    assert_eq!(cluster.read(), [row(0), row(1), row(2)]);
    // Another sink's id is another, and neither shuts the other out. (The mock cluster shuts out nobody.)
    let other = Feed { id: "00000000000000fe".into(), ..feed };
    let mut second = cluster.sink(&[]).unwrap();
    second.open(&other, Position::at(1)).await.unwrap();
    for (sink, at) in [(&mut sink, 12), (&mut second, 1)] {
        sink.deliver(&batch(3..4, at, Some(13))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_brokers_are_waited_out_or_told() {
    let cluster = Cluster::start();
    let mut sink = cluster.sink(&[]).unwrap();
    let feed = feed(None, false);
    sink.open(&feed, Position::at(0)).await.unwrap();
    for (at, (api, code)) in [
        (RDKafkaApiKey::AddPartitionsToTxn, E::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS),
        (RDKafkaApiKey::Produce, E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
        (RDKafkaApiKey::AddOffsetsToTxn, E::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
        (RDKafkaApiKey::TxnOffsetCommit, E::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE),
        (RDKafkaApiKey::EndTxn, E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR),
    ]
    .into_iter()
    .enumerate()
    {
        let at = at as u64;
        cluster.0.request_errors(api, &[code, code]);
        let batch = batch(at as i64..at as i64 + 1, at, Some(at + 1));
        assert_eq!(sink.deliver(&batch).await.unwrap(), Some(Position::at(at + 1)), "{code:?}");
    }
    let payloads = cluster.read().into_iter().filter_map(|(_, payload, _)| payload);
    assert_eq!(payloads.filter(|payload| payload.starts_with("{\"n\":")).count(), 5);
    for (api, code, kind) in [
        (RDKafkaApiKey::Produce, E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Kind::OutOfRange),
        (RDKafkaApiKey::EndTxn, E::RD_KAFKA_RESP_ERR_PRODUCER_FENCED, Kind::ObjectInUse),
        (RDKafkaApiKey::AddOffsetsToTxn, E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, Kind::InsufficientPrivilege),
    ] {
        cluster.0.request_errors(api, &[code]);
        let err = again(sink.deliver(&batch(5..6, 5, Some(6))).await);
        assert_eq!(err.kind(), kind, "{err}");
        sink.open(&feed, Position::at(5)).await.unwrap();
    }
    let id = E::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    cluster.0.request_errors(RDKafkaApiKey::InitProducerId, &[id]);
    let err = again(sink.open(&feed, Position::at(0)).await);
    assert!(err.message().contains("transactional id \"logweir-00000000000000ff\" must not be used"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_is_refused_and_harms_no_other() {
    let cluster = Cluster::start();
    let mut sink = cluster.sink(&[("kafka.message.max.bytes", "1000"), ("timestamp", "none")]).unwrap();
    sink.open(&feed(None, false), Position::at(0)).await.unwrap();
    let mut large = batch(0..2, 0, None);
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(["x".to_string(), "x".repeat(1000)]));
    let columns = [large.rows.column(0).clone(), texts, large.rows.column(2).clone()].to_vec();
    large.rows = RecordBatch::try_new(large.rows.schema(), columns).unwrap();
    let part =
        |from: usize| Batch { rows: large.rows.slice(from, 1), offsets: large.offsets.slice(from, 1), ..large.clone() };
    for refused in [&large, &part(1)] {
        let Err(Failure::Refused(err)) = sink.deliver(refused).await else { panic!("it is too large") };
        assert!(err.message().contains("is too large: 1000 bytes are taken"), "{err}");
    }
    assert_eq!(sink.deliver(&part(0)).await.unwrap(), None);
    assert!(matches!(sink.deliver(&part(1)).await, Err(Failure::Refused(_))));
    assert!(sink.holds(), "what was taken is not lost");
    assert_eq!(sink.deliver(&batch(2..2, 0, Some(2))).await.unwrap(), Some(Position::at(2)));
    assert_eq!(cluster.read().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_sent_as_far_as_the_topic_differs() {
    for delivery in ["exactly_once", "at_least_once"] {
        let cluster = Cluster::start();
        let mut sink = cluster.sink(&[("delivery", delivery)]).unwrap();
        let feed = feed(Some(vec![1]), true);
        sink.open(&feed, Position::default()).await.unwrap();
        let upsert = |numbers: std::ops::Range<i64>, gone: &[bool], replaces: bool, upto: Option<u64>| {
            let gone = Some(BooleanArray::from(gone.to_vec()));
            Batch { gone, replaces, ..batch(numbers, 0, upto) }
        };
        sink.deliver(&upsert(0..3, &[false; 3], true, Some(1))).await.unwrap();
        sink.deliver(&upsert(3..4, &[false], false, None)).await.unwrap();
        assert!(sink.holds());
        sink.deliver(&upsert(0..1, &[true], false, Some(2))).await.unwrap();
        // Again from the beginning: 1 is gone, 2 and 3 are as they were, 4 is new.
        sink.open(&feed, Position::at(2)).await.unwrap();
        sink.deliver(&upsert(2..4, &[false; 2], true, None)).await.unwrap();
        sink.deliver(&upsert(4..5, &[false], false, Some(3))).await.unwrap();
        let seen: Vec<_> = cluster.read();
        let of = |n: i64| {
            let of_n = seen.iter().filter(|(key, _, _)| key.as_deref() == Some(&format!("{{\"t\":\"{n}\"}}")));
            of_n.map(|(_, payload, _)| payload.is_some()).collect::<Vec<_>>()
        };
        assert_eq!((of(0), of(1)), (vec![false, true], vec![false, true]), "{seen:?}");
        assert_eq!((of(2), of(3), of(4)), (vec![true], vec![true], vec![true]), "{seen:?}");
        // The topic is not for another one.
        let other = Feed { id: "00000000000000fe".into(), ..feed };
        let err = again(cluster.sink(&[("delivery", delivery)]).unwrap().open(&other, Position::default()).await);
        assert_eq!((err.kind(), err.message()), (Kind::ObjectInUse, "topic \"out\" has messages already"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said() {
    let cluster = Cluster::start();
    for (given, kind, text) in [
        (("topic", ""), Kind::InvalidParameter, "no topic is called \"\""),
        (("topic", "a b"), Kind::InvalidParameter, "no topic is called \"a b\""),
        (("delivery", "exactly"), Kind::InvalidParameter, "unknown value for option \"delivery\""),
        (("kafka.acks", "1"), Kind::InvalidParameter, "the property \"acks\" is set by the connector"),
        (("kafka.transactional.id", "x"), Kind::InvalidParameter, "Use the option \"id_prefix\""),
        (("kafka.no.such", "1"), Kind::InvalidParameter, "No such configuration property"),
    ] {
        let err = cluster.sink(&[given]).err().unwrap();
        assert_eq!(err.kind(), kind, "{err}");
        assert!(format!("{} {}", err.message(), err.hint().unwrap_or_default()).contains(text), "{err}");
    }
    for (given, kind, text) in [
        (("topic", "outt"), Kind::UndefinedObject, "topic \"outt\" does not exist"),
        (("timestamp", "att"), Kind::UndefinedColumn, "column \"att\" of the option \"timestamp\" does not exist"),
        (("timestamp", "t"), Kind::Datatype, "is no timestamp"),
        (("kafka.ssl.ca.location", "/nowhere.pem"), Kind::InvalidParameter, "could not make a Kafka client"),
    ] {
        let tls = ("kafka.security.protocol", if given.0.contains("ssl") { "ssl" } else { "plaintext" });
        let mut sink = cluster.sink(&[given, tls]).unwrap();
        let err = again(sink.open(&feed(None, false), Position::at(0)).await);
        assert_eq!(err.kind(), kind, "{err}");
        assert!(err.message().contains(text), "{err}");
    }
    cluster.0.broker_down(-1).unwrap();
    let mut sink = cluster.sink(&[]).unwrap();
    let err = again(sink.open(&feed(None, false), Position::at(0)).await);
    assert!(err.kind() == Kind::Unreachable && err.message().contains("no Kafka broker answers at"), "{err}");
    assert!(err.detail().is_some_and(|detail| detail.contains("librdkafka: ")), "{err}");
    // Who gives up leaves nobody waiting.
    let open = tokio::time::timeout(std::time::Duration::from_millis(10), async {
        sink.open(&feed(None, false), Position::at(0)).await.is_ok()
    });
    assert!(open.await.is_err());
}
