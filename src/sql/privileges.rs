//! What may a session do? The one place that says so: [`OPEN`] is the table of statements that are not for administrators
//! alone, and [`Session::check_names`] looks at every relation that a query names, before it is planned.
//!
//! Privileges count where a relation is named: whoever may read a view needs nothing on what the view reads. That is read
//! with the privileges of the view's owner, as in PostgreSQL, who needs them when the view is made and whenever it is read.
//! What reaches files or other machines (`read_log`, COPY TO a file, sources, sinks, …) is for administrators and members of
//! `logweir_external`. Every statement that is not in the table is for administrators: a new one is closed until somebody
//! opens it.
//!
//! Statements are checked when they are planned and again each time they run: what was prepared ends with its privileges.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use parking_lot::RwLock;
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, Query, Statement as Ast, TableFactor, Visit,
    Visitor,
};

use super::function::FUNCTIONS;
use super::parser::{Statement, folded, parser, syntax};
use super::statement::{Command, Spec};
use super::statement::{
    backtest, copy, copy_from, copy_to, create_alert, create_notifier, create_report, create_role, create_sink,
    create_source, create_stream, create_table, create_view, cursor, describe, drop, explain, external_table, flush,
    grant, import, insert, lock_table, notify, owner, plain_view, preview, set_role, show, show_create, silence,
    subscribe,
};
use super::{Session, versions, window};
use crate::access::{Actor, EXTERNAL, Privilege, Relation};
use crate::catalog::{ObjectKind, quoted};
use crate::engine::{Engine, PUBLIC, SYSTEM, may_not_create};
use crate::error::{Error, Kind, Result};
use crate::reach::Bounds;

/// What a statement needs, besides what the queries in it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// This on its [`Command::target`]; one that is no relation has to be owned.
    On(Privilege),
    /// To own its target.
    Owner,
    /// CREATE on schema public.
    Create,
    /// To be allowed to reach files and other machines.
    Reach,
}

/// The statements that others than administrators may run. Those that need nothing look themselves.
static OPEN: &[(&Spec, &[Need])] = &[
    (&copy::SPEC, &[]),
    (&subscribe::SPEC, &[]),
    (&cursor::DECLARE, &[]),
    (&cursor::FETCH, &[]),
    (&show::SPEC, &[]),
    (&explain::SPEC, &[Need::On(Privilege::Select)]),
    (&describe::SPEC, &[Need::On(Privilege::Select)]),
    (&show_create::SPEC, &[Need::On(Privilege::Select)]),
    (&insert::SPEC, &[Need::On(Privilege::Insert)]),
    // It may name several, and looks itself.
    (&lock_table::SPEC, &[]),
    (&copy_from::SPEC, &[Need::On(Privilege::Insert)]),
    // It waits, and tells nothing.
    (&flush::SPEC, &[]),
    (&create_stream::SPEC, &[Need::Create]),
    (&create_table::SPEC, &[Need::Create]),
    (&create_view::SPEC, &[Need::Create]),
    (&plain_view::SPEC, &[Need::Create]),
    (&create_alert::SPEC, &[Need::Create]),
    (&create_report::SPEC, &[Need::Create]),
    (&create_source::SPEC, &[Need::Create, Need::Reach, Need::Owner]),
    (&create_sink::SPEC, &[Need::Create, Need::Reach]),
    (&create_notifier::SPEC, &[Need::Create, Need::Reach]),
    (&external_table::SPEC, &[Need::Create, Need::Reach]),
    (&copy_to::SPEC, &[Need::Reach]),
    (&preview::SPEC, &[Need::Reach]),
    (&import::SPEC, &[Need::Reach, Need::On(Privilege::Insert)]),
    (&create_notifier::TEST, &[Need::Owner]),
    (&create_report::SEND, &[Need::Owner]),
    (&silence::SPEC, &[Need::Owner]),
    (&silence::UNSILENCE, &[Need::Owner]),
    (&silence::ACKNOWLEDGE, &[Need::Owner]),
    (&backtest::SPEC, &[]),
    // What somebody owns.
    (&drop::SPEC, &[]),
    (&grant::GRANT, &[]),
    (&grant::REVOKE, &[]),
    (&owner::ALTER, &[]),
    (&owner::REASSIGN, &[]),
    // Everybody may change their own password.
    (&create_role::ALTER, &[]),
    (&set_role::SPEC, &[]),
    // Channels are for everybody, as in PostgreSQL.
    (&notify::LISTEN, &[]),
    (&notify::UNLISTEN, &[]),
    (&notify::NOTIFY, &[]),
];

