//! Plans of texts that come again: dashboards and drivers send the same queries all the time, and parsing and planning a
//! small one takes longer than running it.
//!
//! Each connection has its own, because what a text means may depend on who says it. A plan is good as long as no relation
//! has changed since (the engine's generation); then it is made anew. Only queries are kept: they have no effects, and
//! what they mean does not depend on when they are said, as `now()` is computed when they run.

use std::collections::HashMap;
use std::sync::Arc;

use super::prepared::Prepared;

/// Plans of one connection: some tens of kilobytes each.
const MAX_PLANS: usize = 32;

/// Bytes of the longest text: what is longer is written for one time, mostly.
const MAX_TEXT: usize = 4096;

/// See the file header.
#[derive(Default)]
pub struct Plans {
    plans: HashMap<Arc<str>, Plan>,
    /// Counts what was asked for.
    asked: u64,
}

struct Plan {
    prepared: Prepared,
    generation: u64,
    asked: u64,
}

impl Plans {
    /// The plan of a text, if it is still good.
    pub fn get(&mut self, text: &str, generation: u64) -> Option<Prepared> {
        self.asked += 1;
        let plan = self.plans.get_mut(text)?;
        if plan.generation != generation {
            self.plans.remove(text);
            return None;
        }
        plan.asked = self.asked;
        Some(plan.prepared.clone())
    }

    /// Keeps the plan of a text that is one statement, if it is a query. The one that was not asked for longest goes.
    pub fn put(&mut self, text: &str, prepared: &Prepared) {
        let Some(generation) = prepared.generation().filter(|_| text.len() <= MAX_TEXT) else { return };
        if self.plans.len() >= MAX_PLANS && !self.plans.contains_key(text) {
            let oldest = self.plans.iter().min_by_key(|(_, plan)| plan.asked).map(|(text, _)| Arc::clone(text));
            oldest.map(|oldest| self.plans.remove(&oldest));
        }
        let plan = Plan { prepared: prepared.clone(), generation, asked: self.asked };
        self.plans.insert(text.into(), plan);
    }
}
