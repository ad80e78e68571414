"""asyncpg: binary throughout, with its own introspection of types."""
import asyncio, sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
import asyncpg

from report import able, authority

async def main():
    where = dict(host=sys.argv[1], port=int(sys.argv[2]), user="tester", database="logweir")
    c = await asyncpg.connect(**where)
    assert c.get_server_version().major >= 15
    able("connect", "password, TLS" if authority else "yes")
    now = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)
    row = await c.fetchrow("SELECT $1::int AS a, $2::text AS b, $3::timestamptz AS c, $4::float8 AS d, $5::bool AS e, $6::numeric(10,2) AS f, $7::bigint[] AS g, NULL::text AS h, interval '1 day 2 hours' AS i",
                           42, "häuser", now, 0.5, True, Decimal("12.50"), [1, 2])
    assert tuple(row) == (42, "häuser", now, 0.5, True, Decimal("12.50"), [1, 2], None, timedelta(days=1, hours=2)), row
    assert [tuple(r) for r in await c.fetch("SELECT path, n FROM events WHERE n < $1 AND path = $2 ORDER BY n", 10, "/b")] == [("/b", 2), ("/b", 3)]
    able("introspect", "types")
    able("binary")
    statement = await c.prepare("SELECT total FROM per_path WHERE path = $1")
    assert [p.name for p in statement.get_parameters()] == ["text"], statement.get_parameters()
    assert await statement.fetchval("/b") == 5 and await statement.fetchval("/a") == 1
    async with c.transaction():
        got = [r[0] async for r in c.cursor("SELECT i FROM generate_series(1, 120) AS s(i)", prefetch=50)]
    assert got == list(range(1, 121))
    await c.executemany("INSERT INTO events (ts, path, n) VALUES ($1, $2, $3)", [(now, "async", 300 + i) for i in range(5)])
    assert await c.fetchval("SELECT count(*) FROM events WHERE path = 'async'") == 5
    able("parameters", "yes, prepared, pools, cursors")
    out = []
    async def sink(data): out.append(data)
    await c.copy_from_query("SELECT path, n FROM events WHERE n < 10 ORDER BY n", output=sink, format="csv")
    assert b"".join(out) == b"/a,1\n/b,2\n/b,3\n", out
    if "binary" in sys.argv:
        # The driver sends rows in binary only.
        assert await c.copy_records_to_table("events", records=[(now, "record", 400 + i) for i in range(3)], columns=["ts", "path", "n"]) == "COPY 3"
        assert await c.fetchval("SELECT count(*) FROM events WHERE path = 'record'") == 3
        able("COPY", "csv, binary (`copy_records_to_table`)")
    try:
        await c.fetch("SELECT * FROM nowhere")
        raise SystemExit("did not fail")
    except asyncpg.UndefinedTableError:
        pass
    try:
        await c.fetch("SELECT count(*) FROM generate_series(1, 100000000000)", timeout=0.3)
        raise SystemExit("was not canceled")
    except asyncio.TimeoutError:
        pass
    assert await c.fetchval("SELECT 1") == 1
    able("cancel")
    heard = asyncio.get_running_loop().create_future()
    await c.add_listener("jobs", lambda _, pid, channel, payload: heard.set_result((pid, channel, payload)))
    other = await asyncpg.connect(**where)
    await other.execute("NOTIFY jobs, 'done'")
    assert await asyncio.wait_for(heard, 30) == (other.get_server_pid(), "jobs", "done")
    able("LISTEN")
    await other.close()
    await c.reset()
    await c.close()
    async with asyncpg.create_pool(**where, min_size=2, max_size=4) as pool:
        assert await asyncio.gather(*(pool.fetchval("SELECT $1::int", i) for i in range(20))) == list(range(20))

asyncio.run(main())
print("asyncpg", asyncpg.__version__, "ok")
