//! Lines of values under a header line: rows of the columns that the header names.
//!
//! A [`Syntax`] cuts a line into its values; here they are filed under their columns. A header is learned where it stands
//! ([`super::headers`]), so files with other columns, or with the same in another order, may follow each other. Header
//! lines are no rows: they are counted as malformed with the reason [`HEADER_LINE`], so that no line goes unaccounted.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::cells::{Cell, Cells, Reading};
use super::days::{self, Days, Today};
use super::headers::{self, Headers};
use super::layout::{Layout, Naming, TimeAt, distinct, place_of};
use super::learned::{self, Learned};
use super::time;
use super::value::{Decode, Value, read_word};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::format::column::{Block, Span};
use crate::format::fields::types_option;
use crate::format::timestamp::{Times, Zone, auto, time_of_day};
use crate::format::{DIRECTIVE, Declared, Format, HEADER_LINE, Malformed, Origin, Parsed};
use crate::frame::Frames;
use crate::options::{Options, unknown};
use crate::time::{MICROS_PER_SECOND, Micros};

type Header = headers::Header<Layout>;

/// How lines of a format write values.
pub trait Syntax: Decode + Send + Sync {
    /// Says what `line`, which lies at `base` in its block, is; fills `values` if it has values.
    fn split(&self, line: &[u8], base: usize, values: &mut Vec<Value>) -> Result<Line, Cow<'static, str>>;
}

/// What a line is.
pub enum Line {
    Values,
    /// Names of the values of the lines below.
    Header(Vec<String>),
    /// A remark.
    Directive,
    /// A remark that says the date of the lines below it: when it was, as clocks showed it, in microseconds since 1970.
    Dated(Micros),
}

/// What a format says of its tables.
#[derive(Default)]
pub struct Rules {
    /// What the user called the values, in their order; a header line then says nothing.
    pub names: Option<Vec<String>>,
    /// Names that hold until a header says otherwise.
    pub names_at_first: Option<Vec<String>>,
    /// Whether a header is not told from values by how it is written, but by its place: the first line of a file.
    pub headed: bool,
    /// Whether the types of columns are learned from their values, or are text.
    pub infer: bool,
    /// Types by name, for columns whose type the user does not say.
    pub types: Vec<Declared>,
}

/// Parses lines of values.
pub struct Table<S> {
    // fixed
    syntax: S,
    headed: bool,
    naming: Naming,
    times: Times,
    names: Option<Arc<Header>>,
    // state
    state: Mutex<State>,
}

struct State {
    learned: Learned,
    headers: Headers<Layout>,
    days: Days,
}

/// What a checkpoint keeps of it.
#[derive(Serialize, Deserialize)]
struct Saved {
    columns: learned::Saved,
    headers: headers::Saved,
    #[serde(default)]
    days: days::Saved,
}

impl<S: Syntax> Table<S> {
    /// With the options `time_field`, `time_format`, `timezone`, `types`, `max_columns` and `max_headers`.
    pub fn new(syntax: S, rules: Rules, options: &Options, declared: &[Declared]) -> Result<Table<S>> {
        let types: Vec<Declared> = rules.types.into_iter().chain(types_option(options)?).collect();
        let naming = Naming::new(options, declared, &types, rules.infer, super::max_columns(options)?);
        if let (Some(names), Some(field)) = (&rules.names, naming.time_field.name())
            && place_of(names, field).is_none()
        {
            return Err(unknown("column for the event time:", field, names.iter().map(String::as_str)));
        }
        let mut learned = Learned::new(declared, &types, naming.time_field.name())?;
        let mut header = |names: Vec<String>| {
            if !naming.has_room(&names, &learned) {
                let message = format!("{} columns are more than max_columns allows", names.len());
                return Err(Error::new(ErrorKind::InvalidParameter, message));
            }
            Ok(Header { layout: naming.layout(&names, &mut learned), names })
        };
        let max_headers = super::max_headers(options)?;
        let mut headers = Headers::new(max_headers);
        if let Some(names) = rules.names_at_first {
            headers.note("", 0, header(names)?);
        }
        let names = rules.names.map(header).transpose()?.map(Arc::new);
        let (headed, times) = (rules.headed, Times::from_options(options)?);
        let state = Mutex::new(State { learned, headers, days: Days::new(max_headers) });
        Ok(Table { syntax, headed, naming, times, names, state })
    }

