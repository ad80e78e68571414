//! Functions about who calls them, and about connections: `current_user`, `pg_backend_pid`, `current_setting`, `pg_notify`,
//! `pg_cancel_backend` and others (PostgreSQL manual, Session Information and System Administration Functions). Those about
//! privileges are in [`privileges`](super::privileges).
//!
//! All sessions share one table of functions, so these do not know by themselves who calls them: a [`Session`] puts itself
//! into their calls ([`bind`]) in each plan that it runs, just before it runs. So a plan that is kept, and a view, mean
//! whoever runs them. What the engine runs for nobody in particular (materialized views, alerts, …) cannot call them
//! ([`refuse`]). Those about a connection are errors where there is none.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion::prelude::SessionContext;

use super::privileges::{self, Names};
use crate::advisory::{Key, Mode};
use crate::backend::Backend;
use crate::catalog::postgres::ROLE;
use crate::error::{Error, Kind, Result};
use crate::sql::Session;

/// One function.
pub struct Spec {
    pub name: &'static str,
    pub takes: Takes,
    pub result: DataType,
    pub volatility: Volatility,
    /// The result for the rows of a call.
    pub rows: fn(&Call) -> Result<ArrayRef>,
}

/// What a function can be called with.
pub enum Takes {
    /// One of these lists of arguments.
    Forms(&'static [&'static [DataType]]),
    /// So many names of objects, each as text or as an object id (`Int64`).
    Names(&'static [usize]),
}

/// One call, of some rows.
pub struct Call<'a> {
    pub session: &'a Session,
    /// Of the objects that can be named by their ids.
    pub names: &'a Names,
    pub arguments: &'a [ArrayRef],
    pub rows: usize,
}

impl Call<'_> {
    fn backend(&self) -> Result<&Arc<Backend>> {
        self.session.need_backend()
    }

    /// The same text for all rows.
    fn text(&self, text: Option<String>) -> ArrayRef {
        Arc::new(StringArray::from(vec![text; self.rows]))
    }
}

/// Whom the session acts as.
fn current_user(call: &Call) -> Result<ArrayRef> {
    Ok(call.text(Some(call.session.user().unwrap_or_else(|| ROLE.to_string()))))
}

const fn user(name: &'static str, rows: fn(&Call) -> Result<ArrayRef>) -> Spec {
    Spec { name, takes: Takes::Forms(&[&[]]), result: DataType::Utf8, volatility: Volatility::Stable, rows }
}

/// What `current_user` is parsed as: the compatibility layer would take it for `session_user`.
pub const CURRENT_USER: &str = "logweir_current_user";

