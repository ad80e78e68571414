//! Parts of texts by regular expression, under the names that PostgreSQL, Spark and others give them. They stand beside
//! DataFusion's `regexp_like`, `regexp_match`, `regexp_replace`, `regexp_count` and `regexp_instr`, and take the same
//! patterns and flags.
//!
//! A pattern written in the query that is no regular expression is an error; one that comes from a row gives NULL.

use std::borrow::Cow;

use arrow::array::ArrayRef;
use arrow::datatypes::Int64Type;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{Expr, ScalarUDF};
use regex::Regex;

use super::scalar::{Arguments, NumberColumn, Scalar, Type, bad_constant, map_text};
use crate::error::{Kind, Result};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "regexp_extract",
        syntax: "regexp_extract(text, pattern [, group]) | substring(text FROM pattern)",
        summary: "what a group of the pattern matched first; without `group` the first group, or the whole match when there is none",
        sample: (r"regexp_extract('GET /user/42/orders', '/user/(\d+)')", "42"),
        forms: &[&[Type::Text, Type::Text], &[Type::Text, Type::Text, Type::Bigint]],
        result: Type::Text,
        check: |constants| check_pattern(constants, None),
        rows: extract,
    },
    Scalar {
        name: "regexp_substr",
        syntax: "regexp_substr(text, pattern [, start [, n [, flags [, group]]]])",
        summary: "the nth match of the pattern (or what a group of it matched) from the character `start` on",
        sample: (r"regexp_substr('a=1 b=22 c=333', '\d+', 1, 2)", "22"),
        forms: &[
            &[Type::Text, Type::Text],
            &[Type::Text, Type::Text, Type::Bigint],
            &[Type::Text, Type::Text, Type::Bigint, Type::Bigint],
            &[Type::Text, Type::Text, Type::Bigint, Type::Bigint, Type::Text],
            &[Type::Text, Type::Text, Type::Bigint, Type::Bigint, Type::Text, Type::Bigint],
        ],
        result: Type::Text,
        check: |constants| check_pattern(constants, constants.get(4).copied().flatten()),
        rows: substr,
    },
];

/// `substring(text FROM pattern)`, PostgreSQL's other spelling of `regexp_extract`: told from `substring(text FROM 3)` by
/// the pattern, which is written as a text.
#[derive(Debug)]
pub struct Substring;

impl ExprPlanner for Substring {
    fn plan_substring(&self, arguments: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        match arguments.as_slice() {
            [_, Expr::Literal(pattern, _)] if pattern.data_type().is_string() => {
                Ok(PlannerResult::Planned(ScalarUDF::call(&SPECS[0].udf(), arguments)))
            }
            _ => Ok(PlannerResult::Original(arguments)),
        }
    }
}

/// Compiles a pattern with PostgreSQL's flags, as DataFusion reads them: `i` without regard to case, `s` a dot also
/// matches a newline, `m` ^ and $ also match at lines, `x` blanks are left out; `c` and `g` say nothing here.
pub fn compile(pattern: &str, flags: &str) -> Result<Regex, String> {
    let mut builder = regex::RegexBuilder::new(pattern);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            's' => builder.dot_matches_new_line(true),
            'm' => builder.multi_line(true),
            'x' => builder.ignore_whitespace(true),
            'c' | 'g' => &mut builder,
            other => return Err(format!("There is no flag \"{other}\".")),
        };
    }
    builder.build().map_err(|err| err.to_string())
}

fn check_pattern(constants: &[Option<&str>], flags: Option<&str>) -> Result<()> {
    let Some(pattern) = constants.get(1).copied().flatten() else { return Ok(()) };
    match compile(pattern, flags.unwrap_or("")) {
        Ok(_) => Ok(()),
        Err(why) => Err(bad_constant(Kind::InvalidRegex, "a regular expression", pattern, &why)),
    }
}

/// The pattern that was compiled last: mostly it is the same in all rows.
#[derive(Default)]
struct Compiled {
    pattern: String,
    flags: String,
    regex: Option<Regex>,
}

