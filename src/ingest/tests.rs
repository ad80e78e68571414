//! Tests: sources that are told what is durable and that wake their driver, and pushes that count once.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::config::Config;
use crate::format;
use crate::position::Unit;
use crate::rollup::watermark::Watermark;
use crate::source::{Partition, Polled, Waker};
use crate::storage::fs::Disk;
use crate::storage::keys::{Key, Keys};
use crate::storage::stream_log::StreamLog;
use crate::storage::wal::{SyncMode, WalOptions};

const SOON: Duration = Duration::from_secs(10);

/// After the first sync, which comes at once, the next one comes when a test asks for it.
const ON_DEMAND: SyncMode = SyncMode::Every(Duration::from_secs(3600));

fn open(dir: &Path, sync: SyncMode, saved: &[Key]) -> Arc<Ingest> {
    let options = WalOptions { sync, segment_bytes: 1 << 20 };
    let known = (Positions::new(), Keys::new(3, 1000).with(saved));
    let (log, _, positions) = StreamLog::open(Arc::new(Disk), dir, options, 1 << 20, None, known).unwrap();
    let format = format::build("json", &[], &[]).unwrap();
    let shape = Arc::new(Shape::new(format, Vec::new(), None).unwrap());
    let runner = Arc::new(Runner::new(shape, Arc::new(log), Watermark::new(0, 1, i64::MAX)));
    runner.begin_at(0, positions.clone());
    let space = Arc::new(Space::new(Arc::new(Disk), dir, &Config::default()));
    let start = Start { positions, from: None, space, clock: Clock::manual(1), push_bytes: 100_000 };
    Ingest::start("s", runner, start).unwrap()
}

fn lines(count: usize) -> Frames {
    Frames::from_text("{\"a\":1}\n".repeat(count))
}

fn push(count: usize, key: Option<&str>) -> Push {
    let (partition, key) = ("http".into(), key.map(str::to_string));
    Push { source: 7, partition, frames: lines(count), key, patience: None }
}

/// A queue: what a test puts into it is given out, and what was acknowledged is noted.
#[derive(Clone, Default)]
struct Queue {
    ready: Arc<Mutex<VecDeque<Polled>>>,
    acknowledged: Arc<Mutex<Vec<u64>>>,
    waker: Arc<Mutex<Option<Waker>>>,
    polls: Arc<AtomicUsize>,
}

fn message(number: u64) -> Polled {
    let position =
        Position { partition: "q".into(), key: String::new(), start: number, end: number + 1, unit: Unit::Frames };
    Polled::Frames(lines(1), position)
}

impl Queue {
    fn give(&self, polled: Polled) {
        self.ready.lock().push_back(polled);
        self.waker.lock().as_ref().unwrap().wake();
    }

