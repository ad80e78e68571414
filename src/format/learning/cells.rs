//! The values of a block on their way into columns. They wait here until the block's end, because only then the types
//! of new columns are known.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;

use super::learned::Learned;
use super::time;
use super::value::{Decode, Value, exact};
use crate::format::column::{Block, Span};
use crate::format::timestamp::Times;
use crate::format::typed::{Kind, Scalar, TypedColumn, fits, read_bool};
use crate::time::Micros;

/// A value waiting to be put into its column: the columns' types are known only at the end of the block.
#[derive(Clone, Copy)]
pub enum Cell {
    /// A value, and where it is written.
    Value(Value, Span),
    Time(Micros),
    /// Index into [`Cells::rest`].
    Rest(u32),
}

/// How a format writes values.
pub struct Reading<'a> {
    pub times: &'a Times,
    pub texts: &'a dyn Decode,
}

/// The values of a block by column, each with its row.
#[derive(Default)]
pub struct Cells {
    columns: Vec<Vec<(u32, Cell)>>,
    rest: Vec<String>,
}

impl Cells {
    fn of(&mut self, column: usize) -> &mut Vec<(u32, Cell)> {
        if self.columns.len() <= column {
            self.columns.resize_with(column + 1, Vec::new);
        }
        &mut self.columns[column]
    }

    /// Sets a value; of members of one name, the last wins.
    pub fn set(&mut self, column: usize, row: u32, cell: Option<Cell>) {
        let cells = self.of(column);
        if cells.last().is_some_and(|(last, _)| *last == row) {
            cells.pop();
        }
        cells.extend(cell.map(|cell| (row, cell)));
    }

    /// Keeps the text of a row's members that have no column.
    pub fn set_rest(&mut self, column: usize, row: u32, text: String) {
        self.set(column, row, Some(Cell::Rest(self.rest.len() as u32)));
        self.rest.push(text);
    }

    /// Builds the columns of the schema. Siblings that clashes make are behind their columns, so one pass from the front
    /// fills all.
    pub fn finish(
        mut self,
        block: &Block<'_>,
        learned: &mut Learned,
        reading: &Reading<'_>,
        rows: usize,
    ) -> Vec<ArrayRef> {
        let mut arrays: Vec<Option<ArrayRef>> = Vec::new();
        let mut nulls = Nulls::default();
        let mut column = 0;
        while column < learned.len() {
            let values = std::mem::take(self.of(column));
            arrays.push(if !values.is_empty() {
                Some(self.build(block, learned, reading, column, values, rows))
            } else if learned.has_kind(column) {
                Some(nulls.of(learned.data_type(column), rows))
            } else {
                None // no value has come yet that would say its type
            });
            column += 1;
        }
        let array = |index: &usize| arrays[*index].clone().expect("a column that has a type was built");
        learned.typed().iter().map(array).collect()
    }

    fn build(
        &mut self,
        block: &Block<'_>,
        learned: &mut Learned,
        reading: &Reading<'_>,
        column: usize,
        values: Vec<(u32, Cell)>,
        rows: usize,
    ) -> ArrayRef {
        let kind = learned.kind(column, || infer(block, &values));
        let mut array = TypedColumn::with_capacity(kind, rows);
        for (row, cell) in values {
            array.fill(row as usize);
            if !self.put(block, &mut array, learned, column, cell, reading) {
                // The value clashes: the row stays NULL here.
                let number = matches!(cell, Cell::Value(value, _) if value.is_number(block));
                let sibling = learned.sibling(column, number);
                self.set(sibling, row, Some(cell));
            }
        }
        array.fill(rows);
        array.finish(block, learned.data_type(column))
    }

