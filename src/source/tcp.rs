//! Lines over TCP, or over TLS when there is a certificate: what `nc`, Logstash, log4j's socket appender and many
//! shippers send. Nobody is told what was stored: see [`net`](super::net) for what that means.

use super::net::{self, CONNECTIONS, Connections, Listener, Settings};
use super::{Source, Spec};
use crate::error::Result;
use crate::frame::{self, framing_option};
use crate::options::{OptionKind, OptionSpec, Options, join};

pub static SPEC: Spec = Spec {
    name: "tcp",
    summary: "lines (or records in another framing) over TCP, or over TLS with tls_cert and tls_key",
    options: OPTIONS,
    // Listening says all there is to say.
    check: None,
    build,
};

static OPTIONS: &[OptionSpec] = &join::<{ SOCKET.len() + frame::OPTIONS.len() }>(SOCKET, frame::OPTIONS);

const SOCKET: &[OptionSpec] = &join::<{ LISTEN.len() + net::TLS.len() }>(LISTEN, net::TLS);

const LISTEN: &[OptionSpec] = &join::<{ OWN.len() + CONNECTIONS.len() }>(OWN, CONNECTIONS);

const OWN: &[OptionSpec] = &[
    OptionSpec::required("address", OptionKind::Text, "where to listen, HOST:PORT; port 0 is any free one"),
    framing_option(&["newline", "multiline", "nul", "octet_counted"], "how records are told apart"),
];

fn build(options: &Options) -> Result<Box<dyn Source>> {
    let settings = Settings::from(options, "newline")?;
    let tls = net::acceptor(options)?;
    let listener = Listener::tcp(options.text("address").unwrap_or_default())?;
    Ok(Box::new(Connections::new(listener, tls, settings)?))
}
