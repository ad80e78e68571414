//! `POST /v1/streams/NAME/rows`: the lines of a body are the lines of the stream, in its own format.
//!
//! A stream of JSON lines takes NDJSON, and as Content-Type `application/json` also one object or an array of them, printed
//! in any way: that is what many senders' plain HTTP outputs post. Other streams take text, cut as the `framing` of the
//! query says (`?framing=multiline&multiline_start=^\d{4}-`): the options are those of the connectors.
//!
//! The answer: `{"stream":"access","rows":2,"malformed":0,"offsets":[10,12],"repeated":false}`.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::BytesMut;
use serde_json::json;

use super::intake::{Batch, Intake, Outcome};
use super::{Call, Protocol, refusal, reply_json, status};
use crate::error::{Error, Kind, Result};
use crate::frame::{self, Frames, Framing, framing_option, newline};
use crate::options::{OptionKind, OptionSpec, Options};

pub static PROTOCOL: Protocol = Protocol {
    name: "rows",
    summary: "lines in the stream's own format: NDJSON, or text cut by any framing",
    paths: &["/rows"],
    probes: &[],
    own_encoding: None,
    sample: || ("application/x-ndjson", b"{\"ts\":1,\"n\":1}\n{\"ts\":2,\"n\":2}\n".to_vec()),
    receive,
    answer,
};

/// What a query may say beside the options of framings.
pub const QUERY: &[OptionSpec] = &[
    framing_option(&["newline", "multiline", "nul", "octet_counted", "syslog", "message"], "how the body is cut"),
    OptionSpec::optional(
        "malformed",
        OptionKind::Choice(&["report", "accept"]),
        Some("report"),
        "with accept, lines that the format cannot read are no reason to answer 400: they are kept either way",
    ),
];

fn receive(call: &mut Call, intake: &mut Intake) -> Result<()> {
    let options = query(call)?;
    let framing = Framing::from(&options, newline::SPEC.name)?;
    if intake.named.is_none() {
        return Err(Error::new(Kind::UndefinedTable, "the request names no stream")
            .with_hint("Post to /v1/streams/NAME/rows, or name it in the header X-Logweir-Stream."));
    }
    let at = intake.batch(&[])?;
    let batch = &mut intake.batches[at];
    let body = std::mem::take(&mut call.body);
    if batch.json && framing.spec.name == newline::SPEC.name {
        return match call.content_type() == "application/json" && !is_lines(&body) {
            true => values(&body, batch),
            false => {
                let (frames, numbers) = without_blank(cut(body, &framing));
                batch.set(frames, numbers)
            }
        };
    }
    batch.set(cut(body, &framing), Vec::new())
}

fn query(call: &Call) -> Result<Options> {
    Options::parse("the query", &[QUERY, frame::OPTIONS], &call.query)
}

/// The frames of a whole body.
fn cut(mut body: Vec<u8>, framing: &Framing) -> Frames {
    // So that the last frame is finished like the others.
    if let (Some(separator), Some(last)) = (framing.spec.separator, body.last())
        && *last != separator
    {
        body.push(separator);
    }
    let mut framer = framing.framer();
    let frames = framer.push(&body);
    drop(body);
    join(frames, framer.finish())
}

fn join(first: Frames, second: Frames) -> Frames {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, false) => second,
        (false, false) => {
            let (base, count) = (first.bytes.len() as u32, first.len() as u32);
            let mut bytes = BytesMut::from(first.bytes);
            bytes.extend_from_slice(&second.bytes);
            let ends = first.ends.into_iter().chain(second.ends.iter().map(|end| end + base)).collect();
            let moved = second.cut.iter().map(|cut| frame::Cut { frame: cut.frame + count, ..*cut });
            Frames { bytes: bytes.freeze(), ends, cut: first.cut.iter().copied().chain(moved).collect() }
        }
    }
}

/// The frames that are no blank lines, which mean nothing between objects, and their numbers.
fn without_blank(frames: Frames) -> (Frames, Vec<u32>) {
    let is_blank = |frame: &[u8]| frame.trim_ascii().is_empty();
    if !frames.iter().any(is_blank) {
        return (frames, Vec::new());
    }
    let kept: Vec<usize> = (0..frames.len()).filter(|i| !is_blank(frames.get(*i))).collect();
    (frames.select(&kept), kept.into_iter().map(|i| i as u32).collect())
}

/// Whether a body is objects on a line each: its first line is a whole one.
fn is_lines(body: &[u8]) -> bool {
    let body = body.trim_ascii_start();
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.first() == Some(&b'{') && end_of_value(line) == Some(line.trim_ascii_end().len())
}

