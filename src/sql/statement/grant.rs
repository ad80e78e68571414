//! `GRANT` and `REVOKE`: privileges on relations, and memberships (PostgreSQL manual, GRANT). As there, `ALL TABLES IN
//! SCHEMA` means those that are there now; members of `logweir_read` and `logweir_ingest` get at later ones too.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create_role::role_names;
use super::{Command, Spec};
use crate::access::{Privilege, Relation, Roles};
use crate::error::{Error, Kind, Result};
use crate::options::list;
use crate::sql::parser::{folded, syntax, words};
use crate::sql::privileges::relation_of;
use crate::sql::{Outcome, Session};

pub static GRANT: Spec = Spec {
    name: "GRANT",
    syntax: "GRANT SELECT | INSERT | ALL, … ON relation, … | ALL TABLES IN SCHEMA public | logweir TO role, … | GRANT role, … TO role, …",
    summary: "lets roles read relations or put rows into streams; makes roles members of others, such as logweir_read and logweir_ingest. Whoever may read a view needs nothing on what it reads",
    parse: grant,
};

pub static REVOKE: Spec = Spec {
    name: "REVOKE",
    syntax: "REVOKE SELECT | INSERT | ALL, … ON relation, … | ALL TABLES IN SCHEMA public | logweir FROM role, … | REVOKE role, … FROM role, …",
    summary: "takes privileges and memberships away",
    parse: revoke,
};

#[derive(Debug)]
struct Change {
    give: bool,
    what: What,
    roles: Vec<String>,
}

#[derive(Debug)]
enum What {
    Privileges(Vec<Privilege>, On),
    Roles(Vec<String>),
    /// What PostgreSQL's scripts give besides, and everybody has here.
    Nothing(&'static str),
}

#[derive(Debug)]
enum On {
    Relations(Vec<Relation>),
    Schemas(Vec<String>),
}

fn grant(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    parse(parser, "GRANT", "TO", true)
}

fn revoke(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    parse(parser, "REVOKE", "FROM", false)
}

fn parse(parser: &mut Parser<'_>, verb: &str, to: &str, give: bool) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &[verb]) {
        return Ok(None);
    }
    let what = what(parser)?;
    if !words(parser, &[to]) {
        let found = parser.peek_token_ref().to_string();
        let syntax = if give { GRANT.syntax } else { REVOKE.syntax };
        return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
            .with_hint(format!("The form is: {syntax}")));
    }
    let roles = role_names(parser)?;
    if !give {
        let _ = words(parser, &["CASCADE"]) || words(parser, &["RESTRICT"]);
    }
    Ok(Some(Arc::new(Change { give, what, roles })))
}

