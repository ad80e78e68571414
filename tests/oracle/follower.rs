//! Somebody who subscribes to a view, applies the changes, goes away now and then and comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::stage::cells;
use crate::compare::{Tolerance, difference};
use crate::local::Following;
use crate::server::{Row, line};

/// Changes come as soon as rows are visible, or at the next heartbeat; what takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Columns before those of the view: `_offset`, `_op`, `_progress`.
const OWN: usize = 3;

/// See the file header.
pub struct Follower {
    pub view: usize,
    following: Option<Following>,
    /// How often each row is in the relation, as of `offset`.
    held: BTreeMap<Row, i64>,
    offset: Option<u64>,
    /// Changes of a group that is not complete.
    pending: Vec<(Row, i64)>,
    statements: Vec<String>,
}

impl Follower {
    pub fn new(view: usize) -> Follower {
        let (held, pending, statements) = (BTreeMap::new(), Vec::new(), Vec::new());
        Follower { view, following: None, held, offset: None, pending, statements }
    }

    /// The statement that begins, or goes on from the offset that was reached if that `resumes`.
    pub fn subscribe(&mut self, resumes: bool) -> String {
        self.leave();
        let view = self.view;
        let sql = match self.offset.filter(|_| resumes) {
            Some(offset) => format!("SUBSCRIBE TO v{view} WITH (PROGRESS) AS OF {offset}"),
            None => {
                self.held.clear();
                format!("SUBSCRIBE TO v{view} WITH (PROGRESS)")
            }
        };
        self.statements.push(sql.clone());
        sql
    }

    pub fn begin(&mut self, following: Following) {
        self.following = Some(following);
    }

    /// Takes what has come, and goes away. Gives the view.
    pub fn leave(&mut self) -> usize {
        // A subscription that ended by itself is found when it is compared.
        drop(self.take(Duration::ZERO));
        self.following = None;
        self.pending.clear();
        self.view
    }

    /// What was subscribed to, for a failure's text.
    pub fn history(&self) -> String {
        self.statements.join("\n")
    }

    /// Waits until the relation holds these rows; says what is different when they do not come.
    pub fn reach(&mut self, wanted: &[Row], tolerances: &[Tolerance]) -> Result<(), String> {
        let begun = Instant::now();
        let mut patience = Duration::ZERO;
        loop {
            let came = self.take(patience)?;
            if came || patience.is_zero() {
                let Some(text) = self.difference(wanted, tolerances) else { return Ok(()) };
                if begun.elapsed() > PATIENCE {
                    return Err(text);
                }
            } else if begun.elapsed() > PATIENCE {
                return Err(self.difference(wanted, tolerances).unwrap_or_else(|| "it came too late\n".into()));
            }
            patience = Duration::from_millis(100);
        }
    }

    fn difference(&self, wanted: &[Row], tolerances: &[Tolerance]) -> Option<String> {
        if let Some((row, count)) = self.held.iter().find(|(_, count)| **count < 0) {
            return Some(format!("a row is there {count} times: {}\n", line(row)));
        }
        let rows = self.held.iter().flat_map(|(row, count)| std::iter::repeat_n(row.clone(), *count as usize));
        difference(rows.collect(), wanted.to_vec(), tolerances)
    }

    /// Applies what has come; whether anything has.
    fn take(&mut self, patience: Duration) -> Result<bool, String> {
        let Some(following) = &self.following else { return Ok(false) };
        let batches = following.received(patience).map_err(|err| format!("the subscription ended: {err}\n"))?;
        for row in cells(&batches) {
            self.apply(row)?;
        }
        Ok(!batches.is_empty())
    }

    fn apply(&mut self, mut row: Row) -> Result<(), String> {
        let values = row.split_off(OWN);
        let offset = row[0].as_deref().and_then(|o| o.parse().ok()).ok_or("a row without an offset\n")?;
        match row[1].as_deref() {
            Some("insert" | "update_after") => self.pending.push((values, 1)),
            Some("delete" | "update_before") => self.pending.push((values, -1)),
            Some(other) => return Err(format!("an unknown operation: {other}\n")),
            None => {
                for (row, count) in self.pending.drain(..) {
                    *self.held.entry(row).or_default() += count;
                }
                self.held.retain(|_, count| *count != 0);
                self.offset = Some(offset);
            }
        }
        Ok(())
    }
}
