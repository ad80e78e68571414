//! What a client sends for `COPY … FROM STDIN`, as rows of a stream.
//!
//! Receives the bytes in pieces of any size; cuts them into lines and fields ([`lines`], or [`tuples`] of the binary format), reads the fields as values of their
//! columns ([`values`]), and puts a record into the stream for every [`RECORD_ROWS`] rows or [`RECORD_BYTES`] of text. So a
//! copy of any length takes little memory, and is slowed down when the stream is. Where records are cut depends on the lines
//! only: sent again under the same idempotency key, it adds what was missing.
//!
//! A copy within one record comes in as a whole or not at all. After an error in a longer one, the records before stay;
//! the error says how many rows they have.

pub mod lines;
pub mod tuples;
mod values;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};

use self::lines::Lines;
use self::tuples::Tuples;
use self::values::Column;
use super::CopyOptions;
use crate::engine::{Inserted, Inserter, Stream};
use crate::error::{Error, Kind, Result};

/// Rows and bytes of text of one record. Small enough to be parsed and folded without a break that others would notice.
pub const RECORD_ROWS: usize = 8192;
pub const RECORD_BYTES: usize = 4 << 20;

/// See the file header.
pub struct CopyIn {
    // Fixed.
    stream: String,
    schema: SchemaRef,
    // State.
    lines: Input,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    inserter: Inserter,
}

impl CopyIn {
    /// `names`: the columns of the lines; empty: all that can be given.
    pub fn new(stream: &Arc<Stream>, names: &[String], options: CopyOptions, key: Option<String>) -> Result<CopyIn> {
        let fields = stream.insertable(names)?;
        if fields.is_empty() {
            return Err(Error::new(Kind::UndefinedColumn, format!("stream \"{}\" has no columns yet", stream.name))
                .with_hint(
                    "Its format learns them from lines, and none have come yet. Declare columns in CREATE TABLE.",
                ));
        }
        let columns = fields.iter().map(|field| Column::new(field)).collect();
        let inserter = Inserter::new(stream, key, true)?;
        let schema = Arc::new(Schema::new(fields));
        Ok(CopyIn {
            stream: stream.name.clone(),
            schema,
            lines: match options.binary {
                true => Input::Binary(Tuples::default()),
                false => Input::Text(Box::new(Lines::new(options))),
            },
            columns,
            rows: 0,
            bytes: 0,
            inserter,
        })
    }

    /// Whether it is in the binary format.
    pub fn is_binary(&self) -> bool {
        matches!(self.lines, Input::Binary(_))
    }

    /// How many columns a line has.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Rows that are in the stream, or will be, whatever becomes of the others.
    pub fn sent(&self) -> u64 {
        self.inserter.sent()
    }

    /// Takes in more of what the client sends.
    pub async fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.lines.feed(bytes)?;
        self.take(false).await
    }

    /// The client has sent all. When this returns, the rows are durable and visible.
    pub async fn finish(mut self) -> Result<Inserted> {
        self.take(true).await?;
        self.send().await?;
        self.inserter.finish().await
    }

    /// Sends full records on. An error says how many rows are in the stream; by then they can be seen there.
    async fn take(&mut self, last: bool) -> Result<()> {
        loop {
            match self.take_lines(last) {
                Ok(true) => self.send().await?,
                Ok(false) => return Ok(()),
                Err(err) => {
                    self.inserter.settle().await?;
                    return Err(err);
                }
            }
        }
    }

    /// Reads lines until a record is full (then `true`) or there is no whole line left.
    fn take_lines(&mut self, last: bool) -> Result<bool> {
        while self.lines.advance(last).map_err(|err| self.placed(err, None))? {
            self.take_line()?;
            self.rows += 1;
            self.bytes += self.lines.bytes();
            if self.rows >= RECORD_ROWS || self.bytes >= RECORD_BYTES {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_line(&mut self) -> Result<()> {
        let bad = |message: String| Error::new(Kind::BadCopy, message);
        if self.lines.fields() > self.columns.len() {
            return Err(self.placed(bad("extra data after last expected column".into()), None));
        }
        for at in 0..self.columns.len() {
            if at == self.lines.fields() {
                let missing = format!("missing data for column \"{}\"", self.columns[at].name());
                return Err(self.placed(bad(missing), None));
            }
            let (column, field) = (&mut self.columns[at], self.lines.field(at));
            let taken = match &self.lines {
                Input::Text(_) => column.push(field),
                Input::Binary(_) => column.push_binary(field),
            };
            taken.map_err(|err| self.placed(err, Some(at)))?;
        }
        Ok(())
    }

    /// Says where in the copy an error is, in PostgreSQL's words, and what of it is in the stream all the same.
    fn placed(&self, err: Error, column: Option<usize>) -> Error {
        let mut place = format!("COPY {}, line {}", self.stream, self.lines.number());
        if let Some(at) = column {
            let value: String = self.lines.field(at).map_or_else(|| "NULL".into(), shown);
            place += &format!(", column {}: {value}", self.columns[at].name());
        }
        self.with_sent(err, place)
    }

    fn with_sent(&self, err: Error, place: String) -> Error {
        match self.inserter.sent() {
            0 => err.with_detail(place),
            sent => err.with_detail(format!(
                "{place}. The {sent} rows before it, as records of their own, are in the stream."
            )),
        }
    }

    /// Puts the rows so far into the stream.
    async fn send(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<_>>()?;
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let last = self.lines.number();
        if let Err(err) = self.inserter.add(&rows) {
            let place = format!("COPY {}, in the {} rows up to line {last}", self.stream, self.rows);
            return Err(self.with_sent(err, place));
        }
        (self.rows, self.bytes) = (0, 0);
        self.inserter.send().await
    }
}

/// Rows of fields in one of the formats.
enum Input {
    Text(Box<Lines>),
    Binary(Tuples),
}

impl Input {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Input::Text(lines) => lines.feed(bytes),
            Input::Binary(tuples) => tuples.feed(bytes),
        }
    }

    fn advance(&mut self, last: bool) -> Result<bool> {
        match self {
            Input::Text(lines) => lines.advance(last),
            Input::Binary(tuples) => tuples.advance(last),
        }
    }

    fn number(&self) -> u64 {
        match self {
            Input::Text(lines) => lines.number(),
            Input::Binary(tuples) => tuples.number(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Input::Text(lines) => lines.bytes(),
            Input::Binary(tuples) => tuples.bytes(),
        }
    }

    fn fields(&self) -> usize {
        match self {
            Input::Text(lines) => lines.fields(),
            Input::Binary(tuples) => tuples.fields(),
        }
    }

    fn field(&self, at: usize) -> Option<&[u8]> {
        match self {
            Input::Text(lines) => lines.field(at),
            Input::Binary(tuples) => tuples.field(at),
        }
    }
}

/// The beginning of a value, for a message.
fn shown(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(100)]);
    format!("\"{text}{}\"", if value.len() > 100 { "…" } else { "" })
}
