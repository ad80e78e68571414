//! Plans computed columns (see [`crate::batch::computed`]): an expression becomes what DataFusion evaluates.
//!
//! An expression may only depend on its row: rows are made again whenever the log is read, and have to be the same. So what
//! is planned here also depends on nothing but the CREATE TABLE statement: of a format that learns its columns, on those
//! that are declared.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::Engine;
use crate::batch::Include;
use crate::batch::arithmetic::checked;
use crate::batch::computed::Computed;
use crate::error::{Error, Kind, Result};
use crate::format::{self, Declared, Format, timestamp_type};

/// The option of formats that learn which says where the event time is.
const TIME_FIELD: &str = "time_field";

/// `name [type] AS (expression)` of CREATE TABLE.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputedDefinition {
    pub name: String,
    pub data_type: Option<DataType>,
    /// The expression, as SQL. It has no subqueries.
    pub sql: String,
}

/// The format of a stream whose event time is the column `time`, if that is named. When that is computed, lines need not
/// say a time.
pub fn build_format(
    name: &str,
    options: &[(String, String)],
    declared: &[Declared],
    computed: &[ComputedDefinition],
    time: Option<&str>,
) -> Result<Box<dyn Format>> {
    let format = format::build(name, options, declared)?;
    let is_computed = computed.iter().any(|column| Some(column.name.as_str()) == time);
    if !is_computed || !format.learns() || options.iter().any(|(name, _)| name.eq_ignore_ascii_case(TIME_FIELD)) {
        return Ok(format);
    }
    let mut options = options.to_vec();
    options.push((TIME_FIELD.to_string(), "none".to_string()));
    format::build(name, &options, declared)
}

impl Engine {
    /// Plans computed columns over the columns that a row has without them. Each may also read those before it.
    pub fn plan_computed(
        &self,
        definitions: &[ComputedDefinition],
        format: &dyn Format,
        includes: &[Include],
    ) -> Result<Vec<Computed>> {
        let own = format.schema();
        let mut known: Vec<_> = own.fields().iter().cloned().chain(includes.iter().map(Include::field)).collect();
        let mut planned = Vec::new();
        for (at, definition) in definitions.iter().enumerate() {
            let ComputedDefinition { name, sql, .. } = definition;
            if known.iter().any(|field| field.name() == name) {
                return Err(Error::new(Kind::DuplicateObject, format!("column \"{name}\" exists twice")).with_hint(
                    "A computed column stands beside the columns that it is made of: give it a name of its own.",
                ));
            }
            let schema = Arc::new(Schema::new(known.clone()));
            let column = self.plan_column(definition, &schema).map_err(|err| {
                let err = better(err, &definitions[at..], format);
                if err.detail().is_some() { err } else { err.with_detail(format!("In column \"{name}\": {sql}.")) }
            })?;
            known.push(column.field());
            planned.push(column);
        }
        Ok(planned)
    }

    fn plan_column(&self, definition: &ComputedDefinition, known: &SchemaRef) -> Result<Computed> {
        let ComputedDefinition { name, data_type, sql } = definition;
        let state = self.context.state();
        let columns = DFSchema::try_from(Arc::clone(known))?;
        let expr = state.create_logical_expr(sql, &columns)?;
        check(&expr)?;
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(columns.clone()))
            .with_config_options(Arc::clone(state.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let expr = simplifier.coerce(expr, &columns)?.transform_up(|expr| checked(expr, &columns))?.data;
        let kept = kept_as(name, &expr.get_type(&columns)?, data_type.as_ref())?;
        // Functions such as coalesce() are only there until they are simplified.
        let expr = simplifier.simplify(expr.cast_to(&kept, &columns)?)?;
        // Over the columns that it reads, of which there are few, where a row may have a thousand.
        let read = expr.column_refs();
        let is_read = |field: &Field| read.contains(&Column::new_unqualified(field.name()));
        let fields: Vec<_> = known.fields().iter().filter(|field| is_read(field)).cloned().collect();
        let reads = Arc::new(Schema::new(fields));
        let columns = DFSchema::try_from(Arc::clone(&reads))?;
        Computed::new(name, sql, state.create_physical_expr(expr, &columns)?, reads)
    }
}

/// Fails for what depends on more than the row.
fn check(expr: &Expr) -> Result<()> {
    let refused = |kind, what: String, hint: &str| Err(Error::new(kind, what).with_hint(hint));
    let mut checked = Ok(());
    expr.apply(|part| {
        checked = match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => refused(
                Kind::InvalidDefinition,
                format!("a computed column must not change: {}() gives another value each time", call.func.name()),
                "Rows are made again when the log is read again. INCLUDE ingest_time is when a row came in.",
            ),
            Expr::AggregateFunction(_) => refused(
                Kind::NotSupported,
                "aggregate functions are not allowed in computed columns".into(),
                "A computed column is made of its own row. What is made of many rows is a materialized view.",
            ),
            Expr::WindowFunction(_) => refused(
                Kind::NotSupported,
                "window functions are not allowed in computed columns".into(),
                "A computed column is made of its own row. Use the window function in a query.",
            ),
            Expr::Unnest(_) => refused(
                Kind::NotSupported,
                "functions that return several rows are not allowed in computed columns".into(),
                "A computed column has one value.",
            ),
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => refused(
                Kind::NotSupported,
                format!("{part} is not allowed in computed columns"),
                "Write the value itself.",
            ),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })?;
    checked
}

/// What a type is to casts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Text,
    Number,
    Boolean,
    Time,
    Other,
}

fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Boolean => Family::Boolean,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Family::Time,
        other if other.is_numeric() => Family::Number,
        _ => Family::Other,
    }
}

/// The type in which a stream keeps the values of an expression whose type is `own`; `declared` if the user has said one.
/// Numbers are no times: in which unit would they be?
fn kept_as(name: &str, own: &DataType, declared: Option<&DataType>) -> Result<DataType> {
    let Some(declared) = declared else {
        return match own {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(DataType::Utf8View),
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Ok(DataType::Int16),
            DataType::UInt16 | DataType::Int32 => Ok(DataType::Int32),
            DataType::UInt32 | DataType::UInt64 | DataType::Int64 => Ok(DataType::Int64),
            DataType::Float16 | DataType::Float32 => Ok(DataType::Float32),
            DataType::Float64 => Ok(DataType::Float64),
            DataType::Boolean => Ok(DataType::Boolean),
            DataType::Timestamp(..) => Ok(timestamp_type()),
            other => {
                let message = format!("column \"{name}\" would be of type {other}, which a stream does not keep");
                Err(Error::new(Kind::NotSupported, message)
                    .with_hint(format!("Say of which type it is to be, such as {name} text AS (…).")))
            }
        };
    };
    let fits = match (family(own), family(declared)) {
        _ if own.is_null() => true,
        (_, Family::Text) | (Family::Text, _) => true,
        (own, declared) => own == declared,
    };
    if fits {
        return Ok(declared.clone());
    }
    let err = Error::new(
        Kind::Datatype,
        format!("column \"{name}\" is of type {declared}, but its expression is of type {own}"),
    );
    Err(match (family(own), family(declared)) {
        (Family::Number, Family::Time) => err.with_hint(
            "to_timestamp_seconds(…), to_timestamp_millis(…) and to_timestamp_micros(…) make times of whole numbers since 1970.",
        ),
        (Family::Time, Family::Number) => err.with_hint("Write extract(epoch FROM …), which is in seconds since 1970."),
        _ => err.with_hint("Cast the expression, or declare another type."),
    })
}

/// Says more about a column that does not exist. `ahead`: the columns that are computed later, this one first.
fn better(err: Error, ahead: &[ComputedDefinition], format: &dyn Format) -> Error {
    if err.kind() != Kind::UndefinedColumn {
        return err;
    }
    let names = |name: &str| err.message() == format!("column \"{name}\" does not exist");
    if ahead.iter().any(|column| names(&column.name)) {
        return err
            .with_hint("A computed column may be made of computed columns before it, not of itself or later ones.");
    }
    if !format.learns() {
        return err;
    }
    let near = err.hint().filter(|hint| hint.starts_with("Did you mean")).map(|hint| format!("{hint} "));
    err.with_hint(format!(
        "{}Which columns lines have is known when they come: declare those that expressions use.",
        near.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_kept_or_refused() {
        let time = timestamp_type();
        let seconds = DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None);
        assert_eq!(kept_as("c", &DataType::UInt32, None).unwrap(), DataType::Int64);
        assert_eq!(kept_as("c", &DataType::Utf8, None).unwrap(), DataType::Utf8View);
        assert_eq!(kept_as("c", &seconds, None).unwrap(), time);
        assert_eq!(kept_as("c", &DataType::Date32, None).unwrap_err().kind(), Kind::NotSupported);
        assert_eq!(kept_as("c", &DataType::Date32, Some(&time)).unwrap(), time);
        assert_eq!(kept_as("c", &DataType::Int64, Some(&DataType::Utf8View)).unwrap(), DataType::Utf8View);
        assert_eq!(kept_as("c", &DataType::Null, Some(&DataType::Int16)).unwrap(), DataType::Int16);
        for (own, declared) in
            [(&DataType::Int64, &time), (&time, &DataType::Int64), (&DataType::Boolean, &DataType::Int64)]
        {
            let err = kept_as("c", own, Some(declared)).unwrap_err();
            assert!(err.kind() == Kind::Datatype && err.hint().is_some(), "{err}");
        }
    }

    #[test]
    fn lines_need_no_time_where_it_is_computed() {
        let at = ComputedDefinition { name: "at".into(), data_type: None, sql: "to_timestamp_seconds(s)".into() };
        let declared = [Declared { name: "s".into(), data_type: DataType::Int64 }];
        let rows = |name: &str, options: &[(String, String)], time| {
            let format = build_format(name, options, &declared, std::slice::from_ref(&at), time).unwrap();
            format.parse(&crate::frame::Frames::from_text("{\"s\":1}\n"), 0).rows.num_rows()
        };
        assert_eq!(rows("json", &[], Some("at")), 1);
        assert_eq!(rows("json", &[], None), 0);
        assert_eq!(rows("json", &[("time_field".into(), "ts".into())], Some("at")), 0, "as the user says");
        assert!(build_format("combined", &[], &[], &[at], Some("at")).is_ok());
    }
}
