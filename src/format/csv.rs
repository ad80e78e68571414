//! Separated values: formats `csv` (RFC 4180) and `tsv`.
//!
//!     ts,status,message
//!     2024-05-20T00:00:18Z,200,"said ""hello"", and left"
//!
//! A value in quotes may hold the delimiter, line breaks (where the framing leaves them in) and the quote itself, doubled.
//! Unquoted values are taken as they are, blanks and quotes inside included. Nothing without quotes is NULL, nothing in
//! quotes is a text without characters.
//!
//! Columns have the names of option `columns`, or of the header line that is the first line of each file, or of the
//! declared columns in their order. Their types are declared, named in option `types`, or learned as
//! [`super::learning`] says. A header that comes again further down is no row either.

use std::borrow::Cow;

use memchr::memchr;

use super::column::Span;
use super::fields::TYPES;
use super::learning::table::{Line, Rules, Syntax, Table};
use super::learning::value::{Decode, Value};
use super::learning::{MAX_COLUMNS, MAX_HEADERS, TIME_FIELD};
use super::timestamp::{TIME_FORMAT, TIMEZONE};
use super::{Declared, Format, Spec, quotes};
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};

pub static CSV: Spec = Spec {
    name: "csv",
    aliases: &[],
    summary: "Values separated by commas, with the names of columns in a header line or an option",
    columns: &[],
    options: &options(",", "\""),
    sample: concat!(
        "ts,client,status,took,message\n",
        "2024-05-20T00:00:18Z,10.0.0.7,200,0.25,\"GET /a, HTTP/1.1\"\n",
        "2024-05-20 00:00:19,::1,404,1,\"the \"\"late\"\" page\"\n",
        "2024-05-20 00:00:20,\"\",,,\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

pub static TSV: Spec = Spec {
    name: "tsv",
    aliases: &[],
    summary: "Values separated by tabs, with the names of columns in a header line or an option",
    columns: &[],
    options: &options("\\t", ""),
    sample: concat!(
        "ts\tclient\tstatus\tmessage\n",
        "2024-05-20T00:00:18Z\t10.0.0.7\t200\tsaid \"hello\"\n",
        "2024-05-20T00:00:19Z\t\t404\t\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

const fn options(delimiter: &'static str, quote: &'static str) -> [OptionSpec; 11] {
    [
        OptionSpec::optional(
            "delimiter",
            OptionKind::Text,
            Some(delimiter),
            "what stands between values: one character, or \\t for a tab",
        ),
        OptionSpec::optional(
            "quote",
            OptionKind::Text,
            Some(quote),
            "what stands around values that hold a delimiter: one character; nothing: quotes are not special",
        ),
        OptionSpec::optional(
            "header",
            OptionKind::Bool,
            None,
            "whether the first line of each file names the columns; true when nothing else names them",
        ),
        OptionSpec::optional(
            "columns",
            OptionKind::Text,
            None,
            "names of the columns in their order, such as 'ts, client, status'",
        ),
        OptionSpec::optional(
            "nulls",
            OptionKind::Text,
            None,
            "values without quotes that are NULL, as nothing always is, such as 'NULL, -, \\N'",
        ),
        TYPES,
        TIME_FIELD,
        TIME_FORMAT,
        TIMEZONE,
        MAX_COLUMNS,
        MAX_HEADERS,
    ]
}

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let list = |name: &str| {
        let entries = options.text(name).unwrap_or_default().split(',').map(|entry| entry.trim().to_string());
        entries.filter(|entry| !entry.is_empty()).collect::<Vec<String>>()
    };
    let values = Values {
        delimiter: one_byte("delimiter", options)?.ok_or_else(|| invalid("option \"delimiter\" is empty"))?,
        quote: one_byte("quote", options)?,
        nulls: list("nulls").into_iter().map(String::into_bytes).collect(),
    };
    if values.quote == Some(values.delimiter) {
        return Err(invalid("options \"delimiter\" and \"quote\" are the same character"));
    }
    let columns = list("columns");
    if let Some(twice) = columns.iter().enumerate().find(|(i, name)| columns[..*i].contains(name)) {
        return Err(Error::new(Kind::DuplicateObject, format!("option \"columns\" names \"{}\" twice", twice.1)));
    }
    let headed = match options.text("header") {
        Some(_) => options.bool("header"),
        None => columns.is_empty() && declared.is_empty(),
    };
    let names = match (columns.is_empty(), headed) {
        (false, _) => Some(columns),
        (true, true) => None,
        (true, false) if declared.is_empty() => {
            return Err(invalid("without a header line, nothing names the columns")
                .with_hint("Name them with columns = 'ts, client, status', or declare them."));
        }
        (true, false) => Some(declared.iter().map(|c| c.name.clone()).collect()),
    };
    let rules = Rules { names, headed, infer: true, ..Rules::default() };
    Ok(Box::new(Table::new(values, rules, options, declared)?))
}

fn invalid(message: &str) -> Error {
    Error::new(Kind::InvalidParameter, message)
}

/// An option's one character; `None` when it is empty.
fn one_byte(name: &str, options: &Options) -> Result<Option<u8>> {
    match options.text(name).unwrap_or_default() {
        "" => Ok(None),
        "\\t" | "tab" => Ok(Some(b'\t')),
        text if text.len() == 1 && !matches!(text, "\n" | "\r") => Ok(Some(text.as_bytes()[0])),
        text => Err(invalid(&format!("option \"{name}\" takes one ASCII character, not \"{text}\""))),
    }
}

/// Cuts a line into values.
struct Values {
    delimiter: u8,
    quote: Option<u8>,
    nulls: Vec<Vec<u8>>,
}

/// What programs of one vendor write before the first name.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

impl Syntax for Values {
    fn split(&self, line: &[u8], base: usize, values: &mut Vec<Value>) -> Result<Line, Cow<'static, str>> {
        let mut at = if line.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        loop {
            let end = match self.quote.filter(|quote| line.get(at) == Some(quote)) {
                Some(quote) => {
                    let (end, escaped) = quotes::doubled(line, at + 1, quote)
                        .ok_or_else(|| format!("value {} has no closing quote", values.len() + 1))?;
                    let span = Span::new(base + at + 1, base + end);
                    values.push(if escaped { Value::Text { span, escaped } } else { Value::Word(span) });
                    if line.get(end + 1).is_some_and(|next| *next != self.delimiter) {
                        return Err(format!("text behind the closing quote of value {}", values.len()).into());
                    }
                    end + 1
                }
                None => {
                    let end = memchr(self.delimiter, &line[at..]).map_or(line.len(), |len| at + len);
                    let value = &line[at..end];
                    let null = value.is_empty() || self.nulls.iter().any(|null| null == value);
                    values.push(if null { Value::Null } else { Value::Word(Span::new(base + at, base + end)) });
                    end
                }
            };
            if end >= line.len() {
                return Ok(Line::Values);
            }
            at = end + 1;
        }
    }
}

impl Decode for Values {
    fn decode(&self, inside: &[u8]) -> Option<String> {
        let quote = char::from(self.quote?).to_string();
        Some(String::from_utf8_lossy(inside).replace(&quote.repeat(2), &quote))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::format::{HEADER_LINE, Origin, rows_as_text, timestamp_type};
    use crate::frame::Frames;

    fn csv(given: &[(&str, &str)], declared: &[Declared]) -> Result<Box<dyn Format>> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("csv", &given, declared)
    }

    fn rows(format: &dyn Format, text: &str) -> Vec<String> {
        rows_as_text(&format.parse(&Frames::from_text(text), 0).rows)
    }

    fn reasons(format: &dyn Format, text: &str) -> Vec<String> {
        format.parse(&Frames::from_text(text), 0).malformed.into_iter().map(|m| m.reason.into_owned()).collect()
    }

    const T: &str = "1970-01-01T00:00:01Z";

    #[test]
    fn the_sample() {
        let format = csv(&[], &[]).unwrap();
        let parsed = format.parse(&Frames::from_text(CSV.sample), 0);
        let expected = [
            "ts=2024-05-20T00:00:18Z client=10.0.0.7 status=200 took=0.25 message=GET /a, HTTP/1.1",
            "ts=2024-05-20T00:00:19Z client=::1 status=404 took=1.0 message=the \"late\" page",
            "ts=2024-05-20T00:00:20Z",
        ];
        assert_eq!(rows_as_text(&parsed.rows), expected);
        assert_eq!(parsed.rows.column_by_name("client").unwrap().null_count(), 0, "quoted nothing is a text");
        let types: Vec<_> = format.schema().fields().iter().map(|f| f.data_type().clone()).collect();
        let text = DataType::Utf8View;
        assert_eq!(types, [timestamp_type(), text.clone(), DataType::Int64, DataType::Float64, text]);
    }

    #[test]
    fn quotes() {
        let format = csv(&[("columns", "a,b"), ("time_field", "none")], &[]).unwrap();
        let text = "\"x\"\"\",\"\"\"\"\n x \"y\" ,z\n\"aa,a\",b\n";
        assert_eq!(rows(&*format, text), ["a=x\" b=\"", "a=x \"y\" b=z", "a=aa,a b=b"]);
        let text = "\"x\n\"x\"y,z\nx,\"\nx\nx,y,z\n";
        let expected = [
            "value 1 has no closing quote",
            "text behind the closing quote of value 1",
            "value 2 has no closing quote",
            "1 values for 2 columns",
            "3 values for 2 columns",
        ];
        assert_eq!(reasons(&*format, text), expected);
        // A record of several lines, as a framing that knows quotes hands it over.
        let bytes = b"\"one\ntwo\",z\n".to_vec();
        let frames = Frames { ends: vec![bytes.len() as u32], bytes: bytes.into(), cut: Vec::new() };
        let parsed = format.parse(&frames, 0);
        assert_eq!(parsed.rows.num_rows(), 1);
        let value = arrow::array::AsArray::as_string_view(parsed.rows.column(0)).value(0).to_string();
        assert_eq!(value, "one\ntwo");
    }

    #[test]
    fn headers_come_and_change() {
        let format = csv(&[], &[]).unwrap();
        let at = |partition: &'static str, offset: u64, start: bool, text: &str| {
            let parsed = format.parse_at(&Frames::from_text(text), 0, Origin { partition, offset, start });
            let reasons: Vec<String> = parsed.malformed.into_iter().map(|m| m.reason.into_owned()).collect();
            (rows_as_text(&parsed.rows), reasons)
        };
        let (rows, reasons) = at("a", 0, false, "1,2\n");
        assert_eq!((rows.len(), reasons), (0, vec!["no header line above it".to_string()]));
        let (rows, reasons) = at("a", 1, true, "ts,x\n1,2\nts,x\n1,3\n");
        assert_eq!(rows, [format!("ts={T} x=2"), format!("ts={T} x=3")]);
        assert_eq!(reasons, [HEADER_LINE, HEADER_LINE]);
        // Another file has its columns in another order, and more of them.
        assert_eq!(at("b", 5, true, "y,x,ts\nu,4,1\n").0, [format!("ts={T} x=4 y=u")]);
        assert_eq!(at("b", 7, false, "v,5,1\n").0, [format!("ts={T} x=5 y=v")]);
        assert_eq!(at("a", 8, false, "1,6\n").0, [format!("ts={T} x=6")]);
        // A file without its header, and lines that are parsed once more.
        assert_eq!(at("c", 9, true, "1,7\n").0, [format!("ts={T} x=7")]);
        assert_eq!(at("b", 7, false, "v,5,1\n").0, [format!("ts={T} x=5 y=v")]);
        // A new process goes on with what was learned.
        let again = csv(&[], &[]).unwrap();
        again.recall(&format.learned().unwrap()).unwrap();
        assert_eq!(again.schema(), format.schema());
        let parsed =
            again.parse_at(&Frames::from_text("v,5,1\n"), 0, Origin { partition: "b", offset: 7, start: false });
        assert_eq!(rows_as_text(&parsed.rows), [format!("ts={T} x=5 y=v")]);
    }

    #[test]
    fn a_column_has_no_type_before_its_first_value() {
        let format = csv(&[], &[]).unwrap();
        assert_eq!(rows(&*format, "ts,a,b,c\n"), [""; 0]);
        assert_eq!(format.schema().fields().len(), 1);
        let learned = format.learned().unwrap();
        for format in [format, csv(&[], &[]).unwrap()] {
            format.recall(&learned).unwrap();
            assert_eq!(rows(&*format, "1,,0.5,7\n"), [format!("ts={T} b=0.5 c=7")]);
            assert_eq!(rows(&*format, "1,x,y,8\n"), [format!("ts={T} c=8 a=x b__text=y")]);
        }
    }

    #[test]
    fn columns_are_declared_or_named() {
        let declared = |name: &str, data_type| Declared { name: name.into(), data_type };
        let given =
            [declared("ts", timestamp_type()), declared("n", DataType::Int16), declared("t", DataType::Utf8View)];
        // In their order, when there is no header.
        let format = csv(&[("nulls", "-, NULL")], &given).unwrap();
        assert_eq!(format.time_column().as_deref(), Some("ts"));
        let text = "1,7,007\n1,70000,-\n1,NULL,x\nx,1,\n";
        assert_eq!(
            rows(&*format, text),
            [format!("ts={T} n=7 t=007"), format!("ts={T} n__double=70000.0"), format!("ts={T} t=x")]
        );
        assert_eq!(reasons(&*format, text), ["no readable time in \"ts\""]);
        // By name, when there is one.
        let format = csv(&[("header", "true")], &given).unwrap();
        assert_eq!(rows(&*format, "N,more,TS\n8,x,1\n"), [format!("ts={T} n=8")]);
        assert_eq!(reasons(&*format, "N,more,TS\n"), ["header line without the declared columns: t"]);
        // Names of the user's own above the file's.
        let format = csv(&[("columns", "when,n"), ("header", "true"), ("time_field", "when")], &[]).unwrap();
        let text = "a,b\n1,2\n";
        assert_eq!(
            (rows(&*format, text), reasons(&*format, text)),
            (vec![format!("when={T} n=2")], vec![HEADER_LINE.into()])
        );
        let types = [("columns", "ts,n"), ("types", "n text"), ("delimiter", ";"), ("timezone", "Europe/Berlin")];
        assert_eq!(rows(&*csv(&types, &[]).unwrap(), "1970-01-01 01:00:01;7\n"), [format!("ts={T} n=7")]);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |given: &[(&str, &str)]| csv(given, &[]).err().unwrap().message().to_string();
        assert_eq!(message(&[("header", "false")]), "without a header line, nothing names the columns");
        assert_eq!(message(&[("delimiter", "::")]), "option \"delimiter\" takes one ASCII character, not \"::\"");
        assert_eq!(message(&[("delimiter", "\"")]), "options \"delimiter\" and \"quote\" are the same character");
        assert_eq!(message(&[("columns", "a,b,a")]), "option \"columns\" names \"a\" twice");
        let slip = [("columns", "a,when"), ("time_field", "wen")];
        assert_eq!(message(&slip), "unknown column for the event time: \"wen\"; did you mean \"when\"?");
        assert_eq!(
            message(&[("columns", "a,b,c"), ("max_columns", "2")]),
            "3 columns are more than max_columns allows"
        );
    }
}
