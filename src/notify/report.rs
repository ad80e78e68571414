//! What a report says: the results of its queries for a period, beside those for the period before; and as JSON. [`words`] is
//! how values are written, [`text`] the report as lines; `email` makes a page of it.
//!
//! How a part is shown follows from the form of its result, so that a report needs nothing but SQL:
//!
//! ```text
//!     one row of numbers                     figures, each with its change
//!     times in front, then numbers           a series, with the one of the period before
//!     anything else                          a table; a row's numbers are compared with those of the row of the same key,
//!                                            which are the columns that are no numbers, or else the first one
//! ```

mod text;
mod words;

use std::collections::HashMap;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{plain, time_text};
use crate::time::Micros;
use words::{between, number};
pub use words::{cut, moment};

/// What is told of one period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    /// The period: from here on, and up to there.
    pub start: Micros,
    pub end: Micros,
    /// Where the period before begins; it ends where this one begins.
    pub before: Micros,
    /// Name of the time zone in which times are shown (IANA).
    pub zone: String,
    /// It was due a while ago.
    #[serde(default)]
    pub late: bool,
    /// Moments of the schedule before it that were left out.
    #[serde(default)]
    pub missed: u64,
    /// What there is to know about the report itself.
    #[serde(default)]
    pub remarks: Vec<String>,
    pub sections: Vec<Section>,
}

/// The result of one query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub title: String,
    /// Why there is none.
    #[serde(default)]
    pub error: Option<String>,
    /// Names differ.
    pub columns: Vec<Column>,
    /// Times are microseconds.
    pub rows: Vec<Vec<Value>>,
    /// Rows that are left out, as there are too many.
    #[serde(default)]
    pub omitted: u64,
    /// The rows of the period before; `None` when the query does not ask for a period.
    #[serde(default)]
    pub previous: Option<Vec<Vec<Value>>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Text,
    Number,
    Time,
}

/// How a section is shown: see the file header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Failed,
    Empty,
    Figures,
    Series,
    Table,
}

/// How a number differs from that of the period before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    Same,
    /// There was nothing.
    FromNothing,
    Percent(f64),
}

impl Change {
    /// `None` where one of them is no number.
    pub fn of(now: &Value, before: &Value) -> Option<Change> {
        let (now, before) = (now.as_f64()?, before.as_f64()?);
        Some(match before {
            _ if now == before => Change::Same,
            0.0 => Change::FromNothing,
            _ => Change::Percent((now - before) / before.abs() * 100.0),
        })
    }
}

impl Report {
    pub fn zone(&self) -> Tz {
        self.zone.parse().unwrap_or(Tz::UTC)
    }

    /// Some of its queries have failed.
    pub fn has_failed(&self) -> bool {
        self.sections.iter().any(|section| section.error.is_some())
    }

    /// Some of its queries were run for the period before too.
    pub fn compares(&self) -> bool {
        self.sections.iter().any(|section| section.previous.is_some())
    }

    /// The period in words: `2026-01-02 09:00–10:00 UTC`, or `2026-01-02` for a whole day.
    pub fn period(&self) -> String {
        between(self.start, self.end, self.zone())
    }

    /// The same of the period before.
    pub fn period_before(&self) -> String {
        between(self.before, self.start, self.zone())
    }

    /// One line.
    pub fn title(&self) -> String {
        let failed = self.sections.iter().filter(|section| section.error.is_some()).count();
        let late = if self.late { " (late)" } else { "" };
        let failed = match failed {
            0 => String::new(),
            failed => format!(" ({failed} of {} queries failed)", self.sections.len()),
        };
        format!("[REPORT] {}: {}{late}{failed}", self.name, self.period())
    }

    /// What `{{name}}` stands for: the period, and the figures by the names of their columns.
    pub fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "report" => self.name.clone(),
            "period" => self.period(),
            "period_start" => time_text(self.start),
            "period_end" => time_text(self.end),
            "late" => self.late.to_string(),
            other => {
                let figures = self.sections.iter().filter(|section| section.shape() == Shape::Figures);
                let at = |section: &Section| section.columns.iter().position(|column| column.name == other);
                let mut found = figures.filter_map(|section| section.rows.first()?.get(at(section)?));
                return found.next().map(plain);
            }
        })
    }

    /// All of it.
    pub fn json(&self) -> Map<String, Value> {
        let members = [
            ("report", Value::from(self.name.as_str())),
            ("period_start", Value::from(time_text(self.start))),
            ("period_end", Value::from(time_text(self.end))),
            ("previous_start", Value::from(time_text(self.before))),
            ("late", Value::from(self.late)),
            ("missed", Value::from(self.missed)),
            ("remarks", Value::from(self.remarks.clone())),
            ("sections", self.sections.iter().map(Section::json).collect()),
        ];
        members.map(|(name, value)| (name.to_string(), value)).into_iter().collect()
    }
}

