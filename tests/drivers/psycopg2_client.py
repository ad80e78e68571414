"""psycopg2, as Superset, Airflow, dbt and older programs use it: text values, COPY by file objects, named cursors, async
notifications."""
import io
import select
import threading
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import psycopg2
import psycopg2.extras
from psycopg2 import errors, extensions

from report import ENDLESS, able, database, fails, host, port, user

c = psycopg2.connect(host=host, port=port, user=user, dbname=database, application_name="psycopg2")
assert c.server_version >= 150000 and c.encoding == "UTF8"
if c.info.ssl_in_use:
    able("connect", "password, TLS")
c.autocommit = True
cur = c.cursor()

at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
given = (42, "häu\u20acser", at, 0.5, True, Decimal("12.50"), [1, 2], None, date(2026, 1, 2), b"\x00\xff", timedelta(days=1, hours=2))
cur.execute("SELECT %s, %s, %s::timestamptz, %s, %s, %s::numeric(10,2), %s::bigint[], %s, %s::date, %s::bytea, %s::interval", given)
got = cur.fetchone()
assert got[:9] == given[:9] and bytes(got[9]) == given[9] and got[10] == given[10], got
psycopg2.extras.execute_values(cur, "INSERT INTO events (ts, path, n) VALUES %s", [(at, "many", 200 + i) for i in range(250)])
cur.execute("SELECT count(*), min(n), max(n) FROM events WHERE path = 'many'")
assert cur.fetchone() == (250, 200, 449)
cur.execute("SELECT path, n FROM events WHERE path = ANY(%s) AND n IN %s ORDER BY n", (["/a", "/b"], (1, 2, 3)))
assert cur.fetchall() == [("/a", 1), ("/b", 2), ("/b", 3)]
named = c.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor)
named.execute("SELECT path, total FROM per_path WHERE path = '/b'")
assert named.fetchone().total == 5
cur.execute("PREPARE by_path (text) AS SELECT total FROM per_path WHERE path = $1")
cur.execute("EXECUTE by_path ('/b')")
assert cur.fetchall() == [(5,)]
cur.execute("DEALLOCATE by_path")
able("parameters", "yes, PREPARE, `execute_values`, server-side cursors")

# Named cursors, in and out of a transaction.
c.autocommit = False
with c, c.cursor("portions") as portions:
    portions.itersize = 10
    portions.execute("SELECT i FROM generate_series(1, 35) AS s(i)")
    assert [row[0] for row in portions] == list(range(1, 36))
with c.cursor("held", withhold=True) as held:
    held.execute("SELECT i FROM generate_series(1, 5) AS s(i)")
    c.commit()
    assert held.fetchmany(3) == [(1,), (2,), (3,)] and held.fetchall() == [(4,), (5,)]
c.rollback()

# A failed transaction, savepoints, read-only sessions.
assert c.status == extensions.STATUS_READY
cur.execute("SELECT 1")
assert c.info.transaction_status == extensions.TRANSACTION_STATUS_INTRANS
cur.execute("SAVEPOINT here")
fails(errors.UndefinedTable, lambda: cur.execute("SELECT * FROM nowhere"), lambda err: err.pgcode == "42P01" and err.diag.severity_nonlocalized == "ERROR")
fails(errors.InFailedSqlTransaction, lambda: cur.execute("SELECT 1"))
cur.execute("ROLLBACK TO SAVEPOINT here")
cur.execute("SELECT 1")
c.rollback()
c.set_session(isolation_level="REPEATABLE READ", readonly=True)
cur.execute("SELECT count(*) FROM events WHERE n < 10")
assert cur.fetchone() == (3,)
fails(errors.ReadOnlySqlTransaction, lambda: cur.execute("INSERT INTO events (ts, path, n) VALUES (now(), 'no', 0)"))
c.rollback()
c.set_session(isolation_level="DEFAULT", readonly=False, autocommit=True)

copied = io.StringIO()
cur.copy_expert("COPY (SELECT path, n FROM events WHERE n < 10 ORDER BY n) TO STDOUT WITH CSV HEADER", copied)
assert copied.getvalue() == "path,n\n/a,1\n/b,2\n/b,3\n", copied.getvalue()
copied = io.StringIO()
cur.copy_to(copied, "events", columns=("path", "n"), sep="|")
assert sorted(line for line in copied.getvalue().splitlines() if line.startswith("/")) == ["/a|1", "/b|2", "/b|3"]
cur.copy_from(io.StringIO("2026-01-01 00:00:00+00\tcopied\t700\n"), "events", columns=("ts", "path", "n"))
assert cur.rowcount == 1
cur.execute("SELECT path FROM events WHERE n = 700")
assert cur.fetchall() == [("copied",)]
able("COPY", "text, csv")

threading.Timer(0.3, c.cancel).start()
fails(errors.QueryCanceled, lambda: cur.execute(ENDLESS))
able("cancel")

cur.execute("LISTEN jobs")
other = psycopg2.connect(host=host, port=port, user=user, dbname=database)
other.autocommit = True
other.cursor().execute("NOTIFY jobs, 'done'")
assert select.select([c], [], [], 30)[0], "no notification came"
c.poll()
heard = c.notifies.pop()
assert (heard.pid, heard.channel, heard.payload) == (other.info.backend_pid, "jobs", "done")
able("LISTEN")
other.close()
c.reset()
print("psycopg2", psycopg2.__version__.split()[0], "ok")