    fn wait_for(&self, acknowledged: &[u64]) {
        let begun = std::time::Instant::now();
        while *self.acknowledged.lock() != acknowledged {
            assert!(begun.elapsed() < SOON, "{:?}", self.acknowledged.lock());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Source for Queue {
    fn resume(&mut self, positions: Vec<Position>) -> Result<()> {
        assert_eq!(positions, [], "positions without a key are not remembered");
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        Ok(self.ready.lock().pop_front().unwrap_or(Polled::Idle))
    }

    fn mark(&mut self) -> Result<()> {
        Ok(())
    }

    fn reached(&self) -> bool {
        self.ready.lock().is_empty()
    }

    fn partitions(&self) -> Vec<Partition> {
        Vec::new()
    }

    fn set_waker(&mut self, waker: Waker) {
        *self.waker.lock() = Some(waker);
    }

    /// It is woken, or the test takes too long.
    fn idle_wait(&self) -> Duration {
        SOON * 10
    }

    fn wants_acknowledgement(&self) -> bool {
        true
    }

    fn acknowledge(&mut self, position: &Position) -> Result<()> {
        self.acknowledged.lock().push(position.start);
        Ok(())
    }
}

fn add(ingest: &Ingest, queue: &Queue) {
    ingest.add_source(Box::new(queue.clone()), Arc::new(SourceStatus::new(0, "q", "queue"))).unwrap();
}

#[test]
fn a_source_is_told_of_what_is_synced_and_woken_rather_than_polled() {
    let dir = tempfile::tempdir().unwrap();
    let ingest = open(dir.path(), ON_DEMAND, &[]);
    let queue = Queue::default();
    add(&ingest, &queue);
    queue.give(message(0));
    queue.wait_for(&[0]);
    for number in 1..4 {
        queue.give(message(number));
    }
    let nothing = Position { partition: "q".into(), key: String::new(), start: 4, end: 5, unit: Unit::Frames };
    queue.give(Polled::Frames(Frames::default(), nothing));
    while ingest.runner.progress().offset < 4 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(*queue.acknowledged.lock(), [0], "visible, and not synced yet");
    ingest.runner.log.wal().sync().unwrap();
    queue.wait_for(&[0, 1, 2, 3, 4]);
    assert!(queue.polls.load(Ordering::SeqCst) < 50, "it sleeps while there is nothing");
    assert_eq!(ingest.runner.log.wal().next_offset(), 4);
}

#[test]
fn a_source_that_stops_gets_its_last_acknowledgements() {
    let dir = tempfile::tempdir().unwrap();
    let ingest = open(dir.path(), SyncMode::Every(Duration::from_millis(100)), &[]);
    let queue = Queue::default();
    add(&ingest, &queue);
    queue.give(message(0));
    queue.give(message(1));
    while ingest.runner.log.wal().next_offset() < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    ingest.remove_source(0);
    assert_eq!(*queue.acknowledged.lock(), [0, 1]);
}

#[test]
fn a_partition_that_is_gone_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = |key: &str| Position { partition: key.into(), key: key.into(), start: 0, end: 1, unit: Unit::Frames };
    let ingest = open(dir.path(), SyncMode::Always, &[]);
    let queue = Queue::default();
    add(&ingest, &queue);
    for key in ["a", "b", "c"] {
        queue.give(Polled::Frames(lines(1), keyed(key)));
    }
    queue.give(Polled::Gone { partition: "a".into(), key: "a".into() });
    queue.give(Polled::Gone { partition: String::new(), key: "c".into() });
    while !queue.reached() {
        std::thread::sleep(Duration::from_millis(1));
    }
    ingest.stop();
    let kept = |saved: Vec<(u32, Position)>| saved.into_iter().map(|(_, p)| p.key).collect::<Vec<_>>();
    let runners = [(1, Arc::clone(&ingest.runner))];
    assert_eq!(kept(Runner::checkpoint(&runners, &|_| true).remove(0).0.positions), ["b"]);
    drop(runners);
    drop(ingest);
    let again = open(dir.path(), SyncMode::Always, &[]);
    assert_eq!(again.positions[&0].keys().collect::<Vec<_>>(), ["b"], "the log says it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_answered_when_it_is_synced_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let ingest = open(dir.path(), ON_DEMAND, &[]);
    let first = ingest.push(push(2, Some("a"))).await.unwrap();
    assert_eq!(first, Pushed { offsets: 0..2, repeated: false });
    ingest.visible(2).await.unwrap();

    // The second is not answered before it is synced, and nor is its repetition.
    let (one, two) = (Arc::clone(&ingest), Arc::clone(&ingest));
    let one = tokio::spawn(async move { one.push(push(3, Some("b"))).await });
    ingest.visible(5).await.unwrap();
    let two = tokio::spawn(async move { two.push(push(3, Some("b"))).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!one.is_finished() && !two.is_finished());
    ingest.runner.log.wal().sync().unwrap();
    let (one, two) = (one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    assert_eq!((one.offsets, one.repeated), (2..5, false));
    assert_eq!((two.offsets, two.repeated), (2..5, true));

    let log = Arc::clone(&ingest.runner.log);
    let sync = tokio::task::spawn_blocking(move || {
        while log.wal().next_offset() < 6 {
            std::thread::sleep(Duration::from_millis(1));
        }
        log.wal().sync().unwrap();
    });
    assert_eq!(ingest.push(push(1, None)).await.unwrap().offsets, 5..6);
    sync.await.unwrap();
    let saved = Runner::checkpoint(&[(1, Arc::clone(&ingest.runner))], &|_| true).remove(0).0;
    assert_eq!(saved.positions, [], "what was pushed is no place to go on at");
    ingest.stop();
    drop(ingest);

    for saved in [&[][..], &saved.keys] {
        let again = open(dir.path(), SyncMode::Always, saved);
        let repeated = again.push(push(9, Some("b"))).await.unwrap();
        assert_eq!(repeated, Pushed { offsets: 2..5, repeated: true });
        assert_eq!(again.push(Push { source: 8, ..push(0, Some("b")) }).await.unwrap().offsets, 6..6);
        assert_eq!(again.runner.log.wal().next_offset(), 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_finds_no_place_is_busy_and_one_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ingest = open(dir.path(), SyncMode::Always, &[]);
    let large = ingest.push(push(20_000, None)).await.unwrap_err();
    assert_eq!(large.kind(), Kind::ResourceLimit);
    assert_eq!(ingest.push(push(1, Some(&"k".repeat(256)))).await.unwrap_err().kind(), Kind::InvalidParameter);
    // Nothing becomes visible, so the queues between the stages fill up.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (holds, held) = oneshot::channel();
    let holder = std::thread::spawn({
        let runner = Arc::clone(&ingest.runner);
        move || {
            let _held = runner.hold();
            holds.send(()).unwrap();
            let _ = released.recv();
        }
    });
    held.await.unwrap();
    let patience = Duration::from_millis(50);
    let (mut taken, mut waiting) = (0, Vec::new());
    let busy = loop {
        assert!(taken + waiting.len() < 40, "somewhere there is a queue without a bound");
        let ingest = Arc::clone(&ingest);
        let mut pushing =
            tokio::spawn(async move { ingest.push(Push { patience: Some(patience), ..push(1, None) }).await });
        match tokio::time::timeout(4 * patience, &mut pushing).await {
            Ok(Ok(Ok(_))) => taken += 1,
            Ok(Ok(Err(err))) => break err,
            Ok(Err(err)) => panic!("{err}"),
            // It has its place, and is not in the log yet.
            Err(_) => waiting.push(pushing),
        }
    };
    assert_eq!(busy.kind(), Kind::Busy, "{busy} after {taken}");
    drop(release);
    holder.join().unwrap();
    for pushing in waiting {
        pushing.await.unwrap().unwrap();
    }
    ingest.through().await.unwrap();
    let next = ingest.runner.log.wal().next_offset();
    assert_eq!(ingest.push(push(1, None)).await.unwrap().offsets.start, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_stream_is_the_end_of_all_its_sources() {
    let dir = tempfile::tempdir().unwrap();
    let ingest = open(dir.path(), SyncMode::Always, &[]);
    let (one, two) = (Queue::default(), Queue::default());
    let status = |id, name| Arc::new(SourceStatus::new(id, name, "queue"));
    let sources: Vec<(Box<dyn Source>, _)> =
        vec![(Box::new(one.clone()), status(0, "one")), (Box::new(two.clone()), status(5, "two"))];
    ingest.add_sources(sources).unwrap();
    one.give(Polled::End);
    while !ingest.sources()[0].has_ended() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ingest.through().await.unwrap();
    let all_ended = |ingest: &Ingest| {
        let sources = ingest.sources.lock();
        sources.iter().all(|driven| driven.status.has_ended())
    };
    assert!(!all_ended(&ingest));
    ingest.remove_source(5);
    assert!(all_ended(&ingest));
}