/// Shows what others run, as `logweir.queries` does.
const ACTIVITY: &str = "pg_stat_activity";

/// For whom a session acts.
#[derive(Debug, Clone)]
pub enum Who {
    /// The engine itself: what it runs again at start-up, `--init`, the command line.
    Engine,
    /// Nobody has logged in yet.
    Nobody,
    Somebody(Identity),
}

/// Somebody who has come in.
#[derive(Debug, Clone)]
pub struct Identity {
    name: String,
    proof: Proof,
    /// That was taken on with SET ROLE.
    role: Option<String>,
}

/// How somebody has shown who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Not at all: there are no roles, or were none then, and everything is allowed.
    Trust,
    Password,
    Certificate,
    /// In the main database, whose administrator it is; this one is that of a tenant. Everything is allowed for as long as
    /// they are one.
    Operator,
}

/// Which role's privileges count.
enum Acting {
    /// Everything is allowed.
    All,
    As(String),
    Nobody,
}

impl Session {
    /// A session of the same engine for somebody who still has to log in.
    pub fn anew(&self) -> Session {
        Session { engine: Arc::clone(self.engine()), backend: None, who: Arc::new(RwLock::new(Who::Nobody)) }
    }

    /// From now on the session is that of `name`.
    pub fn log_in(&self, name: &str, proof: Proof) {
        *self.who.write() = Who::Somebody(Identity { name: name.to_string(), proof, role: None });
    }

    /// What its statements may reach: those of tenants have bounds of their own, unless an operator runs them.
    pub(super) fn bounds(&self) -> Bounds {
        if self.engine().is_main() {
            return None;
        }
        match &*self.who.read() {
            Who::Engine | Who::Somebody(Identity { proof: Proof::Trust, role: None, .. }) => None,
            Who::Somebody(Identity { proof: Proof::Operator, role: None, name }) if self.engine().is_operator(name) => {
                None
            }
            Who::Nobody | Who::Somebody(_) => self.engine().bounds(),
        }
    }

