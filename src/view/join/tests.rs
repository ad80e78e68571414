//! Joins of two streams, fed by hand: whatever the order in which rows of both come, the cuts into micro-batches, and the
//! moment at which a view is made, it equals its query run as a batch over the same rows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ParamValues;
use futures::StreamExt;
use proptest::prelude::*;

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::position::{Position, Unit};
use crate::sql::{self, Outcome, Session};
use crate::storage::stream_log::Origin;
use crate::storage::wal::Record;
use crate::time::{Clock, Micros};

/// Inner and left, over few and many keys, with conditions and windows in all places that they may have.
const QUERIES: &[&str] = &[
    "SELECT date_trunc('minute', q.ts) AS minute, count(*) AS n, sum(r.n) AS s, min(r.ts) AS first
     FROM a q JOIN b r ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '30 seconds' GROUP BY 1",
    "SELECT date_trunc('minute', q.ts) AS minute, count(*) AS n, count(r.id) AS answered, max(r.n) AS most
     FROM a q LEFT JOIN b r ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '30 seconds' GROUP BY 1",
    "SELECT count(*) AS n, count(r.n) AS found, sum(q.n) AS s, count(DISTINCT q.id) AS ids
     FROM a q LEFT JOIN b r ON r.id = q.id AND r.ts > q.ts - INTERVAL '20 seconds' AND r.ts < q.ts - INTERVAL '1 second'",
    "SELECT q.id, r.id AS other, count(*) AS n, min(q.n) AS least
     FROM a q LEFT JOIN b r ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '1 hour' WHERE q.n > 2 AND abs(q.n) < 9 GROUP BY q.id, r.id",
    "SELECT q.id, count(*) AS n FROM a q, b r WHERE q.id = r.id AND r.ts - q.ts <= INTERVAL '10 seconds'
     AND q.ts <= r.ts AND r.n <> 4 GROUP BY q.id HAVING count(*) > 1",
    "SELECT q.id, count(*) AS alone FROM a q LEFT JOIN b r
     ON q.id = r.id AND q.n < 7 AND r.n > 2 AND q.ts BETWEEN r.ts - INTERVAL '15 seconds' AND r.ts + INTERVAL '5 seconds'
     WHERE r.id IS NULL GROUP BY q.id",
    "SELECT window_start, window_end, id, count(*) AS n, sum(n) AS s FROM HOP((SELECT q.ts, r.id, r.n FROM a q
     JOIN b r ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '30 seconds'), ts, INTERVAL '20 seconds',
     INTERVAL '1 minute') GROUP BY window_start, window_end, id",
    "SELECT DISTINCT id, n, other FROM (SELECT q.id, q.n + 1 AS n, r.n AS other
     FROM (SELECT id, n, ts FROM a WHERE n > 1) AS q
     LEFT JOIN (SELECT id, n * 2 AS n, ts + INTERVAL '5 seconds' AS later FROM b WHERE n < 8) AS r
     ON q.id = r.id AND r.later >= q.ts AND r.later < q.ts + INTERVAL '40 seconds' AND r.n > q.n)",
    "SELECT date_trunc('minute', q.ts) AS m, date_trunc('minute', r.ts) AS rm, count(*) AS n
     FROM a q LEFT JOIN b r ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '1 minute' GROUP BY 1, 2",
    "SELECT q.window_start, q.window_end, r.window_start AS rs, count(*) AS n, sum(r.n) AS s
     FROM TUMBLE(a, ts, INTERVAL '1 minute') q LEFT JOIN TUMBLE(b, ts, INTERVAL '20 seconds') r
     ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '1 minute'
     GROUP BY q.window_start, q.window_end, r.window_start",
    "SELECT window_start, window_end, id, count(*) AS n FROM SESSION((SELECT q.ts, q.id, r.n FROM a q
     LEFT JOIN b r ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '30 seconds') PARTITION BY id, ts,
     INTERVAL '20 seconds') GROUP BY window_start, window_end, id",
];

/// 2026-01-01 03:00, after all rows.
const NOW: Micros = 1_767_236_400_000_000;

/// A key (0: none), seconds, a number.
type Row = (u8, i64, u8);

