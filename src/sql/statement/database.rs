//! `CREATE DATABASE`, `ALTER DATABASE`, `DROP DATABASE`: tenants of the server, with their quotas ([`crate::database`]).
//!
//! They are for administrators of the main database, in it. What PostgreSQL's tools write behind them (`createdb`) is taken
//! where it is so here, and refused where something else was wanted.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create_role::role_name;
use super::{Command, Spec};
use crate::config::MAIN_DATABASE;
use crate::database::{Databases, Quotas};
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{option_list, option_value, syntax, words};
use crate::sql::{Outcome, Session};

pub static CREATE: Spec = Spec {
    name: "CREATE DATABASE",
    syntax: "CREATE DATABASE [IF NOT EXISTS] name [WITH (quota = value, …)]",
    summary: "a tenant: a database with streams, views, alerts, roles and tokens of its own, bounded by quotas",
    parse: create,
};

pub static ALTER: Spec = Spec {
    name: "ALTER DATABASE",
    syntax: "ALTER DATABASE name SET (quota = value, …)",
    summary: "changes the quotas of a tenant; 'none' takes one away",
    parse: alter,
};

pub static DROP: Spec = Spec {
    name: "DROP DATABASE",
    syntax: "DROP DATABASE [IF EXISTS] name [WITH (FORCE)]",
    summary: "removes a tenant with all that it holds; FORCE ends its connections first",
    parse: drop_database,
};

/// The databases of the server, for whoever may change them.
fn databases(session: &Session, what: &str) -> Result<Arc<Databases>> {
    session.must_be_admin(what)?;
    let engine = session.engine();
    if !engine.is_main() {
        return Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied to {what}"))
            .with_detail(format!("\"{}\" is the database of a tenant.", engine.database()))
            .with_hint(format!(
                "Administrators of the database {MAIN_DATABASE} do that, when they are connected to it."
            )));
    }
    engine.databases().ok_or_else(|| {
        Error::new(Kind::NotSupported, "there can be no other databases here")
            .with_hint("Start a server with `logweir serve --data-dir DIR`.")
    })
}

#[derive(Debug)]
struct Create {
    name: String,
    if_not_exists: bool,
    options: Vec<(String, String)>,
    notices: Vec<String>,
}

fn create(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["CREATE", "DATABASE"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = role_name(parser)?;
    let (mut options, mut notices) = (Vec::new(), Vec::new());
    let _ = words(parser, &["WITH"]);
    if parser.peek_token_ref().token == Token::LParen {
        options = option_list(parser)?;
    } else {
        while let Some(option) = of_postgres(parser)? {
            match option {
                Said::Quota(name, value) => options.push((name.to_string(), value)),
                Said::Notice(notice) => notices.push(notice),
                Said::Nothing => {}
            }
        }
    }
    Ok(Some(Arc::new(Create { name, if_not_exists, options, notices })))
}

/// What an option of PostgreSQL comes to.
enum Said {
    Quota(&'static str, String),
    Notice(String),
    Nothing,
}

/// One option of PostgreSQL's CREATE DATABASE; `None` where there is none.
fn of_postgres(parser: &mut Parser<'_>) -> Result<Option<Said>> {
    let value = |parser: &mut Parser<'_>| {
        let _ = parser.consume_token(&Token::Eq);
        option_value(parser)
    };
    let refused = |what: &str, value: &str| {
        Err(Error::new(Kind::NotSupported, format!("{what} \"{value}\" is not supported for databases")))
    };
    if words(parser, &["OWNER"]) {
        let _ = parser.consume_token(&Token::Eq);
        let owner = role_name(parser)?;
        return Ok(Some(match owner.as_str() {
            "default" | "current_user" | "current_role" | "session_user" => Said::Nothing,
            _ => Said::Notice(format!(
                "roles of a database are its own: \"{owner}\" owns nothing there, and enters as an administrator"
            )),
        }));
    }
    if words(parser, &["CONNECTION", "LIMIT"]) {
        let _ = parser.consume_token(&Token::Eq);
        let negative = parser.consume_token(&Token::Minus);
        let count = option_value(parser)?;
        return Ok(Some(Said::Quota("connections", if negative { "none".to_string() } else { count })));
    }
    if words(parser, &["TEMPLATE"]) {
        let template = value(parser)?;
        let empty = ["template0", "template1", "default"].contains(&template.to_ascii_lowercase().as_str());
        return if empty { Ok(Some(Said::Nothing)) } else { refused("template", &template) };
    }
    if words(parser, &["ENCODING"]) {
        let encoding = value(parser)?;
        let known = ["utf8", "utf-8", "unicode", "6", "default"].contains(&encoding.to_ascii_lowercase().as_str());
        return if known { Ok(Some(Said::Nothing)) } else { refused("encoding", &encoding) };
    }
    // Texts are compared by their bytes, everywhere.
    const SO: [&str; 9] = [
        "LC_COLLATE",
        "LC_CTYPE",
        "LOCALE",
        "LOCALE_PROVIDER",
        "ICU_LOCALE",
        "COLLATION_VERSION",
        "STRATEGY",
        "TABLESPACE",
        "OID",
    ];
    if SO.iter().any(|word| words(parser, &[word])) {
        value(parser)?;
        return Ok(Some(Said::Nothing));
    }
    Ok(None)
}

impl Command for Create {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let databases = databases(session, "create a database")?;
            if self.if_not_exists && databases.find(&self.name).is_some() {
                let notice = format!("database \"{}\" already exists, skipping", self.name);
                return Ok(Outcome::noticed("CREATE DATABASE", notice));
            }
            let mut quotas = Quotas::default();
            quotas.change(&self.options)?;
            databases.create_database(&self.name, quotas).await?;
            Ok(Outcome::Done { tag: "CREATE DATABASE".into(), rows: None, notices: self.notices.clone() })
        })
    }
}

