//! Who may do what, kept: changes of roles, privileges and tokens, made durable before they count.
//!
//! They are kept in the catalog as the statements that make them so ([`statements`]), as `pg_dumpall --globals-only` would
//! write them, and start-up runs these again. All of them are written anew with each change: there are few.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::{COMPANIONS, DEAD_SUFFIX, Engine, PUBLIC, SYSTEM};
use crate::access::{Privilege, Relation, Roles};
use crate::catalog::system::RELATIONS;
use crate::catalog::{Access, ObjectKind, quoted};
use crate::error::{Error, Kind, Result};

/// What the engine holds of it.
#[derive(Default)]
pub(super) struct Held {
    roles: RwLock<Roles>,
    /// The server listens where others are: there have to be roles.
    demanded: AtomicBool,
}

impl Engine {
    /// Looks at the roles as they are now.
    pub fn roles<T>(&self, look: impl FnOnce(&Roles) -> T) -> T {
        look(&self.access.roles.read())
    }

    /// Changes the roles, durably; an error leaves all as it was.
    pub async fn change_roles(&self, change: impl FnOnce(&mut Roles) -> Result<()>) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let mut roles = self.access.roles.read().clone();
        let before = roles.is_empty();
        change(&mut roles)?;
        if !self.is_restoring() {
            roles.check()?;
            if roles.is_empty() && !before && self.access.demanded.load(Ordering::SeqCst) {
                return Err(Error::new(Kind::NotReady, "the last role cannot be dropped")
                    .with_detail("This server listens on other addresses than loopback: anybody could come in then."));
            }
        }
        self.set_roles(roles)
    }

    fn set_roles(&self, roles: Roles) -> Result<()> {
        if !self.is_restoring() {
            let mut catalog = self.catalog.lock();
            let secret = match catalog.access().secret.as_str() {
                "" => rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect(),
                secret => secret.to_string(),
            };
            catalog.set_access(Access { secret, statements: statements(&roles) })?;
        }
        *self.access.roles.write() = roles;
        // What was planned before is planned again, and so are its privileges.
        self.changed();
        Ok(())
    }

    /// From now on there have to be roles. Fails if there are none.
    pub fn demand_roles(&self) -> Result<()> {
        if self.roles(Roles::is_empty) {
            return Err(Error::new(Kind::InvalidAuthorization, "there is no role yet, so anybody could come in"));
        }
        self.access.demanded.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The statements that make the roles again.
    pub fn access_statements(&self) -> Vec<String> {
        self.catalog.lock().access().statements.clone()
    }

    /// What answers to unknown names are made from: of this server alone.
    pub fn access_secret(&self) -> String {
        self.catalog.lock().access().secret.clone()
    }

    /// Forgets privileges on relations before they are dropped: another one of the name starts without.
    pub(super) fn forget_privileges(&self, names: &[String]) -> Result<()> {
        let mut roles = self.access.roles.read().clone();
        match roles.forget(|relation| relation.schema == PUBLIC && names.contains(&relation.name)) {
            true => self.set_roles(roles),
            false => Ok(()),
        }
    }

    /// Whose privileges count for a relation: what stands beside a stream is its stream's, what a sink could not deliver
    /// is that of what it delivers.
    pub fn privileges_of(&self, relation: Relation) -> Relation {
        if relation.schema != PUBLIC || self.object(&relation.name).is_some() {
            return relation;
        }
        let part_of = |suffix: &str, kind: ObjectKind| {
            let owner = relation.name.strip_suffix(suffix)?;
            self.object(owner).filter(|object| object.kind == kind)
        };
        if let Some(stream) = COMPANIONS.iter().find_map(|(suffix, _)| part_of(suffix, ObjectKind::Stream)) {
            return Relation { name: stream.name, ..relation };
        }
        match part_of(DEAD_SUFFIX, ObjectKind::Sink).map(|sink| sink.reads.into_iter().collect::<Vec<_>>()) {
            Some(reads) if reads.len() == 1 => self.privileges_of(Relation { name: reads.concat(), ..relation }),
            Some(_) | None => relation,
        }
    }

    /// Fails unless a privilege can be given on a relation or notifier of this name. Those on what stands beside another
    /// go with it.
    pub fn check_grantable(&self, privilege: Privilege, relation: &Relation) -> Result<()> {
        if Privilege::OF_NOTIFIERS.contains(&privilege) {
            return self.notifier(&relation.name).map(drop);
        }
        let found = match relation.schema.as_str() {
            PUBLIC => self.object(&relation.name).is_some_and(|object| object.kind.is_relation()),
            SYSTEM => RELATIONS.iter().any(|known| known.name == relation.name),
            _ => false,
        };
        if found {
            return Ok(());
        }
        let owner = self.privileges_of(relation.clone());
        if owner != *relation {
            return Err(Error::new(Kind::WrongObjectType, format!("\"{relation}\" has no privileges of its own"))
                .with_hint(format!("Whoever may read {owner} may read it.")));
        }
        Err(self.no_relation(&relation.to_string()))
    }

    /// The relations of a schema that privileges can be given on.
    pub fn grantable(&self, schema: &str) -> Result<Vec<Relation>> {
        let names: Vec<String> = match schema {
            PUBLIC => self.objects().into_iter().filter(|o| o.kind.is_relation()).map(|o| o.name).collect(),
            SYSTEM => RELATIONS.iter().map(|relation| relation.name.to_string()).collect(),
            _ => {
                return Err(Error::new(Kind::UndefinedObject, format!("schema \"{schema}\" has no privileges"))
                    .with_hint("Schemas with privileges are public and logweir."));
            }
        };
        Ok(names.into_iter().map(|name| Relation { schema: schema.to_string(), name }).collect())
    }
}

/// The statements that make these roles.
pub fn statements(roles: &Roles) -> Vec<String> {
    let word = |on: bool, word: &'static str, other: &'static str| if on { word } else { other };
    let mut made = Vec::new();
    for (name, role) in roles.roles() {
        let (admin, login) = (word(role.admin, "ADMIN", "NOADMIN"), word(role.login, "LOGIN", "NOLOGIN"));
        let password = role.verifier.as_ref().map_or(String::new(), |verifier| format!(" PASSWORD '{verifier}'"));
        made.push(format!("CREATE ROLE {} {admin} {login}{password}", quoted(name)));
    }
    for (name, role) in roles.roles() {
        made.extend(role.member_of.iter().map(|other| format!("GRANT {} TO {}", quoted(other), quoted(name))));
        let grant = |(relation, privilege): &(Relation, Privilege)| {
            let (schema, relation) = (quoted(&relation.schema), quoted(&relation.name));
            let what = if Privilege::OF_NOTIFIERS.contains(privilege) { "NOTIFIER " } else { "" };
            format!("GRANT {} ON {what}{schema}.{relation} TO {}", privilege.word(), quoted(name))
        };
        made.extend(role.grants.iter().map(grant));
        made.extend(role.creates.then(|| format!("GRANT CREATE ON SCHEMA {PUBLIC} TO {}", quoted(name))));
    }
    let token = |(name, token): (&str, &crate::access::Token)| {
        format!("CREATE TOKEN {} FOR ROLE {} HASH '{}'", quoted(name), quoted(&token.role), token.hash)
    };
    made.extend(roles.tokens().map(token));
    made
}