/// A micro-batch of one of the streams.
#[derive(Debug, Clone)]
struct Step {
    left: bool,
    rows: Vec<Row>,
    /// Later rows go to a chunk of their own.
    bulky: bool,
    read: bool,
    then: Then,
}

/// What a server does now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    Checkpoint,
    Archive,
}

struct Streams {
    engine: Arc<Engine>,
    session: Session,
}

impl Streams {
    async fn open(dir: &Path) -> Streams {
        let config = Config { data_dir: Some(dir.join("data")), cores: 2, ..Config::default() };
        let engine = sql::open(config, Clock::manual(NOW)).await.unwrap();
        Streams { session: Session::new(Arc::clone(&engine)), engine }
    }

    /// With the streams `a` and `b`, which read empty files.
    async fn create(dir: &Path) -> Streams {
        let streams = Streams::open(dir).await;
        for name in ["a", "b"] {
            let path = dir.join(name);
            std::fs::write(&path, "").unwrap();
            streams
                .run(&format!(
                "CREATE TABLE {name} (ts timestamptz, id text, n int, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
                 WITH (connector = 'file', path = '{}', hot_bytes = '1 KiB') FORMAT JSON (time_field = 'ts')",
                path.display()
            ))
                .await
                .unwrap();
        }
        streams
    }

    async fn run(&self, sql: &str) -> Result<Vec<String>> {
        self.session.run_text(sql).await
    }

    fn feed(&self, step: &Step) {
        let runner = &self.engine.stream(if step.left { "a" } else { "b" }).unwrap().runner;
        let line = |(id, seconds, n): &Row| {
            let id = if *id == 0 { String::new() } else { format!("\"id\":\"k{id}\",") };
            format!(
                "{{{id}\"ts\":\"2026-01-01T{:02}:{:02}:{:02}Z\",\"n\":{n}}}\n",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            )
        };
        let text: String = step.rows.iter().map(line).collect();
        let wal = runner.log.wal();
        let position = Position { partition: "p".into(), key: "p".into(), start: 0, end: 0, unit: Unit::Frames };
        let base = wal.next_offset();
        let record = Record { base, source: 1, ingest_time: NOW, position, frames: Frames::from_text(text) };
        let location = wal.append(&record).unwrap();
        let origin = Origin::of(location, &record);
        let mut batch = runner.shape.rows(&record.into()).unwrap();
        assert_eq!(batch.rows.num_rows(), step.rows.len());
        if step.bulky {
            batch.bytes = 5 << 20;
        }
        // As the thread of a source: it may read archived rows, which waits.
        tokio::task::block_in_place(|| runner.apply(&batch, &origin)).unwrap();
    }

    async fn then(&self, then: Then) {
        let engine = Arc::clone(&self.engine);
        match then {
            Then::Nothing => {}
            Then::Checkpoint => tokio::task::spawn_blocking(move || engine.checkpoint()).await.unwrap().unwrap(),
            Then::Archive => drop(engine.archive_all().await.unwrap()),
        }
    }

    /// What is there when the process is killed at this moment, in another directory.
    fn killed(&self, dir: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&dir.join("data"), &copy.path().join("data"));
        copy
    }

    /// Rows of the first stream that were joined with others since the start, but for new ones.
    fn joined_again(&self, view: &str) -> u64 {
        let view = self.engine.view(view).unwrap();
        view.slots.iter().map(|slot| slot.rollup.get().unwrap().work.rows.load(Ordering::SeqCst)).sum()
    }

    async fn rows(&self, query: &str) -> Result<Vec<String>> {
        let statement = self.session.parse(query)?.remove(0);
        let planned = self.session.plan(&statement).await?;
        let Outcome::Rows(mut rows) = self.session.execute(&planned, ParamValues::List(vec![])).await? else {
            return Err(Error::internal("not a query"));
        };
        let mut lines = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let options = FormatOptions::default().with_null("NULL");
            let columns: Vec<_> =
                batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" | "));
            }
        }
        lines.sort();
        Ok(lines)
    }

    async fn check(&self, view: &str, query: &str) {
        let (view, batch) = (self.rows(&format!("SELECT * FROM {view}")).await, self.rows(query).await);
        assert_eq!(view.unwrap(), batch.unwrap(), "{query}");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Delta's log before the files that it names: a merge may be under way.
    entries.sort_by_key(|path| std::cmp::Reverse(path.clone()));
    for path in entries {
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_dir(&path, &target),
            // One that is gone again was of no use to anybody.
            false => drop(std::fs::copy(&path, &target)),
        }
    }
}

