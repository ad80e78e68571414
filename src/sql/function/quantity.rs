//! Quantities that programs write into their logs: durations (`1m 30.5s`) and sizes (`10 KiB`).

use std::borrow::Cow;

use arrow::array::ArrayRef;
use arrow::datatypes::{Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Texts, Type, numbers, unchecked};
use crate::{options, time};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "parse_duration",
        syntax: "parse_duration(text)",
        summary: "a duration such as '1h 30m', '250ms', '00:01:02.5' or 'PT1M2S' as an interval; NULL without a unit",
        sample: ("parse_duration('1m 30.5s')", "00:01:30.5"),
        forms: &[&[Type::Text]],
        result: Type::Interval,
        check: unchecked,
        rows: durations,
    },
    Scalar {
        name: "parse_bytes",
        syntax: "parse_bytes(text)",
        summary: "a size such as '10 KiB' (1024) or '1.5MB' (1000) as a number of bytes",
        sample: ("parse_bytes('1.5 KiB')", "1536"),
        forms: &[&[Type::Text]],
        result: Type::Bigint,
        check: unchecked,
        rows: |arguments| {
            let texts = arguments.text(0)?;
            Ok(numbers::<Int64Type>(arguments.rows, |row| texts.get(row).and_then(bytes)))
        },
    },
    Scalar {
        name: "pg_size_pretty",
        syntax: "pg_size_pretty(bytes)",
        summary: "a number of bytes for people, in units of 1024, as PostgreSQL writes it",
        sample: ("pg_size_pretty(123456789)", "118 MB"),
        forms: &[&[Type::Bigint]],
        result: Type::Text,
        check: unchecked,
        rows: sizes,
    },
];

fn bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let number = text.strip_suffix("bytes").or_else(|| text.strip_suffix("byte")).unwrap_or(text);
    options::parse_bytes(number).and_then(|bytes| i64::try_from(bytes).ok())
}

fn durations(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let texts = arguments.text(0)?;
    let interval = |nanos: i64| IntervalMonthDayNano::new(0, 0, nanos);
    Ok(numbers::<IntervalMonthDayNanoType>(arguments.rows, |row| texts.get(row).and_then(duration).map(interval)))
}

/// Nanoseconds of a duration: numbers with units, a clock (`1:02:03.5`) behind them or alone, or ISO 8601.
fn duration(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix('-') {
        Some(text) => positive(text.trim_start()).map(|nanos| -nanos),
        None => positive(text),
    }
}

fn positive(text: &str) -> Option<i64> {
    if let Some(iso) = text.strip_prefix('P') {
        // What stands before T are days; months, which would also be M, have no fixed length.
        let (days, rest) = iso.split_once('T').unwrap_or((iso, ""));
        if !(days.is_empty() || days.ends_with(['D', 'W'])) || days.contains(['M', 'Y']) {
            return None;
        }
        return units(&[days, rest].concat());
    }
    match text.rsplit_once(char::is_whitespace) {
        Some((before, time)) if time.contains(':') => units(before)?.checked_add(clock(time)?),
        _ if text.contains(':') => clock(text),
        _ => units(text),
    }
}

/// Numbers with units.
fn units(text: &str) -> Option<i64> {
    if let Some(number) = text.strip_suffix("ns") {
        let number = number.trim_end();
        let plain = number.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        let nanos = number.parse::<f64>().ok().filter(|nanos| plain && *nanos < i64::MAX as f64)?;
        return Some(nanos.round() as i64);
    }
    i64::try_from(time::parse_duration(text).ok()?.as_nanos()).ok()
}

