//! The command line: which command, with which settings? Each command is one file with its arguments and `run`.

pub mod demo;
pub mod r#gen;
pub mod import;
pub mod queries;
pub mod query;
pub mod serve;

use std::io::IsTerminal;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// Streaming log analytics in one binary: logs in, SQL out.
///
/// Point it at log files, register continuous SQL window queries, and read live counts and error rates with psql or any
/// Postgres client.
#[derive(Debug, Parser)]
#[command(name = "logweir", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Demo(demo::DemoArgs),
    Query(query::QueryArgs),
    Import(import::ImportArgs),
    Gen(r#gen::GenArgs),
}

/// Runs the command given on the command line and returns the exit code.
pub fn main() -> i32 {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Demo(args) => demo::run(args),
        Command::Query(args) => query::run(args),
        Command::Import(args) => import::run(args),
        Command::Gen(args) => r#gen::run(args),
    };
    match done {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("logweir: {err}");
            1
        }
    }
}

/// Logs of our own go to stderr; `LOGWEIR_LOG` chooses what (such as `debug` or `logweir=trace`).
fn start_logging(default: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("LOGWEIR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    // A second call (tests) keeps the first subscriber.
    drop(started);
}

/// The runtime of the doors: sockets and timers only; queries run on the compute pool.
fn io_runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("logweir-io")
        .thread_stack_size(crate::task::STACK)
        .enable_all()
        .build();
    built.map_err(|e| crate::error::Error::internal(format!("could not start the runtime: {e}")))
}
