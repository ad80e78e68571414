//! How does an expression of a catalog query become a [`Node`] with a type? As PostgreSQL does it: a literal has no type
//! until it meets a value that has one.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Ident, OrderByExpr, Query as QueryAst, SetExpr, Subscript,
    TrimWhereField, UnaryOperator, Value as Literal, WindowType,
};

use super::functions::{self, Of, Scalar, Set};
use super::node::{Aggregate, AggregateKind, Arithmetic, Comparison, Node, Order, Pattern, Window, WindowKind};
use super::plan::{Planner, common, direction, function_name, known, plain_arguments};
use super::scope::{Scope, Typed};
use super::text::read_plain;
use super::{Plan, Unplanned, unplanned};
use crate::catalog::postgres::base::base;
use crate::catalog::postgres::value::{Value, types};
use crate::sql::parser::folded;
use std::sync::Arc;

impl Planner {
    /// A condition.
    pub fn condition(&self, expr: &Expr, scope: &Scope<'_>) -> Plan<Node> {
        Ok(self.convert(self.expression(expr, scope)?, types::BOOL)?.node)
    }

    pub fn expression(&self, expr: &Expr, scope: &Scope<'_>) -> Plan<Typed> {
        let boolean = |node: Node| Ok(Typed::new(node, types::BOOL));
        let negated = |node: Node, negated: bool| if negated { Node::Not(Box::new(node)) } else { node };
        match expr {
            Expr::Nested(inner) => self.expression(inner, scope),
            Expr::Collate { expr, .. } => self.expression(expr, scope),
            Expr::Identifier(name) => self.identifier(name, scope),
            Expr::CompoundIdentifier(names) => self.compound(names, scope),
            Expr::Value(value) => self.literal(&value.value),
            Expr::TypedString(typed) => {
                let literal = self.literal(&typed.value.value)?;
                self.convert(literal, type_of(&typed.data_type)?)
            }
            Expr::Cast { kind, expr, data_type, .. } => {
                if !matches!(kind, CastKind::Cast | CastKind::DoubleColon) {
                    return unplanned("this kind of cast");
                }
                self.cast(expr, data_type, scope)
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right, scope),
            Expr::UnaryOp { op, expr } => {
                let inner = self.expression(expr, scope)?;
                match op {
                    UnaryOperator::Not => boolean(Node::Not(Box::new(self.convert(inner, types::BOOL)?.node))),
                    UnaryOperator::Plus => Ok(inner),
                    UnaryOperator::Minus => match inner.node {
                        Node::Constant(Value::Int(number)) => {
                            Ok(Typed::new(Node::Constant(Value::Int(-number)), inner.of))
                        }
                        node => {
                            let zero = Box::new(Node::Constant(Value::Int(0)));
                            Ok(Typed::new(Node::Compute(Arithmetic::Subtract, zero, Box::new(node)), inner.of))
                        }
                    },
                    _ => unplanned(format!("operator {op}")),
                }
            }
            Expr::IsNull(inner) => boolean(Node::IsNull(Box::new(self.expression(inner, scope)?.node))),
            Expr::IsNotNull(inner) => {
                boolean(negated(Node::IsNull(Box::new(self.expression(inner, scope)?.node)), true))
            }
            Expr::IsTrue(inner) => boolean(Node::Is(Box::new(self.condition(inner, scope)?), true)),
            Expr::IsNotTrue(inner) => boolean(negated(Node::Is(Box::new(self.condition(inner, scope)?), true), true)),
            Expr::IsFalse(inner) => boolean(Node::Is(Box::new(self.condition(inner, scope)?), false)),
            Expr::IsNotFalse(inner) => boolean(negated(Node::Is(Box::new(self.condition(inner, scope)?), false), true)),
            Expr::IsUnknown(inner) => boolean(Node::IsNull(Box::new(self.condition(inner, scope)?))),
            Expr::IsNotUnknown(inner) => boolean(negated(Node::IsNull(Box::new(self.condition(inner, scope)?)), true)),
            Expr::IsDistinctFrom(a, b) | Expr::IsNotDistinctFrom(a, b) => {
                let (a, b) = self.alike(self.expression(a, scope)?, self.expression(b, scope)?)?;
                let node = Node::IsDistinct(Box::new(a.node), Box::new(b.node));
                boolean(negated(node, matches!(expr, Expr::IsNotDistinctFrom(..))))
            }
            Expr::InList { expr, list, negated: not } => {
                let mut value = self.expression(expr, scope)?;
                let mut list = list.iter().map(|e| self.expression(e, scope)).collect::<Plan<Vec<Typed>>>()?;
                let of = list.iter().map(|typed| typed.of).fold(value.of, common);
                value = self.convert_unknown(value, of)?;
                list = list.into_iter().map(|typed| self.convert_unknown(typed, value.of)).collect::<Plan<_>>()?;
                let list = list.into_iter().map(|typed| typed.node).collect();
                boolean(negated(Node::InList(Box::new(value.node), list), *not))
            }
            Expr::InSubquery { expr, subquery, negated: not } => {
                boolean(negated(self.in_query(expr, subquery, scope)?, *not))
            }
            Expr::Between { expr, negated: not, low, high } => {
                let compare = |comparison, bound: &Expr| {
                    let (value, bound) = (self.expression(expr, scope)?, self.expression(bound, scope)?);
                    let (value, bound) = self.alike(value, bound)?;
                    Ok::<_, Unplanned>(Node::Compare(comparison, Box::new(value.node), Box::new(bound.node)))
                };
                let both = vec![compare(Comparison::GreaterOrEqual, low)?, compare(Comparison::LessOrEqual, high)?];
                boolean(negated(Node::And(both), *not))
            }
            Expr::Like { negated: not, any: false, expr, pattern, escape_char } => {
                let how = Pattern::Like { ignore_case: false, escape: escape_of(escape_char.as_ref()) };
                boolean(negated(self.matches(expr, pattern, how, scope)?, *not))
            }
            Expr::ILike { negated: not, any: false, expr, pattern, escape_char } => {
                let how = Pattern::Like { ignore_case: true, escape: escape_of(escape_char.as_ref()) };
                boolean(negated(self.matches(expr, pattern, how, scope)?, *not))
            }
            Expr::SimilarTo { negated: not, expr, pattern, escape_char: None } => {
                boolean(negated(self.matches(expr, pattern, Pattern::SimilarTo, scope)?, *not))
            }
            Expr::AnyOp { left, compare_op, right, .. } => self.quantified(left, compare_op, right, false, scope),
            Expr::AllOp { left, compare_op, right } => self.quantified(left, compare_op, right, true, scope),
            Expr::Exists { subquery, negated: not } => {
                let query = self.query(subquery, Some(scope))?;
                boolean(negated(Node::Exists(Arc::new(query)), *not))
            }
            Expr::Subquery(subquery) => {
                let query = self.query(subquery, Some(scope))?;
                let [column] = query.columns.as_slice() else { return unplanned("a subquery of several columns") };
                let (of, fields) = (known(column.of), column.fields.clone());
                Ok(Typed { node: Node::Scalar(Arc::new(query)), of, fields })
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let operand = operand.as_ref().map(|operand| self.expression(operand, scope)).transpose()?;
                let mut branches = Vec::new();
                for branch in conditions {
                    let when = match &operand {
                        None => self.condition(&branch.condition, scope)?,
                        Some(operand) => {
                            let when = self.expression(&branch.condition, scope)?;
                            self.convert_unknown(when, operand.of)?.node
                        }
                    };
                    branches.push((when, self.expression(&branch.result, scope)?));
                }
                let otherwise = else_result.as_ref().map(|expr| self.expression(expr, scope)).transpose()?;
                let results = branches.iter().map(|(_, then)| then.of).chain(otherwise.as_ref().map(|typed| typed.of));
                let of = known(results.fold(types::UNKNOWN, common));
                let branches = branches.into_iter().map(|(when, then)| Ok((when, self.convert(then, of)?.node)));
                let branches = branches.collect::<Plan<Vec<(Node, Node)>>>()?;
                let otherwise = otherwise.map(|typed| Ok::<_, Unplanned>(Box::new(self.convert(typed, of)?.node)));
                let otherwise = otherwise.transpose()?;
                Ok(Typed::new(
                    Node::Case { operand: operand.map(|typed| Box::new(typed.node)), branches, otherwise },
                    of,
                ))
            }
            Expr::Array(array) => {
                let items = array.elem.iter().map(|e| self.expression(e, scope)).collect::<Plan<Vec<Typed>>>()?;
                let of = known(items.iter().map(|typed| typed.of).fold(types::UNKNOWN, common));
                let list = base().array_of(of).ok_or_else(|| Unplanned("an array of this type".into()))?;
                let items =
                    items.into_iter().map(|typed| Ok(self.convert(typed, of)?.node)).collect::<Plan<Vec<Node>>>()?;
                Ok(Typed::new(Node::List(items), list))
            }
            Expr::Tuple(items) => self.row(items, scope),
            Expr::Function(function) => self.function(function, scope),
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain, scope),
            Expr::Position { expr, r#in } => self.call("strpos", &[r#in, expr], scope),
            Expr::Substring { expr, substring_from: Some(from), substring_for, .. } => {
                let mut arguments: Vec<&Expr> = vec![&**expr, &**from];
                arguments.extend(substring_for.as_deref());
                self.call("substr", &arguments, scope)
            }
            Expr::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "btrim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                };
                let mut arguments: Vec<&Expr> = vec![&**expr];
                arguments.extend(trim_what.as_deref());
                arguments.extend(trim_characters.iter().flatten());
                self.call(name, &arguments, scope)
            }
            Expr::Prefixed { value, .. } => self.expression(value, scope),
            other => unplanned(format!("the expression {other}")),
        }
    }

    fn identifier(&self, ident: &Ident, scope: &Scope<'_>) -> Plan<Typed> {
        let name = folded(ident);
        if let Some(found) = scope.resolve(None, None, &name)? {
            self.depends(found.depth);
            return Ok(found.typed);
        }
        match (name.as_str(), scope.table(None)) {
            ("tableoid", Some(oid)) => return Ok(Typed::new(Node::Constant(Value::Int(i64::from(oid))), types::OID)),
            ("xmin", Some(_)) => return Ok(transaction()),
            _ => {}
        }
        if let Some(found) = scope.whole_row(&name) {
            self.depends(found.depth);
            return Ok(found.typed);
        }
        match name.as_str() {
            "current_schema" | "current_user" | "session_user" | "user" | "current_role" | "current_catalog"
                if ident.quote_style.is_none() =>
            {
                self.call(&name, &[], scope)
            }
            _ => unplanned(format!("column {name}")),
        }
    }

    fn compound(&self, names: &[Ident], scope: &Scope<'_>) -> Plan<Typed> {
        let names: Vec<String> = names.iter().map(folded).collect();
        let (schema, table, column) = match names.as_slice() {
            [table, column] => (None, table, column),
            [schema, table, column] => (Some(schema.as_str()), table, column),
            _ => return unplanned(format!("column {}", names.join("."))),
        };
        if let Some(found) = scope.resolve(Some(table), schema, column)? {
            self.depends(found.depth);
            return Ok(found.typed);
        }
        match (column.as_str(), scope.table(Some(table))) {
            ("tableoid", Some(oid)) => Ok(Typed::new(Node::Constant(Value::Int(i64::from(oid))), types::OID)),
            ("xmin", Some(_)) => Ok(transaction()),
            _ => unplanned(format!("column {}", names.join("."))),
        }
    }

    fn literal(&self, literal: &Literal) -> Plan<Typed> {
        Ok(match literal {
            Literal::Number(number, _) => match number.parse::<i64>() {
                Ok(number) if i32::try_from(number).is_ok() => {
                    Typed::new(Node::Constant(Value::Int(number)), types::INT4)
                }
                Ok(number) => Typed::new(Node::Constant(Value::Int(number)), types::INT8),
                Err(_) => {
                    let number = number.parse().map_err(|_| Unplanned(format!("the number {number}")))?;
                    Typed::new(Node::Constant(Value::Float(number)), types::NUMERIC)
                }
            },
            Literal::Boolean(is) => Typed::new(Node::Constant(Value::Bool(*is)), types::BOOL),
            Literal::Null => Typed::new(Node::Constant(Value::Null), types::UNKNOWN),
            Literal::Placeholder(name) => {
                let at = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
                let at = at.and_then(|at| at.checked_sub(1)).ok_or_else(|| Unplanned(format!("parameter {name}")))?;
                let mut parameters = self.parameters.borrow_mut();
                if parameters.len() <= at {
                    parameters.resize(at + 1, types::UNKNOWN);
                }
                Typed::new(Node::Parameter(at), parameters[at])
            }
            other => match other.clone().into_string() {
                Some(text) => Typed::new(Node::Constant(Value::text(text)), types::UNKNOWN),
                None => return unplanned(format!("the literal {other}")),
            },
        })
    }

    fn row(&self, items: &[Expr], scope: &Scope<'_>) -> Plan<Typed> {
        let items = items.iter().map(|expr| self.expression(expr, scope)).collect::<Plan<Vec<Typed>>>()?;
        let fields = items.iter().enumerate().map(|(at, typed)| (format!("f{}", at + 1), known(typed.of))).collect();
        let nodes = items.into_iter().map(|typed| typed.node).collect();
        Ok(Typed { node: Node::Row(nodes), of: types::RECORD, fields: Some(Arc::new(fields)) })
    }

    fn matches(&self, text: &Expr, pattern: &Expr, how: Pattern, scope: &Scope<'_>) -> Plan<Node> {
        let text = self.convert(self.expression(text, scope)?, types::TEXT)?;
        let pattern = self.convert(self.expression(pattern, scope)?, types::TEXT)?;
        Ok(Node::Match { text: Box::new(text.node), pattern: Box::new(pattern.node), how })
    }

    fn in_query(&self, value: &Expr, query: &QueryAst, scope: &Scope<'_>) -> Plan<Node> {
        let value = self.expression(value, scope)?;
        let query = self.query(query, Some(scope))?;
        let width = value.fields.as_ref().map_or(1, |fields| fields.len());
        if query.columns.len() != width {
            return unplanned("IN with another number of columns");
        }
        let value = if width == 1 { self.convert_unknown(value, query.columns[0].of)? } else { value };
        Ok(Node::InQuery(Box::new(value.node), Arc::new(query)))
    }

    fn quantified(&self, left: &Expr, op: &BinaryOperator, right: &Expr, all: bool, scope: &Scope<'_>) -> Plan<Typed> {
        let (op, not) = operator(op)?;
        let mut bare = right;
        while let Expr::Nested(inner) = bare {
            bare = inner;
        }
        if let (Expr::Subquery(query), Operator::Compare(comparison)) = (bare, &op) {
            let inner = self.query(query, Some(scope))?;
            // A subquery that gives a list is that list; one that gives values is searched in.
            if inner.columns.first().is_none_or(|column| base().element_of(column.of).is_none()) {
                return match (comparison, all) {
                    (Comparison::Equal, false) => Ok(Typed::new(self.in_query(left, query, scope)?, types::BOOL)),
                    (Comparison::NotEqual, true) => {
                        Ok(Typed::new(Node::Not(Box::new(self.in_query(left, query, scope)?)), types::BOOL))
                    }
                    _ => unplanned("ANY of a query with this operator"),
                };
            }
        }
        let (left, list) = (self.expression(left, scope)?, self.expression(right, scope)?);
        match op {
            Operator::Compare(comparison) => {
                let of = match list.of {
                    types::UNKNOWN => base().array_of(left.of).ok_or_else(|| Unplanned("ANY of this type".into()))?,
                    other => other,
                };
                let list = self.convert(list, of)?;
                let element = base().element_of(list.of).ok_or_else(|| Unplanned("ANY of what is no array".into()))?;
                let left = self.convert_unknown(left, element)?;
                // Numbers and texts are compared with what they are written as.
                let list = match (types::is_text(left.of), types::is_text(element)) {
                    (true, false) => self.convert(list, base().array_of(types::TEXT).unwrap_or(1009))?,
                    _ => list,
                };
                let (left, list) = (Box::new(left.node), Box::new(list.node));
                Ok(Typed::new(Node::Quantified { all, comparison, left, list }, types::BOOL))
            }
            Operator::Match(how) => {
                let texts = base().array_of(types::TEXT).unwrap_or(1009);
                let (left, list) = (self.convert(left, types::TEXT)?, self.convert(list, texts)?);
                let (text, list) = (Box::new(left.node), Box::new(list.node));
                Ok(Typed::new(Node::AnyMatch { all, negated: not, text, list, how }, types::BOOL))
            }
            _ => unplanned("ANY with this operator"),
        }
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) -> Plan<Typed> {
        let boolean = |node: Node| Ok(Typed::new(node, types::BOOL));
        match op {
            BinaryOperator::And => {
                return boolean(Node::And(vec![self.condition(left, scope)?, self.condition(right, scope)?]));
            }
            BinaryOperator::Or => {
                return boolean(Node::Or(vec![self.condition(left, scope)?, self.condition(right, scope)?]));
            }
            _ => {}
        }
        let (op, not) = operator(op)?;
        if let Operator::Match(how) = op {
            let node = self.matches(left, right, how, scope)?;
            return boolean(if not { Node::Not(Box::new(node)) } else { node });
        }
        let (a, b) = (self.expression(left, scope)?, self.expression(right, scope)?);
        match op {
            Operator::Compare(comparison) => {
                let (a, b) = self.alike(a, b)?;
                boolean(Node::Compare(comparison, Box::new(a.node), Box::new(b.node)))
            }
            Operator::Concat => {
                let is_list = |typed: &Typed| base().element_of(typed.of).is_some();
                if is_list(&a) || is_list(&b) {
                    let of = if is_list(&a) { a.of } else { b.of };
                    let element = base().element_of(of).unwrap_or(types::TEXT);
                    let side = |typed: Typed| match is_list(&typed) {
                        true => Ok::<_, Unplanned>(typed.node),
                        false if matches!(&typed.node, Node::Constant(Value::Text(text)) if text.starts_with('{')) => {
                            Ok(self.convert(typed, of)?.node)
                        }
                        false => Ok(Node::List(vec![self.convert(typed, element)?.node])),
                    };
                    return Ok(Typed::new(Node::Concat(Box::new(side(a)?), Box::new(side(b)?)), of));
                }
                let (a, b) = (self.convert(a, types::TEXT)?, self.convert(b, types::TEXT)?);
                Ok(Typed::new(Node::Concat(Box::new(a.node), Box::new(b.node)), types::TEXT))
            }
            Operator::Compute(arithmetic) => {
                let (a, b) = (self.convert_unknown(a, known_number(b.of))?, b);
                let b = self.convert_unknown(b, known_number(a.of))?;
                let is_number = |of: u32| types::is_integer(of) || types::is_float(of);
                if !is_number(a.of) || !is_number(b.of) {
                    return unplanned("arithmetic with what are no numbers");
                }
                let of = match common(a.of, b.of) {
                    of if types::is_oid(of) => types::INT8,
                    types::FLOAT4 => types::FLOAT8,
                    of => of,
                };
                Ok(Typed::new(Node::Compute(arithmetic, Box::new(a.node), Box::new(b.node)), of))
            }
            Operator::Contains => self.call_typed("array_contains_all", vec![a, b]),
            Operator::Contained => self.call_typed("array_contains_all", vec![b, a]),
            Operator::Overlaps => self.call_typed("array_overlaps", vec![a, b]),
            Operator::Match(_) => unplanned("a pattern"),
        }
    }

    /// Two values that are to be compared, in types that can be.
    fn alike(&self, a: Typed, b: Typed) -> Plan<(Typed, Typed)> {
        let (a_of, b_of) = (a.of, b.of);
        let a = self.convert_unknown(a, known(b_of))?;
        let b = self.convert_unknown(b, known(a_of))?;
        let (number_a, number_b) = (is_number(a.of), is_number(b.of));
        let fits = number_a == number_b && types::is_text(a.of) == types::is_text(b.of);
        if !fits {
            return unplanned(format!("a comparison of types {} and {}", a.of, b.of));
        }
        Ok((a, b))
    }

    fn cast(&self, expr: &Expr, data_type: &DataType, scope: &Scope<'_>) -> Plan<Typed> {
        let to = type_of(data_type)?;
        if types::is_named_oid(to) {
            self.concerns_catalog.set(true);
        }
        let value = self.expression(expr, scope)?;
        if value.of == types::UNKNOWN
            && let Node::Parameter(_) = value.node
        {
            // PostgreSQL takes the type of the cast for the parameter's.
            let of = if types::is_named_oid(to) { types::TEXT } else { to };
            return self.convert(self.convert(value, of)?, to);
        }
        self.convert(value, to)
    }

    /// The value in another type if it has none yet.
    pub fn convert_unknown(&self, value: Typed, to: u32) -> Plan<Typed> {
        if value.of == types::UNKNOWN { self.convert(value, to) } else { Ok(value) }
    }

    /// The value in another type.
    pub fn convert(&self, value: Typed, to: u32) -> Plan<Typed> {
        if value.of == to || to == types::UNKNOWN {
            return Ok(value);
        }
        if value.of == types::UNKNOWN {
            match &value.node {
                Node::Parameter(at) => {
                    let mut parameters = self.parameters.borrow_mut();
                    if parameters[*at] == types::UNKNOWN {
                        // Names of objects are sent as texts, and looked up here.
                        parameters[*at] = if types::is_named_oid(to) { types::TEXT } else { to };
                    }
                    let of = parameters[*at];
                    drop(parameters);
                    return self.convert(Typed::new(value.node, of), to);
                }
                Node::Constant(Value::Null) => return Ok(Typed::new(value.node, to)),
                Node::Constant(Value::Text(text)) if !types::is_named_oid(to) => {
                    if let Some(read) = read_plain(text, to) {
                        return Ok(Typed::new(Node::Constant(read), to));
                    }
                }
                _ => {}
            }
        }
        let same = |a: u32, b: u32| {
            let whole = types::is_integer(a) && types::is_integer(b);
            let texts = types::is_text(a) && types::is_text(b) && b != types::CHAR;
            whole || texts
        };
        let from = known(value.of);
        let lists = base().element_of(from).zip(base().element_of(to));
        let is_same = same(from, to) || lists.is_some_and(|(from, to)| same(from, to));
        let node = if is_same { value.node } else { Node::Convert { value: Box::new(value.node), from, to } };
        Ok(Typed { node, of: to, fields: value.fields })
    }

    fn access(&self, root: &Expr, chain: &[AccessExpr], scope: &Scope<'_>) -> Plan<Typed> {
        // `a.b[1]` is a column and then a subscript.
        let mut names: Vec<Ident> = match root {
            Expr::Identifier(name) => vec![name.clone()],
            Expr::CompoundIdentifier(names) => names.clone(),
            _ => Vec::new(),
        };
        let mut chain = chain;
        while let (false, [AccessExpr::Dot(Expr::Identifier(name)), rest @ ..]) = (names.is_empty(), chain) {
            names.push(name.clone());
            chain = rest;
        }
        let mut typed = match names.as_slice() {
            [] => self.expression(root, scope)?,
            [one] => self.identifier(one, scope)?,
            names => self.compound(names, scope)?,
        };
        for access in chain {
            typed = match access {
                AccessExpr::Dot(Expr::Identifier(field)) => {
                    let field = folded(field);
                    let fields = typed.fields.clone().unwrap_or_default();
                    let at = fields.iter().position(|(name, _)| *name == field);
                    let at = at.ok_or_else(|| Unplanned(format!("field {field}")))?;
                    Typed::new(Node::Field { row: Box::new(typed.node), at }, fields[at].1)
                }
                AccessExpr::Dot(_) => return unplanned("a field of this form"),
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    let of = base().element_of(typed.of).ok_or_else(|| Unplanned("a subscript".into()))?;
                    let first = i64::from(!matches!(typed.of, types::INT2VECTOR | types::OIDVECTOR));
                    let index = Box::new(self.convert(self.expression(index, scope)?, types::INT4)?.node);
                    Typed::new(Node::Element { list: Box::new(typed.node), index, first }, of)
                }
                AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride: None }) => {
                    let bound = |expr: &Option<Expr>| {
                        let node = expr.as_ref().map(|expr| self.expression(expr, scope).map(|t| Box::new(t.node)));
                        node.transpose()
                    };
                    let (from, to) = (bound(lower_bound)?, bound(upper_bound)?);
                    Typed::new(Node::Slice { list: Box::new(typed.node), from, to }, typed.of)
                }
                AccessExpr::Subscript(_) => return unplanned("a subscript of this form"),
            };
        }
        Ok(typed)
    }

    fn function(&self, function: &Function, scope: &Scope<'_>) -> Plan<Typed> {
        let name = function_name(&function.name)?;
        let list = match &function.args {
            FunctionArguments::None => None,
            FunctionArguments::Subquery(query) if name == "array" => {
                let query = self.query(query, Some(scope))?;
                let [column] = query.columns.as_slice() else { return unplanned("an array of several columns") };
                let of = base().array_of(column.of).ok_or_else(|| Unplanned("an array of this type".into()))?;
                return Ok(Typed::new(Node::ListOf(Arc::new(query)), of));
            }
            FunctionArguments::Subquery(_) => return unplanned(format!("{name} of a query")),
            FunctionArguments::List(list) => Some(list),
        };
        let arguments = list.map_or(&[][..], |list| &list.args);
        if let Some(kind) = aggregate(&name) {
            return self.aggregate(kind, function, arguments, scope);
        }
        if let Some(window) = &function.over {
            let kind = match name.as_str() {
                "row_number" => WindowKind::RowNumber,
                "rank" => WindowKind::Rank,
                "dense_rank" => WindowKind::DenseRank,
                _ => return unplanned(format!("window function {name}")),
            };
            return self.window(kind, types::INT8, None, window, scope);
        }
        if function.filter.is_some() || !function.within_group.is_empty() {
            return unplanned(format!("{name} of this form"));
        }
        // Functions of information_schema that look through domains, which there are none of.
        if let Some(column) = match name.as_str() {
            "_pg_truetypid" => Some("atttypid"),
            "_pg_truetypmod" => Some("atttypmod"),
            _ => None,
        } {
            let Some(FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(table))) = arguments.first() else {
                return unplanned(format!("{name} of this form"));
            };
            let table = table.0.last().and_then(|part| part.as_ident()).cloned();
            let names: Vec<Ident> = table.into_iter().chain([Ident::new(column)]).collect();
            return self.compound(&names, scope);
        }
        let arguments = plain_arguments(arguments)?;
        if name == "row" {
            let items: Vec<Expr> = arguments.into_iter().cloned().collect();
            return self.row(&items, scope);
        }
        self.call(&name, &arguments, scope)
    }

    fn window(
        &self,
        kind: WindowKind,
        of: u32,
        argument: Option<Node>,
        window: &WindowType,
        scope: &Scope<'_>,
    ) -> Plan<Typed> {
        let WindowType::WindowSpec(spec) = window else { return unplanned("a named window") };
        if spec.window_frame.is_some() || spec.window_name.is_some() {
            return unplanned("a window with a frame");
        }
        let partition = spec.partition_by.iter().map(|expr| Ok(self.expression(expr, scope)?.node));
        let partition = partition.collect::<Plan<Vec<Node>>>()?;
        let order = self.order(&spec.order_by, scope)?;
        let mut windows = scope.windows.borrow_mut();
        windows.push(Window { kind, argument, partition, order });
        Ok(Typed::new(Node::Window(windows.len() - 1), of))
    }

    fn order(&self, order: &[OrderByExpr], scope: &Scope<'_>) -> Plan<Vec<(Node, Order)>> {
        order.iter().map(|by| Ok((self.expression(&by.expr, scope)?.node, direction(by, 0)))).collect()
    }

    fn aggregate(
        &self,
        kind: AggregateKind,
        function: &Function,
        arguments: &[FunctionArg],
        scope: &Scope<'_>,
    ) -> Plan<Typed> {
        let (mut distinct, mut order) = (false, Vec::new());
        if let FunctionArguments::List(list) = &function.args {
            distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
            for clause in &list.clauses {
                let FunctionArgumentClause::OrderBy(by) = clause else { return unplanned("a clause of an aggregate") };
                order = self.order(by, scope)?;
            }
        }
        let rows = matches!(arguments, [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]) || arguments.is_empty();
        let (kind, mut nodes) = match (kind, rows) {
            (AggregateKind::Count, true) => (AggregateKind::CountRows, Vec::new()),
            (_, true) => return unplanned("an aggregate of nothing"),
            (kind, false) => {
                let arguments = plain_arguments(arguments)?;
                (kind, arguments.into_iter().map(|e| self.expression(e, scope)).collect::<Plan<Vec<Typed>>>()?)
            }
        };
        let first = nodes.first().map_or(types::INT8, |typed| known(typed.of));
        let fields = nodes.first().and_then(|typed| typed.fields.clone());
        let of = match kind {
            AggregateKind::CountRows | AggregateKind::Count => types::INT8,
            AggregateKind::Min | AggregateKind::Max => first,
            AggregateKind::Sum => match first {
                types::INT2 | types::INT4 => types::INT8,
                types::INT8 => types::NUMERIC,
                of => of,
            },
            AggregateKind::Average => {
                if types::is_integer(first) {
                    types::NUMERIC
                } else {
                    first
                }
            }
            AggregateKind::Every | AggregateKind::Some => types::BOOL,
            AggregateKind::List => {
                let list = if first == types::RECORD { Some(2287) } else { base().array_of(first) };
                list.ok_or_else(|| Unplanned("an array of this type".into()))?
            }
            AggregateKind::Join => types::TEXT,
        };
        if kind == AggregateKind::Join {
            nodes = nodes.into_iter().map(|typed| self.convert(typed, types::TEXT)).collect::<Plan<_>>()?;
        }
        let nodes: Vec<Node> = nodes.into_iter().map(|typed| typed.node).collect();
        if let Some(window) = &function.over {
            if distinct || !order.is_empty() || function.filter.is_some() || nodes.len() > 1 {
                return unplanned("an aggregate over a window with a clause");
            }
            return self.window(WindowKind::Aggregate(kind), of, nodes.into_iter().next(), window, scope);
        }
        let filter = function.filter.as_ref().map(|filter| self.condition(filter, scope)).transpose()?;
        let mut aggregates = scope.aggregates.borrow_mut();
        aggregates.push(Aggregate { kind, arguments: nodes, distinct, order, filter });
        let fields = if of == first { fields } else { None };
        Ok(Typed { node: Node::Aggregate(aggregates.len() - 1), of, fields })
    }

    /// A call of a function by its name.
    pub fn call(&self, name: &str, arguments: &[&Expr], scope: &Scope<'_>) -> Plan<Typed> {
        let of_catalog = functions::is_of_catalog(name);
        self.concerns_catalog.set(self.concerns_catalog.get() || of_catalog);
        let arguments = arguments.iter().map(|expr| self.expression(expr, scope)).collect::<Plan<Vec<Typed>>>()?;
        match name {
            "coalesce" => {
                let of = known(arguments.iter().map(|typed| typed.of).fold(types::UNKNOWN, common));
                let nodes = arguments.into_iter().map(|typed| Ok(self.convert(typed, of)?.node));
                return Ok(Typed::new(Node::Coalesce(nodes.collect::<Plan<_>>()?), of));
            }
            "nullif" => {
                let [a, b] = <[Typed; 2]>::try_from(arguments).map_err(|_| Unplanned("nullif".into()))?;
                let (a, b) = self.alike(a, b)?;
                let of = a.of;
                let function = functions::scalar("nullif", 2).ok_or_else(|| Unplanned("nullif".into()))?;
                return Ok(Typed::new(Node::Call { function, arguments: vec![a.node, b.node] }, of));
            }
            "row_to_json" => {
                let [row] = <[Typed; 1]>::try_from(arguments).map_err(|_| Unplanned("row_to_json".into()))?;
                let fields = row.fields.ok_or_else(|| Unplanned("row_to_json of what is no row".into()))?;
                let function = functions::scalar(name, 2).ok_or_else(|| Unplanned("row_to_json".into()))?;
                let names = Value::list(fields.iter().map(|(name, _)| Value::text(name)).collect());
                return Ok(Typed::new(
                    Node::Call { function, arguments: vec![Node::Constant(names), row.node] },
                    types::JSON,
                ));
            }
            "pg_typeof" => {
                let of = arguments.first().map_or(types::UNKNOWN, |typed| typed.of);
                let nodes = arguments.into_iter().map(|typed| typed.node).collect();
                return Ok(Typed::new(Node::Answer(Value::Int(i64::from(of)), nodes), types::REGTYPE));
            }
            _ => {}
        }
        if let Some(set) = functions::set(name, arguments.len()) {
            let (arguments, fields) = self.set_call(set, arguments)?;
            let mut sets = scope.sets.borrow_mut();
            sets.push((set, arguments));
            let node = Node::Set(sets.len() - 1);
            return Ok(match fields.as_slice() {
                [(_, of)] if set.is_single() => Typed::new(node, *of),
                _ => Typed { node, of: types::RECORD, fields: Some(Arc::new(fields)) },
            });
        }
        self.call_typed(name, arguments)
    }

    fn call_typed(&self, name: &str, arguments: Vec<Typed>) -> Plan<Typed> {
        let Some(function) = functions::scalar(name, arguments.len()) else {
            if let Some((value, of)) = functions::answer(name, arguments.len()) {
                let arguments = arguments.into_iter().map(|typed| Ok(self.convert_unknown(typed, types::TEXT)?.node));
                return Ok(Typed::new(Node::Answer(value, arguments.collect::<Plan<_>>()?), of));
            }
            return unplanned(format!("function {name} with {} arguments", arguments.len()));
        };
        let given: Vec<u32> = arguments.iter().map(|typed| typed.of).collect();
        let arguments = self.convert_all(function, arguments)?;
        let of = match function.of {
            Of::Is(of) => of,
            Of::First => known(given.first().copied().unwrap_or(types::TEXT)),
            Of::Common => known(given.iter().copied().fold(types::UNKNOWN, common)),
        };
        Ok(Typed::new(Node::Call { function, arguments }, of))
    }

    fn convert_all(&self, function: &Scalar, arguments: Vec<Typed>) -> Plan<Vec<Node>> {
        let wanted = |at: usize| function.arguments.get(at).or(function.arguments.last()).copied().unwrap_or(0);
        let convert = |(at, typed): (usize, Typed)| match wanted(at) {
            0 => Ok(self.convert_unknown(typed, types::TEXT)?.node),
            // A relation is named by its object id or by its name.
            types::REGCLASS | types::OID if types::is_integer(typed.of) => Ok(typed.node),
            of => Ok(self.convert(typed, of)?.node),
        };
        arguments.into_iter().enumerate().map(convert).collect()
    }

    /// The arguments of a set-returning function, and the columns that it gives.
    pub fn set_call(&self, set: &'static Set, arguments: Vec<Typed>) -> Plan<(Vec<Node>, Vec<(String, u32)>)> {
        let arguments = arguments.into_iter().enumerate().map(|(at, typed)| match set.arguments.get(at).copied() {
            Some(of) if of != 0 => self.convert(typed, of),
            _ => self.convert_unknown(typed, types::TEXT),
        });
        let arguments = arguments.collect::<Plan<Vec<Typed>>>()?;
        let first = arguments.first().map(|typed| typed.of);
        let column = |(name, of): (String, u32)| match of {
            // The element of the list that it is given, or the type of what it is given.
            0 => {
                let element = first.map(|of| base().element_of(of).unwrap_or(of));
                Ok((name, element.ok_or_else(|| Unplanned(set.name.to_string()))?))
            }
            of => Ok((name, of)),
        };
        let columns = set.columns().into_iter().map(column).collect::<Plan<Vec<(String, u32)>>>()?;
        Ok((arguments.into_iter().map(|typed| typed.node).collect(), columns))
    }
}

