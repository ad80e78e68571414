//! What PostgreSQL's SQL has and DataFusion's planner lacks, said in other words before a statement is planned: functions
//! that return rows become `unnest` of arrays, casts to types that Arrow lacks become calls, rows are compared member by
//! member. Names of result columns come from the statement as it was written ([`super::names`]).

mod written;

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, Array, ArrayElemTypeDef, BinaryOperator, DataType, DateTimeField, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, LimitClause, ObjectName,
    OrderByExpr, Query, Select, SelectItem, SetExpr, Statement, Subscript, TableAlias, TableAliasColumnDef,
    TableFactor, TableWithJoins, TimezoneInfo, TypedString, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
    visit_expressions_mut,
};

use super::function::scalar::Type;
use super::function::scalars;
use super::types;
use crate::error::{Error, Kind, Result};
use crate::format::subtype::Subtype;
use crate::rollup::calendar;

/// Rewrites a statement.
pub fn statement(statement: &mut Statement) -> Result<()> {
    match VisitMut::visit(statement, &mut Rewrite::default()) {
        ControlFlow::Break(err) => Err(*err),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Rewrites an expression.
pub fn expression(expr: &mut Expr) -> Result<()> {
    match VisitMut::visit(expr, &mut Rewrite::default()) {
        ControlFlow::Break(err) => Err(*err),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The most copies of an expression that stands in several others which are written out.
const MAX_COPIES: usize = 10_000;

#[derive(Default)]
struct Rewrite {
    /// How often the parts of each expression that is being visited are written in its place.
    copies: Vec<usize>,
}

impl VisitorMut for Rewrite {
    type Break = Box<Error>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.copies.push(copies(expr));
        settled(self.check())?;
        // Before its parts are: a row is no value of its own.
        settled(rows_compared(expr).or_else(|| aggregate(expr)).unwrap_or(Ok(())))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.copies.pop();
        settled(replaced(expr))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        settled(rows_in_from(factor))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        written::values_of_types(query);
        settled(fetch(query))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        rows_in_list(select);
        existence(select);
        settled(lateral(select))
    }
}

impl Rewrite {
    /// Fails where expressions that are written out stand in each other: a list of any length may stand in no other.
    fn check(&self) -> Result<()> {
        let several = self.copies.iter().filter(|copies| **copies > 1);
        let all = several.clone().fold(1, |all: usize, copies| all.saturating_mul(*copies));
        if all <= MAX_COPIES || several.count() < 2 {
            return Ok(());
        }
        Err(Error::new(Kind::TooComplex, "comparisons of rows or with lists are nested too deeply")
            .with_hint("Let the inner ones be columns of a subquery."))
    }
}

/// How often parts of an expression are there once it is written out.
fn copies(expr: &Expr) -> usize {
    fn members(expr: &Expr) -> usize {
        match expr {
            Expr::Array(array) => array.elem.len(),
            Expr::Tuple(members) => members.len(),
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => members(inner),
            Expr::Function(function) => plain_call(function)
                .map_or(0, |(_, arguments)| arguments.iter().map(|argument| members(argument)).sum()),
            _ => 0,
        }
    }
    fn is_row(expr: &Expr) -> bool {
        match expr {
            Expr::Tuple(_) => true,
            Expr::Nested(inner) => is_row(inner),
            _ => false,
        }
    }
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, .. } if is_row(left) => 6,
        Expr::BinaryOp { left, .. } if is_row(left) => 2,
        Expr::InList { expr, list, .. } if is_row(expr) => list.len(),
        Expr::AnyOp { compare_op, right, .. } | Expr::AllOp { compare_op, right, .. } if !is_comparison(compare_op) => {
            members(right)
        }
        Expr::Like { pattern, .. } | Expr::ILike { pattern, .. } => members(pattern),
        _ => 1,
    }
}

fn settled(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(err) => ControlFlow::Break(Box::new(err)),
    }
}

/// A call of a function.
fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn number(number: i64) -> Expr {
    Expr::value(Value::Number(number.to_string(), false))
}

fn text(text: impl Into<String>) -> Expr {
    Expr::value(Value::SingleQuotedString(text.into()))
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(Value::Null))
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// A literal text.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            Value::DollarQuotedString(text) => Some(&text.value),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

/// The lower-case name of a function without a schema, and its arguments, if all are plain.
fn plain_call(function: &Function) -> Option<(String, Vec<&Expr>)> {
    let name = function.name.0.last()?.as_ident()?.value.to_lowercase();
    let FunctionArguments::List(list) = &function.args else { return None };
    let argument = |arg: &FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(_)));
    if !list.args.iter().all(argument) {
        return None;
    }
    let arguments = list.args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((name, arguments.collect()))
}

/// `FETCH FIRST n ROWS ONLY` as LIMIT.
fn fetch(query: &mut Query) -> Result<()> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.with_ties || fetch.percent {
        let what = if fetch.with_ties { "WITH TIES" } else { "PERCENT" };
        return Err(Error::new(Kind::NotSupported, format!("FETCH FIRST … {what} is not supported"))
            .with_hint("rank() OVER (ORDER BY …) tells which rows are tied."));
    }
    let limit = Some(fetch.quantity.unwrap_or_else(|| number(1)));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: given, .. }) if given.is_none() => *given = limit,
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() });
        }
        Some(_) => return Err(Error::new(Kind::Syntax, "multiple LIMIT clauses not allowed")),
    }
    Ok(())
}

