//! Server logs of PostgreSQL, as `log_destination = stderr` writes them. Format `postgres`.
//!
//!     2024-06-27 00:00:07.123 CEST [58151] ERROR:  relation "x" does not exist at character 15
//!     2024-06-27 00:00:07.123 CEST [58151] STATEMENT:  SELECT *
//!             FROM x
//!
//! Option `log_line_prefix` is the server's setting; without it the usual ones of [`PREFIXES`] are tried, in that order.
//! The server writes a message and its DETAIL, HINT, CONTEXT, STATEMENT in one go, each with the prefix: a frame that
//! holds them all is one row, where each has its column. In a frame of its own, as with one line a frame, such a section
//! is a row whose severity is its name and whose message is NULL. The tab with which the server indents further lines is
//! taken off. How long a statement took, where the message says it, is in `duration_ms`, and the statement that it names in
//! `statement`, so that slow queries are a WHERE clause; the message stays as it is.

mod line;
mod prefix;

use arrow::datatypes::{Field as ArrowField, SchemaRef};
use memchr::{memchr, memmem};

use self::line::{BEHIND_SEVERITY, Fields, read_time, section, severity, split_port, timing, whole};
use self::prefix::{CLIENT_PORT, Field};
use super::column::{Block, Span};
use super::declared::Chosen;
use super::layout::{Layout, Place};
use super::rows::Rows;
use super::timestamp::{TIMEZONE, Zone};
use super::typed::{Kind, Scalar};
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::Result;
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "postgres",
    aliases: &["postgresql"],
    summary: "Server log of PostgreSQL; a message with its detail, hint, context and statement is one row when a frame holds them all",
    columns: &[
        ("ts", "timestamptz"),
        ("severity", "text"),
        ("pid", "bigint"),
        ("session_line", "bigint"),
        ("user_name", "text"),
        ("database", "text"),
        ("application", "text"),
        ("client", "text"),
        ("client_port", "bigint"),
        ("duration_ms", "double"),
        ("message", "text"),
        ("detail", "text"),
        ("hint", "text"),
        ("query", "text"),
        ("context", "text"),
        ("statement", "text"),
        ("location", "text"),
    ],
    options: &[
        OptionSpec::optional(
            "log_line_prefix",
            OptionKind::Text,
            None,
            "the server's setting of that name, such as '%m [%p] %q%u@%d '; when not given, the usual ones are tried",
        ),
        OptionSpec::optional(
            TIMEZONE.name,
            OptionKind::Text,
            None,
            "zone of times whose zone is an abbreviation: an offset or a name, such as 'Asia/Kolkata' where the log says IST. When not given, abbreviations mean what PostgreSQL takes them for",
        ),
    ],
    sample: concat!(
        "2024-06-27 00:00:07.123 CEST [58151] ERROR:  relation \"x\" does not exist at character 15\n",
        "2024-06-27 00:00:07.123 CEST [58151] STATEMENT:  SELECT *\n",
        "\tFROM x\n",
        "2024-06-27 00:00:08 CEST [58152]: [3-1] user=joe,db=shop,app=psql,client=10.0.0.7 LOG:  duration: 2033.123 ms  statement: SELECT 1\n",
        "2024-06-27 00:00:09.001 UTC [58153] joe@shop FATAL:  password authentication failed for user \"joe\"\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

/// PostgreSQL's default, and what distributions, pgBadger and clouds recommend.
const PREFIXES: &[&str] = &[
    "%m [%p] %q%u@%d ",
    "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
    "%t [%p]: [%l-1] user=%u,db=%d,host=%h,app=%a ",
    "%t [%p]: [%l-1] user=%u,db=%d,client=%h ",
    "%t [%p]: user=%u,db=%d,app=%a,client=%h ",
    "%t [%p]: [%l-1] user=%u,db=%d ",
    "%t [%p]: [%l-1] ",
    "%t:%r:%u@%d:[%p]:",
    "%m ",
];

const MESSAGE: &str = "message";

/// Columns behind those of the prefix.
const REST: &[(&str, Kind)] = &[
    ("duration_ms", Kind::Double),
    (MESSAGE, Kind::Text),
    ("detail", Kind::Text),
    ("hint", Kind::Text),
    ("query", Kind::Text),
    ("context", Kind::Text),
    ("statement", Kind::Text),
    ("location", Kind::Text),
];

/// Parses records of the server log.
struct Postgres {
    /// Each with the columns of its fields.
    layouts: Vec<(Layout<Field>, Vec<usize>)>,
    columns: Vec<(&'static str, Kind)>,
    severity: usize,
    client_port: Option<usize>,
    /// The first of [`REST`].
    rest: usize,
    zone: Option<Zone>,
    chosen: Chosen,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let prefixes = match options.text("log_line_prefix") {
        Some(prefix) => vec![prefix],
        None => PREFIXES.to_vec(),
    };
    let mut layouts = Vec::new();
    for prefix in prefixes {
        layouts.extend(prefix::compile(prefix)?);
    }
    let has = |name: &str| {
        let mut fields = layouts.iter().flat_map(|l| &l.parts).map(|part| part.field);
        fields.any(|field| field.column() == name || (name == CLIENT_PORT && matches!(field, Field::Client(_))))
    };
    let mut columns: Vec<(&str, Kind)> = prefix::COLUMNS.iter().filter(|(name, _)| has(name)).copied().collect();
    let severity = usize::from(has("ts"));
    columns.insert(severity, ("severity", Kind::Text));
    let rest = columns.len();
    columns.extend_from_slice(REST);
    let index = |name: &str| columns.iter().position(|(column, _)| *column == name);
    let indexes = |layout: &Layout<Field>| layout.parts.iter().filter_map(|part| index(part.field.column())).collect();
    let client_port = index(CLIENT_PORT);
    let layouts = layouts.into_iter().map(|layout| (layout.clone(), indexes(&layout))).collect();
    let field = |(name, kind): &(&str, Kind)| ArrowField::new(*name, kind.data_type(), true);
    Ok(Box::new(Postgres {
        zone: options.text(TIMEZONE.name).map(Zone::from_option).transpose()?,
        chosen: Chosen::new(columns.iter().map(field).collect(), declared)?,
        layouts,
        columns,
        severity,
        client_port,
        rest,
    }))
}

impl Format for Postgres {
    fn schema(&self) -> SchemaRef {
        self.chosen.schema.clone()
    }

    fn time_column(&self) -> Option<String> {
        self.chosen.time_column("ts")
    }

    /// A severity, whatever the prefix: a section belongs to the message before it, and so does what is indented.
    fn record_start(&self) -> Option<String> {
        Some(r"^(?:\S.{0,300}?)?(?:LOG|ERROR|WARNING|FATAL|NOTICE|INFO|PANIC|DEBUG[1-5]?):  ".to_string())
    }

    fn parse(&self, frames: &Frames, _: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut rows = Rows::new(&block, self.columns.iter().map(|(_, kind)| *kind), frames.len());
        let mut malformed = Vec::new();
        let mut head = Head::default();
        for (i, record) in frames.iter().enumerate() {
            let found = match record {
                [] => Err("empty line"),
                _ => self.head(record, &mut head),
            };
            match found {
                Ok(()) => self.push(&mut rows, record, frames.range(i).start, &head),
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason: reason.into() }),
            }
        }
        Parsed { rows: rows.finish(&self.chosen), malformed }
    }
}

