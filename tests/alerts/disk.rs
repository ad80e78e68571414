//! Alerts on a disk that is full.

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use logweir::config::Config;
use logweir::engine::Engine;
use logweir::error::Result;
use logweir::sql::{self, Session};
use logweir::storage::faulty_fs::{Faults, FaultyFs};
use logweir::time::{Clock, MICROS_PER_SECOND};

use super::{PATIENCE, until};
use crate::lines::START;
use crate::local::{self, Gone, compute};
use crate::oracle::cells;
use crate::server::Row;

fn rows(engine: &Arc<Engine>, sql: &str) -> Result<Vec<Row>> {
    let (session, sql) = (Session::new(Arc::clone(engine)), sql.to_string());
    let answer = block_on(compute().spawn(async move {
        let done = tokio::time::timeout(PATIENCE, local::query(&session, &sql)).await;
        done.unwrap_or_else(|_| panic!("it hangs: {sql}"))
    }))??;
    Ok(answer.map_or_else(Vec::new, |answer| cells(&answer.batches)))
}

/// Either all goes or nothing: what cannot be written down did not happen.
#[test]
fn an_alert_that_cannot_be_dropped_goes_on() {
    let _turn = local::turn();
    local::collect_logs();
    let home = tempfile::tempdir_in(local::in_memory()).expect("a temporary directory can be made");
    let (fs, clock) = (FaultyFs::new(1), Clock::manual(START * MICROS_PER_SECOND));
    let config = Config {
        data_dir: Some(home.path().join("data")),
        checkpoint_interval: Duration::from_secs(3600),
        ..Config::default()
    };
    let opening = compute().spawn(sql::open_on(Arc::new(fs.clone()), config, clock));
    let engine = block_on(opening).expect("opening does not panic").expect("the disk is fine");
    let run = |sql: &str| rows(&engine, sql).unwrap_or_else(|err| panic!("{err:#?}\nin: {sql}"));
    run("CREATE TABLE web (ts timestamptz, n int, WATERMARK FOR ts AS ts) WITH (archive = 'off')");
    run("CREATE ALERT a ON web WHERE n > 5");
    run("CREATE ALERT b ON web WHERE n > 5");
    fs.faults(|faults| *faults = Faults { capacity: Some(0), ..Faults::default() });
    for alert in ["a", "b"] {
        assert!(rows(&engine, &format!("DROP ALERT {alert}")).is_err());
    }
    fs.faults(|faults| *faults = Faults::default());
    // It takes a moment until it is noticed that there is room again.
    until("a row to be taken", || rows(&engine, "INSERT INTO web VALUES ('2026-01-01T00:00:01Z', 9)").ok());
    let firing = "SELECT name FROM logweir.alerts WHERE state = 'firing' ORDER BY name";
    until("both to fire", || (run(firing).len() == 2).then_some(()));
    run("DROP ALERT a, b");
    assert_eq!(run("SELECT name FROM logweir.alerts").len(), 0);
    let gone = Gone::of(&engine);
    block_on(compute().spawn(async move { engine.shutdown().await })).expect("stopping does not panic");
    gone.wait();
    local::take_logged();
}
