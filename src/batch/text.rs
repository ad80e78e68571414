//! Values as text, letter for letter as PostgreSQL prints them with its default settings (`DateStyle = ISO`,
//! `IntervalStyle = postgres`, `bytea_output = hex`, `TimeZone = UTC`). Used for result rows in text format, for COPY
//! and for the elements inside arrays and records.
//!
//! A writer is made once per column of a batch, so that its type is looked at once and not once per value. It must not
//! be asked for a NULL: how NULL looks is the business of the caller (no bytes on the wire, `\N` in COPY).

use arrow::array::*;
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::BytesMut;

use super::datetime;
use crate::error::Result;

/// Appends the value of one row to a buffer.
pub type Writer = Box<dyn Fn(usize, &mut BytesMut) + Send>;

/// A writer of the values of `array` as text.
pub fn writer(array: &ArrayRef) -> Result<Writer> {
    macro_rules! display {
        ($kind:ty) => {{
            let array = array.as_primitive::<$kind>().clone();
            Box::new(move |row, out: &mut BytesMut| put!(out, "{}", array.value(row)))
        }};
    }
    macro_rules! bytes_of {
        ($array:expr) => {{
            let array = $array.clone();
            Box::new(move |row, out: &mut BytesMut| out.extend_from_slice(array.value(row).as_ref()))
        }};
    }
    macro_rules! hex_of {
        ($array:expr) => {{
            let array = $array.clone();
            Box::new(move |row, out: &mut BytesMut| put_hex(array.value(row), out))
        }};
    }
    Ok(match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| out.extend_from_slice(if array.value(row) { b"t" } else { b"f" }))
        }
        DataType::Int8 => display!(Int8Type),
        DataType::Int16 => display!(Int16Type),
        DataType::Int32 => display!(Int32Type),
        DataType::Int64 => display!(Int64Type),
        DataType::UInt8 => display!(UInt8Type),
        DataType::UInt16 => display!(UInt16Type),
        DataType::UInt32 => display!(UInt32Type),
        DataType::UInt64 => display!(UInt64Type),
        DataType::Float32 => {
            let array = array.as_primitive::<Float32Type>().clone();
            Box::new(move |row, out| {
                let value = array.value(row);
                put_float(f64::from(value), format!("{value:e}"), format_args!("{value}"), 6, out)
            })
        }
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>().clone();
            Box::new(move |row, out| {
                let value = array.value(row);
                put_float(value, format!("{value:e}"), format_args!("{value}"), 15, out)
            })
        }
        DataType::Decimal128(..) => {
            let array = array.as_primitive::<Decimal128Type>().clone();
            Box::new(move |row, out| put!(out, "{}", array.value_as_string(row)))
        }
        DataType::Decimal256(..) => {
            let array = array.as_primitive::<Decimal256Type>().clone();
            Box::new(move |row, out| put!(out, "{}", array.value_as_string(row)))
        }
        DataType::Utf8 => bytes_of!(array.as_string::<i32>()),
        DataType::LargeUtf8 => bytes_of!(array.as_string::<i64>()),
        DataType::Utf8View => bytes_of!(array.as_string_view()),
        DataType::Binary => hex_of!(array.as_binary::<i32>()),
        DataType::LargeBinary => hex_of!(array.as_binary::<i64>()),
        DataType::BinaryView => hex_of!(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => hex_of!(array.as_fixed_size_binary()),
        DataType::Date32 | DataType::Date64 => {
            let days = datetime::days_since_1970(array)?;
            Box::new(move |row, out| datetime::put_date(i64::from(days.value(row)), out))
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            let micros = datetime::micros_of_day(array)?;
            Box::new(move |row, out| datetime::put_time(micros.value(row), out))
        }
        DataType::Timestamp(_, zone) => {
            let micros = datetime::micros_since_1970(array)?;
            let suffix: &[u8] = if zone.is_some() { b"+00" } else { b"" };
            Box::new(move |row, out| datetime::put_timestamp(micros.value(row), suffix, out))
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let interval = datetime::intervals(array)?;
            Box::new(move |row, out| interval(row).put(out))
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => {
            let elements = lists(array);
            Box::new(move |row, out| put_array(&elements(row), out))
        }
        DataType::Struct(_) => {
            let array = array.as_struct();
            let columns: Vec<ArrayRef> = array.columns().to_vec();
            let writers = columns.iter().map(writer).collect::<Result<Vec<Writer>>>()?;
            Box::new(move |row, out| put_record(&columns, &writers, row, out))
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let keys = dictionary.normalized_keys();
            let values = writer(dictionary.values())?;
            Box::new(move |row, out| values(keys[row], out))
        }
        // Types that PostgreSQL has no like of: Arrow's own text, as type `text`.
        _ => {
            let array = array.clone();
            Box::new(move |row, out| {
                if let Ok(formatter) = ArrayFormatter::try_new(&array, &FormatOptions::default()) {
                    put!(out, "{}", formatter.value(row));
                }
            })
        }
    })
}

