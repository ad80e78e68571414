//! Real clients of other languages, and what stands between clients and server: each runs a program of `tests/drivers/`
//! against a server with TLS and passwords, which connects, asks for what there is, gives parameters of all kinds, copies,
//! cancels and listens, and ends with an error where something is not as with PostgreSQL (the same programs pass there, but
//! for `wire.py`).
//!
//! A program says what it has seen to work, and so makes its row of README's table of clients: the test fails where README
//! says something else. `LOGWEIR_WRITE_README=1` writes the rows.
//!
//! `.ci/run` puts the clients into `~/.cache/logweir/clients` (`LOGWEIR_CLIENTS` names another folder). A client that is not
//! there is skipped with a note.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::security::Certificates;
use crate::server::{Client, Server};
use crate::sinks::postgres::Postgres;

/// The role that the programs log in as.
const ROLE: (&str, &str) = ("tester", "secret");

/// Columns of README's table, as the programs name them.
const COLUMNS: &[&str] = &["connect", "introspect", "parameters", "binary", "COPY", "cancel", "LISTEN"];

/// The program of the repository.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(name)
}

/// The client's file, or a note that it is not there.
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

/// Whether this command says that it is there, or a note that it is not.
fn answers(command: &mut Command) -> bool {
    let there = command.output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("note: skipped, no answer from {command:?}");
    }
    there
}

/// A server with a stream, a view over it and a materialized view, an administrator, and TLS.
struct Peer {
    server: Server,
    client: Client,
    authority: String,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// `None`, with a note, where there is no openssl.
    fn start() -> Option<Peer> {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let made = Certificates::make(folder.path())?;
        // A PostgreSQL that is a client runs as somebody else.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("it is ours");
        let mut server = Server::prepare();
        server.use_arguments(&["--tls-cert", &made.path("server.pem"), "--tls-key", &made.path("server.key")]);
        server.again();
        let client = server.client();
        schema(&client);
        client.run(&format!("CREATE ROLE {} ADMIN LOGIN PASSWORD '{}'", ROLE.0, ROLE.1));
        Some(Peer { server, client, authority: made.path("ca.pem"), _folder: folder })
    }
}

fn schema(client: &Client) {
    client.run(
        "CREATE TABLE events (ts timestamptz, path text, n bigint, WATERMARK FOR ts AS ts);
         CREATE VIEW plain AS SELECT path, n FROM events WHERE n > 1;
         CREATE MATERIALIZED VIEW per_path AS SELECT path, sum(n) AS total FROM events GROUP BY path;
         INSERT INTO events VALUES ('2026-01-01 00:00:00+00', '/a', 1), ('2026-01-01 00:00:01+00', '/b', 2),
                                   ('2026-01-01 00:00:02+00', '/b', 3)",
    );
}

/// Runs a program against a server of its own; compares what it says with README.
fn check(command: Command) {
    check_with(command, &[]);
}

fn check_with(mut command: Command, arguments: &[&str]) {
    let Some(mut peer) = Peer::start() else { return };
    let address = peer.server.postgres();
    let port = address.rsplit(':').next().expect("an address has a port");
    command.args(["localhost", port, "binary"]).args(arguments);
    command.env("PGPASSWORD", ROLE.1).env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &peer.authority);
    let said = run(command);
    assert!(peer.client.alive());
    compare(&said);
}

/// What a program printed; it must have ended well.
fn run(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim_end().ends_with(" ok"), "{out}\n{err}");
    println!("{}", out.trim_end());
    out.into_owned()
}

/// One test at a time writes README.
static README: Mutex<()> = Mutex::new(());

