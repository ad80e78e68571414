//! Follows a query's result: first what it is, then what changes, for as long as somebody listens (`SUBSCRIBE`).
//!
//! Every group of changes brings the receiver to one instant, its `_offset`: whoever applies all rows up to an offset to
//! nothing has exactly the relation as it was then. [`rows`] follows the rows of a stream, [`results`] what is computed
//! from rollups; this file waits, paces them and says how far the receiver is.
//!
//! Nothing is queued: changes are looked for when the receiver has taken those before. So a slow one gets fewer and larger
//! groups, and the stream never waits for it. When what it follows goes away it is told by an error as its last item.

mod analysis;
mod held;
mod output;
mod results;
mod rows;
mod touched;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use tokio::sync::watch;
use tokio::time::Instant;

pub use analysis::Nature;
pub use rows::stream_of;
pub use touched::Touched;

use super::runner::{Runner, Tick};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use output::Output;
use results::Results;
use rows::Rows;

/// How often a subscription that waits looks whether what it follows is still there, and how often it tells that the
/// stream moved on without changing the result.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Between two groups a subscription rests this many times as long as it took to compute the last one, unless its options
/// say otherwise: many subscribers to a large result must not take the machine from ingestion.
pub const REST: u32 = 2;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the result as it is.
    Snapshot,
    /// With what changes from now on.
    Now,
    /// With what changed after this offset.
    After(u64),
    /// The same, for rows of a stream: with what is still kept of it, and when the stream gets there if it lies ahead.
    From(u64),
}

/// How a subscription is to be.
#[derive(Debug, Clone)]
pub struct Options {
    pub start: Start,
    /// Send rows that only tell the offset.
    pub progress: bool,
    /// Send the new row of a key instead of the old and the new one.
    pub upsert: bool,
    /// The columns that tell rows apart, if the user says so; else those that the query shows to do it.
    pub key: Option<Vec<usize>>,
    /// At least this long between two groups.
    pub every: Duration,
    /// Counts the offsets whose rows were dropped before they were sent: only for rows of a stream.
    pub missed: Arc<AtomicU64>,
    /// Rests this many times as long as it takes to compute a group.
    pub rest: Arc<AtomicU32>,
    /// Set to the version (that of all streams together) of which the receiver has everything: also what changes by time alone.
    pub reached: Arc<AtomicU64>,
}

/// Fails when what a subscription follows is gone.
pub type Guard = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// What to follow.
pub struct Request {
    /// The rows of one stream ([`stream_of`]), or a finish plan over slots that have their rollups.
    pub plan: Opaque<LogicalPlan>,
    /// The streams it reads.
    pub runners: HashMap<String, Arc<Runner>>,
    pub options: Options,
    pub guard: Guard,
    /// Kept until the subscription ends.
    pub keep: Option<Box<dyn Any + Send>>,
    pub context: Opaque<SessionContext>,
}

/// The columns of a subscription to a result with the columns `fields`.
pub fn schema(fields: &Schema, options: &Options) -> SchemaRef {
    output::schema(fields, options.progress)
}

/// Starts to follow; rows come as long as the stream is read.
pub async fn follow(request: Request) -> Result<SendableRecordBatchStream> {
    let Request { plan, runners, options, guard, keep, context } = request;
    let own = Arc::new(plan.schema().as_arrow().clone());
    let table = stream_of(&plan);
    let key = match (&options.key, &table) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(_)) => None,
        (None, None) => analysis::unique_key(&plan),
    };
    if options.upsert && key.is_none() {
        return Err(Error::new(Kind::NotSupported, "it is not known which columns tell the rows of this query apart")
            .with_hint("Name them: SUBSCRIBE … ENVELOPE UPSERT (KEY (column, …))."));
    }
    let output = Arc::new(Output::new(own, key, options.progress, options.upsert)?);
    let mut ticks: Vec<watch::Receiver<Tick>> = runners.values().map(|runner| runner.ticks()).collect();
    let (current, version) = stand(&mut ticks);
    let feed = match table {
        Some(table) => Feed::Rows(Rows::new(&plan, &table, &options, current, &context, Arc::clone(&output)).await?),
        None => Feed::Results(Box::new(Results::new(plan, runners, options.start, context, Arc::clone(&output))?)),
    };
    let schema = Arc::clone(&output.schema);
    let subscription = Box::new(Subscription {
        timely: matches!(&feed, Feed::Results(results) if results.depends_on_time()),
        feed,
        ticks,
        upto: current,
        guard,
        every: options.every,
        rest: options.rest,
        reached: options.reached,
        version,
        output,
        _keep: keep,
        ready: VecDeque::new(),
        working: true,
        changed: false,
        busy: Duration::ZERO,
        begun: Instant::now(),
        not_before: Instant::now(),
        stands: None,
        told: None,
    });
    let batches = futures::stream::unfold(Some(subscription), |subscription| async move {
        let mut subscription = subscription?;
        match subscription.next().await {
            Ok(batch) => Some((Ok(batch), Some(subscription))),
            Err(err) => Some((Err(err.into()), None)),
        }
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
}

/// What one look at the source gave.
struct Step {
    batches: Vec<RecordBatch>,
    /// With these batches the receiver has everything up to this offset.
    complete: Option<u64>,
    /// There is more to be had without waiting.
    more: bool,
}

/// A plan made ready to run. A function of its own for the reason that `opaque.rs` gives.
fn physical_plan<'a>(
    state: &'a Opaque<SessionState>,
    plan: &'a Opaque<LogicalPlan>,
) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
    async { Ok(state.create_physical_plan(plan).await?) }.boxed()
}

