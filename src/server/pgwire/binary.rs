//! Values in PostgreSQL's binary formats (the `…_send` functions of its types): big-endian numbers, times counted in
//! microseconds from 2000-01-01, `numeric` in base 10000, arrays and records as lists of length-prefixed values.
//!
//! As in `text`, a writer is made once per column and must not be asked for a NULL. The bytes follow from the type the
//! client was told (`types::of`), so the two files change together.

use arrow::array::*;
use arrow::datatypes::*;
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;

use super::types;
use crate::batch::datetime;
use crate::batch::text::{self, Writer};
use crate::error::Result;
use crate::format::subtype::{self, Subtype};

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL starts to count.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// A writer of the values of a column in binary; `subtype` says what its texts are.
pub fn writer_of(array: &ArrayRef, subtype: Option<Subtype>) -> Result<Writer> {
    let Some(subtype) = subtype else { return writer(array) };
    let text = text::writer(array)?;
    let read = move |row: usize| {
        let mut bytes = BytesMut::new();
        text(row, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    // What is not in the type's spelling cannot be: all ways into such a column check it.
    Ok(match subtype {
        Subtype::Json => writer(array)?,
        Subtype::Jsonb => Box::new(move |row, out| {
            out.put_u8(JSONB_VERSION);
            out.extend_from_slice(read(row).as_bytes());
        }),
        Subtype::Uuid => {
            Box::new(move |row, out| out.extend_from_slice(&subtype::uuid_bytes(&read(row)).unwrap_or_default()))
        }
        Subtype::Inet | Subtype::Cidr => Box::new(move |row, out| {
            let address = subtype::Address::inet(&read(row));
            out.extend(address.map(|a| a.bytes(subtype == Subtype::Cidr)).unwrap_or_default());
        }),
    })
}

/// What stands before the text of a `jsonb` (`jsonb_send`).
pub const JSONB_VERSION: u8 = 1;

/// A writer of the values of `array` in binary.
pub fn writer(array: &ArrayRef) -> Result<Writer> {
    macro_rules! number {
        ($kind:ty, $wide:ty, $put:ident) => {{
            let array = array.as_primitive::<$kind>().clone();
            Box::new(move |row, out: &mut BytesMut| out.$put(<$wide>::from(array.value(row))))
        }};
    }
    macro_rules! bytes_of {
        ($array:expr) => {{
            let array = $array.clone();
            Box::new(move |row, out: &mut BytesMut| out.extend_from_slice(array.value(row).as_ref()))
        }};
    }
    Ok(match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, out| out.put_u8(u8::from(array.value(row))))
        }
        DataType::Int8 => number!(Int8Type, i16, put_i16),
        DataType::UInt8 => number!(UInt8Type, i16, put_i16),
        DataType::Int16 => number!(Int16Type, i16, put_i16),
        DataType::UInt16 => number!(UInt16Type, i32, put_i32),
        DataType::Int32 => number!(Int32Type, i32, put_i32),
        DataType::UInt32 => number!(UInt32Type, i64, put_i64),
        DataType::Int64 => number!(Int64Type, i64, put_i64),
        DataType::Float32 => number!(Float32Type, f32, put_f32),
        DataType::Float64 => number!(Float64Type, f64, put_f64),
        // `numeric` is made from its text: three types have one, and none is worth a second algorithm.
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            let text = text::writer(array)?;
            Box::new(move |row, out| {
                let mut digits = BytesMut::new();
                text(row, &mut digits);
                put_numeric(&digits, out);
            })
        }
        DataType::Binary => bytes_of!(array.as_binary::<i32>()),
        DataType::LargeBinary => bytes_of!(array.as_binary::<i64>()),
        DataType::BinaryView => bytes_of!(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => bytes_of!(array.as_fixed_size_binary()),
        DataType::Date32 | DataType::Date64 => {
            let days = datetime::days_since_1970(array)?;
            Box::new(move |row, out| out.put_i32(days.value(row).saturating_sub(EPOCH_DAYS)))
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            let micros = datetime::micros_of_day(array)?;
            Box::new(move |row, out| out.put_i64(micros.value(row)))
        }
        DataType::Timestamp(..) => {
            let micros = datetime::micros_since_1970(array)?;
            Box::new(move |row, out| match micros.value(row) {
                datetime::INFINITY => out.put_i64(datetime::INFINITY),
                micros => out.put_i64(micros.saturating_sub(EPOCH_MICROS)),
            })
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let interval = datetime::intervals(array)?;
            Box::new(move |row, out| {
                let interval = interval(row);
                out.put_i64(interval.micros);
                out.put_i32(interval.days);
                out.put_i32(interval.months);
            })
        }
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _)
            if !text::is_list(field.data_type()) =>
        {
            let (element, of) = (types::of(field), Subtype::of(field));
            let elements = text::lists(array);
            Box::new(move |row, out| put_array(&elements(row), &element, of, out))
        }
        DataType::Struct(fields) => {
            let types: Vec<Type> = fields.iter().map(|field| types::of(field)).collect();
            let columns: Vec<ArrayRef> = array.as_struct().columns().to_vec();
            let of = columns.iter().zip(fields);
            let writers = of.map(|(column, field)| writer_of(column, Subtype::of(field)));
            let writers = writers.collect::<Result<Vec<Writer>>>()?;
            Box::new(move |row, out| {
                out.put_i32(columns.len() as i32);
                for ((column, write), kind) in columns.iter().zip(&writers).zip(&types) {
                    out.put_u32(kind.oid());
                    put_sized(column, write, row, out);
                }
            })
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let keys = dictionary.normalized_keys();
            let values = writer(dictionary.values())?;
            Box::new(move |row, out| values(keys[row], out))
        }
        // Strings, and all that is sent as type `text`.
        _ => text::writer(array)?,
    })
}

