//! Dates, times and intervals in literals, as PostgreSQL reads them (PostgreSQL manual, Date/Time Types): more spellings than
//! Arrow has, and errors that say whether it is the form that is wrong (22007) or a field (22008).

use std::fmt::Write as _;

use chrono::NaiveDate;

use super::function::zone::{Zone, find};
use crate::error::{Error, Kind, Result};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What a literal is to become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    Date,
    Time,
    Timestamp,
    /// With a zone; without one in the text it is UTC.
    Zoned,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Date => "date",
            Target::Time => "time",
            Target::Timestamp => "timestamp",
            Target::Zoned => "timestamp with time zone",
        }
    }
}

/// What a literal says.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// In a spelling that Arrow reads.
    Text(String),
    /// `now`.
    Now,
    /// So many days from today.
    Day(i64),
    /// What Arrow has to read, or to refuse.
    Other,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const LONG_MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 14] = [
    "sun",
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// Reads a literal, rounded to `digits` of a second.
pub fn read(given: &str, target: Target, digits: Option<u64>) -> Result<Said> {
    let syntax =
        || Error::new(Kind::InvalidDatetime, format!("invalid input syntax for type {}: \"{given}\"", target.name()));
    let range = || Error::new(Kind::DatetimeOverflow, format!("date/time field value out of range: \"{given}\""));
    let text = given.trim();
    match text.to_ascii_lowercase().as_str() {
        "now" => return Ok(Said::Now),
        "today" => return Ok(Said::Day(0)),
        "tomorrow" => return Ok(Said::Day(1)),
        "yesterday" => return Ok(Said::Day(-1)),
        "epoch" if target != Target::Time => return Ok(Said::Text(written(0, 0, target))),
        "infinity" | "-infinity" => return Ok(Said::Other),
        _ => {}
    }
    let (mut date, mut clock, mut zone) = (None, None, None);
    let (mut month, mut numbers, mut afternoon) = (None, Vec::new(), None);
    for token in tokens(text) {
        let lower = token.to_ascii_lowercase();
        let of_month =
            || MONTHS.iter().position(|m| *m == lower).or_else(|| LONG_MONTHS.iter().position(|m| *m == lower));
        if token.contains(':') && token.starts_with(|c: char| c.is_ascii_digit()) && clock.is_none() {
            let (time, rest) = time_of(&token).ok_or_else(syntax)?;
            clock = Some(time.ok_or_else(range)?);
            if !rest.is_empty() {
                zone = Some(zone_of(rest).ok_or_else(syntax)?);
            }
        } else if let Some(parts) = date_of(&token) {
            if date.is_some() {
                return Err(syntax());
            }
            date = Some(parts);
        } else if let Some(found) = of_month() {
            month = Some(found as i64 + 1);
        } else if matches!(lower.as_str(), "am" | "pm") && clock.is_some() {
            afternoon = Some(lower == "pm");
        } else if WEEKDAYS.contains(&lower.as_str()) || lower == "t" || lower == "ad" {
            // They say nothing more.
        } else if !token.is_empty() && token.bytes().all(|c| c.is_ascii_digit()) {
            numbers.push(token.parse::<i64>().map_err(|_| syntax())?);
        } else if clock.is_some() || date.is_some() {
            zone = Some(zone_of(&token).ok_or_else(syntax)?);
        } else {
            return Err(syntax());
        }
    }
    if let (Some(month), [a, b]) = (month, numbers.as_slice()) {
        // The day is the one that can be one.
        date = Some(if *a > 31 { (*a, month, *b) } else { (*b, month, *a) });
    } else if !numbers.is_empty() || month.is_some() {
        return Err(syntax());
    }
    let mut clock: i64 = match (clock, target) {
        (Some(clock), _) => clock,
        (None, Target::Time) => return Err(syntax()),
        (None, _) => 0,
    };
    if let Some(afternoon) = afternoon {
        let hour = clock / 3_600_000_000;
        if !(1..=12).contains(&hour) {
            return Err(range());
        }
        clock += match (hour, afternoon) {
            (12, false) => -43_200_000_000,
            (1..=11, true) => 43_200_000_000,
            _ => 0,
        };
    }
    if let Some(digits) = digits.filter(|digits| *digits < 6) {
        let unit = 10_i64.pow(6 - digits as u32);
        clock = (clock + unit / 2) / unit * unit;
    }
    let days = match (date, target) {
        (Some((year, month, day)), _) => {
            let year = i32::try_from(year).map_err(|_| range())?;
            let (Ok(month), Ok(day)) = (u32::try_from(month), u32::try_from(day)) else { return Err(range()) };
            let date = NaiveDate::from_ymd_opt(year, month, day).ok_or_else(range)?;
            if !(1..=9999).contains(&year) {
                return Ok(Said::Other);
            }
            i64::from(date.to_epoch_days())
        }
        (None, Target::Time) => 0,
        (None, _) => return Err(syntax()),
    };
    let mut micros = days * MICROS_PER_DAY + clock;
    if let (Target::Zoned, Some(zone)) = (target, zone) {
        micros = zone.utc_of(micros);
    }
    Ok(Said::Text(written(micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY), target)))
}

