//! What a user chose, checked: a [`Framing`] is made from the options that all sources share and makes a framer for each
//! file or connection.

use std::sync::Arc;

use super::multiline::Rule;
use super::{FRAMINGS, Framer, LARGEST, Spec, multiline, newline};
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

/// The options of framings, for the tables of sources: `options::join(OWN, frame::OPTIONS)`. Which framings a source
/// takes it says itself, with [`framing_option`].
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional("max_line_bytes", OptionKind::Bytes, Some("1 MiB"), "longer lines are cut to this length"),
    OptionSpec::optional(
        "multiline_start",
        OptionKind::Text,
        None,
        r"regular expression: a line that matches begins a record, such as '^\d{4}-\d\d-\d\d '; the others belong to it",
    ),
    OptionSpec::optional(
        "multiline_continue",
        OptionKind::Text,
        None,
        r"regular expression: a line that matches belongs to the record before, such as '^\s'; the others begin one",
    ),
    OptionSpec::optional(
        "multiline_end",
        OptionKind::Text,
        None,
        "regular expression: a line that matches is the last of its record; may be given beside one of the others",
    ),
    OptionSpec::optional(
        "multiline_negate",
        OptionKind::Bool,
        Some("false"),
        "the pattern means the lines that do not match",
    ),
    OptionSpec::optional(
        "multiline_timeout",
        OptionKind::Interval,
        Some("1 second"),
        "the last record counts as finished when nothing came for so long; FLUSH waits for that",
    ),
    OptionSpec::optional(
        "max_record_lines",
        OptionKind::Integer,
        Some("500"),
        "a record of more lines goes on as the next record",
    ),
    OptionSpec::optional(
        "max_record_bytes",
        OptionKind::Bytes,
        Some("1 MiB"),
        "a record that would be longer goes on as the next record",
    ),
];

/// The option `framing` of a source that takes these; the first is the default.
pub const fn framing_option(names: &'static [&'static str], summary: &'static str) -> OptionSpec {
    OptionSpec::optional("framing", OptionKind::Choice(names), None, summary)
}

/// How a source cuts its bytes into frames.
#[derive(Debug, Clone)]
pub struct Framing {
    pub spec: &'static Spec,
    /// Longest line, or message, kept whole.
    pub max_line_bytes: usize,
    pub max_record_lines: usize,
    pub max_record_bytes: usize,
    /// A record whose lines are all finished may still go on for so long, in microseconds; 0 where it cannot.
    pub timeout: Micros,
    /// Which lines make a record; `None` when each is one.
    pub rule: Option<Arc<Rule>>,
}

impl Framing {
    /// Checks the options. `default` is the framing of a source whose user chose none.
    pub fn from(options: &Options, default: &str) -> Result<Framing> {
        let rule = Rule::from(options)?;
        let name = match (options.text("framing"), &rule) {
            (Some(name), _) => name,
            (None, Some(_)) => multiline::SPEC.name,
            (None, None) => default,
        };
        let spec = crate::registry::find(FRAMINGS, "framing", name)?;
        match (spec.name == multiline::SPEC.name, &rule) {
            (true, None) => {
                return Err(Error::new(Kind::InvalidParameter, "framing \"multiline\" needs a pattern").with_hint(
                    r"Give multiline_start, such as '^\d{4}-\d\d-\d\d ', multiline_continue, such as '^\s', or multiline_end.",
                ));
            }
            (false, Some(_)) => {
                let message = format!("framing \"{name}\" knows no patterns of lines");
                return Err(Error::new(Kind::InvalidParameter, message)
                    .with_hint("Leave out the option \"framing\", or the options multiline_…."));
            }
            (true, Some(_)) | (false, None) => {}
        }
        let max_line_bytes = bytes(options, "max_line_bytes", newline::MAX_LINE_BYTES)?;
        Ok(Framing {
            spec,
            max_line_bytes,
            max_record_lines: count(options, "max_record_lines", multiline::MAX_RECORD_LINES)?,
            max_record_bytes: bytes(options, "max_record_bytes", multiline::MAX_RECORD_BYTES)?,
            timeout: match &rule {
                Some(_) => options.interval("multiline_timeout").map_or(0, |d| d.as_micros() as Micros),
                None => 0,
            },
            rule: rule.map(Arc::new),
        })
    }

    /// The framing that these options name, with the defaults of the others.
    pub fn of_options(given: &[(&str, &str)]) -> Result<Framing> {
        const ALL: &[OptionSpec] = &[OptionSpec::optional("framing", OptionKind::Text, None, "the name of a framing")];
        let given: Vec<_> = given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Framing::from(&Options::parse("framing", &[ALL, OPTIONS], &given)?, newline::SPEC.name)
    }

    /// For one file or connection.
    pub fn framer(&self) -> Box<dyn Framer> {
        (self.spec.build)(self)
    }
}

impl Default for Framing {
    /// Lines.
    fn default() -> Framing {
        Framing {
            spec: &newline::SPEC,
            max_line_bytes: newline::MAX_LINE_BYTES,
            max_record_lines: multiline::MAX_RECORD_LINES,
            max_record_bytes: multiline::MAX_RECORD_BYTES,
            timeout: 0,
            rule: None,
        }
    }
}

fn bytes(options: &Options, name: &str, default: usize) -> Result<usize> {
    in_range(name, options.bytes(name).unwrap_or(default as u64), LARGEST as u64, "256 MiB")
}

fn count(options: &Options, name: &str, default: usize) -> Result<usize> {
    let given = options.integer(name).unwrap_or(default as i64);
    in_range(name, u64::try_from(given).unwrap_or(0), 1_000_000, "1000000")
}

fn in_range(name: &str, value: u64, most: u64, most_text: &str) -> Result<usize> {
    match usize::try_from(value) {
        Ok(value) if (1..=most as usize).contains(&value) => Ok(value),
        Ok(_) | Err(_) => {
            Err(Error::new(Kind::InvalidParameter, format!("option \"{name}\" takes a value from 1 to {most_text}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(given: &[(&str, &str)]) -> Error {
        Framing::of_options(given).unwrap_err()
    }

    #[test]
    fn lines_by_default_and_records_where_a_pattern_is_given() {
        assert_eq!(Framing::of_options(&[]).unwrap().spec.name, "newline");
        let records = Framing::of_options(&[("multiline_start", "^x"), ("multiline_timeout", "2 s")]).unwrap();
        assert_eq!((records.spec.name, records.timeout), ("multiline", 2_000_000));
        assert_eq!((records.max_record_lines, records.max_record_bytes), (500, 1 << 20));
        assert_eq!(Framing::of_options(&[("framing", "nul")]).unwrap().timeout, 0);
    }

    #[test]
    fn what_does_not_fit_together_is_said() {
        assert!(fails(&[("framing", "multilne")]).message().contains("did you mean \"multiline\"?"));
        assert!(fails(&[("multiline_strat", "x")]).message().contains("did you mean \"multiline_start\"?"));
        assert!(fails(&[("framing", "multiline")]).message().ends_with("needs a pattern"));
        assert!(fails(&[("framing", "nul"), ("multiline_end", "x")]).message().contains("\"nul\" knows no patterns"));
        assert!(fails(&[("max_record_lines", "0")]).message().contains("from 1 to 1000000"));
        assert!(fails(&[("max_record_bytes", "1 GiB")]).message().contains("256 MiB"));
        assert!(fails(&[("max_line_bytes", "0")]).message().contains("from 1"));
    }
}
