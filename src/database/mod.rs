//! Which databases does the server have? One that is always there, `logweir`, whose administrators are the operators of
//! the server; and tenants, each made by CREATE DATABASE.
//!
//! ```text
//!     <data_dir>/                      the main database
//!     <data_dir>/databases.json        which tenants there are, with their quotas (kept as the catalog is)
//!     <data_dir>/databases/<id>/       the data directory of a tenant, laid out like that of the main database
//! ```
//!
//! A tenant is an [`Engine`] of its own, with everything that an engine has: streams, views, alerts, roles, tokens, channels,
//! connections, memory. So nothing has to be kept apart that would be in one place: there is no name, no row and no figure of
//! one tenant that an engine of another could show by mistake. It has threads of its own too ([`Compute`]): the kernel shares
//! the processors between the pools, so a tenant whose queries never end has its share and no more.
//!
//! The list says which tenants there are, and what was written to it last counts: CREATE writes it before there is a folder,
//! DROP before the folder goes, with the id among those whose folders are to be removed. Ids are random and no tenant learns
//! from its own how many others there are. A folder that the list does not name is left alone: it may be that of a list that
//! was lost.
//!
//! A tenant that cannot be opened keeps nobody else down: it is there, failed, with the reason, until the server starts again.

mod quotas;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::catalog::file::{Found, Kept, KeptFile};
use crate::config::{Config, DATABASES, MAIN_DATABASE};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::reach::Limits;
use crate::storage::fs::{Disk, Fs};
use crate::task::Compute;
use crate::time::Clock;
pub use quotas::{QUOTAS, Quotas};

/// Opens an engine: whoever knows SQL makes its objects again.
pub type Open = fn(Config, Clock) -> BoxFuture<'static, Result<Arc<Engine>>>;

static LIST: Kept = Kept {
    what: "list of databases",
    name: "databases.json",
    changes: "CREATE, ALTER or DROP DATABASE",
    intact: "What the databases hold is intact.",
    without: "Without either, move both files away and write a new one that names the folders in \"databases\".",
};

/// Names under which clients find the main database, besides its own: tools look for it.
const ALSO_MAIN: &str = "postgres";

/// Names that no tenant has.
const RESERVED: &[&str] = &[MAIN_DATABASE, ALSO_MAIN, "template0", "template1"];

/// Longest name, as in PostgreSQL.
const MAX_NAME: usize = 63;

/// Each has threads and memory of its own.
const MAX_TENANTS: usize = 1000;

/// Tenants that are opened at one time.
const OPENING: usize = 4;

/// So long DROP … WITH (FORCE) waits until its clients have left.
const LEAVING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// What the list holds.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct List {
    databases: Vec<Entry>,
    /// Ids of those that were dropped and whose folders may still be there.
    #[serde(default)]
    dropped: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// Names its folder.
    id: String,
    name: String,
    #[serde(default)]
    quotas: Quotas,
}

/// The list as it is on the disk.
struct Listed {
    file: KeptFile,
    list: List,
}

impl Listed {
    fn change(&mut self, change: impl FnOnce(&mut List)) -> Result<()> {
        let mut list = self.list.clone();
        change(&mut list);
        self.file.write(&list)?;
        self.list = list;
        Ok(())
    }
}

/// See the file header.
pub struct Databases {
    /// The settings of the main database, of which those of tenants are made.
    server: Config,
    /// Connections of the main database at one time.
    connections: usize,
    clock: Clock,
    open: Open,
    main: Arc<Database>,
    tenants: RwLock<BTreeMap<String, Arc<Database>>>,
    /// One change at a time. `None` where nothing is kept.
    list: Mutex<Option<Listed>>,
}

/// One database.
pub struct Database {
    pub name: String,
    /// Where its work runs.
    pub compute: Compute,
    id: String,
    state: RwLock<State>,
    quotas: RwLock<Quotas>,
    bounds: RwLock<Arc<Limits>>,
    /// Connections that there may be, and that there are.
    most: AtomicUsize,
    taken: AtomicUsize,
}

/// How a database is.
#[derive(Clone)]
pub enum State {
    Open(Arc<Engine>),
    /// It could not be opened.
    Failed(Error),
    /// It is being dropped.
    Closed,
}

