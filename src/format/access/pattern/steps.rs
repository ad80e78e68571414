//! A pattern of an access log as the steps that read a line: each a field and the text at which it ends.
//!
//! A line is read from left to right without going back, with these exceptions, where the first place at which a field
//! could end is often not the one: a field before the time (users have spaces and brackets in their names), a request
//! that is not quoted, an address before its port, and a time that has the text behind it within.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use chrono::format::Parsed;
use memchr::{memchr, memrchr};

use super::field::{Field, Kind, Piece, Token};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::access::line::split_request;
use crate::format::column::Span;
use crate::format::fields::{Found, Known};
use crate::format::timestamp::{ClfReader, Zone, epoch_float, epoch_in, read_items, resolve, rfc3339, written_sample};
use crate::format::typed::Scalar;
use crate::format::{learning, quotes, timestamp_type};
use crate::time::{MICROS_PER_SECOND, Micros};

/// See the file header.
pub struct Steps {
    /// What a line begins with.
    start: Vec<u8>,
    steps: Vec<Step>,
    /// Whether a time is among the fields.
    timed: bool,
}

struct Step {
    field: Field,
    /// Where its values go; three places for a request.
    source: usize,
    /// The text behind it; at the end of the line when there is none.
    until: Vec<u8>,
    /// Whether that text belongs to the next field.
    keep: bool,
    quoted: bool,
    /// How often the text behind it stands within it.
    within: usize,
    /// Whether a time follows.
    before_time: bool,
}

/// Blanks that a request without quotes may have; so a line is not read once for each of its blanks.
const MOST_BLANKS: usize = 64;

const CLF_LEN: usize = "17/May/2015:10:05:03 +0000".len();

type Reason = Cow<'static, str>;

impl Steps {
    /// The steps of a pattern, and the columns in which they put what they find.
    pub fn compile(tokens: Vec<Token>) -> Result<(Steps, Vec<Known>)> {
        let (start, fields) = with_texts(tokens);
        if fields.is_empty() {
            return Err(Error::new(ErrorKind::InvalidParameter, "the pattern has no fields")
                .with_hint("Fields are written as Apache does (%h) or as nginx does ($remote_addr)."));
        }
        let timed = fields.iter().any(|(field, _)| matches!(field.kind, Kind::Time(_)));
        let mut known: Vec<(String, DataType)> = Vec::new();
        if timed {
            known.push(("ts".to_string(), timestamp_type()));
        }
        let mut steps: Vec<Step> = Vec::new();
        for (index, (field, until)) in fields.iter().enumerate() {
            let next = fields.get(index + 1).map(|(field, _)| field);
            let begins_quoted = match steps.last() {
                Some(before) => before.until.ends_with(b"\""),
                None => start.ends_with(b"\""),
            };
            let (until, keep) = match (until.is_empty(), next) {
                (true, Some(next)) if next.kind == Kind::Path => (b"/".to_vec(), true),
                (true, Some(next)) if !is_clf(field) => return Err(nothing_between(field, next)),
                _ => (until.clone(), false),
            };
            let source = match &field.kind {
                Kind::Time(_) => 0,
                _ => known.len(),
            };
            known.extend(columns(field));
            steps.push(Step {
                source,
                quoted: begins_quoted && until.starts_with(b"\""),
                within: match &field.kind {
                    Kind::Time(Piece::Items(items)) => count(&written_sample(items).unwrap_or_default(), &until),
                    _ => 0,
                },
                before_time: next.is_some_and(is_clf) && !until.is_empty(),
                field: field.clone(),
                until,
                keep,
            });
        }
        check_times(&steps)?;
        let names = learning::distinct(known.iter().map(|(name, _)| Cow::Borrowed(name.as_str())));
        let column = |(source, (name, (_, data_type)))| Known { name, source, data_type: Some(data_type) };
        let known = names.into_iter().zip(known).enumerate().map(column).collect();
        Ok((Steps { start, steps, timed }, known))
    }

    /// Whether the pattern says the time, in the first source.
    pub fn timed(&self) -> bool {
        self.timed
    }

