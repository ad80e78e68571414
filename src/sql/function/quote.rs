//! Values as parts of statements: `quote_literal` and `quote_nullable` (PostgreSQL manual, String Functions). Tools build
//! statements with them; `quote_ident` comes with the system catalog.

use arrow::array::{Array, ArrayRef, AsArray};
use datafusion::common::Result as DfResult;

use super::cast::as_text;
use super::scalar::{Arguments, Scalar, Type, texts, unchecked};
use crate::catalog::postgres::format::literal;

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "quote_literal",
        syntax: "quote_literal(value)",
        summary: "a value as a literal of SQL",
        sample: ("quote_literal('it''s')", "'it''s'"),
        forms: &[&[Type::Any]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| quoted(arguments, None),
    },
    Scalar {
        name: "quote_nullable",
        syntax: "quote_nullable(value)",
        summary: "the same, and of NULL the word",
        sample: ("quote_nullable(NULL)", "NULL"),
        forms: &[&[Type::Any]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| quoted(arguments, Some("NULL")),
    },
];

fn quoted(arguments: &Arguments<'_>, null: Option<&str>) -> DfResult<ArrayRef> {
    let values = as_text(&arguments.array(0)?)?;
    let values = values.as_string_view();
    texts(arguments.rows, |row| match values.is_valid(row) {
        true => Ok(Some(literal(values.value(row)))),
        false => Ok(null.map(str::to_string)),
    })
}
