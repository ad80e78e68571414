//! Dates, times and intervals as PostgreSQL counts and prints them (`DateStyle = ISO`, `IntervalStyle = postgres`,
//! `TimeZone = UTC`).
//!
//! Calendar arithmetic is done here and not by a library because a value from a log may lie in any year, and every
//! value that Arrow can hold must print.

use arrow::array::*;
use arrow::datatypes::*;
use bytes::BytesMut;

use crate::error::Result;
use crate::time::civil_from_days;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01.
pub fn days_since_1970(array: &ArrayRef) -> Result<Date32Array> {
    Ok(arrow::compute::cast(array, &DataType::Date32)?.as_primitive::<Date32Type>().clone())
}

/// Microseconds since midnight.
pub fn micros_of_day(array: &ArrayRef) -> Result<Time64MicrosecondArray> {
    let array = arrow::compute::cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
    Ok(array.as_primitive::<Time64MicrosecondType>().clone())
}

/// Microseconds since 1970, which is what PostgreSQL can hold; nanoseconds are cut off.
pub fn micros_since_1970(array: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let array = arrow::compute::cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(array.as_primitive::<TimestampMicrosecondType>().clone())
}

/// PostgreSQL's interval: three amounts that are kept apart, because a month and a day have no fixed length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

/// The intervals of a column of any interval or duration type.
pub fn intervals(array: &ArrayRef) -> Result<Box<dyn Fn(usize) -> Interval + Send>> {
    Ok(match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            let array = array.as_primitive::<IntervalYearMonthType>().clone();
            Box::new(move |row| Interval { months: array.value(row), ..Interval::default() })
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let array = array.as_primitive::<IntervalDayTimeType>().clone();
            Box::new(move |row| {
                let value = array.value(row);
                Interval { months: 0, days: value.days, micros: i64::from(value.milliseconds) * 1000 }
            })
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let array = array.as_primitive::<IntervalMonthDayNanoType>().clone();
            Box::new(move |row| {
                let value = array.value(row);
                Interval { months: value.months, days: value.days, micros: value.nanoseconds / 1000 }
            })
        }
        _ => {
            let array = arrow::compute::cast(array, &DataType::Duration(TimeUnit::Microsecond))?;
            let array = array.as_primitive::<DurationMicrosecondType>().clone();
            Box::new(move |row| Interval { micros: array.value(row), ..Interval::default() })
        }
    })
}

impl Interval {
    /// `1 year 2 mons -3 days +04:05:06.7`: a sign is written where it differs from the one before
    /// (`EncodeInterval` in PostgreSQL's datetime.c).
    pub fn put(self, out: &mut BytesMut) {
        let mut first = true;
        let mut negative_before = false;
        let amounts = [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")];
        for (amount, unit) in amounts.into_iter().filter(|(amount, _)| *amount != 0) {
            let space = if first { "" } else { " " };
            let sign = if negative_before && amount > 0 { "+" } else { "" };
            let plural = if amount == 1 { "" } else { "s" };
            put!(out, "{space}{sign}{amount} {unit}{plural}");
            negative_before = amount < 0;
            first = false;
        }
        if self.micros != 0 || first {
            let space = if first { "" } else { " " };
            let sign = match (self.micros < 0, negative_before) {
                (true, _) => "-",
                (false, true) => "+",
                (false, false) => "",
            };
            let micros = self.micros.unsigned_abs();
            let seconds = micros / 1_000_000;
            put!(out, "{space}{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            put_fraction((micros % 1_000_000) as i64, out);
        }
    }
}

/// The date without the mark of years before 1; tells whether the mark is due.
fn put_day(days: i64, out: &mut BytesMut) -> bool {
    let (year, month, day) = civil_from_days(days);
    let before_christ = year <= 0;
    put!(out, "{:04}-{month:02}-{day:02}", if before_christ { 1 - year } else { year });
    before_christ
}

pub fn put_date(days: i64, out: &mut BytesMut) {
    if put_day(days, out) {
        out.extend_from_slice(b" BC");
    }
}

fn put_fraction(micros: i64, out: &mut BytesMut) {
    if micros != 0 {
        let digits = format!("{micros:06}");
        put!(out, ".{}", digits.trim_end_matches('0'));
    }
}

pub fn put_time(micros: i64, out: &mut BytesMut) {
    let seconds = micros / 1_000_000;
    put!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    put_fraction(micros % 1_000_000, out);
}

/// The watermark's end of time is PostgreSQL's: both count it as the largest number.
pub const INFINITY: i64 = i64::MAX;

pub fn put_timestamp(micros: i64, zone: &[u8], out: &mut BytesMut) {
    if micros == INFINITY {
        return out.extend_from_slice(b"infinity");
    }
    let before_christ = put_day(micros.div_euclid(MICROS_PER_DAY), out);
    out.extend_from_slice(b" ");
    put_time(micros.rem_euclid(MICROS_PER_DAY), out);
    out.extend_from_slice(zone);
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    fn text(array: ArrayRef) -> Vec<String> {
        let write = crate::batch::text::writer(&array).unwrap();
        let one = |row| {
            let mut out = BytesMut::new();
            write(row, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        (0..array.len()).map(one).collect()
    }

    #[test]
    fn times_print_as_in_postgresql() {
        let values = vec![1431857103000000, 1431857103120000, -1, 0, 253402300800000000, -62135596800000001];
        let expected = [
            "2015-05-17 10:05:03+00",
            "2015-05-17 10:05:03.12+00",
            "1969-12-31 23:59:59.999999+00",
            "1970-01-01 00:00:00+00",
            "10000-01-01 00:00:00+00",
            "0001-12-31 23:59:59.999999+00 BC",
        ];
        let zoned = TimestampMicrosecondArray::from(values).with_timezone("+00:00");
        assert_eq!(text(Arc::new(zoned)), expected);
        let millis = TimestampMillisecondArray::from(vec![1431857103001]);
        assert_eq!(text(Arc::new(millis)), ["2015-05-17 10:05:03.001"]);
        assert_eq!(text(Arc::new(Date32Array::from(vec![11016, -1]))), ["2000-02-29", "1969-12-31"]);
        assert_eq!(text(Arc::new(Time64NanosecondArray::from(vec![3_723_500_000_000]))), ["01:02:03.5"]);
    }

    #[test]
    fn intervals_print_as_in_postgresql() {
        let value = |months, days, seconds: i64| IntervalMonthDayNano::new(months, days, seconds * 1_000_000_000);
        let values = vec![
            value(0, 0, 60),
            value(14, 3, 14706),
            value(0, -1, 7384),
            value(1, 0, 0),
            value(0, 0, 0),
            value(-14, 1, -1),
            value(0, 0, 360_000),
        ];
        let expected = [
            "00:01:00",
            "1 year 2 mons 3 days 04:05:06",
            "-1 days +02:03:04",
            "1 mon",
            "00:00:00",
            "-1 years -2 mons +1 day -00:00:01",
            "100:00:00",
        ];
        assert_eq!(text(Arc::new(IntervalMonthDayNanoArray::from(values))), expected);
        assert_eq!(text(Arc::new(DurationMillisecondArray::from(vec![1500]))), ["00:00:01.5"]);
    }
}