impl Compiled {
    fn get(&mut self, pattern: &str, flags: &str) -> Option<&Regex> {
        // The empty pattern is also what there is at first, not compiled.
        if self.pattern != pattern || self.flags != flags || (pattern.is_empty() && self.regex.is_none()) {
            *self = Compiled {
                pattern: pattern.to_string(),
                flags: flags.to_string(),
                regex: compile(pattern, flags).ok(),
            };
        }
        self.regex.as_ref()
    }
}

/// What group `group` of the nth match from byte `start` on matched; group 0 is the whole match.
fn nth_match<'t>(regex: &Regex, text: &'t str, start: usize, n: usize, group: usize) -> Option<&'t str> {
    let n = n.checked_sub(1)?;
    if group == 0 {
        let from = text.get(start..)?;
        // Matching in the rest of the text, as PostgreSQL does: ^ matches at `start`.
        return Some(regex.find_iter(from).nth(n)?.as_str());
    }
    Some(regex.captures_iter(text.get(start..)?).nth(n)?.get(group)?.as_str())
}

fn extract(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let patterns = arguments.text(1)?;
    let groups = if arguments.count() > 2 { Some(arguments.numbers::<Int64Type>(2)?) } else { None };
    let mut compiled = Compiled::default();
    map_text(arguments, |text, row| {
        let regex = compiled.get(patterns.get(row)?, "")?;
        let group = match &groups {
            Some(groups) => usize::try_from(groups.get(row)?).ok()?,
            None => usize::from(regex.captures_len() > 1),
        };
        nth_match(regex, text, 0, 1, group).map(Cow::Borrowed)
    })
}

fn substr(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let patterns = arguments.text(1)?;
    let number = |i: usize| if arguments.count() > i { arguments.numbers::<Int64Type>(i).map(Some) } else { Ok(None) };
    let (starts, numbers, groups) = (number(2)?, number(3)?, number(5)?);
    let flags = if arguments.count() > 4 { Some(arguments.text(4)?) } else { None };
    let mut compiled = Compiled::default();
    map_text(arguments, |text, row| {
        let at = |column: &Option<NumberColumn<'_, Int64Type>>, otherwise: usize| match column {
            Some(column) => usize::try_from(column.get(row)?).ok(),
            None => Some(otherwise),
        };
        let (start, n, group) = (at(&starts, 1)?, at(&numbers, 1)?, at(&groups, 0)?);
        let flags = match &flags {
            Some(flags) => flags.get(row)?,
            None => "",
        };
        let regex = compiled.get(patterns.get(row)?, flags)?;
        // From characters to bytes; the place behind the last character is one too.
        let ends = std::iter::once(text.len());
        let start = text.char_indices().map(|(i, _)| i).chain(ends).nth(start.checked_sub(1)?)?;
        nth_match(regex, text, start, n, group).map(Cow::Borrowed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_matches_are_counted_from_one() {
        let regex = compile(r"(\w)=(\d+)", "").unwrap();
        let text = "a=1 b=22 ü=333";
        let get = |start, n, group| nth_match(&regex, text, start, n, group);
        assert_eq!(get(0, 1, 0), Some("a=1"));
        assert_eq!(get(0, 2, 2), Some("22"));
        assert_eq!(get(4, 2, 1), Some("ü"));
        assert_eq!(
            (get(0, 0, 0), get(0, 4, 0), get(0, 1, 3), get(99, 1, 0), get(10, 1, 0)),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn patterns_are_compiled_once_and_wrong_ones_are_none() {
        let mut compiled = Compiled::default();
        assert!(compiled.get("", "").is_some());
        assert!(compiled.get("(", "").is_none());
        assert!(compiled.get("A", "i").unwrap().is_match("a"));
        assert!(!compiled.get("A", "").unwrap().is_match("a"));
        assert!(compiled.get("a", "?").is_none());
        assert_eq!(check_pattern(&[None, Some("(")], None).unwrap_err().kind(), Kind::InvalidRegex);
        assert!(check_pattern(&[None, None], None).is_ok());
    }
}
