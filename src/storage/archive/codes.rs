//! A column of a row group as *codes*: for each row the number of its value in the column's dictionary.
//!
//! Parquet stores a column whose values repeat as a dictionary page (each value once) and data pages that hold numbers of
//! values in it, packed into as few bits as they need. Readers look every number up and hand on an array of values; who
//! only counts how often each value is there can count the numbers. The pages themselves (headers, compression) are read
//! by the `parquet` crate; what is in them is decoded here, after <https://parquet.apache.org/docs/file-format/data-pages/>:
//!
//! ```text
//!     data page    [levels: 4 bytes of length, then a hybrid of width 1; only if the column may be NULL]
//!                  width: 1 byte   numbers: a hybrid of that width
//!     hybrid       runs: header (varint) n·2, then one value of ⌈width / 8⌉ bytes: it comes n times
//!                        header (varint) n·2 + 1, then n·8 values of `width` bits each, lowest bits first
//! ```
//!
//! A page of version 2 has the levels' length in its header instead.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringViewBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use bytes::{Buf, Bytes};
use datafusion::parquet::basic::{Encoding, Type};
use datafusion::parquet::column::page::{Page, PageReader};
use datafusion::parquet::errors::{ParquetError, Result};
use datafusion::parquet::file::metadata::ColumnChunkMetaData;
use datafusion::parquet::file::reader::{ChunkReader, Length};
use datafusion::parquet::file::serialized_reader::SerializedPageReader;

/// Codes are 16 bits wide, and one of them stands for NULL.
const MAX_VALUES: usize = u16::MAX as usize;

/// See the file header.
#[derive(Debug)]
pub(super) struct Codes {
    /// The values; the last one is NULL. Two of them may be equal.
    pub values: ArrayRef,
    /// For each row the number of its value.
    pub rows: Vec<u16>,
}

impl Codes {
    /// Decodes the bytes of a column chunk of `rows` rows whose values are of type `data_type` in memory. `None` when not all
    /// of it is stored by dictionary, the dictionary has more than `max_values` values, or it is of another type than a
    /// whole number, a time or a text. An error is damage.
    pub fn decode(
        chunk: Bytes,
        column: &ColumnChunkMetaData,
        rows: usize,
        data_type: &DataType,
        max_values: usize,
    ) -> Result<Option<Codes>> {
        let descriptor = column.column_descr();
        if descriptor.max_rep_level() > 0 || descriptor.max_def_level() > 1 {
            return Ok(None);
        }
        let is_optional = descriptor.max_def_level() == 1;
        let reader = Arc::new(Chunk { start: column.byte_range().0, bytes: chunk });
        let mut pages = SerializedPageReader::new(reader, column, rows, None)?;
        let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()? else { return Ok(None) };
        let count = num_values as usize;
        if count > max_values.min(MAX_VALUES - 1) {
            return Ok(None);
        }
        let Some(values) = values(&buf, count, column.column_type(), data_type)? else { return Ok(None) };
        let mut codes = Vec::with_capacity(rows);
        let mut levels = Vec::new();
        while let Some(page) = pages.get_next_page()? {
            let total = page.num_values() as usize;
            if total > rows - codes.len() {
                return Err(damaged("a column has more rows than its row group"));
            }
            let (buf, encoding, levels_len) = match &page {
                Page::DataPage { buf, encoding, .. } => (buf, encoding, None),
                Page::DataPageV2 { buf, encoding, def_levels_byte_len, .. } => {
                    (buf, encoding, Some(*def_levels_byte_len as usize))
                }
                Page::DictionaryPage { .. } => return Err(damaged("there is a second dictionary")),
            };
            if !matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) {
                return Ok(None);
            }
            let mut data = &buf[..];
            levels.clear();
            if is_optional {
                let len = match levels_len {
                    Some(len) => len,
                    None => data.try_get_u32_le().map_err(|_| damaged("a page ends in its levels"))? as usize,
                };
                let (own, rest) = data.split_at_checked(len).ok_or_else(|| damaged("a page ends in its levels"))?;
                data = rest;
                unpack_hybrid(own, 1, total, &mut levels)?;
            }
            // NULL has no number in the page.
            let present = if is_optional { levels.iter().filter(|level| **level == 1).count() } else { total };
            let begin = codes.len();
            if present > 0 {
                let (width, data) = data.split_first().ok_or_else(|| damaged("a page has no values"))?;
                unpack_hybrid(data, *width, present, &mut codes)?;
            }
            if codes[begin..].iter().any(|code| usize::from(*code) >= count) {
                return Err(damaged("a value is not in the dictionary"));
            }
            if present < total {
                spread(&mut codes, begin, &levels, count as u16);
            }
        }
        if codes.len() != rows {
            return Err(damaged("a column has fewer rows than its row group"));
        }
        Ok(Some(Codes { values, rows: codes }))
    }
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(format!("damaged column: {what}"))
}

