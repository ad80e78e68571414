//! JSON lines: format `json`, one object on each line.
//!
//! Receives lines, hands on a column for each member name of the objects' top level; nested objects and arrays are
//! columns of their JSON text. The columns are learned: a new name is typed by all its values in the block where it
//! first appears, then the type is fixed, and the schema only ever grows at its end. What was learned depends on
//! nothing but the lines parsed so far, in order, so reading the WAL again learns the same.
//!
//! Nothing is dropped. A value that clashes with its column's type leaves the column NULL and is kept in a sibling,
//! `<name>__double` for numbers and `<name>__text` for all else. Beyond `max_columns` names, further members go to the
//! text column `_rest` as a JSON object. NULLs alone make no column.

mod cells;
mod learned;
mod members;
mod time;

use std::borrow::Cow;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;

use self::cells::{Cell, Cells, is_number};
use self::learned::{Learned, Saved};
use self::members::{Member, Value, members, unescape};
use self::time::TimeReader;
use super::column::Block;
use super::timestamp::{self, TimeFormat};
use super::typed::Kind;
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "json",
    aliases: &["jsonl", "ndjson", "json_lines"],
    summary: "One JSON object a line; columns and types are learned from the objects",
    columns: &[],
    options: &[
        OptionSpec::optional(
            "time_field",
            OptionKind::Text,
            None,
            "member that holds the event time; when not given, the first of ts, timestamp, time and the like",
        ),
        OptionSpec::optional(
            "time_format",
            OptionKind::Text,
            Some("auto"),
            "how the time is written: auto, rfc3339, epoch, clf, or a pattern such as '%Y-%m-%d %H:%M:%S'",
        ),
        OptionSpec::optional(
            "timezone",
            OptionKind::Text,
            Some("UTC"),
            "offset from UTC of times that do not say it, such as '+02:00'",
        ),
        OptionSpec::optional(
            "max_columns",
            OptionKind::Integer,
            Some("1000"),
            "most columns to make; further members go to the column _rest as JSON text",
        ),
    ],
    sample: concat!(
        "{\"ts\":\"2018-03-24T17:15:20.865716Z\",\"uid\":\"CqKst53\",\"id.orig_p\":41772,\"rtt\":0.9,\"AA\":false}\n",
        "{\"ts\":1521911720.9,\"uid\":\"C8bqc84\",\"id.orig_p\":\"http\",\"answers\":[\"a\",\"b\"],\"query\":null}\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

/// Parses JSON lines.
struct Json {
    times: TimeReader,
    max_columns: usize,
    learned: Mutex<Learned>,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let max_columns = options.integer("max_columns").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let max_columns = max_columns
        .ok_or_else(|| Error::new(ErrorKind::InvalidParameter, "option \"max_columns\" must be at least 1"))?;
    let first_time = declared.iter().find(|c| c.data_type == Kind::Time.data_type());
    let time_field = options.text("time_field").map(str::to_string).or_else(|| Some(first_time?.name.clone()));
    Ok(Box::new(Json {
        learned: Mutex::new(Learned::new(declared, time_field.as_deref())?),
        times: TimeReader {
            field: time_field,
            format: TimeFormat::from_option(options.text("time_format").unwrap_or("auto"))?,
            zone: timestamp::zone_from_option(options.text("timezone").unwrap_or("UTC"))?,
        },
        max_columns,
    }))
}

impl Format for Json {
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
        let damaged =
            |why: &str| Error::new(ErrorKind::Corrupted, format!("the columns learned before are not readable: {why}"));
        let saved: Saved = serde_json::from_value(learned.clone()).map_err(|err| damaged(&err.to_string()))?;
        self.learned.lock().recall(saved).map_err(damaged)
    }

    fn time_column(&self) -> Option<String> {
        self.learned.lock().time_column()
    }

    fn parse(&self, frames: &Frames) -> Parsed {
        let block = Block::new(frames);
        let mut learned = self.learned.lock();
        let mut cells = Cells::default();
        let mut found = Vec::new();
        let mut malformed = Vec::new();
        let mut rows = 0;
        for i in 0..frames.len() {
            let at = frames.range(i);
            let line = &frames.bytes[at.clone()];
            let time = members(line, at.start, &mut found)
                .and_then(|()| self.times.find(&block, &learned, &found).ok_or_else(|| no_time(&learned)));
            match time {
                Ok((used, time)) => {
                    self.file_row(&block, &mut learned, &mut cells, &found, (rows, used, time));
                    rows += 1;
                }
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason }),
            }
        }
        let columns = cells.finish(&block, &mut learned, &self.times, rows as usize);
        let count = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        let rows = RecordBatch::try_new_with_options(learned.schema(), columns, &count)
            .expect("each column was made for its field of the schema");
        Parsed { rows, malformed }
    }
}

