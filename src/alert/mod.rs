//! Alerts: when rows of a relation are a reason to tell somebody, and who was told what.
//!
//! ```text
//!     relation ──changes──► tracker ──words of windows──► rule ──changes of state──► ledger ──notes──► outbox ──► notifier
//!        one subscription     which keys match              pure               durable first       tries until it is taken
//! ```
//!
//! What always holds: a change of state, and what is to be told of it, are on disk before anything is sent, and a note is
//! forgotten only after the other side has taken it: at least once, under one id however often it is sent. Alerts over the
//! same relation share one subscription, which takes changes as it gets to them: alerts hold up nobody.
//!
//! [`rule`] is the pure state machine of one instance, [`track`] counts which keys match, [`ledger`] keeps what must outlive
//! the process, [`watch`] is an alert while it is evaluated, [`evaluator`] drives alerts, which come and go
//! over its [`desk`], [`outbox`] drives notifiers,
//! [`backtest`] rehearses alerts on the past.

pub mod backtest;
pub mod desk;
pub mod evaluator;
pub mod ledger;
pub mod outbox;
pub mod rule;
pub mod track;
pub mod watch;

use std::collections::BTreeSet;

use crate::time::Micros;
use rule::Rule;

/// What CREATE ALERT says.
#[derive(Debug, Clone)]
pub struct Definition {
    pub name: String,
    /// What it watches, as written: the name of a relation, or a query.
    pub from: String,
    /// The same as a query, and what that reads.
    pub query: String,
    pub reads: BTreeSet<String>,
    /// Only rows of closed windows, although the query does not know.
    pub closed: bool,
    /// The predicate as written, and as a query over the relation whose only column it is.
    pub predicate: Option<(String, String)>,
    /// The scores in the predicate, which `query` computes.
    pub scores: Option<Scores>,
    pub key: Vec<String>,
    pub rule: Rule,
    /// KEEP FIRING FOR is said; else it may depend on the relation.
    pub keeps: bool,
    pub severity: String,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    pub telling: Telling,
    /// How often its query is run, where nothing tells of changes.
    pub every: Option<Micros>,
}

/// Calls in a predicate that compare a row with those before it, such as `anomaly(requests)`.
#[derive(Debug, Clone)]
pub struct Scores {
    /// The first of them, as written.
    pub call: String,
    /// The column that rows are compared in the order of.
    pub order: &'static str,
    /// The relation as a query without them.
    pub plain: String,
}

/// Who is told, and how often.
#[derive(Debug, Clone, Default)]
pub struct Telling {
    pub notify: Vec<String>,
    pub on_resolve: bool,
    /// Instances that are the same in these columns are told of together; `None`: each by itself.
    pub group: Option<Vec<String>>,
    /// So long a note waits for others of its group.
    pub wait: Micros,
    /// At most so many notes in this time; what comes beyond is told together at its end.
    pub limit: Option<(u64, Micros)>,
}