    fn reading(&self) -> Reading<'_> {
        Reading { times: &self.times, texts: &self.syntax }
    }

    /// Takes in a header line, and says why it is no row.
    fn take_header(
        &self,
        names: Vec<String>,
        (partition, offset): (&str, u64),
        (learned, headers): (&mut Learned, &mut Headers<Layout>),
        above: &mut Option<Arc<Header>>,
    ) -> Cow<'static, str> {
        if self.names.is_some() {
            return HEADER_LINE.into();
        }
        if !self.naming.has_room(&names, learned) {
            return "header line with more columns than max_columns allows".into();
        }
        let header = Header { layout: self.naming.layout(&names, learned), names };
        let (header, forgot) = headers.note(partition, offset, header);
        let header = above.insert(header);
        match self.naming.lacking(&header.names, &header.layout) {
            lacking if !lacking.is_empty() => {
                format!("header line without the declared columns: {}", lacking.join(", ")).into()
            }
            _ if forgot => "header line for which the oldest one was forgotten, as max_headers has it".into(),
            _ => HEADER_LINE.into(),
        }
    }

    /// The time of a row at `offset`; or why the values are no row.
    fn time(
        &self,
        block: &Block<'_>,
        header: &Header,
        values: &[Value],
        (today, offset): (&mut Today<'_>, u64),
    ) -> Result<Option<Micros>, Cow<'static, str>> {
        let (wanted, found) = (header.names.len(), values.len());
        if wanted != found {
            return Err(format!("{found} values for {wanted} columns").into());
        }
        let (time, name) = match &header.layout.time {
            TimeAt::Nowhere => return Ok(None),
            TimeAt::Missing(name) => return Err(format!("the header has no column \"{name}\" for the time").into()),
            TimeAt::One(index) => match (time::read(&self.reading(), block, values[*index]), values[*index]) {
                (None, Value::Word(span)) => match clock(block.get(span)) {
                    Some(time) => {
                        let without_date = || {
                            let name = &header.names[*index];
                            format!("\"{name}\" is a time of day, and no line above says the date")
                        };
                        (self.times.zone.instant(today.at(offset, time).ok_or_else(without_date)?), *index)
                    }
                    None => (None, *index),
                },
                (time, _) => (time, *index),
            },
            TimeAt::Two(date, time) => (self.date_and_time(block, values[*date], values[*time]), *time),
        };
        time.map(Some).ok_or_else(|| format!("no readable time in \"{}\"", header.names[name]).into())
    }

    fn date_and_time(&self, block: &Block<'_>, date: Value, time: Value) -> Option<Micros> {
        let (Value::Word(date), Value::Word(time)) = (date, time) else { return None };
        // Mostly they stand side by side.
        if date.end + 1 == time.start && block.get(Span { start: date.end, end: time.start }) == b" " {
            return self.times.read(block.get(Span { start: date.start, end: time.end }));
        }
        self.times.read(&[block.get(date), b" ", block.get(time)].concat())
    }
}

impl<S: Syntax> Format for Table<S> {
    fn schema(&self) -> SchemaRef {
        self.state.lock().learned.schema()
    }

    fn learns(&self) -> bool {
        true
    }

    fn learned(&self) -> Option<serde_json::Value> {
        let State { learned, headers, days } = &mut *self.state.lock();
        serde_json::to_value(Saved { columns: learned.save(), headers: headers.save(), days: days.save() }).ok()
    }

    fn recall(&self, learned: &serde_json::Value) -> Result<()> {
        let saved: Saved = super::saved(learned)?;
        let State { learned, headers, days } = &mut *self.state.lock();
        learned.recall(saved.columns).map_err(super::damaged)?;
        headers.recall(saved.headers, |names| self.naming.layout(names, learned));
        days.recall(saved.days);
        Ok(())
    }

    fn time_column(&self) -> Option<String> {
        self.state.lock().learned.time_column()
    }

    fn needs_order(&self) -> bool {
        self.names.is_none()
    }

    fn parse(&self, frames: &Frames, received: Micros) -> Parsed {
        self.parse_at(frames, received, Origin::ALONE)
    }

