//! Why a query cannot be maintained: the plan node that stands in the way, and what to write instead.

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Join, LogicalPlan, TableScan};

use super::reference::is_constant;
use crate::error::{Error, Kind};

type StreamOf<'a> = &'a dyn Fn(&TableScan) -> Option<String>;

/// The error for `finish`, from which all aggregates that can be maintained were cut out, when it still reads a stream.
/// `passes` tells whether a subtree is a chain that could stand below an aggregate.
pub fn what_is_left(
    finish: &LogicalPlan,
    stream_of: StreamOf<'_>,
    passes: &dyn Fn(&LogicalPlan) -> bool,
) -> Option<Error> {
    let mut path = Vec::new();
    let stream = walk(finish, stream_of, &mut path)?;
    // From the stream upwards: the first node that the chain cannot pass.
    let blocker = path.iter().rev().find(|node| !passes(node)).unwrap_or(&path[0]);
    let message = format!("this query over stream \"{stream}\" cannot be maintained");
    let detail = format!(
        "Plan node: {} reads the stream without an aggregate below it that could be kept up to date.",
        blocker.display()
    );
    Some(Error::new(Kind::NotSupported, message).with_detail(detail).with_hint(hint(blocker, stream_of)))
}

/// The first stream found, with the nodes down to it: `path` starts at the top.
fn walk(plan: &LogicalPlan, stream_of: StreamOf<'_>, path: &mut Vec<LogicalPlan>) -> Option<String> {
    path.push(plan.clone());
    if let LogicalPlan::TableScan(scan) = plan
        && let Some(stream) = stream_of(scan)
    {
        return Some(stream);
    }
    for input in plan.inputs() {
        if let Some(stream) = walk(input, stream_of, path) {
            return Some(stream);
        }
    }
    let mut found = None;
    let visited: DfResult<TreeNodeRecursion> = plan.apply_subqueries(|subquery| {
        found = walk(subquery, stream_of, path);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(visited.is_ok(), "the visitor above does not fail");
    if found.is_none() {
        path.pop();
    }
    found
}

fn hint(blocker: &LogicalPlan, stream_of: StreamOf<'_>) -> String {
    let hint = match blocker {
        LogicalPlan::Union(_) => {
            "Aggregate each stream by itself and unite the results: SELECT … GROUP BY … UNION ALL SELECT … GROUP BY …."
        }
        LogicalPlan::Join(join) => join_hint(join, stream_of),
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
            "The rows of a stream have no end to be sorted or cut at: use ORDER BY and LIMIT above an aggregate, or when you read the view."
        }
        LogicalPlan::Window(_) => {
            "Window functions work above an aggregate: group by a window first, then use OVER on the result."
        }
        _ => {
            "Only filters, projections, windows and joins with reference tables may stand between a stream and its GROUP BY. Use CREATE VIEW for a query that is computed whenever it is read."
        }
    };
    hint.to_string()
}

fn join_hint(join: &Join, stream_of: StreamOf<'_>) -> &'static str {
    let reads_stream = |plan: &LogicalPlan| walk(plan, stream_of, &mut Vec::new()).is_some();
    if is_constant(&join.left) || is_constant(&join.right) {
        "Rows of a table that no row of the stream meets cannot be kept below an aggregate: write stream LEFT JOIN table, or join the table with the aggregate."
    } else if reads_stream(&join.left) && reads_stream(&join.right) {
        "Two streams can be joined below an aggregate (GROUP BY …), by a key and a bound on the time between their rows. Or: Aggregate each stream by itself and join the results."
    } else {
        "Only reference tables can be joined with a stream below an aggregate: make one with CREATE TABLE … AS SELECT …, or join above the aggregate."
    }
}
