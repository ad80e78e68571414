//! Where in a statement an error is, as PostgreSQL tells it: the place of the word or literal that the error names. Errors
//! do not know it, as names are resolved in other crates; the text is looked at again when there is one.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::parser::{byte_of, line_starts};
use crate::error::{Error, Kind};

/// The error with its place in `text`, if that can be told.
pub fn placed(err: Error, text: &str) -> Error {
    if err.position().is_some() {
        return err;
    }
    match byte(&err, text) {
        // In characters, from 1.
        Some(byte) => err.with_position(text[..byte].chars().count() as u32 + 1),
        None => err,
    }
}

fn byte(err: &Error, text: &str) -> Option<usize> {
    let message = err.message();
    let quoted = || message.split('"').nth(1);
    let tokens = || -> Option<Vec<TokenWithSpan>> {
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().ok()?;
        Some(tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect())
    };
    let start = |token: &TokenWithSpan| byte_of(text, &line_starts(text), token.span.start);
    let is = |token: &TokenWithSpan, name: &str| match &token.token {
        Token::Word(word) if word.quote_style.is_some() => word.value == name,
        Token::Word(word) => word.value.eq_ignore_ascii_case(name),
        _ => false,
    };
    match err.kind() {
        Kind::Syntax => {
            if let Some((_, place)) = message.split_once(" at Line: ") {
                let (line, column) = place.split_once(", Column: ")?;
                let column: String = column.chars().take_while(char::is_ascii_digit).collect();
                let location =
                    sqlparser::tokenizer::Location { line: line.parse().ok()?, column: column.parse().ok()? };
                return Some(byte_of(text, &line_starts(text), location));
            }
            message.contains("found: EOF").then_some(text.trim_end().len())
        }
        Kind::UndefinedColumn | Kind::AmbiguousColumn | Kind::Grouping => {
            let name = quoted()?.rsplit('.').next()?;
            let tokens = tokens()?;
            let at = tokens.iter().position(|token| is(token, name))?;
            // From its qualifier on.
            let qualified = at >= 2 && tokens[at - 1].token == Token::Period;
            Some(start(&tokens[if qualified { at - 2 } else { at }]))
        }
        Kind::UndefinedTable => {
            let name = quoted()?.rsplit('.').next()?;
            let tokens = tokens()?;
            const BEFORE: [&str; 12] =
                ["from", "join", "into", "table", "view", "update", "only", "copy", "exists", "to", "describe", "on"];
            let from = |at: &usize| match at.checked_sub(1).map(|before| &tokens[before].token) {
                Some(Token::Word(word)) => BEFORE.iter().any(|known| word.value.eq_ignore_ascii_case(known)),
                Some(token) => matches!(token, Token::Comma | Token::LParen | Token::Period),
                None => false,
            };
            let at = (0..tokens.len()).filter(from).find(|at| is(&tokens[*at], name))?;
            let qualified = at >= 2 && tokens[at - 1].token == Token::Period;
            Some(start(&tokens[if qualified { at - 2 } else { at }]))
        }
        Kind::UndefinedFunction => {
            let name: &str = message.strip_prefix("function ")?.split(['(', ' ']).next()?.trim_matches('"');
            let tokens = tokens()?;
            let called = |at: &usize| tokens.get(at + 1).is_some_and(|next| next.token == Token::LParen);
            let at = (0..tokens.len()).filter(called).find(|at| is(&tokens[*at], name))?;
            Some(start(&tokens[at]))
        }
        Kind::InvalidText | Kind::InvalidDatetime | Kind::DatetimeOverflow => {
            let (_, rest) = message.split_once('"')?;
            let value = rest.rsplit_once('"').map_or(rest, |(value, _)| value);
            let is_value = |token: &&TokenWithSpan| match &token.token {
                Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text == value,
                Token::DollarQuotedString(text) => text.value == value,
                _ => false,
            };
            let tokens = tokens()?;
            tokens.iter().find(is_value).map(start)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_literals_are_found() {
        let place = |kind, message: &str, text: &str| placed(Error::new(kind, message), text).position();
        let column = "column \"nope\" does not exist";
        assert_eq!(place(Kind::UndefinedColumn, column, "SELECT 'é', t.nope"), Some(13));
        assert_eq!(place(Kind::UndefinedColumn, column, "SELECT 1,\n  NOPE"), Some(13));
        assert_eq!(place(Kind::UndefinedColumn, column, "SELECT 'nope'"), None);
        assert_eq!(place(Kind::UndefinedTable, "relation \"x\" does not exist", "SELECT x FROM x"), Some(15));
        assert_eq!(place(Kind::UndefinedFunction, "function f(integer) does not exist", "SELECT f, f(1)"), Some(11));
        assert_eq!(
            place(Kind::InvalidText, "invalid input syntax for type integer: \"a\"", "SELECT 'a'::int"),
            Some(8)
        );
        assert_eq!(place(Kind::Syntax, "syntax error: x at Line: 1, Column: 3", "SE LECT"), Some(3));
        assert_eq!(place(Kind::Internal, "\"a\"", "SELECT 'a'"), None);
    }
}
