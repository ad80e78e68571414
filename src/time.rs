//! Time as the engine counts it: microseconds since 1970-01-01 UTC in an `i64`, durations in words a user writes, and
//! a clock that tests can turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono_tz::Tz;

use crate::error::{Error, Kind, Result};
use crate::options;

/// The zone of every stored timestamp, as it is spelled in Arrow types.
pub const UTC: &str = "+00:00";

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

pub const MICROS_PER_SECOND: Micros = 1_000_000;

/// Reads wall time. The pure core never holds one: time reaches it as data.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Clock {
        Clock(None)
    }

    /// A clock that stands still until set: for tests.
    pub fn manual(now: Micros) -> Clock {
        Clock(Some(Arc::new(AtomicI64::new(now))))
    }

    /// Turns a manual clock; does nothing to the system's.
    pub fn set(&self, now: Micros) {
        if let Some(cell) = &self.0 {
            cell.store(now, Ordering::SeqCst);
        }
    }

    pub fn now(&self) -> Micros {
        match &self.0 {
            Some(cell) => cell.load(Ordering::SeqCst),
            None => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                since.map_or(0, |d| d.as_micros() as Micros)
            }
        }
    }
}

/// `5 seconds`, `1 minute 30 seconds`, `10ms`, `2h` → a duration. Months and years are refused: they have no fixed
/// length.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad = || {
        Error::new(Kind::InvalidParameter, format!("\"{text}\" is not a duration"))
            .with_hint("Write it like '5 seconds', '1 minute 30 seconds' or '10ms'.")
    };
    let mut rest = text.trim();
    let mut micros = 0f64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit = match rest[..letters].to_lowercase().as_str() {
            "us" | "µs" | "microsecond" | "microseconds" => 1.0,
            "ms" | "millisecond" | "milliseconds" => 1e3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1e6,
            "m" | "min" | "mins" | "minute" | "minutes" => 60e6,
            "h" | "hour" | "hours" => 3600e6,
            "d" | "day" | "days" => 86_400e6,
            "w" | "week" | "weeks" => 7.0 * 86_400e6,
            _ => return Err(bad()),
        };
        micros += number * unit;
        rest = rest[letters..].trim_start();
    }
    if micros.is_finite() && micros < i64::MAX as f64 {
        Ok(Duration::from_micros(micros.round() as u64))
    } else {
        Err(bad())
    }
}

/// A duration in the largest unit that fits without a remainder: `90 seconds`, `5 minutes`, `10 milliseconds`.
pub fn format_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    for (unit, name) in [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1000, "millisecond"),
    ] {
        if micros >= unit && micros.is_multiple_of(unit) {
            let n = micros / unit;
            return format!("{n} {name}{}", if n == 1 { "" } else { "s" });
        }
    }
    format!("{micros} microseconds")
}

/// A time zone by its name in the IANA database.
pub fn zone(name: &str) -> Result<Tz> {
    name.parse().map_err(|_| {
        let err = Error::new(Kind::InvalidParameter, format!("time zone \"{name}\" is not known"));
        match options::nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name())) {
            Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
            None => err.with_hint("Use a name of the IANA database, like 'Europe/Berlin' or 'UTC'."),
        }
    })
}

/// Days since 1970-01-01 → year, month, day of the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms"). Years begin in March there, so that the leap day comes last.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`]; for a day that does not exist, some other day.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        assert_eq!(parse_duration("1 minute 30 seconds").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("10ms").unwrap(), Duration::from_millis(10));
        assert_eq!(parse_duration("1.5 hours").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("1.001 s").unwrap(), Duration::from_millis(1001), "no microsecond is lost");
        assert!(parse_duration("1 month").is_err());
        assert!(parse_duration("").is_err());
        assert_eq!(format_duration(Duration::from_secs(90)), "90 seconds");
        assert_eq!(format_duration(Duration::from_secs(300)), "5 minutes");
    }
}
