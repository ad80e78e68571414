//! Reports: queries that are run on a schedule, for the period that has just ended and for the one before, and whose results
//! are sent to people.
//!
//! ```text
//!     schedule ──due──► reporter ──queries──► engine ──rows──► section ──► ledger ──notes──► outbox ──► notifier
//!        pure                                                          durable first      tries until it is taken
//! ```
//!
//! What always holds: that a moment of the schedule was seen to and what is to be sent of it are written down together,
//! before anything is sent; a kill leaves both or neither, and then the report is made again. A query that fails is a part
//! of the report that says so. What was missed while nothing ran is made up for by one report, which says that it is late.
//!
//! [`schedule`] tells when a report is due and what it is about, [`section`] makes results into parts of a report,
//! [`reporter`] drives one report.

pub mod reporter;
pub mod schedule;
pub mod section;

use std::collections::BTreeSet;

use schedule::Schedule;

/// What CREATE REPORT says.
#[derive(Debug, Clone)]
pub struct Definition {
    pub name: String,
    pub schedule: Schedule,
    pub queries: Vec<Query>,
    /// What the queries read.
    pub reads: BTreeSet<String>,
    pub notify: Vec<String>,
}

/// One part of a report.
#[derive(Debug, Clone)]
pub struct Query {
    /// Empty without one.
    pub title: String,
    pub text: String,
}
