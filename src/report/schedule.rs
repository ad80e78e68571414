//! When is a report due, and what is it about? Moments of a schedule are where the periods of a calendar end: full hours,
//! midnights, Mondays, firsts of months, as the clocks of a time zone have them, and `AT` so much later.
//!
//! The calendar is that of windows (`rollup/calendar.rs`), over what the local clock shows; each such moment is then looked up
//! in time. So a day of 23 or 25 hours is one period, and so is the hour that comes twice in autumn, whatever the period: none
//! is counted twice, and none is left out.

use std::fmt;
use std::time::Duration;

use chrono_tz::Tz;

use crate::error::{Error, Kind, Result};
use crate::format::timestamp::Zone;
use crate::rollup::calendar::{Calendar, Step};
use crate::time::{MICROS_PER_SECOND, Micros, format_duration, parse_duration};

const DAY: Micros = 86_400 * MICROS_PER_SECOND;

/// Shorter periods are what views are for; longer ones nobody waits for.
const SHORTEST: Micros = MICROS_PER_SECOND;
const LONGEST_DAYS: i64 = 3660;

/// A period in time: from its start on, and up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub start: Micros,
    pub end: Micros,
}

/// See the file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    step: Step,
    /// So long after the beginning of a period of the calendar.
    at: Micros,
    zone: Tz,
}

impl Schedule {
    /// Of `'1 hour'`, `'1 week'`, `'1 month'`, and `'07:00'`.
    pub fn new(every: &str, at: Option<&str>, zone: Tz) -> Result<Schedule> {
        let step = step(every)?;
        let at = at.map_or(Ok(0), clock)?;
        let longest = match step {
            Step::Time(length) => length.min(DAY),
            Step::Days(_) | Step::Months(_) => DAY,
        };
        if at >= longest {
            let (at, every) = (text_of(at), text_of_step(step));
            return Err(Error::new(Kind::InvalidParameter, format!("AT '{at}' is not within EVERY '{every}'"))
                .with_hint("AT says how long after the beginning of a period: '07:00' of a day, '00:05' of an hour."));
        }
        Ok(Schedule { step, at, zone })
    }

    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The last moment that is not after this one.
    pub fn last(&self, time: Micros) -> Micros {
        let mut local = self.begin(self.local(time));
        loop {
            let moment = self.instant(local);
            // Of a clock that was put back, what it shows comes twice and means the second time.
            if moment <= time {
                return moment;
            }
            local = self.begin(local - 1);
        }
    }

    /// The first moment after this one.
    pub fn next(&self, time: Micros) -> Micros {
        let mut local = self.begin(self.local(time));
        loop {
            let moment = self.instant(local);
            if moment > time {
                return moment;
            }
            local = self.calendar().end(local - self.at) + self.at;
        }
    }

    /// The period that ends then: up to a moment of the schedule from the one before, else as long as one is now.
    pub fn period(&self, end: Micros) -> Period {
        let last = self.last(end);
        let start = if last == end { self.last(end - 1) } else { end - (self.next(end) - last) };
        Period { start, end }
    }

    /// How many moments are between two of them, at most so many.
    pub fn between(&self, from: Micros, to: Micros, most: u64) -> u64 {
        let (mut count, mut time) = (0, self.next(from));
        while time < to && count < most {
            (count, time) = (count + 1, self.next(time));
        }
        count
    }

    fn calendar(&self) -> Calendar {
        // Of what clocks show, which knows no zones.
        Calendar { step: self.step, zone: Tz::UTC }
    }

    fn begin(&self, local: Micros) -> Micros {
        self.calendar().start(local - self.at) + self.at
    }

    /// What clocks show.
    fn local(&self, time: Micros) -> Micros {
        Calendar { step: self.step, zone: self.zone }.local(time)
    }

    fn instant(&self, local: Micros) -> Micros {
        Zone::Named(self.zone).instant(local).unwrap_or(local)
    }
}

/// As one would write it: `1 day at 07:00 Europe/Berlin`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of_step(self.step))?;
        if self.at > 0 {
            write!(f, " at {}", text_of(self.at))?;
        }
        if self.zone != Tz::UTC { write!(f, " {}", self.zone.name()) } else { Ok(()) }
    }
}

