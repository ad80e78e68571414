//! PostgreSQL's names of result columns. DataFusion calls `SELECT count(*), 1::int` `count(*)` and `Int64(1)`; clients
//! and dashboards written for PostgreSQL expect `count` and `int4`.
//!
//! Receives the statement as the user wrote it (before rewrites add aliases of their own) and the schema DataFusion
//! planned for it; hands back one name per column. The rules are those of `FigureColname` in PostgreSQL's
//! parse_target.c: a name is strong (a column, a function), weak (a type, `case`) or absent (`?column?`), and a cast or
//! CASE takes over a strong name from inside.
//!
//! A wildcard stands for as many columns as the schema has more than the list; those keep the planned names.

use std::collections::HashSet;

use arrow::datatypes::Schema;
use sqlparser::ast::{
    AccessExpr, DataType, Expr, Function, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, TrimWhereField,
};

use super::function::session::CURRENT_USER;

/// What PostgreSQL calls an expression without a name.
const UNNAMED: &str = "?column?";

/// What datafusion-pg-catalog's rewrites put before the name of a column that is also in a `*` of the same list.
const REWRITTEN: &str = "__alias_";

/// Nested calls, casts and subqueries looked into for a name. Deeper ones stay unnamed rather than use up the stack.
const MAX_DEPTH: usize = 64;

/// The names of the result columns of `statement`, one per field of `plan_schema`.
pub fn postgres_names(statement: &Statement, plan_schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = plan_schema.fields().iter().map(|field| field.name().clone()).collect();
    let items = match statement {
        Statement::Query(query) => columns_of(query, 0),
        _ => None,
    };
    let Some(items) = items else { return names };

    // Columns before the first wildcard are counted from the left, those after the last one from the right.
    let first = items.iter().position(Item::is_wildcard);
    let Some(first) = first else {
        if items.len() == names.len() {
            return items.into_iter().map(Item::into_name).collect();
        }
        return names;
    };
    let from_right = items.iter().rev().position(Item::is_wildcard).unwrap_or(0);
    let last = items.len() - from_right;
    if first + from_right > names.len() {
        return names;
    }
    let start = names.len() - from_right;
    for (index, item) in items.into_iter().enumerate() {
        if index < first {
            names[index] = item.into_name();
        } else if index >= last {
            names[start + index - last] = item.into_name();
        }
    }
    names
}

/// Gives an alias to what DataFusion would call like an earlier item of the same select list, which it refuses and
/// PostgreSQL does not: `SELECT a, a`, `SELECT 1::int, 1::bigint`. To be called on a copy: `postgres_names` wants the
/// statement without these aliases.
pub fn make_unique(statement: &mut Statement) {
    match statement {
        Statement::Query(query) => make_unique_in(&mut query.body, 0),
        Statement::Insert(insert) => {
            if let Some(query) = &mut insert.source {
                make_unique_in(&mut query.body, 0);
            }
        }
        _ => {}
    }
}

