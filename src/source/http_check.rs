//! Whether web sites answer: each URL is asked every so often, and each answer, or that there was none, is a row, as a line of
//! JSON for `FORMAT JSON`:
//!
//! ```text
//!     {"ts": "2026-01-31T12:00:00.000000Z", "url": "https://example.org/", "ok": true, "status": 200, "latency_ms": 41.7,
//!      "bytes": 1256, "error": ""}
//!     {"ts": …, "url": …, "ok": false, "status": 0, "latency_ms": 10000.4, "bytes": 0, "error": "timed out"}
//! ```
//!
//! `ts` is when it was asked, `latency_ms` the time until the whole answer had come; `ok` is a status below 400 and, if
//! `contains` is given, a body with that text in it. No field is ever missing, so that all columns are known with the first
//! row.
//!
//! A thread asks, all URLs at the same time, and hands over through a bounded queue; what does not fit, because the stream
//! has not taken anything in for long, is counted as lost. Positions have no key: what was not asked then cannot be asked now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method, Url};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Partition, Polled, Source, Spec, Waker};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::position::{Position, Unit};
use crate::time::{Clock, Micros};

pub static SPEC: Spec = Spec {
    name: "http_check",
    summary: "whether web sites answer: a row for each request, with status, latency and error; for FORMAT JSON",
    options: &[
        OptionSpec::required("url", OptionKind::Hosts, "what to ask, http:// or https://; several separated by blanks"),
        OptionSpec::optional("every", OptionKind::Interval, Some("30 seconds"), "the time between two requests"),
        OptionSpec::optional("timeout", OptionKind::Interval, Some("10 seconds"), "the answer must be there by then"),
        OptionSpec::optional("method", OptionKind::Choice(&["GET", "HEAD"]), Some("GET"), "how it is asked"),
        OptionSpec::optional("contains", OptionKind::Text, None, "a text that the body must have in it"),
        OptionSpec::optional(
            "authorization",
            OptionKind::Secret,
            None,
            "the header Authorization, such as 'Bearer …', or where it is kept: '${ENV:NAME}', '${FILE:/path}'",
        ),
    ],
    check: None,
    build: |options| Ok(Box::new(HttpCheck::open(options, Clock::system())?)),
};

const SHORTEST: Duration = Duration::from_millis(100);

/// Most URLs of a source; all are asked at once.
const MOST_URLS: usize = 100;

/// Results that may wait for the driver.
const WAITING: usize = 1024;

/// So much of a body is read; sizes beyond it are not known.
const MOST_BYTES: usize = 1 << 20;

/// See the file header.
struct HttpCheck {
    // Fixed.
    checks: Arc<Checks>,
    shared: Arc<Shared>,

    // State.
    results: Option<Receiver<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
    stop: CancellationToken,
    handed: u64,
    marked: Option<u64>,
}

/// What is asked, and how.
struct Checks {
    urls: Vec<Url>,
    every: Duration,
    timeout: Duration,
    method: Method,
    contains: Option<String>,
    options: Options,
    clock: Clock,
}

#[derive(Default)]
struct Shared {
    waker: Mutex<Option<Waker>>,
    /// Results that were put into the queue, and that found it full.
    sent: AtomicU64,
    lost: AtomicU64,
}