impl Json {
    /// Files the members of a row under their columns, making columns for new names.
    fn file_row(
        &self,
        block: &Block<'_>,
        learned: &mut Learned,
        cells: &mut Cells,
        found: &[Member],
        (row, used, time): (u32, usize, Micros),
    ) {
        let time_column = learned.time_index(|| key_text(block, &found[used]).into_owned());
        cells.set(time_column, row, Some(Cell::Time(time)));
        let mut rest = String::new();
        let mut guess = 0; // lines mostly name their members in the same order
        for (i, member) in found.iter().enumerate() {
            let key = key_text(block, member);
            let column = learned.find(&key, guess);
            let cell = (member.value != Value::Null).then_some(Cell::Json { value: member.value, raw: member.raw });
            match (column, cell) {
                (Some(column), _) if column == time_column && i == used => guess = column + 1,
                (Some(column), Some(cell)) if column == time_column => {
                    // Not readable as a time, or not the one that was used.
                    let sibling = learned.sibling(column, is_number(&member.value));
                    cells.set(sibling, row, Some(cell));
                }
                (Some(column), cell) => {
                    guess = column + 1;
                    if column != time_column {
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
                    rest.push('"');
                    rest.push_str(&block.text(member.key));
                    rest.push_str("\":");
                    rest.push_str(&block.text(member.raw));
                }
            }
        }
        if !rest.is_empty() {
            rest.push('}');
            cells.set_rest(learned.rest_index(), row, rest);
        }
    }
}

fn key_text<'a>(block: &Block<'a>, member: &Member) -> Cow<'a, str> {
    match member.key_escaped.then(|| unescape(block.get(member.key))).flatten() {
        Some(decoded) => Cow::Owned(decoded),
        None => block.text(member.key),
    }
}

