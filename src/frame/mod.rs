//! Where does one record end and the next begin? Each framing is one file with its [`Spec`], listed once in
//! [`FRAMINGS`]. A [`Framing`] is what a user chose, checked; it makes a [`Framer`] for each file or connection.
//!
//! A framer cuts bytes into [`Frames`], and no frame is lost: bytes that end no frame yet stay with the framer.
//!
//! What always holds:
//! - The frames do not depend on where the bytes were cut into pieces.
//! - What a framer keeps between two pieces is bounded by the limits of its [`Framing`].
//! - Between two frames a framer remembers nothing, so reading can go on behind any frame with a new framer
//!   ([`Framer::resume_behind`]) and gives the same frames: that is what makes positions exact.

pub mod framing;
pub mod message;
pub mod multiline;
pub mod newline;
pub mod nul;
pub mod octet_counted;
mod open;
pub mod syslog;

use std::io::{self, Read};

use bytes::Bytes;

pub use framing::{Framing, OPTIONS, framing_option};

use crate::registry::Entry;

/// Every framing.
pub static FRAMINGS: &[&Spec] =
    &[&newline::SPEC, &multiline::SPEC, &nul::SPEC, &octet_counted::SPEC, &syslog::SPEC, &message::SPEC];

/// Most bytes that a framer takes at once, and the largest value of its limits: what it keeps and one piece more fit
/// into one block, whose offsets are `u32` and which the log takes up to 1 GiB.
pub const LARGEST: usize = 1 << 28;

/// One row of the table of framings.
pub struct Spec {
    pub name: &'static str,
    pub summary: &'static str,
    /// The byte that ends a frame's last piece, where there is one. Then frames keep their bytes, all but the separator
    /// itself, so a position in bytes says where a frame lies; and reading can begin in the middle of the input.
    pub separator: Option<u8>,
    /// Some input, the options it needs, and the frames it gives.
    pub sample: &'static str,
    pub sample_options: &'static [(&'static str, &'static str)],
    pub sample_frames: &'static [&'static str],
    pub build: fn(&Framing) -> Box<dyn Framer>,
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Cuts the bytes of one file or connection into frames.
pub trait Framer: Send {
    /// Cuts bytes that are already in memory (at most [`LARGEST`]).
    fn push(&mut self, bytes: &[u8]) -> Frames;

    /// Reads until `room` bytes have come or `input` ends, and cuts them. The frames that were finished are returned
    /// even when the outcome is an error; it is otherwise the number of bytes read.
    fn read(&mut self, input: &mut dyn Read, room: usize) -> (Frames, io::Result<usize>) {
        let mut piece = Vec::new();
        let outcome = Read::take(input, room.min(LARGEST) as u64).read_to_end(&mut piece);
        (self.push(&piece), outcome)
    }

    /// Hands out what is unfinished as a frame, because no more of it is expected: the input has ended, or was silent
    /// for long. No frame when there is nothing. Should more come after all, that is a frame of its own, and a separator
    /// alone is none.
    fn finish(&mut self) -> Frames;

    /// Bytes of the input that are in no frame yet.
    fn pending(&self) -> u64;

    /// Whether the input so far ends within a line (or another smallest piece), rather than behind its separator.
    fn is_within_line(&self) -> bool {
        self.pending() > 0
    }

    /// Says, before the first byte, that they follow a frame whose last byte in the input is `last`: the frame may have
    /// been handed out without its separator, as by [`Framer::finish`].
    fn resume_behind(&mut self, _last: u8) {}
}

/// Consecutive frames sharing one block of bytes.
///
/// Frame `i` is `bytes[ends[i-1]..ends[i]]` without its line terminator (`\n` or `\r\n`), if it has one. Blocks are
/// smaller than 4 GiB, and `ends` is strictly increasing with its last value equal to `bytes.len()`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    pub bytes: Bytes,
    pub ends: Vec<u32>,
    /// Frames that were longer than allowed and are kept cut.
    pub cut: Vec<Cut>,
}

/// A frame of which only the first bytes were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Index of the frame.
    pub frame: u32,
    /// Length in bytes, with its terminator, before it was cut.
    pub true_len: u64,
}