static FUNCTIONS: &[Spec] = &[
    user(CURRENT_USER, current_user),
    user("current_user", current_user),
    user("current_role", current_user),
    user("user", current_user),
    user("session_user", |call| Ok(call.text(Some(call.session.login().unwrap_or_else(|| ROLE.to_string()))))),
    user("system_user", |call| Ok(call.text(call.session.proven()))),
    Spec {
        name: "pg_backend_pid",
        takes: Takes::Forms(&[&[]]),
        result: DataType::Int32,
        volatility: Volatility::Stable,
        rows: |call| Ok(Arc::new(Int32Array::from(vec![call.backend()?.pid; call.rows]))),
    },
    Spec {
        name: "current_setting",
        takes: Takes::Forms(&[&[DataType::Utf8], &[DataType::Utf8, DataType::Boolean]]),
        result: DataType::Utf8,
        volatility: Volatility::Stable,
        rows: current_setting,
    },
    Spec {
        name: "set_config",
        takes: Takes::Forms(&[&[DataType::Utf8, DataType::Utf8, DataType::Boolean]]),
        result: DataType::Utf8,
        volatility: Volatility::Volatile,
        rows: set_config,
    },
    Spec {
        name: "inet_client_addr",
        takes: Takes::Forms(&[&[]]),
        result: DataType::Utf8,
        volatility: Volatility::Stable,
        rows: |call| Ok(call.text(call.backend()?.address.as_ref().map(|(host, _)| host.clone()))),
    },
    Spec {
        name: "inet_client_port",
        takes: Takes::Forms(&[&[]]),
        result: DataType::Int32,
        volatility: Volatility::Stable,
        rows: |call| {
            let port = call.backend()?.address.as_ref().map(|(_, port)| i32::from(*port));
            Ok(Arc::new(Int32Array::from(vec![port; call.rows])))
        },
    },
    Spec {
        name: "pg_notify",
        takes: Takes::Forms(&[&[DataType::Utf8, DataType::Utf8]]),
        // PostgreSQL's is void, which is sent as an empty text.
        result: DataType::Utf8,
        volatility: Volatility::Volatile,
        rows: notify,
    },
    Spec {
        name: "pg_cancel_backend",
        takes: Takes::Forms(&[&[DataType::Int64]]),
        result: DataType::Boolean,
        volatility: Volatility::Volatile,
        rows: |call| end(call, |backend| backend.running.cancel()),
    },
    Spec {
        name: "pg_terminate_backend",
        // The second argument says how long to wait for the end; it comes at once.
        takes: Takes::Forms(&[&[DataType::Int64], &[DataType::Int64, DataType::Int64]]),
        result: DataType::Boolean,
        volatility: Volatility::Volatile,
        rows: |call| end(call, |backend| backend.terminated.cancel()),
    },
    lock("pg_advisory_lock", DataType::Utf8, |call| need_locks(call, SESSION)),
    lock("pg_advisory_lock_shared", DataType::Utf8, |call| need_locks(call, shared(SESSION))),
    lock("pg_advisory_xact_lock", DataType::Utf8, |call| need_locks(call, TRANSACTION)),
    lock("pg_advisory_xact_lock_shared", DataType::Utf8, |call| need_locks(call, shared(TRANSACTION))),
    lock("pg_try_advisory_lock", DataType::Boolean, |call| try_locks(call, SESSION)),
    lock("pg_try_advisory_lock_shared", DataType::Boolean, |call| try_locks(call, shared(SESSION))),
    lock("pg_try_advisory_xact_lock", DataType::Boolean, |call| try_locks(call, TRANSACTION)),
    lock("pg_try_advisory_xact_lock_shared", DataType::Boolean, |call| try_locks(call, shared(TRANSACTION))),
    lock("pg_advisory_unlock", DataType::Boolean, |call| {
        each_lock(call, |backend, key| Ok(backend.unlock(key, false)))
    }),
    lock("pg_advisory_unlock_shared", DataType::Boolean, |call| {
        each_lock(call, |backend, key| Ok(backend.unlock(key, true)))
    }),
    Spec {
        name: "pg_advisory_unlock_all",
        takes: Takes::Forms(&[&[]]),
        result: DataType::Utf8,
        volatility: Volatility::Volatile,
        rows: |call| {
            call.backend()?.unlock_all();
            Ok(call.text(Some(String::new())))
        },
    },
];

/// The lists of arguments of functions about advisory locks.
const KEYS: &[&[DataType]] = &[&[DataType::Int64], &[DataType::Int64, DataType::Int64]];

const SESSION: Mode = Mode { shared: false, of_transaction: false };
const TRANSACTION: Mode = Mode { shared: false, of_transaction: true };

const fn shared(mode: Mode) -> Mode {
    Mode { shared: true, ..mode }
}

/// A function about advisory locks, by one key or two.
const fn lock(name: &'static str, result: DataType, rows: fn(&Call) -> Result<ArrayRef>) -> Spec {
    Spec { name, takes: Takes::Forms(KEYS), result, volatility: Volatility::Volatile, rows }
}

/// For each row's key, unless it is NULL.
fn each_lock(call: &Call, act: impl Fn(&Backend, Key) -> Result<bool>) -> Result<ArrayRef> {
    let backend = call.backend()?;
    let values: Vec<&Int64Array> = call.arguments.iter().map(|array| array.as_primitive::<Int64Type>()).collect();
    let half = |value: i64| i32::try_from(value).map_err(|_| Error::new(Kind::OutOfRange, "integer out of range"));
    let key = |row: usize| -> Result<Option<Key>> {
        Ok(match values.as_slice() {
            [one] if one.is_valid(row) => Some(Key::One(one.value(row))),
            [one, two] if one.is_valid(row) && two.is_valid(row) => {
                Some(Key::Two(half(one.value(row))?, half(two.value(row))?))
            }
            _ => None,
        })
    };
    let acted = (0..call.rows).map(|row| key(row)?.map(|key| act(backend, key)).transpose());
    Ok(Arc::new(acted.collect::<Result<BooleanArray>>()?))
}

