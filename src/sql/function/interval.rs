//! Spans of time as calendars count them: `age`, and intervals written in larger units (PostgreSQL manual, Date/Time
//! Functions).

use arrow::array::ArrayRef;
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Timelike, Utc};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, numbers, unchecked};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "age",
        syntax: "age(to, from)",
        summary: "the time between in years, months, days and a clock, as a calendar counts them",
        sample: ("age(TIMESTAMP '2026-01-02', TIMESTAMP '2024-11-01')", "1 year 2 mons 1 day"),
        forms: &[&[Type::Time, Type::Time]],
        result: Type::Interval,
        check: unchecked,
        rows: age,
    },
    Scalar {
        name: "justify_hours",
        syntax: "justify_hours(interval)",
        summary: "24 hours become a day",
        sample: ("justify_hours(INTERVAL '27 hours')", "1 day 03:00:00"),
        forms: &[&[Type::Interval]],
        result: Type::Interval,
        check: unchecked,
        rows: |arguments| map(arguments, justify_hours),
    },
    Scalar {
        name: "justify_days",
        syntax: "justify_days(interval)",
        summary: "30 days become a month",
        sample: ("justify_days(INTERVAL '35 days')", "1 mon 5 days"),
        forms: &[&[Type::Interval]],
        result: Type::Interval,
        check: unchecked,
        rows: |arguments| map(arguments, justify_days),
    },
    Scalar {
        name: "justify_interval",
        syntax: "justify_interval(interval)",
        summary: "both of these, and all parts with the same sign",
        sample: ("justify_interval(INTERVAL '1 month' - INTERVAL '1 hour')", "29 days 23:00:00"),
        forms: &[&[Type::Interval]],
        result: Type::Interval,
        check: unchecked,
        rows: |arguments| map(arguments, justify_interval),
    },
];

const NANOS_PER_DAY: i64 = 86_400_000_000_000;
const DAYS_PER_MONTH: i32 = 30;

fn map(arguments: &Arguments<'_>, of: fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>) -> DfResult<ArrayRef> {
    let intervals = arguments.numbers::<IntervalMonthDayNanoType>(0)?;
    Ok(numbers::<IntervalMonthDayNanoType>(arguments.rows, |row| of(intervals.get(row)?)))
}

/// Whole units of the smaller go into the larger; what is left has the sign of the larger.
fn justify_hours(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let days = i32::try_from(span.nanoseconds / NANOS_PER_DAY).ok()?;
    let (mut days, mut nanos) = (span.days.checked_add(days)?, span.nanoseconds % NANOS_PER_DAY);
    if days > 0 && nanos < 0 {
        (days, nanos) = (days - 1, nanos + NANOS_PER_DAY);
    } else if days < 0 && nanos > 0 {
        (days, nanos) = (days + 1, nanos - NANOS_PER_DAY);
    }
    Some(IntervalMonthDayNano::new(span.months, days, nanos))
}

fn justify_days(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let (mut months, mut days) = (span.months.checked_add(span.days / DAYS_PER_MONTH)?, span.days % DAYS_PER_MONTH);
    if months > 0 && days < 0 {
        (months, days) = (months - 1, days + DAYS_PER_MONTH);
    } else if months < 0 && days > 0 {
        (months, days) = (months + 1, days - DAYS_PER_MONTH);
    }
    Some(IntervalMonthDayNano::new(months, days, span.nanoseconds))
}

fn justify_interval(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let IntervalMonthDayNano { mut months, mut days, mut nanoseconds } = justify_days(justify_hours(span)?)?;
    if months > 0 && (days < 0 || (days == 0 && nanoseconds < 0)) {
        (months, days) = (months - 1, days + DAYS_PER_MONTH);
    } else if months < 0 && (days > 0 || (days == 0 && nanoseconds > 0)) {
        (months, days) = (months + 1, days - DAYS_PER_MONTH);
    }
    if days > 0 && nanoseconds < 0 {
        (days, nanoseconds) = (days - 1, nanoseconds + NANOS_PER_DAY);
    } else if days < 0 && nanoseconds > 0 {
        (days, nanoseconds) = (days + 1, nanoseconds - NANOS_PER_DAY);
    }
    Some(IntervalMonthDayNano::new(months, days, nanoseconds))
}

fn age(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let times = (arguments.numbers::<TimestampMicrosecondType>(0)?, arguments.numbers::<TimestampMicrosecondType>(1)?);
    Ok(numbers::<IntervalMonthDayNanoType>(arguments.rows, |row| {
        let time = |micros: i64| DateTime::from_timestamp_micros(micros);
        between(time(times.0.get(row)?)?, time(times.1.get(row)?)?)
    }))
}

/// From `from` to `to`, field by field; a field that would be negative borrows from the next one. A borrowed month has the
/// days of the month of the earlier time.
fn between(to: DateTime<Utc>, from: DateTime<Utc>) -> Option<IntervalMonthDayNano> {
    if to < from {
        let span = between(from, to)?;
        return Some(IntervalMonthDayNano::new(-span.months, -span.days, -span.nanoseconds));
    }
    let clock = |time: &DateTime<Utc>| {
        i64::from(time.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(time.nanosecond() % 1_000_000_000)
    };
    let months = |time: &DateTime<Utc>| time.year() * 12 + time.month0() as i32;
    let mut nanos = clock(&to) - clock(&from);
    let mut days = to.day() as i32 - from.day() as i32;
    let mut between = months(&to) - months(&from);
    if nanos < 0 {
        (nanos, days) = (nanos + NANOS_PER_DAY, days - 1);
    }
    if days < 0 {
        (days, between) = (days + i32::from(from.num_days_in_month()), between - 1);
    }
    Some(IntervalMonthDayNano::new(between, days, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(months: i32, days: i32, hours: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(months, days, hours * 3_600_000_000_000)
    }

    /// What PostgreSQL 15 gives for the same.
    #[test]
    fn ages_are_those_of_postgres() {
        let time = |text: &str| DateTime::parse_from_rfc3339(&format!("{text}:00:00Z")).unwrap().to_utc();
        for (to, from, expected) in [
            ("2026-01-02T00", "2024-11-01T00", span(14, 1, 0)),
            ("2026-03-01T00", "2026-01-31T00", span(1, 1, 0)),
            ("2024-03-01T00", "2024-01-31T00", span(1, 1, 0)),
            ("2026-03-30T05", "2026-02-28T06", span(1, 1, 23)),
            ("2026-01-31T00", "2026-03-01T00", span(-1, -1, 0)),
            ("2026-01-01T00", "2026-01-01T00", span(0, 0, 0)),
            ("2026-05-31T00", "2026-06-30T00", span(0, -30, 0)),
        ] {
            assert_eq!(between(time(to), time(from)), Some(expected), "{to} {from}");
        }
    }

    #[test]
    fn justified_parts_have_one_sign() {
        assert_eq!(justify_hours(span(0, 1, -1)), Some(span(0, 0, 23)));
        assert_eq!(justify_hours(span(0, -1, 25)), Some(span(0, 0, 1)));
        assert_eq!(justify_days(span(1, -35, 0)), Some(span(0, -5, 0)));
        assert_eq!(justify_interval(span(1, 0, -1)), Some(span(0, 29, 23)));
        assert_eq!(justify_interval(span(-1, 0, 1)), Some(span(0, -29, -23)));
        assert_eq!(justify_hours(IntervalMonthDayNano::new(0, i32::MAX, i64::MAX)), None);
    }
}