/// Finds the row of README's table that is about this client, and fails where it says something else. Another version is
/// only told.
fn compare(said: &str) {
    let mut cells = [""; COLUMNS.len()];
    for (column, what) in said.lines().filter_map(|line| line.split_once(": ")) {
        if let Some(at) = COLUMNS.iter().position(|known| *known == column) {
            cells[at] = what;
        }
    }
    let last = said.trim_end().lines().last().unwrap_or_default().trim_end_matches(" ok");
    let (name, version) = last.rsplit_once(' ').expect("a name and a version");
    let version: Vec<&str> = version.split('.').take(2).collect();
    let (version, rest) =
        (version.join("."), format!(" | {} |", cells.join(" | ")).replace("|  |", "| |").replace("|  |", "| |"));

    let _turn = README.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).expect("the repository has a README");
    let begins = format!("| {name} ");
    let is_its = |line: &&str| {
        let version = line.strip_prefix(&begins).and_then(|rest| rest.split_once(" |"));
        version.is_some_and(|(version, _)| version.starts_with(|c: char| c.is_ascii_digit()))
    };
    let (row, there) = (format!("{begins}{version}{rest}"), text.lines().find(is_its));
    if std::env::var_os("LOGWEIR_WRITE_README").is_some() && there != Some(row.as_str()) {
        let now = match there {
            Some(there) => text.replace(there, &row),
            None => {
                let last = text
                    .lines()
                    .skip_while(|line| !line.starts_with("| client | connect"))
                    .take_while(|line| line.starts_with('|'))
                    .last();
                let last = last.expect("README has the table of clients");
                text.replacen(last, &format!("{last}\n{row}"), 1)
            }
        };
        return std::fs::write(path, now).expect("the repository is writable");
    }
    let there = there.unwrap_or_else(|| panic!("README's table of clients has no row of {name}: {row}"));
    assert!(
        there.ends_with(&rest),
        "README's table of clients is old; LOGWEIR_WRITE_README=1 writes it:\n{there}\n{row}"
    );
    if there != row {
        eprintln!("note: README's table of clients was made with another version of {name} than {version}");
    }
}

fn python(name: &str, module: &str, arguments: &[&str]) {
    let Some(python) = installed("venv/bin/python") else { return };
    if answers(Command::new(&python).args(["-c", &format!("import {module}")])) {
        let mut command = Command::new(python);
        command.arg(program(name));
        check_with(command, arguments);
    }
}

fn node(name: &str, module: &str) {
    let Some(modules) = installed("node_modules").filter(|_| installed(&format!("node_modules/{module}")).is_some())
    else {
        return;
    };
    let mut command = Command::new("node");
    command.arg(program(name)).env("NODE_PATH", modules);
    check(command);
}

#[test]
fn psql() {
    if answers(Command::new("psql").arg("--version")) {
        python("psql_client.py", "pexpect", &[]);
    }
}

#[test]
fn psycopg() {
    python("psycopg3.py", "psycopg", &[]);
}

#[test]
fn psycopg2() {
    python("psycopg2_client.py", "psycopg2", &[]);
}

#[test]
fn pg8000() {
    python("pg8000_client.py", "pg8000", &[]);
}

#[test]
fn asyncpg() {
    python("asyncpg_client.py", "asyncpg", &[]);
}

#[test]
fn sqlalchemy() {
    python("sqlalchemy_client.py", "sqlalchemy, psycopg", &[]);
}

#[test]
fn psqlodbc() {
    if answers(Command::new("odbcinst").args(["-q", "-d", "-n", "PostgreSQL Unicode"])) {
        python("psqlodbc.py", "pyodbc", &[]);
    }
}

#[test]
fn adbc() {
    python("adbc.py", "adbc_driver_postgresql, pyarrow", &[]);
}

#[test]
fn duckdb() {
    python("duckdb_client.py", "duckdb", &[]);
}

#[test]
fn pgcli() {
    python("pgcli_client.py", "pgcli, pexpect", &[]);
}

#[test]
fn pgbouncer() {
    if answers(Command::new("/usr/sbin/pgbouncer").arg("--version")) {
        python("poolers.py", "psycopg", &["PgBouncer, transactions"]);
        python("poolers.py", "psycopg", &["PgBouncer, sessions"]);
    }
}

#[test]
fn haproxy() {
    if answers(Command::new("/usr/sbin/haproxy").arg("-v")) {
        python("poolers.py", "psycopg", &["HAProxy"]);
    }
}