fn try_locks(call: &Call, mode: Mode) -> Result<ArrayRef> {
    each_lock(call, |backend, key| backend.try_lock(key, mode))
}

/// PostgreSQL's wait; a wait here would hold a thread that others compute with. Void is sent as an empty text.
fn need_locks(call: &Call, mode: Mode) -> Result<ArrayRef> {
    each_lock(call, |backend, key| match backend.try_lock(key, mode)? {
        true => Ok(true),
        false => Err(Error::new(Kind::LockNotAvailable, "another connection holds this advisory lock")
            .with_hint("It is not waited for: ask again, with pg_try_advisory_lock.")),
    })?;
    Ok(call.text(Some(String::new())))
}

/// Of a setting that there is not: an error, or NULL if the second argument says so.
fn current_setting(call: &Call) -> Result<ArrayRef> {
    let (backend, arguments) = (call.backend()?, call.arguments);
    let names = arguments[0].as_string::<i32>();
    let value = |row: usize| -> Result<Option<String>> {
        if names.is_null(row) {
            return Ok(None);
        }
        let missing_is_null = arguments.get(1).is_some_and(|is| is.is_valid(row) && is.as_boolean().value(row));
        match backend.parameters.get().and_then(|parameters| parameters.show(names.value(row))) {
            None if !missing_is_null => Err(no_setting(names.value(row))),
            value => Ok(value),
        }
    };
    Ok(Arc::new((0..call.rows).map(value).collect::<Result<StringArray>>()?))
}

fn no_setting(name: &str) -> Error {
    Error::new(Kind::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))
}

fn set_config(call: &Call) -> Result<ArrayRef> {
    let (backend, arguments) = (call.backend()?, call.arguments);
    let (names, values) = (arguments[0].as_string::<i32>(), arguments[1].as_string::<i32>());
    let set = |row: usize| -> Result<Option<String>> {
        if names.is_null(row) || values.is_null(row) {
            return Ok(None);
        }
        let local = arguments[2].is_valid(row) && arguments[2].as_boolean().value(row);
        let parameters = backend.parameters.get().ok_or_else(|| no_setting(names.value(row)))?;
        parameters.set(names.value(row), values.value(row), local).map(Some)
    };
    Ok(Arc::new((0..call.rows).map(set).collect::<Result<StringArray>>()?))
}

/// One notification for each row; NULL is the empty text, as in PostgreSQL.
fn notify(call: &Call) -> Result<ArrayRef> {
    let (backend, arguments) = (call.backend()?, call.arguments);
    let text = |array: &ArrayRef, row: usize| match array.is_null(row) {
        true => String::new(),
        false => array.as_string::<i32>().value(row).to_string(),
    };
    for row in 0..call.rows {
        backend.notify(&text(&arguments[0], row), &text(&arguments[1], row))?;
    }
    Ok(call.text(Some(String::new())))
}

/// Whether there was such a backend to end something of. Those of other users are for administrators.
fn end(call: &Call, act: impl Fn(&Backend)) -> Result<ArrayRef> {
    call.backend()?;
    let (session, is_admin, user) = (call.session, call.session.is_admin(), call.session.user());
    let ended = |pid: i64| -> Result<bool> {
        let backend = i32::try_from(pid).ok().and_then(|pid| session.engine().backends().find(pid));
        let Some(backend) = backend else { return Ok(false) };
        if !is_admin && user.as_deref() != Some(backend.activity().user.as_str()) {
            let message = format!("permission denied to end what connection {pid} runs");
            return Err(Error::new(Kind::InsufficientPrivilege, message)
                .with_detail("Only administrators may do that to the connections of other users."));
        }
        act(&backend);
        Ok(true)
    };
    let pids = call.arguments[0].as_primitive::<Int64Type>();
    Ok(Arc::new(pids.iter().map(|pid| pid.map(ended).transpose()).collect::<Result<BooleanArray>>()?))
}

fn all() -> impl Iterator<Item = &'static Spec> {
    FUNCTIONS.iter().chain(privileges::FUNCTIONS)
}

/// Adds them to the functions that all sessions share.
pub fn register(context: &SessionContext) {
    all().for_each(|spec| context.register_udf(spec.udf(None)));
}