fn random_steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0..4u8, 0..10u8, -40..40i64, 0..10u8);
    let then = prop_oneof![4 => Just(Then::Nothing), 1 => Just(Then::Checkpoint), 1 => Just(Then::Archive)];
    let step = (any::<bool>(), proptest::collection::vec(row, 1..12), 0..4u8, 0..3u8, then);
    proptest::collection::vec(step, 1..25).prop_map(|steps| {
        let mut now = 0;
        let steps = steps.into_iter().map(|(left, rows, bulky, read, then)| {
            now += 15;
            // Mostly near to now; some much later than they should come.
            let at = |(id, kind, jitter, n): (u8, u8, i64, u8)| {
                let back = if kind == 0 { now / 2 } else { 0 };
                (id, (now + jitter / 2 - back).max(0), n)
            };
            Step { left, rows: rows.into_iter().map(at).collect(), bulky: bulky == 0, read: read == 0, then }
        });
        steps.collect()
    })
}

proptest! {
    // More with PROPTEST_CASES=2560.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_join_equals_its_query(steps in random_steps(), queries in [0..QUERIES.len(), 0..QUERIES.len()], made in 0..25usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let streams = Streams::create(dir.path()).await;
            let queries = queries.map(|query| QUERIES[query]);
            streams.run(&format!("CREATE MATERIALIZED VIEW v0 AS {}", queries[0])).await.unwrap();
            for (i, step) in steps.iter().enumerate() {
                if i == made {
                    streams.run(&format!("CREATE MATERIALIZED VIEW v1 AS {}", queries[1])).await.unwrap();
                }
                streams.feed(step);
                streams.then(step.then).await;
                if step.read {
                    streams.check("v0", queries[0]).await;
                }
                if step.read && i >= made {
                    streams.check("v1", queries[1]).await;
                }
            }
            streams.check("v0", queries[0]).await;
            let killed = streams.killed(dir.path());
            streams.engine.shutdown().await;
            drop(streams);
            // From the last checkpoint, if there was one, and from the one at the end. The logs are read in any order.
            for dir in [&killed, &dir] {
                let streams = Streams::open(dir.path()).await;
                for step in &steps[..steps.len().min(3)] {
                    streams.check("v0", queries[0]).await;
                    if steps.len() > made {
                        streams.check("v1", queries[1]).await;
                    }
                    streams.feed(step);
                    streams.then(step.then).await;
                }
                streams.check("v0", queries[0]).await;
                streams.engine.shutdown().await;
            }
        });
    }
}

