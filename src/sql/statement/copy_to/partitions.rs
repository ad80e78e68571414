//! `PARTITIONED BY`: a directory `column=value` for each value, with one file in it.
//!
//! DataFusion's writer holds a file open for each value until the end: twenty thousand of them took 17 GB. So the rows are
//! sorted by the partitions first, which spills to disk as any sort does, and the files are written one after the other.
//!
//! ```text
//!     sorted rows ──► runs of equal values ──► (channel of one batch) ──► the same writer as without partitions
//! ```

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::compute::partition;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Column;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::channel::mpsc::{Receiver, Sender, channel};
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use url::Url;

use super::{Form, write_files};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Writes the rows of `plan`, whose columns `by` are text without NULL, below `base`; gives their number.
pub(super) async fn write(
    engine: &Arc<Engine>,
    form: &Form,
    plan: LogicalPlan,
    by: &[String],
    base: &Url,
) -> Result<usize> {
    let order = by.iter().map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, true));
    let sorted = LogicalPlanBuilder::from(plan).sort(order.collect::<Vec<_>>())?.build()?;
    let mut rows = engine.run(sorted).await?;
    // The files of one COPY have one name, which no other has.
    let name = format!("{:016x}{}", rand::random::<u64>(), form.extension());
    let (mut open, mut written): (Option<OpenFile>, usize) = (None, 0);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        for (values, run) in runs(&batch, by)? {
            if open.as_ref().is_none_or(|open| open.values != values) {
                if let Some(open) = open.take() {
                    written += open.finish().await?;
                }
                let url = url_of(base, by, &values, &name)?;
                open = Some(OpenFile::begin(engine, form, values, run.schema(), url)?);
            }
            let file = open.as_mut().expect("opened above");
            // A writer that has ended tells why when it is finished.
            if file.rows.send(run).await.is_err() {
                break;
            }
        }
    }
    match open {
        Some(open) => Ok(written + open.finish().await?),
        None => Ok(written),
    }
}

/// A file being written.
struct OpenFile {
    values: Vec<String>,
    rows: Sender<RecordBatch>,
    writer: SpawnedTask<Result<usize>>,
}

impl OpenFile {
    fn begin(engine: &Arc<Engine>, form: &Form, values: Vec<String>, schema: SchemaRef, url: Url) -> Result<OpenFile> {
        let (rows, receiver) = channel(1);
        let handed = Handed { schema: Arc::clone(&schema), rows: Mutex::new(Some(receiver)) };
        let table = Arc::new(StreamingTable::try_new(schema, vec![Arc::new(handed)])?);
        let plan = LogicalPlanBuilder::scan("rows", provider_as_source(table), None)?.build()?;
        let (engine, form) = (Arc::clone(engine), form.clone());
        let writer = SpawnedTask::spawn(async move { write_files(&engine, &form, plan, url.as_str(), false).await });
        Ok(OpenFile { values, rows, writer })
    }

    async fn finish(self) -> Result<usize> {
        drop(self.rows);
        self.writer.join().await.unwrap_or_else(|err| Err(Error::internal(err.to_string())))
    }
}

/// Rows that are handed to a plan.
#[derive(Debug)]
struct Handed {
    schema: SchemaRef,
    rows: Mutex<Option<Receiver<RecordBatch>>>,
}

impl PartitionStream for Handed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().take().map(|rows| rows.map(Ok));
        let schema = Arc::clone(&self.schema);
        match rows {
            Some(rows) => Box::pin(RecordBatchStreamAdapter::new(schema, rows)),
            None => {
                let twice = Err(Error::internal("the rows of a file are taken once").into());
                Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([twice])))
            }
        }
    }
}

/// The pieces of a sorted batch whose rows have the same values in the columns `by`, without those columns.
fn runs(batch: &RecordBatch, by: &[String]) -> Result<Vec<(Vec<String>, RecordBatch)>> {
    let schema = batch.schema();
    let keys: Vec<&StringArray> =
        by.iter().filter_map(|name| batch.column_by_name(name)?.as_string_opt::<i32>()).collect();
    if keys.len() != by.len() {
        return Err(Error::internal("partitions are columns of text"));
    }
    let columns: Vec<_> = keys.iter().map(|key| Arc::new((*key).clone()) as _).collect();
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|&at| !by.contains(schema.field(at).name())).collect();
    let fields: Vec<_> = kept.iter().map(|&at| Arc::clone(&schema.fields()[at])).collect();
    let rest = RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        kept.iter().map(|&at| Arc::clone(batch.column(at))).collect(),
    )?;
    let run = |range: std::ops::Range<usize>| {
        let values = keys.iter().map(|key| key.value(range.start).to_string()).collect();
        (values, rest.slice(range.start, range.len()))
    };
    Ok(partition(&columns)?.ranges().into_iter().map(run).collect())
}

/// `base/a=1/b=2/name`.
fn url_of(base: &Url, by: &[String], values: &[String], name: &str) -> Result<Url> {
    let mut url = base.clone();
    {
        let mut path = url.path_segments_mut().map_err(|()| Error::internal("a location has a path"))?;
        path.pop_if_empty();
        for (key, value) in by.iter().zip(values) {
            path.push(&format!("{}={}", escaped(key), escaped(value)));
        }
        path.push(name);
    }
    Ok(url)
}

/// A text as it may stand in the name of a directory: what would be read as something else becomes `%2F` and the like, as
/// Hive and Spark write it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() || "\"#%'*/:=?\\{}[]^<>|~`".contains(c) {
            out += &format!("%{:02X}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_names_of_directories() {
        let base = Url::parse("file:///tmp/x/").unwrap();
        let by = ["a".to_string(), "b".to_string()];
        let url = url_of(&base, &by, &["/é=1 %".into(), "..".into()], "f.csv").unwrap();
        let path = object_store::path::Path::from_url_path(url.path()).unwrap();
        assert_eq!(path.as_ref(), "tmp/x/a=%2Fé%3D1 %25/b=../f.csv");
    }
}
