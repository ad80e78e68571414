//! The push API of Loki, which Promtail, Grafana Alloy, Vector, Fluent Bit and libraries for many languages speak:
//! `POST /loki/api/v1/push`, as JSON or as protobuf packed with snappy (grafana.com/docs/loki, "HTTP API", "Ingest logs";
//! the messages are those of Loki's `logproto/push.proto`).
//!
//! An entry becomes one line of JSON: its labels and structured metadata, `timestamp` and `line`. A stream of another format
//! gets the line alone. The stream is `loki` unless the request names one; senders of Loki take a whole address, such as
//! `http://host:7480/v1/streams/NAME/loki/api/v1/push`.

use std::fmt;

use axum::http::StatusCode;
use axum::response::Response;
use prost::Message;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use super::intake::{Batch, Intake, Outcome};
use super::json::{Line, string, time};
use super::otlp::room_for_json;
use super::protobuf::{Fields, Value, broken, messages};
use super::{Call, Protocol, reply, status};
use crate::error::{Error, Kind, Result};

pub static PROTOCOL: Protocol = Protocol {
    name: "loki",
    summary: "the push API of Loki, as JSON or snappy protobuf: Promtail, Grafana Alloy, Vector, Fluent Bit",
    paths: &["/loki/api/v1/push"],
    probes: &[],
    // Some senders say so of the protobuf that is packed in any case.
    own_encoding: Some("snappy"),
    sample: || {
        let body =
            r#"{"streams":[{"stream":{"app":"shop"},"values":[["1767225600000000000","started",{"trace":"1"}]]}]}"#;
        ("application/json", body.as_bytes().to_vec())
    },
    receive,
    answer,
};

/// The stream of what names none.
const STREAM: &str = "loki";

/// Labels and metadata of one entry together. Loki itself takes 15 labels.
const MAX_FIELDS: usize = 256;

/// Largest body when it is unpacked.
const MAX_UNPACKED: usize = super::body::MAX_DECODED;

const MEMBERS: &[&str] = &["timestamp", "line"];

fn receive(call: &mut Call, intake: &mut Intake) -> Result<()> {
    let body = std::mem::take(&mut call.body);
    let at = intake.batch(&[STREAM])?;
    let mut lines = Lines { batch: &mut intake.batches[at], number: 0, line: Line::new(MEMBERS) };
    match call.content_type().as_str() {
        "application/json" => {
            room_for_json(&body, &mut call.taken)?;
            let request: Request = serde_json::from_slice(&body).map_err(|err| {
                Error::new(Kind::InvalidText, format!("the body is not the JSON of a push: {err}"))
                    .with_detail("Nothing of it was kept.")
            })?;
            drop(body);
            for stream in request.streams {
                lines.labels(stream.labels.0.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
                for entry in stream.values {
                    let metadata = entry.metadata.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                    lines.entry(Some(entry.nanos), entry.line.as_bytes(), metadata)?;
                }
            }
        }
        "application/x-protobuf" => {
            let length = snap::raw::decompress_len(&body).map_err(unpacked)?;
            if length > MAX_UNPACKED {
                let message = format!("the unpacked body is larger than {} MiB", MAX_UNPACKED >> 20);
                return Err(Error::new(Kind::ResourceLimit, message).with_hint("Send it in several pieces."));
            }
            call.taken.try_grow(body.len() + length)?;
            let push = snap::raw::Decoder::new().decompress_vec(&body).map_err(unpacked)?;
            for stream in messages(&push, 1) {
                lines.stream(stream?)?;
            }
        }
        other => {
            let message = format!("Content-Type \"{other}\" is not one of Loki's push API");
            return Err(
                Error::new(Kind::NotSupported, message).with_hint("It is application/json or application/x-protobuf.")
            );
        }
    }
    Ok(())
}

fn unpacked(err: snap::Error) -> Error {
    Error::new(Kind::InvalidText, format!("the body is not packed with snappy: {err}"))
        .with_detail("Nothing of it was kept.")
}

/// Makes lines of entries.
struct Lines<'a> {
    batch: &'a mut Batch,
    number: u32,
    line: Line,
}

