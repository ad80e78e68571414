//! Lines of named values: rows of the columns that their names are.
//!
//! A [`Syntax`] finds the members of a line; here they are filed under their columns. Beyond `max_columns` names,
//! further members go to the text column `_rest` as a JSON object.

use std::borrow::Cow;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;

use super::cells::{Cell, Cells, Reading};
use super::learned::{Learned, Saved};
use super::time::{self, TIME_FIELDS, TimeField};
use super::value::{Decode, Value};
use crate::error::Result;
use crate::format::column::{Block, Span};
use crate::format::fields::types_option;
use crate::format::timestamp::Times;
use crate::format::typed::Kind;
use crate::format::{Declared, Format, Malformed, Parsed};
use crate::frame::Frames;
use crate::options::Options;
use crate::time::Micros;

/// How lines of a format write named values.
pub trait Syntax: Decode + Send + Sync {
    /// Fills `found` with the members of `line`, which lies at `base` in its block; or says why it has none.
    fn members(&self, line: &[u8], base: usize, found: &mut Vec<Member>) -> Result<(), Cow<'static, str>>;

    /// The name of a [`Key::Given`].
    fn given(&self, _index: usize) -> &str {
        ""
    }

    /// Whether keys and values are written as JSON has them.
    const JSON: bool;
}

/// One member of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member {
    pub key: Key,
    pub value: Value,
    /// The value as it is written, quotes included.
    pub raw: Span,
}

/// What a member is called.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Key {
    Plain(Span),
    Escaped(Span),
    /// A name that does not stand in the line.
    Given(usize),
}

/// Parses lines of named values.
pub struct Objects<S> {
    syntax: S,
    time_field: TimeField,
    times: Times,
    max_columns: usize,
    learned: Mutex<Learned>,
}

impl<S: Syntax> Objects<S> {
    /// With the options `time_field`, `time_format`, `timezone`, `types` and `max_columns`, or those of them that the
    /// format takes.
    pub fn new(syntax: S, options: &Options, declared: &[Declared]) -> Result<Objects<S>> {
        let types = types_option(options)?;
        let all = declared.iter().chain(&types);
        let first_time = all.into_iter().find(|c| c.data_type == Kind::Time.data_type()).map(|c| c.name.as_str());
        let time_field = TimeField::from_options(options, first_time);
        Ok(Objects {
            learned: Mutex::new(Learned::new(declared, &types, time_field.name())?),
            times: Times::from_options(options)?,
            max_columns: super::max_columns(options)?,
            time_field,
            syntax,
        })
    }

