//! What users can set: the tables of options that sources of sockets share, and the same in the units used here.

use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::frame::Framing;
use crate::options::{OptionKind, OptionSpec, Options};

/// Of sources that accept connections.
pub const CONNECTIONS: &[OptionSpec] = &[
    OptionSpec::optional(
        "max_connections",
        OptionKind::Integer,
        Some("1000"),
        "further connections are closed at once, and counted as errors",
    ),
    OptionSpec::optional(
        "line_timeout",
        OptionKind::Interval,
        Some("1 minute"),
        "a connection whose line is not finished after so long is closed; what has come of the line is kept",
    ),
    OptionSpec::optional(
        "read_timeout",
        OptionKind::Interval,
        None,
        "a connection from which nothing came for so long is closed; without it, silence is allowed",
    ),
    OptionSpec::optional(
        "buffer_bytes",
        OptionKind::Bytes,
        Some("64 MiB"),
        "what may have been read and not be stored yet; with as much, the sockets are not read",
    ),
];

/// Of those that take TLS.
pub const TLS: &[OptionSpec] = &[
    OptionSpec::optional(
        "tls_cert",
        OptionKind::Path,
        None,
        "PEM file with the certificate of this server, and those between it and the authority",
    ),
    OptionSpec::optional("tls_key", OptionKind::Path, None, "PEM file with the private key of the certificate"),
    OptionSpec::optional(
        "tls_client_ca",
        OptionKind::Path,
        None,
        "PEM file with authorities: only clients with a certificate of theirs are let in",
    ),
];

/// Of those that take datagrams.
pub const DATAGRAMS: &[OptionSpec] = &[
    OptionSpec::optional(
        "receive_buffer",
        OptionKind::Bytes,
        None,
        "UDP: the kernel's buffer, in which datagrams wait; by default up to 8 MiB, as far as the kernel allows",
    ),
    OptionSpec::optional(
        "max_senders",
        OptionKind::Integer,
        Some("1000"),
        "UDP: addresses told apart as partitions; with more, the one silent for longest is forgotten",
    ),
];

/// The same, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub framing: Framing,
    pub max_connections: usize,
    pub line_timeout: Duration,
    pub read_timeout: Option<Duration>,
    pub buffer_bytes: usize,
    pub max_senders: usize,
    /// `None`: as much as is useful and allowed.
    pub receive_buffer: Option<usize>,
}

/// Less would not hold one piece of each of some connections.
const MIN_BUFFER_BYTES: u64 = 1 << 20;

impl Settings {
    /// `framing`: the name of the one to use where the user chose none.
    pub fn from(options: &Options, framing: &str) -> Result<Settings> {
        let count = |name: &str| match options.integer(name) {
            Some(n) if !(1..=1_000_000).contains(&n) => Err(out_of_range(name, "from 1 to 1000000")),
            Some(n) => Ok(n as usize),
            None => Ok(1000),
        };
        let buffer_bytes = options.bytes("buffer_bytes").unwrap_or(64 << 20);
        if buffer_bytes < MIN_BUFFER_BYTES {
            return Err(out_of_range("buffer_bytes", "from 1 MiB on"));
        }
        let duration = |name: &str| options.interval(name).filter(|d| !d.is_zero());
        Ok(Settings {
            framing: Framing::from(options, framing)?,
            max_connections: count("max_connections")?,
            line_timeout: duration("line_timeout").ok_or_else(|| out_of_range("line_timeout", "above 0"))?,
            read_timeout: duration("read_timeout"),
            buffer_bytes: usize::try_from(buffer_bytes).unwrap_or(usize::MAX),
            max_senders: count("max_senders")?,
            receive_buffer: options.bytes("receive_buffer").map(|n| n.min(1 << 30) as usize),
        })
    }
}

fn out_of_range(name: &str, takes: &str) -> Error {
    Error::new(Kind::InvalidParameter, format!("option \"{name}\" takes a value {takes}"))
}
