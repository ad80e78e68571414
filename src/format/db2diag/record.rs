//! One record of the diagnostic log: where its fields are. A pure function of its bytes, which touches no column.

use memchr::{memchr, memmem};

use crate::format::timestamp::{moment, number};
use crate::time::{MICROS_PER_SECOND, Micros};

/// The labels of the header, with their columns. Several stand in one line.
pub const HEADER: &[(&str, &str)] = &[
    ("PID", "pid"),
    ("TID", "tid"),
    ("PROC", "proc"),
    ("INSTANCE", "instance"),
    ("NODE", "node"),
    ("DB", "db"),
    ("APPHDL", "apphdl"),
    ("APPID", "appid"),
    ("UOWID", "uowid"),
    ("ACTID", "actid"),
    ("AUTHID", "authid"),
    ("HOSTNAME", "hostname"),
    ("EDUID", "edu_id"),
    ("EDUNAME", "edu_name"),
];

/// Those of them whose columns are of numbers. A value that is none stays in its line.
const NUMBERS: &[&str] = &["PID", "TID", "NODE", "EDUID"];

/// Labels of sections that say what happened.
const EVENTS: &[&str] =
    &["START", "STOP", "CREATE", "DROP", "CHANGE", "UPDATE", "READ", "WRITE", "OPEN", "CLOSE", "INIT", "TERM"];

/// The fields of a record, as slices of it.
#[derive(Debug, Default)]
pub struct Record<'a> {
    pub ts: Micros,
    pub id: &'a [u8],
    pub level: Option<&'a [u8]>,
    /// Of [`HEADER`].
    pub header: [Option<&'a [u8]>; HEADER.len()],
    pub component: Option<&'a [u8]>,
    pub function: Option<&'a [u8]>,
    pub probe: Option<&'a [u8]>,
    pub event: Option<&'a [u8]>,
    pub message: Option<&'a [u8]>,
    pub retcode: Option<&'a [u8]>,
    pub callstack: Option<&'a [u8]>,
    /// All that is none of these, with labels.
    pub data: Vec<&'a [u8]>,
}

/// Reads a record, or says what is wrong with it.
pub fn parse(text: &[u8]) -> Result<Record<'_>, &'static str> {
    let text = text.trim_ascii_end();
    if text.is_empty() {
        return Err("empty line");
    }
    let first_end = memchr(b'\n', text).unwrap_or(text.len());
    let (ts, rest) = time(&text[..first_end]).ok_or("no time at the start, like 2023-06-09-20.26.08.204400-420")?;
    let rest = rest.trim_ascii();
    let id_end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    if id_end == 0 {
        return Err("no record id after the time");
    }
    let mut record = Record { ts, id: &rest[..id_end], ..Record::default() };
    let behind = rest[id_end..].trim_ascii();
    if let Some((b"LEVEL", value)) = label(behind) {
        record.level = Some(value.split(|b| *b == b'(').next().unwrap_or(value).trim_ascii()); // Error (OS)
    } else if !behind.is_empty() {
        record.data.push(behind);
    }

    let mut section = None; // where the one at hand begins
    let mut at = first_end + 1;
    while at < text.len() {
        let end = memchr(b'\n', &text[at..]).map_or(text.len(), |len| at + len);
        let line = &text[at..end];
        // Behind FUNCTION a label of the header is part of some data.
        let is_header = record.function.is_none() && record.take_header(line);
        if is_header || section.is_none() || label(line).is_some() {
            let before = std::mem::replace(&mut section, (!is_header).then_some(at));
            if let Some(start) = before {
                record.take_section(&text[start..at]);
            }
        }
        at = end + 1;
    }
    if let Some(start) = section {
        record.take_section(&text[start..]);
    }
    Ok(record)
}

