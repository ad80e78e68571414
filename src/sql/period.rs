//! `period_start()` and `period_end()`: what a report is about. They are no functions but stand for two constants, which are
//! filled in each time before its queries are planned: so bounds are pushed down like any others.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Function, FunctionArguments, visit_expressions_mut};
use sqlparser::tokenizer::Token;

use super::parser;
use crate::error::{Error, Kind, Result};
use crate::notify::time_text;
use crate::time::Micros;

/// Where a period begins, and where it ends; the end is not part of it.
pub const START: &str = "period_start";
pub const END: &str = "period_end";

/// A query with the bounds of a period filled in, and whether it has any.
pub fn fill(query: &str, start: Micros, end: Micros) -> Result<(String, bool)> {
    let mut parser = parser::parser(query)?;
    let mut query = parser.parse_query().map_err(|err| parser::syntax(&err))?;
    if parser.peek_token_ref().token != Token::EOF {
        return Err(Error::new(Kind::Syntax, format!("syntax error at or near \"{}\"", parser.peek_token_ref())));
    }
    let (start, end) = (moment(start)?, moment(end)?);
    let mut found = false;
    let _ = visit_expressions_mut(&mut query, |expr| {
        let bound = match expr {
            Expr::Function(call) if is(call, START) => &start,
            Expr::Function(call) if is(call, END) => &end,
            _ => return ControlFlow::<()>::Continue(()),
        };
        (*expr, found) = (bound.clone(), true);
        ControlFlow::Continue(())
    });
    Ok((query.to_string(), found))
}

fn is(call: &Function, name: &str) -> bool {
    let is_name = match call.name.0.as_slice() {
        [part] => part.as_ident().is_some_and(|ident| parser::folded(ident) == name),
        _ => false,
    };
    is_name && matches!(&call.args, FunctionArguments::List(list) if list.args.is_empty())
}

fn moment(time: Micros) -> Result<Expr> {
    let text = format!("CAST('{}' AS TIMESTAMPTZ)", time_text(time));
    parser::parser(&text)?.parse_expr().map_err(|err| parser::syntax(&err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_filled_in_wherever_an_expression_stands() {
        let query = "SELECT 'period_start()' AS s, Period_End() - PERIOD_START() AS i
                     FROM TUMBLE(t, ts, INTERVAL '1 hour') WHERE ts >= period_start() AND x IN (SELECT period_end(1) FROM u WHERE ts < period_end())";
        let (text, found) = fill(query, 0, 3_600_000_000).unwrap();
        let (start, end) =
            ("CAST('1970-01-01T00:00:00Z' AS TIMESTAMPTZ)", "CAST('1970-01-01T01:00:00Z' AS TIMESTAMPTZ)");
        assert!(found);
        assert_eq!(text.matches(start).count(), 2, "{text}");
        assert_eq!(text.matches(end).count(), 2, "{text}");
        assert!(text.contains("'period_start()'") && text.contains("period_end(1)"), "{text}");
        let (text, found) = fill("SELECT \"period_start\" FROM t", 0, 1).unwrap();
        assert_eq!((text.as_str(), found), ("SELECT \"period_start\" FROM t", false));
        assert!(fill("FLUSH", 0, 1).is_err());
    }
}
