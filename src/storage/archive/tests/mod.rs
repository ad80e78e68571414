//! Tests of the archive as a whole, on a store in memory and on a disk.

mod append;
mod measure;
mod merge;
mod read;
mod store;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use url::Url;

use super::{Archive, Archived, OFFSET, Sizes, Spec, WATERMARK};
use crate::format::timestamp_type;
use crate::time::UTC;

/// 2026-11-21.
const DAY: i32 = 20_778;
const HOUR: i64 = 3_600_000_000;
const MIDNIGHT: i64 = DAY as i64 * 24 * HOUR;

fn spec() -> Spec {
    let sizes = Sizes { row_group_rows: 64, page_rows: 16, file_rows: 2000, merge: 4, part_bytes: 512 };
    Spec { name: "access".into(), time: Some("ts".into()), sizes }
}

fn url() -> Url {
    Url::parse("memory:///streams/access").unwrap()
}

async fn open(store: &Arc<dyn ObjectStore>) -> Arc<Archive> {
    Archive::open(Arc::clone(store), url(), spec()).await.unwrap()
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// Both kinds of stores; the folder lives as long as the second.
fn stores() -> (tempfile::TempDir, [Arc<dyn ObjectStore>; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    (dir, [memory(), local])
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", timestamp_type(), true),
        Field::new("path", DataType::Utf8View, true),
        Field::new("status", DataType::Int64, true),
    ]))
}

/// The wanted columns with the archive's own behind them.
fn with_own(schema: &SchemaRef) -> SchemaRef {
    let own = [Field::new(OFFSET, DataType::Int64, false), Field::new(WATERMARK, timestamp_type(), true)];
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(own.map(Arc::new)).collect::<Vec<_>>()))
}

fn times(times: impl IntoIterator<Item = Option<i64>>) -> TimestampMicrosecondArray {
    times.into_iter().collect::<TimestampMicrosecondArray>().with_timezone(UTC)
}

/// A row per offset: event times go on by a second and every second row is two seconds earlier; every tenth is late.
fn rows(offsets: Range<u64>) -> RecordBatch {
    let own = offsets.map(|o| o as i64).collect::<Vec<_>>();
    let time = |o: i64| MIDNIGHT + 20 * HOUR + (o - 2 * (o % 2)) * 1_000_000;
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(times(own.iter().map(|&o| Some(time(o))))),
        Arc::new(StringViewArray::from_iter_values(own.iter().map(|o| format!("/a/rather/long/path/{o}")))),
        Arc::new(Int64Array::from_iter_values(own.iter().map(|o| 200 + o % 5))),
        Arc::new(Int64Array::from(own.clone())),
        Arc::new(times(own.iter().map(|&o| (o % 10 == 0).then_some(time(o) + 1)))),
    ];
    RecordBatch::try_new(with_own(&schema()), columns).unwrap()
}

/// Appends `count` rows where the archive ends.
async fn append(archive: &Archive, count: u64) -> Arc<Archived> {
    let end = archive.current().end;
    archive.append(vec![rows(end..end + count)], end..end + count).await.unwrap()
}

/// The rows of a version, by offset.
async fn all(archive: &Archive, archived: &Archived, schema: &SchemaRef) -> RecordBatch {
    let context = SessionContext::new();
    let schema = with_own(schema);
    let plan = archive.scan(archived, &context.state(), schema.clone(), None, None, None, &[], false).unwrap();
    let Some(plan) = plan else { return RecordBatch::new_empty(schema) };
    let batches = datafusion::physical_plan::collect(plan, context.task_ctx()).await.unwrap();
    let batch = concat_batches(&schema, &batches).unwrap();
    let order = arrow::compute::sort_to_indices(batch.column_by_name(OFFSET).unwrap(), None, None).unwrap();
    arrow::compute::take_record_batch(&batch, &order).unwrap()
}

/// The version has exactly the rows of these offsets, as [`rows`] makes them.
async fn assert_rows(archive: &Archive, archived: &Archived, offsets: Range<u64>) {
    let found = all(archive, archived, &schema()).await;
    assert_eq!(archived.rows, found.num_rows() as u64);
    assert_eq!(found, rows(offsets));
}

fn offsets(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name(OFFSET).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn ranges(archived: &Archived) -> Vec<Range<u64>> {
    archived.segments.iter().map(|segment| segment.first..segment.end).collect()
}

async fn files(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    use futures::TryStreamExt;
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut paths: Vec<String> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
    paths.retain(|path| path.ends_with(".parquet") && !path.contains("_delta_log"));
    paths.sort();
    paths
}
