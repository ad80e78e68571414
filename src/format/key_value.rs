//! Pairs of keys and values, however they are separated: format `kv`.
//!
//!     2024-05-20 00:00:18 WARN user=alice action=logged in, src=10.0.0.7
//!     date=2024-05-20;msg="disk; full";free=0.5
//!
//! A pair begins where a key and the field separator stand behind a pair separator. All text up to the next such place is
//! its value, so values need no quotes unless they hold a pair themselves; in quotes, a backslash escapes. Text before the
//! first pair is kept in the column that option `prefix` names; a time at its beginning is the time of the row. Columns and
//! types are learned as [`super::learning`] says.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::column::Span;
use super::fields::TYPES;
use super::learning::objects::{Key, Member, Objects, Syntax};
use super::learning::value::{Decode, Value};
use super::learning::{MAX_COLUMNS, TIME_FIELD};
use super::logfmt::unescape;
use super::timestamp::{self, TIME_FORMAT, TIMEZONE, TimeFormat, Times};
use super::typed::Kind;
use super::{Declared, Format, Spec, quotes};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::options::{OptionKind, OptionSpec, Options};

pub static SPEC: Spec = Spec {
    name: "kv",
    aliases: &["key_value"],
    summary: "Pairs of keys and values with separators of any kind, and text before them",
    columns: &[],
    options: &[
        OptionSpec::optional(
            "pair_separator",
            OptionKind::Text,
            Some(" "),
            "what stands between pairs, such as ';' or ', '; \\t for a tab",
        ),
        OptionSpec::optional(
            "field_separator",
            OptionKind::Text,
            Some("="),
            "what stands between a key and its value, such as ':' or '=>'",
        ),
        OptionSpec::optional(
            "quote",
            OptionKind::Text,
            Some("\""),
            "what stands around values that hold separators: one character, or nothing",
        ),
        OptionSpec::optional(
            "prefix",
            OptionKind::Text,
            Some("_prefix"),
            "column for the text before the first pair; a time at its beginning is read as the time of the row",
        ),
        TYPES,
        TIME_FIELD,
        TIME_FORMAT,
        TIMEZONE,
        MAX_COLUMNS,
    ],
    sample: concat!(
        "2024-05-20 00:00:18.250 WARN user=alice action=logged in src=10.0.0.7 took=0.25\n",
        "[2024-05-20T00:00:19Z] user=\"bob = \\\"b\\\"\" status=200 took=1\n",
        "ts=2024-05-20T00:00:20Z user= status=404\n",
    ),
    sample_options: &[],
    build,
    detectable: false,
};

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let separator = |name: &str| match options.text(name).unwrap_or_default().replace("\\t", "\t") {
        text if text.is_empty() => Err(Error::new(ErrorKind::InvalidParameter, format!("option \"{name}\" is empty"))),
        text => Ok(Finder::new(text.as_bytes()).into_owned()),
    };
    let quote = match options.text("quote").unwrap_or_default().as_bytes() {
        [] => None,
        [quote] => Some(*quote),
        _ => return Err(Error::new(ErrorKind::InvalidParameter, "option \"quote\" takes one character")),
    };
    let declared_time = declared.iter().find(|c| c.data_type == Kind::Time.data_type());
    let times = Times::from_options(options)?;
    let pairs = Pairs {
        between_pairs: separator("pair_separator")?,
        within_pairs: separator("field_separator")?,
        quote,
        given: [
            options.text("prefix").unwrap_or_default().to_string(),
            declared_time.map_or("ts", |column| column.name.as_str()).to_string(),
        ],
        leading: options.text(TIME_FIELD.name).is_none().then(|| LeadingTime::new(times)),
    };
    if pairs.between_pairs.needle() == pairs.within_pairs.needle() {
        return Err(Error::new(ErrorKind::InvalidParameter, "pair_separator and field_separator are the same"));
    }
    Ok(Box::new(Objects::new(pairs, options, declared)?))
}

struct Pairs {
    between_pairs: Finder<'static>,
    within_pairs: Finder<'static>,
    quote: Option<u8>,
    /// Names of the columns of the prefix and of its time.
    given: [String; 2],
    /// How the prefix says the time; `None` when the user says that it does not.
    leading: Option<LeadingTime>,
}

const PREFIX: Key = Key::Given(0);
const TIME: Key = Key::Given(1);

impl Syntax for Pairs {
    const JSON: bool = false;

    fn given(&self, index: usize) -> &str {
        &self.given[index]
    }

