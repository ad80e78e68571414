//! Who may do what? Roles with their passwords, memberships and privileges, and the tokens of programs that send logs.
//!
//! Without any role everybody may do everything: that is for one's own machine, and the server listens nowhere else then.
//! From the first role on everybody has to say who they are. Two things always hold of [`Roles`]: where there are roles,
//! an administrator can log in ([`Roles::check`]); and what a role may do is found in one place ([`Roles::may`]).
//!
//! Administrators may do everything. All others may do what they, or a role that they are a member of, were given: read
//! what SELECT was given on, put rows into what INSERT was given on, tell by notifiers with USAGE, and create objects with
//! CREATE. What somebody has created is theirs; owners are kept with the objects. [`scram`] is how a password is shown,
//! [`token`] what programs give.

pub mod scram;
pub mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::error::{Error, Kind, Result};
use crate::options::with_nearest;
use scram::Verifier;

/// The roles that are always there, and what their members may do.
pub const PREDEFINED: &[(&str, &str)] = &[
    (READ, "SELECT on everything in schema public and logweir"),
    (INGEST, "INSERT into every stream"),
    (EXTERNAL, "reaching files and other machines, within --allow-root and --allow-host"),
];
const READ: &str = "logweir_read";
const INGEST: &str = "logweir_ingest";
pub const EXTERNAL: &str = "logweir_external";

/// What may be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Reading a relation.
    Select,
    /// Putting rows into one.
    Insert,
    /// Naming a notifier.
    Usage,
}

impl Privilege {
    /// Those that a relation has.
    pub const OF_RELATIONS: [Privilege; 2] = [Privilege::Select, Privilege::Insert];
    /// Those that a notifier has.
    pub const OF_NOTIFIERS: [Privilege; 1] = [Privilege::Usage];

    pub fn word(self) -> &'static str {
        match self {
            Privilege::Select => "SELECT",
            Privilege::Insert => "INSERT",
            Privilege::Usage => "USAGE",
        }
    }
}

/// A relation, or a notifier, which share their names; whether there is one of this name or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relation {
    pub schema: String,
    pub name: String,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema.as_str() {
            "public" => f.write_str(&self.name),
            schema => write!(f, "{schema}.{}", self.name),
        }
    }
}

/// For whom something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(Option<String>);

impl Actor {
    /// The engine itself, or somebody where nobody has to say who they are: may do everything.
    pub const fn everything() -> Actor {
        Actor(None)
    }

    /// May do what the role may.
    pub fn of(role: &str) -> Actor {
        Actor(Some(role.to_string()))
    }

    pub fn role(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// One role.
#[derive(Debug, Clone, Default)]
pub struct Role {
    pub admin: bool,
    pub login: bool,
    /// Without one it can log in with a certificate only.
    pub verifier: Option<Verifier>,
    /// The roles that it is directly a member of.
    pub member_of: BTreeSet<String>,
    pub grants: BTreeSet<(Relation, Privilege)>,
    /// Whether it was given CREATE on schema public.
    pub creates: bool,
}

/// What CREATE ROLE and ALTER ROLE say; `None` leaves something as it is.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    pub admin: Option<bool>,
    pub login: Option<bool>,
    /// Takes the password away if there is none in it.
    pub password: Option<Option<Verifier>>,
}

/// A token, without the token.
#[derive(Debug, Clone)]
pub struct Token {
    pub role: String,
    pub hash: String,
}

/// See the file header.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    roles: BTreeMap<String, Role>,
    tokens: BTreeMap<String, Token>,
}

