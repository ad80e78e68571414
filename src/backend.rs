//! Backends: the connections of clients, each with what it is doing, as PostgreSQL calls the process behind a connection.
//!
//! A door makes a [`Backend`] for each client and keeps it up to date; SQL reads all of them (`logweir.queries`,
//! `pg_stat_activity`), ends what one runs or its connection (`pg_cancel_backend`, `pg_terminate_backend`), and lets it
//! listen and speak (`LISTEN`, `NOTIFY`). Within a transaction both wait for its end, as in PostgreSQL.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::advisory::{Advisory, Asked, Held, Key, Mode};
use crate::channel::{Channels, Mailbox, Notification, check_name};
use crate::error::{Error, Kind, Result};
use crate::time::{Clock, Micros};

/// Bytes of a statement's text that are shown: PostgreSQL's `track_activity_query_size`.
const SHOWN: usize = 1024;

/// LISTEN, UNLISTEN and NOTIFY that may wait for the end of one transaction.
const MAX_PENDING: usize = 10_000;

/// Ids of backends start here: far from those of this machine's processes, which they are none of.
const FIRST_PID: i32 = 100_000;

/// All backends of one server.
pub struct Backends {
    clock: Clock,
    channels: Channels,
    advisory: Arc<Advisory>,
    next: AtomicI32,
    all: Mutex<BTreeMap<i32, Arc<Backend>>>,
}

impl Backends {
    pub fn new(clock: Clock) -> Backends {
        Backends {
            clock,
            channels: Channels::default(),
            advisory: Arc::default(),
            next: AtomicI32::new(FIRST_PID),
            all: Mutex::default(),
        }
    }

    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// A backend for a client at this address and port. It is listed from [`Backends::enter`] to [`Backends::leave`];
    /// `terminated` is what ends its connection.
    pub fn connect(&self, address: Option<(String, u16)>, terminated: CancellationToken) -> Arc<Backend> {
        let now = self.clock.now();
        Arc::new(Backend {
            pid: self.next.fetch_add(1, Ordering::Relaxed),
            address,
            started: now,
            running: Running::default(),
            terminated,
            mailbox: Arc::default(),
            rows: AtomicU64::new(0),
            memory: Arc::default(),
            clock: self.clock.clone(),
            channels: self.channels.clone(),
            advisory: Arc::clone(&self.advisory),
            parameters: OnceLock::new(),
            activity: Mutex::new(Activity {
                user: String::new(),
                database: String::new(),
                application: String::new(),
                phase: Phase::Idle,
                query: "".into(),
                transaction_start: None,
                query_start: None,
                changed: now,
            }),
            pending: Mutex::default(),
        })
    }

    pub fn enter(&self, backend: &Arc<Backend>) {
        self.all.lock().insert(backend.pid, Arc::clone(backend));
    }

    pub fn leave(&self, pid: i32) {
        self.all.lock().remove(&pid);
        self.advisory.leave(pid);
    }

    /// In the order of their beginning.
    pub fn list(&self) -> Vec<Arc<Backend>> {
        self.all.lock().values().cloned().collect()
    }

    pub fn find(&self, pid: i32) -> Option<Arc<Backend>> {
        self.all.lock().get(&pid).cloned()
    }

    /// The advisory locks that they hold.
    pub fn locks(&self) -> Vec<Held> {
        self.advisory.list()
    }
}

/// The token of the statement that a connection runs. A new one for each, so that a late request to cancel cannot hit the
/// next statement.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<CancellationToken>>);

impl Running {
    pub fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.0.lock() = token.clone();
        token
    }

    pub fn cancel(&self) {
        self.0.lock().cancel();
    }

    /// Whether both are of one connection.
    pub fn is(&self, other: &Running) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a backend is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Active,
    /// For its turn: as many queries run as may.
    Waiting,
    Idle,
    InTransaction,
    InFailedTransaction,
}

impl Phase {
    /// As PostgreSQL calls it.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Active => "active",
            Phase::Waiting => "waiting",
            Phase::Idle => "idle",
            Phase::InTransaction => "idle in transaction",
            Phase::InFailedTransaction => "idle in transaction (aborted)",
        }
    }
}

/// Who a backend works for, and at what.
#[derive(Debug, Clone)]
pub struct Activity {
    pub user: String,
    pub database: String,
    pub application: String,
    pub phase: Phase,
    /// The text that runs, or ran last: without secrets, and cut off.
    pub query: Arc<str>,
    pub transaction_start: Option<Micros>,
    pub query_start: Option<Micros>,
    /// When the phase changed.
    pub changed: Micros,
}

/// What waits for COMMIT.
enum Pending {
    Listen(String),
    /// One channel, or all.
    Unlisten(Option<String>),
    Notify(Notification),
}

