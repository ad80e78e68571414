//! `ALTER … OWNER TO` and `REASSIGN OWNED`: gives objects away. Who is no administrator gives what they own to a role that
//! they are a member of and that may create objects, as in PostgreSQL.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create_role::{role_name, role_names};
use super::{Command, Spec};
use crate::catalog::ObjectKind;
use crate::catalog::postgres::ROLE;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{relation_name, words};
use crate::sql::{Outcome, Session};

pub static ALTER: Spec = Spec {
    name: "ALTER … OWNER TO",
    syntax: "ALTER TABLE | MATERIALIZED VIEW | VIEW | SOURCE | SINK | ALERT | REPORT | NOTIFIER name OWNER TO role | CURRENT_USER",
    summary: "gives an object to another role",
    parse: alter,
};

pub static REASSIGN: Spec = Spec {
    name: "REASSIGN OWNED",
    syntax: "REASSIGN OWNED BY role, … TO role | CURRENT_USER",
    summary: "gives all objects of some roles to another one, so that they can be dropped",
    parse: reassign,
};

/// The words of each kind of object, and the kinds that they mean: a view may be either, and a table any.
static FORMS: &[(&[&str], &[ObjectKind])] = &[
    (&["MATERIALIZED", "VIEW"], &[ObjectKind::MaterializedView]),
    (&["VIEW"], &[ObjectKind::View, ObjectKind::MaterializedView]),
    (&["EXTERNAL", "TABLE"], &[ObjectKind::ExternalTable]),
    (&["STREAM"], &[ObjectKind::Stream]),
    (
        &["TABLE"],
        &[
            ObjectKind::Stream,
            ObjectKind::ReferenceTable,
            ObjectKind::ExternalTable,
            ObjectKind::View,
            ObjectKind::MaterializedView,
        ],
    ),
    (&["SOURCE"], &[ObjectKind::Source]),
    (&["SINK"], &[ObjectKind::Sink]),
    (&["ALERT"], &[ObjectKind::Alert]),
    (&["REPORT"], &[ObjectKind::Report]),
    (&["NOTIFIER"], &[ObjectKind::Notifier]),
];

/// A role by its name, or that of the session.
#[derive(Debug)]
enum Heir {
    Named(String),
    Acting,
    LoggedIn,
}

impl Heir {
    fn parse(parser: &mut Parser<'_>) -> Result<Heir> {
        if words(parser, &["CURRENT_USER"]) || words(parser, &["CURRENT_ROLE"]) {
            return Ok(Heir::Acting);
        }
        if words(parser, &["SESSION_USER"]) {
            return Ok(Heir::LoggedIn);
        }
        Ok(Heir::Named(role_name(parser)?))
    }

    fn name(&self, session: &Session) -> String {
        let name = match self {
            Heir::Named(name) => Some(name.clone()),
            Heir::Acting => session.user(),
            Heir::LoggedIn => session.login(),
        };
        name.unwrap_or_else(|| ROLE.to_string())
    }
}

#[derive(Debug)]
struct Alter {
    kinds: &'static [ObjectKind],
    name: String,
    heir: Heir,
    tag: String,
}

fn alter(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["ALTER"]) {
        return Ok(None);
    }
    if words(parser, &["DEFAULT", "PRIVILEGES"]) {
        return Err(Error::new(Kind::NotSupported, "ALTER DEFAULT PRIVILEGES is not supported")
            .with_hint("Members of logweir_read and logweir_ingest get at everything that is made later."));
    }
    let Some((form, kinds)) = FORMS.iter().find(|(form, _)| words(parser, form)) else { return Ok(None) };
    let name = relation_name(parser)?;
    if !words(parser, &["OWNER", "TO"]) {
        return Ok(None);
    }
    let tag = format!("ALTER {}", form.join(" "));
    Ok(Some(Arc::new(Alter { kinds, name, heir: Heir::parse(parser)?, tag })))
}

impl Command for Alter {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            session.engine().give(&session.actor(), self.kinds, &self.name, &self.heir.name(session)).await?;
            Ok(Outcome::done(&self.tag))
        })
    }
}

#[derive(Debug)]
struct Reassign {
    from: Vec<String>,
    heir: Heir,
}

fn reassign(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if words(parser, &["DROP", "OWNED"]) {
        while parser.next_token().token != Token::EOF {}
        return Err(Error::new(Kind::NotSupported, "DROP OWNED is not supported")
            .with_hint("REASSIGN OWNED BY … TO … gives the objects away; DROP removes them one by one."));
    }
    if !words(parser, &["REASSIGN", "OWNED", "BY"]) {
        return Ok(None);
    }
    let from = role_names(parser)?;
    if !words(parser, &["TO"]) {
        let found = parser.peek_token_ref().to_string();
        return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
            .with_hint(format!("The form is: {}", REASSIGN.syntax)));
    }
    Ok(Some(Arc::new(Reassign { from, heir: Heir::parse(parser)? })))
}

impl Command for Reassign {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            session.engine().give_all(&session.actor(), &self.from, &self.heir.name(session)).await?;
            Ok(Outcome::done("REASSIGN OWNED"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::ours;

    #[test]
    fn what_is_given_to_whom_is_read() {
        let parsed = |text: &str| ours(text).map(|found| format!("{:?}", found.expect("it is ours").1));
        let shown = parsed("ALTER MATERIALIZED VIEW public.\"V\" OWNER TO Bob").unwrap();
        assert!(shown.contains("\"V\"") && shown.contains("Named(\"bob\")"), "{shown}");
        assert!(parsed("ALTER ALERT a OWNER TO CURRENT_USER").unwrap().contains("Acting"));
        assert!(parsed("REASSIGN OWNED BY a, b TO session_user").unwrap().contains("[\"a\", \"b\"], heir: LoggedIn"));
        for text in
            ["ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO a", "DROP OWNED BY a", "DROP OWNED BY a CASCADE"]
        {
            assert_eq!(parsed(text).unwrap_err().kind(), Kind::NotSupported, "{text}");
        }
        assert_eq!(parsed("REASSIGN OWNED BY a").unwrap_err().kind(), Kind::Syntax);
    }
}