impl Roles {
    /// Whether nobody has to say who they are.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    /// All roles but the predefined ones, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (name.as_str(), role))
    }

    pub fn get(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// All tokens, by name.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, &Token)> {
        self.tokens.iter().map(|(name, token)| (name.as_str(), token))
    }

    /// The role of a token that somebody gives.
    pub fn role_of(&self, given: &str) -> Option<&str> {
        let hash = token::hash(given);
        self.tokens.values().find(|token| token.hash == hash).map(|token| token.role.as_str())
    }

    // ---- what is allowed ------------------------------------------------------------------------------------------

    /// Whether a role may do everything. Members of an administrator may not, unless they SET ROLE to it.
    pub fn is_admin(&self, role: &str) -> bool {
        self.roles.get(role).is_some_and(|role| role.admin)
    }

    /// Whether a role has a privilege, itself or through a role that it is a member of.
    pub fn may(&self, role: &str, privilege: Privilege, relation: &Relation) -> bool {
        if self.is_admin(role) {
            return true;
        }
        self.memberships(role).into_iter().any(|name| match (name, privilege) {
            (READ, Privilege::Select) => true,
            (INGEST, Privilege::Insert) => relation.schema == "public",
            (name, privilege) => {
                self.roles.get(name).is_some_and(|role| role.grants.contains(&(relation.clone(), privilege)))
            }
        })
    }

    /// Whether a role may create objects, itself or through a role that it is a member of.
    pub fn may_create(&self, role: &str) -> bool {
        let given = |name: &&str| self.roles.get(*name).is_some_and(|role| role.creates);
        self.is_admin(role) || self.memberships(role).iter().any(given)
    }

    /// Whether a role may let SQL reach files and other machines.
    pub fn may_reach_out(&self, role: &str) -> bool {
        self.is_admin(role) || self.is_member(role, EXTERNAL)
    }

    /// Whether `role` is `other` or a member of it, directly or through others.
    pub fn is_member(&self, role: &str, other: &str) -> bool {
        self.memberships(role).contains(other)
    }

    /// The role and all that it is a member of; nothing for one that is not there.
    fn memberships<'a>(&'a self, role: &'a str) -> BTreeSet<&'a str> {
        let (mut found, mut waiting) = (BTreeSet::new(), vec![role]);
        while let Some(name) = waiting.pop() {
            let Some(role) = self.roles.get(name) else {
                if !found.is_empty() && is_predefined(name) {
                    found.insert(name);
                }
                continue;
            };
            if found.insert(name) {
                waiting.extend(role.member_of.iter().map(String::as_str));
            }
        }
        found
    }

    // ---- changes --------------------------------------------------------------------------------------------------

    /// Fails where nobody could administrate: everybody would be locked out.
    pub fn check(&self) -> Result<()> {
        let can = |role: &Role| role.admin && role.login && role.verifier.is_some();
        if self.roles.is_empty() || self.roles.values().any(can) {
            return Ok(());
        }
        Err(Error::new(Kind::NotReady, "no administrator could log in")
            .with_detail("Where there are roles, one of them at least is ADMIN and can log in with a password.")
            .with_hint("Make one first: CREATE ROLE name ADMIN LOGIN PASSWORD '…'."))
    }

    pub fn create(&mut self, name: &str, attributes: Attributes) -> Result<()> {
        check_name(name)?;
        if self.roles.contains_key(name) {
            return Err(Error::new(Kind::DuplicateObject, format!("role \"{name}\" already exists")));
        }
        self.roles.insert(name.to_string(), Role::default());
        self.alter(name, attributes)
    }

    pub fn alter(&mut self, name: &str, attributes: Attributes) -> Result<()> {
        let role = self.role(name)?;
        role.admin = attributes.admin.unwrap_or(role.admin);
        role.login = attributes.login.unwrap_or(role.login);
        role.verifier = attributes.password.unwrap_or_else(|| role.verifier.take());
        Ok(())
    }

    /// Removes a role with its privileges and tokens.
    pub fn drop_role(&mut self, name: &str) -> Result<()> {
        self.role(name)?;
        self.roles.remove(name);
        for role in self.roles.values_mut() {
            role.member_of.remove(name);
        }
        self.tokens.retain(|_, token| token.role != name);
        Ok(())
    }

    /// Gives a privilege, or takes it away.
    pub fn grant(&mut self, role: &str, privilege: Privilege, relation: &Relation, give: bool) -> Result<()> {
        let grants = &mut self.changeable(role)?.grants;
        let grant = (relation.clone(), privilege);
        let _ = if give { grants.insert(grant) } else { grants.remove(&grant) };
        Ok(())
    }

    /// Lets a role create objects, or does no longer.
    pub fn grant_create(&mut self, role: &str, give: bool) -> Result<()> {
        self.changeable(role)?.creates = give;
        Ok(())
    }

    /// Makes `member` a member of `role`, or takes that away.
    pub fn grant_role(&mut self, role: &str, member: &str, give: bool) -> Result<()> {
        if !is_predefined(role) {
            self.role(role)?;
        }
        self.role(member)?;
        if give && (role == member || self.is_member(role, member)) {
            return Err(Error::new(Kind::InvalidDefinition, format!("role \"{role}\" is a member of \"{member}\"")));
        }
        let member_of = &mut self.role(member)?.member_of;
        let _ = if give { member_of.insert(role.to_string()) } else { member_of.remove(role) };
        Ok(())
    }

    /// `hash`: of the token, see [`token::hash`].
    pub fn create_token(&mut self, name: &str, role: &str, hash: String) -> Result<()> {
        self.role(role)?;
        if self.tokens.contains_key(name) {
            return Err(Error::new(Kind::DuplicateObject, format!("token \"{name}\" already exists")));
        }
        self.tokens.insert(name.to_string(), Token { role: role.to_string(), hash });
        Ok(())
    }

    pub fn drop_token(&mut self, name: &str) -> Result<()> {
        if self.tokens.remove(name).is_some() {
            return Ok(());
        }
        let err = Error::new(Kind::UndefinedObject, format!("token \"{name}\" does not exist"));
        Err(with_nearest(err, name, self.tokens.keys().map(String::as_str)))
    }

    /// Forgets the privileges on relations that are not there any more; gives whether there were any.
    pub fn forget(&mut self, gone: impl Fn(&Relation) -> bool) -> bool {
        let mut forgot = false;
        for role in self.roles.values_mut() {
            let before = role.grants.len();
            role.grants.retain(|(relation, _)| !gone(relation));
            forgot |= role.grants.len() < before;
        }
        forgot
    }

    /// A role whose privileges can be changed.
    fn changeable(&mut self, name: &str) -> Result<&mut Role> {
        if is_predefined(name) {
            return Err(Error::new(Kind::NotSupported, format!("what role \"{name}\" may do is fixed")));
        }
        self.role(name)
    }

    fn role(&mut self, name: &str) -> Result<&mut Role> {
        if !self.roles.contains_key(name) {
            return Err(self.unknown(name));
        }
        self.roles.get_mut(name).ok_or_else(|| Error::internal("it was there a moment ago"))
    }

    /// "role does not exist", with the nearest name.
    pub fn unknown(&self, name: &str) -> Error {
        if is_predefined(name) {
            return Error::new(Kind::NotSupported, format!("role \"{name}\" is predefined and stays as it is"));
        }
        let err = Error::new(Kind::UndefinedObject, format!("role \"{name}\" does not exist"));
        with_nearest(err, name, self.roles.keys().map(String::as_str))
    }
}