impl Lines<'_> {
    /// Begins a stream of entries that have these labels.
    fn labels<'b>(&mut self, labels: impl Iterator<Item = (&'b str, &'b str)>) -> Result<()> {
        self.line.back_to((1, 0));
        self.fields(labels)
    }

    fn fields<'b>(&mut self, fields: impl Iterator<Item = (&'b str, &'b str)>) -> Result<()> {
        for (name, value) in fields {
            if self.line.mark().1 >= MAX_FIELDS {
                let message = format!("entry {} has more than {MAX_FIELDS} labels", self.number + 1);
                return Err(Error::new(Kind::ResourceLimit, message).with_detail("Nothing of the request was kept."));
            }
            self.line.text(name, value);
        }
        Ok(())
    }

    /// Adds an entry. One without a time in range becomes malformed by itself; bytes that are no UTF-8 stay as they are in a
    /// stream of lines, and JSON has U+FFFD for them.
    fn entry<'b>(
        &mut self,
        nanos: Option<u64>,
        text: &[u8],
        metadata: impl Iterator<Item = (&'b str, &'b str)>,
    ) -> Result<()> {
        if self.batch.json {
            let labels = self.line.mark();
            self.fields(metadata)?;
            match nanos {
                Some(nanos) => time(nanos, self.line.own("timestamp")),
                None => string("out of range", self.line.own("timestamp")),
            }
            string(&String::from_utf8_lossy(text), self.line.own("line"));
            self.batch.add(self.number, self.line.close())?;
            self.line.back_to(labels);
        } else {
            self.batch.add(self.number, text)?;
        }
        self.number += 1;
        Ok(())
    }

    /// Takes a `StreamAdapter` message field by field: only one entry of it is a structure at a time.
    fn stream(&mut self, stream: &[u8]) -> Result<()> {
        let mut labels = "";
        for field in Fields::of(stream) {
            if let (1, Value::Bytes(bytes)) = field? {
                labels = std::str::from_utf8(bytes).map_err(|_| broken("labels that are no UTF-8"))?;
            }
        }
        let labels = parse_labels(labels)?;
        self.labels(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        for entry in messages(stream, 2) {
            self.adapter(entry?)?;
        }
        Ok(())
    }

    fn adapter(&mut self, entry: &[u8]) -> Result<()> {
        let (mut stamp, mut text, mut metadata) = (Stamp::default(), &[][..], Vec::new());
        for field in Fields::of(entry) {
            match field? {
                (1, Value::Bytes(bytes)) => stamp = Stamp::decode(bytes).map_err(|err| broken(&err.to_string()))?,
                (2, Value::Bytes(bytes)) => text = bytes,
                (3, Value::Bytes(bytes)) if metadata.len() <= MAX_FIELDS => {
                    metadata.push(Pair::decode(bytes).map_err(|err| broken(&err.to_string()))?);
                }
                _ => {}
            }
        }
        let nanos = i128::from(stamp.seconds) * 1_000_000_000 + i128::from(stamp.nanos);
        self.entry(
            u64::try_from(nanos).ok(),
            text,
            metadata.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())),
        )
    }
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, prost::Message)]
struct Stamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `LabelPairAdapter`.
#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// The labels of a stream as protobuf has them: `{app="shop", env="test"}`, with the escapes of Go's strings.
fn parse_labels(text: &str) -> Result<Vec<(String, String)>> {
    let bad = || broken(&format!("labels that are not like {{name=\"value\"}}: {text:?}"));
    let inner = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let inner = match inner {
        Some(inner) => inner,
        None if text.trim().is_empty() => "",
        None => return Err(bad()),
    };
    let (mut labels, mut rest) = (Vec::new(), inner.trim_start());
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or_else(bad)?;
        let behind = behind.trim_start().strip_prefix('"').ok_or_else(bad)?;
        let (value, behind) = unquote(behind).ok_or_else(bad)?;
        labels.push((name.trim().to_string(), value));
        if labels.len() > MAX_FIELDS {
            return Err(Error::new(Kind::ResourceLimit, format!("a stream has more than {MAX_FIELDS} labels")));
        }
        let behind = behind.trim_start();
        rest = behind.strip_prefix(',').unwrap_or(behind).trim_start();
        if !behind.is_empty() && !behind.starts_with(',') {
            return Err(bad());
        }
    }
    Ok(labels)
}

