//! Reference tables: a changed table applies to rows from then on, live as well as after restarts and in views made
//! later; joins with them equal the same query run as a batch.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::batch::same;
use crate::lines;
use crate::server::{Client, Server};

const BY_NAME: &str = "SELECT n.name, count(*) AS n, sum(a.bytes) AS bytes
                       FROM access a JOIN names n ON n.client = a.client GROUP BY n.name";

/// A server that follows `access.log`, which is empty.
fn following() -> (Server, Client) {
    let mut server = Server::start();
    let path = server.log("access.log");
    lines::append(&path, "");
    let client = server.client();
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}', hot_bytes = '16 KiB', wal_segment_bytes = '16 KiB')
         FORMAT COMBINED",
        path.display()
    ));
    (server, client)
}

/// Appends numbered lines and waits until they are counted.
fn append(server: &Server, client: &Client, numbers: std::ops::Range<u64>) {
    let text: String = numbers.map(lines::numbered).collect();
    lines::append(&server.log("access.log"), text);
    client.run("FLUSH");
}

#[test]
fn a_changed_table_applies_to_rows_from_then_on() {
    let (mut server, client) = following();
    client.run("CREATE TABLE names (client, name) AS VALUES ('10.0.0.1', 'ann'), ('10.0.0.2', 'bob')");
    client.run(&format!("CREATE MATERIALIZED VIEW live AS {BY_NAME}"));
    append(&server, &client, 0..10);
    assert_eq!(client.sorted("SELECT * FROM live"), ["ann 1 1", "bob 1 2"]);
    client.run("CREATE OR REPLACE TABLE names (client, name) AS VALUES ('10.0.0.1', 'eve'), ('10.0.0.3', 'bob')");
    assert_eq!(client.sorted("SELECT * FROM live"), ["ann 1 1", "bob 1 2"], "what was counted stays");
    append(&server, &client, 250..260);
    let wanted = ["ann 1 1", "bob 2 255", "eve 1 251"];
    assert_eq!(client.sorted("SELECT * FROM live"), wanted);
    // A view made now is filled from history: each row joins what it joined then.
    let later = BY_NAME.replace("count(*)", "sum(1)");
    client.run(&format!("CREATE MATERIALIZED VIEW later AS {later}"));
    assert_eq!(client.sorted("SELECT * FROM later"), wanted);
    assert_eq!(client.sorted(BY_NAME), ["bob 2 256", "eve 2 252"], "a batch takes the table as it is");
    for _ in 0..2 {
        server.kill();
        server.again();
        let client = server.client();
        for view in ["live", "later"] {
            assert_eq!(client.sorted(&format!("SELECT * FROM {view}")), wanted, "{view} after a restart");
        }
        assert_eq!(client.sorted("SELECT * FROM names"), ["10.0.0.1 eve", "10.0.0.3 bob"]);
    }
    let client = server.client();
    let explained = client.sorted("EXPLAIN ANALYZE VIEW live").join("\n");
    for text in ["joined with \"names\": version 1, version 2 from offset 10", "folded: 20 rows"] {
        assert!(explained.contains(text), "no {text:?} in {explained}");
    }
    client.run("DROP MATERIALIZED VIEW live");
    assert_eq!(client.number("SELECT versions FROM logweir.relations WHERE name = 'names'"), 2);
    client.run("DROP MATERIALIZED VIEW later");
    assert_eq!(client.number("SELECT versions FROM logweir.relations WHERE name = 'names'"), 1, "no row joins the old");
    // From the beginning with what there is.
    client.run(&format!("CREATE MATERIALIZED VIEW anew AS {BY_NAME}"));
    assert_eq!(client.sorted("SELECT * FROM anew"), ["bob 2 256", "eve 2 252"]);
    client.run("DROP TABLE names CASCADE");
    assert!(!server.data_dir().join("tables").read_dir().is_ok_and(|mut d| d.next().is_some()), "its files are gone");
}

