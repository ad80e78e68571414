//! What a scenario's log really has in it, for a test to compare counts and alerts with. As JSON:
//!
//! ```text
//!     seed, start, end         end: of the log's own time, up to where it was written
//!     lines, bytes             of the log, malformed ones included
//!     error_lines              of the error log beside it (--errors)
//!     malformed, late          lines that nobody can read; lines with a time before that of the lines around them
//!     messages                 { name: number of lines }
//!     status                   { status: number of lines } of an access log, of those that can be read
//!     episodes                 kind, start, end, size, status, host; lines: how many the log had meanwhile; failed: how
//!                              many of them were made to fail
//! ```

use serde_json::{Map, Value, json};

use super::stamp::Stamp;
use crate::time::Micros;

/// See the file header.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    pub seed: u64,
    pub start: Micros,
    pub end: Micros,
    pub lines: u64,
    pub bytes: u64,
    pub error_lines: u64,
    pub malformed: u64,
    pub late: u64,
    pub messages: Vec<(String, u64)>,
    /// By status.
    pub statuses: Vec<u64>,
    /// In the order of their starts.
    pub episodes: Vec<Happened>,
}

/// An episode that has begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    pub kind: &'static str,
    pub start: Micros,
    pub end: Micros,
    pub size: Option<f64>,
    pub status: Option<u16>,
    pub host: Option<String>,
    pub lines: u64,
    pub failed: u64,
}

impl Truth {
    pub(super) fn new(seed: u64, start: Micros, messages: impl Iterator<Item = String>) -> Truth {
        Truth {
            seed,
            start,
            end: start,
            lines: 0,
            bytes: 0,
            error_lines: 0,
            malformed: 0,
            late: 0,
            messages: messages.map(|name| (name, 0)).collect(),
            statuses: vec![0; 600],
            episodes: Vec::new(),
        }
    }

    /// As of `reached`, with the episodes that go on then.
    pub(super) fn finish(&mut self, reached: Micros, going_on: impl Iterator<Item = Happened>) {
        self.end = reached;
        self.episodes.extend(going_on.map(|now| Happened { end: now.end.min(reached), ..now }));
        self.episodes.sort_by_key(|episode| (episode.start, episode.kind));
    }

    pub fn to_json(&self) -> Value {
        let mut messages: Map<String, Value> = Map::new();
        for (name, lines) in &self.messages {
            let before = messages.get(name).and_then(Value::as_u64).unwrap_or(0);
            messages.insert(name.clone(), json!(before + lines));
        }
        let statuses = self.statuses.iter().enumerate().filter(|(_, lines)| **lines > 0);
        let statuses: Map<String, Value> = statuses.map(|(s, lines)| (s.to_string(), json!(lines))).collect();
        let episodes = self.episodes.iter().map(|episode| {
            json!({
                "kind": episode.kind,
                "start": time(episode.start),
                "end": time(episode.end),
                "size": episode.size,
                "status": episode.status,
                "host": episode.host,
                "lines": episode.lines,
                "failed": episode.failed,
            })
        });
        json!({
            "seed": self.seed,
            "start": time(self.start),
            "end": time(self.end),
            "lines": self.lines,
            "bytes": self.bytes,
            "error_lines": self.error_lines,
            "malformed": self.malformed,
            "late": self.late,
            "messages": messages,
            "status": statuses,
            "episodes": episodes.collect::<Vec<_>>(),
        })
    }
}

fn time(at: Micros) -> String {
    let mut out = Vec::new();
    Stamp::default().put_rfc3339(at, &mut out);
    out.iter().map(|byte| char::from(*byte)).collect()
}
