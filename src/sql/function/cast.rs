//! What casts call that Arrow does otherwise than PostgreSQL, or not at all: texts that become `json`, `jsonb`, `uuid`,
//! `inet`, `cidr` and `bytea`; values as text as PostgreSQL writes them; whole numbers by rounding. [`super::super::rewrite`]
//! puts the first into statements, [`Casts`] the others into plans, and with them [`arithmetic`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use bytes::BytesMut;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use super::scalar::{Arguments, Scalar, Texts, Type, unchecked};
use crate::batch::{arithmetic, text};
use crate::error::{Error, Kind, Result};
use crate::format::subtype::{Subtype, is_text};

macro_rules! reads {
    ($name:literal, $subtype:expr, $summary:literal, $sample:expr) => {
        Scalar {
            name: $name,
            syntax: concat!($name, "(text)"),
            summary: $summary,
            sample: $sample,
            forms: &[&[Type::Text]],
            result: Type::Of($subtype),
            check: |constants| match constants {
                [Some(text)] => $subtype.read(text).map(drop),
                _ => Ok(()),
            },
            rows: |arguments| read(arguments, $subtype),
        }
    };
}

pub static SPECS: &[Scalar] = &[
    reads!(
        "as_json",
        Subtype::Json,
        "what text::json calls: a JSON text, as it is",
        ("as_json('{\"a\":1}')", "{\"a\":1}")
    ),
    reads!(
        "as_jsonb",
        Subtype::Jsonb,
        "what text::jsonb calls: JSON in its one spelling",
        ("as_jsonb('{\"b\":1,\"a\":2}')", "{\"a\": 2, \"b\": 1}")
    ),
    reads!(
        "as_uuid",
        Subtype::Uuid,
        "what text::uuid calls",
        ("as_uuid('{A0EEBC999C0B4EF8BB6D6BB9BD380A11}')", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
    ),
    reads!("as_inet", Subtype::Inet, "what text::inet calls", ("as_inet('10.1.2.3/32')", "10.1.2.3")),
    reads!("as_cidr", Subtype::Cidr, "what text::cidr calls", ("as_cidr('10.1')", "10.1.0.0/16")),
    Scalar {
        name: "as_bytea",
        syntax: "as_bytea(text)",
        summary: "what text::bytea calls: bytes in hexadecimal digits behind \\x, or as text with \\ before octal digits",
        sample: (r"as_bytea('\x616263')", r"\x616263"),
        forms: &[&[Type::Any]],
        result: Type::Bytes,
        check: |constants| match constants {
            [Some(text)] => bytes_of(text).map(drop),
            _ => Ok(()),
        },
        rows: |arguments| {
            let array = arguments.array(0)?;
            if !is_text(array.data_type()) {
                return Ok(cast(&array, &DataType::Binary)?);
            }
            let array = cast(&array, &DataType::Utf8View)?;
            let mut bytes = BinaryBuilder::new();
            for text in array.as_string_view() {
                match text {
                    Some(text) => bytes.append_value(bytes_of(text)?),
                    None => bytes.append_null(),
                }
            }
            Ok(Arc::new(bytes.finish()))
        },
    },
    Scalar {
        name: "as_text",
        syntax: "as_text(value)",
        summary: "what value::text calls: the value as PostgreSQL writes it",
        sample: ("as_text(TIMESTAMPTZ '2026-01-02 03:04:05Z')", "2026-01-02 03:04:05+00"),
        forms: &[&[Type::Any]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| as_text(&arguments.array(0)?),
    },
    Scalar {
        name: "rint",
        syntax: "rint(double)",
        summary: "the nearest whole number, of two as near the even one: what double::bigint calls",
        sample: ("rint(2.5)", "2"),
        forms: &[&[Type::Double]],
        result: Type::Double,
        check: unchecked,
        rows: |arguments| {
            let array = arguments.array(0)?;
            let rounded: Float64Array =
                array.as_primitive::<Float64Type>().iter().map(|n| n.map(f64::round_ties_even)).collect();
            Ok(Arc::new(rounded))
        },
    },
];

fn function(name: &str) -> &'static Scalar {
    SPECS.iter().find(|spec| spec.name == name).expect("it is one of those above")
}

/// A call of one of them.
pub fn call(name: &str, argument: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function(name).udf()), vec![argument]))
}

fn read(arguments: &Arguments<'_>, subtype: Subtype) -> DfResult<ArrayRef> {
    let array = arguments.array(0)?;
    // A value of the type is in its spelling already; a number in jsonb may be one of another type.
    if arguments.subtype(0) == Some(subtype) {
        return Ok(array);
    }
    let array = cast(&array, &DataType::Utf8View)?;
    let array = array.as_string_view();
    let mut texts = Texts::of(array);
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.push_null();
            continue;
        }
        let whole = array.value(row);
        texts.push_part(row, whole, &subtype.read(whole)?);
    }
    Ok(texts.finish())
}

