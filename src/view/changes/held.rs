//! What a receiver holds: a multiset of rows, each known by its bytes, sorted into the windows they belong to.
//!
//! A new result is added row by row, only for those windows that were computed again, and [`Held::settle`] then tells what
//! has to go and what has to come. Nothing is copied for that: each row carries how often it was there and how often it is
//! there now. The memory is taken from that of queries and thereby limited.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, RowParser, SortField};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use crate::error::{Error, Kind, Result};
use crate::rollup::window::to_micros;
use crate::time::Micros;

/// Bytes that a row takes beside its own: its entry in the map and its place in memory.
const ENTRY_BYTES: usize = 64;

/// The window of rows that have none, and of all rows when windows do not matter.
const NO_WINDOW: Micros = Micros::MIN;

/// Which of two results a row is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    Now,
}

#[derive(Debug, Default)]
struct Count {
    before: u32,
    now: u32,
}

type Group = HashMap<Box<[u8]>, Count>;

/// See the file header.
pub struct Held {
    // fixed
    schema: SchemaRef,
    converter: RowConverter,
    parser: RowParser,
    /// The column that tells a row's window, and what it is more than the window's start.
    window: Option<(usize, Micros)>,
    // state
    windows: BTreeMap<Micros, Group>,
    /// Only these windows are computed again.
    range: Option<(Micros, Micros)>,
    memory: MemoryReservation,
}

/// Rows that went and rows that came, each in the order of their values.
pub struct Difference {
    pub removed: Vec<Box<[u8]>>,
    pub added: Vec<Box<[u8]>>,
    /// Of these rows.
    _memory: MemoryReservation,
}

impl Held {
    /// Holds nothing yet. `schema` is that of the rows; `pool` lends the memory.
    pub fn new(schema: SchemaRef, window: Option<(usize, Micros)>, pool: &Arc<dyn MemoryPool>) -> Result<Held> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|_| {
            Error::new(Kind::NotSupported, "rows of these types cannot be compared, so their changes are not known")
                .with_hint("Leave the columns of nested types out, or cast them to text.")
        })?;
        let parser = converter.parser();
        let memory = MemoryConsumer::new("subscription").register(pool);
        Ok(Held { schema, converter, parser, window, windows: BTreeMap::new(), range: None, memory })
    }

    /// Whether rows are told apart by their windows.
    pub fn is_windowed(&self) -> bool {
        self.window.is_some()
    }

    /// Says which windows the next rows of [`Side::Now`] stand for: all, or those that start in a closed range.
    pub fn renew(&mut self, range: Option<(Micros, Micros)>) {
        self.range = range.filter(|_| self.is_windowed());
    }

    pub fn add(&mut self, batch: &RecordBatch, side: Side) -> Result<()> {
        let columns = conform(batch.columns(), &self.schema)?;
        let rows = self.converter.convert_columns(&columns)?;
        let starts = self.window.map(|(column, shift)| window_starts(&columns[column], shift)).transpose()?;
        let mut grown = 0;
        for (i, row) in rows.iter().enumerate() {
            let start = starts.as_ref().map_or(NO_WINDOW, |starts| starts[i]);
            if side == Side::Now && self.range.is_some_and(|(low, high)| start < low || start > high) {
                continue;
            }
            let group = self.windows.entry(start).or_default();
            let count = match group.get_mut(row.data()) {
                Some(count) => count,
                None => {
                    grown += row.data().len() + ENTRY_BYTES;
                    group.entry(row.data().into()).or_default()
                }
            };
            match side {
                Side::Before => count.before += 1,
                Side::Now => count.now += 1,
            }
        }
        self.memory.try_grow(grown).map_err(|_| too_large())
    }

    /// Compares what was there with what is there now, in the windows that were computed again; what is there now is
    /// held from then on.
    pub fn settle(&mut self) -> Result<Difference> {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        let (low, high) = self.range.unwrap_or((Micros::MIN, Micros::MAX));
        let (mut gone, mut copied, mut empty) = (0, 0, Vec::new());
        for (start, group) in self.windows.range_mut(low..=high) {
            group.retain(|row, count| {
                for _ in count.now..count.before {
                    removed.push(row.clone());
                    copied += row.len();
                }
                for _ in count.before..count.now {
                    added.push(row.clone());
                    copied += row.len();
                }
                *count = Count { before: count.now, now: 0 };
                if count.before == 0 {
                    gone += row.len() + ENTRY_BYTES;
                }
                count.before > 0
            });
            if group.is_empty() {
                empty.push(*start);
            }
        }
        empty.iter().for_each(|start| drop(self.windows.remove(start)));
        self.memory.try_shrink(gone)?;
        let memory = self.memory.new_empty();
        memory.try_grow(copied).map_err(|_| too_large())?;
        removed.sort_unstable();
        added.sort_unstable();
        Ok(Difference { removed, added, _memory: memory })
    }

    /// The values of such rows, as columns.
    pub fn columns<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let columns = self.converter.convert_rows(rows.map(|row| self.parser.parse(row)))?;
        conform(&columns, &self.schema)
    }
}

