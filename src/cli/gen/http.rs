//! To a server by HTTP: each block is the body of one POST, such as to `/v1/streams/NAME/rows`. An answer of success says
//! that the lines are durable.
//!
//! Each request has an `Idempotency-Key` of its own. One that is answered with 429 or 503, or not at all, is repeated with
//! the same key, so its lines count once. Lines that are malformed on purpose are no error (`?malformed=accept`).

use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};
use tokio::runtime::Runtime;

use super::output::{Output, Settings, Spec};
use crate::error::{Error, Kind, Result};

pub static HTTP: Spec = Spec {
    scheme: "http",
    form: "HOST:PORT/v1/streams/NAME/rows",
    has_headers: false,
    open: |rest, settings| open(&HTTP, rest, settings),
};

pub static HTTPS: Spec = Spec {
    scheme: "https",
    form: "HOST/v1/streams/NAME/rows",
    has_headers: false,
    open: |rest, settings| open(&HTTPS, rest, settings),
};

/// Each request waits for the disk, so fewer and larger ones are better.
const BLOCK_BYTES: usize = 1 << 20;
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// So long a server may be busy or away.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pause where the server does not say how long.
const PAUSE: Duration = Duration::from_millis(200);

fn open(spec: &Spec, rest: &str, settings: &Settings) -> Result<Box<dyn Output>> {
    let mut url = Url::parse(&format!("{}://{rest}", spec.scheme)).map_err(|_| spec.wrong(rest))?;
    if url.path() == "/" {
        return Err(spec.wrong(rest));
    }
    if url.query().is_none() && url.path().ends_with("/rows") {
        url.set_query(Some("malformed=accept"));
    }
    // TLS needs one; whoever came first has chosen.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let made = Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("logweir-gen/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = made.map_err(|err| Error::internal(format!("no HTTP client could be made: {err}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| Error::internal(format!("could not start the runtime: {err}")))?;
    let token = settings.token.clone();
    Ok(Box::new(Http { url, client, runtime, token, run: rand::random(), requests: 0 }))
}

struct Http {
    url: Url,
    client: Client,
    runtime: Runtime,
    token: Option<String>,
    /// Tells the keys of this run from those of others.
    run: u64,
    requests: u64,
}

/// What came of one try.
enum Answer {
    Taken,
    /// To be tried again after a while; the error is why, if time runs out.
    Later(Duration, Error),
}

impl Output for Http {
    fn write(&mut self, block: &[u8]) -> Result<bool> {
        if block.is_empty() {
            return Ok(true);
        }
        self.requests += 1;
        let begun = Instant::now();
        loop {
            match self.runtime.block_on(self.post(block.to_vec()))? {
                Answer::Taken => return Ok(true),
                Answer::Later(_, why) if begun.elapsed() > PATIENCE => return Err(why),
                Answer::Later(pause, _) => std::thread::sleep(pause),
            }
        }
    }

    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn min_pause(&self) -> Duration {
        MIN_PAUSE
    }
}

impl Http {
    async fn post(&self, block: Vec<u8>) -> Result<Answer> {
        let key = format!("logweir-gen-{:016x}-{}", self.run, self.requests);
        let mut request = self.client.post(self.url.clone()).header("Idempotency-Key", key);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = request.header(CONTENT_TYPE, "text/plain").body(block).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            // Without the URL, which may hold credentials.
            Err(err) => {
                let is_first = self.requests == 1 && err.is_connect();
                let place = format!("{}:{}", self.url.host_str().unwrap_or_default(), self.url.port().unwrap_or(0));
                let why = Error::new(Kind::Unreachable, format!("could not post to {place}: {}", err.without_url()));
                return if is_first { Err(why) } else { Ok(Answer::Later(PAUSE, why)) };
            }
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(Answer::Taken);
        }
        let wait = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let said: String = answer.text().await.unwrap_or_default().chars().take(500).collect();
        let why = Error::new(Kind::Unreachable, format!("the server refused lines with {status}: {}", said.trim()));
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Ok(Answer::Later(wait.map_or(PAUSE, Duration::from_secs).min(Duration::from_secs(10)), why))
            }
            _ => Err(why),
        }
    }
}
