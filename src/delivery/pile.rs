//! What has come of a relation and was not delivered yet, and where it is cut into batches.
//!
//! Receives the batches of a subscription with its progress; hands on [`Batch`]es, each of which ends where a delivery can go
//! on after a restart: between two rows of a stream that have different offsets (a hopping window makes many rows of one),
//! or where a change of a result is complete. A change that is larger than a batch comes in parts, of which only the last one
//! says up to where all is there.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{concat, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};

use crate::error::{Error, Result};
use crate::sink::{Batch, Position};

/// How a relation is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rows that come and stay.
    Rows,
    /// Changes of a result, as records that begin with `_offset` and `_op`.
    Records,
    /// Changes of a result, as new rows of keys and keys that are gone.
    Upserts,
    /// Rows of closed windows, each once; the column tells in which order windows close.
    Closed(usize),
}

/// How much goes into one batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
}

/// What a batch of a subscription begins with.
const OFFSET: usize = 0;
const OP: usize = 1;
const PROGRESS: usize = 2;
const OWN: usize = 3;

/// The columns of the batches made from a relation with the columns `own`.
pub fn schema(own: &SchemaRef, mode: Mode) -> SchemaRef {
    match mode {
        Mode::Rows | Mode::Upserts | Mode::Closed(_) => Arc::clone(own),
        Mode::Records => {
            let front = [Field::new("_offset", DataType::Int64, true), Field::new("_op", DataType::Utf8, true)];
            let own = own.fields().iter().map(|field| field.as_ref().clone());
            Arc::new(Schema::new(front.into_iter().chain(own).collect::<Vec<_>>()))
        }
    }
}

struct Piece {
    rows: RecordBatch,
    offsets: Int64Array,
    gone: Option<BooleanArray>,
}

impl Piece {
    fn slice(&self, from: usize, rows: usize) -> Piece {
        Piece {
            rows: self.rows.slice(from, rows),
            offsets: self.offsets.slice(from, rows),
            gone: self.gone.as_ref().map(|gone| gone.slice(from, rows)),
        }
    }
}

/// See the file header.
pub struct Pile {
    // fixed
    id: String,
    mode: Mode,
    schema: SchemaRef,
    limits: Limits,
    // state
    pieces: VecDeque<Piece>,
    rows: usize,
    bytes: usize,
    /// Everything up to here was taken.
    from: Position,
    /// Everything up to here has come; of changes it is `None` in the middle of one.
    reached: Option<u64>,
    /// The last window that has come.
    window: Option<i64>,
    /// Parts of the change that were taken.
    parts: u64,
    /// The whole result comes first.
    whole: bool,
    /// Tell that by a record of its own.
    tell: bool,
}

impl Pile {
    /// `schema`: of the batches. `whole`: the first change is the whole result, in the place of whatever the other side has;
    /// with `tell` that has to be said.
    pub fn new(
        id: &str,
        mode: Mode,
        schema: SchemaRef,
        limits: Limits,
        from: Position,
        whole: bool,
        tell: bool,
    ) -> Pile {
        let (pieces, window) = (VecDeque::new(), from.window);
        let tell = tell && mode == Mode::Records;
        let id = id.to_string();
        Pile { id, mode, schema, limits, pieces, rows: 0, bytes: 0, from, reached: None, window, parts: 0, whole, tell }
    }