/// The arrays behind a function that returns rows, each with the name of its column.
fn arrays_of(name: &str, arguments: Vec<Expr>) -> std::result::Result<Vec<(Expr, &'static str)>, Vec<Expr>> {
    let one =
        |function: &str, arguments: Vec<Expr>, column: &'static str| Ok(vec![(call(function, arguments), column)]);
    match (name, arguments.len()) {
        ("unnest", 1..) => Ok(arguments.into_iter().map(|array| (array, "unnest")).collect()),
        ("generate_series", 2 | 3) => {
            let mut arguments = arguments;
            // The step of times may be written as a text.
            if let Some(step) = arguments.get_mut(2).filter(|step| literal(step).is_some()) {
                *step = Expr::Cast {
                    kind: sqlparser::ast::CastKind::Cast,
                    expr: Box::new(take(step)),
                    data_type: DataType::Interval { fields: None, precision: None },
                    array: false,
                    format: None,
                };
            }
            one("series", arguments, "generate_series")
        }
        ("generate_subscripts", 2 | 3) => {
            one("subscripts", arguments.into_iter().take(1).collect(), "generate_subscripts")
        }
        ("regexp_split_to_table", 2 | 3) => one("regexp_split_to_array", arguments, "regexp_split_to_table"),
        ("regexp_matches", 2 | 3) => one("regexp_all", arguments, "regexp_matches"),
        ("string_to_table", 2 | 3) => one("string_to_array", arguments, "string_to_table"),
        ("json_array_elements", 1) => one("json_elements", arguments, "value"),
        ("jsonb_array_elements", 1) => one("jsonb_elements", arguments, "value"),
        ("json_array_elements_text" | "jsonb_array_elements_text", 1) => one("json_elements_text", arguments, "value"),
        ("jsonb_object_keys", 1) => one("json_keys", arguments, "jsonb_object_keys"),
        ("json_object_keys", 1) => one("json_keys", arguments, "json_object_keys"),
        ("json_each" | "jsonb_each", 1) => {
            Ok(vec![(call("json_keys", arguments.clone()), "key"), (call("json_values", arguments), "value")])
        }
        ("json_each_text" | "jsonb_each_text", 1) => {
            Ok(vec![(call("json_keys", arguments.clone()), "key"), (call("json_values_text", arguments), "value")])
        }
        _ => Err(arguments),
    }
}

/// The rows of an array. Their type is lost on the way where they are more than texts, and said again.
fn unnested(array: Expr) -> Expr {
    let subtype = element_of(&array);
    let rows = call("unnest", vec![array]);
    match subtype {
        Some(subtype) => call(types::reader(subtype), vec![rows]),
        None => rows,
    }
}

/// What the elements of an array are that one of our functions made, where they are more than texts.
fn element_of(array: &Expr) -> Option<Subtype> {
    let Expr::Function(function) = array else { return None };
    match function.name.to_string().as_str() {
        "json_elements" => Some(Subtype::Json),
        "jsonb_elements" | "json_values" => Some(Subtype::Jsonb),
        _ => None,
    }
}

fn is_whole_number(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => {
            matches!(&value.value, Value::Number(digits, _) if digits.bytes().all(|c| c.is_ascii_digit()))
        }
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_whole_number(expr),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_whole_number(expr),
        _ => false,
    }
}

/// Functions that return rows in FROM.
fn rows_in_from(factor: &mut TableFactor) -> Result<()> {
    let plain = |args: &[FunctionArg]| -> Option<Vec<Expr>> {
        let one = |arg: &FunctionArg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        };
        args.iter().map(one).collect()
    };
    let (name, arguments, alias, ordinality) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => {
            (name.0.last().and_then(|part| part.as_ident()), plain(&args.args), alias, *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            (name.0.last().and_then(|part| part.as_ident()), plain(args), alias, *with_ordinality)
        }
        TableFactor::UNNEST { array_exprs, alias, with_offset: false, with_ordinality, .. } => {
            (None, Some(array_exprs.clone()), alias, *with_ordinality)
        }
        _ => return Ok(()),
    };
    let name = name.map_or_else(|| "unnest".to_string(), |ident| ident.value.to_lowercase());
    let Some(arguments) = arguments else { return Ok(()) };
    let (mut alias, mut columns) = (alias.take(), Vec::new());
    // Numbers that are written out may be as many as one likes: these rows are made one by one.
    let streams = name == "generate_series" && arguments.iter().all(is_whole_number) && !ordinality;
    let mut arrays = Vec::new();
    if streams {
        columns.push("generate_series");
    } else {
        match arrays_of(&name, arguments) {
            Ok(found) => {
                for (array, column) in found {
                    arrays.push(array);
                    columns.push(column);
                }
            }
            Err(_) => {
                // Another function: as it was.
                match factor {
                    TableFactor::Table { alias: place, .. } | TableFactor::Function { alias: place, .. } => {
                        *place = alias
                    }
                    _ => {}
                }
                return Ok(());
            }
        }
        if ordinality {
            arrays.push(call("subscripts", vec![arrays[0].clone()]));
            columns.push("ordinality");
        }
    }
    let has_alias = alias.is_some();
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(name.clone()),
        columns: Vec::new(),
        at: None,
    });
    // One column is called as the table is.
    let own = if has_alias && columns.len() - usize::from(ordinality) == 1 { Some(alias.name.clone()) } else { None };
    for (at, column) in columns.iter().enumerate().skip(alias.columns.len()) {
        let column = match &own {
            Some(own) if at == 0 => own.clone(),
            _ => Ident::with_quote('"', *column),
        };
        alias.columns.push(TableAliasColumnDef { name: column, data_type: None });
    }
    alias.columns.iter_mut().for_each(|column| column.data_type = None);
    let alias = Some(alias.clone());
    if streams {
        match factor {
            TableFactor::Table { alias: place, .. } | TableFactor::Function { alias: place, .. } => *place = alias,
            _ => {}
        }
        return Ok(());
    }
    if arrays.iter().any(|array| element_of(array).is_some()) && !arrays.iter().any(names_columns) {
        let names = alias.as_ref().map(|alias| alias.columns.clone()).unwrap_or_default();
        let mut inner = select_all();
        inner.from = Vec::new();
        let columns = arrays.into_iter().zip(names);
        let item = |(array, column): (Expr, TableAliasColumnDef)| SelectItem::ExprWithAlias {
            expr: unnested(array),
            alias: column.name,
        };
        inner.projection = columns.map(item).collect();
        *factor = TableFactor::Derived { lateral: false, subquery: Box::new(query_of(inner)), alias, sample: None };
        return Ok(());
    }
    *factor = TableFactor::UNNEST {
        alias,
        array_exprs: arrays,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
    Ok(())
}

