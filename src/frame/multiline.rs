//! Records of several lines: stack traces, and logs whose entries go on in further lines.
//!
//! Receives bytes and cuts them into lines with [`Newline`]; lines that belong together by a [`Rule`] become one frame,
//! with all of their newlines. Which lines those are depends on the lines since the record's beginning alone.
//!
//! A record ends where the next one begins, at a line that ends it, or when nothing more came for
//! [`Framing::timeout`](super::Framing::timeout): until then its lines are kept here. So that they are not many, a
//! record of `max_record_lines` lines, or one that the next line would make longer than `max_record_bytes`, ends there and
//! the line begins another record: nothing is lost, though a format may find that the second part is no record of its
//! own. (A line longer than `max_line_bytes` is cut, as lines are everywhere, and its record is listed in
//! [`Frames::cut`].) What is kept is thus at most `max_record_bytes`, or one line if that is longer, and what
//! [`Newline`] keeps.

mod rule;

use std::io::{self, Read};
use std::sync::Arc;

pub use rule::Rule;

use super::newline::Newline;
use super::{Cut, Framer, Frames, Spec};

pub static SPEC: Spec = Spec {
    name: "multiline",
    summary: "records of several lines, told apart by patterns: multiline_start, multiline_continue, multiline_end",
    separator: Some(b'\n'),
    sample: "10:00 started\n10:01 failed\n  at main.rs:3\n  at lib.rs:7\n10:02 stopped\n",
    sample_options: &[("multiline_continue", r"^\s")],
    sample_frames: &["10:00 started", "10:01 failed\n  at main.rs:3\n  at lib.rs:7", "10:02 stopped"],
    build: |framing| {
        // Without a rule, which `Framing::from` does not let happen, all lines would be one record.
        let rule = framing.rule.clone().unwrap_or_default();
        let lines = Newline::new(framing.max_line_bytes);
        Box::new(Multiline::new(rule, lines, framing.max_record_lines, framing.max_record_bytes))
    },
};

/// Enough for the stack traces of any application server, and for few enough lines when a pattern fits nothing.
pub const MAX_RECORD_LINES: usize = 500;

/// As long as one line may be.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Cuts a run of bytes into records.
pub struct Multiline {
    // Fixed.
    rule: Arc<Rule>,
    max_lines: usize,
    max_bytes: usize,

    // State.
    lines: Newline,
    /// The lines of the unfinished record: their bytes, how many they are, and the bytes that cutting them has dropped.
    record: Vec<u8>,
    count: usize,
    dropped: u64,
}

impl Multiline {
    pub fn new(rule: Arc<Rule>, lines: Newline, max_lines: usize, max_bytes: usize) -> Multiline {
        Multiline { rule, max_lines, max_bytes, lines, record: Vec::new(), count: 0, dropped: 0 }
    }

    /// Adds lines to the unfinished record and takes out the records that are finished: all of them when `to_end`.
    fn group(&mut self, lines: &Frames, to_end: bool) -> Frames {
        let before = self.record.len();
        self.record.extend_from_slice(&lines.bytes);
        let mut records = Records { start: 0, ends: Vec::new(), cut: Vec::new() };
        let mut cut = lines.cut.iter().peekable();
        for i in 0..lines.len() {
            let (start, end) = (before + lines.start(i), before + lines.ends[i] as usize);
            let line = lines.get(i);
            if self.count > 0 && (end - records.start > self.max_bytes || self.rule.begins(line)) {
                records.close(start, std::mem::take(&mut self.dropped));
                self.count = 0;
            }
            self.count += 1;
            if let Some(cut) = cut.next_if(|cut| cut.frame as usize == i) {
                self.dropped += cut.true_len - (end - start) as u64;
            }
            if self.count == self.max_lines || self.rule.ends(line) {
                records.close(end, std::mem::take(&mut self.dropped));
                self.count = 0;
            }
        }
        if to_end && self.count > 0 {
            records.close(self.record.len(), std::mem::take(&mut self.dropped));
            self.count = 0;
        }

        let Records { start, ends, cut } = records;
        if ends.is_empty() {
            return Frames::default();
        }
        let next = self.record[start..].to_vec();
        let mut bytes = std::mem::replace(&mut self.record, next);
        bytes.truncate(start);
        // Rows downstream share the block for as long as they live: it must not hold much unused memory.
        if bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        Frames { bytes: bytes.into(), ends, cut }
    }
}

