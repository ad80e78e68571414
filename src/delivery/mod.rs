//! Deliveries: what brings a relation's rows and changes to the other side, one driver per sink.
//!
//! ```text
//!     subscription ──► pile ──► batch ──► sink ──► accepted: the position is noted
//!          ▲             │                 │
//!          │             one batch at a    ├── not now: again, after a while; the subscription waits meanwhile
//!          │             time, bounded     └── refused: halved until the row is found, which becomes a dead letter
//!          └── again from the position noted, after a restart or when what was delivered and not accepted is lost
//! ```
//!
//! What always holds: rows are taken from the relation only as they are delivered, so a sink that is slow or down holds up
//! nobody, and memory holds one batch. The position is noted after the other side has accepted, never before: at least once.
//! Where the other side can tell what it has (files, PostgreSQL, Kafka) it is asked first: exactly once. What retention has dropped
//! before it was delivered is counted and told.
//!
//! [`pile`] cuts batches, [`state`] is what is noted, [`dead`] are the dead letters. A sink (`sink/`) only delivers.

pub mod dead;
pub mod pile;
pub mod state;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options as Given};
use crate::sink::encode::Encoding;
use crate::sink::{Batch, Failure, Feed, Position, Sink, Spec};
use crate::time::{Clock, Micros};
use crate::view::changes::{Nature, Options, REST, Start};
use dead::{DeadLetters, Letter};
use pile::{Limits, Mode, Pile};
use state::{State, StateFile};

/// Options of every sink, besides its connector's.
pub static SINK_OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional(
        "snapshot",
        OptionKind::Bool,
        Some("true"),
        "begin with what is there already; else with what comes from now on",
    ),
    OptionSpec::optional("batch_rows", OptionKind::Integer, Some("5000"), "rows that are delivered together at most"),
    OptionSpec::optional(
        "batch_bytes",
        OptionKind::Bytes,
        Some("4 MiB"),
        "bytes that are delivered together at most, about; one row may be larger",
    ),
    OptionSpec::optional(
        "batch_interval",
        OptionKind::Interval,
        Some("1 second"),
        "so long rows wait for others at most; changes of a view come this often at most",
    ),
    OptionSpec::optional(
        "retry_max",
        OptionKind::Interval,
        Some("30 seconds"),
        "the longest time between two attempts; it doubles from a fifth of a second up to this",
    ),
    OptionSpec::optional(
        "tries",
        OptionKind::Integer,
        Some("3"),
        "a row that the other side refuses this often becomes a dead letter",
    ),
    OptionSpec::optional(
        "dead_bytes",
        OptionKind::Bytes,
        Some("16 MiB"),
        "so much of dead letters is kept; then the oldest go",
    ),
    OptionSpec::optional(
        "validate",
        OptionKind::Bool,
        Some("true"),
        "refuse to create a sink that does not work now; with false it is tried again until it does",
    ),
];

/// Time before the second attempt.
const RETRY_MIN: Duration = Duration::from_millis(200);

/// So long the other side may ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// When the server stops, what is being delivered has this long to come to its end.
const GRACE: Duration = Duration::from_secs(5);

/// How often a position is noted that only moved on, or that the other side keeps as well.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What every delivery may be told.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub snapshot: bool,
    pub limits: Limits,
    pub interval: Duration,
    pub retry_min: Duration,
    pub retry_max: Duration,
    pub tries: u64,
    pub dead_bytes: u64,
    pub validate: bool,
}

