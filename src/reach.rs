//! What SQL may reach outside of the engine: files below some folders (`--allow-root`), other machines of some names
//! (`--allow-host`). Only administrators run statements that reach out; this bounds them too, and whoever has taken their
//! password. Without such settings there is no bound.
//!
//! Said once when the process starts and then fixed, like the permissions of the process: wherever a name of a file or
//! machine comes in from SQL, it is given to [`path`], [`location`] or [`hosts`].
//!
//! Statements of tenants are bounded further ([`within`]): to what their database was allowed, which is nothing unless the
//! operator said otherwise. Those bounds go with the task that runs the statement, and by hand into work on other threads
//! ([`bounds`], [`with`]). What a tenant's statement may not even ask for, as it concerns the machine (the environment,
//! ports to listen on, what parts look into later by themselves), is refused by [`machine`].
//!
//! A path is looked at as the system would follow it: links and `..` count. Of a pattern, the folder before the first
//! wildcard has to be inside, and nothing behind it may lead out.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::{Error, Kind, Result};

static LIMITS: OnceLock<Limits> = OnceLock::new();

tokio::task_local! {
    static BOUNDS: Arc<Limits>;
}

/// What is allowed.
#[derive(Debug, Default, Clone)]
pub struct Limits {
    roots: Vec<PathBuf>,
    hosts: Vec<String>,
    /// An empty list allows nothing; else it allows everything.
    closed: bool,
}

/// The bounds of a tenant.
pub type Bounds = Option<Arc<Limits>>;

/// Sets the bounds. `roots` are folders that exist; `hosts` are names or addresses without a port, or `*.example.org` for
/// all names below one. Fails when a folder is not there, or when other bounds were set before.
pub fn limit(roots: &[PathBuf], hosts: &[String]) -> Result<()> {
    let real = |root: &PathBuf| root.canonicalize().map_err(|err| Error::io("use as allow-root", root, &err));
    let roots = roots.iter().map(real).collect::<Result<_>>()?;
    let limits = Limits { roots, hosts: lower(hosts), closed: false };
    LIMITS.set(limits).map_err(|_| Error::internal("the bounds of what SQL reaches were set before"))
}

fn lower(hosts: &[String]) -> Vec<String> {
    hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
}

/// Fails unless SQL may reach the file, folder or pattern.
pub fn path(text: &str) -> Result<()> {
    all(|limits| limits.path(text))
}

/// Whether SQL may reach a file that was found by a pattern: it may be a link that leads out.
pub fn found(path: &Path) -> bool {
    LIMITS.get().is_none_or(|limits| limits.found(path)) && bounds().is_none_or(|limits| limits.found(path))
}

/// The same of a path or a URL, which may be on another machine.
pub fn location(text: &str) -> Result<()> {
    all(|limits| limits.location(text))
}

/// The same of other machines: `host`, `host:port`, a URL, or several of them with commas or blanks in between. A folder
/// stands for the sockets in it.
pub fn hosts(text: &str) -> Result<()> {
    all(|limits| limits.hosts(text))
}

/// Those of the process, and those of the tenant.
fn all(check: impl Fn(&Limits) -> Result<()>) -> Result<()> {
    LIMITS.get().map_or(Ok(()), &check)?;
    bounds().map_or(Ok(()), |limits| check(&limits))
}

/// Fails for a tenant's statement that uses `what` of the machine, such as `the environment of the server`.
pub fn machine(what: &str) -> Result<()> {
    if bounds().is_none() {
        return Ok(());
    }
    Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied to use {what}"))
        .with_detail("In a database other than the main one that is for the operators of the server.")
        .with_hint("An operator can run the statement in this database."))
}

/// Fails for a tenant's statement about a connector, sink or notifier that is not among the `allowed`: those of which all
/// that they reach is looked at when they are created.
pub fn component(what: &str, name: &str, allowed: &[&str]) -> Result<()> {
    if allowed.contains(&name) { Ok(()) } else { machine(&format!("{what} \"{name}\"")) }
}

/// The bounds of the tenant whose statement runs; `None`: those of the process alone.
pub fn bounds() -> Bounds {
    BOUNDS.try_with(Arc::clone).ok()
}

/// Runs a statement within the bounds of a tenant.
pub fn within<'a, T: 'a>(bounds: Bounds, work: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
    match bounds {
        Some(bounds) => BOUNDS.scope(bounds, work).boxed(),
        None => work,
    }
}

