//! Scores in a predicate: `anomaly(requests) > 4` without `OVER`, as a rule over a view has it.
//!
//! A window function cannot stand in `WHERE`. Whoever takes a predicate over the rows of a relation, and knows what tells its
//! rows apart (the `KEY` of an alert), has [`hoist`] put the calls into a query around the relation, where they are columns:
//!
//! ```text
//!     ON v WHERE anomaly(requests) > 4 AND requests > 100 KEY (host)
//!       relation   (SELECT *, anomaly(requests) OVER (PARTITION BY host ORDER BY window_start) AS _score_1 FROM v)
//!       predicate  _score_1 > 4 AND requests > 100
//! ```

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, visit_expressions_mut};

use super::function::windowed;
use crate::registry::Entry;

/// How the columns that are added are called, with a number behind it.
pub const COLUMN: &str = "_score_";

/// Replaces the calls of our window functions without `OVER` in `predicate` by columns, and gives the query that has these
/// beside those of `relation` (a name, or a query in parentheses with an alias), in parentheses. `None`, and nothing is
/// changed, when there are no such calls. Rows of one key are in the order of `order`, the start of their window.
pub fn hoist(relation: &str, predicate: &mut Expr, key: &[Ident], order: &Ident) -> Option<String> {
    let mut calls: Vec<String> = Vec::new();
    let _ = visit_expressions_mut(predicate, |expr| {
        if let Expr::Function(call) = expr
            && call.over.is_none()
            && is_windowed(&call.name.to_string())
        {
            let text = call.to_string();
            // The same call twice is one column.
            let known = calls.iter().position(|known| *known == text);
            let number = known.unwrap_or_else(|| {
                calls.push(text);
                calls.len() - 1
            });
            *expr = Expr::Identifier(Ident::new(format!("{COLUMN}{}", number + 1)));
        }
        ControlFlow::<()>::Continue(())
    });
    if calls.is_empty() {
        return None;
    }
    let partition = match key {
        [] => String::new(),
        key => format!("PARTITION BY {} ", key.iter().map(Ident::to_string).collect::<Vec<_>>().join(", ")),
    };
    let column =
        |(i, call): (usize, &String)| format!(", {call} OVER ({partition}ORDER BY {order}) AS {COLUMN}{}", i + 1);
    let columns: String = calls.iter().enumerate().map(column).collect();
    Some(format!("(SELECT *{columns} FROM {relation})"))
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

    fn hoisted(predicate: &str, key: &[&str]) -> (Option<String>, String) {
        let mut expr = Parser::new(&PostgreSqlDialect {}).try_with_sql(predicate).unwrap().parse_expr().unwrap();
        let key: Vec<Ident> = key.iter().map(|name| Ident::new(*name)).collect();
        let query = hoist("v", &mut expr, &key, &Ident::new("window_start"));
        (query, expr.to_string())
    }

    #[test]
    fn calls_become_columns() {
        let (query, predicate) = hoisted("anomaly(requests) > 4 AND requests > 100", &["host", "path"]);
        assert_eq!(
            query.unwrap(),
            "(SELECT *, anomaly(requests) OVER (PARTITION BY host, path ORDER BY window_start) AS _score_1 FROM v)"
        );
        assert_eq!(predicate, "_score_1 > 4 AND requests > 100");

        let (query, predicate) = hoisted(
            "abs(Robust_ZScore(e / n, 30)) > 6 OR e > ewma_upper(e, 0.2, 3) OR robust_zscore(e) < 0 OR ewma_upper(e, 0.2, 3) = 0",
            &[],
        );
        assert_eq!(
            query.unwrap(),
            "(SELECT *, Robust_ZScore(e / n, 30) OVER (ORDER BY window_start) AS _score_1, \
             ewma_upper(e, 0.2, 3) OVER (ORDER BY window_start) AS _score_2, \
             robust_zscore(e) OVER (ORDER BY window_start) AS _score_3 FROM v)"
        );
        assert_eq!(predicate, "abs(_score_1) > 6 OR e > _score_2 OR _score_3 < 0 OR _score_2 = 0");
    }

    #[test]
    fn what_has_none_stays_as_it_is() {
        for predicate in ["requests > 100", "lag(requests) OVER (ORDER BY t) > 4", "abs(requests) > 4"] {
            assert_eq!(hoisted(predicate, &["host"]), (None, predicate.to_string()));
        }
    }
}
