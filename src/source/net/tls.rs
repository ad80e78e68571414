//! The options of sources that take TLS: what accepts connections with the certificate that they name.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Kind, Result};
use crate::options::Options;
use crate::tls::{self, Clients};

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
    let clients = path("tls_client_ca").map_or(Clients::Anybody, Clients::Known);
    let (mut config, _) = tls::server(cert, key, &clients)?;
    // Senders of logs do not read: closed with something unread, a connection is reset.
    config.send_tls13_tickets = 0;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
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