    fn members(&self, line: &[u8], base: usize, found: &mut Vec<Member>) -> Result<(), Cow<'static, str>> {
        found.clear();
        if line.is_empty() {
            return Err("empty line".into());
        }
        let mut open: Option<(Key, usize)> = None;
        let mut end = 0; // of the text before the piece at hand
        let mut at = 0;
        while at <= line.len() {
            let mut next = self.piece_end(line, at);
            if let Some((key_at, key_end, value_at)) = self.pair(line, at, next, open.is_none()) {
                match open {
                    Some((key, from)) => found.push(self.member(line, base, key, from, end)),
                    None => self.prefix(line, base, key_at, found),
                }
                if let Some(quote) = self.quote.filter(|quote| line.get(value_at) == Some(quote))
                    && let Some((close, _)) = quotes::escaped(line, value_at + 1, quote)
                {
                    next = self.piece_end(line, close + 1);
                }
                open = Some((Key::Plain(Span::new(base + key_at, base + key_end)), value_at));
            }
            end = next;
            at = next + self.between_pairs.needle().len();
        }
        match open {
            Some((key, from)) => found.push(self.member(line, base, key, from, end)),
            None => return Err("no pair of key and value".into()),
        }
        Ok(())
    }
}

impl Pairs {
    fn piece_end(&self, line: &[u8], from: usize) -> usize {
        self.between_pairs.find(&line[from..]).map_or(line.len(), |len| from + len)
    }

    /// Where the piece `at..end` has its key, and where its value starts. Before the `first` pair of a line there may be
    /// other text in front of the key.
    fn pair(&self, line: &[u8], at: usize, end: usize, first: bool) -> Option<(usize, usize, usize)> {
        let separator = at + self.within_pairs.find(&line[at..end])?;
        let (mut key_at, key_end) = trim(line, at, separator);
        if let Some(blank) = line[key_at..key_end].iter().rposition(u8::is_ascii_whitespace).filter(|_| first) {
            key_at += blank + 1;
        }
        let is_key = |b: &u8| !b.is_ascii_whitespace() && Some(*b) != self.quote;
        if key_at == key_end || !line[key_at..key_end].iter().all(is_key) {
            return None;
        }
        let value_at = separator + self.within_pairs.needle().len();
        let blanks = line[value_at..end].iter().take_while(|b| b.is_ascii_whitespace()).count();
        Some((key_at, key_end, value_at + blanks))
    }

    /// The member whose value stands in `from..end`.
    fn member(&self, line: &[u8], base: usize, key: Key, from: usize, end: usize) -> Member {
        let (from, end) = trim(line, from, end);
        let raw = Span::new(base + from, base + end);
        let whole = self.quote.filter(|quote| line.get(from) == Some(quote) && from < end);
        let value = match whole.and_then(|quote| quotes::escaped(line, from + 1, quote)) {
            Some((close, escaped)) if close + 1 == end => {
                let span = Span::new(base + from + 1, base + close);
                if escaped { Value::Text { span, escaped } } else { Value::Word(span) }
            }
            _ if from == end => Value::Null,
            _ => Value::Word(raw),
        };
        Member { key, value, raw }
    }

    /// The members in the text before the first pair.
    fn prefix(&self, line: &[u8], base: usize, end: usize, found: &mut Vec<Member>) {
        let mut from = 0;
        if let Some((time, rest)) = self.leading.as_ref().and_then(|leading| leading.find(&line[..end])) {
            let span = Span::new(base + time.0, base + time.1);
            found.push(Member { key: TIME, value: Value::Word(span), raw: span });
            from = rest;
        }
        let (from, end) = trim(line, from, end);
        if from < end {
            let span = Span::new(base + from, base + end);
            found.push(Member { key: PREFIX, value: Value::Text { span, escaped: false }, raw: span });
        }
    }
}

impl Decode for Pairs {
    fn decode(&self, inside: &[u8]) -> Option<String> {
        unescape(inside)
    }
}

/// `from..end` without the blanks at both ends.
fn trim(line: &[u8], from: usize, end: usize) -> (usize, usize) {
    let text = &line[from..end.max(from)];
    let start = from + text.iter().take_while(|b| b.is_ascii_whitespace()).count();
    (start, start + line[start..end.max(start)].trim_ascii_end().len())
}

/// Finds a time at the beginning of a text.
struct LeadingTime {
    times: Times,
    /// As many words as a time may have.
    most_words: usize,
}

impl LeadingTime {
    fn new(times: Times) -> LeadingTime {
        let most_words = match &times.format {
            TimeFormat::Pattern(items) => {
                timestamp::written_sample(items).map_or(1, |sample| sample.split_ascii_whitespace().count())
            }
            // Date, time of day and zone.
            TimeFormat::Auto | TimeFormat::Rfc3339 | TimeFormat::Clf => 3,
            TimeFormat::Epoch | TimeFormat::EpochIn(_) => 1,
        };
        LeadingTime { times, most_words }
    }

