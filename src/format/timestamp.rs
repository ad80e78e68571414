//! Text and numbers to event time: microseconds since 1970-01-01 UTC.
//!
//! Written by hand because a timestamp is read from every line and the general parsers cost more than the rest of the
//! line together. Dates are computed in the proleptic Gregorian calendar by arithmetic, without tables or a zone
//! database: a text either names its offset, or is read at the fixed offset its reader was told. Nothing here reads a
//! clock, so a format that leaves out the year cannot be read. A leap second (`:60`) is the first second after it.

use chrono::format::{Item, Parsed, StrftimeItems, parse};

use crate::error::{Error, Kind, Result};
use crate::time::{MICROS_PER_SECOND, Micros, days_from_civil};

/// How a timestamp is written.
#[derive(Debug, Clone, PartialEq)]
pub enum TimeFormat {
    /// Whichever of the following three fits.
    Auto,
    /// Common log format: `17/May/2015:10:05:03 +0000`.
    Clf,
    /// RFC 3339 and its relaxed relatives: `2015-05-17T10:05:03.25Z`, `2015-05-17 10:05:03,25 +02:00`, `2015/05/17`.
    Rfc3339,
    /// A number since 1970, in seconds, milliseconds, microseconds or nanoseconds by its magnitude.
    Epoch,
    /// Fields as `strptime` names them, such as `%d.%m.%Y %H:%M:%S`.
    Pattern(Vec<Item<'static>>),
}

impl TimeFormat {
    /// Reads the option `time_format`: `auto`, `clf`, `rfc3339`, `epoch`, or a pattern with `%`. Refuses a pattern that
    /// does not determine a point in time.
    pub fn from_option(text: &str) -> Result<TimeFormat> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => return Ok(TimeFormat::Auto),
            "clf" => return Ok(TimeFormat::Clf),
            "rfc3339" | "iso8601" => return Ok(TimeFormat::Rfc3339),
            "epoch" => return Ok(TimeFormat::Epoch),
            _ => {}
        }
        let bad = |detail: &str| {
            Error::new(Kind::InvalidParameter, format!("\"{text}\" is not a time format"))
                .with_detail(detail)
                .with_hint("Use auto, clf, rfc3339, epoch, or a pattern such as '%Y-%m-%d %H:%M:%S'.")
        };
        if !text.contains('%') {
            return Err(bad("It is neither a known name nor a pattern."));
        }
        let items = StrftimeItems::new(text).parse_to_owned().map_err(|_| bad("It has an unknown % field."))?;
        // Written and read back, a moment must survive: this finds a missing year, day or hour without listing fields.
        let moment = chrono::DateTime::from_timestamp(1_431_857_103, 0).expect("a constant within range");
        let mut written = String::new();
        let printed =
            std::fmt::Write::write_fmt(&mut written, format_args!("{}", moment.format_with_items(items.iter())));
        let format = TimeFormat::Pattern(items);
        if printed.is_err() || format.read(written.as_bytes(), 0).is_none() {
            return Err(bad("It does not say year, month, day, hour and minute."));
        }
        Ok(format)
    }

    /// The time that `text` says; `zone` (seconds east of UTC) holds when it names none.
    pub fn read(&self, text: &[u8], zone: i64) -> Option<Micros> {
        match self {
            TimeFormat::Auto => auto(text, zone),
            TimeFormat::Clf => clf(text),
            TimeFormat::Rfc3339 => rfc3339(text, zone),
            TimeFormat::Epoch => epoch_text(text),
            TimeFormat::Pattern(items) => {
                let mut parsed = Parsed::new();
                parse(&mut parsed, std::str::from_utf8(text).ok()?, items.iter()).ok()?;
                match parsed.to_datetime() {
                    Ok(time) => Some(time.timestamp_micros()),
                    Err(_) => {
                        let local = parsed.to_naive_datetime_with_offset(zone as i32).ok()?;
                        local.and_utc().timestamp_micros().checked_sub(zone * MICROS_PER_SECOND)
                    }
                }
            }
        }
    }
}

