//! Every kind of window, maintained over random cuts of random rows in random order, equals its query run as a batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::config::Config;
use crate::error::Result;
use crate::rollup::Rollup;
use crate::rollup::pane::{Merge, Step};
use crate::rollup::plan::{Emission, Slot, provider_of, split};
use crate::rollup::run::Level;
use crate::rollup::timeliness::Timed;
use crate::sql::{self, Outcome, Planned, Session};
use crate::time::{Clock, MICROS_PER_SECOND, Micros, UTC};
use crate::view::table::RollupTable;

/// A view that shows the latest, over a stream without a watermark.
const LATEST: Emission = Emission { on_close: false, lateness: 0, time_of: &|_| None };

const MINUTE: Micros = 60 * MICROS_PER_SECOND;

/// Spring, when clocks in Berlin are put forward.
const START: Micros = 1_774_720_800_000_000;

/// Rows of some minutes to some months: client, path, status, bytes at ts, with NULLs in every column.
fn rows(random: &mut StdRng, count: usize, spread: Micros) -> RecordBatch {
    let mut columns: (Vec<Option<Micros>>, Vec<Option<String>>, Vec<String>, Vec<i64>, Vec<Option<i64>>) =
        Default::default();
    for _ in 0..count {
        let known = random.random_range(0..50) > 0;
        columns.0.push(known.then(|| START + random.random_range(0..spread)));
        columns.1.push((random.random_range(0..30) > 0).then(|| format!("10.0.0.{}", random.random_range(0..6))));
        columns.2.push(format!("/p{}", random.random_range(0..4)));
        columns.3.push([200, 404, 500][random.random_range(0..3)]);
        columns.4.push((random.random_range(0..10) > 0).then(|| random.random_range(0..1000)));
    }
    let (ts, client, path, status, bytes) = columns;
    RecordBatch::try_from_iter_with_nullable([
        ("ts", Arc::new(TimestampMicrosecondArray::from(ts).with_timezone(UTC)) as ArrayRef, true),
        ("client", Arc::new(StringViewArray::from_iter(client)) as ArrayRef, true),
        ("path", Arc::new(StringViewArray::from_iter_values(path)) as ArrayRef, true),
        ("status", Arc::new(Int64Array::from(status)) as ArrayRef, true),
        ("bytes", Arc::new(Int64Array::from(bytes)) as ArrayRef, true),
    ])
    .unwrap()
}

fn some(rows: &RecordBatch, indices: &[u32]) -> RecordBatch {
    take_record_batch(rows, &UInt32Array::from(indices.to_vec())).unwrap()
}

async fn session(rows: &RecordBatch) -> Session {
    let session = Session::new(sql::open(Config { cores: 2, ..Config::default() }, Clock::system()).await.unwrap());
    let half = rows.num_rows() / 2;
    let parts = vec![vec![rows.slice(0, half)], vec![rows.slice(half, rows.num_rows() - half)]];
    let table = MemTable::try_new(rows.schema(), parts).unwrap();
    session.context().register_table("access", Arc::new(table)).unwrap();
    session
}

async fn plan(session: &Session, sql: &str) -> Result<LogicalPlan> {
    let statement = session.parse(sql)?.remove(0);
    match session.plan(&statement).await? {
        Planned::Query { plan, .. } => Ok(LogicalPlan::clone(&plan)),
        Planned::Command { .. } => panic!("a query was expected: {sql}"),
    }
}

/// A result's rows as text, counted. Fractions are rounded: the order of adding shows in the last digits.
fn counted(batches: &[RecordBatch]) -> BTreeMap<Vec<String>, usize> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = BTreeMap::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let text = |column: &ArrayFormatter| {
                let text = column.value(row).to_string();
                match text.parse::<f64>() {
                    Ok(number) if text.contains('.') => format!("{number:.6e}"),
                    _ => text,
                }
            };
            *rows.entry(columns.iter().map(text).collect()).or_insert(0) += 1;
        }
    }
    rows
}