impl Settings {
    /// Of [`SINK_OPTIONS`].
    pub fn of(given: &Given) -> Result<Settings> {
        let positive = |name: &str| match given.integer(name) {
            Some(n) if n > 0 => Ok(n as u64),
            Some(_) | None => {
                Err(Error::new(Kind::InvalidParameter, format!("option \"{name}\" takes a number above 0")))
            }
        };
        let rows = usize::try_from(positive("batch_rows")?).unwrap_or(usize::MAX);
        let bytes = given.bytes("batch_bytes").unwrap_or(4 << 20).max(1);
        Ok(Settings {
            snapshot: given.bool("snapshot"),
            limits: Limits { rows, bytes: usize::try_from(bytes).unwrap_or(usize::MAX) },
            interval: given.interval("batch_interval").unwrap_or_default(),
            retry_min: RETRY_MIN,
            retry_max: given.interval("retry_max").unwrap_or(RETRY_MIN).max(RETRY_MIN),
            tries: positive("tries")?,
            dead_bytes: given.bytes("dead_bytes").unwrap_or(16 << 20),
            validate: given.bool("validate"),
        })
    }
}

/// What is known of a relation when it is followed.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its columns, with the names that users see.
    pub schema: SchemaRef,
    pub nature: Nature,
    /// Changes come this often at most.
    pub every: Duration,
}

/// A relation that can be followed; planned anew each time, as it may have been replaced.
pub trait Relation: Send + Sync {
    fn describe(&self) -> BoxFuture<'_, Result<Described>>;

    /// Follows it. `window`: only rows that are larger in this column.
    fn follow(
        &self,
        options: Options,
        window: Option<(usize, Micros)>,
    ) -> BoxFuture<'_, Result<SendableRecordBatchStream>>;

    /// Whether its columns are still those that it was described with. A stream may learn more.
    fn has_columns(&self) -> bool;

    /// The offset at which its streams stand; `None` before it was described.
    fn offset(&self) -> Option<u64>;

    /// The first offset that its stream still has.
    fn first(&self) -> Option<u64>;

    /// Returns when all rows up to there are as safe as their stream makes them: what was delivered must not come again
    /// as something else after a power cut.
    fn durable(&self, offset: u64) -> BoxFuture<'_, Result<()>>;
}

/// How a relation of this nature is delivered by this sink. `keyed`: the user says which columns tell rows apart.
pub fn mode_of(spec: &Spec, described: &Described, settings: &Settings, keyed: bool) -> Result<Mode> {
    let nature = &described.nature;
    if nature.rows {
        return Ok(Mode::Rows);
    }
    let no_snapshot = |what: &str, why: &str| {
        let message = format!("snapshot = false cannot be used with {what}");
        Err(Error::new(Kind::NotSupported, message).with_detail(why.to_string()))
    };
    if nature.closed {
        let Some(column) = nature.window.filter(|_| nature.streams == 1) else {
            let message = "it is not known in which order the windows of this relation close";
            return Err(Error::new(Kind::NotSupported, message)
                .with_detail("Each closed window is delivered once; which were is told by a column.")
                .with_hint(
                    "Select window_start or window_end, and read one stream only; or use a view with EMIT ON UPDATE.",
                ));
        };
        if !settings.snapshot {
            return no_snapshot("closed windows", "Which windows were delivered is told by the last of them.");
        }
        return Ok(Mode::Closed(column));
    }
    if !spec.upserts {
        return Ok(Mode::Records);
    }
    if nature.key.is_none() && !keyed {
        return Err(Error::new(
            Kind::NotSupported,
            "it is not known which columns tell the rows of this relation apart",
        )
        .with_hint("Name them: WITH (key = 'column, …')."));
    }
    if !settings.snapshot {
        return no_snapshot("changes of a view", "The other side has all of the view's rows.");
    }
    Ok(Mode::Upserts)
}

/// What `logweir.sinks` shows.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub state: &'static str,
    pub position: Position,
    pub rows: u64,
    pub batches: u64,
    pub retries: u64,
    pub dead: u64,
    pub lost: u64,
    pub last_delivery: Option<Micros>,
    pub last_error: Option<String>,
}

/// How a delivery is going, for those who look.
#[derive(Debug, Default)]
pub struct Status(Mutex<Shown>);

impl Status {
    pub fn get(&self) -> Shown {
        self.0.lock().clone()
    }

    /// It does not deliver and will not.
    pub fn fail(&self, err: &Error) {
        self.update(|shown| (shown.state, shown.last_error) = ("failed", Some(err.to_string())));
    }

