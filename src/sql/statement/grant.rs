//! `GRANT` and `REVOKE`: privileges on relations, notifiers and schema public, and memberships (PostgreSQL manual, GRANT). As
//! there, `ALL TABLES IN SCHEMA` means those that are there now; members of `logweir_read` and `logweir_ingest` get at later
//! ones too. Privileges on an object are given by its owner or an administrator, everything else by administrators: nobody
//! hands on what was given to them.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::create_role::role_names;
use super::{Command, Spec};
use crate::access::{Privilege, Relation, Roles};
use crate::engine::PUBLIC;
use crate::error::{Error, Kind, Result};
use crate::options::list;
use crate::sql::parser::{folded, syntax, words};
use crate::sql::privileges::relation_of;
use crate::sql::{Outcome, Session};

pub static GRANT: Spec = Spec {
    name: "GRANT",
    syntax: "GRANT SELECT | INSERT | ALL, … ON relation, … | ALL TABLES IN SCHEMA public | logweir TO role, … | GRANT USAGE ON NOTIFIER name, … TO role, … | GRANT CREATE ON SCHEMA public TO role, … | GRANT role, … TO role, …",
    summary: "lets roles read relations, put rows into streams, tell by notifiers, create objects; makes roles members of others, such as logweir_read, logweir_ingest and logweir_external. Whoever may read a view needs nothing on what it reads",
    parse: grant,
};

pub static REVOKE: Spec = Spec {
    name: "REVOKE",
    syntax: "REVOKE SELECT | INSERT | ALL, … ON relation, … | ALL TABLES IN SCHEMA public | logweir FROM role, … | REVOKE USAGE ON NOTIFIER name, … FROM role, … | REVOKE CREATE ON SCHEMA public FROM role, … | REVOKE role, … FROM role, …",
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
    /// On schema public.
    Create,
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
    } else if words(parser, &["WITH", "GRANT", "OPTION"]) || words(parser, &["WITH", "ADMIN"]) {
        return Err(Error::new(
            Kind::NotSupported,
            "nobody hands on what was given to them: WITH GRANT OPTION is not supported",
        )
        .with_hint("Privileges are given by the owner of an object, by members of its owner and by administrators."));
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
    if words(parser, &["SCHEMA"]) {
        return on_schemas(&names, &role_names(parser)?);
    }
    if words(parser, &["DATABASE"]) {
        let _ = role_names(parser)?;
        return match names.iter().all(|name| ["connect", "temporary", "temp"].contains(&name.as_str())) {
            true => Ok(What::Nothing("everybody who can log in has it")),
            false => Err(Error::new(Kind::NotSupported, "there are no such privileges on a database")),
        };
    }
    let on_notifiers = words(parser, &["NOTIFIER"]);
    let possible: &[Privilege] = if on_notifiers { &Privilege::OF_NOTIFIERS } else { &Privilege::OF_RELATIONS };
    let mut privileges = Vec::new();
    for name in &names {
        match possible.iter().find(|privilege| privilege.word().eq_ignore_ascii_case(name)) {
            Some(privilege) => privileges.push(*privilege),
            None if name == "all" => privileges.extend(possible),
            None => {
                let known = list(possible.iter().map(|privilege| privilege.word()));
                let what = if on_notifiers { "notifiers" } else { "relations" };
                return Err(Error::new(
                    Kind::NotSupported,
                    format!("there is no privilege {} on {what}", name.to_uppercase()),
                )
                .with_detail(format!("Privileges on {what} are {known}, and ALL.")));
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

/// Of the schemas CREATE means something in public; everybody may name what is in any of them.
fn on_schemas(names: &[String], schemas: &[String]) -> Result<What> {
    let create = names.iter().any(|name| ["create", "all"].contains(&name.as_str()));
    if let Some(unknown) = names.iter().find(|name| !["create", "all", "usage"].contains(&name.as_str())) {
        let message = format!("there is no privilege {} on schemas", unknown.to_uppercase());
        return Err(Error::new(Kind::NotSupported, message).with_detail(
            "Privileges on schemas are CREATE, which lets create objects, and USAGE, which everybody has.",
        ));
    }
    if !create {
        return Ok(What::Nothing("everybody who can log in has it"));
    }
    match schemas.iter().find(|schema| *schema != PUBLIC) {
        Some(other) => Err(Error::new(Kind::NotSupported, format!("nothing can be created in schema \"{other}\""))
            .with_hint("Objects are created in schema public.")),
        None => Ok(What::Create),
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
        let before = engine.running_without_privilege();
        match &self.what {
            What::Nothing(why) => return Ok(Outcome::noticed(tag, format!("nothing has changed: {why}"))),
            What::Create => {
                session.must_be_admin(&format!("{} CREATE", tag.to_lowercase()))?;
                let change =
                    |roles: &mut Roles| self.roles.iter().try_for_each(|role| roles.grant_create(role, self.give));
                engine.change_roles(change).await?;
            }
            What::Roles(granted) => {
                session.must_be_admin(&format!("{} roles", tag.to_lowercase()))?;
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
                let check = |relation: &Relation| {
                    privileges.iter().try_for_each(|privilege| engine.check_grantable(*privilege, relation))
                };
                // What was dropped since it was written down gives no privileges to what comes next.
                let known = |relation: &&Relation| !engine.is_restoring() || check(relation).is_ok();
                let relations: Vec<&Relation> = relations.iter().filter(known).collect();
                for relation in &relations {
                    // What is another's is not told from what is not there.
                    let object = if relation.schema == PUBLIC { engine.object(&relation.name) } else { None };
                    match &object {
                        Some(object) => engine.must_own(&session.actor(), object)?,
                        None => session.must_be_admin(&format!("{} on {relation}", tag.to_lowercase()))?,
                    }
                    check(relation)?;
                }
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
        let notices = engine.running_without_privilege().difference(&before).cloned().collect();
        Ok(Outcome::Done { tag: tag.to_string(), rows: None, notices })
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
        assert!(parsed("GRANT CREATE, USAGE ON SCHEMA public TO a").unwrap().contains("what: Create"));
        assert!(parsed("GRANT USAGE ON NOTIFIER ops TO a").unwrap().contains("[Usage], Relations"));
        for (text, kind) in [
            ("GRANT DELETE ON access TO a", Kind::NotSupported),
            ("GRANT CREATE ON SCHEMA logweir TO a", Kind::NotSupported),
            ("GRANT DELETE ON SCHEMA public TO a", Kind::NotSupported),
            ("GRANT USAGE ON access TO a", Kind::NotSupported),
            ("GRANT SELECT ON NOTIFIER ops TO a", Kind::NotSupported),
            ("GRANT SELECT ON access TO a WITH GRANT OPTION", Kind::NotSupported),
            ("GRANT b TO a WITH ADMIN OPTION", Kind::NotSupported),
            ("GRANT SELECT ON access FROM a", Kind::Syntax),
            ("GRANT SELECT access TO a", Kind::Syntax),
            ("GRANT", Kind::Syntax),
        ] {
            assert_eq!(parsed(text).unwrap_err().kind(), kind, "{text}");
        }
    }
}
