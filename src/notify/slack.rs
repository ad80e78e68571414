//! An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat, Discord under `…/slack`): a title, and an
//! attachment in the color of its status with the values.

use futures::future::BoxFuture;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::report::Report;
use super::webhook::Address;
use super::{Alert, Content, Failure, Item, Message, Notifier, Spec, Status, plain, time_text};
use crate::channel::Channels;
use crate::error::Result;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::outgoing::timeout;

pub static SPEC: Spec = Spec {
    name: "slack",
    summary: "an incoming webhook of Slack, Mattermost and the like",
    options: &[
        OptionSpec::optional(
            "secret_url",
            OptionKind::Secret,
            None,
            "address of the incoming webhook, or where it is kept: '${ENV:NAME}', '${FILE:/path}'",
        ),
        OptionSpec::optional("url", OptionKind::Text, None, "the same where the address is no secret"),
        OptionSpec::optional("channel", OptionKind::Text, None, "another channel than the webhook's own"),
        OptionSpec::optional("username", OptionKind::Text, None, "under which name it is posted"),
        timeout("10 seconds"),
    ],
    wants_resolved: false,
    shows_series: false,
    takes_reports: true,
    build,
};

/// Attachments of one message: Slack takes no more than 100, and nobody reads so many.
const MOST: usize = 20;

/// Rows of a part of a report: the rest is in the mail.
const ROWS: usize = 10;

fn build(options: &Options, _: &Channels) -> Result<Box<dyn Notifier>> {
    Ok(Box::new(Slack { address: Address::new(options)?, options: options.clone() }))
}

struct Slack {
    address: Address,
    options: Options,
}

/// `&`, `<` and `>` are Slack's own.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Slack {
    fn body(&self, message: &Message) -> Value {
        let mut body = json!({ "text": escaped(&message.title()) });
        body["attachments"] = Value::from(match &message.content {
            Content::Alert(alert) => alert_attachments(message, alert),
            Content::Report(report) => report_attachments(message, report),
        });
        for option in ["channel", "username"] {
            if let Some(value) = self.options.text(option) {
                body[option] = Value::from(value);
            }
        }
        body
    }
}

fn alert_attachments(message: &Message, alert: &Alert) -> Vec<Value> {
    let shown = alert.items.iter().take(MOST);
    let mut attachments: Vec<Value> = shown.map(|item| attachment(message, &alert.severity, item)).collect();
    let rest = alert.count() - attachments.len() as u64;
    if rest > 0 {
        attachments.push(json!({ "text": format!("and {rest} more") }));
    }
    attachments
}

/// A part each, as text of fixed width: a chat has no tables.
fn report_attachments(message: &Message, report: &Report) -> Vec<Value> {
    let mut attachments = Vec::new();
    let remarks = report.remarks.join("\n");
    if !remarks.is_empty() {
        attachments.push(json!({ "color": "#ef6c00", "fallback": escaped(&remarks), "text": escaped(&remarks) }));
    }
    for section in report.sections.iter().take(MOST) {
        let text = format!("```{}```", escaped(section.text(&report.zone(), ROWS).trim_end()));
        let color = if section.error.is_some() { "#c62828" } else { "#1565c0" };
        attachments.push(json!({
            "color": color, "fallback": escaped(&section.title), "title": escaped(&section.title), "text": text,
            "mrkdwn_in": ["text"],
        }));
    }
    let rest = report.sections.len().saturating_sub(MOST);
    if rest > 0 {
        attachments.push(json!({ "text": format!("and {rest} more parts") }));
    }
    if let Some(last) = attachments.last_mut() {
        last["footer"] = Value::from(message.id.as_str());
    }
    attachments
}

fn attachment(message: &Message, severity: &str, item: &Item) -> Value {
    let color = match (item.status, severity) {
        (Status::Resolved, _) => "#2e7d32",
        (Status::Test, _) => "#1565c0",
        (Status::Firing | Status::Error, "info") => "#1565c0",
        (Status::Firing | Status::Error, "warning") => "#ef6c00",
        (Status::Firing | Status::Error, _) => "#c62828",
    };
    let mut text: Vec<String> = item.annotations.iter().map(|(name, value)| format!("*{name}*: {value}")).collect();
    text.extend(item.reason.clone());
    let fields = item
        .row
        .iter()
        .take(10)
        .map(|(name, value)| json!({ "title": escaped(name), "value": escaped(&plain(value)), "short": true }));
    json!({
        "color": color,
        "fallback": escaped(&message.title()),
        "title": escaped(&format!("{} {}", item.status.word(), item.key_text())),
        "text": escaped(&text.join("\n")),
        "fields": fields.collect::<Vec<_>>(),
        "footer": format!("{severity} since {} · {}", time_text(item.since), message.id),
        "ts": item.at.div_euclid(1_000_000),
    })
}

impl Notifier for Slack {
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let body = self.body(message).to_string().into_bytes();
            self.address.post("", &message.id, HeaderMap::new(), body).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, message, message_of, options};
    use super::*;

    #[test]
    fn what_is_said_is_escaped_and_bounded() {
        let given = options(&SPEC, &[("secret_url", "https://hooks.example.org/T/B/x"), ("channel", "#ops")]);
        let slack = Slack { address: Address::new(&given).unwrap(), options: given };
        let body = slack.body(&message());
        assert_eq!(
            (body["channel"].as_str(), body["attachments"][0]["color"].as_str()),
            (Some("#ops"), Some("#c62828"))
        );
        assert_eq!(body["attachments"][0]["text"], "*summary*: \"5xx\" on &lt;b&gt;/a&lt;/b&gt;");
        let mut many = alert();
        many.items = vec![many.items[0].clone(); 50];
        let body = slack.body(&message_of(Content::Alert(many)));
        assert_eq!(body["attachments"].as_array().unwrap().len(), MOST + 1);
        assert_eq!(body["attachments"][MOST]["text"], "and 30 more");
    }
}