    fn parse_at(&self, frames: &Frames, _: Micros, origin: Origin<'_>) -> Parsed {
        let block = Block::new(frames);
        let State { learned, headers, days } = &mut *self.state.lock();
        let mut header = self.names.clone().or_else(|| headers.above(origin.partition, origin.offset));
        let mut today = days.today(origin.partition, origin.offset);
        let mut expecting = self.headed && (origin.start || header.is_none());
        let mut cells = Cells::default();
        let mut values = Vec::new();
        let mut malformed = Vec::new();
        let mut rows: u32 = 0;
        for i in 0..frames.len() {
            let mut no_row = |reason| malformed.push(Malformed { frame: i as u32, reason });
            let offset = origin.offset + i as u64;
            let at = frames.range(i);
            if at.is_empty() {
                no_row("empty line".into());
                continue;
            }
            values.clear();
            let names = match self.syntax.split(&frames.bytes[at.clone()], at.start, &mut values) {
                Ok(Line::Values) if self.headed => names_in(&block, &values, header.as_deref(), expecting),
                Ok(Line::Values) => None,
                Ok(Line::Header(names)) => Some(names),
                Ok(Line::Directive) => {
                    no_row(DIRECTIVE.into());
                    continue;
                }
                Ok(Line::Dated(local)) => {
                    today.directed(offset, local);
                    no_row(DIRECTIVE.into());
                    continue;
                }
                Err(reason) => {
                    no_row(reason);
                    continue;
                }
            };
            if let Some(names) = names {
                expecting = false;
                let known = (&mut *learned, &mut *headers);
                no_row(self.take_header(names, (origin.partition, offset), known, &mut header));
                continue;
            }
            let Some(header) = &header else {
                no_row("no header line above it".into());
                continue;
            };
            match self.time(&block, header, &values, (&mut today, offset)) {
                Ok(time) => {
                    expecting = false;
                    file_row(&mut cells, rows, &header.layout, &values, time);
                    rows += 1;
                }
                Err(reason) => no_row(reason),
            }
        }
        today.leave();
        let columns = cells.finish(&block, learned, &self.reading(), rows as usize);
        let count = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        let rows = RecordBatch::try_new_with_options(learned.schema(), columns, &count)
            .expect("each column was made for its field of the schema");
        Parsed { rows, malformed }
    }
}

/// A time of day and nothing else, in microseconds.
fn clock(text: &[u8]) -> Option<Micros> {
    let ([hour, minute, second, micros], b"") = time_of_day(text)? else { return None };
    let inside = hour < 24 && minute < 60 && second <= 60;
    inside.then(|| i64::from(hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND + i64::from(micros))
}

#[inline]
fn file_row(cells: &mut Cells, row: u32, layout: &Layout, values: &[Value], time: Option<Micros>) {
    if let Some(time) = time {
        cells.set(layout.time_column, row, Some(Cell::Time(time)));
    }
    for (value, column) in values.iter().zip(&layout.columns) {
        if let (Some(column), Some(span)) = (column, span_of(*value)) {
            cells.set(*column, row, Some(Cell::Value(*value, span)));
        }
    }
}

/// The names in a line of values, if it is a header: the one above once more, or one that is expected and can be one.
fn names_in(block: &Block<'_>, values: &[Value], above: Option<&Header>, expecting: bool) -> Option<Vec<String>> {
    let first = span_of(*values.first()?);
    let begins = |above: &Header| first.is_some_and(|first| above.names[0].as_bytes() == block.get(first));
    let repeated = above.is_some_and(begins);
    if !repeated && !expecting {
        return None;
    }
    let text = |value: &Value| span_of(*value).map_or(Cow::Borrowed(""), |span| block.text(span));
    let names = distinct(values.iter().map(text));
    if repeated && above.is_some_and(|above| above.names == names) {
        return Some(names);
    }
    // Values of logs are mostly times and numbers, and names never are.
    let is_name = |name: &String| read_word(name.as_bytes()).is_none() && auto(name.as_bytes(), Zone::UTC).is_none();
    (expecting && names.len() > 1 && names.iter().all(is_name)).then_some(names)
}

/// Where a value of a table is written; `None` for NULL.
#[inline]
fn span_of(value: Value) -> Option<Span> {
    match value {
        Value::Word(span) | Value::Text { span, .. } => Some(span),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Flag | Value::Nested | Value::Big => {
            None
        }
    }
}
