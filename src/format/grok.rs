//! Lines described by grok patterns, as Logstash has them: format `grok`.
//!
//!     %{SYSLOGTIMESTAMP:timestamp} %{IPORHOST:host} %{DATA:program}(?:\[%{POSINT:pid:int}\])?: %{GREEDYDATA:message}
//!
//! The named patterns of Logstash are built in, under the field names that they had before the Elastic Common Schema;
//! option `patterns` defines more, or others. The names of fields become columns with `_` for what a column cannot be
//! called by: `[source][address]` is `source_address`. `:int` and `:float` give a column its type, option `types` any.
//!
//! Grok patterns look around and take back what they matched, which no engine does in linear time: so a line is given
//! up, and malformed, after `backtrack_limit` steps back, and can never hold up its stream. As in Logstash the pattern is
//! looked for anywhere in the record, `.` is any character, and `^` and `$` are at every line of it.
//!
//! Files of patterns (option `patterns_dir`) are not read here: a format has no files, and must not change when they
//! do. Whoever creates a stream puts the definitions that its pattern needs in their place ([`inlined`]).

mod expand;

use std::borrow::Cow;

use arrow::datatypes::SchemaRef;
use fancy_regex::{BytesMode, Regex, RegexBuilder};

use self::expand::{Expanded, Library};
use super::column::{Block, Span};
use super::fields::{Fields, Found, Known, TIME_FIELD, TYPES};
use super::timestamp::{self, TIME_FORMAT, TIMEZONE, TimeFormat};
use super::typed::Scalar;
use super::yearless::{Years, month_day_time};
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "grok",
    aliases: &[],
    summary: "A grok pattern, such as '%{COMBINEDAPACHELOG}', whose fields are the columns. Logstash's patterns are built in",
    columns: &[],
    options: &[
        OptionSpec::required(
            "pattern",
            OptionKind::Text,
            "the pattern, such as '%{IP:client} %{WORD:method} %{NUMBER:took:float}'",
        ),
        OptionSpec::optional(
            "patterns",
            OptionKind::Text,
            None,
            "patterns of your own, one a line: a name, a space, and what it stands for",
        ),
        OptionSpec::optional(
            PATTERNS_DIR,
            OptionKind::Text,
            None,
            "a directory whose files define patterns. They are read once, when the stream is created, and what is needed of them is kept with it",
        ),
        TYPES,
        TIME_FIELD,
        TIME_FORMAT,
        TIMEZONE,
        OptionSpec::optional(
            "backtrack_limit",
            OptionKind::Integer,
            Some("100000"),
            "how often the pattern may step back on a record; one that needs more is malformed",
        ),
    ],
    sample: concat!(
        "55.3.244.1 2026-05-20T00:00:18Z GET /index.html 15824 0.043\n",
        "55.3.244.2 2026-05-20T00:00:19Z POST /login 302 1.5\n",
    ),
    sample_options: &[(
        "pattern",
        "^%{IP:client} %{TIMESTAMP_ISO8601:timestamp} %{WORD:method} %{URIPATHPARAM:[url][original]} %{INT:bytes:int} %{NUMBER:took:float}$",
    )],
    build,
    detectable: false,
};

/// The option that names files.
pub const PATTERNS_DIR: &str = "patterns_dir";

/// `given` options of the format with the definitions that its pattern needs, out of `files` and its own, in place of the
/// directory.
pub fn inlined(given: &[(String, String)], files: &str) -> Result<Vec<(String, String)>> {
    let value = |name: &str| given.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    // Later definitions hold: the user's own.
    let definitions = format!("{files}\n{}", value("patterns").unwrap_or_default());
    let needed = Library::read(&definitions)?.needed(value("pattern").unwrap_or_default());
    let others =
        given.iter().filter(|(name, _)| !["patterns", PATTERNS_DIR].contains(&name.to_ascii_lowercase().as_str()));
    Ok(others.cloned().chain((!needed.is_empty()).then(|| ("patterns".to_string(), needed))).collect())
}

