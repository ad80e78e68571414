"""DuckDB's postgres extension: the server as an attached database, read by COPY in binary, joined with DuckDB's own tables,
and written to. The extension comes with a package, as DuckDB would download it otherwise."""
import importlib.metadata
import pathlib

import duckdb

from report import able, authority, database, fails, host, password, port, user

extension = next((pathlib.Path(duckdb.__file__).parent.parent / "duckdb_ext").rglob("postgres_scanner.duckdb_extension"))
db = duckdb.connect()
db.execute(f"LOAD '{extension}'")
where = f"host={host} port={port} user={user} dbname={database}"
db.execute(f"ATTACH '{where}' AS logs (TYPE postgres)")
able("connect", "password, TLS" if authority else "yes")
listed = {row[0] for row in db.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'logs' AND schema_name = 'public' UNION ALL SELECT view_name FROM duckdb_views() WHERE database_name = 'logs' AND schema_name = 'public'").fetchall()}
assert {"events", "plain"} <= listed, listed
columns = [row[:2] for row in db.execute("DESCRIBE logs.public.events").fetchall()]
assert columns == [("ts", "TIMESTAMP WITH TIME ZONE"), ("path", "VARCHAR"), ("n", "BIGINT")], columns
able("introspect", "schemas, tables, views, columns")
assert db.execute("SELECT path, n FROM logs.events WHERE n > 1 AND path = '/b' ORDER BY n").fetchall() == [("/b", 2), ("/b", 3)]
assert db.execute("SELECT epoch_us(ts) FROM logs.events WHERE n = 1").fetchone() == (1767225600000000,)
assert db.execute("SELECT count(*), sum(total) FROM logs.per_path").fetchone() == (2, 6)
db.execute("CREATE TABLE names AS SELECT * FROM (VALUES ('/a', 'start'), ('/b', 'end')) AS t(path, name)")
assert db.execute("SELECT name, sum(n)::bigint FROM logs.events JOIN names USING (path) WHERE n < 10 GROUP BY name ORDER BY name").fetchall() == [("end", 5), ("start", 1)]
able("binary", "yes (it reads by COPY)")
assert db.execute("SELECT * FROM postgres_query('logs', 'SELECT total FROM per_path WHERE path = ''/b''')").fetchall() == [(5,)]
db.execute("INSERT INTO logs.events SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00', 'duck', i FROM range(1000, 2000) AS t(i)")
assert db.execute("SELECT count(*), sum(n)::bigint FROM logs.events WHERE path = 'duck'").fetchone() == (1000, sum(range(1000, 2000)))
able("COPY", "binary")
db.execute("CALL postgres_execute('logs', 'SELECT 1')")
error = fails(duckdb.Error, lambda: db.execute("SELECT * FROM postgres_query('logs', 'SELECT * FROM nowhere')"))
assert "nowhere" in str(error)
db.execute("BEGIN; SELECT count(*) FROM logs.events; COMMIT")
db.execute("DETACH logs")
db.execute(f"ATTACH '{where}' AS logs (TYPE postgres, READ_ONLY)")
assert db.execute("SELECT count(*) FROM logs.per_path WHERE path = '/b'").fetchone() == (1,)
print("DuckDB", importlib.metadata.version("duckdb"), "ok")
