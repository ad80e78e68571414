//! PostgreSQL's functions for texts, bytes and arrays that DataFusion lacks or has otherwise.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Int32Array, ListBuilder, StringViewBuilder, UInt32Array, new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use base64::Engine as _;
use datafusion::common::{Result as DfResult, ScalarValue};
use regex::Regex;

use super::pattern::compile;
use super::scalar::{Arguments, Scalar, Type, booleans, numbers, texts, unchecked};
use crate::batch::text;
use crate::error::{Error, Kind, Result};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "regexp_split_to_array",
        syntax: "regexp_split_to_array(text, pattern [, flags])",
        summary: "what stands between the matches of the pattern; in FROM, regexp_split_to_table gives rows",
        sample: (r"regexp_split_to_array('a, b,c', ',\s*')", "{a,b,c}"),
        forms: &[&[Type::Text, Type::Text], &[Type::Text, Type::Text, Type::Text]],
        result: Type::Texts,
        check: unchecked,
        rows: split,
    },
    Scalar {
        name: "regexp_all",
        syntax: "regexp_all(text, pattern [, flags])",
        summary: "what regexp_matches calls: the groups of each match (or the whole of it), as texts of arrays",
        sample: (r"regexp_all('a1b2', '[a-z]\d', 'g')", "{{a1},{b2}}"),
        forms: &[&[Type::Text, Type::Text], &[Type::Text, Type::Text, Type::Text]],
        result: Type::TextLists,
        check: unchecked,
        rows: matches,
    },
    Scalar {
        name: "unistr",
        syntax: "unistr(text)",
        summary: "a text with its Unicode escapes read",
        sample: (r"unistr('d\0061t\+000061')", "data"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| {
            let column = arguments.text(0)?;
            texts(arguments.rows, |row| Ok(column.get(row).map(unescaped).transpose()?))
        },
    },
    Scalar {
        name: "encode",
        syntax: "encode(bytea, format)",
        summary: "bytes as text: hex, base64 or escape",
        sample: ("encode('abc', 'base64')", "YWJj"),
        forms: &[&[Type::Any, Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: encode,
    },
    Scalar {
        name: "decode",
        syntax: "decode(text, format)",
        summary: "bytes out of text: hex, base64 or escape",
        sample: ("decode('616263', 'hex')", r"\x616263"),
        forms: &[&[Type::Text, Type::Text]],
        result: Type::Bytes,
        check: unchecked,
        rows: decode,
    },
    Scalar {
        name: "convert_from",
        syntax: "convert_from(bytea, encoding)",
        summary: "bytes as text; the encoding is UTF8",
        sample: (r"convert_from('\x616263'::bytea, 'UTF8')", "abc"),
        forms: &[&[Type::Any, Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| {
            let bytes = bytes_argument(arguments, 0)?;
            let (bytes, encodings) = (bytes.as_binary::<i32>(), arguments.text(1)?);
            texts(arguments.rows, |row| {
                let Some(encoding) = encodings.get(row).filter(|_| bytes.is_valid(row)) else { return Ok(None) };
                check_encoding(encoding)?;
                let wrong = |_| Error::new(Kind::InvalidEncoding, "invalid byte sequence for encoding \"UTF8\"");
                Ok(Some(std::str::from_utf8(bytes.value(row)).map_err(wrong)?.to_string()))
            })
        },
    },
    Scalar {
        name: "convert_to",
        syntax: "convert_to(text, encoding)",
        summary: "a text as bytes; the encoding is UTF8",
        sample: ("convert_to('abc', 'UTF8')", r"\x616263"),
        forms: &[&[Type::Text, Type::Text]],
        result: Type::Bytes,
        check: unchecked,
        rows: |arguments| {
            let (column, encodings) = (arguments.text(0)?, arguments.text(1)?);
            let mut out = BinaryBuilder::new();
            for row in 0..arguments.rows {
                match (column.get(row), encodings.get(row)) {
                    (Some(text), Some(encoding)) => {
                        check_encoding(encoding)?;
                        out.append_value(text);
                    }
                    _ => out.append_null(),
                }
            }
            Ok(Arc::new(out.finish()))
        },
    },
    Scalar {
        name: "get_byte",
        syntax: "get_byte(bytea, n)",
        summary: "one of the bytes, from 0",
        sample: (r"get_byte('\x616263'::bytea, 1)", "98"),
        forms: &[&[Type::Any, Type::Bigint]],
        result: Type::Integer,
        check: unchecked,
        rows: |arguments| {
            let bytes = bytes_argument(arguments, 0)?;
            let (bytes, places) = (bytes.as_binary::<i32>(), arguments.numbers::<Int64Type>(1)?);
            let byte = |row: usize| -> Result<Option<i32>> {
                let Some(at) = places.get(row).filter(|_| bytes.is_valid(row)) else { return Ok(None) };
                let value = bytes.value(row);
                let found = usize::try_from(at).ok().and_then(|at| value.get(at));
                let message = || format!("index {at} out of valid range, 0..{}", value.len() as i64 - 1);
                found.map(|byte| Some(i32::from(*byte))).ok_or_else(|| Error::new(Kind::ArraySubscript, message()))
            };
            Ok(Arc::new((0..arguments.rows).map(byte).collect::<Result<Int32Array>>()?))
        },
    },
    Scalar {
        name: "num_nulls",
        syntax: "num_nulls(value, …)",
        summary: "how many of the values are NULL",
        sample: ("num_nulls(1, NULL, 2)", "1"),
        forms: &[&[Type::Anys]],
        result: Type::Integer,
        check: unchecked,
        rows: |arguments| nulls(arguments, true),
    },
    Scalar {
        name: "num_nonnulls",
        syntax: "num_nonnulls(value, …)",
        summary: "how many of the values are not NULL",
        sample: ("num_nonnulls(1, NULL, 2)", "2"),
        forms: &[&[Type::Anys]],
        result: Type::Integer,
        check: unchecked,
        rows: |arguments| nulls(arguments, false),
    },
    Scalar {
        name: "trim_array",
        syntax: "trim_array(array, n)",
        summary: "an array without its last n elements",
        sample: ("trim_array(ARRAY[1, 2, 3, 4], 2)", "{1,2}"),
        forms: &[&[Type::Any, Type::Bigint]],
        result: Type::Any,
        check: unchecked,
        rows: |arguments| {
            let (array, counts) = (arguments.array(0)?, arguments.numbers::<Int64Type>(1)?);
            let lists = list_of(&array)?;
            let value = |row: usize| -> Result<Option<ArrayRef>> {
                let Some(count) = counts.get(row).filter(|_| lists.is_valid(row)) else { return Ok(None) };
                let list = lists.value(row);
                let message = || format!("number of elements to trim must be between 0 and {}", list.len());
                let count = usize::try_from(count).ok().filter(|count| *count <= list.len());
                let count = count.ok_or_else(|| Error::new(Kind::ArraySubscript, message()))?;
                Ok(Some(list.slice(0, list.len() - count)))
            };
            one_by_one(arguments.rows, &array, value)
        },
    },
    Scalar {
        name: "array_mode",
        syntax: "array_mode(array)",
        summary: "what mode() WITHIN GROUP calls: the most frequent of an array's elements, which are sorted",
        sample: ("array_mode(ARRAY[1, 2, 2])", "2"),
        forms: &[&[Type::Any]],
        result: Type::Element,
        check: unchecked,
        rows: |arguments| {
            picked(&arguments.array(0)?, |list, _| {
                let (mut best, mut most, mut start) = (None, 0, 0);
                for at in 0..list.len() {
                    if at > start && ScalarValue::try_from_array(list, at)? != ScalarValue::try_from_array(list, start)?
                    {
                        start = at;
                    }
                    if at + 1 - start > most {
                        (most, best) = (at + 1 - start, Some(start));
                    }
                }
                Ok(best)
            })
        },
    },
    Scalar {
        name: "array_percentile",
        syntax: "array_percentile(fraction, array)",
        summary: "what percentile_disc(fraction) WITHIN GROUP calls: the first of an array's sorted elements that so much of it does not exceed",
        sample: ("array_percentile(0.5, ARRAY[1, 2, 4])", "2"),
        forms: &[&[Type::Double, Type::Any]],
        result: Type::Element,
        check: unchecked,
        rows: |arguments| {
            let fractions = arguments.numbers::<Float64Type>(0)?;
            picked(&arguments.array(1)?, |list, row| {
                let Some(fraction) = fractions.get(row) else { return Ok(None) };
                if !(0.0..=1.0).contains(&fraction) {
                    let message = format!("percentile value {fraction} is not between 0 and 1");
                    return Err(Error::new(Kind::OutOfRange, message).into());
                }
                let at = (fraction * list.len() as f64).ceil() as usize;
                Ok((!list.is_empty()).then(|| at.max(1) - 1))
            })
        },
    },
    Scalar {
        name: "isfinite",
        syntax: "isfinite(time)",
        summary: "whether a date, time or interval is none of the infinite ones",
        sample: ("isfinite(DATE '2026-01-02')", "t"),
        forms: &[&[Type::Any]],
        result: Type::Boolean,
        check: unchecked,
        rows: |arguments| {
            let array = arguments.array(0)?;
            Ok(booleans(arguments.rows, |row| array.is_valid(row).then_some(true)))
        },
    },
    Scalar {
        name: "log10",
        syntax: "log10(double)",
        summary: "the logarithm to base 10",
        sample: ("log10(1000)", "3"),
        forms: &[&[Type::Double]],
        result: Type::Double,
        check: unchecked,
        rows: |arguments| {
            let values = arguments.numbers::<Float64Type>(0)?;
            Ok(numbers::<Float64Type>(arguments.rows, |row| values.get(row).map(f64::log10)))
        },
    },
];

/// `\0061`, `\u0061`, `\+000061`, `\U00000061` and `\\`.
fn unescaped(text: &str) -> Result<String> {
    let wrong = || {
        Error::new(Kind::Syntax, "invalid Unicode escape")
            .with_hint(r"Unicode escapes are \XXXX, \+XXXXXX, \uXXXX or \UXXXXXXXX.")
    };
    let (mut out, mut rest) = (String::new(), text);
    let mut high: Option<u32> = None;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (skip, digits) = match rest.as_bytes().first() {
            Some(b'\\') => {
                out.push('\\');
                rest = &rest[1..];
                continue;
            }
            Some(b'+') => (1, 6),
            Some(b'u') => (1, 4),
            Some(b'U') => (1, 8),
            _ => (0, 4),
        };
        let hex = rest.get(skip..skip + digits).ok_or_else(wrong)?;
        let code = u32::from_str_radix(hex, 16).map_err(|_| wrong())?;
        rest = &rest[skip + digits..];
        let code = match (high.take(), code) {
            (None, 0xd800..=0xdbff) => {
                high = Some(code);
                continue;
            }
            (Some(first), 0xdc00..=0xdfff) => 0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00),
            (Some(_), _) => return Err(wrong()),
            (None, code) => code,
        };
        out.push(char::from_u32(code).filter(|c| *c != '\0').ok_or_else(wrong)?);
    }
    out.push_str(rest);
    if high.is_some() { Err(wrong()) } else { Ok(out) }
}

fn check_encoding(name: &str) -> Result<()> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" | "sqlascii" => Ok(()),
        _ => Err(Error::new(Kind::InvalidParameter, format!("invalid encoding name \"{name}\""))
            .with_hint("The encoding is UTF8.")),
    }
}

