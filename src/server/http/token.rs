//! Who may post logs: whoever knows the token of the server (`--http-token`), if it has one; and where there are roles, whoever
//! has a role's token (CREATE TOKEN), into the streams that the role may INSERT into.
//!
//! A token is of the database in which it was made, and leads there by itself. Into a database that the path names come
//! whoever knows the token of the server, roles of that database, and administrators of the main one; all others are told the
//! same, whether there is such a database or not.
//!
//! It is given as a bearer token (RFC 6750); or as the password of Basic authentication (RFC 7617) with any user, because
//! that is all that some senders have.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::Door;
use crate::access::scram::same;
use crate::access::{Privilege, Relation};
use crate::config::MAIN_DATABASE;
use crate::database::{Database, missing};
use crate::engine::{Engine, PUBLIC, SYSTEM};
use crate::error::{Error, Kind, Result};
use crate::sql::privileges::allowed;
use crate::task::Compute;

/// For whom a request is answered.
#[derive(Debug, Clone)]
pub enum Caller {
    /// There are no roles, or it knows the token of the server: it may post to every stream.
    Anybody,
    Role(String),
}

impl Caller {
    /// Fails unless it may put rows into a stream, whether there is one of the name or not.
    pub fn may_insert(&self, engine: &Engine, stream: &str) -> Result<()> {
        self.may(engine, Privilege::Insert, PUBLIC, stream)
    }

    fn may(&self, engine: &Engine, privilege: Privilege, schema: &str, name: &str) -> Result<()> {
        match self {
            Caller::Anybody => Ok(()),
            Caller::Role(role) => {
                let relation = Relation { schema: schema.to_string(), name: name.to_string() };
                allowed(engine, role, privilege, &relation)
            }
        }
    }
}

/// Somebody who has come into a database.
pub struct Entered {
    pub engine: Arc<Engine>,
    /// Of the database.
    pub compute: Compute,
    pub caller: Caller,
}

impl Entered {
    fn new(database: &Database, caller: Caller) -> Result<Entered> {
        Ok(Entered { engine: database.engine()?, compute: database.compute.clone(), caller })
    }
}

impl Door {
    /// Who has sent these headers, into the database that the path `named`, or else that of the token. Fails for somebody
    /// unknown, where one has to be known.
    pub fn enter(&self, headers: &HeaderMap, named: Option<&str>) -> Result<Entered> {
        let main = self.databases.main();
        let named = named.map(|name| (name, self.databases.find(name)));
        let wanted = |found: &Option<(&str, Option<Arc<Database>>)>| match found {
            None => Ok(Arc::clone(main)),
            Some((_, Some(database))) => Ok(Arc::clone(database)),
            Some((name, None)) => Err(missing(name)),
        };
        let open = |database: &Database| database.engine().is_ok_and(|engine| engine.roles(|roles| roles.is_empty()));
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(token);
        let given = given.unwrap_or_default();
        if let Some(secret) = &self.token {
            let known = secret.resolve().map_err(|err| err.with_context("http-token"))?;
            if same(given.as_bytes(), known.as_bytes()) {
                return Entered::new(&*wanted(&named)?, Caller::Anybody);
            }
        }
        match (self.role_of(&given), &named) {
            (Some((database, role)), None) => return Entered::new(&database, Caller::Role(role)),
            (Some((database, role)), Some((_, Some(wanted)))) if Arc::ptr_eq(&database, wanted) => {
                return Entered::new(&database, Caller::Role(role));
            }
            (Some((database, role)), Some(_)) if database.is_main() && self.databases.is_operator(&role) => {
                return Entered::new(&*wanted(&named)?, Caller::Anybody);
            }
            (Some(_) | None, _) => {}
        }
        if self.token.is_none() && open(main) {
            let database = wanted(&named)?;
            if database.is_main() || open(&database) {
                return Entered::new(&database, Caller::Anybody);
            }
        }
        Err(Error::new(Kind::InvalidAuthorization, "a token is needed to post logs, and this is not it")
            .with_hint("Send it as \"Authorization: Bearer TOKEN\", or as the password of Basic authentication."))
    }

    /// Whose token it is, and in which database.
    fn role_of(&self, token: &str) -> Option<(Arc<Database>, String)> {
        self.databases.all().into_iter().find_map(|database| {
            let engine = database.engine().ok()?;
            let role = engine.roles(|roles| roles.role_of(token).map(str::to_string))?;
            Some((database, role))
        })
    }

    /// Fails unless the sender of these headers may see the figures of the server: where the main database has roles, whoever
    /// may read what is in its schema `logweir`.
    pub fn may_see_metrics(&self, headers: &HeaderMap) -> Result<()> {
        let main = self.databases.main().engine()?;
        if main.roles(|roles| roles.is_empty()) {
            return Ok(());
        }
        // They are those of all databases: no tenant's token counts.
        let Entered { engine, caller, .. } = self.enter(headers, Some(MAIN_DATABASE))?;
        caller.may(&engine, Privilege::Select, SYSTEM, "streams")
    }
}

/// The token in an Authorization header.
fn token(header: &str) -> Option<String> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_string()),
        "basic" => {
            let pair = String::from_utf8(base64(rest.trim())?).ok()?;
            pair.split_once(':').map(|(_, password)| password.to_string())
        }
        _ => None,
    }
}

/// Bytes of base64 (RFC 4648, section 4), padded or not.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_both_forms() {
        assert_eq!(token("Bearer s3cret").as_deref(), Some("s3cret"));
        assert_eq!(token("basic YW55Ym9keTpzM2NyZXQ=").as_deref(), Some("s3cret"));
        assert_eq!(token("Digest x"), None);
        assert_eq!(token("Basic ???"), None);
    }
}
