//! One SQL, two speeds: a materialized view gives the rows that its own query gives when run as a batch, whether the
//! view was there before the data (streamed) or made afterwards (backfilled).

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compare::{Tolerance, difference};
use crate::lines;
use crate::server::{Client, LOGWEIR, Server, data};

/// A ready-made continuous query.
struct Ready {
    name: String,
    create: String,
    select: String,
    /// Largest difference allowed between two numbers, relative. Not zero where the file says that it estimates: a
    /// t-digest depends on the order of merging.
    tolerance: f64,
}

/// All files of `queries/`.
fn ready_made() -> Vec<Ready> {
    let read = |path: &PathBuf| {
        let create = std::fs::read_to_string(path).expect("the file is readable");
        let (head, select) = create.split_once(" AS\n").expect("CREATE MATERIALIZED VIEW name AS, then the query");
        let name = head.split_whitespace().last().expect("a view has a name").to_string();
        assert_eq!(path.file_stem().and_then(|s| s.to_str()), Some(name.as_str()), "a file is named as its view");
        let tolerance = if create.contains("t-digest") { 0.01 } else { 0.0 };
        let select = select.trim().trim_end_matches(';').to_string();
        Ready { name, select, create, tolerance }
    };
    crate::tidy::queries().iter().map(read).collect()
}

/// An access log and an error log of the same time.
struct Logs {
    access: PathBuf,
    errors: PathBuf,
}

/// Real access logs beside a generated error log; and two generated logs that belong together.
fn all_logs(folder: &Path) -> Vec<(&'static str, Logs)> {
    let (access, errors) = (folder.join("generated.access"), folder.join("generated.errors"));
    let status = Command::new(LOGWEIR)
        .args(["gen", "access", "--seed", "7", "--count", "60000", "--event-rate", "20", "--output"])
        .arg(&access)
        .arg("--errors")
        .arg(&errors)
        .status()
        .expect("the binary was built");
    assert!(status.success());
    let mut all = Vec::new();
    if let Some(data) = data() {
        for name in ["apache_combined_10k.log", "nginx_combined_fragments.log"] {
            all.push((name, Logs { access: data.join("access").join(name), errors: errors.clone() }));
        }
    }
    all.push(("generated", Logs { access, errors }));
    all
}

#[test]
fn every_ready_made_query_streamed_and_backfilled() {
    let queries = ready_made();
    assert!(queries.len() >= 10);
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let mut rows_seen = vec![0; queries.len()];
    for (name, logs) in all_logs(folder.path()) {
        let mut server = Server::start();
        let client = server.client();
        for (stream, format) in [("access", "COMBINED"), ("errors", "APACHE_ERROR")] {
            client.run(&format!(
                "CREATE TABLE {stream} WITH (connector = 'file', path = '{}') FORMAT {format}",
                server.log(&format!("{stream}*.log")).display()
            ));
        }
        queries.iter().for_each(|query| client.run(&query.create));
        feed(&client, &logs.access, &server.log("access.log"));
        feed(&client, &logs.errors, &server.log("errors.log"));
        client.run("FLUSH");
        for (query, seen) in queries.iter().zip(&mut rows_seen) {
            let (view, batch) = (format!("SELECT * FROM {}", query.name), &query.select);
            *seen += same(&client, &format!("{name}, streamed"), &view, batch, query.tolerance);
            // Made anew on the rows that are there.
            let drop = format!("DROP MATERIALIZED VIEW {}; ", query.name);
            client.run(&drop);
            client.run(&query.create);
            same(&client, &format!("{name}, backfilled"), &view, batch, query.tolerance);
        }
    }
    let silent: Vec<&str> =
        queries.iter().zip(&rows_seen).filter(|(_, n)| **n == 0).map(|(q, _)| q.name.as_str()).collect();
    assert!(silent.is_empty(), "no log here makes these queries give a row: {silent:?}");
}

#[test]
fn hops_of_a_second_over_five_minutes() {
    let Some(data) = data() else { return };
    let files = [
        ("apache_combined_10k.log", "COMBINED"),
        ("nginx_combined_fragments.log", "COMBINED"),
        ("nasa_common_2k.log", "COMMON"),
    ];
    for (name, format) in files {
        let mut server = Server::start();
        let client = server.client();
        let query = "SELECT window_start, window_end, path, count(*) AS n, sum(bytes) AS bytes
                     FROM HOP(access, ts, INTERVAL '1 second', INTERVAL '5 minutes')
                     GROUP BY window_start, window_end, path";
        client.run(&format!(
            "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT {format};
             CREATE MATERIALIZED VIEW streamed AS {query};",
            server.log("*.log").display()
        ));
        feed(&client, &data.join("access").join(name), &server.log("access.log"));
        client.run(&format!("FLUSH; CREATE MATERIALIZED VIEW backfilled AS {query}"));
        let batch = fingerprints(&client, query);
        assert!(batch.len() > 100_000, "{name}: {} rows", batch.len());
        for view in ["streamed", "backfilled"] {
            let rows = fingerprints(&client, &format!("SELECT * FROM {view}"));
            assert_eq!(rows.len(), batch.len(), "{name}, {view}: number of rows");
            assert!(rows == batch, "{name}, {view}: other rows than the batch");
        }
        // A narrow read of the view, which prunes panes, against the batch.
        let narrow = "WHERE window_start >= (SELECT min(ts) + INTERVAL '1 hour' FROM access)
                      AND window_start < (SELECT min(ts) + INTERVAL '1 hour 10 minutes' FROM access)";
        let (view, batch) =
            (format!("SELECT * FROM streamed {narrow}"), format!("SELECT * FROM ({query}) AS b {narrow}"));
        same(&client, name, &view, &batch, 0.0);
    }
}

/// Appends a file to another: each half in two parts cut inside a line, and a FLUSH between the halves, so that
/// micro-batches end in many places.
fn feed(client: &Client, from: &Path, to: &Path) {
    let bytes = std::fs::read(from).expect("the log was found before");
    let line_end = |at: usize| bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n + 1);
    let (first, second) = bytes.split_at(line_end(bytes.len() / 2));
    for (i, half) in [first, second].into_iter().enumerate() {
        let (start, rest) = half.split_at(half.len() / 3);
        lines::append(to, start);
        lines::append(to, rest);
        if i == 0 {
            client.run("FLUSH");
        }
    }
}

/// Fails unless two queries give the same rows in any order; returns their number.
#[track_caller]
pub fn same(client: &Client, what: &str, view: &str, batch: &str, tolerance: f64) -> usize {
    let (got, wanted) = (client.rows(view), client.rows(batch));
    let number = wanted.len();
    if let Some(difference) = difference(got, wanted, &[Tolerance::ByLook(tolerance)]) {
        panic!("{what}: the view differs from its query run as a batch\n{difference}view:  {view}\nbatch: {batch}");
    }
    number
}

/// A sorted hash of each row: for results too large to hold as text.
fn fingerprints(client: &Client, sql: &str) -> Vec<u64> {
    let (mut hashes, mut row) = (Vec::new(), Vec::new());
    client.copy_out(sql, |bytes| {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            row.extend_from_slice(piece);
            if row.ends_with(b"\n") {
                let mut hasher = DefaultHasher::new();
                hasher.write(&row);
                hashes.push(hasher.finish());
                row.clear();
            }
        }
    });
    hashes.sort_unstable();
    hashes
}