/// Reads common-log-format times. Consecutive lines mostly share their second, so the last answer is remembered.
#[derive(Debug)]
pub struct ClfReader {
    last: [u8; 26],
    micros: Micros,
}

impl Default for ClfReader {
    fn default() -> Self {
        // Remembers a true pair from the start, so there is no empty state to tell apart.
        ClfReader { last: *b"01/Jan/1970:00:00:00 +0000", micros: 0 }
    }
}

impl ClfReader {
    #[inline]
    pub fn read(&mut self, text: &[u8]) -> Option<Micros> {
        if text == self.last {
            return Some(self.micros);
        }
        let micros = clf(text)?;
        self.last = text.try_into().ok()?;
        self.micros = micros;
        Some(micros)
    }
}

/// `17/May/2015:10:05:03 +0000` (Apache manual, mod_log_config, `%t`).
pub fn clf(text: &[u8]) -> Option<Micros> {
    let t: &[u8; 26] = text.try_into().ok()?;
    if [t[2], t[6], t[11], t[14], t[17], t[20]] != *b"//::: " {
        return None;
    }
    let day = number(&t[0..2])?;
    let year = number(&t[7..11])?;
    let [hour, minute, second] = [number(&t[12..14])?, number(&t[15..17])?, number(&t[18..20])?];
    let local = moment(year, month_by_name(&t[3..6])?, day, hour, minute, second, 0)?;
    Some(local - zone_offset(&t[21..])? * MICROS_PER_SECOND)
}

/// `2015-05-17T10:05:03.25Z` (RFC 3339) and what loggers make of it: a space for the `T`, `/` in the date, a comma
/// before the fraction, no seconds, no time, or no offset (then `zone`, in seconds east of UTC, holds). Digits beyond
/// the microsecond are dropped.
pub fn rfc3339(text: &[u8], zone: i64) -> Option<Micros> {
    let text = text.trim_ascii();
    let (date, rest) = text.split_at_checked(10)?;
    if date[4] != date[7] || !matches!(date[4], b'-' | b'/') {
        return None;
    }
    let [year, month, day] = [number(&date[0..4])?, number(&date[5..7])?, number(&date[8..10])?];
    let Some((b'T' | b't' | b' ', rest)) = rest.split_first() else {
        return if rest.is_empty() {
            Some(moment(year, month, day, 0, 0, 0, 0)? - zone * MICROS_PER_SECOND)
        } else {
            None
        };
    };
    let ([hour, minute, second, micros], rest) = time_of_day(rest)?;
    let zone = match rest.trim_ascii() {
        b"" => zone,
        named => zone_offset(named)?,
    };
    Some(moment(year, month, day, hour, minute, second, micros)? - zone * MICROS_PER_SECOND)
}

/// `Fri Sep 09 10:42:29.902022 2011` (Apache manual, ErrorLogFormat, `%t` and `%{u}t`), `zone` seconds east of UTC.
pub fn apache_error(text: &[u8], zone: i64) -> Option<Micros> {
    let rest = text.get(3..)?.strip_prefix(b" ")?; // the weekday says nothing new
    let month = month_by_name(rest.get(..3)?)?;
    let rest = rest[3..].trim_ascii_start();
    let space = rest.iter().position(|&b| b == b' ')?;
    let day = number(&rest[..space])?;
    let ([hour, minute, second, micros], rest) = time_of_day(&rest[space + 1..])?;
    let year = number(rest.trim_ascii())?;
    Some(moment(year, month, day, hour, minute, second, micros)? - zone * MICROS_PER_SECOND)
}

/// A whole number since 1970. Seconds below 10^11 (the year 5138), then milliseconds, microseconds and nanoseconds.
pub fn epoch(number: i64) -> Micros {
    match number.unsigned_abs() {
        size if size < 100_000_000_000 => number * MICROS_PER_SECOND,
        size if size < 100_000_000_000_000 => number * 1000,
        size if size < 100_000_000_000_000_000 => number,
        _ => number.div_euclid(1000),
    }
}

