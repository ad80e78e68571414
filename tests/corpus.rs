//! The real logs: numbers counted beforehand by other means, and that no line is lost whatever the file and the format.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::server::{Client, Server, data};

/// Creates a stream `access` over one file and waits until all of it is there.
fn read(client: &Client, path: &Path, mode: &str, format: &str) {
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}', mode = '{mode}') FORMAT {format}; FLUSH;",
        path.display()
    ));
}

#[test]
fn apache_combined_read_once() {
    apache_combined("once");
}

#[test]
fn apache_combined_followed() {
    apache_combined("follow");
}

fn apache_combined(mode: &str) {
    let Some(data) = data() else { return };
    let mut server = Server::start();
    let client = server.client();
    read(&client, &data.join("access/apache_combined_10k.log"), mode, "COMBINED");
    client.run(
        "CREATE MATERIALIZED VIEW hours AS SELECT window_start, count(*) AS n
         FROM TUMBLE(access, ts, INTERVAL '1 hour') GROUP BY window_start;
         FLUSH",
    );
    assert_eq!(client.number("SELECT count(*) FROM access"), 9999);
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), 1);
    assert_eq!(client.number("SELECT sum(bytes) FROM access"), 2_747_282_505);
    let statuses = client.rows("SELECT status, count(*) FROM access GROUP BY status ORDER BY 2 DESC, 1");
    let statuses: Vec<String> = statuses.iter().map(crate::server::line).collect();
    assert_eq!(statuses, ["200 9125", "304 445", "404 213", "301 164", "206 45", "500 3", "403 2", "416 2"]);
    assert_eq!(client.one("SELECT count(*), count(DISTINCT window_start), sum(n) FROM hours"), "84 84 9999");
    let stream = "SELECT rows, malformed, next_offset FROM logweir.streams WHERE name = 'access'";
    assert_eq!(client.one(stream), "9999 1 10000");
    // A restart finds the same, from the log alone.
    server.kill();
    server.again();
    let client = server.client();
    assert_eq!(client.one("SELECT count(*), sum(bytes) FROM access"), "9999 2747282505");
    assert_eq!(client.one("SELECT count(*), sum(n) FROM hours"), "84 9999");
    client.run("FLUSH");
    assert_eq!(client.number("SELECT count(*) FROM access"), 9999);
}

#[test]
fn nginx_fragments_are_kept_as_malformed() {
    let Some(data) = data() else { return };
    let mut server = Server::start();
    let client = server.client();
    read(&client, &data.join("access/nginx_combined_fragments.log"), "once", "COMBINED");
    assert_eq!(client.number("SELECT count(*) FROM access"), 10394);
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), 5881);
    let nameless = "SELECT count(*) FROM access__malformed WHERE raw IS NULL OR reason IS NULL OR source IS NULL
                    OR position IS NULL OR ingest_time IS NULL OR reason = ''";
    assert_eq!(client.number(nameless), 0);
}

#[test]
fn nasa_common_has_requests_that_are_no_http() {
    let Some(data) = data() else { return };
    let mut server = Server::start();
    let client = server.client();
    read(&client, &data.join("access/nasa_common_2k.log"), "once", "COMMON");
    assert_eq!(client.one("SELECT count(*), count(*) FILTER (WHERE method IS NULL) FROM access"), "2000 7");
    assert_eq!(client.number("SELECT count(*) FROM access__malformed"), 0);
    // The file holds the first thousand lines of July and of August; both begin at 00:00:01 -0400.
    assert_eq!(client.one("SELECT min(ts) FROM access"), "1995-07-01 04:00:01+00");
}

