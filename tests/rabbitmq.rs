//! A real RabbitMQ server, which is also killed meanwhile, and the program killed while it consumes.
//!
//! `.ci/run` installs the server from the distribution's packages. It runs with names, ports and folders of its own, on the
//! loopback. Where it is not installed the tests pass with a note.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use rand::RngExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::server::Server;

/// Longer than the server needs to start on a busy machine, and than a broker keeps what it gave to a connection that is gone
/// (two of its heartbeats of 60 s); reaching it means that something hangs.
const PATIENCE: Duration = Duration::from_secs(240);

const PROGRAMS: &[&str] = &["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/sbin/rabbitmq-server"];

/// So long one attempt to connect may take: whatever has a port, it need not be the broker yet.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Below the ports that others are given when they ask for any.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A broker and its port mapper. One at a time: they take much of the machine to start.
struct Broker {
    _turn: MutexGuard<'static, ()>,
    home: TempDir,
    program: PathBuf,
    ports: [u16; 3],
    mapper: Child,
    server: Option<Child>,
}

impl Broker {
    fn start() -> Option<Broker> {
        let program = PROGRAMS.iter().map(PathBuf::from).find(|program| program.exists());
        let (Some(program), true) = (program, Command::new("epmd").arg("-names").output().is_ok()) else {
            eprintln!("note: skipped, there is no rabbitmq-server");
            return None;
        };
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(home.path().join("plugins"), "[].").expect("the folder is new");
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held: Vec<TcpListener> = Vec::new();
        while held.len() < 3 {
            held.extend(TcpListener::bind(("127.0.0.1", rand::random_range(PORTS))));
        }
        let ports = [0, 1, 2].map(|i: usize| held[i].local_addr().expect("it is bound").port());
        drop(held);
        // Ours, so that it ends with the test; the server would start one that stays.
        let mapper = Command::new("epmd")
            .args(["-port", &ports[2].to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it answered a moment ago");
        until("epmd", || TcpStream::connect(("127.0.0.1", ports[2])).is_ok());
        let mut broker = Broker { _turn: turn, home, program, ports, mapper, server: None };
        broker.again();
        Some(broker)
    }

    fn again(&mut self) {
        let [port, nodes, mapper] = self.ports.map(|port| port.to_string());
        let at = |name: &str| self.home.path().join(name);
        let log = std::fs::File::create(at("output")).expect("the folder is there");
        let child = Command::new(&self.program)
            .env("HOME", self.home.path())
            .env("RABBITMQ_NODENAME", format!("logweir-{port}@localhost"))
            .envs([
                ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1"),
                ("RABBITMQ_LOGS", "-"),
                ("ERL_EPMD_ADDRESS", "127.0.0.1"),
            ])
            .envs([("RABBITMQ_NODE_PORT", port), ("RABBITMQ_DIST_PORT", nodes), ("ERL_EPMD_PORT", mapper)])
            .envs([("RABBITMQ_MNESIA_BASE", at("mnesia")), ("RABBITMQ_LOG_BASE", at("log"))])
            .envs([("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")), ("RABBITMQ_CONFIG_FILE", at("none"))])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            // The script and the virtual machine that it starts end together.
            .process_group(0)
            .spawn();
        self.server = Some(child.expect("the program is there"));
        let begun = Instant::now();
        until("RabbitMQ to accept connections", || {
            let ended = self.server.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_some()));
            let output = || std::fs::read_to_string(self.home.path().join("output")).unwrap_or_default();
            assert!(!ended, "RabbitMQ has ended: {}", output());
            assert!(begun.elapsed() < PATIENCE - ATTEMPT, "RabbitMQ does not answer: {}", output());
            Client::connect(&self.uri()).is_some()
        });
    }

    fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // SAFETY: kill(2) touches no memory; the group is that of our child, which has not been waited for.
            unsafe { libc::kill(-(server.id() as i32), libc::SIGKILL) };
            server.wait().expect("the process is ours");
        }
    }

    fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports[0])
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.mapper.kill();
        let _ = self.mapper.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A publisher.
struct Client {
    runtime: Runtime,
    channel: Channel,
    _connection: Connection,
}

impl Client {
    fn connect(uri: &str) -> Option<Client> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let opened = runtime.block_on(async {
            let connecting = Connection::connect(uri, ConnectionProperties::default());
            let connection = tokio::time::timeout(ATTEMPT, connecting).await.ok()?.ok()?;
            let channel = connection.create_channel().await.ok()?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
            Some((connection, channel))
        });
        let (connection, channel) = opened?;
        Some(Client { runtime, channel, _connection: connection })
    }

    fn declare(&self, queue: &str) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        self.runtime.block_on(declared).expect("the queue can be declared");
    }

    /// Publishes messages that survive the broker, and waits until it says that it has them.
    fn publish(&self, exchange: &str, key: &str, messages: impl Iterator<Item = (Option<String>, String)>) {
        self.runtime.block_on(async {
            let mut confirms = Vec::new();
            for (id, text) in messages {
                let mut properties = BasicProperties::default().with_delivery_mode(2);
                if let Some(id) = id {
                    properties = properties.with_message_id(id.into());
                }
                let options = BasicPublishOptions::default();
                let sent =
                    self.channel.basic_publish(exchange.into(), key.into(), options, text.as_bytes(), properties);
                confirms.push(sent.await.expect("the broker runs"));
            }
            for confirm in confirms {
                let confirmed = confirm.await.expect("the broker runs");
                assert!(confirmed.is_ack(), "{confirmed:?}");
            }
        });
    }

    /// Messages in a queue that nobody has got yet.
    fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        self.runtime.block_on(declared).expect("the queue is there").message_count()
    }
}