async fn batch(session: &Session, sql: &str) -> BTreeMap<Vec<String>, usize> {
    let statement = session.parse(sql).unwrap().remove(0);
    let planned = session.plan(&statement).await.unwrap();
    let Outcome::Rows(rows) = session.execute(&planned, ParamValues::List(vec![])).await.unwrap() else {
        panic!("a query has rows")
    };
    counted(&rows.try_collect::<Vec<_>>().await.unwrap())
}

fn is_access(scan: &TableScan) -> Option<String> {
    provider_of::<MemTable>(scan).map(|_| "access".to_string())
}

/// The rollups of a query, empty.
async fn rollups(session: &Session, sql: &str) -> Result<(LogicalPlan, Vec<Arc<Slot>>)> {
    let cut = split(plan(session, sql).await?, &is_access, &LATEST)?;
    for slot in &cut.slots {
        let rollup = Rollup::new(slot.definition.clone(), &session.context().state()).await?;
        let _ = slot.rollup.set(Arc::new(rollup));
    }
    Ok((cut.finish, cut.slots))
}

/// What a reader of the rollups sees.
async fn read(session: &Session, finish: &LogicalPlan) -> BTreeMap<Vec<String>, usize> {
    let pinned = finish.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let Some(slot) = provider_of::<Slot>(&scan) else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
        let runs = slot.rollup.get().unwrap().snapshot();
        let source = provider_as_source(Arc::new(RollupTable {
            watermark: crate::rollup::watermark::NEVER,
            slot,
            runs,
            pending: None,
        }));
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    });
    let frame = session.context().execute_logical_plan(pinned.unwrap().data).await.unwrap();
    counted(&frame.collect().await.unwrap())
}

fn fold(slots: &[Arc<Slot>], rows: &RecordBatch, random: &mut StdRng) {
    for slot in slots {
        let rollup = slot.rollup.get().unwrap();
        if let Some(run) = rollup.fold(&Timed::new(rows)).unwrap() {
            rollup.add(run);
        }
        match random.random_range(0..4) {
            0 => rollup.compact().unwrap(),
            1 => {
                let mut state = rollup.state.lock();
                let runs = state.snapshot();
                if runs.len() > 1 {
                    let step = Step { runs: runs.clone(), within: None, gone: None, cuts: vec![], rest: Level::Open };
                    let all = Merge { runs, steps: vec![step] };
                    let merged = rollup.maintainer().merge(&all, None, usize::MAX).unwrap();
                    state.replace(&all, merged);
                }
            }
            _ => {}
        }
    }
}

/// Asserts that `sql`, maintained over random cuts of shuffled rows, reads as it does in a batch; also part of the way.
async fn check(sql: &str, seed: u64, count: usize, spread: Micros) {
    let random = &mut StdRng::seed_from_u64(seed);
    let all = rows(random, count, spread);
    let mut order: Vec<u32> = (0..count as u32).collect();
    if random.random_range(0..3) > 0 {
        order.shuffle(random);
    }
    let session_of_all = session(&all).await;
    let (finish, slots) = rollups(&session_of_all, sql).await.unwrap_or_else(|err| panic!("{sql}\n{err:?}"));
    let mut done = 0;
    let halfway = random.random_range(0..=count);
    while done < count {
        let until = if done < halfway { halfway } else { count };
        let next = (done + random.random_range(1..=count.div_ceil(3))).min(until);
        fold(&slots, &some(&all, &order[done..next]), random);
        done = next;
        if done == halfway && count < 1000 {
            let so_far = session(&some(&all, &order[..done])).await;
            assert_eq!(read(&session_of_all, &finish).await, batch(&so_far, sql).await, "seed {seed}, halfway: {sql}");
        }
    }
    assert_eq!(read(&session_of_all, &finish).await, batch(&session_of_all, sql).await, "seed {seed}: {sql}");
}

