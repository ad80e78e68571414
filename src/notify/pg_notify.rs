//! A notification on a channel of this server: whoever has said `LISTEN` over a Postgres connection gets it at once, with
//! any driver. Nothing is kept for those who do not listen.
//!
//! The payload is the message as JSON, as `webhook` sends it. A channel takes at most 7999 bytes (PostgreSQL's limit); a
//! message that is longer is cut to what fits, in this order, and then has `"cut": true`: without the text, with as many
//! instances as fit (the rest is counted in `omitted`), without instances, with the id, the name and the status only. A report
//! that is longer is cut to the last of these.

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Content, Failure, Message, Notifier, Spec};
use crate::channel::{Channels, MAX_PAYLOAD, Notification, check_name};
use crate::error::Result;
use crate::options::{OptionKind, OptionSpec, Options};

pub static SPEC: Spec = Spec {
    name: "pg_notify",
    summary: "a notification to all clients that LISTEN to a channel",
    options: &[OptionSpec::required("channel", OptionKind::Text, "the channel that clients LISTEN to")],
    wants_resolved: false,
    shows_series: false,
    takes_reports: true,
    build,
};

fn build(options: &Options, channels: &Channels) -> Result<Box<dyn Notifier>> {
    let channel = options.text("channel").unwrap_or_default().to_string();
    check_name(&channel)?;
    Ok(Box::new(PgNotify { channel, channels: channels.clone() }))
}

struct PgNotify {
    channel: String,
    channels: Channels,
}

impl Notifier for PgNotify {
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        let said = Notification::new(&self.channel, &payload(message), 0);
        let told = said.map(|notification| {
            self.channels.notify(&notification);
        });
        Box::pin(async { told.map_err(Failure::Refused) })
    }
}

/// The message as JSON that fits.
fn payload(message: &Message) -> String {
    let whole = message.json().to_string();
    if whole.len() <= MAX_PAYLOAD {
        return whole;
    }
    let mut json = message.json();
    json["cut"] = Value::from(true);
    json["text"] = Value::Null;
    if let Content::Alert(alert) = &message.content {
        while json.to_string().len() > MAX_PAYLOAD
            && let Some(instances) = json["instances"].as_array_mut()
            && !instances.is_empty()
        {
            // Half at a time: there may be thousands.
            instances.truncate(instances.len() / 2);
            let left = instances.len() as u64;
            json["omitted"] = Value::from(alert.count() - left);
        }
    }
    let cut = json.to_string();
    if cut.len() <= MAX_PAYLOAD { cut } else { least(message) }
}

/// What fits always: names are as long as PostgreSQL's, and the server's own ids are short.
fn least(message: &Message) -> String {
    let mut json = json!({ "id": message.id, "status": message.word(), "cut": true });
    match &message.content {
        Content::Alert(alert) => {
            json["alert"] = Value::from(alert.name.as_str());
            json["omitted"] = Value::from(alert.count());
        }
        Content::Report(report) => json["report"] = Value::from(report.name.as_str()),
    }
    json.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::super::Alert;
    use super::super::tests::{alert, message, message_of, options};
    use super::*;
    use crate::channel::{Letter, Mailbox};

    #[test]
    fn listeners_get_the_message_as_json() {
        let (channels, mailbox) = (Channels::default(), Arc::<Mailbox>::default());
        channels.listen("alerts", &mailbox).unwrap();
        let notifier = build(&options(&SPEC, &[("channel", "alerts")]), &channels).unwrap();
        notifier.tell(&message()).now_or_never().unwrap().unwrap();
        let Some(Letter::Notification(got)) = mailbox.take() else { panic!("nothing has come") };
        assert_eq!((&*got.channel, got.pid), ("alerts", 0));
        assert_eq!(serde_json::from_str::<Value>(&got.payload).unwrap(), message().json());
    }

    #[test]
    fn what_does_not_fit_is_cut_and_says_so() {
        let mut long = alert();
        long.items = vec![long.items[0].clone(); 1000];
        long.omitted = 7;
        let cut =
            |alert: Alert| -> Value { serde_json::from_str(&payload(&message_of(Content::Alert(alert)))).unwrap() };
        let found = cut(long);
        let instances = found["instances"].as_array().unwrap().len() as u64;
        assert!(instances > 5 && found["cut"] == true && found["text"].is_null(), "{instances}");
        assert_eq!(found["omitted"].as_u64().unwrap() + instances, 1007);
        assert_eq!(found["id"], message().json()["id"]);

        // One instance that is too large by itself, and texts around it that are, too.
        let mut large = alert();
        large.items[0].annotations[0].1 = "x".repeat(MAX_PAYLOAD);
        let found = cut(large.clone());
        assert_eq!((found["instances"].as_array().unwrap().len(), found["omitted"].as_u64()), (0, Some(1)));
        large.group = "x".repeat(MAX_PAYLOAD);
        let found = cut(large);
        assert_eq!((found["alert"].as_str(), found["status"].as_str()), (Some("high_5xx"), Some("firing")));
    }

    #[test]
    fn a_channel_has_a_name() {
        let err = build(&options(&SPEC, &[("channel", &"x".repeat(64))]), &Channels::default()).err().unwrap();
        assert!(err.message().contains("too long"), "{err}");
    }
}
