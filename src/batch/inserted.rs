//! Rows that statements gave (INSERT, COPY … FROM STDIN), as frames: one JSON object for each row, whatever format the
//! stream's lines have.
//!
//! So they are logged, numbered and made into rows again like lines are, and parsing stays a pure function of the record:
//! what the statement's types said has been settled when the row was written. Members are the columns that are not NULL;
//! times are microseconds since 1970, numbers that JSON lacks (NaN, infinities) are strings. Such a row looks the same
//! when it is read again.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;

use super::fit;
use crate::error::{Error, Kind, Result};
use crate::format::{Malformed, Parsed, timestamp_type};
use crate::frame::Frames;

/// Whether values of this type can be given by a statement.
pub fn holds(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Boolean
    ) || *data_type == timestamp_type()
}

/// Rows on their way to be frames.
#[derive(Default)]
pub struct Rows {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Rows {
    /// Adds the rows of a batch whose columns all [hold](holds).
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let fields = batch.schema();
        let columns = fields.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, array)| Column::new(field, array.as_ref())).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let mut separator = b'{';
            for column in &columns {
                if column.array.is_null(row) {
                    continue;
                }
                self.bytes.push(separator);
                separator = b',';
                self.bytes.extend_from_slice(&column.name);
                (column.write)(column.array, row, &mut self.bytes);
            }
            if separator == b'{' {
                self.bytes.push(b'{');
            }
            self.bytes.extend_from_slice(b"}\n");
            let too_many = |_| Error::new(Kind::ResourceLimit, "the rows are too many for one batch");
            self.ends.push(u32::try_from(self.bytes.len()).map_err(too_many)?);
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The frames of all rows so far; it is empty again.
    pub fn take(&mut self) -> Frames {
        let Rows { bytes, ends } = std::mem::take(self);
        Frames { bytes: bytes.into(), ends, cut: Vec::new() }
    }
}

type Write = fn(&dyn Array, usize, &mut Vec<u8>);

/// A column, and how its values are written.
struct Column<'a> {
    /// As a member name, with the colon.
    name: Vec<u8>,
    array: &'a dyn Array,
    write: Write,
}