async fn check_all(queries: &[&str], rounds: u64, count: usize, spread: Micros) {
    for seed in 0..rounds {
        for sql in queries {
            check(sql, seed, count, spread).await;
        }
    }
}

#[tokio::test]
async fn aligned_windows() {
    check_all(
        &[
            "SELECT window_start, window_end, count(*), sum(bytes) FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY 1, 2",
            "SELECT window_end, path, count(*) FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '5 minutes') GROUP BY 1, 2",
            "SELECT window_start, window_end, count(*) FROM HOP(access, ts, INTERVAL '40 seconds', INTERVAL '3 minutes') GROUP BY 1, 2",
            "SELECT window_start, window_end, path, count(*), avg(bytes)
             FROM CUMULATE(access, ts, INTERVAL '1 minute', INTERVAL '10 minutes', INTERVAL '7 seconds') GROUP BY 1, 2, 3",
            "SELECT window_start, max(window_end), count(*) FROM CUMULATE(access, ts, INTERVAL '1 minute', INTERVAL '4 minutes') GROUP BY 1",
            "SELECT window_start, count(*) FROM CUMULATE(access, ts, INTERVAL '1 minute', INTERVAL '4 minutes') GROUP BY 1",
            "SELECT window_end, count(*) FROM CUMULATE(access, ts, INTERVAL '1 minute', INTERVAL '4 minutes')
             WHERE window_end - window_start > INTERVAL '2 minutes' GROUP BY 1",
            "SELECT a, b, count(*) FROM (SELECT window_start AS a, window_start AS b FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '2 minutes')) AS x
             GROUP BY a, b",
            "SELECT date_trunc('hour', window_start), count(*) FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '2 minutes') GROUP BY 1",
        ],
        6,
        300,
        30 * MINUTE,
    )
    .await;
}

#[tokio::test]
async fn windows_are_read_in_part() {
    check_all(
        &[
            "SELECT * FROM (SELECT window_start, window_end, count(*) AS n FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '5 minutes') GROUP BY 1, 2) AS x
             WHERE window_start >= '2026-03-28T18:10:00Z' AND window_start < '2026-03-28T18:15:00Z'",
            "SELECT * FROM (SELECT window_start, window_end, count(*) AS n FROM CUMULATE(access, ts, INTERVAL '1 minute', INTERVAL '5 minutes') GROUP BY 1, 2) AS x
             WHERE window_end >= '2026-03-28T18:08:00Z' AND window_end < '2026-03-28T18:12:00Z'",
            "SELECT * FROM (SELECT window_start, window_end, client, count(*) AS n FROM SESSION(access PARTITION BY client, ts, INTERVAL '30 seconds', INTERVAL '4 minutes')
             GROUP BY 1, 2, 3) AS x WHERE window_start BETWEEN '2026-03-28T18:08:00Z' AND '2026-03-28T18:12:00Z'",
            "SELECT * FROM (SELECT window_start, window_end, client, count(*) AS n FROM SESSION(access PARTITION BY client, ts, INTERVAL '30 seconds')
             GROUP BY 1, 2, 3) AS x WHERE window_start > '2026-03-28T18:08:00Z'",
        ],
        6,
        300,
        30 * MINUTE,
    )
    .await;
}

#[tokio::test]
async fn calendar_windows() {
    check_all(
        &[
            "SELECT date_trunc('day', ts, 'Europe/Berlin') AS d, count(*) FROM access GROUP BY d",
            "SELECT date_trunc('week', ts), count(*) FROM access GROUP BY 1",
            "SELECT date_trunc('month', ts) AS m, path, count(*) FROM access GROUP BY m, path",
            "SELECT date_trunc('quarter', ts) AS m, count(*) FROM access GROUP BY m",
            "SELECT time_bucket('1 week', ts) AS w, count(*) FROM access GROUP BY w",
            "SELECT time_bucket(INTERVAL '5 days', ts, 'America/New_York') AS w, count(*) FROM access GROUP BY w",
            "SELECT time_bucket('2 months', ts) AS w, count(*) FROM access GROUP BY w",
            "SELECT date_bin(INTERVAL '36 hours', ts, TIMESTAMP '2026-01-01T01:00:00') AS w, count(*) FROM access GROUP BY w",
        ],
        4,
        300,
        60 * 24 * 60 * MINUTE,
    )
    .await;
}

