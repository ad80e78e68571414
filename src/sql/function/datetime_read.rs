//! Times out of texts and numbers: `to_timestamp` and `to_date` with PostgreSQL's patterns (`YYYY-MM-DD HH24:MI:SS`) or those
//! of `strftime` where there is a `%`, and times put together (`make_timestamptz` and the like).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Time64MicrosecondArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, numbers, unchecked};
use super::zone;
use crate::error::{Error, Kind, Result};
use crate::time::UTC;

const SIX: &[Type] = &[Type::Bigint, Type::Bigint, Type::Bigint, Type::Bigint, Type::Bigint, Type::Double];

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "to_timestamp",
        syntax: "to_timestamp(seconds) | to_timestamp(text [, pattern])",
        summary: "the time so many seconds after 1970, or that a text says, with a pattern as in PostgreSQL, or as in strftime when it has a %",
        sample: ("to_timestamp('02 Jan 2026 15:04', 'DD Mon YYYY HH24:MI')", "2026-01-02 15:04:00+00"),
        forms: &[&[Type::Any], &[Type::Text, Type::Text]],
        result: Type::Time,
        check: unchecked,
        rows: to_timestamp,
    },
    Scalar {
        name: "to_date",
        syntax: "to_date(text [, pattern])",
        summary: "the date that a text says, with the same patterns",
        sample: ("to_date('02 Jan 2026', 'DD Mon YYYY')", "2026-01-02"),
        forms: &[&[Type::Any], &[Type::Text, Type::Text]],
        result: Type::Date,
        check: unchecked,
        rows: |arguments| {
            if arguments.count() == 1 {
                return Ok(cast(&arguments.array(0)?, &DataType::Date32)?);
            }
            let micros = read_texts(arguments)?;
            let day = |micros: i64| micros.div_euclid(MICROS_PER_DAY) as i32;
            Ok(Arc::new(micros.into_iter().map(|micros| micros.map(day)).collect::<Date32Array>()))
        },
    },
    Scalar {
        name: "make_time",
        syntax: "make_time(hour, minute, second)",
        summary: "a time of day",
        sample: ("make_time(8, 15, 23.5)", "08:15:23.5"),
        forms: &[&[Type::Bigint, Type::Bigint, Type::Double]],
        result: Type::Clock,
        check: unchecked,
        rows: |arguments| {
            let (hours, minutes) = (arguments.numbers::<Int64Type>(0)?, arguments.numbers::<Int64Type>(1)?);
            let seconds = arguments.numbers::<Float64Type>(2)?;
            let clock = |row: usize| -> Result<Option<i64>> {
                match (hours.get(row), minutes.get(row), seconds.get(row)) {
                    (Some(hour), Some(minute), Some(second)) => clock_of(hour, minute, second).map(Some),
                    _ => Ok(None),
                }
            };
            Ok(Arc::new((0..arguments.rows).map(clock).collect::<Result<Time64MicrosecondArray>>()?))
        },
    },
    Scalar {
        name: "make_timestamp",
        syntax: "make_timestamp(year, month, day, hour, minute, second)",
        summary: "a time without a zone",
        sample: ("make_timestamp(2026, 7, 15, 8, 15, 23.5)", "2026-07-15 08:15:23.5"),
        forms: &[SIX],
        result: Type::Timestamp,
        check: unchecked,
        rows: |arguments| Ok(Arc::new(made(arguments)?.into_iter().collect::<TimestampMicrosecondArray>())),
    },
    Scalar {
        name: "make_timestamptz",
        syntax: "make_timestamptz(year, month, day, hour, minute, second [, zone])",
        summary: "a time, of UTC when there is no zone",
        sample: ("make_timestamptz(2026, 7, 15, 8, 15, 23.5, 'Europe/Berlin')", "2026-07-15 06:15:23.5+00"),
        forms: &[
            SIX,
            &[Type::Bigint, Type::Bigint, Type::Bigint, Type::Bigint, Type::Bigint, Type::Double, Type::Text],
        ],
        result: Type::Time,
        check: unchecked,
        rows: |arguments| {
            let mut times = made(arguments)?;
            if arguments.count() > 6 {
                let zones = arguments.text(6)?;
                for (row, time) in times.iter_mut().enumerate() {
                    *time = match (*time, zones.get(row)) {
                        (Some(local), Some(name)) => Some(zone::find(name)?.utc_of(local)),
                        _ => None,
                    };
                }
            }
            Ok(Arc::new(times.into_iter().collect::<TimestampMicrosecondArray>().with_timezone(UTC)))
        },
    },
    Scalar {
        name: "interval_of",
        syntax: "interval_of(years, months, weeks, days, hours, minutes, seconds)",
        summary: "what make_interval(days => 1) calls",
        sample: ("interval_of(1, 2, 0, 3, 4, 5, 6.5)", "1 year 2 mons 3 days 04:05:06.5"),
        forms: &[&[Type::Bigint, Type::Bigint, Type::Bigint, Type::Bigint, Type::Bigint, Type::Bigint, Type::Double]],
        result: Type::Interval,
        check: unchecked,
        rows: |arguments| {
            let whole = (0..6).map(|i| arguments.numbers::<Int64Type>(i)).collect::<DfResult<Vec<_>>>()?;
            let seconds = arguments.numbers::<Float64Type>(6)?;
            let span = |row: usize| -> Result<Option<IntervalMonthDayNano>> {
                let parts: Option<Vec<i64>> = whole.iter().map(|column| column.get(row)).collect();
                let (Some(parts), Some(seconds)) = (parts, seconds.get(row)) else { return Ok(None) };
                let [years, months, weeks, days, hours, minutes] = parts[..] else { return Ok(None) };
                let out = || Error::new(Kind::DatetimeOverflow, "interval out of range");
                let months =
                    years.checked_mul(12).and_then(|m| m.checked_add(months)).and_then(|m| i32::try_from(m).ok());
                let days = weeks.checked_mul(7).and_then(|d| d.checked_add(days)).and_then(|d| i32::try_from(d).ok());
                let minutes = hours.checked_mul(60).and_then(|m| m.checked_add(minutes)).ok_or_else(out)?;
                let nanos = minutes as f64 * 60e9 + (seconds * 1e6).round() * 1e3;
                if nanos.abs() > i64::MAX as f64 {
                    return Err(out());
                }
                let nanos = minutes
                    .checked_mul(60_000_000_000)
                    .and_then(|n| n.checked_add((seconds * 1e6).round() as i64 * 1000));
                let (Some(months), Some(days), Some(nanos)) = (months, days, nanos) else { return Err(out()) };
                Ok(Some(IntervalMonthDayNano::new(months, days, nanos)))
            };
            let spans = (0..arguments.rows).map(span).collect::<Result<Vec<_>>>()?;
            Ok(numbers::<IntervalMonthDayNanoType>(arguments.rows, |row| spans[row]))
        },
    },
];

