//! Lines and fields of COPY's text and csv formats, as PostgreSQL's manual has them (COPY, "File Formats").
//!
//! Receives bytes in pieces of any size; hands on the fields of one line after the other. A line is read when it is there
//! in whole, so no more than one line is kept waiting, and what is cut where does not matter.

use std::ops::Range;

use memchr::{memchr2, memchr3};

use crate::error::{Error, Kind, Result};
use crate::sql::CopyOptions;

/// Longest line, in bytes.
const MAX_LINE: usize = 64 << 20;

/// Stands alone in a line behind the last row.
const END: &[u8] = b"\\.";

/// See the file header.
pub struct Lines {
    options: CopyOptions,
    /// What has come; before `at` it has been read.
    pending: Vec<u8>,
    at: usize,
    /// Before this byte there is no end of the line, and whether it is within quotes there.
    scanned: usize,
    quoted: bool,
    /// The number of the line that was read last, from 1. A line break within quotes does not count.
    number: u64,
    ended: bool,
    // The line that was read last.
    bytes: usize,
    /// Its fields, unescaped, one behind the other.
    text: Vec<u8>,
    fields: Vec<Option<Range<usize>>>,
}

impl Lines {
    pub fn new(options: CopyOptions) -> Lines {
        Lines {
            options,
            pending: Vec::new(),
            at: 0,
            scanned: 0,
            quoted: false,
            number: 0,
            ended: false,
            bytes: 0,
            text: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// Takes in more. What comes behind the mark of the end is ignored.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.pending.drain(..self.at);
        self.scanned -= self.at;
        self.at = 0;
        self.pending.extend_from_slice(bytes);
        if self.scanned > MAX_LINE {
            let message = format!("line {} is longer than {MAX_LINE} bytes", self.number + 1);
            return Err(Error::new(Kind::ResourceLimit, message));
        }
        Ok(())
    }

    /// Reads the next line, if it is there in whole. `last`: nothing more will come.
    pub fn advance(&mut self, last: bool) -> Result<bool> {
        loop {
            if self.ended {
                return Ok(false);
            }
            let Some((end, next)) = self.end_of_line(last) else { return Ok(false) };
            let line = self.at..end;
            self.number += 1;
            self.bytes = next - self.at;
            (self.at, self.scanned) = (next, next);
            if std::mem::take(&mut self.quoted) {
                return Err(bad("unterminated CSV quoted field"));
            }
            if self.number == 1 && self.options.header {
                continue;
            }
            if &self.pending[line.clone()] == END {
                self.ended = true;
                return Ok(false);
            }
            self.text.clear();
            self.fields.clear();
            match self.options.csv {
                true => self.csv_fields(line),
                false => self.text_fields(line),
            }
            return Ok(true);
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the line read last.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many fields it has.
    pub fn fields(&self) -> usize {
        self.fields.len()
    }

    /// One of its fields; `None`: NULL.
    pub fn field(&self, at: usize) -> Option<&[u8]> {
        self.fields.get(at)?.clone().map(|range| &self.text[range])
    }

    /// Where the next line ends, and where the one behind it begins.
    fn end_of_line(&mut self, last: bool) -> Option<(usize, usize)> {
        let newline = if self.options.csv { self.find_csv() } else { self.find_text() };
        let (mut end, next) = match newline {
            Some(at) => (at, at + 1),
            None if last && self.at < self.pending.len() => (self.pending.len(), self.pending.len()),
            None => return None,
        };
        if end > self.at && self.pending[end - 1] == b'\r' {
            end -= 1;
        }
        Some((end, next))
    }

    /// A backslash takes what is behind it with it, also a line break.
    fn find_text(&mut self) -> Option<usize> {
        while let Some(found) = memchr2(b'\n', b'\\', &self.pending[self.scanned..]) {
            let at = self.scanned + found;
            if self.pending[at] == b'\n' {
                return Some(at);
            }
            if at + 1 == self.pending.len() {
                self.scanned = at;
                return None;
            }
            self.scanned = at + 2;
        }
        self.scanned = self.pending.len();
        None
    }

    fn find_csv(&mut self) -> Option<usize> {
        let CopyOptions { quote, escape, .. } = self.options;
        while let Some(found) = memchr3(b'\n', quote, escape, &self.pending[self.scanned..]) {
            let at = self.scanned + found;
            let byte = self.pending[at];
            if byte == b'\n' && !self.quoted {
                return Some(at);
            }
            if byte == escape && escape != quote && self.quoted {
                if at + 1 == self.pending.len() {
                    self.scanned = at;
                    return None;
                }
                self.scanned = at + 2;
                continue;
            }
            // A quote that is doubled ends and begins at once.
            self.quoted ^= byte == quote;
            self.scanned = at + 1;
        }
        self.scanned = self.pending.len();
        None
    }

    fn text_fields(&mut self, line: Range<usize>) {
        let Lines { options, pending, text, fields, .. } = self;
        let (line, delimiter) = (&pending[line], options.delimiter);
        let (mut start, mut at) = (0, 0);
        loop {
            let end = match memchr2(delimiter, b'\\', &line[at..]) {
                Some(found) if line[at + found] == b'\\' && delimiter != b'\\' => {
                    at = (at + found + 2).min(line.len());
                    continue;
                }
                Some(found) => at + found,
                None => line.len(),
            };
            let raw = &line[start..end];
            let from = text.len();
            if raw == options.null.as_bytes() {
                fields.push(None);
            } else {
                unescape(raw, text);
                fields.push(Some(from..text.len()));
            }
            if end == line.len() {
                return;
            }
            (start, at) = (end + 1, end + 1);
        }
    }

    fn csv_fields(&mut self, line: Range<usize>) {
        let Lines { options, pending, text, fields, .. } = self;
        let (line, CopyOptions { delimiter, quote, escape, .. }) = (&pending[line], &*options);
        let mut at = 0;
        loop {
            let (start, from) = (at, text.len());
            let (mut quoted, mut was_quoted) = (false, false);
            while at < line.len() && (quoted || line[at] != *delimiter) {
                let next = line.get(at + 1);
                let escaped = quoted && line[at] == *escape && next.is_some_and(|next| next == escape || next == quote);
                if escaped {
                    text.push(line[at + 1]);
                    at += 2;
                } else {
                    if line[at] == *quote {
                        (quoted, was_quoted) = (!quoted, true);
                    } else {
                        text.push(line[at]);
                    }
                    at += 1;
                }
            }
            let null = !was_quoted && &line[start..at] == options.null.as_bytes();
            fields.push((!null).then_some(from..text.len()));
            if at == line.len() {
                return;
            }
            at += 1;
        }
    }
}

fn bad(message: &str) -> Error {
    Error::new(Kind::BadCopy, message)
}

/// The escapes of the text format.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let Some((&byte, behind)) = rest[at + 1..].split_first() else { return };
        rest = behind;
        let digits = |most: usize, is: fn(&u8) -> bool| behind.iter().take(most).take_while(|digit| is(digit)).count();
        match byte {
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(0x0b),
            b'0'..=b'7' => {
                let more = digits(2, |digit| (b'0'..=b'7').contains(digit));
                let value = behind[..more].iter().fold(u32::from(byte - b'0'), |n, d| n * 8 + u32::from(d - b'0'));
                out.push(value as u8);
                rest = &behind[more..];
            }
            b'x' => {
                let more = digits(2, u8::is_ascii_hexdigit);
                let digit = |d: &u8| char::from(*d).to_digit(16).unwrap_or(0);
                match more {
                    0 => out.push(b'x'),
                    _ => out.push(behind[..more].iter().fold(0, |n, d| n * 16 + digit(d)) as u8),
                }
                rest = &behind[more..];
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(csv: bool) -> CopyOptions {
        let (delimiter, null) = if csv { (b',', "") } else { (b'\t', "\\N") };
        CopyOptions { binary: false, csv, header: false, delimiter, null: null.into(), quote: b'"', escape: b'"' }
    }

    /// All lines of a text that comes in pieces of this size.
    fn read(options: CopyOptions, text: &[u8], piece: usize) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        let mut lines = Lines::new(options);
        let mut read = Vec::new();
        let fields = |lines: &Lines| (0..lines.fields()).map(|i| lines.field(i).map(<[u8]>::to_vec)).collect();
        for piece in text.chunks(piece) {
            lines.feed(piece)?;
            while lines.advance(false)? {
                read.push(fields(&lines));
            }
        }
        while lines.advance(true)? {
            read.push(fields(&lines));
        }
        Ok(read)
    }

    fn text_of(read: &[Vec<Option<Vec<u8>>>]) -> Vec<Vec<&str>> {
        fn field(field: &Option<Vec<u8>>) -> &str {
            field.as_ref().map_or("NULL", |f| std::str::from_utf8(f).expect("UTF-8"))
        }
        read.iter().map(|line| line.iter().map(field).collect()).collect()
    }

    #[test]
    fn text_lines_have_postgres_escapes() {
        let text = b"a\\tb\tc\\\\\t\\N\r\n\\x41\\101\\0\\q\t\\\\N\t\n\\\nx\t\\\\\n\tone field less\n\\.\nnot read\n";
        let expected =
            vec![vec!["a\tb", "c\\", "NULL"], vec!["AA\0q", "\\N", ""], vec!["\nx", "\\"], vec!["", "one field less"]];
        for piece in 1..text.len() {
            let read = read(options(false), text, piece).unwrap();
            assert_eq!(text_of(&read), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn csv_lines_have_quotes() {
        let text = b"h,e,a\n1,\"x\"\"y\",\n\"\",a\"b,c\"d,\"two\r\nlines\"\r\n\n\"last\"";
        let expected = vec![vec!["1", "x\"y", "NULL"], vec!["", "ab,cd", "two\r\nlines"], vec!["NULL"], vec!["last"]];
        for piece in 1..text.len() {
            let read = read(CopyOptions { header: true, ..options(true) }, text, piece).unwrap();
            assert_eq!(text_of(&read), expected, "in pieces of {piece}");
        }
        let other = CopyOptions { delimiter: b';', null: "-".into(), quote: b'\'', escape: b'\\', ..options(true) };
        let read = read(other, b"'it\\'s\\n';-;'-'\n", 3).unwrap();
        assert_eq!(text_of(&read), [vec!["it's\\n", "NULL", "-"]]);
    }

    #[test]
    fn a_quote_that_never_ends_is_an_error() {
        let err = read(options(true), b"a,b\nc,\"d\ne,f\n", 4).unwrap_err();
        assert_eq!((err.kind(), err.message()), (Kind::BadCopy, "unterminated CSV quoted field"));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in prop::collection::vec(prop::sample::select(b"a\\\"\n\r,\tN.x1".to_vec()), 0..60), csv: bool, piece in 1..9usize) {
            let whole = read(options(csv), &bytes, bytes.len().max(1)).map_err(|err| err.to_string());
            let pieces = read(options(csv), &bytes, piece).map_err(|err| err.to_string());
            prop_assert_eq!(whole, pieces);
        }
    }
}