/// The column `xmin`: rows of the catalog have no transactions.
fn transaction() -> Typed {
    Typed::new(Node::Constant(Value::text("1")), types::XID)
}

fn escape_of(escape: Option<&sqlparser::ast::ValueWithSpan>) -> Option<char> {
    match escape.and_then(|value| value.value.clone().into_string()) {
        None => Some('\\'),
        Some(text) => text.chars().next(),
    }
}

fn is_number(of: u32) -> bool {
    types::is_integer(of) || types::is_float(of)
}

fn known_number(of: u32) -> u32 {
    if of == types::UNKNOWN { types::INT4 } else { of }
}

/// An operator, and whether its answer is turned round.
enum Operator {
    Compare(Comparison),
    Compute(Arithmetic),
    Match(Pattern),
    Concat,
    Contains,
    Contained,
    Overlaps,
}

fn operator(op: &BinaryOperator) -> Plan<(Operator, bool)> {
    let symbol = match op {
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().cloned().unwrap_or_default(),
        op => op.to_string(),
    };
    let like = |ignore_case| Operator::Match(Pattern::Like { ignore_case, escape: Some('\\') });
    let regex = |ignore_case| Operator::Match(Pattern::Regex { ignore_case });
    Ok(match symbol.as_str() {
        "=" => (Operator::Compare(Comparison::Equal), false),
        "<>" | "!=" => (Operator::Compare(Comparison::NotEqual), false),
        "<" => (Operator::Compare(Comparison::Less), false),
        "<=" => (Operator::Compare(Comparison::LessOrEqual), false),
        ">" => (Operator::Compare(Comparison::Greater), false),
        ">=" => (Operator::Compare(Comparison::GreaterOrEqual), false),
        "+" => (Operator::Compute(Arithmetic::Add), false),
        "-" => (Operator::Compute(Arithmetic::Subtract), false),
        "*" => (Operator::Compute(Arithmetic::Multiply), false),
        "/" => (Operator::Compute(Arithmetic::Divide), false),
        "%" => (Operator::Compute(Arithmetic::Modulo), false),
        "&" => (Operator::Compute(Arithmetic::And), false),
        "|" => (Operator::Compute(Arithmetic::Or), false),
        "<<" => (Operator::Compute(Arithmetic::ShiftLeft), false),
        ">>" => (Operator::Compute(Arithmetic::ShiftRight), false),
        "||" => (Operator::Concat, false),
        "~" => (regex(false), false),
        "~*" => (regex(true), false),
        "!~" => (regex(false), true),
        "!~*" => (regex(true), true),
        "~~" => (like(false), false),
        "~~*" => (like(true), false),
        "!~~" => (like(false), true),
        "!~~*" => (like(true), true),
        "@>" => (Operator::Contains, false),
        "<@" => (Operator::Contained, false),
        "&&" => (Operator::Overlaps, false),
        other => return unplanned(format!("operator {other}")),
    })
}