/// Rows come while the table is replaced, so nobody knows beforehand where the change falls. But wherever it fell, it
/// stays there: after every restart and for every view.
#[test]
fn a_change_stays_where_it_fell() {
    for seed in 1..=4 {
        println!("round {seed}");
        let random = &mut StdRng::seed_from_u64(seed);
        let (mut server, mut client) = following();
        let names = |random: &mut StdRng| -> String {
            let mut rows = Vec::new();
            for n in 1..6 {
                if random.random_range(0..3) > 0 {
                    rows.push(format!("('10.0.0.{n}', 'name {}')", random.random_range(0..4)));
                }
            }
            if rows.is_empty() { "('10.0.0.1', 'alone')".into() } else { rows.join(", ") }
        };
        client.run(&format!("CREATE TABLE names (client, name) AS VALUES {}", names(random)));
        client.run(&format!("CREATE MATERIALIZED VIEW v0 AS {BY_NAME}"));
        let (mut seconds, mut views) = (lines::START, 1);
        for step in 0..8 {
            let mut text = String::new();
            for _ in 0..random.random_range(0..300) {
                seconds += random.random_range(0..4);
                text += &lines::random(random, seconds);
                if random.random_range(0..20) == 0 {
                    text += "not a line of an access log\n";
                }
            }
            for piece in lines::pieces(random, text.as_bytes(), 4) {
                lines::append(&server.log("access.log"), piece);
                if random.random_range(0..3) == 0 {
                    client.run(&format!("CREATE OR REPLACE TABLE names (client, name) AS VALUES {}", names(random)));
                }
            }
            match random.random_range(0..4) {
                0 => {
                    client.run("FLUSH");
                    let before = client.sorted("SELECT * FROM v0");
                    if random.random_bool(0.5) {
                        server.kill();
                    } else {
                        assert!(server.terminate().success());
                    }
                    server.again();
                    client = server.client();
                    assert_eq!(client.sorted("SELECT * FROM v0"), before, "seed {seed}, step {step}");
                }
                1 => {
                    // The same, kept apart from the others.
                    let query = BY_NAME.replace("count(*)", &format!("sum(1) + 0 * count(a.path || '{views}')"));
                    client.run(&format!("CREATE MATERIALIZED VIEW v{views} AS {query}"));
                    views += 1;
                }
                _ => {}
            }
        }
        client.run("FLUSH");
        let wanted = client.sorted("SELECT * FROM v0");
        assert!(!wanted.is_empty());
        for view in 1..views {
            assert_eq!(client.sorted(&format!("SELECT * FROM v{view}")), wanted, "seed {seed}, view v{view}");
        }
        server.kill();
        server.again();
        let client = server.client();
        for view in 0..views {
            assert_eq!(client.sorted(&format!("SELECT * FROM v{view}")), wanted, "seed {seed}, v{view} at the end");
        }
    }
}

