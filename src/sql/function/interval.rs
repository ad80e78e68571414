//! Spans of time as calendars count them: `age`, and intervals written in larger units (PostgreSQL manual, Date/Time
//! Functions).

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, Timelike, Utc};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, numbers, unchecked};
use crate::batch::datetime;
use crate::error::{Error, Kind, Result};

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
    Scalar {
        name: "interval_times",
        syntax: "interval_times(interval, number) | interval * number",
        summary: "so many times an interval",
        sample: ("INTERVAL '1 hour' * 3.5", "03:30:00"),
        forms: &[&[Type::Interval, Type::Double]],
        result: Type::Interval,
        check: unchecked,
        rows: |arguments| scale(arguments, |by| by),
    },
    Scalar {
        name: "interval_over",
        syntax: "interval_over(interval, number) | interval / number",
        summary: "a part of an interval",
        sample: ("INTERVAL '1 day' / 2", "12:00:00"),
        forms: &[&[Type::Interval, Type::Double]],
        result: Type::Interval,
        check: unchecked,
        rows: |arguments| {
            let numbers = arguments.numbers::<Float64Type>(1)?;
            if (0..arguments.rows).any(|row| numbers.get(row) == Some(0.0)) {
                return Err(Error::new(Kind::DivisionByZero, "division by zero").into());
            }
            scale(arguments, |by| 1.0 / by)
        },
    },
    Scalar {
        name: "time_field",
        syntax: "time_field(field, time) | extract(field FROM time)",
        summary: "seconds with their fraction, milliseconds, decade, century, millennium or day number of a time",
        sample: ("extract(second FROM TIME '17:12:28.5')", "28.5"),
        forms: &[&[Type::Text, Type::Any]],
        result: Type::Double,
        check: unchecked,
        rows: field,
    },
];

/// What DataFusion's own extract does not give, or not in full.
fn field(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (names, values) = (arguments.text(0)?, arguments.array(1)?);
    let spans = match values.data_type() {
        DataType::Interval(_) | DataType::Duration(_) => Some(datetime::intervals(&values)?),
        _ => None,
    };
    let clocks = match values.data_type() {
        DataType::Time32(_) | DataType::Time64(_) => Some(datetime::micros_of_day(&values)?),
        _ => None,
    };
    let times = match (&spans, &clocks) {
        (None, None) => {
            let plain = cast(&values, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            Some(plain.as_primitive::<TimestampMicrosecondType>().clone())
        }
        _ => None,
    };
    let value = |row: usize| -> Result<Option<f64>> {
        let Some(name) = names.get(row).filter(|_| values.is_valid(row)) else { return Ok(None) };
        let wrong = || Error::new(Kind::NotSupported, format!("unit \"{name}\" not supported for this type"));
        let micros = match (&spans, &clocks, &times) {
            (Some(spans), ..) => spans(row).micros,
            (None, Some(clocks), _) => clocks.value(row),
            (None, None, Some(times)) => times.value(row),
            (None, None, None) => return Ok(None),
        };
        let year = || -> Result<f64> {
            match (&spans, &times) {
                (Some(spans), _) => Ok(f64::from(spans(row).months / 12)),
                (None, Some(_)) => {
                    let time = DateTime::from_timestamp_micros(micros).ok_or_else(wrong)?;
                    Ok(f64::from(time.year()))
                }
                (None, None) => Err(wrong()),
            }
        };
        // Of the calendar they begin with the year 1; of an interval they are whole ones.
        let periods = |length: f64| -> Result<f64> {
            let year = year()?;
            Ok(if spans.is_some() { (year / length).trunc() } else { (year / length).ceil() })
        };
        Ok(Some(match name {
            "second" => (micros % 60_000_000) as f64 / 1e6,
            "milliseconds" => (micros % 60_000_000) as f64 / 1e3,
            "decade" => (year()? / 10.0).floor(),
            "century" => periods(100.0)?,
            "millennium" => periods(1000.0)?,
            "julian" if times.is_some() => micros as f64 / 86_400e6 + 2_440_588.0,
            "timezone" if times.is_some() => 0.0,
            _ => return Err(wrong()),
        }))
    };
    // Seconds before 1970 count on from the minute.
    let value = |row: usize| {
        value(row).map(|v| {
            v.map(|v| {
                if times.is_some() && v < 0.0 && names.get(row) != Some("julian") {
                    before(names.get(row), v)
                } else {
                    v
                }
            })
        })
    };
    let values = (0..arguments.rows).map(value).collect::<Result<Vec<_>>>()?;
    Ok(numbers::<Float64Type>(arguments.rows, |row| values[row]))
}

/// A field of seconds of a time before 1970.
fn before(name: Option<&str>, value: f64) -> f64 {
    match name {
        Some("second") => value + 60.0,
        Some("milliseconds") => value + 60_000.0,
        _ => value,
    }
}

/// Parts of months go into days of thirty to a month, parts of days into the clock (PostgreSQL's `interval_mul`).
fn scaled(span: IntervalMonthDayNano, factor: f64) -> Option<IntervalMonthDayNano> {
    if !factor.is_finite() {
        return None;
    }
    let whole = |number: f64| (number.abs() <= f64::from(i32::MAX)).then_some(number as i32);
    let months = f64::from(span.months) * factor;
    let days = f64::from(span.days) * factor;
    let of_months = (months - months.trunc()) * f64::from(DAYS_PER_MONTH);
    // What floating point leaves behind the microsecond is none of it.
    let of_months = (of_months * 1e6).round() / 1e6;
    let of_days = days - days.trunc() + of_months - of_months.trunc();
    let nanos = span.nanoseconds as f64 * factor + of_days * NANOS_PER_DAY as f64;
    let micros = (nanos / 1000.0).round();
    if micros.abs() > (i64::MAX / 1000) as f64 {
        return None;
    }
    let days = whole(days)?.checked_add(of_months.trunc() as i32)?;
    Some(IntervalMonthDayNano::new(whole(months)?, days, micros as i64 * 1000))
}

fn scale(arguments: &Arguments<'_>, factor: fn(f64) -> f64) -> DfResult<ArrayRef> {
    let (spans, factors) = (arguments.numbers::<IntervalMonthDayNanoType>(0)?, arguments.numbers::<Float64Type>(1)?);
    let span = |row: usize| -> Result<Option<IntervalMonthDayNano>> {
        let (Some(span), Some(by)) = (spans.get(row), factors.get(row)) else { return Ok(None) };
        let out = || Error::new(Kind::DatetimeOverflow, "interval out of range");
        scaled(span, factor(by)).ok_or_else(out).map(Some)
    };
    let scaled = (0..arguments.rows).map(span).collect::<Result<Vec<_>>>()?;
    Ok(numbers::<IntervalMonthDayNanoType>(arguments.rows, |row| scaled[row]))
}

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
