//! RabbitMQ (AMQP 0-9-1): the messages of a queue, each a frame.
//!
//! The queue forgets what is acknowledged, so a message is acknowledged when the log has it and is synced. What was not
//! acknowledged when the process or the connection ended is given again, marked as `redelivered`; it may be in the log all
//! the same. A publisher that gives each message a `message_id` of its own has it exactly once: ids are kept with the frames
//! ([`Unit::Messages`]), and a redelivered message whose id is known is left out. Without ids it is at least once.
//!
//! ```text
//!     broker ──► prefetch ──► task on a thread of our own: connects, consumes ──► queue, as long as prefetch ──► poll
//!                                      ▲ the last tag to acknowledge, with all before it ◄── acknowledge
//! ```
//!
//! No more than `prefetch` messages are under way: the broker waits for acknowledgements. A connection that ends is made
//! again with the driver's backoff.

use std::collections::VecDeque;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{AGAIN, Partition, Polled, Source, Spec, Waker};
use crate::error::{Error, Kind, Result};
use crate::frame::message::{self, Message};
use crate::frame::{Framing, framing_option, newline};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::position::{Position, Unit};
use crate::reach;

pub static SPEC: Spec = Spec {
    name: "rabbitmq",
    summary: "messages of a RabbitMQ queue, acknowledged when they are durable; exactly once if they have a message_id",
    options: OPTIONS,
    check: Some(check),
    build: |options| Ok(Box::new(RabbitMq::new(Settings::from(options)?))),
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec::required("uri", OptionKind::Secret, "where the broker is: 'amqp://user:password@host:5672/vhost'"),
    OptionSpec::required("queue", OptionKind::Text, "the queue to consume; it must exist, unless an exchange is given"),
    OptionSpec::optional(
        "exchange",
        OptionKind::Text,
        None,
        "an exchange that exists: the queue is made, durable, if it does not exist, and bound to it",
    ),
    OptionSpec::optional(
        "routing_key",
        OptionKind::Text,
        Some("#"),
        "which messages of the exchange go to the queue, such as 'logs.#'",
    ),
    OptionSpec::optional(
        "prefetch",
        OptionKind::Integer,
        Some("1000"),
        "messages under way that are not acknowledged yet; the broker sends no more (1 to 65535)",
    ),
    OptionSpec::optional(
        "ca_file",
        OptionKind::Path,
        None,
        "certificates (PEM) by which the broker's is checked when the uri begins with amqps:",
    ),
    OptionSpec::optional("max_line_bytes", OptionKind::Bytes, Some("1 MiB"), "longer messages are cut to this length"),
    framing_option(&["message"], "each message is one record"),
];

/// One block holds no more messages, nor more bytes beyond its last message.
const BLOCK_MESSAGES: usize = 1000;
const BLOCK_BYTES: usize = 1 << 20;

/// Connecting, declaring and consuming together.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A source that is dropped waits so long for its last acknowledgement to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Nothing that comes for so long ends a FLUSH, whatever the broker said was there: others may consume the queue too.
const SILENCE: Duration = Duration::from_millis(300);

/// What a user chose, checked.
#[derive(Debug, Clone)]
struct Settings {
    options: Options,
    queue: String,
    exchange: Option<String>,
    routing_key: String,
    prefetch: u16,
    framing: Framing,
}

impl Settings {
    fn from(options: &Options) -> Result<Settings> {
        let wrong = |message: String| Error::new(Kind::InvalidParameter, message);
        for name in ["queue", "exchange", "routing_key"] {
            if options.text(name).is_some_and(|text| text.len() > 255) {
                return Err(wrong(format!("option \"{name}\" has more than 255 bytes")));
            }
        }
        let prefetch = options.integer("prefetch").and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        Ok(Settings {
            options: options.clone(),
            queue: options.text("queue").unwrap_or_default().to_string(),
            exchange: options.text("exchange").map(str::to_string),
            routing_key: options.text("routing_key").unwrap_or_default().to_string(),
            prefetch: prefetch.ok_or_else(|| wrong("option \"prefetch\" takes a number from 1 to 65535".into()))?,
            framing: Framing { spec: &message::SPEC, ..Framing::from(options, newline::SPEC.name)? },
        })
    }