    /// Puts the fields of `line`, which lies at `base` in its block, into `found` by their source; or says what is wrong.
    #[inline]
    pub fn read(
        &self,
        line: &[u8],
        base: usize,
        zone: Zone,
        clock: &mut ClfReader,
        found: &mut [Option<Found>],
    ) -> Result<(), Reason> {
        if line.is_empty() {
            return Err("empty line".into());
        }
        if !line.starts_with(&self.start) {
            return Err(format!("the line does not begin with {}", shown(&self.start)).into());
        }
        let mut at = self.start.len();
        let mut moment = Moment::default();
        for (index, step) in self.steps.iter().enumerate() {
            let (end, escaped) = step.end(line, at, clock, self.steps.get(index + 1))?;
            let span = Span::new(base + at, base + end);
            let value = &line[at..end];
            match &step.field.kind {
                Kind::Time(piece) => {
                    moment.add(piece, value, zone, clock).ok_or_else(|| step.not("readable as a time"))?;
                }
                Kind::Request => {
                    let (method, path, protocol) = split_request(value, base + at, escaped);
                    let text = |span: Option<Span>| span.map(Found::Text);
                    let path =
                        path.map(|path| if path.escaped { Found::Escaped(path.span) } else { Found::Text(path.span) });
                    found[step.source] = text(method);
                    found[step.source + 1] = path;
                    found[step.source + 2] = text(protocol);
                }
                _ if value == b"-" => found[step.source] = None,
                Kind::Text | Kind::Address | Kind::Path | Kind::Query => {
                    found[step.source] = Some(if escaped { Found::Escaped(span) } else { Found::Text(span) });
                }
                Kind::Status if value.len() != 3 || !value.iter().all(u8::is_ascii_digit) => {
                    return Err(step.not("a number of three digits"));
                }
                Kind::Number(DataType::Float64) if value.is_empty() => return Err(step.not("a number")),
                Kind::Number(DataType::Float64) => found[step.source] = Some(Found::Text(span)),
                Kind::Number(_) if value.is_empty() || !value.iter().all(u8::is_ascii_digit) => {
                    return Err(step.not("a whole number"));
                }
                Kind::Status | Kind::Number(_) => found[step.source] = Some(Found::Text(span)),
            }
            at = if step.keep { end } else { end + step.until.len() };
        }
        if at != line.len() {
            let last = &self.steps[self.steps.len() - 1];
            return Err(format!("text behind {}", last.field.name).into());
        }
        if self.timed {
            let time = moment.finish(zone).ok_or("the time is not readable")?;
            found[0] = Some(Found::Scalar(Scalar::Time(time)));
        }
        Ok(())
    }
}

impl Step {
    /// Where the field ends that starts at `at`, and whether it has escapes.
    #[inline]
    fn end(&self, line: &[u8], at: usize, clock: &mut ClfReader, next: Option<&Step>) -> Result<(usize, bool), Reason> {
        let found = match &self.field.kind {
            _ if self.quoted => {
                let (end, escaped) = quotes::escaped(line, at, b'"').ok_or_else(|| self.not_closed())?;
                return if line[end..].starts_with(&self.until) { Ok((end, escaped)) } else { Err(self.no_end()) };
            }
            Kind::Time(Piece::Clf) => {
                let end = at + CLF_LEN;
                line.get(at..end).ok_or_else(|| self.not("like 17/May/2015:10:05:03 +0000"))?;
                line[end..].starts_with(&self.until).then_some(end)
            }
            _ if self.until.is_empty() => Some(line.len()),
            Kind::Address if self.until == b":" => {
                let word = memchr(b' ', &line[at..]).map_or(line.len(), |len| at + len);
                memrchr(b':', &line[at..word]).map(|len| at + len)
            }
            Kind::Request => {
                let mut places = self.places(line, at).take(MOST_BLANKS);
                places.find(|end| is_request(&line[at..*end])).or_else(|| self.places(line, at).next())
            }
            _ if self.before_time => {
                let behind = next.map_or(&[][..], |next| &next.until[..next.until.len().min(1)]);
                let is_time = |end: &usize| {
                    let time = end + self.until.len();
                    let text = line.get(time..time + CLF_LEN);
                    text.is_some_and(|text| clock.read(text).is_some()) && line[time + CLF_LEN..].starts_with(behind)
                };
                match self.places(line, at).find(is_time) {
                    None if self.places(line, at).next().is_some() => {
                        return Err("the time is not like 17/May/2015:10:05:03 +0000".into());
                    }
                    found => found,
                }
            }
            _ => self.places(line, at).nth(self.within),
        };
        found.map(|end| (end, false)).ok_or_else(|| self.no_end())
    }

    /// Where the text behind the field stands.
    #[inline]
    fn places<'a>(&'a self, line: &'a [u8], at: usize) -> impl Iterator<Item = usize> + 'a {
        let mut from = at;
        std::iter::from_fn(move || {
            loop {
                let end = from + memchr(self.until[0], line.get(from..)?)?;
                from = end + 1;
                if self.until.len() == 1 || line[end..].starts_with(&self.until) {
                    return Some(end);
                }
            }
        })
    }

    #[cold]
    fn no_end(&self) -> Reason {
        format!("no {} behind {}", shown(&self.until), self.field.name).into()
    }

    #[cold]
    fn not(&self, what: &str) -> Reason {
        format!("{} is not {what}", self.field.name).into()
    }

    #[cold]
    fn not_closed(&self) -> Reason {
        format!("{} has no closing quote", self.field.name).into()
    }
}

