//! Where do rows stay when the log and the memory have let them go? In the archive: one Delta Lake table per stream
//! part, on a disk or an object store, which DuckDB, Spark and everything else that reads Delta can read too.
//!
//! (Who reads the Parquet files alone takes `_day=*/*.parquet`, because Delta's log has some of its own; and until
//! [`Archive::vacuum`] merged rows are in two files.)
//!
//! Receives rows in the order of their offsets; hands out versions ([`Archived`]) and plans that read them. One writer
//! appends; anybody reads.
//!
//! What always holds: a version covers the offsets before `end` and nothing else. `end` is written into Delta's log in
//! the very commit that adds the rows (its `txn` action), so an append happened in whole or not at all, whoever died
//! when, and doing it again does nothing. A file once in a version is never changed; it goes only when no version
//! newer than some age has it ([`Archive::vacuum`]), so who holds a version reads on undisturbed.
//!
//!     names      what a column of the stream is called in the table
//!     table      a version: files and segments, read from Delta's log
//!     commit     the way of a change into that log, and what to do when nobody knows whether it got there
//!     write      an append, and how a file gets into the store
//!     arrange    rows by day, in order of time
//!     encode     rows to Parquet, and the statistics of what was written
//!     compact    many small segments to one
//!     retention  days that go, and files that nobody needs any more
//!     scan       a plan that reads a version
//!     reader     bytes of files, and errors that name them

mod arrange;
mod codes;
mod commit;
mod compact;
mod encode;
mod names;
mod reader;
mod retention;
mod scan;
mod table;
pub mod tally;
#[cfg(test)]
mod tests;
mod write;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::table::state::DeltaTableState;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use parking_lot::{Mutex, RwLock};
use url::Url;

pub use self::retention::Dropped;
pub use self::table::{Archived, ArchivedFile, Segment};
use crate::error::{Error, Kind, Result};

/// Column of the archive: the row's offset in the stream.
pub const OFFSET: &str = "_offset";
/// Column of the archive: the watermark when the row came, if the row was behind it.
pub const WATERMARK: &str = "_watermark";
/// Column by which the archive's files are partitioned: the day of the event time, or that of the append for a stream
/// without one.
pub const DAY: &str = "_day";

/// What an archive is of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name of the stream, for messages and as the table's name.
    pub name: String,
    /// The event-time column: files are sorted by it and hold one day of it.
    pub time: Option<String>,
    pub sizes: Sizes,
}

/// Sizes of what is written. Tests use small ones.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Rows of a row group: what is skipped or read at once.
    pub row_group_rows: usize,
    /// Rows of a page: what a selective query reads at least.
    pub page_rows: usize,
    /// Rows of the largest file that a merge makes.
    pub file_rows: u64,
    /// So many segments of about one size are merged.
    pub merge: usize,
    /// Bytes of a part of an upload. S3 takes at most 10,000 parts of a file and wants 5 MiB at least.
    pub part_bytes: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            row_group_rows: 256 * 1024,
            page_rows: 20_000,
            file_rows: 4 * 1024 * 1024,
            merge: 8,
            part_bytes: 8 * 1024 * 1024,
        }
    }
}

/// See the file header.
pub struct Archive {
    spec: Spec,
    /// Its root is the table's folder.
    store: Arc<dyn ObjectStore>,
    url: Url,
    log: LogStoreRef,
    /// The store's name in DataFusion's registries.
    registered: ObjectStoreUrl,
    /// For reading in merges.
    runtime: Arc<RuntimeEnv>,
    /// The sessions that know the store by that name. They forget it with the archive.
    sessions: Mutex<Vec<Weak<RuntimeEnv>>>,
    current: RwLock<Arc<Archived>>,
    /// Changes are made one after the other. Held across awaits on purpose: that is what it is for. No reader takes it.
    writer: tokio::sync::Mutex<Writer>,
    /// One merge at a time; it writes its files without keeping appends waiting.
    merging: tokio::sync::Mutex<()>,
}

/// What the next change builds upon.
struct Writer {
    /// `None` while there is no table.
    table: Option<DeltaTableState>,
    /// A change failed and it is not known what came of it: the table is to be loaded anew.
    unsure: bool,
}

/// Delta's kernel believes that a store lists files in order of their names, unless its host has this form, which is
/// that of S3's directory buckets. A file system does not, and other stores need not.
const UNORDERED: &str = "table--x-s3";

