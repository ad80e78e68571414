//! Pieces of a line: the fields of the prefix, severity, time, and what a message says of a statement. Pure functions of its
//! bytes, which touch no column.

use memchr::{memchr, memmem};

use super::prefix::Field;
use crate::format::layout::Reader;
use crate::format::timestamp::{self, Zone};
use crate::format::zone_names;
use crate::time::Micros;

/// What stands where a severity does and belongs to the message before, each with its column.
const SECTIONS: &[(&str, &str)] = &[
    ("DETAIL", "detail"),
    ("HINT", "hint"),
    ("QUERY", "query"),
    ("CONTEXT", "context"),
    ("STATEMENT", "statement"),
    ("LOCATION", "location"),
];

/// What stands behind a severity.
pub const BEHIND_SEVERITY: &[u8] = b":  ";

/// The length of the severity that `text` begins with: a word in capitals, of any language that the server speaks.
pub fn severity(text: &[u8]) -> Option<usize> {
    let capital = |b: &&u8| b.is_ascii_uppercase() || b.is_ascii_digit() || !b.is_ascii();
    let len = text.iter().take_while(capital).count();
    (len >= 3 && text[len..].starts_with(BEHIND_SEVERITY)).then_some(len)
}

/// The column of a section.
pub fn section(severity: &[u8]) -> Option<&'static str> {
    SECTIONS.iter().find(|(name, _)| name.as_bytes() == severity).map(|(_, column)| *column)
}

/// How long something took, and where its statement begins in the message: `duration: 2033.123 ms  statement: SELECT`,
/// `execute <unnamed>: SELECT`.
pub fn timing(message: &[u8]) -> (Option<f64>, Option<usize>) {
    let mut rest = message;
    let mut duration = None;
    if let Some(behind) = message.strip_prefix(b"duration: ")
        && let Some(len) = memmem::find(behind, b" ms")
        && let Some(ms) = std::str::from_utf8(&behind[..len]).ok().and_then(|text| text.parse().ok())
    {
        duration = Some(ms);
        rest = behind[len + 3..].trim_ascii_start();
    }
    let step = |words: &[&[u8]]| words.iter().any(|word| rest.starts_with(word));
    let names_statement =
        step(&[b"statement: ", b"execute ", b"fastpath "]) || duration.is_some() && step(&[b"parse ", b"bind "]);
    let at = memmem::find(rest, b": ").filter(|_| names_statement);
    (duration, at.map(|at| message.len() - rest.len() + at + 2))
}

/// `10.0.0.7(5432)`: address and port.
pub fn split_port(client: &[u8]) -> (&[u8], Option<i64>) {
    let split = || {
        let open = memchr(b'(', client)?;
        Some((&client[..open], Some(whole(client[open + 1..].strip_suffix(b")")?)?)))
    };
    split().unwrap_or((client, None))
}

/// Why a time is none.
pub enum NoTime {
    Form,
    Zone,
}

/// The time that `text` begins with, and its length.
pub fn read_time(field: Field, text: &[u8], zone: Option<Zone>) -> Result<(Micros, usize), NoTime> {
    if let Field::Epoch(_) = field {
        let len = text.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        let number = std::str::from_utf8(&text[..len]).ok().and_then(|number| number.parse().ok());
        return number.and_then(timestamp::epoch_float).map(|time| (time, len)).ok_or(NoTime::Form);
    }
    let clock = text.get(10).filter(|b| **b == b' ').and_then(|_| timestamp::time_of_day(&text[11..]));
    let (_, behind) = clock.ok_or(NoTime::Form)?;
    let len = text.len() - behind.len();
    let (zone, name) = match behind.strip_prefix(b" ").and_then(zone_names::length) {
        None => (zone.unwrap_or(Zone::UTC), 0),
        Some(name) => (zone_names::named(&behind[1..=name], zone).ok_or(NoTime::Zone)?, name + 1),
    };
    let time = timestamp::rfc3339(&text[..len], zone).ok_or(NoTime::Form)?;
    Ok((time, len + name))
}

/// Reads the fields of a prefix.
pub struct Fields {
    pub zone: Option<Zone>,
    /// Whether a line was given up because nobody knows the zone that it names.
    pub unknown_zone: bool,
}

impl Reader<Field> for Fields {
    fn length(&mut self, field: &Field, text: &[u8]) -> Option<Option<usize>> {
        match field {
            Field::Time(_) | Field::Epoch(_) => Some(match read_time(*field, text, self.zone) {
                Ok((_, length)) => Some(length),
                Err(NoTime::Form) => None,
                Err(NoTime::Zone) => {
                    self.unknown_zone = true;
                    None
                }
            }),
            Field::Text(_) | Field::Host(_) | Field::Client(_) | Field::Id(_) | Field::Number(_) => None,
        }
    }

    /// Any of them may be empty: processes of the server have no session.
    fn accepts(&mut self, field: &Field, value: &[u8]) -> bool {
        let no_space = || !value.iter().any(u8::is_ascii_whitespace);
        match field {
            Field::Time(_) | Field::Epoch(_) => true,
            // A severity in front of the place would be the real one.
            Field::Text(_) => memmem::find(value, BEHIND_SEVERITY).is_none(),
            Field::Host(_) => no_space(),
            Field::Client(_) => no_space() && (value.is_empty() || value == b"[local]" || value.ends_with(b")")),
            Field::Id(_) => value.iter().all(|b| b.is_ascii_alphanumeric() || b"./-".contains(b)),
            Field::Number(_) => value.is_empty() || whole(value).is_some(),
        }
    }

    fn ends(&mut self, rest: &[u8]) -> bool {
        severity(rest).is_some()
    }
}

pub fn whole(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
