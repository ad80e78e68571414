//! Rollups with limits so small that a few hundred rows go through everything that large states go through: whatever
//! the order of rows, the cuts into micro-batches and the memory, a view equals its query run as a batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::physical_plan::collect;
use proptest::prelude::*;

use super::budget::{Budget, Memory};
use super::maintain::Only;
use super::pane::Sizes;
use super::plan::{Emission, Slot, provider_of, slots_of, split};
use super::run::Level;
use super::watermark::NEVER;
use super::{LEAST_LIMIT, Rollup};
use crate::config::Config;
use crate::error::{Kind, Result};
use crate::sql::{self, Planned, Session};
use crate::storage::fs::Disk;
use crate::storage::state_files::StateFiles;
use crate::time::{Clock, UTC};
use crate::view::table::RollupTable;

const TINY: Sizes = Sizes {
    fan_in: 3,
    seal: 40,
    slice_rows: 25,
    slice_bytes: 8 << 10,
    block_rows: 7,
    block_bytes: 4 << 10,
    base_runs: 2,
    parallel: 30,
};

const EVERYTHING: Emission = Emission { on_close: false, lateness: 0, time_of: &|_| None };

/// Ordinary queries, with and without windows, over few and many groups, with small and large states.
const QUERIES: &[&str] = &[
    "SELECT k, count(*), sum(n), max(ts), min(s) FROM rows GROUP BY k",
    "SELECT s, k, count(*), avg(n) FROM rows GROUP BY s, k",
    "SELECT count(*), sum(n), count(DISTINCT s), max(s) FROM rows",
    "SELECT date_bin(INTERVAL '10 seconds', ts) AS w, k, count(*), count(DISTINCT s), max(n) FROM rows GROUP BY w, k",
    "SELECT date_trunc('minute', ts) AS w, count(*), sum(n) FROM rows GROUP BY w",
    "SELECT s, date_trunc('minute', ts) AS w, median(n), count(*) FROM rows GROUP BY s, w",
    "SELECT window_start, window_end, s, count(*), sum(n)
     FROM HOP(rows, ts, INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY window_start, window_end, s",
    "SELECT window_end, count(*) FROM HOP(rows, ts, INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY window_end",
    "SELECT window_start, window_end, s, count(*), max(n)
     FROM CUMULATE(rows, ts, INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY window_start, window_end, s",
    "SELECT window_start, window_end, s, count(*), sum(n)
     FROM SESSION(rows PARTITION BY s, ts, INTERVAL '40 seconds') GROUP BY window_start, window_end, s",
    "SELECT window_start, window_end, count(*), sum(n)
     FROM SESSION(rows, ts, INTERVAL '3 seconds', INTERVAL '1 minute') GROUP BY window_start, window_end",
    "SELECT date_trunc('hour', ts, 'Europe/Berlin') AS w, s, count(*) FROM rows GROUP BY w, s",
    "SELECT k, s, count(*), sum(n) FROM rows GROUP BY CUBE (k, s)",
    "SELECT DISTINCT s, k FROM rows",
];

/// What readers ask of a windowed view besides all of it.
const NARROW: &str = "w >= '1970-01-01T00:03:00Z' AND w < '1970-01-01T00:06:00Z'";

/// What readers ask for by key: `{}` stands for a value of `s`. Those that do not fit a query's columns are left out.
const BY_KEY: &[&str] = &[
    "s = 'a longer text {}'",
    "s IN ('a longer text {}', 'a longer text 7', 'a longer text {}', 'none', NULL, 'a longer text 8')",
    "s = 'a longer text {}' OR s = 'a longer text 9'",
    "s > 'a longer text 3' AND s NOT LIKE '%7'",
    "k = 3",
    "k IN (1, 2, 4, 5)",
    "k IS NULL",
    "k = 2 AND s = 'a longer text {}'",
    "k IN (1, 2) AND s IN ('a longer text {}', 'a longer text 11')",
    "s = 'a longer text {}' AND w = '1970-01-01T00:01:00Z'",
    "k = 1 AND w = '1970-01-01T00:00:10Z'",
    "k = 1 AND w IN ('1970-01-01T00:00:10Z', '1970-01-01T00:01:10Z') AND s = 'a longer text {}'",
    "s = 'a longer text {}' AND w >= '1970-01-01T00:00:00Z'",
    "w = '1970-01-01T00:01:00Z'",
    "s = 'a longer text {}' AND window_start = '1970-01-01T00:01:00Z'",
    "s = 'a longer text {}' AND window_end > '1970-01-01T00:01:00Z'",
    "s IN ('a longer text {}', 'a longer text 12') AND window_start IN ('1970-01-01T00:00:40Z', '1970-01-01T00:01:00Z')",
];

type Row = (Option<i64>, i64, i64, Option<i64>);

/// Seconds, a key, a wide key, a number.
fn batch(rows: &[Row]) -> RecordBatch {
    let times = rows.iter().map(|r| r.0.map(|s| s * 1_000_000));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone(UTC))),
        ("k", Arc::new(rows.iter().map(|r| (r.1 > 0).then_some(r.1)).collect::<Int64Array>())),
        ("s", Arc::new(StringViewArray::from_iter(rows.iter().map(|r| Some(format!("a longer text {}", r.2)))))),
        ("n", Arc::new(rows.iter().map(|r| r.3).collect::<Int64Array>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

async fn session(all: &[RecordBatch]) -> Session {
    let session = Session::new(sql::open(Config { cores: 3, ..Config::default() }, Clock::system()).await.unwrap());
    let table = MemTable::try_new(batch(&[]).schema(), vec![all.to_vec()]).unwrap();
    session.context().register_table("rows", Arc::new(table)).unwrap();
    session
}

async fn plan(session: &Session, sql: &str) -> LogicalPlan {
    let statement = session.parse(sql).unwrap().remove(0);
    match session.plan(&statement).await.unwrap() {
        Planned::Query { plan, .. } => LogicalPlan::clone(&plan),
        Planned::Command { .. } => panic!("not a query"),
    }
}

/// A view that nobody but this test feeds.
struct View {
    finish: LogicalPlan,
    rollup: Arc<Rollup>,
}

impl View {
    async fn new(session: &Session, query: LogicalPlan, memory: Option<(&Memory, usize)>) -> View {
        let stream_of = |scan: &TableScan| (scan.table_name.table() == "rows").then(|| "rows".to_string());
        let split = split(query, &stream_of, &EVERYTHING).unwrap();
        let slot = &split.slots[0];
        let state = session.context().state();
        let rollup = Rollup::with_sizes(slot.definition.clone(), &state, TINY).await.unwrap();
        let rollup = match memory {
            Some((memory, limit)) => {
                let rollup = rollup.within(memory, 0);
                rollup.limit.store(limit, Ordering::Relaxed);
                rollup
            }
            None => Arc::new(rollup),
        };
        assert!(slot.rollup.set(Arc::clone(&rollup)).is_ok());
        View { finish: split.finish, rollup }
    }

    fn feed(&self, rows: &RecordBatch) -> Result<()> {
        if let Some(run) = self.rollup.maintainer().fold(rows, &[])? {
            self.rollup.add(run);
        }
        self.rollup.compact()
    }

    /// What a reader gets; with `wanted`, of the windows that start there.
    async fn read(&self, session: &Session, wanted: Option<&str>) -> Vec<String> {
        let pinned = self.finish.clone().transform_up(|node| match node {
            LogicalPlan::TableScan(scan) if provider_of::<Slot>(&scan).is_some() => {
                let slot = provider_of::<Slot>(&scan).unwrap();
                let table = RollupTable { watermark: NEVER, runs: self.rollup.snapshot(), pending: None, slot };
                let source = provider_as_source(Arc::new(table));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            other => Ok(Transformed::no(other)),
        });
        rows_of(session, narrowed(session, pinned.unwrap().data, wanted)).await
    }
}

/// `plan` with a WHERE over its result.
fn narrowed(session: &Session, plan: LogicalPlan, wanted: Option<&str>) -> LogicalPlan {
    let Some(wanted) = wanted else { return plan };
    try_narrowed(session, plan, wanted).unwrap()
}

/// `None` where the plan has other columns.
fn try_narrowed(session: &Session, plan: LogicalPlan, wanted: &str) -> Option<LogicalPlan> {
    let schema = plan.schema().clone();
    let predicate = session.context().state().create_logical_expr(wanted, &schema).ok()?;
    LogicalPlanBuilder::from(plan).filter(predicate).unwrap().build().ok()
}

async fn rows_of(session: &Session, plan: LogicalPlan) -> Vec<String> {
    let state = session.context().state();
    let physical = state.create_physical_plan(&plan).await.unwrap();
    let batches = collect(physical, state.task_ctx()).await.unwrap();
    let mut lines = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" | "));
        }
    }
    lines.sort();
    lines
}