/// Archives have stores of their own, whatever their URLs: this number tells them apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Archive {
    /// Opens the archive at `url`, whose path is one in `store`. Nothing is written before the first append.
    pub async fn open(store: Arc<dyn ObjectStore>, url: Url, spec: Spec) -> Result<Arc<Archive>> {
        let place = |err: Error| err.with_context(&format!("archive of stream \"{}\"", spec.name));
        let wrong = |text: String| Error::new(Kind::InvalidParameter, text);
        let prefix = Path::from_url_path(url.path());
        let prefix = prefix.map_err(|err| place(wrong(format!("\"{url}\" is no place for it: {err}"))))?;
        let store = if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) };
        let name = format!("archive-{}://{UNORDERED}/", NUMBER.fetch_add(1, Ordering::Relaxed));
        let registered = ObjectStoreUrl::parse(&name).map_err(|err| place(err.into()))?;
        let table_url = Url::parse(&name).map_err(|err| place(wrong(err.to_string())))?;
        let log = default_logstore(Arc::clone(&store), Arc::clone(&store), &table_url, &StorageConfig::default());
        let runtime = Arc::new(RuntimeEnv::default());
        runtime.register_object_store(registered.as_ref(), Arc::clone(&store));
        let archive = Archive {
            spec: spec.clone(),
            store,
            url,
            log,
            registered,
            runtime,
            sessions: Mutex::default(),
            current: RwLock::new(Arc::new(Archived::default())),
            writer: tokio::sync::Mutex::new(Writer { table: None, unsure: true }),
            merging: tokio::sync::Mutex::new(()),
        };
        let mut writer = archive.writer.lock().await;
        archive.refresh(&mut writer).await.map_err(place)?;
        drop(writer);
        Ok(Arc::new(archive))
    }

    /// The newest version.
    pub fn current(&self) -> Arc<Archived> {
        Arc::clone(&self.current.read())
    }

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Makes the store known to a session.
    fn register(&self, runtime: &Arc<RuntimeEnv>) {
        let mut sessions = self.sessions.lock();
        if sessions.iter().all(|known| known.as_ptr() != Arc::as_ptr(runtime)) {
            sessions.retain(|known| known.strong_count() > 0);
            sessions.push(Arc::downgrade(runtime));
            runtime.register_object_store(self.registered.as_ref(), Arc::clone(&self.store));
        }
    }

    fn place(&self, err: Error) -> Error {
        err.with_context(&format!("archive of stream \"{}\"", self.spec.name))
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        for runtime in self.sessions.lock().iter().filter_map(Weak::upgrade) {
            // That there is none of this name is as good.
            let _ = runtime.deregister_object_store(self.registered.as_ref());
        }
    }
}

/// An error of a library or a store, with the kind that its deepest cause tells.
fn failed(action: &str, err: &(dyn std::error::Error + 'static)) -> Error {
    let mut kind = Kind::Io;
    let mut cause = Some(err);
    while let Some(err) = cause {
        if let Some(ours) = err.downcast_ref::<Error>() {
            return ours.clone();
        }
        kind = kind_of(err).unwrap_or(kind);
        // An I/O error made of another error hides it from `source`.
        let inner = err.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => err.source(),
        };
    }
    Error::new(kind, format!("could not {action}: {err}"))
}

fn kind_of(err: &(dyn std::error::Error + 'static)) -> Option<Kind> {
    use datafusion::parquet::errors::ParquetError;
    use deltalake_core::DeltaTableError as D;
    use std::io::ErrorKind as E;
    if let Some(err) = err.downcast_ref::<std::io::Error>() {
        return match err.kind() {
            E::StorageFull | E::QuotaExceeded => Some(Kind::DiskFull),
            E::PermissionDenied => Some(Kind::InsufficientPrivilege),
            _ => None,
        };
    }
    if let Some(err) = err.downcast_ref::<object_store::Error>() {
        return match err {
            object_store::Error::NotFound { .. } => Some(Kind::Corrupted),
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Some(Kind::InsufficientPrivilege)
            }
            _ => Some(Kind::Io),
        };
    }
    if let Some(err) = err.downcast_ref::<D>() {
        return match err {
            D::InvalidJsonLog { .. } | D::InvalidStatsJson { .. } | D::NotATable(_) | D::KernelError(_) => {
                Some(Kind::Corrupted)
            }
            _ => None,
        };
    }
    match err.downcast_ref::<ParquetError>() {
        Some(ParquetError::External(_)) | None => None,
        Some(_) => Some(Kind::Corrupted),
    }
}
