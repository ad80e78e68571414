//! To whom things belong: who may create, drop, replace and give away what, with whose privileges a view reads, who one is;
//! and ways around all that.

use crate::server::{Client, Failure, Server};

/// A server with an administrator, a stream that is the administrators' and a user who may create objects; then another.
fn server() -> (Server, Client, Client, Client) {
    let mut server = Server::start();
    let first = server.client();
    first.run("CREATE TABLE secret (ts timestamptz, word text, WATERMARK FOR ts AS ts) FORMAT JSON");
    first.run("INSERT INTO secret VALUES ('2026-01-01 00:00:00Z', 'canary')");
    first.run("CREATE ROLE root ADMIN LOGIN PASSWORD 'x'");
    let root = log_in(&mut server, "root");
    root.run("CREATE USER alice PASSWORD 'x'; CREATE USER bob PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO alice");
    let (alice, bob) = (log_in(&mut server, "alice"), log_in(&mut server, "bob"));
    (server, root, alice, bob)
}

fn log_in(server: &mut Server, user: &str) -> Client {
    let logged_in: Result<Client, Failure> = Client::log_in(&server.postgres(), user, "x");
    logged_in.unwrap_or_else(|failure| panic!("{user}: {failure:?}"))
}

const OWN: &str = "CREATE TABLE own (ts timestamptz, n bigint, WATERMARK FOR ts AS ts)";

const COUNTS: &str = "CREATE MATERIALIZED VIEW counts AS SELECT window_start, count(*) AS n \
                      FROM TUMBLE(own, ts, INTERVAL '1 minute') GROUP BY window_start";

#[test]
fn what_somebody_creates_is_theirs() {
    let (mut server, root, alice, bob) = server();
    bob.fails(OWN).says("42501", &["schema public", "\"bob\"", "GRANT CREATE ON SCHEMA public TO \"bob\""]);
    alice.run(OWN);
    alice.run("INSERT INTO own VALUES ('2026-01-01 00:00:00Z', 1), ('2026-01-01 00:01:00Z', 2)");
    assert_eq!(alice.number("SELECT count(*) FROM own"), 2);
    alice.run(COUNTS);
    alice.run("CREATE VIEW plain AS SELECT n FROM counts; CREATE TABLE names AS SELECT 1 AS id, 'one' AS name");
    alice.run("CREATE OR REPLACE VIEW plain AS SELECT n, window_start FROM counts");
    alice.run("CREATE OR REPLACE TABLE names AS SELECT 1 AS id, 'two' AS name");
    assert_eq!(alice.sorted("SELECT n FROM plain"), ["1", "1"]);

    // Others need to be given something, by the owner.
    bob.fails("SELECT * FROM plain").says("42501", &["Its owner or an administrator"]);
    alice.run("GRANT SELECT ON plain TO bob");
    assert_eq!(bob.sorted("SELECT n FROM plain"), ["1", "1"]);
    bob.fails("SELECT * FROM counts").says("42501", &["SELECT on counts"]);
    bob.fails("GRANT SELECT ON plain TO bob").says("42501", &["must be owner of view plain", "\"alice\""]);
    alice.run("GRANT INSERT ON own TO bob");
    bob.run("INSERT INTO own VALUES ('2026-01-01 00:02:00Z', 3)");
    alice.fails("GRANT SELECT ON plain TO bob WITH GRANT OPTION").says("0A000", &["GRANT OPTION"]);
    alice.fails("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bob").says("0A000", &["logweir_read"]);
    alice.fails("DROP OWNED BY alice").says("0A000", &["REASSIGN OWNED"]);

    // Who owns what is shown as PostgreSQL shows it.
    let owners = "SELECT c.relname, pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class AS c \
                  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                  WHERE n.nspname = 'public' AND c.relname IN ('secret', 'own', 'own__late', 'counts', 'plain', 'names')";
    let shown = ["counts alice", "names alice", "own alice", "own__late alice", "plain alice", "secret logweir"];
    assert_eq!(bob.sorted(owners), shown);
    let by_role = "SELECT c.relname, r.rolname FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner \
                   WHERE c.relname IN ('own', 'plain')";
    assert_eq!(bob.sorted(by_role), ["own alice", "plain alice"]);
    assert_eq!(bob.one("SELECT viewowner FROM pg_views WHERE viewname = 'plain'"), "alice");
    assert_eq!(bob.one("SELECT matviewowner FROM pg_matviews WHERE matviewname = 'counts'"), "alice");
    assert_eq!(bob.one("SELECT tableowner FROM pg_tables WHERE tablename = 'own'"), "alice");
    assert_eq!(bob.one("SELECT logweir_acl('public', 'plain')"), "alice=ar/alice\nbob=r/alice");
    let grants = "SELECT role, privilege, relation FROM logweir.grants WHERE role <> 'logweir'";
    let given = [
        "alice CREATE NULL",
        "alice OWNER counts",
        "alice OWNER names",
        "alice OWNER own",
        "alice OWNER plain",
        "bob INSERT own",
        "bob SELECT plain",
    ];
    assert_eq!(root.sorted(grants), given);

    // All of it is kept.
    drop((root, alice, bob));
    assert!(server.terminate().success());
    server.again();
    let (root, alice, bob) = (log_in(&mut server, "root"), log_in(&mut server, "alice"), log_in(&mut server, "bob"));
    assert_eq!(root.sorted(grants), given);
    assert_eq!(bob.sorted("SELECT count(*) FROM plain"), ["3"]);
    alice.run("DROP TABLE own CASCADE");
    assert_eq!(root.sorted("SELECT relation FROM logweir.grants WHERE role = 'alice'"), ["NULL", "names"]);
    root.run("REVOKE CREATE ON SCHEMA public FROM alice");
    alice.fails("CREATE OR REPLACE TABLE names AS SELECT 1 AS id, 'x' AS name").says("42501", &["schema public"]);
    alice.run("DROP TABLE names");
}