/// Functions that return rows in a select list.
fn rows_in_list(select: &mut Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let Expr::Function(function) = expr else { continue };
        let Some((name, arguments)) = plain_call(function) else { continue };
        // It may also be called as a function that gives an array.
        if name == "unnest" || name == "json_object_keys" || function.over.is_some() {
            continue;
        }
        let arguments: Vec<Expr> = arguments.into_iter().cloned().collect();
        if let Ok(mut arrays) = arrays_of(&name, arguments)
            && arrays.len() == 1
        {
            *expr = unnested(arrays.remove(0).0);
        }
    }
}

/// Whether an expression names a column.
fn names_columns(expr: &Expr) -> bool {
    struct Columns;
    impl Visitor for Columns {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Columns).is_break()
}

/// `FROM t, unnest(t.array) AS u(x)`: the rows of a table with those of an array in each. The table with a column more
/// stands for both; `u.x` is `t.x` then.
fn lateral(select: &mut Select) -> Result<()> {
    let reads = |factor: &TableFactor| match factor {
        TableFactor::UNNEST { array_exprs, .. } => array_exprs.iter().any(names_columns),
        _ => false,
    };
    let followed = |select: &Select| match select.from.as_slice() {
        [table, next] if table.joins.is_empty() && next.joins.is_empty() => reads(&next.relation),
        [table] => match table.joins.as_slice() {
            [join] => is_cross(&join.join_operator) && reads(&join.relation),
            _ => false,
        },
        _ => false,
    };
    if !followed(select) {
        return Ok(());
    }
    let (table, arrays) = if select.from.len() == 2 {
        let arrays = select.from.remove(1).relation;
        (&mut select.from[0].relation, arrays)
    } else {
        let arrays = select.from[0].joins.remove(0).relation;
        (&mut select.from[0].relation, arrays)
    };
    let (TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. }) = &*table else {
        return Err(Error::new(Kind::NotSupported, "rows of arrays can be joined with those of one table only")
            .with_hint("Put what stands before it into a subquery with a name."));
    };
    let name = match (alias, &*table) {
        (Some(alias), _) => alias.name.clone(),
        (None, TableFactor::Table { name, .. }) => match name.0.last().and_then(|part| part.as_ident()) {
            Some(ident) => ident.clone(),
            None => return Ok(()),
        },
        (None, _) => return Ok(()),
    };
    let TableFactor::UNNEST { alias: Some(of), array_exprs, .. } = arrays else { return Ok(()) };
    let columns = of.columns.iter().map(|column| column.name.clone());
    let columns = array_exprs
        .into_iter()
        .zip(columns)
        .map(|(array, column)| SelectItem::ExprWithAlias { expr: unnested(array), alias: column });
    let mut inner = select_all();
    inner.projection.extend(columns);
    inner.from = vec![TableWithJoins {
        relation: std::mem::replace(
            table,
            TableFactor::NestedJoin {
                table_with_joins: Box::new(TableWithJoins { relation: nothing(), joins: Vec::new() }),
                alias: None,
            },
        ),
        joins: Vec::new(),
    }];
    let query = query_of(inner);
    *table = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(TableAlias { explicit: true, name: name.clone(), columns: Vec::new(), at: None }),
        sample: None,
    };
    let _ = visit_expressions_mut(select, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [table, _] = parts.as_mut_slice()
            && *table == of.name
        {
            *table = name.clone();
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(())
}

fn is_cross(operator: &sqlparser::ast::JoinOperator) -> bool {
    use sqlparser::ast::{JoinConstraint, JoinOperator};
    let is_true = |constraint: &JoinConstraint| match constraint {
        JoinConstraint::On(Expr::Value(value)) => value.value == Value::Boolean(true),
        JoinConstraint::None => true,
        _ => false,
    };
    match operator {
        JoinOperator::CrossJoin(constraint) | JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
            is_true(constraint)
        }
        _ => false,
    }
}

fn query_of(select: Select) -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// `EXISTS (query)` in a select list as a count.
fn existence(select: &mut Select) {
    for item in &mut select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        let _ = visit_expressions_mut(expr, |expr| {
            if let Expr::Exists { subquery, negated } = expr {
                let count = if *negated { "SELECT count(*) = 0 FROM x" } else { "SELECT count(*) > 0 FROM x" };
                let Some(mut counted) = parsed_select(count) else { return ControlFlow::Continue(()) };
                counted.from[0].relation = TableFactor::Derived {
                    lateral: false,
                    subquery: subquery.clone(),
                    alias: Some(TableAlias {
                        explicit: true,
                        name: Ident::new("found"),
                        columns: Vec::new(),
                        at: None,
                    }),
                    sample: None,
                };
                *expr = Expr::Subquery(Box::new(query_of(counted)));
            }
            ControlFlow::<()>::Continue(())
        });
    }
}

