//! Times as text: `to_char` with PostgreSQL's patterns (`YYYY-MM-DD HH24:MI:SS`) as well as those of `strftime`
//! (`%Y-%m-%d %H:%M:%S`), which are all that DataFusion's function of this name has. A pattern with a `%` is one of
//! `strftime`. Times are shown in UTC.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Datelike, Timelike, Utc};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Texts, Type, bad_constant, texts};
use crate::batch::datetime::Interval;
use crate::error::{Kind, Result};

pub static SPECS: &[Scalar] = &[Scalar {
    name: "to_char",
    syntax: "to_char(time or interval or number, pattern)",
    summary: "a value as text, with a pattern as in PostgreSQL; of a time also as in strftime, when it has a %",
    sample: ("to_char(TIMESTAMP '2026-01-02 15:04:05', 'Dy DD Mon YYYY HH12:MI am')", "Fri 02 Jan 2026 03:04 pm"),
    forms: &[&[Type::Any, Type::Text]],
    result: Type::Text,
    check: check_pattern,
    rows: to_char,
}];

/// One piece of a pattern.
enum Piece {
    Text(String),
    /// A field, perhaps without padding (`FM`) or with the ending of an ordinal (`th`, or `TH` in upper case).
    Field {
        write: Write,
        bare: bool,
        ordinal: Option<bool>,
    },
}

/// Writes a field of a time; true for `bare`: without padding.
type Write = fn(&DateTime<Utc>, bool, &mut String);

macro_rules! number {
    ($width:literal, $value:expr) => {
        |time, bare, out| {
            let value: fn(&DateTime<Utc>) -> i64 = $value;
            let width = if bare { 0 } else { $width };
            let _ = write!(out, "{:0width$}", value(time));
        }
    };
}

