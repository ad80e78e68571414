//! Files of others and files for others: Parquet directories and Delta tables as relations, COPY to files, IMPORT.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::lines;
use crate::server::{Client, LOGWEIR, Server};

/// A server and a folder beside its data.
fn started() -> (Server, Client, String) {
    let mut server = Server::start();
    let client = server.client();
    let folder = server.log("").display().to_string().trim_end_matches('/').to_string();
    (server, client, folder)
}

/// The names of the files below a folder, sorted, with `*` for what is made up anew each time.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("the folder is there") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let parent = path.parent().and_then(|p| p.strip_prefix(folder).ok()).expect("it is below the folder");
                let extension = path.extension().map_or_else(String::new, |e| e.to_string_lossy().into_owned());
                found.push(parent.join(format!("*.{extension}")).display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn only_file(folder: &Path) -> String {
    let names: Vec<_> = std::fs::read_dir(folder).expect("the folder is there").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].as_ref().expect("it can be listed").file_name().into_string().expect("names are ASCII")
}

#[test]
fn directories_of_parquet_are_columns_and_grow() {
    let (mut server, client, folder) = started();
    let lake = format!("{folder}/lake");
    client.run(&format!(
        "COPY (SELECT * FROM (VALUES (2025, '01', 1, 'a'), (2026, '02', 2, 'b'), (2026, '11', 3, NULL))
               AS t (year, month, n, name)) TO '{lake}' PARTITIONED BY (year, month)"
    ));
    let expected = ["year=2025/month=01/*.parquet", "year=2026/month=02/*.parquet", "year=2026/month=11/*.parquet"];
    assert_eq!(names(Path::new(&lake)), expected);
    client.run(&format!("CREATE EXTERNAL TABLE lake STORED AS PARQUET LOCATION '{lake}'"));
    assert_eq!(
        client.sorted("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'lake'"),
        ["month bigint", "n bigint", "name text", "year bigint"]
    );
    assert_eq!(client.sorted("SELECT n, year, month FROM lake"), ["1 2025 1", "2 2026 2", "3 2026 11"]);
    // Found although the directory is called 01, and without looking into the others.
    assert_eq!(client.sorted("SELECT n FROM lake WHERE month = 1"), ["1"]);
    let plan = client.rows("EXPLAIN SELECT n FROM lake WHERE month = 1 AND n > 0");
    let plan = format!("{plan:?}");
    assert!(plan.contains("month=01") && !plan.contains("month=11") && !plan.contains("month=02"), "{plan}");

    // What comes later is in the next result; NULL is a value as well.
    client.run(&format!(
        "COPY (SELECT 4 AS n, 'd' AS name, NULL AS year, 7 AS month) TO '{lake}'
         PARTITIONED BY (year, month) WITH (APPEND)"
    ));
    assert_eq!(client.sorted("SELECT n, name FROM lake WHERE year IS NULL"), ["4 d"]);
    assert_eq!(client.one("SELECT count(*) FROM lake"), "4");
    std::fs::remove_dir_all(format!("{lake}/year=2025")).expect("it is ours");
    assert_eq!(client.one("SELECT count(*) FROM lake"), "3");
    // A file that does not belong there is an error and not a guess.
    client.run(&format!("COPY (SELECT 1 AS n) TO '{lake}/stray.parquet'"));
    client.fails("SELECT * FROM lake").says("22023", &["stray.parquet", "year=…"]);
    std::fs::remove_file(format!("{lake}/stray.parquet")).expect("it is ours");
    std::fs::create_dir(format!("{lake}/year=soon")).expect("the folder is writable");
    let some = std::fs::read_dir(format!("{lake}/year=2026/month=11")).expect("it is there").next();
    let some = some.expect("with a file").expect("that can be listed").path();
    std::fs::create_dir(format!("{lake}/year=soon/month=1")).expect("the folder is writable");
    std::fs::copy(some, format!("{lake}/year=soon/month=1/x.parquet")).expect("there is room");
    client.fails("SELECT * FROM lake").says("22P02", &["year=soon", "PARTITIONED BY (year text)"]);
    client.run(&format!(
        "CREATE EXTERNAL TABLE texts STORED AS PARQUET PARTITIONED BY (year text, month int) LOCATION '{lake}'"
    ));
    assert_eq!(client.sorted("SELECT n, month FROM texts WHERE year = 'soon'"), ["3 1"]);
    drop(client);

    // A server whose lake has dried out starts all the same.
    std::fs::remove_dir_all(&lake).expect("it is ours");
    server.expect_log("an external table cannot be read");
    server.terminate();
    server.again();
    let client = server.client();
    client.fails("SELECT * FROM texts").says("58P01", &["lake"]);
    client.run("DROP TABLE texts");
    client.run("DROP TABLE lake");
}

