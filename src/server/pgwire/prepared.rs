//! A statement that is ready to run: what answers it, its parameters and its result columns. Made once by Parse (or by
//! a simple query), run by each Execute.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, TypeSignature};
use pgwire::api::Type;
use pgwire::api::portal::Portal;
use pgwire::api::stmt::StoredStatement;
use pgwire::error::{PgWireError, PgWireResult};

use super::control::{self, Control};
use super::{error, types};
use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;
use crate::sql;
use crate::sql::{Planned, Statement};

#[derive(Clone)]
pub struct Prepared(Arc<Inner>);

struct Inner {
    work: Work,
    parameters: Vec<Parameter>,
    columns: Option<SchemaRef>,
    /// What is shown of it while it runs.
    text: Arc<str>,
}

pub enum Work {
    /// Answered by the connection.
    Control(Control),
    /// Answered by the engine.
    Engine(Arc<Planned>),
}

struct Parameter {
    /// None where the plan does not tell.
    planned: Option<DataType>,
    /// What its text is, where it is more than a text.
    subtype: Option<Subtype>,
    /// What the client is told.
    told: Type,
    /// How its bytes are read: object ids are numbers.
    wire: Type,
}

impl Prepared {
    /// `columns`: of the result rows, None if there are none.
    pub fn control(control: Control, columns: Option<SchemaRef>, text: Arc<str>) -> Prepared {
        Prepared(Arc::new(Inner { work: Work::Control(control), parameters: Vec::new(), columns, text }))
    }

    /// DECLARE with the parameters of its query, which is `inner`.
    pub fn declaring(control: Control, inner: &Planned, text: Arc<str>) -> Result<Prepared> {
        let parameters = inner.plan().map_or_else(|| Ok(Vec::new()), |plan| parameters(plan, &text))?;
        Ok(Prepared(Arc::new(Inner { work: Work::Control(control), parameters, columns: None, text })))
    }

    pub fn engine(planned: Planned, text: Arc<str>) -> Result<Prepared> {
        let parameters = match planned.plan() {
            Some(plan) => parameters(plan, &text)?,
            None => Vec::new(),
        };
        let columns = planned.fields();
        Ok(Prepared(Arc::new(Inner { work: Work::Engine(Arc::new(planned)), parameters, columns, text })))
    }

    /// The engine's generation for which a query was planned; `None` for other statements.
    pub fn generation(&self) -> Option<u64> {
        match &self.0.work {
            Work::Engine(planned) => planned.generation(),
            Work::Control(_) => None,
        }
    }

    /// The text it was made of, without secrets.
    pub fn text(&self) -> &Arc<str> {
        &self.0.text
    }

    pub fn work(&self) -> &Work {
        &self.0.work
    }

    /// The result columns, as clients see them.
    pub fn columns(&self) -> Option<SchemaRef> {
        self.0.columns.clone()
    }

    /// What the plan wants of each parameter, where it tells and takes the type as it is.
    pub fn planned_types(&self) -> Vec<Option<&DataType>> {
        let plain = self.0.parameters.iter().map(|parameter| (&parameter.planned, parameter.subtype));
        plain.map(|(planned, subtype)| planned.as_ref().filter(|_| subtype.is_none())).collect()
    }

    pub fn parameter_types(&self) -> Vec<Type> {
        self.0.parameters.iter().map(|parameter| parameter.told.clone()).collect()
    }

    /// The values that EXECUTE gave to the statement of this name, in the types that the plan wants.
    pub fn values(&self, name: &str, values: Vec<ScalarValue>) -> Result<ParamValues> {
        let parameters = &self.0.parameters;
        if values.len() != parameters.len() {
            let text = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {} parameters but got {}.", parameters.len(), values.len());
            return Err(Error::new(Kind::Syntax, text).with_detail(detail));
        }
        let cast = |(value, parameter): (ScalarValue, &Parameter)| match &parameter.planned {
            Some(planned) if &value.data_type() != planned => Ok(value.cast_to(planned)?),
            None if !value.data_type().is_string() => Ok(value.cast_to(&DataType::Utf8)?),
            _ => Ok(value),
        };
        let values = values.into_iter().zip(parameters).map(cast).collect::<Result<Vec<ScalarValue>>>()?;
        Ok(ParamValues::from(values))
    }

