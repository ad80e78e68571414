//! Timestamps as Apache writes them, always in UTC, and the one form in which a user gives a start time.
//!
//! A busy log has thousands of lines a second, so each form is made once per second and copied until it changes.

use crate::time::{MICROS_PER_SECOND, Micros, civil_from_days, days_from_civil};

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const WEEKDAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const SECONDS_PER_DAY: i64 = 86_400;

/// Writes times, remembering the second it wrote last.
#[derive(Default)]
pub struct Stamp {
    second: Option<i64>,
    /// `10/Oct/2000:13:55:36 +0000`
    access: Vec<u8>,
    /// `Tue Oct 10 13:55:36.`, to be followed by microseconds and year
    error: Vec<u8>,
    /// ` 2000`
    year: Vec<u8>,
    /// `2000-10-10T13:55:36.`, to be followed by microseconds and `Z`
    rfc3339: Vec<u8>,
}

impl Stamp {
    /// Appends the time of an access line, to the second: `10/Oct/2000:13:55:36 +0000` (`%t` of mod_log_config).
    pub fn put_access(&mut self, at: Micros, out: &mut Vec<u8>) {
        self.turn(at.div_euclid(MICROS_PER_SECOND));
        out.extend_from_slice(&self.access);
    }

    /// Appends the time of an error line, to the microsecond: `Tue Oct 10 13:55:36.123456 2000` (`%{u}t` of
    /// ErrorLogFormat).
    pub fn put_error(&mut self, at: Micros, out: &mut Vec<u8>) {
        self.turn(at.div_euclid(MICROS_PER_SECOND));
        out.extend_from_slice(&self.error);
        put_padded(out, at.rem_euclid(MICROS_PER_SECOND) as u64, 6);
        out.extend_from_slice(&self.year);
    }

    /// Appends a time to the microsecond as RFC 3339 has it: `2000-10-10T13:55:36.123456Z`.
    pub fn put_rfc3339(&mut self, at: Micros, out: &mut Vec<u8>) {
        self.turn(at.div_euclid(MICROS_PER_SECOND));
        out.extend_from_slice(&self.rfc3339);
        put_padded(out, at.rem_euclid(MICROS_PER_SECOND) as u64, 6);
        out.push(b'Z');
    }

    fn turn(&mut self, second: i64) {
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let days = second.div_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let mut month_text = Vec::with_capacity(2);
        put_padded(&mut month_text, month as u64, 2);
        let month = MONTHS[month as usize - 1];
        let mut clock = Vec::with_capacity(8);
        let in_day = second.rem_euclid(SECONDS_PER_DAY) as u64;
        put_padded(&mut clock, in_day / 3600, 2);
        clock.push(b':');
        put_padded(&mut clock, in_day / 60 % 60, 2);
        clock.push(b':');
        put_padded(&mut clock, in_day % 60, 2);
        let mut day_text = Vec::with_capacity(2);
        put_padded(&mut day_text, day as u64, 2);
        let mut year_text = Vec::with_capacity(4);
        put_padded(&mut year_text, year.unsigned_abs(), 4);
        let weekday = WEEKDAYS[(days + 4).rem_euclid(7) as usize]; // 1970-01-01 was a Thursday

        self.access = [day_text.as_slice(), b"/", month, b"/", &year_text, b":", &clock, b" +0000"].concat();
        self.error = [weekday.as_slice(), b" ", month, b" ", &day_text, b" ", &clock, b"."].concat();
        self.year = [b" ".as_slice(), &year_text].concat();
        self.rfc3339 = [&year_text[..], b"-", &month_text, b"-", &day_text, b"T", &clock, b"."].concat();
    }
}

/// `2026-01-31`, `2026-01-31 12:00`, `2026-01-31T12:00:00Z` → microseconds, read as UTC; `None` for anything else,
/// also for another offset and for days that do not exist.
pub fn parse_utc(text: &str) -> Option<Micros> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let clock = numbers(clock, ':')?;
    let (hour, minute, second) = match clock[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    // The years of four digits are those that Apache's formats can write.
    if !(1..=9999).contains(&year) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) {
        return None; // such as 30 February
    }
    Some((days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND)
}

/// Numbers of one to four digits between separators.
fn numbers(text: &str, separator: char) -> Option<Vec<i64>> {
    let number = |part: &str| {
        let plain = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if plain { part.parse().ok() } else { None }
    };
    text.split(separator).map(number).collect()
}

/// Appends `number` with leading zeros up to `width` digits.
fn put_padded(out: &mut Vec<u8>, number: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (number / 10u64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_match_the_manual() {
        let at = parse_utc("2000-10-10T13:55:36Z").unwrap() + 123_456;
        assert_eq!(at, 971_186_136_123_456); // date -u -d '2000-10-10 13:55:36' +%s
        let mut stamp = Stamp::default();
        let (mut access, mut error, mut rfc3339) = (Vec::new(), Vec::new(), Vec::new());
        stamp.put_rfc3339(at, &mut rfc3339);
        assert_eq!(rfc3339, b"2000-10-10T13:55:36.123456Z");
        stamp.put_access(at, &mut access);
        stamp.put_error(at, &mut error);
        assert_eq!(access, b"10/Oct/2000:13:55:36 +0000");
        assert_eq!(error, b"Tue Oct 10 13:55:36.123456 2000");
    }

    #[test]
    fn the_second_turns() {
        let mut stamp = Stamp::default();
        let before_midnight = parse_utc("2024-02-28 23:59:59").unwrap();
        for (seconds, expected) in [(0, "28/Feb/2024:23:59:59 +0000"), (1, "29/Feb/2024:00:00:00 +0000")] {
            let mut out = Vec::new();
            stamp.put_access(before_midnight + seconds * MICROS_PER_SECOND, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for days in -150_000..150_000 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        assert_eq!(parse_utc("1970-01-02"), Some(SECONDS_PER_DAY * MICROS_PER_SECOND));
        for text in
            ["", "now", "2026", "2026-02-30", "2026-13-01", "2026-01-01T24:00", "2026-01-01T10:00+02:00", "-1-1-1"]
        {
            assert_eq!(parse_utc(text), None, "{text}");
        }
    }
}
