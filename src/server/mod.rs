//! The doors for other programs: the Postgres endpoint and the http endpoint. They receive sockets and a way to make
//! sessions, and hand on SQL; they hold no state of the engine.

pub mod http;
pub mod pgwire;
mod strangers;
pub mod tls;

pub use http::serve_http;
pub use pgwire::{Limits, serve_postgres};