#[test]
fn what_is_wrong_with_files_is_said() {
    let (_server, client, folder) = started();
    let create = |name: &str, kind: &str, path: &str| {
        format!("CREATE EXTERNAL TABLE {name} STORED AS {kind} LOCATION '{folder}/{path}'")
    };
    client.fails(&create("t", "PARQUET", "nothing")).says("58P01", &["nothing"]);
    client.fails(&create("t", "DELTA", "nothing")).says("58P01", &["nothing"]);
    std::fs::create_dir(format!("{folder}/empty")).expect("the folder is writable");
    client.fails(&create("t", "PARQUET", "empty")).says("58P01", &["no .parquet files"]);
    client.fails(&create("t", "DELTA", "empty")).says("42809", &["not a Delta table"]);
    client.fails(&create("t", "PARKET", "empty")).says("22023", &["PARQUET"]);
    client
        .fails("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'gopher://x/y'")
        .says("0A000", &["gopher", "s3://"]);

    client.run(&format!("COPY (SELECT 1 AS a) TO '{folder}/mixed'"));
    client.fails(&create("t", "DELTA", "mixed")).says("42809", &["STORED AS PARQUET"]);
    client.run(&format!("COPY (SELECT 'x' AS a, 2 AS b) TO '{folder}/mixed' WITH (APPEND)"));
    client.fails(&create("t", "PARQUET", "mixed")).says("42804", &["same columns", "Declare"]);
    client.run(&format!("CREATE EXTERNAL TABLE mixed (a text, b bigint) STORED AS PARQUET LOCATION '{folder}/mixed'"));
    assert_eq!(client.sorted("SELECT a, b FROM mixed"), ["1 NULL", "x 2"]);
    std::fs::write(format!("{folder}/mixed/x.parquet"), "no parquet at all").expect("the folder is writable");
    client.fails("SELECT * FROM mixed").says("XX001", &[]);
}

/// A Delta table as another program would write it: entries of its log around files that COPY has written.
struct Lake<'a> {
    client: &'a Client,
    folder: String,
    version: u64,
}