fn memory(dir: &tempfile::TempDir, budget: usize) -> Memory {
    let store = StateFiles::open(Arc::new(Disk), &dir.path().join("state"), &Default::default()).unwrap();
    Memory { store: Some(Arc::new(store)), budget: Budget::new(budget) }
}

fn files(dir: &tempfile::TempDir) -> usize {
    std::fs::read_dir(dir.path().join("state")).unwrap().count()
}

/// What holds between two micro-batches.
fn check(rollup: &Rollup, limit: usize) {
    assert!(rollup.bytes() <= limit, "{} bytes in memory: {:?}", rollup.bytes(), rollup.snapshot());
    let runs = rollup.snapshot();
    let base: Vec<_> = runs.iter().filter(|r| r.level == Level::Base).collect();
    assert!(base.windows(2).all(|b| b[0].panes.last < b[1].panes.first), "base runs overlap: {base:?}");
    let others = runs.len() - base.len();
    assert!(others <= 2 * TINY.fan_in + 16, "{others} runs besides base runs: {runs:?}");
    assert!(runs.iter().all(|r| r.in_memory() || r.ordered), "{runs:?}");
}

fn random_rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    // Mostly rising times, with late rows, rows far ahead and rows without a time.
    let row = (0..20u8, -30..30i64, 0..6i64, 0..400i64, proptest::option::weighted(0.9, -50..50i64));
    proptest::collection::vec(proptest::collection::vec(row, 1..40), 1..40).prop_map(|batches| {
        let mut now = 0;
        let at = |(kind, jitter, k, s, n)| {
            now += 1;
            let time = match kind {
                0 => None,
                1 => Some((now - 300).max(0)),
                2 if now % 50 == 0 => Some(1_000_000),
                _ => Some(now + jitter),
            };
            (time, k, s, n)
        };
        let mut at = at;
        batches.into_iter().map(|rows| rows.into_iter().map(&mut at).collect()).collect()
    })
}

