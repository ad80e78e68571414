//! Cuts a text into statements and decides who parses each: our own table of statements first, PostgreSQL's grammar (as
//! DataFusion's Postgres layer reads it) for the rest.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_pg_catalog::sql::rules::{self, SqlStatementRewriteRule};
use sqlparser::ast::{Expr, Query, SetExpr, Visit, Visitor, visit_expressions_mut};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::function::session::CURRENT_USER;
use super::statement::{Command, STATEMENTS, Spec};
use super::{grammar, introspect, window};
use crate::error::{Error, Kind, Result};
use crate::opaque::Opaque;
use crate::time::{Micros, parse_duration};

/// One statement.
#[derive(Clone)]
pub enum Statement {
    /// Of our dialect.
    Ours { text: String, command: Arc<dyn Command>, spec: &'static Spec },
    /// Plain SQL.
    Sql(Plain),
}

/// Plain SQL: as DataFusion can plan it, and as it was written if it may be about the catalog.
#[derive(Clone)]
pub struct Plain {
    statement: Opaque<sqlparser::ast::Statement>,
    written: Option<Opaque<sqlparser::ast::Statement>>,
}

impl Plain {
    /// The statement as it was written, if it may be about the catalog.
    pub fn written(&self) -> Option<&sqlparser::ast::Statement> {
        self.written.as_deref()
    }
}

impl From<sqlparser::ast::Statement> for Plain {
    fn from(statement: sqlparser::ast::Statement) -> Plain {
        Plain { statement: statement.into(), written: None }
    }
}

impl std::ops::Deref for Plain {
    type Target = sqlparser::ast::Statement;

    fn deref(&self) -> &sqlparser::ast::Statement {
        &self.statement
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Ours { text, .. } => f.write_str(text),
            Statement::Sql(statement) => statement.fmt(f),
        }
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Statement({self})")
    }
}

/// Holds its rewrite rules only, which take longer to make than a statement takes to parse.
static POSTGRES: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// What tools say that is not known here, and what it comes to.
const SAID_OTHERWISE: [(&str, &str); 2] = [
    // DuckDB reads tables by places in files: all of them. (With pages in `pg_class` it would ask for parts.)
    ("ctid BETWEEN '(0,0)'::tid AND '(4294967295,0)'::tid", "true"),
    // pgAdmin changes a setting in a query of it.
    ("false) FROM pg_show_all_settings()", "false) FROM pg_catalog.pg_settings"),
];

/// All statements of a text, in order; empty ones are left out.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    for text in pieces(sql)? {
        let text =
            SAID_OTHERWISE.iter().fold(Cow::Borrowed(text), |text, (theirs, ours)| match text.contains(theirs) {
                true => Cow::Owned(text.replace(theirs, ours)),
                false => text,
            });
        let text = of_transactions(&text)?;
        let text = without_schemas(&text)?;
        let text = text.as_ref();
        match ours(text).map_err(|err| patterns_are_missing(text).unwrap_or(err))? {
            Some((spec, command)) => statements.push(Statement::Ours { text: text.to_string(), command, spec }),
            None => {
                let parsed = parsed(&users(plain(text)?)?);
                let parsed = parsed.map_err(|err| patterns_are_missing(text).unwrap_or_else(|| syntax(&err)))?;
                // One statement, so that what was written is the same as what was parsed.
                let written = if parsed.len() == 1 && introspect::may_concern(text) { written(text) } else { None };
                for mut statement in parsed {
                    escapes(&mut statement)?;
                    let written = written.clone();
                    statements.push(Statement::Sql(Plain { statement: statement.into(), written }));
                }
            }
        }
    }
    Ok(statements)
}

