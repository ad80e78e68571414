//! Advisory locks: keys that clients agree on, held by one connection or shared by many (PostgreSQL manual, "Advisory
//! Locks"). Nothing of the engine heeds them.
//!
//! They are held until they are given back as often as they were taken, or until their transaction or connection ends.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Locks of all connections together; a client that takes more has to give some back.
const MAX_LOCKS: usize = 100_000;

/// One number, or a pair of smaller ones, which are keys of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    One(i64),
    Two(i32, i32),
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// With others that share it.
    pub shared: bool,
    /// Until the transaction ends.
    pub of_transaction: bool,
}

/// What asking for a lock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Taken,
    HeldByAnother,
    TooMany,
}

struct Holder {
    pid: i32,
    mode: Mode,
    times: u32,
}

/// A lock that somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub pid: i32,
    pub key: Key,
    pub mode: Mode,
}

/// The locks of one server.
#[derive(Default)]
pub struct Advisory(Mutex<HashMap<Key, Vec<Holder>>>);

impl Advisory {
    pub fn ask(&self, pid: i32, key: Key, mode: Mode) -> Asked {
        let mut locks = self.0.lock();
        if locks.len() >= MAX_LOCKS && !locks.contains_key(&key) {
            return Asked::TooMany;
        }
        let holders = locks.entry(key).or_default();
        if holders.iter().any(|holder| holder.pid != pid && !(holder.mode.shared && mode.shared)) {
            return Asked::HeldByAnother;
        }
        match holders.iter_mut().find(|holder| holder.pid == pid && holder.mode == mode) {
            Some(holder) => holder.times = holder.times.saturating_add(1),
            None => holders.push(Holder { pid, mode, times: 1 }),
        }
        Asked::Taken
    }

    /// Gives one of a session back; whether it was held.
    pub fn give_back(&self, pid: i32, key: Key, shared: bool) -> bool {
        let mut locks = self.0.lock();
        let Some(holders) = locks.get_mut(&key) else { return false };
        let mode = Mode { shared, of_transaction: false };
        let Some(at) = holders.iter().position(|holder| holder.pid == pid && holder.mode == mode) else { return false };
        holders[at].times -= 1;
        if holders[at].times == 0 {
            holders.swap_remove(at);
        }
        if holders.is_empty() {
            locks.remove(&key);
        }
        true
    }

    /// All that are held, in no order.
    pub fn list(&self) -> Vec<Held> {
        let locks = self.0.lock();
        let held = |(key, holders): (&Key, &Vec<Holder>)| -> Vec<Held> {
            holders.iter().map(|holder| Held { pid: holder.pid, key: *key, mode: holder.mode }).collect()
        };
        locks.iter().flat_map(held).collect()
    }

    /// Those that a transaction took.
    pub fn end_transaction(&self, pid: i32) {
        self.forget(|holder| holder.pid == pid && holder.mode.of_transaction);
    }

    /// Those that a session took.
    pub fn give_all_back(&self, pid: i32) {
        self.forget(|holder| holder.pid == pid && !holder.mode.of_transaction);
    }

    /// The connection ends.
    pub fn leave(&self, pid: i32) {
        self.forget(|holder| holder.pid == pid);
    }

    fn forget(&self, which: impl Fn(&Holder) -> bool) {
        let mut locks = self.0.lock();
        if !locks.is_empty() {
            locks.retain(|_, holders| {
                holders.retain(|holder| !which(holder));
                !holders.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Mode = Mode { shared: false, of_transaction: false };
    const SHARED: Mode = Mode { shared: true, of_transaction: false };
    const TRANSACTION: Mode = Mode { shared: false, of_transaction: true };

    #[test]
    fn one_holds_it_or_many_share_it() {
        let (locks, key) = (Advisory::default(), Key::One(7));
        assert_eq!(locks.ask(1, key, SESSION), Asked::Taken);
        assert_eq!(locks.ask(1, key, SESSION), Asked::Taken);
        assert_eq!(locks.ask(2, key, SESSION), Asked::HeldByAnother);
        assert_eq!(locks.ask(2, key, SHARED), Asked::HeldByAnother);
        assert_eq!(locks.ask(2, Key::Two(0, 7), SESSION), Asked::Taken, "pairs are other keys");
        assert!(locks.give_back(1, key, false) && locks.give_back(1, key, false) && !locks.give_back(1, key, false));
        assert_eq!((locks.ask(1, key, SHARED), locks.ask(2, key, SHARED)), (Asked::Taken, Asked::Taken));
        let held = locks.list().into_iter().filter(|held| held.key == key && held.mode == SHARED);
        assert_eq!(held.map(|held| held.pid).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(locks.ask(1, key, SESSION), Asked::HeldByAnother);
        locks.leave(2);
        assert_eq!(locks.ask(1, key, SESSION), Asked::Taken);
        locks.leave(1);
        assert!(locks.0.lock().is_empty());
    }

    #[test]
    fn those_of_a_transaction_end_with_it() {
        let (locks, key) = (Advisory::default(), Key::One(7));
        locks.ask(1, key, TRANSACTION);
        locks.ask(1, Key::One(8), SESSION);
        assert!(!locks.give_back(1, key, false), "it is not given back before");
        locks.end_transaction(1);
        assert_eq!(
            (locks.ask(2, key, SESSION), locks.ask(2, Key::One(8), SESSION)),
            (Asked::Taken, Asked::HeldByAnother)
        );
        locks.give_all_back(1);
        assert_eq!(locks.ask(2, Key::One(8), SESSION), Asked::Taken);
    }
}
