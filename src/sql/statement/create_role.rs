//! `CREATE ROLE`, `ALTER ROLE`, `DROP ROLE` (and `USER`): who may come in. What is kept of a password is a verifier, which
//! is made here, so that the password itself goes no further.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::access::Attributes;
use crate::access::scram::Verifier;
use crate::error::{Error, Kind, Result};
use crate::secret::{HIDDEN, Secret};
use crate::sql::parser::{folded, syntax, words};
use crate::sql::{Outcome, Session};

pub static CREATE: Spec = Spec {
    name: "CREATE ROLE",
    syntax: "CREATE ROLE | USER [IF NOT EXISTS] name [ADMIN] [LOGIN] [PASSWORD '…'] [IN ROLE role, …]",
    summary: "somebody who may come in: USER implies LOGIN; ADMIN (or SUPERUSER) may do everything. The password may be '${ENV:NAME}', '${FILE:/path}' or a verifier as PostgreSQL keeps it",
    parse: create,
};

pub static ALTER: Spec = Spec {
    name: "ALTER ROLE",
    syntax: "ALTER ROLE | USER name [ADMIN | NOADMIN] [LOGIN | NOLOGIN] [PASSWORD '…' | NULL]",
    summary: "changes a role; everybody may change their own password",
    parse: alter,
};

pub static DROP: Spec = Spec {
    name: "DROP ROLE",
    syntax: "DROP ROLE | USER [IF EXISTS] name, …",
    summary: "removes roles with their privileges and tokens; not one that owns objects",
    parse: drop_roles,
};

/// What is said of a role.
#[derive(Default)]
struct Said {
    admin: Option<bool>,
    login: Option<bool>,
    /// As it was given; without one it is taken away.
    password: Option<Option<String>>,
    in_role: Vec<String>,
}

/// Without the password.
impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| HIDDEN);
        write!(f, "Said({:?}, {:?}, {password:?}, {:?})", self.admin, self.login, self.in_role)
    }
}

fn either(parser: &mut Parser<'_>, verb: &str) -> Option<bool> {
    if words(parser, &[verb, "USER"]) {
        return Some(true);
    }
    (words(parser, &[verb, "ROLE"]) || words(parser, &[verb, "GROUP"])).then_some(false)
}

pub(super) fn role_name(parser: &mut Parser<'_>) -> Result<String> {
    Ok(folded(&parser.parse_identifier().map_err(|e| syntax(&e))?))
}

pub(super) fn role_names(parser: &mut Parser<'_>) -> Result<Vec<String>> {
    let mut names = vec![role_name(parser)?];
    while parser.consume_token(&Token::Comma) {
        names.push(role_name(parser)?);
    }
    Ok(names)
}

/// A quoted text.
pub(super) fn literal(parser: &mut Parser<'_>, what: &str) -> Result<String> {
    match parser.next_token().token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Ok(text),
        Token::DollarQuotedString(text) => Ok(text.value),
        // Without what was found: it may be the secret.
        _ => Err(Error::new(Kind::Syntax, format!("syntax error: {what} is followed by a text in single quotes"))),
    }
}

fn said(parser: &mut Parser<'_>, mut said: Said) -> Result<Said> {
    let _ = words(parser, &["WITH"]);
    loop {
        if words(parser, &["ADMIN"]) || words(parser, &["SUPERUSER"]) {
            said.admin = Some(true);
        } else if words(parser, &["NOADMIN"]) || words(parser, &["NOSUPERUSER"]) {
            said.admin = Some(false);
        } else if words(parser, &["LOGIN"]) {
            said.login = Some(true);
        } else if words(parser, &["NOLOGIN"]) {
            said.login = Some(false);
        } else if words(parser, &["PASSWORD", "NULL"]) {
            said.password = Some(None);
        } else if words(parser, &["ENCRYPTED", "PASSWORD"]) || words(parser, &["PASSWORD"]) {
            said.password = Some(Some(literal(parser, "PASSWORD")?));
        } else if words(parser, &["IN", "ROLE"]) {
            said.in_role = role_names(parser)?;
        } else {
            // What PostgreSQL's tools write out and what is so here for all roles.
            const SO: [&str; 5] = ["INHERIT", "NOCREATEDB", "NOCREATEROLE", "NOREPLICATION", "NOBYPASSRLS"];
            if !SO.iter().any(|word| words(parser, &[word])) {
                return Ok(said);
            }
        }
    }
}

#[derive(Debug)]
struct Create {
    name: String,
    if_not_exists: bool,
    said: Said,
}

fn create(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    let Some(is_user) = either(parser, "CREATE") else { return Ok(None) };
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = role_name(parser)?;
    let said = said(parser, Said { login: is_user.then_some(true), ..Said::default() })?;
    Ok(Some(Arc::new(Create { name, if_not_exists, said })))
}

impl Command for Create {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            if self.if_not_exists && session.engine().roles(|roles| roles.get(&self.name).is_some()) {
                let notice = format!("role \"{}\" already exists, skipping", self.name);
                return Ok(Outcome::noticed("CREATE ROLE", notice));
            }
            session.engine().check_role_name(&self.name)?;
            let attributes = self.said.attributes()?;
            let change = |roles: &mut crate::access::Roles| {
                roles.create(&self.name, attributes)?;
                self.said.in_role.iter().try_for_each(|role| roles.grant_role(role, &self.name, true))
            };
            session.engine().change_roles(change).await?;
            Ok(Outcome::done("CREATE ROLE"))
        })
    }
}