/// Words; a date and a time of day may be joined by `T`.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for word in text.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty()) {
        let joined = word.find(['T', 't']).filter(|at| {
            let (before, after) = word.split_at(*at);
            before.starts_with(|c: char| c.is_ascii_digit()) && after[1..].starts_with(|c: char| c.is_ascii_digit())
        });
        match joined {
            Some(at) => tokens.extend([word[..at].to_string(), word[at + 1..].to_string()]),
            None => tokens.push(word.to_string()),
        }
    }
    tokens
}

/// `2026-01-02`, `1/2/2026`, `20260102`, `02-Jan-2026`.
fn date_of(token: &str) -> Option<(i64, i64, i64)> {
    let number = |text: &str| -> Option<i64> {
        let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        if plain { text.parse().ok() } else { None }
    };
    let parts: Vec<&str> = token.split('-').collect();
    match parts.as_slice() {
        [year, month, day] if year.len() >= 3 => return Some((number(year)?, number(month)?, number(day)?)),
        [day, month, year] => {
            let found = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))?;
            return Some((number(year)?, found as i64 + 1, number(day)?));
        }
        _ => {}
    }
    let parts: Vec<&str> = token.split('/').collect();
    match parts.as_slice() {
        [year, month, day] if year.len() == 4 => return Some((number(year)?, number(month)?, number(day)?)),
        [month, day, year] => return Some((number(year)?, number(month)?, number(day)?)),
        _ => {}
    }
    if token.len() == 8 {
        let number = number(token)?;
        return Some((number / 10_000, number / 100 % 100, number % 100));
    }
    None
}

/// Microseconds of a day (`None` where a field is out of range), and what follows the clock.
fn time_of(token: &str) -> Option<(Option<i64>, &str)> {
    let end = token.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(token.len());
    let (clock, rest) = token.split_at(end);
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    if parts.next().is_some() {
        return None;
    }
    let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
    let number = |text: &str| -> Option<i64> { if text.len() <= 4 { text.parse().ok() } else { None } };
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    let fraction = if fraction.is_empty() {
        0
    } else {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        // Rounded to microseconds.
        (digits.parse::<i64>().ok()? + 500) / 1000
    };
    let micros = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction;
    let fits = hour <= 24 && minute < 60 && second <= 60 && micros <= MICROS_PER_DAY;
    Some((fits.then_some(micros), rest))
}

fn zone_of(text: &str) -> Option<Zone> {
    find(text.trim()).ok()
}

fn written(days: i64, micros: i64, target: Target) -> String {
    let (year, month, day) = crate::time::civil_from_days(days);
    let mut out = String::new();
    if target != Target::Time {
        let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    }
    if target == Target::Date {
        return out;
    }
    let seconds = micros / 1_000_000;
    let separator = if target == Target::Time { "" } else { "T" };
    let _ = write!(out, "{separator}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros % 1_000_000 != 0 {
        let _ = write!(out, ".{:06}", micros % 1_000_000);
    }
    if target == Target::Zoned {
        out.push('Z');
    }
    out
}

/// Months, days and microseconds of an interval under construction, with fractions carried down as PostgreSQL carries them.
#[derive(Default)]
struct Span {
    months: f64,
    days: f64,
    micros: f64,
}

