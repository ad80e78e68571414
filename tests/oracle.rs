//! Random continuous queries over random rows: a view equals its own query run as a batch, whatever the rows, the cuts
//! into micro-batches, the moment at which the view was made, and the restarts. And so on: `stage.rs` lists what must hold.
//!
//! A *scenario* is made from one number: a table, lines, cuts, views, restarts (see `scenario.rs`). A *case* is one
//! query compared over one data set and one cut; a scenario has about a dozen.
//!
//! | variable | does |
//! |---|---|
//! | `LOGWEIR_SEED=n` | repeats one scenario |
//! | `LOGWEIR_CASES=n` | runs so many cases, however long it takes |
//! | `LOGWEIR_FIRST=n` | begins with this scenario instead of the first |
//! | `LOGWEIR_SURVEY=1` | goes on after failures, and shows them as they are |
//!
//! A failure is made as small as possible, printed with its seed, and kept in `tests/slt/kept/` as a file that
//! `tests/slt.rs` runs from then on. Whether the tests would notice is tested too: each fault of
//! `logweir::mutation` must be found.

mod data;
mod follower;
mod query;
mod scenario;
mod shrink;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use logweir::mutation::{MUTATIONS, Mutation, lower_limits, switch};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::lines;
use crate::local::{self, Local};
use scenario::{Failure, Property, Scenario};
pub use stage::cells;

/// Cases in an ordinary run, and how long they may take: a busy machine does fewer.
const CASES: usize = 3000;
const TIME: Duration = Duration::from_secs(240);

/// Sizes that only large data reaches are this small here.
const LIMIT: usize = 24;

/// Scenarios that once failed, by what they found; run each time.
const KEPT: &[(u64, &str)] =
    &[(82, "after a restart, who went on with a subscription was told that the stream was at offset 0")];

/// Within so many scenarios a fault must be found.
const PATIENCE_WITH_FAULTS: u64 = 60;