/// The records found in a block of lines.
struct Records {
    /// Where the one that is not finished begins.
    start: usize,
    ends: Vec<u32>,
    cut: Vec<Cut>,
}

impl Records {
    fn close(&mut self, end: usize, dropped: u64) {
        if dropped > 0 {
            let true_len = (end - self.start) as u64 + dropped;
            self.cut.push(Cut { frame: self.ends.len() as u32, true_len });
        }
        self.ends.push(end as u32);
        self.start = end;
    }
}

impl Framer for Multiline {
    fn push(&mut self, bytes: &[u8]) -> Frames {
        let lines = self.lines.push(bytes);
        self.group(&lines, false)
    }

    fn read(&mut self, input: &mut dyn Read, room: usize) -> (Frames, io::Result<usize>) {
        let (lines, outcome) = self.lines.read(input, room);
        (self.group(&lines, false), outcome)
    }

    fn finish(&mut self) -> Frames {
        let last = self.lines.finish();
        self.group(&last, true)
    }

    fn pending(&self) -> u64 {
        self.record.len() as u64 + self.dropped + self.lines.pending()
    }

    fn is_within_line(&self) -> bool {
        self.lines.is_within_line()
    }

    fn resume_behind(&mut self, last: u8) {
        self.lines.resume_behind(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Framing;

    fn records(given: &[(&str, &str)], input: impl AsRef<[u8]>) -> Vec<(String, Option<u64>)> {
        let mut framer = Framing::of_options(given).unwrap().framer();
        let mut found = Vec::new();
        for frames in [framer.push(input.as_ref()), framer.finish()] {
            for i in 0..frames.len() {
                let true_len = frames.cut.iter().find(|c| c.frame as usize == i).map(|c| c.true_len);
                found.push((String::from_utf8_lossy(frames.get(i)).into_owned(), true_len));
            }
        }
        found
    }

    fn texts(given: &[(&str, &str)], input: impl AsRef<[u8]>) -> Vec<String> {
        records(given, input).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn a_record_is_finished_when_the_next_begins() {
        let framing = Framing::of_options(&[("multiline_start", r"^\d")]).unwrap();
        let mut framer = framing.framer();
        assert!(framer.push(b"no start yet\r\n1 one\r\n").get(0) == b"no start yet");
        assert!(framer.push(b" more\r\n\r\n and mo").is_empty());
        assert!(framer.is_within_line() && framer.pending() == 23);
        assert_eq!(framer.push(b"re\n2 two\n").get(0), b"1 one\r\n more\r\n\r\n and more");
        assert!(!framer.is_within_line() && framer.pending() == 6);
        assert_eq!(framer.finish().get(0), b"2 two");
        let late = framer.push(b"  too late\n3 three\n");
        assert_eq!((late.len(), late.get(0)), (1, &b"  too late"[..]), "a record of its own");
    }

    /// The four ways of Logstash (`what`, `negate`) and Filebeat (`match`, `negate`), in that order.
    #[test]
    fn the_four_ways_of_others() {
        let input = "a1\nb\nc1\nd\ne\n";
        assert_eq!(texts(&[("multiline_continue", "1$")], input), ["a1", "b\nc1", "d", "e"]);
        assert_eq!(texts(&[("multiline_start", "1$")], input), ["a1\nb", "c1\nd\ne"]);
        let negated = [("multiline_end", "1$"), ("multiline_negate", "true")];
        assert_eq!(texts(&negated, input), ["a1\nb", "c1\nd", "e"], "such as a backslash at the end of a line");
        assert_eq!(texts(&[("multiline_end", "1$")], input), ["a1", "b\nc1", "d\ne"]);
        let negated = [("multiline_start", "1$"), ("multiline_negate", "on")];
        assert_eq!(texts(&negated, input), texts(&[("multiline_continue", "1$")], input));
        let both = [("multiline_start", "^[ac]"), ("multiline_end", "^[bd]")];
        assert_eq!(texts(&both, input), ["a1\nb", "c1\nd", "e"]);
    }

    #[test]
    fn records_that_reach_a_limit_go_on_in_the_next() {
        let given = [("multiline_start", "^x"), ("max_record_lines", "3")];
        assert_eq!(texts(&given, "x\n1\n2\nx\n1\n2\n3\n4\n5\n6\nx\n"), ["x\n1\n2", "x\n1\n2", "3\n4\n5", "6", "x"]);
        let given = [("multiline_start", "^x"), ("max_record_bytes", "6")];
        assert_eq!(texts(&given, "x\n1\n2\n3\n44444444\n5\nx\n"), ["x\n1\n2", "3", "44444444", "5", "x"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_within_its_record() {
        let given = [("multiline_start", "^x"), ("max_line_bytes", "4")];
        let found = records(&given, "x\n123456\nend\nx\n1234\n123456789");
        let expected = [("x\n1234\nend", Some(13)), ("x\n1234\n1234", Some(16))];
        assert_eq!(found, expected.map(|(text, true_len)| (text.to_string(), true_len)));
    }

    #[test]
    fn lines_that_are_no_text_are_matched_too() {
        assert_eq!(texts(&[("multiline_start", r"^\S+ .*go")], b"\xff\xfe go\nx\n\xc3 go\n").len(), 2);
        assert_eq!(texts(&[("multiline_start", r"^\p{Lu}")], "Über\nx\nÄnderung\n").len(), 2);
    }

    /// A record that grows in small pieces is not copied with each of them.
    #[test]
    fn a_long_record_in_small_pieces_takes_linear_time() {
        let mut framer =
            Framing::of_options(&[("multiline_start", "^x"), ("max_record_lines", "1000000")]).unwrap().framer();
        let begun = std::time::Instant::now();
        for _ in 0..250_000 {
            assert!(framer.push(b"abc\n").is_empty());
        }
        assert!(begun.elapsed().as_secs() < 20, "copied each time it would be 125 GB");
        assert_eq!(framer.finish().bytes.len(), 1_000_000);
    }

    #[test]
    fn the_real_logs() {
        let day = r"^\d{4}-\d\d-\d\d ";
        let db2 = r"^\d{4}-\d{2}-\d{2}-\d{2}\.\d{2}\.\d{2}\.\d{6}[\+-]\d{3}";
        let cases: [(&str, &[(&str, &str)], usize, usize); 6] = [
            ("postgres_vacuum.log", &[("multiline_start", day)], 32_405, 3_544),
            ("postgres_vacuum.log", &[("multiline_continue", r"^\t")], 32_405, 3_544),
            ("kafka_server_log4j.log", &[("multiline_start", r"^\[\d{4}-\d\d-\d\d ")], 2_649, 2_496),
            ("db2inst1_lab_2025.db2diag.log", &[("multiline_start", db2)], 88, 5),
            ("hadr_pcmk1_2023.db2diag.log", &[("multiline_start", db2)], 137, 10),
            // As the recipe has it: "negate => true, what => previous".
            ("hadr_pcmk1_2023.db2diag.log", &[("multiline_continue", db2), ("multiline_negate", "true")], 137, 10),
        ];
        for (name, given, lines, count) in cases {
            let Some(log) = crate::format::real_log(&format!("multiline/{name}")) else { return };
            let mut framer = Framing::of_options(given).unwrap().framer();
            let mut blocks = Vec::new();
            for piece in log.chunks(10_000) {
                blocks.push(framer.push(piece));
            }
            blocks.push(framer.finish());
            assert_eq!(blocks.iter().map(Frames::len).sum::<usize>(), count, "{name}");
            let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.bytes.to_vec()).collect();
            assert!(bytes == log, "{name}: all of its bytes are in its records");
            assert_eq!(memchr::memchr_iter(b'\n', &bytes).count(), lines, "{name}");
        }
    }

    /// The pattern as the article gives it finds the one record of which it quotes the first line.
    #[test]
    fn the_recipe_of_the_article() {
        let Some(article) = crate::format::real_log("multiline/ibm_article_excerpt.txt") else { return };
        let article = String::from_utf8(article).unwrap();
        let pattern = article.split("pattern => \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let stamp = article.split("beginning ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let log = format!("{stamp} E1 LEVEL: Event\nPID : 1\n\n{stamp} E2 LEVEL: Error\nPID : 2\n");
        let found = texts(&[("multiline_continue", pattern), ("multiline_negate", "true")], log);
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("PID : 1\n") && found[1].ends_with("PID : 2"), "{found:?}");
    }
}
