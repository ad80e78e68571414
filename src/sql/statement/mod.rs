//! Which statements are our own? Each is one file with its [`Spec`], listed once in [`STATEMENTS`]; everything else is
//! plain SQL. The table drives parsing, `SHOW STATEMENTS` and the README.

pub mod backtest;
pub mod comment_on;
pub mod copy;
pub mod copy_from;
pub mod copy_to;
pub mod create_alert;
pub mod create_notifier;
pub mod create_report;
pub mod create_role;
pub mod create_sink;
pub mod create_source;
pub mod create_stream;
pub mod create_table;
pub mod create_view;
pub mod cursor;
pub mod database;
pub mod describe;
pub mod drop;
pub mod explain;
pub mod external_table;
pub mod flush;
pub mod grant;
pub mod import;
pub mod insert;
pub mod lock_table;
pub mod notify;
pub mod owner;
pub mod plain_view;
pub mod preview;
pub mod set_role;
pub mod show;
pub mod show_create;
pub mod silence;
pub mod subscribe;
pub mod token;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ParamValues;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;
use sqlparser::ast::Query;
use sqlparser::parser::Parser;

use super::{Outcome, Session};
use crate::error::Result;
use crate::registry::Entry;

/// Every statement of our own. The first whose parser recognises its leading words takes the text.
pub static STATEMENTS: &[&Spec] = &[
    &create_table::SPEC,
    &create_stream::SPEC,
    &create_source::SPEC,
    &create_sink::SPEC,
    &create_notifier::SPEC,
    &create_notifier::TEST,
    &create_alert::SPEC,
    &silence::SPEC,
    &silence::UNSILENCE,
    &silence::ACKNOWLEDGE,
    &backtest::SPEC,
    &create_report::SPEC,
    &create_report::SEND,
    &external_table::SPEC,
    &create_view::SPEC,
    &plain_view::SPEC,
    &create_role::CREATE,
    &create_role::ALTER,
    &create_role::DROP,
    &grant::GRANT,
    &grant::REVOKE,
    &owner::ALTER,
    &owner::REASSIGN,
    &token::CREATE,
    &token::DROP,
    &set_role::SPEC,
    &database::CREATE,
    &database::ALTER,
    &database::DROP,
    &drop::SPEC,
    &comment_on::SPEC,
    &flush::SPEC,
    &import::SPEC,
    &insert::SPEC,
    &lock_table::SPEC,
    &explain::SPEC,
    &describe::SPEC,
    &preview::SPEC,
    &show_create::SPEC,
    &show::SPEC,
    &copy_to::SPEC,
    &copy_from::SPEC,
    &copy::SPEC,
    &subscribe::SPEC,
    &notify::LISTEN,
    &notify::UNLISTEN,
    &notify::NOTIFY,
    &cursor::DECLARE,
    &cursor::FETCH,
];

/// Those that change nothing: all others are refused in a read-only transaction.
pub static READS: &[&str] = &[
    backtest::SPEC.name,
    copy::SPEC.name,
    cursor::DECLARE.name,
    cursor::FETCH.name,
    describe::SPEC.name,
    explain::SPEC.name,
    lock_table::SPEC.name,
    notify::LISTEN.name,
    notify::NOTIFY.name,
    notify::UNLISTEN.name,
    preview::SPEC.name,
    set_role::SPEC.name,
    show::SPEC.name,
    show_create::SPEC.name,
    subscribe::SPEC.name,
];

/// One row of the table of statements.
pub struct Spec {
    /// Its leading words.
    pub name: &'static str,
    pub syntax: &'static str,
    pub summary: &'static str,
    /// Given a parser at the start of a text, and that text. `None` when it is another statement; an error when it is
    /// this one but wrong.
    pub parse: fn(&mut Parser<'_>, &str) -> Result<Option<Arc<dyn Command>>>,
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// A parsed statement of our own.
///
/// Its futures are boxed by hand: in the methods that `async_trait` makes, the compiler keeps nothing of its proof that a
/// plan may move between threads, and makes it anew in each, which took half of the time of a build.
pub trait Command: Debug + Send + Sync {
    /// Resolves names before the result's columns are asked for; a command that needs that returns itself, resolved.
    fn prepare<'a>(&'a self, _: &'a Session) -> BoxFuture<'a, Result<Option<Arc<dyn Command>>>> {
        Box::pin(async { Ok(None) })
    }

    /// The result's columns; `None` when it returns no rows.
    fn fields(&self) -> Option<SchemaRef> {
        None
    }

    /// Whether its rows come as things happen, without an end of their own.
    fn is_live(&self) -> bool {
        false
    }

    /// The plan of its query, if that may have parameters.
    fn plan(&self) -> Option<&LogicalPlan> {
        None
    }

    /// Whether it puts rows into a stream.
    fn inserts(&self) -> bool {
        false
    }

    /// What it is about, as SQL writes the name: where others than administrators may run it, they need a privilege on it
    /// ([`super::privileges`]).
    fn target(&self) -> Option<String> {
        None
    }

    /// A query in it whose plan is kept: what it reads is looked at each time it runs.
    fn query(&self) -> Option<&Query> {
        None
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>>;

    /// For those that something can be given.
    fn run_with<'a>(&'a self, session: &'a Session, _: Given) -> BoxFuture<'a, Result<Outcome>> {
        self.run(session)
    }
}

/// What a client gives with a statement.
pub struct Given {
    pub params: ParamValues,
    /// Rows that it puts into a stream count once under this key.
    pub key: Option<String>,
}

impl Default for Given {
    fn default() -> Given {
        Given { params: ParamValues::List(Vec::new()), key: None }
    }
}

/// A result of text columns.
pub fn text_fields(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect::<Vec<_>>()))
}

/// Rows of text for [`text_fields`].
pub fn text_rows(fields: &SchemaRef, rows: &[Vec<String>]) -> Result<Outcome> {
    let columns = (0..fields.fields().len()).map(|i| {
        let values = rows.iter().map(|row| row.get(i).map(String::as_str));
        Arc::new(values.collect::<StringArray>()) as _
    });
    let batch = RecordBatch::try_new(Arc::clone(fields), columns.collect())?;
    Ok(Outcome::Rows(one_batch(batch)))
}

/// A batch as a stream.
pub fn one_batch(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])))
}

/// A column's type in PostgreSQL's words.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "text".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Timestamp(_, None) => "timestamp without time zone".into(),
        DataType::Date32 => "date".into(),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "bytea".into(),
        DataType::Interval(_) => "interval".into(),
        other => other.to_string().to_lowercase(),
    }
}
