//! Extended log file format of the W3C: format `w3c`, as IIS, CloudFront and proxies write it.
//!
//!     #Software: Microsoft Internet Information Services 8.5
//!     #Fields: date time s-ip cs-method cs-uri-stem cs(User-Agent) sc-status time-taken
//!     2015-01-13 00:32:17 100.79.192.81 GET /robots.txt Mozilla/5.0+(compatible) 404 283
//!
//! (W3C working draft WD-logfile.) The directive `#Fields:` names the values of the lines below it, until the next one:
//! it is learned as a header of [`super::learning::table`]. Names become columns in lower case with `_` for all other
//! characters: `cs_user_agent`. `date` and `time` together are the column `ts`, in UTC as the draft has it unless option
//! `timezone` says otherwise. Where lines have a `time` alone, the date is that of the last `#Date:` above them
//! ([`super::learning::days`]). What is a number by its name is one, all else is text; `-` is NULL. Values are separated by
//! blanks or tabs, and may be quoted, with quotes doubled inside.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use memchr::{memchr, memchr2};

use super::column::Span;
use super::fields::TYPES;
use super::learning::distinct;
use super::learning::table::{Line, Rules, Syntax, Table};
use super::learning::value::{Decode, Value};
use super::learning::{MAX_COLUMNS, MAX_HEADERS, TIME_FIELD};
use super::timestamp::{self, TIME_FORMAT, TIMEZONE, month_by_name, number, time_of_day};
use super::{Declared, Format, Spec, quotes};
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "w3c",
    aliases: &["iis", "w3c_extended"],
    summary: "Extended log of IIS, CloudFront and others, whose #Fields line names the columns",
    columns: &[],
    options: &[
        OptionSpec::optional(
            "fields",
            OptionKind::Text,
            None,
            "names of the values until a #Fields line says otherwise, such as 'date time cs-method sc-status'",
        ),
        TYPES,
        TIME_FIELD,
        TIME_FORMAT,
        TIMEZONE,
        MAX_COLUMNS,
        MAX_HEADERS,
    ],
    sample: concat!(
        "#Software: Microsoft Internet Information Services 8.5\n",
        "#Version: 1.0\n",
        "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs(User-Agent) sc-status time-taken\n",
        "2015-01-13 00:32:17 100.79.192.81 GET /robots.txt - 80 Mozilla/5.0+(compatible;+bingbot/2.0) 404 283\n",
        "2015-01-13 00:32:18.250\t100.79.192.81\tPOST\t/a q=%20 443 \"said \"\"hi\"\", and left\" 200 1405\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

/// Names whose values are numbers.
const NUMBERS: &[(&str, DataType)] = &[
    ("s_port", DataType::Int32),
    ("c_port", DataType::Int32),
    ("cs_uri_port", DataType::Int32),
    ("sc_status", DataType::Int32),
    ("sc_substatus", DataType::Int32),
    ("sc_win32_status", DataType::Int64),
    ("sc_bytes", DataType::Int64),
    ("cs_bytes", DataType::Int64),
    ("bytes", DataType::Int64),
    ("time_taken", DataType::Float64),
    ("timetakenms", DataType::Float64),
    ("time_to_first_byte", DataType::Float64),
];

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let names_at_first = options.text("fields").map(|fields| names(fields.as_bytes()));
    if names_at_first.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::new(Kind::InvalidParameter, "option \"fields\" names nothing"));
    }
    let number =
        |(name, data_type): &(&str, DataType)| Declared { name: name.to_string(), data_type: data_type.clone() };
    let rules = Rules { names_at_first, types: NUMBERS.iter().map(number).collect(), ..Rules::default() };
    Ok(Box::new(Table::new(W3c, rules, options, declared)?))
}

struct W3c;

