//! Times as Java programs write them: the patterns of `SimpleDateFormat` and `DateTimeFormatter`, and log4j's names for
//! some of them.
//!
//! A pattern becomes a list of fields of known length, so a time is read from the left without knowing where it ends.

use crate::error::{Error, Kind, Result};
use crate::format::timestamp::{self, Zone, epoch_in, month_by_name, number, time_of_day};
use crate::format::yearless::{Yearless, Years};
use crate::format::zone_names;
use crate::time::Micros;

/// How times are written.
#[derive(Debug, Clone, PartialEq)]
pub enum JavaTime {
    /// log4j's default, and what is like it: `2015-07-29 17:41:44,747`, also with `T`, a point, or an offset behind.
    Iso,
    /// A number since 1970 of which so many make a second.
    Epoch(i64),
    Fields(Vec<Item>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Item {
    /// So many digits; with 0, one or two.
    Number(Unit, usize),
    /// `Jul`, or a longer name: the first three letters say which.
    MonthName,
    /// `Wed`, which says nothing new.
    Weekday,
    /// `AM` or `PM`.
    HalfDay,
    /// `CEST`, `+0200`, `Z`.
    Zone,
    Literal(u8),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// Of a second.
    Fraction,
}

/// log4j's names for patterns.
const NAMES: &[(&str, &str)] = &[
    ("DATE", "dd MMM yyyy HH:mm:ss,SSS"),
    ("COMPACT", "yyyyMMddHHmmssSSS"),
    ("ISO8601_BASIC", "yyyyMMdd'T'HHmmss,SSS"),
    ("DEFAULT_MICROS", "yyyy-MM-dd HH:mm:ss,SSSSSS"),
    ("DEFAULT_NANOS", "yyyy-MM-dd HH:mm:ss,SSSSSSSSS"),
    ("US_MONTH_DAY_YEAR4_TIME", "dd/MM/yyyy HH:mm:ss.SSS"),
    ("US_MONTH_DAY_YEAR2_TIME", "dd/MM/yy HH:mm:ss.SSS"),
];

impl JavaTime {
    /// Reads what stands in the braces of `%d{…}`; nothing is the default. Refuses a pattern that does not say day and
    /// time: what a clock alone shows is not a moment.
    pub fn from_pattern(pattern: &str) -> Result<JavaTime> {
        match pattern {
            "" | "DEFAULT" | "DEFAULT_PERIOD" | "ISO8601" | "ISO8601_PERIOD" => return Ok(JavaTime::Iso),
            name if name.starts_with("ISO8601_OFFSET") => return Ok(JavaTime::Iso),
            "UNIX" => return Ok(JavaTime::Epoch(1)),
            "UNIX_MILLIS" => return Ok(JavaTime::Epoch(1000)),
            _ => {}
        }
        let bad = |detail: String| {
            Error::new(Kind::InvalidParameter, format!("\"%d{{{pattern}}}\" does not say a moment"))
                .with_detail(detail)
                .with_hint("Such a pattern is 'yyyy-MM-dd HH:mm:ss,SSS'.")
        };
        let named = NAMES.iter().find(|(name, _)| *name == pattern).map(|(_, pattern)| *pattern);
        let items = items(named.unwrap_or(pattern)).map_err(bad)?;
        let has = |unit: Unit| items.iter().any(|item| matches!(item, Item::Number(u, _) if *u == unit));
        let month = has(Unit::Month) || items.contains(&Item::MonthName);
        if month && has(Unit::Day) && has(Unit::Hour) && has(Unit::Minute) {
            Ok(JavaTime::Fields(items))
        } else {
            Err(bad("Month, day, hour or minute is missing.".into()))
        }
    }

    /// The time that `text` starts with, and its length. `zone` and `years` hold for what it does not say.
    pub fn read(&self, text: &[u8], zone: Zone, years: &Years) -> Option<(Micros, usize)> {
        match self {
            JavaTime::Iso => {
                let len = iso_length(text)?;
                Some((timestamp::rfc3339(&text[..len], zone)?, len))
            }
            JavaTime::Epoch(per_second) => {
                let len = text.iter().take_while(|b| b.is_ascii_digit()).count();
                let number = std::str::from_utf8(&text[..len]).ok()?.parse().ok()?;
                Some((epoch_in(number, *per_second)?, len))
            }
            JavaTime::Fields(items) => fields(items, text, zone, years),
        }
    }
}

impl JavaTime {
    /// A regular expression for times that are written so.
    pub fn expression(&self) -> String {
        let item = |item: &Item| match item {
            Item::Number(_, 0) => r"\d{1,2}".to_string(),
            Item::Number(_, digits) => format!(r"\d{{{digits}}}"),
            Item::MonthName | Item::Weekday => "[A-Za-z]{3,}".to_string(),
            Item::HalfDay => "[AaPp][Mm]".to_string(),
            Item::Zone => r"[A-Za-z\d+:-]+".to_string(),
            Item::Literal(b'.' | b',') => "[.,]".to_string(),
            Item::Literal(byte) => regex::escape(&char::from(*byte).to_string()),
        };
        match self {
            JavaTime::Iso => r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d[\d:.,Z+-]*".to_string(),
            JavaTime::Epoch(_) => r"\d+".to_string(),
            JavaTime::Fields(items) => items.iter().map(item).collect(),
        }
    }
}

/// `yyyy-MM-dd'T'HH:mm:ss` to its fields, or what is wrong with it.
fn items(pattern: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut rest = pattern.as_bytes();
    while let Some(&first) = rest.first() {
        if first == b'\'' {
            rest = quoted(rest, &mut items).ok_or("A quote is not closed.")?;
            continue;
        }
        let count = rest.iter().take_while(|b| **b == first).count();
        let short = |unit| Item::Number(unit, if count == 1 { 0 } else { 2 });
        match first {
            b'y' | b'u' => items.push(Item::Number(Unit::Year, if count == 2 { 2 } else { 4 })),
            b'M' | b'L' if count > 2 => items.push(Item::MonthName),
            b'M' | b'L' => items.push(short(Unit::Month)),
            b'd' => items.push(short(Unit::Day)),
            b'H' | b'k' | b'h' | b'K' => items.push(short(Unit::Hour)),
            b'm' => items.push(short(Unit::Minute)),
            b's' => items.push(short(Unit::Second)),
            b'S' | b'n' => items.push(Item::Number(Unit::Fraction, count)),
            b'E' => items.push(Item::Weekday),
            b'a' => items.push(Item::HalfDay),
            b'Z' | b'X' | b'x' | b'z' | b'V' | b'O' => items.push(Item::Zone),
            letter if letter.is_ascii_alphabetic() => {
                return Err(format!("The field \"{}\" is not known.", char::from(letter)));
            }
            other => items.extend(std::iter::repeat_n(Item::Literal(other), count)),
        }
        rest = &rest[count..];
    }
    Ok(items)
}

/// Takes the quoted text that `pattern` starts with; two quotes are a quote, in quoted text too. What follows.
fn quoted<'a>(pattern: &'a [u8], items: &mut Vec<Item>) -> Option<&'a [u8]> {
    let quote = Item::Literal(b'\'');
    if let Some(rest) = pattern.strip_prefix(b"''") {
        items.push(quote);
        return Some(rest);
    }
    let mut rest = &pattern[1..];
    loop {
        let (item, after) = match rest {
            [b'\'', b'\'', after @ ..] => (quote, after),
            [b'\'', after @ ..] => return Some(after),
            [byte, after @ ..] => (Item::Literal(*byte), after),
            [] => return None,
        };
        items.push(item);
        rest = after;
    }
}

