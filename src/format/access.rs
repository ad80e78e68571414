//! Access logs of Apache, nginx and most other web servers: formats `combined` and `common`.
//!
//!     client ident user [17/May/2015:10:05:03 +0000] "GET /path HTTP/1.1" 200 203023 "referer" "user agent"
//!
//! (Apache manual, mod_log_config; `common` ends after the size.) This is the format that most logs have, so its parser
//! is the fastest path of the engine: one pass over the bytes with vectorised searches for the delimiters, no regular
//! expression, no allocation for a line, strings left where they are. Always holds: a line fills a row completely or is
//! malformed with a reason; it never fills half a row, because its fields are found before any column is touched.
//!
//! `-` is NULL. Quoted values may hold escapes (`\"`, `\\`, `\xHH`), which are decoded. A request that is not
//! `METHOD target PROTOCOL` (scans, HTTP/0.9, TLS sent to a plain port) keeps its text in `path`, with NULL in `method`
//! and `protocol`.

mod line;
pub mod pattern;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};

pub use self::line::unescape;
use self::line::{Line, Quoted, scan};
use super::column::{Block, TextColumn, ValueColumn, finish_times};
use super::declared::Chosen;
use super::timestamp::ClfReader;
use super::{Declared, Format, Malformed, Parsed, Spec, timestamp_type};
use crate::error::Result;
use crate::frame::Frames;
use crate::options::Options;
use crate::time::Micros;

pub static COMBINED: Spec = Spec {
    name: "combined",
    aliases: &["apache_combined", "nginx"],
    summary: "Access log of Apache and nginx with referer and user agent",
    columns: COLUMNS,
    options: &[],
    sample: concat!(
        "83.149.9.216 - - [17/May/2015:10:05:03 +0000] \"GET /images/search.png HTTP/1.1\" 200 203023 ",
        "\"http://semicomplete.com/presentations/\" \"Mozilla/5.0 (X11; Linux x86_64)\"\n",
        "::1 - frank [17/May/2015:12:05:04 +0200] \"POST /login HTTP/2.0\" 302 - \"-\" \"curl/8.5 \\\"x\\\"\"\n",
        "10.0.0.7 - - [17/May/2015:10:05:05 +0000] \"\\x16\\x03\\x01\" 400 166 \"-\" \"-\"\n",
    ),
    sample_options: &[],
    build: |options, declared| build(true, options, declared),
    detectable: true,
};

pub static COMMON: Spec = Spec {
    name: "common",
    aliases: &["clf", "apache_common"],
    summary: "Access log in common log format, without referer and user agent",
    columns: COLUMNS.split_at(COMMON_COLUMNS).0,
    options: &[],
    sample: concat!(
        "uplherc.upl.com - - [01/Aug/1995:00:00:07 -0400] \"GET / HTTP/1.0\" 304 0\n",
        "columbia.acc.brad.ac.uk - - [01/Aug/1995:00:34:55 -0400] \"GET /ksc.html\" 200 7280\n",
    ),
    sample_options: &[],
    build: |options, declared| build(false, options, declared),
    detectable: true,
};

const COLUMNS: &[(&str, &str)] = &[
    ("ts", "timestamptz"),
    ("client", "text"),
    ("ident", "text"),
    ("remote_user", "text"),
    ("method", "text"),
    ("path", "text"),
    ("protocol", "text"),
    ("status", "int"),
    ("bytes", "bigint"),
    ("referer", "text"),
    ("user_agent", "text"),
];
const COMMON_COLUMNS: usize = COLUMNS.len() - 2;

/// Parses access log lines.
struct Access {
    combined: bool,
    chosen: Chosen,
}

fn build(combined: bool, _: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let columns = if combined { COLUMNS } else { &COLUMNS[..COMMON_COLUMNS] };
    let field = |&(name, sql_type): &(&str, &str)| {
        let data_type = match sql_type {
            "timestamptz" => timestamp_type(),
            "int" => DataType::Int32,
            "bigint" => DataType::Int64,
            _ => DataType::Utf8View,
        };
        Field::new(name, data_type, true)
    };
    let chosen = Chosen::new(columns.iter().map(field).collect(), declared)?;
    Ok(Box::new(Access { combined, chosen }))
}

impl Format for Access {
    fn schema(&self) -> SchemaRef {
        self.chosen.schema.clone()
    }

    fn time_column(&self) -> Option<String> {
        self.chosen.time_column("ts")
    }

    fn parse(&self, frames: &Frames, _: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut columns = Columns::with_capacity(frames.len());
        let mut malformed = Vec::new();
        let mut clock = ClfReader::default();
        for i in 0..frames.len() {
            let at = frames.range(i);
            match scan(&frames.bytes[at.clone()], at.start, self.combined, &mut clock) {
                Ok(line) => columns.push(&block, &line),
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason: reason.into() }),
            }
        }
        let rows = columns.ts.len();
        let columns = columns.finish(&block, self.combined);
        Parsed { rows: self.chosen.batch(&columns, rows), malformed }
    }
}

/// The columns of a block under construction.
struct Columns {
    ts: ValueColumn<TimestampMicrosecondType>,
    client: TextColumn,
    ident: TextColumn,
    user: TextColumn,
    method: TextColumn,
    path: TextColumn,
    protocol: TextColumn,
    status: ValueColumn<Int32Type>,
    bytes: ValueColumn<Int64Type>,
    referer: TextColumn,
    agent: TextColumn,
}

impl Columns {
    fn with_capacity(rows: usize) -> Self {
        let text = || TextColumn::with_capacity(rows);
        Columns {
            ts: ValueColumn::with_capacity(rows),
            client: text(),
            ident: text(),
            user: text(),
            method: text(),
            path: text(),
            protocol: text(),
            status: ValueColumn::with_capacity(rows),
            bytes: ValueColumn::with_capacity(rows),
            referer: text(),
            agent: text(),
        }
    }