/// The settings of a connection, for functions of SQL that read or change them.
pub trait Parameters: Send + Sync {
    /// The value of a setting; `None` if there is none of this name.
    fn show(&self, name: &str) -> Option<String>;
    /// Sets it, for the connection or until the end of the transaction; gives the value back.
    fn set(&self, name: &str, value: &str, local: bool) -> Result<String>;
}

/// One connection.
pub struct Backend {
    // Fixed.
    pub pid: i32,
    /// The client's.
    pub address: Option<(String, u16)>,
    pub started: Micros,
    clock: Clock,
    channels: Channels,
    advisory: Arc<Advisory>,
    pub parameters: OnceLock<Arc<dyn Parameters>>,
    // State.
    pub running: Running,
    pub terminated: CancellationToken,
    pub mailbox: Arc<Mailbox>,
    /// Of the result that is being sent, or was last.
    pub rows: AtomicU64,
    /// Bytes that its queries hold.
    pub memory: Arc<AtomicUsize>,
    activity: Mutex<Activity>,
    /// `None` outside of transactions.
    pending: Mutex<Option<Transaction>>,
}

#[derive(Default)]
struct Transaction {
    acts: Vec<Pending>,
    /// The same said twice in one transaction is told once.
    said: HashSet<Notification>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.channels.unlisten(None, &self.mailbox);
    }
}

impl Backend {
    pub fn activity(&self) -> Activity {
        self.activity.lock().clone()
    }

    /// Says who the client is.
    pub fn introduce(&self, user: &str, database: &str) {
        let mut activity = self.activity.lock();
        (activity.user, activity.database) = (user.to_string(), database.to_string());
    }

    pub fn set_application(&self, name: &str) {
        self.activity.lock().application = name.to_string();
    }

    /// A statement begins; its text is told by [`Backend::show`].
    pub fn begin(&self) {
        self.rows.store(0, Ordering::Relaxed);
        let now = self.clock.now();
        let mut activity = self.activity.lock();
        (activity.phase, activity.changed, activity.query_start) = (Phase::Active, now, Some(now));
    }

    /// The text of the statement that runs, without secrets.
    pub fn show(&self, query: &Arc<str>) {
        let query = match query.len() > SHOWN {
            true => query[..query.floor_char_boundary(SHOWN)].into(),
            false => Arc::clone(query),
        };
        self.activity.lock().query = query;
    }

    /// It does something else from now on.
    pub fn turn(&self, phase: Phase) {
        let mut activity = self.activity.lock();
        if activity.phase != phase {
            (activity.phase, activity.changed) = (phase, self.clock.now());
        }
    }

    /// A query waits for its turn, or has it. One that works ahead for an idle client does not matter.
    pub fn wait_for_turn(&self, waits: bool) {
        let (from, to) = if waits { (Phase::Active, Phase::Waiting) } else { (Phase::Waiting, Phase::Active) };
        let mut activity = self.activity.lock();
        if activity.phase == from {
            (activity.phase, activity.changed) = (to, self.clock.now());
        }
    }

    // ---- transactions ---------------------------------------------------------------------------------------------

    pub fn begin_transaction(&self) {
        *self.pending.lock() = Some(Transaction::default());
        let mut activity = self.activity.lock();
        activity.transaction_start = activity.query_start;
    }

    pub fn is_in_transaction(&self) -> bool {
        self.pending.lock().is_some()
    }

    /// What waited for the end of the transaction happens, or is forgotten.
    pub fn end_transaction(&self, commits: bool) -> Result<()> {
        let transaction = self.pending.lock().take();
        self.activity.lock().transaction_start = None;
        self.advisory.end_transaction(self.pid);
        for act in transaction.filter(|_| commits).map(|transaction| transaction.acts).unwrap_or_default() {
            self.act(act)?;
        }
        Ok(())
    }

    /// Takes an advisory lock if nobody else holds it; whether it did. One for a transaction that there is not is given
    /// back at once, as the statement is a transaction of its own.
    pub fn try_lock(&self, key: Key, mode: Mode) -> Result<bool> {
        let in_transaction = self.pending.lock().is_some();
        match self.advisory.ask(self.pid, key, mode) {
            Asked::Taken => {
                if mode.of_transaction && !in_transaction {
                    self.advisory.end_transaction(self.pid);
                }
                Ok(true)
            }
            Asked::HeldByAnother => Ok(false),
            Asked::TooMany => Err(Error::new(Kind::ResourceLimit, "too many advisory locks are held")),
        }
    }

    /// Gives an advisory lock back; whether it was held.
    pub fn unlock(&self, key: Key, shared: bool) -> bool {
        self.advisory.give_back(self.pid, key, shared)
    }

