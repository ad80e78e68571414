//! Who may post logs: whoever knows the token of the server (`--http-token`), if it has one; and where there are roles, whoever
//! has a role's token (CREATE TOKEN), into the streams that the role may INSERT into.
//!
//! It is given as a bearer token (RFC 6750); or as the password of Basic authentication (RFC 7617) with any user, because
//! that is all that some senders have.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::Door;
use crate::access::scram::same;
use crate::access::{Privilege, Relation};
use crate::engine::{Engine, PUBLIC, SYSTEM};
use crate::error::{Error, Kind, Result};
use crate::sql::privileges::allowed;

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

impl Door {
    /// Who has sent these headers. Fails for somebody unknown, where one has to be known.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller> {
        let open = self.engine.roles(|roles| roles.is_empty());
        if self.token.is_none() && open {
            return Ok(Caller::Anybody);
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(token);
        let given = given.unwrap_or_default();
        if let Some(secret) = &self.token {
            let wanted = secret.resolve().map_err(|err| err.with_context("http-token"))?;
            if same(given.as_bytes(), wanted.as_bytes()) {
                return Ok(Caller::Anybody);
            }
        }
        match self.engine.roles(|roles| roles.role_of(&given).map(str::to_string)) {
            Some(role) => Ok(Caller::Role(role)),
            None => Err(Error::new(Kind::InvalidAuthorization, "a token is needed to post logs, and this is not it")
                .with_hint("Send it as \"Authorization: Bearer TOKEN\", or as the password of Basic authentication.")),
        }
    }

    /// Fails unless the sender of these headers may see the figures of the server: where there are roles, whoever may read
    /// what is in schema `logweir`.
    pub fn may_see_metrics(&self, headers: &HeaderMap) -> Result<()> {
        if self.engine.roles(|roles| roles.is_empty()) {
            return Ok(());
        }
        self.caller(headers)?.may(&self.engine, Privilege::Select, SYSTEM, "streams")
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