fn too_large() -> Error {
    Error::new(Kind::ResourceLimit, "the subscription's rows do not fit into the memory of queries (query-memory)")
        .with_hint("Subscribe to fewer rows or columns, or start the server with a larger --query-memory.")
}

/// The columns in the very types of the schema: operators may give another form of the same type.
pub fn conform(columns: &[ArrayRef], schema: &Schema) -> Result<Vec<ArrayRef>> {
    let pairs = columns.iter().zip(schema.fields());
    let conformed = pairs.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => Ok(cast(column, field.data_type())?),
    });
    conformed.collect()
}

fn window_starts(column: &ArrayRef, shift: Micros) -> Result<Vec<Micros>> {
    let raw = cast(column, &DataType::Int64)?;
    let raw = raw.as_primitive::<Int64Type>();
    let start = |i: usize| {
        let micros = to_micros(column.data_type(), raw.value(i));
        micros.map_or(NO_WINDOW, |micros| micros.saturating_sub(shift))
    };
    Ok((0..column.len()).map(|i| if column.is_null(i) { NO_WINDOW } else { start(i) }).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, TimeUnit};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("w", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("k", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]))
    }

    fn batch(rows: &[(Option<i64>, &str, i64)]) -> RecordBatch {
        let w: TimestampMicrosecondArray = rows.iter().map(|r| r.0).collect();
        let k: StringArray = rows.iter().map(|r| Some(r.1)).collect();
        let n: Int64Array = rows.iter().map(|r| Some(r.2)).collect();
        RecordBatch::try_new(schema(), vec![Arc::new(w), Arc::new(k), Arc::new(n)]).unwrap()
    }

    fn numbers(held: &Held, rows: &[Box<[u8]>]) -> Vec<i64> {
        let columns = held.columns(rows.iter().map(AsRef::as_ref)).unwrap();
        columns[2].as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn only_windows_that_were_computed_again_change() {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let mut held = Held::new(schema(), Some((0, 0)), &pool).unwrap();
        held.add(&batch(&[(Some(10), "a", 1), (Some(20), "a", 2), (Some(20), "b", 3), (None, "c", 4)]), Side::Before)
            .unwrap();
        held.renew(Some((20, 20)));
        // A row of another window that comes along is left alone.
        held.add(&batch(&[(Some(20), "a", 5), (Some(20), "b", 3), (Some(30), "x", 9)]), Side::Now).unwrap();
        let difference = held.settle().unwrap();
        assert_eq!((numbers(&held, &difference.removed), numbers(&held, &difference.added)), (vec![2], vec![5]));
        held.renew(None);
        held.add(&batch(&[(Some(10), "a", 1), (Some(10), "a", 1), (None, "c", 4)]), Side::Now).unwrap();
        let difference = held.settle().unwrap();
        assert_eq!((numbers(&held, &difference.removed), numbers(&held, &difference.added)), (vec![5, 3], vec![1]));
        held.renew(None);
        let difference = held.settle().unwrap();
        assert_eq!(numbers(&held, &difference.removed), [4, 1, 1]);
        assert_eq!(held.memory.size(), 0, "what is gone takes no memory");
    }

    #[test]
    fn memory_is_limited_by_name() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let mut held = Held::new(schema(), None, &pool).unwrap();
        let err = held.add(&batch(&[(None, "a", 1), (None, "b", 1)]), Side::Before).unwrap_err();
        assert_eq!(err.kind(), Kind::ResourceLimit);
        assert!(err.message().contains("query-memory"));
    }
}
