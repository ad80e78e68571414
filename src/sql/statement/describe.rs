//! `DESCRIBE relation`: its columns.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use sqlparser::parser::Parser;

use super::{Command, Spec, text_fields, text_rows};
use crate::error::Result;
use crate::sql::parser::words;
use crate::sql::{Outcome, Session};

pub static SPEC: Spec =
    Spec { name: "DESCRIBE", syntax: "DESCRIBE relation", summary: "the columns of a relation and their types", parse };

#[derive(Debug)]
struct Describe {
    name: String,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["DESCRIBE"]) && !words(parser, &["DESC"]) {
        return Ok(None);
    }
    let name = parser.parse_object_name(false).map_err(|e| crate::sql::parser::syntax(&e))?;
    Ok(Some(Arc::new(Describe { name: name.to_string() })))
}

#[async_trait]
impl Command for Describe {
    fn fields(&self) -> Option<SchemaRef> {
        Some(text_fields(&["column", "type"]))
    }

    async fn run(&self, session: &Session) -> Result<Outcome> {
        let table = session
            .context()
            .table_provider(self.name.as_str())
            .await
            .map_err(|_| session.engine().no_relation(&self.name))?;
        let schema = table.schema();
        let rows = schema.fields().iter().map(|f| vec![f.name().clone(), super::type_name(f.data_type())]);
        text_rows(&text_fields(&["column", "type"]), &rows.collect::<Vec<_>>())
    }
}
