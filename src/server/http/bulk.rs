//! The bulk API of Elasticsearch, which Filebeat, Logstash, Vector, Fluent Bit, rsyslog and many more speak ("Bulk API" and
//! "Info API" in the manual of Elasticsearch 8): `POST /_bulk` and `POST /INDEX/_bulk`.
//!
//! Lines come in pairs: an action (`{"create":{"_index":"access"}}`) and a document. `create` and `index` put the document
//! into a stream; `update` and `delete` are refused one by one, because a stream only grows. Whatever is wrong with one
//! document is told in its item of the answer.
//!
//! The index names the stream, as [`candidates`] has it: `filebeat-8.17.0-2026.11.29` may be the stream
//! `filebeat-8.17.0-2026.11.29`, or `filebeat-8.17.0`, or `filebeat_8_17_0`, or `filebeat`.
//!
//! A stream of JSON lines gets documents as they are; of another format, the text in their member `message` (or `log`).
//!
//! When all documents have an `_id`, as with Fluent Bit's `Generate_ID`, a body that is sent again counts once: the same
//! ids with the same content are the same documents.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use md5::{Digest, Md5};
use serde::Deserialize;
use serde_json::json;

use super::intake::{Intake, Outcome};
use super::json::{string, write};
use super::{Call, Probe, Protocol, reply, reply_json, status};
use crate::error::{Error, Kind, Result};

pub static PROTOCOL: Protocol = Protocol {
    name: "elasticsearch",
    summary: "the bulk API of Elasticsearch: Filebeat, Logstash, Vector, Fluent Bit, rsyslog",
    paths: &["/_bulk", "/{index}/_bulk"],
    probes: PROBES,
    own_encoding: None,
    sample: || {
        let body = "{\"create\":{\"_index\":\"elasticsearch\"}}\n{\"@timestamp\":\"2026-01-01T00:00:00Z\",\"message\":\"x\"}\n";
        ("application/x-ndjson", body.as_bytes().to_vec())
    },
    receive,
    answer,
};

/// Documents of one request: each has its item in the answer.
const MAX_DOCUMENTS: usize = 100_000;

/// What Elasticsearch calls itself. Senders choose what they send by it.
const VERSION: &str = "8.17.0";

const TEMPLATES: &[&str] = &["GET", "HEAD", "PUT", "POST"];

/// What senders ask or set up before they send. Templates and policies are for indices: they are taken, and mean nothing.
const PROBES: &[Probe] = &[
    Probe { methods: &["GET", "HEAD"], path: "/", answer: info },
    Probe { methods: &["GET", "HEAD"], path: "", answer: info },
    Probe { methods: &["GET"], path: "/_license", answer: license },
    Probe { methods: &["GET"], path: "/_xpack", answer: xpack },
    Probe { methods: &["GET"], path: "/_cluster/health", answer: health },
    Probe { methods: &["GET"], path: "/_nodes/{what}", answer: nodes },
    Probe { methods: &["GET"], path: "/_nodes/{what}/{which}", answer: nodes },
    Probe { methods: TEMPLATES, path: "/_template/{name}", answer: acknowledged },
    Probe { methods: TEMPLATES, path: "/_index_template/{name}", answer: acknowledged },
    Probe { methods: TEMPLATES, path: "/_component_template/{name}", answer: acknowledged },
    Probe { methods: TEMPLATES, path: "/_ilm/policy/{name}", answer: acknowledged },
    Probe { methods: TEMPLATES, path: "/_ingest/pipeline/{name}", answer: acknowledged },
    Probe { methods: TEMPLATES, path: "/_data_stream/{name}", answer: acknowledged },
    Probe { methods: &["PUT"], path: "/{index}", answer: acknowledged },
];

fn info(_: &Method) -> Response {
    let value = json!({
        "name": "logweir",
        "cluster_name": "logweir",
        "cluster_uuid": "logweir",
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "build_type": "tar",
            "build_hash": "unknown",
            "build_date": "2024-12-11T12:08:05.663969764Z",
            "build_snapshot": false,
            "lucene_version": "9.12.0",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0"
        },
        "tagline": "You Know, for Search"
    });
    product(reply_json(StatusCode::OK, &value))
}

fn license(_: &Method) -> Response {
    let license = json!({
        "status": "active", "uid": "logweir", "type": "basic", "issue_date_in_millis": 0, "issued_to": "logweir",
        "issuer": "logweir", "max_nodes": 1, "start_date_in_millis": -1
    });
    product(reply_json(StatusCode::OK, &json!({ "license": license })))
}

