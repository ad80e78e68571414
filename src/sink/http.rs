//! Results by HTTP: each batch is the body of one POST.
//!
//! A request carries `Idempotency-Key`, the same one whenever the same batch comes again, also after a restart: a receiver
//! that remembers keys gets every row once (draft-ietf-httpapi-idempotency-key-header). What an answer means:
//!
//! ```text
//!     2xx                       accepted
//!     408 425 429 5xx           later, not before Retry-After (RFC 9110, section 10.2.3)
//!     400 413 422               something is wrong with the rows: they are sent in smaller parts until it is found
//!     any other, none in time   tried again: the address, the credentials or the receiver have to be put right
//! ```
//!
//! Redirects are not followed: a POST would become a GET, or credentials would go elsewhere.

use std::io::Write;
use std::time::Duration;

use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::encode::{Encoding, json_array};
use super::{Batch, Delivered, Failure, Feed, Position, Sink, Spec};
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};

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
        OptionSpec::optional("headers", OptionKind::Text, None, "further headers, 'Name: value', one a line"),
        OptionSpec::optional(
            "secret_headers",
            OptionKind::Secret,
            None,
            "the same, with values that are shown nowhere",
        ),
        OptionSpec::optional(
            "compression",
            OptionKind::Choice(&["none", "gzip"]),
            Some("none"),
            "of bodies (Content-Encoding)",
        ),
        OptionSpec::optional(
            "timeout",
            OptionKind::Interval,
            Some("30 seconds"),
            "an answer must come within this time",
        ),
    ],
    formats: &["json", "csv"],
    guarantee: "at least once; once for a receiver that remembers Idempotency-Key",
    upserts: false,
    repeats: true,
    keeps_position: false,
    writes_into: None,
    build,
};

/// A connection must be there within this time.
const CONNECT: Duration = Duration::from_secs(10);

/// So much of an answer's body is read for its reason.
const REASON_BYTES: usize = 500;

fn build(options: &Options, encoding: Encoding) -> Result<Box<dyn Sink>> {
    let wrong = |what: &str| Error::new(Kind::InvalidParameter, format!("option \"url\": {what}"));
    let url = Url::parse(options.text("url").unwrap_or_default()).map_err(|err| wrong(&err.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("it begins with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not hold a name or password")
            .with_hint("Give them as authorization = 'Basic …', which is shown nowhere."));
    }
    headers(options.text("headers"), "headers")?;
    // TLS needs one; whoever came first has chosen.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let timeout = options.interval("timeout").unwrap_or(Duration::from_secs(30));
    let client = Client::builder()
        .timeout(timeout)
        .connect_timeout(CONNECT.min(timeout))
        .redirect(Policy::none())
        // `open` asks whether somebody listens at the address itself, so requests go there too, whatever HTTP_PROXY says.
        .no_proxy()
        .user_agent(concat!("logweir/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|err| Error::internal(format!("no HTTP client could be made: {err}")))?;
    Ok(Box::new(Http {
        client,
        url,
        lines: options.text("body") == Some("lines"),
        gzip: options.text("compression") == Some("gzip"),
        options: options.clone(),
        encoding,
    }))
}

struct Http {
    client: Client,
    url: Url,
    /// JSON is sent a line an object.
    lines: bool,
    gzip: bool,
    /// For the secrets, which may change.
    options: Options,
    encoding: Encoding,
}

/// `Name: value` a line.
fn headers(text: Option<&str>, option: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in text.unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
        // The line may hold a secret: it is not shown.
        let wrong = || {
            let message = format!("option \"{option}\" is not made of lines 'Name: value'");
            Error::new(Kind::InvalidParameter, message)
        };
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?);
    }
    Ok(headers)
}