#[test]
fn compressed_json_with_late_lines() {
    let Some(data) = data() else { return };
    let path = data.join("json/zeek_dns.json.gz");
    let mut text = Vec::new();
    let file = std::fs::File::open(&path).expect("the README of the data names it");
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut text).expect("the file is whole");
    let mut server = Server::start();
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE dns (*, WATERMARK FOR ts AS ts - INTERVAL '1 minute')
         WITH (connector = 'file', path = '{}', mode = 'once') FORMAT JSON (time_field = 'ts');
         CREATE MATERIALIZED VIEW minutes AS SELECT window_start, count(*) AS n
         FROM TUMBLE(dns, ts, INTERVAL '1 minute') GROUP BY window_start;
         FLUSH",
        path.display()
    ));
    let rows = client.number("SELECT count(*) FROM dns");
    assert_eq!(rows + client.number("SELECT count(*) FROM dns__malformed"), lines_in(&text));
    assert!(rows > 0);
    assert_eq!(client.number("SELECT sum(n) FROM minutes"), rows, "late rows are folded too");
    let late = client.number("SELECT late_rows FROM logweir.views WHERE name = 'minutes'");
    assert!(late > 0, "a quarter of the lines come out of order, by up to 670 s");
}

/// Two formats that know nothing of each other find the same in each line.
#[test]
fn auth_log_as_syslog_and_by_grok() {
    let Some(data) = data() else { return };
    let mut server = Server::start();
    let client = server.client();
    let source =
        format!("WITH (connector = 'file', path = '{}', mode = 'once')", data.join("syslog/auth.log").display());
    client.run(&format!(
        "CREATE TABLE auth {source} FORMAT AUTO (year = 2017);
         CREATE TABLE grok {source} FORMAT GROK (pattern = '%{{SYSLOGLINE}}');
         FLUSH"
    ));
    assert_eq!(
        client.one("SELECT count(*), min(ts), max(ts) FROM auth"),
        "7121 2017-03-27 13:06:56+00 2017-04-20 14:14:29+00"
    );
    let differing = "SELECT host, app, pid, message FROM auth EXCEPT SELECT logsource, program, pid, message FROM grok";
    assert_eq!(client.rows(differing), Vec::<Vec<Option<String>>>::new());
    assert_eq!(client.number("SELECT count(*) FROM grok"), 7121);
    // The format that was found is what the catalog keeps.
    server.kill();
    server.again();
    let client = server.client();
    let text = client.rows("SHOW CREATE TABLE auth").remove(0).remove(1).expect("it has a text");
    assert!(text.ends_with("FORMAT SYSLOG (\"year\" = '2017')"), "{text}");
    assert_eq!(client.one("SELECT count(*), min(ts) FROM auth"), "7121 2017-03-27 13:06:56+00");
}

/// Logs whose records go over several lines, with nothing said but where they are: as streams and as tables. What is said
/// of them as the README says it gives the same.
#[test]
fn records_of_several_lines_are_found_and_kept_together() {
    let Some(data) = data() else { return };
    let mut server = Server::start();
    let client = server.client();
    let vacuum = "POSTGRES (log_line_prefix = '%t [%p]: [%l-1] user=%u,db=%d,host=%h,app=%a ')";
    for (name, column, rows, recipe) in [
        ("postgres_vacuum.log", "severity", 3544, vacuum),
        ("kafka_server_log4j.log", "logger", 2496, "LOG4J (pattern = '[%d] %p %m (%c)%n')"),
        ("hadr_pcmk1_2023.db2diag.log", "record_id", 10, "DB2DIAG"),
        ("db2inst1_lab_2025.db2diag.log", "record_id", 5, "DB2DIAG"),
    ] {
        let path = data.join("multiline").join(name).display().to_string();
        client.run(&format!(
            "CREATE TABLE t WITH (connector = 'file', path = '{path}', mode = 'once') FORMAT AUTO; FLUSH"
        ));
        assert_eq!(client.number(&format!("SELECT count({column}) FROM t")), rows, "{name}");
        assert_eq!(client.number("SELECT count(*) FROM t__malformed"), 0, "{name}");
        assert_eq!(client.number(&format!("SELECT count({column}) FROM '{path}'")), rows, "{name}");
        let differing = format!("(SELECT * FROM t EXCEPT SELECT * FROM '{path}')");
        assert_eq!(client.number(&format!("SELECT count(*) FROM {differing} AS d")), 0, "{name}");
        client.run(&format!(
            "CREATE TABLE said WITH (connector = 'file', path = '{path}', mode = 'once') FORMAT {recipe}; FLUSH"
        ));
        assert_eq!(client.number("SELECT count(*) FROM said__malformed"), 0, "{name}");
        let differing = format!("SELECT ts, {column}, message FROM said EXCEPT SELECT ts, {column}, message FROM t");
        assert_eq!(client.number("SELECT count(*) FROM said"), rows, "{name}");
        assert_eq!(client.rows(&differing), Vec::<Vec<Option<String>>>::new(), "{name}");
        client.run("DROP TABLE t; DROP TABLE said");
    }
}