#[test]
fn random_views_equal_their_batch_queries() {
    let _turn = local::turn();
    lower_limits(Some(LIMIT));
    let begun = Instant::now();
    let mut hunt = Hunt { first: number("LOGWEIR_FIRST").unwrap_or(1), ..Hunt::default() };
    match number("LOGWEIR_SEED") {
        Some(seed) => hunt.over(vec![seed], 0, None),
        None => {
            let cases = number("LOGWEIR_CASES");
            let deadline = cases.is_none().then(|| begun + TIME);
            let kept = KEPT.iter().map(|(seed, _)| *seed).collect();
            hunt.over(kept, cases.map_or(CASES, |n| n as usize), deadline);
        }
    }
    // Written past the test runner's capture, so that it is seen when all is well.
    let line = format!(
        "oracle: {} cases in scenarios {}..{} in {:.0} s\n",
        hunt.cases,
        hunt.first,
        hunt.first + hunt.scenarios,
        begun.elapsed().as_secs_f64()
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    let text = match hunt.failed.len() {
        0 => None,
        failed if surveys() => Some(format!("{failed} scenarios failed")),
        _ => hunt.failed.into_iter().min_by_key(|(seed, ..)| *seed).map(|(seed, s, failure)| report(seed, &s, failure)),
    };
    lower_limits(None);
    if let Some::<String>(text) = text {
        panic!("{text}");
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().expect("a whole number"))
}

fn surveys() -> bool {
    number("LOGWEIR_SURVEY").is_some()
}

/// Makes a failure small and says all about it.
fn report(seed: u64, scenario: &Scenario, failure: Failure) -> String {
    let first = failure.text.clone();
    let (small, failure) = shrink::shrink(scenario, failure);
    let reproduction = small.reproduction(seed, &failure, Some(LIMIT));
    let path = kept().join(format!("seed_{seed}.slt"));
    let kept = match std::fs::create_dir_all(kept()).and_then(|()| std::fs::write(&path, &reproduction)) {
        Ok(()) => format!("kept as {}", path.display()),
        Err(err) => format!("not kept: {err}"),
    };
    format!("LOGWEIR_SEED={seed}\n{first}\n--- made as small as possible ({kept})\n{reproduction}")
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt/kept")
}

/// What running many scenarios gave.
#[derive(Default)]
struct Hunt {
    /// The first scenario's number.
    first: u64,
    cases: usize,
    scenarios: u64,
    failed: Vec<(u64, Scenario, Failure)>,
}

impl Hunt {
    /// Runs these scenarios and then others until there are enough cases, time is up or one fails. On two threads: an
    /// engine waits for its own threads much of the time.
    fn over(&mut self, seeds: Vec<u64>, cases: usize, deadline: Option<Instant>) {
        let (next, compared, stop) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let (failed, scenarios, first) = (Mutex::new(Vec::new()), AtomicU64::new(0), self.first);
        let late = || deadline.is_some_and(|deadline| Instant::now() > deadline);
        let work = || {
            while !stop.load(Ordering::SeqCst) {
                let n = next.fetch_add(1, Ordering::SeqCst);
                let seed = match seeds.get(n as usize) {
                    Some(seed) => *seed,
                    None if compared.load(Ordering::SeqCst) >= cases || late() => break,
                    None => n - seeds.len() as u64 + first,
                };
                let _named = Named(seed);
                let scenario = Scenario::random(seed);
                scenarios.fetch_add(1, Ordering::SeqCst);
                match stage::run(&scenario) {
                    Ok(n) => drop(compared.fetch_add(n, Ordering::SeqCst)),
                    Err(failure) => {
                        stop.store(!surveys(), Ordering::SeqCst);
                        if surveys() {
                            eprintln!("LOGWEIR_SEED={seed} {:?}\n{}\n", failure.property, failure.text);
                        }
                        failed.lock().expect("no panic holds it").push((seed, scenario, failure));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(work);
            }
        });
        self.cases += compared.into_inner();
        self.scenarios += scenarios.into_inner();
        self.failed.extend(failed.into_inner().expect("no panic holds it"));
    }
}

/// Says which scenario it was when a panic goes through.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the panic was in LOGWEIR_SEED={}", self.0);
        }
    }
}

/// Scenarios at one time.
const WORKERS: usize = 2;

/// The same against a server process that is killed where a scenario restarts.
#[test]
fn views_equal_their_batch_queries_after_kills() {
    for seed in 1..=SCENARIOS_WITH_KILLS {
        let scenario = Scenario::random(seed).with_restarts();
        if let Err(failure) = stage::run_on(&scenario, stage::Killed::start()) {
            panic!("LOGWEIR_SEED={seed}\n{}\n{}", failure.text, scenario.reproduction(seed, &failure, None));
        }
    }
}

/// Filling a view from what is there and taking in what comes are two threads at one rollup.
#[test]
fn views_made_while_rows_pour_in_count_each_row_once() {
    let _turn = local::turn();
    lower_limits(Some(LIMIT));
    let local = Local::start(data::START);
    let path = local.log("access.log");
    lines::append(&path, "");
    let create = format!(
        "CREATE TABLE s WITH (connector = 'file', path = '{}', block_bytes = '1 KiB', hot_bytes = '16 KiB', wal_sync = 'off')
         FORMAT COMBINED",
        path.display()
    );
    local.run(&create).expect("the file is there");
    let query = "SELECT client, count(*) AS n, sum(bytes) AS bytes FROM s GROUP BY client";
    let mut written = 0;
    for round in 0..ROUNDS {
        let text: String = (written..written + 500).map(lines::numbered).collect();
        written += 500;
        lines::append(&path, text);
        // Not flushed: most of these lines come while the views are filled.
        local.run(&format!("CREATE MATERIALIZED VIEW v{round} AS {query}")).expect("the query can be maintained");
        local
            .run(&format!("CREATE MATERIALIZED VIEW w{round} AS {query} HAVING count(*) > {round}"))
            .expect("so can this");
        local.run(&format!("CREATE MATERIALIZED VIEW x{round} AS {query}, status % {}", round + 1)).expect("and this");
    }
    local.run("FLUSH").expect("the stream goes on");
    for (view, round) in ["v", "w", "x"].into_iter().flat_map(|v| (0..ROUNDS).map(move |round| (v, round))) {
        let sql = format!("SELECT sum(n), sum(bytes) FROM {view}{round}");
        let (_, rows) = stage::Engine::query(&local, &sql).expect("the view is there");
        let wanted = [written, written * (written - 1) / 2].map(|n| Some(n.to_string()));
        assert_eq!(rows, [wanted], "{view}{round}");
    }
    lower_limits(None);
}

