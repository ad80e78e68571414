//! Functions about the connection that calls them, and about other connections: `pg_backend_pid`, `current_setting`,
//! `pg_notify`, `pg_cancel_backend` and others (PostgreSQL manual, Session Information and System Administration Functions).
//!
//! All sessions share one table of functions, so these do not know by themselves who calls them: a [`Session`] puts itself
//! into their calls ([`bind`]) in each plan that it runs. Where there is no connection they are errors.

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

use crate::advisory::{Key, Mode};
use crate::backend::Backend;
use crate::error::{Error, Kind, Result};
use crate::sql::Session;

/// One function.
struct Spec {
    name: &'static str,
    /// The lists of arguments that it takes.
    forms: &'static [&'static [DataType]],
    result: DataType,
    volatility: Volatility,
    /// The result for this many rows.
    rows: Rows,
}

static FUNCTIONS: &[Spec] = &[
    Spec { name: "pg_backend_pid", forms: &[&[]], result: DataType::Int32, volatility: Volatility::Stable, rows: pid },
    Spec {
        name: "current_setting",
        forms: &[&[DataType::Utf8], &[DataType::Utf8, DataType::Boolean]],
        result: DataType::Utf8,
        volatility: Volatility::Stable,
        rows: current_setting,
    },
    Spec {
        name: "set_config",
        forms: &[&[DataType::Utf8, DataType::Utf8, DataType::Boolean]],
        result: DataType::Utf8,
        volatility: Volatility::Volatile,
        rows: set_config,
    },
    Spec {
        // `current_user` and `user` come here too.
        name: "session_user",
        forms: &[&[]],
        result: DataType::Utf8,
        volatility: Volatility::Stable,
        rows: |_, backend, _, rows| Ok(Arc::new(StringArray::from(vec![backend.activity().user; rows]))),
    },
    Spec {
        name: "inet_client_addr",
        forms: &[&[]],
        result: DataType::Utf8,
        volatility: Volatility::Stable,
        rows: |_, backend, _, rows| {
            let host = backend.address.as_ref().map(|(host, _)| host.as_str());
            Ok(Arc::new(StringArray::from(vec![host; rows])))
        },
    },
    Spec {
        name: "inet_client_port",
        forms: &[&[]],
        result: DataType::Int32,
        volatility: Volatility::Stable,
        rows: |_, backend, _, rows| {
            let port = backend.address.as_ref().map(|(_, port)| i32::from(*port));
            Ok(Arc::new(Int32Array::from(vec![port; rows])))
        },
    },
    Spec {
        name: "pg_notify",
        forms: &[&[DataType::Utf8, DataType::Utf8]],
        // PostgreSQL's is void, which is sent as an empty text.
        result: DataType::Utf8,
        volatility: Volatility::Volatile,
        rows: notify,
    },
    Spec {
        name: "pg_cancel_backend",
        forms: &[&[DataType::Int64]],
        result: DataType::Boolean,
        volatility: Volatility::Volatile,
        rows: |session, _, arguments, _| end(session, arguments, |backend| backend.running.cancel()),
    },
    Spec {
        name: "pg_terminate_backend",
        // The second argument says how long to wait for the end; it comes at once.
        forms: &[&[DataType::Int64], &[DataType::Int64, DataType::Int64]],
        result: DataType::Boolean,
        volatility: Volatility::Volatile,
        rows: |session, _, arguments, _| end(session, arguments, |backend| backend.terminated.cancel()),
    },
    lock("pg_advisory_lock", DataType::Utf8, |_, b, keys, n| need_locks(b, keys, n, SESSION)),
    lock("pg_advisory_lock_shared", DataType::Utf8, |_, b, keys, n| need_locks(b, keys, n, shared(SESSION))),
    lock("pg_advisory_xact_lock", DataType::Utf8, |_, b, keys, n| need_locks(b, keys, n, TRANSACTION)),
    lock("pg_advisory_xact_lock_shared", DataType::Utf8, |_, b, keys, n| need_locks(b, keys, n, shared(TRANSACTION))),
    lock("pg_try_advisory_lock", DataType::Boolean, |_, b, keys, n| try_locks(b, keys, n, SESSION)),
    lock("pg_try_advisory_lock_shared", DataType::Boolean, |_, b, keys, n| try_locks(b, keys, n, shared(SESSION))),
    lock("pg_try_advisory_xact_lock", DataType::Boolean, |_, b, keys, n| try_locks(b, keys, n, TRANSACTION)),
    lock("pg_try_advisory_xact_lock_shared", DataType::Boolean, |_, b, keys, n| {
        try_locks(b, keys, n, shared(TRANSACTION))
    }),
    lock("pg_advisory_unlock", DataType::Boolean, |_, b, keys, n| each_lock(keys, n, |key| Ok(b.unlock(key, false)))),
    lock("pg_advisory_unlock_shared", DataType::Boolean, |_, b, keys, n| {
        each_lock(keys, n, |key| Ok(b.unlock(key, true)))
    }),
    Spec {
        name: "pg_advisory_unlock_all",
        forms: &[&[]],
        result: DataType::Utf8,
        volatility: Volatility::Volatile,
        rows: |_, backend, _, rows| {
            backend.unlock_all();
            Ok(Arc::new(StringArray::from(vec![""; rows])))
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

/// What is asked of a function for each of its calls: see [`Spec::rows`].
type Rows = fn(&Session, &Arc<Backend>, &[ArrayRef], usize) -> Result<ArrayRef>;

/// A function about advisory locks, by one key or two.
const fn lock(name: &'static str, result: DataType, rows: Rows) -> Spec {
    Spec { name, forms: KEYS, result, volatility: Volatility::Volatile, rows }
}

/// For each row's key, unless it is NULL.
fn each_lock(keys: &[ArrayRef], rows: usize, act: impl Fn(Key) -> Result<bool>) -> Result<ArrayRef> {
    let values: Vec<&Int64Array> = keys.iter().map(|array| array.as_primitive::<Int64Type>()).collect();
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
    let acted = (0..rows).map(|row| key(row)?.map(&act).transpose());
    Ok(Arc::new(acted.collect::<Result<BooleanArray>>()?))
}

fn try_locks(backend: &Backend, keys: &[ArrayRef], rows: usize, mode: Mode) -> Result<ArrayRef> {
    each_lock(keys, rows, |key| backend.try_lock(key, mode))
}

/// PostgreSQL's wait; a wait here would hold a thread that others compute with. Void is sent as an empty text.
fn need_locks(backend: &Backend, keys: &[ArrayRef], rows: usize, mode: Mode) -> Result<ArrayRef> {
    each_lock(keys, rows, |key| match backend.try_lock(key, mode)? {
        true => Ok(true),
        false => Err(Error::new(Kind::LockNotAvailable, "another connection holds this advisory lock")
            .with_hint("It is not waited for: ask again, with pg_try_advisory_lock.")),
    })?;
    Ok(Arc::new(StringArray::from(vec![""; rows])))
}

/// Of a setting that there is not: an error, or NULL if the second argument says so.
fn current_setting(_: &Session, backend: &Arc<Backend>, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
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
    Ok(Arc::new((0..rows).map(value).collect::<Result<StringArray>>()?))
}

fn no_setting(name: &str) -> Error {
    Error::new(Kind::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""))
}

fn set_config(_: &Session, backend: &Arc<Backend>, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let (names, values) = (arguments[0].as_string::<i32>(), arguments[1].as_string::<i32>());
    let set = |row: usize| -> Result<Option<String>> {
        if names.is_null(row) || values.is_null(row) {
            return Ok(None);
        }
        let local = arguments[2].is_valid(row) && arguments[2].as_boolean().value(row);
        let parameters = backend.parameters.get().ok_or_else(|| no_setting(names.value(row)))?;
        parameters.set(names.value(row), values.value(row), local).map(Some)
    };
    Ok(Arc::new((0..rows).map(set).collect::<Result<StringArray>>()?))
}

fn pid(_: &Session, backend: &Arc<Backend>, _: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    Ok(Arc::new(Int32Array::from(vec![backend.pid; rows])))
}

/// One notification for each row; NULL is the empty text, as in PostgreSQL.
fn notify(_: &Session, backend: &Arc<Backend>, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let text = |array: &ArrayRef, row: usize| match array.is_null(row) {
        true => String::new(),
        false => array.as_string::<i32>().value(row).to_string(),
    };
    for row in 0..rows {
        backend.notify(&text(&arguments[0], row), &text(&arguments[1], row))?;
    }
    Ok(Arc::new(StringArray::from(vec![""; rows])))
}

/// Whether there was such a backend to end something of. Those of other users are for administrators.
fn end(session: &Session, arguments: &[ArrayRef], act: impl Fn(&Backend)) -> Result<ArrayRef> {
    let (is_admin, user) = (session.is_admin(), session.user());
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
    let pids = arguments[0].as_primitive::<Int64Type>();
    Ok(Arc::new(pids.iter().map(|pid| pid.map(ended).transpose()).collect::<Result<BooleanArray>>()?))
}

/// Adds them to the functions that all sessions share.
pub fn register(context: &SessionContext) {
    FUNCTIONS.iter().for_each(|spec| context.register_udf(spec.udf(None)));
}

/// The plan with `session` as the one that calls these functions.
pub fn bind(plan: LogicalPlan, session: &Session) -> Result<LogicalPlan> {
    let mut called = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                called |= of_ours(expr).is_some();
                Ok(if called { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    if !called {
        return Ok(plan);
    }
    let bound = |expr: Expr| match (of_ours(&expr), expr) {
        (Some(spec), Expr::ScalarFunction(call)) => {
            let func = Arc::new(spec.udf(Some(session.clone())));
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: call.args })))
        }
        (_, other) => Ok(Transformed::no(other)),
    };
    let plan = plan.transform_up_with_subqueries(|node| node.map_expressions(|expr| expr.transform_up(bound)))?;
    Ok(plan.data)
}