/// PostgreSQL's two spellings of `bytea`.
pub fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let wrong = |why: &str| Error::new(Kind::InvalidText, format!("invalid input syntax for type bytea: {why}"));
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = hex.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
        let digit = |c: &u8| char::from(*c).to_digit(16);
        if let Some(c) = digits.iter().find(|c| digit(c).is_none()) {
            let message = format!("invalid hexadecimal digit: \"{}\"", char::from(*c));
            return Err(Error::new(Kind::InvalidParameter, message));
        }
        if digits.len() % 2 == 1 {
            let message = "invalid hexadecimal data: odd number of digits";
            return Err(Error::new(Kind::InvalidParameter, message));
        }
        let byte = |pair: &[u8]| pair.iter().fold(0, |byte, c| byte << 4 | digit(c).unwrap_or(0) as u8);
        return Ok(digits.chunks(2).map(byte).collect());
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                out.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            (b'\\', _) => return Err(wrong(&format!("\"{text}\""))),
            _ => {
                out.push(*first);
                after
            }
        };
    }
    Ok(out)
}

/// Values as PostgreSQL writes them.
pub fn as_text(array: &ArrayRef) -> DfResult<ArrayRef> {
    if is_text(array.data_type()) {
        return Ok(cast(array, &DataType::Utf8View)?);
    }
    // A truth value is `true` where it becomes a text, and `t` where it is shown.
    if *array.data_type() == DataType::Boolean {
        return Ok(cast(array, &DataType::Utf8View)?);
    }
    let (write, nulls) = (text::writer(array)?, array.logical_nulls());
    let mut texts = Texts::new(array.len());
    let mut bytes = BytesMut::new();
    for row in 0..array.len() {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            texts.push_null();
            continue;
        }
        bytes.clear();
        write(row, &mut bytes);
        texts.push(&String::from_utf8_lossy(&bytes));
    }
    Ok(texts.finish())
}

/// Lets casts and arithmetic in plans do as PostgreSQL's: see the file header. Runs when the types of all expressions are
/// settled.
#[derive(Debug)]
pub struct Casts;

impl AnalyzerRule for Casts {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        let analyzed = plan.transform_up_with_subqueries(|node| {
            if matches!(node, LogicalPlan::TableScan(_)) {
                return Ok(Transformed::no(node));
            }
            let schema = merge_schema(&node.inputs());
            // A column keeps its name.
            let names = NamePreserver::new(&node);
            let rewritten = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|expr| replaced(expr, &schema))?;
                Ok(changed.update_data(|expr| name.restore(expr)))
            })?;
            if rewritten.transformed { rewritten.map_data(LogicalPlan::recompute_schema) } else { Ok(rewritten) }
        })?;
        Ok(analyzed.data)
    }

    fn name(&self) -> &str {
        "casts_of_postgres"
    }
}

fn replaced(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let Expr::Cast(cast) = &expr else { return arithmetic::checked(expr, schema) };
    let Ok((_, from)) = cast.expr.to_field(schema) else { return Ok(Transformed::no(expr)) };
    let to = cast.field.data_type();
    let name = match (from.data_type(), to) {
        // A text of another kind is only a text. Its metadata would go on otherwise.
        (given, wanted) if is_text(given) && is_text(wanted) && Subtype::of(&from).is_some() => "as_text",
        (DataType::Boolean | DataType::Null, _) => return Ok(Transformed::no(expr)),
        (given, wanted) if is_text(wanted) && is_written_otherwise(given) => "as_text",
        (DataType::Float32 | DataType::Float64, wanted) if wanted.is_integer() => "rint",
        _ => return Ok(Transformed::no(expr)),
    };
    // Twice would be once too often: plans may be analyzed again.
    if matches!(cast.expr.as_ref(), Expr::ScalarFunction(inner) if inner.func.name() == name) {
        return Ok(Transformed::no(expr));
    }
    let Expr::Cast(Cast { expr: inner, field }) = expr else { unreachable!("it is a cast") };
    let called = call(name, if name == "rint" { Expr::Cast(Cast::new(inner, DataType::Float64)) } else { *inner });
    let called = match (name, field.data_type()) {
        ("as_text", DataType::Utf8View) => called,
        _ => Expr::Cast(Cast::new(Box::new(called), field.data_type().clone())),
    };
    Ok(Transformed::yes(called))
}

/// Whether Arrow writes values of the type in another way.
fn is_written_otherwise(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Timestamp(..)
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Interval(_)
        | DataType::Duration(_)
        | DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Struct(_) => true,
        DataType::Dictionary(_, of) => is_written_otherwise(of),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_both_spellings() {
        for (text, expected) in [
            ("\\x6162", &b"ab"[..]),
            ("\\x 61 62", b"ab"),
            ("abc", b"abc"),
            ("a\\000b", b"a\0b"),
            ("a\\\\b", b"a\\b"),
            ("", b""),
        ] {
            assert_eq!(bytes_of(text).unwrap(), expected, "{text}");
        }
        for text in ["\\xzz", "\\x1", "a\\b", "\\"] {
            assert!(bytes_of(text).is_err(), "{text}");
        }
    }
}