    /// Acts as another role; with `None` as oneself again.
    pub fn set_role(&self, role: Option<&str>) -> Result<()> {
        let mut who = self.who.write();
        let Who::Somebody(identity) = &mut *who else { return Ok(()) };
        if let Some(role) = role {
            self.engine().roles(|roles| {
                if roles.get(role).is_none() {
                    return Err(roles.unknown(role));
                }
                let Identity { name, proof, .. } = &*identity;
                let any = matches!(proof, Proof::Trust | Proof::Operator);
                if any || roles.is_admin(name) || roles.is_member(name, role) {
                    return Ok(());
                }
                Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied to set role \"{role}\""))
                    .with_detail(format!("Role \"{name}\" is not a member of it.")))
            })?;
        }
        identity.role = role.map(str::to_string);
        Ok(())
    }

    /// Whom it acts as: the name that `current_user` gives; `None` for the engine itself.
    pub fn user(&self) -> Option<String> {
        match &*self.who.read() {
            Who::Engine | Who::Nobody => None,
            Who::Somebody(identity) => Some(identity.role.as_ref().unwrap_or(&identity.name).clone()),
        }
    }

    /// Who has logged in: the name that `session_user` gives; `None` for the engine itself.
    pub fn login(&self) -> Option<String> {
        match &*self.who.read() {
            Who::Engine | Who::Nobody => None,
            Who::Somebody(identity) => Some(identity.name.clone()),
        }
    }

    /// How, and as whom, somebody has shown who they are: what `system_user` gives.
    pub fn proven(&self) -> Option<String> {
        match &*self.who.read() {
            Who::Engine | Who::Nobody | Who::Somebody(Identity { proof: Proof::Trust, .. }) => None,
            Who::Somebody(Identity { proof: Proof::Password, name, .. }) => Some(format!("scram-sha-256:{name}")),
            // How, is of the main database.
            Who::Somebody(Identity { proof: Proof::Operator, name, .. }) => Some(format!("operator:{name}")),
            Who::Somebody(Identity { proof: Proof::Certificate, name, .. }) => Some(format!("cert:{name}")),
        }
    }

    /// Whether the session acts as this role, and has proven that it may.
    pub fn is_role(&self, name: &str) -> bool {
        matches!(self.acting(), Acting::As(role) if role == name)
    }

    /// Whether everything is allowed.
    pub fn is_admin(&self) -> bool {
        match self.acting() {
            Acting::All => true,
            Acting::As(role) => self.engine().roles(|roles| roles.is_admin(&role)),
            Acting::Nobody => false,
        }
    }

    fn acting(&self) -> Acting {
        match &*self.who.read() {
            Who::Engine => Acting::All,
            Who::Nobody => Acting::Nobody,
            Who::Somebody(Identity { role: Some(role), .. }) => Acting::As(role.clone()),
            Who::Somebody(Identity { proof: Proof::Trust, .. }) => Acting::All,
            Who::Somebody(Identity { proof: Proof::Operator, name, .. }) => match self.engine().is_operator(name) {
                true => Acting::All,
                false => Acting::Nobody,
            },
            Who::Somebody(Identity { name, .. }) => Acting::As(name.clone()),
        }
    }

    /// For whom it acts. Somebody who has not logged in owns nothing.
    pub fn actor(&self) -> Actor {
        match self.acting() {
            Acting::All => Actor::everything(),
            Acting::As(role) => Actor::of(&role),
            Acting::Nobody => Actor::of(""),
        }
    }

    /// Fails unless the session is an administrator's. `what`: what it would do, such as `create a table`.
    pub fn must_be_admin(&self, what: &str) -> Result<()> {
        if self.is_admin() {
            return Ok(());
        }
        let name = self.user().unwrap_or_default();
        Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied to {what}"))
            .with_detail(format!("Role \"{name}\" is not an administrator."))
            .with_hint("Roles made with CREATE ROLE … ADMIN are."))
    }

    /// Fails unless the session may reach files and other machines. `what`: what it would do, such as `read files`.
    pub fn must_reach(&self, what: &str) -> Result<()> {
        match self.acting() {
            Acting::All => Ok(()),
            Acting::As(role) => must_reach(self.engine(), &role, what),
            Acting::Nobody => Err(nobody()),
        }
    }

    /// Fails where options name variables of the server's environment, unless the session is an administrator's: there may
    /// be secrets in it that are nobody else's.
    pub fn check_options(&self, options: &[(String, String)]) -> Result<()> {
        match options.iter().find(|(_, value)| value.contains("${ENV:")) {
            Some((name, _)) => self.must_be_admin(&format!("use the server's environment in option \"{name}\"")),
            None => Ok(()),
        }
    }

    /// Fails unless the session has the privilege.
    pub fn must_have(&self, privilege: Privilege, relation: &Relation) -> Result<()> {
        match self.acting() {
            Acting::All => Ok(()),
            Acting::As(name) => allowed(self.engine(), &name, privilege, relation),
            Acting::Nobody => Err(nobody()),
        }
    }

    /// Fails unless the session may tell by all these notifiers. What is no notifier is told by others.
    pub fn must_use(&self, notifiers: &[String]) -> Result<()> {
        let is_one = |name: &&String| self.engine().object(name).is_some_and(|o| o.kind == ObjectKind::Notifier);
        notifiers.iter().filter(is_one).try_for_each(|name| {
            self.must_have(Privilege::Usage, &Relation { schema: PUBLIC.to_string(), name: name.clone() })
        })
    }

    /// Fails unless the session may run the statement.
    pub fn authorize(&self, statement: &Statement) -> Result<()> {
        if self.is_admin() {
            return Ok(());
        }
        match statement {
            Statement::Sql(query) => self.check_names(query),
            Statement::Ours { command, spec, .. } => match OPEN.iter().find(|(open, _)| std::ptr::eq(*open, *spec)) {
                Some((_, needs)) => needs.iter().try_for_each(|need| self.authorize_need(&**command, spec, *need)),
                None => self.must_be_admin(&format!("run {}", spec.name)),
            },
        }
    }

    fn authorize_need(&self, command: &dyn Command, spec: &Spec, need: Need) -> Result<()> {
        let (privilege, target) = match need {
            Need::Reach => return self.must_reach(&format!("run {}", spec.name)),
            Need::Create => {
                let role = self.user().unwrap_or_default();
                let may = self.engine().roles(|roles| roles.may_create(&role));
                return if may { Ok(()) } else { Err(may_not_create(&role)) };
            }
            Need::Owner => (None, command.target()),
            Need::On(privilege) => (Some(privilege), command.target()),
        };
        if let Some(query) = command.query() {
            self.check_names(&Ast::Query(Box::new(query.clone())))?;
        }
        let Some(target) = target else {
            return match privilege {
                // EXPLAIN of a query: what it reads is looked at when it is planned.
                Some(Privilege::Select) => Ok(()),
                Some(_) | None => self.must_be_admin(&format!("run {}", spec.name)),
            };
        };
        let relation = relation_of(&parser(&target)?.parse_object_name(false).map_err(|e| syntax(&e))?)?;
        let object = if relation.schema == PUBLIC { self.engine().object(&relation.name) } else { None };
        match (privilege, object) {
            (Some(privilege), None) => self.must_have(privilege, &relation),
            (Some(privilege), Some(object)) if object.kind.is_relation() => self.must_have(privilege, &relation),
            (_, Some(object)) => self.engine().must_own(&self.actor(), &object),
            // That it is not there is told by the statement.
            (None, None) => Ok(()),
        }
    }

    /// Fails unless the session may read all that a query names.
    pub(super) fn check_names(&self, query: &Ast) -> Result<()> {
        match self.acting() {
            Acting::All => Ok(()),
            Acting::As(role) => Reading::new(self.engine()).query(&role, query),
            Acting::Nobody => Err(nobody()),
        }
    }

    /// The same of a query that is to run again and again for the session's user, given as text.
    pub fn check_query(&self, text: &str) -> Result<()> {
        if self.is_admin() {
            return Ok(());
        }
        for statement in self.parse(text)? {
            self.authorize(&statement)?;
        }
        Ok(())
    }
}

