//! Files as objects: the interface that Delta tables and DataFusion read and write through, over a [`Fs`].
//!
//! Receives names relative to a root directory; hands on bytes. What always holds:
//! - an object is there in whole or not at all: it is written under a temporary name in its own directory, synced, and
//!   only then given its name;
//! - what was put, copied, renamed or deleted stays so after a power cut: the directories are synced too;
//! - so does what is listed, or read from its beginning: whoever gave it its name may have died, or failed, before that
//!   was synced, so this is made good first;
//! - of all who put an object that must be new, one succeeds. Whoever gets another error cannot know whether the object
//!   is there: the name may have been given and only its sync failed;
//! - temporary names are never listed, read or written by name. A crash leaves some behind; [`FsStore::sweep`] removes
//!   them.
//!
//! Not object_store's own `LocalFileSystem`, as that syncs nothing and opens its files past [`Fs`].
//!
//! Files are read on tokio's threads for blocking work, many ranges in one go.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path as Location;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    RenameTargetMode, Result, UploadPart,
};
use parking_lot::Mutex;

use super::fs::{File, Fs, Meta, parent};

/// Objects are read, and copied, in pieces of this size: large enough that opening costs nothing beside it, small enough
/// for several at a time.
const PIECE: u64 = 8 << 20;

/// Deletions that share the syncs of their directories.
const DELETE_TOGETHER: usize = 256;

/// Directories to remember as durable: a table has some hundreds in use. To forget one costs a sync of it.
const KNOWN_DIRS: usize = 4096;

/// A temporary name is this, a random number and the other.
const TEMPORARY: (&str, &str) = (".logweir-", ".tmp");

/// See the file header. Clones are the same store.
#[derive(Debug, Clone)]
pub struct FsStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    /// Directories that this process knows to be durable.
    dirs: Mutex<HashSet<PathBuf>>,
    /// Directories whose files have durable names, those of other processes too.
    settled: Mutex<HashSet<PathBuf>>,
}

impl fmt::Display for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FsStore({})", self.0.root.display())
    }
}

impl FsStore {
    /// The files below `root`, which is made when something is put. It is not an error if it is not there.
    pub fn new(fs: Arc<dyn Fs>, root: PathBuf) -> FsStore {
        FsStore(Arc::new(Inner { fs, root, dirs: Mutex::default(), settled: Mutex::default() }))
    }

    /// Removes temporary files last written before `before`, and says how many. Younger ones may belong to a process
    /// that is writing them. Blocks.
    pub fn sweep(&self, before: DateTime<Utc>) -> io::Result<usize> {
        let Inner { fs, root, .. } = &*self.0;
        let mut swept = 0;
        for (path, meta) in fs.list_all(root)? {
            if is_temporary(&path) && meta.modified < before {
                fs.remove(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        blocking(&self.0, work).await
    }
}

async fn blocking<S: Send + Sync + 'static, T: Send + 'static>(
    shared: &Arc<S>,
    work: impl FnOnce(&S) -> Result<T> + Send + 'static,
) -> Result<T> {
    // Outside of a runtime nobody else is kept waiting.
    if tokio::runtime::Handle::try_current().is_err() {
        return work(shared);
    }
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || work(&shared)).await?
}

/// The operating system's error that an error of a store came from, if it did: `StorageFull` says that it may be tried
/// again when there is room.
pub fn io_error<'a>(err: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(err);
    while let Some(err) = next {
        if let Some(found) = err.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = err.source();
    }
    None
}

/// An operating system error and where it happened.
#[derive(Debug)]
struct Failed {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} {:?}: {}", self.action, self.path.display().to_string(), self.source)
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// Turns an operating system error into the one that callers of a store expect.
fn failed<'a>(action: &'static str, file: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    use io::ErrorKind as E;
    move |err| {
        let (kind, path) = (err.kind(), file.display().to_string());
        let source = Box::new(Failed { action, path: file.to_path_buf(), source: err });
        match kind {
            // A directory is no object, and below an object there is none.
            E::NotFound | E::NotADirectory | E::IsADirectory => Error::NotFound { path, source },
            E::AlreadyExists => Error::AlreadyExists { path, source },
            E::PermissionDenied => Error::PermissionDenied { path, source },
            _ => Error::Generic { store: "file", source },
        }
    }
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1))
}

fn e_tag(meta: &Meta) -> String {
    format!("{:x}-{:x}", meta.modified.timestamp_nanos_opt().unwrap_or_default(), meta.len)
}

fn object_meta(location: Location, meta: &Meta) -> ObjectMeta {
    let e_tag = Some(e_tag(meta));
    ObjectMeta { location, last_modified: meta.modified, size: meta.len, e_tag, version: None }
}