impl Lake<'_> {
    fn commit(&mut self, actions: &[String]) {
        let log = format!("{}/_delta_log", self.folder);
        std::fs::create_dir_all(&log).expect("the folder is writable");
        std::fs::write(format!("{log}/{:020}.json", self.version), actions.join("\n")).expect("there is room");
        self.version += 1;
    }

    /// Writes one file and gives the action that adds it.
    fn add(&self, name: &str, partition: &str, rows: &str) -> String {
        let path = format!("{}/{name}", self.folder);
        self.client.run(&format!("COPY ({rows}) TO '{path}'"));
        let size = std::fs::metadata(&path).expect("it was written").len();
        format!(
            r#"{{"add":{{"path":"{name}","partitionValues":{{"day":{partition}}},"size":{size},"modificationTime":1,"dataChange":true}}}}"#
        )
    }

    fn schema(&self, columns: &[(&str, &str)]) -> String {
        let field = |(name, kind): &(&str, &str)| {
            format!(r#"{{"name":"{name}","type":"{kind}","nullable":true,"metadata":{{}}}}"#)
        };
        let fields: Vec<String> = columns.iter().map(field).collect();
        let schema = format!(r#"{{"type":"struct","fields":[{}]}}"#, fields.join(","));
        format!(
            r#"{{"metaData":{{"id":"00000000-0000-0000-0000-000000000001","format":{{"provider":"parquet","options":{{}}}},"schemaString":{},"partitionColumns":["day"],"configuration":{{}}}}}}"#,
            format_args!("\"{}\"", schema.replace('"', "\\\""))
        )
    }
}

#[test]
fn delta_tables_of_others_are_read_at_their_newest_version() {
    let (mut server, client, folder) = started();
    let protocol = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#.to_string();
    let mut lake = Lake { client: &client, folder: format!("{folder}/delta"), version: 0 };
    std::fs::create_dir(&lake.folder).expect("the folder is writable");
    let first = lake.add("a.parquet", "\"2026-01-01\"", "SELECT 1::bigint AS n, 'a' AS name");
    lake.commit(&[protocol, lake.schema(&[("n", "long"), ("name", "string"), ("day", "date")]), first]);
    client.run(&format!("CREATE EXTERNAL TABLE lake STORED AS DELTA LOCATION '{}'", lake.folder));
    assert_eq!(client.sorted("SELECT n, name, day FROM lake"), ["1 a 2026-01-01"]);
    client
        .fails(&format!("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{}'", lake.folder))
        .says("42809", &["STORED AS DELTA"]);

    // Versions that come later, with files that others go for; a file without an entry in the log is none of the table.
    let second = lake.add("b.parquet", "\"2026-01-02\"", "SELECT 2::bigint AS n, 'b' AS name");
    lake.add("c.parquet", "null", "SELECT 3::bigint AS n, 'c' AS name");
    assert_eq!(client.one("SELECT count(*) FROM lake"), "1");
    lake.commit(&[second]);
    assert_eq!(client.sorted("SELECT n, day FROM lake"), ["1 2026-01-01", "2 2026-01-02"]);
    assert_eq!(client.sorted("SELECT name FROM lake WHERE day = '2026-01-02' AND n > 1"), ["b"]);
    let remove = r#"{"remove":{"path":"a.parquet","deletionTimestamp":1,"dataChange":true}}"#.to_string();
    lake.commit(&[remove]);
    assert_eq!(client.sorted("SELECT n FROM lake"), ["2"]);

    // A column more changes nothing here before the table is made anew; one less is said.
    lake.commit(&[lake.schema(&[("n", "long"), ("name", "string"), ("day", "date"), ("more", "double")])]);
    assert_eq!(client.sorted("SELECT * FROM lake"), ["2 b 2026-01-02"]);
    lake.commit(&[lake.schema(&[("n", "long"), ("day", "date")])]);
    assert_eq!(client.sorted("SELECT n FROM lake"), ["2"]);
    client.fails("SELECT name FROM lake").says("42804", &["\"name\"", "create it again"]);

    client
        .fails(&format!("CREATE EXTERNAL TABLE x (a int) STORED AS DELTA LOCATION '{}'", lake.folder))
        .says("42601", &[]);
    let unknown = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["teleport"],"writerFeatures":["teleport"]}}"#;
    lake.commit(&[unknown.to_string()]);
    assert!(client.attempt("SELECT n FROM lake").is_err(), "a feature that nobody knows must not be ignored");
    drop(client);
    server.expect_log("an external table cannot be read");
    server.kill();
    server.again();
    server.client().run("DROP TABLE lake");
}

