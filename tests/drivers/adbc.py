"""ADBC's PostgreSQL driver, as pandas, Polars and Arrow programs use it: it reads by COPY in binary and writes by COPY in
binary, and asks the catalog for its types first."""
import threading
import time
from datetime import datetime, timezone

import adbc_driver_postgresql
import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa

from report import ENDLESS, able, authority, database, fails, host, password, port, user

uri = f"postgresql://{user}:{password or 'x'}@{host}:{port}/{database}?application_name=adbc"
if authority:
    uri += f"&sslmode=verify-full&sslrootcert={authority}"
c = adbc.connect(uri, autocommit=True)
able("connect", "password, TLS" if authority else "yes")
about = c.adbc_get_info()
assert about["vendor_name"] == "PostgreSQL" and about["vendor_version"].startswith("15"), about

schema = c.adbc_get_table_schema("events", db_schema_filter="public")
assert schema == pa.schema([("ts", pa.timestamp("us", "UTC")), ("path", pa.string()), ("n", pa.int64())]), schema
assert c.adbc_get_table_schema("per_path").names == ["path", "total"]
listed = c.adbc_get_objects(depth="all", db_schema_filter="public", table_name_filter="events").read_all().to_pylist()
here = [catalog for catalog in listed if catalog["catalog_name"] == database][0]
tables = [table for s in here["catalog_db_schemas"] for table in s["db_schema_tables"]]
assert [table["table_name"] for table in tables] == ["events"] and tables[0]["table_type"] == "table", tables
assert [(column["column_name"], column["ordinal_position"]) for column in tables[0]["table_columns"]] == [("ts", 1), ("path", 2), ("n", 3)], tables
assert tables[0]["table_constraints"] == [], tables
kinds = c.adbc_get_objects(depth="tables", db_schema_filter="public").read_all().to_pylist()
kinds = {table["table_name"]: table["table_type"] for catalog in kinds if catalog["catalog_name"] == database for s in catalog["catalog_db_schemas"] for table in s["db_schema_tables"]}
assert kinds["plain"] == "view" and kinds["per_path"] == "materialized view", kinds
assert {"table", "view", "materialized_view"} <= set(c.adbc_get_table_types()), c.adbc_get_table_types()
able("introspect", "`get_objects`, `get_table_schema`")

at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
with c.cursor() as cur:
    cur.execute("SELECT path, n, ts, 0.5::float8 AS f, n > 1 AS b, 12.5::numeric(10,2) AS d, ARRAY[n] AS l FROM events WHERE n < 10 ORDER BY n")
    got = cur.fetch_arrow_table()
    assert got.column("path").to_pylist() == ["/a", "/b", "/b"] and got.column("n").to_pylist() == [1, 2, 3], got
    assert got.column("ts").to_pylist()[0] == datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert got.column("f").to_pylist() == [0.5] * 3 and got.column("b").to_pylist() == [False, True, True]
    assert got.column("d").to_pylist() == ["12.50"] * 3 and got.column("l").to_pylist() == [[1], [2], [3]], got
    # Without COPY it reads what Execute gives, in binary too.
    cur.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
    cur.execute("SELECT path, n FROM events WHERE n < 10 ORDER BY n")
    assert cur.fetch_arrow_table().column("n").to_pylist() == [1, 2, 3]
    assert cur.adbc_execute_schema("SELECT path, n FROM events").names == ["path", "n"]
able("binary")
with c.cursor() as cur:
    cur.execute("SELECT total FROM per_path WHERE path = $1", ("/b",))
    assert cur.fetchall() == [(5,)]
    cur.execute("SELECT $1::int AS a, $2::text AS b, $3::timestamptz AS c, $4::float8 AS d, $5::bool AS e, $6::bytea AS f", (42, "häuser", at, 0.5, True, b"\x00\xff"))
    assert cur.fetchall() == [(42, "häuser", at, 0.5, True, b"\x00\xff")]
    cur.executemany("INSERT INTO events (ts, path, n) VALUES ($1, $2, $3)", [(at, "adbc", 500 + i) for i in range(5)])
able("parameters", "yes, as batches of rows")
rows = pa.table({"ts": pa.array([at] * 1000, pa.timestamp("us", "UTC")), "path": ["ingested"] * 1000, "n": pa.array(range(1000, 2000), pa.int64())})
with c.cursor() as cur:
    assert cur.adbc_ingest("events", rows, mode="append") == 1000
    cur.execute("SELECT count(*), sum(n) FROM events WHERE path = 'ingested'")
    assert [int(value) for value in cur.fetchone()] == [1000, sum(range(1000, 2000))]
able("COPY", "binary (`adbc_ingest`)")

with c.cursor() as cur:
    error = fails(adbc_driver_postgresql.dbapi.ProgrammingError, lambda: cur.execute("SELECT * FROM nowhere"))
    assert error.sqlstate == "42P01", error
with c.cursor() as cur:
    threading.Timer(0.3, cur.adbc_cancel).start()
    fails(adbc.Error, lambda: (cur.execute(ENDLESS), cur.fetchall()))
able("cancel")
c.close()
d = adbc.connect(uri)
with d.cursor() as cur:
    cur.execute("SELECT 1")
    assert cur.fetchall() == [(1,)]
d.rollback()
d.close()
print("ADBC", adbc_driver_postgresql.__version__, "ok")
