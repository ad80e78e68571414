//! Lines of any shape: format `regex`, a pattern whose named groups are the columns.
//!
//! The pattern is matched once against each line (anchored only where it says so); named groups become columns in
//! their order in the pattern, text unless option `types` or the declared columns say otherwise. A line that does not
//! match, or a group that does not read as its type, makes the line malformed. A group that took no part in the match
//! is NULL, and so is `-` or nothing in a column that is not text. Patterns run in time linear in the line (crate
//! `regex`), so no line can stall a stream; that is also why look-around is not known.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use regex::bytes::{CaptureLocations, Regex, RegexBuilder};

use std::borrow::Cow;
use std::sync::Arc;

use super::column::{Block, Span};
use super::timestamp::{self, TimeFormat};
use super::typed::{Kind, Scalar, TypedColumn, fits, read_bool, type_by_name};
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::frame::Frames;
use crate::options::{self, OptionKind, OptionSpec, Options};

pub static SPEC: Spec = Spec {
    name: "regex",
    aliases: &["regexp"],
    summary: "A regular expression whose named groups are the columns",
    columns: &[],
    options: &[
        OptionSpec::required(
            "pattern",
            OptionKind::Text,
            "the pattern, such as '^(?<ts>\\S+) (?<level>\\w+) (?<message>.*)$'",
        ),
        OptionSpec::optional(
            "types",
            OptionKind::Text,
            None,
            "types of groups that are not text, such as 'ts timestamptz, status int, took double'",
        ),
        OptionSpec::optional(
            "time_field",
            OptionKind::Text,
            None,
            "group that holds the event time; when not given, the first of type timestamptz, or ts, timestamp or time",
        ),
        OptionSpec::optional(
            "time_format",
            OptionKind::Text,
            Some("auto"),
            "how times are written: auto, rfc3339, epoch, clf, or a pattern such as '%d.%m.%Y %H:%M:%S'",
        ),
        OptionSpec::optional(
            "timezone",
            OptionKind::Text,
            Some("UTC"),
            "offset from UTC of times that do not say it, such as '+02:00'",
        ),
    ],
    sample: "2024-05-20T00:00:18Z INFO 17 ms served /index.html\n2024-05-20T00:00:19Z WARN - ms slow disk\n",
    sample_options: &[
        ("pattern", r"^(?<ts>\S+) (?<level>\w+) (?<took>\S+) ms (?<message>.*)$"),
        ("types", "took bigint"),
    ],
    build,
    detectable: false,
};

const TIME_FIELDS: &[&str] = &["ts", "timestamp", "time"];

/// Parses lines by a pattern.
struct ByPattern {
    regex: Regex,
    /// The same pattern with `.` matching any byte, for lines that are not UTF-8. Missing where the pattern names
    /// classes of Unicode.
    any_bytes: Option<Regex>,
    columns: Vec<Column>,
    time_column: Option<String>,
    time_format: TimeFormat,
    /// Seconds east of UTC.
    zone: i64,
    schema: SchemaRef,
}

struct Column {
    name: String,
    /// Index of its group in the pattern.
    group: usize,
    kind: Kind,
    data_type: DataType,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let pattern = options.text("pattern").unwrap_or_default();
    let regex = Regex::new(pattern).map_err(|err| {
        let text = err.to_string();
        // The crate draws the pattern with a marker; its last line says what is wrong.
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        Error::new(ErrorKind::InvalidRegex, format!("the pattern is not a regular expression: {reason}"))
            .with_detail(format!("Pattern: {pattern}"))
            .with_hint("The syntax is that of the crate regex: named groups are (?<name>…), without look-around.")
    })?;
    let groups: Vec<(usize, &str)> =
        regex.capture_names().enumerate().filter_map(|(index, name)| Some((index, name?))).collect();
    if groups.is_empty() {
        return Err(Error::new(ErrorKind::InvalidRegex, "the pattern has no named groups")
            .with_hint("Name the parts that become columns, such as '^(?<ts>\\S+) (?<message>.*)$'."));
    }
    let known = |name: &str, what: &str| match groups.iter().find(|(_, group)| *group == name) {
        Some((index, _)) => Ok(*index),
        None => Err(options::unknown(what, name, groups.iter().map(|(_, group)| *group))
            .with_detail(format!("Groups of the pattern: {}.", options::list(groups.iter().map(|(_, group)| *group))))),
    };