/// The beginning of a message or section: prefix and severity.
#[derive(Debug, Default)]
struct Head {
    /// Which of the layouts it has, and where its fields are.
    layout: usize,
    places: Vec<Place>,
    severity: Place,
    /// Where the text begins.
    text: usize,
}

impl Postgres {
    /// Fills `head` by the first layout that fits the line at the beginning of `text`.
    fn head(&self, text: &[u8], head: &mut Head) -> Result<(), &'static str> {
        let line = &text[..memchr(b'\n', text).unwrap_or(text.len())];
        let mut fields = Fields { zone: self.zone, unknown_zone: false };
        for (i, (layout, _)) in self.layouts.iter().enumerate() {
            if let Some(at) = layout.read(line, &mut fields, &mut head.places) {
                let severity = severity(&line[at..]).unwrap_or(0);
                head.layout = i;
                head.severity = at..at + severity;
                head.text = head.severity.end + BEHIND_SEVERITY.len();
                return Ok(());
            }
        }
        Err(match self.layouts.len() {
            _ if fields.unknown_zone => "the zone is not known; say which it is with the option timezone",
            1 | 2 => "no log_line_prefix and severity",
            _ => "no usual log_line_prefix and severity",
        })
    }

    /// The texts of a record with the names of their columns: the message, and the sections that follow it, each with a
    /// prefix of its own.
    fn texts(&self, record: &[u8], head: &Head) -> Vec<(&'static str, Place)> {
        let mut texts = Vec::new();
        let (mut name, mut start) = (section(&record[head.severity.clone()]).unwrap_or(MESSAGE), head.text);
        let mut next = Head::default();
        let mut at = start;
        while let Some(len) = memchr(b'\n', &record[at..]) {
            let line = at + len + 1;
            // The server indents what goes on.
            if !matches!(record.get(line), None | Some(b'\t')) && self.head(&record[line..], &mut next).is_ok() {
                let severity = next.severity.start + line..next.severity.end + line;
                if let Some(section) = section(&record[severity])
                    && section != name
                    && texts.iter().all(|(other, _)| *other != section)
                {
                    texts.push((name, start..line));
                    (name, start) = (section, line + next.text);
                }
            }
            at = line;
        }
        texts.push((name, start..record.len()));
        texts
    }

    /// Adds the row of a record that lies at `base` in the block.
    fn push(&self, rows: &mut Rows<'_>, record: &[u8], base: usize, head: &Head) {
        let span = |place: Place| Span::new(base + place.start, base + place.end);
        let (layout, columns) = &self.layouts[head.layout];
        for ((part, &column), place) in layout.parts.iter().zip(columns).zip(&head.places) {
            let value = &record[place.clone()];
            match part.field {
                Field::Time(_) | Field::Epoch(_) => {
                    if let Ok((time, _)) = read_time(part.field, value, self.zone) {
                        rows.value(column, Scalar::Time(time));
                    }
                }
                Field::Number(_) => {
                    if let Some(number) = whole(value) {
                        rows.value(column, Scalar::Int(number));
                    }
                }
                Field::Text(_) | Field::Id(_) | Field::Host(_) | Field::Client(_) if value.is_empty() => {}
                Field::Text(_) | Field::Id(_) | Field::Host(_) => rows.text(column, span(place.clone())),
                Field::Client(_) => {
                    let (address, port) = split_port(value);
                    rows.text(column, span(place.start..place.start + address.len()));
                    if let (Some(port), Some(column)) = (port, self.client_port) {
                        rows.value(column, Scalar::Int(port));
                    }
                }
            }
        }
        rows.text(self.severity, span(head.severity.clone()));
        let mut set = |name: &str, place: Place| {
            let text = record[place.clone()].trim_ascii_end();
            let column = self.rest + REST.iter().position(|(column, _)| *column == name).unwrap_or(0);
            match memmem::find(text, b"\n\t") {
                None => rows.text(column, span(place.start..place.start + text.len())),
                Some(_) => rows.own(column, &String::from_utf8_lossy(text).replace("\n\t", "\n")),
            }
        };
        let texts = self.texts(record, head);
        for (name, place) in &texts {
            set(name, place.clone());
        }
        if let Some((MESSAGE, place)) = texts.first() {
            let (duration, statement) = timing(&record[place.clone()]);
            if let Some(at) = statement.filter(|_| texts.iter().all(|(name, _)| *name != "statement")) {
                set("statement", place.start + at..place.end);
            }
            if let Some(ms) = duration {
                rows.value(self.rest, Scalar::Double(ms));
            }
        }
        rows.end_row();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, StringViewArray};
    use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};

    use super::*;
    use crate::format::timestamp::rfc3339;
    use crate::format::{joined, real_log};

    fn postgres(options: &[(&str, &str)]) -> Box<dyn Format> {
        let given: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("postgres", &given, &[]).unwrap()
    }

    /// A record as `column=value`, without NULLs, and its time.
    fn row(options: &[(&str, &str)], record: &str) -> (Option<Micros>, String) {
        let parsed = postgres(options).parse(&Frames::from_records([record]), 0);
        assert_eq!(parsed.malformed, [], "{record}");
        let text = |column: &dyn Array| {
            let text = column.as_string_view_opt().map(|c| c.value(0).to_string());
            let int = || column.as_primitive_opt::<Int64Type>().map(|c| c.value(0).to_string());
            let double = || column.as_primitive_opt::<Float64Type>().map(|c| c.value(0).to_string());
            text.or_else(int).or_else(double)
        };
        let schema = parsed.rows.schema();
        let cells = schema.fields().iter().zip(parsed.rows.columns()).filter(|(_, c)| c.is_valid(0));
        let cells = cells.filter_map(|(field, column)| Some(format!("{}={}", field.name(), text(column)?)));
        let ts = parsed.rows.column_by_name("ts").map(|ts| ts.as_primitive::<TimestampMicrosecondType>().value(0));
        (ts, cells.collect::<Vec<_>>().join("|"))
    }

    fn texts<'a>(parsed: &'a Parsed, column: &str) -> &'a StringViewArray {
        parsed.rows.column_by_name(column).unwrap().as_string_view()
    }

    #[test]
    fn the_usual_prefixes() {
        let session = "pid=5|session_line=1|user_name=u|database=d|application=my app|client=::1|message=x";
        for (line, expected) in [
            ("2024-06-27 00:00:07.123 CEST [5] LOG:  x", "pid=5|message=x"),
            ("2024-06-27 00:00:07.123 CEST [5] u@d LOG:  x", "pid=5|user_name=u|database=d|message=x"),
            ("2024-06-27 00:00:07.123 CEST [5] LOG:  a@b ERROR:  x", "pid=5|message=a@b ERROR:  x"),
            ("2024-06-27 00:00:07.123 CEST [5]: [1-1] user=u,db=d,app=my app,client=::1 LOG:  x", session),
            ("2024-06-27 00:00:07.123 CEST [5]: [1-1] user=u,db=d,host=::1,app=my app LOG:  x", session),
            ("2024-06-27 00:00:07.123 CEST [5]: [1-1] user=,db=,host=,app= LOG:  x", "pid=5|session_line=1|message=x"),
            (
                "2024-06-27 00:00:07.123 CEST:fe80::1(70):u@d:[5]:LOG:  x",
                "pid=5|user_name=u|database=d|client=fe80::1|client_port=70|message=x",
            ),
            ("2024-06-27 00:00:07.123 CEST::@:[5]:LOG:  x", "pid=5|message=x"),
            ("2024-06-27 00:00:07.123 CEST LOG:  x", "message=x"),
            ("2024-06-27 00:00:07.123 +02 LOG:  x", "message=x"),
        ] {
            let (ts, found) = row(&[], line);
            assert_eq!(found, format!("severity=LOG|{expected}"), "{line}");
            assert_eq!(ts, rfc3339(b"2024-06-26T22:00:07.123Z", Zone::UTC), "{line}");
        }
    }

    #[test]
    fn a_prefix_of_ones_own() {
        let given = [("log_line_prefix", "%n|%r|%e|%v|%-20b|%Q|%c > ")];
        let line = "1719439207.123|[local]|42P01|3/17|client backend      |-5|667c9.1f > FEHLER:  x";
        let expected = "severity=FEHLER|session_id=667c9.1f|client=[local]|backend_type=client backend|\
            virtual_transaction_id=3/17|query_id=-5|sqlstate=42P01|message=x";
        assert_eq!(row(&given, line), (rfc3339(b"2024-06-26T22:00:07.123Z", Zone::UTC), expected.to_string()));
        assert_eq!(row(&[("log_line_prefix", "")], "LOG:  x"), (None, "severity=LOG|message=x".to_string()));
        assert_eq!(postgres(&[("log_line_prefix", "")]).time_column(), None);
    }

    #[test]
    fn zones() {
        let line = "2024-06-27 00:00:07 IST [5] LOG:  x";
        let parsed = postgres(&[]).parse(&Frames::from_text(line), 0);
        assert_eq!(parsed.malformed[0].reason, "the zone is not known; say which it is with the option timezone");
        let (ts, _) = row(&[("timezone", "Asia/Kolkata")], line);
        assert_eq!(ts, rfc3339(b"2024-06-26T18:30:07Z", Zone::UTC));
        let (ts, _) = row(&[("timezone", "Asia/Kolkata")], "2024-06-27 00:00:07 UTC [5] LOG:  x");
        assert_eq!(ts, rfc3339(b"2024-06-27T00:00:07Z", Zone::UTC));
    }

    #[test]
    fn a_message_with_its_sections_is_a_row() {
        let p = "2024-06-27 00:00:07 UTC [5] ";
        let record = format!(
            "{p}ERROR:  duplicate key\r\n{p}DETAIL:  Key (id)=(1)\n\tor so\n{p}CONTEXT:  a\n{p}CONTEXT:  b\n{p}STATEMENT:  INSERT\n\t  INTO x\n"
        );
        let expected = format!(
            "severity=ERROR|pid=5|message=duplicate key|detail=Key (id)=(1)\nor so|context=a\n{p}CONTEXT:  b|statement=INSERT\n  INTO x"
        );
        assert_eq!(row(&[], &record).1, expected, "and what comes twice is not lost");
        assert_eq!(joined(&*postgres(&[]), &Frames::from_text(record)).len(), 1);
        assert_eq!(row(&[], &format!("{p}HINT:  try x")).1, "severity=HINT|pid=5|hint=try x");
    }

    #[test]
    fn durations_and_statements() {
        let p = "2024-06-27 00:00:07 UTC [5] LOG:  ";
        for (message, duration, statement) in [
            ("duration: 2033.123 ms  statement: SELECT\n\t1", Some("2033.123"), Some("SELECT\n1")),
            ("duration: 1.0 ms  execute s1: SELECT $1", Some("1"), Some("SELECT $1")),
            ("duration: 0.25 ms  parse <unnamed>: SELECT $1", Some("0.25"), Some("SELECT $1")),
            ("duration: 0.25 ms", Some("0.25"), None),
            ("duration: long", None, None),
            ("execute <unnamed>: SELECT 1", None, Some("SELECT 1")),
            ("statement: SELECT ': '", None, Some("SELECT ': '")),
            ("bind message supplies 1 parameters: x", None, None),
        ] {
            let duration = duration.map(|ms| format!("|duration_ms={ms}")).unwrap_or_default();
            let statement = statement.map(|text| format!("|statement={text}")).unwrap_or_default();
            let expected = format!("severity=LOG|pid=5{duration}|message={}{statement}", message.replace('\t', ""));
            assert_eq!(row(&[], &format!("{p}{message}")).1, expected);
        }
    }

    #[test]
    fn vacuum_log() {
        let Some(log) = real_log("multiline/postgres_vacuum.log") else { return };
        let format = postgres(&[]);
        let lines = Frames::from_text(log);
        let frames = joined(&*format, &lines);
        assert_eq!((lines.len(), frames.len()), (32_405, 3544));
        let parsed = format.parse(&frames, 0);
        assert_eq!((parsed.rows.num_rows(), parsed.malformed.as_slice()), (3544, &[][..]));
        let message = texts(&parsed, "message").value(1);
        assert!(
            message.starts_with(
                "automatic vacuum of table \"testdb.replication.tab_queue_tmp\": index scans: 1\npages: 5"
            )
        );
        assert!(message.ends_with("elapsed: 0.00 s"), "{message}");
        // With one line a frame, the lines that go on are malformed and the others are rows.
        let parsed = format.parse(&lines, 0);
        assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (3544, 32_405 - 3544));
    }

    #[test]
    fn other_real_logs() {
        for (name, messages, statements) in [
            ("formats/lnav/logfile_postgres.0", 20, 3),
            ("formats/lnav/logfile_postgres.1", 5, 2),
            ("formats/lnav/logfile_postgres.2", 2, 2),
        ] {
            let Some(log) = real_log(name) else { continue };
            let format = postgres(&[]);
            let frames = joined(&*format, &Frames::from_text(log));
            let parsed = format.parse(&frames, 0);
            assert_eq!((parsed.rows.num_rows(), parsed.malformed.as_slice()), (messages, &[][..]), "{name}");
            let statement = texts(&parsed, "statement");
            assert_eq!(statement.len() - statement.null_count(), statements, "{name}");
        }
    }
}