/// A recipe for Logstash, out of an article, as a statement: its multiline filter, its grok pattern and its date filter.
#[test]
fn the_recipe_of_an_article_on_db2() {
    let Some(data) = data() else { return };
    let folder = data.join("multiline");
    let article = std::fs::read_to_string(folder.join("ibm_article_excerpt.txt")).expect("the article is there");
    let between = |from: &str, to: &str| {
        let start = article.find(from).unwrap_or_else(|| panic!("the article has {from}")) + from.len();
        &article[start..start + article[start..].find(to).unwrap_or_else(|| panic!("the article has {to}"))]
    };
    let (start, pattern) = (between("pattern => \"", "\""), between("grok message =>\n\"", "\"\n"));
    let mut server = Server::start();
    let client = server.client();
    let files = folder.join("*db2diag.log").display().to_string();
    client.run(&format!(
        "CREATE TABLE recipe WITH (connector = 'file', path = '{files}', mode = 'once', multiline_start = '{start}')
         FORMAT GROK (pattern = '{pattern}', types = 'timezone bigint, processid bigint, threadid bigint, probe bigint',
                      time_field = 'timestamp', time_format = '%Y-%m-%d-%H.%M.%S%.f');
         CREATE TABLE db2 WITH (connector = 'file', path = '{files}', mode = 'once') FORMAT DB2DIAG;
         FLUSH"
    ));
    assert_eq!(client.number("SELECT count(*) FROM recipe"), 15);
    assert_eq!(client.number("SELECT count(*) FROM recipe__malformed"), 0);
    // The recipe keeps the zone, in minutes, as a field of its own, and the kind of error with the level.
    let by_recipe = "SELECT recordid, round(extract(epoch FROM \"timestamp\") * 1e6)::bigint - timezone * 60000000,
                            split_part(level, ' ', 1), processid, threadid, instance, dbname, appid, probe FROM recipe";
    let by_format =
        "SELECT record_id, round(extract(epoch FROM ts) * 1e6)::bigint, level, pid, tid, instance, db, appid, probe
                     FROM db2";
    assert_eq!(client.sorted(by_recipe), client.sorted(by_format));
}

/// FORMAT AUTO on small files of very many programs: what is recognised, and that every byte of it is kept, in rows or as
/// malformed. What is not recognised is told so, and kept as it is when read as lines.
#[test]
fn files_of_many_programs_by_detection() {
    let Some(data) = data() else { return };
    let mut server = Server::start();
    let client = server.client();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in lines_by_file(&data.join("formats/lnav")).keys() {
        let create = |format: &str| {
            format!(
                "CREATE TABLE t INCLUDE raw AS as_received, offset AS in_order WITH (connector = 'file', path = '{path}', mode = 'once')
                 FORMAT {format}"
            )
        };
        let format = match client.attempt(&create("AUTO")) {
            Ok(_) => {
                let text = client.rows("SHOW CREATE TABLE t").remove(0).remove(1).expect("it has a text");
                text.rsplit("FORMAT ").next().unwrap_or_default().to_lowercase()
            }
            Err(failure) => {
                failure.says("22023", &["cannot detect the format", "Lines read: "]);
                client.run(&create("RAW"));
                "-".to_string()
            }
        };
        client.run("FLUSH");
        let kept = client.rows(
            "SELECT encode(as_received, 'hex') FROM
               (SELECT as_received, in_order FROM t UNION ALL SELECT raw_bytes, \"offset\" FROM t__malformed) AS all_of_it
             ORDER BY in_order",
        );
        let kept: Vec<Vec<u8>> = kept.iter().map(|row| bytes_of(row[0].as_deref().unwrap_or_default())).collect();
        let bytes = std::fs::read(path).expect("the file is readable");
        let expected: Vec<&[u8]> = lines_of(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).collect();
        let found_lines: Vec<&[u8]> = kept.iter().flat_map(|record| lines_of(record)).collect();
        assert!(found_lines == expected, "{path} as {format}");
        let rows = client.number("SELECT count(*) FROM t");
        let malformed = client.sorted("SELECT count(*), reason FROM t__malformed GROUP BY reason");
        let name = Path::new(path).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        println!("{format:12} {name:34} {:6} bytes {rows:4} rows, malformed: {malformed:?}", bytes.len());
        found.entry(format).or_default().push(name);
        client.run("DROP TABLE t");
    }
    let counts: Vec<String> = found.iter().map(|(format, files)| format!("{format} {}", files.len())).collect();
    let expected = ["- 64", "combined 4", "json 18", "log4j 4", "logfmt 1", "postgres 3", "syslog 15", "w3c 7"];
    assert_eq!(counts, expected, "{found:#?}");
}

/// Bytes written as two digits each.
fn bytes_of(hex: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
    hex.as_bytes().chunks(2).map(|pair| byte(pair).expect("two digits")).collect()
}

/// The lines of a text, which `\r\n` may end too.
fn lines_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = |line: &[u8]| line.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    text.split(|byte| *byte == b'\n').map(move |line| &line[..end(line)])
}