#[tokio::test]
async fn sessions() {
    check_all(
        &[
            "SELECT client, window_start, window_end, count(*), sum(bytes) FROM SESSION(access PARTITION BY client, ts, INTERVAL '30 seconds') GROUP BY 1, 2, 3",
            "SELECT client, window_start, count(*) FROM SESSION(access PARTITION BY client, ts, INTERVAL '1 minute') GROUP BY 1, 2",
            "SELECT client, window_end, path, count(*) FROM SESSION(access PARTITION BY client, ts, INTERVAL '1 minute') GROUP BY 1, 2, 3",
            "SELECT window_start, window_end, count(*) FROM SESSION(access, ts, INTERVAL '10 seconds') GROUP BY 1, 2",
            "SELECT client, path, window_start, window_end, count(DISTINCT status)
             FROM SESSION(access PARTITION BY client, path, ts, INTERVAL '2 minutes', INTERVAL '10 minutes') GROUP BY 1, 2, 3, 4",
            "SELECT client, window_start, window_end, count(*) FILTER (WHERE status = 500), max(ts), min(ts)
             FROM SESSION((SELECT * FROM access WHERE status <> 404) PARTITION BY client, ts, INTERVAL '30 seconds') WHERE client <> '10.0.0.1'
             GROUP BY client, window_start, window_end HAVING count(*) > 1",
            "SELECT count(*), max(n) FROM (SELECT client, window_start, count(*) AS n FROM SESSION(access PARTITION BY client, ts, INTERVAL '30 seconds') GROUP BY 1, 2) AS s",
            "SELECT who, opened, count(*) FROM (SELECT client AS who, window_start AS opened FROM SESSION(access PARTITION BY client, ts, INTERVAL '30 seconds')) AS s
             GROUP BY who, opened",
            "SELECT DISTINCT client, window_start, window_end FROM TABLE(SESSION(TABLE access PARTITION BY client, DESCRIPTOR(ts), INTERVAL '30' SECOND))",
            "SELECT window_start, window_end, client, path, grouping(path), count(*) FROM SESSION(access PARTITION BY client, ts, INTERVAL '1 minute')
             GROUP BY window_start, window_end, client, ROLLUP (path)",
        ],
        6,
        300,
        30 * MINUTE,
    )
    .await;
}

#[tokio::test]
async fn grouping_sets() {
    check_all(
        &[
            "SELECT path, status, grouping(path), grouping(status), count(*), sum(bytes) FROM access GROUP BY ROLLUP (path, status)",
            "SELECT path, status, count(*), avg(bytes) FROM access GROUP BY CUBE (path, status)",
            "SELECT path, client, count(DISTINCT status) FROM access GROUP BY GROUPING SETS ((path), (client), (path, client), ())",
            "SELECT window_start, window_end, path, count(*) FROM TUMBLE(access, ts, INTERVAL '5 minutes') GROUP BY window_start, window_end, ROLLUP (path)",
            "SELECT window_start, path, count(*) FROM TUMBLE(access, ts, INTERVAL '5 minutes') GROUP BY ROLLUP (window_start, path)",
            "SELECT window_start, window_end, path, status, grouping(status), count(*) FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '3 minutes')
             GROUP BY window_start, window_end, CUBE (path, status)",
            "SELECT window_start, window_end, path, count(*) FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '3 minutes')
             GROUP BY GROUPING SETS ((window_start, path), (window_start, window_end))",
            "SELECT window_start, window_end, count(*) FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '3 minutes')
             GROUP BY GROUPING SETS ((window_start), (window_end), ())",
            "SELECT path, count(*) FROM access WHERE status = 1 GROUP BY ROLLUP (path)",
        ],
        5,
        300,
        20 * MINUTE,
    )
    .await;
}