    /// Connects. The URI is not part of any error: it holds the password.
    async fn connect(&self) -> Result<(Connection, Channel)> {
        let uri = self.options.secret("uri")?.unwrap_or_default();
        let uri = AMQPUri::from_str(&uri).map_err(|_| {
            Error::new(Kind::InvalidParameter, "option \"uri\" is not the address of a broker")
                .with_hint("Write it like 'amqp://user:password@host:5672/vhost'; %2f stands for the vhost \"/\".")
        })?;
        let cert_chain = match self.options.text("ca_file") {
            Some(path) => {
                let path = Path::new(path);
                Some(std::fs::read_to_string(path).map_err(|err| Error::io("read", path, &err))?)
            }
            None => None,
        };
        let place = format!("{}:{}", uri.authority.host, uri.authority.port);
        reach::hosts(&place)?;
        let properties = ConnectionProperties::default().with_connection_name("logweir".into());
        let runtime = lapin::runtime::default_runtime().map_err(|err| failed("use the runtime", &err))?;
        let tls = OwnedTLSConfig { identity: None, cert_chain };
        let connection = Connection::connect_uri_with_config(uri, properties, tls, runtime).await;
        let connection = connection.map_err(|err| failed(&format!("connect to RabbitMQ at {place}"), &err))?;
        let channel = connection.create_channel().await.map_err(|err| failed("open a channel", &err))?;
        Ok((connection, channel))
    }

    /// Fails if the queue, or the exchange, is not there.
    async fn look(&self, channel: &Channel) -> Result<()> {
        match &self.exchange {
            None => self.ready(channel).await.map(|_| ()),
            Some(exchange) => {
                let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                // The kind means nothing to a passive declaration.
                let (kind, table) = (ExchangeKind::Topic, FieldTable::default());
                let declared = channel.exchange_declare(exchange.as_str().into(), kind, options, table).await;
                declared.map_err(|err| failed(&format!("find the exchange \"{exchange}\""), &err))
            }
        }
    }

    /// Messages that are ready in the queue.
    async fn ready(&self, channel: &Channel) -> Result<u64> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(self.queue.as_str().into(), options, FieldTable::default()).await;
        let queue = declared.map_err(|err| failed(&format!("find the queue \"{}\"", self.queue), &err))?;
        Ok(u64::from(queue.message_count()))
    }

    /// Makes and binds the queue, if there is an exchange.
    async fn bind(&self, channel: &Channel) -> Result<()> {
        let Some(exchange) = &self.exchange else { return Ok(()) };
        let name = &self.queue;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await;
        declared.map_err(|err| failed(&format!("declare the queue \"{name}\" as durable"), &err))?;
        let (key, options) = (self.routing_key.as_str().into(), QueueBindOptions::default());
        let bound =
            channel.queue_bind(name.as_str().into(), exchange.as_str().into(), key, options, FieldTable::default());
        bound.await.map_err(|err| failed(&format!("bind the queue \"{name}\" to the exchange \"{exchange}\""), &err))
    }
}

fn failed(action: &str, err: &lapin::Error) -> Error {
    Error::new(Kind::Io, format!("could not {action}: {err}"))
}

fn late() -> Error {
    Error::new(Kind::Io, format!("the broker did not answer within {} seconds", CONNECT_TIME.as_secs()))
}

fn runtime() -> Result<Runtime> {
    let built =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("rabbitmq").enable_all().build();
    built.map_err(|err| Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}")))
}

fn check(options: &Options) -> Result<()> {
    let settings = Settings::from(options)?;
    let runtime = runtime()?;
    let looked = runtime.block_on(async {
        let looking = async {
            let (connection, channel) = settings.connect().await?;
            settings.look(&channel).await?;
            // Whoever only looked is not missed.
            let _ = connection.close(200, "looked".into()).await;
            Ok(())
        };
        tokio::time::timeout(CONNECT_TIME, looking).await.unwrap_or_else(|_| Err(late()))
    });
    runtime.shutdown_background();
    looked
}

/// What the task tells the source.
enum Event {
    Message(Box<Delivery>),
    Ended(Error),
}

/// What a FLUSH asks the task: how many messages are ready.
struct Mark {
    /// Number of the FLUSH that asked, and then of the one that was answered.
    asked: watch::Sender<u64>,
    answered: Arc<AtomicU64>,
    ready: Arc<AtomicU64>,
}

/// A connection and its task.
struct Link {
    events: mpsc::Receiver<Event>,
    /// The highest delivery tag to acknowledge, with all before it.
    acknowledge: watch::Sender<u64>,
    mark: Mark,
    task: JoinHandle<()>,
}

