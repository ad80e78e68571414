//! `IMPORT 'path' INTO stream`: old files into a running stream, as far as they are not in it yet.
//!
//! It reads files of the server. When there are users, this is a right of its own.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::catalog::quoted;
use crate::engine::Import;
use crate::error::{Error, Kind, Result};
use crate::sql::parser::{relation_name, words};
use crate::sql::{Outcome, Session};

pub static SPEC: Spec = Spec {
    name: "IMPORT",
    syntax: "IMPORT 'path or pattern', … INTO stream",
    summary: "reads old files (also .gz and .zst) into a stream once, and returns when all is durable and visible; repeated, it goes on where it stopped and adds no line twice. logweir.sources shows how far it is",
    parse,
};

#[derive(Debug)]
struct ImportFiles {
    patterns: Vec<String>,
    stream: String,
}

fn parse(parser: &mut Parser<'_>, _: &str) -> Result<Option<Arc<dyn Command>>> {
    if !words(parser, &["IMPORT"]) {
        return Ok(None);
    }
    let wrong = |found: &Token| {
        Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
            .with_hint(format!("The form is: {}", SPEC.syntax))
    };
    let mut patterns = Vec::new();
    loop {
        match parser.next_token().token {
            Token::SingleQuotedString(pattern) if !pattern.is_empty() => patterns.push(pattern),
            other => return Err(wrong(&other)),
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    if !words(parser, &["INTO"]) {
        return Err(wrong(&parser.peek_token_ref().token));
    }
    let stream = relation_name(parser)?;
    Ok(Some(Arc::new(ImportFiles { patterns, stream })))
}

impl Command for ImportFiles {
    fn target(&self) -> Option<String> {
        Some(quoted(&self.stream))
    }

    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl ImportFiles {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let done = session.engine().import(&self.stream, &self.patterns).await?;
        let rows = Some(usize::try_from(done.lines).unwrap_or(usize::MAX));
        Ok(Outcome::Done { tag: "IMPORT".into(), rows, notices: vec![summary(&done)] })
    }
}

/// What an import brought, as a sentence.
pub fn summary(done: &Import) -> String {
    let Import { lines, rows, malformed, files, known_files, known_bytes } = done;
    let plural = |n: u64, word: &str| if n == 1 { format!("{n} {word}") } else { format!("{n} {word}s") };
    let mut text = format!("{} of {}", plural(*lines, "line"), plural(*files as u64, "file"));
    text += &format!(": {}", plural(*rows, "row"));
    if *malformed > 0 {
        text += &format!(", {malformed} malformed");
    }
    if *known_bytes > 0 {
        text += &format!("; {} had been imported before", plural(*known_bytes, "byte"));
        if *known_files > 0 {
            text += &format!(", among them {} in full", plural(*known_files as u64, "file"));
        }
    }
    text
}
