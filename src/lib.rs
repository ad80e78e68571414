//! Logweir: one binary; logs in, SQL out.
//!
//! A line's path through the engine; each arrow is a bounded queue or a call:
//!
//! ```text
//!     bytes       frames       durable frames    rows → RecordBatch    durable rows    partial aggregates      results
//!    source/ ──► frame/ ──► storage/wal ──► format/ ──► batch/ ──► storage/hot ──► rollup/ ──► view/ ──► server/
//!       ▲                                                                                                 pgwire, http
//!       └── driven by ingest.rs, one thread per stage
//! ```
//!
//! Frames (whole lines, as received) and their position in the source are appended to the write-ahead log first. Parsing
//! is a pure function of a log record, so rows and views can always be made again by reading the log. A continuous query
//! is cut into *rollups* (partial aggregates kept up to date) and a *finish plan* (run when somebody reads), both made of
//! DataFusion's own operators: a view therefore equals its query run as a batch.
//!
//! The modules in the order of their layers; each may import only what stands before it (kept by `tests/tidy.rs`):

// 0. foundations: import each other only
pub mod access;
pub mod advisory;
pub mod backend;
pub mod channel;
pub mod config;
pub mod error;
pub mod kafka;
pub mod mutation;
pub mod opaque;
pub mod options;
pub mod outgoing;
pub mod position;
pub mod reach;
pub mod registry;
pub mod secret;
pub mod task;
pub mod template;
pub mod time;
pub mod tls;

// 1. pure core: no files, no sockets, no clock
pub mod batch;
pub mod format;
pub mod frame;
pub mod generate;
pub mod rollup;

// 2. edges: do not import each other
pub mod notify;
pub mod sink;
pub mod source;
pub mod storage;

// 3. flows
pub mod alert;
pub mod delivery;
pub mod ingest;
pub mod report;
pub mod view;

// 4. engine
pub mod catalog;
pub mod database;
pub mod engine;

// 5. language
pub mod sql;

// 6. doors
pub mod cli;
pub mod server;