/// See the file header.
struct RabbitMq {
    // Fixed.
    settings: Settings,
    waker: Option<Waker>,
    // State.
    runtime: Option<Runtime>,
    link: Option<Link>,
    messages: Message,
    /// Number of the next message, and the number and delivery tag behind which each block ended that is not acknowledged.
    next: u64,
    owed: VecDeque<(u64, u64)>,
    /// FLUSH: its number; how many messages had come and were ready when the broker answered; when something last came.
    flush: u64,
    goal: Option<u64>,
    last: Instant,
}

impl RabbitMq {
    fn new(settings: Settings) -> RabbitMq {
        RabbitMq {
            messages: Message::new(&settings.framing),
            settings,
            waker: None,
            runtime: None,
            link: None,
            next: 0,
            owed: VecDeque::new(),
            flush: 0,
            goal: None,
            last: Instant::now(),
        }
    }

    /// Begins to connect.
    fn open(&mut self) -> Result<()> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => runtime()?,
        };
        // One more for the end.
        let (send, events) = mpsc::channel(usize::from(self.settings.prefetch) + 1);
        let (acknowledge, acknowledged) = watch::channel(0);
        let (asked, marks) = watch::channel(self.flush);
        let (answered, ready) = (Arc::new(AtomicU64::new(self.flush)), Arc::new(AtomicU64::new(0)));
        let task = Consuming {
            settings: self.settings.clone(),
            events: send,
            waker: self.waker.clone(),
            acknowledged,
            marks,
            answered: Arc::clone(&answered),
            ready: Arc::clone(&ready),
        };
        let task = runtime.spawn(task.run());
        self.link = Some(Link { events, acknowledge, mark: Mark { asked, answered, ready }, task });
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Gives up the connection. What was not acknowledged will be given again, on a new one with tags of its own.
    fn close(&mut self) {
        self.owed.clear();
        self.link = None;
    }

    /// The id that a message has, as the log is to know it.
    fn id(delivery: &Delivery) -> String {
        let given = delivery.properties.message_id().as_ref().map(|id| id.as_str()).unwrap_or_default();
        if given.is_empty() {
            return String::new();
        }
        // One line each.
        let id: String = given.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if delivery.redelivered { format!("{AGAIN}{id}") } else { id }
    }
}

impl Source for RabbitMq {
    /// The broker knows where to go on.
    fn resume(&mut self, _: Vec<Position>) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let Some(link) = &mut self.link else {
            self.open()?;
            return Ok(Polled::Idle);
        };
        if self.goal.is_none() && link.mark.answered.load(Ordering::Acquire) >= self.flush {
            self.goal = Some(self.next);
        }
        let (first, mut bytes, mut tag, mut ids) = (self.next, 0, 0, Vec::new());
        let mut ended = None;
        while ids.len() < BLOCK_MESSAGES && bytes < BLOCK_BYTES {
            match link.events.try_recv() {
                Ok(Event::Message(delivery)) => {
                    self.messages.add(&delivery.data);
                    bytes += delivery.data.len();
                    tag = delivery.delivery_tag;
                    ids.push(RabbitMq::id(&delivery));
                    self.next += 1;
                }
                Ok(Event::Ended(err)) => {
                    ended = Some(err);
                    break;
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    ended = Some(Error::new(Kind::Io, "the connection to RabbitMQ has ended"));
                    break;
                }
            }
        }
        if let Some(err) = ended {
            // They are given again: they have not been acknowledged.
            self.messages.take();
            self.next = first;
            self.close();
            return Err(err);
        }
        if ids.is_empty() {
            return Ok(Polled::Idle);
        }
        self.last = Instant::now();
        self.owed.push_back((self.next, tag));
        let position = Position {
            partition: self.settings.queue.clone(),
            key: ids.join("\n"),
            start: first,
            end: self.next,
            unit: Unit::Messages,
        };
        Ok(Polled::Frames(self.messages.take(), position))
    }

    fn mark(&mut self) -> Result<()> {
        self.flush += 1;
        (self.goal, self.last) = (None, Instant::now());
        if let Some(link) = &self.link {
            link.mark.asked.send_replace(self.flush);
        }
        Ok(())
    }

    /// What the broker had ready has come, or nothing comes any more. Without a connection nothing can be waited for.
    fn reached(&self) -> bool {
        let Some(link) = &self.link else { return true };
        if link.mark.answered.load(Ordering::Acquire) < self.flush {
            return link.task.is_finished();
        }
        let most = link.mark.ready.load(Ordering::Acquire) + u64::from(self.settings.prefetch);
        let enough = self.goal.is_some_and(|from| self.next - from >= most);
        enough || (link.events.is_empty() && self.last.elapsed() > SILENCE)
    }

    fn partitions(&self) -> Vec<Partition> {
        vec![Partition { name: self.settings.queue.clone(), position: self.next, end: None }]
    }

    fn set_waker(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    /// The task wakes the driver; a FLUSH is looked after more often.
    fn idle_wait(&self) -> Duration {
        if self.last.elapsed() < 2 * SILENCE { SILENCE / 4 } else { Duration::from_secs(1) }
    }

    fn wants_acknowledgement(&self) -> bool {
        true
    }

    fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let mut last = None;
        while let Some((end, tag)) = self.owed.front().copied().filter(|(end, _)| *end <= position.end) {
            debug_assert!(end <= self.next);
            last = Some(tag);
            self.owed.pop_front();
        }
        // Of a connection that has ended there is nothing to acknowledge.
        if let (Some(tag), Some(link)) = (last, &self.link) {
            link.acknowledge.send_replace(tag);
        }
        Ok(())
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if let Some(Link { acknowledge, task, .. }) = self.link.take() {
            // The task ends when nobody can acknowledge any more.
            drop(acknowledge);
            runtime.block_on(async { drop(tokio::time::timeout(LAST_WORDS, task).await) });
        }
        runtime.shutdown_background();
    }
}

