//! What becomes of rows: a key, a payload and a time each.

use arrow::array::{Array, BooleanArray, RecordBatch, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};

use super::topic::Limits;
use crate::error::{Error, Kind, Result};
use crate::sink::encode::{Encoding, Records};
use crate::sink::{Batch, Delivered, Failure};

/// What a message takes beside its key and payload, at most: the frames of a record and of a batch of one (Kafka's manual,
/// Message Format: 61 bytes of a batch, and up to 26 bytes of lengths and differences for a record).
const OVERHEAD: usize = 100;

/// The messages of a batch.
pub struct Messages {
    rows: usize,
    keys: Option<Records>,
    payloads: Records,
    times: Option<TimestampMillisecondArray>,
    gone: Option<BooleanArray>,
}

impl Messages {
    /// `key` and `time` are columns by index.
    pub fn of(batch: &Batch, encoding: &Encoding, key: Option<&[usize]>, time: Option<usize>) -> Result<Messages> {
        let rows = &batch.rows;
        let keys = key.map(|key| Encoding::Json.records(&rows.project(key)?)).transpose()?;
        let times = time.map(|column| millis(rows, column)).transpose()?;
        let payloads = encoding.records(rows)?;
        Ok(Messages { rows: rows.num_rows(), keys, payloads, times, gone: batch.gone.clone() })
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn key(&self, row: usize) -> Option<&[u8]> {
        self.keys.as_ref().map(|keys| keys.get(row))
    }

    /// None is a tombstone.
    pub fn payload(&self, row: usize) -> Option<&[u8]> {
        let is_gone = self.gone.as_ref().is_some_and(|gone| gone.is_valid(row) && gone.value(row));
        (!is_gone).then(|| self.payloads.get(row))
    }

    /// In milliseconds since 1970; `None` for the time of sending.
    pub fn time(&self, row: usize) -> Option<i64> {
        self.times.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row))
    }

    /// Whether the topic takes them all.
    pub fn check(&self, limits: &Limits) -> Delivered<()> {
        let size = |row| self.key(row).map_or(0, <[u8]>::len) + self.payload(row).map_or(0, <[u8]>::len) + OVERHEAD;
        let Some(size) = (0..self.rows).map(size).find(|size| *size > limits.message_bytes) else { return Ok(()) };
        let message = format!("a message of {size} bytes is too large: {} bytes are taken", limits.message_bytes);
        Err(Failure::Refused(
            Error::new(Kind::OutOfRange, message)
                .with_detail("The limits are max.message.bytes of the topic and kafka.message.max.bytes of the sink."),
        ))
    }
}

fn millis(rows: &RecordBatch, column: usize) -> Result<TimestampMillisecondArray> {
    let times = cast(rows.column(column), &DataType::Timestamp(TimeUnit::Millisecond, None))?;
    let times = times.as_any().downcast_ref::<TimestampMillisecondArray>().cloned();
    times.ok_or_else(|| Error::internal("a cast gives what it is asked for"))
}