    /// Puts a batch of the subscription on the pile.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let offsets = batch.column(OFFSET).as_primitive::<Int64Type>();
        if self.tell {
            self.tell = false;
            self.tell_reset(offsets.value(0))?;
        }
        let told = batch.column(PROGRESS).as_boolean();
        if told.is_valid(0) && told.value(0) {
            self.reached = Some(offsets.value(0) as u64);
            return Ok(());
        }
        if self.mode != Mode::Rows {
            self.reached = None;
        }
        let ops = batch.column(OP).as_string::<i32>();
        let own = RecordBatch::try_new(Arc::clone(&self.schema), self.columns_of(batch))?;
        match self.mode {
            Mode::Rows | Mode::Records => self.put(own, offsets.clone(), None),
            Mode::Upserts => {
                let gone = ops.iter().map(|op| Some(op == Some("delete"))).collect();
                self.put(own, offsets.clone(), Some(gone));
            }
            Mode::Closed(column) => self.put_closed(&own, offsets, ops, column)?,
        }
        Ok(())
    }

    fn columns_of(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        let own = batch.columns()[OWN..].iter().cloned();
        match self.mode {
            Mode::Records => batch.columns()[..PROGRESS].iter().cloned().chain(own).collect(),
            Mode::Rows | Mode::Upserts | Mode::Closed(_) => own.collect(),
        }
    }

    /// A record that says: what came before does not count any more, the whole result follows.
    fn tell_reset(&mut self, offset: i64) -> Result<()> {
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![offset])), Arc::new(StringArray::from(vec!["reset"]))];
        columns.extend(self.schema.fields()[PROGRESS..].iter().map(|field| new_null_array(field.data_type(), 1)));
        let record = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.put(record, Int64Array::from(vec![offset]), None);
        Ok(())
    }

    /// Windows that come, once: what was delivered with its window before is no news.
    fn put_closed(&mut self, own: &RecordBatch, offsets: &Int64Array, ops: &StringArray, column: usize) -> Result<()> {
        let times = own.column(column).as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| Error::internal("windows are told by a timestamp"))?;
        let is_new = |row: usize| {
            let old = self.from.window.is_some_and(|window| times.is_valid(row) && times.value(row) <= window);
            ops.value(row) == "insert" && !old
        };
        let new: BooleanArray = (0..own.num_rows()).map(|row| Some(is_new(row))).collect();
        let rows = filter_record_batch(own, &new)?;
        let offset = offsets.value(0);
        if let Some(last) = arrow::compute::max(rows.column(column).as_primitive::<TimestampMicrosecondType>()) {
            self.window = Some(self.window.map_or(last, |window| window.max(last)));
        }
        let count = rows.num_rows();
        self.put(rows, Int64Array::from_value(offset, count), None);
        Ok(())
    }

    fn put(&mut self, rows: RecordBatch, offsets: Int64Array, gone: Option<BooleanArray>) {
        if rows.num_rows() > 0 {
            self.rows += rows.num_rows();
            self.bytes += bytes_of(&rows);
            self.pieces.push_back(Piece { rows, offsets, gone });
        }
    }

    /// Whether rows wait.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether nothing more should be put on it.
    pub fn is_full(&self) -> bool {
        self.rows >= self.limits.rows || self.bytes >= self.limits.bytes
    }

    /// Whether a change is complete: it is delivered at once.
    pub fn is_complete(&self) -> bool {
        self.mode != Mode::Rows && self.reached.is_some() && (self.rows > 0 || self.parts > 0 || self.whole)
    }

    /// The position to which the relation has moved on without anything to be delivered.
    pub fn skip(&mut self) -> Option<Position> {
        let nothing = self.rows == 0 && self.parts == 0 && !self.whole;
        let offset = self.reached.filter(|&reached| nothing && reached > self.from.offset)?;
        self.from = Position { offset, window: self.from.window };
        Some(self.from)
    }

    /// The next batch; `None` when too little has come. `until`: it ends there, as it did before.
    pub fn take(&mut self, until: Option<Position>) -> Result<Option<Batch>> {
        match (self.mode, until) {
            (Mode::Rows, Some(until)) => self.take_until(until.offset),
            (Mode::Rows, None) => self.take_rows(),
            (Mode::Records | Mode::Upserts | Mode::Closed(_), _) => self.take_change(),
        }
    }

    fn take_until(&mut self, until: u64) -> Result<Option<Batch>> {
        let last = self.pieces.back().map_or(0, |piece| piece.offsets.value(piece.offsets.len() - 1) as u64);
        if last.max(self.reached.unwrap_or(0)) <= until && self.reached.is_none_or(|reached| reached < until) {
            return Ok(None);
        }
        let rows = self.pieces.iter().map(|piece| piece.offsets.values().partition_point(|&o| o as u64 <= until)).sum();
        self.cut(rows, Some(Position::at(until))).map(Some)
    }

    fn take_rows(&mut self) -> Result<Option<Batch>> {
        let offset = |row: usize| self.offset_of(row);
        let is_end = |rows: usize| match rows {
            rows if rows == self.rows => self.reached.is_some_and(|reached| reached >= offset(rows - 1)),
            rows => offset(rows) != offset(rows - 1),
        };
        let most = self.rows_within();
        // Before, if possible; behind, if so many rows have one offset.
        let rows = (1..=most).rev().find(|&rows| is_end(rows));
        let Some(rows) = rows.or_else(|| (most + 1..=self.rows).find(|&rows| is_end(rows))) else { return Ok(None) };
        let upto = match self.reached.filter(|_| rows == self.rows) {
            Some(reached) => reached,
            None => offset(rows - 1),
        };
        self.cut(rows, Some(Position::at(upto))).map(Some)
    }

    fn take_change(&mut self) -> Result<Option<Batch>> {
        let upto = self.reached.map(|offset| Position { offset, window: self.window });
        let rows = self.rows_within();
        match upto {
            Some(upto) if rows == self.rows => self.cut(rows, Some(upto)).map(Some),
            Some(_) => self.cut(rows, None).map(Some),
            None if self.is_full() => self.cut(rows, None).map(Some),
            None => Ok(None),
        }
    }

    /// The offset of a row of the pile.
    fn offset_of(&self, mut row: usize) -> u64 {
        for piece in &self.pieces {
            match piece.offsets.len() {
                len if row < len => return piece.offsets.value(row) as u64,
                len => row -= len,
            }
        }
        u64::MAX
    }

    /// So many rows fit into a batch: one at least, if there is one.
    fn rows_within(&self) -> usize {
        let (mut rows, mut bytes) = (0, 0);
        for piece in &self.pieces {
            let (count, size) = (piece.rows.num_rows(), bytes_of(&piece.rows));
            if bytes + size > self.limits.bytes {
                let share = (self.limits.bytes - bytes) as u128 * count as u128 / size.max(1) as u128;
                rows += share as usize;
                break;
            }
            (rows, bytes) = (rows + count, bytes + size);
        }
        rows.min(self.limits.rows).max(1).min(self.rows)
    }

    /// Takes the first rows away.
    fn cut(&mut self, rows: usize, upto: Option<Position>) -> Result<Batch> {
        let (mut taken, mut left) = (Vec::new(), rows);
        while left > 0 {
            let Some(piece) = self.pieces.pop_front() else { return Err(Error::internal("the pile has these rows")) };
            let count = piece.rows.num_rows();
            if count > left {
                self.pieces.push_front(piece.slice(left, count - left));
            }
            let count = count.min(left);
            taken.push(piece.slice(0, count));
            left -= count;
        }
        self.rows -= rows;
        self.bytes = self.pieces.iter().map(|piece| bytes_of(&piece.rows)).sum();
        let gone = taken.iter().filter_map(|piece| piece.gone.as_ref()).map(|gone| gone as &dyn Array);
        let gone = gone.collect::<Vec<_>>();
        let gone = if gone.is_empty() { None } else { Some(concat(&gone)?.as_boolean().clone()) };
        let offsets = taken.iter().flat_map(|piece| piece.offsets.values().iter().copied());
        let offsets = Int64Array::from_iter_values(offsets);
        let rows = concat_batches(&self.schema, taken.iter().map(|piece| &piece.rows))?;
        let (from, parts) = (self.from, self.parts);
        let key = match upto {
            Some(upto) if parts == 0 => format!("{}-{from}-{upto}", self.id),
            Some(upto) => format!("{}-{from}-{upto}-{parts}", self.id),
            None => format!("{}-{from}-{:020}-{parts}", self.id, offsets.values().last().copied().unwrap_or(0)),
        };
        let replaces = self.whole && parts == 0;
        match upto {
            Some(upto) => (self.from, self.parts, self.whole) = (upto, 0, false),
            None => self.parts += 1,
        }
        Ok(Batch { rows, offsets, gone, from, upto, replaces, key })
    }
}

