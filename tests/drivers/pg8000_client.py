"""pg8000: a driver without libpq, which prepares every statement that has parameters."""
import io
import ssl
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pg8000.dbapi
import pg8000.native

from report import able, authority, database, fails, host, password, port, user

where = dict(user=user, host=host, port=port, database=database, password=password)
if authority:
    where["ssl_context"] = ssl.create_default_context(cafile=authority)
c = pg8000.native.Connection(**where, application_name="pg8000")
able("connect", "password, TLS" if authority else "yes")

at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
given = dict(a=42, b="häu\u20acser", c=at, d=0.5, e=True, f=Decimal("12.50"), g=[1, 2], h=None, i=date(2026, 1, 2), j=b"\x00\xff")
got = c.run(
    "SELECT :a::int, :b::text, :c::timestamptz, :d::float8, :e::bool, :f::numeric(10,2), :g::bigint[], :h::text, :i::date, :j::bytea", **given)
assert got == [list(given.values())], got
assert c.run("SELECT interval '1 day 2 hours'")[0][0] == timedelta(days=1, hours=2)
assert c.run("SELECT path, n FROM events WHERE n < :most AND path = :path ORDER BY n", most=10, path="/b") == [["/b", 2], ["/b", 3]]
assert [(column["name"], column["type_oid"]) for column in c.columns] == [("path", 25), ("n", 20)]
total = c.prepare("SELECT total FROM per_path WHERE path = :path")
assert [total.run(path=path) for path in ("/a", "/b")] == [[[1]], [[5]]]
total.close()
c.run("START TRANSACTION")
c.run("INSERT INTO events (ts, path, n) VALUES (:at, 'pg8000', 500)", at=at)
assert c.row_count == 1
c.run("COMMIT")
assert c.run("SELECT 1; SELECT 2") == [[1], [2]]
able("parameters", "yes, prepared")

out = io.BytesIO()
c.run("COPY (SELECT path, n FROM events WHERE n < 10 ORDER BY n) TO STDOUT WITH (FORMAT CSV)", stream=out)
assert out.getvalue() == b"/a,1\n/b,2\n/b,3\n", out.getvalue()
c.run("COPY events (ts, path, n) FROM STDIN", stream=["2026-01-01 00:00:00+00\tcopied\t700\n"])
assert c.run("SELECT path FROM events WHERE n = 700") == [["copied"]]
able("COPY", "text, csv")

error = fails(pg8000.native.DatabaseError, lambda: c.run("SELECT * FROM nowhere"))
assert error.args[0]["C"] == "42P01", error
c.run("SET statement_timeout = 300")
error = fails(pg8000.native.DatabaseError, lambda: c.run("SELECT count(*) FROM generate_series(1, 100000000000)"))
assert error.args[0]["C"] == "57014", error
c.run("RESET statement_timeout")
able("cancel", "by `statement_timeout`")

c.run("LISTEN jobs")
other = pg8000.native.Connection(**where)
other.run("SELECT pg_notify('jobs', :what)", what="done")
c.run("SELECT 1")
assert [(channel, payload) for _, channel, payload in c.notifications] == [("jobs", "done")], c.notifications
able("LISTEN")
other.close()
c.close()

# The interface of PEP 249.
d = pg8000.dbapi.connect(**where)
cur = d.cursor()
cur.executemany("INSERT INTO events (ts, path, n) VALUES (%s, %s, %s)", [(at, "dbapi", 600 + i) for i in range(5)])
d.commit()
cur.execute("SELECT count(*) FROM events WHERE path = %s", ("dbapi",))
assert cur.fetchone() == [5]
d.close()
import importlib.metadata
print("pg8000", importlib.metadata.version("pg8000"), "ok")