const MICROS_PER_DAY: i64 = 86_400_000_000;

fn clock_of(hour: i64, minute: i64, second: f64) -> Result<i64> {
    let wrong = || {
        let message = format!("time field value out of range: {hour}:{minute:02}:{second}");
        Error::new(Kind::DatetimeOverflow, message)
    };
    if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&second) {
        return Err(wrong());
    }
    let micros = (hour * 3600 + minute * 60) * 1_000_000 + (second * 1e6).round() as i64;
    if micros > MICROS_PER_DAY { Err(wrong()) } else { Ok(micros) }
}

/// Microseconds since 1970 of the first six arguments.
fn made(arguments: &Arguments<'_>) -> DfResult<Vec<Option<i64>>> {
    let whole = (0..5).map(|i| arguments.numbers::<Int64Type>(i)).collect::<DfResult<Vec<_>>>()?;
    let seconds = arguments.numbers::<Float64Type>(5)?;
    let time = |row: usize| -> Result<Option<i64>> {
        let parts: Option<Vec<i64>> = whole.iter().map(|column| column.get(row)).collect();
        let (Some(parts), Some(second)) = (parts, seconds.get(row)) else { return Ok(None) };
        let [year, month, day, hour, minute] = parts[..] else { return Ok(None) };
        let wrong = || {
            let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
            Error::new(Kind::DatetimeOverflow, message)
        };
        let narrow = |n: i64| u32::try_from(n).map_err(|_| wrong());
        let year = i32::try_from(year).map_err(|_| wrong())?;
        let date = NaiveDate::from_ymd_opt(year, narrow(month)?, narrow(day)?).ok_or_else(wrong)?;
        let days = i64::from(date.to_epoch_days());
        Ok(Some(days * MICROS_PER_DAY + clock_of(hour, minute, second)?))
    };
    Ok((0..arguments.rows).map(time).collect::<Result<Vec<_>>>()?)
}

