//! What a stream keeps for good: its rows and its malformed lines, each in a Delta table of its own (`archive/`).
//!
//! Receives chunks of rows; hands rows back, by offset. The two tables advance one after the other, malformed lines first:
//! each says itself up to which offset it goes, and a chunk leaves memory when both have it. An archived row carries its
//! offset and, if it was late, the watermark that it came behind: so views can be filled from the archive as from the log,
//! and late rows can be listed.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use tokio::runtime::Handle;

use super::archive::{self, Archive, OFFSET, WATERMARK};
use super::hot::{Archived, Chunk, Data};
use crate::batch::{MALFORMED, Shape, fit};
use crate::error::{Error, Result};
use crate::format::timestamp_type;
use crate::opaque::Opaque;
use crate::rollup::watermark::LateRow;
use crate::time::{Micros, UTC};

/// Frames of the archive that are read into memory at once, for those who need them in the order of their offsets.
const PIECE_FRAMES: u64 = 256 * 1024;

/// See the file header.
pub struct History {
    pub rows: Arc<Archive>,
    pub malformed: Arc<Archive>,
    context: Opaque<SessionContext>,
    runtime: Handle,
}

impl History {
    /// Reads run on `runtime`, with the settings and limits of `context`.
    pub fn new(
        rows: Arc<Archive>,
        malformed: Arc<Archive>,
        context: Opaque<SessionContext>,
        runtime: Handle,
    ) -> History {
        History { rows, malformed, context, runtime }
    }

    /// What both tables have now.
    pub fn current(&self) -> Archived {
        Archived { rows: self.rows.current(), malformed: self.malformed.current() }
    }

    /// Appends chunks, each with its rows: what the tables do not have of them yet. They follow what the tables have.
    pub async fn append(&self, chunks: &[(Arc<Chunk>, Arc<Data>)]) -> Result<Archived> {
        let Some(end) = chunks.last().map(|(chunk, _)| chunk.base + chunk.frames) else { return Ok(self.current()) };
        let missing = |from: u64| chunks.iter().filter(move |(chunk, _)| chunk.base >= from);
        let from = self.malformed.current().end;
        if from < end {
            let batches = missing(from).flat_map(|(_, data)| &data.malformed).map(malformed_for_archive);
            self.malformed.append(batches.collect::<Result<_>>()?, from..end).await?;
        }
        let from = self.rows.current().end;
        if from < end {
            let mut batches = Vec::new();
            for (chunk, data) in missing(from) {
                batches.extend(rows_for_archive(chunk, data)?);
            }
            self.rows.append(batches, from..end).await?;
        }
        Ok(self.current())
    }

    /// The archived rows of these offsets, in no order, with the columns of `schema`. Not for async code.
    pub fn read(
        &self,
        archived: &archive::Archived,
        schema: &SchemaRef,
        offsets: Range<u64>,
        visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        read(&self.rows, archived, schema, offsets, (&self.context, &self.runtime), visit)
    }

    /// The rows and malformed lines of a chunk. Not for async code.
    pub fn load(&self, archived: &Archived, chunk: &Chunk, shape: &Shape) -> Result<Data> {
        let offsets = chunk.base..chunk.base + chunk.frames;
        let schema = with_own_columns(&shape.schema());
        let mut data = Data::default();
        let mut found = Vec::new();
        self.read(&archived.rows, &schema, offsets.clone(), &mut |batch| {
            found.push(batch);
            Ok(())
        })?;
        let rows = in_order(&schema, &found)?;
        let watermarks = rows.column(schema.index_of(WATERMARK)?).clone();
        let watermarks = watermarks.as_primitive::<TimestampMicrosecondType>();
        data.late = late_rows(watermarks);
        data.offsets = Some(rows.column(schema.index_of(OFFSET)?).as_primitive::<Int64Type>().values().to_vec());
        if rows.num_rows() > 0 {
            data.rows.push(fit(&rows, &shape.schema())?);
        }
        let schema = with_offset(&MALFORMED);
        let mut found = Vec::new();
        let through: (&SessionContext, &Handle) = (&self.context, &self.runtime);
        read(&self.malformed, &archived.malformed, &schema, offsets, through, &mut |batch| {
            found.push(batch);
            Ok(())
        })?;
        let malformed = in_order(&schema, &found)?;
        if malformed.num_rows() > 0 {
            data.malformed.push(fit(&malformed, &MALFORMED)?);
        }
        Ok(data)
    }
}

fn read(
    archive: &Archive,
    archived: &archive::Archived,
    schema: &SchemaRef,
    offsets: Range<u64>,
    (context, runtime): (&SessionContext, &Handle),
    visit: &mut dyn FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let state = context.state();
    let plan = archive.scan(archived, &state, Arc::clone(schema), None, None, Some(offsets), &[], false)?;
    let Some(plan) = plan else { return Ok(()) };
    // Partitions are read by tasks of their own, which need the runtime around them.
    let _entered = runtime.enter();
    let mut batches = execute_stream(plan, context.task_ctx())?;
    while let Some(batch) = runtime.block_on(batches.next()) {
        visit(batch?)?;
    }
    Ok(())
}

