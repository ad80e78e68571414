//! Computed columns: `name AS (expression)` in CREATE TABLE. A value is computed when a row is made, and then is the row's
//! like any other.
//!
//! Receives rows with the columns of the format and of INCLUDE; hands on one more column each, and says of which rows it
//! cannot be computed (a division by zero, a cast): such a frame is malformed, its neighbours are rows. The expression is
//! planned elsewhere and depends on nothing but its row, so that reading the log again computes the same.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_plan::PhysicalExpr;

use super::fit;
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;

/// One computed column.
#[derive(Clone)]
pub struct Computed {
    pub name: String,
    /// The expression as it was written.
    pub sql: String,
    data_type: DataType,
    expr: Arc<dyn PhysicalExpr>,
    /// The columns that the expression was planned over.
    input: SchemaRef,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} AS ({})", self.name, self.sql)
    }
}

impl Computed {
    /// `wanted`: the type that was declared; without one it is the expression's.
    pub fn new(
        name: &str,
        sql: &str,
        wanted: Option<DataType>,
        expr: Arc<dyn PhysicalExpr>,
        input: SchemaRef,
    ) -> Result<Computed> {
        let own = expr.data_type(&input)?;
        let data_type = match wanted.or_else(|| kept_as(&own)) {
            Some(data_type) => data_type,
            None => {
                let message = format!("column \"{name}\" would be of type {own}, which a stream does not keep");
                return Err(
                    Error::new(Kind::NotSupported, message).with_hint("Declare a type, or cast the expression.")
                );
            }
        };
        Ok(Computed { name: name.to_string(), sql: sql.to_string(), data_type, expr, input })
    }

    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The column of these rows.
    fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let value = self.expr.evaluate(&fit(rows, &self.input)?)?.into_array(rows.num_rows())?;
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        Ok(cast_with_options(&value, &self.data_type, &strict)?)
    }

    /// The column of these rows, or the rows that it cannot be computed of, with the reasons.
    pub fn column(&self, rows: &RecordBatch) -> Result<std::result::Result<ArrayRef, Vec<(usize, String)>>> {
        let err = match self.evaluate(rows) {
            Ok(column) => return Ok(Ok(column)),
            Err(err) => err,
        };
        let mut wrong = Vec::new();
        self.find_wrong(rows, 0, &mut wrong);
        // A mistake that no row makes by itself is not of the rows.
        if wrong.is_empty() { Err(err) } else { Ok(Err(wrong)) }
    }

    /// Adds the rows that it cannot be computed of: looks at all, and at the halves where something is wrong, so that a few
    /// bad ones among many take little time.
    fn find_wrong(&self, rows: &RecordBatch, first: usize, wrong: &mut Vec<(usize, String)>) {
        let count = rows.num_rows();
        let Err(err) = self.evaluate(rows) else { return };
        if count <= 1 {
            wrong.extend((count == 1).then(|| (first, format!("column \"{}\": {}", self.name, err.message()))));
            return;
        }
        let half = count / 2;
        self.find_wrong(&rows.slice(0, half), first, wrong);
        self.find_wrong(&rows.slice(half, count - half), first + half, wrong);
    }
}

/// The type in which a stream keeps values of this one.
fn kept_as(own: &DataType) -> Option<DataType> {
    Some(match own {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => DataType::Int16,
        DataType::UInt16 | DataType::Int32 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 | DataType::Int64 => DataType::Int64,
        DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        DataType::Timestamp(_, Some(_)) => timestamp_type(),
        _ => return None,
    })
}
