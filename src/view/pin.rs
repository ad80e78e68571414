//! Gives a query one instant: every stream and every rollup that its plan reads is replaced by a snapshot, and all
//! snapshots are taken together. So a join of two views, or of a view and its streams, never sees one of them further
//! along than the other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan, TableScan, lit};

use super::fill::FillNode;
use super::join::Pending;
use super::runner::{Runner, Snapshot};
use super::table::{RollupTable, StreamTable};
use crate::error::{Error, Kind, Result};
use crate::rollup::plan::{Definition, Slot, provider_of};
use crate::rollup::reference::{replace_tables, tables_of};
use crate::time::Micros;

/// What a plan reads of one stream.
#[derive(Default)]
struct Reads {
    runner: Option<Arc<Runner>>,
    keys: Vec<String>,
}

/// One instant of all streams that a plan reads, by the stream's name.
pub type Instant = HashMap<String, Arc<Snapshot>>;

/// Replaces all live scans in `plan`. `runner_of` finds the runner of a stream by name.
pub fn pin(plan: LogicalPlan, runner_of: &dyn Fn(&str) -> Option<Arc<Runner>>) -> Result<LogicalPlan> {
    let plan = pin_tables(plan)?;
    let instant = instant_of(&plan, runner_of)?;
    pin_at(plan, &instant, None)
}

/// Snapshots of all that `plan` reads, as of now.
pub fn instant_of(plan: &LogicalPlan, runner_of: &dyn Fn(&str) -> Option<Arc<Runner>>) -> Result<Instant> {
    // Streams are held still in the order of their names: two readers never wait for each other.
    let mut reads: BTreeMap<String, Reads> = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            if let Some(slot) = provider_of::<Slot>(scan) {
                for stream in slot.definition.streams() {
                    let entry = reads.entry(stream.clone()).or_default();
                    entry.runner = entry.runner.take().or_else(|| runner_of(stream));
                }
                reads.entry(slot.definition.stream.clone()).or_default().keys.push(slot.definition.key.clone());
            } else if let Some(table) = provider_of::<StreamTable>(scan) {
                reads.entry(table.name.clone()).or_default().runner = Some(Arc::clone(&table.runner));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let runner = |(stream, read): (&String, &Reads)| read.runner.clone().ok_or_else(|| gone(stream));
    let runners = reads.iter().map(runner).collect::<Result<Vec<_>>>()?;
    let asked: Vec<_> = runners.iter().zip(reads.values()).map(|(runner, read)| (&**runner, &*read.keys)).collect();
    let snapshots = Runner::snapshots(&asked);
    Ok(reads.into_keys().zip(snapshots.into_iter().map(Arc::new)).collect())
}

/// Replaces all live scans in `plan` by those of an instant. With `windows`, rollups give only windows that start in this
/// closed range.
pub fn pin_at(plan: LogicalPlan, instant: &Instant, windows: Option<(Micros, Micros)>) -> Result<LogicalPlan> {
    if instant.is_empty() {
        return Ok(plan);
    }
    let pinned = plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = &node
            && let Some(fill) = extension.node.as_any().downcast_ref::<FillNode>()
            && let Some(snapshot) = instant.get(&fill.stream)
        {
            let node = Arc::new(fill.pinned(snapshot.watermark));
            return Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })));
        }
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        if let Some(slot) = provider_of::<Slot>(&scan) {
            let bounds = windows.and_then(|range| start_between(&scan, &slot, range));
            let source = provider_as_source(Arc::new(rollup_table(slot, instant)?));
            let scan = LogicalPlan::TableScan(TableScan { source, ..scan });
            return Ok(Transformed::yes(match bounds {
                Some(bounds) => LogicalPlan::Filter(Filter::try_new(bounds, Arc::new(scan))?),
                None => scan,
            }));
        }
        let Some(table) = provider_of::<StreamTable>(&scan) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let snapshot = instant.get(&table.name).ok_or_else(|| gone(&table.name))?;
        // The columns as of planning: a format that learns may have more by now.
        let schema = match &scan.projection {
            None => Arc::new(scan.projected_schema.as_arrow().clone()),
            Some(_) => scan.source.schema(),
        };
        let source = provider_as_source(Arc::new(table.pinned(schema, Arc::clone(snapshot))));
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

/// `c0 >= low AND c0 <= high` over the column that holds the window's id, exact in any unit. `None` for a rollup without
/// windows.
fn start_between(scan: &TableScan, slot: &Slot, (low, high): (Micros, Micros)) -> Option<Expr> {
    let name = format!("c{}", slot.definition.pane?.column);
    let DataType::Timestamp(unit, zone) = slot.definition.schema.field_with_name(&name).ok()?.data_type() else {
        return None;
    };
    // In coarser units the first value from `low` on, in finer ones the last one of `high`'s microsecond.
    let first = |per: Micros| low.div_euclid(per) + Micros::from(low.rem_euclid(per) > 0);
    let (low, high) = match unit {
        TimeUnit::Second => (first(1_000_000), high.div_euclid(1_000_000)),
        TimeUnit::Millisecond => (first(1000), high.div_euclid(1000)),
        TimeUnit::Microsecond => (low, high),
        TimeUnit::Nanosecond => (low.saturating_mul(1000), high.saturating_mul(1000).saturating_add(999)),
    };
    let value = |raw: i64| {
        let zone = zone.clone();
        lit(match unit {
            TimeUnit::Second => ScalarValue::TimestampSecond(Some(raw), zone),
            TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(raw), zone),
            TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(raw), zone),
            TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(raw), zone),
        })
    };
    let column = Expr::Column(Column::new(Some(scan.table_name.clone()), name));
    Some(column.clone().gt_eq(value(low)).and(column.lt_eq(value(high))))
}

/// The rollup of a slot as of an instant, or what went wrong with it.
fn rollup_table(slot: Arc<Slot>, instant: &Instant) -> Result<RollupTable> {
    let snapshot = instant.get(&slot.definition.stream).ok_or_else(|| gone(&slot.definition.stream))?;
    match snapshot.runs.get(&slot.definition.key) {
        Some(Ok(runs)) => {
            let pending = pending(&slot, instant)?;
            Ok(RollupTable { runs: runs.clone(), pending, watermark: snapshot.watermark, slot })
        }
        Some(Err(err)) => Err(Error::new(err.kind(), format!("this view's query failed: {}", err.message()))
            .with_hint(
                err.hint().unwrap_or("DROP the view and create it with a query that cannot fail on these rows."),
            )),
        None => Err(gone(&slot.definition.stream)),
    }
}

/// What of a join's result has to be computed from the rows of its streams.
fn pending(slot: &Slot, instant: &Instant) -> Result<Option<Arc<Pending>>> {
    let Definition { stream, key, partner: Some(partner), .. } = &slot.definition else { return Ok(None) };
    let left = instant.get(stream).ok_or_else(|| gone(stream))?;
    let right = instant.get(&partner.stream).ok_or_else(|| gone(&partner.stream))?;
    left.stale.get(key).map(|(joint, stale)| joint.pending(stale, left, right).map(Arc::new)).transpose()
}

fn gone(stream: &str) -> Error {
    Error::new(Kind::UndefinedTable, format!("stream \"{stream}\" or a view on it was dropped meanwhile"))
}
