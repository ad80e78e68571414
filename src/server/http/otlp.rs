//! Logs of OpenTelemetry: `POST /v1/logs`, OTLP over HTTP, as protobuf or JSON (opentelemetry.io, "OTLP Specification 1.x").
//!
//! One log record becomes one line of JSON, whose members are named as in OpenTelemetry's data model of logs; what the sender
//! is (`resource`) and its attributes are objects in it:
//!
//! ```text
//! {"timestamp":"2026-01-01T00:00:00.000000000Z","severity_text":"INFO","severity_number":9,"body":"started",
//!  "service_name":"shop","attributes":{"user":"u1"},"resource":{"service.name":"shop"},"scope":"main"}
//! ```
//!
//! A stream of another format gets the body alone. The stream is `otlp` unless the request names one, as with
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://host:7480/v1/streams/NAME`.
//!
//! The answer comes in the encoding of the request. Records that cannot be taken are counted in its `partial_success`; a
//! sender does not send such a request again.

mod message;

use axum::http::StatusCode;
use axum::response::Response;
use prost::Message;

use self::message::{
    LogRecord, Partial, Request, Resource, Response as Answer, Scope, ScopeLogs, Status, any, attributes,
};
use super::body::Taken;
use super::intake::{Batch, Intake, Outcome};
use super::json::{Line, string, time, write};
use super::protobuf::{Fields, Value, broken, messages};
use super::{Call, Protocol, reply, reply_json, status};
use crate::error::{Error, Kind, Result};

pub static PROTOCOL: Protocol = Protocol {
    name: "otlp",
    summary: "logs of OpenTelemetry (OTLP/HTTP), as protobuf or JSON",
    paths: &["/v1/logs"],
    probes: &[],
    own_encoding: None,
    sample: || {
        let body = concat!(
            r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"#,
            r#""scopeLogs":[{"scope":{"name":"main"},"logRecords":[{"timeUnixNano":"1767225600000000000","#,
            r#""severityNumber":9,"body":{"stringValue":"started"},"traceId":"5b8efff798038103d269b633813fc60c","#,
            r#""attributes":[{"key":"n","value":{"intValue":"1"}}]}]}]}]}"#
        );
        ("application/json", body.as_bytes().to_vec())
    },
    receive,
    answer,
};

/// The stream of what names none.
const STREAM: &str = "otlp";

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Largest log record, in bytes of protobuf: one made of nothing but empty values takes a hundred times as much memory.
const MAX_RECORD: usize = 4 << 20;

/// Largest request in JSON. It is made a tree of structures, which takes more memory than its text: so much more room is
/// taken for it.
const MAX_JSON: usize = 16 << 20;
const JSON_FACTOR: usize = 16;

/// Members that a line may have.
const MEMBERS: &[&str] = &[
    "timestamp",
    "observed_timestamp",
    "severity_text",
    "severity_number",
    "body",
    "service_name",
    "event_name",
    "trace_id",
    "span_id",
    "flags",
    "attributes",
    "dropped_attributes_count",
    "resource",
    "scope",
    "scope_version",
    "scope_attributes",
];

fn receive(call: &mut Call, intake: &mut Intake) -> Result<()> {
    let body = std::mem::take(&mut call.body);
    let now = u64::try_from(intake.now()).unwrap_or(0) * 1000;
    let mut lines = Lines { at: intake.batch(&[STREAM])?, intake, now, number: 0, line: Line::new(MEMBERS) };
    match call.content_type().as_str() {
        PROTOBUF => {
            for logs in messages(&body, 1) {
                lines.resource_logs(logs?, call)?;
            }
        }
        JSON => {
            room_for_json(&body, &mut call.taken)?;
            let request: Request = serde_json::from_slice(&body).map_err(|err| {
                Error::new(Kind::InvalidText, format!("the body is not the JSON of a request for logs: {err}"))
                    .with_detail("Nothing of it was kept.")
            })?;
            drop(body);
            for logs in request.resource_logs {
                let resource = written(&logs.resource.unwrap_or_default());
                for logs in logs.scope_logs {
                    lines.scope_logs(&resource, logs)?;
                }
            }
        }
        other => {
            let message = format!("Content-Type \"{other}\" is not one for logs of OpenTelemetry");
            return Err(Error::new(Kind::NotSupported, message).with_hint(format!("It is {PROTOBUF} or {JSON}.")));
        }
    }
    Ok(())
}

