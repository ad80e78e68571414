//! Messages of an Apache Kafka topic: a row each, or of a view the new row of a key and a tombstone for one that is gone.
//!
//! Exactly once: a batch is a transaction, in which the position goes to Kafka as well, as what a consumer group has
//! committed. Nobody is in that group; its name is the transactional id, which is the sink's own and stays the same:
//!
//! ```text
//!     begin ─► messages ─► position, as the offset of the group on the topic's first partition ─► commit
//! ```
//!
//! So a consumer that reads committed messages finds every row once whatever is killed when. A producer that opens shuts
//! out the one before it and waits until its last transaction is decided; the position that the group has then is what all
//! messages of the topic add up to. Brokers forget groups that are silent for `offsets.retention.minutes`, a week unless set
//! otherwise; then what the driver has noted counts.
//!
//! With `delivery = 'at_least_once'` there are no transactions, only the order and the retries of an idempotent producer.
//!
//! The whole result of a view comes again after a restart. Then the topic is read first, and only messages that it does not
//! have are sent; keys that it has and the view has not get a tombstone. What is kept of the topic meanwhile, its keys and
//! a hash of each row, is as much as the view's rows that its subscription holds.
//!
//! What a broker refuses ends the whole transaction, also for messages that came before. So sizes and times are compared
//! with the topic's limits before anything is sent, and a row that is too large becomes a dead letter without harm.
//!
//! [`settings`] are the options, [`messages`] what becomes of rows, [`topic`] what is asked of the topic, [`link`] the
//! producer with its transactions. All that blocks runs on threads for that; nobody waits for a thread whose caller is gone.

mod link;
mod messages;
mod settings;
#[cfg(test)]
mod tests;
mod topic;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::encode::Encoding;
use super::{Batch, Delivered, Failure, Feed, Position, Sink, Spec};
use crate::error::{Error, Kind, Result};
use crate::options::Options;
use link::Link;
use settings::Settings;

pub static SPEC: Spec = Spec {
    name: "kafka",
    summary: "messages of an Apache Kafka topic, in transactions; of a view by key, with tombstones for keys that are gone",
    options: settings::OPTIONS,
    formats: &["json", "csv"],
    guarantee: "exactly once for consumers with isolation.level = read_committed; at least once with delivery = 'at_least_once'",
    upserts: true,
    repeats: false,
    keeps_position: true,
    writes_into: None,
    build,
};

fn build(options: &Options, encoding: Encoding) -> Result<Box<dyn Sink>> {
    let settings = Arc::new(Settings::from(options, encoding)?);
    Ok(Box::new(Kafka { settings, link: Mutex::default(), holds: false, used: Instant::now() }))
}

struct Kafka {
    // fixed
    settings: Arc<Settings>,
    // state
    /// None is there before the first opening, after a failure, and while a thread uses it. Never locked: a sink has to be
    /// one that threads can share, which a link is not.
    link: Mutex<Option<Link>>,
    /// Parts of a change were delivered, and the rest is to follow.
    holds: bool,
    /// When the link was used last.
    used: Instant,
}

/// A link that is not used is looked after this often: librdkafka's events and logs pile up otherwise.
const CARE: Duration = Duration::from_secs(10);

/// Tells a thread that its caller is gone.
type Caller = CancellationToken;

/// What a thread ends with when its caller is gone.
fn gone() -> Failure {
    Error::new(Kind::Canceled, "nobody waits for it any more").into()
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce(&Caller) -> Delivered<T> + Send + 'static) -> Delivered<T> {
    let caller = Caller::new();
    let _here = caller.clone().drop_guard();
    let done = tokio::task::spawn_blocking(move || work(&caller)).await;
    done.unwrap_or_else(|err| Err(Error::internal(err.to_string()).into()))
}

impl Kafka {
    async fn begin(&mut self, feed: &Feed, known: Position) -> Delivered<Position> {
        let before = self.link.get_mut().take();
        self.holds = false;
        let (settings, feed) = (Arc::clone(&self.settings), feed.clone());
        let (link, position) = blocking(move |caller| {
            drop(before);
            Link::open(settings, feed, known, caller)
        })
        .await?;
        *self.link.get_mut() = Some(link);
        self.used = Instant::now();
        Ok(position)
    }

    async fn take(&mut self, batch: &Batch) -> Delivered<Option<Position>> {
        let Some(mut link) = self.link.get_mut().take() else {
            return Err(Error::new(Kind::Io, "there is no connection to Kafka").into());
        };
        self.holds = false;
        let batch = batch.clone();
        let (link, taken) = blocking(move |caller| {
            let taken = link.take(&batch, caller);
            // What is left of the transaction goes with its producer.
            let link = if matches!(taken, Err(Failure::Again(..))) { None } else { Some(link) };
            Ok((link, taken))
        })
        .await?;
        self.holds = link.as_ref().is_some_and(Link::is_inside);
        *self.link.get_mut() = link;
        self.used = Instant::now();
        taken
    }

    /// Takes back what has no end yet: consumers wait behind a transaction that is open.
    async fn end(&mut self) -> Delivered<Option<Position>> {
        self.used = Instant::now();
        if !std::mem::take(&mut self.holds) {
            if let Some(link) = self.link.get_mut() {
                link.look_after();
            }
            return Ok(None);
        }
        let link = self.link.get_mut().take();
        blocking(move |_| {
            drop(link);
            Ok(None)
        })
        .await
    }
}

impl Sink for Kafka {
    fn open<'a>(&'a mut self, feed: &'a Feed, known: Position) -> BoxFuture<'a, Delivered<Position>> {
        Box::pin(self.begin(feed, known))
    }

    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Delivered<Option<Position>>> {
        Box::pin(self.take(batch))
    }

    fn holds(&self) -> bool {
        self.holds
    }

    fn due(&self) -> Option<Instant> {
        (!self.holds).then(|| self.used + CARE)
    }

    fn finish(&mut self) -> BoxFuture<'_, Delivered<Option<Position>>> {
        Box::pin(self.end())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // It waits for librdkafka's threads.
        if let Some(link) = self.link.get_mut().take() {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || drop(link))),
                Err(_) => drop(link),
            }
        }
    }
}