fn fields(items: &[Item], text: &[u8], mut zone: Zone, years: &Years) -> Option<(Micros, usize)> {
    let (mut year, mut month, mut day, mut time, mut afternoon) = (None, 0, 0, [0; 4], None);
    let mut rest = text;
    for item in items {
        let len = match *item {
            Item::Literal(byte) => {
                // Which of the two stands before the fraction depends on the program's language.
                let same = rest
                    .first()
                    .is_some_and(|b| *b == byte || (matches!(*b, b'.' | b',') && matches!(byte, b'.' | b',')));
                same.then_some(1)?
            }
            Item::Number(unit, digits) => {
                let (least, most) = if digits == 0 { (1, 2) } else { (digits, digits) };
                let len = rest.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
                (len >= least).then_some(())?;
                // Digits beyond the microsecond are dropped.
                let value = number(&rest[..len.min(if unit == Unit::Fraction { 6 } else { 9 })])?;
                match unit {
                    Unit::Year => year = Some(if digits == 2 { 2000 + value } else { value }),
                    Unit::Month => month = value,
                    Unit::Day => day = value,
                    Unit::Hour => time[0] = value,
                    Unit::Minute => time[1] = value,
                    Unit::Second => time[2] = value,
                    Unit::Fraction => time[3] = value * 10_u32.pow(6 - len.min(6) as u32),
                }
                len
            }
            Item::MonthName | Item::Weekday => {
                let len = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
                if *item == Item::MonthName {
                    month = month_by_name(rest.get(..3)?)?;
                }
                (len >= 3).then_some(len)?
            }
            Item::HalfDay => {
                afternoon = Some(match rest.get(..2)? {
                    b"AM" | b"am" => false,
                    b"PM" | b"pm" => true,
                    _ => return None,
                });
                2
            }
            Item::Zone => {
                let len = zone_names::length(rest)?;
                zone = zone_names::named(&rest[..len], None)?;
                len
            }
        };
        rest = &rest[len..];
    }
    time[0] = match afternoon {
        None => time[0],
        Some(false) => time[0] % 12,
        Some(true) => time[0] % 12 + 12,
    };
    let at = Yearless { month, day, time };
    let moment = match year {
        Some(year) => years.in_zone(zone).in_year(year.into(), at)?,
        None => years.in_zone(zone).resolve(at)?,
    };
    Some((moment, text.len() - rest.len()))
}

