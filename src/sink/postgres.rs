//! Results in a table of PostgreSQL.
//!
//! Rows of a stream are inserted; rows of a view replace those with the same key, and go when their group goes. The position
//! stands in a table beside it and changes in the same transaction as the rows:
//!
//! ```text
//!     logweir_offsets (sink text PRIMARY KEY, delivered text, delivered_at timestamptz)
//! ```
//!
//! So every row is there exactly once whatever is killed when, and who reads the table sees a view as it was at one instant. A
//! transaction begins by locking its line there: should a connection break during COMMIT, the next one waits until it is
//! decided how that ended, and then goes on from there. `sink` is the sink's own id, not its name.
//!
//! All values go as texts, which PostgreSQL casts to the types of the columns: `inet`, `jsonb` or `numeric` work as well as the
//! types that this makes. The whole result of a view comes again after a restart, in one transaction that changes only what is
//! different.

mod table;
mod tls;

use std::time::Duration;

use futures::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Statement};

use super::encode::Encoding;
use super::{Batch, Delivered, Failure, Feed, Position, Sink, Spec};
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use table::Table;

pub static SPEC: Spec = Spec {
    name: "postgres",
    summary: "rows of a PostgreSQL table; of a view by INSERT … ON CONFLICT DO UPDATE and DELETE",
    options: &[
        OptionSpec::required("host", OptionKind::Hosts, "the server's name or address, or the folder of its socket"),
        OptionSpec::optional("port", OptionKind::Integer, Some("5432"), "the server's port"),
        OptionSpec::required("dbname", OptionKind::Text, "the database to connect to"),
        OptionSpec::required("user", OptionKind::Text, "the role to connect as"),
        OptionSpec::optional("password", OptionKind::Secret, None, "the role's password"),
        OptionSpec::optional(
            "sslmode",
            OptionKind::Choice(&["disable", "prefer", "require", "verify-full"]),
            Some("prefer"),
            "TLS, as libpq has it; only verify-full looks at the server's certificate",
        ),
        OptionSpec::optional(
            "sslrootcert",
            OptionKind::Path,
            None,
            "a file with the authorities for verify-full (PEM)",
        ),
        OptionSpec::required("table", OptionKind::Text, "the table, perhaps with its schema: 'metrics.error_rate'"),
        OptionSpec::optional(
            "create_table",
            OptionKind::Bool,
            Some("true"),
            "make the table when it is missing, with the relation's columns",
        ),
        OptionSpec::optional(
            "key",
            OptionKind::Text,
            None,
            "columns with a unique index, 'a, b': their rows are replaced [default: what a view is grouped by; none for a stream]",
        ),
        OptionSpec::optional(
            "offset_table",
            OptionKind::Text,
            Some("logweir_offsets"),
            "where the position is kept; made when it is missing",
        ),
    ],
    formats: &[],
    guarantee: "exactly once",
    upserts: true,
    repeats: false,
    keeps_position: true,
    writes_into: None,
    build,
};

/// A connection must be there within this time, and a statement done within the other.
const CONNECT: Duration = Duration::from_secs(10);
const STATEMENT: Duration = Duration::from_secs(60);

fn build(options: &Options, _: Encoding) -> Result<Box<dyn Sink>> {
    let port = options.integer("port").and_then(|port| u16::try_from(port).ok());
    if port.is_none() {
        return Err(Error::new(Kind::InvalidParameter, "option \"port\" takes a number up to 65535"));
    }
    let name = |option: &str| table::name_of(options.text(option).unwrap_or_default(), option);
    let (table, offsets) = (name("table")?, name("offset_table")?);
    tls::check(options)?;
    Ok(Box::new(Postgres { options: options.clone(), table, offsets, at: Position::default(), open: None }))
}

struct Postgres {
    // fixed
    options: Options,
    /// Both quoted as SQL needs it.
    table: String,
    offsets: String,
    // state
    /// What the server has, as of the last transaction.
    at: Position,
    open: Option<Open>,
}

/// A connection, made ready.
struct Open {
    client: Client,
    table: Table,
    id: String,
    insert: Statement,
    lock: Statement,
    advance: Statement,
    /// A transaction is open: parts of a change have come, and the rest is to follow.
    inside: bool,
    /// The whole result is coming: keys that it does not have are to go.
    replacing: bool,
}