/// `SELECT *`.
fn select_all() -> Select {
    parsed_select("SELECT * FROM x").expect("it is a SELECT")
}

fn parsed_select(text: &str) -> Option<Select> {
    let parsed = super::grammar::statements(text);
    match parsed.ok()?.pop()? {
        Statement::Query(query) => match *query.body {
            SetExpr::Select(select) => Some(*select),
            _ => None,
        },
        _ => None,
    }
}

fn nothing() -> TableFactor {
    select_all().from.remove(0).relation
}

/// Comparisons of rows, member by member. `None` where there are none.
fn rows_compared(expr: &mut Expr) -> Option<Result<()>> {
    fn members(expr: &mut Expr) -> Option<&mut Vec<Expr>> {
        match expr {
            Expr::Tuple(members) => Some(members),
            Expr::Nested(inner) => members(inner),
            Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => None,
            _ => None,
        }
    }
    let different = || Error::new(Kind::Syntax, "unequal number of entries in row expressions");
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => {
            let (Some(left), Some(right)) = (members(left), members(right)) else { return None };
            let [a, b] = left.as_mut_slice() else { return Some(Err(different())) };
            let [c, d] = right.as_mut_slice() else { return Some(Err(different())) };
            *expr = overlap([take(a), take(b)], [take(c), take(d)]);
        }
        Expr::BinaryOp { left, op, right } => {
            let op = op.clone();
            let (left, right) = (members(left)?, members(right)?);
            if !is_comparison(&op) {
                return None;
            }
            if left.len() != right.len() {
                return Some(Err(different()));
            }
            let pairs: Vec<(Expr, Expr)> = left.iter_mut().map(take).zip(right.iter_mut().map(take)).collect();
            *expr = compared(pairs, &op)?;
        }
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            let (left, right) = (members(left)?, members(right)?);
            if left.len() != right.len() {
                return Some(Err(different()));
            }
            let same = left.iter_mut().map(take).zip(right.iter_mut().map(take));
            let same = same.map(|(a, b)| Expr::IsNotDistinctFrom(Box::new(a), Box::new(b)));
            let same = nested(same.reduce(|a, b| binary(a, BinaryOperator::And, b))?);
            let negated = matches!(expr, Expr::IsDistinctFrom(..));
            *expr = if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(same) } } else { same };
        }
        Expr::InList { expr: value, list, negated } => {
            let value = members(value)?.clone();
            if list.iter_mut().any(|row| members(row).is_none()) {
                return None;
            }
            let mut any = Vec::new();
            for row in list {
                let row = members(row)?;
                if row.len() != value.len() {
                    return Some(Err(different()));
                }
                let pairs = value.iter().cloned().zip(row.iter_mut().map(take)).collect();
                any.push(compared(pairs, &BinaryOperator::Eq)?);
            }
            let any = nested(any.into_iter().reduce(|a, b| binary(a, BinaryOperator::Or, b))?);
            *expr = if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) } } else { any };
        }
        _ => return None,
    }
    Some(Ok(()))
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// Two rows, compared as PostgreSQL compares them; `None` for another operator.
fn compared(pairs: Vec<(Expr, Expr)>, op: &BinaryOperator) -> Option<Expr> {
    let equal = |(a, b): (Expr, Expr)| binary(a, BinaryOperator::Eq, b);
    Some(nested(match op {
        BinaryOperator::Eq => pairs.into_iter().map(equal).reduce(|a, b| binary(a, BinaryOperator::And, b))?,
        BinaryOperator::NotEq => {
            let differ = pairs.into_iter().map(|(a, b)| binary(a, BinaryOperator::NotEq, b));
            differ.reduce(|a, b| binary(a, BinaryOperator::Or, b))?
        }
        BinaryOperator::Lt | BinaryOperator::LtEq | BinaryOperator::Gt | BinaryOperator::GtEq => {
            let strict = match op {
                BinaryOperator::Lt | BinaryOperator::LtEq => BinaryOperator::Lt,
                _ => BinaryOperator::Gt,
            };
            // The last member decides by the operator itself, those before it only where they differ.
            let mut pairs = pairs.into_iter().rev();
            let (a, b) = pairs.next()?;
            pairs.fold(binary(a, op.clone(), b), |rest, (a, b)| {
                let less = binary(a.clone(), strict.clone(), b.clone());
                let tied = nested(binary(equal((a, b)), BinaryOperator::And, nested(rest)));
                nested(binary(less, BinaryOperator::Or, tied))
            })
        }
        _ => return None,
    }))
}

/// Whether two spans of time have a moment in common. An end may be a length.
fn overlap([a, b]: [Expr; 2], [c, d]: [Expr; 2]) -> Expr {
    let is_length = |expr: &Expr| match expr {
        Expr::Interval(_) => true,
        Expr::Cast { data_type, .. } => matches!(data_type, DataType::Interval { .. }),
        _ => false,
    };
    let end = |start: &Expr, end: Expr| {
        if is_length(&end) { nested(binary(start.clone(), BinaryOperator::Plus, end)) } else { end }
    };
    let (b, d) = (end(&a, b), end(&c, d));
    let least = |x: &Expr, y: &Expr| call("least", vec![x.clone(), y.clone()]);
    let most = |x: &Expr, y: &Expr| call("greatest", vec![x.clone(), y.clone()]);
    let before = |x: Expr, y: Expr| binary(x, BinaryOperator::Lt, y);
    let same = binary(least(&a, &b), BinaryOperator::Eq, least(&c, &d));
    let both = binary(before(least(&a, &b), most(&c, &d)), BinaryOperator::And, before(least(&c, &d), most(&a, &b)));
    nested(binary(same, BinaryOperator::Or, both))
}