/// The place of one connection, given back when it is dropped.
pub struct Place(Arc<Database>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Database {
    fn new(name: &str, id: &str, compute: Compute, quotas: Quotas, bounds: Limits, most: usize) -> Database {
        Database {
            name: name.to_string(),
            compute,
            id: id.to_string(),
            state: RwLock::new(State::Closed),
            quotas: RwLock::new(quotas),
            bounds: RwLock::new(Arc::new(bounds)),
            most: AtomicUsize::new(most),
            taken: AtomicUsize::new(0),
        }
    }

    pub fn is_main(&self) -> bool {
        self.name == MAIN_DATABASE
    }

    /// By which PostgreSQL's catalogs would know it: made of its id, above those that the catalogs give out themselves.
    pub fn oid(&self) -> i32 {
        const FIRST: u64 = 1 << 30;
        i32::try_from(FIRST + u64::from_str_radix(&self.id, 16).unwrap_or(0) % FIRST).unwrap_or(i32::MAX)
    }

    pub fn state(&self) -> State {
        self.state.read().clone()
    }

    /// Its engine; an error while it has none.
    pub fn engine(&self) -> Result<Arc<Engine>> {
        match self.state() {
            State::Open(engine) => Ok(engine),
            State::Failed(err) => {
                let message = format!("database \"{}\" could not be opened", self.name);
                let hint = "Mend what is wrong and start the server again. logweir.databases has the reason too.";
                Err(Error::new(Kind::NotAvailable, message).with_detail(err.to_string()).with_hint(hint))
            }
            State::Closed => Err(missing(&self.name)),
        }
    }

    pub fn quotas(&self) -> Quotas {
        self.quotas.read().clone()
    }

    /// How long one statement may take.
    pub fn longest_statement(&self) -> Option<Duration> {
        self.quotas.read().statement_timeout
    }

    /// What its own statements may reach.
    pub fn bounds(&self) -> Arc<Limits> {
        Arc::clone(&self.bounds.read())
    }

    /// How many connections there may be, and how many there are.
    pub fn connections(&self) -> (usize, usize) {
        (self.most.load(Ordering::SeqCst), self.taken.load(Ordering::SeqCst))
    }

    /// Takes the place of a connection.
    pub fn enter(self: &Arc<Self>) -> Result<Place> {
        // First, so that whoever closes it sees the place, or else this sees that it is closed.
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        let place = Place(Arc::clone(self));
        self.engine()?;
        let most = self.most.load(Ordering::SeqCst);
        if before < most {
            return Ok(place);
        }
        Err(Error::new(Kind::TooManyConnections, format!("too many connections for database \"{}\"", self.name))
            .with_hint(format!("The limit is {most} connections.")))
    }
}

/// "database does not exist".
pub fn missing(name: &str) -> Error {
    Error::new(Kind::UndefinedDatabase, format!("database \"{name}\" does not exist"))
}

impl Databases {
    /// The main database alone, for tests and programs without a list: there cannot be others.
    pub fn single(engine: Arc<Engine>, compute: Compute) -> Arc<Databases> {
        let none: Open = |_, _| Box::pin(async { Err(Error::internal("there are no other databases")) });
        let server = Config { data_dir: None, ..Config::default() };
        Databases::with(engine, compute, (server, usize::MAX), Clock::system(), none, None)
    }

    fn with(
        engine: Arc<Engine>,
        compute: Compute,
        (server, connections): (Config, usize),
        clock: Clock,
        open: Open,
        list: Option<Listed>,
    ) -> Arc<Databases> {
        // Its connections are counted by the door.
        let main = Database::new(MAIN_DATABASE, "", compute, Quotas::default(), Limits::default(), usize::MAX);
        *main.state.write() = State::Open(Arc::clone(&engine));
        let (main, tenants, list) = (Arc::new(main), RwLock::default(), Mutex::new(list));
        let databases = Arc::new(Databases { server, connections, clock, open, main, tenants, list });
        engine.set_home(Arc::downgrade(&databases));
        databases
    }

    /// Opens all tenants beside the main database, which runs on `compute`. `server`: the settings of the main database, and
    /// the connections that it may have. Fails when the list cannot be read; not when a tenant cannot be opened.
    pub async fn open(
        engine: Arc<Engine>,
        compute: Compute,
        server: (Config, usize),
        clock: Clock,
        open: Open,
    ) -> Result<Arc<Databases>> {
        let Some(dir) = server.0.data_dir.clone() else { return Ok(Databases::single(engine, compute)) };
        let fs: Arc<dyn Fs> = Arc::new(Disk);
        let Found { file, content, fell_back } = KeptFile::open::<List>(fs, &dir, &LIST)?;
        let mut listed = Listed { file, list: content.unwrap_or_default() };
        settle(&mut listed, &dir, fell_back)?;
        let entries = listed.list.databases.clone();
        let databases = Databases::with(engine, compute, server, clock, open, Some(listed));
        let opening = entries.into_iter().map(|entry| databases.open_tenant(entry));
        let opened: Vec<_> = futures::stream::iter(opening).buffer_unordered(OPENING).collect().await;
        for database in opened {
            let database = database?;
            if let State::Failed(err) = database.state() {
                tracing::error!(database = %database.name, error = %err, detail = err.detail(), hint = err.hint(), "a database could not be opened; the others are");
            }
            databases.tenants.write().insert(database.name.clone(), database);
        }
        Ok(databases)
    }

    fn folder(&self, id: &str) -> Result<PathBuf> {
        let dir = self.server.data_dir.as_ref().ok_or_else(|| Error::internal("nothing is kept"))?;
        Ok(dir.join(DATABASES).join(id))
    }

    /// Opens a tenant on threads of its own. Fails when there are none; else the database says how it went.
    async fn open_tenant(self: &Arc<Self>, entry: Entry) -> Result<Arc<Database>> {
        let dir = self.folder(&entry.id)?;
        let Entry { id, name, quotas } = entry;
        let config = quotas.config(&name, &dir, &self.server);
        let most = quotas.connections(self.connections);
        let bounds = self.limits(&quotas);
        let (bounds, wrong) = match bounds {
            Ok(bounds) => (bounds, None),
            Err(err) => (Limits::nothing(), Some(err)),
        };
        if let Some(err) = wrong {
            tracing::warn!(database = %name, error = %err, "its statements may reach nothing");
        }
        let database = Arc::new(Database::new(&name, &id, Compute::new()?, quotas, bounds, most));
        let opened = database.compute.spawn((self.open)(config, self.clock.clone())).await.and_then(|opened| opened);
        *database.state.write() = match opened {
            Ok(engine) => {
                engine.set_home(Arc::downgrade(self));
                State::Open(engine)
            }
            Err(err) => State::Failed(err),
        };
        Ok(database)
    }

    fn limits(&self, quotas: &Quotas) -> Result<Limits> {
        let data = self.server.data_dir.as_deref().unwrap_or(Path::new("/"));
        Limits::of_tenant(&quotas.allow_files, &quotas.allow_hosts, data)
    }

    // ---- finding --------------------------------------------------------------------------------------------------

    pub fn main(&self) -> &Arc<Database> {
        &self.main
    }

    /// The database of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Database>> {
        if name == MAIN_DATABASE {
            return Some(Arc::clone(&self.main));
        }
        self.tenants.read().get(name).cloned()
    }

    /// All of them, the main one first.
    pub fn all(&self) -> Vec<Arc<Database>> {
        std::iter::once(&self.main).chain(self.tenants.read().values()).cloned().collect()
    }

    /// The database that a client of the Postgres protocol asks for; `None`: there is none of the name. Without a name it is
    /// that of the user. Where the name is the user's, as clients fill it in by themselves, or there are no tenants that could
    /// be meant, any name is that of the main database.
    pub fn choose(&self, name: &str, user: &str) -> Option<Arc<Database>> {
        let name = if name.is_empty() { user } else { name };
        let found = self.find(name);
        let main = || {
            let any = name == ALSO_MAIN || name == user || name.is_empty() || self.tenants.read().is_empty();
            any.then(|| Arc::clone(&self.main))
        };
        found.or_else(main)
    }

    /// Whether a role is an administrator of the main database, who may enter every other.
    pub fn is_operator(&self, role: &str) -> bool {
        self.main.engine().is_ok_and(|main| main.roles(|roles| roles.is_admin(role)))
    }

    // ---- changes --------------------------------------------------------------------------------------------------

    /// Creates a tenant; it is there, durably, when this returns. Goes on though the caller goes away.
    pub async fn create_database(self: &Arc<Self>, name: &str, quotas: Quotas) -> Result<()> {
        let (this, name) = (Arc::clone(self), name.to_string());
        detached(async move { this.create_now(&name, quotas).await }).await
    }

    async fn create_now(self: Arc<Self>, name: &str, quotas: Quotas) -> Result<()> {
        let mut list = self.list.lock().await;
        let listed = list.as_mut().ok_or_else(no_list)?;
        check_name(name)?;
        if self.find(name).is_some() {
            return Err(Error::new(Kind::DuplicateDatabase, format!("database \"{name}\" already exists")));
        }
        if listed.list.databases.len() >= MAX_TENANTS {
            let message = format!("there are {MAX_TENANTS} databases already");
            return Err(Error::new(Kind::ResourceLimit, message).with_hint("A further server can hold more."));
        }
        self.limits(&quotas)?;
        let id = format!("{:016x}", rand::random::<u64>());
        let entry = Entry { id: id.clone(), name: name.to_string(), quotas };
        listed.change(|list| list.databases.push(entry.clone()))?;
        let opened = match self.open_tenant(entry).await {
            Ok(database) => database.engine().map(|_| database),
            Err(err) => Err(err),
        };
        match opened {
            Ok(database) => {
                self.tenants.write().insert(name.to_string(), database);
                Ok(())
            }
            Err(err) => {
                self.forget(listed, name, &id)?;
                self.remove_folder(listed, &id).await;
                Err(err)
            }
        }
    }

    /// Takes a database off the list, durably: from here on it is not there any more.
    fn forget(&self, listed: &mut Listed, name: &str, id: &str) -> Result<()> {
        listed.change(|list| {
            list.databases.retain(|entry| entry.name != name);
            list.dropped.push(id.to_string());
        })
    }

    /// Removes the folder of a database that was dropped. If that fails, the next start does it.
    async fn remove_folder(&self, listed: &mut Listed, id: &str) {
        let Ok(folder) = self.folder(id) else { return };
        let removing = tokio::task::spawn_blocking(move || remove(&folder));
        let removed = removing.await.unwrap_or_else(|err| Err(Error::internal(err.to_string())));
        let removed = removed.and_then(|()| listed.change(|list| list.dropped.retain(|other| other != id)));
        if let Err(err) = removed {
            tracing::warn!(error = %err, "the folder of a database that was dropped is removed by the next start");
        }
    }

    /// Changes the quotas of a tenant. Gives the names of those that count when the server starts again.
    pub async fn alter_database(&self, name: &str, given: &[(String, String)]) -> Result<Vec<&'static str>> {
        let mut list = self.list.lock().await;
        let listed = list.as_mut().ok_or_else(no_list)?;
        let database = self.tenant(name)?;
        let mut quotas = database.quotas();
        let later = quotas.change(given)?;
        let bounds = self.limits(&quotas)?;
        let of = |entry: &&mut Entry| entry.name == name;
        listed.change(|list| {
            if let Some(entry) = list.databases.iter_mut().find(of) {
                entry.quotas = quotas.clone();
            }
        })?;
        if let State::Open(engine) = database.state() {
            engine.limit(quotas.ingest_rate, quotas.bytes_kept, quotas.max_queries(&self.server));
        }
        database.most.store(quotas.connections(self.connections), Ordering::SeqCst);
        *database.bounds.write() = Arc::new(bounds);
        *database.quotas.write() = quotas;
        Ok(later)
    }

    /// Drops a tenant with all that it holds. While clients are connected it is refused, or with `force` they are sent away.
    /// Goes on though the caller goes away.
    pub async fn drop_database(self: &Arc<Self>, name: &str, force: bool) -> Result<()> {
        let (this, name) = (Arc::clone(self), name.to_string());
        detached(async move { this.drop_now(&name, force).await }).await
    }

    async fn drop_now(self: Arc<Self>, name: &str, force: bool) -> Result<()> {
        let mut list = self.list.lock().await;
        let listed = list.as_mut().ok_or_else(no_list)?;
        let database = self.tenant(name)?;
        // From now on nobody comes in.
        let state = std::mem::replace(&mut *database.state.write(), State::Closed);
        let gone = match empty(&database, &state, force).await {
            Ok(()) => self.forget(listed, name, &database.id),
            Err(err) => Err(err),
        };
        if let Err(err) = gone {
            *database.state.write() = state;
            return Err(err);
        }
        self.tenants.write().remove(name);
        if let State::Open(engine) = state {
            engine.shutdown().await;
        }
        let id = database.id.clone();
        drop(database);
        self.remove_folder(listed, &id).await;
        Ok(())
    }

    fn tenant(&self, name: &str) -> Result<Arc<Database>> {
        if name == MAIN_DATABASE {
            // As PostgreSQL says it of the database that one is in.
            let err = Error::new(Kind::ObjectInUse, format!("database \"{name}\" is the main one and stays as it is"));
            return Err(err.with_hint("Its limits are settings of the server: logweir serve --help."));
        }
        self.find(name).ok_or_else(|| missing(name))
    }

    /// Stops all engines, so that the next start finds everything.
    pub async fn shutdown(&self) {
        // Nobody creates or drops one meanwhile.
        let _list = self.list.lock().await;
        let all = self.all();
        let engines = all.iter().filter_map(|database| database.engine().ok());
        join_all(engines.map(|engine| async move { engine.shutdown().await })).await;
    }
}