impl Postgres {
    fn config(&self) -> Result<Config> {
        let text = |name: &str| self.options.text(name).unwrap_or_default();
        let mut config = Config::new();
        config.host(text("host")).dbname(text("dbname")).user(text("user"));
        config.port(self.options.integer("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(5432));
        config.application_name("logweir").connect_timeout(CONNECT).keepalives_idle(Duration::from_secs(30));
        config.tcp_user_timeout(Duration::from_secs(60));
        config.options(format!("-c statement_timeout={}", STATEMENT.as_millis()));
        if let Some(password) = self.options.secret("password")? {
            config.password(password);
        }
        Ok(config)
    }

    async fn connect(&self) -> Delivered<Client> {
        let connected = tokio::time::timeout(CONNECT, tls::connect(self.config()?, &self.options)).await;
        let late = || Error::new(Kind::Io, "no answer in time");
        let client = connected.unwrap_or_else(|_| Err(late()));
        Ok(client.map_err(|err| {
            let place = format!("could not connect to PostgreSQL at {}", self.options.text("host").unwrap_or_default());
            err.with_context(&place)
        })?)
    }

    /// Connects, makes the tables that are missing, and reads the position.
    async fn begin(&mut self, feed: &Feed, known: Position) -> Delivered<Position> {
        self.open = None;
        let client = self.connect().await?;
        let offsets = &self.offsets;
        let make = format!(
            "CREATE TABLE IF NOT EXISTS {offsets} (sink text PRIMARY KEY, delivered text NOT NULL, delivered_at timestamptz NOT NULL DEFAULT now())"
        );
        if !exists(&client, offsets).await? {
            client.batch_execute(&make).await.map_err(failed)?;
        }
        let given = self.options.text("key").is_some();
        let create = self.options.bool("create_table");
        let mut table = Table::of(&client, &self.table, feed, given).await?;
        if table.is_missing() {
            if !create {
                let err = Error::new(Kind::UndefinedTable, format!("table {} does not exist", self.table));
                return Err(err.with_hint("Make it, or say create_table = true.").into());
            }
            client
                .batch_execute(&table.creation(&self.table, feed, server_version(&client).await?))
                .await
                .map_err(failed)?;
            table = Table::of(&client, &self.table, feed, given).await?;
        }
        table.check(&self.table)?;
        let insert = client.prepare(&table.insert(&self.table)).await.map_err(failed)?;
        let lock = format!("SELECT delivered FROM {offsets} WHERE sink = $1 FOR UPDATE");
        let advance = format!("UPDATE {offsets} SET delivered = $2, delivered_at = now() WHERE sink = $1");
        let first = format!("INSERT INTO {offsets} (sink, delivered) VALUES ($1, $2) ON CONFLICT DO NOTHING");
        let is_new = client.execute(first.as_str(), &[&feed.id, &known.to_string()]).await.map_err(failed)? > 0;
        if is_new && feed.upserts && !table.is_empty(&client, &self.table).await? {
            let gone = format!("DELETE FROM {offsets} WHERE sink = $1");
            client.execute(gone.as_str(), &[&feed.id]).await.map_err(failed)?;
            let err = Error::new(Kind::ObjectInUse, format!("table {} has rows already", self.table));
            let err =
                err.with_detail("The table of a view's sink holds the view's rows and no others: others would go.");
            return Err(err.with_hint("Name another table, or empty this one.").into());
        }
        let lock = client.prepare(&lock).await.map_err(failed)?;
        let advance = client.prepare(&advance).await.map_err(failed)?;
        // Waits for what an earlier connection of ours is still doing.
        let found = client.query_one(&lock, &[&feed.id]).await.map_err(failed)?;
        self.at = position_of(found.get(0))?;
        let id = feed.id.clone();
        self.open = Some(Open { client, table, id, insert, lock, advance, inside: false, replacing: false });
        Ok(self.at)
    }

    async fn take(&mut self, batch: &Batch) -> Delivered<Option<Position>> {
        let Some(open) = &mut self.open else {
            return Err(Error::new(Kind::Io, "there is no connection to PostgreSQL").into());
        };
        let taken = open.take(batch, &self.table, self.at).await;
        match &taken {
            Ok(Some(position)) => self.at = *position,
            Ok(None) | Err(Failure::Refused(_)) => {}
            // What is left of the transaction goes with its connection.
            Err(Failure::Again(..)) => self.open = None,
        }
        taken
    }
}

impl Open {
    async fn take(&mut self, batch: &Batch, name: &str, at: Position) -> Delivered<Option<Position>> {
        if !self.inside {
            self.client.batch_execute("BEGIN").await.map_err(failed)?;
            let found = self.client.query_one(&self.lock, &[&self.id]).await.map_err(failed)?;
            if position_of(found.get(0))? != at {
                return Err(Error::new(Kind::Io, "somebody else has delivered for this sink").into());
            }
            (self.inside, self.replacing) = (true, false);
        }
        self.client.batch_execute("SAVEPOINT batch").await.map_err(failed)?;
        match self.put(batch, name).await {
            Ok(()) => {}
            Err(err) if is_refusal(&err) => {
                self.client.batch_execute("ROLLBACK TO SAVEPOINT batch").await.map_err(failed)?;
                return Err(Failure::Refused(error(&err)));
            }
            Err(err) => return Err(failed(err)),
        }
        self.replacing |= batch.replaces;
        let Some(upto) = batch.upto else {
            self.client.batch_execute("RELEASE SAVEPOINT batch").await.map_err(failed)?;
            return Ok(None);
        };
        if self.replacing {
            let sweep = self.table.sweep(name);
            self.client.batch_execute(&sweep).await.map_err(failed)?;
        }
        self.client.execute(&self.advance, &[&self.id, &upto.to_string()]).await.map_err(failed)?;
        self.client.batch_execute("COMMIT").await.map_err(failed)?;
        self.inside = false;
        Ok(Some(upto))
    }

    /// Puts rows into the table, and takes those out whose keys are gone.
    async fn put(&self, batch: &Batch, name: &str) -> std::result::Result<(), PutError> {
        if batch.replaces {
            self.client.batch_execute(&self.table.begin_replacing(name)).await?;
        }
        let changes = self.table.changes(batch)?;
        for (sql, values) in self.table.deletions(name, &changes) {
            let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as &(dyn ToSql + Sync)).collect();
            self.client.execute(sql.as_str(), &values).await?;
        }
        if changes.rows() > 0 {
            let columns: Vec<&(dyn ToSql + Sync)> = changes.columns.iter().map(|c| c as &(dyn ToSql + Sync)).collect();
            self.client.execute(&self.insert, &columns).await?;
            if self.replacing || batch.replaces {
                let keys: Vec<&(dyn ToSql + Sync)> =
                    self.table.key.iter().map(|&i| &changes.columns[i] as &(dyn ToSql + Sync)).collect();
                if !keys.is_empty() {
                    self.client.execute(self.table.note_keys().as_str(), &keys).await?;
                }
            }
        }
        Ok(())
    }
}

/// What may go wrong while rows are put into the table.
enum PutError {
    Postgres(tokio_postgres::Error),
    Other(Error),
}

impl From<tokio_postgres::Error> for PutError {
    fn from(err: tokio_postgres::Error) -> PutError {
        PutError::Postgres(err)
    }
}

impl From<Error> for PutError {
    fn from(err: Error) -> PutError {
        PutError::Other(err)
    }
}

fn failed(err: impl Into<PutError>) -> Failure {
    Failure::Again(error(&err.into()), None)
}

/// Whether it is about the values of a row: classes 22 (data exception) and 23 (constraint violation) of PostgreSQL's error
/// codes (PostgreSQL manual, appendix A), and values that are too long for an index or a row.
fn is_refusal(err: &PutError) -> bool {
    let PutError::Postgres(err) = err else { return false };
    let Some(code) = err.code() else { return false };
    code.code().starts_with("22") || code.code().starts_with("23") || *code == SqlState::PROGRAM_LIMIT_EXCEEDED
}

/// The error in words; a server's message holds no credentials of ours.
fn error(err: &PutError) -> Error {
    let err = match err {
        PutError::Postgres(err) => err,
        PutError::Other(err) => return err.clone(),
    };
    match err.as_db_error() {
        Some(db) => {
            let told = Error::new(Kind::Io, format!("PostgreSQL: {} (SQLSTATE {})", db.message(), db.code().code()));
            let told = db.detail().into_iter().fold(told, |told, detail| told.with_detail(detail));
            db.hint().into_iter().fold(told, |told, hint| told.with_hint(hint))
        }
        None => {
            let cause = std::error::Error::source(err).map(|cause| format!(": {cause}")).unwrap_or_default();
            Error::new(Kind::Io, format!("PostgreSQL: {err}{cause}"))
        }
    }
}

fn position_of(text: &str) -> Result<Position> {
    Position::parse(text).ok_or_else(|| {
        Error::new(Kind::Corrupted, format!("the offset table holds {text:?}, which is no position"))
            .with_hint("Put it right in the table, or drop the sink and create it again.")
    })
}

async fn exists(client: &Client, name: &str) -> Delivered<bool> {
    let found = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await.map_err(failed)?;
    Ok(found.get(0))
}

/// Such as 150004.
async fn server_version(client: &Client) -> Delivered<i32> {
    let found = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.map_err(failed)?;
    Ok(found.get(0))
}

impl Sink for Postgres {
    fn open<'a>(&'a mut self, feed: &'a Feed, known: Position) -> BoxFuture<'a, Delivered<Position>> {
        Box::pin(self.begin(feed, known))
    }

    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Delivered<Option<Position>>> {
        Box::pin(self.take(batch))
    }

    fn holds(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.inside)
    }
}
