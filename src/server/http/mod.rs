//! The http endpoint: `GET /health` and `GET /metrics` for the machines that look after us, and doors for logs.
//!
//! Each protocol by which logs come is one file with its [`Protocol`], listed once in [`PROTOCOLS`]. All are taken in alike:
//!
//! ```text
//!     request ──► body.rs: read, decompressed ──► the protocol: records ──► intake.rs: a batch for each stream, pushed
//!     answer  ◄── in the words of the protocol  ◄── durable, parsed         ◄──┘
//! ```
//!
//! Each path of a protocol is there twice: below `/`, and below `/v1/streams/NAME`, where the stream is NAME whatever the
//! records say; a sender that takes a base address can so be pointed to a stream. And all of these are there again below
//! `/db/NAME`, for the streams of another database than the main one; a sender that gives the token of a role need not say
//! which: a token is of one database. Every limit is a constant here, in
//! [`body`] or in [`listener`], or an option of the stream (`push_bytes`).
//!
//! | what is wrong | answer |
//! |---|---|
//! | the body cannot be read at all, or records are malformed | 400: says which, and what was kept |
//! | no or a wrong token, where one is needed | 401 |
//! | a token of a role that may not INSERT into the stream | 403 |
//! | no such stream | 404 with the nearest name |
//! | the body did not come in time | 408 |
//! | a limit of size | 413 |
//! | an unknown Content-Encoding or Content-Type | 415 |
//! | more comes than can be taken in | 429 with Retry-After |
//! | the disk is full, the server stops | 503 with Retry-After |

mod body;
mod bulk;
mod encrypted;
mod intake;
mod json;
mod listener;
mod loki;
mod otlp;
mod protobuf;
mod rows;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::intake::{Intake, Outcome};
use self::listener::{Bounded, Visitor};
pub use self::rows::QUERY as ROWS_QUERY;
use self::token::Entered;
use super::tls::Tls;
use crate::database::Databases;
use crate::error::{Error, Kind, Result};
use crate::registry::Entry;
use crate::secret::Secret;

/// Every protocol by which logs come.
pub static PROTOCOLS: &[&Protocol] = &[&rows::PROTOCOL, &bulk::PROTOCOL, &otlp::PROTOCOL, &loki::PROTOCOL];

/// One row of the table of protocols.
pub struct Protocol {
    pub name: &'static str,
    pub summary: &'static str,
    /// Where records are posted, below `/` and below `/v1/streams/NAME`. `{name}` stands for any one segment.
    pub paths: &'static [&'static str],
    /// What senders ask before they post, if they do: the answer to a method and path.
    pub probes: &'static [Probe],
    /// A body's Content-Encoding that is part of the protocol, and is left to it.
    pub own_encoding: Option<&'static str>,
    /// A small body, for tests, and its Content-Type.
    pub sample: fn() -> (&'static str, Vec<u8>),
    /// Sorts the records of a body into batches. What it refuses is refused as a whole. Runs on the compute pool; must not
    /// panic, whatever the body.
    pub receive: fn(&mut Call, &mut Intake) -> Result<()>,
    /// Tells what became of them.
    pub answer: fn(&Call, &Result<Outcome>) -> Response,
}

impl Entry for Protocol {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// A question that is always answered alike.
pub struct Probe {
    pub methods: &'static [&'static str],
    pub path: &'static str,
    pub answer: fn(&Method) -> Response,
}

/// A request, as a protocol sees it.
pub struct Call {
    pub method: Method,
    /// The segment that stands for `{name}` in its path.
    pub segment: Option<String>,
    /// The query string, decoded.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    /// Decompressed, and how much of the room for bodies it has.
    pub body: Vec<u8>,
    pub taken: body::Taken,
    /// What [`Protocol::receive`] found and [`Protocol::answer`] needs.
    pub notes: Notes,
}

#[derive(Default)]
pub struct Notes {
    /// For each record in order, which batch it is in, or why in none.
    pub items: Vec<bulk::Item>,
    /// Records that were refused, and why the first was.
    pub refused: u64,
    pub reason: Option<String>,
    /// Under this key the request counts once, where its sender gave none.
    pub key: Option<String>,
}