    /// Appends the cell if it is of the column's type. Declared columns and siblings also take what converts to it.
    fn put(
        &self,
        block: &Block<'_>,
        array: &mut TypedColumn,
        learned: &Learned,
        column: usize,
        cell: Cell,
        reading: &Reading<'_>,
    ) -> bool {
        let (value, raw) = match cell {
            Cell::Value(value, raw) => (value, raw),
            Cell::Time(time) => {
                array.push(Scalar::Time(time));
                return true;
            }
            Cell::Rest(index) => {
                if let TypedColumn::Text(column) = array {
                    column.push_own(&self.rest[index as usize]);
                }
                return true;
            }
        };
        match (&mut *array, value) {
            // Any word is text, whatever it reads as.
            (TypedColumn::Text(column), Value::Word(span)) => {
                column.push(block, span);
                return true;
            }
            (TypedColumn::Text(column), Value::Flag) => {
                column.push_own("true");
                return true;
            }
            (_, Value::Word(span)) if span.start == span.end => return true, // nothing is NULL where it is no text
            (TypedColumn::Time(column), value) => {
                return time::read(reading, block, value).inspect(|time| column.push(*time)).is_some();
            }
            _ => {}
        }
        let value = value.resolved(block);
        let converts = learned.converts(column);
        let text = |span| converts.then(|| block.text(span));
        let scalar = match (&mut *array, value) {
            (TypedColumn::Text(column), Value::Text { span, escaped }) => {
                match escaped.then(|| reading.texts.decode(block.get(span))).flatten() {
                    Some(decoded) => column.push_own(&decoded),
                    None => column.push(block, span),
                }
                return true;
            }
            (TypedColumn::Text(column), value) if converts || matches!(value, Value::Nested | Value::Big) => {
                column.push(block, raw);
                return true;
            }
            (TypedColumn::Int(_), Value::Int(number)) => {
                fits(learned.data_type(column), number).then_some(Scalar::Int(number))
            }
            (TypedColumn::Int(_), Value::Text { span, .. }) => {
                text(span).and_then(|t| t.parse().ok()).filter(|n| fits(learned.data_type(column), *n)).map(Scalar::Int)
            }
            (TypedColumn::Double(_), Value::Float(number)) => Some(Scalar::Double(number)),
            (TypedColumn::Double(_), Value::Int(number)) => exact(number).map(Scalar::Double),
            (TypedColumn::Double(_), Value::Text { span, .. }) => {
                text(span).and_then(|t| t.parse().ok()).map(Scalar::Double)
            }
            (TypedColumn::Bool(_), Value::Bool(value)) => Some(Scalar::Bool(value)),
            (TypedColumn::Bool(_), Value::Text { span, .. }) => {
                text(span).and_then(|t| read_bool(&t)).map(Scalar::Bool)
            }
            (TypedColumn::Bool(_), Value::Int(number @ (0 | 1))) if converts => Some(Scalar::Bool(number == 1)),
            _ => None,
        };
        scalar.inspect(|scalar| array.push(*scalar)).is_some()
    }
}

/// Columns without a value, one for each type: a wide schema costs a block only what its rows use of it.
#[derive(Default)]
struct Nulls(Vec<ArrayRef>);

impl Nulls {
    fn of(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        match self.0.iter().find(|array| array.data_type() == data_type) {
            Some(array) => array.clone(),
            None => {
                self.0.push(new_null_array(data_type, rows));
                self.0[self.0.len() - 1].clone()
            }
        }
    }
}

/// The kind of a new column. Of words, the narrowest that takes all; else that of the first value, where whole numbers
/// and fractions together are doubles.
fn infer(block: &Block<'_>, values: &[(u32, Cell)]) -> Kind {
    let value = |(_, cell): &(u32, Cell)| match cell {
        Cell::Value(Value::Word(span), _) if span.start == span.end => None,
        Cell::Value(value, _) => Some(*value),
        Cell::Time(_) | Cell::Rest(_) => None,
    };
    let values = || values.iter().filter_map(value);
    if values().any(|value| matches!(value, Value::Word(_) | Value::Flag)) {
        let kind = |value: Value| match value.resolved(block) {
            Value::Int(_) => Kind::Int,
            Value::Float(_) => Kind::Double,
            Value::Bool(_) => Kind::Bool,
            Value::Text { .. } | Value::Nested | Value::Big | Value::Null => Kind::Text,
            Value::Word(_) | Value::Flag => Kind::Text, // resolved
        };
        let common = |one: Kind, other: Kind| match (one, other) {
            (Kind::Int, Kind::Double) | (Kind::Double, Kind::Int) => Kind::Double,
            (one, other) if one == other => one,
            _ => Kind::Text,
        };
        return values().map(kind).reduce(common).unwrap_or(Kind::Text);
    }
    match values().next() {
        Some(Value::Int(_)) if values().any(|value| matches!(value, Value::Float(_))) => Kind::Double,
        Some(Value::Int(_)) => Kind::Int,
        Some(Value::Float(_)) => Kind::Double,
        Some(Value::Bool(_)) => Kind::Bool,
        Some(Value::Text { .. } | Value::Nested | Value::Big | Value::Null) | None => Kind::Text,
        Some(Value::Word(_) | Value::Flag) => Kind::Text, // looked at above
    }
}
