//! Warnings that others can provoke: a sender who does something wrong a thousand times a second must not fill the log.
//!
//! Of each kind the last one is kept, with how many there were; they come out once in a while.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind};

/// So often a kind of problem is told at most.
const INTERVAL: Duration = Duration::from_secs(5);

/// What can go wrong. Each is counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// More connections than allowed.
    Refused,
    /// Nothing came, or a line did not end.
    TimedOut,
    /// No TLS, or not the right certificate.
    Handshake,
    /// The connection failed.
    Broken,
    /// The kernel has dropped datagrams.
    Lost,
    /// Connections could not be accepted, datagrams could not be received.
    Socket,
}

/// See the file header.
#[derive(Debug, Default)]
pub struct Problems {
    kinds: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    problem: Problem,
    last: Error,
    count: u64,
    told: Option<Instant>,
}

impl Problems {
    pub fn note(&mut self, problem: Problem, last: Error) {
        match self.kinds.iter_mut().find(|seen| seen.problem == problem) {
            Some(seen) => {
                seen.last = last;
                seen.count += 1;
            }
            None => self.kinds.push(Seen { problem, last, count: 1, told: None }),
        }
    }

    /// What is to be told now.
    pub fn take(&mut self, now: Instant) -> Vec<Error> {
        let mut told = Vec::new();
        for seen in &mut self.kinds {
            let due = seen.told.is_none_or(|told| now.saturating_duration_since(told) >= INTERVAL);
            if seen.count == 0 || !due {
                continue;
            }
            let (count, err) = (std::mem::take(&mut seen.count), seen.last.clone());
            seen.told = Some(now);
            told.push(match count {
                1 => err,
                n => err.with_detail(format!("It is the last of {n} like it since this was last told.")),
            });
        }
        told
    }
}

/// An error of a connection.
pub fn of_connection(peer: &str, what: &str) -> Error {
    Error::new(Kind::Io, format!("connection from {peer}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_as_one() {
        let (mut problems, start) = (Problems::default(), Instant::now());
        problems.note(Problem::Refused, Error::internal("first"));
        assert_eq!(problems.take(start).len(), 1);
        for i in 0..1000 {
            problems.note(Problem::Refused, Error::internal(format!("{i}")));
        }
        problems.note(Problem::Broken, Error::internal("other"));
        assert_eq!(problems.take(start)[0].message(), "other");
        let told = problems.take(start + INTERVAL);
        assert_eq!((told.len(), told[0].message()), (1, "999"));
        assert!(told[0].detail().unwrap().contains("1000"));
        assert!(problems.take(start + 9 * INTERVAL).is_empty());
    }
}