/// Every file in every format: whatever does not fit is malformed, nothing is lost and nothing stops the server.
#[test]
fn every_line_of_every_file_is_a_row_or_malformed() {
    let Some(data) = data() else { return };
    let mut server = Server::start();
    let client = server.client();
    let formats = [
        "COMBINED",
        "COMMON",
        "APACHE_ERROR",
        "JSON",
        "LOGFMT",
        "KV",
        "CSV",
        "TSV (columns = 'a, b', time_field = 'none')",
        "W3C",
        "RAW",
        "SYSLOG",
        "LOG4J",
        "POSTGRES",
        "DB2DIAG",
        "GROK (pattern = '%{SYSLOGLINE}')",
        "ACCESS (pattern = '$remote_addr $rest')",
        "REGEX (pattern = '^(?<first>\\S+)\\s+(?<second>\\S+)(?<rest>.*)$')",
    ];
    for folder in ["formats/lnav", "access", "syslog", "multiline", "templates", "grok"] {
        let expected = lines_by_file(&data.join(folder));
        assert!(!expected.is_empty(), "{folder} has files");
        for format in formats {
            client.run(&format!(
                "CREATE TABLE every INCLUDE file AS from_file
                 WITH (connector = 'file', path = '{}/*', mode = 'once', framing = 'newline') FORMAT {format};
                 FLUSH",
                data.join(folder).display()
            ));
            let mut found: BTreeMap<String, i64> = BTreeMap::new();
            let counts = "SELECT from_file, count(*) FROM every GROUP BY from_file
                          UNION ALL SELECT source, count(*) FROM every__malformed GROUP BY source";
            for row in client.rows(counts) {
                let name = row[0].clone().expect("every row has a file");
                let count: i64 = row[1].as_ref().and_then(|n| n.parse().ok()).expect("a count is a number");
                *found.entry(name).or_default() += count;
            }
            assert_eq!(found, expected, "{folder} as {format}");
            client.run("DROP TABLE every");
        }
    }
}

/// Lines of each file that has any.
fn lines_by_file(folder: &Path) -> BTreeMap<String, i64> {
    let entries = std::fs::read_dir(folder).expect("the README of the data names it");
    let paths: Vec<PathBuf> = entries.map(|e| e.expect("the folder is readable").path()).collect();
    let counted = paths.iter().filter(|p| p.is_file()).map(|path| {
        let bytes = std::fs::read(path).expect("the file is readable");
        (path.display().to_string(), lines_in(&bytes))
    });
    counted.filter(|(_, lines)| *lines > 0).collect()
}

/// A last line without newline is a line too.
fn lines_in(bytes: &[u8]) -> i64 {
    let complete = bytes.iter().filter(|&&b| b == b'\n').count() as i64;
    complete + i64::from(bytes.last().is_some_and(|&b| b != b'\n'))
}
