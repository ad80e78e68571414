//! Syslog from other machines: over UDP (RFC 5426), TCP (RFC 6587) or TLS (RFC 5425). What a message says is for
//! `FORMAT SYSLOG`; here it is only told where each begins and ends.
//!
//! Syslog has no acknowledgements: what the kernel has taken from a sender and we have not read is lost when the
//! server is killed; over UDP also what did not fit into the kernel's buffer, which is counted. See
//! [`net`](super::net).

use super::net::{self, CONNECTIONS, Connections, DATAGRAMS, Datagrams, Listener, Settings};
use super::{Source, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::{self, framing_option};
use crate::options::{OptionKind, OptionSpec, Options, join};

pub static SPEC: Spec = Spec {
    name: "syslog",
    summary: "syslog messages over UDP, TCP or TLS, as rsyslog, syslog-ng, logger and network devices send them",
    options: OPTIONS,
    // Listening says all there is to say.
    check: None,
    build,
};

static OPTIONS: &[OptionSpec] = &join::<{ SOCKET.len() + frame::OPTIONS.len() }>(SOCKET, frame::OPTIONS);

const SOCKET: &[OptionSpec] = &join::<{ LISTEN.len() + net::TLS.len() }>(LISTEN, net::TLS);

const LISTEN: &[OptionSpec] = &join::<{ BOTH.len() + CONNECTIONS.len() }>(BOTH, CONNECTIONS);

const BOTH: &[OptionSpec] = &join::<{ OWN.len() + DATAGRAMS.len() }>(OWN, DATAGRAMS);

const OWN: &[OptionSpec] = &[
    OptionSpec::required("address", OptionKind::Text, "where to listen, HOST:PORT; port 0 is any free one"),
    OptionSpec::optional(
        "transport",
        OptionKind::Choice(&["udp", "tcp", "tls"]),
        Some("udp"),
        "how messages come; for 'tls' give tls_cert and tls_key",
    ),
    framing_option(
        &["syslog", "octet_counted", "newline", "nul", "multiline"],
        "how messages are told apart in a connection; a datagram is always one message",
    ),
];

fn build(options: &Options) -> Result<Box<dyn Source>> {
    let address = options.text("address").unwrap_or_default();
    let transport = options.text("transport").unwrap_or_default();
    if transport == "udp" {
        let settings = Settings::from(options, "message")?;
        if options.text("framing").is_some() || settings.framing.rule.is_some() {
            return Err(Error::new(Kind::InvalidParameter, "over UDP each datagram is one message")
                .with_hint("Leave out the options of framing, or take transport = 'tcp'."));
        }
        return Ok(Box::new(Datagrams::bind(address, settings)?));
    }
    let settings = Settings::from(options, "syslog")?;
    let tls = net::acceptor(options)?;
    match (transport, &tls) {
        ("tls", None) => {
            return Err(Error::new(Kind::InvalidParameter, "transport \"tls\" needs the options tls_cert and tls_key")
                .with_hint("Each is the path of a PEM file."));
        }
        ("tcp", Some(_)) => {
            return Err(Error::new(Kind::InvalidParameter, "a certificate is given, and the transport is \"tcp\"")
                .with_hint("Write transport = 'tls'."));
        }
        _ => {}
    }
    Ok(Box::new(Connections::new(Listener::tcp(address)?, tls, settings)?))
}