#[tokio::test]
async fn hops_of_several_widths_share_panes_and_differ() {
    let random = &mut StdRng::seed_from_u64(1);
    let all = rows(random, 500, 30 * MINUTE);
    let session = session(&all).await;
    let sql = |size: i64| {
        format!(
            "SELECT window_start, window_end, count(*) FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '{size} minutes') GROUP BY 1, 2"
        )
    };
    let (_, narrow) = rollups(&session, &sql(2)).await.unwrap();
    let wide = split(plan(&session, &sql(7)).await.unwrap(), &is_access, &LATEST).unwrap();
    assert_eq!(narrow[0].definition.key, wide.slots[0].definition.key);
    fold(&narrow, &all, random);
    let _ = wide.slots[0].rollup.set(Arc::clone(narrow[0].rollup.get().unwrap()));
    assert_eq!(read(&session, &wide.finish).await, batch(&session, &sql(7)).await);
}

#[tokio::test]
async fn old_sessions_are_sealed_and_may_still_grow() {
    let sql = "SELECT client, path, window_start, window_end, count(*) FROM SESSION(access PARTITION BY client, path, ts, INTERVAL '1 second') GROUP BY 1, 2, 3, 4";
    let random = &mut StdRng::seed_from_u64(2);
    let all = rows(random, 400_000, 4000 * MINUTE);
    // In order of time but for some rows.
    let times = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(all.column(0));
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    order.sort_by_key(|&i| times.value(i as usize) + if i % 100 == 0 { 100 * MINUTE } else { 0 });
    let session = session(&all).await;
    let (finish, slots) = rollups(&session, sql).await.unwrap();
    let rollup = slots[0].rollup.get().unwrap();
    for part in order.chunks(8192) {
        let rows = some(&all, part);
        rollup.add(rollup.fold(&Timed::new(&rows)).unwrap().unwrap());
        rollup.compact().unwrap();
    }
    assert!(rollup.snapshot().len() < 40, "{} runs", rollup.snapshot().len());
    assert_eq!(read(&session, &finish).await, batch(&session, sql).await);
}

#[tokio::test]
async fn what_cannot_be_maintained_is_refused() {
    let session = session(&rows(&mut StdRng::seed_from_u64(3), 10, MINUTE)).await;
    let sessions = "SESSION(access PARTITION BY client, ts, INTERVAL '1 minute')";
    for (select, rest, message) in [
        ("window_start, count(*)", "GROUP BY window_start", "PARTITION BY column \"client\""),
        ("client, count(*)", "GROUP BY client", "grouped by the sessions"),
        ("client, window_start, max(window_end)", "GROUP BY 1, 2", "bounds of a session"),
        ("client, date_trunc('hour', window_start), count(*)", "GROUP BY 1, 2", "bounds of a session"),
        ("client, window_start, count(*)", "WHERE path = '/p1' GROUP BY 1, 2", "filter above SESSION"),
        ("client, window_start, count(*)", "WHERE window_start > now() GROUP BY 1, 2", "now()"),
        (
            "client, window_start, window_end, count(*)",
            "GROUP BY ROLLUP (client, window_start, window_end)",
            "PARTITION BY",
        ),
    ] {
        let sql = format!("SELECT {select} FROM {sessions} {rest}");
        let err = rollups(&session, &sql).await.err().unwrap_or_else(|| panic!("accepted: {sql}"));
        assert!(err.message().contains(message), "{sql}: {err:?}");
    }
}
