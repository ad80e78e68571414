//! Rows under construction for the formats whose columns depend on their options (log4j, postgres) or are many
//! (db2diag): columns by index, each cell set at most once a row, those that were not set NULL.

use arrow::array::{ArrayRef, RecordBatch};

use super::column::{Block, Span};
use super::declared::Chosen;
use super::typed::{Kind, Scalar, TypedColumn};

pub struct Rows<'a> {
    block: &'a Block<'a>,
    kinds: Vec<Kind>,
    columns: Vec<TypedColumn>,
    count: usize,
}

impl<'a> Rows<'a> {
    /// For at most `capacity` rows of `block`.
    pub fn new(block: &'a Block<'a>, kinds: impl Iterator<Item = Kind>, capacity: usize) -> Rows<'a> {
        let kinds: Vec<Kind> = kinds.collect();
        let columns = kinds.iter().map(|kind| TypedColumn::with_capacity(*kind, capacity)).collect();
        Rows { block, kinds, columns, count: 0 }
    }

    /// Sets a cell to the text at a place of the block.
    pub fn text(&mut self, column: usize, span: Span) {
        if let TypedColumn::Text(column) = &mut self.columns[column] {
            column.push(self.block, span);
        }
    }

    /// Sets a cell to a text that is not in the block.
    pub fn own(&mut self, column: usize, text: &str) {
        if let TypedColumn::Text(column) = &mut self.columns[column] {
            column.push_own(text);
        }
    }

    /// Sets a cell to a value of its column's kind.
    pub fn value(&mut self, column: usize, value: Scalar) {
        self.columns[column].push(value);
    }

    /// Ends the row.
    pub fn end_row(&mut self) {
        self.count += 1;
        self.columns.iter_mut().for_each(|column| column.fill(self.count));
    }

    pub fn finish(self, chosen: &Chosen) -> RecordBatch {
        let columns = self.columns.into_iter().zip(&self.kinds);
        let arrays: Vec<ArrayRef> = columns.map(|(c, kind)| c.finish(self.block, &kind.data_type())).collect();
        chosen.batch(&arrays, self.count)
    }
}