/// The statements of a text. Those that ask the system catalog are brought into a form that DataFusion can plan by all rules
/// of its Postgres layer; of others only the names are. The rules left out would make NULL of a subquery in a select list
/// that names a schema, or read arrays without regard to quotes.
fn parsed(text: &str) -> Result<Vec<sqlparser::ast::Statement>, ParserError> {
    if text.contains("pg_") || text.contains("information_schema") || text.to_ascii_lowercase().contains("abort") {
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location()?;
        grammar::check_calls(&tokens).map_err(|_| ParserError::RecursionLimitExceeded)?;
        return POSTGRES.parse(text);
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location()?;
    let tokens = with_casts(tokens);
    let statements = grammar::statements_of(tokens, text)?;
    Ok(statements.into_iter().map(|statement| NAMES.iter().fold(statement, |s, rule| rule.rewrite(s))).collect())
}

/// `inet '10.0.0.1'` as `'10.0.0.1'::inet`: types that the grammar does not know before a literal.
fn with_casts(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_type = |token: &Token| match token {
        Token::Word(word) => {
            word.quote_style.is_none() && ["inet", "cidr"].contains(&word.value.to_lowercase().as_str())
        }
        _ => false,
    };
    let mut at = 0;
    while at + 1 < tokens.len() {
        let behind = tokens[at + 1..].iter().position(|token| !matches!(token.token, Token::Whitespace(_)));
        let literal = behind.map(|behind| at + 1 + behind);
        if let Some(literal) = literal.filter(|_| is_type(&tokens[at].token))
            && matches!(tokens[literal].token, Token::SingleQuotedString(_))
            && !(at > 0 && matches!(tokens[at - 1].token, Token::DoubleColon | Token::Period))
        {
            let name = tokens.remove(at);
            let cast = TokenWithSpan { token: Token::DoubleColon, span: name.span };
            tokens.splice(literal..literal, [cast, name]);
            at = literal + 1;
        }
        at += 1;
    }
    tokens
}

/// The rules about names.
static NAMES: LazyLock<Vec<Box<dyn SqlStatementRewriteRule>>> = LazyLock::new(|| {
    vec![
        Box::new(rules::AliasDuplicatedProjectionRewrite),
        Box::new(rules::ResolveUnqualifiedIdentifier),
        Box::new(rules::StripCallableQualifier),
        Box::new(rules::CurrentUserVariableToSessionUserFunctionCall),
        Box::new(rules::StripCollate),
    ]
});

/// What the grammar lacks of statements about transactions: `[NOT] DEFERRABLE`, which is left out, as statements see
/// what is there when they begin; and commits in two phases, which there are none of.
fn of_transactions(text: &str) -> Result<Cow<'_, str>> {
    let mut words = text.split_whitespace().map(str::to_lowercase);
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match (first.as_str(), second.as_str()) {
        ("prepare", "transaction") | ("commit" | "rollback", "prepared") => {
            Err(Error::new(Kind::NotSupported, "prepared transactions (commits in two phases) are not supported")
                .with_hint("Statements take effect as they run."))
        }
        ("begin" | "start", _) | ("set", "transaction" | "session") if text.to_lowercase().contains("deferrable") => {
            let mut kept: Vec<&str> = Vec::new();
            for word in text.split_whitespace() {
                if word.trim_end_matches(',').eq_ignore_ascii_case("deferrable") {
                    let negated = kept.last().is_some_and(|last| last.eq_ignore_ascii_case("not"));
                    kept.truncate(kept.len() - usize::from(negated));
                } else {
                    kept.push(word);
                }
            }
            Ok(Cow::Owned(kept.join(" ").trim_end_matches(',').to_string()))
        }
        _ => Ok(Cow::Borrowed(text)),
    }
}