fn make_unique_in(body: &mut SetExpr, depth: usize) {
    match body {
        _ if depth > MAX_DEPTH => {}
        SetExpr::Select(select) => {
            let mut seen = HashSet::new();
            for (index, item) in select.projection.iter_mut().enumerate() {
                let (expr, name) = match item {
                    SelectItem::UnnamedExpr(expr) => {
                        let name = match without_casts(expr) {
                            Expr::Subquery(_) => "(<subquery>)".to_string(),
                            other => other.to_string(),
                        };
                        (expr, name)
                    }
                    SelectItem::ExprWithAlias { expr, alias } => (expr, identifier(alias)),
                    SelectItem::ExprWithAliases { .. }
                    | SelectItem::QualifiedWildcard(..)
                    | SelectItem::Wildcard(_) => continue,
                };
                if !seen.insert(name) {
                    let alias = Ident::with_quote('"', format!("column {}", index + 1));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            make_unique_in(left, depth + 1);
            make_unique_in(right, depth + 1);
        }
        SetExpr::Query(query) => make_unique_in(&mut query.body, depth + 1),
        SetExpr::Values(_)
        | SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => {}
    }
}

/// DataFusion leaves casts out of names.
fn without_casts(mut expr: &Expr) -> &Expr {
    while let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

enum Item {
    Name(String),
    Wildcard,
}

impl Item {
    fn is_wildcard(&self) -> bool {
        matches!(self, Item::Wildcard)
    }

    fn into_name(self) -> String {
        match self {
            Item::Name(name) => name,
            Item::Wildcard => UNNAMED.to_string(),
        }
    }
}

/// The select list that names a query's columns: the first branch of a UNION, `column1…` of VALUES.
fn columns_of(query: &Query, depth: usize) -> Option<Vec<Item>> {
    let mut body = query.body.as_ref();
    for _ in depth..MAX_DEPTH {
        match body {
            SetExpr::Select(select) => return Some(select.projection.iter().flat_map(|i| item(i, depth)).collect()),
            SetExpr::Query(inner) => body = inner.body.as_ref(),
            SetExpr::SetOperation { left, .. } => body = left.as_ref(),
            SetExpr::Values(values) => {
                let width = values.rows.first()?.content.len();
                return Some((1..=width).map(|n| Item::Name(format!("column{n}"))).collect());
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) | SetExpr::Table(_) => {
                return None;
            }
        }
    }
    None
}

fn item(item: &SelectItem, depth: usize) -> Vec<Item> {
    match item {
        SelectItem::UnnamedExpr(expr) => {
            vec![Item::Name(name_of(expr, depth).map_or_else(|| UNNAMED.to_string(), Found::into_text))]
        }
        SelectItem::ExprWithAlias { alias, .. } => {
            let name = identifier(alias);
            vec![Item::Name(name.strip_prefix(REWRITTEN).map_or_else(|| name.clone(), str::to_string))]
        }
        SelectItem::ExprWithAliases { aliases, .. } => aliases.iter().map(|a| Item::Name(identifier(a))).collect(),
        SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => vec![Item::Wildcard],
    }
}

enum Found {
    Weak(String),
    Strong(String),
}

impl Found {
    fn into_text(self) -> String {
        match self {
            Found::Weak(text) | Found::Strong(text) => text,
        }
    }
}

fn strong(text: &str) -> Option<Found> {
    Some(Found::Strong(text.to_string()))
}

fn weak(text: &str) -> Option<Found> {
    Some(Found::Weak(text.to_string()))
}

/// The name inside `expr` if it is a strong one, else the weak name `fallback`.
fn strong_inside(expr: Option<&Expr>, depth: usize, fallback: &str) -> Option<Found> {
    match expr.and_then(|expr| name_of(expr, depth)) {
        Some(Found::Strong(text)) => Some(Found::Strong(text)),
        Some(Found::Weak(_)) | None => weak(fallback),
    }
}

fn name_of(expr: &Expr, depth: usize) -> Option<Found> {
    let depth = depth + 1;
    if depth > MAX_DEPTH {
        return None;
    }
    match expr {
        Expr::Identifier(name) => Some(Found::Strong(identifier(name))),
        Expr::CompoundIdentifier(parts) => parts.last().map(|name| Found::Strong(identifier(name))),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(name)) => Some(Found::Strong(identifier(name))),
                AccessExpr::Dot(_) | AccessExpr::Subscript(_) => None,
            });
            field.or_else(|| name_of(root, depth))
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_of(inner, depth),
        Expr::Named { name, .. } => Some(Found::Strong(identifier(name))),
        Expr::Cast { expr, data_type, .. } => strong_inside(Some(expr), depth, &type_name(data_type)),
        Expr::TypedString(typed) => weak(&type_name(&typed.data_type)),
        Expr::Interval(_) => weak("interval"),
        Expr::Function(function) => function_name(function),
        Expr::Case { else_result, .. } => strong_inside(else_result.as_deref(), depth, "case"),
        Expr::Exists { negated: false, .. } => strong("exists"),
        Expr::Subquery(query) => match columns_of(query, depth)?.into_iter().next()? {
            Item::Name(name) if name != UNNAMED => Some(Found::Strong(name)),
            Item::Name(_) | Item::Wildcard => None,
        },
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) | Expr::Struct { .. } => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { shorthand, .. } => strong(if *shorthand { "substr" } else { "substring" }),
        Expr::BinaryOp { op: sqlparser::ast::BinaryOperator::Overlaps, .. } => strong("overlaps"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            Some(TrimWhereField::Both) | None => "btrim",
        }),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Convert { .. } => strong("convert"),
        // Operators, predicates and anything that PostgreSQL does not know.
        _ => None,
    }
}

fn function_name(function: &Function) -> Option<Found> {
    // `ARRAY(SELECT …)` is parsed as a call of a function of that name; PostgreSQL's answer is the same.
    let ObjectName(parts) = &function.name;
    let name = parts.last()?.as_ident().map(identifier)?;
    Some(Found::Strong(if name == CURRENT_USER { "current_user".to_string() } else { name }))
}

