//! Where does something lie? A location as users write it (a path, `file://`, `s3://bucket/prefix`, perhaps with a
//! pattern at its end) becomes an object store and a URL.
//!
//! The store is that of the whole file system or bucket, not of a part of it, because DataFusion finds stores by scheme
//! and bucket: whatever opens a location here also lets queries read there. Credentials and endpoint of S3 come from the
//! environment of the process (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`, …).

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use url::{Position, Url};

use crate::error::{Error, Kind, Result};
use crate::reach;

/// `*` stays within one directory, `**` crosses them.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// How often, and for how long, a request to S3 is tried again. Who waits for a query wants to be told rather soon, and so
/// does a server that starts.
const RETRIES: usize = 5;
const PATIENCE: Duration = Duration::from_secs(15);

/// The address at which machines in Amazon's cloud are asked for credentials.
const METADATA_SERVICE: &str = "169.254.169.254";

/// Where a Delta table says which of its files count.
pub const DELTA_LOG: &str = "_delta_log";

/// A location, opened.
#[derive(Debug, Clone)]
pub struct Place {
    /// As the user wrote it, for messages.
    pub location: String,
    /// Of the whole file system or bucket.
    pub store: Arc<dyn ObjectStore>,
    /// Ends with a slash if it is a directory.
    pub url: Url,
    /// What the files below `url` are called, if the location says so.
    pattern: Option<Pattern>,
}

impl Place {
    /// Opens a location. What lies there is not looked at, except that a local path says whether it is a directory.
    pub fn open(location: &str, runtime: &RuntimeEnv) -> Result<Place> {
        reach::location(location)?;
        let (fixed, pattern) = split(location);
        let pattern = pattern.map(|pattern| {
            Pattern::new(pattern).map_err(|err| {
                Error::new(Kind::InvalidParameter, format!("bad pattern in {location:?}: {}", err.msg))
                    .with_hint("Patterns know *, ?, [abc], [!a-z] and ** for any number of directories.")
            })
        });
        let url = url_of(fixed)?;
        let store = store_of(&url, runtime)?;
        Ok(Place { location: location.to_string(), store, url, pattern: pattern.transpose()? })
    }

    /// The name under which queries find the store.
    pub fn object_store(&self) -> Result<ObjectStoreUrl> {
        Ok(ObjectStoreUrl::parse(&self.url[..Position::BeforePath])?)
    }

    /// Where it is within the store.
    pub fn path(&self) -> Result<Path> {
        Path::from_url_path(self.url.path())
            .map_err(|err| Error::new(Kind::InvalidParameter, format!("bad location {:?}: {err}", self.location)))
    }

    /// The path on this machine, if it is here.
    pub fn local(&self) -> Option<PathBuf> {
        if self.url.scheme() == "file" { self.url.to_file_path().ok() } else { None }
    }

    pub fn is_directory(&self) -> bool {
        self.url.path().ends_with('/')
    }

    /// Fails when it is on this machine and missing.
    pub fn check(&self) -> Result<()> {
        match self.local() {
            Some(path) => std::fs::metadata(&path).map(drop).map_err(|err| Error::io("read", &path, &err)),
            None => Ok(()),
        }
    }

    /// The files with this extension, sorted by name, wherever they are below a directory. As everywhere in this trade,
    /// names that begin with `_` or `.` are somebody's work in progress and left out, and so are empty files.
    pub async fn files(&self, extension: &str) -> Result<Vec<ObjectMeta>> {
        let prefix = self.path()?;
        if !self.is_directory() {
            return match self.store.head(&prefix).await {
                Ok(file) => Ok(vec![file]),
                Err(err) => Err(failed("read", &self.location, &err)),
            };
        }
        let listed = self.store.list(Some(&prefix)).try_filter(|file| {
            let name = self.within(&prefix, file).unwrap_or_default();
            let wanted = match &self.pattern {
                Some(pattern) => pattern.matches_with(name, MATCHING),
                None => name.ends_with(extension),
            };
            // A link may lead elsewhere.
            let inside = self.url.scheme() != "file" || {
                reach::found(&std::path::Path::new("/").join(file.location.as_ref()))
            };
            std::future::ready(wanted && inside && file.size > 0 && !is_hidden(name))
        });
        let mut files: Vec<ObjectMeta> =
            listed.try_collect().await.map_err(|err| failed("list", &self.location, &err))?;
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(files)
    }

    /// Whether it is the directory of a Delta table.
    pub async fn has_delta_log(&self) -> Result<bool> {
        if !self.is_directory() || self.pattern.is_some() {
            return Ok(false);
        }
        let log = self.path()?.join(DELTA_LOG);
        let first = self.store.list(Some(&log)).try_next().await;
        Ok(first.map_err(|err| failed("list", &self.location, &err))?.is_some())
    }

    /// The name of a file below this directory.
    pub fn within<'a>(&self, prefix: &Path, file: &'a ObjectMeta) -> Option<&'a str> {
        let name = file.location.as_ref().strip_prefix(prefix.as_ref())?;
        Some(name.trim_start_matches('/'))
    }
}