impl Call {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The media type of the body, without parameters, in lower case.
    pub fn content_type(&self) -> String {
        let given = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// What all requests share.
pub struct Door {
    pub databases: Arc<Databases>,
    /// Senders must know it.
    pub token: Option<Secret>,
    pub room: body::Room,
    pub shutdown: CancellationToken,
}

/// Serves until `shutdown`. `metrics` renders the current figures in Prometheus' text format. Whoever posts logs must give
/// `token`, if there is one, or that of a role, where there are roles. With `tls` connections may be encrypted.
pub async fn serve_http(
    listener: TcpListener,
    databases: Arc<Databases>,
    token: Option<Secret>,
    tls: Option<Arc<Tls>>,
    metrics: impl Fn() -> String + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> Result<()> {
    let room = body::Room::default();
    let door = Arc::new(Door { databases, token, room, shutdown: shutdown.clone() });
    let service = router(door, metrics).into_make_service_with_connect_info::<Visitor>();
    axum::serve(Bounded::new(listener, tls), service)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|err| Error::new(Kind::Io, format!("the http endpoint failed: {err}")))
}

fn router(door: Arc<Door>, metrics: impl Fn() -> String + Send + Sync + 'static) -> Router {
    let metrics = Arc::new(metrics);
    let mut app = Router::new()
        .route("/health", get(|| async { ([(CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}") }))
        .route(
            "/metrics",
            get(move |State(door): State<Arc<Door>>, headers: HeaderMap| {
                let answer = match door.may_see_metrics(&headers) {
                    Ok(()) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics()).into_response(),
                    Err(err) => refusal(&err),
                };
                async move { answer }
            }),
        );
    for protocol in PROTOCOLS {
        for path in protocol.paths {
            let handler = || {
                let take = move |State(door): State<Arc<Door>>, request: Request| take(door, protocol, request);
                post(take).put(take)
            };
            for path in [path.to_string(), below_stream(path)] {
                app = app.route(&below_database(&path), handler()).route(&path, handler());
            }
        }
        for probe in protocol.probes {
            let handler = || {
                axum::routing::any(move |State(door): State<Arc<Door>>, request: Request| async move {
                    let (mut parts, body) = request.into_parts();
                    let named = Named::of(&mut parts).await;
                    let known = probe.methods.contains(&parts.method.as_str());
                    match (known, door.enter(&parts.headers, named.database.as_deref())) {
                        (_, Err(err)) => refusal(&err),
                        (true, Ok(_)) => (probe.answer)(&parts.method),
                        (false, Ok(_)) => no_such_path(Request::from_parts(parts, body)).await,
                    }
                })
            };
            app = app.route(&below_stream(probe.path), handler());
            app = app.route(&below_database(&below_stream(probe.path)), handler());
            app = app.route(&below_database(probe.path), handler());
            // The root itself is "/" there, and may be without it below a stream.
            if !probe.path.is_empty() {
                app = app.route(probe.path, handler());
            }
        }
    }
    app.fallback(no_such_path).with_state(door)
}

fn below_stream(path: &str) -> String {
    format!("/v1/streams/{{stream}}{path}")
}

fn below_database(path: &str) -> String {
    format!("/db/{{database}}{path}")
}

/// What the path of a request names.
#[derive(Default)]
struct Named {
    database: Option<String>,
    stream: Option<String>,
    /// For `{name}` in the path of the protocol.
    segment: Option<String>,
}

impl Named {
    async fn of(parts: &mut Parts) -> Named {
        let mut named = Named::default();
        if let Ok(params) = RawPathParams::from_request_parts(parts, &()).await {
            for (name, value) in &params {
                *(match name {
                    "database" => &mut named.database,
                    "stream" => &mut named.stream,
                    _ => &mut named.segment,
                }) = Some(value.to_string());
            }
        }
        named
    }
}

async fn no_such_path(request: Request) -> Response {
    let path = request.uri().path().to_string();
    let known = PROTOCOLS.iter().flat_map(|protocol| protocol.paths).map(|path| below_stream(path));
    let err = Error::new(Kind::UndefinedObject, format!("there is nothing at {path}"))
        .with_hint(format!("Logs are posted to {}.", known.collect::<Vec<_>>().join(", ").replace("{stream}", "NAME")));
    refusal(&err)
}

/// Takes in one request.
async fn take(door: Arc<Door>, protocol: &'static Protocol, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Named { database, stream, segment } = Named::of(&mut parts).await;
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let mut call = Call {
        method: parts.method,
        segment,
        query,
        headers: parts.headers,
        body: Vec::new(),
        taken: door.room.begin(),
        notes: Notes::default(),
    };
    let stream = stream.or_else(|| call.header("x-logweir-stream").map(str::to_string));
    let outcome = match read(&door, database.as_deref(), &mut call, &parts.extensions, body).await {
        Err(err) => Err(err),
        Ok(Entered { engine, compute, caller }) => {
            let mut intake = Intake::new(&engine, stream);
            intake.caller = caller;
            let work = async move {
                let done = sort(protocol, &mut call, &mut intake);
                (call, done.map(|()| intake))
            };
            match compute.spawn(work).await {
                Err(err) => return refusal(&err),
                Ok((back, sorted)) => {
                    call = back;
                    match sorted {
                        Err(err) => Err(err),
                        Ok(intake) => {
                            let key = call.idempotency_key().or_else(|| call.notes.key.take());
                            Ok(intake.deliver(key).await)
                        }
                    }
                }
            }
        }
    };
    let response = (protocol.answer)(&call, &outcome);
    let code = response.status().as_str().to_string();
    metrics::counter!("logweir_http_requests_total", "protocol" => protocol.name, "status" => code).increment(1);
    response
}

/// Reads the body, if the sender may give one; gives who that is, and into which database it goes.
async fn read(door: &Door, database: Option<&str>, call: &mut Call, from: &Extensions, body: Body) -> Result<Entered> {
    let entered = door.enter(&call.headers, database)?;
    Visitor::is_known(from);
    let announced = call.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let read = body::read(body, announced, &mut call.taken);
    call.body = tokio::select! {
        read = read => read?,
        () = door.shutdown.cancelled() => return Err(Error::new(Kind::Shutdown, "the server is stopping")),
    };
    Ok(entered)
}

/// Decompresses the body and sorts its records.
fn sort(protocol: &Protocol, call: &mut Call, intake: &mut Intake) -> Result<()> {
    let encoding = call.header(CONTENT_ENCODING.as_str()).unwrap_or_default().to_string();
    if protocol.own_encoding.is_none_or(|own| own != encoding) {
        call.body = body::decode(std::mem::take(&mut call.body), &encoding, &mut call.taken)?;
    }
    (protocol.receive)(call, intake)
}

/// The status that fits an error.
pub fn status(err: &Error) -> StatusCode {
    match err.kind() {
        Kind::UndefinedTable | Kind::UndefinedObject | Kind::UndefinedDatabase => StatusCode::NOT_FOUND,
        Kind::InvalidAuthorization => StatusCode::UNAUTHORIZED,
        Kind::InsufficientPrivilege => StatusCode::FORBIDDEN,
        Kind::Canceled => StatusCode::REQUEST_TIMEOUT,
        Kind::ResourceLimit => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::NotSupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
        Kind::DiskFull | Kind::Shutdown | Kind::NotReady | Kind::NotAvailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Io | Kind::Corrupted | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Seconds after which to come again, where that may help.
fn retry_after(status: StatusCode) -> Option<HeaderValue> {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(HeaderValue::from_static("1")),
        // An operator or retention makes room.
        StatusCode::SERVICE_UNAVAILABLE => Some(HeaderValue::from_static("10")),
        _ => None,
    }
}

/// An answer with this body.
pub fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = (status, [(CONTENT_TYPE, content_type)], body.into()).into_response();
    if let Some(seconds) = retry_after(status) {
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer realm=\"logweir\", Basic"));
    }
    response
}

/// An answer with a value as JSON.
pub fn reply_json(status: StatusCode, value: &serde_json::Value) -> Response {
    reply(status, "application/json", value.to_string())
}

/// An error in our own words.
pub fn refusal(err: &Error) -> Response {
    let mut value = serde_json::json!({ "error": err.message() });
    for (name, text) in [("detail", err.detail()), ("hint", err.hint())] {
        if let Some(text) = text {
            value[name] = text.into();
        }
    }
    reply_json(status(err), &value)
}

#[cfg(test)]
mod tests;
