//! What goes out to others, for sinks and notifiers: requests by HTTP (where to, with which credentials, what an answer
//! means), and why something was not taken.
//!
//! ```text
//!     2xx                       accepted
//!     408 425 429 5xx           later, not before Retry-After (RFC 9110, section 10.2.3)
//!     400 413 422               something is wrong with the body: it never will be
//!     any other, none in time   tried again: the address, the credentials or the receiver have to be put right
//! ```
//!
//! Redirects are not followed: a POST would become a GET, or credentials would go elsewhere. Errors hold no secrets: neither
//! those of options, nor what stands behind the question mark of an address.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::reach;

/// A connection must be there within this time.
pub const CONNECT: Duration = Duration::from_secs(10);

/// So much of an answer's body is read for its reason.
const REASON_BYTES: usize = 500;

/// Options that [`Target`] reads, for the tables of those who have one.
pub const HEADERS: OptionSpec =
    OptionSpec::optional("headers", OptionKind::Text, None, "further headers, 'Name: value', one a line");
pub const SECRET_HEADERS: OptionSpec =
    OptionSpec::optional("secret_headers", OptionKind::Secret, None, "the same, with values that are shown nowhere");

/// The option `timeout`, which [`Target`] reads too.
pub const fn timeout(default: &'static str) -> OptionSpec {
    OptionSpec::optional("timeout", OptionKind::Interval, Some(default), "an answer must come within this time")
}

/// Another server, from the options `authorization`, `headers`, `secret_headers` and `timeout`.
pub struct Target {
    client: Client,
    /// For the secrets, which may change.
    options: Options,
}

/// Why a request was not accepted.
#[derive(Debug)]
pub struct Rejected {
    pub err: Error,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// So long the other side wants us to wait.
    pub after: Option<Duration>,
}

impl From<Error> for Rejected {
    fn from(err: Error) -> Rejected {
        Rejected { err, status: None, after: None }
    }
}

impl Rejected {
    /// Whether it is the body that is at fault.
    pub fn is_for_good(&self) -> bool {
        matches!(self.status, Some(400 | 413 | 422))
    }
}

/// Why the other side of a sink or a notifier did not take a batch or a message.
#[derive(Debug)]
pub enum Failure {
    /// It may be later; not before this time if the other side has said so.
    Again(Error, Option<Duration>),
    /// It never will be: something is wrong with what it is.
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Failure {
        Failure::Again(err, None)
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Failure {
        if rejected.is_for_good() {
            Failure::Refused(rejected.err)
        } else {
            Failure::Again(rejected.err, rejected.after)
        }
    }
}

/// An address of the web without credentials.
pub fn url_of(text: &str, option: &str) -> Result<Url> {
    let wrong = |what: &str| Error::new(Kind::InvalidParameter, format!("option \"{option}\": {what}"));
    let url = Url::parse(text).map_err(|err| wrong(&err.to_string()))?;
    reach::hosts(url.host_str().unwrap_or_default())?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("it begins with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not hold a name or password")
            .with_hint("Give them as authorization = 'Basic …', which is shown nowhere."));
    }
    Ok(url)
}

impl Target {
    pub fn new(options: &Options) -> Result<Target> {
        headers(options.text("headers"), "headers")?;
        // TLS needs one; whoever came first has chosen.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let timeout = options.interval("timeout").unwrap_or(Duration::from_secs(30));
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(CONNECT.min(timeout))
            .redirect(Policy::none())
            // A sink asks whether somebody listens at the address itself, so requests go there too, whatever HTTP_PROXY says.
            .no_proxy()
            .user_agent(concat!("logweir/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|err| Error::internal(format!("no HTTP client could be made: {err}")))?;
        Ok(Target { client, options: options.clone() })
    }

    /// The headers of all requests, and the secrets among them.
    pub fn headers(&self) -> Result<(HeaderMap, Vec<String>)> {
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

    /// POSTs a body with these headers and those of the options. `place` is what errors call the address.
    pub async fn post(&self, url: &Url, place: &str, more: HeaderMap, body: Vec<u8>) -> Result<(), Rejected> {
        let (mut headers, secrets) = self.headers()?;
        headers.extend(more);
        let sent = self.client.post(url.clone()).headers(headers).body(body).send().await;
        let response = sent.map_err(|err| unreachable(err, place))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let after = retry_after(response.headers(), Utc::now());
        let err = answered(place, status, &reason(response, &secrets).await);
        Err(Rejected { err, status: Some(status.as_u16()), after })
    }
}

/// An address without what stands behind a question mark: that may be a token.
pub fn place_of(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
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

fn unreachable(err: reqwest::Error, place: &str) -> Error {
    let err = err.without_url();
    let mut why = err.to_string();
    let mut cause = std::error::Error::source(&err);
    while let Some(err) = cause {
        why = format!("{why}: {err}");
        cause = err.source();
    }
    Error::new(Kind::Io, format!("could not POST to {place}: {why}"))
}

fn answered(place: &str, status: StatusCode, reason: &str) -> Error {
    let err = Error::new(Kind::Io, format!("{place} answered {status}"));
    let err = if reason.is_empty() { err } else { err.with_detail(reason.to_string()) };
    match status.as_u16() {
        401 | 403 => err.with_hint("Check the option authorization."),
        300..=399 => err.with_hint("Redirects are not followed: give the address that it leads to."),
        404 | 405 => err.with_hint("Check the option url."),
        _ => err,
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

#[cfg(test)]
mod tests {
    use super::*;

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
            let err = url_of(url, "url").unwrap_err();
            assert!(err.message().contains(expected) && !err.to_string().contains("hunter2"), "{err}");
        }
    }
}
