//! A real Apache Kafka broker (KRaft mode, one node) on this machine, and clients that write to it.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::server::{signal, wait};

/// Longer than the broker needs to start on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

const VERSION: &str = "4.1.0";

/// Who may log in over SASL.
pub const LOGIN: (&str, &str) = ("alice", "wonder-of-tests");

/// Of the broker's key.
const STORE: &str = "store-of-tests";

/// See the file header.
pub struct Broker {
    home: TempDir,
    jars: PathBuf,
    plain: u16,
    sasl: u16,
    process: Option<Child>,
    runtime: Runtime,
}

impl Broker {
    /// A running broker without topics; `None`, with a note, where there are no jars.
    pub fn start() -> Option<Broker> {
        let jars = match std::env::var_os("LOGWEIR_KAFKA") {
            Some(jars) => PathBuf::from(jars),
            None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/logweir/kafka").join(VERSION),
        };
        // Kafka 4 needs Java 17. "openjdk version "17.0.15" …"; the old ones say "1.8.0".
        let version = Command::new("java").arg("-version").output().ok().and_then(|output| {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            text.split('"').nth(1)?.split(['.', '-', '+']).next()?.parse::<u32>().ok()
        });
        if version.is_none_or(|version| version < 17) || !jars.join("complete").is_file() {
            eprintln!("note: skipped, there is no Java or no Kafka in {} (see tests/kafka/fetch)", jars.display());
            return None;
        }
        // Free now, and nobody else asks for them before the broker does, as ports are given out in turn.
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let [plain, sasl, controller] = free.each_ref().map(|free| free.local_addr().expect("it is bound").port());
        drop(free);
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let (data, store) = (home.path().join("data"), home.path().join("store.p12"));
        let (user, password) = LOGIN;
        let properties = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
ssl.keystore.type=PKCS12
ssl.keystore.location={}
ssl.keystore.password={STORE}
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
",
            store.display(),
            data.display()
        );
        std::fs::write(home.path().join("server.properties"), properties).expect("the directory is new");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut broker = Broker { home, jars, plain, sasl, process: None, runtime };
        broker.make_certificate();
        let formatted = broker
            .java(&["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"])
            .status()
            .expect("Java runs");
        assert!(formatted.success(), "the broker's directory could not be formatted");
        broker.again();
        Some(broker)
    }

    /// A key of its own for TLS.
    fn make_certificate(&self) {
        let keytool = |arguments: &[&str]| {
            let store = self.home.path().join("store.p12");
            let output = Command::new("keytool")
                .args(arguments)
                .args(["-alias", "broker", "-storetype", "PKCS12", "-storepass", STORE, "-keystore"])
                .arg(store)
                .output()
                .expect("it comes with Java");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            output.stdout
        };
        keytool(&[
            "-genkeypair",
            "-keyalg",
            "RSA",
            "-dname",
            "CN=broker",
            "-ext",
            "san=ip:127.0.0.1",
            "-validity",
            "30",
        ]);
        std::fs::write(self.certificate(), keytool(&["-exportcert", "-rfc"])).expect("the directory is new");
    }

    /// The file with the certificate that clients must trust.
    pub fn certificate(&self) -> PathBuf {
        self.home.path().join("broker.pem")
    }

    /// A command of Kafka's, with the broker's properties as its last argument.
    fn java(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx512m", "-Xms128m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", self.jars.display()))
            .args(arguments)
            .arg(self.home.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Starts it on its directory as it is, and waits until it answers.
    pub fn again(&mut self) {
        self.process = Some(self.java(&["kafka.Kafka"]).spawn().expect("Java runs"));
        until("the broker to accept connections", || TcpStream::connect(("127.0.0.1", self.plain)).is_ok());
        let client: BaseConsumer = self.config().create().expect("a client");
        until("the broker to answer", || client.fetch_metadata(None, Duration::from_secs(2)).is_ok());
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(&process, libc::SIGTERM);
            wait(&mut process);
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }

    /// Where it wants TLS and a login.
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.sasl)
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("a client")
    }

    pub fn create_topic(&self, name: &str, partitions: i32) {
        assert!(self.try_create_topic(name, partitions), "the topic {name} is new");
    }

    /// Whether there was none of this name.
    pub fn try_create_topic(&self, name: &str, partitions: i32) -> bool {
        self.try_create(NewTopic::new(name, partitions, TopicReplication::Fixed(1)))
    }

    /// With settings of its own, and for messages of any age.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        assert!(self.try_create(topic), "the topic {name} is new");
    }

    fn try_create(&self, topic: NewTopic<'_>) -> bool {
        let made = self.runtime.block_on(self.admin().create_topics([&topic], &AdminOptions::new()));
        made.expect("the broker answers").remove(0).is_ok()
    }

    pub fn delete_topic(&self, name: &str) {
        let deleted = self.runtime.block_on(self.admin().delete_topics(&[name], &AdminOptions::new()));
        deleted.expect("the broker answers").remove(0).expect("the topic is there");
    }

    pub fn add_partitions(&self, topic: &str, partitions: usize) {
        let more = NewPartitions::new(topic, partitions);
        let made = self.runtime.block_on(self.admin().create_partitions([&more], &AdminOptions::new()));
        made.expect("the broker answers").remove(0).expect("there were fewer");
    }

    /// What retention does: deletes the messages before an offset.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        let deleted = self.runtime.block_on(self.admin().delete_records(&before, &AdminOptions::new()));
        deleted.expect("the broker answers");
    }

    /// What a group has committed of a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let client: BaseConsumer = self.config().set("group.id", group).create().expect("a client");
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let known = client.committed_offsets(asked, PATIENCE).expect("the broker answers");
        known.find_partition(topic, partition).and_then(|known| match known.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// Who writes each message once, however often it has to try.
    pub fn producer(&self) -> BaseProducer {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("linger.ms", "20").set("message.timeout.ms", "120000");
        config.create().expect("a client")
    }

    /// Writes messages to a partition, and waits until they are there.
    pub fn write<T: AsRef<[u8]>>(&self, topic: &str, partition: i32, messages: impl IntoIterator<Item = T>) {
        let producer = self.producer();
        for message in messages {
            send(&producer, topic, partition, message.as_ref());
        }
        producer.flush(PATIENCE).expect("all is written");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Hands a message to a producer; waits while it has too many.
pub fn send(producer: &BaseProducer, topic: &str, partition: i32, message: &[u8]) {
    let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition).payload(message);
    while let Err((err, back)) = producer.send(record) {
        let full = err.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull);
        assert!(full, "the message is not taken: {err}");
        producer.poll(Duration::from_millis(10));
        record = back;
    }
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
