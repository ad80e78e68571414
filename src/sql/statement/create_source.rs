//! `CREATE SOURCE … INTO stream`: one more source that feeds a stream. Its lines are in the format of the stream.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::create_stream::format_clause;
use super::{Command, Spec};
use crate::catalog::{ObjectKind, Origin, quoted};
use crate::engine::SourceDefinition;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{option_list, relation_name, words};
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "CREATE SOURCE",
    syntax: "CREATE SOURCE [IF NOT EXISTS] name INTO stream WITH (connector = '…', option = value, …)",
    summary: "feeds a stream from one more source, beside those it has; DROP SOURCE ends that and keeps the rows",
    parse,
};

#[derive(Debug)]
struct CreateSource {
    definition: SourceDefinition,
    if_not_exists: bool,
    text: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "SOURCE"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    let wrong = |message: &str| Error::new(Kind::Syntax, message).with_hint(format!("The form is: {}", SPEC.syntax));
    if !words(parser, &["INTO"]) {
        return Err(wrong("CREATE SOURCE needs INTO and the name of a stream"));
    }
    let stream = relation_name(parser)?;
    if !words(parser, &["WITH"]) {
        return Err(wrong("CREATE SOURCE needs WITH (connector = …)"));
    }
    let mut options = option_list(parser)?;
    let at = options.iter().position(|(name, _)| name == "connector");
    let connector = at.map(|i| options.remove(i).1).ok_or_else(|| wrong("WITH needs the option \"connector\""))?;
    if format_clause(parser)?.is_some() {
        return Err(Error::new(Kind::NotSupported, "a source has no FORMAT of its own")
            .with_hint("Its lines are read in the FORMAT of the stream. Leave it out."));
    }
    let definition = SourceDefinition { name, stream, connector, options };
    Ok(Some(Arc::new(CreateSource { definition, if_not_exists, text: text.to_string() })))
}

impl Command for CreateSource {
    fn target(&self) -> Option<String> {
        Some(quoted(&self.definition.stream))
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateSource {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (name, engine) = (&self.definition.name, session.engine());
        let exists = matches!(session.existing(name), Some((ObjectKind::Source, _)));
        if self.if_not_exists && exists && !engine.is_restoring() {
            return Ok(Outcome::noticed("CREATE SOURCE", format!("source \"{name}\" already exists, skipping")));
        }
        session.check_options(&self.definition.options)?;
        let actor = session.actor();
        let notice = engine.create_source(&self.definition, Origin { sql: &self.text, actor: &actor }).await?;
        Ok(Outcome::Done { tag: "CREATE SOURCE".into(), rows: None, notices: notice.into_iter().collect() })
    }
}
