//! One syslog line: where its fields are. A pure function of the line's bytes, which touches no column.

use memchr::{memchr, memchr3};

use super::structured;
use crate::format::timestamp::{self, Zone};
use crate::format::yearless::{Yearless, Years, month_day};
use crate::time::Micros;

/// The fields of one line, as slices of it.
#[derive(Debug, Default, PartialEq)]
pub struct Entry<'a> {
    /// `None`: the line says no time.
    pub ts: Option<Micros>,
    /// Facility times 8 plus severity: below 192.
    pub priority: Option<u8>,
    pub host: Option<&'a [u8]>,
    pub app: Option<&'a [u8]>,
    pub pid: Option<&'a [u8]>,
    pub msgid: Option<&'a [u8]>,
    /// The elements as they are written.
    pub structured_data: Option<&'a [u8]>,
    pub message: Option<&'a [u8]>,
}

/// Reads a line, or says what is wrong with it; `zone` and `years` hold for times that say none.
pub fn parse<'a>(line: &'a [u8], zone: Zone, years: &Years) -> Result<Entry<'a>, &'static str> {
    if line.is_empty() {
        return Err("empty line");
    }
    match priority(line) {
        Some((priority, rest)) => match rest {
            // Version 1 and then a time, or none.
            [b'1', b' ', b'0'..=b'9' | b'-', ..] => rfc5424(priority, &rest[2..], zone),
            _ => relaxed(Some(priority), rest, zone, years),
        },
        None => relaxed(None, line, zone, years),
    }
}

/// `<165>`, and what follows it.
fn priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let inside = line.strip_prefix(b"<")?;
    let digits = inside.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = inside[digits..].strip_prefix(b">")?;
    let priority = timestamp::number(&inside[..digits]).filter(|priority| *priority < 192)?;
    Some((priority as u8, rest))
}

/// `TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`, each `-` where there is none (RFC 5424, section 6).
fn rfc5424(priority: u8, text: &[u8], zone: Zone) -> Result<Entry<'_>, &'static str> {
    let mut rest = text;
    let ts = match word(&mut rest).ok_or("no time after the version")? {
        None => None,
        Some(time) => Some(timestamp::rfc3339(time, zone).ok_or("the time is not like 2003-10-11T22:14:15.003Z")?),
    };
    let host = word(&mut rest).ok_or("no host after the time")?;
    let app = word(&mut rest).ok_or("no app after the host")?;
    let pid = word(&mut rest).ok_or("no process after the app")?;
    let msgid = word(&mut rest).ok_or("no message id after the process")?;
    let (structured_data, rest) = match rest {
        [b'-', rest @ ..] => (None, rest),
        [b'[', ..] => {
            let (elements, rest) = rest.split_at(structured::length(rest).ok_or("the structured data is not closed")?);
            (Some(elements), rest)
        }
        _ => return Err("no structured data after the message id"),
    };
    let message = match rest {
        [] => None,
        // The mark says that the text is UTF-8, and is none of it.
        [b' ', 0xef, 0xbb, 0xbf, text @ ..] | [b' ', text @ ..] => Some(text),
        _ => return Err("no space after the structured data"),
    };
    Ok(Entry { ts, priority: Some(priority), host, app, pid, msgid, structured_data, message })
}

/// Takes a word and the space behind it off `text`; `-` is no value.
fn word<'a>(text: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = memchr(b' ', text).filter(|len| *len > 0)?;
    let (word, rest) = text.split_at(len);
    *text = &rest[1..];
    Some((word != b"-").then_some(word))
}

/// `TIMESTAMP HOST TAG[PID]: text`, of which anything may be missing (RFC 3164, and what programs make of it).
fn relaxed<'a>(priority: Option<u8>, text: &'a [u8], zone: Zone, years: &Years) -> Result<Entry<'a>, &'static str> {
    let mut entry = Entry { priority, ..Entry::default() };
    let mut text = text;
    let mut is_iso = false;
    if let Some((time, rest)) = iso_time(text, zone) {
        (entry.ts, text, is_iso) = (Some(time), rest, true);
    } else if let Some((time, rest)) = named_month(text, years) {
        (entry.ts, text) = (Some(time.ok_or("there is no such day or time in the year")?), rest);
    } else if priority.is_none() {
        return Err("no time at the start");
    }
    if entry.ts.is_some() {
        text = match text {
            // As devices write it that do not tell their name.
            [b':', b' ', rest @ ..] => rest,
            [b' ', rest @ ..] => {
                let len = memchr(b' ', rest).unwrap_or(rest.len());
                let word = &rest[..len];
                if word.ends_with(b":") || word.ends_with(b"]") {
                    rest // the tag: there is no host
                } else {
                    entry.host = Some(host(word).ok_or("no host after the time")?);
                    rest.get(len + 1..).unwrap_or_default()
                }
            }
            _ => return Err("no space after the time"),
        };
    }
    let message = match tag(text) {
        Some((app, pid, message)) => {
            (entry.app, entry.pid) = (Some(app), pid);
            message
        }
        None => text,
    };
    // A time like this starts the lines of many other logs. Those have no tag, or a level where the host should be.
    if priority.is_none() && is_iso {
        if entry.host.is_none_or(is_level) {
            return Err("no host after the time");
        }
        if entry.app.is_none() && !is_of_the_daemon(message) {
            return Err("no tag after the host");
        }
    }
    entry.message = Some(message);
    Ok(entry)
}

