//! Rows that statements put into a stream (INSERT, COPY … FROM STDIN).
//!
//! Receives batches whose columns are some of the stream's; hands them on as pushed frames ([`inserted`]), one record of the
//! log each time it is told to. When it has finished, all of them are durable and visible: whoever selects next sees them.
//!
//! A record is synced while the rows of the next one are made, so that many rows do not wait for the disk one record after
//! the other; there are never more than two of them at a time.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::FieldRef;
use tokio::task::JoinHandle;

use super::Stream;
use crate::batch::inserted::{Rows, holds};
use crate::batch::{Event, Input};
use crate::error::{Error, Kind, Result};
use crate::ingest::{Ingest, Push, Pushed};
use crate::options::nearest;
use crate::position::{Position, Unit};
use crate::storage::keys::MAX_KEY;
use crate::storage::stream_log::INSERTS;

/// Longest key of a statement. The number of a record stands behind it: a zero byte and the digits of an u64.
const MAX_STATEMENT_KEY: usize = MAX_KEY - 21;

/// Whose event time rows of statements tell.
const PARTITION: &str = "insert";

impl Stream {
    /// The columns that a statement gives values for, in order; without names, all that it can give.
    pub fn insertable(&self, names: &[String]) -> Result<Vec<FieldRef>> {
        let schema = self.runner.shape.format.schema();
        let shape = &self.runner.shape;
        if names.is_empty() {
            let can_be_given = |field: &&FieldRef| holds(field.data_type()) && !shape.adds(field.name());
            return Ok(schema.fields().iter().filter(can_be_given).map(|field| shape.marked(field)).collect());
        }
        let mut fields: Vec<FieldRef> = Vec::new();
        for name in names {
            let Some((_, field)) = schema.fields().find(name).filter(|_| !shape.adds(name)) else {
                return Err(self.no_column(name));
            };
            if !holds(field.data_type()) {
                let message = format!("column \"{name}\" has a type that cannot be inserted: {}", field.data_type());
                return Err(Error::new(Kind::NotSupported, message));
            }
            if fields.iter().any(|known| known.name() == name) {
                let message = format!("column \"{name}\" specified more than once");
                return Err(Error::new(Kind::DuplicateColumn, message));
            }
            fields.push(shape.marked(field));
        }
        Ok(fields)
    }

    fn no_column(&self, name: &str) -> Error {
        let generated = |why: String| {
            let message = format!("cannot insert a value into column \"{name}\"");
            Error::new(Kind::GeneratedAlways, message).with_detail(why)
        };
        if self.runner.shape.includes.iter().any(|include| include.name == name) {
            return generated("It is a metadata column: the engine knows its value.".into());
        }
        if let Some(column) = self.runner.shape.computed.iter().find(|column| column.name == name) {
            return generated(format!("It is computed from the other columns of its row: {}.", column.sql));
        }
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", self.name);
        let err = Error::new(Kind::UndefinedColumn, message);
        let schema = self.runner.shape.format.schema();
        match nearest(name, schema.fields().iter().map(|field| field.name().as_str())) {
            Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
            None if schema.fields().is_empty() => err.with_hint(
                "The stream's format learns its columns from lines, and none have come yet. Declare columns in CREATE TABLE.",
            ),
            None => err,
        }
    }
}

/// What became of the rows of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    pub rows: u64,
    /// So many rows, of this or an earlier attempt under the same key, were in the stream before.
    pub repeated: u64,
}

impl Inserted {
    /// What there is to say about it.
    pub fn notice(&self) -> Option<String> {
        let Inserted { repeated, .. } = self;
        (*repeated > 0)
            .then(|| format!("{repeated} rows were already stored under this idempotency key and were not added again"))
    }
}

/// See the file header.
pub struct Inserter {
    // Fixed.
    stream: Arc<Stream>,
    ingest: Arc<Ingest>,
    /// Under this key the rows count once; with its number behind it, if there are several records.
    key: Option<String>,
    several: bool,
    // State.
    rows: Rows,
    records: u64,
    count: u64,
    repeated: u64,
    /// Behind the last frame that is known to be logged.
    end: u64,
    sending: Option<JoinHandle<Result<Pushed>>>,
}