/// Moves the codes from `begin` on apart, so that `null` has the places where the level is 0.
fn spread(codes: &mut Vec<u16>, begin: usize, levels: &[u16], null: u16) {
    let mut from = codes.len();
    codes.resize(begin + levels.len(), null);
    for (to, level) in levels.iter().enumerate().rev() {
        codes[begin + to] = if *level == 1 {
            from -= 1;
            codes[from]
        } else {
            null
        };
    }
}

/// Decodes `count` values of `width` bits, appended to `out`.
fn unpack_hybrid(mut data: &[u8], width: u8, count: usize, out: &mut Vec<u16>) -> Result<()> {
    if width > 16 {
        return Err(damaged("a page has numbers of more than 16 bits"));
    }
    let end = out.len() + count;
    while out.len() < end {
        let header = varint(&mut data)?;
        let left = end - out.len();
        if header & 1 == 0 {
            let run = usize::try_from(header >> 1).unwrap_or(usize::MAX).min(left);
            let bytes = usize::from(width).div_ceil(8);
            let (value, rest) = data.split_at_checked(bytes).ok_or_else(|| damaged("a page ends in a run"))?;
            let value = value.iter().rev().fold(0u16, |value, byte| value << 8 | u16::from(*byte));
            data = rest;
            if run == 0 {
                return Err(damaged("a run has no values"));
            }
            out.resize(out.len() + run, value);
        } else {
            let groups = usize::try_from(header >> 1).unwrap_or(usize::MAX);
            // The last run may be cut off behind the last value that counts.
            let bytes = groups.saturating_mul(usize::from(width)).min(data.len());
            let (packed, rest) = data.split_at(bytes);
            data = rest;
            let run = groups.saturating_mul(8).min(left);
            if run == 0 || packed.len() * 8 < run * usize::from(width) {
                return Err(damaged("a page ends in a run"));
            }
            unpack(packed, width, run, out);
        }
    }
    Ok(())
}

/// An unsigned LEB128 number.
fn varint(data: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = data.split_first().ok_or_else(|| damaged("a page ends before its values"))?;
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged("a run is too long"))
}

/// Unpacks the first `count` numbers of `width` bits each.
fn unpack(packed: &[u8], width: u8, count: usize, out: &mut Vec<u16>) {
    /// With the width known the compiler unrolls the eight shifts.
    fn eights<const WIDTH: usize>(packed: &[u8], count: usize, out: &mut Vec<u16>) {
        let mask = ((1u32 << WIDTH) - 1) as u16;
        out.reserve(count + 8);
        let end = out.len() + count;
        let mut groups = packed.chunks_exact(WIDTH.max(1));
        let mut eight = |group: &[u8]| {
            let mut bytes = [0; 16];
            bytes[..group.len()].copy_from_slice(group);
            if WIDTH <= 8 {
                let bits = u64::from_le_bytes([
                    bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
                ]);
                out.extend_from_slice(&std::array::from_fn::<u16, 8, _>(|i| (bits >> (i * WIDTH)) as u16 & mask));
            } else {
                let bits = u128::from_le_bytes(bytes);
                out.extend_from_slice(&std::array::from_fn::<u16, 8, _>(|i| (bits >> (i * WIDTH)) as u16 & mask));
            }
        };
        let whole = count.div_ceil(8);
        groups.by_ref().take(whole).for_each(&mut eight);
        if packed.len() / WIDTH.max(1) < whole {
            eight(groups.remainder());
        }
        out.truncate(end);
    }
    match width {
        0 => out.resize(out.len() + count, 0),
        1 => eights::<1>(packed, count, out),
        2 => eights::<2>(packed, count, out),
        3 => eights::<3>(packed, count, out),
        4 => eights::<4>(packed, count, out),
        5 => eights::<5>(packed, count, out),
        6 => eights::<6>(packed, count, out),
        7 => eights::<7>(packed, count, out),
        8 => eights::<8>(packed, count, out),
        9 => eights::<9>(packed, count, out),
        10 => eights::<10>(packed, count, out),
        11 => eights::<11>(packed, count, out),
        12 => eights::<12>(packed, count, out),
        13 => eights::<13>(packed, count, out),
        14 => eights::<14>(packed, count, out),
        15 => eights::<15>(packed, count, out),
        _ => eights::<16>(packed, count, out),
    }
}