fn nobody() -> Error {
    Error::new(Kind::InvalidAuthorization, "nobody has logged in")
}

/// One look at what a query reads, for the role that reads it, and in views for their owners.
struct Reading<'a> {
    engine: &'a Engine,
    /// Views that were looked into.
    seen: BTreeSet<String>,
}

impl<'a> Reading<'a> {
    fn new(engine: &'a Engine) -> Reading<'a> {
        Reading { engine, seen: BTreeSet::new() }
    }

    fn query(&mut self, role: &str, query: &Ast) -> Result<()> {
        if self.engine.roles(|roles| roles.is_admin(role)) {
            return Ok(());
        }
        // What the planner will look up.
        let statement = DfStatement::Statement(Box::new(query.clone()));
        let (references, _) = resolve_table_references(&statement, true)?;
        let mut found = Found::default();
        let _ = query.visit(&mut found);
        if let Some(what) = found.reaches_out {
            must_reach(self.engine, role, &format!("use {what} in FROM"))?;
        }
        let schema_of = |reference: &TableReference| reference.schema().unwrap_or(PUBLIC).to_string();
        let named = references.iter().map(|r| Relation { schema: schema_of(r), name: r.table().to_string() });
        for mut relation in named.chain(found.relations) {
            if relation.name == ACTIVITY {
                relation = Relation { schema: SYSTEM.to_string(), name: "queries".to_string() };
            }
            // What is not there is told by the planner, which knows better names; so is what is no relation but a call.
            let there = match relation.schema.as_str() {
                PUBLIC => self.engine.has_relation(&relation.name),
                schema => schema == SYSTEM,
            };
            if there {
                allowed(self.engine, role, Privilege::Select, &relation)?;
                self.behind(&relation)?;
            }
        }
        Ok(())
    }

    /// What a view reads, for its owner.
    fn behind(&mut self, relation: &Relation) -> Result<()> {
        let object = if relation.schema == PUBLIC { self.engine.object(&relation.name) } else { None };
        let Some(object) = object else { return Ok(()) };
        let Some(owner) = &object.owner else { return Ok(()) };
        if self.engine.roles(|roles| roles.is_admin(owner)) || !self.seen.insert(object.name.clone()) {
            return Ok(());
        }
        let query = match object.kind {
            ObjectKind::View => plain_view::query_of(&mut parser(&object.sql)?, &object.sql)?,
            ObjectKind::MaterializedView => {
                create_view::parse_view(&mut parser(&object.sql)?, &object.sql)?.map(|view| view.query)
            }
            _ => return Ok(()),
        };
        let query = query.ok_or_else(|| Error::internal(format!("not the statement of a view: {}", object.sql)))?;
        self.query(owner, &Ast::Query(Box::new(Query::clone(&query)))).map_err(|err| {
            let detail = err.detail().map(|detail| format!("{detail} ")).unwrap_or_default();
            let (word, name) = (object.kind.word(), &object.name);
            err.with_detail(format!("{detail}The {word} \"{name}\" reads it with the privileges of its owner."))
        })
    }
}

fn must_reach(engine: &Engine, role: &str, what: &str) -> Result<()> {
    if engine.roles(|roles| roles.may_reach_out(role)) {
        return Ok(());
    }
    Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied to {what}"))
        .with_detail(format!("Role \"{role}\" may not let SQL reach files and other machines."))
        .with_hint(format!("An administrator can allow it: GRANT {EXTERNAL} TO {}.", quoted(role))))
}

