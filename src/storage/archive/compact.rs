//! Many small segments to one: fewer files to open, fewer row groups to look at, and better compression.
//!
//! Segments are merged by size, like the runs of an LSM tree: only some of about one size, and only if that makes one
//! of a larger size class. So a row is written anew once per class, which is seven times at most however small the
//! appends were. Of each day the files are merged in order of time, batch by batch, so memory is bounded by the number
//! of files. Appends go on meanwhile; only the commit waits its turn.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use deltalake_core::kernel::Add;
use deltalake_core::protocol::DeltaOperation;
use futures::StreamExt;
use object_store::ObjectMeta;
use tokio::sync::mpsc;

use super::arrange::in_memory;
use super::commit::{Change, add, remove};
use super::encode::encode;
use super::reader::Readers;
use super::table::{day_text, file_name};
use super::{Archive, ArchivedFile, DAY, OFFSET, Segment, Sizes, WATERMARK, failed};
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;

/// Files that are open at once in a merge.
const MOST_SEGMENTS: usize = 64;

impl Archive {
    /// Merges some segments, if that is worth it; false when it is not. Readers and appends go on meanwhile.
    pub async fn compact(&self) -> Result<bool> {
        self.try_compact().await.map_err(|err| self.place(err))
    }

    async fn try_compact(&self) -> Result<bool> {
        let _one_at_a_time = self.merging.lock().await;
        let current = self.current();
        let Some(run) = choose(&current.segments, &self.spec.sizes) else { return Ok(false) };
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(false) };
        let offsets = first.first..last.end;
        let mut written = Vec::new();
        let merged = self.merge(run, &offsets, &mut written).await;
        let mut writer = self.writer.lock().await;
        let result = match merged {
            Ok(merged) => {
                let change = Change {
                    operation: DeltaOperation::Optimize {
                        predicate: None,
                        target_size: merged.iter().map(|file| file.bytes as i64).sum(),
                    },
                    add: written.clone(),
                    remove: merged.iter().map(|file| remove(file, false)).collect(),
                    names: None,
                    offsets: None,
                };
                if writer.unsure {
                    self.refresh(&mut writer).await?;
                }
                let current = self.current();
                // Retention may have dropped some of them meanwhile.
                match change.remove.iter().all(|remove| current.has(&remove.path)) {
                    true => self.commit(&mut writer, &change).await,
                    false => Ok(false),
                }
            }
            Err(err) => Err(err),
        };
        if !matches!(result, Ok(true)) && !writer.unsure {
            self.discard(written.iter().map(|add| add.path.as_str())).await;
        }
        // Merged in vain, there may still be something to merge.
        result.map(|_| true)
    }

    /// Writes the files that take the place of those returned.
    async fn merge(
        &self,
        run: &[Arc<Segment>],
        offsets: &Range<u64>,
        written: &mut Vec<Add>,
    ) -> Result<Vec<Arc<ArchivedFile>>> {
        let mut merged = Vec::new();
        for (day, files) in by_day(run) {
            // A single file stays as it is: it belongs to the segment whose offsets its own are among.
            if files.len() < 2 {
                continue;
            }
            self.merge_day(day, &files, offsets, written).await?;
            merged.extend(files.into_iter().cloned());
        }
        Ok(merged)
    }

    async fn merge_day(
        &self,
        day: i32,
        files: &[&Arc<ArchivedFile>],
        offsets: &Range<u64>,
        written: &mut Vec<Add>,
    ) -> Result<()> {
        let mut metas = Vec::with_capacity(files.len());
        let mut stored = HashSet::new();
        for file in files {
            let meta = ObjectMeta {
                location: file.path.clone(),
                last_modified: file.modified,
                size: file.bytes,
                e_tag: None,
                version: None,
            };
            let reading =
                |err: &(dyn std::error::Error + 'static)| failed(&format!("read file \"{}\"", file.path), err);
            let metadata = DFParquetMetadata::new(self.store.as_ref(), &meta).fetch_metadata().await;
            let metadata = metadata.map_err(|err| reading(&err))?;
            let columns = metadata.file_metadata().schema().get_fields();
            stored.extend(columns.iter().map(|column| column.name().to_string()));
            metas.push(meta);
        }
        let schema = self.schema_of(&stored);
        let time = self.time_column().filter(|time| stored.contains(time));
        let mut rows = self.in_order(metas, &schema, time.as_deref())?;
        let day = day_text(day);
        let mut merged = 0;
        // Each file begins with a batch that is there, so that none is empty.
        let mut next = rows.next().await;
        while let Some(first) = next.take() {
            let path = format!("{DAY}={day}/{}", file_name(offsets));
            let (sender, receiver) = mpsc::channel::<Result<RecordBatch>>(2);
            let (sizes, time, schema) = (self.spec.sizes.clone(), time.clone(), Arc::clone(&schema));
            let encode = move |out: mpsc::Sender<bytes::Bytes>| {
                let mut receiver = receiver;
                encode(&sizes, time.as_deref(), &schema, std::iter::from_fn(|| receiver.blocking_recv()), &out)
            };
            let feed = async {
                let (mut batch, mut fed) = (Some(first), 0);
                while let Some(rows_read) = batch.take() {
                    let read = rows_read.map_err(|err| failed("read files to merge", &err));
                    fed += read.as_ref().map_or(0, |batch| batch.num_rows() as u64);
                    // An encoder that has failed takes no more, and says why itself.
                    let failed = read.is_err();
                    if sender.send(read).await.is_err() || failed {
                        break;
                    }
                    let read = rows.next().await;
                    if fed >= self.spec.sizes.file_rows {
                        next = read;
                    } else {
                        batch = read;
                    }
                }
                drop(sender);
            };
            let (result, ()) = tokio::join!(self.write_file(&path, encode), feed);
            let (encoded, bytes) = result?;
            merged += encoded.rows;
            written.push(add(path, &day, bytes, encoded.stats, false));
        }
        let expected: u64 = files.iter().map(|file| file.rows).sum();
        if merged != expected {
            let text = format!("the files of {day} hold {merged} rows, and the log says {expected}");
            return Err(Error::new(Kind::Corrupted, text).with_hint("They are left as they are."));
        }
        Ok(())
    }

    fn time_column(&self) -> Option<String> {
        let names = &self.current().names;
        self.spec.time.as_deref().and_then(|time| names.find_exact(time, &timestamp_type())).map(str::to_string)
    }

    /// The columns that some file has, in the table's order.
    fn schema_of(&self, stored: &HashSet<String>) -> SchemaRef {
        let names = Arc::clone(&self.current().names);
        let present = names.columns().iter().filter(|column| stored.contains(&column.archive));
        let mut fields: Vec<Field> =
            present.map(|column| Field::new(&column.archive, in_memory(&column.data_type), true)).collect();
        fields.push(Field::new(OFFSET, DataType::Int64, false));
        fields.push(Field::new(WATERMARK, timestamp_type(), true));
        Arc::new(Schema::new(fields))
    }

    /// The rows of sorted files, in order.
    fn in_order(
        &self,
        files: Vec<ObjectMeta>,
        schema: &SchemaRef,
        time: Option<&str>,
    ) -> Result<SendableRecordBatchStream> {
        let read = |file: ObjectMeta| -> Arc<dyn ExecutionPlan> {
            let readers = Arc::new(Readers::new(&self.spec.name, &self.store, &self.runtime));
            let source = ParquetSource::new(Arc::clone(schema)).with_parquet_file_reader_factory(readers);
            let scan = FileScanConfigBuilder::new(self.registered.clone(), Arc::new(source))
                .with_file(PartitionedFile::new_from_meta(file));
            DataSourceExec::from_data_source(scan.build())
        };
        let inputs: Vec<_> = files.into_iter().map(read).collect();
        let options = SortOptions { descending: false, nulls_first: true };
        let by = |name: &str| -> Result<PhysicalSortExpr> {
            Ok(PhysicalSortExpr::new(Arc::new(Column::new_with_schema(name, schema)?), options))
        };
        let order = time.into_iter().chain([OFFSET]).map(by).collect::<Result<Vec<_>>>()?;
        let order = LexOrdering::new(order).ok_or_else(|| Error::internal("rows have no order"))?;
        let merged = SortPreservingMergeExec::new(order, UnionExec::try_new(inputs)?);
        let context = TaskContext::default().with_runtime(Arc::clone(&self.runtime));
        Ok(merged.execute(0, Arc::new(context))?)
    }
}