fn message(n: u64) -> String {
    format!("{{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"message\":\"one of many\",\"n\":{n}}}")
}

/// Kills of both sides while messages with ids come: each is there exactly once.
#[test]
fn messages_with_ids_are_there_once() {
    let Some(mut broker) = Broker::start() else { return };
    let mut client = Client::connect(&broker.uri()).expect("it runs");
    client.declare("logs");
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.expect_log("the log ended in the middle of a record");
    server.expect_log("source problem");
    server.expect_log("lapin");
    server.again();
    server.client().run(&format!(
        "CREATE TABLE logs WITH (connector = 'rabbitmq', uri = '{}', queue = 'logs', prefetch = 5000,
                                 wal_segment_bytes = '64 KiB', archive_bytes = '128 KiB', archive_interval = '300 ms')
         FORMAT JSON",
        broker.uri()
    ));
    let mut random = rand::rng();
    let mut sent = 0u64;
    for round in 0..6 {
        let more = sent + 10_000;
        client.publish("", "logs", (sent..more).map(|n| (Some(format!("id-{n}")), message(n))));
        sent = more;
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        if round == 3 {
            broker.kill();
            broker.again();
            client = Client::connect(&broker.uri()).expect("it runs");
        }
        server.kill();
        server.again();
    }
    let sql = server.client();
    let begun = Instant::now();
    while sql.number("SELECT count(DISTINCT n) FROM logs") < sent as i64 && begun.elapsed() < PATIENCE {
        sql.run("FLUSH");
    }
    let found = sql.one("SELECT count(*), count(DISTINCT n), sum(n) FROM logs");
    assert_eq!(found, format!("{sent} {sent} {}", sent * (sent - 1) / 2));
    // All are acknowledged: nothing comes again.
    sql.run("DROP TABLE logs");
    until("the last acknowledgement", || client.ready("logs") == 0);
}

#[test]
fn a_queue_is_bound_and_errors_are_told() {
    let Some(mut broker) = Broker::start() else { return };
    let client = Client::connect(&broker.uri()).expect("it runs");
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        client.channel.exchange_declare("events".into(), ExchangeKind::Topic, options, FieldTable::default());
    client.runtime.block_on(declared).expect("the exchange can be declared");
    let mut server = Server::start();
    server.expect_log("source problem");
    server.expect_log("lapin");
    let sql = server.client();
    let uri = broker.uri().replace("guest:guest", "guest:hunter2");
    let create = |uri: &str, more: &str| {
        format!("CREATE TABLE web WITH (connector = 'rabbitmq', uri = '{uri}', {more}) FORMAT JSON")
    };

    // What is wrong is told at once, and no password with it.
    for (uri, more, text) in [
        (uri.as_str(), "queue = 'web', exchange = 'events'", "ACCESS_REFUSED"),
        (&broker.uri(), "queue = 'web'", "find the queue \"web\""),
        (&broker.uri(), "queue = 'web', exchange = 'evnts'", "find the exchange \"evnts\""),
        (&broker.uri(), "queue = 'web', prefetch = 0", "from 1 to 65535"),
        ("amqp://guest:hunter2@127.0.0.1:1", "queue = 'web'", "127.0.0.1:1"),
        ("http://guest:hunter2@127.0.0.1:1", "queue = 'web'", "is not the address of a broker"),
    ] {
        let failure = sql.fails(&create(uri, more));
        let all = format!("{failure:?}");
        assert!(all.contains(&text.replace('"', "\\\"")) && !all.contains("hunter2"), "{all}");
    }
    assert_eq!(sql.number("SELECT count(*) FROM logweir.streams"), 0);

    sql.run(&create(&broker.uri(), "queue = 'web', exchange = 'events', routing_key = 'web.*'"));
    assert!(!sql.one("SHOW CREATE TABLE web").contains("guest"));
    let sent = |n: std::ops::Range<u64>| n.map(|n| (None, message(n)));
    until("the binding", || {
        client.publish("events", "web.de", sent(0..1));
        sql.run("FLUSH");
        sql.number("SELECT count(*) FROM web") > 0
    });
    client.publish("events", "db.de", sent(1..2));
    client.publish("events", "web.fr", sent(2..1002));
    client.publish("events", "web.fr", [(None, "no JSON\nat all".to_string())].into_iter());
    until("the messages", || {
        sql.run("FLUSH");
        sql.number("SELECT count(*) FROM web WHERE n > 0") == 1000
            && sql.number("SELECT count(*) FROM web__malformed") == 1
    });
    assert_eq!(sql.one("SELECT raw FROM web__malformed"), "no JSON\nat all");
    assert_eq!(sql.number("SELECT count(*) FROM web WHERE n = 1"), 0);

    // A broker that goes is waited for.
    broker.kill();
    until("the source to say so", || sql.one("SELECT state FROM logweir.sources WHERE stream = 'web'") == "retrying");
    let said = sql.one("SELECT last_error FROM logweir.sources WHERE stream = 'web'");
    assert!(!said.contains("guest"), "{said}");
    broker.again();
    let client = Client::connect(&broker.uri()).expect("it runs");
    until("the source to go on", || {
        // What a broker was told just before it was killed it may not know any more: there is no way to the queue before the
        // source has bound it again.
        client.publish("events", "web.it", sent(5000..5001));
        sql.run("FLUSH");
        sql.number("SELECT count(*) FROM web WHERE n = 5000") > 0
    });
}