/// Fails unless a role has a privilege on a relation, and says which it needs.
pub fn allowed(engine: &Engine, role: &str, privilege: Privilege, relation: &Relation) -> Result<()> {
    // PostgreSQL's catalogs, which clients cannot do without; they hold names and no rows of anybody.
    let catalogs = ["pg_catalog", "information_schema"].contains(&relation.schema.as_str());
    if catalogs && privilege == Privilege::Select {
        return Ok(());
    }
    if engine.may(role, privilege, relation) {
        return Ok(());
    }
    let owner = engine.privileges_of(relation.clone());
    let word = privilege.word();
    let schema = if owner.schema == PUBLIC { String::new() } else { format!("{}.", quoted(&owner.schema)) };
    let (what, notifier) = match Privilege::OF_NOTIFIERS.contains(&privilege) {
        true => ("notifier", "NOTIFIER "),
        false => ("relation", ""),
    };
    let grant = format!("GRANT {word} ON {notifier}{schema}{} TO {}", quoted(&owner.name), quoted(role));
    Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied for {what} \"{relation}\""))
        .with_detail(format!("Role \"{role}\" needs the privilege {word} on {owner}."))
        .with_hint(format!("Its owner or an administrator can give it: {grant}.")))
}

/// The relation that a name means: in schema public unless it says another.
pub fn relation_of(name: &ObjectName) -> Result<Relation> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(folded)).collect();
    match parts.as_deref() {
        Some([name]) => Ok(Relation { schema: PUBLIC.to_string(), name: name.clone() }),
        Some([.., schema, name]) => Ok(Relation { schema: schema.clone(), name: name.clone() }),
        Some([]) | None => Err(Error::new(Kind::Syntax, format!("syntax error: {name} is not the name of a relation"))),
    }
}

