//! Deliveries of made-up rows to made-up receivers that fail and refuse at random, while the driver is killed at random.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Builder;

use super::*;
use crate::sink::{Delivered, SINKS};
use crate::storage::faulty_fs::FaultyFs;
use crate::storage::fs::Fs;

/// Rows of the relation: the row at offset n has the value n.
const ROWS: u64 = 3000;

/// Rows with a multiple of this are refused.
const POISON: i64 = 701;

const LIVES: u64 = 25;

fn own() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

/// What a subscription gives: rows up to an offset, or the progress to it.
fn came(rows: std::ops::Range<u64>, progress: bool) -> RecordBatch {
    let values = || rows.clone().map(|n| n as i64);
    let columns: Vec<(&str, ArrayRef)> = match progress {
        true => vec![
            ("_offset", Arc::new(Int64Array::from(vec![rows.end as i64]))),
            ("_op", Arc::new(StringArray::new_null(1))),
            ("_progress", Arc::new(BooleanArray::from(vec![true]))),
            ("n", Arc::new(Int64Array::new_null(1))),
        ],
        false => vec![
            ("_offset", Arc::new(Int64Array::from_iter_values(values().map(|n| n + 1)))),
            ("_op", Arc::new(StringArray::from_iter_values(values().map(|_| "insert")))),
            ("_progress", Arc::new(BooleanArray::from(vec![false; rows.clone().count()]))),
            ("n", Arc::new(Int64Array::from_iter_values(values()))),
        ],
    };
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect()).unwrap()
}

/// Rows that are all there, in pieces of any size.
struct Numbers(Mutex<StdRng>);

