//! Columns under construction, shared by all formats.
//!
//! A text column does not copy: its values are Arrow string views that point into the block of frames, so a parsed
//! batch costs 16 bytes a value and keeps the block alive. Only values that differ from the bytes received (decoded
//! escapes, repaired UTF-8) are written to a buffer of their own. UTF-8 is checked once for the whole block; a field
//! cut out of a valid block at character boundaries is valid, and in a block that is not valid each field is checked.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullBufferBuilder, PrimitiveArray, StringViewArray, make_view};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::ArrowPrimitiveType;

use crate::frame::Frames;

/// The bytes that text columns point into.
pub struct Block<'a> {
    frames: &'a Frames,
    /// The whole block, when it is valid UTF-8.
    text: Option<&'a str>,
}

/// Where a field lies in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Blocks are smaller than 4 GiB, so their offsets fit.
    #[inline]
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    #[inline]
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl<'a> Block<'a> {
    pub fn new(frames: &'a Frames) -> Self {
        Block { frames, text: simdutf8::basic::from_utf8(&frames.bytes).ok() }
    }

    #[inline]
    pub fn get(&self, span: Span) -> &'a [u8] {
        &self.frames.bytes[span.range()]
    }

    /// The text of a field; bytes that are not UTF-8 become U+FFFD.
    #[inline]
    pub fn text(&self, span: Span) -> Cow<'a, str> {
        match self.text.and_then(|text| text.get(span.range())) {
            Some(text) => Cow::Borrowed(text),
            None => String::from_utf8_lossy(self.get(span)),
        }
    }
}

/// Views shorter than this hold their bytes themselves (Arrow columnar format, "variable-size binary view layout").
const INLINE: usize = 12;

/// Buffers of decoded values are closed at this size: a view's offset has 32 bits, and readers take it as signed.
const OWN_BUFFER_BYTES: usize = 1 << 30;

/// A text column (`Utf8View`) under construction.
pub struct TextColumn {
    views: Vec<u128>,
    nulls: NullBufferBuilder,
    /// Whether any view points into the block: if none does, the column need not keep it alive.
    points_into_block: bool,
    /// Values that are not in the block as they are: full buffers, and the one being filled.
    full: Vec<Buffer>,
    own: Vec<u8>,
}

impl TextColumn {
    pub fn with_capacity(rows: usize) -> Self {
        TextColumn {
            views: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
            points_into_block: false,
            full: Vec::new(),
            own: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Appends a field of `block`, which must be the same for all fields of a column.
    #[inline]
    pub fn push(&mut self, block: &Block<'_>, span: Span) {
        if block
            .text
            .is_some_and(|text| text.is_char_boundary(span.start as usize) && text.is_char_boundary(span.end as usize))
        {
            self.push_view(block, span);
        } else {
            self.push_checked(block, span);
        }
    }

    #[inline]
    fn push_view(&mut self, block: &Block<'_>, span: Span) {
        let len = (span.end - span.start) as usize;
        self.points_into_block |= len > INLINE;
        self.views.push(view(&block.frames.bytes, span.start, len));
        self.nulls.append_non_null();
    }

    #[cold]
    fn push_checked(&mut self, block: &Block<'_>, span: Span) {
        match String::from_utf8_lossy(block.get(span)) {
            Cow::Borrowed(_) => self.push_view(block, span),
            Cow::Owned(repaired) => self.push_own(&repaired),
        }
    }

    /// Appends a text that is not in the block.
    pub fn push_own(&mut self, text: &str) {
        if self.own.len() + text.len() > OWN_BUFFER_BYTES {
            self.full.push(Buffer::from(std::mem::take(&mut self.own)));
        }
        // Buffer 0 is the block.
        self.views.push(make_view(text.as_bytes(), self.full.len() as u32 + 1, self.own.len() as u32));
        self.nulls.append_non_null();
        if text.len() > INLINE {
            self.own.extend_from_slice(text.as_bytes());
        }
    }

    #[inline]
    pub fn push_null(&mut self) {
        self.views.push(0);
        self.nulls.append_null();
    }

    #[inline]
    pub fn push_option(&mut self, block: &Block<'_>, span: Option<Span>) {
        match span {
            Some(span) => self.push(block, span),
            None => self.push_null(),
        }
    }

    /// Appends NULLs until the column has `rows` rows.
    pub fn fill(&mut self, rows: usize) {
        self.nulls.append_n_nulls(rows.saturating_sub(self.views.len()));
        self.views.resize(rows.max(self.views.len()), 0);
    }

    /// The column, and nothing else keeps the block's bytes.
    pub fn finish(mut self, block: &Block<'_>) -> ArrayRef {
        let mut buffers = Vec::new();
        let has_own = !self.full.is_empty() || !self.own.is_empty();
        if self.points_into_block {
            buffers.push(Buffer::from(block.frames.bytes.clone()));
        } else if has_own {
            buffers.push(Buffer::from(Vec::<u8>::new()));
        }
        if has_own {
            buffers.append(&mut self.full);
            buffers.push(Buffer::from(self.own));
        }
        let nulls = self.nulls.finish();
        // SAFETY: every view lies inside its buffer: `push_view` makes it from bytes of the block, where `view` stays
        // in bounds or panics, and `push_own` from what it appends. All are UTF-8: a range of a valid block between
        // character boundaries, a range checked by itself, or a `str`.
        Arc::new(unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(self.views), buffers, nulls) })
    }
}

