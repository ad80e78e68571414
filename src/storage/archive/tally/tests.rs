//! What a tally counts is what DataFusion's own operators count, whatever is in the files and whatever is asked.

use arrow::array::{Int16Array, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::memory::InMemory;
use proptest::prelude::*;
use url::Url;

use super::super::{Archive, OFFSET, Sizes, Spec, WATERMARK};
use super::*;
use crate::format::timestamp_type;
use crate::time::UTC;

const QUERIES: &[&str] = &[
    "SELECT status, count(*) FROM t GROUP BY status",
    "SELECT path, status, count(*), count(status), count(path) FROM t GROUP BY path, status",
    "SELECT status / 100 AS class, count(*) FILTER (WHERE path < '/5') FROM t GROUP BY class",
    "SELECT count(*), count(*) FILTER (WHERE status >= 500) FROM t",
    "SELECT DISTINCT path FROM t",
    "SELECT path, count(*) FROM t WHERE status >= 404 AND path <> '/3' GROUP BY path",
    "SELECT status, count(*) FROM t WHERE time >= TIMESTAMPTZ '1970-01-01T00:01:00Z' GROUP BY status",
    "SELECT status, count(*) FROM t WHERE time < TIMESTAMPTZ '1970-01-01T00:01:40Z' GROUP BY status",
    "SELECT count(*) FROM t WHERE time BETWEEN '1970-01-01T00:00:30Z' AND '1970-01-01T00:02:00Z'",
    "SELECT count(*) FROM t WHERE status = 500",
    "SELECT count(*) FROM t WHERE status IS NULL",
    "SELECT bytes, count(*) FROM t GROUP BY bytes",
    "SELECT status, count(*) FROM t WHERE bytes > 1000 GROUP BY status",
    // Not only counted.
    "SELECT status, sum(bytes) FROM t GROUP BY status",
    "SELECT status, random() < 2, count(*) FROM t GROUP BY 1, 2",
];

/// The last ones are not for this operator.
const TAKEN: usize = 13;

/// An archive as a table.
#[derive(Debug)]
struct Table {
    archive: Arc<Archive>,
    schema: SchemaRef,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Archive")
    }
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (archived, schema) = (self.archive.current(), self.schema());
        let plan = self.archive.scan(&archived, state, schema, projection, None, None, filters, false)?;
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let none = Arc::new(self.schema.project(projection.unwrap_or(&all))?);
        Ok(plan.unwrap_or_else(|| Arc::new(EmptyExec::new(none))))
    }
}

/// `(status, path, bytes, seconds)`
type Row = (Option<i16>, Option<u16>, Option<i64>, i64);

fn batch(rows: &[Row], first: i64) -> RecordBatch {
    let paths: StringViewArray = rows.iter().map(|row| row.1.map(|n| format!("/{n}"))).collect();
    let times = rows.iter().map(|row| Some(row.3 * 1_000_000)).collect::<TimestampMicrosecondArray>();
    let offsets = Int64Array::from_iter_values((first..).take(rows.len()));
    let late = TimestampMicrosecondArray::from(vec![None; rows.len()]);
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("time", Arc::new(times.with_timezone(UTC)), true),
        ("status", Arc::new(rows.iter().map(|row| row.0).collect::<Int16Array>()), true),
        ("path", Arc::new(paths), true),
        ("bytes", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()), true),
        (OFFSET, Arc::new(offsets), false),
        (WATERMARK, Arc::new(late.with_timezone(UTC)), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

async fn archive(pieces: &[Vec<Row>]) -> Arc<Archive> {
    let sizes = Sizes { row_group_rows: 128, page_rows: 16, file_rows: 2000, merge: 4, part_bytes: 512 };
    let spec = Spec { name: "t".into(), time: Some("time".into()), sizes };
    let url = Url::parse("memory:///streams/t").unwrap();
    let archive = Archive::open(Arc::new(InMemory::new()), url, spec).await.unwrap();
    let mut end = 0;
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let (rows, first) = (batch(piece, end), end as u64);
        end += piece.len() as i64;
        archive.append(vec![rows], first..end as u64).await.unwrap();
    }
    archive
}