impl Relation for Numbers {
    fn describe(&self) -> BoxFuture<'_, Result<Described>> {
        let nature = Nature { rows: true, key: None, closed: false, window: None, shift: None, time: None, streams: 1 };
        Box::pin(async { Ok(Described { schema: own(), nature, every: Duration::ZERO }) })
    }

    fn follow(&self, options: Options, _: Option<(usize, Micros)>) -> BoxFuture<'_, Result<SendableRecordBatchStream>> {
        let Start::From(mut at) = options.start else { panic!("rows are followed from an offset") };
        let mut batches = Vec::new();
        let mut random = self.0.lock();
        while at < ROWS {
            let end = (at + random.random_range(1..300)).min(ROWS);
            batches.push(Ok(came(at..end, false)));
            if random.random_bool(0.5) || end == ROWS {
                batches.push(Ok(came(end..end, true)));
            }
            at = end;
        }
        let schema = came(0..1, false).schema();
        let rows = futures::stream::iter(batches).chain(futures::stream::pending());
        Box::pin(async { Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)) as SendableRecordBatchStream) })
    }

    fn has_columns(&self) -> bool {
        true
    }

    fn offset(&self) -> Option<u64> {
        Some(ROWS)
    }

    fn first(&self) -> Option<u64> {
        Some(0)
    }

    fn durable(&self, _: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// The other side, which outlives the driver.
#[derive(Default)]
struct Other {
    rows: Vec<i64>,
    position: Option<Position>,
    /// What came under each key.
    keys: BTreeMap<String, Vec<i64>>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Manner {
    /// Takes requests, and remembers neither position nor what came before.
    Requests,
    /// Rows and position in one transaction.
    Transactions,
    /// Several batches are accepted together.
    Files,
}

struct Fake {
    manner: Manner,
    other: Arc<Mutex<Other>>,
    random: StdRng,
    held: Vec<i64>,
    holds: bool,
}

impl Fake {
    /// Something fails, before or after it was done.
    fn fails(&mut self) -> bool {
        self.random.random_bool(0.08)
    }

    fn down(&mut self) -> Failure {
        (self.held, self.holds) = (Vec::new(), false);
        Failure::Again(Error::new(Kind::Io, "down"), None)
    }

    fn commit(&mut self, upto: Position) -> Delivered<Option<Position>> {
        if self.fails() {
            return Err(self.down());
        }
        {
            let mut other = self.other.lock();
            other.rows.append(&mut self.held);
            other.position = Some(upto);
        }
        self.holds = false;
        if self.fails() { Err(self.down()) } else { Ok(Some(upto)) }
    }

    async fn take(&mut self, batch: &Batch) -> Delivered<Option<Position>> {
        tokio::time::sleep(Duration::from_micros(self.random.random_range(0..800))).await;
        if self.fails() {
            return Err(self.down());
        }
        let values = batch.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        if self.manner != Manner::Files && values.iter().any(|n| n % POISON == 0) {
            return Err(Failure::Refused(Error::new(Kind::Io, "poison")));
        }
        match self.manner {
            Manner::Requests => {
                if !values.is_empty() {
                    let mut other = self.other.lock();
                    let before = other.keys.insert(batch.key.clone(), values.clone());
                    assert!(before.is_none_or(|before| before == values), "other rows under the key {}", batch.key);
                }
                if self.fails() { Err(self.down()) } else { Ok(batch.upto) }
            }
            Manner::Transactions => {
                self.held.extend(values);
                self.holds = true;
                match batch.upto {
                    Some(upto) => self.commit(upto),
                    None => Ok(None),
                }
            }
            Manner::Files => {
                self.held.extend(values);
                self.holds = true;
                match batch.upto.filter(|_| self.held.len() > 150) {
                    Some(upto) => self.commit(upto),
                    None => Ok(None),
                }
            }
        }
    }
}

impl Sink for Fake {
    fn open<'a>(&'a mut self, _: &'a Feed, known: Position) -> BoxFuture<'a, Delivered<Position>> {
        Box::pin(async move {
            (self.held, self.holds) = (Vec::new(), false);
            if self.fails() {
                return Err(self.down());
            }
            Ok(self.other.lock().position.unwrap_or(known))
        })
    }

    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Delivered<Option<Position>>> {
        Box::pin(self.take(batch))
    }

    fn holds(&self) -> bool {
        self.holds
    }

    fn due(&self) -> Option<Instant> {
        self.holds.then(|| Instant::now() + Duration::from_millis(5))
    }

    fn finish(&mut self) -> BoxFuture<'_, Delivered<Option<Position>>> {
        Box::pin(async move {
            match self.holds && self.manner == Manner::Files {
                true => {
                    let last = self.held.last().map_or(0, |last| *last as u64 + 1);
                    self.commit(Position::at(last))
                }
                false => Ok(None),
            }
        })
    }
}

fn play(manner: Manner, connector: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let fs = FaultyFs::new(seed);
    let folder = Path::new("/sinks/1");
    fs.create_dir_all(folder).unwrap();
    let (other, status) = (Arc::new(Mutex::new(Other::default())), Arc::<Status>::default());
    let file = StateFile::new(Arc::new(fs.clone()), folder);
    file.write(&State::new(0)).unwrap();
    let dead = || Arc::new(DeadLetters::new(Arc::new(fs.clone()), folder, 1 << 20));
    let spec = crate::registry::find(SINKS, "connector", connector).unwrap();
    for life in 0..=LIVES {
        let settings = Settings {
            snapshot: true,
            limits: Limits { rows: random.random_range(1..120), bytes: 1 << 20 },
            interval: Duration::from_millis(1),
            retry_min: Duration::from_micros(100),
            retry_max: Duration::from_millis(1),
            tries: 2,
            dead_bytes: 1 << 20,
            validate: true,
        };
        let (of_sink, of_rows) = (random.random(), random.random());
        let sink = Fake {
            manner,
            other: Arc::clone(&other),
            random: StdRng::seed_from_u64(of_sink),
            held: Vec::new(),
            holds: false,
        };
        let stop = CancellationToken::new();
        let parts = Parts {
            name: "s".into(),
            spec,
            sink: Box::new(sink),
            settings,
            key: None,
            relation: Arc::new(Numbers(Mutex::new(StdRng::seed_from_u64(of_rows)))),
            file: file.clone(),
            dead: dead(),
            status: Arc::clone(&status),
            clock: Clock::system(),
            stop: stop.clone(),
        };
        let delivery = Delivery::new(parts, file.read().unwrap());
        // With the runtime, what it was just writing comes to its end: as the kernel does for a killed process.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let patience = Duration::from_millis(random.random_range(1..60));
        runtime.block_on(async {
            let running = tokio::spawn(delivery.run());
            if life < LIVES {
                tokio::time::sleep(patience).await;
                running.abort();
                let _ = running.await;
                return;
            }
            while status.get().position.offset < ROWS {
                assert_ne!(status.get().state, "failed");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
            running.await.unwrap();
        });
    }
    let poison: BTreeSet<i64> = (0..ROWS as i64).filter(|n| n % POISON == 0).collect();
    let letters: Vec<i64> = dead().read().unwrap().iter().map(|l| l.row[5..l.row.len() - 1].parse().unwrap()).collect();
    let other = other.lock();
    match manner {
        Manner::Files => assert!(other.rows.iter().copied().eq(0..ROWS as i64), "{manner:?} with seed {seed}"),
        Manner::Transactions => {
            let expected = (0..ROWS as i64).filter(|n| !poison.contains(n));
            assert!(other.rows.iter().copied().eq(expected), "{manner:?} with seed {seed}");
        }
        Manner::Requests => {
            let mut all: Vec<i64> = other.keys.values().flatten().copied().collect();
            all.sort_unstable();
            let expected = (0..ROWS as i64).filter(|n| !poison.contains(n));
            assert!(all.iter().copied().eq(expected), "{manner:?} with seed {seed}: {} rows", all.len());
        }
    }
    if manner != Manner::Files {
        assert_eq!(letters.iter().copied().collect::<BTreeSet<_>>(), poison, "with seed {seed}");
        assert_eq!(letters.len(), poison.len(), "a letter came twice, with seed {seed}");
    }
}

#[test]
fn whatever_fails_and_is_killed_every_row_arrives() {
    let seed = rand::random_range(0..1_000_000);
    for round in 0..4 {
        play(Manner::Requests, "http", seed + round);
        play(Manner::Transactions, "postgres", seed + round);
        play(Manner::Files, "file", seed + round);
    }
}

#[test]
fn numbers_of_options_are_looked_at() {
    let of = |name: &str, value: &str| {
        let given = [(name.to_string(), value.to_string())];
        Settings::of(&Given::parse("a sink", &[SINK_OPTIONS], &given).unwrap())
    };
    assert_eq!(of("batch_rows", "7").unwrap().limits.rows, 7);
    assert!(of("batch_rows", "0").unwrap_err().message().contains("above 0"));
    assert!(of("tries", "-1").is_err());
    assert_eq!(of("retry_max", "1ms").unwrap().retry_max, RETRY_MIN, "not below the shortest");
}
