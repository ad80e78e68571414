//! `DESCRIBE relation`: its columns. With EXTENDED also where each comes from.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use futures::future::BoxFuture;
use sqlparser::parser::Parser;

use super::{Command, Spec, text_fields, text_rows};
use crate::engine::{Engine, Stream};
use crate::error::Result;
use crate::format::subtype::Subtype;
use crate::sql::parser::words;
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "DESCRIBE",
    syntax: "DESCRIBE [EXTENDED] relation",
    summary: "the columns of a relation and their types; EXTENDED: where each comes from",
    parse,
};

#[derive(Debug)]
struct Describe {
    name: String,
    extended: bool,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["DESCRIBE"]) && !words(parser, &["DESC"]) {
        return Ok(None);
    }
    let extended = words(parser, &["EXTENDED"]);
    let name = parser.parse_object_name(false).map_err(|e| crate::sql::parser::syntax(&e))?;
    Ok(Some(Arc::new(Describe { name: name.to_string(), extended })))
}

/// Name and type of each column.
pub async fn columns_of(session: &Session, name: &str) -> Result<Vec<Vec<String>>> {
    let table = session.context().table_provider(name).await.map_err(|_| session.engine().no_relation(name))?;
    let schema = table.schema();
    let type_of = |field: &Field| match Subtype::of(field) {
        Some(subtype) => subtype.name().to_string(),
        None => super::type_name(field.data_type()),
    };
    Ok(schema.fields().iter().map(|field| vec![field.name().clone(), type_of(field)]).collect())
}

impl Command for Describe {
    fn fields(&self) -> Option<SchemaRef> {
        Some(text_fields(if self.extended { &["column", "type", "origin"] } else { &["column", "type"] }))
    }

    fn target(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl Describe {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let mut rows = columns_of(session, &self.name).await?;
        if self.extended {
            for row in &mut rows {
                let origin = origin(session.engine(), self.name.trim_start_matches("public."), &row[0]);
                row.push(origin);
            }
        }
        text_rows(&text_fields(if self.extended { &["column", "type", "origin"] } else { &["column", "type"] }), &rows)
    }
}

fn origin(engine: &Engine, relation: &str, column: &str) -> String {
    if let Some(stream) = engine.stream(relation) {
        return of_stream(&stream, column);
    }
    if let Some(view) = engine.view(relation) {
        return match view.derived.as_ref().and_then(|name| engine.stream(name)) {
            Some(stream) => of_derived(&view, &stream, column),
            None => "materialized view".into(),
        };
    }
    match engine.object(relation) {
        Some(object) => object.kind.word().to_string(),
        None => "system relation".into(),
    }
}

fn of_stream(stream: &Stream, column: &str) -> String {
    let shape = &stream.runner.shape;
    let definition = &stream.definition;
    let included = shape.includes.iter().position(|i| i.name == column);
    let computed = shape.computed.iter().find(|computed| computed.name == column);
    let declared = definition.declared.iter().any(|d| d.name == column);
    let mut origin = match (included, computed) {
        (Some(at), _) => {
            let kind = crate::batch::METADATA.iter().find(|(_, kind, _)| *kind == shape.includes[at].kind);
            format!("INCLUDE {}", kind.map_or("", |(name, _, _)| name))
        }
        (None, Some(computed)) => format!("computed: {}", computed.sql),
        (None, None) if declared => format!("declared, from format {}", definition.format),
        (None, None) => format!("format {}", definition.format),
    };
    if shape.time.as_deref() == Some(column) {
        origin += ", event time";
    }
    origin
}

/// A column that the view hands through is the stream's; else it is computed.
fn of_derived(view: &crate::engine::View, stream: &Stream, column: &str) -> String {
    let through = stream.runner.shape.schema().field_with_name(column).is_ok();
    match view.time(stream.runner.shape.time.as_deref()) {
        Some(time) if time == column => format!("stream {}, event time", stream.name),
        _ if through => format!("stream {}", stream.name),
        _ => "computed".into(),
    }
}
