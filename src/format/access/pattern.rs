//! Access logs by the pattern that their server writes them by: format `access`, and patterns that have names.
//!
//!     pattern = '%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i" %D'                  (Apache)
//!     pattern = '$remote_addr [$time_local] "$request" $status $body_bytes_sent $request_time'      (nginx)
//!
//! The pattern stands in the server's configuration and is copied from there. Columns that format `combined` has are
//! called as there, and such lines give the same rows; the others are called as nginx calls them, whichever server wrote
//! them. Of two columns of one name, the second gets the suffix `_2`. A pattern may say the time in several pieces, or
//! several times: the finest is the column `ts`. Without a time, lines have none.
//!
//! As in `combined`, `-` is NULL, escapes in quotes are decoded, and a request that is none keeps its text in `path`.

mod apache;
mod field;
mod nginx;
mod steps;

use arrow::datatypes::SchemaRef;

use self::steps::Steps;
use super::line::unescape;
use crate::error::{Error, Kind, Result};
use crate::format::column::Block;
use crate::format::fields::{Fields, TYPES, types_option};
use crate::format::timestamp::{ClfReader, TIMEZONE};
use crate::format::{Declared, Format, Malformed, Parsed, Spec, timestamp_type};
use crate::frame::Frames;
use crate::options::{self, OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "access",
    aliases: &["access_log"],
    summary: "Access log of Apache or nginx by the pattern of its LogFormat or log_format",
    columns: &[],
    options: &[
        OptionSpec::required(
            "pattern",
            OptionKind::Text,
            "the pattern, such as '%h %l %u %t \"%r\" %>s %b %D' or '$remote_addr [$time_local] $status'; or combined, common, vhost_combined, combinedio",
        ),
        TYPES,
        TIMEZONE,
    ],
    sample: concat!(
        "www.example.org 10.0.0.7 - [17/May/2015:10:05:03 +0000] \"GET /a?b=c HTTP/1.1\" 200 3023 \"-\" ",
        "\"curl/8.5 \\\"x\\\"\" 0.004 \"0.001, 0.002\"\n",
        "www.example.org ::1 frank [17/May/2015:10:05:04 +0000] \"-\" 400 0 \"http://y/\" \"-\" 0.000 \"-\"\n",
    ),
    sample_options: &[(
        "pattern",
        "$host $remote_addr $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_time \"$upstream_response_time\"",
    )],
    build: |options, declared| build(options.text("pattern").unwrap_or_default(), options, declared),
    detectable: false,
};

pub static VHOST_COMBINED: Spec = Spec {
    name: "vhost_combined",
    aliases: &[],
    summary: "Access log of Apache in combined format behind the name and port of the server",
    columns: &[
        ("ts", "timestamptz"),
        ("server_name", "text"),
        ("server_port", "int"),
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
    ],
    options: &[],
    sample: concat!(
        "www.example.org:443 10.0.0.7 - frank [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 203023 ",
        "\"http://y/\" \"Mozilla/5.0 (X11; Linux x86_64)\"\n",
        "www.example.org:80 ::1 - - [17/May/2015:10:05:04 +0000] \"-\" 408 - \"-\" \"-\"\n",
    ),
    sample_options: &[],
    build: |options, declared| build("vhost_combined", options, declared),
    detectable: true,
};

pub static COMBINEDIO: Spec = Spec {
    name: "combinedio",
    aliases: &[],
    summary: "Access log of Apache in combined format with the bytes received and sent",
    columns: &[
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
        ("bytes_received", "bigint"),
        ("bytes_sent", "bigint"),
    ],
    options: &[],
    sample: concat!(
        "10.0.0.7 - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 203023 \"-\" \"curl/8.5\" 310 203400\n",
        "::1 - frank [17/May/2015:10:05:04 +0000] \"POST /b HTTP/1.1\" 302 - \"http://y/\" \"-\" 1310 220\n",
    ),
    sample_options: &[],
    build: |options, declared| build("combinedio", options, declared),
    detectable: true,
};

