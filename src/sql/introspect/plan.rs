//! How does the text of a catalog query become a [`Query`]? SELECT, FROM, WITH and what stands behind them are here;
//! expressions are in [`super::expression`].

use std::cell::{Cell, RefCell};
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::RwLock;
use sqlparser::ast::{
    Distinct as DistinctAst, Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Join, JoinConstraint, JoinOperator,
    LimitClause, ObjectName, OrderBy, OrderByExpr, OrderByKind, Query as QueryAst, Select as SelectAst, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Statement, TableAlias, TableFactor,
    TableWithJoins, Values,
};

use super::functions;
use super::node::{
    Body, Combine, Comparison, Distinct, From, Lookup, Node, Order, Output, Query, Select, Source, With, next_id,
};
use super::scope::{Scope, Typed};
use super::{Plan, Unplanned, unplanned};
use crate::catalog::postgres::base::{System, base};
use crate::catalog::postgres::snapshot;
use crate::catalog::postgres::value::{Value, types};
use crate::sql::grammar;
use crate::sql::parser::folded;

/// Most queries inside one another.
const MAX_DEPTH: usize = 40;

/// What planning one statement finds out.
#[derive(Default)]
pub struct Planner {
    /// The types of the parameters; `UNKNOWN` until something tells.
    pub parameters: RefCell<Vec<u32>>,
    /// Whether anything in it is about the catalog: other statements are not for us.
    pub concerns_catalog: Cell<bool>,
    /// The queries that are being planned: their depth, and whether they depend on one around them.
    open: RefCell<Vec<(usize, bool)>>,
    with: RefCell<Vec<Known>>,
}

/// A query of a WITH clause that can be named.
struct Known {
    name: String,
    id: usize,
    columns: Vec<Output>,
    /// Its rows are not the same each time that it is read.
    varies: bool,
}

/// The definition of a view of the catalog, planned; `None` where it cannot be: such a view is empty.
fn view(at: usize, system: &System) -> Option<Arc<Query>> {
    type Views = RwLock<std::collections::HashMap<usize, Arc<OnceLock<Option<Arc<Query>>>>>>;
    static VIEWS: LazyLock<Views> = LazyLock::new(Views::default);
    let known = VIEWS.read().get(&at).cloned();
    let known = known.unwrap_or_else(|| Arc::clone(VIEWS.write().entry(at).or_default()));
    let plan = || {
        let text = snapshot::definition(system)?;
        let planned = parse(&text).and_then(|query| Planner::default().query(&query, None));
        if let Err(err) = &planned {
            tracing::debug!(view = system.name, reason = err.0, "a view of the catalog is taken for empty");
        }
        planned.ok().map(Arc::new)
    };
    known.get_or_init(plan).clone()
}

fn parse(text: &str) -> Plan<QueryAst> {
    let mut statements = grammar::statements(text).map_err(|err| Unplanned(err.to_string()))?;
    match statements.pop() {
        Some(Statement::Query(query)) => Ok(*query),
        _ => unplanned("not a query"),
    }
}

/// Schema and name.
fn parts(name: &ObjectName) -> Plan<(Option<String>, String)> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(folded)).collect();
    match parts.unwrap_or_default().as_slice() {
        [name] => Ok((None, name.clone())),
        [schema, name] => Ok((Some(schema.clone()), name.clone())),
        [_, schema, name] if ["pg_catalog", "information_schema"].contains(&schema.as_str()) => {
            Ok((Some(schema.clone()), name.clone()))
        }
        _ => unplanned(format!("the name {name}")),
    }
}

/// The name of a function of PostgreSQL, without its schema.
pub fn function_name(name: &ObjectName) -> Plan<String> {
    match parts(name)? {
        (None, name) => Ok(name),
        (Some(schema), name) if schema == "pg_catalog" || schema == "information_schema" => Ok(name),
        (Some(schema), name) => unplanned(format!("function {schema}.{name}")),
    }
}

/// The plain arguments of a function.
pub fn plain_arguments(arguments: &[FunctionArg]) -> Plan<Vec<&Expr>> {
    let plain = arguments.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => Ok(expr),
        _ => unplanned("an argument of this form"),
    });
    plain.collect()
}

/// The conditions that all have to be true.
fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::BinaryOp { left, op: sqlparser::ast::BinaryOperator::And, right } => {
            let mut all = conjuncts(left);
            all.extend(conjuncts(right));
            all
        }
        Expr::Nested(inner) => conjuncts(inner),
        other => vec![other],
    }
}