impl Syntax for W3c {
    fn split(&self, line: &[u8], base: usize, values: &mut Vec<Value>) -> Result<Line, Cow<'static, str>> {
        if let Some(directive) = line.strip_prefix(b"#") {
            let colon = memchr(b':', directive).unwrap_or(directive.len());
            let (name, says) = directive.split_at(colon);
            return match (name.to_ascii_lowercase().as_slice(), says.get(1..)) {
                (b"fields", Some(fields)) => match names(fields) {
                    names if names.is_empty() => Err("#Fields names nothing".into()),
                    names => Ok(Line::Header(names)),
                },
                (b"date" | b"start-date", Some(date)) => match moment(date) {
                    Some(moment) => Ok(Line::Dated(moment)),
                    None => Err("a date that is not readable".into()),
                },
                _ => Ok(Line::Directive),
            };
        }
        let mut at = 0;
        loop {
            at += line[at..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            if at == line.len() {
                return Ok(Line::Values);
            }
            if line[at] == b'"' {
                let (end, escaped) = quotes::doubled(line, at + 1, b'"')
                    .ok_or_else(|| format!("value {} has no closing quote", values.len() + 1))?;
                let span = Span::new(base + at + 1, base + end);
                values.push(match (end == at + 1, escaped) {
                    (true, _) => Value::Null,
                    (false, true) => Value::Text { span, escaped },
                    (false, false) => Value::Word(span),
                });
                at = end + 1;
            } else {
                let end = memchr2(b' ', b'\t', &line[at..]).map_or(line.len(), |len| at + len);
                let null = line[at..end] == *b"-";
                values.push(if null { Value::Null } else { Value::Word(Span::new(base + at, base + end)) });
                at = end;
            }
        }
    }
}

impl Decode for W3c {
    fn decode(&self, inside: &[u8]) -> Option<String> {
        Some(String::from_utf8_lossy(inside).replace("\"\"", "\""))
    }
}

/// `2002-05-02 17:42:15` as IIS writes it, `12-Jan-1996 00:00:00` as the draft's example has it, and what is like them, in
/// microseconds since 1970 on the clock that showed it. What follows is a remark.
fn moment(text: &[u8]) -> Option<Micros> {
    let text = text.trim_ascii();
    let (date, rest) = match text.get(2)? {
        b'-' | b'/' => text.split_at_checked(11)?,
        _ => text.split_at_checked(10)?,
    };
    let separator = |b: &u8| matches!(b, b'-' | b'/');
    let parts: Vec<&[u8]> = date.split(separator).collect();
    let [year, month, day] = match parts[..] {
        [day, month, year] if year.len() == 4 => [number(year)?, month_by_name(month)?, number(day)?],
        [year, month, day] => [number(year)?, number(month)?, number(day)?],
        _ => return None,
    };
    let ([hour, minute, second, micros], _) = match rest.trim_ascii_start() {
        b"" => ([0; 4], &[][..]),
        time => time_of_day(time.strip_prefix(b"T").unwrap_or(time))?,
    };
    timestamp::moment(year, month, day, hour, minute, second, micros)
}

