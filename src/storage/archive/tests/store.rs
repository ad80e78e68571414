//! A store that fails when it is told to, before or after it did what it was asked.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// A failure of the next write to a path that contains `path`.
#[derive(Debug, Clone)]
pub struct Fault {
    pub path: &'static str,
    pub when: When,
    pub kind: std::io::ErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    Before,
    After,
    /// It was done, and the store repeated the request by itself.
    Twice,
}

#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    pub faults: Mutex<Vec<Fault>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Faulty> {
        Arc::new(Faulty { inner, faults: Mutex::new(Vec::new()) })
    }

    pub fn fail(&self, path: &'static str, when: When, kind: std::io::ErrorKind) {
        self.faults.lock().push(Fault { path, when, kind });
    }

    fn take(&self, location: &Path) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let index = faults.iter().position(|fault| location.as_ref().contains(fault.path))?;
        Some(faults.remove(index))
    }
}

fn error(kind: std::io::ErrorKind) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: Box::new(std::io::Error::from(kind)) }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.take(location);
        if let Some(Fault { when: When::Before, kind, .. }) = fault {
            return Err(error(kind));
        }
        let done = self.inner.put_opts(location, payload.clone(), options.clone()).await;
        match fault {
            Some(Fault { when: When::After, kind, .. }) => Err(error(kind)),
            Some(Fault { when: When::Twice, .. }) => self.inner.put_opts(location, payload, options).await,
            Some(Fault { when: When::Before, .. }) | None => done,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.take(location) {
            Some(fault) => Err(error(fault.kind)),
            None => self.inner.put_multipart_opts(location, options).await,
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
