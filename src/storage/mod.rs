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
//!     state_files  states of rollups that memory has no room for, or that a checkpoint keeps
//!     checkpoint   one instant of all streams and views, from which a restart goes on
//!     keys         which pushed batches are in a stream already
//!     stream_log   one stream's rows: log, memory and archive behind one door
//!     hot          the rows that the archive does not have yet
//!     archive      rows for good, as a Delta table
//!     history      a stream's archive: its rows and its malformed lines
//!     rate         how fast logs may grow
//!     space        whether the disk has room, and what waits when it has not
//!     object    where tables can be: a directory or a bucket
//!     fs_store  the files of a directory as objects
//!     faulty_fs    for tests: a disk in memory that fails, driven by a seed
//!     faulty_disk  what a power cut leaves of it
//!     simulation   tests of the log on such a disk

pub mod archive;
pub mod checkpoint;
pub mod external;
#[cfg(any(test, feature = "mutations"))]
mod faulty_disk;
#[cfg(any(test, feature = "mutations"))]
pub mod faulty_fs;
pub mod fs;

mod fs_store;
pub mod history;
pub mod hot;
pub mod keys;
pub mod lock;
#[cfg(test)]
mod memory_fs;
pub mod object;
pub mod rate;
pub mod reader;
mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod simulation;
pub mod space;
pub mod state_files;
pub mod stream_log;
pub mod table_store;
pub mod wal;
mod writer;
