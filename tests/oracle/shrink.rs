//! Makes a scenario that fails as small as possible: fewer views, steps and lines, simpler queries and data, as long as
//! the same property fails.

use std::time::{Duration, Instant};

use super::scenario::{Failure, Scenario};
use super::stage;

/// Enough to get from hundreds of lines to a few; what is left can be read by a person.
const PATIENCE: Duration = Duration::from_secs(60);

/// The smallest scenario found that fails in the same way, with its failure.
pub fn shrink(scenario: &Scenario, failure: Failure) -> (Scenario, Failure) {
    let mut shrinking = Shrinking { best: scenario.clone(), failure, deadline: Instant::now() + PATIENCE };
    let focused = scenario.focused(&shrinking.failure);
    shrinking.attempt(focused);
    loop {
        let before = shrinking.best.clone();
        shrinking.drop_lines();
        shrinking.repeat(Scenario::with_simpler_steps);
        shrinking.repeat(Scenario::with_simpler_queries);
        shrinking.repeat(Scenario::with_simpler_data);
        if shrinking.best == before || shrinking.late() {
            return (shrinking.best, shrinking.failure);
        }
    }
}

struct Shrinking {
    best: Scenario,
    failure: Failure,
    deadline: Instant,
}

impl Shrinking {
    fn late(&self) -> bool {
        Instant::now() > self.deadline
    }

    /// Takes a candidate if it fails in the same way.
    fn attempt(&mut self, candidate: Scenario) -> bool {
        match stage::run(&candidate) {
            Err(failure) if failure.is_like(&self.failure) => {
                (self.best, self.failure) = (candidate, failure);
                true
            }
            _ => false,
        }
    }

    /// Halves first, then quarters, down to single lines.
    fn drop_lines(&mut self) {
        let mut size = self.best.lines().count().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.lines().count() && !self.late() {
                let candidate = self.best.without_lines(from, size);
                if !self.attempt(candidate) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    /// Takes the first of the candidates that fails, and begins again with that.
    fn repeat(&mut self, candidates: impl Fn(&Scenario) -> Vec<Scenario>) {
        let mut all = candidates(&self.best).into_iter();
        while let Some(candidate) = all.next().filter(|_| !self.late()) {
            if self.attempt(candidate) {
                all = candidates(&self.best).into_iter();
            }
        }
    }
}
