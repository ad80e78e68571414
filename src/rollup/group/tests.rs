//! What comes out is what DataFusion's own operator gives, whatever the values, the batches and the memory.

use arrow::array::{
    BooleanArray, Date32Array, Float64Array, Int16Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::internal_err;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;

use super::*;

const QUERIES: &[&str] = &[
    "SELECT status, count(*) FROM t GROUP BY status",
    "SELECT path, count(*), sum(bytes), min(time), avg(bytes), bit_or(status) FROM t GROUP BY path",
    "SELECT status, path, flag, count(bytes), max(path) FROM t GROUP BY status, path, flag",
    "SELECT time, day, count(*) FILTER (WHERE flag) FROM t GROUP BY time, day",
    "SELECT DISTINCT path, status FROM t",
    "SELECT status % 3, count(DISTINCT path) FROM t GROUP BY 1",
    "SELECT bytes, bool_and(status > 200), max(time) FROM t WHERE flag GROUP BY bytes",
    "SELECT status, path, count(*) FROM t GROUP BY GROUPING SETS ((status), (path), ())",
    "SELECT ratio, count(*) FROM t GROUP BY ratio",
];

/// Which of these are for the operator.
const TAKEN: [bool; 9] = [true, true, true, true, true, true, true, false, false];

/// `(status, path, bytes, time, day, flag)`
type Row = (Option<i16>, Option<u16>, Option<i64>, i64, Option<i32>, Option<bool>);

fn path(n: u16) -> String {
    match n % 3 {
        0 => format!("/{n}"),
        1 => format!("/twelve/{n:04}"),
        _ => format!("/a/path/of/which/the/view/does/not/hold/all/{n}"),
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let paths: StringViewArray = rows.iter().map(|row| row.1.map(path)).collect();
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("status", Arc::new(rows.iter().map(|row| row.0).collect::<Int16Array>()), true),
        ("path", Arc::new(paths), true),
        ("bytes", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()), true),
        ("time", Arc::new(rows.iter().map(|row| Some(row.3)).collect::<TimestampMicrosecondArray>()), true),
        ("day", Arc::new(rows.iter().map(|row| row.4).collect::<Date32Array>()), true),
        ("flag", Arc::new(rows.iter().map(|row| row.5).collect::<BooleanArray>()), true),
        ("ratio", Arc::new(rows.iter().map(|row| row.2.map(|n| n as f64 / 3.0)).collect::<Float64Array>()), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// A pool that has no memory for the operator.
#[derive(Debug, Default)]
struct Stingy(UnboundedMemoryPool);

impl fmt::Display for Stingy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl MemoryPool for Stingy {
    fn name(&self) -> &str {
        "stingy"
    }
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.0.grow(reservation, additional);
    }
    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.0.shrink(reservation, shrink);
    }
    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        match reservation.consumer().name().starts_with("GroupExec") {
            true => internal_err!("there is none"),
            false => self.0.try_grow(reservation, additional),
        }
    }
    fn reserved(&self) -> usize {
        self.0.reserved()
    }
}

fn context(parts: &[Vec<RecordBatch>], rule: Option<GroupRule>, stingy: bool) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(3).with_batch_size(5);
    let runtime = match stingy {
        true => RuntimeEnvBuilder::new().with_memory_pool(Arc::new(Stingy::default())).build_arc().unwrap(),
        false => RuntimeEnvBuilder::new().build_arc().unwrap(),
    };
    let mut builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    if let Some(rule) = rule {
        builder = builder.with_physical_optimizer_rule(Arc::new(rule));
    }
    let context = SessionContext::new_with_state(builder.build());
    context.register_table("t", Arc::new(MemTable::try_new(parts[0][0].schema(), parts.to_vec()).unwrap())).unwrap();
    context
}

async fn rows(context: &SessionContext, query: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in context.sql(query).await.unwrap().collect().await.unwrap() {
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

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    let status = proptest::option::weighted(0.9, prop_oneof![4 => 200..204i16, 1 => any::<i16>()]);
    let path = proptest::option::weighted(0.9, prop_oneof![4 => 0..9u16, 1 => any::<u16>()]);
    let bytes = proptest::option::weighted(0.9, -3..200i64);
    let time = prop_oneof![4 => 0..3i64, 1 => any::<i64>().prop_map(|n| n / 4)];
    let flag = proptest::option::of(any::<bool>());
    proptest::collection::vec((status, path, bytes, time, proptest::option::of(-2..2i32), flag), 0..80)
}

proptest! {
    #[test]
    fn groups_are_those_of_datafusion(
        parts in proptest::collection::vec(proptest::collection::vec(some_rows(), 1..5), 1..4),
        query in 0..QUERIES.len(),
        few in any::<bool>(),
        stingy in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let parts: Vec<Vec<RecordBatch>> =
            parts.iter().map(|part| part.iter().map(|rows| batch(rows)).collect()).collect();
        let rule = if few { GroupRule { max_groups: 4, probe_rows: 20 } } else { GroupRule::default() };
        runtime.block_on(async {
            let wanted = rows(&context(&parts, None, false), QUERIES[query]).await;
            let got = rows(&context(&parts, Some(rule), stingy), QUERIES[query]).await;
            assert_eq!(got, wanted, "{}", QUERIES[query]);
        });
    }
}

#[tokio::test]
async fn it_takes_what_it_can() {
    let parts = vec![vec![batch(&[])]; 3];
    let context = context(&parts, Some(GroupRule::default()), false);
    for (query, taken) in QUERIES.iter().zip(TAKEN) {
        let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        assert_eq!(text.contains("GroupExec"), taken, "{text}");
    }
}

/// A view of a long text says where it is, and another text may be there later.
#[test]
fn other_texts_in_the_place_of_old_ones_are_told_apart() {
    let mut keys = Keys::new([DataType::Utf8View]);
    let mut groups = Vec::new();
    for n in 0..1000 {
        let texts: StringViewArray =
            (0..3).map(|i| Some(format!("a text of more than twelve bytes {}", n + i))).collect();
        groups.clear();
        keys.number(&[Arc::new(texts)], &mut groups).unwrap();
        assert_eq!(groups, [n, n + 1, n + 2]);
    }
    assert_eq!(keys.len(), 1002);
}