/// The archive in pieces of a size that fits into memory, as chunks without data. They cover all of its offsets.
pub fn pieces(archived: &archive::Archived) -> Vec<Arc<Chunk>> {
    let mut chunks = Vec::new();
    for segment in archived.segments.iter().filter(|segment| segment.rows > 0) {
        let frames = segment.end - segment.first;
        let count = frames.div_ceil(PIECE_FRAMES).max(1);
        for i in 0..count {
            let (base, end) = (segment.first + frames * i / count, segment.first + frames * (i + 1) / count);
            chunks.push(Arc::new(Chunk {
                base,
                frames: end - base,
                first: None,
                since: Micros::MIN,
                // Of the whole segment: enough to say that there may be some.
                rows: segment.rows,
                malformed: 0,
                bytes: 0,
                memory: 0,
                times: segment.times,
                late: segment.late,
                before: None,
                data: None,
            }));
        }
    }
    chunks
}

/// The chunks that have frames in a range of offsets. Pieces of the archive are cut to it.
pub fn within(chunks: &[Arc<Chunk>], range: Range<u64>) -> Vec<Arc<Chunk>> {
    let cut = |chunk: &Arc<Chunk>| {
        let (base, end) = (chunk.base.max(range.start), (chunk.base + chunk.frames).min(range.end));
        match chunk.first {
            Some(_) => range.contains(&chunk.base).then(|| Arc::clone(chunk)),
            None => (base < end).then(|| Arc::new(Chunk { base, frames: end - base, ..chunk.as_ref().clone() })),
        }
    };
    chunks.iter().filter_map(cut).collect()
}

/// Pieces of the archive, cut at these offsets, which ascend.
pub fn cut_at(chunks: Vec<Arc<Chunk>>, offsets: &[u64]) -> Vec<Arc<Chunk>> {
    let mut out = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let (first, end) = (chunk.base, chunk.base + chunk.frames);
        let inside = offsets.iter().copied().filter(|&offset| chunk.first.is_none() && offset > first && offset < end);
        let mut base = first;
        for at in inside.chain([end]) {
            out.push(Arc::new(Chunk { base, frames: at - base, ..chunk.as_ref().clone() }));
            base = at;
        }
    }
    out
}

/// The late rows among rows that carry what they came behind.
pub fn late_rows(watermarks: &TimestampMicrosecondArray) -> Vec<LateRow> {
    if watermarks.null_count() == watermarks.len() {
        return Vec::new();
    }
    let late = (0..watermarks.len()).filter(|&row| watermarks.is_valid(row));
    late.map(|row| LateRow { row: row as u32, watermark: watermarks.value(row) }).collect()
}

/// A stream's columns and those that every archived row has besides.
pub fn with_own_columns(schema: &SchemaRef) -> SchemaRef {
    let watermark = Arc::new(Field::new(WATERMARK, timestamp_type(), true));
    let with_offset = with_offset(schema);
    Arc::new(Schema::new(with_offset.fields().iter().cloned().chain([watermark]).collect::<Vec<_>>()))
}

fn with_offset(schema: &SchemaRef) -> SchemaRef {
    let offset = Arc::new(Field::new(OFFSET, DataType::Int64, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([offset]).collect::<Vec<_>>()))
}

/// The rows of batches as one batch, by offset.
fn in_order(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let all = concat_batches(schema, batches)?;
    let order = sort_to_indices(all.column(schema.index_of(OFFSET)?), None, None)?;
    Ok(take_record_batch(&all, &order)?)
}

fn with_columns(batch: &RecordBatch, columns: [(&str, ArrayRef); 2]) -> Result<RecordBatch> {
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    let mut arrays = batch.columns().to_vec();
    for (name, array) in columns {
        fields.push(Arc::new(Field::new(name, array.data_type().clone(), name == WATERMARK)));
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn malformed_for_archive(batch: &RecordBatch) -> Result<RecordBatch> {
    let offsets = batch.column_by_name("offset").ok_or_else(|| Error::internal("malformed lines have offsets"))?;
    let watermarks = new_null_array(&timestamp_type(), batch.num_rows());
    with_columns(batch, [(OFFSET, Arc::clone(offsets)), (WATERMARK, watermarks)])
}

fn rows_for_archive(chunk: &Chunk, data: &Data) -> Result<Vec<RecordBatch>> {
    let offsets = data.row_offsets(chunk.base..chunk.base + chunk.frames);
    let rows: usize = data.rows.iter().map(RecordBatch::num_rows).sum();
    if offsets.len() != rows {
        let (base, frames) = (chunk.base, offsets.len());
        return Err(Error::internal(format!("the chunk at offset {base} has {rows} rows for {frames} frames")));
    }
    let mut batches = Vec::new();
    for (first, rows, late) in data.batches() {
        let own = offsets[first..first + rows.num_rows()].to_vec();
        let mut late = late.into_iter().peekable();
        let watermarks: ArrayRef = match late.peek() {
            None => new_null_array(&timestamp_type(), rows.num_rows()),
            Some(_) => {
                let of = |row: u32| late.next_if(|late| late.row == row).map(|late| late.watermark);
                let watermarks: TimestampMicrosecondArray = (0..rows.num_rows() as u32).map(of).collect();
                Arc::new(watermarks.with_timezone(UTC))
            }
        };
        batches.push(with_columns(
            rows,
            [(OFFSET, Arc::new(Int64Array::from(own)) as ArrayRef), (WATERMARK, watermarks)],
        )?);
    }
    Ok(batches)
}
