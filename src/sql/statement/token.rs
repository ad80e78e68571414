//! `CREATE TOKEN` and `DROP TOKEN`: with what programs that send logs by HTTP show who they are. The token is in the
//! statement's answer and nowhere else.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::create_role::{literal, role_name};
use super::{Command, Spec, text_fields, text_rows};
use crate::access::token::{generate, hash, is_hash};
use crate::error::{Error, Kind, Result};
use crate::sql::parser::words;
use crate::sql::{Outcome, Session};

pub static CREATE: Spec = Spec {
    name: "CREATE TOKEN",
    syntax: "CREATE TOKEN name FOR [ROLE] role [HASH 'SHA-256 in hexadecimal digits']",
    summary: "with what programs post logs by HTTP as a role: it is shown once, and only its hash is kept. HASH is for a token that you have made yourself",
    parse: create,
};

pub static DROP: Spec = Spec {
    name: "DROP TOKEN",
    syntax: "DROP TOKEN name",
    summary: "from then on it lets nobody in",
    parse: drop_token,
};

#[derive(Debug)]
struct Create {
    name: String,
    role: String,
    hash: Option<String>,
}

fn create(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "TOKEN"]) {
        return Ok(None);
    }
    let name = role_name(parser)?;
    if !words(parser, &["FOR"]) {
        return Err(
            Error::new(Kind::Syntax, "a token is for a role").with_hint(format!("The form is: {}", CREATE.syntax))
        );
    }
    let _ = words(parser, &["ROLE"]);
    let role = role_name(parser)?;
    let hash = if words(parser, &["HASH"]) { Some(literal(parser, "HASH")?) } else { None };
    Ok(Some(Arc::new(Create { name, role, hash })))
}

impl Command for Create {
    fn fields(&self) -> Option<SchemaRef> {
        self.hash.is_none().then(|| text_fields(&["name", "token"]))
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let made = self.hash.is_none().then(generate);
            let hash = match (&self.hash, &made) {
                (Some(given), _) => given.to_ascii_lowercase(),
                (None, made) => hash(made.as_deref().unwrap_or_default()),
            };
            if !is_hash(&hash) {
                return Err(Error::new(Kind::InvalidParameter, "HASH takes 64 hexadecimal digits")
                    .with_hint("It is the SHA-256 of the token, as sha256sum prints it."));
            }
            session.engine().change_roles(|roles| roles.create_token(&self.name, &self.role, hash)).await?;
            match made {
                Some(token) => text_rows(&text_fields(&["name", "token"]), &[vec![self.name.clone(), token]]),
                None => Ok(Outcome::done("CREATE TOKEN")),
            }
        })
    }
}

#[derive(Debug)]
struct DropToken(String);

fn drop_token(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["DROP", "TOKEN"]) {
        return Ok(None);
    }
    Ok(Some(Arc::new(DropToken(role_name(parser)?))))
}

impl Command for DropToken {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            session.engine().change_roles(|roles| roles.drop_token(&self.0)).await?;
            Ok(Outcome::done("DROP TOKEN"))
        })
    }
}
