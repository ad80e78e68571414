//! Reads the bytes of files, and says which file it was when that fails: an error of a query over thousands of files is
//! of no use otherwise. A file that is gone or has no footer is damage; a store that does not answer is not.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result as DfResult;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::failed;
use crate::error::{Error, Kind};

/// Makes readers that keep what they learn of files in the runtime's cache.
#[derive(Debug)]
pub(super) struct Readers {
    stream: String,
    store: Arc<dyn ObjectStore>,
    cached: CachedParquetFileReaderFactory,
}

impl Readers {
    pub fn new(stream: &str, store: &Arc<dyn ObjectStore>, runtime: &RuntimeEnv) -> Readers {
        let cache = runtime.cache_manager.get_file_metadata_cache();
        let cached = CachedParquetFileReaderFactory::new(Arc::clone(store), cache);
        Readers { stream: stream.to_string(), store: Arc::clone(store), cached }
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> DfResult<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location.clone();
        let inner = self.cached.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader { stream: self.stream.clone(), path, store: Arc::clone(&self.store), inner }))
    }
}

struct Reader {
    stream: String,
    path: Path,
    store: Arc<dyn ObjectStore>,
    inner: Box<dyn AsyncFileReader + Send>,
}

impl Reader {
    fn named(&self, err: Error) -> ParquetError {
        ParquetError::External(Box::new(err.with_context(&format!("archive of stream \"{}\"", self.stream))))
    }

    fn reading(&self, err: &ParquetError) -> ParquetError {
        self.named(failed(&format!("read file \"{}\"", self.path), err))
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let read = self.inner.get_bytes(range).await;
            read.map_err(|err| self.reading(&err))
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            let read = self.inner.get_byte_ranges(ranges).await;
            read.map_err(|err| self.reading(&err))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let err = match self.inner.get_metadata(options).await {
                Ok(metadata) => return Ok(metadata),
                Err(err) => err,
            };
            // The cause is only text here, so it is looked for again.
            Err(match self.store.head(&self.path).await {
                Err(err) => self.reading(&ParquetError::External(Box::new(err))),
                Ok(_) => {
                    let damaged = Error::new(Kind::Corrupted, format!("file \"{}\" is damaged", self.path));
                    self.named(damaged.with_detail(err.to_string()))
                }
            })
        }
        .boxed()
    }
}
