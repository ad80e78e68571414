//! Which lines make a record, as a user describes it: by patterns of a record's first, further or last lines.
//!
//! Patterns see a line without its terminator and run in time linear in the line (crate `regex`), so no line can stall
//! a stream; that is also why look-around is not known. They are patterns of text; a line that is not UTF-8 and does not
//! match as text is tried once more byte by byte.

use regex::bytes::{Regex, RegexBuilder};

use crate::error::{Error, Kind, Result};
use crate::options::Options;

/// See the file header.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Lines that begin a record, whatever came before.
    first: Option<Lines>,
    /// Lines that end theirs, whatever comes next.
    last: Option<Lines>,
}

impl Rule {
    /// The rule that the options multiline_… describe; `None` when no pattern is given.
    pub fn from(options: &Options) -> Result<Option<Rule>> {
        let negate = options.bool("multiline_negate");
        // A line that continues no record begins one.
        let mut first = [("multiline_start", true), ("multiline_continue", false)]
            .into_iter()
            .filter_map(|(name, matching)| Some((name, matching, options.text(name)?)));
        let (first, second) = (first.next(), first.next());
        let end = options.text("multiline_end");
        let wrong = match (&first, second, end, negate) {
            (None, _, None, false) => return Ok(None),
            (None, _, None, true) => "option \"multiline_negate\" is given without a pattern",
            (Some(_), Some(_), _, _) => {
                "give one of the options \"multiline_start\" and \"multiline_continue\", not both"
            }
            (Some(_), None, Some(_), true) => "option \"multiline_negate\" is for one pattern, and two are given",
            (Some(_), None, _, _) | (None, _, Some(_), _) => "",
        };
        if !wrong.is_empty() {
            return Err(Error::new(Kind::InvalidParameter, wrong));
        }
        let lines = |(name, matching, pattern)| Lines::new(name, pattern, matching != negate);
        Ok(Some(Rule {
            first: first.map(lines).transpose()?,
            last: end.map(|pattern| Lines::new("multiline_end", pattern, !negate)).transpose()?,
        }))
    }

    /// Whether `line` begins a record.
    #[inline]
    pub fn begins(&self, line: &[u8]) -> bool {
        self.first.as_ref().is_some_and(|lines| lines.contain(line))
    }

    /// Whether `line` is the last of its record.
    #[inline]
    pub fn ends(&self, line: &[u8]) -> bool {
        self.last.as_ref().is_some_and(|lines| lines.contain(line))
    }
}

/// The lines that match a pattern, or those that do not.
#[derive(Debug, Clone)]
struct Lines {
    text: Regex,
    /// The same pattern with `.` matching any byte. Missing where the pattern names classes of Unicode.
    bytes: Option<Regex>,
    matching: bool,
}

impl Lines {
    fn new(option: &str, pattern: &str, matching: bool) -> Result<Lines> {
        let text = Regex::new(pattern).map_err(|err| Error::regex(&format!("option \"{option}\""), pattern, &err))?;
        Ok(Lines { text, bytes: RegexBuilder::new(pattern).unicode(false).build().ok(), matching })
    }

    fn contain(&self, line: &[u8]) -> bool {
        let as_bytes = || {
            simdutf8::basic::from_utf8(line).is_err() && self.bytes.as_ref().is_some_and(|regex| regex.is_match(line))
        };
        (self.text.is_match(line) || as_bytes()) == self.matching
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::frame::Framing;

    #[test]
    fn errors_say_which_pattern_and_where() {
        let fails = |given: &[(&str, &str)]| Framing::of_options(given).unwrap_err();
        let err = fails(&[("multiline_start", r"^\d{4}-(\d\d")]);
        assert_eq!(err.kind(), Kind::InvalidRegex);
        assert_eq!(
            err.message(),
            "option \"multiline_start\" is not a regular expression: unclosed group at character 8"
        );
        let err = fails(&[("multiline_end", r"^ä\y")]);
        assert!(err.message().ends_with("unrecognized escape sequence at character 3"), "{err}");
        let err = fails(&[("multiline_end", "^(?=x)")]);
        assert!(err.message().contains("look-ahead") && err.hint().unwrap().contains("look-around"), "{err}");
        let err = fails(&[("multiline_end", r"\w{1000}{1000}")]);
        assert!(!err.message().contains("character"), "too large, and nowhere: {err}");
        let err = fails(&[("multiline_start", "x"), ("multiline_continue", "y")]);
        assert!(err.message().contains("not both"), "{err}");
        let err = fails(&[("multiline_start", "x"), ("multiline_end", "y"), ("multiline_negate", "true")]);
        assert!(err.message().contains("two are given"), "{err}");
        let err = fails(&[("multiline_negate", "true")]);
        assert!(err.message().contains("without a pattern"), "{err}");
    }
}
