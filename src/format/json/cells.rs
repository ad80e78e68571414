//! The values of a block on their way into columns. They wait here until the block's end, because only then the types
//! of new columns are known.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;

use super::learned::Learned;
use super::members::{Value, unescape};
use super::time::TimeReader;
use crate::format::column::{Block, Span};
use crate::format::typed::{Kind, Scalar, TypedColumn, fits, read_bool};
use crate::time::Micros;

/// A value waiting to be put into its column: the columns' types are known only at the end of the block.
#[derive(Clone, Copy)]
pub enum Cell {
    Json {
        value: Value,
        raw: Span,
    },
    Time(Micros),
    /// Index into [`Cells::rest`].
    Rest(u32),
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

    /// Builds the columns. Siblings that clashes make are behind their columns, so one pass from the front fills all.
    pub fn finish(
        mut self,
        block: &Block<'_>,
        learned: &mut Learned,
        times: &TimeReader,
        rows: usize,
    ) -> Vec<ArrayRef> {
        let mut arrays = Vec::new();
        let mut nulls = Nulls::default();
        let mut column = 0;
        while column < learned.len() {
            let values = std::mem::take(self.of(column));
            let kind = learned.kind(column, || infer(&values));
            if values.is_empty() {
                arrays.push(nulls.of(learned.data_type(column), rows));
                column += 1;
                continue;
            }
            let mut array = TypedColumn::with_capacity(kind, rows);
            for (row, cell) in values {
                array.fill(row as usize);
                if !self.put(block, &mut array, learned, column, cell, times) {
                    // The value clashes: the row stays NULL here.
                    let number = matches!(cell, Cell::Json { value, .. } if is_number(&value));
                    let sibling = learned.sibling(column, number);
                    self.set(sibling, row, Some(cell));
                }
            }
            array.fill(rows);
            arrays.push(array.finish(block, learned.data_type(column)));
            column += 1;
        }
        arrays
    }

    /// Appends the cell if it is of the column's type. Declared columns and siblings also take what converts to it.
    fn put(
        &self,
        block: &Block<'_>,
        array: &mut TypedColumn,
        learned: &Learned,
        column: usize,
        cell: Cell,
        times: &TimeReader,
    ) -> bool {
        let (value, raw) = match cell {
            Cell::Json { value, raw } => (value, raw),
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
        let converts = learned.converts(column);
        let text = |span| converts.then(|| block.text(span));
        let scalar = match (&mut *array, value) {
            (TypedColumn::Text(column), Value::Text { span, escaped }) => {
                match escaped.then(|| unescape(block.get(span))).flatten() {
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
            (TypedColumn::Time(_), value) => times.read(block, value).map(Scalar::Time),
            (TypedColumn::Text(_) | TypedColumn::Int(_) | TypedColumn::Double(_) | TypedColumn::Bool(_), _) => None,
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

/// The kind of a new column: that of its first value, where whole numbers and fractions together are doubles.
fn infer(values: &[(u32, Cell)]) -> Kind {
    let value = |(_, cell): &(u32, Cell)| match cell {
        Cell::Json { value, .. } => Some(*value),
        Cell::Time(_) | Cell::Rest(_) => None,
    };
    match values.first().and_then(value) {
        Some(Value::Int(_)) => {
            if values.iter().any(|v| matches!(value(v), Some(Value::Float(_)))) {
                Kind::Double
            } else {
                Kind::Int
            }
        }
        Some(Value::Float(_)) => Kind::Double,
        Some(Value::Bool(_)) => Kind::Bool,
        Some(Value::Text { .. } | Value::Nested | Value::Big | Value::Null) | None => Kind::Text,
    }
}

/// Whether the value can be read back in full from a column of doubles.
pub fn is_number(value: &Value) -> bool {
    match value {
        Value::Int(number) => exact(*number).is_some(),
        Value::Float(_) => true,
        Value::Null | Value::Bool(_) | Value::Text { .. } | Value::Nested | Value::Big => false,
    }
}

/// A whole number as a double, if the double is the same number: below 2^53 all are.
fn exact(number: i64) -> Option<f64> {
    (number.unsigned_abs() <= 1 << 53).then_some(number as f64)
}