/// Says which rows differ, not all there are.
#[track_caller]
fn same(rows: &[String], expected: &[String]) {
    let only = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|row| !others.contains(row)).take(5).cloned().collect()
    };
    let (extra, missing) = (only(rows, expected), only(expected, rows));
    assert!(rows == expected, "{} rows of {}: extra {extra:?}, missing {missing:?}", rows.len(), expected.len());
}

proptest! {
    // More with PROPTEST_CASES=6000.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 6, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_view_on_disk_equals_its_query(batches in random_rows(), query in 0..QUERIES.len()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let memory = memory(&dir, usize::MAX);
            let batches: Vec<_> = batches.iter().map(|rows| batch(rows)).collect();
            let session = session(&batches).await;
            let query = plan(&session, QUERIES[query]).await;
            let unlimited = View::new(&session, query.clone(), None).await;
            // All but the freshest is on disk; large states need room to be merged.
            let limit = 96 << 10;
            let limited = View::new(&session, query.clone(), Some((&memory, limit))).await;
            for rows in &batches {
                unlimited.feed(rows).unwrap();
                limited.feed(rows).unwrap();
                check(&unlimited.rollup, usize::MAX);
                check(&limited.rollup, limit);
            }
            let expected = rows_of(&session, query.clone()).await;
            same(&unlimited.read(&session, None).await, &expected);
            same(&limited.read(&session, None).await, &expected);
            // All of it on disk.
            while limited.rollup.move_coldest().unwrap() {}
            same(&limited.read(&session, None).await, &expected);
            if query.schema().has_column_with_unqualified_name("w") {
                let expected = rows_of(&session, narrowed(&session, query.clone(), Some(NARROW))).await;
                same(&limited.read(&session, Some(NARROW)).await, &expected);
                same(&unlimited.read(&session, Some(NARROW)).await, &expected);
            }
            let chosen = batches[0].column(2).as_string_view().value(0);
            for wanted in BY_KEY {
                let wanted = wanted.replace("a longer text {}", chosen);
                let Some(narrow) = try_narrowed(&session, query.clone(), &wanted) else { continue };
                let expected = rows_of(&session, narrow).await;
                same(&unlimited.read(&session, Some(&wanted)).await, &expected);
                same(&limited.read(&session, Some(&wanted)).await, &expected);
            }
            limited.rollup.clear();
            assert_eq!(files(&dir), 0);
            assert_eq!(unlimited.rollup.rows() == 0, batches.iter().all(|b| b.num_rows() == 0));
        });
    }
}

