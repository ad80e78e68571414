//! Plans of texts that come again: dashboards and drivers send the same queries all the time, and parsing and planning a
//! small one takes longer than running it.
//!
//! Each connection has its own, because what a text means may depend on who says it. A plan is good as long as no relation
//! has changed since (the engine's generation); then it is made anew. Only queries are kept: they have no effects, and
//! what they mean does not depend on when they are said, as `now()` is computed when they run.
//!
//! Texts that differ only in values have a plan together ([`Shape`]), if it is of a row that can be read at once: then
//! planning was all the work. It is made when a shape comes for the second time.

use std::collections::HashMap;
use std::sync::Arc;

use super::prepared::Prepared;
use super::shape::Shape;

/// Plans of one connection, of texts and again of shapes: some tens of kilobytes each.
const MAX_PLANS: usize = 32;

/// Bytes of the longest text: what is longer is written for one time, mostly.
const MAX_TEXT: usize = 4096;

/// See the file header.
#[derive(Default)]
pub struct Plans {
    texts: Newest<Prepared>,
    shapes: Newest<Shared>,
}

/// What is known of a shape.
#[derive(Clone)]
pub enum Shared {
    /// It has come.
    Seen,
    /// A query of one row, with a parameter for each value.
    Row(Prepared),
    /// There is nothing to gain.
    Nothing,
}

impl Plans {
    /// The plan of a text, if it is still good.
    pub fn get(&mut self, text: &str, generation: u64) -> Option<Prepared> {
        self.texts.get(text, generation)
    }

    /// Keeps the plan of a text that is one statement, if it is a query.
    pub fn put(&mut self, text: &str, prepared: &Prepared) {
        if let Some(generation) = prepared.generation().filter(|_| text.len() <= MAX_TEXT) {
            self.texts.put(text, generation, prepared.clone());
        }
    }

    /// What is known of a shape in this generation.
    pub fn shared(&mut self, shape: &Shape, generation: u64) -> Option<Shared> {
        self.shapes.get(&shape.key(), generation)
    }

    pub fn share(&mut self, shape: &Shape, generation: u64, known: Shared) {
        self.shapes.put(&shape.key(), generation, known);
    }
}

/// A few entries, each of a generation. The one that was not asked for longest goes.
struct Newest<T> {
    entries: HashMap<Arc<str>, Entry<T>>,
    /// Counts what was asked for.
    asked: u64,
}

struct Entry<T> {
    value: T,
    generation: u64,
    asked: u64,
}

impl<T> Default for Newest<T> {
    fn default() -> Newest<T> {
        Newest { entries: HashMap::new(), asked: 0 }
    }
}

impl<T: Clone> Newest<T> {
    /// What was put here in this generation.
    fn get(&mut self, key: &str, generation: u64) -> Option<T> {
        self.asked += 1;
        let entry = self.entries.get_mut(key)?;
        if entry.generation != generation {
            self.entries.remove(key);
            return None;
        }
        entry.asked = self.asked;
        Some(entry.value.clone())
    }

    fn put(&mut self, key: &str, generation: u64, value: T) {
        if self.entries.len() >= MAX_PLANS && !self.entries.contains_key(key) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.asked).map(|(key, _)| Arc::clone(key));
            oldest.map(|oldest| self.entries.remove(&oldest));
        }
        self.entries.insert(key.into(), Entry { value, generation, asked: self.asked });
    }
}