/// The string whose inside `text` begins with, and what is behind its closing quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => {
                let (_, escape) = chars.next()?;
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                let plain = match escape {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'v' => '\u{b}',
                    other => other,
                };
                if digits == 0 {
                    value.push(plain);
                } else {
                    let mut code = 0u32;
                    for _ in 0..digits {
                        code = code.checked_mul(16)?.checked_add(chars.next()?.1.to_digit(16)?)?;
                    }
                    value.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
            c => value.push(c),
        }
    }
    None
}

#[derive(serde::Deserialize)]
struct Request {
    #[serde(default)]
    streams: Vec<Stream>,
}

#[derive(serde::Deserialize)]
struct Stream {
    #[serde(rename = "stream", default)]
    labels: Pairs,
    #[serde(default)]
    values: Vec<Entry>,
}

/// `["nanoseconds", "line"]`, and perhaps an object of structured metadata.
struct Entry {
    nanos: u64,
    line: String,
    metadata: Pairs,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Entry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[\"nanoseconds since 1970\", \"line\"]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
                let nanos: String = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let line = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                let metadata = seq.next_element()?.unwrap_or_default();
                while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                let nanos =
                    nanos.parse().map_err(|_| de::Error::custom(format!("{nanos:?} are no nanoseconds since 1970")))?;
                Ok(Entry { nanos, line, metadata })
            }
        }
        deserializer.deserialize_seq(Values)
    }
}

/// An object of texts, in its order.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn answer(_: &Call, outcome: &Result<Outcome>) -> Response {
    let outcome = match outcome {
        Err(err) => return refused(err),
        Ok(outcome) => outcome,
    };
    if let Some(err) = outcome.failure() {
        return refused(err);
    }
    match outcome.complaint("entry", 1) {
        None => reply(StatusCode::NO_CONTENT, "text/plain", ""),
        Some((what, kept)) => refused(&Error::new(Kind::InvalidText, what).with_detail(kept)),
    }
}

fn refused(err: &Error) -> Response {
    let text = [Some(err.message()), err.detail(), err.hint()].into_iter().flatten().collect::<Vec<_>>().join(". ");
    reply(status(err), "text/plain; charset=utf-8", format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_their_escapes() {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let labels = parse_labels(r#"{app="sh\"op", env = "t\\e\nst",x="\u00e4"}"#).unwrap();
        assert_eq!(labels, [pair("app", "sh\"op"), pair("env", "t\\e\nst"), pair("x", "ä")]);
        assert_eq!(parse_labels("{}").unwrap(), []);
        assert_eq!(parse_labels("").unwrap(), []);
        for bad in ["{", "app", "{a}", "{a=b}", "{a=\"b}", "{a=\"b\" c=\"d\"}", r#"{a="\u00"}"#] {
            assert!(parse_labels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_of_json_are_read_strictly() {
        let entry: Entry = serde_json::from_str(r#"["5","x",{"a":"b"}]"#).unwrap();
        assert_eq!((entry.nanos, entry.line.as_str(), entry.metadata.0.len()), (5, "x", 1));
        for bad in [r#"["5"]"#, r#"["x","y"]"#, r#"["5",6]"#, r#"{}"#, r#"["-1","y"]"#] {
            assert!(serde_json::from_str::<Entry>(bad).is_err(), "{bad}");
        }
    }
}