/// Enough for the threads to meet.
const ROUNDS: u64 = 12;

/// A process takes some tenths of a second to start.
const SCENARIOS_WITH_KILLS: u64 = 6;

/// A test that could not fail would prove nothing.
#[test]
fn every_fault_is_found() {
    let _turn = local::turn();
    lower_limits(Some(LIMIT));
    let mut missed = Vec::new();
    for mutation in MUTATIONS {
        let fault = Fault::switched_on(*mutation);
        let begun = Instant::now();
        let found =
            (1..=PATIENCE_WITH_FAULTS).find_map(|seed| Some((seed, stage::run_faulty(&Scenario::random(seed)).err()?)));
        drop(fault);
        match found {
            Some((seed, failure)) => {
                println!("{mutation:?}: {:?} in scenario {seed}, {:?}", failure.property, begun.elapsed());
                assert_ne!(failure.property, Property::Statement, "{}", failure.text);
                if let Err(failure) = stage::run(&Scenario::random(seed)) {
                    panic!("it fails without a fault too: {}", failure.text);
                }
            }
            None => missed.push(mutation),
        }
    }
    lower_limits(None);
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}

/// A fault that ends with this, also when a test fails: all engines of the process have it.
struct Fault;

impl Fault {
    fn switched_on(mutation: Mutation) -> Fault {
        switch(Some(mutation));
        Fault
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        switch(None);
    }
}

#[test]
fn a_failure_is_made_small() {
    let _turn = local::turn();
    let fault = Fault::switched_on(Mutation::FoldDropsLastRow);
    let found = (1..).find_map(|seed| Some((seed, stage::run(&Scenario::random(seed)).err()?)));
    let (seed, failure) = found.expect("there are enough numbers");
    let scenario = Scenario::random(seed);
    let (small, failure) = shrink::shrink(&scenario, failure);
    drop(fault);
    let text = small.reproduction(seed, &failure, None);
    assert!(small.lines().count() <= 2 && small.views.len() <= 1, "{text}");
    assert!(small.lines().count() < scenario.lines().count(), "{text}");
    assert!(text.contains(".push s.log\n") && text.contains(&format!("LOGWEIR_SEED={seed}")), "{text}");
    stage::run(&small).expect("without the fault it holds");
}

/// One time in `n`.
fn chance(random: &mut StdRng, n: u32) -> bool {
    random.random_range(0..n) == 0
}

/// One of the values.
fn pick<'a, T>(random: &mut StdRng, values: &'a [T]) -> &'a T {
    &values[random.random_range(0..values.len())]
}

/// One of the words.
fn word(random: &mut StdRng, words: &[&'static str]) -> &'static str {
    words[random.random_range(0..words.len())]
}

/// Some of the values, at least `least`, none twice.
fn some<'a, T>(random: &mut StdRng, values: &'a [T], least: usize, most: usize) -> Vec<&'a T> {
    let mut left: Vec<&T> = values.iter().collect();
    let count = random.random_range(least..=most.min(left.len()));
    (0..count).map(|_| left.swap_remove(random.random_range(0..left.len()))).collect()
}
