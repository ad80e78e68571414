//! `COPY stream [(column, …)] FROM STDIN` (PostgreSQL manual, COPY): rows that the client sends, as text, csv or in binary.
//!
//! The rows come in by records of the stream's log; see [`CopyIn`](crate::sql::CopyIn) for what that means for an error.

use std::sync::Arc;

use futures::future::{BoxFuture, ready};
use sqlparser::ast::{CopySource, CopyTarget, ObjectName, Statement as Ast};
use sqlparser::parser::Parser;

use super::copy::copy_options;
use super::insert::stream_of;
use super::{Command, Given, Spec};
use crate::error::Result;
use crate::sql::parser::{folded, words};
use crate::sql::{CopyIn, CopyOptions, Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "COPY … FROM STDIN",
    syntax: "COPY stream [(column, …)] FROM STDIN [WITH (FORMAT text | csv | binary, HEADER, DELIMITER 'c', NULL 's', QUOTE 'c', ESCAPE 'c')]",
    summary: "puts rows that the client sends into a stream; returns when they are durable and visible. A copy of more than 8192 rows or 4 MiB is put in piece by piece: an error says which line it is in and how many rows are in already",
    parse,
};

#[derive(Debug)]
struct CopyFrom {
    stream: ObjectName,
    columns: Vec<String>,
    options: CopyOptions,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["COPY"]) {
        return Ok(None);
    }
    // What is wrong with others, they say themselves.
    let Ok(Ast::Copy { source, to: false, target: CopyTarget::Stdin, options, legacy_options, .. }) =
        parser.parse_copy()
    else {
        return Ok(None);
    };
    let CopySource::Table { table_name: stream, columns } = source else { return Ok(None) };
    let columns = columns.iter().map(folded).collect();
    let options = copy_options(&options, &legacy_options)?;
    Ok(Some(Arc::new(CopyFrom { stream, columns, options })))
}

impl Command for CopyFrom {
    fn inserts(&self) -> bool {
        true
    }

    fn target(&self) -> Option<String> {
        Some(self.stream.to_string())
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        self.run_with(session, Given::default())
    }

    fn run_with<'a>(&'a self, session: &'a Session, given: Given) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(ready(self.begin(session, given)))
    }
}

impl CopyFrom {
    fn begin(&self, session: &Session, given: Given) -> Result<Outcome> {
        let stream = stream_of(session, &self.stream)?;
        let copy = CopyIn::new(&stream, &self.columns, self.options.clone(), given.key)?;
        Ok(Outcome::CopyIn(Box::new(copy)))
    }
}