macro_rules! name {
    ($names:ident, $index:expr, $case:expr, $take:literal, $pad:literal) => {
        |time, bare, out| {
            let index: fn(&DateTime<Utc>) -> usize = $index;
            let case: fn(&str) -> String = $case;
            let name: &str = $names[index(time)];
            let name = case(&name[..name.len().min($take)]);
            let width = if bare { 0 } else { $pad };
            let _ = write!(out, "{name:width$}");
        }
    };
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

fn month(time: &DateTime<Utc>) -> usize {
    time.month0() as usize
}

fn day(time: &DateTime<Utc>) -> usize {
    time.weekday().num_days_from_sunday() as usize
}

fn hour12(time: &DateTime<Utc>) -> i64 {
    i64::from(time.hour12().1)
}

fn micros(time: &DateTime<Utc>) -> i64 {
    // A leap second is the last microsecond of its minute.
    i64::from(time.nanosecond() / 1000).min(999_999)
}

/// PostgreSQL's fields, the longer before those that they begin with; whether the case of their letters matters; how they
/// are written.
static FIELDS: &[(&str, bool, Write)] = &[
    ("HH24", false, number!(2, |t| t.hour().into())),
    ("HH12", false, number!(2, hour12)),
    ("HH", false, number!(2, hour12)),
    ("MI", false, number!(2, |t| t.minute().into())),
    ("SSSSS", false, number!(5, |t| t.num_seconds_from_midnight().into())),
    ("SSSS", false, number!(5, |t| t.num_seconds_from_midnight().into())),
    ("SS", false, number!(2, |t| t.second().into())),
    ("MS", false, number!(3, |t| micros(t) / 1000)),
    ("US", false, number!(6, micros)),
    ("FF1", false, number!(1, |t| micros(t) / 100_000)),
    ("FF2", false, number!(2, |t| micros(t) / 10_000)),
    ("FF3", false, number!(3, |t| micros(t) / 1000)),
    ("FF4", false, number!(4, |t| micros(t) / 100)),
    ("FF5", false, number!(5, |t| micros(t) / 10)),
    ("FF6", false, number!(6, micros)),
    ("A.M.", true, |t, _, out| out.push_str(if t.hour() < 12 { "A.M." } else { "P.M." })),
    ("P.M.", true, |t, _, out| out.push_str(if t.hour() < 12 { "A.M." } else { "P.M." })),
    ("a.m.", true, |t, _, out| out.push_str(if t.hour() < 12 { "a.m." } else { "p.m." })),
    ("p.m.", true, |t, _, out| out.push_str(if t.hour() < 12 { "a.m." } else { "p.m." })),
    ("A.D.", true, |t, _, out| out.push_str(if t.year() > 0 { "A.D." } else { "B.C." })),
    ("B.C.", true, |t, _, out| out.push_str(if t.year() > 0 { "A.D." } else { "B.C." })),
    ("AD", true, |t, _, out| out.push_str(if t.year() > 0 { "AD" } else { "BC" })),
    ("BC", true, |t, _, out| out.push_str(if t.year() > 0 { "AD" } else { "BC" })),
    ("ad", true, |t, _, out| out.push_str(if t.year() > 0 { "ad" } else { "bc" })),
    ("bc", true, |t, _, out| out.push_str(if t.year() > 0 { "ad" } else { "bc" })),
    ("CC", false, number!(2, |t| (i64::from(t.year()) + 99).div_euclid(100))),
    ("J", false, number!(7, |t| i64::from(t.date_naive().to_epoch_days()) + 2_440_588)),
    ("RM", true, |t, bare, out| {
        let _ = write!(out, "{:width$}", ROMAN[month(t)], width = if bare { 0 } else { 4 });
    }),
    ("rm", true, |t, bare, out| {
        let _ = write!(out, "{:width$}", ROMAN[month(t)].to_lowercase(), width = if bare { 0 } else { 4 });
    }),
    ("Y,YYY", false, |t, _, out| {
        let _ = write!(out, "{},{:03}", t.year() / 1000, t.year() % 1000);
    }),
    ("AM", true, |t, _, out| out.push_str(if t.hour() < 12 { "AM" } else { "PM" })),
    ("PM", true, |t, _, out| out.push_str(if t.hour() < 12 { "AM" } else { "PM" })),
    ("am", true, |t, _, out| out.push_str(if t.hour() < 12 { "am" } else { "pm" })),
    ("pm", true, |t, _, out| out.push_str(if t.hour() < 12 { "am" } else { "pm" })),
    ("YYYY", false, number!(4, |t| t.year().into())),
    ("YYY", false, number!(3, |t| i64::from(t.year()).rem_euclid(1000))),
    ("YY", false, number!(2, |t| i64::from(t.year()).rem_euclid(100))),
    ("Y", false, number!(1, |t| i64::from(t.year()).rem_euclid(10))),
    ("IYYY", false, number!(4, |t| t.iso_week().year().into())),
    ("IYY", false, number!(3, |t| i64::from(t.iso_week().year()).rem_euclid(1000))),
    ("IY", false, number!(2, |t| i64::from(t.iso_week().year()).rem_euclid(100))),
    ("IW", false, number!(2, |t| t.iso_week().week().into())),
    ("IDDD", false, number!(3, |t| i64::from(t.iso_week().week0() * 7 + t.weekday().number_from_monday()))),
    ("ID", false, number!(1, |t| t.weekday().number_from_monday().into())),
    ("I", false, number!(1, |t| i64::from(t.iso_week().year()).rem_euclid(10))),
    ("MONTH", true, name!(MONTHS, month, str::to_uppercase, 9, 9)),
    ("Month", true, name!(MONTHS, month, str::to_string, 9, 9)),
    ("month", true, name!(MONTHS, month, str::to_lowercase, 9, 9)),
    ("MON", true, name!(MONTHS, month, str::to_uppercase, 3, 3)),
    ("Mon", true, name!(MONTHS, month, str::to_string, 3, 3)),
    ("mon", true, name!(MONTHS, month, str::to_lowercase, 3, 3)),
    ("MM", false, number!(2, |t| t.month().into())),
    ("DAY", true, name!(DAYS, day, str::to_uppercase, 9, 9)),
    ("Day", true, name!(DAYS, day, str::to_string, 9, 9)),
    ("day", true, name!(DAYS, day, str::to_lowercase, 9, 9)),
    ("DY", true, name!(DAYS, day, str::to_uppercase, 3, 3)),
    ("Dy", true, name!(DAYS, day, str::to_string, 3, 3)),
    ("dy", true, name!(DAYS, day, str::to_lowercase, 3, 3)),
    ("DDD", false, number!(3, |t| t.ordinal().into())),
    ("DD", false, number!(2, |t| t.day().into())),
    ("D", false, number!(1, |t| t.weekday().number_from_sunday().into())),
    ("WW", false, number!(2, |t| i64::from(t.ordinal0() / 7 + 1))),
    ("W", false, number!(1, |t| i64::from(t.day0() / 7 + 1))),
    ("Q", false, number!(1, |t| i64::from(t.month0() / 3 + 1))),
    // The zone of every time is UTC.
    ("TZH", true, |_, _, out| out.push_str("+00")),
    ("TZM", true, |_, _, out| out.push_str("00")),
    ("TZ", true, |_, _, out| out.push_str("UTC")),
    ("tz", true, |_, _, out| out.push_str("utc")),
    ("OF", true, |_, _, out| out.push_str("+00")),
];

/// Reads a pattern of PostgreSQL; what is no field stands for itself.
fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = pattern;
    let mut bare = false;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            text.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or("");
            continue;
        }
        let starts = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if starts("FM") {
            bare = true;
            rest = &rest[2..];
            continue;
        }
        let field = FIELDS.iter().find(|(word, exact, _)| if *exact { rest.starts_with(word) } else { starts(word) });
        let Some((word, _, write)) = field else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        rest = &rest[word.len()..];
        let ordinal = match rest.get(..2) {
            Some("TH") => Some(true),
            Some("th") => Some(false),
            _ => None,
        };
        rest = &rest[if ordinal.is_some() { 2 } else { 0 }..];
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Field { write: *write, bare: std::mem::take(&mut bare), ordinal });
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