/// The length of a date and time like RFC 3339's at the start of `text`.
fn iso_length(text: &[u8]) -> Option<usize> {
    let date = text.get(..11)?;
    matches!(date[10], b' ' | b'T').then_some(())?;
    let (_, rest) = time_of_day(&text[11..])?;
    let len = match rest.first() {
        Some(b'Z') => 1,
        Some(b'+' | b'-') => 1 + rest[1..].iter().take(5).take_while(|b| b.is_ascii_digit() || **b == b':').count(),
        _ => 0,
    };
    Some(text.len() - rest.len() + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: &str, text: &str) -> Option<(Micros, usize)> {
        let received = timestamp::rfc3339(b"2015-12-01", Zone::UTC).unwrap();
        JavaTime::from_pattern(pattern).unwrap().read(
            text.as_bytes(),
            Zone::UTC,
            &Years::new(received, Zone::UTC, None),
        )
    }

    #[test]
    fn patterns_that_loggers_use() {
        const JULY: Micros = 1_438_191_704_747_000; // 2015-07-29T17:41:44.747Z
        for (pattern, text) in [
            ("", "2015-07-29 17:41:44,747"),
            ("ISO8601", "2015-07-29T17:41:44.747Z"),
            ("", "2015-07-29T19:41:44.747+02:00"),
            ("yyyy-MM-dd HH:mm:ss,SSS", "2015-07-29 17:41:44,747"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2015-07-29T19:41:44,747+02:00"),
            ("yy/MM/dd HH:mm:ss.SSS", "15/07/29 17:41:44.747"),
            ("yyMMdd HHmmssSSS", "150729 174144747"),
            ("dd-MMM-yyyy HH:mm:ss.SSS", "29-Jul-2015 17:41:44.747"),
            ("EEE MMM d, yyyy h:mm:ss.SSS a z", "Wed July 29, 2015 7:41:44.747 PM CEST"),
            ("MMM dd HH:mm:ss.SSSSSSSSS", "Jul 29 17:41:44.747000999"),
            ("DATE", "29 Jul 2015 17:41:44,747"),
            ("COMPACT", "20150729174144747"),
            ("yyyy'' MM dd HH 'o''clock' mm ss SSS", "2015' 07 29 17 o'clock 41 44 747"),
            ("UNIX_MILLIS", "1438191704747"),
        ] {
            let more = format!("{text} INFO");
            assert_eq!(read(pattern, &more), Some((JULY, text.len())), "{pattern}: {text}");
        }
        assert_eq!(read("UNIX", "1438191704 x"), Some((JULY - 747_000, 10)));
        for (pattern, text) in [
            ("", "2015-07-29"),
            ("", "2015-07-32 17:41:44,747"),
            ("yyyy-MM-dd HH:mm", "2015-7-29 17:41"),
            ("yyyy-MM-dd HH:mm z", "2015-07-29 17:41 IST"),
            ("dd MMM yyyy HH:mm", "29 Jux 2015 17:41"),
        ] {
            assert_eq!(read(pattern, text), None, "{pattern}: {text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let err = |pattern: &str| JavaTime::from_pattern(pattern).unwrap_err().detail().unwrap().to_string();
        assert_eq!(err("HH:mm:ss,SSS"), "Month, day, hour or minute is missing.");
        assert_eq!(err("ABSOLUTE"), "The field \"A\" is not known.");
        assert_eq!(err("yyyy-MM-dd'T"), "A quote is not closed.");
    }
}