fn many_groups(from: i64, rows: i64) -> RecordBatch {
    batch(&(from..from + rows).map(|i| (Some(i / 100), i % 7, i, Some(i))).collect::<Vec<_>>())
}

#[tokio::test]
async fn all_views_together_stay_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let budget = 1 << 20;
    let memory = memory(&dir, budget);
    let session = session(&[]).await;
    let mut views = Vec::new();
    for query in &QUERIES[..2] {
        views.push(View::new(&session, plan(&session, query).await, Some((&memory, usize::MAX))).await);
    }
    // The second has a row per group: when the first grows on, it is the second that has to go.
    for i in 0..40 {
        views[1].feed(&many_groups(i * 500, 500)).unwrap();
    }
    assert!(views[1].rollup.disk_bytes() > 0);
    assert!(memory.budget.used() <= budget);
    let before = views[1].rollup.bytes();
    assert!(before > 0);
    let reader = views[1].rollup.snapshot();
    for i in 0..40 {
        views[0].feed(&many_groups(i * 500, 500)).unwrap();
    }
    assert_eq!(views[0].rollup.disk_bytes(), 0);
    views[1].rollup.clear();
    assert!(memory.budget.used() > views[0].rollup.bytes(), "what a reader holds counts");
    drop(reader);
    assert_eq!(memory.budget.used(), views[0].rollup.bytes());
    assert_eq!(files(&dir), 0);
}

#[tokio::test]
async fn a_group_that_is_too_large_for_the_limit_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(&dir, usize::MAX);
    let session = session(&[]).await;
    let query = plan(&session, "SELECT count(DISTINCT s) FROM rows").await;
    let view = View::new(&session, query, Some((&memory, LEAST_LIMIT))).await;
    let err = (0..200).find_map(|i| view.feed(&many_groups(i * 500, 500)).err()).expect("the set grows beyond a MiB");
    assert_eq!(err.kind(), Kind::ResourceLimit, "{err}");
    assert!(err.hint().unwrap().contains("approx_distinct"), "{err}");
}

#[tokio::test]
async fn without_a_disk_the_limit_stops_the_view() {
    let memory = Memory { store: None, budget: Budget::unlimited() };
    let session = session(&[]).await;
    let query = plan(&session, QUERIES[1]).await;
    let view = View::new(&session, query, Some((&memory, LEAST_LIMIT))).await;
    let err = (0..200).find_map(|i| view.feed(&many_groups(i * 500, 500)).err()).expect("it grows beyond a MiB");
    assert_eq!(err.kind(), Kind::ResourceLimit, "{err}");
    assert!(err.message().contains("memory_limit"), "{err}");
}

