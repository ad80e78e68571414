//! Rows as they came to rows as they are stored: under the archive's names and types, by day, in order of time.
//!
//! Rows come nearly sorted (web servers write a line when a request ends and date it when it began), so they are sorted
//! by moving their places, and rows that are in order already are not moved at all. Texts are views meanwhile, which
//! move without being copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, interleave};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use chrono::Utc;

use super::names::Names;
use super::table::{FIRST_DAY, LAST_DAY};
use super::{OFFSET, WATERMARK};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::time::Micros;

/// Rows that are moved into order at once.
const BATCH_ROWS: usize = 16 * 1024;

const DAY_MICROS: Micros = 86_400_000_000;

/// The rows of one day, in order.
pub(super) struct Day {
    pub day: i32,
    pub rows: Rows,
}

pub(super) struct Rows {
    pub schema: SchemaRef,
    /// Name of the time column in the archive.
    pub time: Option<String>,
    batches: Arc<Vec<RecordBatch>>,
    /// Places of the rows, unless they are all the rows of the batches as they stand.
    order: Option<Vec<Place>>,
}

/// A row: its time, batch and number in the batch.
#[derive(Clone, Copy)]
struct Place {
    time: Micros,
    batch: u32,
    row: u32,
}

impl Rows {
    pub fn batches(self) -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
        let Rows { schema, batches, order, .. } = self;
        match order {
            None => Box::new((0..batches.len()).map(move |i| Ok(batches[i].clone()))),
            Some(order) => {
                let starts = (0..order.len()).step_by(BATCH_ROWS);
                Box::new(starts.map(move |start| {
                    let end = order.len().min(start + BATCH_ROWS);
                    take(&schema, &batches, &order[start..end])
                }))
            }
        }
    }
}

/// Fits the batches to the columns of the archive, which `names` learns, and puts their rows in order by day.
pub(super) fn arrange(rows: &[RecordBatch], names: &mut Names, time: Option<&str>) -> Result<Vec<Day>> {
    let rows: Vec<&RecordBatch> = rows.iter().filter(|batch| batch.num_rows() > 0).collect();
    let columns = rows.iter().map(|batch| columns(batch, names)).collect::<Result<Vec<_>>>()?;
    // Also the columns of an append without rows: the table cannot be made without any.
    let mut wanted: Vec<usize> = columns.iter().flatten().filter_map(|c| c.name).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut fields: Vec<Field> = Vec::with_capacity(wanted.len() + 2);
    for &index in &wanted {
        let column = &names.columns()[index];
        fields.push(Field::new(&column.archive, in_memory(&column.data_type), true));
    }
    fields.push(Field::new(OFFSET, DataType::Int64, false));
    fields.push(Field::new(WATERMARK, timestamp_type(), true));
    let schema = Arc::new(Schema::new(fields));
    let fitted = rows.iter().zip(&columns).map(|(batch, columns)| fit(batch, columns, &wanted, &schema));
    let batches = Arc::new(fitted.collect::<Result<Vec<_>>>()?);
    let time = time.and_then(|time| names.find_exact(time, &timestamp_type())).filter(|t| schema.index_of(t).is_ok());
    by_day(&schema, batches, time)
}

fn by_day(schema: &SchemaRef, batches: Arc<Vec<RecordBatch>>, time: Option<&str>) -> Result<Vec<Day>> {
    let today = day_of(Utc::now().timestamp_micros());
    let day = |day: i32, order: Option<Vec<Place>>| Day {
        day,
        rows: Rows { schema: Arc::clone(schema), time: time.map(str::to_string), batches: Arc::clone(&batches), order },
    };
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let Some(time) = time else { return Ok(vec![day(today, None)]) };
    let mut days: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
    let (mut sorted, mut ascending) = (true, true);
    let (mut last_time, mut last_offset) = (Micros::MIN, i64::MIN);
    for (number, batch) in batches.iter().enumerate() {
        let times = batch.column_by_name(time).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Error::internal("the time column holds no times"))?;
        let offsets = offsets(batch)?;
        // Most batches are of one day.
        let mut rows_of_day: Option<(i32, &mut Vec<Place>)> = None;
        for row in 0..batch.num_rows() {
            let (time, of) = match times.is_valid(row) {
                true => (times.value(row), day_of(times.value(row))),
                false => (Micros::MIN, today),
            };
            sorted &= time >= last_time;
            ascending &= offsets.value(row) > last_offset;
            (last_time, last_offset) = (time, offsets.value(row));
            let place = Place { time, batch: number as u32, row: row as u32 };
            match &mut rows_of_day {
                Some((day, places)) if *day == of => places.push(place),
                _ => {
                    let places = days.entry(of).or_default();
                    places.push(place);
                    rows_of_day = Some((of, places));
                }
            }
        }
    }
    if sorted && ascending && days.len() == 1 {
        let only = days.into_keys().next().unwrap_or(today);
        return Ok(vec![day(only, None)]);
    }
    for places in days.values_mut() {
        if !ascending {
            let all = batches.iter().map(offsets).collect::<Result<Vec<_>>>()?;
            places.sort_by_key(|place| all[place.batch as usize].value(place.row as usize));
        }
        if !sorted || !ascending {
            places.sort_by_key(|place| place.time);
        }
    }
    Ok(days.into_iter().map(|(of, places)| day(of, Some(places))).collect())
}

