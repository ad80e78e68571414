"""postgres_fdw: a real PostgreSQL reads and writes streams and views as foreign tables. Called as
`postgres_fdw.py host port binary PORT`, with the port of that PostgreSQL on this machine."""
import sys
import threading

import psycopg
from psycopg import errors

from report import able, authority, database, fails, host, password, port, user

local = psycopg.connect(f"host=localhost port={sys.argv[4]} dbname={database}" + (f" user={sys.argv[5]}" if len(sys.argv) > 5 else f" user={database} sslmode=disable"), autocommit=True)
run = lambda sql: local.execute(sql)
rows = lambda sql: local.execute(sql).fetchall()
plan = lambda sql: "\n".join(row[0] for row in rows("EXPLAIN (VERBOSE, COSTS OFF) " + sql))

run("DROP SCHEMA IF EXISTS far CASCADE; DROP SERVER IF EXISTS logs CASCADE")
run("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
tls = f", sslmode 'verify-full', sslrootcert '{authority}'" if authority else ", sslmode 'disable'"
run(f"CREATE SERVER logs FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '{port}', dbname '{database}', fetch_size '100'{tls})")
run(f"CREATE USER MAPPING FOR CURRENT_USER SERVER logs OPTIONS (user '{user}', password '{password or 'x'}')")
run("CREATE SCHEMA far")
run("IMPORT FOREIGN SCHEMA public LIMIT TO (events, plain, per_path) FROM SERVER logs INTO far")
able("connect", "password, TLS" if authority else "yes")
columns = rows("SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE attrelid = 'far.events'::regclass AND attnum > 0 ORDER BY attnum")
assert columns == [("ts", "timestamp with time zone"), ("path", "text"), ("n", "bigint")], columns
assert {row[0] for row in rows("SELECT relname FROM pg_class WHERE relnamespace = 'far'::regnamespace AND relkind = 'f'")} == {"events", "plain", "per_path"}
able("introspect", "IMPORT FOREIGN SCHEMA, ANALYZE")

assert rows("SELECT path, n FROM far.events ORDER BY n") == [("/a", 1), ("/b", 2), ("/b", 3)]
where = "SELECT path, n FROM far.events WHERE path = '/b' AND n > 1 AND ts >= '2026-01-01 00:00:02+00'"
assert "WHERE" in plan(where) and "Filter" not in plan(where), plan(where)
assert rows(where) == [("/b", 3)]
grouped = "SELECT path, count(*), sum(n), avg(n)::float8 FROM far.events WHERE n < 10 GROUP BY path ORDER BY path"
assert "GROUP BY" in plan(grouped), plan(grouped)
assert rows(grouped) == [("/a", 1, 1, 1.0), ("/b", 2, 5, 2.5)]
both = "SELECT e.n, v.total FROM far.events e JOIN far.per_path v ON e.path = v.path WHERE e.n < 10 ORDER BY e.n LIMIT 2"
assert "JOIN" in plan(both), plan(both)
assert rows(both) == [(1, 1), (2, 5)]
run("DROP TABLE IF EXISTS names; CREATE TABLE names (path text, name text); INSERT INTO names VALUES ('/a', 'start'), ('/b', 'end')")
assert rows("SELECT m.name, v.total FROM far.per_path v JOIN names m USING (path) ORDER BY 1") == [("end", 5), ("start", 1)]
assert rows("SELECT (SELECT total FROM far.per_path v WHERE v.path = m.path) FROM names m ORDER BY m.path") == [(1,), (5,)]
for path, total in (("/a", 1), ("/b", 5)):
    assert local.execute("SELECT total FROM far.per_path WHERE path = %s", (path,), prepare=True).fetchall() == [(total,)]
able("parameters", "yes, with WHERE, joins and aggregates pushed down")

run("INSERT INTO far.events (ts, path, n) SELECT '2026-01-01 00:00:00+00', 'far', i FROM generate_series(1000, 1249) AS s(i)")
assert rows("SELECT count(*), min(n), max(n) FROM far.events WHERE path = 'far'") == [(250, 1000, 1249)]
run("ALTER SERVER logs OPTIONS (ADD batch_size '50')")
run("INSERT INTO far.events (ts, path, n) SELECT '2026-01-01 00:00:00+00', 'batch', i FROM generate_series(1, 120) AS s(i)")
with local.cursor() as cur, cur.copy("COPY far.events (ts, path, n) FROM STDIN") as copy:
    copy.write_row(("2026-01-01 00:00:00+00", "copied", 1))
assert rows("SELECT path, count(*) FROM far.events WHERE path IN ('batch', 'copied') GROUP BY path ORDER BY path") == [("batch", 120), ("copied", 1)]
able("COPY", "INSERT and COPY into a stream")
# More rows than one FETCH takes, in a transaction with a cursor of its own.
with local.transaction(), local.cursor(name="portions") as cur:
    cur.itersize = 30
    cur.execute("SELECT n FROM far.events WHERE path = 'far' ORDER BY n")
    assert [row[0] for row in cur] == list(range(1000, 1250))
run("ANALYZE far.events")
assert rows("SELECT reltuples FROM pg_class WHERE oid = 'far.events'::regclass")[0][0] > 300
run("DROP FOREIGN TABLE far.plain; CREATE FOREIGN TABLE far.plain (nope bigint) SERVER logs OPTIONS (schema_name 'public', table_name 'plain')")
fails(errors.UndefinedColumn, lambda: run("SELECT nope FROM far.plain"))
run("CREATE FOREIGN TABLE far.endless (i bigint) SERVER logs OPTIONS (schema_name 'public', table_name 'endless')")
with psycopg.connect(f"host={host} port={port} user={user} dbname={database}", autocommit=True) as there:
    there.execute("CREATE VIEW endless AS SELECT i::bigint AS i FROM generate_series(1, 100000000000) AS s(i)")
    try:
        threading.Timer(0.5, local.cancel).start()
        fails(errors.QueryCanceled, lambda: run("SELECT count(*) FROM far.endless"))
        assert rows("SELECT total FROM far.per_path WHERE path = '/b'") == [(5,)]
    finally:
        there.execute("DROP VIEW endless")
able("cancel")
version = local.info.parameter_status("server_version").split()[0]
print("postgres_fdw", version, "ok")