/// Waits until no client is connected to a database that nobody can enter any more; with `force` they are sent away.
async fn empty(database: &Database, state: &State, force: bool) -> Result<()> {
    let begun = tokio::time::Instant::now();
    loop {
        let (_, taken) = database.connections();
        if taken == 0 {
            return Ok(());
        }
        if !force || begun.elapsed() > LEAVING {
            let others = if taken == 1 { "is 1 other session" } else { "are other sessions" };
            return Err(Error::new(
                Kind::ObjectInUse,
                format!("database \"{}\" is being accessed by other users", database.name),
            )
            .with_detail(format!("There {others} using the database ({taken})."))
            .with_hint("DROP DATABASE … WITH (FORCE) ends them."));
        }
        if let State::Open(engine) = state {
            engine.backends().list().iter().for_each(|backend| backend.terminated.cancel());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Runs work to its end, whether somebody waits for it or not.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|err| Err(Error::internal(err.to_string())))
}

fn no_list() -> Error {
    Error::new(Kind::NotSupported, "there can be no other databases here")
        .with_hint("Start a server with `logweir serve --data-dir DIR`.")
}

fn check_name(name: &str) -> Result<()> {
    if RESERVED.contains(&name) {
        let message = format!("database name \"{name}\" is reserved");
        return Err(Error::new(Kind::DuplicateDatabase, message)
            .with_hint("Clients that ask for it come to the main database."));
    }
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(|c| c.is_control() || c == '/') {
        let message = format!("a database's name has 1 to {MAX_NAME} bytes, no slash and no control characters");
        return Err(Error::new(Kind::InvalidParameter, message));
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match Disk.remove_dir_all(folder) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder, &err)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes what a DROP that was killed has left. Of a list that lacks its last change, what was dropped by that is not there
/// any more, and what it created is left alone: nobody knows its name.
fn settle(listed: &mut Listed, dir: &Path, fell_back: Option<Error>) -> Result<()> {
    let folders = dir.join(DATABASES);
    if let Some(err) = fell_back {
        tracing::error!(error = %err, detail = err.detail(), hint = err.hint(), "the last change of the list of databases may be missing");
        let gone = |entry: &Entry| Disk.list(&folders.join(&entry.id)).is_err();
        let names: Vec<_> = listed.list.databases.iter().filter(|e| gone(e)).map(|e| e.name.clone()).collect();
        if !names.is_empty() {
            tracing::warn!(?names, "these were dropped by the change that is missing");
            listed.change(|list| list.databases.retain(|entry| !names.contains(&entry.name)))?;
        }
    }
    let dropped = listed.list.dropped.clone();
    // One that was put back by hand is on the list: it stays.
    let is_listed = |id: &String| listed.list.databases.iter().any(|entry| entry.id == *id);
    dropped.iter().filter(|id| !is_listed(id)).try_for_each(|id| remove(&folders.join(id)))?;
    if !dropped.is_empty() {
        listed.change(|list| list.dropped.clear())?;
    }
    let known: Vec<_> = listed.list.databases.iter().map(|entry| folders.join(&entry.id)).collect();
    let strays: Vec<_> = Disk.list(&folders).unwrap_or_default().into_iter().filter(|f| !known.contains(f)).collect();
    if !strays.is_empty() {
        tracing::warn!(folders = ?strays, "the list of databases does not know these folders; they are left alone");
    }
    Ok(())
}
