//! Bad input: what users get wrong is named, with the nearest right name; what is wrong with a file is kept, counted and
//! stops nothing.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lines;
use crate::server::{Client, LOGWEIR, Server, wait};

/// CREATE TABLE for a file, read to its end.
fn create(name: &str, path: &Path, more: &str, format: &str) -> String {
    format!(
        "CREATE TABLE {name} WITH (connector = 'file', path = '{}', mode = 'once'{more}) FORMAT {format}; FLUSH",
        path.display()
    )
}

/// A server with a stream `access` of ten good lines.
fn with_access() -> (Server, Client) {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("access.log");
    lines::append(&path, (0..10).map(lines::numbered).collect::<String>());
    client.run(&create("access", &path, "", "COMBINED"));
    (server, client)
}

/// The stream's raw malformed lines, each with its reason.
fn malformed(client: &Client, stream: &str) -> Vec<String> {
    let rows = client.rows(&format!("SELECT raw, reason FROM {stream}__malformed ORDER BY \"offset\""));
    rows.iter().map(crate::server::line).collect()
}

#[test]
fn wrong_names_are_mended() {
    let (server, client) = with_access();
    let path = server.log("access.log").display().to_string();
    let cases = [
        (
            format!("CREATE TABLE t WITH (connector = 'file', pth = '{path}') FORMAT COMBINED"),
            "22023",
            vec!["unknown option \"pth\"", "did you mean \"path\"?"],
        ),
        (
            format!("CREATE TABLE t WITH (connector = 'file', path = '{path}', mode = 'onec') FORMAT COMBINED"),
            "22023",
            vec!["onec", "did you mean \"once\"?"],
        ),
        (
            format!("CREATE TABLE t WITH (connector = 'fiel', path = '{path}') FORMAT COMBINED"),
            "22023",
            vec!["fiel", "did you mean \"file\"?"],
        ),
        (
            format!("CREATE TABLE t WITH (connector = 'file', path = '{path}') FORMAT COMBIND"),
            "22023",
            vec!["combind", "did you mean \"combined\"?"],
        ),
        (
            format!("CREATE TABLE t WITH (connector = 'file', path = '{path}') FORMAT JSON (tim_field = 'x')"),
            "22023",
            vec!["tim_field", "did you mean \"time_field\"?"],
        ),
        (
            format!(
                "CREATE TABLE t WITH (connector = 'file', path = '{path}', max_line_bytes = 'long') FORMAT COMBINED"
            ),
            "22023",
            vec!["max_line_bytes", "long"],
        ),
        (
            format!(
                "CREATE TABLE t WITH (connector = 'file', path = '{path}', poll_interval = 'soon') FORMAT COMBINED"
            ),
            "22023",
            vec!["poll_interval", "soon"],
        ),
        (format!("CREATE TABLE t WITH (path = '{path}') FORMAT COMBINED"), "", vec!["connector"]),
        ("CREATE TABLE t WITH (connector = 'file') FORMAT COMBINED".into(), "22023", vec!["needs the option \"path\""]),
        (
            format!("CREATE TABLE t WITH (connector = 'file', path = '{path}') FORMAT REGEX (pattern = '(?<a>')"),
            "2201B",
            vec!["pattern"],
        ),
        (
            format!(
                "CREATE TABLE t (*, WATERMARK FOR tz AS tz - INTERVAL '1 second') WITH (connector = 'file', path = '{path}') FORMAT COMBINED"
            ),
            "42703",
            vec!["tz", "ts"],
        ),
        ("SELECT * FROM acces".into(), "42P01", vec!["relation \"acces\" does not exist", "access"]),
        ("SELECT statu FROM access".into(), "42703", vec!["statu", "status"]),
        ("SELECT cuont(*) FROM access".into(), "42883", vec!["cuont", "count"]),
        ("SELECT * FROM TUMBEL(access, ts, INTERVAL '1 minute')".into(), "42883", vec!["tumbel", "tumble"]),
        ("SELECT * FROM TUMBLE(acces, ts, INTERVAL '1 minute')".into(), "42P01", vec!["acces"]),
        ("SELECT * FROM TUMBLE(access, tz, INTERVAL '1 minute')".into(), "42703", vec!["tz"]),
        ("SELECT * FROM TUMBLE(access, path, INTERVAL '1 minute')".into(), "42804", vec!["path", "timestamp"]),
        ("SELECT * FROM TUMBLE(access, ts, INTERVAL '0 seconds')".into(), "42601", vec!["TUMBLE(rel, ts, size"]),
        ("SELECT * FROM TUMBLE(access, ts)".into(), "42601", vec!["TUMBLE(rel, ts, size"]),
        ("SELECT * FROM HOP(access, ts, INTERVAL '5 minutes', INTERVAL '1 minute')".into(), "22023", vec!["slide"]),
        ("SELEC 1".into(), "42601", vec!["SELEC"]),
        ("SELECT path, count(*) FROM access".into(), "42803", vec!["path"]),
        ("SELECT 1/0".into(), "22012", vec!["division by zero"]),
        ("DROP MATERIALIZED VIEW nothing".into(), "42P01", vec!["nothing"]),
        ("DROP TABLE nothing".into(), "42P01", vec!["nothing"]),
    ];
    let mut wrong = Vec::new();
    for (sql, code, texts) in cases {
        let failure = match client.attempt(&sql) {
            Ok(_) => {
                wrong.push(format!("no error: {sql}"));
                continue;
            }
            Err(failure) => failure,
        };
        let all = format!("{}\n{}\n{}", failure.message, failure.detail, failure.hint);
        let lower = all.to_lowercase();
        let missing: Vec<_> = texts.iter().filter(|t| !lower.contains(&t.to_lowercase())).collect();
        if (!code.is_empty() && failure.code != code) || !missing.is_empty() || failure.code == "XX000" {
            wrong.push(format!("{sql}\n  wanted {code} {texts:?}\n  got    {} {all:?}", failure.code));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(client.number("SELECT count(*) FROM access"), 10, "nothing was harmed");
    assert_eq!(client.one("SELECT count(*) FROM logweir.streams"), "1", "a failed CREATE leaves nothing behind");
}

#[test]
fn names_in_use_and_objects_in_use_are_refused() {
    let (server, client) = with_access();
    let path = server.log("access.log");
    client.fails(&create("access", &path, "", "COMBINED")).says("42P07", &["access"]);
    let view = "CREATE MATERIALIZED VIEW v AS SELECT status, count(*) AS n FROM access GROUP BY status";
    client.run(view);
    client.fails(view).says("42P07", &["\"v\""]);
    client.fails("DROP TABLE access").says("2BP01", &["v", "CASCADE"]);
    client.fails("DROP TABLE v").says("42809", &["v"]);
    client.run("DROP TABLE access CASCADE");
    client.fails("SELECT * FROM v").says("42P01", &["v"]);
}

#[test]
fn paths_that_cannot_be_read() {
    let mut server = Server::start();
    let client = server.client();
    let missing = server.log("missing.log");
    client.fails(&create("t", &missing, "", "COMBINED")).says("58P01", &[&missing.display().to_string()]);
    let folder = server.log("folder");
    std::fs::create_dir(&folder).expect("the directory is new");
    let failure = client.fails(&create("t", &folder, "", "COMBINED"));
    failure.says(&failure.code, &["directory", "folder/*"]);
    assert_ne!(failure.code, "XX000", "{failure:?}");
    let dangling = server.log("dangling.log");
    std::os::unix::fs::symlink(&missing, &dangling).expect("the name is free");
    client.fails(&create("t", &dangling, "", "COMBINED")).says("58P01", &["dangling.log"]);
    client.run(&create("nobody", &server.log("*.nothing"), "", "COMBINED"));
    assert_eq!(client.number("SELECT count(*) FROM nobody"), 0, "a pattern without a file yet is no mistake");
}

#[test]
fn one_bad_file_among_many_holds_up_nothing() {
    let mut server = Server::start();
    server.expect_log("source problem");
    let client = server.client();
    lines::append(&server.log("a.log"), lines::numbered(1));
    lines::append(&server.log("c.log"), lines::numbered(2));
    std::fs::write(server.log("b.log.gz"), b"this is no gzip").expect("the directory is ours");
    std::os::unix::fs::symlink(server.log("nowhere"), server.log("d.log")).expect("the name is free");
    std::fs::create_dir(server.log("e.log")).expect("the name is free");
    client.run(&create("access", &server.log("*.log*"), "", "COMBINED"));
    assert_eq!(client.number("SELECT count(*) FROM access"), 2);
    assert!(
        client.number("SELECT count(*) FROM logweir.sources WHERE errors > 0 AND last_error LIKE '%b.log.gz%'") > 0
    );
}

#[test]
fn long_lines_are_kept_truncated_with_their_true_length() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("access.log");
    let long = "x".repeat(3_000_000);
    lines::append(&path, format!("{}{long}\n{}", lines::numbered(1), lines::numbered(2)));
    client.run(&create("access", &path, "", "COMBINED"));
    assert_eq!(client.number("SELECT count(*) FROM access"), 2, "the lines around it are intact");
    let kept = "SELECT length(raw), true_bytes FROM access__malformed";
    assert_eq!(client.one(kept), "1048576 3000000", "by default 1 MiB");
    client.run(&create("short", &path, ", max_line_bytes = '1 kB'", "COMBINED"));
    assert_eq!(client.one("SELECT length(raw), true_bytes FROM short__malformed"), "1000 3000000");
    let reason = client.one("SELECT reason FROM short__malformed");
    assert!(reason.contains("max_line_bytes"), "{reason:?}");
}

#[test]
fn bytes_that_are_no_text() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("access.log");
    let time = lines::clf(lines::START);
    let mut bytes = Vec::new();
    bytes.extend(format!("1.1.1.1 - - [{time}] \"GET /").as_bytes());
    bytes.extend(b"\xff\xfe");
    bytes.extend(b" HTTP/1.1\" 200 5 \"-\" \"-\"\n");
    bytes.extend(format!("2.2.2.2 - - [{time}] \"GET /a\0b HTTP/1.1\" 200 6 \"-\" \"-\"\n").as_bytes());
    bytes.extend(b"\0\0\0\0\n");
    bytes.extend(b"\xc3\n");
    bytes.extend(format!("3.3.3.3 - - [{time}] \"GET /c HTTP/1.1\" 200 7 \"-\" \"-\"\r\n").as_bytes());
    bytes.extend(b"\n");
    bytes.extend(format!("4.4.4.4 - - [{time}] \"GET /d HTTP/1.1\" 200 8 \"-\" \"-\"").as_bytes());
    lines::append(&path, &bytes);
    client.run(&format!(
        "CREATE TABLE access INCLUDE raw AS line, offset AS o
         WITH (connector = 'file', path = '{}', mode = 'once') FORMAT COMBINED; FLUSH",
        path.display()
    ));
    assert_eq!(client.one("SELECT path FROM access WHERE bytes = 5"), "/\u{fffd}\u{fffd}");
    let raw = client.one("SELECT encode(line, 'hex') FROM access WHERE bytes = 5");
    assert!(raw.contains("2ffffe20"), "the bytes as received: {raw}");
    assert_eq!(client.number("SELECT count(*) FROM access WHERE bytes = 6 AND path LIKE '/a%b'"), 1, "a NUL byte");
    assert_eq!(client.number("SELECT count(*) FROM access WHERE bytes = 7 AND user_agent IS NULL"), 1, "CRLF");
    assert_eq!(client.number("SELECT count(*) FROM access WHERE bytes = 8"), 1, "no newline at the end");
    assert_eq!(client.number("SELECT count(*) FROM access"), 4);
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), 3, "{:?}", malformed(&client, "access"));
    assert_eq!(client.one("SELECT encode(raw_bytes, 'hex') FROM access__malformed WHERE \"offset\" = 3"), "c3");
}