/// Takes room for the tree that a JSON body becomes.
pub fn room_for_json(body: &[u8], taken: &mut Taken) -> Result<()> {
    if body.len() > MAX_JSON {
        let message = format!("the JSON is larger than {} MiB", MAX_JSON >> 20);
        return Err(Error::new(Kind::ResourceLimit, message).with_hint("Send it in several pieces, or as protobuf."));
    }
    taken.try_grow(body.len() * JSON_FACTOR)
}

/// What is the same for all records of a sender, as it stands in their lines.
struct Sender {
    service: Option<String>,
    resource: Vec<u8>,
}

fn written(resource: &Resource) -> Sender {
    let mut out = Vec::new();
    attributes(&resource.attributes, &mut out);
    let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name");
    Sender { service: service.and_then(|attribute| attribute.text().map(str::to_string)), resource: out }
}

/// Makes lines of records.
struct Lines<'a> {
    intake: &'a mut Intake,
    at: usize,
    /// Nanoseconds since 1970: when a record says no time at all.
    now: u64,
    number: u32,
    line: Line,
}

impl Lines<'_> {
    /// Takes a `ResourceLogs` message field by field: only one record of it is a structure at a time.
    fn resource_logs(&mut self, logs: &[u8], call: &mut Call) -> Result<()> {
        let mut resource = Resource::default();
        for piece in messages(logs, 1) {
            resource.merge(small(piece?)?).map_err(|err| broken(&err.to_string()))?;
        }
        let resource = written(&resource);
        for logs in messages(logs, 2) {
            let logs = logs?;
            let mut scope = Scope::default();
            for piece in messages(logs, 1) {
                scope.merge(small(piece?)?).map_err(|err| broken(&err.to_string()))?;
            }
            for field in Fields::of(logs) {
                match field? {
                    (2, Value::Bytes(record)) if record.len() > MAX_RECORD => {
                        let reason = format!("record {}: larger than {} MiB", self.number + 1, MAX_RECORD >> 20);
                        call.notes.refused += 1;
                        call.notes.reason.get_or_insert(reason);
                        self.number += 1;
                    }
                    (2, Value::Bytes(record)) => match LogRecord::decode(record) {
                        Ok(record) => self.record(&resource, &scope, &record)?,
                        Err(err) => {
                            call.notes.refused += 1;
                            call.notes.reason.get_or_insert(format!("record {}: {err}", self.number + 1));
                            self.number += 1;
                        }
                    },
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn scope_logs(&mut self, sender: &Sender, logs: ScopeLogs) -> Result<()> {
        let scope = logs.scope.unwrap_or_default();
        logs.log_records.iter().try_for_each(|record| self.record(sender, &scope, record))
    }

    fn record(&mut self, sender: &Sender, scope: &Scope, record: &LogRecord) -> Result<()> {
        let batch: &mut Batch = &mut self.intake.batches[self.at];
        let number = self.number;
        self.number += 1;
        if !batch.json {
            let mut text = Vec::new();
            match record.body.as_ref().and_then(|body| body.text()) {
                Some(body) => text.extend_from_slice(body.as_bytes()),
                None => any(record.body.as_ref(), &mut text),
            }
            return batch.add(number, &text);
        }
        let line = &mut self.line;
        line.back_to((1, 0));
        let times = [record.time_unix_nano, record.observed_time_unix_nano, self.now];
        time(times.into_iter().find(|time| *time > 0).unwrap_or(0), line.own("timestamp"));
        if record.observed_time_unix_nano > 0 {
            time(record.observed_time_unix_nano, line.own("observed_timestamp"));
        }
        let text = |line: &mut Line, name: &'static str, value: &str| {
            if !value.is_empty() {
                string(value, line.own(name));
            }
        };
        text(line, "severity_text", &record.severity_text);
        if record.severity_number != 0 {
            write(line.own("severity_number"), format_args!("{}", record.severity_number));
        }
        any(record.body.as_ref(), line.own("body"));
        text(line, "service_name", sender.service.as_deref().unwrap_or_default());
        text(line, "event_name", &record.event_name);
        text(line, "trace_id", &hex(&record.trace_id));
        text(line, "span_id", &hex(&record.span_id));
        if record.flags != 0 {
            write(line.own("flags"), format_args!("{}", record.flags));
        }
        if !record.attributes.is_empty() {
            attributes(&record.attributes, line.own("attributes"));
        }
        if record.dropped_attributes_count > 0 {
            write(line.own("dropped_attributes_count"), format_args!("{}", record.dropped_attributes_count));
        }
        if sender.resource != b"{}" {
            line.own("resource").extend_from_slice(&sender.resource);
        }
        text(line, "scope", &scope.name);
        text(line, "scope_version", &scope.version);
        if !scope.attributes.is_empty() {
            attributes(&scope.attributes, line.own("scope_attributes"));
        }
        batch.add(number, line.close())
    }
}

/// A message that is made a structure as a whole.
fn small(message: &[u8]) -> Result<&[u8]> {
    match message.len() <= MAX_RECORD {
        true => Ok(message),
        false => Err(Error::new(Kind::ResourceLimit, format!("a resource is larger than {} MiB", MAX_RECORD >> 20))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(call: &Call, outcome: &Result<Outcome>) -> Response {
    let outcome = match outcome {
        Err(err) => return refused(call, err),
        Ok(outcome) => outcome,
    };
    if let Some(err) = outcome.failure() {
        return refused(call, err);
    }
    let mut partial = Partial { rejected_log_records: call.notes.refused as i64, error_message: String::new() };
    let refused = call.notes.reason.as_ref().map(|reason| format!("{reason}: not kept"));
    // Kept, but not as rows: a sender is told, and is not to send them again.
    let malformed = outcome.complaint("record", 1).map(|(what, kept)| format!("{what}. {kept}"));
    partial.rejected_log_records += outcome.malformed() as i64;
    partial.error_message = refused.into_iter().chain(malformed).collect::<Vec<_>>().join("; ");
    let partial = (partial.rejected_log_records > 0).then_some(partial);
    if call.content_type() == PROTOBUF {
        return reply(StatusCode::OK, PROTOBUF, Answer { partial_success: partial }.encode_to_vec());
    }
    let value = match partial {
        None => serde_json::json!({}),
        Some(Partial { rejected_log_records, error_message }) => serde_json::json!({ "partialSuccess": {
            "rejectedLogRecords": rejected_log_records.to_string(), "errorMessage": error_message
        } }),
    };
    reply_json(StatusCode::OK, &value)
}

fn refused(call: &Call, err: &Error) -> Response {
    let code = status(err);
    // The codes of gRPC.
    let number = match code {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => 3,
        StatusCode::NOT_FOUND => 5,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::UNAUTHORIZED => 16,
        _ => 13,
    };
    let message = [Some(err.message()), err.detail(), err.hint()].into_iter().flatten().collect::<Vec<_>>().join(". ");
    if call.content_type() == PROTOBUF {
        return reply(code, PROTOBUF, Status { code: number, message }.encode_to_vec());
    }
    reply_json(code, &serde_json::json!({ "code": number, "message": message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_hold_the_same() {
        let (_, sample) = (PROTOCOL.sample)();
        let request: Request = serde_json::from_slice(&sample).unwrap();
        let logs = &request.resource_logs[0];
        let record = &logs.scope_logs[0].log_records[0];
        assert_eq!(LogRecord::decode(&record.encode_to_vec()[..]).unwrap(), *record);
        assert_eq!(hex(&record.trace_id), "5b8efff798038103d269b633813fc60c");
        assert_eq!(written(logs.resource.as_ref().unwrap()).service.as_deref(), Some("shop"));
    }
}