#[test]
fn owners_change_and_stay_behind_their_objects() {
    let (mut server, root, alice, bob) = server();
    alice.run(OWN);
    alice.run(COUNTS);
    root.fails("DROP ROLE alice")
        .says("2BP01", &["\"alice\"", "table own", "materialized view counts", "REASSIGN OWNED"]);
    // Given away by who owns it and is a member of the heir, who may create objects.
    alice.fails("ALTER TABLE own OWNER TO bob").says("42501", &["must be member of role \"bob\""]);
    bob.fails("ALTER TABLE own OWNER TO bob").says("42501", &["must be owner of table own"]);
    root.run("GRANT bob TO alice");
    alice.fails("ALTER TABLE own OWNER TO bob").says("42501", &["schema public"]);
    root.run("GRANT CREATE ON SCHEMA public TO bob");
    alice.run("ALTER TABLE own OWNER TO bob");
    bob.run("INSERT INTO own VALUES ('2026-01-01 00:00:00Z', 1)");
    // Alice is a member of the owner, and so an owner too.
    assert_eq!(alice.number("SELECT count(*) FROM own"), 1);
    root.run("REVOKE bob FROM alice");
    alice.fails("SELECT * FROM own").says("42501", &[]);
    // Her view reads with her privileges, which she has no longer.
    alice.fails("SELECT * FROM counts").says("42501", &["SELECT on own", "\"counts\"", "of its owner"]);
    bob.run("GRANT SELECT ON own TO alice");
    assert_eq!(alice.number("SELECT n FROM counts"), 1);

    bob.fails("REASSIGN OWNED BY alice TO bob").says("42501", &["not a member of \"alice\""]);
    root.fails("REASSIGN OWNED BY nobody TO bob").says("42704", &["nobody"]);
    root.fails("ALTER VIEW nothing OWNER TO bob").says("42P01", &["nothing"]);
    root.fails("ALTER ALERT counts OWNER TO bob").says("42704", &["counts"]);
    root.run("REASSIGN OWNED BY alice TO bob; DROP ROLE alice");
    alice.fails("SELECT * FROM counts").says("42501", &[]);
    alice.fails("CREATE VIEW again AS SELECT 1 AS x").says("42501", &[]);
    root.run("ALTER MATERIALIZED VIEW counts OWNER TO current_user; REASSIGN OWNED BY logweir TO root");
    let owned = "SELECT relation, role FROM logweir.grants WHERE privilege = 'OWNER'";
    let shown = ["counts root", "own bob", "secret root"];
    assert_eq!(root.sorted(owned), shown);
    drop((root, alice, bob));
    server.kill();
    server.again();
    assert_eq!(log_in(&mut server, "root").sorted(owned), shown);
}

