//! `CREATE NOTIFIER … WITH (type = …)`: a way to tell somebody. `TEST NOTIFIER`: whether it works.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::catalog::{ObjectKind, Origin, quoted};
use crate::engine::NotifierDefinition;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{option_list, relation_name, words};
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "CREATE NOTIFIER",
    syntax: "CREATE NOTIFIER [IF NOT EXISTS] name WITH (type = 'email' | 'webhook' | 'slack' | 'alertmanager' | 'log', option = value, …)",
    summary: "a way to tell somebody of alerts",
    parse,
};

pub static TEST: Spec = Spec {
    name: "TEST NOTIFIER",
    syntax: "TEST NOTIFIER name",
    summary: "sends a message that is no alert, and says whether it was taken",
    parse: parse_test,
};

#[derive(Debug)]
struct CreateNotifier {
    definition: NotifierDefinition,
    if_not_exists: bool,
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "NOTIFIER"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    let wrong = |message: &str| Error::new(Kind::Syntax, message).with_hint(format!("The form is: {}", SPEC.syntax));
    if !words(parser, &["WITH"]) {
        return Err(wrong("CREATE NOTIFIER needs WITH (type = …)"));
    }
    let mut options = option_list(parser)?;
    let at = options.iter().position(|(name, _)| name == "type");
    let kind = at.map(|i| options.remove(i).1).ok_or_else(|| wrong("WITH needs the option \"type\""))?;
    let definition = NotifierDefinition { name, kind, options };
    Ok(Some(Arc::new(CreateNotifier { definition, if_not_exists, text: text.to_string() })))
}

impl Command for CreateNotifier {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateNotifier {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (name, engine) = (&self.definition.name, session.engine());
        let exists = matches!(session.existing(name), Some((ObjectKind::Notifier, _)));
        if self.if_not_exists && exists && !engine.is_restoring() {
            return Ok(Outcome::noticed("CREATE NOTIFIER", format!("notifier \"{name}\" already exists, skipping")));
        }
        session.check_options(&self.definition.options)?;
        let actor = session.actor();
        engine.create_notifier(&self.definition, Origin { sql: &self.text, actor: &actor }).await?;
        Ok(Outcome::done("CREATE NOTIFIER"))
    }
}

#[derive(Debug)]
struct Test(String);

fn parse_test(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["TEST", "NOTIFIER"]) {
        return Ok(None);
    }
    Ok(Some(Arc::new(Test(relation_name(parser)?))))
}

impl Command for Test {
    fn target(&self) -> Option<String> {
        Some(quoted(&self.0))
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            session.engine().test_notifier(&self.0).await?;
            Ok(Outcome::done("TEST NOTIFIER"))
        })
    }
}
