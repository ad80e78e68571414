//! Syslog lines: RFC 5424, RFC 3164 and what daemons make of it, told apart line by line. Format `syslog`.
//!
//!     5424   <165>1 2003-10-11T22:14:15.003Z host app 8710 ID47 [x@32473 k="v"] text
//!     3164   <34>Oct 11 22:14:15 host su: text         a file has no <34>
//!     rsyslog     2003-10-11T22:14:15.003123+02:00 host sshd[29]: text
//!
//! Always holds: nothing of the text is lost; what is not understood stays in `message`. The time of RFC 3164 says
//! neither year nor zone: the year is told by when the line was received (`yearless.rs`) or by option `year`, the zone
//! by option `timezone`. A line with a priority but without a time is of the moment it was received, as RFC 3164
//! (4.3.2) has a relay do; one with neither is malformed, since it could be anything.
//!
//! `severity_code` counts from 0 (emergency) to 7 (debug), so that `severity_code <= 3` finds errors and worse. Elements
//! of structured data become the members of a JSON object, their parameters objects in it; a parameter that comes twice
//! becomes an array.

mod line;
mod structured;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Int32Type, SchemaRef, TimestampMicrosecondType};

use self::line::Entry;
use super::column::{Block, Span, TextColumn, ValueColumn, finish_times};
use super::declared::Chosen;
use super::timestamp::{TIMEZONE, Zone};
use super::yearless::Years;
use super::{Declared, Format, Malformed, Parsed, Spec, timestamp_type};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "syslog",
    aliases: &["rfc5424", "rfc3164"],
    summary: "System log, RFC 5424 and RFC 3164, as sent or as rsyslog and syslog-ng write it to files",
    columns: &[
        ("ts", "timestamptz"),
        ("facility", "text"),
        ("severity", "text"),
        ("severity_code", "int"),
        ("host", "text"),
        ("app", "text"),
        ("pid", "text"),
        ("msgid", "text"),
        ("structured_data", "text"),
        ("message", "text"),
    ],
    options: &[
        TIMEZONE,
        OptionSpec::optional(
            "year",
            OptionKind::Integer,
            None,
            "year of times that do not say it, for old files; when not given, the latest year for which the time is at most a day ahead of when the line came",
        ),
    ],
    sample: concat!(
        "<165>1 2026-10-11T22:14:15.003Z web1.example.org shop 8710 ORDER [origin@32473 ip=\"192.0.2.1\" ip=\"::1\"] paid\n",
        "<34>Oct 11 22:14:15 web1 su[230]: root failed on /dev/pts/8\n",
        "Oct  1 22:14:15 web1 systemd-logind[1118]: New session 1 of user ubuntu.\n",
        "2026-10-11T22:14:15.003123+02:00 web1 kernel: eth0: link up\n",
        "<13>no header at all\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

/// Names of the facilities by number, as in syslog(3); 12 to 15 by RFC 5424, table 1.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Names of the severities by number, as in syslog(3).
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Parses syslog lines.
struct Syslog {
    zone: Zone,
    year: Option<i64>,
    chosen: Chosen,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let zone = Zone::from_option(options.text(TIMEZONE.name).unwrap_or("UTC"))?;
    let year = options.integer("year");
    if let Some(year) = year.filter(|year| !(1..=9999).contains(year)) {
        return Err(Error::new(Kind::InvalidParameter, format!("option \"year\": there is no year {year}")));
    }
    let field = |&(name, sql_type): &(&str, &str)| {
        let data_type = match sql_type {
            "timestamptz" => timestamp_type(),
            "int" => DataType::Int32,
            _ => DataType::Utf8View,
        };
        Field::new(name, data_type, true)
    };
    let chosen = Chosen::new(SPEC.columns.iter().map(field).collect(), declared)?;
    Ok(Box::new(Syslog { zone, year, chosen }))
}

impl Format for Syslog {
    fn schema(&self) -> SchemaRef {
        self.chosen.schema.clone()
    }

    fn time_column(&self) -> Option<String> {
        self.chosen.time_column("ts")
    }

    fn parse(&self, frames: &Frames, received: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut columns = Columns::with_capacity(frames.len());
        let mut malformed = Vec::new();
        let years = Years::new(received, self.zone, self.year);
        for (i, line) in frames.iter().enumerate() {
            match line::parse(line, self.zone, &years) {
                Ok(entry) => columns.push(&block, frames.range(i).start, line, &entry, received),
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
    facility: TextColumn,
    severity: TextColumn,
    severity_code: ValueColumn<Int32Type>,
    host: TextColumn,
    app: TextColumn,
    pid: TextColumn,
    msgid: TextColumn,
    structured_data: TextColumn,
    message: TextColumn,
}

impl Columns {
    fn with_capacity(rows: usize) -> Self {
        let text = || TextColumn::with_capacity(rows);
        Columns {
            ts: ValueColumn::with_capacity(rows),
            facility: text(),
            severity: text(),
            severity_code: ValueColumn::with_capacity(rows),
            host: text(),
            app: text(),
            pid: text(),
            msgid: text(),
            structured_data: text(),
            message: text(),
        }
    }

    /// Appends the entry found in `line`, which lies at `base` in the block.
    fn push(&mut self, block: &Block<'_>, base: usize, line: &[u8], entry: &Entry<'_>, received: Micros) {
        let span = |part: &[u8]| {
            let start = base + (part.as_ptr() as usize - line.as_ptr() as usize);
            Span::new(start, start + part.len())
        };
        self.ts.push(entry.ts.unwrap_or(received));
        match entry.priority {
            Some(priority) => {
                self.facility.push_own(FACILITIES[usize::from(priority >> 3)]);
                self.severity.push_own(SEVERITIES[usize::from(priority & 7)]);
                self.severity_code.push(i32::from(priority & 7));
            }
            None => {
                self.facility.push_null();
                self.severity.push_null();
                self.severity_code.push_option(None);
            }
        }
        self.host.push_option(block, entry.host.map(span));
        self.app.push_option(block, entry.app.map(span));
        self.pid.push_option(block, entry.pid.map(span));
        self.msgid.push_option(block, entry.msgid.map(span));
        match entry.structured_data {
            Some(elements) => self.structured_data.push_own(&structured::json(elements)),
            None => self.structured_data.push_null(),
        }
        self.message.push_option(block, entry.message.map(span));
    }

    fn finish(self, block: &Block<'_>) -> Vec<ArrayRef> {
        vec![
            finish_times(self.ts),
            self.facility.finish(block),
            self.severity.finish(block),
            Arc::new(self.severity_code.finish()),
            self.host.finish(block),
            self.app.finish(block),
            self.pid.finish(block),
            self.msgid.finish(block),
            self.structured_data.finish(block),
            self.message.finish(block),
        ]
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, StringViewArray};

    use super::*;
    use crate::format::real_log;
    use crate::format::timestamp::rfc3339;

    fn utc(text: &str) -> Micros {
        rfc3339(text.as_bytes(), Zone::UTC).unwrap()
    }

    fn parse(options: &[(&str, &str)], text: impl Into<Vec<u8>>) -> Parsed {
        let given: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let format = crate::format::build("syslog", &given, &[]).unwrap();
        format.parse(&Frames::from_text(text), utc("2003-12-24T12:00:00Z"))
    }

    fn texts<'a>(parsed: &'a Parsed, column: &str) -> &'a StringViewArray {
        parsed.rows.column_by_name(column).unwrap().as_string_view()
    }

    /// The row of a line: its time and its texts, NULL as nothing.
    fn row(line: &str) -> (String, String) {
        let parsed = parse(&[], line);
        assert_eq!(parsed.malformed, [], "{line}");
        let ts = parsed.rows.column(0).as_primitive::<TimestampMicrosecondType>().value_as_datetime(0).unwrap();
        let columns = ["facility", "severity", "host", "app", "pid", "msgid", "structured_data", "message"];
        let cell = |name: &&str| texts(&parsed, name).iter().next().flatten().unwrap_or_default().to_string();
        (ts.to_string(), columns.iter().map(cell).collect::<Vec<_>>().join("|"))
    }

    /// RFC 5424, section 6.5. The second example's message ends in `%%`, not valid as text elsewhere but here it is.
    #[test]
    fn examples_of_rfc_5424() {
        for (line, ts, expected) in [
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
                "2003-10-11 22:14:15.003",
                "auth|crit|mymachine.example.com|su||ID47||'su root' failed for lonvick on /dev/pts/8",
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
                "2003-08-24 12:14:15.000003",
                "local4|notice|192.0.2.1|myproc|8710|||%% It's time to make the do-nuts.",
            ),
            (
                "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"] \u{feff}An application event log entry...",
                "2003-10-11 22:14:15.003",
                "local4|notice|mymachine.example.com|evntslog||ID47|{\"exampleSDID@32473\":{\"eventID\":\"1011\",\"eventSource\":\"Application\",\"iut\":\"3\"}}|An application event log entry...",
            ),
            (
                "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"][examplePriority@32473 class=\"high\"]",
                "2003-10-11 22:14:15.003",
                "local4|notice|mymachine.example.com|evntslog||ID47|{\"examplePriority@32473\":{\"class\":\"high\"},\"exampleSDID@32473\":{\"eventID\":\"1011\",\"eventSource\":\"Application\",\"iut\":\"3\"}}|",
            ),
        ] {
            assert_eq!(row(line), (ts.to_string(), expected.to_string()), "{line}");
        }
    }

    /// RFC 3164, section 5.4: as sent, and as the relay of the text passes it on.
    #[test]
    fn examples_of_rfc_3164() {
        for (line, ts, expected) in [
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
                "2003-10-11 22:14:15",
                "auth|crit|mymachine|su||||'su root' failed for lonvick on /dev/pts/8",
            ),
            ("<13>Use the BFG!", "2003-12-24 12:00:00", "user|notice||||||Use the BFG!"),
            (
                "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
                "2003-02-05 17:32:18",
                "user|notice|10.0.0.99|||||Use the BFG!",
            ),
            (
                "<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time to make the do-nuts.  %%  Ingredients: Mix=OK, Jelly=OK #",
                "1987-08-24 05:34:00",
                "local4|notice|mymachine|myproc|10|||%% It's time to make the do-nuts.  %%  Ingredients: Mix=OK, Jelly=OK #",
            ),
            (
                "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
                "2003-12-24 12:00:00",
                "kern|emerg||||||1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
            ),
            (
                "<0>Oct 22 10:52:12 scapegoat 1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
                "2003-10-22 10:52:12",
                "kern|emerg|scapegoat|||||1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
            ),
        ] {
            assert_eq!(row(line), (ts.to_string(), expected.to_string()), "{line}");
        }
    }

    #[test]
    fn a_missing_time_is_when_the_line_was_received() {
        assert_eq!(row("<34>1 - - - - - - x"), ("2003-12-24 12:00:00".into(), "auth|crit||||||x".into()));
        assert_eq!(row("<34>cron[7]: x"), ("2003-12-24 12:00:00".into(), "auth|crit||cron|7|||x".into()));
    }

    #[test]
    fn year_and_zone_can_be_given() {
        let parsed =
            parse(&[("year", "2017"), ("timezone", "+02:00")], "Dec 31 23:59:59 h a: x\nFeb 29 00:00:00 h a: x");
        let ts = parsed.rows.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(ts.value(0), utc("2017-12-31T21:59:59Z"));
        assert_eq!(parsed.malformed[0].reason, "there is no such day or time in the year");
        let given = [("year".to_string(), "0".to_string())];
        assert_eq!(
            crate::format::build("syslog", &given, &[]).err().unwrap().message(),
            "option \"year\": there is no year 0"
        );
    }

    #[test]
    fn real_lines() {
        for (name, lines, first, last) in [
            ("syslog/auth.log", 7121, "2017-03-27T13:06:56Z", "2017-04-20T14:14:29Z"),
            ("templates/Linux_2k.log", 2000, "2005-06-14T15:16:01Z", "2005-07-27T14:42:00Z"),
            ("templates/OpenSSH_2k.log", 2000, "2015-12-10T06:55:46Z", "2015-12-10T11:04:45Z"),
        ] {
            let Some(log) = real_log(name) else { continue };
            let parsed = parse(&[("year", &first[..4])], log);
            assert_eq!((parsed.rows.num_rows(), parsed.malformed.as_slice()), (lines, &[][..]), "{name}");
            let ts = parsed.rows.column(0).as_primitive::<TimestampMicrosecondType>();
            assert_eq!((ts.value(0), ts.value(lines - 1)), (utc(first), utc(last)), "{name}");
            let null_apps = texts(&parsed, "app").null_count();
            assert_eq!(null_apps, if name.contains("Linux") { 8 } else { 0 }, "{name}");
            assert_eq!(texts(&parsed, "message").null_count(), 0, "{name}");
        }
    }

    /// The corpus names host, component and process of each line, found by people.
    #[test]
    fn hosts_apps_and_processes_are_those_that_people_found() {
        let Some(log) = real_log("templates/Linux_2k.log") else { return };
        let Some(truth) = real_log("templates/Linux_2k.log_structured.csv") else { return };
        let parsed = parse(&[], log);
        let truth = String::from_utf8(truth).unwrap();
        let mut without_app = Vec::new();
        for (i, line) in truth.lines().skip(1).enumerate() {
            // The text, which may hold commas, comes later.
            let [_, _, _, _, host, app, pid] = line.split(',').take(7).collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            assert_eq!(texts(&parsed, "host").value(i), host, "{line}");
            if texts(&parsed, "app").is_null(i) {
                without_app.push(app);
                continue;
            }
            assert_eq!(texts(&parsed, "app").value(i), app, "{line}");
            assert_eq!(texts(&parsed, "pid").iter().nth(i).unwrap().unwrap_or_default(), pid, "{line}");
        }
        without_app.sort();
        without_app.dedup();
        assert_eq!(without_app, ["-- root", "syslogd 1.4.1"], "a name of several words stays in the message");
    }
}