/// The plan with `session` as the one that calls these functions.
pub fn bind(plan: LogicalPlan, session: &Session) -> Result<LogicalPlan> {
    let called = called(&plan)?;
    if called.is_empty() {
        return Ok(plan);
    }
    let named = called.iter().any(|spec| matches!(spec.takes, Takes::Names(_)));
    let names = if named { Names::of(session.engine()) } else { Names::default() };
    let bound = Arc::new(Bound { session: session.clone(), names });
    let bind = |expr: Expr| match (of_ours(&expr), expr) {
        (Some(spec), Expr::ScalarFunction(call)) => {
            let func = Arc::new(spec.udf(Some(Arc::clone(&bound))));
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: call.args })))
        }
        (_, other) => Ok(Transformed::no(other)),
    };
    let plan = plan.transform_up_with_subqueries(|node| node.map_expressions(|expr| expr.transform_up(bind)))?;
    Ok(plan.data)
}

/// Fails where a plan calls one of these functions: it is to be the same for everybody. `what`: whose query it is, such as
/// `a materialized view`.
pub fn refuse(plan: &LogicalPlan, what: &str) -> Result<()> {
    let Some(spec) = called(plan)?.first().copied() else { return Ok(()) };
    let name = if spec.name == CURRENT_USER { "current_user" } else { spec.name };
    Err(Error::new(Kind::NotSupported, format!("{name} cannot be used in {what}"))
        .with_detail("It depends on who asks, and what is kept up to date is the same for everybody.")
        .with_hint("Use it in a plain view (CREATE VIEW) over this one, or in the query that reads it."))
}

/// Those of these functions that a plan calls.
fn called(plan: &LogicalPlan) -> Result<Vec<&'static Spec>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found.extend(of_ours(expr));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

fn of_ours(expr: &Expr) -> Option<&'static Spec> {
    let Expr::ScalarFunction(call) = expr else { return None };
    call.func.inner().downcast_ref::<Function>().map(|function| function.spec)
}

impl Spec {
    fn udf(&'static self, bound: Option<Arc<Bound>>) -> ScalarUDF {
        let signature = match &self.takes {
            Takes::Forms(forms) => {
                let types = forms.iter().map(|form| match form {
                    [] => TypeSignature::Nullary,
                    form => TypeSignature::Exact(form.to_vec()),
                });
                TypeSignature::OneOf(types.collect())
            }
            Takes::Names(counts) => {
                TypeSignature::OneOf(counts.iter().map(|count| TypeSignature::Any(*count)).collect())
            }
        };
        let signature = Signature::new(signature, self.volatility);
        ScalarUDF::new_from_impl(Function { spec: self, bound, signature })
    }

    /// The arguments in the types that it takes.
    fn cast(&self, given: &[ColumnarValue], rows: usize) -> Result<Vec<ArrayRef>> {
        let form = match &self.takes {
            Takes::Forms(forms) => forms.iter().find(|form| form.len() == given.len()).copied(),
            Takes::Names(_) => None,
        };
        let cast_one = |(at, value): (usize, &ColumnarValue)| -> Result<ArrayRef> {
            let data_type = match form {
                Some(form) => form[at].clone(),
                None if value.data_type().is_integer() => DataType::Int64,
                None => DataType::Utf8,
            };
            Ok(cast(&value.to_array(rows)?, &data_type)?)
        };
        given.iter().enumerate().map(cast_one).collect()
    }
}

/// Who calls.
struct Bound {
    session: Session,
    names: Names,
}

struct Function {
    spec: &'static Spec,
    bound: Option<Arc<Bound>>,
    signature: Signature,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec.name)
    }
}

/// Names are unique, and a plan is bound to one session.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.spec.name == other.spec.name && self.bound.is_some() == other.bound.is_some()
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.spec.result.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let bound = self.bound.as_ref().ok_or_else(|| {
            Error::new(Kind::NotSupported, format!("{} needs somebody who calls it", self.spec.name))
                .with_hint("Call it in a SELECT.")
        })?;
        let arguments =
            self.spec.cast(&arguments.args, arguments.number_rows).map(|cast| (cast, arguments.number_rows));
        let (arguments, rows) = arguments?;
        let call = Call { session: &bound.session, names: &bound.names, arguments: &arguments, rows };
        Ok(ColumnarValue::Array((self.spec.rows)(&call)?))
    }
}