/// The task of a connection.
struct Consuming {
    settings: Settings,
    events: mpsc::Sender<Event>,
    waker: Option<Waker>,
    acknowledged: watch::Receiver<u64>,
    marks: watch::Receiver<u64>,
    answered: Arc<AtomicU64>,
    ready: Arc<AtomicU64>,
}

impl Consuming {
    async fn run(mut self) {
        let Err(err) = self.consume().await else { return };
        // Nobody is there to be told when the source was dropped.
        let _ = self.events.send(Event::Ended(err)).await;
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }

    /// Consumes until the source is dropped, or an error ends it.
    async fn consume(&mut self) -> Result<()> {
        let settings = self.settings.clone();
        let opening = async {
            let (connection, channel) = settings.connect().await?;
            settings.bind(&channel).await?;
            let qos = channel.basic_qos(settings.prefetch, BasicQosOptions::default()).await;
            qos.map_err(|err| failed("limit the messages under way", &err))?;
            let (tag, options) = ("".into(), BasicConsumeOptions::default());
            let consumer =
                channel.basic_consume(settings.queue.as_str().into(), tag, options, FieldTable::default()).await;
            let consumer =
                consumer.map_err(|err| failed(&format!("consume the queue \"{}\"", settings.queue), &err))?;
            Ok::<_, Error>((connection, channel, consumer))
        };
        let opened = tokio::time::timeout(CONNECT_TIME, opening).await;
        let (connection, channel, mut consumer) = opened.unwrap_or_else(|_| Err(late()))?;
        let mut sent_up_to = 0;
        loop {
            tokio::select! {
                delivery = consumer.next() => match delivery {
                    // There is room: the queue is as long as the prefetch.
                    Some(Ok(delivery)) => {
                        if self.events.send(Event::Message(Box::new(delivery))).await.is_err() {
                            return Ok(());
                        }
                        self.wake();
                    }
                    Some(Err(err)) => return Err(failed("go on consuming", &err)),
                    None => {
                        let message = format!("the broker has cancelled consuming the queue \"{}\"", settings.queue);
                        return Err(Error::new(Kind::Io, message).with_detail("It may have been deleted."));
                    }
                },
                changed = self.acknowledged.changed() => {
                    let tag = *self.acknowledged.borrow_and_update();
                    // One that was acknowledged before would end the channel.
                    if tag > sent_up_to {
                        sent_up_to = tag;
                        let sent = channel.basic_ack(tag, BasicAckOptions { multiple: true }).await;
                        sent.map_err(|err| failed("acknowledge", &err))?;
                    }
                    if changed.is_err() {
                        // What it has sent before is read by the broker before the end is.
                        let _ = connection.close(200, "stopped".into()).await;
                        return Ok(());
                    }
                }
                changed = self.marks.changed() => {
                    if changed.is_ok() {
                        let number = *self.marks.borrow_and_update();
                        self.ready.store(settings.ready(&channel).await?, Ordering::Release);
                        self.answered.store(number, Ordering::Release);
                        self.wake();
                    }
                }
            }
        }
    }
}