/// Calls such as `pg_catalog.substring(…)` without their schema: the grammar has forms of its own for these functions, and
/// knows them by their bare names. Spaces stand in its place, so that errors are told where they are.
fn without_schemas(text: &str) -> Result<Cow<'_, str>> {
    const SCHEMA: &str = "pg_catalog";
    const FUNCTIONS: [&str; 4] = ["substring", "substr", "floor", "ceil"];
    if !FUNCTIONS.iter().any(|name| text.contains(&format!("{SCHEMA}.{name}"))) {
        return Ok(Cow::Borrowed(text));
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .map_err(|e| Error::new(Kind::Syntax, format!("syntax error: {e}")))?;
    let is_one = |token: &Token, names: &[&str]| matches!(token, Token::Word(word) if word.quote_style.is_none() && names.contains(&word.value.as_str()));
    let (lines, mut out) = (line_starts(text), text.to_string());
    for call in tokens.windows(4) {
        let [schema, period, name, open] = call else { continue };
        if is_one(&schema.token, &[SCHEMA])
            && period.token == Token::Period
            && is_one(&name.token, &FUNCTIONS)
            && open.token == Token::LParen
        {
            let start = byte_of(text, &lines, schema.span.start);
            let end = byte_of(text, &lines, name.span.start);
            out.replace_range(start..end, &" ".repeat(end - start));
        }
    }
    Ok(Cow::Owned(out))
}

/// The statement without any change.
fn written(text: &str) -> Option<Opaque<sqlparser::ast::Statement>> {
    let mut statements = grammar::statements(text).ok()?;
    statements.pop().map(Opaque::new)
}