impl Planner {
    /// A name was found in the query of this depth: those inside it depend on it.
    pub fn depends(&self, depth: usize) {
        self.open.borrow_mut().iter_mut().for_each(|(own, correlated)| *correlated |= *own > depth);
    }

    pub fn query(&self, ast: &QueryAst, parent: Option<&Scope<'_>>) -> Plan<Query> {
        let depth = parent.map_or(1, |parent| parent.depth + 1);
        if self.open.borrow().len() >= MAX_DEPTH {
            return unplanned("so many queries inside one another");
        }
        self.open.borrow_mut().push((depth, false));
        let known = self.with.borrow().len();
        let planned = self.open_query(ast, parent);
        self.with.borrow_mut().truncate(known);
        let correlated = self.open.borrow_mut().pop().is_some_and(|(_, correlated)| correlated);
        planned.map(|query| Query { correlated, ..query })
    }

    fn open_query(&self, ast: &QueryAst, parent: Option<&Scope<'_>>) -> Plan<Query> {
        if ast.for_clause.is_some() || ast.settings.is_some() || ast.format_clause.is_some() || ast.fetch.is_some() {
            return unplanned("a clause behind the query");
        }
        let mut with = Vec::new();
        if let Some(clause) = &ast.with {
            for table in &clause.cte_tables {
                with.push(self.with(&table.alias, &table.query, clause.recursive, parent)?);
            }
        }
        let order = order_of(ast.order_by.as_ref())?;
        let (body, columns, order) = self.body(&ast.body, order, parent)?;
        let scope = Scope::new(parent);
        let number = |expr: &Expr| Ok::<_, Unplanned>(self.convert(self.expression(expr, &scope)?, types::INT8)?.node);
        let (limit, offset) = match &ast.limit_clause {
            None => (None, None),
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
                let limit = limit.as_ref().map(number).transpose()?;
                (limit, offset.as_ref().map(|offset| number(&offset.value)).transpose()?)
            }
            Some(_) => return unplanned("LIMIT of this form"),
        };
        Ok(Query { id: next_id(), correlated: false, with, body, order, limit, offset, columns })
    }

    /// A query of a WITH clause; from now on it can be named.
    fn with(&self, alias: &TableAlias, ast: &QueryAst, recursive: bool, parent: Option<&Scope<'_>>) -> Plan<With> {
        let (id, name) = (next_id(), folded(&alias.name));
        let parts = match &*ast.body {
            SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier, right } if recursive => {
                Some((left, matches!(set_quantifier, SetQuantifier::All), right))
            }
            _ => None,
        };
        let alone = |body: &SetExpr| QueryAst {
            with: None,
            body: Box::new(body.clone()),
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks: Vec::new(),
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators: Vec::new(),
        };
        if let Some((first, all, next)) = parts
            && ast.with.is_none()
        {
            let first = self.query(&alone(first), parent)?;
            let columns = renamed(&first.columns, alias);
            self.with.borrow_mut().push(Known { name: name.clone(), id, columns: columns.clone(), varies: true });
            let next = self.query(&alone(next), parent);
            self.with.borrow_mut().pop();
            let next = next?;
            let varies = first.correlated;
            self.with.borrow_mut().push(Known { name, id, columns, varies });
            return Ok(With { id, query: Arc::new(first), repeated: Some((Arc::new(next), all)) });
        }
        let query = self.query(ast, parent)?;
        let columns = renamed(&query.columns, alias);
        self.with.borrow_mut().push(Known { name, id, columns, varies: query.correlated });
        Ok(With { id, query: Arc::new(query), repeated: None })
    }

    fn body(
        &self,
        ast: &SetExpr,
        order: &[OrderByExpr],
        parent: Option<&Scope<'_>>,
    ) -> Plan<(Body, Vec<Output>, Vec<Order>)> {
        match ast {
            SetExpr::Select(select) => {
                let (select, columns) = self.select(select, order, parent)?;
                Ok((Body::Select(Box::new(select)), columns, Vec::new()))
            }
            SetExpr::Query(query) => {
                let inner = self.query(query, parent)?;
                let columns = inner.columns.clone();
                let order = self.order_of_columns(order, &columns)?;
                Ok((Body::Inner(Arc::new(inner)), columns, order))
            }
            SetExpr::Values(values) => self.values(values, order, parent),
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let how = match op {
                    SetOperator::Union => Combine::Union,
                    SetOperator::Except => Combine::Except,
                    SetOperator::Intersect => Combine::Intersect,
                    SetOperator::Minus => return unplanned("MINUS"),
                };
                let (left, right) = (self.side(left, parent)?, self.side(right, parent)?);
                if left.columns.len() != right.columns.len() {
                    return unplanned("queries with other numbers of columns");
                }
                let columns: Vec<Output> = left
                    .columns
                    .iter()
                    .zip(&right.columns)
                    .map(|(left, right)| Output { of: common(left.of, right.of), ..left.clone() })
                    .collect();
                let order = self.order_of_columns(order, &columns)?;
                let all = matches!(set_quantifier, SetQuantifier::All);
                Ok((Body::Combined { how, all, left: Arc::new(left), right: Arc::new(right) }, columns, order))
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) | SetExpr::Table(_) => {
                unplanned("a statement that is no query")
            }
        }
    }

    /// One side of a UNION and the like.
    fn side(&self, ast: &SetExpr, parent: Option<&Scope<'_>>) -> Plan<Query> {
        let depth = parent.map_or(1, |parent| parent.depth + 1);
        self.open.borrow_mut().push((depth, false));
        let planned = self.body(ast, &[], parent);
        let correlated = self.open.borrow_mut().pop().is_some_and(|(_, correlated)| correlated);
        let (body, columns, order) = planned?;
        let (with, limit, offset) = (Vec::new(), None, None);
        Ok(Query { id: next_id(), correlated, with, body, order, limit, offset, columns })
    }

    fn values(
        &self,
        values: &Values,
        order: &[OrderByExpr],
        parent: Option<&Scope<'_>>,
    ) -> Plan<(Body, Vec<Output>, Vec<Order>)> {
        let scope = Scope::new(parent);
        let row = |row: &sqlparser::ast::Parens<Vec<Expr>>| {
            row.content.iter().map(|expr| self.expression(expr, &scope)).collect::<Plan<Vec<Typed>>>()
        };
        let rows = values.rows.iter().map(row).collect::<Plan<Vec<Vec<Typed>>>>()?;
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return unplanned("rows of other lengths");
        }
        let columns: Vec<Output> = (0..width)
            .map(|at| {
                let of = rows.iter().map(|row| row[at].of).fold(types::UNKNOWN, common);
                Output { name: format!("column{}", at + 1), of: known(of), fields: None }
            })
            .collect();
        let convert = |row: Vec<Typed>| {
            let cells = row.into_iter().zip(&columns);
            cells.map(|(typed, column)| Ok(self.convert(typed, column.of)?.node)).collect::<Plan<Vec<Node>>>()
        };
        let rows = rows.into_iter().map(convert).collect::<Plan<Vec<Vec<Node>>>>()?;
        let order = self.order_of_columns(order, &columns)?;
        Ok((Body::Values(rows), columns, order))
    }

    /// ORDER BY of what has no FROM clause: by columns of the result.
    fn order_of_columns(&self, order: &[OrderByExpr], columns: &[Output]) -> Plan<Vec<Order>> {
        let one = |by: &OrderByExpr| {
            let at = match &by.expr {
                Expr::Identifier(name) => {
                    let name = folded(name);
                    columns.iter().position(|column| column.name == name)
                }
                expr => ordinal(expr).filter(|at| *at < columns.len()),
            };
            let at = at.ok_or_else(|| Unplanned(format!("ORDER BY {}", by.expr)))?;
            Ok(direction(by, at))
        };
        order.iter().map(one).collect()
    }

    fn select(
        &self,
        ast: &SelectAst,
        order: &[OrderByExpr],
        parent: Option<&Scope<'_>>,
    ) -> Plan<(Select, Vec<Output>)> {
        if ast.into.is_some() || ast.qualify.is_some() || !ast.connect_by.is_empty() || ast.top.is_some() {
            return unplanned("a clause of SELECT");
        }
        let scope = Scope::new(parent);
        let mut select = Select { sources: self.from(&ast.from, &scope)?, ..Select::default() };
        let mut conditions = Vec::new();
        if let Some(selection) = &ast.selection {
            for condition in conjuncts(selection) {
                scope.touched.borrow_mut().clear();
                let node = self.condition(condition, &scope)?;
                conditions.push((node, scope.touched.borrow().clone()));
            }
        }
        put_in_order(&mut select.sources, &mut conditions);
        for (node, touched) in conditions {
            place(node, &touched, &mut select.sources, &mut select.filters);
        }
        select.sources.iter_mut().for_each(find_lookup);

        let mut outputs: Vec<(Output, Node)> = Vec::new();
        // What stands for the columns, for GROUP BY and ORDER BY.
        let mut written: Vec<Option<&Expr>> = Vec::new();
        for item in &ast.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let typed = self.expression(expr, &scope)?;
                    outputs.push(output(super::expression::name_of(expr), typed));
                    written.push(Some(expr));
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let typed = self.expression(expr, &scope)?;
                    outputs.push(output(folded(alias), typed));
                    written.push(Some(expr));
                }
                SelectItem::Wildcard(_) => {
                    for named in scope.find(|named| !named.hidden) {
                        outputs.push((named.column.clone(), scope.column(&named, 0).node));
                        written.push(None);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let (schema, table) = parts(name)?;
                    let fits = |named: &super::scope::Named| {
                        named.table == table && schema.as_ref().is_none_or(|s| named.schema.as_ref() == Some(s))
                    };
                    let columns = scope.find(fits);
                    if columns.is_empty() {
                        return unplanned(format!("{name}.*"));
                    }
                    for named in columns {
                        outputs.push((named.column.clone(), scope.column(&named, 0).node));
                        written.push(None);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                    let fields = self.expression(expr, &scope)?.fields;
                    let fields = fields.ok_or_else(|| Unplanned(format!("({expr}).*")))?;
                    for (at, (name, of)) in fields.iter().enumerate() {
                        let again = self.expression(expr, &scope)?;
                        let node = Node::Field { row: Box::new(again.node), at };
                        outputs.push((Output { name: name.clone(), of: *of, fields: None }, node));
                        written.push(None);
                    }
                }
                SelectItem::ExprWithAliases { .. } => return unplanned("several aliases"),
            }
        }
        let alias_of = |name: &str| {
            let mut found = outputs.iter().enumerate().filter(|(_, (column, _))| column.name == name);
            found.next().map(|(at, _)| at)
        };

        let GroupByExpr::Expressions(keys, modifiers) = &ast.group_by else { return unplanned("GROUP BY ALL") };
        if !modifiers.is_empty() {
            return unplanned("GROUP BY with sets");
        }
        for key in keys {
            let written_as = match key {
                Expr::Identifier(name) => {
                    let name = folded(name);
                    let is_column = !scope.find(|named| named.column.name == name && !named.hidden).is_empty();
                    if is_column { None } else { alias_of(&name) }
                }
                key => ordinal(key).filter(|at| *at < outputs.len()),
            };
            let key = written_as.and_then(|at| written[at]).unwrap_or(key);
            select.keys.push(self.expression(key, &scope)?.node);
        }
        select.having = ast.having.as_ref().map(|having| self.condition(having, &scope)).transpose()?;

        for by in order {
            let at = match &by.expr {
                Expr::Identifier(name) => alias_of(&folded(name)),
                expr => match ordinal(expr) {
                    Some(at) if at < outputs.len() => Some(at),
                    Some(_) => return unplanned("ORDER BY of a column that is not there"),
                    // The very expression of a column: a set-returning function in it is run once.
                    None => written.iter().position(|written| *written == Some(expr)),
                },
            };
            let entry = match at {
                Some(at) => (Node::Constant(Value::Null), direction(by, at)),
                None => (self.expression(&by.expr, &scope)?.node, direction(by, usize::MAX)),
            };
            select.order.push(entry);
        }
        select.distinct = match &ast.distinct {
            None | Some(DistinctAst::All) => None,
            Some(DistinctAst::Distinct) => Some(Distinct::Rows),
            Some(DistinctAst::On(exprs)) => {
                let nodes = exprs.iter().map(|expr| Ok(self.expression(expr, &scope)?.node));
                Some(Distinct::On(nodes.collect::<Plan<_>>()?))
            }
        };
        select.width = scope.width.get();
        select.aggregates = scope.aggregates.into_inner();
        select.windows = scope.windows.into_inner();
        select.sets = scope.sets.into_inner();
        select.grouped = !select.keys.is_empty() || !select.aggregates.is_empty() || select.having.is_some();
        let (columns, nodes) = outputs.into_iter().unzip();
        select.outputs = nodes;
        Ok((select, columns))
    }

    fn from(&self, tables: &[TableWithJoins], scope: &Scope<'_>) -> Plan<Vec<Source>> {
        let mut sources = Vec::new();
        for table in tables {
            sources.extend(self.joined(table, scope)?);
        }
        Ok(sources)
    }

    fn joined(&self, table: &TableWithJoins, scope: &Scope<'_>) -> Plan<Vec<Source>> {
        let first = scope.names.borrow().len();
        let mut sources = vec![self.source(&table.relation, scope)?];
        for join in &table.joins {
            let seen = scope.names.borrow().len();
            let mut source = self.source(&join.relation, scope)?;
            let (is_left, is_right, constraint) = kind_of(join)?;
            let mut on = self.constraint(constraint, first, seen, scope)?;
            if is_right {
                // The other way round: what was there so far is what may be missing.
                let slots = sources[0].slots.start..source.slots.start;
                let group = std::mem::take(&mut sources);
                sources.push(source);
                let (from, filters) = (From::Group(group), Vec::new());
                source = Source { from, slots, outer: true, on: std::mem::take(&mut on), filters, lookup: None };
            } else {
                source.outer = is_left;
                source.on.append(&mut on);
            }
            sources.push(source);
        }
        Ok(sources)
    }

    /// The conditions of a join between the columns from `first` on and those from `seen` on.
    fn constraint(&self, constraint: &JoinConstraint, first: usize, seen: usize, scope: &Scope<'_>) -> Plan<Vec<Node>> {
        match constraint {
            JoinConstraint::On(expr) => conjuncts(expr).into_iter().map(|on| self.condition(on, scope)).collect(),
            JoinConstraint::None => Ok(Vec::new()),
            JoinConstraint::Natural | JoinConstraint::Using(_) => {
                let mut on = Vec::new();
                let shared = match constraint {
                    JoinConstraint::Using(columns) => {
                        columns.iter().map(|column| Ok(parts(column)?.1)).collect::<Plan<Vec<String>>>()?
                    }
                    _ => {
                        let names = scope.names.borrow();
                        let left = |name: &str| names[first..seen].iter().any(|n| n.column.name == name && !n.hidden);
                        let right = names[seen..].iter().map(|named| named.column.name.clone());
                        right.filter(|name| left(name)).collect()
                    }
                };
                for name in shared {
                    let find = |range: std::ops::Range<usize>| {
                        let names = scope.names.borrow();
                        let is = |named: &&super::scope::Named| named.column.name == name && !named.hidden;
                        names[range].iter().find(is).cloned()
                    };
                    let end = scope.names.borrow().len();
                    let (Some(left), Some(right)) = (find(first..seen), find(seen..end)) else {
                        return unplanned(format!("USING ({name})"));
                    };
                    let (a, b) = (scope.column(&left, 0).node, scope.column(&right, 0).node);
                    on.push(Node::Compare(Comparison::Equal, Box::new(a), Box::new(b)));
                    let mut names = scope.names.borrow_mut();
                    names[seen..].iter_mut().filter(|n| n.slot == right.slot).for_each(|n| n.hidden = true);
                }
                Ok(on)
            }
        }
    }

    fn source(&self, factor: &TableFactor, scope: &Scope<'_>) -> Plan<Source> {
        let source =
            |from: From, slots| Source { from, slots, outer: false, on: Vec::new(), filters: Vec::new(), lookup: None };
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let (from, columns, table, schema) = self.relation(name, scope, alias.as_ref())?;
                let columns = alias.as_ref().map_or_else(|| columns.clone(), |alias| renamed(&columns, alias));
                Ok(source(from, scope.add(&table, schema.as_deref(), &columns)))
            }
            TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                let (from, columns, table) =
                    self.table_function(name, &args.args, *with_ordinality, alias.as_ref(), scope)?;
                Ok(source(from, scope.add(&table, None, &columns)))
            }
            TableFactor::Function { name, args, with_ordinality, alias, .. } => {
                let (from, columns, table) =
                    self.table_function(name, args, *with_ordinality, alias.as_ref(), scope)?;
                Ok(source(from, scope.add(&table, None, &columns)))
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, with_offset: false, .. } => {
                let mut lists = Vec::new();
                let mut columns = Vec::new();
                for expr in array_exprs {
                    let list = self.expression(expr, scope)?;
                    let of = base().element_of(list.of).ok_or_else(|| Unplanned(format!("unnest({expr})")))?;
                    columns.push(Output { name: "unnest".into(), of, fields: None });
                    lists.push(list.node);
                }
                if *with_ordinality {
                    columns.push(Output { name: "ordinality".into(), of: types::INT8, fields: None });
                }
                let table = named_by(alias.as_ref(), "unnest", &mut columns, array_exprs.len() == 1);
                let from = From::Lists { lists, ordinality: *with_ordinality };
                Ok(source(from, scope.add(&table, None, &columns)))
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let parent = if *lateral { Some(scope) } else { scope.parent };
                let query = self.query(subquery, parent)?;
                let table = alias.as_ref().map(|alias| folded(&alias.name)).unwrap_or_default();
                let mut columns = query.columns.clone();
                columns.iter_mut().for_each(|column| column.of = known(column.of));
                let columns = alias.as_ref().map_or_else(|| columns.clone(), |alias| renamed(&columns, alias));
                let from = From::Query { query: Arc::new(query), lateral: *lateral };
                Ok(source(from, scope.add(&table, None, &columns)))
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                let start = scope.width.get();
                let group = self.joined(table_with_joins, scope)?;
                Ok(source(From::Group(group), start..scope.width.get()))
            }
            other => unplanned(format!("FROM {other}")),
        }
    }

    fn relation(
        &self,
        name: &ObjectName,
        scope: &Scope<'_>,
        alias: Option<&TableAlias>,
    ) -> Plan<(From, Vec<Output>, String, Option<String>)> {
        let (schema, name) = parts(name)?;
        let table = alias.map_or_else(|| name.clone(), |alias| folded(&alias.name));
        if schema.is_none()
            && let Some(known) = self.with.borrow().iter().rev().find(|known| known.name == name)
        {
            if known.varies {
                self.depends(0);
            }
            return Ok((From::With(known.id), known.columns.clone(), table, None));
        }
        let in_schema = schema.clone().unwrap_or_else(|| "pg_catalog".to_string());
        let Some((at, system)) = base().relation(&in_schema, &name) else {
            return unplanned(format!("relation {in_schema}.{name}"));
        };
        self.concerns_catalog.set(true);
        scope.tables.borrow_mut().push((table.clone(), system.oid));
        let column = |column: &crate::catalog::postgres::base::Column| Output {
            name: column.name.clone(),
            of: column.of,
            fields: None,
        };
        let columns = system.columns.iter().map(column).collect();
        let schema = if alias.is_some() { None } else { Some(in_schema) };
        let from = match &system.view {
            Some(_) if !snapshot::has_rows(system) => match view(at, system) {
                Some(query) => From::Query { query, lateral: false },
                None => From::Relation(at),
            },
            _ => From::Relation(at),
        };
        Ok((from, columns, table, schema))
    }

    fn table_function(
        &self,
        name: &ObjectName,
        arguments: &[FunctionArg],
        ordinality: bool,
        alias: Option<&TableAlias>,
        scope: &Scope<'_>,
    ) -> Plan<(From, Vec<Output>, String)> {
        let function = function_name(name)?;
        let arguments = plain_arguments(arguments)?;
        if let Some(set) = functions::set(&function, arguments.len()) {
            self.concerns_catalog.set(self.concerns_catalog.get() || functions::is_of_catalog(&function));
            let arguments = arguments.iter().map(|expr| self.expression(expr, scope)).collect::<Plan<Vec<Typed>>>()?;
            let (arguments, fields) = self.set_call(set, arguments)?;
            let mut columns: Vec<Output> =
                fields.iter().map(|(name, of)| Output { name: name.clone(), of: *of, fields: None }).collect();
            if ordinality {
                columns.push(Output { name: "ordinality".into(), of: types::INT8, fields: None });
            }
            let table = named_by(alias, &function, &mut columns, fields.len() == 1 && set.is_single());
            return Ok((From::Function { function: set, arguments, ordinality }, columns, table));
        }
        let call = self.call(&function, &arguments, scope)?;
        let mut columns = vec![Output { name: function.clone(), of: known(call.of), fields: call.fields.clone() }];
        let table = named_by(alias, &function, &mut columns, true);
        Ok((From::Single(call.node), columns, table))
    }
}