    /// Where the time stands, and where the text behind it goes on.
    fn find(&self, text: &[u8]) -> Option<((usize, usize), usize)> {
        let start = text.iter().take_while(|b| b.is_ascii_whitespace() || **b == b'[').count();
        let blanks = (start + 1..text.len()).filter(|at| text[*at].is_ascii_whitespace());
        let ends: Vec<usize> = blanks.chain([text.len()]).take(self.most_words).collect();
        ends.into_iter().rev().find_map(|end| {
            let word = text.get(start..end)?;
            let kept = word.iter().rev().take_while(|b| matches!(b, b']' | b':' | b',')).count();
            let time = &word[..word.len() - kept];
            // A number is a time only where numbers are said to be times.
            let read = if self.times.format == TimeFormat::Auto {
                timestamp::rfc3339(time, self.times.zone).or_else(|| timestamp::clf(time))
            } else {
                self.times.read(time)
            };
            read.map(|_| ((start, start + time.len()), end))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{real_log, rows_as_text};
    use crate::frame::Frames;

    fn kv(given: &[(&str, &str)]) -> Box<dyn Format> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("kv", &given, &[]).unwrap()
    }

    fn rows(given: &[(&str, &str)], text: &str) -> Vec<String> {
        rows_as_text(&kv(given).parse(&Frames::from_text(text), 0).rows)
    }

    const T: &str = "1970-01-01T00:00:01Z";

    #[test]
    fn the_sample() {
        let expected = [
            "ts=2024-05-20T00:00:18.250Z _prefix=WARN user=alice action=logged in src=10.0.0.7 took=0.25",
            "ts=2024-05-20T00:00:19Z user=bob = \"b\" took=1.0 status=200",
            "ts=2024-05-20T00:00:20Z status=404",
        ];
        assert_eq!(rows(&[], SPEC.sample), expected);
    }

    #[test]
    fn separators() {
        let with = |pairs: &'static str, fields: &'static str| [("pair_separator", pairs), ("field_separator", fields)];
        let text = "ts=1; a = x y ;b=\"u; v=w\";c=1,2;3\n";
        assert_eq!(rows(&with(";", "="), text), [format!("ts={T} a=x y b=u; v=w c=1,2;3")]);
        assert_eq!(rows(&with("\\t", ":"), "ts:1\ta:b:c\td:\n"), [format!("ts={T} a=b:c")]);
        assert_eq!(rows(&with(" / ", "=>"), "ts=>1 / a=>1/2 / b c\n"), [format!("ts={T} a=1/2 / b c")]);
        let quotes = [("quote", "'")];
        assert_eq!(rows(&quotes, "ts=1 a='x b=1' c=\"y\n"), [format!("ts={T} a=x b=1 c=\"y")]);
        // A quote that is not closed, or text behind it, is part of the value.
        assert_eq!(rows(&[], "ts=1 a=\"x b=1 c=\"y\"z\n"), [format!("ts={T} a=\"x b=1 c=\"y\"z")]);
    }

    #[test]
    fn the_text_before() {
        let options = [("time_format", "%d.%m.%Y %H:%M:%S"), ("prefix", "head"), ("timezone", "+01:00")];
        let text = "01.01.1970 01:00:01 INFO [main] a=1\n";
        assert_eq!(rows(&options, text), [format!("ts={T} head=INFO [main] a=1")]);
        assert_eq!(
            rows(&[("time_field", "t")], "1970-01-01 00:00:00 x t=1\n"),
            [format!("t={T} _prefix=1970-01-01 00:00:00 x")]
        );
        let pairs = [("pair_separator", ";")];
        let text = "1970-01-01 00:00:01 [main] a=1;b=x y=2\n";
        assert_eq!(rows(&pairs, text), [format!("ts={T} _prefix=[main] a=1 b=x y=2")]);
        // A pair that is called the same says the time; that of the prefix is kept.
        let text = "1970-01-01T00:00:02Z ts=1 time=9\n";
        assert_eq!(rows(&[], text), [format!("ts={T} ts__text=1970-01-01T00:00:02Z time=9")]);
    }

    #[test]
    fn mistakes_are_named() {
        let reason = |line: &str| kv(&[]).parse(&Frames::from_text(line), 0).malformed[0].reason.to_string();
        assert_eq!(reason("hello"), "no pair of key and value");
        assert_eq!(reason("= a b"), "no pair of key and value");
        assert_eq!(reason("17 a=1"), "no member with a readable time");
        let message = |given: &[(&str, &str)]| {
            let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            crate::format::build("kv", &given, &[]).err().unwrap().message().to_string()
        };
        assert_eq!(message(&[("pair_separator", "=")]), "pair_separator and field_separator are the same");
        assert_eq!(message(&[("field_separator", "")]), "option \"field_separator\" is empty");
    }

    #[test]
    fn real_lines() {
        let Some(log) = real_log("formats/lnav/logfile_ts_value.0") else { return };
        let expected = [
            "ts=2024-01-01T15:00:00Z _prefix=INFO session_start=2024-01-01T10:30:00Z user=alice logged in",
            "ts=2024-01-01T15:05:00Z _prefix=WARN session_start=2024-01-01T14:00:00Z user=bob session expired",
        ];
        assert_eq!(rows(&[], std::str::from_utf8(&log).unwrap()), expected);
    }
}