    fn update(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.0.lock());
    }
}

/// What a driver is made of.
pub struct Parts {
    pub name: String,
    pub spec: &'static Spec,
    pub sink: Box<dyn Sink>,
    pub settings: Settings,
    /// The columns that tell rows apart, if the user says so.
    pub key: Option<Vec<String>>,
    pub relation: Arc<dyn Relation>,
    pub file: StateFile,
    pub dead: Arc<DeadLetters>,
    pub status: Arc<Status>,
    pub clock: Clock,
    pub stop: CancellationToken,
}

/// What a subscription gives.
type Rows = BoxStream<'static, datafusion::common::Result<RecordBatch>>;

/// Why a session ended.
enum End {
    Stopped,
    /// Its relation has got other columns, or the other side stands elsewhere: at once again.
    Again,
    Failed(Error, Option<Duration>),
}

impl From<Error> for End {
    fn from(err: Error) -> End {
        End::Failed(err, None)
    }
}

/// How a batch fared.
enum Fate {
    Accepted(Option<Position>),
    Refused(Error),
}

/// The driver of a sink: see the file header.
pub struct Delivery {
    // fixed
    parts: Parts,
    // state
    state: State,
    /// What the other side has accepted, as it says.
    accepted: Position,
    /// Rows that were delivered and not accepted yet.
    ahead: u64,
    /// Failures since something was accepted.
    failures: u32,
    noted: Instant,
    is_noted: bool,
    missed: Arc<AtomicU64>,
}

/// The feed of a relation for a sink, and how it is delivered.
pub fn feed_of(
    name: &str,
    id: &str,
    spec: &Spec,
    described: &Described,
    settings: &Settings,
    key: Option<&[String]>,
) -> Result<(Mode, Feed)> {
    let mode = mode_of(spec, described, settings, key.is_some())?;
    let place = |name: &String| {
        let known = || described.schema.fields().iter().map(|field| field.name().as_str());
        described.schema.index_of(name).map_err(|_| {
            let err =
                Error::new(Kind::UndefinedColumn, format!("column \"{name}\" of the option \"key\" does not exist"));
            match crate::options::nearest(name, known()) {
                Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
                None => err,
            }
        })
    };
    let key = match key {
        Some(names) => Some(names.iter().map(place).collect::<Result<_>>()?),
        None => described.nature.key.clone(),
    };
    let schema = pile::schema(&described.schema, mode);
    // Records of changes have other columns in front, and many times.
    let time = described.nature.time.filter(|_| mode != Mode::Records);
    Ok((mode, Feed { name: name.into(), id: id.into(), schema, key, time, upserts: mode == Mode::Upserts }))
}

impl Delivery {
    /// With the state that was noted.
    pub fn new(parts: Parts, state: State) -> Delivery {
        let accepted = state.position;
        let delivery = Delivery {
            parts,
            state,
            accepted,
            ahead: 0,
            failures: 0,
            noted: Instant::now(),
            is_noted: true,
            missed: Arc::default(),
        };
        delivery.show("starting");
        delivery
    }

    /// Delivers until it is told to stop.
    pub async fn run(mut self) {
        let status = Arc::clone(&self.parts.status);
        let name = self.parts.name.clone();
        if AssertUnwindSafe(self.deliver_all()).catch_unwind().await.is_err() {
            tracing::error!(sink = %name, "a delivery panicked; it is stopped until the server starts again");
            status.update(|shown| {
                shown.state = "failed";
                shown.last_error = Some("the delivery panicked; this is a bug, please report it".into());
            });
        }
    }