/// The columns of a function in FROM take the name of its alias where there is one column; gives the name of the table.
fn named_by(alias: Option<&TableAlias>, function: &str, columns: &mut [Output], single: bool) -> String {
    let Some(alias) = alias else { return function.to_string() };
    let table = folded(&alias.name);
    if single && let Some(first) = columns.first_mut() {
        first.name = table.clone();
    }
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name = folded(&name.name);
    }
    table
}

fn renamed(columns: &[Output], alias: &TableAlias) -> Vec<Output> {
    let mut columns = columns.to_vec();
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name = folded(&name.name);
    }
    columns
}

fn output(name: String, typed: Typed) -> (Output, Node) {
    (Output { name, of: typed.of, fields: typed.fields }, typed.node)
}

/// A literal whose type nothing tells is a text.
pub fn known(of: u32) -> u32 {
    if of == types::UNKNOWN { types::TEXT } else { of }
}

/// The type that values of both types have together.
pub fn common(a: u32, b: u32) -> u32 {
    let rank = |of: u32| match of {
        types::INT2 => 1,
        types::INT4 => 2,
        types::INT8 => 3,
        types::NUMERIC => 4,
        types::FLOAT4 => 5,
        types::FLOAT8 => 6,
        _ => 0,
    };
    match (a, b) {
        (types::UNKNOWN, other) | (other, types::UNKNOWN) => other,
        (a, b) if a == b => a,
        (a, b) if rank(a) > 0 && rank(b) > 0 => {
            if rank(a) >= rank(b) {
                a
            } else {
                b
            }
        }
        (a, b) if types::is_oid(a) && rank(b) > 0 || types::is_oid(b) && rank(a) > 0 => {
            if types::is_oid(a) {
                a
            } else {
                b
            }
        }
        (a, b) if types::is_text(a) && types::is_text(b) => types::TEXT,
        (a, _) => a,
    }
}

