//! Real drivers of other languages: each runs a program of `tests/drivers/` against a server, which connects, asks for what
//! there is, gives parameters of all kinds, copies, cancels and listens, and ends with an error where something is not as
//! with PostgreSQL (the same programs pass there).
//!
//! `.ci/run` puts the drivers into `~/.cache/logweir/clients` (`LOGWEIR_CLIENTS` names another folder). A driver that is not
//! there is skipped with a note.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::Server;

/// The program of the repository.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(name)
}

/// The driver's file, or a note that it is not there.
fn installed(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("LOGWEIR_CLIENTS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/logweir/clients"),
    };
    let file = folder.join(name);
    if !file.exists() {
        eprintln!("note: skipped, there is no {}", file.display());
        return None;
    }
    Some(file)
}

/// Runs a program against a server with a stream, a view over it and a materialized view.
fn check(mut command: Command) {
    let mut server = Server::start();
    let client = server.client();
    client.run(
        "CREATE TABLE events (ts timestamptz, path text, n bigint, WATERMARK FOR ts AS ts);
         CREATE VIEW plain AS SELECT path, n FROM events WHERE n > 1;
         CREATE MATERIALIZED VIEW per_path AS SELECT path, sum(n) AS total FROM events GROUP BY path;
         INSERT INTO events VALUES ('2026-01-01 00:00:00+00', '/a', 1), ('2026-01-01 00:00:01+00', '/b', 2),
                                   ('2026-01-01 00:00:02+00', '/b', 3)",
    );
    let address = server.postgres();
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let output = command.args([host, port, "binary"]).output().expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim_end().ends_with(" ok"), "{out}\n{err}");
    println!("{}", out.trim_end());
    assert!(client.alive());
}

fn python(name: &str) {
    let Some(python) = installed("venv/bin/python") else { return };
    let mut command = Command::new(python);
    command.arg(program(name));
    check(command);
}

#[test]
fn psycopg() {
    python("psycopg3.py");
}

#[test]
fn asyncpg() {
    python("asyncpg_client.py");
}

#[test]
fn sqlalchemy() {
    python("sqlalchemy_client.py");
}

#[test]
fn node_postgres() {
    let Some(modules) = installed("node_modules/pg").and_then(|pg| pg.parent().map(Path::to_path_buf)) else { return };
    let mut command = Command::new("node");
    command.arg(program("node_postgres.js")).env("NODE_PATH", modules);
    check(command);
}

#[test]
fn jdbc() {
    let Some(jar) = installed("postgresql-42.7.7.jar") else { return };
    let mut command = Command::new("java");
    command.arg("-cp").arg(jar).arg(program("Jdbc.java"));
    check(command);
}
