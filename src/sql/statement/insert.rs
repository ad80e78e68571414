//! `INSERT INTO stream [(column, …)] VALUES … | SELECT …`: rows into a stream. All of them come in, as one record of its log,
//! or none; the statement returns when they are durable and visible.
//!
//! The query is planned by DataFusion's planner for INSERT, which gives parameters the types of their columns. Its plan has
//! all columns of the relation; those that were not named are NULL in it and are left out.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use futures::future::BoxFuture;
use sqlparser::ast::{Ident, Insert, ObjectName, Query, SetExpr, Statement as Ast, TableObject};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Given, Spec, type_name};
use crate::batch::fit;
use crate::catalog::ObjectKind;
use crate::engine::{Inserter, PUBLIC, Stream};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::sql::parser::{folded, syntax};
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "INSERT",
    syntax: "INSERT INTO stream [(column, …)] VALUES (…), … | query",
    summary: "puts rows into a stream, all or none; returns when they are durable and visible. After SET logweir.idempotency_key = '…' the next INSERT or COPY may be repeated and counts once",
    parse,
};

/// As it was parsed.
#[derive(Debug)]
struct InsertRows {
    statement: Opaque<Insert>,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !matches!(&parser.peek_token_ref().token, Token::Word(word) if word.keyword == Keyword::INSERT) {
        return Ok(None);
    }
    let unknown = || {
        Error::new(Kind::Syntax, "this form of INSERT is not known").with_hint(format!("The form is: {}", SPEC.syntax))
    };
    let Ast::Insert(statement) = parser.parse_statement().map_err(|e| syntax(&e))? else { return Err(unknown()) };
    let refused = [
        ("ON CONFLICT", statement.on.is_some()),
        ("RETURNING", statement.returning.is_some()),
        ("OVERWRITE", statement.overwrite || statement.replace_into),
        ("DEFAULT VALUES", statement.source.is_none()),
    ];
    if let Some((what, _)) = refused.iter().find(|(_, given)| *given) {
        return Err(Error::new(Kind::NotSupported, format!("INSERT with {what} is not supported"))
            .with_hint("A stream only ever grows. SET logweir.idempotency_key makes an INSERT that may be repeated."));
    }
    Ok(Some(Arc::new(InsertRows { statement: statement.into() })))
}

impl InsertRows {
    fn stream(&self, session: &Session) -> Result<Arc<Stream>> {
        match &self.statement.table {
            TableObject::TableName(name) => stream_of(session, name),
            other => Err(Error::new(Kind::WrongObjectType, format!("cannot insert into {other}"))),
        }
    }

    /// The columns that are named.
    fn named(&self) -> Result<Vec<String>> {
        let name = |name: &ObjectName| match name.0.as_slice() {
            [part] => part.as_ident().map(folded),
            _ => None,
        };
        let wrong = |name: &ObjectName| Error::new(Kind::Syntax, format!("syntax error at or near \"{name}\""));
        self.statement.columns.iter().map(|column| name(column).ok_or_else(|| wrong(column))).collect()
    }

    /// How many values a row has, where they are written out; else the query that gives the rows.
    fn source(&self) -> Result<std::result::Result<usize, Opaque<Ast>>> {
        let source = self.statement.source.as_ref().ok_or_else(|| Error::internal("it has rows"))?;
        Ok(match source.body.as_ref() {
            SetExpr::Values(values) => Ok(values.rows.iter().map(|row| row.content.len()).max().unwrap_or(0)),
            _ => Err(Ast::Query(source.clone()).into()),
        })
    }

    /// The statement with all of its columns named.
    fn naming(&self, fields: &[FieldRef]) -> Opaque<Ast> {
        let quoted = |field: &FieldRef| ObjectName::from(vec![Ident::with_quote('"', field.name())]);
        let columns = fields.iter().map(quoted).collect();
        Ast::Insert(Insert { columns, table_alias: None, ..Insert::clone(&self.statement) }).into()
    }

    async fn resolve(&self, session: &Session) -> Result<ReadyInsert> {
        let (stream, named) = (self.stream(session)?, self.named()?);
        let mut fields = stream.insertable(&named)?;
        let given = match self.source()? {
            Ok(values) => values,
            Err(query) => Opaque::new(session.plan_query(&query).await?).schema().fields().len(),
        };
        if given > fields.len() {
            return Err(Error::new(Kind::Syntax, "INSERT has more expressions than target columns"));
        }
        if given < fields.len() && !named.is_empty() {
            return Err(Error::new(Kind::Syntax, "INSERT has more target columns than expressions"));
        }
        // As in PostgreSQL, values without names are for the first columns.
        fields.truncate(given);
        let statement = self.naming(&fields);
        let plan = session.plan_insert(&statement).await.map_err(|err| better(err, &fields))?;
        let plan = session.analyze(plan).map_err(|err| better(err, &fields))?;
        Ok(ReadyInsert { stream, fields, plan: plan.into() })
    }
}

