//! PostgreSQL's grammar, as the parser has it, but bounded: some of its rules are tried and, where they do not fit, what
//! was read is read again by another rule. In each other they double with each level.
//!
//! Arguments of functions are such a rule (`json_object(a || 'b' : 1)`, which is not in the dialect): here the name of an
//! argument is a name. For all others, and for what follows a mistake, a text has so many steps ([`STEPS`]).

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{Expr, Statement};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Kind, Result};
use crate::task;

#[derive(Debug)]
struct Grammar;

/// Expressions that may be begun for each byte of a text, on top of some.
const STEPS: usize = 32;
const SOME: usize = 100_000;

/// Tokens that may be read by the grammar of the catalog's statements, which reads arguments twice.
const MAX_READ: u64 = 1 << 20;

thread_local! {
    /// Steps that are left to the text that is parsed.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A parser over a text.
pub fn parser(text: &str) -> std::result::Result<Parser<'static>, ParserError> {
    allow(text.len());
    Parser::new(&Grammar).try_with_sql(text)
}

/// The statements of a text.
pub fn statements(text: &str) -> std::result::Result<Vec<Statement>, ParserError> {
    parser(text)?.parse_statements()
}

/// The statements of a text that was cut into tokens.
pub fn statements_of(tokens: Vec<TokenWithSpan>, text: &str) -> std::result::Result<Vec<Statement>, ParserError> {
    allow(text.len());
    Parser::new(&Grammar).with_tokens_with_locations(tokens).parse_statements()
}

/// Gives what is parsed on this thread from now on as many steps as so many bytes may need.
fn allow(bytes: usize) {
    LEFT.set(bytes.saturating_mul(STEPS).saturating_add(SOME));
}

/// The error of a text that is nested too deeply, whichever rule says so.
pub fn too_complex() -> Error {
    Error::new(Kind::TooComplex, "the statement is nested too deeply")
        .with_hint("Many steps can stand in several subqueries of WITH, or in several views.")
}

/// Fails for calls that are nested so deeply that reading their arguments twice takes too long.
pub fn check_calls(tokens: &[TokenWithSpan]) -> Result<()> {
    // Words before a bracket that is none of a call.
    const WORDS: [&str; 33] = [
        "all",
        "and",
        "any",
        "as",
        "between",
        "by",
        "case",
        "distinct",
        "else",
        "except",
        "exists",
        "filter",
        "from",
        "group",
        "having",
        "ilike",
        "in",
        "intersect",
        "is",
        "join",
        "like",
        "limit",
        "not",
        "on",
        "or",
        "over",
        "select",
        "some",
        "then",
        "union",
        "values",
        "when",
        "where",
    ];
    let (mut open, mut depth, mut read) = (Vec::new(), 0_u32, 0_u64);
    let mut before = &Token::EOF;
    for token in tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))) {
        match &token.token {
            Token::LParen => {
                let is_call = matches!(before, Token::Word(word) if !WORDS.iter().any(|known| word.value.eq_ignore_ascii_case(known)));
                depth += u32::from(is_call);
                open.push(is_call);
            }
            Token::RParen => depth -= u32::from(open.pop().unwrap_or(false)),
            _ => {}
        }
        read = read.saturating_add(1_u64.checked_shl(depth).unwrap_or(u64::MAX));
        before = &token.token;
    }
    if read > MAX_READ.max(tokens.len() as u64 * 16) { Err(too_complex()) } else { Ok(()) }
}

/// Methods that are PostgreSQL's.
macro_rules! of_postgres {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $result {
            PostgreSqlDialect {}.$name($($argument),*)
        })*
    };
}

impl Dialect for Grammar {
    of_postgres! {
        dialect() -> TypeId;
        identifier_quote_style(identifier: &str) -> Option<char>;
        is_delimited_identifier_start(ch: char) -> bool;
        is_identifier_start(ch: char) -> bool;
        is_identifier_part(ch: char) -> bool;
        supports_unicode_string_literal() -> bool;
        is_reserved_for_identifier(keyword: Keyword) -> bool;
        is_custom_operator_part(ch: char) -> bool;
        get_next_precedence(parser: &Parser<'_>) -> Option<std::result::Result<u8, ParserError>>;
        supports_filter_during_aggregation() -> bool;
        supports_group_by_expr() -> bool;
        prec_value(precedence: Precedence) -> u8;
        allow_extract_custom() -> bool;
        allow_extract_single_quotes() -> bool;
        supports_create_index_with_clause() -> bool;
        supports_explain_with_utility_options() -> bool;
        supports_listen_notify() -> bool;
        supports_factorial_operator() -> bool;
        supports_bitwise_shift_operators() -> bool;
        supports_comment_on() -> bool;
        supports_load_extension() -> bool;
        supports_empty_projections() -> bool;
        supports_nested_comments() -> bool;
        supports_string_escape_constant() -> bool;
        supports_numeric_literal_underscores() -> bool;
        supports_array_typedef_with_brackets() -> bool;
        supports_geometric_types() -> bool;
        supports_set_names() -> bool;
        supports_alter_column_type_using() -> bool;
        supports_notnull_operator() -> bool;
        supports_interval_options() -> bool;
        supports_insert_table_alias() -> bool;
        supports_create_table_like_parenthesized() -> bool;
        supports_select_wildcard_with_alias() -> bool;
        supports_comma_separated_trim() -> bool;
        supports_xml_expressions() -> bool;
        supports_comment_optimizer_hint() -> bool;
    }

    /// Called for each expression that is begun; it never parses one itself.
    fn parse_prefix(&self, _: &mut Parser<'_>) -> Option<std::result::Result<Expr, ParserError>> {
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        // This error alone is not taken for a reason to try another rule.
        (left == 0 || task::go_on().is_err()).then_some(Err(ParserError::RecursionLimitExceeded))
    }
}