    let mut types: Vec<(String, DataType)> = Vec::new();
    for entry in options.text("types").unwrap_or_default().split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let (name, sql_type) = entry.split_once(char::is_whitespace).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("option \"types\": \"{entry}\" has no type"))
                .with_hint("Write it like 'status int, took double'.")
        })?;
        known(name, "group in option \"types\":")?;
        types.push((name.to_string(), type_by_name(sql_type)?));
    }
    types.extend(declared.iter().map(|c| (c.name.clone(), c.data_type.clone()))); // later entries win
    let type_of = |name: &str| types.iter().rev().find(|(n, _)| n == name).map(|(_, data_type)| data_type.clone());

    let is_time = |name: &str| type_of(name).is_some_and(|t| t == Kind::Time.data_type());
    let time_column = match options.text("time_field") {
        Some(name) => {
            known(name, "group in option \"time_field\":")?;
            Some(name.to_string())
        }
        None => {
            let typed = groups.iter().map(|(_, name)| *name).find(|name| is_time(name));
            let called = || TIME_FIELDS.iter().copied().find(|name| type_of(name).is_none() && known(name, "").is_ok());
            typed.or_else(called).map(str::to_string)
        }
    };

    let mut columns = Vec::new();
    let names: Vec<&str> = match declared {
        [] => groups.iter().map(|(_, name)| *name).collect(),
        declared => declared.iter().map(|c| c.name.as_str()).collect(),
    };
    for name in names {
        let default = if time_column.as_deref() == Some(name) { Kind::Time } else { Kind::Text };
        let data_type = type_of(name).unwrap_or(default.data_type());
        let kind = Kind::of(name, &data_type)?;
        columns.push(Column { name: name.to_string(), group: known(name, "group for column")?, kind, data_type });
    }
    let field = |c: &Column| Field::new(&c.name, c.data_type.clone(), true);
    Ok(Box::new(ByPattern {
        schema: Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>())),
        time_column: time_column
            .filter(|name| columns.iter().any(|c| c.name == *name && c.data_type == Kind::Time.data_type())),
        any_bytes: RegexBuilder::new(pattern).unicode(false).build().ok(),
        regex,
        columns,
        time_format: TimeFormat::from_option(options.text("time_format").unwrap_or("auto"))?,
        zone: timestamp::zone_from_option(options.text("timezone").unwrap_or("UTC"))?,
    }))
}

impl Format for ByPattern {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn time_column(&self) -> Option<String> {
        self.time_column.clone()
    }

    fn parse(&self, frames: &Frames) -> Parsed {
        let block = Block::new(frames);
        let mut columns: Vec<TypedColumn> =
            self.columns.iter().map(|c| TypedColumn::with_capacity(c.kind, frames.len())).collect();
        let mut malformed = Vec::new();
        let mut groups = self.regex.capture_locations();
        let mut values = Vec::with_capacity(self.columns.len());
        let mut rows = 0;
        for i in 0..frames.len() {
            let at = frames.range(i);
            let line = &frames.bytes[at.clone()];
            let found = if line.is_empty() {
                Err("empty line".into())
            } else if !self.matches(&mut groups, line) {
                Err("the pattern does not match".into())
            } else {
                let group = |c: &Column| groups.get(c.group).map(|(s, e)| Span::new(at.start + s, at.start + e));
                self.read(&block, group, &mut values)
            };
            match found {
                Ok(()) => {
                    columns.iter_mut().zip(&values).for_each(|(column, value)| put(&block, column, *value));
                    rows += 1;
                }
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason }),
            }
            columns.iter_mut().for_each(|column| column.fill(rows));
        }
        let arrays: Vec<ArrayRef> =
            columns.into_iter().zip(&self.columns).map(|(array, c)| array.finish(&block, &c.data_type)).collect();
        let rows = RecordBatch::try_new(self.schema.clone(), arrays).expect("columns were made for this schema");
        Parsed { rows, malformed }
    }
}

/// What a group says; `None` is NULL.
type Cell = Option<Read>;

#[derive(Clone, Copy)]
enum Read {
    Text(Span),
    Scalar(Scalar),
}

impl ByPattern {
    fn matches(&self, groups: &mut CaptureLocations, line: &[u8]) -> bool {
        self.regex.captures_read(groups, line).is_some()
            || (std::str::from_utf8(line).is_err()
                && self.any_bytes.as_ref().is_some_and(|regex| regex.captures_read(groups, line).is_some()))
    }

