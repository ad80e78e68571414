//! Text fields of a line, found by a pattern, as typed columns: what the formats share whose columns are known before
//! any input (regex, access).
//!
//! Receives the names that a pattern gives its fields and the options and declarations that say their types; then, line
//! by line, what was found. Always holds: a line fills a row completely or not at all, because all of its fields are read
//! before a column is touched. `-` and nothing are NULL in columns that are not text.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Declared;
use super::column::{Block, Span};
use super::timestamp::Times;
use super::typed::{Kind, Scalar, TypedColumn, fits, read_bool, read_int, type_by_name};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::options::{self, OptionKind, OptionSpec, Options};

/// The options that give fields their types; with [`super::timestamp`]'s for the times among them.
pub const TYPES: OptionSpec = OptionSpec::optional(
    "types",
    OptionKind::Text,
    None,
    "types of columns, such as 'ts timestamptz, status int, took double'; a declared column has its declared type",
);
pub const TIME_FIELD: OptionSpec = OptionSpec::optional(
    "time_field",
    OptionKind::Text,
    None,
    "column of the event time; when not given, the first of type timestamptz, or ts, timestamp or time",
);

const TIME_FIELDS: &[&str] = &["ts", "timestamp", "time"];

/// A field that a pattern names.
#[derive(Debug, Clone)]
pub struct Known {
    pub name: String,
    /// Where the pattern has it: what [`Rows::push`] asks for.
    pub source: usize,
    /// When the user says nothing of its type. None: text, or the event time if it is called so.
    pub data_type: Option<DataType>,
}

/// The columns that fields become.
pub struct Fields {
    columns: Vec<Column>,
    schema: SchemaRef,
    time_column: Option<String>,
    times: Times,
    /// The text that an escaped field stands for; `None` where it stays as it is written.
    decode: fn(&[u8]) -> Option<String>,
}

struct Column {
    name: String,
    source: usize,
    kind: Kind,
    data_type: DataType,
}

/// What is found in a line.
#[derive(Debug, Clone, Copy)]
pub enum Found {
    Text(Span),
    /// Text with escapes.
    Escaped(Span),
    /// A value that the pattern read itself; its column must be of that kind.
    Scalar(Scalar),
}

impl Fields {
    /// `what` the pattern calls a field, for errors: "group". Fails when an option or a declaration names none, or gives
    /// it a type that text cannot be read as.
    pub fn new(what: &str, known: &[Known], options: &Options, declared: &[Declared]) -> Result<Fields> {
        let names = || known.iter().map(|k| k.name.as_str());
        let find = |name: &str, whose: &str| {
            known.iter().find(|k| k.name == name).ok_or_else(|| {
                options::unknown(&format!("{what} {whose}"), name, names())
                    .with_detail(format!("There are: {}.", options::list(names())))
            })
        };
        let mut types = types_option(options)?;
        for given in &types {
            find(&given.name, "in option \"types\":")?;
        }
        types.extend_from_slice(declared); // later entries win
        let type_of = |name: &str| types.iter().rev().find(|t| t.name == name).map(|t| t.data_type.clone());
        let type_of = |known: &Known| type_of(&known.name).or_else(|| known.data_type.clone());

        let time_column = match options.text(TIME_FIELD.name) {
            Some(name) => Some(find(name, "in option \"time_field\":")?),
            None => {
                let typed = known.iter().find(|k| type_of(k).is_some_and(|t| t == Kind::Time.data_type()));
                let called = |name: &&str| known.iter().find(|k| k.name == **name && type_of(k).is_none());
                typed.or_else(|| TIME_FIELDS.iter().find_map(called))
            }
        };
        let time_column = time_column.map(|k| k.name.clone());

        let chosen: Vec<&Known> = match declared {
            [] => known.iter().collect(),
            declared => declared.iter().map(|c| find(&c.name, "for column")).collect::<Result<_>>()?,
        };
        let column = |known: &Known| -> Result<Column> {
            let default = if time_column.as_ref() == Some(&known.name) { Kind::Time } else { Kind::Text };
            let data_type = type_of(known).unwrap_or(default.data_type());
            let kind = Kind::of(&known.name, &data_type)?;
            Ok(Column { name: known.name.clone(), source: known.source, kind, data_type })
        };
        let columns = chosen.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let field = |c: &Column| Field::new(&c.name, c.data_type.clone(), true);
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let is_time = |name: &String| columns.iter().any(|c| c.name == *name && c.data_type == Kind::Time.data_type());
        Ok(Fields {
            time_column: time_column.filter(is_time),
            times: Times::from_options(options)?,
            decode: |_| None,
            columns,
            schema,
        })
    }

