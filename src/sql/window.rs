//! Windows in FROM: `TUMBLE(rel, ts, size [, offset])`, `HOP(rel, ts, slide, size [, offset])`, `CUMULATE(rel, ts, step,
//! size [, offset])` and `SESSION(rel [PARTITION BY keys], ts, gap [, max_span])`. All add `window_start` and
//! `window_end`; the same text serves batch and continuous queries.
//!
//! A tumbling window becomes a projection, so that DataFusion's optimizer sees ordinary expressions; the others become
//! operators of our own. SQL's grammar has no `PARTITION BY` among arguments, nor Flink's `TABLE` and `DESCRIPTOR`:
//! [`plain`] turns those into ordinary calls before anything is parsed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use datafusion::catalog::SchemaProvider;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, ObjectName, ObjectNamePart, TableFactor, Visit, Visitor,
};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::function::Spec;
use super::parser::folded;
use crate::engine::PUBLIC;
use crate::error::{Error, Kind, Result};
use crate::format::timestamp_type;
use crate::rollup::bucket;
use crate::rollup::session::SessionNode;
use crate::rollup::spread::WindowNode;
use crate::rollup::window::{Bound, WINDOW_END, WINDOW_START, Window, constant, interval, interval_micros};
use crate::time::Micros;

pub static TUMBLE: Spec = Spec {
    name: "tumble",
    syntax: "TUMBLE(rel, ts, size [, offset])",
    summary: "each row in one window of width `size`; adds window_start and window_end",
};

pub static HOP: Spec = Spec {
    name: "hop",
    syntax: "HOP(rel, ts, slide, size [, offset])",
    summary: "a window of width `size` starts every `slide`, so each row is in size/slide of them; adds window_start and window_end",
};

pub static CUMULATE: Spec = Spec {
    name: "cumulate",
    syntax: "CUMULATE(rel, ts, step, size [, offset])",
    summary: "windows that start every `size` and end one `step` later each, so the last shows what the day (hour, …) had so far; adds window_start and window_end",
};

pub static SESSION: Spec = Spec {
    name: "session",
    syntax: "SESSION(rel [PARTITION BY key, …], ts, gap [, max_span])",
    summary: "rows of the same keys that follow each other in less than `gap`; window_end is the last row's time plus the gap. With `max_span`, sessions are also cut at its multiples since 1970-01-01 UTC",
};

pub(super) static WINDOWS: &[&Spec] = &[&TUMBLE, &HOP, &CUMULATE, &SESSION];

/// Puts the planner of windows and the functions that cut time into a session of this database.
pub fn register(context: &SessionContext, database: &str) -> Result<()> {
    let schema = context.catalog(database).and_then(|c| c.schema(PUBLIC));
    let schema = schema.ok_or_else(|| Error::internal("the public schema is missing"))?;
    context.register_relation_planner(Arc::new(Windows { schema }))?;
    bucket::functions().into_iter().for_each(|function| context.register_udf(function));
    Ok(())
}

#[derive(Debug)]
struct Windows {
    schema: Arc<dyn SchemaProvider>,
}

