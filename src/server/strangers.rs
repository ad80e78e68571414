//! Connections from people who have not shown yet who they are: so many at one time, and none in the way of others.
//!
//! Anybody can open connections and say nothing. So these have room of their own, apart from the places of those who have
//! logged in. When it is full, one of them is closed for a new one: of those that have had [`GRACE`], the oldest from the
//! address that has most. Whoever knows a password needs some milliseconds to say so; whoever fills the room with silence
//! loses it first, and from one address cannot keep out others. While all are young, as when a pool of clients comes back at
//! once, the next one waits outside.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// So long nobody has to give way: clients far away need some round trips to log in.
const GRACE: Duration = Duration::from_secs(2);

/// The room of one door.
pub struct Strangers {
    most: usize,
    inside: Mutex<Inside>,
    /// Somebody has left.
    left: Notify,
}

#[derive(Default)]
struct Inside {
    /// In the order of their coming.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

struct Waiting {
    address: IpAddr,
    since: Instant,
    evicted: CancellationToken,
}

/// One of them; dropped when it is known who it is, or when it has gone.
pub struct Stranger {
    id: u64,
    room: Arc<Strangers>,
    /// It has to give way.
    pub evicted: CancellationToken,
}

impl Strangers {
    /// Room for so many.
    pub fn new(most: usize) -> Arc<Strangers> {
        Arc::new(Strangers { most: most.max(1), inside: Mutex::default(), left: Notify::new() })
    }

    /// Lets one in, when there is room or another one can give way.
    pub async fn enter(self: &Arc<Self>, address: IpAddr) -> Stranger {
        while let Some(until) = self.full(Instant::now()) {
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.left.notified() => {}
            }
        }
        self.admit(address, Instant::now())
    }

    fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Stranger {
        let evicted = CancellationToken::new();
        let mut inside = self.inside.lock();
        let id = inside.next;
        inside.next += 1;
        inside.waiting.insert(id, Waiting { address, since: now, evicted: evicted.clone() });
        Stranger { id, room: Arc::clone(self), evicted }
    }

    /// Closes one that has had its time, if there is any.
    pub fn evict(&self) {
        self.inside.lock().evict(Instant::now());
    }

    /// Makes room. If it cannot, this gives when to try again at the latest.
    fn full(&self, now: Instant) -> Option<Instant> {
        let mut inside = self.inside.lock();
        if inside.waiting.len() < self.most || inside.evict(now) {
            return None;
        }
        inside.waiting.values().next().map(|oldest| oldest.since + GRACE)
    }
}

impl Inside {
    fn evict(&mut self, now: Instant) -> bool {
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for waiting in self.waiting.values() {
            *of_address.entry(waiting.address).or_default() += 1;
        }
        let share = |waiting: &Waiting| of_address.get(&waiting.address).copied().unwrap_or_default();
        let old = self.waiting.iter().filter(|(_, waiting)| now.duration_since(waiting.since) >= GRACE);
        // The first one of those with the largest share: ids are in the order of their coming.
        let first = old.max_by_key(|(id, waiting)| (share(waiting), std::cmp::Reverse(**id))).map(|(id, _)| *id);
        let Some(evicted) = first.and_then(|id| self.waiting.remove(&id)) else { return false };
        evicted.evicted.cancel();
        true
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.room.inside.lock().waiting.remove(&self.id);
        self.room.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(strangers: &[Stranger]) -> usize {
        strangers.iter().filter(|stranger| stranger.evicted.is_cancelled()).count()
    }

    /// One more, if there is room or one can give way; else the time from now on to wait.
    fn come(room: &Arc<Strangers>, address: IpAddr, now: Instant) -> Result<Stranger, Duration> {
        match room.full(now) {
            None => Ok(room.admit(address, now)),
            Some(until) => Err(until - now),
        }
    }

    #[test]
    fn the_oldest_of_the_address_with_most_gives_way() {
        let (room, one, other) = (Strangers::new(3), IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let begun = Instant::now();
        let come = |address, now| come(&room, address, now).unwrap_or_else(|wait| panic!("it waits for {wait:?}"));
        let first = come(other, begun);
        let mut silent = vec![come(one, begun), come(one, begun)];
        // Young ones are let be: the next one waits.
        let half = begun + GRACE / 2;
        assert_eq!(super::tests::come(&room, other, half).err(), Some(GRACE / 2));
        let later = begun + GRACE;
        silent.push(come(one, later));
        silent.push(come(one, later));
        assert_eq!(gone(&silent), 2);
        assert!(!first.evicted.is_cancelled(), "it came first, but from elsewhere");
        drop(first);
        let last = come(other, later);
        drop((last, silent));
        assert!(room.inside.lock().waiting.is_empty());
        room.evict();
    }

    #[tokio::test]
    async fn the_next_one_comes_in_when_somebody_leaves() {
        let (room, one) = (Strangers::new(1), IpAddr::from([192, 0, 2, 1]));
        let first = room.enter(one).await;
        let leaving = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let begun = Instant::now();
        let (second, ()) = tokio::join!(room.enter(one), leaving);
        assert!(begun.elapsed() < GRACE && !second.evicted.is_cancelled());
    }
}