#[derive(Debug)]
struct Alter {
    name: String,
    options: Vec<(String, String)>,
}

fn alter(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["ALTER", "DATABASE"]) {
        return Ok(None);
    }
    let name = role_name(parser)?;
    let with = words(parser, &["SET"]) || words(parser, &["WITH"]);
    let options = match of_postgres(parser)? {
        Some(Said::Quota(name, value)) => vec![(name.to_string(), value)],
        Some(Said::Notice(_) | Said::Nothing) => return Err(other_form()),
        None if with && parser.peek_token_ref().token == Token::LParen => option_list(parser)?,
        None => return Err(other_form()),
    };
    Ok(Some(Arc::new(Alter { name, options })))
}

fn other_form() -> Error {
    Error::new(Kind::NotSupported, "only the quotas of a database can be changed")
        .with_hint(format!("The form is {}; or ALTER DATABASE name CONNECTION LIMIT n.", ALTER.syntax))
}

impl Command for Alter {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let later = databases(session, "alter a database")?.alter_database(&self.name, &self.options).await?;
            let notices = match later.is_empty() {
                true => Vec::new(),
                false => vec![format!("{} will count when the server starts again", later.join(", "))],
            };
            Ok(Outcome::Done { tag: "ALTER DATABASE".into(), rows: None, notices })
        })
    }
}

#[derive(Debug)]
struct Drop {
    name: String,
    if_exists: bool,
    force: bool,
}

fn drop_database(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["DROP", "DATABASE"]) {
        return Ok(None);
    }
    let if_exists = words(parser, &["IF", "EXISTS"]);
    let name = role_name(parser)?;
    let _ = words(parser, &["WITH"]);
    let force = parser.consume_token(&Token::LParen);
    if force {
        if !words(parser, &["FORCE"]) {
            return Err(Error::new(Kind::Syntax, "syntax error: DROP DATABASE has the one option FORCE"));
        }
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
    }
    Ok(Some(Arc::new(Drop { name, if_exists, force })))
}

impl Command for Drop {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let databases = databases(session, "drop a database")?;
            if self.if_exists && databases.find(&self.name).is_none() {
                let notice = format!("database \"{}\" does not exist, skipping", self.name);
                return Ok(Outcome::noticed("DROP DATABASE", notice));
            }
            databases.drop_database(&self.name, self.force).await?;
            Ok(Outcome::done("DROP DATABASE"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::parser;

    fn shown(text: &str) -> Result<String> {
        let parse = if text.starts_with("CREATE") {
            create
        } else if text.starts_with("ALTER") {
            alter
        } else {
            drop_database
        };
        parse(&mut parser(text).unwrap(), text).map(|command| format!("{:?}", command.unwrap()))
    }

    #[test]
    fn what_createdb_writes_is_taken() {
        let made = shown(
            "CREATE DATABASE \"Acme\" OWNER root ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' CONNECTION LIMIT 5",
        );
        let made = made.unwrap();
        assert!(made.contains("name: \"Acme\"") && made.contains("[(\"connections\", \"5\")]"), "{made}");
        assert!(made.contains("roles of a database are its own"), "{made}");
        let made = shown("CREATE DATABASE IF NOT EXISTS acme WITH (ingest_rate = '1 MiB/s', max_queries = 2)").unwrap();
        assert!(made.contains("if_not_exists: true") && made.contains("(\"max_queries\", \"2\")"), "{made}");
        for (text, kind) in [
            ("CREATE DATABASE a TEMPLATE other", Kind::NotSupported),
            ("CREATE DATABASE a ENCODING 'LATIN1'", Kind::NotSupported),
            ("ALTER DATABASE a RENAME TO b", Kind::NotSupported),
            ("ALTER DATABASE a SET search_path TO x", Kind::NotSupported),
            ("DROP DATABASE a WITH (GENTLY)", Kind::Syntax),
        ] {
            assert_eq!(shown(text).unwrap_err().kind(), kind, "{text}");
        }
        assert!(shown("ALTER DATABASE a WITH CONNECTION LIMIT -1").unwrap().contains("(\"connections\", \"none\")"));
        assert!(shown("DROP DATABASE IF EXISTS a WITH (FORCE)").unwrap().contains("force: true"));
    }
}
