//! Running queries, within limits. Each query has a memory pool of its own over that of all queries ([`QueryPool`]): what
//! does not fit spills, and what cannot spill is an error, while others go on. As many queries compute at one time as may
//! ([`Gate`]); the others wait in the order of their coming.
//!
//! A query takes a place while somebody waits for its next rows, and gives it back with them. So one that rests, because
//! its client is slow or left a cursor open, keeps nobody from running; it goes on when it has a place again. What reads
//! the server's own state only does not wait.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::Engine;
use crate::backend::Backend;
use crate::catalog::system::SystemTable;
use crate::error::Result;
use crate::rollup::plan::provider_of;

impl Engine {
    /// Plans and starts a query (already with its parameters); rows come as they are made.
    pub async fn run(&self, plan: LogicalPlan) -> Result<SendableRecordBatchStream> {
        self.run_for(plan, None).await
    }

    /// The same for a client, who is told that it waits, and how much memory it takes.
    pub async fn run_for(&self, plan: LogicalPlan, backend: Option<Arc<Backend>>) -> Result<SendableRecordBatchStream> {
        let free = is_free(&plan)?;
        let plan = self.pin(plan)?;
        let state = self.context.state();
        let physical = state.create_physical_plan(&plan).await?;
        self.run_physical(physical, &state, backend, free)
    }

    /// Starts a planned query, within its limits. One that is `free` does not wait for its turn.
    pub fn run_physical(
        &self,
        physical: Arc<dyn ExecutionPlan>,
        state: &SessionState,
        backend: Option<Arc<Backend>>,
        free: bool,
    ) -> Result<SendableRecordBatchStream> {
        let pool = QueryPool {
            shared: Arc::clone(&state.runtime_env().memory_pool),
            limit: usize::try_from(self.config.memory_per_query).unwrap_or(usize::MAX),
            used: AtomicUsize::new(0),
            client: backend.as_ref().map(|backend| Arc::clone(&backend.memory)).unwrap_or_default(),
            exchanged: AtomicUsize::new(0),
        };
        let runtime = RuntimeEnv { memory_pool: Arc::new(pool), ..RuntimeEnv::clone(state.runtime_env()) };
        // The functions are in the plan: a copy of all that there are would cost more than a small query.
        let (id, config) = (state.session_id().to_string(), state.config().clone());
        let none = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let context = TaskContext::new(None, id, config, none.0, none.1, none.2, none.3, Arc::new(runtime));
        let rows = execute_stream(physical, Arc::new(context))?;
        if free {
            return Ok(rows);
        }
        let places = PollSemaphore::new(self.places.semaphore());
        Ok(Box::pin(Gate { rows, places, place: None, backend }))
    }
}

/// Whether a query reads nothing but the server's own state. It need not wait: else nobody could see which queries take all
/// places, and end them.
fn is_free(plan: &LogicalPlan) -> DfResult<bool> {
    let mut free = true;
    plan.apply_with_subqueries(|node| {
        free = match node {
            LogicalPlan::TableScan(scan) => {
                let schema = scan.table_name.schema().unwrap_or_default();
                ["logweir", "pg_catalog", "information_schema"].contains(&schema)
                    || provider_of::<SystemTable>(scan).is_some()
            }
            // These can make any number of rows by themselves.
            LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_) | LogicalPlan::Extension(_) => false,
            _ => true,
        };
        Ok(if free { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(free)
}

/// The memory of one query.
struct QueryPool {
    // Fixed.
    /// Of all queries.
    shared: Arc<dyn MemoryPool>,
    /// Bytes.
    limit: usize,
    // State, in bytes.
    used: AtomicUsize,
    /// What all queries of its client use.
    client: Arc<AtomicUsize>,
    /// What is on its way between partitions: see [`is_exchange`].
    exchanged: AtomicUsize,
}

/// Whether it is for rows on their way between partitions. They have a limit of their own, as large as the query's: they
/// are mostly few, and where memory is refused to them they go to disk in a way that can stand still for ever when two
/// partitions do so at one time (apache/datafusion#24883; in 55).
fn is_exchange(reservation: &MemoryReservation) -> bool {
    reservation.consumer().name().starts_with("RepartitionExec[") && !reservation.consumer().name().contains("Merge")
}

impl fmt::Debug for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} of {})", self.name(), self.reserved(), self.limit)
    }
}