/// The view of `block[start..start + len]` as buffer 0. Same result as `make_view`, which it falls back to near the
/// block's end: a single 16-byte load serves short and long values alike.
#[inline]
fn view(block: &[u8], start: u32, len: usize) -> u128 {
    let at = start as usize;
    match block.get(at..at + 16) {
        Some(window) => {
            let window = u128::from_le_bytes(window.try_into().expect("the range is 16 long"));
            if len <= INLINE {
                ((window & ((1 << (8 * len)) - 1)) << 32) | len as u128
            } else {
                assert!(len <= block.len() - at);
                (u128::from(start) << 96) | (u128::from(window as u32) << 32) | len as u128
            }
        }
        None => make_view(&block[at..at + len], 0, start),
    }
}

/// A column of fixed-size values under construction.
pub struct ValueColumn<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> ValueColumn<T> {
    pub fn with_capacity(rows: usize) -> Self {
        ValueColumn { values: Vec::with_capacity(rows), nulls: NullBufferBuilder::new(rows) }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub fn push(&mut self, value: T::Native) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    #[inline]
    pub fn push_option(&mut self, value: Option<T::Native>) {
        match value {
            Some(value) => self.push(value),
            None => {
                self.values.push(T::Native::default());
                self.nulls.append_null();
            }
        }
    }

    /// Appends NULLs until the column has `rows` rows.
    pub fn fill(&mut self, rows: usize) {
        self.nulls.append_n_nulls(rows.saturating_sub(self.values.len()));
        self.values.resize(rows.max(self.values.len()), T::Native::default());
    }

    pub fn finish(mut self) -> PrimitiveArray<T> {
        let nulls: Option<NullBuffer> = self.nulls.finish();
        PrimitiveArray::new(ScalarBuffer::from(self.values), nulls)
    }
}

/// Event times as the column type of every stream: UTC.
pub fn finish_times(times: ValueColumn<arrow::datatypes::TimestampMicrosecondType>) -> ArrayRef {
    Arc::new(times.finish().with_timezone(crate::time::UTC))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    fn column(bytes: &[u8], spans: &[(usize, usize)]) -> StringViewArray {
        let frames = Frames::from_text(bytes);
        let block = Block::new(&frames);
        let mut column = TextColumn::with_capacity(spans.len());
        spans.iter().for_each(|&(start, end)| column.push(&block, Span::new(start, end)));
        let array = column.finish(&block);
        array.to_data().validate_full().unwrap();
        array.as_string_view().clone()
    }

    #[test]
    fn short_long_and_last_values() {
        let text = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let spans: Vec<(usize, usize)> = (0..=text.len()).flat_map(|s| (s..=text.len()).map(move |e| (s, e))).collect();
        let array = column(text, &spans);
        for (i, &(start, end)) in spans.iter().enumerate() {
            assert_eq!(array.value(i).as_bytes(), &text[start..end]);
        }
    }

    #[test]
    fn invalid_utf8_is_repaired_only_where_it_is() {
        let array = column(b"a good long value here, bad \xff\xfe value follows it", &[(0, 22), (24, 47), (2, 6)]);
        assert_eq!(array.value(0), "a good long value here");
        assert_eq!(array.value(1), "bad \u{fffd}\u{fffd} value follows it");
        assert_eq!(array.value(2), "good");
    }

    #[test]
    fn a_cut_through_a_character_is_repaired() {
        // As when a frame was cut at its size limit and the block as a whole is valid by chance.
        let array = column("caf\u{e9} or so".as_bytes(), &[(0, 4), (4, 8)]);
        assert_eq!(array.value(0), "caf\u{fffd}");
        assert_eq!(array.value(1), "\u{fffd} or");
    }

    #[test]
    fn own_values_and_nulls_beside_views() {
        let frames = Frames::from_text("a value of the block");
        let block = Block::new(&frames);
        let mut column = TextColumn::with_capacity(4);
        column.push_own("a value that is not in the block");
        column.push_null();
        column.push(&block, Span::new(0, 20));
        column.push_own("short");
        column.fill(6);
        let array = column.finish(&block);
        array.to_data().validate_full().unwrap();
        let array = array.as_string_view();
        let all: Vec<_> = array.iter().collect();
        assert_eq!(all[..2], [Some("a value that is not in the block"), None]);
        assert_eq!(all[2..], [Some("a value of the block"), Some("short"), None, None]);
    }
}