fn xpack(_: &Method) -> Response {
    let license = json!({ "uid": "logweir", "type": "basic", "mode": "basic", "status": "active" });
    let off = json!({ "available": false, "enabled": false });
    let features = json!({ "ilm": off, "security": off, "monitoring": off });
    product(reply_json(StatusCode::OK, &json!({ "license": license, "features": features })))
}

fn health(_: &Method) -> Response {
    let value = json!({
        "cluster_name": "logweir", "status": "green", "timed_out": false, "number_of_nodes": 1, "number_of_data_nodes": 1
    });
    product(reply_json(StatusCode::OK, &value))
}

fn nodes(_: &Method) -> Response {
    let value =
        json!({ "_nodes": { "total": 0, "successful": 0, "failed": 0 }, "cluster_name": "logweir", "nodes": {} });
    product(reply_json(StatusCode::OK, &value))
}

fn acknowledged(method: &Method) -> Response {
    let value = match method == Method::PUT || method == Method::POST {
        true => json!({ "acknowledged": true, "shards_acknowledged": true }),
        false => json!({}),
    };
    product(reply_json(StatusCode::OK, &value))
}

/// The clients of Elastic speak only to what has this header.
fn product(mut response: Response) -> Response {
    response.headers_mut().insert("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    response
}

/// An action, and where its document went.
pub struct Item {
    action: &'static str,
    index: Arc<str>,
    id: Option<String>,
    /// Its batch, and its number among the frames of that; or why it is in none.
    place: Result<(usize, usize)>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(rename = "_index")]
    index: Option<String>,
    #[serde(rename = "_id")]
    id: Option<serde_json::Value>,
}

const ACTIONS: &[&str] = &["create", "index", "update", "delete"];

fn receive(call: &mut Call, intake: &mut Intake) -> Result<()> {
    let body = std::mem::take(&mut call.body);
    let mut lines = body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let mut places = HashMap::new();
    let mut last = None;
    let mut all_named = true;
    let mut items = Vec::new();
    while let Some((number, line)) = lines.next() {
        if items.len() == MAX_DOCUMENTS {
            let message = format!("more than {MAX_DOCUMENTS} documents in one request");
            return Err(Error::new(Kind::ResourceLimit, message).with_detail("Nothing of it was kept."));
        }
        // Most actions are the same as the one before.
        let (action, index, id) = match &last {
            Some((known, action, index)) if *known == line => (*action, Arc::clone(index), None),
            Some(_) | None => {
                let (action, target) = action(line).map_err(|why| malformed(number, &why))?;
                let index = target.index.as_deref().or(call.segment.as_deref()).unwrap_or_default();
                let id = target.id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_string));
                let index: Arc<str> = index.into();
                last = id.is_none().then(|| (line, action, Arc::clone(&index)));
                (action, index, id)
            }
        };
        all_named &= id.is_some();
        let place = match action {
            "delete" => Err(only_grows(action)),
            _ => {
                let (_, document) = lines.next().ok_or_else(|| malformed(number, "no document follows it"))?;
                match action {
                    "update" => Err(only_grows(action)),
                    _ => match places.entry(Arc::clone(&index)).or_insert_with(|| place(intake, &index)) {
                        Err(err) => Err(err.clone()),
                        Ok(at) => {
                            let batch = &mut intake.batches[*at];
                            let frame = batch.numbers.len();
                            let number = items.len() as u32;
                            match batch.json {
                                true => batch.add(number, document.trim_ascii())?,
                                false => batch.add(number, &text(document))?,
                            }
                            Ok((*at, frame))
                        }
                    },
                }
            }
        };
        items.push(Item { action, index, id, place });
    }
    if all_named && !items.is_empty() {
        call.notes.key = Some(format!("bulk-{:x}", Md5::digest(&body)));
    }
    call.notes.items = items;
    Ok(())
}

fn action(line: &[u8]) -> Result<(&'static str, Target), String> {
    let parsed: HashMap<String, Target> = serde_json::from_slice(line).map_err(|err| err.to_string())?;
    let mut actions = parsed.into_iter();
    let (Some((name, target)), None) = (actions.next(), actions.next()) else {
        return Err("it must have one member".into());
    };
    let action = ACTIONS.iter().find(|action| **action == name).ok_or_else(|| format!("no action \"{name}\""))?;
    Ok((action, target))
}