    async fn deliver_all(&mut self) {
        while !self.parts.stop.is_cancelled() {
            match self.session().await {
                End::Stopped => break,
                End::Again => {}
                End::Failed(err, after) => {
                    self.ahead = 0;
                    self.fail(&err);
                    if !self.rest(after).await {
                        break;
                    }
                }
            }
        }
        match timeout(GRACE, self.complete()).await {
            Ok(Ok(())) => {}
            Ok(Err(End::Failed(err, _))) => {
                tracing::warn!(sink = %self.parts.name, error = %err, "what was delivered last is not accepted; it is delivered again after the next start");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        if !self.is_noted
            && let Err(End::Failed(err, _)) = self.note().await
        {
            tracing::warn!(sink = %self.parts.name, error = %err, "the position of a sink could not be noted");
        }
        self.show("stopped");
    }

    /// One try to deliver for as long as it goes well.
    async fn session(&mut self) -> End {
        match self.try_session().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn try_session(&mut self) -> Result<End, End> {
        let described = self.parts.relation.describe().await?;
        let key = self.parts.key.as_deref();
        let (mode, feed) =
            feed_of(&self.parts.name, &self.state.id, self.parts.spec, &described, &self.parts.settings, key)?;
        let position = self.open(&feed).await?;
        self.ahead = 0;
        self.accepted = position;
        if position != self.state.position {
            self.state.position = position;
            self.is_noted = false;
        }
        if self.state.sending.is_some_and(|sending| position.has_reached(sending)) {
            self.state.sending = None;
        }
        let (mut rows, whole, tell) = self.follow(mode, &described, &feed).await?;
        let limits = self.parts.settings.limits;
        let mut pile = Pile::new(&feed.id, mode, Arc::clone(&feed.schema), limits, position, whole, tell);
        self.show(if self.failures == 0 { "live" } else { "retrying" });
        let mut waits_since: Option<Instant> = None;
        loop {
            if !self.parts.relation.has_columns() && mode == Mode::Rows {
                self.complete().await?;
                return Ok(End::Again);
            }
            let waited = waits_since.is_some_and(|since| since.elapsed() >= self.parts.settings.interval);
            let until = self.state.sending.filter(|_| mode == Mode::Rows && self.parts.spec.repeats);
            if (waited || pile.is_full() || pile.is_complete() || until.is_some())
                && let Some(batch) = pile.take(until)?
            {
                self.send(&feed, &batch).await?;
                waits_since = (!pile.is_empty()).then(Instant::now);
                continue;
            }
            if !self.parts.sink.holds()
                && let Some(position) = pile.skip()
            {
                self.state.position = position;
                self.is_noted = false;
                self.failures = 0;
                self.show("live");
            }
            self.note_if_due().await?;
            let linger = waits_since.filter(|_| !waited).map(|since| since + self.parts.settings.interval);
            let due = self.parts.sink.due();
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => return Ok(End::Stopped),
                () = until_then(due) => self.complete().await?,
                () = until_then(linger) => {}
                () = sleep(NOTE_EVERY), if !self.is_noted => {}
                next = rows.next() => {
                    let Some(next) = next else {
                        return Err(Error::new(Kind::NotReady, "the relation is no longer followed").into());
                    };
                    let next = match next.map_err(Error::from) {
                        Ok(next) => next,
                        // It was replaced.
                        Err(err) if err.kind() == Kind::NotReady => {
                            self.complete().await?;
                            sleep(RETRY_MIN).await;
                            return Ok(End::Again);
                        }
                        Err(err) => return Err(err.into()),
                    };
                    pile.push(&next)?;
                    self.count_missed();
                    if !pile.is_empty() {
                        waits_since.get_or_insert_with(Instant::now);
                    }
                }
            }
        }
    }

    /// Begins to follow. Tells whether the whole result comes first, and whether that has to be told.
    async fn follow(&self, mode: Mode, described: &Described, feed: &Feed) -> Result<(Rows, bool, bool), End> {
        let position = self.state.position;
        let every = described.every.max(if mode == Mode::Rows { Duration::ZERO } else { self.parts.settings.interval });
        let key = feed.key.clone().filter(|_| mode == Mode::Upserts);
        let upsert = mode == Mode::Upserts;
        let options = |start| Options {
            start,
            progress: true,
            upsert,
            key: key.clone(),
            every,
            missed: Arc::clone(&self.missed),
            rest: Arc::new(AtomicU32::new(REST)),
            reached: Arc::default(),
        };
        let relation = &self.parts.relation;
        Ok(match mode {
            Mode::Rows => (relation.follow(options(Start::From(position.offset)), None).await?.boxed(), false, false),
            Mode::Upserts => (relation.follow(options(Start::Snapshot), None).await?.boxed(), true, false),
            Mode::Closed(column) => {
                let window = position.window.map(|window| (column, window));
                (relation.follow(options(Start::Snapshot), window).await?.boxed(), false, false)
            }
            Mode::Records if !self.state.begun && self.parts.settings.snapshot => {
                (relation.follow(options(Start::Snapshot), None).await?.boxed(), true, false)
            }
            Mode::Records if !self.state.begun => {
                (relation.follow(options(Start::Now), None).await?.boxed(), false, false)
            }
            Mode::Records => match self.follow_after(options(Start::After(position.offset))).await? {
                Some(rows) => (rows, false, false),
                None => (relation.follow(options(Start::Snapshot), None).await?.boxed(), true, true),
            },
        })
    }

    /// Follows from an offset on; `None` when what was there then is not known any more.
    async fn follow_after(&self, options: Options) -> Result<Option<Rows>, End> {
        let first = async {
            let mut rows = self.parts.relation.follow(options, None).await?;
            // The old result is made again before the first row comes.
            let first = rows.next().await.transpose()?;
            Ok::<Rows, Error>(futures::stream::iter(first.map(Ok)).chain(rows).boxed())
        };
        let first = tokio::select! {
            biased;
            () = self.parts.stop.cancelled() => return Err(End::Stopped),
            first = first => first,
        };
        match first {
            Ok(rows) => Ok(Some(rows)),
            Err(err) if matches!(err.kind(), Kind::NotSupported | Kind::InvalidParameter) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    /// Opens the sink; gives up when it is told to stop.
    async fn open(&mut self, feed: &Feed) -> Result<Position, End> {
        let known = self.state.position;
        let opened = tokio::select! {
            biased;
            () = self.parts.stop.cancelled() => return Err(End::Stopped),
            opened = self.parts.sink.open(feed, known) => opened,
        };
        opened.map_err(|failure| match failure {
            Failure::Again(err, after) => End::Failed(err, after),
            Failure::Refused(err) => End::Failed(err, None),
        })
    }

    /// Delivers a batch, whatever it takes.
    async fn send(&mut self, feed: &Feed, batch: &Batch) -> Result<(), End> {
        if let Some(upto) = batch.upto {
            self.parts.relation.durable(upto.offset).await?;
            if self.parts.spec.repeats && batch.rows.num_rows() > 0 && self.state.sending != Some(upto) {
                self.state.sending = Some(upto);
                self.note().await?;
            }
        }
        match self.attempt(feed, batch).await? {
            Fate::Accepted(accepted) => {
                self.ahead += batch.rows.num_rows() as u64;
                self.take_note(accepted).await
            }
            Fate::Refused(err) => self.sift(feed, batch, err).await,
        }
    }

    /// Delivers a batch until it is accepted or refused. What was delivered before and is lost with a failure comes again in
    /// another session.
    async fn attempt(&mut self, feed: &Feed, batch: &Batch) -> Result<Fate, End> {
        loop {
            let held = self.parts.sink.holds();
            let stop = self.parts.stop.clone();
            let stopped = async move {
                stop.cancelled().await;
                sleep(GRACE).await;
            };
            let delivered = tokio::select! {
                biased;
                delivered = self.parts.sink.deliver(batch) => delivered,
                () = stopped => return Err(End::Stopped),
            };
            match delivered {
                Ok(accepted) => {
                    self.parts.status.update(|shown| {
                        shown.batches += 1;
                        shown.last_delivery = Some(self.parts.clock.now());
                    });
                    return Ok(Fate::Accepted(accepted));
                }
                Err(Failure::Refused(err)) => return Ok(Fate::Refused(err)),
                Err(Failure::Again(err, after)) if held => return Err(End::Failed(err, after)),
                Err(Failure::Again(err, after)) => self.fail_and_rest(&err, after).await?,
            }
            // It may have been accepted without our having heard of it.
            loop {
                match self.open(feed).await {
                    Ok(position) if batch.upto.is_some_and(|upto| position.has_reached(upto)) => {
                        return Ok(Fate::Accepted(Some(position)));
                    }
                    Ok(position) if position == self.accepted || position == self.state.position => break,
                    Ok(_) => return Err(End::Again),
                    Err(End::Failed(err, after)) => self.fail_and_rest(&err, after).await?,
                    Err(end) => return Err(end),
                }
            }
        }
    }

    /// Finds the rows that are refused: the batch is halved until they are alone. All others are delivered.
    async fn sift(&mut self, feed: &Feed, batch: &Batch, why: Error) -> Result<(), End> {
        let mut todo = match batch.rows.num_rows() {
            0 => return Err(End::Failed(why, None)),
            rows => vec![(0, rows, 1, Some(why))],
        };
        let (mut letters, mut replaces, mut delivered) = (Vec::new(), batch.replaces, 0);
        while let Some((first, rows, tries, refused)) = todo.pop() {
            let refused = match refused {
                Some(err) => Some(err),
                None => {
                    let part = Batch {
                        rows: batch.rows.slice(first, rows),
                        offsets: batch.offsets.slice(first, rows),
                        gone: batch.gone.as_ref().map(|gone| gone.slice(first, rows)),
                        from: batch.from,
                        upto: None,
                        replaces,
                        key: format!("{}-{first}-{rows}", batch.key),
                    };
                    match self.attempt(feed, &part).await? {
                        Fate::Accepted(_) => None,
                        Fate::Refused(err) => Some(err),
                    }
                }
            };
            match refused {
                None => (replaces, delivered) = (false, delivered + rows as u64),
                Some(err) if rows == 1 && tries >= self.parts.settings.tries => {
                    letters.push(self.letter(batch, first, tries, &err)?);
                }
                Some(_) if rows == 1 => todo.push((first, 1, tries + 1, None)),
                Some(_) => {
                    let half = rows / 2;
                    // The first half is taken first.
                    todo.extend([(first + half, rows - half, 1, None), (first, half, 1, None)]);
                }
            }
        }
        self.bury(letters).await?;
        let (rows, gone) = (batch.rows.slice(0, 0), batch.gone.as_ref().map(|gone| gone.slice(0, 0)));
        let end = Batch {
            rows,
            offsets: batch.offsets.slice(0, 0),
            gone,
            replaces,
            key: format!("{}-end", batch.key),
            ..batch.clone()
        };
        match self.attempt(feed, &end).await? {
            Fate::Accepted(accepted) => {
                self.ahead += delivered;
                self.take_note(accepted).await
            }
            Fate::Refused(err) => Err(End::Failed(err, None)),
        }
    }

    fn letter(&self, batch: &Batch, row: usize, tries: u64, err: &Error) -> Result<Letter> {
        let text = Encoding::Json.lines(&batch.rows.slice(row, 1), false)?;
        let offset = batch.offsets.value(row) as u64;
        let row = String::from_utf8_lossy(&text).trim_end().to_string();
        let reason = match err.detail() {
            Some(detail) => format!("{} ({detail})", err.message()),
            None => err.message().to_string(),
        };
        Ok(Letter { offset, at: self.parts.clock.now(), tries, reason, row })
    }

    /// Makes dead letters durable.
    async fn bury(&mut self, letters: Vec<Letter>) -> Result<(), End> {
        let Some(first) = letters.first() else { return Ok(()) };
        let reason = first.reason.clone();
        let dead = Arc::clone(&self.parts.dead);
        let (count, gone) = blocking(move || dead.add(&letters)).await?;
        self.state.dead += count;
        let name = &self.parts.name;
        tracing::warn!(sink = %name, rows = count, reason, "the other side refused rows; they are in {name}__dead");
        if gone > 0 {
            tracing::warn!(sink = %name, letters = gone, "the oldest dead letters had to go: dead_bytes is reached");
        }
        Ok(())
    }

    /// Has the sink bring to an end what it holds.
    async fn complete(&mut self) -> Result<(), End> {
        match self.parts.sink.finish().await {
            Ok(accepted) => self.take_note(accepted).await,
            Err(Failure::Again(err, after)) => Err(End::Failed(err, after)),
            Err(Failure::Refused(err)) => Err(End::Failed(err, None)),
        }
    }

    /// Everything up to here was accepted.
    async fn take_note(&mut self, accepted: Option<Position>) -> Result<(), End> {
        let Some(position) = accepted else { return Ok(()) };
        if self.failures > 0 {
            tracing::info!(sink = %self.parts.name, "delivered again");
        }
        self.failures = 0;
        self.state.rows += std::mem::take(&mut self.ahead);
        (self.accepted, self.state.position, self.state.begun) = (position, position, true);
        if self.state.sending.is_some_and(|sending| position.has_reached(sending)) {
            self.state.sending = None;
        }
        self.is_noted = false;
        self.show("live");
        match self.parts.spec.keeps_position {
            true => self.note_if_due().await,
            false => self.note().await,
        }
    }

    async fn note_if_due(&mut self) -> Result<(), End> {
        match !self.is_noted && self.noted.elapsed() >= NOTE_EVERY {
            true => self.note().await,
            false => Ok(()),
        }
    }

    /// Makes the state durable.
    async fn note(&mut self) -> Result<(), End> {
        let (file, state) = (self.parts.file.clone(), self.state.clone());
        blocking(move || file.write(&state)).await?;
        (self.noted, self.is_noted) = (Instant::now(), true);
        Ok(())
    }

    /// Counts what was dropped before it was delivered, and tells it.
    fn count_missed(&mut self) {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            self.state.lost += missed;
            self.is_noted = false;
            tracing::warn!(sink = %self.parts.name, offsets = missed, "retention has dropped rows before they were delivered; the delivery goes on behind them");
            self.show_position();
        }
    }

    fn fail(&mut self, err: &Error) {
        if self.failures == 0 {
            tracing::warn!(sink = %self.parts.name, error = %err, "a sink cannot deliver; it is tried again until it can");
        }
        self.failures = self.failures.saturating_add(1);
        self.parts.status.update(|shown| {
            shown.state = "retrying";
            shown.retries += 1;
            shown.last_error = Some(err.to_string());
        });
    }

    async fn fail_and_rest(&mut self, err: &Error, after: Option<Duration>) -> Result<(), End> {
        self.fail(err);
        if self.rest(after).await { Ok(()) } else { Err(End::Stopped) }
    }

    /// Waits before the next attempt: longer each time, and not as long as others that failed at the same moment. Gives
    /// false when it is told to stop.
    async fn rest(&self, after: Option<Duration>) -> bool {
        let doubled = self.parts.settings.retry_min.saturating_mul(1 << self.failures.saturating_sub(1).min(20));
        let most = doubled.min(self.parts.settings.retry_max);
        let wait = most.mul_f64(rand::random_range(0.5..1.0)).max(after.unwrap_or_default().min(RETRY_AFTER_MAX));
        tokio::select! {
            () = self.parts.stop.cancelled() => false,
            () = sleep(wait) => true,
        }
    }

    fn show(&self, state: &'static str) {
        self.parts.status.update(|shown| shown.state = state);
        self.show_position();
    }

    fn show_position(&self) {
        self.parts.status.update(|shown| {
            (shown.position, shown.rows) = (self.state.position, self.state.rows);
            (shown.dead, shown.lost) = (self.state.dead, self.state.lost);
        });
    }
}

async fn until_then(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|err| Err(Error::internal(err.to_string())))
}

#[cfg(test)]
mod tests;
