//! Prometheus' Alertmanager, API v2 (`POST /api/v2/alerts`): each instance is an alert there, known by its labels.
//!
//! It takes an alert for resolved when `endsAt` has passed. So one that fires is given an end far off, and is ended when it is
//! over: Alertmanager is told of that whether ON RESOLVE is given or not.

use futures::future::BoxFuture;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

use super::webhook::Address;
use super::{Alert, Content, Failure, Item, Message, Notifier, Spec, Status, time_text};
use crate::channel::Channels;
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};
use crate::outgoing::{HEADERS, SECRET_HEADERS, timeout};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "alertmanager",
    summary: "Prometheus' Alertmanager, API v2",
    options: &[
        OptionSpec::required("url", OptionKind::Text, "address of the Alertmanager, without /api/v2/alerts"),
        OptionSpec::optional(
            "expire",
            OptionKind::Interval,
            Some("30 days"),
            "Alertmanager takes what it hears nothing more of for resolved after this time",
        ),
        OptionSpec::optional("authorization", OptionKind::Secret, None, "the header Authorization, such as 'Bearer …'"),
        HEADERS,
        SECRET_HEADERS,
        timeout("10 seconds"),
    ],
    wants_resolved: true,
    shows_series: false,
    takes_reports: false,
    build,
};

const PATH: &str = "/api/v2/alerts";

fn build(options: &Options, _: &Channels) -> Result<Box<dyn Notifier>> {
    let expire = options.interval("expire").unwrap_or_default().as_micros() as Micros;
    Ok(Box::new(Alertmanager { address: Address::new(options)?, expire }))
}

struct Alertmanager {
    address: Address,
    expire: Micros,
}

/// What a label may be called: the first character is no digit, the others are letters, digits and underscores.
fn label(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

impl Alertmanager {
    fn alert(&self, message: &Message, alert: &Alert, item: &Item) -> Value {
        let mut labels = Map::new();
        for (name, value) in &item.key {
            // An empty label is none there.
            labels.insert(label(name), Value::from(value.clone().unwrap_or_default()));
        }
        labels.extend(item.labels.iter().map(|(name, value)| (label(name), Value::from(value.as_str()))));
        labels.insert("alertname".into(), Value::from(alert.name.as_str()));
        labels.insert("severity".into(), Value::from(alert.severity.as_str()));
        if item.status == Status::Error {
            labels.insert("logweir_state".into(), Value::from("error"));
        }
        let mut annotations: Map<String, Value> =
            item.annotations.iter().map(|(name, value)| (label(name), Value::from(value.as_str()))).collect();
        if let Some(reason) = &item.reason {
            annotations.insert("reason".into(), Value::from(reason.as_str()));
        }
        annotations.insert("logweir_id".into(), Value::from(message.id.as_str()));
        let end = match item.status {
            // Not in the future, whatever event time says.
            Status::Resolved => item.at.min(message.made),
            Status::Firing | Status::Error => message.made.saturating_add(self.expire),
            Status::Test => message.made.saturating_add(60_000_000),
        };
        json!({
            "labels": labels, "annotations": annotations,
            "startsAt": time_text(item.since.min(end)), "endsAt": time_text(end),
        })
    }
}

impl Notifier for Alertmanager {
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Content::Alert(alert) = &message.content else {
                let err = Error::new(Kind::NotSupported, "an Alertmanager takes alerts alone, no reports");
                return Err(Failure::Refused(err));
            };
            let alerts: Vec<Value> = alert.items.iter().map(|item| self.alert(message, alert, item)).collect();
            let body = Value::from(alerts).to_string().into_bytes();
            self.address.post(PATH, &message.id, HeaderMap::new(), body).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, message, options};
    use super::*;

    #[test]
    fn instances_are_alerts_that_end_when_they_are_over() {
        let given = options(&SPEC, &[("url", "http://x:9093"), ("expire", "1 hour")]);
        let there = Alertmanager { address: Address::new(&given).unwrap(), expire: 3_600_000_000 };
        let (message, mut firing) = (message(), alert());
        firing.items[0].labels.push(("1st label".into(), "x".into()));
        let alert = there.alert(&message, &firing, &firing.items[0]);
        let labels = json!({"alertname": "high_5xx", "severity": "critical", "path": "/a", "host": "", "team": "web", "_1st_label": "x"});
        assert_eq!(alert["labels"], labels);
        assert_eq!(
            (alert["startsAt"].as_str(), alert["endsAt"].as_str()),
            (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T01:01:01Z"))
        );
        firing.items[0].status = Status::Resolved;
        assert_eq!(there.alert(&message, &firing, &firing.items[0])["endsAt"], "2026-01-01T00:01:00Z");
    }
}