/// Parses records by a grok pattern.
struct Grok {
    regex: Regex,
    /// The same pattern with `.` matching any byte, for records that are not UTF-8.
    any_bytes: Option<Regex>,
    /// The groups of each field.
    groups: Vec<Vec<usize>>,
    fields: Fields,
    /// The field that is the event time, where any usual spelling of a time is read.
    time: Option<usize>,
    too_many_steps: String,
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    if options.text(PATTERNS_DIR).is_some() {
        return Err(Error::new(Kind::NotSupported, format!("the option \"{PATTERNS_DIR}\" is not known here"))
            .with_hint("Give the definitions with the option patterns."));
    }
    let limit = options.integer("backtrack_limit").unwrap_or(100_000);
    let limit = usize::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| Error::new(Kind::InvalidParameter, "option \"backtrack_limit\" must be greater than 0"))?;
    let library = Library::read(options.text("patterns").unwrap_or_default())?;
    let expanded = library.expand(options.text("pattern").unwrap_or_default())?;
    if expanded.fields.is_empty() {
        return Err(Error::new(Kind::InvalidRegex, "the pattern has no fields")
            .with_hint("Name the parts that become columns, such as '%{IP:client} %{GREEDYDATA:message}'."));
    }
    let regex = compile(&expanded.regex, BytesMode::Unicode, limit)?;
    let names: Vec<Option<&str>> = regex.capture_names().collect();
    let index_of = |group: usize| names.iter().position(|name| *name == Some(format!("f{group}").as_str()));
    let mut groups = vec![Vec::new(); expanded.fields.len()];
    for (group, field) in expanded.groups.iter().enumerate() {
        groups[*field].extend(index_of(group));
    }
    let known = known(&expanded);
    let fields = Fields::new("field", &known, options, declared)?;
    let time_column = fields.time_column().filter(|_| fields.times().format == TimeFormat::Auto);
    Ok(Box::new(Grok {
        any_bytes: compile(&expanded.regex, BytesMode::Ascii, limit).ok(),
        time: known.iter().find(|field| Some(&field.name) == time_column.as_ref()).map(|field| field.source),
        too_many_steps: format!("the pattern takes more than {limit} steps back (option backtrack_limit)"),
        regex,
        groups,
        fields,
    }))
}

fn known(expanded: &Expanded) -> Vec<Known> {
    let field = |(source, field): (usize, &expand::Field)| Known {
        name: field.name.clone(),
        source,
        data_type: field.data_type.clone(),
    };
    expanded.fields.iter().enumerate().map(field).collect()
}

fn compile(regex: &str, mode: BytesMode, limit: usize) -> Result<Regex> {
    let built = RegexBuilder::new(regex)
        .bytes_mode(mode)
        .oniguruma_mode(true)
        .ignore_numbered_groups_when_named_groups_exist(true)
        // What Ruby calls MULTILINE, which Logstash sets, and what Ruby always does with ^ and $.
        .dot_matches_new_line(true)
        .multi_line(true)
        .backtrack_limit(limit)
        .build();
    built.map_err(|err| {
        Error::new(Kind::InvalidRegex, format!("the pattern is not a regular expression: {err}"))
            .with_detail(format!("With all names replaced it is: {}", shortened(regex)))
            .with_hint("The syntax is that of Oniguruma as far as the crate fancy-regex knows it.")
    })
}

fn shortened(text: &str) -> Cow<'_, str> {
    const MOST: usize = 2000;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]).into(),
        None => text.into(),
    }
}

impl Format for Grok {
    fn schema(&self) -> SchemaRef {
        self.fields.schema()
    }

    fn time_column(&self) -> Option<String> {
        self.fields.time_column()
    }

    fn parse(&self, frames: &Frames, received: Micros) -> Parsed {
        let block = Block::new(frames);
        let zone = self.fields.times().zone;
        let years = Years::new(received, zone, None);
        let mut rows = self.fields.rows(frames.len());
        let mut malformed = Vec::new();
        let mut places = vec![None; self.groups.len()];
        for (i, record) in frames.iter().enumerate() {
            let base = frames.range(i).start;
            let found = self.find(record, &mut places).and_then(|()| {
                rows.push(&block, |source| {
                    let (start, end) = places[source]?;
                    if self.time == Some(source)
                        && let Some(time) = any_time(&record[start..end], zone, &years)
                    {
                        return Some(Found::Scalar(Scalar::Time(time)));
                    }
                    Some(Found::Text(Span::new(base + start, base + end)))
                })
            });
            if let Err(reason) = found {
                malformed.push(Malformed { frame: i as u32, reason });
            }
        }
        Parsed { rows: rows.finish(&block), malformed }
    }
}