fn malformed(number: usize, why: &str) -> Error {
    Error::new(Kind::InvalidText, format!("malformed action or metadata in line {}: {why}", number + 1))
        .with_detail("Nothing of the request was kept.")
}

fn only_grows(action: &str) -> Error {
    Error::new(Kind::InvalidParameter, format!("a stream only grows: it has no \"{action}\""))
}

fn place(intake: &mut Intake, index: &str) -> Result<usize> {
    let candidates = candidates(index);
    let names: Vec<&str> = candidates.iter().map(String::as_str).collect();
    intake.batch(&names)
}

/// The names of streams that may be meant by an index, the likeliest first: its own; without a date at its end; with `_` for
/// what SQL names cannot have without quotes; without a version at its end.
fn candidates(index: &str) -> Vec<String> {
    let is_numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let is_date = |text: &str| {
        let bytes = text.as_bytes();
        // 2026.11 and more of it, with any separator.
        bytes.len() >= 7
            && bytes[..4].iter().all(u8::is_ascii_digit)
            && bytes[4].is_ascii_punctuation()
            && text.chars().all(is_numeric)
    };
    let cut = index.match_indices(['-', '_', '.']).map(|(at, _)| at).find(|at| is_date(&index[at + 1..]));
    let dateless = cut.map_or(index, |at| &index[..at]);
    let bare = index.trim_end_matches(is_numeric);
    let numbers = &index[bare.len()..];
    let unversioned = if numbers.starts_with(['-', '_']) && numbers.contains('.') { bare } else { dateless };
    let plain = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
    };
    let (index, dateless, unversioned) = (index.to_string(), dateless.to_string(), unversioned.to_string());
    let (plain_dateless, plain_unversioned) = (plain(&dateless), plain(&unversioned));
    let mut names = vec![index, dateless, plain_dateless, unversioned, plain_unversioned];
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// The text of a document, for a stream that does not read JSON.
fn text(document: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Texts {
        message: Option<String>,
        log: Option<String>,
    }
    let texts = serde_json::from_slice::<Texts>(document).ok();
    match texts.and_then(|texts| texts.message.or(texts.log)) {
        Some(text) => text.into_bytes(),
        None => document.trim_ascii().to_vec(),
    }
}

fn answer(call: &Call, outcome: &Result<Outcome>) -> Response {
    let outcome = match outcome {
        Err(err) => return refused(err),
        Ok(outcome) => outcome,
    };
    let items = &call.notes.items;
    // What is wrong with all of them is wrong with the request: senders then try again, or say so.
    let failed = |item: &Item| match &item.place {
        Err(err) => Some(err.clone()),
        Ok((batch, _)) => outcome.batches.get(*batch).and_then(|delivered| delivered.landed.as_ref().err().cloned()),
    };
    if let Some(first) = items.first().and_then(failed)
        && status(&first) != StatusCode::BAD_REQUEST
        && items.iter().all(|item| failed(item).is_some_and(|err| err.kind() == first.kind()))
    {
        return refused(&first);
    }
    let malformed: Vec<HashMap<usize, &str>> = outcome
        .batches
        .iter()
        .map(|delivered| {
            let reason = |bad: &super::intake::Malformed| bad.frame;
            delivered
                .malformed()
                .iter()
                .map(|bad| (reason(bad), bad.reason.as_deref().unwrap_or("malformed")))
                .collect()
        })
        .collect();
    let mut out = Vec::with_capacity(64 + items.len() * 96);
    let mut errors = false;
    for item in items {
        out.push(if out.is_empty() { b'[' } else { b',' });
        write(&mut out, format_args!("{{\"{}\":{{\"_index\":", item.action));
        string(&item.index, &mut out);
        let mut fail = |out: &mut Vec<u8>, code: StatusCode, kind: &str, reason: &str| {
            errors = true;
            if let Some(id) = &item.id {
                out.extend_from_slice(b",\"_id\":");
                string(id, out);
            }
            write(out, format_args!(",\"status\":{},\"error\":{{\"type\":\"{kind}\",\"reason\":", code.as_u16()));
            string(reason, out);
            out.extend_from_slice(b"}}}");
        };
        let (batch, frame) = match &item.place {
            Err(err) => {
                fail(&mut out, status(err), kind_of(err), &words(err));
                continue;
            }
            Ok(place) => *place,
        };
        let Some(delivered) = outcome.batches.get(batch) else {
            let err = Error::internal("there is no batch");
            fail(&mut out, status(&err), kind_of(&err), &words(&err));
            continue;
        };
        match &delivered.landed {
            Err(err) => fail(&mut out, status(err), kind_of(err), &words(err)),
            Ok(landed) => match malformed[batch].get(&frame) {
                Some(reason) => {
                    let reason = format!("{reason} (it is kept in \"{}__malformed\")", delivered.stream);
                    fail(&mut out, StatusCode::BAD_REQUEST, "document_parsing_exception", &reason);
                }
                None => {
                    out.extend_from_slice(b",\"_id\":");
                    match &item.id {
                        Some(id) => string(id, &mut out),
                        None => write(&mut out, format_args!("\"{}\"", landed.offsets.start + frame as u64)),
                    }
                    let (result, code) = if landed.repeated { ("noop", 200) } else { ("created", 201) };
                    write(&mut out, format_args!(",\"_version\":1,\"result\":\"{result}\",\"status\":{code}}}}}"));
                }
            },
        }
    }
    out.extend_from_slice(if out.is_empty() { b"[]" } else { b"]" });
    let mut body = format!("{{\"took\":0,\"errors\":{errors},\"items\":").into_bytes();
    body.append(&mut out);
    body.push(b'}');
    product(reply(StatusCode::OK, "application/json", body))
}

