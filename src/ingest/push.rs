//! Frames that somebody hands in and waits for: HTTP, INSERT, COPY.
//!
//! One push is one record of the log: it is in the stream in whole or not at all. Its future resolves when the record is as
//! safe as the stream's `wal_sync` makes it, with the offsets that its frames have. Pushed again under the same idempotency
//! key, however long after (`idempotency_keys`, `idempotency_window`), it adds nothing and gives the same offsets; so whoever
//! got no answer may push again.
//!
//! Nothing here blocks the runtime: place in the queue of the stream is waited for in turn with its sources.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::acknowledge::Reply;
use super::{Block, Ingest, Item, stopped};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::storage::keys::MAX_KEY;

/// The unit in which room for pushed frames is given, in bytes. Each push takes one at least, which bounds their number.
const ROOM_UNIT: u64 = 1024;

/// One batch is never larger: a record of the log has a bound of its own, beyond this.
const MOST_BYTES: u64 = 512 << 20;

/// Longest name of a partition.
const MAX_PARTITION: usize = 1024;

/// How often it is looked whether rows that somebody waits for will never come.
const LOOK: Duration = Duration::from_millis(200);

/// What is pushed.
#[derive(Debug, Clone)]
pub struct Push {
    /// The id of the source whose it is; for what is pushed to the stream itself, [`HTTP`](crate::storage::stream_log::HTTP)
    /// for lines in its format, [`INSERTS`](crate::storage::stream_log::INSERTS) for rows of statements.
    pub source: u32,
    /// Whose event time it tells, such as `http`: one name for all that come the same way, as names are remembered.
    pub partition: String,
    pub frames: Frames,
    /// Under this key it counts once.
    pub key: Option<String>,
    /// How long to wait for a place in the queue before it is `Busy`; `None`: as long as it takes.
    pub patience: Option<Duration>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Offsets of its frames in the stream. [`Ingest::visible`] waits for them.
    pub offsets: Range<u64>,
    /// It was in the stream already.
    pub repeated: bool,
}

/// A push on its way to the log.
pub struct Batch {
    pub source: u32,
    pub partition: String,
    pub key: Option<String>,
    pub frames: Frames,
    pub reply: Reply,
    /// Free again when it is logged.
    pub room: OwnedSemaphorePermit,
}

/// Room for frames that were pushed and are not logged yet.
pub struct Room {
    bytes: u64,
    units: Arc<Semaphore>,
}

impl Room {
    pub fn new(bytes: u64) -> Room {
        let bytes = bytes.min(MOST_BYTES);
        Room { bytes, units: Arc::new(Semaphore::new(units(bytes) as usize)) }
    }

    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.units).acquire_many_owned(units(bytes)).await.map_err(|_| stopped())
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(ROOM_UNIT).max(1)).expect("bytes are at most MOST_BYTES")
}

impl Ingest {
    /// Puts frames into the stream; see the file header. Dropped before it is done, they may be in the stream or not.
    pub async fn push(&self, push: Push) -> Result<Pushed> {
        let Push { source, partition, frames, key, patience } = push;
        let bytes = frames.bytes.len() as u64;
        if let Some(err) = self.failure().or_else(|| self.paused()) {
            return Err(err);
        }
        if bytes > self.room.bytes {
            let message = format!("{bytes} bytes at once are more than push_bytes allows ({})", self.room.bytes);
            return Err(Error::new(Kind::ResourceLimit, message).with_hint("Send them in several pieces."));
        }
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
            let message = format!("an idempotency key has 1 to {MAX_KEY} bytes");
            return Err(Error::new(Kind::InvalidParameter, message));
        }
        if partition.len() > MAX_PARTITION {
            return Err(Error::new(Kind::InvalidParameter, "the name of the partition is too long"));
        }
        if frames.is_empty() {
            let next = self.runner.log.wal().next_offset();
            return Ok(Pushed { offsets: next..next, repeated: false });
        }
        if let (Some(patience), Some(debt)) = (patience, self.space.rate.debt())
            && debt > patience
        {
            return Err(self.too_fast());
        }
        let count = frames.len() as u64;
        let inlet = self.inlet.lock().clone().ok_or_else(stopped)?;
        let taken = async {
            let room = self.room.take(bytes).await?;
            let place = inlet.place().await.map_err(|_| self.why_stopped())?;
            Ok((room, place))
        };
        let (room, place) = match patience {
            None => taken.await?,
            Some(patience) => tokio::time::timeout(patience, taken).await.unwrap_or_else(|_| Err(self.busy()))?,
        };
        let (answer, answered) = oneshot::channel();
        let batch = Batch { source, partition, key, frames, reply: Reply::new(answer), room };
        inlet.put(Item::Work(Block::Pushed(batch)), place).map_err(|_| self.why_stopped())?;
        // The stages end when nobody can hand anything in any more.
        drop(inlet);
        let pushed = answered.await.map_err(|_| self.why_stopped())??;
        if !pushed.repeated {
            self.count_pushed(source, count, bytes);
        }
        Ok(pushed)
    }

    fn busy(&self) -> Error {
        if self.space.rate.debt().is_some() {
            return self.too_fast();
        }
        Error::new(Kind::Busy, format!("stream \"{}\" takes in frames more slowly than they come", self.stream))
            .with_hint("Try again a little later.")
    }

    fn too_fast(&self) -> Error {
        let limit = self.space.rate.limit().unwrap_or(0);
        Error::new(
            Kind::Busy,
            format!("more comes than the ingest_rate of the database allows ({limit} bytes each second)"),
        )
        .with_hint("Try again a little later.")
    }

    /// Waits until the frames before this offset are visible in the stream and all of its views.
    pub async fn visible(&self, offset: u64) -> Result<()> {
        let mut ticks = self.runner.ticks();
        loop {
            if ticks.borrow_and_update().offset >= offset {
                return Ok(());
            }
            if let Some(err) = self.failure() {
                return Err(err);
            }
            // A stream that stops or fails changes nothing any more.
            match tokio::time::timeout(LOOK, ticks.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.why_stopped()),
                Err(_) if self.inlet.lock().is_none() => return Err(self.why_stopped()),
                Err(_) => {}
            }
        }
    }
}