#[test]
fn empty_files_and_a_followed_line_without_its_end() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("access.log");
    lines::append(&path, "");
    let create = create("access", &path, "", "COMBINED").replace("'once'", "'follow'");
    client.run(&create);
    assert_eq!(client.number("SELECT count(*) FROM access"), 0);
    let line = lines::numbered(1);
    let (start, end) = line.split_at(40);
    lines::append(&path, start);
    lines::append(&path, end);
    // Its newline comes with the next line's bytes.
    lines::append(&path, lines::numbered(2).trim_end());
    lines::append(&path, "\n");
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*), sum(bytes) FROM access"), "2 3");
    // A program that died in the middle of a line: the line is not waited for for ever.
    lines::append(&path, lines::numbered(3).trim_end());
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*), sum(bytes) FROM access"), "3 6");
    // Its newline alone is no empty line.
    lines::append(&path, "\n");
    client.run("FLUSH");
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), 0);
}

#[test]
fn json_with_new_fields_and_clashes() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("app.json");
    lines::append(
        &path,
        "{\"ts\":\"2026-01-01T00:00:00Z\",\"level\":\"info\",\"took\":5}\n\
         {\"ts\":\"2026-01-01T00:00:01Z\",\"level\":\"info\",\"took\":\"slow\"}\n\
         {\"ts\":\"2026-01-01T00:00:02Z\",\"level\":null,\"took\":7,\"user\":\"ann\"}\n\
         not json\n\
         [1,2]\n\
         {\"ts\":\"2026-01-01T00:00:03Z\"\n",
    );
    client.run(&create("app", &path, "", "JSON (time_field = 'ts')").replace("'once'", "'follow'"));
    assert_eq!(client.one("SELECT count(*), sum(took), count(level), max(\"user\") FROM app"), "3 12 2 ann");
    assert_eq!(client.one("SELECT took__text FROM app WHERE took IS NULL"), "slow", "both values of a clash are kept");
    assert_eq!(malformed(&client, "app").len(), 3, "{:?}", malformed(&client, "app"));
    // A view, then a field that nobody has seen: rows from before have NULL in it.
    client.run(
        "CREATE MATERIALIZED VIEW levels AS SELECT level, count(*) AS n, sum(took) AS took FROM app GROUP BY level",
    );
    lines::append(&path, "{\"ts\":\"2026-01-01T00:00:04Z\",\"level\":\"warn\",\"host\":\"a\",\"took\":1}\n");
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*), count(host) FROM app"), "4 1");
    assert_eq!(client.sorted("SELECT level, n, took FROM levels"), ["NULL 1 7", "info 2 5", "warn 1 1"]);
    server.kill();
    server.again();
    let client = server.client();
    assert_eq!(client.one("SELECT count(*), count(host), sum(took) FROM app"), "4 1 13");
    assert_eq!(client.sorted("SELECT level, n, took FROM levels"), ["NULL 1 7", "info 2 5", "warn 1 1"]);
}

