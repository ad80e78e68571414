//! Messages with their length before them: `LEN SP MSG`, the octet counting of RFC 6587 that syslog uses over TCP and TLS.
//!
//! A message may hold anything, newlines too; one newline at its end is its terminator, and newlines between messages,
//! which some senders add, are skipped. Where a length should stand and does not, a line is taken instead, so that a
//! sender who counts wrong, or not at all, is read on from its next line and loses nothing.
//!
//! A message longer than allowed is kept cut like a line. The lengths are not in the frames, so a position in bytes does
//! not say exactly where a frame lies: this is for connections, which are not read again.

use super::open::Open;
use super::{Framer, Frames, Framing, Spec};

pub static SPEC: Spec = Spec {
    name: "octet_counted",
    summary: "messages with their length in bytes before them, as RFC 6587 has it: LEN SP MSG",
    separator: None,
    sample: "8 <1>first9 <2>second\nnot counted\n7 <3>a\nb\n",
    sample_options: &[],
    sample_frames: &["<1>first", "<2>second", "not counted", "<3>a\nb"],
    build: |framing| Box::new(OctetCounted::new(framing)),
};

/// Largest length taken for one. What is longer is no message, and more likely a line that begins with a number.
const MAX_COUNT: u64 = 999_999_999;

/// Cuts a run of bytes by their counts.
pub struct OctetCounted {
    open: Open,
    state: State,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// More digits of a length, or the blank after it.
    Count(u64),
    /// So many bytes of a message.
    Message(u64),
    /// The rest of a line.
    Line,
}

impl OctetCounted {
    pub fn new(framing: &Framing) -> OctetCounted {
        OctetCounted { open: Open::new(framing.max_line_bytes), state: State::Between }
    }
}

impl Framer for OctetCounted {
    fn push(&mut self, mut bytes: &[u8]) -> Frames {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Between => match byte {
                    b'\r' | b'\n' => bytes = rest,
                    b'1'..=b'9' => (self.state, bytes) = (State::Count(u64::from(byte - b'0')), rest),
                    _ => self.state = State::Line,
                },
                State::Count(count) => match byte {
                    b'0'..=b'9' if count <= MAX_COUNT / 10 => {
                        (self.state, bytes) = (State::Count(count * 10 + u64::from(byte - b'0')), rest);
                    }
                    b' ' => (self.state, bytes) = (State::Message(count), rest),
                    _ => {
                        self.open.add(count.to_string().as_bytes());
                        self.state = State::Line;
                    }
                },
                State::Message(left) => {
                    let here = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.open.add(&bytes[..here]);
                    bytes = &bytes[here..];
                    self.state = State::Message(left - here as u64);
                    if here as u64 == left {
                        self.open.close();
                        self.state = State::Between;
                    }
                }
                State::Line => {
                    let end = memchr::memchr(b'\n', bytes);
                    self.open.add(&bytes[..end.unwrap_or(bytes.len())]);
                    bytes = end.map_or(&[], |end| &bytes[end + 1..]);
                    if end.is_some() {
                        self.open.close_line();
                        self.state = State::Between;
                    }
                }
            }
        }
        self.open.take()
    }

    /// Of a message that is not complete yet, the rest will be a frame of its own.
    fn finish(&mut self) -> Frames {
        if let State::Count(count) = self.state {
            self.open.add(count.to_string().as_bytes());
        }
        if !matches!(self.state, State::Message(_)) {
            self.state = State::Between;
        }
        if self.open.len() > 0 {
            self.open.close();
        }
        self.open.take()
    }

    fn pending(&self) -> u64 {
        match self.state {
            State::Count(count) => u64::from(count.ilog10()) + 1,
            State::Between | State::Message(_) | State::Line => self.open.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framer(max_line_bytes: &str) -> Box<dyn Framer> {
        let given = [("framing", "octet_counted"), ("max_line_bytes", max_line_bytes)];
        Framing::of_options(&given).unwrap().framer()
    }

    fn texts(framer: &mut dyn Framer, input: &str) -> Vec<String> {
        framer.push(input.as_bytes()).iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
    }

    #[test]
    fn what_is_no_length_is_a_line() {
        let mut framer = framer("100");
        let odd = "01 x\n12x 5 hello\n9999999999 y\n 3 z\n\n5 hello<1>plain\n3 end";
        let lines = ["01 x", "12x 5 hello", "9999999999 y", " 3 z", "hello", "<1>plain", "end"];
        assert_eq!(texts(framer.as_mut(), odd), lines);
    }

    #[test]
    fn an_end_within_a_message_or_its_length_loses_nothing() {
        let mut framer = framer("100");
        assert!(texts(framer.as_mut(), "10 hello").is_empty());
        assert_eq!((framer.pending(), framer.finish().get(0)), (5, &b"hello"[..]));
        assert_eq!(texts(framer.as_mut(), "world3 abc42"), ["world", "abc"]);
        assert_eq!((framer.pending(), framer.finish().get(0)), (2, &b"42"[..]));
    }

    #[test]
    fn a_long_message_is_cut_and_the_next_is_intact() {
        let mut framer = framer("4");
        let frames = framer.push(b"10 01234567893 abc");
        assert_eq!(frames.iter().collect::<Vec<_>>(), [&b"0123"[..], b"abc"]);
        assert_eq!(frames.cut[0].true_len, 10);
    }

    proptest! {
        /// Whatever messages hold, they come back; only a newline at the end of one is taken for its terminator.
        #[test]
        fn messages_come_back(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..20)) {
            let mut input = Vec::new();
            for (i, message) in messages.iter().enumerate() {
                input.extend(format!("{} ", message.len()).bytes());
                input.extend(message);
                input.extend(&b"\r\n"[..i % 3]);
            }
            let frames = framer("100").push(&input);
            prop_assert_eq!(frames.len(), messages.len());
            for (i, message) in messages.iter().enumerate() {
                prop_assert_eq!(&frames.bytes[frames.start(i)..frames.ends[i] as usize], &message[..]);
            }
        }
    }
}
