//! `BACKTEST ALERT`: when an alert would have fired, from what is kept of the past.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::create_alert::{CreateAlert, parse_rest};
use super::silence::moment;
use super::{Command, Spec, one_batch};
use crate::alert::Definition;
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::sql::parser::{relation_name, syntax, words};
use crate::sql::{Outcome, Session};
use crate::time::UTC;

pub static SPEC: Spec = Spec {
    name: "BACKTEST ALERT",
    syntax: "BACKTEST ALERT name [ON relation WHERE … (clauses of CREATE ALERT)] FROM time TO time",
    summary: "when an alert, or one that is not created yet, would have fired between two moments; tells nobody",
    parse,
};

#[derive(Debug)]
struct Backtest {
    name: String,
    /// One that need not be there.
    draft: Option<CreateAlert>,
    from: String,
    to: String,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["BACKTEST", "ALERT"]) {
        return Ok(None);
    }
    let name = relation_name(parser)?;
    let draft = match words(parser, &["FROM"]) {
        true => None,
        false => {
            let draft = parse_rest(parser, name.clone(), false, text)?;
            if !words(parser, &["FROM"]) {
                return Err(wrong());
            }
            Some(draft)
        }
    };
    let from = parser.parse_expr().map_err(|e| syntax(&e))?.to_string();
    if !words(parser, &["TO"]) {
        return Err(wrong());
    }
    let to = parser.parse_expr().map_err(|e| syntax(&e))?.to_string();
    Ok(Some(Arc::new(Backtest { name, draft, from, to })))
}

fn wrong() -> Error {
    Error::new(Kind::Syntax, "BACKTEST ALERT needs FROM a time TO a time")
        .with_hint(format!("The form is: {}, such as FROM now() - INTERVAL '30 days' TO now().", SPEC.syntax))
}

fn fields() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("fired", timestamp_type(), true),
        Field::new("resolved", timestamp_type(), true),
        Field::new("value", DataType::Utf8, true),
    ]))
}

impl Command for Backtest {
    fn fields(&self) -> Option<SchemaRef> {
        Some(fields())
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Backtest {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let definition: Definition = match &self.draft {
            Some(draft) => draft.checked(session)?,
            None => {
                let alert = session.engine().alert(&self.name)?;
                let object = session.engine().object(&self.name);
                object.map_or(Ok(()), |object| session.engine().must_own(&session.actor(), &object))?;
                Definition::clone(&alert.definition)
            }
        };
        let (from, to) = (moment(session, &self.from).await?, moment(session, &self.to).await?);
        if from >= to {
            return Err(Error::new(Kind::InvalidParameter, "FROM has to be before TO"));
        }
        let firings = session.engine().backtest(&definition, (from, to)).await?;
        let key = |key: &Vec<Option<String>>| {
            let pairs = definition.key.iter().zip(key);
            let one =
                |(name, value): (&String, &Option<String>)| format!("{name}={}", value.as_deref().unwrap_or("NULL"));
            (!key.is_empty()).then(|| pairs.map(one).collect::<Vec<_>>().join(", "))
        };
        let value = |row: &serde_json::Map<String, serde_json::Value>| {
            (!row.is_empty()).then(|| serde_json::Value::from(row.clone()).to_string())
        };
        let keys: StringArray = firings.iter().map(|firing| key(&firing.key)).collect();
        let fired: TimestampMicrosecondArray = firings.iter().map(|firing| Some(firing.fired)).collect();
        let resolved: TimestampMicrosecondArray = firings.iter().map(|firing| firing.resolved).collect();
        let values: StringArray = firings.iter().map(|firing| value(&firing.row)).collect();
        let batch = RecordBatch::try_new(
            fields(),
            vec![
                Arc::new(keys),
                Arc::new(fired.with_timezone(UTC)),
                Arc::new(resolved.with_timezone(UTC)),
                Arc::new(values),
            ],
        )?;
        Ok(Outcome::Rows(one_batch(batch)))
    }
}