fn by_day(run: &[Arc<Segment>]) -> BTreeMap<i32, Vec<&Arc<ArchivedFile>>> {
    let mut days: BTreeMap<i32, Vec<&Arc<ArchivedFile>>> = BTreeMap::new();
    for file in run.iter().flat_map(|segment| &segment.files) {
        if let Some(day) = file.day {
            days.entry(day).or_default().push(file);
        }
    }
    days
}

/// Which segments to merge next: the smallest first, so that large ones are made of few rewrites.
fn choose<'a>(segments: &'a [Arc<Segment>], sizes: &Sizes) -> Option<&'a [Arc<Segment>]> {
    let merge = sizes.merge.max(2);
    let class = |rows: u64| rows.max(1).ilog(merge as u64);
    // Files of other tools need not be sorted; and a large segment is as good as it gets.
    let fixed = |segment: &Segment| segment.files.iter().any(|f| !f.ours) || segment.rows * 2 > sizes.file_rows;
    let largest = segments.iter().map(|segment| class(segment.rows)).max()?;
    for limit in 0..=largest {
        let wanted = |segment: &&Arc<Segment>| !fixed(segment) && class(segment.rows) <= limit;
        for run in segments.chunk_by(|a, b| wanted(&a) == wanted(&b)) {
            let mut rows = 0;
            let fits = |segment: &&Arc<Segment>| {
                rows += segment.rows;
                rows <= sizes.file_rows
            };
            let fitting = run.iter().take(MOST_SEGMENTS).take_while(fits).count();
            let run = &run[..fitting];
            let total: u64 = run.iter().map(|segment| segment.rows).sum();
            let worth = run.len() >= merge && run.iter().all(|segment| wanted(&segment)) && class(total) > limit;
            if worth && by_day(run).values().any(|files| files.len() > 1) {
                return Some(run);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(rows: &[u64]) -> Vec<Arc<Segment>> {
        let mut first = 0;
        let segment = |&rows: &u64| {
            let end = first + rows;
            let file = ArchivedFile {
                path: object_store::path::Path::from(format!("{first}")),
                first,
                end,
                rows,
                bytes: rows,
                late: 0,
                times: None,
                day: Some(1),
                modified: Default::default(),
                ours: true,
                partition: Default::default(),
            };
            first = end;
            let files = vec![Arc::new(file)];
            Arc::new(Segment { first: end - rows, end, rows, late: 0, times: None, files })
        };
        rows.iter().map(segment).collect()
    }

    #[test]
    fn each_row_is_rewritten_few_times() {
        let sizes = Sizes { file_rows: 100_000, ..Sizes::default() };
        let (mut rows, mut rewritten, appended) = (Vec::new(), 0, 40_000u64);
        for i in 0..appended {
            rows.push(1 + i % 3);
            while let Some(run) = choose(&segments(&rows), &sizes) {
                let (from, len) = (run[0].first, run.len());
                let total: u64 = run.iter().map(|s| s.rows).sum();
                let at = segments(&rows).iter().position(|s| s.first == from).unwrap();
                rows.splice(at..at + len, [total]);
                rewritten += total;
            }
        }
        let total: u64 = rows.iter().sum();
        assert_eq!(total, (0..appended).map(|i| 1 + i % 3).sum::<u64>());
        assert!(rows.len() < 60, "{} segments", rows.len());
        assert!(rewritten < 7 * total, "{rewritten} rows written for {total}");
    }

    #[test]
    fn neither_large_segments_nor_those_of_others_are_touched() {
        let sizes = Sizes { file_rows: 1000, ..Sizes::default() };
        assert!(choose(&segments(&[600; 20]), &sizes).is_none());
        assert!(choose(&segments(&[10; 7]), &sizes).is_none());
        assert_eq!(choose(&segments(&[10; 9]), &sizes).unwrap().len(), 9);
        let mut others = segments(&[10; 12]);
        let file = Arc::new(ArchivedFile { ours: false, ..others[6].files[0].as_ref().clone() });
        others[6] = Arc::new(Segment { files: vec![file], ..others[6].as_ref().clone() });
        assert!(choose(&others, &sizes).is_none());
    }
}
