//! Who is told? Each way to tell somebody is one file with its [`Spec`], listed once in [`NOTIFIERS`].
//!
//! A notifier takes a [`Message`] and says whether the other side has taken it. It does not log, count, wait between tries
//! or remember anything: its driver (`alert/outbox.rs`) does that once for all of them. A message may come again, when it is
//! not known whether it was taken; it then has the same id, and every form carries that. It is about an alert or is a
//! [`Report`], which brings its own forms.

pub mod alertmanager;
pub mod chart;
pub mod email;
pub mod log;
pub mod pg_notify;
pub mod report;
pub mod slack;
pub mod webhook;

use chrono::{DateTime, SecondsFormat};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::channel::Channels;
use crate::error::Result;
use crate::options::{OptionKind, OptionSpec, Options};
pub use crate::outgoing::Failure;
use crate::registry::Entry;
use crate::time::Micros;
use report::Report;

/// Every kind of notifier.
pub static NOTIFIERS: &[&Spec] =
    &[&email::SPEC, &webhook::SPEC, &slack::SPEC, &alertmanager::SPEC, &pg_notify::SPEC, &log::SPEC];

/// Options of every notifier, besides its type's.
pub static NOTIFIER_OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional(
        "retry_max",
        OptionKind::Interval,
        Some("30 seconds"),
        "the longest time between two tries; it doubles from a fifth of a second up to this",
    ),
    OptionSpec::optional(
        "tries",
        OptionKind::Integer,
        Some("3"),
        "a message that the other side refuses for good this often is given up; one that is down is tried until it is back",
    ),
];

/// One row of the table of notifiers.
pub struct Spec {
    pub name: &'static str,
    pub summary: &'static str,
    pub options: &'static [OptionSpec],
    /// The other side has to be told of the end, also without ON RESOLVE: else it would never come there.
    pub wants_resolved: bool,
    /// Shows how a value went on lately: it is looked up for this one.
    pub shows_series: bool,
    /// Reports can be told too, not alerts alone.
    pub takes_reports: bool,
    /// With the channels of the server, for a notifier that speaks on one.
    pub build: fn(&Options, &Channels) -> Result<Box<dyn Notifier>>,
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// What is said of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Firing,
    Resolved,
    /// The alert cannot be evaluated.
    Error,
    /// TEST NOTIFIER.
    Test,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
            Status::Error => "error",
            Status::Test => "test",
        }
    }
}

/// One instance, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub status: Status,
    /// The columns of KEY with their values.
    pub key: Vec<(String, Option<String>)>,
    /// When it began to fire, or was over; in event time, or by the wall clock where there is none.
    pub at: Micros,
    /// When it began to fire.
    pub since: Micros,
    /// It was told before and still fires.
    #[serde(default)]
    pub repeated: bool,
    /// Why, if not because of the predicate: no data, an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    /// The last row that matched.
    pub row: Map<String, Value>,
}

impl Item {
    /// `path=/x, host=a`; empty without a key.
    pub fn key_text(&self) -> String {
        let one = |(name, value): &(String, Option<String>)| format!("{name}={}", value.as_deref().unwrap_or("NULL"));
        self.key.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// How a value went on around the event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    pub name: String,
    /// Time and value, oldest first.
    pub points: Vec<(Micros, f64)>,
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The same whenever this message comes again.
    pub id: String,
    pub made: Micros,
    pub content: Content,
}

/// What it is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Alert(Alert),
    Report(Report),
}

/// Instances of one alert that are told of together.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub name: String,
    pub severity: String,
    /// The columns of GROUP BY with their values, as text.
    pub group: String,
    pub items: Vec<Item>,
    /// Instances that are left out, as there are too many.
    pub omitted: u64,
    pub series: Option<Series>,
}