#[test]
fn deletion_vectors_and_mapped_columns_of_delta_tables_are_applied() {
    let (_server, client, folder) = started();
    let table = |name: &str, rows: &str, actions: &dyn Fn(u64) -> String| {
        let folder = format!("{folder}/{name}");
        std::fs::create_dir_all(format!("{folder}/_delta_log")).expect("the folder is writable");
        client.run(&format!("COPY ({rows}) TO '{folder}/a.parquet'"));
        let size = std::fs::metadata(format!("{folder}/a.parquet")).expect("it was written").len();
        std::fs::write(format!("{folder}/_delta_log/{:020}.json", 0), actions(size)).expect("there is room");
        client.run(&format!("CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{folder}'"));
    };
    // The rows 1 and 3 are deleted: a Roaring bitmap in base 85.
    table("deleted", "SELECT n::bigint AS n FROM generate_series(0, 4) AS t (n)", &|size| {
        [
            r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#,
            r#"{"metaData":{"id":"1","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"n\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{"delta.enableDeletionVectors":"true"}}}"#,
            &format!(r#"{{"add":{{"path":"a.parquet","partitionValues":{{}},"size":{size},"modificationTime":1,"dataChange":true,"stats":"{{\"numRecords\":5}}","deletionVector":{{"storageType":"i","pathOrInlineDv":"^Bg9^0rr910000000000iXQKl0rr91000315c8Xg0rri4","sizeInBytes":36,"cardinality":2}}}}}}"#),
        ]
        .join("\n")
    });
    assert_eq!(client.sorted("SELECT n FROM deleted"), ["0", "2", "4"]);
    assert_eq!(client.one("SELECT count(*) FROM deleted"), "3");
    assert_eq!(client.sorted("SELECT n FROM deleted WHERE n >= 3"), ["4"]);
    table("mapped", "SELECT 7::bigint AS \"col-1\", 'x' AS \"col-2\"", &|size| {
        [
            r#"{"protocol":{"minReaderVersion":2,"minWriterVersion":5}}"#,
            r#"{"metaData":{"id":"2","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"How many\",\"type\":\"long\",\"nullable\":true,\"metadata\":{\"delta.columnMapping.id\":1,\"delta.columnMapping.physicalName\":\"col-1\"}},{\"name\":\"name\",\"type\":\"string\",\"nullable\":true,\"metadata\":{\"delta.columnMapping.id\":2,\"delta.columnMapping.physicalName\":\"col-2\"}}]}","partitionColumns":[],"configuration":{"delta.columnMapping.mode":"name","delta.columnMapping.maxColumnId":"2"}}}"#,
            &format!(r#"{{"add":{{"path":"a.parquet","partitionValues":{{}},"size":{size},"modificationTime":1,"dataChange":true}}}}"#),
        ]
        .join("\n")
    });
    assert_eq!(client.sorted("SELECT \"How many\", name FROM mapped WHERE \"How many\" > 1"), ["7 x"]);
}

#[test]
fn live_views_and_streams_are_joined_with_parquet() {
    let (mut server, client, folder) = started();
    let log = server.log("access.log");
    lines::append(&log, (0..10).map(lines::numbered).collect::<String>());
    client.run(&format!("CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED", log.display()));
    client.run(&format!(
        "COPY (SELECT * FROM (VALUES ('10.0.0.1', 'ann'), ('10.0.0.2', 'bob')) AS t (client, name)) TO '{folder}/names'"
    ));
    client.run(&format!("CREATE EXTERNAL TABLE names STORED AS PARQUET LOCATION '{folder}/names'"));
    client.run("CREATE MATERIALIZED VIEW by_client AS SELECT client, count(*) AS n FROM access GROUP BY client");
    client.run(
        "CREATE MATERIALIZED VIEW by_name AS
         SELECT name, count(*) AS n FROM access JOIN names USING (client) GROUP BY name",
    );
    let both = "SELECT name, n FROM by_client JOIN names USING (client)";
    client.run("FLUSH");
    assert_eq!(client.sorted(both), ["ann 1", "bob 1"]);
    client.run(&format!("COPY (SELECT '10.0.0.3' AS client, 'eve' AS name) TO '{folder}/names' WITH (APPEND)"));
    lines::append(&log, (250..260).map(lines::numbered).collect::<String>());
    client.run("FLUSH");
    // A join above the aggregate sees the new file; a table that a stream looks up in is as it was loaded.
    assert_eq!(client.sorted(both), ["ann 2", "bob 2", "eve 2"]);
    assert_eq!(client.sorted("SELECT * FROM by_name"), ["ann 2", "bob 2"]);
    drop(client);
    server.kill();
    server.again();
    let client = server.client();
    assert_eq!(client.sorted(both), ["ann 2", "bob 2", "eve 2"]);
    assert_eq!(client.sorted("SELECT * FROM by_name"), ["ann 2", "bob 2"]);
}

#[test]
fn copy_writes_what_can_be_read_again() {
    let (_server, client, folder) = started();
    let query = "SELECT n, n::double / 3 AS third, 'é,\"' || n AS text, n % 2 = 0 AS even,
                        '2026-01-01 00:00:00Z'::timestamptz + (n || ' seconds')::interval AS ts, NULL::int AS nothing
                 FROM generate_series(1, 1000) AS t (n)";
    for (kind, path) in [("PARQUET", "p"), ("CSV", "c"), ("JSON", "j")] {
        client.run(&format!("COPY ({query}) TO '{folder}/{path}' STORED AS {kind}"));
        let columns = "(n bigint, third double, text text, even boolean, ts timestamptz, nothing int)";
        client.run(&format!("CREATE EXTERNAL TABLE {path} {columns} STORED AS {kind} LOCATION '{folder}/{path}/'"));
        assert_eq!(client.sorted(&format!("SELECT * FROM {path}")), client.sorted(query), "{kind}");
    }
    // One file, where its name is one; PostgreSQL's spelling; a name for every column.
    client.run(&format!(
        "COPY (SELECT count(*), 'a;b' AS t FROM p) TO '{folder}/one.csv' WITH (FORMAT csv, HEADER, DELIMITER ';')"
    ));
    assert_eq!(
        std::fs::read_to_string(format!("{folder}/one.csv")).expect("it was written"),
        "count;t\n1000;\"a;b\"\n"
    );
    client.run(&format!("COPY p (n, text) TO '{folder}/two.csv' (FORMAT csv, OVERWRITE)"));
    let text = std::fs::read_to_string(format!("{folder}/two.csv")).expect("it was written");
    assert_eq!((text.lines().count(), text.lines().next()), (1000, Some("1,\"é,\"\"1\"")));

    // What is there is not lost by accident.
    client.fails(&format!("COPY (SELECT 1 AS n) TO '{folder}/p'")).says("58P02", &["APPEND", "OVERWRITE"]);
    client.fails(&format!("COPY (SELECT 1 AS n) TO '{folder}/one.csv'")).says("58P02", &["OVERWRITE"]);
    client.run(&format!("COPY (SELECT 1 AS n) TO '{folder}/p' WITH (APPEND)"));
    assert_eq!(client.one("SELECT count(*) FROM p"), "1001");
    std::fs::write(format!("{folder}/p/README"), "mine").expect("the folder is writable");
    client.run(&format!("COPY (SELECT 7 AS n) TO '{folder}/p' WITH (OVERWRITE)"));
    assert_eq!(client.sorted("SELECT n FROM p"), ["7"]);
    assert!(Path::new(&format!("{folder}/p/README")).exists(), "what COPY has not written is not its own");

    // A failure leaves nothing behind.
    client
        .fails(&format!("COPY (SELECT 1 / (500 - n) AS n FROM generate_series(1, 1000) AS t (n)) TO '{folder}/bad'"))
        .says("22012", &[]);
    assert_eq!(names(Path::new(&format!("{folder}/bad"))), [""; 0]);
    client.fails(&format!("COPY (SELECT 1 AS a, 2 AS a) TO '{folder}/bad'")).says("42710", &["\"a\""]);
    client.fails(&format!("COPY (SELECT 1 AS a) TO '{folder}/bad' PARTITIONED BY (a)")).says("22023", &["left"]);
    client.fails(&format!("COPY (SELECT 1 AS a) TO '{folder}/bad' PARTITIONED BY (b)")).says("42703", &["\"b\""]);
    client.fails(&format!("COPY (SELECT INTERVAL '1 day' AS i) TO '{folder}/bad'")).says("42804", &["\"i\"", "text"]);
    client.fails(&format!("COPY (SELECT 1 AS a) TO '{folder}/bad' WITH (FORMAT orc)")).says("22023", &["orc"]);
    client.fails(&format!("COPY (SELECT 1 AS a) TO '{folder}/bad' WITH (HEDER)")).says("22023", &["header"]);
}

#[test]
fn a_cancelled_copy_leaves_nothing_behind() {
    let (mut server, client, folder) = started();
    let other = server.client();
    other.run("SET statement_timeout = '300ms'");
    let endless = "SELECT a.n * b.n AS n FROM generate_series(1, 100000) AS a (n), generate_series(1, 100000) AS b (n)";
    other.fails(&format!("COPY ({endless}) TO '{folder}/endless'")).says("57014", &[]);
    assert_eq!(client.one("SELECT 1"), "1");
    let folder = format!("{folder}/endless");
    let begun = std::time::Instant::now();
    // The writers end when they next look up from their work.
    while std::fs::read_dir(&folder).expect("it was made").next().is_some() {
        assert!(begun.elapsed() < crate::local::PATIENCE, "{:?}", names(Path::new(&folder)));
        std::thread::yield_now();
    }
}

fn create_stream(client: &Client, log: &Path) {
    client.run(&format!(
        "CREATE TABLE access (*, WATERMARK FOR ts AS ts)
         WITH (connector = 'file', path = '{}', idle_timeout = '1 hour', max_future = '36500 days') FORMAT COMBINED",
        log.display()
    ));
    client.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(bytes) AS bytes FROM access");
    client.run(
        "CREATE MATERIALIZED VIEW minutes AS SELECT window_start, count(*) AS n
         FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start",
    );
}

#[test]
fn old_files_are_imported_once() {
    let mut server = Server::start();
    let client = server.client();
    let log = server.log("access.log");
    lines::append(&log, (6000..6010).map(lines::numbered).collect::<String>());
    create_stream(&client, &log);
    client.run("FLUSH");
    let watermark = client.one("SELECT watermark::text FROM logweir.streams WHERE name = 'access'");

    // Ten minutes older than what the stream has.
    for (name, numbers) in [("old.1", 0..1000), ("old.2", 1000..2000)] {
        lines::append(&server.log(name), numbers.map(lines::numbered).collect::<String>() + "no access line\n");
    }
    let import = format!("IMPORT '{}' INTO access", server.log("old.*").display());
    client.run(&import);
    let total = (0..2000).sum::<u64>() + (6000..6010).sum::<u64>();
    let counted = format!("2010 {total}");
    assert_eq!(client.sorted("SELECT * FROM total"), [counted.as_str()]);
    assert_eq!(client.one("SELECT count(*) FROM access__malformed"), "2");
    assert_eq!(client.one("SELECT count(*) FROM access__late"), "2000");
    assert_eq!(
        client.one("SELECT watermark::text FROM logweir.streams WHERE name = 'access'"),
        watermark,
        "old rows do not move the time of a stream that goes on"
    );
    assert_eq!(
        client.sorted("SELECT * FROM minutes"),
        client.sorted("SELECT date_trunc('minute', ts), count(*) FROM access GROUP BY 1"),
    );
    // Live rows go on and are not late.
    lines::append(&log, (6010..6020).map(lines::numbered).collect::<String>());
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*) FROM access__late"), "2000");

    client.run(&import);
    let counted = format!("2020 {}", total + (6010..6020).sum::<u64>());
    assert_eq!(client.sorted("SELECT * FROM total"), [counted.as_str()], "nothing twice");
    drop(client);
    for _ in 0..2 {
        server.kill();
        server.again();
        let client = server.client();
        client.run(&import);
        assert_eq!(client.sorted("SELECT * FROM total"), [counted.as_str()], "nor after a restart");
        assert_eq!(client.one("SELECT count(*) FROM access__late"), "2000");
    }
    // More of a file, another file, the first one under another name.
    let client = server.client();
    std::fs::rename(server.log("old.1"), server.log("old.3")).expect("it is ours");
    lines::append(&server.log("old.2"), lines::numbered(2000));
    lines::append(&server.log("old.4"), lines::numbered(2001));
    client.run(&import);
    assert_eq!(client.one("SELECT n FROM total"), "2022");
    assert_eq!(client.one("SELECT count(*) FROM logweir.sources WHERE source = 'import'"), "0");

    client.fails("IMPORT '/no/such/file' INTO access").says("58P01", &["/no/such/file"]);
    client.fails("IMPORT '/no/such/*.log' INTO access").says("58P01", &["no file matches"]);
    client.fails(&format!("IMPORT '{}' INTO access", log.display())).says("55006", &["itself"]);
    client.fails(&format!("IMPORT '{}' INTO total", log.display())).says("42809", &["total"]);
    client.fails(&format!("IMPORT '{}' INTO acces", log.display())).says("42P01", &["access"]);
    client.fails("IMPORT INTO access").says("42601", &["IMPORT '"]);
}

#[test]
fn a_killed_import_goes_on_where_it_was() {
    let mut server = Server::start();
    let mut client = server.client();
    let log = server.log("access.log");
    lines::append(&log, "");
    create_stream(&client, &log);
    let text: String = (0..400_000).map(lines::numbered).collect();
    let packed = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("memory can be written");
    let cut = text[..text.len() / 2].rfind('\n').expect("there are lines") + 1;
    std::fs::write(server.log("old.log"), &text[..cut]).expect("there is room");
    std::fs::write(server.log("old.log.zst"), packed(&text[cut..])).expect("there is room");
    let import =
        format!("IMPORT '{}', '{}' INTO access", server.log("old.log").display(), server.log("old.log.zst").display());
    for _ in 0..3 {
        let address = server.postgres();
        let again = import.clone();
        let importing = std::thread::spawn(move || Client::connect(&address).attempt(&again).is_ok());
        let begun = std::time::Instant::now();
        let seen = client.number("SELECT rows FROM logweir.streams WHERE name = 'access'");
        // Some of it, but not all.
        while client.number("SELECT rows FROM logweir.streams WHERE name = 'access'") == seen
            && !importing.is_finished()
        {
            assert!(begun.elapsed() < crate::local::PATIENCE, "nothing is imported");
        }
        server.kill();
        importing.join().expect("the client does not panic");
        server.again();
        client = server.client();
    }
    client.run(&import);
    let total = (0..400_000u64).sum::<u64>();
    assert_eq!(client.sorted("SELECT * FROM total"), [format!("400000 {total}")]);
}

#[test]
fn a_stream_that_has_nothing_else_gets_its_time_from_old_files() {
    let mut server = Server::start();
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access (*, WATERMARK FOR ts AS ts)
         WITH (connector = 'file', path = '{}', idle_timeout = '100 ms', max_future = '36500 days') FORMAT COMBINED",
        server.log("none-*.log").display()
    ));
    client.run(
        "CREATE MATERIALIZED VIEW closed AS SELECT window_start, count(*) AS n
         FROM TUMBLE(access, ts, INTERVAL '1 second') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    );
    lines::append(&server.log("old.log"), (0..100).map(lines::numbered).collect::<String>());
    client.run(&format!("IMPORT '{}' INTO access", server.log("old.log").display()));
    // The last window closes when time has gone on with the wall clock for a second, not for ever.
    let begun = std::time::Instant::now();
    while client.one("SELECT coalesce(sum(n), 0) FROM closed") != "100" {
        assert!(begun.elapsed() < crate::local::PATIENCE, "the last window does not close");
    }
    lines::append(&server.log("none-1.log"), lines::numbered(100_000));
    // A pattern is looked at once a second.
    while client.one("SELECT count(*) FROM access") != "101" {
        client.run("FLUSH");
    }
    assert_eq!(client.one("SELECT count(*) FROM access__late"), "0");
}