impl RelationPlanner for Windows {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let Some((spec, args, alias)) = window_call(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some((relation, rest)) = args.split_first() else {
            return Err(wrong(spec, format!("{} takes arguments", spec.name.to_uppercase())).into());
        };
        let input = self.plan_input(relation, context)?;
        let rest: Vec<Expr> =
            rest.iter().map(|arg| context.sql_to_expr(arg.clone(), input.schema())).collect::<DfResult<_>>()?;
        let plan = match spec.name {
            "session" => plan_session(input, &rest)?,
            _ => plan_aligned(spec, input, &rest)?,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn wrong(spec: &Spec, what: String) -> Error {
    Error::new(Kind::Syntax, what).with_hint(format!("The form is {}.", spec.syntax))
}

/// TUMBLE, HOP and CUMULATE: the time column, one or two widths and perhaps an offset.
fn plan_aligned(spec: &Spec, input: LogicalPlan, args: &[Expr]) -> DfResult<LogicalPlan> {
    let widths = if spec.name == "tumble" { 1 } else { 2 };
    if args.len() < 1 + widths || args.len() > 2 + widths {
        let (least, most, found) = (2 + widths, 3 + widths, args.len() + 1);
        let name = spec.name.to_uppercase();
        return Err(wrong(spec, format!("{name} takes {least} or {most} arguments, not {found}")).into());
    }
    let time = time_column(spec, &args[0], &input)?;
    let mut numbers = Vec::new();
    for (i, arg) in args[1..].iter().enumerate() {
        match constant(arg).and_then(|value| micros(&value)) {
            Some(micros) if micros > 0 || i == widths => numbers.push(micros),
            _ => return Err(wrong(spec, format!("{} is not a fixed, positive interval", written(arg))).into()),
        }
    }
    let offset = numbers.get(widths).copied().unwrap_or(0);
    let window = match (spec.name, numbers.as_slice()) {
        ("hop", &[slide, size, ..]) => Window::Hop { slide, size, offset },
        ("cumulate", &[step, size, ..]) => Window::Cumulate { step, size, offset },
        _ => {
            let size = numbers[0];
            let start = Bound::start(Window::Tumble { size, offset }, time);
            let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            columns.push(start.clone().alias(WINDOW_START));
            columns.push((start + interval(size)).alias(WINDOW_END));
            return LogicalPlanBuilder::from(input).project(columns)?.build();
        }
    };
    check_widths(&window)?;
    let node = WindowNode::try_new(input, time, window)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// SESSION: keys, the time column, the gap and perhaps the maximum span. The last two are the constants.
fn plan_session(input: LogicalPlan, args: &[Expr]) -> DfResult<LogicalPlan> {
    let spec = &SESSION;
    let widths = args.iter().rev().take_while(|arg| arg.column_refs().is_empty()).count();
    let (columns, widths) = args.split_at(args.len() - widths);
    let (Some((time, keys)), 1 | 2) = (columns.split_last(), widths.len()) else {
        let what = "SESSION takes a relation, the time column, the gap and perhaps the maximum span";
        return Err(wrong(spec, what.into()).into());
    };
    let time = time_column(spec, time, &input)?;
    if let Some(key) = keys.iter().find(|key| !matches!(key, Expr::Column(_))) {
        return Err(wrong(spec, format!("PARTITION BY takes columns, not {}", written(key)))
            .with_hint("Compute it in a subquery: SESSION((SELECT *, … AS key FROM rel) PARTITION BY key, …).")
            .into());
    }
    let mut numbers = Vec::new();
    for width in widths {
        match constant(width) {
            // No maximum span, written out.
            Some(value) if value.is_null() && !numbers.is_empty() => {}
            value => match value.and_then(|value| micros(&value)) {
                Some(micros) if micros > 0 => numbers.push(micros),
                _ => return Err(wrong(spec, format!("{} is not a fixed, positive interval", written(width))).into()),
            },
        }
    }
    let node = SessionNode::try_new(input, keys.to_vec(), time, numbers[0], numbers.get(1).copied())?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// An interval, or a text like '5 minutes' that is one.
fn micros(value: &ScalarValue) -> Option<Micros> {
    if value.data_type().is_string() {
        let interval = arrow::datatypes::DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
        return interval_micros(&value.cast_to(&interval).ok()?);
    }
    interval_micros(value)
}

/// An argument as the user may have written it.
fn written(arg: &Expr) -> String {
    match constant(arg) {
        Some(value) => format!("\"{value}\""),
        None => format!("\"{arg}\""),
    }
}

/// The time column as `timestamptz` in microseconds.
fn time_column(spec: &Spec, time: &Expr, input: &LogicalPlan) -> DfResult<Expr> {
    let name = spec.name.to_uppercase();
    if !matches!(time, Expr::Column(_)) {
        return Err(wrong(spec, format!("{} is not the time column that {name} needs", written(time))).into());
    }
    let (_, field) = time.to_field(input.schema())?;
    match field.data_type() {
        t if *t == timestamp_type() => Ok(time.clone()),
        arrow::datatypes::DataType::Timestamp(..) | arrow::datatypes::DataType::Date32 => {
            Ok(cast(time.clone(), timestamp_type()))
        }
        other => {
            let what = format!("{name} needs a timestamp column, but \"{time}\" is of type {other}");
            Err(Error::new(Kind::Datatype, what).into())
        }
    }
}

impl Windows {
    /// The first argument: a relation's name, or a subquery.
    fn plan_input(&self, arg: &SqlExpr, context: &mut dyn RelationPlannerContext) -> DfResult<LogicalPlan> {
        let parts = match arg {
            SqlExpr::Subquery(query) => {
                let derived =
                    TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
                return context.plan(derived);
            }
            SqlExpr::Identifier(ident) => vec![ident.clone()],
            SqlExpr::CompoundIdentifier(parts) => parts.clone(),
            other => {
                return Err(Error::new(Kind::Syntax, format!("a window needs a relation, not {other}"))
                    .with_hint("The first argument is the name of a relation or a subquery in parentheses.")
                    .into());
            }
        };
        let name = ObjectName(parts.iter().cloned().map(ObjectNamePart::Identifier).collect());
        let planned = context.plan(TableFactor::Table {
            name,
            alias: None,
            args: None,
            with_hints: vec![],
            version: None,
            with_ordinality: false,
            partitions: vec![],
            json_path: None,
            sample: None,
            index_hints: vec![],
        });
        // DataFusion finds tables before planning, by walking FROM; a name that is an argument it has not seen.
        let found = match (&planned, parts.as_slice()) {
            (Err(_), [name]) => self.schema.table(&folded(name)).now_or_never(),
            (Err(_), [schema, name]) if folded(schema) == PUBLIC => self.schema.table(&folded(name)).now_or_never(),
            _ => None,
        };
        match (found, parts.last()) {
            (Some(Ok(Some(table))), Some(name)) => {
                LogicalPlanBuilder::scan(folded(name), provider_as_source(table), None)?.build()
            }
            _ => planned,
        }
    }
}

/// A hop has to be wider than its slide (else rows would be lost), a cumulating window must end where the next starts,
/// and neither may be absurdly wide.
fn check_widths(window: &Window) -> Result<()> {
    const MOST: Micros = 100_000;
    let refuse = |what: &str, hint: &str| Err(Error::new(Kind::InvalidParameter, what.to_string()).with_hint(hint));
    let (every, size) = match *window {
        Window::Hop { slide, size, .. } if slide > size => {
            return refuse(
                "the slide of HOP is larger than its size",
                "HOP(rel, ts, slide, size): the slide comes first.",
            );
        }
        Window::Cumulate { step, size, .. } if size % step != 0 => {
            return refuse(
                "the size of CUMULATE is not a multiple of its step",
                "CUMULATE(rel, ts, step, size): the step comes first.",
            );
        }
        Window::Hop { slide: every, size, .. } | Window::Cumulate { step: every, size, .. } => (every, size),
        Window::Tumble { .. } | Window::Calendar(_) | Window::Session { .. } => return Ok(()),
    };
    if size / every > MOST {
        let what = format!("each row would be in {} windows", size / every);
        return refuse(&what, "Use a larger slide or step, or a smaller size.");
    }
    Ok(())
}

type WindowCall = (&'static Spec, Vec<SqlExpr>, Option<sqlparser::ast::TableAlias>);

/// `TUMBLE(…)` and the like as a relation.
fn window_call(relation: &TableFactor) -> Option<WindowCall> {
    let (name, args, alias) = match relation {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, args, alias),
        _ => return None,
    };
    let [ObjectNamePart::Identifier(Ident { value, .. })] = name.0.as_slice() else { return None };
    let spec = WINDOWS.iter().find(|w| w.name.eq_ignore_ascii_case(value))?;
    let args = args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => Some(expr.clone()),
        _ => None,
    });
    Some((spec, args.collect(), alias.clone()))
}

/// Relations that stand as arguments of windows: a walk over FROM does not see them.
pub fn relations_read(query: &impl Visit) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let Some((_, args, _)) = window_call(factor)
                && let Some(SqlExpr::Identifier(name)) = args.first()
            {
                self.0.insert(folded(name));
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(BTreeSet::new());
    let _ = query.visit(&mut names);
    names.0
}

/// The text with windows as ordinary calls. What is taken out is replaced by blanks, so every position in the text stays
/// what it was:
///
/// ```text
///     SESSION(access PARTITION BY client, ts, …)          SESSION(access ,            client, ts, …)
///     TABLE(TUMBLE(TABLE access, DESCRIPTOR(ts), …))            TUMBLE(      access,            ts , …)
/// ```
pub fn plain<'a>(
    text: &'a str,
    tokens: &[TokenWithSpan],
    bytes: &dyn Fn(&TokenWithSpan) -> Range<usize>,
) -> Cow<'a, str> {
    let tokens: Vec<&TokenWithSpan> =
        tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    let is = |i: usize, word: &str| matches!(tokens.get(i).map(|t| &t.token), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    let paren = |i: usize| matches!(tokens.get(i).map(|t| &t.token), Some(Token::LParen));
    // Blanked tokens, and those that become a comma.
    let (mut blank, mut comma) = (Vec::new(), Vec::new());
    for call in 0..tokens.len() {
        if !WINDOWS.iter().any(|w| is(call, w.name)) || !paren(call + 1) {
            continue;
        }
        let Some(close) = closing(&tokens, call + 1) else { continue };
        if call >= 2 && is(call - 2, "table") && paren(call - 1) && closing(&tokens, call - 1) == Some(close + 1) {
            blank.extend([call - 2, call - 1, close + 1]);
        }
        let mut depth = 0;
        for i in call + 1..close {
            match &tokens[i].token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ if depth != 1 => {}
                _ if is(i, "partition") && is(i + 1, "by") => {
                    comma.push(i);
                    blank.push(i + 1);
                }
                _ if is(i, "table") && i == call + 2 && !paren(i + 1) => blank.push(i),
                _ if is(i, "descriptor") && paren(i + 1) => {
                    blank.extend([i, i + 1]);
                    blank.extend(closing(&tokens, i + 1));
                }
                _ => {}
            }
        }
    }
    if blank.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut plain = text.as_bytes().to_vec();
    let places = blank.into_iter().map(|i| (i, false)).chain(comma.into_iter().map(|i| (i, true)));
    for (i, comma) in places {
        let range = bytes(tokens[i]);
        plain[range.clone()].fill(b' ');
        if comma {
            plain[range.start] = b',';
        }
    }
    String::from_utf8(plain).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The parenthesis that closes the one at `open`.
fn closing(tokens: &[&TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i);
        }
    }
    None
}