/// Aggregates that are functions of an array of all values: `jsonb_agg(x ORDER BY y)` is a function of
/// `array_agg(x ORDER BY y)`. `None` where it is none of them.
fn aggregate(expr: &mut Expr) -> Option<Result<()>> {
    let Expr::Function(function) = expr else { return None };
    let name = function.name.0.last()?.as_ident()?.value.to_lowercase();
    let of_array = |function: &Function| {
        let mut array = function.clone();
        array.name = ObjectName::from(vec![Ident::new("array_agg")]);
        array
    };
    let replacement = match name.as_str() {
        "json_agg" => call("json_agg_of", vec![Expr::Function(of_array(function))]),
        "jsonb_agg" => call("to_jsonb", vec![Expr::Function(of_array(function))]),
        "json_object_agg" | "jsonb_object_agg" => {
            let (_, arguments) = plain_call(function)?;
            let [key, value] = arguments.as_slice() else { return None };
            let column = |argument: Expr| {
                let mut array = of_array(function);
                if let FunctionArguments::List(list) = &mut array.args {
                    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))];
                }
                Expr::Function(array)
            };
            let key = cast_to_text((*key).clone());
            let objects = if name == "jsonb_object_agg" { "jsonb_object_of" } else { "json_object_of" };
            call(objects, vec![column(key), column((*value).clone())])
        }
        "mode" | "percentile_disc" if function.within_group.len() == 1 => {
            let (_, arguments) = plain_call(function)?;
            let arguments: Vec<Expr> = arguments.into_iter().cloned().collect();
            let OrderByExpr { expr: value, .. } = &function.within_group[0];
            // NULL is no value of either.
            let is_value = Expr::IsNotNull(Box::new(value.clone()));
            let filter = match function.filter.take() {
                Some(filter) => binary(nested(*filter), BinaryOperator::And, is_value),
                None => is_value,
            };
            let mut array = of_array(function);
            array.args = FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(value.clone()))],
                clauses: vec![FunctionArgumentClause::OrderBy(std::mem::take(&mut array.within_group))],
            });
            array.filter = Some(Box::new(filter));
            let array = Expr::Function(array);
            match arguments.as_slice() {
                [] if name == "mode" => call("array_mode", vec![array]),
                [fraction] if name == "percentile_disc" => call("array_percentile", vec![fraction.clone(), array]),
                _ => return None,
            }
        }
        _ => return None,
    };
    *expr = replacement;
    Some(Ok(()))
}

fn cast_to_text(expr: Expr) -> Expr {
    cast_to(expr, DataType::Text)
}

fn cast_to(expr: Expr, data_type: DataType) -> Expr {
    let kind = sqlparser::ast::CastKind::Cast;
    Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None }
}

/// Whether it is `$1` or the like.
fn is_parameter(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::Placeholder(_)))
}