    #[inline]
    fn push(&mut self, block: &Block<'_>, line: &Line) {
        self.ts.push(line.ts);
        self.client.push_option(block, line.client);
        self.ident.push_option(block, line.ident);
        self.user.push_option(block, line.user);
        self.method.push_option(block, line.method);
        push_quoted(&mut self.path, block, line.path);
        self.protocol.push_option(block, line.protocol);
        self.status.push_option(line.status);
        self.bytes.push_option(line.bytes);
        push_quoted(&mut self.referer, block, line.referer);
        push_quoted(&mut self.agent, block, line.agent);
    }

    fn finish(self, block: &Block<'_>, combined: bool) -> Vec<ArrayRef> {
        let mut columns = vec![
            finish_times(self.ts),
            self.client.finish(block),
            self.ident.finish(block),
            self.user.finish(block),
            self.method.finish(block),
            self.path.finish(block),
            self.protocol.finish(block),
            Arc::new(self.status.finish()),
            Arc::new(self.bytes.finish()),
        ];
        if combined {
            columns.extend([self.referer.finish(block), self.agent.finish(block)]);
        }
        columns
    }
}

#[inline]
fn push_quoted(column: &mut TextColumn, block: &Block<'_>, field: Option<Quoted>) {
    match field {
        None => column.push_null(),
        Some(Quoted { span, escaped: false }) => column.push(block, span),
        Some(Quoted { span, escaped: true }) => match unescape(block.get(span)) {
            Some(text) => column.push_own(&text),
            None => column.push(block, span),
        },
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, StringViewArray};
    use arrow::compute::sum;

    use super::*;
    use crate::format::real_log;

    fn parse(format: &str, text: impl Into<Vec<u8>>) -> Parsed {
        crate::format::build(format, &[], &[]).unwrap().parse(&Frames::from_text(text), 0)
    }

    fn texts<'a>(parsed: &'a Parsed, column: &str) -> &'a StringViewArray {
        parsed.rows.column_by_name(column).unwrap().as_string_view()
    }

    #[test]
    fn apache_log() {
        let Some(log) = real_log("access/apache_combined_10k.log") else { return };
        let parsed = parse("combined", log);
        assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (9999, 1));
        assert_eq!(parsed.malformed[0].reason, "the user agent has no closing quote");
        let status = parsed.rows.column_by_name("status").unwrap().as_primitive::<Int32Type>();
        for (code, count) in [(200, 9125), (304, 445), (404, 213), (301, 164), (206, 45), (500, 3), (403, 2), (416, 2)]
        {
            assert_eq!(status.iter().filter(|s| *s == Some(code)).count(), count, "status {code}");
        }
        let bytes = parsed.rows.column_by_name("bytes").unwrap().as_primitive::<Int64Type>();
        assert_eq!(sum(bytes), Some(2_747_282_505));
        let ts = parsed.rows.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(ts.value(0), 1_431_857_103_000_000);
        parsed.rows.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    }

    #[test]
    fn nginx_log_with_fragments() {
        let Some(log) = real_log("access/nginx_combined_fragments.log") else { return };
        let parsed = parse("combined", log);
        assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (10_394, 5_881));
    }

    #[test]
    fn common_log_of_1995() {
        let Some(log) = real_log("access/nasa_common_2k.log") else { return };
        let parsed = parse("common", log);
        assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (2000, 0));
        assert_eq!(texts(&parsed, "method").null_count(), 7);
        assert_eq!(parsed.rows.num_columns(), COMMON_COLUMNS);
    }

    #[test]
    fn escapes_are_decoded_where_they_are_text() {
        let parsed = parse("combined", COMBINED.sample);
        assert_eq!(texts(&parsed, "user_agent").iter().collect::<Vec<_>>()[1..], [Some("curl/8.5 \"x\""), None]);
        assert_eq!(texts(&parsed, "path").value(2), "\u{16}\u{3}\u{1}");
        assert_eq!(texts(&parsed, "remote_user").iter().collect::<Vec<_>>(), [None, Some("frank"), None]);
    }

    #[test]
    fn invalid_utf8_is_repaired_in_its_row_only() {
        let line = |path: &[u8]| {
            [b"c - - [17/May/2015:10:05:03 +0000] \"GET /a/long/path/", path, b" HTTP/1.1\" 200 1\r\n"].concat()
        };
        let parsed = parse("common", [line(b"caf\xe9"), line("café".as_bytes()), line(b"\0")].concat());
        let paths: Vec<_> = texts(&parsed, "path").iter().flatten().collect();
        assert_eq!(paths, ["/a/long/path/caf\u{fffd}", "/a/long/path/café", "/a/long/path/\0"]);
    }

    #[test]
    fn declared_columns_are_a_choice() {
        let declared = |name: &str, data_type| Declared { name: name.into(), data_type };
        let given = [declared("bytes", DataType::Utf8), declared("ts", timestamp_type())];
        let format = crate::format::build("common", &[], &given).unwrap();
        assert_eq!(format.time_column().as_deref(), Some("ts"));
        let parsed = format.parse(&Frames::from_text(COMMON.sample), 0);
        assert_eq!(parsed.rows.column(0).as_string::<i32>().value(1), "7280");

        let err = |given: Declared| crate::format::build("common", &[], &[given]).err().unwrap();
        assert_eq!(err(declared("statuss", DataType::Int32)).hint(), Some("Did you mean \"status\"?"));
        assert_eq!(err(declared("bytes", DataType::Int32)).kind(), crate::error::Kind::Datatype);
    }
}
