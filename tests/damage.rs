//! What somebody, or a failing disk, has changed in the data directory is told when the server starts: what it is, what is
//! intact, and how to go on. Never a wrong answer, never a panic. (`crash/machine.rs` flips bits at random; here are the
//! cases of which the very words matter.)

use std::path::{Path, PathBuf};

use crate::lines;
use crate::local::{self, Local};
use crate::oracle::cells;

/// 2026-01-01 00:02.
const NOW: i64 = (lines::START + 120) * 1_000_000;

/// Two streams of which the first has an archive, a view, and a reference table; all in a checkpoint.
fn filled() -> Local {
    let mut local = Local::start(NOW);
    for (name, options) in [("a", ""), ("b", ", archive = 'off'")] {
        let path = local.log(&format!("{name}.json"));
        let rows: String = (0..20).map(|n| format!("{{\"ts\":\"2026-01-01T00:00:{n:02}Z\",\"n\":{n}}}\n")).collect();
        lines::append(&path, rows);
        run(
            &local,
            &format!(
                "CREATE TABLE {name} (*) WITH (connector = 'file', path = '{}'{options}) FORMAT JSON (time_field = 'ts')",
                path.display()
            ),
        );
        run(&local, "FLUSH");
    }
    run(&local, "CREATE TABLE names AS VALUES (1, 'one'), (2, 'two')");
    run(&local, "CREATE MATERIALIZED VIEW sums AS SELECT n % 2 AS odd, sum(n) AS s FROM a GROUP BY 1");
    run(&local, "CREATE VIEW plain AS SELECT * FROM sums");
    local.archive();
    local.stop();
    local
}

fn run(local: &Local, sql: &str) {
    local.run(sql).unwrap_or_else(|err| panic!("{sql}: {err:#?}"));
}

fn one(local: &Local, sql: &str) -> String {
    let answer = local.query(sql).unwrap_or_else(|err| panic!("{sql}: {err:#?}"));
    let rows = cells(&answer.expect("a query has rows").batches);
    rows.first().and_then(|row| row[0].clone()).unwrap_or_default()
}

/// Changes the file at `path`.
fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    std::fs::write(path, change(String::from_utf8(text).expect("it is text"))).expect("it can be written");
}

/// The newest commit of an archive.
fn newest_commit(local: &Local, table: &str) -> PathBuf {
    let log = local.data_dir().join("archive").join(table).join("_delta_log");
    let entries = std::fs::read_dir(log).expect("it has an archive");
    let commits = entries.map(|entry| entry.expect("it can be listed").path());
    commits.filter(|path| path.extension().is_some_and(|e| e == "json")).max().expect("it has commits")
}

/// Starts, which fails with all of these texts.
fn refuses(local: &mut Local, texts: &[&str]) {
    let err = local.try_open().expect_err("it must not start");
    let all = format!("{} {} {}", err.message(), err.detail().unwrap_or(""), err.hint().unwrap_or(""));
    for text in texts {
        assert!(all.contains(text), "no {text:?} in {err:#?}");
    }
}

#[test]
fn a_damaged_catalog_gives_way_to_the_one_before_it() {
    let _turn = local::turn();
    let mut local = filled();
    let path = local.data_dir().join("catalog.json");
    let good = std::fs::read(&path).expect("it is there");
    edit(&path, |text| text.replace("plain", "plaim"));
    local.expect_log("the catalog's last change may be missing");
    local.open();
    assert!(local.run("SELECT * FROM plain").is_err(), "the last change is missing");
    assert_eq!(one(&local, "SELECT s FROM sums WHERE odd = 0"), "90");
    assert_eq!(one(&local, "SELECT count(*) FROM b"), "20");
    local.stop();
    // As the hint says.
    edit(&local.data_dir().join("catalog.json.damaged"), |text| text.replace("plaim", "plain"));
    let mended = std::fs::read_to_string(local.data_dir().join("catalog.json.damaged")).expect("it is there");
    let (json, _) = mended.trim_end().rsplit_once('\n').expect("it has a last line");
    std::fs::write(&path, json).expect("it can be written");
    local.open();
    assert_eq!(one(&local, "SELECT s FROM plain WHERE odd = 1"), "100");
    local.stop();
    std::fs::write(&path, good).expect("it can be written");
    local.open();
    local.stop();
}

#[test]
fn what_was_dropped_last_does_not_stand_in_the_way() {
    let _turn = local::turn();
    let mut local = filled();
    local.open();
    run(&local, "DROP TABLE a CASCADE");
    local.stop();
    edit(&local.data_dir().join("catalog.json"), |text| text.replace("\"b\"", "\"c\""));
    local.expect_log("the catalog's last change may be missing");
    local.expect_log("these were dropped by the change that is missing");
    local.open();
    assert!(local.run("SELECT * FROM a").is_err());
    assert_eq!(one(&local, "SELECT count(*) FROM b"), "20");
    local.stop();
}

