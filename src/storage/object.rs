//! Where tables can be: a directory or a bucket, opened by its name.
//!
//! Receives a location as a user writes it; hands on a store whose names are relative to it, and its URL. The local one
//! is [`FsStore`], so that a test can put a failing disk under a table; the remote one is object_store's own client.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as Location;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

use super::fs::Fs;
pub use super::fs_store::{FsStore, io_error};
use crate::error::{Error, Kind, Result};

/// How long a request to a bucket is tried again: what takes longer is better seen and tried by who asked.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// A place for objects.
#[derive(Debug, Clone)]
pub struct Place {
    /// Names are relative to the place.
    pub store: Arc<dyn ObjectStore>,
    /// `file:///dir/` or `s3://bucket/prefix/`; always with a slash at its end.
    pub url: Url,
}

/// Opens a location: a directory on `fs`, as a path or a `file://` URL, or `s3://bucket/prefix`. Looks at nothing yet, so
/// it succeeds when there is nothing there. Keys, region and endpoint of a bucket come from the environment, in the
/// variables that all programs for S3 know (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP`, …).
pub fn open(location: &str, fs: Arc<dyn Fs>) -> Result<Place> {
    let bad = |why: &str| {
        Error::new(Kind::InvalidParameter, format!("{location:?} is no place for files: {why}"))
            .with_hint("Write a directory, such as '/var/lib/tables', or a bucket, such as 's3://bucket/prefix'.")
    };
    let Some((scheme, _)) = location.split_once("://") else {
        if location.is_empty() {
            return Err(bad("it is empty"));
        }
        return local(Path::new(location), fs);
    };
    let url = Url::parse(location).map_err(|err| bad(&err.to_string()))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("a URL with '?' or '#' does not name one"));
    }
    match scheme.to_ascii_lowercase().as_str() {
        "file" => local(&url.to_file_path().map_err(|()| bad("it is on another machine"))?, fs),
        "s3" => {
            let retry = RetryConfig { retry_timeout: RETRY_FOR, ..RetryConfig::default() };
            s3(AmazonS3Builder::from_env(), &url, retry)
        }
        other => Err(bad(&format!("\"{other}\" is not known"))),
    }
}

fn local(path: &Path, fs: Arc<dyn Fs>) -> Result<Place> {
    let absolute = std::path::absolute(path).map_err(|err| Error::io("find", path, &err))?;
    // A URL has no `..`, and the store and its URL have to name the same directory.
    let mut dir = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(dir.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => dir.push(part),
        }
    }
    let url = Url::from_directory_path(&dir).map_err(|()| Error::internal("an absolute path makes no URL"))?;
    Ok(Place { store: Arc::new(FsStore::new(fs, dir)), url })
}

fn s3(builder: AmazonS3Builder, url: &Url, retry: RetryConfig) -> Result<Place> {
    let bad = |err: &dyn std::fmt::Display| {
        Error::new(Kind::InvalidParameter, format!("could not open {:?}: {err}", url.as_str()))
            .with_hint("Write 's3://bucket/prefix', and check the variables AWS_… of the server's environment.")
    };
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or_else(|| bad(&"the bucket is missing"))?;
    let prefix = Location::from_url_path(url.path()).map_err(|err| bad(&err))?;
    let store = builder
        .with_bucket_name(bucket)
        .with_retry(retry)
        // Commits of a table rest on it.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build()
        .map_err(|err| bad(&err))?;
    let mut url = url.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    let store: Arc<dyn ObjectStore> = match prefix.is_root() {
        true => Arc::new(store),
        false => Arc::new(PrefixStore::new(store, prefix)),
    };
    Ok(Place { store, url })
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::super::faulty_fs::FaultyFs;
    use super::super::fs::Disk;
    use super::*;

    fn opened(location: &str) -> Result<Place> {
        open(location, Arc::new(FaultyFs::new(1)))
    }

    #[test]
    fn a_directory_is_named_by_its_path_or_url() {
        for (location, url) in [
            ("/var/lib/a b", "file:///var/lib/a%20b/"),
            ("/var/lib/a b/", "file:///var/lib/a%20b/"),
            ("/var/./lib/../log", "file:///var/log/"),
            ("file:///var/lib/a%20b", "file:///var/lib/a%20b/"),
            ("FILE:///var", "file:///var/"),
            ("/", "file:///"),
        ] {
            assert_eq!(opened(location).unwrap().url.as_str(), url);
        }
        let here = opened("tables").unwrap().url;
        let expected = std::env::current_dir().unwrap().join("tables");
        assert_eq!(here, Url::from_directory_path(expected).unwrap());
    }

    #[test]
    fn names_are_relative_to_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = open(dir.path().join("my tables").to_str().unwrap(), Arc::new(Disk)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(place.store.put(&"a/b".into(), "text".into())).unwrap();
        assert_eq!(std::fs::read(dir.path().join("my tables/a/b")).unwrap(), b"text");
    }

    #[test]
    fn what_is_no_place_is_refused_with_a_hint() {
        for location in
            ["", "gs://bucket/x", "http://host/x", "s3://", "s3:///prefix", "s3://b/x?y=1", "file://host/dir", "x://["]
        {
            let err = opened(location).unwrap_err();
            assert_eq!(err.kind(), Kind::InvalidParameter, "{location}: {err}");
            assert!(err.hint().is_some_and(|hint| hint.contains("s3://bucket/prefix")), "{err}");
        }
    }

    #[test]
    fn a_bucket_that_cannot_be_reached_is_an_error() {
        // With an address of https the client also needs what TLS needs.
        for endpoint in ["http://127.0.0.1:1", "https://127.0.0.1:1"] {
            let builder = AmazonS3Builder::new()
                .with_endpoint(endpoint)
                .with_allow_http(true)
                .with_access_key_id("key")
                .with_secret_access_key("secret");
            let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
            let url = Url::parse("s3://bucket/some/prefix").unwrap();
            let place = s3(builder, &url, retry).unwrap();
            assert_eq!(place.url.as_str(), "s3://bucket/some/prefix/");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let err = runtime.block_on(place.store.head(&"x".into())).unwrap_err().to_string();
            assert!(err.contains(&format!("{endpoint}/bucket/some/prefix/x")), "{err}");
        }
    }
}
