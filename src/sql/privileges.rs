//! What may a session do? The one place that says so: [`OPEN`] is the table of statements that are not for administrators
//! alone, and [`Session::check_names`] looks at every relation that a query names, before it is planned.
//!
//! Privileges count where a relation is named: whoever may read a view needs nothing on what the view reads, as in
//! PostgreSQL, where it is read with its owner's privileges; only administrators make views. What reaches files or other
//! machines (`read_log`, COPY TO a file, sources, sinks, …) is for administrators, and so is every statement that is not
//! in the table: a new one is closed until somebody opens it.
//!
//! Statements are checked when they are planned and again each time they run: what was prepared ends with its privileges.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use parking_lot::RwLock;
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, ObjectNamePart, Statement as Ast,
    TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::function::FUNCTIONS;
use super::parser::{Statement, folded, parser, syntax};
use super::statement::{Command, Spec};
use super::statement::{
    copy, copy_from, create_role, cursor, describe, explain, flush, insert, notify, set_role, show, show_create,
    subscribe,
};
use super::{Session, versions, window};
use crate::access::{Privilege, Relation, Roles};
use crate::catalog::quoted;
use crate::engine::{Engine, PUBLIC, SYSTEM};
use crate::error::{Error, Kind, Result};

/// What a statement needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Only what the query in it reads, if there is one.
    Reading,
    /// This on its [`Command::target`]; a target that is no relation is for administrators.
    Target(Privilege),
    /// It says itself.
    Itself,
}

/// The statements that others than administrators may run.
static OPEN: &[(&Spec, Needs)] = &[
    (&copy::SPEC, Needs::Reading),
    (&subscribe::SPEC, Needs::Reading),
    (&cursor::DECLARE, Needs::Reading),
    (&cursor::FETCH, Needs::Reading),
    (&show::SPEC, Needs::Reading),
    (&explain::SPEC, Needs::Target(Privilege::Select)),
    (&describe::SPEC, Needs::Target(Privilege::Select)),
    (&show_create::SPEC, Needs::Target(Privilege::Select)),
    (&insert::SPEC, Needs::Target(Privilege::Insert)),
    (&copy_from::SPEC, Needs::Target(Privilege::Insert)),
    // It waits, and tells nothing.
    (&flush::SPEC, Needs::Reading),
    // Everybody may change their own password.
    (&create_role::ALTER, Needs::Itself),
    (&set_role::SPEC, Needs::Itself),
    // Channels are for everybody, as in PostgreSQL.
    (&notify::LISTEN, Needs::Reading),
    (&notify::UNLISTEN, Needs::Reading),
    (&notify::NOTIFY, Needs::Reading),
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
    /// There are no roles, or were none then: everything is allowed.
    trusted: bool,
    /// That was taken on with SET ROLE.
    role: Option<String>,
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

    /// From now on the session is that of `name`. `trusted`: nobody had to prove anything, and everything is allowed.
    pub fn log_in(&self, name: &str, trusted: bool) {
        *self.who.write() = Who::Somebody(Identity { name: name.to_string(), trusted, role: None });
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
                let Identity { name, trusted, .. } = &*identity;
                if *trusted || roles.is_admin(name) || roles.is_member(name, role) {
                    return Ok(());
                }
                Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied to set role \"{role}\""))
                    .with_detail(format!("Role \"{name}\" is not a member of it.")))
            })?;
        }
        identity.role = role.map(str::to_string);
        Ok(())
    }

    /// The name that `current_user` gives; `None` for the engine itself.
    pub fn user(&self) -> Option<String> {
        match &*self.who.read() {
            Who::Engine | Who::Nobody => None,
            Who::Somebody(identity) => Some(identity.role.as_ref().unwrap_or(&identity.name).clone()),
        }
    }

    /// Whether SET ROLE has made it act as another role than that which has logged in.
    pub fn acts_as_another(&self) -> bool {
        matches!(&*self.who.read(), Who::Somebody(Identity { role: Some(_), .. }))
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
            Who::Somebody(Identity { trusted: true, .. }) => Acting::All,
            Who::Somebody(Identity { name, .. }) => Acting::As(name.clone()),
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

    /// Fails unless the session has the privilege.
    pub fn must_have(&self, privilege: Privilege, relation: &Relation) -> Result<()> {
        let name = match self.acting() {
            Acting::All => return Ok(()),
            Acting::As(name) => name,
            Acting::Nobody => return Err(Error::new(Kind::InvalidAuthorization, "nobody has logged in")),
        };
        allowed(self.engine(), &name, privilege, relation)
    }

    /// Fails unless the session may run the statement.
    pub fn authorize(&self, statement: &Statement) -> Result<()> {
        if self.is_admin() {
            return Ok(());
        }
        match statement {
            Statement::Sql(query) => self.check_names(query),
            Statement::Ours { command, spec, .. } => match OPEN.iter().find(|(open, _)| std::ptr::eq(*open, *spec)) {
                Some((_, Needs::Reading | Needs::Itself)) => Ok(()),
                Some((_, Needs::Target(privilege))) => self.authorize_target(&**command, spec, *privilege),
                None => self.must_be_admin(&format!("run {}", spec.name)),
            },
        }
    }

    fn authorize_target(&self, command: &dyn Command, spec: &Spec, privilege: Privilege) -> Result<()> {
        if let Some(query) = command.query() {
            self.check_names(&Ast::Query(Box::new(query.clone())))?;
        }
        match command.target() {
            Some(target) => {
                let name = parser(&target)?.parse_object_name(false).map_err(|e| syntax(&e))?;
                let relation = relation_of(&name)?;
                let known = relation.schema != PUBLIC
                    || self.engine().object(&relation.name).is_none_or(|object| object.kind.is_relation());
                match known {
                    true => self.must_have(privilege, &relation),
                    false => self.must_be_admin(&format!("run {} for \"{}\"", spec.name, relation.name)),
                }
            }
            // EXPLAIN of a query: what it reads is looked at when it is planned.
            None if privilege == Privilege::Select => Ok(()),
            None => self.must_be_admin(&format!("run {}", spec.name)),
        }
    }

    /// Fails unless the session may read all that a query names.
    pub(super) fn check_names(&self, query: &Ast) -> Result<()> {
        if self.is_admin() {
            return Ok(());
        }
        // What the planner will look up.
        let statement = DfStatement::Statement(Box::new(query.clone()));
        let (references, _) = resolve_table_references(&statement, true)?;
        let mut found = Found::default();
        let _ = query.visit(&mut found);
        if let Some(what) = found.reaches_out {
            self.must_be_admin(&format!("use {what} in FROM"))?;
        }
        let schema_of = |reference: &TableReference| reference.schema().unwrap_or(PUBLIC).to_string();
        let named = references.iter().map(|r| Relation { schema: schema_of(r), name: r.table().to_string() });
        for mut relation in named.chain(found.relations) {
            if relation.name == ACTIVITY {
                relation = Relation { schema: SYSTEM.to_string(), name: "queries".to_string() };
            }
            // What is not there is told by the planner, which knows better names; so is what is no relation but a call.
            let there = match relation.schema.as_str() {
                PUBLIC => self.engine().has_relation(&relation.name),
                schema => schema == SYSTEM,
            };
            if there {
                self.must_have(Privilege::Select, &relation)?;
            }
        }
        Ok(())
    }

    /// Puts the session's user in the place of `current_user` and the like, and into questions about its privileges.
    pub(super) fn name_user(&self, statement: &mut Ast) {
        if let Some(user) = self.user() {
            let _ = VisitMut::visit(statement, &mut NameUser(user));
        }
    }
}