fn aggregate(name: &str) -> Option<AggregateKind> {
    Some(match name {
        "count" => AggregateKind::Count,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        "sum" => AggregateKind::Sum,
        "avg" => AggregateKind::Average,
        "bool_and" | "every" => AggregateKind::Every,
        "bool_or" => AggregateKind::Some,
        "array_agg" => AggregateKind::List,
        "string_agg" => AggregateKind::Join,
        _ => return None,
    })
}

/// The object id of a type as SQL writes it.
pub fn type_of(data_type: &DataType) -> Plan<u32> {
    let text = data_type.to_string();
    type_named(&text).ok_or_else(|| Unplanned(format!("type {text}")))
}

/// The object id of a type by its name, as it may be written.
pub fn type_named(text: &str) -> Option<u32> {
    let text = text.trim();
    if let Some(element) = text.strip_suffix("[]") {
        return base().array_of(type_named(element)?);
    }
    if text == "\"char\"" || text == "pg_catalog.\"char\"" {
        return Some(types::CHAR);
    }
    let lower = text.to_lowercase().replace('"', "");
    // Domains of information_schema are the types beneath them.
    if let Some(domain) = lower.strip_prefix("information_schema.") {
        return Some(match domain {
            "cardinal_number" => types::INT4,
            "time_stamp" => types::TIMESTAMPTZ,
            "sql_identifier" => types::NAME,
            "character_data" | "yes_or_no" => types::VARCHAR,
            _ => return None,
        });
    }
    let name = lower.strip_prefix("pg_catalog.").unwrap_or(&lower);
    // Without lengths and precisions.
    let name = match (name.find('('), name.rfind(')')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", name[..open].trim_end(), &name[close + 1..]),
        _ => name.to_string(),
    };
    let name = match name.as_str() {
        "boolean" => "bool",
        "smallint" => "int2",
        "integer" | "int" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" | "float" | "double" => "float8",
        "decimal" | "dec" => "numeric",
        "character varying" | "char varying" => "varchar",
        "character" | "char" => "bpchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        "time with time zone" => "timetz",
        "bit varying" => "varbit",
        other => other,
    };
    base().type_named(name)
}