enum Feed {
    Rows(Rows),
    Results(Box<Results>),
}

struct Subscription {
    // fixed
    feed: Feed,
    /// Of all streams that are read.
    ticks: Vec<watch::Receiver<Tick>>,
    guard: Guard,
    every: Duration,
    rest: Arc<AtomicU32>,
    reached: Arc<AtomicU64>,
    output: Arc<Output>,
    /// Computed again now and then, also without a tick.
    timely: bool,
    _keep: Option<Box<dyn Any + Send>>,
    // state
    ready: VecDeque<RecordBatch>,
    /// A group is being made.
    working: bool,
    /// The group has rows.
    changed: bool,
    busy: Duration,
    begun: Instant,
    not_before: Instant,
    /// Where the streams stood when the group was begun.
    upto: u64,
    /// And at which version.
    version: u64,
    /// The offset that the receiver has reached.
    stands: Option<u64>,
    /// The last progress row: its offset and when it was sent.
    told: Option<(u64, Instant)>,
}

impl Subscription {
    async fn next(&mut self) -> Result<RecordBatch> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            if self.working {
                self.work().await?;
            } else {
                // Who asks for more has taken what there was.
                self.reached.store(self.version, Ordering::Release);
                self.wait().await?;
            }
        }
    }

    /// Does one step of a group.
    async fn work(&mut self) -> Result<()> {
        (self.guard)()?;
        let begun = Instant::now();
        let step = match &mut self.feed {
            Feed::Rows(rows) => rows.step(self.upto).await,
            Feed::Results(results) => results.step(self.upto).await,
        };
        let step = match step {
            Ok(step) => step,
            Err(err) => {
                // A dropped stream shows in many ways; this is the reason for them.
                (self.guard)()?;
                return Err(err);
            }
        };
        self.busy += begun.elapsed();
        self.changed |= !step.batches.is_empty();
        self.ready.extend(step.batches);
        if let Some(offset) = step.complete {
            let first = self.stands.is_none();
            self.stands = Some(offset);
            if self.changed || first {
                self.tell()?;
            }
            self.changed = false;
        }
        if !step.more {
            self.working = false;
            self.not_before = self.begun + self.every.max(self.busy.saturating_mul(self.rest.load(Ordering::Relaxed)));
        }
        Ok(())
    }

    /// Sends a progress row, if they are wanted.
    fn tell(&mut self) -> Result<()> {
        if let Some(offset) = self.stands {
            self.told = Some((offset, Instant::now()));
            self.ready.extend(self.output.progress(offset)?);
        }
        Ok(())
    }

    /// When to tell that the stream moved on while nothing changed.
    fn telling_due(&self) -> Option<Instant> {
        let (offset, at) = self.told?;
        (self.stands != Some(offset)).then_some(at + HEARTBEAT)
    }

    /// Returns when there is something to do.
    async fn wait(&mut self) -> Result<()> {
        loop {
            let telling = self.telling_due();
            let telling = async {
                match telling {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let resting = Instant::now() < self.not_before;
            tokio::select! {
                biased;
                () = telling => return self.tell(),
                () = tokio::time::sleep_until(self.not_before), if resting => {}
                () = any_change(&mut self.ticks), if !resting => return self.begin(),
                () = tokio::time::sleep(HEARTBEAT) => {
                    (self.guard)()?;
                    if self.timely && !resting {
                        return self.begin();
                    }
                }
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        (self.upto, self.version) = stand(&mut self.ticks);
        self.working = true;
        self.busy = Duration::ZERO;
        self.begun = Instant::now();
        Ok(())
    }
}

/// Offset and version of all streams together.
fn stand(ticks: &mut [watch::Receiver<Tick>]) -> (u64, u64) {
    ticks.iter_mut().fold((0, 0), |(offset, version), ticks| {
        let tick = *ticks.borrow_and_update();
        (offset + tick.offset, version + tick.version)
    })
}

/// Returns when one of the streams has changed.
async fn any_change(ticks: &mut [watch::Receiver<Tick>]) {
    let changes = ticks.iter_mut().map(|ticks| {
        let change = async {
            // A stream whose end is gone changes no more; the guard tells why.
            if ticks.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        change.boxed()
    });
    select_all(changes).await;
}