/// A number since 1970 with a fraction; units as for [`epoch`].
pub fn epoch_float(number: f64) -> Option<Micros> {
    let micros = match number.abs() {
        size if size < 1e11 => number * 1e6,
        size if size < 1e14 => number * 1e3,
        size if size < 1e17 => number,
        size if size < 9e18 => number / 1e3,
        _ => return None, // also infinite and not a number
    };
    Some(micros.round() as Micros)
}

/// A fixed offset as users write it in an option: `+02:00`, `-0400`, `UTC`. Seconds east of UTC.
pub fn zone_from_option(text: &str) -> Result<i64> {
    zone_offset(text.trim().as_bytes()).ok_or_else(|| {
        Error::new(Kind::InvalidParameter, format!("\"{text}\" is not an offset from UTC"))
            .with_hint("Write it like '+02:00' or 'UTC'. Names of zones are not known.")
    })
}

/// RFC 3339 or its relatives, common log format, or a number since 1970.
pub fn auto(text: &[u8], zone: i64) -> Option<Micros> {
    rfc3339(text, zone).or_else(|| clf(text)).or_else(|| epoch_text(text))
}

fn epoch_text(text: &[u8]) -> Option<Micros> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-') {
        return None;
    }
    text.parse().map(epoch).ok().or_else(|| epoch_float(text.parse().ok()?))
}

/// `10:05`, `10:05:03`, `10:05:03.25`: hour, minute, second, microsecond, and what follows.
fn time_of_day(text: &[u8]) -> Option<([u32; 4], &[u8])> {
    let (clock, mut rest) = text.split_at_checked(5)?;
    if clock[2] != b':' {
        return None;
    }
    let mut fields = [number(&clock[0..2])?, number(&clock[3..5])?, 0, 0];
    if let Some(after) = rest.strip_prefix(b":") {
        fields[2] = number(after.get(..2)?)?;
        rest = &after[2..];
        if let [b'.' | b',', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let kept = fraction[..digits].iter().map(|digit| u32::from(digit - b'0'));
            fields[3] = kept.chain(std::iter::repeat(0)).take(6).fold(0, |micros, digit| micros * 10 + digit);
            rest = &fraction[digits..];
        }
    }
    Some((fields, rest))
}

/// `Z`, `UTC`, `+02:00`, `+0200`, `+02`: seconds east of UTC.
fn zone_offset(text: &[u8]) -> Option<i64> {
    if [&b"Z"[..], b"UTC", b"GMT"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Some(0);
    }
    let (sign, rest) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        2 => (number(rest)?, 0),
        4 => (number(&rest[..2])?, number(&rest[2..])?),
        5 if rest[2] == b':' => (number(&rest[..2])?, number(&rest[3..])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * i64::from(hours * 3600 + minutes * 60))
}

/// One to nine digits and nothing else.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}

fn month_by_name(name: &[u8]) -> Option<u32> {
    const MONTHS: &[u8; 36] = b"janfebmaraprmayjunjulaugsepoctnovdec";
    let index = MONTHS.chunks(3).position(|month| name.eq_ignore_ascii_case(month))?;
    Some(index as u32 + 1)
}