fn words(err: &Error) -> String {
    let more = [err.detail(), err.hint()].into_iter().flatten().map(|text| format!(" {text}"));
    format!("{}.{}", err.message(), more.collect::<String>())
}

/// The name that Elasticsearch has for such an error.
fn kind_of(err: &Error) -> &'static str {
    match err.kind() {
        Kind::UndefinedTable => "index_not_found_exception",
        Kind::Busy => "es_rejected_execution_exception",
        Kind::DiskFull => "cluster_block_exception",
        Kind::InsufficientPrivilege | Kind::InvalidAuthorization => "security_exception",
        Kind::InvalidText => "parse_exception",
        Kind::InvalidParameter => "illegal_argument_exception",
        _ => "exception",
    }
}

fn refused(err: &Error) -> Response {
    let (code, cause) = (status(err), json!({ "type": kind_of(err), "reason": words(err) }));
    let error = json!({ "root_cause": [cause], "type": kind_of(err), "reason": words(err) });
    product(reply_json(code, &json!({ "error": error, "status": code.as_u16() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_may_mean_several_streams() {
        for (index, wanted) in [
            ("access", &["access"][..]),
            ("fluent-bit", &["fluent-bit", "fluent_bit"]),
            ("logstash-2026.11.29", &["logstash-2026.11.29", "logstash"]),
            ("vector-2026-11-29", &["vector-2026-11-29", "vector"]),
            (
                "filebeat-8.17.0-2026.11.29",
                &["filebeat-8.17.0-2026.11.29", "filebeat-8.17.0", "filebeat_8_17_0", "filebeat"],
            ),
            ("logs-Nginx.access-default", &["logs-Nginx.access-default", "logs_nginx_access_default"]),
            ("web1", &["web1"]),
            ("app-2", &["app-2", "app_2"]),
            ("häuser-2026.11", &["häuser-2026.11", "häuser", "h_user"]),
            ("", &[]),
        ] {
            assert_eq!(candidates(index), wanted, "{index}");
        }
    }

    #[test]
    fn actions_are_read_strictly() {
        let (name, target) = action(br#"{"index":{"_index":"x","_id":5,"_type":"_doc"}}"#).unwrap();
        assert_eq!(
            (name, target.index.as_deref(), target.id.map(|id| id.to_string()).as_deref()),
            ("index", Some("x"), Some("5"))
        );
        assert!(action(br#"{"create":{}}"#).is_ok());
        for bad in [&b"{}"[..], b"[]", b"{\"create\":{},\"index\":{}}", b"{\"upsert\":{}}", b"x"] {
            assert!(action(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_stream_of_text_gets_the_text() {
        assert_eq!(text(br#"{"message":"a b","log":"c"}"#), b"a b");
        assert_eq!(text(br#"{"log":"c\n"}"#), b"c\n");
        assert_eq!(text(br#" {"x":1}"#), br#"{"x":1}"#);
    }
}