/// Whether a role is always there.
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.iter().any(|(known, _)| *known == name)
}

/// The object id of a role in PostgreSQL's catalogs: made from its name (FNV-1a), so that it stays the same. That of the
/// first owner is 10 there.
pub fn object_id(name: &str) -> i32 {
    if name == "logweir" {
        return 10;
    }
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // Above what catalogs and relations have.
    (hash & 0x3fff_ffff) as i32 | 0x4000_0000
}

fn check_name(name: &str) -> Result<()> {
    if ["logweir_", "pg_"].iter().any(|prefix| name.starts_with(prefix)) || ["public", "none", ""].contains(&name) {
        return Err(Error::new(Kind::InvalidParameter, format!("role name \"{name}\" is reserved"))
            .with_hint("Names that begin with logweir_ or pg_ are, and public and none."));
    }
    // What a start-up message cannot hold.
    if name.contains('\0') || name.len() > 63 {
        return Err(Error::new(Kind::InvalidParameter, "a role's name has at most 63 bytes, none of them zero"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(name: &str) -> Relation {
        Relation { schema: "public".into(), name: name.into() }
    }

    fn attributes(admin: bool, login: bool, password: Option<&str>) -> Attributes {
        Attributes { admin: Some(admin), login: Some(login), password: Some(password.map(Verifier::new)) }
    }

    fn roles() -> Roles {
        let mut roles = Roles::default();
        roles.create("root", attributes(true, true, Some("x"))).unwrap();
        for name in ["alice", "readers", "shipper"] {
            roles.create(name, Attributes::default()).unwrap();
        }
        roles
    }

    #[test]
    fn privileges_come_by_grant_and_by_membership() {
        let mut roles = roles();
        let (access, errors) = (relation("access"), relation("errors"));
        assert!(roles.may("root", Privilege::Insert, &access));
        assert!(!roles.may("alice", Privilege::Select, &access));
        roles.grant("readers", Privilege::Select, &access, true).unwrap();
        roles.grant_role("readers", "alice", true).unwrap();
        assert!(roles.may("alice", Privilege::Select, &access));
        assert!(!roles.may("alice", Privilege::Insert, &access) && !roles.may("alice", Privilege::Select, &errors));
        roles.grant_role("logweir_ingest", "shipper", true).unwrap();
        assert!(roles.may("shipper", Privilege::Insert, &errors) && !roles.may("shipper", Privilege::Select, &errors));
        let system = Relation { schema: "logweir".into(), name: "sources".into() };
        assert!(!roles.may("shipper", Privilege::Insert, &system) && !roles.may("alice", Privilege::Select, &system));
        roles.grant_role("logweir_read", "readers", true).unwrap();
        assert!(roles.may("alice", Privilege::Select, &system));
        roles.grant_role("readers", "alice", false).unwrap();
        assert!(!roles.may("alice", Privilege::Select, &access));
        // Nobody is a predefined role, and nobody is one that is not there.
        assert!(
            !roles.may("logweir_read", Privilege::Select, &access) && !roles.may("bob", Privilege::Select, &access)
        );
    }

    #[test]
    fn creating_and_reaching_out_are_given_too() {
        let mut roles = roles();
        assert!(roles.may_create("root") && roles.may_reach_out("root") && !roles.may_create("alice"));
        roles.grant_create("readers", true).unwrap();
        roles.grant_role("readers", "alice", true).unwrap();
        assert!(roles.may_create("alice") && !roles.may_create("shipper") && !roles.may_reach_out("alice"));
        roles.grant_role(EXTERNAL, "readers", true).unwrap();
        assert!(roles.may_reach_out("alice") && !roles.may("alice", Privilege::Select, &relation("access")));
        roles.grant("alice", Privilege::Usage, &relation("ops"), true).unwrap();
        assert!(roles.may("alice", Privilege::Usage, &relation("ops")));
        assert!(!roles.may("alice", Privilege::Select, &relation("ops")));
        roles.grant_role("logweir_read", "shipper", true).unwrap();
        assert!(!roles.may("shipper", Privilege::Usage, &relation("ops")), "reading is not telling");
        roles.grant_create("readers", false).unwrap();
        assert!(!roles.may_create("alice") && !roles.may_create("nobody") && !roles.may_reach_out("nobody"));
        assert_eq!(roles.grant_create(EXTERNAL, true).unwrap_err().kind(), Kind::NotSupported);
    }

    #[test]
    fn being_an_administrator_is_not_inherited() {
        let mut roles = roles();
        roles.grant_role("root", "alice", true).unwrap();
        assert!(roles.is_member("alice", "root") && !roles.is_admin("alice"));
        assert!(!roles.may("alice", Privilege::Select, &relation("access")));
        assert_eq!(roles.grant_role("alice", "root", true).unwrap_err().kind(), Kind::InvalidDefinition);
    }

    #[test]
    fn somebody_can_always_administrate() {
        let mut roles = Roles::default();
        roles.check().unwrap();
        roles.create("alice", attributes(false, true, Some("x"))).unwrap();
        assert_eq!(roles.check().unwrap_err().kind(), Kind::NotReady);
        roles.create("root", attributes(true, true, Some("x"))).unwrap();
        roles.check().unwrap();
        roles.alter("root", Attributes { password: Some(None), ..Attributes::default() }).unwrap();
        roles.check().unwrap_err();
    }

    #[test]
    fn what_goes_takes_everything_with_it() {
        let mut roles = roles();
        roles.grant("alice", Privilege::Select, &relation("access"), true).unwrap();
        assert!(roles.forget(|relation| relation.name == "access"));
        assert!(!roles.forget(|relation| relation.name == "access"));
        assert!(!roles.may("alice", Privilege::Select, &relation("access")));
        roles.create_token("t", "shipper", token::hash("secret")).unwrap();
        assert_eq!(roles.role_of("secret"), Some("shipper"));
        assert_eq!(roles.role_of(&token::hash("secret")), None, "a hash is no token");
        roles.grant_role("shipper", "alice", true).unwrap();
        roles.drop_role("shipper").unwrap();
        assert!(roles.role_of("secret").is_none() && roles.get("alice").unwrap().member_of.is_empty());
        roles.create("shipper", Attributes::default()).unwrap();
        assert!(!roles.is_member("alice", "shipper"));
    }

    #[test]
    fn names_that_are_reserved_or_unknown_are_told() {
        let mut roles = roles();
        for name in ["logweir_x", "pg_read_all_data", "public", "none", "", "a\0b", &"x".repeat(64)] {
            assert_eq!(roles.create(name, Attributes::default()).unwrap_err().kind(), Kind::InvalidParameter, "{name}");
        }
        let err = roles.alter("alcie", Attributes::default()).unwrap_err();
        assert!(err.to_string().contains("alice"), "{err}");
        assert_eq!(roles.drop_role("logweir_read").unwrap_err().kind(), Kind::NotSupported);
        assert_eq!(roles.drop_token("t").unwrap_err().kind(), Kind::UndefinedObject);
    }
}