fn to_timestamp(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    if arguments.count() == 2 {
        let times = read_texts(arguments)?.into_iter().collect::<TimestampMicrosecondArray>();
        return Ok(Arc::new(times.with_timezone(UTC)));
    }
    let array = arguments.array(0)?;
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    if !array.data_type().is_numeric() {
        return Ok(cast(&array, &zoned)?);
    }
    let seconds = cast(&array, &DataType::Float64)?;
    let time = |seconds: Option<f64>| -> Result<Option<i64>> {
        let Some(seconds) = seconds else { return Ok(None) };
        let micros = (seconds * 1e6).round();
        if micros.is_nan() || micros.abs() >= i64::MAX as f64 {
            return Err(Error::new(Kind::DatetimeOverflow, format!("timestamp out of range: \"{seconds}\"")));
        }
        Ok(Some(micros as i64))
    };
    let times =
        seconds.as_primitive::<Float64Type>().iter().map(time).collect::<Result<TimestampMicrosecondArray>>()?;
    Ok(Arc::new(times.with_timezone(UTC)))
}

/// Microseconds since 1970 that the texts say with their patterns.
fn read_texts(arguments: &Arguments<'_>) -> DfResult<Vec<Option<i64>>> {
    let (texts, patterns) = (arguments.text(0)?, arguments.text(1)?);
    // The pattern that was read last: mostly it is the same in all rows.
    let mut last: Option<(&str, Vec<Node>)> = None;
    let mut time = |row: usize| -> Result<Option<i64>> {
        let (Some(text), Some(pattern)) = (texts.get(row), patterns.get(row)) else { return Ok(None) };
        if pattern.contains('%') {
            return strftime(text, pattern).map(Some);
        }
        if last.as_ref().is_none_or(|(known, _)| *known != pattern) {
            last = Some((pattern, nodes(pattern)));
        }
        read(text, last.as_ref().map_or(&[], |(_, nodes)| nodes)).map(Some)
    };
    Ok((0..arguments.rows).map(&mut time).collect::<Result<Vec<_>>>()?)
}

fn strftime(text: &str, pattern: &str) -> Result<i64> {
    let zoned = DateTime::parse_from_str(text, pattern).map(|time| time.timestamp_micros());
    let local = || NaiveDateTime::parse_from_str(text, pattern).map(|time| time.and_utc().timestamp_micros());
    let day = || {
        let day = NaiveDate::parse_from_str(text, pattern);
        day.map(|day| day.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
    };
    zoned
        .or_else(|_| local())
        .or_else(|_| day())
        .map_err(|err| Error::new(Kind::InvalidDatetime, format!("\"{text}\" is not as \"{pattern}\" says: {err}")))
}

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    /// As many digits as the width, or all where no digit follows.
    Field(Field, usize),
    Month,
    MonthShort,
    Day,
    DayShort,
    Roman,
    Half,
    Era,
    Zone,
    /// `OF`.
    Offset,
    /// A blank or a punctuation mark.
    Separator,
    /// A letter that is no field, or one in quotes.
    Letter,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Year,
    IsoYear,
    Century,
    Month,
    Day,
    DayOfYear,
    IsoDayOfYear,
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    /// A fraction of this many digits.
    Fraction(u32),
    Week,
    IsoWeek,
    WeekOfMonth,
    DayOfWeek,
    IsoDayOfWeek,
    Julian,
    Quarter,
    ZoneHour,
    ZoneMinute,
}