fn day_of(micros: Micros) -> i32 {
    i32::try_from(micros.div_euclid(DAY_MICROS))
        .unwrap_or(if micros < 0 { i32::MIN } else { i32::MAX })
        .clamp(FIRST_DAY, LAST_DAY)
}

fn offsets(batch: &RecordBatch) -> Result<&Int64Array> {
    let column = batch.column_by_name(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.ok_or_else(|| Error::internal("rows for the archive have no offsets"))
}

/// The rows at these places.
fn take(schema: &SchemaRef, batches: &[RecordBatch], places: &[Place]) -> Result<RecordBatch> {
    let first = places[0];
    let follow =
        |(i, place): (usize, &Place)| place.batch == first.batch && place.row as usize == first.row as usize + i;
    if places.iter().enumerate().all(follow) {
        return Ok(batches[first.batch as usize].slice(first.row as usize, places.len()));
    }
    // Only the batches that these rows are in: a text column keeps the blocks of all that it is made from.
    let mut used: Vec<u32> = places.iter().map(|place| place.batch).collect();
    used.sort_unstable();
    used.dedup();
    let mut number = vec![0; batches.len()];
    used.iter().enumerate().for_each(|(i, &batch)| number[batch as usize] = i);
    let indices: Vec<(usize, usize)> =
        places.iter().map(|place| (number[place.batch as usize], place.row as usize)).collect();
    let columns = (0..schema.fields().len()).map(|c| {
        let arrays: Vec<&dyn Array> = used.iter().map(|&batch| batches[batch as usize].column(c).as_ref()).collect();
        interleave(&arrays, &indices)
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>, _>>()?)?)
}

/// A column of a batch: its place there, and which of the names it has in the archive (none for the archive's own).
struct Source {
    index: usize,
    name: Option<usize>,
}

fn columns(batch: &RecordBatch, names: &mut Names) -> Result<Vec<Source>> {
    let schema = batch.schema();
    let fields = schema.fields();
    // A stream may have columns of these names; the archive's come behind them.
    let own = |name: &str| fields.iter().rposition(|field| field.name() == name);
    let (Some(offset), Some(watermark)) = (own(OFFSET), own(WATERMARK)) else {
        return Err(Error::internal(format!("rows for the archive lack {OFFSET} or {WATERMARK}")));
    };
    let source = |(index, field): (usize, &Arc<Field>)| {
        let stream = index != offset && index != watermark;
        let name = stream.then(|| {
            let archive = names.assign(field.name(), field.data_type()).archive.clone();
            names.columns().iter().position(|c| c.archive == archive).expect("it was just assigned")
        });
        Source { index, name }
    };
    Ok(fields.iter().enumerate().map(source).collect())
}

fn fit(batch: &RecordBatch, columns: &[Source], wanted: &[usize], schema: &SchemaRef) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (field, name) in schema.fields().iter().zip(wanted.iter().map(Some).chain([None, None])) {
        let source = match name {
            Some(name) => columns.iter().find(|c| c.name == Some(*name)),
            None => columns.iter().rfind(|c| c.name.is_none() && batch.schema().field(c.index).name() == field.name()),
        };
        arrays.push(match source {
            Some(source) => stored(batch.column(source.index), field.data_type())?,
            None => new_null_array(field.data_type(), rows),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

/// The values as they are stored. A value that does not fit is an error: it must not become NULL unseen.
fn stored(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if values.data_type() == data_type {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(values, data_type, &options);
    cast.map_err(|err| {
        Error::new(Kind::Datatype, format!("values of type {} cannot be archived: {err}", values.data_type()))
    })
}

/// The type in memory of what is stored: texts are views, which sorting moves without copying them.
pub(super) fn in_memory(stored: &DataType) -> DataType {
    match stored {
        DataType::Utf8 => DataType::Utf8View,
        other => other.clone(),
    }
}
