//! Logs that Java programs write with log4j, logback or what follows their patterns. Format `log4j`.
//!
//!     [2016-12-20 00:00:36,888] INFO Deleting segment 912806 from log test-1. (kafka.log.Log)
//!     2015-07-29 17:41:44,747 WARN  [main] o.a.z.Server - closed
//!     java.io.IOException: Connection reset
//!         at org.apache.zookeeper.Server.run(Server.java:93)
//!
//! Option `pattern` is the conversion pattern from the logger's configuration; without it the usual ones of
//! [`PATTERNS`] are tried, in that order, for each line. A frame may hold several lines: the message goes on until a stack
//! trace begins (or, where the pattern has fields behind the message, until they stand at the end of a line), and all
//! that follows is in `stack_trace`, as it was written. With one line a frame, the lines of a stack trace are malformed.

mod java_time;
mod pattern;
mod record;

use arrow::datatypes::{Field as ArrowField, SchemaRef};

use self::pattern::{Field, Pattern};
use self::record::{Entry, Fields, Misfit, read, whole};
use super::column::{Block, Span};
use super::declared::Chosen;
use super::layout::{Layout, Place};
use super::rows::Rows;
use super::timestamp::{TIMEZONE, Zone};
use super::typed::{Kind, Scalar};
use super::yearless::Years;
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::Result;
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "log4j",
    aliases: &["log4j2", "logback"],
    summary: "Logs of Java programs by their conversion pattern, with stack traces. Without a pattern, those of Kafka, ZooKeeper, Hadoop, Spark, Spring Boot, WildFly, Elasticsearch, Cassandra, Tomcat and the usual ones of log4j, logback and Python are tried",
    columns: &[
        ("ts", "timestamptz"),
        ("level", "text"),
        ("pid", "bigint"),
        ("thread", "text"),
        ("logger", "text"),
        ("class", "text"),
        ("file", "text"),
        ("line", "bigint"),
        ("message", "text"),
        ("stack_trace", "text"),
    ],
    options: &[
        OptionSpec::optional(
            "pattern",
            OptionKind::Text,
            None,
            "the conversion pattern of the logger, such as '%d{yyyy-MM-dd HH:mm:ss,SSS} %-5p [%t] %c{1.} - %m%n'",
        ),
        TIMEZONE,
    ],
    sample: concat!(
        "[2016-12-20 00:00:36,888] INFO Deleting segment 912806 from log test-1. (kafka.log.Log)\n",
        "2026-07-29 17:41:44,747 WARN  [main] o.a.z.Server - connection closed\n",
        "java.io.IOException: Connection reset\n",
        "\tat org.apache.zookeeper.Server.run(Server.java:93)\n",
        "2026-05-20T10:00:00.123+02:00  INFO 4711 --- [           main] c.e.shop.App : Started in 1.9 seconds\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

const STACK_TRACE: &str = "stack_trace";

/// What programs use unless told otherwise, and what most people tell them.
const PATTERNS: &[&str] = &[
    "[%d] %p %m (%c)%n",                            // Kafka
    "[%d][%p][%c] %m%n",                            // Elasticsearch
    "%d - %p [%t:%C@%L] - %m%n",                    // ZooKeeper
    "%d %p %pid --- [%t] %c : %m%n",                // Spring Boot
    "%d %p [%t] %c - %m%n",                         // log4j, by its manual
    "%d [%t] %p %c - %m%n",                         // logback, by its manual
    "%d %p [%c] (%t) %m%n",                         // WildFly, Quarkus
    "%d %p [%t] %c : %m%n",                         // the same with colons
    "%d %p %c: %m%n",                               // Hadoop
    "%d - %c - %p - %m%n",                          // Python, by its manual
    "%d{yy/MM/dd HH:mm:ss} %p %c: %m%n",            // Spark
    "%d{yyMMdd HHmmss} %t %p %c: %m%n",             // Hadoop, long ago
    "%p [%t] %d %F:%L - %m%n",                      // Cassandra
    "%d{dd-MMM-yyyy HH:mm:ss.SSS} %p [%t] %c %m%n", // Tomcat
];

/// How lines of the usual patterns begin: with one of their times, or with a level and a thread.
const RECORD_START: &str =
    r"^\[?(?:\d{4}-\d\d-\d\d[T ]\d\d:|\d\d/\d\d/\d\d \d\d:|\d{6} \d{6} |\d\d-[A-Z][a-z]{2}-\d{4} )|^[A-Z]{4,5} +\[";

/// All columns there can be but those of the context, in their order, with their types.
const COLUMNS: &[(&str, Kind)] = &[
    ("ts", Kind::Time),
    ("level", Kind::Text),
    ("pid", Kind::Int),
    ("thread_id", Kind::Int),
    ("thread", Kind::Text),
    ("logger", Kind::Text),
    ("class", Kind::Text),
    ("method", Kind::Text),
    ("file", Kind::Text),
    ("line", Kind::Int),
    ("location", Kind::Text),
    ("sequence", Kind::Int),
    ("elapsed_ms", Kind::Int),
    ("marker", Kind::Text),
    ("uuid", Kind::Text),
    ("ndc", Kind::Text),
    ("context_name", Kind::Text),
    ("context", Kind::Text),
];

/// Parses records by conversion patterns.
struct Log4j {
    patterns: Vec<Compiled>,
    /// The last two are those of the message and of the stack trace.
    columns: Vec<(String, Kind)>,
    zone: Zone,
    chosen: Chosen,
}

/// A pattern, and the column of each of its fields.
struct Compiled {
    pattern: Pattern,
    left: Vec<usize>,
    right: Vec<usize>,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let patterns: Vec<Pattern> = match options.text("pattern") {
        Some(pattern) => vec![Pattern::compile(pattern)?],
        None => PATTERNS.iter().map(|pattern| Pattern::compile(pattern)).collect::<Result<_>>()?,
    };
    let fields = || patterns.iter().flat_map(Pattern::fields);
    let has = |name: &str| fields().any(|field| field.column() == name);
    let known = COLUMNS.iter().filter(|(name, _)| has(name));
    let mut columns: Vec<(String, Kind)> = known.map(|(name, kind)| (name.to_string(), *kind)).collect();
    for field in fields() {
        if columns.iter().all(|(name, _)| name != field.column()) {
            columns.push((field.column().to_string(), Kind::Text)); // a key of the context
        }
    }
    columns.extend(["message", STACK_TRACE].map(|name| (name.to_string(), Kind::Text)));
    let index = |layout: &Layout<Field>| -> Vec<usize> {
        let place = |field: &Field| columns.iter().position(|(name, _)| name == field.column());
        layout.parts.iter().filter_map(|part| place(&part.field)).collect()
    };
    let compiled = |pattern: Pattern| {
        let (left, right) = (index(&pattern.left), index(&pattern.right));
        Compiled { pattern, left, right }
    };
    let patterns = patterns.into_iter().map(compiled).collect();
    let field = |(name, kind): &(String, Kind)| ArrowField::new(name, kind.data_type(), true);
    Ok(Box::new(Log4j {
        zone: Zone::from_option(options.text(TIMEZONE.name).unwrap_or("UTC"))?,
        chosen: Chosen::new(columns.iter().map(field).collect(), declared)?,
        patterns,
        columns,
    }))
}

impl Format for Log4j {
    fn schema(&self) -> SchemaRef {
        self.chosen.schema.clone()
    }

    fn time_column(&self) -> Option<String> {
        self.chosen.time_column("ts")
    }

    fn record_start(&self) -> Option<String> {
        Some(match self.patterns.as_slice() {
            [only] => only.pattern.start(),
            _ => RECORD_START.to_string(),
        })
    }

    fn parse(&self, frames: &Frames, received: Micros) -> Parsed {
        let block = Block::new(frames);
        let years = Years::new(received, self.zone, None);
        let mut rows = Rows::new(&block, self.columns.iter().map(|(_, kind)| *kind), frames.len());
        let mut malformed = Vec::new();
        let mut entry = Entry::default();
        for (i, record) in frames.iter().enumerate() {
            let found = match record {
                [] => Err("empty line"),
                _ => self.read(record, &years, &mut entry),
            };
            match found {
                Ok(pattern) => self.push(&mut rows, pattern, record, frames.range(i).start, &entry),
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason: reason.into() }),
            }
        }
        Parsed { rows: rows.finish(&self.chosen), malformed }
    }
}

