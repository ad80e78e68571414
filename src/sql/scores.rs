//! Scores in a predicate: `anomaly(requests) > 4` without `OVER`, as a rule over a view has it.
//!
//! A window function cannot stand in `WHERE`. CREATE ALERT takes a predicate over the rows of a relation, and knows what tells
//! its rows apart (`KEY`): [`hoist`] puts the calls into a query around the relation, where they are columns.
//!
//! ```text
//!     ON v WHERE anomaly(requests) > 4 AND requests > 100 KEY (host)
//!       query      SELECT *, anomaly(requests) OVER (PARTITION BY "host" ORDER BY window_start) AS _score_1 FROM "v"
//!       predicate  _score_1 > 4 AND requests > 100
//! ```

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, visit_expressions, visit_expressions_mut};

use super::function::windowed;
use crate::catalog::quoted;
use crate::error::{Error, Kind, Result};
use crate::registry::Entry;

/// The column that rows of one key are in the order of: the start of their window.
pub const ORDER: &str = "window_start";

/// How the columns that are added are called, with a number behind it.
const COLUMN: &str = "_score_";

/// What became of a predicate with scores.
#[derive(Debug, PartialEq)]
pub struct Hoisted {
    /// The columns of the relation, and the scores.
    pub query: String,
    /// The first call, as written.
    pub call: String,
}

/// Replaces the calls of our window functions without `OVER` in `predicate` by columns, and gives the query that has these
/// beside those of `relation` (what stands behind FROM). `None`, and nothing is changed, when there are no such calls. Fails
/// when one stands within another.
pub fn hoist(relation: &str, predicate: &mut Expr, key: &[String]) -> Result<Option<Hoisted>> {
    let mut calls: Vec<String> = Vec::new();
    let mut nested = None;
    let _ = visit_expressions_mut(predicate, |expr| {
        if !is_score(expr) {
            return ControlFlow::<()>::Continue(());
        }
        // Those within it were replaced before it.
        let holds = visit_expressions(&*expr, |part| match part {
            Expr::Identifier(name) if name.value.starts_with(COLUMN) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        let text = expr.to_string();
        if holds.is_break() {
            nested.get_or_insert(text.clone());
        }
        // The same call twice is one column.
        let known = calls.iter().position(|known| *known == text);
        let number = known.unwrap_or_else(|| {
            calls.push(text);
            calls.len() - 1
        });
        *expr = Expr::Identifier(Ident::new(format!("{COLUMN}{}", number + 1)));
        ControlFlow::Continue(())
    });
    let Some(call) = calls.first().cloned() else { return Ok(None) };
    if nested.is_some() {
        return Err(Error::new(Kind::NotSupported, format!("the score {call} cannot stand within another one"))
            .with_hint(format!(
                "Compute it in the query: ON (SELECT *, {call} OVER (ORDER BY {ORDER}) AS score FROM …) WHERE …."
            )));
    }
    let partition = match key {
        [] => String::new(),
        key => format!("PARTITION BY {} ", key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
    };
    let column =
        |(i, call): (usize, &String)| format!(", {call} OVER ({partition}ORDER BY {ORDER}) AS {COLUMN}{}", i + 1);
    let columns: String = calls.iter().enumerate().map(column).collect();
    Ok(Some(Hoisted { query: format!("SELECT *{columns} FROM {relation}"), call }))
}

/// A call of one of our window functions without OVER.
fn is_score(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(call) if call.over.is_none() && is_windowed(&call.name.to_string()))
}

fn is_windowed(name: &str) -> bool {
    windowed().any(|function| {
        name.eq_ignore_ascii_case(function.name()) || function.aliases().iter().any(|a| name.eq_ignore_ascii_case(a))
    })
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    use super::*;

    fn hoisted(predicate: &str, key: &[&str]) -> (Option<Hoisted>, String) {
        let mut expr = Parser::new(&PostgreSqlDialect {}).try_with_sql(predicate).unwrap().parse_expr().unwrap();
        let key: Vec<String> = key.iter().map(|name| name.to_string()).collect();
        let hoisted = hoist("v", &mut expr, &key).unwrap();
        (hoisted, expr.to_string())
    }

    #[test]
    fn calls_become_columns() {
        let (found, predicate) = hoisted("anomaly(requests) > 4 AND requests > 100", &["host", "Path"]);
        let found = found.unwrap();
        assert_eq!(
            found.query,
            "SELECT *, anomaly(requests) OVER (PARTITION BY \"host\", \"Path\" ORDER BY window_start) AS _score_1 FROM v"
        );
        assert_eq!((found.call.as_str(), predicate.as_str()), ("anomaly(requests)", "_score_1 > 4 AND requests > 100"));

        let (found, predicate) = hoisted(
            "abs(Robust_ZScore(e / n, 30)) > 6 OR e > ewma_upper(e, 0.2, 3) OR robust_zscore(e) < 0 OR ewma_upper(e, 0.2, 3) = 0",
            &[],
        );
        assert_eq!(
            found.unwrap().query,
            "SELECT *, Robust_ZScore(e / n, 30) OVER (ORDER BY window_start) AS _score_1, \
             ewma_upper(e, 0.2, 3) OVER (ORDER BY window_start) AS _score_2, \
             robust_zscore(e) OVER (ORDER BY window_start) AS _score_3 FROM v"
        );
        assert_eq!(predicate, "abs(_score_1) > 6 OR e > _score_2 OR _score_3 < 0 OR _score_2 = 0");
    }

    #[test]
    fn what_has_none_stays_as_it_is() {
        for predicate in ["requests > 100", "lag(requests) OVER (ORDER BY t) > 4", "abs(requests) > 4"] {
            assert_eq!(hoisted(predicate, &["host"]), (None, predicate.to_string()));
        }
    }

    #[test]
    fn a_score_of_a_score_is_refused() {
        let text = "anomaly(abs(ewma(requests, 0.2))) > 4";
        let mut expr = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
        let err = hoist("v", &mut expr, &[]).unwrap_err();
        assert!(err.message().contains("ewma(requests, 0.2) cannot stand within another"), "{err}");
    }
}
