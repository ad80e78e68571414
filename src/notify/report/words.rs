//! How the values of a report are written for people: numbers, changes, moments, periods.

use std::fmt;

use chrono::{DateTime, NaiveTime, Timelike};
use chrono_tz::Tz;
use serde_json::Value;

use super::super::plain;
use super::Change;
use crate::time::Micros;

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Same => f.write_str("="),
            Change::FromNothing => f.write_str("▲ from 0"),
            Change::Percent(percent) => {
                let arrow = if *percent > 0.0 { '▲' } else { '▼' };
                match percent.abs() {
                    // Nobody thinks of ten times as much as 900 per cent more.
                    size if size >= 900.0 => write!(f, "{arrow} {}×", float((size / 100.0 + 1.0).round())),
                    size if size >= 10.0 => write!(f, "{arrow} {size:.0} %"),
                    size if size >= 0.05 => write!(f, "{arrow} {size:.1} %"),
                    _ => write!(f, "{arrow} < 0.1 %"),
                }
            }
        }
    }
}

/// A text of at most so many characters, with a sign where it goes on.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_string(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A number as people read it: `1,234,567`, `12.5`, `0.0123`.
pub fn number(value: &Value) -> String {
    if let Value::Null = value {
        return "–".to_string();
    }
    match (value.as_i64(), value.as_u64(), value.as_f64()) {
        (Some(whole), ..) => {
            let sign = if whole < 0 { "-" } else { "" };
            format!("{sign}{}", group(&whole.unsigned_abs().to_string()))
        }
        (None, Some(whole), _) => group(&whole.to_string()),
        (None, None, Some(value)) => float(value),
        (None, None, None) => plain(value),
    }
}

pub fn float(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size >= 1e15 => return format!("{value:e}"),
        _ if size >= 1000.0 => 0,
        _ if size >= 1.0 || size == 0.0 => 2,
        // Three that say something.
        _ => (2.0 - size.log10().floor()).min(12.0) as usize,
    };
    let text = format!("{size:.digits$}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let part = part.trim_end_matches('0');
    let sign = if value < 0.0 { "-" } else { "" };
    match part {
        "" => format!("{sign}{}", group(whole)),
        part => format!("{sign}{}.{part}", group(whole)),
    }
}

/// Digits by threes.
pub fn group(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn local(time: Micros, zone: &Tz) -> DateTime<Tz> {
    DateTime::from_timestamp_micros(time).unwrap_or_default().with_timezone(zone)
}

/// A moment, without seconds where there are none.
pub fn moment(time: Micros, zone: &Tz) -> String {
    let time = local(time, zone);
    let form = if time.second() == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
    time.format(form).to_string()
}

/// A period in words: `2026-01-02 09:00–10:00 UTC`, or `2026-01-02` for a whole day.
pub fn between(start: Micros, end: Micros, zone: Tz) -> String {
    let (from, to) = (local(start, &zone), local(end, &zone));
    let midnight = |time: &DateTime<Tz>| time.time() == NaiveTime::MIN;
    let last = to.date_naive().pred_opt().unwrap_or_default();
    if midnight(&from) && midnight(&to) && from.date_naive() <= last {
        return match from.date_naive() == last {
            true => last.to_string(),
            false => format!("{} – {last}", from.date_naive()),
        };
    }
    let clock = if from.second() == 0 && to.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    let (day, name) = (from.date_naive(), to.format("%Z"));
    match day == to.date_naive() {
        true => format!("{day} {}–{} {name}", from.format(clock), to.format(clock)),
        false => format!("{day} {} – {} {} {name}", from.format(clock), to.date_naive(), to.format(clock)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: Micros = 3_600_000_000;

    #[test]
    fn periods_are_said_shortly() {
        let day = 24 * HOUR;
        let start = 1_767_225_600_000_000;
        assert_eq!(between(start, start + day, Tz::UTC), "2026-01-01");
        assert_eq!(between(start, start + 7 * day, Tz::UTC), "2026-01-01 – 2026-01-07");
        assert_eq!(between(start + HOUR, start + day, Tz::UTC), "2026-01-01 01:00 – 2026-01-02 00:00 UTC");
        assert_eq!(between(start, start + 90_000_000, Tz::UTC), "2026-01-01 00:00:00–00:01:30 UTC");
    }

    #[test]
    fn numbers_are_written_for_people() {
        let of = |value: Value| number(&value);
        let all =
            [json!(0), json!(-1234567), json!(999), json!(u64::MAX), json!(1234.5), json!(12.5), json!(0.000123456)];
        assert_eq!(all.map(of), ["0", "-1,234,567", "999", "18,446,744,073,709,551,615", "1,234", "12.5", "0.000123"]);
        assert_eq!([json!(null), json!("NaN"), json!(3.0), json!(1e300)].map(of), ["–", "NaN", "3", "1e300"]);
        let change = |now: f64, before: f64| Change::of(&json!(now), &json!(before)).unwrap().to_string();
        assert_eq!(
            [change(1.0, 1.0), change(5.0, 0.0), change(11.0, 10.0), change(10.5, 10.0), change(1.0, 2.0)],
            ["=", "▲ from 0", "▲ 10 %", "▲ 5.0 %", "▼ 50 %"]
        );
        assert_eq!(
            [change(120.0, 10.0), change(100.001, 100.0), change(-2.0, -1.0)],
            ["▲ 12×", "▲ < 0.1 %", "▼ 100 %"]
        );
        assert_eq!(Change::of(&json!("x"), &json!(1)), None);
    }
}
