//! Syslog over a connection, whichever way the sender frames it: by octet counting or by newlines.
//!
//! RFC 6587 leaves it to the receiver to tell. A counted message begins with its length, a blank and the `<` of the
//! message's priority (`57 <34>1 2003-…`); a line begins with the priority. The first bytes of a connection decide for all
//! of it, because a sender does not change its mind, and a line may begin with anything later.

use super::newline::Newline;
use super::octet_counted::OctetCounted;
use super::{Framer, Frames, Framing, Spec};

pub static SPEC: Spec = Spec {
    name: "syslog",
    summary: "octet_counted or newline, as the first bytes of each connection tell",
    separator: None,
    sample: "9 <1>fi\nrst9 <2>second",
    sample_options: &[],
    sample_frames: &["<1>fi\nrst", "<2>second"],
    build: |framing| Box::new(Syslog::Undecided { head: Vec::new(), framing: framing.clone() }),
};

/// Digits of the longest length that is taken for one.
const MAX_DIGITS: usize = 9;

/// Cuts the bytes of a connection.
enum Syslog {
    /// The first bytes, of which there are not enough to tell.
    Undecided {
        head: Vec<u8>,
        framing: Framing,
    },
    Decided(Box<dyn Framer>),
}

impl Framer for Syslog {
    fn push(&mut self, bytes: &[u8]) -> Frames {
        match self {
            Syslog::Decided(framer) => framer.push(bytes),
            Syslog::Undecided { head, framing } => {
                head.extend_from_slice(bytes);
                let Some(counted) = is_counted(head) else { return Frames::default() };
                let mut framer: Box<dyn Framer> = match counted {
                    true => Box::new(OctetCounted::new(framing)),
                    false => Box::new(Newline::new(framing.max_line_bytes)),
                };
                let frames = framer.push(head);
                *self = Syslog::Decided(framer);
                frames
            }
        }
    }

    fn finish(&mut self) -> Frames {
        if let Syslog::Undecided { head, framing } = self
            && !head.is_empty()
        {
            // Digits alone: no line ends in them.
            let mut framer = Newline::new(framing.max_line_bytes);
            framer.push(head);
            *self = Syslog::Decided(Box::new(framer));
        }
        match self {
            Syslog::Undecided { .. } => Frames::default(),
            Syslog::Decided(framer) => framer.finish(),
        }
    }

    fn pending(&self) -> u64 {
        match self {
            Syslog::Undecided { head, .. } => head.len() as u64,
            Syslog::Decided(framer) => framer.pending(),
        }
    }
}

/// Whether an input that begins so is counted; `None` when more bytes must tell.
fn is_counted(head: &[u8]) -> Option<bool> {
    let digits = head.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match &head[digits..] {
        _ if head.first() == Some(&b'0') || digits > MAX_DIGITS => Some(false),
        [] | [b' '] if digits > 0 => None,
        [b' ', b'<', ..] if digits > 0 => Some(true),
        [] => None,
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        let counted = [&b"5 <1>ab"[..], b"123456789 <"];
        let lines = [&b"<1>ab"[..], b"5 x", b"05 <", b"1234567890 <", b" 5 <", b"5<", b"\n"];
        for (inputs, expected) in [(&counted[..], true), (&lines[..], false)] {
            for input in inputs {
                assert_eq!(is_counted(input), Some(expected), "{}", String::from_utf8_lossy(input));
            }
        }
        for input in [&b""[..], b"1", b"123456789", b"5 "] {
            assert_eq!(is_counted(input), None);
        }
    }

    #[test]
    fn lines_stay_lines_and_digits_alone_are_one() {
        let framing = Framing::of_options(&[("framing", "syslog")]).unwrap();
        let mut framer = framing.framer();
        assert_eq!(framer.push(b"<1>a\n5 <2>b\n").iter().collect::<Vec<_>>(), [&b"<1>a"[..], b"5 <2>b"]);
        let mut framer = framing.framer();
        assert!(framer.push(b"12").is_empty() && framer.pending() == 2);
        assert_eq!(framer.finish().get(0), b"12");
    }
}