/// A figure and what it was before.
pub struct Figure<'a> {
    pub name: &'a str,
    pub value: String,
    pub before: Option<String>,
    pub change: Option<Change>,
}

/// The row of the period before that has the same key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Before<'a> {
    Row(&'a [Value]),
    /// There was none.
    New,
    /// Several rows have this key.
    Unclear,
}

/// Figures that stand side by side.
const MOST_FIGURES: usize = 12;

/// Series that are drawn of one result.
const MOST_SERIES: usize = 4;

impl Section {
    pub fn shape(&self) -> Shape {
        let numbers = |columns: &[Column]| columns.iter().all(|column| column.kind == Kind::Number);
        match (self.columns.as_slice(), self.rows.as_slice()) {
            _ if self.error.is_some() => Shape::Failed,
            (_, []) => Shape::Empty,
            (all, [_]) if numbers(all) && all.len() <= MOST_FIGURES => Shape::Figures,
            ([time, rest @ ..], [_, _, ..])
                if time.kind == Kind::Time && numbers(rest) && (1..=MOST_SERIES).contains(&rest.len()) =>
            {
                Shape::Series
            }
            _ => Shape::Table,
        }
    }

    /// Whether a column tells rows apart.
    fn is_key(&self, column: usize) -> bool {
        match self.columns.iter().all(|column| column.kind == Kind::Number) {
            true => column == 0,
            false => self.columns[column].kind != Kind::Number,
        }
    }

    /// Whether a column is of numbers to be compared.
    pub fn is_measure(&self, column: usize) -> bool {
        self.columns[column].kind == Kind::Number && !self.is_key(column)
    }

