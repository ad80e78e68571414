//! Text and numbers to event time: microseconds since 1970-01-01 UTC.
//!
//! Written by hand because a timestamp is read from every line and the general parsers cost more than the rest of the
//! line together. Dates are computed in the proleptic Gregorian calendar by arithmetic, without tables: a text either
//! names its offset, or is read in the [`Zone`] its reader was told. Nothing here reads a clock; times that leave out the
//! year are for `yearless.rs`. A leap second (`:60`) is the first second after it.

mod format;
mod zone;

pub use self::format::{
    TIME_FORMAT, TIMEZONE, TimeFormat, Times, pattern_items, read_items, resolve, says_a_moment, written_sample,
};
pub use self::zone::Zone;
use crate::time::{MICROS_PER_SECOND, Micros, days_from_civil};

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
/// before the fraction, no seconds, no time, or no offset (then `zone` holds). Digits beyond the microsecond are dropped.
pub fn rfc3339(text: &[u8], zone: Zone) -> Option<Micros> {
    let text = text.trim_ascii();
    let (date, rest) = text.split_at_checked(10)?;
    if date[4] != date[7] || !matches!(date[4], b'-' | b'/') {
        return None;
    }
    let [year, month, day] = [number(&date[0..4])?, number(&date[5..7])?, number(&date[8..10])?];
    let Some((b'T' | b't' | b' ', rest)) = rest.split_first() else {
        return if rest.is_empty() { zone.instant(moment(year, month, day, 0, 0, 0, 0)?) } else { None };
    };
    let ([hour, minute, second, micros], rest) = time_of_day(rest)?;
    let zone = match rest.trim_ascii() {
        b"" => zone,
        named => Zone::Offset(zone_offset(named)?),
    };
    zone.instant(moment(year, month, day, hour, minute, second, micros)?)
}

/// `Fri Sep 09 10:42:29.902022 2011` (Apache manual, ErrorLogFormat, `%t` and `%{u}t`).
pub fn apache_error(text: &[u8], zone: Zone) -> Option<Micros> {
    let rest = text.get(3..)?.strip_prefix(b" ")?; // the weekday says nothing new
    let month = month_by_name(rest.get(..3)?)?;
    let rest = rest[3..].trim_ascii_start();
    let space = rest.iter().position(|&b| b == b' ')?;
    let day = number(&rest[..space])?;
    let ([hour, minute, second, micros], rest) = time_of_day(&rest[space + 1..])?;
    let year = number(rest.trim_ascii())?;
    zone.instant(moment(year, month, day, hour, minute, second, micros)?)
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

/// A number since 1970 of which `per_second` make a second; parts of a microsecond are dropped.
pub fn epoch_in(number: i64, per_second: i64) -> Option<Micros> {
    match per_second {
        ..=MICROS_PER_SECOND => number.checked_mul(MICROS_PER_SECOND / per_second),
        _ => Some(number.div_euclid(per_second / MICROS_PER_SECOND)),
    }
}

/// RFC 3339 or its relatives, common log format, or a number since 1970.
pub fn auto(text: &[u8], zone: Zone) -> Option<Micros> {
    rfc3339(text, zone).or_else(|| clf(text)).or_else(|| TimeFormat::Epoch.read(text, zone))
}

/// `10:05`, `10:05:03`, `10:05:03.25`: hour, minute, second, microsecond, and what follows.
pub fn time_of_day(text: &[u8]) -> Option<([u32; 4], &[u8])> {
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
pub fn zone_offset(text: &[u8]) -> Option<i64> {
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
pub fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}

pub fn month_by_name(name: &[u8]) -> Option<u32> {
    const MONTHS: &[u8; 36] = b"janfebmaraprmayjunjulaugsepoctnovdec";
    let index = MONTHS.chunks(3).position(|month| name.eq_ignore_ascii_case(month))?;
    Some(index as u32 + 1)
}

/// A date and time of day in UTC as microseconds since 1970; `None` when there is no such day or time.
pub fn moment(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32, micros: u32) -> Option<Micros> {
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
            assert_eq!(auto(same.as_bytes(), Zone::UTC), Some(MAY_17), "{same}");
        }
        assert_eq!(rfc3339(b"2015-05-17T10:05:03.25Z", Zone::UTC), Some(MAY_17 + 250_000));
        assert_eq!(rfc3339(b"2015-05-17 10:05:03", Zone::Offset(7200)), Some(MAY_17 - 7_200_000_000));
        assert_eq!(rfc3339(b"1969-12-31T23:59:59Z", Zone::UTC), Some(-MICROS_PER_SECOND));
        for bad in ["", "2015-05-17T", "2015-13-01", "2015-05-17T10:05:03.Z", "2015-05-17T25:00:00Z", "2015-05-17x"] {
            assert_eq!(auto(bad.as_bytes(), Zone::UTC), None, "{bad}");
        }
    }

    #[test]
    fn apache_error_times() {
        assert_eq!(apache_error(b"Sun May 17 10:05:03 2015", Zone::UTC), Some(MAY_17));
        assert_eq!(apache_error(b"Sun May 17 10:05:03.902022 2015", Zone::UTC), Some(MAY_17 + 902_022));
        assert_eq!(apache_error(b"Sun May 17 12:05:03 2015", Zone::Offset(7200)), Some(MAY_17));
        assert_eq!(apache_error(b"Sun May 17", Zone::UTC), None);
    }

    #[test]
    fn dates_agree_with_chrono() {
        for day in (0..=9999 * 365).step_by(97) {
            let date = chrono::NaiveDate::from_ymd_opt(0, 1, 1).unwrap() + chrono::Days::new(day);
            let text = date.format("%Y-%m-%d").to_string();
            let expected = date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
            assert_eq!(rfc3339(text.as_bytes(), Zone::UTC), Some(expected), "{text}");
        }
    }
}
