//! Which SQL functions are our own? Those in FROM ([`FUNCTIONS`]): windows and raw log files. Scalar and aggregate
//! functions are DataFusion's; psql's `\df` lists them.

pub mod read_log;

use datafusion::execution::SessionStateBuilder;

use crate::registry::Entry;

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
pub static FUNCTIONS: &[&Spec] = &[&super::window::TUMBLE, &super::window::HOP, &read_log::SPEC];

/// Adds what our dialect needs to a session: planners of relations go first come, first served.
pub fn extend(builder: SessionStateBuilder) -> SessionStateBuilder {
    builder.with_relation_planners(vec![std::sync::Arc::new(read_log::ReadLog)])
}