/// `2003-10-11T22:14:15.003+02:00`, and what follows it.
fn iso_time(text: &[u8], zone: Zone) -> Option<(Micros, &[u8])> {
    let end = memchr(b' ', text).unwrap_or(text.len());
    if text.get(10) != Some(&b'T') || !text[0].is_ascii_digit() {
        return None;
    }
    let time = text[..end].strip_suffix(b":").unwrap_or(&text[..end]);
    Some((timestamp::rfc3339(time, zone)?, &text[time.len()..]))
}

/// `Oct 11 22:14:15`, also with a year and a zone as some devices add them: `Oct 11 2003 22:14:15.003`,
/// `Oct 11 22:14:15 2003`, `Aug 24 05:34:00 CST 1987`. The name of a zone is not read: the same name stands for several.
/// The time is `None` when there is no such moment.
fn named_month<'a>(text: &'a [u8], years: &Years) -> Option<(Option<Micros>, &'a [u8])> {
    let (month, day, rest) = month_day(text)?;
    let (before, rest) = match rest.split_at_checked(5) {
        Some((year, tail)) if year[4] == b' ' => (Some(timestamp::number(&year[..4])?), tail),
        _ => (None, rest),
    };
    let (time, rest) = timestamp::time_of_day(rest)?;
    let (behind, rest) = match before {
        Some(_) => (None, rest),
        None => year_behind(rest).map_or((None, rest), |(year, rest)| (Some(year), rest)),
    };
    let at = Yearless { month, day, time };
    let moment = match before.or(behind) {
        Some(year) => years.in_year(year.into(), at),
        None => years.resolve(at),
    };
    Some((moment, rest))
}

/// ` 1987` or ` CST 1987`, as one or two words of their own.
fn year_behind(text: &[u8]) -> Option<(u32, &[u8])> {
    let rest = text.strip_prefix(b" ")?;
    let letters = rest.iter().take_while(|b| b.is_ascii_uppercase()).count();
    let rest = match letters {
        0 => rest,
        3..=5 => rest[letters..].strip_prefix(b" ")?,
        _ => return None,
    };
    let (year, rest) = rest.split_at_checked(4)?;
    let year = timestamp::number(year).filter(|year| (1970..2100).contains(year))?;
    matches!(rest.first(), Some(b' ' | b':')).then_some((year, rest))
}

/// A word that can be the name or address of a host.
fn host(word: &[u8]) -> Option<&[u8]> {
    let odd = |b: &u8| b.is_ascii_control() || b"[]{}<>\"'=|,;".contains(b);
    (!word.is_empty() && !word.iter().any(odd)).then_some(word)
}

/// `tag: text`, `tag[pid]: text`: tag, process and text. The tag is one word.
fn tag(text: &[u8]) -> Option<(&[u8], Option<&[u8]>, &[u8])> {
    let space = |rest: &[u8]| usize::from(rest.first() == Some(&b' '));
    let mut from = 0;
    loop {
        let at = from + memchr3(b' ', b':', b'[', &text[from..])?;
        let (word, rest) = (&text[..at], &text[at + 1..]);
        match text[at] {
            b':' if at > 0 && matches!(rest.first(), None | Some(b' ' | b'[')) => {
                return Some((word, None, &rest[space(rest)..]));
            }
            b'[' if at > 0 => {
                let len = memchr(b']', rest)?;
                let pid = &rest[..len];
                if pid.is_empty() || pid.contains(&b' ') {
                    return None;
                }
                let rest = &rest[len + 1..];
                let rest = rest.strip_prefix(b":").unwrap_or(rest);
                return Some((word, Some(pid), &rest[space(rest)..]));
            }
            b':' if at > 0 => from = at + 1, // as in Foo::Bar
            _ => return None,
        }
    }
}

fn is_level(word: &[u8]) -> bool {
    const LEVELS: [&[u8]; 14] = [
        b"trace",
        b"debug",
        b"info",
        b"notice",
        b"warn",
        b"warning",
        b"err",
        b"error",
        b"crit",
        b"critical",
        b"fatal",
        b"severe",
        b"alert",
        b"emerg",
    ];
    LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level))
}