fn what(parser: &mut Parser<'_>) -> Result<What> {
    // Names in either case: whether they are privileges or roles is told by ON.
    let mut names = Vec::new();
    loop {
        let ident = parser.parse_identifier().map_err(|e| syntax(&e))?;
        let _ = ident.value.eq_ignore_ascii_case("ALL") && words(parser, &["PRIVILEGES"]);
        names.push(folded(&ident));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    if !words(parser, &["ON"]) {
        return Ok(What::Roles(names));
    }
    for (object, privileges) in [("SCHEMA", ["usage"].as_slice()), ("DATABASE", &["connect", "temporary", "temp"])] {
        if words(parser, &[object]) {
            let _ = role_names(parser)?;
            return match names.iter().all(|name| privileges.contains(&name.as_str())) {
                true => Ok(What::Nothing("everybody who can log in has it")),
                false => Err(Error::new(
                    Kind::NotSupported,
                    format!("there are no such privileges on a {}", object.to_lowercase()),
                )
                .with_detail("Only administrators create objects.")),
            };
        }
    }
    let mut privileges = Vec::new();
    for name in &names {
        match Privilege::ALL.into_iter().find(|privilege| privilege.word().eq_ignore_ascii_case(name)) {
            Some(privilege) => privileges.push(privilege),
            None if name == "all" => privileges.extend(Privilege::ALL),
            None => {
                let known = list(Privilege::ALL.map(Privilege::word));
                return Err(Error::new(Kind::NotSupported, format!("there is no privilege {}", name.to_uppercase()))
                    .with_detail(format!("Privileges on relations are {known}, and ALL.")));
            }
        }
    }
    if words(parser, &["ALL", "TABLES", "IN", "SCHEMA"]) {
        return Ok(What::Privileges(privileges, On::Schemas(role_names(parser)?)));
    }
    let _ = words(parser, &["TABLE"]);
    let mut relations = Vec::new();
    loop {
        relations.push(relation_of(&parser.parse_object_name(false).map_err(|e| syntax(&e))?)?);
        if !parser.consume_token(&Token::Comma) {
            return Ok(What::Privileges(privileges, On::Relations(relations)));
        }
    }
}

impl Command for Change {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Change {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (engine, tag) = (session.engine(), if self.give { "GRANT" } else { "REVOKE" });
        match &self.what {
            What::Nothing(why) => return Ok(Outcome::noticed(tag, format!("nothing has changed: {why}"))),
            What::Roles(granted) => {
                let change = |roles: &mut Roles| {
                    let mut pairs = granted.iter().flat_map(|role| self.roles.iter().map(move |member| (role, member)));
                    pairs.try_for_each(|(role, member)| roles.grant_role(role, member, self.give))
                };
                engine.change_roles(change).await?;
            }
            What::Privileges(privileges, on) => {
                let relations = match on {
                    On::Relations(relations) => relations.clone(),
                    On::Schemas(schemas) => {
                        let all = schemas.iter().map(|schema| engine.grantable(schema));
                        all.collect::<Result<Vec<_>>>()?.concat()
                    }
                };
                // What was dropped since it was written down gives no privileges to what comes next.
                let known = |relation: &&Relation| !engine.is_restoring() || engine.check_grantable(relation).is_ok();
                let relations: Vec<&Relation> = relations.iter().filter(known).collect();
                relations.iter().try_for_each(|relation| engine.check_grantable(relation))?;
                let change = |roles: &mut Roles| {
                    for role in &self.roles {
                        for relation in &relations {
                            let mut all = privileges.iter();
                            all.try_for_each(|privilege| roles.grant(role, *privilege, relation, self.give))?;
                        }
                    }
                    Ok(())
                };
                engine.change_roles(change).await?;
            }
        }
        Ok(Outcome::done(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::parser;

    fn parsed(text: &str) -> Result<String> {
        let command = grant(&mut parser(text)?, text)?.expect("it begins with GRANT");
        Ok(format!("{command:?}"))
    }

    #[test]
    fn privileges_and_memberships_are_told_apart() {
        let shown = parsed("GRANT SELECT, insert ON TABLE access, logweir.sources TO alice, \"Bob\"").unwrap();
        for part in ["[Select, Insert]", "\"access\"", "schema: \"logweir\"", "roles: [\"alice\", \"Bob\"]"] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(parsed("GRANT ALL PRIVILEGES ON ALL TABLES IN SCHEMA public TO a").unwrap().contains("Schemas"));
        assert!(parsed("GRANT logweir_read, x TO a").unwrap().contains("Roles([\"logweir_read\", \"x\"])"));
        assert!(parsed("GRANT USAGE ON SCHEMA public TO a").unwrap().contains("Nothing"));
        for (text, kind) in [
            ("GRANT DELETE ON access TO a", Kind::NotSupported),
            ("GRANT CREATE ON SCHEMA public TO a", Kind::NotSupported),
            ("GRANT SELECT ON access FROM a", Kind::Syntax),
            ("GRANT SELECT access TO a", Kind::Syntax),
            ("GRANT", Kind::Syntax),
        ] {
            assert_eq!(parsed(text).unwrap_err().kind(), kind, "{text}");
        }
    }
}
