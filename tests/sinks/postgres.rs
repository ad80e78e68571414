//! A real PostgreSQL, if its programs are on this machine.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::until;
use crate::server::{Client, signal, wait};

/// The role that sinks use. It needs its password; the tests' own role does not.
pub const ROLE: (&str, &str) = ("writer", "hunter2");

/// A server with a database of its own.
pub struct Postgres {
    programs: PathBuf,
    home: TempDir,
    pub port: u16,
    process: Option<Child>,
}

/// Where the programs are: in the search path, or where Debian puts them.
fn programs() -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    folders.extend(std::env::split_paths(&search));
    folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

impl Postgres {
    /// `None`, with a note, when there is none on this machine.
    pub fn start() -> Option<Postgres> {
        let Some(programs) = programs() else {
            eprintln!("note: skipped, no PostgreSQL on this machine (initdb, postgres)");
            return None;
        };
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let mut postgres = Postgres { programs, home, port, process: None };
        let data = postgres.data();
        std::fs::create_dir(&data).expect("it is new");
        if is_root() {
            use std::os::unix::fs::PermissionsExt;
            std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).expect("root may");
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(postgres.home.path(), open).expect("it is ours");
        }
        let made = postgres.command("initdb").args(["-A", "trust", "-U", "logweir", "--no-sync"]).output();
        let made = made.expect("initdb is there");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let rules = data.join("pg_hba.conf");
        let others = std::fs::read_to_string(&rules).expect("initdb made it");
        std::fs::write(&rules, format!("host all {} all scram-sha-256\n{others}", ROLE.0)).expect("it is there");
        postgres.again();
        let client = Client::connect_to(&postgres.address(), "postgres");
        client.run("CREATE DATABASE logweir");
        let client = postgres.client();
        client.run(&format!("CREATE ROLE {} LOGIN PASSWORD '{}'", ROLE.0, ROLE.1));
        client.run(&format!("GRANT ALL ON SCHEMA public TO {}", ROLE.0));
        Some(postgres)
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// PostgreSQL does not run as root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.arg("-D").arg(self.data()).current_dir("/").stdin(Stdio::null());
        // What connects from there looks for certificates in it.
        command.env("HOME", self.data());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As the tests' own role, who may do all.
    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    pub fn again(&mut self) {
        let port = self.port.to_string();
        let mut command = self.command("postgres");
        command.args(["-h", "127.0.0.1", "-p", &port, "-c", "unix_socket_directories=", "-c", "fsync=off"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(child.expect("postgres is there"));
        let address = self.address();
        until("PostgreSQL to accept connections", || Client::try_connect(&address, "postgres").is_some());
    }

    /// At once, as for a shutdown of the machine: connections break.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(&process, libc::SIGQUIT);
            wait(&mut process);
        }
    }

    /// The options with which a sink finds it.
    pub fn options(&self) -> String {
        let (user, password) = ROLE;
        format!(
            "connector = 'postgres', host = '127.0.0.1', port = {}, dbname = 'logweir', user = '{user}', password = '{password}'",
            self.port
        )
    }

    pub fn folder(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: it reads an id of this process.
    unsafe { libc::geteuid() == 0 }
}