/// Runs a part of a statement, on whichever thread, within its bounds.
pub fn with<T>(bounds: Bounds, work: impl FnOnce() -> T) -> T {
    match bounds {
        Some(bounds) => BOUNDS.sync_scope(bounds, work),
        None => work(),
    }
}

impl Limits {
    /// What somebody may reach who may reach nothing.
    pub fn nothing() -> Limits {
        Limits { closed: true, ..Limits::default() }
    }

    /// What a tenant may reach. Fails when a folder is not there, or leads to `data`, the data directory of the server.
    pub fn of_tenant(roots: &[String], hosts: &[String], data: &Path) -> Result<Limits> {
        let data = data.canonicalize().unwrap_or_else(|_| data.to_path_buf());
        let real = |root: &String| -> Result<PathBuf> {
            let path = Path::new(root);
            let real = path.canonicalize().map_err(|err| Error::io("use as allow_files", path, &err))?;
            if real.starts_with(&data) || data.starts_with(&real) {
                let message = format!("allow_files cannot be {root:?}: the data of the server is there");
                return Err(Error::new(Kind::InvalidParameter, message));
            }
            Ok(real)
        };
        Ok(Limits { roots: roots.iter().map(real).collect::<Result<_>>()?, hosts: lower(hosts), closed: true })
    }

    fn path(&self, text: &str) -> Result<()> {
        if self.roots.is_empty() && !self.closed {
            return Ok(());
        }
        if self.roots.is_empty() {
            return Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied for path {text:?}"))
                .with_detail("Statements of this database may not name files.")
                .with_hint("An operator of the server can allow it: ALTER DATABASE … SET (allow_files = '/folder')."));
        }
        let refused = |why: &str| {
            let roots: Vec<String> =
                self.roots.iter().map(|root| format!("{:?}", root.display().to_string())).collect();
            Error::new(Kind::InsufficientPrivilege, format!("permission denied for path {text:?}: {why}"))
                .with_detail(format!("Paths are allowed below {}.", roots.join(", ")))
        };
        let absolute = std::path::absolute(text).map_err(|_| refused("it is no path"))?;
        let wild = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
        let fixed: PathBuf = absolute.components().take_while(|part| !wild(part)).collect();
        // The part that is there, with its links followed; nothing behind it may be a way back.
        let there = fixed.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
        let (part, real) = there.ok_or_else(|| refused("it leads nowhere"))?;
        let behind = absolute.components().skip(part.components().count());
        if behind.clone().any(|part| part == Component::ParentDir) {
            return Err(refused("it may lead out of there"));
        }
        let whole: PathBuf = real.components().chain(behind).collect();
        match self.roots.iter().any(|root| whole.starts_with(root)) {
            true => Ok(()),
            false => Err(refused("it is outside")),
        }
    }

    fn found(&self, path: &Path) -> bool {
        let inside = |real: PathBuf| self.roots.iter().any(|root| real.starts_with(root));
        (self.roots.is_empty() && !self.closed) || path.canonicalize().is_ok_and(inside)
    }

    fn location(&self, text: &str) -> Result<()> {
        match text.split_once("://") {
            None => self.path(text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => {
                // As a path with its escapes read, and as it stands: whichever way it is taken.
                let url = url::Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
                let read = url.map_or(Ok(()), |path| self.path(&path.display().to_string()));
                read.and_then(|()| self.path(rest))
            }
            Some(_) => self.hosts(text),
        }
    }

    fn hosts(&self, text: &str) -> Result<()> {
        let mut all = text.split([',', ' ', '\n', '\t']).filter(|one| !one.is_empty());
        all.try_for_each(|one| if one.starts_with('/') { self.path(one) } else { self.host(one) })
    }

    fn host(&self, text: &str) -> Result<()> {
        if self.hosts.is_empty() && !self.closed {
            return Ok(());
        }
        let host = match url::Url::parse(text).ok().filter(|_| text.contains("://")) {
            Some(url) => url.host_str().unwrap_or_default().to_ascii_lowercase(),
            None => without_port(text).to_ascii_lowercase(),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let fits = |allowed: &String| match allowed.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => host == allowed,
        };
        if self.hosts.iter().any(fits) {
            return Ok(());
        }
        let err = Error::new(Kind::InsufficientPrivilege, format!("permission denied to reach {host:?}"));
        Err(match self.hosts.is_empty() {
            false => err.with_detail(format!("Allowed are {}.", self.hosts.join(", "))),
            true => err
                .with_detail("Statements of this database may not name other machines.")
                .with_hint("An operator of the server can allow it: ALTER DATABASE … SET (allow_hosts = 'host')."),
        })
    }
}

