//! The dialect, feature by feature: each file of `slt/` runs over the wire against an engine of its own in this process.
//!
//! In the files, also in results, `$LOGS` is a folder with small logs, made here: `access.log` of 20 numbered combined lines
//! (ten a second, see [`lines::numbered`]) and one that is none, `app.json` of 4 objects, `error.log` of Apache, `names.csv`,
//! and `requests.json` with `responses.json`. The engine's clock stands at 2026-01-01 00:02:00 UTC until the file turns it.
//!
//! Between the records of a file may stand directives, each at the beginning of a paragraph:
//!
//! | directive | does |
//! |---|---|
//! | `.push FILE`, lines up to a blank one | appends the lines to `$LOGS/FILE` and waits until they are visible |
//! | `.clock +15 seconds`, `.clock 2026-01-01T00:00:00Z` | turns the clock and waits until the engine has acted on it |
//! | `.watermark STREAM 2026-01-01T00:00:05Z` | waits until the stream's watermark is there; fails with where it is |
//! | `.restart` | stops the engine and opens it again; clients connect anew |
//! | `.archive` | gives the archive all rows, merges files, applies retention and makes a checkpoint |
//! | `.cores N` | the same, with so many cores for each query (at first 2) |
//! | `.expect-log TEXT` | a warning or error with this text is no failure |
//! | `.lower-limits N` | sizes that only large data reaches are N in this file |

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logweir::mutation::lower_limits;
use logweir::time::{MICROS_PER_SECOND, Micros, parse_duration};
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};

use crate::lines;
use crate::local::{self, Local};
use crate::server::{Client, Failure};

/// Where the clock of each file stands at first: two minutes behind the beginning of the made-up logs.
const NOON: Micros = (lines::START + 120) * MICROS_PER_SECOND;

/// A watermark moves as soon as rows or the clock have come through; what takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fails for every file that fails, not only for the first.
#[test]
fn every_feature_as_written() {
    let _turn = local::turn();
    let files = files();
    assert!(files.len() > 5);
    let failed: Vec<String> = files.iter().filter_map(|file| run_file(file).err()).collect();
    assert!(failed.is_empty(), "{} files failed:\n{}", failed.len(), failed.join("\n\n"));
}

/// The files of `slt/`, and below it those that the oracle has kept.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the repository has this folder") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "slt") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn run_file(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|err| format!("{}: {err}", file.display()))?;
    let name = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut stage = Stage::new();
    let done = stage.play(&text, &name);
    lower_limits(None);
    done?;
    let logged = stage.local.unexpected();
    if logged.is_empty() {
        Ok(())
    } else {
        Err(format!("{name}: the engine logged what was not expected: {logged:#?}"))
    }
}

/// A piece of a file, with the number of lines before it.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    Records { before: usize, text: String },
    Directive { before: usize, words: &'a str, lines: Vec<&'a str> },
}

/// Cuts a file at its directives.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut records, mut first) = (String::new(), 0);
    // Whether a record may begin here.
    let mut between = true;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((before, line)) = lines.next() {
        let directive = between.then(|| line.strip_prefix('.')).flatten();
        let Some(words) = directive.filter(|w| w.starts_with(|c: char| c.is_ascii_lowercase())) else {
            between = line.trim().is_empty() || (between && line.starts_with('#'));
            records += line;
            records.push('\n');
            continue;
        };
        if !records.trim().is_empty() {
            parts.push(Part::Records { before: first, text: std::mem::take(&mut records) });
        }
        records.clear();
        let mut pushed = Vec::new();
        if words.starts_with("push ") {
            while let Some((_, line)) = lines.next_if(|(_, line)| !line.is_empty()) {
                pushed.push(line);
            }
        }
        parts.push(Part::Directive { before, words, lines: pushed });
        first = lines.peek().map_or(0, |(next, _)| *next);
    }
    if !records.trim().is_empty() {
        parts.push(Part::Records { before: first, text: records });
    }
    parts
}

/// An engine and the logs it reads, while a file plays on it.
struct Stage {
    local: Local,
}

impl Stage {
    fn new() -> Stage {
        let local = Local::start(NOON);
        logs_for_all(&local.log(""));
        Stage { local }
    }

