//! Times of zones: `AT TIME ZONE`, and `date_trunc` in a zone (PostgreSQL manual, Date/Time Functions). Zones are those of
//! the IANA database, by name, or an offset as PostgreSQL writes it.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type};
use crate::error::{Error, Kind, Result};
use crate::time::UTC;

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "timezone",
        syntax: "timezone(zone, time) | time AT TIME ZONE zone",
        summary: "what clocks in the zone show at a time (timestamptz); or when they show it (timestamp)",
        sample: ("TIMESTAMPTZ '2026-07-01 12:00:00Z' AT TIME ZONE 'Europe/Berlin'", "2026-07-01 14:00:00"),
        forms: &[&[Type::Any, Type::Any]],
        result: Type::OtherZone,
        check: |constants| check_zone(constants, 0),
        rows: |arguments| match arguments.array(1)?.data_type() {
            DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => {
                let times = converted(arguments, Zone::utc_of)?;
                Ok(Arc::new(times.with_timezone(UTC)))
            }
            _ => Ok(Arc::new(converted(arguments, Zone::local_of)?)),
        },
    },
    Scalar {
        name: "date_trunc_in",
        syntax: "date_trunc_in(unit, time, zone) | date_trunc(unit, time, zone)",
        summary: "the beginning of the unit as clocks in the zone show it",
        sample: ("date_trunc_in('day', TIMESTAMPTZ '2026-07-01 23:00:00Z', 'Europe/Berlin')", "2026-07-01 22:00:00+00"),
        forms: &[&[Type::Text, Type::Time, Type::Text]],
        result: Type::Time,
        check: |constants| check_zone(constants, 2),
        rows: truncated,
    },
];

/// A zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Zone {
    Named(Tz),
    /// Seconds east of Greenwich.
    Fixed(i64),
}

impl Zone {
    /// What its clocks show, as microseconds since 1970 on them.
    pub fn local_of(self, micros: i64) -> i64 {
        match self {
            Zone::Fixed(seconds) => micros.saturating_add(seconds * 1_000_000),
            Zone::Named(zone) => match DateTime::from_timestamp_micros(micros) {
                Some(time) => {
                    let offset = zone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc();
                    micros.saturating_add(i64::from(offset) * 1_000_000)
                }
                None => micros,
            },
        }
    }

    /// When its clocks show this. Of two such times the second (as PostgreSQL: the one of standard time), of none the time
    /// that they would have shown.
    pub fn utc_of(self, local: i64) -> i64 {
        let shifted = |offset: i64| local.saturating_sub(offset * 1_000_000);
        match self {
            Zone::Fixed(seconds) => shifted(seconds),
            Zone::Named(zone) => {
                let Some(naive) = DateTime::from_timestamp_micros(local).map(|time| time.naive_utc()) else {
                    return local;
                };
                let seconds = |time: DateTime<Tz>| i64::from(time.offset().fix().local_minus_utc());
                match zone.from_local_datetime(&naive) {
                    chrono::LocalResult::Single(time) => shifted(seconds(time)),
                    chrono::LocalResult::Ambiguous(_, second) => shifted(seconds(second)),
                    chrono::LocalResult::None => {
                        // As the clock went before it was put forward.
                        let before = |naive: NaiveDateTime| naive - chrono::TimeDelta::hours(3);
                        let offset = zone.offset_from_utc_datetime(&before(naive)).fix().local_minus_utc();
                        shifted(i64::from(offset))
                    }
                }
            }
        }
    }
}

/// The zone called so. Offsets are east of Greenwich, as in ISO 8601 (`+02:00`).
pub fn find(name: &str) -> Result<Zone> {
    let trimmed = name.trim();
    if let Ok(zone) = Tz::from_str(trimmed) {
        return Ok(Zone::Named(zone));
    }
    let known = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(trimmed));
    if let Some(zone) = known {
        return Ok(Zone::Named(*zone));
    }
    if trimmed.eq_ignore_ascii_case("z") {
        return Ok(Zone::Fixed(0));
    }
    offset(trimmed).map(Zone::Fixed).ok_or_else(|| {
        let message = format!("time zone \"{name}\" not recognized");
        Error::new(Kind::InvalidParameter, message)
            .with_hint("Names are those of the IANA database, such as Europe/Berlin.")
    })
}

/// The zone that AT TIME ZONE means: an offset alone counts west of Greenwich, as in POSIX.
fn named(name: &str) -> Result<Zone> {
    match offset(name.trim()) {
        Some(seconds) => Ok(Zone::Fixed(-seconds)),
        None => find(name),
    }
}

/// `+02`, `-08:00`, `+0530`: as seconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() == 4 => digits.split_at(2),
        None => (digits, "0"),
    };
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 15 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn check_zone(constants: &[Option<&str>], at: usize) -> Result<()> {
    match constants.get(at).copied().flatten() {
        Some(name) => find(name).map(drop),
        None => Ok(()),
    }
}

