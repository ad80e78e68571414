//! The dialect, feature by feature: each file of `slt/` runs against a server of its own, over the wire.
//!
//! In the files `$LOGS` is a folder with small logs, made here: `access.log` of 20 numbered combined lines (ten a second,
//! see [`lines::numbered`]) and one that is none, `app.json` of 4 objects, `error.log` of Apache, `names.csv`, and
//! `requests.json` with `responses.json`.

use std::fmt;
use std::path::Path;

use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};

use crate::lines;
use crate::server::{Client, Failure, Server};

/// Fails for every file that fails, not only for the first.
#[test]
fn every_feature_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let entries = std::fs::read_dir(folder).expect("the repository has this folder");
    let mut files: Vec<_> = entries.map(|e| e.expect("the folder is readable").path()).collect();
    files.sort();
    assert!(files.len() > 5);
    let mut failed = Vec::new();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "slt")) {
        let mut server = Server::start();
        let logs = server.log("");
        logs_for_all(&logs);
        let logs = logs.display().to_string();
        let connection = Connection { client: server.client(), logs: logs.trim_end_matches('/').to_string() };
        let mut connection = Some(connection);
        let mut runner = Runner::new(move || std::future::ready(connection.take().ok_or_else(Wrong::second)));
        if let Err(err) = runner.run_file(file) {
            failed.push(err.display(false).to_string());
        }
    }
    assert!(failed.is_empty(), "{} files failed:\n{}", failed.len(), failed.join("\n\n"));
}

fn logs_for_all(folder: &Path) {
    let access: String = (0..20).map(lines::numbered).collect();
    lines::append(&folder.join("access.log"), access + "no access line\n");
    lines::append(
        &folder.join("app.json"),
        "{\"t\":\"2026-01-01T00:00:00Z\",\"level\":\"info\",\"took\":1.5,\"user\":{\"name\":\"ann\"}}\n\
         {\"t\":\"2026-01-01T00:00:30Z\",\"level\":\"error\",\"took\":2.5}\n\
         {\"t\":\"2026-01-01T00:01:00Z\",\"level\":\"info\",\"took\":3}\n\
         {\"t\":\"2026-01-01T00:01:30Z\",\"level\":\"error\"}\n",
    );
    lines::append(
        &folder.join("error.log"),
        "[Thu Jan 01 00:00:00.000000 2026] [core:error] [pid 7:tid 8] [client 10.0.0.1:5000] AH00126: Invalid URI\n\
         [Thu Jan 01 00:00:01 2026] [error] [client 10.0.0.2] File does not exist: /x, referer: http://y/\n\
         [Thu Jan 01 00:00:02.500000 2026] [mpm_event:notice] [pid 7:tid 7] AH00489: resuming normal operations\n",
    );
    lines::append(
        &folder.join("requests.json"),
        "{\"ts\":\"2026-01-01T00:00:00Z\",\"id\":\"a\",\"path\":\"/x\"}\n\
         {\"ts\":\"2026-01-01T00:00:10Z\",\"id\":\"b\",\"path\":\"/x\"}\n\
         {\"ts\":\"2026-01-01T00:00:20Z\",\"id\":\"c\",\"path\":\"/y\"}\n\
         {\"ts\":\"2026-01-01T00:01:00Z\",\"id\":\"d\",\"path\":\"/y\"}\n\
         {\"ts\":\"2026-01-01T00:01:05Z\",\"path\":\"/z\"}\n",
    );
    // Too late, twice, and without an id.
    lines::append(
        &folder.join("responses.json"),
        "{\"ts\":\"2026-01-01T00:00:01Z\",\"id\":\"a\",\"ms\":1000}\n\
         {\"ts\":\"2026-01-01T00:00:45Z\",\"id\":\"b\",\"ms\":35000}\n\
         {\"ts\":\"2026-01-01T00:00:21Z\",\"id\":\"c\",\"ms\":500}\n\
         {\"ts\":\"2026-01-01T00:00:22Z\",\"id\":\"c\",\"ms\":1500}\n\
         {\"ts\":\"2026-01-01T00:01:02Z\",\"ms\":7}\n",
    );
    lines::append(&folder.join("names.csv"), "client,name\n10.0.0.1,ann\n10.0.0.2,bob\n");
}

/// A client as the runner wants it.
struct Connection {
    client: Client,
    logs: String,
}

impl DB for Connection {
    type Error = Wrong;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Wrong> {
        let rows = self.client.attempt(&sql.replace("$LOGS", &self.logs)).map_err(Wrong)?;
        let Some(first) = rows.first() else { return Ok(DBOutput::Rows { types: Vec::new(), rows: Vec::new() }) };
        let types = vec![DefaultColumnType::Any; first.len()];
        let text = |value: Option<String>| match value {
            None => "NULL".to_string(),
            Some(value) if value.is_empty() => "(empty)".to_string(),
            Some(value) => value,
        };
        let rows = rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect();
        Ok(DBOutput::Rows { types, rows })
    }

    fn engine_name(&self) -> &str {
        "logweir"
    }

    fn error_sql_state(err: &Wrong) -> Option<String> {
        Some(err.0.code.clone())
    }
}

/// An error as the files match it.
#[derive(Debug)]
struct Wrong(Failure);

impl Wrong {
    fn second() -> Wrong {
        let message = "a file has one connection".to_string();
        Wrong(Failure { code: String::new(), message, detail: String::new(), hint: String::new() })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.0.code, self.0.message, self.0.detail, self.0.hint)
    }
}

impl std::error::Error for Wrong {}