    /// The values that Bind gave, in the types that the plan wants.
    pub fn bind<S: Clone>(&self, portal: &Portal<S>) -> PgWireResult<ParamValues> {
        let parameters = &self.0.parameters;
        if portal.parameter_len() != parameters.len() {
            return Err(wrong_count(portal.parameter_len(), parameters.len()));
        }
        if let Some(portal) = without_spaces(portal, parameters) {
            return self.bind(&portal);
        }
        let planned: Vec<Option<&DataType>> = parameters.iter().map(|p| p.planned.as_ref()).collect();
        let wire: Vec<Option<&Type>> = parameters.iter().map(|p| Some(&p.wire)).collect();
        let subtypes = parameters.iter().map(|p| p.subtype);
        if !subtypes.clone().any(|subtype| subtype.is_some()) && !sends_subtypes(portal) {
            return arrow_pg::datatypes::df::deserialize_parameters_with_server_types(portal, &planned, &wire);
        }
        let portal = as_texts(portal, &subtypes.collect::<Vec<_>>())?;
        arrow_pg::datatypes::df::deserialize_parameters_with_server_types(&portal, &planned, &wire)
    }
}

/// Bind gives another number of values than the statement has parameters.
pub fn wrong_count(given: usize, wanted: usize) -> PgWireError {
    let text = format!("bind message supplies {given} parameters, but the prepared statement requires {wanted}");
    error::refuse("08P01", text)
}

/// The type of parameter `i` if the client says that it sends one of a text that is more than a text.
fn sent<S: Clone>(portal: &Portal<S>, i: usize) -> Option<Subtype> {
    let declared = portal.statement.parameter_types.get(i)?.as_ref()?;
    Subtype::ALL.into_iter().find(|subtype| types::of_subtype(*subtype) == *declared)
}

fn sends_subtypes<S: Clone>(portal: &Portal<S>) -> bool {
    (0..portal.parameter_len()).any(|i| sent(portal, i).is_some())
}

/// The same with these parameters as texts, in the one spelling of their type.
fn as_texts<S: Clone>(portal: &Portal<S>, planned: &[Option<Subtype>]) -> PgWireResult<Portal<()>> {
    let mut parameters = portal.parameters.clone();
    let mut declared = portal.statement.parameter_types.clone();
    for (i, value) in parameters.iter_mut().enumerate() {
        let Some(subtype) = sent(portal, i).or(planned.get(i).copied().flatten()) else { continue };
        if let Some(kind) = declared.get_mut(i) {
            // Of another type that the client knows it is a text all the same.
            *kind = Some(Type::TEXT);
        }
        let Some(bytes) = value else { continue };
        let is_text = portal.statement.parameter_types.get(i).is_some_and(|kind| {
            matches!(kind, Some(Type::TEXT | Type::VARCHAR | Type::UNKNOWN | Type::BPCHAR | Type::NAME))
        });
        let wrong = || error::refuse("22P03", format!("incorrect binary data format in bind parameter {}", i + 1));
        let text = match portal.parameter_format.is_binary(i) && !is_text {
            true => sql::types::text_of(subtype, bytes).ok_or_else(wrong)?,
            false => String::from_utf8_lossy(bytes),
        };
        let text = subtype.read(&text).map_err(error::wire)?.into_owned();
        *value = Some(text.into());
    }
    let mut texts = Portal::default();
    texts.statement = Arc::new(StoredStatement::new(portal.statement.id.clone(), (), declared));
    texts.parameter_format = portal.parameter_format.clone();
    texts.parameters = parameters;
    Ok(texts)
}

