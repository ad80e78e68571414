//! `COMMENT ON TABLE | VIEW | MATERIALIZED VIEW | COLUMN … IS 'text' | NULL`: what tools show beside a relation or a column
//! (PostgreSQL manual, COMMENT).

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::engine::PUBLIC;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{folded, syntax, words};
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "COMMENT ON",
    syntax: "COMMENT ON TABLE | VIEW | MATERIALIZED VIEW name | COLUMN name.column IS 'text' | NULL",
    summary: "what tools show beside a relation or a column; NULL takes it back",
    parse,
};

#[derive(Debug)]
struct Comment {
    relation: String,
    column: Option<String>,
    text: Option<String>,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["COMMENT", "ON"]) {
        return Ok(None);
    }
    let kinds: [&[&str]; 5] = [&["MATERIALIZED", "VIEW"], &["VIEW"], &["EXTERNAL", "TABLE"], &["TABLE"], &["STREAM"]];
    let of_column = words(parser, &["COLUMN"]);
    if !of_column && !kinds.into_iter().any(|kind| words(parser, kind)) {
        return Err(Error::new(Kind::NotSupported, "comments are kept of relations and their columns only")
            .with_hint(format!("The form is {}.", SPEC.syntax)));
    }
    let name = parser.parse_object_name(false).map_err(|err| syntax(&err))?;
    let mut parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(folded).collect();
    let wrong = || {
        Error::new(Kind::Syntax, format!("syntax error at \"{name}\""))
            .with_hint(format!("The form is {}.", SPEC.syntax))
    };
    let column = if of_column { Some(parts.pop().ok_or_else(wrong)?) } else { None };
    let relation = match parts.as_slice() {
        [relation] => relation.clone(),
        [schema, relation] if schema == PUBLIC => relation.clone(),
        _ => return Err(wrong()),
    };
    parser.expect_keyword(Keyword::IS).map_err(|err| syntax(&err))?;
    let text = match parser.parse_keyword(Keyword::NULL) {
        true => None,
        false => Some(parser.parse_literal_string().map_err(|err| syntax(&err))?),
    };
    Ok(Some(Arc::new(Comment { relation, column, text })))
}

impl Command for Comment {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            // An empty comment is none, as in PostgreSQL.
            let text = self.text.clone().filter(|text| !text.is_empty());
            session.engine().set_comment(&self.relation, self.column.as_deref(), text).await?;
            Ok(Outcome::done("COMMENT"))
        })
    }
}
