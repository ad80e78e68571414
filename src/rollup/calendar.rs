//! Calendar windows: days, weeks, months and years as a time zone has them. A day has 23, 24 or 25 hours there, so start
//! and end are computed per value and not by adding a width.
//!
//! Always holds: the windows of one calendar follow each other without gap or overlap, except that windows of less than
//! a day are cut by the local clock, which repeats an hour in autumn (as PostgreSQL's `date_trunc` has it).

use chrono::{DateTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{GapInfo, Tz};

use super::window::window_start;
use crate::mutation::{Mutation, on};
pub use crate::time::zone;
use crate::time::{MICROS_PER_SECOND, Micros, civil_from_days, days_from_civil};

const DAY: Micros = 86_400 * MICROS_PER_SECOND;

/// Where counting begins, as in TimescaleDB: Monday 2000-01-03 for days and weeks (in days since 1970), 2000-01 for months.
const FIRST_DAY: i64 = 10_959;
const FIRST_MONTH: i64 = 2000 * 12;

/// Local midnight of the first day: what windows of a fixed width are aligned to.
pub const ANCHOR: Micros = FIRST_DAY * DAY;

/// Windows of a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Calendar {
    pub step: Step,
    pub zone: Tz,
}

/// How far a window reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Microseconds, aligned to the local clock.
    Time(Micros),
    Days(i64),
    Months(i64),
}

impl Calendar {
    /// The start of the window that holds `time`.
    pub fn start(&self, time: Micros) -> Micros {
        let local = self.local(time);
        match self.step {
            Step::Time(size) => time.wrapping_add(window_start(local, size, ANCHOR).wrapping_sub(local)),
            Step::Days(_) | Step::Months(_) => self.instant(self.first_day(local)),
        }
    }

    /// The end of the window that holds `time`.
    pub fn end(&self, time: Micros) -> Micros {
        let local = self.local(time);
        match self.step {
            Step::Time(size) => self.start(time).wrapping_add(size),
            Step::Days(n) => self.instant(self.first_day(local) + n),
            Step::Months(n) => {
                let (year, month, _) = civil_from_days(self.first_day(local));
                let next = year * 12 + month - 1 + n;
                self.instant(days_from_civil(next.div_euclid(12), next.rem_euclid(12) + 1, 1))
            }
        }
    }

    /// Whether every time of a window, and no other, has that window's start: true unless the local clock repeats.
    pub fn tiles(&self) -> bool {
        !matches!(self.step, Step::Time(_))
    }

    /// The first day (since 1970, local) of the window that holds a local time.
    fn first_day(&self, local: Micros) -> i64 {
        let day = local.div_euclid(DAY);
        match self.step {
            Step::Time(_) => day,
            Step::Days(n) => day - (day - FIRST_DAY).rem_euclid(n),
            Step::Months(n) => {
                let (year, month, _) = civil_from_days(day);
                let months = year * 12 + month - 1;
                let first = months - (months - FIRST_MONTH).rem_euclid(n);
                days_from_civil(first.div_euclid(12), first.rem_euclid(12) + 1, 1)
            }
        }
    }

    /// What the zone's clocks show at `time`, as microseconds since 1970 on such a clock.
    pub fn local(&self, time: Micros) -> Micros {
        match DateTime::from_timestamp_micros(time) {
            Some(utc) if self.zone != Tz::UTC && !on(Mutation::ZoneForgotten) => {
                let offset = self.zone.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc();
                time.wrapping_add(i64::from(offset) * MICROS_PER_SECOND)
            }
            _ => time,
        }
    }

    /// The first instant of a local day. Where clocks are put forward at midnight, that is the moment they are.
    fn instant(&self, day: i64) -> Micros {
        let local = day.wrapping_mul(DAY);
        let Some(naive) = DateTime::from_timestamp_micros(local).map(|utc| utc.naive_utc()) else { return local };
        if self.zone == Tz::UTC {
            return local;
        }
        match self.zone.from_local_datetime(&naive).earliest() {
            Some(instant) => instant.timestamp_micros(),
            None => self.after_gap(&naive).unwrap_or(local),
        }
    }

    fn after_gap(&self, local: &NaiveDateTime) -> Option<Micros> {
        Some(GapInfo::new(local, &self.zone)?.end?.timestamp_micros())
    }
}

