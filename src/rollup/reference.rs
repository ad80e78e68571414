//! Reference tables: what the rows of a stream are looked up in below an aggregate.
//!
//! A changed table applies to the rows from then on. So a table is a sequence of *versions*, and each version says from
//! which offset of which stream it applies:
//!
//! ```text
//!     offsets of stream "access"   0 ─────────────── 1200 ────────────── 5000 ──────────►
//!     version that they join              1                   2                  3
//! ```
//!
//! Which version a row joins depends on nothing but its offset. Folding it live, replaying it after a restart and filling
//! a new view from history therefore give the same result. A batch query reads the newest version for all rows: a view
//! equals its batch as long as its tables have not changed since it began.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{JoinType, Result as DfResult};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, TableProviderFilterPushDown, TableScan, TableType};
use parking_lot::RwLock;

use super::plan::provider_of;
use crate::batch::MicroBatch;
use crate::error::{Error, Kind, Result};
use crate::opaque::{Scanned, scan_boxed};

/// Gets the rows of a version: from memory, or from the disk for one that only old rows join.
pub type Load = Arc<dyn Fn() -> Result<Arc<Vec<RecordBatch>>> + Send + Sync>;

/// The content of a table from some moment on.
pub struct Version {
    pub number: u64,
    /// The first offset of each stream that joins this version. A stream that is not named had no view over the table
    /// when the version came: there it applies from the beginning.
    pub from: BTreeMap<String, u64>,
    pub rows: u64,
    pub bytes: u64,
    load: Load,
}

impl Version {
    pub fn new(number: u64, from: BTreeMap<String, u64>, rows: u64, bytes: u64, load: Load) -> Version {
        Version { number, from, rows, bytes, load }
    }

    pub fn batches(&self) -> Result<Arc<Vec<RecordBatch>>> {
        (self.load)()
    }

    fn begins(&self, stream: &str) -> u64 {
        self.from.get(stream).copied().unwrap_or(0)
    }
}

/// A table with its versions, oldest first.
pub struct Reference {
    pub name: String,
    /// Bytes that a version, or what a view makes of it before looking up, may take.
    pub limit: u64,
    versions: RwLock<Vec<Arc<Version>>>,
    next: AtomicU64,
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({})", self.name)
    }
}

impl Reference {
    pub fn new(name: &str, limit: u64, versions: Vec<Arc<Version>>) -> Reference {
        let next = AtomicU64::new(versions.last().map_or(1, |v| v.number + 1));
        Reference { name: name.to_string(), limit, versions: RwLock::new(versions), next }
    }

    /// A number that no version has had, also none that came to nothing.
    pub fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// The newest version; none when it is a table of files that no view has needed yet.
    pub fn current(&self) -> Option<Arc<Version>> {
        self.versions.read().last().cloned()
    }

    pub fn versions(&self) -> Vec<Arc<Version>> {
        self.versions.read().clone()
    }

    /// Puts these versions in the place of those there were.
    pub fn set(&self, versions: Vec<Arc<Version>>) {
        *self.versions.write() = versions;
    }

    /// The version that the row at `offset` of `stream` joins.
    pub fn at(&self, stream: &str, offset: u64) -> Option<Arc<Version>> {
        self.versions.read().iter().rev().find(|v| v.begins(stream) <= offset).cloned()
    }

    /// Where versions change between two offsets of a stream: offsets behind the first up to before the end.
    pub fn boundaries(&self, stream: &str, offsets: &std::ops::Range<u64>) -> Vec<u64> {
        let inside = |at: &u64| *at > offsets.start && *at < offsets.end;
        self.versions.read().iter().map(|v| v.begins(stream)).filter(inside).collect()
    }

    /// The versions that rows of these streams join, and the newest, each with what it says about these streams only.
    pub fn needed(&self, streams: &[String]) -> Vec<Arc<Version>> {
        let versions = self.versions.read();
        let mut kept = Vec::new();
        for (i, version) in versions.iter().enumerate() {
            let later = &versions[i + 1..];
            let applies = |s: &String| later.iter().all(|v| v.begins(s) > version.begins(s));
            if !later.is_empty() && !streams.iter().any(applies) {
                continue;
            }
            let from: BTreeMap<_, _> =
                version.from.iter().filter(|(s, _)| streams.contains(s)).map(|(s, at)| (s.clone(), *at)).collect();
            kept.push(if from == version.from {
                Arc::clone(version)
            } else {
                let load = Arc::clone(&version.load);
                Arc::new(Version::new(version.number, from, version.rows, version.bytes, load))
            });
        }
        kept
    }
}

/// A reference table as SQL sees it.
pub struct ReferenceTable {
    pub reference: Arc<Reference>,
    schema: SchemaRef,
    /// Files of others: queries read them where they are; only a join below the aggregate of a view takes a version.
    pub files: Option<Arc<dyn TableProvider>>,
    pinned: Option<Arc<Version>>,
}

impl fmt::Debug for ReferenceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReferenceTable({})", self.reference.name)
    }
}

