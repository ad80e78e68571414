//! Where an evaluator that runs is told that alerts come and go, and is asked to acknowledge.
//!
//! Nothing waits here for long: what is put here is taken between two steps, and nobody who puts something waits for what the
//! evaluator does meanwhile, but those who have an alert go. Once the evaluator has ended, what is put here is dropped, which
//! tells whoever waits for an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::watch::Watch;

/// What somebody asks of the instances of an alert.
pub struct Acknowledgement {
    pub alert: u32,
    pub matching: Vec<(String, String)>,
    /// Told how many there were.
    pub done: oneshot::Sender<u64>,
}

/// Where others put what they ask of an evaluator that runs.
pub struct Desk {
    /// `None` once nobody looks any more.
    orders: Mutex<Option<Orders>>,
    bell: Notify,
}

#[derive(Default)]
struct Orders {
    /// Alerts that come, and since when the first of them waits.
    come: Vec<Watch>,
    since: Option<Instant>,
    /// Alerts that go; whoever waits is told by the end of the channel.
    go: Vec<(u32, oneshot::Sender<()>)>,
    letters: Vec<Acknowledgement>,
    /// There are letters that were not looked at.
    unread: bool,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk { orders: Mutex::new(Some(Orders::default())), bell: Notify::new() }
    }
}

impl Desk {
    /// Alerts are evaluated too, from where they stand on.
    pub fn admit(&self, watches: Vec<Watch>) {
        self.put(|orders| {
            orders.come.extend(watches);
            orders.since.get_or_insert_with(Instant::now);
        });
    }

    /// An alert is no longer evaluated. Nothing is recorded of it any more when the receiver gets a message or ends.
    pub fn dismiss(&self, alert: u32) -> oneshot::Receiver<()> {
        let (gone, told) = oneshot::channel();
        self.put(|orders| orders.go.push((alert, gone)));
        told
    }

    pub fn acknowledge(&self, letter: Acknowledgement) {
        self.put(|orders| {
            // Of those who no longer wait nobody wants to know.
            orders.letters.retain(|letter| !letter.done.is_closed());
            orders.letters.push(letter);
            orders.unread = true;
        });
    }

    fn put(&self, put: impl FnOnce(&mut Orders)) {
        if let Some(orders) = self.orders.lock().as_mut() {
            put(orders);
        }
        self.bell.notify_one();
    }

    /// Those that come, once they have waited.
    pub fn come(&self) -> Vec<Watch> {
        self.look(|orders| {
            orders.since = None;
            std::mem::take(&mut orders.come)
        })
    }

    /// Those that go, also of those that come, and who is to be told.
    pub fn gone(&self) -> Vec<(u32, oneshot::Sender<()>)> {
        self.look(|orders| {
            let gone = std::mem::take(&mut orders.go);
            orders.come.retain(|watch| gone.iter().all(|(alert, _)| *alert != watch.id));
            gone
        })
    }

    /// Letters to these alerts. Those to one that is about to come wait for it.
    pub fn letters(&self, to: &BTreeSet<u32>) -> Vec<Acknowledgement> {
        self.look(|orders| {
            orders.unread = false;
            orders.letters.extract_if(.., |letter| to.contains(&letter.alert)).collect()
        })
    }

    /// Nobody looks any more. Whoever waits for an answer is not to wait for ever.
    pub fn close(&self) {
        self.orders.lock().take();
    }

    fn look<T: Default>(&self, look: impl FnOnce(&mut Orders) -> T) -> T {
        self.orders.lock().as_mut().map(look).unwrap_or_default()
    }

    /// Returns when alerts are to go; with `all` also when anything else was put there since it was looked at.
    pub async fn rings(&self, all: bool) {
        loop {
            let bell = self.bell.notified();
            if self.look(|orders| !orders.go.is_empty() || (all && orders.unread)) {
                return;
            }
            bell.await;
            if all {
                return;
            }
        }
    }

    /// When the alerts that come have waited long enough.
    pub fn due(&self, wait: Duration) -> Option<Instant> {
        self.look(|orders| orders.since.map(|since| since + wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_no_longer_waits_for_an_answer_leaves_nothing_behind() {
        let desk = Desk::default();
        for _ in 0..100 {
            let (done, answer) = oneshot::channel();
            desk.acknowledge(Acknowledgement { alert: 1, matching: Vec::new(), done });
            drop(answer);
        }
        assert_eq!(desk.letters(&BTreeSet::from([1])).len(), 1);
    }
}
