//! `SET ROLE` and `RESET ROLE`: acting as a role that one is a member of (PostgreSQL manual, SET ROLE). An administrator
//! may act as any.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create_role::role_name;
use super::{Command, Spec};
use crate::error::Result;
use crate::sql::parser::words;
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "SET ROLE",
    syntax: "SET [SESSION] ROLE role | NONE | RESET ROLE",
    summary: "acts with the privileges of another role, of which the user is a member",
    parse,
};

#[derive(Debug)]
struct SetRole {
    role: Option<String>,
    tag: &'static str,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if words(parser, &["RESET", "ROLE"]) {
        return Ok(Some(Arc::new(SetRole { role: None, tag: "RESET" })));
    }
    if !words(parser, &["SET", "ROLE"]) && !words(parser, &["SET", "SESSION", "ROLE"]) {
        return Ok(None);
    }
    // As a setting it has an equals sign, and its value may be a text.
    let _ = parser.consume_token(&Token::Eq) || words(parser, &["TO"]);
    let role = match &parser.peek_token_ref().token {
        Token::SingleQuotedString(name) => {
            let name = name.clone();
            parser.next_token();
            name
        }
        Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("DEFAULT") => {
            parser.next_token();
            "none".to_string()
        }
        _ => role_name(parser)?,
    };
    Ok(Some(Arc::new(SetRole { role: (role != "none").then_some(role), tag: "SET" })))
}

impl Command for SetRole {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            session.set_role(self.role.as_deref())?;
            Ok(Outcome::done(self.tag))
        })
    }
}