/// What a daemon of syslog says in its own name, without a tag.
fn is_of_the_daemon(message: &[u8]) -> bool {
    [&b"last message repeated "[..], b"message repeated ", b"-- MARK --"].iter().any(|said| message.starts_with(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a line that came in November 2003, nothing as nothing: priority, host, app, pid, message.
    fn fields(line: &str) -> Result<String, &'static str> {
        let years = Years::new(1_069_286_400_000_000, Zone::UTC, None);
        let entry = parse(line.as_bytes(), Zone::UTC, &years)?;
        let text = |field: Option<&[u8]>| String::from_utf8(field.unwrap_or_default().to_vec()).unwrap();
        let priority = entry.priority.map(|p| p.to_string()).unwrap_or_default();
        Ok([priority, text(entry.host), text(entry.app), text(entry.pid), text(entry.message)].join("|"))
    }

    fn time(line: &str) -> Option<String> {
        let years = Years::new(1_069_286_400_000_000, Zone::UTC, None);
        let ts = parse(line.as_bytes(), Zone::UTC, &years).unwrap().ts?;
        Some(chrono::DateTime::from_timestamp_micros(ts).unwrap().to_string())
    }

    #[test]
    fn tags_and_hosts() {
        const BSD: &str = "Oct 11 22:14:15";
        const ISO: &str = "2003-10-11T22:14:15.003123+02:00";
        for (line, expected) in [
            (format!("{BSD} h su: x: y"), "|h|su||x: y"),
            (format!("{BSD} h sudo:   root : TTY"), "|h|sudo||  root : TTY"),
            (format!("{BSD} h sshd(pam_unix)[12]: x"), "|h|sshd(pam_unix)|12|x"),
            (format!("{BSD} h kernel:[1.5] x"), "|h|kernel||[1.5] x"),
            (format!("{BSD} h Foo::Bar[a-1]: x"), "|h|Foo::Bar|a-1|x"),
            (format!("{BSD} h cron[7] x"), "|h|cron|7|x"),
            (format!("{BSD} h last message repeated 3 times"), "|h|||last message repeated 3 times"),
            (format!("{BSD} h http://x is down"), "|h|||http://x is down"),
            (format!("{BSD} h a[b c]: x"), "|h|||a[b c]: x"),
            (format!("{BSD} h : x"), "|h|||: x"),
            (format!("{BSD} h"), "|h|||"),
            (format!("{BSD} su[1]: x"), "||su|1|x"),
            (format!("{BSD}: %ASA-6-1: x"), "||%ASA-6-1||x"),
            (format!("{BSD} fe80::1%eth0 su: x"), "|fe80::1%eth0|su||x"),
            (format!("<13>{BSD} h su: x"), "13|h|su||x"),
            (format!("{ISO} h su[1]: x"), "|h|su|1|x"),
            (format!("{ISO} h last message repeated 3 times"), "|h|||last message repeated 3 times"),
            (format!("<13>{ISO} h no tag"), "13|h|||no tag"),
            (format!("<191>{BSD} h x"), "191|h|||x"),
        ] {
            assert_eq!(fields(&line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn times() {
        for (line, expected) in [
            ("Oct  1 22:14:15 h x", Some("2003-10-01 22:14:15 UTC")),
            ("Dec  1 22:14:15.25 h x", Some("2002-12-01 22:14:15.250 UTC")),
            ("Oct 11 2001 22:14:15 h : x", Some("2001-10-11 22:14:15 UTC")),
            ("Oct 11 22:14:15 2001: x", Some("2001-10-11 22:14:15 UTC")),
            ("Oct 11 22:14:15 UTC 2001 h x", Some("2001-10-11 22:14:15 UTC")),
            ("Oct 11 22:14:15 CST h x", Some("2003-10-11 22:14:15 UTC")),
            ("2003-10-11T22:14:15 h su: x", Some("2003-10-11 22:14:15 UTC")),
            ("<1>2003-10-11T22:14:15+02:00: x", Some("2003-10-11 20:14:15 UTC")),
            ("<1>soon", None),
            ("<1>1 - - - - - -", None),
        ] {
            assert_eq!(time(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn reasons() {
        for (line, reason) in [
            ("", "empty line"),
            ("hello", "no time at the start"),
            ("<192>Use the BFG!", "no time at the start"),
            ("<>x", "no time at the start"),
            ("2003-10-11 22:14:15 h su: x", "no time at the start"),
            ("Feb 30 22:14:15 h su: x", "there is no such day or time in the year"),
            ("Oct 11 22:14:15", "no space after the time"),
            ("Oct 11 22:14:15  h su: x", "no host after the time"),
            ("Oct 11 22:14:15 {\"a\":1} x", "no host after the time"),
            ("2003-10-11T22:14:15Z h x", "no tag after the host"),
            ("2003-10-11T22:14:15Z INFO server: started", "no host after the time"),
            ("2003-10-11T22:14:15Z server: started", "no host after the time"),
            ("<1>1 2003-10-11 h ", "no app after the host"),
            ("<1>1 2003-13-11T22:14:15Z h a p m - x", "the time is not like 2003-10-11T22:14:15.003Z"),
            ("<1>1 -  h a p m - x", "no host after the time"),
            ("<1>1 - h a p m x", "no structured data after the message id"),
            ("<1>1 - h a p m [x", "the structured data is not closed"),
            ("<1>1 - h a p m [x]y", "no space after the structured data"),
        ] {
            assert_eq!(fields(line), Err(reason), "{line}");
        }
    }
}
