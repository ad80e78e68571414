//! Messages that come whole, as from a queue or in datagrams: one message is one frame, whatever it holds.

use super::open::Open;
use super::{Framer, Frames, Framing, Spec};

pub static SPEC: Spec = Spec {
    name: "message",
    summary: "each message is one record, whatever it holds: for queues and datagrams",
    separator: None,
    sample: "one\ntwo\n",
    sample_options: &[],
    sample_frames: &["one\ntwo"],
    build: |framing| Box::new(Message::new(framing)),
};

/// Collects messages. Many become one block of frames by [`Message::add`] and [`Message::take`]; as a [`Framer`], each
/// piece is a message.
pub struct Message {
    open: Open,
}

impl Message {
    pub fn new(framing: &Framing) -> Message {
        Message { open: Open::new(framing.max_line_bytes) }
    }

    /// Adds a message. One that is longer than `max_line_bytes` is kept cut; an empty one is an empty frame.
    pub fn add(&mut self, message: &[u8]) {
        self.open.add(message);
        self.open.close();
    }

    /// The same for a message with something in front, which does not count as its length.
    pub fn add_behind(&mut self, front: &[u8], message: &[u8]) {
        self.open.put_in_front(front);
        self.add(message);
    }

    /// The frames of the messages added since the last time.
    pub fn take(&mut self) -> Frames {
        self.open.take()
    }
}

impl Framer for Message {
    fn push(&mut self, bytes: &[u8]) -> Frames {
        self.add(bytes);
        self.take()
    }

    fn finish(&mut self) -> Frames {
        Frames::default()
    }

    fn pending(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_apart() {
        let mut messages = Message::new(&Framing::of_options(&[("max_line_bytes", "5")]).unwrap());
        for message in ["", "a", "b\nc\n", "\n", "123456"] {
            messages.add(message.as_bytes());
        }
        let frames = messages.take();
        assert_eq!(frames.iter().collect::<Vec<_>>(), [&b""[..], b"a", b"b\nc", b"", b"12345"]);
        assert_eq!(frames.cut.len(), 1);
        assert!(messages.take().is_empty());
    }
}