/// Adds each value of a body: the elements of an array, or one value after the other.
fn values(body: &[u8], batch: &mut Batch) -> Result<()> {
    let mut rest = body.trim_ascii();
    let is_array = rest.first() == Some(&b'[');
    if is_array {
        rest = &rest[1..];
    }
    let mut number = 0;
    loop {
        let skipped = rest.iter().position(|byte| !byte.is_ascii_whitespace() && *byte != b',');
        let Some(skipped) = skipped else { return Ok(()) };
        rest = &rest[skipped..];
        if is_array && rest == b"]" {
            return Ok(());
        }
        // What does not end is one record with all that is behind it: it is kept, as malformed.
        let end = end_of_value(rest).unwrap_or(rest.len());
        let (value, behind) = rest.split_at(end);
        rest = behind;
        if value.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            // In valid JSON they stand only between tokens.
            let line = value.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte });
            batch.add(number, &line.collect::<Vec<u8>>())?;
        } else {
            batch.add(number, value)?;
        }
        number += 1;
    }
}

/// Where the value ends with which `text` begins: behind its last bracket, or before what separates it from the next.
fn end_of_value(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = end_of_string(text, at + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' if depth == 1 => return Some(at + 1),
            // A stray one is a record of its own.
            b'}' | b']' => return Some(at.max(1)),
            b',' if depth == 0 => return Some(at.max(1)),
            byte if depth == 0 && byte.is_ascii_whitespace() => return Some(at.max(1)),
            _ => {}
        }
        at += 1;
    }
    (depth == 0).then_some(text.len())
}

/// The closing quote of a string whose inside begins at `from`.
fn end_of_string(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        match text[at] {
            b'"' => return Some(at),
            _ => at += 2,
        }
    }
}

fn answer(call: &Call, outcome: &Result<Outcome>) -> Response {
    let delivered = match outcome {
        Err(err) => return refusal(err),
        Ok(outcome) => match outcome.batches.first() {
            None => return refusal(&Error::internal("there is no batch")),
            Some(delivered) => delivered,
        },
    };
    let landed = match &delivered.landed {
        Err(err) => return refusal(err),
        Ok(landed) => landed,
    };
    let malformed = landed.malformed.as_ref().map(Vec::len);
    let mut value = json!({
        "stream": delivered.stream,
        "rows": delivered.frames - malformed.unwrap_or(0),
        "malformed": malformed,
        "offsets": [landed.offsets.start, landed.offsets.end],
        "repeated": landed.repeated,
    });
    let accepts = query(call).is_ok_and(|options| options.text("malformed") == Some("accept"));
    let complaint = outcome.as_ref().ok().and_then(|outcome| outcome.complaint("record", 1));
    match complaint.filter(|_| !accepts) {
        None => reply_json(StatusCode::OK, &value),
        Some((what, kept)) => {
            let err = Error::new(Kind::InvalidText, what).with_detail(kept);
            value["error"] = err.message().into();
            value["detail"] = err.detail().into();
            let bad = delivered.malformed().iter();
            value["records"] = bad
                .filter_map(|bad| {
                    Some(json!({ "record": delivered.number(bad.frame) + 1, "reason": bad.reason.as_ref()? }))
                })
                .collect();
            reply_json(status(&err), &value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> Option<usize> {
        end_of_value(text.as_bytes())
    }

    #[test]
    fn values_end_where_they_end() {
        assert_eq!(ends(r#"{"a":"}\"","b":[1,{}]}, {"#), Some(22));
        assert_eq!(ends("1, 2"), Some(1));
        assert_eq!(ends("]"), Some(1));
        assert_eq!(ends("{\"a\":"), None);
        assert_eq!(ends("\"x"), None);
        assert_eq!(ends("null"), Some(4));
    }

    #[test]
    fn lines_are_told_from_printed_objects() {
        assert!(is_lines(b"\n{\"a\":1} \n{\"b\":\n"));
        assert!(!is_lines(b"{\n  \"a\": 1\n}"));
        assert!(!is_lines(b"[{\"a\":1}]"));
        assert!(!is_lines(b"{\"a\":1} {\"b\":2}"));
    }

    #[test]
    fn the_last_frame_needs_no_end_and_blank_lines_go() {
        let framing = Framing::default();
        let (frames, numbers) = without_blank(cut(b"a\n\n  \nb\r\nc".to_vec(), &framing));
        assert_eq!(frames.iter().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(numbers, [0, 3, 4]);
        let framing = Framing::of_options(&[("multiline_start", "^x")]).unwrap();
        let frames = cut(b"x1\n y\nx2\n z".to_vec(), &framing);
        assert_eq!(frames.iter().collect::<Vec<_>>(), [&b"x1\n y"[..], b"x2\n z"]);
        assert_eq!(frames.ends.last().copied(), Some(frames.bytes.len() as u32));
        assert!(cut(Vec::new(), &framing).is_empty());
    }
}
