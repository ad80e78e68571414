//! Rows to the bytes of a Parquet file, and what Delta's log is to say of them.
//!
//! How a column is encoded is decided from the first rows of the file. Times and offsets are stored as differences.
//! Values that repeat get a dictionary; numbers that do not are stored as differences too. Texts that are many but
//! short (addresses, ids of requests, users and traces) get a Bloom filter per row group, so that looking for one of
//! them reads only where it may be. Pages are small and have an index, so a selective query reads little.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Field, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
};
use bytes::Bytes;
use chrono::DateTime;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{KeyValue, ParquetMetaData, SortingColumn};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{OFFSET, Sizes, WATERMARK, failed};
use crate::error::Result;

/// Compressing is a twentieth of the time of an append at this level; lower ones save little of it.
const ZSTD_LEVEL: i32 = 3;

/// Rows that tell what a column is like.
const SAMPLE_ROWS: usize = 2048;

/// Columns with Bloom filters: the ones with the most values. One costs about a twentieth of the time of an append.
const BLOOM_COLUMNS: usize = 2;
/// Of 100 values in the sample so many are distinct at least.
const BLOOM_DISTINCT_PERCENT: usize = 5;
/// Longer texts (on average) are addresses of pages or messages, which nobody looks up by their whole value. A UUID has
/// 36.
const BLOOM_TEXT_BYTES: usize = 40;
/// A filter is made for as many values as the sample lets expect, but no more than these, at 10 bits each.
const BLOOM_VALUES: usize = 128 * 1024;

/// Texts longer than this (on average) have no statistics: finding the smallest and the greatest of every page takes a
/// tenth of the whole time, and nearly every page holds nearly everything between them.
const STATISTICS_TEXT_BYTES: usize = 64;

/// Columns with statistics in Delta's log: it is held in memory, and a log of JSON may have hundreds of columns.
const STATISTICS_COLUMNS: usize = 40;
/// Characters of a text in these statistics, as other writers have it.
const STATISTICS_CHARS: usize = 32;

/// What was encoded.
pub(super) struct Encoded {
    pub rows: u64,
    /// For [`super::commit::add`].
    pub stats: String,
}

/// Encodes `batches`, which have one schema, and hands on the bytes as they come; blocks while nobody takes them.
pub(super) fn encode(
    sizes: &Sizes,
    time: Option<&str>,
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>>,
    out: &mpsc::Sender<Bytes>,
) -> Result<Encoded> {
    let encoding = |err: ParquetError| failed("encode rows as Parquet", &err);
    let mut batches = batches.peekable();
    let sample = match batches.peek() {
        Some(Ok(first)) => first.slice(0, first.num_rows().min(SAMPLE_ROWS)),
        Some(Err(_)) | None => RecordBatch::new_empty(Arc::clone(schema)),
    };
    let options = ArrowWriterOptions::new()
        .with_properties(properties(sizes, time, schema, &sample))
        // The schema that is written says string where the rows in memory have views.
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(schema), options).map_err(encoding)?;
    for batch in batches {
        writer.write(&batch?).map_err(encoding)?;
        if writer.inner().len() >= sizes.part_bytes {
            send(out, &mut writer)?;
        }
    }
    let metadata = writer.finish().map_err(encoding)?;
    send(out, &mut writer)?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    Ok(Encoded { rows, stats: statistics(&metadata, schema, time, rows) })
}

fn send(out: &mpsc::Sender<Bytes>, writer: &mut ArrowWriter<Vec<u8>>) -> Result<()> {
    let bytes = Bytes::from(std::mem::take(writer.inner_mut()));
    // Who took them has failed and says why.
    out.blocking_send(bytes).map_err(|_| crate::error::Error::internal("an upload ended early"))
}

