//! Who may post logs: whoever knows the token (`--http-token`), if there is one.
//!
//! It is given as a bearer token (RFC 6750); or as the password of Basic authentication (RFC 7617) with any user, because
//! that is all that some senders have.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::Door;
use crate::error::{Error, Kind, Result};

impl Door {
    /// Fails unless the headers hold the token.
    pub fn admits(&self, headers: &HeaderMap) -> Result<()> {
        let Some(secret) = &self.token else { return Ok(()) };
        let wanted = secret.resolve().map_err(|err| err.with_context("http-token"))?;
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match token(given).is_some_and(|given| same(given.as_bytes(), wanted.as_bytes())) {
            true => Ok(()),
            false => Err(Error::new(Kind::InsufficientPrivilege, "a token is needed to post logs, and this is not it")
                .with_hint("Send it as \"Authorization: Bearer TOKEN\", or as the password of Basic authentication.")),
        }
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

/// Takes the same time wherever they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
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
        assert!(same(b"a", b"a") && !same(b"a", b"b") && !same(b"a", b"ab"));
    }
}