/// `2` in ORDER BY 2, counted from 0.
fn ordinal(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    match &value.value {
        sqlparser::ast::Value::Number(number, _) => number.parse::<usize>().ok()?.checked_sub(1),
        _ => None,
    }
}

/// The expressions of ORDER BY.
fn order_of(order: Option<&OrderBy>) -> Plan<&[OrderByExpr]> {
    match order.map(|order| &order.kind) {
        None => Ok(&[]),
        Some(OrderByKind::Expressions(order)) => Ok(order),
        Some(OrderByKind::All(_)) => unplanned("ORDER BY ALL"),
    }
}

pub fn direction(by: &OrderByExpr, column: usize) -> Order {
    let descending = by.options.asc == Some(false);
    Order { column, descending, nulls_first: by.options.nulls_first.unwrap_or(descending) }
}

/// LEFT, RIGHT, and the condition.
fn kind_of(join: &Join) -> Plan<(bool, bool, &JoinConstraint)> {
    match &join.join_operator {
        JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => Ok((false, false, on)),
        JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => Ok((true, false, on)),
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => Ok((false, true, on)),
        _ => unplanned("this kind of join"),
    }
}

/// Puts the sources at the beginning that are all needed into an order in which each can be looked up by what is there
/// already, where equalities allow it: tools write them in any order. Their conditions become those of the whole.
fn put_in_order(sources: &mut Vec<Source>, conditions: &mut Vec<(Node, Vec<usize>)>) {
    let is_plain = |source: &Source| match &source.from {
        From::Relation(_) | From::With(_) => !source.outer,
        From::Query { query, lateral } => !source.outer && !lateral && !query.correlated,
        From::Function { .. } | From::Single(_) | From::Lists { .. } | From::Group(_) => false,
    };
    let plain = sources.iter().position(|source| !is_plain(source)).unwrap_or(sources.len());
    if plain < 2 {
        return;
    }
    let rest = sources.split_off(plain);
    let mut waiting = std::mem::take(sources);
    for source in &mut waiting {
        // What has a subquery in it may name anything: it stays behind all that it could name.
        let all: Vec<usize> = (0..source.slots.end).collect();
        for node in source.on.drain(..) {
            let mut touched = Vec::new();
            node.slots(&mut touched);
            conditions.push(if node.asks() { (node, all.clone()) } else { (node, touched) });
        }
    }
    while !waiting.is_empty() {
        let is_there = |slot: &usize| sources.iter().any(|source: &Source| source.slots.contains(slot));
        // How well a source can be looked up: by something equal that is known, and rather by what is there than by a constant.
        let rank = |source: &Source| {
            let own = |node: &Node| matches!(node, Node::Column { up: 0, slot } if source.slots.contains(slot));
            let known = |node: &Node| {
                let mut slots = Vec::new();
                node.slots(&mut slots);
                (!node.asks() && slots.iter().all(is_there)).then_some(if slots.is_empty() { 1 } else { 2 })
            };
            let by = |(node, _): &(Node, Vec<usize>)| match node {
                Node::Compare(Comparison::Equal, a, b) if own(a) => known(b),
                Node::Compare(Comparison::Equal, a, b) if own(b) => known(a),
                Node::Quantified { all: false, comparison: Comparison::Equal, left, list } if own(left) => known(list),
                _ => None,
            };
            conditions.iter().filter_map(by).max().unwrap_or(0)
        };
        let best = waiting.iter().map(rank).max().unwrap_or(0);
        let at = waiting.iter().position(|source| rank(source) == best).unwrap_or(0);
        let next = waiting.remove(at);
        sources.push(next);
    }
    sources.extend(rest);
}

