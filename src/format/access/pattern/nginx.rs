//! Patterns of nginx's `log_format` (nginx manual, ngx_http_log_module and the "Embedded Variables" of the others).
//!
//! Variables are columns under their own names, except those that `combined` has too: they are called as there. A name
//! that is none of nginx's is a variable of the user's own (`map`, `set`), unless it is nearly one of them.

use arrow::datatypes::DataType;

use super::field::{Kind, Piece, Token};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::options::nearest;

const INT: Kind = Kind::Number(DataType::Int32);
const BIGINT: Kind = Kind::Number(DataType::Int64);
const DOUBLE: Kind = Kind::Number(DataType::Float64);

/// Variables that are not text, or whose column is called otherwise.
const VARIABLES: &[(&str, &str, Kind)] = &[
    ("remote_addr", "client", Kind::Address),
    ("remote_user", "remote_user", Kind::Text),
    ("time_local", "ts", Kind::Time(Piece::Clf)),
    ("time_iso8601", "ts", Kind::Time(Piece::Iso)),
    ("msec", "ts", Kind::Time(Piece::Epoch(1))),
    ("request", "request", Kind::Request),
    ("request_method", "method", Kind::Text),
    ("request_uri", "path", Kind::Path),
    ("server_protocol", "protocol", Kind::Text),
    ("status", "status", Kind::Status),
    ("body_bytes_sent", "bytes", BIGINT),
    ("http_referer", "referer", Kind::Text),
    ("http_user_agent", "user_agent", Kind::Text),
    ("uri", "uri", Kind::Path),
    ("document_uri", "uri", Kind::Path),
    ("args", "query", Kind::Query),
    ("query_string", "query", Kind::Query),
    ("is_args", "is_args", Kind::Query),
    ("bytes_sent", "bytes_sent", BIGINT),
    ("bytes_received", "bytes_received", BIGINT),
    ("connection", "connection", BIGINT),
    ("connection_requests", "connection_requests", BIGINT),
    ("connection_time", "connection_time", DOUBLE),
    ("content_length", "content_length", BIGINT),
    ("gzip_ratio", "gzip_ratio", DOUBLE),
    ("pid", "pid", BIGINT),
    ("proxy_protocol_addr", "proxy_protocol_addr", Kind::Address),
    ("realip_remote_addr", "realip_remote_addr", Kind::Address),
    ("remote_port", "remote_port", INT),
    ("request_length", "request_length", BIGINT),
    ("request_time", "request_time", DOUBLE),
    ("server_addr", "server_addr", Kind::Address),
    ("server_port", "server_port", INT),
    ("session_time", "session_time", DOUBLE),
    ("tcpinfo_rtt", "tcpinfo_rtt", BIGINT),
    ("tcpinfo_rttvar", "tcpinfo_rttvar", BIGINT),
];

/// Text under its own name.
const TEXTS: &[&str] = &[
    "binary_remote_addr",
    "content_type",
    "date_gmt",
    "date_local",
    "document_root",
    "host",
    "hostname",
    "http2",
    "http3",
    "https",
    "limit_conn_status",
    "limit_req_status",
    "nginx_version",
    "pipe",
    "protocol",
    "proxy_add_x_forwarded_for",
    "proxy_host",
    "proxy_port",
    "realpath_root",
    "request_body",
    "request_completion",
    "request_filename",
    "request_id",
    "scheme",
    "server_name",
];

/// Names that begin so may end as they like.
const FAMILIES: &[&str] =
    &["http_", "sent_http_", "sent_trailer_", "upstream_", "ssl_", "cookie_", "arg_", "geoip_", "geoip2_", "jwt_"];

/// The pieces of a pattern.
pub fn tokens(pattern: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('$') {
        tokens.push(Token::Text(rest.as_bytes()[..at].to_vec()));
        let inside = &rest[at + 1..];
        let (name, after) = match inside.strip_prefix('{') {
            Some(inside) => inside.split_once('}').ok_or_else(|| {
                Error::new(ErrorKind::InvalidParameter, format!("\"{}\" has no closing brace", &rest[at..]))
            })?,
            None => inside.split_at(inside.find(|c| !is_name(c)).unwrap_or(inside.len())),
        };
        if name.is_empty() {
            tokens.push(Token::Text(b"$".to_vec()));
        } else {
            let name = name.to_ascii_lowercase();
            let (column, kind) = variable(&name)?;
            tokens.push(Token::field(format!("${name}"), column, kind));
        }
        rest = after;
    }
    tokens.push(Token::Text(rest.as_bytes().to_vec()));
    Ok(tokens)
}

/// What a name of a variable is made of.
pub fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn variable(name: &str) -> Result<(String, Kind)> {
    if let Some((_, column, kind)) = VARIABLES.iter().find(|(variable, _, _)| *variable == name) {
        return Ok((column.to_string(), kind.clone()));
    }
    if TEXTS.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family)) {
        return Ok((name.to_string(), Kind::Text));
    }
    let known = VARIABLES.iter().map(|(variable, _, _)| *variable).chain(TEXTS.iter().copied());
    match nearest(name, known) {
        Some(near) => {
            let message = format!("unknown variable \"${name}\" in the pattern; did you mean \"${near}\"?");
            Err(Error::new(ErrorKind::InvalidParameter, message)
                .with_hint("A variable of your own may be written here under any other name, which its column gets."))
        }
        None => Ok((name.to_string(), Kind::Text)),
    }
}