/// `LIKE pattern ESCAPE 'c'` as `LIKE` with a backslash for c, the only one that operators know.
fn escapes(statement: &mut sqlparser::ast::Statement) -> Result<()> {
    let escaped = visit_expressions_mut(statement, |expr| {
        let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr else {
            return ControlFlow::Continue(());
        };
        let Some(escape) = escape_char.take().and_then(|value| value.value.into_string()) else {
            return ControlFlow::Continue(());
        };
        if escape == "\\" {
            return ControlFlow::Continue(());
        }
        let text = match &**pattern {
            // Said in the query: the escape itself may be escaped.
            Expr::Value(value) => value.value.clone().into_string().map(|text| {
                let quoted = backslashed(&text, &escape).replace('\'', "''");
                format!("'{quoted}'")
            }),
            _ => None,
        };
        let text = text.unwrap_or_else(|| {
            let doubled = format!("replace(({pattern}), '\\', '\\\\')");
            let quoted = escape.replace('\'', "''");
            if escape.is_empty() { doubled } else { format!("replace({doubled}, '{quoted}', '\\')") }
        });
        let parsed = grammar::parser(&text).and_then(|mut parser| parser.parse_expr());
        match parsed {
            Ok(replaced) => **pattern = replaced,
            Err(err) => return ControlFlow::Break(syntax(&err)),
        }
        ControlFlow::Continue(())
    });
    match escaped {
        ControlFlow::Break(err) => Err(err),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// A pattern that escapes with a backslash in place of `escape`, which may be nothing.
fn backslashed(pattern: &str, escape: &str) -> String {
    let (mut out, mut chars) = (String::new(), pattern.chars().peekable());
    while let Some(c) = chars.next() {
        if escape.starts_with(c) {
            match chars.next() {
                Some(next @ ('%' | '_' | '\\')) => out.extend(['\\', next]),
                Some(next) => out.push(next),
                None => out.push(c),
            }
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
    out
}

/// What to say instead of a syntax error about a statement that uses MATCH_RECOGNIZE, which the grammar lacks.
fn patterns_are_missing(text: &str) -> Option<Error> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().ok()?;
    let named = |token: &Token| match token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case("match_recognize"),
        _ => false,
    };
    tokens.iter().any(named).then(|| {
        Error::new(Kind::NotSupported, "MATCH_RECOGNIZE is not supported").with_hint(
            "What follows what within some time can be found by joining two streams on a key with a bound on their \
             times, or two derived streams; counts per key and window with HAVING find repetitions.",
        )
    })
}

/// The texts between top-level semicolons (not those in strings or comments), without the empty ones.
fn pieces(sql: &str) -> Result<Vec<&str>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|e| Error::new(Kind::Syntax, format!("syntax error: {e}")))?;
    check_depth(&tokens)?;
    let lines = line_starts(sql);
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut content = false;
    for token in &tokens {
        match &token.token {
            Token::SemiColon => {
                let end = byte_of(sql, &lines, token.span.start);
                if content {
                    pieces.push(sql[start..end].trim());
                }
                start = end + 1;
                content = false;
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => content = true,
        }
    }
    if content {
        pieces.push(sql[start..].trim());
    }
    Ok(pieces)
}

/// How deep the tree of a statement may be: whoever walks over it, or gives it up, goes down the stack.
const MAX_DEPTH: usize = 1_000;

/// Fails for statements whose tree would be too deep. Each open bracket is a step down, and so is each operator behind
/// another: `1 + 1 + 1` is a sum in a sum. Commas end that.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    // Operators that are words, those that join whole queries, which a comma does not end, and the parts of CASE, which stand
    // beside each other.
    const WORDS: [&str; 12] =
        ["and", "or", "not", "is", "in", "like", "ilike", "between", "collate", "at", "any", "all"];
    const SETS: [&str; 4] = ["union", "except", "intersect", "join"];
    const PARTS: [&str; 3] = ["when", "then", "else"];
    /// What is open: a bracket or a CASE.
    #[derive(Default)]
    struct Open {
        is_case: bool,
        /// Queries that were joined.
        sets: usize,
        /// Operators since the last comma or part.
        operators: usize,
    }
    let (mut open, mut depth): (Vec<Open>, usize) = (vec![Open::default()], 0);
    let close = |open: &mut Vec<Open>, depth: &mut usize| {
        if let Some(closed) = open.pop() {
            *depth -= 1 + closed.sets + closed.operators;
        }
    };
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => {
                open.push(Open::default());
                depth += 1;
            }
            Token::RParen | Token::RBracket => {
                // A CASE without an end is wrong, which is told later.
                while open.len() > 1 && open.last().is_some_and(|last| last.is_case) {
                    close(&mut open, &mut depth);
                }
                if open.len() > 1 {
                    close(&mut open, &mut depth);
                }
            }
            Token::Comma => {
                let Some(last) = open.last_mut() else { continue };
                depth -= std::mem::take(&mut last.operators);
            }
            Token::SemiColon => (open, depth) = (vec![Open::default()], 0),
            Token::Word(word) if word.quote_style.is_none() => {
                let is = |known: &&str| word.value.eq_ignore_ascii_case(known);
                let Some(last) = open.last_mut() else { continue };
                if is(&"case") {
                    open.push(Open { is_case: true, ..Open::default() });
                    depth += 1;
                } else if is(&"end") && last.is_case {
                    close(&mut open, &mut depth);
                } else if PARTS.iter().any(&is) && last.is_case {
                    depth -= std::mem::take(&mut last.operators);
                } else if SETS.iter().any(&is) {
                    last.sets += 1;
                    depth += 1;
                } else if WORDS.iter().any(&is) {
                    last.operators += 1;
                    depth += 1;
                }
            }
            Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_) | Token::EOF => {}
            Token::Period => {}
            // Operators, and a few others that do not come in numbers.
            _ => {
                let Some(last) = open.last_mut() else { continue };
                last.operators += 1;
                depth += 1;
            }
        }
        if depth > MAX_DEPTH {
            return Err(Error::new(Kind::TooComplex, "the statement is nested too deeply")
                .with_detail(format!("It has more than {MAX_DEPTH} operators and brackets in each other."))
                .with_hint("Many values stand in a list: x IN (1, 2, …). Many steps can stand in several views."));
        }
    }
    Ok(())
}

/// The text in the parser's grammar: see [`window::plain`].
fn plain(text: &str) -> Result<Cow<'_, str>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .map_err(|e| Error::new(Kind::Syntax, format!("syntax error: {e}")))?;
    let lines = line_starts(text);
    let bytes = |token: &TokenWithSpan| byte_of(text, &lines, token.span.start)..byte_of(text, &lines, token.span.end);
    Ok(window::plain(text, &tokens, &bytes))
}