/// Puts a condition of WHERE to the first source after which all that it names is there.
fn place(node: Node, touched: &[usize], sources: &mut [Source], filters: &mut Vec<Node>) {
    let at =
        touched.iter().map(|slot| sources.iter().position(|source| source.slots.contains(slot)).unwrap_or(0)).max();
    match at.and_then(|at| sources.get_mut(at)) {
        None => filters.push(node),
        Some(source) => source.filters.push(node),
    }
}

/// Finds an equality with a column of the source by which its rows can be looked up.
fn find_lookup(source: &mut Source) {
    if source.lookup.is_some() {
        return;
    }
    if let From::Group(group) = &mut source.from {
        group.iter_mut().for_each(find_lookup);
        // A condition of the whole on a column of one of them, by which that one can be looked up.
        let whole = source.slots.clone();
        let places = if source.outer { vec![&mut source.on] } else { vec![&mut source.on, &mut source.filters] };
        for conditions in places {
            for member in group.iter_mut().filter(|member| !member.outer && member.lookup.is_none()) {
                let of_member =
                    |node: &Node| matches!(node, Node::Column { up: 0, slot } if member.slots.contains(slot));
                let usable = |node: &Node| match node {
                    Node::Compare(Comparison::Equal, a, b) => {
                        of_member(a) && b.is_free_of(&whole) || of_member(b) && a.is_free_of(&whole)
                    }
                    _ => false,
                };
                if let Some(at) = conditions.iter().position(usable) {
                    member.on.push(conditions.swap_remove(at));
                    find_lookup(member);
                }
            }
        }
        return;
    }
    let is_listed = match &source.from {
        From::Relation(_) | From::With(_) => true,
        From::Query { query, lateral } => !query.correlated && !lateral,
        From::Function { .. } | From::Single(_) | From::Lists { .. } | From::Group(_) => false,
    };
    if !is_listed {
        return;
    }
    let slots = source.slots.clone();
    let own = |node: &Node| match node {
        Node::Column { up: 0, slot } if slots.contains(slot) => Some(*slot - slots.start),
        _ => None,
    };
    // What stands behind an outer join filters rows that it made up as well: only its ON can be used.
    let places = if source.outer { vec![&mut source.on] } else { vec![&mut source.on, &mut source.filters] };
    for conditions in places {
        let usable = |node: &Node| match node {
            Node::Compare(Comparison::Equal, a, b) => {
                own(a).is_some() && b.is_free_of(&slots) || own(b).is_some() && a.is_free_of(&slots)
            }
            Node::Quantified { all: false, comparison: Comparison::Equal, left, list } => {
                own(left).is_some() && list.is_free_of(&slots)
            }
            _ => false,
        };
        let Some(at) = conditions.iter().position(usable) else { continue };
        source.lookup = match conditions.swap_remove(at) {
            Node::Compare(_, a, b) => match own(&a) {
                Some(column) if b.is_free_of(&slots) => Some((column, Lookup::One(*b))),
                _ => own(&b).map(|column| (column, Lookup::One(*a))),
            },
            Node::Quantified { left, list, .. } => own(&left).map(|column| (column, Lookup::Any(*list))),
            _ => None,
        };
        return;
    }
}
