//! JSON lines: format `json`, one object on each line.
//!
//! Receives lines, hands on a column for each member name of the objects' top level; nested objects and arrays are
//! columns of their JSON text. The columns and their types are learned as [`super::learning`] says.

mod members;

use std::borrow::Cow;

pub use self::members::unescape;
use super::learning::objects::{Member, Objects, Syntax};
use super::learning::value::Decode;
use super::learning::{MAX_COLUMNS, TIME_FIELD};
use super::timestamp::{TIME_FORMAT, TIMEZONE};
use super::{Declared, Format, Spec};
use crate::error::Result;
use crate::options::Options;

pub static SPEC: Spec = Spec {
    name: "json",
    aliases: &["jsonl", "ndjson", "json_lines"],
    summary: "One JSON object a line; columns and types are learned from the objects",
    columns: &[],
    options: &[TIME_FIELD, TIME_FORMAT, TIMEZONE, MAX_COLUMNS],
    sample: concat!(
        "{\"ts\":\"2018-03-24T17:15:20.865716Z\",\"uid\":\"CqKst53\",\"id.orig_p\":41772,\"rtt\":0.9,\"AA\":false}\n",
        "{\"ts\":1521911720.9,\"uid\":\"C8bqc84\",\"id.orig_p\":\"http\",\"answers\":[\"a\",\"b\"],\"query\":null}\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

fn build(options: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    Ok(Box::new(Objects::new(Json, options, declared)?))
}

/// Finds the members of JSON objects.
struct Json;

impl Syntax for Json {
    const JSON: bool = true;

    fn members(&self, line: &[u8], base: usize, found: &mut Vec<Member>) -> Result<(), Cow<'static, str>> {
        members::members(line, base, found)
    }
}

impl Decode for Json {
    fn decode(&self, inside: &[u8]) -> Option<String> {
        unescape(inside)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use arrow::datatypes::DataType;

    use super::*;
    use crate::format::{real_log, rows_as_text, timestamp_type};
    use crate::frame::Frames;

    fn json(given: &[(&str, &str)], declared: &[Declared]) -> Box<dyn Format> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format::build("json", &given, declared).unwrap()
    }

    /// The rows of a block as `column=value`, without NULLs.
    fn rows(format: &dyn Format, text: &str) -> Vec<String> {
        let parsed = format.parse(&Frames::from_text(text), 0);
        assert_eq!(parsed.rows.schema(), format.schema());
        rows_as_text(&parsed.rows)
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
        assert_eq!(rows(&*format, "{\"ts\":1,\"b\":3}\n"), [format!("ts={T} b=3")]);
        let parsed = format.parse(&Frames::from_text(text), 0);
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
    fn what_an_older_version_learned_is_known() {
        let column = |name: &str, kind: &str| serde_json::json!({"name": name, "key": name, "kind": kind, "converts": false, "siblings": [null, null]});
        let learned =
            serde_json::json!({"columns": [column("ts", "Time"), column("b", "Int")], "time": 0, "rest": null});
        let format = json(&[], &[]);
        format.recall(&learned).unwrap();
        assert_eq!(format.schema().fields().len(), 2);
        assert_eq!(rows(&*format, "{\"a\":1,\"b\":2,\"ts\":1}\n"), [format!("ts={T} b=2 a=1")]);
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
            let parsed = format.parse(&frames, 0);
            assert_eq!((parsed.rows.num_rows(), parsed.malformed.len()), (frames.len(), 0), "{name}");
            assert_eq!(format.time_column().as_deref(), Some(time));
            let times = parsed.rows.column_by_name(time).unwrap();
            assert_eq!(times.null_count(), 0, "{name}");
        }
    }
}
