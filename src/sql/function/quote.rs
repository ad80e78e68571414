//! Texts as parts of statements: `quote_literal` (PostgreSQL manual, String Functions). Tools build statements with it;
//! `quote_ident` comes with the system catalog.

use arrow::array::ArrayRef;
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Texts, Type, unchecked};
use crate::catalog::postgres::format::literal;

pub static SPECS: &[Scalar] = &[Scalar {
    name: "quote_literal",
    syntax: "quote_literal(text)",
    summary: "a text as a literal of SQL",
    sample: ("quote_literal('it''s')", "'it''s'"),
    forms: &[&[Type::Text]],
    result: Type::Text,
    check: unchecked,
    rows: quoted,
}];

fn quoted(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let values = arguments.text(0)?;
    let mut texts = Texts::new(arguments.rows);
    for row in 0..arguments.rows {
        match values.get(row) {
            Some(text) => texts.push(&literal(text)),
            None => texts.push_null(),
        }
    }
    Ok(texts.finish())
}