fn text_of_step(step: Step) -> String {
    match step {
        Step::Time(length) => format_duration(Duration::from_micros(length.unsigned_abs())),
        Step::Days(1) => "1 day".into(),
        Step::Days(days) => format!("{days} days"),
        Step::Months(1) => "1 month".into(),
        Step::Months(months) => format!("{months} months"),
    }
}

/// A time of the day.
fn text_of(at: Micros) -> String {
    let seconds = at / MICROS_PER_SECOND;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if seconds == 0 { format!("{hours:02}:{minutes:02}") } else { format!("{hours:02}:{minutes:02}:{seconds:02}") }
}

fn step(every: &str) -> Result<Step> {
    let step = match months(every) {
        Some(months) => Step::Months(months),
        None => match Micros::try_from(parse_duration(every)?.as_micros()).unwrap_or(Micros::MAX) {
            length if length < SHORTEST => {
                return Err(Error::new(Kind::InvalidParameter, format!("EVERY '{every}' is less than a second")));
            }
            length if length % DAY == 0 => Step::Days(length / DAY),
            length => Step::Time(length),
        },
    };
    let days = match step {
        Step::Time(length) => length / DAY,
        Step::Days(days) => days,
        Step::Months(months) => months.saturating_mul(30),
    };
    match days > LONGEST_DAYS {
        true => Err(Error::new(Kind::InvalidParameter, "EVERY takes ten years at most")),
        false => Ok(step),
    }
}

/// Months and years, which have no fixed length.
fn months(every: &str) -> Option<i64> {
    let (count, unit) = every.trim().split_once(' ')?;
    let each: i64 = match unit.trim().to_lowercase().as_str() {
        "month" | "months" | "mon" | "mons" => 1,
        "year" | "years" => 12,
        _ => return None,
    };
    each.checked_mul(count.parse().ok()?).filter(|months| *months > 0)
}

