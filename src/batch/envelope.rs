//! What a message queue knows of a message besides its bytes: offset, time, key, headers. Where a stream includes some of
//! it, each frame of the log begins with it, so that rows can be made again from the log alone; frames of streams that do
//! not are the messages as they are. Which of both a record has, the unit of its position says.
//!
//! ```text
//!     offset u64 │ time i64 │ key length u32 │ headers length u32 │ key │ headers │ message
//! ```
//!
//! Little-endian. The time is in milliseconds since 1970; without one, or without a key, the number is all ones.

use bytes::Bytes;

use crate::frame::{Cut, Frames};
use crate::time::Micros;

const HEAD: usize = 24;
const NO_TIME: i64 = -1;
const NO_KEY: u32 = u32::MAX;

/// What is known of one message.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Note<'a> {
    /// Where it stands in its partition.
    pub offset: u64,
    /// Milliseconds since 1970.
    pub time: Option<i64>,
    pub key: Option<&'a [u8]>,
    /// A JSON object; empty without headers.
    pub headers: &'a str,
}

impl Note<'_> {
    /// Appends the note as it stands in front of a message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(NO_KEY - 1);
        let cut = |bytes: &[u8]| length(bytes) as usize;
        let key = self.key.unwrap_or_default();
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.time.unwrap_or(NO_TIME).to_le_bytes());
        out.extend_from_slice(&self.key.map_or(NO_KEY, length).to_le_bytes());
        out.extend_from_slice(&length(self.headers.as_bytes()).to_le_bytes());
        out.extend_from_slice(&key[..cut(key)]);
        out.extend_from_slice(&self.headers.as_bytes()[..cut(self.headers.as_bytes())]);
    }

    /// The note in front of a frame, and its length. `None` when there is none.
    fn read(frame: &[u8]) -> Option<(Note<'_>, usize)> {
        let (head, rest) = frame.split_at_checked(HEAD)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let wide = |at: usize| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
        let (key_length, headers_length) = (number(16), number(20) as usize);
        let key_bytes = if key_length == NO_KEY { 0 } else { key_length as usize };
        let (key, rest) = rest.split_at_checked(key_bytes)?;
        let (headers, _) = rest.split_at_checked(headers_length)?;
        let note = Note {
            offset: wide(0),
            time: Some(wide(8) as i64).filter(|&time| time != NO_TIME),
            key: (key_length != NO_KEY).then_some(key),
            headers: std::str::from_utf8(headers).ok()?,
        };
        Some((note, HEAD + key_bytes + headers_length))
    }
}

/// The notes of a record's frames, one for each.
#[derive(Debug, Default)]
pub struct Notes {
    pub offsets: Vec<Option<i64>>,
    pub times: Vec<Option<Micros>>,
    /// Bytes of a key that are no UTF-8 are replaced.
    pub keys: Vec<Option<String>>,
    pub headers: Vec<Option<String>>,
}

/// Takes the notes off frames. A frame without one stays as it is.
pub fn open(frames: &Frames) -> (Frames, Notes) {
    let mut notes = Notes::default();
    let mut bytes = Vec::with_capacity(frames.bytes.len());
    let mut ends = Vec::with_capacity(frames.len());
    let mut cut = Vec::with_capacity(frames.cut.len());
    let mut cuts = frames.cut.iter().peekable();
    for i in 0..frames.len() {
        let whole = &frames.bytes[frames.start(i)..frames.ends[i] as usize];
        let read = Note::read(whole).filter(|(_, length)| *length < whole.len());
        let (note, length) = read.map_or((None, 0), |(note, length)| (Some(note), length));
        notes.offsets.push(note.and_then(|note| i64::try_from(note.offset).ok()));
        notes.times.push(note.and_then(|note| note.time?.checked_mul(1000)));
        notes.keys.push(note.and_then(|note| Some(String::from_utf8_lossy(note.key?).into_owned())));
        notes.headers.push(note.filter(|note| !note.headers.is_empty()).map(|note| note.headers.to_string()));
        bytes.extend_from_slice(&whole[length..]);
        ends.push(bytes.len() as u32);
        if let Some(found) = cuts.next_if(|cut| cut.frame as usize == i) {
            cut.push(Cut { true_len: found.true_len - length as u64, ..*found });
        }
    }
    (Frames { bytes: Bytes::from(bytes), ends, cut }, notes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Framing;
    use crate::frame::message::Message;

    #[test]
    fn notes_come_off_and_messages_stay() {
        let framing = Framing::of_options(&[("framing", "message"), ("max_line_bytes", "4")]).unwrap();
        let mut messages = Message::new(&framing);
        let known = [
            Note { offset: 7, time: Some(1500), key: Some(b"k\xff"), headers: r#"{"a":"b"}"# },
            Note { offset: u64::MAX, ..Note::default() },
            Note { offset: 9, key: Some(b""), ..Note::default() },
        ];
        for (note, message) in known.iter().zip(["abcdef", "", "x\n"]) {
            let mut front = Vec::new();
            note.write(&mut front);
            messages.add_behind(&front, message.as_bytes());
        }
        let (frames, notes) = open(&messages.take());
        assert_eq!(frames.iter().collect::<Vec<_>>(), [&b"abcd"[..], b"", b"x"]);
        assert_eq!(frames.cut, [Cut { frame: 0, true_len: 6 }]);
        assert_eq!(notes.offsets, [Some(7), None, Some(9)]);
        assert_eq!(notes.times, [Some(1_500_000), None, None]);
        assert_eq!(notes.keys, [Some("k\u{FFFD}".to_string()), None, Some(String::new())]);
        assert_eq!(notes.headers, [Some(r#"{"a":"b"}"#.to_string()), None, None]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_still(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let frames = Frames::from_text(bytes);
            let (opened, notes) = open(&frames);
            prop_assert_eq!(opened.len(), frames.len());
            prop_assert!(opened.ends.is_sorted_by(|a, b| a < b));
            prop_assert_eq!(notes.keys.len(), frames.len());
        }
    }
}
