//! To whom an object belongs, and what that allows: its owner may read it, put rows into it, replace it, drop it, give
//! others privileges on it and give it away. So may the members of the owner, as in PostgreSQL, and administrators.
//!
//! What was made before there were roles belongs to [`ROLE`], in whose name everybody comes in then; administrators may do
//! all that with it.

use std::collections::BTreeSet;

use super::{Engine, PUBLIC};
use crate::access::{Actor, PREDEFINED, Privilege, Relation, Role, Roles, object_id};
use crate::catalog::postgres::ROLE;
use crate::catalog::{Object, ObjectKind};
use crate::error::{Error, Kind, Result};

impl Engine {
    /// Whether it may do what the owner of an object may.
    pub fn owns(&self, actor: &Actor, object: &Object) -> bool {
        let Some(role) = actor.role() else { return true };
        let owner = object.owner.as_deref();
        self.roles(|roles| roles.is_admin(role) || owner.is_some_and(|owner| roles.is_member(role, owner)))
    }

    /// Fails unless it may do what the owner of an object may.
    pub fn must_own(&self, actor: &Actor, object: &Object) -> Result<()> {
        if self.owns(actor, object) {
            return Ok(());
        }
        let (word, name, role) = (object.kind.word(), &object.name, actor.role().unwrap_or_default());
        Err(Error::new(Kind::InsufficientPrivilege, format!("must be owner of {word} {name}")).with_detail(format!(
            "It belongs to \"{}\", and role \"{role}\" is not a member of that.",
            owner_of(object)
        )))
    }

    /// Whether a role has a privilege: given, or as the owner. Privileges of what stands beside another are those of that.
    pub fn may(&self, role: &str, privilege: Privilege, relation: &Relation) -> bool {
        let whose = self.privileges_of(relation.clone());
        if self.roles(|roles| roles.may(role, privilege, &whose)) {
            return true;
        }
        self.owns_relation(&Actor::of(role), &whose)
    }

    /// The name of a relation's owner.
    pub fn owner_of(&self, relation: &Relation) -> String {
        let whose = self.privileges_of(relation.clone());
        let object = if whose.schema == PUBLIC { self.object(&whose.name) } else { None };
        object.map_or_else(|| ROLE.to_string(), |object| owner_of(&object).to_string())
    }

    /// The same of a relation: of what stands beside another, the owner of that counts.
    pub fn owns_relation(&self, actor: &Actor, relation: &Relation) -> bool {
        let whose = self.privileges_of(relation.clone());
        let object = if whose.schema == PUBLIC { self.object(&whose.name) } else { None };
        object.is_some_and(|object| self.owns(actor, &object))
    }

    /// What PostgreSQL keeps in `pg_class.relacl`: `alice=ar/bob`, the owner first (PostgreSQL manual, Privileges). `None` where
    /// nobody was given anything.
    pub fn access_list(&self, relation: &Relation) -> Option<Vec<String>> {
        let owner = self.owner_of(relation);
        let letters = [(Privilege::Insert, 'a'), (Privilege::Select, 'r'), (Privilege::Usage, 'U')];
        let given: Vec<String> = self.roles(|roles| {
            let line = |(name, role): (&str, &Role)| {
                let has = |privilege| role.grants.contains(&(relation.clone(), privilege));
                let letters: String = letters.into_iter().filter(|(p, _)| has(*p)).map(|(_, letter)| letter).collect();
                (name != owner && !letters.is_empty()).then(|| format!("{name}={letters}/{owner}"))
            };
            roles.roles().filter_map(line).collect()
        });
        (!given.is_empty()).then(|| [format!("{owner}=ar/{owner}")].into_iter().chain(given).collect())
    }

    /// The role that has an object id.
    pub fn role_with_id(&self, id: i64) -> Option<String> {
        self.roles(|roles| {
            let predefined = PREDEFINED.iter().map(|(name, _)| *name);
            let mut all = [ROLE].into_iter().chain(roles.roles().map(|(name, _)| name)).chain(predefined);
            all.find(|name| i64::from(object_id(name)) == id).map(str::to_string)
        })
    }

    /// Fails when a role is not there any more: what it makes would be nobody's.
    pub(super) fn check_actor(&self, actor: &Actor) -> Result<()> {
        match actor.role() {
            Some(role) => self.roles(|roles| check_role(roles, role)),
            None => Ok(()),
        }
    }

