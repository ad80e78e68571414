//! An append: rows, sorted by time, into one file per day, and one commit.
//!
//! Rows come nearly sorted (web servers write a line when a request ends and date it when it began), so they are sorted
//! by moving their places, and rows that are in order already are not moved at all. What is sorted and encoded is that
//! of one append, which the caller bounds; bytes go to the store as they come, while the next ones are encoded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, interleave};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use chrono::Utc;
use deltalake_core::kernel::Add;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::commit::{Change, add};
use super::encode::{Encoded, encode};
use super::names::Names;
use super::table::{FIRST_DAY, LAST_DAY, day_text, file_name};
use super::{Archive, Archived, DAY, OFFSET, WATERMARK, Writer, failed};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::time::Micros;

/// Rows that are moved into order at once.
const BATCH_ROWS: usize = 16 * 1024;

const DAY_MICROS: Micros = 86_400_000_000;

/// Pieces of an upload that wait for the store.
const QUEUE: usize = 2;

impl Archive {
    /// Appends the rows of `offsets`, which begin where the archive ends. Batches have the stream's columns (as many as
    /// were known at the time), [`OFFSET`] and [`WATERMARK`]. After an error the same append can be made again: it
    /// happens once. Without rows only `end` moves.
    pub async fn append(&self, rows: Vec<RecordBatch>, offsets: Range<u64>) -> Result<Arc<Archived>> {
        self.try_append(rows, offsets).await.map_err(|err| self.place(err))
    }

    async fn try_append(&self, rows: Vec<RecordBatch>, offsets: Range<u64>) -> Result<Arc<Archived>> {
        let mut writer = self.writer.lock().await;
        if writer.unsure {
            self.refresh(&mut writer).await?;
        }
        if self.is_done(&writer, &offsets)? {
            return Ok(self.current());
        }
        let mut names = self.current().names.as_ref().clone();
        let spec = self.spec.clone();
        let prepared = blocking(move || {
            let files = arrange(&rows, &mut names, spec.time.as_deref())?;
            Ok((files, names))
        });
        let (days, names) = prepared.await?;
        if writer.table.is_none() {
            self.create(&mut writer, &names).await?;
            // Somebody else may have made it, and filled it.
            if self.current().version != Some(0) && self.is_done(&writer, &offsets)? {
                return Ok(self.current());
            }
        }
        let mut written = Vec::new();
        let result = match self.write_days(days, &offsets, &mut written).await {
            Ok(()) => {
                let change = Change {
                    operation: DeltaOperation::Write {
                        mode: SaveMode::Append,
                        partition_by: Some(vec![DAY.to_string()]),
                        predicate: None,
                    },
                    add: written.clone(),
                    remove: Vec::new(),
                    names: (names != *self.current().names).then_some(names),
                    offsets: Some((self.current().end, offsets.end)),
                };
                self.commit(&mut writer, &change).await
            }
            Err(err) => Err(err),
        };
        match result {
            Ok(_) => Ok(self.current()),
            Err(err) => {
                // Only what is surely not in the table; the rest is left to `vacuum`.
                if !writer.unsure {
                    self.discard(written.iter().map(|add| add.path.as_str())).await;
                }
                Err(err)
            }
        }
    }

    /// Whether these rows were appended before and only the answer was lost; an error when they cannot be appended.
    fn is_done(&self, writer: &Writer, offsets: &Range<u64>) -> Result<bool> {
        let end = self.current().end;
        // A stream may be older than its archive.
        if offsets.is_empty() || writer.table.is_none() {
            return Ok(offsets.is_empty());
        }
        match offsets.end == end || offsets.start == end {
            true => Ok(offsets.end == end),
            false => Err(self.wrong_end(offsets.start, end)),
        }
    }

    async fn write_days(&self, days: Vec<Day>, offsets: &Range<u64>, written: &mut Vec<Add>) -> Result<()> {
        for Day { day, rows } in days {
            let day = day_text(day);
            let path = format!("{DAY}={day}/{}", file_name(offsets));
            let (sizes, time) = (self.spec.sizes.clone(), rows.time.clone());
            let encode = move |out: mpsc::Sender<Bytes>| {
                let schema = Arc::clone(&rows.schema);
                encode(&sizes, time.as_deref(), &schema, rows.batches(), &out)
            };
            let (encoded, bytes) = self.write_file(&path, encode).await?;
            written.push(add(path, &day, bytes, encoded.stats, true));
        }
        Ok(())
    }

    /// Writes the bytes that `encode` sends as a file, and returns how many there were.
    pub(super) async fn write_file<F>(&self, path: &str, encode: F) -> Result<(Encoded, u64)>
    where
        F: FnOnce(mpsc::Sender<Bytes>) -> Result<Encoded> + Send + 'static,
    {
        let writing = |err: &(dyn std::error::Error + 'static)| failed(&format!("write file \"{path}\""), err);
        let (sender, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
        let encoder = tokio::task::spawn_blocking(move || encode(sender));
        let location = Path::parse(path).map_err(|err| writing(&err))?;
        let mut upload = BufWriter::with_capacity(Arc::clone(&self.store), location, self.spec.sizes.part_bytes);
        let mut bytes = 0;
        let mut sent = Ok(());
        while let Some(piece) = pieces.recv().await {
            bytes += piece.len() as u64;
            sent = upload.put(piece).await;
            if sent.is_err() {
                break;
            }
        }
        drop(pieces);
        let encoded = encoder.await.map_err(|err| Error::internal(format!("encoding \"{path}\" failed: {err}")))?;
        // That the encoder could not send is no news if the upload failed.
        let ended = match (sent, encoded) {
            (Err(err), _) => Err(writing(&err)),
            (Ok(()), Err(err)) => Err(err),
            (Ok(()), Ok(encoded)) => Ok(encoded),
        };
        match ended {
            Ok(encoded) => {
                upload.shutdown().await.map_err(|err| writing(&err))?;
                Ok((encoded, bytes))
            }
            Err(err) => {
                // The parts of a failed upload take space until the store's own rules remove them.
                let _ = upload.abort().await;
                Err(err)
            }
        }
    }

    /// Removes files that were written in vain, as far as that succeeds.
    pub(super) async fn discard(&self, paths: impl Iterator<Item = &str>) {
        for path in paths {
            if let Ok(path) = Path::parse(path) {
                let _ = self.store.delete(&path).await;
            }
        }
    }
}

/// Runs work that takes the processor for a while.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|err| Error::internal(format!("a task of the archive failed: {err}")))?
}

/// The rows of one day, in order.
struct Day {
    day: i32,
    rows: Rows,
}

struct Rows {
    schema: SchemaRef,
    /// Name of the time column in the archive.
    time: Option<String>,
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
    fn batches(self) -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
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
fn arrange(rows: &[RecordBatch], names: &mut Names, time: Option<&str>) -> Result<Vec<Day>> {
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