impl Frames {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Where frame `i` starts in `bytes`.
    #[inline]
    pub fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.ends[i - 1] as usize }
    }

    /// The range of frame `i` in `bytes`, without its line terminator.
    #[inline]
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        let start = self.start(i);
        let mut end = self.ends[i] as usize;
        if end > start && self.bytes[end - 1] == b'\n' {
            end -= 1;
            if end > start && self.bytes[end - 1] == b'\r' {
                end -= 1;
            }
        }
        start..end
    }

    /// The bytes of frame `i`, without its line terminator.
    #[inline]
    pub fn get(&self, i: usize) -> &[u8] {
        &self.bytes[self.range(i)]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The first frames, still sharing their bytes.
    pub fn first(&self, count: usize) -> Frames {
        let count = self.len().min(count);
        let end = self.ends[..count].last().map_or(0, |end| *end as usize);
        let cut = self.cut.iter().filter(|cut| (cut.frame as usize) < count).copied().collect();
        Frames { bytes: self.bytes.slice(..end), ends: self.ends[..count].to_vec(), cut }
    }

    /// The same bytes with every frame for which `starts` does not hold joined to the one before it, newlines and all.
    /// Frames before the first that does are left alone: what they belong to is not here.
    pub fn joined(&self, starts: impl Fn(&[u8]) -> bool) -> Frames {
        let Some(first) = (0..self.len()).find(|&i| starts(self.get(i))) else { return self.clone() };
        let begins = |i: usize| i <= first || starts(self.get(i));
        let mut frames = Frames { bytes: self.bytes.clone(), ends: Vec::new(), cut: Vec::new() };
        let mut cut = self.cut.iter().peekable();
        let (mut start, mut missing) = (0, 0);
        for i in 0..self.len() {
            if let Some(c) = cut.next_if(|c| c.frame as usize == i) {
                missing += c.true_len - u64::from(self.ends[i] - self.start(i) as u32);
            }
            if i + 1 == self.len() || begins(i + 1) {
                if missing > 0 {
                    let true_len = u64::from(self.ends[i] - start) + missing;
                    frames.cut.push(Cut { frame: frames.ends.len() as u32, true_len });
                }
                frames.ends.push(self.ends[i]);
                (start, missing) = (self.ends[i], 0);
            }
        }
        frames
    }

    /// The frames of these numbers, which rise.
    pub fn select(&self, numbers: &[usize]) -> Frames {
        let mut chosen = Frames::default();
        let mut bytes = Vec::new();
        for &i in numbers {
            bytes.extend_from_slice(&self.bytes[self.start(i)..self.ends[i] as usize]);
            if let Some(cut) = self.cut.iter().find(|cut| cut.frame as usize == i) {
                chosen.cut.push(Cut { frame: chosen.len() as u32, ..*cut });
            }
            chosen.ends.push(bytes.len() as u32);
        }
        chosen.bytes = bytes.into();
        chosen
    }

    /// How far frame `i` starts behind the first frame in the source, in bytes: cut frames were longer there.
    pub fn source_offset(&self, i: usize) -> u64 {
        let kept = |c: &Cut| (self.ends[c.frame as usize] as usize - self.start(c.frame as usize)) as u64;
        let missing: u64 = self.cut.iter().filter(|c| (c.frame as usize) < i).map(|c| c.true_len - kept(c)).sum();
        self.start(i) as u64 + missing
    }

    /// Each line of `text` as a frame. For tests, samples and small inputs.
    pub fn from_text(text: impl Into<Vec<u8>>) -> Frames {
        let bytes: Vec<u8> = text.into();
        let mut ends: Vec<u32> = memchr::memchr_iter(b'\n', &bytes).map(|at| at as u32 + 1).collect();
        if ends.last().map_or(0, |&e| e as usize) < bytes.len() {
            ends.push(bytes.len() as u32);
        }
        Frames { bytes: bytes.into(), ends, cut: Vec::new() }
    }

    /// Each record as a frame, whatever lines are in it. For tests and samples.
    pub fn from_records<R: AsRef<[u8]>>(records: impl IntoIterator<Item = R>) -> Frames {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for record in records {
            bytes.extend_from_slice(record.as_ref());
            bytes.push(b'\n');
            ends.push(bytes.len() as u32);
        }
        Frames { bytes: bytes.into(), ends, cut: Vec::new() }
    }
}

