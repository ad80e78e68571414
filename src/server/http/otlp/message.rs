//! The messages of OpenTelemetry's protocol that logs need, in protobuf and in JSON (opentelemetry-proto 1.x: the files
//! `collector/logs/v1/logs_service.proto`, `logs/v1/logs.proto`, `common/v1/common.proto`, `resource/v1/resource.proto`;
//! the JSON is that of "OTLP Specification", section "JSON Protobuf Encoding"; `Status` is google.rpc's).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::server::http::json::{string, write};
use crate::server::http::token::base64;

/// `ExportLogsServiceRequest`, for JSON: protobuf is read field by field.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    #[serde(default)]
    pub resource_logs: Vec<ResourceLogs>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLogs {
    pub resource: Option<Resource>,
    #[serde(default)]
    pub scope_logs: Vec<ScopeLogs>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScopeLogs {
    pub scope: Option<Scope>,
    #[serde(default)]
    pub log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogRecord {
    #[prost(fixed64, tag = "1")]
    #[serde(deserialize_with = "number")]
    pub time_unix_nano: u64,
    #[prost(fixed64, tag = "11")]
    #[serde(deserialize_with = "number")]
    pub observed_time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    pub severity_number: i32,
    #[prost(string, tag = "3")]
    pub severity_text: String,
    #[prost(message, optional, tag = "5")]
    pub body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "7")]
    pub dropped_attributes_count: u32,
    #[prost(fixed32, tag = "8")]
    pub flags: u32,
    #[prost(bytes = "vec", tag = "9")]
    #[serde(deserialize_with = "from_hex")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    #[serde(deserialize_with = "from_hex")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "12")]
    pub event_name: String,
}

#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    #[prost(message, tag = "6")]
    Object(KeyValueList),
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(default)]
pub struct KeyValueList {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<KeyValue>,
}

/// `ExportLogsServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<Partial>,
}

/// `ExportLogsPartialSuccess`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Partial {
    #[prost(int64, tag = "1")]
    pub rejected_log_records: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

impl AnyValue {
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Some(Kind::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl KeyValue {
    pub fn text(&self) -> Option<&str> {
        self.value.as_ref()?.text()
    }
}

/// Writes a value as JSON. A structure of either encoding is not nested deeper than its decoder allows (100 or so).
pub fn any(value: Option<&AnyValue>, out: &mut Vec<u8>) {
    match value.and_then(|value| value.value.as_ref()) {
        None => out.extend_from_slice(b"null"),
        Some(Kind::Text(text)) => string(text, out),
        Some(Kind::Bool(value)) => write(out, format_args!("{value}")),
        Some(Kind::Int(value)) => write(out, format_args!("{value}")),
        Some(Kind::Double(value)) if value.is_finite() => {
            serde_json::to_writer(out, value).expect("a number can be written to memory");
        }
        Some(Kind::Double(value)) => string(&value.to_string(), out),
        Some(Kind::Array(array)) => {
            out.push(b'[');
            for (i, value) in array.values.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                any(Some(value), out);
            }
            out.push(b']');
        }
        Some(Kind::Object(list)) => attributes(&list.values, out),
        Some(Kind::Bytes(bytes)) => string(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), out),
    }
}

/// Writes attributes as a JSON object.
pub fn attributes(attributes: &[KeyValue], out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, attribute) in attributes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(&attribute.key, out);
        out.push(b':');
        any(attribute.value.as_ref(), out);
    }
    out.push(b'}');
}

/// A whole number of 64 bits: JSON has it as text or as a number.
fn number<'de, D: Deserializer<'de>, T: TryFrom<i128>>(deserializer: D) -> Result<T, D::Error> {
    struct Number;
    impl Visitor<'_> for Number {
        type Value = i128;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number or its digits in quotes")
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<i128, E> {
            Ok(value.into())
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<i128, E> {
            Ok(value.into())
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<i128, E> {
            value.parse().map_err(E::custom)
        }
    }
    let value = deserializer.deserialize_any(Number)?;
    T::try_from(value).map_err(|_| de::Error::custom(format!("{value} is out of range")))
}

/// Ids are hexadecimal in JSON, unlike other bytes.
fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    digits.collect::<Option<Vec<u8>>>().ok_or_else(|| de::Error::custom(format!("{text:?} is no hexadecimal id")))
}

struct Int(i64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Int, D::Error> {
        number(deserializer).map(Int)
    }
}

/// One member says of which kind the value is; an object without members is no value.
impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyValue, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = AnyValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object such as {\"stringValue\": \"…\"}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue, A::Error> {
                let mut value = None;
                while let Some(name) = map.next_key::<String>()? {
                    value = match name.as_str() {
                        "stringValue" => Some(Kind::Text(map.next_value()?)),
                        "boolValue" => Some(Kind::Bool(map.next_value()?)),
                        "intValue" => Some(Kind::Int(map.next_value::<Int>()?.0)),
                        "doubleValue" => Some(Kind::Double(map.next_value::<Double>()?.0)),
                        "arrayValue" => Some(Kind::Array(map.next_value()?)),
                        "kvlistValue" => Some(Kind::Object(map.next_value()?)),
                        "bytesValue" => {
                            let text: String = map.next_value()?;
                            Some(Kind::Bytes(base64(&text).ok_or_else(|| de::Error::custom("not base64"))?))
                        }
                        _ => {
                            map.next_value::<de::IgnoredAny>()?;
                            value
                        }
                    };
                }
                Ok(AnyValue { value })
            }
        }
        deserializer.deserialize_map(Any)
    }
}

/// What is no finite number is text in JSON.
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Double, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Double(number)),
            Either::Text(text) => text.parse().map(Double).map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(json: &str) -> String {
        let value: AnyValue = serde_json::from_str(json).unwrap_or_else(|err| panic!("{err} in {json}"));
        let mut out = Vec::new();
        any(Some(&value), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_of_every_kind() {
        for (given, wanted) in [
            (r#"{"stringValue":"a\"b"}"#, r#""a\"b""#),
            (r#"{"boolValue":true}"#, "true"),
            (r#"{"intValue":"-5"}"#, "-5"),
            (r#"{"intValue":7}"#, "7"),
            (r#"{"doubleValue":0.5}"#, "0.5"),
            (r#"{"doubleValue":"NaN"}"#, "\"NaN\""),
            (r#"{"bytesValue":"AQID"}"#, "\"010203\""),
            (r#"{}"#, "null"),
            (r#"{"arrayValue":{"values":[{"intValue":1},{}]}}"#, "[1,null]"),
            (r#"{"kvlistValue":{"values":[{"key":"k","value":{"stringValue":"v"}}]}}"#, r#"{"k":"v"}"#),
        ] {
            assert_eq!(round(given), wanted);
        }
        for bad in ["5", r#"{"intValue":"x"}"#, r#"{"intValue":"9223372036854775808"}"#, r#"{"bytesValue":"?"}"#] {
            assert!(serde_json::from_str::<AnyValue>(bad).is_err(), "{bad}");
        }
    }
}