impl Inserter {
    /// Fails when the stream takes no rows now, or the key is too long. `several`: the rows may come in several records.
    pub fn new(stream: &Arc<Stream>, key: Option<String>, several: bool) -> Result<Inserter> {
        if key.as_ref().is_some_and(|key| key.len() > MAX_STATEMENT_KEY) {
            let message = format!("the idempotency key of a statement has at most {MAX_STATEMENT_KEY} bytes");
            return Err(Error::new(Kind::InvalidParameter, message)
                .with_hint("Nothing was put in. SET logweir.idempotency_key to a shorter one, such as a hash of it."));
        }
        let ingest = stream.pipeline()?;
        let rows = Rows::default();
        Ok(Inserter {
            stream: Arc::clone(stream),
            ingest,
            key,
            several,
            rows,
            records: 0,
            count: 0,
            repeated: 0,
            end: 0,
            sending: None,
        })
    }

    /// Adds rows. Those that may not be NULL must not.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        for field in self.stream.runner.shape.format.schema().fields() {
            let shape = &self.stream.runner.shape;
            let is_time = shape.time.as_ref() == Some(field.name()) && !shape.adds(field.name());
            let required = !field.is_nullable() || is_time;
            let nulls = rows.column_by_name(field.name()).map_or(rows.num_rows(), |column| column.null_count());
            if required && nulls > 0 {
                let (name, stream) = (field.name(), &self.stream.name);
                let message =
                    format!("null value in column \"{name}\" of relation \"{stream}\" violates not-null constraint");
                return Err(Error::new(Kind::NotNull, message));
            }
        }
        self.check_computed(rows)?;
        self.rows.push(rows)?;
        self.count += rows.num_rows() as u64;
        let limit = self.stream.push_bytes;
        if self.rows.bytes() as u64 > limit {
            let message = format!("the rows of the statement take more than push_bytes allows ({limit} bytes)");
            return Err(Error::new(Kind::ResourceLimit, message)
                .with_hint("Give them in several statements, or with COPY … FROM STDIN."));
        }
        Ok(())
    }

    /// Fails when a column of one of the rows cannot be computed, or is no value of its type: a line is kept as malformed
    /// then, a statement is refused.
    fn check_computed(&self, rows: &RecordBatch) -> Result<()> {
        let shape = &self.stream.runner.shape;
        if !shape.checks_inserted() {
            return Ok(());
        }
        let mut written = Rows::default();
        written.push(rows)?;
        let frames = written.take();
        // As they will come in, but for their offsets, which nobody knows yet.
        let (base, ingest_time) = (self.end, self.stream.clock.now());
        let end = base + frames.len() as u64;
        let (partition, key) = (PARTITION.to_string(), String::new());
        let position = Position { partition, key, start: base, end, unit: Unit::Offsets };
        shape.check_inserted(&Input { base, ingest_time, position, frames, event: Event::Rows })
    }

    /// Rows that have been sent: they are in the stream, or will be.
    pub fn sent(&self) -> u64 {
        self.count
    }

    /// Sends the rows added since the last time as one record. The one before it is durable when this returns.
    pub async fn send(&mut self) -> Result<()> {
        self.sent_before().await?;
        if self.rows.is_empty() {
            return Ok(());
        }
        // With what no key of a client can hold: "batch/0" may be one.
        let number = |key: &String| if self.several { format!("{key}\0{}", self.records) } else { key.clone() };
        let push = Push {
            source: INSERTS,
            partition: PARTITION.into(),
            frames: self.rows.take(),
            key: self.key.as_ref().map(number),
            patience: None,
        };
        self.records += 1;
        let ingest = Arc::clone(&self.ingest);
        self.sending = Some(tokio::spawn(async move { ingest.push(push).await }));
        Ok(())
    }

    async fn sent_before(&mut self) -> Result<()> {
        let Some(sending) = self.sending.take() else { return Ok(()) };
        let pushed = sending.await.map_err(|err| Error::internal(err.to_string()))??;
        self.end = self.end.max(pushed.offsets.end);
        if pushed.repeated {
            self.repeated += pushed.offsets.end - pushed.offsets.start;
        }
        Ok(())
    }

    /// Waits until what was sent is durable and visible.
    pub async fn settle(&mut self) -> Result<()> {
        self.sent_before().await?;
        self.ingest.visible(self.end).await
    }

    /// Sends what is left and waits until all is durable and visible.
    pub async fn finish(mut self) -> Result<Inserted> {
        self.send().await?;
        self.settle().await?;
        Ok(Inserted { rows: self.count, repeated: self.repeated })
    }
}
