//! Which SQL functions are our own? Those in FROM ([`FUNCTIONS`]): windows and raw log files; and scalar functions for
//! what is in logs ([`SCALARS`]): URLs, addresses, user agents, JSON, quantities; and window functions for what is unusual
//! ([`WINDOWED`]). All others are DataFusion's; psql's `\df` lists all of them. The tables drive planning, `SHOW FUNCTIONS`, the README and tests that hold for every function.

pub mod address;
pub mod bucket;
pub mod cast;
pub mod conditional;
pub mod datetime;
pub mod datetime_read;
pub mod extra;
pub mod interval;
pub mod json;
pub mod jsonb;
pub mod network;
pub mod number_text;
pub mod operators;
pub mod pattern;
pub mod privileges;
pub mod quantity;
pub mod quote;
pub mod read_log;
pub mod scalar;
pub mod series;
pub mod session;
pub mod sleep;
pub mod sum;
pub mod threshold;
pub mod url;
pub mod user_agent;
pub mod windowed;
pub mod zone;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;

use crate::registry::Entry;
use scalar::Scalar;
use windowed::Windowed;

/// One row of the table of functions.
pub struct Spec {
    pub name: &'static str,
    pub syntax: &'static str,
    pub summary: &'static str,
}

impl Entry for Spec {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
}

/// Every table function.
pub static FUNCTIONS: &[&Spec] =
    &[&super::window::TUMBLE, &super::window::HOP, &super::window::CUMULATE, &super::window::SESSION, &read_log::SPEC];

/// Every scalar function, by family.
pub static SCALARS: &[&[Scalar]] = &[
    url::SPECS,
    user_agent::SPECS,
    address::SPECS,
    json::SPECS,
    pattern::SPECS,
    quantity::SPECS,
    bucket::SPECS,
    datetime::SPECS,
];

/// Scalar functions of PostgreSQL that DataFusion lacks or has otherwise, and what operators and casts call, by family.
pub static POSTGRES: &[&[Scalar]] = &[
    jsonb::SPECS,
    network::SPECS,
    interval::SPECS,
    datetime_read::SPECS,
    zone::SPECS,
    number_text::SPECS,
    series::SPECS,
    extra::SPECS,
    quote::SPECS,
    cast::SPECS,
];

/// The rows of [`SCALARS`] and [`POSTGRES`].
pub fn scalars() -> impl Iterator<Item = &'static Scalar> {
    SCALARS.iter().chain(POSTGRES).flat_map(|family| family.iter())
}

/// Every window function, by family.
pub static WINDOWED: &[&[Windowed]] = &[threshold::SPECS];

/// The rows of [`WINDOWED`].
pub fn windowed() -> impl Iterator<Item = &'static Windowed> {
    WINDOWED.iter().flat_map(|family| family.iter())
}

/// Further names of functions: PostgreSQL's for what DataFusion calls otherwise, and one that DataFusion has.
static OTHER_NAMES: &[(&str, &str)] = &[
    ("ceil", "ceiling"),
    ("signum", "sign"),
    ("to_char", "date_format"),
    // A statement has one time, and is a transaction of its own.
    ("now", "clock_timestamp"),
    ("now", "statement_timestamp"),
    ("now", "transaction_timestamp"),
];

/// The same of aggregates.
static OTHER_AGGREGATES: &[(&str, &str)] = &[("var", "variance"), ("bool_and", "every")];

/// Adds what our dialect needs to a session that has DataFusion's functions. Planners go first come, first served.
pub fn extend(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let functions = builder.scalar_functions().get_or_insert_default();
    // What ours replace goes altogether: under another name of it, a copy of the session would find it again.
    functions.retain(|function| scalars().all(|scalar| scalar.name != function.name()));
    functions.extend(scalars().map(|scalar| Arc::new(scalar.udf())));
    functions.extend(sleep::functions().map(Arc::new));
    functions.retain(|function| conditional::NAMES.iter().all(|name| function.name() != *name));
    functions.extend(conditional::functions().map(Arc::new));
    for (name, other) in OTHER_NAMES {
        for function in functions.iter_mut().filter(|function| function.name() == *name) {
            *function = Arc::new(function.as_ref().clone().with_aliases([*other]));
        }
    }
    let aggregates = builder.aggregate_functions().get_or_insert_default();
    aggregates.retain(|function| function.name() != sum::NAME);
    aggregates.push(Arc::new(sum::function()));
    for (name, other) in OTHER_AGGREGATES {
        for function in aggregates.iter_mut().filter(|function| function.name() == *name) {
            *function = Arc::new(function.as_ref().clone().with_aliases([*other]));
        }
    }
    builder = builder.with_analyzer_rule(Arc::new(cast::Casts));
    builder.window_functions().get_or_insert_default().extend(windowed().map(|function| Arc::new(function.udwf())));
    let planners = builder.expr_planners().get_or_insert_default();
    planners.insert(0, Arc::new(json::Operators));
    planners.insert(0, Arc::new(operators::Operators));
    planners.insert(0, Arc::new(pattern::Substring));
    builder.with_relation_planners(vec![Arc::new(read_log::ReadLog)])
}
