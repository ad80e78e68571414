//! Lines as they are: format `raw`, one column `message`.
//!
//! It finds no time in the line. The time at which lines came in can be their event time:
//! `INCLUDE ingest_time AS ts`, and `WATERMARK FOR ts AS ts` to say so.

use arrow::datatypes::{DataType, Field, SchemaRef};

use super::column::{Block, Span, TextColumn};
use super::declared::Chosen;
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::Result;
use crate::frame::Frames;
use crate::options::Options;
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "raw",
    aliases: &["text", "line"],
    summary: "Any line, as it is; with INCLUDE ingest_time it has a time",
    columns: &[("message", "text")],
    options: &[],
    sample: "hello\n\tworld \n",
    sample_options: &[],
    build,
    detectable: false,
};

struct Raw {
    chosen: Chosen,
}

fn build(_: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let chosen = Chosen::new(vec![Field::new("message", DataType::Utf8View, true)], declared)?;
    Ok(Box::new(Raw { chosen }))
}

impl Format for Raw {
    fn schema(&self) -> SchemaRef {
        self.chosen.schema.clone()
    }

    fn time_column(&self) -> Option<String> {
        None
    }

    fn parse(&self, frames: &Frames, _: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut message = TextColumn::with_capacity(frames.len());
        let mut malformed = Vec::new();
        for i in 0..frames.len() {
            let at = frames.range(i);
            if at.is_empty() {
                malformed.push(Malformed { frame: i as u32, reason: "empty line".into() });
            } else {
                message.push(&block, Span::new(at.start, at.end));
            }
        }
        let rows = message.len();
        Parsed { rows: self.chosen.batch(&[message.finish(&block)], rows), malformed }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn lines_are_kept_as_they_are() {
        let parsed =
            crate::format::build("raw", &[], &[]).unwrap().parse(&Frames::from_text(&b" a\tb \r\n\n\xff\n"[..]), 0);
        let lines: Vec<_> = parsed.rows.column(0).as_string_view().iter().flatten().collect();
        assert_eq!(lines, [" a\tb ", "\u{fffd}"]);
        assert_eq!(parsed.malformed, [Malformed { frame: 1, reason: "empty line".into() }]);
    }
}
