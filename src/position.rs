//! Where in its source a run of frames came from. Written into the WAL with the frames, so that a restart resumes
//! exactly behind the last durable frame.

use serde::{Deserialize, Serialize};

/// What `start` and `end` count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes of the (decompressed) input: files, sockets.
    Bytes,
    /// Whole frames: message queues.
    Frames,
    /// Messages of a queue, whose frames begin with what is known of each (`batch/envelope.rs`).
    Enveloped,
    /// Offsets of the stream itself. Of what was pushed (HTTP, INSERT, COPY): nothing is read again behind it, and `key` is
    /// the sender's idempotency key, or empty.
    Offsets,
    /// Offsets of the stream, too. Of messages that their queue may give again: nothing is read again behind them, and `key`
    /// holds a line for each frame with the id of its message, or nothing.
    Messages,
}

/// A half-open range `start..end` of one partition of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// What a person calls the partition, such as a file's path. For display.
    pub partition: String,
    /// What identifies it across renames and restarts, such as device, inode and fingerprint. For resuming. Empty: nothing
    /// could go on there (a connection), so it is not remembered.
    pub key: String,
    pub start: u64,
    pub end: u64,
    pub unit: Unit,
}
