//! Times that leave out their year (`Oct 11 22:14:15`, as syslog writes them) to points in time.
//!
//! A format has no clock, but it is told when its lines were received, and a line is older than its reception. So the
//! year is the latest for which the time is at most a day ahead of that: the day is for clocks and zones that disagree.
//! What is older than a year less a day is read a year or more too late; a year given as an option mends that for old
//! files. The 29th of February is taken back to the last leap year.

use super::timestamp::{Zone, moment, month_by_name, number, time_of_day};
use crate::time::{MICROS_PER_SECOND, Micros, civil_from_days};

/// How far ahead of its reception a time may be.
const AHEAD: Micros = DAY;
const DAY: Micros = 86_400 * MICROS_PER_SECOND;

/// Leap years are at most this far apart (1896 to 1904).
const LEAP_GAP: i64 = 8;

/// A month, a day and a time of day (hour, minute, second, microsecond).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Yearless {
    pub month: u32,
    pub day: u32,
    pub time: [u32; 4],
}

/// Gives years to times, for one block of lines.
#[derive(Debug, Clone, Copy)]
pub struct Years {
    latest: Micros,
    /// The last year to try, or the one that holds for all.
    year: i64,
    fixed: bool,
    zone: Zone,
}

impl Years {
    /// For lines received at `received` that say the time of `zone`; `year` holds for all of them if given.
    pub fn new(received: Micros, zone: Zone, year: Option<i64>) -> Years {
        let latest = received.saturating_add(AHEAD);
        // East of UTC the year may have changed already.
        let (current, _, _) = civil_from_days(latest.div_euclid(DAY) + 1);
        Years { latest, year: year.unwrap_or(current), fixed: year.is_some(), zone }
    }

    /// For a time that names its zone.
    pub fn in_zone(self, zone: Zone) -> Years {
        Years { zone, ..self }
    }

    /// `None` when there is no such day or time.
    pub fn resolve(&self, at: Yearless) -> Option<Micros> {
        let in_year = |year: i64| self.in_year(year, at);
        if self.fixed {
            return in_year(self.year);
        }
        (0..=LEAP_GAP + 1).filter_map(|back| in_year(self.year - back)).find(|time| *time <= self.latest)
    }

    /// The time in a year that the line says after all.
    pub fn in_year(
        &self,
        year: i64,
        Yearless { month, day, time: [hour, minute, second, micros] }: Yearless,
    ) -> Option<Micros> {
        self.zone.instant(moment(u32::try_from(year).ok()?, month, day, hour, minute, second, micros)?)
    }
}

/// `Oct 11 22:14:15`, `Oct  1 22:14:15.003`: what it says, and what follows it.
pub fn month_day_time(text: &[u8]) -> Option<(Yearless, &[u8])> {
    let (month, day, rest) = month_day(text)?;
    let (time, rest) = time_of_day(rest)?;
    Some((Yearless { month, day, time }, rest))
}

/// `Oct 11 `, `Oct  1 `: month and day, and what follows the space behind them.
pub fn month_day(text: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (name, rest) = text.split_at_checked(3)?;
    let month = month_by_name(name)?;
    let rest = rest.strip_prefix(b" ")?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let digits = rest.iter().take(2).take_while(|b| b.is_ascii_digit()).count();
    let day = number(&rest[..digits])?;
    Some((month, day, rest[digits..].strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::timestamp::rfc3339;

    fn utc(text: &str) -> Micros {
        rfc3339(text.as_bytes(), Zone::UTC).unwrap()
    }

    fn read(text: &str, received: &str, zone: &str, year: Option<i64>) -> Option<Micros> {
        let (at, rest) = month_day_time(text.as_bytes())?;
        assert_eq!(rest, b"", "{text}");
        Years::new(utc(received), Zone::from_option(zone).unwrap(), year).resolve(at)
    }

    #[test]
    fn the_year_is_the_latest_that_is_no_more_than_a_day_ahead() {
        for (text, received, expected) in [
            ("Nov 29 10:00:00", "2026-11-29T10:00:01Z", "2026-11-29T10:00:00Z"),
            ("Nov 30 10:00:00", "2026-11-29T10:00:00Z", "2026-11-30T10:00:00Z"),
            ("Nov 30 10:00:01", "2026-11-29T10:00:00Z", "2025-11-30T10:00:01Z"),
            ("Dec 31 23:59:59", "2027-01-01T00:00:05Z", "2026-12-31T23:59:59Z"),
            ("Jan  1 00:00:05", "2026-12-31T23:59:59Z", "2027-01-01T00:00:05Z"),
            ("Jan  2 00:00:00.25", "2026-12-31T23:59:59Z", "2026-01-02T00:00:00.25Z"),
            ("Feb 29 12:00:00", "2026-11-29T10:00:00Z", "2024-02-29T12:00:00Z"),
            ("feb 29 12:00:00", "1903-11-29T10:00:00Z", "1896-02-29T12:00:00Z"),
        ] {
            assert_eq!(read(text, received, "UTC", None), Some(utc(expected)), "{text} received {received}");
        }
    }

    #[test]
    fn zones_and_years_can_be_given() {
        let new_year = "2027-01-01T00:30:00Z";
        assert_eq!(read("Dec 31 19:30:00", new_year, "-05:00", None), Some(utc(new_year)));
        assert_eq!(read("Jan  2 09:29:00", "2026-12-31T20:30:00Z", "+13:00", None), Some(utc("2027-01-01T20:29:00Z")));
        assert_eq!(read("Jul  1 12:00:00", new_year, "Europe/Berlin", None), Some(utc("2026-07-01T10:00:00Z")));
        assert_eq!(read("Mar 27 13:06:56", new_year, "UTC", Some(2017)), Some(utc("2017-03-27T13:06:56Z")));
        assert_eq!(read("Feb 29 12:00:00", new_year, "UTC", Some(2017)), None);
    }

    #[test]
    fn no_time_is_read_into_nonsense() {
        for text in ["", "Oct", "Oct 11", "Okt 11 22:14:15", "Oct 11 24:14:15", "Oct 32 22:14:15", "Oct11 22:14:15"] {
            assert_eq!(read(text, "2026-11-29T10:00:00Z", "UTC", None), None, "{text}");
        }
        for received in [i64::MIN, i64::MAX] {
            let (at, _) = month_day_time(b"Oct 11 22:14:15").unwrap();
            assert_eq!(Years::new(received, Zone::UTC, None).resolve(at), None);
        }
    }
}
