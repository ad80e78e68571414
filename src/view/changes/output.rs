//! The rows that a subscriber gets: offset and operation in front of the relation's own columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};

use super::held::{Difference, Held, conform};
use crate::error::{Error, Kind, Result};

/// Rows of one batch at most: what a slow client makes us hold at a time.
const BATCH_ROWS: usize = 8192;

const INSERT: &str = "insert";
const DELETE: &str = "delete";
const UPDATE_BEFORE: &str = "update_before";
const UPDATE_AFTER: &str = "update_after";
const UPSERT: &str = "upsert";

/// The columns of a subscription to rows with the columns `fields`. All may be NULL: a progress row has no values.
pub fn schema(fields: &Schema, progress: bool) -> SchemaRef {
    let mut columns = vec![Field::new("_offset", DataType::Int64, true), Field::new("_op", DataType::Utf8, true)];
    if progress {
        columns.push(Field::new("_progress", DataType::Boolean, true));
    }
    columns.extend(fields.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(columns))
}

/// Makes batches of [`schema`].
pub struct Output {
    pub schema: SchemaRef,
    /// The relation's own columns.
    own: SchemaRef,
    progress: bool,
    upsert: bool,
    /// The columns by which a row that went and a row that came are the same, changed.
    key: Option<Key>,
}

struct Key {
    columns: Vec<usize>,
    converter: RowConverter,
    names: String,
}

impl Output {
    /// With `upsert` there has to be a key.
    pub fn new(own: SchemaRef, key: Option<Vec<usize>>, progress: bool, upsert: bool) -> Result<Output> {
        let key = key.map(|columns| -> Result<Key> {
            let fields = columns.iter().map(|&i| own.field(i));
            let converter = RowConverter::new(fields.clone().map(|f| SortField::new(f.data_type().clone())).collect())?;
            let names: Vec<&str> = fields.map(|f| f.name().as_str()).collect();
            Ok(Key { converter, names: names.join(", "), columns })
        });
        Ok(Output { schema: schema(&own, progress), own, progress, upsert, key: key.transpose()? })
    }

    /// Rows that came, each with its offset.
    pub fn arrived(&self, columns: &[ArrayRef], offsets: &Int64Array) -> Result<Vec<RecordBatch>> {
        let op = if self.upsert { UPSERT } else { INSERT };
        let columns = conform(columns, &self.own)?;
        let pieces = (0..offsets.len()).step_by(BATCH_ROWS).map(|at| {
            let rows = BATCH_ROWS.min(offsets.len() - at);
            let columns = columns.iter().map(|c| c.slice(at, rows)).collect();
            self.batch(Arc::new(offsets.slice(at, rows)), vec![op; rows], columns)
        });
        pieces.collect()
    }

    /// Tells that the receiver has everything up to `offset`.
    pub fn progress(&self, offset: u64) -> Result<Option<RecordBatch>> {
        if !self.progress {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_value(offset as i64, 1)),
            new_null_array(&DataType::Utf8, 1),
            Arc::new(BooleanArray::from(vec![true])),
        ];
        columns.extend(self.own.fields().iter().map(|f| new_null_array(f.data_type(), 1)));
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    /// The changes that bring the receiver to `offset`.
    pub fn changed(&self, offset: u64, difference: &Difference, held: &Held) -> Result<Vec<RecordBatch>> {
        let removed = difference.removed.len();
        let rows = difference.removed.iter().chain(&difference.added);
        let columns = held.columns(rows.map(AsRef::as_ref))?;
        let order = match &self.key {
            Some(key) => self.by_key(key, &columns, removed, removed + difference.added.len())?,
            None => {
                let gone = (0..removed).map(|row| (row as u32, DELETE));
                let come = (removed..removed + difference.added.len()).map(|row| (row as u32, INSERT));
                gone.chain(come).collect()
            }
        };
        let pieces = order.chunks(BATCH_ROWS).map(|piece| {
            let rows = UInt32Array::from_iter_values(piece.iter().map(|(row, _)| *row));
            let columns = columns.iter().map(|c| take(c, &rows, None)).collect::<Result<Vec<_>, _>>()?;
            let offsets = Arc::new(Int64Array::from_value(offset as i64, piece.len()));
            self.batch(offsets, piece.iter().map(|(_, op)| *op).collect(), columns)
        });
        pieces.collect()
    }

    /// Orders rows (the first `removed` of them went, the others came) by key and says what each of them does.
    fn by_key(
        &self,
        key: &Key,
        columns: &[ArrayRef],
        removed: usize,
        count: usize,
    ) -> Result<Vec<(u32, &'static str)>> {
        let keys: Vec<ArrayRef> = key.columns.iter().map(|&i| Arc::clone(&columns[i])).collect();
        let keys = key.converter.convert_columns(&keys)?;
        // A result of one row at most has no key columns: all rows are the same one.
        let key_of = |row: &usize| if key.columns.is_empty() { None } else { Some(keys.row(*row)) };
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| key_of(a).cmp(&key_of(b)).then(a.cmp(b)));
        let mut out = Vec::with_capacity(count);
        for same in order.chunk_by(|a, b| key_of(a) == key_of(b)) {
            let (gone, come) = same.split_at(same.partition_point(|row| *row < removed));
            if self.upsert {
                match (gone, come) {
                    (_, [row]) => out.push((*row as u32, UPSERT)),
                    (gone, []) => out.push((gone[0] as u32, DELETE)),
                    (_, _) => return Err(self.not_unique(key)),
                }
                continue;
            }
            let pairs = gone.len().min(come.len());
            out.extend(gone[pairs..].iter().map(|row| (*row as u32, DELETE)));
            for (before, after) in gone.iter().zip(come) {
                out.extend([(*before as u32, UPDATE_BEFORE), (*after as u32, UPDATE_AFTER)]);
            }
            out.extend(come[pairs..].iter().map(|row| (*row as u32, INSERT)));
        }
        Ok(out)
    }

    fn not_unique(&self, key: &Key) -> Error {
        Error::new(Kind::InvalidParameter, format!("the KEY ({}) does not tell rows apart", key.names))
            .with_detail("Several rows with the same key came at once.")
            .with_hint("Name more columns in KEY, or subscribe without UPSERT.")
    }

    fn batch(&self, offsets: ArrayRef, ops: Vec<&'static str>, own: Vec<ArrayRef>) -> Result<RecordBatch> {
        let rows = ops.len();
        let mut columns: Vec<ArrayRef> = vec![offsets, Arc::new(StringArray::from(ops))];
        if self.progress {
            columns.push(Arc::new(BooleanArray::from(vec![false; rows])));
        }
        columns.extend(own);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