/// A quoted identifier keeps its case, another one is folded to lower case.
fn identifier(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

/// PostgreSQL's internal name of a type as written: `INTEGER` → `int4`.
fn type_name(data_type: &DataType) -> String {
    if let DataType::Custom(ObjectName(parts), _) = data_type
        && let Some(name) = parts.last().and_then(|part| part.as_ident())
    {
        return internal_name(&identifier(name));
    }
    let text = data_type.to_string().to_lowercase();
    let zoned = text.contains("with time zone");
    // "double precision", "numeric(10,2)", "int[]", "timestamp(3) with time zone" → their first words.
    let head = text.split(['(', '[', '<']).next().unwrap_or("").trim().trim_end_matches(" with time zone");
    match (head, zoned) {
        ("timestamp", true) => "timestamptz".to_string(),
        ("time", true) => "timetz".to_string(),
        (head, _) => internal_name(head),
    }
}

fn internal_name(name: &str) -> String {
    match name {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" | "tinyint" => "int2",
        "real" => "float4",
        "double" | "double precision" | "float" => "float8",
        "boolean" => "bool",
        "decimal" | "dec" => "numeric",
        "character varying" | "char varying" => "varchar",
        "character" | "char" => "bpchar",
        "string" => "text",
        "timestamp without time zone" => "timestamp",
        "time without time zone" => "time",
        other => other,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType as Arrow, Field};
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    fn names(sql: &str, planned: &[&str]) -> Vec<String> {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).expect(sql);
        let fields: Vec<Field> = planned.iter().map(|name| Field::new(*name, Arrow::Int64, true)).collect();
        postgres_names(&statements[0], &Schema::new(fields))
    }

    /// The right-hand sides follow from the source of `FigureColname` (PostgreSQL 15).
    #[test]
    fn expressions_are_named_as_postgresql_names_them() {
        let cases = [
            ("count(*)", "count"),
            ("COUNT(DISTINCT a)", "count"),
            ("pg_catalog.lower(a)", "lower"),
            ("a", "a"),
            ("A", "a"),
            ("\"A\"", "A"),
            ("t.a", "a"),
            ("a + 1", "?column?"),
            ("1", "?column?"),
            ("'x'", "?column?"),
            ("NULL", "?column?"),
            ("true", "?column?"),
            ("-a", "?column?"),
            ("a IS NULL", "?column?"),
            ("a BETWEEN 1 AND 2", "?column?"),
            ("a LIKE 'x'", "?column?"),
            ("1::int", "int4"),
            ("1::bigint", "int8"),
            ("CAST(1 AS double precision)", "float8"),
            ("'1'::numeric(10,2)", "numeric"),
            ("'x'::text", "text"),
            ("'x'::varchar(3)", "varchar"),
            ("'2020-01-01'::timestamptz", "timestamptz"),
            ("'2020-01-01'::timestamp with time zone", "timestamptz"),
            ("a::int", "a"),
            ("(a + 1)::int", "int4"),
            ("count(*)::int", "count"),
            ("avg((a >= 500)::int)", "avg"),
            ("DATE '2020-01-01'", "date"),
            ("INTERVAL '1 day'", "interval"),
            ("CASE WHEN a THEN 1 ELSE 2 END", "case"),
            ("CASE WHEN a THEN 1 ELSE b END", "b"),
            ("EXISTS (SELECT 1)", "exists"),
            ("NOT EXISTS (SELECT 1)", "?column?"),
            ("(SELECT max(a) FROM t)", "max"),
            ("(SELECT 1)", "?column?"),
            ("ARRAY[1, 2]", "array"),
            ("coalesce(a, b)", "coalesce"),
            ("nullif(a, b)", "nullif"),
            ("greatest(a, b)", "greatest"),
            ("extract(hour FROM a)", "extract"),
            ("substring(a FROM 1 FOR 2)", "substring"),
            ("trim(a)", "btrim"),
            ("current_date", "current_date"),
            ("now() - a", "?column?"),
            ("row_number() OVER (ORDER BY a)", "row_number"),
            ("count(*) FILTER (WHERE a > 1)", "count"),
            ("1 AS \"One\"", "One"),
            ("1 AS One", "one"),
        ];
        for (expression, expected) in cases {
            assert_eq!(names(&format!("SELECT {expression} FROM t"), &["planned"]), [expected], "{expression}");
        }
    }

    #[test]
    fn wildcards_unions_and_values() {
        assert_eq!(names("SELECT count(*), *, a + 1 FROM t", &["c", "x", "y", "p"]), ["count", "x", "y", "?column?"]);
        assert_eq!(names("SELECT t.*, 1 + 1, u.* FROM t, u", &["x", "p", "y"]), ["x", "p", "y"]);
        assert_eq!(names("SELECT max(a) FROM t UNION ALL SELECT 1", &["m"]), ["max"]);
        assert_eq!(names("WITH q AS (SELECT 1) (SELECT min(a) FROM q)", &["m"]), ["min"]);
        assert_eq!(names("VALUES (1, 2), (3, 4)", &["a", "b"]), ["column1", "column2"]);
        // A list that does not fit the plan is not guessed at.
        assert_eq!(names("SELECT 1, 2", &["only"]), ["only"]);
        assert_eq!(names("SELECT * FROM t", &[]), Vec::<String>::new());
    }
    #[test]
    fn repeated_items_get_aliases_that_clients_do_not_see() {
        let sql = "SELECT a, 1::int, 1::bigint, a, b AS a, t.*, count(*) FROM t";
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        make_unique(&mut statement);
        let expected = "SELECT a, 1::INT, 1::BIGINT AS \"column 3\", a AS \"column 4\", b AS \"column 5\", t.*, \
                        count(*) FROM t";
        assert_eq!(statement.to_string(), expected);
        assert_eq!(names("SELECT *, a AS __alias_a FROM t", &["a", "__alias_a"]), ["a", "a"]);
    }
}