/// The same without the spaces that may be between the elements of arrays in text (ADBC writes some); `None` where there
/// are none.
fn without_spaces<S: Clone>(portal: &Portal<S>, parameters: &[Parameter]) -> Option<Portal<()>> {
    let mut values = portal.parameters.clone();
    let mut changed = false;
    for (i, (value, parameter)) in values.iter_mut().zip(parameters).enumerate() {
        let is_array = matches!(parameter.planned, Some(DataType::List(_))) && !portal.parameter_format.is_binary(i);
        if let Some(text) = value.as_ref().filter(|text| is_array && text.iter().any(u8::is_ascii_whitespace)) {
            let tight = tight(text);
            changed |= tight.len() < text.len();
            *value = Some(tight.into());
        }
    }
    changed.then(|| {
        let mut tight = Portal::default();
        let statement = &portal.statement;
        tight.statement = Arc::new(StoredStatement::new(statement.id.clone(), (), statement.parameter_types.clone()));
        tight.parameter_format = portal.parameter_format.clone();
        tight.parameters = values;
        tight
    })
}

/// An array in text without spaces before and behind its elements.
fn tight(text: &[u8]) -> Vec<u8> {
    let (mut out, mut quoted, mut escaped) = (Vec::with_capacity(text.len()), false, false);
    // So much of `out` ends with something else than spaces.
    let mut solid = 0;
    for byte in text {
        let space = byte.is_ascii_whitespace() && !quoted && !escaped;
        if b",{}".contains(byte) && !quoted && !escaped {
            out.truncate(solid);
        }
        if !space || !out.last().is_none_or(|last| b",{".contains(last)) {
            out.push(*byte);
        }
        if !space {
            solid = out.len();
        }
        quoted ^= *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
    }
    out.truncate(solid);
    out
}

/// Columns of text, for statements that the connection answers itself.
pub fn text_columns(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<Field>>()))
}