/// `current_user` as a call that the compatibility layer leaves alone: it would make `session_user` of it, which is
/// another one after SET ROLE.
fn users(text: Cow<'_, str>) -> Result<Cow<'_, str>> {
    const WORD: &str = "current_user";
    let is_there =
        |text: &str| text.as_bytes().windows(WORD.len()).any(|part| part.eq_ignore_ascii_case(WORD.as_bytes()));
    if !is_there(&text) {
        return Ok(text);
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, &text)
        .tokenize_with_location()
        .map_err(|e| Error::new(Kind::Syntax, format!("syntax error: {e}")))?;
    let lines = line_starts(&text);
    let (mut out, mut done) = (String::new(), 0);
    // What stands before: behind AS it is a name, and behind a period a column.
    let mut before = &Token::EOF;
    let mut solid = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).peekable();
    while let Some(token) = solid.next() {
        let is_word = |token: &Token, text: &str| matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text));
        let is_name = is_word(before, "as") || *before == Token::Period;
        let is_called = solid.peek().is_some_and(|next| next.token == Token::LParen);
        if is_word(&token.token, WORD) && !is_name && !is_called {
            let start = byte_of(&text, &lines, token.span.start);
            out += &text[done..start];
            out += &format!("{CURRENT_USER}()");
            done = start + WORD.len();
        }
        before = &token.token;
    }
    out += &text[done..];
    Ok(Cow::Owned(out))
}

/// Words that PostgreSQL reserves for who is connected and the grammar takes for columns, as calls.
pub fn registers(statement: &mut sqlparser::ast::Statement) {
    let _ = visit_expressions_mut(statement, |expr| {
        let Expr::Identifier(ident) = expr else { return ControlFlow::<()>::Continue(()) };
        let name = folded(ident);
        if ident.quote_style.is_none() && ["current_role", "system_user"].contains(&name.as_str()) {
            let call = grammar::parser(&format!("{name}()"));
            if let Ok(call) = call.and_then(|mut parser| parser.parse_expr()) {
                *expr = call;
            }
        }
        ControlFlow::Continue(())
    });
}

/// Columns of one list behind SELECT, as in PostgreSQL: naming them takes a time that grows with their square.
const MAX_COLUMNS: usize = 1664;

/// Fails for statements with a list behind SELECT that is too long.
pub fn check_columns(statement: &sqlparser::ast::Statement) -> Result<()> {
    match statement.visit(&mut Columns) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => {
            Err(Error::new(Kind::TooComplex, format!("target lists can have at most {MAX_COLUMNS} entries"))
                .with_hint("Many values stand in rows: VALUES (1), (2), …."))
        }
    }
}

/// Stops at a list that is too long.
struct Columns;

impl Visitor for Columns {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match query.body.as_ref() {
            SetExpr::Select(select) if select.projection.len() > MAX_COLUMNS => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

pub fn line_starts(sql: &str) -> Vec<usize> {
    std::iter::once(0).chain(sql.match_indices('\n').map(|(i, _)| i + 1)).collect()
}

/// The byte that a tokenizer's location (line and column in characters, from 1) means.
pub fn byte_of(sql: &str, lines: &[usize], at: Location) -> usize {
    let line = lines.get((at.line as usize).saturating_sub(1)).copied().unwrap_or(sql.len());
    let ahead = (at.column as usize).saturating_sub(1);
    sql[line..].char_indices().nth(ahead).map_or(sql.len(), |(i, _)| line + i)
}

/// The part of `text` that `parser` (made from it) has not read yet.
pub fn rest<'a>(parser: &Parser<'_>, text: &'a str) -> &'a str {
    let next = parser.peek_token_ref();
    if next.token == Token::EOF { "" } else { &text[byte_of(text, &line_starts(text), next.span.start)..] }
}

/// Where in `text` the token begins that `parser` (made from it) has read last.
pub fn last_token(parser: &Parser<'_>, text: &str) -> usize {
    byte_of(text, &line_starts(text), parser.get_current_token().span.start)
}

/// The command of our dialect that `text` is, if it is one, and its row in the table. A statement's parser may have read some words before it finds
/// that they begin another statement.
pub fn ours(text: &str) -> Result<Option<(&'static Spec, Arc<dyn Command>)>> {
    let mut parser = self::parser(text)?;
    for spec in STATEMENTS {
        if let Some(command) = (spec.parse)(&mut parser, text)? {
            if parser.peek_token_ref().token != Token::EOF {
                let found = parser.peek_token_ref().to_string();
                return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{found}\""))
                    .with_hint(format!("The form is: {}", spec.syntax)));
            }
            return Ok(Some((spec, command)));
        }
        if parser.index() > 0 {
            parser = self::parser(text)?;
        }
    }
    Ok(None)
}