/// An expression whose parts have been rewritten.
fn replaced(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::Cast { expr: value, data_type, .. } => {
            if let Some(time) = literal(value).map(|given| written::timed(given, data_type)).transpose()?.flatten() {
                **value = time;
            } else if let Some(length) = written::length_of(data_type) {
                // What is longer is cut off.
                let whole = cast_to_text(take(value));
                **value = call("left", vec![whole, number(length)]);
                *data_type = DataType::Text;
            } else if written::is_whole(data_type) && written::is_fraction(value) {
                // A number that is written is exact: halves are rounded away from zero.
                **value = call("round", vec![take(value)]);
            }
            if let Some(subtype) = types::subtype_of(data_type) {
                *expr = call(types::reader(subtype), vec![take(value)]);
            } else if matches!(data_type, DataType::Bytea) && !is_parameter(value) {
                // A parameter is read as what it is cast to.
                *expr = call("as_bytea", vec![take(value)]);
            } else if let DataType::Array(element) = data_type {
                if let Some(text) = literal(value) {
                    **value = array(text)?;
                }
                // Arrays of such types are arrays of texts; they are not checked.
                if let ArrayElemTypeDef::SquareBracket(of, _) = element
                    && types::subtype_of(of).is_some()
                {
                    **of = DataType::Text;
                }
            }
        }
        Expr::TypedString(TypedString { data_type, value, .. }) => {
            let given = value.value.clone().into_string();
            if let Some(time) = given.as_deref().map(|given| written::timed(given, data_type)).transpose()?.flatten() {
                *expr = cast_to(time, data_type.clone());
                return Ok(());
            }
            if let (Some(subtype), Some(given)) = (types::subtype_of(data_type), given.clone()) {
                *expr = call(types::reader(subtype), vec![text(given)]);
            } else if let (DataType::Bytea, Some(given)) = (&*data_type, given) {
                *expr = call("as_bytea", vec![text(given)]);
            }
        }
        Expr::Interval(interval) if interval.leading_field.is_none() => {
            if let Some(time) = literal(&interval.value).map(written::interval).transpose()?.flatten() {
                *interval.value = time;
            }
        }
        Expr::Identifier(ident)
            if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("localtimestamp") =>
        {
            *expr = cast_to(call("now", Vec::new()), DataType::Timestamp(None, TimezoneInfo::None));
        }
        Expr::SimilarTo { .. } => written::similar_to(expr)?,
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
            if let Some(text) = literal(right).filter(|text| text.trim_start().starts_with('{')) {
                **right = numbers_of(array(text)?);
            }
            any_pattern(expr);
        }
        Expr::Like { any: true, .. } | Expr::ILike { any: true, .. } => like_any(expr, false)?,
        Expr::Like { pattern, .. } | Expr::ILike { pattern, .. } => {
            // The grammar takes ALL for a function.
            if let Expr::Function(function) = &**pattern
                && function.name.to_string().eq_ignore_ascii_case("all")
                && let Some((_, arguments)) = plain_call(function)
                && let [patterns] = arguments.as_slice()
            {
                **pattern = (*patterns).clone();
                like_any(expr, true)?;
            }
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            *expr = call("timezone", vec![take(time_zone), take(timestamp)]);
        }
        Expr::UnaryOp { op, expr: value } => {
            let name = match op {
                UnaryOperator::PGAbs => "abs",
                UnaryOperator::PGSquareRoot => "sqrt",
                UnaryOperator::PGCubeRoot => "cbrt",
                UnaryOperator::BitwiseNot => {
                    // In the two's complement.
                    let negative = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(nested(take(value))) };
                    *expr = nested(binary(negative, BinaryOperator::Minus, number(1)));
                    return Ok(());
                }
                _ => return Ok(()),
            };
            *expr = call(name, vec![take(value)]);
        }
        Expr::BinaryOp { left, op, right } => {
            let is_pattern = matches!(
                op,
                BinaryOperator::PGRegexMatch
                    | BinaryOperator::PGRegexIMatch
                    | BinaryOperator::PGRegexNotMatch
                    | BinaryOperator::PGRegexNotIMatch
            );
            if let Some(pattern) = literal(right).filter(|_| is_pattern).and_then(written::words_of_pattern) {
                **right = text(pattern);
            }
            let name = match op {
                BinaryOperator::PGExp => "power",
                BinaryOperator::PGStartsWith => "starts_with",
                _ => return Ok(()),
            };
            *expr = call(name, vec![take(left), take(right)]);
        }
        Expr::Extract { field: DateTimeField::Custom(field), .. } => {
            if let Some(known) = field_named(&field.value)
                && let Expr::Extract { field, .. } = expr
            {
                *field = known;
            }
        }
        Expr::Extract { field, expr: value, .. } => {
            let name = match field {
                DateTimeField::Second | DateTimeField::Seconds => "second",
                DateTimeField::Millisecond | DateTimeField::Milliseconds => "milliseconds",
                DateTimeField::Decade => "decade",
                DateTimeField::Century => "century",
                DateTimeField::Millennium | DateTimeField::Millenium => "millennium",
                DateTimeField::Julian => "julian",
                DateTimeField::Timezone => "timezone",
                _ => return Ok(()),
            };
            *expr = call("time_field", vec![text(name), take(value)]);
        }
        Expr::CompoundFieldAccess { access_chain, .. } => {
            for access in access_chain {
                if let AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) = access {
                    lower_bound.get_or_insert_with(|| number(1));
                    upper_bound.get_or_insert_with(|| number(i64::from(i32::MAX)));
                }
            }
        }
        Expr::Function(_) => function(expr)?,
        _ => {}
    }
    Ok(())
}

/// The field that a quoted name means: `extract('epoch' FROM ts)`.
fn field_named(name: &str) -> Option<DateTimeField> {
    Some(match name.to_ascii_lowercase().as_str() {
        "epoch" => DateTimeField::Epoch,
        "year" => DateTimeField::Year,
        "quarter" => DateTimeField::Quarter,
        "month" => DateTimeField::Month,
        "week" => DateTimeField::Week(None),
        "day" => DateTimeField::Day,
        "dow" => DateTimeField::Dow,
        "isodow" => DateTimeField::Isodow,
        "doy" => DateTimeField::Doy,
        "hour" => DateTimeField::Hour,
        "minute" => DateTimeField::Minute,
        "second" => DateTimeField::Second,
        "milliseconds" => DateTimeField::Milliseconds,
        "microseconds" => DateTimeField::Microseconds,
        _ => return None,
    })
}

/// Whether these arguments of `date_trunc` make a window of the calendar.
fn is_window(arguments: &[Expr]) -> bool {
    let named = |at: usize| arguments.get(at).and_then(literal);
    let unit = named(0).is_some_and(|unit| calendar::unit(unit).is_some());
    unit && named(2).is_some_and(|zone| calendar::zone(zone).is_ok())
}

fn function(expr: &mut Expr) -> Result<()> {
    let Expr::Function(call_of) = expr else { return Ok(()) };
    let Some(name) = call_of.name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.to_lowercase())
    else {
        return Ok(());
    };
    if name == "make_interval" {
        *expr = make_interval(call_of)?;
        return Ok(());
    }
    arrays_for_texts(&name, call_of)?;
    let Some((_, arguments)) = plain_call(call_of) else { return Ok(()) };
    let arguments = || arguments.iter().map(|argument| (*argument).clone()).collect::<Vec<Expr>>();
    let replacement = match (name.as_str(), arguments().len()) {
        ("gen_random_uuid" | "uuid_generate_v4", 0) => call("as_uuid", vec![call("uuid", Vec::new())]),
        // With a unit and a zone that are known it is a window, which is maintained by panes.
        ("date_trunc", 3) if is_window(&arguments()) => return Ok(()),
        ("date_trunc", 3) => call("date_trunc_in", arguments()),
        ("log", 1) => call("log10", arguments()),
        ("mod" | "div", 2) => {
            let mut both = arguments().into_iter().map(nested);
            let (Some(a), Some(b)) = (both.next(), both.next()) else { return Ok(()) };
            match name.as_str() {
                "mod" => nested(binary(a, BinaryOperator::Modulo, b)),
                _ => call("trunc", vec![binary(a, BinaryOperator::Divide, b)]),
            }
        }
        ("regexp_replace", 3 | 4) => {
            let mut arguments = arguments();
            // The whole match.
            let whole = literal(&arguments[2]).filter(|by| by.contains("\\&"));
            let Some(by) = whole.map(|by| text(by.replace("\\&", "\\0"))) else { return Ok(()) };
            arguments[2] = by;
            call("regexp_replace", arguments)
        }
        ("age", 1) => call("age", [vec![call("current_date", Vec::new())], arguments()].concat()),
        ("text", 1) => cast_to_text(arguments().remove(0)),
        ("json_extract_path" | "jsonb_extract_path", 2..) => call("json_get", arguments()),
        ("json_extract_path_text" | "jsonb_extract_path_text", 2..) => call("json_as_text", arguments()),
        _ => return Ok(()),
    };
    *expr = replacement;
    Ok(())
}