    /// With escapes decoded by `decode`.
    pub fn decoding(self, decode: fn(&[u8]) -> Option<String>) -> Fields {
        Fields { decode, ..self }
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub fn time_column(&self) -> Option<String> {
        self.time_column.clone()
    }

    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Begins the rows of a block of at most `capacity` lines.
    pub fn rows(&self, capacity: usize) -> Rows<'_> {
        let columns = self.columns.iter().map(|c| TypedColumn::with_capacity(c.kind, capacity)).collect();
        Rows { fields: self, columns, values: Vec::with_capacity(self.columns.len()), count: 0 }
    }

    fn read(&self, block: &Block<'_>, column: &Column, found: Found) -> Result<Option<Found>, Cow<'static, str>> {
        let span = match found {
            Found::Text(_) | Found::Escaped(_) if column.kind == Kind::Text => return Ok(Some(found)),
            Found::Text(span) | Found::Escaped(span) => span,
            Found::Scalar(_) => return Ok(Some(found)),
        };
        let bytes = block.get(span);
        if matches!(bytes, b"" | b"-") {
            return Ok(None);
        }
        let text = || std::str::from_utf8(bytes).ok().map(str::trim);
        let scalar = match column.kind {
            Kind::Time => self.times.read(bytes).map(Scalar::Time),
            Kind::Int => read_int(bytes).filter(|n| fits(&column.data_type, *n)).map(Scalar::Int),
            Kind::Double => text().and_then(|t| t.parse().ok()).map(Scalar::Double),
            Kind::Bool => text().and_then(read_bool).map(Scalar::Bool),
            Kind::Text => None,
        };
        match scalar {
            Some(scalar) => Ok(Some(Found::Scalar(scalar))),
            None => Err(format!("{} is not {}", column.name, noun(column.kind)).into()),
        }
    }
}

/// Rows of a block under construction.
pub struct Rows<'a> {
    fields: &'a Fields,
    columns: Vec<TypedColumn>,
    /// The row at hand.
    values: Vec<Option<Found>>,
    count: usize,
}

impl Rows<'_> {
    /// Adds the row of a line; `found` says what there is of each source, `None` for NULL. Says which field does not read
    /// as its type, and then adds nothing.
    #[inline]
    pub fn push(&mut self, block: &Block<'_>, found: impl Fn(usize) -> Option<Found>) -> Result<(), Cow<'static, str>> {
        self.values.clear();
        for column in &self.fields.columns {
            let value = match found(column.source) {
                Some(found) => self.fields.read(block, column, found)?,
                None => None,
            };
            self.values.push(value);
        }
        self.count += 1;
        for (column, value) in self.columns.iter_mut().zip(&self.values) {
            match (column, *value) {
                (TypedColumn::Text(column), Some(Found::Text(span))) => column.push(block, span),
                (TypedColumn::Text(column), Some(Found::Escaped(span))) => {
                    match (self.fields.decode)(block.get(span)) {
                        Some(text) => column.push_own(&text),
                        None => column.push(block, span),
                    }
                }
                (column, Some(Found::Scalar(scalar))) => column.push(scalar),
                (column, _) => column.fill(self.count),
            }
        }
        Ok(())
    }

    pub fn finish(self, block: &Block<'_>) -> RecordBatch {
        let columns = self.columns.into_iter().zip(&self.fields.columns);
        let arrays: Vec<ArrayRef> = columns.map(|(array, c)| array.finish(block, &c.data_type)).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(self.count));
        RecordBatch::try_new_with_options(self.fields.schema.clone(), arrays, &count)
            .expect("columns were made for this schema")
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

/// The columns that the option `types` gives a type.
pub fn types_option(options: &Options) -> Result<Vec<Declared>> {
    let entries = options.text(TYPES.name).unwrap_or_default().split(',').map(str::trim).filter(|e| !e.is_empty());
    let entry = |entry: &str| {
        let (name, sql_type) = entry.split_once(char::is_whitespace).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("option \"types\": \"{entry}\" has no type"))
                .with_hint("Write it like 'status int, took double'.")
        })?;
        Ok(Declared { name: name.to_string(), data_type: type_by_name(sql_type)? })
    };
    entries.map(entry).collect()
}
