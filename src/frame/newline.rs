//! Lines: frames that end with `\n` or `\r\n`.
//!
//! Receives bytes in pieces that may end anywhere and hands on [`Frames`] of whole lines. The unfinished line at the
//! end of a piece stays here, in the buffer that the next piece is read into, so a byte is copied only when a line
//! straddles two pieces.
//!
//! What always holds:
//! - The frames do not depend on where the pieces were cut.
//! - Memory is bounded by the longest line allowed plus one piece: of a longer line only the beginning is kept (its
//!   frame is listed in [`Frames::cut`] with the true length), the rest is counted and dropped.
//! - Bytes read = source length of the frames handed out + [`Framer::pending`] + newlines swallowed after
//!   [`Framer::finish`].

use std::io::{self, Read};

use bytes::Bytes;

use super::{Cut, Framer, Frames, LARGEST, Spec};

pub static SPEC: Spec = Spec {
    name: "newline",
    summary: "lines that end with \\n or \\r\\n",
    separator: Some(b'\n'),
    sample: "one\ntwo\r\n\nfour",
    sample_options: &[],
    sample_frames: &["one", "two", "", "four"],
    build: |framing| Box::new(Newline::new(framing.max_line_bytes)),
};

/// Longest line kept whole when the user says nothing: stack traces and wide JSON fit, a binary file does no harm.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Cuts a run of bytes into lines.
#[derive(Debug, Clone)]
pub struct Newline {
    // Fixed.
    max_line_bytes: usize,

    // State.
    /// The unfinished line: all of it, or its first `max_line_bytes` while `skipped` counts the bytes dropped.
    line: Vec<u8>,
    skipped: u64,
    /// The line before was handed out without its newline, which may still come and must not become an empty line.
    after_unfinished: bool,
}

impl Framer for Newline {
    fn push(&mut self, bytes: &[u8]) -> Frames {
        let from = self.line.len();
        self.line.extend_from_slice(bytes);
        self.cut(from)
    }

    fn read(&mut self, input: &mut dyn Read, room: usize) -> (Frames, io::Result<usize>) {
        let room = room.min(LARGEST);
        let from = self.line.len();
        self.line.reserve(room);
        // `read_to_end` fills the spare room in place and leaves what it got there when it fails.
        let outcome = Read::take(input, room as u64).read_to_end(&mut self.line);
        (self.cut(from), outcome)
    }

    fn finish(&mut self) -> Frames {
        if self.line.is_empty() {
            return Frames::default();
        }
        let mut bytes = std::mem::take(&mut self.line);
        let true_len = bytes.len() as u64 + std::mem::take(&mut self.skipped);
        self.after_unfinished = true;
        let mut cut = Vec::new();
        if true_len > self.max_line_bytes as u64 {
            bytes.truncate(self.max_line_bytes);
            cut.push(Cut { frame: 0, true_len });
        }
        Frames { ends: vec![bytes.len() as u32], bytes: bytes.into(), cut }
    }

    fn pending(&self) -> u64 {
        self.line.len() as u64 + self.skipped
    }

    fn resume_behind(&mut self, last: u8) {
        self.after_unfinished = last != b'\n';
    }
}

impl Newline {
    /// Keeps lines of up to `max_line_bytes`, not counting the terminator (at least 1 byte, at most [`LARGEST`]).
    pub fn new(max_line_bytes: usize) -> Newline {
        let max_line_bytes = max_line_bytes.clamp(1, LARGEST);
        Newline { max_line_bytes, line: Vec::new(), skipped: 0, after_unfinished: false }
    }

    /// Takes the finished lines out of `line`, whose bytes before `from` are known to hold no newline.
    fn cut(&mut self, from: usize) -> Frames {
        let from = self.swallow_newline(from);
        let Some(last) = memchr::memrchr(b'\n', &self.line[from..]) else {
            let kept = self.kept_of_unfinished(self.line.len(), self.skipped);
            self.skipped += (self.line.len() - kept) as u64;
            self.line.truncate(kept);
            return Frames::default();
        };

        let end = from + last + 1;
        let rest = &self.line[end..];
        let kept = self.kept_of_unfinished(rest.len(), 0);
        let skipped_next = (rest.len() - kept) as u64;
        let next = rest[..kept].to_vec();
        let skipped = std::mem::replace(&mut self.skipped, skipped_next);
        let mut bytes = std::mem::replace(&mut self.line, next);
        bytes.truncate(end);

        let mut ends = Vec::with_capacity(bytes.len() / 128 + 1);
        let (mut start, mut longest) = (0, 0);
        for at in memchr::memchr_iter(b'\n', &bytes[from..]) {
            let end = from + at + 1;
            longest = longest.max(end - start);
            ends.push(end as u32);
            start = end;
        }
        let mut cut = Vec::new();
        if skipped > 0 || longest > self.max_line_bytes {
            cut = self.shorten(&mut bytes, &mut ends, skipped);
        }
        // Rows downstream share the block for as long as they live: it must not hold much unused memory.
        if bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        Frames { bytes: Bytes::from(bytes), ends, cut }
    }

    /// Drops the newline of a line that was handed out without it. Returns where unsearched bytes start.
    fn swallow_newline(&mut self, from: usize) -> usize {
        if !self.after_unfinished {
            return from;
        }
        let drop = match self.line.as_slice() {
            [] | [b'\r'] => return from, // not decided yet
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [..] => 0,
        };
        self.after_unfinished = false;
        self.line.drain(..drop);
        if drop > 0 { 0 } else { from }
    }

