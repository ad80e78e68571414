"""psycopg 3: what its users do first. Runs against Logweir and against PostgreSQL with the same schema."""
import sys, threading
from datetime import datetime, timedelta, timezone
from decimal import Decimal
import psycopg
from psycopg.rows import dict_row

from report import able

where = f"host={sys.argv[1]} port={sys.argv[2]} user=tester dbname=logweir"
with psycopg.connect(where, autocommit=True) as c:
    assert c.info.server_version >= 150000 and c.info.encoding == "utf-8"
    able("connect", "password, TLS" if c.pgconn.ssl_in_use else "yes")
    for binary in (False, True):
        cur = c.cursor(binary=binary)
        row = cur.execute(
            "SELECT %s::int + 1, %s::text, %s::timestamptz, %s::float8, %s::bool, %s::numeric(10,2), %s::bigint[], NULL::text, %s::date",
            (41, "häu\u20acser", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), 0.5, True, Decimal("12.50"), [1, 2], datetime(2026, 1, 2).date()),
        ).fetchone()
        assert row == (42, "häu\u20acser", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), 0.5, True, Decimal("12.50"), [1, 2], None, datetime(2026, 1, 2).date()), row
        assert cur.execute("SELECT interval '1 day 2 hours'").fetchone()[0] == timedelta(days=1, hours=2)
        assert cur.execute("SELECT path, n FROM events WHERE n > %s AND path = %s ORDER BY n", (1, "/b")).fetchall() == [("/b", 2), ("/b", 3)]
    able("binary")
    # Prepared by the driver after some executions.
    for i in range(8):
        assert c.execute("SELECT n FROM events WHERE n = %s", (2,), prepare=i > 3).fetchall() == [(2,)]
    assert c.cursor(row_factory=dict_row).execute("SELECT path, total FROM per_path WHERE path = %s", ("/b",)).fetchall() == [{"path": "/b", "total": 5}]
    # A server-side cursor in a transaction.
    with c.transaction(), c.cursor(name="portions") as cur:
        cur.itersize = 10
        cur.execute("SELECT i FROM generate_series(1, 35) AS s(i)")
        assert [r[0] for r in cur] == list(range(1, 36))
    # Pipelines.
    with c.pipeline():
        one, two = c.execute("SELECT 1"), c.execute("SELECT 2")
    assert (one.fetchone(), two.fetchone()) == ((1,), (2,))
    # One that fails ends its pipeline, and nothing else.
    try:
        with c.pipeline():
            c.execute("SELECT 1")
            c.execute("SELECT 1 / 0")
            c.execute("SELECT 2")
        raise SystemExit("the pipeline did not fail")
    except (psycopg.errors.DivisionByZero, psycopg.errors.PipelineAborted):
        pass
    # Rows one by one, without all of them in memory.
    with c.cursor() as cur:
        assert sum(row[0] for row in cur.stream("SELECT i FROM generate_series(1, 5000) AS s(i)")) == 12502500
    types = {info.name for info in [psycopg.types.TypeInfo.fetch(c, name) for name in ("int8", "timestamptz", "text")]}
    assert types == {"int8", "timestamptz", "text"}, types
    able("introspect", "types")
    able("parameters", "yes, prepared, pipelines, server-side cursors")
    # COPY out and in, by text, csv and rows.
    with c.cursor() as cur:
        with cur.copy("COPY (SELECT path, n FROM events ORDER BY n) TO STDOUT") as copy:
            assert list(copy.rows()) == [("/a", "1"), ("/b", "2"), ("/b", "3")]
        with cur.copy("COPY events (ts, path, n) FROM STDIN") as copy:
            copy.write_row((datetime(2026, 1, 1, tzinfo=timezone.utc), "tab\tand \\", 100))
            copy.write_row((datetime(2026, 1, 1, tzinfo=timezone.utc), None, 101))
        with cur.copy("COPY events (ts, path, n) FROM STDIN WITH (FORMAT csv)") as copy:
            copy.write('2026-01-01 00:00:00+00,"a,b",102\n')
        assert cur.rowcount == 1
    assert c.execute("SELECT path FROM events WHERE n >= 100 ORDER BY n").fetchall() == [("tab\tand \\",), (None,), ("a,b",)]
    if "binary" in sys.argv:
        with c.cursor() as cur, cur.copy("COPY (SELECT n, path FROM events WHERE n < 10 ORDER BY n) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int8", "text"])
            assert list(copy.rows()) == [(1, "/a"), (2, "/b"), (3, "/b")]
        with c.cursor() as cur, cur.copy("COPY events (ts, path, n) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["timestamptz", "text", "int8"])
            copy.write_row((datetime(2026, 1, 1, tzinfo=timezone.utc), "binary", 103))
        assert c.execute("SELECT ts, path FROM events WHERE n = 103").fetchall() == [(datetime(2026, 1, 1, tzinfo=timezone.utc), "binary")]
        able("COPY", "text, csv, binary, by rows")
    c.cursor().executemany("INSERT INTO events (ts, path, n) VALUES (%s, %s, %s)", [(datetime(2026, 1, 1, tzinfo=timezone.utc), "many", 200 + i) for i in range(5)])
    assert c.execute("SELECT count(*) FROM events WHERE path = 'many'").fetchone() == (5,)
    # Errors.
    for sql, kind in [("SELECT * FROM nowhere", psycopg.errors.UndefinedTable), ("SELECT nope FROM events", psycopg.errors.UndefinedColumn), ("SELEC", psycopg.errors.SyntaxError), ("SELECT 1/0", psycopg.errors.DivisionByZero)]:
        try:
            c.execute(sql)
            raise SystemExit(f"{sql} did not fail")
        except kind:
            pass
    # Cancel from another thread.
    threading.Timer(0.2, c.cancel_safe).start()
    try:
        c.execute("SELECT count(*) FROM generate_series(1, 100000000000)")
        raise SystemExit("was not canceled")
    except psycopg.errors.QueryCanceled:
        pass
    able("cancel")
    # Notifications.
    c.execute("LISTEN jobs")
    with psycopg.connect(where, autocommit=True) as other:
        other.execute("SELECT pg_notify(%s, %s)", ("jobs", "done"))
        got = next(c.notifies(timeout=30))
        assert (got.channel, got.payload, got.pid) == ("jobs", "done", other.info.backend_pid), got
    able("LISTEN")
    c.autocommit = False
    c.execute("SELECT 1")
    assert c.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    c.rollback()
print("psycopg", psycopg.__version__, "ok")
