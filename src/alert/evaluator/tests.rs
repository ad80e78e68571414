//! Evaluators over a made-up relation: the test says what it gives out and when.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{binary, col, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::alert::desk::Acknowledgement;
use crate::alert::ledger::Entry;
use crate::alert::rule::{NoData, Rule};
use crate::alert::track::Kept;
use crate::alert::{Definition, Telling};
use crate::storage::faulty_fs::FaultyFs;
use crate::storage::fs::Fs;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relation with the columns `k` and `n`, watched for `n > 2`.
struct Fake {
    timing: Timing,
    reached: Mutex<Reached>,
    offset: AtomicU64,
    /// From where it was followed, and what takes the changes to there.
    followed: Mutex<Vec<(Place, UnboundedSender<RecordBatch>)>>,
    /// How often a predicate was planned.
    planned: AtomicU64,
    /// Whoever follows it waits.
    stuck: bool,
}

impl Fake {
    fn new(timing: Timing) -> Arc<Fake> {
        Arc::new(Fake::of(timing))
    }

    fn of(timing: Timing) -> Fake {
        let reached = Mutex::new(Reached { event: 0, closed_to: Micros::MIN });
        let (offset, planned) = (AtomicU64::new(0), AtomicU64::new(0));
        Fake { timing, reached, offset, followed: Mutex::default(), planned, stuck: false }
    }

    /// The `n`th time that it is followed.
    async fn nth(&self, n: usize) -> (Place, UnboundedSender<RecordBatch>) {
        until("it to be followed", || self.followed.lock().get(n).cloned()).await
    }
}

fn own() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]))
}

/// Changes: offset, operation, key, number.
fn changes(rows: &[(i64, &str, &str, i64)]) -> RecordBatch {
    batch(
        rows.iter().map(|row| Some(row.0)).collect(),
        rows.iter().map(|row| Some(row.1)).collect(),
        vec![Some(false); rows.len()].into(),
        rows.iter().map(|row| Some(row.2)).collect(),
        rows.iter().map(|row| Some(row.3)).collect(),
    )
}

fn progress_to(offset: i64) -> RecordBatch {
    let none = || StringArray::from(vec![None::<&str>]);
    batch(vec![Some(offset)].into(), none(), vec![Some(true)].into(), none(), vec![None].into())
}

fn batch(offsets: Int64Array, ops: StringArray, progress: BooleanArray, k: StringArray, n: Int64Array) -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_offset", Arc::new(offsets)),
        ("_op", Arc::new(ops)),
        ("_progress", Arc::new(progress)),
        ("k", Arc::new(k)),
        ("n", Arc::new(n)),
    ];
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect()).unwrap()
}

impl Source for Fake {
    fn describe(&self) -> BoxFuture<'_, Result<Described>> {
        async { Ok(Described { schema: own(), timing: self.timing.clone() }) }.boxed()
    }

    fn follow(&self, place: Place) -> BoxFuture<'_, Result<SendableRecordBatchStream>> {
        if self.stuck {
            return futures::future::pending().boxed();
        }
        let (sender, mut receiver) = unbounded_channel();
        self.followed.lock().push((place, sender));
        let batches = futures::stream::poll_fn(move |context| receiver.poll_recv(context).map(|b| b.map(Ok)));
        let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(changes(&[]).schema(), batches));
        async { Ok(stream) }.boxed()
    }

    fn read(&self) -> BoxFuture<'_, Result<SendableRecordBatchStream>> {
        futures::future::pending().boxed()
    }

    fn predicate<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Arc<dyn PhysicalExpr>>> {
        self.planned.fetch_add(1, Ordering::SeqCst);
        let schema = own();
        let more = binary(col("n", &schema).unwrap(), Operator::Gt, lit(2i64), &schema);
        async { Ok(more?) }.boxed()
    }

    fn stands(&self) -> Reached {
        *self.reached.lock()
    }

    fn reached(&self) -> Reached {
        *self.reached.lock()
    }

    fn offset(&self) -> u64 {
        self.offset.load(Ordering::SeqCst)
    }
}

fn ledger() -> Arc<Ledger> {
    let fs = FaultyFs::new(1);
    fs.create_dir_all(Path::new("/data")).unwrap();
    Arc::new(Ledger::open(Arc::new(fs), Path::new("/data/alerts")).unwrap().0)
}

fn definition(id: u32, rule: Rule) -> Definition {
    Definition {
        name: format!("a{id}"),
        from: "v".into(),
        query: "SELECT * FROM v".into(),
        reads: BTreeSet::new(),
        closed: false,
        predicate: Some(("n > 2".into(), "SELECT n > 2 FROM v".into())),
        scores: None,
        key: vec!["k".into()],
        rule,
        keeps: true,
        severity: "warning".into(),
        labels: Vec::new(),
        annotations: Vec::new(),
        telling: Telling::default(),
        every: None,
    }
}

fn watch(id: u32, rule: Rule, ledger: &Ledger, now: Micros) -> Watch {
    Watch::new(id, Arc::new(definition(id, rule)), BTreeMap::new(), ledger, now)
}

async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// What has become of an alert, as words.
fn history(ledger: &Ledger, alert: &str) -> Vec<String> {
    ledger.look(|book| book.events.iter().filter(|event| event.alert == alert).map(|event| event.to.clone()).collect())
}

async fn becomes(ledger: &Ledger, alert: &str, words: &[&str]) {
    until(&format!("{alert} to become {words:?}"), || (history(ledger, alert) == words).then_some(())).await;
}