#[test]
fn the_command_imports_without_a_server_and_names_the_statement_with_one() {
    let mut server = Server::start();
    let client = server.client();
    let log = server.log("access.log");
    lines::append(&log, lines::numbered(1));
    create_stream(&client, &log);
    lines::append(&server.log("old.log"), (100..200).map(lines::numbered).collect::<String>());
    let import = |server: &Server, words: &[&str]| {
        let output = Command::new(LOGWEIR)
            .arg("import")
            .arg("--data-dir")
            .arg(server.data_dir())
            .args(words)
            .current_dir(server.log(""))
            .stdin(Stdio::null())
            .output()
            .expect("the binary was built");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (done, _, said) = import(&server, &["old.log", "--into", "access"]);
    let statement = format!("IMPORT '{}' INTO access;", server.log("old.log").display());
    assert!(!done && said.contains("in use") && said.contains(&statement), "{said}");
    drop(client);
    server.terminate();
    let (done, said, err) = import(&server, &["old.log", "INTO", "access"]);
    assert!(done && said.contains("imported 100 lines of 1 file: 100 rows"), "{said}{err}");
    let (done, said, err) = import(&server, &["old.log", "--into", "access"]);
    assert!(done && said.contains("0 lines") && said.contains("1 file in full"), "{said}{err}");
    let (done, _, said) = import(&server, &["old.log", "--into", "acess"]);
    assert!(!done && said.contains("Did you mean \"access\"?"), "{said}");
    let (done, _, said) = import(&server, &["old.log"]);
    assert!(!done && said.contains("--into"), "{said}");
    server.again();
    assert_eq!(server.client().one("SELECT n FROM total"), "101");
}

#[test]
fn files_that_cannot_be_read_do_not_hold_up_the_others() {
    let mut server = Server::start();
    let client = server.client();
    let log = server.log("access.log");
    lines::append(&log, "");
    create_stream(&client, &log);
    lines::append(&server.log("a.log"), (0..10).map(lines::numbered).collect::<String>());
    let text: String = (10..20).map(lines::numbered).collect();
    let whole = zstd::encode_all(text.as_bytes(), 1).expect("memory can be written");
    std::fs::write(server.log("b.log.zst"), &whole[..whole.len() - 4]).expect("there is room");
    server.expect_log("source problem");
    let import =
        format!("IMPORT '{}', '{}' INTO access", server.log("a.log").display(), server.log("b.log.zst").display());
    let failure = client.fails(&import);
    assert!(failure.message.contains("b.log.zst"), "{failure:?}");
    let before = client.number("SELECT n FROM total");
    assert!(before >= 10, "a.log is in: {before}");
    std::fs::write(server.log("b.log.zst"), whole).expect("there is room");
    client.run(&import);
    assert_eq!(client.one("SELECT n FROM total"), "20");
}

#[test]
fn parquet_of_one_copy_is_one_file_when_it_is_small() {
    let (_server, client, folder) = started();
    client.run(&format!("COPY (SELECT 1 AS n) TO '{folder}/small'"));
    assert!(only_file(Path::new(&format!("{folder}/small"))).ends_with(".parquet"));
}