/// The stream that a statement names to put rows into.
pub fn stream_of(session: &Session, name: &ObjectName) -> Result<Arc<Stream>> {
    let parts: Vec<_> = name.0.iter().filter_map(|p| p.as_ident()).map(folded).collect();
    let (schema, relation) = match parts.as_slice() {
        [relation] => (PUBLIC, relation),
        [schema, relation] => (schema.as_str(), relation),
        _ => return Err(Error::new(Kind::UndefinedTable, format!("relation \"{name}\" does not exist"))),
    };
    let engine = session.engine();
    let stream = engine.stream(relation).filter(|_| schema == PUBLIC);
    stream.ok_or_else(|| match engine.object(relation).filter(|o| schema == PUBLIC && o.kind != ObjectKind::Source) {
        Some(object) => {
            let message = format!("cannot insert into {} \"{relation}\"", object.kind.word());
            Error::new(Kind::WrongObjectType, message).with_hint(
                "Rows are put into streams. A reference table gets its rows with CREATE OR REPLACE TABLE … AS.",
            )
        }
        None if schema == PUBLIC => engine.no_relation(relation),
        None => Error::new(Kind::WrongObjectType, format!("cannot insert into \"{name}\"")),
    })
}

impl Command for InsertRows {
    fn prepare<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Option<Arc<dyn Command>>>> {
        Box::pin(async { Ok(Some(Arc::new(self.resolve(session).await?) as Arc<dyn Command>)) })
    }

    fn query(&self) -> Option<&Query> {
        self.statement.source.as_deref()
    }

    fn target(&self) -> Option<String> {
        match &self.statement.table {
            TableObject::TableName(name) => Some(name.to_string()),
            _ => None,
        }
    }

    fn inserts(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async { self.resolve(session).await?.insert(session, Given::default()).await })
    }
}

/// Planned.
struct ReadyInsert {
    stream: Arc<Stream>,
    /// The columns that are given.
    fields: Vec<FieldRef>,
    plan: Opaque<LogicalPlan>,
}

impl std::fmt::Debug for ReadyInsert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Insert({})", self.stream.name)
    }
}

impl Command for ReadyInsert {
    fn plan(&self) -> Option<&LogicalPlan> {
        Some(&self.plan)
    }

    fn inserts(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.insert(session, Given::default()))
    }

    fn run_with<'a>(&'a self, session: &'a Session, given: Given) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.insert(session, given))
    }
}

impl ReadyInsert {
    async fn insert(&self, session: &Session, given: Given) -> Result<Outcome> {
        let now = session.engine().stream(&self.stream.name);
        if !now.is_some_and(|now| Arc::ptr_eq(&now, &self.stream)) {
            let message = format!("relation \"{}\" was dropped or made anew", self.stream.name);
            return Err(Error::new(Kind::NotSupported, message).with_hint("Prepare the statement again."));
        }
        let mut inserter = Inserter::new(&self.stream, given.key, false)?;
        let columns = Arc::new(arrow::datatypes::Schema::new(self.fields.clone()));
        let plan = LogicalPlan::clone(&self.plan).with_param_values(given.params)?;
        let better = |err: Error| better(err, &self.fields);
        let mut rows = session.run_plan(plan).await.map_err(better)?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|err| better(err.into()))?;
            inserter.add(&fit(&batch, &columns)?)?;
        }
        let done = inserter.finish().await?;
        let notices = done.notice().into_iter().collect();
        Ok(Outcome::Done { tag: "INSERT".into(), rows: usize::try_from(done.rows).ok(), notices })
    }
}

/// A text that is no value of its column's type, in PostgreSQL's words.
fn better(err: Error, fields: &[FieldRef]) -> Error {
    let Some(rest) = err.message().split_once("annot cast string '").map(|(_, rest)| rest) else { return err };
    let Some((value, of)) = rest.rsplit_once("' to value of ") else { return err };
    let name = of.split_whitespace().next().unwrap_or(of);
    let meant = fields.iter().find(|field| name == field.data_type().to_string());
    let of = meant.map_or_else(|| name.to_lowercase(), |field| type_name(field.data_type()));
    Error::new(Kind::InvalidText, invalid(&of, value))
}

/// What to say of a text that is no value of a type.
pub fn invalid(of: &str, value: &str) -> String {
    format!("invalid input syntax for type {of}: \"{value}\"")
}
