//! The certificate of both doors, and its renewal: read again on SIGHUP, and when one of its files has changed. Connections
//! that are open stay as they are; what cannot be read leaves the old certificate in place, with a warning.

use std::fmt;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::tls::{self, Clients, certificate};

/// How often the files are looked at. Certificates are renewed days before they end.
const LOOK: Duration = Duration::from_secs(10);

/// What clients of each door name as their protocol where they begin with TLS at once (RFC 7301).
const POSTGRES: &[u8] = b"postgresql";
const HTTP: &[u8] = b"http/1.1";

/// Where certificates are, and whether they have to be used.
#[derive(Debug, Clone)]
pub struct Settings {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Authority of clients that may show a certificate.
    pub client_ca: Option<PathBuf>,
    /// Nothing is said in clear.
    pub required: bool,
}

/// See the file header.
pub struct Tls {
    settings: Settings,
    current: RwLock<Arc<Current>>,
    /// Of the files when they were read first.
    first: Stamps,
}

/// When each file was changed (seconds, nanoseconds), and how long it is; `None`: it is not there.
type Stamps = Vec<Option<(i64, i64, u64)>>;

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.settings)
    }
}

/// What connections begin with.
pub struct Current {
    pub postgres: TlsAcceptor,
    pub http: TlsAcceptor,
    /// By which a client may bind its login to the certificate.
    pub end_point: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    pub fn load(settings: Settings) -> Result<Arc<Tls>> {
        let first = stamps(&settings);
        let current = RwLock::new(Arc::new(read(&settings)?));
        Ok(Arc::new(Tls { settings, current, first }))
    }

    /// For a connection that begins now.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    pub fn required(&self) -> bool {
        self.settings.required
    }

    /// Hears signals from now on; the future reads the files again whenever that is due, until `shutdown`.
    pub fn watch(self: &Arc<Self>, shutdown: CancellationToken) -> Result<impl Future<Output = ()> + use<>> {
        let hangup = signal(SignalKind::hangup());
        let mut hangup = hangup.map_err(|err| Error::internal(format!("could not wait for signals: {err}")))?;
        let tls = Arc::clone(self);
        Ok(async move {
            let mut seen = tls.first.clone();
            let mut clock = tokio::time::interval(LOOK);
            clock.tick().await;
            loop {
                let asked = tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = hangup.recv() => true,
                    _ = clock.tick() => false,
                };
                let settings = tls.settings.clone();
                let now = tokio::task::spawn_blocking(move || stamps(&settings)).await.unwrap_or_default();
                if asked || now != seen {
                    seen = now;
                    tls.renew().await;
                }
            }
        })
    }

    async fn renew(&self) {
        let settings = self.settings.clone();
        let read = tokio::task::spawn_blocking(move || read(&settings)).await;
        match read.unwrap_or_else(|err| Err(Error::internal(err.to_string()))) {
            Ok(current) => {
                *self.current.write() = Arc::new(current);
                tracing::info!(cert = %self.settings.cert.display(), "the certificate was read again");
            }
            Err(err) => tracing::warn!(error = %err, "the certificate could not be read again: the old one stays"),
        }
    }
}

fn stamps(Settings { cert, key, client_ca, .. }: &Settings) -> Stamps {
    let stamp = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.len()))
    };
    [Some(cert), Some(key), client_ca.as_ref()].into_iter().flatten().map(stamp).collect()
}

fn read(settings: &Settings) -> Result<Current> {
    let clients = settings.client_ca.as_deref().map_or(Clients::Anybody, Clients::Perhaps);
    let (config, own) = tls::server(&settings.cert, &settings.key, &clients)?;
    let acceptor = |protocol: &[u8]| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    };
    Ok(Current { postgres: acceptor(POSTGRES), http: acceptor(HTTP), end_point: certificate::end_point(&own) })
}