fn of_ours(expr: &Expr) -> Option<&'static Spec> {
    let Expr::ScalarFunction(call) = expr else { return None };
    call.func.inner().downcast_ref::<Function>().map(|function| function.spec)
}

impl Spec {
    fn udf(&'static self, session: Option<Session>) -> ScalarUDF {
        let types = self.forms.iter().map(|form| match form {
            [] => TypeSignature::Nullary,
            form => TypeSignature::Exact(form.to_vec()),
        });
        let signature = Signature::new(TypeSignature::OneOf(types.collect()), self.volatility);
        ScalarUDF::new_from_impl(Function { spec: self, session, signature })
    }
}

struct Function {
    spec: &'static Spec,
    session: Option<Session>,
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
        self.spec.name == other.spec.name && self.session.is_some() == other.session.is_some()
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
        let session = self.session.as_ref().ok_or_else(|| {
            Error::new(Kind::NotSupported, format!("{} needs a connection that calls it", self.spec.name))
                .with_hint("Call it in a SELECT over a Postgres connection.")
        })?;
        let backend = session.need_backend()?;
        let form = self.spec.forms.iter().find(|form| form.len() == arguments.args.len());
        let arrays = form
            .unwrap_or(&&[][..])
            .iter()
            .zip(&arguments.args)
            .map(|(data_type, value)| Ok(cast(&value.to_array(arguments.number_rows)?, data_type)?));
        let arrays = arrays.collect::<DfResult<Vec<ArrayRef>>>()?;
        let rows = (self.spec.rows)(session, backend, &arrays, arguments.number_rows)?;
        Ok(ColumnarValue::Array(rows))
    }
}