fn no_time(learned: &Learned) -> Cow<'static, str> {
    match learned.time_key() {
        Some(name) => format!("no readable time in \"{name}\"").into(),
        None => "no member with a readable time".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use arrow::datatypes::DataType;
    use arrow::util::pretty::pretty_format_batches;

    use super::*;
    use crate::format::{real_log, timestamp_type};

    fn json(given: &[(&str, &str)], declared: &[Declared]) -> Box<dyn Format> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("json", &given, declared).unwrap()
    }

    /// The rows of a block as `column=value`, without NULLs.
    fn rows(format: &dyn Format, text: &str) -> Vec<String> {
        let parsed = format.parse(&Frames::from_text(text));
        assert_eq!(parsed.rows.schema(), format.schema());
        let table = pretty_format_batches(std::slice::from_ref(&parsed.rows)).unwrap().to_string();
        let cells = |line: &str| -> Vec<String> {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect()
        };
        let names = cells(table.lines().nth(1).unwrap_or_default());
        let lines = table.lines().skip(3).take(parsed.rows.num_rows());
        let row = |line: &str| {
            let pairs = names.iter().zip(cells(line)).filter(|(_, value)| !value.is_empty());
            pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        lines.map(row).collect()
    }

    fn types(format: &dyn Format) -> Vec<String> {
        format.schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect()
    }

    const T: &str = "1970-01-01T00:00:01Z";

    #[test]
    fn types_are_learned_from_the_whole_block() {
        let format = json(&[], &[]);
        let text = concat!(
            "{\"ts\":1,\"i\":1,\"d\":2,\"b\":true,\"t\":\"x\\u00e9\",\"n\":{\"k\": [1]},\"z\":null}\n",
            "{\"n\":[ ],\"i\":-7,\"ts\":\"1970-01-01 00:00:01\",\"d\":2.5}\n",
        );
        let expected = [format!("ts={T} i=1 d=2.0 b=true t=xé n={{\"k\": [1]}}"), format!("ts={T} i=-7 d=2.5 n=[ ]")];
        assert_eq!(rows(&*format, text), expected);
        let timestamp = timestamp_type();
        let expected = [&format!("ts {timestamp}"), "i Int64", "d Float64", "b Boolean", "t Utf8View", "n Utf8View"];
        assert_eq!(types(&*format), expected);
        assert_eq!(format.time_column().as_deref(), Some("ts"));
    }

    #[test]
    fn a_clash_keeps_both_values() {
        let format = json(&[], &[]);
        rows(&*format, "{\"ts\":1,\"i\":1,\"b\":true,\"t\":\"x\"}\n");
        let text = concat!(
            "{\"ts\":1,\"i\":\"one\",\"b\":0,\"t\":5}\n",
            "{\"ts\":1,\"i\":1.5,\"b\":\"no\",\"t\":false}\n",
            "{\"ts\":1,\"i\":99999999999999999999,\"i__text\":\"mine\"}\n",
        );
        // The last line has a member of the sibling's name, so the sibling is called otherwise.
        let expected = [
            format!("ts={T} i__text_=one b__double=0.0 t__double=5.0"),
            format!("ts={T} i__double=1.5 b__text=no t__text=false"),
            format!("ts={T} i__text=mine i__text_=99999999999999999999"),
        ];
        assert_eq!(rows(&*format, text), expected);
    }

    #[test]
    fn duplicates_nulls_and_malformed() {
        let format = json(&[], &[]);
        let text = "{\"ts\":1,\"a\":1,\"a\":2,\"b\":3,\"b\":null}\n{\"a\":1}\n[]\n{\"ts\":\"x\"}\n\n{\"ts\":1\n{}\n";
        assert_eq!(rows(&*format, text), [format!("ts={T} a=2")]);
        assert_eq!(rows(&*format, "{\"ts\":1,\"b\":3}\n"), [format!("ts={T} b__double=3.0")]);
        let parsed = format.parse(&Frames::from_text(text));
        let reasons: Vec<_> = parsed.malformed.iter().map(|m| m.reason.as_ref()).collect();
        let no_time = "no readable time in \"ts\"";
        let eof = "not JSON: EOF while parsing an object at column 7";
        assert_eq!(reasons, [no_time, "not a JSON object", no_time, "empty line", eof, no_time]);
    }

    #[test]
    fn another_time_member_serves_when_none_was_named() {
        let format = json(&[], &[]);
        let text = "{\"time\":1,\"a\":1}\n{\"@timestamp\":\"1970-01-01T00:00:01Z\"}\n{\"time\":\"x\",\"ts\":1}\n";
        let expected =
            [format!("time={T} a=1"), format!("time={T} @timestamp={T}"), format!("time={T} time__text=x ts=1")];
        assert_eq!(rows(&*format, text), expected);

        let named = json(&[("time_field", "when"), ("time_format", "%d.%m.%Y %H:%M:%S")], &[]);
        assert_eq!(named.time_column().as_deref(), Some("when"));
        let text = "{\"ts\":1,\"when\":\"01.01.1970 00:00:01\"}\n{\"ts\":1}\n";
        assert_eq!(rows(&*named, text), [format!("when={T} ts=1")]);
    }

    #[test]
    fn members_beyond_the_limit_go_to_rest() {
        let format = json(&[("max_columns", "2")], &[]);
        let text = "{\"ts\":1,\"a\":1,\"b\":\"x\",\"c\":[1, 2],\"d\":null}\n{\"ts\":1,\"a\":2}\n";
        assert_eq!(
            rows(&*format, text),
            [format!("ts={T} a=1 _rest={{\"b\":\"x\",\"c\":[1, 2]}}"), format!("ts={T} a=2")]
        );
        assert!(crate::format::build("json", &[("max_columns".into(), "0".into())], &[]).is_err());
    }

    #[test]
    fn declared_columns_fix_names_and_types() {
        let declared = |name: &str, data_type| Declared { name: name.into(), data_type };
        let given =
            [declared("at", timestamp_type()), declared("status", DataType::Int16), declared("id", DataType::Utf8)];
        let format = json(&[], &given);
        assert_eq!(format.time_column().as_deref(), Some("at"));
        assert_eq!(format.schema().field(1).data_type(), &DataType::Int16);
        let text = "{\"id\":1.50,\"at\":1,\"status\":\"200\",\"new\":1}\n{\"at\":1,\"status\":70000}\n";
        let expected = [format!("at={T} status=200 id=1.50 new=1"), format!("at={T} status__double=70000.0")];
        assert_eq!(rows(&*format, text), expected);
        let wrong = [declared("ts", DataType::Int16)];
        assert!(crate::format::build("json", &[("time_field".into(), "ts".into())], &wrong).is_err());
        assert_eq!(rows(&*json(&[], &wrong), "{\"ts\":1}\n"), [format!("ts=1 ts_={T}")]);
    }

    #[test]
    fn what_is_learned_depends_on_the_order_only() {
        let lines = "{\"ts\":1,\"a\":1}\n{\"ts\":1,\"b\":\"x\"}\n";
        let (one, two) = (json(&[], &[]), json(&[], &[]));
        rows(&*one, lines);
        lines.lines().for_each(|line| drop(rows(&*two, line)));
        assert_eq!(one.schema(), two.schema());
    }

    #[test]
    fn real_logs() {
        for (name, time) in
            [("json/zeek_dns.json.gz", "ts"), ("json/zeek_weird.json.gz", "ts"), ("json/nginx_plus.json", "timestamp")]
        {
            let Some(mut log) = real_log(name) else { return };
            if name.ends_with(".gz") {
                let packed = std::mem::take(&mut log);
                flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut log).unwrap();
            }
            let frames = Frames::from_text(log);
            let format = json(&[], &[]);
            let parsed = format.parse(&frames);
            assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (frames.len(), 0), "{name}");
            assert_eq!(format.time_column().as_deref(), Some(time));
            let times = parsed.rows.column_by_name(time).unwrap();
            assert_eq!(times.null_count(), 0, "{name}");
        }
    }
}
