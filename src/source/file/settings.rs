//! What users can set: the table of options, and the same in the units used here.

use crate::frame::newline::MAX_LINE_BYTES;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::required("path", OptionKind::Text, "a file, or a pattern such as '/var/log/nginx/access*.log'"),
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
    OptionSpec::optional("max_line_bytes", OptionKind::Bytes, Some("1 MiB"), "longer lines are cut to this length"),
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
];

/// The options, in the units used here. Durations in microseconds.
#[derive(Debug, Clone)]
pub struct Settings {
    pub once: bool,
    pub start_at_end: bool,
    pub max_line_bytes: usize,
    pub block_bytes: usize,
    pub max_open_files: usize,
    pub poll_interval: Micros,
    pub partial_line_timeout: Micros,
}

impl Settings {
    pub fn from(options: &Options) -> Settings {
        let bytes =
            |name, default: usize| options.bytes(name).map_or(default, |b| usize::try_from(b).unwrap_or(default));
        let micros = |name| options.interval(name).map_or(0, |d| d.as_micros() as Micros);
        Settings {
            once: options.text("mode") == Some("once"),
            start_at_end: options.text("start") == Some("end"),
            max_line_bytes: bytes("max_line_bytes", MAX_LINE_BYTES),
            block_bytes: bytes("block_bytes", 4 << 20).clamp(1, 1 << 30),
            max_open_files: options.integer("max_open_files").map_or(512, |n| n.max(1) as usize),
            poll_interval: micros("poll_interval"),
            partial_line_timeout: micros("partial_line_timeout"),
        }
    }
}