/// The time of a line, from its pieces.
#[derive(Default)]
struct Moment {
    /// All of the time, and how fine: the finest is kept.
    whole: Option<(Micros, i64)>,
    parts: Option<Parsed>,
    fraction: Micros,
}

impl Moment {
    /// `None` when the piece does not read.
    #[inline]
    fn add(&mut self, piece: &Piece, value: &[u8], zone: Zone, clock: &mut ClfReader) -> Option<()> {
        let (time, fine) = match piece {
            Piece::Clf => (clock.read(value)?, 1),
            Piece::Iso => (rfc3339(value, zone)?, 1),
            Piece::Epoch(1) => {
                let text = std::str::from_utf8(value).ok()?;
                // With a fraction, nginx counts milliseconds.
                (epoch_float(text.parse().ok()?)?, if text.contains('.') { 1000 } else { 1 })
            }
            Piece::Epoch(per_second) => (epoch_in(number(value)?, *per_second)?, *per_second),
            Piece::Items(items) => return read_items(self.parts.get_or_insert_with(Parsed::new), value, items),
            Piece::Fraction(per_second) => {
                self.fraction = epoch_in(number(value)?, *per_second).filter(|f| *f < MICROS_PER_SECOND)?;
                return Some(());
            }
        };
        if self.whole.is_none_or(|(_, known)| known < fine) {
            self.whole = Some((time, fine));
        }
        Some(())
    }

    fn finish(self, zone: Zone) -> Option<Micros> {
        match self.whole {
            Some((time, 1)) => time.checked_add(self.fraction),
            Some((time, _)) => Some(time),
            None => resolve(&self.parts?, zone)?.checked_add(self.fraction),
        }
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|n| *n >= 0)
}

fn is_clf(field: &Field) -> bool {
    field.kind == Kind::Time(Piece::Clf)
}

fn is_request(text: &[u8]) -> bool {
    text == b"-" || split_request(text, 0, false).0.is_some()
}

/// The fields of a pattern, each with the text behind it; and the text before the first.
fn with_texts(tokens: Vec<Token>) -> (Vec<u8>, Vec<(Field, Vec<u8>)>) {
    let (mut start, mut fields) = (Vec::new(), Vec::<(Field, Vec<u8>)>::new());
    for token in tokens {
        match (token, fields.last_mut()) {
            (Token::Text(text), None) => start.extend(text),
            (Token::Text(text), Some((_, until))) => until.extend(text),
            // The query behind its path is a part of it, as in the request line.
            (Token::Field(query), Some((path, until)))
                if until.is_empty() && path.kind == Kind::Path && query.kind == Kind::Query =>
            {
                path.name = "path".to_string();
                path.written.push_str(&query.written);
            }
            (Token::Field(field), _) => fields.push((field, Vec::new())),
        }
    }
    (start, fields)
}

/// The columns of a field; the time has the first of all.
fn columns(field: &Field) -> Vec<(String, DataType)> {
    let one = |data_type: DataType| vec![(field.name.clone(), data_type)];
    match &field.kind {
        Kind::Text | Kind::Address | Kind::Path | Kind::Query => one(DataType::Utf8View),
        Kind::Number(data_type) => one(data_type.clone()),
        Kind::Status => one(DataType::Int32),
        Kind::Request => ["method", "path", "protocol"].map(|name| (name.to_string(), DataType::Utf8View)).to_vec(),
        Kind::Time(_) => vec![],
    }
}

fn nothing_between(field: &Field, next: &Field) -> Error {
    let message = format!("nothing tells where \"{}\" ends and \"{}\" begins", field.written, next.written);
    Error::new(ErrorKind::InvalidParameter, message).with_hint("Between two fields there must be some text.")
}

/// How often `text` stands in `sample`.
fn count(sample: &str, text: &[u8]) -> usize {
    memchr::memmem::find_iter(sample.as_bytes(), text).count()
}

/// Fails when the pieces of the time do not make one together.
fn check_times(steps: &[Step]) -> Result<()> {
    let pieces = || {
        steps.iter().filter_map(|step| match &step.field.kind {
            Kind::Time(piece) => Some(piece),
            _ => None,
        })
    };
    let mut parsed = Parsed::new();
    let mut known = pieces().next().is_none();
    for piece in pieces() {
        match piece {
            Piece::Clf | Piece::Iso | Piece::Epoch(_) => known = true,
            Piece::Items(items) => {
                let read = written_sample(items).and_then(|text| read_items(&mut parsed, text.as_bytes(), items));
                if read.is_none() {
                    return Err(Error::new(
                        ErrorKind::InvalidParameter,
                        "the times of the pattern contradict each other",
                    ));
                }
            }
            Piece::Fraction(_) => {}
        }
    }
    if known || resolve(&parsed, Zone::UTC).is_some() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidParameter,
        "the times of the pattern do not say year, month, day, hour and minute",
    ))
}

fn shown(text: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(text))
}