/// About so many bytes are in these rows, without what they share with others.
fn bytes_of(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => column.as_string_view().lengths().map(|length| length as usize + 4).sum(),
        DataType::BinaryView => column.as_binary_view().lengths().map(|length| length as usize + 4).sum(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.len() * 16),
    };
    rows.columns().iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringViewArray, TimestampMicrosecondArray};

    use super::*;
    use crate::time::UTC;

    fn own() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("w", crate::format::timestamp_type(), true),
            Field::new("p", DataType::Utf8View, true),
        ]))
    }

    fn pile(mode: Mode, rows: usize, whole: bool, tell: bool) -> Pile {
        let limits = Limits { rows, bytes: 1000 };
        Pile::new("id", mode, schema(&own(), mode), limits, Position::at(0), whole, tell)
    }

    /// Rows of a subscription: offset, operation, window, text.
    fn came(rows: &[(i64, &str, i64, &str)]) -> RecordBatch {
        let fields = [
            Field::new("_offset", DataType::Int64, true),
            Field::new("_op", DataType::Utf8, true),
            Field::new("_progress", DataType::Boolean, true),
        ];
        let own = own();
        let fields: Vec<Field> = fields.into_iter().chain(own.fields().iter().map(|f| f.as_ref().clone())).collect();
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.2)).with_timezone(UTC);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(BooleanArray::from(vec![false; rows.len()])),
            Arc::new(times),
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.3))),
        ];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn progress(offset: i64) -> RecordBatch {
        let like = came(&[(offset, "", 0, "")]);
        let mut columns = like.columns().to_vec();
        columns[PROGRESS] = Arc::new(BooleanArray::from(vec![true]));
        RecordBatch::try_new(like.schema(), columns).unwrap()
    }

    /// The number of rows, where it begins and where it ends.
    fn taken(pile: &mut Pile) -> Option<(usize, u64, Option<u64>)> {
        let batch = pile.take(None).unwrap()?;
        Some((batch.rows.num_rows(), batch.from.offset, batch.upto.map(|upto| upto.offset)))
    }

    #[test]
    fn rows_are_cut_between_offsets() {
        let mut pile = pile(Mode::Rows, 3, false, false);
        pile.push(&came(&[(1, "insert", 0, "a"), (2, "insert", 0, "b"), (2, "insert", 1, "b")])).unwrap();
        assert!(pile.is_full());
        assert_eq!(taken(&mut pile), Some((1, 0, Some(1))), "there may be more of the last offset");
        assert_eq!(taken(&mut pile), None);
        pile.push(&came(&[(2, "insert", 2, "b"), (2, "insert", 3, "b"), (5, "insert", 0, "c")])).unwrap();
        assert_eq!(taken(&mut pile), Some((4, 1, Some(2))), "all of an offset, also if that is too much");
        assert_eq!(taken(&mut pile), None);
        pile.push(&progress(9)).unwrap();
        assert_eq!(taken(&mut pile), Some((1, 2, Some(9))), "there were no others up to 9");
        assert_eq!(pile.skip(), None);
        pile.push(&progress(12)).unwrap();
        assert_eq!((pile.skip(), pile.skip()), (Some(Position::at(12)), None));
    }

    #[test]
    fn a_batch_is_cut_again_where_it_was_before() {
        let mut pile = pile(Mode::Rows, 100, false, false);
        pile.push(&came(&[(1, "insert", 0, "a"), (2, "insert", 0, "b")])).unwrap();
        let until = Some(Position::at(2));
        assert!(pile.take(until).unwrap().is_none(), "there may be more");
        pile.push(&came(&[(3, "insert", 0, "c")])).unwrap();
        let batch = pile.take(until).unwrap().unwrap();
        assert_eq!(
            (batch.rows.num_rows(), batch.upto, batch.key.as_str()),
            (2, until, "id-00000000000000000000-00000000000000000002")
        );
        pile.push(&progress(8)).unwrap();
        let batch = pile.take(Some(Position::at(6))).unwrap().unwrap();
        assert_eq!((batch.rows.num_rows(), batch.from.offset, batch.upto), (1, 2, Some(Position::at(6))));
        assert!(pile.take(Some(Position::at(9))).unwrap().is_none());
        assert_eq!(pile.take(Some(Position::at(8))).unwrap().unwrap().rows.num_rows(), 0);
    }

    #[test]
    fn changes_are_complete_with_their_progress_and_large_ones_come_in_parts() {
        let mut pile = pile(Mode::Records, 2, true, true);
        pile.push(&came(&[(5, "insert", 0, "a")])).unwrap();
        let reset = pile.take(None).unwrap().unwrap();
        assert_eq!((reset.rows.num_rows(), reset.replaces, reset.upto), (2, true, None));
        assert_eq!(reset.rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["reset", "insert"]);
        assert_eq!(reset.rows.column(0).as_primitive::<Int64Type>().values(), &[5, 5]);
        pile.push(&progress(5)).unwrap();
        assert!(pile.is_complete());
        assert_eq!(taken(&mut pile), Some((0, 0, Some(5))), "the rest of the parts, though it has no rows");
        assert!(!pile.is_complete());
        pile.push(&came(&[(7, "update_before", 0, "a"), (7, "update_after", 0, "b"), (7, "insert", 0, "c")])).unwrap();
        pile.push(&progress(7)).unwrap();
        assert_eq!(taken(&mut pile), Some((2, 5, None)));
        assert_eq!(taken(&mut pile), Some((1, 5, Some(7))));
        assert!(!pile.is_complete());
    }

    #[test]
    fn upserts_say_which_keys_are_gone() {
        let mut pile = pile(Mode::Upserts, 9, true, false);
        pile.push(&came(&[(5, "upsert", 0, "a"), (5, "delete", 0, "b")])).unwrap();
        assert!(pile.take(None).unwrap().is_none());
        pile.push(&progress(5)).unwrap();
        let batch = pile.take(None).unwrap().unwrap();
        assert_eq!(batch.gone.unwrap().iter().flatten().collect::<Vec<_>>(), [false, true]);
        assert!(batch.replaces && batch.rows.num_columns() == 2);
    }

    #[test]
    fn closed_windows_come_once() {
        let mut pile = pile(Mode::Closed(0), 9, false, false);
        pile.push(&came(&[(5, "insert", 10, "a"), (5, "insert", 20, "b"), (5, "delete", 1, "x")])).unwrap();
        pile.push(&progress(5)).unwrap();
        let batch = pile.take(None).unwrap().unwrap();
        assert_eq!((batch.rows.num_rows(), batch.upto), (2, Some(Position { offset: 5, window: Some(20) })));
        // A correction, another group of a window that was delivered, and the next window.
        pile.push(&came(&[(9, "update_after", 10, "a"), (9, "insert", 20, "c"), (9, "insert", 30, "a")])).unwrap();
        pile.push(&progress(9)).unwrap();
        let batch = pile.take(None).unwrap().unwrap();
        assert_eq!((batch.rows.num_rows(), batch.upto), (1, Some(Position { offset: 9, window: Some(30) })));
    }

    #[test]
    fn batches_are_bounded_in_bytes_and_have_one_row_at_least() {
        let mut pile = pile(Mode::Rows, 100, false, false);
        let long = "x".repeat(400);
        pile.push(&came(&[(1, "insert", 0, &long), (2, "insert", 0, &long), (3, "insert", 0, &long)])).unwrap();
        assert!(pile.is_full());
        pile.push(&progress(3)).unwrap();
        assert_eq!(taken(&mut pile), Some((2, 0, Some(2))));
        assert_eq!(taken(&mut pile), Some((1, 2, Some(3))));
        let longer = "x".repeat(4000);
        pile.push(&came(&[(4, "insert", 0, &longer), (5, "insert", 0, &longer)])).unwrap();
        pile.push(&progress(5)).unwrap();
        assert_eq!(taken(&mut pile), Some((1, 3, Some(4))));
    }
}