impl Span {
    fn add(&mut self, number: f64, unit: &str) -> Option<()> {
        let months = |span: &mut Span, months: f64| {
            span.months += months.trunc();
            span.days(months.fract() * 30.0);
        };
        match unit {
            "us" | "usec" | "usecs" | "microsecond" | "microseconds" => self.micros += number,
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => self.micros += number * 1e3,
            "" | "s" | "sec" | "secs" | "second" | "seconds" => self.micros += number * 1e6,
            "m" | "min" | "mins" | "minute" | "minutes" => self.micros += number * 60e6,
            "h" | "hr" | "hrs" | "hour" | "hours" => self.micros += number * 3600e6,
            "d" | "day" | "days" => self.days(number),
            "w" | "week" | "weeks" => self.days(number * 7.0),
            "mon" | "mons" | "month" | "months" => months(self, number),
            // A part of a year is of whole months.
            "y" | "yr" | "yrs" | "year" | "years" => self.months += (number * 12.0).round(),
            "decade" | "decades" => self.months += (number * 120.0).round(),
            "century" | "centuries" | "c" => self.months += (number * 1200.0).round(),
            "millennium" | "millennia" | "mil" => self.months += (number * 12_000.0).round(),
            _ => return None,
        }
        Some(())
    }

    fn days(&mut self, days: f64) {
        self.days += days.trunc();
        self.micros += days.fract() * MICROS_PER_DAY as f64;
    }
}

/// An interval in a spelling that Arrow reads.
pub fn interval(given: &str) -> Result<String> {
    let wrong = || Error::new(Kind::InvalidDatetime, format!("invalid input syntax for type interval: \"{given}\""));
    let span = span(given.trim()).ok_or_else(wrong)?;
    if span.months.abs() > f64::from(i32::MAX) || span.days.abs() > f64::from(i32::MAX) || span.micros.abs() > 9.2e15 {
        return Err(Error::new(Kind::DatetimeOverflow, format!("interval field value out of range: \"{given}\"")));
    }
    let micros = span.micros.round() as i64;
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.abs() / 1_000_000, micros.abs() % 1_000_000);
    Ok(format!("{} months {} days {sign}{seconds}.{fraction:06} seconds", span.months as i64, span.days as i64))
}

fn span(text: &str) -> Option<Span> {
    let mut span = Span::default();
    if let Some(iso) = text.strip_prefix('P') {
        let mut in_time = false;
        let mut rest = iso;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('T') {
                (in_time, rest) = (true, after);
                continue;
            }
            let end = rest.find(|c: char| !(c.is_ascii_digit() || ".-+".contains(c)))?;
            let number: f64 = rest[..end].parse().ok()?;
            let unit = match (rest[end..].chars().next()?, in_time) {
                ('Y', false) => "years",
                ('M', false) => "months",
                ('W', false) => "weeks",
                ('D', false) => "days",
                ('H', true) => "hours",
                ('M', true) => "minutes",
                ('S', true) => "seconds",
                _ => return None,
            };
            span.add(number, unit)?;
            rest = &rest[end + 1..];
        }
        return (!iso.is_empty()).then_some(span);
    }
    let words = split_units(&text.to_ascii_lowercase());
    let mut words = words.iter().map(String::as_str).peekable();
    words.peek()?;
    let mut ago = false;
    while let Some(word) = words.next() {
        if word == "ago" && words.peek().is_none() {
            ago = true;
        } else if word == "@" {
            // It begins PostgreSQL's verbose style.
        } else if word.contains(':') {
            span.micros += clock(word)?;
        } else if let Some((years, months)) = years_and_months(word) {
            span.months += years * 12.0 + months;
        } else {
            let number: f64 = word.parse().ok().filter(|n: &f64| n.is_finite())?;
            let unit = words.next_if(|next| next.starts_with(|c: char| c.is_ascii_alphabetic()) && *next != "ago");
            // A number before a clock is of days.
            let unit = match (unit, words.peek()) {
                (None, Some(next)) if next.contains(':') => "days",
                (unit, _) => unit.unwrap_or(""),
            };
            span.add(number, unit)?;
        }
    }
    if ago {
        span = Span { months: -span.months, days: -span.days, micros: -span.micros };
    }
    Some(span)
}

/// Words, and numbers with units right behind them as two.
fn split_units(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while !rest.is_empty() {
            let numeric = |c: char| c.is_ascii_digit() || ".:+-".contains(c);
            let first = rest.starts_with(numeric);
            let end = rest.find(|c: char| numeric(c) != first).unwrap_or(rest.len());
            words.push(rest[..end].to_string());
            rest = &rest[end..];
        }
    }
    words
}

/// `1-2`: a year and two months.
fn years_and_months(word: &str) -> Option<(f64, f64)> {
    let (sign, plain) = match word.strip_prefix('-') {
        Some(plain) => (-1.0, plain),
        None => (1.0, word.strip_prefix('+').unwrap_or(word)),
    };
    let (years, months) = plain.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(years) || !digits(months) {
        return None;
    }
    Some((sign * years.parse::<f64>().ok()?, sign * months.parse::<f64>().ok()?))
}