/// The elements of the list in a row.
pub fn lists(array: &ArrayRef) -> Box<dyn Fn(usize) -> ArrayRef + Send> {
    match array.data_type() {
        DataType::LargeList(_) => {
            let array = array.as_list::<i64>().clone();
            Box::new(move |row| array.value(row))
        }
        DataType::FixedSizeList(..) => {
            let array = array.as_fixed_size_list().clone();
            Box::new(move |row| array.value(row))
        }
        _ => {
            let array = array.as_list::<i32>().clone();
            Box::new(move |row| array.value(row))
        }
    }
}

/// Shortest digits that read back as the same number; with an exponent when it is below -4 or not below `digits`, as
/// C's `%g` has it. `scientific` and `plain` are Rust's two spellings of the number.
fn put_float(value: f64, scientific: String, plain: std::fmt::Arguments<'_>, digits: i32, out: &mut BytesMut) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..digits).contains(&exponent) {
        put!(out, "{plain}");
    } else {
        put!(out, "{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
}

fn put_hex(bytes: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// `{1,NULL,"two words"}`; arrays inside arrays are not quoted.
fn put_array(elements: &ArrayRef, out: &mut BytesMut) {
    let nested = is_list(elements.data_type());
    out.extend_from_slice(b"{");
    if let Ok(write) = writer(elements) {
        let mut text = BytesMut::new();
        for row in 0..elements.len() {
            if row > 0 {
                out.extend_from_slice(b",");
            }
            if elements.is_null(row) {
                out.extend_from_slice(b"NULL");
                continue;
            }
            text.clear();
            write(row, &mut text);
            let special = |byte: &u8| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || byte.is_ascii_whitespace();
            let quote = text.is_empty() || text.eq_ignore_ascii_case(b"null") || text.iter().any(special);
            if quote && !nested {
                put_quoted(&text, b'\\', out);
            } else {
                out.extend_from_slice(&text);
            }
        }
    }
    out.extend_from_slice(b"}");
}

pub fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// `(1,,"two words")`: NULL is nothing, the empty string is `""`.
fn put_record(columns: &[ArrayRef], writers: &[Writer], row: usize, out: &mut BytesMut) {
    let mut text = BytesMut::new();
    out.extend_from_slice(b"(");
    for (index, (column, write)) in columns.iter().zip(writers).enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        if column.data_type().is_null() || column.is_null(row) {
            continue;
        }
        text.clear();
        write(row, &mut text);
        let special = |byte: &u8| matches!(byte, b'(' | b')' | b',' | b'"' | b'\\') || byte.is_ascii_whitespace();
        if text.is_empty() || text.iter().any(special) {
            put_quoted(&text, b'"', out);
        } else {
            out.extend_from_slice(&text);
        }
    }
    out.extend_from_slice(b")");
}

/// In double quotes; a quote gets `escape` before it, a backslash another backslash.
fn put_quoted(text: &[u8], escape: u8, out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(&[escape, b'"']),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.extend_from_slice(&[*other]),
        }
    }
    out.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn text(array: ArrayRef) -> Vec<String> {
        let write = writer(&array).unwrap();
        let one = |row| {
            let mut out = BytesMut::new();
            write(row, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        (0..array.len()).map(one).collect()
    }

    #[test]
    fn floats_print_as_in_postgresql() {
        let values = vec![0.1, 1.0, -0.0, 1e14, 123456789012345.0, 1e15, 1e20, 0.0001, 0.00001, 1.5e-7, 1e300];
        let expected = [
            "0.1",
            "1",
            "-0",
            "100000000000000",
            "123456789012345",
            "1e+15",
            "1e+20",
            "0.0001",
            "1e-05",
            "1.5e-07",
            "1e+300",
        ];
        assert_eq!(text(Arc::new(Float64Array::from(values))), expected);
        let values = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(text(Arc::new(Float64Array::from(values))), ["NaN", "Infinity", "-Infinity"]);
        assert_eq!(text(Arc::new(Float32Array::from(vec![0.1, 123456.0, 1e6]))), ["0.1", "123456", "1e+06"]);
    }

    #[test]
    fn arrays_records_and_bytes_print_as_in_postgresql() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![])]);
        assert_eq!(text(Arc::new(list)), ["{1,NULL}", "{}"]);

        let mut words = ListBuilder::new(StringBuilder::new());
        for word in ["a", "", "null", "two words", "q\"\\", "{}"] {
            words.values().append_value(word);
        }
        words.append(true);
        assert_eq!(text(Arc::new(words.finish())), [r#"{a,"","null","two words","q\"\\","{}"}"#]);

        let record = StructArray::from(vec![
            (
                Arc::new(Field::new("a", DataType::Utf8, true)),
                Arc::new(StringArray::from(vec!["x, \"y\""])) as ArrayRef,
            ),
            (Arc::new(Field::new("b", DataType::Int32, true)), Arc::new(Int32Array::from(vec![None])) as ArrayRef),
        ]);
        assert_eq!(text(Arc::new(record)), [r#"("x, ""y""",)"#]);
        assert_eq!(text(Arc::new(BinaryArray::from(vec![&b"\x00\xffA"[..]]))), ["\\x00ff41"]);
        assert_eq!(text(Arc::new(BooleanArray::from(vec![true, false]))), ["t", "f"]);

        let dictionary: DictionaryArray<Int32Type> = vec!["GET", "POST", "GET"].into_iter().collect();
        assert_eq!(text(Arc::new(dictionary)), ["GET", "POST", "GET"]);
    }
}