/// Names, the longer before those that they begin with.
const WORDS: &[(&str, Node)] = &[
    ("A.D.", Node::Era),
    ("B.C.", Node::Era),
    ("AD", Node::Era),
    ("BC", Node::Era),
    ("A.M.", Node::Half),
    ("P.M.", Node::Half),
    ("AM", Node::Half),
    ("PM", Node::Half),
    ("CC", Node::Field(Field::Century, 2)),
    ("DAY", Node::Day),
    ("DDD", Node::Field(Field::DayOfYear, 3)),
    ("DD", Node::Field(Field::Day, 2)),
    ("DY", Node::DayShort),
    ("D", Node::Field(Field::DayOfWeek, 1)),
    ("FF1", Node::Field(Field::Fraction(1), 1)),
    ("FF2", Node::Field(Field::Fraction(2), 2)),
    ("FF3", Node::Field(Field::Fraction(3), 3)),
    ("FF4", Node::Field(Field::Fraction(4), 4)),
    ("FF5", Node::Field(Field::Fraction(5), 5)),
    ("FF6", Node::Field(Field::Fraction(6), 6)),
    ("HH24", Node::Field(Field::Hour24, 2)),
    ("HH12", Node::Field(Field::Hour12, 2)),
    ("HH", Node::Field(Field::Hour12, 2)),
    ("IDDD", Node::Field(Field::IsoDayOfYear, 3)),
    ("ID", Node::Field(Field::IsoDayOfWeek, 1)),
    ("IW", Node::Field(Field::IsoWeek, 2)),
    ("IYYY", Node::Field(Field::IsoYear, 4)),
    ("IYY", Node::Field(Field::IsoYear, 3)),
    ("IY", Node::Field(Field::IsoYear, 2)),
    ("I", Node::Field(Field::IsoYear, 1)),
    ("J", Node::Field(Field::Julian, 7)),
    ("MI", Node::Field(Field::Minute, 2)),
    ("MM", Node::Field(Field::Month, 2)),
    ("MONTH", Node::Month),
    ("MON", Node::MonthShort),
    ("MS", Node::Field(Field::Fraction(3), 3)),
    ("OF", Node::Offset),
    ("Q", Node::Field(Field::Quarter, 1)),
    ("RM", Node::Roman),
    ("SSSSS", Node::Field(Field::SecondOfDay, 5)),
    ("SSSS", Node::Field(Field::SecondOfDay, 5)),
    ("SS", Node::Field(Field::Second, 2)),
    ("TZH", Node::Field(Field::ZoneHour, 2)),
    ("TZM", Node::Field(Field::ZoneMinute, 2)),
    ("TZ", Node::Zone),
    ("US", Node::Field(Field::Fraction(6), 6)),
    ("WW", Node::Field(Field::Week, 2)),
    ("W", Node::Field(Field::WeekOfMonth, 1)),
    ("Y,YYY", Node::Field(Field::Year, 5)),
    ("YYYY", Node::Field(Field::Year, 4)),
    ("YYY", Node::Field(Field::Year, 3)),
    ("YY", Node::Field(Field::Year, 2)),
    ("Y", Node::Field(Field::Year, 1)),
];

fn nodes(pattern: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let starts = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if first == '"' {
            let quoted = &rest[1..];
            let end = quoted.find('"').unwrap_or(quoted.len());
            nodes.extend(quoted[..end].chars().map(|_| Node::Letter));
            rest = quoted.get(end + 1..).unwrap_or("");
        } else if starts("FM") || starts("FX") || starts("TM") {
            rest = &rest[2..];
        } else if let Some((word, node)) = WORDS.iter().find(|(word, _)| starts(word)) {
            nodes.push(*node);
            rest = &rest[word.len()..];
            if matches!(rest.get(..2), Some("TH" | "th")) {
                nodes.extend([Node::Letter, Node::Letter]);
                rest = &rest[2..];
            }
        } else {
            nodes.push(if first.is_alphanumeric() { Node::Letter } else { Node::Separator });
            rest = &rest[first.len_utf8()..];
        }
    }
    nodes
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const ROMAN: [&str; 12] = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"];

/// What a text says.
#[derive(Default)]
struct Said {
    year: Option<i64>,
    iso_year: Option<i64>,
    century: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    iso_day_of_year: Option<i64>,
    hour: Option<i64>,
    is_hour12: bool,
    afternoon: Option<bool>,
    minute: Option<i64>,
    second: Option<i64>,
    second_of_day: Option<i64>,
    fraction: i64,
    week: Option<i64>,
    iso_week: Option<i64>,
    week_of_month: Option<i64>,
    iso_day: Option<i64>,
    julian: Option<i64>,
    before_christ: bool,
    /// Seconds east of Greenwich.
    offset: Option<i64>,
    zone: Option<String>,
}

