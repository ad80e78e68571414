//! Tests of the whole program from outside: a real server process, real files, a real client. One binary, so that the
//! engine is linked once. Where many cases matter more than the process around them, the engine runs in this process.
//!
//! Nothing here sleeps to wait: `FLUSH` returns when what was written is visible. A server that logs a warning or an
//! error which its test did not announce fails the test.

/// Support: starts, kills and stops servers, and speaks SQL to them.
mod server;

/// Support: the same engine in this process, with a clock that tests turn.
mod local;

/// Support: tells whether two results are the same.
mod compare;

/// Support: makes lines of access logs, and appends them to files the way log writers do.
mod lines;

/// The real logs of `../shared/data`: numbers known beforehand, and no line lost whatever the file.
mod corpus;

/// A view equals its own query run as a batch: all of `queries/`, and wide hops, on real and generated logs.
mod batch;

/// The same for random queries over random rows, with random cuts and restarts; and would it notice if it were not so?
mod oracle;

/// `kill -9` at random moments while a file grows and is rotated: no line lost, none twice.
mod crash;

/// What somebody has changed in the data directory is told, and how to go on.
mod damage;

/// What users get wrong, and what is wrong with their files.
mod input;

/// Records of several lines: the real logs, and a kill in the middle of a record.
mod multiline;

/// Views and queries larger than the memory they may take.
mod memory;

/// The commands of the binary.
mod cli;

/// Reference tables: joins with streams, changes, restarts, limits; replacing what others read.
mod tables;

/// Files of others and for others: Parquet, Delta, COPY to files, IMPORT.
mod files;

/// `logweir gen` with scenarios and the source `datagen`: what a server counts is what the truth says.
mod generator;

/// What is sent: TCP, TLS, unix sockets, syslog with real senders, standard input; spool folders under `kill -9`.
mod net;

/// The archive in a bucket of a real server for S3.
mod s3;

/// Topics of a real Kafka broker: kills on both sides, transactions, retention, logins.
mod kafka;

/// Reading one group of a view, again and again, while it changes: always what the whole view has.
mod point;

/// Interval joins of two streams that grow, with restarts in between.
mod joins;

/// Real clients over the wire: tokio-postgres and psql against the Postgres endpoint.
mod clients;

/// What tools ask PostgreSQL's catalog, and what a real PostgreSQL answers.
mod introspection;

/// Drivers of other languages: psycopg, asyncpg, SQLAlchemy, node-postgres, JDBC.
mod drivers;

/// Expressions and queries beside a real PostgreSQL: the same answers, or a reason.
mod dialect;

/// Figures, not tests: pgbench against PostgreSQL and this server.
mod pgbench;

/// What clients run and tell each other: LISTEN and NOTIFY, what is shown and ended, limits, killed clients.
mod backends;

/// Statements that are hard to plan: answered, refused, or ended by their client, and the thread is free.
mod planning;

/// Roles, privileges, tokens, TLS; and what strangers try: wrong passwords, names and paths, broken messages.
mod security;

/// To whom things belong: creating, replacing, dropping, giving away; views that read for their owners; who one is.
mod owners;
/// Databases: tenants that do not see, name or starve each other; quotas, kills, what is left of a dropped one.
mod tenants;

/// Logs by HTTP: each protocol, its real senders, and `kill -9` in mid-stream.
mod http;

/// A real RabbitMQ server.
mod rabbitmq;

/// SUBSCRIBE: what is followed equals the relation at every offset.
mod subscribe;

/// Results out: files, HTTP and a real PostgreSQL, with kills on this side and failures on the other.
mod sinks;

/// Alerts: real receivers of HTTP and mail, kills between firing and telling.
mod alerts;

/// Reports: what is sent on a schedule, kills between due and sent.
mod reports;

/// Late rows, closed windows, silence.
mod emission;

/// One `.slt` file per feature of the dialect.
mod slt;

/// Scalar functions: samples, listings, views over them.
mod functions;

/// The README's tour and its tables.
mod readme;

/// Rules of the repository: layers, headers, queries, dependencies.
mod tidy;