/// At every instant a reader sees a view and the rows of both streams together.
#[test]
fn readers_see_both_streams_and_the_view_at_one_instant() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let streams = Arc::new(Streams::create(dir.path()).await);
        for (i, query) in QUERIES[..2].iter().enumerate() {
            streams.run(&format!("CREATE MATERIALIZED VIEW v{i} AS {query}")).await.unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let feeders = [true, false].map(|left| {
            let (streams, stop) = (Arc::clone(&streams), Arc::clone(&stop));
            std::thread::spawn(move || {
                for i in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return i;
                    }
                    let rows = (0..20).map(|n| ((n % 4) as u8, i + n, n as u8)).collect();
                    streams.feed(&Step { left, rows, bulky: i % 10 == 0, read: false, then: Then::Nothing });
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                0
            })
        });
        for _ in 0..15 {
            for (i, query) in QUERIES[..2].iter().enumerate() {
                let different = format!(
                    "SELECT * FROM (SELECT * FROM v{i} EXCEPT SELECT * FROM ({query}) AS x) AS less
                     UNION ALL SELECT * FROM (SELECT * FROM ({query}) AS y EXCEPT SELECT * FROM v{i}) AS more"
                );
                assert_eq!(streams.rows(&different).await.unwrap(), Vec::<String>::new());
            }
        }
        stop.store(true, Ordering::SeqCst);
        for feeder in feeders {
            assert!(feeder.join().unwrap() > 5);
        }
        for (i, query) in QUERIES[..2].iter().enumerate() {
            streams.check(&format!("v{i}"), query).await;
        }
        streams.engine.shutdown().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_on_a_pair_stops_the_view_and_not_the_streams() {
    let dir = tempfile::tempdir().unwrap();
    let streams = Streams::create(dir.path()).await;
    let query = "SELECT q.id, sum(q.n / r.n) AS s FROM a q JOIN b r
                 ON q.id = r.id AND r.ts BETWEEN q.ts AND q.ts + INTERVAL '30 seconds' GROUP BY 1";
    streams.run(&format!("CREATE MATERIALIZED VIEW v AS {query}")).await.unwrap();
    let feed = |left, row| {
        streams.feed(&Step { left, rows: vec![row], bulky: false, read: false, then: Then::Nothing });
    };
    feed(true, (1, 10, 4));
    feed(false, (1, 11, 2));
    assert_eq!(streams.rows("SELECT * FROM v").await.unwrap(), ["k1 | 2"]);
    feed(false, (1, 12, 0));
    feed(true, (2, 12, 1));
    let err = streams.rows("SELECT * FROM v").await.unwrap_err();
    assert!(err.message().contains("query failed"), "{err}");
    assert_eq!(streams.rows("SELECT count(*) FROM a").await.unwrap(), ["2"]);
    let failed = streams.rows("SELECT stream, state FROM logweir.views").await.unwrap();
    assert_eq!(failed, ["a, b | failed"]);
    streams.engine.shutdown().await;
    drop(streams);
    // A restart must not fail for it.
    let streams = Streams::open(dir.path()).await;
    let err = streams.rows("SELECT * FROM v").await.unwrap_err();
    assert!(err.message().contains("query failed"), "{err}");
    assert_eq!(streams.rows("SELECT count(*) FROM a").await.unwrap(), ["2"]);
    streams.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_from_the_checkpoint_and_makes_damage_good() {
    let dir = tempfile::tempdir().unwrap();
    let streams = Streams::create(dir.path()).await;
    for (i, query) in QUERIES[..2].iter().enumerate() {
        streams.run(&format!("CREATE MATERIALIZED VIEW v{i} AS {query}")).await.unwrap();
    }
    // The same state again.
    streams.run(&format!("CREATE MATERIALIZED VIEW twin AS {}", QUERIES[1])).await.unwrap();
    let feed = |streams: &Streams, from: i64, steps: i64| {
        for i in from..from + steps {
            let rows: Vec<Row> = (0..20).map(|n| ((n % 5) as u8, i * 20 + n, n as u8)).collect();
            streams.feed(&Step { left: i % 2 == 0, rows, bulky: i % 4 < 2, read: false, then: Then::Nothing });
        }
    };
    let check = async |streams: &Streams| {
        streams.check("v0", QUERIES[0]).await;
        streams.check("v1", QUERIES[1]).await;
        streams.check("twin", QUERIES[1]).await;
    };
    feed(&streams, 0, 40);
    streams.then(Then::Checkpoint).await;
    feed(&streams, 40, 4);
    let killed = streams.killed(dir.path());
    streams.engine.shutdown().await;
    drop(streams);

    let streams = Streams::open(killed.path()).await;
    check(&streams).await;
    for view in ["v0", "v1"] {
        let again = streams.joined_again(view);
        assert!((1..=100).contains(&again), "{again} of 440 rows of each stream were joined again");
    }
    streams.engine.shutdown().await;

    let streams = Streams::open(dir.path()).await;
    check(&streams).await;
    assert_eq!((streams.joined_again("v0"), streams.joined_again("v1")), (0, 0), "nothing came since");
    feed(&streams, 30, 20);
    streams.then(Then::Archive).await;
    check(&streams).await;
    streams.engine.shutdown().await;
    drop(streams);

    for file in std::fs::read_dir(dir.path().join("data/state")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let streams = Streams::open(dir.path()).await;
    check(&streams).await;
    assert!(streams.joined_again("v0") > 400, "from both streams' rows");
    streams.engine.shutdown().await;
}