/// The values of a dictionary page, with NULL behind them; `None` for types that are not taken.
fn values(page: &[u8], count: usize, stored: Type, data_type: &DataType) -> Result<Option<ArrayRef>> {
    let short = || damaged("a dictionary ends before its last value");
    match stored {
        Type::INT32 | Type::INT64 => {
            let width = if stored == Type::INT32 { 4 } else { 8 };
            if page.len() < count * width {
                return Err(short());
            }
            numbers(page.chunks_exact(width).take(count).map(|number| Some(signed(number))).chain([None]), data_type)
        }
        Type::BYTE_ARRAY if *data_type == DataType::Utf8View => {
            let mut page = page;
            let mut texts = StringViewBuilder::with_capacity(count + 1);
            for _ in 0..count {
                let len = page.try_get_u32_le().map_err(|_| short())? as usize;
                let (text, rest) = page.split_at_checked(len).ok_or_else(short)?;
                texts.append_value(std::str::from_utf8(text).map_err(|_| damaged("a text is not UTF-8"))?);
                page = rest;
            }
            texts.append_null();
            Ok(Some(Arc::new(texts.finish())))
        }
        _ => Ok(None),
    }
}

/// Whole numbers as Parquet has them (in pages and in statistics), as an array of the type in memory; `None` for types
/// that are not taken.
pub(super) fn numbers(
    numbers: impl IntoIterator<Item = Option<i64>>,
    data_type: &DataType,
) -> Result<Option<ArrayRef>> {
    let is_taken = data_type.is_signed_integer() || matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
    if !is_taken {
        return Ok(None);
    }
    let numbers = numbers.into_iter();
    let array: ArrayRef = match data_type {
        DataType::Date32 => Arc::new(numbers.map(|n| n.map(|n| n as i32)).collect::<Int32Array>()),
        _ => Arc::new(numbers.collect::<Int64Array>()),
    };
    let strict = CastOptions { safe: false, ..Default::default() };
    Ok(Some(cast_with_options(&array, data_type, &strict)?))
}

/// A number of up to 8 bytes, lowest first.
fn signed(bytes: &[u8]) -> i64 {
    let mut wide = [if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 }; 8];
    let len = bytes.len().min(8);
    wide[..len].copy_from_slice(&bytes[..len]);
    i64::from_le_bytes(wide)
}

/// The bytes of a file from `start` on.
struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Chunk {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Cursor<Bytes>> {
        let rest = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(Cursor::new(self.bytes.slice(rest..)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let begin = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX);
        match begin.checked_add(length) {
            Some(end) if end <= self.bytes.len() => Ok(self.bytes.slice(begin..end)),
            Some(_) | None => Err(damaged("a page ends behind it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers as a writer may pack them: runs of one value, and runs of eights.
    fn packed(numbers: &[u16], width: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for eight in numbers.chunks(8) {
            if eight.iter().all(|number| *number == eight[0]) {
                bytes.push((eight.len() << 1) as u8);
                bytes.extend(&eight[0].to_le_bytes()[..usize::from(width).div_ceil(8)]);
            } else {
                bytes.push(1 << 1 | 1);
                let bits = eight.iter().rev().fold(0u128, |bits, number| bits << width | u128::from(*number));
                bytes.extend(&bits.to_le_bytes()[..usize::from(width)]);
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn every_width_is_unpacked(width in 0u8..=16, numbers in prop::collection::vec(any::<u16>(), 0..100), same in 1usize..20) {
            let mask = ((1u32 << width) - 1) as u16;
            let numbers: Vec<u16> = numbers.iter().flat_map(|n| std::iter::repeat_n(n & mask, same)).collect();
            let mut found = Vec::new();
            unpack_hybrid(&packed(&numbers, width), width, numbers.len(), &mut found).unwrap();
            prop_assert_eq!(found, numbers);
        }

        #[test]
        fn damaged_bytes_are_errors_or_numbers(bytes in prop::collection::vec(any::<u8>(), 0..64), width in any::<u8>(), count in 0usize..1000) {
            let mut found = Vec::new();
            if unpack_hybrid(&bytes, width, count, &mut found).is_ok() {
                prop_assert_eq!(found.len(), count);
            }
            let _ = values(&bytes, count, Type::BYTE_ARRAY, &DataType::Utf8View);
            let _ = values(&bytes, count, Type::INT64, &DataType::Int16);
        }
    }

    #[test]
    fn null_gets_its_places() {
        let mut codes = vec![7, 0, 1, 2];
        spread(&mut codes, 1, &[0, 1, 1, 0, 0, 1, 0], 9);
        assert_eq!(codes, [7, 9, 0, 1, 9, 9, 2, 9]);
    }
}