    /// Gives all of the session's advisory locks back.
    pub fn unlock_all(&self) {
        self.advisory.give_all_back(self.pid);
    }

    fn act(&self, act: Pending) -> Result<()> {
        match act {
            Pending::Listen(channel) => self.channels.listen(&channel, &self.mailbox)?,
            Pending::Unlisten(channel) => self.channels.unlisten(channel.as_deref(), &self.mailbox),
            Pending::Notify(notification) => {
                self.channels.notify(&notification);
            }
        }
        Ok(())
    }

    /// At once, or within a transaction at its end.
    fn act_or_wait(&self, act: Pending) -> Result<()> {
        let mut pending = self.pending.lock();
        let Some(transaction) = pending.as_mut() else {
            drop(pending);
            return self.act(act);
        };
        if let Pending::Notify(notification) = &act
            && !transaction.said.insert(notification.clone())
        {
            return Ok(());
        }
        if transaction.acts.len() >= MAX_PENDING {
            let text = format!("more than {MAX_PENDING} notifications in one transaction");
            return Err(Error::new(Kind::ResourceLimit, text).with_hint("COMMIT in between."));
        }
        transaction.acts.push(act);
        Ok(())
    }

    // ---- channels -------------------------------------------------------------------------------------------------

    pub fn listen(&self, channel: &str) -> Result<()> {
        check_name(channel)?;
        self.act_or_wait(Pending::Listen(channel.to_string()))
    }

    pub fn unlisten(&self, channel: Option<&str>) -> Result<()> {
        self.act_or_wait(Pending::Unlisten(channel.map(str::to_string)))
    }

    pub fn notify(&self, channel: &str, payload: &str) -> Result<()> {
        self.act_or_wait(Pending::Notify(Notification::new(channel, payload, self.pid)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Letter;

    fn backend(all: &Backends) -> Arc<Backend> {
        let backend = all.connect(None, CancellationToken::new());
        all.enter(&backend);
        backend
    }

    fn payloads(backend: &Backend) -> Vec<String> {
        let text = |letter| match letter {
            Letter::Notification(notification) => notification.payload.to_string(),
            Letter::Lost(count) => format!("lost {count}"),
        };
        std::iter::from_fn(|| backend.mailbox.take()).map(text).collect()
    }

    #[test]
    fn what_is_said_in_a_transaction_is_told_once_at_its_end() {
        let all = Backends::new(Clock::manual(5));
        let (speaker, listener) = (backend(&all), backend(&all));
        listener.listen("a").unwrap();
        speaker.begin_transaction();
        speaker.listen("a").unwrap();
        for payload in ["1", "1", "2"] {
            speaker.notify("a", payload).unwrap();
        }
        assert!(payloads(&listener).is_empty());
        speaker.end_transaction(true).unwrap();
        assert_eq!(payloads(&listener), ["1", "2"]);
        assert_eq!(payloads(&speaker), ["1", "2"], "it listens too");

        speaker.begin_transaction();
        speaker.notify("a", "3").unwrap();
        speaker.unlisten(None).unwrap();
        speaker.end_transaction(false).unwrap();
        speaker.notify("a", "4").unwrap();
        assert_eq!((payloads(&listener), payloads(&speaker)), (vec!["4".to_string()], vec!["4".to_string()]));

        speaker.begin_transaction();
        for i in 0..MAX_PENDING {
            speaker.notify("a", &i.to_string()).unwrap();
        }
        assert_eq!(speaker.notify("a", "too many").unwrap_err().kind(), Kind::ResourceLimit);
    }

    #[test]
    fn a_backend_that_is_gone_leaves_nothing() {
        let all = Backends::new(Clock::manual(5));
        let one = backend(&all);
        one.listen("a").unwrap();
        assert_eq!(all.list().len(), 1);
        all.leave(one.pid);
        drop(one);
        assert!(all.list().is_empty());
        let said = Notification::new("a", "", 0).unwrap();
        assert_eq!(all.channels().notify(&said), 0);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let all = Backends::new(Clock::manual(5));
        let one = backend(&all);
        one.begin();
        one.show(&"é".repeat(SHOWN).into());
        let activity = one.activity();
        assert_eq!((activity.query.len(), activity.phase, activity.query_start), (SHOWN, Phase::Active, Some(5)));
        one.show(&format!("x{}", "é".repeat(SHOWN)).into());
        assert_eq!(one.activity().query.len(), SHOWN - 1);
    }

    #[test]
    fn the_next_statement_is_not_canceled() {
        let running = Running::default();
        let first = running.begin();
        running.cancel();
        assert!(first.is_cancelled() && !running.begin().is_cancelled());
    }
}