impl ReferenceTable {
    pub fn new(reference: Arc<Reference>, schema: SchemaRef) -> ReferenceTable {
        ReferenceTable { reference, schema, files: None, pinned: None }
    }

    /// A table whose rows are in files.
    pub fn over_files(reference: Arc<Reference>, files: Arc<dyn TableProvider>) -> ReferenceTable {
        ReferenceTable { reference, schema: files.schema(), files: Some(files), pinned: None }
    }

    /// The same columns, from the versions and not from files.
    pub fn of_versions(&self) -> ReferenceTable {
        ReferenceTable::new(Arc::clone(&self.reference), Arc::clone(&self.schema))
    }

    /// The same columns as of one version.
    pub fn at(&self, version: Arc<Version>) -> ReferenceTable {
        ReferenceTable { pinned: Some(version), ..self.of_versions() }
    }

    fn reading_files(&self) -> Option<&Arc<dyn TableProvider>> {
        self.files.as_ref().filter(|_| self.pinned.is_none())
    }

    /// The rows with the columns as of planning: a replaced table may have more by now, in another order.
    fn rows(&self) -> Result<Vec<RecordBatch>> {
        let version = self.pinned.clone().or_else(|| self.reference.current());
        let version = version.ok_or_else(|| Error::internal(format!("\"{}\" was not loaded", self.reference.name)))?;
        let batches = version.batches()?;
        let fitting = batches.iter().map(|batch| {
            let missing = self.schema.fields().iter().find(|f| batch.column_by_name(f.name()).is_none());
            match missing {
                None => crate::batch::fit(batch, &self.schema),
                Some(field) => Err(Error::new(
                    Kind::UndefinedColumn,
                    format!("table \"{}\" no longer has a column \"{}\"", self.reference.name, field.name()),
                )
                .with_hint("The table was replaced meanwhile: prepare the statement again.")),
            }
        });
        fitting.collect()
    }
}

impl TableProvider for ReferenceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        match self.reading_files() {
            Some(files) => files.supports_filters_pushdown(filters),
            None => Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]),
        }
    }

    scan_boxed!(ReferenceTable);
}

impl ReferenceTable {
    async fn plan_scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Scanned {
        match self.reading_files() {
            Some(files) => files.scan(state, projection, filters, limit).await,
            None => {
                Ok(MemorySourceConfig::try_new_exec(&[self.rows()?], Arc::clone(&self.schema), projection.cloned())?)
            }
        }
    }
}

/// The reference tables that a plan reads, each once.
pub fn tables_of(plan: &LogicalPlan) -> Vec<Arc<ReferenceTable>> {
    let mut tables: Vec<Arc<ReferenceTable>> = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = provider_of::<ReferenceTable>(scan)
            && !tables.iter().any(|t| Arc::ptr_eq(&t.reference, &table.reference))
        {
            tables.push(table);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor above does not fail");
    tables
}

/// Replaces the scans of reference tables in `plan`.
pub fn replace_tables(
    plan: LogicalPlan,
    by: &dyn Fn(&ReferenceTable) -> Option<ReferenceTable>,
) -> DfResult<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        match provider_of::<ReferenceTable>(&scan).and_then(|table| by(&table)) {
            Some(table) => {
                let source = provider_as_source(Arc::new(table));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        }
    })?;
    Ok(replaced.data)
}

