//! Reads the fields of a scenario: each with its path (`episodes[2].size`), what it takes, and an error that says both.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};
use crate::options;
use crate::time::{Micros, format_duration, parse_duration};

/// From `low` to `high`, both included: one value is a span of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span<T> {
    pub low: T,
    pub high: T,
}

/// A table whose fields are all known.
pub struct Fields<'a> {
    path: String,
    values: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Fails when `value` is no table, or has a field that is not `known`.
    pub fn open(path: &str, value: &'a Value, known: &[&str]) -> Result<Fields<'a>> {
        let Some(values) = value.as_object() else {
            let takes = format!("a table of {}", options::list(known.iter().copied()));
            return Err(wrong(path, &takes, &value.to_string()));
        };
        let fields = Fields { path: path.to_string(), values };
        match values.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(fields),
            Some(name) => {
                let near = options::nearest(name, known.iter().copied());
                let tail = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
                let message = format!("unknown field \"{}\"{tail}", fields.name(name));
                let detail = format!("There are: {}.", options::list(known.iter().copied()));
                Err(Error::new(Kind::InvalidParameter, message).with_detail(detail))
            }
        }
    }

    /// The whole name of a field.
    pub fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_string() } else { format!("{}.{field}", self.path) }
    }

    pub fn value(&self, field: &str) -> Option<&'a Value> {
        self.values.get(field)
    }

    /// The error of a field whose value is text.
    pub fn wrong(&self, field: &str, takes: &str, given: &str) -> Error {
        wrong(&self.name(field), takes, given)
    }

    pub fn missing(&self, field: &str, takes: &str) -> Error {
        Error::new(Kind::InvalidParameter, format!("\"{}\" is missing: {takes}", self.name(field)))
    }

    /// A field whose value `read` understands.
    fn read<T>(&self, field: &str, takes: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.value(field) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(wrong(&self.name(field), takes, &value.to_string())),
            },
        }
    }

    pub fn number(&self, field: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let takes = format!("a number from {} to {}", range.start(), range.end());
        self.read(field, &takes, |value| value.as_f64().filter(|number| range.contains(number)))
    }

    /// One number, or a list of the least and the greatest.
    pub fn numbers(&self, field: &str, range: RangeInclusive<f64>) -> Result<Option<Span<f64>>> {
        let takes = format!("a number from {} to {}, or a list of two", range.start(), range.end());
        self.read(field, &takes, |value| span(value, |value| value.as_f64().filter(|number| range.contains(number))))
    }

    pub fn whole(&self, field: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let takes = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(field, &takes, |value| value.as_u64().filter(|number| range.contains(number)))
    }

    pub fn text(&self, field: &str) -> Result<Option<&'a str>> {
        self.read(field, "text", Value::as_str)
    }

    pub fn texts(&self, field: &str, at_most: usize) -> Result<Option<Vec<String>>> {
        self.read(field, &format!("a list of up to {at_most} texts"), |value| {
            let items = value.as_array().filter(|items| items.len() <= at_most)?;
            items.iter().map(|item| item.as_str().map(str::to_string)).collect()
        })
    }

    pub fn choice<T: Copy>(&self, field: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let takes = format!("one of {}", options::list(words.iter().map(|word| word.0)));
        self.read(field, &takes, |value| words.iter().find(|word| value.as_str() == Some(word.0)).map(|word| word.1))
    }

    pub fn duration(&self, field: &str, least: Micros, most: Micros) -> Result<Option<Micros>> {
        self.read(field, &duration_takes(least, most), |value| duration(value, least, most))
    }

    /// One duration, or a list of the shortest and the longest.
    pub fn durations(&self, field: &str, least: Micros, most: Micros) -> Result<Option<Span<Micros>>> {
        let takes = format!("{}, or a list of two", duration_takes(least, most));
        self.read(field, &takes, |value| span(value, |value| duration(value, least, most)))
    }

    /// One duration or a list of any number of them.
    pub fn durations_at(&self, field: &str, most: Micros) -> Result<Option<Vec<Micros>>> {
        let takes = format!("{}, or a list of these", duration_takes(0, most));
        self.read(field, &takes, |value| match value {
            Value::Array(items) if !items.is_empty() && items.len() <= 1000 => {
                items.iter().map(|item| duration(item, 0, most)).collect()
            }
            value => duration(value, 0, most).map(|at| vec![at]),
        })
    }

    pub fn table(&self, field: &str, known: &[&str]) -> Result<Option<Fields<'a>>> {
        self.value(field).map(|value| Fields::open(&self.name(field), value, known)).transpose()
    }

    /// The items of a list of tables, each with its path.
    pub fn list(&self, field: &str, at_most: usize) -> Result<Vec<(String, &'a Value)>> {
        let takes = format!("a list of up to {at_most} tables");
        let items = self.read(field, &takes, |value| value.as_array().filter(|items| items.len() <= at_most))?;
        let items = items.into_iter().flatten().enumerate();
        Ok(items.map(|(i, value)| (format!("{}[{i}]", self.name(field)), value)).collect())
    }
}

/// `given` is text, or JSON when it is already quoted or no text.
fn wrong(name: &str, takes: &str, given: &str) -> Error {
    let quoted =
        given.starts_with(['"', '[', '{']) || given.parse::<f64>().is_ok() || ["true", "false"].contains(&given);
    let given = if quoted { given.to_string() } else { format!("\"{given}\"") };
    let message = match name {
        "" => format!("a scenario is {takes}, not {given}"),
        name => format!("\"{name}\" takes {takes}, not {given}"),
    };
    Error::new(Kind::InvalidParameter, message)
}

fn duration_takes(least: Micros, most: Micros) -> String {
    let shown = |micros: Micros| format_duration(Duration::from_micros(micros as u64));
    format!("a duration from {} to {}", if least == 0 { "0 seconds".to_string() } else { shown(least) }, shown(most))
}

fn duration(value: &Value, least: Micros, most: Micros) -> Option<Micros> {
    let micros = parse_duration(value.as_str()?).ok()?.as_micros();
    Micros::try_from(micros).ok().filter(|micros| (least..=most).contains(micros))
}

/// One value, or a list of two of which the second is not less.
fn span<'a, T: Copy + PartialOrd>(value: &'a Value, read: impl Fn(&'a Value) -> Option<T>) -> Option<Span<T>> {
    match value {
        Value::Array(items) => {
            let [low, high] = &items[..] else { return None };
            let (low, high) = (read(low)?, read(high)?);
            (low <= high).then_some(Span { low, high })
        }
        value => read(value).map(|only| Span { low: only, high: only }),
    }
}