/// `$1, $2, …` of a plan, in order. One that the plan gives no type is text, as in PostgreSQL. Lists of object ids are
/// lists of numbers in the plan: that they are more, the statement's text says.
fn parameters(plan: &LogicalPlan, text: &str) -> Result<Vec<Parameter>> {
    let mut found: BTreeMap<usize, Option<DataType>> = BTreeMap::new();
    let mut subtypes: BTreeMap<usize, Subtype> = BTreeMap::new();
    for (name, field) in plan.get_parameter_fields()? {
        if let Some(number) = number_of(&name) {
            subtypes.extend(field.as_ref().and_then(|field| Some((number, Subtype::of(field)?))));
            found.insert(number, field.map(|field| field.data_type().clone()));
        }
    }
    // `$1::int` says its type in the cast around it, and LIMIT takes a number.
    plan.apply(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for count in limit.skip.iter().chain(&limit.fetch) {
                if let Expr::Placeholder(placeholder) = count.as_ref()
                    && let Some(number) = number_of(&placeholder.id)
                {
                    found.insert(number, Some(DataType::Int64));
                }
            }
        }
        for expr in node.expressions() {
            expr.apply(|expr| {
                if let Expr::Cast(cast) = expr
                    && let Some(number) = parameter_of(&cast.expr)
                {
                    found.entry(number).or_default().get_or_insert_with(|| cast.field.data_type().clone());
                }
                // `$1::uuid` is a call.
                if let Expr::ScalarFunction(call) = expr
                    && let [Expr::Placeholder(placeholder)] = call.args.as_slice()
                    && let Some(number) = number_of(&placeholder.id)
                    && let Some(subtype) = sql::types::read_by(call.func.name())
                {
                    subtypes.insert(number, subtype);
                }
                if let Expr::ScalarFunction(call) = expr {
                    for (number, data_type) in arguments(call, node) {
                        found.entry(number).or_default().get_or_insert(data_type);
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let count = found.keys().next_back().copied().unwrap_or(0);
    if count > usize::from(u16::MAX) {
        return Err(Error::new(Kind::Syntax, format!("there is no parameter ${count}")));
    }
    Ok((1..=count)
        .map(|number| {
            let planned = found.remove(&number).flatten().filter(|data_type| data_type != &DataType::Null);
            let kind = planned.as_ref().map_or(Type::TEXT, types::of_data);
            let wire = match kind {
                // Columns of the catalog are lists of texts and of numbers here.
                Type::CHAR_ARRAY | Type::NAME_ARRAY => Type::TEXT_ARRAY,
                Type::OID_ARRAY => Type::INT4_ARRAY,
                ref wire => wire.clone(),
            };
            let subtype = subtypes.get(&number).copied().filter(|_| wire == Type::TEXT);
            if let Some(subtype) = subtype {
                return Parameter { planned, subtype: Some(subtype), told: types::of_subtype(subtype), wire };
            }
            let is_oids =
                kind == Type::OID_ARRAY || wire == Type::INT4_ARRAY && text.contains(&format!("${number}::oid[]"));
            Parameter { planned, subtype: None, told: if is_oids { Type::OID_ARRAY } else { wire.clone() }, wire }
        })
        .collect())
}

/// The parameters among a function's arguments, with the types that it takes there: `n = ANY ($1)`, which is planned as a
/// function, takes a list of what `n` is; others say the types of their arguments.
fn arguments(call: &ScalarFunction, node: &LogicalPlan) -> Vec<(usize, DataType)> {
    let parameters = call.args.iter().enumerate().filter_map(|(at, argument)| Some((at, parameter_of(argument)?)));
    let type_of = |at: usize| match (call.func.name(), call.args.as_slice()) {
        ("array_has", [_, element]) => {
            let element = node.inputs().iter().find_map(|input| element.get_type(input.schema()).ok())?;
            (at == 0).then(|| DataType::new_list(element, true))
        }
        _ => form_of(&call.func.signature().type_signature, call.args.len())?.get(at).cloned(),
    };
    parameters.filter_map(|(at, number)| Some((number, type_of(at)?))).collect()
}

/// The first list of this many types that a function takes exactly.
fn form_of(signature: &TypeSignature, count: usize) -> Option<&[DataType]> {
    match signature {
        TypeSignature::Exact(types) => (types.len() == count).then_some(types.as_slice()),
        TypeSignature::OneOf(forms) => forms.iter().find_map(|form| form_of(form, count)),
        _ => None,
    }
}

fn parameter_of(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Placeholder(placeholder) => number_of(&placeholder.id),
        _ => None,
    }
}

fn number_of(placeholder: &str) -> Option<usize> {
    placeholder.strip_prefix('$')?.parse().ok().filter(|number| *number > 0)
}

/// What the connection itself does for a statement. Looks at its first word before it writes the whole text, which may
/// be an INSERT of many megabytes.
pub fn control_of(statement: &Statement) -> Option<Control> {
    const WORDS: [&str; 19] = [
        "abort",
        "begin",
        "close",
        "commit",
        "deallocate",
        "declare",
        "discard",
        "end",
        "execute",
        "fetch",
        "move",
        "prepare",
        "release",
        "reset",
        "rollback",
        "savepoint",
        "set",
        "show",
        "start",
    ];
    let start = Start::of(statement);
    let first: String = start.trim_start().chars().take_while(|c| c.is_alphabetic()).collect();
    if first.is_empty() || !WORDS.contains(&first.to_lowercase().as_str()) {
        return None;
    }
    control::classify(&statement.to_string())
}

/// Takes the first few bytes of a text and stops the writer.
struct Start(String);

impl Start {
    const BYTES: usize = 24;

    fn of(value: &impl Display) -> String {
        let mut start = Start(String::new());
        // The error is our own: enough was written.
        let _ = write!(start, "{value}");
        start.0
    }
}

impl Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend(text.chars().take(Start::BYTES));
        if self.0.len() < Start::BYTES { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_between_elements_say_nothing() {
        for (given, expected) in [
            (r#" { "p" , "f, g", a b ,{1, 2} } "#, r#"{"p","f, g",a b,{1,2}}"#),
            (r#"{"a\" , b",c}"#, r#"{"a\" , b",c}"#),
            ("{}", "{}"),
        ] {
            assert_eq!(String::from_utf8(tight(given.as_bytes())).unwrap(), expected);
        }
    }
}
