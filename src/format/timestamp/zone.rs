//! The zone of times that do not name theirs: an offset from UTC, or a zone of the IANA database with its rules of when
//! clocks are put forward and back.
//!
//! An hour that comes twice is taken as the second, in standard time. An hour that is left out is read as if the clocks
//! had not been put forward yet: 02:30 is 03:30. Both as PostgreSQL does it, so every text is one instant, the same
//! each time the log is read.

use chrono::{DateTime, LocalResult, Offset, TimeZone};
use chrono_tz::{GapInfo, Tz};

use super::zone_offset;
use crate::error::{Error, Kind, Result};
use crate::time::{self, MICROS_PER_SECOND, Micros};

/// See the file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// Seconds east of UTC.
    Offset(i64),
    Named(Tz),
}

impl Zone {
    pub const UTC: Zone = Zone::Offset(0);

    /// Reads the option `timezone`: `+02:00`, `-0400`, `UTC`, `Europe/Berlin`.
    pub fn from_option(text: &str) -> Result<Zone> {
        let text = text.trim();
        if let Some(offset) = zone_offset(text.as_bytes()) {
            return Ok(Zone::Offset(offset));
        }
        if text.starts_with(['+', '-']) || text.is_empty() {
            return Err(Error::new(Kind::InvalidParameter, format!("\"{text}\" is not an offset from UTC"))
                .with_hint("Write it like '+02:00', or name a zone like 'Europe/Berlin'."));
        }
        time::zone(text).map(Zone::Named)
    }

    /// The instant at which clocks of this zone show `local`, microseconds since 1970 on such a clock.
    #[inline]
    pub fn instant(self, local: Micros) -> Option<Micros> {
        let offset = match self {
            Zone::Offset(offset) => offset,
            Zone::Named(zone) => offset_at(zone, local)?,
        };
        local.checked_sub(offset * MICROS_PER_SECOND)
    }
}

fn offset_at(zone: Tz, local: Micros) -> Option<i64> {
    let naive = DateTime::from_timestamp_micros(local)?.naive_utc();
    let offset = match zone.offset_from_local_datetime(&naive) {
        LocalResult::Single(offset) | LocalResult::Ambiguous(_, offset) => offset,
        LocalResult::None => GapInfo::new(&naive, &zone)?.begin?.1,
    };
    Some(offset.fix().local_minus_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::timestamp::rfc3339;

    fn instant(zone: &str, local: &str) -> Micros {
        rfc3339(local.as_bytes(), Zone::from_option(zone).unwrap()).unwrap()
    }

    fn utc(text: &str) -> Micros {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    #[test]
    fn clocks_that_change() {
        for (zone, local, instant_utc) in [
            ("Europe/Berlin", "2024-01-15 12:00:00", "2024-01-15T11:00:00Z"),
            ("Europe/Berlin", "2024-07-15 12:00:00", "2024-07-15T10:00:00Z"),
            // 02:00 to 03:00 is left out: read with the offset of before.
            ("Europe/Berlin", "2024-03-31 01:59:59", "2024-03-31T00:59:59Z"),
            ("Europe/Berlin", "2024-03-31 02:30:00", "2024-03-31T01:30:00Z"),
            ("Europe/Berlin", "2024-03-31 03:00:00", "2024-03-31T01:00:00Z"),
            // 02:00 to 03:00 comes twice: the second.
            ("Europe/Berlin", "2024-10-27 01:59:59", "2024-10-26T23:59:59Z"),
            ("Europe/Berlin", "2024-10-27 02:30:00", "2024-10-27T01:30:00Z"),
            ("America/New_York", "2018-11-04 01:30:00", "2018-11-04T06:30:00Z"),
            ("America/New_York", "2018-03-11 02:30:00", "2018-03-11T07:30:00Z"),
            // Half an hour only.
            ("Australia/Lord_Howe", "2024-10-06 02:15:00", "2024-10-05T15:45:00Z"),
        ] {
            assert_eq!(instant(zone, local), utc(instant_utc), "{local} in {zone}");
        }
        assert_eq!(instant("Europe/Berlin", "2024-07-15T12:00:00Z"), utc("2024-07-15T12:00:00Z"), "it names its own");
    }

    #[test]
    fn options() {
        assert_eq!(Zone::from_option("+02:00").unwrap(), Zone::Offset(7200));
        assert_eq!(Zone::from_option("utc").unwrap(), Zone::UTC);
        assert_eq!(Zone::from_option("Asia/Kolkata").unwrap(), Zone::Named(Tz::Asia__Kolkata));
        assert_eq!(Zone::from_option("Europe/Berlun").unwrap_err().hint(), Some("Did you mean \"Europe/Berlin\"?"));
        assert!(Zone::from_option("+99:00").unwrap_err().message().contains("offset"));
        assert_eq!(Zone::UTC.instant(Micros::MIN), Some(Micros::MIN));
        assert_eq!(Zone::Named(Tz::Europe__Berlin).instant(Micros::MIN), None);
    }
}