/// A value with its length before it, or -1 for NULL.
pub fn put_sized(array: &ArrayRef, write: &Writer, row: usize, out: &mut BytesMut) {
    if array.is_null(row) {
        return out.put_i32(-1);
    }
    let start = out.len();
    out.put_i32(0);
    write(row, out);
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// `array_send`: dimensions (0 or 1), has NULLs, type of the elements, then per dimension size and lower bound.
fn put_array(elements: &ArrayRef, kind: &Type, of: Option<Subtype>, out: &mut BytesMut) {
    out.put_i32(i32::from(!elements.is_empty()));
    out.put_i32(i32::from(elements.logical_null_count() > 0));
    out.put_u32(kind.oid());
    if elements.is_empty() {
        return;
    }
    out.put_i32(elements.len() as i32);
    out.put_i32(1);
    match writer_of(elements, of) {
        Ok(write) => (0..elements.len()).for_each(|row| put_sized(elements, &write, row, out)),
        Err(_) => (0..elements.len()).for_each(|_| out.put_i32(-1)),
    }
}

/// `numeric_send`: count of base-10000 digits, weight of the first (in digits), sign, decimals shown, the digits.
fn put_numeric(text: &[u8], out: &mut BytesMut) {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..point], text.get(point + 1..).unwrap_or(&[]));
    // Pad to groups of four digits that end at the decimal point.
    let pad_left = (4 - whole.len() % 4) % 4;
    let pad_right = (4 - fraction.len() % 4) % 4;
    let padded: Vec<u8> = std::iter::repeat_n(&b'0', pad_left)
        .chain(whole)
        .chain(fraction)
        .chain(std::iter::repeat_n(&b'0', pad_right))
        .copied()
        .collect();
    let mut digits: Vec<i16> =
        padded.chunks(4).map(|group| group.iter().fold(0, |sum, byte| sum * 10 + i16::from(byte - b'0'))).collect();
    let mut weight = (pad_left + whole.len()) as i16 / 4 - 1;
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    weight -= leading as i16;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    if digits.is_empty() {
        weight = 0;
    }
    out.put_i16(digits.len() as i16);
    out.put_i16(weight);
    out.put_u16(if negative && !digits.is_empty() { 0x4000 } else { 0 });
    out.put_i16(fraction.len() as i16);
    digits.iter().for_each(|digit| out.put_i16(*digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_numeric(text.as_bytes(), &mut out);
        out.to_vec()
    }

    /// The bytes of `SELECT numeric_send(…)` in PostgreSQL 15.
    #[test]
    fn numeric_is_sent_as_postgresql_sends_it() {
        assert_eq!(numeric("0"), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(numeric("0.00"), [0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(numeric("1"), [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(numeric("-12345.678"), [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
        assert_eq!(numeric("10000"), [0, 1, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(numeric("0.0001"), [0, 1, 0xff, 0xff, 0, 0, 0, 4, 0, 1]);
    }

    #[test]
    fn an_array_is_sent_with_its_nulls() {
        let list = ListArray::from_iter_primitive::<Int16Type, _, _>(vec![Some(vec![Some(7), None])]);
        let array: ArrayRef = std::sync::Arc::new(list);
        let mut out = BytesMut::new();
        writer(&array).unwrap()(0, &mut out);
        let expected = [
            &[0, 0, 0, 1][..],
            &[0, 0, 0, 1],
            &[0, 0, 0, 21],
            &[0, 0, 0, 2],
            &[0, 0, 0, 1],
            &[0, 0, 0, 2, 0, 7],
            &[255, 255, 255, 255],
        ]
        .concat();
        assert_eq!(out.to_vec(), expected);
    }
}
