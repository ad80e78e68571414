//! Gives a query one instant: every stream and every rollup that its plan reads is replaced by a snapshot, and all
//! snapshots of one stream are taken together. So a join of two views, or of a view and its stream, never sees one of
//! them further along than the other.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Extension, LogicalPlan, TableScan};

use super::fill::FillNode;
use super::runner::{Runner, Snapshot};
use super::table::{RollupTable, StreamTable};
use crate::error::{Error, Kind, Result};
use crate::rollup::plan::{Slot, provider_of};
use crate::rollup::reference::{replace_tables, tables_of};

/// What a plan reads of one stream.
#[derive(Default)]
struct Reads {
    runner: Option<Arc<Runner>>,
    keys: Vec<String>,
}

/// Replaces all live scans in `plan`. `runner_of` finds the runner of a stream by name.
pub fn pin(plan: LogicalPlan, runner_of: &dyn Fn(&str) -> Option<Arc<Runner>>) -> Result<LogicalPlan> {
    let plan = pin_tables(plan)?;
    let mut reads: HashMap<String, Reads> = HashMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            if let Some(slot) = provider_of::<Slot>(scan) {
                let stream = slot.definition.stream.clone();
                let entry = reads.entry(stream.clone()).or_default();
                entry.runner = entry.runner.take().or_else(|| runner_of(&stream));
                entry.keys.push(slot.definition.key.clone());
            } else if let Some(table) = provider_of::<StreamTable>(scan) {
                reads.entry(table.name.clone()).or_default().runner = Some(Arc::clone(&table.runner));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if reads.is_empty() {
        return Ok(plan);
    }
    let mut snapshots: HashMap<String, Arc<Snapshot>> = HashMap::new();
    for (stream, read) in reads {
        let runner = read.runner.ok_or_else(|| gone(&stream))?;
        snapshots.insert(stream, Arc::new(runner.snapshot(read.keys.iter().map(String::as_str))));
    }
    let pinned = plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = &node
            && let Some(fill) = extension.node.as_any().downcast_ref::<FillNode>()
            && let Some(snapshot) = snapshots.get(&fill.stream)
        {
            let node = Arc::new(fill.pinned(snapshot.watermark));
            return Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })));
        }
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let source = if let Some(slot) = provider_of::<Slot>(&scan) {
            let snapshot = &snapshots[&slot.definition.stream];
            provider_as_source(Arc::new(rollup_table(slot, snapshot)?))
        } else if let Some(table) = provider_of::<StreamTable>(&scan) {
            let snapshot = Arc::clone(&snapshots[&table.name]);
            // The columns as of planning: a format that learns may have more by now.
            let schema = match &scan.projection {
                None => Arc::new(scan.projected_schema.as_arrow().clone()),
                Some(_) => scan.source.schema(),
            };
            provider_as_source(Arc::new(table.pinned(schema, snapshot)))
        } else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    })?;
    Ok(pinned.data)
}

/// A reference table that is replaced while a query is planned must not be read in two versions.
fn pin_tables(plan: LogicalPlan) -> Result<LogicalPlan> {
    let tables = tables_of(&plan);
    let current: Vec<_> = tables.iter().map(|t| (Arc::clone(&t.reference), t.reference.current())).collect();
    if current.is_empty() {
        return Ok(plan);
    }
    Ok(replace_tables(plan, &|table| {
        let (_, version) = current.iter().find(|(reference, _)| Arc::ptr_eq(reference, &table.reference))?;
        version.clone().filter(|_| table.files.is_none()).map(|version| table.at(version))
    })?)
}

fn rollup_table(slot: Arc<Slot>, snapshot: &Snapshot) -> Result<RollupTable> {
    match snapshot.runs.get(&slot.definition.key) {
        Some(Ok(runs)) => Ok(RollupTable { runs: runs.clone(), watermark: snapshot.watermark, slot }),
        Some(Err(err)) => Err(Error::new(err.kind(), format!("this view's query failed: {}", err.message()))
            .with_hint(
                err.hint().unwrap_or("DROP the view and create it with a query that cannot fail on these rows."),
            )),
        None => Err(gone(&slot.definition.stream)),
    }
}

fn gone(stream: &str) -> Error {
    Error::new(Kind::UndefinedTable, format!("stream \"{stream}\" or a view on it was dropped meanwhile"))
}
