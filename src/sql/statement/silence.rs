//! `SILENCE ALERT`, `UNSILENCE ALERT` and `ACKNOWLEDGE ALERT`: who is told of what, and for how long not.

use std::sync::Arc;

use datafusion::common::cast::as_timestamp_microsecond_array;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::{Command, Spec};
use crate::catalog::quoted;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{option_list, relation_name, syntax, words};
use crate::sql::{Outcome, Planned, Session};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "SILENCE ALERT",
    syntax: "SILENCE ALERT name [MATCH (column = 'value', …)] UNTIL time",
    summary: "nobody is told of the alert, or of those of its instances that have these values in KEY or LABELS, until then; what still fires then is told",
    parse,
};

pub static UNSILENCE: Spec = Spec {
    name: "UNSILENCE ALERT",
    syntax: "UNSILENCE ALERT name [MATCH (column = 'value', …)]",
    summary: "ends what SILENCE ALERT with the same MATCH began",
    parse: parse_unsilence,
};

pub static ACKNOWLEDGE: Spec = Spec {
    name: "ACKNOWLEDGE",
    syntax: "ACKNOWLEDGE [ALERT] name [MATCH (column = 'value', …)]",
    summary: "what fires is not told again (REPEAT) until it is over",
    parse: parse_acknowledge,
};

#[derive(Debug)]
struct Silence {
    name: String,
    matching: Vec<(String, String)>,
    /// An expression; none ends it.
    until: Option<String>,
}

fn matching(parser: &mut Parser<'_>) -> Result<Vec<(String, String)>> {
    if words(parser, &["MATCH"]) { option_list(parser) } else { Ok(Vec::new()) }
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["SILENCE", "ALERT"]) {
        return Ok(None);
    }
    let (name, matching) = (relation_name(parser)?, matching(parser)?);
    if !words(parser, &["UNTIL"]) {
        return Err(Error::new(Kind::Syntax, "SILENCE ALERT needs UNTIL and a time")
            .with_hint(format!("The form is: {}, such as UNTIL now() + INTERVAL '1 hour'.", SPEC.syntax)));
    }
    let until = Some(parser.parse_expr().map_err(|e| syntax(&e))?.to_string());
    Ok(Some(Arc::new(Silence { name, matching, until })))
}

fn parse_unsilence(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["UNSILENCE", "ALERT"]) {
        return Ok(None);
    }
    Ok(Some(Arc::new(Silence { name: relation_name(parser)?, matching: matching(parser)?, until: None })))
}

/// The moment that an expression means.
pub async fn moment(session: &Session, expression: &str) -> Result<Micros> {
    let query = format!("SELECT CAST(({expression}) AS TIMESTAMPTZ)");
    let statement = session.parse(&query)?.pop().ok_or_else(|| Error::internal("it is a query"))?;
    let Planned::Query { plan, .. } = session.plan(&statement).await? else {
        return Err(Error::internal("it is a query"));
    };
    let mut rows = session.engine().run(LogicalPlan::clone(&plan)).await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let column = arrow::compute::cast(batch.column(0), &crate::format::timestamp_type())?;
        if let Some(Some(time)) = as_timestamp_microsecond_array(&column)?.iter().next() {
            return Ok(time);
        }
    }
    Err(Error::new(Kind::InvalidParameter, format!("{expression} is no time")))
}

impl Command for Silence {
    fn target(&self) -> Option<String> {
        Some(quoted(&self.name))
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Silence {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (tag, until) = match &self.until {
            None => ("UNSILENCE ALERT", Micros::MIN),
            Some(until) => ("SILENCE ALERT", moment(session, until).await?),
        };
        let engine = session.engine();
        if self.until.is_some() && until <= engine.clock().now() {
            return Err(Error::new(Kind::InvalidParameter, "UNTIL is a time that is over")
                .with_hint("UNSILENCE ALERT ends a silence."));
        }
        engine.silence(&self.name, self.matching.clone(), until).await?;
        Ok(Outcome::done(tag))
    }
}

#[derive(Debug)]
struct Acknowledge {
    name: String,
    matching: Vec<(String, String)>,
}

fn parse_acknowledge(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["ACKNOWLEDGE"]) {
        return Ok(None);
    }
    let _ = words(parser, &["ALERT"]);
    Ok(Some(Arc::new(Acknowledge { name: relation_name(parser)?, matching: matching(parser)? })))
}

impl Command for Acknowledge {
    fn target(&self) -> Option<String> {
        Some(quoted(&self.name))
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let count = session.engine().acknowledge(&self.name, self.matching.clone()).await?;
            let rows = usize::try_from(count).ok();
            Ok(Outcome::Done { tag: "ACKNOWLEDGE".into(), rows, notices: Vec::new() })
        })
    }
}