/// The name that PostgreSQL gives the column of an expression (`FigureColname` of its parser).
pub fn name_of(expr: &Expr) -> String {
    strong_name(expr).unwrap_or_else(|| weak_name(expr).unwrap_or_else(|| "?column?".to_string()))
}

/// A name that the expression has itself.
fn strong_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => strong_name(inner),
        Expr::Identifier(name) => Some(folded(name)),
        Expr::CompoundIdentifier(names) => names.last().map(folded),
        Expr::Function(function) => function.name.0.last().and_then(|part| part.as_ident()).map(folded),
        Expr::Cast { expr, .. } => strong_name(expr),
        Expr::Case { else_result, .. } => else_result.as_ref().and_then(|expr| strong_name(expr)),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(name)) => Some(folded(name)),
                _ => None,
            });
            field.or_else(|| strong_name(root))
        }
        Expr::Subquery(query) => match &*query.body {
            SetExpr::Select(select) => match select.projection.first()? {
                sqlparser::ast::SelectItem::UnnamedExpr(expr) => Some(name_of(expr)).filter(|name| name != "?column?"),
                sqlparser::ast::SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                _ => None,
            },
            _ => None,
        },
        Expr::Array(_) => Some("array".into()),
        Expr::Exists { .. } => Some("exists".into()),
        Expr::Position { .. } => Some("position".into()),
        Expr::Substring { .. } => Some("substring".into()),
        Expr::Trim { trim_where, .. } => Some(
            match trim_where {
                None | Some(TrimWhereField::Both) => "btrim",
                Some(TrimWhereField::Leading) => "ltrim",
                Some(TrimWhereField::Trailing) => "rtrim",
            }
            .into(),
        ),
        Expr::Tuple(_) => Some("row".into()),
        _ => None,
    }
}

/// A name that only stands in for one: the type of a cast, the word CASE.
fn weak_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => weak_name(inner),
        Expr::Cast { data_type, .. } => {
            let of = type_of(data_type).ok()?;
            base().type_of(of).map(|kind| kind.name.trim_start_matches('_').to_string())
        }
        Expr::TypedString(typed) => {
            let of = type_of(&typed.data_type).ok()?;
            base().type_of(of).map(|kind| kind.name.clone())
        }
        Expr::Value(value) if matches!(value.value, Literal::Boolean(_)) => Some("bool".into()),
        Expr::Case { .. } => Some("case".into()),
        _ => None,
    }
}
