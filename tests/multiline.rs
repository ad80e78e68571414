//! Records of several lines from outside: the real logs, and a server that is killed in the middle of a record.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::lines;
use crate::server::{Client, Server, data};

/// What is in the file is read at once; what takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(20);

fn create(path: &Path, more: &str) -> String {
    format!(
        r"CREATE TABLE log WITH (connector = 'file', path = '{}', {more})
          FORMAT REGEX (pattern = '(?s)^(?<ts>\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d)(?<message>.*)$', time_format = '%Y-%m-%d %H:%M:%S')",
        path.display()
    )
}

/// Waits for rows without FLUSH, which would wait for the end of the last record.
fn wait_for_rows(client: &Client, rows: i64) {
    let begun = Instant::now();
    while client.number("SELECT count(*) FROM log") < rows {
        assert!(begun.elapsed() < PATIENCE, "there are no {rows} rows");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_records_of_a_postgres_log() {
    let Some(data) = data() else { return };
    let path = data.join("multiline/postgres_vacuum.log");
    let mut server = Server::start();
    let client = server.client();
    client.run(&create(&path, r"multiline_start = '^\d{4}-\d\d-\d\d '"));
    client.run(
        "CREATE MATERIALIZED VIEW lines AS SELECT count(*) AS records, sum(regexp_count(message, '\n') + 1) AS lines,
         max(regexp_count(message, '\n') + 1) AS longest FROM log;
         FLUSH",
    );
    assert_eq!(client.one("SELECT records, lines, longest FROM lines"), "3544 32405 56");
    assert_eq!(client.number("SELECT count(*) FROM log__malformed"), 0);
    let query = format!(
        r"SELECT count(*), sum(regexp_count(message, '\n') + 1)
          FROM read_log('{}', multiline_continue => '^\t', format => 'regex', pattern => '(?s)^(?<ts>\S+ \S+)(?<message>.*)$')",
        path.display()
    );
    assert_eq!(client.one(&query), "3544 32405");
    server.kill();
    server.again();
    let client = server.client();
    client.run("FLUSH");
    assert_eq!(client.one("SELECT records, lines FROM lines"), "3544 32405");
}

#[test]
fn a_server_killed_in_the_middle_of_a_record_reads_it_whole() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("app.log");
    lines::append(&path, "2026-01-01 00:00:00 one\n  more\n2026-01-01 00:00:01 two\n  mo");
    // Only the next record ends one.
    client.run(&create(&path, r"multiline_start = '^\d', multiline_timeout = '1 hour'"));
    wait_for_rows(&client, 1);
    drop(client);
    server.kill();
    lines::append(&path, "re\n");
    server.again();
    let client = server.client();
    lines::append(&path, "  and more\n2026-01-01 00:00:02 three\n");
    wait_for_rows(&client, 2);
    assert!(server.terminate().success());
    lines::append(&path, "  end of three\n2026-01-01 00:00:03 four\n");
    server.again();
    let client = server.client();
    wait_for_rows(&client, 3);
    let records = client.sorted("SELECT replace(message, chr(10), '/') FROM log");
    assert_eq!(records, [" one/  more", " three/  end of three", " two/  more/  and more"]);
    assert_eq!(client.number("SELECT count(*) FROM log__malformed"), 0);
}