    fn play(&mut self, text: &str, name: &str) -> Result<(), String> {
        // One connection from the beginning, or the last restart, to the end: cursors live on.
        let mut runner = None;
        for part in parts(text) {
            match part {
                Part::Records { before, text } => {
                    let runner = runner.get_or_insert_with(|| Runner::new(connections(&mut self.local)));
                    // Blank lines in front, so that errors name the right line.
                    let script = "\n".repeat(before) + &text;
                    runner.run_script_with_name(&script, name).map_err(|err| err.display(false).to_string())?;
                }
                Part::Directive { before, words, lines } => {
                    if words == "restart" || words.starts_with("cores ") {
                        runner = None;
                    }
                    let done = self.obey(words, &lines);
                    done.map_err(|err| format!("{name}:{}: .{words}: {err}", before + 1))?;
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, directive: &str, lines: &[&str]) -> Result<(), String> {
        let (name, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        let rest = rest.trim();
        match name {
            "push" => {
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                lines::append(&self.local.log(rest), text);
                self.local.run("FLUSH").map_err(|err| err.to_string())
            }
            "clock" => {
                let now = match rest.strip_prefix('+') {
                    Some(by) => {
                        let by = parse_duration(by).map_err(|err| err.to_string())?;
                        self.local.now() + by.as_micros() as Micros
                    }
                    None => time(rest)?,
                };
                self.local.turn_clock(now).map_err(|err| err.to_string())
            }
            "watermark" => {
                let (stream, wanted) = rest.split_once(' ').ok_or("it needs a stream and a time")?;
                self.wait_for_watermark(stream, time(wanted)?)
            }
            "archive" => {
                self.local.archive();
                Ok(())
            }
            "restart" => {
                self.local.restart();
                Ok(())
            }
            "cores" => {
                self.local.set_cores(rest.parse().map_err(|_| "it needs a number")?);
                self.local.restart();
                Ok(())
            }
            "expect-log" => {
                self.local.expect_log(rest);
                Ok(())
            }
            "lower-limits" => {
                lower_limits(Some(rest.parse().map_err(|_| "it needs a number")?));
                Ok(())
            }
            _ => Err("there is no such directive".into()),
        }
    }

    fn wait_for_watermark(&mut self, stream: &str, wanted: Micros) -> Result<(), String> {
        let sql = format!("SELECT min(watermark)::text FROM logweir.watermarks WHERE stream = '{stream}'");
        let client = Client::connect(&self.local.address());
        let begun = Instant::now();
        loop {
            let rows = client.attempt(&sql).map_err(|failure| failure.message)?;
            let now = rows.first().and_then(|row| row.first().cloned()).flatten();
            if now.as_deref().map(time).transpose()?.is_some_and(|now| now >= wanted) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("the watermark stays at {}", now.as_deref().unwrap_or("nothing")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Microseconds of a time as RFC 3339 or as the engine writes it.
fn time(text: &str) -> Result<Micros, String> {
    let text = text.trim();
    let parsed = chrono::DateTime::parse_from_rfc3339(text)
        .or_else(|_| chrono::DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"));
    parsed.map(|time| time.timestamp_micros()).map_err(|err| format!("{text:?} is no time: {err}"))
}

/// Makes connections for a runner: as many as its file names.
fn connections(local: &mut Local) -> impl FnMut() -> std::future::Ready<Result<Connection, Wrong>> + use<> {
    let (address, logs) = (local.address(), local.log("").display().to_string());
    let logs = logs.trim_end_matches('/').to_string();
    move || std::future::ready(Ok(Connection { client: Client::connect(&address), logs: logs.clone() }))
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
            Some(value) => value.replace(&self.logs, "$LOGS"),
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

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.0.code, self.0.message, self.0.detail, self.0.hint)
    }
}

impl std::error::Error for Wrong {}

#[test]
fn directives_stand_between_records() {
    let text =
        "# about\n.clock +1s\nstatement ok\nSELECT\n.5\n\n.push a.log\none\n.two\n\nquery I\nSELECT 1\n----\n.5\n";
    let records = |before, text: &str| Part::Records { before, text: text.to_string() };
    let directive = |before, words, lines| Part::Directive { before, words, lines };
    let expected = [
        records(0, "# about\n"),
        directive(1, "clock +1s", vec![]),
        records(2, "statement ok\nSELECT\n.5\n\n"),
        directive(6, "push a.log", vec!["one", ".two"]),
        records(9, "\nquery I\nSELECT 1\n----\n.5\n"),
    ];
    assert_eq!(parts(text), expected);
}

#[test]
fn a_directive_that_cannot_be_obeyed_fails_its_file() {
    let _turn = local::turn();
    let mut stage = Stage::new();
    let failed = |stage: &mut Stage, text: &str| stage.play(text, "x.slt").unwrap_err();
    assert!(failed(&mut stage, "\n.nothing\n").contains("x.slt:2: .nothing"));
    assert!(failed(&mut stage, ".clock never\n").contains("no time"));
    assert!(failed(&mut stage, "query I\nSELECT 1\n----\n2\n").contains("x.slt:1"));
    assert!(failed(&mut stage, ".clock +1s\n\nquery I\nSELECT 1\n----\n2\n").contains("x.slt:3"));
}

#[test]
fn a_log_that_nobody_announced_is_a_failure() {
    let _turn = local::turn();
    let mut local = Local::start(NOON);
    let path = local.log("access.log");
    lines::append(&path, lines::numbered(1));
    let create = format!("CREATE TABLE s WITH (connector = 'file', path = '{}') FORMAT COMBINED", path.display());
    local.run(&create).expect("the file is there");
    local.run("CREATE MATERIALIZED VIEW v AS SELECT sum(1 / (bytes - 2)) AS n FROM s").expect("no row divides by zero");
    lines::append(&path, lines::numbered(2));
    local.run("FLUSH").expect("the stream goes on");
    let logged = local.unexpected();
    assert!(logged.len() == 1 && logged[0].contains("a view's query failed"), "{logged:?}");
    local.run("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT sum(1 / (bytes - 3)) AS n FROM s").expect("nor now");
    local.expect_log("a view's query failed");
    lines::append(&path, lines::numbered(3));
    local.run("FLUSH").expect("the stream goes on");
    assert_eq!(local.unexpected(), [""; 0]);
}