/// Has everything that can go on without time do so.
async fn go_on() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_is_judged_between_a_row_that_goes_and_the_one_in_its_place() {
    let (fake, ledger, clock) = (Fake::new(Timing::Level), ledger(), Clock::manual(10));
    let one = watch(1, Rule::default(), &ledger, 10);
    let evaluator = Evaluator::new(Arc::clone(&fake) as _, vec![one], None, &ledger, &clock);
    let (desk, stop) = (Arc::clone(&evaluator.desk), evaluator.stop.clone());
    let running = tokio::spawn(evaluator.run());
    let (_, changed) = fake.nth(0).await;
    changed.send(changes(&[(1, "insert", "x", 5)])).unwrap();
    changed.send(progress_to(1)).unwrap();
    becomes(&ledger, "a1", &["firing"]).await;
    changed.send(changes(&[(2, "update_before", "x", 5)])).unwrap();
    let (done, answer) = oneshot::channel();
    desk.acknowledge(Acknowledgement { alert: 1, matching: Vec::new(), done });
    go_on().await;
    changed.send(changes(&[(2, "update_after", "x", 7)])).unwrap();
    changed.send(progress_to(2)).unwrap();
    assert_eq!(answer.await, Ok(1));
    assert_eq!(history(&ledger, "a1"), ["firing"]);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_alert_that_comes_gets_what_it_has_not_seen_and_the_others_nothing_twice() {
    let (fake, ledger, clock) = (Fake::new(Timing::Rows { time: None }), ledger(), Clock::manual(10));
    let keyless = |id, ledger: &Ledger| {
        let definition = Definition { key: Vec::new(), ..definition(id, Rule::default()) };
        Watch::new(id, Arc::new(definition), BTreeMap::new(), ledger, 10)
    };
    let evaluator = Evaluator::new(Arc::clone(&fake) as _, vec![keyless(1, &ledger)], None, &ledger, &clock);
    let (desk, stop) = (Arc::clone(&evaluator.desk), evaluator.stop.clone());
    let running = tokio::spawn(evaluator.run());
    let (place, changed) = fake.nth(0).await;
    assert_eq!(place.offset, 0);
    changed.send(changes(&[(3, "insert", "x", 1), (5, "insert", "x", 9)])).unwrap();
    changed.send(progress_to(5)).unwrap();
    becomes(&ledger, "a1", &["firing"]).await;
    // Time goes on, and it is over.
    *fake.reached.lock() = Reached { event: 100, closed_to: 100 };
    becomes(&ledger, "a1", &["firing", "resolved"]).await;
    // Another one was made when the stream stood at 4.
    let place = Place { offset: 4, closed_to: 0 };
    ledger.record(|_| vec![Entry::Place { alert: 2, place }]).unwrap();
    desk.admit(vec![keyless(2, &ledger)]);
    let (place, changed) = fake.nth(1).await;
    assert_eq!(place.offset, 4, "the one that stands furthest back");
    changed.send(changes(&[(5, "insert", "x", 9), (6, "insert", "x", 1)])).unwrap();
    changed.send(progress_to(6)).unwrap();
    until("the new one to fire", || history(&ledger, "a2").first().cloned()).await;
    assert_eq!(history(&ledger, "a1"), ["firing", "resolved"]);
    assert_eq!(fake.planned.load(Ordering::SeqCst), 2, "of the one that was there it is known");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_alert_that_goes_does_not_wait_for_the_relation() {
    let fake = Arc::new(Fake { stuck: true, ..Fake::of(Timing::Level) });
    let (ledger, clock) = (ledger(), Clock::manual(10));
    let watches = vec![watch(1, Rule::default(), &ledger, 10), watch(2, Rule::default(), &ledger, 10)];
    let evaluator = Evaluator::new(fake, watches, None, &ledger, &clock);
    let (desk, stop) = (Arc::clone(&evaluator.desk), evaluator.stop.clone());
    let running = tokio::spawn(evaluator.run());
    go_on().await;
    assert_eq!(desk.dismiss(1).await, Ok(()));
    stop.cancel();
    running.await.unwrap();
    assert!(desk.dismiss(2).await.is_err(), "nobody is there, and nobody waits");
}

#[tokio::test]
async fn a_query_that_takes_for_ever_holds_up_no_one() {
    let (fake, ledger, clock) = (Fake::new(Timing::Level), ledger(), Clock::manual(10));
    let watches = vec![watch(1, Rule::default(), &ledger, 10), watch(2, Rule::default(), &ledger, 10)];
    let every = Some(Duration::from_secs(1));
    let evaluator = Evaluator::new(fake, watches, every, &ledger, &clock);
    let (desk, stop) = (Arc::clone(&evaluator.desk), evaluator.stop.clone());
    let running = tokio::spawn(evaluator.run());
    go_on().await;
    assert_eq!(desk.dismiss(1).await, Ok(()));
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn time_in_which_nobody_was_there_is_no_silence() {
    let rule = Rule { no_data: Some((NoData::Fire, 100)), ..Rule::default() };
    let ledger = ledger();
    let seen_at = |seen: Micros, silent: bool| {
        let mut kept = Kept::new(Moment { event: seen, wall: seen });
        kept.instance.silent = silent;
        let entry = Entry::Instance { alert: 1, key: vec![Some("x".into())], kept: Box::new(kept) };
        ledger.record(|_| vec![entry]).unwrap();
        let watch = watch(1, rule, &ledger, 1000);
        watch.tracker.instances[&vec![Some("x".to_string())]].kept.instance.seen
    };
    assert_eq!(seen_at(200, false), 1000, "it would have become silent at 300");
    assert_eq!(seen_at(950, false), 950);
    assert_eq!(seen_at(200, true), 200, "it was silent before");
}