/// A file with a temporary name, which goes when this is dropped.
#[derive(Debug)]
struct Temporary {
    store: Arc<Inner>,
    file: Arc<dyn File>,
    path: PathBuf,
    /// The file has got its name.
    named: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed now is swept later.
            let _ = self.store.fs.remove(&self.path);
        }
    }
}

impl Temporary {
    /// Makes the file durable under its own name; `replace` says what happens to one that has it.
    fn finish(mut self, path: &Path, replace: bool) -> Result<PutResult> {
        let fs = &self.store.fs;
        self.file.sync_data().map_err(failed("sync", path))?;
        let meta = self.file.metadata().map_err(failed("write", path))?;
        let named = if replace { fs.rename(&self.path, path) } else { fs.rename_new(&self.path, path) };
        named.map_err(failed("write", path))?;
        self.named = true;
        self.store.sync_names(parent(path)).map_err(failed("sync", path))?;
        Ok(PutResult { e_tag: Some(e_tag(&meta)), version: None })
    }
}

impl Inner {
    /// Where an object is.
    fn path(&self, location: &Location) -> Result<PathBuf> {
        // A location has no parts such as `..`: its type sees to that.
        let path = self.root.join(location.as_ref());
        if location.is_root() || is_temporary(&path) {
            let source = format!("{:?} cannot be the name of an object", location.as_ref()).into();
            return Err(Error::NotSupported { source });
        }
        Ok(path)
    }

    fn location(&self, path: &Path) -> Option<Location> {
        // A file whose name is no location was not put here and cannot be asked for.
        Location::parse(path.strip_prefix(&self.root).ok()?.to_str()?).ok()
    }

    /// Makes the directory that a file is to be in, and all above it durable.
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        // Held throughout: who comes second must not go on before the names are synced.
        let mut dirs = self.dirs.lock();
        if dirs.contains(dir) {
            return Ok(());
        }
        self.fs.create_dir_all(dir)?;
        if dirs.len() >= KNOWN_DIRS {
            dirs.clear();
        }
        dirs.insert(dir.to_path_buf());
        Ok(())
    }

    /// Syncs the names in a directory.
    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        self.fs.sync_dir(dir).inspect_err(|_| {
            self.settled.lock().remove(dir);
        })
    }

    /// Makes the names durable that were found in a directory, once. One that cannot be written to is somebody else's.
    fn settle(&self, dir: &Path) -> Result<()> {
        use io::ErrorKind as E;
        if self.settled.lock().contains(dir) {
            return Ok(());
        }
        match self.fs.sync_dir(dir) {
            Err(err) if matches!(err.kind(), E::NotFound | E::NotADirectory) => return Ok(()),
            Err(err) if !matches!(err.kind(), E::ReadOnlyFilesystem | E::PermissionDenied | E::InvalidInput) => {
                return Err(failed("sync", dir)(err));
            }
            Ok(()) | Err(_) => {}
        }
        let mut settled = self.settled.lock();
        if settled.len() >= KNOWN_DIRS {
            settled.clear();
        }
        settled.insert(dir.to_path_buf());
        Ok(())
    }

    /// A new file beside the one at `path`.
    fn temporary(self: &Arc<Self>, path: &Path) -> Result<Temporary> {
        let dir = parent(path);
        let (begin, end) = TEMPORARY;
        let mut again = true;
        loop {
            self.make_dir(dir).map_err(failed("create", dir))?;
            let temporary = dir.join(format!("{begin}{:016x}{end}", rand::random::<u64>()));
            match self.fs.create_new(&temporary) {
                Ok(file) => return Ok(Temporary { store: Arc::clone(self), file, path: temporary, named: false }),
                // Somebody removed the directory.
                Err(err) if err.kind() == io::ErrorKind::NotFound && again => {
                    again = false;
                    self.dirs.lock().retain(|known| !dir.starts_with(known));
                }
                Err(err) => return Err(failed("create", path)(err)),
            }
        }
    }

    fn objects(&self, prefix: &Location) -> Result<Vec<ObjectMeta>> {
        let dir = self.root.join(prefix.as_ref());
        let files = self.fs.list_all(&dir).map_err(failed("list", &dir))?;
        let dirs: HashSet<&Path> = files.iter().map(|(path, _)| parent(path)).collect();
        dirs.into_iter().try_for_each(|dir| self.settle(dir))?;
        let files = files.into_iter().filter(|(path, _)| !is_temporary(path));
        let mut objects: Vec<_> =
            files.filter_map(|(path, meta)| Some(object_meta(self.location(&path)?, &meta))).collect();
        objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(objects)
    }

    fn delete_all(&self, locations: Vec<Result<Location>>) -> Vec<Result<Location>> {
        let mut dirs = HashSet::new();
        let delete = |location: Result<Location>| {
            let location = location?;
            let path = self.path(&location)?;
            self.fs.remove(&path).map_err(failed("remove", &path))?;
            dirs.insert(parent(&path).to_path_buf());
            Ok(location)
        };
        let mut deleted: Vec<_> = locations.into_iter().map(delete).collect();
        for dir in dirs {
            match self.fs.sync_dir(&dir) {
                Ok(()) => {}
                // Somebody removed it with all that was in it.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => deleted.push(Err(failed("sync", &dir)(err))),
            }
        }
        deleted
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool) -> Result<()> {
        let (from_dir, to_dir) = (parent(from), parent(to));
        self.fs.metadata(from).map_err(failed("rename", from))?;
        self.make_dir(to_dir).map_err(failed("create", to_dir))?;
        let renamed = if replace { self.fs.rename(from, to) } else { self.fs.rename_new(from, to) };
        renamed.map_err(failed("rename", to))?;
        // The new name first: a power cut in between leaves two names rather than none.
        self.sync_names(to_dir).map_err(failed("sync", to_dir))?;
        if from_dir != to_dir {
            self.sync_names(from_dir).map_err(failed("sync", from_dir))?;
        }
        Ok(())
    }
}