/// `1:02:03.5`, and as PostgreSQL has it `1:02` in hours and minutes but `1:02.5` in minutes and seconds.
fn clock(text: &str) -> Option<i64> {
    let whole =
        |text: &str| -> Option<i64> { if text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None } };
    let below_60 = |text: &str| whole(text).filter(|number| *number < 60);
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let pieces: Vec<&str> = clock.split(':').collect();
    let seconds = match pieces.as_slice() {
        [hours, minutes, seconds] => {
            whole(hours)?.checked_mul(3600)?.checked_add(below_60(minutes)? * 60 + below_60(seconds)?)?
        }
        [minutes, seconds] if fraction.is_some() => whole(minutes)?.checked_mul(60)?.checked_add(below_60(seconds)?)?,
        [hours, minutes] => whole(hours)?.checked_mul(3600)?.checked_add(below_60(minutes)? * 60)?,
        _ => return None,
    };
    let nanos = match fraction {
        None => 0,
        // Nine digits are nanoseconds; the tenth and later ones are dropped.
        Some(fraction) => {
            if !fraction.bytes().all(|c| c.is_ascii_digit()) {
                return None;
            }
            let digits = &fraction[..fraction.len().min(9)];
            whole(digits)? * 10_i64.pow(9 - digits.len() as u32)
        }
    };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Units of PostgreSQL's `pg_size_pretty` behind bytes; each is used up to ten thousand.
const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
const LIMIT: i64 = 10 * 1024;

fn sizes(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let numbers = arguments.numbers::<Int64Type>(0)?;
    let mut texts = Texts::new(arguments.rows);
    for row in 0..arguments.rows {
        match numbers.get(row) {
            Some(bytes) => texts.push(&pretty(bytes)),
            None => texts.push_null(),
        }
    }
    Ok(texts.finish())
}

/// As `pg_size_pretty` in PostgreSQL's dbsize.c: one binary digit more than the unit is kept for rounding.
fn pretty(bytes: i64) -> Cow<'static, str> {
    if bytes.unsigned_abs() < LIMIT as u64 {
        return Cow::Owned(format!("{bytes} bytes"));
    }
    // Halves of the unit.
    let mut halves = bytes / (1 << 9);
    let last = UNITS.len() - 1;
    for (i, unit) in UNITS.iter().enumerate() {
        if i == last || halves.unsigned_abs() < (LIMIT * 2 - 1) as u64 {
            let rounded = (halves + if halves < 0 { -1 } else { 1 }) / 2;
            return Cow::Owned(format!("{rounded} {unit}"));
        }
        halves /= 1 << 10;
    }
    Cow::Borrowed("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_many_spellings() {
        for (text, millis) in [
            ("1h 30m", 5_400_000.0),
            ("1h30m", 5_400_000.0),
            ("250ms", 250.0),
            ("1.5 s", 1500.0),
            ("1.001s", 1001.0),
            (" 2 days ", 172_800_000.0),
            ("00:01:02.5", 62_500.0),
            ("100:00:00", 360_000_000.0),
            ("1:02", 3_720_000.0),
            ("1:02.5", 62_500.0),
            ("1 day 00:00:01", 86_401_000.0),
            ("PT1M2.5S", 62_500.0),
            ("P1DT1H", 90_000_000.0),
            ("-3s", -3000.0),
            ("1500ns", 0.0015),
            ("12µs", 0.012),
            ("0s", 0.0),
        ] {
            assert_eq!(duration(text), Some((millis * 1e6) as i64), "{text}");
        }
        for text in [
            "",
            "-",
            "5",
            "1.5",
            "soon",
            "1 month",
            "P1M",
            "P1Y",
            "P",
            "PT",
            "1:2:3:4",
            "1:60:00",
            "1:00:60",
            "--1s",
            "00:00:01.x",
            "1:",
            ":1",
            "9999999999999h",
            "99999999999999999:00:00",
            "1e3s",
            "1e3ns",
            "NaNns",
            "١s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!(bytes("10 KiB"), Some(10_240));
        assert_eq!(bytes("1.5MB"), Some(1_500_000));
        assert_eq!(bytes("512 bytes"), Some(512));
        assert_eq!(bytes("2.01 kB"), Some(2010));
        assert_eq!(bytes("1 light-year"), None);
        assert_eq!(bytes("99999999 TiB"), None);
        // As PostgreSQL 15 prints them.
        for (number, expected) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (-123_456_789, "-118 MB"),
            (i64::MAX, "8192 PB"),
            (i64::MIN, "-8192 PB"),
        ] {
            assert_eq!(pretty(number), expected, "{number}");
        }
    }
}