/// What holds for every framing of the table.
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn joined_frames_keep_their_bytes_and_what_was_cut() {
        let mut frames = Frames::from_text("  lost\n-a\r\n  b\r\n-c\n\n  d");
        frames.cut = vec![Cut { frame: 2, true_len: 105 }, Cut { frame: 5, true_len: 13 }];
        let joined = frames.joined(|line| line.starts_with(b"-"));
        let texts: Vec<&[u8]> = joined.iter().collect();
        assert_eq!(texts, [b"  lost" as &[u8], b"-a\r\n  b", b"-c\n\n  d"]);
        assert_eq!(joined.cut, [Cut { frame: 1, true_len: 109 }, Cut { frame: 2, true_len: 17 }]);
        assert_eq!(joined.source_offset(3), frames.source_offset(6));
        assert_eq!(frames.joined(|_| false), frames);
        assert_eq!(frames.joined(|_| true), frames);
        assert_eq!(Frames::from_records(["a\nb", ""]).iter().collect::<Vec<_>>(), [b"a\nb" as &[u8], b""]);
    }

    /// The framing of an entry, with its sample's options and some more.
    fn framing(spec: &Spec, more: &[(&str, &str)]) -> Framing {
        let mut given = vec![("framing", spec.name)];
        given.extend(spec.sample_options);
        given.extend(more);
        Framing::of_options(&given).unwrap_or_else(|err| panic!("{}: {err}", spec.name))
    }

    /// Limits that short inputs reach.
    const LOW: &[(&str, &str)] = &[("max_line_bytes", "9"), ("max_record_bytes", "20"), ("max_record_lines", "3")];

    /// Frames, with the true lengths of those that were cut.
    type Found = Vec<(Vec<u8>, Option<u64>)>;

    /// Each frame, and all of their bytes, separators put back, of input that comes in pieces.
    fn cut(framing: &Framing, input: &[u8], ends: &[usize]) -> (Found, Vec<u8>) {
        let mut framer = framing.framer();
        let (mut found, mut bytes, mut start, mut handed) = (Vec::new(), Vec::new(), 0, 0);
        for end in ends.iter().copied().chain([input.len()]) {
            let frames = framer.push(&input[start..end]);
            start = end;
            handed += note(&frames, framing.spec.separator, &mut found, &mut bytes);
            if framing.spec.separator.is_some() {
                assert_eq!(handed + framer.pending(), end as u64, "{:?}: no byte is unaccounted for", framing.spec);
            }
        }
        note(&framer.finish(), None, &mut found, &mut bytes);
        assert_eq!((framer.pending(), framer.finish().len()), (0, 0), "{:?}: all has been handed out", framing.spec);
        (found, bytes)
    }

    /// Takes note of frames, and checks what must hold of any. Returns their length in the input.
    fn note(frames: &Frames, separator: Option<u8>, found: &mut Found, bytes: &mut Vec<u8>) -> u64 {
        assert_eq!(frames.ends.last().map_or(0, |&e| e as usize), frames.bytes.len());
        assert!(frames.ends.first().is_none_or(|&e| e > 0) && frames.ends.is_sorted_by(|a, b| a < b));
        assert!(frames.cut.is_sorted_by(|a, b| a.frame < b.frame));
        for i in 0..frames.len() {
            let true_len = frames.cut.iter().find(|c| c.frame as usize == i).map(|c| c.true_len);
            found.push((frames.get(i).to_vec(), true_len));
            let whole = &frames.bytes[frames.start(i)..frames.ends[i] as usize];
            bytes.extend_from_slice(&whole[..whole.len() - 1]);
            bytes.push(separator.unwrap_or(whole[whole.len() - 1]));
        }
        frames.source_offset(frames.len())
    }

    #[test]
    fn names_are_unique_and_samples_give_their_frames() {
        for (i, spec) in FRAMINGS.iter().enumerate() {
            assert!(FRAMINGS[..i].iter().all(|other| other.name != spec.name) && spec.summary.len() > 10);
            let (found, _) = cut(&framing(spec, &[]), spec.sample.as_bytes(), &[]);
            let found: Vec<_> = found.iter().map(|(frame, _)| String::from_utf8_lossy(frame)).collect();
            assert_eq!(found, spec.sample_frames, "{}", spec.name);
        }
    }

    #[test]
    fn a_new_framer_goes_on_behind_any_frame() {
        let input = b"one\n two\n three\0four\nfive\n six\n\n seven\0\0eight\n 9\n10\n".repeat(3);
        for spec in FRAMINGS.iter().filter(|spec| spec.separator.is_some()) {
            for more in [&[][..], LOW] {
                let framing = framing(spec, more);
                let (all, _) = cut(&framing, &input, &[]);
                let mut framer = framing.framer();
                let (mut at, mut count) = (0, 0);
                for (i, byte) in input.iter().enumerate() {
                    let frames = framer.push(&[*byte]);
                    at += frames.source_offset(frames.len()) as usize;
                    count += frames.len();
                    if frames.is_empty() {
                        continue;
                    }
                    assert_eq!((at as u64 + framer.pending()) as usize, i + 1);
                    let mut other = framing.framer();
                    other.resume_behind(input[at - 1]);
                    let (mut rest, mut bytes) = (Vec::new(), Vec::new());
                    note(&other.push(&input[at..]), spec.separator, &mut rest, &mut bytes);
                    note(&other.finish(), None, &mut rest, &mut bytes);
                    assert_eq!(rest, all[count..], "{} behind byte {at}", spec.name);
                }
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "x".repeat(100_000);
        let inputs =
            [format!("{long}\n{long}"), format!("12345 {long}"), format!("12345 <1>{long}"), "a\n b\n".repeat(9)];
        for spec in FRAMINGS {
            for input in &inputs {
                let framing = framing(spec, LOW);
                let mut framer = framing.framer();
                for piece in input.as_bytes().chunks(100) {
                    let frames = framer.push(piece);
                    assert!(frames.bytes.len() <= 9 + 2 + 20 + 100, "{}: {} bytes", spec.name, frames.bytes.len());
                }
                assert!(framer.finish().bytes.len() <= 9 + 20, "{}", spec.name);
            }
        }
    }

    /// Bytes among which those that framings look at are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => prop::sample::select(b"\n\r\0 1239<>ax".to_vec()), 1 => any::<u8>()];
        prop::collection::vec(byte, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn frames_do_not_depend_on_where_pieces_end(
            input in bytes(),
            ends in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut ends: Vec<usize> = ends.iter().map(|end| end.index(input.len() + 1)).collect();
            ends.sort();
            // One message is what comes in one piece.
            for spec in FRAMINGS.iter().filter(|spec| spec.name != message::SPEC.name) {
                for more in [&[][..], LOW] {
                    let framing = framing(spec, more);
                    let (whole, bytes) = cut(&framing, &input, &[]);
                    prop_assert_eq!(&cut(&framing, &input, &ends).0, &whole, "{} in pieces", spec.name);
                    let single: Vec<usize> = (0..input.len()).collect();
                    prop_assert_eq!(&cut(&framing, &input, &single).0, &whole, "{} byte by byte", spec.name);
                    if spec.separator.is_some() && more.is_empty() {
                        prop_assert_eq!(bytes, &input[..], "{} loses nothing", spec.name);
                    }
                }
            }
        }

        /// However often an input falls silent, what comes next is framed and nothing is lost.
        #[test]
        fn finishing_anywhere_loses_nothing(
            input in bytes(),
            ends in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..20),
        ) {
            let mut ends: Vec<_> = ends.iter().map(|(end, finish)| (end.index(input.len() + 1), *finish)).collect();
            ends.sort();
            for spec in FRAMINGS {
                let mut framer = framing(spec, &[]).framer();
                let (mut found, mut bytes, mut start) = (Vec::new(), Vec::new(), 0);
                for (end, finish) in ends.iter().copied().chain([(input.len(), true)]) {
                    note(&framer.push(&input[start..end]), spec.separator, &mut found, &mut bytes);
                    start = end;
                    if finish {
                        note(&framer.finish(), None, &mut found, &mut bytes);
                        prop_assert_eq!(framer.pending(), 0, "{}", spec.name);
                    }
                }
                if spec.separator.is_some() {
                    let kept = |bytes: &[u8]| -> Vec<u8> {
                        bytes.iter().copied().filter(|b| !matches!(b, b'\n' | b'\r' | 0)).collect()
                    };
                    prop_assert_eq!(kept(&bytes), kept(&input), "{}", spec.name);
                }
            }
        }
    }
}