/// Microseconds since 1970 that a text says. What it does not say is the first of the year 1, at midnight.
fn read(text: &str, nodes: &[Node]) -> Result<i64> {
    let mut said = Said::default();
    let mut rest = text.trim_start();
    for (i, node) in nodes.iter().enumerate() {
        if rest.is_empty() {
            break;
        }
        match node {
            Node::Separator => {
                // As many as there are: patterns and texts need not have the same.
                if let Some(first) = rest.chars().next().filter(|c| !c.is_alphanumeric()) {
                    let signed = matches!(nodes.get(i + 1), Some(Node::Field(Field::ZoneHour, _)));
                    if !(signed && "+-".contains(first)) {
                        rest = &rest[first.len_utf8()..];
                    }
                }
                rest = rest.trim_start();
            }
            Node::Letter => {
                let first = rest.chars().next().map_or(0, char::len_utf8);
                rest = &rest[first..];
            }
            _ => {
                rest = rest.trim_start();
                let is_numeric_next = matches!(nodes.get(i + 1), Some(Node::Field(..)));
                rest = take(&mut said, *node, rest, is_numeric_next)?;
            }
        }
    }
    said.micros(text)
}

fn wrong_value(found: &str, node: Node) -> Error {
    let name = WORDS.iter().find(|(_, known)| *known == node).map_or("?", |(word, _)| *word);
    let found: String = found.chars().take(10).collect();
    Error::new(Kind::InvalidDatetime, format!("invalid value \"{found}\" for \"{name}\""))
}

/// The number of the word of a list that a text begins with, and what follows it.
fn word<'t>(text: &'t str, words: &[&str], length: usize) -> Option<(usize, &'t str)> {
    let is = |word: &&str| {
        let word = &word[..word.len().min(length)];
        text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    // The longest: "viii" begins with "v".
    let found = words.iter().enumerate().filter(|(_, word)| is(word)).max_by_key(|(_, word)| word.len().min(length));
    found.map(|(at, word)| (at, &text[word.len().min(length)..]))
}

fn take<'t>(said: &mut Said, node: Node, text: &'t str, numeric_next: bool) -> Result<&'t str> {
    let wrong = || wrong_value(text, node);
    match node {
        Node::Month | Node::MonthShort => {
            let length = if node == Node::Month { 9 } else { 3 };
            let (at, rest) = word(text, &MONTHS, length).ok_or_else(wrong)?;
            said.month = Some(at as i64 + 1);
            Ok(rest)
        }
        Node::Day | Node::DayShort => {
            let length = if node == Node::Day { 9 } else { 3 };
            let (at, rest) = word(text, &DAYS, length).ok_or_else(wrong)?;
            said.iso_day = Some(if at == 0 { 7 } else { at as i64 });
            Ok(rest)
        }
        Node::Roman => {
            let (at, rest) = word(text, &ROMAN, 4).ok_or_else(wrong)?;
            said.month = Some(at as i64 + 1);
            Ok(rest)
        }
        Node::Half => {
            let (at, rest) = word(text, &["a.m.", "p.m.", "am", "pm"], 4).ok_or_else(wrong)?;
            said.afternoon = Some(at % 2 == 1);
            Ok(rest)
        }
        Node::Era => {
            let (at, rest) = word(text, &["a.d.", "b.c.", "ad", "bc"], 4).ok_or_else(wrong)?;
            said.before_christ = at % 2 == 1;
            Ok(rest)
        }
        Node::Zone => {
            let end = text.find(|c: char| !(c.is_alphanumeric() || "_/+-:".contains(c))).unwrap_or(text.len());
            if end == 0 {
                return Err(wrong());
            }
            said.zone = Some(text[..end].to_string());
            Ok(&text[end..])
        }
        Node::Offset => {
            let end = text.find(|c: char| !(c.is_ascii_digit() || "+-:".contains(c))).unwrap_or(text.len());
            said.zone = Some(text[..end].to_string());
            Ok(&text[end..])
        }
        Node::Field(field, width) => {
            let (number, digits, rest) = digits(text, width, numeric_next).ok_or_else(wrong)?;
            said.set(field, width, number, digits);
            Ok(rest)
        }
        Node::Separator | Node::Letter => Ok(text),
    }
}

