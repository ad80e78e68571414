//! A scan gives the rows that were asked for, with the wanted columns, and reads no files in vain.

use datafusion::logical_expr::{Expr, col, ident, lit};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::scalar::ScalarValue;

use super::*;
use crate::error::Kind;

struct Wanted {
    projection: Option<Vec<usize>>,
    times: Option<(i64, i64)>,
    offsets: Option<Range<u64>>,
    filters: Vec<Expr>,
    late: bool,
}

const EVERYTHING: Wanted = Wanted { projection: None, times: None, offsets: None, filters: vec![], late: false };

fn plan(archive: &Archive, context: &SessionContext, wanted: Wanted) -> Option<Arc<dyn ExecutionPlan>> {
    let Wanted { projection, times, offsets, filters, late } = wanted;
    let archived = archive.current();
    let schema = with_own(&schema());
    let scan = archive.scan(&archived, &context.state(), schema, projection.as_ref(), times, offsets, &filters, late);
    scan.unwrap()
}

async fn found(archive: &Archive, wanted: Wanted) -> Vec<i64> {
    let context = SessionContext::new();
    let Some(plan) = plan(archive, &context, wanted) else { return vec![] };
    let batches = collect(plan, context.task_ctx()).await.unwrap();
    let mut found: Vec<i64> = batches.iter().flat_map(offsets).collect();
    found.sort_unstable();
    found
}

/// Three segments of 100 rows; the last two hours of a day and the first one of the next.
async fn filled() -> Arc<Archive> {
    let archive = open(&memory()).await;
    for _ in 0..3 {
        append(&archive, 100).await;
    }
    archive
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_chosen_by_offset_time_and_lateness() {
    let archive = filled().await;
    let start = MIDNIGHT + 20 * HOUR;
    assert_eq!(found(&archive, EVERYTHING).await, (0..300).collect::<Vec<_>>());
    for range in [0..300, 0..1, 99..101, 150..151, 250..999] {
        let expected: Vec<i64> = (range.start as i64..(range.end as i64).min(300)).collect();
        let offsets = Some(range.clone());
        assert_eq!(found(&archive, Wanted { offsets, ..EVERYTHING }).await, expected);
        let late: Vec<i64> = expected.into_iter().filter(|o| o % 10 == 0).collect();
        assert_eq!(found(&archive, Wanted { offsets: Some(range), late: true, ..EVERYTHING }).await, late);
    }
    assert!(found(&archive, Wanted { offsets: Some(300..400), ..EVERYTHING }).await.is_empty());
    // Files are left out by time, rows are not.
    let times = Some((start + 150_000_000, start + 151_000_000));
    assert_eq!(found(&archive, Wanted { times, ..EVERYTHING }).await, (100..200).collect::<Vec<_>>());
    let context = SessionContext::new();
    let none = plan(&archive, &context, Wanted { times: Some((0, start - 1_000_001)), ..EVERYTHING });
    assert!(none.is_none());
    let at = |micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into())));
    let filters = vec![col("ts").gt_eq(at(start + 150_000_000)).and(col("ts").lt(at(start + 153_000_000)))];
    assert_eq!(found(&archive, Wanted { filters, ..EVERYTHING }).await, [150, 152, 153]);
    let filters = vec![col("path").eq(lit("/a/rather/long/path/77"))];
    assert_eq!(found(&archive, Wanted { filters, ..EVERYTHING }).await, [77]);
    let filters = vec![col("status").eq(lit(203i64)), ident(OFFSET).lt(lit(10i64)), col("unknown").eq(lit(1))];
    assert_eq!(found(&archive, Wanted { filters, ..EVERYTHING }).await, [3, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_has_the_wanted_columns_and_reads_no_others() {
    let archive = filled().await;
    let context = SessionContext::new();
    let wanted = with_own(&schema());
    for projection in [vec![], vec![2], vec![4, 0], vec![3], vec![1, 1]] {
        for (offsets, late) in [(None, false), (Some(50..160), false), (None, true)] {
            let wanted_columns = Wanted { projection: Some(projection.clone()), offsets, late, ..EVERYTHING };
            let count = match (&wanted_columns.offsets, late) {
                (Some(_), _) => 110,
                (None, true) => 30,
                (None, false) => 300,
            };
            let plan = plan(&archive, &context, wanted_columns).unwrap();
            assert_eq!(plan.schema().fields(), wanted.project(&projection).unwrap().fields());
            let batches = collect(plan, context.task_ctx()).await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), count);
        }
    }
    let filters = vec![col("status").eq(lit(203i64))];
    let one = plan(&archive, &context, Wanted { projection: Some(vec![1]), filters, ..EVERYTHING }).unwrap();
    let text = displayable(one.as_ref()).indent(false).to_string();
    assert!(text.contains("projection=[path]") && text.contains("pruning_predicate=status"), "{text}");
    let rows = |plan: &Arc<dyn ExecutionPlan>| {
        StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).unwrap().num_rows
    };
    assert!(rows(&one).is_exact() != Some(true), "rows behind a filter are not counted beforehand");
    let all = plan(&archive, &context, EVERYTHING).unwrap();
    assert_eq!(rows(&all).get_value(), Some(&300));
    assert_eq!(rows(&all).is_exact(), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_or_damaged_is_named() {
    use object_store::ObjectStoreExt;
    let store = memory();
    for damage in [true, false] {
        let archive = open(&store).await;
        append(&archive, 10).await;
        let path = files(&store).await.pop().unwrap();
        let location = object_store::path::Path::from(path.as_str());
        if damage {
            store.put(&location, vec![7u8; 4096].into()).await.unwrap();
        } else {
            store.delete(&location).await.unwrap();
        }
        let context = SessionContext::new();
        let plan = plan(&archive, &context, EVERYTHING).unwrap();
        let err = collect(plan, context.task_ctx()).await.unwrap_err();
        let err = super::super::failed("read", &err);
        assert_eq!(err.kind(), Kind::Corrupted, "{err}");
        assert!(err.message().contains(path.rsplit('/').next().unwrap()), "{err}");
        for path in files(&store).await {
            store.delete(&path.as_str().into()).await.unwrap();
        }
        let log: Vec<_> = futures::TryStreamExt::try_collect(store.list(None)).await.unwrap();
        for meta in log {
            store.delete(&meta.location).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_forgets_the_store_with_the_archive() {
    let archive = filled().await;
    let context = SessionContext::new();
    let store = archive.registered.clone();
    let known = || context.runtime_env().object_store(&store).is_ok();
    assert!(!known());
    for _ in 0..2 {
        let plan = plan(&archive, &context, EVERYTHING).unwrap();
        assert!(known());
        assert_eq!(collect(plan, context.task_ctx()).await.unwrap().iter().map(|b| b.num_rows()).sum::<usize>(), 300);
    }
    drop(archive);
    assert!(!known());
}