#[test]
fn nobody_gets_at_more_through_what_they_create() {
    let (server, root, alice, bob) = server();
    alice.run(OWN);
    root.run("CREATE VIEW words AS SELECT word FROM secret");
    root.run("CREATE NOTIFIER quiet WITH (type = 'log')");
    root.run("CREATE ALERT watched ON secret WHERE word = 'x' NOTIFY quiet");
    root.run(
        "CREATE MATERIALIZED VIEW many AS SELECT window_start, count(*) AS n \
         FROM TUMBLE(secret, ts, INTERVAL '1 minute') GROUP BY window_start",
    );
    let refused = [
        // What one may not read, through what one may make.
        "CREATE VIEW v AS SELECT * FROM secret",
        "CREATE VIEW v AS SELECT * FROM words",
        "CREATE VIEW v AS SELECT * FROM logweir.queries",
        "CREATE VIEW v AS SELECT * FROM pg_stat_activity",
        "CREATE VIEW v AS SELECT 1 AS x WHERE EXISTS (SELECT 1 FROM secret)",
        "CREATE VIEW v AS SELECT * FROM read_log('/etc/passwd', format => 'raw')",
        "CREATE VIEW v AS SELECT * FROM '/etc/passwd'",
        "CREATE MATERIALIZED VIEW v AS SELECT word, count(*) AS n FROM secret GROUP BY word",
        "CREATE TABLE t AS SELECT * FROM secret",
        "CREATE TABLE t AS SELECT * FROM many",
        "INSERT INTO own SELECT ts, 1 FROM secret",
        "CREATE ALERT a ON secret WHERE word = 'canary'",
        "CREATE ALERT a ON (SELECT * FROM secret)",
        "CREATE ALERT a ON own WHERE n > (SELECT count(*) FROM secret)",
        "CREATE ALERT a ON (SELECT n FROM own) WHERE EXISTS (SELECT 1 FROM words)",
        "CREATE ALERT a ON own WHERE n > 1 NOTIFY quiet",
        "CREATE REPORT r EVERY INTERVAL '1 day' AS SELECT count(*) AS n FROM own NOTIFY quiet",
        "CREATE REPORT r EVERY INTERVAL '1 day' AS SELECT * FROM words NOTIFY quiet",
        "BACKTEST ALERT watched FROM '2026-01-01' TO '2026-01-02'",
        "BACKTEST ALERT a ON secret WHERE word = 'canary' FROM '2026-01-01' TO '2026-01-02'",
        "BACKTEST ALERT a ON own WHERE n > (SELECT count(*) FROM secret) FROM '2026-01-01' TO '2026-01-02'",
        "SUBSCRIBE TO many",
        "SUBSCRIBE (SELECT * FROM secret)",
        "SHOW CREATE VIEW words",
        "SHOW CREATE ALERT watched",
        "SHOW CREATE NOTIFIER quiet",
        "EXPLAIN SELECT * FROM words",
        "EXPLAIN ANALYZE SELECT * FROM secret",
        "EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT word, count(*) AS n FROM secret GROUP BY word",
        // What is another's.
        "CREATE OR REPLACE VIEW words AS SELECT 1 AS word",
        "CREATE OR REPLACE MATERIALIZED VIEW many AS SELECT n, count(*) AS n2 FROM own GROUP BY n",
        "DROP VIEW words",
        "DROP TABLE secret CASCADE",
        "DROP ALERT watched",
        "DROP NOTIFIER quiet CASCADE",
        "GRANT SELECT ON secret TO alice",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO alice",
        "GRANT SELECT ON logweir.queries TO alice",
        "GRANT USAGE ON NOTIFIER quiet TO alice",
        "GRANT CREATE ON SCHEMA public TO bob",
        "GRANT logweir_external TO alice",
        "REVOKE SELECT ON secret FROM bob",
        "ALTER VIEW words OWNER TO alice",
        "ALTER TABLE own OWNER TO root",
        "REASSIGN OWNED BY root TO alice",
        "SILENCE ALERT watched UNTIL now() + INTERVAL '1 hour'",
        "ACKNOWLEDGE watched",
        "TEST NOTIFIER quiet",
        // Files and machines.
        "CREATE TABLE t WITH (connector = 'file', path = '/etc/passwd') FORMAT RAW",
        "CREATE TABLE t WITH (connector = 'datagen') FORMAT COMBINED",
        "CREATE TABLE t WITH (archive = '/tmp') FORMAT JSON",
        "CREATE TABLE t FORMAT GROK (pattern = '%{X:x}', patterns_dir = '/etc')",
        "CREATE TABLE t FORMAT GROK (pattern = '%{X:x}', \"PATTERNS_DIR\" = '/etc')",
        "CREATE SOURCE s INTO own WITH (connector = 'file', path = '/etc/passwd')",
        "CREATE SINK s FROM own WITH (connector = 'file', path = '/tmp/x')",
        "CREATE NOTIFIER n WITH (type = 'log')",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY own TO '/tmp/out.csv'",
        "PREVIEW (connector = 'file', path = '/etc/passwd')",
        "IMPORT '/etc/passwd' INTO own",
        "CREATE ROLE other",
        "CREATE TOKEN t FOR ROLE root",
    ];
    for statement in refused {
        let failure = alice.attempt(statement).err().unwrap_or_else(|| panic!("not refused: {statement}"));
        assert_eq!(failure.code, "42501", "{statement}: {failure:?}");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
    assert_eq!(root.number("SELECT count(*) FROM words"), 1);

    // With CASCADE nothing goes that is another's.
    alice.run("GRANT SELECT ON own TO bob");
    root.run("GRANT CREATE ON SCHEMA public TO bob; GRANT USAGE ON NOTIFIER quiet TO alice");
    bob.run("CREATE VIEW bobs AS SELECT n FROM own");
    alice.fails("DROP TABLE own").says("2BP01", &["bobs"]);
    alice.fails("DROP TABLE own CASCADE").says("42501", &["bobs", "must be owner"]);
    assert_eq!(bob.number("SELECT count(*) FROM bobs"), 0);

    // What somebody may, with what they were given.
    alice.run("CREATE ALERT a ON own WHERE n > 1 NOTIFY quiet; SILENCE ALERT a UNTIL now() + INTERVAL '1 hour'");
    alice.run(
        "SHOW CREATE ALERT a; BACKTEST ALERT a FROM '2026-01-01' TO '2026-01-02'; UNSILENCE ALERT a; DROP ALERT a",
    );
    bob.fails("CREATE ALERT b ON own WHERE n > 1 NOTIFY quiet").says("42501", &["notifier \"quiet\"", "USAGE"]);
    bob.fails("SELECT * FROM nothing").says("42P01", &[]);

    // A view ends with its owner's privileges, for everybody but administrators.
    alice.run("REVOKE SELECT ON own FROM bob");
    bob.fails("SELECT * FROM bobs")
        .says("42501", &["SELECT on own", "\"bobs\" reads it with the privileges of its owner"]);
    bob.run("GRANT SELECT ON bobs TO alice");
    alice.fails("SELECT * FROM bobs").says("42501", &["\"bob\"", "SELECT on own"]);
    root.run("SELECT * FROM bobs");

    // Reaching out is given by a role of its own; the server's environment is in nobody's reach.
    let file = server.log("any.log");
    std::fs::write(&file, "one\n").expect("the folder is there");
    root.run("GRANT logweir_external TO alice");
    let path = file.display();
    alice.run(&format!("CREATE TABLE lines WITH (connector = 'file', path = '{path}') FORMAT RAW"));
    assert_eq!(alice.number(&format!("SELECT count(*) FROM read_log('{path}', format => 'raw')")), 1);
    alice.run("CREATE NOTIFIER hook WITH (type = 'webhook', url = 'http://127.0.0.1:1/')");
    alice
        .fails("CREATE NOTIFIER n WITH (type = 'webhook', url = 'http://127.0.0.1:1/', secret = '${ENV:HOME}')")
        .says("42501", &["environment"]);
    alice.fails("CREATE SOURCE s INTO secret WITH (connector = 'datagen')").says("42501", &["owner of table secret"]);
    alice
        .fails("CREATE SINK s FROM secret WITH (connector = 'file', path = '/tmp/x')")
        .says("42501", &["SELECT on secret"]);
    alice.fails(&format!("COPY secret TO '{}'", server.log("out.csv").display())).says("42501", &["SELECT on secret"]);
}

#[test]
fn who_one_is_is_told_when_it_is_asked() {
    let (mut server, root, alice, bob) = server();
    let all = "SELECT current_user, current_role, user, session_user, system_user";
    assert_eq!(alice.one(all), "alice alice alice alice scram-sha-256:alice");
    let (names, _) = alice.table(all).expect("it runs");
    assert_eq!(names, ["current_user", "current_role", "user", "session_user", "system_user"]);
    assert_eq!(
        root.one("SELECT CURRENT_USER::text || 1, \"current_user\" FROM (SELECT 2 AS \"current_user\") AS t"),
        "root1 2"
    );
    // After SET ROLE, also in what was prepared and kept before.
    root.run("CREATE ROLE readers; GRANT readers TO alice");
    let prepared = alice.prepare("SELECT 1 WHERE current_user = 'readers' AND session_user = 'alice'");
    assert_eq!(prepared().expect("it runs"), 0);
    for _ in 0..3 {
        assert_eq!(alice.one("SELECT current_user, session_user"), "alice alice");
    }
    alice.run("SET ROLE readers");
    assert_eq!(prepared().expect("it runs"), 1);
    assert_eq!(alice.one("SELECT current_user, session_user"), "readers alice");
    assert_eq!(alice.one(all), "readers readers readers alice scram-sha-256:alice");
    alice.run("RESET ROLE");
    assert_eq!(prepared().expect("it runs"), 0);
    assert_eq!(alice.one("SELECT current_user, session_user"), "alice alice");
    drop(prepared);

    // In a view it is who reads; what is kept for everybody cannot ask.
    root.run("CREATE TABLE notes AS VALUES ('alice', 'a'), ('bob', 'b')");
    root.run("CREATE VIEW mine AS SELECT column2 AS note FROM notes WHERE column1 = current_user");
    root.run("GRANT SELECT ON mine TO alice, bob");
    assert_eq!((alice.one("SELECT * FROM mine"), bob.one("SELECT note FROM mine")), ("a".to_string(), "b".to_string()));
    let text = "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM secret WHERE word = current_user";
    root.fails(text).says("0A000", &["current_user", "a materialized view"]);
    root.fails("CREATE ALERT a ON secret WHERE word = session_user").says("0A000", &["session_user", "alert"]);
    root.fails("CREATE ALERT a ON mine WHERE note = 'a' EVERY INTERVAL '1 hour'").says("0A000", &["current_user"]);
    assert_eq!(root.sorted("EXPLAIN SELECT current_user").len(), 2);

    drop((root, alice, bob));
    let mut open = Server::start();
    assert_eq!(open.client().one(all), "logweir logweir logweir logweir NULL");
    assert!(server.terminate().success());
}

#[test]
fn privileges_are_told_as_postgresql_tells_them() {
    let (_server, root, alice, _bob) = server();
    alice.run(OWN);
    alice.run("CREATE VIEW plain AS SELECT n FROM own; GRANT SELECT ON plain TO bob");
    let told = |client: &Client, calls: &str| client.one(&format!("SELECT {calls}"));
    // By name and by id, with the role and without.
    for (calls, answer) in [
        ("has_table_privilege('own', 'SELECT'), has_table_privilege('secret', 'select')", "t f"),
        ("has_table_privilege('bob', 'plain', 'SELECT'), has_table_privilege('bob', 'public.plain', 'INSERT')", "t f"),
        ("has_table_privilege('bob', 'plain', 'INSERT, SELECT')", "t"),
        ("has_table_privilege('bob', 'plain', 'SELECT WITH GRANT OPTION')", "f"),
        ("has_table_privilege('plain', 'SELECT WITH GRANT OPTION'), has_table_privilege('own', 'UPDATE')", "t t"),
        ("has_table_privilege('root', 'secret', 'DELETE')", "t"),
        ("has_table_privilege('pg_class', 'SELECT'), has_table_privilege('logweir.queries', 'SELECT')", "t f"),
        ("has_table_privilege(99999999, 'SELECT'), has_table_privilege(NULL, 'plain', 'SELECT')", "NULL NULL"),
        ("has_any_column_privilege('bob', 'plain', 'SELECT')", "t"),
        (
            "has_column_privilege('bob', 'plain', 'n', 'SELECT'), has_column_privilege('bob', 'own', 'n', 'SELECT')",
            "t f",
        ),
        ("has_column_privilege('plain', 1, 'SELECT'), has_column_privilege('plain', 9, 'SELECT')", "t NULL"),
        ("has_schema_privilege('public', 'CREATE'), has_schema_privilege('bob', 'public', 'CREATE')", "t f"),
        ("has_schema_privilege('bob', 'public', 'USAGE'), has_schema_privilege('pg_catalog', 'CREATE')", "t f"),
        ("has_database_privilege('logweir', 'CONNECT'), has_database_privilege('logweir', 'CREATE')", "t f"),
        (
            "pg_has_role('alice', 'MEMBER'), pg_has_role('root', 'USAGE'), pg_has_role('root', 'alice', 'MEMBER')",
            "t f t",
        ),
        ("pg_has_role('bob', 'logweir_read', 'MEMBER')", "f"),
    ] {
        assert_eq!(told(&alice, calls), answer, "{calls}");
    }
    for (calls, answer) in [
        ("has_table_privilege(r.oid, c.oid, 'SELECT')", "t"),
        ("has_table_privilege(r.rolname, c.oid, 'SELECT')", "t"),
        ("has_table_privilege(c.oid, 'INSERT')", "t"),
        ("has_column_privilege(r.oid, c.oid, 'n', 'SELECT')", "t"),
        ("has_schema_privilege(r.oid, c.relnamespace, 'CREATE')", "f"),
        ("pg_has_role(c.relowner, 'USAGE'), pg_has_role(r.oid, 'USAGE')", "t f"),
    ] {
        let from = "FROM pg_class AS c, pg_roles AS r WHERE c.relname = 'plain' AND r.rolname = 'bob'";
        assert_eq!(told(&alice, &format!("{calls} {from}")), answer, "{calls}");
    }
    for (calls, code, text) in [
        ("has_table_privilege('nothing', 'SELECT')", "42P01", "nothing"),
        ("has_table_privilege('nobody', 'own', 'SELECT')", "42704", "role \"nobody\""),
        ("has_table_privilege('own', 'DANCE')", "22023", "unrecognized privilege type: \"DANCE\""),
        ("has_column_privilege('own', 'x', 'SELECT')", "42703", "\"x\""),
        ("has_schema_privilege('nowhere', 'USAGE')", "3F000", "nowhere"),
        ("has_database_privilege('nowhere', 'CONNECT')", "3D000", "nowhere"),
        ("pg_has_role('nobody', 'MEMBER')", "42704", "nobody"),
    ] {
        alice.fails(&format!("SELECT {calls}")).says(code, &[text]);
    }
    // As another.
    root.run("SET ROLE bob");
    assert_eq!(told(&root, "has_table_privilege('own', 'SELECT'), has_table_privilege('plain', 'SELECT')"), "f t");
    root.run("RESET ROLE");
    assert_eq!(told(&root, "has_table_privilege('own', 'SELECT')"), "t");
}
