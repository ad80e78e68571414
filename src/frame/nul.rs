//! Records separated by NUL bytes, as `find -print0`, audit tools and some syslog senders write them; they may hold
//! newlines.
//!
//! A frame ends with a newline in place of its NUL: frames keep their length, and what reads them knows of no other
//! terminator. A carriage return before the NUL is taken for a part of it.

use super::open::Open;
use super::{Framer, Frames, Spec};

pub static SPEC: Spec = Spec {
    name: "nul",
    summary: "records separated by NUL bytes; they may hold newlines",
    separator: Some(0),
    sample: "one\ntwo\0\0three\0",
    sample_options: &[],
    sample_frames: &["one\ntwo", "", "three"],
    build: |framing| Box::new(Nul { open: Open::new(framing.max_line_bytes), after_unfinished: false }),
};

/// Cuts a run of bytes at its NUL bytes.
struct Nul {
    open: Open,
    /// The frame before was handed out without its NUL, which may still come and must not become an empty frame.
    after_unfinished: bool,
}

impl Framer for Nul {
    fn push(&mut self, mut bytes: &[u8]) -> Frames {
        if self.after_unfinished && !bytes.is_empty() {
            self.after_unfinished = false;
            bytes = bytes.strip_prefix(b"\0").unwrap_or(bytes);
        }
        let mut start = 0;
        for at in memchr::memchr_iter(0, bytes) {
            self.open.add(&bytes[start..at]);
            self.open.close_line();
            start = at + 1;
        }
        self.open.add(&bytes[start..]);
        self.open.take()
    }

    fn finish(&mut self) -> Frames {
        if self.open.len() == 0 {
            return Frames::default();
        }
        self.after_unfinished = true;
        self.open.close();
        self.open.take()
    }

    fn pending(&self) -> u64 {
        self.open.len()
    }

    fn resume_behind(&mut self, last: u8) {
        self.after_unfinished = last != 0;
    }
}

#[cfg(test)]
mod tests {
    use crate::frame::Framing;

    #[test]
    fn a_nul_after_an_unfinished_frame_is_no_empty_frame() {
        let mut framer = Framing::of_options(&[("framing", "nul")]).unwrap().framer();
        assert!(framer.push(b"slow").is_empty());
        assert_eq!(framer.finish().get(0), b"slow");
        assert!(framer.push(b"").is_empty());
        assert_eq!(framer.push(b"\0\0next\0").iter().collect::<Vec<_>>(), [&b""[..], b"next"]);
    }
}
