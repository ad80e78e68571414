//! Who waits for a block to be durable, and the stage that tells them.
//!
//! Receives from the log stage what each record's sender is owed, in the order of the log; waits until the record is as safe
//! as the stream's `wal_sync` makes it; then a source's position goes back to its driver, and whoever pushed gets an answer.
//! What is dropped on the way (the stream stops, the disk is full) counts as not taken.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use super::drive::Control;
use super::push::Pushed;
use crate::error::Result;
use crate::position::Position;
use crate::storage::wal::Wal;

/// Blocks of a stream that wait for the log to be synced. Beyond it, the log stage waits for that too.
pub const WAITING: usize = 1024;

/// Something that is owed when the frames before `end` are synced.
pub struct Owed {
    pub end: u64,
    pub to: Creditor,
}

/// Whom it is owed.
pub enum Creditor {
    Source(Receipt),
    Push(Reply),
}

/// Tells `owed` as the log is synced, until the log stage ends.
pub fn run(wal: &Wal, owed: &Receiver<Owed>) {
    for Owed { end, to } in owed {
        // A failed sync meets the log stage at its next append; sources read again what they have no receipt for.
        match (wal.wait_synced(end), to) {
            (Ok(()), Creditor::Source(receipt)) => receipt.synced(),
            (Err(_), Creditor::Source(receipt)) => drop(receipt),
            (Ok(()), Creditor::Push(reply)) => reply.taken(),
            (Err(err), Creditor::Push(reply)) => reply.answer(Err(err)),
        }
    }
}

/// A block of a source that wants acknowledgements. Its driver has one such block less when this is dropped.
pub struct Receipt {
    driver: Arc<Control>,
    position: Option<Position>,
}

impl Receipt {
    pub fn new(driver: &Arc<Control>, position: Position) -> Receipt {
        Receipt { driver: Arc::clone(driver), position: Some(position) }
    }

    fn synced(mut self) {
        if let Some(position) = self.position.take() {
            self.driver.acknowledged(position);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.position.take().is_some() {
            self.driver.given_up();
        }
    }
}

/// The answer to whoever pushed.
pub struct Reply {
    answer: oneshot::Sender<Result<Pushed>>,
    pushed: Pushed,
}

impl Reply {
    pub fn new(answer: oneshot::Sender<Result<Pushed>>) -> Reply {
        Reply { answer, pushed: Pushed { offsets: 0..0, repeated: false } }
    }

    /// What there will be to say.
    pub fn with(self, offsets: Range<u64>, repeated: bool) -> Reply {
        Reply { pushed: Pushed { offsets, repeated }, ..self }
    }

    fn taken(self) {
        let pushed = self.pushed.clone();
        self.answer(Ok(pushed));
    }

    /// Whoever waited may have gone away; then nobody needs to know.
    pub fn answer(self, answer: Result<Pushed>) {
        let _ = self.answer.send(answer);
    }
}