/// Patterns that have names (Apache manual, mod_log_config, "Examples"; mod_logio). What is sent behind `vhost_combined`
/// stands there as `%O` in newer configurations: bytes with headers.
const NAMED: &[(&str, &str)] = &[
    ("common", "%h %l %u %t \"%r\" %>s %b"),
    ("combined", "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\""),
    ("vhost_combined", "%v:%p %h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\""),
    ("combinedio", "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" %I %O"),
];

fn build(pattern: &str, options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let (steps, known) = Steps::compile(tokens(pattern)?)?;
    let fields = Fields::new("column", &known, options, declared)?.decoding(unescape);
    // The time is read by the pattern, and not as text.
    let is_wrong = |c: &&Declared| c.name == "ts" && c.data_type != timestamp_type();
    let types = types_option(options)?;
    if let Some(wrong) = types.iter().chain(declared).find(is_wrong).filter(|_| steps.timed()) {
        return Err(Error::new(Kind::Datatype, format!("column \"ts\" cannot be of type {}", wrong.data_type))
            .with_hint("Leave it as timestamptz and cast in queries."));
    }
    Ok(Box::new(ByPattern { steps, sources: known.len(), fields }))
}

fn tokens(pattern: &str) -> Result<Vec<field::Token>> {
    let named = NAMED.iter().find(|(name, _)| pattern.eq_ignore_ascii_case(name));
    // As it stands in a file of configuration, within quotes.
    let text = named.map_or(pattern, |(_, text)| text).replace("\\\"", "\"").replace("\\t", "\t").replace("\\\\", "\\");
    let is_nginx =
        text.match_indices('$').any(|(at, _)| text[at + 1..].starts_with(|c: char| c == '{' || nginx::is_name(c)));
    match is_nginx {
        true => nginx::tokens(&text),
        false if text.contains('%') => apache::tokens(&text),
        false => Err(options::unknown("pattern", pattern, NAMED.iter().map(|(name, _)| *name)).with_hint(format!(
            "Write the server's own pattern, such as '%h %t' or '$remote_addr [$time_local]', or one of: {}.",
            options::list(NAMED.iter().map(|(name, _)| *name))
        ))),
    }
}

/// Parses lines by a pattern.
struct ByPattern {
    steps: Steps,
    /// How many values a line has.
    sources: usize,
    fields: Fields,
}

impl Format for ByPattern {
    fn schema(&self) -> SchemaRef {
        self.fields.schema()
    }

    fn time_column(&self) -> Option<String> {
        self.fields.time_column()
    }

    fn parse(&self, frames: &Frames, _: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut rows = self.fields.rows(frames.len());
        let mut found = vec![None; self.sources];
        let mut malformed = Vec::new();
        let mut clock = ClfReader::default();
        let zone = self.fields.times().zone;
        for i in 0..frames.len() {
            let at = frames.range(i);
            let read = self.steps.read(&frames.bytes[at.clone()], at.start, zone, &mut clock, &mut found);
            if let Err(reason) = read.and_then(|()| rows.push(&block, |source| found[source])) {
                malformed.push(Malformed { frame: i as u32, reason });
            }
        }
        Parsed { rows: rows.finish(&block), malformed }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::format::{real_log, rows_as_text};

    fn build_with(pattern: &str, more: &[(&str, &str)], declared: &[Declared]) -> Result<Box<dyn Format>> {
        let own = [("pattern", pattern)];
        let given = more.iter().chain(&own).map(|(k, v)| (k.to_string(), v.to_string()));
        crate::format::build("access", &given.collect::<Vec<_>>(), declared)
    }

    /// The rows of lines, or the reasons why they are none.
    fn read(pattern: &str, text: &str) -> Vec<String> {
        let parsed = build_with(pattern, &[], &[]).unwrap().parse(&Frames::from_text(text), 0);
        let reasons = parsed.malformed.iter().map(|m| m.reason.to_string());
        rows_as_text(&parsed.rows).into_iter().chain(reasons).collect()
    }

    const TIME: &str = "17/May/2015:10:05:03 +0000";
    const T: &str = "ts=2015-05-17T10:05:03Z";

    #[test]
    fn combined_lines_are_read_as_format_combined_reads_them() {
        for (name, file) in [
            ("combined", "access/apache_combined_10k.log"),
            ("combined", "access/nginx_combined_fragments.log"),
            ("combined", "access/elastic_apache_combined.log"),
            ("combined", "access/lnav_bad_access.log"),
            ("common", "access/nasa_common_2k.log"),
            ("combined", "formats/lnav/logfile_access_log.0"),
            ("combined", "formats/lnav/logfile_bad_access_log.0"),
        ] {
            let Some(log) = real_log(file) else { return };
            let frames = Frames::from_text(log);
            let expected = crate::format::build(name, &[], &[]).unwrap().parse(&frames, 0);
            let found = build_with(name, &[], &[]).unwrap().parse(&frames, 0);
            assert_eq!(found.rows, expected.rows, "{file}");
            let bad = |parsed: &Parsed| parsed.malformed.iter().map(|m| m.frame).collect::<Vec<_>>();
            assert_eq!(bad(&found), bad(&expected), "{file}");
        }
    }

    #[test]
    fn samples_of_combined_too() {
        for (spec, pattern) in [(&super::super::COMBINED, "combined"), (&super::super::COMMON, "COMMON")] {
            let frames = Frames::from_text(spec.sample);
            let expected = crate::format::build(spec.name, &[], &[]).unwrap().parse(&frames, 0);
            assert_eq!(build_with(pattern, &[], &[]).unwrap().parse(&frames, 0).rows, expected.rows);
        }
        let pattern = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent";
        let names: Vec<String> =
            build_with(pattern, &[], &[]).unwrap().schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["ts", "client", "remote_user", "method", "path", "protocol", "status", "bytes"]);
    }

    #[test]
    fn directives_of_apache() {
        let line = format!("[::1]:8080 h:443 [{TIME}] \"GET /x HTTP/1.1\" 200/304 12 0 1500 \"a \\\"b\\\"\" - + %\n");
        let pattern =
            "%a:%{remote}p %v:%p %t \\\"%r\\\" %>s/%<s %B %T %D \\\"%{X-Forwarded-For}i\\\" %!200,304{Y}o %X %%";
        let expected = "client=[::1] remote_port=8080 server_name=h server_port=443 method=GET path=/x protocol=HTTP/1.1 \
                        status=200 status_2=304 bytes=12 request_time=0.0 duration_us=1500 http_x_forwarded_for=a \"b\" \
                        connection_status=+";
        assert_eq!(read(pattern, &line), [format!("{T} {expected}")]);
        let pieces =
            "%m %U%q %H %I %O %S %k %L %f %{c}a %{tid}P %{c}C %{SSL_PROTOCOL}x %{ms}T %{N}n %{E}e %R %V %{Host}i";
        let format = build_with(pieces, &[], &[]).unwrap();
        let names: Vec<String> = format.schema().fields().iter().map(|f| f.name().clone()).collect();
        let expected = [
            "method",
            "path",
            "protocol",
            "bytes_received",
            "bytes_sent",
            "bytes_transferred",
            "keepalives",
            "log_id",
            "request_filename",
            "peer",
            "tid",
            "cookie_c",
            "ssl_protocol",
            "duration_ms",
            "note_n",
            "env_e",
            "handler",
            "host",
            "http_host",
        ];
        assert_eq!(names, expected);
        assert_eq!(format.time_column(), None);
        assert_eq!(read("%m %U%q %H", "GET /a?b=c HTTP/1.1\n"), ["method=GET path=/a?b=c protocol=HTTP/1.1"]);
    }

    #[test]
    fn variables_of_nginx() {
        let pattern = "$scheme://$host$request_uri ${remote_addr} \"$http_x_forwarded_for\" $request_time \
                       $upstream_response_time $my_zone - $msec";
        let line = "https://h.example/a?b 1.2.3.4 \"-\" 0.25 0.1 eu - 1431857103.250\n";
        let expected = "ts=2015-05-17T10:05:03.250Z scheme=https host=h.example path=/a?b client=1.2.3.4 \
                        request_time=0.25 upstream_response_time=0.1 my_zone=eu";
        assert_eq!(read(pattern, line), [expected]);
        assert_eq!(read("$uri$is_args$args $status", "/a?b 200\n"), ["path=/a?b status=200"]);
        let types = [("types", "upstream_response_time double")];
        let format = build_with(pattern, &types, &[]).unwrap();
        assert_eq!(format.schema().field_with_name("upstream_response_time").unwrap().data_type(), &DataType::Float64);
        let parsed = format.parse(&Frames::from_text(line), 0);
        assert_eq!(parsed.rows.column_by_name("upstream_response_time").unwrap().null_count(), 0);
    }

    #[test]
    fn times_in_all_ways() {
        for (pattern, line, expected) in [
            ("%t", format!("[{TIME}]"), ".000"),
            ("%{%d/%b/%Y:%T}t %h", "17/May/2015:10:05:03 c".to_string(), ".000"),
            ("[%{%Y-%m-%d %H:%M:%S %z}t] %h", "[2015-05-17 12:05:03 +0200] c".to_string(), ".000"),
            ("%{%Y-%m-%d %H:%M:%S %z}t %h", "2015-05-17 12:05:03 +0200 c".to_string(), ".000"),
            ("%{%Y-%m-%d}t|%{%T}t.%{msec_frac}t", "2015-05-17|10:05:03.007".to_string(), ".007"),
            ("%{sec}t.%{usec_frac}t", "1431857103.007001".to_string(), ".007001"),
            ("%{begin:msec}t %h", "1431857103007 c".to_string(), ".007"),
            ("%{usec}t", "1431857103007001".to_string(), ".007001"),
            ("$time_iso8601 $host", "2015-05-17T12:05:03+02:00 c".to_string(), ".000"),
            ("[$time_local] $msec", format!("[{TIME}] 1431857103.007"), ".007"),
        ] {
            let expected = format!("ts=2015-05-17T10:05:03{}Z", expected.trim_end_matches(".000"));
            let found = read(pattern, &line);
            assert!(found[0] == expected || found[0].starts_with(&format!("{expected} ")), "{pattern}: {found:?}");
        }
        let format = build_with("%{%Y-%m-%d %T}t", &[("timezone", "Europe/Berlin")], &[]).unwrap();
        assert_eq!(rows_as_text(&format.parse(&Frames::from_text("2015-05-17 12:05:03"), 0).rows), [T]);
    }

    #[test]
    fn fields_end_where_they_must() {
        assert_eq!(read("%u %t", &format!("John [Jr.] [x] [{TIME}]\n")), [format!("{T} remote_user=John [Jr.] [x]")]);
        assert_eq!(
            read("%r %s", "GET /a b HTTP/1.0 200\n- 400\nx y 500\n"),
            [
                "method=GET path=/a b protocol=HTTP/1.0 status=200",
                "status=400",
                "status is not a number of three digits"
            ]
        );
        for (pattern, line, reason) in [
            ("<%h>", "x", "the line does not begin with \"<\""),
            ("<%h>", "<x", "no \">\" behind client"),
            ("<%h>", "<x> y", "text behind client"),
            ("\"%r\" %s", "\"GET", "request has no closing quote"),
            ("\"%r\" %s", "\"GET\"200", "no \"\\\" \" behind request"),
            ("%s", "20", "status is not a number of three digits"),
            ("%b", "x", "bytes is not a whole number"),
            ("%b", "99999999999999999999", "bytes is not a whole number in range"),
            ("%h %T x", "c  x", "request_time is not a number"),
            ("%h %t", "c [x]", "the time is not like 17/May/2015:10:05:03 +0000"),
            ("%t", "[x]", "ts is not like 17/May/2015:10:05:03 +0000"),
            ("%{sec}t", "x", "ts is not readable as a time"),
            ("%h", "", "empty line"),
        ] {
            assert_eq!(read(pattern, &format!("{line}\n")), [reason], "{pattern}: {line}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let message = |pattern: &str| build_with(pattern, &[], &[]).err().unwrap().message().to_string();
        assert_eq!(message("combind"), "unknown pattern \"combind\"; did you mean \"combined\"?");
        assert_eq!(message("%h %d"), "unknown directive \"%d\" in the pattern; did you mean \"%D\"?");
        assert_eq!(message("%h %"), "the pattern ends in the middle of a directive");
        assert_eq!(message("%{Referer"), "\"%{Referer\" has no closing brace");
        assert_eq!(message("%i"), "\"%i\" does not say of what");
        assert_eq!(message("%{x}b"), "\"%{x}b\" takes nothing in braces");
        assert_eq!(message("%{mss}T"), "unknown word in the directive \"mss\"; did you mean \"ms\"?");
        assert_eq!(message("%h%l"), "nothing tells where \"%h\" ends and \"%l\" begins");
        assert_eq!(message("%{%H:%M}t"), "the times of the pattern do not say year, month, day, hour and minute");
        assert_eq!(message("%{%Q}t"), "\"%Q\" is not a time format");
        assert_eq!(
            message("$remote_adr"),
            "unknown variable \"$remote_adr\" in the pattern; did you mean \"$remote_addr\"?"
        );
        assert_eq!(message("${host"), "\"${host\" has no closing brace");
        let ts = [Declared { name: "ts".into(), data_type: DataType::Utf8View }];
        assert_eq!(build_with("%t %h", &[], &ts).err().unwrap().kind(), Kind::Datatype);
        let slip = build_with("%h", &[("types", "clint text")], &[]).err().unwrap();
        assert!(slip.message().ends_with("did you mean \"client\"?"), "{slip}");
    }

    #[test]
    fn vhost_lines_are_told_from_combined_ones() {
        let vhost = crate::format::build("vhost_combined", &[], &[]).unwrap();
        let parsed = vhost.parse(&Frames::from_text(super::super::COMBINED.sample), 0);
        assert_eq!(parsed.rows.num_rows(), 0);
        let Some(log) = real_log("formats/lnav/logfile_regexp_access_log.0") else { return };
        let pattern = "%v:%p %h %L %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %D";
        let parsed = build_with(pattern, &[], &[]).unwrap().parse(&Frames::from_text(log), 0);
        assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (2, 0));
    }
}