impl Log4j {
    /// Fills `entry` by the first pattern that fits, and returns it.
    fn read(&self, record: &[u8], years: &Years, entry: &mut Entry) -> Result<&Compiled, &'static str> {
        let mut reason =
            if self.patterns.len() > 1 { "none of the usual patterns fits" } else { "the pattern does not fit" };
        for compiled in &self.patterns {
            match read(&compiled.pattern, record, Fields { zone: self.zone, years, ts: None, to_end: false }, entry) {
                Ok(()) => return Ok(compiled),
                Err(Misfit::Left) => {}
                Err(Misfit::Right) => reason = "the fields behind the message are missing",
            }
        }
        Err(reason)
    }

    /// Adds the row of a record that lies at `base` in the block.
    fn push(&self, rows: &mut Rows<'_>, compiled: &Compiled, record: &[u8], base: usize, entry: &Entry) {
        let span = |place: &Place| Span::new(base + place.start, base + place.end);
        let sides = [
            (&compiled.pattern.left, &compiled.left, &entry.left),
            (&compiled.pattern.right, &compiled.right, &entry.right),
        ];
        for (layout, columns, places) in sides {
            for ((part, column), place) in layout.parts.iter().zip(columns).zip(places) {
                match part.field {
                    Field::Time(..) => {
                        if let Some(ts) = entry.ts {
                            rows.value(*column, Scalar::Time(ts));
                        }
                    }
                    Field::Level | Field::Text(_) | Field::Name(_) => rows.text(*column, span(place)),
                    Field::Number(_) => {
                        if let Some(number) = whole(&record[place.clone()]) {
                            rows.value(*column, Scalar::Int(number));
                        }
                    }
                }
            }
        }
        let message = self.columns.len() - 2;
        for (column, place) in [(message, &entry.message), (message + 1, &entry.stack_trace)] {
            if let Some(place) = place {
                rows.text(column, span(place));
            }
        }
        rows.end_row();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, StringViewArray};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    use super::*;
    use crate::format::{joined, real_log};

    fn log4j(options: &[(&str, &str)]) -> Box<dyn Format> {
        let given: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("log4j", &given, &[]).unwrap()
    }

    fn texts<'a>(parsed: &'a Parsed, column: &str) -> &'a StringViewArray {
        parsed.rows.column_by_name(column).unwrap().as_string_view()
    }

    /// A record as `column=value`, without NULLs and without the time.
    fn row(options: &[(&str, &str)], record: &str) -> String {
        let parsed = log4j(options).parse(&Frames::from_records([record]), 0);
        assert_eq!(parsed.malformed, [], "{record}");
        let text = |column: &dyn Array| {
            column
                .as_string_view_opt()
                .map(|c| c.value(0).to_string())
                .unwrap_or_else(|| column.as_primitive::<Int64Type>().value(0).to_string())
        };
        let schema = parsed.rows.schema();
        let cells = schema.fields().iter().zip(parsed.rows.columns()).skip(1).filter(|(_, c)| c.is_valid(0));
        cells.map(|(field, column)| format!("{}={}", field.name(), text(column))).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn the_usual_patterns() {
        for (line, expected) in [
            (
                "[2016-12-20 00:00:36,888] INFO a (b) c. (kafka.log.Log)",
                "level=INFO|logger=kafka.log.Log|message=a (b) c.",
            ),
            (
                "[2024-05-20T10:00:00,123][WARN ][o.e.n.Node       ] [n1] x",
                "level=WARN|logger=o.e.n.Node|message=[n1] x",
            ),
            (
                "2015-07-29 17:41:44,747 - INFO  [QuorumPeer[myid=1]/0:0:0:0:0:0:0:0:2181:Leader@774] - Time: 3",
                "level=INFO|thread=QuorumPeer[myid=1]/0:0:0:0:0:0:0:0:2181|class=Leader|line=774|message=Time: 3",
            ),
            (
                "2024-05-20T10:00:00.123+02:00  INFO 1 --- [     main] c.e.App      : Started - ok",
                "level=INFO|pid=1|thread=main|logger=c.e.App|message=Started - ok",
            ),
            ("2024-05-20 10:00:00,1 DEBUG [a] b.C - d - e", "level=DEBUG|thread=a|logger=b.C|message=d - e"),
            ("2024-05-20 10:00:00.123 [a-1] ERROR b.C - d", "level=ERROR|thread=a-1|logger=b.C|message=d"),
            (
                "2024-05-20 10:00:00,123 INFO  [io.quarkus] (main) x",
                "level=INFO|thread=main|logger=io.quarkus|message=x",
            ),
            (
                "2025-01-24T07:00:30,139 INFO [b-p   ] Version  : HV: 1",
                "level=INFO|thread=b-p|logger=Version|message=HV: 1",
            ),
            ("2015-10-17 15:37:56,547 INFO org.a.B: x: y", "level=INFO|logger=org.a.B|message=x: y"),
            ("2020-12-10 06:56:41,061 - a.b - WARNING - x - y", "level=WARNING|logger=a.b|message=x - y"),
            ("17/06/09 20:10:40 INFO executor.X: Registered", "level=INFO|logger=executor.X|message=Registered"),
            ("081109 203615 148 INFO dfs.X$Y: Got: z", "level=INFO|thread=148|logger=dfs.X$Y|message=Got: z"),
            (
                "INFO  [main] 2015-07-29 17:41:41,536 A.java:12 - x",
                "level=INFO|thread=main|file=A.java|line=12|message=x",
            ),
            (
                "31-Jul-2020 16:40:38.578 INFO [main] org.a.B.c Start x",
                "level=INFO|thread=main|logger=org.a.B.c|message=Start x",
            ),
        ] {
            assert_eq!(row(&[], line), expected, "{line}");
            let start = regex::Regex::new(&log4j(&[]).record_start().unwrap()).unwrap();
            assert!(start.is_match(line), "{line}");
        }
    }

    #[test]
    fn messages_and_stack_traces() {
        let trace = "java.io.IOException: gone\r\n\tat a.B.c(B.java:1)\n\t... 3 more";
        let entry = "2024-05-20 10:00:00,1 WARN [a] b.C - failed";
        let start = "level=WARN|thread=a|logger=b.C|message=failed";
        for (more, expected) in [
            (format!("\r\n{trace}\n"), format!("{start}|stack_trace={trace}")),
            (format!("\n with\n details\n\n{trace}"), format!("{start}\n with\n details|stack_trace={trace}")),
            ("\n\tat a.B.c(B.java:1)".into(), format!("{start}|stack_trace=\tat a.B.c(B.java:1)")),
            ("\n a: 1\n at: 2".into(), format!("{start}\n a: 1\n at: 2")),
        ] {
            assert_eq!(row(&[], &format!("{entry}{more}")), expected);
        }
        let kafka = "[2016-12-20 00:00:36,888] INFO values:\n\ta = 1\n\tb = 2\n (kafka.server.X)\nmore";
        assert_eq!(
            row(&[], kafka),
            "level=INFO|logger=kafka.server.X|message=values:\n\ta = 1\n\tb = 2|stack_trace=more"
        );
    }

    #[test]
    fn a_pattern_of_ones_own() {
        let pattern = ("pattern", "%d{dd.MM.yyyy HH:mm} %X{user} %r %m <%marker>%n");
        let given = [pattern, ("timezone", "Europe/Berlin")];
        assert_eq!(row(&given, "20.05.2024 12:30 joe 17 a <b> <c>"), "elapsed_ms=17|marker=c|user=joe|message=a <b>");
        let parsed =
            log4j(&given).parse(&Frames::from_text("20.05.2024 12:30 joe 17 a\nx\n\n20.05.2024 12:30 j 1 a <c>"), 0);
        let reasons: Vec<&str> = parsed.malformed.iter().map(|m| m.reason.as_ref()).collect();
        assert_eq!(reasons, ["the fields behind the message are missing", "the pattern does not fit", "empty line"]);
        assert_eq!(parsed.rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), 1_716_201_000_000_000);
    }

    #[test]
    fn the_zone_may_stand_in_the_pattern() {
        let utc = |pattern: &str, line: &str| {
            let given = [("pattern", pattern), ("timezone", "America/New_York")];
            let parsed = log4j(&given).parse(&Frames::from_text(line), 1_716_201_000_000_000);
            assert_eq!(parsed.malformed, [], "{pattern}");
            parsed.rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0) - 1_716_201_000_000_000
        };
        for (pattern, line) in [
            ("%d %m", "2024-05-20 06:30:00,000 x"),
            ("%d{ISO8601}{UTC} %m", "2024-05-20 10:30:00,000 x"),
            ("%d{MMM dd HH:mm}{GMT} %m", "May 20 10:30 x"),
            ("%d{dd.MM.yyyy HH:mm}{Europe/Berlin} %m", "20.05.2024 12:30 x"),
            ("%d{dd.MM.yyyy HH:mm}{GMT+05:30} %m", "20.05.2024 16:00 x"),
            ("%d{dd.MM.yyyy HH:mm}{GMT-3} %m", "20.05.2024 07:30 x"),
        ] {
            assert_eq!(utc(pattern, line), 0, "{pattern}");
        }
        let err = crate::format::build("log4j", &[("pattern".into(), "%d{ISO8601}{Mars} %m".into())], &[]).err();
        assert!(err.unwrap().message().contains("Mars"));
    }

    #[test]
    fn kafka_log() {
        let Some(log) = real_log("multiline/kafka_server_log4j.log") else { return };
        let format = log4j(&[]);
        let frames = joined(&*format, &Frames::from_text(log));
        let parsed = format.parse(&frames, 0);
        assert_eq!((frames.len(), parsed.malformed.as_slice()), (2496, &[][..]));
        assert_eq!(texts(&parsed, "logger").null_count(), 0);
        assert_eq!(texts(&parsed, "stack_trace").len() - texts(&parsed, "stack_trace").null_count(), 1);
        let (message, trace) = (texts(&parsed, "message"), texts(&parsed, "stack_trace"));
        let config = message.iter().flatten().find(|m| m.starts_with("KafkaConfig values")).unwrap();
        assert!(config.ends_with("zookeeper.sync.time.ms = 2000") && config.lines().count() > 100);
        let trace = trace.iter().flatten().next().unwrap();
        assert!(
            trace.starts_with("java.io.IOException: Connection to 2 was disconnected") && trace.ends_with(")"),
            "{trace}"
        );
    }

    #[test]
    fn other_real_logs() {
        for (name, rows) in [
            ("templates/Zookeeper_2k.log", 2000),
            ("templates/Spark_2k.log", 2000),
            ("templates/HDFS_2k.log", 2000),
            ("formats/lnav/logfile_java.0", 20),
            ("formats/lnav/logfile_spark.0", 399),
        ] {
            let Some(log) = real_log(name) else { continue };
            let parsed = log4j(&[]).parse(&Frames::from_text(log), 0);
            assert_eq!((parsed.rows.num_rows(), parsed.malformed.as_slice()), (rows, &[][..]), "{name}");
        }
    }
}
