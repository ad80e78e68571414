//! Writes the one line of JSON that a log record of another shape becomes.

use std::io::Write;

/// An object under construction, for streams that read JSON lines.
///
/// Names are unique. Those of the protocol are [reserved](Line::new); what a sender names as well gets `_extracted` behind
/// it, as in Loki where a record's own fields clash with its labels.
pub struct Line {
    reserved: &'static [&'static str],
    bytes: Vec<u8>,
    names: Vec<String>,
}

impl Line {
    pub fn new(reserved: &'static [&'static str]) -> Line {
        Line { reserved, bytes: b"{".to_vec(), names: Vec::new() }
    }

    /// Starts anew behind the first `members` that it has, which take `bytes`: see [`Line::mark`].
    pub fn back_to(&mut self, (bytes, members): (usize, usize)) {
        self.bytes.truncate(bytes);
        self.names.truncate(members);
    }

    /// What it has now.
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.names.len())
    }

    /// Begins a member of the protocol; its value is to be written next.
    pub fn own(&mut self, name: &'static str) -> &mut Vec<u8> {
        debug_assert!(self.reserved.contains(&name), "{name} is not reserved");
        self.member(name)
    }

    /// Adds what the sender calls `name`.
    pub fn text(&mut self, name: &str, value: &str) {
        let mut unique = name.to_string();
        while self.reserved.contains(&unique.as_str()) || self.names.contains(&unique) {
            unique.push_str("_extracted");
        }
        string(value, self.member(&unique));
        self.names.push(unique);
    }

    fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if self.bytes.len() > 1 {
            self.bytes.push(b',');
        }
        string(name, &mut self.bytes);
        self.bytes.push(b':');
        &mut self.bytes
    }

    /// The finished object. Go [back](Line::back_to) before the next one.
    pub fn close(&mut self) -> &[u8] {
        self.bytes.push(b'}');
        &self.bytes
    }
}

/// Writes a string with its quotes.
pub fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text can be written to memory");
}

pub fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory can be written to");
}

/// Writes nanoseconds since 1970 as a time of RFC 3339 in quotes.
pub fn time(nanos: u64, out: &mut Vec<u8>) {
    const SECOND: u64 = 1_000_000_000;
    let (seconds, nanos) = (nanos / SECOND, nanos % SECOND);
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    let (year, month, day) = crate::time::civil_from_days(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    write(out, format_args!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z\""));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_texts_are_escaped() {
        let mut line = Line::new(&["t"]);
        line.text("a", "x\n\"\u{1}");
        let mark = line.mark();
        for _ in 0..2 {
            line.back_to(mark);
            line.text("a", "");
            line.text("t", "");
            time(1_431_857_103_000_000_001, line.own("t"));
            let text = std::str::from_utf8(line.close()).unwrap().to_string();
            let wanted =
                r#"{"a":"x\n\"\u0001","a_extracted":"","t_extracted":"","t":"2015-05-17T10:05:03.000000001Z"}"#;
            assert_eq!(text, wanted);
        }
    }

    #[test]
    fn any_time_can_be_written() {
        for nanos in [0, 1, u64::MAX] {
            let mut out = Vec::new();
            time(nanos, &mut out);
            assert!(out.starts_with(b"\"") && out.ends_with(b"Z\""), "{}", String::from_utf8_lossy(&out));
        }
    }
}