    fn reading(&self) -> Reading<'_> {
        Reading { times: &self.times, texts: &self.syntax }
    }

    /// The member that says the row's time, and the time. Where the user named no member, a line without the learned one
    /// may say its time under another name.
    fn find_time(&self, block: &Block<'_>, learned: &Learned, found: &[Member]) -> Option<(usize, Micros)> {
        let reading = self.reading();
        let read = |index: usize| Some((index, time::read(&reading, block, found[index].value)?));
        let with_name =
            |name: &str| found.iter().rposition(|m| self.key_bytes(block, m.key) == name.as_bytes()).and_then(read);
        if let Some(time) = learned.time_key().and_then(with_name) {
            return Some(time);
        }
        if self.time_field != TimeField::Any {
            return None;
        }
        let named =
            |member: &Member, name: &str| self.key_bytes(block, member.key).eq_ignore_ascii_case(name.as_bytes());
        TIME_FIELDS.iter().find_map(|name| found.iter().rposition(|m| named(m, name)).and_then(read))
    }

    /// Files the members of a row under their columns, making columns for new names. `time` is the member that says the
    /// row's time, and the time.
    fn file_row(
        &self,
        block: &Block<'_>,
        learned: &mut Learned,
        cells: &mut Cells,
        found: &[Member],
        (row, time): (u32, Option<(usize, Micros)>),
    ) {
        let (used, time_column) = match time {
            Some((used, time)) => {
                let column = learned.time_index(|| self.key_text(block, found[used].key).into_owned());
                cells.set(column, row, Some(Cell::Time(time)));
                (Some(used), Some(column))
            }
            None => (None, None),
        };
        let mut rest = String::new();
        let mut guess = 0; // lines mostly name their members in the same order
        for (i, member) in found.iter().enumerate() {
            let key = self.key_text(block, member.key);
            let column = learned.find(&key, guess);
            let cell = (member.value != Value::Null).then_some(Cell::Value(member.value, member.raw));
            match (column, cell) {
                (Some(column), _) if Some(column) == time_column && Some(i) == used => guess = column + 1,
                (Some(column), Some(cell)) if Some(column) == time_column => {
                    // Not readable as a time, or not the one that was used.
                    let sibling = learned.sibling(column, member.value.is_number(block));
                    cells.set(sibling, row, Some(cell));
                }
                (Some(column), cell) => {
                    guess = column + 1;
                    if Some(column) != time_column {
                        cells.set(column, row, cell);
                    }
                }
                (None, None) => {}
                (None, Some(cell)) if learned.keys() < self.max_columns => {
                    let column = learned.add(&key);
                    guess = column + 1;
                    cells.set(column, row, Some(cell));
                }
                (None, Some(_)) => {
                    rest.push(if rest.is_empty() { '{' } else { ',' });
                    self.write_json(block, member, &mut rest);
                }
            }
        }
        if !rest.is_empty() {
            rest.push('}');
            cells.set_rest(learned.rest_index(), row, rest);
        }
    }

    fn write_json(&self, block: &Block<'_>, member: &Member, text: &mut String) {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match member.key {
            Key::Plain(span) | Key::Escaped(span) if S::JSON => {
                text.push('"');
                text.push_str(&block.text(span));
                text.push('"');
            }
            key => text.push_str(&quoted(&self.key_text(block, key))),
        }
        text.push(':');
        match member.value.resolved(block) {
            Value::Text { span, escaped } if !S::JSON => {
                let decoded = escaped.then(|| self.syntax.decode(block.get(span))).flatten();
                text.push_str(&quoted(&decoded.map_or_else(|| block.text(span), Cow::Owned)));
            }
            Value::Bool(value) => text.push_str(if value { "true" } else { "false" }),
            _ => text.push_str(&block.text(member.raw)),
        }
    }

    /// As it is written: names of times have no escapes.
    fn key_bytes<'a>(&'a self, block: &Block<'a>, key: Key) -> &'a [u8] {
        match key {
            Key::Plain(span) | Key::Escaped(span) => block.get(span),
            Key::Given(index) => self.syntax.given(index).as_bytes(),
        }
    }

    fn key_text<'a>(&'a self, block: &Block<'a>, key: Key) -> Cow<'a, str> {
        match key {
            Key::Plain(span) => block.text(span),
            Key::Escaped(span) => self.syntax.decode(block.get(span)).map_or_else(|| block.text(span), Cow::Owned),
            Key::Given(index) => Cow::Borrowed(self.syntax.given(index)),
        }
    }
}

impl<S: Syntax> Format for Objects<S> {
    fn schema(&self) -> SchemaRef {
        self.learned.lock().schema()
    }

    fn learns(&self) -> bool {
        true
    }

    fn learned(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.learned.lock().save()).ok()
    }

    fn recall(&self, learned: &serde_json::Value) -> Result<()> {
        self.learned.lock().recall(super::saved::<Saved>(learned)?).map_err(super::damaged)
    }

    fn time_column(&self) -> Option<String> {
        self.learned.lock().time_column()
    }

    fn parse(&self, frames: &Frames, _: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut learned = self.learned.lock();
        let mut cells = Cells::default();
        let mut found = Vec::new();
        let mut malformed = Vec::new();
        let mut rows = 0;
        for i in 0..frames.len() {
            let at = frames.range(i);
            let line = &frames.bytes[at.clone()];
            let time = self.syntax.members(line, at.start, &mut found).and_then(|()| match self.time_field {
                TimeField::None => Ok(None),
                TimeField::Any | TimeField::Named(_) => {
                    self.find_time(&block, &learned, &found).map(Some).ok_or_else(|| no_time(&learned))
                }
            });
            match time {
                Ok(time) => {
                    self.file_row(&block, &mut learned, &mut cells, &found, (rows, time));
                    rows += 1;
                }
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason }),
            }
        }
        let columns = cells.finish(&block, &mut learned, &self.reading(), rows as usize);
        let count = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        let rows = RecordBatch::try_new_with_options(learned.schema(), columns, &count)
            .expect("each column was made for its field of the schema");
        Parsed { rows, malformed }
    }
}

fn no_time(learned: &Learned) -> Cow<'static, str> {
    match learned.time_key() {
        Some(name) => format!("no readable time in \"{name}\"").into(),
        None => "no member with a readable time".into(),
    }
}