/// A failure of an object store, with the kind that fits it.
pub fn failed(action: &str, what: &str, err: &object_store::Error) -> Error {
    use object_store::Error as E;
    if err.to_string().contains("NoSuchBucket") {
        let message = format!("could not {action} {what:?}: the bucket does not exist");
        return Error::new(Kind::UndefinedFile, message);
    }
    let credentials =
        Some("The server takes credentials from its environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and so on.");
    let (kind, hint) = match err {
        E::NotFound { .. } => (Kind::UndefinedFile, None),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (Kind::InsufficientPrivilege, credentials),
        // Without credentials, the machine itself is asked for some.
        other if other.to_string().contains(METADATA_SERVICE) => (Kind::InsufficientPrivilege, credentials),
        E::NotSupported { .. } | E::NotImplemented { .. } => (Kind::NotSupported, None),
        _ => (Kind::Io, None),
    };
    let message = match err {
        E::NotFound { path, .. } => format!("could not {action} {what:?}: there is no {path:?}"),
        other => format!("could not {action} {what:?}: {other}"),
    };
    let err = Error::new(kind, message);
    match hint {
        Some(hint) => err.with_hint(hint),
        None => err,
    }
}

/// A location without the pattern at its end, and the pattern. What exists under the very name is no pattern.
fn split(location: &str) -> (&str, Option<&str>) {
    if !location.contains(['*', '?', '[']) || FilePath::new(location).exists() {
        return (location, None);
    }
    let mut at = 0;
    for part in location.split_inclusive('/') {
        if part.contains(['*', '?', '[']) {
            break;
        }
        at += part.len();
    }
    (&location[..at], Some(&location[at..]))
}

fn url_of(location: &str) -> Result<Url> {
    let bad = || Error::new(Kind::InvalidParameter, format!("bad location {location:?}"));
    match location.split_once("://") {
        Some(("s3", rest)) => {
            let mut url = Url::parse(location).map_err(|_| bad())?;
            if url.host_str().is_none_or(str::is_empty) {
                return Err(bad().with_hint("The form is s3://bucket/prefix."));
            }
            // A name without an extension is a prefix.
            let last = rest.rsplit('/').next().unwrap_or_default();
            if !rest.contains('/') || (!last.is_empty() && FilePath::new(last).extension().is_none()) {
                let path = format!("{}/", url.path().trim_end_matches('/'));
                url.set_path(&path);
            }
            Ok(url)
        }
        Some(("file", _)) => {
            let url = Url::parse(location).map_err(|_| bad())?;
            local_url(&url.to_file_path().map_err(|()| bad())?).ok_or_else(bad)
        }
        Some((scheme, _)) => Err(Error::new(Kind::NotSupported, format!("locations at {scheme}:// are not supported"))
            .with_hint("A location is a path on the server or s3://bucket/prefix.")),
        None => local_url(FilePath::new(location)).ok_or_else(bad),
    }
}

fn local_url(path: &FilePath) -> Option<Url> {
    // An empty one is where a pattern in the working directory begins.
    let path = if path.as_os_str().is_empty() { FilePath::new(".") } else { path };
    let directory = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let path = std::path::absolute(path).ok()?;
    if directory { Url::from_directory_path(path).ok() } else { Url::from_file_path(path).ok() }
}

/// The store of a URL: the one that queries use already, or a new one that they use from now on.
fn store_of(url: &Url, runtime: &RuntimeEnv) -> Result<Arc<dyn ObjectStore>> {
    let root = ObjectStoreUrl::parse(&url[..Position::BeforePath])?;
    if let Ok(store) = runtime.object_store(&root) {
        return Ok(store);
    }
    let bucket = url.host_str().unwrap_or_default();
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
    let built = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).build();
    let store: Arc<dyn ObjectStore> = Arc::new(built.map_err(|err| failed("reach", url.as_str(), &err))?);
    runtime.register_object_store(root.as_ref(), Arc::clone(&store));
    Ok(store)
}

fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') || (part.starts_with('_') && !part.contains('=')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_paths_and_urls() {
        let dir = tempfile::tempdir().unwrap();
        let url = |location: &str| url_of(location).unwrap().to_string();
        let root = format!("file://{}", dir.path().display());
        assert_eq!(url(dir.path().to_str().unwrap()), format!("{root}/"));
        assert_eq!(url(&format!("{root}/a b.parquet")), format!("{root}/a%20b.parquet"));
        assert_eq!(url("s3://logs"), "s3://logs/");
        assert_eq!(url("s3://logs/2026"), "s3://logs/2026/");
        assert_eq!(url("s3://logs/a.parquet"), "s3://logs/a.parquet");
        assert_eq!(url_of("gopher://x/y").unwrap_err().kind(), Kind::NotSupported);
        assert_eq!(split("s3://b/x/*/a?.parquet"), ("s3://b/x/", Some("*/a?.parquet")));
        assert_eq!(split("a*"), ("", Some("a*")));
    }

    #[test]
    fn work_in_progress_is_left_out() {
        assert!(is_hidden("_delta_log/0.json") && is_hidden("a=1/.x.parquet") && is_hidden("_SUCCESS"));
        assert!(!is_hidden("_a=1/x.parquet") && !is_hidden("a=_b/x_.parquet"));
    }
}