fn format(time: &DateTime<Utc>, pieces: &[Piece], out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Field { write, bare, ordinal } => {
                let start = out.len();
                write(time, *bare, out);
                if let Some(upper) = ordinal {
                    let ending = ending(&out[start..]);
                    out.push_str(&if *upper { ending.to_uppercase() } else { ending.to_string() });
                }
            }
        }
    }
}

/// 1st, 2nd, 3rd, 4th, 11th.
pub fn ending(number: &str) -> &'static str {
    let tens = number.len() > 1 && number.as_bytes()[number.len() - 2] == b'1';
    match number.bytes().last() {
        Some(b'1') if !tens => "st",
        Some(b'2') if !tens => "nd",
        Some(b'3') if !tens => "rd",
        _ => "th",
    }
}

/// An interval with the fields of a pattern; hours may be more than a day has.
fn interval_text(span: Interval, pattern: &str) -> String {
    let seconds = span.micros / 1_000_000;
    let field = |name: &str, width: usize| -> Option<String> {
        let number = match name {
            "YYYY" | "YYY" | "YY" | "Y" => i64::from(span.months / 12),
            "MM" => i64::from(span.months % 12),
            "DD" | "DDD" | "D" => i64::from(span.days),
            "HH24" => seconds / 3600,
            // Of half a day.
            "HH12" | "HH" => match seconds / 3600 % 12 {
                0 => 12,
                hour => hour,
            },
            "MI" => seconds / 60 % 60,
            "SS" => seconds % 60,
            "SSSS" | "SSSSS" => seconds,
            "MS" => span.micros % 1_000_000 / 1000,
            "US" => span.micros % 1_000_000,
            _ => return None,
        };
        let sign = if number < 0 { "-" } else { "" };
        Some(format!("{sign}{:0width$}", number.abs()))
    };
    let (mut out, mut rest, mut bare) = (String::new(), pattern, false);
    while let Some(first) = rest.chars().next() {
        let starts = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or("");
            continue;
        }
        if starts("FM") {
            bare = true;
            rest = &rest[2..];
            continue;
        }
        let known = FIELDS.iter().map(|(word, ..)| *word).find(|word| starts(word));
        let width = |word: &str| match word {
            "HH24" | "HH12" => 2,
            "SSSS" | "SSSSS" | "D" => 1,
            "MS" => 3,
            "US" => 6,
            other => other.len(),
        };
        match known.and_then(|word| Some((word, field(word, if bare { 0 } else { width(word) })?))) {
            Some((word, text)) => {
                out.push_str(&text);
                bare = false;
                rest = &rest[word.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// A pattern that has been read.
enum Pattern {
    Postgres(Vec<Piece>),
    Strftime(Vec<Item<'static>>),
}

impl Pattern {
    fn numbers(text: &str) -> super::number_text::Pattern {
        super::number_text::Pattern::read(text)
    }

    fn read(text: &str) -> Option<Pattern> {
        match text.contains('%') {
            true => StrftimeItems::new(text).parse_to_owned().ok().map(Pattern::Strftime),
            false => Some(Pattern::Postgres(pieces(text))),
        }
    }

    /// Appends a time; false when it has no such field.
    fn format(&self, time: &DateTime<Utc>, out: &mut String) -> bool {
        match self {
            Pattern::Postgres(pieces) => {
                format(time, pieces, out);
                true
            }
            Pattern::Strftime(items) => write!(out, "{}", time.format_with_items(items.iter())).is_ok(),
        }
    }
}

fn check_pattern(constants: &[Option<&str>]) -> Result<()> {
    match constants.get(1).copied().flatten() {
        Some(text) if Pattern::read(text).is_none() => {
            Err(bad_constant(Kind::InvalidParameter, "a pattern of times", text, "One of its % begins no field.")
                .with_hint("Write it like 'YYYY-MM-DD HH24:MI:SS' or '%Y-%m-%d %H:%M:%S'."))
        }
        Some(_) | None => Ok(()),
    }
}

fn to_char(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (values, patterns) = (arguments.array(0)?, arguments.text(1)?);
    let times = match values.data_type() {
        number if number.is_numeric() => {
            let digits = super::cast::as_text(&values)?;
            let digits = digits.as_string_view();
            return texts(arguments.rows, |row| {
                let pattern = patterns.get(row).filter(|_| digits.is_valid(row));
                Ok(pattern.map(|pattern| Pattern::numbers(pattern).format(digits.value(row))))
            });
        }
        // Its fields are those of so long after the beginning of the year 0.
        DataType::Interval(_) | DataType::Duration(_) => {
            let spans = crate::batch::datetime::intervals(&values)?;
            return texts(arguments.rows, |row| {
                let pattern = patterns.get(row).filter(|_| values.is_valid(row));
                Ok(pattern.map(|pattern| interval_text(spans(row), pattern)))
            });
        }
        _ => cast(&values, &DataType::Timestamp(TimeUnit::Microsecond, None))?,
    };
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut out = Texts::new(arguments.rows);
    let mut shown = String::new();
    // The pattern that was read last: mostly it is the same in all rows.
    let mut read: Option<(&str, Option<Pattern>)> = None;
    for row in 0..arguments.rows {
        let mut format = || -> Option<()> {
            let micros = times.is_valid(row).then(|| times.value(row))?;
            let time = DateTime::from_timestamp_micros(micros)?;
            let text = patterns.get(row)?;
            if read.as_ref().is_none_or(|(last, _)| *last != text) {
                read = Some((text, Pattern::read(text)));
            }
            shown.clear();
            read.as_ref()?.1.as_ref()?.format(&time, &mut shown).then_some(())
        };
        match format() {
            Some(()) => out.push(&shown),
            None => out.push_null(),
        }
    }
    Ok(out.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_postgres() {
        let time = DateTime::parse_from_rfc3339("2026-01-02T15:04:05.678901Z").unwrap().to_utc();
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS", "2026-01-02 15:04:05"),
            ("yyyy/mm/dd hh:mi:ss.ms us PM", "2026/01/02 03:04:05.678 678901 PM"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS.FF3OF", "2026-01-02T15:04:05.678+00"),
            ("FMDay, DD FMMonth|Day|MON|", "Friday, 02 January|Friday   |JAN|"),
            ("FMDDth FMHH12 am, Q WW IW D ID DDD", "2nd 3 pm, 1 01 01 6 5 002"),
            ("\"YYYY\" é YY \"", "YYYY é 26 "),
            ("SSSS TZ", "54245 UTC"),
            ("%d.%m.%y %H:%M", "02.01.26 15:04"),
            ("", ""),
        ] {
            let mut shown = String::new();
            assert!(Pattern::read(pattern).unwrap().format(&time, &mut shown), "{pattern}");
            assert_eq!(shown, expected, "{pattern}");
        }
        assert!(Pattern::read("%!").is_none());
    }

    #[test]
    fn ordinals_end_as_spoken() {
        let shown: Vec<&str> = ["1", "02", "3", "04", "11", "12", "13", "21", "101", "111"].map(ending).to_vec();
        assert_eq!(shown, ["st", "nd", "rd", "th", "th", "th", "th", "st", "st", "th"]);
    }
}
