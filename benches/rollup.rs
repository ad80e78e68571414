//! Criterion benches of one stage each: folding a micro-batch into a rollup, merging runs, reading a view.
//!
//! ```text
//!     cargo bench --bench rollup
//! ```

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::common::ParamValues;
use futures::StreamExt;
use logweir::batch::{Event, Input, Shape};
use logweir::config::Config;
use logweir::frame::Frames;
use logweir::generate::Access;
use logweir::position::{Position, Unit};
use logweir::rollup::timeliness::Timed;
use logweir::sql::{self, Outcome, Session};
use logweir::time::Clock;

const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, path, count(*) AS requests,
    count(*) FILTER (WHERE status >= 500) AS errors, avg((status >= 500)::int) AS error_rate, avg(bytes) AS bytes
    FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, path";

fn lines(count: i64) -> Vec<u8> {
    let mut access = Access::new(7);
    let mut out = Vec::new();
    for i in 0..count {
        access.line(1_767_225_600_000_000 + i * 200, &mut out);
    }
    out
}

/// An engine whose stream `access` has read `text`, with the view.
async fn engine(dir: &std::path::Path, text: &[u8]) -> Session {
    let log = dir.join("access.log");
    std::fs::write(&log, text).expect("the log");
    let config = Config { data_dir: Some(dir.join("data")), ..Config::default() };
    let session = Session::new(sql::open(config, Clock::system()).await.expect("an engine"));
    let stream = format!("CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED", log.display());
    session.run_text(&format!("{stream}; {VIEW}; FLUSH")).await.expect("a stream and a view");
    session
}

fn fold(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let session = runtime.block_on(engine(dir.path(), b""));
    let view = session.engine().view("v").expect("the view");
    let rollup = Arc::clone(view.slots[0].rollup.get().expect("it is maintained"));
    let format = logweir::format::build("combined", &[], &[]).expect("a format");
    let shape = Shape::new(format, Vec::new(), None).expect("a shape");
    let mut group = criterion.benchmark_group("rollup fold");
    for rows in [512, 8192, 32_768] {
        let frames = Frames::from_text(lines(rows));
        let end = frames.bytes.len() as u64;
        let position = Position { partition: "bench".into(), key: "bench".into(), start: 0, end, unit: Unit::Bytes };
        let batch =
            shape.rows(&Input { base: 0, ingest_time: 0, position, frames, event: Event::Frames }).expect("rows");
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_with_input(BenchmarkId::new("rows", rows), &batch.rows, |b, rows| {
            b.iter(|| black_box(rollup.fold(&Timed::new(rows)).expect("a run")));
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let session = runtime.block_on(engine(dir.path(), &lines(500_000)));
    let mut group = criterion.benchmark_group("view read");
    for (name, sql) in [
        ("all", "SELECT * FROM v"),
        ("one window", "SELECT * FROM v WHERE window_start = '2026-01-01T00:01:00Z'"),
        ("one path", "SELECT * FROM v WHERE path = '/'"),
        ("top ten", "SELECT path, sum(requests) FROM v GROUP BY path ORDER BY 2 DESC, 1 LIMIT 10"),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let statement = session.parse(sql).expect("it parses").remove(0);
                    let planned = session.plan(&statement).await.expect("it plans");
                    let outcome = session.execute(&planned, ParamValues::List(vec![])).await.expect("it runs");
                    let Outcome::Rows(mut rows) = outcome else { panic!("a query has rows") };
                    let mut count = 0;
                    while let Some(batch) = rows.next().await {
                        count += batch.expect("a batch").num_rows();
                    }
                    black_box(count)
                })
            });
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = fold, read }
criterion_main!(benches);