fn properties(sizes: &Sizes, time: Option<&str>, schema: &SchemaRef, sample: &RecordBatch) -> WriterProperties {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("a level between 1 and 22");
    let arrow = KeyValue::new(ARROW_SCHEMA_META_KEY.to_string(), encode_arrow_schema(&plain(schema)));
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("logweir version ", env!("CARGO_PKG_VERSION")).to_string())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(sizes.row_group_rows))
        .set_data_page_row_count_limit(sizes.page_rows)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_key_value_metadata(Some(vec![arrow]))
        .set_sorting_columns(sorting(schema, time));
    let mut bloom = Vec::new();
    for (field, column) in schema.fields().iter().zip(sample.columns()) {
        let path = ColumnPath::from(field.name().as_str());
        let (distinct, text_bytes) = distinct(column);
        let percent = distinct * 100 / (column.len() - column.null_count()).max(1);
        let ordered = field.name() == OFFSET || time == Some(field.name());
        match field.data_type() {
            DataType::Int64 | DataType::Int32 | DataType::Int16 | DataType::Timestamp(..)
                if ordered || percent > 30 =>
            {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            DataType::Utf8View => {
                if percent > 80 {
                    properties = properties
                        .set_column_dictionary_enabled(path.clone(), false)
                        .set_column_encoding(path.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
                }
                if text_bytes > STATISTICS_TEXT_BYTES {
                    properties = properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
                }
                if percent >= BLOOM_DISTINCT_PERCENT && text_bytes <= BLOOM_TEXT_BYTES {
                    bloom.push((percent, path));
                }
            }
            DataType::Float32 | DataType::Float64 if percent > 30 => {
                properties = properties.set_column_dictionary_enabled(path, false);
            }
            _ => {}
        }
    }
    bloom.sort_by_key(|(percent, _)| std::cmp::Reverse(*percent));
    for (percent, path) in bloom.into_iter().take(BLOOM_COLUMNS) {
        let values = (sizes.row_group_rows * percent / 100).clamp(64, BLOOM_VALUES) as u64;
        properties =
            properties.set_column_bloom_filter_fpp(path.clone(), 0.01).set_column_bloom_filter_max_ndv(path, values);
    }
    properties.build()
}

/// The schema with texts as plain strings.
fn plain(schema: &SchemaRef) -> Schema {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

/// That rows are in order of time, then offset. Numbers of columns are those of leaves, so nested columns would shift
/// them; then it goes unsaid.
fn sorting(schema: &SchemaRef, time: Option<&str>) -> Option<Vec<SortingColumn>> {
    if schema.fields().iter().any(|field| field.data_type().is_nested()) {
        return None;
    }
    let column = |name: &str| {
        let (index, _) = schema.column_with_name(name)?;
        Some(SortingColumn { column_idx: index as i32, descending: false, nulls_first: true })
    };
    time.into_iter().chain([OFFSET]).map(column).collect()
}

/// How many distinct values a column of numbers or texts has, and the mean length of a text.
fn distinct(column: &dyn Array) -> (usize, usize) {
    fn numbers<T: arrow::datatypes::ArrowPrimitiveType>(column: &dyn Array) -> usize
    where
        T::Native: Into<i64>,
    {
        let column = column.as_primitive::<T>();
        column.iter().flatten().map(Into::into).collect::<HashSet<i64>>().len()
    }
    match column.data_type() {
        DataType::Int8 => (numbers::<Int8Type>(column), 0),
        DataType::Int16 => (numbers::<Int16Type>(column), 0),
        DataType::Int32 => (numbers::<Int32Type>(column), 0),
        DataType::Int64 => (numbers::<Int64Type>(column), 0),
        DataType::Date32 => (numbers::<Date32Type>(column), 0),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            (numbers::<TimestampMicrosecondType>(column), 0)
        }
        DataType::Float64 => {
            let column = column.as_primitive::<arrow::datatypes::Float64Type>();
            (column.iter().flatten().map(f64::to_bits).collect::<HashSet<_>>().len(), 0)
        }
        DataType::Utf8View => {
            let column = column.as_string_view();
            let bytes: usize = column.iter().flatten().map(str::len).sum();
            let values: HashSet<&str> = column.iter().flatten().collect();
            (values.len(), bytes / (column.len() - column.null_count()).max(1))
        }
        _ => (0, 0),
    }
}

/// Statistics of a file for Delta's log, from those of its row groups.
fn statistics(metadata: &ParquetMetaData, schema: &SchemaRef, time: Option<&str>, rows: u64) -> String {
    let (mut min_values, mut max_values, mut null_count) = (Map::new(), Map::new(), Map::new());
    let first = |name: &str| name == OFFSET || name == WATERMARK || time == Some(name);
    let (own, others): (Vec<_>, Vec<_>) = schema.fields().iter().partition(|field| first(field.name()));
    for field in own.into_iter().chain(others).take(STATISTICS_COLUMNS) {
        let Some(Summary { nulls, range }) = summary(metadata, field) else { continue };
        null_count.insert(field.name().clone(), nulls.into());
        if let Some((min, max)) = range {
            min_values.insert(field.name().clone(), min);
            max_values.insert(field.name().clone(), max);
        }
    }
    json!({"numRecords": rows, "minValues": min_values, "maxValues": max_values, "nullCount": null_count}).to_string()
}

struct Summary {
    nulls: u64,
    range: Option<(Value, Value)>,
}

/// A column over all row groups; `None` when one of them has no statistics of it.
fn summary(metadata: &ParquetMetaData, field: &Field) -> Option<Summary> {
    let path = [field.name().clone()];
    let leaf = metadata.file_metadata().schema_descr().columns().iter().position(|c| c.path().parts() == path)?;
    let groups = metadata.row_groups().iter().map(|group| group.column(leaf).statistics());
    let groups = groups.collect::<Option<Vec<&Statistics>>>()?;
    let nulls = groups.iter().map(|s| s.null_count_opt()).sum::<Option<u64>>()?;
    let rows: u64 = metadata.row_groups().iter().map(|group| group.num_rows() as u64).sum();
    let range = if nulls == rows { None } else { range(&groups, field.data_type()) };
    Some(Summary { nulls, range })
}

/// The smallest and the greatest value of a column of whole numbers or times.
pub(super) fn whole_numbers(statistics: &Statistics) -> Option<(i64, i64)> {
    match statistics {
        Statistics::Int64(own) => Some((*own.min_opt()?, *own.max_opt()?)),
        Statistics::Int32(own) => Some((i64::from(*own.min_opt()?), i64::from(*own.max_opt()?))),
        _ => None,
    }
}

fn range(groups: &[&Statistics], data_type: &DataType) -> Option<(Value, Value)> {
    // A group of NULLs has no range and takes nothing away from that of the others.
    let groups = || groups.iter().filter(|s| s.min_bytes_opt().is_some());
    let integers = |min_max: fn(&Statistics) -> Option<(i64, i64)>| {
        let pairs = groups().map(|s| min_max(s)).collect::<Option<Vec<_>>>()?;
        Some((pairs.iter().map(|p| p.0).min()?, pairs.iter().map(|p| p.1).max()?))
    };
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let (min, max) = integers(whole_numbers)?;
            Some((min.into(), max.into()))
        }
        DataType::Date32 => {
            let (min, max) = integers(whole_numbers)?;
            Some((date(min)?.into(), date(max)?.into()))
        }
        DataType::Timestamp(..) => {
            let (min, max) = integers(whole_numbers)?;
            Some((timestamp(min)?.into(), timestamp(max)?.into()))
        }
        DataType::Float32 | DataType::Float64 => {
            let pair = |s: &Statistics| match s {
                Statistics::Float(s) => Some((f64::from(*s.min_opt()?), f64::from(*s.max_opt()?))),
                Statistics::Double(s) => Some((*s.min_opt()?, *s.max_opt()?)),
                _ => None,
            };
            let pairs = groups().map(|s| pair(s)).collect::<Option<Vec<_>>>()?;
            let min = pairs.iter().map(|p| p.0).min_by(f64::total_cmp).filter(|v| v.is_finite())?;
            let max = pairs.iter().map(|p| p.1).max_by(f64::total_cmp).filter(|v| v.is_finite())?;
            Some((min.into(), max.into()))
        }
        DataType::Utf8View | DataType::Utf8 => {
            let pairs = groups().map(|s| Some((s.min_bytes_opt()?, s.max_bytes_opt()?))).collect::<Option<Vec<_>>>()?;
            let min = std::str::from_utf8(pairs.iter().map(|p| p.0).min()?).ok()?;
            let max = std::str::from_utf8(pairs.iter().map(|p| p.1).max()?).ok()?;
            Some((min.chars().take(STATISTICS_CHARS).collect::<String>().into(), cut_up(max)?.into()))
        }
        _ => None,
    }
}