/// `host:9092`, `[::1]:9092`, `::1`.
fn without_port(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let is_bare_v6 = host.contains(':') && !host.ends_with(']');
            if is_bare_v6 { text } else { host }
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_roots() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("logs");
        std::fs::create_dir_all(root.join("web")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("web/up")).unwrap();
        let limits = Limits { roots: vec![root.clone()], ..Limits::default() };
        let at = |text: &str| text.replace("ROOT", root.to_str().unwrap());
        for inside in [
            "ROOT",
            "ROOT/web/access.log",
            "ROOT/new/folder/*.log",
            "ROOT/web/../web/x",
            "ROOT/*/x.log",
            "ROOT/web/up/x",
            "file://ROOT/web/x",
        ] {
            limits.location(&at(inside)).unwrap_or_else(|err| panic!("{inside}: {err}"));
        }
        for outside in [
            "/etc/passwd",
            "ROOT/../other",
            "ROOT/web/../../x",
            "ROOT/new/../../x",
            "ROOT/*/../../x",
            "ROOT/link/passwd",
            "ROOT/web/up/../x",
            "ROOTS/x",
            "relative",
            "file:///etc/passwd",
            "file://ROOT/%2e%2e/x",
            "FILE:///etc/passwd",
            "",
        ] {
            let err = limits.location(&at(outside)).expect_err(outside);
            assert_eq!(err.kind(), Kind::InsufficientPrivilege, "{outside}");
        }
        Limits::default().path("/etc/passwd").unwrap();

        std::fs::write(root.join("web/a.log"), "").unwrap();
        std::os::unix::fs::symlink(root.join("web/a.log"), root.join("b.log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("c.log")).unwrap();
        let found = |name: &str| limits.found(&root.join(name));
        assert!(found("web/a.log") && found("b.log") && !found("c.log") && !found("d.log"));
        assert!(Limits::default().found(Path::new("/etc/passwd")));
    }

    #[test]
    fn hosts_are_compared_without_their_ports() {
        let hosts = vec!["kafka-1".into(), "::1".into(), "*.example.org".into()];
        let limits = Limits { hosts, ..Limits::default() };
        for allowed in [
            "kafka-1",
            "KAFKA-1:9092",
            "a.example.org",
            "https://b.example.org/x?y",
            "::1",
            "[::1]:9092",
            "kafka-1,::1",
        ] {
            limits.hosts(allowed).unwrap_or_else(|err| panic!("{allowed}: {err}"));
        }
        for refused in [
            "kafka-2",
            "example.org",
            "https://example.org.evil/",
            "http://kafka-1@evil/",
            "kafka-1, evil:1",
            "s3://bucket/x",
            "xkafka-1",
        ] {
            assert_eq!(limits.hosts(refused).expect_err(refused).kind(), Kind::InsufficientPrivilege, "{refused}");
        }
        Limits::default().hosts("anybody").unwrap();
    }

    #[tokio::test]
    async fn statements_of_tenants_have_bounds_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (data, logs) = (dir.path().join("data"), dir.path().join("logs"));
        [&data, &logs].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let root = |path: &Path| vec![path.display().to_string()];
        for wrong in [dir.path(), &data, &dir.path().join("none")] {
            Limits::of_tenant(&root(wrong), &[], &data).unwrap_err();
        }
        let nothing = Arc::new(Limits::of_tenant(&[], &[], &data).unwrap());
        let some = Arc::new(Limits::of_tenant(&root(&logs), &["example.org".to_string()], &data).unwrap());
        let file = logs.join("a.log").display().to_string();
        path(&file).unwrap();
        hosts("example.org").unwrap();
        machine("the environment").unwrap();
        let work = async {
            for refused in [path(&file), location(&file), hosts("example.org"), machine("the environment")] {
                assert_eq!(refused.unwrap_err().kind(), Kind::InsufficientPrivilege);
            }
            component("connector", "file", &["file"]).unwrap();
            component("connector", "tcp", &["file"]).unwrap_err();
            let bounds = bounds();
            tokio::task::spawn_blocking(move || with(bounds, || path("/x"))).await.unwrap().unwrap_err();
        };
        within(Some(nothing), work.boxed()).await;
        let work = async {
            path(&file).unwrap();
            hosts("EXAMPLE.org:80").unwrap();
            path("/etc/passwd").unwrap_err();
            hosts("example.com").unwrap_err();
        };
        within(Some(some), work.boxed()).await;
        path("/etc/passwd").unwrap();
    }
}