impl HttpCheck {
    fn open(options: &Options, clock: Clock) -> Result<HttpCheck> {
        let wrong = |message: String| Error::new(Kind::InvalidParameter, message);
        let mut urls = Vec::new();
        for text in options.text("url").unwrap_or_default().split_whitespace() {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            let url =
                url.ok_or_else(|| wrong("option \"url\" takes addresses with http:// or https://".to_string()))?;
            // They would be shown in every row.
            if !url.username().is_empty() || url.password().is_some() {
                return Err(wrong("option \"url\" takes no user and password".to_string())
                    .with_hint("Give them as option authorization: 'Basic …'."));
            }
            urls.push(url);
        }
        if urls.is_empty() || urls.len() > MOST_URLS {
            return Err(wrong(format!("option \"url\" takes 1 to {MOST_URLS} addresses, not {}", urls.len())));
        }
        let interval = |name: &str| {
            let interval = options.interval(name).unwrap_or_default();
            if interval >= SHORTEST {
                Ok(interval)
            } else {
                Err(wrong(format!("option \"{name}\" takes 100 milliseconds or more")))
            }
        };
        let checks = Checks {
            urls,
            every: interval("every")?,
            timeout: interval("timeout")?,
            method: if options.text("method") == Some("HEAD") { Method::HEAD } else { Method::GET },
            contains: options.text("contains").map(str::to_string),
            options: options.clone(),
            clock,
        };
        Ok(HttpCheck {
            checks: Arc::new(checks),
            shared: Arc::default(),
            results: None,
            thread: None,
            stop: CancellationToken::new(),
            handed: 0,
            marked: None,
        })
    }
}

impl Drop for HttpCheck {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It panicked: a bug, which the log tells already.
            let _ = thread.join();
        }
    }
}

/// What came of one request.
struct Found {
    status: u16,
    bytes: u64,
    error: String,
}

impl Checks {
    fn client(&self) -> Result<Client> {
        // TLS needs one; whoever came first has chosen.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        // Each request connects anew: that the site can be reached is part of the question.
        let made = Client::builder()
            .timeout(self.timeout)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("logweir/", env!("CARGO_PKG_VERSION")))
            .build();
        made.map_err(|err| Error::internal(format!("no HTTP client could be made: {err}")))
    }

    /// The thread: asks in turns until it is told to stop. A turn that takes longer than the time between two has the next
    /// one begin late.
    async fn run(&self, client: &Client, shared: &Shared, results: &SyncSender<Vec<u8>>) {
        let mut turn = tokio::time::interval(self.every);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            let mut asked: FuturesUnordered<_> = self.urls.iter().map(|url| self.ask(client, url)).collect();
            while let Some(line) = asked.next().await {
                match results.try_send(line) {
                    Ok(()) => shared.sent.fetch_add(1, Ordering::SeqCst),
                    Err(_) => shared.lost.fetch_add(1, Ordering::SeqCst),
                };
                if let Some(waker) = &*shared.waker.lock() {
                    waker.wake();
                }
            }
        }
    }

    /// Asks one of them; gives the row.
    async fn ask(&self, client: &Client, url: &Url) -> Vec<u8> {
        let (at, begun) = (self.clock.now(), Instant::now());
        let found = match self.answer(client, url).await {
            Ok(found) => found,
            Err(error) => Found { status: 0, bytes: 0, error },
        };
        row(at, url, begun.elapsed(), &found)
    }

    async fn answer(&self, client: &Client, url: &Url) -> Result<Found, String> {
        let mut request = client.request(self.method.clone(), url.clone());
        match self.options.secret("authorization") {
            Ok(Some(value)) => request = request.header(AUTHORIZATION, value),
            Ok(None) => {}
            Err(err) => return Err(err.message().to_string()),
        }
        let mut answer = request.send().await.map_err(|err| reason(&err))?;
        let status = answer.status().as_u16();
        let (mut body, mut bytes) = (Vec::new(), 0u64);
        while let Some(piece) = answer.chunk().await.map_err(|err| reason(&err))? {
            bytes += piece.len() as u64;
            body.extend_from_slice(&piece);
            if body.len() >= MOST_BYTES {
                break;
            }
        }
        let lacks = self.contains.as_ref().filter(|text| memchr::memmem::find(&body, text.as_bytes()).is_none());
        let error = match lacks {
            _ if status >= 400 => format!("status {status}"),
            Some(text) => format!("the body does not contain \"{text}\""),
            None => String::new(),
        };
        Ok(Found { status, bytes, error })
    }
}

