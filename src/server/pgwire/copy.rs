//! `COPY … TO STDOUT`: rows as lines, in the text, CSV and binary formats of PostgreSQL's manual (COPY, "File Formats").
//!
//! One CopyData message holds one line, as PostgreSQL sends it; in binary one row.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use bytes::{BufMut, Bytes, BytesMut};

use super::binary;
use crate::batch::text;
use crate::error::Result;
use crate::format::subtype::Subtype;
use crate::sql::CopyOptions;
use crate::sql::copy_in::tuples::SIGNATURE;

/// The lines of a batch, each with its line end.
pub fn lines(batch: &RecordBatch, options: &CopyOptions) -> Result<Vec<Bytes>> {
    if options.binary {
        return tuples(batch);
    }
    let mut columns = Vec::with_capacity(batch.num_columns());
    for array in batch.columns() {
        columns.push((text::writer(array)?, array.logical_nulls()));
    }
    let mut out = BytesMut::with_capacity(batch.num_rows() * columns.len() * 12);
    let mut value = BytesMut::new();
    let mut lines = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        for (index, (write, nulls)) in columns.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(&[options.delimiter]);
            }
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                out.extend_from_slice(options.null.as_bytes());
                continue;
            }
            value.clear();
            write(row, &mut value);
            put(&value, columns.len() == 1, options, &mut out);
        }
        out.extend_from_slice(b"\n");
        lines.push(out.split().freeze());
    }
    Ok(lines)
}

/// The rows of a batch: the number of fields, then each with its length before it.
fn tuples(batch: &RecordBatch) -> Result<Vec<Bytes>> {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields());
    let writers =
        columns.map(|(array, field)| binary::writer_of(array, Subtype::of(field))).collect::<Result<Vec<_>>>()?;
    // Looks through dictionaries, and knows columns of nothing but NULL.
    let nulls: Vec<_> = batch.columns().iter().map(|array| array.logical_nulls()).collect();
    let mut out = BytesMut::with_capacity(batch.num_rows() * writers.len() * 12);
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        out.put_i16(writers.len() as i16);
        for ((array, write), nulls) in batch.columns().iter().zip(&writers).zip(&nulls) {
            match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                true => out.put_i32(-1),
                false => binary::put_sized(array, write, row, &mut out),
            }
        }
        rows.push(out.split().freeze());
    }
    Ok(rows)
}

/// What comes behind the rows.
pub fn trailer(options: &CopyOptions) -> Option<Bytes> {
    options.binary.then(|| Bytes::from_static(&[0xff, 0xff]))
}

/// What comes before the rows: the line of column names, if the options ask for it; in binary the signature, no flags and
/// no extension.
pub fn header(schema: &Schema, options: &CopyOptions) -> Option<Bytes> {
    if options.binary {
        return Some([&SIGNATURE[..], &[0; 8]].concat().into());
    }
    if !options.header {
        return None;
    }
    let mut out = BytesMut::new();
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(&[options.delimiter]);
        }
        put(field.name().as_bytes(), schema.fields().len() == 1, options, &mut out);
    }
    out.extend_from_slice(b"\n");
    Some(out.freeze())
}

fn put(value: &[u8], alone: bool, options: &CopyOptions, out: &mut BytesMut) {
    if options.csv {
        put_csv(value, alone, options, out);
    } else {
        put_text(value, options.delimiter, out);
    }
}

/// Text format: a backslash before the delimiter and the backslash itself, C's letters for control characters.
fn put_text(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        let escaped = match byte {
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            b'\\' => b'\\',
            byte if *byte == delimiter => delimiter,
            byte => {
                out.extend_from_slice(&[*byte]);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escaped]);
    }
}

/// CSV: quoted where it could be read as something else: the delimiter, a quote, a line end, NULL, or, where it is
/// `alone` in its line, the end-of-data mark.
fn put_csv(value: &[u8], alone: bool, options: &CopyOptions, out: &mut BytesMut) {
    let special = |byte: &u8| *byte == options.delimiter || *byte == options.quote || matches!(byte, b'\n' | b'\r');
    if value != options.null.as_bytes() && !(alone && value == b"\\.") && !value.iter().any(special) {
        return out.extend_from_slice(value);
    }
    out.extend_from_slice(&[options.quote]);
    for byte in value {
        if *byte == options.quote || *byte == options.escape {
            out.extend_from_slice(&[options.escape]);
        }
        out.extend_from_slice(&[*byte]);
    }
    out.extend_from_slice(&[options.quote]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{ArrayRef, Int32Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    fn options(csv: bool) -> CopyOptions {
        CopyOptions {
            binary: false,
            csv,
            header: true,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { "" } else { "\\N" }.to_string(),
            quote: b'"',
            escape: b'"',
        }
    }

    fn copied(options: &CopyOptions) -> String {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("a,b", DataType::Utf8, true),
        ]));
        let n: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3), Some(4), None]));
        let words = vec![Some("plain"), Some("tab\there\\"), Some("a,\"b\"\nc"), Some(""), None];
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![n, Arc::new(StringArray::from(words))]).unwrap();
        let mut text = header(&schema, options).unwrap().to_vec();
        lines(&batch, options).unwrap().iter().for_each(|line| text.extend_from_slice(line));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn text_format_escapes() {
        let expected = "n\ta,b\n1\tplain\n\\N\ttab\\there\\\\\n3\ta,\"b\"\\nc\n4\t\n\\N\t\\N\n";
        assert_eq!(copied(&options(false)), expected);
    }

    #[test]
    fn csv_quotes_what_could_be_misread() {
        let expected = "n,\"a,b\"\n1,plain\n,tab\there\\\n3,\"a,\"\"b\"\"\nc\"\n4,\"\"\n,\n";
        assert_eq!(copied(&options(true)), expected);
        let mut out = BytesMut::new();
        put_csv(b"\\.", true, &options(true), &mut out);
        assert_eq!(&out[..], b"\"\\.\"");
    }
}
