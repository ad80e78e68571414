//! `PREVIEW`: what a source would give. Reads its first lines, parses them and shows rows and errors next to each other;
//! nothing is created. Without a FORMAT the formats are tried and the best one is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create_stream::{AUTO, Definition, format_clause, parse_definition, record_framing};
use super::{Command, Spec, one_batch};
use crate::batch::{Event, Include, Input, MicroBatch, Shape, envelope};
use crate::engine::{ComputedDefinition, Engine, SOURCE_OPTIONS, STREAM_OPTIONS, build_format};
use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;
use crate::format::{Declared, detect};
use crate::frame::Frames;
use crate::options::Options;
use crate::position::{Position, Unit};
use crate::reach;
use crate::source::Polled;
use crate::sql::parser::{option_list, syntax, words};
use crate::sql::{Outcome, Session, pattern_files};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "PREVIEW",
    syntax: "PREVIEW (connector = '…', option = value, …) [FORMAT format | AUTO [(option = value, …)]] [LIMIT n] | PREVIEW CREATE TABLE … [LIMIT n]",
    summary: "the first rows that a source would give, with what does not parse; creates nothing. Without FORMAT, or with AUTO, it is detected",
    parse,
};

/// Lines shown unless LIMIT says otherwise, and the most it may say.
const LIMIT: usize = 20;
const MOST: usize = 10_000;

/// Lines looked at to find the format and to learn columns.
const SAMPLE: usize = 1000;

/// How long a source may take to come up with lines.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Preview {
    what: Arc<What>,
    /// Rows and notices, once they were read.
    found: Option<(RecordBatch, Vec<String>)>,
}

#[derive(Debug, Clone)]
struct What {
    connector: String,
    options: Vec<(String, String)>,
    format: Option<(String, Vec<(String, String)>)>,
    declared: Vec<Declared>,
    subtypes: Vec<(String, Subtype)>,
    includes: Vec<Include>,
    computed: Vec<ComputedDefinition>,
    time: Option<String>,
    limit: usize,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["PREVIEW"]) {
        return Ok(None);
    }
    let mut what = if parser.peek_token_ref().token == Token::LParen {
        let mut options = option_list(parser)?;
        let at = options.iter().position(|(name, _)| name == "connector");
        let connector = at.map(|i| options.remove(i).1).ok_or_else(|| {
            Error::new(Kind::InvalidParameter, "PREVIEW needs the option \"connector\"")
                .with_hint("Write PREVIEW (connector = 'file', path = '…').")
        })?;
        let format = format_clause(parser)?;
        let (declared, subtypes, includes, computed) = Default::default();
        What { connector, options, format, declared, subtypes, includes, computed, time: None, limit: LIMIT }
    } else if let Some(Definition { stream: definition, .. }) = parse_definition(parser, text)? {
        What {
            connector: definition.connector.ok_or_else(|| {
                Error::new(Kind::InvalidParameter, "without a connector there is nothing to read yet")
                    .with_hint("Write WITH (connector = 'file', path = '…').")
            })?,
            options: definition.options,
            format: Some((definition.format, definition.format_options)),
            declared: definition.declared,
            subtypes: definition.subtypes,
            includes: definition.includes,
            computed: definition.computed,
            time: definition.watermark.map(|(column, _)| column),
            limit: LIMIT,
        }
    } else {
        let found = parser.peek_token_ref().to_string();
        return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
            .with_hint(format!("The form is: {}", SPEC.syntax)));
    };
    if words(parser, &["LIMIT"]) {
        let limit = parser.parse_literal_uint().map_err(|e| syntax(&e))?;
        what.limit = usize::try_from(limit).unwrap_or(MOST).clamp(1, MOST);
    }
    Ok(Some(Arc::new(Preview { what: Arc::new(what), found: None })))
}

impl Command for Preview {
    fn prepare<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Option<Arc<dyn Command>>>> {
        Box::pin(self.prepared(session))
    }