impl QueryPool {
    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.client.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.client.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if is_exchange(reservation) {
            self.exchanged.fetch_add(additional, Ordering::Relaxed);
            return;
        }
        self.shared.grow(reservation, additional);
        self.add(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if is_exchange(reservation) {
            self.exchanged.fetch_sub(shrink, Ordering::Relaxed);
            return;
        }
        self.shared.shrink(reservation, shrink);
        self.take(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        if is_exchange(reservation) {
            if self.exchanged.fetch_add(additional, Ordering::Relaxed) + additional <= self.limit {
                return Ok(());
            }
            self.exchanged.fetch_sub(additional, Ordering::Relaxed);
            return Err(DataFusionError::ResourcesExhausted("what is between partitions goes to disk".to_string()));
        }
        self.add(additional);
        let used = self.used.load(Ordering::Relaxed);
        let grown = match used > self.limit {
            // Of this kind, so that operators that can spill do so.
            true => Err(DataFusionError::ResourcesExhausted(format!(
                "the query needs more than the {} of memory that one may take: {} could not have {} more",
                human_readable_size(self.limit),
                reservation.consumer().name(),
                human_readable_size(additional),
            ))),
            false => self.shared.try_grow(reservation, additional),
        };
        grown.inspect_err(|_| self.take(additional))
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

/// The rows of a query that has a place while they are made.
struct Gate {
    rows: SendableRecordBatchStream,
    places: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
    backend: Option<Arc<Backend>>,
}

impl Gate {
    fn waits(&self, waits: bool) {
        if let Some(backend) = &self.backend {
            backend.wait_for_turn(waits);
        }
    }
}

impl Stream for Gate {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.place.is_none() {
            match self.places.poll_acquire(cx) {
                Poll::Ready(place) => self.place = place,
                Poll::Pending => {
                    self.waits(true);
                    return Poll::Pending;
                }
            }
            self.waits(false);
        }
        let item = ready!(self.rows.as_mut().poll_next(cx));
        self.place = None;
        Poll::Ready(item)
    }
}

impl RecordBatchStream for Gate {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}

/// Places for as many queries as may compute at one time.
pub(super) struct Places {
    semaphore: Arc<Semaphore>,
    count: Mutex<usize>,
}

impl Places {
    pub fn new(queries: usize) -> Places {
        let count = queries.clamp(1, Semaphore::MAX_PERMITS);
        Places { semaphore: Arc::new(Semaphore::new(count)), count: Mutex::new(count) }
    }

    fn semaphore(&self) -> Arc<Semaphore> {
        Arc::clone(&self.semaphore)
    }

    pub fn count(&self) -> usize {
        *self.count.lock()
    }

    /// How many compute now.
    pub fn taken(&self) -> usize {
        self.count.lock().saturating_sub(self.semaphore.available_permits())
    }

    /// Another number of places. Fewer of them as soon as queries give theirs back.
    pub fn resize(&self, queries: usize) {
        let queries = queries.clamp(1, Semaphore::MAX_PERMITS);
        let before = std::mem::replace(&mut *self.count.lock(), queries);
        match u32::try_from(before.saturating_sub(queries)) {
            Ok(0) => self.semaphore.add_permits(queries.saturating_sub(before)),
            fewer => {
                let taking = self.semaphore().acquire_many_owned(fewer.unwrap_or(u32::MAX));
                tokio::spawn(async move {
                    if let Ok(places) = taking.await {
                        places.forget();
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn pool(shared: &Arc<dyn MemoryPool>, limit: usize, client: &Arc<AtomicUsize>) -> Arc<dyn MemoryPool> {
        let (shared, client) = (Arc::clone(shared), Arc::clone(client));
        Arc::new(QueryPool { shared, limit, used: AtomicUsize::new(0), client, exchanged: AtomicUsize::new(0) })
    }

    #[test]
    fn one_query_has_a_limit_and_all_have_one() {
        let shared: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let client = Arc::default();
        let (one, two) = (pool(&shared, 600, &client), pool(&shared, 600, &client));
        let reservation = MemoryConsumer::new("join").register(&one);
        reservation.try_grow(500).unwrap();
        let err = reservation.try_grow(101).unwrap_err().to_string();
        assert!(err.contains("600.0 B") && err.contains("join could not have 101.0 B more"), "{err}");
        assert_eq!((one.reserved(), shared.reserved(), client.load(Ordering::Relaxed)), (500, 500, 500));

        let other = MemoryConsumer::new("sort").register(&two);
        assert!(other.try_grow(501).is_err(), "both have no room together");
        assert_eq!(client.load(Ordering::Relaxed), 500);
        other.try_grow(500).unwrap();
        assert_eq!(client.load(Ordering::Relaxed), 1000);
        drop((reservation, other));
        assert_eq!((one.reserved(), two.reserved(), shared.reserved(), client.load(Ordering::Relaxed)), (0, 0, 0, 0));
    }

    /// A query of two batches; the second one never comes.
    fn query(places: &Arc<Semaphore>) -> Gate {
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::new_empty(Arc::clone(&schema));
        let rows = futures::stream::iter([Ok(batch)]).chain(futures::stream::pending());
        let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
        Gate { rows, places: PollSemaphore::new(Arc::clone(places)), place: None, backend: None }
    }

    #[tokio::test]
    async fn places_become_more_and_fewer() {
        let places = Places::new(2);
        let one = places.semaphore().acquire_owned().await.unwrap();
        places.resize(3);
        assert_eq!((places.taken(), places.semaphore.available_permits()), (1, 2));
        places.resize(1);
        while places.semaphore.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        drop(one);
        places.resize(2);
        while places.semaphore.available_permits() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_query_has_a_place_while_its_rows_are_made() {
        let places = Places::new(1).semaphore();
        let (mut one, mut two) = (query(&places), query(&places));
        assert!(one.next().now_or_never().is_some());
        assert!(two.next().now_or_never().is_some(), "the first one rests");
        assert!(one.next().now_or_never().is_none(), "it computes");
        assert!(two.next().now_or_never().is_none(), "it waits");
        assert_eq!((one.place.is_some(), two.place.is_some()), (true, false));
        drop(one);
        assert!(two.next().now_or_never().is_none());
        assert!(two.place.is_some());
    }
}
