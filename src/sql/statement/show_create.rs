//! `SHOW CREATE … name`: the statement that an object was made with, without its secrets. `SHOW COLUMNS FROM name`: its columns.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::describe::columns_of;
use super::{Command, Spec, text_fields, text_rows};
use crate::catalog::{ObjectKind, quoted};
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{relation_name, syntax, words};
use crate::sql::secrets::without_secrets;
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "SHOW CREATE",
    syntax: "SHOW CREATE [EXTERNAL] TABLE | [MATERIALIZED] VIEW | SOURCE | SINK | ALERT | REPORT | NOTIFIER name | SHOW COLUMNS FROM relation",
    summary: "the statement that an object was made with; the columns of a relation",
    parse,
};

#[derive(Debug)]
enum Show {
    /// Kinds that the words allow, and the name.
    Create(&'static [ObjectKind], String),
    Columns(String),
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    use ObjectKind::*;
    if words(parser, &["SHOW", "COLUMNS", "FROM"]) || words(parser, &["SHOW", "COLUMNS", "IN"]) {
        let name = parser.parse_object_name(false).map_err(|e| syntax(&e))?;
        return Ok(Some(Arc::new(Show::Columns(name.to_string()))));
    }
    if !words(parser, &["SHOW", "CREATE"]) {
        return Ok(None);
    }
    let forms: [(&[&str], &'static [ObjectKind]); 10] = [
        (&["MATERIALIZED", "VIEW"], &[MaterializedView]),
        (&["VIEW"], &[View, MaterializedView]),
        (&["EXTERNAL", "TABLE"], &[ExternalTable]),
        (&["STREAM"], &[Stream]),
        (&["SOURCE"], &[Source]),
        (&["SINK"], &[Sink]),
        (&["ALERT"], &[Alert]),
        (&["REPORT"], &[Report]),
        (&["NOTIFIER"], &[Notifier]),
        (&["TABLE"], &[Stream, ReferenceTable, ExternalTable]),
    ];
    let Some((_, kinds)) = forms.into_iter().find(|(form, _)| words(parser, form)) else {
        let found = parser.peek_token_ref().to_string();
        return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
            .with_hint(format!("The form is: {}", SPEC.syntax)));
    };
    Ok(Some(Arc::new(Show::Create(kinds, relation_name(parser)?))))
}

impl Command for Show {
    fn fields(&self) -> Option<SchemaRef> {
        Some(match self {
            Show::Create(..) => text_fields(&["name", "create_statement"]),
            Show::Columns(_) => text_fields(&["column", "type"]),
        })
    }

    fn target(&self) -> Option<String> {
        match self {
            Show::Create(_, name) => Some(quoted(name)),
            Show::Columns(name) => Some(name.clone()),
        }
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Show {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let rows = match self {
            Show::Create(kinds, name) => {
                let missing = || match kinds {
                    [ObjectKind::Source] => session.engine().no_source(name),
                    [ObjectKind::Sink] => session.engine().no_sink(name),
                    [ObjectKind::Alert] => session.engine().no_alert(name),
                    [ObjectKind::Report] => session.engine().no_report(name),
                    [ObjectKind::Notifier] => session.engine().no_notifier(name),
                    _ => session.engine().no_relation(name),
                };
                let (kind, sql) = session.existing(name).ok_or_else(missing)?;
                if !kinds.contains(&kind) {
                    return Err(Error::new(Kind::WrongObjectType, format!("\"{name}\" is not a {}", kinds[0].word()))
                        .with_hint(format!("Use SHOW CREATE {} for a {}.", kind.drop_word(), kind.word())));
                }
                vec![vec![name.clone(), without_secrets(&sql)]]
            }
            Show::Columns(name) => columns_of(session, name).await?,
        };
        let fields = self.fields().ok_or_else(|| Error::internal("it has columns"))?;
        text_rows(&fields, &rows)
    }
}