    fn fields(&self) -> Option<SchemaRef> {
        self.found.as_ref().map(|(rows, _)| rows.schema())
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Preview {
    /// The columns depend on what is in the source: it is read first.
    async fn prepared(&self, session: &Session) -> Result<Option<Arc<dyn Command>>> {
        session.check_options(&self.what.options)?;
        let (what, now) = (Arc::clone(&self.what), session.engine().clock().now());
        let reading = tokio::task::spawn_blocking({
            let (what, engine, bounds) = (Arc::clone(&what), Arc::clone(session.engine()), reach::bounds());
            move || reach::with(bounds, || what.read(&engine, now))
        });
        let found = reading.await.map_err(|e| Error::internal(format!("reading the source failed: {e}")))?;
        let found = found.map_err(|err| session.better(err))?;
        Ok(Some(Arc::new(Preview { what, found: Some(found) })))
    }

    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        match &self.found {
            Some((rows, notices)) => Ok(Outcome::NoticedRows(one_batch(rows.clone()), notices.clone())),
            None => match self.prepare(session).await? {
                Some(ready) => ready.run(session).await,
                None => Ok(Outcome::Empty),
            },
        }
    }
}

impl What {
    fn read(&self, engine: &Engine, now: Micros) -> Result<(RecordBatch, Vec<String>)> {
        let mut blocks = first_lines(&self.connector, &self.options, &self.includes, self.limit.max(SAMPLE))?;
        let mut notices = Vec::new();
        let (name, options) = self.format.clone().unwrap_or((AUTO.to_string(), Vec::new()));
        let name = if name == AUTO { detected(&blocks, &mut notices)? } else { name };
        let options = pattern_files::inlined(&name, options)?;
        let format = build_format(&name, &options, &self.declared, &self.computed, self.time.as_deref())?;
        if let Some((option, start)) = record_framing(&self.connector, &self.options, &*format)? {
            notices.push(format!("records of format {name} go over several lines: {option} = '{start}'"));
            let mut options = self.options.clone();
            options.push((option.to_string(), start));
            blocks = first_lines(&self.connector, &options, &self.includes, self.limit.max(SAMPLE))?;
        }
        let computed = engine.plan_computed(&self.computed, &*format, &self.includes)?;
        let shape = Shape::computing(format, self.includes.clone(), computed, self.time.clone())?;
        let shape = shape.with_subtypes(self.subtypes.clone());
        let mut batches = Vec::new();
        let mut base = 0;
        for (frames, position) in blocks {
            let count = frames.len() as u64;
            batches.push(shape.rows(&Input { base, ingest_time: now, position, frames, event: Event::Frames })?);
            base += count;
        }
        let (rows, malformed) = batches.iter().fold((0, 0), |(rows, malformed), batch| {
            (rows + batch.rows.num_rows(), malformed + batch.malformed.as_ref().map_or(0, RecordBatch::num_rows))
        });
        notices.push(format!("format {name} reads {rows} of {} lines", rows + malformed));
        Ok((table(&batches, &shape.schema(), self.limit)?, notices))
    }
}

/// The first lines of a source, with what is to be `included`.
pub fn first_lines(
    connector: &str,
    options: &[(String, String)],
    included: &[Include],
    wanted: usize,
) -> Result<Vec<(Frames, Position)>> {
    let spec = crate::source::find(connector)?;
    let owner = format!("connector \"{}\"", spec.name);
    let options = Options::parse(&owner, &[spec.options, SOURCE_OPTIONS, STREAM_OPTIONS], options)?;
    let mut source = (spec.build)(&options)?;
    source.include(&included.iter().map(|include| include.kind).collect::<Vec<_>>());
    source.resume(Vec::new())?;
    source.mark()?;
    let (began, mut blocks, mut count) = (Instant::now(), Vec::new(), 0);
    while count < wanted {
        match source.poll()? {
            Polled::Frames(frames, position) => {
                let frames = frames.first(wanted - count);
                count += frames.len();
                blocks.push((frames, position));
            }
            Polled::End => break,
            Polled::Idle if source.reached() || began.elapsed() > PATIENCE => break,
            Polled::Idle => std::thread::sleep(Duration::from_millis(10)),
            Polled::Gone { .. } => {}
        }
    }
    if let (Some(problem), true) = (source.take_warnings().pop(), blocks.is_empty()) {
        return Err(problem);
    }
    Ok(blocks)
}

/// The format that reads most lines of the first block, and what each reads.
pub fn detected(blocks: &[(Frames, Position)], notices: &mut Vec<String>) -> Result<String> {
    let frames = match blocks.first() {
        Some((frames, position)) if position.unit == Unit::Enveloped => envelope::open(frames).0,
        Some((frames, _)) => frames.clone(),
        None => Frames::default(),
    };
    let found = detect::detect(&frames)?;
    let trials = detect::trials(&frames)?;
    notices.push(format!("detected format {}; lines read: {}", found.format, detect::list(&trials)));
    Ok(found.format.to_string())
}

/// Rows and malformed lines in the order of the source.
fn table(batches: &[MicroBatch], columns: &SchemaRef, limit: usize) -> Result<RecordBatch> {
    let mut fields: Vec<Field> = columns.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    fields.push(Field::new("_error", DataType::Utf8, true));
    fields.push(Field::new("_raw", DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields));
    let mut parts = Vec::new();
    let mut left = limit;
    for batch in batches {
        let frames = (batch.frames as usize).min(left);
        left -= frames;
        // The row or malformed line of each frame.
        let offsets = batch.malformed.as_ref().and_then(|m| m.column_by_name("offset").map(Arc::clone));
        let offsets = offsets.map_or_else(Vec::new, |o| o.as_primitive::<Int64Type>().values().to_vec());
        let (mut rows, mut malformed) = (Vec::with_capacity(frames), Vec::with_capacity(frames));
        let (mut row, mut bad) = (0u32, 0u32);
        for frame in 0..frames as i64 {
            if offsets.get(bad as usize) == Some(&(batch.base as i64 + frame)) {
                rows.push(None);
                malformed.push(Some(bad));
                bad += 1;
            } else {
                rows.push(Some(row));
                malformed.push(None);
                row += 1;
            }
        }
        let fitting = crate::batch::fit(&batch.rows, columns)?;
        let rows = UInt32Array::from(rows);
        let mut values = Vec::with_capacity(schema.fields().len());
        for column in fitting.columns() {
            values.push(take(column, &rows, None)?);
        }
        let malformed = UInt32Array::from(malformed);
        for name in ["reason", "raw"] {
            let column: ArrayRef = match batch.malformed.as_ref().and_then(|m| m.column_by_name(name)) {
                Some(column) => take(column, &malformed, None)?,
                None => Arc::new(StringArray::new_null(frames)),
            };
            values.push(column);
        }
        parts.push(RecordBatch::try_new(Arc::clone(&schema), values)?);
    }
    Ok(arrow::compute::concat_batches(&schema, &parts)?)
}
