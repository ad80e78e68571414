//! Where work runs. Sockets and timers live on the I/O runtime; parsing, rollups, planning and queries run on the
//! compute pool, so that a long query never delays the acknowledgement of a line or the answer to a health check.
//!
//! Always true: work handed over here ends when the handle (a `Task` or a relayed stream) is dropped, and what it
//! produced but nobody took yet is at most `RELAY_DEPTH` items. A panic on the pool comes back as an error.
//!
//! Dropped work ends where it waits for something. What computes for long without waiting, such as the parser, asks now
//! and then whether somebody still wants its result: [`go_on`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};

/// Items (record batches, encoded results) between a producer on the pool and its consumer. One is being taken and
/// one is ready; more would only hold memory for slow clients.
const RELAY_DEPTH: usize = 2;

tokio::task_local! {
    /// Whether nobody waits any more for the task that runs.
    static ABANDONED: Arc<AtomicBool>;
}

/// Fails when the task that runs was dropped meanwhile: the error only ends the work, as nobody is there to be told.
/// Outside of tasks it never fails.
pub fn go_on() -> Result<()> {
    match ABANDONED.try_with(|abandoned| abandoned.load(Ordering::Relaxed)) {
        Ok(true) => Err(Error::new(Kind::Canceled, "nobody waits for the result any more")),
        Ok(false) | Err(_) => Ok(()),
    }
}

/// Bytes of a thread's stack: planning goes down it with every step of a statement's tree, which are bounded for this
/// (`sql::parser`). What is not used takes no memory.
pub const STACK: usize = 32 << 20;

/// A pool of threads for work that uses the processor. Cheap to clone; the pool ends with its last clone, without
/// waiting for what still runs.
#[derive(Clone)]
pub struct Compute(Arc<Pool>);

struct Pool(Option<Runtime>);

impl Drop for Pool {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is forbidden inside another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Compute {
    /// A pool with one worker per core.
    pub fn new() -> Result<Compute> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Compute::with_workers(cores)
    }

    /// A pool with `workers` threads, at least one.
    pub fn with_workers(workers: usize) -> Result<Compute> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers.max(1))
            .thread_name("logweir-compute")
            .thread_stack_size(STACK)
            .enable_all()
            .build()
            .map_err(|err| Error::new(Kind::Io, format!("could not start the compute pool: {err}")))?;
        Ok(Compute(Arc::new(Pool(Some(runtime)))))
    }

    fn handle(&self) -> &Handle {
        self.0.0.as_ref().expect("the runtime is taken only by drop").handle()
    }

    /// Runs `work` on the pool. Dropping the returned handle stops it at its next await point, or where it asks
    /// [`go_on`].
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let abandoned = Arc::new(AtomicBool::new(false));
        let work = ABANDONED.scope(Arc::clone(&abandoned), work);
        Task { work: self.handle().spawn(work), abandoned }
    }

    /// Polls `input` on the pool and hands its items over, never more than `RELAY_DEPTH` ahead of the consumer.
    /// Dropping the returned stream drops `input`. If `input` panics, `failed` makes the last item.
    pub fn relay<T, S, F>(&self, input: S, failed: F) -> impl Stream<Item = T> + Send + use<T, S, F>
    where
        T: Send + 'static,
        S: Stream<Item = T> + Send + 'static,
        F: Fn(Error) -> T + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(RELAY_DEPTH);
        let task = self.spawn(async move {
            let mut input = std::pin::pin!(input);
            while let Some(item) = input.next().await {
                if sender.send(item).await.is_err() {
                    break;
                }
            }
        });
        futures::stream::unfold((receiver, Some(task), failed), |(mut receiver, task, failed)| async move {
            if let Some(item) = receiver.recv().await {
                return Some((item, (receiver, task, failed)));
            }
            // A closed channel means the end, unless the producer died before it could say so.
            let err = task?.await.err()?;
            let item = failed(err);
            Some((item, (receiver, None, failed)))
        })
    }

    /// `relay` for results of queries.
    pub fn stream(&self, input: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let schema = input.schema();
        Box::pin(RecordBatchStreamAdapter::new(schema, self.relay(input, |err| Err(err.into()))))
    }
}

/// Work on the pool: a future of its result. Stops the work when dropped.
pub struct Task<T> {
    work: JoinHandle<T>,
    abandoned: Arc<AtomicBool>,
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.work).poll(cx).map_err(|err| {
            let what = match err.try_into_panic() {
                Ok(panic) => match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
                    (Some(text), _) => text.to_string(),
                    (_, Some(text)) => text.clone(),
                    (None, None) => "panic".to_string(),
                },
                Err(_) => return Error::new(Kind::Canceled, "the work was stopped"),
            };
            Error::internal(format!("a task failed: {what}")).with_hint("This is a bug. Please report it.")
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.work.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_slow_consumer_holds_the_producer_back() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let input = futures::stream::iter(0..1000).inspect(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let compute = Compute::with_workers(1).unwrap();
        let mut out = std::pin::pin!(compute.relay(input, |_| -1));
        for expected in 0..10 {
            assert_eq!(out.next().await, Some(expected));
            // Taken so far, plus the channel, plus the one waiting to be sent.
            assert!(made.load(Ordering::SeqCst) <= expected as usize + 1 + RELAY_DEPTH + 1);
        }
        let rest: Vec<i32> = out.collect().await;
        assert_eq!(rest.len(), 990);
    }

    #[tokio::test]
    async fn dropping_the_stream_drops_its_input() {
        struct Bell(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Bell {
            fn drop(&mut self) {
                let _ = self.0.take().expect("dropped once").send(());
            }
        }
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let bell = Bell(Some(sender));
        let input = futures::stream::pending::<i32>().map(move |item| {
            let _ = &bell;
            item
        });
        let compute = Compute::with_workers(1).unwrap();
        drop(compute.relay(input, |_| -1));
        dropped.await.expect("the input is dropped");
    }

    #[tokio::test]
    async fn dropped_work_that_never_waits_is_told_and_its_thread_is_free() {
        let compute = Compute::with_workers(1).unwrap();
        let (sender, begun) = tokio::sync::oneshot::channel();
        let busy = compute.spawn(async move {
            sender.send(()).expect("somebody waits");
            while go_on().is_ok() {
                std::hint::spin_loop();
            }
        });
        begun.await.unwrap();
        drop(busy);
        assert!(compute.spawn(async { go_on() }).await.unwrap().is_ok(), "the next one is not abandoned");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_an_early_end() {
        let compute = Compute::with_workers(1).unwrap();
        let err = compute.spawn(async { panic!("boom") }).await.unwrap_err();
        assert_eq!(err.message(), "a task failed: boom");

        let input = futures::stream::iter(0..3).map(|n| if n == 2 { panic!("third") } else { Ok(n) });
        let items: Vec<Result<i32>> = compute.relay(input, Err).collect().await;
        assert_eq!(items.len(), 3);
        assert!(items[2].is_err());
    }
}