/// `7:00`, `07:00:30`.
fn clock(text: &str) -> Result<Micros> {
    let wrong = || {
        Error::new(Kind::InvalidParameter, format!("AT '{text}' is not a time of the day"))
            .with_hint("Write it like '07:00'.")
    };
    let parts: Vec<&str> = text.trim().split(':').collect();
    let (2 | 3) = parts.len() else { return Err(wrong()) };
    let mut seconds = 0;
    for (at, part) in parts.iter().enumerate() {
        let most = if at == 0 { 23 } else { 59 };
        let digits = part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = part.parse::<i64>().ok().filter(|number| digits && *number <= most).ok_or_else(wrong)?;
        seconds = seconds * 60 + number;
    }
    Ok(seconds * if parts.len() == 2 { 60 } else { 1 } * MICROS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn utc(text: &str) -> Micros {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn schedule(every: &str, at: Option<&str>, zone: Tz) -> Schedule {
        Schedule::new(every, at, zone).unwrap()
    }

    #[test]
    fn moments_are_where_periods_of_the_calendar_end() {
        for (every, at, time, last, next) in [
            ("1 hour", None, "2026-01-01T09:20:00Z", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z"),
            ("1 hour", None, "2026-01-01T09:00:00Z", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z"),
            ("1 hour", Some("00:05"), "2026-01-01T09:02:00Z", "2026-01-01T08:05:00Z", "2026-01-01T09:05:00Z"),
            ("15m", None, "2026-01-01T09:20:00Z", "2026-01-01T09:15:00Z", "2026-01-01T09:30:00Z"),
            ("24 hours", Some("7:00"), "2026-01-02T06:59:59Z", "2026-01-01T07:00:00Z", "2026-01-02T07:00:00Z"),
            // Thursday is the first of January.
            ("1 week", None, "2026-01-01T00:00:00Z", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"),
            ("1 month", Some("06:30"), "2026-02-01T06:00:00Z", "2026-01-01T06:30:00Z", "2026-02-01T06:30:00Z"),
            ("1 year", None, "2026-02-01T06:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            let schedule = schedule(every, at, Tz::UTC);
            assert_eq!((schedule.last(utc(time)), schedule.next(utc(time))), (utc(last), utc(next)), "{every} {time}");
        }
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let daily = schedule("1 day", Some("07:00"), Tz::Europe__Berlin);
        assert_eq!(daily.last(utc("2026-01-02T06:30:00Z")), utc("2026-01-02T06:00:00Z"));
        assert_eq!(daily.next(utc("2026-07-02T06:30:00Z")), utc("2026-07-03T05:00:00Z"));
        // A day of 23 hours.
        let period = daily.period(utc("2026-03-29T05:00:00Z"));
        assert_eq!(period.start, utc("2026-03-28T06:00:00Z"));
        // The hour that is left out, and the one that comes twice.
        let odd = schedule("1 day", Some("02:30"), Tz::Europe__Berlin);
        assert_eq!(odd.next(utc("2026-03-29T00:00:00Z")), utc("2026-03-29T01:30:00Z"));
        assert_eq!(odd.next(utc("2026-10-24T23:00:00Z")), utc("2026-10-25T01:30:00Z"));
        assert_eq!(odd.last(utc("2026-10-25T00:45:00Z")), utc("2026-10-24T00:30:00Z"), "the first 02:45 of that night");
    }

    #[test]
    fn periods_follow_each_other_without_gap_or_overlap() {
        for (every, at) in [
            ("1 hour", None),
            ("90 minutes", None),
            ("6 hours", Some("00:10")),
            ("1 day", Some("02:30")),
            ("1 month", None),
        ] {
            for zone in [Tz::UTC, Tz::Europe__Berlin, Tz::Australia__Lord_Howe, Tz::America__New_York] {
                let schedule = schedule(every, at, zone);
                let mut time = schedule.last(utc("2026-01-01T12:00:00Z"));
                while time < utc("2027-01-02T00:00:00Z") {
                    let next = schedule.next(time);
                    assert!(next > time);
                    assert_eq!(schedule.period(next), Period { start: time, end: next }, "{every} {zone}");
                    assert_eq!(
                        (schedule.last(next), schedule.last(next - 1), schedule.next(next - 1)),
                        (next, time, next)
                    );
                    time = next;
                }
            }
        }
    }

    #[test]
    fn a_period_may_end_at_any_time() {
        let hourly = schedule("1 hour", None, Tz::UTC);
        let period = hourly.period(utc("2026-01-01T09:20:00Z"));
        assert_eq!(period.start, utc("2026-01-01T08:20:00Z"));
        assert_eq!(hourly.between(utc("2026-01-01T09:00:00Z"), utc("2026-01-01T13:00:00Z"), 100), 3);
        assert_eq!(hourly.between(utc("2026-01-01T09:00:00Z"), utc("2026-01-01T10:00:00Z"), 100), 0);
        assert_eq!(hourly.between(0, utc("2026-01-01T10:00:00Z"), 100), 100);
    }

    #[test]
    fn what_is_no_schedule_is_said() {
        for (every, at, expected) in [
            ("soon", None, "not a duration"),
            ("10ms", None, "less than a second"),
            ("0 days", None, "less than a second"),
            ("11 years", None, "ten years"),
            ("200000 days", None, "ten years"),
            ("1 hour", Some("08:00"), "not within EVERY '1 hour'"),
            ("1 day", Some("24:00"), "not a time of the day"),
            ("1 day", Some("7"), "not a time of the day"),
            ("1 day", Some("+7:00"), "not a time of the day"),
        ] {
            let err = Schedule::new(every, at, Tz::UTC).unwrap_err();
            assert!(err.message().contains(expected), "{err}");
        }
        let shown = |every, at, zone| schedule(every, at, zone).to_string();
        assert_eq!(shown("24h", Some("7:00"), Tz::Europe__Berlin), "1 day at 07:00 Europe/Berlin");
        assert_eq!(shown("1 week", None, Tz::UTC), "7 days");
        assert_eq!(shown("3 months", None, Tz::UTC), "3 months");
    }
}