/// A date and time of day in UTC as microseconds since 1970; `None` when there is no such day or time.
fn moment(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32, micros: u32) -> Option<Micros> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    };
    if year > 9999 || day == 0 || day > last || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds =
        days_from_civil(year.into(), month.into(), day.into()) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some(seconds * MICROS_PER_SECOND + i64::from(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAY_17: Micros = 1_431_857_103_000_000; // 2015-05-17T10:05:03Z

    #[test]
    fn common_log_format_with_offsets() {
        assert_eq!(clf(b"17/May/2015:10:05:03 +0000"), Some(MAY_17));
        assert_eq!(clf(b"17/May/2015:12:05:03 +0200"), Some(MAY_17));
        assert_eq!(clf(b"17/May/2015:06:35:03 -0330"), Some(MAY_17));
        for bad in ["17/May/2015:10:05:03", "32/May/2015:10:05:03 +0000", "17/Mai/2015:10:05:03 +0000"] {
            assert_eq!(clf(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(clf(b"29/Feb/2023:00:00:00 +0000"), None);
        assert!(clf(b"29/Feb/2024:00:00:00 +0000").is_some());
    }

    #[test]
    fn a_remembered_second_is_not_mixed_up() {
        let mut reader = ClfReader::default();
        assert_eq!(reader.read(b"17/May/2015:10:05:03 +0000"), Some(MAY_17));
        assert_eq!(reader.read(b"17/May/2015:10:05:03 +0100"), Some(MAY_17 - 3_600_000_000));
        assert_eq!(reader.read(b"junk"), None);
        assert_eq!(reader.read(b"17/May/2015:10:05:03 +0100"), Some(MAY_17 - 3_600_000_000));
        assert_eq!(ClfReader::default().read(&[0; 26]), None);
    }

    #[test]
    fn rfc3339_and_relatives() {
        for same in [
            "2015-05-17T10:05:03Z",
            "2015-05-17 10:05:03",
            "2015/05/17 10:05:03 UTC",
            "2015-05-17T12:05:03.000+02:00",
            "2015-05-17 06:05:03,000000999 -0400",
            "1431857103",
            "1431857103.0",
            "1431857103000",
            "1431857103000000",
            "1431857103000000000",
        ] {
            assert_eq!(auto(same.as_bytes(), 0), Some(MAY_17), "{same}");
        }
        assert_eq!(rfc3339(b"2015-05-17T10:05:03.25Z", 0), Some(MAY_17 + 250_000));
        assert_eq!(rfc3339(b"2015-05-17 10:05:03", 7200), Some(MAY_17 - 7_200_000_000));
        assert_eq!(rfc3339(b"1969-12-31T23:59:59Z", 0), Some(-MICROS_PER_SECOND));
        for bad in ["", "2015-05-17T", "2015-13-01", "2015-05-17T10:05:03.Z", "2015-05-17T25:00:00Z", "2015-05-17x"] {
            assert_eq!(auto(bad.as_bytes(), 0), None, "{bad}");
        }
    }

    #[test]
    fn apache_error_times() {
        assert_eq!(apache_error(b"Sun May 17 10:05:03 2015", 0), Some(MAY_17));
        assert_eq!(apache_error(b"Sun May 17 10:05:03.902022 2015", 0), Some(MAY_17 + 902_022));
        assert_eq!(apache_error(b"Sun May 17 12:05:03 2015", 7200), Some(MAY_17));
        assert_eq!(apache_error(b"Sun May 17", 0), None);
    }

    #[test]
    fn patterns_must_say_a_moment() {
        let german = TimeFormat::from_option("%d.%m.%Y %H:%M:%S").unwrap();
        assert_eq!(german.read(b"17.05.2015 12:05:03", 7200), Some(MAY_17));
        let zoned = TimeFormat::from_option("%d/%b/%Y:%H:%M:%S %z").unwrap();
        assert_eq!(zoned.read(b"17/May/2015:12:05:03 +0200", 0), Some(MAY_17));
        assert!(TimeFormat::from_option("%b %d %H:%M:%S").unwrap_err().detail().unwrap().contains("year"));
        assert!(TimeFormat::from_option("iso").is_err());
        assert!(TimeFormat::from_option("%Q").is_err());
    }

    #[test]
    fn dates_agree_with_chrono() {
        for day in (0..=9999 * 365).step_by(97) {
            let date = chrono::NaiveDate::from_ymd_opt(0, 1, 1).unwrap() + chrono::Days::new(day);
            let text = date.format("%Y-%m-%d").to_string();
            let expected = date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
            assert_eq!(rfc3339(text.as_bytes(), 0), Some(expected), "{text}");
        }
    }

    #[test]
    fn offsets_of_options() {
        assert_eq!(zone_from_option("+02:00").unwrap(), 7200);
        assert_eq!(zone_from_option("utc").unwrap(), 0);
        assert!(zone_from_option("Europe/Berlin").is_err());
    }
}
