//! How the user says that times are written: the options `time_format` and `timezone`.

use chrono::format::{Item, Parsed, StrftimeItems, parse};

use super::{Zone, auto, clf, epoch, epoch_float, epoch_in, rfc3339};
use crate::error::{Error, Kind, Result};
use crate::options::{self, OptionKind, OptionSpec, Options};
use crate::time::{MICROS_PER_SECOND, Micros};

/// How a timestamp is written.
#[derive(Debug, Clone, PartialEq)]
pub enum TimeFormat {
    /// Whichever of the following three fits.
    Auto,
    /// Common log format: `17/May/2015:10:05:03 +0000`.
    Clf,
    /// RFC 3339 and its relaxed relatives: `2015-05-17T10:05:03.25Z`, `2015-05-17 10:05:03,25 +02:00`, `2015/05/17`.
    Rfc3339,
    /// A number since 1970, in seconds, milliseconds, microseconds or nanoseconds by its magnitude.
    Epoch,
    /// A number since 1970 of which so many make a second.
    EpochIn(i64),
    /// Fields as `strptime` names them, such as `%d.%m.%Y %H:%M:%S`.
    Pattern(Vec<Item<'static>>),
}

/// What `time_format` takes besides patterns.
const NAMES: &[(&str, TimeFormat)] = &[
    ("auto", TimeFormat::Auto),
    ("clf", TimeFormat::Clf),
    ("rfc3339", TimeFormat::Rfc3339),
    ("iso8601", TimeFormat::Rfc3339),
    ("epoch", TimeFormat::Epoch),
    ("epoch_ms", TimeFormat::EpochIn(1000)),
    ("epoch_us", TimeFormat::EpochIn(1_000_000)),
    ("epoch_ns", TimeFormat::EpochIn(1_000_000_000)),
];

impl TimeFormat {
    /// Reads the option `time_format`: one of [`NAMES`], or a pattern with `%`. Refuses a pattern that does not
    /// determine a point in time.
    pub fn from_option(text: &str) -> Result<TimeFormat> {
        if let Some((_, format)) = NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
            return Ok(format.clone());
        }
        if !text.contains('%') {
            return Err(no_format(text, "It is neither a known name nor a pattern."));
        }
        let items = pattern_items(text)?;
        if !says_a_moment(&items) {
            return Err(no_format(text, "It does not say year, month, day, hour and minute."));
        }
        Ok(TimeFormat::Pattern(items))
    }

    /// The time that `text` says; `zone` holds when it names none.
    pub fn read(&self, text: &[u8], zone: Zone) -> Option<Micros> {
        match self {
            TimeFormat::Auto => auto(text, zone),
            TimeFormat::Clf => clf(text),
            TimeFormat::Rfc3339 => rfc3339(text, zone),
            TimeFormat::Epoch | TimeFormat::EpochIn(_) => self.epoch_text(text),
            TimeFormat::Pattern(items) => {
                let mut parsed = Parsed::new();
                read_items(&mut parsed, text, items)?;
                resolve(&parsed, zone)
            }
        }
    }

    /// The time that a number says.
    pub fn number(&self, number: i64) -> Option<Micros> {
        match self {
            TimeFormat::EpochIn(per_second) => epoch_in(number, *per_second),
            TimeFormat::Auto | TimeFormat::Clf | TimeFormat::Rfc3339 | TimeFormat::Epoch | TimeFormat::Pattern(_) => {
                Some(epoch(number))
            }
        }
    }

    /// The time that a number with a fraction says.
    pub fn float(&self, number: f64) -> Option<Micros> {
        match self {
            TimeFormat::EpochIn(per_second) => {
                let micros = number * (MICROS_PER_SECOND as f64 / *per_second as f64);
                (micros.abs() < 9e18).then_some(micros.round() as Micros)
            }
            TimeFormat::Auto | TimeFormat::Clf | TimeFormat::Rfc3339 | TimeFormat::Epoch | TimeFormat::Pattern(_) => {
                epoch_float(number)
            }
        }
    }

    fn epoch_text(&self, text: &[u8]) -> Option<Micros> {
        let text = std::str::from_utf8(text).ok()?.trim();
        if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-') {
            return None;
        }
        match text.parse() {
            Ok(number) => self.number(number),
            Err(_) => self.float(text.parse().ok()?),
        }
    }
}

fn no_format(text: &str, detail: &str) -> Error {
    let names = options::list(NAMES.iter().map(|(name, _)| *name));
    Error::new(Kind::InvalidParameter, format!("\"{text}\" is not a time format"))
        .with_detail(detail)
        .with_hint(format!("Use {names}, or a pattern such as '%Y-%m-%d %H:%M:%S'."))
}

/// The fields of a pattern as `strptime` names them.
pub fn pattern_items(text: &str) -> Result<Vec<Item<'static>>> {
    StrftimeItems::new(text).parse_to_owned().map_err(|_| no_format(text, "It has an unknown % field."))
}