/// A source has no folder that would tell its id, but its positions are in the log of its stream.
#[test]
fn the_id_of_a_source_that_the_catalog_has_lost_is_not_given_again() {
    let _turn = local::turn();
    let mut local = filled();
    local.open();
    let more = local.log("more.json");
    lines::append(&more, "{\"ts\":\"2026-01-01T00:00:30Z\",\"n\":30}\n");
    let create =
        |name: &str| format!("CREATE SOURCE {name} INTO b WITH (connector = 'file', path = '{}')", more.display());
    run(&local, &create("lost"));
    run(&local, "FLUSH");
    let id = |local: &Local, name: &str| -> u64 {
        let catalog = std::fs::read(local.data_dir().join("catalog.json")).expect("it is there");
        let mut values = serde_json::Deserializer::from_slice(&catalog).into_iter::<serde_json::Value>();
        let catalog = values.next().expect("it is JSON").expect("it is JSON");
        let objects = catalog["objects"].as_array().expect("it has objects");
        let object = objects.iter().find(|object| object["name"] == name).expect("it is one of them");
        object["id"].as_u64().expect("it has an id")
    };
    let lost = id(&local, "lost");
    local.stop();
    edit(&local.data_dir().join("catalog.json"), |text| text.replace("lost", "last"));
    local.expect_log("the catalog's last change may be missing");
    local.expect_log("a source that the catalog does not know has fed this stream");
    local.open();
    assert_eq!(one(&local, "SELECT count(*) FROM b"), "21");
    run(&local, &create("again"));
    run(&local, "FLUSH");
    assert!(id(&local, "again") > lost, "{} and {lost}", id(&local, "again"));
    assert_eq!(one(&local, "SELECT count(*) FROM b"), "22", "another source begins at the beginning");
    local.stop();
}

#[test]
fn without_any_whole_catalog_it_says_what_to_do() {
    let _turn = local::turn();
    let mut local = filled();
    for name in ["catalog.json", "catalog.json.1"] {
        edit(&local.data_dir().join(name), |text| text.replacen("objects", "objekts", 1));
    }
    refuses(&mut local, &["catalog.json", "checksum", "rows of streams are intact", "backup"]);
}

#[test]
fn an_archive_that_does_not_fit_the_checkpoint_is_told() {
    let _turn = local::turn();
    let mut local = filled();
    let commit = newest_commit(&local, "a");
    let good = std::fs::read_to_string(&commit).expect("it is there");
    // The number of rows, which count(*) is answered from.
    edit(&commit, |text| text.replace("\\\"numRecords\\\":20", "\\\"numRecords\\\":29"));
    assert_ne!(std::fs::read_to_string(&commit).expect("it is there"), good);
    refuses(&mut local, &["archive of \"a\" is damaged", "29 rows", "20 rows, up to offset 20", "_delta_log"]);
    // The offset up to which it goes.
    std::fs::write(&commit, good.replace("\"version\":20", "\"version\":10")).expect("it can be written");
    refuses(&mut local, &["archive of stream \"a\"", "rows up to offset 20", "goes up to 10"]);
    std::fs::write(&commit, &good).expect("it can be written");
    local.open();
    assert_eq!(one(&local, "SELECT count(*) FROM a"), "20");
    local.stop();
}

#[test]
fn an_archive_that_was_put_back_takes_what_it_lacks_from_the_log() {
    let _turn = local::turn();
    let mut local = filled();
    for table in ["a", "a__malformed"] {
        std::fs::remove_dir_all(local.data_dir().join("archive").join(table)).expect("it has an archive");
    }
    local.expect_log("the archive is an older version than it was");
    local.open();
    assert_eq!(one(&local, "SELECT count(*) FROM a"), "20");
    local.archive();
    assert_eq!(one(&local, "SELECT archived_rows FROM logweir.streams WHERE name = 'a'"), "20");
    local.stop();
}

#[test]
fn a_damaged_table_says_which_and_what_to_do() {
    let _turn = local::turn();
    let mut local = filled();
    let tables = local.data_dir().join("tables");
    let folder =
        std::fs::read_dir(&tables).expect("there is one").next().expect("there is one").expect("it can be listed");
    let path = folder.path().join("1.table");
    let mut bytes = std::fs::read(&path).expect("it is there");
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).expect("it can be written");
    refuses(&mut local, &["names", "1.table", "checksum", "Restore"]);
}
