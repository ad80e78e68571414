"""SQLAlchemy over psycopg: reflection, Core and text, as Superset and pandas use it."""
import sys
import sqlalchemy as sa

from report import able, authority

engine = sa.create_engine(f"postgresql+psycopg://tester@{sys.argv[1]}:{sys.argv[2]}/logweir")
inspector = sa.inspect(engine)
assert "public" in inspector.get_schema_names(), inspector.get_schema_names()
assert "events" in inspector.get_table_names(), inspector.get_table_names()
assert inspector.has_table("events") and not inspector.has_table("nowhere")
assert "plain" in inspector.get_view_names(), inspector.get_view_names()
assert "per_path" in inspector.get_materialized_view_names(), inspector.get_materialized_view_names()
columns = {c["name"]: c["type"] for c in inspector.get_columns("events")}
assert list(columns) == ["ts", "path", "n"], columns
assert isinstance(columns["ts"], sa.types.DateTime) and columns["ts"].timezone
assert isinstance(columns["path"], sa.types.String) and isinstance(columns["n"], sa.types.BigInteger), columns
assert [c["name"] for c in inspector.get_columns("per_path")] == ["path", "total"]
assert inspector.get_pk_constraint("events")["constrained_columns"] == []
assert inspector.get_foreign_keys("events") == [] and inspector.get_indexes("events") == []
assert inspector.get_unique_constraints("events") == [] and inspector.get_check_constraints("events") == []
inspector.get_table_comment("events")
able("connect", "password, TLS" if authority else "yes")
able("introspect", "schemas, tables, views, columns, keys, indexes")
meta = sa.MetaData()
events = sa.Table("events", meta, autoload_with=engine)
with engine.connect() as c:
    query = sa.select(events.c.path, sa.func.count().label("rows")).where(events.c.n < 10).group_by(events.c.path).order_by(sa.desc("rows"))
    assert c.execute(query).all() == [("/b", 2), ("/a", 1)]
    assert c.execute(sa.text("SELECT total FROM per_path WHERE path = :p"), {"p": "/b"}).scalar() == 5
    minute = sa.func.date_trunc("minute", events.c.ts).label("minute")
    assert len(c.execute(sa.select(minute, sa.func.sum(events.c.n)).where(events.c.n < 10).group_by(minute).order_by(minute).limit(10)).all()) == 1
    assert c.execute(sa.select(events.c.n).where(events.c.path.in_(["/a", "/b"]), events.c.n.between(1, 2)).order_by(events.c.n).offset(1)).all() == [(2,)]
    assert c.execute(sa.select(events.c.n).where(events.c.path.ilike("/B%"), events.c.n < 10).order_by(events.c.n)).all() == [(2,), (3,)]
# Levels of isolation and read-only connections, as its users ask for them.
with engine.connect().execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True, postgresql_deferrable=True) as c:
    assert c.get_isolation_level() == "SERIALIZABLE" and c.execute(sa.select(events.c.n).where(events.c.n == 1)).scalar() == 1
with engine.begin() as c:
    c.execute(sa.insert(events), [{"ts": "2026-01-01 00:00:00+00", "path": "alchemy", "n": 300 + i} for i in range(5)])
    with c.begin_nested() as nested:
        assert c.execute(sa.select(sa.func.count()).select_from(events).where(events.c.path == "alchemy")).scalar() == 5
able("parameters", "yes, Core, transactions")
print("SQLAlchemy", sa.__version__, "ok")