/// An ordinary moment as `items` write it; `None` when they cannot be written.
pub fn written_sample(items: &[Item<'static>]) -> Option<String> {
    let moment = chrono::DateTime::from_timestamp(1_431_857_103, 0)?;
    let mut written = String::new();
    std::fmt::Write::write_fmt(&mut written, format_args!("{}", moment.format_with_items(items.iter()))).ok()?;
    Some(written)
}

/// Whether the fields determine a point in time. Written and read back, a moment must survive: this finds a missing
/// year, day or hour without listing fields.
pub fn says_a_moment(items: &[Item<'static>]) -> bool {
    let mut parsed = Parsed::new();
    written_sample(items)
        .and_then(|written| read_items(&mut parsed, written.as_bytes(), items))
        .and_then(|()| resolve(&parsed, Zone::UTC))
        .is_some()
}

/// Adds to `parsed` what `text` says. `None` when it is not written like `items`, or contradicts what is known.
pub fn read_items(parsed: &mut Parsed, text: &[u8], items: &[Item<'static>]) -> Option<()> {
    parse(parsed, std::str::from_utf8(text).ok()?, items.iter()).ok()
}

/// The point in time that the fields determine; `zone` holds when none of them names an offset.
pub fn resolve(parsed: &Parsed, zone: Zone) -> Option<Micros> {
    match parsed.to_datetime() {
        Ok(time) => Some(time.timestamp_micros()),
        Err(_) => {
            let local = parsed.to_naive_datetime_with_offset(0).ok()?;
            zone.instant(local.and_utc().timestamp_micros())
        }
    }
}

/// The options by which a user says how the times of a format are written.
pub const TIME_FORMAT: OptionSpec = OptionSpec::optional(
    "time_format",
    OptionKind::Text,
    Some("auto"),
    "how times are written: auto, rfc3339, clf, epoch, epoch_ms, epoch_us, epoch_ns, or a pattern such as '%d.%m.%Y %H:%M:%S'",
);
pub const TIMEZONE: OptionSpec = OptionSpec::optional(
    "timezone",
    OptionKind::Text,
    Some("UTC"),
    "zone of times that do not name theirs: an offset such as '+02:00', or a name such as 'Europe/Berlin'",
);

/// How the times of a format are written.
#[derive(Debug, Clone)]
pub struct Times {
    pub format: TimeFormat,
    /// For times that do not name theirs.
    pub zone: Zone,
}

impl Times {
    /// Reads [`TIME_FORMAT`] and [`TIMEZONE`], or what a format takes of them.
    pub fn from_options(options: &Options) -> Result<Times> {
        Ok(Times {
            format: TimeFormat::from_option(options.text(TIME_FORMAT.name).unwrap_or("auto"))?,
            zone: Zone::from_option(options.text(TIMEZONE.name).unwrap_or("UTC"))?,
        })
    }

    pub fn read(&self, text: &[u8]) -> Option<Micros> {
        self.format.read(text, self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAY_17: Micros = 1_431_857_103_000_000; // 2015-05-17T10:05:03Z

    #[test]
    fn patterns_must_say_a_moment() {
        let german = TimeFormat::from_option("%d.%m.%Y %H:%M:%S").unwrap();
        assert_eq!(german.read(b"17.05.2015 12:05:03", Zone::Offset(7200)), Some(MAY_17));
        let zoned = TimeFormat::from_option("%d/%b/%Y:%H:%M:%S %z").unwrap();
        assert_eq!(zoned.read(b"17/May/2015:12:05:03 +0200", Zone::UTC), Some(MAY_17));
        assert!(TimeFormat::from_option("%b %d %H:%M:%S").unwrap_err().detail().unwrap().contains("year"));
        assert!(TimeFormat::from_option("iso").is_err());
        assert!(TimeFormat::from_option("%Q").is_err());
    }

    #[test]
    fn numbers_in_a_named_unit() {
        let read = |format: &str, text: &str| TimeFormat::from_option(format).unwrap().read(text.as_bytes(), Zone::UTC);
        assert_eq!(read("epoch_ms", "1431857103000"), Some(MAY_17));
        assert_eq!(read("EPOCH_MS", "1"), Some(1000), "by its name, not by its magnitude");
        assert_eq!(read("epoch_ms", "0.5"), Some(500));
        assert_eq!(read("epoch_us", "1431857103000000"), Some(MAY_17));
        assert_eq!(read("epoch_ns", "1999"), Some(1));
        assert_eq!(read("epoch_ms", "9223372036854775807"), None);
        assert_eq!(read("epoch_ms", "1e3"), None);
        assert!(TimeFormat::from_option("epoch_s").unwrap_err().hint().unwrap().contains("epoch_ms"));
    }
}