/// `make_interval(years => 1, mins => 5)`, or with its arguments in order.
fn make_interval(function: &Function) -> Result<Expr> {
    const NAMES: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    let mut values: Vec<Expr> = NAMES.iter().map(|_| number(0)).collect();
    let FunctionArguments::List(list) = &function.args else { return Ok(Expr::Function(function.clone())) };
    for (at, argument) in list.args.iter().enumerate() {
        let (place, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (Some(at), value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                (NAMES.iter().position(|known| name.value.eq_ignore_ascii_case(known)), value)
            }
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
                (NAMES.iter().position(|known| name.value.eq_ignore_ascii_case(known)), value)
            }
            _ => (None, &Expr::Wildcard(sqlparser::ast::helpers::attached_token::AttachedToken::empty())),
        };
        let Some(place) = place.filter(|place| *place < values.len()) else {
            return Err(Error::new(
                Kind::UndefinedFunction,
                format!("function make_interval({argument}) does not exist"),
            )
            .with_hint(format!("Its arguments are {}.", NAMES.join(", "))));
        };
        values[place] = value.clone();
    }
    Ok(call("interval_of", values))
}

/// `'{a,b}'` for an argument that is an array of texts.
fn arrays_for_texts(name: &str, function: &mut Function) -> Result<()> {
    let Some(known) = scalars().find(|scalar| scalar.name == name) else { return Ok(()) };
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    for (at, argument) in list.args.iter_mut().enumerate() {
        let takes_array = known.forms.iter().any(|form| matches!(form.get(at), Some(Type::Texts)));
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) = argument
            && takes_array
            && let Some(text) = literal(value).filter(|text| text.trim_start().starts_with('{'))
        {
            *value = array(text)?;
        }
    }
    Ok(())
}

/// `x ~ ANY (ARRAY['a', 'b'])`: the operators that are no comparisons, one by one.
fn any_pattern(expr: &mut Expr) {
    let (left, op, right, all) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, false),
        Expr::AllOp { left, compare_op, right } => (left, compare_op, right, true),
        _ => return,
    };
    let elements = match &mut **right {
        Expr::Array(array) => &mut array.elem,
        Expr::Nested(inner) => match &mut **inner {
            Expr::Array(array) => &mut array.elem,
            _ => return,
        },
        _ => return,
    };
    if is_comparison(op) || elements.is_empty() {
        return;
    }
    let joined = if all { BinaryOperator::And } else { BinaryOperator::Or };
    let each = elements.iter_mut().map(|element| nested(binary((**left).clone(), op.clone(), take(element))));
    if let Some(found) = each.reduce(|a, b| binary(a, joined.clone(), b)) {
        *expr = nested(found);
    }
}

/// `x LIKE ANY (ARRAY['a%', 'b%'])`, one by one.
fn like_any(expr: &mut Expr, all: bool) -> Result<()> {
    let is_ilike = matches!(expr, Expr::ILike { .. });
    let (Expr::Like { negated, expr: value, pattern, escape_char, .. }
    | Expr::ILike { negated, expr: value, pattern, escape_char, .. }) = expr
    else {
        return Ok(());
    };
    if let Some(text) = literal(pattern).filter(|text| text.trim_start().starts_with('{')) {
        **pattern = array(text)?;
    }
    fn elements(expr: &Expr) -> Option<Vec<Expr>> {
        match expr {
            Expr::Array(array) => Some(array.elem.clone()),
            Expr::Tuple(members) => Some(members.clone()),
            Expr::Nested(inner) => elements(inner),
            Expr::Cast { expr, .. } => elements(expr),
            _ => None,
        }
    }
    let Some(patterns) = elements(pattern) else {
        return Err(Error::new(Kind::NotSupported, "LIKE ANY takes an array that is written out")
            .with_hint("Write LIKE ANY (ARRAY['a%', 'b%']), or a regular expression with |."));
    };
    let op = if all { BinaryOperator::And } else { BinaryOperator::Or };
    let each = patterns.into_iter().map(|pattern| {
        let (negated, any, expr, pattern) = (*negated, false, value.clone(), Box::new(pattern));
        let escape_char = escape_char.clone();
        nested(match is_ilike {
            true => Expr::ILike { negated, any, expr, pattern, escape_char },
            false => Expr::Like { negated, any, expr, pattern, escape_char },
        })
    });
    let any = each.reduce(|a, b| binary(a, op.clone(), b)).unwrap_or_else(|| Expr::value(Value::Boolean(all)));
    *expr = nested(any);
    Ok(())
}

