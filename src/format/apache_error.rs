//! Error logs of Apache httpd, and of nginx: format `apache_error`.
//!
//!     2.2    [Sun Sep 09 10:42:29 2018] [error] [client 1.2.3.4] File does not exist: /x, referer: http://y
//!     2.4    [Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328] [client 1.2.3.4:80] AH00126: text
//!     nginx  2023/01/02 03:04:05 [error] 123#456: *1 text, client: 1.2.3.4, server: _, request: "GET / HTTP/1.1"
//!
//! (Apache manual, core, ErrorLogFormat; nginx manual, ngx_core_module, error_log.) The time names no zone, so it is
//! read in the zone of option `timezone`. Brackets that are none of the known ones belong to the message, as
//! modules start their messages with brackets of their own. The message is kept as the server wrote it, escapes
//! included; what is moved to a column of its own (`AH` code, referer) is taken off it.

mod line;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};

use self::line::{Entry, apache, nginx};
use super::column::{Block, Span, TextColumn, ValueColumn, finish_times};
use super::declared::Chosen;
use super::timestamp::{TIMEZONE, Zone};
use super::{Declared, Format, Malformed, Parsed, Spec, timestamp_type};
use crate::error::Result;
use crate::frame::Frames;
use crate::options::Options;
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "apache_error",
    aliases: &["nginx_error"],
    summary: "Error log of Apache 2.2 and 2.4, and of nginx",
    columns: &[
        ("ts", "timestamptz"),
        ("level", "text"),
        ("module", "text"),
        ("pid", "bigint"),
        ("tid", "bigint"),
        ("client", "text"),
        ("client_port", "int"),
        ("code", "text"),
        ("message", "text"),
        ("referer", "text"),
    ],
    options: &[TIMEZONE],
    sample: concat!(
        "[Sun Sep 09 10:42:29 2018] [error] [client 1.2.3.4] File does not exist: /x, referer: http://y\n",
        "[Fri Sep 09 10:42:29.902022 2011] [core:error] [pid 35708:tid 4328636416] [client 72.15.99.187:1234] ",
        "AH00126: Invalid URI in request GET /../ HTTP/1.1\n",
        "[Sun Dec 04 04:47:44 2005] [notice] workerEnv.init() ok /etc/httpd/conf/workers2.properties\n",
        "2023/01/02 03:04:05 [error] 123#123: *1 open() \"/x\" failed (2: No such file), client: 1.2.3.4, server: _\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

/// Parses error log lines.
struct ApacheError {
    zone: Zone,
    chosen: Chosen,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let zone = Zone::from_option(options.text(TIMEZONE.name).unwrap_or("UTC"))?;
    let field = |&(name, sql_type): &(&str, &str)| {
        let data_type = match sql_type {
            "timestamptz" => timestamp_type(),
            "int" => DataType::Int32,
            "bigint" => DataType::Int64,
            _ => DataType::Utf8View,
        };
        Field::new(name, data_type, true)
    };
    let chosen = Chosen::new(SPEC.columns.iter().map(field).collect(), declared)?;
    Ok(Box::new(ApacheError { zone, chosen }))
}

impl Format for ApacheError {
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
        for (i, line) in frames.iter().enumerate() {
            let found = match line.first() {
                None => Err("empty line"),
                Some(b'[') => apache(line, self.zone),
                Some(_) => nginx(line, self.zone),
            };
            match found {
                Ok(entry) => columns.push(&block, frames.range(i).start, line, &entry),
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason: reason.into() }),
            }
        }
        let rows = columns.ts.len();
        Parsed { rows: self.chosen.batch(&columns.finish(&block), rows), malformed }
    }
}

/// The columns of a block under construction.
struct Columns {
    ts: ValueColumn<TimestampMicrosecondType>,
    level: TextColumn,
    module: TextColumn,
    pid: ValueColumn<Int64Type>,
    tid: ValueColumn<Int64Type>,
    client: TextColumn,
    client_port: ValueColumn<Int32Type>,
    code: TextColumn,
    message: TextColumn,
    referer: TextColumn,
}

impl Columns {
    fn with_capacity(rows: usize) -> Self {
        let text = || TextColumn::with_capacity(rows);
        Columns {
            ts: ValueColumn::with_capacity(rows),
            level: text(),
            module: text(),
            pid: ValueColumn::with_capacity(rows),
            tid: ValueColumn::with_capacity(rows),
            client: text(),
            client_port: ValueColumn::with_capacity(rows),
            code: text(),
            message: text(),
            referer: text(),
        }
    }