impl<'a> Column<'a> {
    fn new(field: &Field, array: &'a dyn Array) -> Result<Column<'a>> {
        let mut name = Vec::new();
        text(field.name(), &mut name);
        name.push(b':');
        let write: Write = match array.data_type() {
            DataType::Utf8 => |array, row, out| text(array.as_string::<i32>().value(row), out),
            DataType::LargeUtf8 => |array, row, out| text(array.as_string::<i64>().value(row), out),
            DataType::Utf8View => |array, row, out| text(array.as_string_view().value(row), out),
            DataType::Int16 => number::<Int16Type>,
            DataType::Int32 => number::<Int32Type>,
            DataType::Int64 => number::<Int64Type>,
            DataType::Float32 => |array, row, out| {
                let value = array.as_primitive::<Float32Type>().value(row);
                float(value.is_finite(), format_args!("{value:?}"), out);
            },
            DataType::Float64 => |array, row, out| {
                let value = array.as_primitive::<Float64Type>().value(row);
                float(value.is_finite(), format_args!("{value:?}"), out);
            },
            DataType::Boolean => |array, row, out| {
                out.extend_from_slice(if array.as_boolean().value(row) { b"true" } else { b"false" });
            },
            other if *other == timestamp_type() => number::<TimestampMicrosecondType>,
            other => {
                let message = format!("column \"{}\" has a type that cannot be inserted: {other}", field.name());
                return Err(Error::new(Kind::NotSupported, message));
            }
        };
        Ok(Column { name, array, write })
    }
}

fn text(value: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("text can be written to memory");
}

fn number<T: ArrowPrimitiveType>(array: &dyn Array, row: usize, out: &mut Vec<u8>)
where
    T::Native: std::fmt::Display,
{
    put(format_args!("{}", array.as_primitive::<T>().value(row)), out);
}

/// Rust's shortest form that reads back as the same number; what is no number is a string.
fn float(finite: bool, value: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    if finite { put(value, out) } else { put(format_args!("\"{value}\""), out) }
}

fn put(value: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    std::io::Write::write_fmt(out, value).expect("memory takes all");
}

/// Makes rows of such frames again, with the columns of `schema`: those that are in no frame are NULL.
pub fn parse(frames: &Frames, schema: &SchemaRef) -> Parsed {
    let known = schema.fields().iter().filter(|field| holds(field.data_type())).cloned();
    let known = Arc::new(Schema::new(known.collect::<Vec<_>>()));
    let decoded = decode(&frames.bytes, frames.len(), &known).and_then(|rows| fit(&rows, schema));
    if let Ok(rows) = decoded {
        return Parsed { rows, malformed: Vec::new() };
    }
    // Only frames that no statement wrote.
    let (mut rows, mut malformed) = (Vec::new(), Vec::new());
    for i in 0..frames.len() {
        match decode(frames.get(i), 1, &known).and_then(|row| fit(&row, schema)) {
            Ok(row) => rows.push(row),
            Err(err) => malformed.push(Malformed { frame: i as u32, reason: err.message().to_string().into() }),
        }
    }
    let rows = concat_batches(schema, &rows).expect("all have this schema");
    Parsed { rows, malformed }
}

/// So many rows; anything else is an error.
fn decode(bytes: &[u8], count: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let other = |found: usize| Error::new(Kind::InvalidText, format!("{found} objects where there should be {count}"));
    if count == 0 {
        return if bytes.is_empty() { Ok(RecordBatch::new_empty(Arc::clone(schema))) } else { Err(other(1)) };
    }
    let decoded = || -> Result<(usize, Option<RecordBatch>), ArrowError> {
        let mut decoder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(count).build_decoder()?;
        let read = decoder.decode(bytes)?;
        Ok((read, decoder.flush()?))
    };
    let (read, rows) = decoded()?;
    match rows {
        Some(rows) if rows.num_rows() == count && bytes[read..].iter().all(u8::is_ascii_whitespace) => Ok(rows),
        rows => Err(other(rows.map_or(0, |rows| rows.num_rows()))),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, BooleanArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, StringViewArray,
        TimestampMicrosecondArray,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::time::UTC;

    type Row = (
        (Option<String>, Option<i16>, Option<i32>, Option<i64>),
        (Option<f32>, Option<f64>, Option<bool>, Option<i64>),
    );

    fn batch(rows: &[Row]) -> RecordBatch {
        let each = || rows.iter();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a \"text\"", Arc::new(each().map(|r| r.0.0.clone()).collect::<StringViewArray>())),
            ("i16", Arc::new(each().map(|r| r.0.1).collect::<Int16Array>())),
            ("i32", Arc::new(each().map(|r| r.0.2).collect::<Int32Array>())),
            ("i64", Arc::new(each().map(|r| r.0.3).collect::<Int64Array>())),
            ("f32", Arc::new(each().map(|r| r.1.0).collect::<Float32Array>())),
            ("f64", Arc::new(each().map(|r| r.1.1).collect::<Float64Array>())),
            ("b", Arc::new(each().map(|r| r.1.2).collect::<BooleanArray>())),
            ("t", Arc::new(each().map(|r| r.1.3).collect::<TimestampMicrosecondArray>().with_timezone(UTC))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn frames(batch: &RecordBatch) -> Frames {
        let mut rows = Rows::default();
        rows.push(batch).unwrap();
        rows.take()
    }

    /// As text, so that NaN is NaN.
    fn shown(batch: &RecordBatch) -> String {
        arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string()
    }

    #[test]
    fn one_object_a_row_with_what_is_not_null() {
        let rows = [
            ((Some("x\n\"ü\"\u{1}".into()), None, Some(-1), None), (Some(0.1), Some(f64::NAN), Some(true), Some(5))),
            ((None, None, None, None), (None, None, None, None)),
        ];
        let frames = frames(&batch(&rows));
        let expected = [
            r#"{"a \"text\"":"x\n\"ü\"\u0001","i32":-1,"f32":0.1,"f64":"NaN","b":true,"t":5}"#.as_bytes(),
            b"{}".as_slice(),
        ];
        assert_eq!(frames.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn extremes_come_back() {
        let row = |f32, f64, i64| ((Some(String::new()), Some(i16::MIN), Some(i32::MAX), i64), (f32, f64, None, i64));
        let rows = [
            row(Some(f32::MAX), Some(f64::MIN_POSITIVE), Some(i64::MAX)),
            row(Some(f32::INFINITY), Some(f64::NEG_INFINITY), Some(i64::MIN)),
            row(Some(-0.0), Some(5e-324), Some(0)),
            row(Some(f32::NAN), Some(1e300), Some((1 << 53) + 1)),
        ];
        let batch = batch(&rows);
        let parsed = parse(&frames(&batch), &batch.schema());
        assert_eq!(parsed.malformed, []);
        assert_eq!(shown(&parsed.rows), shown(&batch));
    }

    #[test]
    fn columns_that_came_later_are_null_and_other_frames_are_malformed() {
        let batch = batch(&[((Some("x".into()), None, None, None), (None, None, None, None))]);
        let mut fields = batch.schema().fields().to_vec();
        fields.push(Arc::new(Field::new("later", DataType::Binary, true)));
        let wider: SchemaRef = Arc::new(Schema::new(fields));
        let parsed = parse(&frames(&batch), &wider);
        assert_eq!((parsed.rows.num_rows(), parsed.rows.schema()), (1, Arc::clone(&wider)));
        let text = "{\"i32\":1}\n{\"i32\":\"x\"}\nno object\n{} {}\n\n{\"i32\":2}\n";
        let parsed = parse(&Frames::from_text(text), &wider);
        assert_eq!(parsed.rows.num_rows(), 2);
        assert_eq!(parsed.malformed.iter().map(|m| m.frame).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(parse(&Frames::default(), &wider).rows.num_rows(), 0);
    }

    #[test]
    fn other_types_are_refused() {
        let column: ArrayRef = Arc::new(arrow::array::BinaryArray::from(vec![b"x".as_slice()]));
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        assert_eq!(Rows::default().push(&batch).unwrap_err().kind(), Kind::NotSupported);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn rows_come_back_as_they_were(rows in prop::collection::vec(any::<Row>(), 0..20)) {
            let batch = batch(&rows);
            let parsed = parse(&frames(&batch), &batch.schema());
            prop_assert_eq!(parsed.malformed, vec![]);
            prop_assert_eq!(shown(&parsed.rows), shown(&batch));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let frames = Frames::from_text(bytes);
            let parsed = parse(&frames, &batch(&[]).schema());
            prop_assert_eq!(parsed.rows.num_rows() + parsed.malformed.len(), frames.len());
        }
    }
}