#[test]
fn joins_equal_their_batch() {
    let (server, client) = following();
    client.run("CREATE TABLE clients (client, name, level) AS VALUES
                ('10.0.0.1', 'ann', 1), ('10.0.0.2', 'bob', 2), ('10.0.0.2', 'bea', 1), (NULL, 'nil', 3), ('10.0.0.9', 'zed', 1);
                CREATE TABLE codes (code, word) AS VALUES (200, 'ok'), (404, 'lost'), (500, 'broken'), (500, 'bad');
                CREATE TABLE nobody (client, name) AS SELECT client, name FROM clients WHERE false");
    let queries = [
        "SELECT c.name, w.word, count(*) AS n, sum(bytes) AS b FROM access a JOIN clients c ON c.client = a.client
         LEFT JOIN codes w ON w.code = a.status GROUP BY c.name, w.word",
        "SELECT w.word, count(*) AS n FROM codes w RIGHT JOIN access a ON w.code = a.status AND a.bytes > 1000 GROUP BY w.word",
        "SELECT c.name, count(*) AS n FROM access a LEFT JOIN clients c ON c.client = a.client AND c.level * 20000 < a.bytes GROUP BY c.name",
        "SELECT c.level, count(*) AS n FROM access a CROSS JOIN clients c WHERE a.status > 400 GROUP BY c.level",
        "SELECT c.name, a.status, count(*) AS n FROM access a, clients c, codes w
         WHERE a.client = c.client AND a.status = w.code AND (c.level = 1 OR w.word = 'bad') GROUP BY c.name, a.status",
        "SELECT count(*) AS n, count(DISTINCT path) AS p FROM access WHERE client IN (SELECT client FROM clients WHERE level = 1)",
        "SELECT status, count(*) AS n FROM access WHERE remote_user NOT IN (SELECT name FROM clients) GROUP BY status",
        "SELECT status, count(*) AS n FROM access WHERE remote_user NOT IN (SELECT client FROM clients) GROUP BY status",
        "SELECT status, count(*) AS n FROM access WHERE remote_user NOT IN (SELECT client FROM nobody) GROUP BY status",
        "SELECT status, count(*) AS n FROM access a WHERE NOT EXISTS (SELECT 1 FROM codes w WHERE w.code = a.status AND length(w.word) * 10000 < a.bytes) GROUP BY status",
        "SELECT method, count(*) AS n FROM access a WHERE EXISTS (SELECT 1 FROM clients c WHERE c.client = a.client AND c.level < 2) GROUP BY method",
        "SELECT count(*) AS n FROM access a WHERE a.bytes IS NULL OR a.client IN (SELECT client FROM clients) OR NOT EXISTS (SELECT 1 FROM codes WHERE code = a.status)",
        "SELECT a.path, max(c.most) AS most FROM access a JOIN (SELECT client, max(level) AS most FROM clients GROUP BY client) c ON c.client = a.client GROUP BY a.path",
        "SELECT n.name, count(*) AS n FROM access a LEFT JOIN nobody n ON n.client = a.client GROUP BY n.name",
        "SELECT n.name, count(*) AS n FROM access a JOIN nobody n ON n.client = a.client GROUP BY n.name",
        "SELECT DISTINCT c.name FROM access a JOIN clients c ON c.client = a.client WHERE a.status = 503",
        "SELECT a.remote_user, count(c.name) AS n FROM access a LEFT JOIN clients c ON c.name IS NOT DISTINCT FROM a.remote_user GROUP BY a.remote_user",
        "SELECT a.remote_user, count(*) AS n FROM access a JOIN clients c ON c.client IS NOT DISTINCT FROM a.remote_user GROUP BY a.remote_user",
        "SELECT count(*) AS n FROM access a WHERE a.bytes > (SELECT max(c.level) * 10000 FROM clients c WHERE c.client = a.client)",
        "SELECT window_start, c.name, sum(bytes) AS b, count(DISTINCT a.path) AS p
         FROM HOP(access, ts, INTERVAL '7 seconds', INTERVAL '20 seconds') a JOIN clients c ON c.client = a.client
         WHERE a.status < 500 GROUP BY window_start, c.name HAVING count(*) > 1",
        "SELECT window_start, window_end, c.name, count(*) AS n FROM TUMBLE((SELECT a.ts, c.name FROM access a JOIN clients c ON c.client = a.client), ts, INTERVAL '1 minute') AS c
         GROUP BY window_start, window_end, c.name",
        "SELECT w.word, count(*) AS n FROM HOP(access, ts, INTERVAL '1 minute', INTERVAL '2 minutes') a
         JOIN (VALUES (TIMESTAMPTZ '2026-01-01 00:03:00Z', 'third'), (TIMESTAMPTZ '2026-01-01 00:05:00Z', 'fifth')) AS w (at, word) ON w.at = a.window_start GROUP BY w.word",
        "SELECT c.name, count(*) AS n FROM (SELECT client, ts FROM access WHERE status <> 304 UNION SELECT client, ts FROM access WHERE false) a JOIN clients c ON c.client = a.client GROUP BY c.name",
    ];
    let random = &mut StdRng::seed_from_u64(7);
    let mut seconds = lines::START;
    let mut text = |count: usize| -> String {
        let line = |_: usize| {
            seconds += random.random_range(0..4);
            lines::random(random, seconds)
        };
        (0..count).map(line).collect()
    };
    let path = server.log("access.log");
    lines::append(&path, text(200));
    client.run("FLUSH");
    let mut refused = 0;
    for (i, query) in queries.iter().enumerate() {
        if let Err(failure) = client.attempt(&format!("CREATE MATERIALIZED VIEW v{i} AS {query}")) {
            assert_eq!(failure.code, "0A000", "{failure:?} for {query}");
            refused += 1;
        }
    }
    assert_eq!(refused, 1, "the union of streams is");
    for count in [1, 500, 3000] {
        lines::append(&path, text(count));
        client.run("FLUSH");
        for (i, query) in queries.iter().enumerate().take(queries.len() - refused) {
            same(&client, &format!("view v{i}"), &format!("SELECT * FROM v{i}"), query, 0.0);
        }
    }
}

#[test]
fn files_are_loaded_when_a_view_joins_them() {
    let (mut server, client) = following();
    let path = server.log("people.csv");
    std::fs::write(&path, "client,name\n10.0.0.1,ann\n").expect("it is ours");
    client.run(&format!(
        "CREATE EXTERNAL TABLE people (client text, name text) STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true')",
        path.display()
    ));
    let query = BY_NAME.replace("names", "people");
    client.run(&format!("CREATE MATERIALIZED VIEW first AS {query}"));
    append(&server, &client, 0..10);
    std::fs::write(&path, "client,name\n10.0.0.1,eve\n10.0.0.2,bob\n").expect("it is ours");
    append(&server, &client, 250..260);
    assert_eq!(client.sorted("SELECT * FROM first"), ["ann 2 252"], "the files as they were");
    assert_eq!(client.sorted("SELECT name FROM people"), ["bob", "eve"], "a query reads them as they are");
    // The next view reads them again; that applies from now on.
    client.run(&format!("CREATE MATERIALIZED VIEW second AS {}", query.replace("count(*)", "sum(1)")));
    append(&server, &client, 500..510);
    let wanted = ["ann 2 252", "bob 1 502", "eve 1 501"];
    for view in ["first", "second"] {
        assert_eq!(client.sorted(&format!("SELECT * FROM {view}")), wanted, "{view}");
    }
    std::fs::write(&path, "client,name\n10.0.0.1,zoe\n").expect("it is ours");
    server.kill();
    server.again();
    let client = server.client();
    for view in ["first", "second"] {
        assert_eq!(client.sorted(&format!("SELECT * FROM {view}")), wanted, "{view} after a restart");
    }
    client.run("DROP TABLE people CASCADE");
}

#[test]
fn a_table_that_is_too_large_is_refused_by_name_of_the_setting() {
    let mut server = Server::prepare();
    server.use_arguments(&["--table-memory", "8 kB"]);
    server.launch();
    let client = server.client();
    let path = server.log("access.log");
    lines::append(&path, (0..500).map(lines::numbered).collect::<String>());
    client.run(&format!(
        "CREATE TABLE access WITH (connector = 'file', path = '{}') FORMAT COMBINED; FLUSH",
        path.display()
    ));
    client.fails("CREATE TABLE all_of_it AS SELECT * FROM access").says("53200", &["table-memory"]);
    let csv = server.log("people.csv");
    let rows: String = (0..2000).map(|n| format!("10.0.0.{n},somebody with a long name, number {n}\n")).collect();
    std::fs::write(&csv, rows).expect("it is ours");
    client.run(&format!(
        "CREATE EXTERNAL TABLE people (client text, name text, more text) STORED AS CSV LOCATION '{}'
         OPTIONS ('format.has_header' 'false')",
        csv.display()
    ));
    let view = format!("CREATE MATERIALIZED VIEW v AS {}", BY_NAME.replace("names", "people"));
    client.fails(&view).says("53200", &["external table \"people\"", "table-memory"]);
    client.run("CREATE TABLE small AS SELECT DISTINCT client FROM access WHERE bytes < 50");
    let view = "CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM access a
                JOIN (SELECT l.client FROM small l CROSS JOIN small r) s ON s.client = a.client";
    client.fails(view).says("53200", &["\"small\"", "table-memory"]);
    assert_eq!(
        client.sorted("SELECT name FROM logweir.relations WHERE kind NOT IN ('malformed lines', 'late rows')"),
        ["access", "people", "small"]
    );
}

#[test]
fn replaced_relations_come_back_after_a_restart() {
    let (mut server, client) = following();
    append(&server, &client, 0..10);
    client.run(
        "CREATE VIEW low AS SELECT * FROM access WHERE bytes < 3;
                CREATE MATERIALIZED VIEW lows AS SELECT count(*) AS n FROM low;
                CREATE VIEW twice AS SELECT n * 2 AS n FROM lows;
                CREATE TABLE limits AS VALUES (5);
                CREATE VIEW other AS SELECT * FROM access WHERE bytes < (SELECT max(column1) FROM limits)",
    );
    // It now reads what was made after it.
    client.run("CREATE OR REPLACE VIEW low AS SELECT * FROM access WHERE bytes IN (SELECT column1 FROM limits)");
    assert_eq!(client.number("SELECT n FROM twice"), 2);
    client.fails("DROP TABLE limits").says("2BP01", &["view \"low\"", "view \"twice\""]);
    client.run("CREATE OR REPLACE TABLE limits AS VALUES (1), (2), (7)");
    append(&server, &client, 0..10);
    assert_eq!(client.number("SELECT n FROM twice"), 2 + 2 * 3, "old rows joined 5, new ones 1, 2 and 7");
    server.kill();
    server.again();
    let client = server.client();
    assert_eq!(client.number("SELECT n FROM twice"), 8);
    assert_eq!(client.number("SELECT count(*) FROM other"), 14);
    client.run("CREATE OR REPLACE VIEW low AS SELECT * FROM access WHERE bytes < 2");
    assert_eq!(client.number("SELECT n FROM twice"), 8);
    server.kill();
    server.again();
    assert_eq!(server.client().number("SELECT n FROM twice"), 8);
}

#[test]
fn a_damaged_table_file_ends_the_start_with_its_name() {
    let (mut server, client) = following();
    client.run("CREATE TABLE names AS VALUES (1)");
    assert!(server.terminate().success());
    let folder = server.data_dir().join("tables");
    let object = std::fs::read_dir(folder).expect("it has a table").next().expect("one").expect("readable").path();
    let file = object.join("1.table");
    let mut bytes = std::fs::read(&file).expect("it has one version");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("it is ours");
    let output = std::process::Command::new(crate::server::LOGWEIR)
        .args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
        .arg(server.data_dir())
        .output()
        .expect("the binary was built");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1.table") && text.contains("names"), "{text}");
}