impl Grok {
    /// Finds the places of the fields in a record, or says why it is none.
    fn find(&self, record: &[u8], places: &mut [Option<(usize, usize)>]) -> Result<(), Cow<'static, str>> {
        if record.is_empty() {
            return Err("empty line".into());
        }
        let matched = match (std::str::from_utf8(record), &self.any_bytes) {
            (Ok(text), _) => self
                .regex
                .captures(text)
                .map(|found| found.map(|groups| self.note(|i| groups.get(i).map(|m| (m.start(), m.end())), places))),
            (Err(_), Some(regex)) => regex
                .captures(record)
                .map(|found| found.map(|groups| self.note(|i| groups.get(i).map(|m| (m.start(), m.end())), places))),
            (Err(_), None) => {
                return Err("the record is not UTF-8, and the pattern asks for characters that are".into());
            }
        };
        match matched {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err("the pattern does not match".into()),
            Err(_) => Err(self.too_many_steps.clone().into()),
        }
    }

    /// Notes the place of each field: of the first of its groups that took part in the match.
    fn note(&self, group: impl Fn(usize) -> Option<(usize, usize)>, places: &mut [Option<(usize, usize)>]) {
        for (place, groups) in places.iter_mut().zip(&self.groups) {
            *place = groups.iter().find_map(|index| group(*index));
        }
    }
}

