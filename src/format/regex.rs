//! Lines of any shape: format `regex`, a pattern whose named groups are the columns.
//!
//! The pattern is matched once against each line (anchored only where it says so); named groups become columns in
//! their order in the pattern, text unless option `types` or the declared columns say otherwise. A line that does not
//! match, or a group that does not read as its type, makes the line malformed. A group that took no part in the match
//! is NULL, and so is `-` or nothing in a column that is not text. Patterns run in time linear in the line (crate
//! `regex`), so no line can stall a stream; that is also why look-around is not known.

use arrow::datatypes::SchemaRef;
use regex::bytes::{CaptureLocations, Regex, RegexBuilder};

use super::column::{Block, Span};
use super::fields::{Fields, Found, Known, TIME_FIELD, TYPES};
use super::timestamp::{TIME_FORMAT, TIMEZONE};
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

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
        TYPES,
        TIME_FIELD,
        TIME_FORMAT,
        TIMEZONE,
    ],
    sample: "2024-05-20T00:00:18Z INFO 17 ms served /index.html\n2024-05-20T00:00:19Z WARN - ms slow disk\n",
    sample_options: &[
        ("pattern", r"^(?<ts>\S+) (?<level>\w+) (?<took>\S+) ms (?<message>.*)$"),
        ("types", "took bigint"),
    ],
    build,
    detectable: false,
};

/// Parses lines by a pattern.
struct ByPattern {
    regex: Regex,
    /// The same pattern with `.` matching any byte, for lines that are not UTF-8. Missing where the pattern names
    /// classes of Unicode.
    any_bytes: Option<Regex>,
    fields: Fields,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let pattern = options.text("pattern").unwrap_or_default();
    let regex = Regex::new(pattern).map_err(|err| Error::regex("option \"pattern\"", pattern, &err))?;
    let group =
        |(source, name): (usize, Option<&str>)| Some(Known { name: name?.to_string(), source, data_type: None });
    let groups: Vec<Known> = regex.capture_names().enumerate().filter_map(group).collect();
    if groups.is_empty() {
        return Err(Error::new(Kind::InvalidRegex, "the pattern has no named groups")
            .with_hint("Name the parts that become columns, such as '^(?<ts>\\S+) (?<message>.*)$'."));
    }
    Ok(Box::new(ByPattern {
        fields: Fields::new("group", &groups, options, declared)?,
        any_bytes: RegexBuilder::new(pattern).unicode(false).build().ok(),
        regex,
    }))
}

impl Format for ByPattern {
    fn schema(&self) -> SchemaRef {
        self.fields.schema()
    }

    fn time_column(&self) -> Option<String> {
        self.fields.time_column()
    }

    fn parse(&self, frames: &Frames, _: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut rows = self.fields.rows(frames.len());
        let mut malformed = Vec::new();
        let mut groups = self.regex.capture_locations();
        for i in 0..frames.len() {
            let at = frames.range(i);
            let line = &frames.bytes[at.clone()];
            let read = if line.is_empty() {
                Err("empty line".into())
            } else if !self.matches(&mut groups, line) {
                Err("the pattern does not match".into())
            } else {
                let span = |(start, end)| Found::Text(Span::new(at.start + start, at.start + end));
                rows.push(&block, |group| groups.get(group).map(span))
            };
            if let Err(reason) = read {
                malformed.push(Malformed { frame: i as u32, reason });
            }
        }
        Parsed { rows: rows.finish(&block), malformed }
    }
}

impl ByPattern {
    fn matches(&self, groups: &mut CaptureLocations, line: &[u8]) -> bool {
        self.regex.captures_read(groups, line).is_some()
            || (std::str::from_utf8(line).is_err()
                && self.any_bytes.as_ref().is_some_and(|regex| regex.captures_read(groups, line).is_some()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Int32Type, TimestampMicrosecondType};

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
        let parsed = format.parse(&Frames::from_text(lines), 0);
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
            build_with(&[PATTERN], &[]).unwrap().parse(&Frames::from_text(&b"a b 7 caf\xe9 or so, long\n"[..]), 0);
        assert_eq!(parsed.rows.column(2).as_string_view().value(0), "caf\u{fffd} or so, long");
    }

    #[test]
    fn declared_columns_choose_groups_and_types() {
        let declared = [Declared { name: "status".into(), data_type: DataType::Int16 }];
        let parsed = build_with(&[PATTERN], &declared).unwrap().parse(&Frames::from_text("a b 7\na b 70000\n"), 0);
        assert_eq!(parsed.rows.column(0).data_type(), &DataType::Int16);
        assert_eq!((parsed.rows.num_rows(), parsed.rows.num_columns(), parsed.malformed.len()), (1, 1, 1));
    }

    #[test]
    fn mistakes_are_named() {
        let err = |given: &[(&str, &str)]| build_with(given, &[]).err().unwrap();
        let message = "option \"pattern\" is not a regular expression: unclosed group at character 1";
        assert_eq!(err(&[("pattern", "(")]).message(), message);
        assert_eq!(err(&[("pattern", "a")]).message(), "the pattern has no named groups");
        let message = "unknown group in option \"types\": \"statu\"; did you mean \"status\"?";
        assert_eq!(err(&[PATTERN, ("types", "statu int")]).message(), message);
        assert_eq!(err(&[PATTERN, ("types", "status itn")]).message(), "unknown type \"itn\"; did you mean \"int\"?");
        assert!(err(&[PATTERN, ("types", "status")]).message().contains("has no type"));
    }
}