    /// The figures of a section that is shown as such.
    pub fn figures(&self) -> Vec<Figure<'_>> {
        let previous = self.previous.as_ref().and_then(|rows| rows.first());
        let row = self.rows.first().map_or(&[][..], Vec::as_slice);
        let figure = |(at, value): (usize, &Value)| {
            let before = previous.and_then(|row| row.get(at));
            Figure {
                name: &self.columns[at].name,
                value: number(value),
                before: before.map(number),
                change: before.and_then(|before| Change::of(value, before)),
            }
        };
        row.iter().take(self.columns.len()).enumerate().map(figure).collect()
    }

    /// For each row that of the period before with the same key.
    pub fn rows_before(&self) -> Vec<Before<'_>> {
        let key = |row: &[Value]| {
            let of = row.iter().enumerate().filter(|(at, _)| *at < self.columns.len() && self.is_key(*at));
            of.map(|(_, value)| value.to_string()).collect::<Vec<_>>()
        };
        let mut before: HashMap<Vec<String>, Before<'_>> = HashMap::new();
        for row in self.previous.iter().flatten() {
            before.entry(key(row)).and_modify(|found| *found = Before::Unclear).or_insert(Before::Row(row));
        }
        let mut count: HashMap<Vec<String>, usize> = HashMap::new();
        self.rows.iter().for_each(|row| *count.entry(key(row)).or_default() += 1);
        let of = |row: &Vec<Value>| {
            let key = key(row);
            match count.get(&key) {
                Some(1) => before.get(&key).copied().unwrap_or(Before::New),
                Some(_) | None => Before::Unclear,
            }
        };
        self.rows.iter().map(of).collect()
    }

    /// Time and value of a column's numbers, of this period or the one before.
    pub fn points(&self, column: usize, before: bool) -> Vec<(Micros, f64)> {
        let rows = if before { self.previous.as_ref() } else { Some(&self.rows) };
        let point = |row: &Vec<Value>| Some((row.first()?.as_i64()?, row.get(column)?.as_f64()?));
        rows.into_iter().flatten().filter_map(point).collect()
    }

    /// A value as people read it.
    pub fn cell(&self, value: &Value, column: usize, zone: &Tz) -> String {
        match (self.columns[column].kind, value) {
            (_, Value::Null) => "–".to_string(),
            (Kind::Time, value) => value.as_i64().map_or_else(|| plain(value), |time| moment(time, zone)),
            (Kind::Number, value) if !self.is_key(column) => number(value),
            (Kind::Number | Kind::Text, value) => plain(value),
        }
    }

    /// The change of a table's number in a word; `new` where there was no such row.
    pub fn change(&self, value: &Value, before: Before<'_>, column: usize) -> String {
        match before {
            // Once for a row.
            Before::New if !(0..column).any(|at| self.is_measure(at)) => "new".to_string(),
            Before::New | Before::Unclear => String::new(),
            Before::Row(row) => {
                let change = row.get(column).and_then(|before| Change::of(value, before));
                change.map(|change| change.to_string()).unwrap_or_default()
            }
        }
    }

    fn json(&self) -> Value {
        let object = |row: &Vec<Value>| -> Value {
            let value = |column: &Column, value: &Value| match (column.kind, value.as_i64()) {
                (Kind::Time, Some(time)) => Value::from(time_text(time)),
                (Kind::Time | Kind::Text | Kind::Number, _) => value.clone(),
            };
            let members = self.columns.iter().zip(row).map(|(column, v)| (column.name.clone(), value(column, v)));
            Value::Object(members.collect())
        };
        let rows = |rows: &Vec<Vec<Value>>| rows.iter().map(object).collect::<Value>();
        serde_json::json!({
            "title": self.title, "error": self.error, "rows": rows(&self.rows), "omitted": self.omitted,
            "columns": self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(),
            "previous": self.previous.as_ref().map(rows),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: Micros = 3_600_000_000;

    pub fn section(title: &str, columns: &[(&str, Kind)], rows: Value, previous: Value) -> Section {
        let columns = columns.iter().map(|(name, kind)| Column { name: name.to_string(), kind: *kind }).collect();
        let of = |rows: Value| serde_json::from_value::<Option<Vec<Vec<Value>>>>(rows).unwrap();
        Section {
            title: title.into(),
            columns,
            rows: of(rows).unwrap_or_default(),
            previous: of(previous),
            ..Section::default()
        }
    }

    /// One with a section of each form.
    pub fn report() -> Report {
        let start = 1_767_225_600_000_000;
        let series = |n: i64| (0..4).map(|i| json!([start + (i - n) * HOUR / 4, i * 10 + n])).collect::<Value>();
        let failed = Section { title: "Broken".into(), error: Some("division by zero".into()), ..Section::default() };
        Report {
            name: "site".into(),
            start,
            end: start + HOUR,
            before: start - HOUR,
            zone: "Europe/Berlin".into(),
            late: false,
            missed: 0,
            remarks: Vec::new(),
            sections: vec![
                section(
                    "Totals",
                    &[("requests", Kind::Number), ("error rate", Kind::Number), ("errors", Kind::Number)],
                    json!([[12345, 0.0123, 7]]),
                    json!([[10000, 0.0123, 0]]),
                ),
                section("By quarter", &[("t", Kind::Time), ("requests", Kind::Number)], series(0), series(4)),
                section(
                    "Clients <top>",
                    &[("client", Kind::Text), ("requests", Kind::Number)],
                    json!([["10.0.0.1", 1500], ["10.0.0.2", 40]]),
                    json!([["10.0.0.1", 2000], ["10.0.0.9", 9]]),
                ),
                failed,
            ],
        }
    }

    #[test]
    fn a_result_is_shown_as_its_form_asks_for() {
        let shapes: Vec<Shape> = report().sections.iter().map(Section::shape).collect();
        assert_eq!(shapes, [Shape::Figures, Shape::Series, Shape::Table, Shape::Failed]);
        let of = |columns: &[(&str, Kind)], rows: Value| section("", columns, rows, Value::Null).shape();
        assert_eq!(of(&[("n", Kind::Number)], json!([])), Shape::Empty);
        assert_eq!(of(&[("n", Kind::Number)], json!([[1], [2]])), Shape::Table);
        assert_eq!(of(&[("t", Kind::Time), ("n", Kind::Number)], json!([[1, 2]])), Shape::Table);
        assert_eq!(of(&[("t", Kind::Time), ("path", Kind::Text)], json!([[1, "a"], [2, "b"]])), Shape::Table);
    }

    #[test]
    fn a_key_that_is_there_twice_is_compared_with_nothing() {
        let columns = [("status", Kind::Number), ("n", Kind::Number)];
        let of = |rows: Value, previous: Value| {
            let section = section("", &columns, rows, previous);
            let changes = section.rows_before().into_iter().zip(&section.rows);
            changes.map(|(before, row)| section.change(&row[1], before, 1)).collect::<Vec<_>>()
        };
        assert_eq!(of(json!([[200, 1], [404, 2]]), json!([[404, 4]])), ["new", "▼ 50 %"]);
        assert_eq!(of(json!([[200, 1], [404, 2]]), json!([[404, 5], [404, 6]])), ["new", ""]);
        assert_eq!(of(json!([[404, 1], [404, 2]]), json!([[404, 5]])), ["", ""]);
    }

    #[test]
    fn templates_and_programs_get_all_of_it() {
        let report = report();
        assert_eq!(report.value("errors").as_deref(), Some("7"));
        assert_eq!(report.value("period_start").as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(report.value("client"), None);
        let json = Value::Object(report.json());
        assert_eq!(json["sections"][0]["rows"][0]["requests"], 12345);
        assert_eq!(json["sections"][0]["previous"][0]["requests"], 10000);
        assert_eq!(json["sections"][1]["rows"][1]["t"], "2026-01-01T00:15:00Z");
        assert_eq!(json["sections"][3]["error"], "division by zero");
    }
}