    /// Reads all groups of a match as their types, or says which one does not read.
    fn read(
        &self,
        block: &Block<'_>,
        group: impl Fn(&Column) -> Option<Span>,
        values: &mut Vec<Cell>,
    ) -> Result<(), Cow<'static, str>> {
        values.clear();
        for column in &self.columns {
            let value = match group(column) {
                None => None,
                Some(span) if column.kind == Kind::Text => Some(Read::Text(span)),
                Some(span) if matches!(block.get(span), b"" | b"-") => None,
                Some(span) => match self.read_scalar(column, block.get(span)) {
                    Some(scalar) => Some(Read::Scalar(scalar)),
                    None => return Err(format!("{} is not {}", column.name, noun(column.kind)).into()),
                },
            };
            values.push(value);
        }
        Ok(())
    }

    fn read_scalar(&self, column: &Column, bytes: &[u8]) -> Option<Scalar> {
        if column.kind == Kind::Time {
            return self.time_format.read(bytes, self.zone).map(Scalar::Time);
        }
        let text = std::str::from_utf8(bytes).ok()?.trim();
        match column.kind {
            Kind::Int => text.parse().ok().filter(|n| fits(&column.data_type, *n)).map(Scalar::Int),
            Kind::Double => text.parse().ok().map(Scalar::Double),
            Kind::Bool => read_bool(text).map(Scalar::Bool),
            Kind::Text | Kind::Time => None,
        }
    }
}

fn put(block: &Block<'_>, column: &mut TypedColumn, value: Cell) {
    match (column, value) {
        (TypedColumn::Text(column), Some(Read::Text(span))) => column.push(block, span),
        (column, Some(Read::Scalar(scalar))) => column.push(scalar),
        (_, Some(Read::Text(_)) | None) => {} // filled with NULL
    }
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "a whole number in range",
        Kind::Double => "a number",
        Kind::Bool => "true or false",
        Kind::Text => "text",
        Kind::Time => "a time in the expected format",
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int32Type, TimestampMicrosecondType};

    use super::*;

    fn build_with(given: &[(&str, &str)], declared: &[Declared]) -> Result<Box<dyn Format>> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("regex", &given, declared)
    }

    const PATTERN: (&str, &str) = ("pattern", r"^(?<day>\S+ \S+) (?<status>\S+)(?: (?<note>.+))?$");

    #[test]
    fn types_times_and_nulls() {
        let given = [
            PATTERN,
            ("types", "day timestamptz, status int"),
            ("time_format", "%d.%m.%Y %H:%M"),
            ("timezone", "+01:00"),
        ];
        let format = build_with(&given, &[]).unwrap();
        assert_eq!(format.time_column().as_deref(), Some("day"));
        let lines = "17.05.2015 10:05 200 fine\n17.05.2015 10:06 -\n17.05.2015 10:07 x\n\nnone\n2015-05-17 10:05 1\n";
        let parsed = format.parse(&Frames::from_text(lines));
        let reasons: Vec<_> = parsed.malformed.iter().map(|m| (m.frame, m.reason.as_ref())).collect();
        let expected = [
            (2, "status is not a whole number in range"),
            (3, "empty line"),
            (4, "the pattern does not match"),
            (5, "day is not a time in the expected format"),
        ];
        assert_eq!(reasons, expected);
        let status = parsed.rows.column(1).as_primitive::<Int32Type>();
        assert_eq!(status.iter().collect::<Vec<_>>(), [Some(200), None]);
        assert_eq!(parsed.rows.column(2).as_string_view().iter().collect::<Vec<_>>(), [Some("fine"), None]);
        let day = parsed.rows.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(day.value(0), 1_431_853_500_000_000);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_text_too() {
        let parsed =
            build_with(&[PATTERN], &[]).unwrap().parse(&Frames::from_text(&b"a b 7 caf\xe9 or so, long\n"[..]));
        assert_eq!(parsed.rows.column(2).as_string_view().value(0), "caf\u{fffd} or so, long");
    }

    #[test]
    fn declared_columns_choose_groups_and_types() {
        let declared = [Declared { name: "status".into(), data_type: DataType::Int16 }];
        let parsed = build_with(&[PATTERN], &declared).unwrap().parse(&Frames::from_text("a b 7\na b 70000\n"));
        assert_eq!(parsed.rows.column(0).data_type(), &DataType::Int16);
        assert_eq!((parsed.rows.num_rows(), parsed.rows.num_columns(), parsed.malformed.len()), (1, 1, 1));
    }

    #[test]
    fn mistakes_are_named() {
        let err = |given: &[(&str, &str)]| build_with(given, &[]).err().unwrap();
        assert_eq!(err(&[("pattern", "(")]).message(), "the pattern is not a regular expression: unclosed group");
        assert_eq!(err(&[("pattern", "a")]).message(), "the pattern has no named groups");
        let message = "unknown group in option \"types\": \"statu\"; did you mean \"status\"?";
        assert_eq!(err(&[PATTERN, ("types", "statu int")]).message(), message);
        assert_eq!(err(&[PATTERN, ("types", "status itn")]).message(), "unknown type \"itn\"; did you mean \"int\"?");
        assert!(err(&[PATTERN, ("types", "status")]).message().contains("has no type"));
    }
}
