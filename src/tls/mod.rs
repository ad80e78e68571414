//! Servers that speak TLS: PEM files in, rustls' settings out. An error names the file that it is about. [`certificate`]
//! looks into certificates for what rustls does not tell.

pub mod certificate;

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::{Error, Kind, Result};

/// Whose certificates clients show. The paths are PEM files of authorities.
pub enum Clients<'a> {
    /// Nobody is asked for one.
    Anybody,
    /// Only those with a certificate of the authority get in.
    Known(&'a Path),
    /// Who shows one has to show a good one.
    Perhaps(&'a Path),
}

/// The settings of a server with the certificate (and those between it and the authority) in the file `cert`, and its
/// private key in the file `key`; and that certificate. The files are read now.
pub fn server(cert: &Path, key: &Path, clients: &Clients<'_>) -> Result<(ServerConfig, CertificateDer<'static>)> {
    let chain = certificates(cert)?;
    let own = chain.first().cloned().ok_or_else(|| wrong(cert, "it holds no certificate in PEM form"))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| {
        // Without what the parser says: it might be a part of the key.
        wrong(key, "it holds no private key in PEM form")
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|err| Error::internal(format!("TLS: {err}")))?;
    let authority = match clients {
        Clients::Anybody => None,
        Clients::Known(ca) | Clients::Perhaps(ca) => Some(ca),
    };
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|err| wrong(ca, &err.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                Clients::Perhaps(_) => verifier.allow_unauthenticated(),
                Clients::Known(_) | Clients::Anybody => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|err| wrong(ca, &err.to_string()))?)
        }
    };
    let config = builder.with_single_cert(chain, private).map_err(|err| {
        let keys = key.display().to_string();
        wrong(cert, &err.to_string()).with_detail(format!("It is used with the key in {keys:?}."))
    })?;
    Ok((config, own))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(path, "it holds no certificate in PEM form")),
        Err(err) => Err(wrong(path, &err.to_string())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|err| Error::io("read", path, &err))
}

fn wrong(path: &Path, what: &str) -> Error {
    let path = path.display().to_string();
    Error::new(Kind::InvalidParameter, format!("could not use {path:?} for TLS: {what}"))
}
