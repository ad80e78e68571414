//! What is durable? Whatever a process killed at any moment finds again when it starts.
//!
//! Receives frames with the position they came from; hands on the offset up to which they are safe, which is what lets
//! a source be acknowledged, and reads them back from any offset.
//!
//! What always holds: only this layer opens files in the data directory, and it does so through [`fs`], so that a test
//! can put a failing disk underneath; one process at a time owns the directory ([`lock`]).
//!
//!     wal       the log of one stream, as the engine sees it
//!     segment   the bytes of one file of the log: layout, and when a record counts as valid
//!     record    frames and position to bytes and back
//!     writer    append, group commit, failure
//!     reader    records and heads from a location on
//!     table_store  contents of reference tables
//!     external  tables that others write, which are only read
//!     recovery  start-up: what the files hold, and what to do about a tail that was never finished
//!     state_files  states of rollups that memory has no room for; these need not be durable

pub mod external;
pub mod fs;
pub mod hot;
pub mod lock;
#[cfg(test)]
mod memory_fs;
pub mod reader;
mod record;
mod recovery;
mod segment;
pub mod state_files;
pub mod stream_log;
pub mod table_store;
pub mod wal;
mod writer;
