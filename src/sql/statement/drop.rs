//! `DROP TABLE | MATERIALIZED VIEW | VIEW | SOURCE | SINK | ALERT | REPORT | NOTIFIER`. Several names go together or not at all.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::catalog::ObjectKind;
use crate::error::Result;
use crate::sql::parser::{relation_name, words};
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "DROP",
    syntax: "DROP TABLE | MATERIALIZED VIEW | VIEW | SOURCE | SINK | ALERT | REPORT | NOTIFIER [IF EXISTS] name [, …] [CASCADE | RESTRICT]",
    summary: "removes streams with all they kept, views, reference and external tables, sources of streams (what they gave stays), sinks, alerts, reports, notifiers; CASCADE also what depends on them",
    parse,
};

#[derive(Debug)]
struct Drop {
    kind: ObjectKind,
    tag: &'static str,
    names: Vec<String>,
    if_exists: bool,
    cascade: bool,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    let forms: [(&[&str], ObjectKind, &'static str); 10] = [
        (&["DROP", "MATERIALIZED", "VIEW"], ObjectKind::MaterializedView, "DROP MATERIALIZED VIEW"),
        (&["DROP", "VIEW"], ObjectKind::View, "DROP VIEW"),
        (&["DROP", "EXTERNAL", "TABLE"], ObjectKind::ExternalTable, "DROP TABLE"),
        (&["DROP", "STREAM"], ObjectKind::Stream, "DROP TABLE"),
        (&["DROP", "TABLE"], ObjectKind::Stream, "DROP TABLE"),
        (&["DROP", "SOURCE"], ObjectKind::Source, "DROP SOURCE"),
        (&["DROP", "SINK"], ObjectKind::Sink, "DROP SINK"),
        (&["DROP", "ALERT"], ObjectKind::Alert, "DROP ALERT"),
        (&["DROP", "REPORT"], ObjectKind::Report, "DROP REPORT"),
        (&["DROP", "NOTIFIER"], ObjectKind::Notifier, "DROP NOTIFIER"),
    ];
    let Some((_, kind, tag)) = forms.into_iter().find(|(form, _, _)| words(parser, form)) else { return Ok(None) };
    let if_exists = words(parser, &["IF", "EXISTS"]);
    let mut names = vec![relation_name(parser)?];
    while parser.consume_token(&Token::Comma) {
        names.push(relation_name(parser)?);
    }
    let cascade = words(parser, &["CASCADE"]);
    let _ = words(parser, &["RESTRICT"]);
    Ok(Some(Arc::new(Drop { kind, tag, names, if_exists, cascade })))
}

impl Command for Drop {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Drop {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let missing = |name: &&String| self.if_exists && session.existing(name).is_none();
        let (missing, names): (Vec<&String>, Vec<&String>) = self.names.iter().partition(missing);
        let skipped =
            missing.into_iter().map(|name| format!("{} \"{name}\" does not exist, skipping", self.kind.word()));
        let mut notices: Vec<String> = skipped.collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        if !names.is_empty() {
            let dropped = session.engine().drop_objects(self.kind, &names, self.cascade, &session.actor()).await?;
            let others = dropped.iter().filter(|name| !names.contains(name));
            notices.extend(others.map(|other| format!("drop cascades to \"{other}\"")));
        }
        Ok(Outcome::Done { tag: self.tag.to_string(), rows: None, notices })
    }
}