#[tokio::test]
async fn a_large_state_is_read_in_slices() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(&dir, usize::MAX);
    let session = session(&[]).await;
    let query = plan(&session, QUERIES[1]).await;
    let view = View::new(&session, query, Some((&memory, 200 << 10))).await;
    for i in 0..20 {
        view.feed(&many_groups(i * 500, 500)).unwrap();
    }
    let state = session.context().state();
    let plan = view.rollup.maintainer().finish(&view.rollup.snapshot(), None, None, Only::default(), 2).unwrap();
    let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    assert!(shown.contains("RollupScan: finished") && shown.contains("on disk"), "{shown}");
    let rows: usize = collect(plan, state.task_ctx()).await.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 10_000);
    assert_eq!(slots_of(&view.finish).len(), 1);
}

/// All windows of a key lie together, so a reader of one key looks at some rows of each run.
#[tokio::test]
async fn a_key_is_read_without_the_others() {
    let session = session(&[]).await;
    let query = "SELECT date_bin(INTERVAL '1 minute', ts) AS w, k, s, count(*) FROM rows GROUP BY w, k, s";
    let view = View::new(&session, plan(&session, query).await, None).await;
    let batch_of = |i: i64| batch(&(0..500).map(|n| (Some(i * 60), n % 7 + 1, n % 50, Some(n))).collect::<Vec<_>>());
    for i in 0..12 {
        view.feed(&batch_of(i)).unwrap();
    }
    let (maintainer, runs) = (view.rollup.maintainer(), view.rollup.snapshot());
    let window = view.rollup.definition.pane.map(|pane| pane.window);
    let base = runs.iter().filter(|run| run.level == Level::Base).count();
    assert!(base > 5 && runs.iter().filter(|run| run.level == Level::Base).all(|run| run.ordered), "{runs:?}");
    let values = |column: usize| match column {
        0 => None,
        1 => Some(vec![ScalarValue::from(3i64)]),
        _ => Some(vec![ScalarValue::Utf8View(Some("a longer text 2".into()))]),
    };
    let groups = maintainer.wanted_groups(window, &values).unwrap().expect("all keys are known");
    let mut found = 0;
    for run in &runs {
        for rows in super::point::rows_of(run, maintainer.order(), &groups[0], true).unwrap().expect("in memory") {
            found += rows.num_rows();
        }
    }
    assert_eq!(found, 12);
    let plan = maintainer.finish(&runs, window, None, Only { groups: Some(groups), condition: None }, 3).unwrap();
    let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    assert!(shown.contains(&format!("rows={}, slices=1", runs.len())), "{shown}");
    let rows = collect(plan, session.context().state().task_ctx()).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 12);
}

/// Single rows are read at once where each row is in one window.
#[tokio::test]
async fn a_row_of_a_window_is_a_point() {
    let session = session(&[]).await;
    for (i, query) in QUERIES.iter().enumerate() {
        let view = View::new(&session, plan(&session, query).await, None).await;
        view.feed(&many_groups(0, 1000)).unwrap();
        let window = view.rollup.definition.pane.map(|pane| pane.window);
        let in_several = window.is_some_and(|window| !window.of_a_row());
        let (maintainer, grouping_sets) = (view.rollup.maintainer(), query.contains("CUBE"));
        assert_eq!(maintainer.has_points(window), !in_several && !grouping_sets, "query {i}");
        if !maintainer.has_points(window) {
            continue;
        }
        let plan = maintainer.finish(&view.rollup.snapshot(), window, None, Only::default(), 1).unwrap();
        for rows in collect(plan, session.context().state().task_ctx()).await.unwrap() {
            for row in (0..rows.num_rows()).step_by(97) {
                let value = |column: usize| ScalarValue::try_from_array(rows.column(column), row).unwrap();
                let values: Vec<ScalarValue> = (0..maintainer.groups()).map(value).collect();
                let found = maintainer.point(&view.rollup.snapshot(), &values).unwrap();
                let known = !values.is_empty() && values.iter().all(|value| !value.is_null());
                assert_eq!(found, known.then(|| rows.slice(row, 1)), "query {i}: {values:?}");
            }
        }
    }
}