#[test]
fn what_cannot_be_maintained_is_refused() {
    let (_server, client) = with_access();
    let refused = [
        "SELECT client, row_number() OVER (ORDER BY ts) AS n FROM access",
        "SELECT a.path, b.path AS other FROM access a JOIN access b ON a.client = b.client",
        "SELECT path, bytes FROM access ORDER BY bytes LIMIT 5",
    ];
    for query in refused {
        let failure = client.fails(&format!("CREATE MATERIALIZED VIEW v AS {query}"));
        assert_eq!(failure.code, "0A000", "{failure:?} for {query}");
        assert!(!failure.hint.is_empty(), "{failure:?} for {query}");
    }
}

#[test]
fn a_second_server_on_a_data_directory_is_refused() {
    let (server, client) = with_access();
    let output = Command::new(LOGWEIR)
        .args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
        .arg(server.data_dir())
        .output()
        .expect("the binary was built");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("in use") || text.contains("another"), "{text}");
    assert!(text.contains(&server.data_dir().display().to_string()), "it names the directory: {text}");
    assert!(client.alive());
}

#[test]
fn a_mistake_in_an_init_file_ends_the_server_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let init = folder.path().join("init.sql");
    std::fs::write(&init, "SELECT 1;\nCREATE TABLE t WITH (conector = 'file') FORMAT COMBINED;\n").expect("it is ours");
    let mut child = Command::new(LOGWEIR)
        .args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .arg("--init")
        .arg(&init)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    assert!(!wait(&mut child).success());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("stderr is piped"), &mut text).expect("it is text");
    assert!(text.contains("init.sql") && text.contains("connector"), "{text}");
}

#[test]
fn bytes_that_are_no_postgres_harm_nobody() {
    let (mut server, client) = with_access();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 8, 0, 0, 0, 0],
        &[],
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
    ] {
        let address = server.postgres();
        let mut socket = std::net::TcpStream::connect(address).expect("the server listens");
        let _ = socket.write_all(bytes);
    }
    assert!(client.alive());
    assert_eq!(server.client().number("SELECT count(*) FROM access"), 10);
}