impl<'a> Record<'a> {
    /// Takes the fields of a line of the header; whether it is one.
    fn take_header(&mut self, line: &'a [u8]) -> bool {
        if let Some((b"FUNCTION", value)) = label(line) {
            // Product, component, function, probe:number.
            let (rest, probe) = match memmem::rfind(value, b", probe:") {
                Some(at) if is_number(value[at + 8..].trim_ascii()) => {
                    (&value[..at], Some(value[at + 8..].trim_ascii()))
                }
                Some(_) | None => (value, None),
            };
            let (component, function) = match memmem::rfind(rest, b", ") {
                Some(at) => (Some(&rest[..at]), &rest[at + 2..]),
                None => (None, rest),
            };
            (self.component, self.function, self.probe) = (component, Some(function), probe);
            return true;
        }
        let mut found = header_label(line, 0).filter(|(at, ..)| *at == 0);
        let is_header = found.is_some();
        while let Some((_, field, value)) = found {
            found = header_label(line, value);
            let end = found.map_or(line.len(), |(next, ..)| next);
            let text = line[value..end].trim_ascii();
            let slot = &mut self.header[field];
            let is_wrong = !text.is_empty() && NUMBERS.contains(&HEADER[field].0) && !is_number(text);
            if slot.is_some() || is_wrong {
                self.data.push(line); // twice, or no number: so it says something else
            } else if !text.is_empty() {
                *slot = Some(text);
            }
        }
        is_header
    }

    fn take_section(&mut self, section: &'a [u8]) {
        let section = section.trim_ascii_end();
        let Some((name, value)) = label(section) else {
            if !section.is_empty() {
                self.data.push(section);
            }
            return;
        };
        let is_event = EVENTS.iter().any(|event| event.as_bytes() == name);
        let slot = match name {
            b"MESSAGE" => &mut self.message,
            b"RETCODE" => &mut self.retcode,
            b"CALLSTCK" => &mut self.callstack,
            _ if is_event && self.event.is_none() => &mut self.message,
            _ => return self.data.push(section),
        };
        if slot.is_some() {
            return self.data.push(section);
        }
        *slot = Some(value);
        if is_event {
            self.event = Some(name);
        }
    }
}