/// What a walk over FROM finds and the planner's own walk does not: relations that stand as arguments, and calls and
/// names that reach outside.
#[derive(Default)]
struct Found {
    relations: Vec<Relation>,
    reaches_out: Option<String>,
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let (name, args) = match factor {
            TableFactor::Table { name, args, .. } => (name, args.as_ref().map(|args| args.args.as_slice())),
            TableFactor::Function { name, args, .. } => (name, Some(args.as_slice())),
            _ => return ControlFlow::Continue(()),
        };
        let Some(ident) = name.0.last().and_then(ObjectNamePart::as_ident) else { return ControlFlow::Continue(()) };
        match args {
            // FROM 'path'.
            None if ident.quote_style == Some('\'') => self.reaches_out = Some("files".to_string()),
            None => {}
            Some(args) => {
                let called = |name: &str| ident.value.eq_ignore_ascii_case(name);
                let window = window::WINDOWS.iter().any(|window| called(window.name));
                if window || called(versions::RELATION) {
                    self.relations.extend(args.first().and_then(argument));
                } else if FUNCTIONS.iter().any(|function| called(function.name)) {
                    self.reaches_out = Some(ident.value.to_lowercase());
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The relation that an argument names, if it is a name.
fn argument(arg: &FunctionArg) -> Option<Relation> {
    let (FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
    | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }) = arg
    else {
        return None;
    };
    let parts = match expr {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        _ => return None,
    };
    relation_of(&ObjectName::from(parts)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::parse;
    use crate::sql::statement::STATEMENTS;

    #[test]
    fn what_is_open_is_a_statement() {
        for (spec, _) in OPEN {
            assert!(STATEMENTS.iter().any(|known| std::ptr::eq(*known, *spec)), "{}", spec.name);
        }
    }

    fn found(sql: &str) -> (Vec<String>, Option<String>) {
        let Statement::Sql(ast) = parse(sql).unwrap().remove(0) else { panic!("{sql} is one of ours") };
        let mut found = Found::default();
        let _ = ast.visit(&mut found);
        (found.relations.iter().map(Relation::to_string).collect(), found.reaches_out)
    }

    #[test]
    fn relations_are_found_wherever_they_stand() {
        for (sql, relations) in [
            ("SELECT * FROM TUMBLE(access, ts, INTERVAL '1 minute')", ["access"]),
            ("SELECT * FROM hop(public.\"Access\", ts, INTERVAL '1 minute', INTERVAL '2 minutes')", ["Access"]),
            (
                "SELECT 1 FROM (SELECT 1 FROM \"SESSION\"(logweir.sources, ts, INTERVAL '1 s')) AS s",
                ["logweir.sources"],
            ),
            ("WITH x AS (SELECT 1) SELECT * FROM x WHERE 1 IN (SELECT a FROM __versions(v))", ["v"]),
        ] {
            assert_eq!(found(sql).0, relations, "{sql}");
        }
        for (sql, what) in [
            ("SELECT * FROM '/etc/passwd'", "files"),
            ("SELECT * FROM READ_LOG('/etc/passwd')", "read_log"),
            ("SELECT 1 WHERE EXISTS (SELECT 1 FROM x, LATERAL read_log('/etc/passwd'))", "read_log"),
        ] {
            assert_eq!(found(sql).1.as_deref(), Some(what), "{sql}");
        }
        assert_eq!(found("SELECT * FROM generate_series(1, 2), a"), (Vec::new(), None));
    }

    #[test]
    fn names_are_folded_and_their_schema_is_seen() {
        let of = |text: &str| relation_of(&parser(text).unwrap().parse_object_name(false).unwrap()).unwrap();
        assert_eq!(of("Access").to_string(), "access");
        assert_eq!(of("logweir.public.\"Access\"").to_string(), "Access");
        assert_eq!(of("logweir.sources").to_string(), "logweir.sources");
    }
}