    /// Appends the entry found in `line`, which lies at `base` in the block.
    fn push(&mut self, block: &Block<'_>, base: usize, line: &[u8], entry: &Entry<'_>) {
        let span = |part: &[u8]| {
            let start = base + (part.as_ptr() as usize - line.as_ptr() as usize);
            Span::new(start, start + part.len())
        };
        self.ts.push(entry.ts);
        self.level.push(block, span(entry.level));
        self.module.push_option(block, entry.module.map(span));
        self.pid.push_option(entry.pid);
        self.tid.push_option(entry.tid);
        self.client.push_option(block, entry.client.map(span));
        self.client_port.push_option(entry.client_port);
        self.code.push_option(block, entry.code.map(span));
        if entry.before_client.is_empty() {
            self.message.push(block, span(entry.message));
        } else {
            let (before, message) = (block.text(span(entry.before_client)), block.text(span(entry.message)));
            self.message.push_own(&format!("{before}: {message}"));
        }
        self.referer.push_option(block, entry.referer.map(span));
    }

    fn finish(self, block: &Block<'_>) -> Vec<ArrayRef> {
        vec![
            finish_times(self.ts),
            self.level.finish(block),
            self.module.finish(block),
            Arc::new(self.pid.finish()),
            Arc::new(self.tid.finish()),
            self.client.finish(block),
            Arc::new(self.client_port.finish()),
            self.code.finish(block),
            self.message.finish(block),
            self.referer.finish(block),
        ]
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::*;
    use crate::format::real_log;

    fn parse(text: &str) -> Parsed {
        crate::format::build("apache_error", &[], &[]).unwrap().parse(&Frames::from_text(text), 0)
    }

    /// The row of a line without its time, NULL as nothing.
    fn row(line: &str) -> String {
        let parsed = parse(line);
        assert_eq!(parsed.malformed, [], "{line}");
        let table = pretty_format_batches(&[parsed.rows]).unwrap().to_string();
        let cells = table.lines().nth(3).unwrap().trim_matches('|').split('|').skip(1).map(str::trim);
        cells.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn styles() {
        let t22 = "[Sun Sep 09 10:42:29 2018]";
        let t24 = "[Fri Sep 09 10:42:29.902022 2011]";
        for (line, expected) in [
            (
                format!("{t22} [error] [client 1.2.3.4] gone: /x, referer: http://y"),
                "error||||1.2.3.4|||gone: /x|http://y",
            ),
            (format!("{t22} [notice] caught SIGTERM"), "notice|||||||caught SIGTERM|"),
            (format!("{t22} [error] [client ::1] x"), "error||||::1|||x|"),
            (
                format!("{t24} [core:error] [pid 35708:tid 4328636416] [client 1.2.3.4:12] AH00126: bad URI"),
                "error|core|35708|4328636416|1.2.3.4|12|AH00126|bad URI|",
            ),
            (format!("{t24} [:error] [pid 7] [client ::1:80] x [y]"), "error||7||::1|80||x [y]|"),
            (format!("{t24} [ssl:warn] [pid 7] [client [::1]:80] [x] y"), "warn|ssl|7||::1|80||[x] y|"),
            (
                format!("{t24} [core:error] [pid 7] (13)Permission denied: [client 1.2.3.4:5] AH00035: no"),
                "error|core|7||1.2.3.4|5|AH00035|(13)Permission denied: no|",
            ),
            (
                "2023/01/02 03:04:05 [error] 12#34: *1 a: b, client: 1.2.3.4, server: _, referrer: \"r\"".to_string(),
                "error||12|34|1.2.3.4|||*1 a: b, client: 1.2.3.4, server: _, referrer: \"r\"|r",
            ),
        ] {
            assert_eq!(row(&line), expected, "{line}");
        }
    }

    #[test]
    fn reasons() {
        for (line, reason) in [
            ("[]", "the time is not like Sun Sep 09 10:42:29 2018"),
            ("[Sun Sep 09 10:42:29 2018]", "no level in brackets after the time"),
            ("[Sun Sep 09 10:42:29 2018] [a b] x", "the level is not a word"),
            ("2023/01/02 03:04:05 [error] x", "no process after the level"),
            ("hello", "no time at the start"),
        ] {
            assert_eq!(parse(line).malformed[0].reason, reason, "{line}");
        }
    }

    #[test]
    fn the_zone_is_an_option() {
        let given = [("timezone".to_string(), "+02:00".to_string())];
        let format = crate::format::build("apache_error", &given, &[]).unwrap();
        let parsed = format.parse(&Frames::from_text("[Sun May 17 12:05:03 2015] [error] x"), 0);
        let ts = arrow::array::AsArray::as_primitive::<TimestampMicrosecondType>(parsed.rows.column(0));
        assert_eq!(ts.value(0), 1_431_857_103_000_000);
        let given = [("timezone".to_string(), "Mars/Olympus".to_string())];
        assert!(crate::format::build("apache_error", &given, &[]).is_err());
    }

    #[test]
    fn real_lines() {
        let Some(log) = real_log("templates/Apache_2k.log") else { return };
        let format = crate::format::build("apache_error", &[], &[]).unwrap();
        let parsed = format.parse(&Frames::from_text(log), 0);
        assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (2000, 0));
    }
}