/// A number, how many digits it has, and what follows it.
fn digits(text: &str, width: usize, numeric_next: bool) -> Option<(i64, usize, &str)> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let comma = width == 5 && digits.get(1..2) == Some(",");
    let all = digits.bytes().take_while(|c| c.is_ascii_digit() || (comma && *c == b',')).count();
    let most = if numeric_next { width } else { 18 };
    let end = all.min(most);
    let number: i64 = digits[..end].replace(',', "").parse().ok()?;
    Some((sign * number, end, &digits[end..]))
}

impl Said {
    fn set(&mut self, field: Field, width: usize, number: i64, digits: usize) {
        // Years of fewer digits are those nearest to 2020, as in PostgreSQL.
        let year = |number: i64| match width {
            _ if digits >= 4 => number,
            1 if digits == 1 => 2000 + number,
            1 | 2 if number < 70 => 2000 + number,
            1 | 2 if number < 100 => 1900 + number,
            3 | 4 if digits == 2 && number < 70 => 2000 + number,
            3 | 4 if digits == 2 => 1900 + number,
            3 if number < 520 => 2000 + number,
            3 => 1000 + number,
            _ => number,
        };
        match field {
            Field::Year => self.year = Some(if width == 4 && digits != 2 { number } else { year(number) }),
            Field::IsoYear => self.iso_year = Some(if width == 4 { number } else { year(number) }),
            Field::Century => self.century = Some(number),
            Field::Month => self.month = Some(number),
            Field::Day => self.day = Some(number),
            Field::DayOfYear => self.day_of_year = Some(number),
            Field::IsoDayOfYear => self.iso_day_of_year = Some(number),
            Field::Hour24 => self.hour = Some(number),
            Field::Hour12 => {
                self.hour = Some(number);
                self.is_hour12 = true;
            }
            Field::Minute => self.minute = Some(number),
            Field::Second => self.second = Some(number),
            Field::SecondOfDay => self.second_of_day = Some(number),
            Field::Fraction(_) => {
                // The digits are behind a point: ".5" is half a second.
                let scale = 10_i64.pow(6_u32.saturating_sub(digits as u32));
                self.fraction = if digits <= 6 { number * scale } else { number / 10_i64.pow(digits as u32 - 6) };
            }
            Field::Week => self.week = Some(number),
            Field::IsoWeek => self.iso_week = Some(number),
            Field::WeekOfMonth => self.week_of_month = Some(number),
            Field::DayOfWeek => self.iso_day = self.iso_day.or(Some(if number == 1 { 7 } else { number - 1 })),
            Field::IsoDayOfWeek => self.iso_day = Some(number),
            Field::Julian => self.julian = Some(number),
            Field::Quarter => {}
            Field::ZoneHour => self.offset = Some(number * 3600),
            Field::ZoneMinute => {
                let hours = self.offset.unwrap_or(0);
                self.offset = Some(if hours < 0 { hours - number * 60 } else { hours + number * 60 });
            }
        }
    }