/// `-1:02:03.5` in microseconds.
fn clock(word: &str) -> Option<f64> {
    let (sign, plain) = match word.strip_prefix('-') {
        Some(plain) => (-1.0, plain),
        None => (1.0, word.strip_prefix('+').unwrap_or(word)),
    };
    let parts: Vec<f64> =
        plain.split(':').map(|part| part.parse::<f64>().ok().filter(|n| *n >= 0.0)).collect::<Option<_>>()?;
    let seconds = match parts.as_slice() {
        [hours, minutes, seconds] if *minutes < 60.0 && *seconds < 61.0 => hours * 3600.0 + minutes * 60.0 + seconds,
        [minutes, seconds] if seconds.fract() != 0.0 => minutes * 60.0 + seconds,
        [hours, minutes] if *minutes < 60.0 => hours * 3600.0 + minutes * 60.0,
        _ => return None,
    };
    Some(sign * seconds * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_many_spellings() {
        for (text, target, expected) in [
            ("2026-01-02", Target::Date, "2026-01-02"),
            ("Jan 2, 2026", Target::Date, "2026-01-02"),
            ("2 January 2026", Target::Date, "2026-01-02"),
            ("20260102", Target::Date, "2026-01-02"),
            ("1/2/2026", Target::Date, "2026-01-02"),
            ("02-Jan-2026", Target::Date, "2026-01-02"),
            ("2026-01-02 03:04", Target::Timestamp, "2026-01-02T03:04:00"),
            ("2026-01-02T03:04:05.678Z", Target::Timestamp, "2026-01-02T03:04:05.678000"),
            ("2026-01-02 03:04:05 PM", Target::Timestamp, "2026-01-02T15:04:05"),
            ("2026-01-02 03:00+00", Target::Zoned, "2026-01-02T03:00:00Z"),
            ("2026-01-02 03:00:00.5 +02:30", Target::Zoned, "2026-01-02T00:30:00.500000Z"),
            ("2026-07-02 03:00 Europe/Berlin", Target::Zoned, "2026-07-02T01:00:00Z"),
            ("2026-01-02", Target::Zoned, "2026-01-02T00:00:00Z"),
            ("04:05", Target::Time, "04:05:00"),
            ("epoch", Target::Zoned, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(text, target, None).unwrap(), Said::Text(expected.into()), "{text}");
        }
        assert_eq!(
            read("2026-01-02 03:04:05.678", Target::Timestamp, Some(0)).unwrap(),
            Said::Text("2026-01-02T03:04:06".into())
        );
        for (text, kind) in [
            ("2026-13-01", Kind::DatetimeOverflow),
            ("2026-02-30", Kind::DatetimeOverflow),
            ("yesterdayish", Kind::InvalidDatetime),
            ("", Kind::InvalidDatetime),
            ("12", Kind::InvalidDatetime),
            ("2026-01-01 25:00", Kind::DatetimeOverflow),
        ] {
            assert_eq!(read(text, Target::Timestamp, None).unwrap_err().kind(), kind, "{text}");
        }
    }

    #[test]
    fn intervals_are_read_in_many_spellings() {
        for (text, expected) in [
            ("1 day", "0 months 1 days 0.000000 seconds"),
            ("1 year 2 mons 3 days 04:05:06", "14 months 3 days 14706.000000 seconds"),
            ("1.5 hours", "0 months 0 days 5400.000000 seconds"),
            ("1.5 months", "1 months 15 days 0.000000 seconds"),
            ("P1Y2M3DT4H5M6S", "14 months 3 days 14706.000000 seconds"),
            ("1-2", "14 months 0 days 0.000000 seconds"),
            ("1 day -1 hour", "0 months 1 days -3600.000000 seconds"),
            ("2h30m", "0 months 0 days 9000.000000 seconds"),
            ("3 days ago", "0 months -3 days 0.000000 seconds"),
            ("1 02:00", "0 months 1 days 7200.000000 seconds"),
            ("-00:00:01.5", "0 months 0 days -1.500000 seconds"),
            ("10", "0 months 0 days 10.000000 seconds"),
        ] {
            assert_eq!(interval(text).unwrap(), expected, "{text}");
        }
        for text in ["", "soon", "1 fortnight", "P", "1:99:00", "day"] {
            assert_eq!(interval(text).unwrap_err().kind(), Kind::InvalidDatetime, "{text}");
        }
    }
}
