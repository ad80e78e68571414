//! Into the log of the server itself: for trying alerts out, and for logs that are read elsewhere.

use futures::future::BoxFuture;

use super::{Failure, Message, Notifier, Spec};
use crate::channel::Channels;
use crate::error::Result;
use crate::options::{OptionKind, OptionSpec, Options};

pub static SPEC: Spec = Spec {
    name: "log",
    summary: "a line in the server's own log",
    options: &[OptionSpec::optional(
        "level",
        OptionKind::Choice(&["error", "warn", "info"]),
        Some("info"),
        "the level of its lines while something fires; what is over or a test is info",
    )],
    wants_resolved: false,
    shows_series: false,
    takes_reports: true,
    build,
};

fn build(options: &Options, _: &Channels) -> Result<Box<dyn Notifier>> {
    Ok(Box::new(Log { level: options.text("level").unwrap_or("info").to_string() }))
}

struct Log {
    level: String,
}

impl Notifier for Log {
    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        let (id, title) = (message.id.as_str(), message.title());
        let text = message.text();
        let text = text.trim_end();
        let grave = message.is_grave();
        match self.level.as_str() {
            "error" if grave => tracing::error!(id, text, "{title}"),
            "warn" if grave => tracing::warn!(id, text, "{title}"),
            _ => tracing::info!(id, text, "{title}"),
        }
        Box::pin(async { Ok(()) })
    }
}