/// A time as the named patterns of grok find it.
fn any_time(text: &[u8], zone: timestamp::Zone, years: &Years) -> Option<Micros> {
    let yearless = || {
        let (at, rest) = month_day_time(text)?;
        rest.is_empty().then(|| years.resolve(at)).flatten()
    };
    timestamp::auto(text, zone).or_else(yearless).or_else(|| timestamp::apache_error(text, zone))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};

    use super::*;
    use crate::format::real_log;
    use crate::format::timestamp::{Zone, rfc3339};

    fn options(given: &[(&str, &str)]) -> Vec<(String, String)> {
        given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn grok(given: &[(&str, &str)]) -> Box<dyn Format> {
        crate::format::build("grok", &options(given), &[]).unwrap_or_else(|err| panic!("{given:?}: {err}"))
    }

    fn received() -> Micros {
        rfc3339(b"2017-12-01", Zone::UTC).unwrap()
    }

    /// The row of a record as `column=value`, without NULLs.
    fn row(format: &dyn Format, record: &[u8]) -> String {
        let parsed = format.parse(&Frames::from_records([record]), received());
        assert_eq!(parsed.malformed, []);
        let text = |column: &dyn Array| {
            let text = column.as_string_view_opt().map(|c| c.value(0).to_string());
            let int = || column.as_primitive_opt::<Int64Type>().map(|c| c.value(0).to_string());
            let double = || column.as_primitive_opt::<Float64Type>().map(|c| c.value(0).to_string());
            let time = || column.as_primitive_opt::<TimestampMicrosecondType>().map(|c| c.value(0).to_string());
            text.or_else(int).or_else(double).or_else(time).unwrap_or_default()
        };
        let schema = parsed.rows.schema();
        let cells = schema.fields().iter().zip(parsed.rows.columns()).filter(|(_, c)| c.is_valid(0));
        cells.map(|(field, column)| format!("{}={}", field.name(), text(column))).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn fields_types_and_alternatives() {
        let pattern = r"^(?:%{INT:n:int}|%{WORD:[a][b]})(?: took %{NUMBER:took:float})?(?: at %{GREEDYDATA:[a][b]})?";
        let format = grok(&[("pattern", pattern)]);
        for (record, expected) in
            [("7 took 0.5", "n=7|took=0.5"), ("x at y\nz", "a_b=x"), ("7 at y\nz", "n=7|a_b=y\nz")]
        {
            assert_eq!(row(&*format, record.as_bytes()), expected);
        }
        let parsed = format.parse(&Frames::from_text("99999999999999999999\n?\n\n7\n"), 0);
        let reasons: Vec<&str> = parsed.malformed.iter().map(|m| m.reason.as_ref()).collect();
        assert_eq!(reasons, ["n is not a whole number in range", "the pattern does not match", "empty line"]);
    }

    #[test]
    fn times_in_the_spellings_of_the_named_patterns() {
        let noon = rfc3339(b"2017-03-27T12:00:00Z", Zone::UTC).unwrap();
        for (pattern, line) in [
            ("%{SYSLOGTIMESTAMP:timestamp}", "Mar 27 12:00:00"),
            ("%{TIMESTAMP_ISO8601:timestamp}", "2017-03-27T14:00:00+02:00"),
            ("%{HTTPDATE:timestamp}", "27/Mar/2017:12:00:00 +0000"),
            ("%{HTTPDERROR_DATE:timestamp}", "Mon Mar 27 12:00:00 2017"),
            ("%{NUMBER:timestamp}", "1490616000"),
        ] {
            assert_eq!(row(&*grok(&[("pattern", pattern)]), line.as_bytes()), format!("timestamp={noon}"), "{pattern}");
        }
        let given = [("pattern", "%{DATE_EU:day}"), ("time_field", "day"), ("time_format", "%d.%m.%Y %H:%M")];
        let parsed = grok(&given).parse(&Frames::from_text("27.03.2017 12:00"), 0);
        assert_eq!(parsed.malformed[0].reason, "day is not a time in the expected format");
    }

    #[test]
    fn no_record_can_hold_up_a_stream() {
        let format = grok(&[("pattern", r"^(?:(?<x>[a-z]+)(?!_))+[0-9]$"), ("backtrack_limit", "5000")]);
        let parsed = format.parse(&Frames::from_text(format!("{}\nb1\n", "a".repeat(200))), 0);
        assert_eq!(parsed.malformed[0].reason, "the pattern takes more than 5000 steps back (option backtrack_limit)");
        assert_eq!(parsed.rows.num_rows(), 1, "the next line is read");
        let err = crate::format::build("grok", &options(&[("pattern", "%{INT:x}"), ("backtrack_limit", "0")]), &[]);
        assert!(err.err().unwrap().message().contains("greater than 0"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_text_too() {
        let format = grok(&[("pattern", "^%{WORD:a} %{GREEDYDATA:b}$")]);
        assert_eq!(row(&*format, b"x caf\xe9 or so, long"), "a=x|b=caf\u{fffd} or so, long");
    }

    #[test]
    fn definitions_are_kept_with_the_stream() {
        let given =
            options(&[("pattern", "%{A:a} %{B:b}"), ("Patterns_dir", "x"), ("patterns", "B b+"), ("types", "b text")]);
        let inlined = inlined(&given, "A %{C}\nB other\nC c\nD d\n").unwrap();
        let expected = [("pattern", "%{A:a} %{B:b}"), ("types", "b text"), ("patterns", "A %{C}\nB b+\nC c")];
        assert_eq!(inlined, options(&expected));
        let err = crate::format::build("grok", &given, &[]).err().unwrap();
        assert_eq!(err.message(), "the option \"patterns_dir\" is not known here");
    }

    #[test]
    fn mistakes_are_named() {
        let err = |pattern: &str| crate::format::build("grok", &options(&[("pattern", pattern)]), &[]).err().unwrap();
        assert_eq!(err("%{INT}").message(), "the pattern has no fields");
        assert!(err("%{INT:a}(").message().starts_with("the pattern is not a regular expression: "));
        assert!(err("%{INT:a}(").detail().unwrap().ends_with("(?<f0>(?:[+-]?(?:[0-9]+)))("));
    }

    /// Names that cannot be compiled, with the reason: none.
    fn uncompiled<'a>(definitions: &'a str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
        let library = Library::read(definitions).unwrap();
        let mut failed = Vec::new();
        for name in names {
            let expanded = library.expand(&format!("%{{{name}:x}}"));
            let compiled = expanded.and_then(|e| compile(&e.regex, BytesMode::Unicode, 1000).map(|_| e));
            match compiled {
                Ok(expanded) => {
                    println!("{name:32} {:3} fields, {:6} bytes", expanded.fields.len() - 1, expanded.regex.len())
                }
                Err(err) => {
                    println!("{name:32} {err}");
                    failed.push(format!("{name}: {}", err.message()));
                }
            }
        }
        failed
    }

    #[test]
    fn every_built_in_pattern_compiles() {
        assert_eq!(uncompiled("", ::grok::patterns().iter().map(|(name, _)| *name)), [""; 0]);
    }

    /// Logstash's own files, which name fields by the Elastic Common Schema.
    fn logstash() -> Option<String> {
        let files = ["grok-patterns", "haproxy", "httpd", "java", "linux-syslog", "mongodb", "postgresql", "redis"];
        let texts = files.iter().map(|name| String::from_utf8(real_log(&format!("grok/{name}"))?).ok());
        texts.collect::<Option<Vec<_>>>().map(|texts| texts.join("\n"))
    }

    #[test]
    fn every_pattern_of_logstash_compiles() {
        let Some(definitions) = logstash() else { return };
        let mut names: Vec<&str> = Library::read(&definitions).unwrap().names().collect();
        names.sort_unstable();
        assert_eq!(uncompiled(&definitions, names.into_iter()), [""; 0]);
    }

    /// How many lines of a real log fit, of how many, and the first row.
    fn real(log: &str, given: &[(&str, &str)]) -> Option<(usize, usize, String)> {
        let frames = Frames::from_text(real_log(log)?);
        let format = grok(given);
        let parsed = format.parse(&frames, received());
        let first = (0..frames.len()).find(|i| parsed.malformed.iter().all(|m| m.frame as usize != *i));
        Some((parsed.rows.num_rows(), frames.len(), first.map_or(String::new(), |i| row(&*format, frames.get(i)))))
    }

    #[test]
    fn real_lines_with_the_built_in_patterns() {
        for (log, pattern, rows, lines, first) in [
            (
                "access/apache_combined_10k.log",
                "%{COMBINEDAPACHELOG}",
                9999,
                10_000,
                "clientip=83.149.9.216|ident=-|auth=-|timestamp=1431857103000000|verb=GET|request=/presentations/logstash-monitorama-2013/images/kibana-search.png|httpversion=1.1|response=200|bytes=203023",
            ),
            (
                "syslog/auth.log",
                "%{SYSLOGLINE}",
                7121,
                7121,
                "timestamp=1490620016000000|logsource=ip-10-77-20-248|program=sshd|pid=1291|message=Server listening on 0.0.0.0 port 22.",
            ),
        ] {
            let Some(found) = real(log, &[("pattern", pattern)]) else { continue };
            assert_eq!((found.0, found.1), (rows, lines), "{log}");
            assert!(found.2.starts_with(first), "{log}: {}", found.2);
        }
    }

    #[test]
    fn real_lines_with_the_patterns_of_logstash() {
        let Some(definitions) = logstash() else { return };
        let given = [("pattern", "%{COMBINEDAPACHELOG}"), ("patterns", definitions.as_str())];
        let Some((rows, _, first)) = real("access/apache_combined_10k.log", &given) else { return };
        assert_eq!(rows, 9999);
        let expected = "source_address=83.149.9.216|timestamp=1431857103000000|http_request_method=GET|url_original=/presentations/logstash-monitorama-2013/images/kibana-search.png|http_version=1.1|http_response_status_code=200|http_response_body_bytes=203023|http_request_referrer=";
        assert!(first.starts_with(expected), "{first}");
        let given = [("pattern", "%{HAPROXYHTTP}"), ("patterns", definitions.as_str())];
        let Some((rows, lines, first)) = real("formats/lnav/logfile_haproxy.0", &given) else { return };
        assert_eq!((rows, lines), (13, 17), "the others are no requests");
        assert!(first.contains("|haproxy_frontend_name=prod_http_in~|haproxy_backend_name=bk_admin|"), "{first}");
        assert!(first.contains("|haproxy_connections_active=2|"), "{first}");
    }

    /// The pattern of an article on Db2's diagnostic log, on records of several lines.
    #[test]
    fn the_recipe_for_db2() {
        let Some(article) = real_log("multiline/ibm_article_excerpt.txt") else { return };
        let article = String::from_utf8(article).unwrap();
        let pattern = article.lines().find_map(|l| l.strip_prefix("\"(?<timestamp>")).unwrap().trim_end_matches('"');
        let pattern = format!("(?<timestamp>{pattern}");
        let format = grok(&[("pattern", &pattern), ("time_format", "%Y-%m-%d-%H.%M.%S%.f")]);
        let db2 = crate::format::build("db2diag", &[], &[]).unwrap();
        for name in ["multiline/hadr_pcmk1_2023.db2diag.log", "multiline/db2inst1_lab_2025.db2diag.log"] {
            let Some(log) = real_log(name) else { return };
            let frames = crate::format::joined(&*db2, &Frames::from_text(log));
            let parsed = format.parse(&frames, 0);
            assert_eq!((parsed.rows.num_rows(), parsed.malformed.as_slice()), (frames.len(), &[][..]), "{name}");
        }
    }
}