    /// Gives an object to another role. Who is no administrator has to own it and be a member of that role, which has to
    /// be one that may create objects (PostgreSQL manual, ALTER TABLE).
    pub async fn give(&self, actor: &Actor, kinds: &[ObjectKind], name: &str, to: &str) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        let object = self.object(name).filter(|object| kinds.contains(&object.kind));
        let object = object.ok_or_else(|| match kinds {
            [ObjectKind::Source] => self.no_source(name),
            [ObjectKind::Sink] => self.no_sink(name),
            [ObjectKind::Notifier] => self.no_notifier(name),
            [ObjectKind::Alert] => self.no_alert(name),
            [ObjectKind::Report] => self.no_report(name),
            _ => self.no_relation(name),
        })?;
        self.must_own(actor, &object)?;
        self.check_heir(actor, to)?;
        self.set_owner([object.name].into(), to)
    }

    /// Gives all objects of some roles to another one.
    pub async fn give_all(&self, actor: &Actor, from: &[String], to: &str) -> Result<()> {
        let _ddl = self.ddl.lock().await;
        for role in from {
            if role == ROLE && actor.role().is_none_or(|own| self.roles(|roles| roles.is_admin(own))) {
                continue;
            }
            self.roles(|roles| check_role(roles, role))?;
            let is_member =
                |role: &str, other: &str| self.roles(|roles| roles.is_admin(role) || roles.is_member(role, other));
            if actor.role().is_some_and(|own| !is_member(own, role)) {
                return Err(Error::new(Kind::InsufficientPrivilege, "permission denied to reassign objects")
                    .with_detail(format!(
                        "Role \"{}\" is not a member of \"{role}\".",
                        actor.role().unwrap_or_default()
                    )));
            }
        }
        self.check_heir(actor, to)?;
        let owned = self.objects().into_iter().filter(|object| from.iter().any(|role| role == owner_of(object)));
        self.set_owner(owned.map(|object| object.name).collect(), to)
    }

    fn check_heir(&self, actor: &Actor, to: &str) -> Result<()> {
        self.roles(|roles| {
            check_role(roles, to)?;
            let Some(own) = actor.role().filter(|own| !roles.is_admin(own)) else { return Ok(()) };
            if !roles.is_member(own, to) {
                return Err(Error::new(Kind::InsufficientPrivilege, format!("must be member of role \"{to}\"")));
            }
            if !roles.may_create(to) {
                return Err(may_not_create(to));
            }
            Ok(())
        })
    }

    fn set_owner(&self, names: BTreeSet<String>, to: &str) -> Result<()> {
        self.catalog.lock().set_owner(&names, to)?;
        // What was planned before is planned again, and so are its privileges.
        self.changed();
        Ok(())
    }

    /// What runs for an owner who may not do what it does: it was looked at when it was made. Each as a sentence.
    pub fn running_without_privilege(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let runs = [ObjectKind::Alert, ObjectKind::Report, ObjectKind::Sink];
        for object in self.objects().into_iter().filter(|object| runs.contains(&object.kind)) {
            let Some(owner) = &object.owner else { continue };
            for name in &object.reads {
                let is_notifier = self.object(name).is_some_and(|read| read.kind == ObjectKind::Notifier);
                let (privilege, verb) =
                    if is_notifier { (Privilege::Usage, "telling by") } else { (Privilege::Select, "reading") };
                if !self.may(owner, privilege, &Relation { schema: PUBLIC.to_string(), name: name.clone() }) {
                    let word = object.kind.word();
                    found.insert(format!("{word} \"{}\" of role \"{owner}\" goes on {verb} \"{name}\"", object.name));
                }
            }
        }
        found
    }

    /// Fails when something belongs to a role, and says what.
    pub fn check_owns_nothing(&self, role: &str) -> Result<()> {
        let owned = self.objects().into_iter().filter(|object| object.owner.as_deref() == Some(role));
        let owned: Vec<String> = owned.map(|object| format!("{} {}", object.kind.word(), object.name)).collect();
        if owned.is_empty() {
            return Ok(());
        }
        let message = format!("role \"{role}\" cannot be dropped because some objects depend on it");
        Err(Error::new(Kind::DependentObjects, message)
            .with_detail(format!("It is the owner of: {}.", owned.join(", ")))
            .with_hint(format!("REASSIGN OWNED BY {} TO another role gives them away.", crate::catalog::quoted(role))))
    }
}

/// Whom an object belongs to, by name.
pub fn owner_of(object: &Object) -> &str {
    object.owner.as_deref().unwrap_or(ROLE)
}

/// "permission denied", for somebody without CREATE.
pub fn may_not_create(role: &str) -> Error {
    Error::new(Kind::InsufficientPrivilege, "permission denied for schema public")
        .with_detail(format!("Role \"{role}\" needs the privilege CREATE on it."))
        .with_hint(format!(
            "An administrator can give it: GRANT CREATE ON SCHEMA public TO {}.",
            crate::catalog::quoted(role)
        ))
}

fn check_role(roles: &Roles, name: &str) -> Result<()> {
    roles.get(name).map(drop).ok_or_else(|| roles.unknown(name))
}