impl Message {
    /// What is said of it in one word.
    pub fn word(&self) -> &'static str {
        match &self.content {
            Content::Alert(alert) => alert.status().word(),
            Content::Report(report) if report.has_failed() => Status::Error.word(),
            Content::Report(_) => "report",
        }
    }

    /// Something is wrong now.
    pub fn is_grave(&self) -> bool {
        match &self.content {
            Content::Alert(alert) => matches!(alert.status(), Status::Firing | Status::Error),
            Content::Report(report) => report.has_failed(),
        }
    }

    /// One line: `[FIRING] high_5xx: path=/x`, `[REPORT] site: 2026-01-01 09:00–10:00 UTC`.
    pub fn title(&self) -> String {
        let title = match &self.content {
            Content::Alert(alert) => alert.title(),
            Content::Report(report) => report.title(),
        };
        title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    /// Some lines for people.
    pub fn text(&self) -> String {
        match &self.content {
            Content::Alert(alert) => alert.text(),
            Content::Report(report) => report.text(),
        }
    }

    /// What `{{name}}` stands for in the templates of notifiers.
    pub fn value(&self, name: &str) -> Option<String> {
        match name {
            "id" => Some(self.id.clone()),
            "status" | "state" => Some(self.word().to_string()),
            "title" => Some(self.title()),
            "text" => Some(self.text()),
            "time" => Some(time_text(self.made)),
            other => match &self.content {
                Content::Alert(alert) => alert.value(other),
                Content::Report(report) => report.value(other),
            },
        }
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let mut json = match &self.content {
            Content::Alert(alert) => alert.json(),
            Content::Report(report) => report.json(),
        };
        for name in ["id", "status", "title", "text", "time"] {
            json.insert(name.into(), Value::from(self.value(name)));
        }
        Value::Object(json)
    }
}

impl Alert {
    /// The gravest status among the items.
    pub fn status(&self) -> Status {
        let has = |status: Status| self.items.iter().any(|item| item.status == status);
        let order = [Status::Error, Status::Firing, Status::Resolved];
        order.into_iter().find(|status| has(*status)).unwrap_or(Status::Test)
    }

    pub fn count(&self) -> u64 {
        self.items.len() as u64 + self.omitted
    }

    /// `[FIRING] high_5xx: path=/x` or `[FIRING:3] high_5xx`.
    fn title(&self) -> String {
        let word = self.status().word().to_uppercase();
        let what = match self.items.as_slice() {
            [one] if self.omitted == 0 => one.key_text(),
            _ => self.group.clone(),
        };
        let count = if self.count() > 1 { format!(":{}", self.count()) } else { String::new() };
        let repeated = if self.items.iter().all(|item| item.repeated) { " (still)" } else { "" };
        match what.is_empty() {
            true => format!("[{word}{count}] {}{repeated}", self.name),
            false => format!("[{word}{count}] {}: {what}{repeated}", self.name),
        }
    }

    /// What each instance says.
    fn text(&self) -> String {
        let mut text = String::new();
        for item in &self.items {
            let key = item.key_text();
            let key = if key.is_empty() { String::new() } else { format!(" {key}") };
            text += &format!("{}{key} since {}", item.status.word(), time_text(item.since));
            if item.status == Status::Resolved {
                text += &format!(" until {}", time_text(item.at));
            }
            if let Some(reason) = &item.reason {
                text += &format!(": {reason}");
            }
            text.push('\n');
            for (name, value) in &item.annotations {
                text += &format!("  {name}: {value}\n");
            }
            let row: Vec<String> = item.row.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            if !row.is_empty() {
                text += &format!("  {}\n", row.join(" "));
            }
        }
        if self.omitted > 0 {
            text += &format!("and {} more\n", self.omitted);
        }
        text
    }

    fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "alert" => self.name.clone(),
            "severity" => self.severity.clone(),
            "group" => self.group.clone(),
            "count" => self.count().to_string(),
            other => {
                let item = self.items.first()?;
                let of = |all: &[(String, String)]| all.iter().find(|(n, _)| n == other).map(|(_, v)| v.clone());
                let key = || item.key.iter().find(|(n, _)| n == other).and_then(|(_, v)| v.clone());
                return of(&item.annotations)
                    .or_else(|| of(&item.labels))
                    .or_else(|| item.row.get(other).map(plain))
                    .or_else(key);
            }
        })
    }

    fn json(&self) -> Map<String, Value> {
        let pairs = |pairs: &[(String, String)]| -> Map<String, Value> {
            pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
        };
        let item = |item: &Item| {
            let key: Map<String, Value> = item.key.iter().map(|(n, v)| (n.clone(), Value::from(v.clone()))).collect();
            serde_json::json!({
                "status": item.status.word(), "key": key, "since": time_text(item.since), "at": time_text(item.at),
                "repeated": item.repeated, "reason": item.reason, "labels": pairs(&item.labels),
                "annotations": pairs(&item.annotations), "row": item.row,
            })
        };
        let members = [
            ("alert", Value::from(self.name.as_str())),
            ("severity", Value::from(self.severity.as_str())),
            ("group", Value::from(self.group.as_str())),
            ("instances", self.items.iter().map(item).collect()),
            ("omitted", Value::from(self.omitted)),
        ];
        members.map(|(name, value)| (name.to_string(), value)).into_iter().collect()
    }
}

/// A moment as RFC 3339 has it.
pub fn time_text(time: Micros) -> String {
    let time = DateTime::from_timestamp_micros(time).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A value of a row without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "NULL".to_string(),
        other => other.to_string(),
    }
}

/// The other side, from here.
pub trait Notifier: Send + Sync {
    /// Tells; comes to an end by itself, within the notifier's timeout.
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>>;
}

/// What holds for every notifier of the table.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn alert() -> Alert {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let item = Item {
            status: Status::Firing,
            key: vec![("path".into(), Some("/a".into())), ("host".into(), None)],
            at: 1_767_225_660_000_000,
            since: 1_767_225_600_000_000,
            repeated: false,
            reason: None,
            labels: vec![pair("team", "web")],
            annotations: vec![pair("summary", "\"5xx\" on <b>/a</b>")],
            row: serde_json::from_str(r#"{"path":"/a","errors":7}"#).unwrap(),
        };
        Alert {
            name: "high_5xx".into(),
            severity: "critical".into(),
            group: String::new(),
            items: vec![item],
            omitted: 0,
            series: None,
        }
    }

    pub fn message_of(content: Content) -> Message {
        Message { id: "00000000000000ff".into(), made: 1_767_225_661_000_000, content }
    }

    pub fn message() -> Message {
        message_of(Content::Alert(alert()))
    }

    pub fn options(spec: &Spec, given: &[(&str, &str)]) -> Options {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Options::parse("notifier", &[spec.options, NOTIFIER_OPTIONS], &given).unwrap()
    }

    #[test]
    fn options_are_documented_once() {
        for spec in NOTIFIERS {
            let all: Vec<_> = spec.options.iter().chain(NOTIFIER_OPTIONS).collect();
            for (i, option) in all.iter().enumerate() {
                assert!(option.summary.len() > 10, "{}.{}", spec.name, option.name);
                assert!(all[..i].iter().all(|other| other.name != option.name), "{}", option.name);
            }
        }
    }

    #[test]
    fn a_message_says_what_it_is_about() {
        let one = message();
        assert_eq!(one.title(), "[FIRING] high_5xx: path=/a, host=NULL");
        assert_eq!(
            one.text(),
            "firing path=/a, host=NULL since 2026-01-01T00:00:00Z\n  summary: \"5xx\" on <b>/a</b>\n  errors=7 path=/a\n"
        );
        let mut two = alert();
        two.items.push(Item { status: Status::Resolved, repeated: true, ..two.items[0].clone() });
        (two.omitted, two.group) = (5, "host=a\nb".into());
        let two = message_of(Content::Alert(two));
        assert_eq!(two.title(), "[FIRING:7] high_5xx: host=a b");
        assert_eq!(one.value("errors").as_deref(), Some("7"));
        assert_eq!(one.value("team").as_deref(), Some("web"));
        assert_eq!((one.value("host"), one.value("nope")), (None, None));
        assert_eq!(one.json()["instances"][0]["row"]["errors"], 7);
    }
}
