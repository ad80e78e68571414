//! One record: where its fields, its message and its stack trace are. A pure function of its bytes, which touches no
//! column.

use memchr::{memchr, memmem};

use super::pattern::{Field, Pattern};
use crate::format::layout::{Place, Reader};
use crate::format::timestamp::Zone;
use crate::format::yearless::Years;
use crate::time::Micros;

/// What a record says: places in it.
#[derive(Debug, Default)]
pub struct Entry {
    pub ts: Option<Micros>,
    /// Of the fields left of the message, and right of it.
    pub left: Vec<Place>,
    pub right: Vec<Place>,
    pub message: Option<Place>,
    pub stack_trace: Option<Place>,
}

/// Which side of a pattern does not fit.
pub enum Misfit {
    Left,
    Right,
}

/// Fills `entry` with the places of `record`, written by `pattern`.
pub fn read(pattern: &Pattern, record: &[u8], mut fields: Fields<'_>, entry: &mut Entry) -> Result<(), Misfit> {
    fields.to_end = !pattern.has_message;
    let first_end = line_end(record, 0);
    let begin = pattern.left.read(&record[..first_end], &mut fields, &mut entry.left).ok_or(Misfit::Left)?;
    entry.right.clear();
    (entry.message, entry.stack_trace) = (None, None);
    let mut end = first_end;
    if pattern.has_message {
        let message_end = if pattern.right.prefix.is_empty() {
            end = trace_start(record, first_end);
            end
        } else {
            fields.to_end = true;
            let (message_end, line_end) =
                right(pattern, record, begin, &mut fields, &mut entry.right).ok_or(Misfit::Right)?;
            end = line_end;
            message_end
        };
        // Line ends between message and trace belong to neither.
        let message = record[begin..message_end].trim_ascii_end().len();
        entry.message = Some(begin..begin + message);
    }
    let trace = record[end..].trim_ascii_end();
    let skipped = trace.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if trace.len() > skipped {
        entry.stack_trace = Some(end + skipped..end + trace.len());
    }
    entry.ts = fields.ts;
    Ok(())
}

/// Where the fields right of the message stand: where the message ends, and where the line ends that they are in, the
/// first in which they are.
fn right(
    pattern: &Pattern,
    record: &[u8],
    message: usize,
    fields: &mut Fields<'_>,
    places: &mut Vec<Place>,
) -> Option<(usize, usize)> {
    let mut start = message;
    loop {
        let end = line_end(record, start);
        // The last place: what stands before may be of the message. So many are enough.
        for found in memmem::rfind_iter(&record[start..end], &pattern.right.prefix).take(8) {
            let at = start + found;
            if pattern.right.read(&record[at..end], fields, places).is_some() {
                places.iter_mut().for_each(|place| *place = place.start + at..place.end + at);
                return Some((at, end));
            }
        }
        start = next_line(record, end)?;
    }
}

/// Where the line ends that holds `at`, without what ends it.
fn line_end(record: &[u8], at: usize) -> usize {
    match memchr(b'\n', &record[at..]) {
        Some(len) if len > 0 && record[at + len - 1] == b'\r' => at + len - 1,
        Some(len) => at + len,
        None => record.len(),
    }
}

/// Where the line begins that follows the one that ends at `end`.
fn next_line(record: &[u8], end: usize) -> Option<usize> {
    Some(end + memchr(b'\n', &record[end..])? + 1)
}

/// Where the stack trace begins behind the line that ends at `end`; the record's end if there is none.
fn trace_start(record: &[u8], end: usize) -> usize {
    let mut end = end;
    while let Some(start) = next_line(record, end) {
        let line_end = line_end(record, start);
        if is_trace(&record[start..line_end]) {
            return end;
        }
        end = line_end;
    }
    record.len()
}

/// `java.io.IOException: Connection reset`, `Caused by: …`, `    at org.x.Y.run(Y.java:93)`; Python's `Traceback (…`.
fn is_trace(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    if [&b"Caused by: "[..], b"Exception in thread ", b"Traceback (most recent call last)"]
        .iter()
        .any(|t| text.starts_with(t))
    {
        return true;
    }
    if let Some(place) = text.strip_prefix(b"at ") {
        return text.len() < line.len() && place.contains(&b'(');
    }
    let name = &text[..text.iter().take_while(|b| is_of_a_name(**b)).count()];
    let throwable = [&b"Exception"[..], b"Error", b"Throwable"].iter().any(|t| name.ends_with(t));
    throwable && matches!(text.get(name.len()), None | Some(b':')) && name.contains(&b'.')
}

/// Whether a byte can be of the name of a class, with its packages.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._$-".contains(&byte) || !byte.is_ascii()
}

/// Reads the fields of a layout.
pub struct Fields<'a> {
    pub zone: Zone,
    pub years: &'a Years,
    /// The time, once it was read.
    pub ts: Option<Micros>,
    /// Whether nothing may follow the layout.
    pub to_end: bool,
}

impl Reader<Field> for Fields<'_> {
    fn length(&mut self, field: &Field, text: &[u8]) -> Option<Option<usize>> {
        let Field::Time(time, zone) = field else { return None };
        let zone = zone.unwrap_or(self.zone);
        let read = time.read(text, zone, &self.years.in_zone(zone));
        self.ts = read.map(|(ts, _)| ts).or(self.ts);
        Some(read.map(|(_, length)| length))
    }

    fn accepts(&mut self, field: &Field, value: &[u8]) -> bool {
        match field {
            Field::Time(..) | Field::Text(_) => true,
            Field::Level => is_level(value),
            // A thread's name before it may hold colons, a class cannot.
            Field::Name("class") => !value.is_empty() && value.iter().all(|b| is_of_a_name(*b)),
            Field::Name(_) => !value.is_empty() && !value.iter().any(u8::is_ascii_whitespace),
            Field::Number(_) => whole(value).is_some(),
        }
    }

    fn ends(&mut self, rest: &[u8]) -> bool {
        !self.to_end || rest.trim_ascii_end().is_empty()
    }
}

/// A level of log4j, java.util.logging, Python or the user's own: a word, and in capitals unless it is well known.
fn is_level(value: &[u8]) -> bool {
    const KNOWN: [&str; 9] = ["trace", "debug", "info", "notice", "warn", "warning", "error", "critical", "fatal"];
    let letters = (2..=12).contains(&value.len()) && value.iter().all(u8::is_ascii_alphabetic);
    letters
        && (value.iter().all(u8::is_ascii_uppercase)
            || KNOWN.iter().any(|known| value.eq_ignore_ascii_case(known.as_bytes())))
}

pub fn whole(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