/// Whether a plan reads nothing but reference tables and values, so that a stream can be joined with it.
pub fn is_constant(plan: &LogicalPlan) -> bool {
    let mut constant = true;
    let visited = plan.apply_with_subqueries(|node| {
        constant &= match node {
            LogicalPlan::TableScan(scan) => provider_of::<ReferenceTable>(scan).is_some(),
            LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => true,
            LogicalPlan::Extension(_) => false,
            other => !other.inputs().is_empty(),
        };
        Ok(if constant { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    constant && visited.is_ok()
}

/// The side of a join whose rows are looked up in the other, if the other is constant and the join makes rows of this
/// side's rows only: a row of the table that no row of the stream meets (yet) can then be left out.
pub fn stream_side(join: &Join) -> Option<&Arc<LogicalPlan>> {
    use JoinType::*;
    let left = matches!(join.join_type, Inner | Left | LeftSemi | LeftAnti | LeftMark);
    let right = matches!(join.join_type, Inner | Right | RightSemi | RightAnti | RightMark);
    if left && is_constant(&join.right) {
        Some(&join.left)
    } else if right && is_constant(&join.left) {
        Some(&join.right)
    } else {
        None
    }
}

/// The column of the stream's side that column `index` of the join's result is, if it is one of that side.
pub fn join_column(join: &Join, index: usize) -> Option<(&LogicalPlan, usize)> {
    use JoinType::*;
    let side = stream_side(join)?;
    let before = match join.join_type {
        Inner | Right if Arc::ptr_eq(side, &join.right) => join.left.schema().fields().len(),
        _ => 0,
    };
    let index = index.checked_sub(before)?;
    (index < side.schema().fields().len()).then_some((side.as_ref(), index))
}

/// The expressions of a join's condition.
pub fn conditions(join: &Join) -> impl Iterator<Item = &Expr> {
    join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter)
}

/// What a plan's text does not say in full: the rows of VALUES, of which it shows a few.
pub fn values_of(plan: &LogicalPlan) -> String {
    let mut text = String::new();
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Values(values) = node {
            text += &format!("\n{:?}", values.values);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor above does not fail");
    text
}

/// Which offsets the rows of consecutive batches have: those of the frames from `base` on that are not malformed, or as
/// listed.
#[derive(Clone, Copy)]
pub struct Offsets<'a> {
    pub base: u64,
    pub frames: u64,
    /// With the columns of [`crate::batch::MALFORMED`].
    pub malformed: &'a [RecordBatch],
    /// The offset of each row, in ascending order, where frames of other rows lie between them.
    pub listed: Option<&'a [i64]>,
}

impl Offsets<'_> {
    /// Those of rows that are not of the log: every reference table applies as it is now.
    pub const NOW: Offsets<'static> = Offsets { base: u64::MAX, frames: 0, malformed: &[], listed: None };

    pub fn of(batch: &MicroBatch) -> Offsets<'_> {
        let malformed = batch.malformed.as_slice();
        Offsets { base: batch.base, frames: batch.frames, malformed, listed: None }
    }

    /// Of rows with these offsets, which ascend.
    pub fn listed(offsets: &[i64]) -> Offsets<'_> {
        let base = offsets.first().map_or(0, |&first| first as u64);
        let end = offsets.last().map_or(0, |&last| last as u64 + 1);
        Offsets { base, frames: end - base, malformed: &[], listed: Some(offsets) }
    }

    pub fn range(&self) -> std::ops::Range<u64> {
        self.base..self.base + self.frames
    }

    /// How many rows stand before the frame at `offset`.
    pub fn rows_before(&self, offset: u64) -> usize {
        use arrow::array::AsArray;
        use arrow::datatypes::Int64Type;
        if let Some(listed) = self.listed {
            return listed.partition_point(|&at| (at as u64) < offset);
        }
        let column = |batch: &RecordBatch| batch.column_by_name("offset").map(Arc::clone);
        let malformed = self.malformed.iter().filter_map(column).map(|offsets| {
            let offsets = offsets.as_primitive_opt::<Int64Type>().map_or(&[][..], |o| o.values()).to_vec();
            offsets.iter().filter(|&&at| (at as u64) < offset).count()
        });
        let malformed: usize = malformed.sum();
        (offset.saturating_sub(self.base).min(self.frames) as usize).saturating_sub(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, from: &[(&str, u64)]) -> Arc<Version> {
        let from = from.iter().map(|(s, at)| (s.to_string(), *at)).collect();
        Arc::new(Version::new(number, from, 0, 0, Arc::new(|| Ok(Arc::default()))))
    }

    fn numbers(versions: &[Arc<Version>]) -> Vec<u64> {
        versions.iter().map(|v| v.number).collect()
    }

    #[test]
    fn an_offset_says_which_version_applies() {
        let versions = vec![version(1, &[]), version(2, &[("a", 10)]), version(3, &[("a", 20), ("b", 5)])];
        let table = Reference::new("t", 0, versions);
        let at = |stream, offset| table.at(stream, offset).unwrap().number;
        assert_eq!([at("a", 0), at("a", 9), at("a", 10), at("a", 19), at("a", 20)], [1, 1, 2, 2, 3]);
        // A stream without a view when version 2 came has joined nothing before it.
        assert_eq!([at("b", 0), at("b", 4), at("b", 5), at("c", 0)], [2, 2, 3, 3]);
        assert_eq!(table.boundaries("a", &(10..21)), [20]);
        assert_eq!(table.boundaries("a", &(9..20)), [10]);
    }

    #[test]
    fn versions_that_no_row_joins_are_not_needed() {
        let versions = vec![version(1, &[]), version(2, &[("a", 10)]), version(3, &[("a", 20), ("b", 5)])];
        let table = Reference::new("t", 0, versions);
        assert_eq!(numbers(&table.needed(&["a".into()])), [1, 2, 3]);
        assert_eq!(numbers(&table.needed(&["b".into()])), [2, 3]);
        assert_eq!(numbers(&table.needed(&[])), [3]);
        assert!(table.needed(&[])[0].from.is_empty(), "a stream of the same name that comes later starts anew");
    }

    #[test]
    fn rows_are_counted_without_the_malformed_frames() {
        use arrow::array::Int64Array;
        use arrow::datatypes::{DataType, Field, Schema};
        let schema = Arc::new(Schema::new(vec![Field::new("offset", DataType::Int64, false)]));
        let malformed = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![101, 104]))]).unwrap();
        let malformed = [malformed];
        let offsets = Offsets { base: 100, frames: 6, malformed: &malformed, listed: None };
        let before: Vec<usize> = (100..=107).map(|at| offsets.rows_before(at)).collect();
        assert_eq!(before, [0, 1, 1, 2, 3, 3, 4, 4]);
    }
}
