//! The commands of the binary: help, output forms, exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::lines;
use crate::server::{Client, LOGWEIR, Server, data, signal, wait};

const COMMANDS: &[&str] = &["serve", "demo", "query", "gen", "import"];

fn logweir(arguments: &[&str]) -> Output {
    Command::new(LOGWEIR).args(arguments).stdin(Stdio::null()).output().expect("the binary was built")
}

/// Standard output of a command that must succeed.
#[track_caller]
fn says(arguments: &[&str]) -> String {
    let output = logweir(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is text")
}

/// Standard error of a command that must fail, with an exit code and not with a signal.
#[track_caller]
fn refuses(arguments: &[&str]) -> String {
    let output = logweir(arguments);
    assert!(output.status.code().is_some_and(|code| code != 0), "{arguments:?} ended with {}", output.status);
    let text = String::from_utf8(output.stderr).expect("errors are text");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A folder with fifty good lines in `access.log`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    lines::append(&folder.path().join("access.log"), (0..50).map(lines::numbered).collect::<String>());
    folder
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn help_says_what_every_command_and_flag_does() {
    let all = says(&["--help"]);
    for command in COMMANDS {
        assert!(all.contains(command), "{command} in {all}");
        let help = says(&[command, "--help"]);
        assert!(help.lines().next().is_some_and(|l| l.len() > 10), "{command} says what it is:\n{help}");
        let help: Vec<&str> = help.lines().collect();
        for (i, line) in help.iter().enumerate() {
            // Descriptions are indented further; their lines may begin with a flag's name, too.
            if line.starts_with("          ") {
                continue;
            }
            let Some(flag) = line.trim_start().strip_prefix("--").or(line.trim_start().strip_prefix("-h, --")) else {
                continue;
            };
            let same_line = line.trim_start().split_once("  ").is_some_and(|(_, words)| words.trim().len() > 3);
            let next_line = help.get(i + 1).is_some_and(|next| next.starts_with("          ") && next.trim().len() > 3);
            assert!(same_line || next_line, "logweir {command}: nothing is said of --{flag}");
        }
    }
    assert!(says(&["--version"]).starts_with("logweir "));
}

#[test]
fn wrong_usage_is_an_exit_code_and_a_sentence() {
    assert!(refuses(&["sevre"]).contains("serve"));
    assert!(refuses(&["serve"]).contains("--data-dir"));
    assert!(refuses(&["query"]).contains("SQL"));
    assert!(refuses(&["query", "--format", "xml", "SELECT 1"]).contains("csv"));
    assert!(refuses(&["gen", "acces"]).contains("access"));
    let folder = folder();
    let blocked = text(&folder.path().join("access.log"));
    assert!(
        refuses(&["serve", "--data-dir", &blocked, "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .contains("access.log")
    );
    let data = text(&folder.path().join("data"));
    assert!(refuses(&["serve", "--data-dir", &data, "--pg", "nowhere", "--http", "127.0.0.1:0"]).contains("nowhere"));
    assert!(refuses(&["serve", "--data-dir", &data, "--init", "missing.sql"]).contains("missing.sql"));
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let said = refuses(&["serve", "--data-dir", &text(folder.path()), "--pg", &address, "--http", "127.0.0.1:0"]);
    assert!(said.contains(&address) && said.contains("--pg"), "{said}");
}

#[test]
fn query_prints_tables_csv_and_json() {
    let folder = folder();
    let path = text(&folder.path().join("access.log"));
    let sql =
        format!("SELECT client, count(*), sum(bytes) AS bytes FROM '{path}' WHERE bytes < 3 GROUP BY 1 ORDER BY 1");
    assert_eq!(
        says(&["query", &sql]),
        "client   | count | bytes\n---------+-------+------\n10.0.0.0 |     1 |     0\n10.0.0.1 |     1 |     1\n\
         10.0.0.2 |     1 |     2\n(3 rows)\n"
    );
    assert_eq!(
        says(&["query", "--format", "csv", &sql]),
        "client,count,bytes\n10.0.0.0,1,0\n10.0.0.1,1,1\n10.0.0.2,1,2\n"
    );
    let json = says(&["query", "--format", "json", &sql]);
    let rows: Vec<serde_json::Value> =
        json.lines().map(|l| serde_json::from_str(l).expect("each line is JSON")).collect();
    assert_eq!(rows[2], serde_json::json!({"client": "10.0.0.2", "count": 1, "bytes": 2}));
    let none = format!("SELECT client, bytes FROM '{path}' WHERE false");
    assert_eq!(says(&["query", "--format", "csv", &none]), "client,bytes\n");
    assert!(says(&["query", &none]).ends_with("(0 rows)\n"));
    assert_eq!(says(&["query", "--format", "json", &none]), "");
}

#[test]
fn query_reads_globs_and_compressed_files_and_windows() {
    let folder = folder();
    let dir = folder.path();
    let more: String = (50..80).map(lines::numbered).collect();
    let gz = std::fs::File::create(dir.join("access.log.1.gz")).expect("the folder is ours");
    let mut gz = flate2::write::GzEncoder::new(gz, flate2::Compression::fast());
    gz.write_all(more.as_bytes()).and_then(|()| gz.finish().map(drop)).expect("the disk has room");
    let more: String = (80..100).map(lines::numbered).collect();
    let zst = zstd::encode_all(more.as_bytes(), 1).expect("memory can be compressed");
    std::fs::write(dir.join("access.log.2.zst"), zst).expect("the folder is ours");
    let count = |from: &str| says(&["query", "--format", "csv", &format!("SELECT count(*), sum(bytes) FROM {from}")]);
    assert_eq!(count(&format!("'{}/access.log*'", text(dir))), "count,sum\n100,4950\n");
    assert_eq!(count(&format!("'{}/access.log.1.gz'", text(dir))), "count,sum\n30,1935\n");
    let as_combined = format!("read_log('{}/access.log.2.zst', format => 'combined')", text(dir));
    assert_eq!(count(&as_combined), "count,sum\n20,1790\n");
    let windows = format!(
        "SELECT count(*) FROM (SELECT window_start FROM TUMBLE((SELECT * FROM '{}/access.log*'), ts, INTERVAL '5 seconds')
         GROUP BY window_start)",
        text(dir)
    );
    assert_eq!(says(&["query", "--format", "csv", &windows]), "count\n2\n");
}

#[test]
fn query_on_the_real_log() {
    let Some(data) = data() else { return };
    let path = text(&data.join("access/apache_combined_10k.log"));
    let sql = format!("SELECT status, count(*) FROM '{path}' GROUP BY 1 ORDER BY 2 DESC, 1");
    let wanted = "status,count\n200,9125\n304,445\n404,213\n301,164\n206,45\n500,3\n403,2\n416,2\n";
    assert_eq!(says(&["query", "--format", "csv", &sql]), wanted);
    let nasa = text(&data.join("access/nasa_common_2k.log"));
    let sql = format!("SELECT count(*) FROM '{nasa}' WHERE method IS NULL");
    assert_eq!(says(&["query", "--format", "csv", &sql]), "count\n7\n", "the format is detected");
}

#[test]
fn query_errors_are_for_people() {
    let folder = folder();
    let path = text(&folder.path().join("access.log"));
    assert!(refuses(&["query", "SELECT * FROM '/no/such.log'"]).contains("/no/such.log"));
    assert!(refuses(&["query", &format!("SELECT statu FROM '{path}'")]).contains("status"));
    assert!(
        refuses(&["query", &format!("SELECT * FROM read_log('{path}', format => 'combind')")]).contains("combined")
    );
    assert!(refuses(&["query", "SELEC 1"]).contains("syntax"));
    lines::append(&folder.path().join("prose.txt"), "It was a dark night.\nNothing was logged.\n");
    let prose = text(&folder.path().join("prose.txt"));
    assert!(refuses(&["query", &format!("SELECT * FROM '{prose}'")]).contains("format =>"));
    assert!(refuses(&["query", &format!("SELECT * FROM '{}'", text(folder.path()))]).contains("directory"));
    let create = format!("CREATE TABLE t WITH (connector = 'file', path = '{path}') FORMAT COMBINED");
    assert!(refuses(&["query", &create]).contains("serve"));
}

#[test]
fn query_ends_quietly_when_its_reader_leaves() {
    let folder = folder();
    let path = text(&folder.path().join("big.log"));
    assert_eq!(says(&["gen", "access", "--seed", "1", "--count", "20000", "--output", &path]), "");
    let mut child = Command::new(LOGWEIR)
        .args(["query", "--format", "csv", &format!("SELECT * FROM '{path}'")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut first).expect("a header comes");
    assert!(wait(&mut child).success());
    let mut said = String::new();
    child.stderr.take().expect("stderr is piped").read_to_string(&mut said).expect("it is text");
    assert_eq!(said, "");
}

#[test]
fn gen_repeats_itself_with_a_seed() {
    for log in ["access", "error"] {
        let one = says(&["gen", log, "--seed", "5", "--count", "1000"]);
        assert_eq!(one.lines().count(), 1000);
        assert_eq!(one, says(&["gen", log, "--seed", "5", "--count", "1000", "--output", "-"]));
        assert_ne!(one, says(&["gen", log, "--seed", "6", "--count", "1000"]));
    }
}

#[test]
fn gen_lines_all_parse() {
    let mut server = Server::start();
    let client = server.client();
    for (log, format) in [("access", "COMBINED"), ("error", "APACHE_ERROR")] {
        let path = text(&server.log(log));
        says(&["gen", log, "--seed", "9", "--count", "5000", "--output", &path]);
        client.run(&format!(
            "CREATE TABLE {log} WITH (connector = 'file', path = '{path}', mode = 'once') FORMAT {format}; FLUSH"
        ));
        assert_eq!(client.number(&format!("SELECT count(*) FROM {log}")), 5000);
        assert_eq!(client.number(&format!("SELECT count(*) FROM {log}__malformed")), 0);
    }
}

#[test]
fn the_server_stops_politely_and_goes_on_afterwards() {
    let mut server = Server::start();
    let path = server.log("access.log");
    lines::append(&path, (0..10).map(lines::numbered).collect::<String>());
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED; FLUSH",
        text(&path)
    ));
    assert_eq!(server.terminate().code(), Some(0));
    assert!(!client.alive());
    lines::append(&path, lines::numbered(10));
    server.again();
    let client = server.client();
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*), sum(bytes) FROM access"), "11 55");
}

#[test]
fn init_files_run_at_every_start() {
    let mut server = Server::prepare();
    let (path, init) = (server.log("access.log"), server.log("init.sql"));
    lines::append(&path, lines::numbered(1));
    let sql = format!(
        "-- a comment; with a semicolon\nCREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED;\n\
         CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM access;\n",
        text(&path)
    );
    std::fs::write(&init, sql).expect("the folder is ours");
    let init = text(&init);
    server.use_arguments(&["--init", &init]);
    for _ in 0..2 {
        server.again();
        let client = server.client();
        client.run("FLUSH");
        assert_eq!(client.number("SELECT n FROM n"), 1);
        assert!(server.terminate().success());
    }
}

#[test]
fn health_and_metrics_over_http() {
    let mut server = Server::start();
    let path = server.log("access.log");
    lines::append(&path, (0..10).map(lines::numbered).collect::<String>());
    server.client().run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED; FLUSH",
        text(&path)
    ));
    let get = |address: &str, target: &str| {
        let mut socket = std::net::TcpStream::connect(address).expect("the server listens");
        write!(socket, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
            .expect("it is connected");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("the answer is text");
        answer
    };
    let address = server.http();
    let health = get(&address, "/health");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"ok\""), "{health}");
    let metrics = get(&address, "/metrics");
    assert!(metrics.contains("logweir_source_frames_total") && metrics.contains("stream=\"access\""), "{metrics}");
    assert!(metrics.contains("logweir_stream_rows{stream=\"access\"} 10"), "{metrics}");
    assert!(get(&address, "/nothing").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_demo_shows_live_traffic_and_stops() {
    let mut child = Command::new(LOGWEIR)
        .args(["demo", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--rate", "2000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut ready = String::new();
    stderr.read_line(&mut ready).expect("it says something");
    let address = ready.strip_prefix("ready: postgres ").and_then(|rest| rest.split(',').next());
    let client = Client::connect(address.unwrap_or_else(|| panic!("not ready: {ready}")));
    // Lines come ten times a second: FLUSH until there are some.
    let live = (0..10_000).any(|_| {
        client.run("FLUSH");
        client.number("SELECT coalesce(sum(requests), 0) FROM access_requests_per_minute") > 0
    });
    assert!(live);
    let (views, queries) =
        (client.number("SELECT count(DISTINCT name) FROM logweir.views"), crate::tidy::queries().len());
    assert_eq!(views, queries as i64, "every ready-made query is a view");
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), 0);
    signal(&child, libc::SIGINT);
    assert!(wait(&mut child).success());
    let (mut welcome, mut rest) = (String::new(), String::new());
    child.stdout.take().expect("stdout is piped").read_to_string(&mut welcome).expect("it is text");
    stderr.read_to_string(&mut rest).expect("it is text");
    assert!(welcome.contains("psql"), "{welcome}");
    assert!(!rest.contains("WARN") && !rest.contains("ERROR"), "{rest}");
}