fn date(days: i64) -> Option<String> {
    let days =
        i32::try_from(days).ok().filter(|day| (super::table::FIRST_DAY..=super::table::LAST_DAY).contains(day))?;
    Some(super::table::day_text(days))
}

/// Only years that all readers can parse.
fn timestamp(micros: i64) -> Option<String> {
    date(micros.div_euclid(86_400_000_000))?;
    Some(DateTime::from_timestamp_micros(micros)?.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

/// A short text that is not smaller than any text that `max` is the greatest of.
fn cut_up(max: &str) -> Option<String> {
    if max.chars().nth(STATISTICS_CHARS).is_none() {
        return Some(max.to_string());
    }
    let mut cut: Vec<char> = max.chars().take(STATISTICS_CHARS).collect();
    while let Some(last) = cut.pop() {
        let next = match last {
            // Between the two are surrogates, which are no characters.
            '\u{D7FF}' => Some('\u{E000}'),
            last => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            cut.push(next);
            return Some(cut.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_maximum_is_still_one() {
        assert_eq!(cut_up("short"), Some("short".to_string()));
        let long = "a".repeat(40);
        assert_eq!(cut_up(&long), Some(format!("{}b", "a".repeat(31))));
        let last = format!("{}{}", "x".repeat(31), "\u{10FFFF}".repeat(5));
        assert_eq!(cut_up(&last), Some(format!("{}y", "x".repeat(30))));
        assert!(cut_up(&last).unwrap() > last);
        assert_eq!(cut_up(&"\u{10FFFF}".repeat(40)), None);
        assert!(cut_up(&"\u{D7FF}".repeat(40)).unwrap() > "\u{D7FF}".repeat(40));
    }

    #[test]
    fn times_beyond_what_dates_can_say_have_no_statistics() {
        assert_eq!(timestamp(1_500_000), Some("1970-01-01T00:00:01.500000Z".to_string()));
        assert_eq!((timestamp(i64::MAX), timestamp(i64::MIN)), (None, None));
    }
}
