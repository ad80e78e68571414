//! Makes the result of a query into a part of a report: columns with their kinds, and so many rows.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::cast::as_timestamp_microsecond_array;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use serde_json::{Number, Value};

use crate::error::Result;
use crate::format::timestamp_type;
use crate::notify::report::{Column, Kind, cut};

/// Rows of a table that are sent: a page of a mail, and more than anybody reads.
pub const MOST_ROWS: usize = 200;

/// Points of a series: two days of minutes.
pub const MOST_POINTS: usize = 2_880;

/// Characters of a value that are sent.
pub const MOST_CHARACTERS: usize = 500;

/// What a query gave.
#[derive(Debug, Default)]
pub struct Found {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
    /// Rows beyond those, which were counted and not kept.
    pub omitted: u64,
}

/// Reads a result to its end. `names` are those of its columns.
pub async fn read(mut rows: SendableRecordBatchStream, names: &[String]) -> Result<Found> {
    let schema = rows.schema();
    let kinds: Vec<Kind> = schema.fields().iter().map(|field| kind(field.data_type())).collect();
    let most = match kinds.as_slice() {
        [Kind::Time, rest @ ..] if rest.iter().all(|kind| *kind == Kind::Number) => MOST_POINTS,
        _ => MOST_ROWS,
    };
    let columns = unique(names).into_iter().zip(kinds).map(|(name, kind)| Column { name, kind }).collect();
    let mut found = Found { columns, ..Found::default() };
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let room = (most - found.rows.len()).min(batch.num_rows());
        found.omitted += (batch.num_rows() - room) as u64;
        found.rows.extend(values(&batch.slice(0, room), &found.columns)?);
    }
    Ok(found)
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Timestamp(..) => Kind::Time,
        other if other.is_numeric() => Kind::Number,
        _ => Kind::Text,
    }
}

/// Names of columns may be the same; members of an object may not.
fn unique(names: &[String]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let one = |name: &String| {
        let numbered = (2..).map(|n| format!("{name}_{n}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| taken.insert(name.clone()));
        free.unwrap_or_default()
    };
    names.iter().map(one).collect()
}

fn values(batch: &RecordBatch, columns: &[Column]) -> Result<Vec<Vec<Value>>> {
    let mut rows = vec![Vec::with_capacity(columns.len()); batch.num_rows()];
    for (array, column) in batch.columns().iter().zip(columns) {
        for (row, value) in rows.iter_mut().zip(of_column(array, column.kind)?) {
            row.push(value);
        }
    }
    Ok(rows)
}

fn of_column(array: &ArrayRef, kind: Kind) -> Result<Vec<Value>> {
    if kind == Kind::Time {
        let times = cast(array, &timestamp_type())?;
        return Ok(as_timestamp_microsecond_array(&times)?.iter().map(Value::from).collect());
    }
    let options = FormatOptions::default();
    let texts = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let value = |row: usize| -> Result<Value> {
        if array.is_null(row) {
            return Ok(Value::Null);
        }
        let text = texts.value(row).try_to_string()?;
        Ok(match kind {
            Kind::Number => number(&text).unwrap_or_else(|| Value::from(text)),
            Kind::Text | Kind::Time => Value::from(cut(&text, MOST_CHARACTERS)),
        })
    };
    (0..array.len()).map(value).collect()
}

/// A number as JSON has it; none for infinity and the like.
fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
    whole.ok().or_else(|| Number::from_f64(text.parse().ok()?).map(Value::from))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float64Array, Int64Array, StringArray, TimestampSecondArray};
    use arrow::datatypes::{Field, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use serde_json::json;

    use super::*;

    fn found(columns: Vec<ArrayRef>, names: &[&str], times: usize) -> Found {
        let fields: Vec<Field> = columns.iter().map(|c| Field::new("c", c.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let batches = std::iter::repeat_n(batch, times).map(Ok).collect::<Vec<_>>();
        let rows = Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches)));
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        futures::executor::block_on(read(rows, &names)).unwrap()
    }

    #[test]
    fn values_are_what_they_were() {
        let decimals = Decimal128Array::from(vec![Some(150), None]).with_precision_and_scale(10, 2).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampSecondArray::from(vec![Some(7), None])),
            Arc::new(Int64Array::from(vec![Some(-3), None])),
            Arc::new(Float64Array::from(vec![0.25, f64::NAN])),
            Arc::new(decimals),
            Arc::new(StringArray::from(vec!["x".repeat(600), "<b>".to_string()])),
        ];
        let found = found(columns, &["t", "n", "n", "d", "s"], 1);
        let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["t", "n", "n_2", "d", "s"]);
        assert_eq!(found.rows[0][..4], [json!(7_000_000), json!(-3), json!(0.25), json!(1.5)]);
        assert_eq!(found.rows[0][4].as_str().unwrap().chars().count(), MOST_CHARACTERS);
        assert_eq!(found.rows[1], [json!(null), json!(null), json!("NaN"), json!(null), json!("<b>")]);
    }

    #[test]
    fn rows_beyond_a_page_are_counted() {
        let texts = || Arc::new(StringArray::from(vec!["a"; 150])) as ArrayRef;
        let found = found(vec![texts()], &["s"], 3);
        assert_eq!((found.rows.len(), found.omitted), (MOST_ROWS, 250));
        let points = |times| {
            let columns: Vec<ArrayRef> =
                vec![Arc::new(TimestampSecondArray::from(vec![1; 1000])), Arc::new(Int64Array::from(vec![1; 1000]))];
            super::tests::found(columns, &["t", "n"], times)
        };
        assert_eq!((points(3).rows.len(), points(3).omitted), (MOST_POINTS, 120));
    }
}