/// The step that `date_trunc` calls by this name; none for names it does not know.
pub fn unit(name: &str) -> Option<Step> {
    Some(match name.to_ascii_lowercase().as_str() {
        "microsecond" => Step::Time(1),
        "millisecond" => Step::Time(1000),
        "second" => Step::Time(MICROS_PER_SECOND),
        "minute" => Step::Time(60 * MICROS_PER_SECOND),
        "hour" => Step::Time(3600 * MICROS_PER_SECOND),
        "day" => Step::Days(1),
        "week" => Step::Days(7),
        "month" => Step::Months(1),
        "quarter" => Step::Months(3),
        "year" => Step::Months(12),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn window(step: &str, name: &str, time: &str) -> (Micros, Micros) {
        let calendar = Calendar { step: unit(step).unwrap(), zone: zone(name).unwrap() };
        (calendar.start(at(time)), calendar.end(at(time)))
    }

    #[test]
    fn days_have_23_and_25_hours() {
        let spring = window("day", "Europe/Berlin", "2026-03-29T12:00:00Z");
        assert_eq!(spring, (at("2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z")));
        let autumn = window("day", "Europe/Berlin", "2026-10-25T12:00:00Z");
        assert_eq!(autumn, (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z")));
    }

    #[test]
    fn weeks_start_on_monday_and_quarters_in_january() {
        let utc = |step, time| window(step, "UTC", time);
        assert_eq!(utc("week", "1970-01-01T12:00:00Z"), (at("1969-12-29T00:00:00Z"), at("1970-01-05T00:00:00Z")));
        assert_eq!(utc("quarter", "2024-02-29T12:00:00Z"), (at("2024-01-01T00:00:00Z"), at("2024-04-01T00:00:00Z")));
        assert_eq!(utc("month", "2024-02-29T12:00:00Z"), (at("2024-02-01T00:00:00Z"), at("2024-03-01T00:00:00Z")));
        assert_eq!(utc("year", "1969-12-31T23:59:59Z"), (at("1969-01-01T00:00:00Z"), at("1970-01-01T00:00:00Z")));
    }

    #[test]
    fn a_day_without_midnight_starts_when_the_clocks_are_put_forward() {
        // In Beirut, 2022-03-27 began at 01:00.
        let day = window("day", "Asia/Beirut", "2022-03-27T10:00:00Z");
        assert_eq!(day, (at("2022-03-26T22:00:00Z"), at("2022-03-27T21:00:00Z")));
    }

    #[test]
    fn a_day_with_two_midnights_starts_at_the_first() {
        // In the Azores clocks go back from 01:00 to 00:00.
        let day = window("day", "Atlantic/Azores", "2025-10-26T00:30:00Z");
        assert_eq!(day, (at("2025-10-26T00:00:00Z"), at("2025-10-27T01:00:00Z")));
        assert_eq!(window("day", "Atlantic/Azores", "2025-10-26T01:30:00Z"), day);
    }

    #[test]
    fn windows_follow_each_other() {
        for name in ["Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "UTC"]
        {
            for step in ["day", "week", "month", "quarter", "year"] {
                let calendar = Calendar { step: unit(step).unwrap(), zone: zone(name).unwrap() };
                let mut time = at("2009-07-04T05:06:07Z");
                while time < at("2013-01-01T00:00:00Z") {
                    let (start, end) = (calendar.start(time), calendar.end(time));
                    assert!(start <= time && time < end, "{name} {step} {time}");
                    assert_eq!(calendar.start(start), start, "{name} {step} {time}");
                    assert_eq!(calendar.start(end - 1), start, "{name} {step} {time}");
                    assert_eq!(calendar.start(end), end, "{name} {step} {time}");
                    time += 7 * 3600 * MICROS_PER_SECOND;
                }
            }
        }
    }

    #[test]
    fn hours_follow_the_local_clock() {
        let hour = window("hour", "Asia/Kathmandu", "2026-01-01T00:00:00Z");
        assert_eq!(hour, (at("2025-12-31T23:15:00Z"), at("2026-01-01T00:15:00Z")));
        assert_eq!(zone("Europe/Berlun").unwrap_err().hint(), Some("Did you mean \"Europe/Berlin\"?"));
    }
}
