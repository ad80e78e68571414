//! How fast may logs grow? The streams of one database share a rate of bytes; what was written above it is a debt, and
//! nothing more is written until time has paid that.
//!
//! Whoever has written says how much ([`Rate::spend`]); before the next record [`Rate::debt`] says how long to wait. So a
//! batch is never cut, however small the rate, and a rate that is not reached costs nothing. A second's worth may come at
//! once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Unused time that counts at most: so much may come at once.
const BURST: Duration = Duration::from_secs(1);

/// See the file header.
pub struct Rate {
    /// Bytes each second; 0: as many as come.
    limit: AtomicU64,
    /// When all that was written has been paid for.
    paid: Mutex<Option<Instant>>,
}

impl Rate {
    /// `limit`: bytes each second; `None`: as many as come.
    pub fn new(limit: Option<u64>) -> Rate {
        Rate { limit: AtomicU64::new(limit.unwrap_or(0)), paid: Mutex::new(None) }
    }

    /// Another limit from now on. What is owed stays what it is.
    pub fn set(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(0), Ordering::Relaxed);
        if limit.is_none() {
            *self.paid.lock() = None;
        }
    }

    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// Bytes have been written.
    pub fn spend(&self, bytes: u64) {
        self.spend_at(bytes, Instant::now());
    }

    fn spend_at(&self, bytes: u64, now: Instant) {
        let Some(limit) = self.limit() else { return };
        let mut paid = self.paid.lock();
        // As if it had begun a burst ago at the earliest.
        let begun = now.checked_sub(BURST).unwrap_or(now);
        let from = paid.map_or(begun, |paid| paid.max(begun));
        *paid = Some(from + Duration::from_secs_f64(bytes as f64 / limit as f64));
    }

    /// How long to wait before more is written; `None`: no time.
    pub fn debt(&self) -> Option<Duration> {
        self.debt_at(Instant::now())
    }

    fn debt_at(&self, now: Instant) -> Option<Duration> {
        self.limit()?;
        let owed = (*self.paid.lock())?.saturating_duration_since(now);
        (!owed.is_zero()).then_some(owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_rate_is_waited_for() {
        let (rate, now) = (Rate::new(Some(1000)), Instant::now() + Duration::from_secs(100));
        let seconds = |n| Duration::from_secs(n);
        rate.spend_at(900, now);
        assert_eq!(rate.debt_at(now), None, "a second's worth may come at once");
        rate.spend_at(2100, now);
        assert_eq!(rate.debt_at(now), Some(seconds(2)));
        assert_eq!(rate.debt_at(now + seconds(1)), Some(seconds(1)));
        assert_eq!(rate.debt_at(now + seconds(2)), None);
        // What was not used for long does not add up.
        let later = now + seconds(60);
        rate.spend_at(2000, later);
        assert_eq!(rate.debt_at(later), Some(seconds(1)));
        rate.set(None);
        assert_eq!(rate.debt_at(later), None);
        rate.spend_at(1 << 40, later);
        assert_eq!(rate.debt_at(later), None);
    }
}
