//! How fast is an append, how large is what it leaves, and how fast is that read? By hand, with a folder to keep it in:
//! `LOGWEIR_ARCHIVE=/tmp/kept cargo test --release -- --ignored --nocapture archive::tests::measure`.

use std::time::Instant;

use arrow::datatypes::TimestampMicrosecondType;
use datafusion::logical_expr::{col, ident, lit};
use datafusion::physical_plan::collect;
use datafusion::scalar::ScalarValue;

use super::*;
use crate::format;
use crate::frame::Frames;

/// Rows of the real access log, which spans some days: repeated, each time squeezed into half a minute after the last.
fn log(count: usize) -> Vec<RecordBatch> {
    let root = std::env::var("LOGWEIR_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").to_string());
    let text = std::fs::read(format!("{root}/access/apache_combined_10k.log")).unwrap();
    let parser = format::build("combined", &[], &[]).unwrap();
    let mut batches = Vec::new();
    let mut done = 0i64;
    while (done as usize) < count {
        let rows = parser.parse(&Frames::from_text(text.clone()), 0).rows;
        let number = rows.num_rows() as i64;
        let mut columns = rows.columns().to_vec();
        let index = rows.schema().index_of("ts").unwrap();
        let ts = columns[index].as_primitive::<TimestampMicrosecondType>();
        let first = ts.value(0);
        let moved = ts.iter().map(|t| t.map(|t| MIDNIGHT + (t - first) / 10_080 + done / number * 30_000_000));
        columns[index] = Arc::new(times(moved));
        columns.push(Arc::new(Int64Array::from_iter_values(done..done + number)));
        columns.push(Arc::new(times((0..number).map(|_| None))));
        batches.push(RecordBatch::try_new(with_own(&rows.schema()), columns).unwrap());
        done += number;
    }
    batches
}

/// The batches with offsets from `end` on, so much later.
fn after(batches: &[RecordBatch], end: u64, later: i64) -> Vec<RecordBatch> {
    let renumbered = batches.iter().map(|batch| {
        let mut columns = batch.columns().to_vec();
        let (ts, own) = (batch.schema().index_of("ts").unwrap(), columns.len() - 2);
        let first = batches[0].column(own).as_primitive::<Int64Type>().value(0);
        let offsets = columns[own].as_primitive::<Int64Type>().values().iter().map(|o| o - first + end as i64);
        columns[own] = Arc::new(Int64Array::from_iter_values(offsets));
        let moved = columns[ts].as_primitive::<TimestampMicrosecondType>().iter().map(|t| t.map(|t| t + later));
        columns[ts] = Arc::new(times(moved));
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    });
    renumbered.collect()
}

/// Seconds of all processors that this process has used.
fn processor_time() -> f64 {
    // SAFETY: the struct is plain numbers and the call fills it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

struct Stopwatch(Instant, f64);

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch(Instant::now(), processor_time())
    }

    fn report(&self, what: &str, rows: usize) {
        let (wall, used) = (self.0.elapsed().as_secs_f64(), processor_time() - self.1);
        eprintln!("{what}: {rows} rows in {wall:.3} s, {:.2} M rows a second of a core", rows as f64 / used / 1e6);
    }
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
    for round in 0..3 {
        let end = archive.current().end;
        let batches = after(&rows, end, round * HOUR);
        let watch = Stopwatch::start();
        let archived = archive.append(batches, end..end + count as u64).await.unwrap();
        watch.report("append", count);
        let segment = archived.segments.last().unwrap();
        eprintln!("  {:.1} bytes a row, {} files", segment.bytes() as f64 / count as f64, segment.files.len());
    }
    let watch = Stopwatch::start();
    let end = archive.current().end;
    for (part, batch) in rows.iter().enumerate().take(64) {
        let end = archive.current().end;
        let batches = after(std::slice::from_ref(batch), end, 3 * HOUR + part as i64);
        archive.append(batches, end..end + batch.num_rows() as u64).await.unwrap();
    }
    watch.report("64 small appends", (archive.current().end - end) as usize);
    loop {
        let (watch, before) = (Stopwatch::start(), archive.current().segments.len());
        if !archive.compact().await.unwrap() {
            break;
        }
        watch.report("merge", (before - archive.current().segments.len()) * rows[0].num_rows());
    }
    let archived = archive.current();
    eprintln!("{} segments, {:.1} bytes a row", archived.segments.len(), archived.bytes as f64 / archived.rows as f64);
    let context = SessionContext::new();
    let own = rows[0].num_columns() - 2;
    let wanted = Arc::new(rows[0].schema().project(&(0..own).collect::<Vec<_>>()).unwrap());
    let at = |micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some(UTC.into())));
    let from = MIDNIGHT + HOUR / 2;
    let minute = vec![col("ts").gt_eq(at(from)).and(col("ts").lt(at(from + HOUR / 60)))];
    let client = |value: &str| vec![ident("client").eq(lit(ScalarValue::Utf8View(Some(value.into()))))];
    for (what, filters, columns) in [
        ("everything", vec![], None),
        ("everything again", vec![], None),
        ("one column", vec![], Some(vec![wanted.index_of("status").unwrap()])),
        ("a minute", minute.clone(), None),
        ("a minute again", minute, None),
        ("an address that is not there", client("203.0.113.77"), None),
        ("an address that is", client("83.149.9.216"), None),
    ] {
        let watch = Stopwatch::start();
        let state = context.state();
        let plan = archive.scan(&archived, &state, wanted.clone(), columns.as_ref(), None, None, &filters, false);
        let batches = collect(plan.unwrap().unwrap(), context.task_ctx()).await.unwrap();
        watch.report(what, batches.iter().map(RecordBatch::num_rows).sum());
    }
}
