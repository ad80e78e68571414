//! `LOCK TABLE`: what tools say before they read several relations in one transaction (`pg_dump` does). No statement here
//! waits for another, so the modes that readers and writers may hold together are granted and keep nobody away; one that is
//! to keep others away is refused.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::ast::ObjectName;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::access::{Privilege, Relation};
use crate::catalog::quoted;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{syntax, words};
use crate::sql::privileges::relation_of;
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "LOCK",
    syntax: "LOCK [TABLE] relation, … IN { ACCESS SHARE | ROW SHARE | ROW EXCLUSIVE } MODE [NOWAIT]",
    summary: "for tools that say it in a transaction: fails where a relation is not there; it keeps nobody away",
    parse,
};

/// PostgreSQL's modes, from the weakest on; those that shut out neither readers nor writers, and the others.
const SHARED: [&[&str]; 3] = [&["ACCESS", "SHARE"], &["ROW", "SHARE"], &["ROW", "EXCLUSIVE"]];
const EXCLUDING: [&[&str]; 5] =
    [&["SHARE", "UPDATE", "EXCLUSIVE"], &["SHARE", "ROW", "EXCLUSIVE"], &["SHARE"], &["EXCLUSIVE"], ACCESS_EXCLUSIVE];
const ACCESS_EXCLUSIVE: &[&str] = &["ACCESS", "EXCLUSIVE"];

#[derive(Debug)]
struct LockTable {
    relations: Vec<Relation>,
    /// The mode if it is to keep others away.
    excluding: Option<String>,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["LOCK"]) {
        return Ok(None);
    }
    let _ = words(parser, &["TABLE"]);
    let mut relations = Vec::new();
    loop {
        let _ = words(parser, &["ONLY"]);
        let name: ObjectName = parser.parse_object_name(false).map_err(|err| syntax(&err))?;
        relations.push(relation_of(&name)?);
        let _ = parser.consume_token(&Token::Mul);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    let excluding = match words(parser, &["IN"]) {
        true => mode(parser)?,
        // PostgreSQL's, if none is said.
        false => Some(ACCESS_EXCLUSIVE.join(" ")),
    };
    let _ = words(parser, &["NOWAIT"]);
    Ok(Some(Arc::new(LockTable { relations, excluding })))
}

fn mode(parser: &mut Parser<'_>) -> Result<Option<String>> {
    let shared = SHARED.iter().any(|mode| words(parser, mode));
    let excluding = if shared { None } else { EXCLUDING.iter().find(|mode| words(parser, mode)) };
    if !(shared || excluding.is_some()) || !words(parser, &["MODE"]) {
        return Err(Error::new(Kind::Syntax, "syntax error: LOCK TABLE has no such mode")
            .with_hint(format!("The form is: {}", SPEC.syntax)));
    }
    Ok(excluding.map(|mode| mode.join(" ")))
}

impl Command for LockTable {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl LockTable {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        if !session.need_backend()?.is_in_transaction() {
            return Err(Error::new(Kind::NoTransaction, "LOCK TABLE can only be used in transaction blocks"));
        }
        for relation in &self.relations {
            session.must_have(Privilege::Select, relation)?;
            let name = format!("{}.{}", quoted(&relation.schema), quoted(&relation.name));
            if session.context().table_provider(name).await.is_err() {
                return Err(session.engine().no_relation(&relation.name));
            }
        }
        match &self.excluding {
            None => Ok(Outcome::done("LOCK TABLE")),
            Some(mode) => Err(Error::new(Kind::NotSupported, format!("LOCK TABLE in {mode} MODE is not supported"))
                .with_detail("It would keep others from reading or writing, which nothing here does.")
                .with_hint("IN ACCESS SHARE MODE is; clients agree among themselves by pg_try_advisory_lock.")),
        }
    }
}