/// Digits that are a `bigint`.
fn is_number(text: &[u8]) -> bool {
    (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

/// `DATA #1 : text`: the label that `text` begins with, and what follows it.
fn label(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_label = |b: &&u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_# ".contains(b);
    let len = text.iter().take(24).take_while(is_label).count();
    let (name, value) = (text[..len].trim_ascii_end(), text[len..].strip_prefix(b":")?);
    text.first()?.is_ascii_uppercase().then_some((name, value.trim_ascii_start()))
}

/// The next label of the header from `from` on: where it stands, which it is, and where its value begins.
fn header_label(line: &[u8], from: usize) -> Option<(usize, usize, usize)> {
    let mut at = from;
    while at < line.len() {
        let word = line[at..].iter().take_while(|b| b.is_ascii_uppercase()).count();
        let spaces = line[at + word..].iter().take_while(|b| **b == b' ').count();
        let starts = at == 0 || line[at - 1] == b' ';
        if starts && word > 0 && line.get(at + word + spaces) == Some(&b':') {
            let name = &line[at..at + word];
            if let Some(field) = HEADER.iter().position(|(label, _)| label.as_bytes() == name) {
                return Some((at, field, at + word + spaces + 1));
            }
        }
        at += word.max(1);
    }
    None
}

/// The time that a record begins with, and what follows it: `2023-06-09-20.26.08.204400-420`, where the last number is the
/// zone in minutes east of UTC.
fn time(line: &[u8]) -> Option<(Micros, &[u8])> {
    let (t, rest) = line.split_at_checked(26)?;
    if [t[4], t[7], t[10], t[13], t[16], t[19]] != *b"---..." {
        return None;
    }
    let fields = [&t[..4], &t[5..7], &t[8..10], &t[11..13], &t[14..16], &t[17..19], &t[20..26]].map(number);
    let [Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second), Some(micros)] = fields else {
        return None;
    };
    let (sign, digits) = match rest.split_first()? {
        (b'+', digits) => (1, digits),
        (b'-', digits) => (-1, digits),
        _ => return None,
    };
    let len = digits.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    let minutes = i64::from(number(&digits[..len])?);
    let local = moment(year, month, day, hour, minute, second, micros)?;
    Some((local - sign * minutes * 60 * MICROS_PER_SECOND, &digits[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::timestamp::{Zone, rfc3339};

    fn text(part: Option<&[u8]>) -> &str {
        std::str::from_utf8(part.unwrap_or_default()).unwrap()
    }

    const START: &str = "2014-10-19-12.19.46.033037-300 I1E2 LEVEL: Error (OS)\n";

    #[test]
    fn times_are_in_minutes_east_of_utc() {
        let utc = |text: &str| rfc3339(text.as_bytes(), Zone::UTC).unwrap();
        for (line, expected, rest) in [
            ("2014-10-19-12.19.46.033037-300 I1", Some("2014-10-19T17:19:46.033037Z"), " I1"),
            ("2014-10-19-12.19.46.033037+000", Some("2014-10-19T12:19:46.033037Z"), ""),
            ("2014-10-19-12.19.46.033037+90 x", Some("2014-10-19T10:49:46.033037Z"), " x"),
            ("2014-10-19-12.19.46.033037", None, ""),
            ("2014-10-19-12.19.46.033037 x", None, ""),
            ("2014-10-19 12.19.46.033037+000", None, ""),
            ("2014-13-19-12.19.46.033037+000", None, ""),
        ] {
            let found = time(line.as_bytes());
            assert_eq!(found.map(|(ts, _)| ts), expected.map(utc), "{line}");
            assert_eq!(text(found.map(|(_, rest)| rest)), rest, "{line}");
        }
    }

    #[test]
    fn header_and_sections() {
        let log = format!(
            "{START}PID     : 7                    TID : 8           PROC : db2sysc (A: B) 0\r\nAPPID   : fe80::1.5\n\
             WORKLOAD: x\nFUNCTION: DB2 UDB, a, b, c, probe:9 \nMESSAGE : one\n two\nDB   : of the data\n\
             OSERR   : ENOENT (2)\nMESSAGE : three\nCALLSTCK: \n  [0] f\n"
        );
        let record = parse(log.as_bytes()).unwrap();
        assert_eq!((text(Some(record.id)), text(record.level)), ("I1E2", "Error"));
        let header: Vec<&str> = record.header.iter().map(|field| text(*field)).collect();
        assert_eq!(header[..8], ["7", "8", "db2sysc (A: B) 0", "", "", "", "", "fe80::1.5"]);
        assert_eq!([text(record.component), text(record.function), text(record.probe)], ["DB2 UDB, a, b", "c", "9"]);
        let data: Vec<&str> = record.data.iter().map(|part| text(Some(part))).collect();
        assert_eq!(data, ["WORKLOAD: x", "DB   : of the data", "OSERR   : ENOENT (2)", "MESSAGE : three"]);
        assert_eq!([text(record.message), text(record.callstack)], ["one\n two", "[0] f"]);

        let log = format!("{START}FUNCTION: DB2 UDB, a, c, probe:9\nCHANGE  : x\nSTART   : y\nRETCODE : z\n");
        let record = parse(log.as_bytes()).unwrap();
        assert_eq!([text(record.component), text(record.function), text(record.probe)], ["DB2 UDB, a", "c", "9"]);
        assert_eq!([text(record.event), text(record.message), text(record.retcode)], ["CHANGE", "x", "z"]);
        assert_eq!(record.data, [b"START   : y"]);

        let log = format!("{START}PID     : 7 (gone)   TID : 8\nFUNCTION: DB2 UDB, a, c, probe:none\n");
        let record = parse(log.as_bytes()).unwrap();
        assert_eq!([text(record.header[0]), text(record.header[1])], ["", "8"]);
        assert_eq!(record.data, [b"PID     : 7 (gone)   TID : 8"], "what is no number is kept");
        assert_eq!([text(record.function), text(record.probe)], ["probe:none", ""]);
    }

    #[test]
    fn reasons() {
        let no_time = "no time at the start, like 2023-06-09-20.26.08.204400-420";
        for (log, reason) in [
            ("\n", "empty line"),
            ("PID : 1", no_time),
            ("2014-10-19-12.19.46.033037-300", "no record id after the time"),
        ] {
            assert_eq!(parse(log.as_bytes()).err(), Some(reason), "{log}");
        }
        assert!(parse(START.as_bytes()).is_ok());
    }
}