/// An argument that is bytes, or a text in one of their spellings.
fn bytes_argument(arguments: &Arguments<'_>, i: usize) -> DfResult<ArrayRef> {
    let array = arguments.array(i)?;
    if !array.data_type().is_string() {
        return Ok(cast(&array, &DataType::Binary)?);
    }
    let array = cast(&array, &DataType::Utf8View)?;
    let mut out = BinaryBuilder::new();
    for text in array.as_string_view() {
        match text {
            Some(text) => out.append_value(super::cast::bytes_of(text)?),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn no_format(name: &str) -> Error {
    Error::new(Kind::InvalidParameter, format!("unrecognized encoding: \"{name}\""))
        .with_hint("There are hex, base64 and escape.")
}

/// Characters of a line of base64.
const LINE: usize = 76;

fn encode(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let bytes = bytes_argument(arguments, 0)?;
    let (bytes, formats) = (bytes.as_binary::<i32>(), arguments.text(1)?);
    texts(arguments.rows, |row| {
        let Some(format) = formats.get(row).filter(|_| bytes.is_valid(row)) else { return Ok(None) };
        Ok(Some(encoded(bytes.value(row), format)?))
    })
}

/// Bytes as a text in the format `hex`, `base64` or `escape`.
pub fn encoded(bytes: &[u8], format: &str) -> Result<String> {
    Ok(match format.to_ascii_lowercase().as_str() {
        "hex" => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        "base64" => {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            let lines: Vec<&str> =
                text.as_bytes().chunks(LINE).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
            lines.join("\n")
        }
        "escape" => {
            let mut out = String::new();
            for byte in bytes {
                match byte {
                    b'\\' => out.push_str("\\\\"),
                    0 | 0x80.. => out.push_str(&format!("\\{byte:03o}")),
                    byte => out.push(char::from(*byte)),
                }
            }
            out
        }
        _ => return Err(no_format(format)),
    })
}

fn decode(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (column, formats) = (arguments.text(0)?, arguments.text(1)?);
    let mut out = BinaryBuilder::new();
    for row in 0..arguments.rows {
        let (Some(text), Some(format)) = (column.get(row), formats.get(row)) else {
            out.append_null();
            continue;
        };
        out.append_value(match format.to_ascii_lowercase().as_str() {
            "hex" => super::cast::bytes_of(&format!("\\x{text}"))?,
            "base64" => {
                let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
                let wrong = |_| Error::new(Kind::InvalidParameter, "invalid base64 text");
                base64::engine::general_purpose::STANDARD.decode(plain).map_err(wrong)?
            }
            "escape" => super::cast::bytes_of(text)?,
            _ => return Err(no_format(format).into()),
        });
    }
    Ok(Arc::new(out.finish()))
}

fn nulls(arguments: &Arguments<'_>, counted: bool) -> DfResult<ArrayRef> {
    let masks =
        (0..arguments.count()).map(|i| Ok(arguments.array(i)?.logical_nulls())).collect::<DfResult<Vec<_>>>()?;
    let types: Vec<bool> = arguments.values.iter().map(|value| value.data_type().is_null()).collect();
    let is_null = |i: usize, row: usize| types[i] || masks[i].as_ref().is_some_and(|nulls| nulls.is_null(row));
    let count = |row: usize| (0..masks.len()).filter(|i| is_null(*i, row) == counted).count() as i32;
    Ok(Arc::new((0..arguments.rows).map(|row| Some(count(row))).collect::<Int32Array>()))
}

/// The pattern and flags of each row, compiled; `None` where something is NULL.
fn for_each_match(
    arguments: &Arguments<'_>,
    mut row_of: impl FnMut(Option<(&str, &Regex, &str)>) -> Result<()>,
) -> DfResult<()> {
    let (column, patterns) = (arguments.text(0)?, arguments.text(1)?);
    let flags = if arguments.count() > 2 { Some(arguments.text(2)?) } else { None };
    let mut last: Option<(String, Regex)> = None;
    for row in 0..arguments.rows {
        let flags = match &flags {
            Some(flags) => flags.get(row),
            None => Some(""),
        };
        let (Some(text), Some(pattern), Some(flags)) = (column.get(row), patterns.get(row), flags) else {
            row_of(None)?;
            continue;
        };
        let key = format!("{flags}/{pattern}");
        if last.as_ref().is_none_or(|(known, _)| *known != key) {
            let wrong = |why: String| {
                let kind =
                    if why.starts_with("There is no flag") { Kind::InvalidParameter } else { Kind::InvalidRegex };
                Error::new(kind, format!("invalid regular expression: \"{pattern}\"")).with_detail(why)
            };
            last = Some((key, compile(pattern, flags).map_err(wrong)?));
        }
        row_of(last.as_ref().map(|(_, regex)| (text, regex, flags)))?;
    }
    Ok(())
}

fn split(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let mut out =
        ListBuilder::new(StringViewBuilder::new()).with_field(Field::new_list_field(DataType::Utf8View, true));
    for_each_match(arguments, |found| {
        let Some((text, regex, _)) = found else {
            out.append_null();
            return Ok(());
        };
        // An empty match at the beginning, at the end or right behind another one cuts nothing.
        let mut start = 0;
        for cut in regex.find_iter(text) {
            let empty = cut.start() == cut.end();
            if empty && (cut.start() == start || cut.end() == text.len()) {
                continue;
            }
            out.values().append_value(&text[start..cut.start()]);
            start = cut.end();
        }
        out.values().append_value(&text[start..]);
        out.append(true);
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

fn matches(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let texts = ListBuilder::new(StringViewBuilder::new()).with_field(Field::new_list_field(DataType::Utf8View, true));
    let mut out = ListBuilder::new(texts).with_field(Field::new_list_field(Type::Texts.arrow(), true));
    for_each_match(arguments, |found| {
        let Some((text, regex, flags)) = found else {
            out.append_null();
            return Ok(());
        };
        let most = if flags.contains('g') { usize::MAX } else { 1 };
        for groups in regex.captures_iter(text).take(most) {
            let from = usize::from(groups.len() > 1);
            for group in from..groups.len() {
                out.values().values().append_option(groups.get(group).map(|group| group.as_str()));
            }
            out.values().append(true);
        }
        out.append(true);
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

fn list_of(array: &ArrayRef) -> Result<&arrow::array::ListArray> {
    array.as_list_opt::<i32>().ok_or_else(|| {
        Error::new(
            Kind::Datatype,
            format!("an array is wanted, not {}", crate::sql::statement::type_name(array.data_type())),
        )
    })
}

/// A column of arrays like `of`, from that of each row.
fn one_by_one(rows: usize, of: &ArrayRef, value: impl Fn(usize) -> Result<Option<ArrayRef>>) -> DfResult<ArrayRef> {
    let values = (0..rows).map(value).collect::<Result<Vec<_>>>()?;
    let DataType::List(field) = of.data_type() else { return Ok(new_null_array(of.data_type(), rows)) };
    let lengths = values.iter().map(|list| list.as_ref().map_or(0, |list| list.len()));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    let parts: Vec<&dyn Array> = values.iter().flatten().map(|list| list.as_ref()).collect();
    let flat = if parts.is_empty() { new_null_array(field.data_type(), 0) } else { arrow::compute::concat(&parts)? };
    let nulls = values.iter().map(Option::is_some).collect::<Vec<bool>>();
    Ok(Arc::new(arrow::array::ListArray::try_new(Arc::clone(field), offsets, flat, Some(nulls.into()))?))
}

/// One of the elements of each array.
fn picked(array: &ArrayRef, of: impl Fn(&ArrayRef, usize) -> DfResult<Option<usize>>) -> DfResult<ArrayRef> {
    let lists = list_of(array)?;
    let element = text::lists(array);
    let mut at = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let picked = if lists.is_null(row) { None } else { of(&element(row), row)? };
        at.push(picked.map(|picked| lists.value_offsets()[row] as u32 + picked as u32));
    }
    Ok(take(lists.values(), &UInt32Array::from(at), None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_unicode() {
        assert_eq!(unescaped(r"d\0061t\+000061\\\u0062\U00000063").unwrap(), r"data\bc");
        assert_eq!(unescaped(r"\d83d\de00").unwrap(), "😀");
        for text in [r"\", r"\00", r"\zzzz", r"\d83d", r"\d83dx", r"\0000"] {
            assert!(unescaped(text).is_err(), "{text}");
        }
    }
}
