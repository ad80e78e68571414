//! How fast is an append, and how large what it leaves? Run by hand: `cargo test --release -- --ignored archive::tests::measure`.

use std::time::Instant;

use super::*;
use crate::format;
use crate::frame::Frames;

/// About a million rows of the real access log, days apart so that they do not all have the same times.
fn log(count: usize) -> Vec<RecordBatch> {
    let root = std::env::var("LOGWEIR_DATA").unwrap_or_else(|_| "/work/shared/data".to_string());
    let text = std::fs::read(format!("{root}/access/apache_combined_10k.log")).unwrap();
    let parser = format::build("combined", &[], &[]).unwrap();
    let mut batches = Vec::new();
    let mut done = 0i64;
    while (done as usize) < count {
        let rows = parser.parse(&Frames::from_text(text.clone())).rows;
        let number = rows.num_rows() as i64;
        let mut columns = rows.columns().to_vec();
        // Each repetition comes after the one before it, and is shortened to an hour.
        let index = rows.schema().index_of("ts").unwrap();
        let ts = columns[index].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let first = ts.value(0);
        let moved = ts.iter().map(|t| t.map(|t| MIDNIGHT + (t - first) / 84 + done / number * 1_000_000));
        columns[index] = Arc::new(times(moved));
        columns.push(Arc::new(Int64Array::from_iter_values(done..done + number)));
        columns.push(Arc::new(times((0..number).map(|_| None))));
        batches.push(RecordBatch::try_new(with_own(&rows.schema()), columns).unwrap());
        done += number;
    }
    batches
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn measure() {
    let kept = std::env::var_os("LOGWEIR_ARCHIVE").map(std::path::PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let dir = kept.unwrap_or_else(|| temporary.path().to_path_buf());
    std::fs::create_dir_all(&dir).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&dir).unwrap());
    let spec = Spec { name: "access".into(), time: Some("ts".into()), sizes: Sizes::default() };
    let archive = Archive::open(store, Url::parse("file:///").unwrap(), spec).await.unwrap();
    let rows = log(1_000_000);
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let report = |what: &str, rows: usize, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{what}: {rows} rows in {seconds:.2} s, {:.2} M rows/s", rows as f64 / seconds / 1e6);
    };
    for round in 0..3 {
        let end = archive.current().end;
        let renumbered: Vec<RecordBatch> = rows
            .iter()
            .map(|batch| {
                let mut columns = batch.columns().to_vec();
                let index = columns.len() - 2;
                let own = columns[index].as_primitive::<Int64Type>();
                columns[index] = Arc::new(Int64Array::from_iter_values(own.values().iter().map(|o| o + end as i64)));
                RecordBatch::try_new(batch.schema(), columns).unwrap()
            })
            .collect();
        let start = Instant::now();
        let archived = archive.append(renumbered, end..end + count as u64).await.unwrap();
        report(&format!("append {round}"), count, start);
        let segment = archived.segments.last().unwrap();
        eprintln!("  {:.1} bytes/row, {} files", segment.bytes() as f64 / count as f64, segment.files.len());
    }
    let end = archive.current().end;
    let start = Instant::now();
    for part in 0..32 {
        let batch = &rows[part];
        let mut columns = batch.columns().to_vec();
        let index = columns.len() - 2;
        let first = archive.current().end as i64;
        columns[index] = Arc::new(Int64Array::from_iter_values(first..first + batch.num_rows() as i64));
        let batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
        let range = first as u64..first as u64 + batch.num_rows() as u64;
        archive.append(vec![batch], range).await.unwrap();
    }
    report("small appends", (archive.current().end - end) as usize, start);
    let start = Instant::now();
    while archive.compact().await.unwrap() {
        report("merge", archive.current().rows as usize, start);
    }
    let context = SessionContext::new();
    let archived = archive.current();
    eprintln!("{} segments, {:.1} bytes/row", archived.segments.len(), archived.bytes as f64 / archived.rows as f64);
    let schema =
        with_own(&rows[0].schema().project(&(0..rows[0].num_columns() - 2).collect::<Vec<_>>()).unwrap().into());
    let at = |micros| {
        datafusion::logical_expr::lit(datafusion::scalar::ScalarValue::TimestampMicrosecond(
            Some(micros),
            Some(UTC.into()),
        ))
    };
    let col = datafusion::logical_expr::col;
    let minute = vec![col("ts").gt_eq(at(MIDNIGHT + HOUR / 2)), col("ts").lt(at(MIDNIGHT + HOUR / 2 + HOUR / 60))];
    let nobody = vec![col(rows[0].schema().field(0).name().as_str()).eq(datafusion::logical_expr::lit("203.0.113.77"))];
    for (what, filters) in
        [("everything", vec![]), ("a minute", minute.clone()), ("a minute again", minute), ("an address", nobody)]
    {
        let start = Instant::now();
        let plan =
            archive.scan(&archived, &context.state(), schema.clone(), None, None, None, &filters, false).unwrap();
        let batches = datafusion::physical_plan::collect(plan.unwrap(), context.task_ctx()).await.unwrap();
        report(what, batches.iter().map(RecordBatch::num_rows).sum(), start);
    }
}
