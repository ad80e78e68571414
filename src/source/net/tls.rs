//! Certificates: PEM files in, what accepts TLS connections out. An error names the file that it is about.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::{Error, Kind, Result};
use crate::options::Options;

/// What accepts connections with the certificate of the options; `None` when they name none. The files are read now:
/// renewed ones take effect when the source starts again.
pub fn acceptor(options: &Options) -> Result<Option<TlsAcceptor>> {
    let path = |name: &str| options.text(name).map(Path::new);
    let (cert, key) = match (path("tls_cert"), path("tls_key")) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) if path("tls_client_ca").is_none() => return Ok(None),
        (Some(_), None) => return Err(missing("tls_key")),
        (None, Some(_) | None) => return Err(missing("tls_cert")),
    };
    let certificates = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| {
        // Without what the parser says: it might be a part of the key.
        wrong(key, "it holds no private key in PEM form")
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|err| Error::internal(format!("TLS: {err}")))?;
    let builder = match path("tls_client_ca") {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(ca)? {
                roots.add(certificate).map_err(|err| wrong(ca, &err.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|err| wrong(ca, &err.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(certificates, private).map_err(|err| {
        let keys = key.display().to_string();
        wrong(cert, &err.to_string()).with_detail(format!("It is used with the key in {keys:?}."))
    })?;
    // Senders of logs do not read: closed with something unread, a connection is reset.
    config.send_tls13_tickets = 0;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
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

fn missing(name: &str) -> Error {
    Error::new(Kind::InvalidParameter, format!("TLS needs the option \"{name}\""))
        .with_hint("Give both tls_cert and tls_key, each the path of a PEM file.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OptionSpec;
    use crate::source::net::TLS;

    fn attempt(given: &[(&str, &Path)]) -> Result<bool> {
        let given: Vec<_> = given.iter().map(|(name, path)| (name.to_string(), path.display().to_string())).collect();
        let specs: &[&[OptionSpec]] = &[TLS];
        acceptor(&Options::parse("x", specs, &given)?).map(|found| found.is_some())
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (none, empty, odd) = (dir.path().join("none"), dir.path().join("empty.pem"), dir.path().join("odd.pem"));
        std::fs::write(&empty, "").unwrap();
        std::fs::write(&odd, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(!attempt(&[]).unwrap());
        let cases = [
            (attempt(&[("tls_cert", &none), ("tls_key", &empty)]), "none\""),
            (attempt(&[("tls_cert", &empty), ("tls_key", &empty)]), "empty.pem\" for TLS: it holds no certificate"),
            (attempt(&[("tls_cert", &odd), ("tls_key", &empty)]), "odd.pem\""),
            (attempt(&[("tls_cert", &odd)]), "\"tls_key\""),
            (attempt(&[("tls_client_ca", &odd)]), "\"tls_cert\""),
        ];
        for (outcome, text) in cases {
            let err = outcome.unwrap_err();
            assert!(err.message().contains(text), "no {text} in {err}");
        }
    }
}
