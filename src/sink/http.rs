//! Results by HTTP: each batch is the body of one POST.
//!
//! A request carries `Idempotency-Key`, the same one whenever the same batch comes again, also after a restart: a receiver
//! that remembers keys gets every row once (draft-ietf-httpapi-idempotency-key-header). What an answer means is said in
//! `outgoing.rs`; when something is wrong with the rows they are sent in smaller parts until it is found.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::BoxFuture;
use reqwest::Url;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::encode::{Encoding, json_array};
use super::{Batch, Delivered, Failure, Feed, Position, Sink, Spec};
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::outgoing::{CONNECT, HEADERS, SECRET_HEADERS, Target, place_of, timeout, url_of};

pub static SPEC: Spec = Spec {
    name: "http",
    summary: "batches by POST, with a key that tells repeated ones",
    options: &[
        OptionSpec::required("url", OptionKind::Text, "where to POST: http:// or https://"),
        OptionSpec::optional(
            "body",
            OptionKind::Choice(&["array", "lines"]),
            Some("array"),
            "JSON as one array or one object a line (application/x-ndjson)",
        ),
        OptionSpec::optional(
            "authorization",
            OptionKind::Secret,
            None,
            "the header Authorization, such as 'Bearer …', or where it is kept: '${ENV:NAME}', '${FILE:/path}'",
        ),
        HEADERS,
        SECRET_HEADERS,
        OptionSpec::optional(
            "compression",
            OptionKind::Choice(&["none", "gzip"]),
            Some("none"),
            "of bodies (Content-Encoding)",
        ),
        timeout("30 seconds"),
    ],
    formats: &["json", "csv"],
    guarantee: "at least once; once for a receiver that remembers Idempotency-Key",
    upserts: false,
    repeats: true,
    keeps_position: false,
    writes_into: None,
    build,
};

fn build(options: &Options, encoding: Encoding) -> Result<Box<dyn Sink>> {
    Ok(Box::new(Http {
        target: Target::new(options)?,
        url: url_of(options.text("url").unwrap_or_default(), "url")?,
        lines: options.text("body") == Some("lines"),
        gzip: options.text("compression") == Some("gzip"),
        encoding,
    }))
}

struct Http {
    target: Target,
    url: Url,
    /// JSON is sent a line an object.
    lines: bool,
    gzip: bool,
    encoding: Encoding,
}

impl Http {
    fn body(&self, batch: &Batch) -> Result<(Vec<u8>, &'static str)> {
        let (body, content_type) = match (&self.encoding, self.lines) {
            (Encoding::Json, false) => (json_array(&batch.rows)?, "application/json"),
            (Encoding::Json, true) => (Encoding::Json.lines(&batch.rows, true)?, "application/x-ndjson"),
            (other, _) => (other.lines(&batch.rows, true)?, "text/csv"),
        };
        if !self.gzip {
            return Ok((body, content_type));
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = packed.write_all(&body).and_then(|()| packed.finish());
        Ok((packed.map_err(|err| Error::internal(format!("gzip: {err}")))?, content_type))
    }

    async fn post(&self, batch: &Batch) -> Delivered<()> {
        let (body, content_type) = self.body(batch)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let key = HeaderValue::from_str(&format!("\"{}\"", batch.key));
        headers.insert("idempotency-key", key.map_err(|err| Error::internal(err.to_string()))?);
        let sent = self.target.post(&self.url, &place_of(&self.url), headers, body).await;
        sent.map_err(|rejected| match rejected.status {
            // What all requests have in common; no row is at fault.
            Some(415) => {
                let err = rejected.err.with_hint("Look at the options body and compression, and at FORMAT.");
                Failure::Again(err, rejected.after)
            }
            Some(_) | None => rejected.into(),
        })
    }
}

impl Sink for Http {
    /// Asks nothing but whether somebody listens: no request would be without effect for every receiver.
    fn open<'a>(&'a mut self, _: &'a Feed, known: Position) -> BoxFuture<'a, Delivered<Position>> {
        Box::pin(async move {
            self.target.headers()?;
            let port = self.url.port_or_known_default().unwrap_or(80);
            let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string();
            let failed =
                |why: String| Error::new(Kind::Io, format!("could not connect to {}: {why}", place_of(&self.url)));
            let connected = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect((host, port))).await;
            match connected {
                Ok(Ok(_)) => Ok(known),
                Ok(Err(err)) => Err(failed(err.to_string()).into()),
                Err(_) => Err(failed("no answer in time".into()).into()),
            }
        })
    }

    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Delivered<Option<Position>>> {
        Box::pin(async move {
            if batch.rows.num_rows() > 0 {
                self.post(batch).await?;
            }
            Ok(batch.upto)
        })
    }
}