/// `date cs(User-Agent)` → `date`, `cs_user_agent`.
fn names(fields: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(fields);
    let name = |field: &str| {
        let lower = field.to_ascii_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        Cow::Owned(words.join("_"))
    };
    distinct(text.split_whitespace().map(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{DIRECTIVE, HEADER_LINE, Origin, real_log, rows_as_text};
    use crate::frame::Frames;

    fn w3c(given: &[(&str, &str)], declared: &[Declared]) -> Box<dyn Format> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("w3c", &given, declared).unwrap()
    }

    fn parse(format: &dyn Format, text: impl Into<Vec<u8>>) -> (Vec<String>, Vec<String>) {
        let parsed = format.parse(&Frames::from_text(text), 0);
        (rows_as_text(&parsed.rows), parsed.malformed.into_iter().map(|m| m.reason.into_owned()).collect())
    }

    #[test]
    fn the_sample() {
        let (rows, reasons) = parse(&*w3c(&[], &[]), SPEC.sample);
        let expected = [
            "ts=2015-01-13T00:32:17Z s_ip=100.79.192.81 cs_method=GET cs_uri_stem=/robots.txt s_port=80 \
             cs_user_agent=Mozilla/5.0+(compatible;+bingbot/2.0) sc_status=404 time_taken=283.0",
            "ts=2015-01-13T00:32:18.250Z s_ip=100.79.192.81 cs_method=POST cs_uri_stem=/a cs_uri_query=q=%20 s_port=443 \
             cs_user_agent=said \"hi\", and left sc_status=200 time_taken=1405.0",
        ];
        assert_eq!(rows, expected);
        assert_eq!(reasons, [DIRECTIVE, DIRECTIVE, HEADER_LINE]);
    }

    #[test]
    fn fields_change() {
        let format = w3c(&[("fields", "date time sc-status"), ("timezone", "Europe/Berlin")], &[]);
        let text = "2015-01-13 00:00:00 200\n#Fields: sc-status cs-method date time\n404 7 2015-01-13 01:00:00\n1 2\n";
        let (rows, reasons) = parse(&*format, text);
        let expected = ["ts=2015-01-12T23:00:00Z sc_status=200", "ts=2015-01-13T00:00:00Z sc_status=404 cs_method=7"];
        assert_eq!(rows, expected);
        assert_eq!(reasons, [HEADER_LINE, "2 values for 4 columns"]);
        assert_eq!(parse(&*w3c(&[], &[]), "1 2\n#Fields:\n").1, ["no header line above it", "#Fields names nothing"]);
        assert!(crate::format::build("w3c", &[("fields".into(), " ".into())], &[]).is_err());
    }

    #[test]
    fn the_date_may_stand_above() {
        let format = w3c(&[("timezone", "+01:00")], &[]);
        let text = "#Fields: time x\n00:00:01 0\n#Date: 2002-12-31 23:59:00 // as the log was made\n23:59:01 1\n\
                    00:00:01.5 2\n23:59:59 3\n00:00:02 4\n24:00:00 5\n#DATE:12-Jan-1996\n12:00:00 6\n";
        let (rows, reasons) = parse(&*format, text);
        let expected = [
            "time=2002-12-31T22:59:01Z x=1",
            "time=2002-12-31T23:00:01.500Z x=2",
            "time=2002-12-31T22:59:59Z x=3",
            "time=2002-12-31T23:00:02Z x=4",
            "time=1996-01-12T11:00:00Z x=6",
        ];
        assert_eq!(rows, expected);
        let (dateless, unreadable) =
            ("\"time\" is a time of day, and no line above says the date", "no readable time in \"time\"");
        assert_eq!(reasons, [HEADER_LINE, dateless, DIRECTIVE, unreadable, DIRECTIVE]);
        // What was learned goes on, in another process too.
        let again = w3c(&[("timezone", "+01:00")], &[]);
        again.recall(&format.learned().unwrap()).unwrap();
        let next = Origin { partition: "", offset: 20, start: false };
        let parsed = again.parse_at(&Frames::from_text("23:00:00 7\n00:10:00 8\n"), 0, next);
        assert_eq!(rows_as_text(&parsed.rows), ["time=1996-01-12T22:00:00Z x=7", "time=1996-01-12T23:10:00Z x=8"]);
        for wrong in ["", "soon", "2002-13-01", "31-Feb-2002", "2002-12-31 25:00", "1/2/3 4:5"] {
            assert_eq!(
                parse(&*w3c(&[], &[]), format!("#Date: {wrong}\n")).1,
                ["a date that is not readable"],
                "{wrong}"
            );
        }
        for right in ["28/Jun/2017 07:28:59", "2017-06-28T07:28:59Z", "2017/06/28 07:28:59.5"] {
            assert_eq!(parse(&*w3c(&[], &[]), format!("#Start-Date: {right}\n")).1, [DIRECTIVE], "{right}");
        }
    }

    #[test]
    fn declared_columns_are_a_choice() {
        let declared = |name: &str, data_type| Declared { name: name.into(), data_type };
        let given = [declared("sc_status", DataType::Int16), declared("ts", crate::format::timestamp_type())];
        let format = w3c(&[], &given);
        assert_eq!(format.time_column().as_deref(), Some("ts"));
        let (rows, reasons) = parse(&*format, SPEC.sample);
        assert_eq!(rows[0], "sc_status=404 ts=2015-01-13T00:32:17Z");
        assert_eq!(reasons[2], HEADER_LINE);
    }

    #[test]
    fn real_files() {
        for (name, rows, malformed) in [
            ("w3c.0", 1, 4),
            ("w3c.1", 1, 6),
            ("w3c.2", 14, 8),
            ("w3c.3", 3, 7),
            ("w3c.4", 2, 4),
            ("w3c.5", 0, 2),
            ("w3c.6", 1, 4),
            ("w3c_big.0", 210, 44),
        ] {
            let Some(log) = real_log(&format!("formats/lnav/logfile_{name}")) else { return };
            let (found, reasons) = parse(&*w3c(&[], &[]), log);
            assert_eq!((found.len(), reasons.len()), (rows, malformed), "{name}: {reasons:?}");
        }
    }
}