/// Exactly this range of a file.
fn read_range(file: &Arc<dyn File>, path: &Path, range: Range<u64>) -> Result<Bytes> {
    let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
    let read = file.read_full_at(&mut bytes, range.start).map_err(failed("read", path))?;
    if read < bytes.len() {
        let end = io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ends before byte {}", range.end));
        return Err(failed("read", path)(end));
    }
    Ok(bytes.into())
}

fn refuse_attributes(attributes: &Attributes) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    Err(Error::NotImplemented { operation: "attributes of an object".into(), implementer: "FsStore".into() })
}

#[async_trait]
impl ObjectStore for FsStore {
    async fn put_opts(&self, location: &Location, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        refuse_attributes(&opts.attributes)?;
        let replace = match opts.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            PutMode::Update(_) => {
                let operation = "replacing a certain version of an object".into();
                return Err(Error::NotImplemented { operation, implementer: self.to_string() });
            }
        };
        let (store, path) = (Arc::clone(&self.0), self.0.path(location)?);
        self.blocking(move |_| {
            let temporary = store.temporary(&path)?;
            let mut at = 0;
            for bytes in &payload {
                temporary.file.write_all_at(bytes, at).map_err(failed("write", &path))?;
                at += bytes.len() as u64;
            }
            temporary.finish(&path, replace)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        refuse_attributes(&opts.attributes)?;
        let (store, path) = (Arc::clone(&self.0), self.0.path(location)?);
        let upload = self.blocking(move |_| {
            let temporary = store.temporary(&path)?;
            let parts = Parts { file: Arc::clone(&temporary.file), path, written: AtomicU64::new(0) };
            Ok(Upload { parts: Arc::new(parts), temporary: Some(temporary), end: 0 })
        });
        Ok(Box::new(upload.await?))
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        let (location, path) = (location.clone(), self.0.path(location)?);
        self.blocking(move |store| {
            let file = store.fs.open_read(&path).map_err(failed("open", &path))?;
            store.settle(parent(&path))?;
            let meta = object_meta(location, &file.metadata().map_err(failed("open", &path))?);
            options.check_preconditions(&meta)?;
            let range = match options.range {
                Some(range) => {
                    range.as_range(meta.size).map_err(|err| Error::Generic { store: "file", source: Box::new(err) })?
                }
                None => 0..meta.size,
            };
            let stream = if options.head || range.is_empty() {
                stream::empty().boxed()
            } else if range.end - range.start <= PIECE {
                let bytes = read_range(&file, &path, range.clone())?;
                stream::once(async { Ok(bytes) }).boxed()
            } else {
                pieces(file, path, range.clone())
            };
            let payload = GetResultPayload::Stream(stream);
            Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
        })
        .await
    }

    async fn get_ranges(&self, location: &Location, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (path, ranges) = (self.0.path(location)?, ranges.to_vec());
        self.blocking(move |store| {
            let file = store.fs.open_read(&path).map_err(failed("open", &path))?;
            ranges.into_iter().map(|range| read_range(&file, &path, range)).collect()
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Location>>) -> BoxStream<'static, Result<Location>> {
        let store = Arc::clone(&self.0);
        let deleted = locations.ready_chunks(DELETE_TOGETHER).then(move |together| {
            let store = Arc::clone(&store);
            async move {
                let deleted = blocking(&store, |store| Ok(store.delete_all(together))).await;
                stream::iter(deleted.unwrap_or_else(|err| vec![Err(err)]))
            }
        });
        deleted.flatten().boxed()
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (Arc::clone(&self.0), prefix.cloned().unwrap_or_default());
        let listed = async move {
            match blocking(&store, move |store| store.objects(&prefix)).await {
                Ok(objects) => stream::iter(objects).map(Ok).boxed(),
                Err(err) => stream::once(async { Err(err) }).boxed(),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
        let all = self.blocking({
            let prefix = prefix.clone();
            move |store| store.objects(&prefix)
        });
        for object in all.await? {
            let mut parts = object.location.prefix_match(&prefix).into_iter().flatten();
            let (first, second) = (parts.next(), parts.next());
            match (first, second) {
                (Some(_), None) => {
                    drop(parts);
                    objects.push(object);
                }
                (Some(dir), Some(_)) => {
                    let dir = prefix.clone().join(dir);
                    // The objects are sorted, so those in one directory stand together.
                    if common_prefixes.last() != Some(&dir) {
                        common_prefixes.push(dir);
                    }
                }
                (None, _) => {}
            }
        }
        common_prefixes.sort_unstable();
        Ok(ListResult { common_prefixes, objects })
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        let replace = match options.mode {
            CopyMode::Overwrite => true,
            CopyMode::Create => false,
        };
        let (store, from, to) = (Arc::clone(&self.0), self.0.path(from)?, self.0.path(to)?);
        self.blocking(move |_| {
            let source = store.fs.open_read(&from).map_err(failed("open", &from))?;
            let end = source.size().map_err(failed("open", &from))?;
            let temporary = store.temporary(&to)?;
            let mut at = 0;
            while at < end {
                let bytes = read_range(&source, &from, at..end.min(at + PIECE))?;
                temporary.file.write_all_at(&bytes, at).map_err(failed("write", &to))?;
                at += bytes.len() as u64;
            }
            temporary.finish(&to, replace).map(|_| ())
        })
        .await
    }

    async fn rename_opts(&self, from: &Location, to: &Location, options: RenameOptions) -> Result<()> {
        let replace = match options.target_mode {
            RenameTargetMode::Overwrite => true,
            RenameTargetMode::Create => false,
        };
        let (from, to) = (self.0.path(from)?, self.0.path(to)?);
        self.blocking(move |store| store.rename(&from, &to, replace)).await
    }
}

/// A range too large for one piece, each piece read when it is asked for.
fn pieces(file: Arc<dyn File>, path: PathBuf, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let shared = Arc::new((file, path));
    let next = move |at: u64| {
        let (shared, end) = (Arc::clone(&shared), range.end.min(at + PIECE));
        async move {
            if at == end {
                return Ok(None);
            }
            let bytes = blocking(&shared, move |(file, path)| read_range(file, path, at..end)).await?;
            Ok(Some((bytes, end)))
        }
    };
    stream::try_unfold(range.start, next).boxed()
}

/// An object that comes in parts, which are written where they belong in any order.
#[derive(Debug)]
struct Upload {
    parts: Arc<Parts>,
    /// `None` once it was completed or aborted.
    temporary: Option<Temporary>,
    end: u64,
}

#[derive(Debug)]
struct Parts {
    file: Arc<dyn File>,
    /// Where it will be.
    path: PathBuf,
    /// Bytes of the parts that are done.
    written: AtomicU64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (parts, mut at) = (Arc::clone(&self.parts), self.end);
        self.end += data.content_length() as u64;
        Box::pin(async move {
            blocking(&parts, move |parts| {
                for bytes in &data {
                    parts.file.write_all_at(bytes, at).map_err(failed("write", &parts.path))?;
                    at += bytes.len() as u64;
                }
                parts.written.fetch_add(data.content_length() as u64, Ordering::SeqCst);
                Ok(())
            })
            .await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let whole = self.parts.written.load(Ordering::SeqCst) == self.end;
        let Some(temporary) = self.temporary.take_if(|_| whole) else {
            let source = "the upload has ended, or some of its parts are missing".into();
            return Err(Error::Generic { store: "file", source });
        };
        blocking(&self.parts, move |parts| temporary.finish(&parts.path, true)).await
    }

    async fn abort(&mut self) -> Result<()> {
        let temporary = self.temporary.take();
        blocking(&self.parts, move |_| {
            drop(temporary);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