/// A parser over `text` in PostgreSQL's dialect.
pub fn parser(text: &str) -> Result<Parser<'static>> {
    grammar::parser(&plain(text)?).map_err(|e| syntax(&e))
}

/// A syntax error in PostgreSQL's words.
pub fn syntax(err: &ParserError) -> Error {
    let text = match err {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => return grammar::too_complex(),
    };
    Error::new(Kind::Syntax, format!("syntax error: {text}"))
}

/// Whether the next words are these (in any case); if so, they are consumed.
pub fn words(parser: &mut Parser<'_>, words: &[&str]) -> bool {
    let matches = words.iter().enumerate().all(|(i, word)| {
        matches!(&parser.peek_nth_token_ref(i).token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    });
    if matches {
        words.iter().for_each(|_| drop(parser.next_token()));
    }
    matches
}

/// A relation's name: one identifier, folded to lower case unless quoted; `public.` may stand before it.
pub fn relation_name(parser: &mut Parser<'_>) -> Result<String> {
    let name = parser.parse_object_name(false).map_err(|e| syntax(&e))?;
    let parts: Vec<_> = name.0.iter().filter_map(|p| p.as_ident()).collect();
    match parts.as_slice() {
        [one] => Ok(folded(one)),
        [schema, one] if schema.value.eq_ignore_ascii_case(crate::engine::PUBLIC) => Ok(folded(one)),
        _ => Err(Error::new(Kind::NotSupported, format!("relations are created in schema public, not \"{name}\""))),
    }
}

/// PostgreSQL folds unquoted identifiers to lower case.
pub fn folded(ident: &sqlparser::ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// `(name = value, …)`: values are strings, numbers, words or booleans.
pub fn option_list(parser: &mut Parser<'_>) -> Result<Vec<(String, String)>> {
    let mut options = Vec::new();
    parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
    if parser.consume_token(&Token::RParen) {
        return Ok(options);
    }
    loop {
        let mut name = folded(&parser.parse_identifier().map_err(|e| syntax(&e))?);
        while parser.consume_token(&Token::Period) {
            name = format!("{name}.{}", folded(&parser.parse_identifier().map_err(|e| syntax(&e))?));
        }
        parser.expect_token(&Token::Eq).map_err(|e| syntax(&e))?;
        options.push((name, option_value(parser)?));
        if parser.consume_token(&Token::Comma) {
            continue;
        }
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        return Ok(options);
    }
}

/// `INTERVAL '5 seconds'` or just `'5 seconds'`, in microseconds. Months and years are refused: their length varies.
pub fn interval(parser: &mut Parser<'_>) -> Result<Micros> {
    let expr = parser.parse_expr().map_err(|e| syntax(&e))?;
    let micros = interval_of(&expr)?;
    micros.ok_or_else(|| {
        Error::new(Kind::Syntax, format!("syntax error: {expr} is not an interval"))
            .with_hint("Write it like INTERVAL '5 seconds'.")
    })
}

/// The same of an expression; `None` when it is none.
pub fn interval_of(expr: &Expr) -> Result<Option<Micros>> {
    let (value, unit) = match expr {
        Expr::Interval(interval) => (interval.value.as_ref(), interval.leading_field.as_ref()),
        other => (other, None),
    };
    let Expr::Value(value) = value else { return Ok(None) };
    let Some(mut words) = value.value.clone().into_string() else { return Ok(None) };
    if let Some(unit) = unit {
        words = format!("{words} {unit}");
    }
    Ok(Some(parse_duration(&words)?.as_micros() as Micros))
}

/// The value of an option: a text, a number, a word, with or without INTERVAL before it.
pub fn option_value(parser: &mut Parser<'_>) -> Result<String> {
    if parser.parse_keyword(Keyword::INTERVAL) {
        return option_value(parser);
    }
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text)
        | Token::EscapedStringLiteral(text)
        | Token::NationalStringLiteral(text)
        | Token::Number(text, _) => Ok(text),
        Token::DollarQuotedString(text) => Ok(text.value),
        Token::Word(word) => Ok(word.value),
        other => Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{other}\""))
            .with_hint("An option's value is a quoted text, a number or a word.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_in_words_that_the_grammar_lacks() {
        let same = |text: &str| parse(text).unwrap()[0].to_string();
        let text = "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, NOT DEFERRABLE";
        assert_eq!(same(text), "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY");
        assert_eq!(same("BEGIN DEFERRABLE"), "BEGIN");
        for text in ["PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'", "rollback  prepared 'x'"] {
            assert_eq!(parse(text).unwrap_err().kind(), Kind::NotSupported, "{text}");
        }
    }

    #[test]
    fn statements_are_cut_at_top_level_semicolons_only() {
        let sql = "SELECT ';' -- ; é\n; /* ; */ ;\n SELECT $$;$$ AS ü;FLUSH";
        assert_eq!(
            pieces(sql).unwrap(),
            ["SELECT ';' -- ; é", "/* ; */ ;\n SELECT $$;$$ AS ü".split_once(";\n ").unwrap().1, "FLUSH"]
        );
    }

    #[test]
    fn depth_is_bounded_and_length_is_not() {
        let deep = |sql: &str| pieces(sql).err().map(|err| err.kind());
        let many = |one: &str| one.repeat(MAX_DEPTH + 1);
        for sql in [
            format!("SELECT {}", many("(")),
            format!("SELECT 1{}", many(" + 1")),
            format!("SELECT true{}", many(" and true")),
            format!("SELECT {}true", many("NOT ")),
            format!("SELECT 1{}", many("::int")),
            format!("SELECT 1, 2{}", many(" UNION SELECT 1, 2")),
        ] {
            assert_eq!(deep(&sql), Some(Kind::TooComplex), "{}", &sql[..40]);
        }
        for sql in [
            format!("SELECT x IN (1{})", many(", 1")),
            format!("INSERT INTO t VALUES (1, -1){}", many(", (1, 2 + 3)")),
            many("SELECT (1 + 1) * 2;"),
            format!("SELECT 1{}", many(", a + b - (c)")),
            "SELECT ')' || ']))'".to_string(),
        ] {
            assert_eq!(deep(&sql), None, "{}", &sql[..19]);
        }
    }

    #[test]
    fn current_user_is_not_taken_for_another() {
        let of = |text: &str| users(Cow::Borrowed(text)).unwrap().replace(CURRENT_USER, "*");
        assert_eq!(of("SELECT Current_User, é, current_user::text"), "SELECT *(), é, *()::text");
        for same in
            ["SELECT 1 AS current_user", "SELECT t.current_user, 'current_user', \"current_user\"", "SELECT user"]
        {
            assert_eq!(of(same), same);
        }
    }

    #[test]
    fn option_values_come_in_all_spellings() {
        let mut p = parser("(path = '/var/log/*.log', start = end, n = 5, d = INTERVAL '5 seconds')").unwrap();
        let options = option_list(&mut p).unwrap();
        let values: Vec<&str> = options.iter().map(|(_, v)| v.as_str()).collect();
        assert_eq!(values, ["/var/log/*.log", "end", "5", "5 seconds"]);
    }
}
