//! Where does one record end and the next begin? A framer cuts bytes into [`Frames`]; nothing is copied and no frame
//! is lost: bytes that end no frame yet stay with the framer.

pub mod newline;

use bytes::Bytes;

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
}