impl Http {
    /// The headers of all requests, and the secrets among them.
    fn headers(&self) -> Result<(HeaderMap, Vec<String>)> {
        let mut all = headers(self.options.text("headers"), "headers")?;
        let mut secrets = Vec::new();
        if let Some(text) = self.options.secret("secret_headers")? {
            let more = headers(Some(&text), "secret_headers")?;
            secrets.extend(more.values().filter_map(|value| value.to_str().ok().map(str::to_string)));
            all.extend(more);
        }
        if let Some(text) = self.options.secret("authorization")? {
            let value = HeaderValue::from_str(&text).map_err(|_| {
                Error::new(Kind::InvalidParameter, "option \"authorization\" holds what no header may hold")
            })?;
            all.insert(AUTHORIZATION, value);
            // The scheme is none.
            secrets.push(text.split_once(' ').map_or(text.clone(), |(_, secret)| secret.to_string()));
        }
        Ok((all, secrets))
    }

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
        let (mut headers, secrets) = self.headers()?;
        let (body, content_type) = self.body(batch)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let key = HeaderValue::from_str(&format!("\"{}\"", batch.key));
        headers.insert("idempotency-key", key.map_err(|err| Error::internal(err.to_string()))?);
        let sent = self.client.post(self.url.clone()).headers(headers).body(body).send().await;
        let response = sent.map_err(|err| self.unreachable(err))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let after = retry_after(response.headers(), Utc::now());
        let err = self.answered(status, &reason(response, &secrets).await);
        Err(match status.as_u16() {
            400 | 413 | 422 => Failure::Refused(err),
            // What all requests have in common; no row is at fault.
            415 => Failure::Again(err.with_hint("Look at the options body and compression, and at FORMAT."), after),
            _ => Failure::Again(err, after),
        })
    }

    /// Where it goes, without what stands behind a question mark: that may be a token.
    fn place(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }

    fn unreachable(&self, err: reqwest::Error) -> Error {
        let err = err.without_url();
        let mut why = err.to_string();
        let mut cause = std::error::Error::source(&err);
        while let Some(err) = cause {
            why = format!("{why}: {err}");
            cause = err.source();
        }
        Error::new(Kind::Io, format!("could not POST to {}: {why}", self.place()))
    }

    fn answered(&self, status: StatusCode, reason: &str) -> Error {
        let err = Error::new(Kind::Io, format!("{} answered {status}", self.place()));
        let err = if reason.is_empty() { err } else { err.with_detail(reason.to_string()) };
        match status.as_u16() {
            401 | 403 => err.with_hint("Check the option authorization."),
            300..=399 => err.with_hint("Redirects are not followed: give the address that it leads to."),
            404 | 405 => err.with_hint("Check the option url."),
            _ => err,
        }
    }
}

/// The beginning of an answer's body, on one line and without secrets that it repeats.
async fn reason(mut response: Response, secrets: &[String]) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= REASON_BYTES {
            break;
        }
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    let text: String = text.chars().take(REASON_BYTES).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_string()
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?.with_timezone(&Utc);
    (until - now).to_std().ok()
}

impl Sink for Http {
    /// Asks nothing but whether somebody listens: no request would be without effect for every receiver.
    fn open<'a>(&'a mut self, _: &'a Feed, known: Position) -> BoxFuture<'a, Delivered<Position>> {
        Box::pin(async move {
            self.headers()?;
            let port = self.url.port_or_known_default().unwrap_or(80);
            let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string();
            let failed = |why: String| Error::new(Kind::Io, format!("could not connect to {}: {why}", self.place()));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, &str)]) -> Options {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Options::parse("connector \"http\"", &[SPEC.options], &given).unwrap()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().with_timezone(&Utc);
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Thu, 01 Jan 2026 00:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(of("Wed, 31 Dec 2025 00:01:00 GMT"), None, "it is over");
        assert_eq!(of("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn headers_are_lines_and_secrets_are_not_in_errors() {
        let found = headers(Some("X-A: 1\n\n x-b : two: three \n"), "headers").unwrap();
        assert_eq!((found["x-a"].to_str().unwrap(), found["x-b"].to_str().unwrap()), ("1", "two: three"));
        let err = headers(Some("hunter2"), "secret_headers").unwrap_err().to_string();
        assert!(err.contains("secret_headers") && !err.contains("hunter2"), "{err}");
    }

    #[test]
    fn addresses_with_credentials_are_refused() {
        for (url, expected) in [
            ("ftp://x/", "begins with http"),
            ("x", "relative URL"),
            ("http://me:hunter2@x/", "must not hold a name or password"),
        ] {
            let err = build(&options(&[("url", url)]), Encoding::Json).err().unwrap();
            assert!(err.message().contains(expected) && !err.to_string().contains("hunter2"), "{err}");
        }
    }
}