/// An array whose elements are all whole numbers in texts, as one of numbers.
fn numbers_of(array: Expr) -> Expr {
    let Expr::Array(Array { elem, named }) = array else { return array };
    let is_number = |element: &Expr| literal(element).is_some_and(|text| text.parse::<i64>().is_ok());
    if elem.is_empty() || !elem.iter().all(is_number) {
        return Expr::Array(Array { elem, named });
    }
    let elem = elem.iter().filter_map(|element| literal(element)?.parse().ok()).map(number).collect();
    Expr::Array(Array { elem, named })
}

/// PostgreSQL's spelling of an array, `{a,"b c",NULL,{…}}`, as an array of texts.
fn array(given: &str) -> Result<Expr> {
    let mut rest = given.trim();
    let wrong = |detail: &str| {
        Error::new(Kind::InvalidText, format!("malformed array literal: \"{given}\"")).with_detail(detail.to_string())
    };
    let parsed =
        elements(&mut rest, 0).ok_or_else(|| wrong("Array value must start with \"{\" or dimension information."))?;
    if !rest.trim().is_empty() {
        return Err(wrong("Junk after closing right brace."));
    }
    Ok(parsed)
}

/// Arrays inside of arrays, at most.
const MAX_DEPTH: usize = 6;

fn elements(rest: &mut &str, depth: usize) -> Option<Expr> {
    if depth > MAX_DEPTH {
        return None;
    }
    *rest = rest.trim_start().strip_prefix('{')?;
    let mut elem = Vec::new();
    loop {
        *rest = rest.trim_start();
        match rest.chars().next()? {
            '}' if elem.is_empty() => {
                *rest = &rest[1..];
                return Some(Expr::Array(Array { elem, named: true }));
            }
            '{' => elem.push(elements(rest, depth + 1)?),
            '"' => {
                let (mut value, mut escaped, mut end) = (String::new(), false, None);
                for (at, c) in rest.char_indices().skip(1) {
                    match c {
                        c if escaped => {
                            value.push(c);
                            escaped = false;
                        }
                        '\\' => escaped = true,
                        '"' => {
                            end = Some(at + 1);
                            break;
                        }
                        c => value.push(c),
                    }
                }
                *rest = &rest[end?..];
                elem.push(text(value));
            }
            _ => {
                let end = rest.find([',', '}'])?;
                let value = rest[..end].trim();
                if value.is_empty() || value.contains(['{', '"']) {
                    return None;
                }
                let is_null = value.eq_ignore_ascii_case("null");
                elem.push(if is_null { Expr::value(Value::Null) } else { text(value.replace('\\', "")) });
                *rest = &rest[end..];
            }
        }
        *rest = rest.trim_start();
        match rest.chars().next()? {
            ',' => *rest = &rest[1..],
            '}' => {
                *rest = &rest[1..];
                return Some(Expr::Array(Array { elem, named: true }));
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    use super::*;

    fn shown(sql: &str) -> String {
        let mut parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql).expect(sql).remove(0);
        statement(&mut parsed).expect(sql);
        parsed.to_string()
    }

    #[test]
    fn statements_are_said_in_other_words() {
        for (sql, expected) in [
            ("SELECT x::uuid", "SELECT as_uuid(x)"),
            ("SELECT jsonb '{}'", "SELECT as_jsonb('{}')"),
            ("SELECT '{a,\"b c\",NULL}'::text[]", "SELECT ARRAY['a', 'b c', NULL]::TEXT[]"),
            ("SELECT 1 = ANY ('{1,2}')", "SELECT 1 = ANY(ARRAY[1, 2])"),
            ("SELECT (a, b) < (c, d)", "SELECT ((a < c OR (a = c AND (b < d))))"),
            ("SELECT (a, b) IN ((1, 2))", "SELECT ((a = 1 AND b = 2))"),
            ("SELECT x LIKE ANY (ARRAY['a', 'b'])", "SELECT ((x LIKE 'a') OR (x LIKE 'b'))"),
            ("SELECT jsonb_agg(x ORDER BY y)", "SELECT to_jsonb(array_agg(x ORDER BY y))"),
            ("SELECT * FROM generate_series(1, 3) AS i", "SELECT * FROM generate_series(1, 3) AS i (i)"),
            ("SELECT x FROM t FETCH FIRST 2 ROWS ONLY", "SELECT x FROM t LIMIT 2"),
            ("SELECT make_interval(days => 10)", "SELECT interval_of(0, 0, 0, 10, 0, 0, 0)"),
            ("SELECT ts AT TIME ZONE 'UTC'", "SELECT timezone('UTC', ts)"),
            ("SELECT jsonb_array_elements(x)", "SELECT as_jsonb(unnest(jsonb_elements(x)))"),
            ("SELECT x, e FROM t, unnest(t.es) AS e", "SELECT x, e FROM (SELECT *, unnest(t.es) AS e FROM t) AS t"),
            (
                "SELECT * FROM unnest(a) WITH ORDINALITY AS t(x, n)",
                "SELECT * FROM UNNEST(a, subscripts(a)) AS t (x, n)",
            ),
        ] {
            assert_eq!(shown(sql), expected, "{sql}");
        }
    }

    #[test]
    fn arrays_are_read_as_postgres_writes_them() {
        for (text, expected) in [
            ("{}", "ARRAY[]"),
            (" { a , b } ", "ARRAY['a', 'b']"),
            (r#"{"a,\"b\\",null}"#, r#"ARRAY['a,"b\', NULL]"#),
            ("{{1,2},{3,4}}", "ARRAY[ARRAY['1', '2'], ARRAY['3', '4']]"),
        ] {
            assert_eq!(array(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "1,2", "{1", "{1}x", "{,}", "{a\"b}", "{\"a}"] {
            assert!(array(text).is_err(), "{text}");
        }
    }
}
