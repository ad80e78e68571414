//! Which rows enter a rollup, with respect to time, and what they carry with them.
//!
//! A view that always shows the latest takes all rows; those that find their window closed are counted, so that a
//! reader can be told how often a final result was corrected. A view that announces each window once, when it closes,
//! takes only rows whose window is still open: its rollup then never changes a closed window.
//!
//! A late row carries [`CLOSED_TO`], the end of the last window that was closed to it. A row of overlapping windows may be
//! on time for one and late for another, so with those it is grouped by, and looked at when panes are spread over windows.
//! Rows that come on time, nearly all, have NULL there, so panes do not multiply.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};

use super::reference::Offsets;
use super::watermark::LateRow;
use super::window::Window;
use crate::error::Result;
use crate::format::timestamp_type;
use crate::mutation::{Mutation, on};
use crate::time::{Micros, UTC};

/// The column that says up to which window end a row is late; NULL in rows for which no window is closed.
pub const CLOSED_TO: &str = "__closed_to";

/// The rows of a micro-batch with what is known of their times.
#[derive(Clone, Copy)]
pub struct Timed<'a> {
    pub rows: &'a RecordBatch,
    /// Event times, one per row; none without a time column.
    pub times: &'a [Micros],
    /// Rows behind the watermark, in order.
    pub late: &'a [LateRow],
    /// The frames that the rows came from; `first` rows of these stand before `rows`.
    pub offsets: &'a Offsets<'a>,
    pub first: usize,
}

impl<'a> Timed<'a> {
    /// Rows that are not of the log, none of them late.
    pub fn new(rows: &'a RecordBatch) -> Timed<'a> {
        Timed { rows, times: &[], late: &[], offsets: &Offsets::NOW, first: 0 }
    }

    /// Works on a part of the rows.
    pub fn part<T>(&self, range: Range<usize>, work: impl FnOnce(&Timed) -> T) -> T {
        let rows = self.rows.slice(range.start, range.len());
        let times = self.times.get(range.clone()).unwrap_or(&[]);
        let late = self.late.iter().filter(|late| range.contains(&(late.row as usize)));
        let late: Vec<LateRow> = late.map(|late| LateRow { row: late.row - range.start as u32, ..*late }).collect();
        work(&Timed { rows: &rows, times, late: &late, offsets: self.offsets, first: self.first + range.start })
    }
}

/// Which rows a rollup takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timeliness {
    All,
    /// Those that find a window of theirs open.
    OnTime,
}

impl Timeliness {
    /// The rows taken, with [`CLOSED_TO`] where some have it. `window` is the rollup's, if it is one over the stream's
    /// event time; a window is closed when the watermark has passed its end by `lateness`.
    pub fn pick(self, timed: &Timed, window: Option<Window>, lateness: Micros) -> Result<Option<RecordBatch>> {
        let (Some(window), false) = (window, timed.late.is_empty()) else {
            return Ok(Some(timed.rows.clone()));
        };
        let panes = window.panes();
        let on_time = match self {
            Timeliness::OnTime => !on(Mutation::LateRowAnnounced),
            Timeliness::All => on(Mutation::LateRowLost),
        };
        let mut chosen: Vec<u32> = Vec::new();
        let mut closed: Vec<Option<Micros>> = Vec::new();
        let mut late = timed.late.iter().peekable();
        for (row, &time) in timed.times.iter().enumerate() {
            let closed_to = late.next_if(|l| l.row == row as u32).map(|l| l.watermark.saturating_sub(lateness));
            let closed_to =
                closed_to.filter(|closed_to| panes.last_end(time) <= *closed_to || window.ends(time).1 <= *closed_to);
            if on_time && closed_to.is_some_and(|closed_to| window.ends(time).1 <= closed_to) {
                continue;
            }
            chosen.push(row as u32);
            // All windows end where a pane does, so panes need not be told apart more finely.
            let closed_to = closed_to.filter(|_| !on(Mutation::RevisionNotCounted));
            closed.push(closed_to.map(|closed_to| panes.last_end_until(closed_to)));
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        let rows = take_record_batch(timed.rows, &UInt32Array::from(chosen))?;
        if closed.iter().all(Option::is_none) {
            return Ok(Some(rows));
        }
        let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(CLOSED_TO, timestamp_type(), true)));
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(TimestampMicrosecondArray::from(closed).with_timezone(UTC)) as ArrayRef);
        Ok(Some(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};

    /// Row numbers and the windows closed to them.
    fn picked(which: Timeliness, window: Window, times: &[Micros], late: &[LateRow]) -> Vec<(i64, Option<Micros>)> {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let numbers = Int64Array::from_iter_values(0..times.len() as i64);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers)]).unwrap();
        let Some(rows) = which.pick(&Timed { times, late, ..Timed::new(&rows) }, Some(window), 0).unwrap() else {
            return vec![];
        };
        let numbers = rows.column(0).as_primitive::<Int64Type>();
        let closed = rows.column_by_name(CLOSED_TO).map(|c| c.as_primitive::<TimestampMicrosecondType>());
        let closed = |i: usize| closed.filter(|c| c.is_valid(i)).map(|c| c.value(i));
        (0..rows.num_rows()).map(|i| (numbers.value(i), closed(i))).collect()
    }

    #[test]
    fn a_row_goes_to_those_of_its_windows_that_are_open() {
        let hop = Window::Hop { slide: 10, size: 30, offset: 0 };
        let times = [100, 75, 20, 99];
        let late = [LateRow { row: 1, watermark: 95 }, LateRow { row: 2, watermark: 95 }];
        // 75 is in the windows that end at 80, 90 and 100, of which two are closed.
        assert_eq!(picked(Timeliness::OnTime, hop, &times, &late), [(0, None), (1, Some(90)), (3, None)]);
        assert_eq!(picked(Timeliness::All, hop, &times, &late), [(0, None), (1, Some(90)), (2, Some(90)), (3, None)]);
        let tumble = Window::Tumble { size: 100, offset: 0 };
        let all: Vec<_> = (0..4).map(|n| (n, None)).collect();
        assert_eq!(picked(Timeliness::OnTime, tumble, &times, &late), all, "behind the watermark, but open");
        assert_eq!(picked(Timeliness::All, tumble, &times, &late), all);
    }
}