    /// How much to keep of an unfinished line of `len` bytes in memory. One byte over the limit is not too long yet: it
    /// may be the `\r` of the terminator.
    fn kept_of_unfinished(&self, len: usize, skipped: u64) -> usize {
        if skipped > 0 || len > self.max_line_bytes + 1 { self.max_line_bytes } else { len }
    }

    /// Cuts lines that are too long, closing the gaps in `bytes`. `skipped` bytes of the first one are gone already.
    fn shorten(&self, bytes: &mut Vec<u8>, ends: &mut [u32], skipped: u64) -> Vec<Cut> {
        let mut cut = Vec::new();
        let (mut from, mut to) = (0, 0);
        for (frame, end) in ends.iter_mut().enumerate() {
            let line = from..*end as usize;
            let terminator = if bytes[line.clone()].ends_with(b"\r\n") { 2 } else { 1 };
            let skipped = if frame == 0 { skipped } else { 0 };
            let mut kept = line.len();
            if skipped > 0 || kept - terminator > self.max_line_bytes {
                cut.push(Cut { frame: frame as u32, true_len: line.len() as u64 + skipped });
                kept = self.max_line_bytes;
                // The newline stays, so that whoever reads the frame can tell that it was finished.
                bytes[line.start + kept] = b'\n';
                kept += 1;
            }
            bytes.copy_within(line.start..line.start + kept, to);
            from = line.end;
            to += kept;
            *end = to as u32;
        }
        bytes.truncate(to);
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line with its true length, cut into pieces of the given sizes (repeated).
    fn lines(input: &[u8], max: usize, pieces: &[usize]) -> Vec<(Vec<u8>, Option<u64>)> {
        let mut framer = Newline::new(max);
        let mut found = Vec::new();
        let mut add = |frames: Frames| {
            assert_eq!(frames.ends.last().map_or(0, |&e| e as usize), frames.bytes.len());
            assert!(frames.ends.is_sorted_by(|a, b| a < b));
            for i in 0..frames.len() {
                let cut = frames.cut.iter().find(|c| c.frame as usize == i).map(|c| c.true_len);
                found.push((frames.get(i).to_vec(), cut));
            }
            if frames.is_empty() { 0 } else { frames.source_offset(frames.len()) }
        };
        let (mut rest, mut handed) = (input, 0);
        for room in pieces.iter().cycle() {
            let (frames, outcome) = framer.read(&mut rest, *room);
            handed += add(frames);
            assert_eq!(handed + framer.pending(), (input.len() - rest.len()) as u64, "no byte is unaccounted for");
            assert!(framer.line.len() <= max + 1);
            if outcome.unwrap() == 0 {
                break;
            }
        }
        handed += add(framer.finish());
        assert_eq!(handed, input.len() as u64);
        found
    }

    #[test]
    fn terminators_blank_lines_and_odd_bytes() {
        let whole = lines(b"a\r\n\n\r\nb\rc\n\0\xff\n\r", 100, &[1000]);
        let texts: Vec<&[u8]> = whole.iter().map(|(line, _)| line.as_slice()).collect();
        assert_eq!(texts, [b"a" as &[u8], b"", b"", b"b\rc", b"\0\xff", b"\r"]);
        assert!(lines(b"", 100, &[10]).is_empty());
    }

    #[test]
    fn frames_do_not_depend_on_where_pieces_end() {
        let mut input = Vec::new();
        for len in [0, 1, 7, 8, 9, 10, 11, 40, 3, 0, 0, 8, 100] {
            for terminator in ["\n", "\r\n"] {
                input.extend((0..len).map(|i| b'a' + (i % 26) as u8));
                input.extend(terminator.bytes());
            }
        }
        input.extend(b"the last line has no newline");
        let whole = lines(&input, 9, &[10_000]);
        assert_eq!(whole[8], (b"abcdefghi".to_vec(), None), "9 bytes and a newline fit");
        assert_eq!(whole[9], (b"abcdefghi".to_vec(), None), "9 bytes, carriage return and newline fit");
        assert_eq!(whole[10], (b"abcdefghi".to_vec(), Some(11)));
        for pieces in [&[1][..], &[2], &[3, 1], &[9], &[10], &[11], &[64, 5]] {
            assert_eq!(lines(&input, 9, pieces), whole, "pieces of {pieces:?}");
        }
    }

    #[test]
    fn an_oversize_line_is_skipped_without_keeping_it() {
        let mut input = vec![b'x'; 300_000];
        input.extend(b"\nnext\n");
        let found = lines(&input, 1000, &[4096]);
        assert_eq!(found, [(vec![b'x'; 1000], Some(300_001)), (b"next".to_vec(), None)]);
    }

    #[test]
    fn a_newline_after_finish_is_no_empty_line() {
        for newline in ["\n", "\r\n"] {
            for piecewise in [false, true] {
                let mut framer = Newline::new(100);
                assert!(framer.push(b"slow").is_empty());
                assert_eq!(framer.finish().get(0), b"slow");
                let mut found = Vec::new();
                let rest = format!("{newline}{newline}next\n");
                for piece in rest.as_bytes().chunks(if piecewise { 1 } else { 100 }) {
                    found.extend(framer.push(piece).iter().map(<[u8]>::to_vec));
                }
                assert_eq!(found, [b"".to_vec(), b"next".to_vec()]);
            }
        }
    }

    #[test]
    fn blocks_keep_no_spare_memory() {
        let mut framer = Newline::new(100);
        let (frames, _) = framer.read(&mut &b"a\nb"[..], 1 << 20);
        let block = Vec::from(frames.bytes);
        assert!(block.capacity() < 100, "a small block of {} bytes", block.capacity());
    }
}
