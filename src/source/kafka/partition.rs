//! One partition of a topic: how far it has been read, and the block of frames under construction.

use std::ffi::CString;

use rdkafka::error::RDKafkaErrorCode;

use super::client::At;
use crate::frame::message::Message;
use crate::frame::{Frames, Framing};
use crate::position::{Position, Unit};

/// What a partition is called, for display and for event time. No topic's name has a slash, or an `@`.
pub fn name(topic: &str, number: i32) -> String {
    format!("{topic}/{number}")
}

/// The key of its position, which is not that of a topic made anew under the same name.
pub fn key(topic: &str, number: i32, id: Option<&str>) -> String {
    match id {
        Some(id) => format!("{}@{id}", name(topic, number)),
        None => name(topic, number),
    }
}

/// The name and the topic's id that a key was made of.
pub fn of_key(key: &str) -> (&str, Option<&str>) {
    key.split_once('@').map_or((key, None), |(name, id)| (name, Some(id)))
}

/// See the file header.
pub struct Part {
    // Fixed.
    pub topic: String,
    pub number: i32,
    pub name: String,
    pub key: String,
    /// The topic as librdkafka takes it.
    pub native_topic: CString,
    /// Of its positions: whether frames have something in front.
    unit: Unit,

    // State.
    messages: Message,
    /// The offset at which the block under construction begins.
    from: u64,
    /// The offset behind the last message that was taken.
    pub next: u64,
    /// FLUSH waits until `next` is there.
    pub mark: Option<u64>,
    /// Fetching has stopped, and is to be begun anew at `next`.
    pub stopped: Option<Stopped>,
    /// The trouble that was told last, so that it is told once.
    pub told: Option<RDKafkaErrorCode>,
    /// Something was added since the last block.
    pub touched: bool,
}

/// Why fetching has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The broker has no message at `next`.
    OutOfRange,
    /// The partition was not there.
    Missing,
}

impl Part {
    /// To be read from an offset on. `None` for a name that no topic can have.
    pub fn new((topic, number, next): &At, key: String, framing: &Framing, unit: Unit) -> Option<Part> {
        let (number, next) = (*number, *next);
        Some(Part {
            topic: topic.to_string(),
            number,
            name: name(topic, number),
            key,
            native_topic: CString::new(topic.as_str()).ok()?,
            unit,
            messages: Message::new(framing),
            from: next,
            next,
            mark: None,
            stopped: None,
            told: None,
            touched: false,
        })
    }

    /// Adds a message; each of its lines is a frame, or it is one as a whole. `front` comes before each frame. Gives the
    /// bytes that were added.
    pub fn add(&mut self, offset: u64, front: &[u8], payload: Option<&[u8]>, by_line: bool) -> usize {
        // It was on the way when fetching was begun anew.
        if offset < self.next {
            return 0;
        }
        self.next = offset + 1;
        // A tombstone has nothing to say, and is a record all the same: as it is no row of any format, it can be found.
        let payload = payload.unwrap_or_default();
        if by_line && !payload.is_empty() {
            let mut start = 0;
            for newline in memchr::memchr_iter(b'\n', payload) {
                self.messages.add_behind(front, &payload[start..=newline]);
                start = newline + 1;
            }
            if start < payload.len() {
                self.messages.add_behind(front, &payload[start..]);
            }
        } else {
            self.messages.add_behind(front, payload);
        }
        front.len() + payload.len()
    }

    /// Everything before `offset` has been read: what comes before it holds no messages.
    pub fn reach(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }

    /// Goes on somewhere else, and gives the block of what was before.
    pub fn go_to(&mut self, offset: u64) -> Option<(Frames, Position)> {
        let before = self.take();
        (self.from, self.next) = (offset, offset);
        before
    }

    /// The block of what was taken since the last time.
    pub fn take(&mut self) -> Option<(Frames, Position)> {
        if self.from == self.next {
            return None;
        }
        let position = Position {
            partition: self.name.clone(),
            key: self.key.clone(),
            start: std::mem::replace(&mut self.from, self.next),
            end: self.next,
            unit: self.unit,
        };
        Some((self.messages.take(), position))
    }

    /// Whether all that FLUSH waits for was taken.
    pub fn is_reached(&self) -> bool {
        self.mark.is_none_or(|mark| mark <= self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(framing: &str) -> Part {
        Part::new(
            &("t".into(), 3, 10),
            key("t", 3, Some("x/y")),
            &Framing::of_options(&[("framing", framing)]).unwrap(),
            Unit::Frames,
        )
        .unwrap()
    }

    fn frames(part: &mut Part) -> (Vec<String>, u64, u64) {
        let (frames, position) = part.take().unwrap();
        let texts = frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect();
        assert_eq!((position.partition.as_str(), position.key.as_str()), ("t/3", "t/3@x/y"));
        assert_eq!(of_key(&position.key), ("t/3", Some("x/y")));
        (texts, position.start, position.end)
    }

    #[test]
    fn blocks_follow_each_other_whatever_is_missing_or_comes_again() {
        let mut part = part("message");
        assert!(part.take().is_none());
        for (offset, text) in [(10, "a"), (12, "b\nc"), (12, "again"), (11, "again"), (13, "")] {
            part.add(offset, b"", Some(text.as_bytes()), false);
        }
        part.add(14, b"", None, false);
        let texts = ["a", "b\nc", "", ""].map(str::to_string).to_vec();
        assert_eq!(frames(&mut part), (texts, 10, 15));
        part.mark = Some(17);
        assert!(!part.is_reached());
        part.reach(17);
        part.reach(16);
        assert!(part.is_reached());
        assert_eq!(frames(&mut part), (vec![], 15, 17));
        assert!(part.go_to(5).is_none());
        part.add(5, b"", Some(b"x"), false);
        assert_eq!(frames(&mut part), (vec!["x".to_string()], 5, 6));
    }

    #[test]
    fn lines_of_messages_are_frames_of_their_own() {
        let mut part = part("newline");
        for (offset, text) in [(10, "a\nb\r\n"), (11, "c"), (12, "\n\nd"), (13, "")] {
            part.add(offset, b"", Some(text.as_bytes()), true);
        }
        let texts = ["a", "b", "c", "", "", "d", ""].map(str::to_string).to_vec();
        assert_eq!(frames(&mut part), (texts, 10, 14));
    }
}