/// Fails unless a role has a privilege on a relation, and says which it needs.
pub fn allowed(engine: &Engine, role: &str, privilege: Privilege, relation: &Relation) -> Result<()> {
    // PostgreSQL's catalogs, which clients cannot do without; they hold names and no rows of anybody.
    let catalogs = ["pg_catalog", "information_schema"].contains(&relation.schema.as_str());
    if catalogs && privilege == Privilege::Select {
        return Ok(());
    }
    let owner = engine.privileges_of(relation.clone());
    if engine.roles(|roles: &Roles| roles.may(role, privilege, &owner)) {
        return Ok(());
    }
    let word = privilege.word();
    let schema = if owner.schema == PUBLIC { String::new() } else { format!("{}.", quoted(&owner.schema)) };
    let grant = format!("GRANT {word} ON {schema}{} TO {}", quoted(&owner.name), quoted(role));
    Err(Error::new(Kind::InsufficientPrivilege, format!("permission denied for relation \"{relation}\""))
        .with_detail(format!("Role \"{role}\" needs the privilege {word} on {owner}."))
        .with_hint(format!("An administrator can give it: {grant}.")))
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

struct NameUser(String);

impl VisitorMut for NameUser {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let name = call.name.0.last().and_then(ObjectNamePart::as_ident).map(folded).unwrap_or_default();
        match name.as_str() {
            "current_user" | "session_user" | "current_role" | "user" if has_no_arguments(call) => {
                *expr = literal(&self.0);
            }
            "has_table_privilege" | "has_any_column_privilege" => {
                if let FunctionArguments::List(list) = &mut call.args
                    && list.args.len() == 2
                {
                    list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(literal(&self.0))));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn has_no_arguments(call: &Function) -> bool {
    match &call.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty(),
        FunctionArguments::Subquery(_) => false,
    }
}

fn literal(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_string()).into())
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
    fn the_user_is_named() {
        let Statement::Sql(ast) =
            parse("SELECT current_user, SESSION_USER, has_table_privilege('a', 'select'), 'user'").unwrap().remove(0)
        else {
            panic!("it is a query")
        };
        let mut ast = Ast::clone(&ast);
        let _ = VisitMut::visit(&mut ast, &mut NameUser("o'neil".into()));
        let expected = "SELECT 'o''neil', 'o''neil', has_table_privilege('o''neil', 'a', 'select'), 'user'";
        assert_eq!(ast.to_string(), expected);
    }

    #[test]
    fn names_are_folded_and_their_schema_is_seen() {
        let of = |text: &str| relation_of(&parser(text).unwrap().parse_object_name(false).unwrap()).unwrap();
        assert_eq!(of("Access").to_string(), "access");
        assert_eq!(of("logweir.public.\"Access\"").to_string(), "Access");
        assert_eq!(of("logweir.sources").to_string(), "logweir.sources");
    }
}