/// What is wrong at the bottom of it, without the URL.
fn reason(err: &reqwest::Error) -> String {
    if err.is_timeout() {
        return "timed out".to_string();
    }
    let mut cause: &dyn std::error::Error = err;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

fn row(at: Micros, url: &Url, latency: Duration, found: &Found) -> Vec<u8> {
    let ts = DateTime::<Utc>::from_timestamp_micros(at).unwrap_or_default();
    let row = json!({
        "ts": ts.to_rfc3339_opts(SecondsFormat::Micros, true),
        "url": url.as_str(),
        "ok": found.error.is_empty(),
        "status": found.status,
        "latency_ms": latency.as_micros() as f64 / 1000.0,
        "bytes": found.bytes,
        "error": found.error,
    });
    let mut line = row.to_string().into_bytes();
    line.push(b'\n');
    line
}

impl Source for HttpCheck {
    fn set_waker(&mut self, waker: Waker) {
        *self.shared.waker.lock() = Some(waker);
    }

    fn resume(&mut self, _: Vec<Position>) -> Result<()> {
        let failed = |err: std::io::Error| Error::new(Kind::ResourceLimit, format!("could not start a thread: {err}"));
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (results, taken) = sync_channel(WAITING);
        let (checks, shared, stop) = (Arc::clone(&self.checks), Arc::clone(&self.shared), self.stop.clone());
        let client = checks.client()?;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = checks.run(&client, &shared, &results) => {}
                }
            });
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        };
        self.thread = Some(std::thread::Builder::new().name("http_check".to_string()).spawn(run).map_err(failed)?);
        self.results = Some(taken);
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let mut lines = Vec::new();
        let mut count = 0;
        loop {
            match self.results.as_ref().map_or(Err(TryRecvError::Empty), Receiver::try_recv) {
                Ok(line) => {
                    lines.extend_from_slice(&line);
                    count += 1;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if count > 0 => break,
                Err(TryRecvError::Disconnected) => return Err(Error::internal("the thread that asks has ended")),
            }
        }
        if count == 0 {
            return Ok(Polled::Idle);
        }
        let start = self.handed;
        self.handed += count;
        let position = Position {
            partition: "checks".to_string(),
            key: String::new(),
            start,
            end: self.handed,
            unit: Unit::Frames,
        };
        Ok(Polled::Frames(Frames::from_text(lines), position))
    }

    fn mark(&mut self) -> Result<()> {
        self.marked = Some(self.shared.sent.load(Ordering::SeqCst));
        Ok(())
    }

    fn reached(&self) -> bool {
        self.marked.is_none_or(|sent| self.handed >= sent)
    }

    fn partitions(&self) -> Vec<Partition> {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        vec![Partition { name: "checks".to_string(), position: self.handed, end: Some(sent) }]
    }

    fn idle_wait(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn lost(&self) -> Option<u64> {
        Some(self.shared.lost.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(url: &str, more: &[(&str, &str)]) -> String {
        let mut given = vec![("url".to_string(), url.to_string())];
        given.extend(more.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        let options = Options::parse("connector \"http_check\"", &[SPEC.options], &given).unwrap();
        HttpCheck::open(&options, Clock::system()).err().expect("it is refused").to_string()
    }

    #[test]
    fn options_are_checked_and_credentials_are_not_repeated() {
        assert!(said("ftp://x", &[]).contains("http:// or https://"));
        assert!(said(" ", &[]).contains("1 to 100 addresses, not 0"));
        let text = said("https://ann:hunter2@example.org/", &[]);
        assert!(text.contains("authorization") && !text.contains("hunter2"), "{text}");
        assert!(said("http://x", &[("every", "1 ms")]).contains("\"every\""));
    }

    #[test]
    fn a_row_has_every_field() {
        let url = Url::parse("http://x/y").unwrap();
        let found = Found { status: 404, bytes: 12, error: "status 404".to_string() };
        let row: serde_json::Value =
            serde_json::from_slice(&row(1_500_000, &url, Duration::from_micros(1250), &found)).unwrap();
        assert_eq!(
            row,
            json!({"ts": "1970-01-01T00:00:01.500000Z", "url": "http://x/y", "ok": false, "status": 404,
                   "latency_ms": 1.25, "bytes": 12, "error": "status 404"})
        );
    }
}
