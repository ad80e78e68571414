//! Frames under construction, for framings whose frames are copied out of the input: the last frame is still open.

use super::{Cut, Frames, LARGEST};

/// See the file header. Of a frame longer than allowed the first bytes are kept, and the others are counted.
#[derive(Debug, Clone)]
pub struct Open {
    max_bytes: usize,
    /// The finished frames, then what is kept of the open one.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    cut: Vec<Cut>,
    /// Bytes of the open frame that were not kept.
    dropped: u64,
    /// Bytes at its front that do not count.
    front: usize,
}

impl Open {
    /// Keeps up to `max_bytes` of a frame, its terminator not counted.
    pub fn new(max_bytes: usize) -> Open {
        let max_bytes = max_bytes.clamp(1, LARGEST);
        Open { max_bytes, bytes: Vec::new(), ends: Vec::new(), cut: Vec::new(), dropped: 0, front: 0 }
    }

    /// Length of the open frame in the input.
    pub fn len(&self) -> u64 {
        self.kept() as u64 + self.dropped
    }

    /// Puts something in front of the open frame, which is empty; it is kept in whole and counts as none of its bytes.
    pub fn put_in_front(&mut self, front: &[u8]) {
        self.bytes.extend_from_slice(front);
        self.front = front.len();
    }

    /// Adds to the open frame.
    pub fn add(&mut self, piece: &[u8]) {
        let kept = piece.len().min(self.max_bytes + self.front - self.kept());
        self.bytes.extend_from_slice(&piece[..kept]);
        self.dropped += (piece.len() - kept) as u64;
    }

    /// Ends the open frame with a newline, which stands for the byte that ended it in the input.
    pub fn close_line(&mut self) {
        self.end(b"\n");
    }

    /// Ends the open frame as it is. No frame is without bytes: an empty one is an empty line.
    pub fn close(&mut self) {
        self.end(if self.len() == self.front as u64 { b"\n" } else { b"" });
    }

    fn end(&mut self, terminator: &[u8]) {
        let true_len = self.len() + terminator.len() as u64;
        self.bytes.extend_from_slice(terminator);
        if self.dropped > 0 {
            self.cut.push(Cut { frame: self.ends.len() as u32, true_len });
            self.dropped = 0;
        }
        self.ends.push(self.bytes.len() as u32);
        self.front = 0;
    }

    /// Takes the finished frames out; the open one stays.
    pub fn take(&mut self) -> Frames {
        if self.ends.is_empty() {
            return Frames::default();
        }
        let end = self.bytes.len() - self.kept();
        let next = self.bytes[end..].to_vec();
        let mut bytes = std::mem::replace(&mut self.bytes, next);
        bytes.truncate(end);
        // Rows downstream share the block for as long as they live: it must not hold much unused memory.
        if bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        Frames { bytes: bytes.into(), ends: std::mem::take(&mut self.ends), cut: std::mem::take(&mut self.cut) }
    }

    fn kept(&self) -> usize {
        self.bytes.len() - self.ends.last().map_or(0, |end| *end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_frame_stays_and_long_ones_are_cut() {
        let mut open = Open::new(4);
        open.add(b"abc");
        assert!(open.take().is_empty() && open.len() == 3);
        open.add(b"defgh");
        open.close_line();
        open.close();
        open.add(b"xy");
        let frames = open.take();
        assert_eq!(frames.iter().collect::<Vec<_>>(), [&b"abcd"[..], b""]);
        assert_eq!(frames.cut, [Cut { frame: 0, true_len: 9 }]);
        assert_eq!(open.len(), 2);
        open.close();
        assert_eq!(open.take().get(0), b"xy");
    }
}
