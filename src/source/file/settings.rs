//! What users can set: the table of options, and the same in the units used here.

use crate::error::Result;
use crate::frame::{self, Framer, Framing, framing_option, newline};
use crate::options::{OptionKind, OptionSpec, Options, join};
use crate::time::Micros;

pub static OPTIONS: &[OptionSpec] = &join::<{ OWN.len() + frame::OPTIONS.len() }>(OWN, frame::OPTIONS);

const OWN: &[OptionSpec] = &[
    OptionSpec::required("path", OptionKind::Path, "a file, or a pattern such as '/var/log/nginx/access*.log'"),
    OptionSpec::optional(
        "mode",
        OptionKind::Choice(&["follow", "once"]),
        Some("follow"),
        "'follow' waits for more lines and files; 'once' ends with the last line there is",
    ),
    OptionSpec::optional(
        "start",
        OptionKind::Choice(&["beginning", "end"]),
        Some("beginning"),
        "'end' leaves out what the files hold when they are read for the first time",
    ),
    OptionSpec::optional("poll_interval", OptionKind::Interval, Some("10 ms"), "how often files are asked for growth"),
    OptionSpec::optional(
        "partial_line_timeout",
        OptionKind::Interval,
        Some("1 second"),
        "a last line without a newline counts as finished when its file has not grown for so long",
    ),
    OptionSpec::optional("block_bytes", OptionKind::Bytes, Some("4 MiB"), "how much is read at once from one file"),
    OptionSpec::optional(
        "forget_after",
        OptionKind::Text,
        Some("7 days"),
        "where a file was read up to is forgotten when it is gone and its last line came so long ago: should it come back, it is read again; 'off' remembers it for ever",
    ),
    OptionSpec::optional("max_open_files", OptionKind::Integer, Some("512"), "files kept open at the same time"),
    // Those whose frames keep their separators: positions in a file are in bytes.
    framing_option(
        &["newline", "multiline", "nul"],
        "how records are told apart: by newlines (the default), by patterns of lines (where one is given), by NUL bytes",
    ),
];

/// The options, in the units used here. Durations in microseconds.
#[derive(Debug, Clone)]
pub struct Settings {
    pub once: bool,
    pub start_at_end: bool,
    pub framing: Framing,
    pub block_bytes: usize,
    pub max_open_files: usize,
    pub poll_interval: Micros,
    pub partial_line_timeout: Micros,
}

impl Settings {
    pub fn from(options: &Options) -> Result<Settings> {
        let micros = |name| options.interval(name).map_or(0, |d| d.as_micros() as Micros);
        let block_bytes = options.bytes("block_bytes").unwrap_or(4 << 20).clamp(1, frame::LARGEST as u64);
        Ok(Settings {
            once: options.text("mode") == Some("once"),
            start_at_end: options.text("start") == Some("end"),
            framing: Framing::from(options, newline::SPEC.name)?,
            block_bytes: block_bytes as usize,
            max_open_files: options.integer("max_open_files").map_or(512, |n| n.max(1) as usize),
            poll_interval: micros("poll_interval"),
            partial_line_timeout: micros("partial_line_timeout"),
        })
    }

    /// The byte that ends lines.
    pub fn separator(&self) -> u8 {
        self.framing.spec.separator.unwrap_or(b'\n')
    }

    /// How long a file must have been silent for its last record to count as finished: its last line may go on, and
    /// after it the record.
    pub fn patience(&self, framer: &dyn Framer) -> Micros {
        let line = if framer.is_within_line() { self.partial_line_timeout } else { 0 };
        line.max(self.framing.timeout)
    }
}