impl Said {
    fn attributes(&self) -> Result<Attributes> {
        let password = match &self.password {
            Some(Some(given)) => Some(Some(verifier(given)?)),
            Some(None) => Some(None),
            None => None,
        };
        Ok(Attributes { admin: self.admin, login: self.login, password })
    }
}

/// What is kept of a password. Errors do not show it.
fn verifier(given: &str) -> Result<Verifier> {
    let secret = Secret::new(given);
    secret.check("password")?;
    secret.within_reach()?;
    let password = secret.resolve().map_err(|err| err.with_context("password"))?;
    if let Some(verifier) = Verifier::parse(&password) {
        return Ok(verifier);
    }
    let is_md5 = password
        .strip_prefix("md5")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_md5 || password.starts_with("SCRAM-SHA-256$") {
        return Err(Error::new(Kind::NotSupported, "the password is hashed in a way that is not known here")
            .with_hint("Give it in clear, or as SCRAM-SHA-256$4096:salt$StoredKey:ServerKey."));
    }
    if password.is_empty() {
        return Err(Error::new(Kind::InvalidParameter, "a password cannot be empty"));
    }
    Ok(Verifier::new(&password))
}

#[derive(Debug)]
struct Alter {
    name: String,
    said: Said,
}

fn alter(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if either(parser, "ALTER").is_none() {
        return Ok(None);
    }
    let name = role_name(parser)?;
    let said = said(parser, Said::default())?;
    if !said.in_role.is_empty() {
        return Err(Error::new(Kind::Syntax, "IN ROLE is for new roles").with_hint("Use GRANT role TO role."));
    }
    Ok(Some(Arc::new(Alter { name, said })))
}

impl Command for Alter {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let password_only = self.said.admin.is_none() && self.said.login.is_none();
            let given = self.said.password.as_ref().and_then(Option::as_deref).unwrap_or_default();
            // A reference would let anybody find out which files there are.
            let own = password_only && !given.starts_with("${") && session.is_role(&self.name);
            if !own {
                session.must_be_admin("change a role")?;
            }
            let attributes = self.said.attributes()?;
            session.engine().change_roles(|roles| roles.alter(&self.name, attributes)).await?;
            Ok(Outcome::done("ALTER ROLE"))
        })
    }
}

#[derive(Debug)]
struct DropRoles {
    names: Vec<String>,
    if_exists: bool,
}

fn drop_roles(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if either(parser, "DROP").is_none() {
        return Ok(None);
    }
    let if_exists = words(parser, &["IF", "EXISTS"]);
    Ok(Some(Arc::new(DropRoles { names: role_names(parser)?, if_exists })))
}

impl Command for DropRoles {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            if let Some(name) = self.names.iter().find(|name| session.is_role(name)) {
                return Err(Error::new(Kind::ObjectInUse, format!("role \"{name}\" is your own")));
            }
            let mut notices = Vec::new();
            let change = |roles: &mut crate::access::Roles| {
                for name in &self.names {
                    if self.if_exists && roles.get(name).is_none() {
                        notices.push(format!("role \"{name}\" does not exist, skipping"));
                        continue;
                    }
                    session.engine().check_owns_nothing(name)?;
                    roles.drop_role(name)?;
                }
                Ok(())
            };
            session.engine().change_roles(change).await?;
            Ok(Outcome::Done { tag: "DROP ROLE".into(), rows: None, notices })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::parser;

    #[test]
    fn passwords_are_in_no_debug_and_no_error() {
        let parsed =
            |text: &str| create(&mut parser(text).unwrap(), text).map(|command| format!("{:?}", command.unwrap()));
        let shown = parsed("CREATE USER alice ADMIN PASSWORD 'hunter2' IN ROLE a, \"B\"").unwrap();
        assert_eq!(
            shown,
            "Create { name: \"alice\", if_not_exists: false, \
             said: Said(Some(true), Some(true), Some(\"***\"), [\"a\", \"B\"]) }"
        );
        let err = parsed("CREATE ROLE alice PASSWORD hunter2").unwrap_err();
        assert!(!err.to_string().contains("hunter2"), "{err}");
        let shown = parsed("CREATE ROLE IF NOT EXISTS x WITH NOCREATEDB INHERIT NOLOGIN PASSWORD NULL").unwrap();
        assert!(shown.contains("if_not_exists: true, said: Said(None, Some(false), Some(\"***\"), [])"), "{shown}");
    }

    #[test]
    fn passwords_become_verifiers_once() {
        let made = verifier("hunter2").unwrap().to_string();
        assert_eq!(verifier(&made).unwrap().to_string(), made);
        for (password, kind) in [
            ("", Kind::InvalidParameter),
            ("md5c3f3e24d08f0f1d8a1b4c7b4b6a1d1ff", Kind::NotSupported),
            ("SCRAM-SHA-256$x", Kind::NotSupported),
            ("${VAULT:x}", Kind::InvalidParameter),
        ] {
            assert_eq!(verifier(password).unwrap_err().kind(), kind, "{password}");
        }
    }
}