    fn micros(self, text: &str) -> Result<i64> {
        let wrong = || Error::new(Kind::DatetimeOverflow, format!("date/time field value out of range: \"{text}\""));
        let date = self.date().ok_or_else(wrong)?;
        let mut hour = self.hour.unwrap_or(0);
        if self.is_hour12 {
            if !(1..=12).contains(&hour) {
                let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                return Err(Error::new(Kind::InvalidDatetime, message)
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            hour = match self.afternoon {
                Some(true) if hour < 12 => hour + 12,
                Some(false) if hour == 12 => 0,
                _ => hour,
            };
        }
        let (minute, second) = (self.minute.unwrap_or(0), self.second.unwrap_or(0));
        if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) {
            return Err(wrong());
        }
        let seconds = self.second_of_day.unwrap_or(hour * 3600 + minute * 60 + second);
        if !(0..=86_400).contains(&seconds) {
            return Err(wrong());
        }
        let local = i64::from(date.to_epoch_days()) * MICROS_PER_DAY + seconds * 1_000_000 + self.fraction;
        match (self.zone, self.offset) {
            (Some(name), _) => Ok(zone::find(&name)?.utc_of(local)),
            (None, Some(offset)) => Ok(local - offset * 1_000_000),
            (None, None) => Ok(local),
        }
    }

    fn date(&self) -> Option<NaiveDate> {
        if let Some(julian) = self.julian {
            return NaiveDate::from_epoch_days(i32::try_from(julian - 2_440_588).ok()?);
        }
        if let Some(year) = self.iso_year {
            let year = i32::try_from(year).ok()?;
            let first = NaiveDate::from_isoywd_opt(year, 1, chrono::Weekday::Mon)?;
            let days = match (self.iso_day_of_year, self.iso_week) {
                (Some(day), _) => day - 1,
                (None, Some(week)) if (1..=53).contains(&week) => (week - 1) * 7 + self.iso_day.unwrap_or(1) - 1,
                (None, Some(_)) => return None,
                (None, None) => 0,
            };
            return first.checked_add_signed(chrono::TimeDelta::try_days(days)?);
        }
        let mut year = self.year.unwrap_or(if self.century.is_some() { 0 } else { 1 });
        if let Some(century) = self.century {
            year = (century - 1) * 100 + if self.year.is_some() { year % 100 } else { 1 };
        }
        let year = if self.before_christ { 1 - year } else { year };
        let year = i32::try_from(year).ok()?;
        let days = match (self.day_of_year, self.week) {
            (Some(day), _) if self.month.is_none() && self.day.is_none() => Some(day - 1),
            (None, Some(week)) if self.month.is_none() && self.day.is_none() => Some((week - 1) * 7),
            _ => None,
        };
        if let Some(days) = days {
            let date = NaiveDate::from_ymd_opt(year, 1, 1)?;
            let date = date.checked_add_signed(chrono::TimeDelta::try_days(days)?)?;
            return (date.year() == year).then_some(date);
        }
        let day = self.day.unwrap_or_else(|| self.week_of_month.map_or(1, |week| (week - 1) * 7 + 1));
        let month = u32::try_from(self.month.unwrap_or(1)).ok()?;
        NaiveDate::from_ymd_opt(year, month, u32::try_from(day).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, pattern: &str) -> Option<String> {
        let micros = read(text, &nodes(pattern)).ok()?;
        Some(DateTime::from_timestamp_micros(micros)?.format("%Y-%m-%d %H:%M:%S%.f").to_string())
    }

    /// As PostgreSQL 15 reads them.
    #[test]
    fn texts_are_read_as_in_postgres() {
        for (text, pattern, expected) in [
            ("05 Dec 2000", "DD Mon YYYY", "2000-12-05 00:00:00"),
            ("2026-01-02 03:04:05.678", "YYYY-MM-DD HH24:MI:SS.MS", "2026-01-02 03:04:05.678"),
            ("2026-01-02 03:04 PM", "YYYY-MM-DD HH12:MI PM", "2026-01-02 15:04:00"),
            ("20260102", "YYYYMMDD", "2026-01-02 00:00:00"),
            ("2026-033", "YYYY-DDD", "2026-02-02 00:00:00"),
            ("2026 January", "YYYY Month", "2026-01-01 00:00:00"),
            ("26-1-2", "YY-MM-DD", "2026-01-02 00:00:00"),
            ("2026-02", "IYYY-IW", "2026-01-05 00:00:00"),
            ("2026-01-02T03:04", "YYYY-MM-DD\"T\"HH24:MI", "2026-01-02 03:04:00"),
            ("2026-01-02 03:04:05+02:00", "YYYY-MM-DD HH24:MI:SSTZH:TZM", "2026-01-02 01:04:05"),
            ("12.5", "SS.MS", "0001-01-01 00:00:12.500"),
        ] {
            assert_eq!(shown(text, pattern).as_deref(), Some(expected), "{text}");
        }
        for (text, pattern) in [("x", "YYYY"), ("2026-13-01", "YYYY-MM-DD"), ("25:00", "HH24:MI"), ("13", "HH12")] {
            assert_eq!(shown(text, pattern), None, "{text}");
        }
    }
}
