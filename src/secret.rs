//! A password, a token: given as it is, or better as where it is kept.
//!
//! ```text
//!     password = 'hunter2'                      stands in the catalog, in a file that only its owner can read
//!     password = '${ENV:KAFKA_PASSWORD}'        the variable of the server's environment
//!     password = '${FILE:/run/secrets/kafka}'   the file's content without the last line end
//! ```
//!
//! A reference is followed each time the secret is needed, so that it can be changed without touching any object. What is
//! written in its place, wherever options or statements are shown, is `***`; a reference is no secret and is shown.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::reach;

/// What is shown instead.
pub const HIDDEN: &str = "***";

/// The value of a secret option, as given.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Where a secret is.
enum Place<'a> {
    Here(&'a str),
    Environment(&'a str),
    File(&'a str),
    /// `${` with something else in it.
    Unknown,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Secret {
    pub fn new(given: &str) -> Secret {
        Secret(given.to_string())
    }

    fn place(&self) -> Place<'_> {
        let Some(inner) = self.0.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Place::Here(&self.0);
        };
        match inner.split_once(':') {
            Some(("ENV", name)) if !name.is_empty() => Place::Environment(name),
            Some(("FILE", path)) if !path.is_empty() => Place::File(path),
            Some(_) | None => Place::Unknown,
        }
    }

    /// Fails for a reference of no known kind: it would be a strange secret.
    pub fn check(&self, option: &str) -> Result<()> {
        match self.place() {
            Place::Here(_) | Place::Environment(_) | Place::File(_) => Ok(()),
            Place::Unknown => {
                let message = format!("option \"{option}\" refers to a secret in a way that is not known");
                Err(Error::new(Kind::InvalidParameter, message)
                    .with_hint("Write '${ENV:NAME}', '${FILE:/path}' or the secret itself."))
            }
        }
    }

    /// Fails unless SQL may refer to what it refers to.
    pub fn within_reach(&self) -> Result<()> {
        match self.place() {
            Place::File(path) => reach::path(path),
            Place::Environment(_) => reach::machine("the environment of the server"),
            Place::Here(_) | Place::Unknown => Ok(()),
        }
    }

    /// What may be shown of it.
    pub fn shown(&self) -> &str {
        match self.place() {
            Place::Environment(_) | Place::File(_) => &self.0,
            Place::Here(_) | Place::Unknown => HIDDEN,
        }
    }

    /// The secret itself.
    pub fn resolve(&self) -> Result<String> {
        match self.place() {
            Place::Here(text) => Ok(text.to_string()),
            Place::Unknown => Err(Error::internal("it was refused before")),
            Place::Environment(name) => std::env::var(name).map_err(|_| {
                let message = format!("the environment of the server has no variable {name}, or not as text");
                Error::new(Kind::UndefinedObject, message)
            }),
            Place::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|err| Error::io("read", Path::new(path), &err))?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Ok(line.strip_suffix('\r').unwrap_or(line).to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_followed_and_shown_and_secrets_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "from a file\r\n").unwrap();
        let file = Secret::new(&format!("${{FILE:{}}}", path.display()));
        assert_eq!(file.resolve().unwrap(), "from a file");
        assert_eq!(file.shown(), format!("${{FILE:{}}}", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.resolve().unwrap_err().kind(), Kind::UndefinedFile);
        let home = Secret::new("${ENV:PATH}");
        assert_eq!(home.resolve().unwrap(), std::env::var("PATH").unwrap());
        let err = Secret::new("${ENV:LOGWEIR_NO_SUCH_VARIABLE}").resolve().unwrap_err();
        assert!(err.message().contains("LOGWEIR_NO_SUCH_VARIABLE"), "{err}");
        let here = Secret::new("hunter2");
        assert_eq!((here.resolve().unwrap().as_str(), format!("{here:?}").as_str()), ("hunter2", "***"));
        let unknown = Secret::new("${VAULT:x}");
        assert!(!unknown.check("password").unwrap_err().to_string().contains("VAULT"));
        assert_eq!(unknown.shown(), "***");
        for not_a_reference in ["${", "$ENV:X", "}", ""] {
            Secret::new(not_a_reference).check("password").unwrap();
        }
    }
}