fn context(archive: &Arc<Archive>, with_rule: bool) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2);
    let mut builder = SessionStateBuilder::new().with_config(config).with_default_features();
    if with_rule {
        builder = builder.with_physical_optimizer_rule(Arc::new(TallyRule));
    }
    let context = SessionContext::new_with_state(builder.build());
    let fields = [
        Field::new("time", timestamp_type(), true),
        Field::new("status", DataType::Int16, true),
        Field::new("path", DataType::Utf8View, true),
        Field::new("bytes", DataType::Int64, true),
        Field::new(OFFSET, DataType::Int64, false),
        Field::new(WATERMARK, timestamp_type(), true),
    ];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    context.register_table("t", Arc::new(Table { archive: Arc::clone(archive), schema })).unwrap();
    context
}

/// The result's lines in order, and the plan.
async fn answer(context: &SessionContext, query: &str) -> (Vec<String>, String) {
    let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
    let rows = datafusion::physical_plan::collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
    let mut lines: Vec<String> = pretty_format_batches(&rows).unwrap().to_string().lines().map(String::from).collect();
    lines.sort();
    lines.dedup_by(|a, b| a == b && a.starts_with('+'));
    (lines, displayable(plan.as_ref()).indent(false).to_string())
}

fn row() -> impl Strategy<Value = Row> {
    let status = prop_oneof![6 => (0i16..6).prop_map(|n| Some(199 + 101 * n)), 1 => Just(None)];
    let path = prop_oneof![9 => (0u16..12).prop_map(Some), 1 => (0u16..2000).prop_map(Some), 1 => Just(None)];
    (status, path, proptest::option::of(0i64..5000), 0i64..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn counts_are_what_they_are_without_it(
        mut pieces in prop::collection::vec(prop::collection::vec(row(), 0..400), 0..4),
        in_order in any::<bool>(),
        some_null in any::<bool>(),
    ) {
        for piece in &mut pieces {
            if in_order {
                piece.sort_by_key(|row| row.3);
            }
            if !some_null {
                piece.iter_mut().for_each(|row| row.0 = row.0.or(Some(200)));
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let archive = archive(&pieces).await;
            for (number, query) in QUERIES.iter().enumerate() {
                let (expected, _) = answer(&context(&archive, false), query).await;
                let (found, plan) = answer(&context(&archive, true), query).await;
                assert_eq!(found, expected, "{query}\n{plan}");
                // One small file is read by one partition, and its rows are shared out or aggregated in one stage.
                if pieces.iter().filter(|piece| !piece.is_empty()).count() > 1 {
                    assert_eq!(plan.contains("TallyExec"), number < TAKEN, "{query}\n{plan}");
                }
            }
        });
    }
}

/// Rows in order of time: how many row groups are counted, and how many are left, of each query's.
#[tokio::test(flavor = "multi_thread")]
async fn only_row_groups_that_cannot_be_counted_are_read() {
    let rows: Vec<Row> = (0..1024).map(|n| (Some(200 + (n % 3) as i16), Some(n as u16 % 5), Some(n * n), n)).collect();
    let archive = archive(&[rows[..512].to_vec(), rows[512..].to_vec()]).await;
    // Eight row groups of 128 rows.
    for (query, counted, left) in [
        ("SELECT status, count(*) FROM t GROUP BY status", 8, 0),
        ("SELECT status, path, count(*) FROM t GROUP BY status, path", 8, 0),
        ("SELECT status, count(*) FROM t WHERE time >= TIMESTAMPTZ '1970-01-01T00:05:00Z' GROUP BY status", 5, 1),
        ("SELECT count(*) FROM t WHERE time < TIMESTAMPTZ '1970-01-01T00:05:00Z'", 2, 1),
        ("SELECT bytes, count(*) FROM t GROUP BY bytes", 0, 8),
        ("SELECT count(*) FROM t WHERE status = 201 AND path = '/3'", 8, 0),
    ] {
        let context = context(&archive, true);
        let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        datafusion::physical_plan::collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
        let mut seen = [0, 0];
        Arc::clone(&plan)
            .transform_down(|node| {
                if node.downcast_ref::<TallyExec>().is_some()
                    && let Some(metrics) = node.metrics()
                {
                    for (sum, name) in seen.iter_mut().zip(["row_groups_counted", "row_groups_left"]) {
                        *sum += metrics.sum_by_name(name).map_or(0, |value| value.as_usize());
                    }
                }
                Ok(Transformed::no(node))
            })
            .unwrap();
        assert_eq!(seen, [counted, left], "{query}\n{}", displayable(plan.as_ref()).indent(false));
    }
}