#[test]
fn pgpool() {
    if answers(Command::new("/usr/sbin/pgpool").arg("--version")) {
        python("poolers.py", "psycopg", &["Pgpool-II"]);
    }
}

#[test]
fn postgres_fdw() {
    let Some(local) = Postgres::start() else { return };
    python("postgres_fdw.py", "psycopg", &[&local.port.to_string()]);
}

/// With TLS, and without it and passwords.
#[test]
fn libpq_at_the_start_of_a_connection() {
    let Some(python) = installed("venv/bin/python") else { return };
    let mut clear = Server::start();
    schema(&clear.client());
    let address = clear.postgres();
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let mut command = Command::new(&python);
    command.arg(program("wire.py")).args([host, port]);
    run(command);
    self::python("wire.py", "psycopg", &[]);
}

#[test]
fn node_postgres() {
    node("node_postgres.js", "pg");
}

#[test]
fn postgres_js() {
    node("postgres_js.js", "postgres");
}

#[test]
fn knex() {
    node("knex_client.js", "knex");
}

#[test]
fn typeorm() {
    node("typeorm_client.js", "typeorm");
}

#[test]
fn jdbc() {
    let Some(jar) = installed("postgresql-42.7.7.jar") else { return };
    let mut command = Command::new("java");
    command.arg("-cp").arg(jar).arg(program("Jdbc.java"));
    check(command);
}

#[test]
fn pgx() {
    if let Some(pgx) = installed("pgx") {
        check(Command::new(pgx));
    }
}

#[test]
fn pq() {
    if let Some(pq) = installed("pq") {
        check(Command::new(pq));
    }
}

#[test]
fn ruby() {
    if answers(Command::new("ruby").args(["-e", "require 'pg'"])) {
        let mut command = Command::new("ruby");
        command.arg(program("ruby_pg.rb"));
        check(command);
    }
}

#[test]
fn php() {
    if answers(
        Command::new("php").args(["-r", "exit(extension_loaded('pdo_pgsql') && extension_loaded('pgsql') ? 0 : 1);"]),
    ) {
        let mut command = Command::new("php");
        command.arg(program("php_pdo.php"));
        check(command);
    }
}

#[test]
fn perl() {
    if answers(Command::new("perl").arg("-MDBD::Pg").args(["-e", "1"])) {
        let mut command = Command::new("perl");
        command.arg(program("dbd_pg.pl"));
        check(command);
    }
}

/// Applications too large for `.ci/run`; `tests/drivers/heavy` installs them and runs these.
mod heavy {
    use super::*;

    fn own_python(folder: &str, name: &str) {
        let Some(python) = installed(&format!("{folder}/bin/python")) else { return };
        let mut command = Command::new(python);
        command.arg(program(name));
        check(command);
    }

    #[test]
    #[ignore = "large: see tests/drivers/heavy"]
    fn superset() {
        own_python("superset", "superset_client.py");
    }

    #[test]
    #[ignore = "large: see tests/drivers/heavy"]
    fn pgadmin() {
        own_python("pgadmin", "pgadmin_client.py");
    }

    #[test]
    #[ignore = "large: see tests/drivers/heavy"]
    fn libreoffice() {
        if answers(Command::new("/usr/bin/python3").args(["-c", "import uno"])) {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(program("libreoffice_base.py"));
            check(command);
        }
    }

    #[test]
    #[ignore = "large: see tests/drivers/heavy"]
    fn r() {
        if answers(Command::new("Rscript").args(["-e", "library(RPostgreSQL)"])) {
            let mut command = Command::new("Rscript");
            command.arg(program("rpostgresql.R"));
            check(command);
        }
    }

    #[test]
    #[ignore = "large: see tests/drivers/heavy"]
    fn prisma() {
        let Some(modules) = installed("prisma/node_modules") else { return };
        let mut command = Command::new("node");
        command.arg(program("prisma_client.js")).env("NODE_PATH", modules);
        check(command);
    }
}
