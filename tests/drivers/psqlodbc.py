"""psqlODBC, the driver of Tableau, Power BI, Excel and LibreOffice, through unixODBC and pyodbc: its catalog functions
(SQLTables, SQLColumns, …), parameters, a cancelled statement, its ways to fetch."""
import threading
import time
from datetime import date, datetime
from decimal import Decimal

import pyodbc

from report import ENDLESS, able, authority, database, fails, host, password, port, user

pyodbc.pooling = False
settings = {
    "Driver": "PostgreSQL Unicode", "Servername": host, "Port": port, "Database": database, "UID": user, "PWD": password or "x",
    "SSLmode": "verify-full" if authority else "disable",
}


def connect(**others):
    return pyodbc.connect(";".join(f"{name}={value}" for name, value in (settings | others).items()), autocommit=True)


c = connect()
able("connect", "password, TLS" if authority else "yes")
assert c.getinfo(pyodbc.SQL_DBMS_NAME) == "PostgreSQL" and c.getinfo(pyodbc.SQL_DBMS_VER).startswith("15"), c.getinfo(pyodbc.SQL_DBMS_VER)

cur = c.cursor()
kinds = {row.table_name: row.table_type for row in cur.tables(schema="public")}
assert (kinds["events"], kinds["plain"]) == ("TABLE", "VIEW") and kinds["per_path"] in ("VIEW", "MATVIEW", "MATERIALIZED VIEW"), kinds
assert [row.table_name for row in cur.tables(table="events", schema="public", tableType="TABLE")] == ["events"]
columns = [(row.column_name, row.type_name, row.ordinal_position) for row in cur.columns(table="events", schema="public")]
assert columns == [("ts", "timestamptz", 1), ("path", "text", 2), ("n", "int8", 3)], columns
assert [row.column_name for row in cur.columns(table="per_path")] == ["path", "total"]
assert cur.primaryKeys(table="events").fetchall() == []
assert cur.foreignKeys(table="events").fetchall() == []
assert [row for row in cur.statistics("events").fetchall() if row.index_name] == []
cur.rowIdColumns("events").fetchall()
cur.procedures().fetchall()
types = {row.type_name for row in cur.getTypeInfo().fetchall()}
assert {"int8", "text", "timestamptz", "bool", "float8", "numeric"} <= types, types
able("introspect", "SQLTables, SQLColumns, keys, statistics, types")

at = datetime(2026, 1, 2, 3, 4, 5, 678000)
for prepare in (1, 0):
    # With UseServerSidePrepare the driver sends Parse and Bind, without it puts values into the text.
    d = connect(UseServerSidePrepare=prepare, ByteaAsLongVarBinary=1)
    given = (42, "häu\u20acser", at, 0.5, Decimal("12.50"), date(2026, 1, 2), b"\x00\xff", None)
    row = d.execute("SELECT ?::int, ?::text, ?::timestamp, ?::float8, ?::numeric(10,2), ?::date, ?::bytea, ?::text", given).fetchone()
    assert tuple(row) == given, tuple(row)
    assert [tuple(row) for row in d.execute("SELECT path, n FROM events WHERE n < ? AND path = ? ORDER BY n", 10, "/b")] == [("/b", 2), ("/b", 3)]
    for path, total in (("/a", 1), ("/b", 5)):
        assert d.execute("SELECT total FROM per_path WHERE path = ?", path).fetchval() == total
    insert = d.cursor()
    insert.executemany("INSERT INTO events (ts, path, n) VALUES (?, ?, ?)", [(at, f"odbc{prepare}", 800 + i) for i in range(5)])
    insert.fast_executemany = True
    insert.executemany("INSERT INTO events (ts, path, n) VALUES (?, ?, ?)", [(at, f"odbc{prepare}", 805 + i) for i in range(5)])
    assert d.execute("SELECT count(*) FROM events WHERE path = ?", f"odbc{prepare}").fetchval() == 10
    d.close()
d = connect(UseDeclareFetch=1, Fetch=10)
d.autocommit = False
assert [row[0] for row in d.execute("SELECT i FROM generate_series(1, 95) AS s(i)").fetchall()] == list(range(1, 96))
d.commit()
d.execute("INSERT INTO events (ts, path, n) VALUES ('2026-01-01 00:00:00+00', 'committed', 900)")
d.commit()
d.close()
able("parameters", "yes, prepared on the server or not, arrays of rows, cursors (UseDeclareFetch)")

fails(pyodbc.ProgrammingError, lambda: c.execute("SELECT * FROM nowhere"), lambda err: err.args[0] in ("42P01", "42S02"))
waiting = c.cursor()
threading.Timer(0.3, waiting.cancel).start()
error = fails(pyodbc.Error, lambda: waiting.execute(ENDLESS))
assert error.args[0] in ("57014", "HY008"), error.args
able("cancel")
assert c.execute("SELECT 1").fetchval() == 1
version = c.getinfo(pyodbc.SQL_DRIVER_VER)
c.close()
print("psqlODBC", version, "ok")