/// The zones of the first argument, which is text or an interval.
fn converted(arguments: &Arguments<'_>, of: impl Fn(Zone, i64) -> i64) -> DfResult<TimestampMicrosecondArray> {
    let (zones, times) = (arguments.array(0)?, arguments.array(1)?);
    // A text says a time of UTC.
    let times = if times.data_type().is_string() { cast(&times, &crate::format::timestamp_type())? } else { times };
    let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let spans = match zones.data_type() {
        DataType::Interval(_) | DataType::Duration(_) => {
            Some(cast(&zones, &DataType::Interval(IntervalUnit::MonthDayNano))?)
        }
        _ => None,
    };
    let names = if spans.is_some() { None } else { Some(cast(&zones, &DataType::Utf8View)?) };
    let mut last: Option<(String, Zone)> = None;
    let mut convert = |row: usize| -> Result<Option<i64>> {
        if zones.is_null(row) || times.is_null(row) {
            return Ok(None);
        }
        let zone = match (&spans, &names) {
            (Some(spans), _) => {
                let span = spans.as_primitive::<IntervalMonthDayNanoType>().value(row);
                Zone::Fixed(span.nanoseconds / 1_000_000_000)
            }
            (None, Some(names)) => {
                let name = names.as_string_view().value(row);
                match &last {
                    Some((known, zone)) if known == name => *zone,
                    _ => {
                        let zone = named(name)?;
                        last = Some((name.to_string(), zone));
                        zone
                    }
                }
            }
            (None, None) => Zone::Fixed(0),
        };
        Ok(Some(of(zone, times.value(row))))
    };
    Ok((0..times.len()).map(&mut convert).collect::<Result<TimestampMicrosecondArray>>()?)
}

fn truncated(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (units, zones) = (arguments.text(0)?, arguments.text(2)?);
    let times = arguments.array(1)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut out = Vec::with_capacity(arguments.rows);
    for row in 0..arguments.rows {
        let (Some(unit), Some(name)) = (units.get(row), zones.get(row)) else {
            out.push(None);
            continue;
        };
        if times.is_null(row) {
            out.push(None);
            continue;
        }
        let zone = find(name)?;
        let local = truncate(unit, zone.local_of(times.value(row)))?;
        out.push(Some(zone.utc_of(local)));
    }
    Ok(Arc::new(out.into_iter().collect::<TimestampMicrosecondArray>().with_timezone(UTC)))
}

/// The beginning of a unit of the calendar.
pub fn truncate(unit: &str, micros: i64) -> Result<i64> {
    use chrono::Datelike;
    const DAY: i64 = 86_400_000_000;
    let whole = |size: i64| micros.div_euclid(size) * size;
    let day = micros.div_euclid(DAY);
    let out = || Error::new(Kind::DatetimeOverflow, "timestamp out of range");
    let date = || chrono::NaiveDate::from_epoch_days(i32::try_from(day).map_err(|_| out())?).ok_or_else(out);
    let first = |year: i32, month: u32| -> Result<i64> {
        let date = chrono::NaiveDate::from_ymd_opt(year, month, 1).ok_or_else(out)?;
        Ok(i64::from(date.to_epoch_days()) * DAY)
    };
    Ok(match unit.to_ascii_lowercase().trim_end_matches('s') {
        "microsecond" => micros,
        "millisecond" => whole(1000),
        "second" => whole(1_000_000),
        "minute" => whole(60_000_000),
        "hour" => whole(3_600_000_000),
        "day" => whole(DAY),
        // 1970-01-01 was a Thursday.
        "week" => ((day + 3).div_euclid(7) * 7 - 3) * DAY,
        "month" => first(date()?.year(), date()?.month())?,
        "quarter" => first(date()?.year(), date()?.month0() / 3 * 3 + 1)?,
        "year" => first(date()?.year(), 1)?,
        "decade" => first(date()?.year().div_euclid(10) * 10, 1)?,
        "century" | "centurie" => first((date()?.year() - 1).div_euclid(100) * 100 + 1, 1)?,
        "millennium" | "millennia" => first((date()?.year() - 1).div_euclid(1000) * 1000 + 1, 1)?,
        _ => {
            let message = format!("unit \"{unit}\" not recognized for type timestamp with time zone");
            return Err(Error::new(Kind::InvalidParameter, message));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn clocks_of_zones() {
        let berlin = find("europe/berlin").unwrap();
        assert_eq!(berlin.local_of(micros("2026-07-01 12:00")), micros("2026-07-01 14:00"));
        assert_eq!(berlin.utc_of(micros("2026-07-01 14:00")), micros("2026-07-01 12:00"));
        // Put forward at 02:00, put back at 03:00.
        assert_eq!(berlin.utc_of(micros("2026-03-29 02:30")), micros("2026-03-29 01:30"));
        assert_eq!(berlin.utc_of(micros("2026-10-25 02:30")), micros("2026-10-25 01:30"));
        assert_eq!(find("-08:00").unwrap(), Zone::Fixed(-8 * 3600));
        assert_eq!(find("+0530").unwrap(), Zone::Fixed(19_800));
        for name in ["", "Nowhere/City", "+", "+2:99", "+99"] {
            assert!(find(name).is_err(), "{name}");
        }
    }

    #[test]
    fn beginnings_of_units() {
        let time = micros("2026-02-18 20:38");
        for (unit, expected) in [
            ("hour", "2026-02-18 20:00"),
            ("day", "2026-02-18 00:00"),
            ("week", "2026-02-16 00:00"),
            ("month", "2026-02-01 00:00"),
            ("quarter", "2026-01-01 00:00"),
            ("decade", "2020-01-01 00:00"),
            ("century", "2001-01-01 00:00"),
        ] {
            assert_eq!(truncate(unit, time).unwrap(), micros(expected), "{unit}");
        }
        assert!(truncate("nounit", time).is_err());
    }
}
