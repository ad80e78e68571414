//! When is it worth to make blocks of what has come? Each block of frames is a record of the log and a batch of rows,
//! so a few lines each would cost more than they are.
//!
//! Senders are taken in rounds: a round takes each sender that has something once, and the next begins [`PAUSE`] later,
//! or as soon as much has come. What comes after a silence is taken at once.

use std::time::{Duration, Instant};

/// From the beginning of a round to that of the next. About as often as the log is synced.
const PAUSE: Duration = Duration::from_millis(5);

/// Bytes that are worth a round by themselves.
pub const ENOUGH: usize = 256 << 10;

/// See the file header.
#[derive(Debug, Default)]
pub struct Rounds {
    begun: Option<Instant>,
    /// Senders still to be taken in this round.
    left: usize,
}

impl Rounds {
    /// Whether a sender may be taken now, of those that wait with so many bytes. `hurry`: somebody waits for them.
    pub fn may_take(&mut self, senders: usize, bytes: usize, hurry: bool) -> bool {
        if senders == 0 {
            self.left = 0;
            return false;
        }
        if self.left == 0 {
            if !hurry && bytes < ENOUGH && !self.pause().is_zero() {
                return false;
            }
            (self.begun, self.left) = (Some(Instant::now()), senders);
        }
        self.left -= 1;
        true
    }

    /// How long until the next round may begin.
    pub fn pause(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| PAUSE.saturating_sub(begun.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_takes_each_once_and_the_next_waits() {
        let mut rounds = Rounds::default();
        assert!(!rounds.may_take(0, 0, true), "nothing is there");
        assert!(rounds.may_take(2, 10, false), "the first at once");
        assert!(rounds.may_take(3, 10, false), "the second of the round");
        let later = Instant::now() + Duration::from_secs(60);
        rounds.begun = Some(later);
        assert!(!rounds.may_take(3, 10, false), "what has come since waits");
        assert!(rounds.may_take(1, 10, true) && rounds.may_take(1, ENOUGH, false));
        rounds.begun = Some(later);
        assert!(!rounds.may_take(1, ENOUGH - 1, false) && rounds.pause() > Duration::ZERO);
        rounds.begun = Some(Instant::now() - PAUSE);
        assert!(rounds.may_take(1, 1, false));
    }
}
